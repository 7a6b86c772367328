//! How much of the log each coordinator may fill, so that none can push what was asked before out of it; and how often it may
//! ask at all, so that answering costs little. Not responsible for what is written.
//!
//! Half of all that the log keeps at once, and all of it in twelve hours: with the defaults some 200 sessions at once and 900
//! a day. Who answers for neighbours that ask for more gives the log more room (`log_size`, `log_files`).
//!
//! Who asks faster than downloads begin is declined with a time; who does not keep to that is not let in for a while.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bamqp_core::message::Fingerprint;

/// In which a coordinator may fill as much as the log keeps.
const PERIOD: Duration = Duration::from_secs(12 * 60 * 60);
const PERIOD_MILLIS: u64 = PERIOD.as_millis() as u64;

/// More than this is counted as this: a product with [`PERIOD_MILLIS`] has 64 bits.
const MOST: u64 = 1 << 36;

/// Parts of the log that a coordinator may fill at once.
const AT_ONCE: u64 = 2;

/// About how many bytes a session takes besides its INIT's head and URI: the rest of that entry and one with ranges.
const REST_OF_SESSION: u64 = 1024;

/// About how many bytes of the log a range takes that was asked for.
const RANGE: u64 = 28;

/// INITs at once, and how long each takes to be paid off.
const INITS: u32 = 24;
const PAID_OFF: Duration = Duration::from_secs(2);

/// So many INITs in a row that were declined before their time are a flood.
const FLOOD: u32 = 16;

/// For how long who floods is not let in.
pub const SHUT_FOR: Duration = Duration::from_secs(10);

/// What each coordinator has filled lately.
#[derive(Debug)]
pub struct Quota {
    /// Bytes that the log keeps.
    log: u64,
    /// At most one for each configured router.
    shares: Mutex<Vec<Share>>,
}

#[derive(Debug)]
struct Share {
    coordinator: Fingerprint,
    /// Bytes, of those that are not paid off by time.
    filled: u64,
    /// When that was so.
    at: Instant,
    /// INITs that were declined since the last one that was not.
    declined: u32,
    /// When all its INITs are paid off.
    paid_at: Instant,
    /// INITs and chunks that were declined in all; stays at the most.
    excess: u32,
}

/// A coordinator has had its share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exceeded {
    /// Seconds until there is room for such an INIT; at least 1.
    pub retry_after: u32,
    /// It is the first one since there was room: the others need not be told of one by one.
    pub is_first: bool,
    /// It asks and asks, whatever it is told.
    pub is_flood: bool,
}

impl Quota {
    /// For a log that keeps so many bytes.
    pub fn new(log: u64) -> Quota {
        Quota { log: log.clamp(1, MOST), shares: Mutex::default() }
    }

    /// Counts an INIT with so many bytes of head and URI. How many of this coordinator's were declined before it.
    ///
    /// # Errors
    /// [`Exceeded`]; then it is not counted.
    pub fn take(&self, coordinator: Fingerprint, bytes: usize, now: Instant) -> Result<u32, Exceeded> {
        self.take_bytes(coordinator, (bytes as u64).saturating_add(REST_OF_SESSION), now)
    }

    /// Counts a range that is asked for in a session.
    ///
    /// # Errors
    /// As with [`Quota::take`].
    pub fn take_range(&self, coordinator: Fingerprint, now: Instant) -> Result<(), Exceeded> {
        self.take_bytes(coordinator, RANGE, now).map(|_| ())
    }

    /// Whether a coordinator asks no more often than downloads begin.
    ///
    /// # Errors
    /// [`Exceeded`].
    pub fn ask(&self, coordinator: Fingerprint, now: Instant) -> Result<(), Exceeded> {
        let mut shares = self.lock();
        let Some(share) = share_of(&mut shares, coordinator, now) else { return Ok(()) };
        let owed = share.paid_at.saturating_duration_since(now) + PAID_OFF;
        let most = PAID_OFF * INITS;
        if owed <= most {
            share.paid_at = now + owed;
            return Ok(());
        }
        Err(share.exceed((owed - most).as_secs() + 1))
    }

    /// How many INITs and chunks of each coordinator were declined because it had had its share.
    pub fn excess(&self) -> Vec<(Fingerprint, u32)> {
        self.lock().iter().map(|share| (share.coordinator, share.excess)).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Share>> {
        // Every change is one call, so a panic elsewhere leaves nothing half done.
        self.shares.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take_bytes(&self, coordinator: Fingerprint, bytes: u64, now: Instant) -> Result<u32, Exceeded> {
        let mut shares = self.lock();
        let Some(share) = share_of(&mut shares, coordinator, now) else { return Ok(0) };
        let time = now.saturating_duration_since(share.at).min(PERIOD);
        let paid = self.in_time(time);
        share.filled = share.filled.saturating_sub(paid);
        // What is left of a byte is not lost, however often somebody asks.
        share.at = if time == PERIOD { now } else { share.at + self.time_of(paid) };
        let excess = share.filled.saturating_add(bytes).saturating_sub(self.log / AT_ONCE);
        if excess == 0 || share.filled == 0 {
            share.filled = share.filled.saturating_add(bytes);
            return Ok(core::mem::take(&mut share.declined));
        }
        Err(share.exceed(excess.min(share.filled).saturating_mul(PERIOD.as_secs()) / self.log + 1))
    }

    /// What is paid off in that time, a period at most.
    fn in_time(&self, time: Duration) -> u64 {
        self.log * (time.as_millis() as u64) / PERIOD_MILLIS
    }

    /// In what time so much is paid off.
    fn time_of(&self, bytes: u64) -> Duration {
        Duration::from_millis((bytes * PERIOD_MILLIS).div_ceil(self.log))
    }
}

fn share_of(shares: &mut Vec<Share>, coordinator: Fingerprint, now: Instant) -> Option<&mut Share> {
    let place = shares.iter().position(|share| share.coordinator == coordinator).unwrap_or_else(|| {
        shares.push(Share { coordinator, filled: 0, at: now, declined: 0, paid_at: now, excess: 0 });
        shares.len() - 1
    });
    shares.get_mut(place)
}

impl Share {
    fn exceed(&mut self, seconds: u64) -> Exceeded {
        self.declined = self.declined.saturating_add(1);
        self.excess = self.excess.saturating_add(1);
        let retry_after = u32::try_from(seconds).unwrap_or(u32::MAX);
        Exceeded { retry_after, is_first: self.declined == 1, is_flood: self.declined >= FLOOD }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Fingerprint = Fingerprint([1; 16]);
    const B: Fingerprint = Fingerprint([2; 16]);

    /// Takes until no more is given.
    fn take_all(quota: &Quota, coordinator: Fingerprint, now: Instant) -> (u32, Exceeded) {
        let mut taken = 0;
        loop {
            match quota.take(coordinator, 1024, now) {
                Ok(_) => taken += 1,
                Err(exceeded) => return (taken, exceeded),
            }
            assert!(taken < 10_000, "no limit");
        }
    }

    #[test]
    fn half_of_the_log_at_once_and_all_of_it_in_twelve_hours() {
        let (quota, start) = (Quota::new(1 << 20), Instant::now());
        let (taken, exceeded) = take_all(&quota, A, start);
        assert_eq!((taken, exceeded.is_first), (256, true));
        // What 2 KiB of a MiB are of twelve hours.
        assert_eq!(exceeded.retry_after, 12 * 60 * 60 / 512 + 1);
        assert!(!quota.take(A, 1024, start).unwrap_err().is_first, "told once");
        assert!(quota.take(B, 1024, start).is_ok(), "nobody else suffers for it");
        // A second earlier than it was told there is no room yet; the next one hears how many were declined.
        let until = start + Duration::from_secs(exceeded.retry_after.into());
        assert!(quota.take(A, 1024, until - Duration::from_secs(2)).is_err());
        assert_eq!(quota.take(A, 1024, until), Ok(3));
        assert!(quota.take(A, 1024, until).unwrap_err().is_first, "another time");
        // One that asks all the time, often enough that each time hardly anything is paid off.
        let mut in_twelve_hours = 0;
        for quarter in 1..=12 * 60 * 60 * 4 {
            let now = until + Duration::from_millis(250 * quarter);
            in_twelve_hours += u32::from(quota.take(A, 1024, now).is_ok());
        }
        assert!((510..=512).contains(&in_twelve_hours), "{in_twelve_hours}");
        // After a rest, no more than at first.
        assert_eq!(take_all(&quota, A, until + 9 * PERIOD).0, 256);
    }

    #[test]
    fn who_asks_faster_than_downloads_begin_is_declined_and_then_floods() {
        let (quota, start) = (Quota::new(1 << 30), Instant::now());
        for _ in 0..INITS {
            assert_eq!(quota.ask(A, start), Ok(()));
        }
        for declined in 1..=FLOOD {
            let exceeded = quota.ask(A, start).unwrap_err();
            assert_eq!((exceeded.is_first, exceeded.is_flood), (declined == 1, declined == FLOOD));
            assert!((1..=3).contains(&exceeded.retry_after));
        }
        assert_eq!(quota.ask(B, start), Ok(()), "nobody else suffers for it");
        assert_eq!(quota.excess(), [(A, FLOOD), (B, 0)]);
        assert_eq!(quota.ask(A, start + PAID_OFF), Ok(()));
        assert!(quota.ask(A, start + PAID_OFF).is_err());
        // What was taken ends the row.
        assert_eq!(quota.take(A, 100, start + PAID_OFF), Ok(FLOOD + 1));
        assert!(!quota.ask(A, start + PAID_OFF).unwrap_err().is_flood);
    }

    #[test]
    fn ranges_fill_the_log_too() {
        let (quota, start) = (Quota::new(64 * 1024), Instant::now());
        let taken = (0..10_000).take_while(|_| quota.take_range(A, start).is_ok()).count();
        assert_eq!(taken as u64, 32 * 1024 / RANGE);
    }

    #[test]
    fn the_smallest_log_takes_the_largest_init() {
        let (quota, start) = (Quota::new(64 * 1024), Instant::now());
        assert_eq!(quota.take(A, 60_000, start), Ok(0));
        let exceeded = quota.take(A, 60_000, start).unwrap_err();
        assert_eq!(quota.take(A, 60_000, start + Duration::from_secs(exceeded.retry_after.into())), Ok(1));
    }
}
