//! Why peers decline, and why sessions end: enums <-> the tokens in `BAMQP-Reason`. Not responsible for what
//! follows from a reason.

use core::fmt;
use core::str::FromStr;

use super::is_displayed_as;
use crate::http::decimal;

/// Why a peer does not take part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeclineReason {
    /// It works for as many sessions as it can, or its household needs the link.
    Busy,
    /// It does not know or trust this coordinator.
    Untrusted,
    /// It works for a session with this id already.
    DuplicateSession,
    /// It may not fetch that target.
    RefusedTarget,
    /// This coordinator has had its share.
    Quota,
    /// The session has passed as many routers as it may.
    TooManyHops,
}

impl DeclineReason {
    /// All of them.
    pub const ALL: [DeclineReason; 6] = [
        DeclineReason::Busy,
        DeclineReason::Untrusted,
        DeclineReason::DuplicateSession,
        DeclineReason::RefusedTarget,
        DeclineReason::Quota,
        DeclineReason::TooManyHops,
    ];

    /// Its place in [`DeclineReason::ALL`], for counting.
    pub fn index(self) -> usize {
        DeclineReason::ALL.iter().position(|other| *other == self).unwrap_or(0)
    }

    /// The status of a DECLINE for this reason.
    pub fn status(self) -> u16 {
        match self {
            DeclineReason::Busy => 503,
            DeclineReason::Untrusted | DeclineReason::RefusedTarget => 403,
            DeclineReason::DuplicateSession => 409,
            DeclineReason::Quota => 429,
            DeclineReason::TooManyHops => 508,
        }
    }
}

impl fmt::Display for DeclineReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DeclineReason::Busy => "busy",
            DeclineReason::Untrusted => "untrusted",
            DeclineReason::DuplicateSession => "duplicate-session",
            DeclineReason::RefusedTarget => "refused-target",
            DeclineReason::Quota => "quota",
            DeclineReason::TooManyHops => "too-many-hops",
        })
    }
}

impl FromStr for DeclineReason {
    type Err = UnknownReason;

    fn from_str(text: &str) -> Result<Self, UnknownReason> {
        DeclineReason::ALL.into_iter().find(|reason| is_displayed_as(reason, text)).ok_or(UnknownReason)
    }
}

/// Why a session ends (sent by the coordinator), or why there is no 206 (sent by the peer).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DropReason {
    /// The download is complete.
    Done,
    /// The client went away.
    ClientGone,
    /// The peer is too slow to be of use.
    TooSlow,
    /// The peer stopped delivering.
    TimedOut,
    /// What the peer delivered was not what was asked for.
    Fault,
    /// Pooling ended for another reason; the own link goes on alone.
    Ended,
    /// The origin answered the peer with this status, 100 to 999.
    OriginStatus(u16),
    /// The origin has another file by now.
    OriginChanged,
    /// The origin can't be reached or does not answer.
    OriginUnreachable,
    /// The origin's answer is not the range under the validator.
    OriginUnusable,
    /// The peer has no session of this id (any more).
    UnknownSession,
    /// The range is not within the file of the session.
    BadRange,
    /// The peer's household needs the link, or it has other reasons not to fetch now.
    Busy,
    /// The coordinator has had its share.
    Quota,
    /// The router is being stopped.
    Shutdown,
}

impl DropReason {
    const PLAIN: [DropReason; 14] = [
        DropReason::Done,
        DropReason::ClientGone,
        DropReason::TooSlow,
        DropReason::TimedOut,
        DropReason::Fault,
        DropReason::Ended,
        DropReason::OriginChanged,
        DropReason::OriginUnreachable,
        DropReason::OriginUnusable,
        DropReason::UnknownSession,
        DropReason::BadRange,
        DropReason::Busy,
        DropReason::Quota,
        DropReason::Shutdown,
    ];
}

const ORIGIN_STATUS: &str = "origin-status-";

impl fmt::Display for DropReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DropReason::Done => "done",
            DropReason::ClientGone => "client-gone",
            DropReason::TooSlow => "too-slow",
            DropReason::TimedOut => "timed-out",
            DropReason::Fault => "fault",
            DropReason::Ended => "ended",
            DropReason::OriginStatus(status) => return write!(f, "{ORIGIN_STATUS}{status}"),
            DropReason::OriginChanged => "origin-changed",
            DropReason::OriginUnreachable => "origin-unreachable",
            DropReason::OriginUnusable => "origin-unusable",
            DropReason::UnknownSession => "unknown-session",
            DropReason::BadRange => "bad-range",
            DropReason::Busy => "busy",
            DropReason::Quota => "quota",
            DropReason::Shutdown => "shutdown",
        })
    }
}

impl FromStr for DropReason {
    type Err = UnknownReason;

    fn from_str(text: &str) -> Result<Self, UnknownReason> {
        if let Some(status) = text.strip_prefix(ORIGIN_STATUS) {
            let status = decimal(status.as_bytes()).and_then(|n| u16::try_from(n).ok());
            let status = status.filter(|n| (100..=999).contains(n)).ok_or(UnknownReason)?;
            return Ok(DropReason::OriginStatus(status));
        }
        DropReason::PLAIN.into_iter().find(|reason| is_displayed_as(reason, text)).ok_or(UnknownReason)
    }
}

/// No reason has this token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownReason;

impl fmt::Display for UnknownReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("unknown reason")
    }
}

impl core::error::Error for UnknownReason {}
