//! Whether one saved report is worse than another: `bench gate BASE NEW`, for scripts.
//!
//! **Which statistic.** Two files are two sessions, and their rounds are no pairs: the third round of one has neither the time nor
//! the machine's state in common with the third of the other, so a signed-rank test over them would pair what chance put beside each
//! other. Within a file rounds *are* pairs, and that is used first: where both files have a server that did not change (not built from
//! this tree, of equal version), each side's figure is divided by that control's of the same round, which takes out what moved both,
//! drifts and the session's own level too. What is left are two independent samples, compared by the Mann-Whitney interval
//! (`tuning::stats`, docs/decisions/0014-comparing-pairs.md). Without a control the figures themselves are compared, which is
//! said, since then a slower machine is a slower server. The A/A floor comes of pairs: capped signed ranks within each file.
//!
//! **What fails.** A figure whose whole 95 % interval is beyond its budget *and* beyond what equal servers came out apart in either
//! file. Beyond the budget at the median only, or with too few rounds, or without an A/A, it cannot be decided: that is
//! neither a pass nor a regression ([`Exit::Noisy`]). Invariants: equal files pass; files of different machines or scenarios give no
//! ratio unless forced; a rate or latency that the load limited is not taken for the server's. Next: `session` for what is taken of a
//! report, `judge` for one figure.

mod judge;
mod session;
#[cfg(test)]
mod tests;

use std::fmt::Write as _;

use anyhow::{Context, Result, ensure};
use serde::Serialize;

use crate::exit::Exit;
use crate::fingerprint::{Difference, differences};
use crate::stats::Ratio;

pub use judge::Verdict;
pub use session::{Cell, Session, Side};

/// What each figure of a load may become worse by, in per cent, where nothing else is said.
pub const BUDGETS: &[(&str, f64)] = &[
    ("cpu_ns_per_op", 5.0),
    ("syscalls_per_op", 5.0),
    ("rate", 5.0),
    ("p50_ns", 10.0),
    ("p99_ns", 25.0),
];
/// The same for figures that a report claims something about.
const CLAIMED_PERCENT: f64 = 5.0;
/// Figures that are the client's where the load was the limit.
const OF_CLIENT: &[&str] = &["rate", "p50_ns", "p99_ns"];

/// What a figure may become worse by.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Budget {
    /// The figure's name in the report.
    pub figure: String,
    /// How much worse it may be.
    pub percent: f64,
    /// Asked for by name: if it cannot be judged, that is not passed over.
    pub asked: bool,
}

impl std::str::FromStr for Budget {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let doing = || format!("a budget is FIGURE=PERCENT, as in cpu_ns_per_op=5, not {text:?}");
        let (figure, percent) = text.split_once('=').with_context(doing)?;
        let percent: f64 = percent.trim_end_matches('%').trim().parse().with_context(doing)?;
        ensure!(
            !figure.is_empty() && (0.0..=10_000.0).contains(&percent),
            "{}; from 0 to 10000",
            doing()
        );
        Ok(Self { figure: figure.to_owned(), percent, asked: true })
    }
}

/// What is asked.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Budgets; the usual ones when there are none.
    pub budgets: Vec<Budget>,
    /// Compare whatever differs.
    pub force: bool,
}

/// One figure of one side of one cell.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// The cell.
    pub cell: String,
    /// The side.
    pub side: String,
    /// Against whom it is taken in both files, if there is somebody.
    pub control: Option<String>,
    /// The figure.
    pub figure: String,
    /// What it may become worse by.
    pub percent: f64,
    /// New by base; above 1 is more, whether or not that is worse.
    pub ratio: Option<Ratio>,
    /// By how much equal servers came out apart, at most of both files; 1.02 is two per cent.
    pub floor: Option<f64>,
    /// What came of it.
    pub verdict: Verdict,
}

/// What came of all.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// How the command ends.
    pub exit: Exit,
    /// What differs between the machines and between what was measured.
    pub differences: Vec<Difference>,
    /// Why the files cannot be compared, or could not without force.
    pub obstacles: Vec<String>,
    /// Cells of the files in which equal servers came out apart.
    pub void: Vec<String>,
    /// The figures.
    pub rows: Vec<Row>,
    /// What a reader should know beside them.
    pub notes: Vec<String>,
}

/// Compares two sessions.
#[must_use]
pub fn compare(base: &Session, new: &Session, options: &Options) -> Outcome {
    let differences = match (&base.fingerprint, &new.fingerprint) {
        (Some(base), Some(new)) => differences(base, new),
        _ => Vec::new(),
    };
    let mut outcome = Outcome {
        exit: Exit::NotComparable,
        obstacles: obstacles(base, new, &differences),
        differences,
        void: Vec::new(),
        rows: Vec::new(),
        notes: Vec::new(),
    };
    let common: Vec<(&Cell, &Cell)> = base
        .cells
        .iter()
        .filter_map(|cell| Some((cell, new.cells.iter().find(|other| other.name == cell.name)?)))
        .collect();
    if common.is_empty() {
        outcome.obstacles.push("the files have no cell in common".to_owned());
        return outcome;
    }
    if !outcome.obstacles.is_empty() && !options.force {
        return outcome;
    }
    let of = |file: &str, session: &Session| {
        let void = session.void.iter().map(|cell| format!("{file}: {cell}"));
        void.collect::<Vec<_>>()
    };
    outcome.void = [of("BASE", base), of("NEW", new)].concat();
    for (base, new) in common {
        judge::cell(base, new, options, &mut outcome);
    }
    outcome.exit = exit(&mut outcome, options);
    outcome
}

/// Why the files are not of one machine and one scenario.
fn obstacles(base: &Session, new: &Session, differences: &[Difference]) -> Vec<String> {
    let mut obstacles = Vec::new();
    for (file, session) in [("BASE", base), ("NEW", new)] {
        if session.fingerprint.is_none() {
            obstacles.push(format!(
                "{file} has no fingerprint of its machine: it was written by an earlier version of bench"
            ));
        }
    }
    let deciding = differences.iter().filter(|difference| difference.decides);
    obstacles.extend(deciding.map(|difference| format!("the machines differ in {difference}")));
    for (what, left, right) in [
        ("subject", &base.subject, &new.subject),
        ("transport of the load", &base.transport, &new.transport),
    ] {
        if left != right {
            obstacles.push(format!("the scenarios differ in {what}: {left} / {right}"));
        }
    }
    for cell in &base.cells {
        let Some(other) = new.cells.iter().find(|other| other.name == cell.name) else {
            obstacles.push(format!("{}: not in NEW", cell.name));
            continue;
        };
        if cell.timing != other.timing {
            obstacles.push(format!(
                "{}: trials differ in length: {} / {}",
                cell.name, cell.timing, other.timing
            ));
        }
        for side in &cell.sides {
            if !other.sides.iter().any(|other| other.label == side.label) {
                obstacles.push(format!("{}: {} is not in NEW", cell.name, side.label));
            }
        }
    }
    obstacles
}

fn exit(outcome: &mut Outcome, options: &Options) -> Exit {
    for budget in &options.budgets {
        if !outcome.rows.iter().any(|row| row.figure == budget.figure) {
            outcome
                .obstacles
                .push(format!("no side has a figure called {} in both files", budget.figure));
            return Exit::NotComparable;
        }
    }
    let has = |is: fn(&Verdict) -> bool| outcome.rows.iter().any(|row| is(&row.verdict));
    match () {
        () if outcome.rows.is_empty() => {
            outcome
                .obstacles
                .push("no side has samples of a figure with a budget in both files".to_owned());
            Exit::NotComparable
        }
        () if !outcome.void.is_empty() => Exit::Noisy,
        () if has(|verdict| matches!(verdict, Verdict::Regression | Verdict::Gone(_))) => {
            Exit::Regression
        }
        () if has(|verdict| matches!(verdict, Verdict::Undecided(_))) => Exit::Noisy,
        () if has(|verdict| matches!(verdict, Verdict::ClientBound)) => Exit::ClientBound,
        () => Exit::Ok,
    }
}

impl Outcome {
    /// The outcome as text for a terminal.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail, here and below.
        for obstacle in &self.obstacles {
            let forced = self.exit != Exit::NotComparable;
            let why = if forced { "compared by force, though" } else { "not comparable" };
            let _ = writeln!(text, "{why}: {obstacle}");
        }
        for difference in self.differences.iter().filter(|difference| !difference.decides) {
            let _ = writeln!(text, "measured: {difference}");
        }
        for cell in &self.void {
            let _ = writeln!(
                text,
                "VOID: equal servers came out apart in {cell}: run that session again"
            );
        }
        let mut last = "";
        for row in &self.rows {
            if row.cell != last {
                let _ = writeln!(text, "{}", row.cell);
                last = &row.cell;
            }
            text.push_str(&row.line());
        }
        for note in &self.notes {
            let _ = writeln!(text, "{note}");
        }
        let about = crate::exit::TABLE.iter().find(|(exit, _)| *exit == self.exit);
        let _ = writeln!(
            text,
            "exit {}: {}",
            self.exit.code(),
            about.map(|(_, about)| *about).unwrap_or_default()
        );
        text
    }
}

impl Row {
    fn line(&self) -> String {
        let who = match &self.control {
            Some(control) => format!("{} / {control}", self.side),
            None => self.side.clone(),
        };
        let ratio = self.ratio.map_or_else(
            || format!("{:>25}", "-"),
            |ratio| format!("{:>7.3} [{:.3}, {:.3}]", ratio.ratio, ratio.low, ratio.high),
        );
        let floor = self.floor.map_or_else(|| "-".to_owned(), |floor| format!("{floor:.3}"));
        format!(
            "  {who:<28} {:<18} {ratio}  budget {} %, A/A {floor}: {}\n",
            self.figure, self.percent, self.verdict
        )
    }
}
