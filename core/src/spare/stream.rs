//! How many bytes of payload came over an interface, and how many of them on a connection of ours. Not responsible for
//! reading the system's counters.

/// What a packet has besides its payload: Ethernet, IPv4, and TCP with timestamps. (Without Ethernet, or with IPv6, that is
/// one hundredth off at most.)
const HEADERS: u64 = 14 + 20 + 32;

/// An interface's counters of what it received.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Bytes, with all headers.
    pub bytes: u64,
    /// Packets: what the kernel joined counts as one, and has its headers once.
    pub packets: u64,
}

/// Bytes of payload that came between two readings; 0 if the counters were set back meanwhile.
pub fn payload(before: Counters, after: Counters) -> u64 {
    let bytes = after.bytes.saturating_sub(before.bytes);
    let packets = after.packets.saturating_sub(before.packets);
    bytes.saturating_sub(packets.saturating_mul(HEADERS))
}

/// What the kernel tells of one connection (`TCP_INFO`, tcp(7)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Bytes that came in order.
    pub bytes: u64,
    /// Segments with payload that came, in order or not; wraps around. 0: the kernel is too old to tell.
    pub segments: u32,
}

/// One connection. What came out of order is in no byte counter until what is missing was sent again, a round trip later; as
/// it can be many bytes, and would look like somebody else's, it is reckoned from the number of segments.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stream {
    last: Progress,
    /// Bytes that are taken to have come out of order.
    ahead: u64,
    /// Bytes of the sample before.
    lately: u64,
}

impl Stream {
    /// Bytes that came since the last time.
    pub fn advance(&mut self, now: Progress) -> u64 {
        let bytes = now.bytes.saturating_sub(self.last.bytes);
        let segments = u64::from(now.segments.wrapping_sub(self.last.segments));
        // Of as long as they are on the average: the last one of an answer is shorter.
        let average = now.bytes.checked_div(u64::from(now.segments)).unwrap_or(0);
        self.last = now;
        let expected = segments.saturating_mul(average);
        let before = self.ahead;
        // What was reckoned wrong is forgotten by and by.
        self.ahead = (before - before / 16).saturating_add(expected).saturating_sub(bytes);
        self.lately = bytes.saturating_add(self.ahead).saturating_sub(before);
        self.lately
    }

    /// What may still come if it is closed now: what was on its way.
    pub fn stray(&self) -> u64 {
        self.lately.saturating_mul(4)
    }
}
