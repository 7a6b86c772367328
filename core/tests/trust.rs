//! Trust: T and U against floating point, standings, time that jumps.

use bamqp_core::limits::MAX_TRANSACTIONS;
use bamqp_core::message::Fingerprint;
use bamqp_core::trust::{Checking, Conduct, HALF_DAY, Moment, ONE, Record, Standing, Violation};
use proptest::prelude::*;

const HOUR: u32 = 3600;

fn good() -> Conduct {
    Conduct { requests: 20, bytes: 5_000_000, ..Conduct::default() }
}

fn lie() -> Conduct {
    Conduct { violation: Some(Violation::Lie), ..good() }
}

fn mismatch(origin: u32) -> Conduct {
    Conduct { mismatch: Some(origin), ..good() }
}

/// A router's clocks, as tests turn them.
#[derive(Clone, Copy, Debug)]
struct Clocks(Moment);

impl Clocks {
    fn new() -> Self {
        Self(Moment { boot: 1, uptime: 60, running: 50, clock: None })
    }

    fn pass(&mut self, seconds: u32) {
        self.0.uptime += seconds;
        self.0.running += seconds;
        self.0.clock = self.0.clock.map(|clock| clock + seconds);
    }

    /// Off for a while; what the clock says afterwards.
    fn reboot(&mut self, clock: Option<u32>) {
        self.0 = Moment { boot: self.0.boot + 1, uptime: 20, clock, ..self.0 };
    }
}

/// After `sessions` good ones, five minutes apart.
fn with_good(sessions: u32, clocks: &mut Clocks) -> Record {
    let mut record = Record::default();
    for _ in 0..sessions {
        clocks.pass(300);
        assert_eq!(record.add(clocks.0, &good()), None);
    }
    record
}

#[test]
fn a_newcomer_is_fully_checked_until_its_record_speaks() {
    let mut clocks = Clocks::new();
    let mut record = Record::default();
    for clean in 0..3 {
        let standing = record.standing(clocks.0);
        assert_eq!(standing, Standing::Newcomer { clean });
        assert_eq!(standing.checking(), Checking { places: 24, audit_per_10000: 100 });
        assert!(standing.is_acceptable());
        record.add(clocks.0, &good());
        clocks.pass(1);
    }
    let standing = record.standing(clocks.0);
    assert_eq!(standing, Standing::Trusted { accused: false });
    assert_eq!(standing.checking(), Checking { places: 4, audit_per_10000: 25 });
}

#[test]
fn what_is_no_clean_session_does_not_end_probation() {
    let (mut clocks, mut record) = (Clocks::new(), Record::default());
    for _ in 0..9 {
        // Nothing was asked; nothing came.
        record.add(clocks.0, &Conduct::default());
        record.add(clocks.0, &Conduct { requests: 1, timeouts: 1, ..Conduct::default() });
        clocks.pass(1);
    }
    assert_eq!(record.standing(clocks.0), Standing::Newcomer { clean: 0 });
    assert_eq!(record.scores(clocks.0).sums.sessions, 9);
}

#[test]
fn two_hundred_good_sessions_do_not_buy_one_lie() {
    let mut clocks = Clocks::new();
    let mut record = with_good(200, &mut clocks);
    assert_eq!(record.standing(clocks.0), Standing::Trusted { accused: false });
    assert_eq!(record.add(clocks.0, &lie()), Some(Violation::Lie));
    let scores = record.scores(clocks.0);
    assert!(scores.trust > 0 && scores.trust > scores.untrust, "the sums alone would trust it: {scores:?}");
    for _ in 0..HALF_DAY / 60 {
        let Standing::Barred { why, left } = record.standing(clocks.0) else { panic!("{clocks:?}") };
        assert!(why == Violation::Lie && left > 0);
        assert!(!record.standing(clocks.0).is_acceptable());
        clocks.pass(60);
    }
    assert_eq!(record.standing(clocks.0), Standing::Newcomer { clean: 0 });
    // It begins anew: nothing of what was before counts.
    record.add(clocks.0, &good());
    assert_eq!(record.standing(clocks.0), Standing::Newcomer { clean: 1 });
    assert_eq!(record.scores(clocks.0).sums.sessions, 1);
}

#[test]
fn a_bar_is_of_running_time_whatever_the_clock_says_and_however_often_the_router_starts() {
    let mut clocks = Clocks::new();
    clocks.0.clock = Some(1_000_000_000);
    let mut record = with_good(5, &mut clocks);
    record.add(clocks.0, &lie());
    for day in 0..11 {
        // Days of being switched off, and a clock that leaps ahead, do not count.
        clocks.reboot(Some(1_100_000_000 + day * 86_400));
        clocks.pass(HOUR);
        assert!(matches!(record.standing(clocks.0), Standing::Barred { .. }), "{clocks:?}");
    }
    clocks.reboot(Some(0)); // nor does one that was turned back
    assert_eq!(record.standing(clocks.0), Standing::Barred { why: Violation::Lie, left: HOUR });
    clocks.pass(HOUR);
    assert_eq!(record.standing(clocks.0), Standing::Newcomer { clean: 0 });
}

#[test]
fn another_violation_while_barred_begins_the_bar_anew() {
    let mut clocks = Clocks::new();
    let mut record = Record::default();
    record.add(clocks.0, &lie());
    clocks.pass(11 * HOUR);
    // A session that was under way.
    assert_eq!(record.add(clocks.0, &good()), None);
    assert_eq!(record.standing(clocks.0), Standing::Barred { why: Violation::Lie, left: HOUR });
    record.add(clocks.0, &Conduct { violation: Some(Violation::Protocol), ..good() });
    assert_eq!(record.standing(clocks.0), Standing::Barred { why: Violation::Protocol, left: HALF_DAY });
}

#[test]
fn sessions_count_fully_for_twelve_hours_and_a_quarter_afterwards() {
    let mut clocks = Clocks::new();
    let record = with_good(4, &mut clocks);
    clocks.pass(HALF_DAY - 900 - 1);
    assert_eq!(record.scores(clocks.0).trust, ONE);
    clocks.pass(1);
    assert_eq!(record.scores(clocks.0).trust, (3 * ONE + ONE / 4) / 4);
    clocks.pass(900);
    assert_eq!(record.scores(clocks.0).trust, ONE / 4);
    assert_eq!(record.scores(clocks.0).reliability, ONE, "how well it works is another question");
    assert_eq!(record.standing(clocks.0), Standing::Trusted { accused: false });
}

#[test]
fn earlier_boots_are_old_unless_the_clock_was_set_both_times() {
    let mut clocks = Clocks::new();
    clocks.0.clock = Some(1_700_000_000);
    let record = with_good(4, &mut clocks);
    let clock = clocks.0.clock.unwrap();
    for (after, trust) in [
        (None, ONE / 4),
        (Some(clock + HOUR), ONE),
        (Some(clock + HALF_DAY), ONE / 4),
        (Some(clock - 86_400), ONE / 4),      // turned back: nobody can tell
        (Some(clock + 400_000_000), ONE / 4), // years ahead
    ] {
        clocks.reboot(after);
        assert_eq!(record.scores(clocks.0).trust, trust, "{after:?}");
    }
    // Within a boot the clock may do what it likes.
    let mut clocks = Clocks::new();
    let record = with_good(4, &mut clocks);
    for clock in [None, Some(0), Some(u32::MAX)] {
        clocks.0.clock = clock;
        assert_eq!(record.scores(clocks.0).trust, ONE);
    }
}

#[test]
fn an_unreliable_peer_is_bad_help_but_no_reason_for_distrust() {
    let mut clocks = Clocks::new();
    let mut record = Record::default();
    for _ in 0..50 {
        clocks.pass(60);
        record.add(clocks.0, &Conduct { requests: 4, timeouts: 3, drops: 9, bytes: 1, ..Conduct::default() });
    }
    assert_eq!(record.standing(clocks.0), Standing::Trusted { accused: false });
    assert_eq!(record.scores(clocks.0).reliability, ONE / 4);
    let half = Conduct { requests: 10, timeouts: 2, drops: 3, bytes: 1, ..Conduct::default() };
    assert_eq!((half.satisfaction(), half.untrust()), (ONE / 2, 0));
}

#[test]
fn mismatches_without_a_witness_cost_trust_and_bar_at_the_third_origin() {
    let mut clocks = Clocks::new();
    let mut record = Record::default();
    assert_eq!(record.add(clocks.0, &mismatch(7)), None);
    assert_eq!(record.standing(clocks.0), Standing::Untrusted { left: HALF_DAY });
    assert!(!record.standing(clocks.0).is_acceptable());
    clocks.pass(HALF_DAY);
    assert_eq!(record.standing(clocks.0), Standing::Newcomer { clean: 0 });
    assert_eq!(record.add(clocks.0, &mismatch(7)), None, "the same origin");
    assert_eq!(record.add(clocks.0, &mismatch(8)), None);
    assert_eq!(record.add(clocks.0, &mismatch(9)), Some(Violation::Mismatches));
    assert!(matches!(record.standing(clocks.0), Standing::Barred { why: Violation::Mismatches, .. }));
    clocks.pass(HALF_DAY);
    assert_eq!(record.add(clocks.0, &mismatch(10)), None, "it begins anew");
}

#[test]
fn one_mismatch_among_good_sessions_only_raises_the_checking() {
    let mut clocks = Clocks::new();
    let mut record = with_good(5, &mut clocks);
    record.add(clocks.0, &mismatch(7));
    assert_eq!(record.standing(clocks.0), Standing::Trusted { accused: true });
    assert_eq!(record.standing(clocks.0).checking(), Checking::FULL);
}

#[test]
fn an_accusation_raises_the_checking_for_twelve_hours_and_nothing_else() {
    let mut clocks = Clocks::new();
    let mut record = with_good(5, &mut clocks);
    let before = record.scores(clocks.0);
    for _ in 0..1000 {
        record.accuse(clocks.0, Fingerprint([1; 16]));
    }
    assert_eq!(record.scores(clocks.0), before);
    assert_eq!(record.standing(clocks.0), Standing::Trusted { accused: true });
    assert_eq!(record.alert(clocks.0).unwrap().by, Some(Fingerprint([1; 16])));
    assert!(record.is_timed(clocks.0));
    clocks.pass(HALF_DAY - 1);
    assert_eq!(record.standing(clocks.0).checking(), Checking::FULL);
    clocks.pass(1);
    assert_eq!(record.standing(clocks.0).checking(), Checking::LIGHT);
    assert_eq!((record.alert(clocks.0), record.is_timed(clocks.0)), (None, false));
    // A newcomer stays one.
    let mut newcomer = Record::default();
    newcomer.accuse(clocks.0, Fingerprint([1; 16]));
    assert_eq!(newcomer.standing(clocks.0), Standing::Newcomer { clean: 0 });
}

/// T and U as DESIGN section 7 writes them, over everything that ever happened. What was found to be old within its boot
/// stays old (`true`), even if the clock is turned back later.
fn oracle(all: &[(Moment, Conduct, bool)], now: Moment) -> (f64, f64) {
    let (mut trust, mut untrust) = (0.0, 0.0);
    for (at, conduct, is_old) in all {
        let age = if at.boot == now.boot {
            Some(f64::from(now.uptime) - f64::from(at.uptime))
        } else {
            at.clock.zip(now.clock).map(|(then, now)| f64::from(now) - f64::from(then))
        };
        let weight =
            if !is_old && age.is_some_and(|age| (0.0..43_200.0).contains(&age)) { 1.0 } else { 0.25 };
        if conduct.mismatch.is_some() {
            untrust += weight;
        } else {
            let failed = f64::from(conduct.timeouts + conduct.drops) / f64::from(conduct.requests);
            trust += weight * (1.0 - failed).max(0.25);
        }
    }
    let count = all.len().max(1) as f64;
    (trust / count, untrust / count)
}

#[derive(Clone, Debug)]
enum Step {
    Session(Conduct),
    Pass(u32),
    Reboot(Option<u32>),
    Clock(Option<u32>),
}

fn step() -> impl Strategy<Value = Step> {
    let conduct = (1u32..50, 0u32..9, 0u32..9, 1u64..1_000_000, prop::option::weighted(0.3, Just(5)));
    let conduct = conduct.prop_map(|(requests, timeouts, drops, bytes, mismatch)| Conduct {
        requests,
        timeouts,
        drops,
        withdrawals: 0,
        bytes,
        violation: None,
        mismatch,
    });
    let clock = prop::option::of(1_700_000_000u32..1_700_500_000);
    prop_oneof![
        6 => conduct.prop_map(Step::Session),
        4 => (0u32..8 * HOUR).prop_map(Step::Pass),
        1 => clock.clone().prop_map(Step::Reboot),
        1 => clock.prop_map(Step::Clock),
    ]
}

proptest! {
    #[test]
    fn trust_is_what_the_formula_says(steps in prop::collection::vec(step(), 0..MAX_TRANSACTIONS)) {
        let (mut clocks, mut record, mut all) = (Clocks::new(), Record::default(), Vec::new());
        for step in steps {
            match step {
                Step::Session(conduct) => {
                    let (trust, untrust) = oracle(&all, clocks.0);
                    if clocks.0.running - record.last >= HALF_DAY {
                        if (trust - untrust).abs() < 0.003 {
                            break; // rounding decides whether it is a newcomer again
                        } else if trust < untrust {
                            all.clear();
                        }
                    }
                    record.add(clocks.0, &conduct);
                    for (at, _, is_old) in &mut all {
                        *is_old |= at.boot == clocks.0.boot && clocks.0.uptime - at.uptime >= HALF_DAY;
                    }
                    all.push((clocks.0, conduct, false));
                }
                Step::Pass(seconds) => clocks.pass(seconds),
                Step::Reboot(clock) => clocks.reboot(clock),
                Step::Clock(clock) => clocks.0.clock = clock,
            }
            let (trust, untrust) = oracle(&all, clocks.0);
            let scores = record.scores(clocks.0);
            prop_assert!((f64::from(scores.trust) / 1000.0 - trust).abs() < 0.003, "{scores:?}, not {trust}");
            prop_assert!((f64::from(scores.untrust) / 1000.0 - untrust).abs() < 0.003, "{scores:?}, not {untrust}");
            prop_assert_eq!(scores.sums.sessions as usize, all.len());
            if (trust - untrust).abs() > 0.003 {
                let is_fine = all.is_empty() || trust > untrust;
                let standing = record.standing(clocks.0);
                let spent = clocks.0.running - record.last >= HALF_DAY;
                prop_assert_eq!(standing.is_acceptable(), is_fine || spent, "{:?}", standing);
            }
        }
    }

    #[test]
    fn nothing_is_forgotten_however_many_sessions_there_are(
        gaps in prop::collection::vec((0u32..2 * HOUR, any::<bool>()), 0..300),
    ) {
        let (mut clocks, mut record) = (Clocks::new(), Record::default());
        let mut times = Vec::new();
        for &(gap, is_busy) in &gaps {
            clocks.pass(if is_busy { gap / 100 } else { gap });
            record.add(clocks.0, &good());
            times.push(clocks.0.uptime);
        }
        let scores = record.scores(clocks.0);
        prop_assert_eq!(scores.sums.sessions as usize, gaps.len());
        prop_assert_eq!(scores.sums.satisfaction as usize, gaps.len() * 1000);
        prop_assert_eq!(scores.sums.bytes, gaps.len() as u64 * good().bytes);
        prop_assert!(record.recent.windows(2).all(|pair| pair[0].at.uptime <= pair[1].at.uptime));
        if !gaps.is_empty() {
            // Joined, they are as young as the youngest, at most as many as fit into twelve hours more.
            let recent = times.iter().filter(|time| clocks.0.uptime - **time < HALF_DAY).count();
            let exact = 1000.0 * (recent as f64 + (gaps.len() - recent) as f64 / 4.0) / gaps.len() as f64;
            prop_assert!(f64::from(scores.trust) >= exact.floor());
        }
    }
}

#[test]
fn a_peer_whose_household_comes_first_is_no_worse_for_it() {
    let mut clocks = Clocks::new();
    let withdrew = Conduct { withdrawals: 3, ..good() };
    assert_eq!((withdrew.satisfaction(), withdrew.untrust()), (good().satisfaction(), 0));
    let mut record = Record::default();
    for _ in 0..3 {
        clocks.pass(300);
        assert_eq!(record.add(clocks.0, &withdrew), None);
    }
    assert_eq!(record.standing(clocks.0), Standing::Trusted { accused: false });
    // But it is recorded.
    assert_eq!((record.scores(clocks.0).sums.drops, record.scores(clocks.0).sums.clean), (9, 3));
}
