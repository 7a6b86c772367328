//! What is answered on one connection from another router, in the order of the requests, and what it waits for.
//! Not responsible for reading requests ([`super::desk`]) nor for which sessions there may be.

mod messages;

use core::ops::Range;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bamqp_core::channel::{Callee, Challenge, Incoming, Reference, Refusal};
use bamqp_core::http::write::HeadWriter;
use bamqp_core::limits::MAX_PEER_HEAD_BYTES;
use bamqp_core::message::SessionId;
use bamqp_core::message::chunk::{ChunkAnswer, ChunkDigest};
use bamqp_core::message::drop::Drop;
use bamqp_core::message::reason::DropReason;

use super::desk::End;
use super::doors::Visit;
use super::errand::{Begun, Errand, Step};
use super::sessions::SILENCE;
use super::{BUSY_FOR, Serve};
use crate::net::{self, Moved, PollFd, PollFlags};
use crate::sparingly::Sparingly;

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
    visit: &'a Visit,
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
    pub fn new(serve: &'a Serve, socket: Arc<TcpStream>, visit: &'a Visit) -> Self {
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
        static LINES: Sparingly = Sparingly::new();
        LINES.info(module_path!(), || format!("router {}: refused: {refusal}", self.visit.ip));
        self.serve.terms().keyring.count_refusal(refusal);
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

    /// Moves what can be moved without waiting; what it would have to wait for.
    pub fn transfer(&mut self) -> Result<Wants, End> {
        if let Some(errand) = &mut self.errand {
            errand.send_on();
        }
        for _ in 0..TURNS {
            let now = Instant::now();
            if self.serve.uplink.is_withdrawn()
                && let Some(errand) = &mut self.errand
            {
                errand.withdraw(DropReason::Busy);
            }
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
                    let retry_after = match reason {
                        DropReason::Busy => self.serve.uplink.withdrawn_for().unwrap_or(BUSY_FOR),
                        DropReason::Quota => {
                            self.serve.usage.check(errand.session.coordinator).err().unwrap_or(0)
                        }
                        _ => 0,
                    };
                    let drop = Drop { session, reason, retry_after };
                    self.sign(&callee, &request, |head| drop.write_answer(head))?;
                }
                Step::Cut => return Err(End::Cut),
                Step::Wait => return Ok(Wants::Origin),
                Step::Idle => return Ok(Wants::Requests),
            }
        }
        Ok(Wants::Turn)
    }

    /// Whether a stranger has had its time, even if it keeps asking.
    pub fn is_overstayed(&self) -> bool {
        !self.visit.is_peer && self.opened.elapsed() >= STRANGER_TIME
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
                if let Some(until) = errand.paced_until() {
                    errand.not_silent_before(until.max(now));
                    until
                } else if now >= errand.deadline() {
                    errand.give_up_silent();
                    return Ok(());
                } else {
                    errand.deadline()
                }
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
            Some((on, flags, look_at)) => {
                look = look_at.filter(|look| *look < until);
                poll(&mut [coordinator, PollFd::new(&on, flags)], look.unwrap_or(until))?
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
