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
    /// Offsets into the file.
    pub range: Range<u64>,
    /// Whose.
    pub content: Content,
}

impl Slot for Buffer {
    fn copy(&self, at: usize, to: &mut [u8]) {
        let first = self.range.start / SLOT_BYTES as u64 * SLOT_BYTES as u64 + at as u64;
        to.iter_mut().zip(first..).for_each(|(byte, at)| *byte = self.content.byte(at));
    }

    fn differs(&self, other: &Self, range: Range<usize>) -> Option<usize> {
        if self.content == other.content {
            return None;
        }
        let base = self.range.start / SLOT_BYTES as u64 * SLOT_BYTES as u64;
        let differs = |&i: &usize| {
            let at = base + i as u64;
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
