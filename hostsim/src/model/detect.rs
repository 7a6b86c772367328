//! How often a lying peer is found out: the formula of [`bamqp_core::verify`] against modelled sessions. `hostsim model
//! --detect` prints the table anew. Not responsible for the checks; they are the core's.
//!
//! ```text
#![doc = include_str!("../../detection-table.txt")]
//! ```

use bamqp_core::limits::{MAX_CHUNK_SLOTS, PLACE_BYTES, SLOT_BYTES};
use bamqp_core::time::{Instant, Span};
use bamqp_core::transfer::{Dispute, Outcome};
use bamqp_core::trust::{Checking, Standing};

use super::content::Tamper;
use super::world::{Happening, Job, Result, World};

/// Chunks of peers are as long as they get, so that the formula has one length to go by.
const CHUNK: u64 = MAX_CHUNK_SLOTS * SLOT_BYTES as u64;

/// The lines: the own one, the liar's, and one that can be asked who is right; bytes per second each.
const RATE: u64 = 5_000_000;

/// What a session downloads.
const SIZE: u64 = 16 << 20;

/// A liar and how closely it is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// How far it is trusted.
    pub standing: Standing,
    /// Bytes that it alters in a row, somewhere in a chunk.
    pub run: u64,
    /// In so many of a thousand chunks.
    pub per_1000: u64,
}

/// What came of it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Cell {
    /// Altered chunks that were checked.
    pub checked: u64,
    /// Those of them that were found.
    pub found: u64,
    /// Sessions in which at least one chunk was altered.
    pub lied: u64,
    /// Honest peers that were taken for liars.
    pub blamed: u64,
}

/// All rows.
pub fn rows() -> impl Iterator<Item = Row> {
    let standings = [Standing::Newcomer { clean: 0 }, Standing::Trusted { accused: false }];
    let runs = [1, 1 << 10, 16 << 10, CHUNK];
    let shares = [10, 100, 1000];
    standings.into_iter().flat_map(move |standing| {
        runs.into_iter()
            .flat_map(move |run| shares.into_iter().map(move |per_1000| Row { standing, run, per_1000 }))
    })
}

impl Row {
    /// The probability with which an altered chunk is found, by the formula.
    pub fn predicted(&self) -> f64 {
        let Checking { places, audit_per_10000 } = self.standing.checking();
        let stratum = CHUNK as f64 / f64::from(places);
        let u = (self.run + PLACE_BYTES as u64 - 1) as f64 / stratum;
        let sampled = match u {
            ..=1.0 => u - u.powi(3) / 6.0,
            ..=2.0 => 1.0 - (2.0 - u).powi(3) / 6.0,
            _ => 1.0,
        };
        let slots = ((self.run - 1) as f64 / SLOT_BYTES as f64 + 1.0).min(MAX_CHUNK_SLOTS as f64);
        let audited = slots * f64::from(audit_per_10000) / 10_000.0;
        1.0 - (1.0 - sampled) * (1.0 - audited)
    }

    /// What happens in `sessions` sessions.
    pub fn measure(&self, sessions: u64) -> Cell {
        let mut cell = Cell::default();
        for seed in 0..sessions {
            let tamper = Tamper { run: self.run, per_1000: self.per_1000, least: CHUNK, left: u64::MAX };
            let (result, lies) = session(seed, self.standing, SIZE, &[Happening::Lie(1, tamper)]);
            let found = u64::from(result.lanes[2].stats.mismatches > 0);
            cell.found += found;
            cell.checked += found + result.escaped;
            cell.lied += u64::from(lies > 0);
            cell.blamed += u64::from(result.lanes[3].stats.verdict == Some(Dispute::Lie));
        }
        cell
    }
}

impl Cell {
    /// The share of altered chunks that was found.
    pub fn measured(&self) -> f64 {
        self.found as f64 / self.checked.max(1) as f64
    }

    /// The standard error of that, if the prediction holds.
    pub fn error(&self, predicted: f64) -> f64 {
        (predicted * (1.0 - predicted) / self.checked.max(1) as f64).sqrt()
    }
}

/// One download over three lines; what became of it, and how many chunks were altered.
fn session(seed: u64, standing: Standing, size: u64, happenings: &[Happening]) -> (Result, u64) {
    let mut world = World::default();
    world.set_seed(seed ^ 0x6c69_6172);
    for _ in 0..3 {
        world.net.add_line(RATE, Span::from_millis(5));
    }
    for &what in happenings {
        world.happen(Instant::default(), what);
    }
    let job = Job { standing, seed, ..Job::new(0, vec![1, 2], 0..size, 4 << 20) };
    let number = world.start(Instant::default(), job);
    let mut results = world.run(Instant::from_micros(u64::MAX));
    let result = results.remove(&number).expect("a session ends");
    assert_eq!(result.outcome, Outcome::Complete);
    (result, world.lies_told())
}

/// Chunks altered from the first byte to the last of which the client got anything, in `sessions` sessions, each with one
/// liar that alters all that it brings; and how many chunks those were.
pub fn whole_chunks(sessions: u64) -> (u64, u64) {
    let newcomer = Standing::Newcomer { clean: 0 };
    let trusted = Standing::Trusted { accused: false };
    (0..sessions).fold((0, 0), |(escaped, altered), seed| {
        let standing = if seed % 2 == 0 { newcomer } else { trusted };
        let (result, lies) = session(seed, standing, 4 << 20, &[Happening::Lie(1, Tamper::EVERYTHING)]);
        (escaped + result.escaped, altered + lies)
    })
}

/// How many peers were blamed in `sessions` sessions with an origin that serves each address other bytes, or two variants.
pub fn blamed_for_variants(sessions: u64) -> u64 {
    let blamed = |seed: u64| {
        let own = seed % 2;
        let variants = [Happening::Variant(1, 1), Happening::Variant(2, if own == 0 { 2 } else { 1 })];
        let (result, _) = session(seed, Standing::Newcomer { clean: 0 }, 4 << 20, &variants);
        assert_eq!(result.mixed, 0, "the client gets one variant");
        result.lanes.iter().filter(|lane| lane.stats.verdict == Some(Dispute::Lie)).count() as u64
    };
    (0..sessions).map(blamed).sum()
}

/// The table, with `sessions` sessions a row; `progress` hears of each row.
pub fn table(sessions: u64, mut progress: impl FnMut(usize)) -> String {
    let mut text = format!(
        "How often a peer is found out that alters a run of bytes in some of its chunks of 256 KiB, {sessions} sessions a row.\n\
         predicted, measured: share of the altered chunks; error: of the measurement, one standard deviation.\n\n\
         peer      altered    of chunks  predicted  measured    error   checked  sessions found\n"
    );
    let mut blamed = 0;
    for (number, row) in rows().enumerate() {
        progress(number);
        let (cell, predicted) = (row.measure(sessions), row.predicted());
        let altered = match row.run {
            1 => "1 byte".to_owned(),
            CHUNK => "all".to_owned(),
            bytes => crate::report::size(bytes),
        };
        text += &format!(
            "{:<10}{altered:<11}{:>7} %{:>11.4}{:>10.4}{:>9.4}{:>10}{:>7} of {}\n",
            row.standing.to_string(),
            row.per_1000 / 10,
            predicted,
            cell.measured(),
            cell.error(predicted),
            cell.checked,
            cell.found,
            cell.lied,
        );
        blamed += cell.blamed;
    }
    let (escaped, altered) = whole_chunks(5 * sessions);
    text += &format!("\naltered bytes of whole chunks released: of {escaped} of {altered} chunks\n");
    text += &format!("honest peers blamed beside liars: {blamed}\n");
    text += &format!(
        "honest peers blamed where the origin serves variants: {} in {sessions} sessions\n",
        blamed_for_variants(sessions)
    );
    text
}
