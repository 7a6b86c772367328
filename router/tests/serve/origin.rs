//! A small scripted origin: what it answers to each request is told by a function.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

/// How the origin answers a request.
pub enum Reply {
    /// The range that was asked for; the connection stays.
    Range,
    /// The same, with `Connection: close`.
    RangeAndClose,
    /// The same, but the connection is closed without saying so.
    RangeAndVanish,
    /// The range, after so many requests (with this one) have come on this connection.
    RangeAfter(usize),
    /// The head and so many bytes of the range, then the end.
    CutAfter(usize),
    /// These bytes; the connection stays.
    Raw(String),
    /// The connection is closed without an answer.
    Vanish,
}

/// Byte number `at` of the file.
pub fn byte(at: u64) -> u8 {
    (at.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8
}

/// The file's bytes `range`.
pub fn bytes(range: Range<u64>) -> Vec<u8> {
    range.map(byte).collect()
}

type Script = dyn Fn(usize, usize) -> Reply + Send + Sync;

struct Shared {
    total: u64,
    script: Box<Script>,
    /// The connection and range of each request, in order.
    requests: Mutex<Vec<(usize, Range<u64>)>>,
    heads: Mutex<Vec<String>>,
    /// Bytes of bodies. MIPS has no 64-bit atomics.
    sent: AtomicU32,
    stop: AtomicBool,
    sockets: Mutex<Vec<TcpStream>>,
}

pub struct Origin {
    pub address: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Origin {
    /// An origin whose file has `total` bytes; `script` is told the connection's and the request's number on it,
    /// both from 0.
    pub fn start(total: u64, script: impl Fn(usize, usize) -> Reply + Send + Sync + 'static) -> Origin {
        let listener = TcpListener::bind("127.0.20.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            total,
            script: Box::new(script),
            requests: Mutex::default(),
            heads: Mutex::default(),
            sent: AtomicU32::new(0),
            stop: AtomicBool::new(false),
            sockets: Mutex::default(),
        });
        let state = shared.clone();
        let thread = std::thread::spawn(move || {
            let mut threads = Vec::new();
            for (number, socket) in listener.incoming().enumerate() {
                if state.stop.load(Ordering::SeqCst) {
                    break;
                }
                let socket = socket.unwrap();
                socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
                socket.set_write_timeout(Some(Duration::from_secs(20))).unwrap();
                state.sockets.lock().unwrap().push(socket.try_clone().unwrap());
                let state = state.clone();
                threads.push(std::thread::spawn(move || state.serve(number, socket)));
            }
            threads.into_iter().for_each(|thread| thread.join().unwrap());
        });
        Origin { address, shared, thread: Some(thread) }
    }

    pub fn uri(&self) -> String {
        format!("http://{}/file", self.address)
    }

    pub fn requests(&self) -> Vec<(usize, Range<u64>)> {
        self.shared.requests.lock().unwrap().clone()
    }

    pub fn heads(&self) -> Vec<String> {
        self.shared.heads.lock().unwrap().clone()
    }

    /// Bytes of bodies that its sockets have taken.
    pub fn sent(&self) -> u64 {
        self.shared.sent.load(Ordering::SeqCst).into()
    }

    /// Connections that were made to it.
    pub fn connections(&self) -> usize {
        self.shared.sockets.lock().unwrap().len()
    }

    /// Closes all connections, as a server does whose keep-alive time is over.
    pub fn close_connections(&self) {
        for socket in self.shared.sockets.lock().unwrap().iter() {
            let _ = socket.shutdown(std::net::Shutdown::Both);
        }
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.close_connections();
        let _ = TcpStream::connect(self.address);
        self.close_connections();
        let _ = self.thread.take().unwrap().join();
    }
}

impl Shared {
    fn serve(self: &Arc<Self>, connection: usize, socket: TcpStream) {
        let (sender, requests) = mpsc::channel();
        let (state, reader) = (self.clone(), socket.try_clone().unwrap());
        let reading = std::thread::spawn(move || state.read_requests(connection, &reader, &sender));
        let mut waiting = VecDeque::new();
        for number in 0.. {
            // `None`: the other side has closed.
            let next = |waiting: &mut VecDeque<_>| requests.recv().ok().map(|range| waiting.push_back(range));
            if waiting.is_empty() && next(&mut waiting).is_none() {
                break;
            }
            let reply = (self.script)(connection, number);
            if let Reply::RangeAfter(count) = reply {
                while number + waiting.len() < count && next(&mut waiting).is_some() {}
            }
            let Some(range) = waiting.pop_front() else { break };
            let (sent, stays) = match reply {
                Reply::Range | Reply::RangeAfter(_) => (self.send(&socket, range, "", None), true),
                Reply::RangeAndClose => (self.send(&socket, range, "Connection: close\r\n", None), false),
                Reply::RangeAndVanish => (self.send(&socket, range, "", None), false),
                Reply::CutAfter(count) => (self.send(&socket, range, "", Some(count)), false),
                Reply::Raw(text) => ((&socket).write_all(text.as_bytes()).is_ok(), true),
                Reply::Vanish => (true, false),
            };
            if !sent || !stays {
                break;
            }
        }
        // Not a reset: what was sent has to arrive, so all that comes is read until the other side closes.
        let _ = socket.shutdown(std::net::Shutdown::Write);
        reading.join().unwrap();
    }

    /// Requests count as soon as they are here, also while an answer is being sent.
    fn read_requests(&self, connection: usize, socket: &TcpStream, sender: &mpsc::Sender<Range<u64>>) {
        let mut inbox = Vec::new();
        while let Some(head) = read_head(socket, &mut inbox) {
            let range = range_of(&head);
            self.heads.lock().unwrap().push(head);
            self.requests.lock().unwrap().push((connection, range.clone()));
            let _ = sender.send(range); // nobody answers any more, but reading goes on
        }
    }

    fn send(&self, mut socket: &TcpStream, range: Range<u64>, more: &str, most: Option<usize>) -> bool {
        let head = format!(
            "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes {}-{}/{}\r\nContent-Length: {}\r\n\
             ETag: \"v\"\r\nContent-Type: application/octet-stream\r\n{more}\r\n",
            range.start,
            range.end - 1,
            self.total,
            range.end - range.start
        );
        let end = most.map_or(range.end, |most| range.start + most as u64);
        if socket.write_all(head.as_bytes()).is_err() {
            return false;
        }
        let mut at = range.start;
        while at < end {
            let next = end.min(at + 10_000);
            if socket.write_all(&bytes(at..next)).is_err() {
                return false;
            }
            self.sent.fetch_add((next - at) as u32, Ordering::SeqCst);
            at = next;
        }
        true
    }
}

fn read_head(mut socket: &TcpStream, inbox: &mut Vec<u8>) -> Option<String> {
    loop {
        if let Some(end) = inbox.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = inbox.drain(..end + 4).collect();
            return Some(String::from_utf8(head).unwrap());
        }
        let mut buffer = [0; 4096];
        match socket.read(&mut buffer) {
            Ok(0) | Err(_) => return None,
            Ok(count) => inbox.extend_from_slice(&buffer[..count]),
        }
    }
}

fn range_of(head: &str) -> Range<u64> {
    let line = head.lines().find_map(|line| line.strip_prefix("Range: bytes=")).unwrap();
    let (first, last) = line.split_once('-').unwrap();
    first.parse().unwrap()..last.parse::<u64>().unwrap() + 1
}
