//! How much memory the daemon may come to take, decided at its start: how many connections and downloads there may be
//! at a time, and how large their sockets' buffers are. Not responsible for keeping to it: each limit is kept where its
//! things are counted (`seats`, [`crate::status::Sessions`], [`crate::serve`], [`crate::live`]).
//!
//! What the owner has set is kept to, or the daemon does not start. What is left open is as much as fits: small devices
//! get fewer downloads at a time first, then fewer connections, then smaller socket buffers.

use core::fmt;
use std::fs;

use bamqp_core::limits::MAX_PEER_HEAD_BYTES;
use bamqp_core::select::MAX_PEERS;

use crate::config::Config;

/// Most clients' connections, pooled downloads, and downloads of other routers at a time, if the owner does not say.
pub const DEFAULT_COUNTS: Counts = Counts { clients: 64, sessions: 4, peer_sessions: 8 };

/// Where memory is small: the least number of clients' connections, with the bytes of each socket's buffers, in the order
/// in which they are tried. 128 KiB are what a 25 Mbit/s link holds at 40 ms (DESIGN section 5, rule 3); a household's
/// browsers do with 33 connections, but not well with 8.
const SMALL: [(u16, usize); 3] = [(33, 128 * 1024), (33, 64 * 1024), (8, 32 * 1024)];

/// What is counted for a socket where the kernel decides.
const UNBOUNDED_BUFFER: usize = 256 * 1024;

/// Where the kernel gives all TCP sockets together less than this, a single one must not grow as it likes. (2.4 MB on
/// devices with 32 MB; on larger ones its own rule is the better one.)
const SMALL_SOCKET_MEMORY: u64 = 4 << 20;

/// The program with its fixed threads, and what it takes once: idle, it is below this (DESIGN section 8).
const PROGRAM: u64 = 512 * 1024;
/// A thread: its kernel stack of 8 KiB, and what it touches of its own.
const THREAD: u64 = 16 * 1024;
/// A client's connection: its thread, and its heads as far as they are long (DESIGN section 8). At most 80 KiB while they
/// are handed on; the half of the memory that is left alone is for that, too.
const CLIENT: u64 = THREAD + 8 * 1024;
/// Of a client's sockets what is full at a time: its link is faster than the one to the internet.
const CLIENT_SOCKETS: u64 = 8 * 1024;
/// A pooled download besides its window: the state machine.
const SESSION: u64 = size_of::<crate::session::Session>() as u64;
/// A lane: its thread, and heads on two connections.
const LANE: u64 = THREAD + 4 * MAX_PEER_HEAD_BYTES as u64;
/// A connection of another router: its thread and heads.
const PEER_CONNECTION: u64 = THREAD + 2 * MAX_PEER_HEAD_BYTES as u64;
/// What a download of another router takes: the buffer in which its bytes are hashed, heads, the session.
const PEER_SESSION: u64 = 32 * 1024 + 3 * MAX_PEER_HEAD_BYTES as u64;
/// A configured router: its keeper's thread, keys, trust record.
const PEER: u64 = THREAD + 8 * 1024;
/// Threads besides: main, signals, accept, control, log, uplink.
const OTHER_THREADS: u64 = 6;

/// How much there may be at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    /// Clients' connections.
    pub clients: u16,
    /// Pooled downloads of this household.
    pub sessions: u16,
    /// Downloads of other routers.
    pub peer_sessions: u16,
}

/// What the system says of its memory, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// What can be taken without swapping; `None` if it does not say.
    pub available: Option<u64>,
    /// What all TCP sockets may take together; `None` if it does not say.
    pub sockets: Option<u64>,
}

impl Memory {
    /// The system's, now. What this process holds already counts as available to it.
    pub fn of_system() -> Memory {
        let number = |text: &str| text.trim().trim_end_matches(" kB").parse::<u64>().ok();
        let of = |file: &str, key: &str| {
            let text = fs::read_to_string(file).ok()?;
            number(text.lines().find_map(|line| line.strip_prefix(key))?).map(|kib| kib * 1024)
        };
        let resident = of("/proc/self/status", "VmRSS:").unwrap_or(0);
        let pages = fs::read_to_string("/proc/sys/net/ipv4/tcp_mem").ok();
        let most = pages.and_then(|text| text.split_whitespace().nth(2).and_then(number));
        Memory {
            available: of("/proc/meminfo", "MemAvailable:").map(|bytes| bytes + resident),
            sockets: most.map(|pages| pages.saturating_mul(rustix::param::page_size() as u64)),
        }
    }
}

/// What was decided, with what each part takes at most, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// How much there may be at a time.
    pub counts: Counts,
    /// Bytes of each socket's buffers; `None`: the kernel decides.
    pub buffer: Option<usize>,
    /// The program, its fixed threads, and what is kept of every configured router.
    pub program: u64,
    /// Pooled downloads: windows, state, lanes.
    pub downloads: u64,
    /// Clients' connections.
    pub clients: u64,
    /// Connections and downloads of other routers.
    pub peers: u64,
    /// What the kernel holds in sockets.
    pub sockets: u64,
    /// Half of what was available; `None` if the system does not say.
    pub allowed: Option<u64>,
    /// Most threads at a time.
    pub threads: usize,
}

impl Budget {
    /// Decides for a configuration.
    ///
    /// # Errors
    /// If even the least does not fit into half of the available memory.
    pub fn decide(config: &Config, memory: &Memory) -> Result<Budget, TooLarge> {
        let set = Counts {
            clients: config.max_clients.unwrap_or(DEFAULT_COUNTS.clients),
            sessions: config.max_sessions.unwrap_or(DEFAULT_COUNTS.sessions),
            peer_sessions: config.max_peer_sessions.unwrap_or(DEFAULT_COUNTS.peer_sessions),
        };
        let is_small = memory.sockets.is_some_and(|bytes| bytes < SMALL_SOCKET_MEMORY);
        let mut counts = set;
        // The kernel takes twice what is set, and where all sockets together have their memory full it drops what comes in:
        // then lanes look silent and are given up. One download must not get there by itself.
        let sockets = 2 * (lanes(config) + 1);
        let is_modest =
            |(_, bytes): &(u16, usize)| memory.sockets.is_none_or(|most| sockets * *bytes as u64 <= most);
        let first = SMALL.iter().position(is_modest).unwrap_or(SMALL.len() - 1);
        let mut steps = SMALL.iter().skip(first);
        let mut step = steps.next();
        let mut buffer = if is_small { step.map(|(_, buffer)| *buffer) } else { None };
        loop {
            let budget = Budget::of(config, memory, counts, buffer);
            if budget.fits() {
                return Ok(budget);
            }
            let least_clients = step.map_or(0, |(clients, _)| *clients);
            if config.max_sessions.is_none() && counts.sessions > 1 {
                counts.sessions -= 1;
            } else if config.max_peer_sessions.is_none() && counts.peer_sessions > 1 {
                counts.peer_sessions -= 1;
            } else if config.max_clients.is_none() && counts.clients > least_clients {
                counts.clients -= 1;
            } else {
                step = steps.next();
                let Some((_, smaller)) = step else {
                    return Err(TooLarge { budget, window: config.window.into() });
                };
                buffer = Some(*smaller);
            }
        }
    }

    fn of(config: &Config, memory: &Memory, counts: Counts, buffer: Option<usize>) -> Budget {
        let peers = config.peers.len() as u64;
        let Counts { clients, sessions, peer_sessions } = counts;
        let (clients, sessions, peer_sessions) =
            (u64::from(clients), u64::from(sessions), u64::from(peer_sessions));
        let lanes = lanes(config);
        let (has_downloads, is_peer) = (peers > 0, config.peer_listen.is_some());
        let (sessions, peer_sessions) =
            (if has_downloads { sessions } else { 0 }, if is_peer { peer_sessions } else { 0 });
        let connections =
            if is_peer { peer_connections(config.peers.len(), counts.peer_sessions) } else { 0 };
        let full = sessions * (lanes + 1) + peer_sessions;
        let buffered =
            full.saturating_mul(buffer.unwrap_or(UNBOUNDED_BUFFER) as u64) + clients * CLIENT_SOCKETS;
        // A client's connection may look up a name beside; lanes take leave of their peers while the next download begins.
        let leaving = crate::seats::MAX_LEAVING as u64;
        let threads =
            OTHER_THREADS + peers + 2 * (clients + leaving) + 2 * sessions * lanes + connections as u64;
        Budget {
            counts,
            buffer,
            program: PROGRAM + peers * PEER,
            downloads: sessions.saturating_mul(u64::from(config.window) + SESSION + lanes * LANE),
            clients: clients * CLIENT,
            peers: connections as u64 * PEER_CONNECTION + peer_sessions * PEER_SESSION,
            sockets: memory.sockets.map_or(buffered, |most| most.min(buffered)),
            allowed: memory.available.map(|available| available / 2),
            threads: usize::try_from(threads).unwrap_or(usize::MAX),
        }
    }

    /// All of it together.
    pub fn total(&self) -> u64 {
        [self.program, self.downloads, self.clients, self.peers, self.sockets]
            .into_iter()
            .fold(0, u64::saturating_add)
    }

    fn fits(&self) -> bool {
        self.allowed.is_none_or(|allowed| self.total() <= allowed)
    }
}

/// Lanes of one download: the original response, another of the own link, and one for each peer.
fn lanes(config: &Config) -> u64 {
    config.peers.len().min(MAX_PEERS) as u64 + 2
}

/// Most connections of `peers` configured routers with `sessions` downloads at a time: for each router the one that it
/// keeps and another, two for each download; and those of strangers.
pub fn peer_connections(peers: usize, sessions: u16) -> usize {
    2 * peers + 2 * usize::from(sessions) + usize::from(crate::serve::MAX_STRANGERS)
}

/// The configuration takes more than half of the available memory, whatever is left open in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLarge {
    /// The least that it would take.
    pub budget: Budget,
    window: u64,
}

impl fmt::Display for TooLarge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Budget { counts, .. } = self.budget;
        let parts = [
            (self.budget.downloads, "window or max_sessions"),
            (self.budget.clients, "max_clients"),
            (self.budget.peers, "max_peer_sessions"),
            (self.budget.sockets, "max_sessions or max_peer_sessions"),
        ];
        let (_, what) = parts.into_iter().max_by_key(|(bytes, _)| *bytes).unwrap_or((0, "window"));
        write!(
            f,
            "not enough memory: {} KiB would be needed, half of what is available is {} KiB; lower {what} (window is \
             {}K, max_sessions {}, max_clients {}, max_peer_sessions {}), or free some memory",
            self.budget.total() / 1024,
            self.budget.allowed.unwrap_or(0) / 1024,
            self.window / 1024,
            counts.sessions,
            counts.clients,
            counts.peer_sessions
        )
    }
}

impl core::error::Error for TooLarge {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Peer;

    const MIB: u64 = 1 << 20;

    fn config(peers: u8) -> Config {
        let peer =
            |n: u8| Peer { name: n.to_string(), address: ([10, 0, 0, n], 7733).into(), public_key: [n; 32] };
        Config {
            peer_listen: Some(([10, 0, 0, 100], 7733).into()),
            peers: (0..peers).map(peer).collect(),
            ..Config::default()
        }
    }

    fn memory(available_kib: u64, sockets_kib: u64) -> Memory {
        Memory { available: Some(available_kib * 1024), sockets: Some(sockets_kib * 1024) }
    }

    #[test]
    fn large_machines_get_everything_and_the_kernel_decides_on_buffers() {
        let budget = Budget::decide(&config(4), &memory(200 * 1024, 100 * 1024)).unwrap();
        assert_eq!((budget.counts, budget.buffer), (DEFAULT_COUNTS, None));
        let nothing_known = Memory { available: None, sockets: None };
        assert_eq!(Budget::decide(&config(4), &nothing_known).unwrap().counts, DEFAULT_COUNTS);
    }

    /// What the feed's users have measured on devices with 32 MB, and our emulated machine.
    #[test]
    fn devices_with_32_mb_start_with_the_defaults_and_a_window_of_1_mib() {
        for (available, sockets) in [(6_100, 2_400), (7_600, 1_200), (8_500, 1_200), (11_500, 2_400)] {
            for peers in [1, 4] {
                let budget = Budget::decide(&config(peers), &memory(available, sockets)).unwrap();
                assert!(budget.total() <= available * 1024 / 2, "{budget:?}");
                assert!(budget.counts.sessions >= 1 && budget.downloads >= MIB, "{budget:?}");
                assert!(budget.counts.clients >= 8 && budget.buffer.is_some_and(|b| b >= 32 * 1024));
            }
        }
        let emulated = Budget::decide(&config(4), &memory(7_600, 1_200)).unwrap();
        assert!(emulated.counts.clients >= 33, "{emulated:?}");
        let roomier = Budget::decide(&config(4), &memory(11_500, 2_400)).unwrap();
        assert!(roomier.counts.clients >= 32, "{roomier:?}");
    }

    #[test]
    fn one_download_does_not_fill_the_memory_of_all_sockets() {
        for (peers, sockets_kib, buffer_kib) in
            [(3, 1_200, 64), (3, 2_400, 128), (1, 1_200, 128), (8, 600, 32)]
        {
            let budget = Budget::decide(&config(peers), &memory(11_500, sockets_kib)).unwrap();
            assert_eq!(budget.buffer, Some(buffer_kib * 1024), "{peers} peers, {sockets_kib} KiB");
        }
    }

    #[test]
    fn what_the_owner_has_set_is_kept_to_or_refused_with_what_to_change() {
        let small = memory(7_600, 1_200);
        let set = Config { max_sessions: Some(2), max_clients: Some(20), ..config(2) };
        let set = Config { window: 512 * 1024, ..set };
        let budget = Budget::decide(&set, &small).unwrap();
        assert_eq!((budget.counts.sessions, budget.counts.clients), (2, 20));
        let why = |config: Config| Budget::decide(&config, &small).unwrap_err().to_string();
        let large = why(Config { window: 4 << 20, ..config(2) });
        assert!(large.contains("lower window or max_sessions (window is 4096K"), "{large}");
        assert!(large.contains("half of what is available is 3800 KiB"), "{large}");
        assert!(why(Config { max_clients: Some(500), ..config(2) }).contains("lower max_clients ("));
        assert!(
            why(Config { max_peer_sessions: Some(99), ..config(2) }).contains("lower max_peer_sessions (")
        );
    }

    #[test]
    fn a_mere_proxy_takes_no_memory_for_peers() {
        let budget = Budget::decide(&Config::default(), &memory(100_000, 50_000)).unwrap();
        assert_eq!((budget.downloads, budget.peers), (0, 0));
    }

    #[test]
    fn the_system_tells() {
        let memory = Memory::of_system();
        assert!(memory.available.is_some_and(|bytes| bytes > MIB), "{memory:?}");
    }
}
