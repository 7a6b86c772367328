//! Hours of the day: what is written, and when they begin.

use bamqp_core::hours::Hours;
use proptest::prelude::*;

const HOUR: u32 = 3600;

fn hours(text: &str) -> Hours {
    text.parse().unwrap()
}

#[test]
fn over_midnight_and_within_a_day() {
    let night = hours("22-06");
    for (second, wait) in [
        (22 * HOUR, 0),
        (23 * HOUR, 0),
        (0, 0),
        (6 * HOUR - 1, 0),
        (6 * HOUR, 16 * HOUR),
        (21 * HOUR + 3599, 1),
    ] {
        assert_eq!(night.begin_in(second), wait, "{second}");
    }
    let office = hours("9:30-17");
    assert_eq!((office.begin_in(0), office.begin_in(12 * HOUR)), (9 * HOUR + 1800, 0));
    assert_eq!(office.begin_in(17 * HOUR), 16 * HOUR + 1800);
}

#[test]
fn what_is_no_pair_of_times() {
    for text in [
        "", "22", "22-", "-6", "22-22", "0-24", "25-1", "22:60-6", "24:01-6", "+2-6", "22-6-7", "022-6",
        "22:5x-6",
    ] {
        assert!(text.parse::<Hours>().is_err(), "{text}");
    }
    assert_eq!(hours("7:5-24").to_string(), "07:05-00:00");
}

proptest! {
    #[test]
    fn after_the_wait_they_have_begun_and_not_before(from in 0u32..1440, until in 0u32..1440, second in 0u32..86_400) {
        prop_assume!(from != until);
        let text = format!("{:02}:{:02}-{:02}:{:02}", from / 60, from % 60, until / 60, until % 60);
        let hours = hours(&text);
        prop_assert_eq!(hours.to_string(), text);
        // The naive way: second by second around the clock.
        let is_within = |second: u32| {
            let minute = second % 86_400 / 60;
            if from < until { (from..until).contains(&minute) } else { minute >= from || minute < until }
        };
        let wait = hours.begin_in(second);
        prop_assert_eq!(wait == 0, is_within(second));
        prop_assert!(is_within(second + wait));
        prop_assert!(wait == 0 || !is_within(second + wait - 1));
    }
}
