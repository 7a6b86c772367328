//! What each message is answered with on one connection from another router, once it is known to be authentic. Not
//! responsible for the bytes of chunks, nor for waiting ([`super`]).

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use bamqp_core::channel::{Callee, Incoming, Introduced, Reference, Refusal, Tally};
use bamqp_core::http::body::BodyLength;
use bamqp_core::http::forward::keeps_alive;
use bamqp_core::http::request::Request;
use bamqp_core::ledger::evidence::is_plain;
use bamqp_core::limits::MAX_CHUNK_BYTES;
use bamqp_core::message::chunk::{Chunk, ChunkDigest};
use bamqp_core::message::drop::Drop;
use bamqp_core::message::feedback::{self, Feedback, Verdict};
use bamqp_core::message::init::{Accept, Init};
use bamqp_core::message::reason::DropReason;
use bamqp_core::message::{MessageError, PeerRequest, SessionId};

use super::{Counter, Handled};
use crate::delegate::Delegation;
use crate::serve::HOLD_BYTES;
use crate::serve::desk::End;
use crate::serve::errand::Errand;
use crate::serve::init::No;
use crate::serve::sessions::Session;

impl<'a> Counter<'a> {
    /// Handles a request if its turn has come; `head` is all of it as it came.
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
            PeerRequest::Hello(about) => {
                let hello = self.serve.hello(self.visit.is_peer, about);
                self.challenge = hello.challenge;
                self.answer(|head| hello.write(head))?
            }
            PeerRequest::Init(init) => self.init(request, &init, head)?,
            PeerRequest::Drop(drop) => self.end_session(request, &drop)?,
            PeerRequest::Feedback(feedback) => self.feedback(request, &feedback)?,
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
        let keyring = serve.terms().keyring.clone();
        let find = |key| keyring.find(key);
        let (me, challenge) = (serve.key, self.challenge.as_ref());
        let introduced = Introduced::by(request, init, me, challenge, find, &mut tally);
        keyring.count(tally);
        let introduced = match introduced {
            Ok(introduced) => introduced,
            Err(refusal) => return self.refuse(refusal),
        };
        // Every signature fits, but the log's readers could say that they don't.
        if !is_plain(head) {
            return self.refuse(Refusal::Coverage);
        }
        let challenge = self.challenge.take();
        (self.errand, self.digest) = (None, None);
        let (callee, to) = (&introduced.callee, &introduced.request);
        let begun = serve.begin(request, init, &introduced, head, self.visit.from);
        if let Err(No::Flood(_)) = begun {
            self.closing = Some(End::Flood);
        }
        match begun {
            Ok(session) => {
                self.last = Some((session.id, Incoming::AFTER_INIT));
                let pool = challenge.and_then(|challenge| {
                    serve.pass_on(&session, request, init, head, &introduced, challenge)
                });
                let own = serve.share();
                let bandwidth = pool.as_ref().map_or(own, |pool| pool.promise(own));
                let hold = HOLD_BYTES.saturating_add(pool.as_ref().map_or(0, Delegation::window));
                let accept = Accept { target: init.target, bandwidth, hold };
                self.errand = Some(Errand::new(session, serve.way(), pool));
                self.sign(callee, to, |head| accept.write(head))
            }
            Err(No::Decline(decline) | No::Flood(decline)) => {
                if let Some(count) = serve.declined.get(decline.reason.index()) {
                    count.fetch_add(1, Ordering::Relaxed);
                }
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
        let length = chunk.range.end.saturating_sub(chunk.range.start);
        let is_within = chunk.range.end <= session.file.total && length <= MAX_CHUNK_BYTES;
        let known = self.errand.as_ref().filter(|errand| Arc::ptr_eq(&errand.session, &session));
        // A request is checked once: its number can't come again.
        match known {
            Some(errand) if is_within && errand.is_full() => return Ok(Handled::Later),
            Some(_) if is_within && self.serve.can_log() => {}
            _ if !self.is_quiet() => return Ok(Handled::Later),
            _ => {}
        }
        let has_errand = known.is_some();
        let may_fetch = self.serve.may_fetch(session.coordinator);
        if may_fetch.is_err() && !self.is_quiet() {
            return Ok(Handled::Later); // what is due before it is given up first
        }
        let (callee, to) = match self.check(request, &session) {
            Ok(checked) => checked,
            Err(refusal) => return self.refuse(refusal),
        };
        let may_fetch = if is_within { may_fetch } else { Err((DropReason::BadRange, 0)) };
        let logged = may_fetch.and_then(|()| self.serve.log_chunk(&session, chunk.range.clone()));
        if let Err((reason, retry_after)) = logged {
            if !self.is_quiet() {
                return Err(End::Cut); // the log filled up just now, in the middle of another answer
            }
            let drop = Drop { session: session.id, reason, retry_after };
            return self.sign(&callee, &to, |head| drop.write_answer(head));
        }
        if !has_errand {
            self.keep_digest();
            self.errand = Some(Errand::new(session, self.serve.way(), None));
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
        self.serve.unknown.fetch_add(1, Ordering::Relaxed);
        log::debug!("router {}: there is no session {session}", self.visit.ip);
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

    /// A coordinator could lie: we only look more closely at those whom it accuses (DESIGN section 7).
    fn feedback(&mut self, request: &Request<'_>, feedback: &Feedback) -> Result<Handled, End> {
        let found = self.serve.sessions.find(feedback.session, Instant::now());
        let Some(session) = found else { return self.unknown(feedback.session) };
        let (callee, to) = match self.check(request, &session) {
            Ok(checked) => checked,
            Err(refusal) => return self.refuse(refusal),
        };
        for part in feedback.parts.iter().filter(|part| part.verdict == Verdict::Lie) {
            self.serve.trust.accuse(part.router, session.coordinator);
        }
        self.sign(&callee, &to, feedback::write_answer)
    }

    /// The errand ends; what it served is still to be told of.
    pub(super) fn keep_digest(&mut self) {
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
}
