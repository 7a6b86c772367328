//! What is special about fetching from a peer: every answer must be the peer's own, and the next one tells the digest of
//! the chunk before. Not responsible for connections and ranges.

use core::ops::Range;
use std::sync::Arc;

use bamqp_core::channel::{Caller, Outgoing, Reference, Refusal};
use bamqp_core::http::fields::Fields;
use bamqp_core::http::response::Response;
use bamqp_core::message::chunk::ChunkDigest;
use bamqp_core::message::drop::Drop;
use bamqp_core::message::reason::DropReason;
use bamqp_core::transfer::Fault;
use sha2::{Digest, Sha256};

use crate::keyring::Keyring;

/// The coordinator's side of a session with one peer, as all its connections use it.
#[derive(Debug)]
pub struct Call {
    /// The session's keys.
    pub caller: Caller,
    /// Where refusals are counted.
    pub keyring: Arc<Keyring>,
    /// The peer's name, for the log.
    pub peer: String,
}

impl Call {
    /// Whether this is the peer's answer to that request; otherwise it is counted and logged. What a refusing peer says
    /// of its reason, nobody can know to be true; so it is logged alone.
    ///
    /// # Errors
    /// Why not.
    pub fn check(&self, response: &Response<'_>, to: &Reference) -> Result<(), Refusal> {
        self.caller.check(response, to).inspect_err(|refusal| {
            self.keyring.count_refusal(*refusal);
            let said = response.fields.text("BAMQP-Reason").unwrap_or("nothing");
            let said: String = said.chars().filter(char::is_ascii_graphic).take(40).collect();
            let status = response.status;
            log::info!(
                "peer {}: an answer with status {status} is refused: {refusal}; it says: {said}",
                self.peer
            );
        })
    }
}

/// A chunk that a peer said to have served, under its MAC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Served {
    /// Which bytes of the file.
    pub range: Range<u64>,
    /// What they were, on its side.
    pub digest: ChunkDigest,
}

/// One connection to a peer, as far as it is special.
#[derive(Debug, Default)]
pub(super) struct Talk {
    /// Numbers the requests.
    link: Option<Outgoing>,
    /// Of the present chunk as far as it came, if digests are to be compared.
    hash: Option<Sha256>,
    /// The last complete chunk, until its digest was told, and our own digest of it.
    last: Option<(Range<u64>, Option<ChunkDigest>)>,
    served: Option<Served>,
}

impl Talk {
    pub fn on(link: Outgoing) -> Self {
        Self { link: Some(link), ..Self::default() }
    }

    pub fn link(&mut self) -> Option<&mut Outgoing> {
        self.link.as_mut()
    }

    pub fn into_link(self) -> Option<Outgoing> {
        self.link
    }

    pub fn take_served(&mut self) -> Option<Served> {
        self.served.take()
    }

    /// Goes on over another connection; what was not told on the last one never will be.
    pub fn move_to(&mut self, link: Outgoing) {
        (self.link, self.last) = (Some(link), None);
        if let Some(hash) = &mut self.hash {
            hash.reset();
        }
    }

    pub fn check_digests(&mut self) {
        self.hash.get_or_insert_default();
    }

    /// Bytes of the present chunk came.
    pub fn came(&mut self, bytes: &[u8]) {
        if let Some(hash) = &mut self.hash {
            hash.update(bytes);
        }
    }

    /// The present chunk is complete.
    pub fn finished(&mut self, range: Range<u64>) {
        if self.link.is_some() {
            let digest = self.hash.as_mut().map(|hash| ChunkDigest(hash.finalize_reset().into()));
            self.last = Some((range, digest));
        }
    }

    /// Looks at an answer that has to be the peer's own, and a 206.
    ///
    /// # Errors
    /// What is wrong with it, or with the chunk before.
    pub fn answered(
        &mut self,
        call: &Call,
        response: &Response<'_>,
        to: Option<&Reference>,
    ) -> Result<(), Fault> {
        let drop = || Drop::of_answer(response);
        if call.check(response, to.ok_or(Fault::Malformed)?).is_err() {
            // A peer that was restarted has no keys to say so with.
            let is_unknown = drop().is_ok_and(|drop| drop.reason == DropReason::UnknownSession);
            return Err(if is_unknown { Fault::Closed } else { Fault::Unauthentic });
        }
        self.told(&response.fields)?;
        match response.status {
            206 => Ok(()),
            _ => Err(drop().map_or(Fault::Malformed, drop_fault)),
        }
    }

    /// Looks at the digest of the chunk before, in an authentic answer.
    ///
    /// # Errors
    /// [`Fault::Corrupt`] if other bytes came than were served, or [`Fault::Malformed`].
    pub fn told(&mut self, fields: &Fields<'_>) -> Result<(), Fault> {
        let told = ChunkDigest::of_previous(fields).map_err(|_| Fault::Malformed)?;
        let (Some(digest), Some((range, ours))) = (told, self.last.take()) else { return Ok(()) };
        self.served = Some(Served { range, digest });
        match ours {
            Some(ours) if ours != digest => Err(Fault::Corrupt),
            _ => Ok(()),
        }
    }
}

/// What a peer's refusal of a chunk means for its lane.
fn drop_fault(drop: Drop) -> Fault {
    match drop.reason {
        DropReason::OriginStatus(status) => Fault::Status(status),
        DropReason::OriginChanged => Fault::Changed,
        DropReason::OriginUnreachable => Fault::Unreachable,
        DropReason::OriginUnusable => Fault::Unproven,
        // It was restarted, or has not heard of us for too long: it may be asked anew.
        DropReason::UnknownSession => Fault::Closed,
        DropReason::Busy | DropReason::Quota if drop.retry_after > 0 => Fault::Withdrawn(drop.retry_after),
        _ => Fault::Declined,
    }
}
