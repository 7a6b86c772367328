//! Neighbours of neighbours: how far a session may go, and what a router promises for itself and those whom it asks in turn
//! (DESIGN section 6). Not responsible for who is asked ([`crate::select`]), nor for splitting the work
//! ([`crate::transfer`]).

use crate::message::reason::DeclineReason;
use crate::time::Span;

/// How many routers away from the coordinator work may be done if the owner doesn't say: its peers, and theirs.
pub const DEFAULT_MAX_HOPS: u8 = 2;

/// A router's own peers are asked so much later than it was: if the coordinator hears them, too, it has asked them itself by
/// then.
pub const AFTER_OTHERS: Span = Span::from_millis(150);

/// Whether a router may work for a session that has passed `hops` routers, of which the first was its coordinator's peer.
pub fn may_take(hops: u8, max_hops: u8) -> bool {
    hops < max_hops
}

/// Whether it may ask its own peers to help: they would be one hop further away.
pub fn may_pass_on(hops: u8, max_hops: u8) -> bool {
    hops.checked_add(1).is_some_and(|next| may_take(next, max_hops))
}

/// What a router has to do with a session when it is asked to work for it. `R` names routers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part<R> {
    /// Nothing.
    None,
    /// It works for that router, whose INIT said that the session had passed `hops` routers.
    WorksFor {
        /// The router that it answers to.
        coordinator: R,
        /// How many the session had passed.
        hops: u8,
    },
    /// It asks others: for a client of its own, or for a router that has let go of it just now.
    Asks,
}

impl<R: PartialEq> Part<R> {
    /// Whether a router that takes this part, and works for sessions that have passed fewer than `max_hops` routers, works for
    /// `coordinator`, too, whose INIT says that the session has passed `hops`. So nobody works for two others in one session,
    /// nor for itself over others.
    ///
    /// Who asked before may ask again: its connection was lost. It must come from the same distance: the routers between it and
    /// the first coordinator may have changed, and we might be one of them by now. `hostsim model --topologies` tries that.
    ///
    /// # Errors
    /// [`DeclineReason::DuplicateSession`] or [`DeclineReason::TooManyHops`].
    pub fn answer(&self, coordinator: &R, hops: u8, max_hops: u8) -> Result<(), DeclineReason> {
        let is_welcome = match self {
            Part::None => true,
            Part::WorksFor { coordinator: known, hops: before } => (known, *before) == (coordinator, hops),
            Part::Asks => false,
        };
        match () {
            () if !is_welcome => Err(DeclineReason::DuplicateSession),
            () if !may_take(hops, max_hops) => Err(DeclineReason::TooManyHops),
            () => Ok(()),
        }
    }
}

/// What a router promises that passes work on. A promise is only where the coordinator's estimate starts: it asks for so
/// much at first, and goes by what it measures afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Promise {
    /// Its own link alone.
    Own,
    /// Its own link and its peers' on the average, (B + C + D) / 3 for the peers C and D.
    Average,
    /// All of them together.
    Sum,
}

impl Promise {
    /// What routers promise. Measured: `hostsim/promise-table.txt`, printed by `hostsim model --promises`. Over chains, meshes
    /// and what lies between, it has the highest mean. The own link alone is best where peers' peers decline, since the
    /// coordinator asked them itself; but where fast peers stand behind a slow router it may be asked for so little that they
    /// never show what they can bring. All together costs up to half of the first second where they decline.
    pub const DEFAULT: Promise = Promise::Average;

    /// What it comes to, in the unit of `own` and `peers`: rates. A rate of 0 is unknown, and counts for nothing.
    pub fn of(self, own: u64, peers: impl Iterator<Item = u64>) -> u64 {
        let known = core::iter::once(own).chain(peers).filter(|rate| *rate > 0);
        let (sum, count) =
            known.fold((0u64, 0u64), |(sum, count), rate| (sum.saturating_add(rate), count + 1));
        match self {
            Promise::Own => own,
            Promise::Average => sum / count.max(1),
            Promise::Sum => sum,
        }
    }
}
