//! The cache: the protocols of Redis and memcached on shard-local stores.
//!
//! [`Session`] turns a connection's bytes into replies, with exclusive use of its core's [`Shard`]
//! for the length of a batch. What concerns other shards leaves as [`Work`] and comes back as
//! [`Done`]; the host carries it and calls [`Shard::serve`] over there.
//!
//! Invariants: no I/O, no clock, no `unsafe`; a session and its shard are used by one thread.
//! Next: `session.rs` for a command's path, `command/table` for what there is.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod acl;
pub mod admin;
mod ahead;
pub mod aof;
mod batch;
pub mod clients;
pub mod command;
pub mod config;
pub mod directive;
mod elsewhere;
pub mod erase;
mod events;
pub mod flow;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod group;
mod hop;
pub mod hot;
mod housekeeping;
mod load;
mod lock;
mod manifest;
pub mod memcached;
mod metrics;
mod multi;
mod observe;
mod ops;
mod pubsub;
mod remote;
pub mod repl;
pub mod route;
pub mod save;
pub mod script;
pub mod serve;
pub mod session;
pub mod settings;
pub mod shard;
mod spread;
pub mod stats;
#[cfg(any(test, fuzzing))]
#[path = "tests/support.rs"]
mod support;
#[cfg(test)]
mod tests;
mod tracking;
mod transaction;
mod watch;
pub mod work;

pub use acl::User;
pub use clients::ConnInfo;
pub use observe::Cancel;
pub use session::Session;
pub use shard::{Shard, ShardConfig};
pub use watch::Clock;
pub use work::{Done, Job, Request, Response, Work};
