//! Entries of the ledger, their chain, and the INITs in it.

use bamqp_core::base64::decode_exactly;
use bamqp_core::http::request::Request;
use bamqp_core::ledger::evidence::{self, Mismatch};
use bamqp_core::ledger::{BadEntry, Chain, Entry, Event, Hash, InitEvent, List, Text, Time};
use bamqp_core::limits::{MAX_LEDGER_LINE_BYTES, MAX_PEER_HEAD_BYTES};
use bamqp_core::message::{Fingerprint, SessionId};
use bamqp_core::signature::verify_init;
use proptest::prelude::*;

/// Two lines whose hashes coreutils made: each is `printf '%s' "$text" | sha256sum` of the text before `\tsha256=`.
const FIRST: &str = "seq=1\tboot=1\ttime=1970-01-01T00:00:09Z\tup=9\tOPEN\t\
    key=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\tboot_id=b1\tversion=0.1.0\t\
    prev=0000000000000000000000000000000000000000000000000000000000000000\t\
    sha256=630a8c5f1b661ceebf6e4801e0924fb6c213f8a8cd599ca78a071766a26af53e\n";
const SECOND: &str = "seq=2\tboot=1\ttime=2026-08-01T12:00:00Z\tup=4711\tCHUNK\t\
    session=000102030405060708090a0b0c0d0e0f\tranges=0-65535,131072-196607\t\
    prev=630a8c5f1b661ceebf6e4801e0924fb6c213f8a8cd599ca78a071766a26af53e\t\
    sha256=2ca5a161065d872ea761820b77bc34504975c1a98e7e4f5a455e94b41ee83fe9\n";

fn written(entry: &Entry<'_>) -> (String, Hash) {
    let mut line = String::new();
    let hash = entry.write(&mut line).unwrap();
    (line, hash)
}

fn open(sequence: u64, boot: u32, previous: Hash) -> Entry<'static> {
    let event = Event::Open { key: [0; 32], boot_id: Text::Plain(b"b1"), version: Text::Plain(b"0.1.0") };
    Entry { sequence, boot, time: Time::from_seconds(9), uptime: 9, event, previous }
}

#[test]
fn lines_whose_hashes_sha256sum_made() {
    let mut chain = Chain::new();
    let (entry, first) = chain.next(FIRST.as_bytes()).unwrap();
    assert_eq!(entry, open(1, 1, Hash::default()));
    assert_eq!(written(&entry), (FIRST.into(), first));
    let (entry, second) = chain.next(SECOND.as_bytes()).unwrap();
    let Event::Chunk { session, ranges } = &entry.event else { panic!("{entry:?}") };
    assert_eq!(session.0[15], 15);
    assert!(ranges.iter().eq([0..65536, 131_072..196_608]));
    assert_eq!((entry.time.as_seconds(), entry.uptime), (1_785_585_600, 4711));
    assert_eq!(written(&entry), (SECOND.into(), second));
    assert_eq!((chain.sequence(), chain.head()), (2, second));
}

#[test]
fn every_altered_byte_is_found() {
    for line in [FIRST, SECOND] {
        for at in 0..line.len() {
            for bit in 0..8 {
                let mut altered = line.as_bytes().to_vec();
                altered[at] ^= 1 << bit;
                assert!(Entry::parse(&altered).is_err(), "byte {at}, bit {bit}: {line}");
            }
            let mut shorter = line.as_bytes().to_vec();
            shorter.remove(at);
            assert!(Entry::parse(&shorter).is_err(), "without byte {at}: {line}");
            let mut longer = line.as_bytes().to_vec();
            longer.insert(at, longer[at]);
            assert!(Entry::parse(&longer).is_err(), "byte {at} twice: {line}");
        }
    }
    assert_eq!(Entry::parse(FIRST.trim_end().as_bytes()), Err(BadEntry::Unfinished));
}

/// The attacker hashes again what he altered: then it doesn't fit what is around it.
#[test]
fn the_chain_says_what_does_not_follow() {
    let (first, hash) = written(&open(1, 3, Hash::default()));
    let next = |entry: Entry<'_>| {
        let mut chain = Chain::new();
        chain.next(first.as_bytes()).unwrap();
        let result = chain.next(written(&entry).0.as_bytes()).map(|_| ());
        // An error leaves the chain where it stood.
        assert!(result.is_ok() || chain.head() == hash);
        result
    };
    assert_eq!(next(open(2, 3, hash)), Ok(()));
    assert_eq!(next(open(2, 4, hash)), Ok(()));
    assert_eq!(next(open(3, 3, hash)), Err(BadEntry::Sequence(2)));
    assert_eq!(next(open(1, 3, hash)), Err(BadEntry::Sequence(2)));
    assert_eq!(next(open(2, 3, Hash::default())), Err(BadEntry::Chain));
    assert_eq!(next(open(2, 2, hash)), Err(BadEntry::Boot));
}

#[test]
fn where_a_chain_may_begin() {
    let begin = |entry: Entry<'_>| Chain::new().next(written(&entry).0.as_bytes()).map(|_| ());
    assert_eq!(begin(open(1, 1, Hash::default())), Ok(()));
    // Older files are gone: any entry but the first has one before it.
    assert_eq!(begin(open(9, 2, Hash([7; 32]))), Ok(()));
    assert_eq!(begin(open(9, 2, Hash::default())), Err(BadEntry::Chain));
    assert_eq!(begin(open(1, 1, Hash([7; 32]))), Err(BadEntry::Chain));
    assert_eq!(begin(open(0, 1, Hash([7; 32]))), Err(BadEntry::Sequence(1)));
    let event = Event::Chunk { session: SessionId([1; 16]), ranges: List::Plain(&[]) };
    assert_eq!(begin(Entry { event, ..open(9, 2, Hash([7; 32])) }), Err(BadEntry::NotOpened));
}

#[test]
fn texts_are_one_line_of_ascii_and_what_printf_b_reads() {
    let bytes = b"POST /INIT HTTP/1.1\r\nETag: \"a\\b\"\r\nX:\t\xc3\xa9\x00\x7f7\r\n\r\n";
    let text = Text::Plain(bytes).to_string();
    // bash and dash: printf '%b' "$text" | cmp - bytes
    assert_eq!(text, r#"POST /INIT HTTP/1.1\r\nETag: "a\\b"\r\nX:\t\0303\0251\0000\01777\r\n\r\n"#);
    let read = Text::escaped(text.as_bytes()).unwrap();
    assert_eq!(read, Text::Plain(bytes));
    assert_eq!(read.copy_to(&mut [0; 100]), Some(&bytes[..]));
    assert_eq!(read.copy_to(&mut [0; 10]), None);
    for bad in [&b"\\"[..], b"\\x41", b"\\0", b"\\04", b"\\0400", b"\\0189", b"a\tb", b"\x7f", b"\xc3"] {
        assert!(Text::escaped(bad).is_none(), "{}", bad.escape_ascii());
    }
}

#[test]
fn times_as_date_writes_them() {
    for (seconds, text) in [
        (0, "1970-01-01T00:00:00Z"), // date -u -d @0 +%FT%TZ
        (951_782_399, "2000-02-28T23:59:59Z"),
        (951_782_400, "2000-02-29T00:00:00Z"),
        (1_785_585_600, "2026-08-01T12:00:00Z"),
        (4_107_542_399, "2100-02-28T23:59:59Z"),
        (4_107_542_400, "2100-03-01T00:00:00Z"),
        (253_402_300_799, "9999-12-31T23:59:59Z"),
    ] {
        assert_eq!(Time::from_seconds(seconds).to_string(), text);
        assert_eq!(text.parse(), Ok(Time::from_seconds(seconds)));
    }
    assert_eq!(Time::from_seconds(u64::MAX).to_string(), "9999-12-31T23:59:59Z");
    assert_eq!("2026-08-01".parse(), Ok(Time::from_seconds(1_785_542_400)));
    assert_eq!("2026-08-01T12:00".parse(), Ok(Time::from_seconds(1_785_585_600)));
    for bad in [
        "",
        "2026",
        "2026-02-29",
        "2026-13-01",
        "2026-00-01",
        "2026-01-00",
        "2026-04-31",
        "1969-12-31",
        "2026-08-01T24:00",
        "2026-08-01T12:60",
        "2026-08-01T12:00:60",
        "2026-08-01 12:00",
        "2026/08/01",
        "2026-08-01T1:00:00",
        "+026-08-01",
        "2026-08-01T12:00:00+",
    ] {
        assert!(bad.parse::<Time>().is_err(), "{bad}");
    }
}

/// Signed by a Python library: see core/tests/signature.rs.
const HEAD: &str = include_str!("signed_init.http");

fn owner() -> Fingerprint {
    "6a3803d5f059902a1c6dafbc9ba47292".parse().unwrap()
}

fn init(head: &[u8]) -> InitEvent<'_> {
    InitEvent {
        key: decode_exactly(b"iojj3XQJ8ZX9UtstPLpdcspnCb8dlBIb83SIAbQPb1w=").unwrap(),
        from: "[fd00::1]:40112".parse().unwrap(),
        session: "000102030405060708090a0b0c0d0eff".parse().unwrap(),
        size: 12345,
        uri: Text::Plain(b"http://a.example/f"),
        head: Text::Plain(head),
    }
}

#[test]
fn an_init_entry_tells_what_was_signed() {
    let check = |event: &InitEvent<'_>| evidence::check(event, owner(), &mut [0; evidence::BUFFER_BYTES]);
    let good = init(HEAD.as_bytes());
    // The first part of its nonce.
    assert_eq!(check(&good), Ok(Hash(core::array::from_fn(|i| i as u8))));
    let escaped = good.head.to_string();
    let good = InitEvent { head: Text::escaped(escaped.as_bytes()).unwrap(), ..good };
    assert!(check(&good).is_ok());

    let other = evidence::check(&good, Fingerprint([0; 16]), &mut [0; evidence::BUFFER_BYTES]);
    assert_eq!(other, Err(Mismatch::Recipient(owner())));
    let bad = InitEvent { session: SessionId([2; 16]), ..good.clone() };
    assert_eq!(check(&bad), Err(Mismatch::Field("session")));
    assert_eq!(check(&InitEvent { size: 999, ..good.clone() }), Err(Mismatch::Field("size")));
    for uri in ["http://a.example/", "http://a.example/ff", "http://a.example/g", ""] {
        let bad = InitEvent { uri: Text::Plain(uri.as_bytes()), ..good.clone() };
        assert_eq!(check(&bad), Err(Mismatch::Field("uri")), "{uri}");
    }
    let forged = InitEvent { key: [3; 32], ..good.clone() };
    assert!(matches!(check(&forged), Err(Mismatch::Signature(_))));
    for head in ["", "POST /INIT HTTP/1.1\r\n", "GET /HELLO HTTP/1.1\r\n\r\n", &format!("{HEAD}x")] {
        assert_eq!(check(&init(head.as_bytes())), Err(Mismatch::NotAnInit), "{head}");
    }
    assert_eq!(evidence::check(&good, owner(), &mut [0; 20]), Err(Mismatch::NotAnInit));
}

/// All of these are the same INIT to a parser of HTTP and its signature fits; but not to sed and grep.
#[test]
fn an_init_that_tools_could_read_differently_is_no_evidence() {
    let target = "BAMQP-Target: http";
    let (input, signature) = ("Signature-Input: init=", "Signature: init=");
    assert!(evidence::is_plain(HEAD.as_bytes()));
    let mut fit = 0;
    for (old, new) in [
        ("POST", "\r\nPOST"),
        ("POST", "\nPOST"),
        ("HTTP/1.1", "HTTP/1.0"),
        (target, "BAMQP-Target:http"),
        (target, "BAMQP-Target:  http"),
        (target, "BAMQP-Target: \thttp"),
        ("a.example/f", "a.example/f "),
        (input, "Signature-Input: x=1, init="),
        (input, "Signature-Input: x=1\r\nSignature-Input: init="),
        (input, "signature-input: init="),
        (signature, "Signature: x=:AA==:, init="),
        ("tag=\"bamqp\"\r\nSignature: init", "tag=\"bamqp\", x\r\nSignature: init"),
    ] {
        let odd = HEAD.replacen(old, new, 1);
        assert_ne!(odd, HEAD, "{old}");
        assert!(!evidence::is_plain(odd.as_bytes()), "{new:?}");
        if let Ok(Some((request, _))) = Request::parse(odd.as_bytes())
            && verify_init(&request, &init(HEAD.as_bytes()).key).is_ok()
        {
            fit += 1;
            let found = evidence::check(&init(odd.as_bytes()), owner(), &mut [0; 4096]);
            assert_eq!(found, Err(Mismatch::Form), "{new:?}");
        }
    }
    assert!(fit >= 8, "{fit}");
    // A name that is part of a pattern.
    assert!(!evidence::is_plain(HEAD.replacen("Accept:", "Acc.pt:", 1).as_bytes()));
    assert!(!evidence::is_plain(&HEAD.as_bytes()[..HEAD.len() - 2]));
}

/// Whatever byte of the head is altered, and whoever hashed the line again.
#[test]
fn every_altered_byte_of_a_signed_init_is_found() {
    let end_of_signature = HEAD.match_indices("Signature-Input").nth(1).unwrap().0;
    // The minor version of HTTP is no part of any message (RFC 9110 section 6.2), so nothing signs it.
    let minor = HEAD.find('\r').unwrap() - 1;
    for at in (0..end_of_signature).filter(|at| *at != minor) {
        let mut head = HEAD.as_bytes().to_vec();
        head[at] ^= 1;
        let checked = evidence::check(&init(&head), owner(), &mut [0; evidence::BUFFER_BYTES]);
        assert!(checked.is_err(), "byte {at}: {}", head.escape_ascii());
    }
}

#[test]
fn the_head_of_an_entry_is_the_head_that_came() {
    let entry = Entry { event: Event::Init(init(HEAD.as_bytes())), ..open(2, 1, Hash([5; 32])) };
    let (line, _) = written(&entry);
    assert_eq!(line.lines().count(), 1);
    assert!(line.contains("\turi=http://a.example/f\thead=POST /INIT HTTP/1.1\\r\\nHost: 10.77.0.2:7733"));
    let (read, _) = Entry::parse(line.as_bytes()).unwrap();
    let Event::Init(read) = read.event else { panic!("{line}") };
    let mut buffer = [0; MAX_PEER_HEAD_BYTES];
    let head = read.head.copy_to(&mut buffer).unwrap();
    assert_eq!(head, HEAD.as_bytes());
    assert!(Request::parse(head).unwrap().is_some());
}

fn any_event() -> impl Strategy<Value = OwnedEvent> {
    let bytes = || proptest::collection::vec(any::<u8>(), 0..100);
    let range =
        || (any::<u32>(), 1..u32::MAX).prop_map(|(at, len)| u64::from(at)..u64::from(at) + u64::from(len));
    let ranges = proptest::collection::vec(range(), 0..64);
    let peer = (any::<[u8; 16]>(), any::<[u8; 32]>()).prop_map(|(key, head)| (Fingerprint(key), Hash(head)));
    let peers = proptest::collection::vec(peer, 0..30);
    let init = (
        any::<[u8; 32]>(),
        any::<(std::net::IpAddr, u16)>(),
        any::<[u8; 16]>(),
        any::<u64>(),
        bytes(),
        bytes(),
    );
    prop_oneof![
        (any::<[u8; 32]>(), bytes(), bytes()).prop_map(|(key, a, b)| OwnedEvent::Open(key, a, b)),
        init.prop_map(|(a, b, c, d, e, f)| OwnedEvent::Init(a, b.into(), c, d, e, f)),
        (any::<[u8; 16]>(), ranges).prop_map(|(session, ranges)| OwnedEvent::Chunk(session, ranges)),
        (any::<[u8; 16]>(), range(), bytes(), peers).prop_map(|(a, b, c, d)| OwnedEvent::Session(a, b, c, d)),
    ]
}

#[derive(Clone, Debug)]
enum OwnedEvent {
    Open([u8; 32], Vec<u8>, Vec<u8>),
    Init([u8; 32], std::net::SocketAddr, [u8; 16], u64, Vec<u8>, Vec<u8>),
    Chunk([u8; 16], Vec<std::ops::Range<u64>>),
    Session([u8; 16], std::ops::Range<u64>, Vec<u8>, Vec<(Fingerprint, Hash)>),
}

impl OwnedEvent {
    fn lend(&self) -> Event<'_> {
        match self {
            OwnedEvent::Open(key, boot_id, version) => {
                Event::Open { key: *key, boot_id: Text::Plain(boot_id), version: Text::Plain(version) }
            }
            OwnedEvent::Init(key, from, session, size, uri, head) => Event::Init(InitEvent {
                key: *key,
                from: *from,
                session: SessionId(*session),
                size: *size,
                uri: Text::Plain(uri),
                head: Text::Plain(head),
            }),
            OwnedEvent::Chunk(session, ranges) => {
                Event::Chunk { session: SessionId(*session), ranges: List::Plain(ranges) }
            }
            OwnedEvent::Session(session, range, uri, peers) => Event::Session {
                session: SessionId(*session),
                size: range.end,
                range: range.clone(),
                uri: Text::Plain(uri),
                peers: List::Plain(peers),
            },
        }
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read(
        sequence in 1u64.., boot: u32, seconds in 0u64..300_000_000_000, uptime: u64, event in any_event(),
        previous: [u8; 32],
    ) {
        let time = Time::from_seconds(seconds);
        let entry = Entry { sequence, boot, time, uptime, event: event.lend(), previous: Hash(previous) };
        let (line, hash) = written(&entry);
        prop_assert!(line.len() <= MAX_LEDGER_LINE_BYTES);
        prop_assert!(line.trim_end_matches('\n').bytes().all(|b| b == b'\t' || (b' '..=b'~').contains(&b)));
        prop_assert_eq!(Entry::parse(line.as_bytes()), Ok((entry, hash)));
    }

    #[test]
    fn any_bytes_are_an_entry_or_none(mut line in proptest::collection::vec(any::<u8>(), 0..300), at in 0usize..600) {
        let _ = Entry::parse(&line);
        let _ = Text::escaped(&line);
        // Nearly an entry.
        let mut near = SECOND.as_bytes().to_vec();
        let at = at % near.len();
        near.splice(at..(at + line.len()).min(near.len()), line.drain(..));
        prop_assert!(near == SECOND.as_bytes() || Entry::parse(&near).is_err());
    }

    #[test]
    fn times_come_back(seconds in 0u64..253_402_300_800) {
        prop_assert_eq!(Time::from_seconds(seconds).to_string().parse(), Ok(Time::from_seconds(seconds)));
    }
}
