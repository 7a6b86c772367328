//! The ledger: one line of text per entry, each with the hash of the one before. Not responsible for files, for when
//! something is written down, nor for whether an INIT in it is signed ([`evidence`]).
//!
//! ```text
//! seq=2 ⇥ boot=7 ⇥ time=2026-08-01T12:00:00Z ⇥ up=4711 ⇥ INIT ⇥ key=… ⇥ … ⇥ prev=<64 hex> ⇥ sha256=<64 hex> ⏎
//! ```
//!
//! The fields of an entry are separated by tabs and stand in the order of [`Entry::write`]. `sha256` is the SHA-256 of
//! the line's bytes before the tab in front of it; `prev` is the `sha256` of the entry before, and zeros in the first
//! one. So `sha256sum` checks any line, and any line pins all before it. No clock is trusted: `seq` counts entries,
//! `boot` counts boots, `up` counts seconds since the boot; `time` is what the router believed.

use core::fmt;
use core::fmt::Write;
use core::net::SocketAddr;
use core::ops::Range;
use core::str::FromStr;

use sha2::{Digest, Sha256};

use crate::base64::{self, Base64};
use crate::http::decimal;
use crate::http::range::Ends;
use crate::limits::MAX_LEDGER_TEXT_BYTES;
use crate::message::{Fingerprint, SessionId, from_hex};

mod clock;
pub mod evidence;
mod list;
mod text;

pub use self::clock::{NotATime, Time};
pub use self::list::{Item, List};
pub use self::text::Text;

/// A SHA-256; displayed as 64 lower-case hexadecimal digits. As the head of a ledger: that of its last entry.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hash(pub [u8; 32]);

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Its number, from 1.
    pub sequence: u64,
    /// The router's boots, from 1.
    pub boot: u32,
    /// What the router's clock said. It may be wrong: routers have none at boot.
    pub time: Time,
    /// Seconds since the boot.
    pub uptime: u64,
    /// What happened.
    pub event: Event<'a>,
    /// The hash of the entry before; zeros if there is none.
    pub previous: Hash,
}

/// What an entry tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A file begins, or the program was started. The first entry of every file is one.
    Open {
        /// The public key of the router whose ledger this is.
        key: [u8; 32],
        /// The system's name of this boot; empty if it has none.
        boot_id: Text<'a>,
        /// The program's version.
        version: Text<'a>,
    },
    /// This router is going to fetch for another one.
    Init(InitEvent<'a>),
    /// These bytes of a session's file are going to be fetched. This is the router's own word: INIT allows them all.
    Chunk {
        /// The session.
        session: SessionId,
        /// The ranges, in the order in which they were asked for.
        ranges: List<'a, Range<u64>>,
    },
    /// A pooled download of this router's own household.
    Session {
        /// The session.
        session: SessionId,
        /// Bytes of the whole file.
        size: u64,
        /// The bytes that were pooled.
        range: Range<u64>,
        /// The file.
        uri: Text<'a>,
        /// Who took part, each with the head of its ledger that the INIT to it countersigned.
        peers: List<'a, (Fingerprint, Hash)>,
    },
}

/// Another router's INIT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InitEvent<'a> {
    /// Its public key.
    pub key: [u8; 32],
    /// Where it connected from.
    pub from: SocketAddr,
    /// The session.
    pub session: SessionId,
    /// Bytes of the whole file.
    pub size: u64,
    /// The file.
    pub uri: Text<'a>,
    /// The head of the message as it came, with its signatures.
    pub head: Text<'a>,
}

impl Entry<'_> {
    /// Writes the line with its line end; its hash.
    ///
    /// # Errors
    /// That of `out`: what it has by then is to be discarded.
    pub fn write(&self, out: &mut impl Write) -> Result<Hash, fmt::Error> {
        let mut line = Hashed { out, hash: Sha256::new() };
        let (time, uptime) = (self.time, self.uptime);
        write!(line, "seq={}\tboot={}\ttime={time}\tup={uptime}\t{}", self.sequence, self.boot, self.event)?;
        write!(line, "\tprev={}", self.previous)?;
        let hash = Hash(line.hash.finalize().into());
        writeln!(out, "\tsha256={hash}")?;
        Ok(hash)
    }
}

impl fmt::Display for Event<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Event::Open { key, boot_id, version } => {
                write!(f, "OPEN\tkey={}\tboot_id={boot_id}\tversion={version}", Base64(key))
            }
            Event::Init(InitEvent { key, from, session, size, uri, head }) => {
                write!(f, "INIT\tkey={}\tfrom={from}\tsession={session}\t", Base64(key))?;
                write!(f, "size={size}\turi={uri}\thead={head}")
            }
            Event::Chunk { session, ranges } => write!(f, "CHUNK\tsession={session}\tranges={ranges}"),
            Event::Session { session, size, range, uri, peers } => {
                write!(f, "SESSION\tsession={session}\tsize={size}\trange={}\t", Ends(range))?;
                write!(f, "uri={uri}\tpeers={peers}")
            }
        }
    }
}

/// Passes text on and hashes it.
struct Hashed<'a, W> {
    out: &'a mut W,
    hash: Sha256,
}

impl<W: Write> Write for Hashed<'_, W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.hash.update(text);
        self.out.write_str(text)
    }
}

/// Why a line is no entry, or not the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadEntry {
    /// The line has no end: a write was cut off.
    Unfinished,
    /// What stands where this field belongs is something else.
    Field(&'static str),
    /// The text is not the one that was hashed.
    Hash,
    /// An entry of this number was to come.
    Sequence(u64),
    /// It does not follow the entry before: that one, or this, is not the original.
    Chain,
    /// The boots count backwards.
    Boot,
    /// The first entry of a file has to tell whose ledger it is.
    NotOpened,
}

impl fmt::Display for BadEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BadEntry::Unfinished => f.write_str("the line has no end"),
            BadEntry::Field(name) => write!(f, "the field {name} is missing or malformed"),
            BadEntry::Hash => f.write_str("its sha256 is not that of its text"),
            BadEntry::Sequence(expected) => write!(f, "expected entry {expected} here"),
            BadEntry::Chain => f.write_str("its prev is not the sha256 of the entry before"),
            BadEntry::Boot => f.write_str("its boot is lower than that of the entry before"),
            BadEntry::NotOpened => f.write_str("expected an OPEN entry first"),
        }
    }
}

impl core::error::Error for BadEntry {}

impl<'a> Entry<'a> {
    /// Reads a line, with its line end, and its hash, which is checked.
    ///
    /// # Errors
    /// [`BadEntry::Unfinished`], [`BadEntry::Field`] or [`BadEntry::Hash`].
    pub fn parse(line: &'a [u8]) -> Result<(Entry<'a>, Hash), BadEntry> {
        let line = line.strip_suffix(b"\n").ok_or(BadEntry::Unfinished)?;
        let mut fields = Fields(Some(line));
        let entry = Entry {
            sequence: fields.take("seq", decimal)?,
            boot: fields.take("boot", |value| decimal(value)?.try_into().ok())?,
            time: fields.take("time", parsed)?,
            uptime: fields.take("up", decimal)?,
            event: Event::parse(&mut fields)?,
            previous: fields.take("prev", hash)?,
        };
        let hashed = line.len() - fields.0.map_or(0, |rest| rest.len() + 1);
        let found = fields.take("sha256", hash)?;
        let digest = Sha256::digest(line.get(..hashed).unwrap_or(line));
        if fields.0.is_some() || found != Hash(digest.into()) {
            return Err(BadEntry::Hash);
        }
        Ok((entry, found))
    }
}

impl<'a> Event<'a> {
    fn parse(fields: &mut Fields<'a>) -> Result<Event<'a>, BadEntry> {
        match fields.next() {
            Some(b"OPEN") => Ok(Event::Open {
                key: fields.take("key", base64::decode_exactly)?,
                boot_id: fields.take("boot_id", text)?,
                version: fields.take("version", text)?,
            }),
            Some(b"INIT") => Ok(Event::Init(InitEvent {
                key: fields.take("key", base64::decode_exactly)?,
                from: fields.take("from", parsed)?,
                session: fields.take("session", parsed)?,
                size: fields.take("size", decimal)?,
                uri: fields.take("uri", text)?,
                head: fields.take("head", text)?,
            })),
            Some(b"CHUNK") => Ok(Event::Chunk {
                session: fields.take("session", parsed)?,
                ranges: fields.take("ranges", List::written)?,
            }),
            Some(b"SESSION") => Ok(Event::Session {
                session: fields.take("session", parsed)?,
                size: fields.take("size", decimal)?,
                range: fields.take("range", Item::read)?,
                uri: fields.take("uri", text)?,
                peers: fields.take("peers", List::written)?,
            }),
            _ => Err(BadEntry::Field("OPEN, INIT, CHUNK or SESSION")),
        }
    }
}

/// What is left of a line; `None` after its last field.
struct Fields<'a>(Option<&'a [u8]>);

impl<'a> Fields<'a> {
    fn next(&mut self) -> Option<&'a [u8]> {
        let line = self.0?;
        let end = line.iter().position(|byte| *byte == b'\t');
        self.0 = end.and_then(|end| line.get(end + 1..));
        line.get(..end.unwrap_or(line.len()))
    }

    /// The next field, which has to be called `name`, through `read`.
    fn take<T>(
        &mut self,
        name: &'static str,
        read: impl FnOnce(&'a [u8]) -> Option<T>,
    ) -> Result<T, BadEntry> {
        let field = self.next().and_then(|field| field.strip_prefix(name.as_bytes()));
        field.and_then(|field| field.strip_prefix(b"=")).and_then(read).ok_or(BadEntry::Field(name))
    }
}

fn parsed<T: FromStr>(value: &[u8]) -> Option<T> {
    core::str::from_utf8(value).ok()?.parse().ok()
}

fn text(value: &[u8]) -> Option<Text<'_>> {
    Text::escaped(value)
        .filter(|text| text.bytes().take(MAX_LEDGER_TEXT_BYTES + 1).count() <= MAX_LEDGER_TEXT_BYTES)
}

fn hash(value: &[u8]) -> Option<Hash> {
    from_hex(core::str::from_utf8(value).ok()?).ok().map(Hash)
}

/// Reads the lines of a ledger in their order and checks that each follows the one before.
#[derive(Clone, Debug, Default)]
pub struct Chain {
    /// Number, boot and hash of the last entry.
    last: Option<(u64, u32, Hash)>,
}

impl Chain {
    /// Begins with any entry that may be the first of a file: older ones may have been rotated away.
    pub fn new() -> Chain {
        Chain::default()
    }

    /// Hash of the last entry; zeros if there was none.
    pub fn head(&self) -> Hash {
        self.last.map_or(Hash::default(), |(_, _, hash)| hash)
    }

    /// Number of the last entry; 0 if there was none.
    pub fn sequence(&self) -> u64 {
        self.last.map_or(0, |(sequence, ..)| sequence)
    }

    /// The next line, with its line end. After an error the chain stands where it stood.
    ///
    /// # Errors
    /// Why it is not the next entry.
    pub fn next<'a>(&mut self, line: &'a [u8]) -> Result<(Entry<'a>, Hash), BadEntry> {
        let (entry, hash) = Entry::parse(line)?;
        let is_open = matches!(entry.event, Event::Open { .. });
        match self.last {
            Some((sequence, ..)) if sequence.checked_add(1) != Some(entry.sequence) => {
                return Err(BadEntry::Sequence(sequence.saturating_add(1)));
            }
            Some((_, boot, _)) if boot > entry.boot => return Err(BadEntry::Boot),
            Some((.., head)) if head != entry.previous => return Err(BadEntry::Chain),
            Some(_) => {}
            None if entry.sequence == 0 => return Err(BadEntry::Sequence(1)),
            None if (entry.sequence == 1) != (entry.previous == Hash::default()) => {
                return Err(BadEntry::Chain);
            }
            None if !is_open => return Err(BadEntry::NotOpened),
            None => {}
        }
        self.last = Some((entry.sequence, entry.boot, hash));
        Ok((entry, hash))
    }
}
