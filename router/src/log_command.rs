//! `bamqp log`: shows and checks ledgers. Not responsible for what is right or wrong with one
//! ([`bamqp_router::ledger_check`]).

use std::collections::HashMap;
use std::io::{ErrorKind, Write};
use std::path::PathBuf;

use bamqp_core::ledger::{Entry, Event, InitEvent, Text, Time};
use bamqp_core::message::SessionId;
use bamqp_router::keys::{base64_decode, base64_encode, fingerprint_of};
use bamqp_router::ledger_check::{self, Report};

use crate::{Failure, failed};

const HELP: &str = "\
bamqp log show [--since TIME] [--until TIME] [--peer PEER] [--url TEXT] [--full] FILE...
    What this router fetched for others and asked others to fetch.
    TIME is UTC, such as 2026-08-01 or 2026-08-01T12:00:00Z. Routers have no clock at boot: an entry's time is
    what the router believed; boot and seconds since the boot are right.
    PEER is an address, a public key, or the beginning of a fingerprint; TEXT is a part of the URL.
    --full shows the entries as they stand in the file, with the signed messages.

bamqp log verify [--against OTHER]... FILE...
    Checks that no entry was altered, left out or put in, and that each INIT was meant for this router and
    signed by the coordinator. OTHER is a log of that coordinator: with it, that nothing was cut off, either.
    Names the first bad entry, and ends with exit code 1.

Several FILEs of one log are given oldest first, as in bamqp log verify /etc/bamqp/log/bamqp-*.log. A running
daemon writes what is new every 10 minutes. How to check a log by hand with openssl and sha256sum, and what a
log proves: router/LOG.md in the sources.
";

/// `bamqp log …`
pub fn run(mut args: pico_args::Arguments) -> Result<(), Failure> {
    if args.contains(["-h", "--help"]) {
        return print(HELP);
    }
    let usage = |error: pico_args::Error| Failure::Usage(error.to_string());
    match args.subcommand().map_err(usage)?.as_deref() {
        Some("show") => {
            let filter = Filter {
                since: args.opt_value_from_str("--since").map_err(usage)?,
                until: args.opt_value_from_str("--until").map_err(usage)?,
                peer: args.opt_value_from_str("--peer").map_err(usage)?,
                url: args.opt_value_from_str("--url").map_err(usage)?,
                sessions: HashMap::new(),
            };
            let is_full = args.contains("--full");
            show(&files(args)?, filter, is_full)
        }
        Some("verify") => {
            let against: Vec<PathBuf> = args.values_from_str("--against").map_err(usage)?;
            verify(&files(args)?, &against)
        }
        _ => Err(Failure::Usage("expected log show or log verify".into())),
    }
}

fn files(args: pico_args::Arguments) -> Result<Vec<PathBuf>, Failure> {
    let files: Vec<PathBuf> = args.finish().into_iter().map(PathBuf::from).collect();
    let option = files.iter().find(|file| file.as_os_str().as_encoded_bytes().starts_with(b"-"));
    match option {
        Some(option) => Err(Failure::Usage(format!("unexpected argument {}", option.display()))),
        None if files.is_empty() => Err(Failure::Usage("expected a FILE".into())),
        None => Ok(files),
    }
}

/// Somebody who reads only the first lines is no failure.
fn print(text: &str) -> Result<(), Failure> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => std::process::exit(0),
        other => other.map_err(failed),
    }
}

fn verify(files: &[PathBuf], against: &[PathBuf]) -> Result<(), Failure> {
    let Report { owner, first, last, head, inits, countersigned, older } =
        ledger_check::check(files, against).map_err(failed)?;
    let owner = owner.map_or_else(|| "?".into(), |owner| owner.to_string());
    let mut text = format!(
        "whole: entries {first} to {last} of router {owner}\n\
         {inits} INITs, each meant for this router and signed by the coordinator\n\
         head {head}\n"
    );
    if first > 1 {
        text += "the entries before the first are not in these files\n";
    }
    if !against.is_empty() {
        text +=
            &format!("nothing is missing of what the other log countersigned: {countersigned} sessions\n");
        if older > 0 {
            text += &format!("{older} more are older than the first entry here\n");
        }
    }
    print(&text)
}

/// Which entries to show.
struct Filter {
    since: Option<Time>,
    until: Option<Time>,
    peer: Option<String>,
    url: Option<String>,
    /// Whether the sessions of other routers so far are to be shown: it decides about their chunks.
    sessions: HashMap<SessionId, bool>,
}

impl Filter {
    fn shows(&mut self, entry: &Entry<'_>) -> bool {
        let is_in_time = self.since.is_none_or(|since| entry.time >= since)
            && self.until.is_none_or(|until| entry.time < until);
        let is_asked_for = match &entry.event {
            Event::Open { .. } => self.peer.is_none() && self.url.is_none(),
            Event::Init(init) => {
                let shows = self.is_peer_of(init) && self.is_url(init.uri);
                self.sessions.insert(init.session, shows);
                shows
            }
            Event::Chunk { session, .. } => {
                // The INIT may be in an older file.
                let is_any = self.peer.is_none() && self.url.is_none();
                self.sessions.get(session).copied().unwrap_or(is_any)
            }
            Event::Session { uri, peers, .. } => {
                // They are there by fingerprint.
                let is_peer = |peer: &String| {
                    let wanted = base64_decode(peer).map(|key| fingerprint_of(&key).to_string());
                    let wanted = wanted.as_ref().unwrap_or(peer);
                    peers.iter().any(|(key, _)| key.to_string().starts_with(wanted))
                };
                self.peer.as_ref().is_none_or(is_peer) && self.is_url(*uri)
            }
        };
        is_in_time && is_asked_for
    }

    fn is_peer_of(&self, init: &InitEvent<'_>) -> bool {
        let Some(peer) = &self.peer else { return true };
        let names = [init.from.to_string(), init.from.ip().to_string(), base64_encode(&init.key)];
        names.contains(peer) || fingerprint_of(&init.key).to_string().starts_with(peer)
    }

    fn is_url(&self, uri: Text<'_>) -> bool {
        self.url.as_ref().is_none_or(|url| uri.to_string().contains(url))
    }
}

fn show(files: &[PathBuf], mut filter: Filter, is_full: bool) -> Result<(), Failure> {
    let (mut entries, mut bad) = (0u64, 0u64);
    let mut text = String::new();
    let mut unprinted = Ok(());
    ledger_check::read_lines(files, |place, line| {
        match Entry::parse(line) {
            Ok((entry, _)) => {
                entries += 1;
                if filter.shows(&entry) {
                    text.clear();
                    if is_full {
                        text.extend(line.iter().copied().map(char::from));
                    } else {
                        short(&mut text, &entry);
                    }
                    unprinted = print(&text);
                }
            }
            Err(error) => {
                bad += 1;
                eprintln!("bamqp: {}", place.problem(ledger_check::Wrong::Entry(error)));
            }
        }
        Ok(())
    })
    .map_err(failed)?;
    unprinted?;
    match bad {
        0 => Ok(()),
        bad => Err(Failure::Failed(format!("{bad} of {} lines are no entries", entries + bad))),
    }
}

/// A line for people.
fn short(text: &mut String, entry: &Entry<'_>) {
    let Entry { sequence, boot, time, uptime, event, .. } = entry;
    *text += &format!("{sequence:>5}  {time}  boot {boot} +{uptime}s  ");
    *text += &match event {
        Event::Open { key, version, .. } => {
            format!("OPEN     log of router {}, bamqp {version}\n", fingerprint_of(key))
        }
        Event::Init(InitEvent { key, from, session, size, uri, .. }) => {
            let router = fingerprint_of(key);
            format!("INIT     for router {router} at {from}, session {session}: {uri} ({size} bytes)\n")
        }
        Event::Chunk { session, ranges } => {
            let bytes: u64 = ranges.iter().map(|range| range.end - range.start).sum();
            let list: Vec<String> = ranges.iter().map(|r| format!("{}-{}", r.start, r.end - 1)).collect();
            format!("CHUNK    session {session}: {bytes} bytes, {}\n", list.join(" "))
        }
        Event::Session { session, size, range, uri, peers } => {
            let helpers: Vec<String> = peers.iter().map(|(peer, _)| peer.to_string()).collect();
            let pooled = range.end - range.start;
            let helpers = if helpers.is_empty() { "nobody".into() } else { helpers.join(" ") };
            format!("SESSION  {session}: {uri} ({pooled} of {size} bytes pooled), helped by {helpers}\n")
        }
    };
}
