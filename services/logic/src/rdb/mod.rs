//! Redis' dump format: whole files (`dump.rdb`) and single values (`DUMP`, `RESTORE`).
//!
//! ```text
//! file    = "REDIS" version(4 digits) part* end crc
//! part    = aux name value | database number | sizes | functions | module's own data
//!         | [expiry] [idle time or frequency] type key value
//! payload = type value version(2 bytes) crc
//! ```
//! Read is what redis-server 2.x to 7.4 writes (versions 1 to 12), written what 7.0.15 writes (version 10). A type says
//! how a value is laid out: as strings one after the other, or as one string that is a whole small collection, which is
//! checked to the last byte before anything is made of it.
//!
//! Invariants: no I/O; any bytes are borne, with memory in proportion to what has arrived; what is wrong is told with
//! its position, and nothing is left out silently.
//! Next: [`Reader`] for files in pieces, [`Writer`] for writing, [`dump()`] and [`restore`] for payloads.

pub mod crc64;
mod cursor;
mod file;
mod listpack;
mod load;
pub mod lzf;
mod payload;
mod put;
mod skip;
mod stream;
#[cfg(test)]
mod tests;

pub use cursor::Bad;
pub use file::{Attributes, Item, Reader, Record};
pub use load::Value;
pub use payload::{RestoreError, dump, restore};
pub use put::Writer;

/// The version of what is written.
pub const VERSION: u16 = 10;
/// The version of a payload that holds a hash with fields that expire.
pub const VERSION_TIMED: u16 = 12;
/// The latest version that is read.
pub const VERSION_MAX: u16 = 12;

/// Types of values.
mod kind {
    pub(super) const STRING: u8 = 0;
    pub(super) const LIST: u8 = 1;
    pub(super) const SET: u8 = 2;
    pub(super) const ZSET: u8 = 3;
    pub(super) const HASH: u8 = 4;
    pub(super) const ZSET_2: u8 = 5;
    pub(super) const MODULE: u8 = 6;
    pub(super) const MODULE_2: u8 = 7;
    pub(super) const HASH_ZIPMAP: u8 = 9;
    pub(super) const LIST_ZIPLIST: u8 = 10;
    pub(super) const SET_INTSET: u8 = 11;
    pub(super) const ZSET_ZIPLIST: u8 = 12;
    pub(super) const HASH_ZIPLIST: u8 = 13;
    pub(super) const LIST_QUICKLIST: u8 = 14;
    pub(super) const STREAM: u8 = 15;
    pub(super) const HASH_LISTPACK: u8 = 16;
    pub(super) const ZSET_LISTPACK: u8 = 17;
    pub(super) const LIST_QUICKLIST_2: u8 = 18;
    pub(super) const STREAM_2: u8 = 19;
    pub(super) const SET_LISTPACK: u8 = 20;
    pub(super) const STREAM_3: u8 = 21;
    /// With absolute times, as release candidates of 7.4 wrote it.
    pub(super) const HASH_TIMED_RC: u8 = 22;
    pub(super) const HASH_TIMED_LISTPACK_RC: u8 = 23;
    pub(super) const HASH_TIMED: u8 = 24;
    pub(super) const HASH_TIMED_LISTPACK: u8 = 25;
}
