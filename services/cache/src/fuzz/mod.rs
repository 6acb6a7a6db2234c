//! What a fuzzer calls, and tests call again with what one has found: any bytes, by each way into the cache.
//!
//! A target takes bytes and returns, or panics: there is no wrong input. Each makes its own shards, so that what one
//! input leaves means nothing to the next. The first byte of an input says how the rest is used, a letter where it can
//! be, so that inputs can be read and written by hand.
//!
//! Invariants: no file, clock or thread; whatever the input, a target ends, and what it holds stays within
//! [`MEMORY_MAX_BYTES`] more than before. `replay.rs` tests that with every file of `services/cache/fuzz/corpus`.
//! Next: `services/cache/fuzz/README.md` for how to run a fuzzer.

mod aof;
mod dump;
mod lua;
mod memcached;
mod rdb;
#[cfg(test)]
mod replay;
mod resp;
mod uses;

use crate::{ShardConfig, support::Host};

/// A longer input is of no use, only slow.
pub const INPUT_MAX_BYTES: usize = 64 << 10;
/// Most memory that a target takes, whatever its input: a Lua state's 64 MiB, values of some of
/// [`BULK_MAX_BYTES`], and replies of the same.
pub const MEMORY_MAX_BYTES: u64 = 512 << 20;
/// Most bytes of all replies to an input.
const REPLIES_MAX_BYTES: usize = 256 << 20;
/// Longest string, the least that `proto-max-bulk-len` may be.
const BULK_MAX_BYTES: &str = "1048576";

/// A way in.
#[derive(Clone, Copy)]
pub struct Target {
    /// Its name, and that of its folder of inputs.
    pub name: &'static str,
    /// Takes an input.
    pub run: fn(&[u8]),
}

/// All of them.
pub const TARGETS: &[Target] = &[
    Target { name: "aof", run: aof::run },
    Target { name: "dump", run: dump::run },
    Target { name: "lua", run: lua::run },
    Target { name: "memcached", run: memcached::run },
    Target { name: "rdb", run: rdb::run },
    Target { name: "resp", run: resp::run },
];

/// Runs the target of this name.
///
/// # Panics
/// When there is none, and when the target finds a fault.
pub fn run(name: &str, input: &[u8]) {
    let target = TARGETS.iter().find(|target| target.name == name);
    let target = target.unwrap_or_else(|| panic!("no target is called {name}"));
    if input.len() <= INPUT_MAX_BYTES {
        (target.run)(input);
    }
}

/// Limits that keep an input from taking what it may take elsewhere: long strings and long scripts.
fn bound(config: &mut ShardConfig) {
    config.databases = 3;
    config.maxmemory_bytes = 64 << 20;
    for (name, text) in [("proto-max-bulk-len", BULK_MAX_BYTES), ("busy-reply-threshold", "1")] {
        config.settings.push((name.into(), text.into()));
    }
}

/// Shards, and nobody connected to them.
fn host(shards: u16) -> Host {
    Host::with(shards, bound)
}

/// Whether an input asks for other limits than [`bound`] sets.
fn lifts_limits(input: &[u8]) -> bool {
    let lower = input.to_ascii_lowercase();
    let has = |word: &[u8]| lower.windows(word.len()).any(|part| part == word);
    has(b"proto-max") || has(b"maxmemory") || has(b"busy-reply") || has(b"lua-time")
}

/// An input's first byte, and the rest.
fn split(input: &[u8]) -> (u8, &[u8]) {
    input.split_first().map_or((0, input), |(first, rest)| (*first, rest))
}
