//! The table of static links: how much of the links' sum a download gets, for many kinds of neighbourhoods.
//! Whole numbers only, so that it is the same everywhere. `hostsim model --table` prints it anew.
//!
//! ```text
#![doc = include_str!("../../model-table.txt")]
//! ```

use bamqp_core::limits::SLOT_BYTES;
use bamqp_core::time::{Instant, Span};
use bamqp_core::transfer::Outcome;

use super::world::{Job, World};

/// The sum of the links in each row, bytes per second: 50 Mbit/s.
pub const SUM: u64 = 6_250_000;

/// What each row downloads: 64 MiB, more than ten seconds' worth.
pub const SIZE: u64 = 64 << 20;

/// What a download is to get after its first second, in thousandths of the links' sum.
pub const ENOUGH: u64 = 970;

/// A neighbourhood of links that stay as they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// How many internet lines.
    pub lines: u64,
    /// How many times as fast as the slowest the fastest line is.
    pub ratio: u64,
    /// Round trip to the origin over each of them, in ms.
    pub rtt: u64,
    /// The coordinator's window in bytes.
    pub window: u64,
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cell {
    /// Goodput as a share of the links' sum, from the request to the last byte, in thousandths.
    pub overall: u64,
    /// Likewise, after the first second.
    pub after_a_second: u64,
    /// Bytes that were fetched for nothing.
    pub duplicates: u64,
    /// The longest standstill of the client.
    pub standstill: Span,
}

/// All rows.
pub fn rows() -> impl Iterator<Item = Row> {
    let windows = [1 << 20, 4 << 20];
    let lines = [2, 4, 8, 16];
    let ratios = [1, 4, 16];
    let rtts = [5, 20, 50, 100, 200];
    windows.into_iter().flat_map(move |window| {
        lines.into_iter().flat_map(move |lines| {
            ratios
                .into_iter()
                .flat_map(move |ratio| rtts.into_iter().map(move |rtt| Row { lines, ratio, rtt, window }))
        })
    })
}

impl Row {
    /// The lines' rates in bytes per second: from the fastest to the slowest in even steps, together [`SUM`]. The own
    /// link is the one in the middle.
    pub fn rates(&self) -> Vec<u64> {
        let (n, ratio) = (self.lines, self.ratio);
        // Twice the mean is fastest and slowest together: slowest = 2 S / (n (1 + ratio)).
        let rate = |i: u64| {
            let steps = (n - 1) * SUM * 2 * ratio - i * SUM * 2 * (ratio - 1);
            steps / ((n - 1) * n * (1 + ratio))
        };
        let mut rates: Vec<u64> = (0..n).map(rate).collect();
        let own = rates.remove(rates.len() / 2);
        rates.insert(0, own);
        rates
    }

    /// Whether the window is large enough: W >= S x (R + 45 ms) (DESIGN section 5, rule 3).
    pub fn is_promised(&self) -> bool {
        self.window * 1_000 >= SUM * (self.rtt + 45)
    }

    /// Whether it is also large enough for the slowest line, which is asked for a whole slot at a time, and for its slots to
    /// be checked: 45 ms are too few where twice a slot's time is longer.
    pub fn has_time_for_slots(&self) -> bool {
        let slowest = self.rates().into_iter().min().unwrap_or(1);
        self.window * 1_000 >= SUM * (self.rtt + 40 + 2 * SLOT_BYTES as u64 * 1_000 / slowest)
    }

    /// Downloads [`SIZE`] bytes over these lines.
    pub fn measure(&self) -> Cell {
        let mut world = World::default();
        for rate in self.rates() {
            world.net.add_line(rate, Span::from_millis(self.rtt));
        }
        let peers = (1..self.lines as usize).collect();
        let mut job = Job::new(0, peers, 0..SIZE, self.window as usize);
        // Receive buffers hold more than one bandwidth-delay product.
        job.socket = job.socket.max((2 * SUM * self.rtt / 1_000) as u32);
        world.start(Instant::default(), job);
        let results = world.run(Instant::from_micros(u64::MAX));
        let result = &results[&0];
        assert_eq!(result.outcome, Outcome::Complete);
        let took = result.ended.since(result.began).as_micros();
        let share = |bytes: u64, us: u64| bytes * 1_000_000 / us * 1_000 / SUM;
        Cell {
            overall: share(result.bytes, took),
            after_a_second: share(result.bytes - result.after_a_second, took - 1_000_000),
            duplicates: result.lanes.iter().map(|l| l.stats.duplicates).sum(),
            standstill: result.standstill,
        }
    }
}

/// The table as it is in the documentation.
pub fn table() -> String {
    let mut text = String::from(
        "Goodput as a share of the links' sum: the whole download / after its first second.\n\
         64 MiB over lines of 50 Mbit/s together, each as far away; the client reads at once; peers with a clean record.\n\
         *  W >= S x (R + 45 ms), and the share after the first second is 0.97 or more\n\
         !  W >= S x (R + 45 ms), but it is less: a slot of 16 KiB takes the slowest line 42 ms or more,\n   \
         or the start takes longer than a second\n\n\
         window  lines  rates",
    );
    let rtts: Vec<u64> = rows().map(|row| row.rtt).take(5).collect();
    text.extend(rtts.iter().map(|rtt| format!("{:>15} ", format!("{rtt} ms"))));
    for row in rows() {
        if row.rtt == rtts[0] {
            let window = format!("{} MiB", row.window >> 20);
            text += &format!("\n{window:>6}{:>7}{:>7}", row.lines, format!("1:{}", row.ratio));
        }
        let cell = row.measure();
        let mark = match (row.is_promised(), cell.after_a_second >= ENOUGH) {
            (true, true) => '*',
            (true, false) => '!',
            (false, _) => ' ',
        };
        let both = format!("{} / {}", decimal(cell.overall), decimal(cell.after_a_second));
        text += &format!("{both:>15}{mark}");
    }
    text.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

/// A number of thousandths.
pub(super) fn decimal(thousandths: u64) -> String {
    format!("{}.{:03}", thousandths / 1_000, thousandths % 1_000)
}
