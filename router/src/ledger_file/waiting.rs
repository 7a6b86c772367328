//! Entries that wait to be written: their numbers, their chain, and which file each belongs to. Not responsible for
//! writing them, nor for locks.

use core::ops::Range;
use std::collections::VecDeque;

use bamqp_core::ledger::{Entry, Event, Hash, List, Text};
use bamqp_core::limits::MAX_LEDGER_RANGES;
use bamqp_core::message::SessionId;

use super::folder::Found;
use super::{AppendError, MAX_WAITING};
use crate::clock;
use crate::keys::PublicKey;

/// The end of the ledger that is not on the disk yet.
#[derive(Debug)]
pub struct Waiting {
    key: PublicKey,
    boot: u32,
    boot_id: String,
    /// Most bytes of a file.
    file_size: u64,
    /// Number and hash of the last entry.
    last: (u64, Hash),
    /// One part for each file; the last one is of the file that goes on.
    parts: VecDeque<Part>,
    /// Ranges that are still to become entries: one for each would fill the flash.
    chunks: Vec<(SessionId, Ranges)>,
    /// No more entries are taken.
    pub is_stopping: bool,
}

type Ranges = heapless::Vec<Range<u64>, MAX_LEDGER_RANGES>;

/// Entries of one file.
#[derive(Clone, Debug)]
pub struct Part {
    /// Number of the file's first entry.
    pub first: u64,
    /// Bytes that the file has already.
    pub at: u64,
    /// The lines.
    pub text: String,
}

impl Part {
    fn end(&self) -> u64 {
        self.at + self.text.len() as u64
    }
}

impl Waiting {
    /// Goes on where a folder's files end, with the entry that the program was started.
    pub fn new(found: Found, key: PublicKey, boot_id: String, file_size: u64) -> Waiting {
        let boot = match found.boot {
            Some((boot, id)) if !id.is_empty() && id == boot_id => boot,
            Some((boot, _)) => boot.saturating_add(1),
            None => 1,
        };
        let (first, at) = found.file.unwrap_or((1, 0));
        let mut waiting = Waiting {
            key,
            boot,
            boot_id,
            file_size,
            last: (found.chain.sequence(), found.chain.head()),
            parts: VecDeque::from([Part { first, at, text: String::new() }]),
            chunks: Vec::new(),
            is_stopping: false,
        };
        waiting.open();
        waiting
    }

    /// Hash of the last entry.
    pub fn head(&self) -> Hash {
        self.last.1
    }

    /// Boots of the router, with this one.
    pub fn boot(&self) -> u32 {
        self.boot
    }

    /// Bytes that wait.
    pub fn bytes(&self) -> usize {
        self.parts.iter().map(|part| part.text.len()).sum()
    }

    /// Whether another entry is taken.
    pub fn may_append(&self) -> Result<(), AppendError> {
        if self.is_stopping {
            return Err(AppendError::Stopped);
        }
        if self.bytes() > MAX_WAITING { Err(AppendError::Full) } else { Ok(()) }
    }

    /// Appends an entry, to a new file if the old one is full; the new head.
    pub fn append(&mut self, event: Event<'_>) -> Hash {
        let (line, hash) = self.line(event.clone());
        let end = self.parts.back().map_or(0, Part::end);
        if end == 0 || end + line.len() as u64 <= self.file_size {
            return self.push(&line, hash);
        }
        self.parts.push_back(Part { first: self.last.0 + 1, at: 0, text: String::new() });
        if !matches!(event, Event::Open { .. }) {
            self.open();
        }
        let (line, hash) = self.line(event);
        self.push(&line, hash)
    }

    /// Every file tells first whose it is.
    fn open(&mut self) {
        let boot_id = self.boot_id.clone();
        let version = env!("CARGO_PKG_VERSION").as_bytes();
        let (boot_id, version) = (Text::Plain(boot_id.as_bytes()), Text::Plain(version));
        self.append(Event::Open { key: self.key, boot_id, version });
    }

    fn line(&self, event: Event<'_>) -> (String, Hash) {
        let (sequence, previous) = (self.last.0 + 1, self.last.1);
        let (time, uptime) = (clock::time_of_day(), clock::uptime());
        let entry = Entry { sequence, boot: self.boot, time, uptime, event, previous };
        let mut line = String::new();
        // Writing into a String does not fail.
        let hash = entry.write(&mut line).unwrap_or_default();
        (line, hash)
    }

    fn push(&mut self, line: &str, hash: Hash) -> Hash {
        if let Some(part) = self.parts.back_mut() {
            part.text.push_str(line);
            self.last = (self.last.0 + 1, hash);
        }
        hash
    }

    /// Notes a range of a session; what touches the last one is joined with it. Of more than an entry has room for, those
    /// are joined that have least between them: who asks for many small ranges can't fill the log with them, which would
    /// push older entries out of it.
    pub fn chunk(&mut self, session: SessionId, range: Range<u64>) {
        let Some((_, ranges)) = self.chunks.iter_mut().find(|(id, _)| *id == session) else {
            self.chunks.push((session, Ranges::from_iter([range])));
            return;
        };
        if let Some(last) = ranges.last_mut().filter(|last| last.end == range.start) {
            last.end = range.end;
            return;
        }
        if ranges.is_full() {
            join_closest(ranges);
        }
        let _ = ranges.push(range); // there is room now
    }

    /// The noted ranges of a session become an entry.
    pub fn seal(&mut self, session: SessionId) {
        if let Some(place) = self.chunks.iter().position(|(id, _)| *id == session) {
            let (session, ranges) = self.chunks.remove(place);
            self.append(Event::Chunk { session, ranges: List::Plain(&ranges) });
        }
    }

    /// What is to be written, with the ranges of all sessions.
    pub fn parts(&mut self) -> Vec<Part> {
        while let Some((session, _)) = self.chunks.first() {
            self.seal(*session);
        }
        self.parts.iter().filter(|part| !part.text.is_empty()).cloned().collect()
    }

    /// This part has been written; more may have joined it meanwhile.
    pub fn written(&mut self, written: &Part) {
        if let Some(part) = self.parts.iter_mut().find(|part| part.first == written.first) {
            part.text = part.text.get(written.text.len()..).unwrap_or_default().to_owned();
            part.at = written.end();
        }
        while self.parts.len() > 1 && self.parts.front().is_some_and(|part| part.text.is_empty()) {
            self.parts.pop_front();
        }
    }
}

/// Joins the two neighbours in the list that have least between them.
fn join_closest(ranges: &mut Ranges) {
    let whole = |one: &Range<u64>, other: &Range<u64>| one.start.min(other.start)..one.end.max(other.end);
    let length = |range: &Range<u64>| range.end.saturating_sub(range.start);
    let gaps = ranges.windows(2).map(|pair| match pair {
        [one, other] => length(&whole(one, other)).saturating_sub(length(one)).saturating_sub(length(other)),
        _ => u64::MAX,
    });
    let closest = gaps.enumerate().min_by_key(|(_, gap)| *gap).map_or(0, |(place, _)| place);
    if ranges.len() > 1 {
        let later = ranges.remove(closest + 1);
        if let Some(earlier) = ranges.get_mut(closest) {
            *earlier = whole(earlier, &later);
        }
    }
}
