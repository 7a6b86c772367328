//! Which origins are not to be pooled for a while, and why. Not responsible for finding out, nor for how long
//! ([`bamqp_core::lesson`]).

use bamqp_core::lesson::Lesson;
use core::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Most origins that are remembered; of more, the one whose time is up first is forgotten.
const MOST: usize = 64;

/// An origin: the name that it was asked for by, and the address that answered. In transparent mode the client chooses both,
/// so what is learnt about one address says nothing about another.
type Key = (Box<str>, SocketAddr);

/// What was learnt of it, and until when that counts.
#[derive(Clone, Debug)]
pub struct Memory {
    key: Key,
    /// Why it is not pooled.
    pub lesson: Lesson,
    until: Instant,
}

impl Memory {
    /// The name that it was asked for by.
    pub fn authority(&self) -> &str {
        &self.key.0
    }

    /// The address that answered.
    pub fn address(&self) -> SocketAddr {
        self.key.1
    }

    /// How long that still counts.
    pub fn left(&self, now: Instant) -> Duration {
        self.until.saturating_duration_since(now)
    }

    fn is_of(&self, authority: &str, address: SocketAddr) -> bool {
        &*self.key.0 == authority && self.key.1 == address
    }
}

/// What is remembered, in memory only.
#[derive(Debug, Default)]
pub struct OriginMemory(Mutex<Vec<Memory>>);

impl OriginMemory {
    /// A download taught this at `now`.
    pub fn learn(&self, authority: &str, address: SocketAddr, lesson: Lesson, now: Instant) {
        let mut origins = self.lock();
        origins.retain(|memory| now < memory.until && !memory.is_of(authority, address));
        if origins.len() == MOST
            && let Some(first) = (0..origins.len()).min_by_key(|&i| origins.get(i).map(|memory| memory.until))
        {
            origins.swap_remove(first);
        }
        let until = now + Duration::from_micros(lesson.lasts().as_micros());
        origins.push(Memory { key: (authority.into(), address), lesson, until });
    }

    /// What counts of it `now`.
    pub fn lesson(&self, authority: &str, address: SocketAddr, now: Instant) -> Option<Lesson> {
        let origins = self.lock();
        let known = origins.iter().find(|memory| memory.is_of(authority, address) && now < memory.until);
        known.map(|memory| memory.lesson)
    }

    /// All that counts `now`, for people.
    pub fn views(&self, now: Instant) -> Vec<Memory> {
        self.lock().iter().filter(|memory| now < memory.until).cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Memory>> {
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
        let lesson = Lesson::RefusesPeers(403);
        let hour = Duration::from_secs(60 * 60);
        memory.learn("a", address(1), lesson, now);
        assert_eq!(memory.lesson("a", address(1), now), Some(lesson));
        assert_eq!((memory.lesson("b", address(1), now), memory.lesson("a", address(2), now)), (None, None));
        assert_eq!(memory.lesson("a", address(1), now + hour), None);
        // The latest counts.
        memory.learn("a", address(1), Lesson::Inconsistent, now);
        assert_eq!(memory.lesson("a", address(1), now + hour), Some(Lesson::Inconsistent));
        for n in 2..=255 {
            memory.learn("a", address(n), lesson, now + Duration::from_secs(n.into()));
        }
        assert_eq!(memory.views(now).len(), MOST);
        assert!(
            memory.lesson("a", address(255), now).is_some() && memory.lesson("a", address(2), now).is_none()
        );
    }
}
