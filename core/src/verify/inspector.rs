//! All chunks of peers that are not released yet: which places of them are looked at, what is asked for, what is still open.
//! Not responsible for what a mismatch means.

use core::fmt;
use core::ops::Range;

use heapless::Vec;
use sha2::{Digest, Sha256};

use super::{Bytes, Mismatch, Places, SLOT, Sample, Slot, excerpt};
use crate::limits::{MAX_CHUNK_SLOTS, MAX_INSPECTIONS, MAX_OPEN_PLACES, MAX_PLACES, PLACE_BYTES};
use crate::time::Instant;
use crate::trust::Checking;

/// How far the audit of a slot, which is fetched whole over the own link, has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Audit {
    /// It is to be asked for.
    Due,
    Asked,
    /// The own link's copy is here and waits for the peer's.
    OwnCopy,
    Done,
}

/// Places that are to be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Due {
    /// Since when the first of them.
    pub since: Instant,
    /// How many.
    pub places: usize,
}

/// A chunk of a peer from the request until it is released.
#[derive(Debug)]
pub(crate) struct Inspection {
    pub id: u32,
    /// The lane that brings it.
    pub lane: usize,
    /// What it still brings or has brought.
    pub slots: Range<u64>,
    began: Instant,
    /// Whether any of it was compared.
    looked_into: bool,
    /// The slot that is audited, if one is.
    audit: Option<(u64, Audit)>,
}

#[derive(Debug)]
struct Place {
    inspection: u32,
    at: u64,
    len: u8,
    state: PlaceState,
}

/// A place that was not compared yet.
#[derive(Debug, PartialEq, Eq)]
enum PlaceState {
    Due,
    /// In the request of this number.
    Asked(u32),
    /// It came over this lane.
    Here(Bytes, usize),
}

impl Place {
    fn slot(&self) -> u64 {
        self.at / SLOT
    }

    /// Whether `theirs` has there what was fetched; `None` as long as nothing was.
    fn compare<S: Slot>(&self, theirs: &S) -> Option<Result<(), Mismatch>> {
        let PlaceState::Here(ours, by) = self.state else { return None };
        let place = (self.at, self.len);
        let theirs = excerpt(theirs, place);
        let len = usize::from(self.len).min(PLACE_BYTES);
        Some(match ours.get(..len) == theirs.get(..len) {
            true => Ok(()),
            false => Err(Mismatch { place, by, ours, theirs }),
        })
    }
}

/// All chunks that are not released yet.
#[derive(Debug)]
pub(crate) struct Inspector {
    dice: Dice,
    open: Vec<Inspection, MAX_INSPECTIONS>,
    places: Vec<Place, MAX_OPEN_PLACES>,
    /// Whether the origin answers several ranges at a time, as far as known.
    pub several: bool,
    /// How many requests for several in a row came to nothing.
    pub failed: u8,
    last: u32,
    last_request: u32,
}

impl Inspector {
    /// `secret` is random and nobody else's.
    pub fn new(secret: [u8; 32]) -> Self {
        let dice = Dice { secret, count: 0, left: Vec::new() };
        Self {
            dice,
            open: Vec::new(),
            places: Vec::new(),
            several: true,
            failed: 0,
            last: 0,
            last_request: 0,
        }
    }

    /// Whether there is room for another chunk.
    pub fn has_room(&self) -> bool {
        // One more for each that has none left and must be looked into besides.
        !self.open.is_full() && self.places.len() + self.open.len() + MAX_PLACES < self.places.capacity()
    }

    /// A chunk of these slots and bytes is asked of `lane` `now`. The number of its inspection; none if there is no room.
    pub fn begin(
        &mut self,
        now: Instant,
        lane: usize,
        slots: Range<u64>,
        bytes: Range<u64>,
        checking: Checking,
    ) -> Option<u32> {
        if !self.has_room() || bytes.is_empty() {
            return None;
        }
        self.last = self.last.wrapping_add(1);
        let id = self.last;
        let length = bytes.end - bytes.start;
        let full = MAX_CHUNK_SLOTS * SLOT;
        let density = (length * u64::from(checking.places)).div_ceil(full).clamp(1, MAX_PLACES as u64);
        let count = if self.several { density.min((length / 64).max(1)) } else { 1 };
        for stratum in 0..count {
            let from = bytes.start + length * stratum / count;
            let to = bytes.start + length * (stratum + 1) / count;
            let place = self.draw(from..to);
            let (at, len) = (place.start, (place.end - place.start) as u8);
            let state = PlaceState::Due;
            let _ = self.places.push(Place { inspection: id, at, len, state }); // see has_room
        }
        // Of each slot the same share, so that each byte is as likely to be fetched.
        let share = (slots.end - slots.start) * u64::from(checking.audit_per_10000);
        let audit = (self.dice.below(10_000) < share).then(|| {
            let slot = slots.start + self.dice.below(slots.end - slots.start);
            (slot, Audit::Due)
        });
        let _ = self.open.push(Inspection { id, lane, slots, began: now, looked_into: false, audit });
        Some(id)
    }

    /// A place within `range` that lies within one slot.
    fn draw(&mut self, range: Range<u64>) -> Range<u64> {
        let len = (range.end - range.start).min(PLACE_BYTES as u64);
        let at = range.start + self.dice.below(range.end - range.start - len + 1);
        let edge = (at / SLOT + 1) * SLOT;
        let at = match edge - at < len {
            false => at,
            true if edge + len <= range.end => edge,
            true => range.start.max(edge.saturating_sub(len)),
        };
        at..(at + len).min((at / SLOT + 1) * SLOT)
    }

    fn find(&self, id: u32) -> Option<&Inspection> {
        self.open.iter().find(|inspection| inspection.id == id)
    }

    fn find_mut(&mut self, id: u32) -> Option<&mut Inspection> {
        self.open.iter_mut().find(|inspection| inspection.id == id)
    }

    /// The inspections, in the order in which they began.
    pub fn iter(&self) -> impl Iterator<Item = &Inspection> + '_ {
        self.open.iter()
    }

    /// The inspection with this number, as long as it goes on.
    pub fn get(&self, id: u32) -> Option<(usize, Range<u64>)> {
        self.find(id).map(|inspection| (inspection.lane, inspection.slots.clone()))
    }

    /// What there is to ask for of chunks whose lane is `of` interest.
    pub fn due(&self, of: impl Fn(usize) -> bool) -> Option<Due> {
        let mut due: Option<Due> = None;
        for place in self.places.iter().filter(|p| p.state == PlaceState::Due) {
            let Some(inspection) = self.find(place.inspection).filter(|i| of(i.lane)) else { continue };
            let all = due.get_or_insert(Due { since: inspection.began, places: 0 });
            all.since = all.since.min(inspection.began);
            all.places += 1;
        }
        due
    }

    /// The first slot that is to be fetched whole.
    pub fn audit_due(&self) -> Option<(u32, u64)> {
        let due = |i: &Inspection| Some((i.id, i.audit.filter(|(_, audit)| *audit == Audit::Due)?.0));
        self.open.iter().filter_map(due).min_by_key(|(_, slot)| *slot)
    }

    /// Places that are due are asked for now in one request: as many as fit, of the oldest chunks first. The request's number.
    pub fn ask_places(&mut self, of: impl Fn(usize) -> bool) -> (u32, Places) {
        self.last_request = self.last_request.wrapping_add(1);
        let request = self.last_request;
        let mut all: Vec<(u64, u8), MAX_PLACES> = Vec::new();
        for inspection in self.open.iter().filter(|i| of(i.lane)) {
            let is_due = |p: &&mut Place| p.inspection == inspection.id && p.state == PlaceState::Due;
            for place in self.places.iter_mut().filter(is_due) {
                // Places of different chunks may be the same, or overlap: then one of them waits for its turn.
                let end = place.at + u64::from(place.len);
                let is_free = all.iter().all(|&(at, len)| end <= at || at + u64::from(len) <= place.at);
                // One that is shorter has a request of its own.
                let fits = usize::from(place.len) == PLACE_BYTES || all.is_empty();
                let whole = all.first().is_none_or(|&(_, len)| usize::from(len) == PLACE_BYTES);
                if is_free && fits && whole && all.push((place.at, place.len)).is_ok() {
                    place.state = PlaceState::Asked(request);
                }
            }
        }
        all.sort_unstable();
        let mut places = Places::default();
        all.iter().for_each(|&(at, len)| places.add(at..at + u64::from(len)));
        (request, places)
    }

    /// The same where only one range can be asked for at a time: a place of the oldest chunk. Its others are let go if this
    /// stays so.
    pub fn ask_place(&mut self, of: impl Fn(usize) -> bool, lets_go: bool) -> Option<(u32, Places)> {
        let is_due =
            |id: u32| move |(_, p): &(usize, &Place)| p.inspection == id && p.state == PlaceState::Due;
        let due = |id: u32| self.places.iter().enumerate().filter(is_due(id));
        let id =
            self.open.iter().filter(|i| of(i.lane)).map(|i| i.id).find(|&id| due(id).next().is_some())?;
        let chosen = self.dice.below(due(id).count() as u64) as usize;
        let at = self.places.iter().enumerate().filter(is_due(id)).nth(chosen)?.1.at;
        if lets_go {
            self.places.retain(|p| p.inspection != id || p.state != PlaceState::Due || p.at == at);
        }
        self.last_request = self.last_request.wrapping_add(1);
        let place = self.places.iter_mut().find(|p| p.inspection == id && p.at == at)?;
        place.state = PlaceState::Asked(self.last_request);
        Some((self.last_request, Places::one(place.at..place.at + u64::from(place.len))))
    }

    /// Whether a place of the chunk is in that request.
    pub fn is_asked_in(&self, id: u32, request: u32) -> bool {
        self.places.iter().any(|p| p.inspection == id && p.state == PlaceState::Asked(request))
    }

    /// The audit of a chunk is asked for now.
    pub fn ask_audit(&mut self, id: u32) {
        self.set_audit(id, |_| Audit::Asked);
    }

    /// The audited slot did not come, or is gone again.
    pub fn unask_audit(&mut self, id: u32) {
        self.set_audit(id, |audit| if audit == Audit::Done { Audit::Done } else { Audit::Due });
    }

    fn set_audit(&mut self, id: u32, to: impl FnOnce(Audit) -> Audit) {
        if let Some((_, audit)) = self.find_mut(id).and_then(|i| i.audit.as_mut()) {
            *audit = to(*audit);
        }
    }

    /// The places of that request did not come.
    pub fn unask_places(&mut self, request: u32) {
        let asked = |p: &&mut Place| p.state == PlaceState::Asked(request);
        self.places.iter_mut().filter(asked).for_each(|p| p.state = PlaceState::Due);
    }

    /// Whether a place of the chunk is to be asked for.
    pub fn is_due(&self, id: u32) -> bool {
        self.places.iter().any(|p| p.inspection == id && p.state == PlaceState::Due)
    }

    /// The answer to a request for places came over lane `by`; `file` tells the offset into the file of a position.
    pub fn places_came(&mut self, by: usize, request: u32, samples: &[Sample], file: impl Fn(u64) -> u64) {
        for place in self.places.iter_mut().filter(|p| p.state == PlaceState::Asked(request)) {
            let at = file(place.at);
            if let Some(sample) = samples.iter().find(|sample| sample.at == at) {
                place.state = PlaceState::Here(sample.bytes, by);
            }
        }
        // An answer without some of the places that were asked for: from now on one at a time.
        self.several &= !self.places.iter().any(|p| p.state == PlaceState::Asked(request));
        self.failed = 0;
        self.unask_places(request);
    }

    /// Compares what came with the slots that `held` shows to be here for an inspection; the first chunk that differs.
    pub fn compare_all<'a, S: Slot + 'a>(
        &mut self,
        held: impl Fn(u32, u64) -> Option<&'a S>,
    ) -> Option<(u32, Mismatch)> {
        let mut number = 0;
        while let Some(place) = self.places.get(number) {
            let (id, index) = (place.inspection, place.slot());
            // With the own link's copy there is nothing to compare yet.
            let theirs = if self.own_copy_of(id) == Some(index) { None } else { held(id, index) };
            match theirs.and_then(|slot| place.compare(slot)) {
                Some(Err(mismatch)) => return Some((id, mismatch)),
                Some(Ok(())) => {
                    self.places.swap_remove(number);
                    self.compared(id);
                }
                None => number += 1,
            }
        }
        None
    }

    fn compared(&mut self, id: u32) {
        if let Some(inspection) = self.find_mut(id) {
            inspection.looked_into = true;
        }
    }

    /// Whether anything of the chunk was compared.
    pub fn is_looked_into(&self, id: u32) -> bool {
        self.find(id).is_none_or(|inspection| inspection.looked_into)
    }

    /// A place of one of the `count` slots that are held for the chunk is looked at besides; `extent` tells the bytes of
    /// each by its number.
    pub fn look_into(&mut self, id: u32, count: u64, extent: impl FnOnce(u64) -> Range<u64>) {
        // What is left of its places is in slots that others brought. So there is room for this one.
        self.places.retain(|place| place.inspection != id);
        let chosen = self.dice.below(count.max(1));
        let place = self.draw(extent(chosen));
        let (at, len) = (place.start, (place.end - place.start) as u8);
        let _ = self.places.push(Place { inspection: id, at, len, state: PlaceState::Due });
    }

    /// The chunk's slot `index` came: compares what was fetched of it.
    ///
    /// # Errors
    /// What differs.
    pub fn came<S: Slot>(&mut self, id: u32, index: u64, slot: &S) -> Result<(), Mismatch> {
        // This is the peer's copy, whatever is held.
        let audit = self.find_mut(id).and_then(|inspection| inspection.audit.take());
        let mismatch = self.compare_all(|i, at| (i == id && at == index).then_some(slot));
        if let Some(inspection) = self.find_mut(id) {
            inspection.audit = audit;
        }
        mismatch.map_or(Ok(()), |(_, mismatch)| Err(mismatch))
    }

    /// The slot of the chunk of which the own link's copy is held until the peer's comes.
    pub fn own_copy_of(&self, id: u32) -> Option<u64> {
        self.audited_slot(id, Audit::OwnCopy)
    }

    /// The slot of the chunk that is being fetched whole.
    pub fn being_audited(&self, id: u32) -> Option<u64> {
        self.audited_slot(id, Audit::Asked)
    }

    fn audited_slot(&self, id: u32, when: Audit) -> Option<u64> {
        self.find(id)?.audit.filter(|(_, audit)| *audit == when).map(|(slot, _)| slot)
    }

    /// The own link's copy of the audited slot is here before the chunk's.
    pub fn own_copy_came(&mut self, id: u32) {
        self.set_audit(id, |_| Audit::OwnCopy);
    }

    /// The audit has come to its end.
    pub fn audited(&mut self, id: u32) {
        self.set_audit(id, |_| Audit::Done);
    }

    /// Audits that are still to be asked for are given up: there is no own link for them.
    pub fn give_up_audits(&mut self) {
        for inspection in &mut self.open {
            inspection.audit = inspection.audit.filter(|(_, audit)| *audit != Audit::Due);
        }
    }

    /// Whether nothing is open of the slots that `is_held` shows to be held for this chunk.
    pub fn is_clean(&self, id: u32, mut is_held: impl FnMut(u64) -> bool) -> bool {
        let audit = self.find(id).and_then(|i| i.audit);
        let audited = audit.is_none_or(|(slot, audit)| audit == Audit::Done || !is_held(slot));
        audited && !self.places.iter().any(|p| p.inspection == id && is_held(p.slot()))
    }

    /// The lane brings no more than what lies before slot `end`.
    pub fn cut_short(&mut self, id: u32, end: u64) {
        let Some(inspection) = self.find_mut(id) else { return };
        inspection.slots.end = inspection.slots.end.min(end).max(inspection.slots.start);
        inspection.audit = inspection.audit.filter(|(slot, _)| *slot < end);
        self.places.retain(|p| p.inspection != id || p.slot() < end);
    }

    /// The inspection is over.
    pub fn end(&mut self, id: u32) {
        self.open.retain(|inspection| inspection.id != id);
        self.places.retain(|place| place.inspection != id);
    }
}

/// Randomness that nobody foresees who does not know the secret: SHA-256 of it and a counter.
struct Dice {
    secret: [u8; 32],
    count: u64,
    left: Vec<u32, 8>,
}

impl fmt::Debug for Dice {
    /// Without the secret: it would tell what will be checked.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dice").field("count", &self.count).finish_non_exhaustive()
    }
}

impl Dice {
    /// A number below `bound`, which is at most 2^32 and at least 1.
    fn below(&mut self, bound: u64) -> u64 {
        if self.left.is_empty() {
            self.count += 1;
            let digest =
                Sha256::new().chain_update(self.secret).chain_update(self.count.to_be_bytes()).finalize();
            for word in digest.chunks_exact(4) {
                let word = word.iter().fold(0, |word, byte| word << 8 | u32::from(*byte));
                let _ = self.left.push(word); // eight words
            }
        }
        // The bias is below 2^-14 for bounds up to a chunk's length.
        (u64::from(self.left.pop().unwrap_or(0)) * bound) >> 32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inspector(number: u64) -> Inspector {
        let mut secret = [7; 32];
        secret[..8].copy_from_slice(&number.to_be_bytes());
        Inspector::new(secret)
    }

    #[test]
    fn places_are_disjoint_ascending_within_slots_and_one_in_each_stratum() {
        for number in 0..300 {
            let mut inspector = inspector(number);
            let first = number * 977 % 5;
            let start = first * SLOT + number * 131 % SLOT;
            let length = 1 + number * 7919 % (MAX_CHUNK_SLOTS * SLOT - SLOT);
            let bytes = start..start + length;
            let slots = first..bytes.end.div_ceil(SLOT);
            inspector.begin(Instant::default(), 2, slots, bytes.clone(), Checking::FULL).unwrap();
            let (_, places) = inspector.ask_places(|_| true);
            let mut end = bytes.start;
            for place in places.iter() {
                assert!(place.start >= end && place.end <= bytes.end && !place.is_empty(), "{places:?}");
                assert_eq!(place.start / SLOT, (place.end - 1) / SLOT);
                end = place.end;
            }
            let due = (length * 24).div_ceil(256 * 1024).min(24).min((length / 64).max(1));
            assert_eq!(places.len() as u64, due, "{length} bytes");
        }
    }

    #[test]
    fn audits_are_as_frequent_as_they_should_be_and_hit_each_slot_alike() {
        let mut inspector = inspector(1);
        let mut hits = [0u32; 16];
        for _ in 0..20_000 {
            let id = inspector.begin(Instant::default(), 2, 0..16, 0..16 * SLOT, Checking::FULL).unwrap();
            if let Some((found, slot)) = inspector.audit_due() {
                assert_eq!(found, id);
                hits[slot as usize] += 1;
            }
            inspector.end(id);
        }
        // 1 % of 20,000 for each slot; five standard deviations.
        assert!(hits.iter().all(|hits| (130..270).contains(hits)), "{hits:?}");
    }
}
