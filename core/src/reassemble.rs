//! Slots in any order in, in order out, within a fixed set of buffers; what a peer brought is held until somebody says
//! that it was verified. Not responsible for who fetches what (that is [`crate::plan`]), nor for verifying
//! ([`crate::verify`]): a buffer is moved and lent, never looked into.

use core::cmp::Ordering;
use core::ops::Range;

use heapless::Vec;

use crate::layout::Layout;
#[cfg(doc)]
use crate::limits::SLOT_BYTES;

/// Buffers that only the head may take: one for the lane that owes it and one for a lane that rescues it
/// (DESIGN section 4: without a reserve the last buffers can all sit in lanes that wait for each other).
const RESERVED: usize = 2;

/// The fewest buffers that a reassembler works with: the reserve, the client's and one to read ahead into.
pub const MIN_BUFFERS: usize = RESERVED + 2;

/// What is known of one position ahead of the client.
#[derive(Debug)]
enum Place<S> {
    Empty,
    /// Not for the client before its inspection, of this number, is over.
    Held(S, u32),
    /// For the client; the lane that brought it.
    Ready(S, usize),
}

/// A slot that is here, as [`Reassembler::look`] shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look<'a, S> {
    /// It is held for the inspection of this number.
    Held(&'a S, u32),
    /// It is for the client; the lane that brought it.
    Ready(&'a S, usize),
}

/// Puts the slots of a [`Layout`] back in order.
///
/// A slot's index is its position divided by [`SLOT_BYTES`]. `SLOTS` is the furthest that positions are remembered ahead of the client; the window itself is the
/// number of buffers that were lent, at most `SLOTS`.
#[derive(Debug)]
pub struct Reassembler<S, const SLOTS: usize> {
    ring: [Place<S>; SLOTS],
    free: Vec<S, SLOTS>,
    buffers: usize,
    in_use_peak: usize,
    next: u64,
    urgent: Option<u64>,
    layout: Layout,
}

impl<S, const SLOTS: usize> Reassembler<S, SLOTS> {
    /// For what `layout` tells, with the lent `buffers` of [`SLOT_BYTES`] each; what exceeds `SLOTS` is
    /// left in the iterator. Fewer than [`MIN_BUFFERS`] would stand still: `None`.
    pub fn new(layout: Layout, buffers: impl IntoIterator<Item = S>) -> Option<Self> {
        let free: Vec<S, SLOTS> = buffers.into_iter().take(SLOTS).collect();
        if free.len() < MIN_BUFFERS {
            return None;
        }
        Some(Self {
            ring: [const { Place::Empty }; SLOTS],
            buffers: free.len(),
            free,
            in_use_peak: 0,
            urgent: None,
            next: layout.first(),
            layout,
        })
    }

    /// The slot that the client gets next.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// One past the last slot.
    pub fn end(&self) -> u64 {
        self.layout.end()
    }

    /// Which bytes of the file the slots stand for.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// These bytes of the file come next. False if there is no room for them; see [`Layout::add`].
    pub fn add(&mut self, file: Range<u64>) -> bool {
        self.layout.add(file, self.next)
    }

    /// The window in slots: how far ahead of the client may be read.
    pub fn window(&self) -> u64 {
        self.buffers as u64
    }

    /// The most buffers that were in use at a time.
    pub fn in_use_peak(&self) -> usize {
        self.in_use_peak
    }

    /// The positions that slot `index` carries.
    pub fn extent(&self, index: u64) -> Range<u64> {
        self.layout.extent(index)
    }

    /// Whether slot `index` is here, held or not, or was given out already.
    pub fn has(&self, index: u64) -> bool {
        index < self.next || self.look(index).is_some()
    }

    /// Whether slot `index` is here for the client, or was given out already.
    pub fn is_ready(&self, index: u64) -> bool {
        index < self.next || matches!(self.look(index), Some(Look::Ready(..)))
    }

    /// Slot `index`, if it is here.
    pub fn look(&self, index: u64) -> Option<Look<'_, S>> {
        if !self.remembers(index) {
            return None;
        }
        match &self.ring[Self::place(index)] {
            Place::Empty => None,
            Place::Held(slot, by) => Some(Look::Held(slot, *by)),
            Place::Ready(slot, lane) => Some(Look::Ready(slot, *lane)),
        }
    }

    /// The head is held until slot `index` is here, too: that may have the reserve.
    pub fn set_urgent(&mut self, index: Option<u64>) {
        self.urgent = index;
    }

    fn remembers(&self, index: u64) -> bool {
        index >= self.next && index - self.next < SLOTS as u64
    }

    /// Whether a buffer for slot `index` could be had now: the index lies within the window and, unless it is the
    /// head, more than the reserve is free. A slot that is gone stands in the way of later ones on its connection,
    /// perhaps of the head, so it may have of the reserve what the head does not need.
    pub fn may_take(&self, index: u64) -> bool {
        let kept = match index.cmp(&self.next) {
            Ordering::Less => 1,
            Ordering::Equal => 0,
            // The head is here, but held until this one is, too.
            Ordering::Greater if self.urgent == Some(index) => 0,
            Ordering::Greater => RESERVED,
        };
        index < self.next + self.window() && self.free.len() > kept
    }

    /// A buffer to read slot `index` into, if [`Self::may_take`].
    pub fn take(&mut self, index: u64) -> Option<S> {
        if !self.may_take(index) {
            return None;
        }
        let buffer = self.free.pop();
        self.in_use_peak = self.in_use_peak.max(self.buffers - self.free.len());
        buffer
    }

    /// Slot `index` is complete in `buffer`, for the client; `lane` brought it. False if it was here already or lies outside
    /// what is remembered: the bytes are dropped and the buffer is free again.
    pub fn put(&mut self, index: u64, buffer: S, lane: usize) -> bool {
        self.keep(index, |buffer| Place::Ready(buffer, lane), buffer)
    }

    /// The same, but it is held for the inspection of number `by`.
    pub fn hold(&mut self, index: u64, buffer: S, by: u32) -> bool {
        self.keep(index, |buffer| Place::Held(buffer, by), buffer)
    }

    /// Slot `index`, if the inspection of number `by` holds it, is for the client from now on, as `lane` has it. Whether it
    /// was held.
    pub fn release(&mut self, index: u64, by: u32, lane: usize) -> bool {
        let Some(buffer) = self.take_held(index, by) else { return false };
        self.ring[Self::place(index)] = Place::Ready(buffer, lane);
        true
    }

    /// Slot `index`, if the inspection of number `by` holds it, is dropped. Whether it was held.
    pub fn drop_held(&mut self, index: u64, by: u32) -> bool {
        let Some(buffer) = self.take_held(index, by) else { return false };
        self.give_back(buffer);
        true
    }

    /// Drops slot `index`, held or not, so that its buffer is free. Whether it was here.
    pub fn evict(&mut self, index: u64) -> bool {
        if self.look(index).is_none() {
            return false;
        }
        match core::mem::replace(&mut self.ring[Self::place(index)], Place::Empty) {
            Place::Held(buffer, _) | Place::Ready(buffer, _) => self.give_back(buffer),
            Place::Empty => {}
        }
        true
    }

    fn take_held(&mut self, index: u64, by: u32) -> Option<S> {
        if !matches!(self.look(index), Some(Look::Held(_, holder)) if holder == by) {
            return None;
        }
        match core::mem::replace(&mut self.ring[Self::place(index)], Place::Empty) {
            Place::Held(buffer, _) => Some(buffer),
            Place::Empty | Place::Ready(..) => None,
        }
    }

    fn keep(&mut self, index: u64, entry: impl FnOnce(S) -> Place<S>, buffer: S) -> bool {
        if self.has(index) || !self.remembers(index) || index >= self.end() {
            self.give_back(buffer);
            return false;
        }
        self.ring[Self::place(index)] = entry(buffer);
        true
    }

    /// A buffer comes back unused, or written out.
    pub fn give_back(&mut self, buffer: S) {
        // A caller that hands in more buffers than it lent only loses them.
        let _ = self.free.push(buffer);
    }

    /// The next slot in order with its bytes' positions, if it is here and not held.
    pub fn pop(&mut self) -> Option<(S, Range<u64>)> {
        let place = &mut self.ring[Self::place(self.next)];
        let buffer = match core::mem::replace(place, Place::Empty) {
            Place::Ready(buffer, _) => buffer,
            other => {
                *place = other;
                return None;
            }
        };
        let extent = self.extent(self.next);
        self.next += 1;
        Some((buffer, extent))
    }

    fn place(index: u64) -> usize {
        (index % SLOTS as u64) as usize
    }
}
