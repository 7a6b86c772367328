//! Which answers may be used as the bytes that were asked for.

use bamqp_core::http::partial::{PartialError, check_partial, exact_length};
use bamqp_core::http::response::Response;
use bamqp_core::http::validator::Validator;

/// Checks an answer to a request for bytes 100 to 199 of a file of 1000 bytes under `"v"`.
fn check_under(validator: &Validator, status: u16, fields: &[&str]) -> Result<(), PartialError> {
    let head = format!("HTTP/1.1 {status} X\r\n{}\r\n\r\n", fields.join("\r\n"));
    let (response, _) = Response::parse(head.as_bytes()).unwrap().unwrap();
    check_partial(&response, &(100..200), 1000, validator)
}

fn check(status: u16, fields: &[&str]) -> Result<(), PartialError> {
    check_under(&Validator::entity_tag(b"\"v\"").unwrap(), status, fields)
}

const RANGE: &str = "Content-Range: bytes 100-199/1000";
const LENGTH: &str = "Content-Length: 100";
const TAG: &str = "ETag: \"v\"";

#[test]
fn exactly_the_asked_bytes_of_the_same_file() {
    assert_eq!(check(206, &[RANGE, LENGTH, TAG]), Ok(()));
    assert_eq!(check(206, &[RANGE, LENGTH, TAG, "Content-Encoding: identity"]), Ok(()));
    let date = Validator::last_modified(b"Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
    let same = "Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT";
    let other = "Last-Modified: Sun, 06 Nov 1994 08:49:38 GMT";
    assert_eq!(check_under(&date, 206, &[RANGE, LENGTH, same]), Ok(()));
    assert_eq!(check_under(&date, 206, &[RANGE, LENGTH, other]), Err(PartialError::Changed));
    assert_eq!(check_under(&date, 206, &[RANGE, LENGTH, TAG]), Err(PartialError::Unproven));
}

#[test]
fn another_file() {
    for (status, fields) in [
        (206, &[RANGE, LENGTH, "ETag: \"w\""][..]),
        (206, &[RANGE, LENGTH, "ETag: W/\"w\""]),
        (206, &["Content-Range: bytes 100-199/1001", LENGTH, TAG]),
        (200, &["Content-Length: 1000", "ETag: \"w\""]),
        (200, &["Content-Length: 1001", TAG]),
        (200, &["Content-Length: 1001"]),
        (416, &["Content-Range: bytes */50"]),
    ] {
        assert_eq!(check(status, fields), Err(PartialError::Changed), "{status} {fields:?}");
    }
}

#[test]
fn the_whole_file_or_something_else() {
    assert_eq!(check(200, &["Content-Length: 1000", TAG]), Err(PartialError::NotPartial(200)));
    assert_eq!(check(200, &["Transfer-Encoding: chunked"]), Err(PartialError::NotPartial(200)));
    let zipped = ["Content-Length: 700", "Content-Encoding: gzip", TAG];
    assert_eq!(check(200, &zipped), Err(PartialError::NotPartial(200)));
    assert_eq!(check(416, &["Content-Range: bytes */1000"]), Err(PartialError::NotPartial(416)));
    for status in [302, 403, 429, 503] {
        assert_eq!(check(status, &[RANGE, LENGTH, TAG]), Err(PartialError::NotPartial(status)));
    }
}

#[test]
fn answers_that_can_not_be_used() {
    use PartialError::*;
    for (fields, expected) in [
        (&[RANGE, LENGTH][..], Unproven),
        (&[RANGE, LENGTH, "ETag: W/\"v\""], Unproven),
        (&[RANGE, LENGTH, TAG, TAG], Unproven),
        (&[LENGTH, TAG], WrongRange),
        (&["Content-Range: bytes 100-198/1000", "Content-Length: 99", TAG], WrongRange),
        (&["Content-Range: bytes 99-199/1000", "Content-Length: 101", TAG], WrongRange),
        (&["Content-Range: bytes 100-199/*", LENGTH, TAG], WrongRange),
        (&[RANGE, RANGE, LENGTH, TAG], WrongRange),
        (&[RANGE, TAG], WrongLength),
        (&[RANGE, "Content-Length: 99", TAG], WrongLength),
        (&[RANGE, "Content-Length: +100", TAG], WrongLength),
        (&[RANGE, LENGTH, "Content-Length: 99", TAG], WrongLength),
        (&[RANGE, LENGTH, TAG, "Content-Encoding: gzip"], Encoded),
        (&[RANGE, LENGTH, TAG, "Content-Encoding: identity, gzip"], Encoded),
        (&[RANGE, TAG, "Transfer-Encoding: chunked"], Encoded),
        (&[LENGTH, TAG, "Content-Type: Multipart/ByteRanges; boundary=x"], Multipart),
    ] {
        assert_eq!(check(206, fields), Err(expected), "{fields:?}");
    }
}

#[test]
fn one_length_only() {
    let of = |fields: &str| {
        let head = format!("HTTP/1.1 200 OK\r\n{fields}\r\n");
        exact_length(&Response::parse(head.as_bytes()).unwrap().unwrap().0.fields)
    };
    assert_eq!(of("Content-Length: 5\r\nContent-Length: 5, 5\r\n"), Some(5));
    assert_eq!(of("Content-Length: 5, 6\r\n"), None);
    assert_eq!(of("Content-Length: 5, x\r\n"), None);
    assert_eq!(of(""), None);
}
