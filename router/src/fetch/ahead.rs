//! What a fetcher does ahead of reading: connecting before the first request, and sending requests on while nobody takes
//! the bytes. Not responsible for reading.

use bamqp_core::transfer::Fault;

use super::{Fetcher, Source};
use crate::live::Live;

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
    use crate::fetch::{File, Progress};
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
        let source = Source::Origin { address, from: None, via: "test".into(), uplink: None };
        (Fetcher::new(Arc::new(file), source, None), listener)
    }

    fn answer(range: &str, close: bool) -> String {
        let more = if close { "Connection: close\r\n" } else { "" };
        format!(
            "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes {range}/10\r\nContent-Length: 5\r\n\
             ETag: \"v\"\r\n{more}\r\n"
        )
    }

    fn read(fetcher: &mut Fetcher, buffer: &mut [u8], live: &Live) -> Result<Progress, Fault> {
        loop {
            let progress = fetcher.read(buffer, live)?;
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
        let (mut bytes, live) = ([0; 100], Live::default());
        fetcher.ask(0..5, &live).unwrap();
        let mut origin = listener.accept().unwrap().0;
        write!(origin, "{}ab", answer("0-4", false)).unwrap();
        assert_eq!(read(&mut fetcher, &mut bytes, &live), Ok(Progress::Bytes(2)));
        assert!(fetcher.take_head_times().is_some() && fetcher.take_head_times().is_none());
        fetcher.ask(5..10, &live).unwrap();
        write!(origin, "cde{}fghij", answer("5-9", false)).unwrap();
        let mut got = 2;
        while got < 10 {
            match read(&mut fetcher, &mut bytes[got..], &live) {
                Ok(Progress::Bytes(bytes)) => got += bytes,
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(read(&mut fetcher, &mut bytes[got..], &live), Ok(Progress::Idle));
        assert_eq!(&bytes[..got], b"abcdefghij");
    }

    #[test]
    fn that_there_is_no_next_connection_is_told_after_the_last_bytes() {
        let (mut fetcher, listener) = fetcher();
        let (mut bytes, live) = ([0; 100], Live::default());
        fetcher.ask(0..5, &live).unwrap();
        fetcher.ask(5..10, &live).unwrap();
        let mut origin = listener.accept().unwrap().0;
        write!(origin, "{}abcde", answer("0-4", true)).unwrap();
        let stopped = Live::default();
        stopped.stop();
        assert_eq!(read(&mut fetcher, &mut bytes, &stopped), Ok(Progress::Bytes(5)));
        assert_eq!(read(&mut fetcher, &mut bytes, &stopped), Err(Fault::Unreachable));
    }
}
