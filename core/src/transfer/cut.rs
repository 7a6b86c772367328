//! The original response and its cut: it streams on as the own lane's first chunk and is closed where another lane's
//! work begins, but only once that was earned (DESIGN section 3). Not responsible for what comes after the cut.

use super::{Conn, LaneId, LaneKind, LaneState, Transfer, Wake};
use crate::lane::{Fault, Purpose};
use crate::limits::SLOT_BYTES;
use crate::plan::{Pool, bytes_in};
use crate::time::{Instant, Span};
use crate::verify::Slot;

/// How often the own link's second connection may fail before the original response is left alone.
const PROBES: u8 = 3;

/// Whether the original response may be cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// The own link's second connection has not answered yet.
    Unproven {
        /// How often it has failed to.
        tries: u8,
    },
    /// It answered 206 with the same validator and length: the cut may come.
    Earned,
    /// It can't: the peers were dismissed and the original response streams on to its end.
    Refused(Fault),
    /// The original response was cut, or broke off; the lanes bring the rest.
    Done,
}

/// What the original response brings alone before the lanes' work begins.
#[derive(Clone, Copy, Debug)]
pub(super) struct Gap {
    /// The first slot beyond; the most there is while no peer takes part.
    pub end: u64,
    /// How often the lanes were late there.
    pub misses: u8,
    /// The original response has gone silent before it may be cut: the lanes need not wait for that.
    pub silent: bool,
}

impl<S: Slot, const SLOTS: usize> Transfer<S, SLOTS> {
    /// The own link's second connection proved itself.
    pub(super) fn proven(&mut self, wake: &mut Wake) {
        if let Cut::Unproven { .. } = self.cut {
            self.cut = Cut::Earned;
            self.wake_all(wake);
        }
    }

    /// The own link's second connection failed before it had proved itself. While the original response is silent, too,
    /// that says something about the link, nothing about the origin.
    pub(super) fn probe_failed(&mut self, now: Instant, asked: Instant, why: Fault, wake: &mut Wake) {
        let Cut::Unproven { tries } = self.cut else { return };
        let heard = self.lanes.first().is_some_and(|l| l.main.heard > asked || l.blocked_since.is_some());
        if why.may_pass() && (self.original_is_silent(now) || (why == Fault::Timeout && !heard)) {
            return;
        }
        if why.may_pass() && tries + 1 < PROBES {
            self.cut = Cut::Unproven { tries: tries + 1 };
            return;
        }
        self.cut = Cut::Refused(why);
        self.drop_inspections(|_| true, wake);
        for lane in self.lanes.iter_mut().filter(|l| l.kind != LaneKind::Original) {
            if !lane.is_out() {
                lane.state = LaneState::Dismissed;
            }
        }
        self.wake_all(wake);
    }

    /// Whether the original response should have brought something by now.
    pub(super) fn original_is_silent(&self, now: Instant) -> bool {
        let Some(original) = self.lanes.first() else { return false };
        original.is_up() && original.blocked_since.is_none() && now >= original.deadline(&original.main)
    }

    /// The original response broke off: what it would have brought goes to the lanes, if there may be any.
    pub(super) fn original_failed(&mut self, id: LaneId, why: Fault) {
        self.lanes[id.index()].state = LaneState::Left(why);
        if !matches!(self.cut, Cut::Refused(_)) {
            self.cut = Cut::Done;
        }
    }

    /// The original response has come to slot `index`: it goes on with it, unless that is here already, verified, and the cut is
    /// earned, or nothing is left.
    pub(super) fn original_at(&mut self, now: Instant, index: u64, wake: &mut Wake) {
        let original = &mut self.lanes[LaneId::ORIGINAL.index()];
        if index >= self.slots.end() {
            original.state = LaneState::Dismissed;
            return;
        }
        if self.cut == Cut::Earned && self.slots.is_ready(index) {
            self.lanes[LaneId::ORIGINAL.index()].state = LaneState::Dismissed;
            self.take_back(now, LaneId::ORIGINAL, wake);
            self.cut = Cut::Done;
            return self.wake_all(wake);
        }
        if self.lanes[LaneId::ORIGINAL.index()].main.chunks.is_empty() {
            let end = self.catch_up(index, wake);
            if index == self.todo.frontier() {
                self.todo.advance(1);
            }
            (index..end).for_each(|i| self.todo.settle(i));
            let rest = self.slots.extent(index).start..self.slots.extent(end - 1).end;
            let original = &mut self.lanes[LaneId::ORIGINAL.index()];
            let chunk = super::assign::chunk(rest, original.rate.get(), Purpose::Payload(None));
            let asked = Some(original.main.heard);
            let _ = original.main.chunks.push_back(crate::lane::Chunk { asked, begun: true, ..chunk });
        }
    }

    /// A peer is ready: the original response is to bring what comes before the peer can deliver, and everything
    /// beyond is open to the lanes.
    pub(super) fn make_room_for_peers(&mut self, wake: &mut Wake) {
        // Only the first peer opens the gap.
        let Some(original) = self.lanes.first().filter(|l| l.is_up() && self.gap.end == u64::MAX) else {
            return;
        };
        let Some(at) = original.main.front_slot() else { return };
        let frontier = self.todo.frontier();
        self.gap.end = self.todo.advance((at + self.lead()).saturating_sub(frontier)).end;
        let end = self.slots.extent(self.gap.end - 1).end;
        if let Some(chunk) = self.lanes[LaneId::ORIGINAL.index()].main.chunks.front_mut() {
            chunk.rest.end = end;
        }
        self.wake_waiting(wake);
    }

    /// How many slots the original response brings before the lanes can have the one after those here; each time that
    /// they were late, twice as many are left to it.
    fn lead(&self) -> u64 {
        let slot = SLOT_BYTES as u64;
        let Some(original) = self.lanes.first() else { return 0 };
        let pace = original.pace();
        let pool = Pool::of(self.lanes.iter().filter(|l| l.kind != LaneKind::Own).map(|l| l.pace()));
        let starts =
            pace.rtt.scale(2, 1) + pool.chunk_time(self.slots.window() * slot) + Span::from_millis(10);
        let lead = bytes_in(starts, pace.rate).div_ceil(slot) << self.gap.misses.min(8);
        lead.clamp(2, self.slots.window() * 3 / 4)
    }

    /// The original response goes on at slot `index`, where a lane's work should have been. If the lanes are not far
    /// enough ahead to be in time for any cut, it brings a longer run alone, and they go on beyond that. Returns the
    /// run's end.
    fn catch_up(&mut self, index: u64, wake: &mut Wake) -> u64 {
        let has_peers = self.working().any(|(i, _)| self.lanes[i].kind == LaneKind::Peer);
        let end = (index + self.lead()).min(self.slots.end());
        if self.cut != Cut::Earned || index <= self.gap.end || !has_peers || self.todo.frontier() >= end {
            return index + 1;
        }
        self.gap.misses = self.gap.misses.saturating_add(1);
        let frontier = self.todo.frontier();
        self.gap.end = self.todo.advance((index + self.lead()).saturating_sub(frontier)).end;
        self.wake_waiting(wake);
        self.gap.end
    }

    /// Whether the original response has run past the place where the lanes' work begins, while it is still open
    /// whether it may be cut: more work for the lanes might be in vain. Not if the response has gone silent, or is so
    /// slow that it won't come up with the client soon.
    pub(super) fn cut_is_late(&self) -> bool {
        let Some(original) = self.lanes.first() else { return false };
        let Some(at) = original.main.front_slot() else { return false };
        let behind = self.slots.next().saturating_sub(at).saturating_mul(SLOT_BYTES as u64);
        let is_slow = original.pace().time_for(behind) > Span::from_millis(1_000);
        matches!(self.cut, Cut::Unproven { .. }) && at > self.gap.end && !self.gap.silent && !is_slow
    }

    /// The connection on which lane `id` checks others. The own link's payload goes over another one than was proven
    /// before the cut, made when the original response is gone: one that begins beside another in full flow leaves its slow
    /// start too early (RFC 9406), and then takes seconds to get the line for itself.
    pub(super) fn checks_on(&self, id: LaneId) -> Conn {
        match id == LaneId::OWN && self.cut != Cut::Done {
            true => Conn::Spare,
            false => Conn::Main,
        }
    }

    /// Whether payload may be asked of lane `index` at present.
    pub(super) fn may_work(&self, index: usize) -> bool {
        let Some(lane) = self.lanes.get(index) else { return false };
        match lane.kind {
            LaneKind::Original => !self.gap.silent,
            LaneKind::Own => self.cut == Cut::Done,
            LaneKind::Peer => !matches!(self.cut, Cut::Refused(_)) && !self.cut_is_late(),
        }
    }

    /// Whether payload may ever be asked of lane `index` again.
    pub(super) fn can_ever_work(&self, index: usize) -> bool {
        index != LaneId::ORIGINAL.index() && !matches!(self.cut, Cut::Refused(_))
    }
}
