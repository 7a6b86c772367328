//! Any session that the contract allows: it ends, with each byte once and in order, or because no lane is left.

use bamqp_core::limits::MAX_LANES;
use bamqp_core::reassemble::MIN_BUFFERS;
use bamqp_core::transfer::{Fault, Outcome};
use proptest::prelude::*;

use crate::rig::{Case, LaneCase, Mode, SLOT, SLOTS, run};

fn fault() -> impl Strategy<Value = Fault> {
    prop_oneof![
        3 => prop_oneof![Just(Fault::Unreachable), Just(Fault::Closed), Just(Fault::Timeout)],
        1 => prop_oneof![Just(Fault::Status(503)), Just(Fault::Status(403)), Just(Fault::Status(200))],
        1 => prop_oneof![
            Just(Fault::Malformed),
            Just(Fault::Changed),
            Just(Fault::Unproven),
            Just(Fault::WrongRange),
            Just(Fault::WrongLength),
            Just(Fault::Encoded),
            Just(Fault::Declined),
        ],
    ]
}

fn mode() -> impl Strategy<Value = Mode> {
    prop_oneof![
        4 => (50_000..3_000_000u64).prop_map(Mode::Flow),
        1 => (8_000..50_000u64).prop_map(Mode::Flow),
        2 => Just(Mode::Silent),
        2 => fault().prop_map(Mode::Fails),
    ]
}

fn lane() -> impl Strategy<Value = LaneCase> {
    let changes = proptest::collection::vec((0..4_000_000u64, mode()), 0..4);
    let first = prop_oneof![6 => (50_000..3_000_000u64).prop_map(Mode::Flow), 2 => mode()];
    (
        0..200_000u64,
        first,
        changes,
        proptest::option::weighted(0.9, 0..300_000u64),
        0..256u32 << 10,
        0..10_000_000u64,
        any::<bool>(),
        prop_oneof![6 => Just(0u64), 1 => 1..5u64],
        prop_oneof![8 => Just(0u8), 1 => 0..3u8],
    )
        .prop_map(|(rtt, first, mut changes, accepts, hold, claims, trusted, lies, variant)| {
            changes.sort_by_key(|(at, _)| *at);
            changes.insert(0, (0, first));
            // Who is trusted stands in for the own link: nobody could tell that it lies.
            let (lies, variant) = if trusted { (0, 0) } else { (lies, variant) };
            LaneCase { rtt, modes: changes, accepts, hold, claims, trusted, lies, variant }
        })
}

pub fn case() -> impl Strategy<Value = Case> {
    let lanes = prop_oneof![
        6 => proptest::collection::vec(lane(), 2..8),
        1 => proptest::collection::vec(lane(), 2..MAX_LANES + 2),
    ];
    let sizes = prop_oneof![1..4 * SLOT, 1..60 * SLOT, 1..200 * SLOT];
    let client = prop_oneof![4 => Just(0u64), 1 => 100_000..2_000_000u64];
    (
        0..3 * SLOT,
        sizes,
        MIN_BUFFERS..=SLOTS,
        lanes,
        client,
        proptest::option::weighted(0.1, 0..5_000_000u64),
        prop_oneof![Just(0u64), Just(1_000), Just(30_000)],
        prop_oneof![Just(0u64), 2..40u64],
        (any::<bool>(), any::<u64>()),
    )
        .prop_map(
            |(start, len, buffers, mut lanes, client_rate, hangs_up, late, spurious, (several, seed))| {
                for own in lanes.iter_mut().take(2) {
                    (own.lies, own.variant) = (0, 0);
                }
                let range = start..start + len;
                let pieces = 0;
                Case { range, buffers, lanes, client_rate, hangs_up, late, spurious, several, pieces, seed }
            },
        )
}

proptest! {
    #[test]
    fn any_session_ends_with_each_byte_once_and_in_order(case in case()) {
        let report = run(&case);
        for lane in &report.lanes {
            prop_assert_eq!(lane.stats.mismatches > 0, lane.stats.verdict.is_some(), "every mismatch has a verdict");
        }
        if report.outcome == Outcome::Complete {
            let bytes: u64 = report.lanes.iter().map(|l| l.stats.bytes).sum();
            prop_assert_eq!(bytes, report.delivered, "each byte counted once");
        }
    }
}
