//! As much of io_uring as a test needs: rings of operations without data, by the system calls themselves.
//!
//! The engine's crate for it is the engine's alone. Layout: include/uapi/linux/io_uring.h. Invariants: the three mappings
//! live as long as the ring; only this thread touches it.
#![expect(unsafe_code, reason = "the kernel shares memory with a ring's owner")]

use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::ptr::{NonNull, null_mut};
use std::sync::atomic::{AtomicU32, Ordering};

const SQE_BYTES: usize = 64;
const OFFSET_SQ: libc::off_t = 0;
const OFFSET_CQ: libc::off_t = 0x800_0000;
const OFFSET_SQES: libc::off_t = 0x1000_0000;
/// Words of `struct io_uring_params`.
const PARAMS_WORDS: usize = 30;

/// Shared memory, unmapped in the end.
struct Mapping {
    at: NonNull<u8>,
    len: usize,
}

impl Mapping {
    fn new(fd: &OwnedFd, offset: libc::off_t, len: usize) -> Self {
        let (access, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED);
        // SAFETY: a new mapping at an address of the kernel's choice touches no other memory.
        let at = unsafe { libc::mmap(null_mut(), len, access, flags, fd.as_raw_fd(), offset) };
        assert_ne!(at, libc::MAP_FAILED, "map the ring: {}", std::io::Error::last_os_error());
        Self { at: NonNull::new(at.cast()).expect("not at 0"), len }
    }

    /// The word at an offset in bytes.
    fn word(&self, offset: u32) -> &AtomicU32 {
        let offset = offset as usize;
        assert!(offset.is_multiple_of(4) && offset + 4 <= self.len, "within the mapping");
        // SAFETY: the offset is within the mapping, by the assertion.
        let at = unsafe { self.at.add(offset) };
        // SAFETY: aligned and within a mapping that lives as long as `self`; the kernel changes it atomically.
        unsafe { AtomicU32::from_ptr(at.as_ptr().cast()) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's own, and no reference to it outlives it.
        unsafe { libc::munmap(self.at.as_ptr().cast(), self.len) };
    }
}

/// An operation: the first two bytes of its entry. All else is zero, but for the descriptor, which is none.
#[derive(Clone, Copy, Default)]
pub(crate) struct Op {
    pub(crate) opcode: u8,
    pub(crate) flags: u8,
}

/// Reads, here from no file, which fails.
pub(crate) const READ: u8 = 22;
/// `IOSQE_IO_LINK`: the next one waits for it, and is cancelled if it fails.
pub(crate) const LINK: u8 = 1 << 2;
/// `IOSQE_ASYNC`: done by a worker thread from the start.
pub(crate) const ASYNC: u8 = 1 << 4;

/// A ring.
pub(crate) struct Ring {
    sq: Mapping,
    cq: Mapping,
    sqes: Mapping,
    // `struct io_uring_params` after setup.
    params: [u32; PARAMS_WORDS],
    fd: OwnedFd,
}

impl Ring {
    /// With room for so many submissions; none where io_uring is forbidden.
    pub(crate) fn open(entries: u32) -> Option<Self> {
        let mut params = [0_u32; PARAMS_WORDS];
        // SAFETY: `params` has the size of `struct io_uring_params`, and is all zero as the kernel wants it.
        let fd = unsafe { libc::syscall(libc::SYS_io_uring_setup, entries, params.as_mut_ptr()) };
        let fd = i32::try_from(fd).ok().filter(|fd| *fd >= 0)?;
        // SAFETY: the kernel has just made it, and nobody else has it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let (sq_entries, cq_entries) = (params[0] as usize, params[1] as usize);
        // `sq_off.array` is behind all else in the one, `cq_off.cqes` in the other.
        let sq = Mapping::new(&fd, OFFSET_SQ, params[16] as usize + sq_entries * 4);
        let cq = Mapping::new(&fd, OFFSET_CQ, params[25] as usize + cq_entries * 16);
        let sqes = Mapping::new(&fd, OFFSET_SQES, sq_entries * SQE_BYTES);
        Some(Self { sq, cq, sqes, params, fd })
    }

    /// Submits so many operations that do nothing.
    pub(crate) fn submit_nops(&mut self, count: u32) {
        self.submit(&vec![Op::default(); count as usize]);
    }

    /// Submits operations.
    pub(crate) fn submit(&mut self, ops: &[Op]) {
        let count = u32::try_from(ops.len()).expect("a few");
        assert!(count <= self.params[0], "they find room");
        let (tail, array) = (self.sq.word(self.params[11]), self.params[16]);
        let before = tail.load(Ordering::Relaxed);
        for (index, op) in (before..before.wrapping_add(count)).zip(ops) {
            let slot = index & (self.params[0] - 1);
            let first = u32::from(op.opcode) | u32::from(op.flags) << 8;
            self.sqes.word(slot * 64).store(first, Ordering::Relaxed);
            // The second word is the descriptor, of which these have none.
            self.sqes.word(slot * 64 + 4).store(u32::MAX, Ordering::Relaxed);
            self.sq.word(array + slot * 4).store(slot, Ordering::Relaxed);
        }
        tail.store(before.wrapping_add(count), Ordering::Release);
        let (enter, fd, none) = (libc::SYS_io_uring_enter, self.fd.as_raw_fd(), 0_usize);
        // SAFETY: the call takes numbers, and no signal mask.
        let submitted = unsafe { libc::syscall(enter, fd, count, 0, 0, none, 0) };
        assert_eq!(submitted, i64::from(count), "{}", std::io::Error::last_os_error());
    }

    /// Takes what has completed; how many.
    pub(crate) fn reap(&mut self) -> u32 {
        let (head, tail) = (self.cq.word(self.params[20]), self.cq.word(self.params[21]));
        let end = tail.load(Ordering::Acquire);
        let completed = end.wrapping_sub(head.load(Ordering::Relaxed));
        head.store(end, Ordering::Release);
        completed
    }
}
