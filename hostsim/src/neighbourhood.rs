//! A neighbourhood on loopback: a fresh /16, an origin behind paced links, and a real daemon for each router.
//! Router N lives at 127.b.N.1, the origin at 127.b.255.1. Not responsible for downloads or for when faults
//! happen.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use bamqp_core::channel::Refusal;
use bamqp_core::trust::{Conduct, PROBATION};
use bamqp_router::config::{Config, Helping, Peer};
use bamqp_router::daemon::Daemon;
use bamqp_router::keys::{KeyPair, PublicKey};
use bamqp_router::peers::PeerView;
use bamqp_router::status::SessionReport;
use bamqp_router::trust_store::TrustStore;

use crate::answer::LIE;
use crate::args::{LinkOptions, Options};
use crate::fault::{Fault, router_name, variant_of};
use crate::household::{self, Household, Meter};
use crate::link::Link;
use crate::origin::{Misdeed, Origin, Rules};

/// How many /16s are tried before the machine is called full.
const TRIES: u64 = 20;

/// The ports of one run, the same on all its addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ports {
    origin: u16,
    clients: u16,
    peers: u16,
}

/// The addresses of one run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    second: u8,
    ports: Ports,
}

impl Place {
    /// The `attempt`-th candidate of `seed`; later ones use other ports too, in case that a server on this
    /// machine listens on all addresses.
    fn candidate(seed: u64, attempt: u64) -> Place {
        let second = 16 + (mix(seed.wrapping_add(attempt)) % 224) as u8;
        let shift = attempt as u16 * 10;
        Place { second, ports: Ports { origin: 8080 + shift, clients: 3128 + shift, peers: 7733 + shift } }
    }

    fn router(&self, number: usize) -> IpAddr {
        let third = u8::try_from(number).unwrap_or(u8::MAX);
        Ipv4Addr::new(127, self.second, third, 1).into()
    }

    fn origin(&self) -> SocketAddr {
        SocketAddr::new(Ipv4Addr::new(127, self.second, 255, 1).into(), self.ports.origin)
    }

    /// Whether every listener of a run with `routers` routers can be opened.
    fn is_free(&self, routers: usize) -> bool {
        let mut wanted = vec![self.origin()];
        for number in 0..routers {
            wanted.push(SocketAddr::new(self.router(number), self.ports.clients));
            wanted.push(SocketAddr::new(self.router(number), self.ports.peers));
        }
        wanted.iter().map(TcpListener::bind).collect::<io::Result<Vec<_>>>().is_ok()
    }
}

/// A neighbourhood whose origin runs; routers come and go.
pub struct Neighbourhood {
    place: Place,
    links: Vec<LinkOptions>,
    window: Option<u32>,
    keys: Vec<KeyPair>,
    /// Directory of what routers may write; gone in the end.
    files: PathBuf,
    origin: Arc<Origin>,
    /// What each router's line has brought, as its kernel would count it.
    meter: Meter,
    /// Those that were woken up.
    households: Mutex<Vec<(usize, Household)>>,
    /// By number; the coordinator is 0.
    daemons: Mutex<Vec<Option<Daemon>>>,
}

impl Neighbourhood {
    /// Finds free addresses and starts the origin with `bytes`. The error is a line for the user.
    pub fn start(options: &Options, seed: u64, bytes: Arc<[u8]>) -> Result<Neighbourhood, String> {
        let routers = options.links.len();
        let place = (0..TRIES)
            .map(|attempt| Place::candidate(seed ^ (u64::from(std::process::id()) << 32), attempt))
            .find(|place| place.is_free(routers))
            .ok_or("no free loopback addresses: are the ports 3128, 7733 and 8080 taken on all of them?")?;
        let links = options.links.iter().enumerate();
        let links = links.map(|(number, link)| (place.router(number), Link::new(link.rate(), link.rtt)));
        let origin = Origin::start(place.origin(), bytes, links)
            .map_err(|error| format!("the origin can't listen on {}: {error}", place.origin()))?;
        let origin = Arc::new(origin);
        let files = std::env::temp_dir().join(format!("hostsim-{}-{}", std::process::id(), place.second));
        let meter = Meter::start(&files, (0..routers).map(|number| place.router(number)), origin.clone())
            .map_err(|error| format!("{}: {error}", files.display()))?;
        let keys = (0..routers).map(|number| key(seed, number)).collect();
        Ok(Neighbourhood {
            place,
            links: options.links.clone(),
            window: options.window,
            keys,
            files,
            origin,
            meter,
            households: Mutex::default(),
            daemons: Mutex::new((0..routers).map(|_| None).collect()),
        })
    }

    /// Where the client finds the coordinator.
    pub fn proxy(&self) -> SocketAddr {
        self.proxy_of(0)
    }

    /// Where the household of router `number` finds it.
    pub fn proxy_of(&self, number: usize) -> SocketAddr {
        SocketAddr::new(self.place.router(number), self.place.ports.clients)
    }

    /// The URL of the file; another one for each `name`, the bytes are the same.
    pub fn url(&self, name: &str) -> String {
        format!("http://{}/{name}", self.place.origin())
    }

    /// The network of this run, e.g. `127.99.0.0/16`.
    pub fn network(&self) -> String {
        format!("127.{}.0.0/16", self.place.second)
    }

    /// The origin of this run.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// The configuration that a user would write for router `number` who knows the `peers`.
    fn config(&self, number: usize, peers: impl IntoIterator<Item = usize>) -> Result<Config, String> {
        let files = self.files.join(router_name(number));
        let network = self.network().parse().map_err(|_| "the run's own network is none".to_owned())?;
        let address = self.place.router(number);
        let peer = |peer: usize| {
            let public_key = *self.keys.get(peer)?.public();
            let address = SocketAddr::new(self.place.router(peer), self.place.ports.peers);
            Some(Peer { name: router_name(peer), address, public_key })
        };
        let defaults = Config::default();
        Ok(Config {
            listen: vec![SocketAddr::new(address, self.place.ports.clients)],
            peer_listen: Some(SocketAddr::new(address, self.place.ports.peers)),
            wan_address: Some(address),
            key: files.join("key"),
            state_dir: files.clone(),
            log_dir: files,
            window: self.window.unwrap_or(defaults.window),
            allow_private: vec![network],
            fetch_ports: vec![self.place.ports.origin],
            bandwidth: self.links.get(number).map_or(0, |link| link.rate() * 8),
            peers: peers.into_iter().filter_map(peer).collect(),
            helping: Helping {
                wan_interface: Some(household::INTERFACE.into()),
                wan_counters: self.meter.file(number),
                ..Helping::default()
            },
            ..defaults
        })
    }

    /// Starts router `number` with `peers`.
    pub fn start_router(&self, number: usize, peers: impl IntoIterator<Item = usize>) -> Result<(), String> {
        let config = self.config(number, peers)?;
        std::fs::create_dir_all(&config.state_dir)
            .map_err(|error| format!("{}: {error}", config.state_dir.display()))?;
        let key = self.keys.get(number).cloned().ok_or("no such router")?;
        let daemon = Daemon::start(config, key)
            .map_err(|error| format!("router {} does not start: {error}", router_name(number)))?;
        if let Some(place) = self.daemons().get_mut(number) {
            *place = Some(daemon);
        }
        Ok(())
    }

    /// Has router `number`, before it starts, remember that all others have served well in three sessions.
    pub fn trust_all(&self, number: usize) -> Result<(), String> {
        let config = self.config(number, 0..self.links.len())?;
        std::fs::create_dir_all(&config.state_dir)
            .map_err(|error| format!("{}: {error}", config.state_dir.display()))?;
        let store = TrustStore::open(&config);
        let served = Conduct { requests: 8, bytes: 8 << 20, ..Conduct::default() };
        for key in self.keys.iter().map(KeyPair::fingerprint) {
            (0..PROBATION).for_each(|_| store.add(key, &served, None));
        }
        store.close();
        Ok(())
    }

    /// What the coordinator has decided about each peer: its name, and the reason. If the last download was not `pooled`,
    /// there was nothing to decide but whether anybody can be asked at all.
    pub fn verdicts(&self, pooled: bool) -> Vec<(String, String)> {
        let daemons = self.daemons();
        let Some(Some(daemon)) = daemons.first() else { return Vec::new() };
        let shared = daemon.shared();
        let said = |view: PeerView| {
            let verdict = match view.verdict.filter(|_| pooled) {
                Some((verdict, _)) => verdict.to_string(),
                None => format!("relayed, nobody was asked ({})", shared.trust.standing(view.key)),
            };
            (view.name, verdict)
        };
        shared.peers.views().into_iter().map(said).collect()
    }

    /// How many routers there may be.
    pub fn routers(&self) -> usize {
        self.links.len()
    }

    /// The public key of router `number`.
    pub fn public_key(&self, number: usize) -> Option<PublicKey> {
        self.keys.get(number).map(|key| *key.public())
    }

    /// Where router `number` listens for others.
    pub fn peer_listener(&self, number: usize) -> SocketAddr {
        SocketAddr::new(self.place.router(number), self.place.ports.peers)
    }

    /// The folder of router `number`'s log.
    pub fn log_dir(&self, number: usize) -> PathBuf {
        self.files.join(router_name(number))
    }

    /// Has router `number` write what waits for its log.
    pub fn flush_log(&self, number: usize) {
        if let Some(Some(daemon)) = self.daemons().get(number)
            && let Some(ledger) = &daemon.shared().ledger
        {
            let _ = ledger.flush(); // what is missing then shows
        }
    }

    /// How many messages router `number` has refused for this; 0 while it does not run.
    pub fn refusals(&self, number: usize, refusal: Refusal) -> u32 {
        let daemons = self.daemons();
        let daemon = daemons.get(number).and_then(Option::as_ref);
        daemon.map_or(0, |daemon| daemon.shared().keyring.report().refused(refusal))
    }

    /// Stops router `number`, if it runs.
    pub fn stop_router(&self, number: usize) {
        let daemon = self.daemons().get_mut(number).and_then(Option::take);
        if let Some(daemon) = daemon {
            daemon.stop();
        }
    }

    /// What router `number` tells of its sessions; none while it does not run.
    pub fn sessions(&self, number: usize) -> Vec<SessionReport> {
        self.daemons().get(number).and_then(Option::as_ref).map(Daemon::sessions).unwrap_or_default()
    }

    /// Makes a timed fault happen.
    pub fn inject(&self, fault: &Fault) {
        match *fault {
            Fault::Kill { router: 0, .. } => self.origin.kill(self.place.router(0)),
            Fault::Kill { router, .. } => self.stop_router(router),
            Fault::Stall { router, .. } => self.origin.change_rate(self.place.router(router), |_| 0),
            Fault::Slow { router, factor, .. } => {
                let slower = |rate: u64| ((rate as f64 * factor) as u64).max(1);
                self.origin.change_rate(self.place.router(router), slower);
            }
            Fault::Busy { router, .. } => self.wake_household(router),
            Fault::Change { .. } => self.origin.change(),
            // These are the origin's rules, not events.
            Fault::CorruptLength { .. } | Fault::WrongRange { .. } => {}
            Fault::OneShot | Fault::PerIpLimit { .. } => {}
            Fault::Lie { .. } | Fault::LieOnce { .. } | Fault::Variant { .. } => {}
        }
    }

    /// Somebody behind router `number` begins to download, until the neighbourhood ends.
    fn wake_household(&self, number: usize) {
        let household = Household::wake(self.place.origin(), self.place.router(number));
        self.households.lock().unwrap_or_else(PoisonError::into_inner).push((number, household));
    }

    /// What part of its line the household of router `number` had from a second after it woke up until now, if it did a
    /// while ago.
    pub fn household_part(&self, number: usize) -> Option<f64> {
        let households = self.households.lock().unwrap_or_else(PoisonError::into_inner);
        let (_, household) = households.iter().find(|(other, _)| *other == number)?;
        Some(household.rate()? / self.links.get(number)?.rate() as f64)
    }

    /// The rules that `faults` make for the origin.
    pub fn rules(&self, faults: &[Fault]) -> Rules {
        let mut rules = Rules::default();
        for fault in faults {
            match *fault {
                Fault::CorruptLength { router } => rules.corrupt_length.push(self.place.router(router)),
                Fault::WrongRange { router } => rules.wrong_range.push(self.place.router(router)),
                Fault::OneShot => rules.one_shot = true,
                Fault::PerIpLimit { connections } => rules.per_ip_limit = Some(connections),
                Fault::Lie { router } => drop(rules.altered.insert(self.place.router(router), LIE)),
                Fault::LieOnce { router } => rules.altered_once.push(self.place.router(router)),
                Fault::Variant { count } => {
                    for router in 1..self.links.len() {
                        let mask = variant_of(router, count) as u8; // there are at most 26 routers
                        rules.altered.entry(self.place.router(router)).or_insert(mask);
                    }
                }
                Fault::Kill { .. } | Fault::Stall { .. } | Fault::Slow { .. } | Fault::Change { .. } => {}
                Fault::Busy { .. } => {}
            }
        }
        rules
    }

    /// How often the origin did what `fault` makes it do; 0 for faults that happen at a moment.
    pub fn done(&self, fault: &Fault) -> u64 {
        let did = |misdeed, router| self.origin.did(misdeed, Some(self.place.router(router)));
        match *fault {
            Fault::CorruptLength { router } => did(Misdeed::CorruptLength, router),
            Fault::WrongRange { router } => did(Misdeed::WrongRange, router),
            Fault::OneShot => self.origin.did(Misdeed::OneShot, None),
            Fault::PerIpLimit { .. } => self.origin.did(Misdeed::PerIpLimit, None),
            Fault::Lie { router } | Fault::LieOnce { router } => did(Misdeed::Altered, router),
            Fault::Variant { .. } => self.origin.did(Misdeed::Altered, None),
            Fault::Kill { .. } | Fault::Stall { .. } | Fault::Slow { .. } | Fault::Change { .. } => 0,
            // Long enough ago to be judged.
            Fault::Busy { router, .. } => self.household_part(router).is_some().into(),
        }
    }

    fn daemons(&self) -> std::sync::MutexGuard<'_, Vec<Option<Daemon>>> {
        // Each statement under this lock leaves the list whole.
        self.daemons.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Neighbourhood {
    fn drop(&mut self) {
        self.households.lock().unwrap_or_else(PoisonError::into_inner).clear();
        (0..self.links.len()).for_each(|number| self.stop_router(number));
        self.meter.stop();
        let _ = std::fs::remove_dir_all(&self.files);
    }
}

/// Router `number`'s key pair, from the seed: runs repeat, and nothing is written anywhere.
fn key(seed: u64, number: usize) -> KeyPair {
    let mut bytes = [0; 32];
    let mut stream = Bytes::new(seed ^ mix(number as u64 + 1));
    bytes.iter_mut().for_each(|byte| *byte = stream.next_byte());
    KeyPair::from_seed(bytes)
}

/// The file of a run: `size` bytes that follow from `seed`.
pub fn generate(seed: u64, size: u64) -> Arc<[u8]> {
    let mut stream = Bytes::new(seed);
    (0..size).map(|_| stream.next_byte()).collect()
}

/// SplitMix64 (Steele, Lea, Flood 2014), byte by byte: for test data, not for secrets.
struct Bytes {
    state: u64,
    word: u64,
    left: u8,
}

impl Bytes {
    fn new(seed: u64) -> Bytes {
        Bytes { state: seed, word: 0, left: 0 }
    }

    fn next_byte(&mut self) -> u8 {
        if self.left == 0 {
            self.word = mix(self.state);
            self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            self.left = 8;
        }
        self.left -= 1;
        let byte = self.word as u8;
        self.word >>= 8;
        byte
    }
}

fn mix(seed: u64) -> u64 {
    let z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_follows_from_the_seed() {
        // SplitMix64's first output for seed 0 is 0xe220a8397b1dcdaf.
        assert_eq!(generate(0, 8)[..], 0xe220_a839_7b1d_cdaf_u64.to_le_bytes());
        assert_eq!(generate(5, 1001)[..1000], generate(5, 1000)[..]);
        assert_ne!(generate(5, 100), generate(6, 100));
    }

    #[test]
    fn a_taken_address_is_not_free() {
        let place = Place::candidate(u64::from(std::process::id()), 0);
        let holder = TcpListener::bind((place.router(1), place.ports.peers)).unwrap();
        assert!(!place.is_free(2));
        drop(holder);
    }
}
