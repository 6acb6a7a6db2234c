//! Going through all keys in steps, and picking one by chance.
//!
//! The order of a scan is fixed by a key's hash alone: first its home bucket's number, then the
//! hash's top 32 bits. A cursor is a point of that order, so neither splits nor merges between two
//! calls can make it pass over a key, and no key is given twice.
//! Next: `table.rs` says where keys of a home bucket may be.

use super::{
    Kind, Store,
    table::{BUCKETS, Table, home_of, prefix_of},
};

/// Most buckets a single call looks at, however many of them are empty.
const BUCKETS_PER_CALL: usize = 1024;
/// A bucket with its stashed keys rarely holds more.
const PICK_BOUND: u32 = 32;
/// Buckets tried for a random key before it is searched in order.
const RANDOM_TRIES: usize = 128;

impl Store {
    /// One step over the keys: calls `each` for about `count` of them (at least one bucket's) and
    /// returns the next cursor, 0 at the end. Every key present from the first call to the last is
    /// given exactly once, whatever is added or removed meanwhile. Due keys are left out.
    pub fn scan(
        &self,
        db: u16,
        cursor: u64,
        count: usize,
        now_ms: u64,
        mut each: impl FnMut(&[u8], Kind),
    ) -> u64 {
        let Some(table) = self.tables.get(usize::from(db)) else {
            return 0;
        };
        let mut bucket = ((cursor >> 32) & (BUCKETS as u64 - 1)) as usize;
        let mut prefix = (cursor & 0xFFFF_FFFF) as u32;
        let mut given = 0;
        for _ in 0..BUCKETS_PER_CALL {
            let Some(segment) = table.segment_of(u64::from(prefix) << 32) else {
                return 0;
            };
            given += self.scan_bucket(table, segment, bucket, prefix, now_ms, &mut each);
            match table.after(segment) {
                Some(next) => prefix = next,
                None => {
                    (bucket, prefix) = (bucket + 1, 0);
                    if bucket == BUCKETS {
                        return 0;
                    }
                }
            }
            if given >= count {
                break;
            }
        }
        ((bucket as u64) << 32) | u64::from(prefix)
    }

    fn scan_bucket(
        &self,
        table: &Table,
        segment: u32,
        bucket: usize,
        prefix: u32,
        now_ms: u64,
        each: &mut impl FnMut(&[u8], Kind),
    ) -> usize {
        let mut given = 0;
        for at in table.refs_around(segment, bucket) {
            let Some(head) = self.heap.head(at) else {
                continue;
            };
            let hash = self.records(now_ms).facts(at).0;
            if home_of(hash) == bucket && prefix_of(hash) >= prefix {
                given += 1;
                if !head.is_due(now_ms) {
                    each(self.heap.key(at, &head), self.heap.entry(at, &head).value.kind());
                }
            }
        }
        given
    }

    /// Some key of a database, about equally likely each; `None` when it is empty.
    pub fn random_key(&mut self, db: u16, now_ms: u64) -> Option<Vec<u8>> {
        let table = self.tables.get(usize::from(db))?;
        if table.len == 0 {
            return None;
        }
        for _ in 0..RANDOM_TRIES {
            // Uniform over places, so a key's chance does not depend on how full its bucket is.
            let (segment, bucket) = table.random_bucket(self.rng.next())?;
            let refs: Vec<_> = table.refs_of(segment, bucket).collect();
            let pick = self.rng.below(PICK_BOUND) as usize;
            let Some(&at) = refs.get(pick) else { continue };
            if let Some(head) = self.heap.head(at).filter(|head| !head.is_due(now_ms)) {
                return Some(self.heap.key(at, &head).to_vec());
            }
        }
        // Almost empty, or almost all due: the first live key from a random point on.
        let mut found = None;
        let mut cursor = self.rng.next() & 0x3F_FFFF_FFFF;
        for _ in 0..RANDOM_TRIES {
            cursor = self.scan(db, cursor, 1, now_ms, |key, _| {
                found.get_or_insert_with(|| key.to_vec());
            });
            if found.is_some() {
                break;
            }
        }
        found
    }
}

impl Table {
    /// A bucket by chance; each part of the hash space is equally likely.
    pub(super) fn random_bucket(&self, random: u64) -> Option<(u32, usize)> {
        Some((self.segment_of(random)?, home_of(random)))
    }

    /// The first prefix beyond a segment; `None` after the last.
    pub(super) fn after(&self, segment: u32) -> Option<u32> {
        let meta = self.metas.get(segment as usize)?;
        u32::try_from(u64::from(meta.prefix) + (1u64 << (32 - u32::from(meta.depth)))).ok()
    }
}
