//! `multipart/byteranges`: the answer to a request for several ranges (RFC 9110 sections 14.6 and 15.3.7.2; RFC 2046 section
//! 5.1). Not responsible for what the ranges are good for.

use core::fmt;
use core::ops::Range;

use heapless::Vec;

use super::fields::Fields;
use super::partial::{PartialError, exact_length, proven};
use super::range::ContentRange;
use super::response::Response;
use super::validator::Validator;

/// Longest boundary (RFC 2046 section 5.1.1).
const MAX_BOUNDARY_BYTES: usize = 70;

/// Most fields of a part; origins send two.
const MAX_PART_FIELDS: usize = 8;

/// Most bytes of a part's head.
const MAX_PART_HEAD_BYTES: usize = 1024;

/// A body in which each part is a range of the same file.
#[derive(Clone, Debug)]
pub struct Multipart {
    boundary: Vec<u8, MAX_BOUNDARY_BYTES>,
    total: u64,
    begun: bool,
}

/// What comes next in the body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A part's head takes so many bytes; its content, these bytes of the file, follows.
    Part(usize, Range<u64>),
    /// The last delimiter; what follows is not of interest.
    End,
    /// More bytes are needed to tell.
    Incomplete,
}

/// The body can't be understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a broken multipart/byteranges body")
    }
}

impl core::error::Error for Malformed {}

impl Multipart {
    /// The body of `response`, which answers a request for several ranges of the file of `total` bytes under `validator`, and
    /// the body's length.
    ///
    /// # Errors
    /// Why it may not be used; [`PartialError::WrongRange`] if it is not multipart.
    pub fn of(
        response: &Response<'_>,
        total: u64,
        validator: &Validator,
    ) -> Result<(Multipart, u64), PartialError> {
        proven(response, total, validator)?;
        let boundary = response.fields.only("Content-Type").ok().flatten().and_then(boundary);
        let boundary = boundary.ok_or(PartialError::WrongRange)?;
        let length = exact_length(&response.fields).ok_or(PartialError::WrongLength)?;
        Ok((Multipart { boundary, total, begun: false }, length))
    }

    /// Looks at the body's bytes `data`, which begin at a delimiter or the line end before it.
    ///
    /// # Errors
    /// [`Malformed`], also if a part is of a file of another length.
    pub fn step(&mut self, data: &[u8]) -> Result<Step, Malformed> {
        // The first delimiter may go without the line end (RFC 2046 section 5.1.1).
        let start = match data.strip_prefix(b"\r\n") {
            Some(_) => 2,
            None if !self.begun && data.first() != Some(&b'\r') => 0,
            None if data.len() < 2 => return Ok(Step::Incomplete),
            None => return Err(Malformed),
        };
        let delimiter = start + 2 + self.boundary.len();
        let Some(rest) = data.get(delimiter..).filter(|rest| rest.len() >= 2) else {
            return Ok(Step::Incomplete);
        };
        let dashes = data.get(start..start + 2);
        if dashes != Some(b"--") || data.get(start + 2..delimiter) != Some(&self.boundary[..]) {
            return Err(Malformed);
        }
        if rest.starts_with(b"--") {
            return Ok(Step::End);
        }
        let head = rest.strip_prefix(b"\r\n").ok_or(Malformed)?;
        let mut lines = [httparse::EMPTY_HEADER; MAX_PART_FIELDS];
        let (length, fields) = match httparse::parse_headers(head, &mut lines) {
            Ok(httparse::Status::Complete(found)) => found,
            Ok(httparse::Status::Partial) if head.len() < MAX_PART_HEAD_BYTES => return Ok(Step::Incomplete),
            Ok(httparse::Status::Partial) | Err(_) => return Err(Malformed),
        };
        let mut ranges = fields.iter().filter(|field| field.name.eq_ignore_ascii_case("Content-Range"));
        match (ranges.next().and_then(|field| ContentRange::parse(field.value)), ranges.next()) {
            (Some(ContentRange::Bytes(range, Some(total))), None) if total == self.total => {
                self.begun = true; // not before: what is incomplete is looked at again from its beginning
                Ok(Step::Part(delimiter + 2 + length, range))
            }
            _ => Err(Malformed),
        }
    }
}

/// The `boundary` of a `multipart/byteranges` content type.
fn boundary(content_type: &[u8]) -> Option<Vec<u8, MAX_BOUNDARY_BYTES>> {
    const TYPE: &[u8] = b"multipart/byteranges";
    let (kind, mut rest) = content_type.split_at_checked(TYPE.len())?;
    if !kind.eq_ignore_ascii_case(TYPE) {
        return None;
    }
    loop {
        rest = rest.trim_ascii_start().strip_prefix(b";")?.trim_ascii_start();
        let equals = rest.iter().position(|b| *b == b'=')?;
        let (name, value) = (rest.get(..equals)?, rest.get(equals + 1..)?);
        let (value, after) = match value.strip_prefix(b"\"") {
            Some(quoted) => {
                let end = quoted.iter().position(|b| *b == b'"')?;
                (quoted.get(..end)?, quoted.get(end + 1..)?)
            }
            None => {
                let end = value.iter().position(|b| *b == b';').unwrap_or(value.len());
                (value.get(..end)?.trim_ascii(), value.get(end..)?)
            }
        };
        if name.eq_ignore_ascii_case(b"boundary") {
            return Vec::from_slice(value).ok().filter(|value| !value.is_empty());
        }
        rest = after;
    }
}

/// Whether the fields say that the content is of this kind.
pub fn is_multipart(fields: &Fields<'_>) -> bool {
    const TYPE: &[u8] = b"multipart/byteranges";
    fields.all("Content-Type").any(|v| v.get(..TYPE.len()).is_some_and(|t| t.eq_ignore_ascii_case(TYPE)))
}
