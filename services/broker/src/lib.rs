//! The log broker: the Kafka protocol on shard-local, zero-copy logs.
//!
//! Each shard leads its share of every topic's partitions and is a broker of its own to clients, with
//! its own port, so that a stock client reaches the core that owns a partition without a hop. Records go from
//! the receive buffer to the page cache and from there to the socket without another copy in user memory, and
//! are acknowledged after the sync that covers them.
//!
//! Next: `session` for a connection's requests, `guard` for who may make them and how many, `partition` for a log, `shard` for what a core owns, `serve` for
//! how it meets the engine, `control` for topics, `api` for everything off the hot path.

#![forbid(unsafe_code)]

mod api;
pub mod catalog;
pub mod code;
mod compact;
pub mod config;
mod control;
mod coordinator;
mod fetch;
mod guard;
mod metrics;
mod offsets_topic;
mod partition;
mod produce;
pub mod quota;
mod read_in;
pub mod serve;
mod session;
mod shard;
#[cfg(test)]
mod testing;
pub mod topic_config;
pub mod users;
mod watch;
mod work;

pub use session::Session;
pub use shard::{Endpoint, Shard, ShardConfig};
