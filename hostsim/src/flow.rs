//! What one TCP sender may have in flight: slow start from ten segments, by acknowledgements. Together with
//! `link` it gives an honest beginning to every connection. Not responsible for losses: where a real sender
//! would overrun the link's queue, this one waits for room, so the window ends at about twice of what link
//! and queue hold.

use std::collections::VecDeque;

use bamqp_core::time::{Instant, Span};

/// Payload of one segment on a path of 1500 bytes with timestamps.
pub const SEGMENT: u64 = 1448;

/// Segments that a sender may send before it has heard anything (RFC 6928).
pub const INITIAL_SEGMENTS: u64 = 10;

/// The congestion window of one connection.
#[derive(Clone, Debug)]
pub struct Flow {
    /// How long an acknowledgement takes.
    back: Span,
    window: u64,
    flying: u64,
    acks: VecDeque<(Instant, u64)>,
}

impl Flow {
    /// A new connection whose acknowledgements take `back` (half a round-trip time).
    pub const fn new(back: Span) -> Flow {
        Flow { back, window: INITIAL_SEGMENTS * SEGMENT, flying: 0, acks: VecDeque::new() }
    }

    /// Bytes that the sender may have in flight.
    pub const fn window(&self) -> u64 {
        self.window
    }

    /// Bytes that may be sent before another acknowledgement.
    pub const fn room(&self) -> u64 {
        self.window.saturating_sub(self.flying)
    }

    /// When the next segment goes that everything else would let go at `from`: then, or with the first
    /// acknowledgement that makes room, if it came by `now`; `None` while the window is full. A sender that
    /// woke up late thus sends as of the moment at which it should have.
    pub fn open(&mut self, from: Instant, now: Instant) -> Option<Instant> {
        let mut when = from;
        while let Some(&(at, bytes)) = self.acks.front() {
            if at > when && self.room() > 0 {
                break;
            }
            if at > now {
                break;
            }
            when = when.max(at);
            self.acks.pop_front();
            // Linux's rule (tcp_is_cwnd_limited): who does not use half of the window gets no larger one.
            if self.flying.saturating_mul(2) > self.window {
                self.window = self.window.saturating_add(bytes);
            }
            self.flying = self.flying.saturating_sub(bytes);
        }
        (self.room() > 0).then_some(when)
    }

    /// When the next acknowledgement comes.
    pub fn next_ack(&self) -> Option<Instant> {
        self.acks.front().map(|&(at, _)| at)
    }

    /// `bytes` were sent.
    pub fn sent(&mut self, bytes: u64) {
        self.flying = self.flying.saturating_add(bytes);
    }

    /// `bytes` arrived at the receiver at `at`; the sender hears of it half a round-trip time later.
    pub fn arrived(&mut self, at: Instant, bytes: u64) {
        self.acks.push_back((at + self.back, bytes));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::Link;

    /// Sends endlessly over `link` and returns the bytes that arrived by each of `ends` (µs).
    fn arrivals(mut link: Link, ends: &[u64]) -> Vec<u64> {
        let mut flow = Flow::new(link.one_way());
        let mut sums = vec![0; ends.len()];
        let late = Instant::from_micros(u64::MAX / 2);
        loop {
            let at = flow.open(link.room_at().unwrap(), late).unwrap();
            let bytes = SEGMENT.min(flow.room());
            let arrival = link.send(at, bytes).unwrap();
            flow.sent(bytes);
            flow.arrived(arrival, bytes);
            if arrival.as_micros() > *ends.last().unwrap() {
                return sums;
            }
            for (sum, end) in sums.iter_mut().zip(ends) {
                if arrival.as_micros() <= *end {
                    *sum += bytes;
                }
            }
        }
    }

    #[test]
    fn doubles_each_round_trip_until_the_link_is_full() {
        // 100 MB/s, 100 ms: the first flights are far below the link.
        let link = Link::new(100_000_000, Span::from_millis(100));
        let sums = arrivals(link, &[99_000, 199_000, 299_000, 399_000]);
        let first = INITIAL_SEGMENTS * SEGMENT;
        assert_eq!(sums, [first, 3 * first, 7 * first, 15 * first]);
    }

    #[test]
    fn then_the_link_decides() {
        // 1 MB/s, 30 ms: after the first second a second brings a megabyte, to the segment.
        let sums = arrivals(Link::new(1_000_000, Span::from_millis(30)), &[1_000_000, 2_000_000]);
        assert!((sums[1] - sums[0]).abs_diff(1_000_000) <= SEGMENT, "{sums:?}");
    }

    #[test]
    fn an_idle_sender_gets_no_larger_window() {
        let mut flow = Flow::new(Span::ZERO);
        for n in 0..1000u64 {
            let now = Instant::from_micros(n * 1000);
            assert!(flow.open(now, now).is_some());
            flow.sent(SEGMENT);
            flow.arrived(now, SEGMENT);
        }
        assert!(flow.window() <= 2 * INITIAL_SEGMENTS * SEGMENT);
    }

    #[test]
    fn full_until_the_acknowledgement() {
        let mut flow = Flow::new(Span::from_millis(15));
        let start = Instant::from_micros(0);
        flow.sent(INITIAL_SEGMENTS * SEGMENT);
        assert_eq!(flow.open(start, Instant::from_micros(1)), None);
        flow.arrived(Instant::from_micros(20_000), SEGMENT);
        assert_eq!(flow.next_ack(), Some(Instant::from_micros(35_000)));
        assert_eq!(flow.open(start, Instant::from_micros(34_999)), None);
        assert_eq!(flow.open(start, Instant::from_micros(60_000)), Some(Instant::from_micros(35_000)));
        assert_eq!(flow.room(), 2 * SEGMENT);
    }
}
