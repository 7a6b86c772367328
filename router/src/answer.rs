//! The proxy's own answers: plain text that tells a person what to do. Not responsible for finding out what is
//! wrong.

use core::fmt;
use std::io::{self, ErrorKind};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use bamqp_core::http::body::FramingError;
use bamqp_core::http::body_scan::BodyError;
use bamqp_core::http::write::HeadWriter;
use bamqp_core::refuse::Refuse;

use crate::net::{self, Moved};
use crate::origin::OriginError;

/// How long a client may take nothing of an answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long to wait for the client to close after the last answer.
const LINGER: Duration = Duration::from_secs(2);

/// And how many bytes it may send meanwhile that nobody wants.
const LINGER_BYTES: usize = 8 << 20;

/// Why the proxy answers instead of the origin.
#[derive(Debug)]
pub enum Trouble {
    /// The request is not handed on.
    Refused(Refuse),
    /// The request is for the proxy, as if it were a web server.
    NotAServer,
    /// The connection was not redirected to the proxy on its way to a web server elsewhere.
    NotRedirected,
    /// The origin can't be reached.
    Unreachable(OriginError),
    /// The origin closed the connection without an answer.
    NoAnswer,
    /// The origin didn't answer in time.
    Late,
    /// The origin's answer can't be handed on; what is wrong with it.
    BadAnswer(&'static str),
    /// The end of the origin's answer can't be told for sure.
    BadLength(FramingError),
    /// The chunked coding of the request's body is broken.
    BadRequestBody(BodyError),
}

impl Trouble {
    /// Status and reason phrase of the answer.
    pub fn status(&self) -> (u16, &'static str) {
        match self {
            Self::Refused(refuse) => (refuse.status(), refuse.reason()),
            Self::NotRedirected => (403, "Forbidden"),
            Self::NotAServer | Self::BadRequestBody(_) => (400, "Bad Request"),
            Self::Unreachable(OriginError::Refused(_, why)) => {
                let refuse = Refuse::Address(*why);
                (refuse.status(), refuse.reason())
            }
            Self::Late => (504, "Gateway Timeout"),
            Self::Unreachable(OriginError::Unreachable(error)) if error.kind() == ErrorKind::TimedOut => {
                (504, "Gateway Timeout")
            }
            Self::Unreachable(_) | Self::NoAnswer | Self::BadAnswer(_) | Self::BadLength(_) => {
                (502, "Bad Gateway")
            }
        }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(refuse) => write!(f, "{refuse}"),
            Self::NotAServer => {
                write!(f, "this is an HTTP proxy; enter its address as HTTP proxy in the program's settings")
            }
            Self::NotRedirected => {
                write!(
                    f,
                    "only what the firewall redirects is taken here; the router itself is not to be redirected"
                )
            }
            Self::Unreachable(error @ OriginError::Unresolved(_)) => {
                write!(f, "{error}; check the name, or try again later")
            }
            Self::Unreachable(error) => write!(f, "{error}"),
            Self::NoAnswer => {
                write!(f, "the server closed the connection without an answer; try again later")
            }
            Self::Late => write!(f, "the server did not answer in time; try again later"),
            Self::BadLength(error) => write!(f, "the server's answer can't be handed on: {error}"),
            Self::BadRequestBody(error) => write!(f, "broken request: {error}; the client has to be fixed"),
            Self::BadAnswer(what) => write!(f, "the server's answer can't be handed on: {what}"),
        }
    }
}

impl core::error::Error for Trouble {}

/// Sends the answer as the connection's last message; `head_only` after HEAD.
///
/// # Errors
/// If the client is gone.
pub fn send(client: &TcpStream, trouble: &Trouble, head_only: bool) -> io::Result<()> {
    let (status, reason) = trouble.status();
    let text = format!("BAMQP: {trouble}\n");
    let mut head = [0; 256];
    let mut writer = HeadWriter::new(&mut head);
    writer.status(status, reason).field("Content-Type", "text/plain; charset=utf-8");
    writer.field_args("Content-Length", format_args!("{}", text.len())).field("Connection", "close");
    let length = writer.finish().map_err(|_| ErrorKind::InvalidData)?;
    let body = if head_only { &[] } else { text.as_bytes() };
    net::write_both(client, head.get(..length).unwrap_or_default(), body, PATIENCE)
}

/// Closes the sending side and waits a little for the client to do the same: closed at once, with bytes unread,
/// the connection would be reset and the client might lose the answer (RFC 9112 section 9.6).
pub fn linger(client: &TcpStream) {
    let deadline = Instant::now() + LINGER;
    let (mut waste, mut left) = ([0; 2048], LINGER_BYTES);
    if client.shutdown(Shutdown::Write).is_err() {
        return;
    }
    while left > 0 && Instant::now() < deadline {
        match net::read(client, &mut waste) {
            Ok(Moved::Bytes(bytes)) => left = left.saturating_sub(bytes),
            Ok(Moved::WouldBlock) if net::await_readable(client, deadline).is_ok() => {}
            _ => return,
        }
    }
}
