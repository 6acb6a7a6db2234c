//! Brokers beside each other: rows 4, 5 and 10 of the broker's table of claims, and workloads of one's own.
//!
//! Each trial starts a fresh broker on its core, stores with pre-encoded requests from the other core, and reads back what was
//! stored. Sides alternate within a round. On a virtual machine the first touch of a page that the host took back is charged to
//! whoever copies into it, so before each trial as much memory is filled and given back as the trial will need
//! (`--touch-mb`): all sides then meet pages that are there. Next: [`workload`] for what is asked, `trial` for one trial.

mod load;
mod peers;
mod rows;
mod speak;
mod trial;
pub mod workload;

use std::path::PathBuf;

use anyhow::{Result, ensure};

use crate::figures::Report;
use crate::process;
use workload::Workload;

/// What to run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Rows by number; all when empty and no workload is given.
    pub rows: Vec<String>,
    /// A workload by name or file, instead of rows.
    pub workload: Option<String>,
    /// Brokers by name, ours included; all when empty.
    pub sides: Vec<String>,
    /// Rounds; every round has one trial of each broker.
    pub rounds: usize,
    /// Recorded seconds of a trial, instead of the workload's.
    pub seconds: Option<f64>,
    /// Where brokers keep their logs; on the disk to be measured.
    pub dir: PathBuf,
    /// First TCP port to use on the loopback.
    pub port: u16,
    /// Core of the brokers.
    pub server_cpu: usize,
    /// Core of the load.
    pub client_cpu: usize,
    /// Memory that is filled and given back before each trial, in MB.
    pub touch_mb: usize,
    /// Size of the old topic of row 5, in MB.
    pub old_mb: usize,
}

/// Rows of `bench broker`, with what each shows.
pub const ROWS: &[(&str, &str)] = &[
    (
        "4",
        "messages of 100 B and 1 KiB, synced before the acknowledgement: rate and CPU per GB beside other brokers",
    ),
    ("4b", "half a million messages of 100 B a second: time to the acknowledgement"),
    ("5", "a consumer reads an old topic from disk: what that does to producers"),
    (
        "10",
        "stored and read at the end, open loop: time to the acknowledgement and to the consumer",
    ),
];

/// Brokers that can be compared: name, what it is, and its version or why it is not there.
pub fn sides() -> impl Iterator<Item = (&'static str, &'static str, Result<String>)> {
    peers::PEERS.iter().map(|peer| (peer.name, peer.about, peer.version()))
}

/// Everyone who is asked for, with what their programs say of themselves.
fn versions(options: &Options) -> Vec<String> {
    let wanted =
        |name: &str| options.sides.is_empty() || options.sides.iter().any(|side| side == name);
    let said = |version: Result<String>| version.unwrap_or_else(|_| "not present".to_owned());
    let sides = sides().filter(|(name, ..)| wanted(name));
    sides.map(|(name, _, version)| format!("{name}: {}", said(version))).collect()
}

/// Runs what `options` ask for, and tells `progress` what it is at.
///
/// # Errors
/// There is no such row, workload or broker. A trial that fails is in [`Report::skipped`].
pub fn run(options: &Options, own_network: bool, progress: &mut dyn FnMut(&str)) -> Result<Report> {
    for row in &options.rows {
        ensure!(ROWS.iter().any(|(name, _)| name == row), "there is no row {row}");
    }
    process::pin_self(options.client_cpu)?;
    std::fs::create_dir_all(&options.dir)?;
    let mut report = Report::new("broker", own_network);
    report.machine = report.machine.on_data(&options.dir);
    report.versions = versions(options);
    let mut bench = rows::Bench::new(options, report, progress)?;
    match &options.workload {
        Some(name) => bench.workload(name, &Workload::find(name)?),
        None => {
            for (row, _) in ROWS {
                if options.rows.is_empty() || options.rows.iter().any(|wanted| wanted == row) {
                    bench.row(row)?;
                }
            }
        }
    }
    Ok(bench.report)
}
