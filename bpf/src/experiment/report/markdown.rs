//! A report as Markdown. Invariant: all that comes from a journal goes through [`line`]. Next: `html`.

use std::fmt::Write as _;

use super::packets::Packets;
use super::{Bar, Look, Report, shown};

/// Most points of a fault's counts that are listed; the timeline of the page has them all.
const POINTS_MAX: usize = 20;

pub(super) fn text(report: &Report) -> String {
    let mut out = format!("# {}\n\n{}\n\n", line(&report.title), line(&report.description));
    let _ = writeln!(out, "**Verdict: {}**\n", line(&report.verdict));
    let _ = writeln!(
        out,
        "Began {}, took {:.1} s, on {}.\n",
        line(&report.begin),
        report.seconds,
        line(&report.host)
    );
    hypothesis(report, &mut out);
    activities(report, &mut out);
    for bar in report.bars.iter().filter(|bar| !bar.points.is_empty()) {
        counts(bar, &mut out);
    }
    if let Some(all) = &report.packets {
        packets(all, &mut out);
    }
    if !report.notes.is_empty() {
        out.push_str("## Notes\n\n");
        for note in &report.notes {
            let _ = writeln!(out, "- {}", line(note));
        }
    }
    out
}

/// Text within a line, or a cell, of Markdown.
fn line(text: &str) -> String {
    let mut done = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' | '\r' | '\t' => done.push(' '),
            '|' | '<' | '>' | '*' | '_' | '`' | '[' | ']' | '\\' | '#' => done.extend(['\\', c]),
            c => done.push(c),
        }
    }
    done
}

fn hypothesis(report: &Report, out: &mut String) {
    if report.hypothesis.is_empty() {
        return;
    }
    let _ = writeln!(out, "## Hypothesis\n\n{}\n", line(&report.hypothesis));
    for (name, tolerance) in &report.tolerances {
        let _ = writeln!(out, "- {}: {}", line(name), line(tolerance));
    }
    out.push_str("\n| when | looks | held | first that did not (s) | probe | it found |\n|---|---:|---:|---:|---|---|\n");
    for when in ["before", "during", "after"] {
        let looks: Vec<&Look> = report.looks.iter().filter(|look| look.when == when).collect();
        let held = looks.iter().filter(|look| look.is_met).count();
        let broken = looks.iter().find(|look| !look.is_met);
        let (at, probe, found) = broken.map_or_else(Default::default, |look| {
            let (probe, found) = look.broken.clone().unwrap_or_default();
            (format!("{:.1}", look.at), probe, found)
        });
        if !looks.is_empty() {
            let _ = writeln!(
                out,
                "| {when} | {} | {held} | {at} | {} | {} |",
                looks.len(),
                line(&probe),
                line(&found)
            );
        }
    }
    out.push('\n');
}

fn activities(report: &Report, out: &mut String) {
    if report.bars.is_empty() {
        return;
    }
    out.push_str("## What was done\n\n| from (s) | to (s) | section | activity | by | result | output |\n|---:|---:|---|---|---|---|---|\n");
    for bar in &report.bars {
        let result = if bar.is_good { "succeeded" } else { "failed" };
        let name = line(&format!("{}: {}", bar.kind, bar.name));
        let (by, output) = (line(&bar.provider), line(&shown(&bar.output)));
        let _ = writeln!(
            out,
            "| {:.1} | {:.1} | {} | {name} | {by} | {result} | {output} |",
            bar.from, bar.to, bar.section
        );
    }
    out.push('\n');
}

/// What a fault met, over time.
fn counts(bar: &Bar, out: &mut String) {
    let _ = writeln!(
        out,
        "### Counts of {}\n\n| second | matched | affected | in force |\n|---:|---:|---:|---|",
        line(&bar.name)
    );
    let every = bar.points.len().div_ceil(POINTS_MAX).max(1);
    for (index, point) in bar.points.iter().enumerate() {
        if index % every == 0 || index + 1 == bar.points.len() {
            let in_force = if point.in_force { "yes" } else { "no" };
            let _ = writeln!(
                out,
                "| {:.1} | {} | {} | {in_force} |",
                point.at, point.matched, point.affected
            );
        }
    }
    out.push('\n');
}

fn packets(packets: &Packets, out: &mut String) {
    let cells =
        |cells: &[String]| cells.iter().map(|cell| line(cell)).collect::<Vec<_>>().join(" | ");
    let rules = "---:|".repeat(packets.columns.len());
    out.push_str("## Packets\n\n");
    for note in &packets.notes {
        let _ = writeln!(out, "{}\n", line(note));
    }
    if packets.rows.is_empty() {
        return;
    }
    let _ = writeln!(out, "| metric | {} |\n|---|{rules}", cells(&packets.columns));
    for (name, values) in &packets.rows {
        let _ = writeln!(out, "| {} | {} |", line(name), cells(values));
    }
    out.push('\n');
}
