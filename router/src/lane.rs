//! One lane's thread: does what the core says on the lane's connections and reports what came of it. Not responsible
//! for deciding anything; see [`bamqp_core::transfer`] for the contract.

use std::sync::Arc;

use bamqp_core::hops::AFTER_OTHERS;
use bamqp_core::limits::SLOT_BYTES;
use bamqp_core::time::Instant;
use bamqp_core::transfer::{Conn, Fault, LaneDo, LaneEvent, LaneId, LaneKind};

use crate::clock;
use crate::daemon::Shared;
use crate::fetch::{Call, Fetcher, Progress, Samples, Source};
use crate::live::Live;
use crate::net::{self, PollFd, PollFlags};
use crate::session::{Session, Slot};

/// How the lane reaches the origin.
pub enum Link {
    /// The connection on which the original response goes on.
    Original(Box<Fetcher>),
    /// Connections of our own.
    Own(Source),
    /// A peer, by its place in the configuration.
    Peer(usize),
}

/// A lane's thread.
pub struct Lane {
    shared: Arc<Shared>,
    session: Arc<Session>,
    id: LaneId,
    link: Link,
    connections: [Option<Box<Fetcher>>; 2],
    /// Places of an answer that is not all here yet.
    samples: Samples,
    /// The channel to a peer that has accepted, so that it is to be told when the session is over.
    call: Option<Arc<Call>>,
}

impl Lane {
    /// For lane `id` of `session`.
    pub fn new(shared: Arc<Shared>, session: Arc<Session>, id: LaneId, link: Link) -> Self {
        let (link, original) = match link {
            Link::Original(fetcher) => (Link::Own(fetcher.source().clone()), Some(fetcher)),
            other => (other, None),
        };
        Self { shared, session, id, link, connections: [original, None], samples: Samples::new(), call: None }
    }

    /// Works until the session is over or the lane is out of it.
    pub fn run(mut self) {
        let event = match self.link {
            Link::Peer(peer) => {
                if self.session.commission.is_some() {
                    let until = clock::now() + AFTER_OTHERS;
                    while clock::now() < until && self.session.outcome().is_none() {
                        self.wait(None, Some(until));
                    }
                }
                // Whoever asks us and goes away at once gets nobody else asked.
                if self.session.outcome().is_none() { self.join(peer) } else { LaneEvent::Idle }
            }
            _ => LaneEvent::Idle,
        };
        let mut todo = self.tell(event);
        loop {
            let event = match todo {
                LaneDo::Request { conn, range } => self.request(conn, |main, live| main.ask(range, live)),
                LaneDo::Sample { conn, places } => {
                    self.request(conn, |main, live| main.ask_places(places, live))
                }
                LaneDo::Read { conn, slot, at, len, mark, by } => self.read(conn, slot, at, len, mark, by),
                LaneDo::ReadSample { conn, by } => {
                    let mut samples = core::mem::take(&mut self.samples);
                    let event = self.read_samples(conn, by, &mut samples);
                    let goes_on = matches!(event, LaneEvent::Idle);
                    todo = self.tell(event);
                    if goes_on && !matches!(todo, LaneDo::Close) {
                        self.samples = samples;
                    }
                    continue;
                }
                LaneDo::Wait(until) => {
                    self.wait(None, until);
                    LaneEvent::Idle
                }
                LaneDo::Close => {
                    log::info!("session {}: lane {} is given up for now", self.session.id, self.name());
                    self.close();
                    LaneEvent::Idle
                }
                LaneDo::End => break,
            };
            todo = self.tell(event);
        }
        self.leave();
    }

    fn tell(&mut self, event: LaneEvent<'_, Slot>) -> LaneDo<Slot> {
        if let LaneEvent::Failed { why, .. } = &event {
            log::info!("session {}: lane {} failed: {why}", self.session.id, self.name());
            if let (Fault::Withdrawn(seconds), Link::Peer(peer)) = (why, &self.link) {
                self.shared.peers.leave_alone(*peer, *seconds);
            }
            self.close();
        }
        self.session.lane(self.id, event)
    }

    fn name(&self) -> &str {
        self.session.lane_name(self.id)
    }

    fn close(&mut self) {
        self.connections = [None, None];
        self.samples.clear();
    }

    /// Asks the peer to take part.
    fn join(&mut self, peer: usize) -> LaneEvent<'static, Slot> {
        match self.shared.peers.join(peer, &self.session, &self.shared.live) {
            Ok(joined) => {
                self.call = Some(joined.call.clone());
                let (session, address, from) = (self.session.id, joined.address, joined.from);
                let source = Source::Peer { session, address, from, call: joined.call };
                let file = self.session.file.clone();
                let fetcher = Fetcher::joined(file, source, joined.socket, joined.link);
                self.connections[0] = Some(Box::new(fetcher));
                // It may promise more than it has shown: its peers' links, which may not be to be had.
                let (promised, key) = (joined.bandwidth / 8, self.shared.peers.key(peer));
                let shown = key.and_then(|key| self.shared.trust.prospect(key).rate);
                let rate = shown.map_or(promised, |shown| shown.min(promised));
                LaneEvent::Ready { rate, hold: joined.hold }
            }
            Err(why) => LaneEvent::Failed { slot: None, why },
        }
    }

    fn request(
        &mut self,
        conn: Conn,
        ask: impl FnOnce(&mut Fetcher, &Live) -> Result<(), Fault>,
    ) -> LaneEvent<'static, Slot> {
        if let (Link::Peer(peer), Conn::Main, None) = (&self.link, conn, &self.connections[0]) {
            // The connection was lost, and the session perhaps with it.
            match self.join(*peer) {
                LaneEvent::Ready { .. } => {}
                failed => return failed,
            }
        }
        let place = place(conn);
        if self.connections[place].is_none() {
            let source = match &self.link {
                Link::Own(source) => source.clone(),
                Link::Original(_) | Link::Peer(_) => match &self.connections[0] {
                    Some(main) => main.source().clone(),
                    None => return LaneEvent::Failed { slot: None, why: Fault::Closed },
                },
            };
            self.connections[place] = Some(Box::new(Fetcher::new(self.session.file.clone(), source, None)));
        }
        match self.connections[place].as_mut().map(|fetcher| ask(fetcher, &self.shared.live)) {
            Some(Ok(())) => LaneEvent::Idle,
            Some(Err(why)) => LaneEvent::Failed { slot: None, why },
            None => LaneEvent::Failed { slot: None, why: Fault::Closed },
        }
    }

    fn read(
        &mut self,
        conn: Conn,
        mut slot: Slot,
        at: u64,
        len: u32,
        mark: u32,
        by: Instant,
    ) -> LaneEvent<'static, Slot> {
        let start = (at % SLOT_BYTES as u64) as usize;
        let mut got = 0u32;
        let mut head = None;
        let place = place(conn);
        loop {
            let Some(fetcher) = self.connections[place].as_mut() else {
                return LaneEvent::Failed { slot: Some(slot), why: Fault::Closed };
            };
            let room = slot.get_mut(start + got as usize..start + len as usize).unwrap_or_default();
            // For another router: the household's part of the line comes first.
            let uplink = fetcher.source().uplink().cloned();
            let most = match uplink.as_ref().map_or(Ok(room.len()), |uplink| uplink.ask(room.len())) {
                Ok(most) => most,
                Err(until) => {
                    let until = clock::of_std(until).min(by);
                    if clock::now() >= by || self.wait(None, Some(until)) {
                        return LaneEvent::Filled { conn, slot, at, len: got, head };
                    }
                    continue;
                }
            };
            let room = room.get_mut(..most).unwrap_or_default();
            let progress = fetcher.read(room, &self.shared.live);
            if let (Some(uplink), Ok(Progress::Bytes(bytes))) = (&uplink, &progress) {
                uplink.spend(*bytes);
            }
            head = head.or(fetcher.take_head_times());
            self.session.count_copied(self.id, fetcher.most_copied());
            match progress {
                Ok(Progress::Bytes(bytes)) => got += bytes as u32,
                Ok(Progress::Blocked) if clock::now() < by => {
                    // A mark within the slot is for the slot, a larger one for all that comes on the connection.
                    fetcher.set_mark(if mark <= len { mark.min(len - got) } else { mark });
                    if self.wait(Some(place), Some(by)) {
                        return LaneEvent::Filled { conn, slot, at, len: got, head };
                    }
                }
                Ok(Progress::Blocked) => return LaneEvent::Filled { conn, slot, at, len: got, head },
                Ok(Progress::Idle) => return LaneEvent::Failed { slot: Some(slot), why: Fault::Closed },
                Err(why) => return LaneEvent::Failed { slot: Some(slot), why },
            }
            if got == len {
                return LaneEvent::Filled { conn, slot, at, len, head };
            }
        }
    }

    /// Reads on in an answer with places until all of it is there, the lane is woken, or then.
    fn read_samples<'a>(&mut self, conn: Conn, by: Instant, samples: &'a mut Samples) -> LaneEvent<'a, Slot> {
        let place = place(conn);
        loop {
            let Some(fetcher) = self.connections[place].as_mut() else {
                return LaneEvent::Failed { slot: None, why: Fault::Closed };
            };
            match fetcher.read_samples(samples, &self.shared.live) {
                Ok(None) => {
                    let (head, wire) = (fetcher.take_head_times(), fetcher.sample_wire());
                    // They are few, and others wait for them: not held up, but paid for.
                    if let Some(uplink) = fetcher.source().uplink() {
                        uplink.spend(wire as usize);
                    }
                    return LaneEvent::Sampled { conn, samples, wire, head };
                }
                Ok(Some(_)) => {
                    if clock::now() >= by || self.wait(Some(place), Some(by)) {
                        return LaneEvent::Idle;
                    }
                }
                Err(why) => return LaneEvent::Failed { slot: None, why },
            }
        }
    }

    /// Waits for a connection, to be woken, or until then; whether it was woken.
    fn wait(&self, place: Option<usize>, until: Option<Instant>) -> bool {
        let Some(waker) = self.session.lane_waker(self.id) else { return true };
        let until = until.map(clock::to_std);
        let connection = place.and_then(|place| self.connections.get(place)?.as_ref()?.wants());
        let woken = match connection {
            Some((socket, flags)) => {
                let mut fds = [PollFd::new(waker, PollFlags::IN), PollFd::new(socket, flags)];
                // An error means that the system has no memory: the caller tries again.
                let _ = net::poll(&mut fds, until);
                !fds[0].revents().is_empty()
            }
            None => {
                let mut fds = [PollFd::new(waker, PollFlags::IN)];
                let _ = net::poll(&mut fds, until);
                !fds[0].revents().is_empty()
            }
        };
        if woken {
            waker.drain();
        }
        woken
    }

    /// The lane is done: what it measured is remembered, and a peer is told.
    fn leave(mut self) {
        let Link::Peer(peer) = self.link else {
            if self.id == LaneId::ORIGINAL
                && let Some((socket, _)) = self.connections[0].as_ref().and_then(|original| original.wants())
            {
                // The proxy holds it as well: what the origin still sends must not fill the link.
                let _ = socket.shutdown(std::net::Shutdown::Both);
            }
            if let Some(rate) = self.session.measured_rate(LaneKind::Own, "own") {
                self.shared.own_link.record(rate);
            }
            return;
        };
        let socket = self.connections[0].take().and_then(|main| main.into_clean_socket());
        self.close();
        if let Some(call) = &self.call {
            self.shared.peers.leave(peer, &self.session, call, socket, &self.shared.live);
        }
    }
}

fn place(conn: Conn) -> usize {
    match conn {
        Conn::Main => 0,
        Conn::Spare => 1,
    }
}
