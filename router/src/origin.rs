//! The way to origins: resolving names, refusing what must not be reached, connecting to the checked address. Not
//! responsible for what is said there.

use core::fmt;
use core::net::{IpAddr, SocketAddr};
use std::io::{self, ErrorKind};
use std::net::{TcpStream, ToSocketAddrs, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bamqp_core::address::{Network, Reach, Refusal};
use heapless::Vec;

use crate::config::Config;
use crate::live::Live;
use crate::net;
use crate::own_networks;

/// Most addresses of one name that are looked at.
pub const MAX_ADDRESSES: usize = 8;

/// Addresses of one origin that were checked, in the resolver's order.
pub type Addresses = Vec<SocketAddr, MAX_ADDRESSES>;

/// Which addresses may be reached, and from where.
#[derive(Clone, Debug)]
pub struct Gate {
    wan_address: Option<IpAddr>,
    allow_private: std::vec::Vec<Network>,
    fetch_ports: std::vec::Vec<u16>,
    listeners: std::vec::Vec<SocketAddr>,
}

/// A connection to an origin.
#[derive(Debug)]
pub struct Connected {
    /// The socket, non-blocking.
    pub socket: Arc<TcpStream>,
    /// Where it leads: the address that was checked.
    pub address: SocketAddr,
    /// How long the handshake took: the first measurement of the round trip.
    pub took: Duration,
}

/// Why an origin can't be reached.
#[derive(Debug)]
pub enum OriginError {
    /// The name has no address.
    Unresolved(io::Error),
    /// No address of the name may be reached; the first one, and why not.
    Refused(IpAddr, Refusal),
    /// No address answered; what the last one said.
    Unreachable(io::Error),
}

impl fmt::Display for OriginError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unresolved(error) => write!(f, "no address found: {error}"),
            Self::Refused(address, why) => write!(f, "{address}: {why}"),
            Self::Unreachable(error) => write!(f, "no connection: {error}"),
        }
    }
}

impl core::error::Error for OriginError {}

impl Gate {
    /// The rules of a configuration. `listeners` are the addresses where this daemon itself listens.
    pub fn new(config: &Config, listeners: std::vec::Vec<SocketAddr>) -> Self {
        Self {
            wan_address: config.wan_address,
            allow_private: config.allow_private.clone(),
            fetch_ports: config.fetch_ports.clone(),
            listeners,
        }
    }

    /// The addresses of `host` that a client of this household may reach: all but the router's own, whose
    /// services would take the request for one from the router itself. Blocks for as long as the system's resolver
    /// does.
    ///
    /// # Errors
    /// [`OriginError::Unresolved`], or [`OriginError::Refused`] if no address is left.
    pub fn resolve(&self, host: &str, port: u16) -> Result<Addresses, OriginError> {
        keep(lookup(host, port)?, |address| self.check(address))
    }

    /// The addresses of `host` that may be reached for another router: on the public internet, or in a lab's
    /// ranges, and a port that the owner allows. Blocks as [`Gate::resolve`].
    ///
    /// # Errors
    /// As [`Gate::resolve`].
    pub fn resolve_public(&self, host: &str, port: u16) -> Result<Addresses, OriginError> {
        keep(lookup(host, port)?, |address| self.check_public(address))
    }

    /// Whether clients of this household may reach `address`.
    ///
    /// # Errors
    /// [`Refusal::OwnAddress`].
    pub fn check(&self, address: SocketAddr) -> Result<(), Refusal> {
        if self.is_own(address) { Err(Refusal::OwnAddress) } else { Ok(()) }
    }

    /// Whether `address` may be reached for another router.
    ///
    /// # Errors
    /// Why not.
    pub fn check_public(&self, address: SocketAddr) -> Result<(), Refusal> {
        self.check(address)?;
        if let IpAddr::V6(ip) = address.ip()
            && own_networks::have(ip)
            && !self.is_lab(address.ip())
        {
            return Err(Refusal::OwnNetwork);
        }
        let reach = Reach { own: &[], private: &self.allow_private, ports: &self.fetch_ports };
        reach.check(address.ip(), address.port())
    }

    /// Whether `address` is the router's own: its listeners always; else whatever a UDP socket can be bound to,
    /// unless `allow_private` names it. Loopback, unspecified and multicast addresses count as own.
    fn is_own(&self, address: SocketAddr) -> bool {
        let ip = address.ip().to_canonical();
        let own = ip.is_loopback()
            || ip.is_unspecified()
            || ip.is_multicast()
            || ip == IpAddr::V4(core::net::Ipv4Addr::BROADCAST)
            || UdpSocket::bind((ip, 0)).is_ok();
        let listens = |listener: &SocketAddr| {
            let at = listener.ip().to_canonical();
            listener.port() == address.port() && (at == ip || at.is_unspecified() && own)
        };
        self.listeners.iter().any(listens) || own && !self.is_lab(ip)
    }

    fn is_lab(&self, ip: IpAddr) -> bool {
        self.allow_private.iter().any(|range| range.contains(ip))
    }

    /// Connects to the first of `addresses` that answers, from `wan_address` if one is configured. The time until
    /// `deadline` is shared between the addresses that are left.
    ///
    /// # Errors
    /// [`OriginError::Unreachable`] with what the last address said.
    pub fn connect(
        &self,
        addresses: &[SocketAddr],
        live: &Live,
        deadline: Instant,
    ) -> Result<Connected, OriginError> {
        let mut last = io::Error::from(ErrorKind::AddrNotAvailable);
        for (left, &address) in (1..=addresses.len() as u32).rev().zip(addresses) {
            let start = Instant::now();
            let by = start + deadline.saturating_duration_since(start) / left;
            match self.connect_one(address, live, by) {
                Ok(socket) => return Ok(Connected { socket, address, took: start.elapsed() }),
                Err(error) => last = error,
            }
            if live.is_stopping() {
                break;
            }
        }
        Err(OriginError::Unreachable(last))
    }

    fn connect_one(&self, address: SocketAddr, live: &Live, by: Instant) -> io::Result<Arc<TcpStream>> {
        let socket = live.add(net::start_connect(address, self.wan_address)?)?;
        net::await_connect(&socket, by)?;
        // A port picked by the system can be the one that is connected to: on loopback, a socket then talks to
        // itself (TCP's simultaneous open).
        if socket.local_addr()? == address {
            return Err(ErrorKind::ConnectionRefused.into());
        }
        Ok(socket)
    }
}

/// All addresses of a name or literal address (IPv6 with or without brackets). The system's resolver also takes
/// `127.1` or `0x7f000001`, which is why addresses are checked and not names.
fn lookup(host: &str, port: u16) -> Result<Addresses, OriginError> {
    let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    if bare.is_empty() {
        return Err(OriginError::Unresolved(ErrorKind::InvalidInput.into()));
    }
    let found = (bare, port).to_socket_addrs().map_err(OriginError::Unresolved)?;
    let mut addresses = Addresses::new();
    for address in found {
        if !addresses.contains(&address) && addresses.push(address).is_err() {
            break;
        }
    }
    match addresses.is_empty() {
        true => Err(OriginError::Unresolved(ErrorKind::NotFound.into())),
        false => Ok(addresses),
    }
}

/// The addresses that pass `check`; if there is none, why the first didn't.
fn keep(
    addresses: Addresses,
    check: impl Fn(SocketAddr) -> Result<(), Refusal>,
) -> Result<Addresses, OriginError> {
    let mut kept = Addresses::new();
    let mut why = None;
    for address in addresses {
        match check(address) {
            Ok(()) => kept.push(address).unwrap_or(()),
            Err(refusal) => why = why.or(Some(OriginError::Refused(address.ip(), refusal))),
        }
    }
    why.filter(|_| kept.is_empty()).map_or(Ok(kept), Err)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate(lab: &[&str], listeners: &[&str]) -> Gate {
        let config = Config {
            allow_private: lab.iter().map(|range| range.parse().unwrap()).collect(),
            ..Config::default()
        };
        Gate::new(&config, listeners.iter().map(|address| address.parse().unwrap()).collect())
    }

    fn own(result: Result<Addresses, OriginError>) -> bool {
        matches!(result, Err(OriginError::Refused(_, Refusal::OwnAddress)))
    }

    #[test]
    fn own_addresses_are_refused_however_they_are_written() {
        let gate = gate(&[], &[]);
        let hosts = [
            "127.0.0.1",
            "localhost",
            "127.1",
            "0x7f000001",
            "2130706433",
            "[::1]",
            "::1",
            "[::ffff:127.0.0.1]",
        ];
        for host in hosts.iter().chain(&["0.0.0.0", "[::]", "224.0.0.1", "[ff02::1]", "255.255.255.255"]) {
            assert!(own(gate.resolve(host, 80)), "{host}");
        }
        assert!(!own(gate.resolve("192.0.2.1", 80)));
        assert!(matches!(gate.resolve("", 80), Err(OriginError::Unresolved(_))));
    }

    #[test]
    fn a_lab_may_use_its_ranges_but_never_the_listeners() {
        let gate = gate(&["127.0.0.0/8"], &["127.0.0.1:3128", "0.0.0.0:7733"]);
        assert_eq!(gate.resolve("127.0.0.2", 80).unwrap().as_slice(), &["127.0.0.2:80".parse().unwrap()]);
        assert!(!own(gate.resolve("127.0.0.2", 3128)));
        assert!(own(gate.resolve("127.0.0.1", 3128)));
        assert!(own(gate.resolve("[::ffff:127.0.0.1]", 3128)));
        assert!(own(gate.resolve("127.0.0.9", 7733)), "a listener for every address");
        assert!(own(gate.resolve("[::1]", 80)), "not of the lab's range");
    }

    #[test]
    fn for_peers_only_the_public_internet_and_open_ports() {
        let gate = gate(&["10.9.0.0/16"], &[]);
        let why = |host, port| match gate.resolve_public(host, port) {
            Err(OriginError::Refused(_, refusal)) => Some(refusal),
            _ => None,
        };
        assert_eq!(why("192.0.2.1", 80), None);
        assert_eq!(why("192.0.2.1", 8080), Some(Refusal::Port));
        assert_eq!(why("10.8.0.1", 80), Some(Refusal::NotPublic));
        assert_eq!(why("10.9.0.1", 443), None);
        assert_eq!(why("127.0.0.1", 80), Some(Refusal::OwnAddress));
        // What every host with IPv6 on a cable is attached to.
        let attached = "fe80::abcd:1";
        if own_networks::have(attached.parse().unwrap()) {
            assert_eq!(why(attached, 80), Some(Refusal::OwnNetwork));
        }
    }

    #[test]
    fn the_next_address_is_tried_when_one_refuses() {
        let listener = net::listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let open = listener.local_addr().unwrap();
        let closed = net::listen("127.0.0.1:0".parse().unwrap()).unwrap().local_addr().unwrap();
        let gate = Gate { wan_address: Some("127.0.5.5".parse().unwrap()), ..gate(&[], &[]) };
        let deadline = Instant::now() + Duration::from_secs(10);
        let connected = gate.connect(&[closed, open], &Live::default(), deadline).unwrap();
        assert_eq!(connected.address, open);
        assert_eq!(listener.accept().unwrap().1.ip().to_string(), "127.0.5.5");
        let error = gate.connect(&[closed], &Live::default(), deadline).unwrap_err();
        assert!(
            matches!(error, OriginError::Unreachable(error) if error.kind() == ErrorKind::ConnectionRefused)
        );
    }
}
