//! What a coordinator can do to a router whose own peers help with what it asks for.

use std::net::TcpListener;
use std::sync::atomic::Ordering;

use bamqp_core::message::reason::{DeclineReason, DropReason};
use bamqp_router::config::{Config, Peer};
use bamqp_router::daemon::Daemon;
use bamqp_router::keys::KeyPair;
use bamqp_router::status::SessionReport;

use super::TOTAL;
use super::bed::{A, B, Bed, Callers, Line, SEED, eventually, id, seed_of};
use super::origin::{Origin, Reply, bytes};

/// Most pooled downloads of the router in the middle.
const SESSIONS: u16 = 3;

/// Router B, which A asks, and its peer C, which is a bed.
struct Chain {
    origin: Origin,
    c: Bed,
    b: Daemon,
    callers: Callers,
}

impl Chain {
    fn start() -> Chain {
        let origin = Origin::start(TOTAL, |_, _| Reply::Range);
        let c = Bed::start(&[origin.address.port()]);
        // Nobody listens there: A asks, and is not asked.
        let gone = TcpListener::bind((A, 0)).unwrap().local_addr().unwrap();
        let peer = |name: &str, address, seed| Peer {
            name: name.into(),
            address,
            public_key: *KeyPair::from_seed(seed).public(),
        };
        let config = Config {
            peer_listen: Some(format!("{B}:0").parse().unwrap()),
            discover: false,
            allow_private: vec!["127.0.20.0/24".parse().unwrap()],
            fetch_ports: vec![origin.address.port()],
            max_sessions: Some(SESSIONS),
            max_peer_sessions: Some(8),
            bandwidth: 20_000_000,
            state_dir: "/nonexistent".into(),
            log_dir: super::bed::log_dir(),
            peers: vec![peer("a", gone, seed_of(A)), peer("c", c.address, SEED)],
            ..Config::default()
        };
        let b = Daemon::start(config, KeyPair::from_seed(seed_of(B))).unwrap();
        let chain = Chain { origin, c, b, callers: Callers::default() };
        eventually("C is there", || chain.b.shared().peers.usable() == 1);
        chain
    }

    fn connect(&self) -> Line {
        Line::to(self.b.peer_address().unwrap(), seed_of(B), A, self.callers.clone())
    }

    /// What B's peers help with now.
    fn helped(&self) -> Vec<SessionReport> {
        let sessions = self.b.sessions().into_iter();
        sessions.filter(|one| one.coordinator.is_some() && one.outcome.is_none()).collect()
    }
}

#[test]
fn ranges_of_all_kinds_come_as_they_were_asked_for() {
    let chain = Chain::start();
    let mut line = chain.connect();
    line.init(id(1), &chain.origin.uri(), TOTAL).unwrap();
    assert_eq!(chain.helped().len(), 1);
    // One byte each, backwards, more than may be due at a time.
    let single = (0..20u64).rev().map(|place| TOTAL - 1 - place * 16_385).map(|at| at..at + 1);
    let large = [0..300_000, 100_000..1_000_000, 5..16, 16_383..16_385, 0..TOTAL, TOTAL - 1..TOTAL];
    let ranges: Vec<_> = single.chain(large).collect();
    for range in &ranges {
        line.ask(id(1), range.clone());
    }
    for range in &ranges {
        assert!(line.chunk(range.clone(), TOTAL).unwrap() == bytes(range.clone()), "{range:?}");
    }
    line.ask(id(1), TOTAL - 1..TOTAL + 1);
    assert_eq!(line.chunk(0..1, TOTAL), Err(DropReason::BadRange));
    let mut served: u64 = ranges.iter().map(|range| range.end - range.start).sum();
    eventually("C does not help", || {
        line.ask(id(1), 0..TOTAL);
        assert!(line.chunk(0..TOTAL, TOTAL).unwrap() == bytes(0..TOTAL));
        served += TOTAL;
        let [passed] = &chain.helped()[..] else { panic!("one session") };
        passed.lanes.iter().any(|lane| lane.name == "c" && lane.bytes > 0)
    });
    assert_eq!(line.end(id(1)).unwrap().bytes, served);
    assert!(chain.helped().is_empty());
}

#[test]
fn who_begins_again_and_again_or_goes_away_holds_no_place_of_the_household() {
    let chain = Chain::start();
    let has_room = || chain.b.shared().sessions.has_room(SESSIONS.into());
    let mut line = chain.connect();
    // One connection has one session, however often it begins another one.
    for number in 1..=6 {
        let uri = format!("{}?{number}", chain.origin.uri());
        line.init(id(number), &uri, TOTAL).unwrap();
        assert!(chain.helped().len() <= 1 && has_room());
    }
    // Several connections together leave one place free. Their own file comes all the same.
    let mut lines: Vec<Line> = (0..4).map(|_| chain.connect()).collect();
    for (number, line) in (10..).zip(&mut lines) {
        line.init(id(number), &chain.origin.uri(), TOTAL).unwrap();
        line.ask(id(number), 0..TOTAL);
        assert!(chain.helped().len() < SESSIONS.into() && has_room());
    }
    for line in &mut lines {
        assert_eq!(line.answer().unwrap().status(), 206);
        assert!(line.body(TOTAL / 2) == bytes(0..TOTAL / 2));
    }
    // In the middle of a chunk they go.
    drop((line, lines));
    eventually("help goes on", || chain.helped().is_empty());
    eventually("C is not told", || chain.c.serve.report().sessions == 0);
    assert_eq!(chain.b.shared().serve.report().declined(DeclineReason::Busy), 0);
    assert!(chain.c.connections.load(Ordering::SeqCst) > 0);
}
