//! What a pooled download costs per chunk: no allocation, and no payload byte copied in user space but those that
//! came with a response's head. Three real daemons and a paced origin on loopback; all tests look at the same
//! download. Nothing depends on how fast it is.

#[path = "../common/mod.rs"]
mod common;
mod counting;

use std::io::Write;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bamqp_router::config::{Config, Peer};
use bamqp_router::daemon::Daemon;
use bamqp_router::keys::KeyPair;
use bamqp_router::serve;
use bamqp_router::status::SessionReport;

use common::{Line, Origin, PATIENCE, config, field, get, pattern};
use counting::{NAMES, allocations};

const FILE_BYTES: usize = 12_000_007;

/// Small, so that chunks are small and many.
const WINDOW: u32 = 384 * 1024;

/// What came with a head may be copied (issue 2).
const MOST_COPIED: u32 = 2 * 1024;

/// The origin writes so much at a time to each connection, and then pauses: about 3 MB/s. On an unlimited link the
/// peers might have no part in the download.
const PORTION: usize = 16 * 1024;
const PAUSE: Duration = Duration::from_millis(5);

/// How often the download is looked at.
const LOOK: Duration = Duration::from_millis(10);

/// How many looks before and after a stretch no connection may have been opened.
const AROUND: usize = 3;

/// What one look saw.
struct Look {
    /// Allocations, counted before and after the rest was looked at.
    before: [usize; NAMES.len()],
    after: [usize; NAMES.len()],
    /// Requests for chunks by all lanes.
    requests: u32,
    /// Connections that the origin has accepted: each lane's and each peer's.
    connections: usize,
    /// Every lane has brought something, and the end is not near.
    in_full_swing: bool,
}

/// A download that ended well.
struct Run {
    looks: Vec<Look>,
    session: SessionReport,
    peers: Vec<serve::Report>,
}

static RUN: LazyLock<Run> = LazyLock::new(download);

/// Router `number` (1 is the coordinator) at 127.71.N.1 with `peers`.
fn router(number: u8, origin: &Origin, peers: &[(u8, SocketAddr)]) -> Daemon {
    let peer = |&(number, address): &(u8, SocketAddr)| Peer {
        name: format!("R{number}"),
        address,
        public_key: *key(number).public(),
    };
    let address = SocketAddr::from(([127, 71, number, 1], 0));
    let config = Config {
        peer_listen: Some(address),
        wan_address: Some(address.ip()),
        window: WINDOW,
        fetch_ports: vec![origin.address.port()],
        peers: peers.iter().map(peer).collect(),
        ..config()
    };
    Daemon::start(config, key(number)).unwrap()
}

fn key(number: u8) -> KeyPair {
    KeyPair::from_seed([number; 32])
}

/// Serves the file and its ranges, in portions.
fn origin(file: &'static [u8]) -> Origin {
    Origin::start(move |mut line, _| {
        loop {
            let request = line.head();
            if request.is_empty() {
                return;
            }
            let ranges = field(&request, "Range").unwrap_or_default();
            if ranges.contains(',') {
                line.send(parts_of(file, ranges));
                continue;
            }
            let range = field(&request, "Range").map(range_of);
            let (status, content_range) = match &range {
                Some(Range { start, end }) => {
                    let (last, total) = (end - 1, file.len());
                    ("206 Partial Content", format!("Content-Range: bytes {start}-{last}/{total}\r\n"))
                }
                None => ("200 OK", String::new()),
            };
            let range = range.unwrap_or(0..file.len());
            let length = range.len();
            let head = format!(
                "HTTP/1.1 {status}\r\nETag: \"v\"\r\nContent-Length: {length}\r\n{content_range}\r\n"
            );
            // Bytes of the body come along with the head.
            let mut answer = head.into_bytes();
            for portion in file[range].chunks(PORTION) {
                answer.extend_from_slice(portion);
                line.send(&answer);
                answer.clear();
                std::thread::sleep(PAUSE);
            }
        }
    })
}

/// The answer to a request for several ranges: places that are checked.
fn parts_of(file: &[u8], ranges: &str) -> Vec<u8> {
    let mut body = Vec::new();
    for range in ranges.trim_start_matches("bytes=").split(',') {
        let Range { start, end } = range_of(range);
        let (last, total) = (end - 1, file.len());
        write!(body, "\r\n--parts\r\nContent-Range: bytes {start}-{last}/{total}\r\n\r\n").unwrap();
        body.extend_from_slice(&file[start..end]);
    }
    body.extend_from_slice(b"\r\n--parts--\r\n");
    let head =
        "HTTP/1.1 206 Partial Content\r\nETag: \"v\"\r\nContent-Type: multipart/byteranges; boundary=parts";
    let mut answer = format!("{head}\r\nContent-Length: {}\r\n\r\n", body.len()).into_bytes();
    answer.extend(body);
    answer
}

fn range_of(value: &str) -> Range<usize> {
    let (first, last) = value.trim_start_matches("bytes=").split_once('-').unwrap();
    first.parse().unwrap()..last.parse::<usize>().unwrap() + 1
}

fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        std::thread::sleep(LOOK);
    }
}

fn download() -> Run {
    let file: &'static [u8] = pattern(FILE_BYTES).leak();
    let origin = origin(file);
    // They only have to know where the coordinator comes from.
    let coordinator = (1, SocketAddr::from(([127, 71, 1, 1], 1)));
    let helpers: Vec<Daemon> = (2..=3).map(|number| router(number, &origin, &[coordinator])).collect();
    let peers: Vec<_> = (2..).zip(helpers.iter().map(|daemon| daemon.peer_address().unwrap())).collect();
    let daemon = router(1, &origin, &peers);
    wait_for("the peers say HELLO", || daemon.shared().peers.usable() == peers.len());

    let (mut looks, is_over) = (Vec::new(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut client = Line::to(daemon.client_addresses()[0]);
            client.send(get(&origin, "/file").replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n"));
            let head = client.head();
            let same = head.starts_with("HTTP/1.1 200") && client.rest() == file;
            is_over.store(true, Ordering::SeqCst);
            assert!(same, "wrong bytes after {head}");
        });
        while !is_over.load(Ordering::SeqCst) {
            looks.extend(look(&daemon, &origin));
            std::thread::sleep(LOOK);
        }
    });
    let ended = || daemon.sessions().into_iter().find(|session| session.outcome.is_some());
    wait_for("the session ends", || ended().is_some());
    let peers = helpers.iter().map(|daemon| daemon.shared().serve.report()).collect();
    let run = Run { looks, session: ended().unwrap(), peers };
    assert_eq!(run.session.outcome.as_deref(), Some("complete"), "{:?}", run.session);
    run
}

fn look(daemon: &Daemon, origin: &Origin) -> Option<Look> {
    let before = allocations();
    let session = daemon.sessions().pop()?;
    Some(Look {
        before,
        requests: session.lanes.iter().map(|lane| lane.requests).sum(),
        connections: origin.connections(),
        in_full_swing: session.lanes.iter().all(|lane| lane.bytes > 0)
            && session.delivered < FILE_BYTES as u64 / 10 * 9,
        after: allocations(),
    })
}

/// Every lane's, client's and peer's thread allocates for a session and for a connection, but never for a chunk: between
/// two looks around which the origin accepted no connection, and all lanes deliver, the count stays where it is.
#[test]
fn no_chunk_allocates() {
    assert!(RUN.looks.iter().any(|look| look.in_full_swing), "{:?}", RUN.session);
    for (i, name) in NAMES.iter().enumerate() {
        assert!(allocations()[i] > 0, "allocations of {name} threads are not counted");
    }
    let (mut chunks, mut stretches) = (0, 0);
    // A lane allocates shortly before the origin accepts its connection, and the threads on both sides of a peer's
    // new connection a little earlier still.
    for looks in RUN.looks.windows(2 * AROUND + 2) {
        let (from, to) = (&looks[AROUND], &looks[AROUND + 1]);
        let is_undisturbed = looks[0].connections == looks[2 * AROUND + 1].connections;
        if !(from.in_full_swing && to.in_full_swing && is_undisturbed) {
            continue;
        }
        let requests = to.requests - from.requests;
        assert_eq!(to.after, from.before, "allocations of {NAMES:?}, with {requests} requests");
        chunks += requests;
        stretches += 1;
    }
    println!("{chunks} requests in {stretches} stretches without an allocation");
    assert!(chunks >= 40, "too few chunks to say anything: {chunks} in {stretches}, {:?}", RUN.session);
}

/// The coordinator reads slots from the socket and writes them to the client: at most what came with a response's
/// head is copied, on every lane.
#[test]
fn no_response_is_copied_beyond_what_came_with_its_head() {
    for lane in &RUN.session.lanes {
        assert!(lane.bytes > 0, "{} brought nothing: {:?}", lane.name, RUN.session);
        assert!(lane.copied <= MOST_COPIED, "{lane:?}");
    }
    let copied: Vec<u32> = RUN.session.lanes.iter().map(|lane| lane.copied).collect();
    println!("copied of one response, at most: {copied:?} bytes");
    assert!(copied.iter().any(|bytes| *bytes > 0), "nothing came with any head: it is not counted");
}

/// A peer passes on through a pipe what did not come with a head of the origin.
#[test]
fn peers_splice() {
    let lanes = RUN.session.lanes.iter().filter(|lane| lane.name.starts_with('R'));
    for (lane, report) in lanes.zip(&RUN.peers) {
        println!("{}: {} bytes, copied of one chunk at most {}", lane.name, lane.bytes, report.copied);
        assert!(report.copied > 0, "nothing came with any head: it is not counted");
        assert!(report.copied <= MOST_COPIED, "{report:?}");
        let passed_through = u64::from(report.copied) * u64::from(lane.requests);
        assert!(lane.bytes > 2 * passed_through, "most bytes went through user space: {lane:?} {report:?}");
    }
    assert_eq!(RUN.peers.len(), 2);
}
