//! The two system calls the io-uring crate does not offer in the shape needed here: an enter that
//! keeps using the registered ring descriptor, and its registration.

use std::io;

/// `struct io_uring_getevents_arg` (linux/io_uring.h).
#[repr(C)]
struct GetEventsArg {
    sigmask: u64,
    sigmask_len: u32,
    min_wait_us: u32,
    timeout: u64,
}

const _: () = assert!(size_of::<GetEventsArg>() == 24);

/// `struct io_uring_rsrc_update` (linux/io_uring.h).
#[repr(C)]
struct RingFdUpdate {
    offset: u32,
    reserved: u32,
    data: u64,
}

const _: () = assert!(size_of::<RingFdUpdate>() == 16);

const ENTER_GETEVENTS: u32 = 1;
const ENTER_EXT_ARG: u32 = 1 << 3;
const ENTER_REGISTERED_RING: u32 = 1 << 4;
const REGISTER_RING_FDS: u32 = 20;

/// How this thread names its ring to the kernel.
#[derive(Clone, Copy, Debug)]
pub(super) struct RingName {
    fd: i32,
    flags: u32,
}

impl RingName {
    pub(super) const fn plain(fd: i32) -> Self {
        Self { fd, flags: 0 }
    }

    /// Registers the ring's descriptor with this thread (Linux 5.18), which saves a descriptor
    /// look-up per enter; stays with the plain one where the kernel refuses.
    pub(super) fn register(fd: i32) -> Self {
        let mut update =
            RingFdUpdate { offset: u32::MAX, reserved: 0, data: u64::from(fd.unsigned_abs()) };
        // SAFETY: io_uring_register(IORING_REGISTER_RING_FDS) reads and writes one
        // io_uring_rsrc_update, which `update` mirrors and which outlives the call.
        let registered = unsafe {
            libc::syscall(libc::SYS_io_uring_register, fd, REGISTER_RING_FDS, &raw mut update, 1)
        };
        match i32::try_from(update.offset) {
            Ok(index) if registered == 1 => Self { fd: index, flags: ENTER_REGISTERED_RING },
            _ => Self::plain(fd),
        }
    }

    pub(super) const fn is_registered(self) -> bool {
        self.flags != 0
    }

    /// Submits `to_submit` entries and waits for `min_complete` completions or `timeout_ns`.
    /// Events are always collected: with DEFER_TASKRUN nothing runs otherwise.
    pub(super) fn enter(
        self,
        to_submit: u32,
        min_complete: u32,
        timeout_ns: Option<u64>,
    ) -> io::Result<u32> {
        let timeout = timeout_ns.map(|ns| libc::timespec {
            tv_sec: i64::try_from(ns / 1_000_000_000).unwrap_or(i64::MAX),
            tv_nsec: (ns % 1_000_000_000).cast_signed(),
        });
        let arg = GetEventsArg {
            sigmask: 0,
            sigmask_len: 8,
            min_wait_us: 0,
            timeout: timeout.as_ref().map_or(0, |timeout| std::ptr::from_ref(timeout) as u64),
        };
        let flags = ENTER_GETEVENTS | ENTER_EXT_ARG | self.flags;
        // SAFETY: the ring exists (its owner holds it), and `arg` and the timespec it points to
        // are live for the call; the kernel copies both.
        let entered = unsafe {
            libc::syscall(
                libc::SYS_io_uring_enter,
                self.fd,
                to_submit,
                min_complete,
                flags,
                &raw const arg,
                size_of::<GetEventsArg>(),
            )
        };
        u32::try_from(entered).map_err(|_| io::Error::last_os_error())
    }
}
