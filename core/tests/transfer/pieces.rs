//! Work for another router, piece by piece.

use bamqp_core::limits::MAX_PIPELINE;
use bamqp_core::transfer::{Outcome, Transfer};
use proptest::prelude::*;

use crate::any;
use crate::rig::{Case, LaneCase, RATE, RTT, SLOT, case, run};

fn in_pieces(pieces: usize, case: Case) -> Case {
    Case { pieces, ..case }
}

#[test]
fn every_lane_works_and_each_byte_is_given_out_once_and_in_the_order_asked_for() {
    let report = run(&in_pieces(6, case(2)));
    assert_eq!((report.outcome, report.delivered), (Outcome::ClientGone, 300 * SLOT));
    for lane in 1..4 {
        assert!(report.bytes(lane) > 50 * SLOT, "lane {lane}: {} bytes", report.bytes(lane));
    }
    assert_eq!(report.bytes(0), 0, "there is no original response");
    // Three lanes of 1 MB/s, and their start.
    assert!(report.ended < 300 * SLOT / 3 * 12 / 10, "{} us", report.ended);
}

#[test]
fn a_place_is_what_our_own_link_has() {
    // A piece of 16 bytes at a time.
    let lanes =
        vec![LaneCase::steady(RATE, RTT), LaneCase::steady(RATE / 4, RTT), LaneCase::steady(4 * RATE, RTT)];
    let report = run(&in_pieces(1, Case { range: 0..16, lanes, ..case(1) }));
    assert_eq!((report.bytes(1), report.bytes(2)), (16, 0));
}

#[test]
fn the_peers_go_on_where_the_own_link_is_dead() {
    use crate::rig::Mode;
    let mut lanes = vec![LaneCase::steady(RATE, RTT).trusted(); 4];
    lanes[1] = LaneCase::steady(RATE, RTT).then(500_000, Mode::Silent);
    let report = run(&in_pieces(6, Case { lanes, ..case(2) }));
    assert_eq!((report.outcome, report.delivered), (Outcome::ClientGone, 300 * SLOT));
}

#[test]
fn a_session_for_one_range_takes_no_pieces() {
    use bamqp_core::time::Instant;
    type Buffer = Box<[u8; SLOT as usize]>;
    let own = bamqp_core::transfer::OwnLink { rate: 1, rtt: Default::default(), hold: 0 };
    let buffers = || (0..8).map(|_| Box::new([0; SLOT as usize]));
    let now = Instant::default();
    let mut range = Transfer::<Buffer, 8>::new(now, 0..SLOT, buffers(), own, [0; 32]).unwrap();
    assert!(range.add_piece(now, SLOT..2 * SLOT).is_none());
    let mut pieces = Transfer::<Buffer, 8>::in_pieces(now, buffers(), own, [0; 32]).unwrap();
    assert_eq!(pieces.delivered(), 0);
    assert!(pieces.add_piece(now, 7..7).is_none(), "no bytes");
    let asked =
        (0..).take_while(|piece| pieces.add_piece(now, piece * SLOT..(piece + 1) * SLOT).is_some()).count();
    assert!(asked >= MAX_PIPELINE, "as many as a connection may have outstanding: {asked}");
}

proptest! {
    #[test]
    fn any_work_is_done_in_order_or_there_is_no_lane_for_it(case in any::case(), pieces in 1..MAX_PIPELINE) {
        let case = in_pieces(pieces, case);
        let report = run(&case);
        let bytes: u64 = report.lanes.iter().map(|l| l.stats.bytes).sum();
        if report.delivered == case.range.end - case.range.start {
            prop_assert_eq!(bytes, report.delivered, "each byte counted once");
        } else {
            prop_assert!(report.outcome != Outcome::ClientGone || case.hangs_up.is_some());
        }
    }
}
