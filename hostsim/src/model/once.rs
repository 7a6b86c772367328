//! One modelled download, first over the own line alone, then pooled, with what goes wrong in it; reported like
//! `hostsim run` does, with the reorder metrics. Not responsible for the simulation itself.

use std::time::Duration;

use bamqp_core::time::{Instant, Span};
use bamqp_core::transfer::{Fault as LaneFault, LaneKind, LaneState, LaneView, Outcome};
use bamqp_core::trust::Standing;

use super::content::Tamper;
use super::lines::Net;
use super::options::Options;
use super::tcp;
use super::world::{self, Happening, Job, Result, World};
use crate::fault::{Fault, router_name, variant_of};
use crate::report::{Lane, PassedOn, Phase, Report};

/// The result of one modelled download.
#[derive(Clone, Debug)]
pub struct Modelled {
    report: Report,
    result: Result,
}

/// Downloads over `net`'s first line, then over all of them.
pub fn run(net: Net, options: &Options, window: usize, seed: u64) -> Modelled {
    let limit: u64 = net.lines.iter().map(|line| line.rate).sum();
    let size = options.run.size;
    let (own, _) = download(World::over(net.clone()), Job::new(0, Vec::new(), 0..size, window));
    let mut world = World::over(net);
    for fault in &options.run.faults {
        inject(&mut world, fault);
    }
    // A session takes as many lanes as its window bears; the fastest are of the most use.
    let (routers, topology) = (world.net.lines.len(), &options.run.topology);
    let mut peers = topology.heard_by(0, routers);
    peers.sort_by_key(|&i| std::cmp::Reverse(world.net.lines[i].rate));
    peers.truncate(bamqp_core::select::MAX_PEERS);
    if options.peers.is_none() {
        peers.sort_unstable();
    }
    let names: Vec<String> = peers.iter().map(|&i| router_name(i)).collect();
    let hears = (1..routers).map(|router| (router, topology.heard_by(router, routers))).collect();
    let mut job = Job { hears, ..Job::new(0, peers, 0..size, window) };
    if options.tcp {
        // Receive buffers hold more than one bandwidth-delay product, queue included.
        let holds =
            |line: &super::lines::Line| 2 * line.rate * (line.rtt + tcp::QUEUE).as_micros() / 1_000_000;
        job.socket = world.net.lines.iter().map(holds).max().unwrap_or(0).max(job.socket.into()) as u32;
    }
    let standing = if options.newcomers { Standing::Newcomer { clean: 0 } } else { job.standing };
    world.set_seed(seed);
    let (pooled, faults_met) = download(world, Job { standing, seed, ..job });
    let timed = options
        .run
        .faults
        .iter()
        .filter_map(Fault::at)
        .filter(|&at| at < duration(pooled.ended.since(pooled.began)));
    let faults_injected = faults_met + timed.count() as u64;
    let report = Report {
        seed,
        size,
        limit: limit as f64 * 8.0,
        own: phase(&own, size),
        pooled: phase(&pooled, size),
        window_used: pooled.window_used as u32,
        outcome: Some(format!("{:?}", pooled.outcome).to_lowercase()),
        faults: options.run.faults.iter().map(|fault| (fault.to_string(), faults_injected > 0)).collect(),
        faults_injected,
        lanes: lanes(&pooled, &names),
        passed_on: passed_on(&pooled),
        again: None,
        wrong: Vec::new(),
    };
    Modelled { report, result: pooled }
}

impl Modelled {
    /// The aligned summary.
    pub fn summary(&self) -> String {
        let mut out = self.report.summary();
        let reorder = &self.result.reorder;
        out += &format!("{:<11}{:>9} ms\n", "standstill", self.result.standstill.as_millis());
        out += &format!(
            "reordering, RFC 5236, over slots of 16 KiB\n  RD   mean displacement {:.2}:",
            reorder.mean_displacement()
        );
        let near = |d: i64| match d {
            ..-16 => -17,
            17.. => 17,
            d => d,
        };
        let mut classes = std::collections::BTreeMap::new();
        for (&d, share) in &reorder.density {
            *classes.entry(near(d)).or_insert(0.0) += share;
        }
        for (d, share) in classes {
            let name = match d {
                -17 => "<-16".into(),
                17 => ">16".into(),
                d => d.to_string(),
            };
            out += &format!(" {name}:{share:.3}");
        }
        out += &format!("\n  RBD  mean occupancy {:.2}:", reorder.mean_occupancy());
        let mut classes = std::collections::BTreeMap::new();
        for (&n, share) in &reorder.occupancy {
            *classes.entry(n / 8).or_insert(0.0) += share;
        }
        for (class, share) in classes {
            out += &format!(" {}-{}:{share:.3}", class * 8, class * 8 + 7);
        }
        out + "\n"
    }

    /// One JSON object: that of `hostsim run`.
    pub fn json(&self) -> String {
        self.report.json()
    }

    /// Complete, or ended early because nobody could bring the rest: never anything else.
    pub fn is_as_it_should(&self) -> bool {
        matches!(self.result.outcome, Outcome::Complete | Outcome::NoLaneLeft(_) | Outcome::Unverified)
    }

    /// How long the pooled download took.
    pub fn pooled_seconds(&self) -> f64 {
        self.report.pooled.took.as_secs_f64()
    }

    /// Bytes of the window in use at most.
    pub fn window_used(&self) -> u64 {
        self.report.window_used.into()
    }

    /// Everything about the pooled download.
    pub fn result(&self) -> &Result {
        &self.result
    }
}

fn download(mut world: World, job: Job) -> (Result, u64) {
    let number = world.start(Instant::default(), job);
    // A download that stands still for good is given up by the core after a minute; this is far beyond that.
    let mut results = world.run(Instant::default() + Span::from_millis(1_000_000_000));
    let result = results.remove(&number).expect("a session always ends");
    (result, world.faults_met() + world.lies_told())
}

/// Has a fault of `hostsim run` happen to the modelled lines.
pub fn inject(world: &mut World, fault: &Fault) {
    let at = |at: Duration| Instant::from_micros(at.as_micros() as u64);
    let start = Instant::default();
    match *fault {
        Fault::Kill { router, at: when } => world.happen(at(when), Happening::Down(router)),
        Fault::Stall { router, at: when } => world.happen(at(when), Happening::Rate(router, 0)),
        Fault::Slow { router, at: when, factor } => {
            let rate = (world.net.lines[router].rate as f64 * factor) as u64;
            world.happen(at(when), Happening::Rate(router, rate.max(1)));
        }
        Fault::Busy { router, at: when } => {
            world.happen(start, Happening::Watch(router));
            world.happen(at(when), Happening::Busy(router));
        }
        Fault::CorruptLength { router } => {
            world.happen(start, Happening::Refuse(router, LaneFault::WrongLength))
        }
        Fault::WrongRange { router } => world.happen(start, Happening::Refuse(router, LaneFault::WrongRange)),
        Fault::Change { at: when } => world.happen(at(when), Happening::Change),
        Fault::OneShot => {
            for line in 0..world.net.lines.len() {
                world.happen(start, Happening::Refuse(line, LaneFault::Status(403)));
            }
        }
        Fault::PerIpLimit { connections } => world.happen(start, Happening::Limit(connections)),
        Fault::Lie { router } => world.happen(start, Happening::Lie(router, Tamper::EVERYTHING)),
        Fault::LieOnce { router } => {
            // The first chunks are over by then.
            let later = at(Duration::from_millis(500));
            world.happen(later, Happening::Lie(router, Tamper { left: 1, ..Tamper::EVERYTHING }));
        }
        Fault::Variant { count } => {
            for line in 0..world.net.lines.len() {
                world.happen(start, Happening::Variant(line, variant_of(line, count) as u8));
            }
        }
    }
}

fn duration(span: Span) -> Duration {
    Duration::from_micros(span.as_micros())
}

fn phase(result: &Result, size: u64) -> Phase {
    let right = result.outcome == Outcome::Complete && result.bytes == size;
    Phase {
        took: duration(result.ended.since(result.began)),
        first_byte: (result.bytes > 0).then(|| duration(result.first_byte.since(result.began))),
        received: result.bytes,
        right,
        verdict: if right { "each byte once, in order".into() } else { "ended early".into() },
    }
}

fn lanes(result: &Result, peers: &[String]) -> Vec<Lane> {
    let mut peers = peers.iter();
    let name = |lane: &LaneView| match lane.kind {
        LaneKind::Original => "A original".into(),
        LaneKind::Own => "A own".into(),
        LaneKind::Peer => peers.next().cloned().unwrap_or_default(),
    };
    let names: Vec<String> = result.lanes.iter().map(name).collect();
    names.into_iter().zip(&result.lanes).map(|(name, lane)| reported(name, lane)).collect()
}

/// What each router had its own peers do, until the end of the connection that asked it.
fn passed_on(result: &Result) -> Vec<PassedOn> {
    let lane = |(line, lane): &(usize, LaneView)| {
        let own = if lane.kind == LaneKind::Own { " own" } else { "" };
        reported(format!("{}{own}", router_name(*line)), lane)
    };
    let of = |by: &world::PassedOn| PassedOn {
        router: router_name(by.line),
        lanes: by.lanes.iter().map(lane).collect(),
    };
    // Where the coordinator has asked them all itself nobody is left to help.
    let has_help = |by: &&world::PassedOn| {
        by.lanes.iter().any(|(_, lane)| lane.kind == LaneKind::Peer && lane.stats.bytes > 0)
    };
    result.passed_on.iter().filter(has_help).map(of).collect()
}

fn reported(name: String, lane: &LaneView) -> Lane {
    Lane {
        name,
        bytes: lane.stats.bytes,
        requests: lane.stats.requests,
        timeouts: lane.stats.timeouts,
        failures: lane.stats.failures,
        violations: lane.stats.violations,
        duplicates: lane.stats.duplicates,
        checked: lane.stats.checked,
        verdict: lane.stats.verdict.map(|verdict| verdict.to_string()),
        state: match lane.state {
            LaneState::Joining => "joining".into(),
            LaneState::Up => "up".into(),
            LaneState::Probing => "probing".into(),
            LaneState::Resting { .. } => "resting".into(),
            LaneState::Accused { .. } => "accused".into(),
            LaneState::Dismissed => "done".into(),
            LaneState::Left(why) => format!("left: {why}"),
        },
    }
}
