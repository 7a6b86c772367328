//! CHUNK asks a peer for a range of the session's file. A 206 is checked as an origin's is
//! ([`crate::http::partial`]); any other answer is a [`Drop`](super::drop::Drop).

use core::fmt;
use core::ops::Range;

use super::{MessageError, SessionId, parsed, required};
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

/// The head of the 206 that carries a chunk.
#[derive(Clone, Debug)]
pub struct ChunkAnswer<'a> {
    /// The bytes that follow; as they were asked for.
    pub range: Range<u64>,
    /// Bytes of the whole file.
    pub total: u64,
    /// The session's validator, under which the bytes were fetched.
    pub validator: &'a Validator,
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
    }
}
