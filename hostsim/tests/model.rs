//! The core under the virtual clock: each fault of the main job at several round trips, the table of static links, and
//! the reorder metrics. What is asserted is what happened: bytes per lane, the fault met, the cut, the standstill.

use bamqp_core::rules::Rules;
use bamqp_core::time::{Instant, Span};
use bamqp_core::transfer::{Fault, LaneState, Outcome};
use bamqp_core::trust::Standing;
use hostsim::model::detect;
use hostsim::model::reorder::Reorder;
use hostsim::model::scenarios::{self, Scenario};
use hostsim::model::table::{self, ENOUGH};
use hostsim::model::world::{Happening, Job, Result, World};

const MBIT: u64 = 125_000;
const LINKS: [u64; 4] = [20 * MBIT, 15 * MBIT, 10 * MBIT, 5 * MBIT];
const SUM: u64 = 50 * MBIT;
const SIZE: u64 = 32 << 20;
const WINDOW: usize = 1 << 20;
/// Lanes: the original response, the own link's second connection, B, C, D.
const ORIGINAL: usize = 0;
const OWN: usize = 1;
const B: usize = 2;
const C: usize = 3;
const D: usize = 4;

fn at(ms: u64) -> Instant {
    Instant::from_micros(ms * 1_000)
}

/// One download over [`LINKS`] in which something happens. Also, how many requests met a fault.
fn download(rtt: u64, job: impl FnOnce(&mut Job), happenings: &[(u64, Happening)]) -> (Result, u64) {
    let mut world = World::default();
    for rate in LINKS {
        world.net.add_line(rate, Span::from_millis(rtt));
    }
    for &(ms, what) in happenings {
        world.happen(at(ms), what);
    }
    let mut the_job = Job::new(0, vec![1, 2, 3], 0..SIZE, WINDOW);
    job(&mut the_job);
    let size = the_job.range.end - the_job.range.start;
    let number = world.start(Instant::default(), the_job);
    let result = world.run(at(10_000_000)).remove(&number).expect("a session ends");
    // What always holds: no byte twice, none missing, never more memory than the window.
    if result.outcome == Outcome::Complete {
        assert_eq!(result.bytes, size);
        assert_eq!(result.lanes.iter().map(|l| l.stats.bytes).sum::<u64>(), size);
    }
    assert!(result.window_used <= WINDOW);
    (result, world.faults_met())
}

fn with(rtt: u64, happenings: &[(u64, Happening)]) -> Result {
    let (result, _) = download(rtt, |_| {}, happenings);
    assert_eq!(result.outcome, Outcome::Complete, "RTT {rtt}: {result:?}");
    result
}

fn took_ms(result: &Result) -> u64 {
    result.ended.since(result.began).as_millis()
}

/// How long it takes if the lines bring all that they can: [`SUM`] until `change` (ms), `rest` from then on.
fn ideal_ms(rtt: u64, change: u64, rest: u64) -> u64 {
    let before = SUM * (change - 2 * rtt) / 1_000;
    change + SIZE.saturating_sub(before) * 1_000 / rest
}

/// The own link went on by ranges, its first response was cut.
fn assert_cut(result: &Result) {
    assert_eq!(result.lanes[ORIGINAL].state, LaneState::Dismissed);
    assert!(result.lanes[ORIGINAL].stats.bytes > 0 && result.lanes[OWN].stats.bytes > 0);
}

#[test]
fn lines_in_good_order_are_used_as_far_as_they_go() {
    for rtt in [5, 40, 100] {
        let result = with(rtt, &[]);
        assert_cut(&result);
        let share = |lane: usize| result.lanes[lane].stats.bytes as f64 / SIZE as f64;
        for (got, due) in
            [(share(ORIGINAL) + share(OWN), 0.4), (share(B), 0.3), (share(C), 0.2), (share(D), 0.1)]
        {
            assert!((got - due).abs() < 0.04, "RTT {rtt}: {got} of {due}");
        }
        let repeated: u64 = result.lanes.iter().map(|l| l.stats.duplicates).sum();
        assert!(repeated <= 64 << 10, "RTT {rtt}: {repeated} bytes were fetched for nothing");
        // Handshake, request, and the first segment's time on the line.
        assert!(
            result.first_byte.since(result.began).as_millis() <= 2 * rtt + 8,
            "no later than over the own link"
        );
    }
}

#[test]
fn a_peer_that_dies_is_replaced() {
    for rtt in [5, 40, 100] {
        let result = with(rtt, &[(2_000, Happening::Down(2))]);
        assert_cut(&result);
        let lane = &result.lanes[C];
        assert!(lane.stats.failures > 0 && lane.stats.bytes > 1 << 20, "{lane:?}");
        assert!(lane.stats.bytes < 2 * 10 * MBIT, "it brought nothing once it was dead");
        assert!(
            rtt > 40 || result.standstill <= Span::from_millis(310),
            "RTT {rtt}: {:?}",
            result.standstill
        );
        let ideal = ideal_ms(rtt, 2_000, SUM - LINKS[2]);
        assert!(took_ms(&result) * 100 <= ideal * 115, "RTT {rtt}: {} ms of {ideal}", took_ms(&result));
    }
}

#[test]
fn a_peer_that_goes_silent_is_replaced() {
    for rtt in [5, 40, 100] {
        let result = with(rtt, &[(2_000, Happening::Rate(2, 0))]);
        assert_cut(&result);
        let lane = &result.lanes[C];
        assert!(lane.stats.timeouts > 0 && lane.stats.bytes > 1 << 20, "{lane:?}");
        assert!(
            rtt > 40 || result.standstill <= Span::from_millis(440),
            "RTT {rtt}: {:?}",
            result.standstill
        );
        let ideal = ideal_ms(rtt, 2_000, SUM - LINKS[2]);
        assert!(took_ms(&result) * 100 <= ideal * 115, "RTT {rtt}: {} ms of {ideal}", took_ms(&result));
    }
}

#[test]
fn a_helper_whose_household_wakes_up_gives_it_its_line_and_comes_back_when_it_is_calm() {
    for rtt in [5, 40, 100] {
        let mut world = World::default();
        for rate in LINKS {
            world.net.add_line(rate, Span::from_millis(rtt));
        }
        world.happen(at(0), Happening::Watch(1));
        world.happen(at(3_000), Happening::Busy(1));
        world.happen(at(9_000), Happening::Calm(1));
        let number = world.start(Instant::default(), Job::new(0, vec![1, 2, 3], 0..128 << 20, WINDOW));
        world.run(at(8_900));
        let before = world.lanes(number)[B];
        assert!(before.stats.withdrawals > 0 && before.stats.bytes > 1 << 20, "RTT {rtt}: {before:?}");
        let part = world.household_part(1).unwrap();
        assert!(part >= 0.95, "RTT {rtt}: the household has {part:.3} of its line");
        let result = world.run(at(10_000_000)).remove(&number).unwrap();
        assert_eq!(result.outcome, Outcome::Complete);
        let after = &result.lanes[B].stats;
        assert!(after.bytes > before.stats.bytes + (4 << 20), "RTT {rtt}: it came back: {after:?}");
        assert_eq!((after.failures, after.timeouts, after.violations), (0, 0, 0), "RTT {rtt}: {after:?}");
    }
}

#[test]
fn a_peer_that_gets_slow_holds_nobody_up() {
    for rtt in [5, 40, 100] {
        let result = with(rtt, &[(2_000, Happening::Rate(1, LINKS[1] / 10))]);
        assert_cut(&result);
        let full = with(rtt, &[]).lanes[B].stats.bytes;
        assert!(result.lanes[B].stats.bytes < full * 3 / 4, "{:?}", result.lanes[B]);
        let ideal = ideal_ms(rtt, 2_000, SUM - LINKS[1] * 9 / 10);
        assert!(took_ms(&result) * 100 <= ideal * 115, "RTT {rtt}: {} ms of {ideal}", took_ms(&result));
    }
}

#[test]
fn a_peer_that_comes_back_is_used_again() {
    for rtt in [5, 40] {
        let gone = with(rtt, &[(1_000, Happening::Rate(1, 0))]);
        let back = with(rtt, &[(1_000, Happening::Rate(1, 0)), (2_000, Happening::Rate(1, LINKS[1]))]);
        let bytes = |result: &Result| result.lanes[B].stats.bytes;
        assert!(bytes(&back) > 2 * bytes(&gone), "RTT {rtt}: {} and {}", bytes(&back), bytes(&gone));
        assert!(took_ms(&back) < took_ms(&gone));
    }
}

#[test]
fn a_peer_whose_answers_break_the_protocol_is_out_and_its_bytes_are_not_used() {
    for rtt in [5, 40, 100] {
        for why in [Fault::WrongLength, Fault::WrongRange] {
            let (result, met) = download(rtt, |_| {}, &[(0, Happening::Refuse(1, why))]);
            assert_eq!(result.outcome, Outcome::Complete);
            assert!(met > 0, "the fault happened");
            let lane = &result.lanes[B];
            assert_eq!((lane.state, lane.stats.violations, lane.stats.bytes), (LaneState::Left(why), 1, 0));
            assert_cut(&result);
            let ideal = ideal_ms(rtt, 2 * rtt, SUM - LINKS[1]);
            assert!(took_ms(&result) * 100 <= ideal * 115, "RTT {rtt}: {} ms of {ideal}", took_ms(&result));
        }
    }
}

#[test]
fn a_file_that_changes_ends_the_download_early() {
    for rtt in [5, 40, 100] {
        let (result, met) = download(rtt, |_| {}, &[(2_000, Happening::Change)]);
        let early = [Outcome::NoLaneLeft(Fault::Changed), Outcome::Unverified];
        assert!(early.contains(&result.outcome), "RTT {rtt}: {:?}", result.outcome);
        assert!(met >= 2, "the own link and a peer saw it");
        assert!(
            result.bytes > SIZE / 4 && result.bytes < SIZE / 2,
            "what came before is right: {}",
            result.bytes
        );
        // What had been asked for before still comes.
        assert!(took_ms(&result) <= 2_500 + rtt, "RTT {rtt}: {} ms", took_ms(&result));
    }
}

#[test]
fn a_url_that_is_good_for_one_use_is_left_to_the_original_response() {
    for rtt in [5, 40, 100] {
        let refuse = |line| (0, Happening::Refuse(line, Fault::Status(403)));
        let (result, met) = download(rtt, |_| {}, &[refuse(0), refuse(1), refuse(2), refuse(3)]);
        assert_eq!(result.outcome, Outcome::Complete);
        assert!(met > 0, "the fault happened");
        assert_eq!(result.lanes[ORIGINAL].stats.bytes, SIZE, "the original response was not cut");
        let alone = 2 * rtt + SIZE * 1_000 / LINKS[0];
        assert!(took_ms(&result) <= alone + 20, "RTT {rtt}: {} ms, {alone} alone", took_ms(&result));
    }
}

#[test]
fn where_one_connection_is_the_limit_the_original_response_is_not_cut() {
    for rtt in [5, 40, 100] {
        let (result, met) = download(rtt, |_| {}, &[(0, Happening::Limit(1))]);
        assert_eq!(result.outcome, Outcome::Complete);
        assert!(met >= 3, "the own link's second connection was refused, and tried again");
        assert_eq!(result.lanes[OWN].stats.bytes, 0);
        assert_eq!(result.lanes[OWN].state, LaneState::Dismissed);
        assert!(result.lanes[ORIGINAL].stats.bytes > SIZE * 9 / 10, "RTT {rtt}: {result:?}");
        let alone = 2 * rtt + SIZE * 1_000 / LINKS[0];
        assert!(took_ms(&result) <= alone + 20, "RTT {rtt}: {} ms, {alone} alone", took_ms(&result));
    }
}

#[test]
fn the_own_link_may_die_or_go_silent_at_any_moment() {
    for rtt in [5, 40, 100] {
        // From the original response's first bytes on, past the cut, into the middle.
        for ms in (2 * rtt..600).step_by(37).chain([2_000]) {
            for what in [Happening::Down(0), Happening::Rate(0, 0)] {
                let result = with(rtt, &[(ms, what)]);
                let peers: u64 = [B, C, D].into_iter().map(|lane| result.lanes[lane].stats.bytes).sum();
                let own = ms.saturating_sub(2 * rtt) * LINKS[0] / 1_000;
                // What was on its way may still arrive.
                let late = (64 << 10) + LINKS[0] * rtt / 1_000;
                assert!(peers >= SIZE - own - late, "RTT {rtt}, {what:?} at {ms}: {peers}");
                let ideal = ideal_ms(rtt, ms, SUM - LINKS[0]);
                // Before the peers begin there is nobody to go on at once.
                let most = ideal * if rtt <= 40 { 115 } else { 125 } / 100 + 4 * rtt;
                assert!(
                    took_ms(&result) <= most,
                    "RTT {rtt}, {what:?} at {ms}: {} ms of {ideal}",
                    took_ms(&result)
                );
            }
        }
    }
}

#[test]
fn when_all_lines_die_the_download_ends() {
    let down: Vec<(u64, Happening)> = (0..4).map(|line| (1_000, Happening::Down(line))).collect();
    let (result, _) = download(40, |_| {}, &down);
    assert!(matches!(result.outcome, Outcome::NoLaneLeft(_)), "{:?}", result.outcome);
    assert!(result.bytes > 0 && result.bytes < SIZE / 4);
}

#[test]
fn a_slow_client_slows_the_lanes() {
    for rtt in [5, 40, 100] {
        let rate = 1_000_000;
        let (result, _) =
            download(rtt, |job| (job.client_rate, job.range) = (rate, 1_000..1_000 + (8 << 20)), &[]);
        assert_eq!(result.outcome, Outcome::Complete);
        assert!(
            took_ms(&result) <= 2 * rtt + (8 << 20) * 1_000 / rate + 50,
            "RTT {rtt}: {} ms",
            took_ms(&result)
        );
        let waited = result.lanes.iter().map(|l| l.stats.timeouts + l.stats.failures).sum::<u32>();
        assert_eq!(waited, 0, "no lane is blamed for it: {:?}", result.lanes);
    }
}

#[test]
fn the_same_happens_again() {
    let run = || with(40, &[(700, Happening::Rate(1, 0)), (1_900, Happening::Rate(1, LINKS[1]))]);
    assert_eq!(format!("{:?}", run()), format!("{:?}", run()));
}

#[test]
fn the_table_of_static_links_is_the_one_in_the_documentation() {
    assert_eq!(table::table(), include_str!("../model-table.txt"), "hostsim model --table prints it");
}

#[test]
fn the_table_of_scheduling_rules_is_the_one_in_the_documentation() {
    assert_eq!(scenarios::table(), include_str!("../rules-table.txt"), "hostsim model --rules prints it");
}

#[test]
fn a_queue_that_overflows_costs_neither_the_line_nor_bytes_that_are_fetched_twice() {
    for (name, enough) in [("rtt-1", 980), ("rtt-40", 940), ("rtt-100", 880), ("mixed", 900)] {
        let cell = Scenario::named(name).expect("a scenario").measure(Rules::default());
        assert!(
            cell.broken == 0 && cell.of_limit >= enough && cell.repeated <= 512 << 10,
            "{name}: {cell:?}"
        );
    }
}

#[test]
fn static_links_are_used_to_97_percent_where_the_window_has_the_time() {
    let mut promised = 0;
    for row in table::rows().filter(|row| row.is_promised() && row.has_time_for_slots()) {
        let cell = row.measure();
        // From so far away the start takes longer than that second: five round trips, and what TCP needs.
        let enough = if row.rtt <= 100 { ENOUGH } else { 950 };
        assert!(cell.after_a_second >= enough, "{row:?}: {cell:?}");
        promised += 1;
    }
    assert!(promised >= 75, "{promised} rows");
}

#[test]
fn liars_are_found_as_often_as_the_formula_says() {
    for row in detect::rows().filter(|row| row.per_1000 >= 100) {
        let (cell, predicted) = (row.measure(60), row.predicted());
        let off = (cell.measured() - predicted).abs();
        let most = 4.0 * cell.error(predicted) + 0.5 / cell.checked.max(1) as f64;
        assert!(off <= most, "{row:?}: {} instead of {predicted}: {cell:?}", cell.measured());
        assert_eq!(cell.blamed, 0, "{row:?}");
        if row.run >= 16 << 10 && row.standing == (Standing::Newcomer { clean: 0 }) {
            assert!(cell.measured() >= 0.75, "{row:?}: {cell:?}");
        }
    }
}

#[test]
fn of_chunks_that_are_altered_whole_nothing_gets_through_and_variants_are_nobodys_fault() {
    let (escaped, altered) = detect::whole_chunks(100);
    assert!(escaped == 0 && altered >= 100, "{escaped} of {altered}");
    assert_eq!(detect::blamed_for_variants(100), 0);
}

#[test]
fn checking_costs_at_most_what_it_may() {
    for rtt in [5, 40, 100] {
        let newcomer = Standing::Newcomer { clean: 0 };
        let trusted = Standing::Trusted { accused: false };
        for (standing, most) in [(newcomer, 35.0), (trusted, 10.0)] {
            let (result, _) = download(rtt, |job| job.standing = standing, &[]);
            let cost = result.check_cost();
            assert!(cost > 1.0 && cost <= most, "RTT {rtt}, {standing}: {cost} of a thousand");
        }
    }
}

/// Worked out by hand from the definitions of RFC 5236: displacement is arrival position less sequence number; what
/// waits after an arrival occupies the buffer.
#[test]
fn reorder_metrics_of_a_sequence_with_displaced_slots() {
    let shares = |of: &[(i64, u32)]| of.iter().map(|&(d, n)| (d, f64::from(n) / 8.0)).collect();
    let reorder = Reorder::of(1, &[1, 4, 2, 5, 3, 6, 7, 8]);
    assert_eq!(reorder.density, shares(&[(-2, 1), (-1, 1), (0, 4), (1, 1), (2, 1)]));
    assert_eq!(reorder.occupancy, [(0, 5.0 / 8.0), (1, 2.0 / 8.0), (2, 1.0 / 8.0)].into());
    assert_eq!(reorder.mean_displacement(), 6.0 / 8.0);
    assert_eq!(reorder.mean_occupancy(), 4.0 / 8.0);
}

#[test]
fn reorder_metrics_leave_out_duplicates() {
    let with = Reorder::of(10, &[10, 12, 12, 11, 10, 13]);
    assert_eq!(with, Reorder::of(10, &[10, 12, 11, 13]));
    let in_order = Reorder::of(0, &[0, 1, 2, 3]);
    assert_eq!((in_order.density, in_order.occupancy), ([(0, 1.0)].into(), [(0, 1.0)].into()));
}
