//! The running daemon: its listeners, what its threads share, its limits, and how it ends. Not responsible for what
//! is said on a connection.

use core::fmt;
use core::net::SocketAddr;
use std::io::{self, ErrorKind};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bamqp_core::channel::WeakKey;
use bamqp_core::refuse::Refuse;

use crate::answer::{self, Trouble};
use crate::config::Config;
use crate::control::Control;
use crate::keyring::Keyring;
use crate::keys::KeyPair;
use crate::ledger_file::{self, Ledger};
use crate::live::{Live, STACK_BYTES};
use crate::net::{self, PollFd, PollFlags, Waker};
use crate::origin::Gate;
use crate::origin_memory::OriginMemory;
use crate::own_link::OwnLinkRecord;
use crate::own_networks;
use crate::peers::Peers;
use crate::proxy;
use crate::serve::Serve;
use crate::sparingly::Sparingly;
use crate::status::{SessionReport, Sessions};
use crate::trust_store::TrustStore;

/// How long not to accept after the system refused for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What all threads of a daemon share.
#[derive(Debug)]
pub struct Shared {
    /// The configuration, with the addresses as they were given.
    pub config: Config,
    /// The router's key, and what is agreed with its peers.
    pub keyring: Arc<Keyring>,
    /// Our pseudonym in `Via`: a token that no other router has.
    pub via: String,
    /// Which addresses may be reached.
    pub gate: Arc<Gate>,
    /// What `stop` ends.
    pub live: Arc<Live>,
    /// How far they are trusted.
    pub trust: Arc<TrustStore>,
    /// The neighbours that help.
    pub peers: Peers,
    /// Who asked for what; `None` for one that has no peers and serves none.
    pub ledger: Option<Arc<Ledger>>,
    /// What other routers may ask of this one.
    pub serve: Serve,
    /// The pooled downloads of this household.
    pub sessions: Sessions,
    /// Which origins are not to be pooled.
    pub origins: OriginMemory,
    /// What is known of the own internet link.
    pub own_link: OwnLinkRecord,
    /// What happened so far.
    pub counters: Counters,
    /// Clients' connections now.
    clients: AtomicU32,
}

/// Numbers since the start; each wraps around. Not 64 bits wide: MIPS has no such atomics.
#[derive(Debug, Default)]
pub struct Counters {
    /// Clients' connections that were served.
    pub connections: AtomicU32,
    /// Requests that were well formed and in their right place.
    pub requests: AtomicU32,
    /// Connections and requests that were not served, by a rule or limit of ours.
    pub refused: AtomicU32,
    /// Requests that failed, before or in the middle of the response.
    pub failed: AtomicU32,
}

/// A running daemon. Dropped, it stops as well.
#[derive(Debug)]
pub struct Daemon {
    shared: Arc<Shared>,
    stop: Arc<Waker>,
    control: Arc<Control>,
    /// The thread that accepts connections.
    acceptor: Option<JoinHandle<()>>,
    clients: Vec<SocketAddr>,
    peers: Option<SocketAddr>,
}

/// Why a daemon could not start.
#[derive(Debug)]
pub enum StartError {
    /// It can't listen there.
    Listen(SocketAddr, io::Error),
    /// The ledger can't be written.
    Ledger(ledger_file::OpenError),
    /// The router's key is of no use.
    Key(WeakKey),
    /// The system gives no threads or descriptors.
    System(io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listen(address, error) => write!(f, "can't listen on {address}: {error}"),
            Self::Ledger(error) => write!(f, "{error}"),
            Self::Key(error) => write!(f, "the router's own key: {error}"),
            Self::System(error) => write!(f, "can't start: {error}"),
        }
    }
}

impl core::error::Error for StartError {}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Clients,
    Peers,
}

impl Daemon {
    /// Listens and serves from now on. A port 0 in the configuration means any; see [`Daemon::client_addresses`].
    ///
    /// # Errors
    /// [`StartError`]; nothing is left running.
    pub fn start(config: Config, key: KeyPair) -> Result<Self, StartError> {
        let mut listeners = Vec::new();
        let sides = config.listen.iter().map(|address| (Side::Clients, *address));
        for (side, address) in sides.chain(config.peer_listen.map(|address| (Side::Peers, address))) {
            let listener = net::listen(address)
                .and_then(|listener| Ok((side, listener.local_addr()?, listener)))
                .map_err(|error| StartError::Listen(address, error))?;
            listeners.push(listener);
        }
        let of = |wanted: Side| {
            listeners.iter().filter(move |(side, ..)| *side == wanted).map(|(_, address, _)| *address)
        };
        let (clients, peers) = (of(Side::Clients).collect(), of(Side::Peers).next());
        let via = format!("bamqp-{}", key.fingerprint());
        // What a client sends to a neighbour's port through us would look as if we said it.
        let listening = listeners.iter().map(|(_, address, _)| *address);
        let addresses = listening.chain(config.peers.iter().map(|peer| peer.address)).collect();
        let (gate, live) = (Arc::new(Gate::new(&config, addresses)), Arc::new(Live::default()));
        let trust = Arc::new(TrustStore::open(&config));
        let keyring = Arc::new(Keyring::new(&key, &config.peers).map_err(StartError::Key)?);
        let is_alone = config.peer_listen.is_none() && config.peers.is_empty();
        let ledger = (!is_alone).then(|| Ledger::open(&config, key.public()).map(Arc::new));
        let ledger = ledger.transpose().map_err(StartError::Ledger)?;
        let shared = Arc::new(Shared {
            peers: Peers::new(&config, keyring.clone(), trust.clone()).map_err(StartError::System)?,
            serve: Serve::new(
                &config,
                keyring.clone(),
                &via,
                gate.clone(),
                live.clone(),
                trust.clone(),
                ledger.clone(),
            ),
            ledger,
            trust,
            config,
            keyring,
            via,
            gate,
            live,
            sessions: Sessions::default(),
            origins: OriginMemory::default(),
            own_link: OwnLinkRecord::default(),
            counters: Counters::default(),
            clients: AtomicU32::new(0),
        });
        let (control, asked) =
            (Arc::new(Control::open(&shared.config.state_dir).map_err(StartError::System)?), shared.clone());
        let answering = control.clone();
        shared.live.spawn("control", move || answering.run(&asked)).map_err(StartError::System)?;
        for peer in 0..shared.peers.len() {
            let keeper = shared.clone();
            let work = move || keeper.peers.keep(peer, &keeper.live);
            shared.live.spawn("peer", work).map_err(StartError::System)?;
        }
        let stop = Arc::new(Waker::new().map_err(StartError::System)?);
        let acceptor = {
            let (shared, stop) = (shared.clone(), stop.clone());
            let listeners = listeners.into_iter().map(|(side, _, listener)| (side, listener)).collect();
            std::thread::Builder::new()
                .name("accept".into())
                .stack_size(STACK_BYTES)
                .spawn(move || accept_all(&shared, listeners, &stop))
                .map_err(StartError::System)?
        };
        Ok(Self { shared, stop, control, acceptor: Some(acceptor), clients, peers })
    }

    /// Where clients connect; with the port that the system chose for a 0.
    pub fn client_addresses(&self) -> &[SocketAddr] {
        &self.clients
    }

    /// Where other routers connect.
    pub fn peer_address(&self) -> Option<SocketAddr> {
        self.peers
    }

    /// What its threads share, for status and tests.
    pub fn shared(&self) -> &Shared {
        &self.shared
    }

    /// The pooled downloads under way and the last few that ended.
    pub fn sessions(&self) -> Vec<SessionReport> {
        self.shared.sessions.reports()
    }

    /// Closes every listener and connection at once and waits for all threads. (A thread that waits for the
    /// system's resolver ends when that does.)
    pub fn stop(self) {
        drop(self);
    }

    /// What ends [`Daemon::wait`].
    pub fn ender(&self) -> Arc<Waker> {
        self.stop.clone()
    }

    /// Waits until [`Daemon::ender`] is poked, and stops. By itself it ends only if nothing can be accepted any more.
    pub fn wait(mut self) {
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.stop.poke();
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
        self.control.stop();
        self.shared.peers.stop();
        if let Some(ledger) = &self.shared.ledger {
            // First, because a thread may still wait for the resolver. An error shows again when it is closed.
            let _ = ledger.flush();
        }
        self.shared.live.stop();
        if let Some(ledger) = &self.shared.ledger {
            ledger.stop();
        }
        self.shared.trust.close();
    }
}

/// Accepts on all listeners until `stop` is poked.
fn accept_all(shared: &Arc<Shared>, listeners: Vec<(Side, TcpListener)>, stop: &Waker) {
    loop {
        let mut fds = vec![PollFd::new(stop, PollFlags::IN)];
        fds.extend(listeners.iter().map(|(_, listener)| PollFd::new(listener, PollFlags::IN)));
        if let Err(error) = net::poll(&mut fds, None) {
            log::error!("waiting for connections failed: {error}");
            return;
        }
        let mut ready = fds.iter().map(|fd| !fd.revents().is_empty());
        if ready.next() == Some(true) {
            return;
        }
        for (side, listener) in listeners.iter().zip(ready).filter_map(|(l, ready)| ready.then_some(l)) {
            match listener.accept() {
                Ok((socket, from)) => admit(shared, *side, socket, from),
                Err(error) if is_passing(&error) => {}
                Err(error) => {
                    log::warn!("accepting a connection failed: {error}");
                    // The connection stays in the queue: without a pause this would spin.
                    let until = Instant::now() + ACCEPT_PAUSE;
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

fn admit(shared: &Arc<Shared>, side: Side, socket: TcpStream, from: SocketAddr) {
    if socket.set_nonblocking(true).and_then(|()| socket.set_nodelay(true)).is_err() {
        return; // closed already
    }
    match side {
        Side::Clients => admit_client(shared, socket, from),
        Side::Peers => admit_peer(shared, socket, from),
    }
}

/// Starts a thread for a client of the household; others and those above the limit are refused.
fn admit_client(shared: &Arc<Shared>, socket: TcpStream, from: SocketAddr) {
    let ip = from.ip().to_canonical();
    if !shared.config.allow_client.iter().any(|range| range.contains(ip)) || is_neighbour(&shared.config, ip)
    {
        return refuse(shared, &socket, from, Refuse::Client);
    }
    if shared.clients.fetch_add(1, Ordering::Relaxed) >= u32::from(shared.config.max_clients) {
        shared.clients.fetch_sub(1, Ordering::Relaxed);
        return refuse(shared, &socket, from, Refuse::Busy);
    }
    let seat = Seat(shared.clone());
    shared.counters.connections.fetch_add(1, Ordering::Relaxed);
    let started = shared.live.add(socket).and_then(|socket| {
        shared.live.spawn("client", move || {
            let Seat(shared) = &seat;
            proxy::connection(shared, socket, from);
        })
    });
    if let Err(error) = started {
        log::warn!("{from}: no thread for a client: {error}");
    }
}

/// Whether the address is of the network in which the neighbours' routers are, which is private, too. The owner may have
/// other ideas, and says so by `allow_client`.
fn is_neighbour(config: &Config, ip: core::net::IpAddr) -> bool {
    let ips =
        |addresses: &mut dyn Iterator<Item = SocketAddr>| addresses.map(|address| address.ip()).collect();
    config.allow_client == Config::default().allow_client
        && own_networks::has_only(
            ip,
            || ips(&mut config.peers.iter().map(|peer| peer.address).chain(config.peer_listen)),
            || ips(&mut config.listen.iter().copied()),
        )
}

/// Starts a thread for a connection of another router.
fn admit_peer(shared: &Arc<Shared>, socket: TcpStream, from: SocketAddr) {
    // Before anything is set up for it: a flood of connections costs no thread.
    let Some(visit) = shared.serve.enter(from) else { return };
    let serving = shared.clone();
    let started = shared
        .live
        .add(socket)
        .and_then(|socket| shared.live.spawn("serve", move || serving.serve.connection(socket, visit)));
    if let Err(error) = started {
        log::warn!("{from}: no thread for a router: {error}");
    }
}

fn refuse(shared: &Shared, socket: &TcpStream, from: SocketAddr, refuse: Refuse) {
    shared.counters.refused.fetch_add(1, Ordering::Relaxed);
    static LINES: Sparingly = Sparingly::new();
    LINES.info(module_path!(), || format!("{from}: {refuse}"));
    // It fits into the empty send buffer, so that the accepting thread never waits here; nor does it linger.
    let _ = answer::send(socket, &Trouble::Refused(refuse), false);
    let _ = net::read(socket, &mut [0; 2048]); // unread, the request would have the answer reset
    let _ = socket.shutdown(std::net::Shutdown::Write);
}

/// A client's place among `max_clients`, given back when its thread ends.
struct Seat(Arc<Shared>);

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.clients.fetch_sub(1, Ordering::Relaxed);
    }
}
