//! The peer side: what other routers may ask of this one. Shared state and its limits, and who gets which answer. Not
//! responsible for accepting connections. `desk` reads requests from one, `counter` answers, `init`
//! admits sessions, `errand` fetches.
//!
//! ```text
//! coordinator ──CHUNK, CHUNK…──▶ desk, counter ──▶ errand ──Range, Range…──▶ origin
//!             ◀──206, bytes─────   (hashed on their way)      ◀──206, bytes──
//! ```

mod admission;
mod counter;
mod desk;
mod doors;
mod errand;
mod init;
mod quota;
pub(crate) mod sessions;
mod usage;

use core::net::{IpAddr, SocketAddr};
use core::ops::Range;
use std::net::TcpStream;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Instant;

use bamqp_core::channel::Challenge;
use bamqp_core::message::drop::Summary;
use bamqp_core::message::hello::{Details, Hello};
use bamqp_core::message::reason::{DeclineReason, DropReason};
use bamqp_core::message::{Fingerprint, SessionId};
use bamqp_core::time::Span;

use self::desk::Desk;
use self::doors::Doors;
use self::errand::Way;
use self::quota::Quota;
use self::sessions::{Session, Sessions};
use crate::config::{Config, Helping, Peer};
use crate::daemon::{Hub, Shared};
use crate::keyring::Keyring;
use crate::ledger_file::{AppendError, Ledger};
use crate::live::Live;
use crate::net;
use crate::origin::Gate;
use crate::trust_store::TrustStore;
use crate::uplink::Uplink;

pub use self::counter::{PEER_SILENCE, STRANGER_TIME};
pub use self::doors::{MAX_STRANGERS, Visit};
pub use self::sessions::SILENCE;
pub use self::usage::Usage;

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
    terms: Mutex<Arc<Terms>>,
    live: Arc<Live>,
    doors: Arc<Doors>,
    trust: Arc<TrustStore>,
    uplink: Arc<Uplink>,
    usage: Arc<Usage>,
    sessions: Sessions,
    quota: Quota,
    /// Round trip to origins in microseconds, smoothed; 0: unknown.
    round_trip: AtomicU32,
    malformed: AtomicU32,
    unknown: AtomicU32,
    declined: [AtomicU32; DeclineReason::ALL.len()],
    turned_away: AtomicU32,
    copied: AtomicU32,
    /// Through which work is passed on; set once.
    hub: OnceLock<Weak<Hub>>,
}

/// For whom it works and how, as the configuration has it now.
#[derive(Debug)]
pub struct Terms {
    /// The configured routers' keys.
    pub keyring: Arc<Keyring>,
    /// Which addresses may be reached.
    pub gate: Arc<Gate>,
    /// Where what is asked for is written down; without one nothing is fetched.
    pub ledger: Option<Arc<Ledger>>,
    /// Where connections to the internet come from.
    pub wan_address: Option<IpAddr>,
    /// The configured routers.
    pub peers: Vec<Peer>,
    /// Most downloads at a time.
    pub sessions: u16,
    /// Most bytes of the log.
    pub log_bytes: u64,
    /// How many routers away from a coordinator work may be done.
    pub max_hops: u8,
    /// What the owner allows.
    pub helping: Helping,
}

impl Terms {
    /// Those of a configuration, with `sessions` downloads at a time.
    pub fn of(
        config: &Config,
        sessions: u16,
        keyring: Arc<Keyring>,
        gate: Arc<Gate>,
        ledger: Option<Arc<Ledger>>,
    ) -> Terms {
        let (wan_address, peers) = (config.wan_address, config.partners().to_vec());
        let log_bytes = config.log_size.saturating_mul(config.log_files.into());
        Terms {
            keyring,
            gate,
            ledger,
            wan_address,
            peers,
            sessions,
            log_bytes,
            max_hops: config.max_hops,
            helping: config.helping.clone(),
        }
    }
}

/// What the peer side is doing, for status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// Sessions of other routers now.
    pub sessions: usize,
    /// Requests that were no message, since the start; wraps around.
    pub malformed: u32,
    /// Requests in sessions that there are none of (any more), since the start; wraps around.
    pub unknown: u32,
    /// INITs that were declined, by [`DeclineReason::index`], since the start; each wraps around.
    pub declined: [u32; DeclineReason::ALL.len()],
    /// Connections that were closed at once because there were too many, since the start; wraps around.
    pub turned_away: u32,
    /// Payload bytes of one chunk that were copied in user space, at most: those that came with the head of the
    /// origin's answer. All others went through the one buffer in which they are hashed.
    pub copied: u32,
}

impl Report {
    /// How many INITs were declined for this reason.
    pub fn declined(&self, reason: DeclineReason) -> u32 {
        self.declined.get(reason.index()).copied().unwrap_or(0)
    }
}

impl Serve {
    /// The peer side of a router. `via` is its pseudonym towards origins.
    pub fn new(
        terms: Terms,
        via: &str,
        live: Arc<Live>,
        trust: Arc<TrustStore>,
        uplink: Arc<Uplink>,
        usage: Arc<Usage>,
    ) -> Serve {
        let most = usize::from(terms.sessions);
        Serve {
            key: terms.keyring.me().fingerprint(),
            via: via.into(),
            live,
            doors: Arc::new(Doors::new(&terms.peers, 2 * most)),
            trust,
            uplink,
            usage,
            sessions: Sessions::new(most),
            quota: Quota::new(terms.log_bytes),
            terms: Mutex::new(Arc::new(terms)),
            round_trip: AtomicU32::new(0),
            malformed: AtomicU32::new(0),
            unknown: AtomicU32::new(0),
            declined: Default::default(),
            turned_away: AtomicU32::new(0),
            copied: AtomicU32::new(0),
            hub: OnceLock::new(),
        }
    }

    /// Work is passed on to the peers of this daemon. Without it, none is.
    pub fn belong_to(&self, hub: &Arc<Hub>) {
        let _ = self.hub.set(Arc::downgrade(hub)); // it belongs to one for good
    }

    /// What all threads share under the present configuration.
    fn shared(&self) -> Option<Arc<Shared>> {
        Some(self.hub.get()?.upgrade()?.current())
    }

    /// The configuration has changed: from the next message on these are the terms. Downloads of routers that stay go on;
    /// those of others are over. (Their connections are the caller's to cut.)
    pub fn renew(&self, terms: Terms) {
        let most = usize::from(terms.sessions);
        let keyring = terms.keyring.clone();
        self.usage.renew(&terms.helping);
        self.doors.renew(&terms.peers, 2 * most);
        *self.terms.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(terms);
        self.sessions.renew(most, |coordinator| keyring.find(coordinator).is_some());
    }

    /// The present terms.
    fn terms(&self) -> Arc<Terms> {
        self.terms.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Lets a connection in, or turns it away if there are too many from there. Costs little: nothing is allocated for
    /// those who are turned away.
    pub fn enter(&self, from: SocketAddr) -> Option<Visit> {
        let visit = self.doors.enter(from);
        if visit.is_none() {
            self.turned_away.fetch_add(1, Ordering::Relaxed);
        }
        visit
    }

    /// Serves one connection until its end; `socket` is in view of the same [`Live`]. Runs in a thread of its own.
    pub fn connection(&self, socket: Arc<TcpStream>, visit: Visit) {
        let from = visit.from;
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

    /// How many INITs and chunks of each coordinator were declined because it had had its share.
    pub fn excess(&self) -> Vec<(Fingerprint, u32)> {
        self.quota.excess()
    }

    /// What it is doing.
    pub fn report(&self) -> Report {
        Report {
            sessions: self.sessions.count(Instant::now()),
            malformed: self.malformed.load(Ordering::Relaxed),
            unknown: self.unknown.load(Ordering::Relaxed),
            declined: self.declined.each_ref().map(|count| count.load(Ordering::Relaxed)),
            turned_away: self.turned_away.load(Ordering::Relaxed),
            copied: self.copied.load(Ordering::Relaxed),
        }
    }

    fn way(&self) -> Way<'_> {
        Way {
            uplink: &self.uplink,
            usage: &self.usage,
            from: self.terms().wan_address,
            via: &self.via,
            live: &self.live,
        }
    }

    fn hello(&self, is_peer: bool, about: Option<SessionId>) -> Hello {
        let details = is_peer.then(|| Details {
            bandwidth: self.offered(),
            load: u32::try_from(self.sessions.count(Instant::now())).unwrap_or(u32::MAX),
            rtt: Span::from_micros(self.round_trip().into()),
            losses: 0, // nothing counts them yet
        });
        let challenge = is_peer.then(|| self.challenge()).flatten();
        let takes_part = is_peer && about.is_some_and(|session| self.takes_part(session));
        Hello { key: self.key, details, challenge, takes_part }
    }

    /// Whether this router works for that session, or coordinates it.
    fn takes_part(&self, session: SessionId) -> bool {
        self.sessions.find(session, Instant::now()).is_some() || self.coordinates(session)
    }

    fn coordinates(&self, session: SessionId) -> bool {
        self.shared().is_some_and(|shared| shared.sessions.has(session))
    }

    /// A new challenge; `None` if the kernel gives no randomness.
    fn challenge(&self) -> Option<Challenge> {
        let mut random = [0; 16];
        getrandom::fill(&mut random).ok()?;
        Some(Challenge { log_head: self.log_head(), random })
    }

    /// Hash of the last entry of our log, which INITs countersign.
    fn log_head(&self) -> [u8; 32] {
        self.terms().ledger.as_ref().map_or([0; 32], |ledger| ledger.head())
    }

    /// Bits per second that each session can be promised now; 0: unknown.
    fn share(&self) -> u64 {
        self.offered() / self.sessions.count(Instant::now()).max(1) as u64
    }

    /// Bits per second that are offered to all neighbours together; 0: unknown, or nothing now.
    fn offered(&self) -> u64 {
        self.uplink.offer().rate().unwrap_or(0).saturating_mul(8)
    }

    /// Whether anything can be written down now.
    fn can_log(&self) -> bool {
        self.terms().ledger.as_ref().is_some_and(|ledger| ledger.takes_entries())
    }

    /// Writes down that bytes of a session's file are going to be fetched.
    ///
    /// # Errors
    /// Why they must not be then, and for how many seconds not to ask again.
    fn log_chunk(&self, session: &Session, range: Range<u64>) -> Result<(), (DropReason, u32)> {
        let filled = self.quota.take_range(session.coordinator, Instant::now());
        filled.map_err(|exceeded| (DropReason::Quota, exceeded.retry_after))?;
        let terms = self.terms();
        let ledger = terms.ledger.as_ref().ok_or(AppendError::Stopped);
        let logged = ledger.and_then(|ledger| ledger.append_chunk(session.id, range));
        logged.map_err(|_| (DropReason::Busy, BUSY_FOR))
    }

    /// Ends a coordinator's session; what was served in it.
    fn end(&self, session: &Arc<Session>) -> Summary {
        if let Some(ledger) = &self.terms().ledger {
            ledger.end_session(session.id);
        }
        self.sessions.end(session, Instant::now())
    }

    /// Round trip to origins in microseconds, smoothed; 0: unknown.
    pub fn round_trip(&self) -> u32 {
        self.round_trip.load(Ordering::Relaxed)
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

#[cfg(test)]
mod tests {
    use bamqp_core::channel::{Callee, Identity, Introduced, Reference, Sequence, Tally};
    use bamqp_core::http::request::Request;
    use bamqp_core::http::target::Uri;
    use bamqp_core::http::validator::Validator;
    use bamqp_core::http::write::HeadWriter;
    use bamqp_core::limits::MAX_PEER_HEAD_BYTES;
    use bamqp_core::message::init::Init;
    use bamqp_core::signature::Mac;

    use super::*;
    use crate::commission::Commission;

    /// A peer's side of a session of the coordinator with this seed.
    pub fn callee(coordinator: u8, session: SessionId) -> Callee {
        introduced(coordinator, session).0
    }

    /// What it has passed on of that session.
    pub fn commission(coordinator: u8, session: SessionId) -> Commission {
        introduced(coordinator, session).1
    }

    fn introduced(coordinator: u8, session: SessionId) -> (Callee, Commission) {
        let (us, them) =
            (Identity::from_seed([99; 32]).unwrap(), Identity::from_seed([coordinator; 32]).unwrap());
        let init = Init {
            session,
            target: Uri::parse("http://origin.test/").unwrap(),
            size: 1,
            validator: Validator::entity_tag(b"\"v\"").unwrap(),
            hops: 0,
            recipient: us.fingerprint(),
            first: None,
            user_agent: None,
            accept: None,
        };
        let mut buffer = [0; MAX_PEER_HEAD_BYTES];
        let mut head = HeadWriter::new(&mut buffer);
        init.write(&mut head, &"peer");
        let challenge = Challenge { log_head: [0; 32], random: [0; 16] };
        let (at_us, at_them) = (us.agree(them.public_key()).unwrap(), them.agree(us.public_key()).unwrap());
        let mut tally = Tally::default();
        let (length, ..) = them.seal_init(head, &init, &at_them, &challenge, &mut tally).unwrap();
        let (request, _) = Request::parse(&buffer[..length]).unwrap().unwrap();
        let find = |_| Some(&at_us);
        let me = us.fingerprint();
        let introduced = Introduced::by(&request, &init, me, Some(&challenge), find, &mut tally).unwrap();
        let key = *them.public_key();
        let commission = Commission::of(&init, &request, &buffer[..length], key, challenge).unwrap();
        (introduced.callee, commission)
    }

    /// A request at this place.
    pub fn request(place: u32) -> Reference {
        Reference { sequence: Sequence { link: 0, place }, mac: Mac([0; 32]) }
    }
}
