//! The configured peers as this household's downloads see them: who is there, how well, and an open connection to
//! each. Not responsible for serving them ([`crate::serve`]), nor for what a lane does with its connection.
//!
//! One thread a peer keeps it in view: HELLO when connecting and every 30 s. Its connection is parked in between, and a
//! session takes it, so that INIT waits for no handshake.

mod ask;
mod choose;

use core::net::{IpAddr, SocketAddr};
use std::io::{self, ErrorKind};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bamqp_core::channel::Outgoing;
use bamqp_core::message::Fingerprint;
use bamqp_core::message::hello::Details;
use bamqp_core::message::reason::{DeclineReason, DropReason};
use bamqp_core::select::Verdict;
use bamqp_core::time::Span;
use bamqp_core::transfer::{Fault, Outcome};

use crate::clock;
use crate::config::Config;
use crate::fetch::Call;
use crate::keyring::Keyring;
use crate::live::Live;
use crate::net::{self, PollFd, PollFlags, Waker};
use crate::session::Session;
use crate::trust_store::TrustStore;

pub use self::ask::Trouble;
use self::ask::{Accepted, Line};
pub use self::choose::PeerView;

/// Between two HELLOs.
const HELLO_EVERY: Duration = Duration::from_secs(30);

/// First and longest pause before a peer that is down is tried again.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// How long a connection or an answer may take.
const PATIENCE: Duration = Duration::from_secs(3);

/// Seconds for which a peer is not asked whose answers are not its own.
const UNAUTHENTIC_FOR: u32 = 60;

/// All configured peers, in the order of the configuration.
#[derive(Debug)]
pub struct Peers {
    /// One that stays over a change of the configuration is the same before and after it.
    entries: Vec<Arc<Entry>>,
    keyring: Arc<Keyring>,
    trust: Arc<TrustStore>,
    /// Where connections to peers come from: the address by which they know us.
    from: Option<IpAddr>,
    stop: Waker,
}

#[derive(Debug)]
struct Entry {
    name: String,
    address: SocketAddr,
    key: Fingerprint,
    record: Mutex<Record>,
    /// Tells the keeper that another connection is parked, or none.
    changed: Waker,
    /// It is no peer any more: the sessions that still have it as a lane are to do without.
    is_removed: AtomicBool,
}

#[derive(Debug)]
struct Record {
    state: PeerState,
    parked: Option<Line>,
    not_before: Option<bamqp_core::time::Instant>,
    /// Segments that its internet link lost between its last two HELLOs.
    losses: u64,
    /// What the last session decided about it, and when.
    verdict: Option<(Verdict, Instant)>,
}

/// Whether a peer is there.
#[derive(Clone, Debug)]
pub enum PeerState {
    /// It answers.
    Up {
        /// Round trip to it.
        rtt: Duration,
        /// What it says of itself; only to those that it has configured, too.
        details: Option<Details>,
    },
    /// It does not, or is not who it should be.
    Down(Arc<Trouble>),
}

/// A peer that takes part in a session.
#[derive(Debug)]
pub struct Joined {
    /// The connection on which it accepted.
    pub socket: Arc<TcpStream>,
    /// Where it listens.
    pub address: SocketAddr,
    /// Where connections to it come from.
    pub from: Option<IpAddr>,
    /// Bits per second that it promises; 0 = unknown.
    pub bandwidth: u64,
    /// Bytes that it can hold.
    pub hold: u32,
    /// The session's authenticated channel.
    pub call: Arc<Call>,
    /// Numbers the requests on that connection.
    pub link: Outgoing,
}

impl Peers {
    /// The peers of a configuration, all of them not tried yet; `keyring` has their keys.
    ///
    /// # Errors
    /// If the process has no descriptors left.
    pub fn new(config: &Config, keyring: Arc<Keyring>, trust: Arc<TrustStore>) -> io::Result<Self> {
        Self {
            entries: Vec::new(),
            keyring: keyring.clone(),
            trust: trust.clone(),
            from: None,
            stop: Waker::new()?,
        }
        .renew(config, keyring)
    }

    /// The peers of a changed configuration. What is known of those that stay is kept, and their parked connections are.
    /// The old ones go on for the sessions that have them, until [`Peers::stop`] and [`Peers::part_from`].
    ///
    /// # Errors
    /// If the process has no descriptors left.
    pub fn renew(&self, config: &Config, keyring: Arc<Keyring>) -> io::Result<Self> {
        let from = config.peer_listen.map(|address| address.ip()).filter(|ip| !ip.is_unspecified());
        let entry = |peer: &crate::config::Peer| {
            let key = crate::keys::fingerprint_of(&peer.public_key);
            let is_same =
                |old: &&Arc<Entry>| (&old.name, old.address, old.key) == (&peer.name, peer.address, key);
            if let Some(same) = self.entries.iter().find(is_same).filter(|_| self.from == from) {
                return Ok(same.clone());
            }
            let record = Record {
                state: PeerState::Down(Arc::new(Trouble::NotTried)),
                parked: None,
                not_before: None,
                losses: 0,
                verdict: None,
            };
            Ok(Arc::new(Entry {
                name: peer.name.clone(),
                address: peer.address,
                key,
                record: Mutex::new(record),
                changed: Waker::new()?,
                is_removed: AtomicBool::new(false),
            }))
        };
        let entries = config.partners().iter().map(entry).collect::<io::Result<_>>()?;
        Ok(Self { entries, keyring, trust: self.trust.clone(), from, stop: Waker::new()? })
    }

    /// Nothing more is said to those that are not among `others`; where they listen. The connections to them are the
    /// caller's to cut.
    pub fn part_from(&self, others: &Peers) -> Vec<SocketAddr> {
        let part = |entry: &Arc<Entry>| {
            entry.is_removed.store(true, Ordering::Relaxed);
            entry.lock().parked = None;
            entry.address
        };
        self.without(others).map(part).collect()
    }

    /// Where those listen that are not among `others`.
    pub fn beyond(&self, others: &Peers) -> Vec<SocketAddr> {
        self.without(others).map(|entry| entry.address).collect()
    }

    fn without(&self, others: &Peers) -> impl Iterator<Item = &Arc<Entry>> {
        let is_there = |entry: &&Arc<Entry>| {
            others.entries.iter().any(|other| (other.key, other.address) == (entry.key, entry.address))
        };
        self.entries.iter().filter(move |entry| !is_there(entry))
    }

    /// The key of peer number `peer`.
    pub fn key(&self, peer: usize) -> Option<Fingerprint> {
        self.entries.get(peer).map(|entry| entry.key)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Ends all keepers.
    pub fn stop(&self) {
        self.stop.poke();
    }

    /// Keeps peer number `peer` in view until [`Peers::stop`].
    pub fn keep(&self, peer: usize, live: &Live) {
        let Some(entry) = self.entries.get(peer) else { return };
        let mut pause = PAUSES.0;
        loop {
            let wait = match self.greet(entry, live) {
                Ok((rtt, details)) => {
                    pause = PAUSES.0;
                    let mut record = entry.lock();
                    if let PeerState::Down(_) = record.state {
                        log::info!("peer {} is there, {} ms away", entry.name, rtt.as_millis());
                    }
                    record.greeted(rtt, details);
                    HELLO_EVERY
                }
                Err(why) => {
                    let mut record = entry.lock();
                    if !matches!(&record.state, PeerState::Down(old) if old.to_string() == why.to_string()) {
                        log::info!("peer {} is not used: {why}", entry.name);
                    }
                    record.state = PeerState::Down(Arc::new(why));
                    let now = pause;
                    pause = (pause * 2).min(PAUSES.1);
                    now
                }
            };
            if !self.pause(entry, Instant::now() + wait) {
                return;
            }
        }
    }

    /// Waits until then, or until the peer closes the parked connection: then it is gone, or was started anew. False if
    /// the keeper is to end.
    fn pause(&self, entry: &Entry, until: Instant) -> bool {
        loop {
            // Held no longer than it is parked: whoever takes it must be able to close it.
            let parked = entry.lock().parked.as_ref().map(|line| line.socket.clone());
            let watch = |waker| PollFd::new(waker, PollFlags::IN);
            let result = match &parked {
                Some(socket) => {
                    let mut fds =
                        [watch(&self.stop), watch(&entry.changed), PollFd::new(&**socket, PollFlags::IN)];
                    net::poll(&mut fds, Some(until))
                        .map(|ready| (ready, fds.map(|fd| !fd.revents().is_empty())))
                }
                None => {
                    let mut fds = [watch(&self.stop), watch(&entry.changed)];
                    let result = net::poll(&mut fds, Some(until));
                    let [stop, changed] = fds.map(|fd| !fd.revents().is_empty());
                    result.map(|ready| (ready, [stop, changed, false]))
                }
            };
            match result {
                // Poked once and for all keepers, it stays readable.
                Ok((_, [true, ..])) | Err(_) => return false,
                Ok((_, [_, true, _])) => {
                    entry.changed.drain();
                }
                Ok(_) => return true,
            }
        }
    }

    /// Asks the peer to take part in `session`.
    ///
    /// # Errors
    /// What the lane is to report. A decline is remembered.
    pub fn join(&self, peer: usize, session: &Session, live: &Live) -> Result<Joined, Fault> {
        let entry = self.entries.get(peer).filter(|entry| !entry.is_removed.load(Ordering::Relaxed));
        let entry = entry.ok_or(Fault::Declined)?;
        let init = |line: &mut Line| ask::init(line, entry, &self.keyring, session);
        match self.over_a_connection(entry, live, None, init) {
            Ok((Line { socket, .. }, Accepted { call, link, bandwidth, hold, log_head })) => {
                let (address, from) = (entry.address, self.from);
                session.add_joined(entry.key, log_head);
                Ok(Joined { socket, address, from, bandwidth, hold, call, link })
            }
            Err(why) => {
                log::info!("session {}: peer {}: {why}", session.id, entry.name);
                let pause = match why {
                    Trouble::Declined(_, seconds) => seconds,
                    // Each try costs a signature.
                    Trouble::Unauthentic(_) | Trouble::NotKnown | Trouble::NoKey => UNAUTHENTIC_FOR,
                    _ => 0,
                };
                entry.leave_alone(pause);
                Err(match why {
                    Trouble::Io(_) => Fault::Unreachable,
                    Trouble::Declined(DeclineReason::Busy | DeclineReason::Quota, seconds) if seconds > 0 => {
                        Fault::Withdrawn(seconds)
                    }
                    Trouble::Declined(..) | Trouble::NotKnown | Trouble::NoKey => Fault::Declined,
                    Trouble::Unauthentic(_) => Fault::Unauthentic,
                    _ => Fault::Malformed,
                })
            }
        }
    }

    /// The peer has asked to be left alone for so many seconds.
    pub fn leave_alone(&self, peer: usize, seconds: u32) {
        if let Some(entry) = self.entries.get(peer) {
            entry.leave_alone(seconds);
        }
    }

    /// The session is over for the peer: it is told so, and its connection is parked. `socket` is the lane's connection,
    /// if it is clean, with the numbers of requests on it.
    pub fn leave(
        &self,
        peer: usize,
        session: &Session,
        call: &Call,
        socket: Option<(Arc<TcpStream>, Option<Outgoing>)>,
        live: &Live,
    ) {
        let Some(entry) = self.entries.get(peer) else { return };
        let line = socket.map(|(socket, link)| Line { link, ..Line::new(socket) });
        let reason = match session.outcome() {
            Some(Outcome::Complete) => DropReason::Done,
            Some(Outcome::ClientGone) => DropReason::ClientGone,
            Some(Outcome::NoLaneLeft(_) | Outcome::Unverified) => DropReason::Ended,
            None => DropReason::Fault,
        };
        let drop = |line: &mut Line| {
            if session.outcome().is_some() && !session.helpers.is_empty() {
                ask::feedback(line, entry.address, call, session)?;
            }
            ask::drop_session(line, entry.address, call, session.id, reason)
        };
        match self.over_a_connection(entry, live, line, drop) {
            Ok((mut line, summary)) => {
                log::info!("session {}: peer {} served {} bytes", session.id, entry.name, summary.bytes);
                // So that the next INIT has a challenge to answer. Without, it asks for one itself.
                if ask::hello(&mut line, entry, None).is_ok() {
                    entry.park(line);
                }
            }
            Err(why) => {
                log::info!("session {}: peer {} was not told that it is over: {why}", session.id, entry.name)
            }
        }
    }

    /// HELLO over the parked or a new connection.
    fn greet(&self, entry: &Entry, live: &Live) -> Result<(Duration, Option<Details>), Trouble> {
        let (line, (rtt, hello)) = self.over_a_connection(entry, live, None, |line| {
            let asked = Instant::now();
            let hello = ask::hello(line, entry, None)?;
            Ok((asked.elapsed(), hello))
        })?;
        entry.park(line);
        Ok((rtt, hello.details))
    }

    /// Does `ask` over `line` or the parked connection, or a new one if there is none or the peer has closed it meanwhile.
    fn over_a_connection<T>(
        &self,
        entry: &Entry,
        live: &Live,
        line: Option<Line>,
        ask: impl Fn(&mut Line) -> Result<T, Trouble>,
    ) -> Result<(Line, T), Trouble> {
        if let Some(mut line) = line.or_else(|| entry.take_parked()) {
            match ask(&mut line) {
                Err(Trouble::Io(error)) if error.kind() != ErrorKind::TimedOut => {}
                other => return other.map(|answer| (line, answer)),
            }
        }
        let socket = live.add(net::start_connect(entry.address, self.from)?)?;
        net::await_connect(&socket, Instant::now() + PATIENCE)?;
        let mut line = Line::new(socket);
        let answer = ask(&mut line)?;
        Ok((line, answer))
    }
}

impl Entry {
    fn lock(&self) -> MutexGuard<'_, Record> {
        // Every change is one assignment, so a panic elsewhere leaves nothing half done.
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn leave_alone(&self, seconds: u32) {
        if seconds > 0 {
            let until = clock::now() + Span::from_millis(u64::from(seconds) * 1000);
            self.lock().not_before = Some(until);
        }
    }

    fn park(&self, line: Line) {
        if self.is_removed.load(Ordering::Relaxed) {
            return;
        }
        self.lock().parked = Some(line);
        self.changed.poke();
    }

    fn take_parked(&self) -> Option<Line> {
        let parked = self.lock().parked.take();
        if parked.is_some() {
            self.changed.poke();
        }
        parked
    }
}
