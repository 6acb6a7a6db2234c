//! RESP2 and RESP3, the protocol of Redis clients.
//!
//! [`parse_command`] reads requests (arrays of bulk strings and inline lines), [`likely_key`]
//! glances at one that will be read soon, [`reply`] writes
//! replies in either version, [`decode`] reads replies for clients and tests.
//! Source: the protocol page of redis.io, and the behaviour of Redis 7.0.15 where it is silent.

mod args;
pub mod decode;
pub mod float;
mod glance;
mod inline;
mod number;
mod parse;
pub mod reply;

pub use args::Args;
pub use decode::{DecodeError, Reply, decode_reply, skip_reply};
pub use glance::likely_key;
pub use number::parse_i64;
pub use parse::{Limits, NEED_MIN_BYTES, ParseState, Parsed, ProtocolError, parse_command};
pub use reply::Version;
