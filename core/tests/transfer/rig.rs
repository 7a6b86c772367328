//! Threads, sockets and a clock for one `Transfer`, as awkward as the contract allows: calls come in any order, wakes
//! late or for nothing, reads in portions, failures at any time. Checks on every call what must always hold.

use std::cell::Cell;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::ops::Range;
use std::rc::Rc;

use bamqp_core::limits::{MAX_PIPELINE, SLOT_BYTES};
use bamqp_core::time::{Instant, Span};
use bamqp_core::transfer::{
    ClientDo, ClientEvent, Conn, Cut, Fault, HeadTimes, LaneDo, LaneEvent, LaneId, LaneState, LaneView,
    Outcome, OwnLink, Transfer, Wake,
};
use bamqp_core::trust::Standing;
use bamqp_core::verify::{Places, Sample, Slot};

pub const SLOT: u64 = SLOT_BYTES as u64;
/// Few, so that places are used again soon.
pub const SLOTS: usize = 24;
/// After so long in working order a lane that is not out must be of use: longer than any pause or patience.
const SURELY: u64 = 25_000_000;

/// What a lane makes of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Content {
    /// Which variant of it the origin serves there.
    variant: u8,
    /// Bytes that were altered besides.
    altered: Range<u64>,
}

impl Content {
    fn byte(&self, at: u64) -> u8 {
        (at as u8) ^ self.variant.wrapping_mul(37) ^ if self.altered.contains(&at) { 0x80 } else { 0 }
    }
}

/// A buffer that knows which bytes of the file it holds, and that is counted when it is lost.
#[derive(Debug)]
pub struct Buffer {
    holds: Range<u64>,
    content: Content,
    lost: Rc<Cell<usize>>,
}

impl Slot for Buffer {
    fn copy(&self, at: usize, to: &mut [u8]) {
        let start = self.holds.start / SLOT * SLOT + at as u64;
        assert!(self.holds.start <= start && start + to.len() as u64 <= self.holds.end, "{self:?} at {at}");
        to.iter_mut().zip(start..).for_each(|(byte, at)| *byte = self.content.byte(at));
    }

    fn differs(&self, other: &Self, range: Range<usize>) -> Option<usize> {
        assert_eq!(self.holds, other.holds, "copies of the same bytes");
        let base = self.holds.start / SLOT * SLOT;
        range.into_iter().find(|&i| {
            let at = base + i as u64;
            assert!(self.holds.contains(&at));
            self.content.byte(at) != other.content.byte(at)
        })
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.lost.set(self.lost.get() + 1);
    }
}

/// What a lane's link is like at a time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Mode {
    /// It brings so many bytes per second.
    Flow(u64),
    /// Nothing comes, and nobody says why.
    Silent,
    /// Every request and every read fails.
    Fails(Fault),
}

/// A lane as it will be: its modes from the start (at 0) on, in order of time.
#[derive(Clone, Debug)]
pub struct LaneCase {
    pub rtt: u64,
    pub modes: Vec<(u64, Mode)>,
    /// When the peer accepts, in microseconds; `None`: it declines.
    pub accepts: Option<u64>,
    pub hold: u32,
    /// What the peer claims to bring, and what is believed before it says so.
    pub claims: u64,
    /// Whether it is trusted.
    pub trusted: bool,
    /// Of its chunks, one of so many is altered from the first byte to the last; 0: none.
    pub lies: u64,
    /// The variant of the file that the origin serves to it.
    pub variant: u8,
}

impl LaneCase {
    pub fn steady(rate: u64, rtt: u64) -> LaneCase {
        LaneCase {
            rtt,
            modes: vec![(0, Mode::Flow(rate))],
            accepts: Some(2_000),
            hold: 128 << 10,
            claims: rate,
            trusted: false,
            lies: 0,
            variant: 0,
        }
    }

    pub fn trusted(self) -> LaneCase {
        LaneCase { trusted: true, ..self }
    }

    pub fn then(mut self, at: u64, mode: Mode) -> LaneCase {
        self.modes.push((at, mode));
        self
    }
}

/// A whole session.
#[derive(Clone, Debug)]
pub struct Case {
    pub range: Range<u64>,
    pub buffers: usize,
    /// The original response, the own link's second connection, the peers.
    pub lanes: Vec<LaneCase>,
    /// Bytes per second that the client takes; 0: all at once.
    pub client_rate: u64,
    /// When the client hangs up, in microseconds.
    pub hangs_up: Option<u64>,
    /// How late threads may be, in microseconds.
    pub late: u64,
    /// One of so many waits ends for no reason; 0: none.
    pub spurious: u64,
    /// Whether the origin answers several ranges at a time.
    pub several: bool,
    /// How many pieces are asked for at a time, at most, for as many bytes as `range` has; 0: they are the range.
    pub pieces: usize,
    pub seed: u64,
}

pub const RATE: u64 = 1_000_000;
pub const RTT: u64 = 20_000;
pub const SECOND: u64 = 1_000_000;

/// An own link and `peers` peers, all of them steady and alike; 300 slots.
pub fn case(peers: usize) -> Case {
    Case {
        range: 0..300 * SLOT,
        buffers: SLOTS,
        lanes: vec![LaneCase::steady(RATE, RTT); peers + 2],
        client_rate: 0,
        hangs_up: None,
        late: 0,
        spurious: 0,
        several: true,
        pieces: 0,
        seed: 1,
    }
}

/// What became of it.
#[derive(Debug)]
pub struct Report {
    pub outcome: Outcome,
    /// When it ended, in microseconds.
    pub ended: u64,
    /// When the client had its first byte.
    pub first_byte: Option<u64>,
    /// The longest time in which the client could have taken bytes and there were none, after its first byte.
    pub standstill: u64,
    pub lanes: Vec<LaneView>,
    pub cut: Cut,
    pub window_used: usize,
    /// Every request: when, which lane, which connection, which bytes.
    pub requests: Vec<(u64, usize, Conn, Range<u64>)>,
    /// When the original response was closed while it still had bytes to bring, and the offset that it had come to.
    pub cut_at: Option<(u64, u64)>,
    /// Bytes that the client got.
    pub delivered: u64,
    /// How many places each lane was asked for.
    pub places: Vec<usize>,
}

impl Report {
    /// Payload bytes that a lane brought.
    pub fn bytes(&self, lane: usize) -> u64 {
        self.lanes[lane].stats.bytes
    }

    /// How many payload bytes were fetched for nothing.
    pub fn duplicates(&self) -> u64 {
        self.lanes.iter().map(|l| l.stats.duplicates).sum()
    }
}

/// What was asked for: positions, and where those bytes lie in the file.
struct Pieces {
    all: Vec<(Range<u64>, u64)>,
    /// Bytes that are still to be asked for.
    left: u64,
}

impl Pieces {
    fn new(case: &Case) -> Pieces {
        match case.pieces {
            0 => Pieces { all: vec![(case.range.clone(), case.range.start)], left: 0 },
            _ => Pieces { all: Vec::new(), left: case.range.end - case.range.start },
        }
    }

    /// One more, anywhere in the file: a few bytes, some slots, or a run of slots that is cut short.
    fn next(&mut self, draw: u64) -> Option<Range<u64>> {
        let most = match draw % 8 {
            0 => 16,
            1..4 => 1 + (draw >> 8) % (16 * SLOT),
            _ => (1 + (draw >> 8) % 16) * SLOT,
        };
        let len = Some(most.min(self.left)).filter(|len| *len > 0)?;
        self.left -= len;
        let start = self.all.last().map_or(0, |(positions, _)| positions.end.next_multiple_of(SLOT));
        let at = ((draw >> 16) % 64 + 64 * self.all.len() as u64) * 16 * SLOT + (draw >> 32) % SLOT;
        self.all.push((start..start + len, at));
        Some(at..at + len)
    }

    /// Where these bytes of the file are due; they are of one piece.
    fn positions(&self, file: &Range<u64>) -> Range<u64> {
        let holds = |(positions, at): &&(Range<u64>, u64)| {
            *at <= file.start && file.end - at <= positions.end - positions.start
        };
        let (positions, at) = self.all.iter().find(holds).expect("only what was asked for, and of one piece");
        positions.start + file.start - at..positions.start + file.end - at
    }

    /// The first position from `at` on that stands for a byte.
    fn next_position(&self, at: u64) -> u64 {
        match self.all.iter().any(|(positions, _)| positions.contains(&at)) {
            true => at,
            false => at.next_multiple_of(SLOT),
        }
    }

    fn is_all(&self, served: u64) -> bool {
        self.all.last().is_none_or(|(positions, _)| positions.end == served)
    }

    fn open(&self, served: u64) -> usize {
        self.all.iter().filter(|(positions, _)| positions.end > served).count()
    }

    fn delivered(&self, served: u64) -> u64 {
        self.all
            .iter()
            .map(|(positions, _)| served.clamp(positions.start, positions.end) - positions.start)
            .sum()
    }
}

enum Doing {
    Joining,
    Reading { conn: Conn, slot: Buffer, at: u64, len: u32, got: u64, since: u64 },
    Sampling { conn: Conn, since: u64 },
    Waiting,
    Ended,
}

struct Answer {
    rest: Range<u64>,
    asked: u64,
    begun: bool,
    content: Content,
    places: Option<Places>,
}

struct Lane {
    case: LaneCase,
    mode: Mode,
    mode_since: u64,
    doing: Doing,
    turn: u64,
    conns: [VecDeque<Answer>; 2],
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Mode(usize, usize),
    Join(usize),
    Due(usize, u64),
    Wake(usize),
    Client(u64),
    ClientWake,
    Written,
    HangUp,
}

struct Rig {
    case: Case,
    transfer: Transfer<Buffer, SLOTS>,
    lanes: Vec<Lane>,
    now: u64,
    heap: BinaryHeap<Reverse<(u64, u64, Event)>>,
    count: u64,
    random: u64,
    pieces: Pieces,
    lost: Rc<Cell<usize>>,
    writing: Option<Buffer>,
    client_turn: u64,
    served: u64,
    stood_since: Option<u64>,
    first_byte: Option<u64>,
    standstill: u64,
    requests: Vec<(u64, usize, Conn, Range<u64>)>,
    places: Vec<usize>,
    cut_at: Option<(u64, u64)>,
    ended: Option<(u64, Outcome)>,
}

/// Drives one session to its end. Panics when something does not hold that always must.
pub fn run(case: &Case) -> Report {
    let mut rig = Rig::new(case.clone());
    rig.go();
    rig.report()
}

impl Rig {
    fn new(case: Case) -> Rig {
        let lost = Rc::new(Cell::new(0));
        let buffers = (0..case.buffers).map(|_| Buffer {
            holds: 0..0,
            content: Content::default(),
            lost: lost.clone(),
        });
        let now = Instant::default();
        let own = OwnLink {
            rate: case.lanes[0].claims,
            rtt: Span::from_micros(case.lanes[0].rtt),
            hold: case.lanes[0].hold,
        };
        let mut secret = [0; 32];
        secret[..8].copy_from_slice(&case.seed.to_be_bytes());
        let mut transfer = match case.pieces {
            0 => Transfer::new(now, case.range.clone(), buffers, own, secret).expect("buffers and bytes"),
            _ => Transfer::in_pieces(now, buffers, own, secret).expect("buffers"),
        };
        let mut lanes = Vec::new();
        for (i, lane) in case.lanes.iter().enumerate() {
            let standing = match lane.trusted {
                true => Standing::Trusted { accused: false },
                false => Standing::Newcomer { clean: 0 },
            };
            let rtt = Span::from_micros(lane.rtt);
            if i >= 2 && transfer.add_peer(now, lane.claims, rtt, standing).is_none() {
                break;
            }
            lanes.push(Lane {
                case: lane.clone(),
                mode: lane.modes[0].1,
                mode_since: 0,
                doing: if i < 2 { Doing::Waiting } else { Doing::Joining },
                turn: 0,
                conns: Default::default(),
            });
        }
        if case.pieces == 0 {
            let (rest, content) = (case.range.clone(), Content::default());
            lanes[0].conns[0].push_back(Answer { rest, asked: 0, begun: true, content, places: None });
        }
        let mut rig = Rig {
            random: case.seed | 1,
            served: if case.pieces == 0 { case.range.start } else { 0 },
            pieces: Pieces::new(&case),
            transfer,
            lanes,
            now: 0,
            heap: BinaryHeap::new(),
            count: 0,
            lost,
            writing: None,
            client_turn: 0,
            stood_since: None,
            first_byte: None,
            standstill: 0,
            requests: Vec::new(),
            places: vec![0; case.lanes.len()],
            cut_at: None,
            ended: None,
            case,
        };
        for lane in 0..rig.lanes.len() {
            for n in 1..rig.lanes[lane].case.modes.len() {
                rig.at(rig.lanes[lane].case.modes[n].0, Event::Mode(lane, n));
            }
            match lane {
                0 | 1 => {
                    let late = rig.lateness();
                    rig.at(late, Event::Due(lane, 0));
                }
                _ => rig.at(rig.lanes[lane].case.accepts.unwrap_or(5_000), Event::Join(lane)),
            }
        }
        rig.at(0, Event::Client(0));
        if let Some(at) = rig.case.hangs_up {
            rig.at(at, Event::HangUp);
        }
        rig
    }

    fn at(&mut self, at: u64, event: Event) {
        self.count += 1;
        // Events of one moment take place in any order.
        let order = self.dice();
        self.heap.push(Reverse((at, order, event)));
    }

    fn dice(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random >> 8
    }

    fn lateness(&mut self) -> u64 {
        match self.dice() % 4 {
            0 => self.dice() % (self.case.late + 1),
            1 => self.dice() % (self.case.late / 16 + 1),
            _ => 0,
        }
    }

    /// Longer than this nothing can take that ends.
    fn bound(&self) -> u64 {
        let last = self.lanes.iter().flat_map(|l| &l.case.modes).map(|m| m.0).max().unwrap_or(0);
        let bytes = (self.case.range.end - self.case.range.start) * 1_000_000;
        let rates = self.lanes.iter().flat_map(|l| &l.case.modes).filter_map(|(_, mode)| match mode {
            Mode::Flow(rate) => Some(*rate),
            _ => None,
        });
        let slowest = rates.min().unwrap_or(u64::MAX);
        let client = bytes.checked_div(self.case.client_rate).unwrap_or(0);
        last + 4 * (bytes / slowest) + 2 * client + 200_000_000
    }

    fn go(&mut self) {
        let bound = self.bound();
        let mut at_once = 0;
        while let Some(Reverse((at, _, event))) = self.heap.pop() {
            assert!(
                at <= bound,
                "still not over after {at} us: {:?}",
                self.transfer.report().collect::<Vec<_>>()
            );
            at_once = if at == self.now { at_once + 1 } else { 0 };
            assert!(at_once < 10_000, "nothing but calls at {at} us: {:#?}", self.transfer);
            self.now = at;
            self.take_place(event);
            self.check();
            if self.ended.is_some() && self.lanes.iter().all(|l| matches!(l.doing, Doing::Ended)) {
                return;
            }
        }
        panic!("everybody waits for somebody else at {} us", self.now);
    }

    fn check(&self) {
        assert_eq!(self.lost.get(), 0, "buffers are kept");
        assert!(self.transfer.window_used() <= self.case.buffers * SLOT_BYTES);
        let healthy = (0..self.lanes.len()).any(|lane| self.surely_works(lane));
        if let (Some(since), true) = (self.stood_since, healthy && self.ended.is_none()) {
            assert!(
                self.now - since <= SURELY,
                "a lane works, but the client stands still since {since} us: {:?} {:?} {:#?}",
                self.transfer.cut(),
                self.transfer.report().collect::<Vec<_>>(),
                self.transfer
            );
        }
    }

    /// Whether a lane is in good order for so long that it must be of use, and may be: what a peer brings only where it can
    /// be checked.
    fn surely_works(&self, lane: usize) -> bool {
        let checks = |other: usize| {
            let is_other = other != lane && (other == 1 || self.lanes[other].case.trusted && other > 1);
            is_other && self.surely_flows(other)
        };
        self.surely_flows(lane) && (lane < 2 || (1..self.lanes.len()).any(checks))
    }

    fn surely_flows(&self, lane: usize) -> bool {
        let Some(view) = self.transfer.report().nth(lane) else { return false };
        let is_out = !matches!(view.state, LaneState::Up | LaneState::Probing | LaneState::Resting { .. });
        let fast = matches!(self.lanes[lane].mode, Mode::Flow(rate) if rate >= 50_000);
        // The original response may first have to come past what others have brought.
        let front = self.lanes[lane].conns[0].front();
        let behind = lane == 0 && front.is_some_and(|answer| answer.rest.start < self.served);
        fast && !is_out && !behind && self.now - self.lanes[lane].mode_since > SURELY
    }

    fn take_place(&mut self, event: Event) {
        match event {
            Event::Mode(lane, n) => {
                self.progress(lane);
                let l = &mut self.lanes[lane];
                (l.mode, l.mode_since) = (l.case.modes[n].1, self.now);
                match (l.mode, &l.doing) {
                    (Mode::Fails(why), Doing::Reading { .. } | Doing::Sampling { .. }) => {
                        self.fail(lane, why)
                    }
                    (_, Doing::Reading { .. }) => self.schedule_read(lane),
                    (_, Doing::Sampling { .. }) => self.schedule_sample(lane),
                    _ => {}
                }
            }
            Event::Join(lane) => {
                let l = &self.lanes[lane];
                if !matches!(l.doing, Doing::Joining) {
                    return;
                }
                let event = match (l.case.accepts, l.mode) {
                    (None, _) => LaneEvent::Failed { slot: None, why: Fault::Declined },
                    (_, Mode::Fails(why)) => LaneEvent::Failed { slot: None, why },
                    _ => LaneEvent::Ready { rate: l.case.claims, hold: l.case.hold },
                };
                self.call(lane, event);
            }
            Event::Due(lane, turn) if self.lanes[lane].turn == turn => self.come_back(lane),
            Event::Due(..) => {}
            Event::Wake(lane) => self.come_back(lane),
            Event::Client(turn) if self.client_turn == turn => self.client(ClientEvent::Idle),
            Event::ClientWake if self.writing.is_none() => self.client(ClientEvent::Idle),
            Event::Client(_) | Event::ClientWake => {}
            Event::Written => {
                if let Some(slot) = self.writing.take() {
                    self.client(ClientEvent::Written(slot));
                }
            }
            Event::HangUp => {
                if self.ended.is_none() {
                    // The thread drops nothing: what it was writing is lost with its connection.
                    if let Some(slot) = self.writing.take() {
                        std::mem::forget(slot);
                    }
                    self.client(ClientEvent::Gone);
                }
            }
        }
    }

    /// Bytes that came since the lane was last looked at.
    fn progress(&mut self, lane: usize) {
        let now = self.now;
        let Lane { mode, doing, conns, case, .. } = &mut self.lanes[lane];
        let Doing::Reading { conn, len, got, since, .. } = doing else { return };
        let Some(answer) = conns[*conn as usize].front() else { return };
        let from = if answer.begun { *since } else { (*since).max(answer.asked + case.rtt) };
        if let Mode::Flow(rate) = mode {
            *got = (*got + now.saturating_sub(from) * *rate / 1_000_000).min((*len).into());
        }
        *since = now.max(*since);
    }

    /// When the read will be complete, or its time has come.
    fn schedule_read(&mut self, lane: usize) {
        let burst = self.dice().is_multiple_of(8);
        let Lane { mode, doing, conns, case, turn, .. } = &mut self.lanes[lane];
        let Doing::Reading { conn, len, got, since, .. } = doing else { return };
        let (Mode::Flow(rate), Some(answer)) = (mode, conns[*conn as usize].front()) else { return };
        let from = if answer.begun { *since } else { (*since).max(answer.asked + case.rtt) };
        let left = u64::from(*len) - *got;
        let due = from + (left * 1_000_000).div_ceil(*rate);
        let turn = *turn;
        let event = Event::Due(lane, turn);
        if burst && from <= self.now {
            // It was in the socket already.
            *got = (*len).into();
            return self.at(self.now, event);
        }
        let late = self.lateness();
        self.at(due.max(self.now) + late, event);
    }

    /// The lane's thread stops what it is doing and reports.
    fn come_back(&mut self, lane: usize) {
        self.progress(lane);
        let now = self.now;
        let portion = self.dice();
        let partial = self.case.spurious > 0 && self.dice().is_multiple_of(self.case.spurious);
        let l = &mut self.lanes[lane];
        match std::mem::replace(&mut l.doing, Doing::Waiting) {
            Doing::Waiting => self.call(lane, LaneEvent::Idle),
            Doing::Sampling { conn, since } => self.sampled(lane, conn, since),
            other @ (Doing::Joining | Doing::Ended) => l.doing = other,
            Doing::Reading { conn, mut slot, at, mut got, .. } => {
                if partial && got > 0 {
                    got = portion % (got + 1);
                }
                let answers = &mut l.conns[conn as usize];
                let answer = answers.front_mut().expect("a read has its answer");
                let head_is_there = !answer.begun
                    && (got > 0 || matches!(l.mode, Mode::Flow(_)) && now >= answer.asked + l.case.rtt);
                let head = head_is_there.then(|| {
                    answer.begun = true;
                    let at = now.min(answer.asked + l.case.rtt).max(answer.asked);
                    HeadTimes { sent: Instant::from_micros(answer.asked), at: Instant::from_micros(at) }
                });
                answer.rest.start += got;
                if answer.rest.is_empty() {
                    answers.pop_front();
                }
                slot.holds.end += got;
                self.call(lane, LaneEvent::Filled { conn, slot, at, len: got as u32, head });
            }
        }
    }

    /// When the answer with places will be there.
    fn schedule_sample(&mut self, lane: usize) {
        let late = self.lateness();
        if let Some(due) = self.sample_due(lane) {
            let turn = self.lanes[lane].turn;
            self.at(due.max(self.now) + late, Event::Due(lane, turn));
        }
    }

    fn sample_due(&self, lane: usize) -> Option<u64> {
        let l = &self.lanes[lane];
        let (Doing::Sampling { conn, since }, Mode::Flow(rate)) = (&l.doing, l.mode) else { return None };
        let answer = l.conns[*conn as usize].front()?;
        let from = (*since).max(answer.asked + l.case.rtt).max(l.mode_since);
        Some(from + (answer.rest.end - answer.rest.start) * 1_000_000 / rate)
    }

    /// The lane's thread reports the places, if they are here.
    fn sampled(&mut self, lane: usize, conn: Conn, since: u64) {
        self.lanes[lane].doing = Doing::Sampling { conn, since };
        let is_there = self.sample_due(lane).is_some_and(|due| due <= self.now);
        let l = &mut self.lanes[lane];
        l.doing = Doing::Waiting;
        if !is_there {
            return self.call(lane, LaneEvent::Idle);
        }
        let answer = l.conns[conn as usize].pop_front().expect("a read has its answer");
        if !self.case.several && answer.places.as_ref().is_some_and(|places| places.len() > 1) {
            return self.fail(lane, Fault::Status(200));
        }
        let places = answer.places.expect("places were asked for");
        let (sent, at) = (answer.asked, self.now.min(answer.asked + l.case.rtt).max(answer.asked));
        let head = HeadTimes { sent: Instant::from_micros(sent), at: Instant::from_micros(at) };
        let pieces = &self.pieces;
        let sample = |place: Range<u64>| {
            let mut bytes = [0; 16];
            bytes
                .iter_mut()
                .zip(pieces.positions(&place))
                .for_each(|(byte, at)| *byte = answer.content.byte(at));
            Sample { at: place.start, bytes }
        };
        let samples: Vec<Sample> = places.iter().map(sample).collect();
        let wire = (answer.rest.end - answer.rest.start) as u32;
        self.call(lane, LaneEvent::Sampled { conn, samples: &samples, wire, head: Some(head) });
    }

    fn fail(&mut self, lane: usize, why: Fault) {
        let l = &mut self.lanes[lane];
        let slot = match std::mem::replace(&mut l.doing, Doing::Waiting) {
            Doing::Reading { slot, .. } => Some(slot),
            _ => None,
        };
        l.conns = Default::default();
        self.call(lane, LaneEvent::Failed { slot, why });
    }

    fn call(&mut self, lane: usize, event: LaneEvent<'_, Buffer>) {
        let failed = matches!(event, LaneEvent::Failed { .. });
        let now = Instant::from_micros(self.now);
        let (what, wake) = self.transfer.lane(now, LaneId::from_index(lane), event);
        self.wake(wake);
        self.lanes[lane].turn += 1;
        let turn = self.lanes[lane].turn;
        if self.case.spurious > 0 && self.dice().is_multiple_of(self.case.spurious) {
            let soon = self.now + self.dice() % 20_000;
            self.at(soon, Event::Wake(lane));
        }
        match what {
            LaneDo::Request { conn, range } => {
                assert!(lane != 0, "the original response is never asked for anything");
                assert!(!range.is_empty());
                let range = self.pieces.positions(&range);
                let answers = &mut self.lanes[lane].conns[conn as usize];
                let last = answers.iter().rev().find(|answer| answer.places.is_none());
                assert!(last.is_none_or(|last| last.rest.end <= range.start), "ascending");
                assert!(answers.len() < MAX_PIPELINE);
                let case = &self.lanes[lane].case;
                let (variant, lies) = (case.variant, case.lies);
                let altered = match lies > 0 && self.dice().is_multiple_of(lies) {
                    true => range.clone(),
                    false => 0..0,
                };
                let content = Content { variant, altered };
                let answer =
                    Answer { rest: range.clone(), asked: self.now, begun: false, content, places: None };
                self.lanes[lane].conns[conn as usize].push_back(answer);
                self.requests.push((self.now, lane, conn, range));
                self.lanes[lane].doing = Doing::Waiting;
                if let Mode::Fails(why) = self.lanes[lane].mode {
                    return self.fail(lane, why);
                }
                let late = self.lateness();
                self.at(self.now + late, Event::Due(lane, turn));
            }
            LaneDo::Read { conn, mut slot, at, len, mark, by } => {
                let next = self.pieces.next_position(self.served) / SLOT;
                assert!(at / SLOT < next + self.case.buffers as u64, "nothing is read beyond the window");
                assert!(len > 0 && at % SLOT + u64::from(len) <= SLOT, "within one slot");
                let answer = self.lanes[lane].conns[conn as usize].front().expect("only what was asked for");
                assert_eq!(answer.rest.start, at, "where the answer stands");
                assert!(u64::from(len) <= answer.rest.end - at);
                assert!(mark > 0 && u64::from(mark) <= answer.rest.end - at);
                if at.is_multiple_of(SLOT) || slot.holds.end != at || at == self.case.range.start {
                    // Begun anew: only at a slot's first byte, or where the answer begins.
                    assert!(at.is_multiple_of(SLOT) || !answer.begun || at == self.case.range.start);
                    slot.holds = at..at;
                    slot.content = answer.content.clone();
                }
                self.lanes[lane].doing = Doing::Reading { conn, slot, at, len, got: 0, since: self.now };
                if let Mode::Fails(why) = self.lanes[lane].mode {
                    return self.fail(lane, why);
                }
                let late = self.lateness();
                self.at(by.as_micros().max(self.now) + late, Event::Due(lane, turn));
                self.schedule_read(lane);
            }
            LaneDo::Sample { conn, places } => {
                assert!(lane != 0 && !places.is_empty());
                let mut end = 0;
                for place in places.iter() {
                    assert!(place.start >= end && place.end - place.start <= 16 && !place.is_empty());
                    self.pieces.positions(&place);
                    end = place.end;
                }
                assert!(self.lanes[lane].conns[conn as usize].len() < MAX_PIPELINE);
                self.places[lane] += places.len();
                self.lanes[lane].doing = Doing::Waiting;
                match self.lanes[lane].mode {
                    Mode::Fails(why) => return self.fail(lane, why),
                    _ => assert!(places.len() == 1 || lane == 1, "a peer is asked for one place at a time"),
                }
                let variant = self.lanes[lane].case.variant;
                let rest = 0..350 + 136 * places.len() as u64;
                let content = Content { variant, altered: 0..0 };
                let (asked, places) = (self.now, Some(places));
                let answer = Answer { rest, asked, begun: false, content, places };
                self.lanes[lane].conns[conn as usize].push_back(answer);
                let late = self.lateness();
                self.at(self.now + late, Event::Due(lane, turn));
            }
            LaneDo::ReadSample { conn, by } => {
                let answer = self.lanes[lane].conns[conn as usize].front().expect("only what was asked for");
                assert!(answer.places.is_some());
                self.lanes[lane].doing = Doing::Sampling { conn, since: self.now };
                if let Mode::Fails(why) = self.lanes[lane].mode {
                    return self.fail(lane, why);
                }
                let late = self.lateness();
                self.at(by.as_micros().max(self.now) + late, Event::Due(lane, turn));
                self.schedule_sample(lane);
            }
            LaneDo::Wait(until) => {
                self.lanes[lane].doing = Doing::Waiting;
                if let Some(until) = until {
                    let late = self.lateness();
                    self.at(until.as_micros().max(self.now) + late, Event::Due(lane, turn));
                }
            }
            LaneDo::Close => {
                self.closes(lane, failed);
                self.lanes[lane].doing = Doing::Waiting;
                let late = self.lateness();
                self.at(self.now + late, Event::Due(lane, turn));
            }
            LaneDo::End => {
                self.closes(lane, failed);
                self.lanes[lane].doing = Doing::Ended;
            }
        }
    }

    /// The lane's connections are closed. The original response may only be cut when that was earned.
    fn closes(&mut self, lane: usize, failed: bool) {
        let rest = self.lanes[lane].conns[0].front().map(|answer| answer.rest.clone());
        if let (0, Some(rest), false, None) = (lane, rest, failed, self.transfer.outcome()) {
            self.cut_at = Some((self.now, rest.start));
            assert_eq!(self.transfer.cut(), Cut::Done);
        }
        self.lanes[lane].conns = Default::default();
    }

    fn client(&mut self, event: ClientEvent<Buffer>) {
        if self.ended.is_some() {
            return;
        }
        let (what, wake) = self.transfer.client(Instant::from_micros(self.now), event);
        self.wake(wake);
        self.client_turn += 1;
        match what {
            ClientDo::Write { slot, start, len } => {
                self.served = self.pieces.next_position(self.served);
                let end = self.served + u64::from(len);
                assert_eq!(slot.holds, self.served..end, "each byte once and in order");
                assert_eq!(slot.content.variant, 0, "only what the own link has");
                let altered = &slot.content.altered;
                assert!(altered.end <= self.served || end <= altered.start, "no altered chunk gets through");
                assert_eq!(u64::from(start), self.served % SLOT);
                self.served = end;
                if let (Some(since), Some(_)) = (self.stood_since.take(), self.first_byte) {
                    self.standstill = self.standstill.max(self.now - since);
                }
                self.first_byte.get_or_insert(self.now);
                self.writing = Some(slot);
                let takes = match self.case.client_rate {
                    0 => self.lateness(),
                    rate => u64::from(len) * 1_000_000 / rate,
                };
                self.at(self.now + takes, Event::Written);
                self.ask_for_more();
            }
            ClientDo::Wait(until) if self.pieces.is_all(self.served) && self.case.pieces > 0 => {
                assert_eq!(until, None, "nothing is due");
                self.stood_since = None;
                match self.ask_for_more() {
                    true => self.client(ClientEvent::Idle),
                    false => self.client(ClientEvent::Gone),
                }
            }
            ClientDo::Wait(until) => {
                self.stood_since.get_or_insert(self.now);
                if let Some(until) = until {
                    let late = self.lateness();
                    self.at(until.as_micros().max(self.now) + late, Event::Client(self.client_turn));
                }
            }
            ClientDo::End(outcome) => {
                if std::env::var("TRACE").is_ok() && outcome == Outcome::Unverified {
                    eprintln!("{:#?}", self.transfer);
                }
                self.ended = Some((self.now, outcome));
                match outcome {
                    Outcome::Complete => assert_eq!(self.served, self.case.range.end),
                    Outcome::ClientGone if self.pieces.is_all(self.served) && self.case.pieces > 0 => {}
                    Outcome::ClientGone => assert!(self.case.hangs_up.is_some_and(|at| at <= self.now)),
                    Outcome::NoLaneLeft(_) => {
                        for lane in 0..self.lanes.len() {
                            assert!(!self.surely_works(lane), "given up, though lane {lane} works");
                        }
                    }
                    Outcome::Unverified => {
                        assert!(!self.surely_flows(0) && !self.surely_flows(1), "the own link works");
                        assert!((2..self.lanes.len()).all(|lane| !self.surely_works(lane)));
                    }
                }
            }
        }
    }

    /// As many pieces as may be asked for at a time; whether there was one more.
    fn ask_for_more(&mut self) -> bool {
        let mut any = false;
        while self.pieces.open(self.served) < self.case.pieces {
            let (draw, at) = (self.dice(), Instant::from_micros(self.now));
            let Some(file) = self.pieces.next(draw) else { break };
            let wake = self.transfer.add_piece(at, file).expect("no more than were agreed on");
            self.wake(wake);
            any = true;
        }
        any
    }

    fn wake(&mut self, wake: Wake) {
        for lane in 0..self.lanes.len() {
            if wake.lane(lane) {
                let late = self.lateness();
                self.at(self.now + late, Event::Wake(lane));
            }
        }
        if wake.client() {
            let late = self.lateness();
            self.at(self.now + late, Event::ClientWake);
        }
    }

    fn report(&self) -> Report {
        let (ended, outcome) = self.ended.expect("it is over");
        Report {
            outcome,
            ended,
            first_byte: self.first_byte,
            standstill: self.standstill,
            lanes: self.transfer.report().collect(),
            cut: self.transfer.cut(),
            window_used: self.transfer.window_used(),
            requests: self.requests.clone(),
            cut_at: self.cut_at,
            delivered: self.pieces.delivered(self.served),
            places: self.places.clone(),
        }
    }
}
