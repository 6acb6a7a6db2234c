//! What the probes cost: the kernel's own account of each program's run time.
//!
//! The account costs two reads of a clock a run itself, which are within its figure: some 50 ns where a program takes 10 to 80.
//! What it says of a program that does nothing is that part. What it does not have is the call of the program, as much again.
//! A program that runs seldom finds its memory in no cache, and takes ten times as long and more: `tests/netprobe/cost.rs`
//! has them hot. Invariant: it is kept only while a [`Account`] lives. Next: `mod`.
#![expect(unsafe_code, reason = "libbpf-rs has no calls for the statistics of programs")]

use std::os::fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd};

use libbpf_rs::ProgramMut;
use serde::Serialize;

use super::Probe;
use crate::error::{During as _, Error, Result};
use crate::programs;

/// Runs of the empty program, by which the account's own part is measured.
const EMPTY_RUNS: u32 = 20_000;

/// The kernel keeps account, of all programs of the host.
#[derive(Debug)]
pub struct Account {
    _fd: OwnedFd,
}

/// What a program did, and how long it took.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Cost {
    /// Name, which is that of its tracepoint.
    pub program: String,
    /// Times that it ran.
    pub runs: u64,
    /// In sum.
    pub run_time_ns: u64,
    /// Times that it did not, since it ran on that processor already.
    pub missed: u64,
}

impl Cost {
    /// The mean; 0 of none.
    #[must_use]
    pub fn ns_per_run(&self) -> u64 {
        self.run_time_ns.checked_div(self.runs).unwrap_or(0)
    }
}

impl Account {
    /// Begins to keep it.
    ///
    /// # Errors
    /// The kernel is older than 5.8, or this process may not.
    pub fn open() -> Result<Self> {
        // SAFETY: the call takes a number and no pointer.
        let fd = unsafe { libbpf_sys::bpf_enable_stats(libbpf_sys::BPF_STATS_RUN_TIME) };
        if fd < 0 {
            let error = std::io::Error::from_raw_os_error(-fd);
            return Err(Error::unsupported(format!(
                "keep account of programs: {error}; needs CAP_SYS_ADMIN and Linux 5.8"
            )));
        }
        // SAFETY: the kernel has just made it for this call, and nobody else has it.
        Ok(Self { _fd: unsafe { OwnedFd::from_raw_fd(fd) } })
    }

    /// What the account says of a run of a program that does nothing, in nanoseconds: its own cost.
    ///
    /// # Errors
    /// The kernel refuses the program.
    pub fn own_ns(&self) -> Result<u64> {
        let object = programs::load("empty")?;
        let program = programs::program(&object, "empty")?;
        for _ in 0..EMPTY_RUNS {
            let input = libbpf_rs::ProgramInput::default();
            program.test_run(input).during(|| "run a program that does nothing".to_owned())?;
        }
        Ok(info(&program)
            .and_then(|info| info.run_time_ns.checked_div(info.run_cnt))
            .unwrap_or_default())
    }
}

/// What the kernel says of a program.
pub(super) fn info(program: &ProgramMut<'_>) -> Option<libbpf_sys::bpf_prog_info> {
    let mut info = libbpf_sys::bpf_prog_info::default();
    let mut len = u32::try_from(size_of_val(&info)).ok()?;
    // SAFETY: the descriptor lives as long as `program`; `info` has `len` bytes, and asks for no arrays.
    let failed = unsafe {
        libbpf_sys::bpf_prog_get_info_by_fd(
            program.as_fd().as_raw_fd(),
            &raw mut info,
            &raw mut len,
        )
    };
    (failed == 0).then_some(info)
}

impl Probe {
    /// What each of its programs has cost since account is kept.
    #[must_use]
    pub fn costs(&self) -> Vec<Cost> {
        let of = |program: ProgramMut<'_>| {
            let info = info(&program)?;
            Some(Cost {
                program: program.name().to_string_lossy().into_owned(),
                runs: info.run_cnt,
                run_time_ns: info.run_time_ns,
                missed: info.recursion_misses,
            })
        };
        self.programs().filter_map(of).collect()
    }
}
