//! `Range` and `Content-Range`.

use bamqp_core::http::range::{ContentRange, RangeRequest, RangeSpec, RangeValue};
use proptest::prelude::*;

#[test]
fn single_ranges() {
    for (value, expected) in [
        (&b"bytes=0-499"[..], RangeSpec::Between(0, 499)),
        (b"Bytes=500-999", RangeSpec::Between(500, 999)),
        (b"bytes=-500", RangeSpec::Last(500)),
        (b"bytes=9500-", RangeSpec::From(9500)),
        (b"bytes= 7-7 ,", RangeSpec::Between(7, 7)),
        (b"bytes=0-99999999999999999999999", RangeSpec::Between(0, u64::MAX)),
    ] {
        assert_eq!(RangeRequest::parse(value), RangeRequest::One(expected), "{}", value.escape_ascii());
    }
}

#[test]
fn several_ranges_and_malformed_ones() {
    assert_eq!(RangeRequest::parse(b"bytes=0-0,-1"), RangeRequest::Several);
    assert_eq!(RangeRequest::parse(b"bytes= 0-999, 4500-5499, -1000"), RangeRequest::Several);
    for value in [
        &b"bytes=5-4"[..],
        b"bytes=a-b",
        b"bytes=+1-2",
        b"bytes=1-+2",
        b"bytes=-",
        b"bytes=",
        b"bytes",
        b"bytes 0-1",
        b"bytes=0-1, x",
        b"bytes=0-1-2",
        b"bytes=--1",
        b"bytes=0x1-2",
        b"bytes=99999999999999999999999-",
        b"items=0-1",
        b"",
    ] {
        assert_eq!(RangeRequest::parse(value), RangeRequest::Whole, "{}", value.escape_ascii());
    }
}

/// RFC 9110 section 14.1.2: examples for a representation of 10,000 bytes.
#[test]
fn ranges_of_a_file() {
    assert_eq!(RangeSpec::Between(0, 499).of(10_000), Some(0..500));
    assert_eq!(RangeSpec::Between(500, 999).of(10_000), Some(500..1000));
    assert_eq!(RangeSpec::Last(500).of(10_000), Some(9500..10_000));
    assert_eq!(RangeSpec::From(9500).of(10_000), Some(9500..10_000));
    assert_eq!(RangeSpec::Between(9999, u64::MAX).of(10_000), Some(9999..10_000));
    assert_eq!(RangeSpec::Last(20_000).of(10_000), Some(0..10_000));
    assert_eq!(RangeSpec::From(10_000).of(10_000), None);
    assert_eq!(RangeSpec::Last(0).of(10_000), None);
    assert_eq!(RangeSpec::Last(1).of(0), None);
}

#[test]
fn content_ranges() {
    let bytes = |range, total| Some(ContentRange::Bytes(range, total));
    assert_eq!(ContentRange::parse(b"bytes 42-1233/1234"), bytes(42..1234, Some(1234)));
    assert_eq!(ContentRange::parse(b"bytes 42-1233/*"), bytes(42..1234, None));
    assert_eq!(ContentRange::parse(b"bytes */1234"), Some(ContentRange::Unsatisfied(1234)));
    for value in [
        &b"bytes 5-4/10"[..],
        b"bytes 0-10/10",
        b"bytes 0-+9/10",
        b"bytes 0-9/+10",
        b"bytes 0-18446744073709551615/*",
        b"bytes=0-9/10",
        b"bytes 0-9",
        b"bytes */*",
        b"bytes  0-9/10",
        b"items 0-9/10",
        b"bytes 0-9/10/11",
    ] {
        assert_eq!(ContentRange::parse(value), None, "{}", value.escape_ascii());
    }
}

proptest! {
    #[test]
    fn parsing_never_panics(text in "(bytes[= ])?[-0-9*/, +]{0,50}") {
        let _ = RangeRequest::parse(text.as_bytes());
        let _ = ContentRange::parse(text.as_bytes());
    }

    #[test]
    fn what_is_displayed_is_parsed_to_the_same(
        start in 0..u64::MAX - 1, length in 1..u64::MAX, more in any::<u64>(), known in any::<bool>(),
    ) {
        let end = start.saturating_add(length).min(u64::MAX - 1);
        let total = known.then_some(end.saturating_add(more));
        let range = ContentRange::Bytes(start..end, total);
        prop_assert_eq!(ContentRange::parse(range.to_string().as_bytes()), Some(range));
        let asked = RangeRequest::parse(RangeValue(start..end).to_string().as_bytes());
        prop_assert_eq!(asked, RangeRequest::One(RangeSpec::Between(start, end - 1)));
    }
}
