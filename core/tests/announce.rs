//! Announcements: written and read again, and whatever else may come in a datagram.

use bamqp_core::announce::{AnnounceError, Announcement, Name, NotAName};
use bamqp_core::http::HeadError;
use bamqp_core::limits::{MAX_ANNOUNCEMENT_BYTES, MAX_NAME_BYTES};
use bamqp_core::message::MessageError;
use proptest::prelude::*;

const TEXT: &str = "POST /ANNOUNCE HTTP/1.1\r\nBAMQP-Version: 1\r\n\
    BAMQP-Public-Key: YWJjZGVmZ2hpamtsbW5vcHFyc3R1dnd4eXowMTIzNDU=\r\nBAMQP-Name: kitchen\r\nBAMQP-Port: 7733\r\n\r\n";

fn kitchen() -> Announcement {
    Announcement {
        public_key: *b"abcdefghijklmnopqrstuvwxyz012345",
        name: "kitchen".parse().unwrap(),
        port: 7733,
    }
}

fn written(announcement: &Announcement) -> Vec<u8> {
    let mut buffer = [0; MAX_ANNOUNCEMENT_BYTES];
    let length = announcement.write(&mut buffer).unwrap();
    buffer[..length].to_vec()
}

fn parse(text: &str) -> Result<Announcement, AnnounceError> {
    Announcement::parse(text.as_bytes())
}

#[test]
fn on_the_wire() {
    assert_eq!(String::from_utf8(written(&kitchen())).unwrap(), TEXT);
    assert_eq!(parse(TEXT), Ok(kitchen()));
    let later = TEXT.replace("\r\n\r\n", "\r\nBAMQP-Colour: green\r\n\r\n");
    assert_eq!(parse(&later), Ok(kitchen()), "a field of a later version");
}

#[test]
fn what_is_wrong_is_said() {
    use MessageError::{Malformed, Missing};
    let with = |from: &str, to: &str| {
        assert!(TEXT.contains(from));
        parse(&TEXT.replace(from, to)).unwrap_err()
    };
    for (from, to, expected) in [
        ("BAMQP-Version: 1\r\n", "", AnnounceError::Field(Missing("BAMQP-Version"))),
        ("Version: 1\r", "Version: 2\r", AnnounceError::Version(2)),
        ("Version: 1\r", "Version: one\r", AnnounceError::Field(Malformed("BAMQP-Version"))),
        ("NDU=", "NDV=", AnnounceError::Field(Malformed("BAMQP-Public-Key"))),
        ("YWJj", "", AnnounceError::Field(Malformed("BAMQP-Public-Key"))),
        ("kitchen", "kit chen", AnnounceError::Field(Malformed("BAMQP-Name"))),
        ("kitchen", "", AnnounceError::Field(Malformed("BAMQP-Name"))),
        ("kitchen", "k\u{e4}se", AnnounceError::Field(Malformed("BAMQP-Name"))),
        ("kitchen", "\x1b[2J", AnnounceError::Head(HeadError::FieldValue)),
        ("kitchen", "a\r\nBAMQP-Name: b", AnnounceError::Field(Malformed("BAMQP-Name"))),
        ("7733", "0", AnnounceError::Field(Malformed("BAMQP-Port"))),
        ("7733", "65536", AnnounceError::Field(Malformed("BAMQP-Port"))),
        ("7733", "+77", AnnounceError::Field(Malformed("BAMQP-Port"))),
        ("POST", "GET", AnnounceError::Other),
        ("/ANNOUNCE", "/INIT", AnnounceError::Other),
        ("\r\n\r\n", "\r\n", AnnounceError::Incomplete),
        ("\r\n\r\n", "\r\n\r\nx", AnnounceError::Trailing),
    ] {
        assert_eq!(with(from, to), expected, "{to:?} for {from:?}");
    }
    assert_eq!(Announcement::parse(&[b' '; MAX_ANNOUNCEMENT_BYTES + 1]), Err(AnnounceError::TooLong));
    assert_eq!(parse(""), Err(AnnounceError::Incomplete));
}

/// Each bit of each byte turned over, and each length: never a panic, and what is still read has a harmless name.
#[test]
fn damaged_datagrams() {
    for length in 0..TEXT.len() {
        assert!(Announcement::parse(&TEXT.as_bytes()[..length]).is_err(), "the first {length} bytes");
    }
    for (place, bit) in (0..TEXT.len()).flat_map(|place| (0..8).map(move |bit| (place, bit))) {
        let mut bytes = TEXT.as_bytes().to_vec();
        bytes[place] ^= 1 << bit;
        if let Ok(other) = Announcement::parse(&bytes) {
            assert!(other.name.as_str().bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'));
        }
    }
}

#[test]
fn the_longest_fits() {
    let name: Name = "n".repeat(MAX_NAME_BYTES).parse().unwrap();
    let longest = Announcement { public_key: [0xff; 32], name, port: u16::MAX };
    assert_eq!(Announcement::parse(&written(&longest)), Ok(longest));
    assert_eq!("n".repeat(MAX_NAME_BYTES + 1).parse::<Name>(), Err(NotAName));
}

#[test]
fn a_host_has_a_name() {
    let long = "x".repeat(MAX_NAME_BYTES + 5);
    for (host, name) in
        [("OpenWrt\n", "OpenWrt"), ("my-router.lan", "my_router_lan"), ("", "router"), ("k\u{e4}\x1b", "k__")]
    {
        assert_eq!(Name::from_host(host).as_str(), name);
    }
    assert_eq!(Name::from_host(&long).as_str(), &long[..MAX_NAME_BYTES]);
}

proptest! {
    #[test]
    fn whatever_comes_is_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let _ = Announcement::parse(&bytes);
    }

    #[test]
    fn fields_with_any_values(
        key in "[A-Za-z0-9+/=]{0,50}", name in "\\PC{0,40}", port in "\\PC{0,7}", version in "\\PC{0,3}",
    ) {
        let text = format!(
            "POST /ANNOUNCE HTTP/1.1\r\nBAMQP-Version: {version}\r\nBAMQP-Public-Key: {key}\r\nBAMQP-Name: {name}\r\n\
             BAMQP-Port: {port}\r\n\r\n"
        );
        if let Ok(read) = parse(&text) {
            prop_assert_eq!(read.name.as_str(), name.trim());
            prop_assert_eq!(read.port.to_string(), port.trim().trim_start_matches('0'));
        }
    }

    #[test]
    fn what_is_written_is_read(
        key in proptest::array::uniform32(any::<u8>()), name in "[A-Za-z0-9_]{1,32}", port in 1u16..,
    ) {
        let announcement = Announcement { public_key: key, name: name.parse().unwrap(), port };
        prop_assert_eq!(Announcement::parse(&written(&announcement)), Ok(announcement));
    }

    #[test]
    fn every_host_has_a_name_that_can_be_announced(host in "\\PC{0,60}") {
        let name = Name::from_host(&host);
        prop_assert_eq!(name.as_str().parse(), Ok(name.clone()));
    }
}
