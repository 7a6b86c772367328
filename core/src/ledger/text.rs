//! Any bytes as one line of ASCII that a person can read, and back. Not responsible for what they say.
//!
//! `printf '%b'` of any shell turns the text into the bytes again: `\\`, `\r`, `\n`, `\t`, and `\0ooo` (octal) for
//! everything else that is not printable ASCII.

use core::fmt;
use core::fmt::Write;

/// Bytes, or the text that stands for them.
#[derive(Clone, Copy, Debug)]
pub enum Text<'a> {
    /// As they are.
    Plain(&'a [u8]),
    /// As they stand in a ledger.
    Escaped(&'a [u8]),
}

impl<'a> Text<'a> {
    /// `text` as it stands in a ledger, if it stands for any bytes.
    pub fn escaped(text: &'a [u8]) -> Option<Text<'a>> {
        let mut rest = text;
        while !rest.is_empty() {
            (_, rest) = unescape(rest)?;
        }
        Some(Text::Escaped(text))
    }

    /// The bytes.
    pub fn bytes(self) -> impl Iterator<Item = u8> + 'a {
        let (mut rest, is_escaped) = match self {
            Text::Plain(bytes) => (bytes, false),
            Text::Escaped(text) => (text, true),
        };
        core::iter::from_fn(move || {
            let (byte, after) = if is_escaped { unescape(rest)? } else { plain(rest)? };
            rest = after;
            Some(byte)
        })
    }

    /// The bytes, in the front of `buffer`; `None` if they don't fit.
    pub fn copy_to(self, buffer: &mut [u8]) -> Option<&[u8]> {
        let mut length = 0;
        for byte in self.bytes() {
            *buffer.get_mut(length)? = byte;
            length += 1;
        }
        buffer.get(..length)
    }
}

impl PartialEq for Text<'_> {
    fn eq(&self, other: &Text<'_>) -> bool {
        self.bytes().eq(other.bytes())
    }
}

impl Eq for Text<'_> {}

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.bytes() {
            match byte {
                b'\\' => f.write_str("\\\\")?,
                b'\r' => f.write_str("\\r")?,
                b'\n' => f.write_str("\\n")?,
                b'\t' => f.write_str("\\t")?,
                b' '..=b'~' => f.write_char(byte.into())?,
                _ => write!(f, "\\0{byte:03o}")?,
            }
        }
        Ok(())
    }
}

fn plain(bytes: &[u8]) -> Option<(u8, &[u8])> {
    bytes.split_first().map(|(byte, rest)| (*byte, rest))
}

fn unescape(text: &[u8]) -> Option<(u8, &[u8])> {
    match text {
        [b'\\', b'\\', rest @ ..] => Some((b'\\', rest)),
        [b'\\', b'r', rest @ ..] => Some((b'\r', rest)),
        [b'\\', b'n', rest @ ..] => Some((b'\n', rest)),
        [b'\\', b't', rest @ ..] => Some((b'\t', rest)),
        [b'\\', b'0', a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', rest @ ..] => {
            Some(((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'), rest))
        }
        [byte @ b' '..=b'~', rest @ ..] if *byte != b'\\' => Some((*byte, rest)),
        _ => None,
    }
}
