//! Work that another router has asked for and that goes on to our own peers: whose it is first of all, and how far it has
//! come. Not responsible for doing it ([`crate::delegate`]).

use bamqp_core::channel::Challenge;
use bamqp_core::http::request::Request;
use bamqp_core::message::Fingerprint;
use bamqp_core::message::first::First;
use bamqp_core::message::init::Init;
use bamqp_core::signature::{FIRST_BUFFER_BYTES, first_of};

/// What our INITs to peers say of it.
#[derive(Debug)]
pub struct Commission {
    /// The router that has asked us.
    pub coordinator: Fingerprint,
    /// How many routers the session has passed when it leaves us.
    pub hops: u8,
    key: [u8; 32],
    recipient: Fingerprint,
    host: Box<str>,
    challenge: Challenge,
    signature: [u8; 64],
}

impl Commission {
    /// Of an INIT that was verified; `head` is all of it, which is of the router with this public key and answers this
    /// challenge. `None` if it can't be passed on: it is in a form of its own, or has passed 255 routers.
    pub fn of(
        init: &Init<'_>,
        request: &Request<'_>,
        head: &[u8],
        key: [u8; 32],
        challenge: Challenge,
    ) -> Option<Commission> {
        let mut buffer = vec![0; FIRST_BUFFER_BYTES];
        let first = first_of(init, request, head, key, challenge, &mut buffer)?;
        let First { key: first_key, recipient, host, challenge, signature } = first;
        Some(Commission {
            coordinator: Fingerprint::of(&key),
            hops: init.hops.checked_add(1)?,
            key: first_key,
            recipient,
            host: host.into(),
            challenge,
            signature,
        })
    }

    /// What travels along.
    pub fn first(&self) -> First<'_> {
        let Commission { key, recipient, ref host, challenge, signature, .. } = *self;
        First { key, recipient, host, challenge, signature }
    }
}
