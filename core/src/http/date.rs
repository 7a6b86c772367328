//! Dates in fields: the preferred format only (IMF-fixdate, RFC 9110 section 5.6.7). Not responsible for
//! clocks: dates are compared with each other, never with now.

/// Seconds from 1970-01-01T00:00:00 GMT to an IMF-fixdate such as `Sun, 06 Nov 1994 08:49:37 GMT`.
///
/// `None` for anything else: the two obsolete formats count as no date, which at worst leaves a download
/// unpooled. The name of the day is not checked against the date. Years 1970 to 9999.
pub fn parse(text: &[u8]) -> Option<u64> {
    const DAYS: [&[u8]; 7] = [b"Mon", b"Tue", b"Wed", b"Thu", b"Fri", b"Sat", b"Sun"];
    const MONTHS: [&[u8]; 12] =
        [b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec"];
    const LENGTHS: [u64; 12] = [31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];

    let text: &[u8; 29] = text.try_into().ok()?;
    let part = |from: usize, to: usize| text.get(from..to);
    let number = |from, to| super::decimal(part(from, to)?);
    let fits = |from: usize, sample: &[u8]| part(from, from + sample.len()) == Some(sample);
    if !(fits(3, b", ") && fits(7, b" ") && fits(11, b" ") && fits(16, b" ")) {
        return None;
    }
    if !(fits(19, b":") && fits(22, b":") && fits(25, b" GMT") && DAYS.contains(&part(0, 3)?)) {
        return None;
    }
    let (day, year) = (number(5, 7)?, number(12, 16)?);
    let name = part(8, 11)?;
    let month = MONTHS.iter().position(|m| *m == name)?;
    let (hour, minute, second) = (number(17, 19)?, number(20, 22)?, number(23, 25)?);
    let in_range = (1..=*LENGTHS.get(month)?).contains(&day) && year >= 1970;
    // 60 is a leap second.
    if !in_range || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let days = days_to(year, month) + day - 1;
    Some(((days * 24 + hour) * 60 + minute) * 60 + second)
}

/// Days from 1970-01-01 to the first of a month (0 = January) of `year` >= 1970.
fn days_to(year: u64, month: usize) -> u64 {
    const BEFORE: [u64; 12] = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];
    let leaps = |y: u64| y / 4 - y / 100 + y / 400;
    let is_leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let leap_day = u64::from(is_leap && month > 1);
    (year - 1970) * 365 + leaps(year - 1) - leaps(1969) + BEFORE.get(month).copied().unwrap_or(0) + leap_day
}
