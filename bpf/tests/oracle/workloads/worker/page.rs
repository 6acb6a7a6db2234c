//! A page of numbers that a worker and its parent share. Outlives either.
#![expect(unsafe_code, reason = "memory that two processes share is mapped by a system call")]

use std::fs::File;
use std::os::fd::AsRawFd as _;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

/// One of its numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Field {
    /// The phase that the parent wants.
    Go,
    /// The one that is done.
    Done,
    /// The worker has begun.
    Ready,
    /// Calls that came back well.
    Ops,
    Failed,
    /// Of the last that failed.
    Errno,
    /// Between two calls, in nanoseconds.
    Longest,
    /// When the last came back.
    Last,
    Begin,
    End,
    /// Time of processors in the phase.
    Cpu,
    /// What can be seen of the calls, if the worker looks itself.
    Effects,
    /// Calls that did a part of what they were asked for.
    Short,
    /// And those that did something else.
    Wrong,
    /// Of a clock against the kernel's, in nanoseconds.
    ShiftLeast,
    ShiftMost,
    /// Of another clock.
    Elsewhere,
    /// Reads of a clock that were before the last.
    Back,
    /// Of a clock, in millionths.
    Speed,
}

const FIELDS: usize = 19;
const LEN: usize = 4096;

pub(crate) struct Page(&'static [AtomicU64; FIELDS]);

impl Page {
    pub(crate) fn create(path: &Path) -> Self {
        let file = File::create_new(path).expect("a new file");
        file.set_len(LEN as u64).expect("room");
        drop(file);
        Self::open(path)
    }

    pub(crate) fn open(path: &Path) -> Self {
        let file = File::options().read(true).write(true).open(path).expect("the parent made it");
        let (protection, fd) = (libc::PROT_READ | libc::PROT_WRITE, file.as_raw_fd());
        // SAFETY: a new mapping of a file that is as long; nothing else knows its address. It is never unmapped.
        let at =
            unsafe { libc::mmap(std::ptr::null_mut(), LEN, protection, libc::MAP_SHARED, fd, 0) };
        assert_ne!(at, libc::MAP_FAILED, "memory");
        // SAFETY: aligned to a page, long enough, mapped for ever, any bytes are numbers, and all access is atomic.
        Self(unsafe { &*at.cast::<[AtomicU64; FIELDS]>() })
    }

    pub(crate) fn get(&self, field: Field) -> u64 {
        self.0[field as usize].load(Ordering::Acquire)
    }

    pub(crate) fn set(&self, field: Field, value: u64) {
        self.0[field as usize].store(value, Ordering::Release);
    }

    /// As for a new worker.
    pub(crate) fn clear(&self) {
        for field in self.0 {
            field.store(0, Ordering::Release);
        }
    }

    /// As for a new phase.
    pub(crate) fn clear_figures(&self) {
        for field in &self.0[Field::Ops as usize..] {
            field.store(0, Ordering::Release);
        }
    }
}
