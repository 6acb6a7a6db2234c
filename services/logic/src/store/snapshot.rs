//! The keys as they were at one moment, written out while they change.
//!
//! At the moment every table notes its groups as unsaved. A group is the keys of a home bucket whose hashes begin alike,
//! about one bucket's at that time; which group a key is in follows from its hash alone, so splits and merges move no key
//! from one to another. Before the first change of a key of an unsaved group (also its birth, expiry or eviction) the
//! whole group is written, and is saved from then on; a walk saves the others. A table that is emptied meanwhile is kept
//! aside, whole, and taken apart by the walk.
//!
//! Invariants: what is in an unsaved group is what was in it at the moment; each key of the moment is written once, and no
//! other; without a snapshot a change costs one comparison. What is written waits in memory until [`Store::snapshot_part`]
//! takes it: from [`WAITING_MAX_BYTES`] on, the caller holds back writes that [`Store::would_save`] tells, which is what
//! bounds it. Bit maps and what waits are not counted as memory of the store; tables kept aside are.
//! Next: `crate::rdb` for the bytes, `table.rs` for home buckets; `scan.rs` has the same order.

use super::{
    KeyHash, Policy, Store, access,
    arena::Ref,
    hash::{Hasher, Records},
    lookup::Found,
    record::{Head, Heap},
    table::{BUCKETS, Table, home_of, prefix_of},
};
use crate::{
    object::{Cx, Limits},
    rdb::{Attributes, Writer},
};

/// Bytes that may wait to be taken before writes are held back.
pub const WAITING_MAX_BYTES: usize = 4 << 20;
/// Most bits of a hash's beginning that tell groups apart: 2^26 groups, 8 MiB of bits.
const BITS_MAX: u32 = 20;
/// Groups a step looks at at most; 64 saved ones are passed over for the price of one.
const GROUPS_PER_STEP: usize = 1024;

/// Which groups of a table are still to be written.
pub(super) struct Unsaved {
    /// The table's database at the moment.
    db: u16,
    /// How many bits of a hash's beginning tell groups of a bucket apart.
    bits: u32,
    /// One bit a group.
    saved: Vec<u64>,
    /// The walk's next group.
    next: usize,
    /// Keys and keys with an expiry at the moment, until they are told.
    sizes: Option<(u64, u64)>,
}

impl Unsaved {
    fn of(db: u16, table: &Table) -> Self {
        let bits = table.depth().min(BITS_MAX);
        let saved = vec![0; (BUCKETS << bits) / 64];
        Self { db, bits, saved, next: 0, sizes: Some((table.len, table.expires)) }
    }

    fn group_of(&self, hash: u64) -> usize {
        let within = u64::from(prefix_of(hash)) >> (32 - self.bits);
        home_of(hash) << self.bits | usize::try_from(within).unwrap_or(0)
    }

    fn is_saved(&self, group: usize) -> bool {
        self.saved.get(group / 64).is_none_or(|word| word >> (group % 64) & 1 != 0)
    }

    fn set_saved(&mut self, group: usize) {
        if let Some(word) = self.saved.get_mut(group / 64) {
            *word |= 1 << (group % 64);
        }
    }

    /// The walk's next unsaved group, if it is among the next ones.
    fn step(&mut self) -> Option<usize> {
        let word = *self.saved.get(self.next / 64)? >> (self.next % 64);
        let skipped = word.trailing_ones() as usize;
        if skipped + self.next % 64 >= 64 {
            self.next = (self.next / 64 + 1) * 64;
            return None;
        }
        self.next += skipped + 1;
        Some(self.next - 1)
    }

    fn is_over(&self) -> bool {
        self.next / 64 >= self.saved.len()
    }

    /// The home bucket of a group, and the first and last of its prefixes.
    fn range(&self, group: usize) -> (usize, u32, u32) {
        let within = (group & ((1 << self.bits) - 1)) as u64;
        let first = within << (32 - self.bits);
        let last = first | (u64::from(u32::MAX) >> self.bits);
        let prefix = |value| u32::try_from(value).unwrap_or(u32::MAX);
        (group >> self.bits, prefix(first), prefix(last))
    }
}

/// A snapshot under way.
pub(super) struct Snapshot {
    moment_ms: u64,
    writer: Writer,
    /// The database of what was written last, since the last part was taken.
    db: Option<u16>,
    /// Emptied tables with unsaved groups.
    pub(super) kept: Vec<(Table, Unsaved)>,
    keys: u64,
}

/// What of a store is read to write a key.
struct From<'a> {
    heap: &'a Heap,
    hasher: &'a Hasher,
    limits: &'a Limits,
    policy: Policy,
    now_ms: u64,
}

impl From<'_> {
    fn hash(&self, at: Ref) -> u64 {
        let Self { heap, hasher, now_ms, .. } = *self;
        Records { heap, hasher, now_ms }.facts(at).0
    }

    /// What stands beside a key.
    fn attributes(&self, head: &Head) -> Attributes {
        let mut attributes = Attributes {
            expire_at_ms: (head.expire_ms != 0).then_some(head.expire_ms),
            ..Attributes::default()
        };
        match self.policy {
            Policy::AllKeysLru | Policy::VolatileLru => {
                attributes.idle_s = Some(u64::from(access::idle_s(head.access, self.now_ms)));
            }
            policy if policy.is_lfu() => {
                let freq = access::frequency(head.access, self.now_ms);
                attributes.freq = u8::try_from(freq).ok();
            }
            _ => {}
        }
        attributes
    }
}

impl Snapshot {
    /// Writes a key, unless it was due at the moment.
    fn key(&mut self, unsaved: &mut Unsaved, at: Ref, from: &From<'_>) {
        let Some(head) = from.heap.head(at).filter(|head| !head.is_due(self.moment_ms)) else {
            return;
        };
        if self.db != Some(unsaved.db) {
            self.db = Some(unsaved.db);
            match unsaved.sizes.take() {
                Some((keys, expires)) => self.writer.database(unsaved.db, keys, expires),
                None => self.writer.select(unsaved.db),
            }
        }
        let cx = Cx { hasher: from.hasher, limits: from.limits, now_ms: self.moment_ms };
        let (key, value) = (from.heap.key(at, &head), from.heap.entry(at, &head).value);
        self.writer.key(key, value, from.attributes(&head), cx);
        self.keys += 1;
    }

    /// Writes a group.
    fn group(&mut self, table: &Table, unsaved: &mut Unsaved, group: usize, from: &From<'_>) {
        unsaved.set_saved(group);
        let (bucket, first, last) = unsaved.range(group);
        let mut prefix = first;
        while let Some(segment) = table.segment_of(u64::from(prefix) << 32) {
            // The records are all over memory: loads that depend on nothing overlap.
            let lines = table.refs_around(segment, bucket).map(|at| from.heap.touch_first(at));
            std::hint::black_box(lines.fold(0, u32::wrapping_add));
            for at in table.refs_around(segment, bucket) {
                let hash = from.hash(at);
                if home_of(hash) == bucket && (first..=last).contains(&prefix_of(hash)) {
                    self.key(unsaved, at, from);
                }
            }
            match table.after(segment) {
                Some(next) if next <= last => prefix = next,
                _ => break,
            }
        }
    }
}

impl Store {
    /// Begins a snapshot of this moment; one that is under way ends.
    pub fn begin_snapshot(&mut self, compress: bool, now_ms: u64) {
        self.end_snapshot();
        let items = usize::from(self.items_db());
        for (db, table) in (0..).zip(self.tables.iter_mut().take(items)) {
            if table.len > 0 {
                table.unsaved = Some(Box::new(Unsaved::of(db, table)));
            }
        }
        let writer = Writer::new(compress);
        let snapshot = Snapshot { moment_ms: now_ms, writer, db: None, kept: Vec::new(), keys: 0 };
        self.snapshot = Some(Box::new(snapshot));
    }

    /// Gives up a snapshot, if there is one.
    pub fn end_snapshot(&mut self) {
        for table in &mut self.tables {
            table.unsaved = None;
        }
        if let Some(snapshot) = self.snapshot.take() {
            self.cleared.extend(snapshot.kept.into_iter().map(|(table, _)| table));
        }
    }

    /// The next part of the snapshot: what waits, and when that is little, more, until about so many keys or bytes are
    /// together. `false`: that was the last, and the snapshot is over.
    pub fn snapshot_part(&mut self, keys: u64, bytes: usize, now_ms: u64) -> (Vec<u8>, bool) {
        let mut over = false;
        let Some(until) = self.snapshot.as_ref().map(|snapshot| snapshot.keys + keys) else {
            return (Vec::new(), false);
        };
        for _ in 0..GROUPS_PER_STEP {
            let enough = self.snapshot.as_ref().is_none_or(|snapshot| {
                snapshot.writer.out.len() >= bytes || snapshot.keys >= until
            });
            if over || enough {
                break;
            }
            over = !self.walk(now_ms);
        }
        let Some(snapshot) = &mut self.snapshot else { return (Vec::new(), false) };
        snapshot.db = None;
        let part = std::mem::take(&mut snapshot.writer.out);
        if over {
            self.end_snapshot();
        }
        (part, !over)
    }

    /// Whether so much waits to be taken that writes should not add to it.
    #[must_use]
    pub fn snapshot_is_full(&self) -> bool {
        self.snapshot.as_ref().is_some_and(|it| it.writer.out.len() >= WAITING_MAX_BYTES)
    }

    /// Whether a change of this key makes the snapshot grow.
    #[must_use]
    pub fn would_save(&self, db: u16, hash: KeyHash) -> bool {
        let unsaved = self.tables.get(usize::from(db)).and_then(|table| table.unsaved.as_ref());
        unsaved.is_some_and(|unsaved| !unsaved.is_saved(unsaved.group_of(hash.0)))
    }

    /// To be called before anything of a key changes.
    #[inline(always)]
    pub(super) fn before_change(&mut self, db: u16, hash: u64, now_ms: u64) {
        if self.snapshot.is_some() {
            self.save_ahead(db, hash, now_ms);
        }
    }

    #[cold]
    #[inline(never)]
    fn save_ahead(&mut self, db: u16, hash: u64, now_ms: u64) {
        let Some(table) = self.tables.get_mut(usize::from(db)) else { return };
        // It goes back below: nothing else looks at it meanwhile.
        let Some(mut unsaved) = table.unsaved.take() else { return };
        let group = unsaved.group_of(hash);
        if !unsaved.is_saved(group) {
            self.save_group(db, &mut unsaved, group, now_ms);
        }
        if let Some(table) = self.tables.get_mut(usize::from(db)) {
            table.unsaved = Some(unsaved);
        }
    }

    fn save_group(&mut self, db: u16, unsaved: &mut Unsaved, group: usize, now_ms: u64) {
        let Self { tables, heap, hasher, limits, config, snapshot, .. } = self;
        let from = From { heap, hasher, limits, policy: config.policy, now_ms };
        if let (Some(snapshot), Some(table)) = (snapshot, tables.get(usize::from(db))) {
            snapshot.group(table, unsaved, group, &from);
        }
    }

    /// A database is about to be emptied: keeps what is not saved, if the table has that.
    pub(super) fn keep_aside(&mut self, mut table: Table) {
        let unsaved = table.unsaved.take();
        match (&mut self.snapshot, unsaved) {
            (Some(snapshot), Some(unsaved)) => snapshot.kept.push((table, *unsaved)),
            _ => self.cleared.push(table),
        }
    }

    /// One step of the walk; whether there is more.
    fn walk(&mut self, now_ms: u64) -> bool {
        if self.take_apart(now_ms) {
            return true;
        }
        let unsaved = (0..).zip(&mut self.tables).find_map(|(db, table)| {
            let unsaved = table.unsaved.take()?;
            Some((db, unsaved))
        });
        let Some((db, mut unsaved)) = unsaved else { return false };
        if let Some(group) = unsaved.step() {
            self.save_group(db, &mut unsaved, group, now_ms);
        }
        if !unsaved.is_over()
            && let Some(table) = self.tables.get_mut(usize::from(db))
        {
            table.unsaved = Some(unsaved);
        }
        true
    }

    /// Writes and frees a segment of a table that was kept aside; whether there was one.
    fn take_apart(&mut self, now_ms: u64) -> bool {
        let Self { heap, hasher, limits, config, snapshot, .. } = self;
        let Some(snapshot) = snapshot else { return false };
        let Some((mut table, mut unsaved)) = snapshot.kept.pop() else { return false };
        let Some(refs) = table.pop_segment() else { return true };
        let from = From { heap, hasher, limits, policy: config.policy, now_ms };
        for &at in &refs {
            if !unsaved.is_saved(unsaved.group_of(from.hash(at))) {
                snapshot.key(&mut unsaved, at, &from);
            }
        }
        snapshot.kept.push((table, unsaved));
        for at in refs {
            if let Some(head) = heap.head(at) {
                heap.free(at, &head);
            }
        }
        true
    }

    /// Notes how long a key was not used, or how often it was, as far as the policy asks.
    pub fn set_used(
        &mut self,
        db: u16,
        hash: KeyHash,
        key: &[u8],
        attributes: Attributes,
        now_ms: u64,
    ) {
        let Attributes { idle_s, freq, .. } = attributes;
        let Some(known) = access::known(self.config.policy, idle_s, freq, now_ms) else { return };
        if let Some(Found { at, head, .. }) = self.live(db, hash, key, now_ms) {
            self.heap.set_access(at, head.access, known);
        }
    }
}
