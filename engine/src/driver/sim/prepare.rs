//! How each operation becomes a request to the model, and what it holds meanwhile.

use bytes::BytesMut;
use view::Output;

use crate::buf::DirectBuf;
use crate::driver::{Fd, Op};

use super::flight::Kind;
use super::memory::{Memory, Region};
use super::slots::Held;

/// Longest gathered send, as on the ring (UIO_MAXIOV).
const VECTOR_MAX: usize = 1024;

/// An operation, taken apart.
pub(super) struct Prepared {
    pub(super) kind: Kind,
    pub(super) fd: Option<Fd>,
    pub(super) held: Held,
    pub(super) memory: Memory,
}

/// Splits an operation into what it does, what it owns, and where that lies. The memory named is
/// on the heap, so it stays where it is when its owner moves into the slot.
pub(super) fn prepare(op: Op) -> Prepared {
    let plain =
        |kind, fd| Prepared { kind, fd: Some(fd), held: Held::Nothing, memory: Memory::None };
    match op {
        Op::AcceptMulti { listener } => plain(Kind::AcceptMulti, listener),
        Op::Connect { fd, addr } => plain(Kind::Connect { addr }, fd),
        Op::RecvMulti { fd } => plain(Kind::RecvMulti, fd),
        Op::RecvSelect { fd, len } => plain(Kind::RecvSelect { len }, fd),
        Op::RecvInto { fd, buf, len } => receive_into(fd, buf, len),
        Op::Send { fd, out, skip, zero_copy } => send(fd, out, skip, zero_copy),
        Op::SendNow { fd, out } => Prepared { kind: Kind::SendNow, ..send(fd, out, 0, false) },
        Op::PollOut { fd } => plain(Kind::PollOut, fd),
        Op::PollIn { fd } => plain(Kind::PollIn, fd),
        Op::Shutdown { fd, write_only } => plain(Kind::Shutdown { write_only }, fd),
        Op::Close { fd } => plain(Kind::Close, fd),
        Op::Read { fd, buf, len, offset, uncached: _ } => {
            let memory = Memory::into(Region::new(buf.start(), len.min(buf.len())));
            Prepared { kind: Kind::Read { offset }, fd: Some(fd), held: Held::Direct(buf), memory }
        }
        Op::Write { fd, buf, len, offset, durable } => write(fd, buf, len, offset, durable),
        Op::ReadAhead { fd, offset, len } => plain(Kind::ReadAhead { offset, len }, fd),
        Op::Fsync { fd, data_only: _ } => plain(Kind::Fsync, fd),
        Op::Splice { from, .. } => plain(Kind::Splice, from),
        Op::Cancel { target } => Prepared {
            kind: Kind::Cancel { target },
            fd: None,
            held: Held::Nothing,
            memory: Memory::None,
        },
    }
}

fn receive_into(fd: Fd, mut buf: BytesMut, len: usize) -> Prepared {
    let spare = buf.spare_capacity_mut();
    let region = Region::new(spare.as_mut_ptr().cast(), len.min(spare.len()));
    let memory = Memory::into(region);
    Prepared { kind: Kind::RecvInto, fd: Some(fd), held: Held::Bytes(buf), memory }
}

fn send(fd: Fd, out: Output, skip: usize, zero_copy: bool) -> Prepared {
    let runs = out.pieces(skip).take(VECTOR_MAX);
    let runs = runs.map(|run| Region::new(run.as_ptr().cast_mut(), run.len())).collect();
    let memory = Memory::from(runs);
    Prepared { kind: Kind::Send { zero_copy }, fd: Some(fd), held: Held::Output(out), memory }
}

fn write(fd: Fd, buf: DirectBuf, len: usize, offset: u64, durable: bool) -> Prepared {
    let memory = Memory::from(vec![Region::new(buf.start(), len.min(buf.len()))]);
    let kind = Kind::Write { offset, durable };
    Prepared { kind, fd: Some(fd), held: Held::Direct(buf), memory }
}

/// Accounts for what a receive appended to `buf`.
pub(super) fn received(mut buf: BytesMut, result: i32) -> BytesMut {
    let len = usize::try_from(result).unwrap_or(0).min(buf.capacity() - buf.len());
    // SAFETY: the model wrote `len` bytes to the spare capacity handed to it by `receive_into`;
    // the buffer was owned by its slot since.
    unsafe { buf.set_len(buf.len() + len) };
    buf
}
