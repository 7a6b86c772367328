//! HTTP/1.1 heads and bodies: parsed from borrowed bytes, written into lent buffers (RFC 9110, RFC 9112).
//!
//! Responsible for syntax, framing and the rules for intermediaries. Not for sockets, nor for what is done
//! with a message ([`crate::decide`]).
//!
//! A message goes this way: [`request::Request::parse`] or [`response::Response::parse`] finds the head,
//! [`target::Target::of`] says where it goes, [`body::BodyLength`] how long its body is,
//! [`body_scan::BodyScanner`] where that body ends, [`forward`] what the next hop gets to see.

use core::fmt;

pub mod body;
pub mod body_scan;
pub mod date;
pub mod fields;
pub mod forward;
pub mod multipart;
pub mod partial;
pub mod range;
pub mod request;
pub mod response;
pub mod target;
pub mod validator;
pub mod write;

/// The versions that are spoken; any other is [`HeadError::Version`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// HTTP/1.0: no chunked coding, no `Host` needed, connections close.
    Http10,
    /// HTTP/1.1.
    Http11,
}

impl Version {
    pub(crate) fn from_minor(minor: Option<u8>) -> Version {
        if minor == Some(0) { Version::Http10 } else { Version::Http11 }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Version::Http10 => "1.0",
            Version::Http11 => "1.1",
        })
    }
}

/// Why the bytes are no head. A head that is merely not complete yet is no error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadError {
    /// The request line is not `method SP target SP version`.
    RequestLine,
    /// The status line has no three-digit status of at least 100.
    StatusLine,
    /// Neither HTTP/1.0 nor HTTP/1.1.
    Version,
    /// A CR that no LF follows (RFC 9112 section 2.2).
    BareCr,
    /// A line of a request that ends with LF alone. RFC 9112 section 2.2 lets a recipient take it; two
    /// parsers that disagree on it can be made to see two different requests.
    BareLf,
    /// A field line continued on the next (obs-fold, RFC 9112 section 5.2).
    Folded,
    /// White space between the field name and its colon in a request (RFC 9112 section 5.1).
    SpaceBeforeColon,
    /// A field name that is no token, or a line without a colon.
    FieldName,
    /// NUL or another control character in a field value.
    FieldValue,
    /// More than [`crate::limits::MAX_FIELDS`] fields.
    TooManyFields,
}

impl HeadError {
    /// What httparse found, told apart further with a look at the bytes.
    pub(crate) fn of(error: httparse::Error, bytes: &[u8], start_line: HeadError) -> HeadError {
        match error {
            httparse::Error::Version => HeadError::Version,
            httparse::Error::TooManyHeaders => HeadError::TooManyFields,
            httparse::Error::Token | httparse::Error::Status => start_line,
            httparse::Error::NewLine => HeadError::BareCr,
            httparse::Error::HeaderName => bad_name(bytes),
            httparse::Error::HeaderValue if has_bare_cr(bytes) => HeadError::BareCr,
            httparse::Error::HeaderValue => HeadError::FieldValue,
        }
    }
}

impl fmt::Display for HeadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            HeadError::RequestLine => "malformed request line",
            HeadError::StatusLine => "malformed status line",
            HeadError::Version => "the version is neither HTTP/1.0 nor HTTP/1.1",
            HeadError::BareCr => "CR without LF in the head",
            HeadError::BareLf => "LF without CR in the head",
            HeadError::Folded => "a field is folded over several lines",
            HeadError::SpaceBeforeColon => "white space between a field's name and its colon",
            HeadError::FieldName => "a field name is no token",
            HeadError::FieldValue => "a control character in a field value",
            HeadError::TooManyFields => "too many fields",
        })
    }
}

impl core::error::Error for HeadError {}

/// Whether `byte` may stand in a token (RFC 9110 section 5.6.2).
pub(crate) fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Whether `byte` may stand in a field value: no control character but HTAB (RFC 9110 section 5.5).
pub(crate) fn is_value_byte(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

/// A decimal number of ASCII digits alone: no sign (Rust's own parser takes "+5"), no white space.
pub(crate) fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0u64, |value, byte| match byte {
        b'0'..=b'9' => value.checked_mul(10)?.checked_add(u64::from(byte - b'0')),
        _ => None,
    })
}

/// Which of the things that can be wrong with a field's name it is: the first line that is wrong tells.
fn bad_name(bytes: &[u8]) -> HeadError {
    for line in bytes.split(|b| *b == b'\n').skip(1) {
        let name = line.split(|b| *b == b':').next().unwrap_or(line);
        if name.starts_with(b" ") || name.starts_with(b"\t") {
            return HeadError::Folded;
        }
        let token = name.trim_ascii_end();
        let has_colon = name.len() < line.len();
        if has_colon && token.len() < name.len() && token.iter().all(|b| is_token_byte(*b)) {
            return HeadError::SpaceBeforeColon;
        }
        if token.iter().any(|b| !is_token_byte(*b)) {
            return HeadError::FieldName;
        }
    }
    HeadError::FieldName
}

/// Whether a CR is followed by anything but LF.
fn has_bare_cr(bytes: &[u8]) -> bool {
    bytes.windows(2).any(|pair| matches!(pair, [b'\r', next] if *next != b'\n'))
}

/// Whether an LF is preceded by anything but CR.
pub(crate) fn has_bare_lf(bytes: &[u8]) -> bool {
    bytes.first() == Some(&b'\n')
        || bytes.windows(2).any(|pair| matches!(pair, [before, b'\n'] if *before != b'\r'))
}
