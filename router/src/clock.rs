//! The daemon's clock: microseconds since its start, monotonic; and what is known of boots and of the time of day, which
//! these routers don't have at boot. Nothing relies on the latter.

use std::path::Path;
use std::sync::OnceLock;
use std::time::{Duration, Instant as StdInstant, SystemTime};

use bamqp_core::ledger::Time;
use bamqp_core::time::Instant;

/// Files that are there once the clock was set: from the network on OpenWrt (by this package's hotplug script, or
/// dnsmasq's) and under systemd.
const CLOCK_IS_SET: [&str; 3] =
    ["/var/run/bamqp/clock-is-set", "/var/state/dnsmasqsec", "/run/systemd/timesync/synchronized"];

/// Reads 1 where a battery keeps the clock and the kernel took it from there.
const CLOCK_CHIP: &str = "/sys/class/rtc/rtc0/hctosys";

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

/// The core's name of a moment of the system's.
pub fn of_std(moment: StdInstant) -> Instant {
    Instant::from_micros(moment.saturating_duration_since(origin()).as_micros() as u64)
}

/// What the system believes to be the time of day.
pub fn time_of_day() -> Time {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    Time::from_seconds(since.map_or(0, |since| since.as_secs()))
}

/// Seconds since the router's boot; 0 if the system does not tell. (From a file: rustix's `clock_gettime` takes `time_t`
/// for 64 bits wide on MIPS with musl, where the libc crate declares it for 32 bits.)
pub fn uptime() -> u64 {
    let uptime = std::fs::read_to_string("/proc/uptime").unwrap_or_default();
    uptime.split('.').next().and_then(|seconds| seconds.parse().ok()).unwrap_or(0)
}

/// The system's name of this boot; empty if it has none.
pub fn boot_id() -> String {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    id.trim_end().to_owned()
}

/// Seconds since 1970, if there is a sign that the clock was set.
pub fn set_clock() -> Option<u64> {
    let is_set = CLOCK_IS_SET.iter().any(|file| Path::new(file).exists())
        || std::fs::read(CLOCK_CHIP).is_ok_and(|chip| chip.starts_with(b"1"));
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).ok()?;
    is_set.then_some(since.as_secs())
}

/// Seconds since 1970 in local time, if there is a sign that the clock was set.
pub fn local_time() -> Option<u64> {
    let now = set_clock()?;
    let ahead = ahead_of_utc(now);
    match u64::try_from(ahead) {
        Ok(ahead) => now.checked_add(ahead),
        Err(_) => now.checked_sub(u64::try_from(ahead.checked_neg()?).ok()?),
    }
}

/// By how many seconds local time is ahead of UTC; 0 if nobody knows.
fn ahead_of_utc(now: u64) -> libc::c_long {
    let Ok(now) = libc::time_t::try_from(now) else { return 0 };
    let mut fields = core::mem::MaybeUninit::<libc::tm>::zeroed();
    // SAFETY: `now` lives for the whole call, and `fields` is room for the one structure that is written.
    let result = unsafe { libc::localtime_r(&now, fields.as_mut_ptr()) };
    if result.is_null() {
        return 0;
    }
    // SAFETY: the call succeeded, so it was filled; all zeros would be a valid value as well.
    let fields = unsafe { fields.assume_init() };
    fields.tm_gmtoff
}
