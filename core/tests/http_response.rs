//! Response heads.

use bamqp_core::http::response::Response;
use bamqp_core::http::{HeadError, Version};
use proptest::prelude::*;

#[test]
fn a_head_is_taken_apart() {
    let bytes = b"HTTP/1.1 206 Partial Content\r\nContent-Length: 3\r\n\r\nabc";
    let (response, length) = Response::parse(bytes).unwrap().unwrap();
    assert_eq!(&bytes[length..], b"abc");
    assert_eq!(
        (response.version, response.status, response.reason),
        (Version::Http11, 206, "Partial Content")
    );
    assert_eq!(response.fields.get("content-length"), Some(&b"3"[..]));
    assert!(!response.is_interim());
}

#[test]
fn what_old_servers_send_is_taken() {
    let (response, _) = Response::parse(b"HTTP/1.0 200\r\nA : 1\nB: 2\n\n").unwrap().unwrap();
    assert_eq!((response.version, response.status, response.reason), (Version::Http10, 200, ""));
    assert_eq!(response.fields.text("A"), Some("1"));
    assert_eq!(response.fields.text("B"), Some("2"));
    let (response, _) =
        Response::parse(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\n").unwrap().unwrap();
    assert!(response.is_interim());
}

#[test]
fn broken_heads_are_refused() {
    for (bytes, expected) in [
        (&b"HTTP/1.1 20 OK\r\n\r\n"[..], HeadError::StatusLine),
        (b"HTTP/1.1 099 OK\r\n\r\n", HeadError::StatusLine),
        (b"HTTP/1.1 +20 OK\r\n\r\n", HeadError::StatusLine),
        (b"HTTP/2 200 OK\r\n\r\n", HeadError::Version),
        (b"ICY 200 OK\r\n\r\n", HeadError::Version),
        (b"HTTP/1.1 200 OK\r\nA: 1\r\n 2\r\n\r\n", HeadError::Folded),
        (b"HTTP/1.1 200 OK\r\nA: 1\r2\r\n\r\n", HeadError::BareCr),
        (b"HTTP/1.1 200 OK\r\nA: 1\x002\r\n\r\n", HeadError::FieldValue),
    ] {
        assert_eq!(Response::parse(bytes).err(), Some(expected), "{}", bytes.escape_ascii());
    }
}

proptest! {
    #[test]
    fn parsing_never_panics(
        start in "(HTTP/1\\.[01] [0-9]{3})?",
        bytes in prop::collection::vec(any::<u8>(), 0..100),
    ) {
        let all = [start.as_bytes(), &bytes].concat();
        let _ = Response::parse(&all);
    }
}
