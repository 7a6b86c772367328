//! Which bytes of the file the slots stand for. Not responsible for what is in the slots ([`crate::reassemble`]).
//!
//! A **position** is a slot's index times [`SLOT_BYTES`], and the bytes within it. A coordinator wants one range of the
//! file: there a position is an offset into the file. A router that passes a part of its work on to its own peers is asked
//! for one piece after the other, in whatever order; each begins with a slot of its own, and a slot at the end of a piece is
//! short. So slots are in the order in which they are due, wherever in the file they lie.

use core::ops::Range;

use heapless::Deque;

use crate::limits::{MAX_FILE_BYTES, MAX_PIECES, SLOT_BYTES};

const SLOT: u64 = SLOT_BYTES as u64;

/// A run of bytes that was asked for as one.
#[derive(Clone, Debug)]
struct Piece {
    positions: Range<u64>,
    /// Where its first byte lies in the file.
    at: u64,
}

impl Piece {
    fn slots(&self) -> Range<u64> {
        self.positions.start / SLOT..self.positions.end.div_ceil(SLOT)
    }
}

/// What the slots stand for.
#[derive(Debug)]
pub struct Layout {
    pieces: Deque<Piece, MAX_PIECES>,
    /// One past the last slot.
    end: u64,
    /// More may be asked for.
    grows: bool,
}

impl Layout {
    /// One range of the file, and nothing more.
    pub fn of(range: Range<u64>) -> Layout {
        let end = range.end.div_ceil(SLOT);
        let mut pieces = Deque::new();
        let _ = pieces.push_back(Piece { at: range.start, positions: range }); // the first of several fits
        Layout { pieces, end, grows: false }
    }

    /// Nothing yet.
    pub fn growing() -> Layout {
        Layout { pieces: Deque::new(), end: 0, grows: true }
    }

    /// Whether more may be asked for.
    pub fn grows(&self) -> bool {
        self.grows
    }

    /// The first slot.
    pub fn first(&self) -> u64 {
        self.pieces.front().map_or(0, |piece| piece.slots().start)
    }

    /// One past the last slot.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// These bytes of the file come next; slots before `next` are not needed any more. False if there are too many pieces
    /// already, or none may be added, or there are no bytes, or more than [`MAX_FILE_BYTES`] with all before.
    pub fn add(&mut self, file: Range<u64>, next: u64) -> bool {
        if !self.grows || file.is_empty() {
            return false;
        }
        // What was delivered is remembered as long as there is room: late duplicates of it are on their way.
        if self.pieces.is_full() && self.pieces.front().is_some_and(|piece| piece.slots().end <= next) {
            self.pieces.pop_front();
        }
        let start = self.end.saturating_mul(SLOT);
        let last = start.saturating_add(file.end - file.start);
        if last > MAX_FILE_BYTES {
            return false;
        }
        let piece = Piece { positions: start..last, at: file.start };
        let end = piece.slots().end;
        let added = self.pieces.push_back(piece).is_ok();
        if added {
            self.end = end;
        }
        added
    }

    fn piece(&self, slot: u64) -> Option<&Piece> {
        self.pieces.iter().find(|piece| piece.slots().contains(&slot))
    }

    /// The positions that slot `index` carries. All of the slot's where nothing was asked for.
    pub fn extent(&self, index: u64) -> Range<u64> {
        let all = index.saturating_mul(SLOT)..index.saturating_add(1).saturating_mul(SLOT);
        match self.piece(index) {
            Some(Piece { positions, .. }) => all.start.max(positions.start)..all.end.min(positions.end),
            None => all,
        }
    }

    /// One past the last slot of the piece that slot `index` is of: what is asked for as one goes no further.
    pub fn seam(&self, index: u64) -> u64 {
        self.piece(index).map_or(index.saturating_add(1), |piece| piece.slots().end)
    }

    /// The bytes of the file at these positions, which are of one piece.
    pub fn file(&self, positions: Range<u64>) -> Range<u64> {
        let Some(piece) = self.piece(positions.start / SLOT) else { return positions };
        let start = piece.at.saturating_add(positions.start.saturating_sub(piece.positions.start));
        start..start.saturating_add(positions.end.saturating_sub(positions.start))
    }
}
