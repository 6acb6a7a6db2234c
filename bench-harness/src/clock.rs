//! The clocks of the harness: monotonic time, wall time, and the CPU clocks of this and of other
//! processes.
//!
//! Why one place: the harness is the only program here that measures others, so it reads clocks
//! directly. Invariants: all values are nanoseconds. Next: `process` for what else is read of a
//! server under test.

use nix::sys::time::TimeSpec;
use nix::time::{
    ClockId, ClockNanosleepFlags, clock_getcpuclockid, clock_gettime, clock_nanosleep,
};
use nix::unistd::Pid;

/// One second.
pub const SECOND_NS: u64 = 1_000_000_000;
/// One millisecond.
pub const MILLISECOND_NS: u64 = 1_000_000;
/// One microsecond.
pub const MICROSECOND_NS: u64 = 1_000;

fn to_ns(time: TimeSpec) -> u64 {
    u64::try_from(time.tv_sec()).unwrap_or(0) * SECOND_NS
        + u64::try_from(time.tv_nsec()).unwrap_or(0)
}

fn read(clock: ClockId) -> u64 {
    clock_gettime(clock).map_or(0, to_ns)
}

/// Monotonic time.
#[must_use]
pub fn mono_ns() -> u64 {
    read(ClockId::CLOCK_MONOTONIC)
}

/// Microseconds since the Unix epoch.
#[must_use]
pub fn unix_us() -> u64 {
    read(ClockId::CLOCK_REALTIME) / 1_000
}

/// CPU time of the calling thread.
#[must_use]
pub fn thread_cpu_ns() -> u64 {
    read(ClockId::CLOCK_THREAD_CPUTIME_ID)
}

/// CPU time of all threads of process `pid`, those that ended included; `None` when it is gone.
///
/// Read from the process's CPU clock, which the kernel brings up to date for threads that run at
/// this moment; `/proc/<pid>/schedstat` lags by up to a tick.
#[must_use]
pub fn process_cpu_ns(pid: u32) -> Option<u64> {
    let pid = Pid::from_raw(i32::try_from(pid).ok()?);
    let clock = clock_getcpuclockid(pid).ok()?;
    clock_gettime(clock).ok().map(to_ns)
}

/// Waits.
pub fn sleep_ns(ns: u64) {
    let seconds = i64::try_from(ns / SECOND_NS).unwrap_or(i64::MAX);
    let rest = i64::try_from(ns % SECOND_NS).unwrap_or(0);
    let time = TimeSpec::new(seconds, rest);
    // An early return through a signal only shortens a pause whose condition is checked again.
    let _ = clock_nanosleep(ClockId::CLOCK_MONOTONIC, ClockNanosleepFlags::empty(), &time);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_process_has_a_cpu_clock_that_advances_with_its_work() {
        let mut child = std::process::Command::new("sh")
            .args(["-c", "while :; do :; done"])
            .spawn()
            .expect("sh starts");
        let before = process_cpu_ns(child.id()).expect("it runs");
        let deadline = mono_ns() + 5 * SECOND_NS;
        let mut used = 0;
        while used < 10 * MILLISECOND_NS && mono_ns() < deadline {
            sleep_ns(5 * MILLISECOND_NS);
            used = process_cpu_ns(child.id()).expect("it runs") - before;
        }
        child.kill().expect("ours to kill");
        child.wait().expect("it ends");
        assert!(used >= 10 * MILLISECOND_NS, "{used} ns");
        assert_eq!(process_cpu_ns(child.id()), None);
    }
}
