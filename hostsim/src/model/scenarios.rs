//! Downloads over lines as homes have them, with TCP's slow start, full queues and recovery, and what each scheduling rule is
//! worth there: each is switched off in the scenario that shows it. Whole numbers only, so that it is the same
//! everywhere. `hostsim model --rules` prints it anew.
//!
//! ```text
#![doc = include_str!("../../rules-table.txt")]
//! ```

use bamqp_core::rules::{Rule, Rules};
use bamqp_core::time::{Instant, Span};
use bamqp_core::transfer::Outcome;
use bamqp_core::trust::Standing;

use super::tcp::QUEUE;
use super::world::{Happening, Job, World};

const MIB: u64 = 1 << 20;
const MBIT: u64 = 125_000;
const FOUR: &[u64] = &[20_000, 15_000, 10_000, 5_000];

/// How often each is carried out.
const TIMES: u64 = 5;

/// What is downloaded, and what happens meanwhile.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// How it is called.
    pub name: &'static str,
    /// kbit/s of each line, the own one first.
    links: &'static [u64],
    /// ms to the origin and back; one for all or one for each.
    rtts: &'static [u64],
    window: u64,
    size: u64,
    /// So many downloads of this size at the same time.
    downloads: u64,
    newcomers: bool,
    /// From so many ms on a line has so many kbit/s.
    changes: &'static [(u64, usize, u64)],
}

/// What came of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cell {
    /// How long it took.
    pub took: Span,
    /// The time it takes if every line is used in full all the time, as a share of that, in thousandths.
    pub of_limit: u64,
    /// The longest standstill of a client after its first byte.
    pub standstill: Span,
    /// Bytes that were fetched for nothing.
    pub repeated: u64,
    /// From the first lane that had nothing more to bring to the last.
    pub tail: Span,
    /// How many of the downloads ended before their file did.
    pub broken: u64,
}

const PLAIN: Scenario = Scenario {
    name: "rtt-1",
    links: FOUR,
    rtts: &[1],
    window: MIB,
    size: 64 * MIB,
    downloads: 1,
    newcomers: false,
    changes: &[],
};

/// All of them.
pub const SCENARIOS: &[Scenario] = &[
    PLAIN,
    Scenario { name: "rtt-40", rtts: &[40], ..PLAIN },
    Scenario { name: "rtt-40-new", rtts: &[40], newcomers: true, ..PLAIN },
    Scenario { name: "rtt-100", rtts: &[100], window: 4 * MIB, ..PLAIN },
    Scenario { name: "mixed", rtts: &[20, 40, 100, 200], window: 4 * MIB, ..PLAIN },
    Scenario { name: "narrow", rtts: &[40], window: MIB / 2, ..PLAIN },
    Scenario { name: "short", rtts: &[40], size: 4 * MIB, ..PLAIN },
    Scenario { name: "1:16", links: &[32_000, 2_000], rtts: &[20], ..PLAIN },
    Scenario { name: "one-crawls", links: &[20_000, 15_000, 10_000, 200], rtts: &[20], ..PLAIN },
    Scenario { name: "slow", rtts: &[40], changes: &[(4_000, 1, 1_500)], ..PLAIN },
    Scenario { name: "slow-rtt-1", changes: &[(4_000, 1, 1_500)], ..PLAIN },
    Scenario { name: "slow-rtt-100", rtts: &[100], window: 4 * MIB, changes: &[(4_000, 1, 1_500)], ..PLAIN },
    Scenario { name: "silent", rtts: &[40], changes: &[(4_000, 2, 0)], ..PLAIN },
    Scenario { name: "back", rtts: &[40], changes: &[(2_000, 1, 0), (6_000, 1, 15_000)], ..PLAIN },
    Scenario { name: "16-at-once", size: 4 * MIB, downloads: 16, ..PLAIN },
    Scenario { name: "32-at-once", size: 2 * MIB, downloads: 32, ..PLAIN },
];

/// Which scenario shows what a rule is worth.
pub fn shown_by(rule: Rule) -> &'static str {
    match rule {
        Rule::AskAhead | Rule::ChunkByTime => "rtt-40",
        Rule::StartSlowly => "mixed",
        Rule::HoldAhead => "narrow",
        Rule::EarliestCompletion | Rule::Rescue => "slow",
        Rule::OfferSlowed => "slow-rtt-100",
        Rule::Spare => "silent",
        Rule::ComeBack => "back",
        Rule::FinishTogether | Rule::RepeatLast => "short",
        Rule::LetGo => "one-crawls",
    }
}

impl Scenario {
    /// The one with this name.
    pub fn named(name: &str) -> Option<Scenario> {
        SCENARIOS.iter().copied().find(|scenario| scenario.name == name)
    }

    /// Carries it out five times, with other places checked each time: what is lost when differs a lot with little. The
    /// mean; of standstills and tails the longest.
    pub fn measure(&self, rules: Rules) -> Cell {
        let mut cell = Cell::default();
        for time in 0..TIMES {
            let one = self.measure_one(rules, 1 + time * self.downloads);
            cell.took = cell.took + one.took.scale(1, TIMES);
            cell.repeated += one.repeated / TIMES;
            cell.standstill = cell.standstill.max(one.standstill);
            cell.tail = cell.tail.max(one.tail);
            cell.broken += one.broken;
        }
        cell.of_limit = self.ideal().as_micros() * 1_000 / cell.took.as_micros().max(1);
        cell
    }

    fn measure_one(&self, rules: Rules, first_seed: u64) -> Cell {
        let mut world = World::default();
        for (line, &rate) in self.links.iter().enumerate() {
            let rtt = self.rtts.get(line).or(self.rtts.first()).copied().unwrap_or(0);
            world.net.add_tcp_line(rate * MBIT / 1_000, Span::from_millis(rtt), QUEUE);
        }
        for &(ms, line, rate) in self.changes {
            world.happen(Instant::from_micros(ms * 1_000), Happening::Rate(line, rate * MBIT / 1_000));
        }
        for seed in first_seed..first_seed + self.downloads {
            let peers = (1..self.links.len()).collect();
            let job = Job { rules, seed, ..Job::new(0, peers, 0..self.size, self.window as usize) };
            let standing = if self.newcomers { Standing::Newcomer { clean: 0 } } else { job.standing };
            // Receive buffers hold more than one bandwidth-delay product.
            let socket = job.socket.max((4 * self.size_per_second() / 10) as u32);
            world.start(Instant::default(), Job { standing, socket, ..job });
        }
        let mut cell = Cell::default();
        for result in world.run(Instant::from_micros(u64::MAX)).values() {
            cell.broken += u64::from(result.outcome != Outcome::Complete);
            cell.took = cell.took.max(result.ended.since(result.began));
            cell.standstill = cell.standstill.max(result.standstill);
            cell.repeated += result.lanes.iter().map(|lane| lane.stats.duplicates).sum::<u64>();
            cell.tail = cell.tail.max(result.tail);
        }
        cell
    }

    /// Bytes that the fastest line carries in a second.
    fn size_per_second(&self) -> u64 {
        self.links.iter().max().copied().unwrap_or(0) * MBIT / 1_000
    }

    /// How long it takes if every line is used in full all the time.
    fn ideal(&self) -> Span {
        let mut rates = self.links.to_vec();
        let (mut now, mut left) = (0, self.size * self.downloads);
        let mut changes = self.changes.iter().copied();
        loop {
            let sum = rates.iter().sum::<u64>() * MBIT / 1_000;
            let done = now + left * 1_000_000 / sum;
            let Some((ms, line, rate)) = changes.next().filter(|change| change.0 * 1_000 < done) else {
                return Span::from_micros(done);
            };
            left -= (ms * 1_000 - now) * sum / 1_000_000;
            now = ms * 1_000;
            rates[line] = rate;
        }
    }
}

/// The table as it is in the documentation.
pub fn table() -> String {
    let mut text = String::from(
        "Downloads over lines with TCP and queues of 100 ms: 64 MiB over 20, 15, 10 and 5 Mbit/s with a window of 1 MiB, 4 MiB\n\
         from 100 ms on, unless the name says otherwise. Means of five; standstill and tail: the longest. A hundredth of the\n\
         limit more or less is chance.\n\n",
    );
    text += &format!("{:<31}{HEAD}\n", "scenario");
    for scenario in SCENARIOS {
        text += &format!("{:<31}{}\n", scenario.name, scenario.measure(Rules::default()).columns());
    }
    text += &format!("\nThe same without a rule:\n\n{:<31}{HEAD}\n", "rule                scenario");
    for rule in Rule::ALL {
        let scenario = Scenario::named(shown_by(rule)).expect("each rule names one of the scenarios");
        let cell = scenario.measure(Rules::without(rule));
        text +=
            &format!("{:<31}{}\n", format!("{:<20}{}", format!("{rule:?}"), scenario.name), cell.columns());
    }
    text
}

const HEAD: &str = "   seconds  of limit  standstill   repeated     tail";

impl Cell {
    fn columns(&self) -> String {
        if self.broken > 0 {
            return format!(
                "{:>10}{:>10}  {} downloads came to a standstill for good",
                "-", "-", self.broken
            );
        }
        let ms = self.took.as_millis();
        format!(
            "{:>10}{:>10}{:>9} ms{:>7} KiB{:>6} ms",
            format!("{}.{:02}", ms / 1_000, ms % 1_000 / 10),
            format!("{}.{:03}", self.of_limit / 1_000, self.of_limit % 1_000),
            self.standstill.as_millis(),
            self.repeated >> 10,
            self.tail.as_millis(),
        )
    }
}
