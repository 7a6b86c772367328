//! The daemon's clock: microseconds since its start, monotonic; and what the ledger writes down, which proves nothing:
//! these routers don't know the time of day at boot.

use std::sync::OnceLock;
use std::time::{Duration, Instant as StdInstant, SystemTime};

use bamqp_core::ledger::Time;
use bamqp_core::time::Instant;
use rustix::time::{ClockId, clock_gettime};

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

/// What the system believes to be the time of day.
pub fn time_of_day() -> Time {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    Time::from_seconds(since.map_or(0, |since| since.as_secs()))
}

/// Seconds since the router's boot.
pub fn uptime() -> u64 {
    u64::try_from(clock_gettime(ClockId::Boottime).tv_sec).unwrap_or(0)
}

/// The system's name of this boot; empty if it has none.
pub fn boot_id() -> String {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    id.trim_end().to_owned()
}
