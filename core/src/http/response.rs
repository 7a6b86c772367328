//! Response heads. Not responsible for the body ([`super::body`]).

use super::fields::Fields;
use super::{HeadError, Version};

/// A response head, borrowed from the bytes that it came in.
#[derive(Clone, Debug)]
pub struct Response<'b> {
    /// The version of the sender.
    pub version: Version,
    /// The status, 100 to 999. Those above 599 are invalid and treated as 5xx (RFC 9110 section 15).
    pub status: u16,
    /// The reason phrase; empty if it was missing or not ASCII.
    pub reason: &'b str,
    /// The fields.
    pub fields: Fields<'b>,
}

impl<'b> Response<'b> {
    /// The head at the start of `bytes` and its length. `None`: it is not complete yet.
    ///
    /// More is taken than of a request, because it can't be told to do better and because what goes on is
    /// written anew: white space before a colon is removed, as a proxy must (RFC 9112 section 5.1), and LF
    /// alone ends a line (section 2.2). Folded fields are refused (section 5.2: "discard the message").
    ///
    /// # Errors
    /// What is wrong with it; the connection can't be used further.
    pub fn parse(bytes: &'b [u8]) -> Result<Option<(Self, usize)>, HeadError> {
        let mut line = None;
        let fields = Fields::fill(|lines| {
            let mut head = httparse::Response::new(lines);
            let mut config = httparse::ParserConfig::default();
            config.allow_spaces_after_header_name_in_responses(true);
            let status = config
                .parse_response(&mut head, bytes)
                .map_err(|e| HeadError::of(e, bytes, HeadError::StatusLine))?;
            let httparse::Status::Complete(length) = status else { return Ok(None) };
            line = Some((head.version, head.code.unwrap_or(0), head.reason.unwrap_or(""), length));
            Ok(Some(head.headers.len()))
        })?;
        let (Some(fields), Some((minor, status, reason, length))) = (fields, line) else { return Ok(None) };
        if status < 100 {
            return Err(HeadError::StatusLine);
        }
        Ok(Some((Response { version: Version::from_minor(minor), status, reason, fields }, length)))
    }

    /// Whether it is 1xx: another head follows on the same request.
    pub fn is_interim(&self) -> bool {
        self.status < 200
    }
}
