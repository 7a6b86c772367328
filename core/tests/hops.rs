//! How far a session may go, and what is promised.

use bamqp_core::hops::{DEFAULT_MAX_HOPS, Part, Promise, may_pass_on, may_take};
use bamqp_core::message::reason::DeclineReason;

#[test]
fn peers_and_their_peers_work_and_nobody_further_away() {
    // The coordinator's INIT says 0, its peer's 1.
    assert!(may_take(0, DEFAULT_MAX_HOPS) && may_pass_on(0, DEFAULT_MAX_HOPS));
    assert!(may_take(1, DEFAULT_MAX_HOPS) && !may_pass_on(1, DEFAULT_MAX_HOPS));
    assert!(!may_take(2, DEFAULT_MAX_HOPS));
    assert!(may_take(0, 1) && !may_pass_on(0, 1));
    assert!(!may_take(0, 0));
    assert!(!may_pass_on(u8::MAX, u8::MAX));
}

#[test]
fn what_is_not_known_counts_for_nothing() {
    let of = |promise: Promise, own, peers: &[u64]| promise.of(own, peers.iter().copied());
    assert_eq!(of(Promise::Own, 5, &[20, 20]), 5);
    assert_eq!(of(Promise::Average, 5, &[20, 20]), 15);
    assert_eq!(of(Promise::Sum, 5, &[20, 20]), 45);
    assert_eq!(of(Promise::Average, 5, &[0, 15]), 10);
    assert_eq!(of(Promise::Sum, 0, &[]), 0);
    assert_eq!(of(Promise::Average, 0, &[]), 0);
    assert_eq!(of(Promise::Sum, u64::MAX, &[1]), u64::MAX);
}

#[test]
fn nobody_works_for_two_others_or_for_itself() {
    let duplicate = Err(DeclineReason::DuplicateSession);
    let too_far = Err(DeclineReason::TooManyHops);
    assert_eq!(Part::None.answer(&'A', 0, 2), Ok(()));
    assert_eq!(Part::None.answer(&'A', 2, 2), too_far);
    let part = Part::WorksFor { coordinator: 'A', hops: 1 };
    assert_eq!(part.answer(&'A', 1, 2), Ok(()), "its connection was lost");
    assert_eq!(part.answer(&'B', 1, 2), duplicate);
    assert_eq!(part.answer(&'A', 0, 2), duplicate, "another way than before");
    assert_eq!(part.answer(&'A', 1, 1), too_far, "the owner has changed it since");
    assert_eq!(Part::Asks.answer(&'A', 0, 2), duplicate);
}
