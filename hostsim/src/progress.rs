//! The line that moves while a download runs: in place on a terminal, every half second as plain lines
//! otherwise. Not responsible for the summary.

use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::report::size;

/// How often the line is written anew.
const PERIOD: Duration = Duration::from_millis(500);

/// One link's part of the line: its name, and the useful bytes that have come over it.
pub type LaneLine = (String, u64);

/// Runs `work` while showing what it adds to the counter that it gets, of `total` bytes, and what `lanes`
/// tells of the links. Progress goes to standard error; standard output is for the result.
pub fn show<R>(
    name: &str,
    total: u64,
    lanes: impl Fn() -> Vec<LaneLine> + Sync,
    work: impl FnOnce(&AtomicU64) -> R,
) -> R {
    let received = AtomicU64::new(0);
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let shower = scope.spawn(|| {
            let begun = Instant::now();
            let terminal = io::stderr().is_terminal();
            let (mut before, mut last) = (0, begun);
            let mut lanes_before: Vec<LaneLine> = Vec::new();
            for tick in 1.. {
                // Absolute, so that plain lines are half a second apart however long a line takes.
                thread::park_timeout((PERIOD * tick).saturating_sub(begun.elapsed()));
                if over.load(Ordering::Acquire) {
                    break;
                }
                let (now, count) = (Instant::now(), received.load(Ordering::Relaxed));
                let seconds = (now - last).as_secs_f64().max(1e-3);
                let rate = |now: u64, before: u64| now.saturating_sub(before) as f64 * 8.0 / seconds / 1e6;
                let mut line = line(name, begun.elapsed(), count, total, rate(count, before));
                let lanes = lanes();
                for (name, bytes) in &lanes {
                    let before = lanes_before.iter().find(|(other, _)| other == name);
                    line.push_str(&format!(
                        "  {name} {:>5.1}",
                        rate(*bytes, before.map_or(0, |(_, bytes)| *bytes))
                    ));
                }
                (before, last, lanes_before) = (count, now, lanes);
                let mut out = io::stderr().lock();
                // A closed standard error is no reason to break off a download.
                let _ = if terminal { write!(out, "\r{line}\x1b[K") } else { writeln!(out, "{line}") };
                let _ = out.flush();
            }
            if terminal {
                let _ = write!(io::stderr(), "\r\x1b[K");
            }
        });
        let result = work(&received);
        over.store(true, Ordering::Release);
        shower.thread().unpark();
        result
    })
}

fn line(name: &str, at: Duration, count: u64, total: u64, mbits: f64) -> String {
    let share = count as f64 * 100.0 / total.max(1) as f64;
    format!("{name:<8} {:>5.1} s {:>9} {share:>3.0} % {:>6.1} Mbit/s", at.as_secs_f64(), size(count), mbits)
}
