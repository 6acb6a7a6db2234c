//! The engine: one pinned thread, one ring and one slice of all state per core.
//!
//! It is the only code that meets the kernel. Services hand it sessions (`view::Session`) and
//! receive a [`shard::ShardCx`]; everything outside is an operation on the [`driver`], which is a
//! kernel ring or a seeded simulation. Invariants: no operation outlives its buffers; no queue is
//! without a bound; nothing here knows a protocol. Next: `driver` for the seam, `shard` for the
//! loop, `net::server` for the host of sessions.

#![warn(missing_docs)]

pub mod admin;
pub mod buf;
pub mod chunked;
pub mod config;
pub mod driver;
pub mod error;
pub mod event;
pub mod exec;
pub mod fs;
pub mod metrics;
pub mod net;
pub mod process;
pub mod rng;
pub mod shard;
pub mod signal;
