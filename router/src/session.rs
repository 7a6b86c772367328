//! One pooled download as its threads share it: the core's state machine behind its lock, and the means to wake each
//! other. Not responsible for sockets; no thread touches one while it holds the lock (DESIGN section 4).

use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use bamqp_core::lesson::Lesson;
use bamqp_core::message::{Fingerprint, SessionId};
use bamqp_core::time::Span;
use bamqp_core::transfer::{
    ClientDo, ClientEvent, Dispute, LaneDo, LaneEvent, LaneId, LaneKind, LaneState, Outcome, OwnLink,
    Transfer, Wake,
};
use bamqp_core::trust::{Conduct, Standing, Violation};

use crate::clock;
use crate::commission::Commission;
use crate::fetch::File;
use crate::net::Waker;
use crate::status::{LaneReport, SessionReport};
use crate::window;
pub use crate::window::Slot;

/// How many positions a session remembers ahead of the client: 16 MiB, the largest window (`config::WINDOW_RANGE`) and what
/// peers hold together.
pub const SLOTS: usize = 1024;

/// A peer that is asked to take part.
#[derive(Clone, Debug)]
pub struct Helper {
    /// Its place in the configuration.
    pub peer: usize,
    /// Its name.
    pub name: String,
    /// Its key.
    pub key: Fingerprint,
    /// How far it is trusted, and with that how closely it is checked.
    pub standing: Standing,
    /// What it is expected to bring, in bytes per second.
    pub rate: u64,
    /// Its expected round trip to the origin and back.
    pub rtt: Span,
}

/// What a session brings.
#[derive(Debug)]
pub enum Work {
    /// For a client: the rest of a response, these bytes of the file.
    Response(core::ops::Range<u64>),
    /// For another router: what it asks for, piece by piece ([`Session::add_piece`]).
    Pieces(Commission),
}

/// One pooled download.
#[derive(Debug)]
pub struct Session {
    /// Its public id.
    pub id: SessionId,
    /// What is fetched.
    pub file: Arc<File>,
    /// The file's bytes that the lanes bring.
    pub range: core::ops::Range<u64>,
    /// Of whose download it is a part, if it is not a client of ours that waits for it.
    pub commission: Option<Commission>,
    /// The peers, in the order of their lanes.
    pub helpers: Vec<Helper>,
    transfer: Mutex<Transfer<Slot, SLOTS>>,
    /// Who took part, each with the head of its ledger that the INIT to it countersigned.
    joined: Mutex<Vec<(Fingerprint, [u8; 32])>>,
    lanes: Vec<LaneSide>,
    client: Waker,
    /// Goes with it.
    presence: Arc<()>,
}

/// What a lane's thread shares with others besides the state machine.
#[derive(Debug)]
struct LaneSide {
    waker: Waker,
    /// See [`LaneReport::copied`].
    copied: AtomicU32,
}

/// Stack for making a session: the state machine is some 120 KiB and is moved into its place, unoptimised in many steps.
const MAKING_STACK: usize = if cfg!(debug_assertions) { 8 * 1024 * 1024 } else { 2 * 1024 * 1024 };

impl Session {
    /// A session that brings `work` of `file` with a window of `window_bytes` bytes.
    ///
    /// # Errors
    /// If the process lacks descriptors or threads, or the window is too small.
    pub fn new(
        id: SessionId,
        file: Arc<File>,
        work: Work,
        window_bytes: usize,
        own: OwnLink,
        mut helpers: Vec<Helper>,
    ) -> io::Result<Arc<Session>> {
        let mut secret = [0; 32];
        getrandom::fill(&mut secret).map_err(|_| io::Error::other("no randomness"))?;
        let make = || {
            let now = clock::now();
            let buffers = window::slots(window_bytes);
            let (range, commission, transfer) = match work {
                Work::Response(range) => {
                    let transfer = Transfer::new(now, range.clone(), buffers, own, secret);
                    (range, None, transfer)
                }
                Work::Pieces(commission) => {
                    let transfer = Transfer::in_pieces(now, buffers, own, secret);
                    (0..file.total, Some(commission), transfer)
                }
            };
            let mut transfer = transfer.ok_or(io::ErrorKind::InvalidInput)?;
            helpers.retain(|h| transfer.add_peer(now, h.rate, h.rtt, h.standing).is_some());
            let side = |_| Ok(LaneSide { waker: Waker::new()?, copied: AtomicU32::new(0) });
            let lanes = (0..helpers.len() + 2).map(side).collect::<io::Result<_>>()?;
            let client = Waker::new()?;
            Ok(Arc::new(Session {
                id,
                file,
                range,
                commission,
                helpers,
                transfer: Mutex::new(transfer),
                joined: Mutex::default(),
                lanes,
                client,
                presence: Arc::default(),
            }))
        };
        // The threads that serve clients have small stacks, and keep what they touched.
        std::thread::scope(|scope| {
            let maker = std::thread::Builder::new().name("session".into()).stack_size(MAKING_STACK);
            maker.spawn_scoped(scope, make)?.join().unwrap_or_else(|_| Err(io::ErrorKind::OutOfMemory.into()))
        })
    }

    /// Tells the core what happened to a lane; what that lane does next.
    pub fn lane(&self, id: LaneId, event: LaneEvent<'_, Slot>) -> LaneDo<Slot> {
        let (what, wake) = self.lock().lane(clock::now(), id, event);
        self.wake(wake);
        what
    }

    /// Tells the core what happened to the client; what its thread does next.
    pub fn client(&self, event: ClientEvent<Slot>) -> ClientDo<Slot> {
        let (what, wake) = self.lock().client(clock::now(), event);
        self.wake(wake);
        what
    }

    /// Whether a peer takes part, or may yet.
    pub fn has_help(&self) -> bool {
        let transfer = self.lock();
        let mut peers = transfer.report().filter(|lane| lane.kind == LaneKind::Peer);
        let is_out = |state| matches!(state, LaneState::Left(_) | LaneState::Dismissed);
        transfer.outcome().is_none() && peers.any(|lane| !is_out(lane.state))
    }

    /// Bytes that our own link has brought, those included that were fetched in vain or to check others.
    pub fn own_bytes(&self) -> u64 {
        let transfer = self.lock();
        let own = transfer.report().filter(|lane| lane.kind != LaneKind::Peer);
        own.map(|lane| lane.stats.bytes + lane.stats.duplicates + lane.stats.checked).sum()
    }

    /// Another router wants these bytes of the file next. False if it has asked for too much at a time.
    pub fn add_piece(&self, file: core::ops::Range<u64>) -> bool {
        let wake = self.lock().add_piece(clock::now(), file);
        if let Some(wake) = wake {
            self.wake(wake);
        }
        wake.is_some()
    }

    /// Tells whether it is still there, without keeping its memory as a [`std::sync::Weak`] of the session would.
    pub fn presence(&self) -> Weak<()> {
        Arc::downgrade(&self.presence)
    }

    /// A peer takes part; its last INIT countersigned this head of its ledger.
    pub fn add_joined(&self, peer: Fingerprint, head: [u8; 32]) {
        let mut joined = self.joined.lock().unwrap_or_else(PoisonError::into_inner);
        joined.retain(|(other, _)| *other != peer);
        joined.push((peer, head));
    }

    /// Who took part, each with the head of its ledger that our last INIT to it countersigned.
    pub fn joined(&self) -> Vec<(Fingerprint, [u8; 32])> {
        self.joined.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What wakes a lane's thread.
    pub fn lane_waker(&self, id: LaneId) -> Option<&Waker> {
        self.lanes.get(id.index()).map(|lane| &lane.waker)
    }

    /// What wakes the client's thread.
    pub fn client_waker(&self) -> &Waker {
        &self.client
    }

    /// So many payload bytes of one answer on a lane were copied in user space.
    pub fn count_copied(&self, id: LaneId, bytes: u32) {
        if let Some(lane) = self.lanes.get(id.index()) {
            lane.copied.fetch_max(bytes, Ordering::Relaxed);
        }
    }

    /// How it ended, if it has.
    pub fn outcome(&self) -> Option<Outcome> {
        self.lock().outcome()
    }

    /// The name of a lane.
    pub fn lane_name(&self, id: LaneId) -> &str {
        match id.index() {
            0 => "original",
            1 => "own",
            index => self.helpers.get(index - 2).map_or("?", |helper| &helper.name),
        }
    }

    /// The last estimate of a lane's rate in bytes per second, once it brought something.
    pub fn measured_rate(&self, kind: LaneKind, name: &str) -> Option<u64> {
        let transfer = self.lock();
        let mut lanes = transfer.report().enumerate();
        lanes.find_map(|(i, lane)| {
            let found = lane.kind == kind && self.lane_name(LaneId::from_index(i)) == name;
            (found && lane.is_measured).then_some(lane.pace.rate)
        })
    }

    /// Everything about it, for people.
    pub fn report(&self) -> SessionReport {
        let transfer = self.lock();
        let lane = |(i, lane): (usize, bamqp_core::transfer::LaneView)| LaneReport {
            name: self.lane_name(LaneId::from_index(i)).into(),
            bytes: lane.stats.bytes,
            requests: lane.stats.requests,
            timeouts: lane.stats.timeouts,
            failures: lane.stats.failures,
            withdrawals: lane.stats.withdrawals,
            violations: lane.stats.violations,
            duplicates: lane.stats.duplicates,
            checked: lane.stats.checked,
            mismatches: lane.stats.mismatches,
            verdict: lane.stats.verdict.map(|verdict| verdict.to_string()),
            copied: self.lanes.get(i).map_or(0, |lane| lane.copied.load(Ordering::Relaxed)),
            rate: lane.pace.rate,
            rtt_us: lane.pace.rtt.as_micros(),
            state: match lane.state {
                LaneState::Joining => "joining".into(),
                LaneState::Up => "up".into(),
                LaneState::Probing => "probing".into(),
                LaneState::Resting { .. } => "resting".into(),
                LaneState::Accused { .. } => "accused".into(),
                LaneState::Dismissed => "done".into(),
                LaneState::Left(why) => format!("left: {why}"),
            },
        };
        SessionReport {
            id: self.id,
            target: self.file.uri.clone(),
            coordinator: self.commission.as_ref().map(|commission| commission.coordinator),
            range: self.range.clone(),
            total: self.file.total,
            delivered: transfer.delivered() - self.range.start,
            window_used: transfer.window_used() as u32,
            outcome: transfer.outcome().map(|outcome| match outcome {
                Outcome::Complete => "complete".into(),
                Outcome::ClientGone => "client gone".into(),
                Outcome::NoLaneLeft(why) => format!("no lane left: {why}"),
                Outcome::Unverified => "nobody left to check what peers bring".into(),
            }),
            lanes: transfer.report().enumerate().map(lane).collect(),
        }
    }

    /// What each peer did, for its trust record.
    pub fn conducts(&self) -> Vec<(Fingerprint, Conduct, Option<u64>)> {
        let transfer = self.lock();
        let origin = self.file.origin_number();
        let conduct = |(helper, lane): (&Helper, bamqp_core::transfer::LaneView)| {
            let conduct = Conduct {
                requests: lane.stats.requests,
                timeouts: lane.stats.timeouts,
                drops: lane.stats.failures,
                withdrawals: lane.stats.withdrawals,
                bytes: lane.stats.bytes,
                violation: match lane.stats.verdict {
                    Some(Dispute::Lie) => Some(Violation::Lie),
                    _ => (lane.stats.violations > 0).then_some(Violation::Protocol),
                },
                mismatch: (lane.stats.verdict == Some(Dispute::Open)).then_some(origin),
            };
            (helper.key, conduct, lane.is_measured.then_some(lane.pace.rate))
        };
        self.helpers.iter().zip(transfer.report().skip(2)).map(conduct).collect()
    }

    /// What it taught about its origin.
    pub fn lesson(&self) -> Option<Lesson> {
        let transfer = self.lock();
        Lesson::of(transfer.report().map(|lane| (lane.kind, lane.stats)))
    }

    fn wake(&self, wake: Wake) {
        if wake.is_empty() {
            return;
        }
        for (i, lane) in self.lanes.iter().enumerate() {
            if wake.lane(i) {
                lane.waker.poke();
            }
        }
        if wake.client() {
            self.client.poke();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Transfer<Slot, SLOTS>> {
        // The core does not panic; if it did, its invariants are the caller's only hope anyway.
        self.transfer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
