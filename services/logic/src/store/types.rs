//! The store's public vocabulary: what goes in, what comes out, how it is configured.
//!
//! Next: `store/mod.rs` holds the operations.

use bytes::Bytes;

use crate::object::Object;

/// Values of this size and more are kept as reference-counted [`Bytes`], so a reply can point at
/// them; shorter ones are copied into the record.
pub const SHARED_MIN_BYTES: usize = 4096;

/// How a [`Store`](super::Store) is set up.
#[derive(Debug, Clone)]
pub struct StoreConfig {
    /// Seed of the key hash and of the store's random choices.
    pub seed: u64,
    /// Number of databases; all but the first cost nothing until used.
    pub databases: u16,
    /// Limit on [`used_bytes`](super::Store::used_bytes); 0 is none.
    pub maxmemory_bytes: u64,
    /// Which key goes first when the limit is met.
    pub policy: Policy,
    /// Keys compared per eviction by the sampling policies.
    pub samples: u8,
    /// Maintain the number of keys per hash slot (database 0).
    pub slot_stats: bool,
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self {
            seed: 0,
            databases: 16,
            maxmemory_bytes: 0,
            policy: Policy::NoEviction,
            samples: 5,
            slot_stats: false,
        }
    }
}

/// The eviction policies, named as in Redis, and S3-FIFO.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// Refuse writes that need memory.
    NoEviction,
    /// The least recently used of some sampled keys.
    AllKeysLru,
    /// The same among keys with an expiry.
    VolatileLru,
    /// The least frequently used of some sampled keys.
    AllKeysLfu,
    /// The same among keys with an expiry.
    VolatileLfu,
    /// Any key.
    AllKeysRandom,
    /// Any key with an expiry.
    VolatileRandom,
    /// The key that expires first among some sampled ones.
    VolatileTtl,
    /// Small and main queue with a ghost list (Yang et al., SOSP 2023).
    S3Fifo,
}

impl Policy {
    /// Only keys with an expiry may go.
    #[must_use]
    pub const fn is_volatile(self) -> bool {
        matches!(
            self,
            Self::VolatileLru | Self::VolatileLfu | Self::VolatileRandom | Self::VolatileTtl
        )
    }

    /// Access info is a frequency counter (`OBJECT FREQ` works, `OBJECT IDLETIME` does not).
    #[must_use]
    pub const fn is_lfu(self) -> bool {
        matches!(self, Self::AllKeysLfu | Self::VolatileLfu)
    }
}

/// The seeded hash of a key: computed once per command, used for every step.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct KeyHash(pub(crate) u64);

impl KeyHash {
    /// The raw 64 bits.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

/// What type of value a key holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A string.
    String,
    /// A list.
    List,
    /// A set.
    Set,
    /// A sorted set.
    Zset,
    /// A hash.
    Hash,
    /// A stream.
    Stream,
}

impl Kind {
    /// As `TYPE` says it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::String => "string",
            Self::List => "list",
            Self::Set => "set",
            Self::Zset => "zset",
            Self::Hash => "hash",
            Self::Stream => "stream",
        }
    }
}

/// A value as stored.
#[derive(Clone, Copy)]
pub enum Value<'a> {
    /// Bytes inside the record: copy them out.
    Inline(&'a [u8]),
    /// A large value: a reply may hold a clone of the reference.
    Shared(&'a Bytes),
    /// A collection.
    Object(&'a Object),
}

impl<'a> Value<'a> {
    /// The bytes of a string; none of a collection, which callers tell apart by its [`Kind`] first.
    #[must_use]
    pub fn as_slice(&self) -> &'a [u8] {
        match self {
            Value::Inline(bytes) => bytes,
            Value::Shared(bytes) => bytes,
            Value::Object(_) => &[],
        }
    }

    /// What it is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Value::Object(object) => object.kind(),
            _ => Kind::String,
        }
    }

    /// Length in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.as_slice().len()
    }

    /// Whether the value is the empty string.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A value to be stored.
#[derive(Debug, Clone)]
pub enum NewValue<'a> {
    /// Copied by the store.
    Copy(&'a [u8]),
    /// Kept by reference when at least [`SHARED_MIN_BYTES`] long, else copied.
    Shared(Bytes),
}

impl NewValue<'_> {
    /// The bytes.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        match self {
            NewValue::Copy(bytes) => bytes,
            NewValue::Shared(bytes) => bytes,
        }
    }
}

/// What happens to a key's expiry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expire {
    /// Unchanged; none for a new key.
    Keep,
    /// Removed.
    Clear,
    /// At this time, unix milliseconds (at most `i64::MAX`, as in Redis).
    At(u64),
}

/// One key's value and attributes.
#[derive(Clone, Copy)]
pub struct Entry<'a> {
    /// The value.
    pub value: Value<'a>,
    /// When it expires, unix milliseconds.
    pub expire_at_ms: Option<u64>,
    /// How it came to be what it is.
    pub form: Form,
}

/// How a string value came to be, as far as `OBJECT ENCODING` tells.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Form {
    /// Set as a whole: what it is follows from its bytes.
    #[default]
    Plain,
    /// Text even when it reads as an integer (`INCRBYFLOAT`).
    Text,
    /// Modified in place (`APPEND`, `SETRANGE`): raw, whatever its length.
    Raw,
}

/// The store cannot hold more: 32 GiB of records per shard, or 2^32 large values. `maxmemory` is not this:
/// callers ask [`over_limit`](super::Store::over_limit) and
/// [`evict_step`](super::Store::evict_step) before they write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full;

impl std::fmt::Display for Full {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the shard's record space is full")
    }
}

impl std::error::Error for Full {}

/// Result of [`Store::expire_step`](super::Store::expire_step).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ExpireStep {
    /// Keys removed.
    pub expired: usize,
    /// How long ago the longest overdue of them expired.
    pub lag_ms: u64,
    /// The budget ended before the due keys did.
    pub more: bool,
}

/// Result of [`Store::evict_step`](super::Store::evict_step).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EvictResult {
    /// Within the limit; this many keys went.
    Fits {
        /// Keys evicted.
        evicted: usize,
    },
    /// Still over the limit after as many evictions as allowed: call again.
    More {
        /// Keys evicted.
        evicted: usize,
    },
    /// Over the limit and no key may go: refuse the write.
    Stuck {
        /// Keys evicted.
        evicted: usize,
    },
}

/// Counters since the start or the last reset.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StoreStats {
    /// `get`s that found a key.
    pub hits: u64,
    /// `get`s that did not.
    pub misses: u64,
    /// Keys removed because they were due, on access and by the active pass.
    pub expired: u64,
    /// Keys removed to make room.
    pub evicted: u64,
    /// Records moved out of memory that was sparsely used.
    pub compacted: u64,
}
