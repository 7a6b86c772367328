//! The lanes' threads: they ask, read, and report to the core what came. Not responsible for what the lines bring when
//! ([`super::super::lines`]), nor for what a peer has its own peers do ([`super::passing`]).

use std::collections::VecDeque;
use std::ops::Range;

use bamqp_core::limits::SLOT_BYTES;
use bamqp_core::time::Instant;
use bamqp_core::transfer::{ClientEvent, Conn, Fault, HeadTimes, LaneDo, LaneEvent, LaneId, Wake};
use bamqp_core::verify::{Places, Sample};

use super::super::content::{Buffer, Content};
use super::super::lines::{FlowId, LineId};
use super::super::random::Random;
use super::{Event, World};

/// About how long the head of an answer is, and what a part of one with several ranges has besides its bytes.
const HEAD_BYTES: u64 = 330;
const PART_BYTES: u64 = 117;

pub(super) enum Doing {
    Joining,
    Sampling(Conn),
    Reading { conn: Conn, slot: Buffer, at: u64, len: u32, got: u32, head: Option<HeadTimes>, mark: u32 },
    Waiting,
    Ended,
}

/// Who brings an answer.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Via {
    /// The origin, over the lane's line.
    Origin,
    /// The peer's own session, in which its peers help.
    Pool,
}

/// What an answer that is under way is made of.
pub(super) struct Answer {
    /// Bytes that are still to come, heads included.
    pub left: u64,
    /// Offset into the file of the next one.
    pub at: u64,
    pub content: Content,
    pub places: Option<Places>,
    pub via: Via,
}

/// One of a lane's connections.
#[derive(Default)]
pub(super) struct Connection {
    pub flow: Option<FlowId>,
    /// The session in which the peer at its other end has its own peers help.
    pub pool: Option<usize>,
    pub answers: VecDeque<Answer>,
}

pub(super) struct Driver {
    pub line: LineId,
    pub doing: Doing,
    pub turn: u64,
    pub conns: [Connection; 2],
    pub buffer: u64,
    /// When it brought something last.
    pub brought: Option<Instant>,
    /// The peer has accepted.
    pub works: bool,
    /// Whom the peer asks in turn.
    pub helpers: Vec<LineId>,
}

impl Driver {
    pub fn new(line: LineId, buffer: u32) -> Driver {
        Driver {
            line,
            doing: Doing::Joining,
            turn: 0,
            conns: Default::default(),
            buffer: buffer.into(),
            brought: None,
            works: false,
            helpers: Vec::new(),
        }
    }
}

/// Bytes that were read from a connection.
struct Got {
    bytes: u64,
    head: Option<HeadTimes>,
    content: Content,
}

impl World {
    /// The lane's thread was woken, or its time has come.
    pub(super) fn come_back(&mut self, s: usize, lane: usize) {
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
    pub(super) fn read_on(&mut self, s: usize, lane: usize, at_once: bool) {
        let Some(session) = self.sessions.get(&s) else { return };
        let (conn, wanted, room) = match &session.drivers[lane].doing {
            Doing::Sampling(conn) => return self.sample(s, lane, *conn),
            // What is there is read when it is all that the slot needs, or as much as is worth waking up for.
            Doing::Reading { conn, len, got, mark, .. } => {
                (*conn, if *mark <= *len { (*mark).min(*len - *got) } else { *mark }, *len - *got)
            }
            Doing::Joining | Doing::Waiting | Doing::Ended => return,
        };
        let (there, answer_ends) = self.readable(s, lane, conn);
        if !at_once && there < u64::from(wanted) && !answer_ends {
            return;
        }
        let got = match self.take(s, lane, conn, room.into()) {
            Ok(Some(got)) => got,
            Ok(None) => return,
            Err(why) => return self.fail(s, lane, why),
        };
        let Some(session) = self.sessions.get_mut(&s) else { return };
        let Driver { doing, conns, .. } = &mut session.drivers[lane];
        let Doing::Reading { slot, at, len, got: so_far, head, .. } = doing else { return };
        *head = head.or(got.head);
        let start = *at + u64::from(*so_far);
        // Bytes must land behind those that are there already, or begin a slot anew.
        let answers = &mut conns[conn as usize].answers;
        let Some(answer) = answers.front_mut() else { return };
        if slot.range.end != start || start % SLOT_BYTES as u64 == 0 {
            *slot = Buffer::begin(start, answer.at, got.content.clone());
        }
        slot.extend(got.bytes, &got.content);
        *so_far += got.bytes as u32;
        answer.left -= got.bytes;
        answer.at += got.bytes;
        if answer.left == 0 {
            answers.pop_front();
        }
        if so_far == len {
            self.come_back(s, lane);
        }
    }

    /// How many bytes could be read of what is due on a connection, and whether the last of an answer is among them.
    fn readable(&self, s: usize, lane: usize, conn: Conn) -> (u64, bool) {
        let Some(session) = self.sessions.get(&s) else { return (0, false) };
        let conn = &session.drivers[lane].conns[conn as usize];
        match (conn.answers.front().map(|answer| answer.via), conn.flow, conn.pool) {
            (Some(Via::Origin), Some(flow), _) => self.net.readable(flow),
            (Some(Via::Pool), _, Some(pool)) => self.given_out(pool).map_or((0, false), |out| out.readable()),
            _ => (0, false),
        }
    }

    /// Reads at most `most` bytes of the answer that is due; the error is why it is of no use.
    fn take(&mut self, s: usize, lane: usize, conn: Conn, most: u64) -> Result<Option<Got>, Fault> {
        let Some(session) = self.sessions.get(&s) else { return Ok(None) };
        let Connection { flow, pool, answers } = &session.drivers[lane].conns[conn as usize];
        let Some(answer) = answers.front() else { return Ok(None) };
        let content = answer.content.clone();
        let got = match (answer.via, *flow, *pool) {
            (Via::Origin, Some(flow), _) => {
                let (bytes, head) = self.net.read(self.now, flow, most);
                if let (0, Some(why)) = (bytes, self.net.fault(flow)) {
                    return Err(why);
                }
                Got { bytes, head, content }
            }
            (Via::Pool, _, Some(pool)) => {
                let (bytes, head, brought) = self.take_given_out(pool, most);
                // A liar alters what it was brought, too.
                Got { bytes, head, content: if content.altered.is_empty() { brought } else { content } }
            }
            _ => return Ok(None),
        };
        Ok((got.bytes > 0).then_some(got))
    }

    /// Reports the places that were asked for, once all of the answer is there.
    fn sample(&mut self, s: usize, lane: usize, conn: Conn) {
        let Some(session) = self.sessions.get(&s) else { return };
        let Connection { flow, pool, answers } = &session.drivers[lane].conns[conn as usize];
        let Some(answer) = answers.front() else { return };
        let wire = answer.left;
        let there = match (answer.via, *flow, *pool) {
            (Via::Origin, Some(flow), _) => match self.net.fault(flow) {
                Some(why) => return self.fail(s, lane, why),
                None => self.net.readable_of_one(flow),
            },
            (Via::Pool, _, Some(pool)) => self.given_out(pool).map_or(0, |out| out.readable_of_one()),
            _ => return,
        };
        if there < wire {
            return;
        }
        let Ok(Some(Got { head, content, .. })) = self.take(s, lane, conn, wire) else { return };
        let Some(session) = self.sessions.get_mut(&s) else { return };
        let driver = &mut session.drivers[lane];
        let answer = driver.conns[conn as usize].answers.pop_front().expect("it was at the front");
        driver.doing = Doing::Waiting;
        let places = answer.places.expect("places were asked for");
        let sample = |place: Range<u64>| {
            let mut bytes = [0; 16];
            bytes.iter_mut().zip(place.clone()).for_each(|(byte, at)| *byte = content.byte(at));
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

    pub(super) fn fail(&mut self, s: usize, lane: usize, why: Fault) {
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

    pub(super) fn close(&mut self, s: usize, lane: usize) {
        let Some(session) = self.sessions.get_mut(&s) else { return };
        for conn in std::mem::take(&mut session.drivers[lane].conns) {
            if let Some(flow) = conn.flow {
                self.net.close(self.now, flow);
                self.owners.remove(&flow);
            }
            if let Some(pool) = conn.pool {
                self.client(pool, ClientEvent::Gone);
            }
        }
    }

    pub(super) fn lane(&mut self, s: usize, lane: usize, event: LaneEvent<'_, Buffer>) {
        let Some(session) = self.sessions.get_mut(&s) else { return };
        if let LaneEvent::Filled { at, len, .. } = &event {
            let end = at + u64::from(*len);
            if *len > 0 {
                session.drivers[lane].brought = Some(self.now);
            }
            let is_for_client = session.passing.is_none();
            if is_for_client
                && *len > 0
                && (end.is_multiple_of(SLOT_BYTES as u64) || end == session.job.range.end)
            {
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
                let (left, at) = (range.end - range.start, range.start);
                let answer = Answer { left, at, content, places: None, via: Via::Origin };
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
                let at = places.iter().next().map_or(0, |place| place.start);
                let answer = Answer { left, at, content, places: Some(places), via: Via::Origin };
                self.ask(s, lane, (conn, turn), answer, wake);
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
    fn ask(&mut self, s: usize, lane: usize, (conn, turn): (Conn, u64), mut answer: Answer, wake: Wake) {
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
        if !(conn == Conn::Main && self.pass_on(s, lane, &mut answer)) {
            self.ask_origin(s, lane, conn, &answer);
        }
        let Some(session) = self.sessions.get_mut(&s) else { return };
        session.drivers[lane].conns[conn as usize].answers.push_back(answer);
        self.schedule(self.now, Event::Lane(s, lane, turn));
        self.wake(s, wake);
    }

    fn ask_origin(&mut self, s: usize, lane: usize, conn: Conn, answer: &Answer) {
        let Some(session) = self.sessions.get_mut(&s) else { return };
        let driver = &mut session.drivers[lane];
        let (line, buffer) = (driver.line, driver.buffer);
        let flow =
            *driver.conns[conn as usize].flow.get_or_insert_with(|| self.net.open(self.now, line, buffer));
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
    }
}

pub(super) fn lane_id(lane: usize) -> LaneId {
    LaneId::from_index(lane)
}
