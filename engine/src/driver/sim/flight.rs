//! What is in flight in the model: operations, completions, events, and what descriptors mean.

use std::fmt;
use std::net::SocketAddr;

use crate::buf::Lease;
use crate::driver::{Fd, OpId, Token};

use super::disk::Inode;
use super::memory::Memory;
use super::net::SockId;

/// An operation in flight, in the whole world.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct OpKey {
    pub(super) shard: usize,
    pub(super) id: OpId,
}

impl fmt::Debug for OpKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "operation {:#x} of shard {}", self.id.0, self.shard)
    }
}

impl OpKey {
    /// The slot's index: the lower half of the id.
    pub(super) const fn index(self) -> usize {
        (self.id.0 & u32::MAX as u64) as usize
    }
}

/// What an operation does; its memory apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    AcceptMulti,
    Connect { addr: SocketAddr },
    RecvMulti,
    RecvSelect { len: u32 },
    RecvInto,
    Send { zero_copy: bool },
    SendNow,
    PollOut,
    PollIn,
    Shutdown { write_only: bool },
    Close,
    Read { offset: u64 },
    ReadAhead { offset: u64, len: usize },
    Write { offset: u64, durable: bool },
    Fsync,
    Splice,
    Cancel { target: OpId },
}

/// What a descriptor stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    Sock(SockId),
    File(FileId),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct FileId(pub(super) u64);

/// An open file, alive while a descriptor or an operation names it.
#[derive(Debug)]
pub(super) struct OpenFile {
    pub(super) inode: Inode,
    pub(super) write: bool,
    pub(super) direct: bool,
    pub(super) refs: u32,
}

#[derive(Debug)]
pub(super) struct Descriptor {
    pub(super) target: Target,
    /// The shard that opened it.
    pub(super) shard: usize,
}

/// An operation in flight.
#[derive(Debug)]
pub(super) struct Flying {
    pub(super) id: OpId,
    pub(super) token: Token,
    pub(super) kind: Kind,
    pub(super) fd: Option<Fd>,
    pub(super) target: Option<Target>,
    pub(super) memory: Memory,
    /// Not tried yet.
    pub(super) first: bool,
    /// An attempt is scheduled.
    pub(super) scheduled: bool,
    /// Bytes sent so far.
    pub(super) done: usize,
    /// A zero-copy send whose result waits for its notification.
    pub(super) notifying: bool,
}

/// A new operation, as its driver hands it over.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) id: OpId,
    pub(super) token: Token,
    pub(super) kind: Kind,
    pub(super) fd: Option<Fd>,
    pub(super) memory: Memory,
}

/// An entry of a completion queue.
#[derive(Debug)]
pub(super) enum Cqe {
    Bell,
    Done { id: OpId, result: i32, more: bool, lease: Option<Lease> },
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Event {
    /// An operation is tried (again).
    Attempt(OpKey),
    /// The next piece arrives at a socket.
    Deliver(SockId),
    /// A connection request arrives at its listener.
    Arrive {
        from: SockId,
        tries: u32,
    },
    /// The answer to it arrives; zero or an errno.
    Answer {
        to: SockId,
        errno: i32,
    },
    /// The notification of a zero-copy send.
    Notify {
        key: OpKey,
        result: i32,
    },
    Bell {
        shard: usize,
    },
    /// Completions put aside become visible.
    Flush {
        shard: usize,
    },
    /// A waiting turn ends.
    Wake {
        shard: usize,
    },
}

/// A number for the trace.
pub(super) const fn tag(kind: Kind) -> u8 {
    match kind {
        Kind::AcceptMulti => 1,
        Kind::Connect { .. } => 2,
        Kind::RecvMulti => 3,
        Kind::RecvSelect { .. } => 4,
        Kind::RecvInto => 5,
        Kind::Send { .. } => 6,
        Kind::PollOut => 7,
        Kind::PollIn => 8,
        Kind::Shutdown { .. } => 9,
        Kind::Close => 10,
        Kind::Read { .. } => 11,
        Kind::Write { .. } => 12,
        Kind::Fsync => 13,
        Kind::Splice => 14,
        Kind::ReadAhead { .. } => 16,
        Kind::Cancel { .. } => 15,
        Kind::SendNow => 17,
    }
}
