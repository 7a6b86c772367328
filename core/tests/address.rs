//! Which addresses may be reached.

use std::net::{IpAddr, Ipv4Addr};

use bamqp_core::address::{Network, NetworkError, Reach, Refusal, is_public};
use proptest::prelude::*;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn first_and_last_address_of_every_private_network_is_refused() {
    for (first, last) in [
        ("0.0.0.0", "0.255.255.255"),
        ("10.0.0.0", "10.255.255.255"),
        ("100.64.0.0", "100.127.255.255"),
        ("127.0.0.0", "127.255.255.255"),
        ("169.254.0.0", "169.254.255.255"),
        ("172.16.0.0", "172.31.255.255"),
        ("192.0.0.0", "192.0.0.255"),
        ("192.168.0.0", "192.168.255.255"),
        ("198.18.0.0", "198.19.255.255"),
        ("224.0.0.0", "239.255.255.255"),
        ("240.0.0.0", "255.255.255.255"),
        ("::", "::ffff:ffff"),
        ("::ffff:0.0.0.0", "::ffff:255.255.255.255"),
        ("64:ff9b::", "64:ff9b::ffff:ffff"),
        ("64:ff9b:1::", "64:ff9b:1:ffff:ffff:ffff:ffff:ffff"),
        ("100::", "100::ffff:ffff:ffff:ffff"),
        ("2001:db8::", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff"),
        ("2001::", "2001:0:ffff:ffff:ffff:ffff:ffff:ffff"),
        ("2002::", "2002:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
        ("fc00::", "fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
        ("fe80::", "febf:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
        ("fec0::", "feff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
        ("ff00::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
    ] {
        assert!(!is_public(ip(first)), "{first}");
        assert!(!is_public(ip(last)), "{last}");
    }
}

#[test]
fn neighbours_of_private_networks_are_public() {
    for address in [
        "1.0.0.0",
        "9.255.255.255",
        "11.0.0.0",
        "100.63.255.255",
        "100.128.0.0",
        "126.255.255.255",
        "128.0.0.0",
        "169.253.255.255",
        "169.255.0.0",
        "172.15.255.255",
        "172.32.0.0",
        "192.0.1.0",
        "192.167.255.255",
        "192.169.0.0",
        "198.17.255.255",
        "198.20.0.0",
        "223.255.255.255",
        "2001:1::",
        "2003::",
        "2606:4700::1",
        "fbff::",
        "fe7f::",
    ] {
        assert!(is_public(ip(address)), "{address}");
    }
}

#[test]
fn networks_are_parsed_with_an_error_that_says_what_would_be_right() {
    assert_eq!("10.0.0.0/24".parse::<Network>().unwrap().to_string(), "10.0.0.0/24");
    assert_eq!("10.0.0.7".parse::<Network>().unwrap().to_string(), "10.0.0.7/32");
    assert_eq!("::1".parse::<Network>().unwrap().to_string(), "::1/128");
    assert_eq!("10.0.0/24".parse::<Network>(), Err(NetworkError::Address));
    for bad in ["10.0.0.0/33", "10.0.0.0/", "10.0.0.0/+8", "10.0.0.0/8/8"] {
        assert_eq!(bad.parse::<Network>(), Err(NetworkError::Bits { most: 32 }), "{bad}");
    }
    assert_eq!("::/129".parse::<Network>(), Err(NetworkError::Bits { most: 128 }));
    assert_eq!(NetworkError::Bits { most: 32 }.to_string(), "expected a number from 0 to 32 after the slash");
}

#[test]
fn own_addresses_are_refused_whatever_is_allowed() {
    let reach = Reach {
        own: &[ip("192.168.1.1"), ip("fd00::1")],
        private: &["192.168.0.0/16".parse().unwrap(), "::/0".parse().unwrap(), "0.0.0.0/0".parse().unwrap()],
        ports: &[80],
    };
    assert_eq!(reach.check(ip("192.168.1.1"), 80), Err(Refusal::OwnAddress));
    assert_eq!(reach.check(ip("::ffff:192.168.1.1"), 80), Err(Refusal::OwnAddress));
    assert_eq!(reach.check(ip("fd00::1"), 80), Err(Refusal::OwnAddress));
    assert_eq!(reach.check(ip("0.0.0.0"), 80), Err(Refusal::OwnAddress));
    assert_eq!(reach.check(ip("192.168.1.2"), 80), Ok(()));
}

#[test]
fn private_networks_and_ports_need_the_owners_word() {
    let reach = Reach { own: &[], private: &["10.0.0.0/24".parse().unwrap()], ports: &[80, 443] };
    assert_eq!(reach.check(ip("10.0.0.9"), 80), Ok(()));
    assert_eq!(reach.check(ip("10.0.1.9"), 80), Err(Refusal::NotPublic));
    assert_eq!(reach.check(ip("::ffff:10.0.0.9"), 80), Err(Refusal::NotPublic));
    assert_eq!(reach.check(ip("1.1.1.1"), 443), Ok(()));
    assert_eq!(reach.check(ip("1.1.1.1"), 22), Err(Refusal::Port));
}

proptest! {
    #[test]
    fn contains_compares_the_leading_bits(own in any::<u32>(), other in any::<u32>(), bits in 0u32..=32) {
        let network: Network = format!("{}/{bits}", Ipv4Addr::from(own)).parse().unwrap();
        let same = (0..bits).all(|bit| own >> (31 - bit) & 1 == other >> (31 - bit) & 1);
        prop_assert_eq!(network.contains(IpAddr::V4(other.into())), same);
    }

    #[test]
    fn parsing_never_panics(text in "\\PC{0,40}") {
        let _ = text.parse::<Network>();
    }
}
