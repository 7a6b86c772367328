//! An internet link as arithmetic over time: a rate, a round-trip time and a first-in-first-out queue of
//! limited depth. It is told the time and tells when bytes arrive; the origin sleeps by that. Not responsible for
//! sockets, for clocks, or for what TCP makes of the link (that is `flow`).
//!
//! A link is paced in bytes of TCP payload: what Ethernet, IP and TCP add is not modelled, so a link of
//! 20 Mbit/s carries 20 Mbit/s of HTTP.

use bamqp_core::time::{Instant, Span};

/// The direction towards the household of one internet link; the way out is never full, so it only delays.
#[derive(Clone, Debug)]
pub struct Link {
    /// Bytes per second; 0 = silent.
    rate: u64,
    rtt: Span,
    depth: Span,
    /// When the last queued byte has left the queue.
    free_at: Instant,
    /// What `free_at` lacks, in 1/rate microseconds: rounding must not add up over a million segments.
    rest: u64,
}

impl Link {
    /// The queue's depth where nothing else is asked for: 100 ms at the link's rate.
    pub const DEFAULT_DEPTH: Span = Span::from_millis(100);

    /// An empty link of `rate` bytes per second (0: silent from the start), `rtt` there and back when the
    /// queue is empty, and a queue of 100 ms.
    pub const fn new(rate: u64, rtt: Span) -> Link {
        Link { rate, rtt, depth: Self::DEFAULT_DEPTH, free_at: Instant::from_micros(0), rest: 0 }
    }

    /// The same link with a queue of `depth`, as time at the link's rate.
    pub const fn with_depth(mut self, depth: Span) -> Link {
        self.depth = depth;
        self
    }

    /// Bytes per second; 0 = silent.
    pub const fn rate(&self) -> u64 {
        self.rate
    }

    /// Nothing comes over it any more.
    pub const fn is_silent(&self) -> bool {
        self.rate == 0
    }

    /// There and back, without the queue.
    pub const fn rtt(&self) -> Span {
        self.rtt
    }

    /// One way, without the queue: half the round-trip time.
    pub const fn one_way(&self) -> Span {
        self.rtt.scale(1, 2)
    }

    /// How long a byte sent at `now` would stand in the queue: `max(0, free_at - now)`.
    pub const fn backlog(&self, now: Instant) -> Span {
        self.free_at.since(now)
    }

    /// How long to wait until the queue takes another segment: zero when there is room,
    /// `backlog - depth` when it is full, `None` on a silent link (nobody knows).
    pub fn has_room(&self, now: Instant) -> Option<Span> {
        (!self.is_silent()).then(|| self.backlog(now).minus(self.depth))
    }

    /// Since when, or from when on, the queue has room: `free_at - depth`; `None` on a silent link.
    pub fn room_at(&self) -> Option<Instant> {
        self.shallower_than(self.depth)
    }

    /// From when on the queue is at most half full; `None` on a silent link.
    pub fn half_empty_at(&self) -> Option<Instant> {
        self.shallower_than(self.depth.scale(1, 2))
    }

    fn shallower_than(&self, depth: Span) -> Option<Instant> {
        let at = self.free_at.as_micros().saturating_sub(depth.as_micros());
        (!self.is_silent()).then_some(Instant::from_micros(at))
    }

    /// Queues `bytes` at `now` and tells when the last of them arrives at the household:
    ///
    /// `free_at = max(free_at, now) + bytes / rate`, `arrival = free_at + rtt / 2`.
    ///
    /// `None`, and nothing changes, on a silent link. It does not ask whether there is room: `has_room` does.
    /// A sender that woke up late passes the moment at which it should have sent.
    pub fn send(&mut self, now: Instant, bytes: u64) -> Option<Instant> {
        if self.is_silent() {
            return None;
        }
        if now > self.free_at {
            self.free_at = now;
            self.rest = 0;
        }
        let work = bytes.saturating_mul(1_000_000).saturating_add(self.rest);
        self.free_at = self.free_at + Span::from_micros(work / self.rate);
        self.rest = work % self.rate;
        Some(self.free_at + self.one_way())
    }

    /// From `now` on the link has another rate, in bytes per second; 0 makes it silent. What is queued
    /// leaves as was promised when it was sent; on a silent link the owner of the bytes holds them back.
    pub fn set_rate(&mut self, now: Instant, rate: u64) {
        if self.is_silent() {
            self.free_at = self.free_at.max(now);
        }
        self.rate = rate;
        self.rest = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(us: u64) -> Instant {
        Instant::from_micros(us)
    }

    /// 1 MB/s (a byte per microsecond) and 30 ms.
    fn link() -> Link {
        Link::new(1_000_000, Span::from_millis(30))
    }

    #[test]
    fn arrival_is_serialisation_plus_one_way() {
        let mut link = link();
        assert_eq!(link.send(at(5_000), 1_000), Some(at(5_000 + 1_000 + 15_000)));
        // The second stands behind the first.
        assert_eq!(link.send(at(5_200), 500), Some(at(5_000 + 1_500 + 15_000)));
        assert_eq!(link.backlog(at(5_200)), Span::from_micros(1_300));
        // An idle link does not save up the time in which nobody sent.
        assert_eq!(link.send(at(90_000), 10), Some(at(90_000 + 10 + 15_000)));
    }

    #[test]
    fn the_queue_is_limited() {
        let mut link = link();
        assert_eq!(link.has_room(at(0)), Some(Span::ZERO));
        link.send(at(0), 100_000);
        assert_eq!(link.has_room(at(0)), Some(Span::ZERO), "full to the brim is not over it");
        link.send(at(0), 1_000);
        assert_eq!(link.has_room(at(0)), Some(Span::from_millis(1)));
        assert_eq!(link.room_at(), Some(at(1_000)));
        assert_eq!(link.half_empty_at(), Some(at(51_000)));
        assert_eq!(link.has_room(at(1_000)), Some(Span::ZERO));
        let mut shallow = Link::new(1_000_000, Span::ZERO).with_depth(Span::from_millis(1));
        shallow.send(at(0), 3_000);
        assert_eq!(shallow.has_room(at(500)), Some(Span::from_micros(1_500)));
    }

    #[test]
    fn rounding_does_not_add_up() {
        // 1448 bytes at 2.5 MB/s take 579.2 µs.
        let mut link = Link::new(2_500_000, Span::ZERO);
        let mut last = None;
        for _ in 0..1_000_000 {
            last = link.send(at(0), 1448);
        }
        assert_eq!(last, Some(at(579_200_000)));
    }

    #[test]
    fn a_late_sender_loses_nothing() {
        let mut punctual = link();
        let mut late = link();
        for segment in 0..100u64 {
            let now = at(segment * 1_000);
            let due = punctual.send(now, 1_000);
            // It woke up 40 ms late and names the moment at which it should have sent.
            assert_eq!(late.send(now, 1_000), due);
        }
    }

    #[test]
    fn silence_and_return() {
        let mut link = link();
        let promised = link.send(at(0), 10_000);
        link.set_rate(at(1_000), 0);
        assert!(link.is_silent());
        assert_eq!(link.has_room(at(2_000)), None);
        assert_eq!(link.room_at(), None);
        assert_eq!(link.send(at(2_000), 1), None);
        assert_eq!(promised, Some(at(25_000)));
        link.set_rate(at(3_000_000), 500_000);
        assert_eq!(link.send(at(3_000_000), 1_000), Some(at(3_000_000 + 2_000 + 15_000)));
    }

    #[test]
    fn another_rate_is_for_what_comes_after() {
        let mut link = link();
        link.send(at(0), 10_000);
        link.set_rate(at(5_000), 100_000);
        assert_eq!(link.send(at(5_000), 1_000), Some(at(10_000 + 10_000 + 15_000)));
    }
}
