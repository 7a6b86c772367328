//! The reorder metrics of RFC 5236 over slots: how far slots arrive out of order, and how many wait in the buffer.
//! Not responsible for anything else; the sequence of arrivals is all that goes in.

use std::collections::BTreeMap;

/// Both densities of one sequence of arrivals, duplicates left out.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reorder {
    /// RD: displacement (arrival position minus place in order) and the share of slots with it; RFC 5236 section 3.
    pub density: BTreeMap<i64, f64>,
    /// RBD: buffer occupancy on arrival and the share of arrivals that saw it; RFC 5236 section 4.
    pub occupancy: BTreeMap<u64, f64>,
}

impl Reorder {
    /// From the slots in the order of their arrival, of a range that begins at `first`.
    pub fn of(first: u64, arrivals: &[u64]) -> Reorder {
        let mut result = Reorder::default();
        let mut waiting = std::collections::BTreeSet::new();
        let (mut next, mut seen) = (first, 0i64);
        for &slot in arrivals {
            if slot < next || !waiting.insert(slot) {
                continue;
            }
            *result.density.entry(seen - (slot - first) as i64).or_default() += 1.0;
            seen += 1;
            while waiting.remove(&next) {
                next += 1;
            }
            *result.occupancy.entry(waiting.len() as u64).or_default() += 1.0;
        }
        let total = (seen as f64).max(1.0);
        result.density.values_mut().chain(result.occupancy.values_mut()).for_each(|share| *share /= total);
        result
    }

    /// The mean of the absolute displacement, in slots.
    pub fn mean_displacement(&self) -> f64 {
        self.density.iter().map(|(d, share)| d.unsigned_abs() as f64 * share).sum()
    }

    /// The mean buffer occupancy, in slots.
    pub fn mean_occupancy(&self) -> f64 {
        self.occupancy.iter().map(|(n, share)| *n as f64 * share).sum()
    }
}
