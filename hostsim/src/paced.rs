//! One connection of the origin, paced by the link of its source: a thread that reads requests, and one that
//! puts answers on the link (by arithmetic), sleeps until they have arrived at the far end, and then writes them
//! to the socket. Not responsible for what is answered.
//!
//! ```text
//! reader ─ request ─▶ inbox ─ answer ─▶ Flow: window open? ─▶ Link: when does it arrive? ─▶ line ─ sleep ─▶ write
//! ```
//!
//! All moments are absolute: who wakes up late schedules as of the moment that it missed, so the machine's noise
//! does not slow the link. Only a receiver that does not read does.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use bamqp_core::time::{Instant, Span};

use crate::answer::{self, Answer, File, Request};
use crate::flow::{Flow, SEGMENT};
use crate::origin::{Shared, Source};

/// How much of the link's time one write carries: less makes many wake-ups, more makes bursts.
const QUANTUM: Span = Span::from_millis(3);

/// Most bytes of one write.
const MAX_QUANTUM: u64 = 16 * 1024;

/// How often a connection looks whether its silent link has come back.
const SILENCE: Span = Span::from_millis(20);

/// A write that takes longer met a receiver that does not read.
const BLOCKED: Span = Span::from_millis(5);

/// Requests that have arrived at the server, and until when the next must still travel.
#[derive(Default)]
struct Inbox {
    requests: VecDeque<(Instant, Result<Request, answer::BadRequest>)>,
    /// No further request will come.
    ended: bool,
    /// Nothing can be written any more.
    broken: bool,
}

#[derive(Default)]
struct Shelf {
    inbox: Mutex<Inbox>,
    changed: Condvar,
}

impl Shelf {
    fn with<R>(&self, act: impl FnOnce(&mut Inbox) -> R) -> R {
        act(&mut self.inbox.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn put(&self, act: impl FnOnce(&mut Inbox)) {
        self.with(act);
        self.changed.notify_one();
    }

    /// Sleeps until `wake`, or until the inbox changed since it held `known` requests.
    fn sleep(&self, known: usize, now: Instant, wake: Option<Instant>) {
        let inbox = self.inbox.lock().unwrap_or_else(PoisonError::into_inner);
        if inbox.requests.len() != known {
            return;
        }
        match wake {
            Some(wake) => {
                let pause = Duration::from_micros(wake.since(now).as_micros());
                drop(self.changed.wait_timeout(inbox, pause));
            }
            None if inbox.ended => {}
            None => drop(self.changed.wait(inbox)),
        }
    }
}

/// Bytes on their way: the head of an answer or a piece of the file.
enum Piece {
    Head(Vec<u8>),
    /// Each byte XORed with the last.
    Body(Arc<File>, Range<usize>, u8),
}

impl Piece {
    fn bytes(&self) -> Cow<'_, [u8]> {
        match self {
            Piece::Head(head) => Cow::Borrowed(head),
            Piece::Body(file, range, mask) => {
                let bytes = file.bytes.get(range.clone()).unwrap_or_default();
                match mask {
                    0 => Cow::Borrowed(bytes),
                    mask => bytes.iter().map(|byte| byte ^ mask).collect(),
                }
            }
        }
    }
}

/// What is left to send of the answer at hand.
struct Rest {
    since: Instant,
    head: Vec<u8>,
    file: Arc<File>,
    body: Range<usize>,
    mask: u8,
    last: bool,
}

/// Serves one connection that was accepted at `accepted` until either side ends it.
pub(crate) fn serve(
    stream: &TcpStream,
    shared: &Shared,
    source: &Source,
    accepted: Instant,
    limited: bool,
) -> io::Result<()> {
    let shelf = Shelf::default();
    thread::scope(|scope| {
        thread::Builder::new()
            .spawn_scoped(scope, || read_requests(stream, shared, source, accepted, &shelf))?;
        let mut writer = Writer {
            stream,
            shared,
            source,
            limited,
            shelf: &shelf,
            flow: Flow::new(source.link().one_way()),
            line: VecDeque::new(),
            rest: None,
            floor: accepted,
            last: false,
        };
        let result = writer.run();
        // Ends the reader.
        let _ = stream.shutdown(Shutdown::Both);
        result
    })
}

/// The request of a fresh connection waits for the handshake (one round trip after `accepted`, which the
/// loopback did at once); each travels half a round trip.
fn read_requests(mut stream: &TcpStream, shared: &Shared, source: &Source, accepted: Instant, shelf: &Shelf) {
    let (rtt, one_way) = {
        let link = source.link();
        (link.rtt(), link.one_way())
    };
    let mut buffer = Vec::new();
    let mut read = [0; 4096];
    let broken = loop {
        match Request::parse(&buffer) {
            Ok(None) => match stream.read(&mut read) {
                Ok(0) => break false,
                Ok(count) => buffer.extend_from_slice(read.get(..count).unwrap_or_default()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break true,
            },
            parsed => {
                let arrives = shared.now().max(accepted + rtt) + one_way;
                let stop = parsed.is_err();
                let request = match parsed {
                    Ok(Some((request, length))) => {
                        buffer.drain(..length.min(buffer.len()));
                        Ok(request)
                    }
                    _ => Err(answer::BadRequest),
                };
                shelf.put(|inbox| inbox.requests.push_back((arrives, request)));
                if stop {
                    break false;
                }
            }
        }
    };
    shelf.put(|inbox| {
        inbox.ended = true;
        inbox.broken = broken;
    });
}

struct Writer<'a> {
    stream: &'a TcpStream,
    shared: &'a Shared,
    source: &'a Source,
    limited: bool,
    shelf: &'a Shelf,
    flow: Flow,
    line: VecDeque<(Instant, Piece)>,
    rest: Option<Rest>,
    /// Nothing is sent as of an earlier moment.
    floor: Instant,
    /// The connection ends after what is under way.
    last: bool,
}

impl Writer<'_> {
    fn run(&mut self) -> io::Result<()> {
        loop {
            self.deliver()?;
            let now = self.shared.now();
            self.schedule(now);
            let (known, ended, broken, ready) = self.shelf.with(|inbox| {
                let ready = inbox.requests.front().map(|(at, _)| *at);
                (inbox.requests.len(), inbox.ended, inbox.broken, ready)
            });
            let silent = self.source.link().is_silent();
            let idle = self.line.is_empty() && self.rest.is_none();
            if broken || (ended && silent) || (idle && (self.last || (ended && known == 0))) {
                return Ok(());
            }
            let wake = if silent { Some(now + SILENCE) } else { self.next(now, ready) };
            self.shelf.sleep(known, now, wake);
        }
    }

    /// Writes what has arrived at the far end.
    fn deliver(&mut self) -> io::Result<()> {
        loop {
            let now = self.shared.now();
            if self.line.front().is_none_or(|(at, _)| *at > now) || self.source.link().is_silent() {
                return Ok(());
            }
            let Some((at, piece)) = self.line.pop_front() else { return Ok(()) };
            let bytes = piece.bytes();
            let mut stream = self.stream;
            stream.write_all(&bytes)?;
            self.flow.arrived(at, bytes.len() as u64);
            self.source.count(bytes.len() as u64);
            let done = self.shared.now();
            if done.since(now) > BLOCKED {
                self.floor = done;
            }
        }
    }

    /// Puts on the link what window and queue let go by `now`.
    fn schedule(&mut self, now: Instant) {
        loop {
            if self.rest.is_none() {
                self.rest = self.take(now);
            }
            let Some(rest) = &mut self.rest else { return };
            let mut link = self.source.link();
            let Some(room) = link.room_at() else { return };
            let Some(at) = self.flow.open(rest.since.max(room).max(self.floor), now) else { return };
            if at > now {
                return;
            }
            let (piece, bytes) = if rest.head.is_empty() {
                let segments =
                    (link.rate() * QUANTUM.as_micros() / 1_000_000).clamp(SEGMENT, MAX_QUANTUM) / SEGMENT;
                let most = (segments * SEGMENT).min(self.flow.room());
                let end = rest.body.end.min(rest.body.start.saturating_add(most as usize));
                let part = rest.body.start..end;
                rest.body.start = end;
                let bytes = part.len() as u64;
                (Piece::Body(rest.file.clone(), part, rest.mask), bytes)
            } else {
                let head = std::mem::take(&mut rest.head);
                let bytes = head.len() as u64;
                (Piece::Head(head), bytes)
            };
            if let Some(arrives) = link.send(at, bytes) {
                self.line.push_back((arrives, piece));
                self.flow.sent(bytes);
            }
            if rest.body.is_empty() {
                self.last |= rest.last;
                self.rest = None;
            }
        }
    }

    /// The answer to the next request, if one has arrived by `now` and the connection goes on.
    fn take(&self, now: Instant) -> Option<Rest> {
        if self.last {
            return None;
        }
        let (since, request) = self.shelf.with(|inbox| {
            let due = inbox.requests.front().is_some_and(|(at, _)| *at <= now);
            due.then(|| inbox.requests.pop_front()).flatten()
        })?;
        let (mut answer, file) = match request {
            Ok(request) => self.shared.answer(self.source, &request, self.limited),
            Err(answer::BadRequest) => {
                (answer::refuse(400, true), Arc::new(File::new(Arc::default(), std::time::UNIX_EPOCH)))
            }
        };
        answer.head.append(&mut answer.parts);
        let Answer { head, body, mask, last, .. } = answer;
        Some(Rest { since, head, file, body, mask, last })
    }

    /// When there is something to do again, if nobody asks for anything before.
    fn next(&self, now: Instant, ready: Option<Instant>) -> Option<Instant> {
        let arrival = self.line.front().map(|(at, _)| *at);
        let more = if self.rest.is_some() {
            let link = self.source.link();
            // While something is under way its arrivals are the clock; but the queue must not run dry.
            let room = if self.line.is_empty() { link.room_at() } else { link.half_empty_at() };
            if self.flow.room() == 0 { self.flow.next_ack() } else { room }
        } else {
            // After the last answer nobody takes requests any more.
            ready.filter(|_| !self.last)
        };
        [arrival, more].into_iter().flatten().min().map(|at| at.max(now + Span::from_micros(1)))
    }
}
