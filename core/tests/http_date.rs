//! Dates in fields.

use bamqp_core::http::date::parse;
use proptest::prelude::*;

/// The date of a number of seconds since 1970, counted day by day.
fn naive(seconds: u64) -> String {
    let months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let names = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    let (mut days, rest) = (seconds / 86_400, seconds % 86_400);
    let name = names[(days % 7) as usize];
    let mut year = 1970;
    let leap = |y: u64| y.is_multiple_of(4) && (!y.is_multiple_of(100) || y.is_multiple_of(400));
    while days >= 365 + u64::from(leap(year)) {
        days -= 365 + u64::from(leap(year));
        year += 1;
    }
    let lengths = [31, 28 + u64::from(leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 0;
    while days >= lengths[month] {
        days -= lengths[month];
        month += 1;
    }
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{name}, {:02} {} {year} {hour:02}:{minute:02}:{second:02} GMT", days + 1, months[month])
}

#[test]
fn known_dates() {
    assert_eq!(parse(b"Sun, 06 Nov 1994 08:49:37 GMT"), Some(784_111_777));
    assert_eq!(parse(b"Thu, 01 Jan 1970 00:00:00 GMT"), Some(0));
    assert_eq!(parse(b"Sat, 31 Dec 2016 23:59:60 GMT"), Some(1_483_228_800));
}

#[test]
fn other_formats_are_no_dates() {
    for text in [
        &b"Sunday, 06-Nov-94 08:49:37 GMT"[..],
        b"Sun Nov  6 08:49:37 1994",
        b"Sun, 06 Nov 1994 08:49:37 UTC",
        b"Sun, 6 Nov 1994 08:49:37 GMT",
        b"Sun, 06 nov 1994 08:49:37 GMT",
        b"Xun, 06 Nov 1994 08:49:37 GMT",
        b"Sun, 32 Oct 1994 08:49:37 GMT",
        b"Sun, 00 Nov 1994 08:49:37 GMT",
        b"Sun, 06 Nov 1994 24:49:37 GMT",
        b"Sun, 06 Nov 1994 08:60:37 GMT",
        b"Sun, 06 Nov 1969 08:49:37 GMT",
        b"Sun, +6 Nov 1994 08:49:37 GMT",
        b"",
    ] {
        assert_eq!(parse(text), None, "{}", text.escape_ascii());
    }
}

proptest! {
    #[test]
    fn agrees_with_counting_days(seconds in 0u64..250_000_000_000) {
        prop_assert_eq!(parse(naive(seconds).as_bytes()), Some(seconds));
    }

    #[test]
    fn never_panics(bytes in prop::collection::vec(any::<u8>(), 29)) {
        let _ = parse(&bytes);
    }
}
