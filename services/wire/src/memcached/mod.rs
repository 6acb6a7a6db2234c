//! The text and meta protocols of memcached.
//!
//! [`parse`] reads the command line at the front of the input; the data block of a storage command follows it and is
//! the caller's to wait for ([`Request::data_len`]). [`likely_key`] and [`glance`] look at requests that will be read soon,
//! [`reply`] writes what answers need. Source: memcached's `doc/protocol.txt`, and the behaviour of memcached 1.6.18,
//! down to how it counts words and reads numbers.
//!
//! Invariant: nothing is allocated but the key of a request that gives it in base64.
//! Next: `line.rs` finds lines and words, `request.rs` the text commands, `meta.rs` the meta commands.

mod line;
mod meta;
mod number;
pub mod reply;
mod request;

pub use line::{LINE_MAX_BYTES, Words, glance, likely_key, rest_of_line};
pub use meta::{Meta, OPAQUE_MAX_BYTES};
pub use number::parse_u64;
pub use request::{Get, Parsed, Request, Store, Verb, parse, parse_line};

/// Longest key.
pub const KEY_MAX_BYTES: usize = 250;
