//! What a coordinator says to a peer outside of chunks, and what it hears: one message and its answer at a time. Not
//! responsible for connections.

use core::fmt;
use core::net::SocketAddr;
use std::io::{self, ErrorKind};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Instant;

use bamqp_core::channel::{Challenge, Outgoing, Reference, Refusal, Tally};
use bamqp_core::http::response::Response;
use bamqp_core::http::target::Uri;
use bamqp_core::http::write::HeadWriter;
use bamqp_core::limits::{MAX_CLIENT_FIELD_BYTES, MAX_LANES, MAX_PEER_HEAD_BYTES};
use bamqp_core::message::drop::{Drop, Summary};
use bamqp_core::message::feedback::{Feedback, Part, Verdict};
use bamqp_core::message::hello::{self, Hello};
use bamqp_core::message::init::{Answer, Init};
use bamqp_core::message::reason::{DeclineReason, DropReason};
use bamqp_core::message::{Fingerprint, MessageError, SessionId};
use bamqp_core::signature::{SignError, is_signable};
use bamqp_core::trust::{Conduct, Violation};

use super::{Entry, Keyring, PATIENCE};
use crate::commission::Commission;
use crate::fetch::Call;
use crate::inbox::Inbox;
use crate::net::{self, Moved};
use crate::session::Session;

/// Why there is no answer from a peer, or none that can be used.
#[derive(Debug)]
pub enum Trouble {
    /// It was not asked yet.
    NotTried,
    /// The connection.
    Io(io::Error),
    /// The answer can't be understood.
    Malformed,
    /// The answer is none of this message.
    Message(MessageError),
    /// Another router answers than the one whose key is configured.
    WrongKey(Fingerprint),
    /// Its configured key is none.
    NoKey,
    /// It gives no challenge: our address is not among its peers'.
    NotKnown,
    /// Our message can't be signed.
    Unsignable(SignError),
    /// The answer is not from it, or was changed.
    Unauthentic(Refusal),
    /// It does not take part; not to be asked again for so many seconds.
    Declined(DeclineReason, u32),
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotTried => write!(f, "not tried yet"),
            Self::Io(error) => write!(f, "{error}"),
            Self::Malformed => write!(f, "its answer is not HTTP"),
            Self::Message(error) => write!(f, "its answer is not right: {error}"),
            Self::WrongKey(key) => {
                write!(f, "another key answers ({key}): check its public_key in the configuration")
            }
            Self::NoKey => write!(f, "its public_key in the configuration is not a key"),
            Self::NotKnown => write!(f, "it has no peer with our address in its configuration"),
            Self::Unsignable(error) => write!(f, "{error}"),
            Self::Unauthentic(refusal) => write!(f, "its answer is not authentic: {refusal}"),
            Self::Declined(reason, seconds) => {
                write!(f, "declined: {reason}, not to be asked for {seconds} s")
            }
        }
    }
}

impl core::error::Error for Trouble {}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<MessageError> for Trouble {
    fn from(error: MessageError) -> Self {
        Self::Message(error)
    }
}

/// A connection to a peer while no lane uses it.
#[derive(Clone, Debug)]
pub(super) struct Line {
    pub socket: Arc<TcpStream>,
    /// What the next INIT on it has to answer.
    pub challenge: Option<Challenge>,
    /// Numbers the requests of the session that has used it last.
    pub link: Option<Outgoing>,
}

impl Line {
    pub fn new(socket: Arc<TcpStream>) -> Line {
        Line { socket, challenge: None, link: None }
    }
}

/// What a peer that accepts says.
#[derive(Debug)]
pub(super) struct Accepted {
    pub call: Arc<Call>,
    pub link: Outgoing,
    /// The head of its ledger that the INIT countersigned.
    pub log_head: [u8; 32],
    /// Bits per second.
    pub bandwidth: u64,
    pub hold: u32,
}

/// HELLO, perhaps about a session; keeps the challenge.
pub(super) fn hello(line: &mut Line, entry: &Entry, about: Option<SessionId>) -> Result<Hello, Trouble> {
    let hello = exchange(
        &line.socket,
        |mut head| {
            match about {
                Some(session) => hello::write_request_about(&mut head, &entry.address, session),
                None => hello::write_request(&mut head, &entry.address),
            }
            Ok((head.finish().map_err(SignError::Write)?, ()))
        },
        |response, ()| Ok(Hello::parse(response)?),
    )?;
    line.challenge = hello.challenge;
    if hello.key == entry.key { Ok(hello) } else { Err(Trouble::WrongKey(hello.key)) }
}

/// INIT, after a HELLO if there is no challenge yet.
pub(super) fn init(
    line: &mut Line,
    entry: &Entry,
    keyring: &Arc<Keyring>,
    session: &Session,
) -> Result<Accepted, Trouble> {
    let neighbour = keyring.find(entry.key).ok_or(Trouble::NoKey)?;
    // The first coordinator may have asked it, too.
    let about = session.commission.as_ref().map(|_| session.id);
    if (line.challenge.is_none() || about.is_some()) && hello(line, entry, about)?.takes_part {
        return Err(Trouble::Declined(DeclineReason::DuplicateSession, 0));
    }
    // Good for one.
    let challenge = line.challenge.take().ok_or(Trouble::NotKnown)?;
    let file = &session.file;
    let target = Uri::parse(&file.uri).map_err(|_| Trouble::Malformed)?;
    let init = Init {
        session: session.id,
        target,
        size: file.total,
        validator: file.validator.clone(),
        hops: session.commission.as_ref().map_or(0, |commission| commission.hops),
        recipient: entry.key,
        first: session.commission.as_ref().map(Commission::first),
        user_agent: told_to_peers(file.user_agent.as_deref()),
        accept: told_to_peers(file.accept.as_deref()),
    };
    exchange(
        &line.socket,
        |mut head| {
            init.write(&mut head, &entry.address);
            let mut tally = Tally::default();
            let sealed = keyring.me().seal_init(head, &init, neighbour, &challenge, &mut tally);
            keyring.count(tally);
            let (length, caller, reference) = sealed?;
            let call = Call { caller, keyring: keyring.clone(), peer: entry.name.clone() };
            Ok((length, (call, reference)))
        },
        |response, (call, reference)| {
            call.check(response, &reference).map_err(Trouble::Unauthentic)?;
            match Answer::parse(response)? {
                Answer::Accept(accept) if accept.target != target => Err(Trouble::Malformed),
                Answer::Accept(accept) => {
                    let (link, call) = (call.caller.first_link(), Arc::new(call));
                    let (bandwidth, hold, log_head) = (accept.bandwidth, accept.hold, challenge.log_head);
                    Ok(Accepted { call, link, log_head, bandwidth, hold })
                }
                Answer::Decline(decline) => Err(Trouble::Declined(decline.reason, decline.retry_after)),
            }
        },
    )
}

/// What of a client's field goes along: nothing that an INIT could not be signed with, or would be too long with.
fn told_to_peers(value: Option<&[u8]>) -> Option<&[u8]> {
    value.filter(|value| value.len() <= MAX_CLIENT_FIELD_BYTES && is_signable(value))
}

/// FEEDBACK: how everybody did, as far as fits.
pub(super) fn feedback(
    line: &mut Line,
    host: SocketAddr,
    call: &Call,
    session: &Session,
) -> Result<(), Trouble> {
    let part = |(router, conduct, _): (Fingerprint, Conduct, Option<u64>)| Part {
        router,
        verdict: match conduct.violation {
            Some(Violation::Lie) => Verdict::Lie,
            Some(Violation::Protocol) => Verdict::Protocol,
            Some(Violation::Mismatches) => Verdict::Mismatch,
            None if conduct.mismatch.is_some() => Verdict::Mismatch,
            None => Verdict::Clean,
        },
        bytes: conduct.bytes,
        timeouts: conduct.timeouts,
    };
    let parts = session.conducts().into_iter().map(part).take(MAX_LANES).collect();
    let feedback = Feedback { session: session.id, parts };
    let link = line.link.get_or_insert_with(|| call.caller.next_link());
    exchange(
        &line.socket,
        |mut head| {
            feedback.write(&mut head, &host);
            call.caller.seal(head, link)
        },
        |response, reference: Reference| match (call.check(response, &reference), response.status) {
            (Ok(()), 200) => Ok(()),
            (Ok(()), status) => Err(MessageError::Status(status).into()),
            (Err(refusal), _) => Err(Trouble::Unauthentic(refusal)),
        },
    )
}

/// DROP; what the peer served.
pub(super) fn drop_session(
    line: &mut Line,
    host: SocketAddr,
    call: &Call,
    session: SessionId,
    reason: DropReason,
) -> Result<Summary, Trouble> {
    let drop = Drop { session, reason, retry_after: 0 };
    let mut link = line.link.take().unwrap_or_else(|| call.caller.next_link());
    exchange(
        &line.socket,
        |mut head| {
            drop.write_request(&mut head, &host);
            call.caller.seal(head, &mut link)
        },
        |response, reference: Reference| {
            call.check(response, &reference).map_err(Trouble::Unauthentic)?;
            Ok(Summary::parse(response)?)
        },
    )
}

/// Sends one message and reads its answer, which has no body. `write` says how long the head is, and gives `parse` what
/// it needs.
fn exchange<S, T>(
    socket: &TcpStream,
    write: impl FnOnce(HeadWriter<'_>) -> Result<(usize, S), SignError>,
    parse: impl FnOnce(&Response<'_>, S) -> Result<T, Trouble>,
) -> Result<T, Trouble> {
    let deadline = Instant::now() + PATIENCE;
    // An INIT is signed with as much room behind it; pages that nobody touches cost nothing.
    let mut out = vec![0; 2 * MAX_PEER_HEAD_BYTES];
    let (length, sent) = write(HeadWriter::new(&mut out)).map_err(Trouble::Unsignable)?;
    net::write_all(socket, out.get(..length).unwrap_or_default(), PATIENCE)?;
    let mut inbox = Inbox::new(MAX_PEER_HEAD_BYTES);
    loop {
        match Response::parse(inbox.data()) {
            Ok(Some((response, length))) if length == inbox.data().len() => return parse(&response, sent),
            Ok(None) => {}
            Ok(Some(_)) | Err(_) => return Err(Trouble::Malformed),
        }
        match inbox.fill(socket)? {
            Moved::Bytes(_) => {}
            Moved::WouldBlock => net::await_readable(socket, deadline)?,
            Moved::End => return Err(Trouble::Io(ErrorKind::UnexpectedEof.into())),
        }
    }
}
