//! What of a peer's chunks is fetched again to check them, and whether it is the same (DESIGN section 7, "Nothing
//! unverified reaches the client"): which places, how many, what they were, what is still open. Not responsible for
//! fetching them, nor for what follows from a mismatch ([`crate::transfer`]).
//!
//! A chunk is divided into as many strata of equal length as it has places, and one place is drawn from each: so places
//! are disjoint, and a run of altered bytes as long as two strata is found for certain. With u = (L + 15) / s for a run of L
//! altered bytes anywhere in a chunk with strata of s bytes, the samples find it with probability
//!
//! ```text
//! u - u^3/6        for u <= 1
//! 1 - (2 - u)^3/6  for 1 <= u <= 2
//! 1                for u >= 2
//! ```
//!
//! up to the chunk's edges. A newcomer's strata are 256 KiB / 24 = 10.7 KiB long. Besides, of so many slots one is fetched
//! whole ([`crate::trust::Checking::audit_per_10000`]): of an altered byte that is the probability with which the audits find it.

mod inspector;

use core::ops::Range;

use heapless::Vec;

pub(crate) use self::inspector::{Due, Inspector};
use crate::limits::{MAX_PLACES, PLACE_BYTES, SLOT_BYTES};

const SLOT: u64 = SLOT_BYTES as u64;

/// A slot's buffer, as far as it is looked into. Moving one moves a pointer, never the bytes.
pub trait Slot {
    /// Copies the bytes from `at` on to `to`; what lies beyond the slot is left as it is.
    fn copy(&self, at: usize, to: &mut [u8]);

    /// The first place within `range` where the two differ.
    fn differs(&self, other: &Self, range: Range<usize>) -> Option<usize>;
}

impl<T: core::ops::Deref<Target = [u8; SLOT_BYTES]>> Slot for T {
    fn copy(&self, at: usize, to: &mut [u8]) {
        let from = self.get(at..).unwrap_or_default();
        to.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
    }

    fn differs(&self, other: &Self, range: Range<usize>) -> Option<usize> {
        let (one, two) = (self.get(range.clone())?, other.get(range.clone())?);
        if one == two {
            return None;
        }
        one.iter().zip(two).position(|(a, b)| a != b).map(|place| range.start + place)
    }
}

/// What a place is, on one lane.
pub type Bytes = [u8; PLACE_BYTES];

/// A place that was fetched to check it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Offset into the file.
    pub at: u64,
    /// Its bytes; those of a shorter place come first.
    pub bytes: Bytes,
}

/// The places that are asked for in one request: ascending, disjoint, of [`PLACE_BYTES`] each; a single one may be
/// shorter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Places {
    first: u64,
    ahead: Vec<u32, MAX_PLACES>,
    len: u8,
}

impl Places {
    /// Of one place, of at most [`PLACE_BYTES`].
    pub fn one(place: Range<u64>) -> Places {
        let mut places = Places { first: place.start, ahead: Vec::new(), len: 0 };
        places.add(place);
        places
    }

    /// Of these, which are disjoint and of [`PLACE_BYTES`] each; of more than [`MAX_PLACES`], or further apart than 4 GiB,
    /// some are left out.
    pub(crate) fn of(places: impl Iterator<Item = Range<u64>>) -> Places {
        let mut all: Vec<(u64, u64), MAX_PLACES> =
            places.map(|place| (place.start, place.end)).take(MAX_PLACES).collect();
        all.sort_unstable();
        let mut sorted = Places::default();
        all.iter().for_each(|&(start, end)| sorted.add(start..end));
        sorted
    }

    fn add(&mut self, place: Range<u64>) {
        if self.ahead.is_empty() {
            self.first = place.start;
        }
        self.len = (place.end - place.start).min(PLACE_BYTES as u64) as u8;
        if let Ok(ahead) = u32::try_from(place.start - self.first) {
            let _ = self.ahead.push(ahead); // as many as an inspection has
        }
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.ahead.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.ahead.is_empty()
    }

    /// Each one's offsets into the file.
    pub fn iter(&self) -> impl Iterator<Item = Range<u64>> + Clone + '_ {
        self.ahead.iter().map(|ahead| {
            let at = self.first + u64::from(*ahead);
            at..at + u64::from(self.len)
        })
    }
}

/// What a peer brought is not what another lane brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mismatch {
    pub place: (u64, u8),
    /// The lane that brought `ours`.
    pub by: usize,
    pub ours: Bytes,
    pub theirs: Bytes,
}

/// The bytes at a place, which is an offset into the file and a length.
fn excerpt<S: Slot>(slot: &S, (at, len): (u64, u8)) -> Bytes {
    let mut bytes = [0; PLACE_BYTES];
    if let Some(bytes) = bytes.get_mut(..len.into()) {
        slot.copy((at % SLOT) as usize, bytes);
    }
    bytes
}

/// Whether two copies of the same bytes of the file, within one slot, are the same.
/// `by` brought `ours`.
pub(crate) fn same<S: Slot>(by: usize, ours: &S, theirs: &S, extent: Range<u64>) -> Result<(), Mismatch> {
    let start = (extent.start % SLOT) as usize;
    let end = start + (extent.end - extent.start) as usize;
    let Some(differs) = ours.differs(theirs, start..end) else { return Ok(()) };
    let at = extent.start + (differs - start) as u64;
    let len = (extent.end - at).min(PLACE_BYTES as u64) as u8;
    let place = (at, len);
    Err(Mismatch { place, by, ours: excerpt(ours, place), theirs: excerpt(theirs, place) })
}
