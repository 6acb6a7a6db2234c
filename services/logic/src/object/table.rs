//! A hash table that grows by splitting: what large hashes and sets are made of.
//!
//! A directory names, for the top bits of a hash, the leaf that holds the item. A full leaf splits in two and a nearly
//! empty one merges with its buddy, so no call moves more than the items of two leaves; the directory doubles and
//! halves by copying four bytes an entry. Inside a leaf, items lie side by side, with 16 bits of each one's hash in an
//! array beside them that is compared many at a time: that needs no free places, so an item costs its own size and
//! two bytes, and any of them can be picked by chance.
//!
//! Invariants: each directory entry names the leaf whose prefix covers it; `inner_bytes` is what items and the vectors
//! of leaves hold on the heap; a leaf's noted expiry is never later than its earliest item's. A scan goes by hash, so
//! it passes over no item that stays, whatever splits or merges meanwhile.
//! Next: `leaf.rs` for one leaf, `scan.rs` for going through all and picking by chance.

use super::{
    Hasher,
    due::{DueTree, NEVER},
    leaf::{LEAF_MAX, Leaf, MERGE_BELOW, MERGE_MAX},
};

/// Deepest directory: 2^32 leaves' worth of hash bits.
const MAX_DEPTH: u32 = 32;

/// What a table needs to know of its items.
pub trait Keyed {
    /// The hash of its key's bytes.
    fn hash(&self, hasher: &Hasher) -> u64;
    /// Whether its key has these bytes.
    fn has_key(&self, key: &[u8]) -> bool;
    /// Bytes it holds on the heap.
    fn heap_bytes(&self) -> usize;
    /// When it expires, unix milliseconds.
    fn expire_ms(&self) -> Option<u64> {
        None
    }
}

/// Where an item is, until the next change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Spot {
    pub(super) leaf: u32,
    pub(super) at: u32,
}

/// Result of an expiry step.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ReapStep {
    /// Items removed.
    pub expired: usize,
    /// The budget ended before the due items did.
    pub more: bool,
}

/// The table. An empty one holds no memory.
pub struct SplitTable<T> {
    directory: Vec<u32>,
    /// Boxed, so that the vector's own growth moves eight bytes a leaf.
    #[expect(clippy::vec_box, reason = "growing the vector must not move the leaves")]
    pub(super) leaves: Vec<Box<Leaf<T>>>,
    /// Leaves of each depth; the last count is the directory's depth.
    by_depth: Vec<u32>,
    dues: DueTree,
    len: usize,
    inner_bytes: usize,
    /// The most items a leaf has had: a bound for picking by chance.
    pub(super) widest: usize,
}

impl<T> Default for SplitTable<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> SplitTable<T> {
    /// An empty table.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            directory: Vec::new(),
            leaves: Vec::new(),
            by_depth: Vec::new(),
            dues: DueTree::EMPTY,
            len: 0,
            inner_bytes: 0,
            widest: 0,
        }
    }

    /// How many items, those due but not yet removed included.
    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no item.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes of all allocations.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        self.inner_bytes
            + self.leaves.len() * size_of::<Leaf<T>>()
            + self.leaves.capacity() * size_of::<Box<Leaf<T>>>()
            + (self.directory.capacity() + self.by_depth.capacity()) * size_of::<u32>()
            + self.dues.heap_bytes()
    }

    /// All items, in no order that means anything.
    pub fn iter(&self) -> Items<'_, T> {
        Items { leaves: self.leaves.iter(), items: [].iter() }
    }

    fn depth(&self) -> u32 {
        self.directory.len().checked_ilog2().unwrap_or(0)
    }

    /// Index of the leaf a hash belongs to.
    #[inline]
    pub(super) fn leaf_of(&self, hash: u64) -> Option<u32> {
        self.directory.get(self.entry_of(hash)).copied()
    }

    /// Index of the directory entry of a hash.
    #[inline]
    fn entry_of(&self, hash: u64) -> usize {
        usize::try_from((hash >> 1) >> (63 - self.depth())).unwrap_or(usize::MAX)
    }

    #[inline]
    fn leaf_mut(&mut self, leaf: u32) -> Option<&mut Leaf<T>> {
        self.leaves.get_mut(leaf as usize).map(|leaf| &mut **leaf)
    }

    /// The item at a spot.
    #[inline]
    pub(super) fn at(&self, spot: Spot) -> Option<&T> {
        self.leaves.get(spot.leaf as usize)?.items.get(spot.at as usize)
    }

    /// Earliest time at which something may be due; it may be too early, never too late.
    #[inline]
    #[must_use]
    pub fn next_due_ms(&self) -> Option<u64> {
        Some(self.dues.earliest()).filter(|&time| time != NEVER)
    }

    /// Changes a leaf's contents, keeping the count of bytes.
    fn change<R>(&mut self, leaf: u32, change: impl FnOnce(&mut Leaf<T>) -> R) -> Option<R> {
        let leaf = self.leaves.get_mut(leaf as usize)?;
        let before = leaf.vec_bytes();
        let result = change(leaf);
        self.inner_bytes = self.inner_bytes + leaf.vec_bytes() - before;
        Some(result)
    }
}

impl<T: Keyed> SplitTable<T> {
    /// The item with a key; `hash` is the key's.
    #[inline]
    #[must_use]
    pub fn get(&self, hash: u64, key: &[u8]) -> Option<&T> {
        self.at(self.find(hash, key)?)
    }

    #[inline]
    pub(super) fn find(&self, hash: u64, key: &[u8]) -> Option<Spot> {
        let leaf = self.leaf_of(hash)?;
        let at = self.leaves.get(leaf as usize)?.find(hash, |item| item.has_key(key))?;
        Some(Spot { leaf, at: u32::try_from(at).ok()? })
    }

    /// Adds an item whose key is not there yet.
    pub fn insert(&mut self, hash: u64, item: T, hasher: &Hasher) {
        if self.leaves.is_empty() {
            self.first_leaf();
        }
        let mut leaf = self.leaf_of(hash).unwrap_or(0);
        while self.leaves.get(leaf as usize).is_some_and(|leaf| leaf.items.len() >= LEAF_MAX)
            && self.split(leaf, hasher)
        {
            leaf = self.leaf_of(hash).unwrap_or(0);
        }
        let (bytes, due) = (item.heap_bytes(), item.expire_ms());
        let Some(wide) = self.change(leaf, |leaf| leaf.push(hash, item)) else {
            return;
        };
        self.inner_bytes += bytes;
        self.widest = self.widest.max(wide);
        self.len += 1;
        if let Some(due) = due {
            self.dues.note(leaf as usize, due);
        }
    }

    /// Changes the item with a key in place; its key must stay what it is.
    pub fn update<R>(
        &mut self,
        hash: u64,
        key: &[u8],
        change: impl FnOnce(&mut T) -> R,
    ) -> Option<R> {
        let spot = self.find(hash, key)?;
        let item = self.leaf_mut(spot.leaf)?.items.get_mut(spot.at as usize)?;
        let before = item.heap_bytes();
        let result = change(item);
        let (after, due) = (item.heap_bytes(), item.expire_ms());
        self.inner_bytes = self.inner_bytes + after - before;
        if let Some(due) = due {
            self.dues.note(spot.leaf as usize, due);
        }
        Some(result)
    }

    /// Removes the item with a key.
    pub fn remove(&mut self, hash: u64, key: &[u8]) -> Option<T> {
        self.remove_at(self.find(hash, key)?)
    }

    pub(super) fn remove_at(&mut self, spot: Spot) -> Option<T> {
        let item = self.change(spot.leaf, |leaf| leaf.swap_remove(spot.at as usize)).flatten()?;
        self.inner_bytes -= item.heap_bytes();
        self.len -= 1;
        self.settle(spot.leaf);
        Some(item)
    }

    /// After removals: merges a leaf that has become small; an empty table gives everything back.
    fn settle(&mut self, leaf: u32) {
        if self.len == 0 {
            *self = Self::new();
        } else if self.leaves.get(leaf as usize).is_some_and(|leaf| leaf.items.len() < MERGE_BELOW)
        {
            self.merge(leaf);
        }
    }

    /// Removes items that were due before `now_ms`, looking at no more than about `budget` items (at least one
    /// leaf's); each is given to `on_expired` first.
    pub fn reap(&mut self, now_ms: u64, budget: usize, mut on_expired: impl FnMut(&T)) -> ReapStep {
        let mut step = ReapStep::default();
        let mut left = budget;
        let mut first = true;
        while let Some(index) = self.dues.first_before(now_ms) {
            let (Ok(leaf), true) = (u32::try_from(index), first || left > 0) else {
                step.more = true;
                break;
            };
            first = false;
            let (mut freed, mut earliest) = (0, NEVER);
            let looked = self.change(leaf, |leaf| {
                let looked = leaf.items.len();
                for at in (0..looked).rev() {
                    match leaf.items.get(at).and_then(Keyed::expire_ms) {
                        Some(due) if due < now_ms => {
                            let Some(item) = leaf.swap_remove(at) else { continue };
                            on_expired(&item);
                            freed += item.heap_bytes();
                            step.expired += 1;
                        }
                        Some(due) => earliest = earliest.min(due),
                        None => {}
                    }
                }
                (looked, leaf.items.len())
            });
            let Some((looked, kept)) = looked else {
                // A time without a leaf would be met again for ever.
                self.dues.set(index, NEVER);
                continue;
            };
            self.inner_bytes -= freed;
            self.len -= looked - kept;
            left = left.saturating_sub(looked.max(1));
            self.dues.set(index, earliest);
            self.settle(leaf);
        }
        step
    }

    /// How many items are not due: work in proportion to the leaves that have something due.
    #[must_use]
    pub fn live_len(&self, now_ms: u64) -> usize {
        let mut due = 0;
        self.dues.each_before(now_ms, |leaf| {
            let items = self.leaves.get(leaf).map_or(&[][..], |leaf| &leaf.items);
            due +=
                items.iter().filter(|item| item.expire_ms().is_some_and(|at| at < now_ms)).count();
        });
        self.len - due
    }

    /// Takes a table apart that is no longer looked up in, freeing about `budget` items; whether any are left.
    pub fn reclaim(&mut self, budget: usize) -> bool {
        self.directory = Vec::new();
        self.dues = DueTree::EMPTY;
        let mut left = budget.max(1);
        while left > 0 {
            let Some(last) = self.leaves.len().checked_sub(1).and_then(|at| u32::try_from(at).ok())
            else {
                break;
            };
            let mut freed = 0;
            let gone = self.change(last, |leaf| {
                let from = leaf.items.len().saturating_sub(left);
                freed = leaf.items.drain(from..).map(|item| item.heap_bytes()).sum();
                let gone = leaf.tags.len() - from;
                leaf.tags.truncate(from);
                if from == 0 {
                    *leaf = Leaf::new(0, 0, 0);
                }
                gone
            });
            let gone = gone.unwrap_or(0);
            self.inner_bytes -= freed;
            self.len -= gone;
            left = left.saturating_sub(gone.max(1));
            if self.leaves.last().is_some_and(|leaf| leaf.items.is_empty()) {
                self.leaves.pop();
            }
        }
        if self.leaves.is_empty() {
            *self = Self::new();
        }
        !self.leaves.is_empty()
    }

    fn first_leaf(&mut self) {
        self.directory.push(0);
        self.leaves.push(Box::new(Leaf::new(0, 0, 0)));
        self.by_depth.push(1);
    }

    /// Splits a leaf in two; false when that cannot be done.
    fn split(&mut self, index: u32, hasher: &Hasher) -> bool {
        let Some((prefix, depth)) =
            self.leaves.get(index as usize).map(|leaf| (leaf.prefix, leaf.depth()))
        else {
            return false;
        };
        let Ok(fresh) = u32::try_from(self.leaves.len()) else {
            return false;
        };
        if depth == self.depth() && !self.double() {
            return false;
        }
        let bit = 1u64 << (63 - depth);
        let halves = self.change(index, |leaf| {
            let upper: Vec<bool> =
                leaf.items.iter().map(|item| item.hash(hasher) & bit != 0).collect();
            let count = upper.iter().filter(|&&upper| upper).count();
            let mut low = Leaf::new(prefix, depth + 1, upper.len() - count);
            let mut high = Leaf::new(prefix | bit, depth + 1, count);
            let old = std::mem::replace(leaf, Leaf::new(0, 0, 0));
            for ((item, tag), upper) in old.items.into_iter().zip(old.tags).zip(upper) {
                let half = if upper { &mut high } else { &mut low };
                half.put(tag, item);
            }
            let times = (low.earliest(), high.earliest());
            *leaf = low;
            (high, times)
        });
        let Some((high, (low_due, high_due))) = halves else {
            return false;
        };
        self.inner_bytes += high.vec_bytes();
        self.leaves.push(Box::new(high));
        self.count_depth(depth, -1);
        self.count_depth(depth + 1, 2);
        self.point(prefix | bit, depth + 1, fresh);
        self.dues.set(index as usize, low_due);
        self.dues.set(fresh as usize, high_due);
        true
    }

    /// Merges a small leaf with its buddy when both fit well into one.
    fn merge(&mut self, index: u32) {
        let Some(leaf) = self.leaves.get(index as usize) else {
            return;
        };
        let (prefix, depth, len) = (leaf.prefix, leaf.depth(), leaf.items.len());
        if depth == 0 {
            return;
        }
        let bit = 1u64 << (64 - depth);
        let Some(buddy) = self.leaf_of(prefix ^ bit) else {
            return;
        };
        let fits = self
            .leaves
            .get(buddy as usize)
            .is_some_and(|other| other.depth() == depth && other.items.len() + len <= MERGE_MAX);
        if !fits || buddy == index {
            return;
        }
        let (low, high) = if prefix & bit == 0 { (index, buddy) } else { (buddy, index) };
        let taken = self.change(high, |leaf| std::mem::replace(leaf, Leaf::new(0, 0, 0)));
        let due = self.dues.get(high as usize).min(self.dues.get(low as usize));
        self.change(low, |leaf| {
            leaf.raise();
            for (item, tag) in
                taken.into_iter().flat_map(|taken| taken.items.into_iter().zip(taken.tags))
            {
                leaf.put(tag, item);
            }
        });
        self.dues.set(low as usize, due);
        self.count_depth(depth, -2);
        self.count_depth(depth - 1, 1);
        self.point(prefix & !bit, depth - 1, low);
        self.drop_leaf(high);
        if self.by_depth.last() == Some(&0) {
            self.halve();
        }
    }

    /// Removes an empty leaf no directory entry names; the last one takes its index.
    fn drop_leaf(&mut self, index: u32) {
        let last = self.leaves.len().saturating_sub(1);
        self.leaves.swap_remove(index as usize);
        self.dues.set(index as usize, self.dues.get(last));
        self.dues.set(last, NEVER);
        if let Some((prefix, depth)) =
            self.leaves.get(index as usize).map(|leaf| (leaf.prefix, leaf.depth()))
        {
            self.point(prefix, depth, index);
        }
        if self.leaves.len() < self.leaves.capacity() / 4 {
            self.leaves.shrink_to(self.leaves.len() * 2);
        }
    }

    fn count_depth(&mut self, depth: u32, by: i32) {
        if let Some(count) = self.by_depth.get_mut(depth as usize) {
            *count = count.saturating_add_signed(by);
        }
    }

    /// Makes the directory entries of a prefix name a leaf.
    fn point(&mut self, prefix: u64, depth: u32, leaf: u32) {
        let from = self.entry_of(prefix);
        let count = 1usize << (self.depth() - depth);
        if let Some(entries) = self.directory.get_mut(from..from.saturating_add(count)) {
            entries.fill(leaf);
        }
    }

    /// Doubles the directory. It may not outgrow the items, so keys that collide in full cannot make it.
    fn double(&mut self) -> bool {
        let allowed = 16 * (self.len / LEAF_MAX + 1);
        if self.depth() >= MAX_DEPTH || self.directory.len() >= allowed {
            return false;
        }
        let mut directory = Vec::with_capacity(self.directory.len() * 2);
        directory.extend(self.directory.iter().flat_map(|&leaf| [leaf, leaf]));
        self.directory = directory;
        self.by_depth.push(0);
        true
    }

    /// Halves a directory that no leaf needs the whole depth of.
    fn halve(&mut self) {
        while self.by_depth.len() > 1 && self.by_depth.last() == Some(&0) {
            self.directory = self.directory.iter().copied().step_by(2).collect();
            self.by_depth.pop();
        }
    }
}

/// All items of a table.
pub struct Items<'a, T> {
    leaves: std::slice::Iter<'a, Box<Leaf<T>>>,
    items: std::slice::Iter<'a, T>,
}

impl<'a, T> Iterator for Items<'a, T> {
    type Item = &'a T;

    #[inline]
    fn next(&mut self) -> Option<&'a T> {
        loop {
            if let Some(item) = self.items.next() {
                return Some(item);
            }
            self.items = self.leaves.next()?.items.iter();
        }
    }
}

impl<'a, T> IntoIterator for &'a SplitTable<T> {
    type Item = &'a T;
    type IntoIter = Items<'a, T>;

    fn into_iter(self) -> Items<'a, T> {
        self.iter()
    }
}

#[cfg(test)]
mod tests;
