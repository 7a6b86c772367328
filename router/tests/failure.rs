//! What the client sees when something breaks: a retry, an error in plain text, or an early end; never wrong bytes.

mod common;

use std::sync::Mutex;
use std::sync::mpsc;

use common::{Line, OK, Origin, client, config, get, pattern, refused, start};

#[test]
fn a_kept_connection_that_was_closed_costs_a_repeatable_request_nothing() {
    let origin = Origin::start(|mut line, number| {
        line.head();
        line.send(OK);
        if number == 0 {
            line.head(); // takes the second request and closes without an answer
        } else {
            line.gone();
        }
    });
    let daemon = start(config());
    let mut client = client(&daemon);
    for _ in 0..2 {
        client.send(get(&origin, "/"));
        let head = client.head();
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        assert_eq!(client.text(2), "ok");
    }
    assert_eq!(origin.connections(), 2);
}

#[test]
fn a_request_that_can_not_be_repeated_goes_to_a_new_connection() {
    let origin = Origin::start(|mut line, _| {
        while !line.head().is_empty() {
            line.send(OK);
        }
    });
    let daemon = start(config());
    let mut client = client(&daemon);
    for method in ["GET", "POST", "GET"] {
        client.send(get(&origin, "/").replace("GET", method));
        client.head();
        assert_eq!(client.text(2), "ok");
    }
    assert_eq!(origin.connections(), 2);
}

#[test]
fn an_origin_that_answers_nothing_or_nonsense_is_a_bad_gateway() {
    for (answer, word) in [
        ("", "without an answer"),
        ("HTTP/1.1 200 OK\r\nContent-Le", "without an answer"),
        ("SSH-2.0-OpenSSH\r\n\r\n", "malformed head"),
        ("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n", "unasked"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n", "both"),
        ("HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok", "Content-Length"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nok", "transfer coding"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n+2\r\nok", "broken chunked coding"),
    ] {
        let origin = Origin::start(move |mut line, _| {
            line.head();
            line.send(answer);
        });
        let (status, text) = refused(&start(config()), &get(&origin, "/"));
        assert_eq!(status, 502, "{answer:?}");
        assert!(text.contains(word), "{answer:?}: {text}");
    }
}

#[test]
fn when_the_origin_dies_the_client_gets_what_came_and_no_more() {
    for (head, part, whole) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n", pattern(700_000), 1_000_000),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"ffff\r\nonly this".to_vec(), 65_535),
    ] {
        let sent = part.clone();
        let origin = Origin::start(move |mut line, _| {
            line.head();
            line.send(head);
            line.send(&sent);
        });
        let daemon = start(config());
        let mut client = client(&daemon);
        client.send(get(&origin, "/"));
        client.head();
        let (body, _) = client.rest_or_reset();
        assert!(body == part && body.len() < whole);
    }
}

#[test]
fn a_reset_in_a_body_without_a_length_is_passed_on_as_one() {
    let (go_on, may_go_on) = mpsc::channel::<()>();
    let may_go_on = Mutex::new(may_go_on);
    let origin = Origin::start(move |mut line, _| {
        line.head();
        line.send("HTTP/1.1 200 OK\r\n\r\npart");
        may_go_on.lock().unwrap().recv().unwrap();
        bamqp_router::net::reset_on_close(&line.socket);
    });
    let daemon = start(config());
    let mut client = client(&daemon);
    client.send(get(&origin, "/"));
    client.head();
    assert_eq!(client.text(4), "part");
    go_on.send(()).unwrap();
    assert_eq!(client.rest_or_reset(), (Vec::new(), true));
}

#[test]
fn when_the_client_hangs_up_the_origin_is_let_go() {
    let (told, tell) = mpsc::channel();
    let told = Mutex::new(told);
    let origin = Origin::start(move |mut line, _| {
        line.head();
        line.send("HTTP/1.1 200 OK\r\nContent-Length: 100000000000\r\n\r\n");
        let part = pattern(100_000);
        while std::io::Write::write_all(&mut line.socket, &part).is_ok() {}
        told.lock().unwrap().send(()).unwrap();
    });
    let daemon = start(config());
    let mut client = client(&daemon);
    client.send(get(&origin, "/"));
    client.head();
    client.bytes(300_000);
    drop(client);
    tell.recv_timeout(common::PATIENCE).expect("the origin's connection is closed");
}

#[test]
fn a_client_that_hangs_up_in_its_request_takes_the_request_along() {
    let (told, tell) = mpsc::channel();
    let told = Mutex::new(told);
    let origin = Origin::start(move |mut line, _| {
        line.head();
        assert_eq!(line.text(4), "half");
        line.gone();
        told.lock().unwrap().send(()).unwrap();
    });
    let daemon = start(config());
    let mut client = client(&daemon);
    let post = get(&origin, "/").replace("GET", "POST");
    client.send(post.replace("\r\n\r\n", "\r\nContent-Length: 8\r\n\r\nhalf"));
    drop(client);
    tell.recv_timeout(common::PATIENCE).expect("the origin's connection is closed");
}

#[test]
fn stop_closes_everything_at_once() {
    let origin = Origin::start(|mut line, _| {
        line.head();
        line.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n1234");
        line.gone();
    });
    let daemon = start(config());
    let address = daemon.client_addresses()[0];
    let mut busy = client(&daemon);
    busy.send(get(&origin, "/"));
    busy.head();
    assert_eq!(busy.text(4), "1234");
    let mut idle = client(&daemon);
    let mut waiting = Line::to(address);
    waiting.send("GET http://");
    daemon.stop();
    assert_eq!(busy.rest_or_reset().0, b"");
    assert_eq!(idle.rest_or_reset().0, b"");
    waiting.gone();
    assert!(std::net::TcpStream::connect(address).is_err());
}

#[test]
fn an_origin_that_only_ever_sends_interim_responses_is_given_up() {
    let origin = Origin::start(|mut line, _| {
        line.head();
        // As many as it takes for the other side to close.
        for _ in 0..10_000 {
            line.send("HTTP/1.1 102 Processing\r\n\r\n");
        }
    });
    let lab = start(config());
    let mut client = Line::to(lab.client_addresses()[0]);
    client.send(get(&origin, "/"));
    let mut heads = 0;
    loop {
        let head = client.head();
        match head.split(' ').nth(1) {
            Some("102") => heads += 1,
            Some("502") => break,
            other => panic!("{other:?} after {heads} interim responses"),
        }
    }
    assert!(heads <= 16, "{heads} interim responses went on");
}
