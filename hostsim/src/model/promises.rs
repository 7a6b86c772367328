//! What routers that pass work on should promise for themselves and their own peers: the choices of
//! [`bamqp_core::hops::Promise`] side by side, where they come true and where they don't. `hostsim model --promises` prints the
//! table anew. Whole numbers only, so that it is the same everywhere.
//!
//! ```text
#![doc = include_str!("../../promise-table.txt")]
//! ```

use bamqp_core::hops::Promise;
use bamqp_core::time::{Instant, Span};
use bamqp_core::transfer::Outcome;

use super::table::decimal;
use super::world::{Job, World};
use crate::topology::Topology;

/// What each row downloads: more than ten seconds' worth.
const SIZE: u64 = 64 << 20;

/// How often: where they differ is which places are checked, and with that in much that follows.
const DOWNLOADS: u64 = 3;

/// The window of all routers.
const WINDOW: usize = 1 << 20;

/// What routers may promise.
pub const PROMISES: [Promise; 3] = [Promise::Own, Promise::Average, Promise::Sum];

/// A neighbourhood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Who hears whom.
    pub topology: Topology,
    /// Mbit/s of each router's line; the first is the coordinator's.
    pub links: [u64; 4],
    /// Round trip to the origin over each of them, in ms.
    pub rtt: u64,
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cell {
    /// Goodput as a share of the links' sum, from the request to the last byte, in thousandths.
    pub overall: u64,
    /// Likewise, in the first second.
    pub first_second: u64,
    /// Bytes that were fetched for nothing, over all lines.
    pub duplicates: u64,
}

/// All rows.
pub fn rows() -> impl Iterator<Item = Row> {
    // In a mesh all promises but the own line's are broken: whoever is asked was asked before. In the third neighbourhood C is
    // asked by A, too, and D by B alone.
    let half = Topology::Pairs(vec![(0, 1), (0, 2), (1, 2), (1, 3)]);
    // The sum is 50 Mbit/s each time.
    let links = [[5, 5, 20, 20], [12, 13, 12, 13], [20, 20, 5, 5]];
    [Topology::Chain, Topology::Mesh, half].into_iter().flat_map(move |topology| {
        links.into_iter().flat_map(move |links| {
            let topology = topology.clone();
            [0, 10, 40].map(|rtt| Row { topology: topology.clone(), links, rtt })
        })
    })
}

impl Row {
    /// Downloads in which those who pass work on promise that; on the average.
    pub fn measure(&self, promise: Promise) -> Cell {
        let cells: Vec<Cell> = (1..=DOWNLOADS).map(|seed| self.download(promise, seed)).collect();
        let mean = |of: fn(&Cell) -> u64| cells.iter().map(of).sum::<u64>() / DOWNLOADS;
        Cell {
            overall: mean(|cell| cell.overall),
            first_second: mean(|cell| cell.first_second),
            duplicates: mean(|cell| cell.duplicates),
        }
    }

    fn download(&self, promise: Promise, seed: u64) -> Cell {
        let mut world = World::default();
        for mbits in self.links {
            world.net.add_line(mbits * 125_000, Span::from_millis(self.rtt));
        }
        let routers = self.links.len();
        let hears = |router: usize| (router, self.topology.heard_by(router, routers));
        let job = Job::new(0, self.topology.heard_by(0, routers), 0..SIZE, WINDOW);
        let hears = (1..routers).map(hears).collect();
        let number = world.start(Instant::default(), Job { hears, promise, seed, ..job });
        let result = world.run(Instant::from_micros(u64::MAX)).remove(&number).expect("a session ends");
        assert_eq!(result.outcome, Outcome::Complete);
        let sum = self.links.iter().sum::<u64>() * 125_000;
        let share = |bytes: u64, us: u64| bytes * 1_000_000 / us * 1_000 / sum;
        Cell {
            overall: share(result.bytes, result.ended.since(result.began).as_micros()),
            first_second: share(result.after_a_second, 1_000_000),
            duplicates: result.duplicates(),
        }
    }
}

/// The table as it is in the documentation.
pub fn table() -> String {
    let mut text = String::from(
        "Goodput as a share of the links' sum: the whole download / its first second, and KiB that were fetched twice,\n\
         by what routers promise that pass work on: their own link, the average with their peers' links, or all together.\n\
         3 times 64 MiB, a window of 1 MiB, peers with a clean record; Mbit/s of A's (the coordinator's), B's, C's and D's link.\n\n\
         topology         links         RTT         own link             average           all together\n",
    );
    let mut all: [Vec<Cell>; PROMISES.len()] = Default::default();
    for row in rows() {
        let links: Vec<String> = row.links.iter().map(u64::to_string).collect();
        text += &format!("{:<17}{:<12}{:>2} ms", row.topology.to_string(), links.join("/"), row.rtt);
        for (promise, cells) in PROMISES.into_iter().zip(&mut all) {
            let cell = row.measure(promise);
            text += &both(cell.overall, cell.first_second);
            text += &format!("{:>5}", cell.duplicates.div_ceil(1024));
            cells.push(cell);
        }
        text.push('\n');
    }
    let mean = |numbers: &[u64]| numbers.iter().sum::<u64>() / numbers.len().max(1) as u64;
    let least = |numbers: &[u64]| numbers.iter().copied().min().unwrap_or(0);
    for (name, of) in [("mean", &mean as &dyn Fn(&[u64]) -> u64), ("least", &least)] {
        text += &format!("{name:<34}");
        for cells in &all {
            let overall: Vec<u64> = cells.iter().map(|cell| cell.overall).collect();
            let first_second: Vec<u64> = cells.iter().map(|cell| cell.first_second).collect();
            text += &format!("{}{:>5}", both(of(&overall), of(&first_second)), "");
        }
        text.push('\n');
    }
    text.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

fn both(overall: u64, first_second: u64) -> String {
    format!("{:>9} / {}", decimal(overall), decimal(first_second))
}
