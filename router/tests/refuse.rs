//! What the proxy refuses (DESIGN section 7), and what it says then.

mod common;

use bamqp_router::config::{Config, Peer};
use common::{OK, Origin, client, config, get, refused, start};

#[test]
fn ambiguous_requests_are_refused_and_never_reach_an_origin() {
    let origin = Origin::answering(OK);
    let daemon = start(config());
    let with = |fields: &str| get(&origin, "/").replace("GET", "POST").replace("\r\n\r\n", fields);
    for request in [
        with("\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        with("\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!"),
        with("\r\nContent-Length: 5, 6\r\n\r\nhello!"),
        with("\r\nContent-Length: +5\r\n\r\nhello"),
        with("\r\nContent-Length: -1\r\n\r\n"),
        with("\r\nContent-Length: 0x5\r\n\r\nhello"),
        with("\r\nContent-Length: \r\n\r\n"),
        with("\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
        with("\r\nTransfer-Encoding: identity\r\n\r\n"),
        with("\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"),
        with("\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n"),
        with("\r\nX: a\r\n folded\r\n\r\n"),
        with("\r\nX: a\rb\r\n\r\n"),
        with("\r\nX: a\nY: b\r\n\r\n"),
        with("\r\nHost: other.example\r\n\r\n"),
        get(&origin, "/#fragment"),
        "GET / HTTP/1.1\r\n\r\n".into(),
        "\x16\x03\x01\x02\x00\r\n\r\n".into(),
    ] {
        assert_eq!(refused(&daemon, &request).0, 400, "{request:?}");
    }
    assert_eq!(origin.connections(), 0);
}

#[test]
fn a_broken_chunk_of_a_request_never_reaches_the_origin() {
    let origin = Origin::start(|mut line, _| {
        let (rest, _) = line.rest_or_reset();
        assert!(!String::from_utf8(rest).unwrap().contains("hello"));
    });
    let daemon = start(config());
    let post = get(&origin, "/").replace("GET", "POST");
    for body in ["+5\r\nhello\r\n0\r\n\r\n", "5\nhello\n0\n\n", "0x5\r\nhello\r\n0\r\n\r\n"] {
        let head = post.replace("\r\n\r\n", "\r\nTransfer-Encoding: chunked\r\n\r\n");
        assert_eq!(refused(&daemon, &format!("{head}{body}")).0, 400, "{body:?}");
        // The same when it comes after the head has gone on.
        let mut late = client(&daemon);
        late.send(head + "1\r\na\r\n");
        late.send(body);
        assert!(late.head().starts_with("HTTP/1.1 400"), "{body:?}");
    }
}

#[test]
fn what_is_refused_says_what_to_do() {
    let origin = Origin::answering(OK);
    let daemon = start(config());
    let url = origin.url("/");
    let via = daemon.shared().via.clone();
    for (request, status, word) in [
        (
            get(&origin, "/").replace("\r\n\r\n", &format!("\r\nVia: 1.1 x, 1.1 {via}\r\n\r\n")),
            508,
            "points back",
        ),
        ("GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".into(), 400, "HTTP proxy in the program's settings"),
        ("GET https://x.example/ HTTP/1.1\r\nHost: x.example\r\n\r\n".into(), 501, "CONNECT"),
        (format!("GET {url} HTTP/2.0\r\nHost: x\r\n\r\n"), 505, "HTTP/1.1"),
        (format!("GET {url} HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "y".repeat(20_000)), 431, "cookies"),
        (format!("GET {url} HTTP/1.1\r\nHost: x\r\n{}\r\n", "X: y\r\n".repeat(100)), 431, "too many fields"),
        (format!("CONNECT {0} HTTP/1.1\r\nHost: {0}\r\n\r\n", origin.address), 403, "connect_ports"),
        ("GET http://name.invalid/ HTTP/1.1\r\nHost: name.invalid\r\n\r\n".into(), 502, "check the name"),
        ("OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n".into(), 501, "about itself"),
    ] {
        let (found, text) = refused(&daemon, &request);
        assert_eq!(found, status, "{request:?}: {text}");
        assert!(text.contains(word), "{request:?}: {text}");
    }
    assert_eq!(origin.connections(), 0);
}

#[test]
fn no_client_speaks_to_a_neighbour_in_our_name() {
    let neighbour = Origin::answering(OK);
    let peer = Peer { name: "B".into(), address: neighbour.address, public_key: [7; 32] };
    let lab = start(Config {
        peers: vec![peer],
        connect_ports: vec![neighbour.address.port()],
        peer_listen: Some("127.0.0.1:0".parse().unwrap()),
        ..config()
    });
    let init =
        format!("POST http://{}/INIT HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", neighbour.address);
    assert_eq!(refused(&lab, &init).0, 403);
    assert_eq!(
        refused(&lab, &format!("CONNECT {0} HTTP/1.1\r\nHost: {0}\r\n\r\n", neighbour.address)).0,
        403
    );
}

#[test]
fn the_routers_own_addresses_are_out_of_reach() {
    let origin = Origin::answering(OK);
    let lab = start(Config { peer_listen: Some("127.0.0.1:0".parse().unwrap()), ..config() });
    let own = [lab.client_addresses()[0], lab.peer_address().unwrap()];
    for address in own {
        assert_eq!(refused(&lab, &format!("GET http://{address}/ HTTP/1.1\r\nHost: x\r\n\r\n")).0, 403);
    }
    let port = lab.client_addresses()[0].port();
    let tunnels =
        start(Config { connect_ports: vec![port, origin.address.port()], allow_private: vec![], ..config() });
    for request in [
        get(&origin, "/"),
        format!("GET http://localhost:{}/ HTTP/1.1\r\nHost: x\r\n\r\n", origin.address.port()),
        format!("GET http://0.0.0.0:{}/ HTTP/1.1\r\nHost: x\r\n\r\n", origin.address.port()),
        format!("CONNECT {0} HTTP/1.1\r\nHost: {0}\r\n\r\n", origin.address),
    ] {
        let (status, text) = refused(&tunnels, &request);
        assert_eq!(status, 403, "{request:?}");
        assert!(text.contains("router's own"), "{text}");
    }
    assert_eq!(origin.connections(), 0);
}

#[test]
fn strangers_and_too_many_clients_are_refused() {
    let origin = Origin::answering(OK);
    let strict = start(Config { allow_client: vec!["10.0.0.0/8".parse().unwrap()], ..config() });
    let (status, text) = refused(&strict, &get(&origin, "/"));
    assert_eq!(status, 403);
    assert!(text.contains("allow_client"), "{text}");
    let small = start(Config { max_clients: Some(1), ..config() });
    let mut first = client(&small);
    first.send(get(&origin, "/"));
    first.head();
    assert_eq!(refused(&small, &get(&origin, "/")).0, 503);
    // The one inside is not disturbed.
    assert_eq!(first.text(2), "ok");
    first.send(get(&origin, "/"));
    assert!(first.head().starts_with("HTTP/1.1 200"));
}

#[test]
fn redirects_are_the_clients_business() {
    let elsewhere = Origin::answering(OK);
    let to = elsewhere.url("/");
    let origin = Origin::start(move |mut line, _| {
        line.head();
        line.send(format!("HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n"));
    });
    let daemon = start(config());
    let mut client = client(&daemon);
    client.send(get(&origin, "/"));
    let head = client.head();
    assert!(head.starts_with("HTTP/1.1 302") && head.contains(&elsewhere.url("/")), "{head}");
    assert_eq!(elsewhere.connections(), 0);
}
