//! Latencies as a histogram log, as HdrHistogram's `HistogramLogWriter` in Java writes it.
//!
//! One interval for each trial, in order of time; its tag is row, cell and side, so that a log processor can take
//! one server's. Stamps are seconds from StartTime, which is the start of the run; the largest value is in
//! milliseconds, and values in histograms in nanoseconds. Invariant: trials without a histogram are left out.
//! Next: `hdr` for one histogram.

use std::fmt::Write as _;

use super::{Report, date, hdr};

/// Nanoseconds in the unit of an interval's largest value.
const MAX_UNIT_NS: f64 = 1e6;

/// The log of `report`; without an interval when no trial has a histogram.
#[must_use]
pub fn log(report: &Report) -> String {
    let start_us = report.machine.unix_s * 1_000_000;
    let mut intervals = Vec::new();
    for cell in &report.cells {
        for side in &cell.sides {
            let tag = format!("{}/{}/{}", slug(&cell.row), slug(&cell.name), slug(&side.label));
            let trials = side.samples.iter().filter_map(|sample| sample.trial.as_ref());
            for trial in trials.filter(|trial| !trial.latency_hdr.is_empty()) {
                let Ok(histogram) = hdr::decode(&trial.latency_hdr) else { continue };
                let begun_us = trial.begun_unix_us.saturating_sub(start_us);
                let line = format!(
                    "Tag={tag},{:.3},{:.3},{:.3},{}\n",
                    begun_us as f64 / 1e6,
                    trial.elapsed_ns as f64 / 1e9,
                    histogram.max() as f64 / MAX_UNIT_NS,
                    trial.latency_hdr,
                );
                intervals.push((begun_us, line));
            }
        }
    }
    intervals.sort_by_key(|(begun_us, _)| *begun_us);
    let mut text = format!("#[Logged with bench {}]\n", report.bench_version);
    text.push_str("#[Histogram log format version 1.3]\n");
    // Writing to a string cannot fail.
    let _ = writeln!(
        text,
        "#[StartTime: {:.3} (seconds since epoch), {}]",
        report.machine.unix_s as f64,
        date::minute(report.machine.unix_s),
    );
    text.push_str(
        "\"StartTimestamp\",\"Interval_Length\",\"Interval_Max\",\"Interval_Compressed_Histogram\"\n",
    );
    text.extend(intervals.into_iter().map(|(_, line)| line));
    text
}

/// `text` without what a tag may not have: commas, spaces and ends of lines.
fn slug(text: &str) -> String {
    let mut slug = String::with_capacity(text.len());
    for part in text.split(|c: char| !(c.is_alphanumeric() || "-_.+".contains(c))) {
        if !part.is_empty() && !slug.is_empty() {
            slug.push('-');
        }
        slug.push_str(part);
    }
    slug
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_have_no_separators() {
        assert_eq!(slug("GET 64 B, 50 connections"), "GET-64-B-50-connections");
        assert_eq!(slug("shards' ports\nagain "), "shards-ports-again");
    }
}
