//! The fields of one head, in their order, borrowed from the bytes that they came in. Not responsible for
//! what any field means.

use httparse::{EMPTY_HEADER, Header};

use crate::limits::MAX_FIELDS;

/// One field line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field<'b> {
    /// The name as it was sent; compared without case.
    pub name: &'b str,
    /// The value without surrounding white space; may hold bytes above 127.
    pub value: &'b [u8],
}

/// At most [`MAX_FIELDS`] field lines. Names are compared without case (RFC 9110 section 5.1).
#[derive(Clone)]
pub struct Fields<'b> {
    lines: [Header<'b>; MAX_FIELDS],
    count: usize,
}

impl<'b> Fields<'b> {
    /// No fields.
    pub const fn new() -> Self {
        Fields { lines: [EMPTY_HEADER; MAX_FIELDS], count: 0 }
    }

    /// Lets `parse` fill the lines and say how many they are.
    pub(crate) fn fill<E>(
        parse: impl FnOnce(&mut [Header<'b>]) -> Result<Option<usize>, E>,
    ) -> Result<Option<Self>, E> {
        let mut fields = Self::new();
        let Some(count) = parse(&mut fields.lines)? else { return Ok(None) };
        fields.count = count.min(MAX_FIELDS);
        Ok(Some(fields))
    }

    /// How many field lines there are.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// All field lines in the order in which they came.
    pub fn iter(&self) -> impl Iterator<Item = Field<'b>> + '_ {
        self.lines.iter().take(self.count).map(|line| Field { name: line.name, value: line.value })
    }

    /// The values of all lines called `name`.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'b [u8]> + 'a {
        self.iter().filter(move |field| field.name.eq_ignore_ascii_case(name)).map(|field| field.value)
    }

    /// The value of the first line called `name`.
    pub fn get(&self, name: &str) -> Option<&'b [u8]> {
        self.iter().find(|field| field.name.eq_ignore_ascii_case(name)).map(|field| field.value)
    }

    /// The value of the first line called `name`, if it is UTF-8.
    pub fn text(&self, name: &str) -> Option<&'b str> {
        core::str::from_utf8(self.get(name)?).ok()
    }

    /// The value of the only line called `name`: `Ok(None)` if there is none.
    ///
    /// # Errors
    /// [`Duplicate`] if there are several.
    pub fn only(&self, name: &str) -> Result<Option<&'b [u8]>, Duplicate> {
        let mut values = self.all(name);
        match (values.next(), values.next()) {
            (_, Some(_)) => Err(Duplicate),
            (value, None) => Ok(value),
        }
    }

    /// Whether there is a line called `name`.
    pub fn contains(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// How many lines are called `name`.
    pub fn count(&self, name: &str) -> usize {
        self.all(name).count()
    }

    /// The members of the comma-separated list that all lines called `name` make up together, without
    /// surrounding white space and without empty members (RFC 9110 section 5.6.1).
    pub fn list<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'b [u8]> + 'a {
        self.all(name).flat_map(members)
    }

    /// Whether the list `name` has a member that is `token`, whatever its case.
    pub fn has_token(&self, name: &str, token: &str) -> bool {
        self.list(name).any(|member| member.eq_ignore_ascii_case(token.as_bytes()))
    }
}

impl Default for Fields<'_> {
    fn default() -> Self {
        Self::new()
    }
}

impl core::fmt::Debug for Fields<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_list().entries(self.lines.iter().take(self.count)).finish()
    }
}

/// Several field lines where there may be one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Duplicate;

impl core::fmt::Display for Duplicate {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("a field that may come once came several times")
    }
}

impl core::error::Error for Duplicate {}

/// The members of one comma-separated value; a comma inside a quoted string does not separate.
pub fn members(value: &[u8]) -> Members<'_> {
    Members { rest: value }
}

/// See [`members`].
#[derive(Clone, Debug)]
pub struct Members<'b> {
    rest: &'b [u8],
}

impl<'b> Iterator for Members<'b> {
    type Item = &'b [u8];

    fn next(&mut self) -> Option<&'b [u8]> {
        while !self.rest.is_empty() {
            let end = separator(self.rest).unwrap_or(self.rest.len());
            let (member, rest) = self.rest.split_at(end);
            self.rest = rest.strip_prefix(b",").unwrap_or(rest);
            let member = member.trim_ascii();
            if !member.is_empty() {
                return Some(member);
            }
        }
        None
    }
}

/// Where the first comma outside of a quoted string is.
fn separator(value: &[u8]) -> Option<usize> {
    let (mut quoted, mut escaped) = (false, false);
    value.iter().position(|byte| {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b',' if !quoted => return true,
            _ => {}
        }
        false
    })
}
