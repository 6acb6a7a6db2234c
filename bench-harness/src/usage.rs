//! CPU by whom: the machine, one process, kernel threads.
//!
//! The machine's count holds everything that ran, other processes included, in ticks of 10 ms; the
//! sum of the process and all kernel threads leaves other processes out but also misses interrupts
//! that hit an idle CPU. On a quiet machine they agree; on a busy one believe the second.

use std::fs;

use crate::clock;

/// CPU used up to a moment, in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Usage {
    machine_ns: u64,
    kernel_threads_ns: u64,
    process_ns: u64,
    at_ns: u64,
}

/// What /proc counts in.
const TICK_NS: u64 = 10_000_000;
const KTHREADD: &str = "2";

impl Usage {
    /// What was used until now, by process `pid` among others.
    pub(crate) fn of(pid: u32) -> Self {
        Self {
            machine_ns: machine_ns(),
            kernel_threads_ns: kernel_threads_ns(),
            process_ns: clock::process_cpu_ns(pid).unwrap_or(0),
            at_ns: clock::mono_ns(),
        }
    }

    /// Since `before`, in nanoseconds: (machine, the process with kernel threads, the process,
    /// elapsed).
    pub(crate) const fn since(&self, before: &Self) -> (f64, f64, f64, f64) {
        let machine = self.machine_ns.saturating_sub(before.machine_ns);
        let kernel = self.kernel_threads_ns.saturating_sub(before.kernel_threads_ns);
        let process = self.process_ns.saturating_sub(before.process_ns);
        let elapsed = self.at_ns.saturating_sub(before.at_ns);
        (machine as f64, (kernel + process) as f64, process as f64, elapsed as f64)
    }
}

fn machine_ns() -> u64 {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let Some(line) = stat.lines().next() else { return 0 };
    let ticks: Vec<u64> =
        line.split_ascii_whitespace().skip(1).filter_map(|field| field.parse().ok()).collect();
    // user, nice, system, (idle, iowait,) irq, softirq; steal is the host's.
    let busy = [0, 1, 2, 5, 6].into_iter().filter_map(|at| ticks.get(at));
    busy.sum::<u64>() * TICK_NS
}

fn kernel_threads_ns() -> u64 {
    let Ok(entries) = fs::read_dir("/proc") else { return 0 };
    let mut sum = 0;
    for entry in entries.flatten() {
        let path = entry.path();
        let is_kernel = || {
            let stat = fs::read_to_string(path.join("stat")).ok()?;
            // After the name, which may hold anything: state, parent.
            let parent = stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(1)?.to_owned();
            Some(parent == KTHREADD)
        };
        let numeric = entry.file_name().to_string_lossy().bytes().all(|byte| byte.is_ascii_digit());
        if numeric && is_kernel() == Some(true) {
            let schedstat = fs::read_to_string(path.join("schedstat")).unwrap_or_default();
            let run = schedstat.split_ascii_whitespace().next();
            sum += run.and_then(|ns| ns.parse::<u64>().ok()).unwrap_or(0);
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_of_this_process_shows_in_all_counts() {
        let before = Usage::of(std::process::id());
        let until = clock::thread_cpu_ns() + 200_000_000;
        while clock::thread_cpu_ns() < until {
            std::hint::spin_loop();
        }
        let (machine, both, process, elapsed) = Usage::of(std::process::id()).since(&before);
        assert!(process >= 200e6 && both >= process && elapsed >= 200e6);
        assert!(machine >= 150e6, "{machine}");
    }
}
