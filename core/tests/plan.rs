//! The scheduling arithmetic against naive computations, and the set of unassigned slots against a naive one.

use std::collections::BTreeSet;

use bamqp_core::limits::SLOT_BYTES;
use bamqp_core::plan::{Pace, Pool, Unassigned, bytes_in, share, time_for};
use bamqp_core::time::Span;
use proptest::prelude::*;

const SLOTS: usize = 16;
const SLOT: u64 = SLOT_BYTES as u64;

/// Lanes as they occur: 64 kbit/s to 1 Gbit/s, up to a second away, up to 4 MiB owed.
fn pace() -> impl Strategy<Value = Pace> {
    (8_000..125_000_000u64, 0..1_000_000u64, 0..4u64 << 20).prop_map(|(rate, rtt, owed)| Pace {
        rate,
        rtt: Span::from_micros(rtt),
        owed,
    })
}

/// Lanes as nobody has them; a peer may claim anything.
fn any_pace() -> impl Strategy<Value = Pace> {
    let edge = || prop_oneof![Just(0), Just(1), Just(u64::MAX), any::<u64>(), 0..1u64 << 40];
    (edge(), edge(), edge()).prop_map(|(rate, rtt, owed)| Pace { rate, rtt: Span::from_micros(rtt), owed })
}

/// The last `rest` bytes handed out in small portions, each to the lane that would have it done first.
fn share_by_simulation(rest: u64, lanes: &[Pace], portion: u64) -> Vec<u64> {
    let mut given = vec![0u64; lanes.len()];
    let mut left = rest;
    while left > 0 {
        let n = portion.min(left);
        let done = |i: usize| {
            let busy =
                f64::max(lanes[i].rtt.as_micros() as f64 / 1e6, lanes[i].owed as f64 / lanes[i].rate as f64);
            busy + (given[i] + n) as f64 / lanes[i].rate as f64
        };
        let first = (0..lanes.len()).min_by(|&a, &b| done(a).total_cmp(&done(b))).expect("a lane");
        given[first] += n;
        left -= n;
    }
    given
}

fn shares(rest: u64, lanes: &[Pace]) -> Vec<u64> {
    (0..lanes.len())
        .map(|me| {
            let others = lanes.iter().enumerate().filter(move |(i, _)| *i != me).map(|(_, pace)| *pace);
            share(rest, lanes[me], others)
        })
        .collect()
}

proptest! {
    #[test]
    fn shares_let_all_lanes_finish_together(
        rest in 1..8u64 << 20,
        lanes in proptest::collection::vec(pace(), 1..10),
    ) {
        let portion = (rest / 3_000).max(16);
        let expected = share_by_simulation(rest, &lanes, portion);
        let got = shares(rest, &lanes);
        // Times are whole microseconds: each lane's debt is off by what it brings in one, and so is the finish.
        let sum: u64 = lanes.iter().map(|l| l.rate).sum();
        for (i, lane) in lanes.iter().enumerate() {
            let off = 2 * portion + 4 * (sum / 1_000_000 + lane.rate / 1_000_000 + lanes.len() as u64 + 1);
            prop_assert!(
                got[i].abs_diff(expected[i]) <= off,
                "lane {i}: {} by formula, {} by simulation, of {rest} over {lanes:?}", got[i], expected[i]
            );
        }
        let slack = lanes.len() as u64 * (4 * (sum / 1_000_000 + 1) + lanes.len() as u64);
        let total: u64 = got.iter().sum();
        prop_assert!(total.abs_diff(rest) <= slack, "{total} of {rest} handed out");
    }

    #[test]
    fn nothing_overflows(
        rest in any::<u64>(),
        window in any::<u64>(),
        mark in any::<u64>(),
        lanes in proptest::collection::vec(any_pace(), 1..6),
    ) {
        for mine in shares(rest, &lanes) {
            prop_assert!(mine <= rest);
        }
        let pool = Pool::of(lanes.iter().copied());
        let chunk = pool.chunk_time(window);
        prop_assert!((25_000..=100_000).contains(&chunk.as_micros()));
        let portion = pool.portion_time(window);
        prop_assert!((5_000..=50_000).contains(&portion.as_micros()));
        for lane in &lanes {
            lane.wants_more(mark);
            pool.is_held_up_by(*lane, lanes[0], window);
        }
    }

    #[test]
    fn a_lane_wants_more_as_rule_1_says(lane in pace(), mark in 0..256u64 << 10) {
        let time = u128::from(lane.rtt.as_micros()) + 20_000;
        let cover = time * u128::from(lane.rate) / 1_000_000 + u128::from(mark);
        prop_assert_eq!(lane.wants_more(mark), u128::from(lane.owed) < cover);
        let busy = (u128::from(lane.owed) * 1_000_000 / u128::from(lane.rate)).max(lane.rtt.as_micros().into());
        prop_assert_eq!(u128::from(lane.busy().as_micros()), busy);
    }

    #[test]
    fn a_pool_is_its_lanes_taken_together(
        lanes in proptest::collection::vec(pace(), 1..32),
        window in 64u64 << 10..16 << 20,
    ) {
        let pool = Pool::of(lanes.iter().copied());
        let rate: u128 = lanes.iter().map(|l| u128::from(l.rate)).sum();
        let weighted: u128 = lanes.iter().map(|l| u128::from(l.rate) * u128::from(l.rtt.as_micros())).sum();
        prop_assert_eq!(u128::from(pool.rate), rate);
        prop_assert_eq!(u128::from(pool.rtt.as_micros()), weighted / rate);
        let slack = (u128::from(window) * 1_000_000 / rate).saturating_sub(weighted / rate);
        let chunk = pool.chunk_time(window).as_micros();
        prop_assert_eq!(u128::from(chunk), (slack * 3 / 5).clamp(25_000, 100_000));
        let portion = pool.portion_time(window).as_micros();
        prop_assert_eq!(u128::from(portion), (slack / 4).clamp(5_000, 50_000));
    }

    #[test]
    fn a_lane_is_let_go_as_rule_8_says(
        lane in pace(),
        fastest in pace(),
        others in proptest::collection::vec(pace(), 1..8),
        window in 64u64 << 10..16 << 20,
    ) {
        let pool = Pool::of(others.iter().copied());
        let takes = |l: &Pace| SLOT * 1_000_000 / l.rate + l.rtt.as_micros();
        let spare = (window * 1_000_000 / pool.rate).saturating_sub(pool.rtt.as_micros());
        let expected = takes(&lane) > spare * 3 / 2 && takes(&lane) > 3 * takes(&fastest);
        prop_assert_eq!(pool.is_held_up_by(lane, fastest, window), expected);
    }

    #[test]
    fn time_and_bytes_are_inverse(bytes in 0..1u64 << 40, rate in 1..125_000_000u64) {
        let back = bytes_in(time_for(bytes, rate), rate);
        prop_assert!(back <= bytes && bytes - back <= rate / 1_000_000 + 1);
    }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    /// The client gets so many slots.
    Deliver(u64),
    Advance(u64),
    /// The slot so far from the client's.
    Lose(u64),
    /// Likewise.
    Settle(u64),
    /// A slot so far behind the client's that its place in memory is another one's by now.
    SettleLong(u64),
    /// The first run of so many, of those slots whose bit is set.
    First(u64, u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        1 => (0..4u64).prop_map(Step::Deliver),
        2 => (0..6u64).prop_map(Step::Advance),
        4 => (0..SLOTS as u64).prop_map(Step::Lose),
        2 => (0..SLOTS as u64 + 4).prop_map(Step::Settle),
        1 => (1..3 * SLOTS as u64).prop_map(Step::SettleLong),
        3 => (1..8u64, any::<u64>()).prop_map(|(most, mask)| Step::First(most, mask | mask.rotate_left(7))),
    ]
}

proptest! {
    #[test]
    fn unassigned_behaves_like_a_naive_set(
        first in 0..100u64,
        count in 1..80u64,
        steps in proptest::collection::vec(step(), 1..300),
    ) {
        let end = first + count;
        let mut todo: Unassigned<SLOTS> = Unassigned::new(first, end);
        let mut naive: BTreeSet<u64> = (first..end).collect();
        let (mut next, mut frontier) = (first, first);
        for step in steps {
            match step {
                Step::Deliver(n) => {
                    let till = (next + n).min(frontier);
                    (next..till).for_each(|i| {
                        todo.settle(i);
                        naive.remove(&i);
                    });
                    next = till;
                }
                Step::Advance(n) => {
                    let n = n.min(next + SLOTS as u64 - frontier);
                    let got = todo.advance(n);
                    prop_assert_eq!(&got, &(frontier..(frontier + n).min(end)));
                    got.clone().for_each(|i| { naive.remove(&i); });
                    frontier = got.end;
                }
                Step::Lose(ahead) => {
                    todo.lose(next + ahead);
                    if next + ahead < frontier {
                        naive.insert(next + ahead);
                    }
                }
                Step::Settle(ahead) => {
                    todo.settle(next + ahead);
                    if next + ahead < frontier {
                        naive.remove(&(next + ahead));
                    }
                }
                Step::SettleLong(behind) => {
                    if let Some(index) = next.checked_sub(behind) {
                        todo.settle(index);
                    }
                }
                Step::First(most, mask) => {
                    let wanted = |i: u64| mask >> (i % 64) & 1 == 1;
                    let lost = |i: &u64| naive.contains(i) && wanted(*i);
                    let expected = (next..frontier).find(lost).map(|start| {
                        start..(start..frontier).take(most as usize).take_while(lost).last().unwrap_or(start) + 1
                    });
                    prop_assert_eq!(todo.first_lost(next, most, wanted), expected);
                }
            }
            prop_assert_eq!(todo.frontier(), frontier);
            prop_assert_eq!(todo.len(), naive.len() as u64);
            prop_assert_eq!(todo.is_empty(), naive.is_empty());
            prop_assert_eq!(todo.lost(), naive.range(..frontier).count() as u64);
            for index in next..end {
                prop_assert_eq!(todo.is_lost(index), index < frontier && naive.contains(&index));
            }
        }
    }
}
