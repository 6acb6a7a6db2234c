//! An io_uring of a worker: one request at a time, by the system calls themselves (io_uring_setup(2), linux/io_uring.h).
#![expect(unsafe_code, reason = "the ring is memory that is shared with the kernel")]

use std::ffi::CString;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

/// Entries of the queue.
const ENTRIES: u32 = 4;
/// Words of `struct io_uring_params`, and of what is read of them.
const PARAMS: usize = 30;
const FEATURES: usize = 5;
const SQ_TAIL: usize = 11;
const SQ_MASK: usize = 12;
const SQ_ARRAY: usize = 16;
const CQ_HEAD: usize = 20;
const CQ_TAIL: usize = 21;
const CQ_MASK: usize = 22;
const CQ_CQES: usize = 25;
/// Both rings are one mapping.
const FEAT_SINGLE_MMAP: u32 = 1;
const OFF_SQ_RING: i64 = 0;
const OFF_SQES: i64 = 0x1000_0000;
const ENTER_GETEVENTS: u32 = 1;
const RING_LEN: usize = 4096;

const NOP: u8 = 0;
const WRITEV: u8 = 2;
const FSYNC: u8 = 3;
const ACCEPT: u8 = 13;
const OPENAT: u8 = 18;
const READ: u8 = 22;
const WRITE: u8 = 23;
const SEND: u8 = 26;
const RECV: u8 = 27;

/// A request.
#[derive(Clone, Copy, Default)]
struct Request {
    opcode: u8,
    fd: RawFd,
    offset: u64,
    address: u64,
    len: u32,
    flags: u32,
}

pub(crate) struct Uring {
    fd: OwnedFd,
    ring: Mapping,
    entries: Mapping,
    params: [u32; PARAMS],
}

/// Memory that is shared with the kernel.
struct Mapping(*mut u8);

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: it was mapped with this length, and nothing points into it any more.
        unsafe { libc::munmap(self.0.cast(), RING_LEN) };
    }
}

impl Mapping {
    fn new(fd: &OwnedFd, offset: i64) -> Self {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping, of a ring that is not longer than a page.
        let at = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                RING_LEN,
                protection,
                libc::MAP_SHARED | libc::MAP_POPULATE,
                fd.as_raw_fd(),
                offset,
            )
        };
        assert_ne!(at, libc::MAP_FAILED, "memory");
        Self(at.cast())
    }

    fn word(&self, at: u32) -> &AtomicU32 {
        let at = at as usize;
        assert!(at + 4 <= RING_LEN && at.is_multiple_of(4), "the kernel says where");
        // SAFETY: within the mapping.
        let word = unsafe { self.0.add(at) };
        // SAFETY: aligned, mapped as long as `self`, and the kernel's access is atomic too.
        unsafe { &*word.cast::<AtomicU32>() }
    }
}

fn result(code: i64) -> Result<i64, i32> {
    if code < 0 {
        Err(std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO))
    } else {
        Ok(code)
    }
}

impl Uring {
    pub(crate) fn new() -> Result<Self, i32> {
        let mut params = [0_u32; PARAMS];
        // SAFETY: the parameters are as long as the kernel writes.
        let code = unsafe { libc::syscall(libc::SYS_io_uring_setup, ENTRIES, params.as_mut_ptr()) };
        let fd = RawFd::try_from(result(code)?).expect("a descriptor");
        // SAFETY: the kernel has just made it, and nobody else has it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        assert_ne!(params[FEATURES] & FEAT_SINGLE_MMAP, 0, "kernel 5.4 at least");
        let ring = Mapping::new(&fd, OFF_SQ_RING);
        let entries = Mapping::new(&fd, OFF_SQES);
        Ok(Self { fd, ring, entries, params })
    }

    /// Submits one, and waits for it.
    fn run(&mut self, request: Request) -> Result<(), i32> {
        self.told(request).map(drop)
    }

    /// The same; what it tells.
    fn told(&mut self, request: Request) -> Result<usize, i32> {
        let words = [
            u32::from(request.opcode),
            request.fd.cast_unsigned(),
            request.offset as u32,
            (request.offset >> 32) as u32,
            request.address as u32,
            (request.address >> 32) as u32,
            request.len,
            request.flags,
        ];
        let tail = self.ring.word(self.params[SQ_TAIL]);
        let at = tail.load(Ordering::Relaxed);
        let index = at & self.ring.word(self.params[SQ_MASK]).load(Ordering::Relaxed);
        for (number, word) in (0_u32..16).zip(words.into_iter().chain([0; 8])) {
            self.entries.word(index * 64 + number * 4).store(word, Ordering::Relaxed);
        }
        self.ring.word(self.params[SQ_ARRAY] + index * 4).store(index, Ordering::Relaxed);
        tail.store(at + 1, Ordering::Release);
        // SAFETY: what the request points to outlives the call, which waits for its completion.
        let code = unsafe {
            libc::syscall(
                libc::SYS_io_uring_enter,
                self.fd.as_raw_fd(),
                1,
                1,
                ENTER_GETEVENTS,
                std::ptr::null::<u8>(),
                0,
            )
        };
        result(code)?;
        let head = self.ring.word(self.params[CQ_HEAD]);
        let at = head.load(Ordering::Relaxed);
        assert_ne!(at, self.ring.word(self.params[CQ_TAIL]).load(Ordering::Acquire), "one is done");
        let index = at & self.ring.word(self.params[CQ_MASK]).load(Ordering::Relaxed);
        let completed = self.ring.word(self.params[CQ_CQES] + index * 16 + 8);
        let code = completed.load(Ordering::Relaxed).cast_signed();
        head.store(at + 1, Ordering::Release);
        usize::try_from(code).map_err(|_| -code)
    }

    /// Bytes that were written.
    pub(crate) fn written(&mut self, fd: RawFd, bytes: &[u8], offset: u64) -> Result<usize, i32> {
        let (address, len) = (bytes.as_ptr() as u64, u32::try_from(bytes.len()).expect("short"));
        self.told(Request { opcode: WRITE, fd, offset, address, len, flags: 0 })
    }

    /// Bytes that were read.
    pub(crate) fn read(&mut self, fd: RawFd, bytes: &mut [u8], offset: u64) -> Result<usize, i32> {
        let (address, len) =
            (bytes.as_mut_ptr() as u64, u32::try_from(bytes.len()).expect("short"));
        self.told(Request { opcode: READ, fd, offset, address, len, flags: 0 })
    }

    pub(crate) fn nop(&mut self) -> Result<(), i32> {
        self.run(Request { opcode: NOP, fd: -1, ..Request::default() })
    }

    pub(crate) fn write(&mut self, fd: RawFd, bytes: &[u8], offset: u64) -> Result<(), i32> {
        let (address, len) = (bytes.as_ptr() as u64, u32::try_from(bytes.len()).expect("short"));
        self.run(Request { opcode: WRITE, fd, offset, address, len, flags: 0 })
    }

    pub(crate) fn writev(&mut self, fd: RawFd, bytes: &[u8], offset: u64) -> Result<(), i32> {
        let parts = [bytes.as_ptr() as u64, bytes.len() as u64];
        let address = parts.as_ptr() as u64;
        self.run(Request { opcode: WRITEV, fd, offset, address, len: 1, flags: 0 })
    }

    pub(crate) fn fsync(&mut self, fd: RawFd) -> Result<(), i32> {
        self.run(Request { opcode: FSYNC, fd, ..Request::default() })
    }

    pub(crate) fn send(&mut self, fd: RawFd, bytes: &[u8]) -> Result<(), i32> {
        let (address, len) = (bytes.as_ptr() as u64, u32::try_from(bytes.len()).expect("short"));
        self.run(Request { opcode: SEND, fd, address, len, ..Request::default() })
    }

    pub(crate) fn receive(&mut self, fd: RawFd) -> Result<(), i32> {
        let mut bytes = [0_u8; 16];
        let address = bytes.as_mut_ptr() as u64;
        self.run(Request { opcode: RECV, fd, address, len: 16, ..Request::default() })
    }

    /// Accepts one, and closes it with the worker: a test has few.
    pub(crate) fn accept(&mut self, fd: RawFd) -> Result<(), i32> {
        self.run(Request { opcode: ACCEPT, fd, ..Request::default() })
    }

    /// Makes a file, which stays open as well.
    pub(crate) fn create(&mut self, path: &Path) -> Result<(), i32> {
        let path = CString::new(path.as_os_str().as_bytes()).expect("no zero");
        let flags = (libc::O_CREAT | libc::O_WRONLY | libc::O_CLOEXEC).cast_unsigned();
        let address = path.as_ptr() as u64;
        self.run(Request {
            opcode: OPENAT,
            fd: libc::AT_FDCWD,
            address,
            len: 0o600,
            flags,
            offset: 0,
        })
    }
}
