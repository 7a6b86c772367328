//! How a coordinator keeps its peers in view, over real sockets on loopback.

#[allow(dead_code)]
#[path = "serve/bed.rs"]
mod bed;

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bamqp_core::http::validator::Validator;
use bamqp_core::select::{Download, Skipped, Verdict};
use bamqp_core::time::Span;
use bamqp_core::transfer::{Fault, OwnLink};
use bamqp_core::trust::{Conduct, Violation};
use bamqp_router::config::{Config, Peer};
use bamqp_router::fetch::File;
use bamqp_router::keyring::Keyring;
use bamqp_router::keys::{KeyPair, fingerprint_of};
use bamqp_router::live::Live;
use bamqp_router::peers::{PeerState, Peers, Trouble};
use bamqp_router::serve::HOLD_BYTES;
use bamqp_router::session::{Helper, Session, Work};
use bamqp_router::trust_store::TrustStore;

use bed::{A, Bed, SEED, eventually, id, seed_of};

/// A coordinator at [`A`] with one peer, and its keeper.
struct Coordinator {
    peers: Arc<Peers>,
    trust: Arc<TrustStore>,
    live: Arc<Live>,
    keeper: Option<JoinHandle<()>>,
}

impl Coordinator {
    fn of(address: SocketAddr, seed: [u8; 32]) -> Coordinator {
        let public_key = *KeyPair::from_seed(seed).public();
        let config = Config {
            peer_listen: Some(SocketAddr::new(A.parse().unwrap(), 7733)),
            peers: vec![Peer { name: "b".into(), address, public_key }],
            state_dir: "/nonexistent".into(),
            ..Config::default()
        };
        let keyring = Arc::new(Keyring::new(&KeyPair::from_seed(seed_of(A)), &config.peers).unwrap());
        let trust = Arc::new(TrustStore::open(&config));
        let peers = Arc::new(Peers::new(&config, keyring, trust.clone()).unwrap());
        let live = Arc::new(Live::default());
        let (kept, its_live) = (peers.clone(), live.clone());
        let keeper = std::thread::spawn(move || kept.keep(0, &its_live));
        Coordinator { peers, trust, live, keeper: Some(keeper) }
    }

    fn state(&self) -> PeerState {
        self.peers.views().remove(0).state
    }

    fn select(&self) -> Vec<Helper> {
        let download = Download { own_rate: 0, rest: 1 << 30, draw: 0 };
        self.peers.select(id(1), &download, 1000, Span::ZERO)
    }

    fn is_up(&self) -> bool {
        matches!(self.state(), PeerState::Up { .. })
    }

    /// Why the peer is down.
    fn trouble(&self) -> Option<Arc<Trouble>> {
        match self.state() {
            PeerState::Down(why) => Some(why),
            PeerState::Up { .. } => None,
        }
    }
}

impl Drop for Coordinator {
    fn drop(&mut self) {
        self.peers.stop();
        self.live.stop();
        self.keeper.take().unwrap().join().unwrap();
    }
}

/// A session for a file of 1 MB there.
fn session(number: u8, uri: &str) -> Arc<Session> {
    let file = File {
        uri: uri.into(),
        total: 1_000_000,
        validator: Validator::entity_tag(b"\"v\"").unwrap(),
        user_agent: None,
        accept: None,
    };
    let own = OwnLink { rate: 1_000_000, rtt: Span::from_millis(10), hold: 65_536 };
    Session::new(id(number), Arc::new(file), Work::Response(0..1_000_000), 1 << 20, own, Vec::new()).unwrap()
}

const URI: &str = "http://127.0.20.1:80/file";

#[test]
fn a_peer_that_goes_and_comes_back_is_seen_to() {
    let bed = Bed::start(&[80]);
    let address = bed.address;
    let coordinator = Coordinator::of(address, SEED);
    eventually("it is not seen", || coordinator.is_up());
    let PeerState::Up { details, .. } = coordinator.state() else { unreachable!() };
    assert_eq!(details.unwrap().bandwidth, 20_000_000, "known by the address that peer_listen has");
    assert_eq!(coordinator.peers.usable(), 1);
    drop(bed);
    eventually("it is not missed", || !coordinator.is_up());
    assert_eq!(coordinator.peers.usable(), 0);
    let _bed = Bed::at(address, &[80], |_| {});
    eventually("it is not found again", || coordinator.is_up());
    assert_eq!(coordinator.select().len(), 1);
}

#[test]
fn a_router_with_another_key_is_not_used() {
    let bed = Bed::start(&[80]);
    let coordinator = Coordinator::of(bed.address, [8; 32]);
    eventually("nothing was found out", || {
        coordinator.trouble().is_some_and(|why| matches!(*why, Trouble::WrongKey(key) if key == bed.key))
    });
    assert_eq!(coordinator.peers.usable(), 0);
    assert!(coordinator.select().is_empty());
}

#[test]
fn the_parked_connection_serves_a_session_and_comes_back() {
    let bed = Bed::start(&[80]);
    let coordinator = Coordinator::of(bed.address, SEED);
    eventually("it is not seen", || coordinator.is_up());
    for number in 1..4 {
        let session = session(number, URI);
        let joined = coordinator.peers.join(0, &session, &coordinator.live).unwrap();
        assert_eq!((joined.bandwidth, joined.hold), (20_000_000, HOLD_BYTES));
        assert_eq!(bed.serve.report().sessions, 1);
        let clean = Some((joined.socket, Some(joined.link)));
        coordinator.peers.leave(0, &session, &joined.call, clean, &coordinator.live);
        let conduct = Conduct { requests: 9, bytes: 1, ..Conduct::default() };
        coordinator.trust.add(fingerprint_of(KeyPair::from_seed(SEED).public()), &conduct, Some(777_000));
        assert_eq!(bed.serve.report().sessions, 0, "it was told that the session is over");
        assert_eq!(coordinator.peers.views()[0].rate, Some(777_000));
    }
    let helper = coordinator.select().remove(0);
    assert_eq!((helper.peer, helper.name.as_str(), helper.rate), (0, "b", 777_000));
}

#[test]
fn a_connection_that_a_session_has_taken_is_its_own() {
    let bed = Bed::start(&[80]);
    let coordinator = Coordinator::of(bed.address, SEED);
    eventually("it is not seen", || coordinator.is_up());
    std::thread::sleep(Duration::from_millis(50)); // the keeper watches it by now
    let joined = coordinator.peers.join(0, &session(1, URI), &coordinator.live).unwrap();
    // The keeper took the answer for no sign that the peer had gone, and dialled no other connection.
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(bed.connections.load(Ordering::SeqCst), 1);
    let socket = Arc::downgrade(&joined.socket);
    drop(joined);
    eventually("somebody holds it", || socket.upgrade().is_none());
}

#[test]
fn a_peer_that_declines_is_left_alone_for_a_while() {
    let bed = Bed::with(&[80], |config| config.max_peer_sessions = Some(1));
    let mut other = bed.connect(bed::B);
    other.init(id(9), URI, 1_000_000).unwrap();
    let coordinator = Coordinator::of(bed.address, SEED);
    eventually("it is not seen", || coordinator.is_up());
    let declined = coordinator.peers.join(0, &session(1, URI), &coordinator.live);
    assert_eq!(declined.unwrap_err(), Fault::Withdrawn(5));
    assert!(coordinator.is_up(), "it is there all the same");
    assert_eq!(coordinator.peers.usable(), 0);
}

#[test]
fn what_a_peer_may_not_fetch_is_no_reason_to_leave_it_alone() {
    let bed = Bed::start(&[80]);
    let coordinator = Coordinator::of(bed.address, SEED);
    eventually("it is not seen", || coordinator.is_up());
    let declined = coordinator.peers.join(0, &session(1, "http://127.0.99.1:80/file"), &coordinator.live);
    assert_eq!(declined.unwrap_err(), Fault::Declined);
    assert_eq!(coordinator.peers.usable(), 1);
}

#[test]
fn stopping_does_not_wait_for_the_next_hello_or_try() {
    let bed = Bed::start(&[80]);
    let nobody = TcpListener::bind("127.0.11.2:0").unwrap().local_addr().unwrap();
    let silent = TcpListener::bind("127.0.11.3:0").unwrap();
    let coordinators = [
        Coordinator::of(bed.address, SEED),
        Coordinator::of(nobody, SEED),
        Coordinator::of(silent.local_addr().unwrap(), SEED),
    ];
    let _accepted: TcpStream = silent.accept().unwrap().0;
    eventually("it is not seen", || coordinators[0].is_up());
    eventually("it is seen", || coordinators[1].trouble().is_some_and(|why| matches!(*why, Trouble::Io(_))));
    let stopped = Instant::now();
    drop(coordinators);
    // Half of the time to the next HELLO: not a measurement, only to tell the two apart.
    assert!(stopped.elapsed() < Duration::from_secs(15));
}

#[test]
fn a_peer_that_lied_is_not_asked_and_status_says_why() {
    let bed = Bed::start(&[80]);
    let coordinator = Coordinator::of(bed.address, SEED);
    eventually("it is not seen", || coordinator.is_up());
    assert_eq!(coordinator.select().len(), 1);
    assert_eq!(coordinator.peers.views()[0].verdict.unwrap().0, Verdict::Asked);
    let lie = Conduct { requests: 9, bytes: 1, violation: Some(Violation::Lie), ..Conduct::default() };
    coordinator.trust.add(bed.key, &lie, Some(1_000_000_000));
    assert!(coordinator.select().is_empty());
    assert_eq!(coordinator.peers.usable(), 0);
    let verdict = coordinator.peers.views()[0].verdict.unwrap().0;
    assert_eq!(verdict, Verdict::Skipped(Skipped::Barred(Violation::Lie)));
}
