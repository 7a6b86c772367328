//! What the origin answers to one request: HTTP's semantics (RFC 9110) for one file, and the origin's
//! misbehaviours that a fault asks for. Not responsible for sockets or for time on the link.

use std::ops::Range;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// The one file of the origin, in one version.
#[derive(Clone, Debug)]
pub struct File {
    /// Its bytes.
    pub bytes: Arc<[u8]>,
    /// Its strong entity tag, with the quotes.
    pub etag: String,
    /// Its Last-Modified.
    pub modified: String,
}

impl File {
    /// A version of the file, last modified at `modified`; the entity tag is made from its bytes.
    pub fn new(bytes: Arc<[u8]>, modified: SystemTime) -> File {
        let sum = bytes.iter().fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        });
        File { etag: format!("\"{:x}-{sum:016x}\"", bytes.len()), modified: http_date(modified), bytes }
    }

    /// Another version of the file, see [`changed`].
    pub fn changed(&self, modified: SystemTime) -> File {
        File::new(changed(&self.bytes), modified)
    }
}

/// What a file becomes when it changes: as long as before, and no byte of it is the same.
pub fn changed(bytes: &[u8]) -> Arc<[u8]> {
    bytes.iter().map(|byte| !byte).collect()
}

/// What of a request the answer depends on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// `GET`…
    pub method: String,
    /// Path and query, or the absolute form.
    pub target: String,
    /// The connection ends after the answer.
    pub last: bool,
    /// `Range`.
    pub range: Option<String>,
    /// `If-Range`.
    pub if_range: Option<String>,
    /// `If-Match`.
    pub if_match: Option<String>,
    /// `If-None-Match`.
    pub if_none_match: Option<String>,
}

/// A head that is no request that this origin takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadRequest;

impl Request {
    /// Longest head that is read.
    pub const MAX_HEAD: usize = 16 * 1024;

    /// Takes one head from the front of `buffer`: the request and the head's length, or `None` if it is not
    /// complete yet. Requests with a body are refused: there is nothing here to send one to.
    pub fn parse(buffer: &[u8]) -> Result<Option<(Request, usize)>, BadRequest> {
        let mut fields = [httparse::EMPTY_HEADER; 64];
        let mut head = httparse::Request::new(&mut fields);
        let length = match head.parse(buffer) {
            Ok(httparse::Status::Complete(length)) => length,
            Ok(httparse::Status::Partial) if buffer.len() < Request::MAX_HEAD => return Ok(None),
            Ok(httparse::Status::Partial) | Err(_) => return Err(BadRequest),
        };
        let mut request = Request {
            method: head.method.unwrap_or_default().to_owned(),
            target: head.path.unwrap_or_default().to_owned(),
            last: head.version == Some(0),
            ..Request::default()
        };
        for field in head.headers.iter() {
            let value = std::str::from_utf8(field.value).map_err(|_| BadRequest)?.trim().to_owned();
            match field.name.to_ascii_lowercase().as_str() {
                "range" => request.range = Some(value),
                "if-range" => request.if_range = Some(value),
                "if-match" => request.if_match = Some(value),
                "if-none-match" => request.if_none_match = Some(value),
                "connection" => {
                    request.last |= value.split(',').any(|token| token.trim().eq_ignore_ascii_case("close"));
                }
                "content-length" if value != "0" => return Err(BadRequest),
                "transfer-encoding" => return Err(BadRequest),
                _ => {}
            }
        }
        Ok(Some((request, length)))
    }
}

/// How the origin misbehaves towards one range request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Misbehaviour {
    /// Not at all.
    #[default]
    None,
    /// Content-Length and body are shorter than Content-Range says.
    CorruptLength,
    /// Content-Range and body are of another range of the same length.
    WrongRange,
    /// All is as it should be but the body's bytes, each of which is XORed with this. So are those of answers to requests
    /// without a range.
    Alter(u8),
}

/// What a liar's bytes are XORed with: none of them is right, nor what a variant or the changed file has.
pub const LIE: u8 = 0xa5;

/// An answer: the head, and which bytes of which version follow it.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// Status line and fields, with the empty line.
    pub head: Vec<u8>,
    /// A body of several ranges, with what is between them.
    pub parts: Vec<u8>,
    /// The file's bytes that follow, if there are no parts.
    pub body: Range<usize>,
    /// What each of those is XORed with.
    pub mask: u8,
    /// The connection ends after it.
    pub last: bool,
    /// A misbehaviour took place.
    pub misbehaved: bool,
}

/// An answer without a body for `status`, e.g. 403 or 503.
pub fn refuse(status: u16, last: bool) -> Answer {
    answer(status, &[("Content-Length", "0".into())], 0..0, last)
}

/// What `file`'s origin answers at `now`. Conditions in the order of RFC 9110 13.2.2; a `Range` of several ranges is
/// ignored (14.2 lets a server do that) if they are more than [`MAX_RANGES`], more than [`MAX_PARTS`] bytes, or not all
/// there.
pub fn respond(request: &Request, file: &File, misbehaviour: Misbehaviour, now: SystemTime) -> Answer {
    let last = request.last;
    let size = file.bytes.len();
    if request.method != "GET" && request.method != "HEAD" {
        return answer(405, &[("Allow", "GET, HEAD".into()), ("Content-Length", "0".into())], 0..0, last);
    }
    let described = |mut more: Vec<(&'static str, String)>| {
        more.push(("Date", http_date(now)));
        more.push(("Last-Modified", file.modified.clone()));
        more.push(("ETag", file.etag.clone()));
        more.push(("Accept-Ranges", "bytes".into()));
        more
    };
    if request.if_match.as_deref().is_some_and(|tags| !matches(tags, &file.etag, Compare::Strong)) {
        return answer(412, &described(vec![("Content-Length", "0".into())]), 0..0, last);
    }
    if request.if_none_match.as_deref().is_some_and(|tags| matches(tags, &file.etag, Compare::Weak)) {
        return answer(304, &described(vec![]), 0..0, last);
    }
    // A weak tag begins with W/ and so equals neither (RFC 9110 13.1.5).
    let same = request.if_range.as_deref().is_none_or(|v| v == file.etag || v == file.modified);
    let wanted = request.range.as_deref().filter(|_| same && request.method == "GET");
    let mask = if let Misbehaviour::Alter(mask) = misbehaviour { mask } else { 0 };
    if let Some(ranges) = wanted.and_then(|text| several_ranges(text, size)) {
        let (parts, misbehaved) = multipart(&file.bytes, &ranges, misbehaviour, mask);
        let fields = vec![
            ("Content-Type", format!("multipart/byteranges; boundary={BOUNDARY}")),
            ("Content-Length", parts.len().to_string()),
        ];
        return Answer { parts, misbehaved, ..answer(206, &described(fields), 0..0, last) };
    }
    let range = match wanted.map_or(Wanted::Everything, |text| parse_range(text, size)) {
        Wanted::Part(range) => range,
        Wanted::Nothing => {
            let fields = vec![("Content-Range", format!("bytes */{size}")), ("Content-Length", "0".into())];
            return answer(416, &described(fields), 0..0, last);
        }
        Wanted::Everything => {
            let body = if request.method == "HEAD" { 0..0 } else { 0..size };
            let misbehaved = mask != 0 && !body.is_empty();
            let fields = described(vec![("Content-Length", size.to_string())]);
            return Answer { mask, misbehaved, ..answer(200, &fields, body, last) };
        }
    };
    let (named, body) = misbehave(misbehaviour, &range, size);
    let misbehaved = named != range || body != range || mask != 0;
    let fields = vec![
        ("Content-Range", format!("bytes {}-{}/{size}", named.start, named.end.saturating_sub(1))),
        ("Content-Length", body.len().to_string()),
    ];
    Answer { mask, misbehaved, ..answer(206, &described(fields), body, last) }
}

/// What stands between the parts of an answer.
const BOUNDARY: &str = "00000000000000000017";

/// Most ranges that are answered, as nginx and Apache have such limits.
pub const MAX_RANGES: usize = 64;

/// Most bytes of the file in an answer with several ranges.
pub const MAX_PARTS: usize = 16 * 1024;

/// The ranges of a request for more than one.
fn several_ranges(text: &str, size: usize) -> Option<Vec<Range<usize>>> {
    let set = text.strip_prefix("bytes=").filter(|set| set.contains(','))?;
    let range = |one: &str| match parse_range(&format!("bytes={}", one.trim()), size) {
        Wanted::Part(range) => Some(range),
        Wanted::Everything | Wanted::Nothing => None,
    };
    let ranges = set.split(',').map(range).collect::<Option<Vec<_>>>()?;
    let total: usize = ranges.iter().map(|range| range.len()).sum();
    (ranges.len() <= MAX_RANGES && total <= MAX_PARTS).then_some(ranges)
}

/// A `multipart/byteranges` body (RFC 9110 section 14.6), and whether anything is wrong with it.
fn multipart(bytes: &[u8], ranges: &[Range<usize>], how: Misbehaviour, mask: u8) -> (Vec<u8>, bool) {
    let (mut body, mut misbehaved) = (Vec::new(), mask != 0);
    for range in ranges {
        let (named, part) = misbehave(how, range, bytes.len());
        misbehaved |= named != *range || part != *range;
        let (first, last, size) = (named.start, named.end.saturating_sub(1), bytes.len());
        let head = format!("\r\n--{BOUNDARY}\r\nContent-Range: bytes {first}-{last}/{size}\r\n\r\n");
        body.extend_from_slice(head.as_bytes());
        body.extend(bytes.get(part).unwrap_or_default().iter().map(|byte| byte ^ mask));
    }
    body.extend_from_slice(format!("\r\n--{BOUNDARY}--\r\n").as_bytes());
    (body, misbehaved)
}

/// The range that the head names, and the one that follows.
fn misbehave(how: Misbehaviour, range: &Range<usize>, size: usize) -> (Range<usize>, Range<usize>) {
    match how {
        Misbehaviour::None | Misbehaviour::Alter(_) => (range.clone(), range.clone()),
        // An odd number of bytes short, but never empty: a single byte becomes none at all.
        Misbehaviour::CorruptLength => {
            let missing = 17.min(range.len().saturating_sub(1)).max(1);
            (range.clone(), range.start..range.end - missing.min(range.len()))
        }
        Misbehaviour::WrongRange => {
            let other = if range.end < size {
                range.start + 1..range.end + 1
            } else {
                // At the file's end: a byte less, or one earlier.
                range.start.saturating_sub(1)..range.end - 1
            };
            (other.clone(), other)
        }
    }
}

fn answer(status: u16, fields: &[(&str, String)], body: Range<usize>, last: bool) -> Answer {
    let reason = match status {
        200 => "OK",
        206 => "Partial Content",
        304 => "Not Modified",
        400 => "Bad Request",
        403 => "Forbidden",
        405 => "Method Not Allowed",
        412 => "Precondition Failed",
        416 => "Range Not Satisfiable",
        503 => "Service Unavailable",
        _ => "Unknown",
    };
    let mut head = format!("HTTP/1.1 {status} {reason}\r\nServer: hostsim\r\n");
    for (name, value) in fields {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if last {
        head.push_str("Connection: close\r\n");
    }
    head.push_str("\r\n");
    Answer { status, head: head.into_bytes(), parts: Vec::new(), body, mask: 0, last, misbehaved: false }
}

#[derive(PartialEq, Eq)]
enum Compare {
    Strong,
    Weak,
}

/// Whether a list of entity tags contains this strong one.
fn matches(list: &str, etag: &str, how: Compare) -> bool {
    list.split(',').map(str::trim).any(|tag| {
        let tag = if how == Compare::Weak { tag.strip_prefix("W/").unwrap_or(tag) } else { tag };
        tag == "*" || tag == etag
    })
}

enum Wanted {
    Everything,
    Part(Range<usize>),
    Nothing,
}

/// `bytes=a-b`, `bytes=a-`, `bytes=-n` (RFC 9110 14.1.2); what is not one such range is ignored.
fn parse_range(text: &str, size: usize) -> Wanted {
    let number = |digits: &str| {
        digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse::<usize>().ok()).flatten()
    };
    let Some((first, last)) = text.strip_prefix("bytes=").and_then(|set| set.split_once('-')) else {
        return Wanted::Everything;
    };
    let range = match (number(first), number(last)) {
        (None, Some(suffix)) if first.is_empty() => size.saturating_sub(suffix)..size,
        (Some(first), None) if last.is_empty() => first..size,
        (Some(first), Some(last)) if first <= last => first..last.saturating_add(1).min(size),
        _ => return Wanted::Everything,
    };
    if range.start < range.end { Wanted::Part(range) } else { Wanted::Nothing }
}

/// IMF-fixdate (RFC 9110 5.6.7), e.g. `Sun, 06 Nov 1994 08:49:37 GMT`.
pub fn http_date(time: SystemTime) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let seconds = time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Days into years of March to February, in eras of 400 years (Hinnant, "chrono-compatible low-level
    // date algorithms").
    let z = days + 719_468;
    let (era, day_of_era) = (z / 146_097, z % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = (shifted + 2) % 12;
    let year = era * 400 + year_of_era + u64::from(month < 2);
    format!(
        "{}, {day:02} {} {year:04} {:02}:{:02}:{:02} GMT",
        DAYS[(days % 7) as usize],
        MONTHS[month as usize],
        rest / 3600,
        rest / 60 % 60,
        rest % 60
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn dates() {
        let at = |s| http_date(UNIX_EPOCH + Duration::from_secs(s));
        // RFC 9110 5.6.7's example, a leap day, a new year.
        assert_eq!(at(784_111_777), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(at(951_782_400), "Tue, 29 Feb 2000 00:00:00 GMT");
        assert_eq!(at(1_767_225_599), "Wed, 31 Dec 2025 23:59:59 GMT");
        assert_eq!(at(0), "Thu, 01 Jan 1970 00:00:00 GMT");
    }

    #[test]
    fn ranges() {
        let part = |text| match parse_range(text, 1000) {
            Wanted::Part(range) => Some(range),
            Wanted::Nothing => Some(0..0),
            Wanted::Everything => None,
        };
        // RFC 9110 14.1.2's shapes.
        assert_eq!(part("bytes=0-499"), Some(0..500));
        assert_eq!(part("bytes=500-"), Some(500..1000));
        assert_eq!(part("bytes=-200"), Some(800..1000));
        assert_eq!(part("bytes=-2000"), Some(0..1000));
        assert_eq!(part("bytes=900-5000"), Some(900..1000));
        assert_eq!(part("bytes=0-0"), Some(0..1));
        assert_eq!(part("bytes=1000-"), Some(0..0));
        assert_eq!(part("bytes=-0"), Some(0..0));
        for ignored in ["bytes=5-4", "bytes=+1-4", "bytes=0-1,5-6", "lines=1-2", "bytes=", "bytes=-"] {
            assert_eq!(part(ignored), None, "{ignored}");
        }
    }

    #[test]
    fn misbehaviours_differ_from_what_was_asked() {
        for range in [0..1usize, 0..1000, 5..6, 10..300, 999..1000, 1..1000] {
            let (named, body) = misbehave(Misbehaviour::CorruptLength, &range, 1000);
            assert_eq!(named, range);
            assert!(body.len() < range.len() && body.end <= 1000, "{range:?}: {body:?}");
            let (named, body) = misbehave(Misbehaviour::WrongRange, &range, 1000);
            assert!(named != range && named == body && body.end <= 1000, "{range:?}: {body:?}");
        }
    }
}
