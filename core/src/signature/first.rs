//! The first coordinator's signed INIT, put together again from the INIT that it travels in, so that it can be verified like
//! any other. Not responsible for how it travels ([`crate::message::first`]).

use super::sign::append;
use super::{Kind, Message, SignError, SignatureError, verify_init};
use crate::http::request::Request;
use crate::http::write::HeadWriter;
use crate::limits::MAX_PEER_HEAD_BYTES;
use crate::message::Fingerprint;
use crate::message::first::First;
use crate::message::init::Init;

/// Bytes of buffer that putting it together takes: an INIT, and as much again.
pub const FIRST_BUFFER_BYTES: usize = 2 * MAX_PEER_HEAD_BYTES;

/// The head of the first coordinator's INIT up to its `init` signature, and an empty line; `init` is one that it travels
/// in. `buffer` has [`FIRST_BUFFER_BYTES`].
///
/// # Errors
/// [`SignError`] if there can't have been such a head.
fn put_together<'b>(init: &Init<'_>, first: &First<'_>, buffer: &'b mut [u8]) -> Result<&'b [u8], SignError> {
    let original = Init { hops: 0, recipient: first.recipient, first: None, ..init.clone() };
    let mut head = HeadWriter::new(buffer);
    original.write(&mut head, &first.host);
    let (buffer, length) = head.finish_in_place()?;
    let signer = Fingerprint::of(&first.key);
    let kind = Kind::Init(&first.challenge);
    let (length, _) = append(buffer, length, None, kind, signer, &mut |_, _, _| Ok(first.signature))?;
    Ok(buffer.get(..length).unwrap_or_default())
}

/// Whether the first coordinator signed what `init` asks for, which is from the router `asker`: if that one says that it was
/// asked by the first coordinator itself, it must be the one that was asked. Costs one Ed25519 operation. `buffer` has
/// [`FIRST_BUFFER_BYTES`].
///
/// # Errors
/// [`SignatureError::Missing`] if nothing of it travels along, else what is wrong with it.
pub fn verify_first(init: &Init<'_>, asker: Fingerprint, buffer: &mut [u8]) -> Result<(), SignatureError> {
    let first = init.first.as_ref().ok_or(SignatureError::Missing)?;
    if init.hops == 1 && first.recipient != asker {
        return Err(SignatureError::Mismatch);
    }
    let head = put_together(init, first, buffer).map_err(|_| SignatureError::Malformed)?;
    match Request::parse(head) {
        Ok(Some((request, _))) => verify_init(&request, &first.key),
        _ => Err(SignatureError::Malformed),
    }
}

/// What travels along if the work of `init` is passed on: the same that came, or `init` itself, if it is from its coordinator,
/// who has this public key. `head` is all of it, its signatures were verified; `challenge` is the one that it answered. `None`
/// if it is not written in the way in which it could be put together again. `buffer` has [`FIRST_BUFFER_BYTES`].
pub fn first_of<'b>(
    init: &Init<'b>,
    request: &Request<'b>,
    head: &[u8],
    coordinator: [u8; 32],
    challenge: super::Challenge,
    buffer: &mut [u8],
) -> Option<First<'b>> {
    if init.first.is_some() {
        return init.first;
    }
    let host = core::str::from_utf8(request.fields.get("Host")?).ok()?;
    let signature = Message::Request(request).signature("init").ok()?;
    let first = First { key: coordinator, recipient: init.recipient, host, challenge, signature };
    let again = put_together(init, &first, buffer).ok()?;
    head.starts_with(again.strip_suffix(b"\r\n")?).then_some(first)
}
