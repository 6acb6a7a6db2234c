//! How long a shard may run before others on its core.
//!
//! Why: the kernel finishes some of a shard's work on threads of its own: what follows a durable direct
//! write on a disk without FUA runs on a worker of the core that the disk interrupts, `fdatasync` on a worker of the
//! ring. Where another shard keeps that core busy, such a worker waits for the end of that shard's slice, and in practice for the
//! next tick: 285 durable writes of 16 KiB a second instead of 5,500. A thread whose slice is shorter than that of
//! the one that runs comes at once (PREEMPT_SHORT, Linux 6.12), so shards ask for a longer one than the
//! kernel's workers have. On a core of its own a shard does not notice. See `docs/decisions/0015-slices.md`.
//!
//! Invariants: only the length of the slice changes, and only under the fair policies; it is not handed
//! on, so that workers the ring starts from this thread keep the system's.

use std::io;

/// Asks for slices of `ns` for this thread: 100 µs to 100 ms, else the nearest of these. The policy and nice
/// value stay. Returns whether it applies: not under a real-time policy, which knows no slices of this kind. Kernels
/// before 6.12 take it without effect.
///
/// # Errors
/// As sched_setattr(2), for instance ENOSYS or EPERM under a seccomp filter.
pub fn set_slice(ns: u64) -> io::Result<bool> {
    let mut attr = read()?;
    let is_fair = [libc::SCHED_OTHER, libc::SCHED_BATCH]
        .contains(&i32::try_from(attr.sched_policy).unwrap_or(-1));
    if !is_fair {
        return Ok(false);
    }
    attr.sched_flags |= libc::SCHED_FLAG_RESET_ON_FORK as u64;
    attr.sched_runtime = ns;
    // SAFETY: sched_setattr(2) reads a sched_attr whose `size` is its own, and it outlives the call.
    let set = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attr, 0) };
    if set == 0 { Ok(true) } else { Err(io::Error::last_os_error()) }
}

/// The slice of this thread; zero where the kernel does not tell.
///
/// # Errors
/// As sched_getattr(2).
pub fn slice_ns() -> io::Result<u64> {
    read().map(|attr| attr.sched_runtime)
}

fn read() -> io::Result<libc::sched_attr> {
    let size = size_of::<libc::sched_attr>() as u32;
    let mut attr = libc::sched_attr {
        size,
        sched_policy: 0,
        sched_flags: 0,
        sched_nice: 0,
        sched_priority: 0,
        sched_runtime: 0,
        sched_deadline: 0,
        sched_period: 0,
    };
    // SAFETY: sched_getattr(2) writes at most `size` bytes, which `attr` has, and it outlives the call.
    let got = unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attr, size, 0) };
    if got == 0 { Ok(attr) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::{set_slice, slice_ns};

    #[test]
    fn a_thread_gets_the_slice_it_asks_for_and_its_children_do_not() {
        let before_ns = slice_ns().expect("sched_getattr");
        if before_ns == 0 {
            println!("skipped: this kernel does not tell slices (Linux 6.12)");
            return;
        }
        assert!(set_slice(20_000_000).expect("sched_setattr"), "tests run under a fair policy");
        assert_eq!(slice_ns().expect("sched_getattr"), 20_000_000);
        #[expect(
            clippy::disallowed_methods,
            reason = "a child of this thread is what is asked for"
        )]
        let child = std::thread::spawn(slice_ns).join().expect("it does not panic");
        assert_eq!(child.expect("sched_getattr"), before_ns, "handed on");
        set_slice(u64::MAX).expect("the nearest that there is");
        assert_eq!(slice_ns().expect("sched_getattr"), 100_000_000);
    }
}
