//! What an INIT in a ledger has to match, besides its signature: what stands beside it, and the ledger that it is in.
//! Not responsible for signatures.

use core::fmt;

use super::InitEvent;
use crate::http::request::Request;
use crate::message::{Fingerprint, PeerRequest};

/// Why an INIT entry proves nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mismatch {
    /// The head is no INIT.
    NotAnInit,
    /// It was meant for another router.
    Recipient(Fingerprint),
    /// The entry has another value than the head in this field.
    Field(&'static str),
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Mismatch::NotAnInit => f.write_str("its head is no INIT"),
            Mismatch::Recipient(other) => write!(f, "it was meant for another router, {other}"),
            Mismatch::Field(name) => write!(f, "its {name} is not the one that was signed"),
        }
    }
}

impl core::error::Error for Mismatch {}

/// The head of an INIT in the ledger of router `owner`, if the entry tells the same as the head.
///
/// `buffer` is lent for the head's bytes.
///
/// # Errors
/// What does not match.
pub fn check<'b>(
    event: &InitEvent<'_>,
    owner: Fingerprint,
    buffer: &'b mut [u8],
) -> Result<Request<'b>, Mismatch> {
    let head = event.head.copy_to(buffer).ok_or(Mismatch::NotAnInit)?;
    let Ok(Some((request, length))) = Request::parse(head) else { return Err(Mismatch::NotAnInit) };
    let init = match PeerRequest::parse(&request) {
        Ok(PeerRequest::Init(init)) if length == head.len() => init,
        _ => return Err(Mismatch::NotAnInit),
    };
    if init.recipient != owner {
        return Err(Mismatch::Recipient(init.recipient));
    }
    if init.session != event.session {
        return Err(Mismatch::Field("session"));
    }
    if init.size != event.size {
        return Err(Mismatch::Field("size"));
    }
    if !is_displayed_as(&init.target, event.uri.bytes()) {
        return Err(Mismatch::Field("uri"));
    }
    Ok(request)
}

fn is_displayed_as(value: &dyn fmt::Display, text: impl Iterator<Item = u8>) -> bool {
    struct Rest<I>(I);
    impl<I: Iterator<Item = u8>> fmt::Write for Rest<I> {
        fn write_str(&mut self, part: &str) -> fmt::Result {
            let is_next = part.bytes().all(|byte| self.0.next() == Some(byte));
            if is_next { Ok(()) } else { Err(fmt::Error) }
        }
    }
    let mut rest = Rest(text);
    fmt::write(&mut rest, format_args!("{value}")).is_ok() && rest.0.next().is_none()
}
