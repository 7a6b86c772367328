//! Finds the end of a body in the bytes of a connection. Not responsible for reading them: what surely belongs
//! to the body ([`BodyScanner::exact_ahead`]) may pass without being looked at.

use core::fmt;

use super::body::BodyLength;
use super::{is_token_byte, is_value_byte};
use crate::limits::{MAX_CHUNK_LINE_BYTES, MAX_TRAILER_BYTES};

/// Where a body is. Feed it every byte of the connection after the head, in pieces of any size; bytes that were
/// passed on unseen are told by [`passed`](BodyScanner::passed).
///
/// ```
/// # use bamqp_core::http::{body::BodyLength, body_scan::BodyScanner};
/// let mut scanner = BodyScanner::new(BodyLength::Chunked);
/// assert_eq!(scanner.scan(b"5\r\nhe"), Ok(5));
/// assert_eq!(scanner.exact_ahead(), 3);
/// scanner.passed(3);
/// assert_eq!(scanner.scan(b"\r\n0\r\n\r\nHTTP/1.1"), Ok(7));
/// assert!(scanner.is_done());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BodyScanner {
    state: State,
}

/// A run of bytes that belong to the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// How many bytes; 0 only if there were none to look at or the body is done.
    pub len: usize,
    /// Whether they are content, rather than the chunked coding's own lines.
    pub content: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Content bytes left of a body of known length; not 0.
    Exact(u64),
    /// All until the connection closes.
    UntilClose,
    /// In a chunk's first line.
    Line {
        size: u64,
        part: LinePart,
        seen: u16,
    },
    /// Content bytes left of a chunk; not 0.
    Data(u64),
    /// Before the CR and before the LF after a chunk's content.
    DataCr,
    DataLf,
    /// In the trailer section; `seen` counts its bytes.
    Trailer {
        part: TrailerPart,
        seen: u16,
    },
    Done,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LinePart {
    /// Before the first digit, after at least one.
    Start,
    Digits,
    /// After white space that follows the digits. Some servers pad the size with it.
    Padding,
    Extension,
    Lf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TrailerPart {
    Start,
    Name,
    Value,
    Lf,
    LastLf,
}

const FIRST_LINE: State = State::Line { size: 0, part: LinePart::Start, seen: 0 };

impl BodyScanner {
    /// At the start of a body of that length.
    pub fn new(length: BodyLength) -> BodyScanner {
        let state = match length {
            BodyLength::None | BodyLength::Exact(0) => State::Done,
            BodyLength::Exact(n) => State::Exact(n),
            BodyLength::Chunked => FIRST_LINE,
            BodyLength::UntilClose => State::UntilClose,
        };
        BodyScanner { state }
    }

    /// Takes the bytes of `bytes` that belong to the body and says how many they are: all of them, unless the
    /// body ends before.
    ///
    /// # Errors
    /// The chunked coding is broken: nothing more may be passed on and the connection is closed.
    pub fn scan(&mut self, bytes: &[u8]) -> Result<usize, BodyError> {
        let mut used = 0;
        while let Some(rest) = bytes.get(used..).filter(|rest| !rest.is_empty()) {
            match self.piece(rest)?.len {
                0 => break,
                len => used += len,
            }
        }
        Ok(used)
    }

    /// Takes the longest run at the start of `bytes` that is all content or all framing: for taking the
    /// chunked coding off.
    ///
    /// # Errors
    /// As [`scan`](BodyScanner::scan).
    pub fn piece(&mut self, bytes: &[u8]) -> Result<Piece, BodyError> {
        let ahead = self.exact_ahead();
        if ahead > 0 {
            let len = usize::try_from(ahead).unwrap_or(usize::MAX).min(bytes.len());
            self.passed(len as u64);
            return Ok(Piece { len, content: true });
        }
        let mut len = 0;
        for byte in bytes {
            if self.is_done() || self.exact_ahead() > 0 {
                break;
            }
            self.state = step(self.state, *byte)?;
            len += 1;
        }
        Ok(Piece { len, content: false })
    }

    /// How many of the next bytes are content, whatever they are: the rest of a body of known length or of the
    /// current chunk; `u64::MAX` for a body that ends with the connection. They may be spliced.
    pub fn exact_ahead(&self) -> u64 {
        match self.state {
            State::Exact(left) | State::Data(left) => left,
            State::UntilClose => u64::MAX,
            _ => 0,
        }
    }

    /// `count` bytes were passed on unseen. More than [`exact_ahead`](BodyScanner::exact_ahead) count as that.
    pub fn passed(&mut self, count: u64) {
        self.state = match self.state {
            State::Exact(left) if left <= count => State::Done,
            State::Exact(left) => State::Exact(left - count),
            State::Data(left) if left <= count => State::DataCr,
            State::Data(left) => State::Data(left - count),
            other => other,
        };
    }

    /// Whether the body is complete: the next byte is of another message. Never for [`BodyLength::UntilClose`].
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Whether the body is complete if the connection closes here. If not, it was cut short and the next hop's
    /// connection has to be closed early, too.
    pub fn may_close(&self) -> bool {
        matches!(self.state, State::Done | State::UntilClose)
    }
}

/// The chunked coding, byte by byte (RFC 9112 section 7.1); strict where two parsers could disagree: no LF
/// without CR, no sign, no prefix, no control characters, nothing without bounds.
fn step(state: State, byte: u8) -> Result<State, BodyError> {
    match state {
        State::Line { size, part, seen } => line(size, part, count(seen, MAX_CHUNK_LINE_BYTES)?, byte),
        State::DataCr if byte == b'\r' => Ok(State::DataLf),
        State::DataLf if byte == b'\n' => Ok(FIRST_LINE),
        State::DataCr | State::DataLf => Err(BodyError::ChunkEnd),
        State::Trailer { part, seen } => trailer(part, count(seen, MAX_TRAILER_BYTES)?, byte),
        other => Ok(other),
    }
}

fn count(seen: u16, most: usize) -> Result<u16, BodyError> {
    if usize::from(seen) >= most { Err(BodyError::TooLong) } else { Ok(seen + 1) }
}

fn line(size: u64, part: LinePart, seen: u16, byte: u8) -> Result<State, BodyError> {
    let go = |part| Ok(State::Line { size, part, seen });
    match (part, byte) {
        (LinePart::Start | LinePart::Digits, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
            let digit = char::from(byte).to_digit(16).unwrap_or(0);
            let shifted = size.checked_mul(16).ok_or(BodyError::Size)?;
            Ok(State::Line { size: shifted | u64::from(digit), part: LinePart::Digits, seen })
        }
        (LinePart::Start, _) => Err(BodyError::Size),
        (LinePart::Lf, b'\n') if size == 0 => Ok(State::Trailer { part: TrailerPart::Start, seen: 0 }),
        (LinePart::Lf, b'\n') => Ok(State::Data(size)),
        (LinePart::Lf, _) => Err(BodyError::LineEnd),
        (_, b'\r') => go(LinePart::Lf),
        (_, b'\n') => Err(BodyError::LineEnd),
        (LinePart::Extension, byte) if is_value_byte(byte) => go(LinePart::Extension),
        (LinePart::Extension, _) => Err(BodyError::Extension),
        (_, b' ' | b'\t') => go(LinePart::Padding),
        (_, b';') => go(LinePart::Extension),
        _ => Err(BodyError::Size),
    }
}

fn trailer(part: TrailerPart, seen: u16, byte: u8) -> Result<State, BodyError> {
    let go = |part| Ok(State::Trailer { part, seen });
    match (part, byte) {
        (TrailerPart::LastLf, b'\n') => Ok(State::Done),
        (TrailerPart::Lf, b'\n') => go(TrailerPart::Start),
        (TrailerPart::LastLf | TrailerPart::Lf, _) => Err(BodyError::LineEnd),
        (TrailerPart::Start, b'\r') => go(TrailerPart::LastLf),
        (TrailerPart::Value, b'\r') => go(TrailerPart::Lf),
        (_, b'\n') => Err(BodyError::LineEnd),
        (TrailerPart::Name, b':') => go(TrailerPart::Value),
        (TrailerPart::Start | TrailerPart::Name, byte) if is_token_byte(byte) => go(TrailerPart::Name),
        (TrailerPart::Value, byte) if is_value_byte(byte) => go(TrailerPart::Value),
        _ => Err(BodyError::Trailer),
    }
}

/// What is wrong with a chunked body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyError {
    /// A chunk's size is no hexadecimal number below 2^64.
    Size,
    /// A control character in a chunk's extension.
    Extension,
    /// CR without LF, or LF without CR, in a line of the coding.
    LineEnd,
    /// No CRLF after a chunk's content: its size was wrong.
    ChunkEnd,
    /// A malformed trailer field.
    Trailer,
    /// A line or the trailer section exceeds its limit.
    TooLong,
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            BodyError::Size => "a chunk's size is no hexadecimal number",
            BodyError::Extension => "a control character in a chunk's extension",
            BodyError::LineEnd => "CR without LF, or LF without CR, in the chunked coding",
            BodyError::ChunkEnd => "a chunk does not end where its size says",
            BodyError::Trailer => "a malformed trailer field",
            BodyError::TooLong => "a line of the chunked coding or the trailer section is too long",
        })
    }
}

impl core::error::Error for BodyError {}
