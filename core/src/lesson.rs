//! What a pooled download teaches about its origin, and for how long: some hand out URLs that are good for one use or for one
//! address, some refuse strangers, some serve different bytes to different routers. Not responsible for remembering it.

use core::fmt;

use crate::lane::{Dispute, LaneKind, LaneStats};
use crate::time::Span;

/// Why an origin is not pooled for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lesson {
    /// It served different bytes under one validator: for 12 hours.
    Inconsistent,
    /// It did not answer the own link a second time, with this status: its URLs are good for one use, or it serves one
    /// connection. For an hour.
    OneUse(u16),
    /// It answered peers with this status and none of them with bytes: for an hour, or ten minutes if it says that it has too
    /// much to do (429, 503).
    RefusesPeers(u16),
}

impl Lesson {
    /// What the lanes of a session teach.
    pub fn of(lanes: impl Iterator<Item = (LaneKind, LaneStats)> + Clone) -> Option<Lesson> {
        if lanes.clone().any(|(_, stats)| stats.verdict == Some(Dispute::Origin)) {
            return Some(Lesson::Inconsistent);
        }
        let of =
            |wanted: LaneKind| lanes.clone().filter(move |(kind, _)| *kind == wanted).map(|(_, stats)| stats);
        let refused = |stats: LaneStats| stats.refused.filter(|status| is_refusal(*status));
        let own = || of(LaneKind::Own).filter(|stats| stats.bytes == 0 && stats.checked == 0);
        if let Some(status) = own().find_map(refused) {
            return Some(Lesson::OneUse(status));
        }
        if of(LaneKind::Peer).any(|stats| stats.bytes > 0) {
            return None;
        }
        of(LaneKind::Peer).find_map(refused).map(Lesson::RefusesPeers)
    }

    /// For how long it counts.
    pub fn lasts(self) -> Span {
        const MINUTE: u64 = 60_000;
        Span::from_millis(match self {
            Lesson::Inconsistent => 12 * 60 * MINUTE,
            Lesson::RefusesPeers(429 | 503) => 10 * MINUTE,
            Lesson::OneUse(_) | Lesson::RefusesPeers(_) => 60 * MINUTE,
        })
    }
}

/// Whether a status says that asking again from elsewhere, or again at all, is not wanted.
fn is_refusal(status: u16) -> bool {
    matches!(status, 401 | 403 | 410 | 429 | 451 | 503)
}

impl fmt::Display for Lesson {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Lesson::Inconsistent => f.write_str("different bytes for different routers"),
            Lesson::OneUse(status) => write!(f, "no second answer (status {status})"),
            Lesson::RefusesPeers(status) => write!(f, "refuses peers (status {status})"),
        }
    }
}
