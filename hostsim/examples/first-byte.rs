//! Measures what pooling costs the client's first byte: two routers with the same link to the same origin, of which
//! one has peers and pools and the other has none and relays, in turn. Not responsible for judging the result:
//! timings are for people.

use std::process::ExitCode;
use std::sync::atomic::AtomicU64;
use std::thread;
use std::time::{Duration, Instant};

use bamqp_core::time::Span;
use hostsim::args::{LinkOptions, Options, nothing_left};
use hostsim::client::{self, End};
use hostsim::neighbourhood::{Neighbourhood, generate};
use hostsim::topology::Topology;

const HELP: &str = "\
scripts/first-byte: the client's first byte, pooled against relayed, in the same run

  --pairs N    downloads of each kind, taken in turn, 1 to 1000     [20]
  --rtt MS     to the origin and back, 0 to 1000                    [30]

The own link has 20 Mbit/s, the peers' 15, 10 and 5. Exit code: 0 whatever the times are, 1 if a download
failed or was not what was to be measured, 2 for wrong arguments.
";

/// Mbit/s of the pooling router's link and of its peers'; the relaying router has a link like the first.
const LINKS: [f64; 4] = [20.0, 15.0, 10.0, 5.0];
const POOLING: usize = 0;
const RELAYING: usize = LINKS.len();

/// The smallest file that is pooled.
const SIZE: u64 = 1 << 20;

fn main() -> ExitCode {
    let mut args = pico_args::Arguments::from_env();
    if args.contains(["-h", "--help"]) {
        print!("{HELP}");
        return ExitCode::SUCCESS;
    }
    let (pairs, rtt) = match arguments(args) {
        Ok(arguments) => arguments,
        Err(line) => {
            eprintln!("first-byte: {line}");
            return ExitCode::from(2);
        }
    };
    match measure(pairs, rtt) {
        Ok((relayed, pooled)) => {
            let (relayed, pooled) = (Quartiles::of(relayed), Quartiles::of(pooled));
            println!("first byte, ms      lowest    25 %  median    75 %  highest");
            println!("relayed          {relayed}\npooled           {pooled}");
            println!("median pooled / relayed: {:.3}", pooled.0[2] / relayed.0[2]);
            ExitCode::SUCCESS
        }
        Err(line) => {
            eprintln!("first-byte: {line}");
            ExitCode::FAILURE
        }
    }
}

fn arguments(mut args: pico_args::Arguments) -> Result<(usize, u64), String> {
    let mut number = |name: &'static str, default: u64, least: u64| match args.opt_value_from_str(name) {
        Ok(None) => Ok(default),
        Ok(Some(value)) if (least..=1000).contains(&value) => Ok(value),
        _ => Err(format!("{name}: expected a whole number from {least} to 1000")),
    };
    let (pairs, rtt) = (number("--pairs", 20, 1)?, number("--rtt", 30, 0)?);
    nothing_left(args.finish())?;
    Ok((pairs as usize, rtt))
}

/// Milliseconds to the first byte of each download, relayed and pooled.
fn measure(pairs: usize, rtt: u64) -> Result<(Vec<f64>, Vec<f64>), String> {
    let link = |mbits| LinkOptions { mbits, rtt: Span::from_millis(rtt) };
    let options = Options {
        links: LINKS.into_iter().chain([LINKS[POOLING]]).map(link).collect(),
        size: SIZE,
        file: None,
        faults: Vec::new(),
        attacks: Vec::new(),
        seed: None,
        window: None,
        json: false,
        trusted: false,
        topology: Topology::Mesh,
    };
    let bytes = generate(1, SIZE);
    let street = Neighbourhood::start(&options, 1, bytes.clone())?;
    for peer in 1..LINKS.len() {
        street.start_router(peer, [POOLING])?;
    }
    street.start_router(POOLING, 1..LINKS.len())?;
    street.start_router(RELAYING, [])?;
    thread::sleep(Duration::from_millis(300)); // they get to know each other

    let download = |router, name: &str| {
        let result =
            client::download(street.proxy_of(router), &street.url(name), &[&bytes], &AtomicU64::new(0));
        if result.end != End::Complete || result.right != SIZE {
            return Err(format!("{name}: {}, {} of {SIZE} bytes right", result.end, result.right));
        }
        if router == POOLING {
            settle(&street, name)?;
        }
        result.first_byte.map(|time| time.as_secs_f64() * 1e3).ok_or_else(|| "an empty file".into())
    };
    // The first time, memory is touched and rates are unknown.
    download(RELAYING, "warm-up")?;
    download(POOLING, "warm-up")?;
    let (mut relayed, mut pooled) = (Vec::new(), Vec::new());
    for pair in 1..=pairs {
        let name = format!("pair-{pair}");
        // Whichever comes second may find the machine in another state: they take turns.
        if pair % 2 == 0 {
            relayed.push(download(RELAYING, &name)?);
            pooled.push(download(POOLING, &name)?);
        } else {
            pooled.push(download(POOLING, &name)?);
            relayed.push(download(RELAYING, &name)?);
        }
        if let (Some(relayed), Some(pooled)) = (relayed.last(), pooled.last()) {
            eprintln!("{pair:>4}/{pairs}  relayed {relayed:>8.3} ms  pooled {pooled:>8.3} ms");
        }
    }
    Ok((relayed, pooled))
}

/// Waits for the end of the session for `name`, which peers must have had a part in.
fn settle(street: &Neighbourhood, name: &str) -> Result<(), String> {
    let deadline = Instant::now() + Duration::from_secs(5);
    let url = street.url(name);
    loop {
        let session = street.sessions(POOLING).into_iter().find(|session| session.target == url);
        let session = session.ok_or_else(|| format!("{name} was not pooled"))?;
        match session.outcome.as_deref() {
            Some("complete") if session.lanes.iter().any(|lane| lane.name.len() == 1 && lane.bytes > 0) => {
                return Ok(());
            }
            None if Instant::now() < deadline => thread::sleep(Duration::from_millis(5)),
            _ => return Err(format!("{name} was not pooled: {session:?}")),
        }
    }
}

/// Lowest, the three quartiles, highest.
struct Quartiles([f64; 5]);

impl Quartiles {
    fn of(mut times: Vec<f64>) -> Quartiles {
        times.sort_by(f64::total_cmp);
        let last = times.len() - 1;
        Quartiles([0, 1, 2, 3, 4].map(|quarter| {
            // Between two of them, in proportion.
            let (place, rest) = (quarter * last / 4, (quarter * last % 4) as f64 / 4.0);
            times[place] + (times[(place + 1).min(last)] - times[place]) * rest
        }))
    }
}

impl std::fmt::Display for Quartiles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|time| write!(f, " {time:>8.3}"))
    }
}
