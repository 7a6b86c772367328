//! What earlier downloads measured of the own internet link, so that the next one starts from it. Not responsible for
//! measuring.

use std::sync::atomic::{AtomicU32, Ordering};

/// The own link's rate. 32 bits: MIPS has no larger atomics, and 4 GB/s are enough for a router.
#[derive(Debug, Default)]
pub struct OwnLinkRecord(AtomicU32);

impl OwnLinkRecord {
    /// The last measurement in bytes per second, if there was one.
    pub fn rate(&self) -> Option<u64> {
        match self.0.load(Ordering::Relaxed) {
            0 => None,
            rate => Some(rate.into()),
        }
    }

    /// A download measured `rate` bytes per second.
    pub fn record(&self, rate: u64) {
        self.0.store(u32::try_from(rate).unwrap_or(u32::MAX), Ordering::Relaxed);
    }
}
