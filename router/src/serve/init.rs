//! What becomes of an INIT whose MAC fits: a session, with our own peers' help if it may go on so far, or why there is none. Not
//! responsible for whether anybody is helped now ([`super::admission`]), nor for answering.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use bamqp_core::channel::{Challenge, Introduced, Refusal, Tally};
use bamqp_core::hops::{Part, may_pass_on};
use bamqp_core::http::request::Request;
use bamqp_core::message::init::{Decline, Init};
use bamqp_core::message::reason::DeclineReason;
use bamqp_core::signature::{FIRST_BUFFER_BYTES, verify_first};

use super::sessions::Session;
use super::{BUSY_FOR, Serve, UNTRUSTED_FOR};
use crate::commission::Commission;
use crate::delegate::Delegation;
use crate::fetch::File;
use crate::ledger_file::{AppendError, InitRecord};
use crate::origin::OriginError;
use crate::sparingly::Sparingly;

/// Why there is no session after an INIT whose MAC fits.
pub(super) enum No {
    /// An answer that the coordinator can believe.
    Decline(Decline),
    /// The same, and its connection ends.
    Flood(Decline),
    /// It is not to be had any better than with a MAC that does not fit.
    Refuse(Refusal),
}

impl Serve {
    /// Enters the session of an INIT, if it may be, and writes the INIT down; `head` is all of it, which came from there.
    /// Blocks while the name is resolved. What costs little goes first: the Ed25519 signature is looked at when nothing
    /// else speaks against the session.
    pub(super) fn begin(
        &self,
        request: &Request<'_>,
        init: &Init<'_>,
        introduced: &Introduced<'_>,
        head: &[u8],
        from: SocketAddr,
    ) -> Result<Arc<Session>, No> {
        let declined = |reason, retry_after| No::Decline(Decline { reason, retry_after });
        let coordinator = introduced.coordinator.fingerprint;
        // Not for those whom we do not trust (DESIGN section 7).
        let standing = self.trust.standing(coordinator);
        if !standing.is_acceptable() {
            static LINES: Sparingly = Sparingly::new();
            LINES.info(module_path!(), || {
                format!("session {} declined: router {coordinator} is {standing}", init.session)
            });
            return Err(declined(DeclineReason::Untrusted, UNTRUSTED_FOR));
        }
        let now = Instant::now();
        let asked = self.quota.ask(coordinator, now);
        asked.map_err(|why| self.exceeded(coordinator, from.ip(), why, "asks too often"))?;
        self.may_help(coordinator).map_err(No::Decline)?;
        let known = self.sessions.find(init.session, now);
        let part = match &known {
            Some(known) => Part::WorksFor { coordinator: known.coordinator, hops: known.hops },
            None if self.coordinates(init.session) => Part::Asks,
            None => Part::None,
        };
        part.answer(&coordinator, init.hops, self.terms().max_hops).map_err(|reason| declined(reason, 0))?;
        if known.is_none() && self.sessions.is_full(now) {
            return Err(declined(DeclineReason::Busy, BUSY_FOR));
        }
        let (bytes, ip) = (head.len() + init.target.len(), from.ip());
        match self.quota.take(coordinator, bytes, now) {
            Ok(0) => {}
            Ok(before) => log::info!("router {coordinator}: {before} INITs were more than its share"),
            Err(why) => return Err(self.exceeded(coordinator, ip, why, "fills the log (see log_size)")),
        }
        let terms = self.terms();
        let mut tally = Tally::default();
        let verified = introduced.verify_signature(request, &mut tally);
        terms.keyring.count(tally);
        verified.map_err(No::Refuse)?;
        if init.first.is_some() {
            verify_first(init, coordinator, &mut vec![0; FIRST_BUFFER_BYTES])
                .map_err(|_| No::Refuse(Refusal::BadSignature))?;
        }
        let addresses = match known {
            Some(known) if known.file.uri == init.target.to_string() => known.addresses.clone(),
            _ => {
                let host = init.target.host.to_string();
                terms.gate.resolve_public(&host, init.target.port).map_err(|error| {
                    log::info!("session {} of {coordinator} refused: {host}: {error}", init.session);
                    // What the resolver did not find now it may find later; a rule stays.
                    let retry_after = if matches!(error, OriginError::Refused(..)) { 0 } else { 1 };
                    declined(DeclineReason::RefusedTarget, retry_after)
                })?
            }
        };
        if self.is_never_fetched(&init.target, &addresses) {
            return Err(declined(DeclineReason::RefusedTarget, 0));
        }
        let file = File {
            uri: init.target.to_string(),
            total: init.size,
            validator: init.validator.clone(),
            user_agent: init.user_agent.map(Into::into),
            accept: init.accept.map(Into::into),
        };
        let now = Instant::now();
        let callee = introduced.callee.clone();
        let session = Session::new(init.session, callee, init.hops, file, addresses, now);
        let session = self
            .sessions
            .begin(session, now)
            .map_err(|reason| declined(reason, if reason == DeclineReason::Busy { BUSY_FOR } else { 0 }))?;
        let record = InitRecord {
            key: &introduced.coordinator.public_key,
            from,
            session: session.id,
            size: session.file.total,
            uri: &session.file.uri,
            head,
        };
        let ledger = terms.ledger.as_ref().ok_or(AppendError::Stopped);
        if let Err(error) = ledger.and_then(|ledger| ledger.append_init(&record)) {
            log::warn!("session {} of {coordinator} declined: {error}", init.session);
            self.sessions.end(&session, now);
            return Err(declined(DeclineReason::Busy, BUSY_FOR));
        }
        Ok(session)
    }

    /// Asks our own peers to help with `session`, which begins with this INIT, if it may go on so far; `challenge` is what
    /// the INIT answered.
    pub(super) fn pass_on(
        &self,
        session: &Session,
        request: &Request<'_>,
        init: &Init<'_>,
        head: &[u8],
        introduced: &Introduced<'_>,
        challenge: Challenge,
    ) -> Option<Delegation> {
        if !may_pass_on(init.hops, self.terms().max_hops) {
            return None;
        }
        let shared = self.shared()?;
        let commission = Commission::of(init, request, head, introduced.coordinator.public_key, challenge)?;
        Delegation::begin(&shared, session, commission)
    }
}
