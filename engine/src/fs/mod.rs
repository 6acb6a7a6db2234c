//! Files: a durable log, files sent to sockets, plain reads and writes, directories.
//!
//! What a page cache hit serves is done on the shard without waiting; everything that may wait for
//! the disk is an operation of the driver. Next: `log` for durable appends, `send` for file to
//! socket, `disk` for what reads owe to syncs, `file` and `append` for the rest.

pub mod log;

mod append;
mod dir;
mod disk;
mod file;
mod send;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

pub use append::AppendFile;
pub use dir::Dir;
pub use file::{Caching, File, READS_MAX};

pub(crate) use disk::Disk;
pub(crate) use send::{send_chunks, send_range};
