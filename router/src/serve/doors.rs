//! How many connections may come from where. Not responsible for what is said on them.

use core::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::config::Peer;

/// Most connections of strangers at a time, all of them together (DESIGN section 7).
pub const MAX_STRANGERS: u16 = 2;

/// Counts the connections of each configured peer, and those of strangers.
#[derive(Debug)]
pub struct Doors {
    addresses: Vec<IpAddr>,
    /// Most connections of one peer.
    most: u16,
    /// One count for each of `addresses`, and the strangers' as the last.
    counts: Mutex<Vec<u16>>,
}

impl Doors {
    /// `most` connections for each of `peers`.
    pub fn new(peers: &[Peer], most: u16) -> Doors {
        let mut addresses: Vec<IpAddr> = peers.iter().map(|peer| peer.address.ip().to_canonical()).collect();
        addresses.sort_unstable();
        addresses.dedup();
        let counts = Mutex::new(vec![0; addresses.len() + 1]);
        Doors { addresses, most, counts }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<u16>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a connection in; `None` if there are too many from there.
    pub fn enter(self: &Arc<Self>, from: SocketAddr) -> Option<Visit> {
        let ip = from.ip().to_canonical();
        let (place, is_peer) = match self.addresses.binary_search(&ip) {
            Ok(place) => (place, true),
            Err(_) => (self.addresses.len(), false),
        };
        let most = if is_peer { self.most } else { MAX_STRANGERS };
        let mut counts = self.lock();
        let count = counts.get_mut(place).filter(|count| **count < most)?;
        *count += 1;
        Some(Visit { doors: self.clone(), place, from, ip, is_peer })
    }
}

/// A connection that was counted in; dropped, it is counted out.
#[derive(Debug)]
pub struct Visit {
    doors: Arc<Doors>,
    place: usize,
    /// Where it comes from, with the port.
    pub from: SocketAddr,
    /// Its address, as the configuration has it.
    pub ip: IpAddr,
    /// Whether that is a configured peer's address.
    pub is_peer: bool,
}

impl Drop for Visit {
    fn drop(&mut self) {
        if let Some(count) = self.doors.lock().get_mut(self.place) {
            *count = count.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(address: &str) -> Peer {
        Peer { name: address.into(), address: address.parse().unwrap(), public_key: [0; 32] }
    }

    #[test]
    fn each_peer_has_its_own_limit_and_strangers_share_theirs() {
        let peers = [peer("10.0.0.2:7733"), peer("10.0.0.1:7733"), peer("10.0.0.1:7734")];
        let doors = Arc::new(Doors::new(&peers, 3));
        let from = |ip: &str| doors.enter(SocketAddr::new(ip.parse().unwrap(), 50_000));
        let one: Vec<_> = (0..3).map(|_| from("10.0.0.1").unwrap()).collect();
        assert!(one.iter().all(|visit| visit.is_peer));
        assert!(from("10.0.0.1").is_none());
        assert!(from("10.0.0.2").unwrap().is_peer);
        assert!(from("::ffff:10.0.0.2").unwrap().is_peer);
        let (first, second) = (from("192.0.2.1").unwrap(), from("192.0.2.2").unwrap());
        assert!(!first.is_peer && !second.is_peer);
        assert!(from("192.0.2.3").is_none());
        drop((first, one));
        assert!(from("192.0.2.3").is_some());
        assert!(from("10.0.0.1").is_some());
    }
}
