//! What TCP makes of a connection: slow start, a full queue that drops, recovery after a round trip, and delivery in order, so
//! that a lost segment holds back all that follow and they come in one burst. About what Linux does (RFC 5681, HyStart of RFC
//! 9406, selective acknowledgements), without time-outs. Not responsible for when segments travel; see [`super::lines`].

use std::collections::{BTreeMap, VecDeque};

use bamqp_core::time::Span;

use super::lines::Segment;

/// The queue of a line, as home routers have it, as time.
pub const QUEUE: Span = Span::from_millis(100);

/// Payload of a segment.
pub const SEGMENT: u64 = 1448;

/// The initial window (RFC 6928).
const FIRST_WINDOW: u64 = 10 * SEGMENT;

/// Both ends of a connection.
#[derive(Clone, Debug)]
pub struct Tcp {
    window: u64,
    threshold: u64,
    in_flight: u64,
    /// The shortest wait in the queue of this round's first segments, how many those are yet, and where the round ends.
    shortest_wait: Span,
    waits: u32,
    /// The shortest wait there ever was on this connection.
    least_wait: Span,
    round_end: u64,
    /// How many bytes were acknowledged.
    arrived: u64,
    /// The next position to send, and the one up to which the last loss was.
    next: u64,
    recover: u64,
    /// Segments to be sent again.
    again: VecDeque<Segment>,
    /// The position that the receiver waits for, and what came after it.
    awaited: u64,
    early: BTreeMap<u64, Segment>,
}

impl Default for Tcp {
    fn default() -> Self {
        Self {
            window: FIRST_WINDOW,
            threshold: u64::MAX,
            in_flight: 0,
            shortest_wait: Span::ZERO,
            waits: 0,
            least_wait: Span::ZERO,
            round_end: 0,
            arrived: 0,
            next: 0,
            recover: 0,
            again: VecDeque::new(),
            awaited: 0,
            early: BTreeMap::new(),
        }
    }
}

impl Tcp {
    /// The handshake waited so long in the line's queue.
    pub fn open(waited: Span) -> Self {
        Self { least_wait: waited, ..Self::default() }
    }

    /// Whether the window has room.
    pub fn may_send(&self) -> bool {
        self.in_flight < self.window
    }

    /// A lost segment that is to be sent now.
    pub fn send_again(&mut self) -> Option<Segment> {
        let segment = self.again.pop_front()?;
        self.in_flight += segment.len;
        Some(segment)
    }

    /// A new segment of `len` bytes is sent; its position.
    pub fn send(&mut self, len: u64) -> u64 {
        let at = self.next;
        self.next += len;
        self.in_flight += len;
        at
    }

    /// The sender learns that `segment` was lost.
    pub fn lost(&mut self, segment: Segment) {
        self.in_flight -= segment.len;
        if segment.at >= self.recover {
            self.recover = self.next;
            self.window = (self.window * 7 / 10).max(2 * SEGMENT);
            self.threshold = self.window;
        }
        self.again.push_back(segment);
    }

    /// The sender learns that `len` bytes arrived, which had `waited` in the queue of a line with this round trip.
    pub fn acknowledged(&mut self, len: u64, waited: Span, rtt: Span) {
        let filled = self.in_flight * 2 >= self.window;
        self.in_flight -= len;
        self.arrived += len;
        let fills_queue = self.fills_queue(waited, rtt);
        if !filled || !self.again.is_empty() || self.awaited < self.recover {
            return;
        }
        if self.window >= self.threshold {
            self.window += len * SEGMENT / self.window;
            return;
        }
        self.window += len;
        if fills_queue {
            self.threshold = self.window;
        }
    }

    /// HyStart: whether even the first segments of this round had to wait in the queue.
    fn fills_queue(&mut self, waited: Span, rtt: Span) -> bool {
        if self.arrived >= self.round_end {
            (self.round_end, self.waits, self.shortest_wait) = (self.next, 0, waited);
        }
        self.waits += 1;
        self.shortest_wait = self.shortest_wait.min(waited);
        let enough = rtt.scale(1, 8).clamp(Span::from_millis(4), Span::from_millis(16));
        self.least_wait = self.least_wait.min(waited);
        self.waits == 8 && self.shortest_wait >= self.least_wait + enough && self.window >= 16 * SEGMENT
    }

    /// A segment arrives; what can be read now, in order.
    pub fn arrived(&mut self, segment: Segment) -> Vec<Segment> {
        self.early.insert(segment.at, segment);
        let mut ready = Vec::new();
        while let Some(segment) = self.early.remove(&self.awaited) {
            self.awaited += segment.len;
            ready.push(segment);
        }
        ready
    }
}
