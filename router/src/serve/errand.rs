//! What one connection of a coordinator has to be fetched: the chunks that are due on it, in their order, and the
//! connection to the origin that brings them. Not responsible for the connection to the coordinator.

use core::net::IpAddr;
use core::ops::Range;
use std::io;
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bamqp_core::limits::MAX_PIPELINE;
use bamqp_core::message::reason::DropReason;
use bamqp_core::time::Span;
use bamqp_core::transfer::Fault;
use heapless::Deque;

use super::sessions::Session;
use crate::fetch::{Fetcher, Progress, Source};
use crate::live::Live;
use crate::net::{Pipe, PollFlags};
use crate::pace::{LOOK_AFTER, Pace};

/// How long an address of the origin may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(5);

/// How long the origin may be silent while it owes bytes. Long: the coordinator knows better when to give up.
const SILENCE: Duration = Duration::from_secs(30);

/// Most bytes moved into the pipe at once.
const SPLICE_BYTES: usize = 64 * 1024;

/// The way to origins, as all errands use it.
#[derive(Clone, Copy, Debug)]
pub struct Way<'a> {
    /// Where connections to the internet come from.
    pub from: Option<IpAddr>,
    /// Our pseudonym.
    pub via: &'a str,
    /// Where the sockets are kept in view.
    pub live: &'a Live,
}

/// What [`Errand::step`] did.
#[derive(Debug)]
pub enum Step {
    /// Bytes of the oldest chunk are in the pipe.
    Moved,
    /// The same, and they are its first ones: its head goes before them.
    Begun(Range<u64>),
    /// The oldest chunk can't be had; it is not due any more.
    Refused(DropReason),
    /// The oldest chunk has begun and can't be had to its end.
    Cut,
    /// The origin has to bring more.
    Wait,
    /// Nothing is due.
    Idle,
}

/// One session's chunks on one connection.
#[derive(Debug)]
pub struct Errand<'a> {
    /// The session.
    pub session: Arc<Session>,
    /// What was fetched and is on its way to the coordinator. Emptied before the next [`Errand::step`].
    pub pipe: Pipe,
    way: Way<'a>,
    fetcher: Fetcher,
    /// Place of the origin's address in the session's.
    address: usize,
    due: Deque<Range<u64>, MAX_PIPELINE>,
    /// Bytes of the oldest chunk that are still to come, once its first ones have.
    left: Option<u64>,
    /// The oldest chunk was asked for while no other was due.
    asked_alone: bool,
    /// Why nothing that is due can be had.
    failed: Option<DropReason>,
    pace: Option<Pace>,
    /// The last sign of life, or when waiting for one began.
    heard: Instant,
    /// Addresses in a row that did not answer.
    unreachable: usize,
}

impl<'a> Errand<'a> {
    /// Starts to connect to the session's origin.
    ///
    /// # Errors
    /// If the process has no descriptors left.
    pub fn new(session: Arc<Session>, way: Way<'a>) -> io::Result<Self> {
        let address = session.address();
        let mut fetcher = fetcher(&session, address, way);
        // That it can't be reached is said to who asks for a chunk.
        let _ = fetcher.connect_early(way.live);
        Ok(Self {
            session,
            pipe: Pipe::new()?,
            way,
            fetcher,
            address,
            due: Deque::new(),
            left: None,
            asked_alone: false,
            failed: None,
            pace: None,
            heard: Instant::now(),
            unreachable: 0,
        })
    }

    /// Whether all that was asked for has been given out.
    pub fn is_quiet(&self) -> bool {
        self.due.is_empty() && self.pipe.held() == 0
    }

    /// Whether chunks are due.
    pub fn is_busy(&self) -> bool {
        !self.due.is_empty()
    }

    /// Whether no more can be asked for now.
    pub fn is_full(&self) -> bool {
        self.due.is_full()
    }

    /// Asks for `range`, which lies within the file.
    pub fn ask(&mut self, range: Range<u64>) {
        if self.due.is_empty() {
            (self.heard, self.asked_alone) = (Instant::now(), true);
        }
        if self.due.push_back(range.clone()).is_err() || self.failed.is_some() {
            return; // a chunk that is due after one that failed fails with it
        }
        if let Err(fault) = self.fetcher.ask(range, self.way.live) {
            self.fail(fault);
        }
    }

    /// Sends requests on to the origin while nothing can be given out.
    pub fn send_on(&mut self) {
        if self.failed.is_none()
            && let Err(fault) = self.fetcher.send_on()
        {
            self.fail(fault);
        }
    }

    /// Moves what the origin has sent into the pipe.
    pub fn step(&mut self, now: Instant) -> Step {
        loop {
            let Some(chunk) = self.due.front().cloned() else {
                self.failed = None;
                return Step::Idle;
            };
            if let Some(reason) = self.failed {
                return self.give_up(&chunk, reason);
            }
            match self.fetcher.splice_into(&mut self.pipe, SPLICE_BYTES, self.way.live) {
                Ok(Progress::Bytes(bytes)) => return self.moved(chunk, bytes, now),
                Ok(Progress::Blocked | Progress::Idle) => return Step::Wait,
                Err(fault) => self.fail(fault),
            }
        }
    }

    fn moved(&mut self, chunk: Range<u64>, bytes: usize, now: Instant) -> Step {
        (self.heard, self.unreachable) = (now, 0);
        self.session.touch(now);
        let has_begun = self.left.is_some();
        let left = self.left.unwrap_or(chunk.end - chunk.start).saturating_sub(bytes as u64);
        self.measure(bytes, has_begun, now);
        if left == 0 {
            self.due.pop_front();
            self.left = None;
            self.session.add_served(chunk.clone());
        } else {
            self.left = Some(left);
        }
        if has_begun { Step::Moved } else { Step::Begun(chunk) }
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

    fn give_up(&mut self, chunk: &Range<u64>, reason: DropReason) -> Step {
        match self.left {
            Some(left) => {
                self.session.add_served(chunk.start..chunk.end.saturating_sub(left));
                Step::Cut
            }
            None => {
                self.due.pop_front();
                Step::Refused(reason)
            }
        }
    }

    fn fail(&mut self, fault: Fault) {
        let addresses = self.session.addresses.len();
        self.unreachable += usize::from(fault == Fault::Unreachable);
        let try_next = fault == Fault::Unreachable && self.left.is_none() && self.unreachable < addresses;
        if fault == Fault::Unreachable {
            self.session.skip_address(self.address);
        }
        log::debug!("session {}: origin {fault}", self.session.id);
        self.address = self.session.address();
        self.fetcher = fetcher(&self.session, self.address, self.way);
        self.heard = Instant::now();
        if !try_next {
            self.unreachable = 0;
            self.failed = Some(reason(fault));
            return;
        }
        for range in &self.due {
            if let Err(fault) = self.fetcher.ask(range.clone(), self.way.live) {
                return self.fail(fault); // there is one address less each time
            }
        }
    }

    /// What to wait for on the way to the origin, and when to look at the latest. `reading`: the pipe is empty, so
    /// the origin's bytes are wanted.
    pub fn wants(&mut self, reading: bool, now: Instant) -> Option<(&TcpStream, PollFlags, Option<Instant>)> {
        if self.due.is_empty() || self.failed.is_some() {
            return None;
        }
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
        (!flags.is_empty()).then_some((socket, flags, look))
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

    /// Until when the origin may be silent.
    pub fn deadline(&self) -> Instant {
        self.heard + if self.fetcher.is_connected() { SILENCE } else { CONNECT }
    }

    /// Gives up an origin that was silent until [`Errand::deadline`].
    pub fn give_up_silent(&mut self) {
        let is_connected = self.fetcher.is_connected();
        self.fail(if is_connected { Fault::Timeout } else { Fault::Unreachable });
    }
}

fn fetcher(session: &Session, address: usize, way: Way<'_>) -> Fetcher {
    // The addresses are never none: resolving would have failed.
    let address = session.addresses.get(address).copied().unwrap_or_else(|| ([0, 0, 0, 0], 0).into());
    let source = Source::Origin { address, from: way.from, via: way.via.into() };
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
        | Fault::Declined => DropReason::OriginUnusable,
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use bamqp_core::http::validator::Validator;
    use bamqp_core::message::SessionId;

    use super::*;
    use crate::fetch::File;
    use crate::net::{self, PollFd};
    use crate::origin::Addresses;

    fn session(addresses: &[core::net::SocketAddr]) -> Arc<Session> {
        let file = File {
            uri: "http://origin.test/".into(),
            total: 10,
            validator: Validator::entity_tag(b"\"v\"").unwrap(),
            user_agent: None,
            accept: None,
        };
        let addresses = Addresses::from_slice(addresses).unwrap();
        let coordinator = "127.0.0.1".parse().unwrap();
        Arc::new(Session::new(SessionId([1; 16]), coordinator, file, addresses, Instant::now()))
    }

    /// What comes of the oldest chunk.
    fn outcome(errand: &mut Errand<'_>) -> Step {
        let soon = Instant::now() + Duration::from_secs(10);
        loop {
            match errand.step(Instant::now()) {
                Step::Wait => {}
                other => return other,
            }
            let (socket, flags, _) = errand.wants(true, Instant::now()).unwrap();
            assert!(net::poll(&mut [PollFd::new(socket, flags)], Some(soon)).unwrap() > 0);
        }
    }

    #[test]
    fn the_next_address_is_tried_and_then_used_by_others() {
        let closed = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let origin = TcpListener::bind("127.0.0.1:0").unwrap();
        let live = Live::default();
        let way = Way { from: None, via: "test", live: &live };
        let session = session(&[closed(), closed(), origin.local_addr().unwrap()]);
        let mut errand = Errand::new(session.clone(), way).unwrap();
        errand.ask(0..4);
        errand.ask(4..10);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut socket = origin.accept().unwrap().0;
                let head = "HTTP/1.1 206 Partial Content\r\nETag: \"v\"\r\nContent-Length: 4\r\n\
                            Content-Range: bytes 0-3/10\r\n\r\n";
                io::Write::write_all(&mut socket, format!("{head}abcd").as_bytes()).unwrap();
                let _ = io::Read::read(&mut socket, &mut [0; 100]);
            });
            let Step::Begun(range) = outcome(&mut errand) else { panic!("not fetched") };
            assert_eq!((range, errand.pipe.held()), (0..4, 4));
        });
        assert_eq!(session.address(), 2);
    }

    #[test]
    fn when_no_address_answers_all_chunks_are_refused() {
        let closed = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let live = Live::default();
        let session = session(&[closed(), closed()]);
        let mut errand = Errand::new(session, Way { from: None, via: "test", live: &live }).unwrap();
        errand.ask(0..4);
        errand.ask(4..10);
        for _ in 0..2 {
            let Step::Refused(reason) = outcome(&mut errand) else { panic!("not refused") };
            assert_eq!(reason, DropReason::OriginUnreachable);
        }
        assert!(matches!(errand.step(Instant::now()), Step::Idle));
    }
}
