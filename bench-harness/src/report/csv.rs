//! Every sample as a row of comma-separated values (RFC 4180), the first row being the names.
//!
//! A figure that a sample has not is an empty field. Invariant: every row has as many fields as the first.
//! Next: `json` for all there is, histograms included.

use std::collections::BTreeSet;

use super::Report;
use super::json::Saved;
use crate::compare::{Metric, Sample};
use crate::figures;

/// Names of what is taken of a trial, in the order of [`trial_fields`].
const TRIAL_FIELDS: [&str; 23] = [
    "begun_unix_us",
    "elapsed_ns",
    "replies",
    "server_busy",
    "client_busy",
    "client_cpu_ns_per_op",
    "server_wait",
    "foreign",
    "switches_per_op",
    "wait_ns_per_op",
    "syscalls_per_op",
    "instructions_per_op",
    "cycles_per_op",
    "p50_ns",
    "p90_ns",
    "p99_ns",
    "p999_ns",
    "max_ns",
    "lag_p99_ns",
    "offered",
    "missed",
    "misses",
    "limit",
];

/// The samples of `saved`.
#[must_use]
pub fn table(saved: &Saved) -> String {
    let rows = match saved {
        Saved::Requests(report) => of_requests(report),
        Saved::Figures(report) => of_figures(report),
    };
    let mut text = String::new();
    for row in rows {
        let fields: Vec<String> = row.iter().map(|field| quoted(field)).collect();
        text.push_str(&fields.join(","));
        text.push_str("\r\n");
    }
    text
}

fn quoted(field: &str) -> String {
    if field.contains([',', '"', '\n', '\r']) {
        return format!("\"{}\"", field.replace('"', "\"\""));
    }
    field.to_owned()
}

fn of_requests(report: &Report) -> Vec<Vec<String>> {
    let sides = || report.cells.iter().flat_map(|cell| &cell.sides);
    let metrics: BTreeSet<Metric> = sides()
        .flat_map(|side| &side.samples)
        .flat_map(|sample| sample.values.iter().map(|(metric, _)| *metric))
        .collect();
    let mut head: Vec<String> =
        ["row", "cell", "side", "version", "round"].map(str::to_owned).to_vec();
    head.extend(metrics.iter().map(|metric| metric.title().to_owned()));
    head.extend(TRIAL_FIELDS.map(|name| format!("trial {name}")));
    let mut rows = vec![head];
    for cell in &report.cells {
        for side in &cell.sides {
            for (round, sample) in side.samples.iter().enumerate() {
                let mut row = vec![cell.row.clone(), cell.name.clone(), side.label.clone()];
                row.extend([side.version.clone(), (round + 1).to_string()]);
                row.extend(metrics.iter().map(|metric| number(sample.value(*metric))));
                row.extend(trial_fields(sample));
                rows.push(row);
            }
        }
    }
    rows
}

fn number(value: Option<f64>) -> String {
    value.map(|value| value.to_string()).unwrap_or_default()
}

fn trial_fields(sample: &Sample) -> [String; 23] {
    let Some(trial) = &sample.trial else { return Default::default() };
    let limit = serde_json::to_value(trial.limit).unwrap_or_default();
    [
        trial.begun_unix_us.to_string(),
        trial.elapsed_ns.to_string(),
        trial.replies.to_string(),
        trial.server_busy.to_string(),
        trial.client_busy.to_string(),
        trial.client_cpu_ns_per_op.to_string(),
        trial.server_wait.to_string(),
        trial.foreign.to_string(),
        trial.switches_per_op.to_string(),
        trial.wait_ns_per_op.to_string(),
        number(trial.syscalls_per_op),
        number(trial.instructions_per_op),
        number(trial.cycles_per_op),
        trial.latency.p50_ns.to_string(),
        trial.latency.p90_ns.to_string(),
        trial.latency.p99_ns.to_string(),
        trial.latency.p999_ns.to_string(),
        trial.latency.max_ns.to_string(),
        trial.lag.p99_ns.to_string(),
        trial.offered.to_string(),
        trial.missed.to_string(),
        trial.misses.to_string(),
        limit.as_str().unwrap_or_default().to_owned(),
    ]
}

fn of_figures(report: &figures::Report) -> Vec<Vec<String>> {
    let sides = || report.cells.iter().flat_map(|cell| &cell.sides);
    let names: BTreeSet<&str> = sides()
        .flat_map(|side| &side.trials)
        .flat_map(|trial| trial.keys())
        .map(String::as_str)
        .collect();
    let mut head: Vec<String> = ["cell", "side", "round"].map(str::to_owned).to_vec();
    head.extend(names.iter().map(|name| (*name).to_owned()));
    let mut rows = vec![head];
    for cell in &report.cells {
        for side in &cell.sides {
            for (round, trial) in side.trials.iter().enumerate() {
                let mut row = vec![cell.name.clone(), side.name.clone(), (round + 1).to_string()];
                row.extend(names.iter().map(|name| number(trial.get(*name).copied())));
                rows.push(row);
            }
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_with_separators_are_quoted() {
        assert_eq!(quoted("a"), "a");
        assert_eq!(quoted("a, \"b\""), "\"a, \"\"b\"\"\"");
        assert_eq!(quoted("a\nb"), "\"a\nb\"");
    }
}
