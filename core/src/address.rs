//! Which addresses may be connected to on somebody's behalf (DESIGN section 7, "What may be fetched"). Asked
//! *after* resolving, and the connection goes to the checked address. Not responsible for resolving.

use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::str::FromStr;

use crate::http::decimal;

/// A network in CIDR notation, such as `10.0.0.0/24` or `fd00::/8`; an address alone is a network of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    bits: u8,
}

impl Network {
    /// The network of `address` whose addresses have the first `bits` bits in common; all of them if it has fewer.
    pub const fn new(address: IpAddr, bits: u8) -> Network {
        Network { address, bits }
    }

    const fn v4(a: u8, b: u8, c: u8, bits: u8) -> Network {
        Network { address: IpAddr::V4(Ipv4Addr::new(a, b, c, 0)), bits }
    }

    const fn v6(a: u16, b: u16, c: u16, bits: u8) -> Network {
        Network { address: IpAddr::V6(Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0)), bits }
    }

    /// Whether `address` belongs to it. An IPv4 network has no IPv6 addresses, mapped ones neither.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                let shift = 32 - u32::from(self.bits.min(32));
                (own.to_bits() ^ other.to_bits()).checked_shr(shift).unwrap_or(0) == 0
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                let shift = 128 - u32::from(self.bits.min(128));
                (own.to_bits() ^ other.to_bits()).checked_shr(shift).unwrap_or(0) == 0
            }
            _ => false,
        }
    }
}

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Network, NetworkError> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| NetworkError::Address)?;
        let most: u8 = if address.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            None => most,
            Some(bits) => decimal(bits.as_bytes())
                .and_then(|bits| u8::try_from(bits).ok())
                .filter(|bits| *bits <= most)
                .ok_or(NetworkError::Bits { most })?,
        };
        Ok(Network { address, bits })
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

/// Why a text is no network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetworkError {
    /// What stands before `/` is no address.
    Address,
    /// What stands after `/` is no number from 0 to `most`.
    Bits {
        /// 32 or 128.
        most: u8,
    },
}

impl fmt::Display for NetworkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NetworkError::Address => f.write_str("expected a network such as 10.0.0.0/24 or fd00::/8"),
            NetworkError::Bits { most } => write!(f, "expected a number from 0 to {most} after the slash"),
        }
    }
}

impl core::error::Error for NetworkError {}

/// Networks that are not the public internet: DESIGN section 7; more whose addresses carry an IPv4 address inside
/// (`::/96`, RFC 4291; `64:ff9b:1::/48`, RFC 8215; `2001::/32`, RFC 4380); `100::/64` (RFC 6666) and `2001:db8::/32`.
const NOT_PUBLIC: [Network; 23] = [
    Network::v4(0, 0, 0, 8),
    Network::v4(10, 0, 0, 8),
    Network::v4(100, 64, 0, 10),
    Network::v4(127, 0, 0, 8),
    Network::v4(169, 254, 0, 16),
    Network::v4(172, 16, 0, 12),
    Network::v4(192, 0, 0, 24),
    Network::v4(192, 168, 0, 16),
    Network::v4(198, 18, 0, 15),
    Network::v4(224, 0, 0, 4),
    Network::v4(240, 0, 0, 4),
    Network::v6(0, 0, 0, 96),
    Network { address: IpAddr::V6(Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0)), bits: 96 },
    Network::v6(0x64, 0xff9b, 0, 96),
    Network::v6(0x64, 0xff9b, 1, 48),
    Network::v6(0x100, 0, 0, 64),
    Network::v6(0x2001, 0, 0, 32),
    Network::v6(0x2001, 0xdb8, 0, 32),
    Network::v6(0x2002, 0, 0, 16),
    Network::v6(0xfc00, 0, 0, 7),
    Network::v6(0xfe80, 0, 0, 10),
    Network::v6(0xfec0, 0, 0, 10),
    Network::v6(0xff00, 0, 0, 8),
];

/// Whether `address` is on the public internet.
pub fn is_public(address: IpAddr) -> bool {
    !NOT_PUBLIC.iter().any(|network| network.contains(address))
}

/// What may be reached: the owner's exceptions to the rules, and what never may.
#[derive(Clone, Copy, Debug)]
pub struct Reach<'a> {
    /// The router's own addresses: never, not even if `private` has them.
    pub own: &'a [IpAddr],
    /// Networks that may be reached although they are not public: `allow_private`.
    pub private: &'a [Network],
    /// The ports that may be connected to.
    pub ports: &'a [u16],
}

impl Reach<'_> {
    /// Whether a connection to `address` and `port` may be made.
    ///
    /// # Errors
    /// Why not.
    pub fn check(&self, address: IpAddr, port: u16) -> Result<(), Refusal> {
        let is_own = |own: &IpAddr| own.to_canonical() == address.to_canonical();
        if self.own.iter().any(is_own) || address.is_unspecified() {
            return Err(Refusal::OwnAddress);
        }
        if !is_public(address) && !self.private.iter().any(|network| network.contains(address)) {
            return Err(Refusal::NotPublic);
        }
        if !self.ports.contains(&port) {
            return Err(Refusal::Port);
        }
        Ok(())
    }
}

/// Why an address may not be connected to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It is one of the router's own.
    OwnAddress,
    /// It is not on the public internet, and the owner did not allow its network.
    NotPublic,
    /// It is in a network of the router's own, behind its firewall.
    OwnNetwork,
    /// The owner did not allow this port.
    Port,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Refusal::OwnAddress => "the address is the router's own",
            Refusal::NotPublic => "the address is not on the public internet (see allow_private)",
            Refusal::OwnNetwork => "the address is in a network of the router's own (see allow_private)",
            Refusal::Port => "the port is not allowed (see fetch_ports and connect_ports)",
        })
    }
}

impl core::error::Error for Refusal {}
