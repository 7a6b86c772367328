//! The original response and its cut: it streams on as the own lane's first chunk and is closed where another lane's
//! work begins, but only once that was earned (DESIGN section 3). Not responsible for what comes after the cut.

use super::{LaneId, LaneKind, LaneState, Transfer, Wake};
use crate::lane::{Fault, Purpose};
use crate::limits::SLOT_BYTES;
use crate::plan::{Pool, bytes_in};
use crate::time::Span;

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

impl<S, const SLOTS: usize> Transfer<S, SLOTS> {
    /// The own link's second connection proved itself.
    pub(super) fn proven(&mut self, wake: &mut Wake) {
        if let Cut::Unproven { .. } = self.cut {
            self.cut = Cut::Earned;
            self.wake_all(wake);
        }
    }

    /// The own link's second connection failed before it had proved itself.
    pub(super) fn probe_failed(&mut self, why: Fault, wake: &mut Wake) {
        let Cut::Unproven { tries } = self.cut else { return };
        if why.may_pass() && tries + 1 < PROBES {
            self.cut = Cut::Unproven { tries: tries + 1 };
            return;
        }
        self.cut = Cut::Refused(why);
        for lane in self.lanes.iter_mut().filter(|l| l.kind != LaneKind::Original) {
            if !lane.is_out() {
                lane.state = LaneState::Dismissed;
            }
        }
        self.wake_all(wake);
    }

    /// The original response broke off: what it would have brought goes to the lanes, if there may be any.
    pub(super) fn original_failed(&mut self, id: LaneId, why: Fault) {
        self.lanes[id.index()].state = LaneState::Left(why);
        if !matches!(self.cut, Cut::Refused(_)) {
            self.cut = Cut::Done;
        }
    }

    /// The original response has come to slot `index`: it goes on with it, unless that is here already and the cut is
    /// earned, or nothing is left.
    pub(super) fn original_at(&mut self, index: u64, wake: &mut Wake) {
        let original = &mut self.lanes[LaneId::ORIGINAL.index()];
        if index >= self.slots.end() {
            original.state = LaneState::Dismissed;
            return;
        }
        if self.cut == Cut::Earned && self.slots.has(index) {
            self.lanes[LaneId::ORIGINAL.index()].state = LaneState::Dismissed;
            self.take_back(LaneId::ORIGINAL);
            self.cut = Cut::Done;
            return self.wake_all(wake);
        }
        if self.lanes[LaneId::ORIGINAL.index()].main.chunks.is_empty() {
            if index == self.todo.frontier() {
                self.todo.advance(1);
            }
            self.todo.settle(index);
            let extent = self.slots.extent(index);
            let original = &mut self.lanes[LaneId::ORIGINAL.index()];
            let chunk = super::assign::chunk(extent, original.rate.get(), Purpose::Payload);
            let asked = Some(original.main.heard);
            let _ = original.main.chunks.push_back(crate::lane::Chunk { asked, begun: true, ..chunk });
        }
    }

    /// A peer is ready: the original response is to bring what comes before the peer can deliver, and everything
    /// beyond is open to the lanes.
    pub(super) fn make_room_for_peers(&mut self, wake: &mut Wake) {
        let slot = SLOT_BYTES as u64;
        let Some(original) = self.lanes.first() else { return };
        let Some(chunk) = original.main.chunks.front().filter(|_| original.is_up()) else { return };
        let at = chunk.rest.start / slot;
        // Only the first peer opens the gap.
        if self.gap_end != u64::MAX {
            return;
        }
        let pace = original.pace();
        let pool = Pool::of(self.lanes.iter().filter(|l| l.kind != LaneKind::Own).map(|l| l.pace()));
        let starts =
            pace.rtt.scale(2, 1) + pool.chunk_time(self.slots.window() * slot) + Span::from_millis(10);
        let lead = bytes_in(starts, pace.rate).div_ceil(slot).clamp(2, self.slots.window() * 3 / 4);
        self.gap_end = self.todo.advance((at + lead).saturating_sub(self.todo.frontier())).end;
        let end = self.slots.extent(self.gap_end - 1).end;
        if let Some(chunk) = self.lanes[LaneId::ORIGINAL.index()].main.chunks.front_mut() {
            chunk.rest.end = end;
        }
        self.wake_waiting(wake);
    }

    /// Whether the original response has run past the place where the lanes' work begins, while it is still open
    /// whether it may be cut: more work for the lanes might be in vain.
    pub(super) fn cut_is_late(&self) -> bool {
        let overrun = self.lanes.first().and_then(|l| l.main.front_slot()).is_some_and(|i| i > self.gap_end);
        matches!(self.cut, Cut::Unproven { .. }) && overrun
    }

    /// Whether payload may be asked of lane `index` at present.
    pub(super) fn may_work(&self, index: usize) -> bool {
        let Some(lane) = self.lanes.get(index) else { return false };
        match lane.kind {
            LaneKind::Original => true,
            // Before the cut it warms up its connection beside the original response, so that there is no gap.
            LaneKind::Own => matches!(self.cut, Cut::Earned | Cut::Done),
            LaneKind::Peer => !matches!(self.cut, Cut::Refused(_)) && !self.cut_is_late(),
        }
    }

    /// Whether payload may ever be asked of lane `index` again.
    pub(super) fn can_ever_work(&self, index: usize) -> bool {
        index != LaneId::ORIGINAL.index() && !matches!(self.cut, Cut::Refused(_))
    }
}
