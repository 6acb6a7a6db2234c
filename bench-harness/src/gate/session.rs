//! What a gate takes of a saved report: for each side of each cell, the figures of every round.
//!
//! Invariants: figures of one round stand at the same place in every side, as far as the report kept them so; a report of which
//! samples are not kept is refused by name. Next: `judge`.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};

use crate::compare::{Outcome, SideOutcome};
use crate::figures;
use crate::fingerprint::Fingerprint;
use crate::load::trial::Limit;
use crate::peers;
use crate::report::Report;
use crate::report::json::{self, Saved};

/// How a second run of the same server is called: its name and this.
const AGAIN: &str = " again";

/// A saved report.
#[derive(Clone, Debug, Default)]
pub struct Session {
    /// Of its machine.
    pub fingerprint: Option<Fingerprint>,
    /// What was measured.
    pub subject: String,
    /// What moved the load's bytes.
    pub transport: String,
    /// Cells in which equal servers came out apart.
    pub void: Vec<String>,
    /// The cells.
    pub cells: Vec<Cell>,
}

/// One experiment.
#[derive(Clone, Debug, Default)]
pub struct Cell {
    /// Its row and name.
    pub name: String,
    /// How long a trial is, in words.
    pub timing: String,
    /// Figures with a budget where none are given.
    pub claimed: Vec<String>,
    /// Who took part.
    pub sides: Vec<Side>,
}

/// One of those who took part.
#[derive(Clone, Debug, Default)]
pub struct Side {
    /// Its name.
    pub label: String,
    /// Its version and how it was built; empty where that is not known.
    pub version: String,
    /// Built from this source tree.
    pub own: bool,
    /// Why it did not run, or no longer.
    pub failed: Option<String>,
    /// Figures of each round.
    pub rounds: Vec<BTreeMap<String, f64>>,
    /// The load was the limit in more than half of its trials.
    pub client_bound: bool,
}

impl Session {
    /// That in the text of a file.
    ///
    /// # Errors
    /// It is no report whose samples are kept.
    pub fn parse(text: &str) -> Result<Self> {
        let value: serde_json::Value = serde_json::from_str(text).context("not JSON")?;
        let schema = value.get("schema").and_then(serde_json::Value::as_str).unwrap_or_default();
        if schema.starts_with("bench-") {
            bail!(
                "a report of shape {schema} is not one a gate can read: it keeps no rounds beside an A/A in the shape {}, as `bench run` \
                 and `bench cache` write with --json",
                crate::report::SCHEMA
            );
        }
        Ok(Self::from(&json::parse(text)?))
    }
}

impl From<&Saved> for Session {
    fn from(saved: &Saved) -> Self {
        match saved {
            Saved::Requests(report) => of_requests(report),
            Saved::Figures(report) => of_figures(report),
        }
    }
}

fn of_requests(report: &Report) -> Session {
    Session {
        fingerprint: report.machine.fingerprint.clone(),
        subject: "requests".to_owned(),
        transport: format!("{:?}", report.transport).to_lowercase(),
        void: report.void.clone(),
        cells: report.cells.iter().map(of_outcome).collect(),
    }
}

fn of_outcome(cell: &Outcome) -> Cell {
    let ms = |ns: u64| ns / 1_000_000;
    Cell {
        name: format!("{} {}", cell.row, cell.name),
        timing: format!(
            "{} ms after {} ms",
            ms(cell.timing.duration_ns),
            ms(cell.timing.warmup_ns)
        ),
        claimed: Vec::new(),
        sides: cell.sides.iter().map(of_side).collect(),
    }
}

fn of_side(side: &SideOutcome) -> Side {
    let trials: Vec<_> = side.samples.iter().filter_map(|sample| sample.trial.as_ref()).collect();
    let bound = trials.iter().filter(|trial| trial.limit == Limit::Client).count();
    let figures = |sample: &crate::compare::Sample| {
        let each = sample.values.iter().map(|(metric, value)| (metric.key(), *value));
        each.collect::<BTreeMap<String, f64>>()
    };
    Side {
        label: side.label.clone(),
        version: format!("{}{}", side.version, side.build.as_deref().unwrap_or_default()),
        own: side.own,
        failed: side.failed.clone(),
        rounds: side.samples.iter().map(figures).collect(),
        client_bound: bound * 2 > trials.len(),
    }
}

fn of_figures(report: &figures::Report) -> Session {
    let side = |side: &figures::Side| {
        let version = report.versions.iter().find_map(|version| {
            version.strip_prefix(&side.name)?.strip_prefix(": ").map(str::to_owned)
        });
        let reason = report.skipped.iter().find(|reason| reason.contains(&side.name));
        Side {
            label: side.name.clone(),
            version: version.unwrap_or_default(),
            own: peers::find(&side.name).map_or(true, peers::Peer::is_own),
            failed: reason.filter(|_| side.trials.is_empty()).cloned(),
            rounds: side.trials.clone(),
            client_bound: false,
        }
    };
    let cell = |cell: &figures::Cell| Cell {
        name: cell.name.clone(),
        timing: String::new(),
        claimed: cell.claims.iter().map(|claim| claim.figure.clone()).collect(),
        sides: cell.sides.iter().map(side).collect(),
    };
    Session {
        fingerprint: report.machine.fingerprint.clone(),
        subject: report.subject.clone(),
        transport: String::new(),
        void: Vec::new(),
        cells: report.cells.iter().map(cell).collect(),
    }
}

impl Cell {
    /// The pairs of a figure of equal servers, round by round; none without two of them.
    pub(super) fn same(&self, figure: &str) -> Option<Vec<(f64, f64)>> {
        let again = self.sides.iter().find(|side| side.is_again())?;
        let name = again.label.strip_suffix(AGAIN)?;
        let first = self.sides.iter().find(|side| side.label == name)?;
        let pairs: Vec<(f64, f64)> = first.over(again, figure);
        (!pairs.is_empty()).then_some(pairs)
    }
}

impl Side {
    /// Whether it is a second run of another side.
    pub(super) fn is_again(&self) -> bool {
        self.label.ends_with(AGAIN)
    }

    /// A figure of every round that has it.
    pub(super) fn values(&self, figure: &str) -> Vec<f64> {
        self.rounds.iter().filter_map(|round| round.get(figure).copied()).collect()
    }

    /// A figure of this side and of `other`, for every round that has both.
    pub(super) fn over(&self, other: &Self, figure: &str) -> Vec<(f64, f64)> {
        let rounds = self.rounds.iter().zip(&other.rounds);
        rounds.filter_map(|(one, two)| Some((*one.get(figure)?, *two.get(figure)?))).collect()
    }
}
