//! Datagrams to everybody on one link, IPv4 and IPv6: one socket hears, and each one that is sent has its own. Not
//! responsible for what is said ([`crate::discover`]).
//!
//! They are sent with a TTL (hop limit) of 255, and the kernel drops what arrives with less: a router has passed it on. So
//! nobody from elsewhere gets through, which a receiver can't tell of datagrams that are sent with 1 (RFC 5082; RFC 6762
//! section 11 has the same history). Routers have no reason to pass ours on: link scope in IPv6, in IPv4 one for the site
//! (RFC 2365), and whoever is reached all the same drops it.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::io::{self, ErrorKind};
use std::net::UdpSocket;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

use crate::own_networks::Link;

/// Of the local scope (RFC 2365 section 6.1).
const GROUP_V4: Ipv4Addr = Ipv4Addr::new(239, 255, 77, 33);

/// Link scope, not assigned by IANA (RFC 4291 section 2.7), from the range for dynamic ones (RFC 3307 section 4.3).
const GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xff12, 0, 0, 0, 0, 0, 0x8000, 0x7733);

/// What no router has touched.
const TTL: u8 = 255;

/// Bytes of the socket's buffer, which the kernel doubles: what comes faster than it is read is thrown away.
const BUFFER: usize = 16 * 1024;

/// (linux/in6.h; the libc crate lacks it for some systems.) Since Linux 4.20.
const IPV6_MULTICAST_ALL: libc::c_int = 29;

/// Hears what is sent to the group on one link.
#[derive(Debug)]
pub struct Ear {
    socket: UdpSocket,
    link: Link,
}

fn group(link: &Link, port: u16) -> SocketAddr {
    match link.own {
        IpAddr::V4(_) => (GROUP_V4, port).into(),
        IpAddr::V6(_) => SocketAddrV6::new(GROUP_V6, port, 0, link.index).into(),
    }
}

fn udp_socket(link: &Link) -> io::Result<UdpSocket> {
    let family = if link.own.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    Ok(rustix::net::socket_with(family, SocketType::DGRAM, flags, None).map(OwnedFd::into)?)
}

/// Sends `bytes` from the own address on `link` to all that listen there on `port`.
///
/// # Errors
/// What the system says of the link.
pub fn send(link: &Link, port: u16, bytes: &[u8]) -> io::Result<()> {
    let socket = udp_socket(link)?;
    match link.own {
        IpAddr::V4(own) => {
            sockopt::set_ip_multicast_if(&socket, &own)?;
            sockopt::set_ip_multicast_ttl(&socket, TTL.into())?;
            rustix::net::bind(&socket, &SocketAddr::from((own, 0)))?;
        }
        IpAddr::V6(own) => {
            sockopt::set_ipv6_multicast_if(&socket, link.index)?;
            sockopt::set_ipv6_multicast_hops(&socket, TTL.into())?;
            rustix::net::bind(&socket, &SocketAddrV6::new(own, 0, 0, link.index))?;
        }
    }
    socket.send_to(bytes, group(link, port)).map(drop)
}

impl Ear {
    /// Listens on `link` and `port`; others on this machine may, too.
    ///
    /// # Errors
    /// What the system says of the link.
    pub fn open(link: &Link, port: u16) -> io::Result<Ear> {
        let socket = udp_socket(link)?;
        sockopt::set_socket_reuseaddr(&socket, true)?;
        sockopt::set_socket_recv_buffer_size(&socket, BUFFER)?;
        only_direct(&socket, link.own.is_ipv4())?;
        only_joined(&socket, link.own.is_ipv4())?;
        rustix::net::bind(&socket, &group(link, port))?;
        let ear = Ear { socket, link: link.clone() };
        ear.join()?;
        Ok(ear)
    }

    /// Joins the group once more: the link may have gone and come back meanwhile, and the kernel has forgotten us then.
    ///
    /// # Errors
    /// What the system says of the link.
    pub fn join(&self) -> io::Result<()> {
        let joined = match self.link.own {
            IpAddr::V4(own) => sockopt::set_ip_add_membership(&self.socket, &GROUP_V4, &own),
            IpAddr::V6(_) => sockopt::set_ipv6_add_membership(&self.socket, &GROUP_V6, self.link.index),
        };
        match joined {
            Err(rustix::io::Errno::ADDRINUSE) => Ok(()), // still a member
            other => Ok(other?),
        }
    }

    /// On which link.
    pub fn link(&self) -> &Link {
        &self.link
    }

    /// The next datagram, if there is one: its length, or that of `buffer` if it is longer, and its sender.
    ///
    /// # Errors
    /// What the system says of the link.
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<Option<(usize, SocketAddr)>> {
        match self.socket.recv_from(buffer) {
            Ok(received) => Ok(Some(received)),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl AsFd for Ear {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Has the kernel drop what a router has passed on: a filter of four instructions (Linux's
/// Documentation/networking/filter.rst) that loads the TTL, compares it, and takes all of the datagram or nothing. (Linux
/// has `IP_MINTTL` for TCP only.)
fn only_direct(socket: &UdpSocket, is_v4: bool) -> io::Result<()> {
    let ttl_at = if is_v4 { 8 } else { 7 };
    let instruction = |code: u32, jf, k| libc::sock_filter { code: code as u16, jt: 0, jf, k };
    let filter = [
        instruction(libc::BPF_LD | libc::BPF_B | libc::BPF_ABS, 0, (libc::SKF_NET_OFF + ttl_at) as u32),
        instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 1, TTL.into()),
        instruction(libc::BPF_RET | libc::BPF_K, 0, u32::MAX),
        instruction(libc::BPF_RET | libc::BPF_K, 0, 0),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_ptr().cast_mut() };
    set_option(socket, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &program)
}

/// Has it leave out what others on this machine have joined on other links.
fn only_joined(socket: &UdpSocket, is_v4: bool) -> io::Result<()> {
    let (level, option) = if is_v4 {
        (libc::IPPROTO_IP, libc::IP_MULTICAST_ALL)
    } else {
        (libc::IPPROTO_IPV6, IPV6_MULTICAST_ALL)
    };
    let no: libc::c_int = 0;
    match set_option(socket, level, option, &no) {
        // An older kernel. In IPv6 the socket is bound to the link anyhow.
        Err(error) if error.raw_os_error() == Some(libc::ENOPROTOOPT) => Ok(()),
        result => result,
    }
}

/// Sets an option that neither std nor rustix has; `value` is what the kernel takes for it.
fn set_option<T>(socket: &UdpSocket, level: libc::c_int, option: libc::c_int, value: &T) -> io::Result<()> {
    // SAFETY: the descriptor is borrowed for the whole call, and pointer and length describe the live `value`, which the
    // kernel only reads; so it does with the filter that a `sock_fprog` points to, which lives in the caller.
    let result = unsafe {
        let (value, length) = (core::ptr::from_ref(value).cast(), size_of::<T>() as libc::socklen_t);
        libc::setsockopt(socket.as_raw_fd(), level, option, value, length)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
