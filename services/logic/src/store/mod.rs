//! The cache's table and value store: one shard's slice of all databases.
//!
//! One [`Store`] per core, single-threaded, without I/O; time is handed in as unix milliseconds
//! and every random choice comes from the seed. A key is a 5-byte place in a cache-line bucket
//! (`bucket.rs`, `table.rs`) that refers to a record in a slab (`arena.rs`, `record.rs`); values
//! from [`SHARED_MIN_BYTES`] on are reference-counted (`large.rs`).
//!
//! Invariants: a record is referred to by exactly one table place; [`Store::used_bytes`] equals a
//! recount of everything held at any time; no call does work in proportion to the number of keys.
//! A command on a batch of keys goes: [`Store::hash`] and [`Store::touch_bucket`] for all, then
//! [`Store::touch_record`] for all, then the operations, so that cache misses overlap.
//! Next: `lookup.rs` for the operations on one key, `expiry.rs`, `evict.rs`, `scan.rs`; `item.rs` for the
//! database of items, which has no number.

mod access;
mod admin;
mod arena;
mod big;
mod bucket;
mod compact;
mod due;
mod evict;
mod expiry;
mod garbage;
mod grow;
pub(crate) mod hash;
mod item;
mod large;
mod lookup;
mod notes;
mod objects;
mod record;
mod replica;
mod s3fifo;
mod scan;
mod snapshot;
mod table;
#[cfg(test)]
mod tests;
mod types;

use big::BigKeys;
pub use big::{BIG_MIN_BYTES, Big};
use evict::Evictor;
use expiry::Sweep;
use hash::{Hasher, Records, Rng};
pub use item::{Item, Marks};
pub use notes::Note;
use record::Heap;
pub use replica::DueKeys;
pub use snapshot::WAITING_MAX_BYTES;
use table::Table;
pub use types::{
    Entry, EvictResult, Expire, ExpireStep, Form, Full, KeyHash, Kind, NewValue, Policy,
    SHARED_MIN_BYTES, StoreConfig, StoreStats, Value,
};

use crate::{object::Limits, slot::SLOTS};

/// One shard's keys.
pub struct Store {
    config: StoreConfig,
    hasher: Hasher,
    limits: Limits,
    heap: Heap,
    /// By database, with that of the items behind them.
    tables: Vec<Table>,
    /// Cleared ones whose records are still held.
    cleared: Vec<Table>,
    /// Keys per hash slot of database 0, when asked for.
    slots: Option<Box<[u32]>>,
    evictor: Evictor,
    sweep: Sweep,
    rng: Rng,
    stats: StoreStats,
    scratch: Vec<u8>,
    big: BigKeys,
    notes: notes::Notes,
    snapshot: Option<Box<snapshot::Snapshot>>,
    due_keys: DueKeys,
}

impl Store {
    /// An empty store; a database costs nothing but its struct until it is used.
    #[must_use]
    pub fn new(mut config: StoreConfig) -> Self {
        config.databases = config.databases.max(1);
        config.samples = config.samples.max(1);
        Self {
            hasher: Hasher::new(config.seed),
            limits: Limits::default(),
            heap: Heap::new(),
            tables: (0..=config.databases).map(|_| Table::new()).collect(),
            cleared: Vec::new(),
            slots: config.slot_stats.then(|| vec![0; usize::from(SLOTS)].into_boxed_slice()),
            evictor: Evictor::new(config.policy),
            sweep: Sweep::default(),
            rng: Rng::new(config.seed ^ 0x5EED),
            stats: StoreStats::default(),
            scratch: Vec::new(),
            big: BigKeys::default(),
            notes: notes::Notes::default(),
            snapshot: None,
            due_keys: DueKeys::Removed,
            config,
        }
    }
}
