//! What follows from a record: whether to work with a router, and how closely to check what it brings. Not responsible
//! for how it comes about.

use core::fmt;

/// What an honest router never does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Violation {
    /// It delivered other bytes than the origin, as a third router confirmed.
    Lie,
    /// Its bytes differed from the own link's at three origins, without anyone to ask.
    Mismatches,
    /// Its answers broke the protocol.
    Protocol,
}

impl Violation {
    /// All of them.
    pub const ALL: [Violation; 3] = [Violation::Lie, Violation::Mismatches, Violation::Protocol];
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Violation::Lie => "lie",
            Violation::Mismatches => "mismatches",
            Violation::Protocol => "protocol",
        })
    }
}

/// How far a peer is trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It has no record yet, or one that is too short to speak.
    Newcomer {
        /// How many clean sessions it has, below [`super::PROBATION`].
        clean: u32,
    },
    /// T > U, and no violation lately.
    Trusted {
        /// Whether it was accused lately.
        accused: bool,
    },
    /// It did what an honest router never does.
    Barred {
        /// What that was.
        why: Violation,
        /// Seconds of running time that are left.
        left: u32,
    },
    /// T <= U.
    Untrusted {
        /// Seconds of running time until it is a newcomer again.
        left: u32,
    },
}

/// How much of what a peer brings is fetched again over the own link (DESIGN section 7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checking {
    /// Places of 16 bytes in every chunk.
    pub places: u8,
    /// Whole chunks, of ten thousand.
    pub audit_per_10000: u16,
}

impl Checking {
    /// For newcomers and the accused: about 3 % of the payload.
    pub const FULL: Checking = Checking { places: 24, audit_per_10000: 100 };
    /// For trusted peers: about 0.75 % of the payload.
    pub const LIGHT: Checking = Checking { places: 4, audit_per_10000: 25 };

    /// About how much of a peer's payload is fetched again because of it, in ten-thousandths, heads included.
    pub fn cost_per_10000(self) -> u16 {
        if self == Checking::LIGHT { 75 } else { 300 }
    }
}

impl Standing {
    /// How closely to check what it brings.
    pub fn checking(&self) -> Checking {
        match self {
            Standing::Trusted { accused: false } => Checking::LIGHT,
            _ => Checking::FULL,
        }
    }

    /// Whether to work with it at all: to ask it, and to work for it.
    pub fn is_acceptable(&self) -> bool {
        matches!(self, Standing::Newcomer { .. } | Standing::Trusted { .. })
    }
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Standing::Newcomer { .. } => "newcomer",
            Standing::Trusted { .. } => "trusted",
            Standing::Barred { .. } => "barred",
            Standing::Untrusted { .. } => "untrusted",
        })
    }
}
