//! The event loop: sessions of the real core over simulated lines, under a virtual clock. Not responsible for
//! scenarios or for printing; it does what it is told and keeps count.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};
use std::ops::Range;

use bamqp_core::limits::SLOT_BYTES;
use bamqp_core::rules::Rules;
use bamqp_core::time::{Instant, Span};
use bamqp_core::transfer::{
    ClientDo, ClientEvent, Conn, Fault, LaneDo, LaneEvent, LaneId, LaneState, LaneView, Outcome, OwnLink,
    Transfer, Wake,
};

use bamqp_core::trust::Standing;
use bamqp_core::verify::{Places, Sample};

use super::content::{Buffer, Content, Tamper};
use super::household::Watched;
use super::lines::{FlowId, LineId, Net, NetEvent};
use super::random::Random;
use super::reorder::Reorder;

/// Positions remembered ahead of the client: 16 MiB of them.
const SLOTS: usize = 1024;

/// About how long the head of an answer is, and what a part of one with several ranges has besides its bytes.
const HEAD_BYTES: u64 = 330;
const PART_BYTES: u64 = 117;

/// What a session is to do.
#[derive(Clone, Debug)]
pub struct Job {
    /// The coordinator's line.
    pub own: LineId,
    /// The peers' lines.
    pub peers: Vec<LineId>,
    /// The file's bytes that the client asked for.
    pub range: Range<u64>,
    /// The window in bytes.
    pub window: usize,
    /// What a peer holds besides the window, in bytes.
    pub hold: u32,
    /// What each connection's socket buffer holds, in bytes.
    pub socket: u32,
    /// How fast the client reads, bytes per second; 0: at once.
    pub client_rate: u64,
    /// How long a peer takes to accept.
    pub accept: Span,
    /// How far the peers are trusted: with that how closely they are checked.
    pub standing: Standing,
    /// The scheduling rules that are kept.
    pub rules: Rules,
    /// From what the coordinator draws the places that it checks.
    pub seed: u64,
}

impl Job {
    /// A download with what is usual: peers that hold 128 KiB, sockets of 256 KiB, a client that reads at once, peers
    /// that accept within 2 ms and have a clean record.
    pub fn new(own: LineId, peers: Vec<LineId>, range: Range<u64>, window: usize) -> Job {
        let (hold, socket) = (128 << 10, 256 << 10);
        let (accept, standing) = (Span::from_millis(2), Standing::Trusted { accused: false });
        let rules = Rules::default();
        Job { own, peers, range, window, hold, socket, client_rate: 0, accept, standing, rules, seed: 1 }
    }
}

/// What became of a session.
#[derive(Clone, Debug)]
pub struct Result {
    /// The coordinator's line.
    pub own: LineId,
    /// How it ended.
    pub outcome: Outcome,
    /// When it began.
    pub began: Instant,
    /// When the client had its last byte.
    pub ended: Instant,
    /// When the client had its first byte.
    pub first_byte: Instant,
    /// What the client had after the first second.
    pub after_a_second: u64,
    /// Bytes that reached the client.
    pub bytes: u64,
    /// The longest time in which the client got nothing, after its first byte.
    pub standstill: Span,
    /// Bytes of buffer in use at most.
    pub window_used: usize,
    /// From the first lane that had nothing more to bring to the last, of those that took part to the end.
    pub tail: Span,
    /// The lanes, in the order of their ids.
    pub lanes: Vec<LaneView>,
    /// The order in which slots arrived.
    pub reorder: Reorder,
    /// Chunks of which the client got altered bytes.
    pub escaped: u64,
    /// Bytes that the client got of another variant than the own link's.
    pub mixed: u64,
}

impl Result {
    /// Bytes of the own link that were fetched only to check peers, of a thousand of the payload.
    pub fn check_cost(&self) -> f64 {
        let checked: u64 = self.lanes.iter().map(|lane| lane.stats.checked).sum();
        checked as f64 * 1_000.0 / self.bytes.max(1) as f64
    }
}

/// Something that happens to a line.
#[derive(Clone, Copy, Debug)]
pub enum Happening {
    /// Another rate, bytes per second; 0: it goes silent.
    Rate(LineId, u64),
    /// It goes down: connections break and none can be made.
    Down(LineId),
    /// It comes back.
    Up(LineId),
    /// Every further request over this line gets an answer that is of no use for this reason.
    Refuse(LineId, Fault),
    /// The origin serves so many connections over one line; requests on further ones are answered with 503.
    Limit(usize),
    /// The file changed at the origin: every further answer says so.
    Change,
    /// The peer with this line looks from now on what its household uses of it.
    Watch(LineId),
    /// The household behind this line downloads from now on.
    Busy(LineId),
    /// It has what it wanted.
    Calm(LineId),
    /// The peer with this line alters what it brings.
    Lie(LineId, Tamper),
    /// The origin serves another variant over this line.
    Variant(LineId, u8),
    /// The origin answers one range at a time only.
    OneRange,
}

enum Event {
    Net(NetEvent),
    Lane(usize, usize, u64),
    Client(usize, u64),
    Written(usize),
    Ready(usize, usize),
    Start(usize),
    Sample(LineId),
    Happen(Happening),
}

enum Doing {
    Joining,
    Sampling(Conn),
    Reading {
        conn: Conn,
        slot: Buffer,
        at: u64,
        len: u32,
        got: u32,
        head: Option<bamqp_core::transfer::HeadTimes>,
        mark: u32,
    },
    Waiting,
    Ended,
}

/// What an answer that is under way is made of.
struct Answer {
    left: u64,
    content: Content,
    places: Option<Places>,
}

struct Driver {
    line: LineId,
    doing: Doing,
    turn: u64,
    flows: [Option<FlowId>; 2],
    answers: [VecDeque<Answer>; 2],
    buffer: u64,
    /// When it brought something last.
    brought: Option<Instant>,
}

struct Session {
    job: Job,
    transfer: Transfer<Buffer, SLOTS>,
    drivers: Vec<Driver>,
    writing: Option<Buffer>,
    client_turn: u64,
    next_byte: u64,
    began: Instant,
    first_byte: Option<Instant>,
    last_byte: Instant,
    standstill: Span,
    after_a_second: u64,
    arrivals: Vec<u64>,
    escaped: BTreeSet<u64>,
    mixed: u64,
}

/// Lines, sessions and the clock.
#[derive(Default)]
pub struct World {
    /// The lines.
    pub net: Net,
    now: Instant,
    heap: BinaryHeap<Reverse<(Instant, u64)>>,
    events: BTreeMap<u64, Event>,
    count: u64,
    jobs: Vec<Job>,
    sessions: BTreeMap<usize, Box<Session>>,
    owners: BTreeMap<FlowId, (usize, usize)>,
    results: BTreeMap<usize, Result>,
    refused: BTreeMap<LineId, Fault>,
    limit: Option<usize>,
    changed: bool,
    tampers: BTreeMap<LineId, Tamper>,
    variants: BTreeMap<LineId, u8>,
    one_range: bool,
    lies_told: u64,
    dice: Option<Random>,
    watched: BTreeMap<LineId, Watched>,
    faults_met: u64,
}

impl World {
    /// A world of these lines in which nothing has happened yet.
    pub fn over(net: Net) -> Self {
        Self { net, ..Self::default() }
    }

    /// The virtual time.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// Starts a download at `at`; its number.
    pub fn start(&mut self, at: Instant, job: Job) -> usize {
        self.jobs.push(job);
        self.schedule(at, Event::Start(self.jobs.len() - 1));
        self.jobs.len() - 1
    }

    /// Has something happen to a line at `at`.
    pub fn happen(&mut self, at: Instant, what: Happening) {
        self.schedule(at, Event::Happen(what));
    }

    /// Runs until nothing is left to do or `until`, and hands over what ended meanwhile.
    pub fn run(&mut self, until: Instant) -> BTreeMap<usize, Result> {
        while let Some(Reverse((at, number))) = self.heap.peek().copied() {
            if at > until {
                self.now = until;
                break;
            }
            self.heap.pop();
            self.now = at;
            if let Some(event) = self.events.remove(&number) {
                self.take_place(event);
            }
            for (at, event) in std::mem::take(&mut self.net.later) {
                self.schedule(at, Event::Net(event));
            }
        }
        std::mem::take(&mut self.results)
    }

    /// How many requests got an answer that was of no use.
    pub fn faults_met(&self) -> u64 {
        self.faults_met
    }

    /// How many chunks were altered.
    pub fn lies_told(&self) -> u64 {
        self.lies_told
    }

    /// What liars do is drawn from this.
    pub fn set_seed(&mut self, seed: u64) {
        self.dice = Some(Random::new(seed));
    }

    /// Whether a line is used by a session at present.
    pub fn is_busy(&self, line: LineId) -> bool {
        self.sessions.values().any(|s| s.drivers.iter().any(|d| d.line == line))
    }

    /// What part of its line the household behind it had from a second after it woke up until the last download ended.
    pub fn household_part(&self, line: LineId) -> Option<f64> {
        Some(self.watched.get(&line)?.household_rate()? / self.net.lines[line].rate as f64)
    }

    fn watch(&mut self, line: LineId) {
        self.watched.insert(line, Watched::new(self.now, self.net.lines[line].rate));
        self.schedule(self.now + super::household::EVERY, Event::Sample(line));
    }

    fn wake_household(&mut self, line: LineId) {
        self.faults_met += 1;
        if let Some(watched) = self.watched.get_mut(&line) {
            watched.wake(self.now, line, &mut self.net);
        }
    }

    /// A peer looks at its line; if its household wants it, what it fetches for others ends.
    fn sample_line(&mut self, line: LineId) {
        let is_over = self.sessions.is_empty();
        let Some(watched) = self.watched.get_mut(&line) else { return };
        if is_over {
            return watched.end(self.now, &mut self.net);
        }
        watched.sample(self.now, line, &mut self.net);
        if let Some(seconds) = watched.withdrawn_for(self.now) {
            for flow in self.net.flows_of(line).collect::<Vec<_>>() {
                if let Some(&(s, lane)) = self.owners.get(&flow) {
                    self.fail(s, lane, Fault::Withdrawn(seconds));
                }
            }
        }
        self.schedule(self.now + super::household::EVERY, Event::Sample(line));
    }

    /// The lanes of a session that is under way.
    pub fn lanes(&self, number: usize) -> Vec<LaneView> {
        self.sessions.get(&number).map(|s| s.transfer.report().collect()).unwrap_or_default()
    }

    fn schedule(&mut self, at: Instant, event: Event) {
        self.count += 1;
        self.heap.push(Reverse((at, self.count)));
        self.events.insert(self.count, event);
    }

    fn take_place(&mut self, event: Event) {
        match event {
            Event::Net(event) => {
                if let Some(&(s, lane)) =
                    self.net.event(self.now, event).and_then(|flow| self.owners.get(&flow))
                {
                    self.read_on(s, lane, false);
                }
            }
            Event::Lane(s, lane, turn) => {
                let is_due =
                    |world: &World| world.sessions.get(&s).is_some_and(|x| x.drivers[lane].turn == turn);
                if is_due(self) {
                    // What came but was not worth waking up for.
                    self.read_on(s, lane, true);
                }
                if is_due(self) {
                    self.come_back(s, lane);
                }
            }
            Event::Client(s, turn) => {
                if self.sessions.get(&s).is_some_and(|x| x.client_turn == turn) {
                    self.client(s, ClientEvent::Idle);
                }
            }
            Event::Written(s) => {
                if let Some(buffer) = self.sessions.get_mut(&s).and_then(|x| x.writing.take()) {
                    self.client(s, ClientEvent::Written(buffer));
                }
            }
            Event::Ready(s, lane) => {
                let Some(session) = self.sessions.get(&s) else { return };
                let line = &self.net.lines[session.drivers[lane].line];
                let event = match (line.up, session.job.hold) {
                    (true, hold) => LaneEvent::Ready { rate: line.rate, hold },
                    (false, _) => LaneEvent::Failed { slot: None, why: Fault::Unreachable },
                };
                self.lane(s, lane, event);
            }
            Event::Start(number) => self.begin(number),
            Event::Sample(line) => self.sample_line(line),
            Event::Happen(what) => self.happens(what),
        }
    }

    fn begin(&mut self, number: usize) {
        let job = self.jobs[number].clone();
        let line = &self.net.lines[job.own];
        // The head of the response came one handshake and one round trip after the request.
        let (rtt, began) = (line.rtt, self.now);
        self.now = began + rtt.scale(2, 1);
        let own = OwnLink { rate: line.rate, rtt, hold: job.socket.min(256 << 10) };
        let buffers = (0..job.window / SLOT_BYTES).map(|_| Buffer::default());
        let mut secret = [0; 32];
        secret[..8].copy_from_slice(&job.seed.to_be_bytes());
        secret[8..16].copy_from_slice(&(number as u64).to_be_bytes());
        let mut transfer =
            Transfer::new(self.now, job.range.clone(), buffers, own, secret).expect("a range and a window");
        transfer.keep_only(job.rules);
        let driver = |line, buffer: u32| Driver {
            line,
            doing: Doing::Joining,
            turn: 0,
            flows: [None; 2],
            answers: Default::default(),
            buffer: buffer.into(),
            brought: None,
        };
        let mut drivers = vec![driver(job.own, job.socket), driver(job.own, job.socket)];
        for &peer in &job.peers {
            if transfer.add_peer(self.now, 500_000, rtt, job.standing).is_none() {
                break;
            }
            drivers.push(driver(peer, job.socket + job.hold));
        }
        // The original response: its request was sent earlier, by the proxy.
        let flow = self.net.open(began, job.own, job.socket.into());
        self.net.request(began, flow, job.range.end - job.range.start, None);
        drivers[0].flows[0] = Some(flow);
        let content = Content::of(self.variants.get(&job.own).copied().unwrap_or(0));
        let left = job.range.end - job.range.start;
        drivers[0].answers[0].push_back(Answer { left, content, places: None });
        self.owners.insert(flow, (number, 0));
        let lanes = drivers.len();
        let (accept, ready) = (job.accept, self.now);
        let session = Session {
            next_byte: job.range.start,
            job,
            transfer,
            drivers,
            writing: None,
            client_turn: 0,
            began,
            first_byte: None,
            last_byte: began,
            standstill: Span::ZERO,
            after_a_second: 0,
            arrivals: Vec::new(),
            escaped: BTreeSet::new(),
            mixed: 0,
        };
        self.sessions.insert(number, Box::new(session));
        self.client(number, ClientEvent::Idle);
        self.lane(number, 0, LaneEvent::Idle);
        self.lane(number, 1, LaneEvent::Idle);
        for lane in 2..lanes {
            self.schedule(ready + accept, Event::Ready(number, lane));
        }
        self.now = began;
    }

    fn happens(&mut self, what: Happening) {
        match what {
            Happening::Rate(line, rate) => {
                self.net.lines[line].rate = rate;
                self.net.later.push((self.now, NetEvent::Kick(line)));
            }
            Happening::Up(line) => self.net.lines[line].up = true,
            Happening::Refuse(line, why) => {
                self.refused.insert(line, why);
            }
            Happening::Limit(connections) => self.limit = Some(connections),
            Happening::Change => self.changed = true,
            Happening::Lie(line, tamper) => {
                self.tampers.insert(line, tamper);
            }
            Happening::Variant(line, variant) => {
                self.faults_met += 1;
                self.variants.insert(line, variant);
            }
            Happening::OneRange => self.one_range = true,
            Happening::Watch(line) => self.watch(line),
            Happening::Busy(line) => self.wake_household(line),
            Happening::Calm(line) => {
                if let Some(watched) = self.watched.get_mut(&line) {
                    watched.end(self.now, &mut self.net);
                }
            }
            Happening::Down(line) => {
                self.net.lines[line].up = false;
                for flow in self.net.flows_of(line).collect::<Vec<_>>() {
                    if let Some(&(s, lane)) = self.owners.get(&flow) {
                        self.fail(s, lane, Fault::Closed);
                    }
                }
            }
        }
    }

    /// The lane's thread was woken, or its time has come.
    fn come_back(&mut self, s: usize, lane: usize) {
        let Some(session) = self.sessions.get_mut(&s) else { return };
        match std::mem::replace(&mut session.drivers[lane].doing, Doing::Waiting) {
            Doing::Reading { conn, slot, at, got, head, .. } => {
                self.lane(s, lane, LaneEvent::Filled { conn, slot, at, len: got, head });
            }
            Doing::Waiting | Doing::Sampling(_) => self.lane(s, lane, LaneEvent::Idle),
            other => session.drivers[lane].doing = other,
        }
    }

    /// Something arrived, or the lane begins to read (`at_once`): it reads what is there, but waits until that is as much
    /// as is worth waking up for.
    fn read_on(&mut self, s: usize, lane: usize, at_once: bool) {
        let Some(session) = self.sessions.get_mut(&s) else { return };
        let driver = &mut session.drivers[lane];
        if let Doing::Sampling(conn) = driver.doing {
            return self.sample(s, lane, conn);
        }
        let Doing::Reading { conn, slot, at, len, got, head, mark } = &mut driver.doing else { return };
        let Some(flow) = driver.flows[*conn as usize] else { return };
        // What is there is read when it is all that the slot needs, or as much as is worth waking up for.
        let (there, answer_ends) = self.net.readable(flow);
        let wanted = if *mark <= *len { (*mark).min(*len - *got) } else { *mark };
        if !at_once && there < u64::from(wanted) && !answer_ends {
            return;
        }
        let (n, new_head) = self.net.read(self.now, flow, u64::from(*len - *got));
        *head = head.or(new_head);
        if n == 0 {
            if let Some(why) = self.net.fault(flow) {
                self.fail(s, lane, why);
            }
            return;
        }
        let start = *at + u64::from(*got);
        // Bytes must land behind those that are there already, or begin a slot anew.
        let answers = &mut driver.answers[*conn as usize];
        let Some(answer) = answers.front_mut() else { return };
        if slot.range.end != start || start % SLOT_BYTES as u64 == 0 {
            *slot = Buffer { range: start..start, content: answer.content.clone() };
        }
        slot.range.end = start + n;
        *got += n as u32;
        answer.left -= n;
        if answer.left == 0 {
            answers.pop_front();
        }
        if got == len {
            self.come_back(s, lane);
        }
    }

    /// Reports the places that were asked for, once all of the answer is there.
    fn sample(&mut self, s: usize, lane: usize, conn: Conn) {
        let Some(driver) = self.sessions.get_mut(&s).map(|session| &mut session.drivers[lane]) else {
            return;
        };
        let Some(flow) = driver.flows[conn as usize] else { return };
        if let Some(why) = self.net.fault(flow) {
            return self.fail(s, lane, why);
        }
        let Some(answer) = driver.answers[conn as usize].front_mut() else { return };
        if self.net.readable_of_one(flow) < answer.left {
            return;
        }
        let wire = answer.left;
        let (_, head) = self.net.read(self.now, flow, wire);
        let answer = driver.answers[conn as usize].pop_front().expect("it was at the front");
        driver.doing = Doing::Waiting;
        let places = answer.places.expect("places were asked for");
        let sample = |place: Range<u64>| {
            let mut bytes = [0; 16];
            bytes.iter_mut().zip(place.clone()).for_each(|(byte, at)| *byte = answer.content.byte(at));
            Sample { at: place.start, bytes }
        };
        let samples: Vec<Sample> = places.iter().map(sample).collect();
        self.lane(s, lane, LaneEvent::Sampled { conn, samples: &samples, wire: wire as u32, head });
    }

    /// What an answer over `line` is made of, to a request for these bytes of the file.
    fn content(&mut self, line: LineId, range: &Range<u64>) -> Content {
        let mut content = Content::of(self.variants.get(&line).copied().unwrap_or(0));
        if let Some(tamper) = self.tampers.get_mut(&line) {
            let dice = self.dice.get_or_insert_with(|| Random::new(1));
            if let Some(altered) = tamper.alter(range, dice) {
                self.lies_told += 1;
                content.altered = altered;
            }
        }
        content
    }

    fn fail(&mut self, s: usize, lane: usize, why: Fault) {
        let Some(session) = self.sessions.get_mut(&s) else { return };
        let driver = &mut session.drivers[lane];
        let slot = match std::mem::replace(&mut driver.doing, Doing::Waiting) {
            Doing::Reading { slot, .. } => Some(slot),
            Doing::Ended => {
                driver.doing = Doing::Ended;
                return;
            }
            Doing::Joining | Doing::Waiting | Doing::Sampling(_) => None,
        };
        self.close(s, lane);
        self.lane(s, lane, LaneEvent::Failed { slot, why });
    }

    fn close(&mut self, s: usize, lane: usize) {
        let Some(session) = self.sessions.get_mut(&s) else { return };
        session.drivers[lane].answers = Default::default();
        for flow in session.drivers[lane].flows.iter_mut().filter_map(Option::take) {
            self.net.close(self.now, flow);
            self.owners.remove(&flow);
        }
    }

    fn lane(&mut self, s: usize, lane: usize, event: LaneEvent<'_, Buffer>) {
        let Some(session) = self.sessions.get_mut(&s) else { return };
        if let LaneEvent::Filled { at, len, .. } = &event {
            let end = at + u64::from(*len);
            if *len > 0 {
                session.drivers[lane].brought = Some(self.now);
            }
            if *len > 0 && (end.is_multiple_of(SLOT_BYTES as u64) || end == session.job.range.end) {
                session.arrivals.push(at / SLOT_BYTES as u64);
            }
        }
        let (what, wake) = session.transfer.lane(self.now, lane_id(lane), event);
        let driver = &mut session.drivers[lane];
        driver.turn += 1;
        let turn = driver.turn;
        match what {
            LaneDo::Request { conn, range } => {
                driver.doing = Doing::Waiting;
                let line = driver.line;
                let content = self.content(line, &range);
                let answer = Answer { left: range.end - range.start, content, places: None };
                self.ask(s, lane, (conn, turn), answer, wake);
                return;
            }
            LaneDo::Sample { conn, places } => {
                driver.doing = Doing::Waiting;
                let line = driver.line;
                let (count, several) = (places.len() as u64, places.len() > 1);
                let left = match several {
                    true => HEAD_BYTES + count * (PART_BYTES + 16),
                    false => HEAD_BYTES + 16,
                };
                let content = Content::of(self.variants.get(&line).copied().unwrap_or(0));
                self.ask(s, lane, (conn, turn), Answer { left, content, places: Some(places) }, wake);
                return;
            }
            LaneDo::ReadSample { conn, by } => {
                driver.doing = Doing::Sampling(conn);
                self.schedule(by, Event::Lane(s, lane, turn));
                self.read_on(s, lane, true);
            }
            LaneDo::Read { conn, slot, at, len, mark, by } => {
                driver.doing = Doing::Reading { conn, slot, at, len, got: 0, head: None, mark };
                self.schedule(by, Event::Lane(s, lane, turn));
                self.read_on(s, lane, true);
            }
            LaneDo::Wait(until) => {
                driver.doing = Doing::Waiting;
                if let Some(until) = until {
                    self.schedule(until, Event::Lane(s, lane, turn));
                }
            }
            LaneDo::Close => {
                driver.doing = Doing::Waiting;
                self.close(s, lane);
                self.schedule(self.now, Event::Lane(s, lane, turn));
            }
            LaneDo::End => {
                driver.doing = Doing::Ended;
                self.close(s, lane);
            }
        }
        self.wake(s, wake);
    }

    /// The lane's request goes out.
    fn ask(&mut self, s: usize, lane: usize, (conn, turn): (Conn, u64), answer: Answer, wake: Wake) {
        let Some(session) = self.sessions.get_mut(&s) else { return };
        let driver = &mut session.drivers[lane];
        let line = driver.line;
        if !self.net.lines[line].up {
            self.wake(s, wake);
            return self.fail(s, lane, Fault::Unreachable);
        }
        if let Some(seconds) = self.watched.get(&line).and_then(|watched| watched.withdrawn_for(self.now)) {
            self.wake(s, wake);
            return self.fail(s, lane, Fault::Withdrawn(seconds));
        }
        let buffer = driver.buffer;
        let flow = *driver.flows[conn as usize].get_or_insert_with(|| self.net.open(self.now, line, buffer));
        self.owners.insert(flow, (s, lane));
        let place = self.net.flows_of(line).position(|f| f == flow);
        let several = answer.places.as_ref().is_some_and(|places| places.len() > 1);
        let fault = match () {
            () if self.limit.is_some_and(|limit| place.is_some_and(|p| p >= limit)) => {
                Some(Fault::Status(503))
            }
            () if self.changed => Some(Fault::Changed),
            () if self.one_range && several => Some(Fault::Status(200)),
            () => self.refused.get(&line).copied(),
        };
        self.faults_met += u64::from(fault.is_some());
        self.net.request(self.now, flow, answer.left, fault);
        driver.answers[conn as usize].push_back(answer);
        self.schedule(self.now, Event::Lane(s, lane, turn));
        self.wake(s, wake);
    }

    fn client(&mut self, s: usize, event: ClientEvent<Buffer>) {
        let Some(session) = self.sessions.get_mut(&s) else { return };
        if session.writing.is_some() {
            return;
        }
        let (what, wake) = session.transfer.client(self.now, event);
        session.client_turn += 1;
        let turn = session.client_turn;
        match what {
            ClientDo::Write { slot, start, len } => {
                let expected = session.next_byte..session.next_byte + u64::from(len);
                assert_eq!(slot.range, expected, "the client gets each byte once and in order");
                if slot.content.altered.start < expected.end && expected.start < slot.content.altered.end {
                    session.escaped.insert(slot.content.altered.start);
                }
                let own = self.variants.get(&session.job.own).copied().unwrap_or(0);
                session.mixed += if slot.content.variant == own { 0 } else { u64::from(len) };
                assert_eq!(u64::from(start), expected.start % SLOT_BYTES as u64);
                session.next_byte = expected.end;
                if session.first_byte.is_some() {
                    session.standstill = session.standstill.max(self.now.since(session.last_byte));
                }
                session.first_byte.get_or_insert(self.now);
                if self.now.since(session.began) <= Span::from_millis(1_000) {
                    session.after_a_second += u64::from(len);
                }
                let takes = match session.job.client_rate {
                    0 => Span::ZERO,
                    rate => Span::from_micros(u64::from(len) * 1_000_000 / rate),
                };
                session.last_byte = self.now + takes;
                session.writing = Some(slot);
                self.schedule(self.now + takes, Event::Written(s));
            }
            ClientDo::Wait(until) => {
                if let Some(until) = until {
                    self.schedule(until, Event::Client(s, turn));
                }
            }
            ClientDo::End(outcome) => {
                self.wake(s, wake);
                return self.finish(s, outcome);
            }
        }
        self.wake(s, wake);
    }

    fn finish(&mut self, s: usize, outcome: Outcome) {
        (0..self.sessions[&s].drivers.len()).for_each(|lane| self.close(s, lane));
        let Some(session) = self.sessions.remove(&s) else { return };
        let range = &session.job.range;
        let lanes: Vec<LaneView> = session.transfer.report().collect();
        let up = lanes.iter().zip(&session.drivers).filter(|(lane, _)| lane.state == LaneState::Up);
        let brought: Vec<Instant> = up.filter_map(|(_, driver)| driver.brought).collect();
        let tail = brought.iter().max().zip(brought.iter().min()).map(|(last, first)| last.since(*first));
        let result = Result {
            own: session.job.own,
            outcome,
            began: session.began,
            ended: session.last_byte,
            first_byte: session.first_byte.unwrap_or(self.now),
            after_a_second: session.after_a_second,
            bytes: session.next_byte - range.start,
            standstill: session.standstill,
            window_used: session.transfer.window_used(),
            tail: tail.unwrap_or_default(),
            lanes,
            reorder: Reorder::of(range.start / SLOT_BYTES as u64, &session.arrivals),
            escaped: session.escaped.len() as u64,
            mixed: session.mixed,
        };
        if outcome == Outcome::Complete {
            assert_eq!(session.next_byte, range.end, "a complete download has all of its bytes");
        }
        self.results.insert(s, result);
    }

    fn wake(&mut self, s: usize, wake: Wake) {
        let Some(session) = self.sessions.get(&s) else { return };
        let mut due = Vec::new();
        for (lane, driver) in session.drivers.iter().enumerate() {
            if wake.lane(lane) {
                due.push(Event::Lane(s, lane, driver.turn));
            }
        }
        if wake.client() {
            due.push(Event::Client(s, session.client_turn));
        }
        due.into_iter().for_each(|event| self.schedule(self.now, event));
    }
}

fn lane_id(lane: usize) -> LaneId {
    LaneId::from_index(lane)
}
