//! Each rule by itself: the earned cut (DESIGN section 3) and the scheduling rules (section 5), with links that do just
//! what the rule is for.

use bamqp_core::transfer::{Conn, Cut, Fault, LaneId, LaneState, Outcome};

use crate::rig::{Case, LaneCase, Mode, RATE, RTT, Report, SECOND, SLOT, SLOTS, case, run};

fn complete(report: &Report, case: &Case) {
    assert_eq!(report.outcome, Outcome::Complete);
    assert_eq!(report.delivered, case.range.end - case.range.start);
    assert!(report.window_used <= case.buffers * SLOT as usize);
}

fn fails(lane: &LaneCase, at: u64, why: Fault) -> LaneCase {
    LaneCase { modes: vec![(at, Mode::Fails(why))], ..lane.clone() }
}

#[test]
fn the_original_response_is_cut_once_that_is_earned() {
    let case = case(2);
    let report = run(&case);
    complete(&report, &case);
    assert_eq!(report.cut, Cut::Done);
    let (_, offset) = report.cut_at.expect("a cut");
    assert!(offset < 100 * SLOT, "cut at {offset}");
    assert!((0..4).all(|lane| report.bytes(lane) > 0), "{:?}", report.lanes);
    assert_eq!(report.duplicates(), 0);
}

#[test]
fn a_url_good_for_one_request_is_left_to_the_original_response() {
    let mut case = case(2);
    for lane in &mut case.lanes[1..] {
        *lane = fails(lane, 0, Fault::Status(403));
    }
    let report = run(&case);
    complete(&report, &case);
    assert_eq!(report.cut, Cut::Refused(Fault::Status(403)));
    assert_eq!(report.bytes(0), report.delivered);
    assert_eq!(report.cut_at, None);
}

#[test]
fn without_the_own_links_second_connection_the_peers_are_dismissed() {
    let mut case = case(2);
    case.lanes[1] = fails(&case.lanes[1], 0, Fault::Status(429));
    let report = run(&case);
    complete(&report, &case);
    assert_eq!(report.cut, Cut::Refused(Fault::Status(429)));
    assert!(report.lanes[2..].iter().all(|lane| lane.state == LaneState::Dismissed));
}

#[test]
fn a_connection_that_fails_in_passing_does_not_forfeit_the_cut() {
    let mut case = case(2);
    case.lanes[1].modes = vec![(0, Mode::Fails(Fault::Closed)), (300_000, Mode::Flow(RATE))];
    let report = run(&case);
    complete(&report, &case);
    assert_eq!(report.cut, Cut::Done);
    assert!(report.bytes(1) > 0);
}

#[test]
fn a_session_whose_peers_all_decline_is_not_slower_than_the_own_link() {
    let mut case = case(2);
    case.lanes[2].accepts = None;
    case.lanes[3].accepts = None;
    let report = run(&case);
    complete(&report, &case);
    let alone = (case.range.end * SECOND).div_ceil(RATE) + 3 * RTT;
    assert!(report.ended <= alone + alone / 50, "{} instead of {alone} us", report.ended);
}

#[test]
fn rule_1_the_next_request_is_sent_before_the_lane_runs_dry() {
    let case = Case { lanes: vec![LaneCase::steady(RATE, 80_000); 4], ..case(2) };
    let report = run(&case);
    complete(&report, &case);
    // Three links; one request at a time would leave each idle for a round trip after every chunk.
    let ideal = case.range.end * SECOND / (3 * RATE);
    assert!(report.ended < ideal + ideal / 5 + SECOND / 2, "{} instead of {ideal} us", report.ended);
}

#[test]
fn rule_2_faster_lanes_get_longer_chunks() {
    let mut case = case(2);
    case.lanes[3] = LaneCase::steady(RATE / 4, RTT);
    let report = run(&case);
    complete(&report, &case);
    let longest = |lane: usize| {
        report.requests.iter().filter(|r| r.1 == lane).map(|r| r.3.end - r.3.start).max().unwrap_or(0)
    };
    assert!(longest(2) >= 2 * longest(3), "{} and {}", longest(2), longest(3));
    assert!(report.bytes(2) > 2 * report.bytes(3));
}

#[test]
fn rule_3_nothing_is_asked_for_beyond_the_window_and_what_a_peer_holds() {
    let mut case = case(2);
    case.lanes[2].hold = 0;
    case.lanes[3].hold = 4 * SLOT as u32;
    case.client_rate = RATE / 2;
    let report = run(&case);
    complete(&report, &case);
    for (at, lane, _, range) in report.requests.iter().filter(|r| r.1 >= 2) {
        // The client takes RATE / 2: by then it had at most so much.
        let client = at * (RATE / 2) / SECOND + 2 * SLOT;
        let hold = u64::from(case.lanes[*lane].hold);
        let most = client + SLOTS as u64 * SLOT + hold + SLOT;
        assert!(range.end <= most, "lane {lane} was asked for {range:?} at {at} us");
    }
}

#[test]
fn rule_5_a_lane_that_crawls_at_the_head_is_helped_out() {
    let mut case = case(3);
    case.lanes[3] = case.lanes[3].clone().then(SECOND, Mode::Flow(9_000));
    let report = run(&case);
    complete(&report, &case);
    // A slot takes the crawling lane nearly two seconds.
    assert!(report.standstill < SECOND / 2, "stood still for {} us", report.standstill);
    // What it was asked for was asked of others as well.
    let asked = |lane: usize| report.requests.iter().filter(move |r| r.1 == lane);
    let again = |r: &&(u64, usize, Conn, std::ops::Range<u64>)| {
        (1..5)
            .filter(|&other| other != 3)
            .any(|other| asked(other).any(|o| o.0 > r.0 && o.3.start < r.3.end && r.3.start < o.3.end))
    };
    assert!(asked(3).filter(again).count() > 0, "{:?}", report.requests);
}

#[test]
fn rule_6_a_silent_lane_is_given_up_and_used_again_when_it_comes_back() {
    let mut case = case(2);
    case.lanes[2] = case.lanes[2].clone().then(SECOND / 2, Mode::Silent).then(2 * SECOND, Mode::Flow(RATE));
    case.range = 0..900 * SLOT;
    let report = run(&case);
    complete(&report, &case);
    assert!(report.lanes[2].stats.timeouts > 0);
    assert!(report.standstill < 440_000, "stood still for {} us", report.standstill);
    let late = report.requests.iter().filter(|r| r.1 == 2 && r.0 > 3 * SECOND).count();
    assert!(late > 5, "{late} requests after it was back");
}

#[test]
fn rule_6_a_lane_that_comes_back_first_repeats_what_another_has() {
    let mut case = case(2);
    case.lanes[2] = case.lanes[2].clone().then(SECOND / 2, Mode::Silent);
    let report = run(&case);
    complete(&report, &case);
    let probes: Vec<_> = report.requests.iter().filter(|r| r.1 == 2 && r.0 > SECOND).collect();
    assert!(!probes.is_empty());
    for (at, _, _, range) in probes {
        assert!(range.end - range.start <= SLOT, "probed with {range:?} at {at}");
    }
    assert!(report.standstill < 440_000, "stood still for {} us", report.standstill);
}

#[test]
fn rule_6_a_lane_that_falls_silent_again_and_again_is_given_more_time() {
    let mut case = case(2);
    case.range = 0..1_800 * SLOT;
    let lossy = &mut case.lanes[2];
    for at in (1..10).map(|n| n * SECOND) {
        *lossy = lossy.clone().then(at, Mode::Silent).then(at + 400_000, Mode::Flow(RATE));
    }
    let report = run(&case);
    complete(&report, &case);
    assert!(report.ended > 8 * SECOND, "ended before it had been silent often");
    // Half a second, which it is given the second time, is enough.
    let timeouts = report.lanes[2].stats.timeouts;
    assert!((1..=2).contains(&timeouts), "given up {timeouts} times");
}

#[test]
fn rule_7_all_lanes_end_together() {
    let mut case = case(2);
    case.lanes[3] = LaneCase::steady(RATE / 8, 3 * RTT);
    let report = run(&case);
    complete(&report, &case);
    let sum = 2 * RATE + RATE / 8;
    let ideal = case.range.end * SECOND / sum;
    assert!(report.ended < ideal + ideal / 10 + SECOND / 4, "{} instead of {ideal} us", report.ended);
    assert!(report.duplicates() <= 4 * SLOT, "{} repeated", report.duplicates());
}

#[test]
fn rule_8_a_lane_that_would_hold_up_the_others_is_let_go_and_looked_at_again() {
    let mut case = case(3);
    case.lanes[4] = LaneCase::steady(6_000, RTT);
    let report = run(&case);
    complete(&report, &case);
    let ideal = case.range.end * SECOND / (3 * RATE);
    assert!(report.ended < ideal * 3 / 2, "{} instead of {ideal} us", report.ended);
    assert_eq!(report.lanes[4].stats.violations, 0);
}

#[test]
fn rule_8_nobody_is_let_go_when_all_are_slow() {
    let case = Case { lanes: vec![LaneCase::steady(20_000, RTT); 5], range: 0..60 * SLOT, ..case(3) };
    let report = run(&case);
    complete(&report, &case);
    assert!((1..5).all(|lane| report.bytes(lane) > 0), "{:?}", report.lanes);
}

#[test]
fn rule_9_and_the_own_link_may_die() {
    let mut case = case(2);
    for lane in 0..2 {
        case.lanes[lane] = case.lanes[lane].clone().then(SECOND, Mode::Fails(Fault::Closed));
        case.lanes[lane + 2].trusted = true;
    }
    let report = run(&case);
    complete(&report, &case);
    assert!(report.bytes(2) + report.bytes(3) > report.delivered / 2);
}

#[test]
fn rule_10_a_slow_client_slows_the_lanes() {
    let case = Case { client_rate: RATE / 4, range: 0..100 * SLOT, ..case(2) };
    let report = run(&case);
    complete(&report, &case);
    assert!(report.lanes.iter().all(|lane| lane.stats.timeouts == 0), "{:?}", report.lanes);
}

#[test]
fn a_file_that_changes_ends_the_session_and_mixes_nothing() {
    let mut case = case(2);
    for lane in &mut case.lanes {
        *lane = lane.clone().then(SECOND, Mode::Fails(Fault::Changed));
    }
    let report = run(&case);
    assert_eq!(report.outcome, Outcome::NoLaneLeft(Fault::Changed));
    assert!(report.delivered > 0 && report.delivered < case.range.end);
}

#[test]
fn the_first_byte_waits_for_no_peer() {
    let mut case = case(2);
    case.lanes[2].accepts = Some(5 * SECOND);
    case.lanes[3].accepts = None;
    let report = run(&case);
    complete(&report, &case);
    let first = report.first_byte.expect("a first byte");
    assert!(first <= RTT + SLOT * SECOND / RATE + 1000, "first byte after {first} us");
}

#[test]
fn without_faults_nearly_everything_comes_on_the_main_connections() {
    let report = run(&case(3));
    let spare = report.requests.iter().filter(|r| r.2 == Conn::Spare);
    assert!(spare.clone().count() <= 1, "{:?}", spare.collect::<Vec<_>>());
}

#[test]
fn the_own_links_payload_comes_on_a_connection_made_after_the_cut() {
    let report = run(&case(3));
    let (cut, _) = report.cut_at.expect("the original response is cut");
    let mut own = report.requests.iter().filter(|r| r.1 == LaneId::OWN.index() && r.2 == Conn::Main);
    assert!(own.clone().count() > 0 && own.all(|r| r.0 >= cut), "cut at {cut}: {:?}", report.requests);
}

#[test]
fn a_young_connection_is_asked_for_what_it_can_bring() {
    let mut case = case(1);
    case.lanes[2].rtt = 100_000;
    case.lanes[2].claims = 10_000_000;
    let report = run(&case);
    complete(&report, &case);
    // Its first round trip brings ten segments, less than a slot, the next one twice as much, however fast it says it is.
    let early = report.requests.iter().filter(|r| r.1 == 2 && r.0 < 100_000);
    let asked: u64 = early.map(|r| r.3.end - r.3.start).sum();
    assert!(asked > 0 && asked <= 4 * 14_480 + SLOT, "{asked} bytes in the first round trip");
}

#[test]
fn a_peer_that_promises_beyond_all_measure_and_drips_holds_nobody_up_for_long() {
    let mut case = case(2);
    case.lanes[3] = LaneCase { claims: u64::MAX, hold: u32::MAX, ..LaneCase::steady(5_000, RTT) };
    let report = run(&case);
    complete(&report, &case);
    let without = case.range.end * SECOND / (2 * RATE);
    assert!(report.ended < without * 2, "{} instead of {without} us", report.ended);
}

#[test]
fn the_own_link_has_at_most_two_connections() {
    let mut case = case(3);
    case.lanes[3] = case.lanes[3].clone().then(SECOND / 4, Mode::Flow(9_000));
    let report = run(&case);
    complete(&report, &case);
    let cut = report.cut_at.expect("a cut").0;
    let early = |r: &&(u64, usize, Conn, std::ops::Range<u64>)| r.1 == 1 && r.2 == Conn::Spare && r.0 < cut;
    assert_eq!(report.requests.iter().filter(early).count(), 0);
}

#[test]
fn a_client_that_paused_for_minutes_gets_the_rest() {
    let case = Case { client_rate: 2_500, range: 0..40 * SLOT, ..case(2) };
    let report = run(&case);
    complete(&report, &case);
    assert!(report.ended > 120 * SECOND);
}
