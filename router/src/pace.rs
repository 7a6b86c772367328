//! How many bytes to wait for at a time. Not responsible for waiting.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::net;

/// Waking up costs more than the bytes (DESIGN section 4): so a bulk response is waited for in portions of what
/// comes in 50 ms.
#[derive(Debug)]
pub struct Pace {
    /// Bytes per second, 0 before the first measurement.
    rate: u64,
    since: Instant,
    bytes: u64,
    /// What the socket's low-water mark is set to.
    mark: usize,
    half_buffer: usize,
}

/// Highest low-water mark.
const MOST_MARK: usize = 64 * 1024;
/// How long bytes may wait in the socket for more to come.
const PORTION: Duration = Duration::from_millis(50);
/// When to look what has come although the mark was not reached: the sender has slowed down.
pub const LOOK_AFTER: Duration = Duration::from_millis(100);

impl Pace {
    /// For the responses of `source`.
    pub fn new(source: &TcpStream) -> Self {
        let half_buffer = net::receive_buffer(source).map_or(1, |bytes| bytes / 2);
        Self { rate: 0, since: Instant::now(), bytes: 0, mark: 1, half_buffer }
    }

    /// So many bytes came by `now`.
    pub fn moved(&mut self, bytes: usize, now: Instant) {
        self.bytes += bytes as u64;
        let elapsed = now.saturating_duration_since(self.since);
        if elapsed >= PORTION {
            let rate = self.bytes.saturating_mul(1_000_000) / elapsed.as_micros().max(1) as u64;
            self.rate = if self.rate == 0 { rate } else { (self.rate + rate) / 2 };
            (self.since, self.bytes) = (now, 0);
        }
    }

    /// Bytes begin to flow now, after a pause that says nothing about the link.
    pub fn begin(&mut self, now: Instant) {
        (self.since, self.bytes) = (now, 0);
    }

    /// The mark for a wait with `rest` bytes to come.
    pub fn wanted(&self, rest: u64) -> usize {
        let portion = self.rate.saturating_mul(PORTION.as_millis() as u64) / 1000;
        let most = MOST_MARK.min(self.half_buffer).max(1);
        usize::try_from(portion.min(rest)).map_or(most, |bytes| bytes.clamp(1, most))
    }

    /// Sets the mark before a wait with `rest` bytes to come; when to look although it was not reached.
    pub fn prepare(&mut self, source: &TcpStream, rest: u64, now: Instant) -> Option<Instant> {
        let wanted = self.wanted(rest);
        // Down at once, or the wait would be for bytes that don't come; up only when it pays for the call.
        if wanted < self.mark || wanted > self.mark + self.mark / 4 {
            self.set(source, wanted);
        }
        (self.mark > 1).then_some(now + LOOK_AFTER)
    }

    /// The mark was not reached in time: wait for single bytes until there is a rate again.
    pub fn slowed_down(&mut self) {
        self.rate = 0;
    }

    /// Sets the mark back, for the next use of the connection.
    pub fn reset(&mut self, source: &TcpStream) {
        self.set(source, 1);
    }

    fn set(&mut self, source: &TcpStream, mark: usize) {
        if mark != self.mark {
            // An error means that the socket is dead, which reading from it tells as well.
            let _ = net::set_rcvlowat(source, mark);
            self.mark = mark;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pace(rate: u64, half_buffer: usize) -> Pace {
        Pace { rate, since: Instant::now(), bytes: 0, mark: 1, half_buffer }
    }

    #[test]
    fn the_mark_is_the_smallest_of_rest_portion_limit_and_half_the_buffer() {
        assert_eq!(pace(0, 1 << 20).wanted(u64::MAX), 1, "no rate yet: every byte at once");
        assert_eq!(pace(100_000, 1 << 20).wanted(u64::MAX), 5_000);
        assert_eq!(pace(100_000, 1 << 20).wanted(1_234), 1_234);
        assert_eq!(pace(u64::MAX, 1 << 20).wanted(u64::MAX), 65_536);
        assert_eq!(pace(u64::MAX, 10_000).wanted(u64::MAX), 10_000);
        assert_eq!(pace(u64::MAX, 0).wanted(u64::MAX), 1);
        assert_eq!(pace(100_000, 1 << 20).wanted(0), 1);
    }

    #[test]
    fn the_rate_follows_what_came() {
        let mut pace = pace(0, 1 << 20);
        let mut now = pace.since;
        for _ in 0..100 {
            now += Duration::from_millis(10);
            pace.moved(10_000, now);
        }
        assert!((900_000..=1_100_000).contains(&pace.rate), "{}", pace.rate);
        pace.slowed_down();
        assert_eq!(pace.wanted(u64::MAX), 1);
    }
}
