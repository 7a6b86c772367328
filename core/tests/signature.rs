//! HTTP Message Signatures against the examples of RFC 9421, and the one of INIT alone, as a log's reader checks it.

use bamqp_core::base64::decode;
use bamqp_core::http::request::Request;
use bamqp_core::http::response::Response;
use bamqp_core::signature::{Mac, Message, SignatureError, verify_ed25519, verify_hmac, verify_init};

/// RFC 9421 appendix B.2, `test-request`, with the signature fields of an example.
fn test_request(signature: &str) -> String {
    format!(
        "POST /foo?param=Value&Pet=dog HTTP/1.1\r\n\
         Host: example.com\r\n\
         Date: Tue, 20 Apr 2021 02:07:55 GMT\r\n\
         Content-Type: application/json\r\n\
         Content-Digest: sha-512=:WZDPaVn/7XgHaAy8pmojAkGWoRx2UFChF41A2svX+TaPm+AbwAgBWnrIiYllu7BNNyealdVLvRwEmTHWXvJwew==:\r\n\
         Content-Length: 18\r\n\
         {signature}\r\n\r\n"
    )
}

fn request(text: &str) -> Request<'_> {
    Request::parse(text.as_bytes()).unwrap().unwrap().0
}

/// Section B.1.5, `test-shared-secret`.
fn shared_secret() -> Vec<u8> {
    const TEXT: &str =
        "uzvJfB4u3N0Jy4T7NZ75MDVcr8zSTInedJtkgcu46YW4XByzNJjxBdtjUkdJPBtbmHhIDi6pcl8jsasjlTMtDQ==";
    decode(TEXT.as_bytes(), &mut [0; 64]).unwrap().into()
}

/// Section B.1.4, `test-key-ed25519`: the last 32 bytes of its SubjectPublicKeyInfo.
fn public_key() -> [u8; 32] {
    let mut buffer = [0; 44];
    decode(b"MCowBQYDK2VwAyEAJrQLj5P/89iXES9+vFgrIy29clF9CC/oPPsw3c5D0bs=", &mut buffer).unwrap();
    buffer[12..].try_into().unwrap()
}

const B_2_5: &str = "Signature-Input: sig-b25=(\"date\" \"@authority\" \"content-type\");created=1618884473;keyid=\"test-shared-secret\"\r\n\
    Signature: sig-b25=:pxcQw6G3AjtMBQjwo8XzkZf/bws5LelbaMk5rGIGtE8=:";

const B_2_6: &str = "Signature-Input: sig-b26=(\"date\" \"@method\" \"@path\" \"@authority\" \"content-type\" \"content-length\");created=1618884473;keyid=\"test-key-ed25519\"\r\n\
    Signature: sig-b26=:wqcAqbmYJ2ji2glfAMaRy4gruYYnx2nEFN2HN6jrnDnQCK1u02Gb04v9EDgwUPiu4A0w6vuQv5lIp5WPpBKRCw==:";

#[test]
fn hmac_sha256_of_rfc_9421_b_2_5() {
    let text = test_request(B_2_5);
    let request = request(&text);
    assert!(verify_hmac(&Message::Request(&request), "sig-b25", &shared_secret()).is_ok());
    assert_eq!(
        verify_hmac(&Message::Request(&request), "sig-b25", &shared_secret()[1..]),
        Err(SignatureError::Mismatch)
    );
}

#[test]
fn ed25519_of_rfc_9421_b_2_6() {
    let text = test_request(B_2_6);
    assert_eq!(verify_ed25519(&Message::Request(&request(&text)), "sig-b26", &public_key()), Ok(()));
    let mut other = public_key();
    other[0] ^= 1;
    assert_eq!(
        verify_ed25519(&Message::Request(&request(&text)), "sig-b26", &other),
        Err(SignatureError::Mismatch)
    );
}

#[test]
fn what_is_covered_can_not_be_changed_and_the_rest_can() {
    use SignatureError::*;
    for (old, new, expected) in [
        ("POST", "PUT", Err(Mismatch)),
        ("/foo?", "/fo?", Err(Mismatch)),
        ("param=Value", "param=other", Ok(())), // the query is not covered
        ("example.com", "example.org", Err(Mismatch)),
        ("example.com", "EXAMPLE.com:80", Ok(())), // section 2.2.3
        ("example.com", "example.com:81", Err(Mismatch)),
        ("02:07:55", "02:07:56", Err(Mismatch)),
        ("Date: ", "Date: Mon, ", Err(Mismatch)),
        ("Date: ", "DATE:    ", Ok(())), // section 2.1
        ("Date: ", "X: ", Err(Component)),
        ("application/json", "application/j\u{e9}son", Err(Component)),
        ("Length: 18", "Length: 18\r\nContent-Length: 18", Err(Mismatch)),
        ("sha-512=:WZ", "sha-512=:XX", Ok(())), // not covered
        ("created=1618884473", "created=1618884474", Err(Mismatch)),
        ("\"date\" \"@method\"", "\"@method\" \"date\"", Err(Mismatch)),
        ("\"date\" ", "", Err(Mismatch)),
        ("\"date\" ", "\"date\"  ", Err(Malformed)),
        ("\"content-length\")", "\"content-length\" )", Err(Malformed)),
        ("\"date\" ", "\"@unknown\" ", Err(Component)),
        ("\"date\" ", "\"@status\" ", Err(Component)),
        ("\"date\" ", "\"date\";bs ", Err(Component)),
        ("\"date\" ", "\"date\";req ", Err(Component)),
        ("\"date\" ", "\"date ", Err(Component)),
        ("sig-b26=(", "sig-b26=", Err(Malformed)),
        ("sig-b26=(", "x=(", Err(Missing)),
        ("Signature: sig-b26", "Signature: x", Err(Missing)),
        ("CK1u", "CK2u", Err(Mismatch)),
        ("BKRCw==:", "BKRCx==:", Err(Malformed)), // unused bits
        ("BKRCw==:", "BKRCw==", Err(Malformed)),
        ("Signature: ", "Signature: sig-b26=:AA==:, ", Err(Malformed)),
    ] {
        let text = test_request(B_2_6);
        let changed = text.replacen(old, new, 1);
        assert_ne!(changed, text, "{old}");
        let found = verify_ed25519(&Message::Request(&request(&changed)), "sig-b26", &public_key());
        assert_eq!(found, expected, "{old} -> {new}");
    }
}

#[test]
fn an_answer_covers_its_status_and_its_requests_mac() {
    // Base and MAC with Python's hmac: key b"key", base
    // '"@status": 206\n"etag": "v"\n"signature";req;key="mac": :AAEC…:\n"@signature-params": ("@status" "etag" "signature";req;key="mac")'
    let text = "HTTP/1.1 206 Partial Content\r\nETag: \"v\"\r\n\
        Signature-Input: mac=(\"@status\" \"etag\" \"signature\";req;key=\"mac\")\r\n\
        Signature: mac=:qHAybSwdCXceKG9fHlPgvHqg8RJHiXc2LvNvfydF6X4=:\r\n\r\n";
    let of_request: [u8; 32] = core::array::from_fn(|i| i as u8);
    let (response, _) = Response::parse(text.as_bytes()).unwrap().unwrap();
    assert!(verify_hmac(&Message::Answer(&response, Mac(of_request)), "mac", b"key").is_ok());
    assert_eq!(
        verify_hmac(&Message::Answer(&response, Mac([0; 32])), "mac", b"key"),
        Err(SignatureError::Mismatch)
    );
    let changed = text.replace("206", "200");
    let (response, _) = Response::parse(changed.as_bytes()).unwrap().unwrap();
    assert_eq!(
        verify_hmac(&Message::Answer(&response, Mac(of_request)), "mac", b"key"),
        Err(SignatureError::Mismatch)
    );
}

/// Written by Python's cryptography, hmac and base64 from what DESIGN section 6 and the table in the module's documentation
/// say: routers with the seeds 0101…01 and 0202…02, and the challenge 00 01 02 … 2f.
const INIT: &str = include_str!("signed_init.http");

/// The public key of the seed 0101…01.
fn coordinator() -> [u8; 32] {
    let text = b"iojj3XQJ8ZX9UtstPLpdcspnCb8dlBIb83SIAbQPb1w=";
    decode(text, &mut [0; 32]).unwrap().try_into().unwrap()
}

#[test]
fn a_logged_init_is_verified_with_the_public_key_alone() {
    assert_eq!(verify_init(&request(INIT), &coordinator()), Ok(()));
    // Its MAC proves nothing to a reader of the log, and may be missing.
    let at = INIT.match_indices("Signature-Input").nth(1).unwrap().0;
    let without_mac = format!("{}\r\n", &INIT[..at]);
    assert_eq!(verify_init(&request(&without_mac), &coordinator()), Ok(()));
    assert_eq!(verify_init(&request(INIT), &public_key()), Err(SignatureError::Parameter));
}

#[test]
fn a_logged_init_that_was_changed_is_found_out() {
    use SignatureError::*;
    for (old, new, expected) in [
        ("POST", "PUT", Coverage),
        ("/INIT", "/INIT?x", Coverage),
        ("Host: 10.77.0.2", "Host: 10.77.0.3", Mismatch),
        ("Content-Length: 0", "Content-Length: 1", Mismatch),
        ("BAMQP-Session: 00", "BAMQP-Session: 01", Mismatch),
        ("a.example/f", "a.example/g", Mismatch),
        ("BAMQP-Size: 12345", "BAMQP-Size: 12346", Mismatch),
        ("\"v\"", "\"w\"", Mismatch),
        ("BAMQP-Hops: 0", "BAMQP-Hops: 1", Mismatch),
        ("BAMQP-Recipient: 6a", "BAMQP-Recipient: 6b", Mismatch),
        ("curl/8", "curl/9", Mismatch),
        ("*/*", "*/x", Mismatch),
        ("Accept: */*\r\n", "", Coverage),
        ("Accept: */*\r\n", "Accept: */*\r\nX: y\r\n", Coverage),
        ("Accept: */*\r\n", "Accept: */*\r\nAccept: */*\r\n", Duplicate),
        ("User-Agent: curl/8\r\nAccept: */*\r\n", "Accept: */*\r\nUser-Agent: curl/8\r\n", Coverage),
        (" \"accept\"", "", Coverage),
        ("nonce=\"00", "nonce=\"01", Mismatch),
        ("nonce=\"00", "nonce=\"0", Parameter),
        ("keyid=\"34", "keyid=\"35", Parameter),
        ("alg=\"ed25519\"", "alg=\"hmac-sha256\"", Coverage),
        (";tag=\"bamqp\"", "", Coverage),
        ("init=:5", "init=:6", Mismatch),
        ("init=:5", "other=:5", Missing),
        ("init=(", "other=(", Missing),
        ("Signature-Input: init=", "Signature-Input: init=(), init=", Malformed),
    ] {
        let changed = INIT.replacen(old, new, 1);
        assert_ne!(changed, INIT, "{old}");
        assert_eq!(verify_init(&request(&changed), &coordinator()), Err(expected), "{old} -> {new}");
    }
}

/// The coordinator's signatures whose R has a part of order 2, 4 and 8, made from its seed by the equations of RFC 8032
/// section 5.1.6 in Python. `ed25519-compact` alone accepts them and openssl does not: the coordinator could deny them.
#[test]
fn a_signature_that_openssl_would_refuse_is_refused() {
    let good = INIT.split("Signature: init=").nth(1).unwrap().split("\r\n").next().unwrap();
    for made in [
        ":/q+dB7hozFJ4YwUxLDdlY8YisDhqENEF48FQGyjWX34+7JtI6sbNJrCnQ8jYrepIlLz9qmx/IWrSrLNc6uJ8Cw==:",
        ":r26OY/hX2Qvxr7DSzYdToV7+0pZK3II8JPhQgiB+Bz5j2ar/eRcO5UY7EhOWBr4drtFM156wYKBgRXkF18v9CQ==:",
        ":QKTPXGEdc3ovHG/MqE2cq/7YCYfxhqWmxX5im/8a8n8uEcDFbSJ2e0eVnXVvDD+OFGhKHaOZr3PvxLiinyOcBg==:",
    ] {
        let crafted = INIT.replace(good, made);
        assert_ne!(crafted, INIT);
        assert_eq!(verify_init(&request(&crafted), &coordinator()), Err(SignatureError::Mismatch));
        let message = Message::Request(&request(&crafted));
        assert_eq!(verify_ed25519(&message, "init", &coordinator()), Err(SignatureError::Mismatch));
    }
    // The same by the same program without such a part.
    let plain = ":709i+EeXM62HnPrO08ianDndT8eV7y76HD6v5NcpoIEFEz6MA6snUST+XxZkTz665WUd0qP68Dnw8GfjBv6TAw==:";
    assert_eq!(verify_init(&request(&INIT.replace(good, plain)), &coordinator()), Ok(()));
}
