//! Writes heads into lent buffers. Not responsible for which fields belong there ([`super::forward`]).

use core::fmt;

use super::{is_token_byte, is_value_byte};

/// Writes one head into a buffer. The first error is kept, nothing is written after it, and
/// [`finish`](HeadWriter::finish) tells it: so the calls between need no checks of their own.
///
/// ```
/// # use bamqp_core::http::write::HeadWriter;
/// let mut buffer = [0; 64];
/// let mut head = HeadWriter::new(&mut buffer);
/// head.request("GET", "/CHUNK").field("Host", "10.77.0.2").field_args("X-Count", format_args!("{}", 7));
/// let length = head.finish().unwrap();
/// assert_eq!(&buffer[..length], b"GET /CHUNK HTTP/1.1\r\nHost: 10.77.0.2\r\nX-Count: 7\r\n\r\n");
/// ```
#[derive(Debug)]
pub struct HeadWriter<'a> {
    buffer: &'a mut [u8],
    length: usize,
    error: Option<WriteError>,
}

impl<'a> HeadWriter<'a> {
    /// Writes at the start of `buffer`.
    pub fn new(buffer: &'a mut [u8]) -> Self {
        HeadWriter { buffer, length: 0, error: None }
    }

    /// `METHOD target HTTP/1.1`.
    pub fn request(&mut self, method: &str, target: impl fmt::Display) -> &mut Self {
        self.name(method);
        self.raw(b" ");
        self.display(format_args!("{target}"), |b| b > b' ' && b != 0x7f);
        self.raw(b" HTTP/1.1\r\n");
        self
    }

    /// `HTTP/1.1 status reason`; `status` has three digits.
    pub fn status(&mut self, status: u16, reason: &str) -> &mut Self {
        if !(100..=999).contains(&status) {
            self.fail(WriteError::Invalid);
        }
        self.raw(b"HTTP/1.1 ");
        self.display(format_args!("{status} {reason}"), is_value_byte);
        self.raw(b"\r\n");
        self
    }

    /// A field whose value are these bytes.
    pub fn field(&mut self, name: &str, value: impl AsRef<[u8]>) -> &mut Self {
        let value = value.as_ref();
        self.name(name);
        self.raw(b": ");
        if !value.iter().all(|b| is_value_byte(*b)) {
            self.fail(WriteError::Invalid);
        }
        self.raw(value);
        self.raw(b"\r\n");
        self
    }

    /// A field whose value is formatted.
    pub fn field_args(&mut self, name: &str, value: fmt::Arguments<'_>) -> &mut Self {
        self.name(name);
        self.raw(b": ");
        self.display(value, is_value_byte);
        self.raw(b"\r\n");
        self
    }

    /// Writes the empty line that ends the head and says how many bytes the head has.
    ///
    /// # Errors
    /// The first error of all calls: nothing of the buffer may be sent.
    pub fn finish(self) -> Result<usize, WriteError> {
        self.finish_in_place().map(|(_, length)| length)
    }

    /// The same, and gives the buffer back, for what is added to a head that is complete: signatures.
    pub(crate) fn finish_in_place(mut self) -> Result<(&'a mut [u8], usize), WriteError> {
        self.raw(b"\r\n");
        match self.error {
            Some(error) => Err(error),
            None => Ok((self.buffer, self.length)),
        }
    }

    pub(crate) fn fail(&mut self, error: WriteError) {
        self.error.get_or_insert(error);
    }

    fn name(&mut self, name: &str) {
        if name.is_empty() || !name.bytes().all(is_token_byte) {
            self.fail(WriteError::Invalid);
        }
        self.raw(name.as_bytes());
    }

    fn display(&mut self, text: fmt::Arguments<'_>, allowed: fn(u8) -> bool) {
        if fmt::write(&mut Checked { head: self, allowed }, text).is_err() {
            // An earlier error, the writer's own, goes before that of a value that could not be formatted.
            self.fail(WriteError::Invalid);
        }
    }

    fn raw(&mut self, bytes: &[u8]) {
        if self.error.is_some() {
            return;
        }
        let end = self.length.saturating_add(bytes.len());
        match self.buffer.get_mut(self.length..end) {
            Some(place) => {
                place.copy_from_slice(bytes);
                self.length = end;
            }
            None => self.fail(WriteError::Overflow),
        }
    }
}

/// Formats into a head, byte by byte checked.
struct Checked<'w, 'a> {
    head: &'w mut HeadWriter<'a>,
    allowed: fn(u8) -> bool,
}

impl fmt::Write for Checked<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if !text.bytes().all(self.allowed) {
            self.head.fail(WriteError::Invalid);
        }
        self.head.raw(text.as_bytes());
        if self.head.error.is_some() { Err(fmt::Error) } else { Ok(()) }
    }
}

/// Why a head could not be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteError {
    /// The buffer is too small.
    Overflow,
    /// A name, target or value has bytes that would end it early or are not allowed there.
    Invalid,
}

impl fmt::Display for WriteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            WriteError::Overflow => "the head does not fit into its buffer",
            WriteError::Invalid => "a byte that is not allowed in a head",
        })
    }
}

impl core::error::Error for WriteError {}
