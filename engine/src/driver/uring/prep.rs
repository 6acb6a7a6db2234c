//! How each operation becomes a submission entry, and what it holds meanwhile.
//!
//! Entries point into heap memory (a vector's buffer, a boxed header), whose address does not
//! change when its owner moves into the slot table.

use std::net::SocketAddr;

use bytes::BytesMut;
use io_uring::{opcode, squeue, types};
use view::Output;

use super::slots::{Address, Held, Vectors};
use super::{POOL_GROUP, fixed};
use crate::buf::DirectBuf;
use crate::driver::{Fd, Op};

/// Longest gathered send (UIO_MAXIOV); the rest goes with the next one.
const VECTOR_MAX: usize = 1024;
/// Keep sending until everything is gone: the kernel retries short sends itself (Linux 5.19).
const SEND_FLAGS: i32 = libc::MSG_NOSIGNAL | libc::MSG_WAITALL;

const fn file(fd: Fd) -> types::Fd {
    types::Fd(fd.0)
}

pub(super) fn entry(op: Op) -> (squeue::Entry, Held) {
    match op {
        Op::AcceptMulti { listener } => {
            // Non-blocking for the sake of sendfile(2), which runs outside the ring.
            let flags = libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
            (opcode::AcceptMulti::new(file(listener)).flags(flags).build(), Held::Nothing)
        }
        Op::Connect { fd, addr } => connect(fd, addr),
        Op::RecvMulti { fd } => (opcode::RecvMulti::new(file(fd), POOL_GROUP).build(), Held::Pool),
        Op::RecvSelect { fd, len } => {
            let recv = opcode::Recv::new(file(fd), std::ptr::null_mut(), len).buf_group(POOL_GROUP);
            (recv.build().flags(squeue::Flags::BUFFER_SELECT), Held::Pool)
        }
        Op::RecvInto { fd, buf, len } => receive_into(fd, buf, len),
        Op::Send { fd, out, skip, zero_copy } => send(fd, out, skip, zero_copy),
        Op::SendNow { fd, out } => {
            let bytes = out.inline();
            let (start, len) = (bytes.as_ptr(), u32::try_from(bytes.len()).unwrap_or(u32::MAX));
            let send = opcode::Send::new(file(fd), start, len);
            let entry = send.flags(SEND_FLAGS | libc::MSG_DONTWAIT).build();
            (entry.flags(squeue::Flags::SKIP_SUCCESS), Held::Output(out, None))
        }
        Op::PollOut { fd } => poll(fd, libc::POLLOUT),
        Op::PollIn { fd } => poll(fd, libc::POLLIN),
        Op::Shutdown { fd, write_only } => {
            let how = if write_only { libc::SHUT_WR } else { libc::SHUT_RDWR };
            (opcode::Shutdown::new(file(fd), how).build(), Held::Nothing)
        }
        Op::Close { fd } => (opcode::Close::new(file(fd)).build(), Held::Nothing),
        Op::Read { fd, buf, len, offset, uncached } => read(fd, buf, len, offset, uncached),
        Op::ReadAhead { fd, offset, len } => (fixed::read_ahead(fd, offset, len), Held::Nothing),
        Op::Write { fd, buf, len, offset, durable } => write(fd, buf, len, offset, durable),
        Op::Fsync { fd, data_only } => {
            let flags =
                if data_only { types::FsyncFlags::DATASYNC } else { types::FsyncFlags::empty() };
            (opcode::Fsync::new(file(fd)).flags(flags).build(), Held::Nothing)
        }
        Op::Splice { from, from_offset, to, len } => {
            let offset = from_offset.map_or(-1, u64::cast_signed);
            let splice = opcode::Splice::new(file(from), offset, file(to), -1, len);
            (splice.build(), Held::Nothing)
        }
        Op::Cancel { target } => (opcode::AsyncCancel::new(target.0).build(), Held::Nothing),
    }
}

fn poll(fd: Fd, events: libc::c_short) -> (squeue::Entry, Held) {
    let events = u32::from(events.cast_unsigned());
    (opcode::PollAdd::new(file(fd), events).build(), Held::Nothing)
}

fn connect(fd: Fd, addr: SocketAddr) -> (squeue::Entry, Held) {
    let address = Box::new(Address::from(addr));
    let start = (&raw const address.storage).cast();
    (opcode::Connect::new(file(fd), start, address.len).build(), Held::Address(address))
}

fn receive_into(fd: Fd, mut buf: BytesMut, len: usize) -> (squeue::Entry, Held) {
    let spare = buf.spare_capacity_mut();
    let len = len.min(spare.len());
    let len = u32::try_from(len).unwrap_or(u32::MAX);
    let entry = opcode::Recv::new(file(fd), spare.as_mut_ptr().cast(), len).build();
    (entry, Held::Bytes(buf))
}

/// Accounts for what a receive appended to `buf`.
pub(super) fn received(mut buf: BytesMut, result: i32) -> BytesMut {
    let len = usize::try_from(result).unwrap_or(0).min(buf.capacity() - buf.len());
    // SAFETY: the kernel wrote `len` bytes to the spare capacity handed to it by `receive_into`;
    // the buffer was owned by its slot since.
    unsafe { buf.set_len(buf.len() + len) };
    buf
}

fn send(fd: Fd, out: Output, skip: usize, zero_copy: bool) -> (squeue::Entry, Held) {
    if out.is_inline() {
        let bytes = out.inline().get(skip..).unwrap_or_default();
        let (start, len) = (bytes.as_ptr(), u32::try_from(bytes.len()).unwrap_or(u32::MAX));
        let entry = if zero_copy {
            opcode::SendZc::new(file(fd), start, len).flags(SEND_FLAGS).build()
        } else {
            opcode::Send::new(file(fd), start, len).flags(SEND_FLAGS).build()
        };
        return (entry, Held::Output(out, None));
    }
    let vector: Vec<libc::iovec> = out
        .pieces(skip)
        .take(VECTOR_MAX)
        .map(|run| libc::iovec { iov_base: run.as_ptr().cast_mut().cast(), iov_len: run.len() })
        .collect();
    let header = libc::msghdr {
        msg_name: std::ptr::null_mut(),
        msg_namelen: 0,
        msg_iov: std::ptr::null_mut(),
        msg_iovlen: 0,
        msg_control: std::ptr::null_mut(),
        msg_controllen: 0,
        msg_flags: 0,
    };
    let mut vectors = Box::new(Vectors { header, vector });
    vectors.header.msg_iov = vectors.vector.as_mut_ptr();
    vectors.header.msg_iovlen = vectors.vector.len();
    let header = &raw const vectors.header;
    let flags = SEND_FLAGS.cast_unsigned();
    let entry = if zero_copy {
        opcode::SendMsgZc::new(file(fd), header).flags(flags).build()
    } else {
        opcode::SendMsg::new(file(fd), header).flags(flags).build()
    };
    (entry, Held::Output(out, Some(vectors)))
}

/// Since Linux 6.14.
const RWF_DONTCACHE: i32 = 0x80;

fn read(fd: Fd, buf: DirectBuf, len: usize, offset: u64, uncached: bool) -> (squeue::Entry, Held) {
    let rw_flags = if uncached { RWF_DONTCACHE } else { 0 };
    let len = u32::try_from(len.min(buf.len())).unwrap_or(u32::MAX);
    let entry = match buf.registered() {
        Some(index) => opcode::ReadFixed::new(file(fd), buf.start(), len, index)
            .offset(offset)
            .rw_flags(rw_flags)
            .build(),
        None => {
            opcode::Read::new(file(fd), buf.start(), len).offset(offset).rw_flags(rw_flags).build()
        }
    };
    (entry, Held::Direct(buf))
}

fn write(fd: Fd, buf: DirectBuf, len: usize, offset: u64, durable: bool) -> (squeue::Entry, Held) {
    let len = u32::try_from(len.min(buf.len())).unwrap_or(u32::MAX);
    let rw_flags = if durable { libc::RWF_DSYNC } else { 0 };
    let entry = match buf.registered() {
        Some(index) => opcode::WriteFixed::new(file(fd), buf.start(), len, index)
            .offset(offset)
            .rw_flags(rw_flags)
            .build(),
        None => {
            opcode::Write::new(file(fd), buf.start(), len).offset(offset).rw_flags(rw_flags).build()
        }
    };
    (entry, Held::Direct(buf))
}

impl From<SocketAddr> for Address {
    fn from(addr: SocketAddr) -> Self {
        // SAFETY: all-zero bytes are a valid sockaddr_storage (plain integers).
        let mut storage: libc::sockaddr_storage = unsafe { std::mem::zeroed() };
        let start = &raw mut storage;
        let len = match addr {
            SocketAddr::V4(addr) => {
                let v4 = libc::sockaddr_in {
                    sin_family: libc::AF_INET as libc::sa_family_t,
                    sin_port: addr.port().to_be(),
                    sin_addr: libc::in_addr { s_addr: u32::from(*addr.ip()).to_be() },
                    sin_zero: [0; 8],
                };
                // SAFETY: sockaddr_storage is larger than and aligned for every sockaddr.
                unsafe { start.cast::<libc::sockaddr_in>().write(v4) };
                size_of::<libc::sockaddr_in>()
            }
            SocketAddr::V6(addr) => {
                let v6 = libc::sockaddr_in6 {
                    sin6_family: libc::AF_INET6 as libc::sa_family_t,
                    sin6_port: addr.port().to_be(),
                    sin6_flowinfo: addr.flowinfo(),
                    sin6_addr: libc::in6_addr { s6_addr: addr.ip().octets() },
                    sin6_scope_id: addr.scope_id(),
                };
                // SAFETY: as above.
                unsafe { start.cast::<libc::sockaddr_in6>().write(v6) };
                size_of::<libc::sockaddr_in6>()
            }
        };
        Self { storage, len: libc::socklen_t::try_from(len).unwrap_or(0) }
    }
}
