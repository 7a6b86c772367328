//! DROP ends a session (from the coordinator) or says why there is no chunk (from the peer); the summary tells
//! what was served. Not responsible for who decides to drop.

use core::fmt;
use core::ops::Range;

use heapless::Vec;

use super::reason::DropReason;
use super::{MessageError, SessionId, optional, parsed, required_number, retry_after};
use crate::http::fields::Fields;
use crate::http::range::{Ends, RangeSpec};
use crate::http::response::Response;
use crate::http::write::HeadWriter;
use crate::limits::MAX_SERVED_RANGES;

/// `POST /DROP`, or the answer to a CHUNK that is no 206.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drop {
    /// The session.
    pub session: SessionId,
    /// Why.
    pub reason: DropReason,
    /// Seconds for which not to ask again.
    pub retry_after: u32,
}

impl Drop {
    /// Writes the coordinator's request to the peer that is called `host`.
    pub fn write_request(&self, head: &mut HeadWriter<'_>, host: &dyn fmt::Display) {
        head.request("POST", "/DROP").field_args("Host", format_args!("{host}"));
        self.fields(head);
    }

    /// Writes the peer's answer to a CHUNK: 503.
    pub fn write_answer(&self, head: &mut HeadWriter<'_>) {
        head.status(503, "Dropped");
        self.fields(head);
    }

    fn fields(&self, head: &mut HeadWriter<'_>) {
        head.field_args("BAMQP-Session", format_args!("{}", self.session))
            .field_args("BAMQP-Reason", format_args!("{}", self.reason))
            .field_args("Retry-After", format_args!("{}", self.retry_after))
            .field("Content-Length", "0");
    }

    pub(super) fn of_request(fields: &Fields<'_>) -> Result<Drop, MessageError> {
        let session = parsed(fields, "BAMQP-Session")?;
        let reason = parsed(fields, "BAMQP-Reason")?;
        Ok(Drop { session, reason, retry_after: retry_after(fields)? })
    }

    /// Reads the answer to a CHUNK that is no 206.
    ///
    /// # Errors
    /// [`MessageError::Status`] unless it is a 503, or the field that is wrong.
    pub fn of_answer(response: &Response<'_>) -> Result<Drop, MessageError> {
        match response.status {
            503 => Drop::of_request(&response.fields),
            status => Err(MessageError::Status(status)),
        }
    }
}

/// The answer to a DROP request: what was served in the session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    served: Vec<Range<u64>, MAX_SERVED_RANGES>,
    /// Bytes that were served, repeated ones counted again. Right also when the ranges did not all fit.
    pub bytes: u64,
}

impl Summary {
    /// Nothing served yet.
    pub fn new() -> Summary {
        Summary::default()
    }

    /// Counts a range that was served. Ranges that touch the last one are joined with it; what then exceeds
    /// [`MAX_SERVED_RANGES`] is only counted in `bytes`.
    pub fn add(&mut self, range: Range<u64>) {
        let length = range.end.saturating_sub(range.start);
        if length == 0 {
            return;
        }
        self.bytes = self.bytes.saturating_add(length);
        match self.served.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ => {
                let _ = self.served.push(range);
            }
        }
    }

    /// The ranges, in the order in which they were served.
    pub fn served(&self) -> &[Range<u64>] {
        &self.served
    }

    /// Writes the answer.
    pub fn write(&self, head: &mut HeadWriter<'_>) {
        head.status(200, "OK");
        if !self.served.is_empty() {
            head.field_args("BAMQP-Served", format_args!("{}", Served(&self.served)));
        }
        head.field_args("BAMQP-Bytes", format_args!("{}", self.bytes)).field("Content-Length", "0");
    }

    /// Reads the answer.
    ///
    /// # Errors
    /// [`MessageError::Status`] or the field that is wrong, such as more than [`MAX_SERVED_RANGES`].
    pub fn parse(response: &Response<'_>) -> Result<Summary, MessageError> {
        const NAME: &str = "BAMQP-Served";
        if response.status != 200 {
            return Err(MessageError::Status(response.status));
        }
        let bytes = required_number(&response.fields, "BAMQP-Bytes")?;
        let mut served = Vec::new();
        if let Some(text) = optional(&response.fields, NAME)? {
            let set = text.strip_prefix("bytes=").ok_or(MessageError::Malformed(NAME))?;
            for member in set.split(',') {
                let range = match RangeSpec::parse(member.trim().as_bytes()) {
                    Some(RangeSpec::Between(first, last)) => last.checked_add(1).map(|end| first..end),
                    _ => None,
                };
                let range = range.ok_or(MessageError::Malformed(NAME))?;
                served.push(range).map_err(|_| MessageError::Malformed(NAME))?;
            }
        }
        Ok(Summary { served, bytes })
    }
}

struct Served<'a>(&'a [Range<u64>]);

impl fmt::Display for Served<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "bytes=";
        for range in self.0 {
            write!(f, "{separator}{}", Ends(range))?;
            separator = ", ";
        }
        Ok(())
    }
}
