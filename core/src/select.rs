//! Which peers to ask for help in a session. Not responsible for knowing them.

use core::fmt;

use heapless::Vec;

use crate::limits::MAX_LANES;
use crate::time::{Instant, Span};

/// The most peers of one session: two lanes are the own link's.
pub const MAX_PEERS: usize = MAX_LANES - 2;

/// A configured peer as the choice sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Whether it answered its last HELLO, with the key that was configured.
    pub is_up: bool,
    /// What it is expected to bring in bytes per second: what an earlier session measured, else what it offers; 0 if
    /// neither is known.
    pub rate: u64,
    /// The round trip to it.
    pub rtt: Span,
    /// It declined, and is not to be asked before this.
    pub not_before: Option<Instant>,
}

/// Why a peer is not asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Skipped {
    /// It can't be reached, or is not who it should be.
    Down,
    /// It asked to be left alone for a while.
    NotBefore(Instant),
    /// Better ones fill the session.
    Full,
}

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Skipped::Down => "down",
            Skipped::NotBefore(_) => "not-before",
            Skipped::Full => "full",
        })
    }
}

/// Whether a peer may be asked at all.
///
/// # Errors
/// Why not.
pub fn may_ask(now: Instant, candidate: &Candidate) -> Result<(), Skipped> {
    match candidate {
        Candidate { is_up: false, .. } => Err(Skipped::Down),
        Candidate { not_before: Some(at), .. } if now < *at => Err(Skipped::NotBefore(*at)),
        _ => Ok(()),
    }
}

/// The places of at most `most` (and [`MAX_PEERS`]) of `candidates`: the fastest first, of equally fast ones the nearest.
/// One of which nothing is known comes last, but is asked if there is room: that is how it becomes known.
pub fn select(now: Instant, candidates: &[Candidate], most: usize) -> Vec<usize, MAX_PEERS> {
    let mut picked: Vec<usize, MAX_PEERS> = Vec::new();
    let rank = |place: usize| candidates.get(place).map(|c| (core::cmp::Reverse(c.rate), c.rtt));
    for (place, candidate) in candidates.iter().enumerate() {
        if may_ask(now, candidate).is_err() {
            continue;
        }
        let at = picked.iter().position(|&other| rank(place) < rank(other)).unwrap_or(picked.len());
        if picked.is_full() && at < picked.len() {
            picked.pop();
        }
        // At the end of a full list it is the slowest of all.
        let _ = picked.insert(at, place);
    }
    picked.truncate(most);
    picked
}
