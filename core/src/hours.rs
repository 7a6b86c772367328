//! Hours of the day in which a router helps, such as `22-06` or `22:30-06:15`. Not responsible for knowing the time, nor where
//! on earth it is.

use core::fmt;
use core::str::FromStr;

const DAY: u32 = 24 * 60;

/// From one minute of the day to another one, perhaps of the next day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hours {
    /// Minutes since midnight.
    from: u16,
    /// Minutes since midnight; not the same.
    until: u16,
}

impl Hours {
    /// How many seconds until they begin, `second` seconds after midnight; 0 within them.
    pub fn begin_in(&self, second: u32) -> u32 {
        let (from, until) = (u32::from(self.from) * 60, u32::from(self.until) * 60);
        let day = DAY * 60;
        let into = (second % day + day - from) % day;
        if into < (until + day - from) % day { 0 } else { day - into }
    }
}

impl fmt::Display for Hours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Hours { from, until } = self;
        write!(f, "{:02}:{:02}-{:02}:{:02}", from / 60, from % 60, until / 60, until % 60)
    }
}

impl FromStr for Hours {
    type Err = NotHours;

    fn from_str(text: &str) -> Result<Hours, NotHours> {
        let (from, until) = text.split_once('-').ok_or(NotHours)?;
        let hours = Hours { from: minute(from)?, until: minute(until)? };
        if hours.from == hours.until { Err(NotHours) } else { Ok(hours) }
    }
}

/// `22` or `22:30`; 24 is midnight.
fn minute(text: &str) -> Result<u16, NotHours> {
    let (hour, minute) = text.split_once(':').unwrap_or((text, "0"));
    let (hour, minute) = (number(hour)?, number(minute)?);
    let minutes = hour * 60 + minute;
    if minute < 60 && u32::from(minutes) <= DAY { Ok(minutes % DAY as u16) } else { Err(NotHours) }
}

fn number(text: &str) -> Result<u16, NotHours> {
    let is_short = (1..=2).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| is_short).ok_or(NotHours)
}

/// Not two different times of the day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotHours;

impl fmt::Display for NotHours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("expected two times of the day, such as 22-06 or 22:30-06:15")
    }
}

impl core::error::Error for NotHours {}
