//! Which origins are not to be pooled for a while, because that did not work. Not responsible for finding out.

use core::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long an origin is left alone that served different bytes under one validator.
pub const INCONSISTENT_FOR: Duration = Duration::from_secs(12 * 60 * 60);

/// Most origins that are remembered; of more, the one whose time is up first is forgotten.
const MOST: usize = 64;

/// An origin: the name that it was asked for by, and the address that answered. In transparent mode the client chooses both,
/// so what is learnt about one address says nothing about another.
type Key = (Box<str>, SocketAddr);

/// What is remembered, in memory only.
#[derive(Debug, Default)]
pub struct OriginMemory(Mutex<Vec<(Key, Instant)>>);

impl OriginMemory {
    /// Not to be pooled for `time` from `now` on.
    pub fn avoid(&self, authority: &str, address: SocketAddr, now: Instant, time: Duration) {
        let mut origins = self.lock();
        origins.retain(|((name, at), until)| now < *until && !(&**name == authority && *at == address));
        if origins.len() == MOST
            && let Some(first) = (0..origins.len()).min_by_key(|&i| origins.get(i).map(|(_, until)| *until))
        {
            origins.swap_remove(first);
        }
        origins.push(((authority.into(), address), now + time));
    }

    /// Whether it is to be avoided `now`.
    pub fn is_avoided(&self, authority: &str, address: SocketAddr, now: Instant) -> bool {
        let known =
            |((name, at), until): &(Key, Instant)| &**name == authority && *at == address && now < *until;
        self.lock().iter().any(known)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(Key, Instant)>> {
        // Every change leaves a list that is in order, so a panic elsewhere does no harm.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_avoided_for_its_time_by_name_and_address_and_memory_is_bounded() {
        let (memory, now) = (OriginMemory::default(), Instant::now());
        let address = |n: u8| SocketAddr::from(([192, 0, 2, n], 80));
        let second = Duration::from_secs(1);
        memory.avoid("a", address(1), now, second);
        assert!(memory.is_avoided("a", address(1), now));
        assert!(!memory.is_avoided("b", address(1), now) && !memory.is_avoided("a", address(2), now));
        assert!(!memory.is_avoided("a", address(1), now + second));
        for n in 2..=255 {
            memory.avoid("a", address(n), now, second * u32::from(n));
        }
        assert_eq!(memory.lock().len(), MOST);
        assert!(memory.is_avoided("a", address(255), now) && !memory.is_avoided("a", address(2), now));
    }
}
