//! Strong validators.

use bamqp_core::http::response::Response;
use bamqp_core::http::validator::{NoValidator, Validator, ValidatorKind};
use bamqp_core::limits::MAX_VALIDATOR_BYTES;
use proptest::prelude::*;

fn of(fields: &str) -> Result<Validator, NoValidator> {
    let head = format!("HTTP/1.1 200 OK\r\n{fields}\r\n");
    Validator::of(&Response::parse(head.as_bytes()).unwrap().unwrap().0.fields)
}

const MODIFIED: &str = "Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT\r\n";

#[test]
fn a_strong_tag_outlives_its_head() {
    let validator = of("ETag: \"a\\b,c\"\r\n").unwrap();
    assert_eq!((validator.kind(), validator.field_name()), (ValidatorKind::ETag, "ETag"));
    assert_eq!(validator.value(), b"\"a\\b,c\"");
    assert_eq!(validator, Validator::entity_tag(b"\"a\\b,c\"").unwrap());
    assert_ne!(validator, Validator::entity_tag(b"\"a\\B,c\"").unwrap());
}

#[test]
fn tags_that_prove_nothing() {
    assert_eq!(of("ETag: W/\"a\"\r\n"), Err(NoValidator::Weak));
    for tag in ["a", "\"", "\"a", "w/\"a\"", "\"a\"b\"", "\"a b\"", ""] {
        assert_eq!(of(&format!("ETag: {tag}\r\n")), Err(NoValidator::Malformed), "{tag}");
    }
    assert_eq!(of("ETag: \"a\"\r\nETag: \"a\"\r\n"), Err(NoValidator::Ambiguous));
    assert_eq!(of(""), Err(NoValidator::Missing));
    let tag = |length| format!("ETag: \"{}\"\r\n", "x".repeat(length - 2));
    assert!(of(&tag(MAX_VALIDATOR_BYTES)).is_ok());
    assert_eq!(of(&tag(MAX_VALIDATOR_BYTES + 1)), Err(NoValidator::TooLong));
}

/// RFC 9110 section 8.8.2.2.
#[test]
fn a_date_counts_if_the_file_was_a_second_old() {
    let with = |date: &str| of(&format!("{MODIFIED}Date: {date}\r\n"));
    let validator = with("Sun, 06 Nov 1994 08:49:38 GMT").unwrap();
    assert_eq!((validator.kind(), validator.field_name()), (ValidatorKind::LastModified, "Last-Modified"));
    assert_eq!(validator.value(), b"Sun, 06 Nov 1994 08:49:37 GMT");
    assert_eq!(with("Sun, 06 Nov 1994 08:49:37 GMT"), Err(NoValidator::TooFresh));
    assert_eq!(with("Sun, 06 Nov 1994 08:49:36 GMT"), Err(NoValidator::TooFresh));
    assert_eq!(with("yesterday"), Err(NoValidator::NoDate));
    assert_eq!(of(MODIFIED), Err(NoValidator::NoDate));
    assert_eq!(
        of("Last-Modified: 0\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n"),
        Err(NoValidator::Malformed)
    );
}

#[test]
fn a_date_does_not_count_beside_a_weak_tag() {
    let both = format!("ETag: W/\"a\"\r\n{MODIFIED}Date: Mon, 07 Nov 1994 08:49:37 GMT\r\n");
    assert_eq!(of(&both), Err(NoValidator::Weak));
}

proptest! {
    #[test]
    fn never_panics(value in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Validator::entity_tag(&value);
        let _ = Validator::last_modified(&value);
    }
}
