//! The kernel's counters of a process that somebody else started: system calls, instructions,
//! cycles, by perf_event_open(2).
//!
//! System calls are those of the tracepoint `raw_syscalls:sys_enter`; its number is in tracefs,
//! which is read where it is mounted and else mounted without a place in the tree (fsopen(2),
//! fsmount(2)), so that nothing is left behind. Why not during what is timed: a system call that is
//! counted takes a slower way into the kernel, so trials count after the recorded time.
//! Invariants: every thread there is at the beginning is counted, and those they start; a count
//! that cannot be had is absent with its reason, never zero. Next: `load::trial`, which divides by
//! replies.

use std::fs;
use std::io;

use perf_event::events::{Event, Hardware, Tracepoint};
use perf_event::{Builder, Counter};
use rustix::fs::{Mode, OFlags, openat};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};
use serde::Serialize;

/// Where tracefs is mounted when it is.
const TRACEFS: [&str; 2] = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];
/// The number of the tracepoint that every system call passes, in tracefs.
const SYS_ENTER: &str = "events/raw_syscalls/sys_enter/id";

/// What was counted; `None` is what cannot be counted here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// System calls.
    pub syscalls: Option<u64>,
    /// Instructions, in the kernel too.
    pub instructions: Option<u64>,
    /// Cycles, in the kernel too.
    pub cycles: Option<u64>,
}

impl Counted {
    /// The difference to an earlier reading.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let less = |now: Option<u64>, then: Option<u64>| Some(now?.saturating_sub(then?));
        Self {
            syscalls: less(self.syscalls, earlier.syscalls),
            instructions: less(self.instructions, earlier.instructions),
            cycles: less(self.cycles, earlier.cycles),
        }
    }
}

/// Why something cannot be counted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Lacks {
    /// System calls.
    pub syscalls: Option<String>,
    /// Instructions.
    pub instructions: Option<String>,
    /// Cycles.
    pub cycles: Option<String>,
}

/// One event on all threads of a process.
type Event1 = Result<Vec<Counter>, String>;

/// Counters of one process, which count from the moment they are made.
#[derive(Debug)]
pub struct Counters {
    syscalls: Event1,
    instructions: Event1,
    cycles: Event1,
}

impl Counters {
    /// Begins to count what `pid` does.
    #[must_use]
    pub fn of(pid: u32) -> Self {
        let syscalls = sys_enter().map(Tracepoint::with_id).and_then(|event| count(pid, event));
        Self {
            syscalls,
            instructions: count(pid, Hardware::INSTRUCTIONS),
            cycles: count(pid, Hardware::CPU_CYCLES),
        }
    }

    /// What was counted until now.
    pub fn read(&mut self) -> Counted {
        Counted {
            syscalls: total(&mut self.syscalls),
            instructions: total(&mut self.instructions),
            cycles: total(&mut self.cycles),
        }
    }

    /// Whether nothing can be counted.
    #[must_use]
    pub const fn lack_all(&self) -> bool {
        self.syscalls.is_err() && self.instructions.is_err() && self.cycles.is_err()
    }

    /// What cannot be counted, and why.
    #[must_use]
    pub fn lacks(&self) -> Lacks {
        let reason = |event: &Event1| event.as_ref().err().cloned();
        Lacks {
            syscalls: reason(&self.syscalls),
            instructions: reason(&self.instructions),
            cycles: reason(&self.cycles),
        }
    }
}

fn total(event: &mut Event1) -> Option<u64> {
    let counters = event.as_mut().ok()?;
    counters.iter_mut().map(|counter| counter.read().ok()).sum()
}

/// Counts `event` on every thread of `pid`.
fn count(pid: u32, event: impl Event + Copy) -> Event1 {
    let threads = fs::read_dir(format!("/proc/{pid}/task"))
        .map_err(|error| format!("/proc/{pid}/task: {error}"))?;
    let mut counters = Vec::new();
    let mut refused = None;
    for thread in threads.flatten() {
        let Some(thread) = thread.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let counter = Builder::new(event)
            .observe_pid(thread)
            .any_cpu()
            .inherit(true)
            .include_kernel()
            .enabled(true)
            .build();
        match counter {
            Ok(counter) => counters.push(counter),
            // A thread that has just ended, or one of the kernel's, has nothing to count.
            Err(error) => refused = Some(error),
        }
    }
    match refused {
        Some(error) if counters.is_empty() => Err(explain(&error)),
        _ => Ok(counters),
    }
}

fn explain(error: &io::Error) -> String {
    let why = match error.kind() {
        io::ErrorKind::NotFound => "no such counter: the machine shows no PMU",
        io::ErrorKind::Unsupported => "not supported here: the machine shows no PMU",
        io::ErrorKind::PermissionDenied => {
            "needs CAP_PERFMON, or kernel.perf_event_paranoid of at most 1 (-1 for tracepoints)"
        }
        _ => return format!("perf_event_open: {error}"),
    };
    format!("perf_event_open: {error}; {why}")
}

/// The number of the tracepoint.
fn sys_enter() -> Result<u64, String> {
    let mounted =
        TRACEFS.iter().find_map(|dir| fs::read_to_string(format!("{dir}/{SYS_ENTER}")).ok());
    let text = match mounted {
        Some(text) => text,
        None => detached().map_err(|error| {
            format!("tracefs is neither mounted at {} nor can it be: {error}", TRACEFS[0])
        })?,
    };
    text.trim().parse().map_err(|_| format!("{SYS_ENTER} of tracefs is {:?}", text.trim()))
}

/// The same from a mount that nobody else sees and that goes with its descriptor.
fn detached() -> io::Result<String> {
    let context = fsopen("tracefs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_create(&context)?;
    let flags = FsMountFlags::FSMOUNT_CLOEXEC;
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let root = fsmount(&context, flags, attributes)?;
    let file = openat(&root, SYS_ENTER, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    io::read_to_string(fs::File::from(file))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{self, MILLISECOND_NS, SECOND_NS};
    use std::io::{BufRead, BufReader, Write};
    use std::process::{Command, Stdio};

    /// A child that reads a byte at a time, so that each line costs it a known number of calls.
    #[test]
    fn system_calls_of_another_process_are_counted_from_outside() {
        let mut child = Command::new("sh")
            .args(["-c", "while read line; do echo $line; done"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("sh starts");
        let mut to = child.stdin.take().expect("a pipe");
        let mut from = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut line = String::new();
        let mut echo = |times: usize| {
            for _ in 0..times {
                to.write_all(b"12345678\n").expect("it reads");
                line.clear();
                from.read_line(&mut line).expect("it answers");
                assert_eq!(line, "12345678\n");
            }
        };
        echo(1);
        let mut counters = Counters::of(child.id());
        let lacks = counters.lacks();
        echo(100);
        clock::sleep_ns(20 * MILLISECOND_NS);
        let counted = counters.read();
        drop(to);
        child.wait().expect("it ends");
        match (counted.syscalls, lacks.syscalls) {
            // A read for each byte of a pipe and a write for each line, and nothing else.
            (Some(calls), None) => assert_eq!(calls, 100 * 10, "{counted:?}"),
            (None, Some(why)) => println!("skipped: {why}"),
            other => panic!("{other:?}"),
        }
        match (counted.instructions, lacks.instructions) {
            (Some(instructions), None) => assert!(instructions > 100_000, "{counted:?}"),
            (None, Some(why)) => println!("skipped: {why}"),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn threads_that_start_later_are_counted_too() {
        let mut counters = Counters::of(std::process::id());
        let Some(before) = counters.read().syscalls else {
            println!("skipped: {:?}", counters.lacks().syscalls);
            return;
        };
        #[expect(clippy::disallowed_methods, reason = "a thread that starts later is the test")]
        let thread = std::thread::spawn(|| {
            for _ in 0..1000 {
                let _ = rustix::process::getppid();
            }
        });
        thread.join().expect("it ends");
        let deadline_ns = clock::mono_ns() + 5 * SECOND_NS;
        let calls = || counters.read().syscalls.unwrap_or(0).saturating_sub(before);
        let mut calls = calls;
        while calls() < 1000 && clock::mono_ns() < deadline_ns {
            clock::sleep_ns(MILLISECOND_NS);
        }
        assert!(calls() >= 1000);
    }

    #[test]
    fn nothing_is_mounted_afterwards() {
        let mounts = || fs::read_to_string("/proc/self/mounts").expect("it is there");
        let before = mounts();
        let first = sys_enter();
        assert_eq!(first, sys_enter());
        assert_eq!(before, mounts());
    }

    #[test]
    fn a_process_that_is_gone_has_no_counts() {
        let mut counters = Counters::of(u32::MAX >> 1);
        assert_eq!(counters.read(), Counted::default());
        assert!(counters.lacks().syscalls.is_some() && counters.lacks().cycles.is_some());
    }
}
