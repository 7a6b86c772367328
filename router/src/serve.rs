//! The peer side: what other routers may ask of this one. Shared state and its limits, and who gets which answer. Not
//! responsible for accepting connections. `desk` reads requests from one, `counter` answers, `errand` fetches.
//!
//! ```text
//! coordinator ──CHUNK, CHUNK…──▶ desk, counter ──▶ errand ──Range, Range…──▶ origin
//!             ◀──206, bytes───── (a pipe, inside the kernel)  ◀──206, bytes──
//! ```

mod counter;
mod desk;
mod doors;
mod errand;
mod sessions;

use core::net::{IpAddr, SocketAddr};
use core::ops::Range;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use bamqp_core::message::drop::Summary;
use bamqp_core::message::hello::{Details, Hello};
use bamqp_core::message::init::{Decline, Init};
use bamqp_core::message::reason::DeclineReason;
use bamqp_core::message::{Fingerprint, SessionId};
use bamqp_core::time::Span;
use bamqp_core::trust::Standing;

use self::desk::Desk;
use self::doors::{Doors, Visit};
use self::errand::Way;
use self::sessions::{Session, Sessions};
use crate::config::{Config, Peer};
use crate::fetch::File;
use crate::keys::{self, PublicKey};
use crate::ledger_file::{AppendError, InitRecord, Ledger};
use crate::live::Live;
use crate::net;
use crate::origin::{Gate, OriginError};
use crate::trust_store::TrustStore;

pub use self::counter::{PEER_SILENCE, STRANGER_TIME};
pub use self::doors::MAX_STRANGERS;
pub use self::sessions::SILENCE;

/// What ACCEPT promises to hold while the coordinator does not read: the send buffer towards it, in bytes. There is
/// some more in the pipe and in the origin's connection, which is not promised.
pub const HOLD_BYTES: u32 = 128 * 1024;

/// Seconds until a coordinator may ask again after [`DeclineReason::Busy`] and [`DeclineReason::Untrusted`].
const BUSY_FOR: u32 = 5;
const UNTRUSTED_FOR: u32 = 60;

/// What all connections from other routers share.
#[derive(Debug)]
pub struct Serve {
    key: Fingerprint,
    via: String,
    wan_address: Option<IpAddr>,
    bandwidth: u64,
    gate: Arc<Gate>,
    live: Arc<Live>,
    doors: Doors,
    /// Who is expected at which address.
    peers: Vec<(IpAddr, PublicKey)>,
    trust: Arc<TrustStore>,
    /// Without one nothing is fetched.
    ledger: Option<Arc<Ledger>>,
    sessions: Sessions,
    /// Round trip to origins in microseconds, smoothed; 0: unknown.
    round_trip: AtomicU32,
    malformed: AtomicU32,
    turned_away: AtomicU32,
    copied: AtomicU32,
}

/// What the peer side is doing, for status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// Sessions of other routers now.
    pub sessions: usize,
    /// Requests that were no message, since the start; wraps around.
    pub malformed: u32,
    /// Connections that were closed at once because there were too many, since the start; wraps around.
    pub turned_away: u32,
    /// Payload bytes of one chunk that passed through user space, at most: those that came with the head of the
    /// origin's answer. All others went through a pipe.
    pub copied: u32,
}

impl Serve {
    /// The peer side of the router with this key. `via` is its pseudonym towards origins.
    pub fn new(
        config: &Config,
        key: Fingerprint,
        via: &str,
        gate: Arc<Gate>,
        live: Arc<Live>,
        trust: Arc<TrustStore>,
        ledger: Option<Arc<Ledger>>,
    ) -> Serve {
        let peer = |peer: &Peer| (peer.address.ip().to_canonical(), peer.public_key);
        let most = config.max_peer_sessions;
        Serve {
            key,
            via: via.into(),
            wan_address: config.wan_address,
            bandwidth: config.bandwidth,
            gate,
            live,
            doors: Doors::new(&config.peers, most.saturating_mul(2).saturating_add(2)),
            peers: config.peers.iter().map(peer).collect(),
            trust,
            ledger,
            sessions: Sessions::new(most.into()),
            round_trip: AtomicU32::new(0),
            malformed: AtomicU32::new(0),
            turned_away: AtomicU32::new(0),
            copied: AtomicU32::new(0),
        }
    }

    /// Serves one connection until its end; `socket` is in view of the same [`Live`]. Runs in a thread of its own.
    pub fn connection(&self, socket: Arc<TcpStream>, from: SocketAddr) {
        let Some(visit) = self.doors.enter(from) else {
            self.turned_away.fetch_add(1, Ordering::Relaxed);
            return;
        };
        let prepared = socket
            .set_nonblocking(true)
            .and_then(|()| socket.set_nodelay(true))
            .and_then(|()| net::set_send_buffer(&*socket, HOLD_BYTES as usize));
        if prepared.is_err() {
            return;
        }
        let end = Desk::new(self, socket, &visit).run();
        log::debug!("router {from}: {end}");
    }

    /// What it is doing.
    pub fn report(&self) -> Report {
        Report {
            sessions: self.sessions.count(Instant::now()),
            malformed: self.malformed.load(Ordering::Relaxed),
            turned_away: self.turned_away.load(Ordering::Relaxed),
            copied: self.copied.load(Ordering::Relaxed),
        }
    }

    fn way(&self) -> Way<'_> {
        Way { from: self.wan_address, via: &self.via, live: &self.live }
    }

    fn hello(&self, is_peer: bool) -> Hello {
        let details = is_peer.then(|| Details {
            bandwidth: self.bandwidth,
            load: u32::try_from(self.sessions.count(Instant::now())).unwrap_or(u32::MAX),
            rtt: Span::from_micros(self.round_trip.load(Ordering::Relaxed).into()),
            losses: 0, // nothing counts them yet
        });
        Hello { key: self.key, details }
    }

    /// Bits per second that each session can be promised now; 0: unknown.
    fn share(&self) -> u64 {
        self.bandwidth / self.sessions.count(Instant::now()).max(1) as u64
    }

    /// Enters the session of an INIT, if it may be, and writes the INIT down. `head` is all of it. Blocks while the name
    /// is resolved.
    fn begin(&self, init: &Init<'_>, head: &[u8], visit: &Visit<'_>) -> Result<Arc<Session>, Decline> {
        let (ip, is_peer) = (visit.ip, visit.is_peer);
        let declined = |reason, retry_after| Decline { reason, retry_after };
        if !is_peer || init.recipient != self.key {
            return Err(declined(DeclineReason::Untrusted, UNTRUSTED_FOR));
        }
        if let Err((key, standing)) = self.is_willing(ip) {
            log::info!("session {} of {ip} declined: router {key} is {standing}", init.session);
            return Err(declined(DeclineReason::Untrusted, UNTRUSTED_FOR));
        }
        let now = Instant::now();
        let known = self.sessions.find(init.session, ip, now);
        if known.is_none() && self.sessions.is_full(now) {
            return Err(declined(DeclineReason::Busy, BUSY_FOR));
        }
        let addresses = match known {
            Some(known) => known.addresses.clone(),
            None => {
                let host = init.target.host.to_string();
                self.gate.resolve_public(&host, init.target.port).map_err(|error| {
                    log::info!("session {} of {ip} refused: {host}: {error}", init.session);
                    // What the resolver did not find now it may find later; a rule stays.
                    let retry_after = if matches!(error, OriginError::Refused(..)) { 0 } else { 1 };
                    declined(DeclineReason::RefusedTarget, retry_after)
                })?
            }
        };
        let file = File {
            uri: init.target.to_string(),
            total: init.size,
            validator: init.validator.clone(),
            user_agent: init.user_agent.map(Into::into),
            accept: init.accept.map(Into::into),
        };
        let now = Instant::now();
        let session = Session::new(init.session, ip, file, addresses, now);
        let session = self
            .sessions
            .begin(session, now)
            .map_err(|reason| declined(reason, if reason == DeclineReason::Busy { BUSY_FOR } else { 0 }))?;
        if let Err(error) = self.log_init(&session, head, visit) {
            log::warn!("session {} of {ip} declined: {error}", init.session);
            self.sessions.end(init.session, ip, now);
            return Err(declined(DeclineReason::Busy, BUSY_FOR));
        }
        Ok(session)
    }

    /// Nothing is fetched that is not in the ledger (DESIGN section 7).
    fn log_init(&self, session: &Session, head: &[u8], visit: &Visit<'_>) -> Result<(), AppendError> {
        let ledger = self.ledger.as_ref().ok_or(AppendError::Stopped)?;
        let (_, key) = self.peers.iter().find(|(ip, _)| *ip == visit.ip).ok_or(AppendError::Stopped)?;
        let (from, file) = (visit.from, &session.file);
        let (size, uri) = (file.total, file.uri.as_str());
        ledger.append_init(&InitRecord { key, from, session: session.id, size, uri, head })?;
        Ok(())
    }

    /// Before bytes of a session's file are fetched.
    fn log_chunk(&self, session: &Session, range: Range<u64>) -> Result<(), AppendError> {
        let ledger = self.ledger.as_ref().ok_or(AppendError::Stopped)?;
        ledger.append_chunk(session.id, range)
    }

    /// Ends a coordinator's session; what was served in it.
    fn end(&self, session: SessionId, ip: IpAddr) -> Option<Summary> {
        let summary = self.sessions.end(session, ip, Instant::now())?;
        if let Some(ledger) = &self.ledger {
            ledger.end_session(session);
        }
        Some(summary)
    }

    /// Whether to work for a coordinator at this address: not if we trust nobody there (DESIGN section 7).
    fn is_willing(&self, ip: IpAddr) -> Result<(), (Fingerprint, Standing)> {
        let there = self.peers.iter().filter(|(address, _)| *address == ip);
        let mut why = Ok(());
        for (_, key) in there {
            let key = keys::fingerprint_of(key);
            match self.trust.standing(key) {
                standing if standing.is_acceptable() => return Ok(()),
                standing => why = Err((key, standing)),
            }
        }
        why
    }

    fn add_round_trip(&self, sample: Span) {
        let sample = u32::try_from(sample.as_micros()).unwrap_or(u32::MAX).max(1);
        let smoothed = match self.round_trip.load(Ordering::Relaxed) {
            0 => sample,
            old => old - old / 8 + sample / 8, // RFC 6298 section 2.3
        };
        self.round_trip.store(smoothed, Ordering::Relaxed);
    }
}
