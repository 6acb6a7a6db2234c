//! A sequence of short byte strings in one allocation: small hashes, sorted sets, and the nodes of lists.
//!
//! After a count of four bytes come the entries, each as in Redis' listpack (`listpack.c` of 7.0), so that one can
//! become the other by a copy: a head byte that says what follows, the data, and the length of both, readable from
//! behind. Text that is the canonical decimal form of a 64-bit integer is kept as that integer, in one to nine bytes;
//! everything else as it is. The form of a text is therefore unique, and what was put in comes out byte for byte.
//!
//! Invariants: the bytes after the count are that many whole entries; an empty sequence holds no allocation, and the
//! capacity is at most about twice of what is used. A [`Pos`] is valid until the next change; a stale one may name
//! another entry or none, but can do no harm.
//! Next: `hash.rs` keeps fields and values in turn; `find` with a step of two looks at the fields only.

use std::fmt;

pub use super::entry::{Digits, Entry, parse_int};
use super::entry::{Encoded, back_len, decode, total_behind};

/// Bytes of the count in front.
const HEADER: usize = 4;
const FIRST: u32 = 4;
/// The most bytes a sequence holds: positions have 32 bits.
pub const MAX_BYTES: usize = u32::MAX as usize;
/// Capacity below which nothing is given back.
const SHRINK_FROM: usize = 64;

/// Names an entry by where it begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pos(u32);

impl Pos {
    fn at(offset: usize) -> Option<Self> {
        u32::try_from(offset).ok().map(Self)
    }

    const fn offset(self) -> usize {
        self.0 as usize
    }
}

/// The sequence.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Packed {
    bytes: Vec<u8>,
}

impl fmt::Debug for Packed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl Packed {
    /// An empty one, without an allocation.
    #[must_use]
    pub const fn new() -> Self {
        Self { bytes: Vec::new() }
    }

    /// How many entries.
    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.first_chunk().map_or(0, |count| u32::from_le_bytes(*count) as usize)
    }

    /// Whether there is no entry.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Bytes in use, the count included.
    #[must_use]
    pub fn used_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Bytes of the allocation.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        self.bytes.capacity()
    }

    /// The entries as they lie in a listpack, without its header and its end byte.
    #[must_use]
    pub fn raw(&self) -> &[u8] {
        self.bytes.get(HEADER..).unwrap_or_default()
    }

    /// A sequence of the entries of a listpack; `None` when they are not whole, or not in the form that we would
    /// give them (Redis gives the same).
    #[must_use]
    pub fn from_raw(raw: &[u8]) -> Option<Self> {
        let mut packed = Self::new();
        let mut rest = raw;
        while !rest.is_empty() {
            let (entry, len) = decode(rest)?;
            let text = entry.to_vec();
            let total = len + back_len(len);
            let before = packed.bytes.len().max(HEADER);
            packed.push_back(Entry::from(text.as_slice()));
            if packed.bytes.get(before..) != rest.get(..total) {
                return None;
            }
            rest = rest.get(total..)?;
        }
        Some(packed)
    }

    /// The first entry's position.
    #[inline]
    #[must_use]
    pub fn first(&self) -> Option<Pos> {
        (!self.bytes.is_empty()).then_some(Pos(FIRST))
    }

    /// The last entry's position.
    #[inline]
    #[must_use]
    pub fn last(&self) -> Option<Pos> {
        self.before(self.bytes.len())
    }

    /// The position after this one.
    #[inline]
    #[must_use]
    pub fn next(&self, pos: Pos) -> Option<Pos> {
        let next = pos.offset() + self.total_at(pos)?;
        if next < self.bytes.len() { Pos::at(next) } else { None }
    }

    /// The position before this one.
    #[inline]
    #[must_use]
    pub fn prev(&self, pos: Pos) -> Option<Pos> {
        self.before(pos.offset())
    }

    fn before(&self, end: usize) -> Option<Pos> {
        let entries = self.bytes.get(HEADER..end)?;
        Pos::at(end.checked_sub(total_behind(entries)?)?)
    }

    /// The entry at a position.
    #[inline]
    #[must_use]
    pub fn get(&self, pos: Pos) -> Option<Entry<'_>> {
        decode(self.bytes.get(pos.offset()..)?).map(|(entry, _)| entry)
    }

    /// The position of entry number `index`, found from the nearer end.
    #[must_use]
    pub fn at(&self, index: usize) -> Option<Pos> {
        let len = self.len();
        if index >= len {
            return None;
        }
        let mut pos;
        if index < len / 2 {
            pos = self.first();
            for _ in 0..index {
                pos = self.next(pos?);
            }
        } else {
            pos = self.last();
            for _ in index + 1..len {
                pos = self.prev(pos?);
            }
        }
        pos
    }

    /// Entry number `index`.
    #[must_use]
    pub fn entry(&self, index: usize) -> Option<Entry<'_>> {
        self.get(self.at(index)?)
    }

    /// All entries, from either end.
    #[must_use]
    pub fn iter(&self) -> Iter<'_> {
        Iter { rest: self.raw() }
    }

    /// The entries from a position on.
    pub fn iter_from(&self, pos: Pos) -> impl Iterator<Item = Entry<'_>> {
        Iter { rest: self.bytes.get(pos.offset()..).unwrap_or_default() }
    }

    /// Entries two by two, as fields with values; an odd last one is left out.
    pub fn pairs(&self) -> impl Iterator<Item = (Entry<'_>, Entry<'_>)> {
        let mut iter = self.iter();
        std::iter::from_fn(move || Some((iter.next()?, iter.next()?)))
    }

    /// The first of the entries number 0, `step`, 2 × `step` … after `from` (itself included) that equals `needle`.
    #[must_use]
    pub fn find<'a>(
        &self,
        from: Option<Pos>,
        needle: impl Into<Entry<'a>>,
        step: usize,
    ) -> Option<Pos> {
        let needle = needle.into().normal();
        let mut at = from?.offset();
        let mut skip = 0;
        loop {
            let (entry, len) = decode(self.bytes.get(at..)?)?;
            if skip == 0 {
                if entry.same(&needle) {
                    return Pos::at(at);
                }
                skip = step;
            }
            skip = skip.saturating_sub(1);
            at += len + back_len(len);
        }
    }

    /// Appends an entry.
    pub fn push_back<'a>(&mut self, item: impl Into<Entry<'a>>) {
        self.splice(self.bytes.len().max(HEADER), 0, 0, &[item.into()]);
    }

    /// Puts an entry in front of all.
    pub fn push_front<'a>(&mut self, item: impl Into<Entry<'a>>) {
        self.splice(HEADER, 0, 0, &[item.into()]);
    }

    /// Appends entries, with one growth of the allocation for all of them.
    pub fn extend(&mut self, items: &[Entry<'_>]) {
        self.splice(self.bytes.len().max(HEADER), 0, 0, items);
    }

    /// Puts an entry before the one at `pos`, or at the end for `None`; `pos` then names the new one.
    pub fn insert<'a>(&mut self, pos: Option<Pos>, item: impl Into<Entry<'a>>) {
        self.insert_all(pos, &[item.into()]);
    }

    /// Puts entries, in order, before the one at `pos`, or at the end for `None`.
    pub fn insert_all(&mut self, pos: Option<Pos>, items: &[Entry<'_>]) {
        let end = self.bytes.len().max(HEADER);
        let at = pos.map_or(end, |pos| pos.offset().clamp(HEADER, end));
        self.splice(at, 0, 0, items);
    }

    /// Puts another entry in the place of the one at `pos`; `pos` then names the new one. False when there is none.
    pub fn replace<'a>(&mut self, pos: Pos, item: impl Into<Entry<'a>>) -> bool {
        let Some(old) = self.total_at(pos) else {
            return false;
        };
        self.splice(pos.offset(), old, 1, &[item.into()]);
        true
    }

    /// Removes up to `count` entries from `pos` on; how many went. `pos` then names what followed them, if anything.
    pub fn remove(&mut self, pos: Pos, count: usize) -> usize {
        let mut end = pos.offset();
        let mut gone = 0;
        while gone < count {
            let Some(total) = self.total_at_offset(end) else {
                break;
            };
            end += total;
            gone += 1;
        }
        self.splice(pos.offset(), end - pos.offset(), gone, &[]);
        gone
    }

    /// Removes up to `count` entries from number `index` on; how many went.
    pub fn remove_range(&mut self, index: usize, count: usize) -> usize {
        self.at(index).map_or(0, |pos| self.remove(pos, count))
    }

    /// Removes the last entry, handing its bytes out.
    pub fn pop_back(&mut self) -> Option<Vec<u8>> {
        let pos = self.last()?;
        let text = self.get(pos)?.to_vec();
        self.remove(pos, 1);
        Some(text)
    }

    /// Removes the first entry, handing its bytes out.
    pub fn pop_front(&mut self) -> Option<Vec<u8>> {
        let pos = self.first()?;
        let text = self.get(pos)?.to_vec();
        self.remove(pos, 1);
        Some(text)
    }

    /// Cuts the sequence in two before entry number `index`; the part from there on.
    #[must_use]
    pub fn split_off(&mut self, index: usize) -> Self {
        let (Some(pos), len) = (self.at(index), self.len()) else {
            return Self::new();
        };
        let tail = self.bytes.get(pos.offset()..).unwrap_or_default();
        let mut other = Self { bytes: Vec::with_capacity(HEADER + tail.len()) };
        other.bytes.extend_from_slice(&[0; HEADER]);
        other.bytes.extend_from_slice(tail);
        other.set_len(len - index);
        self.bytes.truncate(pos.offset());
        self.set_len(index);
        self.fit();
        other
    }

    /// Appends all entries of another sequence.
    pub fn append(&mut self, other: &Self) {
        if other.is_empty() {
            return;
        }
        let count = self.len() + other.len();
        if self.bytes.is_empty() {
            self.bytes.clone_from(&other.bytes);
            return;
        }
        self.reserve(other.raw().len());
        self.bytes.extend_from_slice(other.raw());
        self.set_len(count);
    }

    /// Gives back what the allocation has beyond its use.
    pub fn shrink_to_fit(&mut self) {
        self.bytes.shrink_to_fit();
    }

    /// Removes everything, the allocation included.
    pub fn clear(&mut self) {
        self.bytes = Vec::new();
    }

    #[inline]
    fn total_at(&self, pos: Pos) -> Option<usize> {
        self.total_at_offset(pos.offset())
    }

    #[inline]
    fn total_at_offset(&self, offset: usize) -> Option<usize> {
        let (_, len) = decode(self.bytes.get(offset..)?)?;
        let total = len + back_len(len);
        (offset + total <= self.bytes.len()).then_some(total)
    }

    fn set_len(&mut self, len: usize) {
        if let (Some(count), Ok(len)) = (self.bytes.first_chunk_mut::<HEADER>(), u32::try_from(len))
        {
            *count = len.to_le_bytes();
        }
    }

    /// Makes room for so many more bytes: an eighth more than needed, since growth by doubling would leave a quarter
    /// of all memory of small collections unused.
    fn reserve(&mut self, more: usize) {
        let needed = self.bytes.len() + more;
        // A caller that packs gigabytes has missed every limit there is.
        assert!(needed <= MAX_BYTES, "a packed sequence outgrows its positions");
        if needed > self.bytes.capacity() {
            let target = (needed + needed / 8).next_multiple_of(8);
            self.bytes.reserve_exact(target - self.bytes.len());
        }
    }

    /// Gives memory back when less than half of it is in use.
    fn fit(&mut self) {
        if self.bytes.len() <= HEADER {
            self.bytes = Vec::new();
        } else if self.bytes.capacity() > SHRINK_FROM
            && self.bytes.len() < self.bytes.capacity() / 2
        {
            self.bytes.shrink_to((self.bytes.len() + self.bytes.len() / 8).next_multiple_of(8));
        }
    }

    /// Puts entries in the place of the `old` bytes from `at` on, which are `gone` entries.
    fn splice(&mut self, at: usize, old: usize, gone: usize, items: &[Entry<'_>]) {
        let new: usize = items.iter().map(Entry::packed_len).sum();
        if old == 0 && new == 0 {
            return;
        }
        if self.bytes.is_empty() {
            self.reserve(HEADER + new);
            self.bytes.extend_from_slice(&[0; HEADER]);
        }
        let count = (self.len() + items.len()).saturating_sub(gone);
        let len = self.bytes.len();
        if new > old {
            self.reserve(new - old);
            self.bytes.resize(len + new - old, 0);
        }
        self.bytes.copy_within(at + old..len, at + new);
        self.bytes.truncate(len - old + new);
        let mut room = self.bytes.get_mut(at..at + new).unwrap_or_default();
        for item in items {
            room = Encoded::new(*item).write(room);
        }
        self.set_len(count);
        if new < old {
            self.fit();
        }
    }
}

/// Entries in order; see [`Packed::iter`].
#[derive(Debug, Clone)]
pub struct Iter<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Iter<'a> {
    type Item = Entry<'a>;

    #[inline]
    fn next(&mut self) -> Option<Entry<'a>> {
        let (entry, len) = decode(self.rest)?;
        self.rest = self.rest.get(len + back_len(len)..).unwrap_or_default();
        Some(entry)
    }
}

impl DoubleEndedIterator for Iter<'_> {
    #[inline]
    fn next_back(&mut self) -> Option<Self::Item> {
        let at = self.rest.len().checked_sub(total_behind(self.rest)?)?;
        let (rest, last) = self.rest.split_at_checked(at)?;
        self.rest = rest;
        decode(last).map(|(entry, _)| entry)
    }
}

impl<'a> IntoIterator for &'a Packed {
    type Item = Entry<'a>;
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

#[cfg(test)]
mod tests;
