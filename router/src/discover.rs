//! Announces this router on the neighbours' link, the one that `peer_listen` is on, and hears others that do. Not
//! responsible for what is kept of them and when it is time ([`bamqp_core::discover`]), nor for making one a peer: that is
//! a person's business ([`crate::approve`]).
//!
//! It has no thread of its own: the control thread waits for its socket and its next announcement as well. Who floods the
//! link wakes it some 30 times a second, and fills a table of fixed size.

use core::fmt;
use core::net::SocketAddr;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use bamqp_core::announce::{Announcement, Name};
use bamqp_core::discover::{Heard, Intake, Kept, Schedule, Table};
use bamqp_core::limits::MAX_ANNOUNCEMENT_BYTES;

use crate::clock;
use crate::config::Config;
use crate::keys::{PublicKey, fingerprint_of};
use crate::multicast::{self, Ear};
use crate::net::Waker;
use crate::own_networks::Link;
use crate::sparingly::Sparingly;

/// The UDP port on which routers announce themselves if the owner does not say.
pub const PORT: u16 = 7733;

/// Where the system keeps the router's name.
const HOST_NAME: &str = "/proc/sys/kernel/hostname";

/// This router's announcements, and those that it hears.
#[derive(Debug)]
pub struct Discovery {
    me: PublicKey,
    changed: Waker,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// `None`: not wanted.
    terms: Option<Terms>,
    ear: Option<Arc<Ear>>,
    trouble: Option<Trouble>,
    table: Table,
    schedule: Schedule,
    intake: Intake,
    counts: Counts,
}

/// What the configuration says.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Terms {
    /// Where other routers connect.
    listen: SocketAddr,
    port: u16,
    name: Name,
    /// The keys of the configured routers.
    known: Vec<PublicKey>,
}

/// Numbers since the start; each wraps around.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Announcements that were sent.
    pub sent: u32,
    /// Announcements of others that were heard.
    pub heard: u32,
    /// Datagrams that are none.
    pub malformed: u32,
    /// Datagrams whose sender has no address of the link.
    pub off_link: u32,
    /// Announcements for which there was no room.
    pub not_kept: u32,
}

/// Why nobody is announced to or heard.
#[derive(Debug)]
enum Trouble {
    /// The own address is of no network.
    NoNetwork(SocketAddr),
    /// What the system says.
    Io(io::Error),
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Trouble::NoNetwork(listen) => write!(f, "the network of {} is not known", listen.ip()),
            Trouble::Io(error) => write!(f, "{error}"),
        }
    }
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        Trouble::Io(error)
    }
}

/// What is to be waited for.
#[derive(Debug, Default)]
pub struct Wait {
    /// A datagram here.
    pub ear: Option<Arc<Ear>>,
    /// This moment.
    pub until: Option<Instant>,
}

/// How it is going.
#[derive(Clone, Debug)]
pub struct Report {
    /// `on`, `off`, or what is in the way.
    pub state: String,
    /// What happened so far.
    pub counts: Counts,
    /// How many routers are heard now.
    pub routers: usize,
}

impl Discovery {
    /// For the router with this key; nothing is announced before [`Discovery::renew`].
    ///
    /// # Errors
    /// If the process has no descriptors left.
    pub fn new(me: PublicKey) -> io::Result<Discovery> {
        Ok(Discovery { me, changed: Waker::new()?, inner: Mutex::default() })
    }

    /// From now on by this configuration; `listen` is where other routers really connect. Who was heard stays, unless it is
    /// on another link or not wanted any more.
    pub fn renew(&self, config: &Config, listen: Option<SocketAddr>) {
        // On all addresses there are is no word about which of the links is the neighbours'.
        let listen = listen.filter(|listen| config.discover && !listen.ip().is_unspecified());
        let terms = listen.map(|listen| Terms {
            listen,
            port: config.discover_port,
            name: config.name.clone().unwrap_or_else(host_name),
            known: config.peers.iter().map(|peer| peer.public_key).collect(),
        });
        let mut inner = self.lock();
        let link = |terms: &Option<Terms>| terms.as_ref().map(|terms| (terms.listen, terms.port));
        if link(&inner.terms) != link(&terms) {
            inner.ear = None;
            inner.table.clear();
            inner.schedule = Schedule::start(clock::now(), random());
            inner.terms = terms;
            let trouble = inner.listen().err();
            inner.tell(trouble);
        } else {
            inner.terms = terms;
        }
        drop(inner);
        self.changed.poke();
    }

    /// Readable when [`Discovery::wait`] has changed.
    pub fn changed(&self) -> &Waker {
        &self.changed
    }

    /// What to wait for before [`Discovery::tick`].
    pub fn wait(&self) -> Wait {
        let inner = self.lock();
        if inner.terms.is_none() {
            return Wait::default();
        }
        let (now, open_at) = (clock::now(), inner.intake.open_at());
        let until = if open_at > now { open_at.min(inner.schedule.next()) } else { inner.schedule.next() };
        Wait { ear: inner.ear.clone().filter(|_| open_at <= now), until: Some(clock::to_std(until)) }
    }

    /// Does what is due. Never blocks.
    pub fn tick(&self) {
        self.changed.drain();
        let mut inner = self.lock();
        inner.hear(&self.me);
        if inner.terms.is_some() && inner.schedule.next() <= clock::now() {
            inner.announce(&self.me);
        }
    }

    /// Who is heard, in the order in which they were heard first.
    pub fn heard(&self) -> Vec<Heard> {
        let mut inner = self.lock();
        inner.table.forget(clock::now());
        inner.table.heard().to_vec()
    }

    /// How it is going.
    pub fn report(&self) -> Report {
        let routers = self.heard().len();
        let inner = self.lock();
        let state = match (&inner.terms, &inner.trouble) {
            (None, _) => "off".into(),
            (Some(_), None) => "on".into(),
            (Some(_), Some(trouble)) => trouble.to_string(),
        };
        Report { state, counts: inner.counts, routers }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Every change is one assignment, so a panic elsewhere leaves nothing half done.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Reads what has arrived, as much as may be.
    fn hear(&mut self, me: &PublicKey) {
        let Some((ear, terms)) = self.ear.clone().zip(self.terms.as_ref()) else { return };
        // One byte more than any has, so that longer ones are seen to be longer.
        let mut buffer = [0; MAX_ANNOUNCEMENT_BYTES + 1];
        let now = clock::now();
        while self.intake.take(now) {
            let (length, from) = match ear.receive(&mut buffer) {
                Ok(Some(received)) => received,
                Ok(None) => return,
                Err(error) => {
                    // The link went. The next announcement looks for it again.
                    (self.ear, self.trouble) = (None, Some(error.into()));
                    return;
                }
            };
            if !ear.link().has(from.ip()) {
                self.counts.off_link = self.counts.off_link.wrapping_add(1);
                continue;
            }
            let announcement = match Announcement::parse(buffer.get(..length).unwrap_or_default()) {
                Ok(announcement) => announcement,
                Err(why) => {
                    self.counts.malformed = self.counts.malformed.wrapping_add(1);
                    static LINES: Sparingly = Sparingly::new();
                    LINES.info(module_path!(), || format!("{from}: not an announcement: {why}"));
                    continue;
                }
            };
            let (key, name) = (announcement.public_key, announcement.name.clone());
            match self.table.hear(now, me, from, announcement) {
                Kept::Own => continue,
                Kept::Again => {}
                Kept::New => {
                    self.schedule.answer(now, random());
                    if !terms.known.contains(&key) {
                        static LINES: Sparingly = Sparingly::new();
                        LINES.info(module_path!(), || {
                            let key = fingerprint_of(&key);
                            format!("{}: a router that calls itself {name}, with key {key}", from.ip())
                        });
                    }
                }
                Kept::AddressFull | Kept::Full => self.counts.not_kept = self.counts.not_kept.wrapping_add(1),
            }
            self.counts.heard = self.counts.heard.wrapping_add(1);
        }
    }

    fn announce(&mut self, me: &PublicKey) {
        let trouble = self.say(me).err();
        self.tell(trouble);
        self.schedule.announced(clock::now(), random());
    }

    /// What is in the way now; in the log if that is new.
    fn tell(&mut self, trouble: Option<Trouble>) {
        let words = |trouble: &Option<Trouble>| trouble.as_ref().map(Trouble::to_string);
        if let Some(why) = words(&trouble).filter(|why| words(&self.trouble).as_ref() != Some(why)) {
            log::warn!("this router is not announced to its neighbours: {why}");
        }
        self.trouble = trouble;
    }

    /// Sees to it that we hear; the link, if there is to be one.
    fn listen(&mut self) -> Result<Option<Link>, Trouble> {
        let Some(terms) = &self.terms else { return Ok(None) };
        let link = Link::of(terms.listen.ip()).ok_or(Trouble::NoNetwork(terms.listen))?;
        match &self.ear {
            Some(ear) if *ear.link() == link => ear.join()?,
            _ => self.ear = Some(Arc::new(Ear::open(&link, terms.port)?)),
        }
        Ok(Some(link))
    }

    /// Listens first, then sends: whoever answers is heard.
    fn say(&mut self, me: &PublicKey) -> Result<(), Trouble> {
        let link = self.listen()?;
        let Some((link, terms)) = link.zip(self.terms.as_ref()) else { return Ok(()) };
        let announcement =
            Announcement { public_key: *me, name: terms.name.clone(), port: terms.listen.port() };
        let mut buffer = [0; MAX_ANNOUNCEMENT_BYTES];
        let length = announcement.write(&mut buffer).map_err(io::Error::other)?;
        multicast::send(&link, terms.port, buffer.get(..length).unwrap_or_default())?;
        self.counts.sent = self.counts.sent.wrapping_add(1);
        Ok(())
    }
}

fn host_name() -> Name {
    Name::from_host(&std::fs::read_to_string(HOST_NAME).unwrap_or_default())
}

/// For spreading announcements; if there is no randomness, they are not spread.
fn random() -> u32 {
    getrandom::u32().unwrap_or(0)
}
