//! The IPv6 networks that the router itself has. A household's devices have addresses of the public internet there, and
//! what the router connects to comes from inside, past its firewall: another router must not get at them through this
//! one. Who is of the household: in IPv4, which of the private addresses are the neighbours'; in IPv6, who is in a network of
//! the LAN's. And which addresses are on the link of an own one. Not responsible for the router's own addresses.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::fs::File;
use std::io::{BufRead, BufReader, Read};

use bamqp_core::address::Network as Range;

const ROUTES: &str = "/proc/net/ipv6_route";

/// Most bytes of the table that are read: some 1700 routes. A router has dozens.
const MOST: u64 = 256 * 1024;

/// Cached for one destination (linux/ipv6_route.h): says nothing of networks.
const CACHED: u32 = 0x0100_0000;

/// Whether `address` is in a network that the router is attached to, or that was delegated to it (that is there as an
/// unreachable route). False where there is no IPv6.
pub fn have(address: Ipv6Addr) -> bool {
    lines(ROUTES).any(|line| has(&line, address).unwrap_or(false))
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

/// Whether `address` is in a network that is attached to an interface on which the router has one of the addresses that
/// `of_router` tells: in the LAN, if those are where the household's programs connect.
pub fn is_beside(address: Ipv6Addr, of_router: impl Fn() -> Vec<IpAddr>) -> bool {
    let of_router = of_router();
    lines(ROUTES).any(|line| {
        let attached = has(&line, address).unwrap_or(false);
        let interface = line.split_ascii_whitespace().last().filter(|name| attached && *name != LOOPBACK);
        interface.is_some_and(|name| of_router.iter().any(|ip| is_of_interface(*ip, name)))
    })
}

/// Whether the router has this address on the interface of this name; in IPv4, whether it is in a network there.
fn is_of_interface(ip: IpAddr, name: &str) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => lines(ROUTES_V4).any(|line| {
            line.split_ascii_whitespace().next() == Some(name)
                && network(&line).is_some_and(|network| is_in(network, ip))
        }),
        IpAddr::V6(ip) => lines(ADDRESSES_V6).any(|line| {
            let mut fields = line.split_ascii_whitespace();
            let address = fields.next().and_then(|text| u128::from_str_radix(text, 16).ok());
            address == Some(ip.to_bits()) && fields.last() == Some(name)
        }),
    }
}

/// The lines of a table of the kernel's; none if it is not there.
fn lines(table: &str) -> impl Iterator<Item = String> + use<> {
    let file = File::open(table).ok().map(|file| BufReader::new(file.take(MOST)));
    file.into_iter().flat_map(|file| file.lines().map_while(Result::ok))
}

/// Routes of delegated networks lead there, so that what is not in use goes nowhere.
const LOOPBACK: &str = "lo";
const ROUTES_V4: &str = "/proc/net/route";

/// Whether `address` is in a network that the router is attached to and that has one of `some` but none of `others`.
pub fn has_only(address: IpAddr, some: impl Fn() -> Vec<IpAddr>, others: impl Fn() -> Vec<IpAddr>) -> bool {
    let IpAddr::V4(address) = address else { return false };
    let networks = lines(ROUTES_V4).filter_map(|line| network(&line));
    networks.filter(|network| is_in(*network, address)).any(|network| {
        let has = |addresses: Vec<IpAddr>| {
            addresses.iter().any(|ip| matches!(ip.to_canonical(), IpAddr::V4(ip) if is_in(network, ip)))
        };
        has(some()) && !has(others())
    })
}

/// A network and its mask.
type Network = (u32, u32);

fn is_in((network, mask): Network, address: Ipv4Addr) -> bool {
    address.to_bits() & mask == network
}

/// The network without another router before it that this line of the table is of.
fn network(line: &str) -> Option<Network> {
    let mut fields = line.split_ascii_whitespace().skip(1);
    // As the kernel holds them: in the order of the network, printed as a number of this machine.
    let address = |text: &str| u32::from_str_radix(text, 16).ok().map(u32::from_be);
    let (network, gateway) = (address(fields.next()?)?, address(fields.next()?)?);
    let mask = address(fields.nth(4)?)?;
    (gateway == 0 && mask != 0).then_some((network, mask))
}

const ADDRESSES_V6: &str = "/proc/net/if_inet6";

/// The link that an own address is on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// The own address.
    pub own: IpAddr,
    /// The kernel's number of the interface; 0 in IPv4, where it finds it by the address.
    pub index: u32,
    networks: Vec<Range>,
}

impl Link {
    /// The link of `own`. `None` if the kernel knows of no network there.
    pub fn of(own: IpAddr) -> Option<Link> {
        match own {
            // Its routes are not in the table.
            IpAddr::V4(ip) if ip.is_loopback() => {
                Some(Link { own, index: 0, networks: vec![Range::new(own, 8)] })
            }
            IpAddr::V4(ip) => {
                let networks = lines(ROUTES_V4).filter_map(|line| network(&line));
                let networks = networks.filter(|network| is_in(*network, ip));
                let networks: Vec<Range> =
                    networks.map(|(_, mask)| Range::new(own, mask.leading_ones() as u8)).collect();
                (!networks.is_empty()).then_some(Link { own, index: 0, networks })
            }
            IpAddr::V6(ip) => {
                let (index, bits) = lines(ADDRESSES_V6).find_map(|line| interface(&line, ip))?;
                let local = Range::new(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0).into(), 10);
                Some(Link { own, index, networks: vec![Range::new(own, bits), local] })
            }
        }
    }

    /// Whether `address` is one of the link.
    pub fn has(&self, address: IpAddr) -> bool {
        self.networks.iter().any(|network| network.contains(address))
    }
}

/// Number of the interface and bits of the network, if this line of the table is of `address`.
fn interface(line: &str, address: Ipv6Addr) -> Option<(u32, u8)> {
    let mut fields = line.split_ascii_whitespace();
    let is_it = u128::from_str_radix(fields.next()?, 16).ok()? == address.to_bits();
    let index = u32::from_str_radix(fields.next()?, 16).ok()?;
    let bits = u8::from_str_radix(fields.next()?, 16).ok()?;
    is_it.then_some((index, bits))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_table_is_a_network_if_no_other_router_is_before_it() {
        // As the kernel prints them: in this machine's order of bytes.
        let hex = |ip: [u8; 4]| format!("{:08X}", u32::from_ne_bytes(ip));
        let line = |network, gateway, mask| {
            format!("br-lan\t{}\t{}\t0001\t0\t0\t0\t{}\t0\t0\t0", hex(network), hex(gateway), hex(mask))
        };
        let found = network(&line([192, 168, 1, 0], [0; 4], [255, 255, 255, 0])).unwrap();
        assert!(
            is_in(found, Ipv4Addr::new(192, 168, 1, 77)) && !is_in(found, Ipv4Addr::new(192, 168, 2, 77))
        );
        assert_eq!(network(&line([0; 4], [192, 0, 2, 1], [0; 4])), None);
        assert_eq!(network(&line([0; 4], [0; 4], [0; 4])), None, "a default route without a gateway");
        assert_eq!(network(&line([10, 0, 0, 0], [192, 168, 1, 2], [255, 0, 0, 0])), None);
        assert_eq!(network("Iface\tDestination\tGateway"), None);
    }

    /// On a machine that has a network: its own address stands for a neighbour's.
    #[test]
    fn neighbours_are_told_from_the_household_by_their_network() {
        let Ok(table) = std::fs::read_to_string(ROUTES_V4) else { return };
        for (network, mask) in table.lines().filter_map(network) {
            let (one, two) =
                (Ipv4Addr::from_bits(network | !mask & 1), Ipv4Addr::from_bits(network | !mask & 2));
            let elsewhere = Ipv4Addr::from_bits(network ^ (1 << 31));
            let (one, two, other) = (IpAddr::V4(one), IpAddr::V4(two), IpAddr::V4(elsewhere));
            assert!(has_only(two, || vec![one], || vec![other]), "{two}");
            assert!(!has_only(two, || vec![one], || vec![two]), "peers and household share it");
            assert!(!has_only(two, || vec![other], Vec::new), "nobody is there");
        }
    }

    #[test]
    fn the_link_of_an_address_is_its_networks() {
        let loopback = Link::of(Ipv4Addr::new(127, 3, 4, 5).into()).unwrap();
        assert!(loopback.has(Ipv4Addr::LOCALHOST.into()) && !loopback.has(Ipv4Addr::new(10, 0, 0, 1).into()));
        assert_eq!(Link::of(Ipv4Addr::new(240, 1, 2, 3).into()), None, "a network that nobody has");
        let line = "fd000000000000000000000000000002 0a 40 00 82     eth0";
        assert_eq!(interface(line, "fd00::2".parse().unwrap()), Some((10, 64)));
        assert_eq!(interface(line, "fd00::3".parse().unwrap()), None);
        assert_eq!(interface("fd00", "fd00::2".parse().unwrap()), None);
    }

    /// On a machine that has networks: who is in one is on its link, and nobody else.
    #[test]
    fn the_own_networks_are_links() {
        let Ok(table) = std::fs::read_to_string(ROUTES_V4) else { return };
        for (network, _) in table.lines().filter_map(network).filter(|(_, mask)| !mask > 3) {
            let at = |bits| IpAddr::V4(Ipv4Addr::from_bits(bits));
            let link = Link::of(at(network + 1)).unwrap();
            assert!(link.has(at(network + 2)) && !link.has(at(network ^ (1 << 31))));
        }
    }

    /// On a machine that has IPv6 on a network: its own address there stands for the household's proxy.
    #[test]
    fn the_household_is_who_shares_a_network_with_its_proxy() {
        let own: Vec<_> = lines(ADDRESSES_V6)
            .filter_map(|line| {
                let mut fields = line.split_ascii_whitespace();
                let ip = u128::from_str_radix(fields.next()?, 16).ok()?;
                Some((Ipv6Addr::from_bits(ip), fields.last()?.to_owned()))
            })
            .collect();
        for (ip, name) in &own {
            let neighbour = Ipv6Addr::from_bits(ip.to_bits() ^ 1);
            let is_attached =
                lines(ROUTES).any(|l| has(&l, neighbour) == Some(true) && l.ends_with(&format!(" {name}")));
            assert_eq!(
                is_beside(neighbour, || vec![IpAddr::V6(*ip)]),
                is_attached && name != LOOPBACK,
                "{ip}"
            );
            assert!(!is_beside(neighbour, || vec![IpAddr::V6(Ipv6Addr::UNSPECIFIED)]));
        }
        assert!(!is_beside("2606:4700::1".parse().unwrap(), || own
            .iter()
            .map(|(ip, _)| (*ip).into())
            .collect()));
    }

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
