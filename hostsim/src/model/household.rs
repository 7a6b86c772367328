//! A helper's household in the model: the core's own rules ([`bamqp_core::spare`]) over a modelled line. Not responsible for
//! what follows for the session.

use bamqp_core::spare::{Offer, Sample, Spare, Terms};
use bamqp_core::time::{Instant, Span};

use super::lines::{FlowId, LineId, Net};

/// How often a line is looked at.
pub const EVERY: Span = Span::from_millis(100);

/// How long a household is given to get its line.
const WITHIN: Span = Span::from_millis(1_000);

/// More than any download takes.
const ENDLESS: u64 = 1 << 50;

/// A line that its router looks at.
pub struct Watched {
    spare: Spare,
    /// Bytes that came for others on connections that are open, at the last look.
    others: u64,
    household: Option<Household>,
}

struct Household {
    flow: FlowId,
    woke: Instant,
    /// Bytes so far, and at [`WITHIN`] and at the last look, each with its moment.
    came: u64,
    settled: Option<(Instant, u64)>,
    last: Instant,
    is_over: bool,
}

impl Watched {
    /// A line of that rate, whose household sleeps.
    pub fn new(now: Instant, rate: u64) -> Watched {
        let mut spare = Spare::new(Terms { line: rate, ..Terms::default() });
        spare.sample(now, Sample { total: 0, ours: 0, stray: 0 });
        Watched { spare, others: 0, household: None }
    }

    /// Somebody downloads from now on.
    pub fn wake(&mut self, now: Instant, line: LineId, net: &mut Net) {
        let flow = net.open(now, line, ENDLESS);
        net.request(now, flow, ENDLESS, None);
        self.household =
            Some(Household { flow, woke: now, came: 0, settled: None, last: now, is_over: false });
    }

    /// Looks at the line.
    pub fn sample(&mut self, now: Instant, line: LineId, net: &mut Net) {
        let own = self.household.as_ref().map(|household| household.flow);
        let others: u64 =
            net.flows_of(line).filter(|&flow| Some(flow) != own).map(|flow| net.came(flow)).sum();
        // Connections that were closed meanwhile take what they brought with them.
        let ours = others.saturating_sub(self.others);
        self.others = others;
        let mut came = 0;
        if let Some(household) = self.household.as_mut().filter(|household| !household.is_over) {
            let all = net.came(household.flow);
            came = all - household.came;
            (household.came, household.last) = (all, now);
            if household.settled.is_none() && now.since(household.woke) >= WITHIN {
                household.settled = Some((now, all));
            }
            net.read(now, household.flow, ENDLESS);
        }
        self.spare.sample(now, Sample { total: ours + came, ours, stray: 0 });
    }

    /// Nobody downloads any more.
    pub fn end(&mut self, now: Instant, net: &mut Net) {
        if let Some(household) = &mut self.household
            && !core::mem::replace(&mut household.is_over, true)
        {
            net.close(now, household.flow);
        }
    }

    /// If the household needs the line, for how many seconds.
    pub fn withdrawn_for(&self, now: Instant) -> Option<u32> {
        match self.spare.offer(now) {
            Offer::Open { .. } => None,
            Offer::Withdrawn { left } => Some((left.as_millis() / 1000 + 1) as u32),
        }
    }

    /// Bytes per second of the household from a second after it woke up on.
    pub fn household_rate(&self) -> Option<f64> {
        let household = self.household.as_ref()?;
        let (since, before) = household.settled?;
        let took = household.last.since(since).as_micros();
        (took > 0).then(|| (household.came - before) as f64 * 1e6 / took as f64)
    }
}
