//! What a run found, and the forms it is handed out in: an aligned table ([`text`]), JSON with every
//! sample and histogram ([`json`]), one HTML page ([`html`]), CSV ([`csv`]), a histogram log
//! ([`hlog`]) and the summary that is kept in the repository ([`summary`], [`document`]).
//!
//! Invariants: a figure never stands without its interval, the machine and how far apart equal
//! servers came out; what did not run has a row that says why; each form can be made again from the
//! JSON. Next: `compare` and `figures` for where the figures come from.

pub mod csv;
pub mod date;
pub mod document;
pub mod flame;
pub mod hdr;
pub mod hlog;
pub mod html;
pub mod json;
pub mod notes;
pub mod summary;
mod svg;
pub mod text;
mod verdict;

use serde::{Deserialize, Serialize};

use crate::clock::SECOND_NS;
use crate::compare::{Judgement, Outcome};
use crate::load::trial::Transport;
use crate::machine::Machine;
use crate::stats;

pub use notes::disturbance;

/// Version of the JSON's shape.
pub const SCHEMA: &str = "bench/2";

/// Everything about a run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: String,
    /// Version of this program.
    pub bench_version: String,
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
    /// Cells in which equal servers came out apart; if there are any, the session says nothing.
    #[serde(default)]
    pub void: Vec<String>,
}

impl Report {
    /// Nothing found yet.
    #[must_use]
    pub fn new(machine: Machine, transport: Transport, seed: u64) -> Self {
        Self {
            schema: SCHEMA.to_owned(),
            bench_version: env!("CARGO_PKG_VERSION").to_owned(),
            command: command(),
            machine,
            transport,
            seed,
            cells: Vec::new(),
            void: Vec::new(),
        }
    }

    /// Takes another cell, and looks at all runs of equal servers (A/A) anew: with several of them, one alone must be
    /// further apart, so that a session without a fault is void in one case of twenty.
    pub fn push(&mut self, cell: Outcome) {
        for side in &cell.sides {
            let built = side.build.iter().map(|build| format!("; {build}"));
            let version = format!("{}{}", side.version, built.collect::<String>());
            self.machine.took_part(side.label.trim_end_matches(" again"), &version);
        }
        self.cells.push(cell);
        let same = self.cells.iter().filter_map(|cell| cell.same.map(|same| (cell, same)));
        let solid: Vec<_> = same.filter(|(_, same)| same.ratio.is_solid()).collect();
        let level = stats::LEVEL / solid.len().max(1) as f64;
        let apart = solid.iter().filter(|(_, same)| same.ratio.p <= level);
        self.void = apart.map(|(cell, _)| format!("{} {}", cell.row, cell.name)).collect();
    }

    /// Whether equal servers came out apart, so that no difference means anything.
    #[must_use]
    pub const fn is_void(&self) -> bool {
        !self.void.is_empty()
    }

    /// Every side once, with what its program says of itself.
    #[must_use]
    pub fn versions(&self) -> Vec<String> {
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

    /// How many bars were missed.
    #[must_use]
    pub fn missed(&self) -> usize {
        let verdicts = self.cells.iter().flat_map(|cell| &cell.verdicts);
        verdicts.filter(|verdict| verdict.judgement == Judgement::Missed).count()
    }
}

/// The command this process was started with, without the folder the program is in and where its results go.
#[must_use]
pub fn command() -> String {
    words(std::env::args().skip(1))
}

fn words(mut args: impl Iterator<Item = String>) -> String {
    let mut command = "bench".to_owned();
    while let Some(arg) = args.next() {
        match arg.split_once('=').map_or(arg.as_str(), |(name, _)| name) {
            // What follows is its value, unless that is in the same word.
            "--out" | "--json" => drop(if arg.contains('=') { None } else { args.next() }),
            _ if arg.contains([' ', '\'', '"', '$', '*']) => {
                command.push_str(&format!(" '{}'", arg.replace('\'', "'\\''")));
            }
            _ => command.push_str(&format!(" {arg}")),
        }
    }
    command
}

/// `value` with as many digits as say something.
#[must_use]
pub fn figure(value: Option<f64>) -> String {
    match value {
        None => "-".to_owned(),
        Some(0.0) => "0".to_owned(),
        Some(value) if value.abs() >= 1000.0 => format!("{value:.0}"),
        Some(value) if value.abs() >= 10.0 => format!("{value:.1}"),
        Some(value) => format!("{value:.3}"),
    }
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
    use crate::compare::{Metric, Same};
    use crate::load::trial::Timing;

    fn cell(name: &str, apart: f64) -> Outcome {
        let pairs: Vec<(f64, f64)> = (0..20)
            .map(|at| (1000.0 + f64::from(at % 7), apart * (1000.0 + f64::from(at % 5))))
            .collect();
        let ratio = stats::paired_ratio(&pairs, 1).expect("pairs");
        Outcome {
            row: "3".to_owned(),
            name: name.to_owned(),
            timing: Timing { warmup_ns: 1, duration_ns: 1 },
            repeated: 0,
            disturbed: 0,
            noise: crate::rounds::Noise::default(),
            sides: Vec::new(),
            same: Some(Same { metric: Metric::CpuNsPerOp, ratio }),
            verdicts: Vec::new(),
        }
    }

    #[test]
    fn equal_servers_that_come_out_apart_void_the_session() {
        let machine = Machine::describe(false, false);
        let mut report = Report::new(machine, Transport::Plain, 1);
        report.push(cell("GET", 1.0));
        assert!(!report.is_void() && !report.text().contains("VOID"));
        report.push(cell("SET", 1.05));
        assert!(report.is_void());
        assert!(report.text().contains("VOID: equal servers came out apart in 3 SET"));
        let page = html::page(&json::Saved::from(&report));
        assert!(page.contains("<b>VOID</b>: equal servers came out apart in 3 SET"));
        assert!(page.contains("<h1>Benchmark of the cache</h1>"));
        report.cells[0].row = "http".to_owned();
        let page = html::page(&json::Saved::from(&report));
        assert!(page.contains("<h1>Benchmark of the scenario http</h1>"));
    }

    #[test]
    fn figures_keep_three_digits_or_more() {
        assert_eq!((figure(None).as_str(), figure(Some(0.0)).as_str()), ("-", "0"));
        assert_eq!(figure(Some(12345.6)), "12346");
        assert_eq!(figure(Some(123.45)), "123.5");
        assert_eq!(figure(Some(0.0291)), "0.029");
        assert_eq!(minutes(125_000_000_000), "2:05 min");
    }

    #[test]
    fn a_command_is_without_where_its_results_go() {
        let said = |args: &[&str]| words(args.iter().map(|arg| (*arg).to_owned()));
        assert_eq!(said(&["cache", "--out", "/d", "--row", "3"]), "bench cache --row 3");
        assert_eq!(said(&["cache", "--json=f", "--fifo", "--out"]), "bench cache --fifo");
        assert_eq!(said(&["cache", "--only", "GET 64"]), "bench cache --only 'GET 64'");
    }
}
