//! The Prometheus text exposition format, version 0.0.4
//! (<https://prometheus.io/docs/instrumenting/exposition_formats/>).

use super::snapshot::{HistogramShot, Shot};
use super::{Buckets, Kind, Metric, Snapshot, Unit};
use std::collections::BTreeSet;
use std::fmt::Write;

/// The `Content-Type` of [`render`]'s text.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Shows the snapshots of all shards, each series with its `shard`; one that was added up has no
/// such label. Families and series are in the order of their names.
#[must_use]
pub fn render(snapshots: &[Snapshot]) -> String {
    let mut text = String::new();
    let names: BTreeSet<&str> =
        snapshots.iter().flat_map(|snapshot| snapshot.families.keys().copied()).collect();
    for name in names {
        let mut headed = false;
        for snapshot in snapshots {
            let Some(family) = snapshot.families.get(name) else {
                continue;
            };
            if !headed {
                headed = true;
                let help = family.metric.help.replace('\\', "\\\\").replace('\n', "\\n");
                let _ = writeln!(text, "# HELP {name} {help}");
                let _ = writeln!(text, "# TYPE {name} {}", family.type_word());
            }
            for (values, shot) in &family.series {
                let labels = labels(snapshot.shard, family.metric, values);
                sample(&mut text, family.metric, &labels, shot);
            }
        }
    }
    text
}

/// The labels of a series without their braces: `shard="0",op="get"`.
fn labels(shard: Option<u32>, metric: &Metric, values: &[Box<str>]) -> String {
    let mut text = String::new();
    if let Some(shard) = shard {
        let _ = write!(text, "shard=\"{shard}\"");
    }
    for (name, value) in metric.labels.iter().zip(values) {
        let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        let comma = if text.is_empty() { "" } else { "," };
        let _ = write!(text, "{comma}{name}=\"{value}\"");
    }
    text
}

fn sample(text: &mut String, metric: &Metric, labels: &str, shot: &Shot) {
    let name = metric.name;
    let braced = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
    match (shot, metric.kind) {
        (Shot::Counter(value), _) => {
            let _ = writeln!(text, "{name}{braced} {value}");
        }
        (Shot::Gauge(value), _) => {
            let _ = writeln!(text, "{name}{braced} {value}");
        }
        (Shot::Histogram(shot), Kind::Histogram(buckets)) => {
            let comma = if labels.is_empty() { "" } else { "," };
            for (bound, count) in buckets.bounds.iter().zip(cumulated(buckets, shot)) {
                let bound = scaled(buckets.unit, *bound);
                let _ = writeln!(text, "{name}_bucket{{{labels}{comma}le=\"{bound}\"}} {count}");
            }
            let (count, sum) = (shot.values.len(), scaled(buckets.unit, shot.sum));
            let _ = writeln!(text, "{name}_bucket{{{labels}{comma}le=\"+Inf\"}} {count}");
            let _ = writeln!(text, "{name}_sum{braced} {sum}");
            let _ = writeln!(text, "{name}_count{braced} {count}");
        }
        (Shot::Histogram(_), _) => panic!("metric {name} is no histogram"),
    }
}

/// For each bound, how many values are at or below it, to the histogram's precision of 1 %: a value
/// counts where the cell it fell into begins.
fn cumulated(buckets: &Buckets, shot: &HistogramShot) -> Vec<u64> {
    let mut counts = vec![0; buckets.bounds.len()];
    for cell in shot.values.iter_recorded() {
        let start = shot.values.lowest_equivalent(cell.value_iterated_to());
        let first = buckets.bounds.partition_point(|bound| *bound < start);
        if let Some(count) = counts.get_mut(first) {
            *count += cell.count_at_value();
        }
    }
    let mut below = 0;
    for count in &mut counts {
        below += *count;
        *count = below;
    }
    counts
}

/// In the unit that is shown.
fn scaled(unit: Unit, value: u64) -> f64 {
    match unit {
        Unit::Nanoseconds => value as f64 / 1e9,
        Unit::Bytes | Unit::Count => value as f64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{Registry, merge};

    static SHORT: Buckets =
        Buckets { unit: Unit::Nanoseconds, bounds: &[1_000, 500_000, 2_000_000_000], max: 1 << 40 };
    static OPS: Metric = Metric::counter("cache_op_total", "operations \\ done").labels(&["op"]);
    static KEYS: Metric = Metric::gauge("cache_keys", "keys held");
    static WAIT: Metric = Metric::histogram("cache_wait_seconds", "time in the queue", &SHORT);

    fn shard(shard: u32) -> Snapshot {
        let registry = Registry::new(shard);
        registry.counter(&OPS, &["set"]).add(3 + u64::from(shard));
        registry.counter(&OPS, &["a\"b\\c\nd"]).increment();
        registry.gauge(&KEYS, &[]).set(-1);
        let wait = registry.histogram(&WAIT, &[]);
        wait.record(500);
        wait.record_n(1_000, 2);
        wait.record(1_000_000);
        wait.record(3_000_000_000);
        registry.snapshot()
    }

    #[test]
    fn the_exposition_is_exactly_this() {
        let expected = r##"# HELP cache_keys keys held
# TYPE cache_keys gauge
cache_keys{shard="0"} -1
cache_keys{shard="1"} -1
# HELP cache_op_total operations \\ done
# TYPE cache_op_total counter
cache_op_total{shard="0",op="a\"b\\c\nd"} 1
cache_op_total{shard="0",op="set"} 3
cache_op_total{shard="1",op="a\"b\\c\nd"} 1
cache_op_total{shard="1",op="set"} 4
# HELP cache_wait_seconds time in the queue
# TYPE cache_wait_seconds histogram
cache_wait_seconds_bucket{shard="0",le="0.000001"} 3
cache_wait_seconds_bucket{shard="0",le="0.0005"} 3
cache_wait_seconds_bucket{shard="0",le="2"} 4
cache_wait_seconds_bucket{shard="0",le="+Inf"} 5
cache_wait_seconds_sum{shard="0"} 3.0010025
cache_wait_seconds_count{shard="0"} 5
cache_wait_seconds_bucket{shard="1",le="0.000001"} 3
cache_wait_seconds_bucket{shard="1",le="0.0005"} 3
cache_wait_seconds_bucket{shard="1",le="2"} 4
cache_wait_seconds_bucket{shard="1",le="+Inf"} 5
cache_wait_seconds_sum{shard="1"} 3.0010025
cache_wait_seconds_count{shard="1"} 5
"##;
        assert_eq!(render(&[shard(0), shard(1)]), expected);
    }

    #[test]
    fn added_up_there_is_no_shard() {
        let text = render(&[merge(&[shard(0), shard(1)])]);
        for line in [
            "cache_keys -2\n",
            "cache_op_total{op=\"set\"} 7\n",
            "cache_wait_seconds_bucket{le=\"2\"} 8\n",
            "cache_wait_seconds_count 10\n",
        ] {
            assert!(text.contains(line), "{line} is not in {text}");
        }
        assert_eq!(render(&[]), "");
    }

    #[test]
    fn bounds_hold_what_was_recorded_at_them() {
        let registry = Registry::new(0);
        let wait = registry.histogram(&WAIT, &[]);
        for bound in SHORT.bounds {
            wait.record(*bound);
            wait.record(*bound + bound / 50 + 1);
        }
        let snapshot = registry.snapshot();
        let Some(Shot::Histogram(shot)) =
            snapshot.families["cache_wait_seconds"].series.values().next()
        else {
            panic!("no histogram");
        };
        assert_eq!(cumulated(&SHORT, shot), [1, 3, 5]);
    }
}
