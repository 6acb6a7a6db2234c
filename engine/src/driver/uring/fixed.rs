//! Buffers registered with the ring, which spare the kernel pinning their pages per operation, and
//! the memory that read-ahead reads into.
//!
//! Invariants: an index belongs to at most one live [`DirectBuf`]; the kernel pins the pages of a
//! registered buffer, so freeing one without unregistering it wastes them until its index is
//! reused or the ring closes, and harms nothing else.

use std::cell::UnsafeCell;

use io_uring::{IoUring, opcode, squeue, types};

use crate::buf::DirectBuf;
use crate::driver::Fd;

/// Buffers a ring registers at most.
const REGISTERED_MAX: u16 = 64;

/// Which indexes are free; `None` until the first registration.
#[derive(Debug, Default)]
pub(super) struct Fixed {
    free: Option<Vec<u16>>,
}

impl Fixed {
    /// Registers `buf`, or hands it back as it is: operations work with both.
    pub(super) fn register(&mut self, ring: &IoUring, mut buf: DirectBuf) -> DirectBuf {
        let free = self.free.get_or_insert_with(|| {
            let made = ring.submitter().register_buffers_sparse(u32::from(REGISTERED_MAX));
            made.map_or_else(|_| Vec::new(), |()| (0..REGISTERED_MAX).rev().collect())
        });
        if buf.registered().is_some() {
            return buf;
        }
        let Some(index) = free.pop() else { return buf };
        if update(ring, index, buf.start(), buf.len()) {
            buf.set_registered(Some(index));
        } else {
            free.push(index);
        }
        buf
    }

    /// Gives the index of `buf` back.
    pub(super) fn unregister(&mut self, ring: &IoUring, mut buf: DirectBuf) -> DirectBuf {
        if let (Some(index), Some(free)) = (buf.registered(), &mut self.free) {
            update(ring, index, std::ptr::null_mut(), 0);
            buf.set_registered(None);
            free.push(index);
        }
        buf
    }
}

fn update(ring: &IoUring, index: u16, start: *mut u8, len: usize) -> bool {
    let vector = [libc::iovec { iov_base: start.cast(), iov_len: len }];
    // SAFETY: the vector names the memory of a live buffer (or none); the kernel pins its pages,
    // so they stay even if the buffer is freed first, and only operations that own the buffer use
    // its index.
    unsafe { ring.submitter().register_buffers_update(u32::from(index), &vector, None) }.is_ok()
}

const DISCARD_BYTES: usize = 16 * 1024;
const DISCARD_VECTORS: usize = 256;

/// Memory that is only ever written, by the kernel, and never read by anyone.
struct Discard(UnsafeCell<[u8; DISCARD_BYTES]>);

// SAFETY: no reference to the bytes is ever made; only the kernel writes them.
unsafe impl Sync for Discard {}

static DISCARD: Discard = Discard(UnsafeCell::new([0; DISCARD_BYTES]));

/// One read's vector: the same few pages over and over.
struct Vectors([libc::iovec; DISCARD_VECTORS]);

// SAFETY: never changed; the pointers in it lead to memory that lives for ever.
unsafe impl Sync for Vectors {}

static VECTORS: Vectors = Vectors(
    [libc::iovec { iov_base: DISCARD.0.get().cast(), iov_len: DISCARD_BYTES }; DISCARD_VECTORS],
);

/// A read on a kernel worker whose bytes go nowhere: what stays is the page cache.
pub(super) fn read_ahead(fd: Fd, offset: u64, len: usize) -> squeue::Entry {
    let vectors = len.div_ceil(DISCARD_BYTES).clamp(1, DISCARD_VECTORS);
    let vectors = u32::try_from(vectors).unwrap_or(1);
    let read = opcode::Readv::new(types::Fd(fd.0), VECTORS.0.as_ptr(), vectors).offset(offset);
    read.build().flags(squeue::Flags::ASYNC)
}
