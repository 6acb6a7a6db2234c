//! Whole-system simulations: shards of a service on one thread, clients that check every reply,
//! and everything that can go wrong drawn from a seed.
//!
//! A run is told by its seed alone and leaves a hash of everything that happened: two runs of a
//! seed must agree. Invariants: no clock, no thread, no randomness but the seed's; a check that
//! fails is an error of the run, never a warning.
//!
//! Next: `run` for a run's course, `machine` for shards on one thread, `client` for what clients
//! do, `model` and `shared` for what replies must be; `broker` for the log broker's runs.

#![forbid(unsafe_code)]

pub mod broker;
mod check;
pub mod client;
pub mod command;
pub mod connection;
pub mod draw;
mod durable;
pub mod machine;
pub mod model;
pub mod op;
pub mod queue;
mod replicated;
pub mod run;
pub mod setup;
pub mod shared;
pub mod sweep;
