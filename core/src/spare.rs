//! How much of the internet line may go to neighbours: the household comes first. From what came over the line and what of
//! it was fetched for neighbours follows what the household uses, what the line carries, and what is spare. Not responsible
//! for counting, nor for keeping fetches to the pace ([`bucket`] helps with both, [`stream`] with the first).
//!
//! ```text
//!   Offering ──the household's use grows──▶ Yielding ──it takes the room──▶ Withdrawn
//!      ▲ ▲                                     │                               │
//!      │ └────────── it does not ──────────────┘                               │
//!      └──────────────── its time is up, and the household is calm ────────────┘
//! ```
//!
//! **Growth is what counts.** While a line is full of what is fetched for neighbours, a download of the household begins as
//! a trickle: TCP gives it its share in seconds only. So the first trickle has neighbours' fetches slowed down, and if the
//! household fills the room that it is given, they end. What it uses steadily (a radio, a camera) is left to it, with some
//! room to grow, and the rest is offered.
//!
//! Rates are in bytes of TCP payload per second, as downloads see them. A household's own pooled downloads are its use of the
//! line like any other.

pub mod bucket;
pub mod stream;

use core::fmt;

use crate::time::{Instant, Span};

/// How long helping stops at first, and at most: each time twice as long while the household comes back within 30 s.
pub const FIRST_PAUSE: Span = Span::from_millis(5_000);
/// See [`FIRST_PAUSE`].
pub const LONGEST_PAUSE: Span = Span::from_millis(60_000);

/// A household that comes back this soon after helping began again is not done yet.
const AGAIN: Span = Span::from_millis(30_000);

/// So long the household must have used less than [`CALM`] parts of its line before helping begins again.
const CALM_FOR: Span = Span::from_millis(2_000);

/// Parts of the line: what the household uses of it before it counts as busy in any case; below what it is calm; by what its
/// use grows before neighbours' fetches are slowed down, and before they end; what is left free beside a steady use; and what
/// neighbours get while it is seen what the household wants.
const BUSY: u64 = 2;
const CALM: u64 = 4;
const STIRS: u64 = 16;
const WANTS: u64 = 8;
const HEADROOM: u64 = 16;
const TRICKLE: u64 = 8;

/// What is less than this part of the line says nothing: acknowledgements, names being looked up.
const NOISE: u64 = 32;

/// Bytes per second below which a growth says nothing, however slow the line is: two packets in a tenth of a second.
const LEAST_GROWTH: u64 = 30_000;

/// How long neighbours' fetches are slowed down before it is judged what the household wants, and at most.
const JUDGED_AFTER: Span = Span::from_millis(150);
const YIELDS_FOR: Span = Span::from_millis(600);

/// Over what time the household's use is averaged: its present use, and its steady one.
const PRESENT: Span = Span::from_millis(150);
const STEADY: Span = Span::from_millis(10_000);

/// What a rate has to last for so that the line is taken to carry it.
const SUSTAINED: Span = Span::from_millis(1_000);

/// In what time an estimate comes down to what the line gives neighbours' fetches now that nothing holds back.
const FORGETS: Span = Span::from_millis(5 * 60_000);

/// Of what a probe finds out so many parts are believed.
const PROBE_WEIGHT: u64 = 4;

/// A household that uses so many bytes per second, and half of what was ever seen, is busy even if nobody has tried yet how
/// much more the line carries.
const MUCH: u64 = 500_000;

/// A line of which only a share is given would never show what it carries: in between it is tried without pacing.
const PROBE_EVERY: Span = Span::from_millis(10 * 60_000);
const PROBE_FOR: Span = Span::from_millis(1_500);

/// Samples that lie further apart say nothing of rates.
const LONGEST_SAMPLE: Span = Span::from_millis(5_000);

/// What the owner says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// What the line carries, in bytes per second; 0: to be found out.
    pub line: u64,
    /// Hundredths of what is spare that neighbours get, 1 to 100.
    pub share: u8,
    /// Bytes per second that they get even while the household uses its line; 0: none.
    pub floor: u64,
}

impl Default for Terms {
    /// All that is spare of an unknown line.
    fn default() -> Self {
        Terms { line: 0, share: 100, floor: 0 }
    }
}

/// What came over the line since the sample before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Bytes in all.
    pub total: u64,
    /// Those of them that were fetched for neighbours.
    pub ours: u64,
    /// Bytes that may still come on connections which were closed since: they are nobody's use.
    pub stray: u64,
}

/// What neighbours may have now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offer {
    /// They get something.
    Open {
        /// What they are told, in bytes per second; 0: unknown.
        rate: u64,
        /// What is fetched for them at most, in bytes per second; `None`: what the line gives.
        pace: Option<u64>,
    },
    /// The household needs the line.
    Withdrawn {
        /// How long not to ask again.
        left: Span,
    },
}

impl Offer {
    /// What neighbours are told, in bytes per second; `None` if they get nothing.
    pub fn rate(&self) -> Option<u64> {
        match self {
            Offer::Open { rate, .. } => Some(*rate),
            Offer::Withdrawn { .. } => None,
        }
    }
}

/// Where helping stands; see the module's diagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Neighbours get what is spare.
    Offering,
    /// The household's use has grown from `from` bytes per second.
    Yielding {
        /// Since when fetches are slowed down.
        since: Instant,
        /// What it used before.
        from: u64,
    },
    /// Neighbours get nothing (or the floor).
    Withdrawn {
        /// Until then at least.
        until: Instant,
    },
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            State::Offering => "offering",
            State::Yielding { .. } => "yielding",
            State::Withdrawn { .. } => "withdrawn",
        })
    }
}

/// The running estimates, and what follows from them. About 150 bytes.
#[derive(Clone, Debug)]
pub struct Spare {
    terms: Terms,
    state: State,
    /// Highest sustained rate lately, and whether that was all that the line gave.
    estimate: u64,
    is_proven: bool,
    /// What comes over the line at present.
    total: u64,
    /// The household's present and steady use.
    present: u64,
    steady: u64,
    /// More was counted as fetched for neighbours than had come: it comes with the next sample.
    early: u64,
    /// What may still come on closed connections, and until when.
    stray: (u64, Instant),
    last: Option<Instant>,
    /// Bytes in the window that is being measured, since when, and whether neighbours' fetches filled the line all along.
    window: (u64, Instant, bool),
    calm_since: Option<Instant>,
    /// The last pause, and when helping began again after it.
    pause: Span,
    resumed: Instant,
    /// How long fetches were paced since the last probe, and how long a probe still lasts.
    paced: Span,
    probe: Span,
}

impl Spare {
    /// Nothing is known of the line yet but what the owner says.
    pub fn new(terms: Terms) -> Spare {
        Spare {
            terms,
            state: State::Offering,
            estimate: 0,
            is_proven: false,
            total: 0,
            present: 0,
            steady: 0,
            early: 0,
            stray: (0, Instant::default()),
            last: None,
            window: (0, Instant::default(), true),
            calm_since: None,
            pause: Span::ZERO,
            resumed: Instant::default(),
            paced: Span::ZERO,
            probe: PROBE_FOR,
        }
    }

    /// The owner has changed their mind; what is known of the line stays.
    pub fn set_terms(&mut self, terms: Terms) {
        self.terms = terms;
    }

    /// What the line carries, in bytes per second; 0: nobody has tried yet.
    pub fn capacity(&self) -> u64 {
        match self.terms.line {
            0 if self.is_proven => self.estimate,
            line => line,
        }
    }

    /// What the line carries at least, as far as can be seen now.
    fn line(&self) -> u64 {
        self.capacity().max(self.total)
    }

    /// What the household uses, in bytes per second.
    pub fn household(&self) -> u64 {
        self.present
    }

    /// Where helping stands.
    pub fn state(&self) -> State {
        self.state
    }

    /// Takes what came by `now`. The first sample only begins: what came before it says nothing.
    pub fn sample(&mut self, now: Instant, sample: Sample) {
        let took = self.last.map(|last| now.since(last));
        self.last = Some(now);
        let Some(took) = took.filter(|took| (Span::ZERO..LONGEST_SAMPLE).contains(took)) else {
            self.window = (0, now, true);
            return;
        };
        if took == Span::ZERO {
            // No rate can be told: it counts with the next one.
            self.early = self.early.saturating_add(sample.ours.saturating_sub(sample.total));
            return;
        }
        let is_helping = sample.ours > 0;
        let is_paced = !matches!(self.offer(now), Offer::Open { pace: None, .. });
        self.measure_line(now, sample.total, is_helping && !is_paced);
        if sample.stray > 0 {
            self.stray = (sample.stray, now + SUSTAINED);
        }
        let household = rate(self.households(now, sample, took), took);
        self.total = follow(self.total, rate(sample.total, took), took, PRESENT);
        self.present = follow(self.present, household, took, PRESENT);
        if is_helping {
            self.time_probe(is_paced, took);
        }
        self.judge(now, household, is_helping);
        if self.state == State::Offering {
            self.steady = follow(self.steady, household, took, STEADY);
        }
    }

    /// What of a sample is the household's, in bytes.
    fn households(&mut self, now: Instant, sample: Sample, took: Span) -> u64 {
        let came = sample.total;
        let known = sample.ours.saturating_add(core::mem::take(&mut self.early));
        if known > came {
            // Reading two counters takes time. What can't be explained so is forgotten.
            self.early = (known - came).min(bytes(self.capacity(), took));
            return 0;
        }
        let mut rest = came - known;
        if now < self.stray.1 {
            let stray = self.stray.0.min(rest);
            self.stray.0 -= stray;
            rest -= stray;
        }
        rest
    }

    /// `is_full`: neighbours' fetches took all that the line gave.
    fn measure_line(&mut self, now: Instant, total: u64, is_full: bool) {
        let (bytes, since, was_full) = self.window;
        self.window = (bytes.saturating_add(total), since, was_full && is_full);
        let took = now.since(since);
        if took < SUSTAINED {
            return;
        }
        let (bytes, _, is_full) = core::mem::replace(&mut self.window, (0, now, true));
        let seen = rate(bytes, took);
        let less = self.estimate.saturating_sub(seen);
        self.estimate = self.estimate.max(seen);
        self.is_proven |= is_full;
        if is_full && seen >= self.estimate / CALM {
            let is_probe = self.terms.share < 100;
            let less = match is_probe {
                true => less / PROBE_WEIGHT,
                false => less.saturating_mul(took.as_micros()) / FORGETS.as_micros(),
            };
            self.estimate -= less.min(self.estimate);
        }
    }

    /// Finds out when a line of which only a share is given is to be tried without pacing.
    fn time_probe(&mut self, is_paced: bool, took: Span) {
        self.probe = self.probe - took;
        if is_paced {
            self.paced = self.paced + took;
        }
        if self.paced >= PROBE_EVERY {
            (self.paced, self.probe) = (Span::ZERO, PROBE_FOR);
        }
    }

    fn judge(&mut self, now: Instant, household: u64, is_helping: bool) {
        let line = self.line();
        let is_busy = match self.capacity() {
            0 => self.present > MUCH.max(self.estimate / BUSY),
            line => self.present > LEAST_GROWTH.max(line / BUSY),
        };
        if self.present > line / CALM && self.present > LEAST_GROWTH {
            self.calm_since = None;
        } else {
            self.calm_since.get_or_insert(now);
        }
        let grown = |from: u64, part: u64| household >= from + (line / part).max(LEAST_GROWTH);
        match self.state {
            State::Offering if is_busy => self.withdraw(now),
            State::Offering if is_helping && grown(self.steady, STIRS) => {
                self.state = State::Yielding { since: now, from: self.steady };
            }
            State::Offering => {}
            State::Yielding { since, from } => {
                let took = now.since(since);
                if took >= JUDGED_AFTER && grown(from, WANTS) {
                    self.withdraw(now);
                } else if took >= YIELDS_FOR {
                    self.resume();
                }
            }
            State::Withdrawn { until } if now >= until && self.calm_for(now) >= CALM_FOR => {
                self.resumed = now;
                self.resume();
            }
            State::Withdrawn { .. } => {}
        }
    }

    fn calm_for(&self, now: Instant) -> Span {
        self.calm_since.map_or(Span::ZERO, |since| now.since(since))
    }

    fn withdraw(&mut self, now: Instant) {
        let is_again = self.pause > Span::ZERO && now.since(self.resumed) < AGAIN;
        self.pause = if is_again { self.pause.scale(2, 1).min(LONGEST_PAUSE) } else { FIRST_PAUSE };
        self.state = State::Withdrawn { until: now + self.pause };
        self.calm_since = None;
    }

    /// What the household uses now it uses steadily.
    fn resume(&mut self) {
        self.steady = self.present;
        self.state = State::Offering;
    }

    /// What neighbours may have `now`.
    pub fn offer(&self, now: Instant) -> Offer {
        let Terms { line, share, floor } = self.terms;
        match (self.state, self.capacity()) {
            (State::Withdrawn { .. }, _) if floor > 0 => Offer::Open { rate: floor, pace: Some(floor) },
            (State::Withdrawn { until }, _) => {
                let calm = CALM_FOR.minus(self.calm_for(now));
                Offer::Withdrawn { left: until.since(now).max(calm) }
            }
            (State::Yielding { .. }, _) => {
                let line = self.line();
                let pace = (line / TRICKLE).min(part(line, share)).max(floor);
                Offer::Open { rate: pace, pace: Some(pace) }
            }
            (State::Offering, 0) => Offer::Open { rate: 0, pace: None },
            (State::Offering, capacity) => {
                let used = self.present.max(self.steady);
                let is_idle = used <= capacity / NOISE;
                let free =
                    if is_idle { capacity } else { capacity.saturating_sub(used + capacity / HEADROOM) };
                let rate = part(free, share).max(floor);
                let is_probe = line == 0 && self.probe > Span::ZERO;
                let is_paced = !is_idle || (share < 100 && !is_probe);
                Offer::Open { rate, pace: is_paced.then_some(rate) }
            }
        }
    }
}

/// So many hundredths of a rate.
fn part(rate: u64, share: u8) -> u64 {
    rate.saturating_mul(share.into()) / 100
}

/// Bytes per second.
fn rate(bytes: u64, took: Span) -> u64 {
    bytes.saturating_mul(1_000_000) / took.as_micros().max(1)
}

/// What comes in that time at that rate.
fn bytes(rate: u64, took: Span) -> u64 {
    rate.saturating_mul(took.as_micros()) / 1_000_000
}

/// An average over about `over`, to which `seen` lasted for `took`.
fn follow(average: u64, seen: u64, took: Span, over: Span) -> u64 {
    let (weight, all) = (took.as_micros().min(over.as_micros()), over.as_micros());
    if seen >= average {
        average + (seen - average).saturating_mul(weight) / all
    } else {
        average - (average - seen).saturating_mul(weight) / all
    }
}
