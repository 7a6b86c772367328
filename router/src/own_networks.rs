//! The IPv6 networks that the router itself has. A household's devices have addresses of the public internet there, and
//! what the router connects to comes from inside, past its firewall: another router must not get at them through this
//! one. Not responsible for IPv4, where they have private addresses, nor for the router's own addresses.

use core::net::Ipv6Addr;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};

const ROUTES: &str = "/proc/net/ipv6_route";

/// Most bytes of the table that are read: some 1700 routes. A router has dozens.
const MOST: u64 = 256 * 1024;

/// Cached for one destination (linux/ipv6_route.h): says nothing of networks.
const CACHED: u32 = 0x0100_0000;

/// Whether `address` is in a network that the router is attached to, or that was delegated to it (that is there as an
/// unreachable route). False where there is no IPv6.
pub fn have(address: Ipv6Addr) -> bool {
    let Ok(file) = File::open(ROUTES) else { return false };
    BufReader::new(file.take(MOST))
        .lines()
        .map_while(Result::ok)
        .any(|line| has(&line, address).unwrap_or(false))
}

/// Whether this line of the table is of a network without another router before it, which has `address`. `None`: it is
/// no line of the table.
fn has(line: &str, address: Ipv6Addr) -> Option<bool> {
    let mut fields = line.split_ascii_whitespace();
    let network = u128::from_str_radix(fields.next()?, 16).ok()?;
    let bits = u32::from_str_radix(fields.next()?, 16).ok().filter(|bits| *bits <= 128)?;
    let next_hop = u128::from_str_radix(fields.nth(2)?, 16).ok()?;
    let flags = u32::from_str_radix(fields.nth(3)?, 16).ok()?;
    let is_network = bits > 0 && next_hop == 0 && flags & CACHED == 0;
    let differing = (network ^ address.to_bits()).checked_shr(128 - bits).unwrap_or(0);
    Some(is_network && differing == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As OpenWrt has it: a delegated /56, the LAN's /64 of it, a default route, one through another router, and one that
    /// was cached.
    const TABLE: &str = "\
        20010db8000100000000000000000000 38 00000000000000000000000000000000 00 00000000000000000000000000000000 7fffffff 00000001 00000000 00200200       lo\n\
        20010db8000100010000000000000000 40 00000000000000000000000000000000 00 00000000000000000000000000000000 00000400 00000001 00000000 00000001   br-lan\n\
        00000000000000000000000000000000 00 00000000000000000000000000000000 00 fe800000000000000000000000000001 00000200 00000004 00000000 00000003     eth1\n\
        00000000000000000000000000000000 00 00000000000000000000000000000000 00 00000000000000000000000000000000 ffffffff 00000001 00000000 00200200       lo\n\
        20010db8000900000000000000000000 30 00000000000000000000000000000000 00 fe800000000000000000000000000002 00000400 00000001 00000000 00000003     wg0\n\
        20010db8000500000000000000000001 80 00000000000000000000000000000000 00 00000000000000000000000000000000 00000000 00000001 00000000 01000001     ppp0\n";

    #[test]
    fn attached_and_delegated_networks_are_own_and_others_are_not() {
        let own = |address: &str| {
            TABLE.lines().any(|line| has(line, address.parse().unwrap()).expect("a line of the table"))
        };
        for address in ["2001:db8:1:1::abcd", "2001:db8:1:1:ffff:ffff:ffff:ffff", "2001:db8:1:fe::1"] {
            assert!(own(address), "{address}");
        }
        for address in
            ["2001:db8:2::1", "2001:db8:1:100::1", "2001:db8:9::1", "2001:db8:5::1", "2606:4700::1"]
        {
            assert!(!own(address), "{address}");
        }
        assert_eq!(has("", Ipv6Addr::LOCALHOST), None);
        assert_eq!(has("20010db8 ff 0 0 0 0 0 0 0", Ipv6Addr::LOCALHOST), None);
    }
}
