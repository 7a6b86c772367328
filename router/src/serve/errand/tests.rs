//! Errands over real sockets.

use std::net::TcpListener;

use bamqp_core::http::validator::Validator;
use bamqp_core::message::{Fingerprint, SessionId};
use bamqp_core::transfer::{LaneDo, LaneEvent, LaneId, OwnLink};
use bamqp_core::trust::Standing;

use super::*;
use crate::config::Config;
use crate::daemon::Daemon;
use crate::fetch::File;
use crate::keys::KeyPair;
use crate::net::PollFd;
use crate::origin::Addresses;
use crate::serve::tests::{callee, commission, request};
use crate::session;
use crate::trust_store::TrustStore;

fn session(addresses: &[core::net::SocketAddr]) -> Arc<Session> {
    let file = File {
        uri: "http://origin.test/".into(),
        total: 10,
        validator: Validator::entity_tag(b"\"v\"").unwrap(),
        user_agent: None,
        accept: None,
    };
    let addresses = Addresses::from_slice(addresses).unwrap();
    let id = SessionId([1; 16]);
    Arc::new(Session::new(id, callee(1, id), 0, file, addresses, Instant::now()))
}

fn accounts() -> (Arc<Uplink>, Usage) {
    let config = Config { state_dir: "/nonexistent".into(), ..Config::default() };
    let trust = Arc::new(TrustStore::open(&config));
    (Arc::new(Uplink::new(&config).unwrap()), Usage::open(&config, trust))
}

/// What comes of the oldest chunk.
fn outcome(errand: &mut Errand<'_>) -> Step {
    let soon = Instant::now() + Duration::from_secs(10);
    loop {
        match errand.step(Instant::now()) {
            Step::Wait => {}
            other => return other,
        }
        let (socket, flags, _) = errand.wants(true, Instant::now()).unwrap();
        assert!(net::poll(&mut [PollFd::new(&socket, flags)], Some(soon)).unwrap() > 0);
    }
}

#[test]
fn the_next_address_is_tried_and_then_used_by_others() {
    let closed = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let origin = TcpListener::bind("127.0.0.1:0").unwrap();
    let live = Live::default();
    let (uplink, usage) = accounts();
    let way = Way { uplink: &uplink, usage: &usage, from: None, via: "test", live: &live };
    let session = session(&[closed(), closed(), origin.local_addr().unwrap()]);
    let mut errand = Errand::new(session.clone(), way, None);
    errand.ask(0..4, request(1));
    errand.ask(4..10, request(2));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut socket = origin.accept().unwrap().0;
            let head = "HTTP/1.1 206 Partial Content\r\nETag: \"v\"\r\nContent-Length: 4\r\n\
                        Content-Range: bytes 0-3/10\r\n\r\n";
            io::Write::write_all(&mut socket, format!("{head}abcd").as_bytes()).unwrap();
            let _ = io::Read::read(&mut socket, &mut [0; 100]);
        });
        let Step::Begun(begun) = outcome(&mut errand) else { panic!("not fetched") };
        assert_eq!((begun.range, begun.request, begun.previous), (0..4, request(1), None));
        assert!(errand.holds_bytes());
        // printf abcd | openssl dgst -sha256 -binary | base64
        let digest = "sha-256=:iNQmb9TmM40TuEX88olXnSCciXgjuSF9o+Fhk28DFYk=:".parse().unwrap();
        assert_eq!(errand.take_digest(), Some(digest));
    });
    assert_eq!(session.address(), 2);
}

/// Our link brings what is asked for of `session`, a chunk, as its thread would.
fn bring(session: &session::Session, content: &[u8]) {
    let mut event = LaneEvent::Idle;
    loop {
        event = match session.lane(LaneId::OWN, event) {
            LaneDo::Read { conn, mut slot, at, len, .. } => {
                let place = at as usize;
                slot[..len as usize].copy_from_slice(&content[place..place + len as usize]);
                LaneEvent::Filled { conn, slot, at, len, head: None }
            }
            LaneDo::Request { .. } => LaneEvent::Idle,
            _ => return,
        };
    }
}

#[test]
fn what_peers_brought_of_a_promised_chunk_is_given_out_even_if_the_household_wants_its_line() {
    let config = Config {
        listen: vec!["127.0.0.1:0".parse().unwrap()],
        state_dir: "/nonexistent".into(),
        ..Config::default()
    };
    let daemon = Daemon::start(config, KeyPair::from_seed([7; 32])).unwrap();
    let origin = TcpListener::bind("127.0.0.1:0").unwrap();
    let served = session(&[origin.local_addr().unwrap()]);
    let helper = session::Helper {
        peer: 0,
        name: "C".into(),
        key: Fingerprint([3; 16]),
        standing: Standing::Trusted { accused: false },
        rate: 1_000_000,
        rtt: Span::from_millis(10),
    };
    let own = OwnLink { rate: 1_000_000, rtt: Span::from_millis(10), hold: 1 << 20 };
    let work = session::Work::Pieces(commission(1, served.id));
    let pool =
        session::Session::new(served.id, served.file.clone(), work, 1 << 20, own, vec![helper]).unwrap();
    let live = Live::default();
    let (uplink, usage) = accounts();
    let way = Way { uplink: &uplink, usage: &usage, from: None, via: "test", live: &live };
    let delegation = Delegation::of(daemon.shared(), pool.clone());
    let mut errand = Errand::new(served, way, Some(delegation));
    errand.ask(0..10, request(1));
    bring(&pool, b"0123456789");
    assert!(matches!(errand.step(Instant::now()), Step::Begun(_)));
    assert!(!errand.is_busy(), "it has come to its end");
    errand.withdraw(DropReason::Busy);
    assert_eq!(errand.held(), b"0123456789");
    assert_eq!(usage.report().day.0, 10);
    assert!(pool.outcome().is_some(), "our peers are let go");
}

#[test]
fn when_no_address_answers_all_chunks_are_refused() {
    let closed = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let live = Live::default();
    let session = session(&[closed(), closed()]);
    let (uplink, usage) = accounts();
    let way = Way { uplink: &uplink, usage: &usage, from: None, via: "test", live: &live };
    let mut errand = Errand::new(session, way, None);
    errand.ask(0..4, request(1));
    errand.ask(4..10, request(2));
    for place in 1..=2 {
        let Step::Refused(reason, to) = outcome(&mut errand) else { panic!("not refused") };
        assert_eq!((reason, to), (DropReason::OriginUnreachable, request(place)));
    }
    assert!(matches!(errand.step(Instant::now()), Step::Idle));
}
