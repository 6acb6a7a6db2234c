//! Processes under test: started on their core, measured from outside, stopped by their id.
//!
//! Why from outside: a peer has no agent of ours in it; its CPU clock, its memory map and the
//! kernel's counters say what a request costs. Invariants: a [`Server`] that is dropped is dead and
//! reaped, and what it kept is gone, also when this process is interrupted; children inherit the
//! core they belong on, so no thread of theirs ever ran elsewhere; nothing is killed that was not
//! started here. Next: `start`, `usage`, `counters`; `peers` for what is started.

mod counters;
mod guard;
mod start;
mod usage;

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

pub use counters::{Counted, Counters, Lacks};
pub use start::{Launch, Server};
pub use usage::Usage;

/// Real-time priority of both sides with `--fifo`.
const FIFO_PRIORITY: &str = "10";

/// The nice value of who takes only what is left.
const LOWEST_PRIORITY: i32 = 19;

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

/// Gives all threads of `pid` the lowest priority of normal tasks; those they start inherit it.
///
/// # Errors
/// It is gone.
pub fn make_nice(pid: u32) -> Result<()> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task"))
        .with_context(|| format!("threads of process {pid}"))?;
    for task in tasks {
        let name = task.context("a thread")?.file_name();
        let task = name.to_str().and_then(|name| name.parse().ok());
        let task = task.and_then(rustix::process::Pid::from_raw);
        // setpriority(2) takes a thread here, whatever its name says.
        rustix::process::setpriority_process(task, LOWEST_PRIORITY)
            .with_context(|| format!("setpriority of a thread of process {pid}"))?;
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

/// Where distributions put servers, which not every user has on PATH.
const SYSTEM_DIRS: [&str; 2] = ["/usr/sbin", "/usr/local/sbin"];

/// The file of a program: as it is where it holds a slash, else from PATH or a system's directory.
#[must_use]
pub fn find(program: &str) -> Option<PathBuf> {
    let is_there = |path: &Path| path.is_file();
    if program.contains('/') {
        return Some(PathBuf::from(program)).filter(|path| is_there(path));
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs = std::env::split_paths(&path).chain(SYSTEM_DIRS.map(PathBuf::from));
    dirs.map(|dir| dir.join(program)).find(|path| is_there(path))
}

/// What a program says of itself.
#[derive(Clone, Debug)]
pub struct Said {
    /// On standard output.
    pub out: String,
    /// On standard error.
    pub error: String,
    /// How it ended.
    pub status: std::process::ExitStatus,
}

/// Runs a program to its end.
///
/// # Errors
/// It is not there, or cannot be started.
pub fn said(program: &str, args: &[&str]) -> Result<Said> {
    let Some(path) = find(program) else { bail!("{program} is not installed") };
    match Command::new(path).args(args).stdin(Stdio::null()).output() {
        Ok(output) => Ok(Said {
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            error: String::from_utf8_lossy(&output.stderr).into_owned(),
            status: output.status,
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            bail!("{program} is not installed")
        }
        Err(error) => bail!("{program}: {error}"),
    }
}

/// The first line a program prints for `--version`, or why it cannot be had.
///
/// # Errors
/// The program is not there, or fails.
pub fn first_line(program: &str, args: &[&str]) -> Result<String> {
    let said = said(program, args)?;
    let line = said.out.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
    if line.is_empty() {
        bail!("{program} {}: {}, no output", args.join(" "), said.status);
    }
    Ok(line.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_on_the_path_and_beside_it() {
        let sh = find("sh").expect("a shell");
        assert_eq!(find(&sh.to_string_lossy()), Some(sh));
        assert_eq!(find("no-such-program"), None);
        assert_eq!(find("/no/such/program"), None);
        assert!(first_line("no-such-program", &[]).is_err());
        assert_eq!(first_line("echo", &["a", "b"]).expect("echo"), "a b");
    }
}
