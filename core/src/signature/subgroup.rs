//! Whether a point of a signature is one of the points that everybody's verification agrees on. Not responsible for
//! whether a signature fits.
//!
//! RFC 8032 section 5.1.7 lets a verifier multiply by the cofactor 8 or not; `ed25519-compact` does, openssl does not.
//! They agree where public key and R have no part of order 2, 4 or 8. A signer that follows the RFC makes only such
//! points; one that wants to deny later what a router has logged can make others: accepted by us, refused by the openssl
//! of whoever reads the log.

use ed25519_compact::{PublicKey, x25519};

/// The group's order L and 1 more, little-endian (RFC 8032 section 5.1).
const ORDER_AND_ONE: [u8; 32] = [
    0xee, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
];

/// Whether an encoded point is in the group that the base point makes. Costs about as much as an X25519 agreement.
///
/// That is so if (L + 1) P = P. It is computed on the Montgomery curve, where a point and its negative are one; but
/// with P = Q + T, Q of order L and T of order 8 at most, L + 1 is 6 modulo 8, so (L + 1) P = Q + 6 T: it equals P only if
/// 5 T = 0, so T = 0; and -P only if 2 Q = -7 T, so Q = 0, which is refused for itself.
pub(crate) fn is_in_group(point: &[u8; 32]) -> bool {
    let Ok(point) = x25519::PublicKey::from_ed25519(&PublicKey::new(*point)) else { return false };
    let multiple = point.unclamped_mul(&x25519::SecretKey::new(ORDER_AND_ONE));
    multiple.is_ok_and(|multiple| *multiple == *point)
}
