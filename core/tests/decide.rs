//! What is pooled and what is only relayed.

use bamqp_core::address::Refusal;
use bamqp_core::decide::{Decision, Relay, Situation, decide};
use bamqp_core::http::request::Request;
use bamqp_core::http::response::Response;
use bamqp_core::http::target::Uri;
use bamqp_core::http::validator::{NoValidator, Validator};
use bamqp_core::lesson::Lesson;
use bamqp_core::limits::MAX_URI_BYTES;
use bamqp_core::time::Span;

const SITUATION: Situation = Situation {
    address: Ok(()),
    lesson: None,
    fast_enough: 0,
    help: 0,
    peers: 3,
    min_size: 1000,
    own_rate: None,
    start_up: Span::from_millis(200),
};

/// One download that is pooled; each test changes one thing.
struct Case {
    method: &'static str,
    target: String,
    asked: String,
    status: u16,
    answered: String,
    situation: Situation,
}

fn plain() -> Case {
    Case {
        method: "GET",
        target: "http://a.example/f".into(),
        asked: String::new(),
        status: 200,
        answered: "Content-Length: 5000\r\nETag: \"v\"\r\n".into(),
        situation: SITUATION,
    }
}

impl Case {
    fn decide(&self) -> Decision {
        let asked =
            format!("{} {} HTTP/1.1\r\nHost: a.example\r\n{}\r\n", self.method, self.target, self.asked);
        let answered = format!("HTTP/1.1 {} X\r\n{}\r\n", self.status, self.answered);
        let (request, _) = Request::parse(asked.as_bytes()).unwrap().unwrap();
        let (response, _) = Response::parse(answered.as_bytes()).unwrap().unwrap();
        decide(&request, &Uri::parse(request.target).unwrap(), &response, &self.situation)
    }

    fn relay(&self) -> Relay {
        match self.decide() {
            Decision::Relay(reason) => reason,
            Decision::Aggregate(pool) => panic!("pooled: {pool:?}"),
        }
    }

    fn range(&self) -> (std::ops::Range<u64>, u64) {
        match self.decide() {
            Decision::Aggregate(pool) => (pool.range, pool.total),
            Decision::Relay(reason) => panic!("relayed: {reason}"),
        }
    }
}

#[test]
fn a_plain_download_is_pooled() {
    let Decision::Aggregate(pool) = plain().decide() else { panic!() };
    assert_eq!((pool.range, pool.total), (0..5000, 5000));
    assert_eq!(pool.validator, Validator::entity_tag(b"\"v\"").unwrap());
}

#[test]
fn what_does_not_matter() {
    for asked in
        ["Content-Length: 0\r\n", "Upgrade: h2c\r\n", "Cache-Control: no-cache\r\n", "Range: items=0-1\r\n"]
    {
        let case = Case { asked: asked.into(), ..plain() };
        assert_eq!(case.range(), (0..5000, 5000), "{asked}");
    }
    for more in
        ["Set-Cookie: a=b\r\n", "Content-Encoding: identity\r\n", "Cache-Control: public, max-age=1\r\n"]
    {
        let case = Case { answered: plain().answered + more, ..plain() };
        assert_eq!(case.range(), (0..5000, 5000), "{more}");
    }
}

#[test]
fn a_single_range_of_the_client_is_pooled() {
    for (range, first, end) in
        [("1000-2999", 1000, 3000), ("4000-", 4000, 5000), ("-2000", 3000, 5000), ("0-9999", 0, 5000)]
    {
        let case = Case {
            asked: format!("Range: bytes={range}\r\n"),
            status: 206,
            answered: format!(
                "Content-Range: bytes {first}-{}/5000\r\nContent-Length: {}\r\nETag: \"v\"\r\n",
                end - 1,
                end - first
            ),
            ..plain()
        };
        assert_eq!(case.range(), (first..end, 5000), "{range}");
    }
}

#[test]
fn a_200_to_a_range_is_pooled_only_if_the_file_changed() {
    let ignored = Case { asked: "Range: bytes=1000-\r\n".into(), ..plain() };
    assert_eq!(ignored.relay(), Relay::NoRanges);
    let changed = Case { asked: "Range: bytes=1000-\r\nIf-Range: \"old\"\r\n".into(), ..plain() };
    assert_eq!(changed.range(), (0..5000, 5000));
}

#[test]
fn requests_that_are_nobody_elses_business() {
    for asked in ["Authorization: Basic x\r\n", "cookie: a=b\r\n", "Proxy-Authorization: x\r\n"] {
        assert_eq!(Case { asked: asked.into(), ..plain() }.relay(), Relay::Credentials, "{asked}");
    }
    assert_eq!(Case { target: "http://u@a.example/f".into(), ..plain() }.relay(), Relay::Credentials);
    assert_eq!(Case { asked: "Cache-Control: No-Store\r\n".into(), ..plain() }.relay(), Relay::Private);
}

#[test]
fn requests_that_are_no_plain_get() {
    assert_eq!(Case { method: "HEAD", ..plain() }.relay(), Relay::Method);
    assert_eq!(Case { method: "POST", ..plain() }.relay(), Relay::Method);
    assert_eq!(Case { asked: "Content-Length: 1\r\n".into(), ..plain() }.relay(), Relay::RequestBody);
    assert_eq!(
        Case { asked: "Transfer-Encoding: chunked\r\n".into(), ..plain() }.relay(),
        Relay::RequestBody
    );
    let upgrade = "Connection: upgrade\r\nUpgrade: websocket\r\n";
    assert_eq!(Case { asked: upgrade.into(), ..plain() }.relay(), Relay::Upgrade);
    assert_eq!(Case { asked: "Range: bytes=0-1,3-4\r\n".into(), ..plain() }.relay(), Relay::SeveralRanges);
}

#[test]
fn uris_up_to_the_limit_are_pooled() {
    let uri = |length: usize| format!("http://a.example/{}", "x".repeat(length - 17));
    assert_eq!(Case { target: uri(MAX_URI_BYTES), ..plain() }.range(), (0..5000, 5000));
    assert_eq!(Case { target: uri(MAX_URI_BYTES + 1), ..plain() }.relay(), Relay::LongUri);
}

#[test]
fn responses_that_are_relayed() {
    let with = |more: &str| Case { answered: plain().answered + more, ..plain() }.relay();
    assert_eq!(with("Content-Encoding: gzip\r\n"), Relay::Encoded);
    assert_eq!(with("Cache-Control: max-age=1, no-store\r\n"), Relay::Private);
    assert_eq!(with("Cache-Control: private=\"x\"\r\n"), Relay::Private);
    assert_eq!(with("Accept-Ranges: none\r\n"), Relay::NoRanges);
    assert_eq!(with("Content-Type: multipart/byteranges; boundary=x\r\n"), Relay::SeveralRanges);
    assert_eq!(with("Content-Length: 6000\r\n"), Relay::LengthUnknown);
    assert_eq!(with("ETag: \"w\"\r\n"), Relay::Validator(NoValidator::Ambiguous));

    let answered = |answered: &str| Case { answered: answered.into(), ..plain() }.relay();
    assert_eq!(answered("Transfer-Encoding: chunked\r\nETag: \"v\"\r\n"), Relay::Encoded);
    assert_eq!(answered("ETag: \"v\"\r\n"), Relay::LengthUnknown);
    assert_eq!(answered("Content-Length: 5000\r\n"), Relay::Validator(NoValidator::Missing));
    assert_eq!(answered("Content-Length: 5000\r\nETag: W/\"v\"\r\n"), Relay::Validator(NoValidator::Weak));
    assert_eq!(answered("Content-Length: 0\r\nETag: \"v\"\r\n"), Relay::TooSmall);
    assert_eq!(answered("Content-Length: 18446744073709551615\r\nETag: \"v\"\r\n"), Relay::TooLarge);
    for status in [203, 204, 302, 404, 416] {
        assert_eq!(Case { status, ..plain() }.relay(), Relay::Status(status));
    }
}

#[test]
fn a_206_has_to_be_what_was_asked() {
    let case = |asked: &str, range: &str, length: u64| Case {
        asked: format!("Range: bytes={asked}\r\n"),
        status: 206,
        answered: format!("Content-Range: bytes {range}\r\nContent-Length: {length}\r\nETag: \"v\"\r\n"),
        ..plain()
    };
    assert_eq!(case("1000-2999", "1000-2999/5000", 2000).range(), (1000..3000, 5000));
    for (asked, range, length) in [
        ("1000-2999", "1000-2998/5000", 1999),
        ("1000-2999", "1000-2999/*", 2000),
        ("1000-2999", "1000-2999/5000", 1999),
        ("-2000", "1000-2999/5000", 2000),
    ] {
        assert_eq!(case(asked, range, length).relay(), Relay::OtherRange, "{asked} {range} {length}");
    }
    let unasked = Case { asked: String::new(), ..case("1000-2999", "1000-2999/5000", 2000) };
    assert_eq!(unasked.relay(), Relay::OtherRange);
}

#[test]
fn the_situation_has_to_be_worth_it() {
    let with = |situation| Case { situation, ..plain() };
    assert_eq!(with(Situation { peers: 0, ..SITUATION }).relay(), Relay::NoPeers);
    let refused = Situation { address: Err(Refusal::NotPublic), ..SITUATION };
    assert_eq!(with(refused).relay(), Relay::Address(Refusal::NotPublic));
    assert_eq!(with(Situation { min_size: 5000, ..SITUATION }).range(), (0..5000, 5000));
    assert_eq!(with(Situation { min_size: 5001, ..SITUATION }).relay(), Relay::TooSmall);
    // 25,000 bytes per second are 5000 bytes in the 200 ms until peers begin.
    assert_eq!(with(Situation { own_rate: Some(24_999), ..SITUATION }).range(), (0..5000, 5000));
    assert_eq!(with(Situation { own_rate: Some(25_000), ..SITUATION }).relay(), Relay::SoonDone);
    assert_eq!(with(Situation { own_rate: Some(u64::MAX), ..SITUATION }).relay(), Relay::SoonDone);
    let lesson = Some(Lesson::RefusesPeers(403));
    let taught = Relay::Lesson(Lesson::RefusesPeers(403));
    assert_eq!(with(Situation { lesson, ..SITUATION }).relay(), taught);
    // An own link that is fast enough wants no help; where its rate is not known, that can't be said.
    let fast = Situation { fast_enough: 10_000, own_rate: Some(10_000), ..SITUATION };
    assert_eq!(with(fast).relay(), Relay::FastEnough);
    assert_eq!(with(Situation { own_rate: Some(9_999), ..fast }).range(), (0..5000, 5000));
    assert_eq!(with(Situation { own_rate: None, ..fast }).range(), (0..5000, 5000));
}

#[test]
fn what_peers_may_bring_has_to_outweigh_the_time_until_they_begin() {
    // 10 kB/s take 500 ms for 5000 bytes; peers begin after 200 ms, when 3000 are left.
    let with = |help| Case { situation: Situation { own_rate: Some(10_000), help, ..SITUATION }, ..plain() };
    assert_eq!(with(0).range(), (0..5000, 5000), "nobody knows");
    assert_eq!(with(10_000).range(), (0..5000, 5000), "350 ms");
    assert_eq!(with(580).range(), (0..5000, 5000), "one part in 32 sooner");
    assert_eq!(with(500).relay(), Relay::NoGain);
    assert_eq!(with(u64::MAX).range(), (0..5000, 5000));
}

#[test]
fn only_what_is_still_to_come_counts_for_the_size() {
    let case = Case {
        asked: "Range: bytes=4500-\r\n".into(),
        status: 206,
        answered: "Content-Range: bytes 4500-4999/5000\r\nContent-Length: 500\r\nETag: \"v\"\r\n".into(),
        ..plain()
    };
    assert_eq!(case.relay(), Relay::TooSmall);
}
