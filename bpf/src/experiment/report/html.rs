//! The page of a report, and its timeline: a row for looks at the hypothesis, and one for each activity, with the counts of faults
//! drawn into it. Invariant: all that comes from a journal goes through [`escape`].

use std::fmt::Write as _;

use super::{Bar, Report, shown};

/// Width of the timeline, and of the names at its left.
const WIDTH: f64 = 1000.0;
const LEFT: f64 = 230.0;
const RIGHT: f64 = 110.0;
/// Heights of rows.
const ROW: f64 = 26.0;
const FAULT_ROW: f64 = 64.0;
/// Most rows that are drawn.
const ROWS_MAX: usize = 200;

const STYLE: &str = "body{font:15px/1.45 system-ui,sans-serif;max-width:1040px;margin:2em auto;padding:0 1em;color:#222;background:#fff}\
table{border-collapse:collapse;margin:.6em 0 1.4em}td,th{border:1px solid #ccc;padding:.2em .6em;text-align:left;vertical-align:top}\
td.n{text-align:right}.good{color:#186a3b}.bad{color:#a61b1b}code{overflow-wrap:anywhere}svg{width:100%;height:auto}svg text{font:12px system-ui,sans-serif;fill:#333}";

pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
        .replace('\'', "&#39;")
}

pub(super) fn page(report: &Report) -> String {
    let class = if report.is_good { "good" } else { "bad" };
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>{title}</title><style>{STYLE}</style></head><body>\n<h1>{title}</h1>\n<p>{}</p>\n<p class=\"{class}\"><strong>{}</strong></p>\n\
         <p>Began {}, took {:.1} s, on {}.</p>\n",
        escape(&report.description),
        escape(&report.verdict),
        escape(&report.begin),
        report.seconds,
        escape(&report.host),
        title = escape(&report.title),
    );
    if !report.hypothesis.is_empty() {
        let _ = writeln!(out, "<h2>Hypothesis</h2>\n<p>{}</p><ul>", escape(&report.hypothesis));
        for (name, tolerance) in &report.tolerances {
            let _ = writeln!(out, "<li>{}: <code>{}</code></li>", escape(name), escape(tolerance));
        }
        out.push_str("</ul>\n");
    }
    let _ = writeln!(out, "<h2>Timeline</h2>\n{}", timeline(report));
    broken(report, &mut out);
    activities(report, &mut out);
    if let Some(packets) = &report.packets {
        packets.html(&mut out);
    }
    if !report.notes.is_empty() {
        let notes: String =
            report.notes.iter().map(|note| format!("<li>{}</li>", escape(note))).collect();
        let _ = writeln!(out, "<h2>Notes</h2>\n<ul>{notes}</ul>");
    }
    out.push_str("</body></html>\n");
    out
}

fn broken(report: &Report, out: &mut String) {
    let broken: Vec<_> =
        report.looks.iter().filter_map(|look| Some((look, look.broken.as_ref()?))).collect();
    if broken.is_empty() {
        return;
    }
    out.push_str("<h2>Where the hypothesis did not hold</h2>\n<table><tr><th>second</th><th>when</th><th>probe</th><th>it found</th></tr>\n");
    for (look, (probe, found)) in broken.iter().take(ROWS_MAX) {
        let _ = writeln!(
            out,
            "<tr><td class=\"n\">{:.1}</td><td>{}</td><td>{}</td><td><code>{}</code></td></tr>",
            look.at,
            look.when,
            escape(probe),
            escape(found)
        );
    }
    out.push_str("</table>\n");
}

fn activities(report: &Report, out: &mut String) {
    if report.bars.is_empty() {
        return;
    }
    out.push_str("<h2>What was done</h2>\n<table><tr><th>from</th><th>to</th><th>section</th><th>activity</th><th>by</th><th>result</th><th>output</th></tr>\n");
    for bar in &report.bars {
        let (class, result) = if bar.is_good { ("good", "succeeded") } else { ("bad", "failed") };
        let _ = writeln!(
            out,
            "<tr><td class=\"n\">{:.1}</td><td class=\"n\">{:.1}</td><td>{}</td><td>{}: {}</td><td>{}</td><td class=\"{class}\">{result}</td><td><code>{}</code></td></tr>",
            bar.from,
            bar.to,
            bar.section,
            escape(&bar.kind),
            escape(&bar.name),
            escape(&bar.provider),
            escape(&shown(&bar.output))
        );
    }
    out.push_str("</table>\n");
}

/// Where a second is.
struct Scale {
    seconds: f64,
}

impl Scale {
    fn x(&self, at: f64) -> f64 {
        LEFT + (at / self.seconds).clamp(0.0, 1.0) * (WIDTH - LEFT - RIGHT)
    }

    /// A round step that gives a handful of marks.
    fn step(&self) -> f64 {
        let steps =
            [0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0];
        steps.into_iter().find(|step| self.seconds / step <= 12.0).unwrap_or(self.seconds)
    }
}

fn timeline(report: &Report) -> String {
    let ends = report.bars.iter().map(|bar| bar.to).chain(report.looks.iter().map(|look| look.at));
    let seconds = ends.fold(report.seconds, f64::max);
    let scale = Scale { seconds: if seconds.is_finite() && seconds > 0.0 { seconds } else { 1.0 } };
    let bars: Vec<&Bar> = report.bars.iter().take(ROWS_MAX).collect();
    let of = |bar: &Bar| if bar.points.is_empty() { ROW } else { FAULT_ROW };
    let height = ROW * 2.5 + bars.iter().map(|bar| of(bar)).sum::<f64>();
    let mut out =
        format!("<svg viewBox=\"0 0 {WIDTH} {height:.0}\" role=\"img\" aria-label=\"timeline\">\n");
    let step = scale.step();
    let mut at = 0.0;
    while at <= scale.seconds {
        let x = scale.x(at);
        let _ = writeln!(
            out,
            "<line x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"0\" y2=\"{:.0}\" stroke=\"#e4e4e4\"/><text x=\"{x:.1}\" y=\"{:.0}\" text-anchor=\"middle\">{at:.*} s</text>",
            height - ROW,
            height - 8.0,
            usize::from(step < 1.0)
        );
        at += step;
    }
    let _ = writeln!(out, "<text x=\"0\" y=\"17\">hypothesis</text>");
    for look in &report.looks {
        let color = if look.is_met { "#27ae60" } else { "#c0392b" };
        let _ = writeln!(
            out,
            "<circle cx=\"{:.1}\" cy=\"13\" r=\"{}\" fill=\"{color}\"><title>{}, {:.1} s: {}</title></circle>",
            scale.x(look.at),
            if look.is_met { 3 } else { 6 },
            look.when,
            look.at,
            if look.is_met { "held" } else { "did not hold" }
        );
    }
    let mut y = ROW;
    for bar in bars {
        let height = of(bar);
        row(bar, &scale, y, height, &mut out);
        y += height;
    }
    out.push_str("</svg>");
    out
}

fn row(bar: &Bar, scale: &Scale, y: f64, height: f64, out: &mut String) {
    let (from, to) = (scale.x(bar.from), scale.x(bar.to));
    let name: String = bar.name.chars().take(34).collect();
    let color = match (bar.is_good, bar.points.is_empty(), bar.section) {
        (false, ..) => "#e6b0aa",
        (true, false, _) => "#fdebd0",
        (true, true, "rollbacks") => "#d7bde2",
        (true, true, _) => "#aed6f1",
    };
    let _ = writeln!(
        out,
        "<text x=\"0\" y=\"{:.1}\">{}</text><rect x=\"{from:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\" fill=\"{color}\"><title>{}: {:.1} s to {:.1} s</title></rect>",
        y + 17.0,
        escape(&name),
        y + 4.0,
        (to - from).max(2.0),
        height - 8.0,
        escape(&bar.name),
        bar.from,
        bar.to
    );
    let most = bar.points.iter().map(|point| point.matched.max(point.affected)).max().unwrap_or(0);
    if bar.points.is_empty() {
        return;
    }
    // When it was in force, below.
    for pair in bar.points.windows(2) {
        if let [one, other] = pair
            && one.in_force
        {
            let (from, to) = (scale.x(bar.from + one.at), scale.x(bar.from + other.at));
            let _ = writeln!(
                out,
                "<rect x=\"{from:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"4\" fill=\"#e67e22\"/>",
                y + height - 8.0,
                (to - from).max(1.0)
            );
        }
    }
    let curve = |color: &str, of: &dyn Fn(usize) -> u64| {
        let points = bar.points.iter().enumerate().map(|(index, point)| {
            let share = if most == 0 { 0.0 } else { of(index) as f64 / most as f64 };
            format!(
                "{:.1},{:.1}",
                scale.x(bar.from + point.at),
                y + height - 10.0 - share * (height - 18.0)
            )
        });
        format!(
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"1.5\"/>",
            points.collect::<Vec<_>>().join(" ")
        )
    };
    let count = |index: usize, of: fn(&super::Point) -> u64| bar.points.get(index).map_or(0, of);
    let matched = curve("#2471a3", &|index| count(index, |point| point.matched));
    let affected = curve("#c0392b", &|index| count(index, |point| point.affected));
    let last = bar.points.last().copied().unwrap_or_default();
    let x = to + 6.0;
    let _ = writeln!(
        out,
        "{matched}{affected}<text x=\"{x:.1}\" y=\"{:.1}\" style=\"fill:#2471a3\">matched {}</text><text x=\"{x:.1}\" y=\"{:.1}\" style=\"fill:#c0392b\">affected {}</text>",
        y + 20.0,
        last.matched,
        y + 36.0,
        last.affected
    );
}
