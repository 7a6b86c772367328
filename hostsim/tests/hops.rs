//! Neighbours of neighbours under the virtual clock: who helps over whom, what that brings, what goes wrong on the way; and
//! who works for whom in random neighbourhoods.

use bamqp_core::time::{Instant, Span};
use bamqp_core::transfer::{Fault, LaneState, LaneView, Outcome};
use bamqp_core::trust::Standing;
use hostsim::model::content::Tamper;
use hostsim::model::promises;
use hostsim::model::topologies;
use hostsim::model::world::{Happening, Job, PassedOn, Result, World};
use hostsim::topology::Topology;

const MBIT: u64 = 125_000;
const WINDOW: usize = 1 << 20;
const SIZE: u64 = 64 << 20;
/// The routers, by their lines.
const A: usize = 0;
const B: usize = 1;
const C: usize = 2;
const D: usize = 3;
/// A's lane to its first peer.
const FIRST: usize = 2;

fn at(ms: u64) -> Instant {
    Instant::from_micros(ms * 1_000)
}

/// A's download over these links, in Mbit/s, in which something happens.
fn download(
    topology: &Topology,
    links: [u64; 4],
    rtt: u64,
    change: impl FnOnce(&mut Job),
    happenings: &[(u64, Happening)],
) -> Result {
    let mut world = World::default();
    for mbits in links {
        world.net.add_line(mbits * MBIT, Span::from_millis(rtt));
    }
    for &(ms, what) in happenings {
        world.happen(at(ms), what);
    }
    let mut job = Job::new(A, topology.heard_by(A, links.len()), 0..SIZE, WINDOW);
    job.hears = (1..links.len()).map(|router| (router, topology.heard_by(router, links.len()))).collect();
    change(&mut job);
    let number = world.start(Instant::default(), job);
    let result = world.run(at(10_000_000)).remove(&number).expect("a session ends");
    assert_eq!((result.outcome, result.bytes), (Outcome::Complete, SIZE));
    assert_eq!((result.escaped, result.mixed), (0, 0), "each byte is the own link's");
    assert!(result.window_used <= WINDOW);
    result
}

const CHAIN: [u64; 4] = [5, 5, 20, 20];

/// What a router's lanes brought, by their lines; all of its sessions together.
fn brought(result: &Result, router: usize, line: usize) -> u64 {
    let of_it = result.passed_on.iter().filter(|by| by.line == router).flat_map(|by| &by.lanes);
    of_it.filter(|(of, _)| *of == line).map(|(_, lane)| lane.stats.bytes).sum()
}

fn lane(by: &PassedOn, line: usize) -> &LaneView {
    &by.lanes.iter().find(|(of, _)| *of == line).expect("it was asked").1
}

#[test]
fn a_router_that_hears_one_other_gets_nine_tenths_of_all_their_links() {
    for rtt in [0, 10, 40] {
        for standing in [Standing::Newcomer { clean: 0 }, Standing::Trusted { accused: false }] {
            let result = download(&Topology::Chain, CHAIN, rtt, |job| job.standing = standing, &[]);
            let took = result.ended.since(result.began).as_micros();
            let efficiency = SIZE * 1_000_000 / took * 1_000 / (50 * MBIT);
            assert!(efficiency >= 900, "RTT {rtt}, {standing}: {efficiency}");
            assert_eq!(result.lanes.len(), FIRST + 1, "A asks B alone");
            for (line, share) in [(B, 5), (C, 20), (D, 20)] {
                let share = SIZE * share / 50;
                let got = brought(&result, B, line);
                assert!(got.abs_diff(share) < SIZE / 25, "RTT {rtt}, {standing}: {got} of {share}");
            }
        }
    }
}

#[test]
fn whom_the_coordinator_asks_works_for_nobody_else() {
    let mesh = download(&Topology::Mesh, CHAIN, 40, |_| {}, &[]);
    assert_eq!(mesh.passed_on.len(), 3, "each of them asks the others");
    for by in &mesh.passed_on {
        for (line, lane) in by.lanes.iter().filter(|(line, _)| *line != by.line) {
            assert_eq!(lane.state, LaneState::Left(Fault::Declined), "{} and {line}", by.line);
            assert_eq!(lane.stats.bytes, 0);
        }
    }
    let star = download(&Topology::Star, CHAIN, 40, |_| {}, &[]);
    assert!(star.passed_on.is_empty(), "they hear nobody else");
    assert!(mesh.lanes[FIRST..].iter().all(|lane| lane.stats.bytes > SIZE / 20), "{mesh:?}");
}

#[test]
fn hops_end_where_the_owner_says() {
    let row = Topology::Pairs(vec![(A, B), (B, C), (C, D)]);
    let far = |max_hops| download(&row, [10; 4], 10, |job| job.max_hops = max_hops, &[]);
    assert!(far(1).passed_on.is_empty());
    let two = far(2);
    assert!(brought(&two, B, C) > SIZE / 5 && brought(&two, C, D) == 0);
    let three = far(3);
    assert!(brought(&three, C, D) > SIZE / 10, "{:?}", three.passed_on);
}

#[test]
fn who_lies_two_hops_away_is_found_out_there_and_its_coordinator_is_not_blamed() {
    let result = download(&Topology::Chain, CHAIN, 10, |_| {}, &[(0, Happening::Lie(C, Tamper::EVERYTHING))]);
    let by = &result.passed_on[0];
    assert!(lane(by, C).stats.mismatches > 0, "{by:?}");
    assert!(matches!(lane(by, C).state, LaneState::Left(_)), "{by:?}");
    assert!(lane(by, D).stats.bytes > SIZE / 4);
    assert_eq!((result.lanes[FIRST].stats.mismatches, result.lanes[FIRST].stats.verdict), (0, None));
}

#[test]
fn who_alters_what_others_brought_it_is_found_out() {
    let result = download(&Topology::Chain, CHAIN, 10, |_| {}, &[(0, Happening::Lie(B, Tamper::EVERYTHING))]);
    assert!(result.lanes[FIRST].stats.mismatches > 0, "{:?}", result.lanes);
}

#[test]
fn when_a_peers_peer_dies_the_others_bring_its_part() {
    let result = download(&Topology::Chain, CHAIN, 10, |_| {}, &[(2_000, Happening::Down(C))]);
    let by = &result.passed_on[0];
    assert!(lane(by, C).stats.failures > 0 && lane(by, C).stats.bytes > 0, "{by:?}");
    assert_eq!(result.lanes[FIRST].stats.failures, 0, "A notices nothing");
    // 2 s of 50 Mbit/s, the rest of 30; a tenth more for what is lost on the way.
    let ideal = 2_000 + (SIZE - 2 * 50 * MBIT) * 1_000 / (30 * MBIT);
    assert!(result.ended.since(result.began).as_millis() * 100 <= ideal * 115);
}

#[test]
fn a_router_that_comes_back_asks_its_peers_anew() {
    let happenings = [(2_000, Happening::Down(B)), (4_000, Happening::Up(B))];
    let result = download(&Topology::Chain, CHAIN, 10, |_| {}, &happenings);
    assert!(result.lanes[FIRST].stats.failures > 0);
    assert!(result.passed_on.len() >= 2, "{:?}", result.passed_on);
    let last = result.passed_on.last().expect("it has asked them");
    assert!(lane(last, C).stats.bytes > 1 << 20 && lane(last, D).stats.bytes > 1 << 20, "{last:?}");
}

#[test]
fn a_slow_client_slows_down_all_of_them() {
    let result = download(&Topology::Chain, CHAIN, 10, |job| job.client_rate = 10 * MBIT, &[]);
    let took = result.ended.since(result.began).as_millis();
    assert!(took >= SIZE * 1_000 / (10 * MBIT), "{took} ms");
    assert_eq!(result.lanes[FIRST].stats.timeouts, 0, "that it is not read is not its fault");
    assert!(result.duplicates() <= 1 << 20, "{}", result.duplicates());
}

#[test]
fn the_same_seed_gives_the_same_download() {
    let run = || format!("{:?}", download(&Topology::Chain, CHAIN, 40, |job| job.seed = 7, &[]));
    assert_eq!(run(), run());
}

#[test]
fn the_table_of_promises_is_the_one_in_the_documentation() {
    assert_eq!(promises::table(), include_str!("../promise-table.txt"), "hostsim model --promises prints it");
}

#[test]
fn who_works_for_whom_is_a_tree_in_all_neighbourhoods() {
    let tally = topologies::run(1_000, 1, |_| {});
    assert_eq!(tally.violations, Vec::<String>::new());
    assert!((1..=5).all(|depth| tally.depths.contains_key(&depth)), "{tally:?}");
    assert!(tally.again > 100 && tally.lost > 100 && tally.let_go > 100, "{tally:?}");
    let declined = |reason: bamqp_core::message::reason::DeclineReason| tally.declined[reason.index()];
    use bamqp_core::message::reason::DeclineReason::{Busy, DuplicateSession, TooManyHops};
    assert!([Busy, DuplicateSession, TooManyHops].into_iter().all(|reason| declined(reason) > 100));
    assert_eq!(tally, topologies::run(1_000, 1, |_| {}));
}
