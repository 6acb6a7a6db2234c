//! Splits, merges and the directory: how a table follows its number of keys.
//!
//! Invariants: a split or merge touches the keys of one or two segments; the directory holds at
//! most 16 entries per 64 keys, which also bounds how often a segment of fully colliding keys can
//! be split in vain.
//! Next: `table.rs` calls these.

use super::{
    arena::Ref,
    bucket::{Bucket, PLACES},
    due::Due,
    hash::Records,
    table::{BUCKETS, Meta, STASH_SPLIT, Segment, Stashed, Table, prefix_of},
};

/// Deepest directory: 64 Mi entries, for more keys than a shard's records can be.
const MAX_DEPTH: u32 = 26;
/// A merge leaves at most this many keys in a segment of 768 places.
const MERGE_MAX: u32 = 256;

/// A reference with what decides its place.
struct Moving {
    to: Ref,
    hash: u64,
    expire_ms: u64,
}

fn fresh_segment() -> Segment {
    Box::new([Bucket::EMPTY; BUCKETS])
}

impl Table {
    pub(super) fn depth(&self) -> u32 {
        63 - self.shift
    }

    pub(super) fn first_segment(&mut self) {
        *self = Self::new();
        self.directory.push(0);
        self.push_segment(0, 0);
        self.bytes = self.count_bytes();
    }

    /// All memory of the table, counted anew.
    pub(super) fn count_bytes(&self) -> u64 {
        let stashes: usize = self.metas.iter().map(|meta| meta.stash.capacity()).sum();
        self.bytes_with(stashes)
    }

    fn bytes_with(&self, stashed: usize) -> u64 {
        let bytes = self.segments.len() * size_of::<[Bucket; BUCKETS]>()
            + self.segments.capacity() * size_of::<Segment>()
            + self.metas.capacity() * size_of::<Meta>()
            + self.dues.capacity() * size_of::<Due>()
            + self.directory.capacity() * size_of::<u32>()
            + stashed * size_of::<Stashed>();
        bytes as u64
    }

    fn push_segment(&mut self, prefix: u32, depth: u8) -> Option<u32> {
        let index = u32::try_from(self.segments.len()).ok()?;
        self.segments.push(fresh_segment());
        self.dues.push(Due::NONE);
        self.metas.push(Meta { stash: Vec::new(), prefix, len: 0, depth });
        Some(index)
    }

    /// Takes the last segment apart: its references. For a table that is no longer looked up in.
    pub(super) fn pop_segment(&mut self) -> Option<Vec<Ref>> {
        let buckets = self.segments.pop()?;
        let mut refs: Vec<Ref> = buckets.iter().flat_map(Bucket::refs).collect();
        let meta = self.metas.pop();
        refs.extend(meta.iter().flat_map(|meta| &meta.stash).map(|stashed| stashed.to));
        self.len -= refs.len() as u64;
        let stashed = meta.map_or(0, |meta| meta.stash.capacity() * size_of::<Stashed>());
        self.bytes -= (stashed + size_of::<[Bucket; BUCKETS]>()) as u64;
        Some(refs)
    }

    /// Everything but the stashes, which the caller accounts.
    fn fixed_bytes(&self) -> u64 {
        self.bytes_with(0)
    }

    fn stash_bytes(&self, segment: u32) -> u64 {
        let capacity = self.metas.get(segment as usize).map_or(0, |meta| meta.stash.capacity());
        (capacity * size_of::<Stashed>()) as u64
    }

    /// Splits a segment in two; false when that cannot be done.
    pub(super) fn split(&mut self, segment: u32, hash: u64, records: Records<'_>) -> bool {
        let Some(meta) = self.metas.get(segment as usize) else {
            return false;
        };
        let (prefix, depth) = (meta.prefix, meta.depth);
        let before = self.fixed_bytes() + self.stash_bytes(segment);
        if u32::from(depth) == self.depth() && !self.double() {
            return false;
        }
        debug_assert_eq!(self.segment_of(hash), Some(segment));
        let moving = self.take_all(segment, records);
        let upper = prefix | (1 << (31 - u32::from(depth)));
        let Some(fresh) = self.push_segment(upper, depth + 1) else {
            return false;
        };
        if let Some(meta) = self.metas.get_mut(segment as usize) {
            meta.depth = depth + 1;
        }
        self.point(upper, depth + 1, fresh);
        for one in moving {
            let target = if prefix_of(one.hash) & (1 << (31 - u32::from(depth))) == 0 {
                segment
            } else {
                fresh
            };
            self.settle(target, &one, records.now_ms);
        }
        // Stashes of `settle` account for themselves.
        self.bytes = self.bytes + self.fixed_bytes() - before;
        true
    }

    /// Merges a nearly empty segment with its buddy when both fit well into one.
    pub(super) fn merge(&mut self, segment: u32, records: Records<'_>) {
        let Some(meta) = self.metas.get(segment as usize) else {
            return;
        };
        let (len, depth) = (meta.len, u32::from(meta.depth));
        let bit = 1u32 << (32 - depth);
        let Some(buddy) = self.segment_of(u64::from(meta.prefix ^ bit) << 32) else {
            return;
        };
        let (low, high) = if meta.prefix & bit == 0 { (segment, buddy) } else { (buddy, segment) };
        let fits = self
            .metas
            .get(buddy as usize)
            .is_some_and(|other| u32::from(other.depth) == depth && other.len + len <= MERGE_MAX);
        if !fits || low == high {
            return;
        }
        let before = self.fixed_bytes() + self.stash_bytes(low) + self.stash_bytes(high);
        let mut moving = self.take_all(high, records);
        moving.extend(self.take_all(low, records));
        let Some(meta) = self.metas.get_mut(low as usize) else {
            return;
        };
        meta.depth -= 1;
        let (prefix, depth) = (meta.prefix, meta.depth);
        self.point(prefix, depth, low);
        for one in moving {
            self.settle(low, &one, records.now_ms);
        }
        self.drop_segment(high);
        self.bytes = self.bytes + self.fixed_bytes() - before;
    }

    /// Removes an empty segment no directory entry names; the last one takes its index.
    fn drop_segment(&mut self, segment: u32) {
        let index = segment as usize;
        self.segments.swap_remove(index);
        self.dues.swap_remove(index);
        self.metas.swap_remove(index);
        if let Some(moved) = self.metas.get(index) {
            self.point(moved.prefix, moved.depth, segment);
        }
    }

    /// Empties a segment, returning what was in it.
    fn take_all(&mut self, segment: u32, records: Records<'_>) -> Vec<Moving> {
        let index = segment as usize;
        let mut refs = Vec::with_capacity(BUCKETS * PLACES + STASH_SPLIT);
        if let Some(buckets) = self.segments.get_mut(index) {
            refs.extend(buckets.iter().flat_map(Bucket::refs));
            **buckets = [Bucket::EMPTY; BUCKETS];
        }
        if let Some(meta) = self.metas.get_mut(index) {
            refs.extend(std::mem::take(&mut meta.stash).iter().map(|stashed| stashed.to));
            meta.len = 0;
        }
        if let Some(due) = self.dues.get_mut(index) {
            *due = Due::NONE;
        }
        // The records are all over memory: loads that depend on nothing overlap.
        let lines = refs.iter().map(|&at| records.heap.touch_first(at)).fold(0, u32::wrapping_add);
        std::hint::black_box(lines);
        let facts = |to| {
            let (hash, expire_ms) = records.facts(to);
            Moving { to, hash, expire_ms }
        };
        refs.into_iter().map(facts).collect()
    }

    fn settle(&mut self, segment: u32, one: &Moving, now_ms: u64) {
        let due = Due::at(one.expire_ms, now_ms);
        if !self.place(segment, one.hash, one.to, due, now_ms) {
            self.stash(segment, one.hash, one.to, due, now_ms);
        }
    }

    /// Makes the directory entries of a prefix name a segment.
    fn point(&mut self, prefix: u32, depth: u8, segment: u32) {
        let from = usize::try_from((u64::from(prefix) << 31) >> self.shift).unwrap_or(usize::MAX);
        let count = 1usize << (self.depth() - u32::from(depth));
        if let Some(entries) = self.directory.get_mut(from..from.saturating_add(count)) {
            entries.fill(segment);
        }
    }

    fn double(&mut self) -> bool {
        let allowed = 16 * (self.len / 64 + 1);
        if self.depth() >= MAX_DEPTH || self.directory.len() as u64 >= allowed {
            return false;
        }
        let doubled = self.directory.iter().flat_map(|&segment| [segment, segment]);
        let mut directory = Vec::with_capacity(self.directory.len() * 2);
        directory.extend(doubled);
        self.directory = directory;
        self.shift -= 1;
        true
    }
}
