//! A report without its samples: what was claimed, what came of it, where and by which command.
//!
//! Both kinds of report become the same summary, from which pages and documents are made, and which is small enough to
//! be kept in the repository (`bench-harness/results/`). Invariants: a summary depends on its report only; a figure
//! keeps its interval and the rounds it rests on. Next: `document`, `html`.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::json::Saved;
use super::notes::{disturbance, notes};
use super::{Report, text};
use crate::compare::{Bar, Judgement, Outcome};
use crate::figures;
use crate::stats;

/// Version of a summary's shape.
pub const SCHEMA: &str = "bench-summary/1";

/// A report in short.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Summary {
    /// [`SCHEMA`].
    pub schema: String,
    /// What was measured: `cache`, `storage`, `broker`.
    pub subject: String,
    /// The command that made it.
    pub command: String,
    /// Version of `bench`.
    pub bench_version: String,
    /// When it began, in seconds since the Unix epoch.
    pub unix_s: u64,
    /// Where, in a line.
    pub machine: String,
    /// Who took part, each with its version.
    pub versions: Vec<String>,
    /// The cells, in order.
    pub cells: Vec<Cell>,
    /// What was not run, and why.
    pub skipped: Vec<String>,
}

/// A cell in short.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Cell {
    /// The row of the table of claims.
    pub row: String,
    /// What was done.
    pub name: String,
    /// Rounds that count.
    pub rounds: usize,
    /// How far apart equal servers came out, and in which figure.
    pub same: Option<Same>,
    /// Everyone's medians.
    pub sides: Vec<Side>,
    /// What was judged.
    pub verdicts: Vec<Verdict>,
    /// What a reader must know beside the figures.
    pub notes: Vec<String>,
}

/// What is kept of a ratio.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Apart {
    /// The second over the first.
    pub ratio: f64,
    /// Lower end of its 95 % interval.
    pub low: f64,
    /// Upper end.
    pub high: f64,
    /// Rounds it rests on.
    pub pairs: usize,
}

impl From<stats::Ratio> for Apart {
    fn from(ratio: stats::Ratio) -> Self {
        Self { ratio: ratio.ratio, low: ratio.low, high: ratio.high, pairs: ratio.pairs }
    }
}

impl Apart {
    /// Whether there were rounds enough for the interval to mean something.
    #[must_use]
    pub const fn is_solid(&self) -> bool {
        self.pairs >= stats::SOLID_PAIRS
    }

    /// Whether the interval holds `value`.
    #[must_use]
    pub fn covers(&self, value: f64) -> bool {
        self.low <= value && value <= self.high
    }
}

/// A pair of equal servers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Same {
    /// Which figure.
    pub figure: String,
    /// The second over the first.
    pub ratio: Apart,
}

/// Medians of a side.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Side {
    /// Who.
    pub name: String,
    /// By name, with the unit in it.
    pub figures: BTreeMap<String, f64>,
}

/// A claim with what came of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Verdict {
    /// Which figure.
    pub figure: String,
    /// Whose.
    pub candidate: String,
    /// Median of the candidate.
    pub candidate_median: Option<f64>,
    /// Against whose.
    pub baseline: Option<String>,
    /// Median of the baseline.
    pub baseline_median: Option<f64>,
    /// Candidate over baseline.
    pub ratio: Option<Apart>,
    /// Held to what.
    pub bar: Bar,
    /// The result.
    pub judgement: Judgement,
}

/// How many claims came to what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Within the bar.
    pub met: usize,
    /// The median only.
    pub at_median: usize,
    /// Beyond it.
    pub missed: usize,
    /// Nothing to compare.
    pub not_run: usize,
    /// Without a bar.
    pub shown: usize,
}

impl Counts {
    /// Of `verdicts`.
    pub fn of<'a>(verdicts: impl Iterator<Item = &'a Verdict>) -> Self {
        let mut counts = Self::default();
        for verdict in verdicts {
            let count = match verdict.judgement {
                Judgement::Met => &mut counts.met,
                Judgement::MetAtMedian => &mut counts.at_median,
                Judgement::Missed => &mut counts.missed,
                Judgement::NotRun => &mut counts.not_run,
                Judgement::Shown => &mut counts.shown,
            };
            *count += 1;
        }
        counts
    }
}

impl From<&Saved> for Summary {
    fn from(saved: &Saved) -> Self {
        match saved {
            Saved::Requests(report) => of_requests(report),
            Saved::Figures(report) => of_figures(report),
        }
    }
}

impl Summary {
    /// The summary in the file `path`.
    ///
    /// # Errors
    /// There is none that can be read.
    pub fn read(path: &Path) -> Result<Self> {
        let json = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
        let summary: Self = serde_json::from_str(&json)
            .with_context(|| format!("{}: not a summary", path.display()))?;
        if summary.schema != SCHEMA {
            bail!("{}: its schema is {}, not {SCHEMA}", path.display(), summary.schema);
        }
        Ok(summary)
    }

    /// All claims.
    pub fn verdicts(&self) -> impl Iterator<Item = &Verdict> {
        self.cells.iter().flat_map(|cell| &cell.verdicts)
    }

    /// How many claims came to what.
    #[must_use]
    pub fn counts(&self) -> Counts {
        Counts::of(self.verdicts())
    }

    /// Pairs of equal servers whose interval does not hold 1, and all pairs.
    #[must_use]
    pub fn unequal(&self) -> (usize, usize) {
        let pairs: Vec<_> = self.cells.iter().filter_map(|cell| cell.same.as_ref()).collect();
        let apart = |same: &&&Same| same.ratio.is_solid() && !same.ratio.covers(1.0);
        (pairs.iter().filter(apart).count(), pairs.len())
    }
}

/// The cache by its rows, whose names are numbers; else the scenario.
fn subject(report: &Report) -> String {
    match report.cells.first() {
        Some(cell) if !cell.row.starts_with(|c: char| c.is_ascii_digit()) => {
            format!("scenario {}", cell.row)
        }
        _ => "cache".to_owned(),
    }
}

fn of_requests(report: &Report) -> Summary {
    Summary {
        schema: SCHEMA.to_owned(),
        subject: subject(report),
        command: report.command.clone(),
        bench_version: report.bench_version.clone(),
        unix_s: report.machine.unix_s,
        machine: text::machine_line(&report.machine),
        versions: report.versions(),
        cells: report.cells.iter().map(of_outcome).collect(),
        skipped: Vec::new(),
    }
}

/// `text` with absolute paths cut to their last part: where a machine keeps its programs is nobody's business.
fn without_folders(text: &str) -> String {
    let short = |word: &str| {
        let at = word.find(|c: char| !"(\"'`".contains(c)).unwrap_or(0);
        let (open, path) = word.split_at(at);
        let last = path.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
        if path.starts_with('/') { format!("{open}{last}") } else { word.to_owned() }
    };
    text.split(' ').map(short).collect::<Vec<_>>().join(" ")
}

fn of_outcome(outcome: &Outcome) -> Cell {
    let verdict = |verdict: &crate::compare::Verdict| Verdict {
        figure: verdict.metric.title().to_owned(),
        candidate: verdict.candidate.clone(),
        candidate_median: verdict.candidate_median,
        baseline: verdict.baseline.clone(),
        baseline_median: verdict.baseline_median,
        ratio: verdict.ratio.map(Apart::from),
        bar: verdict.bar,
        judgement: verdict.judgement,
    };
    let side = |side: &crate::compare::SideOutcome| {
        let metrics = side.samples.iter().flat_map(|sample| &sample.values);
        let figures = metrics
            .map(|(metric, _)| (metric.title().to_owned(), stats::median(&side.values(*metric))));
        Side { name: side.label.clone(), figures: figures.collect() }
    };
    Cell {
        row: outcome.row.clone(),
        name: outcome.name.clone(),
        rounds: outcome.sides.iter().map(|side| side.samples.len()).max().unwrap_or_default(),
        same: outcome
            .same
            .map(|same| Same { figure: same.metric.title().to_owned(), ratio: same.ratio.into() }),
        sides: outcome.sides.iter().map(side).collect(),
        verdicts: outcome.verdicts.iter().map(verdict).collect(),
        notes: notes(outcome).iter().map(|note| without_folders(note)).collect(),
    }
}

fn of_figures(report: &figures::Report) -> Summary {
    let prefix = if report.subject == "broker" { "b" } else { "" };
    Summary {
        schema: SCHEMA.to_owned(),
        subject: report.subject.clone(),
        command: report.command.clone(),
        bench_version: report.bench_version.clone(),
        unix_s: report.machine.unix_s,
        machine: text::machine_line(&report.machine),
        versions: report.versions.iter().map(|version| without_folders(version)).collect(),
        cells: report.cells.iter().map(|cell| of_figured(cell, prefix)).collect(),
        skipped: report.skipped.iter().map(|skipped| without_folders(skipped)).collect(),
    }
}

fn of_figured(cell: &figures::Cell, prefix: &str) -> Cell {
    // Rows begin with their number; a workload of one's own has none.
    let numbered =
        cell.name.split_once(' ').filter(|(row, _)| row.starts_with(|c: char| c.is_ascii_digit()));
    let (row, name) = match numbered {
        Some((row, name)) => (format!("{prefix}{row}"), name),
        None => (String::new(), cell.name.as_str()),
    };
    let ours = cell.sides.first();
    let candidate = ours.map(|side| side.name.clone()).unwrap_or_default();
    let values = |figure: &str| ours.map(|side| side.values(figure)).unwrap_or_default();
    let number = |value: f64| value.is_finite().then_some(value);
    let mut verdicts = Vec::new();
    for claim in &cell.claims {
        let values = values(&claim.figure);
        let peer = cell.sides.iter().find(|side| side.name == claim.peer);
        let bar = Bar::RatioAtMost(claim.bar);
        verdicts.push(Verdict {
            figure: claim.figure.clone(),
            candidate: candidate.clone(),
            candidate_median: number(stats::median(&values)),
            baseline: Some(claim.peer.clone()),
            baseline_median: peer.and_then(|peer| number(peer.median(&claim.figure))),
            ratio: claim.found.map(Apart::from),
            bar,
            judgement: bar.judge(claim.found, &values),
        });
    }
    for limit in &cell.limits {
        let values = values(&limit.figure);
        let bar = if limit.at_least { Bar::AtLeast(limit.bar) } else { Bar::AtMost(limit.bar) };
        verdicts.push(Verdict {
            figure: limit.figure.clone(),
            candidate: candidate.clone(),
            candidate_median: limit.found,
            baseline: None,
            baseline_median: None,
            ratio: None,
            bar,
            judgement: bar.judge(None, &values),
        });
    }
    let side = |side: &figures::Side| {
        let names = side.trials.iter().flat_map(|trial| trial.keys());
        let figures = names.map(|name| (name.clone(), side.median(name))).collect();
        Side { name: side.name.clone(), figures }
    };
    Cell {
        row,
        name: name.to_owned(),
        rounds: cell.sides.iter().map(|side| side.trials.len()).max().unwrap_or_default(),
        same: None,
        sides: cell.sides.iter().map(side).collect(),
        verdicts,
        notes: disturbance(cell.repeated, cell.disturbed, &cell.noise).into_iter().collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_left_out_of_what_is_kept() {
        let said =
            "redis did not run: \"/opt/r/bin/redis-server: no such file (/a/b), 5 requests/s";
        let kept = "redis did not run: \"redis-server: no such file (b), 5 requests/s";
        assert_eq!(without_folders(said), kept);
    }
}
