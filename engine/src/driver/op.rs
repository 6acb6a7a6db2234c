//! Operations and their completions: the whole vocabulary between the engine and the kernel.
//!
//! An [`Op`] is a value that owns every buffer it names, and moves into the driver. The driver
//! hands the buffers back in the [`Completion`] that ends the operation, so no caller can free or
//! reuse memory the kernel may still touch. Multishot operations complete many times; all but the
//! last completion say `more`.
//!
//! Next: `driver::uring` performs them on a ring, `driver::sim` in a seeded model.

use std::fmt;
use std::net::SocketAddr;

use bytes::BytesMut;
use view::Output;

use crate::buf::{DirectBuf, Lease};
pub use crate::error::Errno;

/// A descriptor of this driver: a kernel file descriptor, or a simulated one (those start at
/// 2^30, so that one used on the wrong driver fails with EBADF).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fd(pub(crate) i32);

impl fmt::Debug for Fd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "fd {}", self.0)
    }
}

/// Names an operation in flight: a slot and its generation, so a late cancel cannot hit a
/// successor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct OpId(pub(crate) u64);

/// The submitter's mark on an operation; comes back with its completions.
pub type Token = u64;

/// What the driver can be asked to do.
#[derive(Debug)]
pub enum Op {
    /// Multishot accept: one completion per connection, its value the new descriptor.
    AcceptMulti {
        /// The listening socket.
        listener: Fd,
    },
    /// Connects a socket made by `Driver::socket`.
    Connect {
        /// The socket.
        fd: Fd,
        /// Where to.
        addr: SocketAddr,
    },
    /// Multishot receive into the shard's buffer pool; each completion lends a slice of it. A
    /// value of zero is the peer's end of stream. Ends with ENOBUFS when the pool is empty.
    RecvMulti {
        /// The socket.
        fd: Fd,
    },
    /// One receive into the shard's buffer pool.
    RecvSelect {
        /// The socket.
        fd: Fd,
        /// At most this many bytes; zero for as many as fit.
        len: u32,
    },
    /// One receive of at most `len` bytes, appended to `buf`, whose spare capacity must suffice.
    RecvInto {
        /// The socket.
        fd: Fd,
        /// Received bytes are appended here.
        buf: BytesMut,
        /// At most this many bytes.
        len: usize,
    },
    /// Sends what fits now of `out`, whose bytes must all be inline. The value may be short, and zero
    /// when the socket is full. A completion that tells of success does not end a sleep: it comes
    /// with the next turn that finds something, or does not wait.
    SendNow {
        /// The socket.
        fd: Fd,
        /// What to send.
        out: Output,
    },
    /// Sends `out` without its first `skip` bytes. The value may be short.
    Send {
        /// The socket.
        fd: Fd,
        /// What to send.
        out: Output,
        /// Bytes already sent.
        skip: usize,
        /// Ask for zero-copy; its buffers come back with the notification, not with the result.
        zero_copy: bool,
    },
    /// Waits until the descriptor is writable.
    PollOut {
        /// The descriptor.
        fd: Fd,
    },
    /// Waits until the descriptor is readable.
    PollIn {
        /// The descriptor.
        fd: Fd,
    },
    /// Shuts down both directions, or only sending.
    Shutdown {
        /// The socket.
        fd: Fd,
        /// Only the sending half.
        write_only: bool,
    },
    /// Closes the descriptor.
    Close {
        /// The descriptor.
        fd: Fd,
    },
    /// Reads up to `len` bytes at `offset` into `buf` from its start.
    Read {
        /// The file.
        fd: Fd,
        /// Filled from the start.
        buf: DirectBuf,
        /// At most this many bytes, at most the buffer's length.
        len: usize,
        /// Position in the file.
        offset: u64,
        /// Drop what this read brings into the page cache when it is done (RWF_DONTCACHE, Linux
        /// 6.14; EOPNOTSUPP elsewhere).
        uncached: bool,
    },
    /// Brings a range of a file into the page cache on a kernel worker. Completes with the number
    /// of bytes that are there now; fewer than asked at the file's end, or above 4 MiB;
    /// it may be more than asked.
    ReadAhead {
        /// The file.
        fd: Fd,
        /// Position in the file.
        offset: u64,
        /// At most this many bytes.
        len: usize,
    },
    /// Writes `len` bytes from the start of `buf` at `offset`.
    Write {
        /// The file.
        fd: Fd,
        /// Written from the start.
        buf: DirectBuf,
        /// How many bytes.
        len: usize,
        /// Position in the file.
        offset: u64,
        /// Complete only once the data is durable (RWF_DSYNC).
        durable: bool,
    },
    /// Makes the file durable: fsync, or fdatasync when `data_only`.
    Fsync {
        /// The file or directory.
        fd: Fd,
        /// fdatasync.
        data_only: bool,
    },
    /// Moves up to `len` bytes of a file into a pipe or a pipe into a socket, on a kernel worker;
    /// for ranges that are not in the page cache.
    Splice {
        /// Source.
        from: Fd,
        /// Position in the source file; `None` for a pipe.
        from_offset: Option<u64>,
        /// Destination.
        to: Fd,
        /// At most this many bytes.
        len: u32,
    },
    /// Asks for the end of another operation, which still completes (often with ECANCELED). The
    /// cancel itself completes too, with ENOENT when there was nothing to cancel.
    Cancel {
        /// What to cancel.
        target: OpId,
    },
}

/// One completion.
#[derive(Debug)]
pub struct Completion {
    /// The submitter's mark.
    pub token: Token,
    /// Which operation.
    pub op: OpId,
    /// The kernel's value: bytes moved, a descriptor, zero.
    pub result: Result<u32, Errno>,
    /// More completions of this operation follow.
    pub more: bool,
    /// What the operation owned, or lends.
    pub payload: Payload,
}

/// Buffers that come with a completion.
#[derive(Debug, Default)]
pub enum Payload {
    /// None.
    #[default]
    Empty,
    /// Received bytes in the shard's pool; dropping the lease returns them.
    Lease(Lease),
    /// The output of a send.
    Output(Output),
    /// The buffer of a `RecvInto`.
    Bytes(BytesMut),
    /// The buffer of a file operation.
    Direct(DirectBuf),
}

impl Completion {
    /// The new descriptor of an accept.
    #[must_use]
    pub fn accepted(&self) -> Option<Fd> {
        self.result.ok().and_then(|value| i32::try_from(value).ok()).map(Fd)
    }
}
