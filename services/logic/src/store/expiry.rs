//! The active expiry pass: removes due keys nobody asks for.
//!
//! The expiry notes of segments and buckets let it skip everything that has nothing due: 16
//! segments are passed over for the price of one entry.
//! Next: `due.rs` for the notes; `lookup.rs` expires on access.

use super::{
    DueKeys, ExpireStep, Store,
    due::Due,
    table::{BUCKETS, Table},
};

/// Where the pass goes on.
#[derive(Default)]
pub(super) struct Sweep {
    db: u16,
    segment: u32,
}

/// Segments passed over that cost as much as one entry.
const SKIPS_PER_ENTRY: u32 = 16;
/// Cost of opening a due segment, in entries.
const SEGMENT_COST: usize = 4;

impl Store {
    /// Removes due keys, looking at no more than about `budget_entries` entries; goes on where the
    /// last call ended. Each removed key is given to `on_expired` with its database.
    pub fn expire_step(
        &mut self,
        now_ms: u64,
        budget_entries: usize,
        mut on_expired: impl FnMut(u16, &[u8]),
    ) -> ExpireStep {
        let mut step = ExpireStep::default();
        let mut left = budget_entries.max(1);
        // One round at most: a segment that stays due is met again by the next call.
        let mut turns = self.tables.len() + 1;
        let mut skipped = 0;
        while turns > 0 {
            if self.due_keys != DueKeys::Removed && self.sweep.db < self.items_db() {
                self.sweep = Sweep { db: self.items_db(), segment: 0 };
                turns = turns.min(2);
            }
            let Some(table) = self.tables.get(usize::from(self.sweep.db)) else {
                self.sweep = Sweep::default();
                continue;
            };
            let Some(&due) = table.dues.get(self.sweep.segment as usize) else {
                self.sweep = Sweep { db: self.sweep.db + 1, segment: 0 };
                turns -= 1;
                continue;
            };
            if left == 0 {
                step.more = true;
                break;
            }
            if due.has_come(now_ms) {
                let looked = self.expire_segment(now_ms, left, &mut step, &mut on_expired);
                left = left.saturating_sub(looked + SEGMENT_COST);
                let again = self
                    .tables
                    .get(usize::from(self.sweep.db))
                    .and_then(|table| table.dues.get(self.sweep.segment as usize))
                    .is_some_and(|due| due.has_come(now_ms));
                if again && left == 0 {
                    continue;
                }
            } else {
                skipped += 1;
                if skipped % SKIPS_PER_ENTRY == 0 {
                    left -= 1;
                }
            }
            self.sweep.segment += 1;
        }
        self.stats.expired += step.expired as u64;
        step
    }

    /// Expires in the segment the sweep is at; the number of entries looked at.
    fn expire_segment(
        &mut self,
        now_ms: u64,
        budget: usize,
        step: &mut ExpireStep,
        on_expired: &mut impl FnMut(u16, &[u8]),
    ) -> usize {
        let Sweep { db, segment } = self.sweep;
        let mut looked = 0;
        for bucket in 0..BUCKETS {
            if looked >= budget {
                return looked;
            }
            let Some(table) = self.tables.get(usize::from(db)) else {
                return looked;
            };
            let Some(line) = table.bucket(segment, bucket) else {
                return looked;
            };
            if !line.due().has_come(now_ms) {
                continue;
            }
            let refs: Vec<_> = table.refs_of(segment, bucket).collect();
            looked += refs.len();
            let segments = table.segments.len();
            let mut earliest = Due::NONE;
            for at in refs {
                let Some(head) = self.heap.head(at) else {
                    continue;
                };
                if !head.is_due(now_ms) {
                    earliest = earliest.earlier(Due::at(head.expire_ms, now_ms), now_ms);
                    continue;
                }
                on_expired(db, self.heap.key(at, &head));
                step.expired += 1;
                step.lag_ms = step.lag_ms.max(now_ms - head.expire_ms);
                let hash = self.records(now_ms).facts(at).0;
                let place = self.tables.get(usize::from(db)).and_then(|t| t.find_ref(hash, at));
                if let Some(place) = place {
                    self.discard(db, hash, place, at, &head, now_ms);
                }
            }
            let Some(table) = self.tables.get_mut(usize::from(db)) else {
                return looked;
            };
            if table.segments.len() != segments {
                // A merge moved keys and noted their times anew; the next call meets them.
                return looked;
            }
            if let Some(line) = table.bucket_mut(segment, bucket) {
                line.set_due(earliest);
            }
        }
        if let Some(table) = self.tables.get_mut(usize::from(db)) {
            table.note_segment(segment, now_ms);
        }
        looked
    }
}

impl Table {
    /// Recomputes a segment's note from its buckets'.
    pub(super) fn note_segment(&mut self, segment: u32, now_ms: u64) {
        let Some(buckets) = self.segments.get(segment as usize) else {
            return;
        };
        let dues = buckets.iter().map(|line| line.due());
        let earliest = dues.fold(Due::NONE, |a, b| a.earlier(b, now_ms));
        if let Some(slot) = self.dues.get_mut(segment as usize) {
            *slot = earliest;
        }
    }
}
