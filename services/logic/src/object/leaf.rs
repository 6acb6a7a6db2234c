//! One leaf of a table: items side by side, and 16 bits of each one's hash.
//!
//! Invariants: `tags` and `items` are of equal length; the capacity grows by an eighth, since most of a table's memory
//! is its leaves'.
//! Next: `table.rs` splits and merges leaves.

use super::{due::NEVER, table::Keyed};

/// Items at which a leaf splits.
pub(super) const LEAF_MAX: usize = 128;
/// A leaf with fewer items looks for its buddy.
pub(super) const MERGE_BELOW: usize = LEAF_MAX / 4;
/// A merge leaves at most this many, so that a split is far again.
pub(super) const MERGE_MAX: usize = LEAF_MAX / 2;
/// Tags compared at once.
const LANES: usize = 16;

/// The leaf.
pub(super) struct Leaf<T> {
    pub(super) tags: Vec<u16>,
    pub(super) items: Vec<T>,
    /// The first hash it covers.
    pub(super) prefix: u64,
    /// How many bits of `prefix` count.
    depth: u32,
}

const _: () = assert!(size_of::<Leaf<Box<[u8]>>>() == 64);

#[inline]
const fn tag_of(hash: u64) -> u16 {
    (hash & 0xFFFF) as u16
}

impl<T> Leaf<T> {
    /// An empty leaf with room for `items` and some more.
    pub(super) fn new(prefix: u64, depth: u32, items: usize) -> Self {
        let room = if items == 0 { 0 } else { roomy(items) };
        Self { tags: Vec::with_capacity(room), items: Vec::with_capacity(room), prefix, depth }
    }

    #[inline]
    pub(super) fn depth(&self) -> u32 {
        self.depth
    }

    /// Covers twice as much: after a merge into the lower of two.
    pub(super) fn raise(&mut self) {
        self.depth -= 1;
    }

    /// Bytes of the two vectors.
    #[inline]
    pub(super) fn vec_bytes(&self) -> usize {
        self.tags.capacity() * size_of::<u16>() + self.items.capacity() * size_of::<T>()
    }

    /// The position of an item with this hash that passes the test.
    #[inline]
    pub(super) fn find(&self, hash: u64, test: impl Fn(&T) -> bool) -> Option<usize> {
        let tag = tag_of(hash);
        let (chunks, rest) = self.tags.as_chunks::<LANES>();
        for (n, chunk) in chunks.iter().enumerate() {
            // All sixteen without a branch: the compiler makes one vector comparison of it.
            if chunk.iter().fold(false, |hit, &own| hit | (own == tag)) {
                let found = self.find_in(n * LANES, chunk, tag, &test);
                if found.is_some() {
                    return found;
                }
            }
        }
        self.find_in(chunks.len() * LANES, rest, tag, &test)
    }

    #[inline]
    fn find_in(
        &self,
        from: usize,
        tags: &[u16],
        tag: u16,
        test: &impl Fn(&T) -> bool,
    ) -> Option<usize> {
        let hits = tags.iter().enumerate().filter(|&(_, &own)| own == tag);
        let mut places = hits.map(|(n, _)| from + n);
        places.find(|&at| self.items.get(at).is_some_and(test))
    }

    /// Adds an item; how many there are then.
    pub(super) fn push(&mut self, hash: u64, item: T) -> usize {
        self.put(tag_of(hash), item);
        self.items.len()
    }

    /// Adds an item by its tag.
    pub(super) fn put(&mut self, tag: u16, item: T) {
        let len = self.items.len();
        if len == self.items.capacity() {
            let more = roomy(len + 1) - len;
            self.items.reserve_exact(more);
            self.tags.reserve_exact(more);
        }
        self.items.push(item);
        self.tags.push(tag);
    }

    /// Takes an item out; the last one takes its position.
    pub(super) fn swap_remove(&mut self, at: usize) -> Option<T> {
        if at >= self.items.len() {
            return None;
        }
        let item = self.items.swap_remove(at);
        self.tags.swap_remove(at);
        let len = self.items.len();
        if self.items.capacity() > 16 && len < self.items.capacity() / 2 {
            self.items.shrink_to(roomy(len));
            self.tags.shrink_to(roomy(len));
        }
        Some(item)
    }
}

impl<T: Keyed> Leaf<T> {
    /// The earliest expiry among the items.
    pub(super) fn earliest(&self) -> u64 {
        self.items.iter().filter_map(Keyed::expire_ms).min().unwrap_or(NEVER)
    }
}

/// A capacity for so many items and some more, but no more than a leaf holds before it splits.
fn roomy(items: usize) -> usize {
    (items + items / 8 + 2).min(LEAF_MAX.max(items))
}
