//! Days and months of quotas, with clocks that are set, unset and wrong.

use bamqp_core::quota::{Length, Now, Period};
use proptest::prelude::*;

const DAY: u64 = 86_400;
/// 2026-02-27T12:00:00, after 1970-01-01.
const FEBRUARY: u64 = 1_772_193_600;

fn at(running: u32, local: u64) -> Now {
    Now { running, local: Some(local) }
}

fn unset(running: u32) -> Now {
    Now { running, local: None }
}

#[test]
fn a_day_ends_at_midnight_and_a_month_with_its_last_day() {
    let (mut day, mut month) =
        (Period::new(Length::Day, at(0, FEBRUARY)), Period::new(Length::Month, at(0, FEBRUARY)));
    for period in [&mut day, &mut month] {
        period.add(100, at(0, FEBRUARY));
        assert_eq!(period.check(101, at(0, FEBRUARY)), Ok(()));
    }
    assert_eq!(day.check(100, at(0, FEBRUARY)), Err(12 * 3600));
    // The 28th is the last one.
    assert_eq!(month.check(100, at(0, FEBRUARY)), Err(36 * 3600));
    let midnight = FEBRUARY + DAY / 2;
    assert_eq!(day.check(100, at(0, midnight - 1)), Err(1));
    assert_eq!(day.check(100, at(0, midnight)), Ok(()));
    assert_eq!(month.check(100, at(0, midnight + DAY - 1)), Err(1));
    assert_eq!(month.check(100, at(0, midnight + DAY)), Ok(()));
    assert_eq!((day.used, month.used), (0, 0));
}

#[test]
fn without_a_clock_running_time_counts_over_reboots() {
    let mut day = Period::new(Length::Day, unset(1_000));
    day.add(100, unset(2_000));
    assert_eq!(day.check(100, unset(2_000)), Err(86_400 - 1_000));
    assert_eq!(day.check(100, unset(1_000 + 86_400 - 1)), Err(1));
    assert_eq!(day.check(100, unset(1_000 + 86_400)), Ok(()));
}

#[test]
fn a_boot_without_a_clock_opens_nothing_and_the_clock_may_tell_later() {
    let mut day = Period::new(Length::Day, at(0, FEBRUARY));
    day.add(100, at(0, FEBRUARY));
    assert!(day.check(100, unset(10)).is_err(), "booted, not set yet");
    assert!(day.check(100, at(20, FEBRUARY + 60)).is_err(), "still the same day");
    assert!(day.check(100, at(20, FEBRUARY - 5 * DAY)).is_err(), "turned back");
    assert!(day.check(100, at(30, FEBRUARY + DAY)).is_ok());
    // One that began without a clock is of the day on which the clock is set.
    let mut day = Period::new(Length::Day, unset(0));
    day.add(100, unset(5));
    assert!(day.check(100, at(10, FEBRUARY)).is_err());
    assert!(day.check(100, at(10, FEBRUARY + DAY)).is_ok());
}

proptest! {
    /// Against the calendar, reckoned day by day.
    #[test]
    fn months_are_the_calendars(target in 0u64..60_000, second in 0u64..DAY) {
        let is_leap = |year: u64| (year.is_multiple_of(4) && !year.is_multiple_of(100)) || year.is_multiple_of(400);
        let (mut year, mut month, mut first) = (1970, 0usize, 0u64);
        let length = |year: u64, month: usize| {
            [31, if is_leap(year) { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31][month]
        };
        while first + length(year, month) <= target {
            first += length(year, month);
            (year, month) = if month == 11 { (year + 1, 0) } else { (year, month + 1) };
        }
        let now = at(0, target * DAY + second);
        let mut period = Period::new(Length::Month, now);
        period.add(1, now);
        let left = (first + length(year, month)) * DAY - (target * DAY + second);
        prop_assert_eq!(period.check(1, now), Err(left as u32));
        prop_assert_eq!(period.check(1, at(0, target * DAY + second + left)), Ok(()));
    }
}
