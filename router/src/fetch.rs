//! Ranges of one file, asked one after the other over one connection, to an origin or to a peer: sends the requests,
//! checks each answer's head, hands out the bytes. Not responsible for which ranges, nor for waiting: it never
//! blocks, and says what to wait for.

mod ahead;
mod call;
mod sample;

use core::net::{IpAddr, SocketAddr};
use core::ops::Range;
use std::net::TcpStream;
use std::sync::Arc;

use bamqp_core::channel::{Outgoing, Reference};
use bamqp_core::http::forward::{RangeGet, keeps_alive};
use bamqp_core::http::multipart::Multipart;
use bamqp_core::http::partial::{PartialError, check_partial};
use bamqp_core::http::range::RangeSet;
use bamqp_core::http::response::Response;
use bamqp_core::http::target::Uri;
use bamqp_core::http::validator::Validator;
use bamqp_core::http::write::HeadWriter;
use bamqp_core::limits::{MAX_INTERIM, MAX_PEER_HEAD_BYTES, MAX_PIPELINE};
use bamqp_core::message::SessionId;
use bamqp_core::message::chunk::Chunk;
use bamqp_core::time::Instant;
use bamqp_core::transfer::{Fault, HeadTimes};
use bamqp_core::verify::Places;
use heapless::Deque;
use sha2::{Digest, Sha256};

use crate::clock;
use crate::inbox::Inbox;
use crate::live::Live;
use crate::net::{self, Moved, PollFlags};
use crate::uplink::Uplink;

use self::call::Talk;
pub use self::call::{Call, Served};
use self::sample::MAX_PARTS_BYTES;
pub use self::sample::Samples;

/// The file that is fetched, and how it is asked for.
#[derive(Clone, Debug)]
pub struct File {
    /// Its absolute URI.
    pub uri: String,
    /// How many bytes it has.
    pub total: u64,
    /// What proves that two ranges are of the same file.
    pub validator: Validator,
    /// The client's `User-Agent`.
    pub user_agent: Option<Box<[u8]>>,
    /// The client's `Accept`.
    pub accept: Option<Box<[u8]>>,
}

impl File {
    /// A number that stands for its origin: for where trust counts at how many origins something happened.
    pub fn origin_number(&self) -> u32 {
        let origin = self.uri.split('/').nth(2).unwrap_or_default().to_ascii_lowercase();
        let digest = Sha256::digest(origin);
        digest.iter().take(4).fold(0, |number, byte| number << 8 | u32::from(*byte))
    }
}

/// Whom to ask, and in which words.
#[derive(Clone, Debug)]
pub enum Source {
    /// The origin, with a `Range` request of its own; under this pseudonym in `Via`.
    Origin {
        /// The address that was checked.
        address: SocketAddr,
        /// Where the connection comes from.
        from: Option<IpAddr>,
        /// Our pseudonym.
        via: String,
        /// Who has to know what comes for neighbours; `None`: it is for our own household.
        uplink: Option<Arc<Uplink>>,
    },
    /// A peer, with CHUNK.
    Peer {
        /// The session that it has accepted.
        session: SessionId,
        /// Where it listens.
        address: SocketAddr,
        /// Where the connection comes from.
        from: Option<IpAddr>,
        /// The session's authenticated channel.
        call: Arc<Call>,
    },
}

impl Source {
    /// The line, if what comes over it is for a neighbour.
    pub fn uplink(&self) -> Option<&Arc<Uplink>> {
        match self {
            Source::Origin { uplink, .. } => uplink.as_ref(),
            Source::Peer { .. } => None,
        }
    }
}

/// What a call to [`Fetcher::read`] brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// So many bytes of the oldest range, at least one.
    Bytes(usize),
    /// Nothing now; see [`Fetcher::wants`].
    Blocked,
    /// Nothing is due.
    Idle,
}

/// Whether requests may be sent before earlier ones were answered (DESIGN section 5, rule 1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pipelining {
    /// Not before a connection was kept alive.
    Untried,
    /// They may.
    Works,
    /// Never again: a connection was closed early.
    Never,
}

/// What a request asks for.
#[derive(Clone, Debug)]
enum Wanted {
    Range(Range<u64>),
    Places(Places),
}

impl Wanted {
    fn places(&self) -> Option<&Places> {
        match self {
            Wanted::Range(_) => None,
            Wanted::Places(places) => Some(places),
        }
    }

    /// Several places, which can't be answered by one range.
    fn several(&self) -> Option<&Places> {
        self.places().filter(|places| places.len() > 1)
    }

    /// The only range.
    fn range(&self) -> Range<u64> {
        match self {
            Wanted::Range(range) => range.clone(),
            Wanted::Places(places) => places.iter().next().unwrap_or_default(),
        }
    }
}

type Asks = Deque<Ask, MAX_PIPELINE>;

#[derive(Clone, Debug)]
struct Ask {
    what: Wanted,
    sent: Option<Instant>,
    /// What a peer's answer refers to, once it was sent.
    reference: Option<Reference>,
}

/// One connection with its requests. All memory is taken when it is made.
#[derive(Debug)]
pub struct Fetcher {
    file: Arc<File>,
    source: Source,
    socket: Option<Arc<TcpStream>>,
    connected: bool,
    asks: Asks,
    pipelining: Pipelining,
    /// Bytes of the oldest range that are still to come, once its head was read.
    body: Option<u64>,
    /// The parts of the present answer, if it has several.
    parts: Option<Multipart>,
    /// Bytes of the present answer, head included, if it is one with places.
    wire: u32,
    /// Whether the connection ends after the present answer.
    closes: bool,
    /// Answers that were complete on this connection.
    answered: u32,
    head: Option<HeadTimes>,
    inbox: Inbox,
    /// Interim responses since the last final one.
    interim: u32,
    /// Payload bytes of the present answer that were copied out of the inbox, and of the answer with most of them.
    copied: u32,
    most_copied: u32,
    outbox: Box<[u8]>,
    unsent: Range<usize>,
    mark: usize,
    /// What is known of the peer's side of this connection.
    talk: Talk,
    /// What went wrong after bytes that were still good: the next call tells.
    broken: Option<Fault>,
}

impl Fetcher {
    /// For `file` from `source`. `socket` is a connection that stands; without one, [`Self::ask`] makes it.
    pub fn new(file: Arc<File>, source: Source, socket: Option<Arc<TcpStream>>) -> Self {
        // To a peer, which speaks as we do, the next request may always be on its way.
        let pipelining =
            if matches!(source, Source::Peer { .. }) { Pipelining::Works } else { Pipelining::Untried };
        Self {
            file,
            source,
            connected: socket.is_some(),
            socket,
            asks: Deque::new(),
            pipelining,
            body: None,
            parts: None,
            wire: 0,
            closes: false,
            answered: 0,
            head: None,
            inbox: Inbox::new(MAX_PEER_HEAD_BYTES),
            interim: 0,
            copied: 0,
            most_copied: 0,
            outbox: vec![0; MAX_PEER_HEAD_BYTES].into_boxed_slice(),
            unsent: 0..0,
            mark: 1,
            talk: Talk::default(),
            broken: None,
        }
    }

    /// For a peer's session on the connection on which it accepted.
    pub fn joined(file: Arc<File>, source: Source, socket: Arc<TcpStream>, link: Outgoing) -> Self {
        let mut fetcher = Self::new(file, source, Some(socket));
        fetcher.talk = Talk::on(link);
        fetcher
    }

    /// For the rest of an answer whose head was read elsewhere: `range` comes next on `socket`.
    pub fn resume(file: Arc<File>, source: Source, socket: Arc<TcpStream>, range: Range<u64>) -> Self {
        let mut fetcher = Self::new(file, source, Some(socket));
        fetcher.body = Some(range.end - range.start);
        fetcher.closes = true;
        let _ = fetcher.asks.push_back(Ask {
            what: Wanted::Range(range),
            sent: Some(clock::now()),
            reference: None,
        });
        fetcher
    }

    /// Asks for `range` (not empty), now or as soon as it may be sent.
    ///
    /// # Errors
    /// If no connection can be made or it fails at once.
    pub fn ask(&mut self, range: Range<u64>, live: &Live) -> Result<(), Fault> {
        self.ask_for(Wanted::Range(range), live)
    }

    fn ask_for(&mut self, what: Wanted, live: &Live) -> Result<(), Fault> {
        if self.asks.is_empty() {
            self.forget_if_closed();
        }
        self.asks.push_back(Ask { what, sent: None, reference: None }).map_err(|_| Fault::Malformed)?;
        if self.socket.is_none() {
            self.connect(live)?;
        }
        self.send()
    }

    /// Whom it asks.
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// Whether something was asked for and is not here yet.
    pub fn is_busy(&self) -> bool {
        !self.asks.is_empty()
    }

    /// The connection, if it stands or is being made, and what to wait for on it.
    pub fn wants(&self) -> Option<(&TcpStream, PollFlags)> {
        let flags = match (self.connected, self.unsent.is_empty()) {
            (false, _) => PollFlags::OUT,
            (true, true) => PollFlags::IN,
            (true, false) => PollFlags::IN | PollFlags::OUT,
        };
        Some((self.socket.as_deref()?, flags))
    }

    /// Gives up the connection to whoever uses it next; `None` if it is not clean. With it the numbers of requests on it,
    /// if it leads to a peer.
    pub fn into_clean_socket(self) -> Option<(Arc<TcpStream>, Option<Outgoing>)> {
        let clean =
            self.connected && self.asks.is_empty() && self.unsent.is_empty() && self.inbox.data().is_empty();
        if let Some(socket) = self.socket.as_deref().filter(|_| self.mark != 1) {
            let _ = net::set_rcvlowat(socket, 1);
        }
        let socket = self.socket.filter(|_| clean && !self.closes)?;
        Some((socket, self.talk.into_link()))
    }

    /// Hashes what a peer brings from now on, and compares it with the digests that the peer tells: an answer's with the
    /// next one. Costs some 40 instructions a byte on a small device (DESIGN section 8), so it is for suspicions.
    pub fn check_digests(&mut self) {
        self.talk.check_digests();
    }

    /// The last chunk of which the peer told the digest, once: what it can't deny having served.
    pub fn take_served(&mut self) -> Option<Served> {
        self.talk.take_served()
    }

    /// Waking up is worth it for `bytes` of the present answer or what is left of it.
    pub fn set_mark(&mut self, bytes: u32) {
        let left = usize::try_from(self.body.unwrap_or(1)).unwrap_or(usize::MAX);
        let mark = left.min(bytes as usize).max(1);
        // Down at once, or the wait would be for bytes that don't come; up only when it pays for the call.
        if mark < self.mark || mark > self.mark + self.mark / 4 {
            if let Some(socket) = &self.socket {
                let _ = net::set_rcvlowat(&**socket, mark);
            }
            self.mark = mark;
        }
    }

    /// When the head of the answer that bytes were last read of was sent for and came; once per answer.
    pub fn take_head_times(&mut self) -> Option<HeadTimes> {
        self.head.take()
    }

    /// How many payload bytes of one answer were copied in user space, at most: those that came with its head. All
    /// others go from the socket to where they are wanted.
    pub fn most_copied(&self) -> u32 {
        self.most_copied
    }

    /// Reads what is there of the oldest range into `buffer`, without waiting and never beyond the range.
    ///
    /// # Errors
    /// Why the connection or the answer is of no use; it is to be dropped.
    pub fn read(&mut self, buffer: &mut [u8], live: &Live) -> Result<Progress, Fault> {
        self.send()?;
        loop {
            let Some(left) = self.body else {
                if self.asks.is_empty() {
                    return Ok(Progress::Idle);
                }
                match self.read_head(live)? {
                    true => continue,
                    false => return Ok(Progress::Blocked),
                }
            };
            let most = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
            let buffer = buffer.get_mut(..most).unwrap_or_default();
            let got = match self.take_from_inbox(buffer) {
                0 => {
                    let Some(socket) = &self.socket else { return Err(Fault::Closed) };
                    match net::read(socket, buffer).map_err(|_| Fault::Closed)? {
                        Moved::Bytes(bytes) => bytes,
                        Moved::WouldBlock => return Ok(Progress::Blocked),
                        Moved::End => return Err(Fault::Closed),
                    }
                }
                bytes => bytes,
            };
            self.talk.came(buffer.get(..got).unwrap_or_default());
            self.body = Some(left - got as u64);
            if left == got as u64 {
                self.finish_answer(live);
            }
            return Ok(Progress::Bytes(got));
        }
    }

    fn take_from_inbox(&mut self, buffer: &mut [u8]) -> usize {
        let data = self.inbox.data();
        let count = data.len().min(buffer.len());
        if let (Some(to), Some(from)) = (buffer.get_mut(..count), data.get(..count)) {
            to.copy_from_slice(from);
        }
        self.inbox.consume(count);
        self.count_copied(count);
        count
    }

    fn count_copied(&mut self, bytes: usize) {
        self.copied += bytes as u32; // at most what fits in the inbox
        self.most_copied = self.most_copied.max(self.copied);
    }

    /// The oldest range is complete: the next answer follows, or the connection ends.
    fn finish_answer(&mut self, live: &Live) {
        (self.body, self.parts) = (None, None);
        if let Some(ask) = self.asks.pop_front() {
            self.talk.finished(ask.what.range());
        }
        self.answered += 1;
        let closes = self.closes;
        if closes {
            self.forget_connection();
        }
        let next = match self.asks.is_empty() {
            true => Ok(()),
            false if closes => self.connect(live),
            false => self.send(),
        };
        self.broken = next.err();
    }

    fn forget_connection(&mut self) {
        self.socket = None;
        (self.connected, self.closes, self.answered, self.mark) = (false, false, 0, 1);
        self.unsent = 0..0;
        self.inbox.consume(usize::MAX);
        self.asks.iter_mut().for_each(|ask| (ask.sent, ask.reference) = (None, None));
    }

    fn connect(&mut self, live: &Live) -> Result<(), Fault> {
        let (address, from) = match &self.source {
            Source::Origin { address, from, .. } => (address, from),
            Source::Peer { address, from, call, .. } => {
                self.talk.move_to(call.caller.next_link());
                (address, from)
            }
        };
        let socket = net::start_connect(*address, *from).map_err(|_| Fault::Unreachable)?;
        let socket = live.add(socket).map_err(|_| Fault::Unreachable)?;
        if let Source::Origin { uplink: Some(uplink), .. } = &self.source {
            uplink.add(&socket);
        }
        self.socket = Some(socket);
        Ok(())
    }

    /// Sends the requests that may be sent.
    fn send(&mut self) -> Result<(), Fault> {
        if let Some(fault) = self.broken.take() {
            return Err(fault);
        }
        let Some(socket) = self.socket.clone() else { return Ok(()) };
        if !self.connected {
            match net::finish_connect(&socket) {
                Ok(true) => self.connected = true,
                Ok(false) => return Ok(()),
                Err(_) => return Err(Fault::Unreachable),
            }
        }
        loop {
            if !self.flush(&socket)? {
                return Ok(());
            }
            let waits = self.asks.iter().position(|ask| ask.sent.is_none());
            let may = |place: usize| place == 0 || (self.pipelining == Pipelining::Works && !self.closes);
            let Some(place) = waits.filter(|&place| may(place)) else { return Ok(()) };
            let Some(what) = self.asks.iter().nth(place).map(|ask| ask.what.clone()) else { return Ok(()) };
            let reference = self.write_request(&what)?;
            if let Some(ask) = self.asks.iter_mut().nth(place) {
                (ask.sent, ask.reference) = (Some(clock::now()), reference);
            }
        }
    }

    /// Sends what is left of the last request; false if the socket takes no more now.
    fn flush(&mut self, socket: &TcpStream) -> Result<bool, Fault> {
        while let Some(bytes) = self.outbox.get(self.unsent.clone()).filter(|bytes| !bytes.is_empty()) {
            match net::write(socket, bytes) {
                Ok(Moved::Bytes(sent)) => self.unsent.start += sent,
                Ok(Moved::WouldBlock) => return Ok(false),
                // That it was closed shows when its answers are read; some may still be there.
                Ok(Moved::End) | Err(_) => self.unsent.start = self.unsent.end,
            }
        }
        Ok(true)
    }

    fn write_request(&mut self, what: &Wanted) -> Result<Option<Reference>, Fault> {
        let mut head = HeadWriter::new(&mut self.outbox);
        let (length, reference) = match &self.source {
            Source::Origin { via, .. } => {
                let uri = Uri::parse(&self.file.uri).map_err(|_| Fault::Malformed)?;
                let (user_agent, accept) = (self.file.user_agent.as_deref(), self.file.accept.as_deref());
                let ranges = what.several().map_or_else(|| RangeSet::One(what.range()), RangeSet::Places);
                RangeGet { uri: &uri, ranges, validator: &self.file.validator, user_agent, accept, via }
                    .write(&mut head);
                (head.finish().map_err(|_| Fault::Malformed)?, None)
            }
            Source::Peer { session, call, .. } => {
                let range = what.range(); // a peer is asked for one place at a time
                Chunk { session: *session, range }.write(&mut head, &"bamqp");
                let link = self.talk.link().ok_or(Fault::Closed)?;
                let (length, reference) = call.caller.seal(head, link).map_err(|_| Fault::Malformed)?;
                (length, Some(reference))
            }
        };
        self.unsent = 0..length;
        if let Some(socket) = self.socket.clone() {
            self.flush(&socket)?;
        }
        Ok(reference)
    }

    /// Reads and checks the head of the oldest range's answer; false if it isn't all there yet.
    fn read_head(&mut self, live: &Live) -> Result<bool, Fault> {
        loop {
            if let Some(found) = self.parse_head()? {
                return Ok(found);
            }
            let Some(socket) = self.socket.clone().filter(|_| self.connected) else { return Ok(false) };
            self.set_mark(1);
            match self.inbox.fill(&socket) {
                Ok(Moved::Bytes(_)) => {}
                Ok(Moved::WouldBlock) => return Ok(false),
                Err(error) if error.kind() == std::io::ErrorKind::StorageFull => {
                    return Err(Fault::Malformed);
                }
                Ok(Moved::End) | Err(_) => {
                    self.closed_between_answers(live)?;
                    return Ok(false);
                }
            }
        }
    }

    /// `Some(true)`: a good head. `None`: incomplete. Interim answers are skipped.
    fn parse_head(&mut self) -> Result<Option<bool>, Fault> {
        let Some(ask) = self.asks.front() else { return Ok(Some(false)) };
        loop {
            let (response, length) = match Response::parse(self.inbox.data()) {
                Ok(Some(found)) => found,
                Ok(None) => return Ok(None),
                Err(_) => return Err(Fault::Malformed),
            };
            if response.is_interim() {
                self.interim += 1;
                if self.interim > MAX_INTERIM {
                    return Err(Fault::Malformed);
                }
                self.inbox.consume(length);
                continue;
            }
            self.interim = 0;
            if let Source::Peer { call, .. } = &self.source {
                self.talk.answered(call, &response, ask.reference.as_ref())?;
            }
            let closes = !keeps_alive(&response.fields, response.version);
            let (total, validator) = (self.file.total, &self.file.validator);
            let left = match ask.what.several() {
                None => {
                    let range = ask.what.range();
                    check_partial(&response, &range, total, validator).map_err(fault)?;
                    range.end - range.start
                }
                Some(_) => {
                    let (parts, length) = Multipart::of(&response, total, validator).map_err(fault)?;
                    if length > MAX_PARTS_BYTES {
                        return Err(Fault::WrongLength);
                    }
                    self.parts = Some(parts);
                    length
                }
            };
            self.wire = u32::try_from(left.saturating_add(length as u64)).unwrap_or(u32::MAX);
            self.head = ask.sent.map(|sent| HeadTimes { sent, at: clock::now() });
            self.inbox.consume(length);
            self.closes = closes;
            self.body = Some(left);
            self.copied = 0;
            if !closes && self.pipelining == Pipelining::Untried {
                self.pipelining = Pipelining::Works;
            }
            return Ok(Some(true));
        }
    }

    /// The connection ended where an answer should begin. If it had been kept alive that long, this is how an origin
    /// lets go of it: a GET may be repeated on a new one, but no more are sent ahead (RFC 9112 section 9.3.2).
    fn closed_between_answers(&mut self, live: &Live) -> Result<(), Fault> {
        if self.answered == 0 || !self.inbox.data().is_empty() {
            return Err(Fault::Closed);
        }
        self.pipelining = Pipelining::Never;
        self.forget_connection();
        self.connect(live)
    }
}

fn fault(error: PartialError) -> Fault {
    match error {
        PartialError::NotPartial(status) => Fault::Status(status),
        PartialError::Changed => Fault::Changed,
        PartialError::Unproven => Fault::Unproven,
        PartialError::WrongRange => Fault::WrongRange,
        PartialError::WrongLength => Fault::WrongLength,
        PartialError::Encoded | PartialError::Multipart => Fault::Encoded,
    }
}
