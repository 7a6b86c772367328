//! Keeps several fetches to one rate: a token bucket. Not responsible for the rate.

use crate::time::{Instant, Span};

/// How long unused room is kept: who wakes up late loses nothing, and nobody saves up for a burst.
const KEPT: Span = Span::from_millis(100);

/// What is given out at a time at least, unless less is wanted: waking up costs more than bytes.
const LEAST: u64 = 16 * 1024;

/// At a low rate, how long to save up for at most.
const LONGEST: Span = Span::from_millis(50);

/// How much may be fetched now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grant {
    /// So many bytes, at least one; [`Bucket::spend`] tells how many it became.
    Bytes(u64),
    /// Nothing before then.
    NotBefore(Instant),
}

/// Room in bytes, which grows with time.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bucket {
    /// Bytes per second; `None`: no limit.
    rate: Option<u64>,
    /// In bytes; what was spent beyond it is paid first.
    room: u64,
    debt: u64,
    /// What is left of a byte, in millionths.
    rest: u64,
    at: Instant,
}

impl Bucket {
    /// From `now` on at most `rate` bytes per second.
    pub fn set_rate(&mut self, now: Instant, rate: Option<u64>) {
        self.fill(now);
        if self.rate != rate {
            (self.rate, self.rest) = (rate, 0);
            (self.room, self.debt) = (self.room.min(self.most()), 0);
        }
    }

    fn most(&self) -> u64 {
        self.rate.map_or(0, |rate| rate.saturating_mul(KEPT.as_micros()) / 1_000_000).max(LEAST)
    }

    /// At how much room it is worth beginning.
    fn worthwhile(&self) -> u64 {
        let soon = self.rate.map_or(0, |rate| rate.saturating_mul(LONGEST.as_micros()) / 1_000_000);
        LEAST.min(soon).max(1)
    }

    fn fill(&mut self, now: Instant) {
        let took = now.since(self.at).as_micros();
        self.at = self.at.max(now);
        let Some(rate) = self.rate else { return };
        let work = rate.saturating_mul(took).saturating_add(self.rest);
        self.rest = work % 1_000_000;
        let paid = (work / 1_000_000).min(self.debt);
        self.debt -= paid;
        self.room = self.room.saturating_add(work / 1_000_000 - paid).min(self.most());
    }

    /// How many of `wanted` bytes may be fetched `now`.
    pub fn ask(&mut self, now: Instant, wanted: u64) -> Grant {
        self.fill(now);
        let Some(rate) = self.rate else { return Grant::Bytes(wanted.max(1)) };
        let least = self.worthwhile().min(wanted.max(1));
        if self.debt == 0 && self.room >= least {
            return Grant::Bytes(self.room.min(wanted.max(1)));
        }
        let missing = (least + self.debt).saturating_sub(self.room);
        let wait = missing.saturating_mul(1_000_000).checked_div(rate).unwrap_or(u64::MAX / 2);
        // At no rate at all it is looked at now and then: the rate may change.
        Grant::NotBefore(now + Span::from_micros(wait.saturating_add(1)).min(Span::from_millis(200)))
    }

    /// So many bytes were fetched.
    pub fn spend(&mut self, bytes: u64) {
        if self.rate.is_some() {
            self.debt += bytes.saturating_sub(self.room);
            self.room = self.room.saturating_sub(bytes);
        }
    }
}
