//! The buffers of one download, which are one block of memory: blocks of 16 KiB each would take 18.3 KiB of musl's
//! allocator, and what no slot was read into yet takes none at all this way. Not responsible for who has which buffer
//! ([`bamqp_core::reassemble`]).

use core::fmt;
use core::ops::{Deref, DerefMut};
use core::ptr::{self, NonNull};
use std::sync::Arc;

use bamqp_core::limits::SLOT_BYTES;

/// The block, for as long as one of its slots is somewhere.
struct Block {
    first: NonNull<u8>,
    len: usize,
}

// SAFETY: the block itself touches its bytes only when it goes, and then there is no slot any more; slots have disjoint ones.
unsafe impl Send for Block {}
// SAFETY: as above.
unsafe impl Sync for Block {}

impl Drop for Block {
    fn drop(&mut self) {
        let bytes = ptr::slice_from_raw_parts_mut(self.first.as_ptr(), self.len);
        // SAFETY: these are the address and length of the boxed slice that `slots` took apart, and nobody has them any more.
        drop(unsafe { Box::from_raw(bytes) });
    }
}

/// A buffer of [`SLOT_BYTES`]; moving it moves a pointer, never the bytes.
pub struct Slot {
    bytes: NonNull<[u8; SLOT_BYTES]>,
    _block: Arc<Block>,
}

// SAFETY: it has its bytes alone, like a box.
unsafe impl Send for Slot {}
// SAFETY: as above; shared, it is only read.
unsafe impl Sync for Slot {}

/// The buffers of a window of `bytes` bytes, as many whole ones as fit, filled with zeros.
pub fn slots(bytes: usize) -> impl Iterator<Item = Slot> {
    let count = bytes / SLOT_BYTES;
    let bytes: &'static mut [u8] = Box::leak(vec![0; count * SLOT_BYTES].into_boxed_slice());
    let block = Arc::new(Block { len: bytes.len(), first: NonNull::from(bytes).cast() });
    (0..count).map(move |place| {
        // SAFETY: `place` is below the number of slots that the block has room for, so the address lies in the block.
        let bytes = unsafe { block.first.add(place * SLOT_BYTES) };
        Slot { bytes: bytes.cast(), _block: block.clone() }
    })
}

impl Deref for Slot {
    type Target = [u8; SLOT_BYTES];

    fn deref(&self) -> &[u8; SLOT_BYTES] {
        // SAFETY: the bytes are in the block, which is there as long as the slot, are initialised, and no other slot has them.
        unsafe { self.bytes.as_ref() }
    }
}

impl DerefMut for Slot {
    fn deref_mut(&mut self) -> &mut [u8; SLOT_BYTES] {
        // SAFETY: as above, and the slot is borrowed alone.
        unsafe { self.bytes.as_mut() }
    }
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slot").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_disjoint_full_of_zeros_and_outlive_each_other() {
        let mut slots: Vec<_> = slots(5 * SLOT_BYTES + 1).collect();
        assert_eq!(slots.len(), 5);
        for (number, slot) in slots.iter_mut().enumerate() {
            assert!(slot.iter().all(|byte| *byte == 0));
            slot.fill(number as u8 + 1);
        }
        let kept = slots.swap_remove(3);
        for (number, slot) in [(0, &slots[0]), (1, &slots[1]), (2, &slots[2]), (4, &slots[3])] {
            assert!(slot.iter().all(|byte| *byte == number + 1), "slot {number}");
        }
        drop(slots);
        let elsewhere = std::thread::spawn(move || kept.iter().all(|byte| *byte == 4));
        assert!(elsewhere.join().unwrap());
        assert_eq!(super::slots(SLOT_BYTES - 1).count(), 0);
    }
}
