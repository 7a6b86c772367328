//! How many bytes were fetched for neighbours this day and this month, on a router that may have no clock at boot. Not
//! responsible for keeping that over a restart.
//!
//! Days and months are the calendar's where the clock is set. Where it is not, nobody can tell whether a new one has begun:
//! then one lasts until the daemon has run for 24 hours, or for 30 days, since it began. So a reboot never opens a quota anew.

/// Seconds of a day, and of what stands for a month while the clock is not set.
const DAY: u32 = 24 * 60 * 60;
const THIRTY_DAYS: u32 = 30 * DAY;

/// Now, as far as the router can tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Seconds that the daemon has run in all, over all boots.
    pub running: u32,
    /// Seconds since 1970 in local time, if the clock was set.
    pub local: Option<u64>,
}

/// What is counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    /// From midnight to midnight.
    Day,
    /// From the first of a month to the next.
    Month,
}

impl Length {
    /// Number of the period that has this second of local time, and how many seconds of it are left.
    fn number(self, local: u64) -> (u32, u32) {
        let day = local / u64::from(DAY);
        let left = DAY - (local % u64::from(DAY)) as u32;
        match self {
            Length::Day => (u32::try_from(day).unwrap_or(u32::MAX), left),
            Length::Month => {
                let (month, days_left) = month_of(day);
                (month, left.saturating_add(days_left.saturating_mul(DAY)))
            }
        }
    }

    fn without_clock(self) -> u32 {
        match self {
            Length::Day => DAY,
            Length::Month => THIRTY_DAYS,
        }
    }
}

/// Number of the month, counted from the year 0, that has this day after 1970-01-01, and how many days of it follow. (The
/// reckoning with years that begin in March: H. Hinnant, "chrono-compatible low-level date algorithms".)
fn month_of(day: u64) -> (u32, u32) {
    let day = day.min(1 << 30) as u32 + 719_468;
    let (era, of_era) = (day / 146_097, day % 146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153; // 0: March
    let first = |month: u32| (153 * month + 2) / 5;
    let days = match month {
        11 => {
            let next = year + 1; // February belongs to the next calendar year
            let is_leap = next % 4 == 0 && (next % 100 != 0 || next % 400 == 0);
            if is_leap { 29 } else { 28 }
        }
        month => first(month + 1) - first(month),
    };
    let number = (era * 400 + year) * 12 + month;
    (number, days - 1 - (of_year - first(month)))
}

/// Bytes of one day or month.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Period {
    /// What is counted together.
    pub length: Length,
    /// Bytes so far.
    pub used: u64,
    /// When it began, in seconds of running time.
    pub began: u32,
    /// Its number by the calendar, if the clock was set in it.
    pub number: Option<u32>,
}

impl Period {
    /// One that begins now.
    pub fn new(length: Length, now: Now) -> Period {
        Period { length, used: 0, began: now.running, number: now.local.map(|local| length.number(local).0) }
    }

    /// If it is over `now`, the next one begins.
    pub fn renew(&mut self, now: Now) {
        let present = now.local.map(|local| self.length.number(local).0);
        let is_over = match (self.number, present) {
            // A clock that is turned back opens nothing anew.
            (Some(number), Some(present)) => present > number,
            _ => now.running.saturating_sub(self.began) >= self.length.without_clock(),
        };
        if is_over {
            *self = Period::new(self.length, now);
        } else if self.number.is_none() {
            self.number = present;
        }
    }

    /// Counts bytes.
    pub fn add(&mut self, bytes: u64, now: Now) {
        self.renew(now);
        self.used = self.used.saturating_add(bytes);
    }

    /// Whether fewer than `most` bytes were counted.
    ///
    /// # Errors
    /// Seconds until the next one begins, at least 1.
    pub fn check(&mut self, most: u64, now: Now) -> Result<(), u32> {
        self.renew(now);
        if self.used < most {
            return Ok(());
        }
        let left = match (self.number, now.local) {
            (Some(number), Some(local)) => {
                // After a clock that was turned back the period lasts longer, how much longer is not reckoned.
                let (present, left) = self.length.number(local);
                if present == number { left } else { self.length.without_clock() }
            }
            _ => self.length.without_clock().saturating_sub(now.running.saturating_sub(self.began)),
        };
        Err(left.max(1))
    }
}
