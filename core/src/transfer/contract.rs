//! What the state machine and those who drive it say to each other. Not responsible for what follows from it.

use core::ops::Range;

use crate::lane::{Fault, LaneKind, LaneState, LaneStats};
use crate::plan::Pace;
use crate::time::{Instant, Span};
use crate::verify::{Places, Sample};

/// A lane of a session; [`LaneId::ORIGINAL`], [`LaneId::OWN`], then the peers in the order of
/// [`super::Transfer::add_peer`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneId(pub(super) u8);

impl LaneId {
    /// The response to the client's own request.
    pub const ORIGINAL: LaneId = LaneId(0);
    /// The own link's second connection.
    pub const OWN: LaneId = LaneId(1);

    /// The lane at a place in the order of lanes; what lies past the end stands for no lane.
    pub fn from_index(index: usize) -> LaneId {
        LaneId(u8::try_from(index).unwrap_or(u8::MAX))
    }

    /// Its place in the order of lanes.
    pub fn index(self) -> usize {
        self.0.into()
    }
}

/// Which of a lane's connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conn {
    /// The one that requests are pipelined on.
    Main,
    /// A second one, opened for slots that can't wait for what is due on the first (DESIGN section 5, rule 5).
    Spare,
}

/// When a request was sent and when its answer's head was there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadTimes {
    /// The request left, after the connection was made.
    pub sent: Instant,
    /// The head was complete.
    pub at: Instant,
}

/// What happened to a lane.
#[derive(Debug)]
pub enum LaneEvent<'a, S> {
    /// The last order was carried out, or its thread was woken, or the time to come back was reached.
    Idle,
    /// The peer accepted.
    Ready {
        /// What it promises, bytes per second; 0 if it does not say.
        rate: u64,
        /// Bytes that it and the sockets on the way can hold.
        hold: u32,
    },
    /// `len` bytes for file offset `at` were read into `slot`: all that was asked for, or less because the thread
    /// was woken or its time had come.
    Filled {
        /// Which connection.
        conn: Conn,
        /// The buffer of [`LaneDo::Read`].
        slot: S,
        /// Where the bytes lie in the file.
        at: u64,
        /// How many came.
        len: u32,
        /// If this chunk's head came with it.
        head: Option<HeadTimes>,
    },
    /// The answer to [`LaneDo::Sample`] is there.
    Sampled {
        /// Which connection.
        conn: Conn,
        /// Its places.
        samples: &'a [Sample],
        /// Bytes of the answer in all.
        wire: u32,
        /// When it was asked for and came.
        head: Option<HeadTimes>,
    },
    /// The connection or the answer was of no use. All of the lane's connections are to be closed.
    Failed {
        /// The buffer of [`LaneDo::Read`], if it was reading.
        slot: Option<S>,
        /// What was wrong.
        why: Fault,
    },
}

/// What a lane does next.
#[derive(Debug)]
pub enum LaneDo<S> {
    /// Ask for these bytes of the file, on a new connection if there is none.
    Request {
        /// Which connection.
        conn: Conn,
        /// Offsets into the file.
        range: Range<u64>,
    },
    /// Read `len` bytes of the oldest unfinished answer (its head first) into the slot, at `at % SLOT_BYTES`.
    Read {
        /// Which connection.
        conn: Conn,
        /// Where to.
        slot: S,
        /// Offset into the file.
        at: u64,
        /// How many bytes.
        len: u32,
        /// How many bytes are worth waking up for, at most as many as the answer still has (DESIGN section 4).
        mark: u32,
        /// When to come back at the latest.
        by: Instant,
    },
    /// Ask for these places of the file, in one request.
    Sample {
        /// Which connection.
        conn: Conn,
        /// Which places.
        places: Places,
    },
    /// Read on in the oldest unfinished answer, which is one to [`LaneDo::Sample`], until it is there.
    ReadSample {
        /// Which connection.
        conn: Conn,
        /// When to come back at the latest.
        by: Instant,
    },
    /// Wait to be woken, or until then.
    Wait(Option<Instant>),
    /// Close all of the lane's connections, and come back.
    Close,
    /// The lane is done: close its connections; do not come back.
    End,
}

/// What happened to the client's connection.
#[derive(Debug)]
pub enum ClientEvent<S> {
    /// Its thread is ready, or was woken.
    Idle,
    /// All of this slot's bytes were written.
    Written(S),
    /// The client hung up.
    Gone,
}

/// What the client's thread does next.
#[derive(Debug)]
pub enum ClientDo<S> {
    /// Write `len` bytes of the slot, from `start` on.
    Write {
        /// Where from.
        slot: S,
        /// First byte within the slot.
        start: u32,
        /// How many bytes.
        len: u32,
    },
    /// Wait to be woken, or until then.
    Wait(Option<Instant>),
    /// The session is over. Anything but [`Outcome::Complete`] means to close the client's connection.
    End(Outcome),
}

/// How a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The client has all of its bytes.
    Complete,
    /// The client hung up.
    ClientGone,
    /// No lane can bring the rest; the last one's fault.
    NoLaneLeft(Fault),
    /// What peers brought can't be checked: the own link is dead, and no trusted peer can stand in for it.
    Unverified,
}

/// The threads to wake after a call: one bit a lane, bit 63 for the client's thread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wake(u64);

impl Wake {
    const CLIENT: u64 = 1 << 63;

    /// Whether the client's thread is to be woken.
    pub fn client(self) -> bool {
        self.0 & Self::CLIENT != 0
    }

    /// Whether lane number `index` is to be woken.
    pub fn lane(self, index: usize) -> bool {
        index < 63 && self.0 & (1 << index) != 0
    }

    /// Whether nobody is.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(super) fn add_lane(&mut self, index: usize) {
        self.0 |= 1 << index;
    }

    pub(super) fn add_client(&mut self) {
        self.0 |= Self::CLIENT;
    }
}

/// A lane as reports show it.
#[derive(Clone, Copy, Debug)]
pub struct LaneView {
    /// What kind of way to the origin it is.
    pub kind: LaneKind,
    /// Where it stands.
    pub state: LaneState,
    /// What it did.
    pub stats: LaneStats,
    /// Its rate, round trip and debt at present.
    pub pace: Pace,
    /// Whether the rate was measured in this session.
    pub is_measured: bool,
}

/// What is known of the own link when a session starts.
#[derive(Clone, Copy, Debug)]
pub struct OwnLink {
    /// Its rate in bytes per second, as measured or guessed.
    pub rate: u64,
    /// Its round trip to the origin.
    pub rtt: Span,
    /// Bytes that a connection's receive buffer holds.
    pub hold: u32,
}
