//! Host tuning with a way back: the library of `tune`.
//!
//! A table of knobs says what is wanted, why, and after whom; a host is compared with it, changed and changed back. Everything
//! is read and written through files below a root, so a recorded host serves as well as the running one. No process is
//! started but the one that is measured. Nothing of the engine is used here; `shardd` uses [`startup_notes`].
//! Next: `knob`, `tree`, `check`.

#![forbid(unsafe_code)]

pub mod apply;
pub mod cgroup;
pub mod check;
pub mod cpus;
pub mod device;
pub mod error;
pub mod explain;
pub mod export;
pub mod figure;
pub mod format;
pub mod gains;
pub mod host;
pub mod irqbalance;
pub mod journal;
pub mod knob;
pub mod knobs;
pub mod load;
pub mod measure;
mod napi;
mod netlink;
mod netns;
pub mod notes;
pub mod record;
pub mod report;
pub mod revert;
pub mod stats;
pub mod table;
#[cfg(test)]
mod testing;
pub mod tree;

pub use notes::startup_notes;
