//! The peer side over real sockets on loopback, with a scripted origin.

#[allow(dead_code)] // tests of peers use it, too
mod bed;
mod delegation;
mod household;
mod log;
mod origin;

use std::time::Duration;

use bamqp_core::limits::MAX_CHUNK_BYTES;
use bamqp_core::message::Fingerprint;
use bamqp_core::message::feedback::{Feedback, Part, Verdict};
use bamqp_core::message::hello::Hello;
use bamqp_core::message::reason::{DeclineReason, DropReason};
use bamqp_core::trust::{Conduct, Violation};
use bamqp_router::serve::HOLD_BYTES;

use bed::{A, B, Bed, Line, STRANGER, eventually, id};
use origin::{Origin, Reply, bytes};

const TOTAL: u64 = 3_000_000;

/// A session on a new connection, ready for chunks.
fn session(bed: &Bed, origin: &Origin, number: u8) -> Line {
    let mut line = bed.connect(A);
    line.init(id(number), &origin.uri(), TOTAL).unwrap();
    line
}

#[test]
fn hello_tells_strangers_the_key_alone_and_peers_how_it_is() {
    let origin = Origin::start(TOTAL, |_, _| Reply::Range);
    let bed = Bed::start(&[origin.address.port()]);
    let hello = |line: &mut Line| line.hello().unwrap().with(|response| Hello::parse(response).unwrap());
    assert_eq!(
        hello(&mut bed.connect(STRANGER)),
        Hello { key: bed.key, details: None, challenge: None, takes_part: false }
    );
    let mut line = bed.connect(A);
    let details = hello(&mut line).details.unwrap();
    assert_eq!((details.bandwidth, details.load, details.rtt.as_micros()), (20_000_000, 0, 0));
    line.init(id(1), &origin.uri(), TOTAL).unwrap();
    line.ask(id(1), 0..1000);
    assert_eq!(line.chunk(0..1000, TOTAL).unwrap(), bytes(0..1000));
    let details = hello(&mut line).details.unwrap();
    assert_eq!(details.load, 1);
    assert!(details.rtt.as_micros() > 0, "measured by the chunk");
}

#[test]
fn init_is_accepted_with_what_can_be_promised() {
    let origin = Origin::start(TOTAL, |_, _| Reply::Range);
    let bed = Bed::start(&[origin.address.port()]);
    let mut line = bed.connect(A);
    assert_eq!(line.init(id(1), &origin.uri(), TOTAL), Ok((20_000_000, HOLD_BYTES)));
    assert_eq!(line.init(id(2), &origin.uri(), TOTAL), Ok((10_000_000, HOLD_BYTES)), "two share the link");
    // The connection to the origin is made before the first chunk is asked for.
    eventually("no connection to the origin", || origin.connections() > 0);
    assert_eq!(origin.requests(), []);
    let mut other = bed.connect(A);
    assert!(other.init(id(1), &origin.uri(), TOTAL).is_ok(), "again on another connection");
    assert_eq!(bed.serve.report().sessions, 2);
}

#[test]
fn init_is_declined_with_the_reason() {
    let origin = Origin::start(TOTAL, |_, _| Reply::Range);
    let port = origin.address.port();
    let bed = Bed::start(&[80, port]);
    let mut line = bed.connect(A);
    for target in [
        format!("http://127.0.21.1:{port}/"), // a private address that is not allowed
        format!("http://10.1.2.3:{port}/"),   // another one
        "http://192.0.2.1:81/".into(),        // a port that is not allowed
        format!("http://{}/", bed.address),   // its own listener, though in an allowed range
        format!("http://[::1]:{port}/"),      // its own address
        format!("http://0x7f000001:{port}/"), // however it is written
        format!("http://localhost:{port}/"),  // what a name stands for counts
        "http://no-such-host.invalid/".into(), // no address
    ] {
        assert_eq!(line.init(id(1), &target, TOTAL), Err(DeclineReason::RefusedTarget), "{target}");
    }
    assert_eq!(bed.serve.report().sessions, 0);
    line.init(id(1), &origin.uri(), TOTAL).unwrap();
    let other = format!("{}2", origin.uri());
    assert_eq!(line.init(id(1), &other, TOTAL), Err(DeclineReason::DuplicateSession));
    assert_eq!(line.init(id(1), &origin.uri(), TOTAL + 1), Err(DeclineReason::DuplicateSession));
    let declined = bed.connect(B).init(id(1), &origin.uri(), TOTAL);
    assert_eq!(declined, Err(DeclineReason::DuplicateSession));
    assert_eq!(origin.requests(), []);
}

#[test]
fn redirects_are_not_followed() {
    let elsewhere = Origin::start(TOTAL, |_, _| Reply::Range);
    let to = elsewhere.uri();
    let origin = Origin::start(TOTAL, move |_, _| {
        Reply::Raw(format!("HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n"))
    });
    let bed = Bed::start(&[origin.address.port(), elsewhere.address.port()]);
    let mut line = session(&bed, &origin, 1);
    line.ask(id(1), 0..100);
    assert_eq!(line.chunk(0..100, TOTAL), Err(DropReason::OriginStatus(302)));
    assert_eq!(elsewhere.requests(), []);
}

#[test]
fn a_coordinator_that_is_not_trusted_is_not_worked_for() {
    let origin = Origin::start(TOTAL, |_, _| Reply::Range);
    let bed = Bed::start(&[origin.address.port()]);
    let (mut a, mut b) = (bed.connect(A), bed.connect(B));
    assert!(a.init(id(1), &origin.uri(), TOTAL).is_ok(), "a newcomer");
    let lie = Conduct { requests: 1, violation: Some(Violation::Lie), ..Conduct::default() };
    bed.trust.add(a.me.fingerprint(), &lie, None);
    assert_eq!(a.init(id(2), &origin.uri(), TOTAL), Err(DeclineReason::Untrusted));
    assert!(b.init(id(3), &origin.uri(), TOTAL).is_ok(), "nobody else suffers for it");
    let mismatch = Conduct { requests: 1, mismatch: Some(1), ..Conduct::default() };
    bed.trust.add(b.me.fingerprint(), &mismatch, None);
    assert_eq!(b.init(id(4), &origin.uri(), TOTAL), Err(DeclineReason::Untrusted));
    assert_eq!(bed.trust.forget("b").as_deref(), Some("b"));
    assert!(b.init(id(4), &origin.uri(), TOTAL).is_ok(), "the owner's word");
}

#[test]
fn whom_a_coordinator_accuses_is_looked_at_more_closely_and_trusted_as_before() {
    let origin = Origin::start(TOTAL, |_, _| Reply::Range);
    let bed = Bed::start(&[origin.address.port()]);
    let (mut line, accused) = (session(&bed, &origin, 1), bed.connect(B).me.fingerprint());
    let before = bed.trust.standing(accused);
    let part = |router, verdict| Part { router, verdict, bytes: 0, timeouts: 0 };
    let of_nobody = part(Fingerprint([9; 16]), Verdict::Lie);
    for (verdict, expected) in [(Verdict::Clean, false), (Verdict::Mismatch, false), (Verdict::Lie, true)] {
        let parts = [of_nobody, part(accused, verdict)].into_iter().collect();
        line.send_in(id(1), |head| Feedback { session: id(1), parts }.write(head, &"peer"));
        assert_eq!(line.answer().unwrap().status(), 200);
        let is_accused = bed.trust.views().iter().any(|view| view.alert.is_some());
        assert_eq!(is_accused, expected, "{verdict}");
    }
    assert_eq!(bed.trust.standing(accused).to_string(), before.to_string());
    line.send_raw(b"POST /FEEDBACK HTTP/1.1\r\nBAMQP-Session: 01010101010101010101010101010101\r\n");
    line.send_raw(format!("BAMQP-Outcome: {}\r\n\r\n", part(accused, Verdict::Lie)).as_bytes());
    assert_eq!(line.head().unwrap().status(), 403, "not signed");
}

#[test]
fn no_more_sessions_than_allowed_until_one_ends() {
    let origin = Origin::start(TOTAL, |_, _| Reply::Range);
    let bed = Bed::start(&[origin.address.port()]);
    let mut lines: Vec<Line> = (1..=3).map(|number| session(&bed, &origin, number)).collect();
    let mut line = bed.connect(B);
    assert_eq!(line.init(id(4), &origin.uri(), TOTAL), Err(DeclineReason::Busy));
    lines[1].end(id(2)).unwrap();
    assert!(line.init(id(4), &origin.uri(), TOTAL).is_ok());
    // A connection that is gone gives its place to somebody else's session.
    drop(lines.remove(0));
    let mut fifth = bed.connect(B);
    eventually("no place", || fifth.init(id(5), &origin.uri(), TOTAL).is_ok());
}

#[test]
fn chunks_are_pipelined_to_the_origin_and_come_in_order() {
    // The second answer waits until five requests are there.
    let script = |_, request| if request == 1 { Reply::RangeAfter(5) } else { Reply::Range };
    let origin = Origin::start(TOTAL, script);
    let bed = Bed::start(&[origin.address.port()]);
    let mut line = session(&bed, &origin, 1);
    let ranges = [0..16_384, 100_000..365_536, 365_536..365_537, 7..8, 2_900_000..TOTAL, 400_000..1_400_000];
    ranges.iter().for_each(|range| line.ask(id(1), range.clone()));
    for range in ranges.clone() {
        assert!(line.chunk(range.clone(), TOTAL).unwrap() == bytes(range.clone()), "{range:?}");
    }
    let asked: Vec<_> = origin.requests().into_iter().map(|(_, range)| range).collect();
    assert_eq!(asked, ranges);
    assert_eq!(origin.connections(), 1);
    let head = &origin.heads()[0];
    for field in ["User-Agent: test/1", "If-Range: \"v\"", "Accept-Encoding: identity", "Via: 1.1 bamqp-test"]
    {
        assert!(head.contains(field), "{head}");
    }
}

#[test]
fn more_chunks_than_may_be_outstanding_wait_their_turn() {
    let origin = Origin::start(TOTAL, |_, _| Reply::Range);
    let bed = Bed::start(&[origin.address.port()]);
    let mut line = session(&bed, &origin, 1);
    let ranges: Vec<_> = (0..100u64).map(|i| i * 20_000..i * 20_000 + 10_000).collect();
    ranges.iter().for_each(|range| line.ask(id(1), range.clone()));
    let hello_after = line.hello(); // its answer comes last: this reads the first chunk's head instead
    assert_eq!(hello_after.unwrap().status(), 206);
    assert!(line.body(10_000) == bytes(0..10_000));
    for range in &ranges[1..] {
        assert!(line.chunk(range.clone(), TOTAL).unwrap() == bytes(range.clone()), "{range:?}");
    }
    assert_eq!(line.head().unwrap().status(), 200, "HELLO");
}

#[test]
fn an_origin_without_keep_alive_gets_a_connection_for_each_chunk() {
    let origin = Origin::start(TOTAL, |_, _| Reply::RangeAndClose);
    let bed = Bed::start(&[origin.address.port()]);
    let mut line = session(&bed, &origin, 1);
    let ranges = [0..50_000, 50_000..60_000, 60_000..200_000];
    ranges.iter().for_each(|range| line.ask(id(1), range.clone()));
    for range in ranges {
        assert!(line.chunk(range.clone(), TOTAL).unwrap() == bytes(range));
    }
    assert_eq!(origin.connections(), 3);
}

#[test]
fn an_origin_that_closes_between_pipelined_answers_is_asked_again() {
    let script = |connection, request| match (connection, request) {
        (0, 1) => Reply::RangeAndVanish,
        _ => Reply::Range,
    };
    let origin = Origin::start(TOTAL, script);
    let bed = Bed::start(&[origin.address.port()]);
    let mut line = session(&bed, &origin, 1);
    let ranges: Vec<_> = (0..6u64).map(|i| i * 30_000..(i + 1) * 30_000).collect();
    ranges.iter().for_each(|range| line.ask(id(1), range.clone()));
    for range in ranges {
        assert!(line.chunk(range.clone(), TOTAL).unwrap() == bytes(range.clone()), "{range:?}");
    }
    assert_eq!(origin.connections(), 2);
}

#[test]
fn an_idle_connection_that_the_origin_closed_is_made_anew() {
    let origin = Origin::start(TOTAL, |_, _| Reply::Range);
    let bed = Bed::start(&[origin.address.port()]);
    let mut line = session(&bed, &origin, 1);
    for round in 1..3 {
        eventually("no connection", || origin.connections() == round);
        // Before the first chunk, and between two: the peer must not trip over it.
        origin.close_connections();
        std::thread::sleep(Duration::from_millis(20));
        line.ask(id(1), 0..40_000);
        assert!(line.chunk(0..40_000, TOTAL).unwrap() == bytes(0..40_000));
        assert_eq!(origin.connections(), round + 1);
    }
}

#[test]
fn what_the_origin_refuses_is_told_and_the_connection_goes_on() {
    let head = |status: &str, more: &str| {
        Reply::Raw(format!("HTTP/1.1 {status}\r\n{more}Content-Length: 0\r\n\r\n"))
    };
    let script = move |connection, _| match connection {
        0 => head("403 Forbidden", ""),
        1 => head("200 OK", "ETag: \"w\"\r\n"),
        2 => Reply::Raw("HTTP/1.1 200 OK\r\nETag: \"v\"\r\nContent-Length: 3000000\r\n\r\n".into()),
        3 => head("206 Partial Content", "ETag: \"w\"\r\nContent-Range: bytes 0-99/3000000\r\n"),
        4 => head("206 Partial Content", "ETag: \"v\"\r\nContent-Range: bytes 0-98/3000000\r\n"),
        5 => head("206 Partial Content", "ETag: \"v\"\r\nContent-Range: bytes 0-99/4000000\r\n"),
        6 => head("429 Too Many Requests", ""),
        7 => Reply::Raw("SMTP ready\r\n\r\n".into()),
        8 => Reply::Vanish,
        _ => Reply::Range,
    };
    let origin = Origin::start(TOTAL, script);
    let bed = Bed::start(&[origin.address.port()]);
    let mut line = session(&bed, &origin, 1);
    for reason in [
        DropReason::OriginStatus(403),
        DropReason::OriginChanged,
        DropReason::OriginStatus(200),
        DropReason::OriginChanged,
        DropReason::OriginUnusable,
        DropReason::OriginChanged,
        DropReason::OriginStatus(429),
        DropReason::OriginUnusable,
        DropReason::OriginUnreachable,
    ] {
        line.ask(id(1), 0..100);
        assert_eq!(line.chunk(0..100, TOTAL), Err(reason));
    }
    line.ask(id(1), 0..100);
    assert_eq!(line.chunk(0..100, TOTAL), Ok(bytes(0..100)));
    assert_eq!(line.end(id(1)).unwrap().bytes, 100);
}

#[test]
fn chunks_that_wait_behind_a_refused_one_are_refused_with_it() {
    let script = |connection, request| match (connection, request) {
        (0, 2) => Reply::Raw("HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n".into()),
        // All are there before anything is refused.
        (0, 1) => Reply::RangeAfter(4),
        _ => Reply::Range,
    };
    let origin = Origin::start(TOTAL, script);
    let bed = Bed::start(&[origin.address.port()]);
    let mut line = session(&bed, &origin, 1);
    (0..4).for_each(|i| line.ask(id(1), i * 100..i * 100 + 100));
    assert_eq!(line.chunk(0..100, TOTAL), Ok(bytes(0..100)));
    assert_eq!(line.chunk(100..200, TOTAL), Ok(bytes(100..200)));
    assert_eq!(line.chunk(200..300, TOTAL), Err(DropReason::OriginStatus(503)));
    assert_eq!(line.chunk(300..400, TOTAL), Err(DropReason::OriginStatus(503)));
    line.ask(id(1), 200..300);
    assert_eq!(line.chunk(200..300, TOTAL), Ok(bytes(200..300)));
}

#[test]
fn an_origin_that_is_not_there_is_unreachable() {
    let port = std::net::TcpListener::bind("127.0.20.1:0").unwrap().local_addr().unwrap().port();
    let bed = Bed::start(&[port]);
    let mut line = bed.connect(A);
    line.init(id(1), &format!("http://127.0.20.1:{port}/"), TOTAL).unwrap();
    for _ in 0..2 {
        line.ask(id(1), 0..100);
        assert_eq!(line.chunk(0..100, TOTAL), Err(DropReason::OriginUnreachable));
    }
    assert_eq!(line.hello().unwrap().status(), 200);
}

#[test]
fn an_origin_that_dies_mid_body_ends_the_connection_and_nothing_is_padded() {
    let script = |connection, _| if connection == 0 { Reply::CutAfter(30_000) } else { Reply::Range };
    let origin = Origin::start(TOTAL, script);
    let bed = Bed::start(&[origin.address.port()]);
    let mut line = session(&bed, &origin, 1);
    line.ask(id(1), 0..100_000);
    line.ask(id(1), 100_000..200_000);
    assert!(line.chunk(0..100_000, TOTAL).unwrap() == bytes(0..30_000));
    assert!(line.is_closed());
    // The session outlives its connection, and what was cut short is counted as far as it came.
    let mut line = bed.connect(A);
    line.ask(id(1), 30_000..100_000);
    assert!(line.chunk(30_000..100_000, TOTAL).unwrap() == bytes(30_000..100_000));
    let summary = line.end(id(1)).unwrap();
    let ranges: Vec<_> = summary.served().iter().map(|range| (range.start, range.end)).collect();
    assert_eq!((&ranges[..], summary.bytes), (&[(0, 100_000)][..], 100_000));
}

#[test]
fn a_coordinator_that_does_not_read_is_not_read_for() {
    const LARGE: u64 = 64 << 20;
    let origin = Origin::start(LARGE, |_, _| Reply::Range);
    let bed = Bed::start(&[origin.address.port()]);
    let mut line = bed.connect(A);
    line.init(id(1), &origin.uri(), LARGE).unwrap();
    let parts = [0..100, 100..LARGE / 2, LARGE / 2..LARGE - 5, LARGE - 5..LARGE];
    line.ask(id(1), parts[0].clone());
    line.ask(id(1), parts[1].clone());
    let mut before = 0;
    eventually("it never stands still", || {
        std::thread::sleep(Duration::from_millis(200));
        std::mem::replace(&mut before, origin.sent()) == origin.sent() && origin.requests().len() == 2
    });
    // The origin's bytes stay there, but for what fits into socket buffers …
    assert!(before < LARGE / 4, "{before} bytes");
    // … while further requests go on to it.
    line.ask(id(1), parts[2].clone());
    line.ask(id(1), parts[3].clone());
    eventually("the requests are held back", || origin.requests().len() == 4);
    assert!(origin.sent() < LARGE / 4);
    for range in parts {
        assert!(line.chunk(range.clone(), LARGE).unwrap() == bytes(range));
    }
    assert_eq!(origin.connections(), 1);
}

#[test]
fn two_connections_of_a_session_are_served_at_the_same_time() {
    let origin = Origin::start(TOTAL, |_, _| Reply::Range);
    let bed = Bed::start(&[origin.address.port()]);
    let mut main = session(&bed, &origin, 1);
    let mut spare = bed.connect(A);
    main.ask(id(1), 0..2_000_000); // more than is held while nobody reads it
    spare.ask(id(1), 2_000_000..2_016_384); // without an INIT of its own
    assert!(spare.chunk(2_000_000..2_016_384, TOTAL).unwrap() == bytes(2_000_000..2_016_384));
    assert!(main.chunk(0..2_000_000, TOTAL).unwrap() == bytes(0..2_000_000));
    let summary = spare.end(id(1)).unwrap();
    assert_eq!(summary.bytes, 2_016_384);
    main.ask(id(1), 0..10);
    assert_eq!(main.chunk(0..10, TOTAL), Err(DropReason::UnknownSession));
    assert_eq!(bed.serve.report().sessions, 0);
}

#[test]
fn a_connection_takes_one_session_after_the_other() {
    let origin = Origin::start(TOTAL, |_, _| Reply::Range);
    let bed = Bed::start(&[origin.address.port()]);
    let mut line = bed.connect(A);
    line.init(id(1), &origin.uri(), TOTAL).unwrap();
    line.init(id(2), &origin.uri(), TOTAL).unwrap();
    line.ask(id(1), 0..100_000);
    line.ask(id(2), 5..100_000);
    line.ask(id(1), 9..100_000);
    for start in [0, 5, 9] {
        assert!(line.chunk(start..100_000, TOTAL).unwrap() == bytes(start..100_000));
    }
}

#[test]
fn unknown_sessions_and_bad_ranges_are_refused_and_the_connection_goes_on() {
    let origin = Origin::start(TOTAL, |_, _| Reply::Range);
    let bed = Bed::start(&[origin.address.port()]);
    let mut line = session(&bed, &origin, 1);
    line.ask(id(2), 0..100);
    assert_eq!(line.chunk(0..100, TOTAL), Err(DropReason::UnknownSession));
    line.ask(id(1), TOTAL - 100..TOTAL + 1);
    assert_eq!(line.chunk(0..1, TOTAL), Err(DropReason::BadRange));
    assert_eq!(line.end(id(2)), Err(DropReason::UnknownSession));
    line.init(id(3), &origin.uri(), 1 << 50).unwrap();
    line.ask(id(3), 0..MAX_CHUNK_BYTES + 1);
    assert_eq!(line.chunk(0..1, TOTAL), Err(DropReason::BadRange));
    line.ask(id(1), TOTAL - 100..TOTAL);
    assert_eq!(line.chunk(TOTAL - 100..TOTAL, TOTAL), Ok(bytes(TOTAL - 100..TOTAL)));
}

#[test]
fn the_summary_says_what_was_served() {
    let origin = Origin::start(TOTAL, |_, _| Reply::Range);
    let bed = Bed::start(&[origin.address.port()]);
    let mut line = session(&bed, &origin, 1);
    for range in [0..1000, 1000..3000, 5000..6000, 0..500] {
        line.ask(id(1), range.clone());
        line.chunk(range, TOTAL).unwrap();
    }
    let summary = line.end(id(1)).unwrap();
    assert_eq!(summary.served(), &[0..3000, 5000..6000, 0..500]);
    assert_eq!(summary.bytes, 4500);
    assert_eq!(line.end(id(1)), Err(DropReason::UnknownSession));
    assert_eq!(line.hello().unwrap().status(), 200, "the connection stays");
}

#[test]
fn strangers_have_two_connections_and_five_seconds() {
    let bed = Bed::start(&[80]);
    let mut first = bed.connect(STRANGER);
    let mut second = bed.connect("127.0.10.98");
    assert_eq!(first.hello().unwrap().status(), 200);
    assert_eq!(second.hello().unwrap().status(), 200);
    assert!(bed.connect(STRANGER).is_closed());
    assert_eq!(bed.serve.report().turned_away, 1);
    assert_eq!(bed.connect(A).hello().unwrap().status(), 200, "a peer still gets in");
    // Asking goes on for as long as it may, and no longer.
    drop(second);
    eventually("the stranger stays", || {
        first.send(|head| bamqp_core::message::hello::write_request(head, &"peer"));
        first.is_closed()
    });
    eventually("no room for another", || {
        let mut line = bed.connect(STRANGER);
        line.send(|head| bamqp_core::message::hello::write_request(head, &"peer"));
        !line.is_closed()
    });
}

#[test]
fn a_peer_has_a_limit_of_connections_too() {
    let bed = Bed::with(&[80], |config| config.max_peer_sessions = Some(1));
    let mut lines: Vec<Line> = (0..4).map(|_| bed.connect(A)).collect();
    lines.iter_mut().for_each(|line| assert_eq!(line.hello().unwrap().status(), 200));
    assert!(bed.connect(A).is_closed());
    assert_eq!(bed.connect(B).hello().unwrap().status(), 200);
}

#[test]
fn what_is_no_message_is_answered_and_ends_the_connection() {
    let bed = Bed::start(&[80]);
    let long = format!("GET /HELLO HTTP/1.1\r\nX: {}", "x".repeat(10_000));
    let cases: [(&str, u16); 9] = [
        ("HELLO\r\n\r\n", 400),
        ("GET /HELLO HTTP/1.1\nHost: x\n\n", 400),
        ("GET /secret HTTP/1.1\r\n\r\n", 404),
        ("PUT /HELLO HTTP/1.1\r\n\r\n", 404),
        ("GET /HELLO HTTP/1.1\r\nContent-Length: 5\r\n\r\n12345", 400),
        ("GET /HELLO HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        ("POST /INIT HTTP/1.1\r\nContent-Length: 0\r\n\r\n", 400),
        ("GET /CHUNK HTTP/1.1\r\nRange: bytes=5-4\r\nBAMQP-Session: 0\r\n\r\n", 400),
        (&long, 400),
    ];
    for (count, (request, status)) in (1..).zip(cases) {
        let mut line = bed.connect(A);
        line.send_raw(request.as_bytes());
        assert_eq!(line.head().unwrap().status(), status, "{request}");
        assert!(line.is_closed(), "{request}");
        assert_eq!(bed.serve.report().malformed, count);
    }
}

#[test]
fn what_was_asked_before_a_malformed_request_is_answered_first() {
    let origin = Origin::start(TOTAL, |_, _| Reply::Range);
    let bed = Bed::start(&[origin.address.port()]);
    let mut line = session(&bed, &origin, 1);
    line.ask(id(1), 0..500_000);
    line.send_raw(b"nonsense\r\n\r\n");
    assert!(line.chunk(0..500_000, TOTAL).unwrap() == bytes(0..500_000));
    assert_eq!(line.head().unwrap().status(), 400);
    assert!(line.is_closed());
}

#[test]
fn connection_close_is_obeyed_after_the_answer() {
    let bed = Bed::start(&[80]);
    let mut line = bed.connect(A);
    line.send_raw(b"GET /HELLO HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\nGET /HELLO HTTP/1.1\r\n\r\n");
    let head = line.head().unwrap();
    assert_eq!(head.status(), 200, "{}", head.text());
    assert!(line.is_closed());
}

#[test]
fn stopping_ends_a_transfer_at_once() {
    let origin =
        Origin::start(TOTAL, |_, request| if request == 0 { Reply::Range } else { Reply::RangeAfter(99) });
    let bed = Bed::start(&[origin.address.port()]);
    // One that the coordinator does not read, one that waits for the origin, one that is idle.
    let mut blocked = session(&bed, &origin, 1);
    blocked.ask(id(1), 0..TOTAL);
    let mut waiting = session(&bed, &origin, 2);
    waiting.ask(id(2), 0..10);
    waiting.ask(id(2), 10..20);
    assert!(waiting.chunk(0..10, TOTAL).is_ok());
    let mut idle = bed.connect(A);
    idle.hello().unwrap();
    bed.live.stop();
    assert!(waiting.is_closed() && idle.is_closed());
}
