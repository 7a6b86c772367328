//! A peer brought other bytes than the own link: others are asked who is right (DESIGN section 7, "A mismatch"). Not
//! responsible for finding mismatches ([`super::inspect`]), nor for what follows for later sessions ([`crate::trust`]).
//!
//! All other peers of the session are asked for the disputed place, the accused of other disputes too:
//!
//! * each that answers agrees with the own link: the accused lied;
//! * one of them doesn't, whatever it has: the origin is inconsistent, pooling it ends, nobody is blamed;
//! * nobody answers: pooling ends, and the mismatch stays open.
//!
//! One vote would do against a liar. But an origin that serves two variants by address would make an honest router a liar
//! whenever the one that is asked happens to get the own link's variant.

use heapless::Vec;

use super::{Conn, Cut, Fault, LaneDo, LaneId, LaneKind, LaneState, Transfer, Wake};
use crate::lane::{Dispute, Purpose};
use crate::time::Instant;
use crate::verify::{Mismatch, Places, Sample, Slot};

/// Most disputes at a time; with more, the origin is taken to be inconsistent.
const MAX_DISPUTES: usize = 8;

/// One dispute.
#[derive(Debug)]
struct Case {
    number: u32,
    accused: LaneId,
    mismatch: Mismatch,
    /// The lanes whose votes are still to come, one bit each.
    awaited: u32,
    /// Those of them that are still to be asked.
    unasked: u32,
    /// Votes for the own link.
    agreed: u32,
    /// Votes against it.
    differed: u32,
}

impl Case {
    /// What it comes to with the votes that there are.
    fn verdict(&self) -> Dispute {
        // A peer that stands in for the own link may be the liar itself; it has no vote.
        let is_own = self.mismatch.by <= LaneId::OWN.index();
        match (self.differed, self.agreed) {
            (0, 1..) => Dispute::Lie,
            _ if !is_own => Dispute::Unsettled,
            (0, 0) => Dispute::Open,
            _ => Dispute::Origin,
        }
    }
}

/// The disputes that are not settled yet.
#[derive(Debug, Default)]
pub(super) struct Court {
    cases: Vec<Case, MAX_DISPUTES>,
    last: u32,
}

impl Court {
    fn find(&mut self, number: u32) -> Option<&mut Case> {
        self.cases.iter_mut().find(|case| case.number == number)
    }
}

impl<S: Slot, const SLOTS: usize> Transfer<S, SLOTS> {
    /// What peer `accused` brought is not what another lane brought.
    pub(super) fn accuse(&mut self, now: Instant, accused: LaneId, mismatch: Mismatch, wake: &mut Wake) {
        let Some(lane) = self.lanes.get_mut(accused.index()) else { return };
        lane.stats.mismatches += 1;
        let is_new = lane.stats.mismatches == 1;
        if !lane.is_out() && is_new {
            lane.state = LaneState::Accused { closed: false };
            lane.blocked_since = None;
        }
        self.drop_inspections(|lane| lane == accused.index(), wake);
        self.take_back(now, accused, wake);
        if !is_new {
            return;
        }
        let votes = |(i, l): &(usize, &crate::lane::Lane<S>)| {
            let has_vote = l.is_up() || l.is_accused() || l.state == LaneState::Joining;
            l.kind == LaneKind::Peer && has_vote && *i != accused.index() && *i != mismatch.by
        };
        let voters = self.lanes.iter().enumerate().filter(votes).fold(0, |all, (i, _)| all | 1 << i);
        self.court.last += 1;
        let number = self.court.last;
        let case =
            Case { number, accused, mismatch, awaited: voters, unasked: voters, agreed: 0, differed: 0 };
        if let Err(case) = self.court.cases.push(case) {
            self.lanes[case.accused.index()].stats.verdict = Some(Dispute::Origin);
            return self.end_pooling(now, Fault::Inconsistent, wake);
        }
        self.wake_all(wake);
        self.judge(now, number, wake);
    }

    /// The vote that lane `id` asks for now, if any.
    pub(super) fn next_vote(&mut self, now: Instant, id: LaneId) -> Option<LaneDo<S>> {
        let bit = 1u32 << id.index().min(31);
        let case = self.court.cases.iter_mut().find(|case| case.unasked & bit != 0)?;
        let lane = self.lanes.get(id.index())?;
        // Behind what waits for room it could take long.
        let conn = match (lane.main.chunks.is_empty(), lane.spare.chunks.is_empty()) {
            (false, true) => Conn::Spare,
            _ => Conn::Main,
        };
        if lane.track(conn).chunks.is_full() {
            return None;
        }
        case.unasked &= !bit;
        let (at, len) = case.mismatch.place;
        let (place, number) = (at..at + u64::from(len), case.number);
        self.push_asked(now, id, conn, place.clone(), Purpose::Vote(number));
        Some(LaneDo::Sample { conn, places: Places::one(place) })
    }

    /// Lane `id` says what it has at a disputed place.
    pub(super) fn voted(
        &mut self,
        now: Instant,
        id: LaneId,
        dispute: u32,
        sample: Option<&Sample>,
        wake: &mut Wake,
    ) {
        let Some(case) = self.court.find(dispute) else { return };
        let Mismatch { place: (at, len), ours, .. } = case.mismatch;
        let (at, len) = (self.slots.layout().file(at..at + 1).start, usize::from(len));
        match sample.filter(|sample| sample.at == at) {
            Some(sample) if sample.bytes.get(..len) == ours.get(..len) => case.agreed += 1,
            Some(_) => case.differed += 1,
            None => {}
        }
        self.vote_lost(now, id, dispute, wake);
    }

    /// The connection on which lane `id` was asked for its vote is closed because it is accused itself: it has its vote all the
    /// same, or an honest router would be blamed where the origin serves variants.
    pub(super) fn ask_again(&mut self, id: LaneId, dispute: u32) {
        let bit = 1u32 << id.index().min(31);
        if let Some(case) = self.court.find(dispute) {
            case.unasked |= case.awaited & bit;
        }
    }

    /// No vote of lane `id` is to be awaited any more.
    pub(super) fn vote_lost(&mut self, now: Instant, id: LaneId, dispute: u32, wake: &mut Wake) {
        let bit = 1u32 << id.index().min(31);
        if let Some(case) = self.court.find(dispute) {
            case.awaited &= !bit;
            case.unasked &= !bit;
        }
        self.judge(now, dispute, wake);
    }

    /// Lane `id` is out: no votes of it are to be awaited that it was not asked for yet.
    pub(super) fn votes_lost(&mut self, now: Instant, id: LaneId, wake: &mut Wake) {
        let bit = 1u32 << id.index().min(31);
        while let Some(number) = self.court.cases.iter().find(|c| c.unasked & bit != 0).map(|c| c.number) {
            self.vote_lost(now, id, number, wake);
        }
    }

    fn judge(&mut self, now: Instant, dispute: u32, wake: &mut Wake) {
        let Some(case) = self.court.find(dispute).filter(|case| case.awaited == 0 || case.differed > 0)
        else {
            return;
        };
        let (accused, verdict) = (case.accused, case.verdict());
        self.court.cases.retain(|case| case.number != dispute);
        if let Some(lane) = self.lanes.get_mut(accused.index()) {
            lane.stats.verdict = Some(verdict);
            lane.state = LaneState::Left(Fault::Mismatch);
        }
        match verdict {
            Dispute::Lie => {
                self.wake_all(wake);
                self.end_if_nobody_is_left(Fault::Mismatch, wake);
            }
            Dispute::Open | Dispute::Unsettled => self.end_pooling(now, Fault::Mismatch, wake),
            Dispute::Origin => self.end_pooling(now, Fault::Inconsistent, wake),
        }
    }

    /// The session is over: what was not settled is judged by the votes that there are.
    pub(super) fn close_court(&mut self) {
        for case in core::mem::take(&mut self.court.cases) {
            if let Some(lane) = self.lanes.get_mut(case.accused.index()) {
                lane.stats.verdict.get_or_insert(case.verdict());
            }
        }
    }

    /// Peers take no part any more, and nothing of theirs that was not released is used: the own link goes on alone.
    fn end_pooling(&mut self, now: Instant, why: Fault, wake: &mut Wake) {
        self.drop_inspections(|_| true, wake);
        for case in core::mem::take(&mut self.court.cases) {
            if let Some(lane) = self.lanes.get_mut(case.accused.index()) {
                let verdict = if why == Fault::Inconsistent { Dispute::Origin } else { case.verdict() };
                lane.stats.verdict.get_or_insert(verdict);
            }
        }
        let goes_on = self.cut == Cut::Done;
        for place in 0..self.lanes.len() {
            let lane = &mut self.lanes[place];
            if lane.is_out() || lane.kind == LaneKind::Original || (goes_on && lane.kind == LaneKind::Own) {
                continue;
            }
            lane.state = match lane.state {
                LaneState::Accused { .. } => LaneState::Left(Fault::Mismatch),
                _ => LaneState::Dismissed,
            };
            self.take_back(now, LaneId::from_index(place), wake);
        }
        if !goes_on {
            self.cut = Cut::Refused(why);
        }
        self.wake_all(wake);
        self.end_if_nobody_is_left(why, wake);
    }
}
