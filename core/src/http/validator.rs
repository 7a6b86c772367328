//! The strong validator that proves two ranges to be of the same file. Not responsible for comparing whole
//! responses ([`super::partial`]).

use core::fmt;

use heapless::Vec;

use super::date;
use super::fields::Fields;
use crate::limits::MAX_VALIDATOR_BYTES;

/// Which field a validator came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValidatorKind {
    /// A strong entity tag (RFC 9110 section 8.8.3).
    ETag,
    /// A date that the rule of RFC 9110 section 8.8.2.2 made strong.
    LastModified,
}

/// A strong validator, kept in a buffer of its own of [`MAX_VALIDATOR_BYTES`] so that it outlives the head.
/// Two are equal if kind and bytes are: the strong comparison of RFC 9110 section 8.8.3.2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Validator {
    kind: ValidatorKind,
    value: Vec<u8, MAX_VALIDATOR_BYTES>,
}

impl Validator {
    /// The strong validator of the response with these fields.
    ///
    /// An entity tag counts alone: beside a weak one a date is not used either (RFC 9110 section 13.1.5 allows
    /// a date in `If-Range` only where there is no entity tag).
    ///
    /// # Errors
    /// Why there is none.
    pub fn of(fields: &Fields<'_>) -> Result<Validator, NoValidator> {
        let tag = fields.only("ETag").map_err(|_| NoValidator::Ambiguous)?;
        if let Some(tag) = tag {
            return Validator::entity_tag(tag);
        }
        let modified = fields.only("Last-Modified").map_err(|_| NoValidator::Ambiguous)?;
        let modified = modified.ok_or(NoValidator::Missing)?;
        let changed = date::parse(modified).ok_or(NoValidator::Malformed)?;
        let date = fields.only("Date").map_err(|_| NoValidator::Ambiguous)?;
        let sent = date.and_then(date::parse).ok_or(NoValidator::NoDate)?;
        // RFC 9110 section 8.8.2.2: strong if the file was at least a second old when it was sent, because
        // then a second change within the same second would show. Both dates are the origin's.
        if sent.checked_sub(changed).is_none_or(|age| age < 1) {
            return Err(NoValidator::TooFresh);
        }
        Validator::last_modified(modified)
    }

    /// The validator in a message between routers: `ETag` or `Last-Modified`, which the sender has checked
    /// by [`Validator::of`].
    ///
    /// # Errors
    /// Why there is none.
    pub fn of_message(fields: &Fields<'_>) -> Result<Validator, NoValidator> {
        let tag = fields.only("ETag").map_err(|_| NoValidator::Ambiguous)?;
        let modified = fields.only("Last-Modified").map_err(|_| NoValidator::Ambiguous)?;
        match (tag, modified) {
            (Some(tag), None) => Validator::entity_tag(tag),
            (None, Some(modified)) => Validator::last_modified(modified),
            (None, None) => Err(NoValidator::Missing),
            (Some(_), Some(_)) => Err(NoValidator::Ambiguous),
        }
    }

    /// A strong entity tag with its quotes.
    ///
    /// # Errors
    /// [`NoValidator::Weak`], [`NoValidator::Malformed`] or [`NoValidator::TooLong`].
    pub fn entity_tag(tag: &[u8]) -> Result<Validator, NoValidator> {
        if tag.starts_with(b"W/") {
            return Err(NoValidator::Weak);
        }
        let inner = tag.strip_prefix(b"\"").and_then(|t| t.strip_suffix(b"\""));
        let inner = inner.ok_or(NoValidator::Malformed)?;
        if inner.iter().any(|b| *b <= b' ' || *b == b'"' || *b == 0x7f) {
            return Err(NoValidator::Malformed);
        }
        Validator::keep(ValidatorKind::ETag, tag)
    }

    /// A date that is known to be strong.
    ///
    /// # Errors
    /// [`NoValidator::Malformed`].
    pub fn last_modified(value: &[u8]) -> Result<Validator, NoValidator> {
        date::parse(value).ok_or(NoValidator::Malformed)?;
        Validator::keep(ValidatorKind::LastModified, value)
    }

    fn keep(kind: ValidatorKind, value: &[u8]) -> Result<Validator, NoValidator> {
        let value = Vec::from_slice(value).map_err(|_| NoValidator::TooLong)?;
        Ok(Validator { kind, value })
    }

    /// Which field it came in and goes out in.
    pub fn kind(&self) -> ValidatorKind {
        self.kind
    }

    /// The name of that field.
    pub fn field_name(&self) -> &'static str {
        match self.kind {
            ValidatorKind::ETag => "ETag",
            ValidatorKind::LastModified => "Last-Modified",
        }
    }

    /// The value as it was sent: for `ETag`, `Last-Modified` and `If-Range`.
    pub fn value(&self) -> &[u8] {
        &self.value
    }
}

/// Why a response has no strong validator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoValidator {
    /// Neither `ETag` nor `Last-Modified`.
    Missing,
    /// A weak entity tag: semantically equal is not equal byte by byte.
    Weak,
    /// Neither an entity tag nor an IMF-fixdate.
    Malformed,
    /// Longer than [`MAX_VALIDATOR_BYTES`].
    TooLong,
    /// Several of them.
    Ambiguous,
    /// `Last-Modified` without a `Date` to compare it with.
    NoDate,
    /// Modified less than a second before it was sent.
    TooFresh,
}

impl fmt::Display for NoValidator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            NoValidator::Missing => "no ETag and no Last-Modified",
            NoValidator::Weak => "the ETag is weak",
            NoValidator::Malformed => "the validator is malformed",
            NoValidator::TooLong => "the validator is too long",
            NoValidator::Ambiguous => "several validators",
            NoValidator::NoDate => "Last-Modified without Date",
            NoValidator::TooFresh => "modified less than a second ago",
        })
    }
}

impl core::error::Error for NoValidator {}
