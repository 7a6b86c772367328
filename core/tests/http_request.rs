//! Request heads.

use bamqp_core::http::request::Request;
use bamqp_core::http::{HeadError, Version};
use bamqp_core::limits::MAX_FIELDS;
use proptest::prelude::*;

fn error(bytes: &[u8]) -> HeadError {
    match Request::parse(bytes) {
        Err(error) => error,
        other => panic!("{}: {other:?}", bytes.escape_ascii()),
    }
}

#[test]
fn a_head_is_taken_apart() {
    let bytes =
        b"GET http://a.example/x?y HTTP/1.1\r\nHost: a.example\r\nX-Empty:\r\nx-b: \t1 2 \r\n\r\nbody";
    let (request, length) = Request::parse(bytes).unwrap().unwrap();
    assert_eq!(&bytes[length..], b"body");
    assert_eq!((request.method, request.target), ("GET", "http://a.example/x?y"));
    assert_eq!(request.version, Version::Http11);
    let fields: Vec<_> = request.fields.iter().map(|f| (f.name, f.value)).collect();
    assert_eq!(fields, [("Host", &b"a.example"[..]), ("X-Empty", b""), ("x-b", b"1 2")]);
}

#[test]
fn empty_lines_before_the_head_are_skipped_and_counted() {
    let bytes = b"\r\n\r\nGET / HTTP/1.0\r\n\r\n";
    let (request, length) = Request::parse(bytes).unwrap().unwrap();
    assert_eq!((request.version, length), (Version::Http10, bytes.len()));
}

#[test]
fn every_beginning_of_a_head_is_incomplete() {
    let bytes = b"GET / HTTP/1.1\r\nHost: a\r\nAccept: */*\r\n\r\n";
    for length in 0..bytes.len() {
        assert!(matches!(Request::parse(&bytes[..length]), Ok(None)), "{length}");
    }
}

#[test]
fn what_two_parsers_could_read_differently_is_refused() {
    for (bytes, expected) in [
        (&b"GET /\r\n\r\n"[..], HeadError::RequestLine),
        (b"GET  / HTTP/1.1\r\n\r\n", HeadError::RequestLine),
        (b"G\0T / HTTP/1.1\r\n\r\n", HeadError::RequestLine),
        (b"GET /\x01 HTTP/1.1\r\n\r\n", HeadError::RequestLine),
        (b"GET / HTTP/2.0\r\n\r\n", HeadError::Version),
        (b"GET / HTTP/1.2\r\n\r\n", HeadError::Version),
        (b"GET / http/1.1\r\n\r\n", HeadError::Version),
        (b"GET / HTTP/1.1\r\nA: 1\r\n folded\r\n\r\n", HeadError::Folded),
        (b"GET / HTTP/1.1\r\n A: 1\r\n\r\n", HeadError::Folded),
        (b"GET / HTTP/1.1\r\nA: 1\r\n\tfolded: x\r\n\r\n", HeadError::Folded),
        (b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length : 5\r\n\r\n", HeadError::SpaceBeforeColon),
        (b"GET / HTTP/1.1\r\nA\t: 5\r\n\r\n", HeadError::SpaceBeforeColon),
        (b"GET / HTTP/1.1\r\nA b: 5\r\n\r\n", HeadError::FieldName),
        (b"GET / HTTP/1.1\r\nA\xff: 5\r\n\r\n", HeadError::FieldName),
        (b"GET / HTTP/1.1\r\n: 5\r\n\r\n", HeadError::FieldName),
        (b"GET / HTTP/1.1\r\nnothing\r\n\r\n", HeadError::FieldName),
        (b"GET / HTTP/1.1\r\nA: x\0y\r\n\r\n", HeadError::FieldValue),
        (b"GET / HTTP/1.1\r\nA: x\x7fy\r\n\r\n", HeadError::FieldValue),
        (b"GET / HTTP/1.1\r\nA: x\ry\r\n\r\n", HeadError::BareCr),
        (b"GET / HTTP/1.1\r\nA: x\r\n\ry", HeadError::BareCr),
        (b"\rGET / HTTP/1.1\r\n\r\n", HeadError::BareCr),
        (b"GET / HTTP/1.1\nA: x\r\n\r\n", HeadError::BareLf),
        (b"GET / HTTP/1.1\r\nA: x\n\r\n", HeadError::BareLf),
        (b"GET / HTTP/1.1\r\nA: x\r\n\n", HeadError::BareLf),
        (b"\nGET / HTTP/1.1\r\n\r\n", HeadError::BareLf),
    ] {
        assert_eq!(error(bytes), expected, "{}", bytes.escape_ascii());
    }
}

#[test]
fn fields_are_limited() {
    let head = |count| format!("GET / HTTP/1.1\r\n{}\r\n", "A: 1\r\n".repeat(count));
    let full = head(MAX_FIELDS);
    assert_eq!(Request::parse(full.as_bytes()).unwrap().unwrap().0.fields.len(), MAX_FIELDS);
    assert_eq!(error(head(MAX_FIELDS + 1).as_bytes()), HeadError::TooManyFields);
}

proptest! {
    #[test]
    fn parsing_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Request::parse(&bytes);
    }

    #[test]
    fn parsing_something_like_a_head_never_panics_nor_lets_line_ends_through(
        lines in prop::collection::vec("[A-Za-z \t\r:\n\\x00]{0,12}(\r\n|\n|\r)", 0..8),
    ) {
        let bytes = format!("GET / HTTP/1.1\r\n{}\r\n", lines.concat());
        if let Ok(Some((request, length))) = Request::parse(bytes.as_bytes()) {
            prop_assert!(bytes[..length].ends_with("\r\n\r\n"));
            for field in request.fields.iter() {
                prop_assert!(!field.name.is_empty() && !field.name.contains(char::is_whitespace));
                prop_assert!(!field.value.iter().any(|b| b"\r\n\0".contains(b)));
            }
        }
    }
}
