//! THE state machine: one download over several lanes. It is told what happened to each lane and to the client
//! and says what each does next; what that means for others it returns as a set of threads to wake. Not
//! responsible for sockets, clocks or bytes.
//!
//! ```text
//!            lane(Idle | Ready | Filled | Failed)            client(Idle | Written | Gone)
//!                      │                                              │
//!      lane.rs: rate, round trip, deadline             reassemble.rs: next slot in order
//!                      │                                              │
//!      transfer/assign.rs: which chunk next            transfer/rescue.rs: the client stands still
//!      transfer/cut.rs: the original response             
//!                      │                                              │
//!            Request | Read | Wait | Close | End             Write | Wait | End
//! ```
//!
//! **The driver's contract.** A lane's thread calls [`Transfer::lane`] with [`LaneEvent::Idle`] (a peer's with
//! [`LaneEvent::Ready`] once it has accepted), does what it is told, and calls again with the outcome, until it is
//! told [`LaneDo::End`]. While it reads or waits it comes back at the given time, or at once when it is woken; a
//! read that is not finished then is reported with what there is and is continued by the next
//! [`LaneDo::Read`]. The client's thread does the same with [`Transfer::client`]. All calls of a session are made
//! under one lock, and the threads in [`Wake`] are poked after it was released.

mod assign;
mod cut;
mod rescue;

use core::ops::Range;

use heapless::Vec;

pub use self::cut::Cut;
pub use crate::lane::{Fault, LaneKind, LaneState, LaneStats};
use crate::lane::{Lane, Purpose, Track, Waiting};
use crate::limits::{MAX_LANES, SLOT_BYTES};
use crate::plan::{Pace, Pool, Unassigned, bytes_in, time_for};
use crate::reassemble::Reassembler;
use crate::time::{Instant, Span};

/// Nothing came over any lane for so long that the download is given up.
const GIVE_UP: Span = Span::from_millis(60_000);

/// How long the last working lane may be silent before its connection is given up: nobody could take over sooner.
const PATIENCE_ALONE: Span = Span::from_millis(10_000);

/// A lane with nothing to do near the end, or too slow to help, looks again after this time.
const LOOK_AGAIN: Span = Span::from_millis(50);

/// The most bytes that are waited for at a time.
const MOST_MARK: u64 = 64 * 1024;

/// A lane of a session; [`LaneId::ORIGINAL`], [`LaneId::OWN`], then the peers in the order of
/// [`Transfer::add_peer`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneId(u8);

impl LaneId {
    /// The response to the client's own request.
    pub const ORIGINAL: LaneId = LaneId(0);
    /// The own link's second connection.
    pub const OWN: LaneId = LaneId(1);

    /// The lane at a place in the order of lanes; what lies past the end stands for no lane.
    pub fn from_index(index: usize) -> LaneId {
        LaneId(u8::try_from(index).unwrap_or(u8::MAX))
    }

    /// Its place in the order of lanes.
    pub fn index(self) -> usize {
        self.0.into()
    }
}

/// Which of a lane's connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conn {
    /// The one that requests are pipelined on.
    Main,
    /// A second one, opened for slots that can't wait for what is due on the first (DESIGN section 5, rule 5).
    Spare,
}

/// When a request was sent and when its answer's head was there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadTimes {
    /// The request left, after the connection was made.
    pub sent: Instant,
    /// The head was complete.
    pub at: Instant,
}

/// What happened to a lane.
#[derive(Debug)]
pub enum LaneEvent<S> {
    /// The last order was carried out, or its thread was woken, or the time to come back was reached.
    Idle,
    /// The peer accepted.
    Ready {
        /// What it promises, bytes per second; 0 if it does not say.
        rate: u64,
        /// Bytes that it and the sockets on the way can hold.
        hold: u32,
    },
    /// `len` bytes for file offset `at` were read into `slot`: all that was asked for, or less because the thread
    /// was woken or its time had come.
    Filled {
        /// Which connection.
        conn: Conn,
        /// The buffer of [`LaneDo::Read`].
        slot: S,
        /// Where the bytes lie in the file.
        at: u64,
        /// How many came.
        len: u32,
        /// If this chunk's head came with it.
        head: Option<HeadTimes>,
    },
    /// The connection or the answer was of no use. All of the lane's connections are to be closed.
    Failed {
        /// The buffer of [`LaneDo::Read`], if it was reading.
        slot: Option<S>,
        /// What was wrong.
        why: Fault,
    },
}

/// What a lane does next.
#[derive(Debug)]
pub enum LaneDo<S> {
    /// Ask for these bytes of the file, on a new connection if there is none.
    Request {
        /// Which connection.
        conn: Conn,
        /// Offsets into the file.
        range: Range<u64>,
    },
    /// Read `len` bytes of the oldest unfinished answer (its head first) into the slot, at `at % SLOT_BYTES`.
    Read {
        /// Which connection.
        conn: Conn,
        /// Where to.
        slot: S,
        /// Offset into the file.
        at: u64,
        /// How many bytes.
        len: u32,
        /// How many bytes are worth waking up for, at most as many as the answer still has (DESIGN section 4).
        mark: u32,
        /// When to come back at the latest.
        by: Instant,
    },
    /// Wait to be woken, or until then.
    Wait(Option<Instant>),
    /// Close all of the lane's connections, and come back.
    Close,
    /// The lane is done: close its connections; do not come back.
    End,
}

/// What happened to the client's connection.
#[derive(Debug)]
pub enum ClientEvent<S> {
    /// Its thread is ready, or was woken.
    Idle,
    /// All of this slot's bytes were written.
    Written(S),
    /// The client hung up.
    Gone,
}

/// What the client's thread does next.
#[derive(Debug)]
pub enum ClientDo<S> {
    /// Write `len` bytes of the slot, from `start` on.
    Write {
        /// Where from.
        slot: S,
        /// First byte within the slot.
        start: u32,
        /// How many bytes.
        len: u32,
    },
    /// Wait to be woken, or until then.
    Wait(Option<Instant>),
    /// The session is over. Anything but [`Outcome::Complete`] means to close the client's connection.
    End(Outcome),
}

/// How a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The client has all of its bytes.
    Complete,
    /// The client hung up.
    ClientGone,
    /// No lane can bring the rest; the last one's fault.
    NoLaneLeft(Fault),
}

/// The threads to wake after a call: one bit a lane, bit 63 for the client's thread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wake(u64);

impl Wake {
    const CLIENT: u64 = 1 << 63;

    /// Whether the client's thread is to be woken.
    pub fn client(self) -> bool {
        self.0 & Self::CLIENT != 0
    }

    /// Whether lane number `index` is to be woken.
    pub fn lane(self, index: usize) -> bool {
        index < 63 && self.0 & (1 << index) != 0
    }

    /// Whether nobody is.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    fn add_lane(&mut self, index: usize) {
        self.0 |= 1 << index;
    }

    fn add_client(&mut self) {
        self.0 |= Self::CLIENT;
    }
}

/// A lane as reports show it.
#[derive(Clone, Copy, Debug)]
pub struct LaneView {
    /// What kind of way to the origin it is.
    pub kind: LaneKind,
    /// Where it stands.
    pub state: LaneState,
    /// What it did.
    pub stats: LaneStats,
    /// Its rate, round trip and debt at present.
    pub pace: Pace,
    /// Whether the rate was measured in this session.
    pub is_measured: bool,
}

/// What is known of the own link when a session starts.
#[derive(Clone, Copy, Debug)]
pub struct OwnLink {
    /// Its rate in bytes per second, as measured or guessed.
    pub rate: u64,
    /// Its round trip to the origin.
    pub rtt: Span,
    /// Bytes that a connection's receive buffer holds.
    pub hold: u32,
}

/// One download over several lanes. `S` is a buffer of [`SLOT_BYTES`]; `SLOTS` the furthest that positions are
/// remembered ahead of the client.
#[derive(Debug)]
pub struct Transfer<S, const SLOTS: usize> {
    slots: Reassembler<S, SLOTS>,
    todo: Unassigned<SLOTS>,
    lanes: Vec<Lane<S>, MAX_LANES>,
    cut: Cut,
    gap: cut::Gap,
    standing_since: Option<Instant>,
    last_byte: Instant,
    over: Option<Outcome>,
}

impl<S, const SLOTS: usize> Transfer<S, SLOTS> {
    /// A session for the file's bytes `range`, the first of which the original response delivers next. `None` if
    /// there are too few `buffers` ([`crate::reassemble::MIN_BUFFERS`]) or no bytes.
    pub fn new(
        now: Instant,
        range: Range<u64>,
        buffers: impl IntoIterator<Item = S>,
        own: OwnLink,
    ) -> Option<Self> {
        if range.is_empty() {
            return None;
        }
        let slots = Reassembler::new(range.clone(), buffers)?;
        let mut todo = Unassigned::new(slots.next(), slots.end());
        let mut lanes = Vec::new();
        for kind in [LaneKind::Original, LaneKind::Own] {
            let mut lane = Lane::new(now, kind, own.rate, own.rtt);
            lane.hold = own.hold.into();
            lanes.push(lane).ok()?;
        }
        // The original response flows already, and brings whatever nobody else is asked for.
        let first = todo.advance(1).start;
        let rest = slots.extent(first);
        let original = &mut lanes[0];
        original.rate.begin(now, Span::ZERO, own.rtt);
        let chunk = assign::chunk(rest, original.rate.get(), Purpose::Payload);
        original.main.chunks.push_back(crate::lane::Chunk { asked: Some(now), begun: true, ..chunk }).ok()?;
        Some(Self {
            slots,
            todo,
            lanes,
            cut: Cut::Unproven { tries: 0 },
            gap: cut::Gap { end: u64::MAX, misses: 0, silent: false },
            standing_since: None,
            last_byte: now,
            over: None,
        })
    }

    /// One more peer, expected to bring `rate` bytes per second with a round trip of `rtt` until it is measured.
    /// `None` if the session has as many lanes as its window bears: half of the buffers, less one.
    pub fn add_peer(&mut self, now: Instant, rate: u64, rtt: Span) -> Option<LaneId> {
        let most = (self.slots.window() / 2).saturating_sub(1);
        if self.lanes.len() as u64 >= most {
            return None;
        }
        self.lanes.push(Lane::new(now, LaneKind::Peer, rate, rtt)).ok()?;
        Some(LaneId(self.lanes.len() as u8 - 1))
    }

    /// The lane's thread reports `event` and is told what to do next. A lane that does not exist is told to end.
    pub fn lane(&mut self, now: Instant, id: LaneId, event: LaneEvent<S>) -> (LaneDo<S>, Wake) {
        let mut wake = Wake::default();
        let Some(lane) = self.lanes.get_mut(id.index()) else { return (LaneDo::End, wake) };
        lane.waiting = Waiting::No;
        match event {
            LaneEvent::Idle => {}
            LaneEvent::Ready { rate, hold } => self.ready(now, id, rate, hold, &mut wake),
            LaneEvent::Filled { conn, slot, at, len, head } => {
                self.filled(now, id, (conn, slot, at, len), head, &mut wake)
            }
            LaneEvent::Failed { slot, why } => {
                if let Some(slot) = slot {
                    self.slots.give_back(slot);
                }
                self.fail(now, id, why, &mut wake);
            }
        }
        let todo = self.direct(now, id, &mut wake);
        (todo, wake)
    }

    /// The client's thread reports `event` and is told what to do next.
    pub fn client(&mut self, now: Instant, event: ClientEvent<S>) -> (ClientDo<S>, Wake) {
        let mut wake = Wake::default();
        match event {
            ClientEvent::Idle => {}
            ClientEvent::Written(slot) => self.slots.give_back(slot),
            ClientEvent::Gone => self.end(Outcome::ClientGone, &mut wake),
        }
        if self.over.is_none() && self.slots.next() == self.slots.end() {
            self.end(Outcome::Complete, &mut wake);
        }
        if let Some(outcome) = self.over {
            return (ClientDo::End(outcome), wake);
        }
        if let Some((slot, extent)) = self.slots.pop() {
            self.standing_since = None;
            self.wake_waiting(&mut wake);
            let start = (extent.start % SLOT_BYTES as u64) as u32;
            return (ClientDo::Write { slot, start, len: (extent.end - extent.start) as u32 }, wake);
        }
        self.wake_waiting(&mut wake);
        let since = *self.standing_since.get_or_insert(now);
        if now.since(self.last_byte) > GIVE_UP {
            self.end(Outcome::NoLaneLeft(Fault::Timeout), &mut wake);
            return (ClientDo::End(Outcome::NoLaneLeft(Fault::Timeout)), wake);
        }
        let again = self.rescue(now, since, &mut wake);
        (ClientDo::Wait(Some(again)), wake)
    }

    /// How the session ended, once it has.
    pub fn outcome(&self) -> Option<Outcome> {
        self.over
    }

    /// Whether the original response may be, or was, cut.
    pub fn cut(&self) -> Cut {
        self.cut
    }

    /// Bytes of buffer that were in use at most.
    pub fn window_used(&self) -> usize {
        self.slots.in_use_peak() * SLOT_BYTES
    }

    /// The file offset up to which the client was served.
    pub fn delivered(&self) -> u64 {
        self.slots.extent(self.slots.next()).start.min(self.slots.extent(self.slots.end() - 1).end)
    }

    /// What each lane did so far, in the order of their ids.
    pub fn report(&self) -> impl Iterator<Item = LaneView> + '_ {
        self.lanes.iter().map(|lane| LaneView {
            kind: lane.kind,
            state: lane.state,
            stats: lane.stats,
            pace: lane.pace(),
            is_measured: lane.rate.is_measured(),
        })
    }

    fn ready(&mut self, now: Instant, id: LaneId, rate: u64, hold: u32, wake: &mut Wake) {
        let lane = &mut self.lanes[id.index()];
        if lane.state == LaneState::Joining {
            lane.state = LaneState::Up;
            lane.up_since = now;
            if rate > 0 && !lane.rate.is_begun() {
                lane.rate = crate::lane::Rate::new(rate);
            }
            self.make_room_for_peers(wake);
        }
        self.lanes[id.index()].hold = hold.into();
    }

    /// What a lane does next.
    fn direct(&mut self, now: Instant, id: LaneId, wake: &mut Wake) -> LaneDo<S> {
        if self.over.is_some() {
            self.take_back(id);
            return LaneDo::End;
        }
        match self.lanes[id.index()].state {
            LaneState::Joining => return LaneDo::Wait(None),
            LaneState::Left(_) | LaneState::Dismissed => {
                self.take_back(id);
                return LaneDo::End;
            }
            LaneState::Resting { until } if now < until => return LaneDo::Wait(Some(until)),
            LaneState::Resting { .. } => {
                let lane = &mut self.lanes[id.index()];
                lane.state = LaneState::Probing;
                (lane.main, lane.spare) = (Track::new(now), Track::new(now));
            }
            LaneState::Up | LaneState::Probing => {}
        }
        if id == LaneId::ORIGINAL && self.original_is_silent(now) && !self.gap.silent {
            self.gap.silent = true;
            self.wake_all(wake);
        }
        if let Some(why) = self.overdue(now, id) {
            self.fail(now, id, why, wake);
            return LaneDo::Close;
        }
        if let Some((conn, range)) = self.next_request(now, id, wake) {
            return LaneDo::Request { conn, range };
        }
        self.read(now, id, wake)
    }

    /// Whether what is due on the lane has been due for too long.
    fn overdue(&mut self, now: Instant, id: LaneId) -> Option<Fault> {
        let conn = self.lanes[id.index()].turn(now)?;
        let lane = &self.lanes[id.index()];
        (lane.blocked_since.is_none() && now >= self.deadline(id, conn)).then_some(Fault::Timeout)
    }

    /// When the lane is given up. A lane that nobody can stand in for is given longer, and the original response
    /// before the cut is earned is never given up.
    fn deadline(&self, id: LaneId, conn: Conn) -> Instant {
        let lane = &self.lanes[id.index()];
        let track = lane.track(conn);
        let deadline = lane.deadline(track);
        if lane.kind == LaneKind::Original && self.cut != Cut::Earned {
            return if self.gap.silent { deadline + GIVE_UP } else { deadline };
        }
        let others = self
            .lanes
            .iter()
            .enumerate()
            .any(|(i, l)| i != id.index() && l.state == LaneState::Up && self.may_work(i));
        if others { deadline } else { deadline.max(track.heard + PATIENCE_ALONE) }
    }

    /// Has the lane read on where the lowest slot is due.
    fn read(&mut self, now: Instant, id: LaneId, wake: &mut Wake) -> LaneDo<S> {
        let Some(conn) = self.lanes[id.index()].turn(now) else { return self.idle(now, id) };
        let owed = self.lanes[id.index()].owed();
        let portion = Pool::of(self.working().map(|(_, pace)| pace))
            .portion_time(self.slots.window() * SLOT_BYTES as u64);
        let track = self.lanes[id.index()].track_mut(conn);
        let Some(chunk) = track.chunks.front() else { return LaneDo::Wait(None) };
        let rest = chunk.rest.clone();
        let index = rest.start / SLOT_BYTES as u64;
        let slot = match track.partial.take() {
            Some((slot, _)) => slot,
            None => match self.slots.take(index) {
                Some(slot) => slot,
                None if id != LaneId::ORIGINAL && self.head_is_stuck() => {
                    self.lanes[id.index()].blocked_since = None;
                    self.take_back(id);
                    self.wake_all(wake);
                    return LaneDo::Close;
                }
                None => {
                    let lane = &mut self.lanes[id.index()];
                    lane.waiting = Waiting::Room(index);
                    lane.blocked_since.get_or_insert(now);
                    return LaneDo::Wait(None);
                }
            },
        };
        let lane = &mut self.lanes[id.index()];
        if let Some(since) = lane.blocked_since.take() {
            lane.rate.resume(now.since(since), owed);
            (lane.main.heard, lane.spare.heard) = (now, now);
        }
        let len = rest.end.min((index + 1) * SLOT_BYTES as u64) - rest.start;
        let portion = bytes_in(portion, lane.rate.get()).min(MOST_MARK).min(rest.end - rest.start);
        // The client waits for the head: its slot is worth waking up for as soon as it is complete.
        let is_head = (self.slots.next()..index).all(|i| self.slots.has(i));
        let mark = if is_head { portion.min(len) } else { portion };
        lane.track_mut(conn).mark = mark;
        LaneDo::Read {
            conn,
            slot,
            at: rest.start,
            len: len as u32,
            mark: mark.max(1) as u32,
            by: self.deadline(id, conn).min(self.asks_again(now, id, conn)),
        }
    }

    /// When a lane that takes long for a slot must ask for the next one, so as not to run dry when the slot is complete;
    /// others look at it often enough.
    fn asks_again(&self, now: Instant, id: LaneId, conn: Conn) -> Instant {
        let lane = &self.lanes[id.index()];
        let (track, pace) = (lane.track(conn), lane.pace());
        if lane.kind == LaneKind::Original || track.mark >= SLOT_BYTES as u64 || self.todo.is_empty() {
            return Instant::from_micros(u64::MAX);
        }
        let surplus = pace.time_for(pace.owed.saturating_sub(pace.cover(track.mark)));
        let due = lane.flows_from(track).max(track.heard) + surplus;
        if due > now { due } else { now + LOOK_AGAIN }
    }

    fn filled(
        &mut self,
        now: Instant,
        id: LaneId,
        read: (Conn, S, u64, u32),
        head: Option<HeadTimes>,
        wake: &mut Wake,
    ) {
        let (conn, slot, at, len) = read;
        let lane = &mut self.lanes[id.index()];
        let Lane { main, spare, rate, rtt, .. } = lane;
        let track = if conn == Conn::Main { main } else { spare };
        let Some(chunk) =
            track.chunks.front_mut().filter(|c| c.rest.start == at && u64::from(len) <= c.rest.end - at)
        else {
            return self.slots.give_back(slot);
        };
        if let Some(head) = head.filter(|_| !chunk.begun) {
            // An answer that was asked for while others were due is late by them, unless they ended well before.
            let slot_time = time_for(SLOT_BYTES as u64, rate.get());
            let dry = !chunk.queued || head.at.since(track.heard) > rtt.get().scale(1, 4) + slot_time;
            rtt.add(head.at.since(head.sent), !dry);
            // Nor does a wait for the head say anything about the rate; what bytes take between each other does.
            if chunk.purpose == Purpose::Payload {
                let gap = head.at.since(track.heard);
                rate.begin(head.at, if gap > Span::from_millis(4) { gap } else { Span::ZERO }, rtt.get());
            }
            chunk.begun = true;
            track.heard = track.heard.max(head.at);
        }
        if len > 0 {
            track.heard = now;
            self.last_byte = now;
            self.gap.silent &= id != LaneId::ORIGINAL;
            if chunk.purpose == Purpose::Payload {
                rate.add(now, len.into());
            }
            chunk.rest.start += u64::from(len);
        }
        let (pos, done, purpose) = (chunk.rest.start, chunk.rest.is_empty(), chunk.purpose);
        if !done && !pos.is_multiple_of(SLOT_BYTES as u64) {
            track.partial = Some((slot, len));
            return;
        }
        if len == 0 {
            return self.slots.give_back(slot);
        }
        if done {
            track.chunks.pop_front();
        }
        match purpose {
            Purpose::Probe => {
                self.slots.give_back(slot);
                self.proven(wake);
            }
            Purpose::Payload => self.slot_complete(now, id, at / SLOT_BYTES as u64, slot, wake),
        }
    }

    fn slot_complete(&mut self, now: Instant, id: LaneId, index: u64, slot: S, wake: &mut Wake) {
        let extent = self.slots.extent(index);
        let bytes = extent.end - extent.start;
        let is_new = self.slots.put(index, slot);
        if is_new {
            self.todo.settle(index);
            if index == self.slots.next() && self.standing_since.is_some() {
                wake.add_client();
            }
        } else {
            self.wake_waiting(wake);
        }
        let lane = &mut self.lanes[id.index()];
        *(if is_new { &mut lane.stats.bytes } else { &mut lane.stats.duplicates }) += bytes;
        if lane.state == LaneState::Probing {
            lane.state = LaneState::Up;
            lane.up_since = now;
        }
        match lane.kind {
            LaneKind::Original => self.original_at(index + 1, wake),
            LaneKind::Own | LaneKind::Peer => self.offer_if_slowed(id, wake),
        }
    }

    /// The lane gives up what it was asked for: it goes to the front of the plan.
    fn fail(&mut self, now: Instant, id: LaneId, why: Fault, wake: &mut Wake) {
        let lane = &mut self.lanes[id.index()];
        if self.over.is_some() || lane.is_out() {
            return;
        }
        let probe_asked = lane.main.chunks.iter().find(|c| c.purpose == Purpose::Probe).and_then(|c| c.asked);
        lane.fail(now, why);
        self.take_back(id);
        match (self.lanes[id.index()].kind, probe_asked) {
            (LaneKind::Original, _) => self.original_failed(id, why),
            (LaneKind::Own, Some(asked)) => self.probe_failed(now, asked, why, wake),
            _ => {}
        }
        if !self
            .lanes
            .iter()
            .enumerate()
            .any(|(i, l)| !l.is_out() && (l.kind == LaneKind::Original || self.can_ever_work(i)))
        {
            return self.end(Outcome::NoLaneLeft(why), wake);
        }
        self.wake_all(wake);
    }

    /// Takes back a lane's buffers and what it owes.
    fn take_back(&mut self, id: LaneId) {
        for conn in [Conn::Main, Conn::Spare] {
            loop {
                let track = self.lanes[id.index()].track_mut(conn);
                if let Some((slot, _)) = track.partial.take() {
                    self.slots.give_back(slot);
                }
                let Some(chunk) = track.chunks.pop_front() else { break };
                if chunk.purpose == Purpose::Payload {
                    let slot = SLOT_BYTES as u64;
                    self.lose(chunk.rest.start / slot..chunk.rest.end.div_ceil(slot));
                }
            }
        }
    }

    /// Of these slots, those that are missing and that nobody else owes become unassigned.
    fn lose(&mut self, slots: Range<u64>) {
        for index in slots {
            if !self.slots.has(index) && !self.lanes.iter().any(|l| l.is_up() && l.owes(index)) {
                self.todo.lose(index);
            }
        }
    }

    fn end(&mut self, outcome: Outcome, wake: &mut Wake) {
        self.over.get_or_insert(outcome);
        self.wake_all(wake);
        wake.add_client();
    }

    fn wake_all(&self, wake: &mut Wake) {
        (0..self.lanes.len()).for_each(|i| wake.add_lane(i));
    }

    /// Wakes the lanes whose reason to wait is gone.
    fn wake_waiting(&mut self, wake: &mut Wake) {
        for i in 0..self.lanes.len() {
            let due = match self.lanes[i].waiting {
                Waiting::No => false,
                Waiting::Room(index) => self.slots.may_take(index),
                Waiting::Work => self.todo.lost() > 0 || self.todo.frontier() < self.horizon(i),
            };
            if due {
                self.lanes[i].waiting = Waiting::No;
                wake.add_lane(i);
            }
        }
    }
}
