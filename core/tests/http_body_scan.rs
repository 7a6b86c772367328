//! Where bodies end.

use bamqp_core::http::body::BodyLength;
use bamqp_core::http::body_scan::{BodyError, BodyScanner};
use bamqp_core::limits::{MAX_CHUNK_LINE_BYTES, MAX_TRAILER_BYTES};
use proptest::prelude::*;

fn chunked(bytes: &[u8]) -> Result<(usize, bool), BodyError> {
    let mut scanner = BodyScanner::new(BodyLength::Chunked);
    let used = scanner.scan(bytes)?;
    Ok((used, scanner.is_done()))
}

#[test]
fn a_body_of_known_length() {
    let mut scanner = BodyScanner::new(BodyLength::Exact(10));
    assert_eq!(scanner.scan(b"abcd"), Ok(4));
    assert_eq!((scanner.exact_ahead(), scanner.may_close()), (6, false));
    scanner.passed(5);
    assert_eq!(scanner.scan(b"xyz"), Ok(1));
    assert!(scanner.is_done() && scanner.may_close());
    assert_eq!(scanner.scan(b"GET"), Ok(0));
    assert!(BodyScanner::new(BodyLength::None).is_done());
    assert!(BodyScanner::new(BodyLength::Exact(0)).is_done());
}

#[test]
fn a_body_that_ends_with_the_connection() {
    let mut scanner = BodyScanner::new(BodyLength::UntilClose);
    assert_eq!(scanner.scan(b"abcd"), Ok(4));
    scanner.passed(u64::MAX);
    assert_eq!((scanner.exact_ahead(), scanner.may_close(), scanner.is_done()), (u64::MAX, true, false));
}

#[test]
fn chunked_bodies() {
    for (bytes, used) in [
        (&b"0\r\n\r\nrest"[..], 5),
        (b"5\r\nhello\r\n0\r\n\r\nrest", 15),
        (b"A  \r\n0123456789\r\n00\r\n\r\nrest", 23),
        (b"1;a=b;c=\"d e\"\r\nx\r\n0;e\r\n\r\nrest", 25),
        (b"1 ; a\r\nx\r\n0\r\nDigest: a, b\r\nX:\r\n\r\nrest", 33),
        (b"1\r\n\n\r\n0\r\n\r\nrest", 11),
    ] {
        assert_eq!(chunked(bytes), Ok((used, true)), "{}", bytes.escape_ascii());
        let shorter = &bytes[..used - 1];
        assert_eq!(chunked(shorter), Ok((used - 1, false)), "{}", bytes.escape_ascii());
    }
}

#[test]
fn broken_chunks() {
    use BodyError::*;
    for (bytes, expected) in [
        (&b"\r\n"[..], Size),
        (b"+5\r\n", Size),
        (b"-5\r\n", Size),
        (b"0x5\r\n", Size),
        (b" 5\r\n", Size),
        (b"5_0\r\n", Size),
        (b"5 5\r\n", Size),
        (b";a\r\n", Size),
        (b"10000000000000000\r\n", Size),
        (b"5\nhello", LineEnd),
        (b"5\rhello", LineEnd),
        (b"5;a\nhello", LineEnd),
        (b"5;a\r;\n", LineEnd),
        (b"5;a\0\r\n", Extension),
        (b"1\r\nxy", ChunkEnd),
        (b"1\r\nx\n0", ChunkEnd),
        (b"1\r\nx\r0", ChunkEnd),
        (b"0\r\n\n", LineEnd),
        (b"0\r\n\rX", LineEnd),
        (b"0\r\nA: b\n\r\n", LineEnd),
        (b"0\r\nA b: c\r\n\r\n", Trailer),
        (b"0\r\n folded\r\n\r\n", Trailer),
        (b"0\r\nGET / HTTP/1.1\r\n\r\n", Trailer),
        (b"0\r\nA\r\n\r\n", Trailer),
        (b"0\r\nA: \0\r\n\r\n", Trailer),
    ] {
        assert_eq!(chunked(bytes), Err(expected), "{}", bytes.escape_ascii());
    }
    assert_eq!(chunked(b"ffffffffffffffff\r\n"), Ok((18, false)));
}

#[test]
fn lines_and_trailers_are_limited() {
    let line = |length: usize| format!("{}0\r\n\r\n", "0".repeat(length - 3));
    assert!(chunked(line(MAX_CHUNK_LINE_BYTES).as_bytes()).is_ok());
    assert_eq!(chunked(line(MAX_CHUNK_LINE_BYTES + 1).as_bytes()), Err(BodyError::TooLong));
    let trailers = |length: usize| format!("0\r\nA:{}\r\n\r\n", "x".repeat(length - 6));
    assert!(chunked(trailers(MAX_TRAILER_BYTES).as_bytes()).is_ok());
    assert_eq!(chunked(trailers(MAX_TRAILER_BYTES + 1).as_bytes()), Err(BodyError::TooLong));
}

/// A chunked body with its content and something after it.
fn body() -> impl Strategy<Value = (Vec<u8>, Vec<u8>, usize)> {
    let chunk = (prop::collection::vec(any::<u8>(), 1..40), "[ \t]{0,2}(;[a-z=\"]{1,5})?", any::<bool>());
    let chunks = prop::collection::vec(chunk, 0..6);
    let trailers = prop::collection::vec("[A-Za-z-]{1,6}:[ -~]{0,10}\r\n", 0..3);
    (chunks, trailers, prop::collection::vec(any::<u8>(), 0..10)).prop_map(|(chunks, trailers, after)| {
        let (mut wire, mut content) = (Vec::new(), Vec::new());
        for (data, extension, upper) in chunks {
            let size = if upper { format!("{:X}", data.len()) } else { format!("{:x}", data.len()) };
            wire.extend(format!("{size}{extension}\r\n").into_bytes());
            wire.extend(&data);
            wire.extend(b"\r\n");
            content.extend(data);
        }
        wire.extend(format!("0\r\n{}\r\n", trailers.concat()).into_bytes());
        let length = wire.len();
        wire.extend(after);
        (wire, content, length)
    })
}

proptest! {
    #[test]
    fn any_split_finds_the_same_end((wire, content, length) in body(), cuts in prop::collection::vec(1usize..20, 1..40)) {
        let mut scanner = BodyScanner::new(BodyLength::Chunked);
        let (mut at, mut found) = (0, Vec::<u8>::new());
        let mut cuts = cuts.iter().cycle();
        while !scanner.is_done() {
            prop_assert!(!scanner.may_close());
            let end = (at + cuts.next().unwrap()).min(wire.len());
            let piece = scanner.piece(&wire[at..end]).unwrap();
            prop_assert!(piece.len > 0);
            if piece.content {
                found.extend(&wire[at..at + piece.len]);
            }
            at += piece.len;
        }
        prop_assert_eq!(at, length);
        prop_assert_eq!(found, content);
    }

    #[test]
    fn what_is_ahead_may_pass_unseen((wire, content, length) in body(), step in 1u64..30) {
        let mut scanner = BodyScanner::new(BodyLength::Chunked);
        let (mut at, mut unseen) = (0, Vec::<u8>::new());
        while !scanner.is_done() {
            let ahead = scanner.exact_ahead().min(step) as usize;
            if ahead > 0 {
                unseen.extend(&wire[at..at + ahead]);
                scanner.passed(ahead as u64);
                at += ahead;
            } else {
                at += scanner.scan(&wire[at..at + 1]).unwrap();
            }
        }
        prop_assert_eq!(at, length);
        prop_assert_eq!(unseen, content);
    }

    #[test]
    fn errors_do_not_depend_on_the_split(bytes in "[0-9a-f;: x\r\n]{0,60}", cut in 0usize..60) {
        let bytes = bytes.as_bytes();
        let (first, second) = bytes.split_at(cut.min(bytes.len()));
        let mut scanner = BodyScanner::new(BodyLength::Chunked);
        let split = scanner.scan(first).and_then(|a| Ok((a + scanner.scan(second)?, scanner.is_done())));
        prop_assert_eq!(split, chunked(bytes));
    }

    #[test]
    fn never_panics(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
        let _ = chunked(&bytes);
    }
}
