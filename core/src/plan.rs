//! What is still to be asked of somebody, and how much of it to ask of whom: the scheduling arithmetic of DESIGN
//! section 5. Not responsible for what a lane is doing; it is told rates, round trips and debts.

use core::ops::Range;

use crate::limits::SLOT_BYTES;
use crate::time::Span;

/// What a lane is expected to do, as the planner sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Bytes per second, at least 1.
    pub rate: u64,
    /// Round trip from request to first byte.
    pub rtt: Span,
    /// Bytes asked for and not yet here.
    pub owed: u64,
}

impl Pace {
    /// How long `bytes` take at this rate.
    pub fn time_for(&self, bytes: u64) -> Span {
        time_for(bytes, self.rate)
    }

    /// When the first byte of a request made now would come: after what is owed, and not before a round trip.
    pub fn busy(&self) -> Span {
        self.rtt.max(self.time_for(self.owed))
    }

    /// Rule 1: how much must be owed at least, or it is time to ask again. The lane's thread sleeps for `mark` bytes, so
    /// that much is added: what is owed must not fall below r x (RTT + 20 ms) in between.
    pub fn cover(&self, mark: u64) -> u64 {
        bytes_in(self.rtt + Span::from_millis(20), self.rate).saturating_add(mark)
    }

    /// Whether it is time to ask again.
    pub fn wants_more(&self, mark: u64) -> bool {
        self.owed < self.cover(mark)
    }
}

/// How long `bytes` take at `rate` bytes per second.
pub fn time_for(bytes: u64, rate: u64) -> Span {
    Span::from_micros(bytes.saturating_mul(1_000_000) / rate.max(1))
}

/// How many bytes come in `span` at `rate` bytes per second.
pub fn bytes_in(span: Span, rate: u64) -> u64 {
    span.as_micros().saturating_mul(rate) / 1_000_000
}

/// The lanes taken together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pool {
    /// S: the sum of the rates, bytes per second.
    pub rate: u64,
    /// R: the rate-weighted mean round trip.
    pub rtt: Span,
}

impl Pool {
    /// Sums up `lanes`.
    pub fn of(lanes: impl Iterator<Item = Pace>) -> Pool {
        let (mut rate, mut weighted) = (0u64, 0u64);
        for lane in lanes {
            rate = rate.saturating_add(lane.rate);
            weighted = weighted.saturating_add(lane.rate.saturating_mul(lane.rtt.as_micros()));
        }
        Pool { rate, rtt: Span::from_micros(weighted / rate.max(1)) }
    }

    /// Rule 2: T, the same for every lane: clamp(0.6 x (W/S - R), 25 ms, 100 ms), W in bytes.
    pub fn chunk_time(&self, window: u64) -> Span {
        let slack = time_for(window, self.rate) - self.rtt;
        slack.scale(3, 5).clamp(Span::from_millis(25), Span::from_millis(100))
    }

    /// How long bytes may wait in a lane's socket for more to come, since waking up costs more than the bytes (DESIGN
    /// section 4): 50 ms, or less where the window W, in bytes, has no time to spare.
    pub fn portion_time(&self, window: u64) -> Span {
        let slack = time_for(window, self.rate) - self.rtt;
        slack.scale(1, 4).clamp(Span::from_millis(5), Span::from_millis(50))
    }

    /// Rule 8: whether a lane is so slow that it would hold up the others (`self`, without it): its slot time plus
    /// round trip exceeds 1.5 x (W/S - R) and 3 x that of `fastest`.
    pub fn is_held_up_by(&self, lane: Pace, fastest: Pace, window: u64) -> bool {
        let slot = SLOT_BYTES as u64;
        let takes = lane.time_for(slot) + lane.rtt;
        let spare = time_for(window, self.rate) - self.rtt;
        takes > spare.scale(3, 2) && takes > (fastest.time_for(slot) + fastest.rtt).scale(3, 1)
    }
}

/// Rule 7: how many of the last `rest` bytes `me` should take so that all lanes finish together; `others` without
/// `me`. Zero if the others would be done with all of it before `me` could deliver anything.
pub fn share(rest: u64, me: Pace, others: impl Iterator<Item = Pace> + Clone) -> u64 {
    // Raise the common finish until what all lanes bring by then covers the rest: lanes that become free later
    // than the finish bring nothing. The loop ends because each pass only ever drops lanes from the sum.
    let all = || others.clone().chain(core::iter::once(me));
    let mut finish = Span::from_micros(u64::MAX);
    loop {
        let (mut rate, mut debt) = (0u64, rest);
        for lane in all().filter(|l| l.busy() < finish) {
            rate = rate.saturating_add(lane.rate);
            debt = debt.saturating_add(bytes_in(lane.busy(), lane.rate));
        }
        let sooner = time_for(debt, rate);
        if rate == 0 || sooner >= finish {
            break;
        }
        let dropped = all().any(|l| l.busy() < finish && l.busy() >= sooner);
        finish = sooner;
        if !dropped {
            break;
        }
    }
    bytes_in(finish - me.busy(), me.rate).min(rest)
}

/// Which slots nobody was asked for yet: all from the frontier on, and below it the ones that a lane lost.
#[derive(Debug)]
pub struct Unassigned<const SLOTS: usize> {
    frontier: u64,
    end: u64,
    lost: [bool; SLOTS],
    count: u64,
}

impl<const SLOTS: usize> Unassigned<SLOTS> {
    /// Slots `first..end`, none of them assigned.
    pub fn new(first: u64, end: u64) -> Self {
        Self { frontier: first, end, lost: [false; SLOTS], count: 0 }
    }

    /// The first slot that was never asked of anybody.
    pub fn frontier(&self) -> u64 {
        self.frontier
    }

    /// How many slots nobody is to bring.
    pub fn len(&self) -> u64 {
        self.end - self.frontier + self.count
    }

    /// Whether everything is assigned.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many slots below the frontier are lost.
    pub fn lost(&self) -> u64 {
        self.count
    }

    /// There are slots up to `end` now.
    pub fn extend(&mut self, end: u64) {
        self.end = self.end.max(end);
    }

    /// The next `count` slots at the frontier are assigned, as far as the range goes.
    pub fn advance(&mut self, count: u64) -> Range<u64> {
        let start = self.frontier;
        self.frontier = start.saturating_add(count).min(self.end);
        start..self.frontier
    }

    /// Nobody is to bring slot `index` any more. Slots at or past the frontier are unassigned anyway.
    pub fn lose(&mut self, index: u64) {
        if let Some(lost) = self.place(index) {
            self.count += u64::from(!core::mem::replace(lost, true));
        }
    }

    /// Slot `index` is assigned, or here.
    pub fn settle(&mut self, index: u64) {
        if let Some(lost) = self.place(index) {
            self.count -= u64::from(core::mem::replace(lost, false));
        }
    }

    /// Whether slot `index` is lost.
    pub fn is_lost(&self, index: u64) -> bool {
        self.remembers(index) && self.lost[(index % SLOTS as u64) as usize]
    }

    /// The first run of at most `most` lost slots at or after `next` (the client's slot), for which `wanted` holds.
    pub fn first_lost(
        &self,
        next: u64,
        most: u64,
        mut wanted: impl FnMut(u64) -> bool,
    ) -> Option<Range<u64>> {
        if self.count == 0 {
            return None;
        }
        let start = (next..self.frontier).find(|&i| self.is_lost(i) && wanted(i))?;
        let end =
            (start..self.frontier.min(start.saturating_add(most))).find(|&i| !self.is_lost(i) || !wanted(i));
        Some(start..end.unwrap_or(self.frontier.min(start.saturating_add(most))))
    }

    /// The last `SLOTS` below the frontier are remembered; what lies before them was delivered long ago.
    fn remembers(&self, index: u64) -> bool {
        index < self.frontier && self.frontier - index <= SLOTS as u64
    }

    fn place(&mut self, index: u64) -> Option<&mut bool> {
        self.remembers(index).then(|| &mut self.lost[(index % SLOTS as u64) as usize])
    }
}
