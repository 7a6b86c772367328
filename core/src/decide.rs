//! Whether a download is pooled or only relayed: decided on the client's request and the live response head
//! (DESIGN section 3), so it costs the client nothing. Not responsible for requests that are not handed on at
//! all ([`crate::refuse`]).

use core::fmt;
use core::ops::Range;

use crate::address::Refusal;
use crate::http::body::BodyLength;
use crate::http::fields::Fields;
use crate::http::multipart::is_multipart;
use crate::http::partial::{exact_length, is_encoded};
use crate::http::range::{ContentRange, RangeRequest};
use crate::http::request::Request;
use crate::http::response::Response;
use crate::http::target::Uri;
use crate::http::validator::{NoValidator, Validator};
use crate::lesson::Lesson;
use crate::limits::{MAX_FILE_BYTES, MAX_URI_BYTES};
use crate::message::chunk::ChunkDigest;
use crate::plan::{bytes_in, time_for};
use crate::time::Span;

/// A download that peers make faster by less than one part in so many is not worth asking them.
const WORTHWHILE: u64 = 32;

/// What is done with a download.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Peers help with it.
    Aggregate(Pool),
    /// The response goes on to the client as it comes, for this reason.
    Relay(Relay),
}

/// A download that peers help with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// Which bytes of the file the client gets; not empty.
    pub range: Range<u64>,
    /// How many bytes the file has.
    pub total: u64,
    /// Under which all lanes must get the same file.
    pub validator: Validator,
}

/// What the decision depends on besides the two heads.
#[derive(Clone, Copy, Debug)]
pub struct Situation {
    /// Whether peers may fetch from the origin's address, by the rules that are theirs too
    /// ([`crate::address::Reach::check`]).
    pub address: Result<(), Refusal>,
    /// How many peers could be asked now.
    pub peers: usize,
    /// Downloads of fewer bytes are relayed.
    pub min_size: u64,
    /// What earlier downloads from this origin taught, if that still counts.
    pub lesson: Option<Lesson>,
    /// Bytes per second of the own link as far as known.
    pub own_rate: Option<u64>,
    /// An own link that brings so many bytes per second wants no help; 0: it always does.
    pub fast_enough: u64,
    /// Bytes per second that the peers are expected to bring together; 0: nobody knows.
    pub help: u64,
    /// How long it takes until the first peer delivers.
    pub start_up: Span,
}

/// Decides on the head of the response to `request` for `uri`.
///
/// A `Set-Cookie` in the response is no obstacle: the request had no cookies, so the content is what anybody
/// gets; the cookie itself goes to the client only, and RFC 9111 section 7.3 lets caches store such responses.
/// (Content delivery networks set one on every download.)
pub fn decide(request: &Request<'_>, uri: &Uri<'_>, response: &Response<'_>, now: &Situation) -> Decision {
    match pool(request, uri, response, now) {
        Ok(pool) => Decision::Aggregate(pool),
        Err(reason) => Decision::Relay(reason),
    }
}

fn pool(
    request: &Request<'_>,
    uri: &Uri<'_>,
    response: &Response<'_>,
    now: &Situation,
) -> Result<Pool, Relay> {
    check_request(request, uri)?;
    let (range, total) = what_comes(request, response)?;
    if has_directive(&response.fields, "no-store") || has_directive(&response.fields, "private") {
        return Err(Relay::Private);
    }
    let validator = Validator::of(&response.fields).map_err(Relay::Validator)?;
    now.address.map_err(Relay::Address)?;
    if let Some(lesson) = now.lesson {
        return Err(Relay::Lesson(lesson));
    }
    let length = range.end.saturating_sub(range.start);
    if length < now.min_size || length == 0 {
        return Err(Relay::TooSmall);
    }
    if total > MAX_FILE_BYTES {
        return Err(Relay::TooLarge);
    }
    if now.peers == 0 {
        return Err(Relay::NoPeers);
    }
    if let Some(rate) = now.own_rate.filter(|rate| *rate > 0) {
        may_pay(length, rate, now)?;
    }
    Ok(Pool { range, total, validator })
}

/// Whether help with so many bytes can be worth it for an own link of `rate` bytes per second.
fn may_pay(length: u64, rate: u64, now: &Situation) -> Result<(), Relay> {
    if now.fast_enough > 0 && rate >= now.fast_enough {
        return Err(Relay::FastEnough);
    }
    let before_peers = bytes_in(now.start_up, rate);
    if length <= before_peers {
        return Err(Relay::SoonDone);
    }
    if now.help > 0 {
        let alone = time_for(length, rate);
        let pooled = now.start_up + time_for(length - before_peers, rate.saturating_add(now.help));
        if alone.minus(pooled) < alone.scale(1, WORTHWHILE) {
            return Err(Relay::NoGain);
        }
    }
    Ok(())
}

/// Whether the response to this request may be pooled at all, as far as can be told without it.
///
/// # Errors
/// Why not.
pub fn check_request(request: &Request<'_>, uri: &Uri<'_>) -> Result<(), Relay> {
    let fields = &request.fields;
    if request.method != "GET" {
        return Err(Relay::Method);
    }
    if !matches!(BodyLength::of_request(request), Ok(BodyLength::None | BodyLength::Exact(0))) {
        return Err(Relay::RequestBody);
    }
    if fields.contains("Upgrade") && fields.has_token("Connection", "upgrade") {
        return Err(Relay::Upgrade);
    }
    let secret = ["Authorization", "Cookie", "Proxy-Authorization"];
    if uri.has_userinfo || secret.iter().any(|name| fields.contains(name)) {
        return Err(Relay::Credentials);
    }
    if uri.len() > MAX_URI_BYTES {
        return Err(Relay::LongUri);
    }
    if has_directive(fields, "no-store") {
        return Err(Relay::Private);
    }
    if RangeRequest::of(fields) == RangeRequest::Several {
        return Err(Relay::SeveralRanges);
    }
    Ok(())
}

/// Which bytes of how large a file the response carries.
fn what_comes(request: &Request<'_>, response: &Response<'_>) -> Result<(Range<u64>, u64), Relay> {
    let fields = &response.fields;
    if !matches!(response.status, 200 | 206) {
        return Err(Relay::Status(response.status));
    }
    if is_encoded(fields) {
        return Err(Relay::Encoded);
    }
    if is_multipart(fields) {
        return Err(Relay::SeveralRanges);
    }
    if fields.has_token("Accept-Ranges", "none") {
        return Err(Relay::NoRanges);
    }
    let length = exact_length(fields).ok_or(Relay::LengthUnknown)?;
    let asked = RangeRequest::of(&request.fields);
    if response.status == 200 {
        // A 200 to a plain Range request says that ranges are not served; to If-Range, that the file changed.
        let ignored = asked != RangeRequest::Whole && !request.fields.contains("If-Range");
        return if ignored { Err(Relay::NoRanges) } else { Ok((0..length, length)) };
    }
    let told = fields.only("Content-Range").ok().flatten().and_then(ContentRange::parse);
    match (asked, told) {
        (RangeRequest::One(asked), Some(ContentRange::Bytes(range, Some(total))))
            if asked.of(total).as_ref() == Some(&range) && range.end - range.start == length =>
        {
            Ok((range, total))
        }
        _ => Err(Relay::OtherRange),
    }
}

/// The SHA-256 of the whole file in `Repr-Digest` (RFC 9530 section 3). One that is malformed, or of another algorithm,
/// proves nothing.
pub fn repr_digest(fields: &Fields<'_>) -> Option<[u8; 32]> {
    let digests = fields.list("Repr-Digest").filter_map(|member| core::str::from_utf8(member).ok());
    digests.filter_map(|member| member.parse::<ChunkDigest>().ok()).map(|digest| digest.0).last()
}

/// Whether `Cache-Control` has a directive, with or without an argument.
fn has_directive(fields: &Fields<'_>, directive: &str) -> bool {
    fields.list("Cache-Control").any(|member| {
        let name = member.split(|b| *b == b'=').next().unwrap_or(member);
        name.trim_ascii().eq_ignore_ascii_case(directive.as_bytes())
    })
}

/// Why a response is only relayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relay {
    /// Not GET.
    Method,
    /// The request has a body.
    RequestBody,
    /// The request asks for another protocol.
    Upgrade,
    /// The request has `Authorization`, `Cookie`, `Proxy-Authorization` or userinfo: nobody else's business.
    Credentials,
    /// The URI is longer than [`MAX_URI_BYTES`].
    LongUri,
    /// `Cache-Control` says `no-store` (request or response) or `private`.
    Private,
    /// Several ranges were asked for, or are sent.
    SeveralRanges,
    /// Neither 200 nor 206.
    Status(u16),
    /// A `Content-Encoding` or `Transfer-Encoding`.
    Encoded,
    /// No `Content-Length`, or several that differ.
    LengthUnknown,
    /// The origin serves no ranges.
    NoRanges,
    /// A 206 that is not exactly the range that was asked for.
    OtherRange,
    /// No strong validator.
    Validator(NoValidator),
    /// Peers may not fetch from this address.
    Address(Refusal),
    /// Earlier downloads from this origin taught so.
    Lesson(Lesson),
    /// Redirected on its way to another address than the one that `Host` names (DESIGN section 7).
    Destination,
    /// Fewer bytes than the least that is pooled.
    TooSmall,
    /// The file is larger than [`MAX_FILE_BYTES`].
    TooLarge,
    /// No peer can be asked now.
    NoPeers,
    /// The own link would be done before a peer could begin.
    SoonDone,
    /// The own link is as fast as its owner wants.
    FastEnough,
    /// Peers would hardly make it faster.
    NoGain,
}

impl fmt::Display for Relay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Relay::Method => "not GET",
            Relay::RequestBody => "the request has a body",
            Relay::Upgrade => "the request asks for an upgrade",
            Relay::Credentials => "the request has credentials",
            Relay::LongUri => "the URI is too long",
            Relay::Private => "Cache-Control says no-store or private",
            Relay::SeveralRanges => "several ranges",
            Relay::Status(status) => return write!(f, "status {status}"),
            Relay::Encoded => "a content or transfer coding",
            Relay::LengthUnknown => "the length is not known",
            Relay::NoRanges => "the origin serves no ranges",
            Relay::OtherRange => "not the range that was asked for",
            Relay::Validator(why) => return write!(f, "no strong validator: {why}"),
            Relay::Lesson(lesson) => return write!(f, "not pooled from this origin for now: {lesson}"),
            Relay::Address(why) => return write!(f, "not for peers: {why}"),
            Relay::Destination => "the name does not lead where the client was going",
            Relay::TooSmall => "smaller than min_size",
            Relay::TooLarge => "larger than any file",
            Relay::NoPeers => "no peer can be asked",
            Relay::SoonDone => "done before a peer could begin",
            Relay::FastEnough => "the own link is fast enough",
            Relay::NoGain => "peers would hardly make it faster",
        })
    }
}
