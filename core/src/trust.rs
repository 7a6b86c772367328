//! How far another router is trusted, from what it did in earlier sessions (DESIGN section 7, "Trust"). Not responsible
//! for keeping the records over a restart, nor for finding out who lied.
//!
//! ```text
//!            no record ──▶ Newcomer ──three clean sessions, T > U──▶ Trusted
//!                           ▲   ▲  ╲                                 ╱   │
//!     12 h of running time  │   │   ╲─────────── T <= U ────────────╱    │
//!     after its last session│   └── 12 h of running time ── Barred ◀─────┴── a violation, from anywhere
//!                           └────────────────────────────── Untrusted
//! ```
//!
//! T and U are the means of S and R over all sessions with the peer, each weighed by 1 for the last twelve hours and by
//! 1/4 before: T = sum(S W) / I. Sums are kept in quarters of [`ONE`], so that nothing is rounded when T and U are
//! compared. What an honest router on a bad link does (timeouts, drops) lowers S, and with it how soon the peer is
//! picked; only what an honest router never does raises R.

mod standing;

use heapless::Vec;

pub use self::standing::{Checking, Standing, Violation};
use crate::limits::MAX_TRANSACTIONS;
use crate::message::Fingerprint;

/// The full score: S, R, T and U are in thousandths.
pub const ONE: u32 = 1000;

/// Seconds in which a session counts fully, and for which a violation bars and an accusation has effect.
pub const HALF_DAY: u32 = 12 * 60 * 60;

/// Sessions without a fault after which a newcomer's record speaks.
pub const PROBATION: u32 = 3;

/// What is left of S, at least, when a peer did nothing wrong and hardly anything at all: not good, but no reason for
/// distrust.
const LEAST_SATISFACTION: u32 = ONE / 4;

/// Unexplained mismatches at so many origins are a violation.
const MISMATCHED_ORIGINS: usize = 3;

/// When something happened, as far as a router can tell that has no clock at boot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moment {
    /// Number of the boot, counted from the first that was recorded.
    pub boot: u32,
    /// Seconds since that boot.
    pub uptime: u32,
    /// Seconds that the daemon has run in all, over all boots.
    pub running: u32,
    /// Seconds since 1970, if the clock was set.
    pub clock: Option<u32>,
}

impl Moment {
    /// Seconds from this moment to `now`. `None` if nobody can tell: they are of different boots, and the clock was
    /// not set both times, or was turned back. Within a boot the clock does not matter.
    pub fn age(self, now: Moment) -> Option<u32> {
        if self.boot == now.boot {
            return Some(now.uptime.saturating_sub(self.uptime));
        }
        now.clock?.checked_sub(self.clock?)
    }

    /// Whether a session that ended at this moment counts fully `now`.
    fn is_recent(self, now: Moment) -> bool {
        self.age(now).is_some_and(|age| age < HALF_DAY)
    }
}

/// What a peer did in one session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Conduct {
    /// Requests made to it.
    pub requests: u32,
    /// Times that nothing came from it for too long.
    pub timeouts: u32,
    /// Other failures of its connection.
    pub drops: u32,
    /// Times that it withdrew because its household came first. That is recorded with the drops, but S does not suffer.
    pub withdrawals: u32,
    /// Payload bytes that it brought.
    pub bytes: u64,
    /// The worst that it did.
    pub violation: Option<Violation>,
    /// Its bytes differed from the own link's and nobody could tell who was wrong: a number that stands for the origin.
    pub mismatch: Option<u32>,
}

impl Conduct {
    /// S, in thousandths: the share of its requests that went well, at least a quarter; 0 if it can't be believed.
    pub fn satisfaction(&self) -> u32 {
        if self.untrust() > 0 {
            return 0;
        }
        let failed = self.timeouts.saturating_add(self.drops).min(self.requests);
        let well = u64::from(self.requests - failed) * u64::from(ONE) / u64::from(self.requests.max(1));
        (well as u32).max(LEAST_SATISFACTION)
    }

    /// R, in thousandths: all or nothing.
    pub fn untrust(&self) -> u32 {
        if self.violation.is_some() || self.mismatch.is_some() { ONE } else { 0 }
    }
}

/// Sessions, added up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    /// How many.
    pub sessions: u32,
    /// Those of them in which it brought something and nothing was wrong with it.
    pub clean: u32,
    /// Sum of S, in thousandths.
    pub satisfaction: u32,
    /// Sum of R, in thousandths.
    pub untrust: u32,
    /// Times that nothing came from it for too long.
    pub timeouts: u32,
    /// Other failures of its connection, and times that it withdrew.
    pub drops: u32,
    /// Payload bytes that it brought.
    pub bytes: u64,
}

impl Sums {
    fn of(conduct: &Conduct) -> Self {
        Self {
            sessions: 1,
            clean: u32::from(conduct.untrust() == 0 && conduct.bytes > 0),
            satisfaction: conduct.satisfaction(),
            untrust: conduct.untrust(),
            timeouts: conduct.timeouts,
            drops: conduct.drops.saturating_add(conduct.withdrawals),
            bytes: conduct.bytes,
        }
    }

    fn add(&mut self, other: &Sums) {
        self.sessions = self.sessions.saturating_add(other.sessions);
        self.clean = self.clean.saturating_add(other.clean);
        self.satisfaction = self.satisfaction.saturating_add(other.satisfaction);
        self.untrust = self.untrust.saturating_add(other.untrust);
        self.timeouts = self.timeouts.saturating_add(other.timeouts);
        self.drops = self.drops.saturating_add(other.drops);
        self.bytes = self.bytes.saturating_add(other.bytes);
    }
}

/// One session with a peer; several that were close together, if there were too many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transaction {
    /// When it ended.
    pub at: Moment,
    /// What came of it.
    pub sums: Sums,
}

/// Somebody says that the peer is not to be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Alert {
    /// When, in seconds of running time.
    pub at: u32,
    /// The router whose FEEDBACK says so; `None`: a mismatch of our own that nobody could explain.
    pub by: Option<Fingerprint>,
}

/// All that is remembered of one peer. The fields are open for those who keep it; only the methods change it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// The sessions that may count fully, oldest first.
    pub recent: Vec<Transaction, MAX_TRANSACTIONS>,
    /// All earlier ones.
    pub old: Sums,
    /// The last violation, and when it was, in seconds of running time.
    pub violation: Option<(Violation, u32)>,
    /// The last accusation.
    pub alert: Option<Alert>,
    /// When the last session ended, in seconds of running time.
    pub last: u32,
    /// Origins at which there were unexplained mismatches.
    pub mismatched: Vec<u32, MISMATCHED_ORIGINS>,
}

/// T and U, and what they are made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scores {
    /// T in thousandths, rounded down.
    pub trust: u32,
    /// U in thousandths, rounded down.
    pub untrust: u32,
    /// Mean of S by weight, in thousandths: how well it works, whatever its age. [`ONE`] without a record.
    pub reliability: u32,
    /// All sessions.
    pub sums: Sums,
}

/// Sums of S W, R W and W in quarters, and the number of sessions.
struct Weighed {
    satisfaction: u64,
    untrust: u64,
    weight: u64,
    sessions: u64,
}

impl Record {
    /// The peer took part in a session that ended `now`. One in which nothing was asked of it is no session. What it
    /// is barred for, if it is from now on.
    pub fn add(&mut self, now: Moment, conduct: &Conduct) -> Option<Violation> {
        if conduct.requests == 0 && conduct.untrust() == 0 {
            return None;
        }
        self.renew(now);
        let mut violation = conduct.violation;
        if let Some(origin) = conduct.mismatch {
            self.alert = Some(Alert { at: now.running, by: None });
            if !self.mismatched.contains(&origin) {
                let _ = self.mismatched.push(origin); // full, it has its consequence below
            }
            if self.mismatched.is_full() {
                violation = violation.or(Some(Violation::Mismatches));
            }
        }
        if let Some(violation) = violation {
            self.violation = Some((violation, now.running));
        }
        self.last = now.running;
        self.push(Transaction { at: now, sums: Sums::of(conduct) }, now);
        violation
    }

    /// Another router says that this one lied: it is checked more closely for twelve hours of running time. That changes
    /// neither T nor U, because the other one could lie (DESIGN section 7).
    pub fn accuse(&mut self, now: Moment, by: Fingerprint) {
        self.renew(now);
        self.alert = Some(Alert { at: now.running, by: Some(by) });
    }

    /// How far the peer is trusted `now`.
    pub fn standing(&self, now: Moment) -> Standing {
        let left = |since: u32| HALF_DAY.saturating_sub(now.running.saturating_sub(since));
        match self.violation {
            Some((why, at)) if left(at) > 0 => return Standing::Barred { why, left: left(at) },
            Some(_) => return Standing::Newcomer { clean: 0 },
            None => {}
        }
        let weighed = self.weigh(now);
        let clean = self.total().clean;
        if weighed.sessions == 0 {
            Standing::Newcomer { clean: 0 }
        } else if weighed.satisfaction <= weighed.untrust {
            match left(self.last) {
                0 => Standing::Newcomer { clean: 0 },
                left => Standing::Untrusted { left },
            }
        } else if clean < PROBATION {
            Standing::Newcomer { clean }
        } else {
            Standing::Trusted { accused: self.alert.is_some_and(|alert| left(alert.at) > 0) }
        }
    }

    /// T and U `now`.
    pub fn scores(&self, now: Moment) -> Scores {
        let Weighed { satisfaction, untrust, weight, sessions } = self.weigh(now);
        let mean = |sum: u64| (sum / (4 * sessions.max(1))) as u32;
        let reliability = satisfaction.checked_div(weight).map_or(ONE, |mean| mean as u32);
        Scores { trust: mean(satisfaction), untrust: mean(untrust), reliability, sums: self.total() }
    }

    /// The accusation that has effect `now`.
    pub fn alert(&self, now: Moment) -> Option<Alert> {
        self.alert.filter(|alert| now.running.saturating_sub(alert.at) < HALF_DAY)
    }

    /// Whether something runs out in running time, so that how long the daemon runs must be remembered, too.
    pub fn is_timed(&self, now: Moment) -> bool {
        self.alert(now).is_some() || !self.standing(now).is_acceptable()
    }

    /// What ran out `now` is forgotten: the peer begins anew.
    fn renew(&mut self, now: Moment) {
        let weighed = self.weigh(now);
        let is_bad = self.violation.is_some() || weighed.satisfaction <= weighed.untrust;
        if is_bad && self.standing(now) == (Standing::Newcomer { clean: 0 }) {
            // Mismatches that nobody could explain are counted on until they have barred it.
            let mismatched = if self.violation.is_none() { self.mismatched.clone() } else { Vec::new() };
            *self = Record { alert: self.alert, mismatched, ..Record::default() };
        }
    }

    fn total(&self) -> Sums {
        self.recent.iter().fold(self.old, |mut total, transaction| {
            total.add(&transaction.sums);
            total
        })
    }

    fn weigh(&self, now: Moment) -> Weighed {
        let mut weighed = Weighed { satisfaction: 0, untrust: 0, weight: 0, sessions: 0 };
        let mut add = |sums: &Sums, quarters: u64| {
            weighed.satisfaction += quarters * u64::from(sums.satisfaction);
            weighed.untrust += quarters * u64::from(sums.untrust);
            weighed.weight += quarters * u64::from(sums.sessions);
            weighed.sessions += u64::from(sums.sessions);
        };
        add(&self.old, 1);
        for Transaction { at, sums } in &self.recent {
            add(sums, if at.is_recent(now) { 4 } else { 1 });
        }
        weighed
    }

    fn push(&mut self, transaction: Transaction, now: Moment) {
        // Of this boot's it is certain that they will not count fully again.
        let is_over =
            |transaction: &Transaction| transaction.at.boot == now.boot && !transaction.at.is_recent(now);
        while let Some(place) = self.recent.iter().position(is_over) {
            self.retire(place);
        }
        if self.recent.is_full() {
            match self.recent.iter().position(|transaction| !transaction.at.is_recent(now)) {
                Some(place) => self.retire(place),
                None => self.join_closest(),
            }
        }
        let _ = self.recent.push(transaction); // there is room now
    }

    /// Counts a transaction among the old ones.
    fn retire(&mut self, place: usize) {
        if place < self.recent.len() {
            let transaction = self.recent.remove(place);
            self.old.add(&transaction.sums);
        }
    }

    /// Joins the two neighbours that are closest in time; together they are as young as the later one.
    fn join_closest(&mut self) {
        let gaps = self.recent.windows(2).map(|pair| match pair {
            [one, other] => one.at.age(other.at).unwrap_or(u32::MAX),
            _ => u32::MAX,
        });
        let closest = gaps.enumerate().min_by_key(|(_, gap)| *gap).map_or(0, |(place, _)| place);
        if self.recent.len() > 1 {
            let earlier = self.recent.remove(closest);
            if let Some(later) = self.recent.get_mut(closest) {
                later.sums.add(&earlier.sums);
            }
        }
    }
}
