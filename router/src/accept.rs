//! The listeners, and the thread that accepts on all of them: who is let in, and who is told why not. Not responsible
//! for what is said on a connection.

use core::net::SocketAddr;
use std::io::{self, ErrorKind};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bamqp_core::refuse::Refuse;

use crate::answer::{self, Trouble};
use crate::config::Config;
use crate::daemon::{Hub, Shared};
use crate::net::{self, PollFd, PollFlags, Waker};
use crate::proxy;
use crate::sparingly::Sparingly;

/// How long not to accept after the system refused for want of descriptors or memory.
const PAUSE: Duration = Duration::from_millis(100);

/// Who connects there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// Programs that know that it is a proxy.
    Clients,
    /// Programs whose connections to web servers were redirected here.
    Redirected,
    /// Other routers.
    Peers,
}

/// An open listener.
#[derive(Debug)]
pub(crate) struct Listening {
    pub(crate) side: Side,
    /// As the configuration has it: the port may be 0.
    configured: SocketAddr,
    pub(crate) address: SocketAddr,
    socket: TcpListener,
}

/// Opens what `config` names and `open` does not have.
///
/// # Errors
/// The address where it is not possible to listen, and why.
pub(crate) fn listen(
    config: &Config,
    open: &[Arc<Listening>],
) -> Result<Vec<Arc<Listening>>, (SocketAddr, io::Error)> {
    let sides = [
        (Side::Clients, config.listen.as_slice()),
        (Side::Redirected, config.transparent_listen()),
        (Side::Peers, config.peer_listen.as_slice()),
    ];
    let all = sides.into_iter().flat_map(|(side, addresses)| addresses.iter().map(move |at| (side, *at)));
    let one = |(side, configured): (Side, SocketAddr)| {
        if let Some(same) = open.iter().find(|old| (old.side, old.configured) == (side, configured)) {
            return Ok(same.clone());
        }
        let listening = net::listen(configured).and_then(|socket| {
            Ok(Arc::new(Listening { side, configured, address: socket.local_addr()?, socket }))
        });
        listening.map_err(|error| (configured, error))
    };
    all.map(one).collect()
}

/// Where other routers connect.
pub(crate) fn peer_address(listeners: &[Arc<Listening>]) -> Option<SocketAddr> {
    listeners.iter().find(|one| one.side == Side::Peers).map(|one| one.address)
}

/// Accepts on all listeners until `stop` is poked.
pub(crate) fn accept_all(hub: &Arc<Hub>, stop: &Waker) {
    loop {
        hub.listeners_changed.drain();
        let listeners = hub.listeners();
        let mut fds =
            vec![PollFd::new(stop, PollFlags::IN), PollFd::new(&hub.listeners_changed, PollFlags::IN)];
        fds.extend(listeners.iter().map(|one| PollFd::new(&one.socket, PollFlags::IN)));
        if let Err(error) = net::poll(&mut fds, None) {
            log::error!("waiting for connections failed: {error}");
            return;
        }
        let mut ready = fds.iter().map(|fd| !fd.revents().is_empty());
        if ready.next() == Some(true) {
            return;
        }
        for one in listeners.iter().zip(ready.skip(1)).filter_map(|(one, ready)| ready.then_some(one)) {
            match one.socket.accept() {
                Ok((socket, from)) => admit(hub, one.side, socket, from),
                Err(error) if is_passing(&error) => {}
                Err(error) => {
                    log::warn!("accepting a connection failed: {error}");
                    // The connection stays in the queue: without a pause this would spin.
                    let until = Instant::now() + PAUSE;
                    let _ = net::poll(&mut [PollFd::new(stop, PollFlags::IN)], Some(until));
                }
            }
        }
    }
}

/// The connection was gone before it was accepted.
fn is_passing(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::ConnectionAborted | ErrorKind::Interrupted)
}

fn admit(hub: &Arc<Hub>, side: Side, socket: TcpStream, from: SocketAddr) {
    if socket.set_nonblocking(true).and_then(|()| socket.set_nodelay(true)).is_err() {
        return; // closed already
    }
    let shared = hub.current();
    match side {
        Side::Clients => admit_client(hub, &shared, socket, from, None),
        Side::Redirected => match net::original_destination(&socket) {
            // The router's own services are not for the proxy, and it least of all: that would never end.
            Ok(destination) if shared.gate.check(destination).is_ok() => {
                admit_client(hub, &shared, socket, from, Some(destination));
            }
            _ => refuse(&shared, &socket, from, &Trouble::NotRedirected),
        },
        Side::Peers => admit_peer(&shared, socket, from),
    }
}

/// Starts a thread for a client of the household; others and those above the limit are refused.
fn admit_client(
    hub: &Arc<Hub>,
    shared: &Arc<Shared>,
    socket: TcpStream,
    from: SocketAddr,
    destination: Option<SocketAddr>,
) {
    if !shared.is_client(from) {
        return refuse(shared, &socket, from, &Trouble::Refused(Refuse::Client));
    }
    let Ok(socket) = shared.live.add(socket) else { return };
    let Some(seat) = shared.seats.take(&socket, shared.budget.counts.clients.into(), Instant::now()) else {
        return refuse(shared, &socket, from, &Trouble::Refused(Refuse::Busy));
    };
    shared.counters.connections.fetch_add(1, Ordering::Relaxed);
    let (hub, serving) = (hub.clone(), socket.clone());
    let started =
        shared.live.spawn("client", move || proxy::connection(&hub, serving, from, destination, &seat));
    if let Err(error) = started {
        log::warn!("{from}: no thread for a client: {error}");
        refuse(shared, &socket, from, &Trouble::Refused(Refuse::Busy));
    }
}

/// Starts a thread for a connection of another router.
fn admit_peer(shared: &Arc<Shared>, socket: TcpStream, from: SocketAddr) {
    // Before anything is set up for it: a flood of connections costs no thread.
    let Some(visit) = shared.serve.enter(from) else { return };
    let serve = shared.serve.clone();
    let started = shared
        .live
        .add(socket)
        .and_then(|socket| shared.live.spawn("serve", move || serve.connection(socket, visit)));
    if let Err(error) = started {
        log::warn!("{from}: no thread for a router: {error}");
    }
}

fn refuse(shared: &Shared, socket: &TcpStream, from: SocketAddr, trouble: &Trouble) {
    shared.counters.refused.fetch_add(1, Ordering::Relaxed);
    static LINES: Sparingly = Sparingly::new();
    LINES.info(module_path!(), || format!("{from}: {trouble}"));
    // It fits into the empty send buffer, so that the accepting thread never waits here; nor does it linger.
    let _ = answer::send(socket, trouble, false);
    let _ = net::read(socket, &mut [0; 2048]); // unread, the request would have the answer reset
    let _ = socket.shutdown(std::net::Shutdown::Write);
}
