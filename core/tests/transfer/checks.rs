//! What peers bring is checked before the client gets it (DESIGN section 7): how much of it, what becomes of liars and of
//! origins that serve different bytes, and what happens where nobody can check. That no altered chunk and no byte of another
//! variant gets through is asserted by the rig, in every session.

use bamqp_core::transfer::{Dispute, Fault, LaneState, Outcome};

use crate::rig::{Case, Mode, Report, SECOND, SLOT, case, run};

fn complete(case: &Case) -> Report {
    let report = run(case);
    assert_eq!(report.outcome, Outcome::Complete, "{report:?}");
    report
}

fn verdicts(report: &Report) -> Vec<Option<Dispute>> {
    report.lanes.iter().skip(2).map(|lane| lane.stats.verdict).collect()
}

#[test]
fn a_newcomer_is_looked_at_in_24_places_of_256_kib_and_a_trusted_peer_in_4() {
    let places = |trusted: bool| {
        let mut case = case(2);
        case.lanes.iter_mut().skip(2).for_each(|lane| lane.trusted = trusted);
        let report = complete(&case);
        let chunks = report.requests.iter().filter(|r| r.1 >= 2).count() as u64;
        let brought = report.bytes(2) + report.bytes(3);
        (report.places[1] as u64, brought, chunks)
    };
    let (newcomers, brought, chunks) = places(false);
    let due = brought * 24 / (256 << 10);
    assert!((due..=due + chunks + 1).contains(&newcomers), "{newcomers} places, {due} due, {chunks} chunks");
    // Here chunks are shorter than 64 KiB: each has one.
    let (trusted, _, chunks) = places(true);
    assert!((chunks..=chunks + 8).contains(&trusted), "{trusted} places of {chunks} chunks");
}

#[test]
fn a_liar_is_found_the_others_go_on_and_nothing_of_its_is_used() {
    for seed in 1..30 {
        let mut case = Case { seed, ..case(3) };
        case.lanes[3].lies = 1;
        let report = complete(&case);
        assert_eq!(verdicts(&report), [None, Some(Dispute::Lie), None], "seed {seed}");
        assert_eq!(report.lanes[3].state, LaneState::Left(Fault::Mismatch));
        assert_eq!(report.bytes(3), 0);
        assert!(report.bytes(2) > 0 && report.bytes(4) > 0);
    }
}

#[test]
fn one_that_lies_now_and_then_is_found_by_its_first_altered_chunk() {
    for seed in 1..30 {
        let mut case = Case { seed, ..case(3) };
        case.lanes[2].lies = 10;
        let report = complete(&case);
        let lied = report.lanes[2].stats.mismatches > 0;
        let expected = if lied { Some(Dispute::Lie) } else { None };
        assert_eq!(verdicts(&report), [expected, None, None], "seed {seed}");
    }
}

#[test]
fn two_liars_that_contradict_each_other_end_pooling_without_a_verdict_on_them() {
    let mut case = case(2);
    (case.lanes[2].variant, case.lanes[3].variant) = (1, 2);
    let report = complete(&case);
    assert!(!verdicts(&report).contains(&Some(Dispute::Lie)), "{:?}", report.lanes);
    assert_eq!(report.bytes(2) + report.bytes(3), 0);
}

#[test]
fn nobody_is_blamed_where_the_origin_serves_variants() {
    for variants in [2, 3, 9] {
        for seed in 1..30 {
            let mut case = Case { seed, ..case(4) };
            for (place, lane) in case.lanes.iter_mut().enumerate().skip(2) {
                lane.variant = (place - 1) as u8 % variants;
            }
            let report = complete(&case);
            let verdicts = verdicts(&report);
            assert!(
                verdicts.contains(&Some(Dispute::Origin)),
                "{variants} variants, seed {seed}: {verdicts:?}"
            );
            assert!(
                !verdicts.contains(&Some(Dispute::Lie)),
                "{variants} variants, seed {seed}: {verdicts:?}"
            );
        }
    }
}

#[test]
fn without_a_third_lane_pooling_ends_and_the_dispute_stays_open() {
    let mut case = case(1);
    case.lanes[2].lies = 1;
    let report = complete(&case);
    assert_eq!(verdicts(&report), [Some(Dispute::Open)]);
    assert_eq!(report.bytes(2), 0);
}

#[test]
fn an_origin_that_answers_one_range_at_a_time_is_asked_for_one() {
    let mut case = case(2);
    case.several = false;
    let report = complete(&case);
    let chunks = report.requests.iter().filter(|r| r.1 >= 2).count();
    // The first request for several is what it was found out by.
    assert!(report.places[1] <= chunks + 24 + 8, "{} places of {chunks} chunks", report.places[1]);
    assert!(report.bytes(2) > report.delivered / 5, "{:?}", report.lanes);
}

#[test]
fn what_nobody_can_check_is_not_given_out() {
    let mut case = case(2);
    for lane in 0..2 {
        case.lanes[lane] = case.lanes[lane].clone().then(SECOND, Mode::Fails(Fault::Closed));
    }
    let report = run(&case);
    assert_eq!(report.outcome, Outcome::Unverified);
    assert!(report.ended < 20 * SECOND, "ended at {} us", report.ended);
}

#[test]
fn trusted_peers_check_for_a_dead_own_link_and_find_a_liar() {
    let mut case = case(3);
    for lane in 0..2 {
        case.lanes[lane] = case.lanes[lane].clone().then(SECOND, Mode::Fails(Fault::Closed));
    }
    (case.lanes[3].trusted, case.lanes[4].trusted) = (true, true);
    case.lanes[2].lies = 8;
    case.range = 0..900 * SLOT;
    let report = complete(&case);
    assert_eq!(report.lanes[2].stats.verdict, Some(Dispute::Lie), "{:?}", report.lanes);
    assert!(report.bytes(3) + report.bytes(4) > report.delivered / 2);
}

#[test]
fn a_liar_that_stands_in_for_a_dead_own_link_has_nobody_barred() {
    let mut disputed = 0;
    for seed in 1..20 {
        let mut case = Case { seed, range: 0..900 * SLOT, ..case(3) };
        for lane in 0..2 {
            case.lanes[lane] = case.lanes[lane].clone().then(SECOND, Mode::Fails(Fault::Closed));
        }
        // It is trusted, and begins to tell of another file once it is asked what is right.
        (case.lanes[4].trusted, case.lanes[4].variant) = (true, 5);
        case.lanes[4].accepts = Some(SECOND);
        let report = run(&case);
        let verdicts = verdicts(&report);
        assert!(!verdicts[..2].contains(&Some(Dispute::Lie)), "seed {seed}: {verdicts:?}");
        disputed += u32::from(verdicts[..2].contains(&Some(Dispute::Unsettled)));
    }
    assert!(disputed > 5, "{disputed}");
}

#[test]
fn audits_fetch_about_one_slot_of_a_hundred() {
    let mut audited = 0;
    let mut brought = 0;
    for seed in 1..60 {
        let report = complete(&Case { seed, ..case(2) });
        let slots = |lane: usize| report.requests.iter().filter(move |r| r.1 == lane).map(|r| r.3.clone());
        // The own lane asks for a slot that a peer was asked for before.
        let again = slots(1).filter(|own| {
            own.end - own.start <= SLOT
                && (2..4).any(|p| slots(p).any(|r| r.start <= own.start && own.end <= r.end))
        });
        audited += again.count() as u64;
        brought += (report.bytes(2) + report.bytes(3)) / SLOT;
    }
    let due = brought / 100;
    assert!((due / 2..due * 2).contains(&audited), "{audited} of {brought} slots");
}
