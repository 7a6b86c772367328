//! Our identity, what is agreed with each configured router, and counts of what that costs and refuses. Not responsible
//! for key files ([`crate::keys`]).

use core::sync::atomic::{AtomicU32, Ordering};
use std::sync::Arc;

use bamqp_core::channel::{Identity, Neighbour, Refusal, Tally, WeakKey};
use bamqp_core::message::Fingerprint;

use crate::config::Peer;
use crate::keys::KeyPair;

/// The keys of one router.
#[derive(Debug)]
pub struct Keyring {
    me: Arc<Identity>,
    /// Without those whose key is none.
    neighbours: Vec<Neighbour>,
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    macs: AtomicU32,
    signed: AtomicU32,
    verified: AtomicU32,
    refused: [AtomicU32; Refusal::ALL.len()],
}

/// What was done and refused since the start; each number wraps around.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Cryptographic operations in INITs.
    pub tally: Tally,
    /// Messages that were refused, by [`Refusal::index`].
    pub refused: [u32; Refusal::ALL.len()],
}

impl Report {
    /// How many messages were refused for this.
    pub fn refused(&self, refusal: Refusal) -> u32 {
        self.refused.get(refusal.index()).copied().unwrap_or(0)
    }
}

impl Keyring {
    /// Agrees with all configured routers: about 20 ms each on a small device.
    ///
    /// # Errors
    /// If the own key is none.
    pub fn new(pair: &KeyPair, peers: &[Peer]) -> Result<Keyring, WeakKey> {
        let me = Identity::from_seed(*pair.seed())?;
        let alone = Keyring { me: Arc::new(me), neighbours: Vec::new(), counts: Arc::default() };
        Ok(alone.renew(peers))
    }

    /// The same router with other peers; what was agreed with those that stay is kept, and the counts go on.
    pub fn renew(&self, peers: &[Peer]) -> Keyring {
        let agree = |peer: &Peer| {
            let known = self.neighbours.iter().find(|known| known.public_key == peer.public_key);
            let agreed = known.map_or_else(|| self.me.agree(&peer.public_key), |known| Ok(known.clone()));
            agreed.inspect_err(|why| log::error!("peer {}: its public_key: {why}", peer.name)).ok()
        };
        let neighbours = peers.iter().filter_map(agree).collect();
        Keyring { me: self.me.clone(), neighbours, counts: self.counts.clone() }
    }

    /// Ourselves.
    pub fn me(&self) -> &Identity {
        &self.me
    }

    /// The configured router with this fingerprint.
    pub fn find(&self, key: Fingerprint) -> Option<&Neighbour> {
        self.neighbours.iter().find(|neighbour| neighbour.fingerprint == key)
    }

    /// Counts operations.
    pub fn count(&self, tally: Tally) {
        self.counts.macs.fetch_add(tally.macs, Ordering::Relaxed);
        self.counts.signed.fetch_add(tally.signed, Ordering::Relaxed);
        self.counts.verified.fetch_add(tally.verified, Ordering::Relaxed);
    }

    /// Counts a message that was refused.
    pub fn count_refusal(&self, refusal: Refusal) {
        if let Some(count) = self.counts.refused.get(refusal.index()) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// What was counted.
    pub fn report(&self) -> Report {
        let read = |count: &AtomicU32| count.load(Ordering::Relaxed);
        let Counts { macs, signed, verified, refused } = &*self.counts;
        Report {
            tally: Tally { macs: read(macs), signed: read(signed), verified: read(verified) },
            refused: refused.each_ref().map(read),
        }
    }
}
