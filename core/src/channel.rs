//! Who may say what to whom within a session: the keys of two routers and of their session, and whether a message is
//! authentic, fresh, and in its place. Not responsible for how a signature looks ([`crate::signature`]), nor for who is
//! trusted.
//!
//! ```text
//! K            = X25519(own Ed25519 key, the other's), once per boot and router
//! session keys = HKDF-SHA256(salt: challenge, K, "BAMQP session 1" | session id | coordinator | peer | direction)
//!
//! coordinator                                       peer
//!     ── HELLO ────────────────────────────────────▶    a fresh challenge: head of the log and 128 random bits
//!     ◀────────────────────────────────── challenge ──   (good for one INIT on this connection)
//! Identity::seal_init                                   Introduced::by, which checks the MAC;
//!     ── INIT: ed25519 over everything, MAC ───────▶    then Introduced::verify_signature
//! Caller::check                                         Callee::seal
//!     ◀────────────── ACCEPT: MAC, over INIT's too ──
//! Caller::seal                                          Callee::check
//!     ── CHUNK 0.1, 0.2, …: MAC ───────────────────▶
//!     ◀──────── 206: MAC, over that of its CHUNK ────
//! ```
//!
//! A message is named by the connection that it came on and its place there, both counted from 0 within the session:
//! `BAMQP-Sequence: 1.4`. INIT is 0.0. On a connection every request has the number after the one before; each connection
//! has another number, which is used once. So what was recorded can't be sent again, neither on the same connection nor on
//! another, and nothing can be left out or exchanged. An answer has its request's number and covers its MAC.
//!
//! A MAC costs some 15 SHA-256 blocks, an Ed25519 operation as much as 2000 of them. It is a coordinator's only once an
//! INIT's MAC fits, and then one per session; [`Tally`] counts.

mod challenge;
mod keys;
mod sequence;

use core::fmt;
use core::str::FromStr;
use core::sync::atomic::{AtomicU32, Ordering};

use crate::http::request::Request;
use crate::http::response::Response;
use crate::http::write::{HeadWriter, WriteError};
use crate::limits::MAX_PEER_HEAD_BYTES;
use crate::message::init::Init;
use crate::message::{Fingerprint, is_displayed_as};
use crate::signature::{
    Kind, Mac, Message, SignError, SignatureError, check_terms, parameter, sign_ed25519, sign_hmac,
    verify_ed25519, verify_hmac,
};

pub use self::challenge::Challenge;
use self::keys::SessionKeys;
pub use self::keys::{Identity, Neighbour, WeakKey, check_key};
use self::sequence::SEQUENCE;
pub use self::sequence::{Incoming, Links, Outgoing, Sequence};

/// Cryptographic operations that were done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// `hmac-sha256`, made and verified.
    pub macs: u32,
    /// `ed25519` signatures made.
    pub signed: u32,
    /// `ed25519` signatures verified.
    pub verified: u32,
}

/// Why a message is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It has no signature.
    Unsigned,
    /// Its signature fields are malformed, or don't cover what they have to; or an INIT is not written plainly
    /// ([`crate::ledger::evidence::is_plain`]).
    Coverage,
    /// It is signed in the name of a router that is not configured.
    UnknownKey,
    /// It is for another router.
    WrongRecipient,
    /// The challenge that it answers is none that is open on its connection.
    StaleChallenge,
    /// Its MAC does not fit: it was changed, or is not from where it says.
    BadMac,
    /// Its `ed25519` signature does not fit although the MAC does: its sender is broken, or wants to deny it later.
    BadSignature,
    /// It came before, or its connection's number was used before.
    Replayed,
    /// Others that belong before it did not come.
    OutOfOrder,
}

impl Refusal {
    /// All of them.
    pub const ALL: [Refusal; 9] = [
        Refusal::Unsigned,
        Refusal::Coverage,
        Refusal::UnknownKey,
        Refusal::WrongRecipient,
        Refusal::StaleChallenge,
        Refusal::BadMac,
        Refusal::BadSignature,
        Refusal::Replayed,
        Refusal::OutOfOrder,
    ];

    /// Its place in [`Refusal::ALL`], for counting.
    pub fn index(self) -> usize {
        Refusal::ALL.iter().position(|other| *other == self).unwrap_or(0)
    }

    fn of_mac(error: SignatureError) -> Refusal {
        match error {
            SignatureError::Missing => Refusal::Unsigned,
            SignatureError::Mismatch => Refusal::BadMac,
            _ => Refusal::Coverage,
        }
    }
}

/// The token in `BAMQP-Reason`.
impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Refusal::Unsigned => "unsigned",
            Refusal::Coverage => "wrong-coverage",
            Refusal::UnknownKey => "unknown-key",
            Refusal::WrongRecipient => "wrong-recipient",
            Refusal::StaleChallenge => "stale-challenge",
            Refusal::BadMac => "bad-mac",
            Refusal::BadSignature => "bad-signature",
            Refusal::Replayed => "replayed",
            Refusal::OutOfOrder => "out-of-order",
        })
    }
}

impl FromStr for Refusal {
    type Err = UnknownRefusal;

    fn from_str(text: &str) -> Result<Self, UnknownRefusal> {
        Refusal::ALL.into_iter().find(|refusal| is_displayed_as(refusal, text)).ok_or(UnknownRefusal)
    }
}

impl core::error::Error for Refusal {}

/// No refusal has this token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownRefusal;

impl fmt::Display for UnknownRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("unknown refusal")
    }
}

impl core::error::Error for UnknownRefusal {}

/// A request, as its answer refers to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reference {
    /// Its number.
    pub sequence: Sequence,
    /// Its MAC.
    pub mac: Mac,
}

impl Identity {
    /// Signs an INIT that was written into `head`, up to its last field, whose buffer has room for twice
    /// [`MAX_PEER_HEAD_BYTES`]. How long the head is, the coordinator's side of the session, and what the answer has to
    /// refer to. Costs one Ed25519 operation.
    ///
    /// # Errors
    /// [`SignError`]; also if the head is longer than it may be.
    pub fn seal_init(
        &self,
        head: HeadWriter<'_>,
        init: &Init<'_>,
        peer: &Neighbour,
        challenge: &Challenge,
        tally: &mut Tally,
    ) -> Result<(usize, Caller, Reference), SignError> {
        let me = self.fingerprint();
        let keys = SessionKeys::derive(peer, challenge, init.session, me, peer.fingerprint);
        let (buffer, length) = head.finish_in_place()?;
        let length = sign_ed25519(buffer, length, Kind::Init(challenge), me, self.signing_key())?;
        tally.signed += 1;
        let (length, mac) = sign_hmac(buffer, length, None, Kind::InitMac, me, &keys.to_peer)?;
        tally.macs += 1;
        if length > MAX_PEER_HEAD_BYTES {
            return Err(SignError::Write(WriteError::Overflow));
        }
        let caller = Caller { keys, me, peer: peer.fingerprint, links: AtomicU32::new(1) };
        Ok((length, caller, Reference { sequence: Sequence::INIT, mac }))
    }
}

/// The coordinator's side of a session with one peer.
#[derive(Debug)]
pub struct Caller {
    keys: SessionKeys,
    me: Fingerprint,
    peer: Fingerprint,
    /// How many connections got a number.
    links: AtomicU32,
}

impl Caller {
    /// Numbers the requests that follow INIT on its connection. To be called once.
    pub fn first_link(&self) -> Outgoing {
        Outgoing::after_init()
    }

    /// Numbers the requests on another connection.
    pub fn next_link(&self) -> Outgoing {
        Outgoing::new(self.links.fetch_add(1, Ordering::Relaxed))
    }

    /// Numbers and signs a request that was written into `head`, up to its last field. How long the head is, and what
    /// the answer has to refer to.
    ///
    /// # Errors
    /// [`SignError`].
    pub fn seal(
        &self,
        mut head: HeadWriter<'_>,
        link: &mut Outgoing,
    ) -> Result<(usize, Reference), SignError> {
        let sequence = link.next().ok_or(SignError::Unsignable)?;
        head.field_args(SEQUENCE, format_args!("{sequence}"));
        let (buffer, length) = head.finish_in_place()?;
        let (length, mac) = sign_hmac(buffer, length, None, Kind::Request, self.me, &self.keys.to_peer)?;
        Ok((length, Reference { sequence, mac }))
    }

    /// Whether this is the peer's answer to that request.
    ///
    /// # Errors
    /// Why not. Nothing that it says is to be believed then.
    pub fn check(&self, answer: &Response<'_>, to: &Reference) -> Result<(), Refusal> {
        let message = Message::Answer(answer, to.mac);
        check_terms(&message, Kind::Answer, self.peer).map_err(Refusal::of_mac)?;
        verify_hmac(&message, "mac", &self.keys.to_coordinator).map_err(Refusal::of_mac)?;
        // The MAC covers the request's, so that this can't differ; it says so to those who read a recording.
        match Sequence::of(&answer.fields) {
            Some(sequence) if sequence == to.sequence => Ok(()),
            _ => Err(Refusal::OutOfOrder),
        }
    }
}

/// An INIT whose MAC fits: it is from a configured router, for us, and new. Its signature was not looked at yet.
#[derive(Debug)]
pub struct Introduced<'n> {
    /// Whose it is.
    pub coordinator: &'n Neighbour,
    /// Our side of the session.
    pub callee: Callee,
    /// What the answer refers to.
    pub request: Reference,
}

impl<'n> Introduced<'n> {
    /// Checks all of an INIT but its `ed25519` signature. `me` is whom it has to be for, `challenge` the one that is open
    /// on the connection, `find` finds a configured router.
    ///
    /// # Errors
    /// Why it is refused.
    pub fn by(
        request: &Request<'_>,
        init: &Init<'_>,
        me: Fingerprint,
        challenge: Option<&Challenge>,
        find: impl FnOnce(Fingerprint) -> Option<&'n Neighbour>,
        tally: &mut Tally,
    ) -> Result<Introduced<'n>, Refusal> {
        let message = Message::Request(request);
        let (signed, mac) = (message.input("init"), message.input("mac"));
        let (signed, mac) = (signed.map_err(Refusal::of_mac)?, mac.map_err(Refusal::of_mac)?);
        let signer = parameter(mac, "keyid").and_then(|keyid| keyid.parse().ok()).ok_or(Refusal::Coverage)?;
        let coordinator = find(signer).ok_or(Refusal::UnknownKey)?;
        if init.recipient != me {
            return Err(Refusal::WrongRecipient);
        }
        let nonce = parameter(signed, "nonce").ok_or(Refusal::Coverage)?;
        let challenge = challenge.filter(|challenge| is_displayed_as(*challenge, nonce));
        let challenge = challenge.ok_or(Refusal::StaleChallenge)?;
        check_terms(&message, Kind::Init(challenge), signer).map_err(Refusal::of_mac)?;
        check_terms(&message, Kind::InitMac, signer).map_err(Refusal::of_mac)?;
        let keys = SessionKeys::derive(coordinator, challenge, init.session, signer, me);
        tally.macs += 1;
        let mac = verify_hmac(&message, "mac", &keys.to_peer).map_err(Refusal::of_mac)?;
        let request = Reference { sequence: Sequence::INIT, mac };
        Ok(Introduced { coordinator, callee: Callee { keys, me, coordinator: signer }, request })
    }

    /// Whether the coordinator signed it, too: what it can't deny later. Costs one Ed25519 operation, and about as
    /// much again to make sure that everybody's software agrees. `request` is the same INIT.
    ///
    /// # Errors
    /// [`Refusal::BadSignature`].
    pub fn verify_signature(&self, request: &Request<'_>, tally: &mut Tally) -> Result<(), Refusal> {
        tally.verified += 1;
        // What it covers was checked before.
        let verified = verify_ed25519(&Message::Request(request), "init", &self.coordinator.public_key);
        verified.map_err(|_| Refusal::BadSignature)
    }
}

/// The peer's side of a session.
#[derive(Clone, Debug)]
pub struct Callee {
    keys: SessionKeys,
    me: Fingerprint,
    coordinator: Fingerprint,
}

impl Callee {
    /// Whose session it is.
    pub fn coordinator(&self) -> Fingerprint {
        self.coordinator
    }

    /// Whether this is the coordinator's next request in the session on its connection. `links` belongs to the session;
    /// `link` to connection and session, and is `None` until the first request there.
    ///
    /// # Errors
    /// Why it is refused.
    pub fn check(
        &self,
        request: &Request<'_>,
        links: &mut Links,
        link: &mut Option<Incoming>,
    ) -> Result<Reference, Refusal> {
        let message = Message::Request(request);
        check_terms(&message, Kind::Request, self.coordinator).map_err(Refusal::of_mac)?;
        let mac = verify_hmac(&message, "mac", &self.keys.to_peer).map_err(Refusal::of_mac)?;
        let sequence = Sequence::of(&request.fields).ok_or(Refusal::Coverage)?;
        match link {
            Some(link) => link.take(sequence)?,
            None => *link = Some(links.begin(sequence)?),
        }
        Ok(Reference { sequence, mac })
    }

    /// Signs an answer that was written into `head`, up to its last field. How long the head is.
    ///
    /// # Errors
    /// [`SignError`].
    pub fn seal(&self, mut head: HeadWriter<'_>, to: &Reference) -> Result<usize, SignError> {
        head.field_args(SEQUENCE, format_args!("{}", to.sequence));
        let (buffer, length) = head.finish_in_place()?;
        let key = &self.keys.to_coordinator;
        sign_hmac(buffer, length, Some(to.mac), Kind::Answer, self.me, key).map(|(length, _)| length)
    }
}
