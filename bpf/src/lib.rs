//! Faults on a running Linux host, and what its packets say: the libraries of `chaos` and `netprobe`.
//!
//! A fault is an eBPF program, or a setting of the kernel, that is undone however the process ends: what the kernel
//! drops with the process is left to it, and the rest is in a journal that a watchdog and the next start read.
//! Each program checks its own deadline. Nothing of the engine or its services is used here. Next: `fault`, `packet`, `keeper`.

pub mod abi;
pub mod cgroup;
#[cfg(target_arch = "x86_64")]
pub mod clock;
pub mod delay_line;
pub mod device;
pub mod disk;
pub mod doctor;
pub mod error;
pub mod experiment;
pub mod fault;
pub mod faults;
pub mod groups;
pub mod keeper;
pub mod limit;
pub mod link;
pub mod metrics;
pub mod netlink;
pub mod netns;
pub mod pins;
pub mod programs;
pub mod rate;
pub mod registry;
pub mod say;
pub mod scenario;
pub mod select;
pub mod spec;
pub mod sysctl;
pub mod time;
pub mod undo;
