//! Chunks that another router asks for, brought by our own link and our own peers together: neighbours of neighbours help,
//! too. What goes on was verified here, so that we answer for it. Not responsible for the connection to that router
//! ([`crate::serve`]); what the lanes do is the same as for a client of ours ([`crate::coordinate`]).

use core::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use bamqp_core::hops::Promise;
use bamqp_core::limits::SLOT_BYTES;
use bamqp_core::select::Download;
use bamqp_core::time::Span;
use bamqp_core::transfer::{ClientDo, ClientEvent, Fault, LaneId, Outcome, OwnLink};

use crate::clock;
use crate::commission::Commission;
use crate::coordinate::{self, UNKNOWN_RATE};
use crate::daemon::Shared;
use crate::fetch::{Progress, Source};
use crate::lane::Link;
use crate::net::Waker;
use crate::serve::HOLD_BYTES;
use crate::serve::sessions as served;
use crate::session::{Session, Slot, Work};

/// A slot that is being given out.
#[derive(Debug)]
struct Held {
    slot: Slot,
    rest: Range<usize>,
}

/// One session of another router that our peers help with.
#[derive(Debug)]
pub struct Delegation {
    shared: Arc<Shared>,
    session: Arc<Session>,
    held: Option<Held>,
    /// What the session is told next.
    event: ClientEvent<Slot>,
    /// When to ask again, while there is nothing to give out.
    again: Option<Instant>,
    /// What our own line has brought, as far as somebody was told.
    counted: u64,
}

impl Delegation {
    /// Asks our peers to help with a session that we take part in. `None` if that is not to be: nobody can help, or it would
    /// take the place of a download of our own household.
    pub fn begin(shared: &Arc<Shared>, of: &served::Session, commission: Commission) -> Option<Delegation> {
        // One place stays free for our own household.
        let most = usize::from(shared.budget.counts.sessions).saturating_sub(1);
        if !shared.sessions.has_room_for(of.id, most) {
            return None;
        }
        let offered = shared.uplink.offer().rate().filter(|rate| *rate > 0);
        let rate = shared.own_link.rate().or(offered).unwrap_or(UNKNOWN_RATE);
        let rtt = Span::from_micros(u64::from(shared.serve.round_trip()));
        let mut draw = [0; 4];
        getrandom::fill(&mut draw).ok()?;
        let download = Download { own_rate: 0, rest: of.file.total, draw: u32::from_ne_bytes(draw) };
        let mut helpers = shared.peers.select(of.id, &download, rate, rtt);
        helpers.retain(|helper| helper.key != commission.coordinator);
        if helpers.is_empty() {
            return None;
        }
        let address = of.addresses.get(of.address()).copied()?;
        let own = OwnLink { rate, rtt, hold: HOLD_BYTES };
        let (window, work) = (shared.config.window as usize, Work::Pieces(commission));
        let session = Session::new(of.id, of.file.clone(), work, window, own, helpers)
            .inspect_err(|error| log::warn!("session {}: our own link works for it alone: {error}", of.id))
            .ok()
            .filter(|session| !session.helpers.is_empty())?;
        if !shared.sessions.begin(&session, most) {
            return None;
        }
        log::info!("session {}: {} peers of ours help with it", of.id, session.helpers.len());
        let (from, via) = (shared.config.wan_address, shared.via.clone());
        let source = Source::Origin { address, from, via, uplink: Some(shared.uplink.clone()) };
        coordinate::start(shared, &session, LaneId::OWN, Link::Own(source));
        coordinate::start_peers(shared, &session);
        Some(Delegation::of(shared.clone(), session))
    }

    /// Gives out what a session brings whose lanes others have set going.
    pub(crate) fn of(shared: Arc<Shared>, session: Arc<Session>) -> Delegation {
        Delegation { shared, session, held: None, event: ClientEvent::Idle, again: None, counted: 0 }
    }

    /// What we and our peers together can be expected to bring, in bits per second, if our own link brings `own`.
    pub fn promise(&self, own: u64) -> u64 {
        Promise::DEFAULT.of(own, self.session.helpers.iter().map(|helper| helper.rate.saturating_mul(8)))
    }

    /// Bytes that can be here before the coordinator reads them.
    pub fn window(&self) -> u32 {
        self.shared.config.window
    }

    /// These bytes of the file are due after all that were asked for before. False if no peer of ours takes part any more, or
    /// too much is due.
    pub fn ask(&mut self, range: Range<u64>) -> bool {
        self.again = None;
        self.session.has_help() && self.session.add_piece(range)
    }

    /// What comes next, as far as it was not given out.
    pub fn held(&self) -> &[u8] {
        self.held.as_ref().and_then(|held| held.slot.get(held.rest.clone())).unwrap_or_default()
    }

    /// So much of it was given out.
    pub fn consume(&mut self, bytes: usize) {
        let Some(held) = &mut self.held else { return };
        held.rest.start += bytes;
        if held.rest.is_empty()
            && let Some(Held { slot, .. }) = self.held.take()
        {
            // Only when it is asked for what comes next: that may be of the next chunk.
            self.event = ClientEvent::Written(slot);
        }
    }

    /// Takes what comes next, of one slot, if it is there; nothing is held.
    ///
    /// # Errors
    /// Why nothing more will come.
    pub fn next(&mut self) -> Result<Progress, Fault> {
        if self.held.is_none() {
            self.session.client_waker().drain();
            self.tell();
        }
        match (&self.held, self.session.outcome()) {
            (Some(held), _) => Ok(Progress::Bytes(held.rest.len())),
            (None, None) => Ok(Progress::Blocked),
            (None, Some(Outcome::NoLaneLeft(why))) => Err(why),
            (None, Some(_)) => Err(Fault::Unproven),
        }
    }

    fn tell(&mut self) {
        let event = core::mem::replace(&mut self.event, ClientEvent::Idle);
        match self.session.client(event) {
            ClientDo::Write { slot, start, len } => {
                let start = (start as usize).min(SLOT_BYTES);
                self.held = Some(Held { slot, rest: start..start + len as usize });
            }
            ClientDo::Wait(until) => self.again = until.map(clock::to_std),
            ClientDo::End(_) => {}
        }
    }

    /// Bytes that our own line has brought since this was asked last.
    pub fn take_own_bytes(&mut self) -> u64 {
        let own = self.session.own_bytes();
        let new = own.saturating_sub(self.counted);
        self.counted = own;
        new
    }

    /// What to wait for, and until when, before [`Delegation::next`] is worth a try.
    pub fn wants(&self) -> (&Waker, Option<Instant>) {
        (self.session.client_waker(), self.again)
    }
}

impl Drop for Delegation {
    fn drop(&mut self) {
        self.session.client(ClientEvent::Gone);
        coordinate::close(&self.shared, &self.session);
        log::info!("session {}: our peers' help ends", self.session.id);
    }
}
