//! The event loop: sessions of the real core over simulated lines, under a virtual clock. Not responsible for
//! scenarios or for printing; it does what it is told and keeps count.
//!
//! ```text
//! job (what is to be done) ─▶ a session: client ◀─ core ◀─ lanes ─▶ lines
//!                                                             └──▶ passing: a session of the peer's own ─▶ lines
//! ```

mod job;
mod lanes;
mod passing;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use bamqp_core::hops::AFTER_OTHERS;
use bamqp_core::limits::SLOT_BYTES;
use bamqp_core::time::{Instant, Span};
use bamqp_core::transfer::{
    ClientDo, ClientEvent, Fault, LaneEvent, LaneState, LaneView, Outcome, OwnLink, Transfer, Wake,
};

pub use self::job::{Happening, Job, PassedOn, Result};
use self::lanes::{Answer, Driver, Via};
use self::passing::Passing;
use super::content::{Buffer, Content, Tamper};
use super::household::Watched;
use super::lines::{FlowId, LineId, Net, NetEvent};
use super::random::Random;
use super::reorder::Reorder;

/// Positions remembered ahead of the client: 16 MiB of them.
const SLOTS: usize = 1024;

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

struct Session {
    job: Job,
    transfer: Box<Transfer<Buffer, SLOTS>>,
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
    /// If it is a part of another session.
    passing: Option<Passing>,
    passed_on: Vec<PassedOn>,
}

impl Session {
    fn new(now: Instant, job: Job, transfer: Box<Transfer<Buffer, SLOTS>>, drivers: Vec<Driver>) -> Session {
        Session {
            next_byte: job.range.start,
            job,
            transfer,
            drivers,
            writing: None,
            client_turn: 0,
            began: now,
            first_byte: None,
            last_byte: now,
            standstill: Span::ZERO,
            after_a_second: 0,
            arrivals: Vec::new(),
            escaped: BTreeSet::new(),
            mixed: 0,
            passing: None,
            passed_on: Vec::new(),
        }
    }
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
    sessions: BTreeMap<usize, Session>,
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
            for (s, lane) in self.passed_on_by(line) {
                self.fail(s, lane, Fault::Withdrawn(seconds));
            }
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
            Event::Ready(s, lane) => self.answers(s, lane),
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
        let transfer = Transfer::new(self.now, job.range.clone(), buffers(&job), own, secret(&job, number));
        let mut transfer = Box::new(transfer.expect("a range and a window"));
        transfer.keep_only(job.rules);
        let mut drivers = drivers(self.now, &mut transfer, &job, rtt);
        // The original response: its request was sent earlier, by the proxy.
        let flow = self.net.open(began, job.own, job.socket.into());
        let (left, at) = (job.range.end - job.range.start, job.range.start);
        self.net.request(began, flow, left, None);
        drivers[0].conns[0].flow = Some(flow);
        let content = Content::of(self.variants.get(&job.own).copied().unwrap_or(0));
        drivers[0].conns[0].answers.push_back(Answer { left, at, content, places: None, via: Via::Origin });
        self.owners.insert(flow, (number, 0));
        let session = Session::new(began, job, transfer, drivers);
        self.sessions.insert(number, session);
        self.client(number, ClientEvent::Idle);
        self.start_lanes(number);
        self.now = began;
    }

    /// The own link begins, and peers are asked.
    fn start_lanes(&mut self, s: usize) {
        self.lane(s, 0, LaneEvent::Idle);
        self.lane(s, 1, LaneEvent::Idle);
        let Some(session) = self.sessions.get(&s) else { return };
        let after_others = if session.passing.is_some() { AFTER_OTHERS } else { Span::ZERO };
        let ready = self.now + after_others + session.job.accept;
        for lane in 2..session.drivers.len() {
            self.schedule(ready, Event::Ready(s, lane));
        }
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
                for (s, lane) in self.passed_on_by(line) {
                    self.fail(s, lane, Fault::Closed);
                }
                for flow in self.net.flows_of(line).collect::<Vec<_>>() {
                    if let Some(&(s, lane)) = self.owners.get(&flow) {
                        self.fail(s, lane, Fault::Closed);
                    }
                }
            }
        }
    }

    fn client(&mut self, s: usize, event: ClientEvent<Buffer>) {
        let Some(session) = self.sessions.get_mut(&s) else { return };
        if session.passing.is_some() {
            return self.give_out(s, event);
        }
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
        let lanes = self.sessions.get(&s).map_or(0, |session| session.drivers.len());
        (0..lanes).for_each(|lane| self.close(s, lane));
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
            passed_on: session.passed_on,
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

/// The window.
fn buffers(job: &Job) -> impl Iterator<Item = Buffer> {
    (0..job.window / SLOT_BYTES).map(|_| Buffer::default())
}

/// From what a session draws the places that it checks.
fn secret(job: &Job, number: usize) -> [u8; 32] {
    let mut secret = [0; 32];
    secret[..8].copy_from_slice(&job.seed.to_be_bytes());
    secret[8..16].copy_from_slice(&(number as u64).to_be_bytes());
    secret
}

/// The lanes' threads: the own link's two, and those of as many peers as the window bears.
fn drivers(now: Instant, transfer: &mut Transfer<Buffer, SLOTS>, job: &Job, rtt: Span) -> Vec<Driver> {
    let mut drivers = vec![Driver::new(job.own, job.socket), Driver::new(job.own, job.socket)];
    for &peer in &job.peers {
        if transfer.add_peer(now, 500_000, rtt, job.standing).is_none() {
            break;
        }
        drivers.push(Driver::new(peer, job.socket + job.hold));
    }
    drivers
}
