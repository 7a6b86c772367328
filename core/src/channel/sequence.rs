//! The numbers of messages within a session. Not responsible for whether they are authentic.

use core::fmt;
use core::str::FromStr;

use super::Refusal;
use crate::http::decimal;
use crate::http::fields::Fields;

pub(super) const SEQUENCE: &str = "BAMQP-Sequence";

/// The number of a request: which connection of the session, and which place there. Displayed as `1.4`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sequence {
    /// The connection, counted by the coordinator from 0.
    pub link: u32,
    /// The place on it, counted from 0.
    pub place: u32,
}

impl Sequence {
    /// INIT's, which it doesn't carry: its challenge makes it new.
    pub const INIT: Sequence = Sequence { link: 0, place: 0 };

    pub(super) fn of(fields: &Fields<'_>) -> Option<Sequence> {
        core::str::from_utf8(fields.only(SEQUENCE).ok()??).ok()?.parse().ok()
    }
}

impl fmt::Display for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.link, self.place)
    }
}

impl FromStr for Sequence {
    type Err = NoSequence;

    fn from_str(text: &str) -> Result<Self, NoSequence> {
        let number = |text: &str| {
            let value = decimal(text.as_bytes()).and_then(|value| u32::try_from(value).ok());
            value.ok_or(NoSequence)
        };
        let (link, place) = text.split_once('.').ok_or(NoSequence)?;
        Ok(Sequence { link: number(link)?, place: number(place)? })
    }
}

/// Not two numbers with a dot between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoSequence;

impl fmt::Display for NoSequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("expected two numbers with a dot between")
    }
}

impl core::error::Error for NoSequence {}

/// Numbers a coordinator's requests on one connection.
#[derive(Clone, Debug)]
pub struct Outgoing {
    next: Option<Sequence>,
}

impl Outgoing {
    pub(super) fn new(link: u32) -> Outgoing {
        Outgoing { next: Some(Sequence { link, place: 0 }) }
    }

    pub(super) fn after_init() -> Outgoing {
        Outgoing { next: following(Sequence::INIT) }
    }

    /// `None` after 2^32 requests.
    pub(super) fn next(&mut self) -> Option<Sequence> {
        let next = self.next;
        self.next = next.and_then(following);
        next
    }
}

fn following(sequence: Sequence) -> Option<Sequence> {
    Some(Sequence { place: sequence.place.checked_add(1)?, ..sequence })
}

/// The last request that came in a session on one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Incoming {
    last: Sequence,
}

impl Incoming {
    /// On the connection on which INIT came.
    pub const AFTER_INIT: Incoming = Incoming { last: Sequence::INIT };

    /// Takes the next one.
    ///
    /// # Errors
    /// [`Refusal::Replayed`] or [`Refusal::OutOfOrder`].
    pub(super) fn take(&mut self, sequence: Sequence) -> Result<(), Refusal> {
        let expected = following(self.last).ok_or(Refusal::Replayed)?;
        if sequence == expected {
            self.last = sequence;
            return Ok(());
        }
        let is_old = sequence.link != expected.link || sequence.place < expected.place;
        Err(if is_old { Refusal::Replayed } else { Refusal::OutOfOrder })
    }
}

/// Which numbers of connections were used in a session. Connections that are made at the same time may arrive in
/// another order, so the last 64 are told apart; older ones count as used (as RFC 4303 section 3.4.3 does it).
#[derive(Clone, Copy, Debug)]
pub struct Links {
    highest: u32,
    /// Bit n: `highest - n` was used.
    used: u64,
}

impl Links {
    /// Only INIT's connection was used.
    pub const AFTER_INIT: Links = Links { highest: 0, used: 1 };

    /// Begins with the first request on a new connection.
    ///
    /// # Errors
    /// [`Refusal::Replayed`] or [`Refusal::OutOfOrder`].
    pub(super) fn begin(&mut self, sequence: Sequence) -> Result<Incoming, Refusal> {
        let (highest, used) = match sequence.link.checked_sub(self.highest) {
            Some(ahead) => (sequence.link, self.used.checked_shl(ahead).unwrap_or(0)),
            None => (self.highest, self.used),
        };
        let bit = 1u64.checked_shl(highest - sequence.link).unwrap_or(0);
        if bit == 0 || used & bit != 0 {
            return Err(Refusal::Replayed);
        }
        if sequence.place != 0 {
            return Err(Refusal::OutOfOrder);
        }
        (self.highest, self.used) = (highest, used | bit);
        Ok(Incoming { last: sequence })
    }
}
