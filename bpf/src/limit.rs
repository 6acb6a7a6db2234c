//! Resource limits of another process (`prlimit`): the soft one, so that nobody needs a right to raise it again.
//!
//! Next: `undo`, `faults::resource`.

use std::fs;

use rustix::process::{Pid, Resource, Rlimit, prlimit};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::registry::Process;

/// What is limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Limited {
    /// Descriptors.
    Files,
    /// Bytes of a file that is written.
    FileSize,
    /// Bytes of memory that is locked, or registered with the kernel.
    LockedMemory,
    /// Bytes of addresses.
    AddressSpace,
}

/// A limit; none is no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limit {
    /// The one in force.
    pub soft: Option<u64>,
    /// The most that the process may raise it to.
    pub hard: Option<u64>,
}

impl Limited {
    const fn resource(self) -> Resource {
        match self {
            Self::Files => Resource::Nofile,
            Self::FileSize => Resource::Fsize,
            Self::LockedMemory => Resource::Memlock,
            Self::AddressSpace => Resource::As,
        }
    }

    /// As `/proc/PID/limits` names it.
    const fn label(self) -> &'static str {
        match self {
            Self::Files => "Max open files",
            Self::FileSize => "Max file size",
            Self::LockedMemory => "Max locked memory",
            Self::AddressSpace => "Max address space",
        }
    }

    /// That of a process.
    ///
    /// # Errors
    /// It is gone.
    pub fn of(self, process: Process) -> Result<Limit> {
        let path = format!("/proc/{}/limits", process.pid);
        let text = fs::read_to_string(&path).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix(self.label()));
        let mut words = line.unwrap_or_default().split_whitespace().map(|word| match word {
            "unlimited" => Some(None),
            number => number.parse().ok().map(Some),
        });
        match (words.next().flatten(), words.next().flatten()) {
            (Some(soft), Some(hard)) => Ok(Limit { soft, hard }),
            _ => Err(Error::failed(format!("read {path}: no {:?} in it", self.label()))),
        }
    }

    /// Sets that of a process; whether it is there.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn set(self, process: Process, limit: Limit) -> Result<bool> {
        let pid = i32::try_from(process.pid).ok().and_then(Pid::from_raw);
        if pid.is_none() || !process.is_alive() {
            return Ok(false);
        }
        let new = Rlimit { current: limit.soft, maximum: limit.hard };
        match prlimit(pid, self.resource(), new) {
            Ok(_) => Ok(true),
            Err(rustix::io::Errno::SRCH) => Ok(false),
            Err(error) => Err(Error::failed(format!(
                "limit {:?} of process {}: {error}",
                self.label(),
                process.pid
            ))),
        }
    }
}
