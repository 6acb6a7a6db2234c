//! Figures of trials by name: sides that alternate, ratios that are claimed, and the table of it all.
//!
//! For measures whose figures differ from row to row; `compare` and `report` are for loads of requests.
//! Invariants: a ratio stands with its interval; a side that failed is named, not left blank.
//! Next: `storage` and `broker`, whose rows are made of this.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::machine::Machine;
use crate::report;
use crate::rounds::{self, Noise};
use crate::stats::{self, Ratio};

/// Figures of one trial, by name and unit.
pub type Figures = BTreeMap<&'static str, f64>;

/// One side of a cell: its trials.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Side {
    /// Who.
    pub name: String,
    /// One per round; what is not a number is left out.
    pub trials: Vec<BTreeMap<String, f64>>,
}

impl Side {
    /// Median of a figure over the trials.
    #[must_use]
    pub fn median(&self, figure: &str) -> f64 {
        stats::median(&self.values(figure))
    }

    /// A figure of all trials.
    #[must_use]
    pub fn values(&self, figure: &str) -> Vec<f64> {
        self.trials.iter().filter_map(|trial| trial.get(figure).copied()).collect()
    }
}

/// A ratio that is claimed: ours over a peer's.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Claim {
    /// Which figure.
    pub figure: String,
    /// Against whom.
    pub peer: String,
    /// At most this.
    pub bar: f64,
    /// What was found; `None` without a trial of both.
    pub found: Option<Ratio>,
}

/// A figure of ours that is claimed by itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Limit {
    /// Which figure.
    pub figure: String,
    /// Whether it must be this much at least, else at most.
    pub at_least: bool,
    /// How much.
    pub bar: f64,
    /// The median; `None` without a trial.
    pub found: Option<f64>,
}

/// One cell of the table.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Cell {
    /// The row's number in the table of claims, and what is varied.
    pub name: String,
    /// Ours first.
    pub sides: Vec<Side>,
    /// Ratios with their bars.
    pub claims: Vec<Claim>,
    /// Figures of ours with their bars.
    pub limits: Vec<Limit>,
    /// Rounds that were run again because of noise.
    pub repeated: usize,
    /// Rounds that count although there was some.
    pub disturbed: usize,
    /// Which noise.
    #[serde(default)]
    pub noise: Noise,
}

/// Everything a run found.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// [`report::SCHEMA`].
    pub schema: String,
    /// Version of this program.
    pub bench_version: String,
    /// The command that made it.
    pub command: String,
    /// What was measured: `storage`, `broker`.
    pub subject: String,
    /// Where.
    pub machine: Machine,
    /// Who took part, each with its version.
    #[serde(default)]
    pub versions: Vec<String>,
    /// What.
    pub cells: Vec<Cell>,
    /// Rows that could not be run, and why.
    pub skipped: Vec<String>,
}

/// A way of doing something: its name and one trial of it.
pub(crate) type Contender<'a> = (&'static str, Box<dyn Fn() -> Result<Figures> + 'a>);

/// Runs the sides in alternation; one that fails is reported and left out.
pub(crate) fn alternate(
    name: &str,
    rounds: usize,
    contenders: &[Contender<'_>],
    skipped: &mut Vec<String>,
) -> Cell {
    let sides =
        contenders.iter().map(|(name, _)| Side { name: (*name).to_owned(), trials: Vec::new() });
    let rounds = rounds::run(contenders.len(), rounds, |side| {
        let (who, trial) = &contenders[side];
        trial().map_err(|error| skipped.push(format!("{name}, {who}: {error:#}"))).ok()
    });
    let (repeated, disturbed, noise) = (rounds.repeated, rounds.disturbed, rounds.noise);
    let mut sides: Vec<Side> = sides.collect();
    for round in rounds.kept {
        for (side, figures) in sides.iter_mut().zip(round) {
            side.trials.extend(figures.map(named));
        }
    }
    Cell {
        name: name.to_owned(),
        sides,
        claims: Vec::new(),
        limits: Vec::new(),
        repeated,
        disturbed,
        noise,
    }
}

fn named(figures: Figures) -> BTreeMap<String, f64> {
    let finite = figures.into_iter().filter(|(_, value)| value.is_finite());
    finite.map(|(name, value)| (name.to_owned(), value)).collect()
}

impl Cell {
    /// Claims that our `figure` is at most `bar` times that of side `peer`.
    pub(crate) fn claim(&mut self, figure: &'static str, peer: usize, bar: f64) {
        let Some((ours, theirs)) = self.sides.first().zip(self.sides.get(peer)) else { return };
        let pairs: Vec<(f64, f64)> =
            theirs.values(figure).into_iter().zip(ours.values(figure)).collect();
        let found = stats::paired_ratio(&pairs, 1).filter(|ratio| ratio.high.is_finite());
        let (figure, peer) = (figure.to_owned(), theirs.name.clone());
        self.claims.push(Claim { figure, peer, bar, found });
    }

    /// Claims that our `figure` is at least, or at most, `bar`.
    pub(crate) fn limit(&mut self, figure: &'static str, at_least: bool, bar: f64) {
        let found = self.sides.first().map(|ours| ours.median(figure));
        let found = found.filter(|found| found.is_finite());
        self.limits.push(Limit { figure: figure.to_owned(), at_least, bar, found });
    }
}

impl Report {
    /// Nothing found yet of `subject`, on this machine; in a network namespace of its own or not.
    #[must_use]
    pub fn new(subject: &str, own_network: bool) -> Self {
        Self {
            schema: report::SCHEMA.to_owned(),
            bench_version: env!("CARGO_PKG_VERSION").to_owned(),
            command: report::command(),
            subject: subject.to_owned(),
            machine: Machine::describe(own_network, false),
            versions: Vec::new(),
            cells: Vec::new(),
            skipped: Vec::new(),
        }
    }

    /// Notes how the machine is now that the run is over, and who took part.
    pub fn close(&mut self) {
        for version in &self.versions {
            if let Some((name, version)) = version.split_once(": ") {
                self.machine.took_part(name, version);
            }
        }
        self.machine.close();
    }

    /// The report as text.
    #[must_use]
    pub fn table(&self) -> String {
        let machine = &self.machine;
        let mut text = format!(
            "{} x {}, Linux {}, load {}\n",
            machine.cpus, machine.cpu, machine.kernel, machine.load
        );
        text.push_str(&machine.fingerprint_lines());
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
            if let Some(note) = report::disturbance(cell.repeated, cell.disturbed, &cell.noise) {
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
            for Limit { figure, at_least, bar, found } in &cell.limits {
                let side = if *at_least { "at least" } else { "at most" };
                let _ = match found {
                    Some(found) => writeln!(text, "  {figure}: {found:.2}, bar {side} {bar}"),
                    None => writeln!(text, "  {figure}: not measured, bar {side} {bar}"),
                };
            }
        }
        for skipped in &self.skipped {
            let _ = writeln!(text, "\nskipped: {skipped}");
        }
        text
    }
}
