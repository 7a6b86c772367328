//! One pooled download of this household: takes over when [`bamqp_core::decide`] says so, sets its lanes going, and
//! writes what they bring to the client. Not responsible for heads (client and origin have exchanged theirs), nor for
//! what the lanes do (`lane`).

use core::net::SocketAddr;
use core::ops::Range;
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use bamqp_core::address::Refusal;
use bamqp_core::decide::{Pool, Situation};
use bamqp_core::http::body::BodyLength;
use bamqp_core::http::body_scan::BodyScanner;
use bamqp_core::http::target::Uri;
use bamqp_core::message::SessionId;
use bamqp_core::select::Download;
use bamqp_core::time::Span;
use bamqp_core::transfer::{ClientDo, ClientEvent, Fault, LaneEvent, LaneId, Outcome, OwnLink};

use sha2::{Digest, Sha256};

use crate::clock;
use crate::daemon::Shared;
use crate::fetch::{Fetcher, File, Source};
use crate::inbox::{Inbox, STEP_BYTES};
use crate::lane::{Lane, Link};
use crate::ledger_file::SessionRecord;
use crate::net::{self, Moved, PollFd, PollFlags};
use crate::relay::{self, Pump, RelayError};
use crate::serve::HOLD_BYTES;
use crate::session::{Session, Slot, Work};

/// How long a client may take nothing at all before it counts as gone.
const CLIENT_PATIENCE: Duration = relay::IDLE;

/// What the own link is believed to carry before anything was measured, in bytes per second. Too high a guess only
/// lets the original response go on alone for a little longer.
pub const UNKNOWN_RATE: u64 = 2_000_000;

/// How long peers take to begin: INIT, and their connection to the origin.
const START_UP: Span = Span::from_millis(100);

/// A download to be pooled, as the proxy hands it over: the response head and `body_start` are with the client.
#[derive(Debug)]
pub struct Job<'a> {
    /// The client's connection, non-blocking.
    pub client: &'a TcpStream,
    /// The origin's connection, non-blocking, on which the body goes on.
    pub origin: Arc<TcpStream>,
    /// Where that connection leads: further ones of the own link go to the same address.
    pub origin_address: SocketAddr,
    /// How long the origin took from the request to the response's head.
    pub answer_time: Duration,
    /// The body's first bytes, which came with the head. The client has them already.
    pub body_start: &'a [u8],
    /// Which bytes of how large a file the body is, and under which validator.
    pub pool: Pool,
    /// The SHA-256 of the whole file, if the origin tells it and all of it is wanted.
    pub digest: Option<[u8; 32]>,
    /// The file.
    pub uri: Uri<'a>,
    /// The client's `User-Agent`, for the lanes' requests.
    pub user_agent: Option<&'a [u8]>,
    /// The client's `Accept`, for the lanes' requests.
    pub accept: Option<&'a [u8]>,
}

/// How a pooled download ended, if it ended well: the client has every byte.
#[derive(Debug)]
pub struct Done {
    /// Whether the origin's connection stands after the end of its response and can be used again.
    pub origin_reusable: bool,
}

/// What the decision on `uri` from the origin at `origin` depends on besides the heads; `address` is whether peers may reach
/// it.
pub fn situation(
    shared: &Shared,
    uri: &Uri<'_>,
    origin: SocketAddr,
    address: Result<(), Refusal>,
) -> Situation {
    let now = std::time::Instant::now();
    Situation {
        address,
        lesson: shared.origins.lesson(&uri.authority().to_string(), origin, now),
        peers: shared.peers.usable(),
        min_size: shared.config.min_size,
        own_rate: shared.own_link.rate(),
        fast_enough: shared.config.fast_enough / 8,
        help: shared.peers.help(),
        start_up: START_UP,
    }
}

/// Brings the client the rest of the body.
///
/// # Errors
/// Why it doesn't have all of it; its connection has to be closed.
pub fn aggregate(shared: &Arc<Shared>, job: Job<'_>) -> Result<Done, RelayError> {
    let mut digest = job.digest.map(WholeFile::new);
    let mut start = job.pool.range.start + job.body_start.len() as u64;
    digest.iter_mut().for_each(|digest| digest.passed(job.body_start));
    if job.body_start.is_empty() {
        start += first_bytes(&job, digest.as_mut())?;
    }
    let range = start..job.pool.range.end;
    let Some(session) = begin(shared, &job, range.clone()) else {
        return relay_alone(&job, range.end.saturating_sub(range.start));
    };
    let outcome = serve_client(&session, job.client, digest);
    if let Some(lesson) = session.lesson() {
        log::warn!("{}: not pooled for now: {lesson}", job.uri.authority());
        let now = std::time::Instant::now();
        shared.origins.learn(&job.uri.authority().to_string(), job.origin_address, lesson, now);
    }
    close(shared, &session);
    log::info!("session {}: {outcome:?}", session.id);
    match outcome? {
        Outcome::Complete => Ok(Done { origin_reusable: false }),
        Outcome::ClientGone => Err(RelayError::Sink(std::io::ErrorKind::BrokenPipe.into())),
        Outcome::NoLaneLeft(_) | Outcome::Unverified => Err(RelayError::EndedEarly),
    }
}

/// Passes on the first bytes as they come, since the client must not wait for a whole slot; how many there were.
fn first_bytes(job: &Job<'_>, digest: Option<&mut WholeFile>) -> Result<u64, RelayError> {
    let mut buffer = [0; STEP_BYTES];
    let most =
        usize::try_from(job.pool.range.end - job.pool.range.start).unwrap_or(usize::MAX).min(buffer.len());
    let buffer = buffer.get_mut(..most).unwrap_or_default();
    loop {
        match net::read(&job.origin, buffer).map_err(RelayError::Source)? {
            Moved::Bytes(bytes) => {
                let came = buffer.get(..bytes).unwrap_or_default();
                digest.into_iter().for_each(|digest| digest.passed(came));
                net::write_all(job.client, came, CLIENT_PATIENCE).map_err(RelayError::Sink)?;
                return Ok(bytes as u64);
            }
            Moved::WouldBlock => {
                let deadline = std::time::Instant::now() + relay::IDLE;
                let mut fds =
                    [PollFd::new(&job.origin, PollFlags::IN), PollFd::new(job.client, PollFlags::empty())];
                match net::poll(&mut fds, Some(deadline)) {
                    Ok(0) | Err(_) => return Err(RelayError::Idle),
                    Ok(_) if !fds[1].revents().is_empty() => {
                        return Err(RelayError::Sink(std::io::ErrorKind::BrokenPipe.into()));
                    }
                    Ok(_) => {}
                }
            }
            Moved::End => return Err(RelayError::EndedEarly),
        }
    }
}

/// Without a session, as if pooling had not been decided on.
fn relay_alone(job: &Job<'_>, rest: u64) -> Result<Done, RelayError> {
    let mut nothing = Inbox::new(1);
    let scanner = BodyScanner::new(BodyLength::Exact(rest));
    let mut response = Pump::new(&job.origin, &mut nothing, job.client, scanner).bulk();
    relay::exchange(&mut response, None)?;
    Ok(Done { origin_reusable: true })
}

/// Sets a session and its lanes going. `None` if there can't be one: too many already, no peer, no memory.
fn begin(shared: &Arc<Shared>, job: &Job<'_>, range: Range<u64>) -> Option<Arc<Session>> {
    let mut id = [0; 16];
    getrandom::fill(&mut id).ok()?;
    let file = Arc::new(File {
        uri: job.uri.to_string(),
        total: job.pool.total,
        validator: job.pool.validator.clone(),
        user_agent: job.user_agent.map(Into::into),
        accept: job.accept.map(Into::into),
    });
    let own = OwnLink {
        rate: shared.own_link.rate().unwrap_or(UNKNOWN_RATE),
        rtt: Span::from_micros(job.answer_time.as_micros() as u64),
        hold: HOLD_BYTES,
    };
    let id = SessionId(id);
    let mut draw = [0; 4];
    getrandom::fill(&mut draw).ok()?;
    let download = Download {
        own_rate: shared.own_link.rate().unwrap_or(0),
        rest: range.end.saturating_sub(range.start),
        draw: u32::from_ne_bytes(draw),
    };
    let helpers = shared.peers.select(id, &download, own.rate, own.rtt);
    let window = shared.config.window as usize;
    if helpers.is_empty() || !shared.sessions.has_room(shared.budget.counts.sessions.into()) {
        return None;
    }
    let session = Session::new(id, file, Work::Response(range.clone()), window, own, helpers)
        .inspect_err(|error| log::warn!("no session, the own link goes on alone: {error}"))
        .ok()
        .filter(|session| !session.helpers.is_empty())?;
    if !shared.sessions.begin(&session, shared.budget.counts.sessions.into()) {
        return None;
    }
    // What of the original response was passed on before there was a session came with its head or alone.
    session.count_copied(LaneId::ORIGINAL, (range.start - job.pool.range.start) as u32);
    log::info!("session {}: {} with {} peers", session.id, session.file.uri, session.helpers.len());
    let via = shared.via.clone();
    let (address, from) = (job.origin_address, shared.config.wan_address);
    let source = Source::Origin { address, from, via, uplink: None };
    let original = Fetcher::resume(session.file.clone(), source.clone(), job.origin.clone(), range);
    if !start(shared, &session, LaneId::ORIGINAL, Link::Original(Box::new(original))) {
        shared.sessions.end(&session);
        return None;
    }
    start(shared, &session, LaneId::OWN, Link::Own(source));
    start_peers(shared, &session);
    Some(session)
}

/// Starts the threads of a session's peers.
pub fn start_peers(shared: &Arc<Shared>, session: &Arc<Session>) {
    for (place, helper) in session.helpers.iter().enumerate() {
        start(shared, session, LaneId::from_index(place + 2), Link::Peer(helper.peer));
    }
}

/// The session is over: its peers' trust records, the log and status are told.
pub fn close(shared: &Shared, session: &Arc<Session>) {
    remember(shared, session);
    log_session(shared, session);
    shared.sessions.end(session);
}

/// The session is over: what its peers did goes into their trust records.
fn remember(shared: &Shared, session: &Session) {
    if shared.live.is_stopping() {
        return; // their connections were cut by us
    }
    for (key, conduct, rate) in session.conducts() {
        shared.trust.add(key, &conduct, rate);
    }
}

/// The ledger tells who was asked to fetch for this household, and pins the ledgers of those who did.
fn log_session(shared: &Shared, session: &Session) {
    let Some(ledger) = &shared.ledger else { return };
    let (id, file) = (session.id, &session.file);
    let (uri, peers) = (file.uri.as_str(), session.joined());
    let record = SessionRecord { session: id, size: file.total, range: &session.range, uri, peers: &peers };
    if let Err(error) = ledger.append_session(&record) {
        log::warn!("session {id} is not in the log: {error}");
    }
}

/// Starts a lane's thread. A lane that gets none is out; the others make up for it.
pub fn start(shared: &Arc<Shared>, session: &Arc<Session>, id: LaneId, link: Link) -> bool {
    let lane = Lane::new(shared.clone(), session.clone(), id, link);
    let started = shared.live.spawn("lane", move || lane.run());
    if let Err(error) = &started {
        log::warn!("session {}: no thread for a lane: {error}", session.id);
        if id != LaneId::ORIGINAL {
            session.lane(id, LaneEvent::Failed { slot: None, why: Fault::Declined });
        }
    }
    started.is_ok()
}

/// The SHA-256 that the origin tells of the whole file, and of what the client has of it (DESIGN section 7).
struct WholeFile {
    told: [u8; 32],
    hash: Sha256,
}

impl WholeFile {
    fn new(told: [u8; 32]) -> Self {
        Self { told, hash: Sha256::new() }
    }

    fn passed(&mut self, bytes: &[u8]) {
        self.hash.update(bytes);
    }

    fn matches(self) -> bool {
        self.hash.finalize().as_slice() == self.told
    }
}

/// Writes the slots to the client as they come in order, until the session is over.
///
/// # Errors
/// [`RelayError::WrongDigest`]: the last slot was not given out, because with it the file is not the one whose digest the
/// origin told.
fn serve_client(
    session: &Session,
    client: &TcpStream,
    mut digest: Option<WholeFile>,
) -> Result<Outcome, RelayError> {
    let mut event = ClientEvent::Idle;
    let mut left = session.range.end.saturating_sub(session.range.start);
    loop {
        event = match session.client(event) {
            ClientDo::Write { slot, start, len } => {
                let (start, len) = (start as usize, len as usize);
                left = left.saturating_sub(len as u64);
                digest.iter_mut().for_each(|d| d.passed(slot.get(start..start + len).unwrap_or_default()));
                if left == 0 && digest.take().is_some_and(|digest| !digest.matches()) {
                    session.client(ClientEvent::Written(slot));
                    session.client(ClientEvent::Gone);
                    return Err(RelayError::WrongDigest);
                }
                write_slot(client, slot, start, len)
            }
            ClientDo::Wait(until) => wait(session, client, until),
            ClientDo::End(outcome) => return Ok(outcome),
        };
    }
}

fn write_slot(client: &TcpStream, slot: Slot, start: usize, len: usize) -> ClientEvent<Slot> {
    let bytes = slot.get(start..start + len).unwrap_or_default();
    match net::write_all(client, bytes, CLIENT_PATIENCE) {
        Ok(()) => ClientEvent::Written(slot),
        Err(_) => ClientEvent::Gone,
    }
}

/// Waits to be woken, until then, or until the client is gone. (A client that only sends no more is still there.)
fn wait(
    session: &Session,
    client: &TcpStream,
    until: Option<bamqp_core::time::Instant>,
) -> ClientEvent<Slot> {
    let waker = session.client_waker();
    let mut fds = [PollFd::new(waker, PollFlags::IN), PollFd::new(client, PollFlags::empty())];
    // An error means that the system has no memory: the caller tries again.
    let _ = net::poll(&mut fds, until.map(clock::to_std));
    if !fds[1].revents().is_empty() {
        return ClientEvent::Gone;
    }
    waker.drain();
    ClientEvent::Idle
}
