//! HELLO: who is there, and how it is doing. Not responsible for when it is asked.

use core::fmt;

use super::{Fingerprint, MessageError, SessionId, optional, parsed, required, required_number};
use crate::channel::Challenge;
use crate::http::decimal;
use crate::http::fields::Fields;
use crate::http::response::Response;
use crate::http::write::HeadWriter;
use crate::time::Span;

/// The answer to `GET /HELLO`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The router that answers.
    pub key: Fingerprint,
    /// Only for configured peers.
    pub details: Option<Details>,
    /// Only for configured peers: what their next INIT on this connection has to answer.
    pub challenge: Option<Challenge>,
    /// Only for configured peers: whether it has to do with the session that they asked about, so that an INIT would be in
    /// vain.
    pub takes_part: bool,
}

/// What a configured peer gets to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Details {
    /// Bits per second that it offers; 0 = unknown.
    pub bandwidth: u64,
    /// Sessions that it works for.
    pub load: u32,
    /// Round trip of its internet link; 0 = unknown.
    pub rtt: Span,
    /// Segments lost on its internet link since it was started.
    pub losses: u64,
}

/// Writes the request to the peer that is called `host`.
pub fn write_request(head: &mut HeadWriter<'_>, host: &dyn fmt::Display) {
    head.request("GET", "/HELLO").field_args("Host", format_args!("{host}"));
}

/// The same, asking whether the peer takes part in `session` already: an INIT would cost a signature.
pub fn write_request_about(head: &mut HeadWriter<'_>, host: &dyn fmt::Display, session: SessionId) {
    write_request(head, host);
    head.field_args(SESSION, format_args!("{session}"));
}

/// The session that a HELLO asks about.
pub(super) fn parse_request(fields: &Fields<'_>) -> Result<Option<SessionId>, MessageError> {
    let session = optional(fields, SESSION)?.map(str::parse).transpose();
    session.map_err(|_| MessageError::Malformed(SESSION))
}

const SESSION: &str = "BAMQP-Session";
const TAKES_PART: &str = "BAMQP-Takes-Part";

impl Hello {
    /// Writes the answer, up to the end of the fields.
    pub fn write(&self, head: &mut HeadWriter<'_>) {
        head.status(200, "OK").field_args("BAMQP-Key", format_args!("{}", self.key));
        if let Some(Details { bandwidth, load, rtt, losses }) = self.details {
            head.field_args("BAMQP-Bandwidth", format_args!("{bandwidth}"))
                .field_args("BAMQP-Load", format_args!("{load}"))
                .field_args("BAMQP-Quality", format_args!("rtt={}, losses={losses}", rtt.as_micros()));
        }
        if self.takes_part {
            head.field(TAKES_PART, "yes");
        }
        if let Some(challenge) = self.challenge {
            head.field_args("BAMQP-Challenge", format_args!("{challenge}"));
        }
        head.field("Content-Length", "0");
    }

    /// Reads the answer.
    ///
    /// # Errors
    /// [`MessageError::Status`] or the field that is wrong.
    pub fn parse(response: &Response<'_>) -> Result<Hello, MessageError> {
        if response.status != 200 {
            return Err(MessageError::Status(response.status));
        }
        let fields = &response.fields;
        let key = parsed(fields, "BAMQP-Key")?;
        const CHALLENGE: &str = "BAMQP-Challenge";
        let challenge = optional(fields, CHALLENGE)?.map(str::parse).transpose();
        let challenge = challenge.map_err(|_| MessageError::Malformed(CHALLENGE))?;
        if optional(fields, "BAMQP-Bandwidth")?.is_none() {
            return Ok(Hello { key, details: None, challenge, takes_part: false });
        }
        let bandwidth = required_number(fields, "BAMQP-Bandwidth")?;
        let load = required_number(fields, "BAMQP-Load")?;
        let (rtt, losses) =
            quality(required(fields, "BAMQP-Quality")?).ok_or(MessageError::Malformed("BAMQP-Quality"))?;
        let takes_part = optional(fields, TAKES_PART)?.is_some();
        Ok(Hello { key, details: Some(Details { bandwidth, load, rtt, losses }), challenge, takes_part })
    }
}

/// `rtt=<µs>, losses=<n>`; members of other names are for later versions.
fn quality(text: &str) -> Option<(Span, u64)> {
    let (mut rtt, mut losses) = (None, None);
    for member in text.split(',') {
        let (name, value) = member.trim().split_once('=')?;
        match name {
            "rtt" => rtt = Some(decimal(value.as_bytes())?),
            "losses" => losses = Some(decimal(value.as_bytes())?),
            _ => {}
        }
    }
    Some((Span::from_micros(rtt?), losses?))
}
