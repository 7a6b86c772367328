//! The reassembler against a naive map, with random sequences of everything that can be done to it.

use std::collections::BTreeMap;

use bamqp_core::layout::Layout;
use bamqp_core::limits::SLOT_BYTES;
use bamqp_core::reassemble::{MIN_BUFFERS, Reassembler};
use proptest::prelude::*;

const SLOTS: usize = 16;
const SLOT: u64 = SLOT_BYTES as u64;

/// A buffer that nobody could make up.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Buffer(usize);

#[derive(Clone, Copy, Debug)]
enum Step {
    /// Take a buffer for the slot so far from the head (less 2: slots that are gone are asked for, too).
    Take(u64),
    /// The n-th of the buffers that were taken is full.
    Put(usize),
    /// The n-th of the buffers that were taken is full, and held for the inspection of that number.
    Hold(usize, u32),
    /// What the inspection of that number holds is released, or dropped.
    Settle(u32, bool),
    /// The slot so far from the head is dropped.
    Evict(u64),
    /// The n-th of the buffers that were taken comes back unused.
    GiveBack(usize),
    /// The client takes the next slot, if it is writing none.
    Pop,
    /// The client has written what it took.
    Written,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..SLOTS as u64 + 6).prop_map(Step::Take),
        4 => any::<usize>().prop_map(Step::Put),
        3 => (any::<usize>(), 0..3u32).prop_map(|(n, by)| Step::Hold(n, by)),
        2 => (0..3u32, any::<bool>()).prop_map(|(by, release)| Step::Settle(by, release)),
        1 => (0..SLOTS as u64).prop_map(Step::Evict),
        1 => any::<usize>().prop_map(Step::GiveBack),
        3 => Just(Step::Pop),
        3 => Just(Step::Written),
    ]
}

proptest! {
    #[test]
    fn behaves_like_a_naive_map(
        start in 0..4 * SLOT,
        len in 1..40 * SLOT,
        buffers in MIN_BUFFERS..=SLOTS + 2,
        steps in proptest::collection::vec(step(), 1..400),
    ) {
        let range = start..start + len;
        let mut slots: Reassembler<Buffer, SLOTS> =
            Reassembler::new(Layout::of(range.clone()), (0..buffers).map(Buffer)).expect("enough buffers");
        let lent = buffers.min(SLOTS);
        prop_assert_eq!(slots.window(), lent as u64);
        let (first, end) = (start / SLOT, range.end.div_ceil(SLOT));
        prop_assert_eq!(slots.end(), end);

        // The oracle: which slots are here, in which buffer; who holds which buffer for which slot.
        let mut here: BTreeMap<u64, (Buffer, Option<u32>)> = BTreeMap::new();
        let mut taken: Vec<(u64, Buffer)> = Vec::new();
        let mut writing = None;
        let (mut next, mut free, mut peak) = (first, lent, 0);
        let mut urgent = std::collections::BTreeSet::new();
        let mut delivered = start;

        for step in steps {
            match step {
                Step::Take(ahead) => {
                    let Some(index) = (next + ahead).checked_sub(2) else { continue };
                    let may = slots.may_take(index);
                    let got = slots.take(index);
                    prop_assert_eq!(may, got.is_some());
                    prop_assert!(index < next + lent as u64 || got.is_none(), "beyond the window");
                    if index > next {
                        prop_assert_eq!(may, index < next + lent as u64 && free > MIN_BUFFERS - 2);
                    }
                    if index == next && urgent.is_empty() {
                        prop_assert!(may, "the head can always be taken while the reserve holds");
                    }
                    if let Some(buffer) = got {
                        free -= 1;
                        if index <= next {
                            urgent.insert(buffer.0);
                        }
                        taken.push((index, buffer));
                    }
                }
                Step::Put(_) | Step::Hold(..) | Step::GiveBack(_) if taken.is_empty() => continue,
                Step::Put(n) | Step::Hold(n, _) => {
                    let by = if let Step::Hold(_, by) = step { Some(by) } else { None };
                    let (index, buffer) = taken.swap_remove(n % taken.len());
                    let (number, new) = (buffer.0, index >= next && index < end && !here.contains_key(&index));
                    let kept = match by {
                        None => slots.put(index, buffer, 2),
                        Some(by) => slots.hold(index, buffer, by),
                    };
                    prop_assert_eq!(kept, new, "each slot in once");
                    if new {
                        here.insert(index, (Buffer(number), by));
                    } else {
                        free += 1;
                        urgent.remove(&number);
                    }
                }
                Step::Settle(by, release) => {
                    for index in next..next + SLOTS as u64 {
                        let held = here.get(&index).is_some_and(|(_, holder)| *holder == Some(by));
                        if release {
                            prop_assert_eq!(slots.release(index, by, 1), held);
                            here.entry(index).and_modify(|(_, holder)| if held { *holder = None });
                        } else {
                            prop_assert_eq!(slots.drop_held(index, by), held);
                            if held {
                                let (buffer, _) = here.remove(&index).expect("it is held");
                                urgent.remove(&buffer.0);
                                free += 1;
                            }
                        }
                    }
                }
                Step::Evict(ahead) => {
                    let evicted = here.remove(&(next + ahead));
                    prop_assert_eq!(slots.evict(next + ahead), evicted.is_some());
                    if let Some((buffer, _)) = evicted {
                        urgent.remove(&buffer.0);
                        free += 1;
                    }
                }
                Step::GiveBack(n) => {
                    let (_, buffer) = taken.swap_remove(n % taken.len());
                    urgent.remove(&buffer.0);
                    slots.give_back(buffer);
                    free += 1;
                }
                Step::Pop if writing.is_some() => continue,
                Step::Pop => {
                    let got = slots.pop();
                    let ready = here.get(&next).is_some_and(|(_, holder)| holder.is_none());
                    let expected = ready.then(|| here.remove(&next)).flatten().map(|(buffer, _)| {
                        (buffer, start.max(next * SLOT)..range.end.min((next + 1) * SLOT))
                    });
                    prop_assert_eq!(&got, &expected, "in order, the buffer that was put, its bytes' place");
                    if let Some((buffer, extent)) = got {
                        prop_assert_eq!(extent.start, delivered);
                        (delivered, next) = (extent.end, next + 1);
                        writing = Some(buffer);
                    }
                }
                Step::Written => {
                    if let Some(buffer) = writing.take() {
                        urgent.remove(&buffer.0);
                        slots.give_back(buffer);
                        free += 1;
                    }
                }
            }
            peak = peak.max(lent - free);
            prop_assert_eq!(slots.next(), next);
            prop_assert_eq!(slots.in_use_peak(), peak);
            prop_assert_eq!(lent - free, here.len() + taken.len() + usize::from(writing.is_some()));
            for index in first.saturating_sub(1)..end + 2 {
                prop_assert_eq!(slots.has(index), index < next || here.contains_key(&index));
                let ready = here.get(&index).is_some_and(|(_, holder)| holder.is_none());
                prop_assert_eq!(slots.is_ready(index), index < next || ready);
            }
        }
    }

    #[test]
    fn the_slots_of_a_range_are_its_bytes(start in any::<u64>(), len in 1..20 * SLOT) {
        let range = start..start.saturating_add(len).max(1);
        let range = range.start.min(range.end - 1)..range.end;
        let buffers = (0..MIN_BUFFERS).map(Buffer);
        let slots: Reassembler<Buffer, SLOTS> = Reassembler::new(Layout::of(range.clone()), buffers).expect("enough");
        let mut at = range.start;
        for index in slots.next()..slots.end() {
            let extent = slots.extent(index);
            prop_assert_eq!(extent.start, at);
            prop_assert!(extent.end > at && extent.end - at <= SLOT);
            at = extent.end;
        }
        prop_assert_eq!(at, range.end);
    }
}

#[test]
fn too_few_buffers_are_refused() {
    assert!(Reassembler::<Buffer, SLOTS>::new(Layout::of(0..1), (0..MIN_BUFFERS - 1).map(Buffer)).is_none());
    assert!(Reassembler::<Buffer, SLOTS>::new(Layout::of(0..1), (0..MIN_BUFFERS).map(Buffer)).is_some());
}

#[test]
fn a_slot_that_is_gone_leaves_the_head_a_buffer() {
    // A lane that must read on past bytes that another one brought before: it may, but not with the last buffer.
    let mut slots: Reassembler<Buffer, SLOTS> =
        Reassembler::new(Layout::of(0..100 * SLOT), (0..MIN_BUFFERS).map(Buffer)).expect("enough buffers");
    let head = slots.take(0).expect("the head");
    assert!(slots.put(0, head, 0));
    let (client, _) = slots.pop().expect("the head is there");
    let ahead = slots.take(2).expect("within the window");
    assert!(!slots.may_take(3), "the reserve is left");
    let stale = slots.take(0).expect("a slot that is gone");
    assert!(!slots.may_take(0), "the last one is the head's");
    let head = slots.take(1).expect("the head");
    for buffer in [client, ahead, stale, head] {
        slots.give_back(buffer);
    }
    assert_eq!(slots.in_use_peak(), MIN_BUFFERS);
}
