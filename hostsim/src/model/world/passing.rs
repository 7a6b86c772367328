//! A peer that passes on to its own peers what it is asked for: a session of its own, whose client is the connection of the
//! router that asked it. Not responsible for how the work is split; that is the same core's.
//!
//! ```text
//! coordinator's lane ──request──▶ add_piece ─▶ core ─▶ lanes: the peer's line, its peers' lines
//!                    ◀─given out, in the order of the requests, as far as hold and socket buffer take it
//! ```

use std::collections::VecDeque;

use bamqp_core::hops::{Part, may_pass_on};
use bamqp_core::limits::SLOT_BYTES;
use bamqp_core::select::MAX_PEERS;
use bamqp_core::time::Instant;
use bamqp_core::transfer::{
    ClientDo, ClientEvent, Fault, HeadTimes, LaneEvent, LaneKind, LaneState, Outcome, OwnLink, Transfer,
};

use super::super::content::{Buffer, Content};
use super::super::lines::LineId;
use super::lanes::{Answer, Driver, Via};
use super::{Event, Job, PassedOn, SLOTS, Session, World, buffers, drivers, secret};

/// A session that is a part of another one.
pub(super) struct Passing {
    /// The session and the lane that it works for.
    parent: (usize, usize),
    /// The session whose client waits for it.
    root: usize,
    /// How many routers the session has passed when it is passed on.
    hops: u8,
    out: Out,
}

/// What was asked for, and what of it was given out and not read yet.
pub(super) struct Out {
    /// Bytes that are held at most while nobody reads.
    capacity: u64,
    due: VecDeque<Due>,
    given: VecDeque<Run>,
    unread: u64,
    /// The slot that was given out last: it is taken back when there is room for more.
    slot: Option<Buffer>,
}

/// A request.
struct Due {
    left: u64,
    sent: Instant,
    begun: bool,
}

/// Bytes of one answer and of one slot.
struct Run {
    bytes: u64,
    last: bool,
    head: Option<HeadTimes>,
    content: Content,
}

impl Out {
    fn new(capacity: u64) -> Out {
        Out { capacity, due: VecDeque::new(), given: VecDeque::new(), unread: 0, slot: None }
    }

    /// How many bytes could be read, and whether the last of an answer is among them.
    pub fn readable(&self) -> (u64, bool) {
        (self.unread, self.given.iter().any(|run| run.last))
    }

    /// How many bytes of the answer that is due are there.
    pub fn readable_of_one(&self) -> u64 {
        let runs = self.given.iter().position(|run| run.last).map_or(self.given.len(), |last| last + 1);
        self.given.iter().take(runs).map(|run| run.bytes).sum()
    }

    /// Reads at most `most` bytes of one answer and of one slot.
    fn read(&mut self, most: u64) -> (u64, Option<HeadTimes>, Content) {
        let Some(run) = self.given.front_mut() else { return (0, None, Content::default()) };
        let (bytes, head, content) = (run.bytes.min(most), run.head.take(), run.content.clone());
        run.bytes -= bytes;
        if run.bytes == 0 {
            self.given.pop_front();
        }
        self.unread -= bytes;
        (bytes, head, content)
    }

    /// The next bytes that were asked for.
    fn give(&mut self, now: Instant, slot: Buffer, bytes: u64) {
        assert!(self.unread < self.capacity, "more than is held waits in the session's own window");
        let due = self.due.front_mut().expect("only what was asked for is brought");
        let head = (!due.begun).then_some(HeadTimes { sent: due.sent, at: now });
        due.begun = true;
        due.left = due.left.checked_sub(bytes).expect("a slot is of one request");
        let last = due.left == 0;
        if last {
            self.due.pop_front();
        }
        self.unread += bytes;
        self.given.push_back(Run { bytes, last, head, content: slot.content.clone() });
        self.slot = Some(slot);
    }
}

/// The state machine is large: it is made in a frame of its own, which is gone when the lanes begin.
#[inline(never)]
fn in_pieces(now: Instant, job: &Job, own: OwnLink, number: usize) -> Option<Box<Transfer<Buffer, SLOTS>>> {
    Transfer::in_pieces(now, buffers(job), own, secret(job, number)).map(Box::new)
}

impl World {
    /// A peer that is asked to take part answers: it takes part, by the same rule as a router, and asks those whom it hears.
    pub(super) fn answers(&mut self, s: usize, lane: usize) {
        let Some(session) = self.sessions.get(&s) else { return };
        let (job, line) = (&session.job, session.drivers[lane].line);
        let (rate, hold, promise) = (self.net.lines[line].rate, job.hold, job.promise);
        let hops = session.passing.as_ref().map_or(0, |passing| passing.hops);
        let answer = self.part(s, line).answer(&job.own, hops, job.max_hops);
        let why = match answer {
            _ if !self.net.lines[line].up => Some(Fault::Unreachable),
            Err(_) => Some(Fault::Declined),
            Ok(()) => None,
        };
        if let Some(why) = why {
            return self.lane(s, lane, LaneEvent::Failed { slot: None, why });
        }
        let hears = job.hears.get(&line).filter(|_| may_pass_on(hops, job.max_hops));
        let others = hears.into_iter().flatten().copied().filter(|other| *other != job.own);
        let helpers: Vec<LineId> = others.take(MAX_PEERS).collect();
        let rate = promise.of(rate, helpers.iter().map(|helper| self.net.lines[*helper].rate));
        let Some(session) = self.sessions.get_mut(&s) else { return };
        let driver = &mut session.drivers[lane];
        (driver.works, driver.helpers) = (true, helpers);
        self.pool(s, lane);
        self.lane(s, lane, LaneEvent::Ready { rate, hold });
    }

    /// What the router with this line has to do with a session.
    fn part(&self, s: usize, line: LineId) -> Part<LineId> {
        let root = self.root(s);
        let of_it = || self.sessions.iter().filter(|(number, _)| self.root(**number) == root);
        let works =
            |session: &Session| session.drivers.iter().any(|driver| driver.works && driver.line == line);
        let coordinator = of_it().find(|(_, session)| works(session)).map(|(_, session)| session);
        match coordinator {
            Some(session) => {
                let hops = session.passing.as_ref().map_or(0, |passing| passing.hops);
                Part::WorksFor { coordinator: session.job.own, hops }
            }
            None if of_it().any(|(_, session)| session.job.own == line) => Part::Asks,
            None => Part::None,
        }
    }

    fn root(&self, s: usize) -> usize {
        self.sessions.get(&s).and_then(|session| session.passing.as_ref()).map_or(s, |passing| passing.root)
    }

    /// The session in which the peer of a lane has its own peers help; it begins if there is none and they may be asked.
    fn pool(&mut self, s: usize, lane: usize) -> Option<usize> {
        let session = self.sessions.get(&s)?;
        let Driver { line, conns, helpers, buffer, .. } = &session.drivers[lane];
        if helpers.is_empty() || conns[0].pool.is_some() {
            return conns[0].pool;
        }
        let number = self.jobs.len();
        let job = Job { own: *line, peers: helpers.clone(), range: 0..0, ..session.job.clone() };
        let line = &self.net.lines[job.own];
        let (rtt, own) = (line.rtt, OwnLink { rate: line.rate, rtt: line.rtt, hold: job.hold });
        let mut transfer = in_pieces(self.now, &job, own, number)?;
        transfer.keep_only(job.rules);
        let drivers = drivers(self.now, &mut transfer, &job, rtt);
        let hops = session.passing.as_ref().map_or(0, |passing| passing.hops) + 1;
        let passing = Passing { parent: (s, lane), root: self.root(s), hops, out: Out::new(*buffer) };
        self.jobs.push(job.clone());
        let session = Session { passing: Some(passing), ..Session::new(self.now, job, transfer, drivers) };
        self.sessions.insert(number, session);
        self.sessions.get_mut(&s)?.drivers[lane].conns[0].pool = Some(number);
        self.start_lanes(number);
        Some(number)
    }

    /// Has the peer's own peers help with an answer. False if they can't, or not with this one: it comes from the origin then.
    pub(super) fn pass_on(&mut self, s: usize, lane: usize, answer: &mut Answer) -> bool {
        let Some(number) = self.pool(s, lane) else { return false };
        let Some(session) = self.sessions.get_mut(&number) else { return false };
        let is_out = |state| matches!(state, LaneState::Left(_) | LaneState::Dismissed);
        let has_help =
            session.transfer.report().any(|lane| lane.kind == LaneKind::Peer && !is_out(lane.state));
        // A router asks another one for one range at a time.
        let range = match &answer.places {
            None => answer.at..answer.at + answer.left,
            Some(places) => match (places.len(), places.iter().next()) {
                (1, Some(place)) => place,
                _ => return false,
            },
        };
        if !has_help || session.transfer.outcome().is_some() {
            return false;
        }
        let left = range.end - range.start;
        let Some(wake) = session.transfer.add_piece(self.now, range) else { return false };
        let Some(passing) = &mut session.passing else { return false };
        passing.out.due.push_back(Due { left, sent: self.now, begun: false });
        (answer.left, answer.via) = (left, Via::Pool);
        self.wake(number, wake);
        self.go_on(number);
        true
    }

    /// The session's client is looked after, at once.
    fn go_on(&mut self, s: usize) {
        if let Some(turn) = self.sessions.get(&s).map(|session| session.client_turn) {
            self.schedule(self.now, Event::Client(s, turn));
        }
    }

    /// What a session has given out to the router that it works for.
    pub(super) fn given_out(&self, s: usize) -> Option<&Out> {
        Some(&self.sessions.get(&s)?.passing.as_ref()?.out)
    }

    /// Reads of that; with it comes what it is made of.
    pub(super) fn take_given_out(&mut self, s: usize, most: u64) -> (u64, Option<HeadTimes>, Content) {
        let passing = self.sessions.get_mut(&s).and_then(|session| session.passing.as_mut());
        let got = passing.map_or((0, None, Content::default()), |passing| passing.out.read(most));
        // There is room now.
        self.go_on(s);
        got
    }

    /// Gives out what comes next, as far as there is room for it.
    pub(super) fn give_out(&mut self, s: usize, mut event: ClientEvent<Buffer>) {
        let mut any = false;
        loop {
            let Some(session) = self.sessions.get_mut(&s) else { return };
            let Some(passing) = &mut session.passing else { return };
            if !matches!(event, ClientEvent::Gone) {
                if passing.out.unread >= passing.out.capacity {
                    break;
                }
                event = passing.out.slot.take().map_or(ClientEvent::Idle, ClientEvent::Written);
            }
            let (what, wake) = session.transfer.client(self.now, event);
            session.client_turn += 1;
            let turn = session.client_turn;
            event = ClientEvent::Idle;
            match what {
                ClientDo::Write { slot, start, len } => {
                    let held = slot.range.start % SLOT_BYTES as u64..;
                    assert_eq!((held.start, slot.range.end - slot.range.start), (start.into(), len.into()));
                    passing.out.give(self.now, slot, len.into());
                    any = true;
                    self.wake(s, wake);
                }
                ClientDo::Wait(until) => {
                    self.wake(s, wake);
                    if let Some(until) = until {
                        self.schedule(until, Event::Client(s, turn));
                    }
                    break;
                }
                ClientDo::End(outcome) => return self.end_passing(s, outcome),
            }
        }
        let parent = self.sessions.get(&s).and_then(|session| session.passing.as_ref()).map(|p| p.parent);
        if let (true, Some((parent, lane))) = (any, parent) {
            self.read_on(parent, lane, false);
        }
    }

    /// A session that is a part of another one is over.
    fn end_passing(&mut self, s: usize, outcome: Outcome) {
        let lanes = self.sessions.get(&s).map_or(0, |session| session.drivers.len());
        (0..lanes).for_each(|lane| self.close(s, lane));
        let Some(session) = self.sessions.remove(&s) else { return };
        let Some(Passing { parent: (parent, lane), root, .. }) = session.passing else { return };
        let lines = session.drivers.iter().map(|driver| driver.line);
        // There is no original response.
        let lanes = lines.zip(session.transfer.report()).skip(1).collect();
        if let Some(root) = self.sessions.get_mut(&root) {
            root.passed_on.push(PassedOn { line: session.job.own, lanes });
        }
        let Some(above) = self.sessions.get_mut(&parent) else { return };
        let conn = &mut above.drivers[lane].conns[0];
        if conn.pool == Some(s) {
            conn.pool = None;
            self.fail(
                parent,
                lane,
                match outcome {
                    Outcome::NoLaneLeft(why) => why,
                    Outcome::Complete | Outcome::ClientGone | Outcome::Unverified => Fault::Unproven,
                },
            );
        }
    }

    /// The lanes whose peer is the router with this line and has its own peers help.
    pub(super) fn passed_on_by(&self, line: LineId) -> Vec<(usize, usize)> {
        let lanes = |(&s, session): (&usize, &Session)| {
            let passes = |driver: &Driver| driver.line == line && driver.conns[0].pool.is_some();
            let lanes = session.drivers.iter().enumerate().filter(move |(_, driver)| passes(driver));
            lanes.map(|(lane, _)| (s, lane)).collect::<Vec<_>>()
        };
        self.sessions.iter().flat_map(lanes).collect()
    }
}
