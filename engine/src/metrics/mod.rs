//! Metrics of a shard: plain numbers behind handles, summed up when somebody asks.
//!
//! Why: the request path counts a lot and must not pay for it. A [`Metric`] is declared once, as a
//! `static`; [`Registry::counter`] and its siblings find the series at start and give out a handle;
//! from then on counting is an addition to a plain integer of this shard, without hash, lock or
//! atomic. To read them, each shard takes a [`Snapshot`] in its own turn and sends it to whoever
//! asked, who renders all of them ([`render`]) or adds them up ([`merge`]).
//!
//! Invariants: names are `service_noun_unit_total` (Prometheus' naming rules), checked when
//! declared; each metric has a bound on its series, beyond which new label values count as
//! `other`; histograms are of fixed size, so recording never allocates.
//!
//! Next: `snapshot` for what is sent, `text` for the exposition format.

mod snapshot;
mod text;

pub use snapshot::{Snapshot, merge};
pub use text::{CONTENT_TYPE, render};

use hdrhistogram::Histogram as Hdr;
use std::cell::{Cell, RefCell};
use std::rc::Rc;

/// Series of a counter or gauge, unless declared otherwise.
pub const SERIES_MAX: usize = 256;
/// Series of a histogram, unless declared otherwise: each holds some 30 KB.
pub const HISTOGRAM_SERIES_MAX: usize = 16;
/// Metrics of a registry.
pub const METRICS_MAX: usize = 1024;
/// The label value of everything beyond a metric's series.
pub const OTHER: &str = "other";

/// A metric, declared once as a `static`.
#[derive(Debug)]
pub struct Metric {
    name: &'static str,
    help: &'static str,
    kind: Kind,
    labels: &'static [&'static str],
    series_max: usize,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Counter,
    Gauge,
    Histogram(&'static Buckets),
}

/// The unit values are recorded in; Prometheus wants seconds and bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Recorded in nanoseconds, shown in seconds; the metric is named `…_seconds`.
    Nanoseconds,
    /// Bytes; the metric is named `…_bytes`.
    Bytes,
    /// Things, such as commands in a batch.
    Count,
}

/// What a histogram holds and shows.
#[derive(Debug)]
pub struct Buckets {
    /// Of the values and bounds.
    pub unit: Unit,
    /// Upper bounds that are shown, ascending. The histogram itself is finer: 1 %.
    pub bounds: &'static [u64],
    /// Larger values count as this.
    pub max: u64,
}

const US: u64 = 1_000;
const MS: u64 = 1_000_000;
const S: u64 = 1_000_000_000;

/// Durations from 1 µs to a minute.
#[rustfmt::skip]
pub static LATENCY: Buckets = Buckets {
    unit: Unit::Nanoseconds,
    bounds: &[
        US, 2 * US, 5 * US, 10 * US, 20 * US, 50 * US, 100 * US, 200 * US, 500 * US,
        MS, 2 * MS, 5 * MS, 10 * MS, 20 * MS, 50 * MS, 100 * MS, 200 * MS, 500 * MS,
        S, 2 * S, 5 * S, 10 * S,
    ],
    max: 60 * S,
};

/// Sizes from 64 bytes to a gigabyte.
#[rustfmt::skip]
pub static SIZES: Buckets = Buckets {
    unit: Unit::Bytes,
    bounds: &[
        1 << 6, 1 << 8, 1 << 10, 1 << 12, 1 << 14, 1 << 16, 1 << 18, 1 << 20, 1 << 22, 1 << 24,
    ],
    max: 1 << 30,
};

/// Batches from one to a few thousand.
#[rustfmt::skip]
pub static BATCHES: Buckets = Buckets {
    unit: Unit::Count,
    bounds: &[1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024],
    max: 1 << 20,
};

impl Metric {
    /// A number that only grows; its name ends in `_total`.
    #[must_use]
    pub const fn counter(name: &'static str, help: &'static str) -> Self {
        Self { name, help, kind: Kind::Counter, labels: &[], series_max: SERIES_MAX }
    }

    /// A number that goes up and down.
    #[must_use]
    pub const fn gauge(name: &'static str, help: &'static str) -> Self {
        Self { name, help, kind: Kind::Gauge, labels: &[], series_max: SERIES_MAX }
    }

    /// A distribution; its name ends in its unit.
    #[must_use]
    pub const fn histogram(
        name: &'static str,
        help: &'static str,
        buckets: &'static Buckets,
    ) -> Self {
        let kind = Kind::Histogram(buckets);
        Self { name, help, kind, labels: &[], series_max: HISTOGRAM_SERIES_MAX }
    }

    /// With these labels. Their values must come from a bounded set: never a key or an address.
    #[must_use]
    pub const fn labels(mut self, labels: &'static [&'static str]) -> Self {
        self.labels = labels;
        self
    }

    /// With at most so many series, `other` not counted.
    #[must_use]
    pub const fn series_max(mut self, series_max: usize) -> Self {
        self.series_max = series_max;
        self
    }

    /// The name.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }

    fn check(&self) {
        let name = self.name;
        let word = |text: &str| {
            text.starts_with(|c: char| c.is_ascii_lowercase())
                && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
        };
        assert!(word(name) && name.contains('_'), "metric {name}: service_noun_unit");
        assert!(
            !self.help.is_empty() && !self.help.contains('\n'),
            "metric {name}: one line of help"
        );
        for label in self.labels {
            assert!(
                word(label) && !["shard", "le"].contains(label),
                "metric {name}: label {label}"
            );
        }
        match self.kind {
            Kind::Counter => assert!(name.ends_with("_total"), "counter {name}: no _total"),
            Kind::Gauge => {
                assert!(!name.ends_with("_total"), "gauge {name}: _total is for counters")
            }
            Kind::Histogram(buckets) => {
                let suffix = match buckets.unit {
                    Unit::Nanoseconds => "_seconds",
                    Unit::Bytes => "_bytes",
                    Unit::Count => "",
                };
                assert!(name.ends_with(suffix), "histogram {name}: no {suffix}");
                assert!(buckets.bounds.is_sorted() && buckets.max >= 2, "histogram {name}: bounds");
            }
        }
    }
}

/// Counts up. Clones count together.
#[derive(Clone, Debug, Default)]
pub struct Counter(Rc<Cell<u64>>);

impl Counter {
    /// One more.
    #[inline]
    pub fn increment(&self) {
        self.add(1);
    }

    /// `count` more.
    #[inline]
    pub fn add(&self, count: u64) {
        self.0.set(self.0.get().wrapping_add(count));
    }

    /// Takes over a count that is kept elsewhere, right before a snapshot.
    #[inline]
    pub fn set(&self, total: u64) {
        self.0.set(total);
    }

    /// The count.
    #[inline]
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.get()
    }
}

/// Goes up and down. Clones go together.
#[derive(Clone, Debug, Default)]
pub struct Gauge(Rc<Cell<i64>>);

impl Gauge {
    /// `by` more, or less.
    #[inline]
    pub fn add(&self, by: i64) {
        self.0.set(self.0.get().wrapping_add(by));
    }

    /// Exactly this.
    #[inline]
    pub fn set(&self, value: i64) {
        self.0.set(value);
    }

    /// The value.
    #[inline]
    #[must_use]
    pub fn get(&self) -> i64 {
        self.0.get()
    }
}

#[derive(Clone, Debug)]
struct Recorded {
    values: Hdr<u64>,
    sum: u64,
}

impl Recorded {
    fn new(buckets: &Buckets) -> Self {
        let values = Hdr::new_with_bounds(1, buckets.max, 2).expect("checked when declared");
        Self { values, sum: 0 }
    }
}

/// A distribution. Clones record together.
#[derive(Clone, Debug)]
pub struct Histogram(Rc<RefCell<Recorded>>);

impl Histogram {
    /// One value, in the unit of its buckets.
    #[inline]
    pub fn record(&self, value: u64) {
        self.record_n(value, 1);
    }

    /// The same value `count` times.
    #[inline]
    pub fn record_n(&self, value: u64, count: u64) {
        let mut recorded = self.0.borrow_mut();
        recorded.values.saturating_record_n(value, count);
        recorded.sum = recorded.sum.wrapping_add(value.wrapping_mul(count));
    }

    /// The value below or at which `quantile` of all values are, `0.0..=1.0`; zero of none.
    #[must_use]
    pub fn quantile(&self, quantile: f64) -> u64 {
        self.0.borrow().values.value_at_quantile(quantile)
    }

    /// How many values.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.borrow().values.len()
    }
}

#[derive(Clone, Debug)]
enum Cells {
    Counter(Counter),
    Gauge(Gauge),
    Histogram(Histogram),
}

#[derive(Debug)]
struct Series {
    labels: Box<[Box<str>]>,
    cells: Cells,
}

#[derive(Debug)]
struct Family {
    metric: &'static Metric,
    series: Vec<Series>,
}

/// All metrics of one shard.
#[derive(Debug)]
pub struct Registry {
    shard: u32,
    families: RefCell<Vec<Family>>,
}

impl Registry {
    /// No metrics yet.
    #[must_use]
    pub const fn new(shard: u32) -> Self {
        Self { shard, families: RefCell::new(Vec::new()) }
    }

    /// The counter with these label values, which is made if it is new.
    ///
    /// # Panics
    /// If `metric` is no counter, is badly declared, shares its name with another metric, or has
    /// another number of labels.
    pub fn counter(&self, metric: &'static Metric, labels: &[&str]) -> Counter {
        match self.series(metric, labels) {
            Cells::Counter(counter) => counter,
            _ => panic!("metric {} is no counter", metric.name),
        }
    }

    /// The gauge with these label values, which is made if it is new.
    ///
    /// # Panics
    /// As [`Registry::counter`].
    pub fn gauge(&self, metric: &'static Metric, labels: &[&str]) -> Gauge {
        match self.series(metric, labels) {
            Cells::Gauge(gauge) => gauge,
            _ => panic!("metric {} is no gauge", metric.name),
        }
    }

    /// The histogram with these label values, which is made if it is new.
    ///
    /// # Panics
    /// As [`Registry::counter`].
    pub fn histogram(&self, metric: &'static Metric, labels: &[&str]) -> Histogram {
        match self.series(metric, labels) {
            Cells::Histogram(histogram) => histogram,
            _ => panic!("metric {} is no histogram", metric.name),
        }
    }

    /// Everything as it is now, to be sent elsewhere.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        Snapshot::of(self.shard, &self.families.borrow())
    }

    fn series(&self, metric: &'static Metric, labels: &[&str]) -> Cells {
        assert_eq!(labels.len(), metric.labels.len(), "metric {}: its labels", metric.name);
        let mut families = self.families.borrow_mut();
        let known = families.iter().position(|family| family.metric.name == metric.name);
        let index = known.unwrap_or_else(|| {
            metric.check();
            assert!(families.len() < METRICS_MAX, "more than {METRICS_MAX} metrics");
            families.push(Family { metric, series: Vec::new() });
            families.len() - 1
        });
        let family = &mut families[index];
        let same = family.metric.labels == metric.labels && family.metric.help == metric.help;
        assert!(same, "metric {} is declared twice, differently", metric.name);
        if let Some(cells) = family.find(labels) {
            return cells;
        }
        if family.series.len() < metric.series_max || labels.is_empty() {
            return family.add(labels);
        }
        let other = vec![OTHER; labels.len()];
        family.find(&other).unwrap_or_else(|| family.add(&other))
    }
}

impl Family {
    fn find(&self, labels: &[&str]) -> Option<Cells> {
        let wanted = |series: &&Series| {
            series.labels.iter().map(|label| &**label).eq(labels.iter().copied())
        };
        self.series.iter().find(wanted).map(|series| series.cells.clone())
    }

    fn add(&mut self, labels: &[&str]) -> Cells {
        let cells = match self.metric.kind {
            Kind::Counter => Cells::Counter(Counter::default()),
            Kind::Gauge => Cells::Gauge(Gauge::default()),
            Kind::Histogram(buckets) => {
                Cells::Histogram(Histogram(Rc::new(RefCell::new(Recorded::new(buckets)))))
            }
        };
        let labels = labels.iter().map(|label| Box::from(*label)).collect();
        self.series.push(Series { labels, cells: cells.clone() });
        cells
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static HITS: Metric = Metric::counter("cache_hit_total", "lookups that found their key");
    static OPS: Metric =
        Metric::counter("cache_op_total", "operations").labels(&["op"]).series_max(2);
    static WAIT: Metric = Metric::histogram("cache_wait_seconds", "waiting", &LATENCY);

    #[test]
    fn handles_of_one_series_count_together() {
        let registry = Registry::new(0);
        let (a, b) = (registry.counter(&HITS, &[]), registry.counter(&HITS, &[]));
        a.increment();
        b.add(2);
        assert_eq!((a.get(), b.get()), (3, 3));
        let other = Registry::new(1).counter(&HITS, &[]);
        assert_eq!(other.get(), 0, "another shard");
    }

    #[test]
    fn series_are_bounded() {
        let registry = Registry::new(0);
        for n in 0..1_000 {
            registry.counter(&OPS, &[&format!("op{n}")]).increment();
        }
        assert_eq!(registry.counter(&OPS, &["op1"]).get(), 1, "what was there stays");
        assert_eq!(registry.counter(&OPS, &[OTHER]).get(), 998);
        assert_eq!(registry.families.borrow()[0].series.len(), 3);
    }

    #[test]
    fn histograms_saturate_and_keep_one_percent() {
        let histogram = Registry::new(0).histogram(&WAIT, &[]);
        assert_eq!(histogram.quantile(0.5), 0);
        for n in 1..=1_000 {
            histogram.record(n * 1_000);
        }
        let median = histogram.quantile(0.5) as f64;
        assert!((median / 500_000.0 - 1.0).abs() < 0.01, "{median}");
        histogram.record(u64::MAX);
        histogram.record(0);
        assert_eq!(histogram.count(), 1_002);
        let top = histogram.quantile(1.0) as f64;
        assert!((top / (60.0 * S as f64) - 1.0).abs() < 0.02, "{top}");
    }

    #[test]
    fn bad_declarations_are_refused() {
        static BAD: [Metric; 6] = [
            Metric::counter("cache_hits", "no _total"),
            Metric::counter("total", "no service"),
            Metric::gauge("cache_Size", "a capital"),
            Metric::gauge("cache_size", ""),
            Metric::gauge("cache_size", "a label of ours").labels(&["shard"]),
            Metric::histogram("cache_wait", "no unit", &LATENCY),
        ];
        for metric in &BAD {
            assert!(std::panic::catch_unwind(|| metric.check()).is_err(), "{}", metric.name);
        }
        static TWIN: Metric = Metric::gauge("cache_hit_total", "another");
        let twice = std::panic::catch_unwind(|| {
            let registry = Registry::new(0);
            registry.counter(&HITS, &[]);
            registry.gauge(&TWIN, &[])
        });
        assert!(twice.is_err());
    }
}
