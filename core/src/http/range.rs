//! Byte ranges: what a client asks (`Range`) and what an answer says that it is (`Content-Range`), RFC 9110
//! section 14. Not responsible for whether an answer may be used ([`super::partial`]).
//!
//! Ranges in the code are half-open `Range<u64>`; on the wire both ends are inclusive.

use core::fmt;
use core::ops::Range;

use super::decimal;
use super::fields::{Fields, members};
use crate::verify::Places;

/// One range of a `Range` field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RangeSpec {
    /// `a-b`, both inclusive, a <= b; a `b` beyond u64 is its end.
    Between(u64, u64),
    /// `a-`.
    From(u64),
    /// `-n`: the last n bytes.
    Last(u64),
}

impl RangeSpec {
    /// Parses `a-b`, `a-` or `-n`; `None` if it is malformed (RFC 9110 section 14.1.2).
    pub fn parse(text: &[u8]) -> Option<RangeSpec> {
        match split(text, b'-')? {
            (b"", count) => Some(RangeSpec::Last(decimal(count)?)),
            (first, b"") => Some(RangeSpec::From(decimal(first)?)),
            (first, last) => {
                let first = decimal(first)?;
                let digits = last.iter().all(u8::is_ascii_digit);
                let last = decimal(last).or(digits.then_some(u64::MAX))?;
                (first <= last).then_some(RangeSpec::Between(first, last))
            }
        }
    }

    /// Which bytes of a file of `total` bytes that is; `None` if it can't be satisfied (416).
    pub fn of(self, total: u64) -> Option<Range<u64>> {
        let range = match self {
            RangeSpec::Between(first, last) => first..last.saturating_add(1).min(total),
            RangeSpec::From(first) => first..total,
            RangeSpec::Last(count) => total.saturating_sub(count)..total,
        };
        (!range.is_empty()).then_some(range)
    }
}

/// What a client's `Range` field asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RangeRequest {
    /// The whole file: there is no such field, or it counts as absent because it is malformed or of another
    /// unit (RFC 9110 section 14.2).
    Whole,
    /// One range.
    One(RangeSpec),
    /// Several ranges, or several fields.
    Several,
}

impl RangeRequest {
    /// What the `Range` field of a request asks.
    pub fn of(fields: &Fields<'_>) -> RangeRequest {
        match fields.only("Range") {
            Err(_) => RangeRequest::Several,
            Ok(None) => RangeRequest::Whole,
            Ok(Some(value)) => RangeRequest::parse(value),
        }
    }

    /// What a value of the field asks.
    pub fn parse(value: &[u8]) -> RangeRequest {
        let Some(set) = after_unit(value, b'=') else { return RangeRequest::Whole };
        let mut specs = members(set).map(RangeSpec::parse);
        match (specs.next(), specs.next()) {
            (Some(Some(one)), None) => RangeRequest::One(one),
            (Some(Some(_)), Some(Some(_))) if specs.all(|spec| spec.is_some()) => RangeRequest::Several,
            _ => RangeRequest::Whole,
        }
    }
}

/// What follows `bytes` and `separator`; units are compared without case (RFC 9110 section 14.1).
fn after_unit(value: &[u8], separator: u8) -> Option<&[u8]> {
    let (unit, rest) = value.split_at_checked(5)?;
    match rest.split_first()? {
        (byte, rest) if *byte == separator && unit.eq_ignore_ascii_case(b"bytes") => Some(rest),
        _ => None,
    }
}

fn split(text: &[u8], separator: u8) -> Option<(&[u8], &[u8])> {
    let at = text.iter().position(|b| *b == separator)?;
    let (before, rest) = text.split_at_checked(at)?;
    Some((before, rest.get(1..)?))
}

/// The value of a `Content-Range` field in bytes; displayed as on the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ContentRange {
    /// `bytes a-b/total` or `bytes a-b/*`: the bytes that are in the message, and how many the file has.
    Bytes(Range<u64>, Option<u64>),
    /// `bytes */total`: with 416.
    Unsatisfied(u64),
}

impl ContentRange {
    /// Parses a value of the field; `None` if it is invalid (RFC 9110 section 14.4) or of another unit.
    pub fn parse(value: &[u8]) -> Option<ContentRange> {
        let (range, total) = split(after_unit(value, b' ')?, b'/')?;
        if range == b"*" {
            return decimal(total).map(ContentRange::Unsatisfied);
        }
        let (first, last) = split(range, b'-')?;
        let (first, end) = (decimal(first)?, decimal(last)?.checked_add(1)?);
        let total = if total == b"*" { None } else { Some(decimal(total)?) };
        if first >= end || total.is_some_and(|total| total < end) {
            return None;
        }
        Some(ContentRange::Bytes(first..end, total))
    }
}

impl fmt::Display for ContentRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ContentRange::Bytes(range, Some(total)) => write!(f, "bytes {}/{total}", Ends(range)),
            ContentRange::Bytes(range, None) => write!(f, "bytes {}/*", Ends(range)),
            ContentRange::Unsatisfied(total) => write!(f, "bytes */{total}"),
        }
    }
}

/// Displays a range that is not empty as the value of a `Range` field: `bytes=a-b`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeValue(pub Range<u64>);

impl fmt::Display for RangeValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "bytes={}", Ends(&self.0))
    }
}

/// What a `Range` field asks for on a lane; displayed as its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RangeSet<'a> {
    /// `bytes=a-b`; not empty.
    One(Range<u64>),
    /// `bytes=a-b,c-d`.
    Places(&'a Places),
}

impl fmt::Display for RangeSet<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RangeSet::One(range) => write!(f, "bytes={}", Ends(range)),
            RangeSet::Places(places) => {
                f.write_str("bytes")?;
                places.iter().enumerate().try_for_each(|(n, place)| {
                    write!(f, "{}{}", if n == 0 { '=' } else { ',' }, Ends(&place))
                })
            }
        }
    }
}

/// Displays a range as `a-b` with both ends inclusive.
pub(crate) struct Ends<'a>(pub(crate) &'a Range<u64>);

impl fmt::Display for Ends<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.0.start, self.0.end.saturating_sub(1))
    }
}
