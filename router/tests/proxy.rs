//! The proxy with real sockets between a client and a scripted origin: RFC 9110 and 9112 for intermediaries, and the
//! rules of DESIGN section 7.

mod common;

use std::sync::Mutex;
use std::sync::mpsc;

use bamqp_router::config::{Config, Peer};
use common::{OK, Origin, client, config, field, get, pattern, start};

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
