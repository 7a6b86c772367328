//! The trust records of the configured peers over restarts: in memory, and rarely in a small file in `state_dir`. Not
//! responsible for what follows from a record ([`bamqp_core::trust`]) nor for what a line of the file looks like
//! ([`mod@file`]).
//!
//! Flash wears, so what changed is written at most every [`SAVE_EVERY`] and at stop; only a violation and the owner's
//! `forget` are written at once. A power cut costs at most that; never a bar, which can only last longer. The file is
//! replaced as a whole, so a power cut while it is written leaves the one before.

pub mod file;

use core::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bamqp_core::message::Fingerprint;
use bamqp_core::trust::{Alert, Conduct, Moment, ONE, Scores, Standing, Transaction, Violation};

use self::file::{Saved, State};
use crate::clock;
use crate::config::Config;
use crate::keys;

/// Between two writes of what changed.
pub const SAVE_EVERY: Duration = Duration::from_secs(10 * 60);

/// Between two writes of nothing but how long the daemon has run, while somebody is barred or accused.
pub const SAVE_RUNNING_EVERY: Duration = Duration::from_secs(60 * 60);

/// How long measuring a peer's rate again would teach nothing.
pub const FRESH: Duration = Duration::from_secs(10 * 60);

/// The file's name in `state_dir`.
pub const FILE: &str = "trust";

/// What the clocks say.
#[derive(Clone, Copy, Debug)]
pub struct Reading {
    /// Seconds since the router's boot.
    pub uptime: u32,
    /// Seconds since 1970, if the clock was set.
    pub clock: Option<u32>,
}

impl Reading {
    /// The system's.
    pub fn of_system() -> Self {
        Self { uptime: saturated(clock::uptime()), clock: clock::set_clock().map(saturated) }
    }
}

fn saturated(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// The records of all configured peers.
#[derive(Debug)]
pub struct TrustStore {
    /// `None` if there is nowhere to keep it.
    file: Option<PathBuf>,
    read: fn() -> Reading,
    boot: u32,
    boot_id: String,
    /// The uptime when the store was opened, and how long the daemon had run before.
    opened: u32,
    ran: u32,
    inner: Mutex<Inner>,
    /// Held while the file is written, so that an older state never replaces a newer one. Without `inner`, so that no
    /// session waits for the flash.
    saving: Mutex<()>,
}

#[derive(Debug)]
struct Inner {
    peers: Vec<Peer>,
    has_changed: bool,
    /// When it was written last, in seconds of running time.
    saved: u32,
}

#[derive(Debug)]
struct Peer {
    name: String,
    saved: Saved,
    /// The uptime when its rate was measured last, if that was in this run.
    measured: Option<u32>,
}

/// What earlier sessions say about the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prospect {
    /// How far the peer is trusted.
    pub standing: Standing,
    /// How well it worked, in thousandths.
    pub reliability: u32,
    /// Bytes per second that the last session measured.
    pub rate: Option<u64>,
    /// Whether that was less than [`FRESH`] ago.
    pub is_fresh: bool,
}

impl Default for Prospect {
    /// Of one that nothing is known of.
    fn default() -> Self {
        Self { standing: Standing::Newcomer { clean: 0 }, reliability: ONE, rate: None, is_fresh: false }
    }
}

/// What is remembered of a peer, for people.
#[derive(Clone, Debug)]
pub struct TrustView {
    /// Its name in the configuration.
    pub name: String,
    /// Its key.
    pub key: Fingerprint,
    /// Its address in the configuration.
    pub address: SocketAddr,
    /// How far it is trusted.
    pub standing: Standing,
    /// T and U.
    pub scores: Scores,
    /// The last violation, and how many seconds of running time ago.
    pub violation: Option<(Violation, u32)>,
    /// The accusation that has effect, and how many seconds of running time ago.
    pub alert: Option<(Alert, u32)>,
    /// The last sessions, each with its age in seconds, if anybody can tell.
    pub recent: Vec<(Option<u32>, Transaction)>,
}

impl TrustStore {
    /// Reads what is known of the peers of `config`. What can't be read is told in the log; the peers are newcomers
    /// then.
    pub fn open(config: &Config) -> TrustStore {
        Self::open_with(config, &clock::boot_id(), Reading::of_system)
    }

    /// The same under clocks of the caller's choice.
    pub fn open_with(config: &Config, boot_id: &str, read: fn() -> Reading) -> TrustStore {
        let file = config.state_dir.is_dir().then(|| config.state_dir.join(FILE));
        if file.is_none() && !config.peers.is_empty() {
            log::warn!("no state_dir {}: a restart will forget whom to trust", config.state_dir.display());
        }
        let (state, found) = file.as_deref().map(file::load).unwrap_or_default();
        let is_same_boot = !boot_id.is_empty() && state.boot_id == boot_id;
        let peers = config.peers.iter().map(|peer| {
            let key = keys::fingerprint_of(&peer.public_key);
            let known = found.iter().find(|saved| saved.key == key).cloned();
            let saved =
                Saved { address: peer.address, ..known.unwrap_or_else(|| Saved::new(key, peer.address)) };
            Peer { name: peer.name.clone(), saved, measured: None }
        });
        TrustStore {
            file,
            read,
            boot: if is_same_boot { state.boot } else { state.boot.saturating_add(1) },
            boot_id: boot_id.into(),
            opened: read().uptime,
            ran: state.running,
            inner: Mutex::new(Inner { peers: peers.collect(), has_changed: false, saved: state.running }),
            saving: Mutex::new(()),
        }
    }

    /// The configuration has other peers now. Of one that was there before, what is known is kept.
    pub fn renew(&self, peers: &[crate::config::Peer]) {
        let mut inner = self.lock();
        let mut known = core::mem::take(&mut inner.peers);
        for peer in peers {
            let key = keys::fingerprint_of(&peer.public_key);
            let place = known.iter().position(|old| old.saved.key == key);
            let mut entry = place.map(|place| known.swap_remove(place)).unwrap_or_else(|| Peer {
                name: String::new(),
                saved: Saved::new(key, peer.address),
                measured: None,
            });
            (entry.name, entry.saved.address) = (peer.name.clone(), peer.address);
            inner.peers.push(entry);
        }
        inner.has_changed |= !known.is_empty();
    }

    /// The time, as trust counts it.
    pub fn now(&self) -> Moment {
        let Reading { uptime, clock } = (self.read)();
        let running = self.ran.saturating_add(uptime.saturating_sub(self.opened));
        Moment { boot: self.boot, uptime, running, clock }
    }

    /// How far the router with this key is trusted. One that is not configured is a newcomer.
    pub fn standing(&self, key: Fingerprint) -> Standing {
        self.prospect(key).standing
    }

    /// What selection needs to know of the router with this key.
    pub fn prospect(&self, key: Fingerprint) -> Prospect {
        let now = self.now();
        let mut inner = self.lock();
        let Some(peer) = inner.of(key) else { return Prospect::default() };
        let age = |at: u32| u64::from(now.uptime.saturating_sub(at));
        Prospect {
            standing: peer.saved.record.standing(now),
            reliability: peer.saved.record.scores(now).reliability,
            rate: peer.saved.rate.map(u64::from),
            is_fresh: peer.measured.is_some_and(|at| age(at) < FRESH.as_secs()),
        }
    }

    /// A session with this router ended, in which it brought `rate` bytes per second. A violation is written down
    /// before this returns.
    pub fn add(&self, key: Fingerprint, conduct: &Conduct, rate: Option<u64>) {
        let now = self.now();
        let violation = {
            let mut inner = self.lock();
            let Some(peer) = inner.of(key) else { return };
            if let Some(rate) = rate {
                peer.saved.rate = Some(saturated(rate));
                peer.measured = Some(now.uptime);
            }
            let violation = peer.saved.record.add(now, conduct);
            if let Some(why) = violation {
                log::warn!("peer {} ({key}) is barred for 12 hours of running time: {why}", peer.name);
            }
            inner.has_changed = true;
            violation
        };
        if violation.is_some() {
            self.save();
        }
    }

    /// The router `by` says that the one with this key lied. Whether it is a peer.
    pub fn accuse(&self, key: Fingerprint, by: Fingerprint) -> bool {
        let now = self.now();
        let mut inner = self.lock();
        let Some(peer) = inner.of(key) else { return false };
        // Not each time: a coordinator may say so as often as it likes.
        if peer.saved.record.alert(now).is_none_or(|alert| alert.by != Some(by)) {
            log::info!(
                "router {by} says that peer {} lied: it is checked more closely for 12 hours",
                peer.name
            );
        }
        peer.saved.record.accuse(now, by);
        inner.has_changed = true;
        true
    }

    /// The owner wants the peer of this name or key to begin anew. Its name, if there is one.
    pub fn forget(&self, peer: &str) -> Option<String> {
        let name = {
            let mut inner = self.lock();
            let wanted = |other: &&mut Peer| other.name == peer || other.saved.key.to_string() == peer;
            let found = inner.peers.iter_mut().find(wanted)?;
            found.saved = Saved::new(found.saved.key, found.saved.address);
            let name = found.name.clone();
            inner.has_changed = true;
            name
        };
        log::info!("peer {name}: its record is forgotten, as the owner wishes");
        self.save();
        Some(name)
    }

    /// All records, for people.
    pub fn views(&self) -> Vec<TrustView> {
        let now = self.now();
        let ago = |then: u32| now.running.saturating_sub(then);
        let view = |peer: &Peer| {
            let record = &peer.saved.record;
            TrustView {
                name: peer.name.clone(),
                key: peer.saved.key,
                address: peer.saved.address,
                standing: record.standing(now),
                scores: record.scores(now),
                violation: record.violation.map(|(why, at)| (why, ago(at))),
                alert: record.alert(now).map(|alert| (alert, ago(alert.at))),
                recent: record.recent.iter().map(|one| (one.at.age(now), *one)).collect(),
            }
        };
        self.lock().peers.iter().map(view).collect()
    }

    /// Writes the file if it is time to; to be called every now and then.
    pub fn tick(&self) {
        let now = self.now();
        let is_time = {
            let inner = self.lock();
            let age = u64::from(now.running.saturating_sub(inner.saved));
            let is_timed = || inner.peers.iter().any(|peer| peer.saved.record.is_timed(now));
            (inner.has_changed && age >= SAVE_EVERY.as_secs())
                || (age >= SAVE_RUNNING_EVERY.as_secs() && is_timed())
        };
        if is_time {
            self.save();
        }
    }

    /// The daemon ends: writes what is new.
    pub fn close(&self) {
        let now = self.now();
        let is_wanted = {
            let inner = self.lock();
            inner.has_changed || inner.peers.iter().any(|peer| peer.saved.record.is_timed(now))
        };
        if is_wanted {
            self.save();
        }
    }

    fn save(&self) {
        let Some(path) = &self.file else { return };
        let _saving = self.saving.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.now();
        let text = {
            let mut inner = self.lock();
            inner.has_changed = false;
            inner.saved = now.running;
            let state = State { boot: self.boot, boot_id: self.boot_id.clone(), running: now.running };
            file::text(&state, inner.peers.iter().map(|peer| &peer.saved))
        };
        if let Err(error) = crate::replace::private(path, &text) {
            log::warn!("{}: {error}; trying again later", path.display());
            self.lock().has_changed = true;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Every change is one call, so a panic elsewhere leaves nothing half done.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn of(&mut self, key: Fingerprint) -> Option<&mut Peer> {
        self.peers.iter_mut().find(|peer| peer.saved.key == key)
    }
}
