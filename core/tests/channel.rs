//! Two routers' authenticated channel: what is accepted, and everything that is not.

use bamqp_core::channel::{
    Callee, Caller, Challenge, Identity, Incoming, Introduced, Links, Neighbour, Outgoing, Reference,
    Refusal, Sequence, Tally,
};
use bamqp_core::http::request::Request;
use bamqp_core::http::response::Response;
use bamqp_core::http::target::Uri;
use bamqp_core::http::validator::Validator;
use bamqp_core::http::write::HeadWriter;
use bamqp_core::limits::{MAX_CLIENT_FIELD_BYTES, MAX_PEER_HEAD_BYTES, MAX_URI_BYTES};
use bamqp_core::message::chunk::{Chunk, ChunkAnswer, ChunkDigest};
use bamqp_core::message::drop::{Drop, Summary};
use bamqp_core::message::feedback::{self, Feedback, Part, Verdict};
use bamqp_core::message::init::{Accept, Decline, Init};
use bamqp_core::message::reason::{DeclineReason, DropReason};
use bamqp_core::message::{Fingerprint, PeerRequest, SessionId};
use bamqp_core::signature::verify_init;
use proptest::prelude::*;

const HOST: &str = "10.77.0.2:7733";
const SESSION: SessionId = SessionId(*b"\x00\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\xff");
const CHALLENGE: Challenge = Challenge { log_head: bytes_from::<32>(0), random: bytes_from::<16>(32) };

const fn bytes_from<const N: usize>(first: u8) -> [u8; N] {
    let mut bytes = [0; N];
    let mut i = 0;
    while i < N {
        bytes[i] = first + i as u8;
        i += 1;
    }
    bytes
}

/// Written by other software; see tests/signature.rs.
const SIGNED_INIT: &str = include_str!("signed_init.http");

/// Coordinator and peer as they know each other.
struct Two {
    coordinator: Identity,
    peer: Identity,
    at_coordinator: Neighbour,
    at_peer: Neighbour,
}

fn two(coordinator: u8, peer: u8) -> Two {
    let coordinator = Identity::from_seed([coordinator; 32]).unwrap();
    let peer = Identity::from_seed([peer; 32]).unwrap();
    let at_coordinator = coordinator.agree(peer.public_key()).unwrap();
    let at_peer = peer.agree(coordinator.public_key()).unwrap();
    Two { coordinator, peer, at_coordinator, at_peer }
}

fn tag() -> Validator {
    Validator::entity_tag(b"\"v\"").unwrap()
}

fn init(recipient: Fingerprint, target: &str) -> Init<'_> {
    Init {
        session: SESSION,
        target: Uri::parse(target).unwrap(),
        size: 12_345,
        validator: tag(),
        hops: 0,
        recipient,
        first: None,
        user_agent: Some(b"curl/8"),
        accept: Some(b"*/*"),
    }
}

impl Two {
    fn signed_init_of(
        &self,
        challenge: &Challenge,
        init: &Init<'_>,
        tally: &mut Tally,
    ) -> (String, Caller, Reference) {
        let mut buffer = [0; 2 * MAX_PEER_HEAD_BYTES];
        let mut head = HeadWriter::new(&mut buffer);
        init.write(&mut head, &HOST);
        let sealed = self.coordinator.seal_init(head, init, &self.at_coordinator, challenge, tally);
        let (length, caller, reference) = sealed.unwrap();
        (String::from_utf8(buffer[..length].to_vec()).unwrap(), caller, reference)
    }

    fn signed_init(&self, challenge: &Challenge) -> (String, Caller, Reference) {
        let init = init(self.peer.fingerprint(), "http://a.example/f");
        self.signed_init_of(challenge, &init, &mut Tally::default())
    }

    /// What the peer makes of an INIT, its signature included.
    fn receive(
        &self,
        text: &str,
        challenge: Option<&Challenge>,
        tally: &mut Tally,
    ) -> Result<(Callee, Reference), Refusal> {
        let request = request(text);
        let Ok(PeerRequest::Init(init)) = PeerRequest::parse(&request) else { panic!("no INIT: {text}") };
        let find = |key| (key == self.at_peer.fingerprint).then_some(&self.at_peer);
        let me = self.peer.fingerprint();
        let introduced = Introduced::by(&request, &init, me, challenge, find, tally)?;
        introduced.verify_signature(&request, tally)?;
        Ok((introduced.callee, introduced.request))
    }

    /// A session as it stands after ACCEPT.
    fn session(&self) -> (Caller, Callee) {
        let (text, caller, _) = self.signed_init(&CHALLENGE);
        let (callee, _) = self.receive(&text, Some(&CHALLENGE), &mut Tally::default()).unwrap();
        (caller, callee)
    }
}

fn request(text: &str) -> Request<'_> {
    Request::parse(text.as_bytes()).unwrap().unwrap().0
}

fn response(text: &str) -> Response<'_> {
    Response::parse(text.as_bytes()).unwrap().unwrap().0
}

fn sealed(
    caller: &Caller,
    link: &mut Outgoing,
    write: impl FnOnce(&mut HeadWriter<'_>),
) -> (String, Reference) {
    let mut buffer = [0; MAX_PEER_HEAD_BYTES];
    let mut head = HeadWriter::new(&mut buffer);
    write(&mut head);
    let (length, reference) = caller.seal(head, link).unwrap();
    (String::from_utf8(buffer[..length].to_vec()).unwrap(), reference)
}

fn chunk(caller: &Caller, link: &mut Outgoing) -> (String, Reference) {
    sealed(caller, link, |head| Chunk { session: SESSION, range: 0..100 }.write(head, &"bamqp"))
}

fn answer(callee: &Callee, to: &Reference, write: impl FnOnce(&mut HeadWriter<'_>)) -> String {
    let mut buffer = [0; MAX_PEER_HEAD_BYTES];
    let mut head = HeadWriter::new(&mut buffer);
    write(&mut head);
    let length = callee.seal(head, to).unwrap();
    String::from_utf8(buffer[..length].to_vec()).unwrap()
}

fn chunk_answer(callee: &Callee, to: &Reference) -> String {
    answer(callee, to, |head| {
        ChunkAnswer { range: 0..100, total: 12_345, validator: &tag(), previous: Some(ChunkDigest([7; 32])) }
            .write(head)
    })
}

/// The peer's end of one connection.
#[derive(Default)]
struct Link(Option<Incoming>);

impl Link {
    fn take(&mut self, callee: &Callee, links: &mut Links, text: &str) -> Result<Reference, Refusal> {
        callee.check(&request(text), links, &mut self.0)
    }
}

#[test]
fn an_init_is_what_other_software_makes_of_the_documentation() {
    let two = two(1, 2);
    assert_eq!(two.signed_init(&CHALLENGE).0, SIGNED_INIT);
    assert!(two.receive(SIGNED_INIT, Some(&CHALLENGE), &mut Tally::default()).is_ok());
}

#[test]
fn a_session_from_init_to_summary() {
    let two = two(1, 2);
    let (mut ours, mut theirs) = (Tally::default(), Tally::default());
    let init = init(two.peer.fingerprint(), "http://a.example/f");
    let (text, caller, reference) = two.signed_init_of(&CHALLENGE, &init, &mut ours);
    assert_eq!(verify_init(&request(&text), two.coordinator.public_key()), Ok(()));
    let (callee, received) = two.receive(&text, Some(&CHALLENGE), &mut theirs).unwrap();
    assert_eq!((received, callee.coordinator()), (reference, two.coordinator.fingerprint()));
    let accept = Accept { target: init.target, bandwidth: 1, hold: 2 };
    assert_eq!(
        caller.check(&response(&answer(&callee, &received, |head| accept.write(head))), &reference),
        Ok(())
    );

    let (mut links, mut link) = (Links::AFTER_INIT, Link(Some(Incoming::AFTER_INIT)));
    let mut outgoing = caller.first_link();
    // Several are on their way before the first is answered.
    let sent: Vec<_> = (0..100).map(|_| chunk(&caller, &mut outgoing)).collect();
    for (place, (text, reference)) in sent.iter().enumerate() {
        let received = link.take(&callee, &mut links, text).unwrap();
        assert_eq!(received.sequence, Sequence { link: 0, place: place as u32 + 1 });
        assert_eq!(caller.check(&response(&chunk_answer(&callee, &received)), reference), Ok(()));
    }
    let drop = Drop { session: SESSION, reason: DropReason::Done, retry_after: 0 };
    let (text, reference) = sealed(&caller, &mut outgoing, |head| drop.write_request(head, &HOST));
    let received = link.take(&callee, &mut links, &text).unwrap();
    let summary = answer(&callee, &received, |head| Summary::new().write(head));
    assert_eq!(caller.check(&response(&summary), &reference), Ok(()));
    // One Ed25519 operation a side, whatever the number of chunks.
    assert_eq!((ours.signed, ours.verified), (1, 0));
    assert_eq!((theirs.signed, theirs.verified), (0, 1));
}

#[test]
fn a_forged_init_costs_no_ed25519_operation() {
    let two = two(1, 2);
    let (text, ..) = two.signed_init(&CHALLENGE);
    for (old, new) in [
        ("POST /INIT", "POST /INIT"), // by a stranger who does not know K, see below
        ("Host: 10.77.0.2", "Host: 10.77.0.3"),
        ("Content-Length: 0", "Content-Length: 00"),
        ("BAMQP-Session: 00", "BAMQP-Session: 01"),
        ("a.example/f", "a.example/g"),
        ("BAMQP-Size: 12345", "BAMQP-Size: 12346"),
        ("\"v\"", "\"w\""),
        ("BAMQP-Hops: 0", "BAMQP-Hops: 00"),
        ("curl/8", "curl/9"),
        ("*/*", "*/x"),
        ("init=:5", "init=:6"),
        ("mac=:6", "mac=:7"),
    ] {
        let mut tally = Tally::default();
        let changed = match old == new {
            true => text.replace("init=:5OAd", "init=:AAAA").replace("mac=:6cgH", "mac=:AAAA"),
            false => text.replacen(old, new, 1),
        };
        assert_ne!(changed, text);
        assert_eq!(
            two.receive(&changed, Some(&CHALLENGE), &mut tally).err(),
            Some(Refusal::BadMac),
            "{old} -> {new}"
        );
        assert_eq!(tally, Tally { macs: 1, signed: 0, verified: 0 });
    }
    // Not even a MAC is computed where the terms are not ours.
    for (old, new, expected) in [
        (";tag=\"bamqp\"", ";tag=\"other\"", Refusal::Coverage),
        (" \"accept\")", ")", Refusal::Coverage),
        ("User-Agent: curl/8\r\n", "", Refusal::Coverage),
        ("User-Agent: curl/8\r\n", "User-Agent: curl/8\r\nX: y\r\n", Refusal::Coverage),
        ("User-Agent: curl/8\r\n", "User-Agent: curl/8\r\nUser-Agent: curl/8\r\n", Refusal::Coverage),
        ("alg=\"hmac-sha256\"", "alg=\"ed25519\"", Refusal::Coverage),
        ("alg=\"ed25519\"", "alg=\"hmac-sha256\"", Refusal::Coverage),
        ("Signature: mac=", "Signature: cam=", Refusal::Unsigned),
        ("Signature-Input: init=", "Signature-Input: tini=", Refusal::Unsigned),
        ("mac=:6", "mac=:?", Refusal::Coverage),
    ] {
        let mut tally = Tally::default();
        let changed = text.replacen(old, new, 1);
        assert_ne!(changed, text);
        assert_eq!(
            two.receive(&changed, Some(&CHALLENGE), &mut tally).err(),
            Some(expected),
            "{old} -> {new}"
        );
        assert_eq!((tally.signed, tally.verified), (0, 0));
    }
}

#[test]
fn an_init_is_good_for_one_recipient_one_challenge_and_one_key() {
    let two = two(1, 2);
    let (text, ..) = two.signed_init(&CHALLENGE);
    let mut tally = Tally::default();
    // Another challenge is open: it was recorded earlier, or on another connection. None is: it comes a second time.
    let other = Challenge { random: [9; 16], ..CHALLENGE };
    assert_eq!(two.receive(&text, Some(&other), &mut tally).err(), Some(Refusal::StaleChallenge));
    assert_eq!(two.receive(&text, None, &mut tally).err(), Some(Refusal::StaleChallenge));
    // Sent on to another router, which gave out the same challenge: the liability evidence is no good there.
    let third = self::two(1, 3);
    assert_eq!(third.receive(&text, Some(&CHALLENGE), &mut tally).err(), Some(Refusal::WrongRecipient));
    // Signed by a router that is not configured, in its own name and in another's.
    let stranger = self::two(4, 2);
    let theirs = stranger.signed_init(&CHALLENGE).0;
    assert_eq!(two.receive(&theirs, Some(&CHALLENGE), &mut tally).err(), Some(Refusal::UnknownKey));
    assert_eq!(tally, Tally::default(), "nothing was computed");
    let (from, to) =
        (stranger.coordinator.fingerprint().to_string(), two.coordinator.fingerprint().to_string());
    let impersonated = theirs.replace(&from, &to);
    assert_eq!(two.receive(&impersonated, Some(&CHALLENGE), &mut tally).err(), Some(Refusal::BadMac));
    // Reflected to the one who made it: keys have a direction.
    let back = Two { at_peer: two.at_coordinator.clone(), peer: two.coordinator.clone(), ..self::two(1, 2) };
    assert_eq!(back.receive(&text, Some(&CHALLENGE), &mut tally).err(), Some(Refusal::UnknownKey));
    assert_eq!(tally.verified, 0);
}

#[test]
fn a_signature_that_would_be_denied_later_is_refused_although_the_mac_fits() {
    // The MAC of a coordinator that has another signing key than the one that is agreed on: it computes all else right.
    let (two, other) = (two(1, 2), two(5, 2));
    let (good, ..) = two.signed_init(&CHALLENGE);
    let request = request(&good);
    let Ok(PeerRequest::Init(init)) = PeerRequest::parse(&request) else { panic!() };
    let find = |_| Some(&two.at_peer);
    let mut tally = Tally::default();
    let introduced =
        Introduced::by(&request, &init, two.peer.fingerprint(), Some(&CHALLENGE), find, &mut tally).unwrap();
    let theirs = other.signed_init(&CHALLENGE).0;
    assert_eq!(introduced.verify_signature(&self::request(&theirs), &mut tally), Err(Refusal::BadSignature));
    assert_eq!(tally.verified, 1);
}

#[test]
fn requests_are_accepted_once_and_in_order() {
    let two = two(1, 2);
    let (caller, callee) = two.session();
    let (mut links, mut link) = (Links::AFTER_INIT, Link(Some(Incoming::AFTER_INIT)));
    let mut outgoing = caller.first_link();
    let [one, two_, three] = core::array::from_fn(|_| chunk(&caller, &mut outgoing).0);
    assert_eq!(link.take(&callee, &mut links, &two_), Err(Refusal::OutOfOrder));
    assert!(link.take(&callee, &mut links, &one).is_ok());
    assert_eq!(link.take(&callee, &mut links, &one), Err(Refusal::Replayed));
    assert_eq!(link.take(&callee, &mut links, &three), Err(Refusal::OutOfOrder));
    assert!(link.take(&callee, &mut links, &two_).is_ok());
    assert_eq!(link.take(&callee, &mut links, &one), Err(Refusal::Replayed));
    assert!(link.take(&callee, &mut links, &three).is_ok());
    // The same on a connection of the attacker's.
    for text in [&one, &two_, &three] {
        assert_eq!(Link::default().take(&callee, &mut links, text), Err(Refusal::Replayed));
    }
    // A second connection of the coordinator, and a recording of it.
    let mut spare = caller.next_link();
    let [first, second] = core::array::from_fn(|_| chunk(&caller, &mut spare).0);
    assert_eq!(Link::default().take(&callee, &mut links, &second), Err(Refusal::OutOfOrder));
    let mut other = Link::default();
    assert!(other.take(&callee, &mut links, &first).is_ok());
    assert_eq!(link.take(&callee, &mut links, &second), Err(Refusal::Replayed), "on the wrong connection");
    assert!(other.take(&callee, &mut links, &second).is_ok());
    assert_eq!(Link::default().take(&callee, &mut links, &first), Err(Refusal::Replayed));
}

#[test]
fn another_session_another_router_or_none_can_not_ask() {
    let two = two(1, 2);
    let (caller, callee) = two.session();
    let take = |text: &str| {
        Link(Some(Incoming::AFTER_INIT)).take(&callee, &mut Links::AFTER_INIT.clone(), text).err()
    };
    let (text, reference) = chunk(&caller, &mut caller.first_link());
    assert_eq!(take(&text), None);
    // The same session id under a new challenge: new keys.
    let (_, later, _) = two.signed_init(&Challenge { random: [9; 16], ..CHALLENGE });
    assert_eq!(take(&chunk(&later, &mut later.first_link()).0), Some(Refusal::BadMac));
    // Another peer of the same coordinator in the same session, another coordinator of the same peer.
    let (third, _) = self::two(1, 3).session();
    assert_eq!(take(&chunk(&third, &mut third.first_link()).0), Some(Refusal::BadMac));
    let (stranger, _) = self::two(4, 2).session();
    assert_eq!(take(&chunk(&stranger, &mut stranger.first_link()).0), Some(Refusal::Coverage));
    // No signature at all; an answer in place of a request; INIT's fields.
    let (unsigned, _) = text.split_once("Signature-Input").unwrap();
    assert_eq!(take(&format!("{unsigned}\r\n")), Some(Refusal::Unsigned));
    assert_eq!(take(SIGNED_INIT), Some(Refusal::Coverage));
    // The answers of others are none.
    let good = chunk_answer(&callee, &reference);
    assert_eq!(caller.check(&response(&good), &reference), Ok(()));
    let other = chunk_answer(&self::two(1, 3).session().1, &reference);
    assert_eq!(caller.check(&response(&other), &reference), Err(Refusal::Coverage));
    assert_eq!(later.check(&response(&good), &reference), Err(Refusal::BadMac));
    assert_eq!(
        caller.check(&response("HTTP/1.1 503 X\r\nBAMQP-Reason: busy\r\n\r\n"), &reference),
        Err(Refusal::Unsigned)
    );
}

#[test]
fn an_answer_belongs_to_one_request() {
    let (caller, callee) = two(1, 2).session();
    let mut outgoing = caller.first_link();
    let [(_, one), (_, two)] = core::array::from_fn(|_| chunk(&caller, &mut outgoing));
    let (of_one, of_two) = (chunk_answer(&callee, &one), chunk_answer(&callee, &two));
    assert_eq!(caller.check(&response(&of_one), &two), Err(Refusal::BadMac));
    assert_eq!(caller.check(&response(&of_two), &one), Err(Refusal::BadMac));
    assert_eq!(caller.check(&response(&of_two), &two), Ok(()));
    // With the right MAC under the wrong number, which only the peer itself could write.
    let mixed = chunk_answer(&callee, &Reference { sequence: two.sequence, mac: one.mac });
    assert_eq!(caller.check(&response(&mixed), &one), Err(Refusal::OutOfOrder));
}

/// Each request after INIT and each answer, as it is sent; all have each of their fields.
fn messages(caller: &Caller, callee: &Callee) -> (Vec<String>, Vec<(String, Reference)>) {
    let drop = Drop { session: SESSION, reason: DropReason::OriginStatus(503), retry_after: 9 };
    let (drop_request, _) = sealed(caller, &mut caller.first_link(), |head| drop.write_request(head, &HOST));
    let part = |verdict| Part { router: Fingerprint([7; 16]), verdict, bytes: 12, timeouts: 1 };
    let parts = [part(Verdict::Lie), part(Verdict::Clean)].into_iter().collect();
    let feedback = Feedback { session: SESSION, parts };
    let (feedback, _) = sealed(caller, &mut caller.first_link(), |head| feedback.write(head, &HOST));
    let (chunk, reference) = chunk(caller, &mut caller.first_link());
    let decline = Decline { reason: DeclineReason::Busy, retry_after: 5 };
    let accept = Accept { target: Uri::parse("http://a.example/f").unwrap(), bandwidth: 1, hold: 2 };
    let mut summary = Summary::new();
    summary.add(0..100);
    let answers = [
        chunk_answer(callee, &reference),
        answer(callee, &reference, |head| drop.write_answer(head)),
        answer(callee, &reference, |head| decline.write(head)),
        answer(callee, &reference, |head| accept.write(head)),
        answer(callee, &reference, |head| {
            summary.write(head);
            ChunkDigest([7; 32]).write(head);
        }),
        answer(callee, &reference, feedback::write_answer),
    ];
    (vec![chunk, drop_request, feedback], answers.map(|text| (text, reference)).into())
}

/// Every way to tamper with a whole field: value, removal, repetition; and an additional one.
fn tampered(text: &str) -> Vec<String> {
    let lines: Vec<&str> = text.strip_suffix("\r\n\r\n").unwrap().split("\r\n").collect();
    let mut all = Vec::new();
    for place in 0..lines.len() {
        let (before, line, after) = (&lines[..place], lines[place], &lines[place + 1..]);
        let with = |new: &[&str]| [before, new, after].concat().join("\r\n") + "\r\n\r\n";
        if place > 0 {
            all.extend([with(&[]), with(&[line, line]), with(&[line, "X-More: 1"])]);
        }
        // One more, one other and one letter less.
        let (start, last) = line.split_at(line.len() - 1);
        all.extend(["1", "x"].iter().map(|end| with(&[&format!("{line}{end}")])));
        all.push(with(&[&format!("{start}{}", if last == "1" { "2" } else { "1" })]));
        all.push(with(&[start]));
    }
    for place in 1..lines.len() - 1 {
        let mut swapped = lines.clone();
        swapped.swap(place, place + 1);
        // Where Host and the signature fields stand makes no difference.
        if !swapped[place..place + 2]
            .iter()
            .any(|line| line.starts_with("Signature") || line.starts_with("Host:"))
        {
            all.push(swapped.join("\r\n") + "\r\n\r\n");
        }
    }
    all
}

#[test]
fn whatever_is_changed_in_a_message_is_refused() {
    let two = two(1, 2);
    let (caller, callee) = two.session();
    let (requests, answers) = messages(&caller, &callee);
    let mut count = 0;
    for changed in tampered(SIGNED_INIT) {
        let Ok(Some((request, _))) = Request::parse(changed.as_bytes()) else { continue };
        // What is no INIT at all is not looked at.
        let Ok(PeerRequest::Init(init)) = PeerRequest::parse(&request) else { continue };
        let find = |key| (key == two.at_peer.fingerprint).then_some(&two.at_peer);
        let (me, mut tally) = (two.peer.fingerprint(), Tally::default());
        let found = Introduced::by(&request, &init, me, Some(&CHALLENGE), find, &mut tally);
        assert!(found.is_err(), "accepted:\n{changed}\ninstead of\n{SIGNED_INIT}");
        count += 1;
    }
    assert!(count > 60, "{count}");
    count = 0;
    for text in &requests {
        for changed in tampered(text) {
            let Ok(Some((request, _))) = Request::parse(changed.as_bytes()) else { continue };
            let mut link = Some(Incoming::AFTER_INIT);
            let found = callee.check(&request, &mut Links::AFTER_INIT.clone(), &mut link);
            assert!(found.is_err(), "accepted:\n{changed}\ninstead of\n{text}");
            assert_eq!(link, Some(Incoming::AFTER_INIT), "refused, but counted");
            count += 1;
        }
    }
    for (text, reference) in &answers {
        for changed in tampered(text) {
            let Ok(Some((response, _))) = Response::parse(changed.as_bytes()) else { continue };
            if response.status == self::response(text).status
                && changed.split_once("\r\n").unwrap().1 == text.split_once("\r\n").unwrap().1
            {
                continue; // the reason phrase alone
            }
            assert!(caller.check(&response, reference).is_err(), "accepted:\n{changed}\ninstead of\n{text}");
            count += 1;
        }
    }
    assert!(count > 300, "{count}");
}

/// A request line, and names and values in their order.
type Meaning = (String, Vec<(String, Vec<u8>)>);

/// What a receiver reads out of a message: all but the case of names, the version and the reason phrase.
fn meaning(head: &[u8]) -> Option<Meaning> {
    let fields = |fields: &bamqp_core::http::fields::Fields<'_>| {
        fields.iter().map(|field| (field.name.to_lowercase(), field.value.to_vec())).collect()
    };
    if head.starts_with(b"HTTP/") {
        let (response, _) = Response::parse(head).ok()??;
        return Some((response.status.to_string(), fields(&response.fields)));
    }
    let (request, _) = Request::parse(head).ok()??;
    Some((format!("{} {}", request.method, request.target), fields(&request.fields)))
}

proptest! {
    #[test]
    fn one_byte_that_is_changed_changes_nothing_or_is_refused(which in 0usize..10, place: prop::sample::Index, to in 1u8..=255) {
        let two = two(1, 2);
        let (caller, callee) = two.session();
        let (requests, answers) = messages(&caller, &callee);
        let all = [SIGNED_INIT.to_string()].into_iter().chain(requests).chain(answers.iter().map(|(text, _)| text.clone()));
        let text = all.collect::<Vec<_>>().swap_remove(which);
        let mut changed = text.clone().into_bytes();
        let place = place.index(changed.len());
        changed[place] ^= to;
        let Some(found) = meaning(&changed) else { return Ok(()) };
        let accepted = match which {
            0 => {
                let (request, _) = Request::parse(&changed).unwrap().unwrap();
                let Ok(PeerRequest::Init(init)) = PeerRequest::parse(&request) else { return Ok(()) };
                let mut tally = Tally::default();
                let find = |key| (key == two.at_peer.fingerprint).then_some(&two.at_peer);
                let by = Introduced::by(&request, &init, two.peer.fingerprint(), Some(&CHALLENGE), find, &mut tally);
                by.is_ok_and(|introduced| introduced.verify_signature(&request, &mut tally).is_ok())
            }
            1..=3 => {
                let (request, _) = Request::parse(&changed).unwrap().unwrap();
                let mut link = Some(Incoming::AFTER_INIT);
                callee.check(&request, &mut Links::AFTER_INIT.clone(), &mut link).is_ok()
            }
            _ => {
                let (response, _) = Response::parse(&changed).unwrap().unwrap();
                caller.check(&response, &answers[0].1).is_ok()
            }
        };
        if accepted {
            let (mut found, mut expected) = (found, meaning(text.as_bytes()).unwrap());
            // "@authority" has no case, and a list may have empty members (RFC 9110 section 5.6.1).
            for meaning in [&mut found, &mut expected] {
                for (name, value) in &mut meaning.1 {
                    match name.as_str() {
                        "host" => value.make_ascii_lowercase(),
                        "signature" | "signature-input" => value.retain(|byte| !b", ".contains(byte)),
                        _ => {}
                    }
                }
            }
            prop_assert_eq!(found, expected);
        }
    }

    #[test]
    fn links_are_good_once(order in prop::collection::vec(0u32..100, 0..200)) {
        let (caller, callee) = two(1, 2).session();
        let mut texts: Vec<_> = (1..=100).map(|_| chunk(&caller, &mut caller.next_link()).0).collect();
        texts.insert(0, chunk(&caller, &mut caller.first_link()).0);
        let (mut links, mut used, mut highest) = (Links::AFTER_INIT, vec![0], 0);
        for link in order {
            let found = Link::default().take(&callee, &mut links, &texts[link as usize]);
            let expected = !used.contains(&link) && link + 63 >= highest;
            prop_assert_eq!(found.is_ok(), expected, "{} after {:?}", link, used);
            prop_assert!(expected || found == Err(Refusal::Replayed));
            if expected {
                used.push(link);
                highest = highest.max(link);
            }
        }
    }
}

#[test]
fn the_longest_init_fits_into_a_head() {
    let two = two(1, 2);
    let longest = format!("http://a.example/{}", "x".repeat(MAX_URI_BYTES - 17));
    let mut init = init(two.peer.fingerprint(), &longest);
    let etag = format!("\"{}\"", "v".repeat(126));
    init.validator = Validator::entity_tag(etag.as_bytes()).unwrap();
    let client = &[b'x'; MAX_CLIENT_FIELD_BYTES][..];
    (init.user_agent, init.accept) = (Some(client), Some(client));
    let (text, ..) = two.signed_init_of(&CHALLENGE, &init, &mut Tally::default());
    assert!(two.receive(&text, Some(&CHALLENGE), &mut Tally::default()).is_ok());
}

#[test]
fn what_is_not_ascii_or_comes_twice_is_not_signed() {
    let two = two(1, 2);
    let mut tally = Tally::default();
    let init = Init { user_agent: Some(b"caf\xe9"), ..init(two.peer.fingerprint(), "http://a.example/f") };
    let mut buffer = [0; MAX_PEER_HEAD_BYTES];
    let mut head = HeadWriter::new(&mut buffer);
    init.write(&mut head, &HOST);
    assert!(two.coordinator.seal_init(head, &init, &two.at_coordinator, &CHALLENGE, &mut tally).is_err());
    let (caller, _) = two.session();
    let mut head = HeadWriter::new(&mut buffer);
    head.request("GET", "/CHUNK").field("Host", "x").field("Range", "bytes=0-1").field("range", "bytes=0-1");
    assert!(caller.seal(head, &mut caller.first_link()).is_err());
}

#[test]
fn reasons_and_challenges_are_read_as_they_are_written() {
    for (place, refusal) in Refusal::ALL.into_iter().enumerate() {
        assert_eq!((refusal.to_string().parse(), refusal.index()), (Ok(refusal), place));
    }
    assert!("".parse::<Refusal>().is_err());
    let text = CHALLENGE.to_string();
    assert!(text.starts_with("000102") && text.ends_with(".202122232425262728292a2b2c2d2e2f"));
    assert_eq!(text.parse(), Ok(CHALLENGE));
    for bad in [text.replace('.', "0"), text.to_uppercase(), text[1..].into(), format!("{text}0")] {
        assert!(bad.parse::<Challenge>().is_err(), "{bad}");
    }
    assert_eq!("3.14".parse(), Ok(Sequence { link: 3, place: 14 }));
    for bad in ["", "3", "3.", ".3", "3.14.1", "+3.1", "-3.1", "3.4294967296"] {
        assert!(bad.parse::<Sequence>().is_err(), "{bad}");
    }
}
