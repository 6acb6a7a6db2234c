//! Disk, file-to-socket and cross-shard measures: rows 4c, 4d and 4e of the table of claims.
//!
//! Each row alternates our way with the others' on the same files and cores, in trials of seconds;
//! ratios are of medians over rounds. CPU of disk work is counted machine-wide, because completions
//! and flushes run in kernel threads that no process is charged for. Invariants: every side makes
//! the same bytes durable before it counts a commit; receivers copy what they receive.
//! Next: `commits`, `files` and `cross` for the rows, `crate::figures` for what becomes of trials.

pub(crate) mod commits;
mod cross;
pub(crate) mod files;
pub(crate) mod shard;

use std::path::PathBuf;

use anyhow::Result;

use crate::figures::Report;

/// What to run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Rows by name: `commits`, `files`, `cold`, `cross`; all when empty.
    pub rows: Vec<String>,
    /// Where files are made; on the disk to be measured.
    pub dir: PathBuf,
    /// Rounds; every round has one trial of each side.
    pub rounds: usize,
    /// Length of a trial.
    pub trial_ns: u64,
    /// First TCP port to use on the loopback; a few follow it.
    pub port: u16,
    /// CPU of our shard and of each peer; the next one receives.
    pub cpu: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            rows: Vec::new(),
            dir: PathBuf::from("target/bench-storage"),
            rounds: 5,
            trial_ns: 2_000_000_000,
            port: 19_380,
            cpu: 0,
        }
    }
}

/// Runs what `options` ask for.
///
/// # Errors
/// The directory is not usable. A row that cannot run is in [`Report::skipped`].
pub fn run(options: &Options) -> Result<Report> {
    std::fs::create_dir_all(&options.dir)?;
    let mut report = Report::new("storage", false);
    report.machine = report.machine.on_data(&options.dir);
    type Row = (&'static str, fn(&Options, &mut Report));
    let rows: [Row; 4] = [
        ("commits", commits::run),
        ("files", files::run),
        ("cold", files::run_cold),
        ("cross", cross::run),
    ];
    for (name, run) in rows {
        if options.rows.is_empty() || options.rows.iter().any(|row| row == name) {
            run(options, &mut report);
        }
    }
    Ok(report)
}
