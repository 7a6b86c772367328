//! HELLO: who is there, and how it is doing. Not responsible for when it is asked.

use core::fmt;

use super::{Fingerprint, MessageError, optional, parsed, required, required_number};
use crate::channel::Challenge;
use crate::http::decimal;
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

impl Hello {
    /// Writes the answer, up to the end of the fields.
    pub fn write(&self, head: &mut HeadWriter<'_>) {
        head.status(200, "OK").field_args("BAMQP-Key", format_args!("{}", self.key));
        if let Some(Details { bandwidth, load, rtt, losses }) = self.details {
            head.field_args("BAMQP-Bandwidth", format_args!("{bandwidth}"))
                .field_args("BAMQP-Load", format_args!("{load}"))
                .field_args("BAMQP-Quality", format_args!("rtt={}, losses={losses}", rtt.as_micros()));
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
            return Ok(Hello { key, details: None, challenge });
        }
        let bandwidth = required_number(fields, "BAMQP-Bandwidth")?;
        let load = required_number(fields, "BAMQP-Load")?;
        let (rtt, losses) =
            quality(required(fields, "BAMQP-Quality")?).ok_or(MessageError::Malformed("BAMQP-Quality"))?;
        Ok(Hello { key, details: Some(Details { bandwidth, load, rtt, losses }), challenge })
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
