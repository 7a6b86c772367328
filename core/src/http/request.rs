//! Request heads. Not responsible for the target's parts ([`super::target`]) or the body
//! ([`super::body`]).

use super::fields::Fields;
use super::{HeadError, Version, has_bare_lf};

/// A request head, borrowed from the bytes that it came in.
#[derive(Clone, Debug)]
pub struct Request<'b> {
    /// A token; methods are compared with case (RFC 9110 section 9.1).
    pub method: &'b str,
    /// The request target as it was sent; see [`super::target::Target`].
    pub target: &'b str,
    /// The version of the sender.
    pub version: Version,
    /// The fields.
    pub fields: Fields<'b>,
}

impl<'b> Request<'b> {
    /// The head at the start of `bytes` and its length, which counts empty lines before it (RFC 9112 section
    /// 2.2). `None`: it is not complete yet.
    ///
    /// # Errors
    /// What is wrong with it; the connection can't be used further.
    pub fn parse(bytes: &'b [u8]) -> Result<Option<(Self, usize)>, HeadError> {
        let mut line = None;
        let fields = Fields::fill(|lines| {
            let mut head = httparse::Request::new(lines);
            let status = head.parse(bytes).map_err(|e| HeadError::of(e, bytes, HeadError::RequestLine))?;
            let httparse::Status::Complete(length) = status else { return Ok(None) };
            line = Some((head.method.unwrap_or(""), head.path.unwrap_or(""), head.version, length));
            Ok(Some(head.headers.len()))
        })?;
        let (Some(fields), Some((method, target, minor, length))) = (fields, line) else { return Ok(None) };
        if has_bare_lf(bytes.get(..length).unwrap_or(bytes)) {
            return Err(HeadError::BareLf);
        }
        Ok(Some((Request { method, target, version: Version::from_minor(minor), fields }, length)))
    }
}
