//! Figures of trials by name: sides that alternate, ratios that are claimed, and the table of it all.
//!
//! For measures whose figures differ from row to row; `compare` and `report` are for loads of requests.
//! Invariants: a ratio stands with its interval; a side that failed is named, not left blank.
//! Next: `storage` and `broker`, whose rows are made of this.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::Result;
use serde::Serialize;

use crate::machine::Machine;
use crate::stats::{self, Ratio};
use crate::{report, rounds};

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

/// A figure of ours that is claimed by itself.
#[derive(Clone, Debug, Serialize)]
pub struct Limit {
    /// Which figure.
    pub figure: &'static str,
    /// Whether it must be this much at least, else at most.
    pub at_least: bool,
    /// How much.
    pub bar: f64,
    /// The median; NaN without a trial.
    pub found: f64,
}

/// One cell of the table.
#[derive(Clone, Debug, Serialize)]
pub struct Cell {
    /// The row's number in the table of claims, and what is varied.
    pub name: String,
    /// Ours first.
    pub sides: Vec<Side>,
    /// Ratios with their bars.
    pub claims: Vec<Claim>,
    /// Figures of ours with their bars.
    pub limits: Vec<Limit>,
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
pub(crate) type Contender<'a> = (&'static str, Box<dyn Fn() -> Result<Figures> + 'a>);

/// Runs the sides in alternation; one that fails is reported and left out.
pub(crate) fn alternate(
    name: &str,
    rounds: usize,
    contenders: &[Contender<'_>],
    skipped: &mut Vec<String>,
) -> Cell {
    let sides = contenders.iter().map(|(name, _)| Side { name, trials: Vec::new() });
    let rounds = rounds::run(contenders.len(), rounds, |side| {
        let (who, trial) = &contenders[side];
        trial().map_err(|error| skipped.push(format!("{name}, {who}: {error:#}"))).ok()
    });
    let (repeated, disturbed) = (rounds.repeated, rounds.disturbed);
    let mut sides: Vec<Side> = sides.collect();
    for round in rounds.kept {
        for (side, figures) in sides.iter_mut().zip(round) {
            side.trials.extend(figures);
        }
    }
    Cell {
        name: name.to_owned(),
        sides,
        claims: Vec::new(),
        limits: Vec::new(),
        repeated,
        disturbed,
    }
}

impl Cell {
    /// Claims that our `figure` is at most `bar` times that of side `peer`.
    pub(crate) fn claim(&mut self, figure: &'static str, peer: usize, bar: f64) {
        let Some((ours, theirs)) = self.sides.first().zip(self.sides.get(peer)) else { return };
        let pairs: Vec<(f64, f64)> =
            theirs.values(figure).into_iter().zip(ours.values(figure)).collect();
        let found = stats::ratio_of_medians(&pairs, 1);
        self.claims.push(Claim { figure, peer: theirs.name, bar, found });
    }

    /// Claims that our `figure` is at least, or at most, `bar`.
    pub(crate) fn limit(&mut self, figure: &'static str, at_least: bool, bar: f64) {
        let found = self.sides.first().map_or(f64::NAN, |ours| ours.median(figure));
        self.limits.push(Limit { figure, at_least, bar, found });
    }
}

impl Report {
    /// Nothing found yet, on this machine; in a network namespace of its own or not.
    #[must_use]
    pub fn new(own_network: bool) -> Self {
        let machine = Machine::describe(own_network, false);
        Self { machine, cells: Vec::new(), skipped: Vec::new() }
    }

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
            for Limit { figure, at_least, bar, found } in &cell.limits {
                let side = if *at_least { "at least" } else { "at most" };
                let _ = writeln!(text, "  {figure}: {found:.2}, bar {side} {bar}");
            }
        }
        for skipped in &self.skipped {
            let _ = writeln!(text, "\nskipped: {skipped}");
        }
        text
    }
}
