//! What makes an INIT in a ledger evidence: it was signed by the router whose key stands beside it, for the router whose
//! ledger it is, and says what the entry says. Not responsible for how a signature is made.

use core::fmt;

use super::{Hash, InitEvent};
use crate::channel::Challenge;
use crate::http::request::Request;
use crate::limits::MAX_LEDGER_TEXT_BYTES;
use crate::message::{Fingerprint, PeerRequest};
use crate::signature::{FIRST_BUFFER_BYTES, Message, SignatureError, parameter, verify_first, verify_init};

/// Bytes of buffer that [`check`] takes.
pub const BUFFER_BYTES: usize = MAX_LEDGER_TEXT_BYTES + FIRST_BUFFER_BYTES;

/// Why an INIT entry proves nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mismatch {
    /// The head is no INIT.
    NotAnInit,
    /// It was meant for another router.
    Recipient(Fingerprint),
    /// Its head is not in the form that the tools of whoever checks a log by hand read as we do ([`is_plain`]).
    Form,
    /// The entry has another value than the head in this field.
    Field(&'static str),
    /// The coordinator did not sign it.
    Signature(SignatureError),
    /// It was passed on, and the first coordinator did not sign it.
    First(SignatureError),
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Mismatch::NotAnInit => f.write_str("its head is no INIT"),
            Mismatch::Recipient(other) => write!(f, "it was meant for another router, {other}"),
            Mismatch::Form => f.write_str("its head is not plain: tools could read it differently"),
            Mismatch::Field(name) => write!(f, "its {name} is not the one that was signed"),
            Mismatch::Signature(error) => write!(f, "its signature does not prove it: {error}"),
            Mismatch::First(error) => {
                write!(f, "the first coordinator's signature does not prove it: {error}")
            }
        }
    }
}

impl core::error::Error for Mismatch {}

/// Checks an INIT in the ledger of router `owner`; the head of that ledger that it countersigned.
///
/// `buffer`, of [`BUFFER_BYTES`], is lent for the message's head and for the first coordinator's.
///
/// # Errors
/// What does not match.
pub fn check(event: &InitEvent<'_>, owner: Fingerprint, buffer: &mut [u8]) -> Result<Hash, Mismatch> {
    let (buffer, room) = buffer.split_at_mut_checked(MAX_LEDGER_TEXT_BYTES).ok_or(Mismatch::NotAnInit)?;
    let head = event.head.copy_to(buffer).ok_or(Mismatch::NotAnInit)?;
    let Ok(Some((request, length))) = Request::parse(head) else { return Err(Mismatch::NotAnInit) };
    let init = match PeerRequest::parse(&request) {
        Ok(PeerRequest::Init(init)) if length == head.len() => init,
        _ => return Err(Mismatch::NotAnInit),
    };
    if !is_plain(head) {
        return Err(Mismatch::Form);
    }
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
    verify_init(&request, &event.key).map_err(Mismatch::Signature)?;
    if init.first.is_some() {
        verify_first(&init, Fingerprint::of(&event.key), room).map_err(Mismatch::First)?;
    }
    countersigned(&request).map_err(Mismatch::Signature)
}

/// Whether an INIT's head is written in the one way that leaves nothing to interpret, so that grep, sed and every library
/// read in it what we do: each line ends with CR LF, has one space after the colon and no other blanks around, a name of
/// letters, digits and `-`; each signature has a line of its own, `init` before `mac`. HTTP allows more, and a coordinator
/// that used it could say later that its signature does not fit.
pub fn is_plain(head: &[u8]) -> bool {
    let Some(mut rest) = head.strip_prefix(b"POST /INIT HTTP/1.1\r\n") else { return false };
    let mut signatures = 0;
    while rest != b"\r\n" {
        let Some(end) = rest.iter().position(|byte| *byte == b'\r') else { return false };
        let (line, after) = (rest.get(..end).unwrap_or_default(), rest.get(end..).unwrap_or_default());
        let Some(after) = after.strip_prefix(b"\r\n") else { return false };
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { return false };
        let (name, value) = (line.get(..colon).unwrap_or_default(), line.get(colon..).unwrap_or_default());
        let Some(value) = value.strip_prefix(b": ") else { return false };
        let is_name = |name: &[u8]| name.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-');
        if !is_name(name) || value.trim_ascii() != value || value.contains(&b'\n') {
            return false;
        }
        if [&b"Signature-Input"[..], b"Signature"].iter().any(|other| name.eq_ignore_ascii_case(other)) {
            let Some(expected) = SIGNATURES.get(signatures) else { return false };
            if !line.starts_with(expected) || value.contains(&b',') {
                return false;
            }
            signatures += 1;
        }
        rest = after;
    }
    signatures == SIGNATURES.len()
}

/// How the lines with signatures begin, in their order.
const SIGNATURES: [&[u8]; 4] =
    [b"Signature-Input: init=", b"Signature: init=", b"Signature-Input: mac=", b"Signature: mac="];

/// The head of the ledger in the challenge that an INIT was signed for.
fn countersigned(request: &Request<'_>) -> Result<Hash, SignatureError> {
    let input = Message::Request(request).input("init")?;
    let challenge = parameter(input, "nonce").and_then(|nonce| nonce.parse::<Challenge>().ok());
    challenge.map(|challenge| Hash(challenge.log_head)).ok_or(SignatureError::Parameter)
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
