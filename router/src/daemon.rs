//! The running daemon: what its threads share, how it starts, and how it ends. Not responsible for accepting
//! connections (`accept`), nor for how a changed configuration takes effect ([`crate::reload`]).

use core::fmt;
use core::net::{IpAddr, SocketAddr};
use std::io;
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use bamqp_core::channel::WeakKey;

use crate::accept::{self, Listening, Side};
use crate::budget::{Budget, Memory, TooLarge};
use crate::config::Config;
use crate::control::Control;
use crate::discover::Discovery;
use crate::keyring::Keyring;
use crate::keys::KeyPair;
use crate::ledger_file::{self, Ledger};
use crate::live::{Live, STACK_BYTES};
use crate::net::{self, Waker};
use crate::origin::Gate;
use crate::origin_memory::OriginMemory;
use crate::own_link::OwnLinkRecord;
use crate::own_networks;
use crate::peers::Peers;
use crate::seats::Seats;
use crate::serve::{Serve, Terms, Usage};
use crate::status::{SessionReport, Sessions};
use crate::trust_store::TrustStore;
use crate::uplink::Uplink;

/// What all threads of a daemon share under one configuration. When that changes there is another one, which shares with
/// this one what outlasts it; what was begun goes on with the one that it was begun with.
#[derive(Debug)]
pub struct Shared {
    /// The configuration, with the addresses as they were given.
    pub config: Config,
    /// How much there may be of what.
    pub budget: Budget,
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
    /// Who announces itself on the neighbours' link.
    pub discovery: Arc<Discovery>,
    /// Who asked for what; `None` for one that has no peers and serves none.
    pub ledger: Option<Arc<Ledger>>,
    /// What other routers may ask of this one.
    pub serve: Arc<Serve>,
    /// The internet line, as far as it is shared with them.
    pub uplink: Arc<Uplink>,
    /// What was fetched for them.
    pub usage: Arc<Usage>,
    /// The pooled downloads of this household.
    pub sessions: Arc<Sessions>,
    /// Which origins are not to be pooled.
    pub origins: Arc<OriginMemory>,
    /// What is known of the own internet link.
    pub own_link: Arc<OwnLinkRecord>,
    /// What happened so far.
    pub counters: Arc<Counters>,
    /// Clients' connections now.
    pub seats: Arc<Seats>,
    /// What came of the last change of the configuration, for people.
    pub reload: Arc<Mutex<String>>,
}

impl Shared {
    /// Whether the proxy serves this address.
    pub fn is_client(&self, from: SocketAddr) -> bool {
        let ip = from.ip().to_canonical();
        let is_allowed = self.config.allow_client.iter().any(|range| range.contains(ip));
        if self.config.allow_client != Config::default().allow_client {
            return is_allowed; // the owner has said who
        }
        if is_allowed { !is_neighbour(&self.config, ip) } else { is_beside(&self.config, ip) }
    }
}

fn proxy_addresses(config: &Config) -> Vec<IpAddr> {
    config.listen.iter().chain(config.transparent_listen()).map(SocketAddr::ip).collect()
}

/// Whether the address is of the network in which the neighbours' routers are, which is private, too.
fn is_neighbour(config: &Config, ip: IpAddr) -> bool {
    let of_peers = || config.peers.iter().map(|peer| peer.address).chain(config.peer_listen);
    own_networks::has_only(
        ip,
        || of_peers().map(|address| address.ip()).collect(),
        || proxy_addresses(config),
    )
}

/// Whether the address is of the LAN, where devices have addresses of the public internet in IPv6.
fn is_beside(config: &Config, ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V6(ip) if own_networks::is_beside(ip, || proxy_addresses(config)))
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

/// What is the same for as long as the daemon runs.
#[derive(Debug)]
pub struct Hub {
    current: Mutex<Arc<Shared>>,
    listeners: Mutex<Vec<Arc<Listening>>>,
    /// Tells the accepting thread that there are other listeners.
    pub(crate) listeners_changed: Waker,
    /// Held while the configuration is changed.
    pub(crate) changing: Mutex<()>,
}

impl Hub {
    /// What is shared under the present configuration.
    pub fn current(&self) -> Arc<Shared> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn replace(&self, shared: Arc<Shared>) {
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = shared;
    }

    pub(crate) fn listeners(&self) -> Vec<Arc<Listening>> {
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn replace_listeners(&self, listeners: Vec<Arc<Listening>>) {
        *self.listeners.lock().unwrap_or_else(PoisonError::into_inner) = listeners;
        self.listeners_changed.poke();
    }

    fn addresses(&self, side: Side) -> Vec<SocketAddr> {
        self.listeners().iter().filter(|one| one.side == side).map(|one| one.address).collect()
    }
}

/// A running daemon. Dropped, it stops as well.
#[derive(Debug)]
pub struct Daemon {
    hub: Arc<Hub>,
    stop: Arc<Waker>,
    control: Arc<Control>,
    /// The thread that accepts connections.
    acceptor: Option<JoinHandle<()>>,
}

/// Why a daemon could not start.
#[derive(Debug)]
pub enum StartError {
    /// It would take too much memory.
    Memory(TooLarge),
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
            Self::Memory(error) => write!(f, "{error}"),
            Self::Listen(address, error) => write!(f, "can't listen on {address}: {error}"),
            Self::Ledger(error) => write!(f, "{error}"),
            Self::Key(error) => write!(f, "the router's own key: {error}"),
            Self::System(error) => write!(f, "can't start: {error}"),
        }
    }
}

impl core::error::Error for StartError {}

/// Which addresses may be reached under this configuration.
pub(crate) fn gate(config: &Config, listeners: &[Arc<Listening>]) -> Arc<Gate> {
    // What a client sends to a neighbour's port through us would look as if we said it.
    let listening = listeners.iter().map(|one| one.address);
    Arc::new(Gate::new(config, listening.chain(config.peers.iter().map(|peer| peer.address)).collect()))
}

/// The log, if this configuration needs one: who opts out of helping asks nobody either.
pub(crate) fn ledger(config: &Config, keyring: &Keyring) -> Result<Option<Arc<Ledger>>, StartError> {
    let is_alone = config.peer_listen.is_none();
    let ledger = (!is_alone).then(|| Ledger::open(config, keyring.me().public_key()).map(Arc::new));
    ledger.transpose().map_err(StartError::Ledger)
}

/// Who helps nobody is not helped: what follows from a closed port should surprise nobody.
pub(crate) fn say_if_closed(config: &Config) {
    if config.partners().is_empty() && !config.peers.is_empty() {
        log::info!("no peer_listen: neighbours are neither helped nor asked for help");
    }
}

/// Keeps the peers in view, each from a thread of its own.
pub(crate) fn keep_peers(shared: &Arc<Shared>) -> io::Result<()> {
    for peer in 0..shared.peers.len() {
        let keeper = shared.clone();
        shared.live.spawn("peer", move || keeper.peers.keep(peer, &keeper.live))?;
    }
    Ok(())
}

impl Daemon {
    /// Listens and serves from now on. A port 0 in the configuration means any; see [`Daemon::client_addresses`].
    ///
    /// # Errors
    /// [`StartError`]; nothing is left running.
    pub fn start(config: Config, key: KeyPair) -> Result<Self, StartError> {
        Self::start_within(config, key, &Memory::of_system())
    }

    /// The same on a machine with this memory.
    ///
    /// # Errors
    /// As [`Daemon::start`].
    pub fn start_within(config: Config, key: KeyPair, memory: &Memory) -> Result<Self, StartError> {
        let budget = Budget::decide(&config, memory).map_err(StartError::Memory)?;
        net::set_buffers(budget.buffer);
        let (kib, counts) = (budget.total() / 1024, budget.counts);
        log::info!(
            "memory: at most {kib} KiB for {} clients, {} pooled downloads, {} of other routers",
            counts.clients,
            counts.sessions,
            counts.peer_sessions
        );
        let listeners = accept::listen(&config, &[]).map_err(|(at, error)| StartError::Listen(at, error))?;
        let live = Arc::new(Live::default());
        live.limit(budget.threads);
        let gate = gate(&config, &listeners);
        let trust = Arc::new(TrustStore::open(&config));
        let keyring = Arc::new(Keyring::new(&key, config.partners()).map_err(StartError::Key)?);
        let ledger = ledger(&config, &keyring)?;
        let discovery = Arc::new(Discovery::new(*key.public()).map_err(StartError::System)?);
        discovery.renew(&config, accept::peer_address(&listeners));
        let via = format!("bamqp-{}", key.fingerprint());
        let usage = Arc::new(Usage::open(&config, trust.clone()));
        let uplink = Arc::new(Uplink::new(&config).map_err(StartError::System)?);
        let sessions = budget.counts.peer_sessions;
        let terms = Terms::of(&config, sessions, keyring.clone(), gate.clone(), ledger.clone());
        say_if_closed(&config);
        let shared = Arc::new(Shared {
            peers: Peers::new(&config, keyring.clone(), trust.clone()).map_err(StartError::System)?,
            discovery,
            serve: Arc::new(Serve::new(
                terms,
                &via,
                live.clone(),
                trust.clone(),
                uplink.clone(),
                usage.clone(),
            )),
            usage,
            uplink,
            ledger,
            trust,
            config,
            budget,
            keyring,
            via,
            gate,
            live,
            sessions: Arc::default(),
            origins: Arc::default(),
            own_link: Arc::default(),
            counters: Arc::default(),
            seats: Arc::default(),
            reload: Arc::default(),
        });
        let control = Arc::new(Control::open(&shared.config.state_dir).map_err(StartError::System)?);
        let stop = Arc::new(Waker::new().map_err(StartError::System)?);
        let hub = Arc::new(Hub {
            current: Mutex::new(shared.clone()),
            listeners: Mutex::new(listeners),
            listeners_changed: Waker::new().map_err(StartError::System)?,
            changing: Mutex::new(()),
        });
        shared.serve.belong_to(&hub);
        // From here on dropping it stops what runs.
        let mut daemon = Self { hub, stop, control, acceptor: None };
        let (answering, asked) = (daemon.control.clone(), daemon.hub.clone());
        shared.live.spawn("control", move || answering.run(&asked)).map_err(StartError::System)?;
        let uplink = shared.uplink.clone();
        shared.live.spawn("uplink", move || uplink.run()).map_err(StartError::System)?;
        keep_peers(&shared).map_err(StartError::System)?;
        let (hub, stop) = (daemon.hub.clone(), daemon.stop.clone());
        let acceptor = std::thread::Builder::new()
            .name("accept".into())
            .stack_size(STACK_BYTES)
            .spawn(move || accept::accept_all(&hub, &stop));
        daemon.acceptor = Some(acceptor.map_err(StartError::System)?);
        Ok(daemon)
    }

    /// Where clients connect; with the port that the system chose for a 0.
    pub fn client_addresses(&self) -> Vec<SocketAddr> {
        self.hub.addresses(Side::Clients)
    }

    /// Where redirected connections arrive.
    pub fn transparent_addresses(&self) -> Vec<SocketAddr> {
        self.hub.addresses(Side::Redirected)
    }

    /// Where other routers connect.
    pub fn peer_address(&self) -> Option<SocketAddr> {
        accept::peer_address(&self.hub.listeners())
    }

    /// What its threads share, for status and tests.
    pub fn shared(&self) -> Arc<Shared> {
        self.hub.current()
    }

    /// By what its configuration is changed while it runs.
    pub fn hub(&self) -> Arc<Hub> {
        self.hub.clone()
    }

    /// The pooled downloads under way and the last few that ended.
    pub fn sessions(&self) -> Vec<SessionReport> {
        self.shared().sessions.reports()
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
        // No other configuration takes effect any more.
        let _changing = self.hub.changing.lock().unwrap_or_else(PoisonError::into_inner);
        self.hub.replace_listeners(Vec::new());
        let shared = self.shared();
        shared.peers.stop();
        shared.uplink.stop();
        if let Some(ledger) = &shared.ledger {
            // First, because a thread may still wait for the resolver. An error shows again when it is closed.
            let _ = ledger.flush();
        }
        shared.live.stop();
        if let Some(ledger) = &shared.ledger {
            ledger.stop();
        }
        shared.usage.close();
        shared.trust.close();
    }
}
