//! Base64 against the examples of RFC 4648 and against itself.

use bamqp_core::base64::{Base64, decode, decode_exactly};
use proptest::prelude::*;

#[test]
fn the_examples_of_rfc_4648_section_10() {
    for (bytes, text) in [
        ("", ""),
        ("f", "Zg=="),
        ("fo", "Zm8="),
        ("foo", "Zm9v"),
        ("foob", "Zm9vYg=="),
        ("fooba", "Zm9vYmE="),
        ("foobar", "Zm9vYmFy"),
    ] {
        assert_eq!(Base64(bytes.as_bytes()).to_string(), text);
        assert_eq!(decode(text.as_bytes(), &mut [0; 6]), Some(bytes.as_bytes()));
    }
}

#[test]
fn one_text_for_the_same_bytes() {
    for bad in
        ["Zg", "Zg=", "Zh==", "Zm9=", "Z===", "====", "Zg==Zg==", "Zg==\n", " Zg==", "Zm-v", "Zm=v", "=Zm9"]
    {
        assert_eq!(decode(bad.as_bytes(), &mut [0; 16]), None, "{bad}");
    }
    assert_eq!(decode(b"Zm9v", &mut [0; 2]), None, "no room");
    assert_eq!(decode_exactly::<3>(b"Zm9v"), Some(*b"foo"));
    assert_eq!(decode_exactly::<4>(b"Zm9v"), None);
}

proptest! {
    #[test]
    fn there_and_back(bytes: Vec<u8>) {
        let text = Base64(&bytes).to_string();
        prop_assert_eq!(text.len(), bytes.len().div_ceil(3) * 4);
        let mut buffer = vec![0; bytes.len()];
        prop_assert_eq!(decode(text.as_bytes(), &mut buffer), Some(&bytes[..]));
    }

    #[test]
    fn what_is_taken_is_what_would_be_written(text in "[A-Za-z0-9+/=]{0,16}") {
        if let Some(bytes) = decode(text.as_bytes(), &mut [0; 12]) {
            prop_assert_eq!(Base64(bytes).to_string(), text);
        }
    }
}
