//! Which chunk a lane is asked for next (DESIGN section 5, rules 1, 2, 4, 7 and 8). Not responsible for what happens
//! once the client stands still; that is [`super::rescue`].

use core::ops::Range;

use super::{Conn, LaneDo, LaneId, LaneKind, LaneState, Transfer, Wake};
use crate::lane::{Chunk, Purpose, Waiting};
use crate::limits::{MAX_CHUNK_SLOTS, SLOT_BYTES};
use crate::plan::{Pace, Pool, bytes_in, share, time_for};
use crate::rules::Rule;
use crate::time::{Instant, Span};
use crate::verify::{Places, Slot};

/// Bytes that the probe of the own link's second connection asks for.
const PROBE_BYTES: u64 = 16;

/// How long, besides a round trip, TCP takes to recover from a loss: segments that are lost because a queue is full are
/// sent again after it was drained, and what follows them waits for them.
const RECOVERY: Span = Span::from_millis(100);

/// A chunk that is still to be asked for.
pub(super) fn chunk(rest: Range<u64>, rate: u64, purpose: Purpose) -> Chunk {
    Chunk { rest, asked: None, begun: false, queued: false, rate, offered: false, purpose }
}

impl<S: Slot, const SLOTS: usize> Transfer<S, SLOTS> {
    /// The request that lane `id` makes now, if any.
    pub(super) fn next_request(&mut self, now: Instant, id: LaneId, wake: &mut Wake) -> Option<LaneDo<S>> {
        if let Some(asked) = self.handed_out(now, id) {
            return Some(asked);
        }
        let lane = &self.lanes[id.index()];
        let kind = lane.kind;
        if kind == LaneKind::Original {
            return None;
        }
        if let Some(vote) = self.next_vote(now, id) {
            return Some(vote);
        }
        if !self.lanes[id.index()].is_up() {
            return None;
        }
        let unproven = kind == LaneKind::Own && matches!(self.cut, super::Cut::Unproven { .. });
        if let Some(probe) = unproven.then(|| self.probe(now, id)).flatten() {
            return Some(probe);
        }
        if let Some(check) = self.next_check(now, id) {
            return Some(check);
        }
        if unproven || !self.may_work(id.index()) || (kind == LaneKind::Peer && !self.inspector.has_room()) {
            return None;
        }
        self.adopt_own_rate(id);
        let (conn, slots) = self.choose(now, id)?;
        slots.clone().for_each(|i| self.todo.settle(i));
        self.push(now, id, conn, slots, wake);
        self.wake_waiting(wake);
        self.handed_out(now, id)
    }

    /// The most slots that a lane is asked for at a time. What a peer brings is released by the chunk, so the window has to
    /// hold several.
    pub(super) fn longest_chunk(&self, id: LaneId) -> u64 {
        match self.lanes[id.index()].kind {
            LaneKind::Peer => MAX_CHUNK_SLOTS.min(self.slots.window() / 4).max(1),
            LaneKind::Original | LaneKind::Own => u64::MAX,
        }
    }

    /// What a lane does that has nothing to read.
    pub(super) fn idle(&mut self, now: Instant, id: LaneId) -> LaneDo<S> {
        let is_open = self.todo.frontier() < self.horizon(id.index());
        let looks_again = is_open || (self.todo.is_empty() && self.slots.next() < self.slots.end());
        let lane = &mut self.lanes[id.index()];
        lane.waiting = Waiting::Work;
        let check = self.next_check_at(now, id);
        let lane = &mut self.lanes[id.index()];
        if (lane.kind == LaneKind::Peer || self.cut == super::Cut::Done) && looks_again {
            lane.waiting = Waiting::No;
            let again = now + super::LOOK_AGAIN;
            return LaneDo::Wait(Some(check.map_or(again, |check| check.min(again))));
        }
        LaneDo::Wait(check)
    }

    /// The first slot that must not be asked of lane `index` yet: the window, and beyond it what the lane holds.
    pub(super) fn horizon(&self, index: usize) -> u64 {
        let hold = self.lanes.get(index).filter(|_| self.rules.keep(Rule::HoldAhead));
        let hold = hold.map_or(0, |l| l.hold) / SLOT_BYTES as u64;
        let ahead = (self.slots.window() + hold).min(SLOTS as u64);
        (self.slots.next() + ahead).min(self.slots.end())
    }

    /// The lanes that payload is asked of. One that is being probed may be dead: nobody leaves work to it, or is let go
    /// for its sake.
    pub(super) fn working(&self) -> impl Iterator<Item = (usize, Pace)> + Clone + '_ {
        self.lanes
            .iter()
            .enumerate()
            .filter(|(i, l)| l.state == LaneState::Up && self.may_work(*i))
            .map(|(i, l)| (i, l.pace()))
    }

    /// If the lane slowed down to less than half of what it was when its chunks were assigned, and for longer than TCP takes
    /// to recover from a loss, their slots are open to others as well; the first to arrive wins (rule 7).
    pub(super) fn offer_if_slowed(&mut self, now: Instant, id: LaneId, wake: &mut Wake) {
        let slot = SLOT_BYTES as u64;
        let lane = &mut self.lanes[id.index()];
        let rate = lane.rate.get();
        let has_slowed = |c: &Chunk| !c.offered && c.purpose.is_payload() && rate < c.rate / 2;
        if !self.rules.keep(Rule::OfferSlowed) || !lane.chunks().any(has_slowed) {
            lane.slow_since = None;
            return;
        }
        let since = *lane.slow_since.get_or_insert(now);
        if now.since(since) < lane.rtt.get() + RECOVERY {
            return;
        }
        let pool = Pool::of(self.working().map(|(_, pace)| pace));
        let next = self.slots.next();
        let mut offered = false;
        for conn in [Conn::Main, Conn::Spare] {
            for place in 0..self.lanes[id.index()].track(conn).chunks.len() {
                let lane = &self.lanes[id.index()];
                let Some(chunk) = lane.track(conn).chunks.iter().nth(place) else { break };
                let last = (chunk.rest.end - 1) / slot;
                let needed = now + time_for(last.saturating_sub(next) * slot, pool.rate);
                let is_late = lane.expects(now, last).is_some_and(|due| due > needed + RECOVERY);
                if !has_slowed(chunk) || !is_late {
                    continue;
                }
                let Some(chunk) = self.lanes[id.index()].track_mut(conn).chunks.iter_mut().nth(place) else {
                    break;
                };
                chunk.offered = true;
                offered = true;
                let rest = chunk.rest.clone();
                for index in rest.start / slot + u64::from(place == 0)..rest.end.div_ceil(slot) {
                    if !self.slots.has(index) {
                        self.todo.lose(index);
                    }
                }
            }
        }
        if offered {
            self.wake_all(wake);
        }
    }

    /// A chunk that was assigned and not asked for yet is asked for now.
    fn handed_out(&mut self, now: Instant, id: LaneId) -> Option<LaneDo<S>> {
        let lane = &mut self.lanes[id.index()];
        for conn in [Conn::Main, Conn::Spare] {
            let track = lane.track_mut(conn);
            let idle = track.chunks.iter().all(|c| c.asked.is_none());
            if let Some(chunk) = track.chunks.iter_mut().find(|c| c.asked.is_none()) {
                chunk.asked = Some(now);
                chunk.queued = !idle;
                let range = chunk.rest.clone();
                if idle {
                    track.heard = now;
                }
                lane.stats.requests += 1;
                return Some(LaneDo::Request { conn, range });
            }
        }
        None
    }

    /// Assigns slots to a lane; a peer's are inspected.
    pub(super) fn push(&mut self, now: Instant, id: LaneId, conn: Conn, slots: Range<u64>, wake: &mut Wake) {
        let range = self.slots.extent(slots.start).start..self.slots.extent(slots.end - 1).end;
        let inspection = match self.lanes[id.index()].kind {
            LaneKind::Peer => match self.begin_inspection(now, id, slots.clone(), wake) {
                Some(inspection) => Some(inspection),
                None => return self.lose(slots),
            },
            LaneKind::Original | LaneKind::Own => None,
        };
        let purpose = Purpose::Payload(inspection);
        let lane = &mut self.lanes[id.index()];
        let rate = lane.rate.get();
        let track = lane.track_mut(conn);
        if track.chunks.is_empty() {
            track.heard = now;
        }
        // A full pipeline is never asked for more; see next_request and rescue.
        let _ = track.chunks.push_back(chunk(range, rate, purpose));
    }

    /// The own link's second connection shows that it answers rightly.
    fn probe(&mut self, now: Instant, id: LaneId) -> Option<LaneDo<S>> {
        let conn = self.checks_on(id);
        if !self.lanes[id.index()].track(conn).chunks.is_empty() {
            return None;
        }
        let extent = self.slots.extent((self.slots.next() + 1).min(self.slots.end() - 1));
        let range = extent.start..extent.end.min(extent.start + PROBE_BYTES);
        self.push_asked(now, id, conn, range.clone(), Purpose::Probe);
        Some(LaneDo::Sample { conn, places: Places::one(range) })
    }

    /// Until the own link's second connection has a rate of its own, half of the original
    /// response's is the best guess: they share the link.
    fn adopt_own_rate(&mut self, id: LaneId) {
        let measured = self.lanes[LaneId::ORIGINAL.index()].rate;
        let own = &mut self.lanes[id.index()];
        if own.kind == LaneKind::Own && !own.rate.is_begun() {
            own.rate = crate::lane::Rate::new(measured.get() / 2);
        }
    }

    /// How many bytes the lane's thread sleeps for at most.
    fn mark(&self, id: LaneId) -> u64 {
        let lane = &self.lanes[id.index()];
        lane.main.mark.max(lane.spare.mark)
    }

    /// Which slots lane `id` is asked for next, and on which connection.
    fn choose(&mut self, now: Instant, id: LaneId) -> Option<(Conn, Range<u64>)> {
        let me = self.lanes[id.index()].pace();
        if self.lanes[id.index()].state == LaneState::Probing {
            return self.choose_for_probing(now, id);
        }
        let pool = Pool::of(self.working().map(|(_, pace)| pace));
        let window = self.slots.window() * SLOT_BYTES as u64;
        let chunk_time = pool.chunk_time(window);
        let most = (bytes_in(chunk_time, me.rate) + SLOT_BYTES as u64 / 2) / SLOT_BYTES as u64;
        let opening = self.lanes[id.index()].opening().filter(|_| self.rules.keep(Rule::StartSlowly));
        let most = opening.map_or(most, |window| most.min(window.div_ceil(SLOT_BYTES as u64)));
        let most = if self.rules.keep(Rule::ChunkByTime) { most } else { MAX_CHUNK_SLOTS };
        let most = most.min(self.longest_chunk(id));
        if let Some(found) = self.choose_lost(id, me, most.max(1)) {
            return Some(found);
        }
        let frontier = self.todo.frontier();
        let open = self.horizon(id.index()).saturating_sub(frontier);
        let is_for_own = open > 0 && self.is_for_own(frontier);
        let asks_ahead = match self.rules.keep(Rule::AskAhead) {
            true => {
                me.wants_more(self.mark(id))
                    && opening.is_none_or(|window| me.owed < window.saturating_mul(4))
            }
            false => me.owed == 0,
        };
        let wants_more = asks_ahead && !self.is_let_go(now, id, me);
        if (is_for_own && id != LaneId::OWN) || !(is_for_own || wants_more) {
            return None;
        }
        if open > 0 {
            if self.lanes[id.index()].main.chunks.is_full() {
                return None;
            }
            let open = open.min(self.slots.layout().seam(frontier) - frontier);
            let count = match is_for_own {
                true => 1,
                false => self.fair_count(id, me, pool, chunk_time, most).min(open),
            };
            return (count > 0).then(|| (Conn::Main, self.todo.advance(count)));
        }
        // What looks like the end is none where more may be asked for.
        let may_end = !self.slots.layout().grows() && self.rules.keep(Rule::RepeatLast);
        if may_end && self.todo.is_empty() && self.lanes[id.index()].owed() == 0 {
            return self.choose_last(now, id, me);
        }
        None
    }

    /// How many slots at the frontier: as many as fit T, but near the end only so many that all lanes finish together.
    fn fair_count(&self, id: LaneId, me: Pace, pool: Pool, chunk_time: Span, most: u64) -> u64 {
        let slot = SLOT_BYTES as u64;
        let rest = self.todo.len() * slot;
        let longest = self.working().map(|(_, pace)| pace.busy()).max().unwrap_or_default();
        let is_far = rest > bytes_in(longest + chunk_time.scale(2, 1), pool.rate);
        if is_far || !self.rules.keep(Rule::FinishTogether) {
            return most.max(1);
        }
        let others =
            || self.working().map(|(i, _)| i).filter(|&i| i != id.index()).map(|i| self.lanes[i].pace());
        let mine = share(rest, me, others());
        let rounded = (mine + slot / 2) / slot;
        if rounded > 0 {
            return rounded.min(most.max(1));
        }
        // What rounds to nothing for everybody goes to the lane that would be done first.
        let done = |pace: Pace| pace.busy() + pace.time_for(slot);
        let first = others().all(|pace| done(me) <= done(pace));
        u64::from(first)
    }

    /// Slots that a lane lost go first, to the lane that would have them here soonest, or to one that would not be
    /// much later.
    fn choose_lost(&self, id: LaneId, me: Pace, most: u64) -> Option<(Conn, Range<u64>)> {
        if self.todo.lost() == 0 {
            return None;
        }
        let lane = &self.lanes[id.index()];
        let next = self.slots.next();
        let run = self.todo.first_lost(next, most, |i| !lane.owes(i))?;
        let conn = self.could_ask(id.index(), run.start)?;
        let slot = SLOT_BYTES as u64;
        let done = |pace: Pace| pace.busy() + pace.time_for(slot);
        let best = self.could_be_asked(run.start).map(|i| done(self.lanes[i].pace())).min()?;
        let urgent = done(me) <= best;
        let nearly = me.wants_more(self.mark(id)) && done(me) <= best.scale(2, 1) + Span::from_millis(10);
        let any = !self.rules.keep(Rule::EarliestCompletion);
        if !(urgent || nearly || any) {
            return None;
        }
        let end = match conn {
            Conn::Main => self.horizon(id.index()),
            Conn::Spare => next + self.slots.window(),
        };
        let run = run.start..run.end.min(end).min(self.slots.layout().seam(run.start));
        (!run.is_empty()).then_some((conn, run))
    }

    /// The connection on which lane `index` could be asked for slot `slot`: one with nothing behind that slot.
    fn could_ask(&self, index: usize, slot: u64) -> Option<Conn> {
        let lane = self.lanes.get(index)?;
        if lane.kind == LaneKind::Original || !lane.is_up() || !self.may_work(index) || lane.owes(slot) {
            return None;
        }
        if lane.kind == LaneKind::Peer && self.is_for_own(slot) {
            return None;
        }
        [Conn::Main, Conn::Spare]
            .into_iter()
            .filter(|&conn| conn == Conn::Main || self.may_open_spare(index))
            .find(|&conn| {
                let track = lane.track(conn);
                track.last_slot().is_none_or(|last| last < slot) && !track.chunks.is_full()
            })
    }

    /// Whether lane `index` may have a second connection: the own link has at most two to an origin, and the original
    /// response is one of them.
    pub(super) fn may_open_spare(&self, index: usize) -> bool {
        let connections = self.lanes[index].kind != LaneKind::Own || self.cut == super::Cut::Done;
        connections && self.rules.keep(Rule::Spare)
    }

    /// The lanes in good order that could be asked for slot `slot`.
    fn could_be_asked(&self, slot: u64) -> impl Iterator<Item = usize> + '_ {
        self.working().map(|(i, _)| i).filter(move |&i| self.could_ask(i, slot).is_some())
    }

    /// Whether no lane in good order has been asked for slot `slot`, though its turn has come.
    fn nobody_brings(&self, slot: u64) -> bool {
        let is_missing = slot < self.todo.frontier() && !self.slots.has(slot);
        is_missing && !self.working().any(|(i, _)| self.lanes[i].owes(slot))
    }

    /// Whether nobody brings the head, and nobody could be asked for it because each connection stands blocked behind
    /// later slots, which have to wait for the head.
    pub(super) fn head_is_stuck(&self) -> bool {
        let Some(head) = self.awaited() else { return false };
        self.nobody_brings(head) && (0..self.lanes.len()).all(|i| self.could_ask(i, head).is_none())
    }

    /// A lane that comes back repeats the slot that is expected last, so that it stalls nobody if it fails again; if
    /// nobody else brings anything, it takes what there is. It gets the head if no lane in good order brings that.
    fn choose_for_probing(&mut self, now: Instant, id: LaneId) -> Option<(Conn, Range<u64>)> {
        let head = self.awaited().unwrap_or(self.slots.next());
        let is_due = self.nobody_brings(head) && self.could_be_asked(head).next().is_none();
        if is_due && let Some(conn) = self.could_ask(id.index(), head) {
            return Some((conn, head..head + 1));
        }
        if self.lanes[id.index()].owed() > 0 {
            return None;
        }
        if let Some((index, _)) = self.expected_last(now, id, head + self.slots.window()) {
            return Some((Conn::Main, index..index + 1));
        }
        if let Some(run) = self.todo.first_lost(head, self.slots.window(), |_| true) {
            return Some((Conn::Main, run.start..run.start + 1));
        }
        let open = self.todo.frontier() < self.horizon(id.index());
        open.then(|| (Conn::Main, self.todo.advance(1)))
    }

    /// Near the end an idle lane repeats the slot that is expected last, if it would have it here clearly sooner.
    fn choose_last(&self, now: Instant, id: LaneId, me: Pace) -> Option<(Conn, Range<u64>)> {
        let (index, due) = self.expected_last(now, id, self.slots.end())?;
        let mine = me.rtt + me.time_for(SLOT_BYTES as u64);
        let gain = due.since(now) - mine;
        (gain > mine.scale(1, 4) + Span::from_millis(10)).then_some((Conn::Main, index..index + 1))
    }

    /// The missing slot before `end` that is expected last of all that other lanes owe, and when.
    fn expected_last(&self, now: Instant, id: LaneId, end: u64) -> Option<(u64, Instant)> {
        let next = self.slots.next();
        let end = end.min(self.todo.frontier());
        let due = |index: u64| {
            let lanes = self.lanes.iter().enumerate().filter(|(i, l)| *i != id.index() && l.is_up());
            lanes.filter_map(|(_, l)| l.expects(now, index)).min()
        };
        let missing = (next..end).filter(|&i| !self.slots.has(i) && !self.lanes[id.index()].owes(i));
        missing.filter_map(|i| Some((i, due(i)?))).max_by_key(|&(i, due)| (due, i))
    }

    /// Rule 8: a lane so slow that it holds up the others gets nothing more, and rests once it owes nothing.
    fn is_let_go(&mut self, now: Instant, id: LaneId, me: Pace) -> bool {
        if !self.rules.keep(Rule::LetGo) {
            return false;
        }
        let others = || self.working().filter(|(i, _)| *i != id.index()).map(|(_, pace)| pace);
        let slot = SLOT_BYTES as u64;
        let Some(fastest) = others().min_by_key(|p| p.time_for(slot) + p.rtt) else { return false };
        if !Pool::of(others()).is_held_up_by(me, fastest, self.slots.window() * slot) {
            return false;
        }
        // However slow, a lane that checks what the others bring goes on with that.
        let checks = self.may_check(id);
        let lane = &mut self.lanes[id.index()];
        if lane.owed() == 0 && !checks {
            lane.rest(now);
        }
        true
    }
}
