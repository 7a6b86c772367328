//! The first coordinator's word on its way over routers that don't know it.

use bamqp_core::channel::{Challenge, Identity, Tally};
use bamqp_core::http::request::Request;
use bamqp_core::http::target::Uri;
use bamqp_core::http::validator::Validator;
use bamqp_core::http::write::HeadWriter;
use bamqp_core::ledger::evidence::{self, Mismatch};
use bamqp_core::ledger::{InitEvent, Text};
use bamqp_core::limits::MAX_PEER_HEAD_BYTES;
use bamqp_core::message::first::First;
use bamqp_core::message::init::Init;
use bamqp_core::message::{Fingerprint, MessageError, PeerRequest, SessionId};
use bamqp_core::signature::{FIRST_BUFFER_BYTES, SignatureError, first_of, verify_first};

const CHALLENGE: Challenge = Challenge { log_head: [7; 32], random: [8; 16] };

fn identity(seed: u8) -> Identity {
    Identity::from_seed([seed; 32]).unwrap()
}

fn init(recipient: Fingerprint) -> Init<'static> {
    Init {
        session: SessionId([5; 16]),
        target: Uri::parse("http://a.example/f?x=1").unwrap(),
        size: 12_345,
        validator: Validator::entity_tag(b"\"v\"").unwrap(),
        hops: 0,
        recipient,
        first: None,
        user_agent: Some(b"curl/8"),
        accept: None,
    }
}

/// `from`'s INIT to `to`, as it goes over the wire.
fn sealed(from: &Identity, to: &Identity, init: &Init<'_>) -> Vec<u8> {
    let mut buffer = [0; 2 * MAX_PEER_HEAD_BYTES];
    let mut head = HeadWriter::new(&mut buffer);
    init.write(&mut head, &"10.0.0.2:7733");
    let at_from = from.agree(to.public_key()).unwrap();
    let (length, ..) = from.seal_init(head, init, &at_from, &CHALLENGE, &mut Tally::default()).unwrap();
    buffer[..length].to_vec()
}

fn parsed(head: &[u8]) -> (Request<'_>, Init<'_>) {
    let request = Request::parse(head).unwrap().unwrap().0;
    let Ok(PeerRequest::Init(init)) = PeerRequest::parse(&request) else { panic!("no INIT") };
    (request, init)
}

/// What router 2 was asked by router 1, and passes on.
fn first(head: &[u8]) -> Option<First<'_>> {
    let (request, init) = parsed(head);
    let key = *identity(1).public_key();
    first_of(&init, &request, head, key, CHALLENGE, &mut [0; FIRST_BUFFER_BYTES])
}

/// An INIT of router 2.
fn verified(init: &Init<'_>) -> Result<(), SignatureError> {
    verified_from(2, init)
}

fn verified_from(asker: u8, init: &Init<'_>) -> Result<(), SignatureError> {
    verify_first(init, identity(asker).fingerprint(), &mut [0; FIRST_BUFFER_BYTES])
}

#[test]
fn it_is_verified_two_hops_on_and_goes_on_unchanged() {
    let (one, two, three, four) = (identity(1), identity(2), identity(3), identity(4));
    let asked = sealed(&one, &two, &init(two.fingerprint()));
    let first = first(&asked).expect("it is written as usual");
    let passed =
        Init { hops: 1, recipient: three.fingerprint(), first: Some(first), ..init(two.fingerprint()) };
    let passed = sealed(&two, &three, &passed);
    let (request, at_three) = parsed(&passed);
    assert_eq!((at_three.hops, at_three.first), (1, Some(first)));
    assert_eq!(verified(&at_three), Ok(()));
    // Router 3 passes on what it was given, not its own coordinator's word.
    let key = *two.public_key();
    let again = first_of(&at_three, &request, &passed, key, CHALLENGE, &mut [0; FIRST_BUFFER_BYTES]);
    assert_eq!(again, Some(first));
    let on = Init { hops: 2, recipient: four.fingerprint(), ..at_three.clone() };
    let on = sealed(&three, &four, &on);
    let (_, on) = parsed(&on);
    assert_eq!(verified_from(3, &on), Ok(()));
    // Router 3 can't say that router 1 asked it and not router 2.
    assert_eq!(verified_from(3, &Init { hops: 1, ..on }), Err(SignatureError::Mismatch));
    assert_eq!(first.to_string(), format!("{} asked {}", one.fingerprint(), two.fingerprint()));
}

#[test]
fn nothing_of_it_can_be_changed() {
    let (one, two, three) = (identity(1), identity(2), identity(3));
    let asked = sealed(&one, &two, &init(two.fingerprint()));
    let first = first(&asked).unwrap();
    let good =
        Init { hops: 1, recipient: three.fingerprint(), first: Some(first), ..init(two.fingerprint()) };
    assert_eq!(verified(&good), Ok(()));
    let with = |first: First<'static>| Init { first: Some(first), ..good.clone() };
    let owned = First { host: "10.0.0.2:7733", ..first };
    let mut signature = first.signature;
    signature[40] ^= 1;
    let bad = [
        Init { target: Uri::parse("http://a.example/other").unwrap(), ..good.clone() },
        Init { size: 12_346, ..good.clone() },
        Init { session: SessionId([6; 16]), ..good.clone() },
        Init { validator: Validator::entity_tag(b"\"w\"").unwrap(), ..good.clone() },
        Init { user_agent: Some(b"wget"), ..good.clone() },
        Init { accept: Some(b"*/*"), ..good.clone() },
        with(First { key: *two.public_key(), ..owned }),
        with(First { recipient: three.fingerprint(), ..owned }),
        with(First { host: "10.0.0.3:7733", ..owned }),
        with(First { challenge: Challenge { random: [9; 16], ..CHALLENGE }, ..owned }),
        with(First { signature, ..owned }),
    ];
    for init in bad {
        assert_eq!(verified(&init), Err(SignatureError::Mismatch), "{init:?}");
    }
    assert_eq!(verified(&Init { first: None, ..good.clone() }), Err(SignatureError::Missing));
    // What a host name can't be does not break anything.
    assert!(verified(&with(First { host: "a\r\nb: c", ..owned })).is_err());
}

#[test]
fn it_is_in_an_init_that_has_passed_a_router_and_in_no_other() {
    let (one, two, three) = (identity(1), identity(2), identity(3));
    let asked = sealed(&one, &two, &init(two.fingerprint()));
    let first = first(&asked).unwrap();
    let text = |hops, first| {
        let mut buffer = [0; MAX_PEER_HEAD_BYTES];
        let mut head = HeadWriter::new(&mut buffer);
        Init { hops, first, recipient: three.fingerprint(), ..init(two.fingerprint()) }
            .write(&mut head, &"x");
        let length = head.finish().unwrap();
        buffer[..length].to_vec()
    };
    let error = |head: &[u8]| PeerRequest::parse(&Request::parse(head).unwrap().unwrap().0).err();
    assert_eq!(error(&text(1, Some(first))), None);
    assert_eq!(error(&text(0, None)), None);
    assert_eq!(error(&text(1, None)), Some(MessageError::Missing("BAMQP-First-Key")));
    assert_eq!(error(&text(0, Some(first))), Some(MessageError::Malformed("BAMQP-First-Key")));
}

#[test]
fn an_init_in_another_form_is_not_passed_on() {
    let (one, two) = (identity(1), identity(2));
    let asked = sealed(&one, &two, &init(two.fingerprint()));
    let text = String::from_utf8(asked).unwrap();
    let session = "BAMQP-Session: 05050505050505050505050505050505\r\n";
    let moved = text.replace(session, "").replace("BAMQP-Target", &format!("{session}BAMQP-Target"));
    assert!(first(moved.as_bytes()).is_some(), "the same text");
    let moved = text.replace(session, "").replace("BAMQP-Size", &format!("{session}BAMQP-Size"));
    assert_eq!(first(moved.as_bytes()), None);
}

#[test]
fn a_log_entry_with_a_false_one_is_no_evidence() {
    let (one, two, three) = (identity(1), identity(2), identity(3));
    let asked = sealed(&one, &two, &init(two.fingerprint()));
    let first = first(&asked).unwrap();
    let entry = |first: First<'_>| {
        let passed =
            Init { hops: 1, recipient: three.fingerprint(), first: Some(first), ..init(two.fingerprint()) };
        let head = sealed(&two, &three, &passed);
        let event = InitEvent {
            key: *two.public_key(),
            from: ([10, 0, 0, 2], 5).into(),
            session: passed.session,
            size: passed.size,
            uri: Text::Plain(b"http://a.example/f?x=1"),
            head: Text::Plain(&head),
        };
        evidence::check(&event, three.fingerprint(), &mut [0; evidence::BUFFER_BYTES])
    };
    assert!(entry(first).is_ok());
    // Router 2 signs what router 1 did not.
    let forged = First { key: *two.public_key(), ..first };
    assert_eq!(entry(forged), Err(Mismatch::First(SignatureError::Mismatch)));
}
