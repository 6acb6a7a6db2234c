//! The part of a page about each cell: its claims, who set the pace, samples by round, latencies by percentile, notes.
//!
//! Invariant: a cell of either kind of report gets what there is of it. Next: `charts`.

use std::fmt::Write as _;

use super::super::json::Saved;
use super::super::summary::{Cell, Summary};
use super::super::svg::escape;
use super::super::{figure, hdr};
use super::charts::{self, Series};
use super::{quantity, verdicts};
use crate::compare::{Outcome, SideOutcome};
use crate::figures;
use crate::load::trial::{Limit, Trial};
use crate::stats;

/// Charts of samples in a cell, at most.
const STRIPS_MAX: usize = 6;

/// Writes the sections of all cells.
pub(super) fn write(body: &mut String, saved: &Saved, summary: &Summary) {
    body.push_str("<h2>Cells</h2>\n");
    for (index, cell) in summary.cells.iter().enumerate() {
        // Writing to a string cannot fail, here and below.
        let _ = writeln!(
            body,
            "<section>\n<h3>{} {}</h3>",
            escape(&if cell.row.is_empty() {
                String::new()
            } else {
                format!("Row {} ·", cell.row)
            }),
            escape(&cell.name)
        );
        match saved {
            Saved::Requests(report) => requests(body, &report.cells[index], cell),
            Saved::Figures(report) => figured(body, &report.cells[index], cell),
        }
        if !cell.notes.is_empty() {
            body.push_str("<ul class=\"notes\">\n");
            for note in &cell.notes {
                let _ = writeln!(body, "<li>{}</li>", escape(note));
            }
            body.push_str("</ul>\n");
        }
        body.push_str("</section>\n");
    }
}

fn requests(body: &mut String, outcome: &Outcome, cell: &Cell) {
    verdicts(body, cell.verdicts.iter().map(|verdict| (cell, verdict)), false);
    pace(body, outcome);
    let labels: Vec<String> = outcome.sides.iter().map(|side| side.label.clone()).collect();
    body.push_str(&charts::legend(&labels));
    body.push_str("\n<div class=\"charts\">\n");
    for title in claimed(cell) {
        let metric = outcome.verdicts.iter().find(|verdict| verdict.metric.title() == title);
        let Some(metric) = metric.map(|verdict| verdict.metric) else { continue };
        let series =
            |side: &SideOutcome| Series { label: side.label.clone(), values: side.values(metric) };
        let series: Vec<Series> = outcome.sides.iter().map(series).collect();
        body.extend(charts::strip(title, &series));
    }
    let merged = |side: &SideOutcome| {
        let texts = trials(side).map(|trial| trial.latency_hdr.as_str());
        (side.label.clone(), hdr::sum(texts))
    };
    let merged: Vec<_> = outcome.sides.iter().map(merged).collect();
    body.extend(charts::percentiles(&merged));
    body.push_str("</div>\n");
}

/// The figures a cell claims something about, each once; where it claims nothing, its latencies and CPU.
fn claimed(cell: &Cell) -> Vec<&str> {
    let mut names: Vec<&str> =
        cell.verdicts.iter().map(|verdict| verdict.figure.as_str()).collect();
    if names.is_empty() {
        let all = cell.sides.iter().flat_map(|side| side.figures.keys());
        let shown = |name: &&String| ["p50", "p99_", "cpu"].iter().any(|part| name.contains(part));
        names.extend(all.filter(shown).map(String::as_str));
    }
    let mut figures: Vec<&str> = Vec::new();
    for name in names {
        if !figures.contains(&name) {
            figures.push(name);
        }
    }
    figures.truncate(STRIPS_MAX);
    figures
}

fn trials(side: &SideOutcome) -> impl Iterator<Item = &Trial> {
    side.samples.iter().filter_map(|sample| sample.trial.as_ref())
}

/// Who set the pace: a row for each side that a load of ours ran on.
fn pace(body: &mut String, outcome: &Outcome) {
    if outcome.sides.iter().all(|side| trials(side).next().is_none()) {
        return;
    }
    body.push_str(
        "<div class=\"scroll\"><table>\n<tr><th>side</th><th>pace set by</th>\
         <th class=\"n\">server busy</th><th class=\"n\">client busy</th><th class=\"n\">p50</th>\
         <th class=\"n\">p99</th><th class=\"n\">p99.9</th><th class=\"n\">max</th>\
         <th class=\"n\">schedule lag p99</th><th class=\"n\">arrivals</th><th class=\"n\">missed</th>\
         <th class=\"n\">switches/op</th><th class=\"n\">syscalls/op</th></tr>\n",
    );
    for side in &outcome.sides {
        let trials: Vec<&Trial> = trials(side).collect();
        if trials.is_empty() {
            continue;
        }
        let median = |of: &dyn Fn(&Trial) -> f64| {
            stats::median(&trials.iter().map(|trial| of(trial)).collect::<Vec<_>>())
        };
        let time = |of: &dyn Fn(&Trial) -> u64| quantity("ns", median(&|trial| of(trial) as f64));
        let sum = |of: &dyn Fn(&Trial) -> u64| trials.iter().map(|trial| of(trial)).sum::<u64>();
        let (offered, missed) = (sum(&|trial| trial.offered), sum(&|trial| trial.missed));
        let open = offered > 0;
        let syscalls: Vec<f64> = trials.iter().filter_map(|trial| trial.syscalls_per_op).collect();
        let syscalls = stats::median(&syscalls);
        let _ = writeln!(
            body,
            "<tr><td>{}</td><td>{}</td><td class=\"n\">{:.0} %</td><td class=\"n\">{:.0} %</td>\
             <td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td>\
             <td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td>\
             <td class=\"n\">{}</td></tr>",
            escape(&side.label),
            limits(&trials),
            median(&|trial| trial.server_busy) * 100.0,
            median(&|trial| trial.client_busy) * 100.0,
            time(&|trial| trial.latency.p50_ns),
            time(&|trial| trial.latency.p99_ns),
            time(&|trial| trial.latency.p999_ns),
            quantity(
                "ns",
                trials.iter().map(|trial| trial.latency.max_ns).max().unwrap_or(0) as f64
            ),
            if open { time(&|trial| trial.lag.p99_ns) } else { "closed loop".to_owned() },
            if open { offered.to_string() } else { "–".to_owned() },
            match missed {
                0 if open => "0".to_owned(),
                0 => "–".to_owned(),
                missed => format!("<span class=\"label-chip missed\">{missed}</span>"),
            },
            figure(Some(median(&|trial| trial.switches_per_op))),
            figure(Some(syscalls).filter(|each| !each.is_nan())),
        );
    }
    body.push_str("</table></div>\n");
}

/// A label for each limit that trials met, with how many did.
fn limits(trials: &[&Trial]) -> String {
    let mut text = String::new();
    for (limit, class, words) in [
        (Limit::Server, "met", "server"),
        (Limit::Client, "missed", "client-bound"),
        (Limit::Neither, "near", "neither"),
    ] {
        let count = trials.iter().filter(|trial| trial.limit == limit).count();
        if count > 0 {
            let of = trials.len();
            let _ = write!(text, "<span class=\"label-chip {class}\">{words} {count}/{of}</span>");
        }
    }
    text
}

fn figured(body: &mut String, outcome: &figures::Cell, cell: &Cell) {
    if !cell.verdicts.is_empty() {
        verdicts(body, cell.verdicts.iter().map(|verdict| (cell, verdict)), false);
    }
    let mut names: Vec<&str> = Vec::new();
    for name in cell.sides.iter().flat_map(|side| side.figures.keys()) {
        if !names.contains(&name.as_str()) {
            names.push(name);
        }
    }
    // Sides across, since figures are many.
    body.push_str("<div class=\"scroll\"><table>\n<tr><th>median of</th>");
    for side in &cell.sides {
        let _ = write!(body, "<th class=\"n\">{}</th>", escape(&side.name));
    }
    body.push_str("</tr>\n");
    for name in names {
        let _ = write!(body, "<tr><td>{}</td>", escape(name));
        for side in &cell.sides {
            let _ =
                write!(body, "<td class=\"n\">{}</td>", figure(side.figures.get(name).copied()));
        }
        body.push_str("</tr>\n");
    }
    body.push_str("</table></div>\n");
    let labels: Vec<String> = outcome.sides.iter().map(|side| side.name.clone()).collect();
    body.push_str(&charts::legend(&labels));
    body.push_str("\n<div class=\"charts\">\n");
    for title in claimed(cell) {
        let series =
            |side: &figures::Side| Series { label: side.name.clone(), values: side.values(title) };
        let series: Vec<Series> = outcome.sides.iter().map(series).collect();
        body.extend(charts::strip(title, &series));
    }
    body.push_str("</div>\n");
}
