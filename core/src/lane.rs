//! What is known of one lane: its rate, its round trip, what was asked of it and when it must be given up. Not
//! responsible for what to ask next ([`crate::plan`]) nor for the session as a whole ([`crate::transfer`]).

use core::ops::Range;

use heapless::Deque;

use crate::limits::{MAX_PIPELINE, SLOT_BYTES};
use crate::plan::{Pace, bytes_in, time_for};
use crate::time::{Instant, Span};
use crate::transfer::Conn;
use crate::trust::Standing;

/// TCP's initial window (RFC 6928): ten segments.
const FIRST_WINDOW: u64 = 14_480;

/// Measures a lane's rate while it is being read (DESIGN section 5, rule 2).
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    estimate: u64,
    /// The link may have changed: the estimate is worth nothing.
    is_stale: bool,
    samples: u32,
    since: Option<Instant>,
    young_until: Instant,
    bytes: u64,
    backlog: u64,
}

impl Rate {
    /// 1 Mbit/s: what a line brings at least, where nothing is known of it.
    const UNKNOWN: u64 = 125_000;

    /// Long enough to even out that bytes arrive in bursts, short enough to see a link slow down in time.
    const PERIOD: Span = Span::from_millis(40);

    /// Starts from a guess in bytes per second: what a peer advertised or an earlier session measured; 0 if nobody
    /// knows. A lane that was taken for hopeless would never be asked for anything, and so never be measured.
    pub fn new(guess: u64) -> Self {
        let guess = if guess == 0 { Self::UNKNOWN } else { guess };
        Self {
            estimate: guess,
            is_stale: false,
            samples: 0,
            since: None,
            young_until: Instant::default(),
            bytes: 0,
            backlog: 0,
        }
    }

    /// The estimate in bytes per second, at least 1.
    pub fn get(&self) -> u64 {
        self.estimate
    }

    /// Whether anything was measured yet.
    pub fn is_measured(&self) -> bool {
        self.samples > 0
    }

    /// Whether bytes flow already, so that it is being measured.
    pub fn is_begun(&self) -> bool {
        self.since.is_some()
    }

    /// The link may have changed: the next sample counts alone.
    pub fn restart(&mut self) {
        *self = Self { is_stale: true, ..Self::new(self.estimate) };
    }

    /// Bytes flow from `at` on, after a `pause` in which none were due; it does not count. `rtt` is the round trip.
    pub fn begin(&mut self, at: Instant, pause: Span, rtt: Span) {
        if self.since.is_none() {
            self.young_until = at + rtt.scale(4, 1);
        }
        self.since = Some(self.since.map_or(at, |since| since + pause));
    }

    /// Reading goes on after we had not read for `pause`: besides, up to `held` bytes may have come in meanwhile, and
    /// how fast those are read says nothing about the link.
    pub fn resume(&mut self, pause: Span, held: u64) {
        self.since = self.since.map(|since| since + pause);
        self.backlog = (self.backlog + bytes_in(pause, self.estimate)).min(held);
    }

    /// `len` bytes were read by `now`.
    pub fn add(&mut self, now: Instant, len: u64) {
        let since = *self.since.get_or_insert(now);
        self.bytes += len;
        let took = now.since(since);
        if took < Self::PERIOD && (self.backlog == 0 || self.bytes < self.backlog) {
            return;
        }
        let sample = (self.bytes.saturating_mul(1_000_000) / took.as_micros().max(1)).max(1);
        let bytes = core::mem::take(&mut self.bytes);
        self.since = Some(now);
        if self.backlog > 0 && sample > self.estimate {
            self.backlog = self.backlog.saturating_sub(bytes);
            return;
        }
        self.backlog = 0;
        if self.is_stale {
            // What it was silent for may be among it.
            (self.estimate, self.is_stale) = (sample.max(self.estimate / 8), false);
            self.samples = self.samples.saturating_add(1);
            return;
        }
        // A young connection's rate still grows (TCP's slow start): that it brings less than expected says nothing of
        // the link yet. Later samples are smoothed over about four periods.
        let is_young = now < self.young_until;
        if is_young && sample <= self.estimate {
            return;
        }
        let weight = if is_young { 2 } else { 4 };
        // One that took longer counts for as many periods: a lane that drips is looked at but now and then.
        for _ in 0..(took.as_micros() / Self::PERIOD.as_micros()).clamp(1, 8) {
            self.estimate = (self.estimate * (weight - 1) + sample) / weight;
        }
        self.samples = self.samples.saturating_add(1);
    }
}

/// The round trip from a request to its first byte, smoothed as RFC 6298 section 2 says.
#[derive(Clone, Copy, Debug)]
pub struct RoundTrip {
    smoothed: Span,
    variation: Span,
    measured: bool,
}

impl RoundTrip {
    /// Starts from a guess.
    pub fn new(guess: Span) -> Self {
        Self { smoothed: guess, variation: guess.scale(1, 2), measured: false }
    }

    /// The smoothed round trip.
    pub fn get(&self) -> Span {
        self.smoothed
    }

    /// A head came `sample` after its request. While earlier answers were still flowing (`queued`) that is only an
    /// upper bound, which counts if it is lower than what was believed.
    pub fn add(&mut self, sample: Span, queued: bool) {
        if queued {
            self.smoothed = self.smoothed.min(sample);
            return;
        }
        if !self.measured {
            (self.smoothed, self.variation, self.measured) = (sample, sample.scale(1, 2), true);
            return;
        }
        let off = (self.smoothed - sample).max(sample - self.smoothed);
        self.variation = self.variation.scale(3, 4) + off.scale(1, 4);
        self.smoothed = self.smoothed.scale(7, 8) + sample.scale(1, 8);
    }

    /// How long silence is tolerated at least: srtt + 4 x variation, not below 250 ms; 500 ms before the first
    /// measurement, since nothing is known of the way yet (DESIGN section 5, rule 6).
    pub fn patience(&self) -> Span {
        let floor = if self.measured { 250 } else { 500 };
        (self.smoothed + self.variation.scale(4, 1)).max(Span::from_millis(floor))
    }
}

/// A run of bytes asked of a lane in one request.
#[derive(Clone, Debug)]
pub(crate) struct Chunk {
    /// What is still to come, as offsets into the file; the start moves on with what arrives.
    pub rest: Range<u64>,
    /// When the request was handed out; `None` while it waits to be.
    pub asked: Option<Instant>,
    /// Whether the answer's head has arrived.
    pub begun: bool,
    /// Whether earlier answers were still due when it was asked for.
    pub queued: bool,
    /// The lane's rate when it was assigned, bytes per second.
    pub rate: u64,
    /// Whether its slots were offered to others because the lane had slowed down.
    pub offered: bool,
    /// What it is for.
    pub purpose: Purpose,
}

/// What a chunk's bytes are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// For the client; what a peer brings is first inspected, under this number.
    Payload(Option<u32>),
    /// The first sample: only to see that the own link's second connection answers rightly.
    Probe,
    /// Places of peers' chunks, in the request of this number.
    Sample(u32),
    /// A whole slot of such a chunk.
    Audit(u32),
    /// A place that is disputed, under this number.
    Vote(u32),
}

impl Purpose {
    /// Whether the bytes are for the client.
    pub fn is_payload(self) -> bool {
        matches!(self, Purpose::Payload(_))
    }

    /// Whether the answer is read into slots; otherwise as places.
    pub fn fills_slots(self) -> bool {
        matches!(self, Purpose::Payload(_) | Purpose::Audit(_))
    }
}

/// One connection of a lane: chunks in the order of their requests, at ascending offsets.
#[derive(Debug)]
pub(crate) struct Track<S> {
    pub chunks: Deque<Chunk, MAX_PIPELINE>,
    /// A slot that was read in part, and how many bytes of it.
    pub partial: Option<(S, u32)>,
    /// The last sign of life, or when waiting for one began.
    pub heard: Instant,
    /// How many bytes its thread waits for before it wakes up.
    pub mark: u64,
    /// How many bytes came on it.
    pub came: u64,
}

impl<S> Track<S> {
    pub fn new(now: Instant) -> Self {
        Self { chunks: Deque::new(), partial: None, heard: now, mark: 0, came: 0 }
    }

    /// Bytes asked for and not yet here.
    pub fn owed(&self) -> u64 {
        self.chunks.iter().map(|c| c.rest.end - c.rest.start).sum()
    }

    /// The slot that comes next on this connection.
    pub fn front_slot(&self) -> Option<u64> {
        self.chunks.front().map(|c| c.rest.start / SLOT_BYTES as u64)
    }

    /// The last slot asked for on this connection. What is not read into slots waits for no room, so it is in nobody's way.
    pub fn last_slot(&self) -> Option<u64> {
        let last = self.chunks.iter().rfind(|c| c.purpose.fills_slots());
        last.map(|c| (c.rest.end - 1) / SLOT_BYTES as u64)
    }

    /// How many bytes come before and with slot `index`, if it is owed here.
    pub fn bytes_until(&self, index: u64) -> Option<u64> {
        let slot = SLOT_BYTES as u64;
        let mut before = 0;
        for chunk in &self.chunks {
            if chunk.purpose.is_payload()
                && (chunk.rest.start / slot..chunk.rest.end.div_ceil(slot)).contains(&index)
            {
                return Some(before + ((index + 1) * slot).min(chunk.rest.end) - chunk.rest.start);
            }
            before += chunk.rest.end - chunk.rest.start;
        }
        None
    }
}

/// Why a lane's connection or answer was of no use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// No connection could be made.
    Unreachable,
    /// The connection ended before the answer was complete.
    Closed,
    /// Nothing came for too long.
    Timeout,
    /// The answer could not be parsed.
    Malformed,
    /// A status other than 206 that does not say that the file changed.
    Status(u16),
    /// The validator or the total length differs: the file changed at the origin.
    Changed,
    /// The answer carries no strong validator: perhaps the same file, perhaps not.
    Unproven,
    /// A `Content-Range` other than the one asked for.
    WrongRange,
    /// A length that does not fit the range.
    WrongLength,
    /// A content or transfer coding, or several parts in one answer.
    Encoded,
    /// The peer declined the session or dropped out of it.
    Declined,
    /// The peer can't help now and asks to be left alone for so many seconds: its household comes first.
    Withdrawn(u32),
    /// The answer is not from the peer that was asked, or was changed on its way. Whose doing it is can't be known.
    Unauthentic,
    /// The bytes are not those that the peer's digest is of: they were changed on their way from it.
    Corrupt,
    /// A peer's bytes are not those of the own link.
    Mismatch,
    /// The origin serves one lane other bytes than another.
    Inconsistent,
}

impl Fault {
    /// Whether the same request may succeed later in this session.
    pub fn may_pass(self) -> bool {
        match self {
            Fault::Unreachable | Fault::Closed | Fault::Timeout => true,
            Fault::Unauthentic | Fault::Corrupt | Fault::Withdrawn(_) => true,
            Fault::Status(status) => status >= 500 || status == 408 || status == 429,
            _ => false,
        }
    }

    /// Whether the answer broke the protocol, rather than the link or the origin being at fault.
    pub fn is_violation(self) -> bool {
        matches!(self, Fault::Malformed | Fault::WrongRange | Fault::WrongLength | Fault::Encoded)
    }
}

impl core::fmt::Display for Fault {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Fault::Unreachable => f.write_str("unreachable"),
            Fault::Closed => f.write_str("closed"),
            Fault::Timeout => f.write_str("timeout"),
            Fault::Malformed => f.write_str("malformed"),
            Fault::Status(status) => write!(f, "status-{status}"),
            Fault::Changed => f.write_str("changed"),
            Fault::Unproven => f.write_str("unproven"),
            Fault::WrongRange => f.write_str("wrong-range"),
            Fault::WrongLength => f.write_str("wrong-length"),
            Fault::Encoded => f.write_str("encoded"),
            Fault::Declined => f.write_str("declined"),
            Fault::Withdrawn(seconds) => write!(f, "withdrawn for {seconds} s"),
            Fault::Unauthentic => f.write_str("unauthentic"),
            Fault::Corrupt => f.write_str("corrupt"),
            Fault::Mismatch => f.write_str("mismatch"),
            Fault::Inconsistent => f.write_str("inconsistent-origin"),
        }
    }
}

/// What kind of way to the origin a lane is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LaneKind {
    /// The response to the client's own request, from its start to the cut.
    Original,
    /// The own link's second connection, which asks for ranges.
    Own,
    /// A neighbour's link.
    Peer,
}

/// Where a lane stands in its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LaneState {
    /// Not ready yet: a peer has not accepted.
    Joining,
    /// Takes part.
    Up,
    /// Failed; is probed with a duplicate when the time has come.
    Resting {
        /// When to probe.
        until: Instant,
    },
    /// Takes part with one slot at a time until it has delivered one.
    Probing,
    /// Its bytes differ from the own link's, and others are asked who is right; its connections were closed or not yet.
    Accused {
        /// Whether they were.
        closed: bool,
    },
    /// Out of this session for good, by its own fault.
    Left(Fault),
    /// Out of this session because it isn't needed any more.
    Dismissed,
}

/// What a lane's thread waits for, so that others know when to wake it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waiting {
    /// It does not wait.
    No,
    /// For room to read this slot.
    Room(u64),
    /// For something to do.
    Work,
}

/// What a lane did in its session, for reports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LaneStats {
    /// Payload bytes that went into the client's stream.
    pub bytes: u64,
    /// Payload bytes that another lane had brought before.
    pub duplicates: u64,
    /// Requests made.
    pub requests: u32,
    /// Times that it was given up because nothing came.
    pub timeouts: u32,
    /// Other failures of its connection or the origin.
    pub failures: u32,
    /// Times that it withdrew because its household came first: that is no failure.
    pub withdrawals: u32,
    /// The last status with which its origin answered instead of with what was asked for.
    pub refused: Option<u16>,
    /// Answers that broke the protocol.
    pub violations: u32,
    /// Bytes that it fetched only to check others, heads included.
    pub checked: u64,
    /// Places at which it differed from the own link.
    pub mismatches: u32,
    /// What those were found to be.
    pub verdict: Option<Dispute>,
}

/// What a mismatch was found to be (DESIGN section 7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dispute {
    /// Everybody who was asked agrees with the own link.
    Lie,
    /// Somebody who was asked disagrees with the own link, too: the origin is inconsistent, nobody is blamed.
    Origin,
    /// There was nobody to ask, or no answer in time.
    Open,
    /// It differed from a trusted peer that stood in for the own link, and nobody else could say who is right.
    Unsettled,
}

impl core::fmt::Display for Dispute {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Dispute::Lie => "lie",
            Dispute::Origin => "inconsistent origin",
            Dispute::Open => "open",
            Dispute::Unsettled => "unsettled",
        })
    }
}

#[derive(Debug)]
pub(crate) struct Lane<S> {
    pub kind: LaneKind,
    pub state: LaneState,
    pub main: Track<S>,
    pub spare: Track<S>,
    reading: Option<Conn>,
    pub rate: Rate,
    pub rtt: RoundTrip,
    pub hold: u64,
    pub waiting: Waiting,
    pub blocked_since: Option<Instant>,
    /// Since when it is much slower than it was when its chunks were assigned.
    pub slow_since: Option<Instant>,
    pub pause: Span,
    /// How often it was given up for its silence of late.
    silences: u8,
    pub up_since: Instant,
    /// It failed last because its connection ended, and brought nothing since.
    pub was_cut: bool,
    pub stats: LaneStats,
    /// How far it is trusted; the own link is.
    pub standing: Standing,
}

impl<S> Lane<S> {
    const FIRST_PAUSE: Span = Span::from_millis(250);
    const LONGEST_SLOT: Span = Span::from_millis(1_500);
    const LONGEST_PAUSE: Span = Span::from_millis(8_000);
    const LONGEST_PATIENCE: Span = Span::from_millis(2_000);
    /// 250 ms doubled so often are [`Self::LONGEST_PATIENCE`].
    const MOST_SILENCES: u8 = 3;

    pub fn new(now: Instant, kind: LaneKind, rate: u64, rtt: Span, standing: Standing) -> Self {
        Self {
            kind,
            state: if kind == LaneKind::Peer { LaneState::Joining } else { LaneState::Up },
            main: Track::new(now),
            spare: Track::new(now),
            reading: None,
            rate: Rate::new(rate),
            rtt: RoundTrip::new(rtt),
            hold: 0,
            waiting: Waiting::No,
            blocked_since: None,
            slow_since: None,
            pause: Self::FIRST_PAUSE,
            silences: 0,
            up_since: now,
            was_cut: false,
            stats: LaneStats::default(),
            standing,
        }
    }

    /// Whether it may stand in for the own link where others are checked.
    pub fn is_trusted(&self) -> bool {
        self.standing == Standing::Trusted { accused: false }
    }

    pub fn is_up(&self) -> bool {
        matches!(self.state, LaneState::Up | LaneState::Probing)
    }

    pub fn is_accused(&self) -> bool {
        matches!(self.state, LaneState::Accused { .. })
    }

    pub fn is_out(&self) -> bool {
        matches!(self.state, LaneState::Left(_) | LaneState::Dismissed)
    }

    pub fn track(&self, conn: Conn) -> &Track<S> {
        match conn {
            Conn::Main => &self.main,
            Conn::Spare => &self.spare,
        }
    }

    pub fn track_mut(&mut self, conn: Conn) -> &mut Track<S> {
        match conn {
            Conn::Main => &mut self.main,
            Conn::Spare => &mut self.spare,
        }
    }

    /// Turns to the connection that is to be read from now: the one whose next slot is the lower of those that `can_go_on`, so
    /// that the head is never kept waiting by something that lies behind it. How long the other one was silent meanwhile is
    /// not its fault.
    pub fn turn(&mut self, now: Instant, can_go_on: impl Fn(&Track<S>) -> bool) -> Option<Conn> {
        let of = |conn: Conn| {
            let track = self.track(conn);
            Some((!can_go_on(track), track.front_slot()?, conn == Conn::Spare, conn))
        };
        let conn =
            [of(Conn::Main), of(Conn::Spare)].into_iter().flatten().min_by_key(|key| (key.0, key.1, key.2));
        let conn = conn.map(|(.., conn)| conn);
        if conn != self.reading {
            self.reading = conn;
            if let Some(conn) = conn {
                self.track_mut(conn).heard = now;
            }
        }
        conn
    }

    /// The chunk that is due on the connection that is being read from.
    pub fn front(&self) -> Option<&Chunk> {
        self.reading.and_then(|conn| self.track(conn).chunks.front())
    }

    pub fn owed(&self) -> u64 {
        self.main.owed() + self.spare.owed()
    }

    /// What was asked for, on both connections.
    pub fn chunks(&self) -> impl Iterator<Item = &Chunk> {
        self.main.chunks.iter().chain(&self.spare.chunks)
    }

    pub fn pace(&self) -> Pace {
        Pace { rate: self.rate.get(), rtt: self.rtt.get(), owed: self.owed() }
    }

    /// How much it can be asked for at a time while its connection is so young that it is slower than its line: TCP's first
    /// window in the first round trip, and in each further one as much as in all before and that (RFC 6928, RFC 5681
    /// section 3.1). `None` once it is not.
    pub fn opening(&self) -> Option<u64> {
        let window = FIRST_WINDOW.saturating_add(self.main.came);
        (window < bytes_in(self.rtt.get(), self.rate.get())).then_some(window)
    }

    pub fn owes(&self, index: u64) -> bool {
        self.main.bytes_until(index).is_some() || self.spare.bytes_until(index).is_some()
    }

    /// When slot `index` is expected to be here, if it was asked of this lane. What is overdue is expected as much
    /// later as it is overdue already.
    pub fn expects(&self, now: Instant, index: u64) -> Option<Instant> {
        let spare_owed = self.spare.owed();
        let (track, bytes) = match self.spare.bytes_until(index) {
            Some(bytes) => (&self.spare, bytes),
            None => (&self.main, self.main.bytes_until(index)? + spare_owed),
        };
        let from = self.flows_from(track).max(track.heard);
        let due = from + time_for(bytes.max(track.mark), self.rate.get());
        Some(if due < now { now + now.since(due) } else { due })
    }

    /// When the bytes that `track` waits for may begin to flow at the earliest: a round trip after the request, if
    /// the answer's head is still to come.
    pub fn flows_from(&self, track: &Track<S>) -> Instant {
        match track.chunks.front() {
            Some(Chunk { begun: false, asked: Some(asked), .. }) => *asked + self.rtt.get(),
            _ => Instant::default(),
        }
    }

    /// When the lane must be given up if `track` stays silent: max(250 ms, srtt + 4 var, 1.5 slot times), plus one
    /// round trip before the first byte (DESIGN section 5, rule 6). What comes in a slot time is a guess where the rate
    /// is, so it is bounded.
    ///
    /// Where a link loses what it carries, lanes are silent until their senders repeat it, and giving them up each time loses
    /// what is under way and starts anew: so each time the lane is given twice as long (RFC 6298 section 5.5), up to 2 s.
    pub fn deadline(&self, track: &Track<S>) -> Instant {
        let slot = time_for(SLOT_BYTES as u64, self.rate.get()).scale(3, 2).min(Self::LONGEST_SLOT);
        let patience = self.rtt.patience().max(slot);
        let longer = patience.scale(1 << self.silences, 1).min(Self::LONGEST_PATIENCE);
        self.flows_from(track).max(track.heard) + patience.max(longer)
    }

    /// The lane failed at `now`: it rests, each time longer, or leaves if trying again is of no use.
    pub fn fail(&mut self, now: Instant, why: Fault) {
        // A lane that worked for a while starts with a short pause again, and with little patience after a longer one.
        let worked = if self.state == LaneState::Up { now.since(self.up_since) } else { Span::ZERO };
        if worked > Span::from_millis(2_000) {
            self.pause = Self::FIRST_PAUSE;
        }
        if worked > Span::from_millis(10_000) {
            self.silences = 0;
        }
        match why {
            Fault::Timeout => {
                self.stats.timeouts += 1;
                self.silences = (self.silences + 1).min(Self::MOST_SILENCES);
            }
            // Whoever says no does nothing wrong.
            Fault::Declined => {}
            Fault::Withdrawn(_) => {
                self.stats.withdrawals += 1;
                // A body that was cut short was its first word of it (DESIGN section 6).
                self.stats.failures -= u32::from(self.was_cut).min(self.stats.failures);
            }
            _ if why.is_violation() => self.stats.violations += 1,
            _ => self.stats.failures += 1,
        }
        self.was_cut = why == Fault::Closed;
        if let Fault::Status(status) = why {
            self.stats.refused = Some(status);
        }
        self.rest(now);
        if let Fault::Withdrawn(seconds) = why {
            self.pause = Self::FIRST_PAUSE;
            self.state = LaneState::Resting { until: now + Span::from_millis(1000 * u64::from(seconds)) };
        } else if !why.may_pass() {
            self.state = LaneState::Left(why);
        }
    }

    /// The lane gets nothing to do for a while, each time longer.
    pub fn rest(&mut self, now: Instant) {
        self.state = LaneState::Resting { until: now + self.pause };
        self.pause = self.pause.scale(2, 1).min(Self::LONGEST_PAUSE);
        self.rate.restart();
        self.waiting = Waiting::No;
        self.blocked_since = None;
    }
}
