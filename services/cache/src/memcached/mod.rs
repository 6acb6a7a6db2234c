//! The memcached protocol, text and meta, on a port of its own and on the same shards as the Redis protocol.
//!
//! Items lie in a database of the store that no number names (decision 0018): what one protocol stores, the other does
//! not see, and both share the memory, its limit and the eviction. What a client can tell is memcached 1.6.18's; time
//! goes by whole seconds, as there.
//!
//! Invariants as in [`crate::session`]: bytes in, replies out, nothing awaited within a batch; commands of other shards'
//! keys leave as one batch per shard and their replies come back in order. No locks: nothing of this protocol touches
//! two keys at once, and no command of Redis reaches an item.
//! Next: `session.rs` for a connection, `run.rs` and `meta.rs` for the commands, `remote.rs` for what other shards ask.

mod door;
mod keys;
mod log;
mod meta;
mod metrics;
mod remote;
mod run;
mod session;
mod stats;
#[cfg(test)]
mod tests;

use view::Instant;

pub use door::{Memcached, start};
pub use remote::Ask;
pub(crate) use remote::serve;
pub use session::Session;
pub use stats::Report;

use crate::shard::Shard;
use stats::Counters;

/// What a shard keeps for this protocol.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) counters: Counters,
    /// The CAS unique that was told last.
    cas: u64,
    /// Everything goes at this time, unix seconds.
    flush_at_s: Option<u64>,
    /// Connections now, and since the start.
    pub(crate) connections: u64,
    pub(crate) accepted: u64,
    /// Longest item, with key and what memcached keeps beside it.
    pub(crate) item_max_bytes: usize,
}

/// An item as large as memcached's by default.
pub(crate) const ITEM_MAX_BYTES: usize = 1 << 20;
/// What memcached keeps with an item: header, CAS unique, the ends of key and value.
const ITEM_HEADER_BYTES: usize = 48 + 8 + 1 + 2;
/// Relative times end here; beyond, they are unix seconds.
const RELATIVE_MAX_S: i32 = 60 * 60 * 24 * 30;

impl State {
    pub(crate) fn new(item_max_bytes: usize) -> Self {
        Self {
            counters: Counters::default(),
            cas: 0,
            flush_at_s: None,
            connections: 0,
            accepted: 0,
            item_max_bytes,
        }
    }

    /// Uniques are above this from now on.
    pub(crate) fn begin_uniques(&mut self, above: u64) {
        self.cas = self.cas.max(above);
    }

    /// A CAS unique that was never told.
    const fn next_cas(&mut self) -> u64 {
        self.cas += 1;
        self.cas
    }

    /// Whether memcached would refuse an item of this size.
    fn is_too_large(&self, key_len: usize, flags: u32, len: usize) -> bool {
        let flags_len = if flags == 0 { 0 } else { 4 };
        key_len + flags_len + len + ITEM_HEADER_BYTES > self.item_max_bytes
    }
}

/// Unix seconds.
const fn seconds(now: Instant) -> u64 {
    now.unix_ms() / 1000
}

/// When an item given this expiry ends, unix seconds; `None` for never, a time that has passed for at once.
fn ends_s(exptime: i32, now: Instant) -> Option<u64> {
    match u64::try_from(exptime) {
        Ok(0) => None,
        Ok(seconds_on) if exptime <= RELATIVE_MAX_S => Some(seconds(now) + seconds_on),
        Ok(at) => Some(at),
        Err(_) => Some(0),
    }
}

impl Shard {
    /// Empties the database of items, at once or at a time.
    fn flush_items(&mut self, delay: i32, now: Instant) {
        // As memcached: what is as old as the second before the one that was named.
        let at_s =
            if delay > 0 { ends_s(delay, now).map(|at_s| at_s.saturating_sub(1)) } else { None };
        self.memcached.flush_at_s = at_s;
        if at_s.is_none_or(|at_s| at_s <= seconds(now)) {
            self.clear_items(now);
        }
    }

    /// Empties the database of items when the time of a `flush_all` has come.
    #[inline]
    pub(crate) fn flush_due_items(&mut self, now: Instant) {
        if self.memcached.flush_at_s.is_some_and(|at_s| at_s <= seconds(now)) {
            self.clear_items(now);
        }
    }

    #[cold]
    fn clear_items(&mut self, now: Instant) {
        self.memcached.flush_at_s = None;
        let db = self.store.items_db();
        self.store.clear(db);
        self.log_no_items(now);
    }
}
