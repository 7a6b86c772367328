//! Key agreement: from two routers' Ed25519 keys to the keys of a session (RFC 7748, RFC 5869). Not responsible for
//! where keys are kept.

use core::fmt;

use ed25519_compact::{KeyPair, SecretKey, Seed, x25519};
use hkdf::Hkdf;
use sha2::Sha256;

use super::Challenge;
use crate::message::{Fingerprint, SessionId};
use crate::signature::is_in_group;

/// A router's own key, for signatures and for agreement.
#[derive(Clone)]
pub struct Identity {
    pair: KeyPair,
    agreement: x25519::SecretKey,
    fingerprint: Fingerprint,
}

impl fmt::Debug for Identity {
    /// Shows the public part alone, so that no log line ever holds the secret one.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({})", self.fingerprint)
    }
}

impl Identity {
    /// The router with this secret seed (RFC 8032 section 5.1.5).
    ///
    /// # Errors
    /// [`WeakKey`] for the seed that is all zeros; no other is known to give it.
    pub fn from_seed(seed: [u8; 32]) -> Result<Self, WeakKey> {
        let pair = KeyPair::try_from_seed(Seed::new(seed)).map_err(|_| WeakKey)?;
        let agreement = x25519::SecretKey::from_ed25519(&pair.sk).map_err(|_| WeakKey)?;
        let fingerprint = Fingerprint::of(&pair.pk);
        Ok(Self { pair, agreement, fingerprint })
    }

    /// The public key.
    pub fn public_key(&self) -> &[u8; 32] {
        &self.pair.pk
    }

    /// The public key's fingerprint.
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// Agrees with the router that has this public key. Costs about as much as two signatures; once per boot is enough.
    ///
    /// # Errors
    /// [`WeakKey`]: no router that follows RFC 8032 has such a key.
    pub fn agree(&self, public_key: &[u8; 32]) -> Result<Neighbour, WeakKey> {
        let theirs = check(public_key)?;
        let theirs = x25519::PublicKey::from_ed25519(&theirs).map_err(|_| WeakKey)?;
        let secret = theirs.dh(&self.agreement).map_err(|_| WeakKey)?;
        Ok(Neighbour { public_key: *public_key, fingerprint: Fingerprint::of(public_key), secret: *secret })
    }

    pub(super) fn signing_key(&self) -> &SecretKey {
        &self.pair.sk
    }
}

/// Whether a router can have this public key. Costs about as much as a signature.
///
/// # Errors
/// [`WeakKey`]: none that follows RFC 8032.
pub fn check_key(public_key: &[u8; 32]) -> Result<(), WeakKey> {
    check(public_key).map(drop)
}

fn check(public_key: &[u8; 32]) -> Result<ed25519_compact::PublicKey, WeakKey> {
    let key = ed25519_compact::PublicKey::new(*public_key);
    key.validate().map_err(|_| WeakKey)?;
    if is_in_group(public_key) { Ok(key) } else { Err(WeakKey) }
}

/// A router that is configured here, and what is agreed with it.
#[derive(Clone)]
pub struct Neighbour {
    /// Its public key.
    pub public_key: [u8; 32],
    /// The key's fingerprint.
    pub fingerprint: Fingerprint,
    /// K of DESIGN section 6.
    secret: [u8; 32],
}

impl fmt::Debug for Neighbour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Neighbour({})", self.fingerprint)
    }
}

/// A public key that is no point of the curve, or one with a part of small order: software would differ about what it
/// signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WeakKey;

impl fmt::Display for WeakKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a usable Ed25519 public key")
    }
}

impl core::error::Error for WeakKey {}

/// The keys of one session of two routers.
#[derive(Clone)]
pub(super) struct SessionKeys {
    pub to_peer: [u8; 32],
    pub to_coordinator: [u8; 32],
}

impl fmt::Debug for SessionKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionKeys")
    }
}

impl SessionKeys {
    /// `other` is whom K is shared with.
    pub fn derive(
        other: &Neighbour,
        challenge: &Challenge,
        session: SessionId,
        coordinator: Fingerprint,
        peer: Fingerprint,
    ) -> SessionKeys {
        let mut salt = [0; 48];
        salt.iter_mut()
            .zip(challenge.log_head.iter().chain(&challenge.random))
            .for_each(|(to, from)| *to = *from);
        let hkdf = Hkdf::<Sha256>::new(Some(&salt), &other.secret);
        let expand = |direction: &[u8]| {
            let mut key = [0; 32];
            let info = [b"BAMQP session 1", &session.0[..], &coordinator.0, &peer.0, direction];
            // 32 bytes are one block, of 255 that there may be.
            let _ = hkdf.expand_multi_info(&info, &mut key);
            key
        };
        SessionKeys { to_peer: expand(b"to peer"), to_coordinator: expand(b"to coordinator") }
    }
}
