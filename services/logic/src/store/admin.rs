//! Counts, sizes, settings, and emptying a database.
//!
//! Next: `evict.rs` acts on the limit that is set here.

use super::{
    Policy, Records, Store, StoreConfig, StoreStats,
    evict::Evictor,
    table::{BUCKETS, Table},
};
use crate::slot::key_slot;

/// Segments looked at for an estimate of the mean time to live.
const TTL_SEGMENTS: usize = 32;

impl Store {
    /// Keys in a database, due ones not yet removed included.
    #[must_use]
    pub fn len(&self, db: u16) -> u64 {
        self.tables.get(usize::from(db)).map_or(0, |table| table.len)
    }

    /// Whether a database has no keys.
    #[must_use]
    pub fn is_empty(&self, db: u16) -> bool {
        self.len(db) == 0
    }

    /// Keys with an expiry in a database.
    #[must_use]
    pub fn expires_len(&self, db: u16) -> u64 {
        self.tables.get(usize::from(db)).map_or(0, |table| table.expires)
    }

    /// Estimated mean remaining time of the keys with an expiry, from a bounded sample.
    #[must_use]
    pub fn avg_ttl_ms(&self, db: u16, now_ms: u64) -> u64 {
        let Some(table) = self.tables.get(usize::from(db)) else {
            return 0;
        };
        let (mut sum, mut count) = (0u64, 0u64);
        let stride = table.dues.len().div_ceil(TTL_SEGMENTS).max(1);
        for (segment, due) in (0u32..).zip(&table.dues).step_by(stride) {
            if due.is_none() {
                continue;
            }
            let noted = |bucket: &usize| {
                table.bucket(segment, *bucket).is_some_and(|line| !line.due().is_none())
            };
            let Some(bucket) = (0..BUCKETS).find(noted) else {
                continue;
            };
            for head in table.refs_of(segment, bucket).filter_map(|at| self.heap.head(at)) {
                if head.expire_ms != 0 {
                    sum = sum.saturating_add(head.expire_ms.saturating_sub(now_ms));
                    count += 1;
                }
            }
        }
        sum.checked_div(count).unwrap_or(0)
    }

    /// Empties a database at once; its memory is given back by [`purge_step`](Self::purge_step), or by a snapshot that
    /// has not seen all of it.
    pub fn clear(&mut self, db: u16) {
        let Some(table) = self.tables.get_mut(usize::from(db)) else {
            return;
        };
        let old = std::mem::replace(table, Table::new());
        if !old.segments.is_empty() {
            self.keep_aside(old);
        }
        if db == 0
            && let Some(slots) = &mut self.slots
        {
            slots.fill(0);
        }
    }

    /// Exchanges two databases.
    pub fn swap(&mut self, one: u16, two: u16) {
        let (one_at, two_at) = (usize::from(one), usize::from(two));
        if one == two || one_at.max(two_at) >= self.tables.len() {
            return;
        }
        self.tables.swap(one_at, two_at);
        // What was noted of keys names their database.
        self.evictor = Evictor::new(self.config.policy);
        if one == 0 || two == 0 {
            self.recount_slots();
        }
    }

    /// Counts the keys per slot of database 0: looks at all of them, and only where they are counted.
    fn recount_slots(&mut self) {
        let (Some(slots), Some(table)) = (&mut self.slots, self.tables.first()) else { return };
        slots.fill(0);
        for (segment, _) in (0_u32..).zip(&table.dues) {
            for at in (0..BUCKETS).flat_map(|bucket| table.refs_of(segment, bucket)) {
                let Some(head) = self.heap.head(at) else { continue };
                let slot = usize::from(key_slot(self.heap.key(at, &head)));
                if let Some(count) = slots.get_mut(slot) {
                    *count += 1;
                }
            }
        }
    }

    /// Gives back memory of cleared databases and of large collections that were removed, about `budget`
    /// entries' worth; whether more is left.
    pub fn purge_step(&mut self, budget: usize) -> bool {
        let mut done = 0;
        while done < budget {
            if !self.heap.garbage.is_empty() {
                // One collection at a time; the next call goes on.
                self.heap.garbage.reclaim(budget - done);
                break;
            }
            let Some(table) = self.cleared.last_mut() else {
                return false;
            };
            let Some(refs) = table.pop_segment() else {
                self.cleared.pop();
                continue;
            };
            done += refs.len().max(1);
            for at in refs {
                if let Some(head) = self.heap.head(at) {
                    self.heap.free(at, &head);
                }
            }
        }
        self.has_garbage()
    }

    /// Whether memory waits to be given back by [`purge_step`](Self::purge_step).
    #[must_use]
    pub fn has_garbage(&self) -> bool {
        !self.cleared.is_empty() || !self.heap.garbage.is_empty()
    }

    /// Whether more memory is used than `maxmemory` allows.
    #[inline]
    #[must_use]
    pub fn over_limit(&self) -> bool {
        self.config.maxmemory_bytes != 0 && self.used_bytes() > self.config.maxmemory_bytes
    }

    /// Bytes in use: tables, record slots, large values and eviction queues, exactly.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        let kept =
            self.snapshot.iter().flat_map(|snapshot| snapshot.kept.iter().map(|kept| &kept.0));
        let tables = self.tables.iter().chain(&self.cleared).chain(kept);
        let tables: u64 = tables.map(|table| table.bytes).sum();
        tables + self.heap.used_bytes() + self.evictor.bytes()
    }

    /// As [`used_bytes`](Self::used_bytes), with whole slab pages in place of their used slots:
    /// what the store keeps resident.
    #[must_use]
    pub fn held_bytes(&self) -> u64 {
        self.used_bytes() - self.heap.arena.live_bytes() - self.heap.arena.bookkeeping_bytes()
            + self.heap.arena.held_bytes()
    }

    /// Counters.
    #[must_use]
    pub fn stats(&self) -> &StoreStats {
        &self.stats
    }

    /// `CONFIG RESETSTAT`.
    pub fn reset_stats(&mut self) {
        self.stats = StoreStats::default();
    }

    /// Keys of database 0 in a hash slot; 0 unless `slot_stats` is on.
    #[must_use]
    pub fn slot_count(&self, slot: u16) -> u32 {
        let count = self.slots.as_ref().and_then(|slots| slots.get(usize::from(slot)));
        count.copied().unwrap_or(0)
    }

    /// The configuration in force.
    #[must_use]
    pub fn config(&self) -> &StoreConfig {
        &self.config
    }

    /// Changes the eviction policy. S3-FIFO's queues are filled by the evictions that follow, a
    /// bounded part at each.
    pub fn set_policy(&mut self, policy: Policy) {
        if policy != self.config.policy {
            self.config.policy = policy;
            self.evictor = Evictor::new(policy);
        }
    }

    /// Changes the memory limit; 0 is none. Nothing is evicted here.
    pub fn set_maxmemory(&mut self, bytes: u64) {
        self.config.maxmemory_bytes = bytes;
    }

    /// Changes the number of keys compared per eviction (at least 1).
    pub fn set_samples(&mut self, samples: u8) {
        self.config.samples = samples.max(1);
    }

    pub(super) fn records(&self, now_ms: u64) -> Records<'_> {
        Records { heap: &self.heap, hasher: &self.hasher, now_ms }
    }
}
