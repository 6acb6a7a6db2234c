//! Wire formats of the services, sans-IO: bytes in, values out; values in, bytes out.
//!
//! Invariants: no I/O, no clock, no `unsafe`; input from a peer never panics and never makes a
//! parser allocate from a length the peer merely announced. Next: [`resp`] and [`memcached`], the cache's protocols, [`kafka`], the log
//! broker's, and [`sasl`], by which a client says who it is.

#![forbid(unsafe_code)]
#![warn(
    missing_docs,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::cast_possible_truncation
)]

pub mod kafka;
pub mod memcached;
pub mod resp;
pub mod sasl;
