//! The sessions that this router works for: which coordinator, which file, and what was served. Not responsible for
//! connections; several of one coordinator may use a session.

use core::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bamqp_core::channel::{Callee, Incoming, Links, Reference, Refusal};
use bamqp_core::http::request::Request;
use bamqp_core::message::drop::Summary;
use bamqp_core::message::reason::DeclineReason;
use bamqp_core::message::{Fingerprint, SessionId};

use crate::fetch::File;
use crate::origin::Addresses;

/// How long a session outlasts its last message while no connection works for it (DESIGN section 6).
pub const SILENCE: Duration = Duration::from_secs(30);

/// One download that this router takes part in.
#[derive(Debug)]
pub struct Session {
    /// Its name.
    pub id: SessionId,
    /// Whose it is; nobody else may use it.
    pub coordinator: Fingerprint,
    /// How many routers it had passed.
    pub hops: u8,
    /// What is fetched.
    pub file: Arc<File>,
    /// Where from: checked after resolving.
    pub addresses: Addresses,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Our side of the channel.
    callee: Callee,
    links: Links,
    served: Summary,
    heard: Instant,
    /// Place in `addresses` of the one that is used.
    address: usize,
}

impl Session {
    /// A session that was asked for `now`.
    pub fn new(
        id: SessionId,
        callee: Callee,
        hops: u8,
        file: File,
        addresses: Addresses,
        now: Instant,
    ) -> Session {
        let coordinator = callee.coordinator();
        let links = Links::AFTER_INIT;
        let state = Mutex::new(State { callee, links, served: Summary::new(), heard: now, address: 0 });
        Session { id, coordinator, hops, file: Arc::new(file), addresses, state }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change is one call, so a panic elsewhere leaves nothing half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Our side of the channel, as the last INIT has it.
    pub fn callee(&self) -> Callee {
        self.lock().callee.clone()
    }

    /// Whether `request` is the coordinator's next on a connection, `link`; something was asked `now` then.
    ///
    /// # Errors
    /// Why it is refused.
    pub fn check(
        &self,
        request: &Request<'_>,
        link: &mut Option<Incoming>,
        now: Instant,
    ) -> Result<(Callee, Reference), Refusal> {
        let mut state = self.lock();
        let State { callee, links, .. } = &mut *state;
        let reference = callee.check(request, links, link)?;
        let callee = callee.clone();
        state.heard = now;
        Ok((callee, reference))
    }

    /// Something was asked or passed on.
    pub fn touch(&self, now: Instant) {
        self.lock().heard = now;
    }

    /// Counts bytes of the file that were passed on.
    pub fn add_served(&self, range: Range<u64>) {
        self.lock().served.add(range);
    }

    /// What was served so far.
    pub fn summary(&self) -> Summary {
        self.lock().served.clone()
    }

    /// Which of `addresses` to connect to.
    pub fn address(&self) -> usize {
        self.lock().address
    }

    /// The address at `place` can't be reached: the next one is to be used by all connections.
    pub fn skip_address(&self, place: usize) {
        let mut state = self.lock();
        if state.address == place {
            state.address = (place + 1) % self.addresses.len().max(1);
        }
    }

    fn is_same(&self, other: &Session) -> bool {
        let (one, two) = (&self.file, &other.file);
        (self.coordinator, self.hops) == (other.coordinator, other.hops)
            && (&one.uri, one.total, &one.validator) == (&two.uri, two.total, &two.validator)
    }

    fn is_over(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.lock().heard) >= SILENCE
    }
}

/// Whether a connection works for it: the table has one reference, each connection another.
fn is_in_use(session: &Arc<Session>) -> bool {
    Arc::strong_count(session) > 1
}

/// All sessions. Those that ended by silence go when somebody looks.
#[derive(Debug)]
pub struct Sessions {
    most: AtomicUsize,
    table: Mutex<Vec<Arc<Session>>>,
}

impl Sessions {
    /// Room for `most` sessions at a time.
    pub fn new(most: usize) -> Sessions {
        Sessions { most: AtomicUsize::new(most), table: Mutex::new(Vec::new()) }
    }

    /// From now on there is room for `most`, and there are none of coordinators that are not `known` any more.
    pub fn renew(&self, most: usize, known: impl Fn(Fingerprint) -> bool) {
        self.most.store(most, Ordering::Relaxed);
        self.lock(Instant::now()).retain(|session| known(session.coordinator));
    }

    fn most(&self) -> usize {
        self.most.load(Ordering::Relaxed)
    }

    fn lock(&self, now: Instant) -> MutexGuard<'_, Vec<Arc<Session>>> {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        table.retain(|session| is_in_use(session) || !session.is_over(now));
        table
    }

    /// How many there are.
    pub fn count(&self, now: Instant) -> usize {
        self.lock(now).len()
    }

    /// Whether one that is new now would be refused.
    pub fn is_full(&self, now: Instant) -> bool {
        let table = self.lock(now);
        table.len() >= self.most() && table.iter().all(is_in_use)
    }

    /// The session of this name. Whether a request is of its coordinator, [`Session::check`] tells.
    pub fn find(&self, id: SessionId, now: Instant) -> Option<Arc<Session>> {
        self.lock(now).iter().find(|session| session.id == id).cloned()
    }

    /// Enters a session, or finds it again if the same coordinator means the same file by it, over as many routers; then its
    /// keys are those of the new INIT. The one that was silent for longest of those that no connection works for makes room.
    ///
    /// # Errors
    /// [`DeclineReason::DuplicateSession`] or [`DeclineReason::Busy`].
    pub fn begin(&self, session: Session, now: Instant) -> Result<Arc<Session>, DeclineReason> {
        let mut table = self.lock(now);
        if let Some(known) = table.iter().find(|known| known.id == session.id) {
            if !known.is_same(&session) {
                return Err(DeclineReason::DuplicateSession);
            }
            let mut state = known.lock();
            (state.callee, state.links, state.heard) = (session.callee(), Links::AFTER_INIT, now);
            drop(state);
            return Ok(known.clone());
        }
        if table.len() >= self.most() {
            let unused = table.iter().enumerate().filter(|(_, session)| !is_in_use(session));
            let (place, _) =
                unused.min_by_key(|(_, session)| session.lock().heard).ok_or(DeclineReason::Busy)?;
            table.remove(place);
        }
        let session = Arc::new(session);
        table.push(session.clone());
        Ok(session)
    }

    /// Ends a session; what was served in it.
    pub fn end(&self, session: &Arc<Session>, now: Instant) -> Summary {
        self.lock(now).retain(|other| !Arc::ptr_eq(other, session));
        session.summary()
    }
}

#[cfg(test)]
mod tests {
    use bamqp_core::http::validator::Validator;

    use super::*;
    use crate::serve::tests::callee;

    /// Coordinators, by their seeds.
    const A: u8 = 1;
    const B: u8 = 2;

    fn session(id: u8, coordinator: u8, uri: &str, now: Instant) -> Session {
        let file = File {
            uri: uri.into(),
            total: 1000,
            validator: Validator::entity_tag(b"\"v\"").unwrap(),
            user_agent: None,
            accept: None,
        };
        let id = SessionId([id; 16]);
        Session::new(id, callee(coordinator, id), 0, file, Addresses::new(), now)
    }

    #[test]
    fn the_same_coordinator_may_begin_the_same_again_and_nobody_else() {
        let (sessions, now) = (Sessions::new(4), Instant::now());
        let first = sessions.begin(session(1, A, "http://x/", now), now).unwrap();
        let again = sessions.begin(session(1, A, "http://x/", now), now).unwrap();
        assert!(Arc::ptr_eq(&first, &again));
        for other in [session(1, B, "http://x/", now), session(1, A, "http://y/", now)] {
            assert_eq!(sessions.begin(other, now).unwrap_err(), DeclineReason::DuplicateSession);
        }
        assert_eq!(sessions.count(now), 1);
        assert!(sessions.find(SessionId([1; 16]), now).is_some());
        assert!(sessions.find(SessionId([2; 16]), now).is_none());
    }

    #[test]
    fn no_more_than_fit_while_all_are_in_use() {
        let (sessions, now) = (Sessions::new(2), Instant::now());
        let first = sessions.begin(session(1, A, "http://x/", now), now).unwrap();
        let later = now + Duration::from_secs(1);
        let second = sessions.begin(session(2, A, "http://x/", later), later).unwrap();
        assert!(sessions.is_full(later));
        let third = session(3, A, "http://x/", later);
        assert_eq!(sessions.begin(third, later).unwrap_err(), DeclineReason::Busy);
        // Both are let go of: the one that was silent for longer goes.
        drop((first, second));
        assert!(!sessions.is_full(later));
        let _third = sessions.begin(session(3, A, "http://x/", later), later).unwrap();
        assert!(sessions.find(SessionId([1; 16]), later).is_none());
        assert!(sessions.find(SessionId([2; 16]), later).is_some());
    }

    #[test]
    fn silence_ends_what_no_connection_works_for() {
        let (sessions, start) = (Sessions::new(4), Instant::now());
        let used = sessions.begin(session(1, A, "http://x/", start), start).unwrap();
        drop(sessions.begin(session(2, A, "http://x/", start), start).unwrap());
        drop(sessions.begin(session(3, A, "http://x/", start), start).unwrap());
        let before = start + SILENCE - Duration::from_millis(1);
        assert_eq!(sessions.count(before), 3);
        sessions.find(SessionId([3; 16]), before).unwrap().touch(before);
        let after = start + SILENCE;
        assert_eq!(sessions.count(after), 2);
        assert!(sessions.find(SessionId([2; 16]), after).is_none());
        drop(used);
        assert_eq!(sessions.count(after), 1);
    }

    #[test]
    fn the_summary_is_what_was_served() {
        let (sessions, now) = (Sessions::new(4), Instant::now());
        let session = sessions.begin(session(1, A, "http://x/", now), now).unwrap();
        session.add_served(0..100);
        session.add_served(100..150);
        session.add_served(0..10);
        let summary = sessions.end(&session, now);
        assert_eq!((summary.served(), summary.bytes), (&[0..150, 0..10][..], 160));
        assert_eq!(sessions.count(now), 0);
    }
}
