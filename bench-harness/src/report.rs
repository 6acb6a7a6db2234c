//! What a run found: one JSON file with every sample, and an aligned table.
//!
//! Invariants: a figure never stands without its interval, the machine and how far apart equal
//! servers came out; what did not run has a row that says why. Next: `compare` for where the
//! figures come from.

use std::fmt::Write as _;

use serde::Serialize;

use crate::clock::SECOND_NS;
use crate::compare::{Bar, Judgement, Outcome, Verdict};
use crate::load::trial::{Limit, Transport};
use crate::machine::Machine;
use crate::rounds;

/// Version of the JSON's shape.
pub const SCHEMA: &str = "bench-cache/1";
/// Above this share of time waiting for the CPU, a trial was disturbed.
const WAIT_SHARE_MAX: f64 = 0.05;
/// Above this share of foreign time on the server's core, likewise.
const FOREIGN_SHARE_MAX: f64 = 0.10;

/// Everything about a run.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: &'static str,
    /// Version of this program.
    pub bench_version: &'static str,
    /// The command that made it.
    pub command: String,
    /// Where.
    pub machine: Machine,
    /// What moved the generator's bytes.
    pub transport: Transport,
    /// Seed of loads and resampling.
    pub seed: u64,
    /// The cells, in order.
    pub cells: Vec<Outcome>,
}

impl Report {
    /// The report as text for a terminal.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        let machine = &self.machine;
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "{}, {} CPUs, {} GiB, Linux {}, idle {}, {}{}{}; load {}",
            machine.cpu,
            machine.cpus,
            machine.memory_bytes >> 30,
            machine.kernel,
            machine.idle_driver,
            machine.congestion,
            if machine.own_network { " in a network namespace" } else { "" },
            if machine.fifo { ", SCHED_FIFO" } else { "" },
            machine.load,
        );
        for version in self.versions() {
            let _ = writeln!(text, "  {version}");
        }
        text.push('\n');
        text.push_str(&self.table());
        for cell in &self.cells {
            for note in notes(cell) {
                let _ = writeln!(text, "{} {}: {note}", cell.row, cell.name);
            }
        }
        text
    }

    fn versions(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for side in self.cells.iter().flat_map(|cell| &cell.sides) {
            let version = if side.version.is_empty() { "not present" } else { &side.version };
            let line = format!("{}: {version}", side.label.trim_end_matches(" again"));
            if !lines.contains(&line) {
                lines.push(line);
            }
        }
        lines
    }

    /// The table of verdicts alone.
    #[must_use]
    pub fn table(&self) -> String {
        let mut rows = vec![
            [
                "row",
                "what",
                "figure",
                "candidate",
                "median (best)",
                "baseline",
                "median (best)",
                "ratio",
                "95 %",
                "A/A",
                "bar",
                "result",
            ]
            .map(str::to_owned)
            .to_vec(),
        ];
        for cell in &self.cells {
            rows.extend(cell.verdicts.iter().map(|verdict| table_row(cell, verdict)));
        }
        align(&rows)
    }

    /// Whether some bar was missed.
    #[must_use]
    pub fn missed(&self) -> usize {
        let verdicts = self.cells.iter().flat_map(|cell| &cell.verdicts);
        verdicts.filter(|verdict| verdict.judgement == Judgement::Missed).count()
    }
}

fn figure(value: Option<f64>) -> String {
    match value {
        None => "-".to_owned(),
        Some(value) if value.abs() >= 1000.0 => format!("{value:.0}"),
        Some(value) if value.abs() >= 10.0 => format!("{value:.1}"),
        Some(value) => format!("{value:.3}"),
    }
}

fn pair(median: Option<f64>, best: Option<f64>) -> String {
    if median.is_none() {
        return "-".to_owned();
    }
    format!("{} ({})", figure(median), figure(best))
}

fn table_row(cell: &Outcome, verdict: &Verdict) -> Vec<String> {
    let (ratio, interval) = match verdict.ratio {
        Some(ratio) => {
            let few = if ratio.is_solid() { "" } else { " (few)" };
            let interval = format!("{:.3}-{:.3}{few}", ratio.low, ratio.high);
            (format!("{:.3}", ratio.ratio), interval)
        }
        None => ("-".to_owned(), "-".to_owned()),
    };
    let same = match cell.same.filter(|same| same.metric == verdict.metric) {
        Some(same) => {
            format!("{:.3} ({:.3}-{:.3})", same.ratio.ratio, same.ratio.low, same.ratio.high)
        }
        None => "-".to_owned(),
    };
    let bar = match verdict.bar {
        Bar::RatioAtMost(bar) => format!("<= {bar:.2}x"),
        Bar::RatioAtLeast(bar) => format!(">= {bar:.2}x"),
        Bar::AtMost(bar) => format!("<= {bar}"),
        Bar::Shown => String::new(),
    };
    let result = match verdict.judgement {
        Judgement::Met => "met",
        Judgement::MetAtMedian => "met at median",
        Judgement::Missed => "MISSED",
        Judgement::NotRun => "not run",
        Judgement::Shown => "",
    };
    vec![
        cell.row.to_owned(),
        cell.name.clone(),
        verdict.metric.title().to_owned(),
        verdict.candidate.clone(),
        pair(verdict.candidate_median, verdict.candidate_min),
        verdict.baseline.clone().unwrap_or_else(|| "-".to_owned()),
        pair(verdict.baseline_median, verdict.baseline_min),
        ratio,
        interval,
        same,
        bar,
        result.to_owned(),
    ]
}

fn align(rows: &[Vec<String>]) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |column: usize| {
        rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (field, width) in row.iter().zip(&widths) {
            // Writing to a string cannot fail.
            let _ = write!(line, "{field:<width$}  ");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// What is said when the hypervisor took the core.
#[must_use]
pub fn disturbance(repeated: usize, disturbed: usize) -> Option<String> {
    (repeated > 0).then(|| {
        format!(
            "{repeated} rounds were run again and {disturbed} count although the hypervisor took \
             more than {:.0} % of a core",
            rounds::STOLEN_MAX * 100.0
        )
    })
}

/// What a reader of a cell must know beside its figures.
fn notes(cell: &Outcome) -> Vec<String> {
    let mut notes = Vec::new();
    notes.extend(disturbance(cell.repeated, cell.disturbed));
    if let Some(same) = cell.same.filter(|same| same.ratio.is_solid() && !same.ratio.covers(1.0)) {
        notes.push(format!(
            "equal servers came out {:.3} apart: smaller differences mean nothing here",
            same.ratio.ratio
        ));
    }
    for side in &cell.sides {
        if let Some(why) = &side.failed {
            notes.push(format!("{} did not run: {why}", side.label));
        }
        let trials: Vec<_> =
            side.samples.iter().filter_map(|sample| sample.trial.as_ref()).collect();
        if trials.is_empty() {
            continue;
        }
        let count = |limit| trials.iter().filter(|trial| trial.limit == limit).count();
        let client = count(Limit::Client);
        if client * 2 > trials.len() {
            notes.push(format!(
                "{}: the client was the limit in {client} of {} trials (its core {:.0} % busy); \
                 rates and latencies are the client's, CPU per operation is the server's",
                side.label,
                trials.len(),
                trials.iter().map(|trial| trial.client_busy).sum::<f64>() * 100.0
                    / trials.len() as f64
            ));
        }
        let missed: u64 = trials.iter().map(|trial| trial.missed).sum();
        if missed > 0 {
            notes.push(format!("{}: {missed} arrivals were missed", side.label));
        }
        let lag = trials.iter().map(|trial| trial.lag.p99_ns).max().unwrap_or_default();
        if lag > 0 {
            notes.push(format!("{}: schedule lag p99 at most {lag} ns", side.label));
        }
        let disturbed = trials
            .iter()
            .filter(|trial| trial.server_wait > WAIT_SHARE_MAX || trial.foreign > FOREIGN_SHARE_MAX)
            .count();
        if disturbed > 0 {
            notes.push(format!(
                "{}: other work was on the server's core in {disturbed} of {} trials",
                side.label,
                trials.len()
            ));
        }
    }
    notes
}

/// `ns` as minutes and seconds.
#[must_use]
pub fn minutes(ns: u128) -> String {
    let seconds = ns / u128::from(SECOND_NS);
    format!("{}:{:02} min", seconds / 60, seconds % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let rows = [["a", "bb"], ["ccc", "d"]].map(|row| row.map(str::to_owned).to_vec());
        assert_eq!(align(&rows), "a    bb\nccc  d\n");
        assert_eq!(minutes(125_000_000_000), "2:05 min");
    }

    #[test]
    fn figures_keep_three_digits_or_more() {
        assert_eq!(figure(None), "-");
        assert_eq!(figure(Some(12345.6)), "12346");
        assert_eq!(figure(Some(123.45)), "123.5");
        assert_eq!(figure(Some(0.0291)), "0.029");
    }
}
