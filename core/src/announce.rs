//! ANNOUNCE: what a router tells everybody on its link, in one datagram, so that neighbours need not type keys and addresses.
//! Not responsible for sockets, for when it is said, nor for what is kept of what is heard ([`crate::discover`]).
//!
//! A head like all messages between routers (DESIGN section 6), and nothing after it. Fields of other names are for later
//! versions.
//!
//! ```text
//! POST /ANNOUNCE HTTP/1.1
//! BAMQP-Version: 1
//! BAMQP-Public-Key: YWJjZGVmZ2hpamtsbW5vcHFyc3R1dnd4eXowMTIzNDU=
//! BAMQP-Name: kitchen
//! BAMQP-Port: 7733
//! ```
//!
//! It is not signed. A signature would prove only that the sender has the key that it names, which an impostor with a key
//! of its own has, too, and would cost the listener 20 ms for every datagram of a stranger. Whose key it is a person has
//! to find out; that the router at that address has the key is proved by the first INIT (DESIGN section 7, "Who").

use core::fmt;
use core::str::FromStr;

use crate::base64::{Base64, decode_exactly};
use crate::http::request::Request;
use crate::http::write::{HeadWriter, WriteError};
use crate::http::{HeadError, decimal};
use crate::limits::{MAX_ANNOUNCEMENT_BYTES, MAX_NAME_BYTES};
use crate::message::{MessageError, required, required_number};

/// The version of the form above.
const VERSION: u32 = 1;

const PATH: &str = "/ANNOUNCE";
const KEY_FIELD: &str = "BAMQP-Public-Key";
const NAME_FIELD: &str = "BAMQP-Name";
const PORT_FIELD: &str = "BAMQP-Port";
const VERSION_FIELD: &str = "BAMQP-Version";

/// What a router says of itself. Nothing of it is proved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announcement {
    /// Its Ed25519 public key.
    pub public_key: [u8; 32],
    /// What its owner calls it.
    pub name: Name,
    /// The TCP port on which it listens for other routers, at the address that the datagram comes from; not 0.
    pub port: u16,
}

impl Announcement {
    /// Writes the datagram; its length. [`MAX_ANNOUNCEMENT_BYTES`] are always enough.
    ///
    /// # Errors
    /// If `buffer` is too small.
    pub fn write(&self, buffer: &mut [u8]) -> Result<usize, WriteError> {
        let mut head = HeadWriter::new(buffer);
        head.request("POST", PATH)
            .field_args(VERSION_FIELD, format_args!("{VERSION}"))
            .field_args(KEY_FIELD, format_args!("{}", Base64(&self.public_key)))
            .field(NAME_FIELD, self.name.as_str())
            .field_args(PORT_FIELD, format_args!("{}", self.port));
        head.finish()
    }

    /// Reads a datagram.
    ///
    /// # Errors
    /// Why it is none of this version.
    pub fn parse(datagram: &[u8]) -> Result<Announcement, AnnounceError> {
        if datagram.len() > MAX_ANNOUNCEMENT_BYTES {
            return Err(AnnounceError::TooLong);
        }
        let (head, length) =
            Request::parse(datagram).map_err(AnnounceError::Head)?.ok_or(AnnounceError::Incomplete)?;
        if length != datagram.len() {
            return Err(AnnounceError::Trailing);
        }
        if (head.method, head.target) != ("POST", PATH) {
            return Err(AnnounceError::Other);
        }
        let fields = &head.fields;
        let version: u32 = required_number(fields, VERSION_FIELD).map_err(AnnounceError::Field)?;
        if version != VERSION {
            return Err(AnnounceError::Version(version));
        }
        let malformed = |name| AnnounceError::Field(MessageError::Malformed(name));
        let text = |name| required(fields, name).map_err(AnnounceError::Field);
        let public_key = decode_exactly(text(KEY_FIELD)?.as_bytes()).ok_or(malformed(KEY_FIELD))?;
        let name = text(NAME_FIELD)?.parse().map_err(|NotAName| malformed(NAME_FIELD))?;
        let port = decimal(text(PORT_FIELD)?.as_bytes()).and_then(|port| u16::try_from(port).ok());
        let port = port.filter(|port| *port > 0).ok_or(malformed(PORT_FIELD))?;
        Ok(Announcement { public_key, name, port })
    }
}

/// Why a datagram is no announcement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnnounceError {
    /// More than [`MAX_ANNOUNCEMENT_BYTES`].
    TooLong,
    /// It is no head.
    Head(HeadError),
    /// The head does not end.
    Incomplete,
    /// Something comes after the head.
    Trailing,
    /// Another message.
    Other,
    /// A version that is not known here.
    Version(u32),
    /// This field.
    Field(MessageError),
}

impl fmt::Display for AnnounceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AnnounceError::TooLong => write!(f, "longer than {MAX_ANNOUNCEMENT_BYTES} bytes"),
            AnnounceError::Head(why) => write!(f, "{why}"),
            AnnounceError::Incomplete => f.write_str("the head does not end"),
            AnnounceError::Trailing => f.write_str("something comes after the head"),
            AnnounceError::Other => f.write_str("another message than POST /ANNOUNCE"),
            AnnounceError::Version(version) => {
                write!(f, "version {version}; version {VERSION} is understood here")
            }
            AnnounceError::Field(why) => write!(f, "{why}"),
        }
    }
}

impl core::error::Error for AnnounceError {}

/// What a router is called: 1 to [`MAX_NAME_BYTES`] letters, digits and `_`, as the name of a section in a UCI file. So it
/// can stand in a configuration, on a terminal and in a shell's command line, whoever thought it up.
#[derive(Clone, PartialEq, Eq)]
pub struct Name(heapless::String<MAX_NAME_BYTES>);

impl Name {
    /// The name that is closest to a host's name: all other characters become `_`, and what is too long is cut off.
    pub fn from_host(host: &str) -> Name {
        let mut name = heapless::String::new();
        for c in host.trim().chars() {
            // An error means that it is full.
            let _ = name.push(if c.is_ascii_alphanumeric() { c } else { '_' });
        }
        if name.is_empty() {
            let _ = name.push_str("router");
        }
        Name(name)
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = NotAName;

    fn from_str(text: &str) -> Result<Name, NotAName> {
        let is_good = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        let name = heapless::String::try_from(text).map_err(|_| NotAName)?;
        if text.is_empty() || !text.bytes().all(is_good) { Err(NotAName) } else { Ok(Name(name)) }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Not 1 to [`MAX_NAME_BYTES`] letters, digits and `_`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAName;

impl fmt::Display for NotAName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "expected 1 to {MAX_NAME_BYTES} letters, digits and _")
    }
}

impl core::error::Error for NotAName {}
