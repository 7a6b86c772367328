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

use crate::clock;
use crate::daemon::Shared;
use crate::fetch::{Fetcher, File, Source};
use crate::inbox::{Inbox, STEP_BYTES};
use crate::lane::{Lane, Link};
use crate::ledger_file::SessionRecord;
use crate::net::{self, Moved, PollFd, PollFlags};
use crate::relay::{self, Pump, RelayError};
use crate::serve::HOLD_BYTES;
use crate::session::{Session, Slot};

/// How long a client may take nothing at all before it counts as gone.
const CLIENT_PATIENCE: Duration = relay::IDLE;

/// What the own link is believed to carry before anything was measured, in bytes per second. Too high a guess only
/// lets the original response go on alone for a little longer.
const UNKNOWN_RATE: u64 = 2_000_000;

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

/// What the decision depends on besides the heads; `address` is whether peers may reach the origin.
pub fn situation(shared: &Shared, address: Result<(), Refusal>) -> Situation {
    Situation {
        address,
        peers: shared.peers.usable(),
        min_size: shared.config.min_size,
        own_rate: shared.own_link.rate(),
        start_up: START_UP,
    }
}

/// Brings the client the rest of the body.
///
/// # Errors
/// Why it doesn't have all of it; its connection has to be closed.
pub fn aggregate(shared: &Arc<Shared>, job: Job<'_>) -> Result<Done, RelayError> {
    let mut start = job.pool.range.start + job.body_start.len() as u64;
    if job.body_start.is_empty() {
        start += first_bytes(&job)?;
    }
    let range = start..job.pool.range.end;
    let Some(session) = begin(shared, &job, range.clone()) else {
        return relay_alone(&job, range.end.saturating_sub(range.start));
    };
    let outcome = serve_client(&session, job.client);
    remember(shared, &session);
    log_session(shared, &session);
    shared.sessions.end(&session);
    log::info!("session {}: {outcome:?}", session.id);
    match outcome {
        Outcome::Complete => Ok(Done { origin_reusable: false }),
        Outcome::ClientGone => Err(RelayError::Sink(std::io::ErrorKind::BrokenPipe.into())),
        Outcome::NoLaneLeft(_) => Err(RelayError::EndedEarly),
    }
}

/// Passes on the first bytes as they come, since the client must not wait for a whole slot; how many there were.
fn first_bytes(job: &Job<'_>) -> Result<u64, RelayError> {
    let mut buffer = [0; STEP_BYTES];
    let most =
        usize::try_from(job.pool.range.end - job.pool.range.start).unwrap_or(usize::MAX).min(buffer.len());
    let buffer = buffer.get_mut(..most).unwrap_or_default();
    loop {
        match net::read(&job.origin, buffer).map_err(RelayError::Source)? {
            Moved::Bytes(bytes) => {
                let came = buffer.get(..bytes).unwrap_or_default();
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
    if helpers.is_empty() || !shared.sessions.has_room(shared.config.max_sessions.into()) {
        return None;
    }
    let session = Session::new(id, file, range.clone(), window, own, helpers)
        .inspect_err(|error| log::warn!("no session, the own link goes on alone: {error}"))
        .ok()
        .filter(|session| !session.helpers.is_empty())?;
    if !shared.sessions.begin(&session, shared.config.max_sessions.into()) {
        return None;
    }
    // What of the original response was passed on before there was a session came with its head or alone.
    session.count_copied(LaneId::ORIGINAL, (range.start - job.pool.range.start) as u32);
    log::info!("session {}: {} with {} peers", session.id, session.file.uri, session.helpers.len());
    let via = shared.via.clone();
    let source = Source::Origin { address: job.origin_address, from: shared.config.wan_address, via };
    let original = Fetcher::resume(session.file.clone(), source.clone(), job.origin.clone(), range);
    if !start(shared, &session, LaneId::ORIGINAL, Link::Original(Box::new(original))) {
        shared.sessions.end(&session);
        return None;
    }
    start(shared, &session, LaneId::OWN, Link::Own(source));
    for (place, helper) in session.helpers.iter().enumerate() {
        start(shared, &session, LaneId::from_index(place + 2), Link::Peer(helper.peer));
    }
    Some(session)
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
fn start(shared: &Arc<Shared>, session: &Arc<Session>, id: LaneId, link: Link) -> bool {
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

/// Writes the slots to the client as they come in order, until the session is over.
fn serve_client(session: &Session, client: &TcpStream) -> Outcome {
    let mut event = ClientEvent::Idle;
    loop {
        event = match session.client(event) {
            ClientDo::Write { slot, start, len } => write_slot(client, slot, start as usize, len as usize),
            ClientDo::Wait(until) => wait(session, client, until),
            ClientDo::End(outcome) => return outcome,
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
