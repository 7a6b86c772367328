//! Sessions that once stood still for good although a lane worked, as the random driver found them.

use bamqp_core::transfer::{Fault, LaneState, Outcome};

use crate::rig::{Case, LaneCase, Mode, Report, run};

fn lane(rtt: u64, accepts: u64, hold: u32, claims: u64, modes: &[(u64, Mode)]) -> LaneCase {
    let steady = LaneCase::steady(0, rtt).trusted();
    LaneCase { modes: modes.to_vec(), accepts: Some(accepts), hold, claims, ..steady }
}

/// Its bytes can be checked by somebody else.
fn witness() -> LaneCase {
    LaneCase::steady(20_000, 30_000).trusted()
}

fn complete(case: Case) -> Report {
    let report = run(&case);
    assert_eq!(report.outcome, Outcome::Complete, "{report:?}");
    report
}

#[test]
fn a_lost_head_when_every_connection_stands_behind_later_slots() {
    let case = |seed| Case {
        range: 8_188..2_588_673,
        buffers: 12,
        lanes: vec![
            lane(
                0,
                0,
                196_608,
                3_335_567,
                &[(0, Mode::Flow(8_000)), (92_473, Mode::Fails(Fault::Unreachable))],
            ),
            lane(7_017, 0, 0, 0, &[(0, Mode::Flow(2_240_088)), (1_624_060, Mode::Silent)]),
            lane(
                60_693,
                233_583,
                196_608,
                6_225_920,
                &[(0, Mode::Flow(1_732_657)), (900_814, Mode::Silent), (2_132_572, Mode::Flow(50_000))],
            ),
            lane(
                84_705,
                134_252,
                147_456,
                1_455_063,
                &[
                    (0, Mode::Flow(864_774)),
                    (804_812, Mode::Flow(2_153_806)),
                    (1_523_309, Mode::Flow(1_436_730)),
                ],
            ),
        ],
        client_rate: 0,
        hangs_up: None,
        late: 30_000,
        spurious: 36,
        several: true,
        pieces: 0,
        seed,
    };
    (1..200).for_each(|seed| drop(complete(case(seed))));
}

#[test]
fn a_lane_let_go_for_the_sake_of_dead_ones() {
    let silent = lane(0, 0, 0, 0, &[(0, Mode::Silent)]);
    let report = complete(Case {
        range: 1_275..1_376_257,
        buffers: 14,
        lanes: vec![
            lane(
                0,
                0,
                98_304,
                6_225_920,
                &[(0, Mode::Flow(468_468)), (117_226, Mode::Fails(Fault::Unreachable))],
            ),
            silent.clone(),
            lane(93_384, 67_228, 0, 0, &[(0, Mode::Flow(66_392))]),
            LaneCase { accepts: None, ..silent },
            lane(16_763, 152_201, 81_920, 1_966_080, &[(0, Mode::Silent)]),
            witness(),
        ],
        client_rate: 0,
        hangs_up: None,
        late: 0,
        spurious: 0,
        several: true,
        pieces: 0,
        seed: 11_882_734_530_990_712_572,
    });
    assert!(report.ended < 40_000_000, "the one lane that works was used: {} us", report.ended);
}

#[test]
fn a_last_slot_left_to_an_original_response_that_is_silent() {
    complete(Case {
        range: 0..65_537,
        buffers: 10,
        lanes: vec![
            lane(38_024, 0, 0, 641_994, &[(0, Mode::Silent)]),
            lane(0, 0, 0, 0, &[(0, Mode::Silent)]),
            lane(122_627, 0, 0, 0, &[(0, Mode::Flow(196_147))]),
            witness(),
        ],
        client_rate: 0,
        hangs_up: None,
        late: 0,
        spurious: 0,
        several: true,
        pieces: 0,
        seed: 0,
    });
}

#[test]
fn peers_that_wait_for_an_original_response_that_crawls_behind_the_client() {
    let report = complete(Case {
        range: 0..1_867_777,
        buffers: 12,
        lanes: vec![
            lane(74_854, 0, 0, 8_529_786, &[(0, Mode::Flow(125_724)), (1_180_320, Mode::Flow(8_000))]),
            lane(0, 0, 0, 0, &[(0, Mode::Silent), (234_900, Mode::Fails(Fault::Timeout))]),
            lane(16_093, 16_545, 196_608, 7_974_344, &[(0, Mode::Flow(1_098_418))]),
            witness(),
        ],
        client_rate: 0,
        hangs_up: None,
        late: 0,
        spurious: 34,
        several: true,
        pieces: 0,
        seed: 3_600_665_171_395_989_708,
    });
    assert!(report.ended < 30_000_000, "{} us", report.ended);
}

#[test]
fn a_lane_that_is_dismissed_and_fails_before_it_hears_of_it_stays_out() {
    let case = |seed| Case {
        range: 0..400_000,
        buffers: 8,
        lanes: vec![
            lane(0, 0, 0, 50_000, &[(0, Mode::Flow(50_000))]),
            lane(100_000, 0, 0, 50_000, &[(0, Mode::Silent), (20_000, Mode::Fails(Fault::Status(403)))]),
            lane(50_000, 0, 0, 50_000, &[(0, Mode::Silent), (20_500, Mode::Fails(Fault::Unreachable))]),
        ],
        client_rate: 0,
        hangs_up: None,
        late: 30_000,
        spurious: 0,
        several: true,
        pieces: 0,
        seed,
    };
    for seed in 1..50 {
        let report = complete(case(seed));
        assert_eq!(report.lanes[2].state, LaneState::Dismissed, "seed {seed}: {:?}", report.lanes);
    }
}
