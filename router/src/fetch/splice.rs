//! A fetcher whose bytes are only passed on: into a pipe, inside the kernel. Also what a connection that waits for its
//! first request needs. Not responsible for where the pipe leads.

use bamqp_core::transfer::Fault;

use super::{Fetcher, Progress, Source};
use crate::live::Live;
use crate::net::{Moved, Pipe};

impl Fetcher {
    /// Starts to connect to the origin, so that the first request finds the connection made.
    ///
    /// # Errors
    /// If the system refuses at once.
    pub fn connect_early(&mut self, live: &Live) -> Result<(), Fault> {
        if self.socket.is_none() { self.connect(live) } else { Ok(()) }
    }

    /// Whether a connection stands.
    pub fn is_connected(&self) -> bool {
        self.connected
    }

    /// Sends requests that wait, without reading: for when nobody takes the bytes.
    ///
    /// # Errors
    /// As [`Fetcher::read`].
    pub fn send_on(&mut self) -> Result<(), Fault> {
        self.send()
    }

    /// Moves what is there of the oldest range into `pipe`, at most `most` bytes, without waiting and never beyond
    /// the range. Only what came together with the head passes through user space. `Blocked` is also what a full
    /// pipe gives: so empty it before waiting.
    ///
    /// # Errors
    /// As [`Fetcher::read`].
    pub fn splice_into(&mut self, pipe: &mut Pipe, most: usize, live: &Live) -> Result<Progress, Fault> {
        self.send()?;
        let left = loop {
            if let Some(left) = self.body {
                break left;
            }
            if self.asks.is_empty() {
                return Ok(Progress::Idle);
            }
            if !self.read_head(live)? {
                return Ok(Progress::Blocked);
            }
        };
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(most);
        let data = self.inbox.data();
        let came_along = data.get(..most.min(data.len())).unwrap_or_default();
        let moved = match came_along.is_empty() {
            false => pipe.push(came_along).inspect(|moved| {
                if let Moved::Bytes(bytes) = moved {
                    self.inbox.consume(*bytes);
                }
            }),
            true => match &self.socket {
                Some(socket) => pipe.fill(&**socket, most),
                None => return Err(Fault::Closed),
            },
        };
        let got = match moved.map_err(|_| Fault::Closed)? {
            Moved::Bytes(bytes) => bytes,
            Moved::WouldBlock => return Ok(Progress::Blocked),
            Moved::End => return Err(Fault::Closed),
        };
        self.body = Some(left - got as u64);
        if left == got as u64 {
            self.finish_answer(live)?;
        }
        Ok(Progress::Bytes(got))
    }

    /// Lets go of a connection that the origin has closed while nothing was asked for.
    pub(super) fn forget_if_closed(&mut self) {
        let Source::Origin { .. } = self.source else { return };
        let Some(socket) = self.socket.as_deref().filter(|_| self.connected) else { return };
        let peeked = socket.peek(&mut [0]);
        if !matches!(peeked, Err(error) if error.kind() == std::io::ErrorKind::WouldBlock) {
            self.forget_connection();
        }
    }
}
