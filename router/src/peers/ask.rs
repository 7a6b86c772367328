//! What a coordinator says to a peer outside of chunks, and what it hears: one message and its answer at a time. Not
//! responsible for connections.

use core::fmt;
use core::net::SocketAddr;
use std::io::{self, ErrorKind};
use std::net::TcpStream;
use std::time::Instant;

use bamqp_core::http::response::Response;
use bamqp_core::http::target::Uri;
use bamqp_core::http::write::HeadWriter;
use bamqp_core::limits::MAX_PEER_HEAD_BYTES;
use bamqp_core::message::drop::{Drop, Summary};
use bamqp_core::message::init::{Answer, Init};
use bamqp_core::message::reason::{DeclineReason, DropReason};
use bamqp_core::message::{Fingerprint, MessageError};

use super::PATIENCE;
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

/// INIT; bandwidth and hold if the peer accepts.
pub(super) fn init(
    socket: &TcpStream,
    host: SocketAddr,
    recipient: Fingerprint,
    session: &Session,
) -> Result<(u64, u32), Trouble> {
    let file = &session.file;
    let target = Uri::parse(&file.uri).map_err(|_| Trouble::Malformed)?;
    let init = Init {
        session: session.id,
        target,
        size: file.total,
        validator: file.validator.clone(),
        hops: 0,
        recipient,
        user_agent: file.user_agent.as_deref(),
        accept: file.accept.as_deref(),
    };
    let mut answer = None;
    exchange(
        socket,
        |head| init.write(head, &host),
        |response| {
            answer = Some(match Answer::parse(response)? {
                Answer::Accept(accept) if accept.target != target => Err(Trouble::Malformed),
                Answer::Accept(accept) => Ok((accept.bandwidth, accept.hold)),
                Answer::Decline(decline) => Err(Trouble::Declined(decline.reason, decline.retry_after)),
            });
            Ok(())
        },
    )?;
    answer.unwrap_or(Err(Trouble::Malformed))
}

/// DROP; what the peer served.
pub(super) fn drop_session(
    socket: &TcpStream,
    host: SocketAddr,
    session: &Session,
    reason: DropReason,
) -> Result<Summary, Trouble> {
    let drop = Drop { session: session.id, reason, retry_after: 0 };
    exchange(socket, |head| drop.write_request(head, &host), Summary::parse)
}

/// Sends one message and reads its answer, which has no body.
pub(super) fn exchange<T>(
    socket: &TcpStream,
    write: impl FnOnce(&mut HeadWriter<'_>),
    parse: impl FnOnce(&Response<'_>) -> Result<T, MessageError>,
) -> Result<T, Trouble> {
    let deadline = Instant::now() + PATIENCE;
    let mut out = vec![0; MAX_PEER_HEAD_BYTES];
    let mut head = HeadWriter::new(&mut out);
    write(&mut head);
    let length = head.finish().map_err(|_| Trouble::Malformed)?;
    net::write_all(socket, out.get(..length).unwrap_or_default(), PATIENCE)?;
    let mut inbox = Inbox::new(MAX_PEER_HEAD_BYTES);
    loop {
        match Response::parse(inbox.data()) {
            Ok(Some((response, length))) if length == inbox.data().len() => return Ok(parse(&response)?),
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
