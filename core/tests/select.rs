//! Which peers are asked, and why not the others.

use bamqp_core::select::{
    Candidate, Download, MAX_PEERS, PROBATION_SHARE, Skipped, Verdict, may_ask, select,
};
use bamqp_core::time::{Instant, Span};
use bamqp_core::trust::{HALF_DAY, ONE, Standing, Violation};
use proptest::prelude::*;

const NOW: Instant = Instant::from_micros(1_000_000);
const TRUSTED: Standing = Standing::Trusted { accused: false };
const NEWCOMER: Standing = Standing::Newcomer { clean: 0 };
const BARRED: Standing = Standing::Barred { why: Violation::Lie, left: 1 };
const UNTRUSTED: Standing = Standing::Untrusted { left: HALF_DAY };

/// One where everybody's help is welcome.
const LARGE: Download = Download { own_rate: 0, rest: u64::MAX, draw: 0 };

fn peer(rate: u64) -> Candidate {
    Candidate {
        is_up: true,
        standing: TRUSTED,
        rate,
        is_fresh: false,
        reliability: ONE,
        rtt: Span::from_millis(1),
        losses: 0,
        not_before: None,
    }
}

/// The chosen places, and the verdict on each; each is told once.
fn choose(download: &Download, candidates: &[Candidate], most: usize) -> (Vec<usize>, Vec<Verdict>) {
    let mut verdicts = vec![None; candidates.len()];
    let picked = select(NOW, download, candidates, most, |place, verdict| {
        assert_eq!(verdicts[place].replace(verdict), None);
    });
    (picked.to_vec(), verdicts.into_iter().map(|verdict| verdict.expect("a verdict on each")).collect())
}

fn skipped(why: Skipped) -> Verdict {
    Verdict::Skipped(why)
}

#[test]
fn each_refusal_has_its_reason() {
    assert_eq!(may_ask(NOW, &peer(1)), Ok(()));
    assert_eq!(may_ask(NOW, &Candidate { standing: NEWCOMER, ..peer(1) }), Ok(()));
    assert_eq!(may_ask(NOW, &Candidate { is_up: false, ..peer(1) }), Err(Skipped::Down));
    let barred = Candidate { is_up: false, standing: BARRED, ..peer(1) };
    assert_eq!(may_ask(NOW, &barred), Err(Skipped::Barred(Violation::Lie)), "the weightier reason");
    assert_eq!(may_ask(NOW, &Candidate { standing: UNTRUSTED, ..peer(1) }), Err(Skipped::Untrusted));
    let later = NOW + Span::from_millis(1);
    assert_eq!(
        may_ask(NOW, &Candidate { not_before: Some(later), ..peer(1) }),
        Err(Skipped::NotBefore(later))
    );
    assert_eq!(may_ask(NOW, &Candidate { not_before: Some(NOW), ..peer(1) }), Ok(()));
}

#[test]
fn whom_we_do_not_trust_is_never_picked_however_fast() {
    let fast = |standing| Candidate { standing, ..peer(u64::MAX) };
    let (picked, verdicts) = choose(&LARGE, &[fast(UNTRUSTED), peer(1), fast(BARRED)], 9);
    assert_eq!(picked, [1]);
    assert_eq!(
        verdicts,
        [skipped(Skipped::Untrusted), Verdict::Asked, skipped(Skipped::Barred(Violation::Lie))]
    );
    assert!(choose(&LARGE, &[fast(UNTRUSTED), fast(BARRED)], 9).0.is_empty(), "not even for want of others");
}

#[test]
fn where_nobody_is_trusted_newcomers_are_asked_at_once() {
    let newcomer = Candidate { standing: NEWCOMER, ..peer(5) };
    for draw in 0..9 {
        let download = Download { draw, ..LARGE };
        let down = Candidate { is_up: false, ..peer(9) };
        let (picked, _) = choose(&download, &[newcomer, down, newcomer, newcomer], 9);
        assert_eq!(picked, [0, 2, 3]);
    }
}

#[test]
fn beside_trusted_peers_newcomers_take_turns() {
    let newcomer = Candidate { standing: NEWCOMER, ..peer(9) };
    let candidates = [newcomer, peer(5), newcomer, newcomer];
    let mut counts = [0; 4];
    for draw in 0..4 * PROBATION_SHARE {
        let (picked, verdicts) = choose(&Download { draw, ..LARGE }, &candidates, 9);
        assert!(picked.len() <= 2);
        picked.iter().for_each(|place| counts[*place] += 1);
        for place in [0, 2, 3].into_iter().filter(|place| !picked.contains(place)) {
            assert_eq!(verdicts[place], skipped(Skipped::Probation));
        }
    }
    assert_eq!(counts, [4, 16, 4, 4]);
}

#[test]
fn rate_reliability_and_distance_count_together() {
    let shaky = Candidate { reliability: ONE / 2, ..peer(190_000) };
    let far = Candidate { rtt: Span::from_millis(101), ..peer(190_000) };
    let lossy = Candidate { losses: 7, ..peer(100_000) };
    let (picked, _) = choose(&LARGE, &[shaky, lossy, peer(0), far, peer(100_000), peer(120_000)], 9);
    assert_eq!(picked, [5, 4, 1, 3, 0, 2], "the unknown one comes last");
}

#[test]
fn help_that_is_not_worth_its_cost_is_left_out_but_not_for_good() {
    let download = Download { own_rate: 2_000_000, rest: 64 << 20, draw: 0 };
    let slow = Candidate { is_fresh: true, ..peer(10_000) };
    assert_eq!(choose(&download, &[slow], 9).1, [skipped(Skipped::TooSlow)]);
    assert_eq!(choose(&download, &[Candidate { is_fresh: false, ..slow }], 9).1, [Verdict::Asked]);
    assert_eq!(choose(&Download { own_rate: 0, ..download }, &[slow], 9).1, [Verdict::Asked]);
    assert_eq!(choose(&download, &[peer(0)], 9).1, [Verdict::Asked], "nobody knows yet");
    // 100 KB take 50 ms alone; its first slot would take 160.
    let short = Download { rest: 100_000, ..download };
    let late = peer(100_000);
    assert_eq!(choose(&short, &[late], 9).1, [skipped(Skipped::TooLate)]);
    assert_eq!(choose(&download, &[late], 9).1, [Verdict::Asked]);
    // Beside better ones, too.
    let (picked, verdicts) =
        choose(&download, &[peer(20_000_000), Candidate { is_fresh: true, ..peer(100_000) }], 9);
    assert_eq!((picked, verdicts[1]), (vec![0], skipped(Skipped::TooSlow)));
}

#[test]
fn a_peer_that_promises_everything_keeps_nobody_out() {
    let download = Download { own_rate: 2_000_000, rest: 64 << 20, draw: 0 };
    let liar = peer(u64::MAX / 8);
    let honest = Candidate { is_fresh: true, ..peer(1_000_000) };
    assert_eq!(choose(&download, &[liar, honest, honest], 9).0, [0, 1, 2]);
    // What was measured counts in full.
    let fast = Candidate { is_fresh: true, ..peer(1_000_000_000) };
    assert_eq!(choose(&download, &[fast, honest], 9).1[1], skipped(Skipped::TooSlow));
}

#[test]
fn reasons_are_words() {
    let all = [
        Skipped::Down,
        Skipped::Barred(Violation::Protocol),
        Skipped::Untrusted,
        Skipped::NotBefore(NOW),
        Skipped::Probation,
        Skipped::TooLate,
        Skipped::TooSlow,
        Skipped::Full,
    ];
    let texts: std::collections::BTreeSet<_> = all.iter().map(|why| skipped(*why).to_string()).collect();
    assert_eq!(texts.len(), all.len());
    assert!(texts.iter().all(|text| text.starts_with("not asked: ")), "{texts:?}");
}

proptest! {
    #[test]
    fn the_best_that_may_be_asked_are_picked(
        peers in prop::collection::vec((0u64..50, 0u64..5, 0u8..4, any::<bool>(), any::<bool>()), 0..100),
        most in 0usize..40,
    ) {
        let candidates: Vec<Candidate> = peers
            .iter()
            .map(|&(rate, rtt, standing, is_up, later)| Candidate {
                is_up,
                standing: [TRUSTED, TRUSTED, BARRED, UNTRUSTED][usize::from(standing)],
                rate: rate * 1_000_000,
                rtt: Span::from_millis(rtt),
                not_before: later.then_some(NOW + Span::from_millis(5)),
                ..peer(0)
            })
            .collect();
        let (picked, verdicts) = choose(&LARGE, &candidates, most);
        let mut naive: Vec<usize> = (0..candidates.len()).filter(|&i| may_ask(NOW, &candidates[i]).is_ok()).collect();
        let bring = |i: usize| candidates[i].rate * 100_000 / (100_000 + candidates[i].rtt.as_micros());
        naive.sort_by_key(|&i| (std::cmp::Reverse(bring(i)), candidates[i].rtt));
        naive.truncate(most.min(MAX_PEERS));
        prop_assert_eq!(&picked, &naive);
        for (place, verdict) in verdicts.into_iter().enumerate() {
            let expected = match may_ask(NOW, &candidates[place]) {
                Err(why) => skipped(why),
                Ok(()) if naive.contains(&place) => Verdict::Asked,
                Ok(()) => skipped(Skipped::Full),
            };
            prop_assert_eq!(verdict, expected);
        }
    }
}
