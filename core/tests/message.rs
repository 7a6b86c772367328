//! The messages between routers, written and read again.

use bamqp_core::channel::Challenge;
use bamqp_core::http::partial::check_partial;
use bamqp_core::http::request::Request;
use bamqp_core::http::response::Response;
use bamqp_core::http::target::Uri;
use bamqp_core::http::validator::{NoValidator, Validator};
use bamqp_core::http::write::HeadWriter;
use bamqp_core::limits::{MAX_LANES, MAX_PEER_HEAD_BYTES, MAX_SERVED_RANGES, MAX_URI_BYTES};
use bamqp_core::message::chunk::{Chunk, ChunkAnswer};
use bamqp_core::message::drop::{Drop, Summary};
use bamqp_core::message::feedback::{Feedback, Part, Verdict};
use bamqp_core::message::hello::{self, Details, Hello};
use bamqp_core::message::init::{Accept, Answer, Decline, Init};
use bamqp_core::message::reason::{DeclineReason, DropReason};
use bamqp_core::message::{Fingerprint, MessageError, NotHex, PeerRequest, SessionId};
use bamqp_core::time::Span;
use proptest::prelude::*;

const SESSION: SessionId = SessionId(*b"\x00\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\xff");
const HEX: &str = "000102030405060708090a0b0c0d0eff";
const HOST: &str = "10.77.0.2:7733";

fn write(fill: impl FnOnce(&mut HeadWriter<'_>)) -> String {
    let mut buffer = [0; MAX_PEER_HEAD_BYTES];
    let mut head = HeadWriter::new(&mut buffer);
    fill(&mut head);
    let length = head.finish().unwrap();
    String::from_utf8(buffer[..length].to_vec()).unwrap()
}

fn request(text: &str) -> Request<'_> {
    Request::parse(text.as_bytes()).unwrap().unwrap().0
}

fn response(text: &str) -> Response<'_> {
    Response::parse(text.as_bytes()).unwrap().unwrap().0
}

fn tag() -> Validator {
    Validator::entity_tag(b"\"v\"").unwrap()
}

fn init(target: &str) -> Init<'_> {
    Init {
        session: SESSION,
        target: Uri::parse(target).unwrap(),
        size: 12_345,
        validator: tag(),
        hops: 0,
        recipient: Fingerprint([0xab; 16]),
        first: None,
        user_agent: Some(b"curl/8"),
        accept: Some(b"*/*"),
    }
}

#[test]
fn hello() {
    assert!(matches!(
        PeerRequest::parse(&request(&write(|head| hello::write_request(head, &HOST)))),
        Ok(PeerRequest::Hello(None))
    ));
    let stranger = Hello { key: Fingerprint([1; 16]), details: None, challenge: None, takes_part: false };
    let text = write(|head| stranger.write(head));
    assert_eq!(
        text,
        format!("HTTP/1.1 200 OK\r\nBAMQP-Key: {}\r\nContent-Length: 0\r\n\r\n", "01".repeat(16))
    );
    assert_eq!(Hello::parse(&response(&text)), Ok(stranger));
    let details = Details { bandwidth: 20_000_000, load: 2, rtt: Span::from_millis(30), losses: 7 };
    let challenge = Challenge { log_head: [0xab; 32], random: [0xcd; 16] };
    let peer = Hello { details: Some(details), challenge: Some(challenge), ..stranger };
    let text = write(|head| peer.write(head));
    assert!(text.contains("BAMQP-Quality: rtt=30000, losses=7\r\n"));
    assert!(text.contains(&format!("BAMQP-Challenge: {}.{}\r\n", "ab".repeat(32), "cd".repeat(16))));
    assert_eq!(Hello::parse(&response(&text)), Ok(peer));
    let about = write(|head| hello::write_request_about(head, &HOST, HEX.parse().unwrap()));
    match PeerRequest::parse(&request(&about)) {
        Ok(PeerRequest::Hello(session)) => assert_eq!(session.map(|id| id.to_string()).as_deref(), Some(HEX)),
        other => panic!("{other:?}"),
    }
    let malformed = about.replace(HEX, "x");
    let error = PeerRequest::parse(&request(&malformed)).err();
    assert_eq!(error, Some(MessageError::Malformed("BAMQP-Session")));
    let working = Hello { takes_part: true, ..peer };
    assert_eq!(Hello::parse(&response(&write(|head| working.write(head)))), Ok(working));
    assert_eq!(
        Hello::parse(&response(&text.replace("losses=7", "losses=x"))),
        Err(MessageError::Malformed("BAMQP-Quality"))
    );
    assert_eq!(
        Hello::parse(&response(&text.replace("cd.", "cd").replace("ab.", "ab"))),
        Err(MessageError::Malformed("BAMQP-Challenge"))
    );
    assert_eq!(Hello::parse(&response("HTTP/1.1 404 X\r\n\r\n")), Err(MessageError::Status(404)));
}

#[test]
fn init_is_written_as_the_wire_format_says() {
    let text = write(|head| init("http://a.example/f").write(head, &HOST));
    assert_eq!(
        text,
        format!(
            "POST /INIT HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 0\r\nBAMQP-Session: {HEX}\r\n\
            BAMQP-Target: http://a.example/f\r\nBAMQP-Size: 12345\r\nETag: \"v\"\r\nBAMQP-Hops: 0\r\n\
            BAMQP-Recipient: {}\r\nUser-Agent: curl/8\r\nAccept: */*\r\n\r\n",
            "ab".repeat(16)
        )
    );
    match PeerRequest::parse(&request(&text)) {
        Ok(PeerRequest::Init(found)) => assert_eq!(found, init("http://a.example/f")),
        other => panic!("{other:?}"),
    }
}

#[test]
fn init_with_the_longest_uri_fits_into_a_head() {
    let longest = format!("http://a.example/{}", "x".repeat(MAX_URI_BYTES - 17));
    let text = write(|head| init(&longest).write(head, &HOST));
    assert!(
        matches!(PeerRequest::parse(&request(&text)), Ok(PeerRequest::Init(found)) if found.target.len() == MAX_URI_BYTES)
    );
    let text = text.replace("http://a.example/x", "http://a.example/xx");
    assert_eq!(PeerRequest::parse(&request(&text)).err(), Some(MessageError::Malformed("BAMQP-Target")));
}

#[test]
fn init_names_the_field_that_is_wrong() {
    use MessageError::*;
    let text = write(|head| init("http://a.example/f").write(head, &HOST));
    for (old, new, expected) in [
        ("BAMQP-Session", "X", Missing("BAMQP-Session")),
        (HEX, "xyz", Malformed("BAMQP-Session")),
        (HEX, "000102030405060708090A0B0C0D0EFF", Malformed("BAMQP-Session")),
        ("BAMQP-Size: 12345\r\n", "", Missing("BAMQP-Size")),
        ("12345", "0", Malformed("BAMQP-Size")),
        ("12345", "+5", Malformed("BAMQP-Size")),
        ("12345", "18446744073709551615", Malformed("BAMQP-Size")),
        ("BAMQP-Hops: 0", "BAMQP-Hops: 256", Malformed("BAMQP-Hops")),
        ("BAMQP-Hops: 0", "BAMQP-Hops: 0\r\nBAMQP-Hops: 0", Malformed("BAMQP-Hops")),
        ("http://a", "https://a", Malformed("BAMQP-Target")),
        ("http://a", "http://u:p@a", Malformed("BAMQP-Target")),
        ("\"v\"", "W/\"v\"", Validator(NoValidator::Weak)),
        ("ETag", "X", Validator(NoValidator::Missing)),
        ("POST", "GET", Unknown),
        ("/INIT", "/init", Unknown),
    ] {
        let changed = text.replacen(old, new, 1);
        assert_eq!(PeerRequest::parse(&request(&changed)).err(), Some(expected), "{old} -> {new}");
    }
}

#[test]
fn feedback() {
    let part = |number, verdict| Part {
        router: Fingerprint([number; 16]),
        verdict,
        bytes: 1_000_000 * u64::from(number),
        timeouts: u32::from(number),
    };
    let verdicts = [Verdict::Clean, Verdict::Protocol, Verdict::Lie, Verdict::Mismatch];
    let parts = (1..).zip(verdicts).map(|(number, verdict)| part(number, verdict)).collect();
    let feedback = Feedback { session: SESSION, parts };
    let text = write(|head| feedback.write(head, &HOST));
    let first = format!("BAMQP-Outcome: {};verdict=clean;bytes=1000000;timeouts=1, 0202", "01".repeat(16));
    assert!(text.starts_with("POST /FEEDBACK HTTP/1.1\r\n") && text.contains(&first), "{text}");
    match PeerRequest::parse(&request(&text)) {
        Ok(PeerRequest::Feedback(found)) => assert_eq!(found, feedback),
        other => panic!("{other:?}"),
    }
    let later = text.replacen("timeouts=1", "timeouts=1;mood=good", 1);
    assert!(PeerRequest::parse(&request(&later)).is_ok());
    for (old, new) in [
        ("verdict=clean;", ""),
        ("=clean", "=cleaner"),
        ("bytes=1000000", "bytes=-1"),
        ("timeouts=1", "timeouts=4294967296"),
        ("timeouts=1", "timeouts"),
        (", 0202", ", , 0202"),
        ("0202", "2"),
    ] {
        let changed = text.replacen(old, new, 1);
        let found = PeerRequest::parse(&request(&changed)).err();
        assert_eq!(found, Some(MessageError::Malformed("BAMQP-Outcome")), "{old} -> {new}");
    }
    let parts = (0..MAX_LANES as u8).map(|number| part(number, Verdict::Mismatch)).collect();
    write(|head| Feedback { session: SESSION, parts }.write(head, &HOST));
}

#[test]
fn accept_and_decline() {
    let accept =
        Accept { target: Uri::parse("http://a.example/f").unwrap(), bandwidth: 5_000_000, hold: 131_072 };
    let text = write(|head| accept.write(head));
    assert_eq!(Answer::parse(&response(&text)), Ok(Answer::Accept(accept)));
    for (reason, status) in [
        (DeclineReason::Busy, 503),
        (DeclineReason::Untrusted, 403),
        (DeclineReason::DuplicateSession, 409),
        (DeclineReason::RefusedTarget, 403),
        (DeclineReason::Quota, 429),
    ] {
        let decline = Decline { reason, retry_after: 30 };
        let text = write(|head| decline.write(head));
        assert!(text.starts_with(&format!("HTTP/1.1 {status} ")));
        assert!(text.contains(&format!("BAMQP-Reason: {reason}\r\nRetry-After: 30\r\n")));
        assert_eq!(Answer::parse(&response(&text)), Ok(Answer::Decline(decline)));
    }
    let busy = "HTTP/1.1 403 X\r\nBAMQP-Reason: busy\r\n\r\n";
    assert_eq!(Answer::parse(&response(busy)), Err(MessageError::Status(403)));
    let other = "HTTP/1.1 502 X\r\n\r\n";
    assert_eq!(Answer::parse(&response(other)), Err(MessageError::Status(502)));
}

#[test]
fn chunk() {
    let chunk = Chunk { session: SESSION, range: 16_384..32_768 };
    let text = write(|head| chunk.write(head, &HOST));
    assert_eq!(
        text,
        format!(
            "GET /CHUNK HTTP/1.1\r\nHost: {HOST}\r\nBAMQP-Session: {HEX}\r\nRange: bytes=16384-32767\r\n\r\n"
        )
    );
    assert!(matches!(PeerRequest::parse(&request(&text)), Ok(PeerRequest::Chunk(found)) if found == chunk));
    for range in ["bytes=16384-", "bytes=-5", "bytes=0-1,3-4", "bytes=0-18446744073709551615", "0-1"] {
        let text = text.replace("bytes=16384-32767", range);
        assert_eq!(
            PeerRequest::parse(&request(&text)).err(),
            Some(MessageError::Malformed("Range")),
            "{range}"
        );
    }
    let text = text.replace("Range", "X");
    assert_eq!(PeerRequest::parse(&request(&text)).err(), Some(MessageError::Missing("Range")));
}

#[test]
fn the_answer_to_a_chunk_passes_the_check_of_every_206() {
    let answer = ChunkAnswer { range: 5..10, total: 11, validator: &tag(), previous: None };
    let text = write(|head| answer.write(head));
    assert_eq!(check_partial(&response(&text), &(5..10), 11, &tag()), Ok(()));
}

#[test]
fn drop_both_ways() {
    let drop = Drop { session: SESSION, reason: DropReason::OriginStatus(429), retry_after: 60 };
    let text = write(|head| drop.write_request(head, &HOST));
    assert!(matches!(PeerRequest::parse(&request(&text)), Ok(PeerRequest::Drop(found)) if found == drop));
    let text = write(|head| drop.write_answer(head));
    assert_eq!(
        text,
        format!(
            "HTTP/1.1 503 Dropped\r\nBAMQP-Session: {HEX}\r\nBAMQP-Reason: origin-status-429\r\nRetry-After: 60\r\n\
            Content-Length: 0\r\n\r\n"
        )
    );
    assert_eq!(Drop::of_answer(&response(&text)), Ok(drop));
    let strange = text.replace("origin-status-429", "weather");
    assert_eq!(Drop::of_answer(&response(&strange)), Err(MessageError::Malformed("BAMQP-Reason")));
    assert_eq!(Drop::of_answer(&response("HTTP/1.1 500 X\r\n\r\n")), Err(MessageError::Status(500)));
}

#[test]
fn a_summary_joins_what_touches() {
    let mut summary = Summary::new();
    assert_eq!(Summary::parse(&response(&write(|head| summary.write(head)))).unwrap(), summary);
    for range in [0..10, 10..20, 30..40, 5..5, 0..10] {
        summary.add(range);
    }
    assert_eq!(summary.served(), [0..20, 30..40, 0..10]);
    let text = write(|head| summary.write(head));
    assert!(text.contains("BAMQP-Served: bytes=0-19, 30-39, 0-9\r\nBAMQP-Bytes: 40\r\n"));
    assert_eq!(Summary::parse(&response(&text)), Ok(summary));
    for wrong in ["bytes=0-", "bytes=", "0-19", "bytes=5-4"] {
        let text = text.replace("bytes=0-19, 30-39, 0-9", wrong);
        assert_eq!(Summary::parse(&response(&text)), Err(MessageError::Malformed("BAMQP-Served")), "{wrong}");
    }
}

#[test]
fn a_summary_of_the_largest_numbers_fits_into_a_head() {
    let mut summary = Summary::new();
    for n in 0..MAX_SERVED_RANGES as u64 + 5 {
        summary.add(u64::MAX - 1000 + 2 * n..u64::MAX - 999 + 2 * n);
    }
    assert_eq!((summary.served().len(), summary.bytes), (MAX_SERVED_RANGES, MAX_SERVED_RANGES as u64 + 5));
    assert_eq!(Summary::parse(&response(&write(|head| summary.write(head)))), Ok(summary));
}

#[test]
fn reasons_are_tokens() {
    for reason in [
        DropReason::Done,
        DropReason::ClientGone,
        DropReason::TooSlow,
        DropReason::TimedOut,
        DropReason::Fault,
        DropReason::Ended,
        DropReason::OriginStatus(404),
        DropReason::OriginChanged,
        DropReason::OriginUnreachable,
        DropReason::OriginUnusable,
        DropReason::UnknownSession,
        DropReason::BadRange,
        DropReason::Busy,
        DropReason::Shutdown,
    ] {
        assert_eq!(reason.to_string().parse(), Ok(reason));
    }
    for text in [
        "",
        "don",
        "donee",
        "Done",
        "origin-status-",
        "origin-status-99",
        "origin-status-1000",
        "origin-status-+200",
    ] {
        assert!(text.parse::<DropReason>().is_err(), "{text}");
    }
    assert!("busy ".parse::<DeclineReason>().is_err());
}

#[test]
fn identifiers() {
    assert_eq!(SESSION.to_string(), HEX);
    assert_eq!(HEX.parse(), Ok(SESSION));
    for text in ["", &HEX[1..], "000102030405060708090a0b0c0d0efg", "éé0102030405060708090a0b0c0d0eff"] {
        assert_eq!(text.parse::<SessionId>(), Err(NotHex), "{text}");
    }
}

proptest! {
    #[test]
    fn identifiers_are_read_as_written(bytes in any::<[u8; 16]>()) {
        prop_assert_eq!(SessionId(bytes).to_string().parse(), Ok(SessionId(bytes)));
    }

    #[test]
    fn reading_never_panics(
        line in "(GET|POST) /(INIT|CHUNK|DROP|HELLO)",
        fields in prop::collection::vec(
            "(BAMQP-(Session|Target|Size|Hops|First-(Key|Recipient|Host|Challenge|Signature)|Recipient|Reason|Served|Bytes|Quality|Key|Bandwidth|Load|Hold)|Range|ETag|Retry-After): [ -~]{0,40}",
            0..12,
        ),
    ) {
        let fields = fields.join("\r\n");
        let _ = PeerRequest::parse(&request(&format!("{line} HTTP/1.1\r\n{fields}\r\n\r\n")));
        let text = format!("HTTP/1.1 200 X\r\n{fields}\r\n\r\n");
        let _ = (Hello::parse(&response(&text)), Answer::parse(&response(&text)), Summary::parse(&response(&text)));
        let _ = Drop::of_answer(&response(&text.replace("200 X", "503 X")));
    }
}
