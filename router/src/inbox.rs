//! The bytes that came on a connection and were not used yet: heads, and what came with them. Not responsible for
//! bodies, which go through the kernel where they can ([`crate::relay`]).

use std::io;
use std::net::TcpStream;

use crate::net::{self, Moved};

/// Most bytes that one read takes. A head is read in such steps, so that no more of a body comes along and has to
/// be copied in user space (at most 2 KiB per response).
pub const STEP_BYTES: usize = 2 * 1024;

/// Bytes that are set aside for what most heads take; a head between routers never takes more.
const USUAL_BYTES: usize = 2 * STEP_BYTES;

/// A buffer that grows with what comes, up to a fixed size, and gives back what it does not need for the next head.
/// (Room that is only set aside is not free: musl's allocator writes at the end of each block.)
#[derive(Debug)]
pub struct Inbox {
    bytes: Vec<u8>,
    capacity: usize,
    start: usize,
    end: usize,
}

impl Inbox {
    /// Room for `capacity` bytes.
    pub fn new(capacity: usize) -> Self {
        Self { bytes: Vec::new(), capacity, start: 0, end: 0 }
    }

    /// What came and was not consumed.
    pub fn data(&self) -> &[u8] {
        self.bytes.get(self.start..self.end).unwrap_or_default()
    }

    /// Forgets the first `count` bytes.
    pub fn consume(&mut self, count: usize) {
        self.start = self.start.saturating_add(count).min(self.end);
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
            if self.bytes.len() > USUAL_BYTES {
                self.bytes.truncate(USUAL_BYTES);
                self.bytes.shrink_to_fit();
            }
        }
    }

    /// Whether nothing more fits in.
    pub fn is_full(&self) -> bool {
        self.end - self.start == self.capacity
    }

    /// Reads once from `socket` without waiting, at most [`STEP_BYTES`].
    ///
    /// # Errors
    /// `StorageFull` if nothing fits in; else what the system says of the connection.
    pub fn fill(&mut self, socket: &TcpStream) -> io::Result<Moved> {
        if self.start > 0 && self.capacity - self.end < STEP_BYTES {
            self.bytes.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        let needed = self.end.saturating_add(STEP_BYTES).max(USUAL_BYTES).min(self.capacity);
        if self.bytes.len() < needed {
            self.bytes.reserve_exact(needed - self.bytes.len());
            self.bytes.resize(needed, 0);
        }
        let room = self.bytes.get_mut(self.end..).unwrap_or_default();
        let most = room.len().min(STEP_BYTES);
        let room = room.get_mut(..most).filter(|room| !room.is_empty()).ok_or(io::ErrorKind::StorageFull)?;
        let moved = net::read(socket, room)?;
        if let Moved::Bytes(bytes) = moved {
            self.end += bytes;
        }
        Ok(moved)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn bytes_come_out_as_they_came_in_and_never_more_than_fit() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut far = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let near = listener.accept().unwrap().0;
        let sent: Vec<u8> = (0..10_000u32).map(|i| i as u8).collect();
        far.write_all(&sent).unwrap();
        drop(far);
        let mut inbox = Inbox::new(3000);
        let mut got = Vec::new();
        loop {
            match inbox.fill(&near) {
                Ok(Moved::Bytes(bytes)) => assert!(bytes <= STEP_BYTES),
                Ok(Moved::End) => break,
                Ok(Moved::WouldBlock) => unreachable!("a blocking socket"),
                Err(error) => {
                    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
                    assert!(inbox.is_full());
                }
            }
            if inbox.data().len() > 1500 {
                got.extend_from_slice(&inbox.data()[..1234]);
                inbox.consume(1234);
            }
        }
        got.extend_from_slice(inbox.data());
        inbox.consume(usize::MAX);
        assert_eq!(got, sent);
        assert!(inbox.data().is_empty() && !inbox.is_full());
    }
}
