//! Measured tables in a document: what stands between two markers is made from saved summaries.
//!
//! `<!-- bench:begin NAME -->` … `<!-- bench:end NAME -->` holds what `NAME.json` says, and `overview` a line for each
//! of them. Prose around the blocks is left alone. Invariants: equal results give an equal document; every block has
//! the command, the machine and the day; each result has a block, and a block without a result says so. Next:
//! `summary` for what is saved.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use super::summary::{Cell, Side, Summary, Verdict};
use super::{date, figure};
use crate::compare::Judgement;

const BEGIN: &str = "<!-- bench:begin ";
const END: &str = "<!-- bench:end ";
const CLOSE: &str = " -->";
/// The block with a line for each result.
const OVERVIEW: &str = "overview";

/// Summaries by the names of their files.
pub type Results = BTreeMap<String, Summary>;

/// All summaries in the folder `dir`.
///
/// # Errors
/// The folder or a file in it cannot be read.
pub fn results(dir: &Path) -> Result<Results> {
    let mut results = Results::new();
    for entry in fs::read_dir(dir).with_context(|| format!("read {}", dir.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "json") {
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            results.insert(name, Summary::read(&path)?);
        }
    }
    Ok(results)
}

/// `document` with its blocks made anew from `results`.
///
/// # Errors
/// Markers do not match, or a result has no block.
pub fn regenerate(document: &str, results: &Results) -> Result<String> {
    let mut text = String::with_capacity(document.len());
    let mut seen = Vec::new();
    let mut open: Option<String> = None;
    for (index, line) in document.lines().enumerate() {
        let number = index + 1;
        match (marker(line, BEGIN), marker(line, END), &open) {
            (Some(name), _, None) => {
                if seen.iter().any(|seen| seen == name) {
                    bail!("line {number}: block {name} is there twice");
                }
                // A blank line, since Markdown takes what follows a comment at once as HTML.
                let _ = write!(text, "{line}\n\n{}\n", block(name, results).trim_end());
                text.push('\n');
                seen.push(name.to_owned());
                open = Some(name.to_owned());
            }
            (Some(name), _, Some(open)) => {
                bail!("line {number}: block {name} begins inside {open}")
            }
            (_, Some(name), Some(begun)) if name == begun => {
                let _ = writeln!(text, "{line}");
                open = None;
            }
            (_, Some(name), begun) => {
                let begun = begun.as_deref().unwrap_or("none");
                bail!("line {number}: block {name} ends, but what began is {begun}");
            }
            (None, None, None) => {
                let _ = writeln!(text, "{line}");
            }
            (None, None, Some(_)) => {}
        }
    }
    if let Some(open) = open {
        bail!("block {open} does not end");
    }
    if let Some(lost) = results.keys().find(|name| !seen.contains(name)) {
        bail!(
            "{lost}.json has no block: put {BEGIN}{lost}{CLOSE} and {END}{lost}{CLOSE} where it belongs"
        );
    }
    Ok(text)
}

fn marker<'a>(line: &'a str, kind: &str) -> Option<&'a str> {
    line.trim().strip_prefix(kind)?.strip_suffix(CLOSE)
}

/// The first line in which two documents differ, as they are said to someone.
#[must_use]
pub fn difference(have: &str, want: &str) -> Option<String> {
    if have == want {
        return None;
    }
    let (mut have, mut want) = (have.lines(), want.lines());
    for number in 1.. {
        let (left, right) = (have.next(), want.next());
        if left != right || left.is_none() {
            let said = |line: Option<&str>| line.unwrap_or("(nothing)").to_owned();
            return Some(format!(
                "line {number} is\n  {}\nand should be\n  {}",
                said(left),
                said(right)
            ));
        }
    }
    None
}

fn block(name: &str, results: &Results) -> String {
    if name == OVERVIEW {
        return overview(results);
    }
    match results.get(name) {
        Some(summary) => result(summary),
        None => format!("*Not measured yet: `make bench-all ROWS={name}`.*\n"),
    }
}

fn overview(results: &Results) -> String {
    let mut text = String::from(
        "| result | command | day | rounds | bars met | at the median | missed | not run | A/A alike |\n\
         |---|---|---|---|---|---|---|---|---|\n",
    );
    for (name, summary) in results {
        let counts = summary.counts();
        let (apart, pairs) = summary.unequal();
        let alike =
            if pairs == 0 { "–".to_owned() } else { format!("{} of {pairs}", pairs - apart) };
        // Writing to a string cannot fail, here and below.
        let _ = writeln!(
            text,
            "| {} | `{}` | {} | {} | {} of {} | {} | {} | {} | {alike} |",
            cellular(name),
            cellular(&summary.command),
            date::day(summary.unix_s),
            rounds(summary),
            counts.met,
            counts.met + counts.at_median + counts.missed,
            counts.at_median,
            counts.missed,
            counts.not_run,
        );
    }
    text
}

fn rounds(summary: &Summary) -> String {
    let rounds = summary.cells.iter().map(|cell| cell.rounds);
    let (least, most) = (rounds.clone().min().unwrap_or(0), rounds.max().unwrap_or(0));
    if least == most { most.to_string() } else { format!("{least}–{most}") }
}

fn result(summary: &Summary) -> String {
    let mut text = format!(
        "`{}`, {}; {}; bench {}",
        summary.command,
        date::minute(summary.unix_s),
        summary.machine,
        summary.bench_version
    );
    if !summary.versions.is_empty() {
        let _ = write!(text, "; {}", summary.versions.join("; "));
    }
    text.push_str(".\n\n");
    let claims = summary.verdicts().next().is_some();
    if claims {
        match matrix(summary) {
            Some(matrix) => text.push_str(&matrix),
            None => verdicts(&mut text, summary),
        }
    }
    for cell in summary.cells.iter().filter(|cell| cell.verdicts.is_empty()) {
        medians(&mut text, cell);
    }
    details(&mut text, summary);
    text
}

fn verdicts(text: &mut String, summary: &Summary) {
    text.push_str(
        "| row | what | figure | candidate | median | other | median | ratio [95 %] | A/A | rounds | bar | result |\n\
         |---|---|---|---|---|---|---|---|---|---|---|---|\n",
    );
    for cell in &summary.cells {
        for verdict in &cell.verdicts {
            let ratio = verdict.ratio.map(|ratio| {
                let few = if ratio.is_solid() { "" } else { " \\*" };
                format!("{:.3} [{:.3}–{:.3}]{few}", ratio.ratio, ratio.low, ratio.high)
            });
            let same = cell.same.as_ref().filter(|same| same.figure == verdict.figure);
            let same = same.map(|same| format!("{:.3}–{:.3}", same.ratio.low, same.ratio.high));
            let _ = writeln!(
                text,
                "| {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} |",
                cellular(&cell.row),
                cellular(&cell.name),
                cellular(&verdict.figure),
                cellular(&verdict.candidate),
                figure(verdict.candidate_median),
                cellular(verdict.baseline.as_deref().unwrap_or("–")),
                figure(verdict.baseline_median),
                ratio.unwrap_or_else(|| "–".to_owned()),
                same.unwrap_or_else(|| "–".to_owned()),
                cell.rounds,
                verdict.bar.words(),
                result_words(verdict),
            );
        }
    }
    text.push('\n');
}

fn result_words(verdict: &Verdict) -> String {
    match verdict.judgement {
        Judgement::Missed => "**missed**".to_owned(),
        other => other.words().to_owned(),
    }
}

/// Ratios as a matrix, for the many cells of row 5, whose names say value, connections and pipeline; `None` for others.
fn matrix(summary: &Summary) -> Option<String> {
    if summary.cells.iter().any(|cell| cell.row != "5") || summary.subject != "cache" {
        return None;
    }
    let mut rows: Vec<(String, Vec<(String, String)>)> = Vec::new();
    let mut columns: Vec<String> = Vec::new();
    for cell in &summary.cells {
        let (verb, rest) = cell.name.split_once(' ')?;
        let (place, pipeline) = rest.split_once(", pipeline ")?;
        let column = format!("{verb} {pipeline}");
        let judged = cell.verdicts.first()?;
        let field = match judged.ratio {
            None => "–".to_owned(),
            Some(ratio) => {
                let bold = if judged.judgement == Judgement::Missed { "**" } else { "" };
                format!("{bold}{:.2}{bold} [{:.2}–{:.2}]", ratio.ratio, ratio.low, ratio.high)
            }
        };
        if !columns.contains(&column) {
            columns.push(column.clone());
        }
        match rows.iter_mut().find(|(have, _)| have == place) {
            Some((_, fields)) => fields.push((column, field)),
            None => rows.push((place.to_owned(), vec![(column, field)])),
        }
    }
    let first = summary.cells.first()?.verdicts.first()?;
    let mut text = format!(
        "{}, {} over {}, ratio [95 %] of {} rounds by pipeline; bar {}:\n\n| value, connections |",
        first.figure,
        first.candidate,
        first.baseline.as_deref().unwrap_or("–"),
        rounds(summary),
        first.bar.words(),
    );
    text.extend(columns.iter().map(|column| format!(" {column} |")));
    text.push_str("\n|---|");
    text.extend(columns.iter().map(|_| "---|"));
    text.push('\n');
    for (place, fields) in rows {
        let _ = write!(text, "| {place} |");
        for column in &columns {
            let field = fields.iter().find(|(have, _)| have == column);
            let _ = write!(text, " {} |", field.map_or("–", |(_, field)| field));
        }
        text.push('\n');
    }
    text.push('\n');
    Some(text)
}

/// The medians of a cell that claims nothing.
fn medians(text: &mut String, cell: &Cell) {
    let mut names: Vec<&String> = cell.sides.iter().flat_map(|side| side.figures.keys()).collect();
    names.sort();
    names.dedup();
    let _ = write!(
        text,
        "{} {}, medians of {} rounds, no bar:\n\n| figure |",
        cell.row, cell.name, cell.rounds
    );
    text.extend(cell.sides.iter().map(|side| format!(" {} |", cellular(&side.name))));
    text.push_str("\n|---|");
    text.extend(cell.sides.iter().map(|_| "---|"));
    text.push('\n');
    for name in names {
        let _ = write!(text, "| {} |", cellular(name));
        let median = |side: &Side| format!(" {} |", figure(side.figures.get(name).copied()));
        text.extend(cell.sides.iter().map(median));
        text.push('\n');
    }
    text.push('\n');
}

/// Notes and what was not run, folded away when they are many.
fn details(text: &mut String, summary: &Summary) {
    let notes = summary.cells.iter().flat_map(|cell| {
        cell.notes.iter().map(move |note| format!("{} {}: {note}", cell.row, cell.name))
    });
    let skipped = summary.skipped.iter().map(|skipped| format!("not run: {skipped}"));
    let lines: Vec<String> = notes.chain(skipped).collect();
    if lines.is_empty() {
        return;
    }
    let _ = write!(text, "<details><summary>{} notes</summary>\n\n", lines.len());
    for line in lines {
        let _ = writeln!(text, "- {}", line.replace(['\n', '\r'], " ").replace('<', "&lt;"));
    }
    text.push_str("\n</details>\n");
}

/// `text` for a field of a table.
fn cellular(text: &str) -> String {
    text.replace('|', "\\|").replace(['\n', '\r'], " ").replace('<', "&lt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::Bar;
    use crate::report::summary::Apart;
    use crate::report::summary::{self, Same};

    fn summary() -> Summary {
        let ratio = Apart { ratio: 0.8, low: 0.75, high: 0.85, pairs: 10 };
        let verdict = |bar: f64, judgement| Verdict {
            figure: "server CPU ns/op".to_owned(),
            candidate: "a|b".to_owned(),
            candidate_median: Some(3200.0),
            baseline: Some("redis".to_owned()),
            baseline_median: Some(4000.0),
            ratio: Some(ratio),
            bar: Bar::RatioAtMost(bar),
            judgement,
        };
        Summary {
            schema: summary::SCHEMA.to_owned(),
            subject: "cache".to_owned(),
            command: "bench cache --row 3".to_owned(),
            bench_version: "0.1.0".to_owned(),
            unix_s: 0,
            machine: "a machine".to_owned(),
            versions: vec!["redis: 7".to_owned()],
            cells: vec![Cell {
                row: "3".to_owned(),
                name: "GET".to_owned(),
                rounds: 10,
                same: Some(Same { figure: "server CPU ns/op".to_owned(), ratio }),
                sides: Vec::new(),
                verdicts: vec![verdict(0.9, Judgement::Met), verdict(0.7, Judgement::Missed)],
                notes: vec!["<b>".to_owned()],
            }],
            skipped: Vec::new(),
        }
    }

    #[test]
    fn blocks_are_made_from_results_and_prose_stays() {
        let results = Results::from([("cache-3".to_owned(), summary())]);
        let document = "# Title\n\n<!-- bench:begin cache-3 -->\nold\n<!-- bench:end cache-3 -->\nprose\n\
            <!-- bench:begin cache-4 -->\n<!-- bench:end cache-4 -->\n\
            <!-- bench:begin overview -->\n<!-- bench:end overview -->\n";
        let text = regenerate(document, &results).expect("markers match");
        assert!(
            text.starts_with("# Title\n\n<!-- bench:begin cache-3 -->\n\n`bench cache --row 3`"),
            "{text}"
        );
        assert!(!text.contains("old") && text.contains("\nprose\n"), "{text}");
        assert!(
            text.contains("0.800 [0.750–0.850] | 0.750–0.850 | 10 | ≤ 0.90× | met |"),
            "{text}"
        );
        assert!(
            text.contains("**missed**") && text.contains("a\\|b") && text.contains("&lt;b>"),
            "{text}"
        );
        assert!(text.contains("*Not measured yet: `make bench-all ROWS=cache-4`.*"));
        assert!(text.contains("| 1970-01-01 | 10 | 1 of 2 | 0 | 1 | 0 | 0 of 1 |"), "{text}");
        assert_eq!(regenerate(&text, &results).expect("again"), text, "made twice it is the same");
        assert_eq!(difference(&text, &text), None);
        assert!(
            difference(document, &text).is_some_and(|said| said.starts_with("line 4 is\n  old"))
        );
    }

    #[test]
    fn markers_that_do_not_match_are_refused() {
        let refused = |document: &str| {
            regenerate(document, &Results::new()).expect_err("refused").to_string()
        };
        assert!(refused("<!-- bench:begin a -->\n").contains("does not end"));
        assert!(refused("<!-- bench:end a -->\n").contains("what began is none"));
        assert!(refused("<!-- bench:begin a -->\n<!-- bench:begin b -->\n").contains("inside a"));
        let twice = "<!-- bench:begin a -->\n<!-- bench:end a -->\n".repeat(2);
        assert!(refused(&twice).contains("twice"));
        let results = Results::from([("cache-3".to_owned(), summary())]);
        let lost = regenerate("nothing\n", &results).expect_err("lost").to_string();
        assert!(lost.contains("cache-3.json has no block"), "{lost}");
    }

    #[test]
    fn many_cells_of_row_5_are_a_matrix() {
        let mut summary = summary();
        let cell = summary.cells.remove(0);
        for name in ["GET 16 B, 1 connections, pipeline 1", "SET 16 B, 1 connections, pipeline 1"] {
            summary.cells.push(Cell { row: "5".to_owned(), name: name.to_owned(), ..cell.clone() });
        }
        let text = matrix(&summary).expect("all of row 5");
        assert!(text.contains("| value, connections | GET 1 | SET 1 |\n|---|---|---|\n"), "{text}");
        assert!(text.contains("| 16 B, 1 connections | 0.80 [0.75–0.85] | 0.80"), "{text}");
    }
}
