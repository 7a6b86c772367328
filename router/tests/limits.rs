//! What a stranger or a busy household can make grow has an end: above the limits new work is relayed plainly or declined,
//! and what is under way is not disturbed.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bamqp_router::config::{Config, Peer};
use bamqp_router::daemon::Daemon;
use bamqp_router::keys::KeyPair;
use common::{Line, OK, Origin, PATIENCE, client, config, get, pattern, slow_origin, start};

fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn clients_without_a_request_make_room_and_those_with_one_do_not() {
    let hurry = Arc::new(AtomicBool::new(false));
    const SIZE: usize = 4_000_000;
    let (slow, quick) = (slow_origin(SIZE, hurry.clone()), Origin::answering(OK));
    let daemon = start(Config { max_clients: Some(3), ..config() });
    let ask = |line: &mut Line, origin: &Origin| {
        line.send(get(origin, "/"));
        line.head()
    };
    let mut busy = client(&daemon);
    assert!(ask(&mut busy, &slow).starts_with("HTTP/1.1 200"));
    let mut idle = [client(&daemon), client(&daemon)];
    for line in &mut idle {
        assert!(ask(line, &quick).starts_with("HTTP/1.1 200"));
        line.bytes(2);
    }
    // For a second nobody makes room: a request may be on its way.
    let mut another = client(&daemon);
    wait_for("one makes room", || {
        let is_served = ask(&mut another, &quick).starts_with("HTTP/1.1 200");
        if !is_served {
            another = client(&daemon);
        }
        is_served
    });
    assert_eq!(another.text(2), "ok");
    // Which of them was idle for longest the daemon knows better: it saw when their requests ended.
    let is_served = |line: &mut Line| {
        line.send(get(&quick, "/"));
        line.next_head().is_some_and(|head| head.starts_with("HTTP/1.1 200"))
    };
    assert_eq!(idle.iter_mut().filter_map(|line| is_served(line).then_some(())).count(), 1);
    hurry.store(true, Ordering::SeqCst);
    assert!(busy.bytes(SIZE) == pattern(SIZE));
}

#[test]
fn a_flood_of_connections_takes_no_more_threads_than_there_may_be() {
    let daemon = start(Config { max_clients: Some(5), ..config() });
    let flood: Vec<Line> = (0..300).map(|_| client(&daemon)).collect();
    wait_for("all were looked at", || {
        let counters = &daemon.shared().counters;
        counters.connections.load(Ordering::Relaxed) + counters.refused.load(Ordering::Relaxed) == 300
    });
    assert!(daemon.shared().seats.count() <= 5 + 8, "{}", daemon.shared().seats.count());
    drop(flood);
    wait_for("all are gone", || daemon.shared().seats.count() == 0);
    let origin = Origin::answering(OK);
    let mut after = client(&daemon);
    after.send(get(&origin, "/"));
    assert!(after.head().starts_with("HTTP/1.1 200"));
}

#[test]
fn above_the_most_downloads_they_are_relayed_plainly() {
    const SIZE: usize = 3_000_000;
    let hurry = Arc::new(AtomicBool::new(false));
    let origin = slow_origin(SIZE, hurry.clone());
    let (a, b) = (KeyPair::from_seed([1; 32]), KeyPair::from_seed([2; 32]));
    let net = format!("127.{}.77", 1 + std::process::id() % 250);
    let at = |ip: u8| format!("{net}.{ip}:7733").parse().unwrap();
    let router = |own: u8, other: u8, key: &KeyPair| Config {
        peer_listen: Some(at(own)),
        fetch_ports: vec![origin.address.port()],
        max_sessions: Some(1),
        peers: vec![Peer { name: "other".into(), address: at(other), public_key: *key.public() }],
        ..config()
    };
    let helper = Daemon::start(router(2, 1, &a), b.clone()).unwrap();
    let daemon = Daemon::start(router(1, 2, &b), a).unwrap();
    wait_for("they know each other", || daemon.shared().peers.usable() == 1);
    let mut downloads = [client(&daemon), client(&daemon), client(&daemon)];
    for line in &mut downloads {
        line.send(get(&origin, "/file"));
        assert!(line.head().starts_with("HTTP/1.1 200"));
        line.bytes(1000);
    }
    wait_for("one is pooled", || !daemon.sessions().is_empty());
    hurry.store(true, Ordering::SeqCst);
    for line in &mut downloads {
        assert!(line.bytes(SIZE - 1000) == pattern(SIZE)[1000..]);
    }
    assert_eq!(daemon.sessions().len(), 1, "{:?}", daemon.sessions());
    drop(helper);
}
