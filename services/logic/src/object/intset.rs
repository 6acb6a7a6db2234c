//! A sorted set of integers in one allocation, as Redis' intset lays it out: width and count of four bytes each, then
//! the integers, all of the width that the widest has needed. A dump is a copy.
//!
//! Invariants: strictly ascending; an empty set holds no allocation; the width never shrinks while there is an
//! integer.
//! Next: `set.rs` keeps sets of up to some hundred integers so.

/// Bytes of width and count.
const HEADER: usize = 8;
/// Capacity below which nothing is given back.
const SHRINK_FROM: usize = 64;

/// The set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IntSet {
    bytes: Vec<u8>,
}

/// Bytes an integer needs.
fn width_of(value: i64) -> usize {
    if i16::try_from(value).is_ok() {
        2
    } else if i32::try_from(value).is_ok() {
        4
    } else {
        8
    }
}

#[inline]
fn read(bytes: &[u8], width: usize) -> Option<i64> {
    Some(match width {
        2 => i64::from(i16::from_le_bytes(*bytes.first_chunk()?)),
        4 => i64::from(i32::from_le_bytes(*bytes.first_chunk()?)),
        _ => i64::from_le_bytes(*bytes.first_chunk()?),
    })
}

impl IntSet {
    /// An empty set, without an allocation.
    #[must_use]
    pub const fn new() -> Self {
        Self { bytes: Vec::new() }
    }

    /// How many integers.
    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        self.word(4)
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Bytes of each integer: 2, 4 or 8.
    #[inline]
    #[must_use]
    pub fn width(&self) -> usize {
        self.word(0)
    }

    /// Bytes of the allocation.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        self.bytes.capacity()
    }

    /// The bytes of Redis' intset.
    #[must_use]
    pub fn raw(&self) -> &[u8] {
        &self.bytes
    }

    /// A set of the bytes of Redis' intset; `None` when they are not one, or empty.
    #[must_use]
    pub fn from_raw(raw: &[u8]) -> Option<Self> {
        let set = Self { bytes: raw.to_vec() };
        let (width, len) = (set.width(), set.len());
        let fits = len.checked_mul(width).and_then(|bytes| bytes.checked_add(HEADER));
        let ascending = || set.iter().zip(set.iter().skip(1)).all(|(low, high)| low < high);
        let whole = matches!(width, 2 | 4 | 8) && len > 0 && fits == Some(raw.len());
        (whole && ascending()).then_some(set)
    }

    fn word(&self, at: usize) -> usize {
        let bytes = self.bytes.get(at..).and_then(|bytes| bytes.first_chunk());
        bytes.map_or(0, |bytes| u32::from_le_bytes(*bytes) as usize)
    }

    fn set_word(&mut self, at: usize, value: usize) {
        let room = self.bytes.get_mut(at..).and_then(|bytes| bytes.first_chunk_mut());
        if let (Some(room), Ok(value)) = (room, u32::try_from(value)) {
            *room = value.to_le_bytes();
        }
    }

    /// Integer number `index` in ascending order.
    #[inline]
    #[must_use]
    pub fn get(&self, index: usize) -> Option<i64> {
        let width = self.width();
        read(self.bytes.get(HEADER + index * width..)?, width)
    }

    /// The integers in ascending order.
    #[must_use]
    pub fn iter(&self) -> Ints<'_> {
        Ints { rest: self.bytes.get(HEADER..).unwrap_or_default(), width: self.width() }
    }

    /// The index of an integer, or the one it would get.
    fn search(&self, value: i64) -> Result<usize, usize> {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let mid = low.midpoint(high);
            match self.get(mid) {
                Some(found) if found == value => return Ok(mid),
                Some(found) if found < value => low = mid + 1,
                _ => high = mid,
            }
        }
        Err(low)
    }

    /// Whether an integer is in the set.
    #[must_use]
    pub fn contains(&self, value: i64) -> bool {
        width_of(value) <= self.width() && self.search(value).is_ok()
    }

    /// Adds an integer; whether it is new.
    pub fn insert(&mut self, value: i64) -> bool {
        if self.bytes.is_empty() {
            self.bytes = Vec::with_capacity(HEADER * 2);
            self.bytes.resize(HEADER, 0);
        }
        if width_of(value) > self.width() {
            self.widen(width_of(value));
        }
        let Err(index) = self.search(value) else {
            return false;
        };
        let (len, width) = (self.len(), self.width());
        let (at, end) = (HEADER + index * width, self.bytes.len());
        let needed = end + width;
        if needed > self.bytes.capacity() {
            let target = (needed + needed / 8).next_multiple_of(8);
            self.bytes.reserve_exact(target - end);
        }
        self.bytes.resize(needed, 0);
        self.bytes.copy_within(at..end, at + width);
        if let Some(room) = self.bytes.get_mut(at..at + width) {
            room.copy_from_slice(value.to_le_bytes().get(..width).unwrap_or_default());
        }
        self.set_word(4, len + 1);
        true
    }

    /// Removes an integer; whether it was there.
    pub fn remove(&mut self, value: i64) -> bool {
        let Ok(index) = self.search(value) else {
            return false;
        };
        let (len, width) = (self.len(), self.width());
        if len <= 1 {
            self.bytes = Vec::new();
            return true;
        }
        let at = HEADER + index * width;
        self.bytes.copy_within(at + width.., at);
        self.bytes.truncate(self.bytes.len() - width);
        self.set_word(4, len - 1);
        if self.bytes.capacity() > SHRINK_FROM && self.bytes.len() < self.bytes.capacity() / 2 {
            self.bytes.shrink_to((self.bytes.len() + self.bytes.len() / 8).next_multiple_of(8));
        }
        true
    }

    /// The same integers with more bytes each.
    fn widen(&mut self, width: usize) {
        let (len, mut bytes) = (self.len(), Vec::with_capacity(HEADER + (self.len() + 1) * width));
        bytes.resize(HEADER, 0);
        for value in self.iter() {
            bytes.extend_from_slice(value.to_le_bytes().get(..width).unwrap_or_default());
        }
        self.bytes = bytes;
        self.set_word(0, width);
        self.set_word(4, len);
    }
}

/// Integers in ascending order.
#[derive(Debug, Clone)]
pub struct Ints<'a> {
    rest: &'a [u8],
    width: usize,
}

impl Iterator for Ints<'_> {
    type Item = i64;

    #[inline]
    fn next(&mut self) -> Option<i64> {
        let value = read(self.rest, self.width)?;
        self.rest = self.rest.get(self.width..).unwrap_or_default();
        Some(value)
    }
}

impl<'a> IntoIterator for &'a IntSet {
    type Item = i64;
    type IntoIter = Ints<'a>;

    fn into_iter(self) -> Ints<'a> {
        self.iter()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn bytes_are_those_of_an_intset() {
        let mut set = IntSet::new();
        assert!(set.insert(5) && set.insert(-1) && !set.insert(5));
        // From DUMP of redis-server 7.0.15 after SADD s 5 -1, and after 70000 more.
        assert_eq!(set.raw(), [2, 0, 0, 0, 2, 0, 0, 0, 0xFF, 0xFF, 5, 0]);
        assert!(set.insert(70_000));
        assert_eq!(
            set.raw(),
            [4, 0, 0, 0, 3, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 5, 0, 0, 0, 0x70, 0x11, 1, 0]
        );
        assert!(set.remove(70_000) && !set.remove(70_000));
        assert_eq!(set.width(), 4, "the width stays");
        assert_eq!(IntSet::from_raw(set.raw()), Some(set.clone()));
        for bad in [
            &[][..],
            &[2, 0, 0, 0, 0, 0, 0, 0],
            &[3, 0, 0, 0, 1, 0, 0, 0, 1, 2, 3],
            &[2, 0, 0, 0, 2, 0, 0, 0, 1, 0],
            &[2, 0, 0, 0, 2, 0, 0, 0, 1, 0, 1, 0],
            &[2, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 1, 0],
        ] {
            assert_eq!(IntSet::from_raw(bad), None, "{bad:?}");
        }
        assert!(set.remove(5) && set.remove(-1));
        assert_eq!((set.heap_bytes(), set.contains(5), set.remove(5)), (0, false, false));
    }

    fn value() -> impl Strategy<Value = i64> {
        prop_oneof![
            20 => -50i64..50,
            2 => any::<i16>().prop_map(i64::from),
            1 => any::<i32>().prop_map(i64::from),
            1 => any::<i64>(),
            1 => prop::sample::select(vec![i64::MIN, i64::MAX, -32_768, 32_767, -32_769, 32_768,
                i64::from(i32::MIN), i64::from(i32::MAX) + 1]),
        ]
    }

    proptest! {
        #[test]
        fn an_intset_is_a_set(ops in prop::collection::vec((any::<bool>(), value()), 1..300)) {
            let (mut set, mut model) = (IntSet::new(), BTreeSet::new());
            for (add, value) in ops {
                if add {
                    prop_assert_eq!(set.insert(value), model.insert(value));
                } else {
                    prop_assert_eq!(set.remove(value), model.remove(&value));
                }
                prop_assert!(set.iter().eq(model.iter().copied()));
                prop_assert_eq!((set.len(), set.contains(value)), (model.len(), model.contains(&value)));
                prop_assert!(set.heap_bytes() >= set.raw().len());
                prop_assert!(set.heap_bytes() <= SHRINK_FROM.max(set.raw().len() * 9 / 4 + 16));
                prop_assert_eq!(set.get(model.len()), None);
                if !set.is_empty() {
                    let again = IntSet::from_raw(set.raw());
                    prop_assert_eq!(again.as_ref(), Some(&set));
                }
            }
        }
    }
}
