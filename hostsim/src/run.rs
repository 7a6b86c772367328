//! `hostsim run`: the same file over the own link alone, then over all links of the neighbourhood, with real
//! routers, sockets and threads. Not responsible for how any of them works; it puts them together, and says
//! whether the bytes were right.

use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bamqp_router::status::SessionReport;
use pico_args::Arguments;
use sha2::{Digest, Sha256};

use crate::answer;
use crate::args::{HELP, LinkOptions, MAX_SIZE, Options};
use crate::attack;
use crate::client::{self, Download, End};
use crate::fault::{Fault, Injector, router_name};
use crate::judge::{judge, judge_helpers};
use crate::neighbourhood::{Neighbourhood, generate};
use crate::progress::{self, LaneLine};
use crate::report::{Again, Lane, PassedOn, Phase, Report, mbits, size};

/// How long the routers may get to know each other before the client comes.
const GREETING: Duration = Duration::from_millis(300);

/// How long a session may take to end after the client has its last byte.
const SETTLING: Duration = Duration::from_secs(2);

/// Runs the command with what follows `run` on the command line.
pub fn main(mut args: Arguments) -> ExitCode {
    if args.contains(["-h", "--help"]) {
        print!("{HELP}");
        return ExitCode::SUCCESS;
    }
    let options = match Options::parse(args) {
        Ok(options) => options,
        Err(line) => {
            eprintln!("hostsim: {line}");
            return ExitCode::from(2);
        }
    };
    let seed = options.seed.unwrap_or_else(fresh_seed);
    let bytes = match &options.file {
        None => generate(seed, options.size),
        Some(path) => match read(path) {
            Ok(bytes) => bytes,
            Err(line) => {
                eprintln!("hostsim: {line}");
                return ExitCode::from(2);
            }
        },
    };
    match run(&options, seed, &bytes) {
        Ok(report) => {
            print!("{}", report.summary());
            if options.json {
                println!("{}", report.json());
            }
            if report.ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(line) => {
            eprintln!("hostsim: {line}");
            ExitCode::FAILURE
        }
    }
}

/// Downloads `bytes` both ways. The error is a line that says why that could not be tried.
pub fn run(options: &Options, seed: u64, bytes: &Arc<[u8]>) -> Result<Report, String> {
    let changes = options.faults.iter().any(|fault| matches!(fault, Fault::Change { .. }));
    let changed = changes.then(|| answer::changed(bytes));
    let versions: Vec<&[u8]> = std::iter::once(&**bytes).chain(changed.as_deref()).collect();
    let digests: Vec<[u8; 32]> = versions.iter().map(|version| Sha256::digest(version).into()).collect();
    let total = bytes.len() as u64;
    let limit: u64 = options.links.iter().map(|link| link.rate() * 8).sum();
    let street = Arc::new(Neighbourhood::start(options, seed, bytes.clone())?);
    introduce(options, &street, seed, total);

    street.start_router(0, [])?;
    let own = progress::show("own link", total, Vec::new, |progress| {
        client::download(street.proxy(), &street.url("own"), &versions, progress)
    });
    street.stop_router(0);
    let routers = options.links.len();
    for router in (0..routers).rev() {
        if options.trusted {
            street.trust_all(router)?;
        }
        street.start_router(router, options.topology.heard_by(router, routers))?;
    }
    thread::sleep(GREETING);
    street.origin().set_rules(street.rules(&options.faults));
    let injector = {
        let street = street.clone();
        Injector::start(&options.faults, move |fault| street.inject(fault))
    };
    let attackers = attack::start(&street, &options.attacks);
    let pool = |name| {
        progress::show(
            name,
            total,
            || session(&street, name).map_or_else(Vec::new, |session| lane_lines(&session)),
            |progress| client::download(street.proxy(), &street.url(name), &versions, progress),
        )
    };
    let pooled = pool("pooled");
    let happened = injector.finish();
    let session = settled(&street, "pooled");
    let again = options.faults.iter().any(|fault| fault.liar().is_some()).then(|| {
        let again = pool("again");
        let session = settled(&street, "again");
        let peers = street.verdicts(session.is_some());
        (Again { phase: phase(&again, total, &digests), peers }, session)
    });
    let mut repelled = attackers.join().map_err(|_| "an attacker has failed")??;
    repelled.extend(attack::finish(&street, &options.attacks)?);

    let faults = options
        .faults
        .iter()
        .map(|fault| {
            (told(&street, fault, session.as_ref()), happened.contains(fault) || street.done(fault) > 0)
        })
        .chain(
            repelled
                .iter()
                .map(|(attack, tries)| (format!("{attack}, {tries} tries, each found out"), *tries > 0)),
        );
    let done = |fault: &Fault| street.done(fault) > 0;
    let passed_on: Vec<PassedOn> = (1..routers).filter_map(|router| passed_on(&street, router)).collect();
    let mut wrong = judge(options, done, session.as_ref(), again.as_ref());
    wrong.extend(judge_helpers(
        session.iter().map(|session| lanes(session, 0)).chain(passed_on.iter().map(|by| by.lanes.clone())),
    ));
    Ok(Report {
        seed,
        size: total,
        limit: limit as f64,
        own: phase(&own, total, &digests),
        pooled: phase(&pooled, total, &digests),
        window_used: session.as_ref().map_or(0, |session| session.window_used),
        outcome: session.as_ref().map(|s| s.outcome.clone().unwrap_or_else(|| "still running".into())),
        faults: faults.collect(),
        faults_injected: happened.len() as u64
            + street.origin().misbehaved()
            + repelled.iter().map(|(_, tries)| tries).sum::<u64>(),
        lanes: session.map_or_else(Vec::new, |session| lanes(&session, 0)),
        passed_on,
        again: again.map(|(again, _)| again),
        wrong,
    })
}

/// A fault, and what came of it.
fn told(street: &Neighbourhood, fault: &Fault, session: Option<&SessionReport>) -> String {
    let Fault::Busy { router, .. } = *fault else { return fault.to_string() };
    let name = router_name(router);
    let lane = session.and_then(|session| session.lanes.iter().find(|lane| lane.name == name));
    let times = lane.map_or(0, |lane| lane.withdrawals);
    let part = street
        .household_part(router)
        .map_or("too short a time to tell".into(), |part| format!("{part:.2} of it"));
    format!("{fault}: {name} withdrew {times} times; its household had, from 1 s on, {part}")
}

/// Says what is about to be tried.
fn introduce(options: &Options, street: &Neighbourhood, seed: u64, total: u64) {
    let link = |(number, link): (usize, &LinkOptions)| {
        let own = if number == 0 { " (own)" } else { "" };
        let rtt = link.rtt.as_micros() as f64 / 1000.0;
        format!("{}{own} {} {rtt} ms", router_name(number), mbits(link.mbits * 1e6))
    };
    let links: Vec<String> = options.links.iter().enumerate().map(link).collect();
    let (topology, network) = (&options.topology, street.network());
    eprintln!("{} over {} ({topology}, seed {seed}, {network})", size(total), links.join(", "));
    let faults = options.faults.iter().map(Fault::to_string);
    let faults: Vec<String> = faults.chain(options.attacks.iter().map(|attack| attack.to_string())).collect();
    if !faults.is_empty() {
        eprintln!("faults: {}", faults.join(" "));
    }
}

/// The session of the download of this name, if it is pooled.
fn session(street: &Neighbourhood, name: &str) -> Option<SessionReport> {
    let url = street.url(name);
    street.sessions(0).into_iter().find(|session| session.target == url)
}

/// The session of the download of this name once it has ended: its counters are final then, and what follows for trust is
/// decided.
fn settled(street: &Neighbourhood, name: &str) -> Option<SessionReport> {
    let deadline = Instant::now() + SETTLING;
    loop {
        let session = session(street, name);
        if session.as_ref().is_none_or(|session| session.outcome.is_some()) || Instant::now() > deadline {
            return session;
        }
        thread::sleep(Duration::from_millis(10));
    }
}

/// The useful bytes of each link: the coordinator's own one has two lanes.
fn lane_lines(session: &SessionReport) -> Vec<LaneLine> {
    let mut links: Vec<LaneLine> = Vec::new();
    for lane in &session.lanes {
        let link = if is_own(&lane.name) { router_name(0) } else { lane.name.clone() };
        match links.iter_mut().find(|(name, _)| *name == link) {
            Some((_, bytes)) => *bytes += lane.bytes,
            None => links.push((link, lane.bytes)),
        }
    }
    links
}

/// What the daemon calls the lanes of its own link; peers have the names of the configuration: B, C, D…
fn is_own(lane: &str) -> bool {
    lane == "original" || lane == "own"
}

/// What router `number` had its own peers do of the pooled download.
fn passed_on(street: &Neighbourhood, number: usize) -> Option<PassedOn> {
    let url = street.url("pooled");
    let is_it = |session: &SessionReport| session.target == url && session.coordinator.is_some();
    let session = street.sessions(number).into_iter().rfind(is_it)?;
    let lanes = lanes(&session, number).into_iter().filter(|lane| !lane.name.ends_with("original"));
    let lanes: Vec<Lane> = lanes.collect();
    // Where the coordinator has asked them all itself nobody is left to help.
    let has_help = lanes.iter().any(|lane| lane.bytes > 0 && !lane.name.contains(' '));
    has_help.then(|| PassedOn { router: router_name(number), lanes })
}

fn lanes(session: &SessionReport, router: usize) -> Vec<Lane> {
    let lane = |lane: &bamqp_router::status::LaneReport| Lane {
        name: if is_own(&lane.name) {
            format!("{} {}", router_name(router), lane.name)
        } else {
            lane.name.clone()
        },
        bytes: lane.bytes,
        requests: lane.requests,
        timeouts: lane.timeouts,
        failures: lane.failures,
        violations: lane.violations,
        duplicates: lane.duplicates,
        checked: lane.checked,
        verdict: lane.verdict.clone(),
        state: lane.state.clone(),
    };
    session.lanes.iter().map(lane).collect()
}

/// Whether the bytes were right, and in words how they were.
fn phase(download: &Download, total: u64, digests: &[[u8; 32]]) -> Phase {
    let complete = download.end == End::Complete && download.received == total;
    let right = complete && digests.contains(&download.sha256);
    let verdict = if right {
        "SHA-256 right".to_owned()
    } else if complete {
        format!("SHA-256 WRONG, from byte {}", download.right)
    } else if download.is_prefix() {
        let came = match download.received {
            0 => "nothing came".to_owned(),
            count => format!("{} came, all of it right: never mixed, can be resumed", size(count)),
        };
        format!("{}: {came}", download.end)
    } else {
        format!("{}: {} came, WRONG from byte {}", download.end, size(download.received), download.right)
    };
    Phase {
        took: download.took,
        first_byte: download.first_byte,
        received: download.received,
        right,
        verdict,
    }
}

fn read(path: &std::path::Path) -> Result<Arc<[u8]>, String> {
    let wrong = |what: &str| format!("--file {}: {what}", path.display());
    let size = std::fs::metadata(path).map_err(|error| wrong(&error.to_string()))?.len();
    if !(1..=MAX_SIZE).contains(&size) {
        return Err(wrong("expected a file of 1 byte to 4 GiB"));
    }
    std::fs::read(path).map(Arc::from).map_err(|error| wrong(&error.to_string()))
}

/// Short enough to be typed again.
fn fresh_seed() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    (u64::from(now.subsec_nanos()) ^ now.as_secs() ^ (u64::from(std::process::id()) << 8)) % 1_000_000
}
