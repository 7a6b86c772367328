//! What the owner of the router wants, read from a UCI file (syntax: [`crate::uci`]): every option, its default
//! and its range. Not responsible for keys or for checking the network.
//!
//! A router with nothing but `listen`, `peer_listen` and its peers works. The commented example that the
//! package installs is `router/openwrt/files/bamqp.config`.

mod helping;

use core::fmt;
use core::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use bamqp_core::address::Network;
use bamqp_core::announce::Name;
use bamqp_core::hops::DEFAULT_MAX_HOPS;
use bamqp_core::limits::SLOT_BYTES;

use crate::discover;
use crate::keys::{PublicKey, base64_decode};
use crate::uci::{Statement, statement};

pub use self::helping::{Helping, Target};

/// Smallest and largest `window`: eight slots, below which lanes wait for each other, and what a session can keep in view
/// (`session::SLOTS`) beside what peers hold.
pub const WINDOW_RANGE: core::ops::RangeInclusive<u32> = 128 * 1024..=12 * 1024 * 1024;

/// Smallest and largest `log_size`: twice the longest entry, and what nobody's flash holds.
pub const LOG_SIZE_RANGE: core::ops::RangeInclusive<u64> = 64 * 1024..=1024 * 1024 * 1024;

/// Where redirected connections arrive if the owner doesn't say.
pub const TRANSPARENT_PORT: u16 = 3129;

/// The whole configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Whether to take part at all. Default: yes; the package's file says no until the owner has read it.
    pub enabled: bool,
    /// Where clients connect. Default: nowhere.
    pub listen: Vec<SocketAddr>,
    /// Whether connections that the firewall redirects here are taken, from clients that know of no proxy. Default: no.
    pub transparent: bool,
    /// Where those arrive. Default: the addresses of `listen`, port [`TRANSPARENT_PORT`].
    pub transparent_listen: Vec<SocketAddr>,
    /// Where other routers connect; also the source address of connections to them. Default: nowhere.
    pub peer_listen: Option<SocketAddr>,
    /// Whether to announce this router on the link of `peer_listen`, and to hear others that do. Default: yes; never if
    /// that is no single address.
    pub discover: bool,
    /// The UDP port for that, the same for all neighbours. Default: [`discover::PORT`].
    pub discover_port: u16,
    /// What this router calls itself there. Default: the host's name.
    pub name: Option<Name>,
    /// Source address of connections to the internet. Default: the system chooses.
    pub wan_address: Option<IpAddr>,
    /// The router's key file. Default: `/etc/bamqp/key`.
    pub key: PathBuf,
    /// Directory of what is to outlast a reboot. Default: `/etc/bamqp`.
    pub state_dir: PathBuf,
    /// Directory of the log, on flash: OpenWrt's `/var` is gone after a reboot. Default: `log` in `state_dir`.
    pub log_dir: PathBuf,
    /// Most bytes of one file of the log, within [`LOG_SIZE_RANGE`]. Default: 256 KiB.
    pub log_size: u64,
    /// Most files of the log; the oldest goes first. Default: 4.
    pub log_files: u16,
    /// Memory for one download's bytes; whole slots, within [`WINDOW_RANGE`]. Default: 1 MiB.
    pub window: u32,
    /// Smallest download that is pooled, in bytes. Default: 1 MiB.
    pub min_size: u64,
    /// Ranges that may be fetched from although they are not public: labs only. Default: none.
    pub allow_private: Vec<Network>,
    /// Who may use the proxy. Default: [`LAN`], without the network of the neighbours' routers.
    pub allow_client: Vec<Network>,
    /// Ports of origins that this router fetches from for peers. Default: 80 and 443.
    pub fetch_ports: Vec<u16>,
    /// Ports that clients may reach by CONNECT. Default: 443.
    pub connect_ports: Vec<u16>,
    /// What the link carries, in bits per second; 0: to be found out. Default: 0.
    pub bandwidth: u64,
    /// Most clients' connections at a time. Default: 64, or fewer where memory is small ([`crate::budget`]).
    pub max_clients: Option<u16>,
    /// Most downloads pooled at a time. Default: 4, or fewer.
    pub max_sessions: Option<u16>,
    /// Most downloads of other routers that this one works for at a time. Default: 8, or fewer.
    pub max_peer_sessions: Option<u16>,
    /// How many routers away from a coordinator work may be done: with 1 only for those whose clients wait, with 2 also for
    /// their peers' peers, so that our own peers are asked to help. 1 to 8. Default: 2.
    pub max_hops: u8,
    /// What the own link brings so fast that no help is wanted, in bits per second; 0: help is always wanted. Default: 0.
    pub fast_enough: u64,
    /// How much this router helps others.
    pub helping: Helping,
    /// The other routers.
    pub peers: Vec<Peer>,
}

/// Another router that this one works with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// What the owner calls it.
    pub name: String,
    /// Its `peer_listen`.
    pub address: SocketAddr,
    /// Its public key, in the file as base64.
    pub public_key: PublicKey,
}

/// Who may use the proxy if the owner doesn't say: private, loopback and link-local addresses.
pub const LAN: [&str; 8] = [
    "10.0.0.0/8",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "::1/128",
    "fc00::/7",
    "fe80::/10",
];

impl Default for Config {
    fn default() -> Self {
        Self {
            enabled: true,
            listen: Vec::new(),
            transparent: false,
            transparent_listen: Vec::new(),
            peer_listen: None,
            discover: true,
            discover_port: discover::PORT,
            name: None,
            wan_address: None,
            key: "/etc/bamqp/key".into(),
            state_dir: "/etc/bamqp".into(),
            log_dir: "/etc/bamqp/log".into(),
            log_size: 256 * 1024,
            log_files: 4,
            window: 1024 * 1024,
            min_size: 1024 * 1024,
            allow_private: Vec::new(),
            allow_client: LAN.iter().filter_map(|range| range.parse().ok()).collect(),
            fetch_ports: vec![80, 443],
            connect_ports: vec![443],
            bandwidth: 0,
            max_clients: None,
            max_sessions: None,
            max_peer_sessions: None,
            max_hops: DEFAULT_MAX_HOPS,
            fast_enough: 0,
            helping: Helping::default(),
            peers: Vec::new(),
        }
    }
}

/// Why a file is no configuration: shown as one line with the place and what was expected there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    file: PathBuf,
    /// Line, counted from 1; `None` if the file as a whole is meant.
    line: Option<usize>,
    what: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        self.line.map_or(Ok(()), |line| write!(f, ":{line}"))?;
        write!(f, ": {}", self.what)
    }
}

impl core::error::Error for ConfigError {}

impl Config {
    /// The routers that are asked for help, and helped. Who closes the port for them opts out of both.
    pub fn partners(&self) -> &[Peer] {
        if self.peer_listen.is_some() { &self.peers } else { &[] }
    }

    /// Where to listen for redirected connections: nowhere unless `transparent` says so.
    pub fn transparent_listen(&self) -> &[SocketAddr] {
        if self.transparent { &self.transparent_listen } else { &[] }
    }

    /// Reads a file.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn load(file: &Path) -> Result<Self, ConfigError> {
        match std::fs::read_to_string(file) {
            Ok(text) => Self::parse(&text, file),
            Err(error) => Err(ConfigError { file: file.into(), line: None, what: error.to_string() }),
        }
    }

    /// Reads a file's text; `file` is what errors call it.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn parse(text: &str, file: &Path) -> Result<Self, ConfigError> {
        parse(text).map_err(|(line, what)| ConfigError {
            file: file.into(),
            line: (line > 0).then_some(line),
            what,
        })
    }
}

/// A line number (0: none) and what was expected there.
type Complaint = (usize, String);

/// A section as it stands in the file. Options are taken out as they are understood; what is left is unknown.
struct Section {
    kind: String,
    name: Option<String>,
    line: usize,
    values: Vec<Value>,
}

struct Value {
    key: String,
    value: String,
    line: usize,
    list: bool,
}

impl Section {
    /// Takes the values of `key`, each through `read`, which gives `None` for what is not as `expected`.
    fn many<T: PartialEq>(
        &mut self,
        key: &str,
        expected: &str,
        read: impl Fn(&str) -> Option<T>,
    ) -> Result<Option<Vec<T>>, Complaint> {
        let mut found = Vec::new();
        let mut option_seen = false;
        for value in self.values.extract_if(.., |value| value.key == key) {
            if !value.list && core::mem::replace(&mut option_seen, true) {
                return Err((
                    value.line,
                    format!("option {key} is given twice; expected list {key} or one option"),
                ));
            }
            let read = read(&value.value)
                .ok_or_else(|| (value.line, format!("{key} '{}': expected {expected}", value.value)))?;
            if found.contains(&read) {
                return Err((
                    value.line,
                    format!("{key} '{}' is given twice; expected it once", value.value),
                ));
            }
            found.push(read);
        }
        Ok((!found.is_empty()).then_some(found))
    }

    /// Takes the only value of `key`.
    fn one<T>(
        &mut self,
        key: &str,
        expected: &str,
        read: impl Fn(&str) -> Option<T>,
    ) -> Result<Option<T>, Complaint> {
        let mut found = None;
        for value in self.values.extract_if(.., |value| value.key == key) {
            if value.list {
                return Err((value.line, format!("{key} has one value; expected option {key}")));
            }
            if found.is_some() {
                return Err((value.line, format!("option {key} is given twice; expected it once")));
            }
            let read = read(&value.value)
                .ok_or_else(|| (value.line, format!("{key} '{}': expected {expected}", value.value)))?;
            found = Some(read);
        }
        Ok(found)
    }

    /// Complains of options that nobody took.
    fn finish(self, known: &str) -> Result<(), Complaint> {
        match self.values.first() {
            Some(Value { key, line, .. }) => Err((
                *line,
                format!("unknown option {key} in a section {}; expected one of {known}", self.kind),
            )),
            None => Ok(()),
        }
    }
}

fn sections(text: &str) -> Result<Vec<Section>, Complaint> {
    let mut sections: Vec<Section> = Vec::new();
    for (line, text) in (1..).zip(text.lines()) {
        let (key, value, list) = match statement(text).map_err(|error| (line, error.to_string()))? {
            None | Some(Statement::Package(_)) => continue,
            Some(Statement::Section { kind, name }) => {
                sections.push(Section { kind, name, line, values: Vec::new() });
                continue;
            }
            Some(Statement::Option { key, value }) => (key, value, false),
            Some(Statement::List { key, value }) => (key, value, true),
        };
        let Some(section) = sections.last_mut() else {
            return Err((
                line,
                format!("{key} stands before any section; expected config bamqp 'main' above it"),
            ));
        };
        section.values.push(Value { key, value, line, list });
    }
    Ok(sections)
}

const ADDRESS_AND_PORT: &str = "an address and a port, such as 192.168.1.1:3128 or [fd00::1]:3128";
const SIZE: &str = "a number of bytes, such as 1048576, 512K or 1M";
const RANGE: &str = "an address range, such as 10.0.0.0/24 or fd00::/8";
const PORT: &str = "a port from 1 to 65535";
const ABSOLUTE: &str = "a path that starts with /";
const COUNT: &str = "a number from 1 to 1000";
const MAIN_OPTIONS: &str = "enabled, listen, transparent, transparent_listen, peer_listen, discover, discover_port, name, wan_address, key, state_dir, log_dir, log_size, log_files, window, min_size, \
     allow_private, allow_client, fetch_ports, connect_ports, bandwidth, max_clients, max_sessions, max_peer_sessions, max_hops, fast_enough";
const PEER_OPTIONS: &str = "address, public_key";

fn parse(text: &str) -> Result<Config, Complaint> {
    let mut config = Config::default();
    let mut main_line = None;
    let mut peer_lines = Vec::new();
    for section in sections(text)? {
        let line = section.line;
        match section.kind.as_str() {
            "bamqp" if main_line.is_some() => {
                return Err((line, "a second section bamqp; expected only one".into()));
            }
            "bamqp" => {
                main_line = Some(line);
                read_main(section, &mut config)?;
            }
            "peer" => {
                let peer = read_peer(section)?;
                if let Some(twin) = config.peers.iter().find(|other| {
                    other.name == peer.name
                        || other.address == peer.address
                        || other.public_key == peer.public_key
                }) {
                    let what = format!(
                        "peer '{}' repeats name, address or public_key of peer '{}'; expected its own",
                        peer.name, twin.name
                    );
                    return Err((line, what));
                }
                config.peers.push(peer);
                peer_lines.push(line);
            }
            kind => return Err((line, format!("unknown section {kind}; expected bamqp or peer"))),
        }
    }
    if config.enabled && config.transparent && config.transparent_listen.is_empty() {
        let what = "transparent without an address; expected list transparent_listen or option listen".into();
        return Err((main_line.unwrap_or(0), what));
    }
    let Some(main_line) = main_line else {
        return Err((0, "no section bamqp; expected config bamqp 'main'".into()));
    };
    if config.enabled && config.listen.is_empty() && config.peer_listen.is_none() {
        return Err((main_line, "nowhere to listen; expected option listen or peer_listen".into()));
    }
    if let Some((peer, line)) =
        config.peers.iter().zip(peer_lines).find(|(peer, _)| Some(peer.address) == config.peer_listen)
    {
        let what =
            format!("peer '{}' has this router's own peer_listen; expected another router's", peer.name);
        return Err((line, what));
    }
    Ok(config)
}

fn read_main(mut section: Section, config: &mut Config) -> Result<(), Complaint> {
    fn set<T>(field: &mut T, value: Option<T>) {
        if let Some(value) = value {
            *field = value;
        }
    }
    let s = &mut section;
    set(&mut config.enabled, s.one("enabled", "0 or 1", flag)?);
    set(&mut config.listen, s.many("listen", ADDRESS_AND_PORT, parsed)?);
    set(&mut config.transparent, s.one("transparent", "0 or 1", flag)?);
    let aside = |address: &SocketAddr| SocketAddr::new(address.ip(), TRANSPARENT_PORT);
    let mut beside: Vec<SocketAddr> = config.listen.iter().map(aside).collect();
    beside.dedup();
    config.transparent_listen = s.many("transparent_listen", ADDRESS_AND_PORT, parsed)?.unwrap_or(beside);
    config.peer_listen = s.one("peer_listen", ADDRESS_AND_PORT, parsed)?;
    set(&mut config.discover, s.one("discover", "0 or 1", flag)?);
    set(&mut config.discover_port, s.one("discover_port", PORT, port)?);
    config.name = s.one("name", "1 to 32 letters, digits and _", parsed)?;
    config.wan_address = s.one("wan_address", "an address of this router, such as 203.0.113.5", specific)?;
    set(&mut config.key, s.one("key", ABSOLUTE, absolute)?);
    set(&mut config.state_dir, s.one("state_dir", ABSOLUTE, absolute)?);
    config.log_dir = s.one("log_dir", ABSOLUTE, absolute)?.unwrap_or_else(|| config.state_dir.join("log"));
    set(&mut config.log_size, s.one("log_size", "a number of bytes from 64K to 1G", log_size)?);
    set(&mut config.log_files, s.one("log_files", COUNT, count)?);
    set(&mut config.window, s.one("window", "a multiple of 16K from 128K to 12M", window)?);
    set(&mut config.min_size, s.one("min_size", SIZE, size)?);
    set(&mut config.allow_private, s.many("allow_private", RANGE, parsed)?);
    set(&mut config.allow_client, s.many("allow_client", RANGE, parsed)?);
    set(&mut config.fetch_ports, s.many("fetch_ports", PORT, port)?);
    set(&mut config.connect_ports, s.many("connect_ports", PORT, port)?);
    set(&mut config.bandwidth, s.one("bandwidth", "bits per second, such as 20000000, 800k or 20M", bits)?);
    set(&mut config.fast_enough, s.one("fast_enough", "bits per second, such as 100M", bits)?);
    config.helping = helping::read(s)?;
    config.max_clients = s.one("max_clients", COUNT, count)?;
    config.max_sessions = s.one("max_sessions", COUNT, count)?;
    config.max_peer_sessions = s.one("max_peer_sessions", COUNT, count)?;
    set(&mut config.max_hops, s.one("max_hops", "a number from 1 to 8", hops)?);
    section.finish(&format!("{MAIN_OPTIONS}, {}", helping::OPTIONS))
}

fn read_peer(mut section: Section) -> Result<Peer, Complaint> {
    let line = section.line;
    let missing = |what: &str| (line, format!("a peer without {what}; expected {what}"));
    let name = section.name.take().ok_or_else(|| missing("a name, as in config peer 'B'"))?;
    let address = section.one("address", ADDRESS_AND_PORT, |text| {
        parsed::<SocketAddr>(text).filter(|address| specific(&address.ip().to_string()).is_some())
    })?;
    let public_key =
        section.one("public_key", "the 44 characters that bamqp keygen printed there", base64_decode)?;
    section.finish(PEER_OPTIONS)?;
    Ok(Peer {
        name,
        address: address.ok_or_else(|| missing("option address"))?,
        public_key: public_key.ok_or_else(|| missing("option public_key"))?,
    })
}

fn parsed<T: core::str::FromStr>(text: &str) -> Option<T> {
    text.parse().ok()
}

/// OpenWrt's words for yes and no (`config_get_bool` of its functions.sh).
fn flag(text: &str) -> Option<bool> {
    match text {
        "1" | "on" | "true" | "yes" | "enabled" => Some(true),
        "0" | "off" | "false" | "no" | "disabled" => Some(false),
        _ => None,
    }
}

fn specific(text: &str) -> Option<IpAddr> {
    parsed::<IpAddr>(text).filter(|address| !address.is_unspecified() && !address.is_multicast())
}

fn absolute(text: &str) -> Option<PathBuf> {
    text.starts_with('/').then(|| text.into())
}

/// A number without a sign (Rust's parser takes "+5") and a factor for its suffix.
fn number(text: &str, suffixes: &[(char, u64)]) -> Option<u64> {
    let suffix = suffixes.iter().find_map(|(c, factor)| Some((text.strip_suffix(*c)?, *factor)));
    let (digits, factor) = suffix.unwrap_or((text, 1));
    let digits = Some(digits).filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()))?;
    digits.parse::<u64>().ok()?.checked_mul(factor)
}

fn size(text: &str) -> Option<u64> {
    number(text, &[('K', 1 << 10), ('k', 1 << 10), ('M', 1 << 20), ('G', 1 << 30)])
}

fn bits(text: &str) -> Option<u64> {
    number(text, &[('K', 1000), ('k', 1000), ('M', 1_000_000), ('G', 1_000_000_000)])
}

fn log_size(text: &str) -> Option<u64> {
    size(text).filter(|bytes| LOG_SIZE_RANGE.contains(bytes))
}

fn window(text: &str) -> Option<u32> {
    let bytes = u32::try_from(size(text)?).ok()?;
    (WINDOW_RANGE.contains(&bytes) && bytes.is_multiple_of(SLOT_BYTES as u32)).then_some(bytes)
}

fn port(text: &str) -> Option<u16> {
    number(text, &[])?.try_into().ok().filter(|port| *port > 0)
}

fn hops(text: &str) -> Option<u8> {
    text.parse().ok().filter(|hops| (1..=8).contains(hops))
}

fn count(text: &str) -> Option<u16> {
    number(text, &[])?.try_into().ok().filter(|count| (1..=1000).contains(count))
}
