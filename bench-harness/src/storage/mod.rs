//! Disk, file-to-socket and cross-shard measures: rows 4c, 4d and 4e of the table of claims.
//!
//! Each row alternates our way with the others' on the same files and cores, in trials of seconds;
//! ratios are of medians over rounds. CPU of disk work is counted machine-wide, because completions
//! and flushes run in kernel threads that no process is charged for. Invariants: every side makes
//! the same bytes durable before it counts a commit; receivers copy what they receive.
//! Next: `commits`, `files` and `cross` for the rows, `usage` for how CPU is counted.

mod commits;
mod cross;
mod files;
mod shard;
mod usage;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::Result;
use serde::Serialize;

use crate::machine::Machine;
use crate::stats::{self, Ratio};
use crate::{report, rounds};

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

/// Figures of one trial, by name and unit.
pub type Figures = BTreeMap<&'static str, f64>;

/// One side of a cell: its trials.
#[derive(Clone, Debug, Serialize)]
pub struct Side {
    /// Who.
    pub name: &'static str,
    /// One per round.
    pub trials: Vec<Figures>,
}

impl Side {
    /// Median of a figure over the trials.
    #[must_use]
    pub fn median(&self, figure: &str) -> f64 {
        stats::median(&self.values(figure))
    }

    fn values(&self, figure: &str) -> Vec<f64> {
        self.trials.iter().filter_map(|trial| trial.get(figure).copied()).collect()
    }
}

/// A ratio that is claimed: ours over a peer's.
#[derive(Clone, Debug, Serialize)]
pub struct Claim {
    /// Which figure.
    pub figure: &'static str,
    /// Against whom.
    pub peer: &'static str,
    /// At most this.
    pub bar: f64,
    /// What was found; `None` without a trial of both.
    pub found: Option<Ratio>,
}

/// One cell of the table.
#[derive(Clone, Debug, Serialize)]
pub struct Cell {
    /// The row's number in the table of claims, and what is varied.
    pub name: String,
    /// Ours first.
    pub sides: Vec<Side>,
    /// Bars.
    pub claims: Vec<Claim>,
    /// Rounds that were run again because the hypervisor took the core.
    pub repeated: usize,
    /// Rounds that count although it did.
    pub disturbed: usize,
}

/// Everything a run found.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Where.
    pub machine: Machine,
    /// What.
    pub cells: Vec<Cell>,
    /// Rows that could not be run, and why.
    pub skipped: Vec<String>,
}

/// A way of doing something: its name and one trial of it.
type Contender<'a> = (&'static str, Box<dyn Fn() -> Result<Figures> + 'a>);

/// Runs the sides in alternation; one that fails is reported and left out.
fn alternate(name: &str, rounds: usize, contenders: &[Contender<'_>], report: &mut Report) -> Cell {
    let sides = contenders.iter().map(|(name, _)| Side { name, trials: Vec::new() });
    let rounds = rounds::run(contenders.len(), rounds, |side| {
        let (who, trial) = &contenders[side];
        trial().map_err(|error| report.skipped.push(format!("{name}, {who}: {error:#}"))).ok()
    });
    let (repeated, disturbed) = (rounds.repeated, rounds.disturbed);
    let mut sides: Vec<Side> = sides.collect();
    for round in rounds.kept {
        for (side, figures) in sides.iter_mut().zip(round) {
            side.trials.extend(figures);
        }
    }
    Cell { name: name.to_owned(), sides, claims: Vec::new(), repeated, disturbed }
}

impl Cell {
    /// Claims that our `figure` is at most `bar` times that of side `peer`.
    fn claim(&mut self, figure: &'static str, peer: usize, bar: f64) {
        let Some((ours, theirs)) = self.sides.first().zip(self.sides.get(peer)) else { return };
        let pairs: Vec<(f64, f64)> =
            theirs.values(figure).into_iter().zip(ours.values(figure)).collect();
        let found = stats::ratio_of_medians(&pairs, 1);
        self.claims.push(Claim { figure, peer: theirs.name, bar, found });
    }
}

/// Runs what `options` ask for.
///
/// # Errors
/// The directory is not usable. A row that cannot run is in [`Report::skipped`].
pub fn run(options: &Options) -> Result<Report> {
    std::fs::create_dir_all(&options.dir)?;
    let machine = Machine::describe(false, false);
    let mut report = Report { machine, cells: Vec::new(), skipped: Vec::new() };
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

impl Report {
    /// The report as text.
    #[must_use]
    pub fn table(&self) -> String {
        let machine = &self.machine;
        let mut text = format!(
            "{} x {}, Linux {}, load {}\n",
            machine.cpus, machine.cpu, machine.kernel, machine.load
        );
        for cell in &self.cells {
            // Writing to a string does not fail.
            let _ = writeln!(text, "\n{}", cell.name);
            for side in &cell.sides {
                let _ = write!(text, "  {:28}", side.name);
                for figure in side.trials.first().into_iter().flat_map(BTreeMap::keys) {
                    let _ = write!(text, " {figure} {:.2}", side.median(figure));
                }
                text.push('\n');
            }
            if let Some(note) = report::disturbance(cell.repeated, cell.disturbed) {
                let _ = writeln!(text, "  {note}");
            }
            for claim in &cell.claims {
                let Claim { figure, peer, bar, .. } = claim;
                let _ = match claim.found {
                    Some(Ratio { ratio, low, high, .. }) => writeln!(
                        text,
                        "  {figure}: {ratio:.2} x {peer} [{low:.2}, {high:.2}], bar {bar}"
                    ),
                    None => writeln!(text, "  {figure} against {peer}: not measured"),
                };
            }
        }
        for skipped in &self.skipped {
            let _ = writeln!(text, "\nskipped: {skipped}");
        }
        text
    }
}
