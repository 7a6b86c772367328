//! What a running daemon tells of its pooled downloads: those under way and the last few that ended. Not responsible
//! for how that is shown: [`views`] says what, [`document`] in which form.

pub mod document;
pub mod views;

use core::ops::Range;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use bamqp_core::message::{Fingerprint, SessionId};

use crate::session::Session;

/// How many ended downloads are remembered.
const REMEMBERED: usize = 16;

/// One pooled download.
#[derive(Clone, Debug)]
pub struct SessionReport {
    /// Its public id.
    pub id: SessionId,
    /// The file's URI.
    pub target: String,
    /// The router that asked for it, if it is not a client of ours that waits for it.
    pub coordinator: Option<Fingerprint>,
    /// The file's bytes that the lanes bring.
    pub range: Range<u64>,
    /// Bytes of the whole file.
    pub total: u64,
    /// How many of the range's bytes were given to the client.
    pub delivered: u64,
    /// Bytes of buffer in use at most.
    pub window_used: u32,
    /// How it ended; `None` while it is under way.
    pub outcome: Option<String>,
    /// The lanes: the original response, the own link's second connection, the peers.
    pub lanes: Vec<LaneReport>,
}

/// One lane of a pooled download.
#[derive(Clone, Debug)]
pub struct LaneReport {
    /// `original`, `own`, or the peer's name.
    pub name: String,
    /// Payload bytes that went into the client's stream.
    pub bytes: u64,
    /// Requests made.
    pub requests: u32,
    /// Times that it was given up because nothing came.
    pub timeouts: u32,
    /// Other failures of its connection, or of the origin towards it.
    pub failures: u32,
    /// Times that it withdrew because its household came first.
    pub withdrawals: u32,
    /// Answers that broke the protocol.
    pub violations: u32,
    /// Payload bytes that another lane had brought before.
    pub duplicates: u64,
    /// Bytes that were fetched only to check others, heads included.
    pub checked: u64,
    /// Places at which it differed from the own link.
    pub mismatches: u32,
    /// What those were found to be: `lie`, `inconsistent origin`, or `open`.
    pub verdict: Option<String>,
    /// Payload bytes of one answer that were copied in user space, at most: those that came with its head.
    pub copied: u32,
    /// Rate in bytes per second, as last estimated.
    pub rate: u64,
    /// Round trip in microseconds, as last estimated.
    pub rtt_us: u64,
    /// Where it stands, with the reason if it is out.
    pub state: String,
}

/// The pooled downloads of one daemon.
#[derive(Debug, Default)]
pub struct Sessions {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    running: Vec<Arc<Session>>,
    /// Of those that are over, and whose lanes' threads have still to notice, so that they take memory.
    leaving: Vec<Weak<()>>,
    ended: VecDeque<SessionReport>,
}

impl Sessions {
    /// Whether fewer than `most` are under way: worth taking memory for one more.
    pub fn has_room(&self, most: usize) -> bool {
        self.lock().running.len() < most
    }

    /// The same for another router's: those count, too, that are over and still take memory, and one of its name.
    pub fn has_room_for(&self, other: SessionId, most: usize) -> bool {
        let inner = self.lock();
        let leaving = inner.leaving.iter().filter(|presence| presence.strong_count() > 0).count();
        inner.running.len() + leaving < most && inner.running.iter().all(|session| session.id != other)
    }

    /// `session` begins, unless `most` are under way already.
    pub fn begin(&self, session: &Arc<Session>, most: usize) -> bool {
        let mut inner = self.lock();
        let room = inner.running.len() < most;
        if room {
            inner.running.push(session.clone());
        }
        room
    }

    /// Whether this router coordinates that session, for a client or for another router, or has done so lately for a client:
    /// peers' peers may not know yet that it is over.
    pub fn has(&self, id: SessionId) -> bool {
        let inner = self.lock();
        let was_ours = |report: &SessionReport| report.id == id && report.coordinator.is_none();
        inner.running.iter().any(|session| session.id == id) || inner.ended.iter().any(was_ours)
    }

    /// `session` is over.
    pub fn end(&self, session: &Arc<Session>) {
        let report = session.report();
        let mut inner = self.lock();
        inner.running.retain(|other| !Arc::ptr_eq(other, session));
        inner.leaving.retain(|presence| presence.strong_count() > 0);
        inner.leaving.push(session.presence());
        if inner.ended.len() == REMEMBERED {
            inner.ended.pop_front();
        }
        inner.ended.push_back(report);
    }

    /// The downloads that ended, oldest first, then those under way.
    pub fn reports(&self) -> Vec<SessionReport> {
        let inner = self.lock();
        inner.ended.iter().cloned().chain(inner.running.iter().map(|session| session.report())).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Every change is one call, so a panic elsewhere leaves nothing half done.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use bamqp_core::http::validator::Validator;
    use bamqp_core::limits::SLOT_BYTES;
    use bamqp_core::time::Span;
    use bamqp_core::transfer::OwnLink;

    use super::*;
    use crate::fetch::File;
    use crate::session::Work;

    #[test]
    fn a_download_of_our_own_is_known_when_it_is_over() {
        let file = File {
            uri: "http://x/".into(),
            total: 1_000,
            validator: Validator::entity_tag(b"\"v\"").unwrap(),
            user_agent: None,
            accept: None,
        };
        let own = OwnLink { rate: 1_000, rtt: Span::ZERO, hold: 0 };
        let (ours, other) = (SessionId([1; 16]), SessionId([2; 16]));
        let work = Work::Response(0..1_000);
        let session = Session::new(ours, Arc::new(file), work, 16 * SLOT_BYTES, own, Vec::new()).unwrap();
        let sessions = Sessions::default();
        assert!(!sessions.has(ours));
        assert!(sessions.begin(&session, 1) && sessions.has(ours));
        sessions.end(&session);
        assert!(sessions.has(ours), "peers' peers may ask us for help with it");
        assert!(!sessions.has(other));
    }
}
