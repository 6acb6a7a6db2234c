//! Memory the kernel reads and writes: the shared receive pool and its leases, and page-aligned
//! buffers for direct file I/O.
//!
//! Invariants: bytes lent by a [`Lease`] are not written by anyone until every lease of that
//! buffer is dropped; a [`DirectBuf`] moves into an operation and comes back with its completion.
//! Next: `driver::uring` registers the pool with a ring.

#![expect(unsafe_code, reason = "hands memory to the kernel; see the SAFETY notes")]

mod direct;
mod pool;

pub use direct::DirectBuf;
pub use pool::{Lease, Pool, PoolConfig};
