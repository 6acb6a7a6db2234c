//! A run as an aligned table, for a terminal.
//!
//! Next: `html` for the same with pictures.

use std::fmt::Write as _;

use super::notes::notes;
use super::{Report, figure};
use crate::compare::{Outcome, Verdict};
use crate::machine::Machine;

/// A machine in a line.
#[must_use]
pub fn machine_line(machine: &Machine) -> String {
    format!(
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
    )
}

impl Report {
    /// The report as text for a terminal.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{}", machine_line(&self.machine));
        text.push_str(&self.machine.fingerprint_lines());
        for version in self.versions() {
            let _ = writeln!(text, "  {version}");
        }
        text.push('\n');
        text.push_str(&self.table());
        for cell in &self.void {
            let _ = writeln!(
                text,
                "VOID: equal servers came out apart in {cell}: run the session again"
            );
        }
        for cell in &self.cells {
            for note in notes(cell) {
                let _ = writeln!(text, "{} {}: {note}", cell.row, cell.name);
            }
        }
        text
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
                "of medians",
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
    let of_medians = match verdict.ratio.and_then(|ratio| ratio.of_medians) {
        Some(ratio) => format!("{:.3} ({:.3}-{:.3})", ratio.value, ratio.low, ratio.high),
        None => "-".to_owned(),
    };
    let same = match cell.same.filter(|same| same.metric == verdict.metric) {
        Some(same) => {
            format!("{:.3} ({:.3}-{:.3})", same.ratio.ratio, same.ratio.low, same.ratio.high)
        }
        None => "-".to_owned(),
    };
    vec![
        cell.row.clone(),
        cell.name.clone(),
        verdict.metric.title().to_owned(),
        verdict.candidate.clone(),
        pair(verdict.candidate_median, verdict.candidate_min),
        verdict.baseline.clone().unwrap_or_else(|| "-".to_owned()),
        pair(verdict.baseline_median, verdict.baseline_min),
        ratio,
        interval,
        of_medians,
        same,
        verdict.bar.ascii(),
        verdict.judgement.ascii().to_owned(),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let rows = [["a", "bb"], ["ccc", "d"]].map(|row| row.map(str::to_owned).to_vec());
        assert_eq!(align(&rows), "a    bb\nccc  d\n");
    }
}
