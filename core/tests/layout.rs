//! Slots, positions and bytes of the file, against a list of every byte.

use bamqp_core::layout::Layout;
use bamqp_core::limits::{MAX_FILE_BYTES, MAX_PIECES, SLOT_BYTES};
use proptest::prelude::*;

const SLOT: u64 = SLOT_BYTES as u64;

#[test]
fn one_range_has_offsets_as_positions() {
    let layout = Layout::of(1_000..3 * SLOT + 5);
    assert_eq!((layout.end(), layout.grows()), (4, false));
    assert_eq!(layout.extent(0), 1_000..SLOT);
    assert_eq!(layout.extent(1), SLOT..2 * SLOT);
    assert_eq!(layout.extent(3), 3 * SLOT..3 * SLOT + 5);
    assert_eq!(layout.seam(0), 4);
    assert_eq!(layout.file(2_000..2_016), 2_000..2_016);
}

#[test]
fn what_is_delivered_makes_room_for_more() {
    let mut layout = Layout::growing();
    for piece in 0..MAX_PIECES as u64 {
        assert!(layout.add(piece * SLOT..(piece + 1) * SLOT, 0));
    }
    assert!(!layout.add(0..SLOT, 0), "nothing was delivered yet");
    assert_eq!(layout.end(), MAX_PIECES as u64);
    assert!(layout.add(7..8, 1));
    let last = layout.end() - 1;
    assert_eq!(layout.file(layout.extent(last)), 7..8);
    assert!(!layout.add(3..3, last), "there are no bytes");
    assert!(!Layout::of(0..SLOT).add(0..SLOT, 1), "a range does not grow");
}

#[test]
fn positions_do_not_run_out_of_their_numbers() {
    let mut layout = Layout::growing();
    assert!(!layout.add(0..u64::MAX, 0));
    assert!(layout.add(0..MAX_FILE_BYTES, 0));
    let end = layout.end();
    assert!(!layout.add(5..6, 0));
    assert_eq!(layout.end(), end);
}

proptest! {
    /// Every byte of every piece has one position, pieces follow each other, and seams lie between them.
    #[test]
    fn pieces_are_as_they_were_asked_for(
        pieces in prop::collection::vec((0u64..1 << 40, 1u64..5 * SLOT), 1..MAX_PIECES),
    ) {
        let mut layout = Layout::growing();
        let mut first = 0;
        for &(at, len) in &pieces {
            prop_assert!(layout.add(at..at + len, 0));
            let mut file = at;
            let end = first + len.div_ceil(SLOT);
            for index in first..end {
                let extent = layout.extent(index);
                prop_assert_eq!(extent.start, index * SLOT);
                prop_assert_eq!(layout.file(extent.clone()), file..file + (extent.end - extent.start));
                prop_assert_eq!(layout.seam(index), end);
                file += extent.end - extent.start;
            }
            prop_assert_eq!(file, at + len);
            first = end;
        }
        prop_assert_eq!(layout.end(), first);
    }
}
