//! CHUNK asks a peer for a range of the session's file. A 206 is checked as an origin's is
//! ([`crate::http::partial`]); any other answer is a [`Drop`](super::drop::Drop).

use core::fmt;
use core::ops::Range;
use core::str::FromStr;

use super::{MessageError, SessionId, optional, parsed, required};
use crate::base64::{Base64, decode_exactly};
use crate::http::fields::Fields;
use crate::http::range::{ContentRange, RangeRequest, RangeSpec, RangeValue};
use crate::http::validator::Validator;
use crate::http::write::HeadWriter;

/// `GET /CHUNK`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// The session.
    pub session: SessionId,
    /// Which bytes of the file; not empty.
    pub range: Range<u64>,
}

impl Chunk {
    /// Writes the request to the peer that is called `host`.
    pub fn write(&self, head: &mut HeadWriter<'_>, host: &dyn fmt::Display) {
        head.request("GET", "/CHUNK")
            .field_args("Host", format_args!("{host}"))
            .field_args("BAMQP-Session", format_args!("{}", self.session))
            .field_args("Range", format_args!("{}", RangeValue(self.range.clone())));
    }

    pub(super) fn parse(fields: &Fields<'_>) -> Result<Chunk, MessageError> {
        const NAME: &str = "Range";
        let session = parsed(fields, "BAMQP-Session")?;
        required(fields, NAME)?;
        match RangeRequest::of(fields) {
            RangeRequest::One(RangeSpec::Between(first, last)) => {
                let end = last.checked_add(1).ok_or(MessageError::Malformed(NAME))?;
                Ok(Chunk { session, range: first..end })
            }
            _ => Err(MessageError::Malformed(NAME)),
        }
    }
}

/// SHA-256 of a chunk that was served, written as RFC 9530 section 2 does. It comes with the next answer on the same
/// connection or with the summary, so that no chunk waits for its digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkDigest(pub [u8; 32]);

const PREVIOUS_DIGEST: &str = "BAMQP-Previous-Digest";

impl ChunkDigest {
    /// Adds the digest of the chunk that was served before.
    pub fn write(&self, head: &mut HeadWriter<'_>) {
        head.field_args(PREVIOUS_DIGEST, format_args!("{self}"));
    }

    /// The digest in an answer, if there is one.
    ///
    /// # Errors
    /// [`MessageError::Malformed`].
    pub fn of_previous(fields: &Fields<'_>) -> Result<Option<ChunkDigest>, MessageError> {
        let text = optional(fields, PREVIOUS_DIGEST)?.map(str::parse).transpose();
        text.map_err(|_| MessageError::Malformed(PREVIOUS_DIGEST))
    }
}

impl fmt::Display for ChunkDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha-256=:{}:", Base64(&self.0))
    }
}

impl FromStr for ChunkDigest {
    type Err = NoDigest;

    fn from_str(text: &str) -> Result<Self, NoDigest> {
        let digits = text.strip_prefix("sha-256=:").and_then(|text| text.strip_suffix(':'));
        digits.and_then(|digits| decode_exactly(digits.as_bytes())).map(ChunkDigest).ok_or(NoDigest)
    }
}

/// Not `sha-256=:…:`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoDigest;

impl fmt::Display for NoDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("expected sha-256=:…:")
    }
}

impl core::error::Error for NoDigest {}

/// The head of the 206 that carries a chunk.
#[derive(Clone, Debug)]
pub struct ChunkAnswer<'a> {
    /// The bytes that follow; as they were asked for.
    pub range: Range<u64>,
    /// Bytes of the whole file.
    pub total: u64,
    /// The session's validator, under which the bytes were fetched.
    pub validator: &'a Validator,
    /// Of the chunk that was served before on the same connection.
    pub previous: Option<ChunkDigest>,
}

impl ChunkAnswer<'_> {
    /// Writes the answer.
    pub fn write(&self, head: &mut HeadWriter<'_>) {
        let length = self.range.end.saturating_sub(self.range.start);
        let range = ContentRange::Bytes(self.range.clone(), Some(self.total));
        head.status(206, "Partial Content")
            .field_args("Content-Range", format_args!("{range}"))
            .field(self.validator.field_name(), self.validator.value())
            .field_args("Content-Length", format_args!("{length}"));
        if let Some(digest) = self.previous {
            digest.write(head);
        }
    }
}
