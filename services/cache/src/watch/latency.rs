//! LATENCY: peaks by event, and how long each command takes.
//!
//! Invariant: an event keeps its last [`SAMPLES`] seconds with a peak, the worst of each; a histogram has one counter per
//! power of two.

use std::collections::BTreeMap;

const SAMPLES: usize = 160;
const BUCKETS: usize = 40;

/// One event's peaks, oldest first: second and milliseconds.
#[derive(Clone, Debug, Default)]
pub(crate) struct Series {
    pub(crate) samples: Vec<(u64, u64)>,
    pub(crate) max_ms: u64,
}

/// Peaks by event.
#[derive(Clone, Debug, Default)]
pub(crate) struct Events(BTreeMap<String, Series>);

impl Events {
    pub(crate) fn add(&mut self, event: &str, at_s: u64, ms: u64) {
        self.0.entry(event.to_owned()).or_default().add(at_s, ms);
    }

    /// Adds another shard's.
    pub(crate) fn merge(&mut self, other: Self) {
        for (event, series) in other.0 {
            let mine = self.0.entry(event).or_default();
            mine.max_ms = mine.max_ms.max(series.max_ms);
            let mut all = std::mem::take(&mut mine.samples);
            all.extend(series.samples);
            all.sort_unstable();
            for (at_s, ms) in all {
                mine.add(at_s, ms);
            }
        }
    }

    /// Forgets these events, or all; how many there were.
    pub(crate) fn reset(&mut self, names: &[String]) -> usize {
        let before = self.0.len();
        if names.is_empty() {
            self.0.clear();
        } else {
            self.0.retain(|event, _| !names.iter().any(|name| name == event));
        }
        before - self.0.len()
    }

    pub(crate) fn get(&self, event: &str) -> Option<&Series> {
        self.0.get(event)
    }

    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Series)> {
        self.0.iter().map(|(event, series)| (event.as_str(), series))
    }
}

impl Series {
    fn add(&mut self, at_s: u64, ms: u64) {
        self.max_ms = self.max_ms.max(ms);
        match self.samples.last_mut() {
            Some((last_s, worst)) if *last_s == at_s => *worst = (*worst).max(ms),
            _ => {
                if self.samples.len() == SAMPLES {
                    self.samples.remove(0);
                }
                self.samples.push((at_s, ms));
            }
        }
    }
}

/// How long a command took, in powers of two.
#[derive(Clone, Debug)]
pub(crate) struct Histogram {
    pub(crate) calls: u64,
    /// Up to 1024 ns, up to twice that, and so on.
    counts: [u64; BUCKETS],
}

impl Default for Histogram {
    fn default() -> Self {
        Self { calls: 0, counts: [0; BUCKETS] }
    }
}

impl Histogram {
    pub(crate) fn add(&mut self, ns: u64) {
        self.calls += 1;
        let bucket = 64 - (ns.saturating_sub(1) >> 10).leading_zeros();
        let bucket = usize::try_from(bucket).unwrap_or(BUCKETS).min(BUCKETS - 1);
        if let Some(count) = self.counts.get_mut(bucket) {
            *count += 1;
        }
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        self.calls += other.calls;
        self.counts.iter_mut().zip(other.counts).for_each(|(mine, theirs)| *mine += theirs);
    }

    /// Upper ends in microseconds with how many calls took no longer, where that grows.
    pub(crate) fn cumulative(&self) -> Vec<(u64, u64)> {
        let (mut sum, mut all) = (0, Vec::new());
        for (bucket, count) in self.counts.iter().enumerate().filter(|(_, count)| **count > 0) {
            sum += count;
            all.push(((1_024_u64 << bucket) / 1_000, sum));
        }
        all
    }
}

/// An ASCII graph of an event's peaks, as LATENCY GRAPH draws it.
pub(crate) fn graph(event: &str, series: &Series, now_s: u64) -> String {
    const ROWS: usize = 4;
    const COLUMNS: usize = 80;
    let skipped = series.samples.len().saturating_sub(COLUMNS);
    let samples: Vec<(u64, u64)> = series.samples.iter().skip(skipped).copied().collect();
    let high = samples.iter().map(|(_, ms)| *ms).max().unwrap_or(0);
    let low = samples.iter().map(|(_, ms)| *ms).min().unwrap_or(0);
    let mut text =
        format!("{event} - high {high} ms, low {low} ms (all time high {} ms)\n", series.max_ms);
    text.push_str(&"-".repeat(COLUMNS));
    text.push('\n');
    let range = (high - low).max(1);
    let height = |ms: u64| {
        let share = (ms - low) as f64 / range as f64;
        // Four characters a row, from the bottom.
        (share * (ROWS * 3 - 1) as f64) as usize
    };
    for row in (0..ROWS).rev() {
        let mut line = String::new();
        for (_, ms) in &samples {
            let level = height(*ms);
            line.push(match level / 3 {
                at if at == row => ['_', 'o', '#'].get(level % 3).copied().unwrap_or('#'),
                at if at > row => '|',
                _ => ' ',
            });
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    let age = |at_s: u64| match now_s.saturating_sub(at_s) {
        seconds @ 0..60 => format!("{seconds}s"),
        seconds @ 60..3_600 => format!("{}m", seconds / 60),
        seconds @ 3_600..86_400 => format!("{}h", seconds / 3_600),
        seconds => format!("{}d", seconds / 86_400),
    };
    let labels: Vec<Vec<char>> = samples.iter().map(|(at, _)| age(*at).chars().collect()).collect();
    text.push('\n');
    for row in 0..labels.iter().map(Vec::len).max().unwrap_or(0) {
        let letter = |label: &Vec<char>| label.get(row).copied().unwrap_or(' ');
        let line: String = labels.iter().map(letter).collect();
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_keeps_the_worst_of_a_second_and_forgets_the_oldest() {
        let mut events = Events::default();
        for (at, ms) in [(1, 5), (1, 9), (1, 7), (2, 3)] {
            events.add("command", at, ms);
        }
        let series = events.get("command").expect("added");
        assert_eq!((series.samples.as_slice(), series.max_ms), (&[(1, 9), (2, 3)][..], 9));
        for at in 0..SAMPLES as u64 {
            events.add("command", 10 + at, 1);
        }
        let series = events.get("command").expect("added");
        assert_eq!((series.samples.len(), series.samples[0]), (SAMPLES, (10, 1)));
        assert_eq!(events.reset(&["other".into()]), 0);
        assert_eq!(events.reset(&[]), 1);
    }

    #[test]
    fn a_histogram_counts_up() {
        let mut histogram = Histogram::default();
        for ns in [0, 1, 1_024, 1_025, 2_048, 5_000_000, u64::MAX] {
            histogram.add(ns);
        }
        let cumulative = histogram.cumulative();
        assert_eq!(cumulative[..3], [(1, 3), (2, 5), (8_388, 6)]);
        assert_eq!((cumulative.len(), histogram.calls), (4, 7));
    }

    #[test]
    fn a_graph_has_a_column_per_second() {
        let mut events = Events::default();
        (0..3).for_each(|at| events.add("command", 100 + at, 10 * (at + 1)));
        let text = graph("command", events.get("command").expect("added"), 105);
        assert!(text.starts_with("command - high 30 ms, low 10 ms (all time high 30 ms)\n---"));
        assert!(text.contains("\n543\nsss\n"), "{text}");
    }
}
