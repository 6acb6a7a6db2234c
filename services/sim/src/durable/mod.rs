//! Runs of the cache in which keys survive: the append-only log and dumps, over crashes of the whole machine, restarts
//! with another number of shards, and a disk that tears, loses what was not synced, runs full and fails.
//!
//! What must hold after each restart: of what a client did to its keys of one shard, a beginning is there and nothing
//! else (`lane`), as long as the log or the dump promises, and never less than anybody has seen; keys that change together
//! over several shards are all as they were at one moment; what was acknowledged with `always` is there. A dump shows one
//! moment. A key that expired stays gone. What the disk has changed by itself ends the start, which says where.
//! Invariant: as everywhere in this crate, a run follows from its seed. Next: `course`.

mod admin;
mod course;
pub(crate) mod lane;
pub(crate) mod peer;
pub(crate) mod setup;
pub(crate) mod value;
pub(crate) mod wire;

pub(crate) use course::run;

/// Whether a seed of the cache is a run of this kind.
#[must_use]
pub(crate) const fn is_drawn(seed: u64) -> bool {
    seed % 16 == 3
}
