//! One connection from another router: reads its requests, answers in their order, and waits for it and the origin at
//! once. Not responsible for which sessions there may be.
//!
//! Requests are read, and sent on to the origin, while a body flows and while the coordinator does not read; then the
//! origin is not read either. What is held never grows: a head each way, one pipe, [`super::HOLD_BYTES`].

use core::fmt;
use core::ops::Range;
use std::io;
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bamqp_core::http::body::BodyLength;
use bamqp_core::http::forward::keeps_alive;
use bamqp_core::http::request::Request;
use bamqp_core::http::write::{HeadWriter, WriteError};
use bamqp_core::limits::MAX_PEER_HEAD_BYTES;
use bamqp_core::message::chunk::{Chunk, ChunkAnswer};
use bamqp_core::message::drop::Drop;
use bamqp_core::message::init::{Accept, Decline, Init};
use bamqp_core::message::reason::{DeclineReason, DropReason};
use bamqp_core::message::{MessageError, PeerRequest, SessionId};

use super::doors::Visit;
use super::errand::{Errand, Step};
use super::sessions::SILENCE;
use super::{BUSY_FOR, HOLD_BYTES, Serve};
use crate::inbox::Inbox;
use crate::net::{self, Moved, PollFd, PollFlags};

/// How long a peer's connection may be silent; it says HELLO every 30 s.
pub const PEER_SILENCE: Duration = Duration::from_secs(90);

/// How long a stranger's connection lasts in all (DESIGN section 7).
pub const STRANGER_TIME: Duration = Duration::from_secs(5);

/// How long a coordinator may leave unread what it has asked for. Long: its client may have paused.
const UNREAD: Duration = Duration::from_secs(120);

/// Transfers before requests are looked for again.
const TURNS: usize = 64;

/// Most bytes of a request with an error that are read before the connection is closed, so that the answer arrives.
const LEFTOVERS: usize = 64 * 1024;

/// Why a connection ended.
#[derive(Debug)]
pub(super) enum End {
    /// The other side closed it, or asked for that.
    Closed,
    /// The other side closed it while chunks were due.
    Gone,
    /// The other side is silent, or does not read.
    Silent,
    /// A chunk can't be brought to its end: what was promised is never padded (DESIGN section 1).
    Cut,
    /// What came is no message.
    Malformed,
    /// An answer does not fit into a head.
    Answer(WriteError),
    /// What the system says of the connection.
    Io(io::Error),
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            End::Closed => f.write_str("closed"),
            End::Gone => f.write_str("gone while chunks were due"),
            End::Silent => f.write_str("silent for too long"),
            End::Cut => f.write_str("a chunk was cut short"),
            End::Malformed => f.write_str("malformed request"),
            End::Answer(error) => write!(f, "{error}"),
            End::Io(error) => write!(f, "{error}"),
        }
    }
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Handled {
    /// It was answered or entered.
    Yes,
    /// It has to wait until what was asked before it is answered.
    Later,
}

/// What keeps the connection from going on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wants {
    /// Requests.
    Requests,
    /// The origin's bytes.
    Origin,
    /// Room towards the coordinator.
    Room,
    /// Nothing; but others had to have their turn.
    Turn,
}

/// A connection. `requests` stands beside the rest because a request borrows from it while it is handled.
pub(super) struct Desk<'a> {
    requests: Inbox,
    /// The request at the front of `requests` waits for its turn.
    is_held_up: bool,
    counter: Counter<'a>,
}

struct Counter<'a> {
    serve: &'a Serve,
    visit: &'a Visit<'a>,
    socket: Arc<TcpStream>,
    outbox: Box<[u8]>,
    unsent: Range<usize>,
    errand: Option<Errand<'a>>,
    /// No more requests are read; why the connection ends when all is answered.
    closing: Option<End>,
    opened: Instant,
    /// The last request.
    heard: Instant,
    /// The last time that something moved towards the coordinator.
    moved: Instant,
}

impl<'a> Desk<'a> {
    pub fn new(serve: &'a Serve, socket: Arc<TcpStream>, visit: &'a Visit<'a>) -> Self {
        let now = Instant::now();
        let counter = Counter {
            serve,
            visit,
            socket,
            outbox: vec![0; MAX_PEER_HEAD_BYTES].into_boxed_slice(),
            unsent: 0..0,
            errand: None,
            closing: None,
            opened: now,
            heard: now,
            moved: now,
        };
        Desk { requests: Inbox::new(MAX_PEER_HEAD_BYTES), is_held_up: false, counter }
    }

    /// Serves until the connection ends.
    pub fn run(mut self) -> End {
        loop {
            match self.turn() {
                Ok(()) => {}
                Err(end) => return end,
            }
        }
    }

    fn turn(&mut self) -> Result<(), End> {
        self.take_requests()?;
        let wants = self.counter.transfer()?;
        if self.counter.is_quiet() {
            if let Some(end) = self.counter.closing.take() {
                self.linger();
                return Err(end);
            }
            if self.is_held_up {
                return Ok(());
            }
        }
        match wants {
            Wants::Turn => Ok(()),
            wants => {
                let reading = !self.is_held_up && !self.requests.is_full();
                self.counter.wait(wants, reading)
            }
        }
    }

    /// Reads and handles what came, as far as it can be handled now.
    fn take_requests(&mut self) -> Result<(), End> {
        self.is_held_up = false;
        while self.counter.closing.is_none() {
            let handled = match Request::parse(self.requests.data()) {
                Ok(Some((request, length))) => {
                    let handled = self.counter.handle(&request)?;
                    if handled == Handled::Yes {
                        self.requests.consume(length);
                    }
                    handled
                }
                Ok(None) if !self.requests.is_full() => match self.requests.fill(&self.counter.socket) {
                    Ok(Moved::Bytes(_)) => continue,
                    Ok(Moved::WouldBlock) => return Ok(()),
                    Ok(Moved::End) => return self.counter.hung_up(),
                    Err(error) => return Err(End::Io(error)),
                },
                Ok(None) | Err(_) => self.counter.malformed(400, "Bad Request")?,
            };
            if handled == Handled::Later {
                self.is_held_up = true;
                return Ok(());
            }
        }
        Ok(())
    }

    /// Closing a socket with unread bytes resets the connection, and the last answer may be lost with it.
    fn linger(&mut self) {
        let socket = &self.counter.socket;
        let _ = socket.shutdown(Shutdown::Write);
        for _ in 0..LEFTOVERS / MAX_PEER_HEAD_BYTES {
            self.requests.consume(usize::MAX);
            if !matches!(self.requests.fill(socket), Ok(Moved::Bytes(_))) {
                return;
            }
        }
    }
}

impl<'a> Counter<'a> {
    /// Whether all that was asked is answered.
    fn is_quiet(&self) -> bool {
        self.unsent.is_empty() && self.errand.as_ref().is_none_or(Errand::is_quiet)
    }

    fn is_busy(&self) -> bool {
        self.errand.as_ref().is_some_and(Errand::is_busy)
    }

    /// The other side sends no more.
    fn hung_up(&mut self) -> Result<(), End> {
        if self.is_busy() {
            return Err(End::Gone);
        }
        self.closing = Some(End::Closed);
        Ok(())
    }

    /// Writes an answer; nothing else is being sent.
    fn answer(&mut self, write: impl FnOnce(&mut HeadWriter<'_>)) -> Result<Handled, End> {
        let mut head = HeadWriter::new(&mut self.outbox);
        write(&mut head);
        self.unsent = 0..head.finish().map_err(End::Answer)?;
        Ok(Handled::Yes)
    }

    fn malformed(&mut self, status: u16, phrase: &str) -> Result<Handled, End> {
        if !self.is_quiet() {
            return Ok(Handled::Later);
        }
        self.serve.malformed.fetch_add(1, Ordering::Relaxed);
        self.closing = Some(End::Malformed);
        self.answer(|head| {
            head.status(status, phrase).field("Content-Length", "0").field("Connection", "close");
        })
    }

    fn handle(&mut self, request: &Request<'_>) -> Result<Handled, End> {
        // No message has a body, so that what follows a head is the next one.
        if !matches!(BodyLength::of_request(request), Ok(BodyLength::None | BodyLength::Exact(0))) {
            return self.malformed(400, "Bad Request");
        }
        let message = match PeerRequest::parse(request) {
            Ok(message) => message,
            Err(MessageError::Unknown) => return self.malformed(404, "Not Found"),
            Err(error) => {
                log::debug!("router {}: {error}", self.visit.ip);
                return self.malformed(400, "Bad Request");
            }
        };
        // Only chunks of one session are worked on together.
        let handled = match message {
            PeerRequest::Chunk(chunk) => self.chunk(&chunk)?,
            _ if !self.is_quiet() => Handled::Later,
            PeerRequest::Hello => {
                let hello = self.serve.hello(self.visit.is_peer);
                self.answer(|head| hello.write(head))?
            }
            PeerRequest::Init(init) => self.init(&init)?,
            PeerRequest::Drop(drop) => self.end_session(&drop)?,
        };
        if handled == Handled::Yes {
            self.heard = Instant::now();
            if !keeps_alive(&request.fields, request.version) {
                self.closing = Some(End::Closed);
            }
        }
        Ok(handled)
    }

    fn init(&mut self, init: &Init<'_>) -> Result<Handled, End> {
        self.errand = None;
        let serve = self.serve;
        let begun = serve.begin(init, self.visit.ip, self.visit.is_peer).and_then(|session| {
            // No descriptors left: as good as any other reason to be busy.
            let busy = |_| Decline { reason: DeclineReason::Busy, retry_after: BUSY_FOR };
            Errand::new(session, serve.way()).map_err(busy)
        });
        match begun {
            Ok(errand) => {
                self.errand = Some(errand);
                let accept = Accept { target: init.target, bandwidth: serve.share(), hold: HOLD_BYTES };
                self.answer(|head| accept.write(head))
            }
            Err(decline) => {
                log::debug!(
                    "router {}: session {} declined: {}",
                    self.visit.ip,
                    init.session,
                    decline.reason
                );
                self.answer(|head| decline.write(head))
            }
        }
    }

    fn chunk(&mut self, chunk: &Chunk) -> Result<Handled, End> {
        let found = self.serve.sessions.find(chunk.session, self.visit.ip, Instant::now());
        let Some(session) = found else { return self.refuse(chunk.session, DropReason::UnknownSession) };
        if chunk.range.end > session.file.total {
            return self.refuse(chunk.session, DropReason::BadRange);
        }
        match &mut self.errand {
            Some(errand) if Arc::ptr_eq(&errand.session, &session) => {
                if errand.is_full() {
                    return Ok(Handled::Later);
                }
                errand.ask(chunk.range.clone());
            }
            _ => {
                if !self.is_quiet() {
                    return Ok(Handled::Later);
                }
                match Errand::new(session, self.serve.way()) {
                    Ok(new) => self.errand.insert(new).ask(chunk.range.clone()),
                    Err(_) => return self.refuse(chunk.session, DropReason::Busy),
                }
            }
        }
        Ok(Handled::Yes)
    }

    fn refuse(&mut self, session: SessionId, reason: DropReason) -> Result<Handled, End> {
        if !self.is_quiet() {
            return Ok(Handled::Later);
        }
        self.answer(|head| Drop { session, reason, retry_after: 0 }.write_answer(head))
    }

    fn end_session(&mut self, drop: &Drop) -> Result<Handled, End> {
        if self.errand.as_ref().is_some_and(|errand| errand.session.id == drop.session) {
            self.errand = None;
        }
        match self.serve.sessions.end(drop.session, self.visit.ip, Instant::now()) {
            Some(summary) => {
                log::debug!("session {}: {}, {} bytes served", drop.session, drop.reason, summary.bytes);
                self.answer(|head| summary.write(head))
            }
            None => self.refuse(drop.session, DropReason::UnknownSession),
        }
    }

    /// Moves what can be moved without waiting; what it would have to wait for.
    fn transfer(&mut self) -> Result<Wants, End> {
        if let Some(errand) = &mut self.errand {
            errand.send_on();
        }
        for _ in 0..TURNS {
            let now = Instant::now();
            if let Some(bytes) = self.outbox.get(self.unsent.clone()).filter(|bytes| !bytes.is_empty()) {
                match net::write(&self.socket, bytes).map_err(End::Io)? {
                    Moved::Bytes(bytes) => self.unsent.start += bytes,
                    Moved::WouldBlock | Moved::End => return Ok(Wants::Room),
                }
                self.moved = now;
                continue;
            }
            let Some(errand) = &mut self.errand else { return Ok(Wants::Requests) };
            if errand.pipe.held() > 0 {
                match errand.pipe.drain(&*self.socket).map_err(End::Io)? {
                    Moved::Bytes(_) => self.moved = now,
                    Moved::WouldBlock | Moved::End => return Ok(Wants::Room),
                }
                errand.not_silent_before(now);
                continue;
            }
            match errand.step(now) {
                Step::Moved => {}
                Step::Begun(range) => {
                    if let Some(sample) = errand.take_round_trip() {
                        self.serve.add_round_trip(sample);
                    }
                    let file = errand.session.file.clone();
                    let answer = ChunkAnswer { range, total: file.total, validator: &file.validator };
                    self.answer(|head| answer.write(head))?;
                }
                Step::Refused(reason) => {
                    let session = errand.session.id;
                    self.answer(|head| Drop { session, reason, retry_after: 0 }.write_answer(head))?;
                }
                Step::Cut => return Err(End::Cut),
                Step::Wait => return Ok(Wants::Origin),
                Step::Idle => return Ok(Wants::Requests),
            }
        }
        Ok(Wants::Turn)
    }

    /// Waits for the coordinator and the origin, no longer than either may be silent. `reading`: another request
    /// can be taken.
    fn wait(&mut self, wants: Wants, reading: bool) -> Result<(), End> {
        let now = Instant::now();
        let is_quiet = self.is_quiet();
        let limit = match wants {
            _ if !self.visit.is_peer => self.opened + STRANGER_TIME,
            Wants::Room => self.moved.max(self.heard) + UNREAD,
            _ => self.heard + PEER_SILENCE,
        };
        if now >= limit && (is_quiet || wants == Wants::Room) {
            return Err(End::Silent);
        }
        // A session that nobody asks anything of is let go of, and its connection to the origin with it.
        let let_go = self.heard + SILENCE;
        if is_quiet && now >= let_go {
            self.errand = None;
        }
        let until = match &mut self.errand {
            Some(_) if is_quiet => limit.min(let_go),
            Some(errand) if wants == Wants::Origin => {
                if now >= errand.deadline() {
                    errand.give_up_silent();
                    return Ok(());
                }
                errand.deadline()
            }
            _ => limit,
        };
        let is_open = self.closing.is_none();
        let mut flags = PollFlags::empty();
        flags.set(PollFlags::IN, reading && is_open);
        flags.set(PollFlags::RDHUP, !is_quiet && is_open);
        flags.set(PollFlags::OUT, wants == Wants::Room);
        let revents = self.poll(flags, wants == Wants::Origin, until, now)?;
        match revents.intersects(PollFlags::HUP | PollFlags::ERR | PollFlags::RDHUP) {
            true if is_quiet => Err(End::Closed),
            true => Err(End::Gone),
            false => Ok(()),
        }
    }

    /// One `poll` on both connections; what the coordinator's has to say.
    fn poll(
        &mut self,
        flags: PollFlags,
        reading: bool,
        until: Instant,
        now: Instant,
    ) -> Result<PollFlags, End> {
        let mut look = None;
        let origin = self.errand.as_mut().and_then(|errand| errand.wants(reading, now));
        let coordinator = PollFd::new(&*self.socket, flags);
        let poll = |fds: &mut [PollFd<'_>], until| {
            let ready = net::poll(fds, Some(until)).map_err(End::Io)?;
            Ok((ready, fds.first().map_or(PollFlags::empty(), PollFd::revents)))
        };
        let (ready, revents) = match origin {
            Some((socket, flags, look_at)) => {
                look = look_at.filter(|look| *look < until);
                poll(&mut [coordinator, PollFd::new(socket, flags)], look.unwrap_or(until))?
            }
            None => poll(&mut [coordinator], until)?,
        };
        if ready == 0
            && look.is_some()
            && let Some(errand) = &mut self.errand
        {
            errand.slowed_down();
        }
        Ok(revents)
    }
}
