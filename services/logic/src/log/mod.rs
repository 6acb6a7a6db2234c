//! What a partition's log knows of itself, without its bytes: indexes, epochs, producers, which segments go
//! and what compaction keeps; and what a shard knows of who reads it: fetch sessions and quotas.
//!
//! Invariants: no I/O, no clock; everything about a partition can be built again from its batches, so that a
//! sidecar that is missing or does not fit is no loss. Formats of sidecar files are Kafka's where it has one.
//! Next: each module for its rules.

pub mod compact;
pub mod epochs;
pub mod fetch_session;
pub mod offset_index;
pub mod producers;
pub mod quota;
pub mod retention;
pub mod time_index;

pub use epochs::Epochs;
pub use fetch_session::FetchSessions;
pub use offset_index::OffsetIndex;
pub use producers::Producers;
pub use quota::Quotas;
pub use time_index::TimeIndex;
