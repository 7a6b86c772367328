//! Hours of a neighbourhood: households start downloads now and then, whoever is idle helps, and lines get faster,
//! slower, die and come back. Not responsible for a single download's details; those are added up.

use std::fmt::Write;

use bamqp_core::time::{Instant, Span};
use bamqp_core::transfer::{LaneKind, Outcome};

use super::random::Random;
use super::world::{Happening, Job, Result, World};

/// Most peers that a download asks.
const MOST_PEERS: usize = 14;

/// What is to be simulated.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// How long.
    pub span: Span,
    /// The window of each download, in bytes.
    pub window: usize,
    /// What chance follows from.
    pub seed: u64,
}

/// What all downloads came to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tally {
    /// Downloads that ended.
    pub downloads: usize,
    /// Of those, all bytes came.
    pub complete: usize,
    /// Ended early since no lane was left.
    pub broken: usize,
    /// Payload that clients got, in bytes.
    pub bytes: u64,
    /// Of that, over peers' lines.
    pub helped: u64,
    /// Fetched for nothing, in bytes.
    pub duplicates: u64,
    /// Speed-up of each complete download over its own line at its usual rate, in hundredths, sorted.
    pub speedups: Vec<u64>,
    /// The longest standstill of each complete download, sorted.
    pub standstills: Vec<Span>,
}

/// Simulates a neighbourhood whose lines are those of `world`; `progress` is told the virtual time now and then.
pub fn simulate(mut world: World, plan: Plan, mut progress: impl FnMut(Span)) -> Tally {
    let mut random = Random::new(plan.seed);
    let usual: Vec<u64> = world.net.lines.iter().map(|line| line.rate).collect();
    let mut starts: Vec<(Instant, usize)> = Vec::new();
    for (line, &rate) in usual.iter().enumerate() {
        weather(&mut world, &mut random, line, rate, plan.span);
        // A household starts a download every ten minutes or so.
        let mut at = random.between(0, 600_000_000);
        while at < plan.span.as_micros() {
            starts.push((Instant::from_micros(at), line));
            at += random.between(60_000_000, 1_200_000_000);
        }
    }
    starts.sort_by_key(|&(at, line)| (at.as_micros(), line));
    let mut tally = Tally::default();
    let mut told = 0;
    for (at, own) in starts {
        for result in world.run(at).into_values() {
            tally.add(&result, &usual);
        }
        if at.as_micros() / 60_000_000 > told {
            told = at.as_micros() / 60_000_000;
            progress(at.since(Instant::default()));
        }
        if world.is_busy(own) || !world.net.lines[own].up {
            continue;
        }
        let mut peers: Vec<usize> =
            (0..usual.len()).filter(|&i| i != own && world.net.lines[i].up && !world.is_busy(i)).collect();
        peers.sort_by_key(|&i| std::cmp::Reverse(world.net.lines[i].rate));
        peers.truncate(MOST_PEERS);
        let size = random.between(4 << 20, 100 << 20);
        let from = if random.once_in(5) { random.between(1, size / 2) } else { 0 };
        let job = Job::new(own, peers, from..size, plan.window);
        world.start(at, job);
    }
    let end = Instant::default() + plan.span + Span::from_millis(600_000);
    world.run(end).values().for_each(|result| tally.add(result, &usual));
    tally.speedups.sort_unstable();
    tally.standstills.sort_unstable();
    tally
}

/// What happens to a line in the given time: every half minute or so it gets faster or slower; sometimes it goes
/// silent for some seconds, rarely it is down for up to a minute.
fn weather(world: &mut World, random: &mut Random, line: usize, usual: u64, span: Span) {
    let mut at = 0;
    loop {
        at += random.between(10_000_000, 60_000_000);
        if at >= span.as_micros() {
            return;
        }
        let now = Instant::from_micros(at);
        if random.once_in(60) {
            world.happen(now, Happening::Down(line));
            at += random.between(5_000_000, 60_000_000);
            world.happen(Instant::from_micros(at), Happening::Up(line));
        } else if random.once_in(30) {
            world.happen(now, Happening::Rate(line, 0));
            at += random.between(500_000, 10_000_000);
        }
        let rate = usual * random.between(25, 125) / 100;
        world.happen(Instant::from_micros(at), Happening::Rate(line, rate));
    }
}

impl Tally {
    fn add(&mut self, result: &Result, usual: &[u64]) {
        self.downloads += 1;
        self.bytes += result.bytes;
        for lane in &result.lanes {
            self.duplicates += lane.stats.duplicates;
            if lane.kind == LaneKind::Peer {
                self.helped += lane.stats.bytes;
            }
        }
        match result.outcome {
            Outcome::Complete => {
                self.complete += 1;
                let took = result.ended.since(result.began).as_micros().max(1);
                let alone = result.bytes * 1_000_000 / usual[result.own].max(1);
                self.speedups.push(alone * 100 / took);
                self.standstills.push(result.standstill);
            }
            Outcome::NoLaneLeft(_) | Outcome::Unverified => self.broken += 1,
            Outcome::ClientGone => {}
        }
    }

    /// The aligned summary.
    pub fn summary(&self) -> String {
        let mut out = String::new();
        let quantile =
            |list: &[u64], percent: usize| list.get((list.len().max(1) - 1) * percent / 100).copied();
        let speed = |percent| quantile(&self.speedups, percent).unwrap_or(0) as f64 / 100.0;
        let still: Vec<u64> = self.standstills.iter().map(|s| s.as_millis()).collect();
        let still = |percent| quantile(&still, percent).unwrap_or(0);
        let mib = |bytes: u64| bytes as f64 / 1_048_576.0;
        let _ = writeln!(
            out,
            "downloads  {:>10}   complete {}, ended early {}",
            self.downloads, self.complete, self.broken
        );
        let _ = writeln!(
            out,
            "payload    {:>10.1} MiB, over neighbours' lines {:.1} MiB, repeated {:.1} MiB",
            mib(self.bytes),
            mib(self.helped),
            mib(self.duplicates)
        );
        let _ = writeln!(
            out,
            "speed-up   {:>10.2}   median; slowest tenth below {:.2}, fastest above {:.2}",
            speed(50),
            speed(10),
            speed(90)
        );
        let _ =
            writeln!(out, "standstill {:>10} ms median; one in a hundred above {} ms", still(50), still(99));
        out
    }

    /// The same as one JSON object.
    pub fn json(&self) -> String {
        let middle = self.speedups.get(self.speedups.len() / 2).copied().unwrap_or(0) as f64 / 100.0;
        format!(
            "{{\"ok\":{},\"downloads\":{},\"complete\":{},\"broken\":{},\"bytes\":{},\"helped\":{},\"duplicates\":{},\"speedup_median\":{middle:.2}}}",
            self.downloads == self.complete + self.broken,
            self.downloads,
            self.complete,
            self.broken,
            self.bytes,
            self.helped,
            self.duplicates
        )
    }
}
