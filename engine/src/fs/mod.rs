//! Files: a durable log, files sent to sockets, plain reads and writes, directories.
//!
//! What a page cache hit serves is done on the shard without waiting; everything that may wait for
//! the disk is an operation of the driver. Next: `log` for durable appends, `send` for file to
//! socket, `file` and `append` for the rest.

pub mod log;

mod dir;
mod send;
#[cfg(test)]
mod testing;

pub use dir::Dir;

pub(crate) use send::send_range;
