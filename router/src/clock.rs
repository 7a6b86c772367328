//! The daemon's clock: microseconds since its start, monotonic. Not responsible for the time of day, which these
//! routers don't have at boot.

use std::sync::OnceLock;
use std::time::{Duration, Instant as StdInstant};

use bamqp_core::time::Instant;

fn origin() -> StdInstant {
    static ORIGIN: OnceLock<StdInstant> = OnceLock::new();
    *ORIGIN.get_or_init(StdInstant::now)
}

/// Now, as the core counts time.
pub fn now() -> Instant {
    Instant::from_micros(origin().elapsed().as_micros() as u64)
}

/// The same moment as the system's calls take it.
pub fn to_std(instant: Instant) -> StdInstant {
    origin() + Duration::from_micros(instant.as_micros())
}
