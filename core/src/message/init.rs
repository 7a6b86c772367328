//! INIT asks a peer to take part in a session; ACCEPT and DECLINE answer. Not responsible for either decision.

use core::fmt;

use super::first::First;
use super::reason::DeclineReason;
use super::{Fingerprint, MessageError, SessionId, optional, parsed, required, required_number, retry_after};
use crate::http::fields::Fields;
use crate::http::response::Response;
use crate::http::target::Uri;
use crate::http::validator::Validator;
use crate::http::write::HeadWriter;
use crate::limits::{MAX_FILE_BYTES, MAX_URI_BYTES};

/// `POST /INIT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Init<'b> {
    /// The session that begins.
    pub session: SessionId,
    /// The file; without userinfo, at most [`MAX_URI_BYTES`].
    pub target: Uri<'b>,
    /// Bytes of the whole file; not 0.
    pub size: u64,
    /// Under which its ranges belong together.
    pub validator: Validator,
    /// How many routers the session has passed: 0 from a coordinator.
    pub hops: u8,
    /// The peer that is meant.
    pub recipient: Fingerprint,
    /// The first coordinator's word, if the session has passed a router.
    pub first: Option<First<'b>>,
    /// The client's `User-Agent`.
    pub user_agent: Option<&'b [u8]>,
    /// The client's `Accept`.
    pub accept: Option<&'b [u8]>,
}

impl<'b> Init<'b> {
    /// Writes the request to the peer that is called `host`.
    pub fn write(&self, head: &mut HeadWriter<'_>, host: &dyn fmt::Display) {
        head.request("POST", "/INIT")
            .field_args("Host", format_args!("{host}"))
            .field("Content-Length", "0")
            .field_args("BAMQP-Session", format_args!("{}", self.session))
            .field_args("BAMQP-Target", format_args!("{}", self.target))
            .field_args("BAMQP-Size", format_args!("{}", self.size))
            .field(self.validator.field_name(), self.validator.value())
            .field_args("BAMQP-Hops", format_args!("{}", self.hops))
            .field_args("BAMQP-Recipient", format_args!("{}", self.recipient));
        if let Some(first) = &self.first {
            first.write(head);
        }
        if let Some(value) = self.user_agent {
            head.field("User-Agent", value);
        }
        if let Some(value) = self.accept {
            head.field("Accept", value);
        }
    }

    pub(super) fn parse(fields: &Fields<'b>) -> Result<Init<'b>, MessageError> {
        let size = required_number(fields, "BAMQP-Size")?;
        if size == 0 || size > MAX_FILE_BYTES {
            return Err(MessageError::Malformed("BAMQP-Size"));
        }
        let hops = required_number(fields, "BAMQP-Hops")?;
        Ok(Init {
            session: parsed(fields, "BAMQP-Session")?,
            target: target(fields)?,
            size,
            validator: Validator::of_message(fields).map_err(MessageError::Validator)?,
            hops,
            recipient: parsed(fields, "BAMQP-Recipient")?,
            first: First::parse(fields, hops)?,
            user_agent: fields.get("User-Agent"),
            accept: fields.get("Accept"),
        })
    }
}

fn target<'b>(fields: &Fields<'b>) -> Result<Uri<'b>, MessageError> {
    const NAME: &str = "BAMQP-Target";
    let uri = Uri::parse(required(fields, NAME)?).map_err(|_| MessageError::Malformed(NAME))?;
    // Never with userinfo: DESIGN section 7, "What is shared with peers".
    if uri.has_userinfo || uri.len() > MAX_URI_BYTES {
        return Err(MessageError::Malformed(NAME));
    }
    Ok(uri)
}

/// What a peer answers to an INIT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer<'b> {
    /// It takes part.
    Accept(Accept<'b>),
    /// It does not.
    Decline(Decline),
}

impl<'b> Answer<'b> {
    /// Reads the answer.
    ///
    /// # Errors
    /// [`MessageError::Status`] or the field that is wrong.
    pub fn parse(response: &Response<'b>) -> Result<Answer<'b>, MessageError> {
        let fields = &response.fields;
        if response.status == 200 {
            let target = target(fields)?;
            let bandwidth = required_number(fields, "BAMQP-Bandwidth")?;
            let hold = required_number(fields, "BAMQP-Hold")?;
            return Ok(Answer::Accept(Accept { target, bandwidth, hold }));
        }
        if optional(fields, "BAMQP-Reason")?.is_none() {
            return Err(MessageError::Status(response.status));
        }
        let reason: DeclineReason = parsed(fields, "BAMQP-Reason")?;
        if reason.status() != response.status {
            return Err(MessageError::Status(response.status));
        }
        Ok(Answer::Decline(Decline { reason, retry_after: retry_after(fields)? }))
    }
}

/// The peer takes part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accept<'b> {
    /// The file, as it understood it.
    pub target: Uri<'b>,
    /// Bits per second that it can promise now; 0 = unknown.
    pub bandwidth: u64,
    /// Bytes that it can hold while the coordinator does not read.
    pub hold: u32,
}

impl Accept<'_> {
    /// Writes the answer.
    pub fn write(&self, head: &mut HeadWriter<'_>) {
        head.status(200, "OK")
            .field_args("BAMQP-Target", format_args!("{}", self.target))
            .field_args("BAMQP-Bandwidth", format_args!("{}", self.bandwidth))
            .field_args("BAMQP-Hold", format_args!("{}", self.hold))
            .field("Content-Length", "0");
    }
}

/// The peer does not take part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decline {
    /// Why.
    pub reason: DeclineReason,
    /// Seconds until it may be asked again.
    pub retry_after: u32,
}

impl Decline {
    /// Writes the answer.
    pub fn write(&self, head: &mut HeadWriter<'_>) {
        head.status(self.reason.status(), "Declined")
            .field_args("BAMQP-Reason", format_args!("{}", self.reason))
            .field_args("Retry-After", format_args!("{}", self.retry_after))
            .field("Content-Length", "0");
    }
}
