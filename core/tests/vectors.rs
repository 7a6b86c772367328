//! The primitives against the examples of their RFCs, through the same crates and features that the program uses.

use bamqp_core::channel::{Identity, WeakKey};
use ed25519_compact::{KeyPair, PublicKey, Seed, Signature, x25519};
use hkdf::Hkdf;
use hmac::{Hmac, Mac};
use sha2::Sha256;

fn hex(text: &str) -> Vec<u8> {
    let text: String = text.split_whitespace().collect();
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
}

fn array<const N: usize>(text: &str) -> [u8; N] {
    hex(text).try_into().unwrap()
}

#[test]
fn ed25519_of_rfc_8032_section_7_1() {
    for (seed, public, message, signature) in [
        (
            "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
            "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
            "",
            "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155
             5fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
        ),
        (
            "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
            "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
            "72",
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da
             085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
        ),
        (
            "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
            "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
            "af82",
            "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac
             18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
        ),
    ] {
        let pair = KeyPair::from_seed(Seed::new(array(seed)));
        assert_eq!(*pair.pk, array::<32>(public));
        let signed = pair.sk.sign(hex(message), None);
        assert_eq!(signed.to_vec(), hex(signature));
        assert!(PublicKey::new(array(public)).verify(hex(message), &signed).is_ok());
        let mut forged: [u8; 64] = array(signature);
        forged[40] ^= 1;
        assert!(pair.pk.verify(hex(message), &Signature::new(forged)).is_err());
    }
}

#[test]
fn hkdf_sha256_of_rfc_5869_appendix_a() {
    for (ikm, salt, info, okm) in [
        (
            "0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b",
            "000102030405060708090a0b0c",
            "f0f1f2f3f4f5f6f7f8f9",
            "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865",
        ),
        (
            "0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b",
            "",
            "",
            "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8",
        ),
    ] {
        let mut out = [0; 42];
        Hkdf::<Sha256>::new(Some(&hex(salt)), &hex(ikm)).expand(&hex(info), &mut out).unwrap();
        assert_eq!(out.to_vec(), hex(okm));
    }
}

#[test]
fn hmac_sha256_of_rfc_4231_section_4() {
    for (key, data, expected) in [
        (
            "0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b",
            &b"Hi There"[..],
            "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7",
        ),
        (
            "4a656665",
            b"what do ya want for nothing?",
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
        ),
    ] {
        let mut mac = Hmac::<Sha256>::new_from_slice(&hex(key)).unwrap();
        mac.update(data);
        assert_eq!(mac.finalize().into_bytes().to_vec(), hex(expected));
    }
}

#[test]
fn x25519_of_rfc_7748_section_6_1() {
    let alice =
        x25519::SecretKey::new(array("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a"));
    let bob =
        x25519::SecretKey::new(array("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb"));
    let (alices, bobs) = (alice.recover_public_key().unwrap(), bob.recover_public_key().unwrap());
    assert_eq!(*alices, array::<32>("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a"));
    assert_eq!(*bobs, array::<32>("de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f"));
    let shared = array::<32>("4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742");
    assert_eq!(*bobs.dh(&alice).unwrap(), shared);
    assert_eq!(*alices.dh(&bob).unwrap(), shared);
}

#[test]
fn x25519_of_rfc_7748_section_5_2() {
    let scalar =
        x25519::SecretKey::new(array("a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4"));
    let point =
        x25519::PublicKey::new(array("e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c"));
    let expected = array::<32>("c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552");
    assert_eq!(*point.dh(&scalar).unwrap(), expected);
}

#[test]
fn keys_that_would_give_anybody_the_secret_are_refused() {
    let router = Identity::from_seed([7; 32]).unwrap();
    // Points of order 1, 2 and 4, and what is no point.
    let mut one = [0; 32];
    one[0] = 1;
    let mut minus_one = [0xff; 32];
    (minus_one[0], minus_one[31]) = (0xec, 0x7f);
    let no_point = array("0200000000000000000000000000000000000000000000000000000000000000");
    for weak in [one, minus_one, [0; 32], no_point] {
        assert_eq!(router.agree(&weak).err(), Some(WeakKey));
    }
    assert!(router.agree(Identity::from_seed([8; 32]).unwrap().public_key()).is_ok());
}
