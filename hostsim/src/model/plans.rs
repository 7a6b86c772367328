//! The simple plans of the literature, on the same simulated lines: an equal share each, shares by advertised
//! bandwidth in one piece, and fixed chunks to whoever is free. Not the product: they are what it is compared with
//! (`hostsim model --plan`). None of them has a window: the client gets bytes in order, so what arrives early waits in
//! memory, and how much that is at most is part of the result.

use std::collections::BTreeMap;

use bamqp_core::time::Instant;

use super::lines::{FlowId, Net};

/// How the file is split.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plan {
    /// size / n each, in one piece.
    Equal,
    /// In proportion to what each line advertises, in one piece; the advertised rate of the first line is what it
    /// really is times `num / den`.
    Advertised {
        /// Times this,
        num: u64,
        /// divided by this.
        den: u64,
    },
    /// Chunks of so many bytes, the next one to whichever line has none.
    Fixed(u64),
}

impl std::fmt::Display for Plan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Plan::Equal => write!(f, "an equal share each"),
            Plan::Advertised { num: 1, den: 1 } => write!(f, "shares as advertised"),
            Plan::Advertised { num, den } => write!(f, "the same, first line x {num}/{den}"),
            Plan::Fixed(bytes) => write!(f, "{} KiB to whoever is free", bytes >> 10),
        }
    }
}

/// What came of a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// When the last byte was there.
    pub ended: Instant,
    /// Bytes that waited for earlier ones, at most.
    pub buffer: u64,
}

/// Downloads `size` bytes over all lines of `net` by `plan`. Every line must be up and have a rate.
pub fn download(mut net: Net, size: u64, plan: Plan) -> Outcome {
    let lines = net.lines.len() as u64;
    let mut todo: Vec<Vec<(u64, u64)>> = vec![Vec::new(); net.lines.len()];
    let mut fixed = None;
    match plan {
        Plan::Equal => {
            for i in 0..lines {
                todo[i as usize].push((size * i / lines, size * (i + 1) / lines));
            }
        }
        Plan::Advertised { num, den } => {
            let rates: Vec<u64> = net
                .lines
                .iter()
                .enumerate()
                .map(|(i, line)| if i == 0 { line.rate * num / den } else { line.rate })
                .collect();
            let sum: u64 = rates.iter().sum::<u64>().max(1);
            let mut from = 0;
            for (i, rate) in rates.iter().enumerate() {
                let to = if i + 1 == rates.len() { size } else { from + size * rate / sum };
                todo[i].push((from, to));
                from = to;
            }
        }
        Plan::Fixed(bytes) => fixed = Some((0u64, bytes.max(1))),
    }
    let mut run =
        Run { now: Instant::default(), flows: Vec::new(), current: Vec::new(), arrived: BTreeMap::new() };
    for line in 0..net.lines.len() {
        let flow = net.open(run.now, line, u64::MAX / 2);
        run.flows.push(flow);
        run.current.push(None);
    }
    let mut delivered = 0;
    let mut buffer = 0;
    let mut events: BTreeMap<(Instant, u64), super::lines::NetEvent> = BTreeMap::new();
    let mut count = 0;
    loop {
        for (i, shares) in todo.iter_mut().enumerate() {
            if run.current[i].is_none() {
                let next = match &mut fixed {
                    Some((at, bytes)) if *at < size => {
                        let chunk = (*at, (*at + *bytes).min(size));
                        *at = chunk.1;
                        Some(chunk)
                    }
                    Some(_) => None,
                    None => shares.pop(),
                };
                if let Some((from, to)) = next.filter(|(from, to)| from < to) {
                    net.request(run.now, run.flows[i], to - from, None);
                    run.current[i] = Some((from, to));
                }
            }
        }
        for (at, event) in std::mem::take(&mut net.later) {
            count += 1;
            events.insert((at, count), event);
        }
        let Some(((at, _), event)) = events.pop_first() else { break };
        run.now = at;
        if let Some(flow) = net.event(at, event) {
            run.take(&mut net, flow);
            let waiting = run.in_order(&mut delivered);
            buffer = buffer.max(waiting);
        }
        if delivered == size {
            break;
        }
    }
    Outcome { ended: run.now, buffer }
}

struct Run {
    now: Instant,
    flows: Vec<FlowId>,
    /// What each line is bringing: from where on, and to where.
    current: Vec<Option<(u64, u64)>>,
    /// Runs that arrived ahead of the client, by their start.
    arrived: BTreeMap<u64, u64>,
}

impl Run {
    fn take(&mut self, net: &mut Net, flow: FlowId) {
        let Some(i) = self.flows.iter().position(|&f| f == flow) else { return };
        while let Some((from, to)) = self.current[i] {
            let (got, _) = net.read(self.now, flow, to - from);
            if got == 0 {
                return;
            }
            // Append to the run that ends here, so that there are few of them.
            match self.arrived.range_mut(..=from).next_back().filter(|(_, end)| **end == from) {
                Some((_, end)) => *end = from + got,
                None => {
                    self.arrived.insert(from, from + got);
                }
            }
            self.current[i] = (from + got < to).then_some((from + got, to));
        }
    }

    /// Hands the client what is in order; the bytes that still wait.
    fn in_order(&mut self, delivered: &mut u64) -> u64 {
        while let Some(first) = self.arrived.first_entry().filter(|first| *first.key() <= *delivered) {
            *delivered = first.remove().max(*delivered);
        }
        self.arrived.iter().map(|(from, to)| to - from).sum()
    }
}
