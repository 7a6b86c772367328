//! How long the body of a message is (RFC 9112 section 6.3), and which framings are refused. Not responsible
//! for finding its end in the bytes ([`super::body_scan`]).

use core::fmt;

use super::Version;
use super::decimal;
use super::fields::{Fields, members};
use super::request::Request;
use super::response::Response;

/// How the end of a body is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyLength {
    /// There is no body.
    None,
    /// So many bytes, perhaps 0.
    Exact(u64),
    /// The chunked coding.
    Chunked,
    /// All bytes until the connection closes: responses only.
    UntilClose,
}

impl BodyLength {
    /// The length of a request's body.
    ///
    /// # Errors
    /// Why it can't be trusted: the answer is 400 and the connection is closed.
    pub fn of_request(request: &Request<'_>) -> Result<BodyLength, FramingError> {
        Ok(declared(&request.fields, request.version)?.unwrap_or(BodyLength::None))
    }

    /// The length of the body of the response to a request with method `asked`.
    ///
    /// After a 2xx to CONNECT and after 101 the connection is a tunnel; that is [`BodyLength::None`].
    ///
    /// # Errors
    /// Why it can't be trusted: the answer to the client is 502 and the connection is closed.
    pub fn of_response(response: &Response<'_>, asked: &str) -> Result<BodyLength, FramingError> {
        let status = response.status;
        let tunnel = asked == "CONNECT" && (200..300).contains(&status);
        if tunnel || status < 200 || status == 204 {
            return Ok(BodyLength::None);
        }
        let length = declared(&response.fields, response.version)?;
        if asked == "HEAD" || status == 304 {
            return Ok(BodyLength::None);
        }
        Ok(length.unwrap_or(BodyLength::UntilClose))
    }

    /// Whether another message can follow on the connection.
    pub fn is_delimited(self) -> bool {
        self != BodyLength::UntilClose
    }
}

/// What the fields declare.
fn declared(fields: &Fields<'_>, version: Version) -> Result<Option<BodyLength>, FramingError> {
    if fields.contains("Transfer-Encoding") {
        // RFC 9112 section 6.1: "ought to be handled as an error", a sender's 1.0 "MUST" be.
        if fields.contains("Content-Length") {
            return Err(FramingError::LengthAndCoding);
        }
        if version == Version::Http10 {
            return Err(FramingError::CodingInHttp10);
        }
        let mut codings = fields.list("Transfer-Encoding");
        return match (codings.next(), codings.next()) {
            (Some(coding), None) if coding.eq_ignore_ascii_case(b"chunked") => Ok(Some(BodyLength::Chunked)),
            _ => Err(FramingError::Coding),
        };
    }
    let mut length = None;
    for value in fields.all("Content-Length") {
        if members(value).next().is_none() {
            return Err(FramingError::Length);
        }
        // A list of one and the same number counts as that number (RFC 9110 section 8.6); it goes on as one.
        for member in members(value) {
            let number = decimal(member).ok_or(FramingError::Length)?;
            if length.is_some_and(|other| other != number) {
                return Err(FramingError::DifferingLengths);
            }
            length = Some(number);
        }
    }
    Ok(length.map(BodyLength::Exact))
}

/// Why the length of a body can't be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FramingError {
    /// Both `Content-Length` and `Transfer-Encoding`.
    LengthAndCoding,
    /// `Content-Length` is no number of ASCII digits below 2^64.
    Length,
    /// Several lengths that differ.
    DifferingLengths,
    /// A `Transfer-Encoding` that is not `chunked` alone.
    Coding,
    /// A `Transfer-Encoding` in HTTP/1.0.
    CodingInHttp10,
}

impl fmt::Display for FramingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            FramingError::LengthAndCoding => "both Content-Length and Transfer-Encoding",
            FramingError::Length => "Content-Length is no number",
            FramingError::DifferingLengths => "several lengths that differ",
            FramingError::Coding => "a transfer coding other than chunked",
            FramingError::CodingInHttp10 => "Transfer-Encoding in HTTP/1.0",
        })
    }
}

impl core::error::Error for FramingError {}
