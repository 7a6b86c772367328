//! Which peers are asked.

use bamqp_core::select::{Candidate, MAX_PEERS, Skipped, may_ask, select};
use bamqp_core::time::{Instant, Span};
use proptest::prelude::*;

const NOW: Instant = Instant::from_micros(1_000_000);

fn peer(rate: u64) -> Candidate {
    Candidate { is_up: true, rate, rtt: Span::from_millis(1), not_before: None }
}

#[test]
fn each_refusal_has_its_reason() {
    assert_eq!(may_ask(NOW, &peer(1)), Ok(()));
    assert_eq!(may_ask(NOW, &Candidate { is_up: false, ..peer(1) }), Err(Skipped::Down));
    let later = NOW + Span::from_millis(1);
    assert_eq!(
        may_ask(NOW, &Candidate { not_before: Some(later), ..peer(1) }),
        Err(Skipped::NotBefore(later))
    );
    assert_eq!(may_ask(NOW, &Candidate { not_before: Some(NOW), ..peer(1) }), Ok(()));
}

#[test]
fn of_equally_fast_ones_the_nearest_comes_first_and_the_unknown_last() {
    let far = Candidate { rtt: Span::from_millis(9), ..peer(5) };
    assert_eq!(select(NOW, &[peer(0), far, peer(5), peer(7)], 9).as_slice(), [3, 2, 1, 0]);
}

proptest! {
    #[test]
    fn the_fastest_that_may_be_asked_are_picked(
        peers in prop::collection::vec((0u64..50, 0u64..5, any::<bool>(), any::<bool>()), 0..100),
        most in 0usize..40,
    ) {
        let candidates: Vec<Candidate> = peers
            .iter()
            .map(|&(rate, rtt, is_up, later)| Candidate {
                is_up,
                rate,
                rtt: Span::from_millis(rtt),
                not_before: later.then_some(NOW + Span::from_millis(5)),
            })
            .collect();
        let picked = select(NOW, &candidates, most);
        let mut naive: Vec<usize> = (0..candidates.len()).filter(|&i| may_ask(NOW, &candidates[i]).is_ok()).collect();
        naive.sort_by_key(|&i| (std::cmp::Reverse(candidates[i].rate), candidates[i].rtt));
        naive.truncate(most.min(MAX_PEERS));
        prop_assert_eq!(picked.as_slice(), naive);
    }
}
