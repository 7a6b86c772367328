//! What is known of the peers, and whom to ask for help with a download. Not responsible for the rules of the choice
//! ([`bamqp_core::select`]).

use core::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bamqp_core::message::hello::Details;
use bamqp_core::message::{Fingerprint, SessionId};
use bamqp_core::select::{self, Candidate, Download, Verdict};
use bamqp_core::time::Span;

use super::{Entry, PeerState, Peers, Record};
use crate::clock;
use crate::session::Helper;
use crate::trust_store::{Prospect, TrustStore};

/// What is known of a peer.
#[derive(Clone, Debug)]
pub struct PeerView {
    /// Its name in the configuration.
    pub name: String,
    /// Its key.
    pub key: Fingerprint,
    /// Where it listens.
    pub address: SocketAddr,
    /// Whether it is there.
    pub state: PeerState,
    /// Bytes per second that the last session measured.
    pub rate: Option<u64>,
    /// Segments that its internet link lost between its last two HELLOs.
    pub losses: u64,
    /// What the last session decided about it, and how long ago.
    pub verdict: Option<(Verdict, Duration)>,
    /// It declined: how long it is not to be asked.
    pub not_for: Option<Span>,
}

impl Peers {
    /// What is known of each.
    pub fn views(&self) -> Vec<PeerView> {
        let now = clock::now();
        let view = |entry: &Arc<Entry>| {
            let record = entry.lock();
            PeerView {
                name: entry.name.clone(),
                key: entry.key,
                address: entry.address,
                state: record.state.clone(),
                rate: self.trust.prospect(entry.key).rate,
                losses: record.losses,
                verdict: record.verdict.map(|(verdict, at)| (verdict, at.elapsed())),
                not_for: record.not_before.filter(|at| now < *at).map(|at| at.since(now)),
            }
        };
        self.entries.iter().map(view).collect()
    }

    /// How many could be asked for help now.
    pub fn usable(&self) -> usize {
        let now = clock::now();
        let usable = |entry: &&Arc<Entry>| select::may_ask(now, &entry.candidate(&self.trust)).is_ok();
        self.entries.iter().filter(usable).count()
    }

    /// Bytes per second that those who could be asked are expected to bring together; 0: of some of them nobody knows.
    pub fn help(&self) -> u64 {
        let now = clock::now();
        let candidates = self.entries.iter().map(|entry| entry.candidate(&self.trust));
        let rates =
            candidates.filter(|candidate| select::may_ask(now, candidate).is_ok()).map(|one| one.rate);
        let mut rates = rates.map(|rate| Some(rate).filter(|rate| *rate > 0));
        rates.try_fold(0u64, |all, rate| Some(all.saturating_add(rate?))).unwrap_or(0)
    }

    /// Whom to ask for help with `download`, best first. Until it is measured, one that promises nothing is expected to
    /// be like the own link, of `rate` bytes per second and with a round trip of `rtt` to the origin. What is decided on
    /// each is logged, and kept for status.
    pub fn select(&self, session: SessionId, download: &Download, rate: u64, rtt: Span) -> Vec<Helper> {
        let candidates: Vec<Candidate> =
            self.entries.iter().map(|entry| entry.candidate(&self.trust)).collect();
        let picked =
            select::select(clock::now(), download, &candidates, select::MAX_PEERS, |peer, verdict| {
                let (Some(entry), Some(candidate)) = (self.entries.get(peer), candidates.get(peer)) else {
                    return;
                };
                entry.lock().verdict = Some((verdict, Instant::now()));
                let Candidate { standing, rate, .. } = candidate;
                log::info!("session {session}: peer {} ({standing}, {rate} bytes/s): {verdict}", entry.name);
            });
        let helper = |peer: &usize| {
            let (entry, candidate) = (self.entries.get(*peer)?, candidates.get(*peer)?);
            Some(Helper {
                peer: *peer,
                name: entry.name.clone(),
                key: entry.key,
                standing: candidate.standing,
                rate: if candidate.rate > 0 { candidate.rate } else { rate },
                rtt: rtt + entry.lock().round_trip(),
            })
        };
        picked.iter().filter_map(helper).collect()
    }
}

impl Entry {
    fn candidate(&self, trust: &TrustStore) -> Candidate {
        let Prospect { standing, reliability, rate, is_fresh } = trust.prospect(self.key);
        let record = self.lock();
        let (is_up, details) = match record.state {
            PeerState::Up { details, .. } => (true, details),
            PeerState::Down(_) => (false, None),
        };
        Candidate {
            is_up,
            standing,
            rate: rate.or(details.map(|details| details.bandwidth / 8)).unwrap_or(0),
            is_fresh,
            reliability,
            rtt: record.round_trip() + details.map_or(Span::ZERO, |details| details.rtt),
            losses: record.losses,
            not_before: record.not_before,
        }
    }
}

impl Record {
    /// It answered a HELLO.
    pub(super) fn greeted(&mut self, rtt: Duration, details: Option<Details>) {
        let before = match &self.state {
            PeerState::Up { details, .. } => details.map(|details| details.losses),
            PeerState::Down(_) => None,
        };
        let now = details.map(|details| details.losses);
        self.losses = before.zip(now).map_or(0, |(before, now)| now.saturating_sub(before));
        self.state = PeerState::Up { rtt, details };
    }

    /// The round trip to the peer itself.
    fn round_trip(&self) -> Span {
        match self.state {
            PeerState::Up { rtt, .. } => Span::from_micros(rtt.as_micros() as u64),
            PeerState::Down(_) => Span::ZERO,
        }
    }
}
