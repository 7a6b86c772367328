//! What is spare of a line: a household that wakes up, one that uses a little, lines that nobody has measured; and the bucket
//! and the streams against naive reckoning.

use bamqp_core::spare::bucket::{Bucket, Grant};
use bamqp_core::spare::stream::{Counters, Progress, Stream, payload};
use bamqp_core::spare::{FIRST_PAUSE, LONGEST_PAUSE, Offer, Sample, Spare, State, Terms};
use bamqp_core::time::{Instant, Span};
use proptest::prelude::*;

/// 20 Mbit/s.
const LINE: u64 = 2_500_000;
const STEP: Span = Span::from_millis(100);

/// A line with a household and neighbours, in steps of a tenth of a second.
struct Line {
    spare: Spare,
    now: Instant,
}

impl Line {
    fn new(terms: Terms) -> Line {
        let mut line = Line { spare: Spare::new(terms), now: Instant::from_micros(1) };
        line.spare.sample(line.now, Sample { total: 0, ours: 0, stray: 0 });
        line
    }

    fn known() -> Line {
        Line::new(Terms { line: LINE, ..Terms::default() })
    }

    /// The household and the neighbours have these rates for one step.
    fn step(&mut self, household: u64, ours: u64) -> State {
        self.step_with(household, ours, 0)
    }

    fn step_with(&mut self, household: u64, ours: u64, stray: u64) -> State {
        self.now = self.now + STEP;
        let bytes = |rate: u64| rate * STEP.as_micros() / 1_000_000;
        self.spare.sample(self.now, Sample { total: bytes(household + ours), ours: bytes(ours), stray });
        self.spare.state()
    }

    fn steps(&mut self, count: usize, household: u64, ours: u64) -> State {
        (0..count).map(|_| self.step(household, ours)).last().unwrap()
    }

    fn offer(&self) -> Offer {
        self.spare.offer(self.now)
    }

    /// Neighbours take all that they get, of what the household leaves of the line.
    fn steps_while_helping(&mut self, count: usize, household: u64) -> State {
        let mut state = self.spare.state();
        for _ in 0..count {
            let left = LINE - household;
            let ours = match self.offer() {
                Offer::Open { pace, .. } => pace.unwrap_or(left).min(left),
                Offer::Withdrawn { .. } => 0,
            };
            state = self.step(household, ours);
        }
        state
    }

    /// How many steps until the household has the line for itself.
    fn wakes_up(&mut self, rates: &[u64]) -> usize {
        for (step, household) in rates.iter().enumerate() {
            if let State::Withdrawn { .. } = self.spare.state() {
                return step;
            }
            self.steps_while_helping(1, *household);
        }
        panic!("still helping: {:?}", self.spare);
    }
}

#[test]
fn an_idle_household_leaves_all_of_its_line_or_the_share_that_it_allows() {
    let mut line = Line::known();
    assert_eq!(line.steps_while_helping(100, 0), State::Offering);
    assert_eq!(line.offer(), Offer::Open { rate: LINE, pace: None });
    line.spare.set_terms(Terms { line: LINE, share: 50, floor: 0 });
    assert_eq!(line.offer(), Offer::Open { rate: LINE / 2, pace: Some(LINE / 2) });
}

#[test]
fn a_download_that_begins_as_a_trickle_beside_full_fetches_ends_them_within_a_few_tenths() {
    // What TCP's slow start gets beside a connection that fills the line: first packets after two round trips.
    let mut line = Line::known();
    line.steps_while_helping(30, 0);
    let trickle = [0, 0, 145_000, 290_000, 580_000, 1_000_000, 1_200_000, 1_200_000];
    let steps = line.wakes_up(&trickle);
    assert!(steps <= 7, "{steps}");
    let Offer::Withdrawn { left } = line.offer() else { panic!("{:?}", line.offer()) };
    assert!(left <= FIRST_PAUSE && left >= Span::from_millis(4_000));
}

#[test]
fn at_the_first_sign_neighbours_are_slowed_down_and_a_page_that_was_loaded_does_not_end_their_fetches() {
    let mut line = Line::known();
    line.steps_while_helping(30, 0);
    assert!(matches!(line.step(300_000, LINE - 300_000), State::Yielding { from: 0, .. }));
    assert_eq!(line.offer(), Offer::Open { rate: LINE / 8, pace: Some(LINE / 8) });
    assert_eq!(line.steps_while_helping(10, 0), State::Offering);
    // A few packets are no sign at all.
    assert_eq!(line.steps_while_helping(50, 20_000), State::Offering);
}

#[test]
fn what_is_used_steadily_is_left_alone_with_room_to_grow() {
    let mut line = Line::known();
    line.steps_while_helping(30, 0);
    // A film: noticed, found not to want more, and from then on taken for granted.
    line.steps_while_helping(10, 280_000);
    assert_eq!(line.steps_while_helping(300, 280_000), State::Offering);
    let Offer::Open { pace: Some(pace), .. } = line.offer() else { panic!("{:?}", line.offer()) };
    assert!(pace + 280_000 + LINE / 20 < LINE && pace > LINE * 3 / 4, "{pace}");
    // It grows nevertheless.
    let steps = line.wakes_up(&[400_000, 600_000, 900_000, 1_500_000, 2_000_000, 2_300_000, 2_400_000]);
    assert!(steps <= 6, "{steps}");
}

#[test]
fn helping_begins_again_when_the_time_is_up_and_the_household_is_calm_and_not_before() {
    let mut line = Line::known();
    line.steps_while_helping(30, 0);
    line.wakes_up(&[LINE / 2; 10]);
    assert!(matches!(line.steps(200, LINE, 0), State::Withdrawn { .. }), "a long download");
    let Offer::Withdrawn { left } = line.offer() else { panic!() };
    assert_eq!(left, Span::from_millis(2_000), "it must be calm for as long");
    assert!(matches!(line.steps(19, 0, 0), State::Withdrawn { .. }));
    assert_eq!(line.steps(3, 0, 0), State::Offering);
    // It comes back at once, again and again: each pause is twice as long, up to a minute.
    let mut pauses = Vec::new();
    for _ in 0..6 {
        line.steps_while_helping(5, 0);
        line.wakes_up(&[LINE / 2; 10]);
        let mut steps = 0u64;
        while line.spare.state() != State::Offering {
            line.step(0, 0);
            steps += 1;
        }
        pauses.push(steps.div_ceil(10) * 1000);
    }
    let least = FIRST_PAUSE.as_millis();
    assert!(pauses.is_sorted() && pauses[0] >= 2 * least, "{pauses:?}");
    assert!(pauses[5].abs_diff(LONGEST_PAUSE.as_millis()) <= 1000, "{pauses:?}");
    // After a rest it is as at first.
    line.steps(400, 0, 0);
    line.wakes_up(&[LINE; 10]);
    let Offer::Withdrawn { left } = line.offer() else { panic!() };
    assert!(left <= FIRST_PAUSE, "{left:?}");
}

#[test]
fn a_household_that_is_busy_already_is_not_joined() {
    let mut line = Line::known();
    assert!(matches!(line.steps(10, LINE, 0), State::Withdrawn { .. }));
    // Also where nobody knows the line: it uses much, and more was never seen.
    let mut line = Line::new(Terms::default());
    assert!(matches!(line.steps(30, LINE, 0), State::Withdrawn { .. }));
    // One that plays a film over an unknown line is not taken for busy.
    let mut line = Line::new(Terms::default());
    assert_eq!(line.steps(100, 250_000, 0), State::Offering);
    assert_eq!(line.offer(), Offer::Open { rate: 0, pace: None });
}

#[test]
fn what_a_line_carries_shows_when_fetches_fill_it() {
    let mut line = Line::new(Terms::default());
    // Little is asked of a line, which says nothing.
    line.steps(50, 10_000, 0);
    assert_eq!(line.spare.capacity(), 0);
    line.steps(25, 0, LINE);
    assert!(line.spare.capacity().abs_diff(LINE) < LINE / 50, "{}", line.spare.capacity());
    // It becomes faster at once, slower by and by, and an idle one stays as it is.
    line.steps(25, 0, 2 * LINE);
    assert!(line.spare.capacity() > LINE * 19 / 10);
    line.steps(1_000, 0, 0);
    assert!(line.spare.capacity() > LINE * 19 / 10);
    line.steps(10_000, 0, LINE);
    assert!(line.spare.capacity() < LINE * 12 / 10, "{}", line.spare.capacity());
}

#[test]
fn a_line_of_which_a_share_is_given_is_tried_now_and_then() {
    let mut line = Line::new(Terms { line: 0, share: 50, floor: 0 });
    line.steps_while_helping(30, 0);
    assert_eq!(line.offer(), Offer::Open { rate: LINE / 2, pace: Some(LINE / 2) });
    // Within ten minutes of helping once, and not for long: then also that it became slower shows.
    let mut unpaced = 0;
    for _ in 0..7_000 {
        unpaced += u32::from(matches!(line.offer(), Offer::Open { pace: None, .. }));
        let ours = match line.offer() {
            Offer::Open { pace, .. } => pace.unwrap_or(LINE).min(LINE),
            Offer::Withdrawn { .. } => panic!("an idle household"),
        };
        line.step(0, ours);
    }
    assert!((1..=20).contains(&unpaced), "{unpaced}");
    assert!(line.spare.capacity().abs_diff(LINE) < LINE / 50);
}

#[test]
fn the_floor_is_for_neighbours_whatever_the_household_does() {
    let mut line = Line::new(Terms { line: LINE, share: 100, floor: 100_000 });
    line.steps_while_helping(30, 0);
    line.wakes_up(&[LINE / 2; 10]);
    assert_eq!(line.offer(), Offer::Open { rate: 100_000, pace: Some(100_000) });
}

#[test]
fn what_still_comes_on_a_closed_connection_is_nobodys_use() {
    let mut line = Line::known();
    line.steps_while_helping(30, 0);
    // 300 kB were on their way when the coordinator let go of a chunk.
    let state = line.step_with(1_500_000, 1_000_000, 300_000);
    assert_eq!((state, line.step(1_400_000, 1_100_000)), (State::Offering, State::Offering));
    // But no longer than that.
    assert!(matches!(line.step(1_400_000, 1_000_000), State::Yielding { .. }));
}

#[test]
fn counters_that_are_read_one_after_the_other_do_not_look_like_a_household() {
    let mut line = Line::known();
    line.steps_while_helping(30, 0);
    for n in 0..100 {
        line.now = line.now + STEP;
        // 30 kB are counted as fetched a step before they are counted as come.
        let (total, ours) = if n % 2 == 0 { (220_000, 250_000) } else { (280_000, 250_000) };
        line.spare.sample(line.now, Sample { total, ours, stray: 0 });
        assert_eq!(line.spare.state(), State::Offering, "{n}");
    }
    assert!(line.spare.household() < 1_000, "{}", line.spare.household());
}

#[test]
fn clocks_that_stand_still_or_jump_do_no_harm() {
    let mut line = Line::known();
    let sample = Sample { total: u64::MAX, ours: 1, stray: u64::MAX };
    line.spare.sample(line.now, sample);
    line.spare.sample(Instant::from_micros(0), sample);
    line.spare.sample(Instant::from_micros(u64::MAX), sample);
    let _ = line.offer();
}

#[test]
fn payload_is_what_packets_have_besides_their_heads() {
    let before = Counters { bytes: 1_000, packets: 10 };
    let after = Counters { bytes: 1_000 + 1514 * 100 + 66 * 50, packets: 160 };
    assert_eq!(payload(before, after), 1448 * 100);
    assert_eq!(payload(after, before), 0, "set back");
}

#[test]
fn what_came_out_of_order_is_counted_when_it_comes() {
    let mut stream = Stream::default();
    let at = |bytes: u64, segments: u64| Progress { bytes, segments: segments as u32 };
    assert_eq!(stream.advance(at(144_800, 100)), 144_800);
    // A segment is missing: 100 came behind it, and nothing in order.
    let out_of_order = stream.advance(at(144_800, 200));
    assert!(
        out_of_order.abs_diff(144_800 / 2) < 1_000 || out_of_order.abs_diff(144_800) < 1_000,
        "{out_of_order}"
    );
    // It was sent again.
    let rest = stream.advance(at(201 * 1_448, 201));
    assert!((out_of_order + rest).abs_diff(101 * 1_448) < 10_000, "{out_of_order} + {rest}");
}

proptest! {
    /// However the household behaves: nobody is told of more than there is, and who uses more than half is not joined.
    #[test]
    fn an_offer_never_exceeds_what_the_household_leaves(
        share in 1u8..=100,
        rates in prop::collection::vec(0u64..=LINE, 1..200),
        repeat in 1usize..20,
    ) {
        let mut line = Line::new(Terms { line: LINE, share, floor: 0 });
        for household in rates {
            line.steps_while_helping(repeat, household);
            let most = LINE * u64::from(share) / 100;
            if let Offer::Open { rate, pace } = line.offer() {
                prop_assert!(rate <= most && pace.unwrap_or(rate) <= most, "{rate} {pace:?}");
            }
            if repeat >= 10 && household > LINE * 6 / 10 {
                prop_assert!(matches!(line.offer(), Offer::Withdrawn { .. }), "{:?}", line.spare);
            }
        }
    }

    /// Against a list of all that was ever given out.
    #[test]
    fn a_bucket_gives_out_its_rate_and_hardly_more(
        rate in 10_000u64..20_000_000,
        waits in prop::collection::vec((0u64..30_000, 1u64..100_000), 10..300),
    ) {
        let mut bucket = Bucket::default();
        let start = Instant::from_micros(5);
        let mut now = start;
        bucket.set_rate(now, Some(rate));
        let mut given = 0u64;
        for (wait, wanted) in waits {
            now = now + Span::from_micros(wait);
            match bucket.ask(now, wanted) {
                Grant::Bytes(bytes) => {
                    prop_assert!((1..=wanted).contains(&bytes));
                    bucket.spend(bytes);
                    given += bytes;
                }
                Grant::NotBefore(at) => prop_assert!(at > now),
            }
            let most = rate * now.since(start).as_micros() / 1_000_000 + (rate / 10).max(16 * 1024);
            prop_assert!(given <= most, "{} of {}", given, most);
        }
        // Who always asks gets all of it.
        let (before, from) = (given, now);
        for _ in 0..10_000 {
            match bucket.ask(now, 32 * 1024) {
                Grant::Bytes(bytes) => {
                    bucket.spend(bytes);
                    given += bytes;
                }
                Grant::NotBefore(at) => now = at,
            }
        }
        let expected = rate * now.since(from).as_micros() / 1_000_000;
        prop_assert!(given - before + 64 * 1024 + 10_000 >= expected, "{} of {}", given - before, expected);
    }
}
