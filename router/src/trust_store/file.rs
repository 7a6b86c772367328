//! The file of trust records: lines that a person can read, each with a check. Not responsible for when it
//! is written.
//!
//! ```text
//! bamqp-trust-1 boot=7 boot_id=… running=93600 #5d41402a
//! peer <key> address=10.77.0.2:7733 rate=1250000 last=93000 old=12,12,12000,0,0,1,734003200 #…
//! session <key> boot=7 uptime=60400 running=93000 clock=1786000000 sums=1,1,1000,0,0,0,67108864 #…
//! ```
//!
//! Times are in seconds; sums are sessions, clean ones, S, R (in thousandths), timeouts, drops and bytes. A peer may also
//! have `violation=WHAT@RUNNING`, `alert=WHO@RUNNING` and `mismatched=ORIGIN,…`. A line whose check is wrong is left out:
//! a torn file loses what is torn. The peers come before their sessions, so that a bar is the last to be lost.

use core::fmt::Write as _;
use core::net::SocketAddr;
use core::str::FromStr;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;

use bamqp_core::message::Fingerprint;
use bamqp_core::trust::{Alert, Moment, Record, Sums, Transaction, Violation};
use sha2::{Digest, Sha256};

/// Most bytes that are read: some 200 peers with full records.
const MAX_FILE: u64 = 1024 * 1024;

/// The first word of the file, with the version of its form.
const HEAD: &str = "bamqp-trust-1";

/// What the file says of the router itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// Number of the boot in which it was written.
    pub boot: u32,
    /// The system's name of that boot.
    pub boot_id: String,
    /// Seconds that the daemon had run in all.
    pub running: u32,
}

/// What the file says of a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Saved {
    /// Its key.
    pub key: Fingerprint,
    /// Where it listened.
    pub address: SocketAddr,
    /// Bytes per second in the last session.
    pub rate: Option<u32>,
    /// Its sessions.
    pub record: Record,
}

impl Saved {
    /// Nothing is known of it.
    pub fn new(key: Fingerprint, address: SocketAddr) -> Self {
        Self { key, address, rate: None, record: Record::default() }
    }
}

/// The whole file.
pub fn text<'a>(state: &State, peers: impl Iterator<Item = &'a Saved> + Clone) -> String {
    let mut text = String::new();
    let State { boot, boot_id, running } = state;
    line(&mut text, &format!("{HEAD} boot={boot} boot_id={boot_id} running={running}"));
    for Saved { key, address, rate, record } in peers.clone() {
        let mut peer = format!("peer {key} address={address} last={} old={}", record.last, sums(&record.old));
        // Writing to a string can't fail.
        if let Some(rate) = rate {
            let _ = write!(peer, " rate={rate}");
        }
        if let Some((why, at)) = record.violation {
            let _ = write!(peer, " violation={why}@{at}");
        }
        match record.alert {
            Some(Alert { at, by: Some(by) }) => drop(write!(peer, " alert={by}@{at}")),
            Some(Alert { at, by: None }) => drop(write!(peer, " alert=own@{at}")),
            None => {}
        }
        if !record.mismatched.is_empty() {
            let origins: Vec<String> = record.mismatched.iter().map(u32::to_string).collect();
            let _ = write!(peer, " mismatched={}", origins.join(","));
        }
        line(&mut text, &peer);
    }
    for Saved { key, record, .. } in peers {
        for Transaction { at: Moment { boot, uptime, running, clock }, sums: all } in &record.recent {
            let clock = clock.map(|clock| format!(" clock={clock}")).unwrap_or_default();
            let session = format!("session {key} boot={boot} uptime={uptime} running={running}{clock}");
            line(&mut text, &format!("{session} sums={}", sums(all)));
        }
    }
    text
}

fn sums(sums: &Sums) -> String {
    let Sums { sessions, clean, satisfaction, untrust, timeouts, drops, bytes } = sums;
    format!("{sessions},{clean},{satisfaction},{untrust},{timeouts},{drops},{bytes}")
}

fn line(text: &mut String, words: &str) {
    let _ = writeln!(text, "{words} #{:08x}", check(words)); // a string takes everything
}

/// The first 32 bits of the line's SHA-256.
pub fn check(words: &str) -> u32 {
    Sha256::digest(words.as_bytes()).iter().take(4).fold(0, |check, byte| check << 8 | u32::from(*byte))
}

/// Reads a file; nothing if there is none. What is wrong with it is told in the log.
pub fn load(path: &Path) -> (State, Vec<Saved>) {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(MAX_FILE).read_to_end(&mut bytes));
    match read {
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => return Default::default(),
        Err(error) => log::warn!("{}: {error}; what can be read of it counts", path.display()),
    }
    let (state, peers, wrong) = parse(&String::from_utf8_lossy(&bytes));
    if wrong > 0 {
        log::warn!("{}: {wrong} lines are damaged and do not count", path.display());
    }
    (state, peers)
}

/// Reads a file's text; what it says, and how many lines are damaged.
pub fn parse(text: &str) -> (State, Vec<Saved>, usize) {
    let (mut state, mut peers, mut wrong) = (None, Vec::new(), 0);
    for line in text.split_inclusive('\n') {
        if read_line(line, &mut state, &mut peers).is_none() {
            wrong += 1;
        }
    }
    let mut state: State = state.unwrap_or_else(|| {
        wrong += usize::from(!text.is_empty());
        State::default()
    });
    // Should its line be lost, no time has passed since the last thing that is known.
    for record in peers.iter().map(|peer: &Saved| &peer.record) {
        let times =
            [record.last, record.violation.map_or(0, |(_, at)| at), record.alert.map_or(0, |alert| alert.at)];
        state.running = times.into_iter().fold(state.running, u32::max);
        state.boot = record.recent.iter().map(|one| one.at.boot).fold(state.boot, u32::max);
    }
    (state, peers, wrong)
}

fn read_line(line: &str, state: &mut Option<State>, peers: &mut Vec<Saved>) -> Option<()> {
    let (words, told) = line.strip_suffix('\n')?.rsplit_once(" #")?;
    if told != format!("{:08x}", check(words)) {
        return None;
    }
    let (kind, rest) = words.split_once(' ')?;
    match kind {
        HEAD => {
            let (boot, running) = (number(rest, "boot")?, number(rest, "running")?);
            *state = Some(State { boot, boot_id: value(rest, "boot_id")?.into(), running });
        }
        "peer" => peers.push(read_peer(rest)?),
        "session" => {
            let key = rest.split(' ').next()?.parse().ok()?;
            let peer = peers.iter_mut().find(|peer| peer.key == key)?;
            let clock = match value(rest, "clock") {
                Some(clock) => Some(clock.parse().ok()?),
                None => None,
            };
            let (boot, uptime) = (number(rest, "boot")?, number(rest, "uptime")?);
            let at = Moment { boot, uptime, running: number(rest, "running")?, clock };
            let transaction = Transaction { at, sums: read_sums(value(rest, "sums")?)? };
            peer.record.recent.push(transaction).ok()?;
        }
        _ => return None,
    }
    Some(())
}

fn read_peer(rest: &str) -> Option<Saved> {
    let key = rest.split(' ').next()?.parse().ok()?;
    let mut record =
        Record { old: read_sums(value(rest, "old")?)?, last: number(rest, "last")?, ..Record::default() };
    if let Some(violation) = value(rest, "violation") {
        let (why, at) = violation.split_once('@')?;
        let why = Violation::ALL.into_iter().find(|violation| violation.to_string() == why)?;
        record.violation = Some((why, at.parse().ok()?));
    }
    if let Some(alert) = value(rest, "alert") {
        let (by, at) = alert.split_once('@')?;
        let by = if by == "own" { None } else { Some(by.parse().ok()?) };
        record.alert = Some(Alert { at: at.parse().ok()?, by });
    }
    for origin in value(rest, "mismatched").into_iter().flat_map(|origins| origins.split(',')) {
        record.mismatched.push(origin.parse().ok()?).ok()?;
    }
    let rate = match value(rest, "rate") {
        Some(rate) => Some(rate.parse().ok()?),
        None => None,
    };
    Some(Saved { key, address: value(rest, "address")?.parse().ok()?, rate, record })
}

fn read_sums(text: &str) -> Option<Sums> {
    let mut numbers = text.split(',').map(u64::from_str);
    let mut next = || numbers.next()?.ok();
    let mut small = || u32::try_from(next()?).ok();
    let (sessions, clean, satisfaction) = (small()?, small()?, small()?);
    let (untrust, timeouts, drops) = (small()?, small()?, small()?);
    let bytes = next()?;
    numbers.next().is_none().then_some(Sums {
        sessions,
        clean,
        satisfaction,
        untrust,
        timeouts,
        drops,
        bytes,
    })
}

/// The value of `name=value` among words.
pub fn value<'a>(words: &'a str, name: &str) -> Option<&'a str> {
    words.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
}

fn number(words: &str, name: &str) -> Option<u32> {
    value(words, name)?.parse().ok()
}
