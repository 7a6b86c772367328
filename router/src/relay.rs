//! Passing bodies on: pumps that move bytes from one connection to another, inside the kernel wherever nothing has
//! to be looked at, and the loops that drive them. Not responsible for heads, nor for what is pooled.
//!
//! On an error a pump stops where it is: what was promised is never padded, the connection is closed early
//! instead, so that the client's own resume logic works.

use core::fmt;
use std::io;
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use bamqp_core::http::body::BodyLength;
use bamqp_core::http::body_scan::{BodyError, BodyScanner};

use crate::inbox::Inbox;
use crate::net::{self, Moved, Pipe, PollFd, PollFlags};
use crate::pace::Pace;

/// How long a connection in use may be without a byte either way. A paused player and a silent WebSocket are not
/// errors; squid waits as long.
pub const IDLE: Duration = Duration::from_secs(15 * 60);

/// The same once the client has closed its sending side: it may only have said all that it wants to say, but more
/// often it is gone.
pub const HALF_CLOSED_IDLE: Duration = Duration::from_secs(30);

/// Most bytes moved into the pipe at once.
const SPLICE_BYTES: u64 = 1 << 20;

/// Turns of one pump before the other direction gets its own.
const TURNS: usize = 64;

/// What a pump waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wants {
    /// Bytes of its source.
    Source,
    /// Room in its sink.
    Sink,
    /// Nothing: all that belongs to the body has been passed on.
    Nothing,
}

/// Why a body was not passed on whole.
#[derive(Debug)]
pub enum RelayError {
    /// The source closed before the end of the body.
    EndedEarly,
    /// The chunked coding is broken.
    Framing(BodyError),
    /// Reading failed.
    Source(io::Error),
    /// Writing failed: the other side is gone.
    Sink(io::Error),
    /// Nothing moved for too long.
    Idle,
    /// The bytes are not those of the digest that the origin told.
    WrongDigest,
}

impl fmt::Display for RelayError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::EndedEarly => write!(f, "the sender closed before the end of the body"),
            Self::Framing(error) => write!(f, "{error}"),
            Self::Source(error) => write!(f, "receiving failed: {error}"),
            Self::Sink(error) => write!(f, "sending failed: {error}"),
            Self::Idle => write!(f, "nothing moved for too long"),
            Self::WrongDigest => write!(f, "the bytes do not have the digest that the origin told"),
        }
    }
}

impl core::error::Error for RelayError {}

/// Moves one body from a connection to another. Bytes that came with the head are in `inbox`; the rest goes
/// through a pipe, but for the lines of the chunked coding.
#[derive(Debug)]
pub struct Pump<'a> {
    source: &'a TcpStream,
    inbox: &'a mut Inbox,
    sink: &'a TcpStream,
    scanner: BodyScanner,
    unchunk: bool,
    /// Bytes at the inbox's front that belong to the body and go on.
    passed: usize,
    pipe: Option<Pipe>,
    pace: Option<Pace>,
    wants: Wants,
}

impl<'a> Pump<'a> {
    /// Passes on the rest of the body that `scanner` is in.
    pub fn new(
        source: &'a TcpStream,
        inbox: &'a mut Inbox,
        sink: &'a TcpStream,
        scanner: BodyScanner,
    ) -> Self {
        let wants = if scanner.is_done() { Wants::Nothing } else { Wants::Source };
        Self { source, inbox, sink, scanner, unchunk: false, passed: 0, pipe: None, pace: None, wants }
    }

    /// One direction of a tunnel.
    pub fn tunnel(source: &'a TcpStream, inbox: &'a mut Inbox, sink: &'a TcpStream) -> Self {
        Self::new(source, inbox, sink, BodyScanner::new(BodyLength::UntilClose))
    }

    /// Waits for many bytes at a time where that delays nobody: for responses.
    pub fn bulk(mut self) -> Self {
        self.pace = Some(Pace::new(self.source));
        self
    }

    /// Takes the chunked coding off, for HTTP/1.0 clients.
    pub fn unchunk(mut self) -> Self {
        self.unchunk = true;
        self
    }

    /// Whether the whole body was passed on.
    pub fn is_done(&self) -> bool {
        self.wants == Wants::Nothing
    }

    /// Moves what can be moved without waiting; whether anything was.
    ///
    /// # Errors
    /// Why the body can't be passed on; the pump must not be used again.
    pub fn step(&mut self) -> Result<bool, RelayError> {
        let mut any = false;
        for _ in 0..TURNS {
            match self.turn()? {
                None => any = true,
                Some(wants) => {
                    self.wants = wants;
                    return Ok(any);
                }
            }
        }
        // There may be more to do at once, which a sink with room tells.
        let pending = self.pipe.as_ref().is_some_and(|pipe| pipe.held() > 0) || !self.inbox.data().is_empty();
        self.wants = if pending { Wants::Sink } else { Wants::Source };
        Ok(any)
    }

    /// The same, and passes the end on, too.
    fn tunnel_step(&mut self) -> Result<bool, RelayError> {
        if self.is_done() {
            return Ok(false);
        }
        let any = self.step()?;
        if self.is_done() {
            let _ = self.sink.shutdown(Shutdown::Write); // if it is dead, the other direction tells
        }
        Ok(any)
    }

    /// One transfer; what to wait for if there was none.
    fn turn(&mut self) -> Result<Option<Wants>, RelayError> {
        if let Some(pipe) = self.pipe.as_mut().filter(|pipe| pipe.held() > 0) {
            let moved = pipe.drain(self.sink).map_err(RelayError::Sink)?;
            return Ok((moved == Moved::WouldBlock).then_some(Wants::Sink));
        }
        if self.passed > 0 {
            let ready = self.inbox.data().get(..self.passed).unwrap_or_default();
            return match net::write(self.sink, ready).map_err(RelayError::Sink)? {
                Moved::Bytes(bytes) => {
                    self.inbox.consume(bytes);
                    self.passed -= bytes;
                    Ok(None)
                }
                _ => Ok(Some(Wants::Sink)),
            };
        }
        if self.scanner.is_done() {
            return Ok(Some(Wants::Nothing));
        }
        if !self.inbox.data().is_empty() {
            return self.look().map(|()| None);
        }
        let moved = match self.scanner.exact_ahead() {
            0 => self.inbox.fill(self.source),
            ahead => self.splice(ahead.min(SPLICE_BYTES)),
        };
        match moved.map_err(RelayError::Source)? {
            Moved::Bytes(bytes) => {
                if let Some(pace) = &mut self.pace {
                    pace.moved(bytes, Instant::now());
                }
                Ok(None)
            }
            Moved::WouldBlock => Ok(Some(Wants::Source)),
            Moved::End if self.scanner.may_close() => Ok(Some(Wants::Nothing)),
            Moved::End => Err(RelayError::EndedEarly),
        }
    }

    fn splice(&mut self, most: u64) -> io::Result<Moved> {
        let pipe = match &mut self.pipe {
            Some(pipe) => pipe,
            none => none.insert(Pipe::new()?),
        };
        let moved = pipe.fill(self.source, most as usize)?; // most <= SPLICE_BYTES
        if let Moved::Bytes(bytes) = moved {
            self.scanner.passed(bytes as u64);
        }
        Ok(moved)
    }

    /// Finds out how much of the inbox belongs to the body.
    fn look(&mut self) -> Result<(), RelayError> {
        if !self.unchunk {
            self.passed = self.scanner.scan(self.inbox.data()).map_err(RelayError::Framing)?;
            return Ok(());
        }
        let piece = self.scanner.piece(self.inbox.data()).map_err(RelayError::Framing)?;
        if piece.content {
            self.passed = piece.len;
        } else {
            self.inbox.consume(piece.len);
        }
        Ok(())
    }

    /// Sets the low-water mark; when to look at the source although it was not reached.
    fn prepare(&mut self, now: Instant) -> Option<Instant> {
        let rest = self.scanner.exact_ahead();
        match (&mut self.pace, self.wants) {
            (Some(pace), Wants::Source) => pace.prepare(self.source, rest, now),
            _ => None,
        }
    }
}

impl<'a> Pump<'a> {
    /// Adds what it waits for; the place of its sink, which is added for its errors in any case.
    fn add_to(&self, fds: &mut Fds<'a>) -> Option<usize> {
        add(fds, Some(self.source).filter(|_| self.wants == Wants::Source), PollFlags::IN);
        let flags = if self.wants == Wants::Sink { PollFlags::OUT } else { PollFlags::empty() };
        add(fds, Some(self.sink).filter(|_| !self.is_done()), flags)
    }
}

impl Drop for Pump<'_> {
    fn drop(&mut self) {
        if let Some(pace) = &mut self.pace {
            pace.reset(self.source);
        }
    }
}

/// One of two pumps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Which {
    First,
    Second,
}

/// What ended a wait.
#[derive(Clone, Copy, Debug)]
struct Woken {
    /// The socket that was watched beside the pumps is readable or dead.
    watched: bool,
    /// The client closed its sending side.
    half_closed: bool,
    /// A pump's sink was reset, or closed for both directions.
    gone: Option<Which>,
    /// Nothing happened until the deadline.
    expired: bool,
}

/// The fixed room for one wait: two pumps with two sockets each, and two sockets that are watched.
type Fds<'a> = heapless::Vec<PollFd<'a>, 6>;

/// Adds a socket, if there is one; its place.
fn add<'a>(fds: &mut Fds<'a>, socket: Option<&'a TcpStream>, flags: PollFlags) -> Option<usize> {
    fds.push(PollFd::new(socket?, flags)).ok()?;
    Some(fds.len() - 1)
}

/// Waits until a pump can go on, `watch` is readable, or `client` closes its sending side.
fn wait(
    first: &mut Pump<'_>,
    mut second: Option<&mut Pump<'_>>,
    watch: Option<&TcpStream>,
    client: Option<&TcpStream>,
    deadline: Instant,
) -> Result<Woken, RelayError> {
    let now = Instant::now();
    let looks = [first.prepare(now), second.as_mut().and_then(|pump| pump.prepare(now))];
    let until = looks.into_iter().flatten().fold(deadline, Instant::min);

    let mut fds = Fds::new();
    let watched = add(&mut fds, watch, PollFlags::IN);
    let half_closed = add(&mut fds, client, PollFlags::RDHUP);
    let first_sink = first.add_to(&mut fds);
    let second_sink = second.as_ref().and_then(|pump| pump.add_to(&mut fds));
    let ready = net::poll(&mut fds, Some(until)).map_err(RelayError::Source)?;
    let told = |index: Option<usize>, flags| {
        index.and_then(|index| fds.get(index)).is_some_and(|fd| fd.revents().intersects(flags))
    };
    let dead = PollFlags::HUP | PollFlags::ERR;
    let gone = match (told(first_sink, dead), told(second_sink, dead)) {
        (true, _) => Some(Which::First),
        (false, true) => Some(Which::Second),
        (false, false) => None,
    };
    let woken = Woken {
        watched: told(watched, PollFlags::IN | dead),
        half_closed: told(half_closed, PollFlags::RDHUP),
        gone,
        expired: ready == 0 && until == deadline,
    };
    if ready == 0 && !woken.expired {
        let paces = [first.pace.as_mut(), second.as_mut().and_then(|pump| pump.pace.as_mut())];
        paces.into_iter().flatten().for_each(Pace::slowed_down);
    }
    Ok(woken)
}

fn gone(sink: &TcpStream) -> RelayError {
    let error = sink.take_error().ok().flatten();
    RelayError::Sink(error.unwrap_or_else(|| io::ErrorKind::BrokenPipe.into()))
}

/// Passes the request on until the origin has something to say, whether or not all of it was passed on by then.
/// An origin that takes no more of it may have answered, so that is no error either.
///
/// # Errors
/// [`RelayError::Idle`] after `patience` without a byte; else the client is gone, or its request is broken.
pub fn upload(request: &mut Pump<'_>, patience: Duration) -> Result<(), RelayError> {
    let (client, origin) = (request.source, request.sink);
    let (mut patience, mut watch_client) = (patience, true);
    let mut deadline = Instant::now() + patience;
    loop {
        match request.step() {
            Ok(true) => deadline = Instant::now() + patience,
            Ok(false) => {}
            Err(RelayError::Sink(_)) => return Ok(()),
            Err(error) => return Err(error),
        }
        // Its end is not news while the body is read from there: the pump finds it.
        let client = Some(client).filter(|_| watch_client && request.is_done());
        let woken = wait(request, None, Some(origin), client, deadline)?;
        if woken.watched || woken.gone.is_some() {
            return Ok(());
        }
        if woken.half_closed {
            (patience, watch_client) = (HALF_CLOSED_IDLE.min(patience), false);
            deadline = deadline.min(Instant::now() + patience);
        }
        if woken.expired {
            return Err(RelayError::Idle);
        }
    }
}

/// Passes a response on until its end, and meanwhile what is left of the request. That the request can't be passed
/// on any further is no error: the origin has answered.
///
/// # Errors
/// Why the response can't be passed on.
pub fn exchange(response: &mut Pump<'_>, mut request: Option<&mut Pump<'_>>) -> Result<(), RelayError> {
    let client = response.sink;
    let mut idle = IDLE;
    let mut deadline = Instant::now() + idle;
    loop {
        let mut any = response.step()?;
        if response.is_done() {
            return Ok(());
        }
        if let Some(upload) = request.take_if(|upload| !upload.is_done()) {
            // Put back only while there is more of it.
            if let Ok(moved) = upload.step() {
                any |= moved;
                request = Some(upload);
            }
        }
        if any {
            deadline = Instant::now() + idle;
        }
        let woken = match &mut request {
            Some(upload) => wait(response, Some(upload), None, None, deadline)?,
            None => {
                let watch = Some(client).filter(|_| idle == IDLE);
                wait(response, None, None, watch, deadline)?
            }
        };
        match woken.gone {
            Some(Which::First) => return Err(gone(client)),
            Some(Which::Second) => request = None,
            None => {}
        }
        if woken.half_closed {
            idle = HALF_CLOSED_IDLE;
            deadline = Instant::now() + idle;
        }
        if woken.expired {
            return Err(RelayError::Idle);
        }
    }
}

/// Passes bytes on in both directions until both have ended; the end of each is passed on, too.
///
/// # Errors
/// What broke one of the directions; both connections have to be closed.
pub fn tunnel(one: &mut Pump<'_>, other: &mut Pump<'_>) -> Result<(), RelayError> {
    let mut deadline = Instant::now() + IDLE;
    loop {
        if one.tunnel_step()? | other.tunnel_step()? {
            deadline = Instant::now() + IDLE;
        }
        if one.is_done() && other.is_done() {
            return Ok(());
        }
        let woken = wait(one, Some(other), None, None, deadline)?;
        match woken.gone {
            Some(Which::First) => return Err(gone(one.sink)),
            Some(Which::Second) => return Err(gone(other.sink)),
            None if woken.expired => return Err(RelayError::Idle),
            None => {}
        }
    }
}
