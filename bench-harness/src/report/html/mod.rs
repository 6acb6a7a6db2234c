//! A report as one HTML page: no script, nothing loaded from elsewhere, light and dark as the reader's system is.
//!
//! In order: what came of the claims, where and with what it was measured, all ratios in one picture, the same as a
//! table, then each cell with its samples and latencies, and how to make it again. Invariants: all text that comes
//! from a report is escaped; the page's own policy forbids loading anything. Next: `charts`, `cells`.

mod cells;
mod charts;

use std::fmt::Write as _;

use serde_json::Value;

use super::date;
use super::figure;
use super::json::Saved;
use super::summary::{Cell, Summary, Verdict};
use super::svg::escape;
use crate::compare::Judgement;

const STYLE: &str = include_str!("style.css");

/// The page of `saved`.
#[must_use]
pub fn page(saved: &Saved) -> String {
    let summary = Summary::from(saved);
    let title = format!("Benchmark of the {}", summary.subject);
    let mut body = String::new();
    head(&mut body, &summary, &title);
    void(&mut body, saved);
    machine(&mut body, saved, &summary);
    forest(&mut body, &summary);
    table(&mut body, &summary);
    cells::write(&mut body, saved, &summary);
    reading(&mut body, &summary);
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <title>{} · {}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n{body}</body>\n</html>\n",
        escape(&title),
        date::day(summary.unix_s),
    )
}

/// Colour and shape of a judgement.
const fn judged(judgement: Judgement) -> (&'static str, usize) {
    match judgement {
        Judgement::Met => ("met", 0),
        Judgement::MetAtMedian => ("near", 2),
        Judgement::Missed => ("missed", 1),
        Judgement::NotRun | Judgement::Shown => ("none", 3),
    }
}

/// `value` of the figure called `figure`: times in their natural unit, large numbers with a prefix.
fn quantity(figure: &str, value: f64) -> String {
    let time = figure == "ns" || figure.ends_with(" ns");
    let steps: &[(f64, &str)] = match time {
        true => &[(1e9, " s"), (1e6, " ms"), (1e3, " µs"), (0.0, " ns")],
        false => &[(1e9, " G"), (1e6, " M"), (1e4, " k"), (0.0, "")],
    };
    let (_, unit) = steps.iter().find(|(from, _)| value.abs() >= *from).unwrap_or(&(0.0, ""));
    let scaled = match unit.trim() {
        "s" | "G" => value / 1e9,
        "ms" | "M" => value / 1e6,
        "µs" | "k" => value / 1e3,
        _ => value,
    };
    let text = match scaled.abs() {
        size if size >= 100.0 => format!("{scaled:.0}"),
        size if size >= 10.0 => format!("{scaled:.1}"),
        _ => format!("{scaled:.2}"),
    };
    let text =
        if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}{unit}")
}

fn head(body: &mut String, summary: &Summary, title: &str) {
    let counts = summary.counts();
    // Writing to a string cannot fail, here and below.
    let _ = write!(
        body,
        "<h1>{}</h1>\n<p class=\"sub\">{} · {}</p>\n<div class=\"tiles\">\n",
        escape(title),
        date::minute(summary.unix_s),
        escape(&summary.machine),
    );
    let bars = counts.met + counts.at_median + counts.missed;
    let mut tile = |class: &str, count: String, about: &str| {
        let _ =
            writeln!(body, "<div class=\"tile {class}\"><b>{count}</b><span>{about}</span></div>");
    };
    tile("met", format!("{} of {bars}", counts.met), "bars met");
    tile("near", counts.at_median.to_string(), "met at the median only");
    tile("missed", counts.missed.to_string(), "missed");
    if counts.not_run > 0 {
        tile("none", counts.not_run.to_string(), "not run");
    }
    let (apart, pairs) = summary.unequal();
    if pairs > 0 {
        let class = if apart > 0 { "near" } else { "met" };
        tile(class, format!("{} of {pairs}", pairs - apart), "pairs of equal servers (A/A) alike");
    }
    let rounds = summary.cells.iter().map(|cell| cell.rounds);
    let (least, most) = (rounds.clone().min().unwrap_or(0), rounds.max().unwrap_or(0));
    let rounds = if least == most { most.to_string() } else { format!("{least}–{most}") };
    tile("none", rounds, "rounds in a cell");
    let _ =
        writeln!(body, "</div>\n<p>To make it again:</p>\n<pre>{}</pre>", escape(&summary.command));
}

/// What stands above everything else: equal servers that came out apart.
fn void(body: &mut String, saved: &Saved) {
    let Saved::Requests(report) = saved else { return };
    for cell in &report.void {
        let _ = writeln!(
            body,
            "<p class=\"void\"><b>VOID</b>: equal servers came out apart in {}: no difference here means anything; run it again.</p>",
            escape(cell)
        );
    }
}

/// What is known of the machine, whatever a version of the report says of it, and who took part.
fn machine(body: &mut String, saved: &Saved, summary: &Summary) {
    let machine = match saved {
        Saved::Requests(report) => serde_json::to_value(&report.machine),
        Saved::Figures(report) => serde_json::to_value(&report.machine),
    };
    let mut facts = Vec::new();
    flatten("", &machine.unwrap_or_default(), &mut facts);
    if let Saved::Requests(report) = saved {
        flatten(
            "transport",
            &serde_json::to_value(report.transport).unwrap_or_default(),
            &mut facts,
        );
        facts.push(("seed".to_owned(), report.seed.to_string()));
    }
    facts.push(("bench".to_owned(), summary.bench_version.clone()));
    body.push_str("<h2>Where and with what</h2>\n<dl class=\"facts\">\n");
    for (name, value) in facts {
        let _ = writeln!(body, "<div><dt>{}</dt><dd>{}</dd></div>", escape(&name), escape(&value));
    }
    body.push_str("</dl>\n");
    let machine = match saved {
        Saved::Requests(report) => &report.machine,
        Saved::Figures(report) => &report.machine,
    };
    for line in machine.fingerprint_lines().lines() {
        let _ = writeln!(body, "<p class=\"hint\">{}</p>", escape(line));
    }
    if !summary.versions.is_empty() {
        body.push_str("<p>Took part:</p>\n<ul class=\"notes\">\n");
        for version in &summary.versions {
            let _ = writeln!(body, "<li>{}</li>", escape(version));
        }
        body.push_str("</ul>\n");
    }
}

/// The leaves of `value`, each with its path in words.
fn flatten(path: &str, value: &Value, facts: &mut Vec<(String, String)>) {
    let words = path.replace('_', " ");
    match value {
        Value::Null => {}
        Value::Object(fields) => {
            for (name, value) in fields {
                let path = if path.is_empty() { name.clone() } else { format!("{path}: {name}") };
                flatten(&path, value, facts);
            }
        }
        Value::Array(items) if items.iter().all(|item| !item.is_object() && !item.is_array()) => {
            let items: Vec<String> = items.iter().map(leaf).collect();
            facts.push((words, items.join(", ")));
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                flatten(&format!("{path} {}", index + 1), item, facts);
            }
        }
        Value::Number(number) if path.ends_with("_bytes") => {
            let gib = number.as_f64().unwrap_or_default() / f64::from(1 << 30);
            facts.push((words.trim_end_matches(" bytes").to_owned(), format!("{gib:.1} GiB")));
        }
        Value::Number(number) if path.ends_with("unix_s") => {
            let what = match words.trim_end_matches("unix s").trim_end_matches([' ', ':']) {
                "" => "begun".to_owned(),
                what => format!("{what}: at"),
            };
            facts.push((what, date::minute(number.as_u64().unwrap_or_default())));
        }
        other => facts.push((words, leaf(other))),
    }
}

fn leaf(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        other => other.to_string(),
    }
}

fn forest(body: &mut String, summary: &Summary) {
    let Some(chart) = charts::forest(summary) else { return };
    body.push_str("<h2>Ratios</h2>\n<p class=\"hint\">Left of 1 we take or give less. ");
    body.push_str("The thick stroke is the bar. The band is how far apart two runs of the same server came out (A/A). ");
    body.push_str("● bar met by the whole interval, ◆ by the median only, ■ missed, ▲ no bar. * too few rounds for an interval.</p>\n");
    let _ = writeln!(body, "<div class=\"scroll\">{chart}</div>");
}

fn table(body: &mut String, summary: &Summary) {
    body.push_str("<h2>Claims</h2>\n");
    let rows = summary.cells.iter().flat_map(|cell| cell.verdicts.iter().map(move |v| (cell, v)));
    verdicts(body, rows, true);
    if !summary.skipped.is_empty() {
        body.push_str("<p>Not run:</p>\n<ul class=\"notes\">\n");
        for skipped in &summary.skipped {
            let _ = writeln!(body, "<li>{}</li>", escape(skipped));
        }
        body.push_str("</ul>\n");
    }
}

/// A table of verdicts, with the cells they are of or without.
fn verdicts<'a>(
    body: &mut String,
    rows: impl Iterator<Item = (&'a Cell, &'a Verdict)>,
    with_cells: bool,
) {
    body.push_str("<div class=\"scroll\"><table>\n<tr>");
    if with_cells {
        body.push_str("<th>row</th><th>what</th>");
    }
    body.push_str(
        "<th>figure</th><th>candidate</th><th class=\"n\">median</th><th>baseline</th>\
         <th class=\"n\">median</th><th class=\"n\">ratio</th><th class=\"n\">95 %</th>\
         <th class=\"n\">A/A</th><th>bar</th><th>result</th></tr>\n",
    );
    let mut last: Option<&Cell> = None;
    for (cell, verdict) in rows {
        body.push_str("<tr>");
        if with_cells && !last.is_some_and(|last| std::ptr::eq(last, cell)) {
            let _ = write!(
                body,
                "<td rowspan=\"{0}\">{1}</td><td rowspan=\"{0}\">{2}</td>",
                cell.verdicts.len(),
                escape(&cell.row),
                escape(&cell.name)
            );
        }
        last = Some(cell);
        let (ratio, interval) = verdict.ratio.map_or_else(Default::default, |ratio| {
            let few = if ratio.is_solid() { "" } else { " *" };
            let interval = format!("{:.3}–{:.3}{few}", ratio.low, ratio.high);
            (format!("{:.3}", ratio.ratio), interval)
        });
        let same = cell.same.as_ref().filter(|same| same.figure == verdict.figure);
        let same = same.map(|same| format!("{:.3}–{:.3}", same.ratio.low, same.ratio.high));
        let (class, _) = judged(verdict.judgement);
        let _ = writeln!(
            body,
            "<td class=\"figure\">{}</td><td>{}</td><td class=\"n\">{}</td><td>{}</td><td class=\"n\">{}</td>\
             <td class=\"n\">{ratio}</td><td class=\"n\">{interval}</td><td class=\"n\">{}</td>\
             <td class=\"bar\">{}</td><td class=\"{class}\">{}</td></tr>",
            escape(&verdict.figure),
            escape(&verdict.candidate),
            figure(verdict.candidate_median),
            escape(verdict.baseline.as_deref().unwrap_or("–")),
            figure(verdict.baseline_median),
            same.unwrap_or_default(),
            escape(&verdict.bar.words()),
            verdict.judgement.words(),
        );
    }
    body.push_str("</table></div>\n");
}

fn reading(body: &mut String, summary: &Summary) {
    body.push_str("<h2>How to read this</h2>\n<ul class=\"notes\">\n");
    for line in [
        "Every round runs each side once on a fresh process, in alternating order; a figure is the median over rounds, a ratio that of two medians.",
        "Intervals come from resampling whole rounds; with fewer than six rounds they are marked * and prove nothing.",
        "A difference within the A/A band is none: equal servers came out that far apart here.",
        "Where the client was the limit, rates and latencies are the client's; CPU per operation is the server's still.",
        "Latency in an open loop counts from when a request was due, so that a stall shows in every request it delayed.",
    ] {
        let _ = writeln!(body, "<li>{line}</li>");
    }
    let _ = writeln!(
        body,
        "</ul>\n<p class=\"hint\">bench {} · the same as JSON: <code>--json</code>; as CSV, histogram log or text: \
         <code>bench report FILE.json --csv F --hlog F --text</code></p>",
        escape(&summary.bench_version)
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_have_their_unit() {
        assert_eq!(quantity("p99 ns", 1_234_567.0), "1.23 ms");
        assert_eq!(quantity("ns", 120_000.0), "120 µs");
        assert_eq!(quantity("ns", 0.0), "0 ns");
        assert_eq!(quantity("replies/s", 1_250_000.0), "1.25 M");
        assert_eq!(quantity("server CPU ns/op", 4_320.0), "4320");
        assert_eq!(quantity("hops/op", 0.05), "0.05");
    }

    #[test]
    fn any_description_of_a_machine_is_shown() {
        let value = serde_json::json!({
            "cpu": "a CPU", "memory_bytes": 2_u64 << 30, "fifo": false, "mitigations": {"spectre_v2": "off"},
            "flags": ["a", "b"], "nics": [{"driver": "x"}], "unix_s": 0, "none": null,
        });
        let mut facts = Vec::new();
        flatten("", &value, &mut facts);
        facts.sort();
        let facts: Vec<String> =
            facts.iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(
            facts,
            [
                "begun=1970-01-01 00:00 UTC",
                "cpu=a CPU",
                "fifo=no",
                "flags=a, b",
                "memory=2.0 GiB",
                "mitigations: spectre v2=off",
                "nics 1: driver=x",
            ]
        );
    }
}
