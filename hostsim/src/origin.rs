//! The origin: an HTTP/1.1 server of one file whose answers come as slowly as the internet link of whoever
//! asks. A source address (127.x.y.z) is a router; all its connections share that router's link. Also what an
//! operator of such a server could do to it: change the file, cut or slow a link. Not responsible for HTTP's
//! semantics (`answer`) or for the pacing of one connection (`paced`).

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime};

use bamqp_core::limits::SLOT_BYTES;
use bamqp_core::time::Instant;

use crate::answer::{self, Answer, File, Misbehaviour, Request};
use crate::link::Link;
use crate::paced;

/// What the origin does wrong on purpose.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// Sources whose range requests are answered with too few bytes.
    pub corrupt_length: Vec<IpAddr>,
    /// Sources whose range requests are answered with another range.
    pub wrong_range: Vec<IpAddr>,
    /// Every request after the first gets 403.
    pub one_shot: bool,
    /// Connections of a source address beyond so many get 503.
    pub per_ip_limit: Option<usize>,
    /// Sources that get other bytes: each XORed with this.
    pub altered: HashMap<IpAddr, u8>,
    /// Sources of which one range request of at least a slot, the second, is answered with other bytes.
    pub altered_once: Vec<IpAddr>,
}

/// What was done wrong to one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Misdeed {
    /// Too few bytes, see [`Rules::corrupt_length`].
    CorruptLength,
    /// Another range, see [`Rules::wrong_range`].
    WrongRange,
    /// 403, see [`Rules::one_shot`].
    OneShot,
    /// 503, see [`Rules::per_ip_limit`].
    PerIpLimit,
    /// Other bytes, see [`Rules::altered`] and [`Rules::altered_once`].
    Altered,
}

/// The router behind one source address.
pub(crate) struct Source {
    pub(crate) address: IpAddr,
    link: Mutex<Link>,
    dead: AtomicBool,
    open: Mutex<HashMap<u64, TcpStream>>,
    sent: AtomicU64,
}

impl Source {
    pub(crate) fn link(&self) -> MutexGuard<'_, Link> {
        lock(&self.link)
    }

    pub(crate) fn count(&self, bytes: u64) {
        self.sent.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// What all connections share.
pub(crate) struct Shared {
    started: std::time::Instant,
    file: Mutex<Arc<File>>,
    rules: Mutex<Rules>,
    used: AtomicBool,
    misdeeds: Mutex<HashMap<(Misdeed, IpAddr), u64>>,
    /// How many chunks were asked for by those of [`Rules::altered_once`].
    chunks: Mutex<HashMap<IpAddr, u32>>,
    sources: HashMap<IpAddr, Arc<Source>>,
    stopping: AtomicBool,
}

impl Shared {
    /// The clock by which links are reckoned: microseconds since the origin started.
    pub(crate) fn now(&self) -> Instant {
        Instant::from_micros(u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX))
    }

    /// Answers a request that has arrived; `limited` on a connection beyond the limit. The version of the
    /// file is fixed here: an answer that has begun goes on with it.
    pub(crate) fn answer(&self, source: &Source, request: &Request, limited: bool) -> (Answer, Arc<File>) {
        let file = lock(&self.file).clone();
        let rules = lock(&self.rules);
        let (misbehaviour, misdeed) = if rules.corrupt_length.contains(&source.address) {
            (Misbehaviour::CorruptLength, Some(Misdeed::CorruptLength))
        } else if rules.wrong_range.contains(&source.address) {
            (Misbehaviour::WrongRange, Some(Misdeed::WrongRange))
        } else if let Some(mask) = rules.altered.get(&source.address) {
            (Misbehaviour::Alter(*mask), Some(Misdeed::Altered))
        } else {
            (Misbehaviour::None, None)
        };
        let (answer, misdeed) = if limited {
            (answer::refuse(503, true), Some(Misdeed::PerIpLimit))
        } else if rules.one_shot && self.used.swap(true, Ordering::Relaxed) {
            (answer::refuse(403, request.last), Some(Misdeed::OneShot))
        } else {
            let mut answer = answer::respond(request, &file, misbehaviour, SystemTime::now());
            let mut misdeed = misdeed.filter(|_| answer.misbehaved);
            let is_chunk = answer.status == 206 && answer.body.len() >= SLOT_BYTES;
            if is_chunk && rules.altered_once.contains(&source.address) {
                let mut chunks = lock(&self.chunks);
                let count = chunks.entry(source.address).or_default();
                *count += 1;
                if *count == 2 {
                    (answer.mask, misdeed) = (answer::LIE, Some(Misdeed::Altered));
                }
            }
            (answer, misdeed)
        };
        if let Some(misdeed) = misdeed {
            *lock(&self.misdeeds).entry((misdeed, source.address)).or_default() += 1;
        }
        log::debug!(
            "{} {} {:?}: {} {:?}",
            source.address,
            request.method,
            request.range,
            answer.status,
            answer.body
        );
        (answer, file)
    }
}

/// A running origin. Dropping it stops it.
pub struct Origin {
    shared: Arc<Shared>,
    address: SocketAddr,
    acceptor: Option<JoinHandle<()>>,
}

impl Origin {
    /// Listens on `address` and serves `bytes` under every path to the sources that have a link; others are
    /// closed. The file counts as a day old, so that its date is a strong validator (RFC 9110 8.8.2.2).
    pub fn start(
        address: SocketAddr,
        bytes: Arc<[u8]>,
        links: impl IntoIterator<Item = (IpAddr, Link)>,
    ) -> io::Result<Origin> {
        let listener = TcpListener::bind(address)?;
        let address = listener.local_addr()?;
        let file = File::new(bytes, SystemTime::now() - Duration::from_secs(86_400));
        let source = |(address, link)| {
            let source = Source {
                address,
                link: Mutex::new(link),
                dead: AtomicBool::new(false),
                open: Mutex::default(),
                sent: AtomicU64::new(0),
            };
            (address, Arc::new(source))
        };
        let shared = Arc::new(Shared {
            started: std::time::Instant::now(),
            file: Mutex::new(Arc::new(file)),
            rules: Mutex::default(),
            used: AtomicBool::new(false),
            misdeeds: Mutex::default(),
            chunks: Mutex::default(),
            sources: links.into_iter().map(source).collect(),
            stopping: AtomicBool::new(false),
        });
        let acceptor = {
            let shared = shared.clone();
            thread::Builder::new().name("origin".into()).spawn(move || accept(&listener, &shared))?
        };
        Ok(Origin { shared, address, acceptor: Some(acceptor) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on it misbehaves like this; a one-shot URL is fresh again, and chunks are
    /// counted anew.
    pub fn set_rules(&self, rules: Rules) {
        *lock(&self.shared.rules) = rules;
        self.shared.used.store(false, Ordering::Relaxed);
        lock(&self.shared.chunks).clear();
    }

    /// How many requests it did wrong to.
    pub fn misbehaved(&self) -> u64 {
        lock(&self.shared.misdeeds).values().sum()
    }

    /// How often it did `misdeed`, to `source` or (`None`) to anybody.
    pub fn did(&self, misdeed: Misdeed, source: Option<IpAddr>) -> u64 {
        let misdeeds = lock(&self.shared.misdeeds);
        let meant = misdeeds
            .iter()
            .filter(|((what, whom), _)| *what == misdeed && source.is_none_or(|source| source == *whom));
        meant.map(|(_, count)| count).sum()
    }

    /// Bytes, heads included, that came to `source` over its link.
    pub fn sent_to(&self, source: IpAddr) -> u64 {
        self.shared.sources.get(&source).map_or(0, |source| source.sent.load(Ordering::Relaxed))
    }

    /// The file becomes another one of the same length. Answers that have begun go on with the old one.
    pub fn change(&self) {
        let mut file = lock(&self.shared.file);
        *file = Arc::new(file.changed(SystemTime::now()));
    }

    /// The link of `source` dies: its connections are closed, new ones are refused.
    pub fn kill(&self, source: IpAddr) {
        if let Some(source) = self.shared.sources.get(&source) {
            source.dead.store(true, Ordering::Relaxed);
            close_all(source);
        }
    }

    /// The link of `source` gets the rate that `change` makes of its rate (bytes per second; 0: silent).
    pub fn change_rate(&self, source: IpAddr, change: impl FnOnce(u64) -> u64) {
        if let Some(source) = self.shared.sources.get(&source) {
            let now = self.shared.now();
            let mut link = source.link();
            let rate = change(link.rate());
            link.set_rate(now, rate);
        }
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::Relaxed);
        // Wakes the acceptor, which looks at the flag before anything else.
        let _ = TcpStream::connect_timeout(&self.address, Duration::from_secs(1));
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    let mut connections: Vec<JoinHandle<()>> = Vec::new();
    for (number, incoming) in (0u64..).zip(listener.incoming()) {
        if shared.stopping.load(Ordering::Relaxed) {
            break;
        }
        connections.retain(|connection| !connection.is_finished());
        match incoming.and_then(|stream| admit(stream, number, shared)) {
            Ok(Some(connection)) => connections.push(connection),
            Ok(None) => {}
            Err(error) => log::debug!("origin: {error}"),
        }
    }
    shared.sources.values().for_each(|source| close_all(source));
    for connection in connections {
        let _ = connection.join();
    }
}

/// Starts the threads of one connection, if its source may have one.
fn admit(stream: TcpStream, number: u64, shared: &Arc<Shared>) -> io::Result<Option<JoinHandle<()>>> {
    let accepted = shared.now();
    let peer = stream.peer_addr()?.ip();
    let Some(source) = shared.sources.get(&peer).filter(|source| !source.dead.load(Ordering::Relaxed)) else {
        log::debug!("origin: nothing for {peer}");
        return Ok(None);
    };
    stream.set_nodelay(true)?;
    // What stands in this buffer has already come over the link: small, or a receiver that doesn't read
    // would seem to have a far larger buffer than it has.
    rustix::net::sockopt::set_socket_send_buffer_size(&stream, 64 * 1024)?;
    let limited = {
        let mut open = lock(&source.open);
        open.insert(number, stream.try_clone()?);
        lock(&shared.rules).per_ip_limit.is_some_and(|limit| open.len() > limit)
    };
    // The link may have died meanwhile, after its connections were closed.
    if source.dead.load(Ordering::Relaxed) {
        close_all(source);
    }
    let (shared, source) = (shared.clone(), source.clone());
    let connection = thread::Builder::new().name(format!("origin {peer}")).spawn(move || {
        if let Err(error) = paced::serve(&stream, &shared, &source, accepted, limited) {
            log::debug!("origin: {peer}: {error}");
        }
        let _ = stream.shutdown(Shutdown::Both);
        lock(&source.open).remove(&number);
    })?;
    Ok(Some(connection))
}

fn close_all(source: &Source) {
    for stream in lock(&source.open).values() {
        let _ = stream.shutdown(Shutdown::Both);
    }
}

/// The data behind a lock is whole between statements everywhere here, so a panic elsewhere does not spoil it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
