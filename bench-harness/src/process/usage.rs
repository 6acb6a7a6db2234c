//! What `/proc` says of a process: CPU time, time it waited for a core, context switches, memory.
//!
//! Why these: no PMU and no right is needed for them, so they are there for every server everywhere.
//! Invariants: a reading costs no time of the process that is read; what threads that have ended
//! waited is not in it. Next: `counters` for what needs the kernel's counters.

use std::fs;

use anyhow::{Context, Result};

use crate::clock;

/// Counters of a process, to be subtracted from a later reading.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// CPU time of all its threads.
    pub cpu_ns: u64,
    /// Time its threads were runnable but not running: foreign load on its core.
    pub wait_ns: u64,
    /// Times a thread gave up the CPU.
    pub switches_voluntary: u64,
    /// Times a thread lost the CPU.
    pub switches_forced: u64,
}

impl Usage {
    /// What `/proc` says of `pid` now; zeros when it is gone.
    #[must_use]
    pub fn of(pid: u32) -> Self {
        let mut usage = Self { cpu_ns: clock::process_cpu_ns(pid).unwrap_or(0), ..Self::default() };
        for task in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
            let read = |name: &str| fs::read_to_string(task.path().join(name)).unwrap_or_default();
            let wait = read("schedstat").split_whitespace().nth(1).and_then(|ns| ns.parse().ok());
            usage.wait_ns += wait.unwrap_or(0_u64);
            let status = read("status");
            usage.switches_voluntary += number_field(&status, "voluntary_ctxt_switches:");
            usage.switches_forced += number_field(&status, "nonvoluntary_ctxt_switches:");
        }
        usage
    }

    /// The difference to an earlier reading.
    #[must_use]
    pub const fn since(&self, earlier: &Self) -> Self {
        Self {
            cpu_ns: self.cpu_ns.saturating_sub(earlier.cpu_ns),
            wait_ns: self.wait_ns.saturating_sub(earlier.wait_ns),
            switches_voluntary: self.switches_voluntary.saturating_sub(earlier.switches_voluntary),
            switches_forced: self.switches_forced.saturating_sub(earlier.switches_forced),
        }
    }
}

pub(super) fn number_field(text: &str, name: &str) -> u64 {
    text.lines()
        .find_map(|line| line.strip_prefix(name))
        .and_then(|rest| rest.split_whitespace().next())
        .and_then(|number| number.parse().ok())
        .unwrap_or(0)
}

fn kib_field(text: &str, name: &str) -> Option<u64> {
    text.lines()
        .find_map(|line| line.strip_prefix(name))
        .and_then(|rest| rest.split_whitespace().next())
        .and_then(|number| number.parse().ok())
}

/// Resident memory of `pid`, exact (`smaps_rollup`; the counters in `statm` are kept per CPU and
/// lag).
///
/// # Errors
/// The process is gone.
pub(super) fn rss_bytes(pid: u32) -> Result<u64> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = fs::read_to_string(&path).with_context(|| path.clone())?;
    kib_field(&text, "Rss:").map(|kib| kib * 1024).with_context(|| format!("no Rss in {path}"))
}
