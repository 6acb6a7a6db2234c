//! The charts of a page: ratios with their intervals, samples by round, latencies by percentile.
//!
//! Each takes plain numbers and gives an SVG element. Invariants: every axis has its unit; a side has the same
//! colour and shape in all charts of a cell. Next: `svg` for what they are drawn with.

use super::super::summary::{Cell, Summary, Verdict};
use super::super::svg::{Anchor, Axis, Svg, fitted};
use super::{judged, quantity};
use crate::compare::Judgement;
use hdrhistogram::Histogram;

/// Ratios beyond these are drawn at the edge.
const RATIO_MIN: f64 = 0.02;
const RATIO_MAX: f64 = 50.0;
/// Height of a line, and of what stands above and below the plot.
const LINE: f64 = 22.0;
const TOP: f64 = 30.0;
const BOTTOM: f64 = 44.0;
const SIZE: f64 = 12.0;
/// Above this ratio of the largest sample to the smallest, a scale is logarithmic.
const LINEAR_MAX: f64 = 20.0;
/// Where the largest value stands, in nines after the last percentile.
const MAX_AT: f64 = 0.3;

/// Samples of one side.
pub(super) struct Series {
    pub(super) label: String,
    pub(super) values: Vec<f64>,
}

/// All ratios of a summary with 95 % intervals and bars, and what equal servers gave as a band behind them;
/// `None` without a ratio.
pub(super) fn forest(summary: &Summary) -> Option<String> {
    let with_ratio = |cell: &&Cell| cell.verdicts.iter().any(|verdict| verdict.ratio.is_some());
    let cells: Vec<&Cell> = summary.cells.iter().filter(with_ratio).collect();
    let lines: usize = cells.iter().map(|cell| 1 + ratios(cell).count()).sum();
    if lines == 0 {
        return None;
    }
    let (total, left, right) = (1136.0, 300.0, 330.0);
    let height = TOP + lines as f64 * LINE + BOTTOM;
    let mut svg = Svg::new(total, height);
    let (low, high) = domain(&cells);
    let axis = Axis::log(low, high, left, total - right);
    let bottom = height - BOTTOM;
    for tick in axis.ticks(10) {
        svg.line((axis.at(tick), TOP), (axis.at(tick), bottom), "grid");
        svg.text(
            (axis.at(tick), bottom + 16.0),
            Anchor::Middle,
            "tick",
            &format!("{}×", short(tick)),
        );
    }
    let title = "ratio of medians, ours over the other's, 95 % interval (logarithmic scale)";
    svg.text((f64::midpoint(left, total - right), height - 8.0), Anchor::Middle, "axis", title);
    svg.text((total - right + 14.0, 18.0), Anchor::Start, "axis", "ratio [95 %]");
    svg.text((total - 150.0, 18.0), Anchor::Start, "axis", "bar");
    svg.text((total - 4.0, 18.0), Anchor::End, "axis", "result");
    let mut y = TOP;
    for cell in &cells {
        let name = format!("{} · {}", cell.row, cell.name);
        svg.text((4.0, y + 15.0), Anchor::Start, "group", &fitted(&name, SIZE + 1.0, total - 8.0));
        y += LINE;
        for verdict in ratios(cell) {
            band(&mut svg, &axis, cell, verdict, y);
            forest_line(&mut svg, &axis, verdict, y, total, right);
            y += LINE;
        }
    }
    svg.line((axis.at(1.0), TOP), (axis.at(1.0), bottom), "unity");
    svg.text((axis.at(1.0), TOP - 6.0), Anchor::Middle, "tick", "equal");
    Some(svg.finish("Forest plot of the ratios with their 95 % intervals"))
}

fn ratios(cell: &Cell) -> impl Iterator<Item = &Verdict> {
    cell.verdicts.iter().filter(|verdict| verdict.ratio.is_some())
}

/// What the axis of ratios must hold: all intervals, bars, and 1.
fn domain(cells: &[&Cell]) -> (f64, f64) {
    let mut values = vec![0.9, 1.1];
    for verdict in cells.iter().flat_map(|cell| ratios(cell)) {
        values.extend(verdict.ratio.iter().flat_map(|ratio| [ratio.low, ratio.high]));
        values.extend(verdict.bar.ratio());
    }
    let low = values.iter().copied().fold(f64::INFINITY, f64::min);
    let high = values.iter().copied().fold(0.0, f64::max);
    (low.max(RATIO_MIN), high.min(RATIO_MAX))
}

/// How far apart equal servers came out in this figure.
fn band(svg: &mut Svg, axis: &Axis, cell: &Cell, verdict: &Verdict, y: f64) {
    let Some(same) = cell.same.as_ref().filter(|same| same.figure == verdict.figure) else {
        return;
    };
    let (from, to) = (axis.at(same.ratio.low), axis.at(same.ratio.high));
    svg.rect((from, y + 1.0), ((to - from).max(2.0), LINE - 2.0), "band");
}

fn forest_line(svg: &mut Svg, axis: &Axis, verdict: &Verdict, y: f64, total: f64, right: f64) {
    let Some(ratio) = verdict.ratio else { return };
    let middle = y + LINE / 2.0;
    let baseline = verdict.baseline.as_deref().unwrap_or_default();
    let label = format!("{}, {} / {baseline}", verdict.figure, verdict.candidate);
    svg.text((18.0, middle + 4.0), Anchor::Start, "label", &fitted(&label, SIZE, 272.0));
    if let Some(bar) = verdict.bar.ratio().filter(|bar| axis.holds(*bar)) {
        svg.line((axis.at(bar), y + 2.0), (axis.at(bar), y + LINE - 2.0), "bar");
    }
    let (class, shape) = judged(verdict.judgement);
    let (low, high) = (axis.at(ratio.low), axis.at(ratio.high));
    svg.line((low, middle), (high, middle), &format!("whisker {class}"));
    for end in [low, high] {
        svg.line((end, middle - 4.0), (end, middle + 4.0), &format!("whisker {class}"));
    }
    let text = format!("{:.3} [{:.3}–{:.3}]", ratio.ratio, ratio.low, ratio.high);
    svg.mark(shape, (axis.at(ratio.ratio), middle), 4.5, &format!("mark {class}"), &text);
    let few = if ratio.is_solid() { "" } else { " *" };
    svg.text((total - right + 14.0, middle + 4.0), Anchor::Start, "label", &format!("{text}{few}"));
    svg.text((total - 150.0, middle + 4.0), Anchor::Start, "label", &verdict.bar.words());
    if verdict.judgement != Judgement::Shown {
        let words = match verdict.judgement {
            Judgement::MetAtMedian => "at median",
            other => other.words(),
        };
        svg.text((total - 4.0, middle + 4.0), Anchor::End, &format!("label {class}"), words);
    }
}

/// Every sample of a figure by the round it was taken in, with each side's median as a line.
pub(super) fn strip(figure: &str, series: &[Series]) -> Option<String> {
    let values = || series.iter().flat_map(|side| side.values.iter().copied());
    let rounds = series.iter().map(|side| side.values.len()).max().unwrap_or_default();
    if rounds == 0 {
        return None;
    }
    let (total, height, left, right, top, below) = (360.0, 230.0, 58.0, 12.0, 28.0, 44.0);
    let mut svg = Svg::new(total, height);
    let low = values().fold(f64::INFINITY, f64::min);
    let high = values().fold(f64::NEG_INFINITY, f64::max);
    // Where some are many times the others, these would all lie on the floor.
    let log = low > 0.0 && high / low > LINEAR_MAX;
    let axis = match log {
        true => Axis::log(low, high, height - below, top),
        false => Axis::linear(low, high, height - below, top),
    };
    let title = format!("{figure}{}", if log { " (logarithmic)" } else { "" });
    svg.text(
        (left, 16.0),
        Anchor::Start,
        "title",
        &fitted(&title, SIZE + 1.0, total - left - right),
    );
    for tick in axis.ticks(5) {
        svg.line((left, axis.at(tick)), (total - right, axis.at(tick)), "grid");
        svg.text((left - 6.0, axis.at(tick) + 4.0), Anchor::End, "tick", &quantity(figure, tick));
    }
    let step = (total - right - left) / rounds as f64;
    let x = |round: usize| left + (round as f64 + 0.5) * step;
    let every = rounds.div_ceil(12);
    for round in (0..rounds).step_by(every) {
        let label = (round + 1).to_string();
        svg.text((x(round), height - below + 16.0), Anchor::Middle, "tick", &label);
    }
    svg.text((f64::midpoint(left, total - right), height - 8.0), Anchor::Middle, "axis", "round");
    let apart = (step * 0.7 / series.len() as f64).min(14.0);
    for (index, side) in series.iter().enumerate() {
        if side.values.is_empty() {
            continue;
        }
        let median = axis.at(crate::stats::median(&side.values));
        svg.line((left, median), (total - right, median), &format!("median s{}", index % 6));
        for (round, value) in side.values.iter().enumerate() {
            let dodge = (index as f64 - (series.len() as f64 - 1.0) / 2.0) * apart;
            let about =
                format!("{}, round {}: {}", side.label, round + 1, quantity(figure, *value));
            let at = (x(round) + dodge, axis.at(*value));
            svg.mark(index, at, 3.6, &format!("mark s{}", index % 6), &about);
        }
    }
    Some(svg.finish(&format!("{figure} of every trial by round")))
}

/// Latency by percentile, the percentiles spread so that each nine takes as much room as the one before, as
/// HdrHistogram plots them.
pub(super) fn percentiles(sides: &[(String, Option<Histogram<u64>>)]) -> Option<String> {
    let histograms = || sides.iter().filter_map(|(_, histogram)| histogram.as_ref());
    let count = histograms().map(Histogram::len).max().filter(|count| *count > 0)?;
    // The last nine that rests on ten values or so.
    let nines = (count as f64 / 10.0).log10().floor().clamp(2.0, 6.0);
    let (total, height, left, right, top, below) = (736.0, 300.0, 72.0, 20.0, 28.0, 44.0);
    let mut svg = Svg::new(total, height);
    let low = histograms().map(|h| h.value_at_quantile(0.0)).min().unwrap_or(1).max(1);
    let high = histograms().map(Histogram::max).max().unwrap_or(1);
    let axis = Axis::log(low as f64, high as f64, height - below, top);
    let x = |nines_of: f64| left + nines_of / (nines + MAX_AT + 0.05) * (total - right - left);
    svg.text((left, 16.0), Anchor::Start, "title", "latency by percentile, all rounds together");
    for tick in axis.ticks(7) {
        svg.line((left, axis.at(tick)), (total - right, axis.at(tick)), "grid");
        svg.text((left - 6.0, axis.at(tick) + 4.0), Anchor::End, "tick", &quantity("ns", tick));
    }
    let half = 2_f64.log10();
    let mut stops = vec![(0.0, "0 %".to_owned()), (half, "50 %".to_owned())];
    for nine in 1..=nines as usize {
        let percent = 100.0 - 100.0 / 10_f64.powi(i32::try_from(nine).unwrap_or(9));
        stops.push((nine as f64, format!("{percent:.*} %", nine.saturating_sub(2))));
    }
    stops.push((nines + MAX_AT, "max".to_owned()));
    for (at, label) in stops {
        svg.line((x(at), top), (x(at), height - below), "grid");
        svg.text((x(at), height - below + 16.0), Anchor::Middle, "tick", &label);
    }
    svg.text(
        (f64::midpoint(left, total - right), height - 8.0),
        Anchor::Middle,
        "axis",
        "percentile",
    );
    svg.upright((14.0, f64::midpoint(top, height - below)), "axis", "latency");
    for (index, (label, histogram)) in sides.iter().enumerate() {
        let Some(histogram) = histogram else { continue };
        curve(&mut svg, &axis, &x, nines, index, label, histogram);
    }
    Some(svg.finish("Latency by percentile for each side"))
}

fn curve(
    svg: &mut Svg,
    axis: &Axis,
    x: &dyn Fn(f64) -> f64,
    nines: f64,
    index: usize,
    label: &str,
    histogram: &Histogram<u64>,
) {
    let value = |at: f64| histogram.value_at_quantile(1.0 - 10_f64.powf(-at)).max(1) as f64;
    let steps = (nines * 20.0) as usize;
    let point = |step: usize| {
        let at = step as f64 / 20.0;
        (x(at), axis.at(value(at)))
    };
    let mut points: Vec<(f64, f64)> = (0..=steps).map(point).collect();
    points.push((x(nines + MAX_AT), axis.at(histogram.max() as f64)));
    svg.polyline(&points, &format!("curve s{0} d{0}", index % 6));
    for nine in 0..=nines as usize {
        let about = format!("{label}: {}", quantity("ns", value(nine as f64)));
        let at = (x(nine as f64), axis.at(value(nine as f64)));
        svg.mark(index, at, 3.2, &format!("mark s{}", index % 6), &about);
    }
}

/// Which colour and shape is whose.
pub(super) fn legend(labels: &[String]) -> String {
    let mut keys = String::from("<p class=\"legend\">");
    for (index, label) in labels.iter().enumerate() {
        let mut svg = Svg::new(14.0, 14.0);
        svg.mark(index, (7.0, 7.0), 4.5, &format!("mark s{}", index % 6), "");
        let mark = svg.finish("").replace(
            "class=\"chart\" role=\"img\" aria-label=\"\"",
            "class=\"key\" aria-hidden=\"true\"",
        );
        keys.push_str(&format!("<span>{mark} {}</span>", super::super::svg::escape(label)));
    }
    keys.push_str("</p>");
    keys
}

fn short(value: f64) -> String {
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}
