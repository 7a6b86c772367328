//! Lines of the log that a stranger can cause, so that they don't push everything else out of it: a few a minute, then
//! how many more there were. Not responsible for what they say, nor for counting for status.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Lines in [`PERIOD`] that are written.
const MOST: u32 = 10;

const PERIOD: Duration = Duration::from_secs(60);

/// One kind of line.
#[derive(Debug, Default)]
pub struct Sparingly(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// When the period began, and the lines that were wanted in it.
    period: Option<(Instant, u32)>,
    /// Lines that were not written since the last one that was.
    left_out: u32,
}

impl Sparingly {
    /// None were written yet.
    pub const fn new() -> Sparingly {
        Sparingly(Mutex::new(State { period: None, left_out: 0 }))
    }

    /// Whether a line may be written `now`; then, how many could not since the last one.
    pub fn may_write(&self, now: Instant) -> Option<u32> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let same = state.period.filter(|(begun, _)| now.saturating_duration_since(*begun) < PERIOD);
        let (begun, lines) = same.unwrap_or((now, 0));
        state.period = Some((begun, lines.saturating_add(1)));
        if lines < MOST {
            return Some(core::mem::take(&mut state.left_out));
        }
        state.left_out = state.left_out.saturating_add(1);
        None
    }

    /// Writes the line that `text` makes, if it may, in the name of the module `target`.
    pub fn info(&self, target: &str, text: impl FnOnce() -> String) {
        match self.may_write(Instant::now()) {
            Some(0) => log::info!(target: target, "{}", text()),
            Some(others) => log::info!(target: target, "{} ({others} more like this were not shown)", text()),
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_a_minute_and_then_how_many_more() {
        let (lines, start) = (Sparingly::new(), Instant::now());
        let at = |millis| start + Duration::from_millis(millis);
        for i in 0..10 {
            assert_eq!(lines.may_write(at(i)), Some(0));
        }
        for i in 0..10_000 {
            assert_eq!(lines.may_write(at(10 + i)), None);
        }
        assert_eq!(lines.may_write(at(60_000)), Some(10_000));
        assert_eq!(lines.may_write(at(60_001)), Some(0));
    }
}
