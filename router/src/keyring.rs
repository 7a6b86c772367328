//! Our identity, what is agreed with each configured router, and counts of what that costs and refuses. Not responsible
//! for key files ([`crate::keys`]).

use core::sync::atomic::{AtomicU32, Ordering};

use bamqp_core::channel::{Identity, Neighbour, Refusal, Tally, WeakKey};
use bamqp_core::message::Fingerprint;

use crate::config::Peer;
use crate::keys::KeyPair;

/// The keys of one router.
#[derive(Debug)]
pub struct Keyring {
    me: Identity,
    /// In the order of the configuration; `None` for a key that is none.
    neighbours: Vec<Option<Neighbour>>,
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
        let agree = |peer: &Peer| {
            let agreed = me.agree(&peer.public_key);
            agreed.inspect_err(|why| log::error!("peer {}: its public_key: {why}", peer.name)).ok()
        };
        Ok(Keyring {
            neighbours: peers.iter().map(agree).collect(),
            me,
            macs: AtomicU32::new(0),
            signed: AtomicU32::new(0),
            verified: AtomicU32::new(0),
            refused: Default::default(),
        })
    }

    /// Ourselves.
    pub fn me(&self) -> &Identity {
        &self.me
    }

    /// The router at this place in the configuration.
    pub fn neighbour(&self, peer: usize) -> Option<&Neighbour> {
        self.neighbours.get(peer)?.as_ref()
    }

    /// The configured router with this fingerprint.
    pub fn find(&self, key: Fingerprint) -> Option<&Neighbour> {
        self.neighbours.iter().flatten().find(|neighbour| neighbour.fingerprint == key)
    }

    /// Counts operations.
    pub fn count(&self, tally: Tally) {
        self.macs.fetch_add(tally.macs, Ordering::Relaxed);
        self.signed.fetch_add(tally.signed, Ordering::Relaxed);
        self.verified.fetch_add(tally.verified, Ordering::Relaxed);
    }

    /// Counts a message that was refused.
    pub fn count_refusal(&self, refusal: Refusal) {
        if let Some(count) = self.refused.get(refusal.index()) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// What was counted.
    pub fn report(&self) -> Report {
        let read = |count: &AtomicU32| count.load(Ordering::Relaxed);
        Report {
            tally: Tally {
                macs: read(&self.macs),
                signed: read(&self.signed),
                verified: read(&self.verified),
            },
            refused: self.refused.each_ref().map(read),
        }
    }
}
