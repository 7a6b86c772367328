//! What peers bring is compared with what the own link has before the client gets it (DESIGN section 7, "Nothing
//! unverified reaches the client"): which checks are asked for when, and when a chunk is released. Not responsible for
//! which places are looked at ([`crate::verify`]), nor for what a mismatch means ([`super::dispute`]).
//!
//! Every chunk of a peer is held until all of it is here and all that was fetched to check it is the same. Whatever the own
//! link brings is compared with a peer's copy, too, where there is one.

use super::arrive::Came;
use super::{Conn, Fault, LOOK_AGAIN, LaneDo, LaneId, LaneKind, LaneState, PATIENCE_ALONE, Transfer, Wake};
use crate::lane::{Chunk, Lane, Purpose};
use crate::limits::{MAX_PLACES, PLACE_BYTES, SLOT_BYTES};
use crate::plan::Pool;
use crate::reassemble::Look;
use crate::time::Instant;
use crate::verify::{Due, Inspector, Sample, Slot, same};

/// About how many bytes an answer has besides the places, and a part of it besides its place.
const ANSWER_BYTES: u64 = 350;
const PART_BYTES: u64 = 120;

/// With so many requests for places under way, the next ones are gathered: a connection has room for
/// [`crate::limits::MAX_PIPELINE`] requests, and each has a head.
const GATHERED_BESIDE: usize = 3;

impl<S: Slot, const SLOTS: usize> Transfer<S, SLOTS> {
    /// The check that lane `id` asks for now, if any.
    pub(super) fn next_check(&mut self, now: Instant, id: LaneId) -> Option<LaneDo<S>> {
        let checks = self.checks(id);
        if checks == 0 {
            return None;
        }
        let is_own = id == LaneId::OWN;
        let of = |lane: usize| checks & 1 << lane != 0;
        if self.inspector.due(of).is_some_and(|due| now >= self.asks_at(id, &due)) {
            // On a connection of its own an answer would be here no sooner than the payload that waits meanwhile.
            let conn = self.checks_on(id);
            if self.lanes.get(id.index())?.track(conn).chunks.is_full() {
                return None;
            }
            let (request, places) = match is_own && self.inspector.several {
                true => self.inspector.ask_places(of),
                false => self.inspector.ask_place(of, is_own)?,
            };
            let first = places.iter().next()?;
            let answer = match places.len() as u64 {
                1 => ANSWER_BYTES + PLACE_BYTES as u64,
                many => ANSWER_BYTES + many * (PART_BYTES + PLACE_BYTES as u64),
            };
            self.push_asked(now, id, conn, first.start..first.start + answer, Purpose::Sample(request));
            return Some(LaneDo::Sample { conn, places });
        }
        while let Some((inspection, slot)) = self.inspector.audit_due().filter(|_| is_own) {
            let lane = &self.lanes[id.index()];
            // What would have to wait for room behind later slots would keep the chunk waiting, too.
            let fits = |conn: Conn| {
                let track = lane.track(conn);
                !track.chunks.is_full() && track.last_slot().is_none_or(|last| last < slot)
            };
            let conn = match () {
                () if self.slots.is_ready(slot) => None,
                () if fits(self.checks_on(id)) => Some(self.checks_on(id)),
                () if fits(Conn::Spare) && self.may_open_spare(id.index()) => Some(Conn::Spare),
                () => None,
            };
            let Some(conn) = conn else {
                self.inspector.audited(inspection);
                continue;
            };
            let range = self.slots.extent(slot);
            self.inspector.ask_audit(inspection);
            self.push_asked(now, id, conn, range.clone(), Purpose::Audit(inspection));
            return Some(LaneDo::Request { conn, range });
        }
        None
    }

    /// When lane `id` asks for places that are due: at once, unless some requests are under way already. Then they are
    /// gathered until there is as much as fits into one, or for half a chunk's time; they are here before their chunk all the
    /// same.
    fn asks_at(&self, id: LaneId, due: &Due) -> Instant {
        let chunks = self.lanes.get(id.index()).map(|lane| &lane.track(self.checks_on(id)).chunks);
        let is_sample = |chunk: &&Chunk| matches!(chunk.purpose, Purpose::Sample(_));
        let under_way = chunks.map_or(0, |chunks| chunks.iter().filter(is_sample).count());
        if due.places >= MAX_PLACES || under_way < GATHERED_BESIDE {
            return due.since;
        }
        let pool = Pool::of(self.working().map(|(_, pace)| pace));
        due.since + pool.chunk_time(self.slots.window() * SLOT_BYTES as u64).scale(1, 2)
    }

    /// When lane `id` has to look for checks again.
    pub(super) fn next_check_at(&self, now: Instant, id: LaneId) -> Option<Instant> {
        let checks = self.checks(id);
        if checks == 0 {
            return None;
        }
        let due = self.inspector.due(|lane| checks & 1 << lane != 0)?;
        let at = self.asks_at(id, &due);
        // What could have been asked for by now has no room on the connection.
        Some(if at > now { at } else { now + LOOK_AGAIN })
    }

    /// Whether lane `id` checks others.
    pub(super) fn may_check(&self, id: LaneId) -> bool {
        self.checks(id) != 0
    }

    /// The lanes whose chunks lane `id` checks, one bit each: the own link those of all; while it is dead, trusted peers stand
    /// in for it (DESIGN section 5, rule 9).
    fn checks(&self, id: LaneId) -> u32 {
        let Some(lane) = self.lanes.get(id.index()) else { return 0 };
        let own_is_up = || self.lanes.get(LaneId::OWN.index()).is_some_and(|own| own.state == LaneState::Up);
        let stands_in = |lane: &Lane<S>| lane.kind == LaneKind::Peer && lane.is_trusted() && lane.is_up();
        let may = |checked: usize| match (lane.kind, lane.state) {
            (LaneKind::Original, _) => false,
            (LaneKind::Own, LaneState::Up) => true,
            // While it is only being tried again it would keep waiting what others can check at once.
            (LaneKind::Own, LaneState::Probing) => {
                !self.lanes.iter().enumerate().any(|(i, lane)| i != checked && stands_in(lane))
            }
            (LaneKind::Own, _) => false,
            (LaneKind::Peer, _) => checked != id.index() && stands_in(lane) && !own_is_up(),
        };
        (2..self.lanes.len()).filter(|&i| may(i)).fold(0, |all, i| all | 1 << i)
    }

    /// Adds a chunk that is being asked for already.
    pub(super) fn push_asked(
        &mut self,
        now: Instant,
        id: LaneId,
        conn: Conn,
        rest: core::ops::Range<u64>,
        purpose: Purpose,
    ) {
        let lane = &mut self.lanes[id.index()];
        lane.stats.requests += 1;
        let rate = lane.rate.get();
        let track = lane.track_mut(conn);
        let idle = track.chunks.is_empty();
        if idle {
            track.heard = now;
        }
        let chunk = super::assign::chunk(rest, rate, purpose);
        // A full pipeline is never asked for more.
        let _ = track.chunks.push_back(Chunk { asked: Some(now), queued: !idle, ..chunk });
    }

    /// A peer is asked for these slots: their inspection begins. `None` if there is no room for it.
    pub(super) fn begin_inspection(
        &mut self,
        now: Instant,
        id: LaneId,
        slots: core::ops::Range<u64>,
        wake: &mut Wake,
    ) -> Option<u32> {
        let mut checking = self.lanes.get(id.index())?.standing.checking();
        if !self.may_check(LaneId::OWN) {
            checking.audit_per_10000 = 0; // there is no own link to fetch slots over
        }
        let bytes = self.slots.extent(slots.start).start..self.slots.extent(slots.end.checked_sub(1)?).end;
        let places = |inspector: &Inspector| inspector.due(|_| true).map_or(0, |due| due.places);
        let was_due = places(&self.inspector);
        let inspection = self.inspector.begin(now, id.index(), slots, bytes, checking)?;
        let is_full = places(&self.inspector) >= MAX_PLACES;
        // Once they know of the first they come back in time for what follows.
        if was_due == 0 || (is_full && was_due < MAX_PLACES) {
            self.wake_checkers(wake);
        }
        Some(inspection)
    }

    /// Wakes those who are to ask for checks.
    pub(super) fn wake_checkers(&self, wake: &mut Wake) {
        (0..self.lanes.len())
            .filter(|&i| self.may_check(LaneId::from_index(i)))
            .for_each(|i| wake.add_lane(i));
    }

    /// A slot that a peer was asked for is here.
    pub(super) fn peer_slot(
        &mut self,
        now: Instant,
        id: LaneId,
        inspection: u32,
        index: u64,
        slot: S,
        wake: &mut Wake,
    ) -> Came {
        let waits = self.inspector.own_copy_of(inspection) == Some(index);
        let extent = self.slots.extent(index);
        let ours = match self.slots.look(index) {
            Some(Look::Ready(ours, lane)) if lane <= LaneId::OWN.index() => Some(ours),
            Some(Look::Held(ours, by)) if waits && by == inspection => Some(ours),
            _ => None,
        };
        let verdict = self
            .inspector
            .came(inspection, index, &slot)
            .and_then(|()| ours.map_or(Ok(()), |ours| same(LaneId::OWN.index(), ours, &slot, extent)));
        if let Err(mismatch) = verdict {
            self.slots.give_back(slot);
            self.accuse(now, id, mismatch, wake);
            return Came::Wrong;
        }
        if waits {
            self.slots.give_back(slot);
            self.inspector.audited(inspection);
            self.settle(inspection, wake);
            return Came::Awaited;
        }
        if self.inspector.get(inspection).is_none() {
            // Everything of the chunk had been here, from others; some of that may be gone again.
            self.slots.give_back(slot);
            self.lose(index..index + 1);
            return Came::Again;
        }
        match self.slots.hold(index, slot, inspection) {
            true => Came::New,
            false => {
                self.settle(inspection, wake);
                Came::Again
            }
        }
    }

    /// A slot that the own link was asked for is here.
    pub(super) fn own_slot(
        &mut self,
        now: Instant,
        id: LaneId,
        index: u64,
        slot: S,
        wake: &mut Wake,
    ) -> Came {
        let extent = self.slots.extent(index);
        let Some(Look::Held(theirs, by)) = self.slots.look(index) else {
            return if self.slots.put(index, slot, id.index()) { Came::New } else { Came::Again };
        };
        if (self.inspector.own_copy_of(by) != Some(index))
            && let Err(mismatch) = same(id.index(), &slot, theirs, extent)
        {
            if let Some((accused, _)) = self.inspector.get(by) {
                self.accuse(now, LaneId::from_index(accused), mismatch, wake);
            }
            return if self.slots.put(index, slot, id.index()) { Came::New } else { Came::Again };
        }
        // It is the same, so the client can have it; where an audit waits for the peer's copy, only after that.
        if self.inspector.own_copy_of(by) != Some(index) {
            let lane = self.inspector.get(by).map_or(id.index(), |(lane, _)| lane);
            self.slots.release(index, by, lane);
            self.wake_if_head(index, wake);
        }
        self.slots.give_back(slot);
        self.settle(by, wake);
        Came::Again
    }

    /// The own link's copy of a slot is here that was fetched to check the chunk of this inspection.
    pub(super) fn audited(
        &mut self,
        now: Instant,
        id: LaneId,
        inspection: u32,
        index: u64,
        slot: S,
        wake: &mut Wake,
    ) {
        let extent = self.slots.extent(index);
        self.lanes[id.index()].stats.checked += extent.end - extent.start;
        match self.slots.look(index) {
            Some(Look::Held(theirs, by)) => {
                let verdict = same(id.index(), &slot, theirs, extent);
                self.slots.give_back(slot);
                self.inspector.audited(inspection);
                if let (Err(mismatch), Some((accused, _))) = (verdict, self.inspector.get(by)) {
                    return self.accuse(now, LaneId::from_index(accused), mismatch, wake);
                }
            }
            None if self.inspector.being_audited(inspection) == Some(index) && index >= self.slots.next() => {
                self.slots.hold(index, slot, inspection);
                self.todo.settle(index);
                self.inspector.own_copy_came(inspection);
                self.settle_around(index, wake);
            }
            Some(Look::Ready(..)) | None => {
                self.slots.give_back(slot);
                self.inspector.audited(inspection);
            }
        }
        self.settle(inspection, wake);
        self.wake_waiting(wake);
    }

    /// The answer to a request for places is here.
    pub(super) fn places_came(
        &mut self,
        now: Instant,
        id: LaneId,
        request: u32,
        samples: &[Sample],
        wake: &mut Wake,
    ) {
        let layout = self.slots.layout();
        self.inspector.places_came(id.index(), request, samples, |at| layout.file(at..at + 1).start);
        loop {
            let slots = &self.slots;
            let held = |inspection: u32, index: u64| match slots.look(index) {
                Some(Look::Held(slot, by)) if by == inspection => Some(slot),
                _ => None,
            };
            let Some((inspection, mismatch)) = self.inspector.compare_all(held) else { break };
            let Some((accused, _)) = self.inspector.get(inspection) else { break };
            self.accuse(now, LaneId::from_index(accused), mismatch, wake);
        }
        self.settle_all(wake);
    }

    /// Releases a chunk if it is complete and what was fetched of it is the same.
    pub(super) fn settle(&mut self, inspection: u32, wake: &mut Wake) {
        let Some((lane, slots)) = self.inspector.get(inspection) else { return };
        if !slots.clone().all(|index| self.slots.has(index)) {
            return;
        }
        let ring = &self.slots;
        let is_held = |index| matches!(ring.look(index), Some(Look::Held(_, by)) if by == inspection);
        if !self.inspector.is_clean(inspection, is_held) {
            return;
        }
        // What was to be looked at may have come from elsewhere, or not at all: something of what is held must be.
        let held = || slots.clone().filter(|&index| is_held(index));
        let count = held().count() as u64;
        if count > 0 && !self.inspector.is_looked_into(inspection) {
            let extent = |n: u64| ring.extent(held().nth(n as usize).unwrap_or(slots.start));
            self.inspector.look_into(inspection, count, extent);
            return self.wake_checkers(wake);
        }
        for index in slots {
            if self.slots.release(index, inspection, lane) {
                self.wake_if_head(index, wake);
            }
        }
        self.inspector.end(inspection);
        self.wake_waiting(wake);
    }

    /// The same, for all chunks that slot `index` is part of.
    pub(super) fn settle_around(&mut self, index: u64, wake: &mut Wake) {
        while let Some(id) = self.complete(|slots| slots.contains(&index)) {
            self.settle(id, wake);
        }
    }

    /// The same, for all chunks.
    pub(super) fn settle_all(&mut self, wake: &mut Wake) {
        while let Some(id) = self.complete(|_| true) {
            self.settle(id, wake);
        }
    }

    /// A chunk of those that are `of` interest that can be released.
    fn complete(&self, of: impl Fn(&core::ops::Range<u64>) -> bool) -> Option<u32> {
        let ring = &self.slots;
        self.inspector
            .iter()
            .filter(|i| of(&i.slots) && i.slots.clone().all(|index| ring.has(index)))
            .map(|i| i.id)
            .find(|&id| {
                self.inspector
                    .is_clean(id, |index| matches!(ring.look(index), Some(Look::Held(_, by)) if by == id))
            })
    }

    fn wake_if_head(&self, index: u64, wake: &mut Wake) {
        if index == self.slots.next() && self.standing_since.is_some() {
            wake.add_client();
        }
    }

    /// The peer brings no more of a chunk than what lies before slot `end`.
    pub(super) fn cut_short(&mut self, inspection: u32, end: u64, wake: &mut Wake) {
        let Some((_, slots)) = self.inspector.get(inspection) else { return };
        for index in end.max(slots.start)..slots.end {
            self.release_own(inspection, index, wake);
        }
        self.inspector.cut_short(inspection, end);
        self.settle(inspection, wake);
    }

    /// The own link's copy of a slot was held until the peer's comes; it does not come any more.
    fn release_own(&mut self, inspection: u32, index: u64, wake: &mut Wake) -> bool {
        if (self.inspector.own_copy_of(inspection) != Some(index))
            || !self.slots.release(index, inspection, LaneId::OWN.index())
        {
            return false;
        }
        let extent = self.slots.extent(index);
        let own = &mut self.lanes[LaneId::OWN.index()];
        own.stats.bytes += extent.end - extent.start;
        self.wake_if_head(index, wake);
        true
    }

    /// The client has stood still for some time before slot `head`: if the own link's copy of a slot of its chunk is here, the
    /// peer's is not waited for.
    pub(super) fn release_audited(&mut self, head: u64, wake: &mut Wake) {
        let Some(Look::Held(_, by)) = self.slots.look(head) else { return };
        let Some(index) = self.inspector.own_copy_of(by) else { return };
        if self.release_own(by, index, wake) {
            self.inspector.audited(by);
            self.settle(by, wake);
            wake.add_client();
        }
    }

    /// Makes room for slot `index`, without which the head is not released, though all buffers are in use for later ones: the
    /// furthest is dropped, and fetched again in time.
    pub(super) fn evict_for(&mut self, index: u64) -> bool {
        let brought_by = |furthest: u64| match self.slots.look(furthest)? {
            Look::Ready(_, lane) => Some((lane, None)),
            Look::Held(_, by) => Some((self.inspector.get(by)?.0, Some(by))),
        };
        let furthest =
            (index + 1..self.slots.next() + SLOTS as u64).rev().find(|&i| self.slots.look(i).is_some());
        let Some((furthest, (lane, held))) = furthest.and_then(|i| Some((i, brought_by(i)?))) else {
            return false;
        };
        self.slots.evict(furthest);
        let extent = self.slots.extent(furthest);
        match held.filter(|&by| self.inspector.own_copy_of(by) == Some(furthest)) {
            Some(by) => self.inspector.unask_audit(by), // it was the own link's copy, which counts for nothing yet
            None => self.lanes[lane].stats.bytes -= extent.end - extent.start,
        }
        self.lose(furthest..furthest + 1);
        true
    }

    /// Nothing that a peer brought and that is not released yet is used.
    pub(super) fn drop_inspections(&mut self, of: impl Fn(usize) -> bool, wake: &mut Wake) {
        loop {
            let found = self.inspector.iter().find(|i| of(i.lane));
            let Some((id, lane, slots)) = found.map(|i| (i.id, i.lane, i.slots.clone())) else { break };
            for index in slots.clone() {
                if !self.release_own(id, index, wake) && self.slots.drop_held(index, id) {
                    let extent = self.slots.extent(index);
                    self.lanes[lane].stats.bytes -= extent.end - extent.start;
                }
            }
            self.inspector.end(id);
            self.lose(slots);
        }
    }

    /// The slot that the client waits for, if it waits for one to come and not for a check.
    pub(super) fn awaited(&self) -> Option<u64> {
        let next = self.slots.next();
        match self.slots.look(next) {
            None => (next < self.slots.end()).then_some(next),
            Some(Look::Ready(..)) => None,
            Some(Look::Held(_, by)) => {
                let (_, slots) = self.inspector.get(by)?;
                (next..slots.end).find(|&index| !self.slots.has(index))
            }
        }
    }

    /// The slot without which the head is not released: one of its chunk that is missing, or the own link's copy of one.
    pub(super) fn urgent(&self) -> Option<u64> {
        self.awaited().or_else(|| match self.slots.look(self.slots.next()) {
            Some(Look::Held(_, by)) => self.inspector.being_audited(by).or(self.inspector.own_copy_of(by)),
            Some(Look::Ready(..)) | None => None,
        })
    }

    /// Whether the client waits for a check that lane `id` was asked for behind something that waits for room, or can't be
    /// asked for since its connection is full of that.
    pub(super) fn checks_wait_for(&self, id: LaneId) -> bool {
        let Some(Look::Held(_, by)) = self.slots.look(self.slots.next()) else { return false };
        let Some((checked, _)) = self.inspector.get(by) else { return false };
        let lane = &self.lanes[id.index()];
        let is_asked = |c: &Chunk| matches!(c.purpose, Purpose::Sample(request) if self.inspector.is_asked_in(by, request));
        let is_due = || self.checks(id) & 1 << checked != 0 && self.inspector.is_due(by);
        lane.chunks().any(is_asked) || (lane.track(self.checks_on(id)).chunks.is_full() && is_due())
    }

    /// Whether the client waits for a check that nobody can do any more, or nobody for too long.
    pub(super) fn is_unverifiable(&self, now: Instant, since: Instant) -> bool {
        let Some(Look::Held(_, by)) = self.slots.look(self.slots.next()) else { return false };
        let Some((checked, _)) = self.inspector.get(by) else { return false };
        let streams = self.lanes.first().is_some_and(|original| original.is_up()) && !self.gap.silent;
        let own_is_up = self.lanes.get(LaneId::OWN.index()).is_some_and(|own| own.state == LaneState::Up);
        if self.awaited().is_some() || streams || own_is_up {
            return false;
        }
        let checkers = || (1..self.lanes.len()).filter(|&i| i != checked);
        if checkers().any(|i| self.checks(LaneId::from_index(i)) & 1 << checked != 0) {
            return false;
        }
        let is_of_use = |lane: &Lane<S>| lane.is_trusted() && !lane.is_out();
        let hopeless = !checkers().filter_map(|i| self.lanes.get(i)).any(is_of_use);
        hopeless || now.since(since) > PATIENCE_ALONE
    }

    /// Whether what failed on lane `id` is a request for several places, and shows that the origin does not answer such
    /// requests; places are asked for one at a time from then on. So they are once such requests failed twice in a row.
    pub(super) fn sample_failed(&mut self, id: LaneId, why: Fault) -> bool {
        let Some(lane) = self.lanes.get(id.index()).filter(|l| l.kind == LaneKind::Own && !l.is_out()) else {
            return false;
        };
        let asked = matches!(lane.front().map(|chunk| chunk.purpose), Some(Purpose::Sample(_)));
        if !asked || !self.inspector.several {
            return false;
        }
        let shows = match why {
            Fault::Status(status) => status == 501 || (status < 500 && status != 408 && status != 429),
            Fault::Encoded | Fault::WrongRange | Fault::WrongLength | Fault::Malformed => true,
            _ => false,
        };
        self.inspector.failed = self.inspector.failed.saturating_add(1);
        self.inspector.several = !shows && self.inspector.failed < 2;
        shows
    }
}
