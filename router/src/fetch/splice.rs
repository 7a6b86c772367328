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
                if let Moved::Bytes(bytes) = *moved {
                    self.inbox.consume(bytes);
                    self.count_copied(bytes);
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
            self.finish_answer(live);
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

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::TcpListener;
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use bamqp_core::http::validator::Validator;

    use super::*;
    use crate::fetch::File;
    use crate::net;

    /// A fetcher of a file of ten bytes, and where it will connect to.
    fn fetcher() -> (Fetcher, TcpListener) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let file = File {
            uri: format!("http://{address}/"),
            total: 10,
            validator: Validator::entity_tag(b"\"v\"").unwrap(),
            user_agent: None,
            accept: None,
        };
        let source = Source::Origin { address, from: None, via: "test".into() };
        (Fetcher::new(Arc::new(file), source, None), listener)
    }

    fn answer(range: &str, close: bool) -> String {
        let more = if close { "Connection: close\r\n" } else { "" };
        format!(
            "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes {range}/10\r\nContent-Length: 5\r\n\
             ETag: \"v\"\r\n{more}\r\n"
        )
    }

    fn splice(fetcher: &mut Fetcher, pipe: &mut Pipe, live: &Live) -> Result<Progress, Fault> {
        loop {
            let progress = fetcher.splice_into(pipe, 1000, live)?;
            let Some((socket, flags)) = fetcher.wants().filter(|_| progress == Progress::Blocked) else {
                return Ok(progress);
            };
            let soon = Instant::now() + Duration::from_secs(10);
            assert!(net::poll(&mut [net::PollFd::new(socket, flags)], Some(soon)).unwrap() > 0);
        }
    }

    #[test]
    fn what_came_with_the_head_goes_first_and_the_next_answer_stays() {
        let (mut fetcher, listener) = fetcher();
        let (mut pipe, live) = (Pipe::new().unwrap(), Live::default());
        fetcher.ask(0..5, &live).unwrap();
        let mut origin = listener.accept().unwrap().0;
        write!(origin, "{}ab", answer("0-4", false)).unwrap();
        assert_eq!(splice(&mut fetcher, &mut pipe, &live), Ok(Progress::Bytes(2)));
        assert!(fetcher.take_head_times().is_some() && fetcher.take_head_times().is_none());
        fetcher.ask(5..10, &live).unwrap();
        write!(origin, "cde{}fghij", answer("5-9", false)).unwrap();
        let mut got = 2;
        while got < 10 {
            match splice(&mut fetcher, &mut pipe, &live) {
                Ok(Progress::Bytes(bytes)) => got += bytes,
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(splice(&mut fetcher, &mut pipe, &live), Ok(Progress::Idle));
        let mut end = [0; 10];
        let (near, far) = (TcpListener::bind("127.0.0.1:0").unwrap(), std::net::TcpStream::connect);
        let out = far(near.local_addr().unwrap()).unwrap();
        pipe.drain(&out).unwrap();
        std::io::Read::read_exact(&mut near.accept().unwrap().0, &mut end).unwrap();
        assert_eq!(&end, b"abcdefghij");
    }

    #[test]
    fn that_there_is_no_next_connection_is_told_after_the_last_bytes() {
        let (mut fetcher, listener) = fetcher();
        let (mut pipe, live) = (Pipe::new().unwrap(), Live::default());
        fetcher.ask(0..5, &live).unwrap();
        fetcher.ask(5..10, &live).unwrap();
        let mut origin = listener.accept().unwrap().0;
        write!(origin, "{}abcde", answer("0-4", true)).unwrap();
        let stopped = Live::default();
        stopped.stop();
        assert_eq!(splice(&mut fetcher, &mut pipe, &stopped), Ok(Progress::Bytes(5)));
        assert_eq!(splice(&mut fetcher, &mut pipe, &stopped), Err(Fault::Unreachable));
    }
}
