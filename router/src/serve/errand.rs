//! What one connection of a coordinator has to be fetched: the chunks that are due on it, in their order, and the
//! connection to the origin that brings them, or peers of ours that help with it. Not responsible for the connection to the
//! coordinator.

use core::net::IpAddr;
use core::ops::Range;
use std::io;
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bamqp_core::channel::{Callee, Reference};
use bamqp_core::limits::MAX_PIPELINE;
use bamqp_core::message::chunk::ChunkDigest;
use bamqp_core::message::reason::DropReason;
use bamqp_core::time::Span;
use bamqp_core::transfer::Fault;
use heapless::Deque;
use sha2::{Digest, Sha256};

use super::sessions::Session;
use super::usage::Usage;
use crate::delegate::Delegation;
use crate::fetch::{Fetcher, Progress, Source};
use crate::live::Live;
use crate::net::{self, Moved, PollFlags};
use crate::pace::{LOOK_AFTER, Pace};
use crate::uplink::Uplink;

/// How long an address of the origin may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(5);

/// How long the origin may be silent while it owes bytes. Long: the coordinator knows better when to give up.
const SILENCE: Duration = Duration::from_secs(30);

/// Most bytes that are on their way through user space, where they are hashed.
const BUFFER_BYTES: usize = 32 * 1024;

/// The way to origins, as all errands use it.
#[derive(Clone, Copy, Debug)]
pub struct Way<'a> {
    /// The line, which the household shares.
    pub uplink: &'a Arc<Uplink>,
    /// Where it is counted what was fetched for whom.
    pub usage: &'a Usage,
    /// Where connections to the internet come from.
    pub from: Option<IpAddr>,
    /// Our pseudonym.
    pub via: &'a str,
    /// Where the sockets are kept in view.
    pub live: &'a Live,
}

/// Over what a chunk comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Via {
    /// Our connection to the origin.
    Origin,
    /// All lanes that our peers and we have.
    Pool,
}

/// A chunk that was asked for.
#[derive(Clone, Debug)]
struct Due {
    range: Range<u64>,
    request: Reference,
    via: Via,
}

/// What [`Errand::step`] did.
#[derive(Debug)]
pub enum Step {
    /// Bytes of the oldest chunk are to be given out.
    Moved,
    /// The same, and they are its first ones: its head goes before them.
    Begun(Begun),
    /// The oldest chunk can't be had; it is not due any more. The answer to that request says why.
    Refused(DropReason, Reference),
    /// The oldest chunk has begun and can't be had to its end.
    Cut,
    /// The origin has to bring more.
    Wait,
    /// Nothing is due.
    Idle,
}

/// A chunk whose first bytes are there.
#[derive(Debug)]
pub struct Begun {
    /// Which.
    pub range: Range<u64>,
    /// The request that its head answers.
    pub request: Reference,
    /// Digest of the one before.
    pub previous: Option<ChunkDigest>,
}

/// One session's chunks on one connection.
#[derive(Debug)]
pub struct Errand<'a> {
    /// The session.
    pub session: Arc<Session>,
    /// Our side of it when the errand began.
    pub callee: Callee,
    buffer: Box<[u8]>,
    /// What of it was fetched and not given out yet. Nothing is, before the next [`Errand::step`].
    held: Range<usize>,
    way: Way<'a>,
    fetcher: Fetcher,
    /// Peers of ours that help. What they brought and was not given out yet is held there.
    pool: Option<Delegation>,
    /// Place of the origin's address in the session's.
    address: usize,
    due: Deque<Due, MAX_PIPELINE>,
    /// Of the oldest chunk, as far as it came.
    hash: Sha256,
    /// Of the last chunk that came to its end, until somebody was told.
    digest: Option<ChunkDigest>,
    /// Bytes of the oldest chunk that are still to come, once its first ones have.
    left: Option<u64>,
    /// The oldest chunk was asked for while no other was due.
    asked_alone: bool,
    /// Why nothing that is due can be had.
    failed: Option<DropReason>,
    /// What became of our connection to the origin while others brought what was due.
    origin_fault: Option<Fault>,
    pace: Option<Pace>,
    /// The last sign of life, or when waiting for one began.
    heard: Instant,
    /// Addresses in a row that did not answer.
    unreachable: usize,
    /// The household gets its part of the line first: nothing is read before then.
    paced_until: Option<Instant>,
}

impl<'a> Errand<'a> {
    /// Starts to connect to the session's origin; `pool` are our peers, if they are asked to help.
    pub fn new(session: Arc<Session>, way: Way<'a>, pool: Option<Delegation>) -> Self {
        let address = session.address();
        let mut fetcher = fetcher(&session, address, way);
        // That it can't be reached is said to who asks for a chunk.
        let _ = fetcher.connect_early(way.live);
        Self {
            callee: session.callee(),
            session,
            buffer: vec![0; BUFFER_BYTES].into_boxed_slice(),
            held: 0..0,
            way,
            fetcher,
            pool,
            address,
            due: Deque::new(),
            hash: Sha256::new(),
            digest: None,
            left: None,
            asked_alone: false,
            failed: None,
            origin_fault: None,
            pace: None,
            heard: Instant::now(),
            unreachable: 0,
            paced_until: None,
        }
    }

    /// Whether all that was asked for has been given out.
    pub fn is_quiet(&self) -> bool {
        self.due.is_empty() && !self.holds_bytes()
    }

    /// Whether chunks are due.
    pub fn is_busy(&self) -> bool {
        !self.due.is_empty()
    }

    /// Whether no more can be asked for now.
    pub fn is_full(&self) -> bool {
        self.due.is_full()
    }

    /// Asks for `range`, which lies within the file, for the request of that name.
    pub fn ask(&mut self, range: Range<u64>, request: Reference) {
        if self.due.is_empty() {
            (self.heard, self.asked_alone) = (Instant::now(), true);
        }
        // When none of them takes part any more, we work alone.
        let pooled = self.failed.is_none() && self.pool.as_mut().is_some_and(|pool| pool.ask(range.clone()));
        if !pooled && self.due.iter().all(|due| due.via == Via::Origin) {
            self.let_pool_go();
        }
        let via = if pooled { Via::Pool } else { Via::Origin };
        if self.due.push_back(Due { range: range.clone(), request, via }).is_err() || self.failed.is_some() {
            return; // a chunk that is due after one that failed fails with it
        }
        if via == Via::Origin
            && let Err(fault) = self.fetcher.ask(range, self.way.live)
        {
            self.origin_fails(fault);
        }
    }

    /// Sends requests on to the origin while nothing can be given out.
    pub fn send_on(&mut self) {
        if self.failed.is_none()
            && let Err(fault) = self.fetcher.send_on()
        {
            self.origin_fails(fault);
        }
    }

    /// Whether something was fetched and not given out yet.
    pub fn holds_bytes(&self) -> bool {
        !self.held().is_empty()
    }

    fn held(&self) -> &[u8] {
        match &self.pool {
            Some(pool) if self.held.is_empty() => pool.held(),
            _ => self.buffer.get(self.held.clone()).unwrap_or_default(),
        }
    }

    /// Gives out what is held, as much as `to` takes.
    ///
    /// # Errors
    /// What the system says of the connection.
    pub fn give_to(&mut self, to: &TcpStream) -> io::Result<Moved> {
        let moved = net::write(to, self.held())?;
        if let Moved::Bytes(bytes) = moved {
            match &mut self.pool {
                Some(pool) if self.held.is_empty() => pool.consume(bytes),
                _ => self.held.start += bytes,
            }
        }
        Ok(moved)
    }

    /// The digest of the last chunk that came to its end, once.
    pub fn take_digest(&mut self) -> Option<ChunkDigest> {
        self.digest.take()
    }

    /// Takes what the origin has sent.
    pub fn step(&mut self, now: Instant) -> Step {
        loop {
            let Some(Due { range: chunk, request, via }) = self.due.front().cloned() else {
                self.failed = None;
                return Step::Idle;
            };
            // What has begun is finished; no more begins.
            if self.left.is_none() && self.way.usage.check(self.session.coordinator).is_err() {
                self.withdraw(DropReason::Quota);
            }
            if let Some(reason) = self.failed {
                return self.give_up(&chunk, request, reason);
            }
            if via == Via::Origin
                && let Some(fault) = self.origin_fault.take()
            {
                self.fail(fault);
                continue;
            }
            let progress = match (via, &mut self.pool) {
                (Via::Pool, Some(pool)) => pool.next(),
                _ => {
                    let most = match self.way.uplink.ask(self.buffer.len()) {
                        Ok(most) => most,
                        Err(until) => {
                            self.paced_until = Some(until);
                            return Step::Wait;
                        }
                    };
                    self.paced_until = None;
                    let room = self.buffer.get_mut(..most).unwrap_or_default();
                    self.fetcher.read(room, self.way.live)
                }
            };
            match progress {
                Ok(Progress::Bytes(bytes)) => {
                    self.held = 0..0;
                    // To the owner's limits counts what comes over this line, whether its chunk comes to an end or not.
                    let over_our_line = match (via, &mut self.pool) {
                        (Via::Pool, Some(pool)) => pool.take_own_bytes(),
                        _ => {
                            self.way.uplink.spend(bytes);
                            self.held = 0..bytes;
                            bytes as u64
                        }
                    };
                    self.way.usage.add(self.session.coordinator, over_our_line);
                    return self.moved(chunk, request, bytes, now);
                }
                Ok(Progress::Blocked | Progress::Idle) => return Step::Wait,
                Err(fault) => self.fail(fault),
            }
        }
    }

    fn moved(&mut self, chunk: Range<u64>, request: Reference, bytes: usize, now: Instant) -> Step {
        let mut hash = core::mem::take(&mut self.hash);
        hash.update(self.held());
        self.hash = hash;
        (self.heard, self.unreachable) = (now, 0);
        self.session.touch(now);
        let has_begun = self.left.is_some();
        let previous = if has_begun { None } else { self.digest.take() };
        let left = self.left.unwrap_or(chunk.end - chunk.start).saturating_sub(bytes as u64);
        self.measure(bytes, has_begun, now);
        if left == 0 {
            self.due.pop_front();
            self.left = None;
            self.session.add_served(chunk.clone());
            self.digest = Some(ChunkDigest(self.hash.finalize_reset().into()));
        } else {
            self.left = Some(left);
        }
        if has_begun { Step::Moved } else { Step::Begun(Begun { range: chunk, request, previous }) }
    }

    /// Our peers are not asked to help any more. What they brought of a chunk that was promised is still given out.
    fn let_pool_go(&mut self) {
        if let Some(mut pool) = self.pool.take() {
            if let Some(room) = self.buffer.get_mut(..pool.held().len()).filter(|room| !room.is_empty()) {
                room.copy_from_slice(pool.held());
                self.held = 0..room.len();
            }
            self.way.usage.add(self.session.coordinator, pool.take_own_bytes());
        }
    }

    fn measure(&mut self, bytes: usize, has_begun: bool, now: Instant) {
        let after_pause = self.asked_alone && !has_begun;
        match &mut self.pace {
            Some(pace) if after_pause => pace.begin(now),
            Some(pace) => pace.moved(bytes, now),
            None => self.pace = self.fetcher.wants().map(|(socket, _)| Pace::new(socket)),
        }
    }

    /// Request to first byte of a chunk that nothing else delayed: asked for once, right after its first byte.
    pub fn take_round_trip(&mut self) -> Option<Span> {
        let head = self.fetcher.take_head_times()?;
        core::mem::take(&mut self.asked_alone).then(|| head.at.since(head.sent))
    }

    /// See [`Fetcher::most_copied`].
    pub fn most_copied(&self) -> u32 {
        self.fetcher.most_copied()
    }

    fn give_up(&mut self, chunk: &Range<u64>, request: Reference, reason: DropReason) -> Step {
        match self.left {
            Some(left) => {
                self.session.add_served(chunk.start..chunk.end.saturating_sub(left));
                Step::Cut
            }
            None => {
                self.due.pop_front();
                Step::Refused(reason, request)
            }
        }
    }

    /// What is due from our peers first comes all the same.
    fn origin_fails(&mut self, fault: Fault) {
        match self.is_pooled() {
            true => drop(self.origin_fault.get_or_insert(fault)),
            false => self.fail(fault),
        }
    }

    fn fail(&mut self, fault: Fault) {
        let addresses = self.session.addresses.len();
        let is_pool = self.is_pooled();
        let is_unreachable = fault == Fault::Unreachable && !is_pool;
        self.unreachable += usize::from(is_unreachable);
        // What our peers and we can't do together we may still do alone.
        let try_next = self.left.is_none() && (is_pool || (is_unreachable && self.unreachable < addresses));
        if is_unreachable {
            self.session.skip_address(self.address);
        }
        log::debug!(
            "session {}: {} {fault}",
            self.session.id,
            if is_pool { "peers of ours:" } else { "origin" }
        );
        self.let_pool_go();
        self.origin_fault = None;
        self.address = self.session.address();
        self.fetcher = fetcher(&self.session, self.address, self.way);
        self.heard = Instant::now();
        if !try_next {
            self.unreachable = 0;
            self.failed = Some(reason(fault));
            return;
        }
        self.due.iter_mut().for_each(|due| due.via = Via::Origin);
        for Due { range, .. } in &self.due {
            if let Err(fault) = self.fetcher.ask(range.clone(), self.way.live) {
                return self.fail(fault); // there is one address less each time
            }
        }
    }

    /// What to wait for on the way to the origin, and when to look at the latest. `reading`: nothing is held, so
    /// the origin's bytes are wanted.
    pub fn wants(
        &mut self,
        reading: bool,
        now: Instant,
    ) -> Option<(BorrowedFd<'_>, PollFlags, Option<Instant>)> {
        if self.due.is_empty() || self.failed.is_some() {
            return None;
        }
        if self.is_pooled()
            && let Some(pool) = &self.pool
        {
            let (waker, again) = pool.wants();
            return reading.then_some((waker.as_fd(), PollFlags::IN, again));
        }
        let reading = reading && self.paced_until.is_none();
        let mark = match (&self.pace, self.left) {
            (Some(pace), Some(left)) => pace.wanted(left),
            _ => 1,
        };
        if reading {
            self.fetcher.set_mark(u32::try_from(mark).unwrap_or(u32::MAX));
        }
        let (socket, mut flags) = self.fetcher.wants()?;
        flags.set(PollFlags::IN, reading && flags.contains(PollFlags::IN));
        let look = (reading && mark > 1).then_some(now + LOOK_AFTER);
        (!flags.is_empty()).then_some((socket.as_fd(), flags, look))
    }

    /// Nothing came although it was waited for until [`Errand::wants`] said to look.
    pub fn slowed_down(&mut self) {
        if let Some(pace) = &mut self.pace {
            pace.slowed_down();
        }
    }

    /// Until now the origin was not read, so that it could not be heard either.
    pub fn not_silent_before(&mut self, now: Instant) {
        self.heard = now;
    }

    /// Whether the oldest chunk comes from our peers and us.
    fn is_pooled(&self) -> bool {
        self.due.front().is_some_and(|due| due.via == Via::Pool)
    }

    /// If the household's part of the line comes first now: when to go on.
    pub fn paced_until(&self) -> Option<Instant> {
        self.paced_until.filter(|_| !self.is_pooled())
    }

    /// For this reason nothing that is due is fetched any more.
    pub fn withdraw(&mut self, reason: DropReason) {
        if !self.due.is_empty() && self.failed.is_none() {
            self.failed = Some(reason);
            self.fetcher = fetcher(&self.session, self.address, self.way);
        }
        self.let_pool_go();
    }

    /// Until when the origin may be silent.
    pub fn deadline(&self) -> Instant {
        self.heard + if self.is_pooled() || self.fetcher.is_connected() { SILENCE } else { CONNECT }
    }

    /// Gives up an origin that was silent until [`Errand::deadline`].
    pub fn give_up_silent(&mut self) {
        let is_connected = self.is_pooled() || self.fetcher.is_connected();
        self.fail(if is_connected { Fault::Timeout } else { Fault::Unreachable });
    }
}

impl Drop for Errand<'_> {
    fn drop(&mut self) {
        self.let_pool_go();
    }
}

fn fetcher(session: &Session, address: usize, way: Way<'_>) -> Fetcher {
    // The addresses are never none: resolving would have failed.
    let address = session.addresses.get(address).copied().unwrap_or_else(|| ([0, 0, 0, 0], 0).into());
    let (from, via, uplink) = (way.from, way.via.into(), Some(way.uplink.clone()));
    let source = Source::Origin { address, from, via, uplink };
    Fetcher::new(session.file.clone(), source, None)
}

/// What the coordinator is told.
fn reason(fault: Fault) -> DropReason {
    match fault {
        Fault::Unreachable | Fault::Closed | Fault::Timeout => DropReason::OriginUnreachable,
        Fault::Status(status) => DropReason::OriginStatus(status),
        Fault::Changed => DropReason::OriginChanged,
        Fault::Malformed
        | Fault::Unproven
        | Fault::WrongRange
        | Fault::WrongLength
        | Fault::Encoded
        | Fault::Declined
        | Fault::Withdrawn(_)
        | Fault::Unauthentic
        | Fault::Corrupt
        | Fault::Mismatch
        | Fault::Inconsistent => DropReason::OriginUnusable,
    }
}

#[cfg(test)]
mod tests;
