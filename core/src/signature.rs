//! HTTP Message Signatures (RFC 9421) over the messages between routers: which signature goes where, and whether one
//! fits. Not responsible for keys, challenges and the order of messages ([`crate::channel`]).
//!
//! A signature covers **everything** in its head: a message with a field added, removed or changed is refused.
//!
//! | message | label | algorithm, key | covered components, in this order | parameters |
//! |---|---|---|---|---|
//! | INIT | `init` | `ed25519`, the coordinator's | `"@method" "@authority" "@path"`, every field: `"content-length" "bamqp-session" "bamqp-target" "bamqp-size"`, `"etag"` or `"last-modified"`, `"bamqp-hops" "bamqp-recipient"`, with hops the five `"bamqp-first-…"`, and `"user-agent" "accept"` if the client sent them | `nonce` = the challenge, `keyid`, `alg`, `tag` |
//! | INIT | `mac` | `hmac-sha256`, session key | the same, `"signature-input";key="init" "signature";key="init"` | `keyid`, `alg`, `tag` |
//! | CHUNK | `mac` | `hmac-sha256`, session key | `"@method" "@authority" "@path"`, every field: `"bamqp-session" "range" "bamqp-sequence"` | as above |
//! | DROP, FEEDBACK | `mac` | `hmac-sha256`, session key | `"@method" "@authority" "@path"`, every field | as above |
//! | all answers (ACCEPT, DECLINE, 206, DROP, summary) | `mac` | `hmac-sha256`, session key of the other direction | `"@status"`, every field, `"signature";req;key="mac"` | as above |
//!
//! Every field means: all lines of the head in their order, names in lower case, without `Host` (it is `@authority`),
//! `Signature-Input` and `Signature`; no field comes twice. `keyid` is the signer's fingerprint, `tag` is `bamqp`,
//! there is no `created`: these routers have no clock. A `Signature-Input` that differs from that in one byte is refused,
//! so nothing of it has to be interpreted. HELLO is not signed: what it says is only a hint until INIT was accepted.
//!
//! An INIT goes with two pairs of lines, in the order `init`, `mac`; RFC 8941 section 3.2 lets a dictionary have several.
//! Of what else HTTP allows, nothing is accepted in it ([`crate::ledger::evidence::is_plain`]): the log's readers use other
//! tools.
//! Its `init` signature is verified by any library for RFC 9421 that has the coordinator's public key. Where libraries
//! would differ about an `ed25519` signature (RFC 8032 section 5.1.7) it is refused.

mod base;
mod first;
mod sign;
mod subgroup;
mod terms;

use core::fmt;

use ed25519_compact::{PublicKey, Signature};
use hmac::{Hmac, Mac as _};
use sha2::Sha256;

use crate::base64;
use crate::channel::Challenge;
use crate::http::fields::Fields;
use crate::http::request::Request;
use crate::http::response::Response;
use crate::message::Fingerprint;

pub use self::base::is_signable;
use self::base::{member, write_base};
pub use self::first::{FIRST_BUFFER_BYTES, first_of, verify_first};
pub use self::sign::SignError;
pub(crate) use self::sign::{sign_ed25519, sign_hmac};
pub(crate) use self::subgroup::is_in_group;
use self::terms::Terms;
pub(crate) use self::terms::{Kind, parameter};

/// The value of an `hmac-sha256` signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mac(pub [u8; 32]);

/// A head that has or gets a signature.
#[derive(Clone, Copy, Debug)]
pub enum Message<'m, 'b> {
    /// A request.
    Request(&'m Request<'b>),
    /// An answer to the request that had this MAC.
    Answer(&'m Response<'b>, Mac),
}

impl<'b> Message<'_, 'b> {
    /// Its fields.
    pub fn fields(&self) -> &Fields<'b> {
        match self {
            Message::Request(request) => &request.fields,
            Message::Answer(response, _) => &response.fields,
        }
    }

    /// The value of `Signature-Input` that has this label.
    pub(crate) fn input(&self, label: &str) -> Result<&'b str, SignatureError> {
        member(self.fields(), "Signature-Input", label)?.ok_or(SignatureError::Missing)
    }

    /// The signature that has this label.
    pub(crate) fn signature<const N: usize>(&self, label: &str) -> Result<[u8; N], SignatureError> {
        let text = member(self.fields(), "Signature", label)?.ok_or(SignatureError::Missing)?;
        let digits = text.strip_prefix(':').and_then(|text| text.strip_suffix(':'));
        digits.and_then(|digits| base64::decode_exactly(digits.as_bytes())).ok_or(SignatureError::Malformed)
    }
}

/// Whether the `hmac-sha256` signature `label` fits (RFC 9421 section 3.3.3). What it covers is not looked at.
///
/// # Errors
/// [`SignatureError`].
pub fn verify_hmac(message: &Message<'_, '_>, label: &str, key: &[u8]) -> Result<Mac, SignatureError> {
    let signature = message.signature(label)?;
    let state = hmac(message, message.input(label)?, key)?;
    // Compared in constant time.
    state.verify_slice(&signature).map_err(|_| SignatureError::Mismatch)?;
    Ok(Mac(signature))
}

fn hmac(message: &Message<'_, '_>, input: &str, key: &[u8]) -> Result<Hmac<Sha256>, SignatureError> {
    // Keys of any length do.
    let mut state = Hmac::<Sha256>::new_from_slice(key).map_err(|_| SignatureError::Mismatch)?;
    write_base(message, input, &mut |part| state.update(part))?;
    Ok(state)
}

/// Whether the `ed25519` signature `label` fits (RFC 9421 section 3.3.6). What it covers is not looked at, nor whether
/// the key is one that [`crate::channel::Identity::agree`] accepts.
///
/// # Errors
/// [`SignatureError`].
pub fn verify_ed25519(message: &Message<'_, '_>, label: &str, key: &[u8; 32]) -> Result<(), SignatureError> {
    let bytes: [u8; 64] = message.signature(label)?;
    let signature = Signature::new(bytes);
    let input = message.input(label)?;
    let state = PublicKey::new(*key).verify_incremental(&signature);
    let mut state = state.map_err(|_| SignatureError::Mismatch)?;
    write_base(message, input, &mut |part| state.absorb(part))?;
    state.verify().map_err(|_| SignatureError::Mismatch)?;
    let is_strict = bytes.first_chunk().is_some_and(is_in_group);
    if is_strict { Ok(()) } else { Err(SignatureError::Mismatch) }
}

/// Whether an INIT was signed by the coordinator that has this public key: with the head alone, as it stands in a log,
/// and for good. Not whether it was meant for anybody who could then refuse it: a MAC proves nothing to others.
///
/// # Errors
/// [`SignatureError`].
pub fn verify_init(head: &Request<'_>, coordinator: &[u8; 32]) -> Result<(), SignatureError> {
    let message = Message::Request(head);
    if (head.method, head.target) != ("POST", "/INIT") {
        return Err(SignatureError::Coverage);
    }
    let input = message.input("init")?;
    let nonce = parameter(input, "nonce").and_then(|nonce| nonce.parse().ok());
    let challenge = nonce.ok_or(SignatureError::Parameter)?;
    check_terms(&message, Kind::Init(&challenge), Fingerprint::of(coordinator))?;
    if !is_in_group(coordinator) {
        return Err(SignatureError::Mismatch);
    }
    verify_ed25519(&message, "init", coordinator)
}

/// Whether the signature of this kind covers what it has to, under the name of `signer`.
pub(crate) fn check_terms(
    message: &Message<'_, '_>,
    kind: Kind<'_>,
    signer: Fingerprint,
) -> Result<(), SignatureError> {
    if has_duplicates(message.fields()) {
        return Err(SignatureError::Duplicate);
    }
    let input = message.input(kind.label())?;
    if (Terms { message, kind, signer }).are_those_of(input) {
        return Ok(());
    }
    let (signer, named) = (signer, parameter(input, "keyid").and_then(|keyid| keyid.parse().ok()));
    Err(if named == Some(signer) { SignatureError::Coverage } else { SignatureError::Parameter })
}

fn has_duplicates(fields: &Fields<'_>) -> bool {
    let is_dictionary =
        |name: &str| ["Signature-Input", "Signature"].iter().any(|other| other.eq_ignore_ascii_case(name));
    fields.iter().any(|field| !is_dictionary(field.name) && fields.count(field.name) > 1)
}

/// Why a message was not signed as it has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignatureError {
    /// It has no signature of this label.
    Missing,
    /// Its signature fields can't be understood.
    Malformed,
    /// It has a field twice.
    Duplicate,
    /// The signature covers something else than it has to.
    Coverage,
    /// The signature's key id, algorithm, tag or nonce is not the one that it has to be.
    Parameter,
    /// Something is covered that the message has not, or that is not ASCII.
    Component,
    /// The signature does not fit the message and the key.
    Mismatch,
}

impl fmt::Display for SignatureError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SignatureError::Missing => "there is no signature",
            SignatureError::Malformed => "the signature fields are malformed",
            SignatureError::Duplicate => "a field comes twice",
            SignatureError::Coverage => "the signature does not cover exactly what it has to",
            SignatureError::Parameter => "another key id, algorithm, tag or nonce than expected",
            SignatureError::Component => "a covered component is missing or not ASCII",
            SignatureError::Mismatch => "the signature does not fit",
        })
    }
}

impl core::error::Error for SignatureError {}
