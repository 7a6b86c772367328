//! How long bodies are.

use bamqp_core::http::body::{BodyLength, FramingError};
use bamqp_core::http::request::Request;
use bamqp_core::http::response::Response;

fn request(version: &str, fields: &str) -> Result<BodyLength, FramingError> {
    let head = format!("POST / {version}\r\n{fields}\r\n");
    BodyLength::of_request(&Request::parse(head.as_bytes()).unwrap().unwrap().0)
}

fn response(asked: &str, status: u16, fields: &str) -> Result<BodyLength, FramingError> {
    let head = format!("HTTP/1.1 {status} X\r\n{fields}\r\n");
    BodyLength::of_response(&Response::parse(head.as_bytes()).unwrap().unwrap().0, asked)
}

const CHUNKED: &str = "Transfer-Encoding: chunked\r\n";

#[test]
fn requests() {
    let of = |fields| request("HTTP/1.1", fields);
    assert_eq!(of(""), Ok(BodyLength::None));
    assert_eq!(of("Content-Length: 0\r\n"), Ok(BodyLength::Exact(0)));
    assert_eq!(of("Content-Length: 18446744073709551615\r\n"), Ok(BodyLength::Exact(u64::MAX)));
    assert_eq!(of("Content-Length: 5, 5\r\ncontent-length: 5\r\n"), Ok(BodyLength::Exact(5)));
    assert_eq!(of("transfer-encoding: Chunked\r\n"), Ok(BodyLength::Chunked));
    assert_eq!(request("HTTP/1.0", "Content-Length: 7\r\n"), Ok(BodyLength::Exact(7)));
}

/// The ways to make two recipients see two different ends of one message (RFC 9112 section 11.2).
#[test]
fn framings_that_are_refused() {
    use FramingError::*;
    for (fields, expected) in [
        ("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", LengthAndCoding),
        ("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", LengthAndCoding),
        ("Content-Length: 5\r\nContent-Length: 6\r\n", DifferingLengths),
        ("Content-Length: 5, 6\r\n", DifferingLengths),
        ("Content-Length: +5\r\n", Length),
        ("Content-Length: -5\r\n", Length),
        ("Content-Length: 0x5\r\n", Length),
        ("Content-Length: 5 5\r\n", Length),
        ("Content-Length: 5_0\r\n", Length),
        ("Content-Length:\r\n", Length),
        ("Content-Length: ,\r\n", Length),
        ("Content-Length: 18446744073709551616\r\n", Length),
        ("Transfer-Encoding: gzip, chunked\r\n", Coding),
        ("Transfer-Encoding: chunked, chunked\r\n", Coding),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", Coding),
        ("Transfer-Encoding: identity\r\n", Coding),
        ("Transfer-Encoding: xchunked\r\n", Coding),
        ("Transfer-Encoding: chunked;q=1\r\n", Coding),
        ("Transfer-Encoding: \"chunked\"\r\n", Coding),
        ("Transfer-Encoding:\r\n", Coding),
    ] {
        assert_eq!(request("HTTP/1.1", fields), Err(expected), "{fields}");
        assert_eq!(response("GET", 200, fields), Err(expected), "{fields}");
    }
    assert_eq!(request("HTTP/1.0", CHUNKED), Err(CodingInHttp10));
}

/// RFC 9112 section 6.3, rules 1 to 8.
#[test]
fn responses() {
    let length = "Content-Length: 9\r\n";
    assert_eq!(response("GET", 200, length), Ok(BodyLength::Exact(9)));
    assert_eq!(response("GET", 200, CHUNKED), Ok(BodyLength::Chunked));
    assert_eq!(response("GET", 200, ""), Ok(BodyLength::UntilClose));
    assert_eq!(response("HEAD", 200, length), Ok(BodyLength::None));
    assert_eq!(response("HEAD", 200, CHUNKED), Ok(BodyLength::None));
    assert_eq!(response("GET", 304, length), Ok(BodyLength::None));
    for status in [100, 101, 103, 199, 204] {
        assert_eq!(response("GET", status, length), Ok(BodyLength::None), "{status}");
    }
    assert_eq!(response("CONNECT", 200, CHUNKED), Ok(BodyLength::None));
    assert_eq!(response("CONNECT", 407, length), Ok(BodyLength::Exact(9)));
    assert!(!BodyLength::UntilClose.is_delimited() && BodyLength::Chunked.is_delimited());
}
