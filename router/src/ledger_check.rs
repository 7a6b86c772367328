//! Checks a ledger as somebody who trusts nobody would: every entry, the chain, the INITs in it, and that nothing that
//! another router's ledger countersigned is missing. Not responsible for what a line looks like, nor for printing.

use core::fmt;
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};

use bamqp_core::ledger::evidence::{self, Mismatch};
use bamqp_core::ledger::{BadEntry, Chain, Entry, Event, Hash};
use bamqp_core::message::{Fingerprint, SessionId};

use crate::keys::fingerprint_of;
use crate::ledger_file::next_line;

/// How long a challenge may be older than the INIT that answers it: connections are silent for no longer.
const CHALLENGE_SECONDS: u64 = 120;

/// What was found where nothing is wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The router whose ledger it is.
    pub owner: Option<Fingerprint>,
    /// Number of the first entry; older ones were rotated away.
    pub first: u64,
    /// Number of the last entry.
    pub last: u64,
    /// Its hash.
    pub head: Hash,
    /// INITs, each with what it says and signs.
    pub inits: usize,
    /// Heads that the other ledger countersigned and that are in this one, each with the INIT that did it.
    pub countersigned: usize,
    /// Heads that the other ledger countersigned before the first one that is in this ledger.
    pub older: usize,
}

/// The first thing that is wrong, and where.
#[derive(Debug)]
pub struct Problem {
    /// The file.
    pub file: PathBuf,
    /// Its line, from 1; 0: the file as a whole.
    pub line: usize,
    /// What it is.
    pub what: Wrong,
}

/// What can be wrong with a ledger.
#[derive(Debug)]
pub enum Wrong {
    /// The file can't be read.
    Io(io::Error),
    /// It has no entries.
    Empty,
    /// The line is no entry, or not the next one.
    Entry(BadEntry),
    /// The INIT in it does not prove what it should.
    Init(Mismatch),
    /// The INIT countersigned this head, which no entry before it has: those are not the original ones.
    NotThisLog(Hash),
    /// The other ledger has no session with the owner of this one.
    Strangers(Fingerprint),
    /// The other ledger countersigned this head in this session, and it is not in the ledger.
    Missing(SessionId, Hash),
    /// The other ledger has a session that this router took part in, and its INIT is not in the ledger.
    NoInit(SessionId),
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
        }
        write!(f, ": {}", self.what)
    }
}

impl core::error::Error for Problem {}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Wrong::Io(error) => write!(f, "{error}"),
            Wrong::Empty => f.write_str("no entries"),
            Wrong::Entry(error) => write!(f, "{error}"),
            Wrong::Init(error) => write!(f, "{error}"),
            Wrong::NotThisLog(head) => {
                write!(f, "it countersigned an entry with sha256={head}, which is not among those before it")
            }
            Wrong::Strangers(owner) => {
                write!(f, "tells of no session with router {owner}, whose log is to be checked")
            }
            Wrong::Missing(session, head) => {
                write!(f, "session {session} countersigned the entry with sha256={head}, which is missing")
            }
            Wrong::NoInit(session) => {
                write!(f, "the router took part in session {session}, whose INIT is missing")
            }
        }
    }
}

/// Where an entry stands.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    file: &'a Path,
    line: usize,
}

impl Place<'_> {
    /// What is wrong there.
    pub fn problem(self, what: Wrong) -> Problem {
        Problem { file: self.file.into(), line: self.line, what }
    }
}

/// Reads the lines of files, with their ends, in their order.
///
/// # Errors
/// That of `each`, or that a file can't be read.
pub fn read_lines(
    files: &[PathBuf],
    mut each: impl FnMut(Place<'_>, &[u8]) -> Result<(), Problem>,
) -> Result<(), Problem> {
    for file in files {
        let whole = Place { file, line: 0 };
        let opened = File::open(file).map_err(|error| whole.problem(Wrong::Io(error)))?;
        let mut lines = BufReader::new(opened);
        let mut text = Vec::new();
        for line in 1.. {
            let place = Place { file, line };
            if !next_line(&mut lines, &mut text).map_err(|error| place.problem(Wrong::Io(error)))? {
                break;
            }
            each(place, &text)?;
        }
    }
    Ok(())
}

/// Reads files of one ledger, the oldest first, and checks each entry and the chain.
fn read_chain(
    files: &[PathBuf],
    mut each: impl FnMut(Place<'_>, Entry<'_>, Hash) -> Result<(), Wrong>,
) -> Result<(), Problem> {
    let mut chain = Chain::new();
    read_lines(files, |place, line| {
        let (entry, hash) = chain.next(line).map_err(|error| place.problem(Wrong::Entry(error)))?;
        each(place, entry, hash).map_err(|wrong| place.problem(wrong))
    })?;
    match files.first() {
        Some(file) if chain.sequence() == 0 => Err(Place { file, line: 0 }.problem(Wrong::Empty)),
        _ => Ok(()),
    }
}

/// A head of the checked ledger that another one countersigned.
struct Countersigned {
    file: PathBuf,
    line: usize,
    session: SessionId,
    head: Hash,
}

/// Checks the ledger in `files`, the oldest first; if `against` are the files of a coordinator's ledger, also against
/// that one.
///
/// # Errors
/// The first [`Problem`].
pub fn check(files: &[PathBuf], against: &[PathBuf]) -> Result<Report, Problem> {
    let mut report = Report::default();
    let mut entries = HashMap::new();
    let mut inits = HashMap::new();
    let mut begun = (0, 0);
    let mut buffer = vec![0; evidence::BUFFER_BYTES];
    read_chain(files, |_, entry, hash| {
        if report.last == 0 {
            report.first = entry.sequence;
            begun = (entry.boot, entry.uptime);
        }
        (report.last, report.head) = (entry.sequence, hash);
        entries.insert(hash, entry.sequence);
        match entry.event {
            Event::Open { key, .. } => report.owner = Some(fingerprint_of(&key)),
            Event::Init(init) => {
                let owner = report.owner.unwrap_or(Fingerprint([0; 16]));
                let head = evidence::check(&init, owner, &mut buffer).map_err(Wrong::Init)?;
                let may_be_older =
                    report.first > 1 && entry.boot == begun.0 && entry.uptime <= begun.1 + CHALLENGE_SECONDS;
                if !entries.contains_key(&head) && !may_be_older {
                    return Err(Wrong::NotThisLog(head));
                }
                inits.insert(init.session, entry.sequence);
                report.inits += 1;
            }
            Event::Chunk { .. } | Event::Session { .. } => {}
        }
        Ok(())
    })?;
    let Some(other) = against.first() else { return Ok(report) };
    let owner = report.owner.unwrap_or(Fingerprint([0; 16]));
    let heads = countersigned(against, owner)?;
    if heads.is_empty() {
        return Err(Place { file: other, line: 0 }.problem(Wrong::Strangers(owner)));
    }
    // The chain has no gaps: what is missing was rotated away before the first entry, or cut off after the last. Sessions
    // overlap, so heads are not in the order of the sessions' ends.
    let rotated = heads.iter().rposition(|other| entries.contains_key(&other.head));
    let rotated = rotated.filter(|_| report.first > 1).unwrap_or(0);
    for (place, Countersigned { file, line, session, head }) in heads.iter().enumerate() {
        let wrong = match (entries.get(head), inits.get(session)) {
            (Some(entry), Some(init)) if entry < init => {
                report.countersigned += 1;
                continue;
            }
            (None, _) if place < rotated => {
                report.older += 1;
                continue;
            }
            (Some(_), _) => Wrong::NoInit(*session),
            (None, _) => Wrong::Missing(*session, *head),
        };
        return Err(Place { file, line: *line }.problem(wrong));
    }
    Ok(report)
}

/// The heads of router `owner`'s ledger that the ledger in `files` countersigned.
fn countersigned(files: &[PathBuf], owner: Fingerprint) -> Result<Vec<Countersigned>, Problem> {
    let mut heads = Vec::new();
    read_chain(files, |place, entry, _| {
        if let Event::Session { session, peers, .. } = entry.event {
            // Zeros: there was no challenge with a head.
            let of_owner = peers.iter().filter(|(peer, head)| *peer == owner && *head != Hash::default());
            heads.extend(of_owner.map(|(_, head)| Countersigned {
                file: place.file.into(),
                line: place.line,
                session,
                head,
            }));
        }
        Ok(())
    })?;
    Ok(heads)
}
