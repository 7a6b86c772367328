//! Real sockets for tests: an origin that follows a script, a client that speaks HTTP by hand, and a daemon between
//! them. Everything is on loopback, waits no longer than [`PATIENCE`], and ends with the test.

#![allow(dead_code)] // each test binary uses its part

pub mod street;

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use bamqp_router::config::Config;
use bamqp_router::daemon::Daemon;
use bamqp_router::keys::KeyPair;

/// The longest wait for anything.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// One end of a connection, for tests: blocking, but not for ever.
pub struct Line {
    pub socket: TcpStream,
    buffer: Vec<u8>,
}

impl Line {
    pub fn new(socket: TcpStream) -> Self {
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.set_write_timeout(Some(PATIENCE)).unwrap();
        socket.set_nodelay(true).unwrap();
        Self { socket, buffer: Vec::new() }
    }

    pub fn to(address: SocketAddr) -> Self {
        Self::new(TcpStream::connect(address).unwrap())
    }

    /// Sends; that the other side is gone shows when something is awaited from it.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.socket.write_all(bytes.as_ref());
    }

    fn more(&mut self) -> bool {
        let mut buffer = [0; 16 * 1024];
        match self.socket.read(&mut buffer) {
            Ok(0) => false,
            Ok(count) => {
                self.buffer.extend_from_slice(&buffer[..count]);
                true
            }
            Err(error) => panic!("{error}, having {:?}", String::from_utf8_lossy(&self.buffer)),
        }
    }

    /// The next head, with its empty line; empty if the other side has closed before.
    pub fn head(&mut self) -> String {
        loop {
            if let Some(at) = self.buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                return String::from_utf8(self.buffer.drain(..at + 4).collect()).unwrap();
            }
            if !self.more() {
                assert!(self.buffer.is_empty(), "half a head: {:?}", String::from_utf8_lossy(&self.buffer));
                return String::new();
            }
        }
    }

    /// The next head; `None` if the other side has hung up before, even with bytes unread.
    pub fn next_head(&mut self) -> Option<String> {
        let comes = !self.buffer.is_empty() || self.socket.peek(&mut [0]).is_ok_and(|bytes| bytes > 0);
        comes.then(|| self.head())
    }

    /// The next `count` bytes.
    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        while self.buffer.len() < count {
            let have = self.buffer.len();
            assert!(self.more(), "closed after {have} of {count} bytes");
        }
        self.buffer.drain(..count).collect()
    }

    pub fn text(&mut self, count: usize) -> String {
        String::from_utf8(self.bytes(count)).unwrap()
    }

    /// Everything up to the end of the connection.
    pub fn rest(&mut self) -> Vec<u8> {
        while self.more() {}
        std::mem::take(&mut self.buffer)
    }

    /// What came until the end, and whether that was a reset.
    pub fn rest_or_reset(&mut self) -> (Vec<u8>, bool) {
        let mut rest = std::mem::take(&mut self.buffer);
        let reset = match self.socket.read_to_end(&mut rest) {
            Ok(_) => false,
            Err(error) if error.kind() == ErrorKind::ConnectionReset => true,
            Err(error) => panic!("{error}"),
        };
        (rest, reset)
    }

    /// Waits until the other side is gone: closed or reset.
    pub fn gone(&mut self) {
        self.rest_or_reset();
    }

    pub fn end(&mut self) {
        self.socket.shutdown(Shutdown::Write).unwrap();
    }
}

/// A server that runs a script for each connection, on threads that end with it.
pub struct Origin {
    pub address: SocketAddr,
    accepted: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    acceptor: Option<JoinHandle<()>>,
}

impl Origin {
    /// `script` gets each connection and its number, from 0.
    pub fn start(script: impl Fn(Line, usize) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (accepted, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let script = Arc::new(script);
        let acceptor = {
            let (accepted, stop) = (accepted.clone(), stop.clone());
            std::thread::spawn(move || {
                let mut threads = Vec::new();
                for socket in listener.incoming() {
                    if stop.load(Ordering::SeqCst) {
                        break;
                    }
                    let number = accepted.fetch_add(1, Ordering::SeqCst);
                    let (script, line) = (script.clone(), Line::new(socket.unwrap()));
                    threads.push(std::thread::spawn(move || script(line, number)));
                }
                let failed = threads.into_iter().filter_map(|thread| thread.join().err()).count();
                assert_eq!(failed, 0, "scripts of the origin failed");
            })
        };
        Self { address, accepted, stop, acceptor: Some(acceptor) }
    }

    /// Answers every request of every connection with `answer`.
    pub fn answering(answer: impl AsRef<[u8]> + Send + Sync + 'static) -> Self {
        Self::start(move |mut line, _| {
            while !line.head().is_empty() {
                line.send(answer.as_ref());
            }
        })
    }

    /// How many connections there were.
    pub fn connections(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
        let ended = self.acceptor.take().unwrap().join();
        if !std::thread::panicking() {
            ended.expect("the origin's script");
        }
    }
}

/// A folder for a ledger of its own, among the build's files.
pub fn log_dir() -> PathBuf {
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    let number = NUMBER.fetch_add(1, Ordering::SeqCst);
    let path = format!("{}/log-{}-{number}", env!("CARGO_TARGET_TMPDIR"), std::process::id());
    let _ = std::fs::remove_dir_all(&path); // of an earlier process with this number
    path.into()
}

/// A configuration for tests: any port, and origins on loopback may be reached.
pub fn config() -> Config {
    Config {
        listen: vec!["127.0.0.1:0".parse().unwrap()],
        allow_private: vec!["127.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()],
        state_dir: "/nonexistent".into(),
        log_dir: log_dir(),
        ..Config::default()
    }
}

pub fn start(config: Config) -> Daemon {
    Daemon::start(config, KeyPair::from_seed([7; 32])).unwrap()
}

/// A connection to a daemon's proxy.
pub fn client(daemon: &Daemon) -> Line {
    Line::to(daemon.client_addresses()[0])
}

/// Bytes that tell where they belong.
pub fn pattern(length: usize) -> Vec<u8> {
    (0..length as u32).flat_map(|i| (i.wrapping_mul(2_654_435_761) >> 8).to_le_bytes()).take(length).collect()
}

/// A field's value in a head.
pub fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().skip(1).find_map(|line| {
        let (found, value) = line.split_once(':')?;
        found.eq_ignore_ascii_case(name).then_some(value.trim())
    })
}

/// A GET for a path of `origin`.
pub fn get(origin: &Origin, path: &str) -> String {
    format!("GET {} HTTP/1.1\r\nHost: {}\r\n\r\n", origin.url(path), origin.address)
}

/// The shortest answer with a body, `ok`.
pub const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// Sends one request that the proxy is to refuse; its status and text. The connection is closed after it.
pub fn refused(daemon: &Daemon, request: &str) -> (u16, String) {
    let mut client = client(daemon);
    client.send(request);
    let head = client.head();
    assert_eq!(field(&head, "Connection"), Some("close"), "{request:?}: {head}");
    assert!(field(&head, "Content-Type").unwrap().starts_with("text/plain"));
    let text = String::from_utf8(client.rest()).unwrap();
    assert_eq!(field(&head, "Content-Length"), Some(text.len().to_string().as_str()));
    (head[9..12].parse().unwrap(), text)
}

/// An origin with one file, which it serves slowly until it is told to hurry. (Slowly, and not with a pause: lanes that
/// stand still are given up.)
pub fn slow_origin(size: usize, hurry: Arc<AtomicBool>) -> Origin {
    let file = pattern(size);
    Origin::start(move |mut line, _| {
        while let Some(head) = line.next_head() {
            let range = field(&head, "Range").and_then(|range| range.strip_prefix("bytes="));
            if let Some(places) = range.filter(|range| range.contains(',')) {
                line.send(multipart(&file, places));
                continue;
            }
            let range = range.and_then(|range| range.split_once('-'));
            let (start, end) = match range {
                Some((start, end)) => (start.parse().unwrap(), end.parse::<usize>().unwrap() + 1),
                None => (0, size),
            };
            let status = match range {
                Some(_) => format!("206 Partial Content\r\nContent-Range: bytes {start}-{}/{size}", end - 1),
                None => "200 OK".into(),
            };
            // Under a weak validator it is only relayed.
            let etag = if head.starts_with("GET /weak") { "W/\"v\"" } else { "\"v\"" };
            let length = end - start;
            line.send(format!("HTTP/1.1 {status}\r\nETag: {etag}\r\nContent-Length: {length}\r\n\r\n"));
            for piece in file[start..end].chunks(16 * 1024) {
                if std::io::Write::write_all(&mut line.socket, piece).is_err() {
                    return;
                }
                if !hurry.load(Ordering::SeqCst) {
                    std::thread::sleep(Duration::from_millis(40));
                }
            }
        }
    })
}

/// The answer to a request for several places (RFC 9110 section 14.6).
fn multipart(file: &[u8], places: &str) -> Vec<u8> {
    let mut body = Vec::new();
    for (start, end) in places.split(',').filter_map(|place| place.trim().split_once('-')) {
        let (start, end): (usize, usize) = (start.parse().unwrap(), end.parse().unwrap());
        body.extend(
            format!("\r\n--x\r\nContent-Range: bytes {start}-{end}/{}\r\n\r\n", file.len()).as_bytes(),
        );
        body.extend_from_slice(&file[start..=end]);
    }
    body.extend(b"\r\n--x--\r\n");
    let length = body.len();
    let head = format!(
        "HTTP/1.1 206 Partial Content\r\nETag: \"v\"\r\nContent-Type: multipart/byteranges; boundary=x\r\n\
         Content-Length: {length}\r\n\r\n"
    );
    [head.into_bytes(), body].concat()
}
