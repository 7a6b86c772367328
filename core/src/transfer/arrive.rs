//! What arrives on a lane: how fast it was, where it belongs, and who has to know. Not responsible for whether it is
//! right; that is [`super::inspect`].

use super::{Conn, HeadTimes, LaneId, LaneKind, LaneState, Transfer, Wake};
use crate::lane::{Chunk, Lane, Purpose, Rate, RoundTrip};
use crate::limits::SLOT_BYTES;
use crate::plan::time_for;
use crate::time::{Instant, Span};
use crate::verify::{Sample, Slot};

/// What became of a slot that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Came {
    /// It is kept.
    New,
    /// It was here already.
    Again,
    /// What was fetched of it to check it was here before.
    Awaited,
    /// It is not what it should be.
    Wrong,
}

impl<S: Slot, const SLOTS: usize> Transfer<S, SLOTS> {
    pub(super) fn filled(
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
            begin(chunk, head, &mut track.heard, rate, rtt);
        }
        if len > 0 {
            track.heard = now;
            track.came = track.came.saturating_add(len.into());
            self.last_byte = now;
            self.gap.silent &= id != LaneId::ORIGINAL;
            rate.add(now, len.into());
            chunk.rest.start += u64::from(len);
        }
        let (pos, done, purpose) = (chunk.rest.start, chunk.rest.is_empty(), chunk.purpose);
        if !done && !pos.is_multiple_of(SLOT_BYTES as u64) {
            track.partial = Some((slot, len));
            // One that drips never completes a slot.
            return self.offer_if_slowed(now, id, wake);
        }
        if len == 0 {
            return self.slots.give_back(slot);
        }
        if done {
            track.chunks.pop_front();
        }
        let index = at / SLOT_BYTES as u64;
        match purpose {
            Purpose::Audit(inspection) => self.audited(now, id, inspection, index, slot, wake),
            Purpose::Payload(inspection) => {
                let came = match inspection {
                    Some(inspection) => self.peer_slot(now, id, inspection, index, slot, wake),
                    None => self.own_slot(now, id, index, slot, wake),
                };
                self.slot_complete(now, id, index, came, wake);
            }
            // Those are reported as sampled; a driver that does not only loses the buffer's bytes.
            Purpose::Probe | Purpose::Sample(_) | Purpose::Vote(_) => self.slots.give_back(slot),
        }
    }

    /// The answer to a request for places is there.
    pub(super) fn sampled(
        &mut self,
        now: Instant,
        id: LaneId,
        conn: Conn,
        (samples, wire): (&[Sample], u32),
        head: Option<HeadTimes>,
        wake: &mut Wake,
    ) {
        let lane = &mut self.lanes[id.index()];
        let Lane { main, spare, rate, rtt, stats, .. } = lane;
        let track = if conn == Conn::Main { main } else { spare };
        let Some(chunk) = track.chunks.front_mut().filter(|c| !c.purpose.fills_slots()) else { return };
        if let Some(head) = head {
            begin(chunk, head, &mut track.heard, rate, rtt);
        }
        let purpose = chunk.purpose;
        track.chunks.pop_front();
        (track.heard, self.last_byte) = (now, now);
        if purpose != Purpose::Probe {
            rate.add(now, wire.into());
        }
        stats.checked += u64::from(wire);
        match purpose {
            Purpose::Sample(request) => self.places_came(now, id, request, samples, wake),
            Purpose::Vote(dispute) => self.voted(now, id, dispute, samples.first(), wake),
            Purpose::Probe => self.proven(wake),
            Purpose::Payload(_) | Purpose::Audit(_) => {}
        }
    }

    /// A slot came, and was of use or not.
    fn slot_complete(&mut self, now: Instant, id: LaneId, index: u64, came: Came, wake: &mut Wake) {
        let extent = self.slots.extent(index);
        let bytes = extent.end - extent.start;
        let lane = &mut self.lanes[id.index()];
        match came {
            Came::New => {
                lane.stats.bytes += bytes;
                self.todo.settle(index);
                self.settle_around(index, wake);
                if index == self.slots.next() && self.slots.is_ready(index) && self.standing_since.is_some() {
                    wake.add_client();
                }
            }
            Came::Again => {
                lane.stats.duplicates += bytes;
                self.wake_waiting(wake);
            }
            Came::Awaited => {
                lane.stats.bytes += bytes;
                self.wake_waiting(wake);
            }
            Came::Wrong => return self.wake_waiting(wake),
        }
        let lane = &mut self.lanes[id.index()];
        lane.was_cut = false;
        if lane.state == LaneState::Probing {
            lane.state = LaneState::Up;
            lane.up_since = now;
        }
        match lane.kind {
            LaneKind::Original => self.original_at(now, index + 1, wake),
            LaneKind::Own | LaneKind::Peer => self.offer_if_slowed(now, id, wake),
        }
    }
}

/// The head of a chunk's answer is there.
fn begin(chunk: &mut Chunk, head: HeadTimes, heard: &mut Instant, rate: &mut Rate, rtt: &mut RoundTrip) {
    // An answer that was asked for while others were due is late by them, unless they ended well before.
    let slot_time = time_for(SLOT_BYTES as u64, rate.get());
    let dry = !chunk.queued || head.at.since(*heard) > rtt.get().scale(1, 4) + slot_time;
    rtt.add(head.at.since(head.sent), !dry);
    // Nor does a wait for the head say anything about the rate; what bytes take between each other does.
    if chunk.purpose != Purpose::Probe {
        let gap = head.at.since(*heard);
        rate.begin(head.at, if gap > Span::from_millis(4) { gap } else { Span::ZERO }, rtt.get());
    }
    chunk.begun = true;
    *heard = (*heard).max(head.at);
}
