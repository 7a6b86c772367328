//! What a modelled session is asked to do, what happens meanwhile, and what became of it. Not responsible for doing it.

use std::collections::BTreeMap;
use std::ops::Range;

use bamqp_core::hops::{DEFAULT_MAX_HOPS, Promise};
use bamqp_core::rules::Rules;
use bamqp_core::time::{Instant, Span};
use bamqp_core::transfer::{Fault, LaneView, Outcome};
use bamqp_core::trust::Standing;

use super::super::content::Tamper;
use super::super::lines::LineId;
use super::super::reorder::Reorder;

/// What a session is to do.
#[derive(Clone, Debug)]
pub struct Job {
    /// The coordinator's line.
    pub own: LineId,
    /// The peers' lines.
    pub peers: Vec<LineId>,
    /// The file's bytes that the client asked for.
    pub range: Range<u64>,
    /// The window in bytes.
    pub window: usize,
    /// What a peer holds besides the window, in bytes.
    pub hold: u32,
    /// What each connection's socket buffer holds, in bytes.
    pub socket: u32,
    /// How fast the client reads, bytes per second; 0: at once.
    pub client_rate: u64,
    /// How long a peer takes to accept.
    pub accept: Span,
    /// How far the peers are trusted: with that how closely they are checked.
    pub standing: Standing,
    /// The scheduling rules that are kept.
    pub rules: Rules,
    /// From what the coordinator draws the places that it checks.
    pub seed: u64,
    /// Whom each line's router hears, and asks in turn when it is asked; nobody passes work on who is not in here.
    pub hears: BTreeMap<LineId, Vec<LineId>>,
    /// How many routers away from the coordinator work may be done.
    pub max_hops: u8,
    /// What those promise who pass work on.
    pub promise: Promise,
}

impl Job {
    /// A download with what is usual: peers that hold 128 KiB, sockets of 256 KiB, a client that reads at once, peers
    /// that accept within 2 ms and have a clean record.
    pub fn new(own: LineId, peers: Vec<LineId>, range: Range<u64>, window: usize) -> Job {
        Job {
            own,
            peers,
            range,
            window,
            hold: 128 << 10,
            socket: 256 << 10,
            client_rate: 0,
            accept: Span::from_millis(2),
            standing: Standing::Trusted { accused: false },
            rules: Rules::default(),
            seed: 1,
            hears: BTreeMap::new(),
            max_hops: DEFAULT_MAX_HOPS,
            promise: Promise::DEFAULT,
        }
    }
}

/// What became of a session.
#[derive(Clone, Debug)]
pub struct Result {
    /// The coordinator's line.
    pub own: LineId,
    /// How it ended.
    pub outcome: Outcome,
    /// When it began.
    pub began: Instant,
    /// When the client had its last byte.
    pub ended: Instant,
    /// When the client had its first byte.
    pub first_byte: Instant,
    /// What the client had after the first second.
    pub after_a_second: u64,
    /// Bytes that reached the client.
    pub bytes: u64,
    /// The longest time in which the client got nothing, after its first byte.
    pub standstill: Span,
    /// Bytes of buffer in use at most.
    pub window_used: usize,
    /// From the first lane that had nothing more to bring to the last, of those that took part to the end.
    pub tail: Span,
    /// The lanes, in the order of their ids.
    pub lanes: Vec<LaneView>,
    /// The order in which slots arrived.
    pub reorder: Reorder,
    /// Chunks of which the client got altered bytes.
    pub escaped: u64,
    /// Bytes that the client got of another variant than the own link's.
    pub mixed: u64,
    /// What peers had their own peers do.
    pub passed_on: Vec<PassedOn>,
}

/// What a router had its own peers do, until its connection to the one that asked it ended.
#[derive(Clone, Debug)]
pub struct PassedOn {
    /// The router's line.
    pub line: LineId,
    /// Its lanes, in the order of their ids, and their lines.
    pub lanes: Vec<(LineId, LaneView)>,
}

impl Result {
    /// Bytes that were fetched for nothing, over all lines.
    pub fn duplicates(&self) -> u64 {
        let passed_on = self.passed_on.iter().flat_map(|by| by.lanes.iter().map(|(_, lane)| lane));
        self.lanes.iter().chain(passed_on).map(|lane| lane.stats.duplicates).sum()
    }

    /// Bytes of the own link that were fetched only to check peers, of a thousand of the payload.
    pub fn check_cost(&self) -> f64 {
        let checked: u64 = self.lanes.iter().map(|lane| lane.stats.checked).sum();
        checked as f64 * 1_000.0 / self.bytes.max(1) as f64
    }
}

/// Something that happens to a line.
#[derive(Clone, Copy, Debug)]
pub enum Happening {
    /// Another rate, bytes per second; 0: it goes silent.
    Rate(LineId, u64),
    /// It goes down: connections break and none can be made.
    Down(LineId),
    /// It comes back.
    Up(LineId),
    /// Every further request over this line gets an answer that is of no use for this reason.
    Refuse(LineId, Fault),
    /// The origin serves so many connections over one line; requests on further ones are answered with 503.
    Limit(usize),
    /// The file changed at the origin: every further answer says so.
    Change,
    /// The peer with this line looks from now on what its household uses of it.
    Watch(LineId),
    /// The household behind this line downloads from now on.
    Busy(LineId),
    /// It has what it wanted.
    Calm(LineId),
    /// The peer with this line alters what it brings.
    Lie(LineId, Tamper),
    /// The origin serves another variant over this line.
    Variant(LineId, u8),
    /// The origin answers one range at a time only.
    OneRange,
}
