//! How many connections may come from where. Not responsible for what is said on them.

use core::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::config::Peer;

/// Most connections of strangers at a time, all of them together (DESIGN section 7).
pub const MAX_STRANGERS: u16 = 2;

/// Connections that each peer can have whatever the others do: the one that it keeps, and one more.
const RESERVED: usize = 2;

/// Counts the connections of each configured peer, and those of strangers.
#[derive(Debug)]
pub struct Doors {
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    addresses: Vec<IpAddr>,
    /// Most connections of all peers together, besides those that are reserved.
    most: usize,
    /// Where those that are counted in come from. Few: a search through them costs less than keeping them sorted.
    inside: Vec<IpAddr>,
    /// Who is not let in for now, and until when: at most one entry for each peer.
    shut: Vec<(IpAddr, Instant)>,
}

impl Inner {
    fn from(&self, ip: IpAddr) -> usize {
        self.inside.iter().filter(|other| **other == ip).count()
    }

    /// Connections of peers above what is reserved for them.
    fn shared(&self) -> usize {
        self.addresses.iter().map(|ip| self.from(*ip).saturating_sub(RESERVED)).sum()
    }
}

impl Doors {
    /// Two connections for each of `peers`, and `most` more for all of them together.
    pub fn new(peers: &[Peer], most: usize) -> Doors {
        let doors = Doors {
            inner: Mutex::new(Inner { addresses: Vec::new(), most, inside: Vec::new(), shut: Vec::new() }),
        };
        doors.renew(peers, most);
        doors
    }

    /// From now on these are the peers and the limit; who is inside stays.
    pub fn renew(&self, peers: &[Peer], most: usize) {
        let mut addresses: Vec<IpAddr> = peers.iter().map(|peer| peer.address.ip().to_canonical()).collect();
        addresses.sort_unstable();
        addresses.dedup();
        let mut inner = self.lock();
        (inner.addresses, inner.most) = (addresses, most);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Every change is one call, so a panic elsewhere leaves nothing half done.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A peer is not let in until then. Its connections stay.
    pub fn shut(&self, ip: IpAddr, until: Instant) {
        let mut inner = self.lock();
        inner.shut.retain(|(other, _)| *other != ip);
        inner.shut.push((ip, until));
    }

    /// Counts a connection in; `None` if there are too many from there.
    pub fn enter(self: &Arc<Self>, from: SocketAddr) -> Option<Visit> {
        let ip = from.ip().to_canonical();
        let mut inner = self.lock();
        if !inner.shut.is_empty() {
            let now = Instant::now();
            inner.shut.retain(|(_, until)| now < *until);
            if inner.shut.iter().any(|(shut, _)| *shut == ip) {
                return None;
            }
        }
        let is_peer = inner.addresses.contains(&ip);
        let has_room = if is_peer {
            inner.from(ip) < RESERVED || inner.shared() < inner.most
        } else {
            let strangers = inner.inside.iter().filter(|ip| !inner.addresses.contains(ip)).count();
            strangers < MAX_STRANGERS.into()
        };
        if !has_room {
            return None;
        }
        inner.inside.push(ip);
        Some(Visit { doors: self.clone(), from, ip, is_peer })
    }
}

/// A connection that was counted in; dropped, it is counted out.
#[derive(Debug)]
pub struct Visit {
    doors: Arc<Doors>,
    /// Where it comes from, with the port.
    pub from: SocketAddr,
    /// Its address, as the configuration has it.
    pub ip: IpAddr,
    /// Whether that is a configured peer's address.
    pub is_peer: bool,
}

impl Drop for Visit {
    fn drop(&mut self) {
        let mut inner = self.doors.lock();
        if let Some(place) = inner.inside.iter().position(|ip| *ip == self.ip) {
            inner.inside.swap_remove(place);
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
    fn each_peer_has_its_own_connections_and_shares_others_and_strangers_share_theirs() {
        let peers = [peer("10.0.0.2:7733"), peer("10.0.0.1:7733"), peer("10.0.0.1:7734")];
        let doors = Arc::new(Doors::new(&peers, 1));
        let from = |ip: &str| doors.enter(SocketAddr::new(ip.parse().unwrap(), 50_000));
        let one: Vec<_> = (0..3).map(|_| from("10.0.0.1").unwrap()).collect();
        assert!(one.iter().all(|visit| visit.is_peer));
        assert!(from("10.0.0.1").is_none());
        assert!(from("10.0.0.2").unwrap().is_peer);
        let two: Vec<_> = (0..2).map(|_| from("::ffff:10.0.0.2").unwrap()).collect();
        assert!(two.iter().all(|visit| visit.is_peer));
        assert!(from("10.0.0.2").is_none(), "the third is taken by the other");
        let (first, second) = (from("192.0.2.1").unwrap(), from("192.0.2.2").unwrap());
        assert!(!first.is_peer && !second.is_peer);
        assert!(from("192.0.2.3").is_none());
        drop((first, one));
        assert!(from("192.0.2.3").is_some());
        assert!(from("10.0.0.1").is_some());
        assert!(from("10.0.0.2").is_some());
    }

    #[test]
    fn who_is_shut_out_comes_in_again_when_its_time_is_up() {
        let doors = Arc::new(Doors::new(&[peer("10.0.0.1:7733"), peer("10.0.0.2:7733")], 0));
        let from = |ip: &str| doors.enter(SocketAddr::new(ip.parse().unwrap(), 50_000)).is_some();
        doors.shut("10.0.0.1".parse().unwrap(), Instant::now() + core::time::Duration::from_secs(3600));
        assert!(!from("10.0.0.1") && from("10.0.0.2"));
        doors.shut("10.0.0.1".parse().unwrap(), Instant::now());
        assert!(from("10.0.0.1"));
        assert!(doors.lock().shut.is_empty());
    }

    #[test]
    fn with_other_peers_who_is_inside_still_counts() {
        let doors = Arc::new(Doors::new(&[peer("10.0.0.1:7733")], 0));
        let from = |ip: &str| doors.enter(SocketAddr::new(ip.parse().unwrap(), 50_000));
        let inside = [from("10.0.0.1").unwrap(), from("10.0.0.1").unwrap()];
        doors.renew(&[peer("10.0.0.2:7733")], 1);
        assert!(from("10.0.0.1").is_none(), "two strangers are inside now");
        assert!(from("10.0.0.2").is_some_and(|visit| visit.is_peer));
        drop(inside);
        assert!(from("10.0.0.1").is_some_and(|visit| !visit.is_peer));
    }
}
