//! FEEDBACK tells those who took part in a session how each of them did. Not responsible for what follows from it: a
//! coordinator can lie.

use core::fmt;
use core::str::FromStr;

use heapless::Vec;

use super::{Fingerprint, MessageError, SessionId, is_displayed_as, parsed, required};
use crate::http::decimal;
use crate::http::fields::Fields;
use crate::http::write::HeadWriter;
use crate::limits::MAX_LANES;

/// What a coordinator says of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing but what may happen to anybody: timeouts and lost connections.
    Clean,
    /// It broke the protocol.
    Protocol,
    /// It brought other bytes than the origin has; a third lane agreed.
    Lie,
    /// It brought other bytes than the own link, and nobody could tell who was wrong.
    Mismatch,
}

impl Verdict {
    const ALL: [Verdict; 4] = [Verdict::Clean, Verdict::Protocol, Verdict::Lie, Verdict::Mismatch];
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Verdict::Clean => "clean",
            Verdict::Protocol => "protocol",
            Verdict::Lie => "lie",
            Verdict::Mismatch => "mismatch",
        })
    }
}

/// One peer's part in a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Whose.
    pub router: Fingerprint,
    /// What it is said to have done.
    pub verdict: Verdict,
    /// Payload bytes that it brought.
    pub bytes: u64,
    /// Times that nothing came from it for too long.
    pub timeouts: u32,
}

/// Displayed as `<fingerprint>;verdict=clean;bytes=100;timeouts=0`.
impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Part { router, verdict, bytes, timeouts } = self;
        write!(f, "{router};verdict={verdict};bytes={bytes};timeouts={timeouts}")
    }
}

impl FromStr for Part {
    type Err = NoPart;

    /// Parameters of other names are for later versions.
    fn from_str(text: &str) -> Result<Self, NoPart> {
        let mut parts = text.split(';');
        let router = parts.next().and_then(|router| router.parse().ok()).ok_or(NoPart)?;
        let (mut verdict, mut bytes, mut timeouts) = (None, None, None);
        for parameter in parts {
            let (name, value) = parameter.split_once('=').ok_or(NoPart)?;
            match name {
                "verdict" => {
                    verdict = Verdict::ALL.into_iter().find(|verdict| is_displayed_as(verdict, value))
                }
                "bytes" => bytes = decimal(value.as_bytes()),
                "timeouts" => {
                    timeouts = decimal(value.as_bytes()).and_then(|count| u32::try_from(count).ok())
                }
                _ => {}
            }
        }
        let (verdict, bytes) = (verdict.ok_or(NoPart)?, bytes.ok_or(NoPart)?);
        Ok(Part { router, verdict, bytes, timeouts: timeouts.ok_or(NoPart)? })
    }
}

/// Not the part of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoPart;

impl fmt::Display for NoPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("expected a fingerprint, verdict, bytes and timeouts")
    }
}

impl core::error::Error for NoPart {}

/// `POST /FEEDBACK`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Feedback {
    /// The session.
    pub session: SessionId,
    /// Everybody's part, at least one.
    pub parts: Vec<Part, MAX_LANES>,
}

const OUTCOME: &str = "BAMQP-Outcome";

impl Feedback {
    /// Writes the request to the peer that is called `host`.
    pub fn write(&self, head: &mut HeadWriter<'_>, host: &dyn fmt::Display) {
        head.request("POST", "/FEEDBACK")
            .field_args("Host", format_args!("{host}"))
            .field_args("BAMQP-Session", format_args!("{}", self.session))
            .field_args(OUTCOME, format_args!("{}", List(&self.parts)))
            .field("Content-Length", "0");
    }

    pub(super) fn parse(fields: &Fields<'_>) -> Result<Feedback, MessageError> {
        let mut parts = Vec::new();
        for part in required(fields, OUTCOME)?.split(',') {
            let part = part.trim().parse().map_err(|_| MessageError::Malformed(OUTCOME))?;
            parts.push(part).map_err(|_| MessageError::Malformed(OUTCOME))?;
        }
        Ok(Feedback { session: parsed(fields, "BAMQP-Session")?, parts })
    }
}

struct List<'a>(&'a [Part]);

impl fmt::Display for List<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for part in self.0 {
            write!(f, "{separator}{part}")?;
            separator = ", ";
        }
        Ok(())
    }
}

/// Writes the answer: that it was read.
pub fn write_answer(head: &mut HeadWriter<'_>) {
    head.status(200, "OK").field("Content-Length", "0");
}
