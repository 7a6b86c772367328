//! The internet line, shared with the neighbours: watches what comes over it, and keeps what is fetched for neighbours within
//! what the household leaves. Not responsible for the rules ([`bamqp_core::spare`]), nor for what neighbours are told
//! ([`crate::serve`]).
//!
//! One thread looks ten times a second while something is fetched for neighbours, else once a second. When the household wants
//! its line, it shuts down the connections on which neighbours' bytes come, whoever waits for them.

use std::io;
use std::net::{Shutdown, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use bamqp_core::spare::bucket::{Bucket, Grant};
use bamqp_core::spare::stream::{Counters, Stream, payload};
use bamqp_core::spare::{Offer, Sample, Spare, State, Terms};
use bamqp_core::time::Span;

use crate::clock;
use crate::config::Config;
use crate::net::{self, PollFd, PollFlags, Waker};
use crate::wan::{self, Wan};

/// How often the line is looked at while something is fetched for neighbours, and else.
const WHILE_HELPING: Duration = Duration::from_millis(100);
const WHILE_IDLE: Duration = Duration::from_secs(1);

/// How often it is looked which interface leads to the internet.
const LOOK_FOR_INTERFACE: Duration = Duration::from_secs(30);

/// Least and most bytes of the receive buffer of a connection that is paced, and what it holds: as much as comes in a quarter
/// of a second. What the kernel takes beyond the pace would come all the same.
const BUFFER_BYTES: core::ops::RangeInclusive<u64> = 32 * 1024..=1024 * 1024;

/// The line, and what is known of it.
#[derive(Debug)]
pub struct Uplink {
    inner: Mutex<Inner>,
    /// Connections on which bytes come for neighbours.
    streams: Mutex<Vec<Fetch>>,
    bucket: Mutex<Bucket>,
    /// What the bucket and all others go by.
    is_withdrawn: AtomicBool,
    is_stopping: AtomicBool,
    /// Pokes the watcher.
    changed: Waker,
}

#[derive(Debug)]
struct Inner {
    spare: Spare,
    place: Place,
    /// The interface that is watched.
    interface: Option<String>,
    /// The place has changed since the watcher looked.
    is_moved: bool,
}

/// Where to look, as the configuration has it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    counters: PathBuf,
    /// `None`: that of the default route.
    interface: Option<String>,
    /// Nothing is to be watched.
    is_lab: bool,
}

#[derive(Debug)]
struct Fetch {
    socket: Weak<TcpStream>,
    stream: Stream,
}

/// What is known of the line, for people. Rates in bytes per second.
#[derive(Clone, Debug)]
pub struct Report {
    /// The interface that is watched, if there is one.
    pub interface: Option<String>,
    /// What the line carries; `None`: unknown.
    pub capacity: Option<u64>,
    /// What the household uses.
    pub household: u64,
    /// Where helping stands.
    pub state: State,
    /// What neighbours may have.
    pub offer: Offer,
}

impl Uplink {
    /// The line of this configuration.
    ///
    /// # Errors
    /// If the process has no descriptors left.
    pub fn new(config: &Config) -> io::Result<Uplink> {
        let uplink = Uplink {
            inner: Mutex::new(Inner {
                spare: Spare::new(terms(config)),
                place: place(config),
                interface: None,
                is_moved: true,
            }),
            streams: Mutex::default(),
            bucket: Mutex::default(),
            is_withdrawn: AtomicBool::new(false),
            is_stopping: AtomicBool::new(false),
            changed: Waker::new()?,
        };
        uplink.apply(&uplink.lock());
        Ok(uplink)
    }

    /// The configuration has changed; what is known of the line stays.
    pub fn renew(&self, config: &Config) {
        let mut inner = self.lock();
        inner.spare.set_terms(terms(config));
        let place = place(config);
        inner.is_moved |= inner.place != place;
        inner.place = place;
        self.apply(&inner);
        drop(inner);
        self.changed.poke();
    }

    /// Watches until [`Uplink::stop`]. Runs in a thread of its own.
    pub fn run(&self) {
        let (mut wan, mut last) = (None, None);
        let (mut look_again, mut next) = (Instant::now(), Instant::now());
        while !self.is_stopping.load(Ordering::Relaxed) {
            let now = Instant::now();
            let is_moved = core::mem::take(&mut self.lock().is_moved);
            if is_moved || now >= look_again {
                look_again = now + LOOK_FOR_INTERFACE;
                if let Some(found) = self.look_for(wan.as_ref(), is_moved) {
                    (wan, last) = (found, None);
                }
            }
            let is_lab = self.lock().place.is_lab;
            let until = match &mut wan {
                Some(wan) => {
                    if now >= next {
                        last = self.take_sample(wan, last);
                        next = now + if self.is_helping() { WHILE_HELPING } else { WHILE_IDLE };
                    }
                    Some(next)
                }
                None => (!is_lab).then_some(look_again),
            };
            if net::poll(&mut [PollFd::new(&self.changed, PollFlags::IN)], until).is_err() {
                std::thread::sleep(WHILE_HELPING); // the system has no memory now
            }
            if self.changed.drain() {
                next = next.min(Instant::now() + WHILE_HELPING);
            }
        }
    }

    /// Another interface that is to be watched from now on, or none.
    fn look_for(&self, old: Option<&Wan>, is_moved: bool) -> Option<Option<Wan>> {
        let mut inner = self.lock();
        let Place { counters, interface, is_lab } = inner.place.clone();
        let wanted = interface.clone().or_else(|| wan::default_interface().filter(|_| !is_lab));
        if !is_moved && old.map(|wan| &wan.name) == wanted.as_ref() {
            return None;
        }
        let found = wanted.as_ref().and_then(|name| {
            let opened = Wan::open(&counters, name);
            opened.inspect_err(|error| log::warn!("{}: {error}", counters.display())).ok()
        });
        match &found {
            Some(wan) => log::info!("the household comes first: interface {} is watched", wan.name),
            None if is_lab => {}
            None => log::warn!(
                "no default route, so there is no interface to watch for what the household uses: neighbours get \
                 share of bandwidth until there is one (see wan_interface)"
            ),
        }
        inner.interface = found.as_ref().map(|wan| wan.name.clone());
        Some(found)
    }

    /// Looks at the line once; what the counters are now.
    fn take_sample(&self, wan: &mut Wan, last: Option<Counters>) -> Option<Counters> {
        let counters = wan.read();
        // After the line: what comes meanwhile counts as fetched too early, not as the household's.
        let (ours, stray) = self.count_fetched();
        let (Some(before), Some(after)) = (last, counters) else { return counters };
        let now = clock::now();
        let mut inner = self.lock();
        let old = inner.spare.state();
        inner.spare.sample(now, Sample { total: payload(before, after), ours, stray });
        self.apply(&inner);
        let (state, household, line) = (inner.spare.state(), inner.spare.household(), inner.spare.capacity());
        drop(inner);
        if core::mem::discriminant(&old) != core::mem::discriminant(&state) {
            log::info!("helping: {state}; the household uses {household} bytes/s, the line carries {line}");
            if self.is_withdrawn() {
                self.cut();
            }
        }
        counters
    }

    /// What came for neighbours since the last time, and what may still come on connections that are gone.
    fn count_fetched(&self) -> (u64, u64) {
        let (mut ours, mut stray) = (0u64, 0u64);
        self.lock_streams().retain_mut(|fetch| {
            let progress = fetch.socket.upgrade().and_then(|socket| net::progress(&*socket).ok());
            match progress {
                Some(progress) => ours += fetch.stream.advance(progress),
                None => stray += fetch.stream.stray(),
            }
            progress.is_some()
        });
        (ours, stray)
    }

    /// Puts into effect what was decided.
    fn apply(&self, inner: &Inner) {
        let now = clock::now();
        let (pace, is_withdrawn) = match inner.spare.offer(now) {
            Offer::Open { pace, .. } => (pace, false),
            Offer::Withdrawn { .. } => (Some(0), true),
        };
        self.is_withdrawn.store(is_withdrawn, Ordering::Relaxed);
        self.lock_bucket().set_rate(now, pace);
    }

    /// Ends what comes for neighbours at once.
    fn cut(&self) {
        for socket in self.lock_streams().iter().filter_map(|fetch| fetch.socket.upgrade()) {
            let _ = socket.shutdown(Shutdown::Both); // an error means that it is closed already
        }
    }

    /// Ends the watcher.
    pub fn stop(&self) {
        self.is_stopping.store(true, Ordering::Relaxed);
        self.changed.poke();
    }

    /// On this connection, which is just being made, bytes are going to come for a neighbour.
    pub fn add(&self, socket: &Arc<TcpStream>) {
        if let Offer::Open { pace: Some(pace), .. } = self.offer() {
            let bytes = (pace / 4).clamp(*BUFFER_BYTES.start(), *BUFFER_BYTES.end());
            let _ = net::set_receive_buffer(&**socket, usize::try_from(bytes).unwrap_or(usize::MAX));
        }
        let is_watched = self.lock().interface.is_some();
        let mut streams = self.lock_streams();
        if !is_watched {
            streams.retain(|fetch| fetch.socket.strong_count() > 0); // nobody else looks at them
        }
        if streams.is_empty() {
            self.changed.poke();
        }
        streams.push(Fetch { socket: Arc::downgrade(socket), stream: Stream::default() });
    }

    fn is_helping(&self) -> bool {
        !self.lock_streams().is_empty()
    }

    /// What neighbours may have now.
    pub fn offer(&self) -> Offer {
        self.lock().spare.offer(clock::now())
    }

    /// Whether the household needs all of the line.
    pub fn is_withdrawn(&self) -> bool {
        self.is_withdrawn.load(Ordering::Relaxed)
    }

    /// If the household needs all of the line, for how many seconds not to ask again; at least 1.
    pub fn withdrawn_for(&self) -> Option<u32> {
        if !self.is_withdrawn() {
            return None;
        }
        match self.offer() {
            Offer::Open { .. } => None,
            Offer::Withdrawn { left } => Some(
                u32::try_from((left + Span::from_millis(999)).as_millis() / 1000).unwrap_or(u32::MAX).max(1),
            ),
        }
    }

    /// How many of `wanted` bytes may be read for a neighbour now.
    ///
    /// # Errors
    /// None before then.
    pub fn ask(&self, wanted: usize) -> Result<usize, Instant> {
        match self.lock_bucket().ask(clock::now(), wanted as u64) {
            Grant::Bytes(bytes) => Ok(usize::try_from(bytes).unwrap_or(wanted)),
            Grant::NotBefore(at) => Err(clock::to_std(at)),
        }
    }

    /// So many bytes were read.
    pub fn spend(&self, bytes: usize) {
        self.lock_bucket().spend(bytes as u64);
    }

    /// What is known, for people.
    pub fn report(&self) -> Report {
        let inner = self.lock();
        Report {
            interface: inner.interface.clone(),
            capacity: Some(inner.spare.capacity()).filter(|rate| *rate > 0),
            household: inner.spare.household(),
            state: inner.spare.state(),
            offer: inner.spare.offer(clock::now()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Every change is one call, so a panic elsewhere leaves nothing half done; the same with the others.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_streams(&self) -> MutexGuard<'_, Vec<Fetch>> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_bucket(&self) -> MutexGuard<'_, Bucket> {
        self.bucket.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn terms(config: &Config) -> Terms {
    Terms { line: config.bandwidth / 8, share: config.helping.share, floor: config.helping.floor / 8 }
}

/// A router that its neighbours reach over loopback is a lab: what other programs of the machine fetch is nobody's household.
fn place(config: &Config) -> Place {
    let is_lab = config.peer_listen.is_none_or(|address| address.ip().is_loopback());
    Place {
        counters: config.helping.wan_counters.clone(),
        interface: config.helping.wan_interface.clone(),
        is_lab: is_lab && config.helping.wan_interface.is_none(),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn connections_that_are_gone_do_not_pile_up_where_no_line_is_watched() {
        let uplink = Uplink::new(&Config::default()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let connect = || Arc::new(TcpStream::connect(listener.local_addr().unwrap()).unwrap());
        let kept = connect();
        uplink.add(&kept);
        for _ in 0..100 {
            uplink.add(&connect());
        }
        assert!(uplink.lock_streams().len() <= 2);
        assert!(uplink.lock_streams().iter().any(|fetch| fetch.socket.upgrade().is_some()));
    }
}
