//! What the next hop gets to see of a head.

use bamqp_core::http::body::BodyLength;
use bamqp_core::http::forward::{self, Hop, RangeGet};
use bamqp_core::http::range::RangeSet;
use bamqp_core::http::request::Request;
use bamqp_core::http::response::Response;
use bamqp_core::http::target::Uri;
use bamqp_core::http::validator::Validator;
use bamqp_core::http::write::HeadWriter;

const HOP: Hop<'_> = Hop { via: "bamqp-a", upgrade: false, close: false };

fn write(fill: impl FnOnce(&mut HeadWriter<'_>)) -> String {
    let mut buffer = [0; 2048];
    let mut head = HeadWriter::new(&mut buffer);
    fill(&mut head);
    let length = head.finish().unwrap();
    String::from_utf8(buffer[..length].to_vec()).unwrap()
}

fn request_with(text: &str, hop: Hop<'_>) -> String {
    let (request, _) = Request::parse(text.as_bytes()).unwrap().unwrap();
    let uri = Uri::parse(request.target).unwrap();
    let body = BodyLength::of_request(&request).unwrap();
    write(|head| forward::request(head, &request, &uri, body, hop))
}

fn response_as(text: &str, body: BodyLength, hop: Hop<'_>) -> String {
    let (response, _) = Response::parse(text.as_bytes()).unwrap().unwrap();
    write(|head| forward::response(head, &response, body, hop))
}

#[test]
fn a_request_loses_what_is_for_one_hop() {
    let sent = "GET http://a.example:8080/x?y HTTP/1.1\r\nUser-Agent: u\r\nHost: other\r\nConnection: close, X-Own\r\n\
        x-own: 1\r\nProxy-Connection: keep-alive\r\nKeep-Alive: 5\r\nTE: trailers\r\nTrailer: T\r\nUpgrade: h2c\r\n\
        Proxy-Authorization: Basic x\r\nAuthorization: Basic y\r\nVia: 1.0 before\r\nCookie: c\r\n\r\n";
    assert_eq!(
        request_with(sent, HOP),
        "GET /x?y HTTP/1.1\r\nHost: a.example:8080\r\nUser-Agent: u\r\nAuthorization: Basic y\r\nVia: 1.0 before\r\n\
        Cookie: c\r\nVia: 1.1 bamqp-a\r\n\r\n"
    );
}

#[test]
fn a_request_can_not_have_its_framing_or_via_dropped() {
    let sent = "POST http://a.example HTTP/1.1\r\nHost: a.example\r\nContent-Length: 3, 3\r\nContent-Length: 3\r\n\
        Cache-Control: no-store\r\nConnection: content-length, via, host, cache-control\r\nVia: 1.1 b\r\n\r\n";
    assert_eq!(
        request_with(sent, Hop { close: true, ..HOP }),
        "POST / HTTP/1.1\r\nHost: a.example\r\nCache-Control: no-store\r\nVia: 1.1 b\r\nContent-Length: 3\r\n\
        Connection: close\r\nVia: 1.1 bamqp-a\r\n\r\n"
    );
}

#[test]
fn chunked_requests_keep_their_coding_and_trailers() {
    let sent = "PUT http://a.example/ HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\n\
        Trailer: T\r\n\r\n";
    assert_eq!(
        request_with(sent, HOP),
        "PUT / HTTP/1.1\r\nHost: a.example\r\nExpect: 100-continue\r\nTrailer: T\r\nTransfer-Encoding: chunked\r\n\
        Via: 1.1 bamqp-a\r\n\r\n"
    );
}

#[test]
fn requests_of_http_1_0_have_no_expectations() {
    let sent = "PUT http://a.example/ HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n";
    assert_eq!(
        request_with(sent, HOP),
        "PUT / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 1\r\nVia: 1.0 bamqp-a\r\n\r\n"
    );
}

#[test]
fn options_counts_down_and_has_an_asterisk() {
    let sent = "OPTIONS http://a.example HTTP/1.1\r\nHost: a.example\r\nMax-Forwards: 2\r\n\r\n";
    let expected = "OPTIONS * HTTP/1.1\r\nHost: a.example\r\nMax-Forwards: 1\r\nVia: 1.1 bamqp-a\r\n\r\n";
    assert_eq!(request_with(sent, HOP), expected);
    let sent = "GET http://a.example/ HTTP/1.1\r\nHost: a.example\r\nMax-Forwards: 2\r\n\r\n";
    assert!(request_with(sent, HOP).contains("Max-Forwards: 2\r\n"));
    let last = |method: &str, hops: &str| {
        let text = format!("{method} / HTTP/1.1\r\nMax-Forwards: {hops}\r\n\r\n");
        forward::is_last_hop(&Request::parse(text.as_bytes()).unwrap().unwrap().0)
    };
    assert!(last("TRACE", "0") && last("OPTIONS", "0"));
    assert!(!last("GET", "0") && !last("TRACE", "1") && !last("TRACE", "x"));
}

#[test]
fn an_upgrade_goes_on_only_if_wanted() {
    let sent = "GET http://a.example/ HTTP/1.1\r\nHost: a.example\r\nConnection: keep-alive, Upgrade\r\n\
        Upgrade: websocket\r\nSec-WebSocket-Key: k\r\n\r\n";
    let wants =
        |text: &str| forward::wants_upgrade(&Request::parse(text.as_bytes()).unwrap().unwrap().0.fields);
    assert!(wants(sent));
    assert!(!wants("GET / HTTP/1.1\r\nUpgrade: websocket\r\n\r\n"));
    assert!(!wants("GET / HTTP/1.1\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\r\n"));
    assert_eq!(
        request_with(sent, Hop { upgrade: true, ..HOP }),
        "GET / HTTP/1.1\r\nHost: a.example\r\nSec-WebSocket-Key: k\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
        Via: 1.1 bamqp-a\r\n\r\n"
    );
    let answer = "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
    assert_eq!(
        response_as(answer, BodyLength::None, Hop { upgrade: true, ..HOP }),
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nVia: 1.1 bamqp-a\r\n\r\n"
    );
}

#[test]
fn responses_get_the_framing_that_the_client_will_see() {
    let start = "HTTP/1.1 200 OK\r\nServer: s\r\n";
    let length = "HTTP/1.0 200 OK\r\nContent-Length: 9\r\nConnection: close\r\nProxy-Authenticate: x\r\nA: \u{e9}\r\n\r\n";
    assert_eq!(
        response_as(length, BodyLength::Exact(9), HOP),
        "HTTP/1.1 200 OK\r\nA: \u{e9}\r\nContent-Length: 9\r\nVia: 1.0 bamqp-a\r\n\r\n"
    );
    let chunked = format!("{start}Transfer-Encoding: chunked\r\nTrailer: T\r\n\r\n");
    assert_eq!(
        response_as(&chunked, BodyLength::Chunked, HOP),
        "HTTP/1.1 200 OK\r\nServer: s\r\nTrailer: T\r\nTransfer-Encoding: chunked\r\nVia: 1.1 bamqp-a\r\n\r\n"
    );
    // An HTTP/1.0 client gets it without the coding, until the connection closes.
    assert_eq!(
        response_as(&chunked, BodyLength::UntilClose, HOP),
        "HTTP/1.1 200 OK\r\nServer: s\r\nConnection: close\r\nVia: 1.1 bamqp-a\r\n\r\n"
    );
}

#[test]
fn responses_without_a_body_tell_its_length_where_they_may() {
    let of = |status: u16| {
        let text = format!("HTTP/1.1 {status} X\r\nContent-Length: 9\r\n\r\n");
        response_as(&text, BodyLength::None, HOP).contains("Content-Length: 9\r\n")
    };
    assert!(of(200) && of(304));
    assert!(!of(204) && !of(103));
}

#[test]
fn loops_are_seen_in_any_via() {
    let is_loop = |fields: &str| {
        let text = format!("GET / HTTP/1.1\r\n{fields}\r\n");
        forward::is_loop(&Request::parse(text.as_bytes()).unwrap().unwrap().0.fields, "bamqp-a")
    };
    assert!(is_loop("Via: 1.1 bamqp-a\r\n"));
    assert!(is_loop("Via: 1.0 x, HTTP/1.1  BAMQP-A (comment)\r\n"));
    assert!(is_loop("Via: 1.0 x\r\nvia: 1.1\tbamqp-a\r\n"));
    assert!(!is_loop("Via: 1.1 bamqp-b, 1.1 bamqp-aa\r\n"));
    assert!(!is_loop("Via: 1.1 x (bamqp-a)\r\n"));
    assert!(!is_loop(""));
}

#[test]
fn connections_are_kept_by_http_1_1_only() {
    let keeps = |text: &str| {
        let (request, _) = Request::parse(text.as_bytes()).unwrap().unwrap();
        forward::keeps_alive(&request.fields, request.version)
    };
    assert!(keeps("GET / HTTP/1.1\r\n\r\n"));
    assert!(!keeps("GET / HTTP/1.1\r\nConnection: foo, Close\r\n\r\n"));
    assert!(!keeps("GET / HTTP/1.1\r\nProxy-Connection: close\r\n\r\n"));
    assert!(!keeps("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"));
}

#[test]
fn a_range_is_asked_under_the_validator() {
    let uri = Uri::parse("http://[::1]:81/f?g").unwrap();
    let validator = Validator::entity_tag(b"\"v\"").unwrap();
    let get = RangeGet {
        uri: &uri,
        ranges: RangeSet::One(0..16_384),
        validator: &validator,
        user_agent: Some(b"u"),
        accept: None,
        via: "bamqp-a",
    };
    assert_eq!(
        write(|head| get.write(head)),
        "GET /f?g HTTP/1.1\r\nHost: [::1]:81\r\nRange: bytes=0-16383\r\nIf-Range: \"v\"\r\n\
        Accept-Encoding: identity\r\nUser-Agent: u\r\nVia: 1.1 bamqp-a\r\n\r\n"
    );
}
