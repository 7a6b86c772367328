//! The origin over real sockets: HTTP, and that what it is made to do wrong really happens.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use bamqp_core::time::Span;
use hostsim::link::Link;
use hostsim::origin::{Misdeed, Origin, Rules};
use rustix::net::{AddressFamily, SocketType};

/// A link that no test waits for.
const FAST: u64 = 200_000_000;

/// An origin with two sources, of addresses that no other test of this process uses.
struct Street {
    origin: Origin,
    file: Arc<[u8]>,
    sources: [IpAddr; 2],
}

fn street(size: usize) -> Street {
    street_with(size, Link::new(FAST, Span::from_millis(1)))
}

fn street_with(size: usize, link: Link) -> Street {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let test = NEXT.fetch_add(1, Ordering::Relaxed);
    let address = |last| IpAddr::from(Ipv4Addr::new(127, 251, test, last));
    let sources = [address(1), address(2)];
    // 251 is prime, so that shifted ranges never look right.
    let file: Arc<[u8]> = (0..size).map(|n| (n % 251) as u8 ^ (n / 251 % 256) as u8).collect();
    let links = sources.map(|source| (source, link.clone()));
    let origin = Origin::start(SocketAddr::new(address(3), 0), file.clone(), links).unwrap();
    Street { origin, file, sources }
}

impl Street {
    fn connect(&self, source: IpAddr) -> Client {
        let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
        rustix::net::bind(&socket, &SocketAddr::new(source, 0)).unwrap();
        rustix::net::connect(&socket, &self.origin.address()).unwrap();
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        Client { stream, buffer: Vec::new() }
    }

    /// Asks on a connection of its own.
    fn ask(&self, source: usize, fields: &str) -> Answer {
        let mut client = self.connect(self.sources[source]);
        client.ask(fields);
        client.answer()
    }
}

struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
}

#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Answer {
    fn field(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(": ")?;
            key.eq_ignore_ascii_case(name).then_some(value)
        })
    }
}

impl Client {
    fn ask(&mut self, fields: &str) {
        self.send(&format!("GET /file HTTP/1.1\r\nHost: origin\r\n{fields}\r\n"));
    }

    fn send(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).unwrap();
    }

    fn fill(&mut self) -> io::Result<usize> {
        let mut bytes = [0; 16 * 1024];
        let count = self.stream.read(&mut bytes)?;
        self.buffer.extend_from_slice(&bytes[..count]);
        Ok(count)
    }

    fn head(&mut self) -> Answer {
        loop {
            if let Some(end) = self.buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                let head: Vec<u8> = self.buffer.drain(..end + 4).collect();
                let head = String::from_utf8(head).unwrap();
                let status = head.split(' ').nth(1).unwrap().parse().unwrap();
                return Answer { status, head, body: Vec::new() };
            }
            assert_ne!(self.fill().unwrap(), 0, "the connection ended within a head");
        }
    }

    fn answer(&mut self) -> Answer {
        let mut answer = self.head();
        let length: usize = answer.field("Content-Length").map_or(0, |length| length.parse().unwrap());
        while self.buffer.len() < length {
            assert_ne!(self.fill().unwrap(), 0, "the connection ended within a body");
        }
        answer.body = self.buffer.drain(..length).collect();
        answer
    }

    /// Everything up to the end of the connection, however it ends.
    fn rest(&mut self) -> Vec<u8> {
        while matches!(self.fill(), Ok(count) if count > 0) {}
        std::mem::take(&mut self.buffer)
    }
}

#[test]
fn the_whole_file() {
    let street = street(1_000_003);
    let answer = street.ask(0, "");
    assert_eq!(answer.status, 200);
    assert!(answer.body == *street.file);
    assert_eq!(answer.field("Accept-Ranges"), Some("bytes"));
    assert!(answer.field("ETag").unwrap().starts_with('"'), "strong");
    for date in ["Date", "Last-Modified"] {
        assert!(answer.field(date).unwrap().ends_with(" GMT"));
    }
    assert!(street.origin.sent_to(street.sources[0]) > 1_000_003);
    assert_eq!(street.origin.sent_to(street.sources[1]), 0);
}

#[test]
fn pipelined_ranges_come_in_order_on_one_connection() {
    let street = street(300_000);
    let mut client = street.connect(street.sources[0]);
    let ranges = [(0, 99_999), (250_000, 299_999), (7, 7), (100_000, 200_000)];
    let all: String = ranges
        .iter()
        .map(|(a, b)| format!("GET /file HTTP/1.1\r\nHost: o\r\nRange: bytes={a}-{b}\r\n\r\n"))
        .collect();
    client.send(&all);
    for (a, b) in ranges {
        let answer = client.answer();
        assert_eq!(answer.status, 206);
        assert_eq!(answer.field("Content-Range"), Some(format!("bytes {a}-{b}/300000").as_str()));
        assert!(answer.body == street.file[a..=b]);
    }
    client.ask("Connection: close\r\n");
    assert_eq!(client.answer().field("Connection"), Some("close"));
    assert!(client.rest().is_empty());
}

#[test]
fn a_request_in_pieces() {
    let street = street(10);
    let mut client = street.connect(street.sources[0]);
    for piece in ["GET /fi", "le HTTP/1.0\r", "\nRange: byt", "es=-3\r\n\r", "\n"] {
        client.send(piece);
    }
    assert_eq!(client.answer().body, street.file[7..]);
    assert!(client.rest().is_empty(), "HTTP/1.0 ends the connection");
}

#[test]
fn conditions_and_ranges() {
    let street = street(1000);
    let first = street.ask(0, "");
    let etag = first.field("ETag").unwrap();
    let date = first.field("Last-Modified").unwrap();
    let range = "Range: bytes=10-19\r\n";
    let status = |fields: String| street.ask(0, &fields).status;
    assert_eq!(status(format!("{range}If-Range: {etag}\r\n")), 206);
    assert_eq!(status(format!("{range}If-Range: {date}\r\n")), 206);
    assert_eq!(status(format!("{range}If-Range: W/{etag}\r\n")), 200);
    assert_eq!(status(format!("{range}If-Range: \"other\"\r\n")), 200);
    assert_eq!(status(format!("{range}If-Match: \"other\", {etag}\r\n")), 206);
    assert_eq!(status(format!("{range}If-Match: \"other\"\r\n")), 412);
    assert_eq!(status(format!("If-None-Match: W/{etag}\r\n")), 304);
    assert_eq!(status("Range: bytes=1-2,5000-5001\r\n".into()), 200, "not all there");
    assert_eq!(status("Range: bytes=1-2,5-4\r\n".into()), 200, "not ranges");
    let beyond = street.ask(0, "Range: bytes=1000-\r\n");
    assert_eq!((beyond.status, beyond.field("Content-Range")), (416, Some("bytes */1000")));
    let clamped = street.ask(0, "Range: bytes=990-5000\r\n");
    assert_eq!((clamped.status, clamped.field("Content-Range")), (206, Some("bytes 990-999/1000")));
}

#[test]
fn several_ranges_are_parts_of_one_answer() {
    let street = street(1000);
    let answer = street.ask(0, "Range: bytes=990-999, 0-0,5-6\r\n");
    assert_eq!((answer.status, answer.field("Content-Range")), (206, None));
    let boundary =
        answer.field("Content-Type").unwrap().strip_prefix("multipart/byteranges; boundary=").unwrap();
    let mut expected = Vec::new();
    for range in [990..1000, 0..1, 5..7usize] {
        let (first, last) = (range.start, range.end - 1);
        expected
            .extend(format!("\r\n--{boundary}\r\nContent-Range: bytes {first}-{last}/1000\r\n\r\n").bytes());
        expected.extend_from_slice(&street.file[range]);
    }
    expected.extend(format!("\r\n--{boundary}--\r\n").bytes());
    assert_eq!(answer.body, expected);
    // More than anybody needs is refused by ignoring it.
    let many: Vec<String> = (0..=hostsim::answer::MAX_RANGES).map(|n| format!("{n}-{n}")).collect();
    assert_eq!(street.ask(0, &format!("Range: bytes={}\r\n", many.join(","))).status, 200);
}

#[test]
fn altered_bytes_go_to_their_source_only_under_the_same_validator() {
    let street = street(100_000);
    let altered = [(street.sources[0], 3)].into();
    street.origin.set_rules(Rules { altered, ..Rules::default() });
    for fields in ["", "Range: bytes=1000-1999\r\n", "Range: bytes=7-9,50000-50001\r\n"] {
        let (lie, truth) = (street.ask(0, fields), street.ask(1, fields));
        assert_eq!((lie.status, lie.field("ETag")), (truth.status, truth.field("ETag")));
        assert_eq!(lie.body.len(), truth.body.len());
        let differing = lie.body.iter().zip(&truth.body).filter(|(lie, truth)| lie != truth).count();
        let payload = if fields.contains(',') { 5 } else { truth.body.len() };
        assert_eq!(differing, payload, "{fields}");
        assert!(lie.body.iter().zip(&truth.body).all(|(lie, truth)| lie == truth || lie ^ truth == 3));
    }
    let did = |source| street.origin.did(Misdeed::Altered, Some(source));
    assert_eq!((did(street.sources[0]), did(street.sources[1])), (3, 0));
}

#[test]
fn one_chunk_is_altered_and_it_is_the_second() {
    let street = street(100_000);
    street.origin.set_rules(Rules { altered_once: vec![street.sources[0]], ..Rules::default() });
    let right = |first: usize, last: usize| {
        let answer = street.ask(0, &format!("Range: bytes={first}-{last}\r\n"));
        assert_eq!(answer.body.len(), last - first + 1);
        let right = answer.body.iter().zip(&street.file[first..=last]).filter(|(a, b)| a == b).count();
        right == answer.body.len() || {
            assert_eq!(right, 0);
            false
        }
    };
    assert!(right(0, 16_383) && right(5, 20), "places are no chunks");
    assert!(!right(16_384, 49_151));
    assert!(right(49_152, 99_999));
    assert_eq!(street.origin.did(Misdeed::Altered, Some(street.sources[0])), 1);
}

#[test]
fn other_methods_and_nonsense() {
    let street = street(1000);
    let mut client = street.connect(street.sources[0]);
    client.send("HEAD /file HTTP/1.1\r\nHost: o\r\n\r\n");
    let head = client.head();
    assert_eq!((head.status, head.field("Content-Length")), (200, Some("1000")));
    client.send("DELETE /file HTTP/1.1\r\nHost: o\r\n\r\n");
    assert_eq!(client.answer().status, 405, "and no body was between");
    client.send("this is not HTTP\r\n\r\n");
    assert_eq!(client.answer().status, 400);
    assert!(client.rest().is_empty());
}

#[test]
fn corrupt_length_hits_ranges_of_that_source_only() {
    let street = street(100_000);
    let rules = Rules { corrupt_length: vec![street.sources[0]], ..Rules::default() };
    street.origin.set_rules(rules);
    let answer = street.ask(0, "Range: bytes=1000-1999\r\n");
    assert_eq!((answer.status, answer.field("Content-Range")), (206, Some("bytes 1000-1999/100000")));
    assert_ne!(answer.body.len(), 1000);
    assert_eq!(street.origin.misbehaved(), 1);
    assert_eq!(street.ask(1, "Range: bytes=1000-1999\r\n").body, street.file[1000..2000]);
    assert!(street.ask(0, "").body == *street.file, "no range, no fault");
    assert_eq!(street.origin.misbehaved(), 1);
    let did = |misdeed, source| street.origin.did(misdeed, source);
    assert_eq!(did(Misdeed::CorruptLength, None), 1);
    assert_eq!(did(Misdeed::CorruptLength, Some(street.sources[0])), 1);
    assert_eq!(did(Misdeed::CorruptLength, Some(street.sources[1])), 0);
    assert_eq!(did(Misdeed::WrongRange, None), 0);
}

#[test]
fn wrong_range_hits_ranges_of_that_source_only() {
    let street = street(100_000);
    let rules = Rules { wrong_range: vec![street.sources[1]], ..Rules::default() };
    street.origin.set_rules(rules);
    for (asked, named) in
        [("1000-1999", "bytes 1000-1999/100000"), ("99000-99999", "bytes 99000-99999/100000")]
    {
        let wrong = street.ask(1, &format!("Range: bytes={asked}\r\n"));
        assert_eq!(wrong.status, 206);
        assert_ne!(wrong.field("Content-Range"), Some(named));
        let right = street.ask(0, &format!("Range: bytes={asked}\r\n"));
        assert_eq!(right.field("Content-Range"), Some(named));
    }
    assert_eq!(street.origin.misbehaved(), 2);
}

#[test]
fn one_shot() {
    let street = street(5000);
    assert_eq!(street.ask(0, "").status, 200);
    street.origin.set_rules(Rules { one_shot: true, ..Rules::default() });
    assert!(street.ask(0, "").body == *street.file, "fresh when the rule is made");
    assert_eq!(street.ask(0, "").status, 403);
    assert_eq!(street.ask(1, "Range: bytes=0-9\r\n").status, 403);
    assert_eq!(street.origin.misbehaved(), 2);
}

#[test]
fn per_ip_limit() {
    let street = street(5000);
    street.origin.set_rules(Rules { per_ip_limit: Some(1), ..Rules::default() });
    let mut first = street.connect(street.sources[0]);
    first.ask("");
    assert_eq!(first.answer().status, 200);
    let mut second = street.connect(street.sources[0]);
    second.ask("");
    assert_eq!(second.answer().status, 503);
    assert!(second.rest().is_empty(), "and it ends");
    assert_eq!(street.ask(1, "").status, 200, "others have their own count");
    first.ask("");
    assert_eq!(first.answer().status, 200, "the first is not hit");
    assert_eq!(street.origin.misbehaved(), 1);
    // Room again once the origin has noticed that the first is gone.
    drop(first);
    let deadline = Instant::now() + Duration::from_secs(30);
    while street.ask(0, "").status != 200 {
        assert!(Instant::now() < deadline);
    }
}

#[test]
fn a_killed_link_closes_what_is_open_and_refuses_the_rest() {
    // Slow enough that the answer can't be over when the link dies.
    let street = street_with(50_000_000, Link::new(1_000_000, Span::from_millis(1)));
    let mut client = street.connect(street.sources[0]);
    client.ask("");
    assert_eq!(client.head().status, 200);
    street.origin.kill(street.sources[0]);
    let came = client.rest();
    assert!(came.len() < street.file.len());
    assert!(came == street.file[..came.len()]);
    let mut refused = street.connect(street.sources[0]);
    let _ = refused.stream.write_all(b"GET / HTTP/1.1\r\n\r\n");
    assert!(refused.rest().is_empty());
    assert_eq!(street.ask(1, "Range: bytes=0-9\r\n").status, 206, "the other link lives");
}

#[test]
fn a_silent_link_keeps_its_connections_and_may_come_back() {
    let street = street_with(200_000, Link::new(1_000_000, Span::from_millis(1)));
    let mut client = street.connect(street.sources[0]);
    client.ask("");
    assert_eq!(client.head().status, 200);
    street.origin.change_rate(street.sources[0], |_| 0);
    // What was written before has come by the time a read finds nothing.
    client.stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let error = loop {
        match client.fill() {
            Ok(count) => assert_ne!(count, 0, "closed"),
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    assert!(client.buffer.len() < street.file.len());
    assert_eq!(street.ask(1, "Range: bytes=0-9\r\n").status, 206, "the other link is not silent");
    client.stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    street.origin.change_rate(street.sources[0], |rate| rate + FAST);
    while client.buffer.len() < street.file.len() {
        assert_ne!(client.fill().unwrap(), 0);
    }
    assert!(client.buffer == *street.file);
}

#[test]
fn a_changed_file_never_mixes() {
    let street = street_with(400_000, Link::new(2_000_000, Span::from_millis(1)));
    let mut client = street.connect(street.sources[0]);
    client.ask("");
    let old = client.head();
    street.origin.change();
    while client.buffer.len() < street.file.len() {
        assert_ne!(client.fill().unwrap(), 0);
    }
    assert!(client.buffer == *street.file, "what has begun goes on with the old bytes");
    let etag = old.field("ETag").unwrap();
    let new = street.ask(0, "Range: bytes=0-99\r\n");
    assert_ne!(new.field("ETag"), Some(etag));
    assert!(new.body.iter().zip(street.file.iter()).all(|(new, old)| new != old));
    let guarded = street.ask(0, &format!("Range: bytes=0-99\r\nIf-Range: {etag}\r\n"));
    assert_eq!((guarded.status, guarded.body.len()), (200, 400_000));
}

#[test]
fn who_does_not_read_blocks_only_itself() {
    let street = street(30_000_000);
    let mut sleeper = street.connect(street.sources[0]);
    sleeper.ask("");
    assert_eq!(sleeper.head().status, 200);
    assert!(street.ask(0, "Range: bytes=0-9999999\r\n").body == street.file[..10_000_000]);
    while sleeper.buffer.len() < street.file.len() {
        assert_ne!(sleeper.fill().unwrap(), 0);
    }
    assert!(sleeper.buffer == *street.file);
}

#[test]
fn strangers_are_closed_and_stopping_ends_everything() {
    let street = street_with(50_000_000, Link::new(100_000, Span::from_millis(1)));
    let mut stranger = street.connect(Ipv4Addr::new(127, 251, 0, 99).into());
    let _ = stranger.stream.write_all(b"GET / HTTP/1.1\r\n\r\n");
    assert!(stranger.rest().is_empty());
    let mut client = street.connect(street.sources[0]);
    client.ask("");
    assert_eq!(client.head().status, 200);
    drop(street.origin);
    let came = client.rest();
    assert!(came.len() < street.file.len() && came == street.file[..came.len()]);
}
