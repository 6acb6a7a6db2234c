//! Figures of packets in a report: a table with a column for each phase, and histograms drawn side by side.
//!
//! Of a journal of ours these are the phases before, during and after, and any other map or list of snapshots is shown too.
//! Invariants: rows, columns, histograms and buckets are bounded; all that comes from a journal is escaped. Next: `html`,
//! `markdown`.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::Value;

use super::html::escape;
use super::{shown, text};

/// Most rows of the table.
const METRICS_MAX: usize = 200;
/// Most histograms that are drawn, and buckets of each.
const HISTOGRAMS_MAX: usize = 24;
const BUCKETS_MAX: usize = 64;
/// Most phases that are shown.
const COLUMNS_MAX: usize = 12;
/// Sizes of a drawing.
const WIDTH: f64 = 1000.0;
const HEIGHT: f64 = 150.0;
const TOP: f64 = 22.0;
const BOTTOM: f64 = 20.0;
const GAP: f64 = 24.0;
/// Height of a bar at least.
const LEAST: f64 = 1.5;
/// Buckets that are labelled in one drawing.
const LABELS: usize = 4;

/// Numbers of packets.
#[derive(Clone, Debug, Default)]
pub(super) struct Packets {
    /// What is said of all of it: why there is none, and what was looked at.
    pub(super) notes: Vec<String>,
    /// When they were taken.
    pub(super) columns: Vec<String>,
    /// Of each number by its name, one for each column.
    pub(super) rows: BTreeMap<String, Vec<String>>,
    /// Of each histogram by its name, the counts by bits for each column.
    histograms: BTreeMap<String, Vec<Vec<u64>>>,
}

/// Numbers of snapshots, by name: one column for each.
pub(super) fn read(value: &Value) -> Packets {
    let mut packets = Packets::default();
    let mut snapshots: Vec<&Value> = Vec::new();
    match value {
        Value::Object(map) => {
            for (name, snapshot) in map {
                if snapshot.is_object() && snapshots.len() < COLUMNS_MAX {
                    packets.columns.push(name.clone());
                    snapshots.push(snapshot);
                }
            }
        }
        Value::Array(items) => {
            for (index, snapshot) in items.iter().enumerate().take(COLUMNS_MAX) {
                let name = ["when", "at"].map(|name| text(snapshot, &[name]));
                let name = name.into_iter().find(|name| !name.is_empty());
                packets.columns.push(name.unwrap_or_else(|| index.to_string()));
                snapshots.push(snapshot);
            }
        }
        _ => {}
    }
    match text(value, &["why_not"]) {
        why if why.is_empty() => {}
        why => packets.notes.push(format!("Not measured: {}", shown(&why))),
    }
    match value.get("sample_every").and_then(Value::as_u64) {
        Some(every) if every > 1 => packets.notes.push(format!(
            "One segment and one io_uring operation of {every} was looked at: counts of them are those looked at."
        )),
        _ => {}
    }
    for (column, snapshot) in snapshots.iter().enumerate() {
        packets.add(snapshot, "", column);
    }
    packets
}

impl Packets {
    fn add(&mut self, value: &Value, path: &str, column: usize) {
        let below =
            |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
        match value {
            Value::Number(number) => self.add_number(path, number.to_string(), column),
            Value::Object(map) => {
                for (name, value) in map {
                    match value {
                        Value::Array(buckets) if name == "buckets" => {
                            self.add_histogram(path, buckets, column);
                        }
                        value => self.add(value, &below(name), column),
                    }
                }
            }
            Value::Array(items) => {
                for (index, value) in items.iter().enumerate() {
                    self.add(value, &below(&index.to_string()), column);
                }
            }
            _ => {}
        }
    }

    fn add_number(&mut self, name: &str, number: String, column: usize) {
        if self.rows.len() < METRICS_MAX || self.rows.contains_key(name) {
            let columns = self.columns.len();
            let row =
                self.rows.entry(name.to_owned()).or_insert_with(|| vec![String::new(); columns]);
            if let Some(cell) = row.get_mut(column) {
                *cell = number;
            }
        }
    }

    fn add_histogram(&mut self, name: &str, buckets: &[Value], column: usize) {
        if self.histograms.len() < HISTOGRAMS_MAX || self.histograms.contains_key(name) {
            let columns = self.columns.len();
            let all =
                self.histograms.entry(name.to_owned()).or_insert_with(|| vec![Vec::new(); columns]);
            if let Some(cell) = all.get_mut(column) {
                let counts = buckets.iter().take(BUCKETS_MAX);
                *cell = counts.map(|count| count.as_u64().unwrap_or(0)).collect();
            }
        }
    }

    /// As parts of a page.
    pub(super) fn html(&self, out: &mut String) {
        out.push_str("<h2>Packets</h2>\n");
        for note in &self.notes {
            let _ = writeln!(out, "<p>{}</p>", escape(note));
        }
        for (name, columns) in &self.histograms {
            self.draw(name, columns, out);
        }
        if self.rows.is_empty() {
            return;
        }
        out.push_str("<table><tr><th>metric</th>");
        self.columns.iter().for_each(|name| {
            let _ = write!(out, "<th>{}</th>", escape(name));
        });
        out.push_str("</tr>\n");
        for (name, values) in &self.rows {
            let _ = write!(out, "<tr><td>{}</td>", escape(name));
            for value in values {
                let _ = write!(out, "<td class=\"n\">{}</td>", escape(value));
            }
            out.push_str("</tr>\n");
        }
        out.push_str("</table>\n");
    }

    /// One histogram in all phases, side by side on the same scales: what share of the values each bucket has.
    #[expect(clippy::cast_precision_loss, reason = "places in a drawing")]
    fn draw(&self, name: &str, columns: &[Vec<u64>], out: &mut String) {
        let is_used = |index: &usize| {
            columns.iter().any(|counts| counts.get(*index).is_some_and(|count| *count > 0))
        };
        let (Some(first), Some(last)) =
            ((0..BUCKETS_MAX).find(is_used), (0..BUCKETS_MAX).rfind(is_used))
        else {
            return;
        };
        let total = |counts: &[u64]| counts.iter().fold(0_u64, |sum, n| sum.saturating_add(*n));
        let share = |counts: &[u64], index: usize| {
            counts.get(index).copied().unwrap_or(0) as f64 / total(counts).max(1) as f64
        };
        let shares =
            columns.iter().flat_map(|counts| (first..=last).map(move |index| share(counts, index)));
        let most = shares.fold(f64::MIN_POSITIVE, f64::max);
        let width = (WIDTH + GAP) / columns.len().max(1) as f64 - GAP;
        let step = width / (last - first + 1) as f64;
        let floor = HEIGHT - BOTTOM;
        let label = escape(name);
        let _ = writeln!(
            out,
            "<h3>{label}</h3>\n<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{label}\">"
        );
        for (column, (counts, when)) in columns.iter().zip(&self.columns).enumerate() {
            let left = column as f64 * (width + GAP);
            let _ = writeln!(
                out,
                "<text x=\"{left:.1}\" y=\"13\">{}: {} values</text><line x1=\"{left:.1}\" x2=\"{:.1}\" y1=\"{floor}\" y2=\"{floor}\" stroke=\"#999\"/>",
                escape(when),
                total(counts),
                left + width
            );
            for index in first..=last {
                let x = left + (index - first) as f64 * step;
                let height = share(counts, index) / most * (floor - TOP);
                // A few among many are seen, too.
                let height = if height > 0.0 { height.max(LEAST) } else { 0.0 };
                if height > 0.0 {
                    let _ = writeln!(
                        out,
                        "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{height:.1}\" fill=\"#2471a3\"><title>{} to {}: {}</title></rect>",
                        x + 1.0,
                        floor - height,
                        (step - 2.0).max(1.0),
                        size(name, least_of(index)),
                        size(name, least_of(index + 1)),
                        counts.get(index).copied().unwrap_or(0)
                    );
                }
                if (index - first).is_multiple_of((last - first + 1).div_ceil(LABELS)) {
                    let _ = writeln!(
                        out,
                        "<text x=\"{x:.1}\" y=\"{:.1}\">{}</text>",
                        HEIGHT - 5.0,
                        size(name, least_of(index))
                    );
                }
            }
        }
        out.push_str("</svg>\n");
    }
}

/// The least value of so many bits.
const fn least_of(bits: usize) -> u64 {
    match bits {
        0 => 0,
        1..=64 => 1 << (bits - 1),
        _ => u64::MAX,
    }
}

/// A value as people read it, by the unit that its name ends with.
#[expect(clippy::cast_precision_loss, reason = "to be read by people")]
fn size(name: &str, value: u64) -> String {
    // The unit of latencies by operation is in the name before theirs.
    let ns = if name.ends_with("_us") {
        value.saturating_mul(1000)
    } else if name.ends_with("_ns") || name.contains("_ns.") {
        value
    } else {
        return value.to_string();
    };
    match ns {
        0..1_000 => format!("{ns} ns"),
        1_000..1_000_000 => format!("{:.0} µs", ns as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.0} ms", ns as f64 / 1e6),
        _ => format!("{:.0} s", ns as f64 / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Value, least_of, read, size};

    fn three() -> Value {
        let phase = |p50: u64, buckets: &[u64]| json!({ "tcp": { "retransmits": p50, "rtt_us": { "count": 4, "p50": p50, "buckets": buckets } } });
        json!({ "sample_every": 10, "before": phase(1, &[0, 4]), "during": phase(900, &[0, 0, 0, 4]), "after": phase(1, &[]) })
    }

    #[test]
    fn phases_are_columns_and_histograms_are_drawn_on_one_scale() {
        let packets = read(&three());
        assert_eq!(packets.columns, ["before", "during", "after"]);
        assert_eq!(packets.rows["tcp.retransmits"], ["1", "900", "1"]);
        assert!(!packets.rows.keys().any(|name| name.contains("buckets")), "{:?}", packets.rows);
        let mut page = String::new();
        packets.html(&mut page);
        assert_eq!(page.matches("<svg").count(), 1, "{page}");
        assert_eq!(page.matches("<rect").count(), 2, "a bar before, one during: {page}");
        for part in ["before: 4 values", "after: 0 values", "1 µs to 2 µs: 4", "4 µs to 8 µs: 4"]
        {
            assert!(page.contains(part), "{part}: {page}");
        }
        assert!(page.contains("One segment and one io_uring operation of 10"), "{page}");
    }

    #[test]
    fn odd_ones_are_shown_or_left_out_and_none_overflows() {
        let deep = json!({ "why_not": "<not> root", "x": { "h": { "buckets": [u64::MAX, u64::MAX, "a"] } } });
        let mut page = String::new();
        read(&deep).html(&mut page);
        assert!(page.contains("Not measured: &lt;not&gt; root") && !page.contains("NaN"), "{page}");
        let many: Vec<Value> = (0..100).map(|n| json!({ "when": n, "a": n })).collect();
        assert_eq!(read(&Value::from(many)).columns.len(), super::COLUMNS_MAX);
        assert!(read(&json!(7)).columns.is_empty());
        assert_eq!([0, 1, 2, 64, 65].map(least_of), [0, 1, 2, 1 << 63, u64::MAX]);
        assert_eq!(size("uring.latency_ns.read", 2_000_000), "2 ms");
        assert_eq!((size("rtt_us", 2), size("bytes", 5)), ("2 µs".to_owned(), "5".to_owned()));
    }
}
