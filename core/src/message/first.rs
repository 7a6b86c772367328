//! The first coordinator's word: what of its signed INIT travels along where a router passes work on to its own peers
//! (DESIGN section 6). Not responsible for whether its signature fits ([`crate::signature::verify_first`]).
//!
//! All the rest of that INIT is in the one that it travels in: session, target, size, validator, and the client's fields are
//! the same, and its `BAMQP-Hops` was 0.

use core::fmt;

use super::{Fingerprint, MessageError, optional, parsed, required};
use crate::base64::{Base64, decode_exactly};
use crate::channel::Challenge;
use crate::http::fields::Fields;
use crate::http::write::HeadWriter;

/// What the first coordinator signed, besides what stands in the INIT that this is a part of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct First<'b> {
    /// Its Ed25519 public key. Nobody on the way has to know it; the signature makes sure that it is the one who asked.
    pub key: [u8; 32],
    /// The router that it asked.
    pub recipient: Fingerprint,
    /// `Host` of that INIT.
    pub host: &'b str,
    /// The challenge that it answered.
    pub challenge: Challenge,
    /// Its `init` signature.
    pub signature: [u8; 64],
}

const KEY: &str = "BAMQP-First-Key";
const RECIPIENT: &str = "BAMQP-First-Recipient";
const HOST: &str = "BAMQP-First-Host";
const CHALLENGE: &str = "BAMQP-First-Challenge";
const SIGNATURE: &str = "BAMQP-First-Signature";

impl<'b> First<'b> {
    pub(super) fn write(&self, head: &mut HeadWriter<'_>) {
        head.field_args(KEY, format_args!("{}", Base64(&self.key)))
            .field_args(RECIPIENT, format_args!("{}", self.recipient))
            .field_args(HOST, format_args!("{}", self.host))
            .field_args(CHALLENGE, format_args!("{}", self.challenge))
            .field_args(SIGNATURE, format_args!("{}", Base64(&self.signature)));
    }

    /// It is in an INIT that has passed a router, and in no other.
    pub(super) fn parse(fields: &Fields<'b>, hops: u8) -> Result<Option<First<'b>>, MessageError> {
        if hops == 0 {
            let is_there = |name: &&&'static str| !matches!(optional(fields, name), Ok(None));
            let found = [KEY, RECIPIENT, HOST, CHALLENGE, SIGNATURE];
            return found.iter().find(is_there).map_or(Ok(None), |name| Err(MessageError::Malformed(name)));
        }
        Ok(Some(First {
            key: binary(fields, KEY)?,
            recipient: parsed(fields, RECIPIENT)?,
            host: required(fields, HOST)?,
            challenge: parsed(fields, CHALLENGE)?,
            signature: binary(fields, SIGNATURE)?,
        }))
    }
}

fn binary<const N: usize>(fields: &Fields<'_>, name: &'static str) -> Result<[u8; N], MessageError> {
    decode_exactly(required(fields, name)?.as_bytes()).ok_or(MessageError::Malformed(name))
}

impl fmt::Display for First<'_> {
    /// Who asked whom.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} asked {}", Fingerprint::of(&self.key), self.recipient)
    }
}
