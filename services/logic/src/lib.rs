//! Pure shard-local logic of the services: the cache's value store and collections, hash slots, glob patterns; what a
//! partition's log knows of itself; consumer groups; rate limits.
//!
//! Invariants: no I/O, no clock, no thread, no `unsafe`; time is an argument and randomness comes
//! from a seeded generator handed in at construction, so equal inputs give equal results.
//! Next: [`store`] is the largest part; `cache::shard` owns one [`store::Store`] per core.

#![forbid(unsafe_code)]
#![warn(
    missing_docs,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::cast_possible_truncation
)]

pub mod glob;
pub mod group;
pub mod limit;
pub mod log;
pub mod object;
pub mod rdb;
pub mod slot;
pub mod store;
pub mod topk;
