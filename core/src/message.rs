//! The messages between routers (DESIGN section 6), typed <-> HTTP heads. Not responsible for who may send
//! them or for signatures, which are fields added to the same heads.
//!
//! [`PeerRequest::parse`] reads what a coordinator sends; [`init::Answer`], [`hello::Hello`],
//! [`drop::Drop::of_answer`] and [`drop::Summary`] read what the peer answers.

use core::fmt;
use core::str::FromStr;

use sha2::{Digest, Sha256};

use crate::http::decimal;
use crate::http::fields::Fields;
use crate::http::request::Request;
use crate::http::validator::NoValidator;

pub mod chunk;
pub mod drop;
pub mod feedback;
pub mod first;
pub mod hello;
pub mod init;
pub mod reason;

/// A request from another router. INIT is larger than the others by its validator; there is no heap to put it
/// on, and one is handled at a time.
#[allow(clippy::large_enum_variant)]
#[derive(Clone, Debug)]
pub enum PeerRequest<'b> {
    /// `GET /HELLO`, perhaps about a session.
    Hello(Option<SessionId>),
    /// `POST /INIT`.
    Init(init::Init<'b>),
    /// `GET /CHUNK`.
    Chunk(chunk::Chunk),
    /// `POST /DROP`.
    Drop(drop::Drop),
    /// `POST /FEEDBACK`.
    Feedback(feedback::Feedback),
}

impl<'b> PeerRequest<'b> {
    /// Which message `request` is.
    ///
    /// # Errors
    /// [`MessageError::Unknown`] (404) for another path or method, else which field is wrong (400).
    pub fn parse(request: &Request<'b>) -> Result<PeerRequest<'b>, MessageError> {
        match (request.method, request.target) {
            ("GET", "/HELLO") => hello::parse_request(&request.fields).map(PeerRequest::Hello),
            ("POST", "/INIT") => init::Init::parse(&request.fields).map(PeerRequest::Init),
            ("GET", "/CHUNK") => chunk::Chunk::parse(&request.fields).map(PeerRequest::Chunk),
            ("POST", "/DROP") => drop::Drop::of_request(&request.fields).map(PeerRequest::Drop),
            ("POST", "/FEEDBACK") => feedback::Feedback::parse(&request.fields).map(PeerRequest::Feedback),
            _ => Err(MessageError::Unknown),
        }
    }
}

// 128 bits that are 32 lower-case hexadecimal digits on the wire.
macro_rules! hex_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash)]
        pub struct $name(pub [u8; 16]);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(str::from_utf8(&to_hex(&self.0)).unwrap_or_default())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{self}")
            }
        }

        impl FromStr for $name {
            type Err = NotHex;

            fn from_str(text: &str) -> Result<Self, NotHex> {
                from_hex(text).map($name)
            }
        }
    };
}

hex_id! {
    /// Names a session: public, random; 32 lower-case hexadecimal digits on the wire.
    SessionId
}

hex_id! {
    /// Names a router: the first 16 bytes of the SHA-256 of its public key; 32 lower-case hexadecimal digits on
    /// the wire.
    Fingerprint
}

impl Fingerprint {
    /// Of an Ed25519 public key.
    pub fn of(key: &[u8; 32]) -> Fingerprint {
        let mut half = [0; 16];
        half.iter_mut().zip(Sha256::digest(key)).for_each(|(to, from)| *to = from);
        Fingerprint(half)
    }
}

/// `N` bytes of `2 N` lower-case hexadecimal digits.
pub(crate) fn from_hex<const N: usize>(text: &str) -> Result<[u8; N], NotHex> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Ok(byte - b'0'),
        b'a'..=b'f' => Ok(byte - b'a' + 10),
        _ => Err(NotHex),
    };
    if text.len() != 2 * N {
        return Err(NotHex);
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let [high, low] = pair else { return Err(NotHex) };
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Ok(bytes)
}

/// Lower-case hexadecimal digits, two for each byte; by hand, since the formatting machinery takes 4,000 instructions for
/// 32, and they stand in every CHUNK.
fn to_hex(bytes: &[u8; 16]) -> [u8; 32] {
    let digit = |nibble: u8| if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 };
    let mut hex = [0; 32];
    for (pair, byte) in hex.chunks_exact_mut(2).zip(bytes) {
        pair.copy_from_slice(&[digit(byte >> 4), digit(byte & 15)]);
    }
    hex
}

/// Not the right number of lower-case hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotHex;

impl fmt::Display for NotHex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("expected lower-case hexadecimal digits, two for each byte")
    }
}

impl core::error::Error for NotHex {}

/// Why a head is no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageError {
    /// No message has this method and path.
    Unknown,
    /// An answer with a status that the message does not have.
    Status(u16),
    /// This field is missing.
    Missing(&'static str),
    /// This field is repeated or malformed.
    Malformed(&'static str),
    /// No strong validator in an INIT.
    Validator(NoValidator),
}

impl fmt::Display for MessageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MessageError::Unknown => f.write_str("no such message"),
            MessageError::Status(status) => write!(f, "status {status} is no answer to this message"),
            MessageError::Missing(name) => write!(f, "the field {name} is missing"),
            MessageError::Malformed(name) => write!(f, "the field {name} is repeated or malformed"),
            MessageError::Validator(why) => write!(f, "{why}"),
        }
    }
}

impl core::error::Error for MessageError {}

/// Whether `value` is displayed as `text`, so that each token is written down once.
pub(crate) fn is_displayed_as(value: &impl fmt::Display, text: &str) -> bool {
    struct Rest<'a>(&'a str);
    impl fmt::Write for Rest<'_> {
        fn write_str(&mut self, part: &str) -> fmt::Result {
            self.0 = self.0.strip_prefix(part).ok_or(fmt::Error)?;
            Ok(())
        }
    }
    let mut rest = Rest(text);
    fmt::write(&mut rest, format_args!("{value}")).is_ok() && rest.0.is_empty()
}

/// The only value of a field.
fn optional<'b>(fields: &Fields<'b>, name: &'static str) -> Result<Option<&'b str>, MessageError> {
    let value = fields.only(name).map_err(|_| MessageError::Malformed(name))?;
    let text = value.map(core::str::from_utf8).transpose();
    text.map_err(|_| MessageError::Malformed(name))
}

pub(crate) fn required<'b>(fields: &Fields<'b>, name: &'static str) -> Result<&'b str, MessageError> {
    optional(fields, name)?.ok_or(MessageError::Missing(name))
}

fn parsed<T: FromStr>(fields: &Fields<'_>, name: &'static str) -> Result<T, MessageError> {
    required(fields, name)?.parse().map_err(|_| MessageError::Malformed(name))
}

/// A number of ASCII digits that fits into `T`.
fn number<T: TryFrom<u64>>(text: &str, name: &'static str) -> Result<T, MessageError> {
    let value = decimal(text.as_bytes()).and_then(|value| T::try_from(value).ok());
    value.ok_or(MessageError::Malformed(name))
}

pub(crate) fn required_number<T: TryFrom<u64>>(
    fields: &Fields<'_>,
    name: &'static str,
) -> Result<T, MessageError> {
    number(required(fields, name)?, name)
}

/// `Retry-After` in seconds; 0 if it is missing.
fn retry_after(fields: &Fields<'_>) -> Result<u32, MessageError> {
    optional(fields, "Retry-After")?.map_or(Ok(0), |text| number(text, "Retry-After"))
}
