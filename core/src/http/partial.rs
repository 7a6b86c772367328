//! Whether a 206 may be used as the bytes that were asked for (DESIGN section 7, "What may be combined"; RFC
//! 9110 sections 15.3.7 and 15.3.7.3). Not responsible for the bytes themselves.

use core::fmt;
use core::ops::Range;

use super::decimal;
use super::fields::{Fields, members};
use super::multipart::is_multipart;
use super::range::ContentRange;
use super::response::Response;
use super::validator::{NoValidator, Validator};

/// Checks that `response` carries exactly the bytes `asked` of the file of `total` bytes under `validator`.
///
/// # Errors
/// Why it may not be used. Of several reasons, that the file changed comes first: it concerns all lanes.
pub fn check_partial(
    response: &Response<'_>,
    asked: &Range<u64>,
    total: u64,
    validator: &Validator,
) -> Result<(), PartialError> {
    let proof = usable(response, total, validator)?;
    let fields = &response.fields;
    let content_range = content_range(fields);
    if is_multipart(fields) {
        return Err(PartialError::Multipart);
    }
    match content_range {
        Some(ContentRange::Bytes(_, Some(other))) if other != total => return Err(PartialError::Changed),
        Some(ContentRange::Bytes(range, Some(_))) if range == *asked => {}
        _ => return Err(PartialError::WrongRange),
    }
    if exact_length(fields) != Some(asked.end.saturating_sub(asked.start)) {
        return Err(PartialError::WrongLength);
    }
    match proof {
        Proof::Same => Ok(()),
        Proof::Changed | Proof::None => Err(PartialError::Unproven),
    }
}

/// Checks what is common to all 206 of the file of `total` bytes: its `validator` is proven and nothing is encoded.
///
/// # Errors
/// Why it may not be used.
pub(super) fn proven(response: &Response<'_>, total: u64, validator: &Validator) -> Result<(), PartialError> {
    match usable(response, total, validator)? {
        Proof::Same => Ok(()),
        Proof::Changed | Proof::None => Err(PartialError::Unproven),
    }
}

fn content_range(fields: &Fields<'_>) -> Option<ContentRange> {
    fields.only("Content-Range").ok().flatten().and_then(ContentRange::parse)
}

fn usable(response: &Response<'_>, total: u64, validator: &Validator) -> Result<Proof, PartialError> {
    let fields = &response.fields;
    match response.status {
        206 => {}
        200 => return Err(whole(fields, total, validator)),
        416 => {
            return Err(match content_range(fields) {
                Some(ContentRange::Unsatisfied(other)) if other != total => PartialError::Changed,
                _ => PartialError::NotPartial(416),
            });
        }
        status => return Err(PartialError::NotPartial(status)),
    }
    let proof = proof(fields, validator);
    if proof == Proof::Changed {
        return Err(PartialError::Changed);
    }
    if is_encoded(fields) {
        return Err(PartialError::Encoded);
    }
    Ok(proof)
}

/// Whether the fields say that the content is not the plain bytes: a `Content-Encoding` other than identity or
/// any `Transfer-Encoding`.
pub fn is_encoded(fields: &Fields<'_>) -> bool {
    fields.contains("Transfer-Encoding")
        || fields.list("Content-Encoding").any(|coding| !coding.eq_ignore_ascii_case(b"identity"))
}

/// The length in `Content-Length`, if all that is said there is one and the same number.
pub fn exact_length(fields: &Fields<'_>) -> Option<u64> {
    let mut all = fields.all("Content-Length").flat_map(members).map(decimal);
    let first = all.next()??;
    all.all(|other| other == Some(first)).then_some(first)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Proof {
    Same,
    Changed,
    None,
}

/// Whether the fields prove the same file, another one, or nothing.
fn proof(fields: &Fields<'_>, validator: &Validator) -> Proof {
    let Ok(Some(value)) = fields.only(validator.field_name()) else { return Proof::None };
    if value == validator.value() {
        return Proof::Same;
    }
    match Validator::entity_tag(value) {
        // A weakened tag of the same file is what compressing intermediaries make of it: no proof of change.
        Err(NoValidator::Weak) if value.get(2..) == Some(validator.value()) => Proof::None,
        _ => Proof::Changed,
    }
}

/// What a 200 to a range request says: that the file is another one by now (which is how `If-Range` is
/// answered), or only that ranges are not served.
fn whole(fields: &Fields<'_>, total: u64, validator: &Validator) -> PartialError {
    let other_length = !is_encoded(fields) && exact_length(fields).is_some_and(|length| length != total);
    match proof(fields, validator) {
        Proof::Changed => PartialError::Changed,
        _ if other_length => PartialError::Changed,
        _ => PartialError::NotPartial(200),
    }
}

/// Why a response may not be used as the bytes that were asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PartialError {
    /// Another status than 206: this one.
    NotPartial(u16),
    /// Another validator or total length, on a 206, 200 or 416: the file is not the same any more.
    Changed,
    /// A 206 without the validator, or with a weak one: perhaps the same file.
    Unproven,
    /// `Content-Range` missing, malformed, without total, or not exactly what was asked.
    WrongRange,
    /// `Content-Length` missing or not the length of what was asked.
    WrongLength,
    /// With a `Content-Encoding` or `Transfer-Encoding`.
    Encoded,
    /// `multipart/byteranges`.
    Multipart,
}

impl fmt::Display for PartialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PartialError::NotPartial(status) => return write!(f, "status {status} instead of 206"),
            PartialError::Changed => "the file has changed",
            PartialError::Unproven => "no strong validator on the range",
            PartialError::WrongRange => "another range than the one asked for",
            PartialError::WrongLength => "another length than that of the range",
            PartialError::Encoded => "the range is encoded",
            PartialError::Multipart => "the range is multipart/byteranges",
        })
    }
}

impl core::error::Error for PartialError {}
