//! THE SEAM: everything that touches the outside is an [`Op`] handed to a [`Driver`], and a
//! [`Completion`] that comes back; listeners, descriptors' addresses and the clock are asked for
//! by plain calls on it.
//!
//! Two arms, both always compiled in: a kernel ring, and a seeded model of network, disk and
//! clock. Everything above runs unchanged on either. Invariants: an operation owns its buffers
//! until its last completion; completions of one operation arrive in order; after a completion
//! without `more` its [`OpId`] names nothing. Next: `op` for the vocabulary, `uring` and `sim` for
//! the arms, `tests/conformance` for what both must do.

#![expect(unsafe_code, reason = "the fenced place where the engine meets the kernel")]

mod control;
mod op;
pub mod probe;
mod siblings;
pub mod sim;
pub mod slice;
mod uring;

use std::io::IoSlice;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::rc::Rc;

use view::Instant;

pub use control::{ListenOptions, OpenOptions, PeerName, TcpInfo};
pub use op::{Completion, Errno, Fd, Op, OpId, Payload, Token};
pub use siblings::{FREED_NS, Siblings};
pub use uring::Ring;

use crate::buf::{DirectBuf, Pool, PoolConfig};
use crate::error::Error;

/// Sizes and features of a shard's driver.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Submission queue entries.
    pub sq_entries: u32,
    /// Completion queue entries: at least four times the connections that can complete in a turn.
    pub cq_entries: u32,
    /// Ask for a ring without the submission index array (Linux 6.6).
    pub no_sqarray: bool,
    /// Register the ring's descriptor with the thread (Linux 5.18).
    pub registered_ring: bool,
    /// The receive pool where buffers can be filled incrementally (Linux 6.12).
    pub pool: PoolConfig,
    /// The receive pool elsewhere.
    pub pool_fallback: PoolConfig,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            sq_entries: 4096,
            cq_entries: 16_384,
            no_sqarray: true,
            registered_ring: true,
            pool: PoolConfig { buffers: 32, buffer_len_bytes: 256 * 1024, incremental: true },
            pool_fallback: PoolConfig {
                buffers: 1024,
                buffer_len_bytes: 8 * 1024,
                incremental: false,
            },
        }
    }
}

/// What a process has used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Processor time in its own code, microseconds.
    pub user_us: u64,
    /// In the kernel on its behalf, microseconds.
    pub system_us: u64,
    /// Memory that is resident now.
    pub resident_bytes: u64,
}

/// Counters of a driver since its start.
#[derive(Clone, Copy, Debug, Default)]
pub struct DriverStats {
    /// Entries queued.
    pub submitted: u64,
    /// Completions collected.
    pub completions: u64,
    /// Enter system calls.
    pub enters: u64,
    /// Enters that waited.
    pub waits: u64,
    /// Bells rung at other shards.
    pub bells: u64,
    /// Completions the kernel had to put aside because the queue was full.
    pub overflows: u64,
    /// Other system calls made through the driver.
    pub calls: u64,
}

/// The kernel, or the model of it.
pub enum Driver {
    /// A ring of the running kernel.
    Uring(Box<Ring>),
    /// The simulation.
    Sim(Box<sim::SimDriver>),
}

macro_rules! each {
    ($driver:expr, $arm:ident => $call:expr) => {
        match $driver {
            Driver::Uring($arm) => $call,
            Driver::Sim($arm) => $call,
        }
    };
}

impl Driver {
    /// Queues `op`. Its completions carry `token`.
    pub fn submit(&mut self, token: Token, op: Op) -> OpId {
        each!(self, arm => arm.submit(token, op))
    }

    /// Hands queued operations over and collects completions; when nothing is ready and `wait`
    /// is set, sleeps until something is, a bell rings, or `timeout_ns` is over.
    pub fn turn(&mut self, wait: bool, timeout_ns: Option<u64>) {
        each!(self, arm => arm.turn(wait, timeout_ns));
    }

    /// The next collected completion.
    pub fn next_completion(&mut self) -> Option<Completion> {
        each!(self, arm => arm.next_completion())
    }

    /// Whether a turn without waiting would find something; no system call.
    pub fn has_pending_events(&mut self) -> bool {
        each!(self, arm => arm.has_pending_events())
    }

    /// The shard's receive pool.
    pub fn pool(&self) -> &Rc<Pool> {
        each!(self, arm => arm.pool())
    }

    /// Wakes another shard.
    pub fn ring_bell(&mut self, shard: usize) {
        each!(self, arm => arm.ring_bell(shard));
    }

    /// Whether another shard rang since the last call.
    pub fn take_rung(&mut self) -> bool {
        each!(self, arm => arm.take_rung())
    }

    /// Both clocks.
    #[must_use]
    pub fn now(&self) -> Instant {
        each!(self, arm => arm.now())
    }

    /// The monotonic clock alone.
    #[must_use]
    pub fn mono_ns(&self) -> u64 {
        each!(self, arm => arm.mono_ns())
    }

    /// Counters.
    #[must_use]
    pub fn stats(&self) -> DriverStats {
        each!(self, arm => *arm.stats())
    }

    /// Operations in flight.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        each!(self, arm => arm.in_flight())
    }

    /// Opens a listening TCP socket. An address that is taken is waited for a while (up to [`FREED_NS`]): what a process
    /// that was killed had in flight on its ring keeps its sockets open for some time after its end.
    ///
    /// # Errors
    /// The address is taken, or not this host's.
    pub fn listen(&mut self, addr: SocketAddr, options: &ListenOptions) -> Result<Fd, Error> {
        each!(self, arm => arm.listen(addr, options))
    }

    /// Opens a listening Unix socket, replacing a stale one of a dead server.
    ///
    /// # Errors
    /// The path is in use or not writable.
    pub fn listen_unix(&mut self, path: &Path, options: &ListenOptions) -> Result<Fd, Error> {
        each!(self, arm => arm.listen_unix(path, options))
    }

    /// A TCP socket to connect with.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn socket(&mut self, peer: SocketAddr) -> Result<Fd, Error> {
        each!(self, arm => arm.socket(peer))
    }

    /// Sets the options of a connected TCP socket.
    pub fn set_tcp(&mut self, fd: Fd, info: &TcpInfo) {
        each!(self, arm => arm.set_tcp(fd, info));
    }

    /// Holds back the partial last packet of what is sent, until this is taken back (TCP_CORK).
    pub fn cork(&mut self, fd: Fd, on: bool) {
        each!(self, arm => arm.cork(fd, on));
    }

    /// Names of a socket's two ends: (local, peer).
    #[must_use]
    pub fn names(&mut self, fd: Fd) -> (PeerName, PeerName) {
        each!(self, arm => arm.names(fd))
    }

    /// What the process has used so far; nothing where that cannot be told.
    #[must_use]
    pub fn usage(&mut self) -> Usage {
        each!(self, arm => arm.usage())
    }

    /// Sends part of a file to a socket without waiting: bytes moved, or EAGAIN when the socket
    /// is full (then wait for [`Op::PollOut`]). Blocks on pages that are not cached: ask
    /// [`Driver::cached_bytes`] first.
    ///
    /// # Errors
    /// As sendfile(2).
    pub fn sendfile(&mut self, to: Fd, file: Fd, offset: u64, len: usize) -> Result<usize, Errno> {
        each!(self, arm => arm.sendfile(to, file, offset, len))
    }

    /// How many bytes of a file range are in the page cache (cachestat(2), Linux 6.5); `None`
    /// when the kernel cannot tell.
    #[must_use]
    pub fn cached_bytes(&mut self, file: Fd, offset: u64, len: u64) -> Option<u64> {
        each!(self, arm => arm.cached_bytes(file, offset, len))
    }

    /// Tells the kernel to read nothing beyond what is asked for (POSIX_FADV_RANDOM): whoever reads
    /// ahead himself would otherwise wait for reads he did not ask for.
    pub fn no_read_ahead(&mut self, file: Fd) {
        each!(self, arm => arm.no_read_ahead(file));
    }

    /// Drops a range of a file from the page cache, as far as nobody uses it or has changed it.
    pub fn drop_cached(&mut self, file: Fd, offset: u64, len: u64) {
        each!(self, arm => arm.drop_cached(file, offset, len));
    }

    /// Reads without waiting for the disk (preadv2 with RWF_NOWAIT): EAGAIN when not cached.
    ///
    /// # Errors
    /// As preadv2(2).
    pub fn read_now(&mut self, file: Fd, buf: &mut [u8], offset: u64) -> Result<usize, Errno> {
        each!(self, arm => arm.read_now(file, buf, offset))
    }

    /// Reads, and waits for the disk where it must (pread): for what happens before a shard serves.
    ///
    /// # Errors
    /// As pread(2).
    pub fn read_waiting(&mut self, file: Fd, buf: &mut [u8], offset: u64) -> Result<usize, Errno> {
        each!(self, arm => arm.read_waiting(file, buf, offset))
    }

    /// Writes `parts`, one behind the other, to the page cache at `offset`, without a copy in user
    /// memory; how many bytes, fewer when the disk is full. Not durable before an [`Op::Fsync`].
    /// May wait for another writer of the same file, and for the disk when too much is dirty.
    ///
    /// # Errors
    /// As pwritev(2).
    pub fn write_now(
        &mut self,
        file: Fd,
        parts: &[IoSlice<'_>],
        offset: u64,
    ) -> Result<usize, Errno> {
        each!(self, arm => arm.write_now(file, parts, offset))
    }

    /// Ends the process at once, with this exit code: for a shard that cannot go on. In a simulation it returns, and the
    /// world stops the process.
    pub fn end_process(&mut self, code: i32) {
        each!(self, arm => arm.end_process(code));
    }

    /// Opens a file or directory.
    ///
    /// # Errors
    /// As open(2).
    pub fn open(&mut self, path: &Path, options: &OpenOptions) -> Result<Fd, Error> {
        each!(self, arm => arm.open(path, options))
    }

    /// Length of a file in bytes.
    ///
    /// # Errors
    /// As fstat(2).
    pub fn file_len(&mut self, file: Fd) -> Result<u64, Error> {
        each!(self, arm => arm.file_len(file))
    }

    /// Cuts or extends a file.
    ///
    /// # Errors
    /// As ftruncate(2).
    pub fn truncate(&mut self, file: Fd, len: u64) -> Result<(), Error> {
        each!(self, arm => arm.truncate(file, len))
    }

    /// Renames a file, replacing the target.
    ///
    /// # Errors
    /// As rename(2).
    pub fn rename(&mut self, from: &Path, to: &Path) -> Result<(), Error> {
        each!(self, arm => arm.rename(from, to))
    }

    /// Removes a file.
    ///
    /// # Errors
    /// As unlink(2).
    pub fn unlink(&mut self, path: &Path) -> Result<(), Error> {
        each!(self, arm => arm.unlink(path))
    }

    /// Makes a directory and its parents; one that exists is fine.
    ///
    /// # Errors
    /// As mkdir(2).
    pub fn make_dir(&mut self, path: &Path) -> Result<(), Error> {
        each!(self, arm => arm.make_dir(path))
    }

    /// Removes an empty directory.
    ///
    /// # Errors
    /// As rmdir(2).
    pub fn remove_dir(&mut self, path: &Path) -> Result<(), Error> {
        each!(self, arm => arm.remove_dir(path))
    }

    /// Names in a directory, sorted.
    ///
    /// # Errors
    /// As opendir(3).
    pub fn list_dir(&mut self, path: &Path) -> Result<Vec<String>, Error> {
        each!(self, arm => arm.list_dir(path))
    }

    /// Registers a buffer with the ring, so that operations on it need not pin its pages; hands it
    /// back unchanged where that is not possible.
    #[must_use]
    pub fn register(&mut self, buf: DirectBuf) -> DirectBuf {
        each!(self, arm => arm.register(buf))
    }

    /// Ends a registration; for buffers about to be freed.
    #[must_use]
    pub fn unregister(&mut self, buf: DirectBuf) -> DirectBuf {
        each!(self, arm => arm.unregister(buf))
    }

    /// Takes over a descriptor that was opened elsewhere.
    ///
    /// # Errors
    /// The simulation has no such descriptors.
    pub fn adopt(&mut self, fd: OwnedFd) -> Result<Fd, Error> {
        each!(self, arm => arm.adopt(fd))
    }

    /// Ends both directions of a socket, and what is in flight on it, before this returns. As an operation it would run on a
    /// kernel worker, which looks the descriptor up when it gets there (Linux 6.18): closed meanwhile, its number may
    /// be another connection's by then.
    pub fn shut_down_now(&mut self, fd: Fd) {
        each!(self, arm => arm.shut_down_now(fd));
    }

    /// Closes a descriptor with no operation in flight, at once.
    pub fn close_now(&mut self, fd: Fd) {
        each!(self, arm => arm.close_now(fd));
    }
}
