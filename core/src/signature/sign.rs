//! Adds signatures to heads that were just written. Not responsible for what they cover ([`super::terms`]).

use core::fmt;

use ed25519_compact::SecretKey;
use hmac::Mac as _;

use super::base::write_base;
use super::terms::{Kind, Terms};
use super::{Mac, Message, SignatureError, has_duplicates, hmac};
use crate::base64::Base64;
use crate::http::request::Request;
use crate::http::response::Response;
use crate::http::write::{HeadWriter, WriteError};
use crate::message::Fingerprint;

/// Adds an `hmac-sha256` signature to the complete head of `length` bytes in `buffer`: to an answer of the request that
/// had the MAC `to`, or to a request. How long the head is then, and the MAC.
///
/// # Errors
/// [`SignError`]; the head is as it was.
pub(crate) fn sign_hmac(
    buffer: &mut [u8],
    length: usize,
    to: Option<Mac>,
    kind: Kind<'_>,
    signer: Fingerprint,
    key: &[u8],
) -> Result<(usize, Mac), SignError> {
    let make: Make<'_, 32> =
        &mut |message, input, _| Ok(hmac(message, input, key)?.finalize().into_bytes().into());
    let (length, mac) = append(buffer, length, to, kind, signer, make)?;
    Ok((length, Mac(mac)))
}

/// Adds an `ed25519` signature to the complete head of a request, of `length` bytes in `buffer`, which has room for about
/// as much again. How long it is then.
///
/// # Errors
/// [`SignError`]; the head is as it was.
pub(crate) fn sign_ed25519(
    buffer: &mut [u8],
    length: usize,
    kind: Kind<'_>,
    signer: Fingerprint,
    key: &SecretKey,
) -> Result<usize, SignError> {
    // A deterministic signature (RFC 8032) reads its message twice, so that is put together: in the room behind the head,
    // since the threads that sign have small stacks.
    let make: Make<'_, 64> = &mut |message, input, room| {
        let mut end = 0;
        let mut fits = true;
        write_base(message, input, &mut |part| {
            match room.get_mut(end..end + part.len()) {
                Some(place) => place.copy_from_slice(part),
                None => fits = false,
            }
            end += part.len();
        })?;
        let base = room.get(..end).filter(|_| fits).ok_or(WriteError::Overflow)?;
        Ok(*key.sign(base, None))
    };
    append(buffer, length, None, kind, signer, make).map(|(length, _)| length)
}

/// Makes the signature of a message under this `Signature-Input`; it may use the room that it is given.
pub(super) type Make<'m, const N: usize> =
    &'m mut dyn FnMut(&Message<'_, '_>, &str, &mut [u8]) -> Result<[u8; N], SignError>;

/// Adds the two lines of one signature to the complete head of `length` bytes; how long it is then, and the signature.
pub(super) fn append<const N: usize>(
    buffer: &mut [u8],
    length: usize,
    to: Option<Mac>,
    kind: Kind<'_>,
    signer: Fingerprint,
    make: Make<'_, N>,
) -> Result<(usize, [u8; N]), SignError> {
    let (head, room) = buffer.split_at_mut_checked(length).ok_or(SignError::Unsignable)?;
    let (added, value) = match to {
        None => of_request(head, room, kind, signer, make)?,
        Some(mac) => of_answer(head, mac, room, kind, signer, make)?,
    };
    // The lines take the place of the empty one that ended the head; their own comes after them.
    let start = length.checked_sub(EMPTY_LINE.len()).ok_or(SignError::Unsignable)?;
    buffer.copy_within(length..length + added, start);
    Ok((start + added, value))
}

// Two functions, so that only one parsed head (2 KiB) at a time is on the stack.
#[inline(never)]
fn of_request<const N: usize>(
    head: &[u8],
    room: &mut [u8],
    kind: Kind<'_>,
    signer: Fingerprint,
    make: Make<'_, N>,
) -> Result<(usize, [u8; N]), SignError> {
    let (request, _) = Request::parse(head).ok().flatten().ok_or(SignError::Unsignable)?;
    write_lines(room, &Message::Request(&request), kind, signer, make)
}

#[inline(never)]
fn of_answer<const N: usize>(
    head: &[u8],
    to: Mac,
    room: &mut [u8],
    kind: Kind<'_>,
    signer: Fingerprint,
    make: Make<'_, N>,
) -> Result<(usize, [u8; N]), SignError> {
    let (response, _) = Response::parse(head).ok().flatten().ok_or(SignError::Unsignable)?;
    write_lines(room, &Message::Answer(&response, to), kind, signer, make)
}

const EMPTY_LINE: &str = "\r\n";
const INPUT: &str = "Signature-Input";

/// Writes the two signature fields and an empty line.
fn write_lines<const N: usize>(
    room: &mut [u8],
    message: &Message<'_, '_>,
    kind: Kind<'_>,
    signer: Fingerprint,
    make: Make<'_, N>,
) -> Result<(usize, [u8; N]), SignError> {
    if has_duplicates(message.fields()) {
        return Err(SignError::Unsignable);
    }
    let label = kind.label();
    let mut line = HeadWriter::new(room);
    line.field_args(INPUT, format_args!("{label}={}", Terms { message, kind, signer }));
    let first = line.finish()? - EMPTY_LINE.len();
    let (written, room) = room.split_at_mut_checked(first).ok_or(SignError::Unsignable)?;
    let input = written.get(INPUT.len() + ": ".len() + label.len() + "=".len()..first - EMPTY_LINE.len());
    let input = input.and_then(|input| core::str::from_utf8(input).ok()).ok_or(SignError::Unsignable)?;
    let value = make(message, input, room)?;
    let mut line = HeadWriter::new(room);
    line.field_args("Signature", format_args!("{label}=:{}:", Base64(&value)));
    Ok((first + line.finish()?, value))
}

/// Why a head could not be signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignError {
    /// It could not be written, or the signature does not fit in.
    Write(WriteError),
    /// It has a field twice, or a value that is not ASCII.
    Unsignable,
}

impl From<WriteError> for SignError {
    fn from(error: WriteError) -> Self {
        SignError::Write(error)
    }
}

impl From<SignatureError> for SignError {
    /// A message of our own lacks nothing else.
    fn from(_: SignatureError) -> Self {
        SignError::Unsignable
    }
}

impl fmt::Display for SignError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SignError::Write(error) => write!(f, "{error}"),
            SignError::Unsignable => f.write_str("a field that comes twice or is not ASCII can't be signed"),
        }
    }
}

impl core::error::Error for SignError {}
