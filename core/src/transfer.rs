//! THE state machine: one download over several lanes. It is told what happened to each lane and to the client
//! and says what each does next; what that means for others it returns as a set of threads to wake. Not
//! responsible for sockets, clocks or bytes.
//!
//! ```text
//!       lane(Idle | Ready | Filled | Sampled | Failed)        client(Idle | Written | Gone)
//!                      │                                              │
//!      lane.rs: rate, round trip, deadline             reassemble.rs: next slot in order
//!                      │                                              │
//!      transfer/arrive.rs: what came, and where        transfer/rescue.rs: the client stands still
//!      transfer/inspect.rs: is it what the own link has?
//!      transfer/dispute.rs: it is not: who is right?
//!      transfer/assign.rs: which chunk next
//!      transfer/cut.rs: the original response
//!      transfer/pieces.rs: work for another router
//!                      │                                              │
//!   Request | Sample | Read | ReadSample | Wait | Close | End    Write | Wait | End
//! ```
//!
//! **The driver's contract.** A lane's thread calls [`Transfer::lane`] with [`LaneEvent::Idle`] (a peer's with
//! [`LaneEvent::Ready`] once it has accepted), does what it is told, and calls again with the outcome, until it is
//! told [`LaneDo::End`]. While it reads or waits it comes back at the given time, or at once when it is woken; a
//! read that is not finished then is reported with what there is and is continued by the next
//! [`LaneDo::Read`]. The client's thread does the same with [`Transfer::client`]. All calls of a session are made
//! under one lock, and the threads in [`Wake`] are poked after it was released.

mod arrive;
mod assign;
mod contract;
mod cut;
mod dispute;
mod inspect;
mod pieces;
mod rescue;

use core::ops::Range;

use heapless::Vec;

pub use self::contract::{
    ClientDo, ClientEvent, Conn, HeadTimes, LaneDo, LaneEvent, LaneId, LaneView, Outcome, OwnLink, Wake,
};
pub use self::cut::Cut;
pub use crate::lane::{Dispute, Fault, LaneKind, LaneState, LaneStats};
use crate::lane::{Lane, Purpose, Track, Waiting};
use crate::layout::Layout;
use crate::limits::{MAX_LANES, SLOT_BYTES};
use crate::plan::{Pool, Unassigned, bytes_in};
use crate::reassemble::Reassembler;
use crate::rules::{Rule, Rules};
use crate::time::{Instant, Span};
use crate::trust::Standing;
use crate::verify::{Inspector, Slot};

/// Nothing came over any lane for so long that the download is given up.
const GIVE_UP: Span = Span::from_millis(60_000);

/// How long the last working lane may be silent before its connection is given up: nobody could take over sooner.
const PATIENCE_ALONE: Span = Span::from_millis(10_000);

/// A lane with nothing to do near the end, or too slow to help, looks again after this time.
const LOOK_AGAIN: Span = Span::from_millis(50);

/// How many times as fast as the own link a peer may promise to be.
const MOST_PROMISED: u64 = 16;

/// How many bytes a peer may promise to hold.
const MOST_HELD: u32 = 1024 * 1024;

/// The most bytes that are waited for at a time.
const MOST_MARK: u64 = 64 * 1024;

/// One download over several lanes. `S` is a buffer of [`SLOT_BYTES`]; `SLOTS` the furthest that positions are
/// remembered ahead of the client.
#[derive(Debug)]
pub struct Transfer<S, const SLOTS: usize> {
    slots: Reassembler<S, SLOTS>,
    todo: Unassigned<SLOTS>,
    lanes: Vec<Lane<S>, MAX_LANES>,
    cut: Cut,
    gap: cut::Gap,
    inspector: Inspector,
    court: dispute::Court,
    standing_since: Option<Instant>,
    /// The slot that the client was seen to wait for, and since when.
    awaiting: Option<(u64, Instant)>,
    last_byte: Instant,
    over: Option<Outcome>,
    rules: Rules,
}

impl<S: Slot, const SLOTS: usize> Transfer<S, SLOTS> {
    /// A session for the file's bytes `range`, the first of which the original response delivers next. What is checked of
    /// peers is drawn from `secret`, which is random and nobody else's. `None` if there are too few `buffers`
    /// ([`crate::reassemble::MIN_BUFFERS`]) or no bytes.
    pub fn new(
        now: Instant,
        range: Range<u64>,
        buffers: impl IntoIterator<Item = S>,
        own: OwnLink,
        secret: [u8; 32],
    ) -> Option<Self> {
        if range.is_empty() {
            return None;
        }
        let mut transfer = Self::over(now, Layout::of(range), buffers, own, secret)?;
        // The original response flows already, and brings whatever nobody else is asked for.
        let first = transfer.todo.advance(1).start;
        let rest = transfer.slots.extent(first);
        let original = &mut transfer.lanes[0];
        original.rate.begin(now, Span::ZERO, own.rtt);
        let chunk = assign::chunk(rest, original.rate.get(), Purpose::Payload(None));
        original.main.chunks.push_back(crate::lane::Chunk { asked: Some(now), begun: true, ..chunk }).ok()?;
        Some(transfer)
    }

    /// A session over that, with nothing under way.
    fn over(
        now: Instant,
        layout: Layout,
        buffers: impl IntoIterator<Item = S>,
        own: OwnLink,
        secret: [u8; 32],
    ) -> Option<Self> {
        let slots = Reassembler::new(layout, buffers)?;
        let mut lanes = Vec::new();
        for kind in [LaneKind::Original, LaneKind::Own] {
            let mut lane = Lane::new(now, kind, own.rate, own.rtt, Standing::Trusted { accused: false });
            lane.hold = own.hold.into();
            lanes.push(lane).ok()?;
        }
        Some(Self {
            todo: Unassigned::new(slots.next(), slots.end()),
            slots,
            lanes,
            cut: Cut::Unproven { tries: 0 },
            gap: cut::Gap { end: u64::MAX, misses: 0, silent: false },
            inspector: Inspector::new(secret),
            court: dispute::Court::default(),
            standing_since: None,
            awaiting: None,
            last_byte: now,
            over: None,
            rules: Rules::default(),
        })
    }

    /// Keeps only these rules.
    #[cfg(feature = "rules-off")]
    pub fn keep_only(&mut self, rules: Rules) {
        self.rules = rules;
    }

    /// One more peer, expected to bring `rate` bytes per second with a round trip of `rtt` until it is measured, and
    /// checked as its `standing` asks for. `None` if the session has as many lanes as its window bears: half of the
    /// buffers, less one.
    pub fn add_peer(&mut self, now: Instant, rate: u64, rtt: Span, standing: Standing) -> Option<LaneId> {
        let most = (self.slots.window() / 2).saturating_sub(1);
        if self.lanes.len() as u64 >= most {
            return None;
        }
        self.lanes.push(Lane::new(now, LaneKind::Peer, rate, rtt, standing)).ok()?;
        Some(LaneId(self.lanes.len() as u8 - 1))
    }

    /// The lane's thread reports `event` and is told what to do next. A lane that does not exist is told to end.
    pub fn lane(&mut self, now: Instant, id: LaneId, event: LaneEvent<'_, S>) -> (LaneDo<S>, Wake) {
        let mut wake = Wake::default();
        let Some(lane) = self.lanes.get_mut(id.index()) else { return (LaneDo::End, wake) };
        lane.waiting = Waiting::No;
        match event {
            LaneEvent::Idle => {}
            LaneEvent::Ready { rate, hold } => self.ready(now, id, rate, hold, &mut wake),
            LaneEvent::Filled { conn, slot, at, len, head } => {
                self.filled(now, id, (conn, slot, at, len), head, &mut wake)
            }
            LaneEvent::Sampled { conn, samples, wire, head } => {
                self.sampled(now, id, conn, (samples, wire), head, &mut wake)
            }
            LaneEvent::Failed { slot, why } => {
                if let Some(slot) = slot {
                    self.slots.give_back(slot);
                }
                self.fail(now, id, why, &mut wake);
            }
        }
        let todo = self.direct(now, id, &mut wake);
        (self.in_file(todo), wake)
    }

    /// The client's thread reports `event` and is told what to do next.
    pub fn client(&mut self, now: Instant, event: ClientEvent<S>) -> (ClientDo<S>, Wake) {
        let mut wake = Wake::default();
        match event {
            ClientEvent::Idle => {}
            ClientEvent::Written(slot) => self.slots.give_back(slot),
            ClientEvent::Gone => self.end(Outcome::ClientGone, &mut wake),
        }
        let has_all = self.slots.next() == self.slots.end();
        if self.over.is_none() && has_all && !self.slots.layout().grows() {
            self.end(Outcome::Complete, &mut wake);
        }
        if let Some(outcome) = self.over {
            return (ClientDo::End(outcome), wake);
        }
        if has_all {
            (self.standing_since, self.awaiting) = (None, None);
            self.wake_waiting(&mut wake);
            return (ClientDo::Wait(None), wake);
        }
        if let Some((slot, extent)) = self.slots.pop() {
            self.standing_since = None;
            self.wake_waiting(&mut wake);
            let start = (extent.start % SLOT_BYTES as u64) as u32;
            return (ClientDo::Write { slot, start, len: (extent.end - extent.start) as u32 }, wake);
        }
        self.wake_waiting(&mut wake);
        let since = *self.standing_since.get_or_insert(now);
        // While the client took nothing, nothing was read either.
        if now.since(self.last_byte.max(since)) > GIVE_UP {
            self.end(Outcome::NoLaneLeft(Fault::Timeout), &mut wake);
            return (ClientDo::End(Outcome::NoLaneLeft(Fault::Timeout)), wake);
        }
        if self.is_unverifiable(now, since) {
            self.end(Outcome::Unverified, &mut wake);
            return (ClientDo::End(Outcome::Unverified), wake);
        }
        // It stands still for want of a slot only since it waits for that one: before, it may have waited for a check.
        let awaited = self.awaited();
        if self.awaiting.is_none_or(|(slot, _)| Some(slot) != awaited) {
            self.awaiting = awaited.map(|slot| (slot, now));
        }
        let since = self.awaiting.map_or(since, |(_, at)| since.max(at));
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

    /// The position up to which the client was served: an offset into the file, or in pieces about how many bytes it has.
    pub fn delivered(&self) -> u64 {
        let (next, end) = (self.slots.next(), self.slots.end());
        match end.checked_sub(1) {
            Some(last) if next == end => self.slots.extent(last).end,
            _ => self.slots.extent(next).start,
        }
    }

    /// What each lane did so far, in the order of their ids.
    pub fn report(&self) -> impl Iterator<Item = LaneView> + Clone + '_ {
        self.lanes.iter().map(|lane| LaneView {
            kind: lane.kind,
            state: lane.state,
            stats: lane.stats,
            pace: lane.pace(),
            is_measured: lane.rate.is_measured(),
        })
    }

    fn ready(&mut self, now: Instant, id: LaneId, rate: u64, hold: u32, wake: &mut Wake) {
        // A promise is only where the estimate starts. One beyond all measure would have the planner wait for this lane.
        let most = self.lanes[LaneId::OWN.index()].rate.get().saturating_mul(MOST_PROMISED);
        let lane = &mut self.lanes[id.index()];
        if lane.state == LaneState::Joining {
            lane.state = LaneState::Up;
            lane.up_since = now;
            if rate > 0 && !lane.rate.is_begun() {
                lane.rate = crate::lane::Rate::new(rate.min(most));
            }
            self.make_room_for_peers(wake);
        }
        self.lanes[id.index()].hold = hold.min(MOST_HELD).into();
    }

    /// What a lane does next.
    fn direct(&mut self, now: Instant, id: LaneId, wake: &mut Wake) -> LaneDo<S> {
        if self.over.is_some() {
            self.take_back(now, id, wake);
            return LaneDo::End;
        }
        match self.lanes[id.index()].state {
            LaneState::Joining => return LaneDo::Wait(None),
            LaneState::Left(_) | LaneState::Dismissed => {
                self.take_back(now, id, wake);
                self.votes_lost(now, id, wake);
                return LaneDo::End;
            }
            LaneState::Resting { until } if now < until => return LaneDo::Wait(Some(until)),
            LaneState::Resting { .. } => {
                let lane = &mut self.lanes[id.index()];
                lane.state = LaneState::Probing;
                (lane.main, lane.spare) = (Track::new(now), Track::new(now));
            }
            LaneState::Accused { closed: false } => {
                self.lanes[id.index()].state = LaneState::Accused { closed: true };
                return LaneDo::Close;
            }
            LaneState::Up | LaneState::Probing | LaneState::Accused { closed: true } => {}
        }
        if id == LaneId::ORIGINAL && self.original_is_silent(now) && !self.gap.silent {
            self.gap.silent = true;
            self.wake_all(wake);
        }
        if let Some(why) = self.overdue(now, id) {
            self.fail(now, id, why, wake);
            return LaneDo::Close;
        }
        match self.next_request(now, id, wake) {
            Some(request) => request,
            None => self.read(now, id, wake),
        }
    }

    /// Whether what is due on the lane has been due for too long.
    fn overdue(&mut self, now: Instant, id: LaneId) -> Option<Fault> {
        let conn = self.turn(now, id)?;
        let lane = &self.lanes[id.index()];
        (lane.blocked_since.is_none() && now >= self.deadline(id, conn)).then_some(Fault::Timeout)
    }

    /// The connection that the lane reads from now.
    fn turn(&mut self, now: Instant, id: LaneId) -> Option<Conn> {
        let urgent = self.urgent();
        self.slots.set_urgent(urgent);
        let slots = &self.slots;
        self.lanes[id.index()].turn(now, |track| match track.chunks.front() {
            Some(chunk) if chunk.purpose.fills_slots() => {
                let index = chunk.rest.start / SLOT_BYTES as u64;
                track.partial.is_some() || urgent == Some(index) || slots.may_take(index)
            }
            _ => true,
        })
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
        let Some(conn) = self.turn(now, id) else { return self.idle(now, id) };
        let owed = self.lanes[id.index()].owed();
        let portion = Pool::of(self.working().map(|(_, pace)| pace))
            .portion_time(self.slots.window() * SLOT_BYTES as u64);
        let track = self.lanes[id.index()].track_mut(conn);
        let Some(chunk) = track.chunks.front() else { return LaneDo::Wait(None) };
        if !chunk.purpose.fills_slots() {
            self.unblock(now, id, owed);
            let by = self.deadline(id, conn).min(self.asks_again(now, id, conn));
            return LaneDo::ReadSample { conn, by };
        }
        let rest = chunk.rest.clone();
        let index = rest.start / SLOT_BYTES as u64;
        let slot = match track.partial.take() {
            Some((slot, _)) => slot,
            None => match self.take(index) {
                Some(slot) => slot,
                None if id != LaneId::ORIGINAL && (self.head_is_stuck() || self.checks_wait_for(id)) => {
                    self.lanes[id.index()].blocked_since = None;
                    self.take_back(now, id, wake);
                    self.wake_all(wake);
                    return LaneDo::Close;
                }
                None => {
                    let lane = &mut self.lanes[id.index()];
                    lane.waiting = Waiting::Room(index);
                    lane.blocked_since.get_or_insert(now);
                    return LaneDo::Wait(self.next_check_at(now, id));
                }
            },
        };
        self.unblock(now, id, owed);
        let lane = &mut self.lanes[id.index()];
        let len = rest.end.min((index + 1) * SLOT_BYTES as u64) - rest.start;
        let portion = bytes_in(portion, lane.rate.get()).min(MOST_MARK).min(rest.end - rest.start);
        // The client waits for the head: its slot is worth waking up for as soon as it is complete; a peer's when its chunk
        // is.
        let is_head = lane.kind != LaneKind::Peer && (self.slots.next()..index).all(|i| self.slots.has(i));
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

    /// A buffer to read slot `index` into.
    fn take(&mut self, index: u64) -> Option<S> {
        let buffer = self.slots.take(index);
        if buffer.is_none() && self.urgent() == Some(index) && self.evict_for(index) {
            return self.slots.take(index);
        }
        buffer
    }

    /// The lane is read from again; that it was not is not its fault.
    fn unblock(&mut self, now: Instant, id: LaneId, owed: u64) {
        let lane = &mut self.lanes[id.index()];
        if let Some(since) = lane.blocked_since.take() {
            lane.rate.resume(now.since(since), owed);
            (lane.main.heard, lane.spare.heard) = (now, now);
        }
    }

    /// When a lane that takes long for a slot must ask for the next one, so as not to run dry when the slot is complete;
    /// others look at it often enough.
    fn asks_again(&self, now: Instant, id: LaneId, conn: Conn) -> Instant {
        let lane = &self.lanes[id.index()];
        let (track, pace) = (lane.track(conn), lane.pace());
        let check = self.next_check_at(now, id).unwrap_or(Instant::from_micros(u64::MAX));
        if lane.kind == LaneKind::Original || track.mark >= SLOT_BYTES as u64 || self.todo.is_empty() {
            return check;
        }
        let surplus = pace.time_for(pace.owed.saturating_sub(pace.cover(track.mark)));
        let due = lane.flows_from(track).max(track.heard) + surplus;
        if due > now { due.min(check) } else { check.min(now + LOOK_AGAIN) }
    }

    /// The lane gives up what it was asked for: it goes to the front of the plan.
    fn fail(&mut self, now: Instant, id: LaneId, why: Fault, wake: &mut Wake) {
        let several = self.sample_failed(id, why);
        let lane = &mut self.lanes[id.index()];
        if self.over.is_some() || lane.is_out() {
            return;
        }
        if lane.is_accused() {
            self.take_back(now, id, wake);
            return self.votes_lost(now, id, wake);
        }
        if several {
            // That an origin does not answer several ranges at a time is no fault of the link.
            return self.take_back(now, id, wake);
        }
        let probe_asked = lane.chunks().find(|c| c.purpose == Purpose::Probe).and_then(|c| c.asked);
        lane.fail(now, why);
        self.take_back(now, id, wake);
        self.votes_lost(now, id, wake);
        match (self.lanes[id.index()].kind, probe_asked) {
            (LaneKind::Original, _) => self.original_failed(id, why),
            (LaneKind::Own, Some(asked)) => self.probe_failed(now, asked, why, wake),
            _ => {}
        }
        if !self.rules.keep(Rule::ComeBack) {
            self.lanes[id.index()].state = LaneState::Left(why);
        }
        self.end_if_nobody_is_left(why, wake);
        self.wake_all(wake);
    }

    fn end_if_nobody_is_left(&mut self, why: Fault, wake: &mut Wake) {
        let may_go_on = |(i, l): (usize, &Lane<S>)| {
            !l.is_out() && (l.kind == LaneKind::Original || self.can_ever_work(i))
        };
        if !self.lanes.iter().enumerate().any(may_go_on) {
            self.end(Outcome::NoLaneLeft(why), wake);
        }
    }

    /// Takes back a lane's buffers and what it owes.
    fn take_back(&mut self, now: Instant, id: LaneId, wake: &mut Wake) {
        for conn in [Conn::Main, Conn::Spare] {
            loop {
                let track = self.lanes[id.index()].track_mut(conn);
                if let Some((slot, _)) = track.partial.take() {
                    self.slots.give_back(slot);
                }
                let Some(chunk) = track.chunks.pop_front() else { break };
                let slot = SLOT_BYTES as u64;
                match chunk.purpose {
                    Purpose::Payload(inspection) => {
                        if let Some(inspection) = inspection {
                            self.cut_short(inspection, chunk.rest.start / slot, wake);
                        }
                        self.lose(chunk.rest.start / slot..chunk.rest.end.div_ceil(slot));
                    }
                    Purpose::Probe => {}
                    Purpose::Sample(request) => self.inspector.unask_places(request),
                    Purpose::Audit(inspection) => self.inspector.unask_audit(inspection),
                    Purpose::Vote(dispute) if self.lanes[id.index()].is_accused() => {
                        self.ask_again(id, dispute)
                    }
                    Purpose::Vote(dispute) => self.vote_lost(now, id, dispute, wake),
                }
            }
        }
        if id == LaneId::OWN && !self.lanes[id.index()].is_up() {
            self.inspector.give_up_audits();
            self.settle_all(wake);
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
        self.close_court();
        self.wake_all(wake);
        wake.add_client();
    }

    fn wake_all(&self, wake: &mut Wake) {
        (0..self.lanes.len()).for_each(|i| wake.add_lane(i));
    }

    /// Wakes the lanes whose reason to wait is gone.
    fn wake_waiting(&mut self, wake: &mut Wake) {
        let urgent = self.urgent();
        self.slots.set_urgent(urgent);
        for i in 0..self.lanes.len() {
            let due = match self.lanes[i].waiting {
                Waiting::No => false,
                Waiting::Room(index) => urgent == Some(index) || self.slots.may_take(index),
                Waiting::Work => self.todo.lost() > 0 || self.todo.frontier() < self.horizon(i),
            };
            if due {
                self.lanes[i].waiting = Waiting::No;
                wake.add_lane(i);
            }
        }
    }
}
