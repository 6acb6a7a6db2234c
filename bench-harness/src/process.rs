//! Processes under test: started on their core, measured from outside, stopped by their id.
//!
//! Why from outside: a peer has no agent of ours in it; its CPU clock and its memory map say what
//! a request costs. Invariants: a [`Server`] that is dropped is dead and reaped; children inherit
//! the core they belong on, so no thread of theirs ever ran elsewhere; nothing is killed that was
//! not started here. Next: `peers` for what is started.

use std::fs;
use std::io;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::clock::{self, MILLISECOND_NS, SECOND_NS};

/// How long a server may take to stop after SIGTERM.
const STOP_NS: u64 = 3 * SECOND_NS;
/// Real-time priority of both sides with `--fifo`.
const FIFO_PRIORITY: &str = "10";

/// Binds the calling thread, and what it starts from now on, to CPU `cpu`.
///
/// # Errors
/// There is no such CPU, or the cpuset forbids it.
pub fn pin_self(cpu: usize) -> Result<()> {
    pin_self_to(&[cpu])
}

/// As [`pin_self`], with several CPUs to choose from.
///
/// # Errors
/// None of them may be used.
pub fn pin_self_to(cpus: &[usize]) -> Result<()> {
    let mut set = CpuSet::new();
    for &cpu in cpus {
        set.set(cpu).with_context(|| format!("cpu {cpu}"))?;
    }
    sched_setaffinity(Pid::from_raw(0), &set)
        .with_context(|| format!("sched_setaffinity to {cpus:?}"))
}

/// Gives all threads of `pid` SCHED_FIFO by way of chrt(1).
///
/// # Errors
/// chrt is missing or the right to do so is.
pub fn make_fifo(pid: u32) -> Result<()> {
    let output = Command::new("chrt")
        .args(["-a", "-f", "-p", FIFO_PRIORITY, &pid.to_string()])
        .output()
        .context("chrt (package util-linux)")?;
    if !output.status.success() {
        bail!("chrt: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

/// A program and its arguments, ready to start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandLine {
    /// Program name, looked up on PATH unless it holds a slash.
    pub program: String,
    /// Arguments.
    pub args: Vec<String>,
}

impl std::fmt::Display for CommandLine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.program)?;
        for arg in &self.args {
            if arg.is_empty() { f.write_str(" ''")? } else { write!(f, " {arg}")? }
        }
        Ok(())
    }
}

/// A running server.
#[derive(Debug)]
pub struct Server {
    pid: u32,
    /// `None` when it was not started here; then it is not stopped here either.
    child: Option<Child>,
}

impl Server {
    /// Starts `command` on `cpus`; afterwards this thread is back on `own_cpu`.
    ///
    /// # Errors
    /// The program is missing or cannot be pinned.
    pub fn start(command: &CommandLine, cpus: &[usize], own_cpu: usize) -> Result<Self> {
        pin_self_to(cpus)?;
        let log = fs::File::create(log_path()).context("server log")?;
        let child = Command::new(&command.program)
            .args(&command.args)
            .current_dir(std::env::temp_dir())
            .stdin(Stdio::null())
            .stdout(log.try_clone().context("server log")?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("start {command}"));
        pin_self(own_cpu)?;
        let child = child?;
        Ok(Self { pid: child.id(), child: Some(child) })
    }

    /// A server somebody else started, to be measured only.
    ///
    /// # Errors
    /// There is no such process.
    pub fn watch(pid: u32) -> Result<Self> {
        clock::process_cpu_ns(pid).with_context(|| format!("no process {pid}"))?;
        Ok(Self { pid, child: None })
    }

    /// Its process id.
    #[must_use]
    pub const fn pid(&self) -> u32 {
        self.pid
    }

    /// Its exit status and last words, when it has ended.
    pub fn ended(&mut self) -> Option<String> {
        let status = self.child.as_mut()?.try_wait().ok().flatten()?;
        let log = fs::read_to_string(log_path()).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let last = lines[lines.len().saturating_sub(5)..].join(" | ");
        Some(format!("{status}: {last}"))
    }

    /// A reading of its counters.
    #[must_use]
    pub fn usage(&self) -> Usage {
        Usage::of(self.pid())
    }

    /// Resident memory, exact (`smaps_rollup`; the counters in `statm` are kept per CPU and lag).
    ///
    /// # Errors
    /// The process is gone.
    pub fn rss_bytes(&self) -> Result<u64> {
        let path = format!("/proc/{}/smaps_rollup", self.pid());
        let text = fs::read_to_string(&path).with_context(|| path.clone())?;
        kib_field(&text, "Rss:").map(|kib| kib * 1024).with_context(|| format!("no Rss in {path}"))
    }

    /// Ends it: SIGTERM, and SIGKILL when that takes too long. Says whether it went by itself.
    pub fn stop(&mut self) -> bool {
        let Some(child) = &mut self.child else { return true };
        if matches!(child.try_wait(), Ok(Some(_))) {
            return true;
        }
        if let Ok(pid) = i32::try_from(self.pid) {
            // ESRCH means that it has just ended, which the wait below notices.
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
        let deadline = clock::mono_ns() + STOP_NS;
        while clock::mono_ns() < deadline {
            if matches!(child.try_wait(), Ok(Some(_))) {
                return true;
            }
            clock::sleep_ns(2 * MILLISECOND_NS);
        }
        // Both fail only when it has ended meanwhile.
        let _ = child.kill();
        let _ = child.wait();
        false
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

fn log_path() -> std::path::PathBuf {
    std::env::temp_dir().join(format!("bench-server-{}.log", std::process::id()))
}

/// Removes what servers wrote.
pub fn remove_log() {
    // Absent when no server was started.
    let _ = fs::remove_file(log_path());
}

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

fn number_field(text: &str, name: &str) -> u64 {
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

/// The first line a program prints for `--version`, or why it cannot be had.
///
/// # Errors
/// The program is not there, or fails.
pub fn first_line(program: &str, args: &[&str]) -> Result<String> {
    let output = match Command::new(program).args(args).stdin(Stdio::null()).output() {
        Ok(output) => output,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            bail!("{program} is not installed")
        }
        Err(error) => bail!("{program}: {error}"),
    };
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
    if line.is_empty() {
        bail!("{program} {}: {}, no output", args.join(" "), output.status);
    }
    Ok(line.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> CommandLine {
        CommandLine { program: "sh".to_owned(), args: vec!["-c".to_owned(), script.to_owned()] }
    }

    #[test]
    fn a_server_is_pinned_measured_and_stopped() {
        let mut server = Server::start(&sh("while :; do :; done"), &[0], 0).expect("sh starts");
        let before = server.usage();
        clock::sleep_ns(50 * MILLISECOND_NS);
        let used = server.usage().since(&before);
        assert!(used.cpu_ns > 0);
        assert!(server.rss_bytes().expect("it runs") > 4096);
        let status = fs::read_to_string(format!("/proc/{}/status", server.pid())).expect("runs");
        assert_eq!(number_field(&status, "Cpus_allowed_list:"), 0);
        assert!(server.ended().is_none());
        assert!(server.stop());
        assert!(clock::process_cpu_ns(server.pid()).is_none());
    }

    #[test]
    fn one_that_ignores_sigterm_is_killed_and_a_missing_one_is_an_error() {
        let script = "trap '' TERM; while :; do sleep 0.01; done";
        let mut server = Server::start(&sh(script), &[0], 0).expect("sh starts");
        clock::sleep_ns(200 * MILLISECOND_NS);
        assert!(!server.stop());
        let missing = CommandLine { program: "no-such-program".to_owned(), args: Vec::new() };
        assert!(Server::start(&missing, &[0], 0).is_err());
        assert!(first_line("no-such-program", &[]).is_err());
    }
}
