//! Moving records together, so that what is resident follows what is used.
//!
//! Invariant: a move changes neither what a key holds nor where its place is, only which record the place names. Not while
//! emptied tables wait to be taken apart: their records have no place.
//! Next: `arena/drain.rs` for what is moved.

use super::{Store, arena::Ref, arena::drain::Drain, types::Policy};

/// What looking at a page or a chunk counts.
const LOOK_COST: usize = 4;

impl Store {
    /// Moves about `budget` records out of memory that is sparsely used; whether there is more to do.
    pub fn compact_step(&mut self, now_ms: u64, budget: usize) -> bool {
        if self.snapshot.is_some() || !self.cleared.is_empty() {
            return false;
        }
        let mut left = budget;
        while left > 0 {
            let cost = match self.heap.arena.next_to_move() {
                Drain::Rest => return false,
                Drain::Looked => LOOK_COST,
                Drain::Move(at) => {
                    self.relocate(at, now_ms);
                    1
                }
            };
            left = left.saturating_sub(cost);
        }
        true
    }

    /// Moves a record to another slot. One that has no place, or finds no room, stays.
    fn relocate(&mut self, at: Ref, now_ms: u64) {
        let (hash, _) = self.records(now_ms).facts(at);
        for (db, table) in (0_u16..).zip(&mut self.tables) {
            let Some(place) = table.find_ref(hash, at) else { continue };
            let Ok(to) = self.heap.arena.copy_out(at) else { return };
            table.set_ref(place, to);
            self.heap.arena.free(at);
            self.stats.compacted += 1;
            if self.config.policy == Policy::S3Fifo {
                self.evictor.moved(&mut self.heap, db, to);
                self.trim_queues();
            }
            return;
        }
    }
}
