//! Lists in an entry: lent when it is written, read from the line when they are looked at. So an entry is small, and
//! threads with small stacks can make one. Not responsible for what the items mean.

use core::fmt;
use core::fmt::Write;
use core::ops::Range;

use super::{Hash, hash, parsed};
use crate::http::range::{Ends, RangeSpec};
use crate::message::Fingerprint;

/// What a list in an entry has.
pub trait Item: Clone + PartialEq + fmt::Debug {
    /// Reads one.
    fn read(text: &[u8]) -> Option<Self>;

    /// Writes one, without a comma.
    ///
    /// # Errors
    /// That of `f`.
    fn show(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result;
}

/// `first-last`, both inclusive; not empty.
impl Item for Range<u64> {
    fn read(text: &[u8]) -> Option<Self> {
        match RangeSpec::parse(text)? {
            RangeSpec::Between(first, last) => Some(first..last.checked_add(1)?),
            _ => None,
        }
    }

    fn show(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Ends(self))
    }
}

/// A router, and the head of its ledger.
impl Item for (Fingerprint, Hash) {
    fn read(text: &[u8]) -> Option<Self> {
        let at = text.iter().position(|byte| *byte == b'/')?;
        let (peer, head) = text.split_at_checked(at)?;
        Some((parsed(peer)?, hash(head.strip_prefix(b"/")?)?))
    }

    fn show(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.0, self.1)
    }
}

/// Items with commas between them.
#[derive(Debug)]
pub enum List<'a, T> {
    /// As they are.
    Plain(&'a [T]),
    /// As they stand in a ledger.
    Written(&'a [u8]),
}

impl<'a, T: Item> List<'a, T> {
    /// The list that stands there; `None` if it is none.
    pub(super) fn written(text: &'a [u8]) -> Option<List<'a, T>> {
        let list = List::Written(text);
        let is_list = text.is_empty() || text.split(|byte| *byte == b',').all(|item| T::read(item).is_some());
        is_list.then_some(list)
    }

    /// The items.
    pub fn iter(&self) -> impl Iterator<Item = T> + 'a {
        let (plain, text) = match *self {
            List::Plain(items) => (items, &[][..]),
            List::Written(text) => (&[][..], text),
        };
        let texts = text.split(|byte| *byte == b',').filter(|item| !item.is_empty());
        plain.iter().cloned().chain(texts.filter_map(T::read))
    }
}

// By hand, since derived ones would ask the same of the items.
impl<T> Clone for List<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for List<'_, T> {}

impl<T: Item> PartialEq for List<'_, T> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl<T: Item> Eq for List<'_, T> {}

impl<T: Item> fmt::Display for List<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, item) in self.iter().enumerate() {
            if place > 0 {
                f.write_char(',')?;
            }
            item.show(f)?;
        }
        Ok(())
    }
}
