//! What is not authentic, fresh, and in its place is refused by both sides, over real sockets on loopback: with the
//! reason, counted, and at no cost.

#[allow(dead_code)]
#[path = "serve/bed.rs"]
mod bed;
#[allow(dead_code)]
#[path = "serve/origin.rs"]
mod origin;

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bamqp_core::channel::{Identity, Outgoing, Refusal};
use bamqp_core::http::validator::Validator;
use bamqp_core::http::write::HeadWriter;
use bamqp_core::message::chunk::Chunk;
use bamqp_core::message::drop::Drop;
use bamqp_core::message::feedback::{Feedback, Part, Verdict};
use bamqp_core::message::reason::DropReason;
use bamqp_core::time::Span;
use bamqp_core::transfer::{Fault, OwnLink};
use bamqp_router::config::{Config, Peer};
use bamqp_router::fetch::{Fetcher, File, Progress, Source};
use bamqp_router::keyring::Keyring;
use bamqp_router::keys::KeyPair;
use bamqp_router::live::Live;
use bamqp_router::net::{self, PollFd};
use bamqp_router::peers::Peers;
use bamqp_router::session::{Session, Work};
use bamqp_router::trust_store::TrustStore;

use bed::{A, B, Bed, Line, SEED, STRANGER, id, seed_of};
use origin::{Origin, Reply, bytes};

const TOTAL: u64 = 3_000_000;

fn start() -> (Origin, Bed) {
    let origin = Origin::start(TOTAL, |_, _| Reply::Range);
    let bed = Bed::start(&[origin.address.port()]);
    (origin, bed)
}

/// Sends a request that is refused for that reason; it is counted, and the connection ends.
fn refused(bed: &Bed, mut line: Line, request: impl AsRef<[u8]>, refusal: Refusal) {
    let before = bed.keyring.report().refused(refusal);
    line.send_raw(request.as_ref());
    let head = line.head().expect("no answer");
    let reason = head.with(|response| response.fields.text("BAMQP-Reason").map(str::to_owned));
    assert_eq!((head.status(), reason), (403, Some(refusal.to_string())), "{}", head.text());
    assert!(line.is_closed());
    assert_eq!(bed.keyring.report().refused(refusal), before + 1);
}

#[test]
fn a_forged_init_costs_no_ed25519_operation_and_a_session_one() {
    let (origin, bed) = start();
    for (old, new) in [
        ("BAMQP-Size: 3000000", "BAMQP-Size: 3000001"),
        ("BAMQP-Session: 01", "BAMQP-Session: 02"),
        ("ETag: \"v\"", "ETag: \"w\""),
        ("User-Agent: test/1", "User-Agent: test/2"),
        ("BAMQP-Hops: 0", "BAMQP-Hops: 00"),
        ("Host: peer", "Host: rear"),
        ("Signature: init=:", "Signature: init=:AAAA"),
    ] {
        let mut line = bed.connect(A);
        let (text, ..) = line.signed_init(bed.key, id(1), &origin.uri(), TOTAL);
        let mut changed = text.replacen(old, new, 1);
        if old.starts_with("Signature") {
            let at = changed.find(new).unwrap() + new.len();
            changed.replace_range(at..at + 4, ""); // as long as before
        }
        assert_ne!(changed, text);
        refused(&bed, line, changed, Refusal::BadMac);
    }
    let report = bed.keyring.report();
    assert_eq!((report.tally.verified, report.refused(Refusal::BadMac)), (0, 7));
    assert_eq!((bed.serve.report().sessions, origin.connections()), (0, 0));

    let mut line = bed.connect(A);
    line.init(id(1), &origin.uri(), TOTAL).unwrap();
    for i in 0..50 {
        line.ask(id(1), i * 100..i * 100 + 100);
        assert_eq!(line.chunk(i * 100..i * 100 + 100, TOTAL), Ok(bytes(i * 100..i * 100 + 100)));
    }
    line.end(id(1)).unwrap();
    let tally = bed.keyring.report().tally;
    assert_eq!((tally.signed, tally.verified), (0, 1), "one for the session, none for chunks");
}

#[test]
fn an_init_of_others_for_others_or_of_yesterday_is_refused() {
    let (origin, bed) = start();
    let init = |line: &mut Line, recipient| line.signed_init(recipient, id(1), &origin.uri(), TOTAL).0;
    // From an address that is not configured, there is no challenge to answer.
    let mut line = bed.connect(STRANGER);
    let text = init(&mut line, bed.key);
    refused(&bed, line, text, Refusal::UnknownKey);
    // From a configured address, with a key that is not.
    let mut line = bed.connect(A);
    line.me = Identity::from_seed([99; 32]).unwrap();
    line.peer = line.me.agree(KeyPair::from_seed(SEED).public()).unwrap();
    let text = init(&mut line, bed.key);
    refused(&bed, line, text, Refusal::UnknownKey);
    // Impersonating a configured one.
    let mut line = bed.connect(B);
    let b = line.me.fingerprint().to_string();
    let text = init(&mut line, bed.key).replace(&b, &bed.connect(A).me.fingerprint().to_string());
    refused(&bed, line, text, Refusal::BadMac);
    // For another router.
    let mut line = bed.connect(A);
    let other = line.me.fingerprint();
    let text = init(&mut line, other);
    refused(&bed, line, text, Refusal::WrongRecipient);
    // A good one, which was accepted, again: on its connection, and on another with a challenge of its own.
    let mut line = bed.connect(A);
    let text = init(&mut line, bed.key);
    line.send_raw(text.as_bytes());
    assert_eq!(line.head().unwrap().status(), 200);
    refused(&bed, line, &text, Refusal::StaleChallenge);
    let mut line = bed.connect(A);
    line.hello().unwrap();
    refused(&bed, line, &text, Refusal::StaleChallenge);
    // Written so that a reader of the log could not check it by hand, although every signature fits.
    for (old, new) in [("POST", "\r\nPOST"), ("BAMQP-Size: ", "BAMQP-Size:"), ("init=(", "x=1, init=(")] {
        let mut line = bed.connect(A);
        let odd = init(&mut line, bed.key).replacen(old, new, 1);
        refused(&bed, line, odd, Refusal::Coverage);
    }
    // Without signatures.
    let (unsigned, _) = text.split_once("Signature").unwrap();
    refused(&bed, bed.connect(A), format!("{unsigned}\r\n"), Refusal::Unsigned);
    assert_eq!(bed.keyring.report().tally.verified, 1);
}

#[test]
fn chunks_that_are_replayed_reordered_or_somebody_elses_are_refused() {
    let (origin, bed) = start();
    let mut line = bed.connect(A);
    // The keys are needed to make what an attacker could only have recorded.
    let (text, caller, _) = line.signed_init(bed.key, id(1), &origin.uri(), TOTAL);
    line.send_raw(text.as_bytes());
    assert_eq!(line.head().unwrap().status(), 200);
    let mut link = caller.first_link();
    let chunk = |link: &mut Outgoing| {
        let mut buffer = [0; 4096];
        let mut head = HeadWriter::new(&mut buffer);
        Chunk { session: id(1), range: 0..100 }.write(&mut head, &"peer");
        let (length, _) = caller.seal(head, link).unwrap();
        buffer[..length].to_vec()
    };
    let [first, second, third] = std::array::from_fn(|_| chunk(&mut link));
    line.send_raw(&first);
    assert_eq!(line.head().unwrap().status(), 206);
    assert_eq!(line.body(100), bytes(0..100));
    // On another connection, from the coordinator's address and from others: it had its turn.
    for from in [A, B, STRANGER] {
        refused(&bed, bed.connect(from), &first, Refusal::Replayed);
    }
    let mut spare = caller.next_link();
    let changed = String::from_utf8(chunk(&mut spare)).unwrap().replace("bytes=0-99", "bytes=0-98");
    refused(&bed, bed.connect(B), changed, Refusal::BadMac);
    let unsigned = format!("GET /CHUNK HTTP/1.1\r\nBAMQP-Session: {}\r\nRange: bytes=0-99\r\n\r\n", id(1));
    refused(&bed, bed.connect(A), unsigned, Refusal::Unsigned);
    // One is left out; it is no good on another connection either.
    refused(&bed, line, &third, Refusal::OutOfOrder);
    refused(&bed, bed.connect(A), &second, Refusal::Replayed);
    // The session goes on over a new connection.
    let mut line = bed.connect(A);
    line.send_raw(&chunk(&mut caller.next_link()));
    assert_eq!(line.head().unwrap().status(), 206);
    assert_eq!(bed.serve.report().sessions, 1);
}

/// A neighbour on the way from the coordinator to the peer, who changes what comes back.
struct Between {
    address: SocketAddr,
}

impl Between {
    /// `change` gets what came and how many bytes came before.
    fn start(peer: SocketAddr, change: impl Fn(&mut Vec<u8>, usize) + Send + Sync + 'static) -> Between {
        let listener = TcpListener::bind("127.0.11.9:0").unwrap();
        let address = listener.local_addr().unwrap();
        let change = Arc::new(change);
        std::thread::spawn(move || {
            for near in listener.incoming().take(4) {
                let (mut near, deadline) = (near.unwrap(), Instant::now() + Duration::from_secs(10));
                let mut far = net::connect(peer, Some(A.parse().unwrap()), deadline).unwrap();
                far.set_nonblocking(false).unwrap();
                let (mut up_from, mut up_to) = (near.try_clone().unwrap(), far.try_clone().unwrap());
                std::thread::spawn(move || {
                    let _ = std::io::copy(&mut up_from, &mut up_to);
                    let _ = up_to.shutdown(Shutdown::Write);
                });
                let change = change.clone();
                std::thread::spawn(move || {
                    let (mut buffer, mut before) = (vec![0; 65_536], 0);
                    while let Ok(count @ 1..) = far.read(&mut buffer) {
                        let mut came = buffer[..count].to_vec();
                        change(&mut came, before);
                        before += count;
                        if near.write_all(&came).is_err() {
                            return;
                        }
                    }
                    let _ = near.shutdown(Shutdown::Both);
                });
            }
        });
        Between { address }
    }
}

/// Replaces a text that comes as a whole.
fn replace(came: &mut [u8], old: &str, new: &str) {
    assert_eq!(old.len(), new.len());
    if let Some(at) = came.windows(old.len()).position(|window| window == old.as_bytes()) {
        came[at..at + new.len()].copy_from_slice(new.as_bytes());
    }
}

/// The coordinator at [`A`], whose peer is at `address`.
struct Coordinator {
    peers: Peers,
    keyring: Arc<Keyring>,
    live: Live,
    session: Arc<Session>,
}

impl Coordinator {
    fn of(address: SocketAddr, origin: &Origin) -> Coordinator {
        Coordinator::with(address, *KeyPair::from_seed(SEED).public(), origin)
    }

    fn with(address: SocketAddr, public_key: [u8; 32], origin: &Origin) -> Coordinator {
        Coordinator::for_uri(address, public_key, origin.uri())
    }

    fn for_uri(address: SocketAddr, public_key: [u8; 32], uri: String) -> Coordinator {
        let config = Config {
            peer_listen: Some(SocketAddr::new(A.parse().unwrap(), 7733)),
            peers: vec![Peer { name: "b".into(), address, public_key }],
            state_dir: "/nonexistent".into(),
            ..Config::default()
        };
        let keyring = Arc::new(Keyring::new(&KeyPair::from_seed(seed_of(A)), &config.peers).unwrap());
        let file = File {
            uri,
            total: TOTAL,
            validator: Validator::entity_tag(b"\"v\"").unwrap(),
            user_agent: Some(b"caf\xe9".as_slice().into()), // not ASCII: it is left out
            accept: None,
        };
        let own = OwnLink { rate: 1_000_000, rtt: Span::from_millis(10), hold: 65_536 };
        let session =
            Session::new(id(1), Arc::new(file), Work::Response(0..TOTAL), 1 << 20, own, Vec::new()).unwrap();
        let trust = Arc::new(TrustStore::open(&config));
        let peers = Peers::new(&config, keyring.clone(), trust).unwrap();
        Coordinator { peers, keyring, live: Live::default(), session }
    }

    /// Fetches two chunks, the first of which is `length` bytes; what comes of it.
    fn fetch(&self, length: u64, check: bool) -> Result<Vec<u8>, Fault> {
        let joined = self.peers.join(0, &self.session, &self.live)?;
        let (session, address, from) = (self.session.id, joined.address, joined.from);
        let source = Source::Peer { session, address, from, call: joined.call.clone() };
        let mut fetcher = Fetcher::joined(self.session.file.clone(), source, joined.socket, joined.link);
        if check {
            fetcher.check_digests();
        }
        fetcher.ask(0..length, &self.live)?;
        fetcher.ask(length..length + 10, &self.live)?;
        let (mut got, mut buffer) = (Vec::new(), vec![0; 65_536]);
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            match fetcher.read(&mut buffer, &self.live)? {
                Progress::Bytes(count) => got.extend_from_slice(&buffer[..count]),
                Progress::Idle => break,
                Progress::Blocked => {
                    let (socket, flags) = fetcher.wants().unwrap();
                    assert!(net::poll(&mut [PollFd::new(socket, flags)], Some(deadline)).unwrap() > 0);
                }
            }
        }
        let served = fetcher.take_served().unwrap();
        assert_eq!(served.range, 0..length);
        let socket = fetcher.into_clean_socket();
        assert!(socket.is_some());
        self.peers.leave(0, &self.session, &joined.call, socket, &self.live);
        Ok(got)
    }
}

#[test]
fn what_nobody_changes_is_accepted_and_signed_once() {
    let (origin, bed) = start();
    let between = Between::start(bed.address, |_, _| {});
    let coordinator = Coordinator::of(between.address, &origin);
    assert!(coordinator.fetch(100_000, true).unwrap() == bytes(0..100_010));
    let tally = coordinator.keyring.report().tally;
    assert_eq!((tally.signed, tally.verified), (1, 0));
    assert_eq!(coordinator.keyring.report().refused, [0; Refusal::ALL.len()]);
    assert_eq!(bed.serve.report().sessions, 0, "the DROP was authentic, too");
    assert!(!origin.heads()[0].contains("User-Agent"));
}

#[test]
fn a_byte_that_is_changed_on_the_way_is_nobodys_lie() {
    let (origin, bed) = start();
    let flip = |came: &mut Vec<u8>, before: usize| {
        // Within the first chunk, whatever the heads' length.
        if before <= 50_000 && 50_000 < before + came.len() {
            came[50_000 - before] ^= 1;
        }
    };
    let between = Between::start(bed.address, flip);
    let coordinator = Coordinator::of(between.address, &origin);
    assert_eq!(coordinator.fetch(100_000, true), Err(Fault::Corrupt));
    assert!(Fault::Corrupt.may_pass() && !Fault::Corrupt.is_violation());
}

#[test]
fn an_answer_that_is_changed_on_the_way_is_refused() {
    for (old, new, expected) in [
        ("BAMQP-Hold: 131072", "BAMQP-Hold: 931072", Refusal::BadMac),
        (
            "BAMQP-Bandwidth: 20000000\r\nBAMQP-Hold",
            "BAMQP-Bandwidth: 99000000\r\nBAMQP-Hold",
            Refusal::BadMac,
        ),
        ("bytes 0-99999/3000000", "bytes 0-99998/3000000", Refusal::BadMac),
        ("ETag: \"v\"", "ETag: \"w\"", Refusal::BadMac),
        ("Content-Length: 100000", "Content-Length: 100001", Refusal::BadMac),
        ("BAMQP-Previous-Digest: sha-256=:", "BAMQP-Previous-Digest: sha-257=:", Refusal::BadMac),
        ("BAMQP-Sequence: 0.2", "BAMQP-Sequence: 0.1", Refusal::BadMac),
        ("206 Partial", "200 Partial", Refusal::BadMac),
        ("Signature: mac=:", "Signature: cam=:", Refusal::Unsigned),
        ("tag=\"bamqp\"", "tag=\"other\"", Refusal::Coverage),
    ] {
        let (origin, bed) = start();
        let between = Between::start(bed.address, move |came, _| replace(came, old, new));
        let coordinator = Coordinator::of(between.address, &origin);
        assert_eq!(coordinator.fetch(100_000, false), Err(Fault::Unauthentic), "{old} -> {new}");
        assert_eq!(coordinator.keyring.report().refused(expected), 1, "{old} -> {new}");
    }
}

#[test]
fn a_decline_a_drop_and_a_summary_that_are_changed_on_the_way_are_refused() {
    let (_, bed) = start();
    let refused = || "http://10.1.2.3/f".to_owned();
    for (old, new) in [
        ("BAMQP-Reason: refused-target", "BAMQP-Reason: refused-targer"),
        ("Retry-After: 0", "Retry-After: 9"),
        ("403 Declined", "503 Declined"),
    ] {
        let between = Between::start(bed.address, move |came, _| replace(came, old, new));
        let coordinator =
            Coordinator::for_uri(between.address, *KeyPair::from_seed(SEED).public(), refused());
        assert_eq!(coordinator.fetch(100, false), Err(Fault::Unauthentic), "{old} -> {new}");
        assert_eq!(coordinator.keyring.report().refused(Refusal::BadMac), 1);
    }
    let direct = Coordinator::for_uri(bed.address, *KeyPair::from_seed(SEED).public(), refused());
    assert_eq!(direct.fetch(100, false), Err(Fault::Declined), "what is told by nobody else");

    let refusing =
        Origin::start(TOTAL, |_, _| Reply::Raw("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n".into()));
    let bed = Bed::start(&[refusing.address.port()]);
    for (old, new) in [
        ("BAMQP-Reason: origin-status-403", "BAMQP-Reason: origin-status-404"),
        ("Retry-After: 0", "Retry-After: 9"),
        ("BAMQP-Session: 01", "BAMQP-Session: 02"),
        ("503 Dropped", "206 Dropped"),
    ] {
        let between = Between::start(bed.address, move |came, _| replace(came, old, new));
        let coordinator = Coordinator::of(between.address, &refusing);
        assert_eq!(coordinator.fetch(100, false), Err(Fault::Unauthentic), "{old} -> {new}");
        assert_eq!(coordinator.keyring.report().refused(Refusal::BadMac), 1);
    }
    assert_eq!(Coordinator::of(bed.address, &refusing).fetch(100, false), Err(Fault::Status(403)));

    let (origin, bed) = start();
    for (old, new) in [
        ("BAMQP-Bytes: 110", "BAMQP-Bytes: 990"),
        ("BAMQP-Served: bytes=0-109", "BAMQP-Served: bytes=0-209"),
        ("BAMQP-Previous-Digest: sha-256=:", "BAMQP-Previous-Digest: sha-257=:"),
    ] {
        // The digest comes with the second chunk, too: only what comes with the summary is changed.
        let change = move |came: &mut Vec<u8>, _| {
            if came.windows(11).any(|window| window == b"BAMQP-Bytes") {
                replace(came, old, new);
            }
        };
        let between = Between::start(bed.address, change);
        let coordinator = Coordinator::of(between.address, &origin);
        assert!(coordinator.fetch(100, false).is_ok());
        assert_eq!(coordinator.keyring.report().refused(Refusal::BadMac), 1, "{old} -> {new}");
    }
}

/// Each field of each request of a session, one letter of it changed: by somebody between the two routers, or by one who
/// has recorded it.
#[test]
fn whatever_is_changed_in_a_request_of_a_session_is_refused_and_costs_it_nothing() {
    let (origin, bed) = start();
    let mut line = bed.connect(A);
    let (text, caller, _) = line.signed_init(bed.key, id(1), &origin.uri(), TOTAL);
    line.send_raw(text.as_bytes());
    assert_eq!(line.head().unwrap().status(), 200);
    let (accused, mut spare) = (bed.connect(B).me.fingerprint(), caller.next_link());
    let mut sealed = |write: &dyn Fn(&mut HeadWriter<'_>)| {
        let mut buffer = [0; 4096];
        let mut head = HeadWriter::new(&mut buffer);
        write(&mut head);
        let (length, _) = caller.seal(head, &mut spare).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    };
    let part = Part { router: accused, verdict: Verdict::Lie, bytes: 7, timeouts: 7 };
    let feedback = Feedback { session: id(1), parts: [part].into_iter().collect() };
    let drop = Drop { session: id(1), reason: DropReason::Done, retry_after: 7 };
    let chunk = Chunk { session: id(1), range: 0..100 };
    let messages = [
        sealed(&|head| chunk.write(head, &"peer")),
        sealed(&|head| feedback.write(head, &"peer")),
        sealed(&|head| drop.write_request(head, &"peer")),
    ];
    let mut counts = (0, 0);
    for message in &messages {
        let lines: Vec<&str> = message.trim_end().split("\r\n").collect();
        for place in 0..lines.len() {
            // The last letter or digit becomes another; that of the path, since the version is nobody's.
            let covered = lines[place].trim_end_matches(" HTTP/1.1");
            let at = covered.rfind(|c: char| c.is_ascii_alphanumeric()).unwrap();
            let mut changed = lines[place].as_bytes().to_vec();
            changed[at] = if changed[at] == b'0' { b'1' } else { b'0' };
            let changed = String::from_utf8(changed).unwrap();
            let all = [&lines[..place], &[&changed], &lines[place + 1..]].concat().join("\r\n") + "\r\n\r\n";
            let mut line = bed.connect(A);
            line.send_raw(all.as_bytes());
            let head = line.head().unwrap();
            let reason = head.with(|response| response.fields.text("BAMQP-Reason").map(str::to_owned));
            match (head.status(), reason) {
                (403, Some(_)) => counts.0 += 1,
                // No such message, or no message; or of no session.
                (400 | 404, None) => counts.1 += 1,
                (503, Some(reason)) if reason == "unknown-session" => {}
                other => panic!("{other:?} to\n{all}"),
            }
        }
    }
    assert!(counts.0 >= 12, "{counts:?}");
    let report = bed.keyring.report();
    assert_eq!(report.refused.iter().sum::<u32>(), counts.0, "each is counted with its reason");
    assert_eq!(bed.serve.report().malformed, counts.1);
    assert!(bed.trust.views().iter().all(|view| view.alert.is_none()), "nobody was accused");
    assert_eq!(bed.serve.report().sessions, 1, "nobody ended it");
    assert_eq!(origin.requests(), []);
}

#[test]
fn who_only_says_to_be_the_peer_is_found_out() {
    let (origin, bed) = start();
    // HELLO comes with the fingerprint that is configured, and with another router's challenge.
    let claimed = KeyPair::from_seed([77; 32]);
    let (real, other) = (bed.key.to_string(), claimed.fingerprint().to_string());
    let between = Between::start(bed.address, move |came, _| replace(came, &real, &other));
    let coordinator = Coordinator::with(between.address, *claimed.public(), &origin);
    assert_eq!(coordinator.fetch(100, false), Err(Fault::Unauthentic));
    assert_eq!(bed.keyring.report().refused(Refusal::WrongRecipient), 1, "its INIT is of no use elsewhere");
}
