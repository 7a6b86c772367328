//! Base64 (RFC 4648 section 4) in lent memory, as keys, signatures and digests are written in fields and files. Strict:
//! padding is needed and unused bits are zero (section 3.5), so that the same bytes always have the same text.

use core::fmt;

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Displays bytes as base64.
#[derive(Clone, Copy, Debug)]
pub struct Base64<'a>(pub &'a [u8]);

impl fmt::Display for Base64<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for group in self.0.chunks(3) {
            let byte = |place| u32::from(group.get(place).copied().unwrap_or(0));
            let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
            for place in 0..4 {
                let digit = ALPHABET.get((bits >> (18 - 6 * place) & 63) as usize);
                let digit = digit.filter(|_| place <= group.len());
                fmt::Write::write_char(f, digit.map_or('=', |digit| char::from(*digit)))?;
            }
        }
        Ok(())
    }
}

/// The bytes that `text` stands for, at the start of `buffer`; `None` if it is no base64 or they don't fit.
pub fn decode<'a>(text: &[u8], buffer: &'a mut [u8]) -> Option<&'a [u8]> {
    let mut length = 0;
    let mut ended = false;
    for group in text.chunks(4) {
        let &[a, b, c, d] = group else { return None };
        if ended {
            return None;
        }
        let digits = [a, b, c, d].iter().rposition(|&digit| digit != b'=')? + 1;
        ended = digits < 4;
        let mut bits = 0;
        for &digit in group.get(..digits)? {
            bits = bits << 6 | value(digit)?;
        }
        // Two digits are one byte and 4 bits, three are two bytes and 2 bits.
        let (bytes, unused) = match digits {
            4 => (3, 0),
            3 => (2, 2),
            2 => (1, 4),
            _ => return None,
        };
        if bits & ((1 << unused) - 1) != 0 {
            return None;
        }
        bits >>= unused;
        let place = buffer.get_mut(length..length + bytes)?;
        for byte in place.iter_mut().rev() {
            *byte = bits as u8;
            bits >>= 8;
        }
        length += bytes;
    }
    buffer.get(..length)
}

/// The `N` bytes that `text` stands for.
pub fn decode_exactly<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    let length = decode(text, &mut bytes)?.len();
    (length == N).then_some(bytes)
}

fn value(digit: u8) -> Option<u32> {
    Some(u32::from(match digit {
        b'A'..=b'Z' => digit - b'A',
        b'a'..=b'z' => digit - b'a' + 26,
        b'0'..=b'9' => digit - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    }))
}
