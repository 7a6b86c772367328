//! One connection from another router: reads its requests and hands them to the [`Counter`]. Not responsible for the
//! answers.
//!
//! Requests are read, and sent on to the origin, while a body flows and while the coordinator does not read; then the
//! origin is not read either. What is held never grows: a head each way, one buffer, [`super::HOLD_BYTES`].

use core::fmt;
use std::io;
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;

use bamqp_core::channel::Refusal;
use bamqp_core::http::request::Request;
use bamqp_core::limits::MAX_PEER_HEAD_BYTES;
use bamqp_core::signature::SignError;

use super::Serve;
use super::counter::{Counter, Handled, Wants};
use super::doors::Visit;
use crate::inbox::Inbox;
use crate::net::Moved;

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
    /// A request was not authentic, fresh, and in its place.
    Refused(Refusal),
    /// The other side asks and asks, whatever it is told.
    Flood,
    /// An answer can't be written or signed.
    Answer(SignError),
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
            End::Flood => f.write_str("a flood of requests"),
            End::Refused(refusal) => write!(f, "{refusal}"),
            End::Answer(error) => write!(f, "{error}"),
            End::Io(error) => write!(f, "{error}"),
        }
    }
}

/// A connection. `requests` stands beside the rest because a request borrows from it while it is handled.
pub(super) struct Desk<'a> {
    requests: Inbox,
    /// The request at the front of `requests` waits for its turn.
    is_held_up: bool,
    counter: Counter<'a>,
}

impl<'a> Desk<'a> {
    pub fn new(serve: &'a Serve, socket: Arc<TcpStream>, visit: &'a Visit) -> Self {
        let counter = Counter::new(serve, socket, visit);
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
        if self.counter.is_overstayed() {
            return Err(End::Silent);
        }
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
                    let head = self.requests.data().get(..length).unwrap_or_default();
                    let handled = self.counter.handle(&request, head)?;
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
