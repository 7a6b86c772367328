//! What is answered on one connection from another router, in the order of the requests, and what it waits for.
//! Not responsible for reading requests ([`super::desk`]) nor for which sessions there may be.

use core::ops::Range;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bamqp_core::channel::{Callee, Challenge, Incoming, Introduced, Reference, Refusal, Tally};
use bamqp_core::http::body::BodyLength;
use bamqp_core::http::forward::keeps_alive;
use bamqp_core::http::request::Request;
use bamqp_core::http::write::HeadWriter;
use bamqp_core::limits::MAX_PEER_HEAD_BYTES;
use bamqp_core::message::chunk::{Chunk, ChunkAnswer, ChunkDigest};
use bamqp_core::message::drop::Drop;
use bamqp_core::message::init::{Accept, Init};
use bamqp_core::message::reason::DropReason;
use bamqp_core::message::{MessageError, PeerRequest, SessionId};

use super::desk::End;
use super::doors::Visit;
use super::errand::{Begun, Errand, Step};
use super::sessions::{SILENCE, Session};
use super::{HOLD_BYTES, No, Serve};
use crate::net::{self, Moved, PollFd, PollFlags};

/// How long a peer's connection may be silent; it says HELLO every 30 s.
pub const PEER_SILENCE: Duration = Duration::from_secs(90);

/// How long a stranger's connection lasts in all (DESIGN section 7).
pub const STRANGER_TIME: Duration = Duration::from_secs(5);

/// How long a coordinator may leave unread what it has asked for. Long: its client may have paused.
const UNREAD: Duration = Duration::from_secs(120);

/// Transfers before requests are looked for again.
const TURNS: usize = 64;

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Handled {
    /// It was answered or entered.
    Yes,
    /// It has to wait until what was asked before it is answered.
    Later,
}

/// What keeps the connection from going on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wants {
    /// Requests.
    Requests,
    /// The origin's bytes.
    Origin,
    /// Room towards the coordinator.
    Room,
    /// Nothing; but others had to have their turn.
    Turn,
}

/// The answering side of a connection.
pub(super) struct Counter<'a> {
    serve: &'a Serve,
    visit: &'a Visit<'a>,
    pub socket: Arc<TcpStream>,
    outbox: Box<[u8]>,
    unsent: Range<usize>,
    errand: Option<Errand<'a>>,
    /// What the next INIT on this connection has to answer.
    challenge: Option<Challenge>,
    /// The session that the last authentic request was of, and its number.
    last: Option<(SessionId, Incoming)>,
    /// Digest of the last chunk that was served here, until it was told; the errand may be over.
    digest: Option<(SessionId, ChunkDigest)>,
    /// No more requests are read; why the connection ends when all is answered.
    pub closing: Option<End>,
    opened: Instant,
    /// The last request.
    heard: Instant,
    /// The last time that something moved towards the coordinator.
    moved: Instant,
}

impl<'a> Counter<'a> {
    pub fn new(serve: &'a Serve, socket: Arc<TcpStream>, visit: &'a Visit<'a>) -> Self {
        let now = Instant::now();
        Counter {
            serve,
            visit,
            socket,
            outbox: vec![0; MAX_PEER_HEAD_BYTES].into_boxed_slice(),
            unsent: 0..0,
            errand: None,
            challenge: None,
            last: None,
            digest: None,
            closing: None,
            opened: now,
            heard: now,
            moved: now,
        }
    }

    /// Whether all that was asked is answered.
    pub fn is_quiet(&self) -> bool {
        self.unsent.is_empty() && self.errand.as_ref().is_none_or(Errand::is_quiet)
    }

    fn is_busy(&self) -> bool {
        self.errand.as_ref().is_some_and(Errand::is_busy)
    }

    /// The other side sends no more.
    pub fn hung_up(&mut self) -> Result<(), End> {
        if self.is_busy() {
            return Err(End::Gone);
        }
        self.closing = Some(End::Closed);
        Ok(())
    }

    /// Writes an answer that nobody can know to be ours; nothing else is being sent.
    fn answer(&mut self, write: impl FnOnce(&mut HeadWriter<'_>)) -> Result<Handled, End> {
        let mut head = HeadWriter::new(&mut self.outbox);
        write(&mut head);
        self.unsent = 0..head.finish().map_err(|error| End::Answer(error.into()))?;
        Ok(Handled::Yes)
    }

    /// Writes an answer to an authentic request.
    fn sign(
        &mut self,
        callee: &Callee,
        to: &Reference,
        write: impl FnOnce(&mut HeadWriter<'_>),
    ) -> Result<Handled, End> {
        let mut head = HeadWriter::new(&mut self.outbox);
        write(&mut head);
        self.unsent = 0..callee.seal(head, to).map_err(End::Answer)?;
        Ok(Handled::Yes)
    }

    /// Refuses a request that is not authentic, fresh, and in its place; and all that follows it.
    fn refuse(&mut self, refusal: Refusal) -> Result<Handled, End> {
        if !self.is_quiet() {
            return Ok(Handled::Later);
        }
        log::info!("router {}: refused: {refusal}", self.visit.ip);
        self.serve.keyring.count_refusal(refusal);
        self.closing = Some(End::Refused(refusal));
        self.answer(|head| {
            head.status(403, "Refused")
                .field_args("BAMQP-Reason", format_args!("{refusal}"))
                .field("Content-Length", "0")
                .field("Connection", "close");
        })
    }

    pub fn malformed(&mut self, status: u16, phrase: &str) -> Result<Handled, End> {
        if !self.is_quiet() {
            return Ok(Handled::Later);
        }
        self.serve.malformed.fetch_add(1, Ordering::Relaxed);
        self.closing = Some(End::Malformed);
        self.answer(|head| {
            head.status(status, phrase).field("Content-Length", "0").field("Connection", "close");
        })
    }

    /// `head` is the request as it came.
    pub fn handle(&mut self, request: &Request<'_>, head: &[u8]) -> Result<Handled, End> {
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
            PeerRequest::Chunk(chunk) => self.chunk(request, &chunk)?,
            _ if !self.is_quiet() => Handled::Later,
            PeerRequest::Hello => {
                let hello = self.serve.hello(self.visit.is_peer);
                self.challenge = hello.challenge;
                self.answer(|head| hello.write(head))?
            }
            PeerRequest::Init(init) => self.init(request, &init, head)?,
            PeerRequest::Drop(drop) => self.end_session(request, &drop)?,
        };
        if handled == Handled::Yes {
            self.heard = Instant::now();
            if !keeps_alive(&request.fields, request.version) {
                self.closing = Some(End::Closed);
            }
        }
        Ok(handled)
    }

    fn init(&mut self, request: &Request<'_>, init: &Init<'_>, head: &[u8]) -> Result<Handled, End> {
        let serve = self.serve;
        let mut tally = Tally::default();
        let find = |key| serve.keyring.find(key);
        let (me, challenge) = (serve.key, self.challenge.as_ref());
        let introduced = Introduced::by(request, init, me, challenge, find, &mut tally);
        serve.keyring.count(tally);
        let introduced = match introduced {
            Ok(introduced) => introduced,
            Err(refusal) => return self.refuse(refusal),
        };
        (self.challenge, self.errand, self.digest) = (None, None, None);
        let (callee, to) = (&introduced.callee, &introduced.request);
        match serve.begin(request, init, &introduced, head, self.visit.from) {
            Ok(session) => {
                self.last = Some((session.id, Incoming::AFTER_INIT));
                self.errand = Some(Errand::new(session, serve.way()));
                let accept = Accept { target: init.target, bandwidth: serve.share(), hold: HOLD_BYTES };
                self.sign(callee, to, |head| accept.write(head))
            }
            Err(No::Decline(decline)) => {
                log::debug!(
                    "router {}: session {} declined: {}",
                    self.visit.ip,
                    init.session,
                    decline.reason
                );
                self.sign(callee, to, |head| decline.write(head))
            }
            Err(No::Refuse(refusal)) => self.refuse(refusal),
        }
    }

    /// Whether `request` is the next one of its session's coordinator.
    fn check(&mut self, request: &Request<'_>, session: &Session) -> Result<(Callee, Reference), Refusal> {
        let mut link = self.last.filter(|(id, _)| *id == session.id).map(|(_, link)| link);
        let checked = session.check(request, &mut link, Instant::now())?;
        self.last = link.map(|link| (session.id, link));
        Ok(checked)
    }

    fn chunk(&mut self, request: &Request<'_>, chunk: &Chunk) -> Result<Handled, End> {
        let found = self.serve.sessions.find(chunk.session, Instant::now());
        let Some(session) = found else { return self.unknown(chunk.session) };
        let is_within = chunk.range.end <= session.file.total;
        let known = self.errand.as_ref().filter(|errand| Arc::ptr_eq(&errand.session, &session));
        // A request is checked once: its number can't come again.
        match known {
            Some(errand) if is_within && errand.is_full() => return Ok(Handled::Later),
            Some(_) if is_within && self.serve.can_log() => {}
            _ if !self.is_quiet() => return Ok(Handled::Later),
            _ => {}
        }
        let has_errand = known.is_some();
        let (callee, to) = match self.check(request, &session) {
            Ok(checked) => checked,
            Err(refusal) => return self.refuse(refusal),
        };
        let refused = match is_within {
            true => self.serve.log_chunk(&session, chunk.range.clone()).err().map(|_| DropReason::Busy),
            false => Some(DropReason::BadRange),
        };
        if let Some(reason) = refused {
            if !self.is_quiet() {
                return Err(End::Cut); // the log filled up just now, in the middle of another answer
            }
            let drop = Drop { session: session.id, reason, retry_after: 0 };
            return self.sign(&callee, &to, |head| drop.write_answer(head));
        }
        if !has_errand {
            self.keep_digest();
            self.errand = Some(Errand::new(session, self.serve.way()));
        }
        if let Some(errand) = &mut self.errand {
            errand.ask(chunk.range.clone(), to);
        }
        Ok(Handled::Yes)
    }

    /// There is no session of that name, nor keys to say so with.
    fn unknown(&mut self, session: SessionId) -> Result<Handled, End> {
        if !self.is_quiet() {
            return Ok(Handled::Later);
        }
        self.answer(|head| {
            Drop { session, reason: DropReason::UnknownSession, retry_after: 0 }.write_answer(head);
        })
    }

    fn end_session(&mut self, request: &Request<'_>, drop: &Drop) -> Result<Handled, End> {
        let found = self.serve.sessions.find(drop.session, Instant::now());
        let Some(session) = found else { return self.unknown(drop.session) };
        let (callee, to) = match self.check(request, &session) {
            Ok(checked) => checked,
            Err(refusal) => return self.refuse(refusal),
        };
        let digest = self.take_digest(session.id);
        if self.errand.as_ref().is_some_and(|errand| Arc::ptr_eq(&errand.session, &session)) {
            self.errand = None;
        }
        let summary = self.serve.end(&session);
        log::debug!("session {}: {}, {} bytes served", drop.session, drop.reason, summary.bytes);
        self.sign(&callee, &to, |head| {
            summary.write(head);
            if let Some(digest) = digest {
                digest.write(head);
            }
        })
    }

    /// The errand ends; what it served is still to be told of.
    fn keep_digest(&mut self) {
        if let Some(errand) = &mut self.errand
            && let Some(digest) = errand.take_digest()
        {
            self.digest = Some((errand.session.id, digest));
        }
    }

    /// Digest of the last chunk of that session that was served here, if it was not told yet.
    fn take_digest(&mut self, session: SessionId) -> Option<ChunkDigest> {
        self.keep_digest();
        self.digest.take().filter(|(of, _)| *of == session).map(|(_, digest)| digest)
    }

    /// Moves what can be moved without waiting; what it would have to wait for.
    pub fn transfer(&mut self) -> Result<Wants, End> {
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
            if errand.holds_bytes() {
                match errand.give_to(&self.socket).map_err(End::Io)? {
                    Moved::Bytes(_) => self.moved = now,
                    Moved::WouldBlock | Moved::End => return Ok(Wants::Room),
                }
                errand.not_silent_before(now);
                continue;
            }
            let step = errand.step(now);
            self.serve.copied.fetch_max(errand.most_copied(), Ordering::Relaxed);
            match step {
                Step::Moved => {}
                Step::Begun(Begun { range, request, previous }) => {
                    if let Some(sample) = errand.take_round_trip() {
                        self.serve.add_round_trip(sample);
                    }
                    let (callee, file) = (errand.callee.clone(), errand.session.file.clone());
                    let kept = self.digest.take().filter(|(of, _)| *of == errand.session.id);
                    let previous = previous.or(kept.map(|(_, digest)| digest));
                    let (total, validator) = (file.total, &file.validator);
                    let answer = ChunkAnswer { range, total, validator, previous };
                    self.sign(&callee, &request, |head| answer.write(head))?;
                }
                Step::Refused(reason, request) => {
                    let (session, callee) = (errand.session.id, errand.callee.clone());
                    let drop = Drop { session, reason, retry_after: 0 };
                    self.sign(&callee, &request, |head| drop.write_answer(head))?;
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
    pub fn wait(&mut self, wants: Wants, reading: bool) -> Result<(), End> {
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
            self.keep_digest();
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
