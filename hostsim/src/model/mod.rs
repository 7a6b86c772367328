//! `hostsim model`: the core under a virtual clock and seeded randomness. Nothing here is real but the decisions: lines
//! are arithmetic ([`lines`]), time is a number ([`world`]).
//!
//! ```text
//! options ─▶ world (events, sessions of the real core) ─▶ lines (what arrives when)
//!              │
//!              ├▶ once: one download, compared with the own line alone
//!              ├▶ hours: a neighbourhood whose lines change
//!              ├▶ plans: what the literature would do on the same lines
//!              ├▶ table: links that stay as they are
//!              ├▶ scenarios: what each scheduling rule is worth
//!              ├▶ promises: what routers should promise that pass work on
//!              ├▶ topologies: who works for whom, in random neighbourhoods
//!              └▶ detect: how often liars are found out
//! ```

pub mod content;
pub mod detect;
pub mod hours;
pub mod household;
pub mod lines;
pub mod once;
pub mod options;
pub mod plans;
pub mod promises;
pub mod random;
pub mod reorder;
pub mod scenarios;
pub mod table;
pub mod tcp;
pub mod topologies;
pub mod world;

use std::process::ExitCode;

use bamqp_core::time::{Instant, Span};
use pico_args::Arguments;

use self::lines::Net;
use self::options::{Options, Task};
use self::random::Random;
use self::world::World;
use crate::topology::Topology;

/// The window if none is given: the daemon's default.
const WINDOW: u32 = 1 << 20;

/// Carries out `hostsim model`.
pub fn main(mut args: Arguments) -> ExitCode {
    if args.contains(["-h", "--help"]) {
        print!("{}", options::HELP);
        return ExitCode::SUCCESS;
    }
    let options = match Options::parse(args) {
        Ok(options) => options,
        Err(line) => {
            eprintln!("hostsim: {line}");
            return ExitCode::from(2);
        }
    };
    let seed = options.run.seed.unwrap_or(1);
    match carry_out(&options, seed) {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

fn carry_out(options: &Options, seed: u64) -> bool {
    let window = options.run.window.unwrap_or(WINDOW) as usize;
    let net = net(options, seed);
    match options.task {
        Task::Once => {
            let report = once::run(net, options, window, seed);
            print!("{}", report.summary());
            if options.run.json {
                println!("{}", report.json());
            }
            report.is_as_it_should()
        }
        Task::Hours(hours) => {
            let span = Span::from_micros((hours * 3.6e9) as u64);
            eprintln!("{} households, {hours} h (seed {seed})", net.lines.len());
            let world = World::over(net);
            let tally = hours::simulate(world, hours::Plan { span, window, seed }, |at| {
                eprint!("\r{:>5} of {:>5} min", at.as_millis() / 60_000, span.as_millis() / 60_000);
            });
            eprintln!();
            print!("{}", tally.summary());
            if options.run.json {
                println!("{}", tally.json());
            }
            tally.downloads > 0 && tally.downloads == tally.complete + tally.broken
        }
        Task::Table => {
            print!("{}", table::table());
            true
        }
        Task::Rules => {
            print!("{}", scenarios::table());
            true
        }
        Task::Promises => {
            print!("{}", promises::table());
            true
        }
        Task::Topologies(count) => {
            let tally = topologies::run(count, seed, |number| {
                if number.is_multiple_of(100) {
                    eprint!("\r{number:>8} of {count} topologies");
                }
            });
            eprintln!("\r{count:>8} of {count} topologies (seed {seed})");
            print!("{}", tally.summary());
            if options.run.json {
                println!("{}", tally.json());
            }
            tally.violations.is_empty()
        }
        Task::Detect(sessions) => {
            let rows = detect::rows().count();
            let table = detect::table(sessions, |row| eprint!("\r{row:>5} of {rows} rows"));
            eprintln!();
            print!("{table}");
            true
        }
        Task::Plan => {
            print!("{}", compare(&net, options, window, seed));
            true
        }
    }
}

/// The lines: those that were asked for, or random ones of 2 to 50 Mbit/s, 10 to 80 ms away.
fn net(options: &Options, seed: u64) -> Net {
    let mut net = Net::default();
    let mut add = |rate, rtt| match options.tcp {
        true => net.add_tcp_line(rate, rtt, tcp::QUEUE),
        false => net.add_line(rate, rtt),
    };
    match options.peers {
        Some(peers) => {
            let mut random = Random::new(seed);
            for _ in 0..=peers {
                let rate = random.between(2, 50) * 125_000;
                add(rate, Span::from_millis(random.between(10, 80)));
            }
        }
        None => {
            for link in &options.run.links {
                add(link.rate(), link.rtt);
            }
        }
    }
    net
}

/// The plans side by side: time, share of the links' sum, and what had to wait in memory.
fn compare(net: &Net, options: &Options, window: usize, seed: u64) -> String {
    use std::fmt::Write;
    let size = options.run.size;
    let sum: u64 = net.lines.iter().map(|line| line.rate).sum();
    let mut out = format!("{:<32}{:>10}{:>12}{:>14}\n", "plan", "seconds", "efficiency", "memory");
    let mut row = |name: &str, took: f64, memory: u64| {
        let efficiency = size as f64 / took / sum as f64;
        let _ = writeln!(out, "{name:<32}{took:>10.2}{efficiency:>12.3}{:>14}", crate::report::size(memory));
    };
    // None of the others passes work on.
    let mut options = options.clone();
    options.run.topology = Topology::Star;
    let report = once::run(net.clone(), &options, window, seed);
    row("adaptive (BAMQP)", report.pooled_seconds(), report.window_used());
    let fixed = [
        plans::Plan::Equal,
        plans::Plan::Advertised { num: 1, den: 1 },
        plans::Plan::Advertised { num: 2, den: 1 },
    ];
    for plan in fixed.into_iter().chain([plans::Plan::Fixed(1 << 20), plans::Plan::Fixed(256 << 10)]) {
        let outcome = plans::download(net.clone(), size, plan);
        row(
            &plan.to_string(),
            outcome.ended.since(Instant::default()).as_micros() as f64 / 1e6,
            outcome.buffer,
        );
    }
    out
}
