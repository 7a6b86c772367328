//! What the proxy refuses before it goes anywhere: each refusal is a value with its status and one line for
//! the person who sees it. Not responsible for origins that fail later.

use core::fmt;

use crate::address::Refusal;
use crate::http::HeadError;
use crate::http::body::{BodyLength, FramingError};
use crate::http::forward::{is_last_hop, is_loop};
use crate::http::request::Request;
use crate::http::target::{Target, TargetError};

/// A request that may go on: where to, and how long its body is.
#[derive(Clone, Copy, Debug)]
pub struct Admitted<'b> {
    /// Absolute, origin or authority form.
    pub target: Target<'b>,
    /// How the end of the request's body is known.
    pub body: BodyLength,
}

/// Checks all that can be checked before resolving: framing, target, loop. `via` is our pseudonym.
///
/// # Errors
/// What is answered instead.
pub fn admit<'b>(request: &Request<'b>, via: &str) -> Result<Admitted<'b>, Refuse> {
    let body = BodyLength::of_request(request).map_err(Refuse::Framing)?;
    let target = Target::of(request).map_err(Refuse::Target)?;
    if is_loop(&request.fields, via) {
        return Err(Refuse::Loop);
    }
    if is_last_hop(request) || target == Target::Asterisk {
        return Err(Refuse::LastHop);
    }
    if request.method == "CONNECT" && !matches!(body, BodyLength::None | BodyLength::Exact(0)) {
        return Err(Refuse::ConnectBody);
    }
    Ok(Admitted { target, body })
}

/// Why a request is not handed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refuse {
    /// The head is malformed.
    Head(HeadError),
    /// The head does not fit into [`crate::limits::MAX_HEAD_BYTES`].
    HeadTooLarge,
    /// The head did not come in time.
    Timeout,
    /// The end of the body can't be told for sure.
    Framing(FramingError),
    /// The target or `Host` is malformed or not for this proxy.
    Target(TargetError),
    /// A CONNECT with a body, which has no meaning (RFC 9110 section 9.3.6).
    ConnectBody,
    /// The client's address is not one that is served.
    Client,
    /// The address behind the target may not be connected to.
    Address(Refusal),
    /// CONNECT to a port that is not allowed.
    ConnectPort,
    /// It has been here before.
    Loop,
    /// `Max-Forwards: 0` or `OPTIONS *`: it is for the proxy itself, which has nothing to tell.
    LastHop,
    /// As many clients as are served at a time.
    Busy,
}

impl Refuse {
    /// The status of the answer.
    pub fn status(&self) -> u16 {
        match self {
            Refuse::Head(HeadError::Version) => 505,
            Refuse::Head(HeadError::TooManyFields) | Refuse::HeadTooLarge => 431,
            Refuse::Head(_) | Refuse::Framing(_) | Refuse::ConnectBody => 400,
            Refuse::Timeout => 408,
            Refuse::Target(TargetError::Scheme) => 501,
            Refuse::Target(_) => 400,
            Refuse::Client | Refuse::Address(_) | Refuse::ConnectPort => 403,
            Refuse::Loop => 508,
            Refuse::LastHop => 501,
            Refuse::Busy => 503,
        }
    }

    /// The reason phrase of that status.
    pub fn reason(&self) -> &'static str {
        match self.status() {
            400 => "Bad Request",
            403 => "Forbidden",
            408 => "Request Timeout",
            431 => "Request Header Fields Too Large",
            501 => "Not Implemented",
            503 => "Service Unavailable",
            505 => "HTTP Version Not Supported",
            508 => "Loop Detected",
            _ => "",
        }
    }

    /// Whether the connection has to be closed after the answer, because it is not known where the next
    /// request begins. Otherwise the request's body, if any, has to be read first.
    pub fn closes(&self) -> bool {
        !matches!(self, Refuse::Address(_) | Refuse::ConnectPort | Refuse::LastHop)
    }
}

impl fmt::Display for Refuse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refuse::Head(HeadError::Version) => f.write_str("this proxy speaks HTTP/1.1 and HTTP/1.0"),
            Refuse::Head(why) => write!(f, "malformed request: {why}; the client has to be fixed"),
            Refuse::HeadTooLarge => {
                f.write_str("the request head is too large; perhaps clear the site's cookies")
            }
            Refuse::Timeout => f.write_str("the request did not arrive in time; try again"),
            Refuse::Framing(why) => write!(f, "ambiguous length: {why}; the client has to be fixed"),
            Refuse::Target(TargetError::Scheme) => write!(f, "{}", TargetError::Scheme),
            Refuse::Target(why) => write!(f, "malformed target: {why}; the client has to be fixed"),
            Refuse::ConnectBody => f.write_str("CONNECT has no body; the client has to be fixed"),
            Refuse::Client => f.write_str("this proxy serves its own household only (see allow_client)"),
            Refuse::Address(why) => write!(f, "{why}"),
            Refuse::ConnectPort => f.write_str("CONNECT to this port is not allowed (see connect_ports)"),
            Refuse::Loop => {
                f.write_str("the request has been here before; a proxy on its way points back here")
            }
            Refuse::LastHop => f.write_str("this proxy answers no requests about itself"),
            Refuse::Busy => f.write_str("too many connections; try again soon (see max_clients)"),
        }
    }
}

impl core::error::Error for Refuse {}
