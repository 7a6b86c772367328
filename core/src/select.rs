//! Which peers to ask for help in a session, and why not the others. Not responsible for knowing them.
//!
//! Trust comes first: whom we don't trust is never picked, however fast. Beside trusted peers a newcomer takes part in
//! one of [`PROBATION_SHARE`] sessions; where there is nobody trusted to ask, newcomers are asked at once. Of the rest
//! those come first that are expected to bring most: rate, weighed by how reliable they were and by how far away they
//! are. One whose help is not worth its cost is left out.

use core::cmp::Reverse;
use core::fmt;

use heapless::Vec;

use crate::limits::{MAX_LANES, SLOT_BYTES};
use crate::plan::time_for;
use crate::time::{Instant, Span};
use crate::trust::{ONE, Standing, Violation};

/// The most peers of one session: two lanes are the own link's.
pub const MAX_PEERS: usize = MAX_LANES - 2;

/// Beside trusted peers a newcomer takes part in one of so many sessions.
pub const PROBATION_SHARE: u32 = 4;

/// Help that makes a download faster by less than one part in so many is not worth a lane's memory and the risk.
const WORTHWHILE: u64 = 64;

/// Of what a peer only says that it brings, so many times the own link's rate count when others are weighed against it at
/// most: nobody keeps all others out by promising everything.
const BELIEVED: u64 = 8;

/// How long the longest chunks take (DESIGN section 5, rule 2): a round trip of that length halves what a lane brings
/// that is asked for one chunk at a time.
const CHUNK_TIME: Span = Span::from_millis(100);

/// A configured peer as the choice sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Whether it answered its last HELLO, with the key that was configured.
    pub is_up: bool,
    /// How far it is trusted.
    pub standing: Standing,
    /// What it is expected to bring in bytes per second: what an earlier session measured, else what it offers; 0 if
    /// neither is known.
    pub rate: u64,
    /// Whether `rate` was measured so lately that asking again would teach nothing.
    pub is_fresh: bool,
    /// How well it worked in earlier sessions, in thousandths; [`ONE`] if there were none.
    pub reliability: u32,
    /// The round trip to it.
    pub rtt: Span,
    /// Segments that its internet link lost lately.
    pub losses: u64,
    /// It declined, and is not to be asked before this.
    pub not_before: Option<Instant>,
}

/// What the choice depends on besides the peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Download {
    /// The own link's rate in bytes per second; 0: unknown, then everybody's help is worth its cost.
    pub own_rate: u64,
    /// Bytes still to come.
    pub rest: u64,
    /// Random, so that nobody knows beforehand in which sessions a newcomer takes part.
    pub draw: u32,
}

/// What becomes of a candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is asked.
    Asked,
    /// It isn't.
    Skipped(Skipped),
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Verdict::Asked => f.write_str("asked"),
            Verdict::Skipped(why) => write!(f, "not asked: {why}"),
        }
    }
}

/// Why a peer is not asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Skipped {
    /// It can't be reached, or is not who it should be.
    Down,
    /// A violation, less than twelve hours of running time ago.
    Barred(Violation),
    /// Its record speaks against it.
    Untrusted,
    /// It asked to be left alone for a while.
    NotBefore(Instant),
    /// A newcomer that is left out of this session because there are trusted peers.
    Probation,
    /// The download would be done before its first slot came.
    TooLate,
    /// It would hardly make the download faster.
    TooSlow,
    /// Better ones fill the session.
    Full,
}

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Skipped::Down => "down",
            Skipped::Barred(why) => return write!(f, "barred ({why})"),
            Skipped::Untrusted => "untrusted",
            Skipped::NotBefore(_) => "it declined and is not to be asked yet",
            Skipped::Probation => "a newcomer, not in every session",
            Skipped::TooLate => "the rest would be done before it began",
            Skipped::TooSlow => "too slow to be worth its cost",
            Skipped::Full => "enough better ones",
        })
    }
}

/// Whether a peer may be asked at all.
///
/// # Errors
/// Why not.
pub fn may_ask(now: Instant, candidate: &Candidate) -> Result<(), Skipped> {
    match candidate {
        Candidate { standing: Standing::Barred { why, .. }, .. } => Err(Skipped::Barred(*why)),
        Candidate { standing: Standing::Untrusted { .. }, .. } => Err(Skipped::Untrusted),
        Candidate { is_up: false, .. } => Err(Skipped::Down),
        Candidate { not_before: Some(at), .. } if now < *at => Err(Skipped::NotBefore(*at)),
        _ => Ok(()),
    }
}

/// The places of at most `most` (and [`MAX_PEERS`]) of `candidates`, best first. One of whose rate nothing is known
/// comes last, but is asked if there is room: that is how it becomes known. `tell` gets the verdict on each.
pub fn select(
    now: Instant,
    download: &Download,
    candidates: &[Candidate],
    most: usize,
    mut tell: impl FnMut(usize, Verdict),
) -> Vec<usize, MAX_PEERS> {
    let is_trusted =
        |c: &Candidate| matches!(c.standing, Standing::Trusted { .. }) && may_ask(now, c).is_ok();
    let any_trusted = candidates.iter().any(is_trusted);
    let mut newcomers = download.draw;
    let mut ranked: Vec<usize, MAX_PEERS> = Vec::new();
    let rank = |place: usize| candidates.get(place).map(Candidate::rank);
    for (place, candidate) in candidates.iter().enumerate() {
        if let Err(why) = may_ask(now, candidate) {
            tell(place, Verdict::Skipped(why));
            continue;
        }
        if any_trusted && matches!(candidate.standing, Standing::Newcomer { .. }) {
            // They take turns, so that a session has few of them.
            newcomers = newcomers.wrapping_add(1);
            if !newcomers.is_multiple_of(PROBATION_SHARE) {
                tell(place, Verdict::Skipped(Skipped::Probation));
                continue;
            }
        }
        let at = ranked.iter().position(|&other| rank(place) < rank(other)).unwrap_or(ranked.len());
        if ranked.is_full() {
            let last = if at < ranked.len() { ranked.pop() } else { Some(place) };
            last.into_iter().for_each(|last| tell(last, Verdict::Skipped(Skipped::Full)));
        }
        let _ = ranked.insert(at, place); // full, it was told so
    }
    let mut picked = Vec::new();
    let mut total = download.own_rate;
    for place in ranked {
        let Some(candidate) = candidates.get(place) else { continue };
        let verdict = if picked.len() == most {
            Verdict::Skipped(Skipped::Full)
        } else {
            candidate.is_worth_it(download, total).map_or_else(Verdict::Skipped, |()| Verdict::Asked)
        };
        tell(place, verdict);
        if verdict == Verdict::Asked {
            total = total.saturating_add(candidate.believed(download));
            let _ = picked.push(place); // as much room as in `ranked`
        }
    }
    picked
}

impl Candidate {
    /// What it is expected to bring, most first; then by losses and distance.
    fn rank(&self) -> (Reverse<u64>, u64, Span) {
        let reliable = self.rate.saturating_mul(self.reliability.min(ONE).into()) / u64::from(ONE);
        let near =
            reliable.saturating_mul(CHUNK_TIME.as_micros()) / (CHUNK_TIME + self.rtt).as_micros().max(1);
        (Reverse(near), self.losses, self.rtt)
    }

    /// What others are weighed against.
    fn believed(&self, download: &Download) -> u64 {
        if self.is_fresh { self.rate } else { self.rate.min(download.own_rate.saturating_mul(BELIEVED)) }
    }

    /// Whether its help is worth its cost beside lanes that bring `total` bytes per second together.
    fn is_worth_it(&self, download: &Download, total: u64) -> Result<(), Skipped> {
        if download.own_rate == 0 || self.rate == 0 {
            return Ok(());
        }
        if self.rtt + time_for(SLOT_BYTES as u64, self.rate) > time_for(download.rest, total) {
            return Err(Skipped::TooLate);
        }
        // What is fetched again to check it the own link can't bring meanwhile.
        let cost = u64::from(self.standing.checking().cost_per_10000());
        let gain = self.rate / 10_000 * (10_000 - cost);
        // It is tried again from time to time, or it would stay out for good.
        if self.is_fresh && gain.saturating_mul(WORTHWHILE) < total {
            return Err(Skipped::TooSlow);
        }
        Ok(())
    }
}
