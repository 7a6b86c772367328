//! What was fetched for neighbours, today and this month and for each: counted, held against the owner's quotas, and kept over
//! a restart. Not responsible for when a day is over ([`bamqp_core::quota`]).
//!
//! The file `usage` in `state_dir` is replaced as a whole, at most every [`SAVE_EVERY`] and at stop: a power cut costs that
//! much of the count.
//!
//! ```text
//! day used=734003200 began=93600 number=20665 #5d41402a
//! month used=9734003200 began=1200 number=24320 #…
//! peer <key> used=104857600 began=93600 number=20665 #…
//! ```

use core::fmt::Write as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bamqp_core::message::Fingerprint;
use bamqp_core::quota::{Length, Now, Period};

use crate::clock;
use crate::config::{Config, Helping};
use crate::replace;
use crate::trust_store::TrustStore;
use crate::trust_store::file::{check, value};

/// Between two writes of what changed.
pub const SAVE_EVERY: Duration = Duration::from_secs(5 * 60);

/// Longest that a neighbour is told not to ask again, in seconds: the owner may have other ideas meanwhile.
const LONGEST: u32 = 60 * 60;

const FILE: &str = "usage";

/// Most bytes that are read of the file: some hundreds of neighbours.
const MAX_FILE: u64 = 64 * 1024;

/// The counts.
#[derive(Debug)]
pub struct Usage {
    /// `None`: nothing is kept.
    file: Option<PathBuf>,
    /// Knows how long the daemon has run.
    trust: Arc<TrustStore>,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    limits: Limits,
    day: Period,
    month: Period,
    /// Of those for whom something was fetched.
    peers: Vec<(Fingerprint, Period)>,
    /// As of the last tick: nothing is read while chunks are fetched.
    now: Now,
    /// When it was written last, if something has changed since.
    changed: bool,
    saved: Instant,
}

#[derive(Clone, Copy, Debug)]
struct Limits {
    day: Option<u64>,
    month: Option<u64>,
    peer_day: Option<u64>,
}

impl Limits {
    fn of(helping: &Helping) -> Limits {
        Limits { day: helping.quota_day, month: helping.quota_month, peer_day: helping.quota_peer_day }
    }
}

/// For people.
#[derive(Clone, Debug)]
pub struct Report {
    /// Bytes today, and the quota.
    pub day: (u64, Option<u64>),
    /// Bytes this month, and the quota.
    pub month: (u64, Option<u64>),
    /// Bytes for each neighbour today, and the quota of each.
    pub peers: Vec<(Fingerprint, u64)>,
    /// That quota.
    pub peer_day: Option<u64>,
}

impl Usage {
    /// Reads what was counted before. What can't be read is told in the log, and begins anew.
    pub fn open(config: &Config, trust: Arc<TrustStore>) -> Usage {
        let file = config.state_dir.is_dir().then(|| config.state_dir.join(FILE));
        let now = read_clocks(&trust);
        let mut inner = Inner {
            limits: Limits::of(&config.helping),
            day: Period::new(Length::Day, now),
            month: Period::new(Length::Month, now),
            peers: Vec::new(),
            now,
            changed: false,
            saved: Instant::now(),
        };
        if let Some(file) = &file {
            let text = std::fs::File::open(file).and_then(|opened| {
                let mut text = String::new();
                std::io::Read::read_to_string(&mut std::io::Read::take(opened, MAX_FILE), &mut text)?;
                Ok(text)
            });
            match text {
                Ok(text) => {
                    let damaged = text.lines().filter(|line| inner.read_line(line).is_none()).count();
                    if damaged > 0 {
                        log::warn!("{}: {damaged} lines are damaged and do not count", file.display());
                    }
                }
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => log::warn!("{}: {error}; quotas begin anew", file.display()),
            }
        }
        Usage { file, trust, inner: Mutex::new(inner) }
    }

    /// The configuration has changed; what was counted stays.
    pub fn renew(&self, helping: &Helping) {
        self.lock().limits = Limits::of(helping);
        self.tick();
    }

    /// So many bytes were fetched for this coordinator.
    pub fn add(&self, coordinator: Fingerprint, bytes: u64) {
        let mut inner = self.lock();
        let now = inner.now;
        inner.day.add(bytes, now);
        inner.month.add(bytes, now);
        inner.peer(coordinator).add(bytes, now);
        inner.changed = true;
    }

    /// Whether anything may be fetched for this coordinator.
    ///
    /// # Errors
    /// Seconds for which it is not to ask again.
    pub fn check(&self, coordinator: Fingerprint) -> Result<(), u32> {
        let mut inner = self.lock();
        let Inner { limits, now, .. } = *inner;
        let most = |limit: Option<u64>| limit.unwrap_or(u64::MAX);
        let all = [
            inner.day.check(most(limits.day), now),
            inner.month.check(most(limits.month), now),
            limits.peer_day.map_or(Ok(()), |most| inner.peer(coordinator).check(most, now)),
        ];
        let left = all.into_iter().filter_map(Result::err).max();
        left.map_or(Ok(()), |left| Err(left.min(LONGEST)))
    }

    /// Counts, for people.
    pub fn report(&self) -> Report {
        let mut inner = self.lock();
        let now = inner.now;
        inner.day.renew(now);
        inner.month.renew(now);
        inner.peers.iter_mut().for_each(|(_, period)| period.renew(now));
        Report {
            day: (inner.day.used, inner.limits.day),
            month: (inner.month.used, inner.limits.month),
            peers: inner.peers.iter().map(|(key, period)| (*key, period.used)).collect(),
            peer_day: inner.limits.peer_day,
        }
    }

    /// Looks at the clocks, and writes the file if it is time to; to be called every now and then.
    pub fn tick(&self) {
        let now = read_clocks(&self.trust);
        let is_time = {
            let mut inner = self.lock();
            inner.now = now;
            inner.changed && inner.saved.elapsed() >= SAVE_EVERY
        };
        if is_time {
            self.save();
        }
    }

    /// The daemon ends: writes what is new.
    pub fn close(&self) {
        if self.lock().changed {
            self.save();
        }
    }

    fn save(&self) {
        let Some(file) = &self.file else { return };
        let text = {
            let mut inner = self.lock();
            (inner.changed, inner.saved) = (false, Instant::now());
            inner.text()
        };
        if let Err(error) = replace::private(file, &text) {
            log::warn!("{}: {error}; trying again later", file.display());
            self.lock().changed = true;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Every change is one call, so a panic elsewhere leaves nothing half done.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn read_clocks(trust: &TrustStore) -> Now {
    Now { running: trust.now().running, local: clock::local_time() }
}

impl Inner {
    fn peer(&mut self, key: Fingerprint) -> &mut Period {
        let place = self.peers.iter().position(|(other, _)| *other == key).unwrap_or_else(|| {
            self.peers.push((key, Period::new(Length::Day, self.now)));
            self.peers.len() - 1
        });
        match self.peers.get_mut(place) {
            Some((_, period)) => period,
            None => &mut self.day, // never: it was just put there
        }
    }

    fn text(&self) -> String {
        let mut text = String::new();
        let mut line = |name: &str, period: &Period| {
            let Period { used, began, number, .. } = period;
            let number = number.map(|number| format!(" number={number}")).unwrap_or_default();
            let words = format!("{name} used={used} began={began}{number}");
            let _ = writeln!(text, "{words} #{:08x}", check(&words)); // a string takes everything
        };
        line("day", &self.day);
        line("month", &self.month);
        self.peers.iter().for_each(|(key, period)| line(&format!("peer {key}"), period));
        text
    }

    fn read_line(&mut self, line: &str) -> Option<()> {
        let (words, told) = line.rsplit_once(" #")?;
        if told != format!("{:08x}", check(words)) {
            return None;
        }
        let (used, began) = (value(words, "used")?.parse().ok()?, value(words, "began")?.parse().ok()?);
        let number = match value(words, "number") {
            Some(number) => Some(number.parse().ok()?),
            None => None,
        };
        let period = |length| Period { length, used, began, number };
        let mut names = words.split(' ');
        match (names.next()?, names.next()?) {
            ("day", _) => self.day = period(Length::Day),
            ("month", _) => self.month = period(Length::Month),
            ("peer", key) => self.peers.push((key.parse().ok()?, period(Length::Day))),
            _ => return None,
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Fingerprint = Fingerprint([1; 16]);
    const B: Fingerprint = Fingerprint([2; 16]);

    fn config(name: &str) -> Config {
        let state_dir = std::env::temp_dir().join(format!("bamqp-usage-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&state_dir);
        std::fs::create_dir(&state_dir).unwrap();
        let helping = Helping { quota_day: Some(1000), quota_peer_day: Some(600), ..Helping::default() };
        Config { state_dir, helping, ..Config::default() }
    }

    fn usage(config: &Config) -> Usage {
        Usage::open(config, Arc::new(TrustStore::open(config)))
    }

    #[test]
    fn each_has_its_quota_and_all_have_one_and_both_outlast_a_restart() {
        let config = config("restart");
        let first = usage(&config);
        first.add(A, 599);
        assert_eq!(first.check(A), Ok(()));
        first.add(A, 1);
        let left = first.check(A).unwrap_err();
        assert!((1..=LONGEST).contains(&left));
        assert_eq!(first.check(B), Ok(()));
        first.close();
        let second = usage(&config);
        assert!(second.check(A).is_err());
        second.add(B, 400);
        assert!(second.check(B).is_err(), "all together have had theirs");
        let report = second.report();
        assert_eq!((report.day, report.month), ((1000, Some(1000)), (1000, None)));
        assert_eq!(report.peers, [(A, 600), (B, 400)]);
        second.renew(&Helping::default());
        assert_eq!((second.check(A), second.check(B)), (Ok(()), Ok(())));
        std::fs::remove_dir_all(&config.state_dir).unwrap();
    }

    #[test]
    fn of_a_damaged_file_what_is_whole_counts() {
        let config = config("damaged");
        let first = usage(&config);
        first.add(A, 700);
        first.close();
        let file = config.state_dir.join(FILE);
        let text = std::fs::read_to_string(&file).unwrap();
        assert_eq!(text.lines().count(), 3);
        std::fs::write(&file, text.replace("peer", "pear")).unwrap();
        let report = usage(&config).report();
        assert_eq!((report.day.0, report.month.0, report.peers.len()), (700, 700, 0));
        std::fs::write(&file, "nonsense").unwrap();
        assert_eq!(usage(&config).report().day.0, 0);
        std::fs::remove_dir_all(&config.state_dir).unwrap();
    }

    #[test]
    fn flash_is_not_written_for_each_download() {
        let config = config("rarely");
        let usage = usage(&config);
        usage.add(A, 1);
        usage.tick();
        assert!(!config.state_dir.join(FILE).exists());
        usage.close();
        assert!(config.state_dir.join(FILE).exists());
        std::fs::remove_dir_all(&config.state_dir).unwrap();
    }
}
