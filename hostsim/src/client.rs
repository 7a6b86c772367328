//! The household's client: one GET through a proxy, timed, hashed, and compared with what the file should
//! be as the bytes come. Not responsible for deciding whether the run was good.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

/// A client that has seen no byte for so long gives up.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// How a download ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// As many bytes as the answer's head announced.
    Complete,
    /// The connection ended before that.
    ClosedEarly,
    /// There was no answer that could be a file; says which.
    Refused(String),
    /// A socket error, or nothing came for [`PATIENCE`].
    Broken(String),
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            End::Complete => f.write_str("complete"),
            End::ClosedEarly => f.write_str("closed early"),
            End::Refused(why) => write!(f, "refused: {why}"),
            End::Broken(why) => write!(f, "broken off: {why}"),
        }
    }
}

/// What a client saw of one download. Times count from before it connected.
#[derive(Clone, Debug)]
pub struct Download {
    /// How it ended.
    pub end: End,
    /// Until the first byte of the body.
    pub first_byte: Option<Duration>,
    /// Until the end.
    pub took: Duration,
    /// Bytes of the body.
    pub received: u64,
    /// Leading bytes of the body that are those of one version of the file.
    pub right: u64,
    /// Of all that was received.
    pub sha256: [u8; 32],
}

impl Download {
    /// Every byte that was received belongs there: nothing mixed, nothing padded.
    pub fn is_prefix(&self) -> bool {
        self.right == self.received
    }
}

/// Gets `url` through the proxy at `proxy`; tells `progress` how much has come. `versions` are all that the file
/// may be: what comes has to be a prefix of one of them.
pub fn download(proxy: SocketAddr, url: &str, versions: &[&[u8]], progress: &AtomicU64) -> Download {
    let begun = Instant::now();
    let versions = versions.iter().map(|version| (*version, 0)).collect();
    let mut seen = Seen { versions, progress, begun, first_byte: None, received: 0, hash: Sha256::new() };
    let end = seen.get(proxy, url).unwrap_or_else(|error| match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
            End::Broken(format!("no byte for {} s", PATIENCE.as_secs()))
        }
        _ => End::Broken(error.to_string()),
    });
    Download {
        end,
        first_byte: seen.first_byte,
        took: begun.elapsed(),
        received: seen.received,
        right: seen.versions.iter().map(|(_, right)| *right).max().unwrap_or_default(),
        sha256: seen.hash.finalize().into(),
    }
}

struct Seen<'a> {
    /// Each version of the file, and how many leading bytes were its.
    versions: Vec<(&'a [u8], u64)>,
    progress: &'a AtomicU64,
    begun: Instant,
    first_byte: Option<Duration>,
    received: u64,
    hash: Sha256,
}

impl Seen<'_> {
    fn get(&mut self, proxy: SocketAddr, url: &str) -> io::Result<End> {
        let mut stream = TcpStream::connect_timeout(&proxy, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let host = url.trim_start_matches("http://").split('/').next().unwrap_or_default();
        let agent = concat!("hostsim/", env!("CARGO_PKG_VERSION"));
        let head = format!(
            "GET {url} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: {agent}\r\nAccept: */*\r\nConnection: close\r\n\r\n"
        );
        stream.write_all(head.as_bytes())?;
        let mut buffer = vec![0; 64 * 1024];
        let mut filled = 0;
        let (length, start) = loop {
            if filled == buffer.len() {
                return Ok(End::Refused("a head of more than 64 KiB".into()));
            }
            let count = read(&mut stream, buffer.get_mut(filled..).unwrap_or_default())?;
            if count == 0 {
                return Ok(End::ClosedEarly);
            }
            filled += count;
            match parse_head(buffer.get(..filled).unwrap_or_default()) {
                Ok(Some(parsed)) => break parsed,
                Ok(None) => {}
                Err(why) => return Ok(End::Refused(why)),
            }
        };
        self.take(buffer.get(start..filled).unwrap_or_default());
        while self.received < length {
            let count = read(&mut stream, &mut buffer)?;
            if count == 0 {
                return Ok(End::ClosedEarly);
            }
            self.take(buffer.get(..count).unwrap_or_default());
        }
        Ok(End::Complete)
    }

    fn take(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        self.first_byte.get_or_insert_with(|| self.begun.elapsed());
        for (version, right) in &mut self.versions {
            if *right == self.received {
                let expected = usize::try_from(self.received).ok().and_then(|at| version.get(at..));
                let same = bytes.iter().zip(expected.unwrap_or_default()).take_while(|(a, b)| a == b);
                *right += same.count() as u64;
            }
        }
        self.hash.update(bytes);
        self.received += bytes.len() as u64;
        self.progress.store(self.received, Ordering::Relaxed);
    }
}

fn read(stream: &mut TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match stream.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// The announced length and where the body starts; `None` while the head is incomplete.
fn parse_head(buffer: &[u8]) -> Result<Option<(u64, usize)>, String> {
    let mut fields = [httparse::EMPTY_HEADER; 64];
    let mut head = httparse::Response::new(&mut fields);
    let start = match head.parse(buffer) {
        Ok(httparse::Status::Complete(start)) => start,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(error) => return Err(format!("not HTTP: {error}")),
    };
    match head.code {
        Some(200) => {}
        code => return Err(format!("status {}", code.unwrap_or_default())),
    }
    let length = head.headers.iter().find(|field| field.name.eq_ignore_ascii_case("content-length"));
    let length = length.and_then(|field| std::str::from_utf8(field.value).ok()?.trim().parse().ok());
    length.map(|length| Some((length, start))).ok_or_else(|| "an answer without a length".into())
}
