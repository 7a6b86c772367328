//! What a proxy hands on of a head (RFC 9110 sections 7.6 and 11.7, RFC 9112 sections 3.2.2 and 6.1): fields of
//! one hop are dropped, `Host`, framing, `Connection` and `Via` are written anew. Not responsible for bodies,
//! nor for whether to hand on at all ([`crate::decide`]).

use super::Version;
use super::body::BodyLength;
use super::decimal;
use super::fields::Fields;
use super::partial::exact_length;
use super::range::RangeSet;
use super::request::Request;
use super::response::Response;
use super::target::Uri;
use super::validator::Validator;
use super::write::HeadWriter;

/// What this hop says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hop<'a> {
    /// Our pseudonym in `Via`: a token that no other router has.
    pub via: &'a str,
    /// Whether `Upgrade` goes on ([`wants_upgrade`], or with a 101).
    pub upgrade: bool,
    /// Whether this is the connection's last message.
    pub close: bool,
}

/// Writes the request line and fields that go to the origin; `body` is the length of the request's body,
/// which goes on in the framing that it has. More fields may follow before
/// [`finish`](HeadWriter::finish).
///
/// `Proxy-Authorization` ends here: we are the proxy that it is for (RFC 9110 section 11.7.2). `Max-Forwards` of
/// OPTIONS and TRACE is counted down; at 0 the request must not be handed on at all (section 7.6.2).
pub fn request(
    head: &mut HeadWriter<'_>,
    request: &Request<'_>,
    uri: &Uri<'_>,
    body: BodyLength,
    hop: Hop<'_>,
) {
    if request.method == "OPTIONS" && uri.is_bare() {
        head.request(request.method, "*");
    } else {
        head.request(request.method, uri.path_and_query());
    }
    head.field_args("Host", format_args!("{}", uri.host_field()));
    let counts_hops = matches!(request.method, "OPTIONS" | "TRACE");
    for field in request.fields.iter().filter(|f| goes_on(&request.fields, f.name, body)) {
        let is = |name: &str| field.name.eq_ignore_ascii_case(name);
        // RFC 9110 section 10.1.1: an expectation in HTTP/1.0 is ignored.
        if is("Host") || (is("Expect") && request.version == Version::Http10) {
            continue;
        }
        match max_forwards(field.value).filter(|_| counts_hops && is("Max-Forwards")) {
            Some(left) => head.field_args(field.name, format_args!("{}", left.saturating_sub(1))),
            None => head.field(field.name, field.value),
        };
    }
    framing(head, body);
    connection(head, &request.fields, request.version, hop);
}

/// Writes the status line and fields that go to the client. `body` is how the body's end will be known to the
/// *client*: [`BodyLength::UntilClose`] if the chunked coding is taken off for HTTP/1.0. With
/// [`BodyLength::None`] the length that a response to HEAD or a 304 tells goes on. More fields may follow.
pub fn response(head: &mut HeadWriter<'_>, response: &Response<'_>, body: BodyLength, hop: Hop<'_>) {
    head.status(response.status, response.reason);
    for field in response.fields.iter().filter(|f| goes_on(&response.fields, f.name, body)) {
        head.field(field.name, field.value);
    }
    // RFC 9110 section 8.6: never with 1xx and 204.
    let told = (body == BodyLength::None && response.status >= 200 && response.status != 204)
        .then(|| exact_length(&response.fields))
        .flatten();
    framing(head, told.map_or(body, BodyLength::Exact));
    let close = hop.close || body == BodyLength::UntilClose;
    connection(head, &response.fields, response.version, Hop { close, ..hop });
}

/// A request for bytes of a file under a validator, on any lane.
#[derive(Clone, Debug)]
pub struct RangeGet<'a> {
    /// The file.
    pub uri: &'a Uri<'a>,
    /// Which bytes.
    pub ranges: RangeSet<'a>,
    /// Asked as `If-Range`, so that a changed file is answered by a 200.
    pub validator: &'a Validator,
    /// The client's `User-Agent`, if it sent one.
    pub user_agent: Option<&'a [u8]>,
    /// The client's `Accept`, if it sent one.
    pub accept: Option<&'a [u8]>,
    /// Our pseudonym in `Via`.
    pub via: &'a str,
}

impl RangeGet<'_> {
    /// Writes the whole head up to its last field; `Accept-Encoding: identity` as DESIGN section 7 has it.
    pub fn write(&self, head: &mut HeadWriter<'_>) {
        head.request("GET", self.uri.path_and_query())
            .field_args("Host", format_args!("{}", self.uri.host_field()))
            .field_args("Range", format_args!("{}", self.ranges))
            .field("If-Range", self.validator.value())
            .field("Accept-Encoding", "identity");
        if let Some(value) = self.user_agent {
            head.field("User-Agent", value);
        }
        if let Some(value) = self.accept {
            head.field("Accept", value);
        }
        head.field_args("Via", format_args!("1.1 {}", self.via));
    }
}

/// Whether a request asks for another protocol that can be had through a tunnel, such as WebSocket. `h2c` is not
/// (its settings are for one hop); it is dropped, and the request is a plain one.
pub fn wants_upgrade(fields: &Fields<'_>) -> bool {
    let mut protocols = fields.list("Upgrade").filter(|p| !p.eq_ignore_ascii_case(b"h2c"));
    fields.has_token("Connection", "upgrade") && protocols.next().is_some()
}

/// Whether the sender keeps its connection open after this message (RFC 9112 section 9.3). HTTP/1.0 never does
/// through a proxy (appendix C.2.2).
pub fn keeps_alive(fields: &Fields<'_>, version: Version) -> bool {
    version == Version::Http11
        && !fields.has_token("Connection", "close")
        && !fields.has_token("Proxy-Connection", "close")
}

/// Whether a message has been here before: `pseudonym` is in its `Via` (RFC 9110 section 7.6.3).
pub fn is_loop(fields: &Fields<'_>, pseudonym: &str) -> bool {
    fields.list("Via").any(|hop| {
        let mut words = hop.split(|b| *b == b' ' || *b == b'\t').filter(|word| !word.is_empty());
        words.nth(1).is_some_and(|by| by.eq_ignore_ascii_case(pseudonym.as_bytes()))
    })
}

/// Whether OPTIONS or TRACE may go no further than here (RFC 9110 section 7.6.2).
pub fn is_last_hop(request: &Request<'_>) -> bool {
    matches!(request.method, "OPTIONS" | "TRACE")
        && request.fields.get("Max-Forwards").and_then(max_forwards) == Some(0)
}

fn max_forwards(value: &[u8]) -> Option<u64> {
    decimal(value)
}

/// Whether a field is for more than one hop and not written anew.
fn goes_on(fields: &Fields<'_>, name: &str, body: BodyLength) -> bool {
    const HOP_BY_HOP: [&str; 10] = [
        "Connection",
        "Proxy-Connection",
        "Keep-Alive",
        "TE",
        "Transfer-Encoding",
        "Content-Length",
        "Upgrade",
        "Proxy-Authenticate",
        "Proxy-Authorization",
        "Proxy-Authentication-Info",
    ];
    // A sender that names these in Connection would undo loop detection or what a cache has to obey (RFC 9110
    // section 7.6.1 forbids the latter); they go on.
    const KEPT: [&str; 3] = ["Via", "Host", "Cache-Control"];
    let is_in = |names: &[&str]| names.iter().any(|n| n.eq_ignore_ascii_case(name));
    if name.eq_ignore_ascii_case("Trailer") && body != BodyLength::Chunked {
        return false;
    }
    !is_in(&HOP_BY_HOP) && (is_in(&KEPT) || !fields.has_token("Connection", name))
}

fn framing(head: &mut HeadWriter<'_>, body: BodyLength) {
    match body {
        BodyLength::Exact(length) => {
            head.field_args("Content-Length", format_args!("{length}"));
        }
        BodyLength::Chunked => {
            head.field("Transfer-Encoding", "chunked");
        }
        BodyLength::None | BodyLength::UntilClose => {}
    }
}

fn connection(head: &mut HeadWriter<'_>, fields: &Fields<'_>, received: Version, hop: Hop<'_>) {
    if hop.upgrade {
        head.field("Connection", "Upgrade");
        fields.all("Upgrade").for_each(|value| {
            head.field("Upgrade", value);
        });
    } else if hop.close {
        head.field("Connection", "close");
    }
    head.field_args("Via", format_args!("{received} {}", hop.via));
}
