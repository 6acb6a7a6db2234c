//! What trials on several runtimes found, as a table and as JSON.
//!
//! Invariants: every ratio is that of a side to our engine, of medians over the rounds both ran, with
//! the 95 % interval of a paired bootstrap; the second row is our engine again, whose ratio says how
//! far apart equals come out. Next: `crate::stats` for the interval.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;

use super::What;
use crate::figures::Figures;
use crate::machine::Machine;
use crate::report;
use crate::rounds::Noise;
use crate::stats::{self, Ratio};

/// Version of the JSON's shape.
pub const SCHEMA: &str = "bench-runtimes/1";
/// What our engine is called when it runs a second time.
pub(super) const AGAIN: &str = "engine again";

/// A figure of a cell, and its heading.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Column {
    /// Its name among the figures of a trial.
    pub figure: &'static str,
    /// Its heading, with the unit.
    pub title: &'static str,
}

/// One side of a cell.
#[derive(Clone, Debug, Serialize)]
pub struct Side {
    /// Who.
    pub name: &'static str,
    /// Of which version.
    pub version: String,
    /// Why it did not run, or no longer.
    pub failed: Option<String>,
    /// One for each round; `None` where it failed.
    pub trials: Vec<Option<Figures>>,
    /// Its figures over those of our engine.
    pub ratios: BTreeMap<&'static str, Ratio>,
}

impl Side {
    pub(super) fn new(name: &'static str, version: &str, failed: Option<String>) -> Self {
        let version = version.to_owned();
        Self { name, version, failed, trials: Vec::new(), ratios: BTreeMap::new() }
    }

    fn median(&self, figure: &str) -> f64 {
        let trials = self.trials.iter().flatten();
        let values: Vec<f64> = trials.filter_map(|trial| trial.get(figure).copied()).collect();
        stats::median(&values)
    }
}

/// The same work on every side.
#[derive(Clone, Debug, Serialize)]
pub struct Cell {
    /// What was done.
    pub what: What,
    /// In words.
    pub name: String,
    /// Which figures are shown.
    pub columns: &'static [Column],
    /// Our engine, the same again, and the others.
    pub sides: Vec<Side>,
    /// Rounds that were run again because of noise.
    pub repeated: usize,
    /// Rounds that count although there was some.
    pub disturbed: usize,
    /// Which noise.
    pub noise: Noise,
}

/// Everything a run found.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: &'static str,
    /// The command that made it.
    pub command: String,
    /// Where.
    pub machine: Machine,
    /// Seed of loads and resampling.
    pub seed: u64,
    /// The cells, in order.
    pub cells: Vec<Cell>,
}

/// Puts each side in relation to the first one.
pub(super) fn compare(sides: &mut [Side], columns: &[Column], seed: u64) {
    let Some((ours, others)) = sides.split_first_mut() else { return };
    for side in others {
        for column in columns {
            let figure = |trial: &Option<Figures>| trial.as_ref()?.get(column.figure).copied();
            let rounds = ours.trials.iter().zip(&side.trials);
            let pairs: Vec<(f64, f64)> =
                rounds.filter_map(|(base, cand)| figure(base).zip(figure(cand))).collect();
            if let Some(ratio) = stats::paired_ratio(&pairs, seed) {
                side.ratios.insert(column.figure, ratio);
            }
        }
    }
}

/// A trial in one line.
pub(super) fn line(name: &str, columns: &[Column], figures: &Figures) -> String {
    let mut text = format!("{name:>16}");
    for column in columns {
        let value = figures.get(column.figure).copied().unwrap_or(f64::NAN);
        text.push_str(&format!("  {} {}", column.title, number(value)));
    }
    text
}

fn number(value: f64) -> String {
    match value {
        value if value.is_nan() => "-".to_owned(),
        value if value.abs() >= 1000.0 => format!("{value:.0}"),
        value if value.abs() >= 10.0 => format!("{value:.1}"),
        value => format!("{value:.3}"),
    }
}

impl Report {
    pub(super) fn new(own_network: bool, seed: u64) -> Self {
        Self {
            schema: SCHEMA,
            command: std::env::args().collect::<Vec<_>>().join(" "),
            machine: Machine::describe(own_network, false),
            seed,
            cells: Vec::new(),
        }
    }

    /// The report as text for a terminal.
    #[must_use]
    pub fn text(&self) -> String {
        let machine = &self.machine;
        let mut text = format!(
            "{} x {}, Linux {}, {}{}; load {}\n\
             every ratio is to `engine`, with its 95 % interval; `{AGAIN}` shows how far apart equals are\n",
            machine.cpus,
            machine.cpu,
            machine.kernel,
            machine.congestion,
            if machine.own_network { " in a network namespace" } else { "" },
            machine.load,
        );
        text.push_str(&machine.fingerprint_lines());
        for cell in &self.cells {
            // Writing to a string does not fail.
            let _ = write!(text, "\n{}\n{}", cell.name, cell.table());
            for note in cell.notes() {
                let _ = writeln!(text, "  {note}");
            }
        }
        text
    }
}

impl Cell {
    fn table(&self) -> String {
        let mut rows = vec![vec!["side".to_owned()]];
        for column in self.columns {
            rows[0].extend([column.title.to_owned(), "ratio [95 %]".to_owned()]);
        }
        for side in self.sides.iter().filter(|side| side.failed.is_none()) {
            let mut row = vec![side.name.to_owned()];
            for column in self.columns {
                row.push(number(side.median(column.figure)));
                row.push(side.ratios.get(column.figure).map_or_else(String::new, |ratio| {
                    format!("{:.3} [{:.3}, {:.3}]", ratio.ratio, ratio.low, ratio.high)
                }));
            }
            rows.push(row);
        }
        align(&rows)
    }

    fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        for side in &self.sides {
            if let Some(why) = &side.failed {
                notes.push(format!("{}: {why}", side.name));
            }
        }
        let again = self.sides.iter().find(|side| side.name == AGAIN);
        for column in self.columns {
            let Some(ratio) = again.and_then(|side| side.ratios.get(column.figure)) else {
                continue;
            };
            if !ratio.covers(1.0) {
                notes.push(format!(
                    "{}: equals came out {:.3} apart; differences of that size mean nothing here",
                    column.title,
                    (ratio.ratio - 1.0).abs()
                ));
            }
            if !ratio.is_solid() {
                notes.push(format!("{} rounds give no solid interval", ratio.pairs));
                break;
            }
        }
        let busy = self.sides.iter().filter(|side| side.median("client_busy") > 0.9);
        let names: Vec<&str> = busy.map(|side| side.name).collect();
        if !names.is_empty() {
            let names = names.join(", ");
            notes.push(format!("the load was busy: rates and latencies of {names} are also its"));
        }
        notes.extend(report::disturbance(self.repeated, self.disturbed, &self.noise));
        notes
    }
}

fn align(rows: &[Vec<String>]) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |at: usize| rows.iter().map(|row| row[at].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = " ".to_owned();
        for (at, (field, width)) in row.iter().zip(&widths).enumerate() {
            // Writing to a string does not fail.
            let _ = if at % 2 == 1 {
                write!(line, " {field:>width$}")
            } else {
                write!(line, " {field:<width$} ")
            };
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: &[Column] = &[Column { figure: "p99_us", title: "p99 us" }];

    fn side(name: &'static str, values: &[Option<f64>]) -> Side {
        let mut side = Side::new(name, "1", None);
        let figures = |value: &Option<f64>| value.map(|value| Figures::from([("p99_us", value)]));
        side.trials = values.iter().map(figures).collect();
        side
    }

    fn cell(mut sides: Vec<Side>) -> Cell {
        compare(&mut sides, COLUMNS, 1);
        let name = "echo".to_owned();
        Cell {
            what: What::Echo,
            name,
            columns: COLUMNS,
            sides,
            repeated: 0,
            disturbed: 0,
            noise: Noise::default(),
        }
    }

    #[test]
    fn ratios_are_to_ours_over_the_rounds_both_ran() {
        let ours: Vec<Option<f64>> = (0..8).map(|_| Some(10.0)).collect();
        let mut theirs: Vec<Option<f64>> = (0..8).map(|_| Some(20.0)).collect();
        theirs[3] = None;
        let cell = cell(vec![side("engine", &ours), side("other", &theirs)]);
        let ratio = cell.sides[1].ratios["p99_us"];
        assert_eq!((ratio.ratio, ratio.low, ratio.high, ratio.pairs), (2.0, 2.0, 2.0, 7));
        let table = cell.table();
        assert!(table.contains("2.000 [2.000, 2.000]"), "{table}");
    }

    #[test]
    fn equals_that_are_apart_and_sides_that_failed_are_named() {
        let ours: Vec<Option<f64>> = (0..8).map(|_| Some(10.0)).collect();
        let again: Vec<Option<f64>> = (0..8).map(|_| Some(12.0)).collect();
        let failed = Side::new("other", "", Some("no such runtime".to_owned()));
        let cell = cell(vec![side("engine", &ours), side(AGAIN, &again), failed]);
        let notes = cell.notes().join("\n");
        assert!(notes.contains("equals came out 0.200 apart"), "{notes}");
        assert!(notes.contains("other: no such runtime"), "{notes}");
        assert!(!cell.table().contains("other"));
    }
}
