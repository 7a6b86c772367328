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
        (
            "833fe62409237b9d62ec77587520911e9a759cec1d19755b7da901b96dca3d42",
            "ec172b93ad5e563bf4932c70e1245034c35467ef2efd4d64ebf819683467e2bf",
            "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a
             2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f",
            "dc2a4459e7369633a52b1bf277839a00201009a3efbf3ecb69bea2186c26b589
             09351fc9ac90b3ecfdfbc7c66431e0303dca179c138ac17ad9bef1177331a704",
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
    let from =
        |first: u8| (0..80).map(|byte| first + byte).map(|byte| format!("{byte:02x}")).collect::<String>();
    let (ikm, salt, info) = (from(0), from(0x60), from(0xb0));
    for (ikm, salt, info, okm) in [
        (
            &ikm[..],
            &salt[..],
            &info[..],
            "b11e398dc80327a1c8e7f78c596a49344f012eda2d4efad8a050cc4c19afa97c59045a99cac7827271cb41c65e590e09
             da3275600c2f09b8367793a9aca3db71cc30c58179ec3e87c14c01d5c1f3434f1d87",
        ),
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
        let mut out = vec![0; hex(okm).len()];
        Hkdf::<Sha256>::new(Some(&hex(salt)), &hex(ikm)).expand(&hex(info), &mut out).unwrap();
        assert_eq!(out, hex(okm));
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
    for (scalar, point, expected) in [
        (
            "a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4",
            "e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c",
            "c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552",
        ),
        (
            "4b66e9d4d1b4673c5ad22691957d6af5c11b6421e0ea01d42ca4169e7918ba0d",
            "e5210f12786811d3f4b7959d0538ae2c31dbe7106fc03c3efc4cd549c715a493",
            "95cbde9476e8907d7aade45cb4b873f88b595a68799fa152e6f8f7647aac7957",
        ),
    ] {
        let (scalar, point) = (x25519::SecretKey::new(array(scalar)), x25519::PublicKey::new(array(point)));
        assert_eq!(*point.dh(&scalar).unwrap(), array::<32>(expected));
    }
    // The chain of that section, a thousand times.
    let mut first = [0; 32];
    first[0] = 9;
    let (mut scalar, mut point) = (first, first);
    for round in 1..=1000 {
        let next = *x25519::PublicKey::new(point).dh(&x25519::SecretKey::new(scalar)).unwrap();
        (point, scalar) = (scalar, next);
        let expected = match round {
            1 => "422c8e7a6227d7bca1350b3e2bb7279f7897b87bb6854b783c60e80311ae3079",
            1000 => "684cf59ba83309552800ef566f2f4d3c1c3887c49360e3875f2eb94d99532c51",
            _ => continue,
        };
        assert_eq!(scalar, array::<32>(expected));
    }
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
    // The y of `one` again, but not as RFC 8032 encodes it.
    let mut one_again = [0xff; 32];
    (one_again[0], one_again[31]) = (0xee, 0x7f);
    // The key of the seed 0101…01 and a point of order 2, 4 and 8: openssl and we would differ about its signatures.
    let with_small_parts = [
        "63771c228bf60e6a02ad24d2c345a28d3598f640e26bede40c8b77fe4bf090a3",
        "56b408aa732d2b51460ece91d25893af2340474699b8b8a4572b83df35545d3d",
        "9ea3f11f5bd34f0cd7147fd0a436c088f624c6100c1df6a53c0a29e05d60cea0",
    ]
    .map(array);
    for weak in [one, minus_one, [0; 32], no_point, one_again].into_iter().chain(with_small_parts) {
        assert_eq!(router.agree(&weak).err(), Some(WeakKey));
    }
    assert!(Identity::from_seed([0; 32]).is_err(), "no key, and no panic");
    assert!(router.agree(Identity::from_seed([8; 32]).unwrap().public_key()).is_ok());
}
