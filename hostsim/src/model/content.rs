//! What a modelled buffer holds: not the bytes, but which of the file they are and what was done to them. Not responsible
//! for who reads what.

use std::ops::Range;

use bamqp_core::limits::SLOT_BYTES;
use bamqp_core::verify::Slot;

use super::random::Random;

/// What somebody makes of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Content {
    /// Which variant the origin serves.
    pub variant: u8,
    /// Bytes that were altered besides.
    pub altered: Range<u64>,
}

impl Content {
    /// The variant as it is.
    pub fn of(variant: u8) -> Content {
        Content { variant, altered: 0..0 }
    }

    /// What a slot holds that holds this and `other`: what is altered in either.
    fn mix(&mut self, other: &Content) {
        let (one, two) = (&self.altered, &other.altered);
        self.altered = match (one.is_empty(), two.is_empty()) {
            (true, _) => two.clone(),
            (_, true) => one.clone(),
            _ => one.start.min(two.start)..one.end.max(two.end),
        };
        self.variant = self.variant.max(other.variant);
    }

    /// The byte at an offset.
    pub fn byte(&self, at: u64) -> u8 {
        let mixed = at.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let variant = self.variant.wrapping_mul(37);
        (mixed >> 56) as u8 ^ variant ^ if self.altered.contains(&at) { 0x80 } else { 0 }
    }
}

/// A buffer that remembers which bytes were read into it.
#[derive(Debug, Default)]
pub struct Buffer {
    /// Positions, as the session counts them.
    pub range: Range<u64>,
    /// Offset into the file of the first of them.
    pub at: u64,
    /// Whose.
    pub content: Content,
}

impl Buffer {
    /// An empty one, for position `start`, which stands for offset `at` of the file.
    pub fn begin(start: u64, at: u64, content: Content) -> Buffer {
        Buffer { range: start..start, at, content }
    }

    /// So many bytes more.
    pub fn extend(&mut self, bytes: u64, content: &Content) {
        self.range.end += bytes;
        if self.content != *content {
            self.content.mix(content);
        }
    }

    /// Which bytes of the file it holds.
    pub fn file(&self) -> Range<u64> {
        self.at..self.at + (self.range.end - self.range.start)
    }

    /// The offset into the file of byte `index` of the slot; of the bytes that it holds.
    fn offset(&self, index: usize) -> u64 {
        (self.at + index as u64).saturating_sub(self.range.start % SLOT_BYTES as u64)
    }
}

impl Slot for Buffer {
    fn copy(&self, at: usize, to: &mut [u8]) {
        to.iter_mut().zip(self.offset(at)..).for_each(|(byte, at)| *byte = self.content.byte(at));
    }

    fn differs(&self, other: &Self, range: Range<usize>) -> Option<usize> {
        if self.content == other.content {
            return None;
        }
        let differs = |&i: &usize| {
            let at = self.offset(i);
            self.content.byte(at) != other.content.byte(at)
        };
        range.into_iter().find(differs)
    }
}

/// How a liar alters what it brings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tamper {
    /// Bytes of the contiguous run that is altered, anywhere in the chunk; chunks that are not longer are altered whole.
    pub run: u64,
    /// Of so many chunks in a thousand.
    pub per_1000: u64,
    /// Only chunks of at least so many bytes.
    pub least: u64,
    /// How many chunks more.
    pub left: u64,
}

impl Tamper {
    /// Alters every chunk from the first byte to the last.
    pub const EVERYTHING: Tamper = Tamper { run: u64::MAX, per_1000: 1_000, least: 0, left: u64::MAX };

    /// Which bytes of the chunk `range` are altered.
    pub fn alter(&mut self, range: &Range<u64>, dice: &mut Random) -> Option<Range<u64>> {
        let length = range.end - range.start;
        if length < self.least || self.left == 0 || dice.between(1, 1_000) > self.per_1000 {
            return None;
        }
        self.left -= 1;
        let run = self.run.min(length);
        let start = range.start + dice.between(0, length - run);
        Some(start..start + run)
    }
}
