//! What the proxy refuses before it goes anywhere.

use bamqp_core::address::Refusal;
use bamqp_core::http::HeadError;
use bamqp_core::http::body::{BodyLength, FramingError};
use bamqp_core::http::request::Request;
use bamqp_core::http::target::{Target, TargetError};
use bamqp_core::refuse::{Refuse, admit};

fn of(head: &str) -> Result<(String, BodyLength), Refuse> {
    let (request, _) = Request::parse(head.as_bytes()).map_err(Refuse::Head)?.unwrap();
    admit(&request, "bamqp-a").map(|admitted| {
        let target = match admitted.target {
            Target::Absolute(uri) | Target::Origin(uri) => uri.to_string(),
            Target::Authority(authority) => authority.to_string(),
            Target::Asterisk => "*".to_string(),
        };
        (target, admitted.body)
    })
}

#[test]
fn requests_that_go_on() {
    let get = "GET http://a.example/ HTTP/1.1\r\nHost: x\r\nVia: 1.1 bamqp-b\r\n\r\n";
    assert_eq!(of(get), Ok(("http://a.example/".into(), BodyLength::None)));
    let connect = "CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\nContent-Length: 0\r\n\r\n";
    assert_eq!(of(connect), Ok(("a.example:443".into(), BodyLength::Exact(0))));
}

#[test]
fn refusals_have_a_status_and_say_what_to_do() {
    let host = "Host: a.example\r\n";
    for (head, expected, status) in [
        (format!("GET / HTTP/3.0\r\n{host}\r\n"), Refuse::Head(HeadError::Version), 505),
        (format!("GET / HTTP/1.1\r\n{host} x\r\n\r\n"), Refuse::Head(HeadError::Folded), 400),
        (
            format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(200)),
            Refuse::Head(HeadError::TooManyFields),
            431,
        ),
        ("GET / HTTP/1.1\r\n\r\n".into(), Refuse::Target(TargetError::NoHost), 400),
        (format!("GET https://a/ HTTP/1.1\r\n{host}\r\n"), Refuse::Target(TargetError::Scheme), 501),
        (
            format!("POST / HTTP/1.1\r\n{host}Content-Length: +5\r\n\r\n"),
            Refuse::Framing(FramingError::Length),
            400,
        ),
        (format!("GET / HTTP/1.1\r\n{host}Via: 1.1 x, 1.1 bamqp-a\r\n\r\n"), Refuse::Loop, 508),
        (format!("OPTIONS * HTTP/1.1\r\n{host}\r\n"), Refuse::LastHop, 501),
        (format!("TRACE / HTTP/1.1\r\n{host}Max-Forwards: 0\r\n\r\n"), Refuse::LastHop, 501),
        (format!("CONNECT a:443 HTTP/1.1\r\n{host}Content-Length: 5\r\n\r\n"), Refuse::ConnectBody, 400),
    ] {
        let refuse = of(&head).unwrap_err();
        assert_eq!((refuse, refuse.status()), (expected, status), "{head}");
    }
}

#[test]
fn every_refusal_has_a_reason_phrase_and_one_line() {
    for refuse in [
        Refuse::Head(HeadError::BareCr),
        Refuse::Head(HeadError::Version),
        Refuse::HeadTooLarge,
        Refuse::Timeout,
        Refuse::Framing(FramingError::Coding),
        Refuse::Target(TargetError::Scheme),
        Refuse::Target(TargetError::Form),
        Refuse::ConnectBody,
        Refuse::Client,
        Refuse::Address(Refusal::OwnAddress),
        Refuse::ConnectPort,
        Refuse::Loop,
        Refuse::LastHop,
        Refuse::Busy,
    ] {
        assert!(!refuse.reason().is_empty(), "{refuse:?}");
        assert!(!refuse.to_string().contains('\n') && refuse.to_string().len() > 10, "{refuse:?}");
    }
}

#[test]
fn a_connection_goes_on_only_where_the_next_request_is_known() {
    assert!(Refuse::Framing(FramingError::LengthAndCoding).closes());
    assert!(Refuse::Head(HeadError::Folded).closes());
    assert!(!Refuse::Address(Refusal::NotPublic).closes());
}
