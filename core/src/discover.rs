//! What is kept of the announcements that are heard, and when the own one is sent. Not responsible for datagrams
//! ([`crate::announce`]) and sockets.
//!
//! Whatever arrives is a stranger's word: it makes nobody a peer and changes nothing about those that are. All of it is
//! bounded: how many routers are kept, how many of one address, for how long, and how many datagrams are looked at.

use core::net::SocketAddr;

use heapless::Vec;

use crate::announce::{Announcement, Name};
use crate::limits::{MAX_HEARD, MAX_HEARD_PER_ADDRESS};
use crate::time::{Instant, Span};

/// Shortest and longest pause between two announcements of a router: on average 30 s, and no two routers in step for long.
pub const PAUSE: (Span, Span) = (Span::from_millis(25_000), Span::from_millis(35_000));

/// How long a router is kept that is not heard any more: it may miss two of three.
pub const KEPT_FOR: Span = Span::from_millis(3 * PAUSE.1.as_millis() + 5_000);

/// Longest wait before the announcement with which a new router is answered, so that both know of each other at once.
const ANSWER_WITHIN: Span = Span::from_millis(1_000);

/// Shortest pause between two announcements, however many new routers want an answer.
const LEAST_PAUSE: Span = Span::from_millis(5_000);

/// Datagrams that are looked at in a second, at most. A hundred neighbours send three.
pub const DATAGRAMS_PER_SECOND: u32 = 32;

const SECOND: Span = Span::from_millis(1_000);

/// A router that was heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heard {
    /// The key that it names.
    pub public_key: [u8; 32],
    /// What it calls itself.
    pub name: Name,
    /// Where it says that it listens; the address is the one that it was heard from.
    pub address: SocketAddr,
    /// When it was heard last.
    pub last: Instant,
}

/// What became of an announcement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// It was not known.
    New,
    /// It was; its name may have changed.
    Again,
    /// It names our own key: our own one, or a copy of it.
    Own,
    /// [`MAX_HEARD_PER_ADDRESS`] of this address are kept.
    AddressFull,
    /// [`MAX_HEARD`] are kept. Who is there stays, so that a flood does not push out whom a person is about to approve.
    Full,
}

/// The routers that are heard. One is the same again if key and address are; its name is no more than a text.
#[derive(Debug, Default)]
pub struct Table {
    entries: Vec<Heard, MAX_HEARD>,
}

impl Table {
    /// Takes in what came from `from`, whose port does not matter; `own` is the own public key.
    pub fn hear(
        &mut self,
        now: Instant,
        own: &[u8; 32],
        from: SocketAddr,
        announcement: Announcement,
    ) -> Kept {
        let Announcement { public_key, name, port } = announcement;
        if public_key == *own {
            return Kept::Own;
        }
        self.forget(now);
        let mut address = from;
        address.set_port(port);
        let same =
            self.entries.iter_mut().find(|heard| (heard.public_key, heard.address) == (public_key, address));
        if let Some(heard) = same {
            (heard.name, heard.last) = (name, now);
            return Kept::Again;
        }
        let of_address = self.entries.iter().filter(|heard| heard.address.ip() == address.ip()).count();
        if of_address >= MAX_HEARD_PER_ADDRESS {
            return Kept::AddressFull;
        }
        match self.entries.push(Heard { public_key, name, address, last: now }) {
            Ok(()) => Kept::New,
            Err(_) => Kept::Full,
        }
    }

    /// Forgets who was not heard for [`KEPT_FOR`].
    pub fn forget(&mut self, now: Instant) {
        self.entries.retain(|heard| now.since(heard.last) < KEPT_FOR);
    }

    /// Forgets everybody.
    pub fn clear(&mut self) {
        self.entries.clear();
    }

    /// Who is heard, in the order in which they were heard first.
    pub fn heard(&self) -> &[Heard] {
        &self.entries
    }
}

/// When to announce.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Schedule {
    last: Option<Instant>,
    next: Instant,
}

impl Schedule {
    /// For the first time within a second: a street whose power comes back starts at one stroke.
    pub fn start(now: Instant, random: u32) -> Schedule {
        Schedule { last: None, next: now + within(ANSWER_WITHIN, random) }
    }

    /// When it is time again.
    pub fn next(&self) -> Instant {
        self.next
    }

    /// The announcement was sent, or could not be.
    pub fn announced(&mut self, now: Instant, random: u32) {
        self.last = Some(now);
        self.next = now + PAUSE.0 + within(PAUSE.1 - PAUSE.0, random);
    }

    /// A new router was heard, which may not have heard us.
    pub fn answer(&mut self, now: Instant, random: u32) {
        let soon = now + within(ANSWER_WITHIN, random);
        let earliest = self.last.map_or(soon, |last| last + LEAST_PAUSE);
        self.next = self.next.min(soon.max(earliest));
    }
}

/// A part of `span`, all alike.
fn within(span: Span, random: u32) -> Span {
    span.scale(random.into(), u32::MAX.into())
}

/// How many datagrams are looked at: [`DATAGRAMS_PER_SECOND`]. What comes beyond that is left to the socket's buffer, which
/// throws it away without waking anybody.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Intake {
    since: Instant,
    taken: u32,
}

impl Intake {
    /// Whether one more may be looked at now.
    pub fn take(&mut self, now: Instant) -> bool {
        if now.since(self.since) >= SECOND {
            *self = Intake { since: now, taken: 0 };
        }
        let may = self.taken < DATAGRAMS_PER_SECOND;
        self.taken += u32::from(may);
        may
    }

    /// Since when, or from when on, there is one to be looked at.
    pub fn open_at(&self) -> Instant {
        if self.taken < DATAGRAMS_PER_SECOND { self.since } else { self.since + SECOND }
    }
}
