//! What is done when the client stands still because one slot is missing (DESIGN section 5, rule 5). Not responsible
//! for lanes that have failed; what they owed is open to all again.

use super::{Conn, LaneId, LaneKind, Transfer, Wake};
use crate::lane::Lane;
use crate::limits::SLOT_BYTES;
use crate::plan::{Pool, bytes_in};
use crate::rules::Rule;
use crate::time::{Instant, Span};
use crate::verify::Slot;

/// How long the client stands still before another lane is asked for the head as well.
const STANDSTILL: Span = Span::from_millis(50);

impl<S: Slot, const SLOTS: usize> Transfer<S, SLOTS> {
    /// The client has been waiting since `since`. If the head is expected much later than another lane could bring it,
    /// that lane is asked for it as well. Returns when to look again.
    pub(super) fn rescue(&mut self, now: Instant, since: Instant, wake: &mut Wake) -> Instant {
        let due = since + STANDSTILL;
        if now < due {
            return due;
        }
        let again = now + STANDSTILL;
        if !self.rules.keep(Rule::Rescue) {
            return again;
        }
        let head = self.slots.next();
        let Some(head) = self.awaited() else {
            // It is here, and is being checked.
            self.release_audited(head, wake);
            self.wake_checkers(wake);
            return again;
        };
        let expected = self.lanes.iter().filter(|l| l.is_up()).filter_map(|l| l.expects(now, head)).min();
        let Some(expected) = expected else {
            self.wake_all(wake);
            return again;
        };
        let slot = SLOT_BYTES as u64;
        // What the lane owes already is on its way over the same link, in front of what it would be asked for now; unless
        // it stands blocked, then that waits in its sockets.
        let could = |lane: &Lane<S>| {
            let pace = lane.pace();
            let ahead = if lane.blocked_since.is_some() { pace.rtt } else { pace.busy() };
            ahead + pace.time_for(slot)
        };
        let able = self.working().map(|(i, _)| i).filter(|&i| self.can_rescue(i, head));
        let Some((best, takes)) = able.map(|i| (i, could(&self.lanes[i]))).min_by_key(|&(_, takes)| takes)
        else {
            // One that is being probed may have to do.
            self.wake_all(wake);
            return again;
        };
        if expected.since(now) <= takes.scale(3, 2) {
            return again;
        }
        let pool = Pool::of(self.working().map(|(_, pace)| pace));
        let chunk_time = pool.chunk_time(self.slots.window() * slot);
        let lane = &self.lanes[best];
        let most = (bytes_in(chunk_time, lane.rate.get()) / slot)
            .clamp(1, self.longest_chunk(LaneId::from_index(best)));
        let conn = if lane.main.chunks.is_empty() { Conn::Main } else { Conn::Spare };
        // The head's run as far as it is missing and owed by whoever is late with the head.
        let late =
            |i: u64| !self.slots.has(i) && self.lanes.iter().any(|l| l.is_up() && l.owes(head) && l.owes(i));
        let window_end = (self.slots.next() + self.slots.window()).min(self.slots.layout().seam(head));
        let end = (head + 1..(head + most).min(window_end))
            .find(|&i| !late(i))
            .unwrap_or((head + most).min(window_end));
        self.push(now, LaneId::from_index(best), conn, head..end.max(head + 1), wake);
        wake.add_lane(best);
        again
    }

    /// Whether lane `index` could be asked for the head: it has a connection on which nothing lies before it.
    fn can_rescue(&self, index: usize, head: u64) -> bool {
        let lane = &self.lanes[index];
        lane.kind != LaneKind::Original
            && !lane.owes(head)
            && (lane.main.chunks.is_empty() || (lane.spare.chunks.is_empty() && self.may_open_spare(index)))
    }
}
