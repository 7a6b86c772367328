//! Socket primitives: connecting and listening, waiting with a deadline, waking a thread that waits, the low-water
//! mark, and moving bytes inside the kernel. Not responsible for protocols or for which address may be reached.
//!
//! Every socket of the daemon is non-blocking; threads wait in [`poll`] alone, so that a deadline, a poke and a
//! closed connection all end the wait (DESIGN section 4).

use core::marker::PhantomData;
use core::mem::MaybeUninit;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use core::ptr;
use std::io::{self, ErrorKind, IoSlice};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, eventfd};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};

use bamqp_core::spare::stream::Progress;
pub use rustix::event::PollFlags;

/// Connections that wait to be accepted, at most.
const BACKLOG: i32 = 64;

/// Bytes of a pipe where the buffers of sockets are not left to grow: each pipe holds as much beside them while its sink is
/// slow, and the kernel's limit for sockets does not count it.
const SMALL_PIPE_BYTES: usize = 16 * 1024;

/// Bytes of the buffers of sockets that are made from now on; 0: the kernel decides. One for the process: the memory is
/// the machine's, however many daemons a test starts in it.
static BUFFERS: AtomicUsize = AtomicUsize::new(0);

/// From now on each new socket has buffers of so many bytes, which do not grow, and pipes are small; `None`: the kernel
/// decides.
pub fn set_buffers(bytes: Option<usize>) {
    BUFFERS.store(bytes.unwrap_or(0), Ordering::Relaxed);
}

fn tcp_socket(address: &SocketAddr) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    let bytes = BUFFERS.load(Ordering::Relaxed);
    if bytes > 0 {
        // Before connecting or listening, so that the window can be announced; accepted sockets inherit it.
        set_receive_buffer(&socket, bytes)?;
        set_send_buffer(&socket, bytes)?;
    }
    Ok(socket)
}

/// Starts to connect to `to`, from the address `from` if given and of the same family. The socket is non-blocking; when [`poll`] says that
/// it is writable, [`finish_connect`] tells the result.
///
/// # Errors
/// What the system says at once: no route, `from` is not ours.
pub fn start_connect(to: SocketAddr, from: Option<IpAddr>) -> io::Result<TcpStream> {
    let socket = tcp_socket(&to)?;
    if let Some(from) = from.filter(|from| from.is_ipv4() == to.is_ipv4()) {
        rustix::net::bind(&socket, &SocketAddr::new(from, 0))?;
    }
    sockopt::set_tcp_nodelay(&socket, true)?; // requests and heads are written whole; nothing gains by waiting
    match rustix::net::connect(&socket, &to) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(socket.into()),
        Err(error) => Err(error.into()),
    }
}

/// Whether a connection that [`start_connect`] began stands: `Ok(false)` means not yet.
///
/// # Errors
/// Why it failed: refused, unreachable, timed out.
pub fn finish_connect(socket: &TcpStream) -> io::Result<bool> {
    if let Some(error) = socket.take_error()? {
        return Err(error);
    }
    match socket.peer_addr() {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotConnected => Ok(false),
        Err(error) => Err(error),
    }
}

/// Waits until a connection that [`start_connect`] began stands.
///
/// # Errors
/// As [`finish_connect`]; `TimedOut` at the deadline; `ConnectionAborted` if somebody shut the socket down.
pub fn await_connect(socket: &TcpStream, deadline: Instant) -> io::Result<()> {
    loop {
        let mut fds = [PollFd::new(socket, PollFlags::OUT)];
        if poll(&mut fds, Some(deadline))? == 0 {
            return Err(ErrorKind::TimedOut.into());
        }
        let hung_up = fds.iter().any(|fd| fd.revents().contains(PollFlags::HUP));
        match finish_connect(socket)? {
            true => return Ok(()),
            false if hung_up => return Err(ErrorKind::ConnectionAborted.into()),
            false => {}
        }
    }
}

/// Connects, waiting no longer than until `deadline`.
///
/// # Errors
/// As [`start_connect`] and [`await_connect`].
pub fn connect(to: SocketAddr, from: Option<IpAddr>, deadline: Instant) -> io::Result<TcpStream> {
    let socket = start_connect(to, from)?;
    await_connect(&socket, deadline)?;
    Ok(socket)
}

/// A non-blocking listener; the address can be taken again at once after a restart (`SO_REUSEADDR`). One for an
/// IPv6 address takes IPv6 only, so that `[::]` and `0.0.0.0` can stand beside each other.
///
/// # Errors
/// If the address is taken or not ours.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = tcp_socket(&address)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    rustix::net::bind(&socket, &address)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(socket.into())
}

/// A descriptor to wait for with [`poll`], and what it is ready for afterwards.
#[derive(Clone, Debug)]
#[repr(transparent)]
pub struct PollFd<'fd>(libc::pollfd, PhantomData<BorrowedFd<'fd>>);

impl<'fd> PollFd<'fd> {
    /// Waits for `events`; for errors and hang-ups in any case.
    pub fn new(fd: &'fd impl AsFd, events: PollFlags) -> Self {
        let fd = fd.as_fd().as_raw_fd();
        Self(libc::pollfd { fd, events: events.bits() as _, revents: 0 }, PhantomData)
    }

    /// What it is ready for.
    pub fn revents(&self) -> PollFlags {
        PollFlags::from_bits_retain(self.0.revents as _)
    }
}

/// Waits until one of `fds` is ready, or the deadline; the number of ready ones, 0 at the deadline. A wait without
/// descriptors is a sleep.
///
/// Not rustix's: on MIPS with musl that takes `time_t` for 64 bits wide, where the libc crate declares the functions for
/// 32 bits, and every wait would end at once.
///
/// # Errors
/// Only if the system has no memory.
pub fn poll(fds: &mut [PollFd<'_>], deadline: Option<Instant>) -> io::Result<usize> {
    loop {
        let timeout = deadline.map(|deadline| {
            let left = deadline.saturating_duration_since(Instant::now());
            libc::timespec {
                tv_sec: left.as_secs().try_into().unwrap_or(i32::MAX as _), // 32 or 64 bits wide, by system
                tv_nsec: left.subsec_nanos() as _,                          // likewise; below 10^9
            }
        });
        let timeout = timeout.as_ref().map_or(ptr::null(), ptr::from_ref);
        let (first, count) = (fds.as_mut_ptr().cast::<libc::pollfd>(), fds.len());
        // SAFETY: `first` and `count` are those of a slice that nobody else uses now, and a `PollFd` is a `pollfd`
        // (transparent); `timeout` is null or points to the value above; no signal mask is given.
        match unsafe { libc::ppoll(first, count as libc::nfds_t, timeout, ptr::null()) } {
            -1 => match io::Error::last_os_error() {
                error if error.kind() == ErrorKind::Interrupted => {}
                error => return Err(error),
            },
            ready => return Ok(ready as usize), // not negative
        }
    }
}

/// The result of a non-blocking transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moved {
    /// So many bytes, at least one.
    Bytes(usize),
    /// Nothing now; [`poll`] tells when to try again.
    WouldBlock,
    /// The other side sends no more.
    End,
}

fn moved(result: io::Result<usize>) -> io::Result<Moved> {
    match result {
        Ok(0) => Ok(Moved::End),
        Ok(bytes) => Ok(Moved::Bytes(bytes)),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
            Ok(Moved::WouldBlock)
        }
        Err(error) => Err(error),
    }
}

/// Reads what is there into `buffer`, which must not be empty.
///
/// # Errors
/// What the system says of the connection.
pub fn read(socket: &TcpStream, buffer: &mut [u8]) -> io::Result<Moved> {
    let mut socket = socket;
    moved(io::Read::read(&mut socket, buffer))
}

/// Writes as much of `bytes`, which must not be empty, as the socket takes.
///
/// # Errors
/// What the system says of the connection.
pub fn write(socket: &TcpStream, bytes: &[u8]) -> io::Result<Moved> {
    let mut socket = socket;
    moved(io::Write::write(&mut socket, bytes))
}

/// Waits until bytes (or the end) can be read from `socket`.
///
/// # Errors
/// `TimedOut` at the deadline.
pub fn await_readable(socket: &TcpStream, deadline: Instant) -> io::Result<()> {
    await_flags(socket, PollFlags::IN, deadline)
}

fn await_flags(socket: &TcpStream, flags: PollFlags, deadline: Instant) -> io::Result<()> {
    match poll(&mut [PollFd::new(socket, flags)], Some(deadline))? {
        0 => Err(ErrorKind::TimedOut.into()),
        _ => Ok(()),
    }
}

/// Writes all of `bytes`. `patience` is how long the other side may take nothing at all.
///
/// # Errors
/// `TimedOut` after that; else what the system says of the connection.
pub fn write_all(socket: &TcpStream, mut bytes: &[u8], patience: Duration) -> io::Result<()> {
    while !bytes.is_empty() {
        match write(socket, bytes)? {
            Moved::Bytes(written) => bytes = bytes.get(written..).unwrap_or_default(),
            Moved::WouldBlock => await_flags(socket, PollFlags::OUT, Instant::now() + patience)?,
            Moved::End => return Err(ErrorKind::WriteZero.into()),
        }
    }
    Ok(())
}

/// Writes all of `first` and then all of `second`, in one call if the socket takes it: a head and what of the body is
/// there with it arrive together. `patience` as with [`write_all`].
///
/// # Errors
/// As [`write_all`].
pub fn write_both(mut socket: &TcpStream, first: &[u8], second: &[u8], patience: Duration) -> io::Result<()> {
    let slices = [IoSlice::new(first), IoSlice::new(second)];
    let written = match moved(io::Write::write_vectored(&mut socket, &slices))? {
        Moved::Bytes(bytes) => bytes,
        Moved::WouldBlock | Moved::End => 0,
    };
    write_all(socket, first.get(written..).unwrap_or_default(), patience)?;
    write_all(socket, second.get(written.saturating_sub(first.len())..).unwrap_or_default(), patience)
}

/// Has the connection reset when it is closed, so that the other side takes what it got for an error and not for the
/// whole: the only way to say so after a body that ends with its connection.
pub fn reset_on_close(socket: &TcpStream) {
    // An error means that it is closed already.
    let _ = sockopt::set_socket_linger(socket, Some(Duration::ZERO));
}

/// Whether nothing was received and the other side has not closed: a kept connection can be used again.
pub fn is_quiet(socket: &TcpStream) -> bool {
    let mut fds = [PollFd::new(socket, PollFlags::IN | PollFlags::RDHUP)];
    matches!(poll(&mut fds, Some(Instant::now())), Ok(0))
}

/// Sets how many bytes must be there before [`poll`] calls the socket readable (`SO_RCVLOWAT`, tcp(7)). The end of
/// the stream, an error and a full buffer always count. Of a fixed buffer ([`set_buffers`]) at most half, so that the other
/// side can go on sending until we have woken up; else the system lowers it to half the receive buffer.
///
/// # Errors
/// If this is no socket.
pub fn set_rcvlowat(socket: impl AsFd, bytes: usize) -> io::Result<()> {
    let most = match BUFFERS.load(Ordering::Relaxed) {
        0 => usize::MAX,
        fixed => fixed / 2,
    };
    let value = libc::c_int::try_from(bytes.min(most).max(1)).unwrap_or(libc::c_int::MAX);
    let fd = socket.as_fd();
    // SAFETY: the descriptor is borrowed for the whole call, and the pointer and length describe one live c_int,
    // which the kernel only reads. Neither std nor rustix has this option.
    let result = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_RCVLOWAT,
            (&raw const value).cast(),
            size_of_val(&value) as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Where a connection was going before the firewall redirected it here (`SO_ORIGINAL_DST`).
///
/// # Errors
/// If the kernel keeps no track of connections, or not of this one.
pub fn original_destination(socket: &TcpStream) -> io::Result<SocketAddr> {
    /// `SO_ORIGINAL_DST` and `IP6T_SO_ORIGINAL_DST` have the same number.
    const ORIGINAL_DST: libc::c_int = libc::SO_ORIGINAL_DST;
    let mut length;
    let result;
    let address: SocketAddr = if socket.local_addr()?.is_ipv4() {
        let mut found = MaybeUninit::<libc::sockaddr_in>::zeroed();
        length = size_of_val(&found) as libc::socklen_t;
        // SAFETY: the descriptor is borrowed for the whole call, and pointer and length describe the live `found`, which the
        // kernel fills. Neither std nor rustix has this option.
        result = unsafe {
            let at = found.as_mut_ptr().cast();
            libc::getsockopt(socket.as_raw_fd(), libc::SOL_IP, ORIGINAL_DST, at, &mut length)
        };
        // SAFETY: all zeros is a valid value of this plain structure of numbers, whatever the kernel has filled.
        let found = unsafe { found.assume_init() };
        let ip = Ipv4Addr::from(u32::from_be(found.sin_addr.s_addr));
        (ip, u16::from_be(found.sin_port)).into()
    } else {
        let mut found = MaybeUninit::<libc::sockaddr_in6>::zeroed();
        length = size_of_val(&found) as libc::socklen_t;
        // SAFETY: as above.
        result = unsafe {
            let at = found.as_mut_ptr().cast();
            libc::getsockopt(socket.as_raw_fd(), libc::SOL_IPV6, ORIGINAL_DST, at, &mut length)
        };
        // SAFETY: as above.
        let found = unsafe { found.assume_init() };
        let ip = Ipv6Addr::from(found.sin6_addr.s6_addr);
        (ip, u16::from_be(found.sin6_port)).into()
    };
    if result == 0 { Ok(address) } else { Err(io::Error::last_os_error()) }
}

/// Fixes the socket's receive buffer; the system takes twice as much for its own bookkeeping. Before connecting or
/// listening, so that the window can be announced.
///
/// # Errors
/// If this is no socket.
pub fn set_receive_buffer(socket: impl AsFd, bytes: usize) -> io::Result<()> {
    Ok(sockopt::set_socket_recv_buffer_size(socket, bytes)?)
}

/// Fixes the socket's send buffer; the system takes twice as much for its own bookkeeping.
///
/// # Errors
/// If this is no socket.
pub fn set_send_buffer(socket: impl AsFd, bytes: usize) -> io::Result<()> {
    Ok(sockopt::set_socket_send_buffer_size(socket, bytes)?)
}

/// Size of the socket's receive buffer, as the system counts it.
///
/// # Errors
/// If this is no socket.
pub fn receive_buffer(socket: impl AsFd) -> io::Result<usize> {
    Ok(sockopt::socket_recv_buffer_size(socket)?)
}

/// What has come on a connection, in order or not (`TCP_INFO`).
///
/// # Errors
/// If this is no TCP socket, or a kernel before 4.6, which does not count segments.
pub fn progress(socket: impl AsFd) -> io::Result<Progress> {
    /// As far as `tcpi_data_segs_in`, in 32-bit words; the structure of linux/tcp.h only ever grows. (The libc crate knows an
    /// older one.)
    const WORDS: usize = 39;
    /// Where `tcpi_bytes_received` stands, 64 bits wide, and `tcpi_data_segs_in`.
    const BYTES: usize = 32;
    const SEGMENTS: usize = 38;
    let mut info = [0u32; WORDS];
    let mut length = size_of_val(&info) as libc::socklen_t;
    let fd = socket.as_fd();
    // SAFETY: the descriptor is borrowed for the whole call, and pointer and length describe the live `info`, of which the
    // kernel fills as much as it knows. Neither std nor rustix has this option.
    let result = unsafe {
        let at = info.as_mut_ptr().cast();
        libc::getsockopt(fd.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_INFO, at, &mut length)
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    if (length as usize) < size_of_val(&info) {
        return Err(ErrorKind::Unsupported.into());
    }
    let [low, high] = [info[BYTES], info[BYTES + 1]].map(u32::to_ne_bytes);
    let mut bytes = [0; 8];
    bytes.iter_mut().zip(low.into_iter().chain(high)).for_each(|(to, from)| *to = from);
    Ok(Progress { bytes: u64::from_ne_bytes(bytes), segments: info[SEGMENTS] })
}

/// Wakes a thread that waits in [`poll`], from any other thread (an eventfd).
#[derive(Debug)]
pub struct Waker(OwnedFd);

impl Waker {
    /// A waker that nobody has poked yet.
    ///
    /// # Errors
    /// If the process has no descriptors left.
    pub fn new() -> io::Result<Self> {
        Ok(Self(eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?))
    }

    /// Makes the waker readable until it is drained. Never blocks: a full counter is as good as a poke.
    pub fn poke(&self) {
        let _ = rustix::io::write(&self.0, &1u64.to_ne_bytes());
    }

    /// Takes back all pokes; whether there were any.
    pub fn drain(&self) -> bool {
        rustix::io::read(&self.0, &mut [0u8; 8]).is_ok()
    }
}

impl AsFd for Waker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Moves bytes from one socket to another inside the kernel: into a pipe and out of it.
#[derive(Debug)]
pub struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
    held: usize,
}

impl Pipe {
    /// An empty pipe, of the system's usual size (64 KiB) unless memory is small.
    ///
    /// # Errors
    /// If the process has no descriptors left.
    pub fn new() -> io::Result<Self> {
        let (read, write) = pipe_with(PipeFlags::NONBLOCK | PipeFlags::CLOEXEC)?;
        if BUFFERS.load(Ordering::Relaxed) > 0 {
            fcntl_setpipe_size(&write, SMALL_PIPE_BYTES)?;
        }
        Ok(Self { read, write, held: 0 })
    }

    /// Bytes that were taken in and not given out.
    pub fn held(&self) -> usize {
        self.held
    }

    /// Takes at most `most` (not 0) bytes out of `from`. `WouldBlock` is also what a full pipe says: so give out
    /// what it holds before waiting for `from`.
    ///
    /// # Errors
    /// What the system says of the connection.
    pub fn fill(&mut self, from: impl AsFd, most: usize) -> io::Result<Moved> {
        let flags = SpliceFlags::NONBLOCK | SpliceFlags::MOVE;
        let result = moved(splice(from, None, &self.write, None, most, flags).map_err(io::Error::from));
        if let Ok(Moved::Bytes(bytes)) = result {
            self.held += bytes;
        }
        result
    }

    /// Gives what it holds to `to`, as much as that takes; `End` if it holds nothing.
    ///
    /// # Errors
    /// What the system says of the connection.
    pub fn drain(&mut self, to: impl AsFd) -> io::Result<Moved> {
        if self.held == 0 {
            return Ok(Moved::End);
        }
        let flags = SpliceFlags::NONBLOCK | SpliceFlags::MOVE;
        let result = moved(splice(&self.read, None, to, None, self.held, flags).map_err(io::Error::from));
        if let Ok(Moved::Bytes(bytes)) = result {
            self.held = self.held.saturating_sub(bytes);
        }
        result
    }
}
