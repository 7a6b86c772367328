//! Request targets, URIs and `Host`.

use std::net::IpAddr;

use bamqp_core::http::request::Request;
use bamqp_core::http::target::{Authority, Host, Target, TargetError, Uri};
use proptest::prelude::*;

/// What the target of a request with that request line and those field lines is, displayed.
fn of(line: &str, fields: &str) -> Result<String, TargetError> {
    let head = format!("{line}\r\n{fields}\r\n");
    let (request, _) = Request::parse(head.as_bytes()).unwrap().unwrap();
    Target::of(&request).map(|target| match target {
        Target::Absolute(uri) => format!("absolute {uri}"),
        Target::Origin(uri) => format!("origin {uri}"),
        Target::Authority(authority) => format!("authority {authority}"),
        Target::Asterisk => "asterisk".to_string(),
    })
}

#[test]
fn the_four_forms() {
    let host = "Host: h.example\r\n";
    assert_eq!(of("GET http://a.example/b?c HTTP/1.1", host).unwrap(), "absolute http://a.example/b?c");
    assert_eq!(of("GET /b?c HTTP/1.1", host).unwrap(), "origin http://h.example/b?c");
    assert_eq!(of("GET /b HTTP/1.1", "Host: [::1]:8080\r\n").unwrap(), "origin http://[::1]:8080/b");
    assert_eq!(of("CONNECT a.example:443 HTTP/1.1", host).unwrap(), "authority a.example:443");
    assert_eq!(of("OPTIONS * HTTP/1.1", host).unwrap(), "asterisk");
}

#[test]
fn forms_that_the_method_does_not_have() {
    let host = "Host: h.example\r\n";
    for line in ["GET * HTTP/1.1", "GET a.example:443 HTTP/1.1", "GET a HTTP/1.1", "GET ://a/ HTTP/1.1"] {
        assert_eq!(of(line, host), Err(TargetError::Form), "{line}");
    }
    assert_eq!(of("CONNECT /x HTTP/1.1", host), Err(TargetError::Port));
    assert_eq!(of("CONNECT a.example HTTP/1.1", host), Err(TargetError::Port));
    assert_eq!(of("CONNECT http://a.example:443 HTTP/1.1", host), Err(TargetError::Port));
    assert_eq!(of("CONNECT user@a.example:443 HTTP/1.1", host), Err(TargetError::Host));
    assert_eq!(of("GET https://a.example/ HTTP/1.1", host), Err(TargetError::Scheme));
    assert_eq!(of("GET ftp://a.example/ HTTP/1.1", host), Err(TargetError::Scheme));
    assert_eq!(of("GET http://a.example/#x HTTP/1.1", host), Err(TargetError::Fragment));
}

#[test]
fn host_is_checked_but_an_absolute_target_wins() {
    let line = "GET http://a.example/ HTTP/1.1";
    assert_eq!(of(line, "Host: other.example\r\n").unwrap(), "absolute http://a.example/");
    assert_eq!(of(line, ""), Err(TargetError::NoHost));
    assert_eq!(of(line, "Host: a.example\r\nhost: a.example\r\n"), Err(TargetError::SeveralHosts));
    assert_eq!(of(line, "Host: a.example, b.example\r\n"), Err(TargetError::Host));
    assert_eq!(of(line, "Host: a b\r\n"), Err(TargetError::Host));
    assert_eq!(of(line, "Host: a:b\r\n"), Err(TargetError::Port));
    assert_eq!(of("GET http://a.example/ HTTP/1.0", "").unwrap(), "absolute http://a.example/");
    assert_eq!(of("GET /x HTTP/1.0", ""), Err(TargetError::NoHost));
    assert_eq!(of("GET /x HTTP/1.1", "Host:\r\n"), Err(TargetError::NoHost));
}

#[test]
fn uris() {
    let uri = Uri::parse("HTTP://user:pw@[2001:db8::1]:8080?q").unwrap();
    assert_eq!(uri.host, Host::Ip("2001:db8::1".parse::<IpAddr>().unwrap()));
    assert_eq!((uri.port, uri.has_userinfo, uri.is_bare()), (8080, true, false));
    assert_eq!(uri.path_and_query().to_string(), "/?q");
    assert_eq!(uri.to_string(), "http://[2001:db8::1]:8080/?q");
    assert_eq!(uri.len(), uri.to_string().len());

    let uri = Uri::parse("http://A.example:80").unwrap();
    assert_eq!((uri.host, uri.port, uri.is_bare()), (Host::Name("A.example"), 80, true));
    assert_eq!(uri.host_field().to_string(), "A.example");
    assert_eq!(uri.authority().to_string(), "A.example:80");
    assert_eq!(uri.to_string(), "http://A.example/");

    // The last @ ends the userinfo: what stands before it can't pose as the host.
    assert_eq!(Uri::parse("http://a.example@b.example/").unwrap().host, Host::Name("b.example"));
    assert_eq!(Uri::parse("http://a.example/@b").unwrap().host, Host::Name("a.example"));
    assert_eq!(Uri::parse("http://1.2.3.4:/").unwrap().host, Host::Ip("1.2.3.4".parse::<IpAddr>().unwrap()));
}

#[test]
fn hosts_and_ports_that_are_refused() {
    let long = format!("http://{}/", "a".repeat(256));
    for uri in [
        "http://",
        "http:///x",
        "http://:80/",
        "http://a%2fb/",
        "http://a\\b/",
        "http://[::1]x/",
        long.as_str(),
    ] {
        assert_eq!(Uri::parse(uri), Err(TargetError::Host), "{uri}");
    }
    for uri in ["http://[fe80::1%25eth0]/", "http://[1.2.3.4]/", "http://bücher.example/"] {
        assert_eq!(Uri::parse(uri), Err(TargetError::Host), "{uri}");
    }
    for port in ["0", "65536", "+80", "-1", "8 0", "80:80", "99999999999999999999999"] {
        assert_eq!(Authority::parse(&format!("a:{port}"), Some(80)), Err(TargetError::Port), "{port}");
    }
    assert_eq!(Uri::parse("http://[::1]x:80/"), Err(TargetError::Host));
    assert_eq!(Uri::parse("http://::1/"), Err(TargetError::Port));
    assert_eq!(Uri::parse("http://[::1/"), Err(TargetError::Port));
    assert_eq!(Uri::parse("nothing"), Err(TargetError::Form));
}

proptest! {
    #[test]
    fn parsing_never_panics(text in "\\PC{0,60}") {
        let _ = Uri::parse(&text);
        let _ = Authority::parse(&text, None);
    }

    #[test]
    fn what_is_displayed_is_parsed_to_the_same(
        host in "[a-z][a-z0-9.-]{0,20}|\\[[0-9a-f]{1,4}::[0-9a-f]{1,4}\\]|[0-9]{1,2}\\.0\\.0\\.1",
        port in prop::option::of(1u16..),
        path in "(/[!-\"$-~]{0,20})?",
    ) {
        let port = port.map_or(String::new(), |port| format!(":{port}"));
        let text = format!("http://{host}{port}{path}");
        let uri = Uri::parse(&text).unwrap();
        let shown = uri.to_string();
        let again = Uri::parse(&shown).unwrap();
        prop_assert_eq!(again.authority(), uri.authority());
        prop_assert_eq!(again.to_string(), shown.as_str());
        prop_assert_eq!(shown.ends_with(if path.is_empty() { "/" } else { &path }), true);
    }
}
