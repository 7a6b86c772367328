//! Points in time as people read them: RFC 3339, UTC, whole seconds. Not responsible for whether a clock was right.

use core::fmt;
use core::str::FromStr;

use crate::http::decimal;

const DAY: u64 = 24 * 60 * 60;

/// The last second that has four digits for its year.
const LAST: u64 = 253_402_300_799;

/// Seconds since 1970-01-01T00:00:00Z, without leap seconds; displayed as `2026-08-01T12:00:00Z`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time(u64);

impl Time {
    /// That many seconds after 1970; at most the year 9999.
    pub fn from_seconds(seconds: u64) -> Time {
        Time(seconds.min(LAST))
    }

    /// Seconds after 1970.
    pub fn as_seconds(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = date(self.0 / DAY);
        let (hour, minute, second) = (self.0 / 3600 % 24, self.0 / 60 % 60, self.0 % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
    }
}

impl FromStr for Time {
    type Err = NotATime;

    /// A day (its first second), `2026-08-01T12:00`, or with seconds; with or without the `Z`.
    fn from_str(text: &str) -> Result<Time, NotATime> {
        parse(text.as_bytes()).ok_or(NotATime)
    }
}

/// Not a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotATime;

impl fmt::Display for NotATime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("expected a time in UTC, such as 2026-08-01 or 2026-08-01T12:00:00Z")
    }
}

impl core::error::Error for NotATime {}

fn parse(text: &[u8]) -> Option<Time> {
    let text = text.strip_suffix(b"Z").unwrap_or(text);
    let part = |from: usize, to: usize| decimal(text.get(from..to)?);
    let sign = |at: usize, sign: u8| text.get(at) == Some(&sign);
    let (year, month, day) = (part(0, 4)?, part(5, 7)?, part(8, 10)?);
    let (hour, minute, second) = match text.len() {
        10 => (0, 0, 0),
        16 => (part(11, 13)?, part(14, 16)?, 0),
        19 => (part(11, 13)?, part(14, 16)?, part(17, 19)?),
        _ => return None,
    };
    let marks = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')];
    let marked = marks.into_iter().filter(|(at, _)| *at < text.len()).all(|(at, mark)| sign(at, mark));
    if !marked || year < 1970 || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let days = days(year, month, day);
    if !(1..=12).contains(&month) || date(days) != (year, month, day) {
        return None;
    }
    Some(Time(((days * 24 + hour) * 60 + minute) * 60 + second))
}

// Both count in years that begin in March, so that the leap day comes last, and in eras of 400 years, which all have
// 146,097 days. <https://howardhinnant.github.io/date_algorithms.html>

/// Year, month and day of the month of the day that many days after 1970-01-01.
fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let is_next_year = month >= 10;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if is_next_year { month - 9 } else { month + 3 };
    (era * 400 + year + u64::from(is_next_year), month, day)
}

/// Days from 1970-01-01 to a date, for years from 1970 on.
fn days(year: u64, month: u64, day: u64) -> u64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let (era, year) = (year / 400, year % 400);
    let in_year = (153 * month + 2) / 5 + day;
    (era * 146_097 + year * 365 + year / 4 - year / 100 + in_year).saturating_sub(719_469)
}
