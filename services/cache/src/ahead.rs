//! Keys of connections that will run soon, loaded together.
//!
//! One request on each of many connections is as many cache misses in a row: the table's bucket,
//! then the record. Loading a group's buckets before its first record, and its records before the
//! first command, lets them overlap. Invariant: nothing here changes the store. Next: `group.rs`,
//! which does the same within a pipeline.

use std::hint::black_box;

use logic::store::{KeyHash, Store};

/// Most keys of a group.
const GROUP: usize = 32;

/// The keys of one group.
#[derive(Debug, Default)]
pub(crate) struct Ahead {
    keys: [(u16, KeyHash); GROUP],
    len: usize,
}

impl Ahead {
    /// Adds a key.
    #[inline]
    pub(crate) fn push(&mut self, db: u16, hash: KeyHash) {
        if let Some(place) = self.keys.get_mut(self.len) {
            *place = (db, hash);
            self.len += 1;
        }
    }

    /// Loads what the group needs, in loops so short that many loads are under way at a time, and
    /// forgets it.
    #[inline]
    pub(crate) fn load(&mut self, store: &Store) {
        let keys = self.keys.get(..self.len).unwrap_or_default();
        if keys.len() > 1 {
            let sink = keys.iter().fold(0, |sink, &(db, hash)| sink ^ store.touch_bucket(db, hash));
            let touch = |sink, &(db, hash): &(u16, KeyHash)| sink ^ store.touch_record(db, hash);
            black_box(keys.iter().fold(sink, touch));
        }
        self.len = 0;
    }
}
