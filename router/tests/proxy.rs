//! The proxy with real sockets between a client and a scripted origin: RFC 9110 and 9112 for intermediaries, and the
//! rules of DESIGN section 7.

mod common;

use std::sync::Mutex;
use std::sync::mpsc;

use bamqp_router::config::{Config, Peer};
use common::{Line, Origin, client, config, field, pattern, start};

fn get(origin: &Origin, path: &str) -> String {
    format!("GET {} HTTP/1.1\r\nHost: {}\r\n\r\n", origin.url(path), origin.address)
}

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

#[test]
fn a_request_goes_on_without_the_fields_of_one_hop_and_with_via() {
    let origin = Origin::start(|mut line, _| {
        let head = line.head();
        assert!(head.starts_with("GET /a?b=c HTTP/1.1\r\n"), "{head}");
        for gone in ["Proxy-Connection", "Keep-Alive", "X-Hop", "Proxy-Authorization", "Connection"] {
            assert_eq!(field(&head, gone), None, "{head}");
        }
        assert_eq!(field(&head, "Accept"), Some("text/html"));
        assert!(field(&head, "Via").unwrap().starts_with("1.1 bamqp-"), "{head}");
        line.send("HTTP/1.1 200 Fine\r\nContent-Length: 2\r\nKeep-Alive: 5\r\nX: y\r\n\r\nok");
    });
    let daemon = start(config());
    let mut client = client(&daemon);
    client.send(format!(
        "GET {} HTTP/1.1\r\nHost: other.example\r\nAccept: text/html\r\nConnection: x-hop\r\nX-Hop: 1\r\n\
         Proxy-Connection: keep-alive\r\nKeep-Alive: 3\r\nProxy-Authorization: Basic eDp5\r\n\r\n",
        origin.url("/a?b=c")
    ));
    let head = client.head();
    assert!(head.starts_with("HTTP/1.1 200 Fine\r\n"), "{head}");
    assert_eq!((field(&head, "X"), field(&head, "Keep-Alive")), (Some("y"), None));
    assert!(field(&head, "Via").unwrap().starts_with("1.1 bamqp-"));
    assert_eq!(client.text(2), "ok");
}

#[test]
fn both_connections_serve_several_requests() {
    let origin = Origin::answering(OK);
    let daemon = start(config());
    let mut client = client(&daemon);
    for _ in 0..3 {
        client.send(get(&origin, "/"));
        assert_eq!(field(&client.head(), "Connection"), None);
        assert_eq!(client.text(2), "ok");
    }
    // Sent all at once (RFC 9112 section 9.3.2), they are answered one after the other.
    client.send(get(&origin, "/").repeat(3));
    for _ in 0..3 {
        assert!(client.head().starts_with("HTTP/1.1 200"));
        assert_eq!(client.text(2), "ok");
    }
    assert_eq!(origin.connections(), 1);
}

#[test]
fn another_origin_gets_another_connection() {
    let (one, two) = (Origin::answering(OK), Origin::answering(OK.replace("ok", "2!")));
    let daemon = start(config());
    let mut client = client(&daemon);
    for (origin, body) in [(&one, "ok"), (&two, "2!"), (&one, "ok")] {
        client.send(get(origin, "/"));
        client.head();
        assert_eq!(client.text(2), body);
    }
    assert_eq!((one.connections(), two.connections()), (2, 1));
}

#[test]
fn a_name_is_resolved() {
    let origin = Origin::answering(OK);
    let daemon = start(config());
    let mut client = client(&daemon);
    let url = format!("http://localhost:{}/", origin.address.port());
    client.send(format!("GET {url} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
    assert!(client.head().starts_with("HTTP/1.1 200"));
    assert_eq!(client.text(2), "ok");
}

#[test]
fn interim_responses_reach_http_1_1_clients_only() {
    let origin = Origin::answering(format!("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n{OK}"));
    let daemon = start(config());
    let mut new = client(&daemon);
    new.send(get(&origin, "/"));
    let early = new.head();
    assert!(early.starts_with("HTTP/1.1 103") && field(&early, "Link") == Some("</a>"), "{early}");
    assert!(new.head().starts_with("HTTP/1.1 200"));
    assert_eq!(new.text(2), "ok");
    let mut old = client(&daemon);
    old.send(format!("GET {} HTTP/1.0\r\n\r\n", origin.url("/")));
    let head = old.head();
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert_eq!(old.rest(), b"ok");
}

#[test]
fn responses_without_a_body_leave_the_connection_usable() {
    let origin = Origin::start(|mut line, number| {
        assert_eq!(number, 0);
        for (method, answer) in [
            ("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"),
            ("HEAD", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
            ("GET", "HTTP/1.1 204 No Content\r\n\r\n"),
            ("GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\nETag: \"x\"\r\n\r\n"),
            ("GET", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
            ("GET", OK),
        ] {
            assert!(line.head().starts_with(method));
            line.send(answer);
        }
    });
    let daemon = start(config());
    let mut client = client(&daemon);
    for (method, status, length) in [
        ("HEAD", "200", Some("1000")),
        ("HEAD", "200", None),
        ("GET", "204", None),
        ("GET", "304", Some("7")),
        ("GET", "200", Some("0")),
        ("GET", "200", Some("2")),
    ] {
        client.send(get(&origin, "/").replace("GET", method));
        let head = client.head();
        assert!(head.starts_with(&format!("HTTP/1.1 {status}")), "{head}");
        assert_eq!(field(&head, "Content-Length"), length, "{head}");
    }
    assert_eq!(client.text(2), "ok");
}

const CHUNKED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
const CHUNKS: &str = "5;x=y\r\nhello\r\n7\r\n, world\r\n0\r\nX-Sum: 1\r\n\r\n";

#[test]
fn chunked_responses_go_on_as_they_are() {
    let origin = Origin::answering(format!("{CHUNKED}{CHUNKS}"));
    let daemon = start(config());
    let mut client = client(&daemon);
    for _ in 0..2 {
        client.send(get(&origin, "/"));
        assert_eq!(field(&client.head(), "Transfer-Encoding"), Some("chunked"));
        assert_eq!(client.text(CHUNKS.len()), CHUNKS);
    }
    assert_eq!(origin.connections(), 1);
}

#[test]
fn http_1_0_clients_get_the_content_without_the_coding() {
    let large = pattern(300_000);
    let mut answer = format!("{CHUNKED}5\r\nhello\r\n{:x}\r\n", large.len()).into_bytes();
    answer.extend_from_slice(&large);
    answer.extend_from_slice(b"\r\n0\r\n\r\n");
    let origin = Origin::answering(answer);
    let daemon = start(config());
    let mut client = client(&daemon);
    client.send(format!("GET {} HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", origin.url("/")));
    let head = client.head();
    assert_eq!(field(&head, "Transfer-Encoding"), None, "{head}");
    assert_eq!(field(&head, "Connection"), Some("close"), "{head}");
    let body = client.rest();
    assert_eq!(&body[..5], b"hello");
    assert!(body[5..] == large);
}

#[test]
fn a_body_that_ends_with_its_connection_ends_so_for_the_client() {
    let origin = Origin::start(|mut line, _| {
        line.head();
        line.send("HTTP/1.0 200 OK\r\n\r\n");
        line.send(pattern(500_000));
    });
    let daemon = start(config());
    let mut client = client(&daemon);
    client.send(get(&origin, "/"));
    assert_eq!(field(&client.head(), "Connection"), Some("close"));
    assert!(client.rest() == pattern(500_000));
}

#[test]
fn request_bodies_of_both_framings_go_on() {
    let origin = Origin::start(|mut line, _| {
        loop {
            let head = line.head();
            match (field(&head, "Content-Length"), field(&head, "Transfer-Encoding")) {
                (Some(length), None) => assert!(line.bytes(length.parse().unwrap()) == pattern(400_000)),
                (None, Some("chunked")) => assert_eq!(line.text(CHUNKS.len()), CHUNKS),
                _ => return,
            }
            line.send(OK);
        }
    });
    let daemon = start(config());
    let mut client = client(&daemon);
    for _ in 0..2 {
        let post = get(&origin, "/").replace("GET", "POST");
        client.send(post.replace("\r\n\r\n", "\r\nContent-Length: 400000\r\n\r\n"));
        client.send(pattern(400_000));
        assert!(client.head().starts_with("HTTP/1.1 200"));
        assert_eq!(client.text(2), "ok");
        client.send(post.replace("\r\n\r\n", "\r\nTransfer-Encoding: chunked\r\n\r\n") + CHUNKS);
        assert!(client.head().starts_with("HTTP/1.1 200"));
        assert_eq!(client.text(2), "ok");
    }
}

#[test]
fn large_responses_arrive_whole_and_in_order() {
    let body = pattern(8 << 20);
    let mut answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()).into_bytes();
    answer.extend_from_slice(&body);
    let origin = Origin::answering(answer);
    let daemon = start(config());
    let mut client = client(&daemon);
    for _ in 0..2 {
        client.send(get(&origin, "/"));
        client.head();
        assert!(client.bytes(body.len()) == body);
    }
    assert_eq!(origin.connections(), 1);
}

/// Many bytes at a time are waited for, but not for ever: what has come goes on although the sender pauses.
#[test]
fn a_pause_in_a_response_holds_nothing_back() {
    let (go_on, may_go_on) = mpsc::channel::<()>();
    let may_go_on = Mutex::new(may_go_on);
    let origin = Origin::start(move |mut line, _| {
        line.head();
        line.send("HTTP/1.1 200 OK\r\nContent-Length: 2000020\r\n\r\n");
        for part in pattern(2_000_000).chunks(100_000) {
            line.send(part);
            std::thread::sleep(std::time::Duration::from_millis(10)); // so that there is a rate
        }
        line.send("0123456789");
        may_go_on.lock().unwrap().recv().unwrap();
        line.send("9876543210");
    });
    let daemon = start(config());
    let mut client = client(&daemon);
    client.send(get(&origin, "/"));
    client.head();
    assert!(client.bytes(2_000_000) == pattern(2_000_000));
    assert_eq!(client.text(10), "0123456789");
    go_on.send(()).unwrap();
    assert_eq!(client.text(10), "9876543210");
}

#[test]
fn a_client_that_expects_100_gets_it_before_it_sends() {
    let origin = Origin::start(|mut line, _| {
        let head = line.head();
        assert_eq!(field(&head, "Expect"), Some("100-continue"));
        line.send("HTTP/1.1 100 Continue\r\n\r\n");
        assert_eq!(line.text(4), "body");
        line.send(OK);
    });
    let daemon = start(config());
    let mut client = client(&daemon);
    let put = get(&origin, "/").replace("GET", "PUT");
    client.send(put.replace("\r\n\r\n", "\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n"));
    assert!(client.head().starts_with("HTTP/1.1 100"));
    client.send("body");
    assert!(client.head().starts_with("HTTP/1.1 200"));
    assert_eq!(client.text(2), "ok");
}

#[test]
fn an_answer_before_the_end_of_the_request_arrives_and_ends_the_connection() {
    let origin = Origin::start(|mut line, _| {
        line.head();
        line.bytes(1000);
        line.send("HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\n\r\nbig");
        line.end();
        line.gone();
    });
    let daemon = start(config());
    let mut client = client(&daemon);
    let post = get(&origin, "/").replace("GET", "POST");
    client.send(post.replace("\r\n\r\n", "\r\nContent-Length: 100000000\r\n\r\n"));
    client.send(pattern(1000));
    let head = client.head();
    assert!(head.starts_with("HTTP/1.1 413"), "{head}");
    assert_eq!(field(&head, "Connection"), Some("close"));
    assert_eq!(client.rest(), b"big");
}

#[test]
fn connect_makes_a_tunnel_that_closes_one_side_at_a_time() {
    let origin = Origin::start(|mut line, _| {
        assert!(line.rest() == pattern(200_000));
        line.send(pattern(300_000));
    });
    let daemon = start(Config { connect_ports: vec![origin.address.port()], ..config() });
    let mut client = client(&daemon);
    client.send(format!("CONNECT {0} HTTP/1.1\r\nHost: {0}\r\n\r\n", origin.address));
    let head = client.head();
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert_eq!(field(&head, "Content-Length"), None);
    client.send(pattern(200_000));
    client.end();
    assert!(client.rest() == pattern(300_000));
}

#[test]
fn what_comes_with_connect_is_for_the_tunnel() {
    let origin = Origin::start(|mut line, _| {
        assert_eq!(line.text(5), "hello");
        line.send("bye");
    });
    let daemon = start(Config { connect_ports: vec![origin.address.port()], ..config() });
    let mut client = client(&daemon);
    client.send(format!("CONNECT {0} HTTP/1.1\r\nHost: {0}\r\n\r\nhello", origin.address));
    client.head();
    assert_eq!(client.rest(), b"bye");
}

#[test]
fn an_upgrade_makes_a_tunnel() {
    let origin = Origin::start(|mut line, _| {
        let head = line.head();
        assert_eq!(field(&head, "Upgrade"), Some("websocket"));
        assert_eq!(field(&head, "Connection").map(str::to_lowercase).as_deref(), Some("upgrade"));
        line.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhi");
        assert_eq!(line.text(5), "frame");
        line.send("echo");
    });
    let daemon = start(config());
    let mut client = client(&daemon);
    let upgrade = "\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    client.send(get(&origin, "/").replace("\r\n\r\n", upgrade));
    let head = client.head();
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    assert_eq!(field(&head, "Upgrade"), Some("websocket"));
    assert_eq!(client.text(2), "hi");
    client.send("frame");
    assert_eq!(client.rest(), b"echo");
}

#[test]
fn an_upgrade_that_the_origin_declines_is_an_ordinary_request() {
    let origin = Origin::answering(OK);
    let daemon = start(config());
    let mut client = client(&daemon);
    for _ in 0..2 {
        let upgrade = "\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
        client.send(get(&origin, "/").replace("\r\n\r\n", upgrade));
        assert!(client.head().starts_with("HTTP/1.1 200"));
        assert_eq!(client.text(2), "ok");
    }
}

/// Sends one request that the proxy is to refuse; its status and text. The connection is closed after it.
fn refused(daemon: &bamqp_router::daemon::Daemon, request: &str) -> (u16, String) {
    let mut client = client(daemon);
    client.send(request);
    let head = client.head();
    assert_eq!(field(&head, "Connection"), Some("close"), "{request:?}: {head}");
    assert!(field(&head, "Content-Type").unwrap().starts_with("text/plain"));
    let text = String::from_utf8(client.rest()).unwrap();
    assert_eq!(field(&head, "Content-Length"), Some(text.len().to_string().as_str()));
    (head[9..12].parse().unwrap(), text)
}

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
    let via = &daemon.shared().via;
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
    let small = start(Config { max_clients: 1, ..config() });
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
fn the_largest_heads_pass() {
    let fields: String = (0..60).map(|i| format!("X-{i}: {}\r\n", "y".repeat(200))).collect();
    let expected = fields.clone();
    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n{fields}\r\nok");
    let origin = Origin::start(move |mut line, _| {
        assert!(line.head().contains(&expected));
        line.send(&answer);
    });
    let daemon = start(config());
    let mut client = client(&daemon);
    client.send(get(&origin, "/").replace("\r\n\r\n", &format!("\r\n{fields}\r\n")));
    assert!(client.head().contains(&fields));
    assert_eq!(client.text(2), "ok");
}

#[test]
fn a_download_that_qualifies_for_pooling_arrives_whole_though_no_peer_answers() {
    let body = pattern(3_000_000);
    let mut answer =
        format!("HTTP/1.1 200 OK\r\nETag: \"v1\"\r\nContent-Length: {}\r\n\r\n", body.len()).into_bytes();
    answer.extend_from_slice(&body);
    let origin = Origin::answering(answer);
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let peer = Peer { name: "gone".into(), address: gone, public_key: [1; 32] };
    let fetch_ports = vec![origin.address.port()];
    let daemon = start(Config { peers: vec![peer], fetch_ports, ..config() });
    let mut client = client(&daemon);
    for _ in 0..2 {
        client.send(get(&origin, "/file"));
        client.head();
        assert!(client.bytes(body.len()) == body);
    }
}
