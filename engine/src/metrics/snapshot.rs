//! The numbers of a shard at one moment, fit to be sent to another thread.

use super::{Cells, Family, Kind, Metric, Recorded};
use hdrhistogram::Histogram as Hdr;
use std::collections::BTreeMap;

/// All metrics of one shard, or of several added up.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// None when added up.
    pub(super) shard: Option<u32>,
    /// By name.
    pub(super) families: BTreeMap<&'static str, FamilyShot>,
}

#[derive(Clone, Debug)]
pub(super) struct FamilyShot {
    pub(super) metric: &'static Metric,
    /// By label values.
    pub(super) series: BTreeMap<Box<[Box<str>]>, Shot>,
}

#[derive(Clone, Debug)]
pub(super) enum Shot {
    Counter(u64),
    Gauge(i64),
    Histogram(Box<HistogramShot>),
}

#[derive(Clone, Debug)]
pub(super) struct HistogramShot {
    pub(super) values: Hdr<u64>,
    pub(super) sum: u64,
}

impl Snapshot {
    pub(super) fn of(shard: u32, families: &[Family]) -> Self {
        let shots = families.iter().map(|family| {
            let series = family.series.iter().map(|series| {
                let shot = match &series.cells {
                    Cells::Counter(counter) => Shot::Counter(counter.get()),
                    Cells::Gauge(gauge) => Shot::Gauge(gauge.get()),
                    Cells::Histogram(histogram) => {
                        let Recorded { values, sum } = histogram.0.borrow().clone();
                        Shot::Histogram(Box::new(HistogramShot { values, sum }))
                    }
                };
                (series.labels.clone(), shot)
            });
            (family.metric.name, FamilyShot { metric: family.metric, series: series.collect() })
        });
        Self { shard: Some(shard), families: shots.collect() }
    }

    /// The shard it was taken on; none when several were added up.
    #[must_use]
    pub const fn shard(&self) -> Option<u32> {
        self.shard
    }

    /// A counter; none if it does not exist.
    #[must_use]
    pub fn counter(&self, name: &str, labels: &[&str]) -> Option<u64> {
        match self.find(name, labels)? {
            Shot::Counter(value) => Some(*value),
            _ => None,
        }
    }

    /// A gauge; none if it does not exist.
    #[must_use]
    pub fn gauge(&self, name: &str, labels: &[&str]) -> Option<i64> {
        match self.find(name, labels)? {
            Shot::Gauge(value) => Some(*value),
            _ => None,
        }
    }

    /// The value below or at which `quantile` of a histogram's values are, in the recorded unit;
    /// none if it does not exist or holds nothing.
    #[must_use]
    pub fn quantile(&self, name: &str, labels: &[&str], quantile: f64) -> Option<u64> {
        match self.find(name, labels)? {
            Shot::Histogram(shot) if !shot.values.is_empty() => {
                Some(shot.values.value_at_quantile(quantile))
            }
            _ => None,
        }
    }

    fn find(&self, name: &str, labels: &[&str]) -> Option<&Shot> {
        let key: Box<[Box<str>]> = labels.iter().map(|label| Box::from(*label)).collect();
        self.families.get(name)?.series.get(&key)
    }
}

/// Adds up snapshots: counters, gauges and distributions alike.
#[must_use]
pub fn merge(snapshots: &[Snapshot]) -> Snapshot {
    let mut sum = Snapshot { shard: None, families: BTreeMap::new() };
    for snapshot in snapshots {
        for (name, family) in &snapshot.families {
            let shot = sum
                .families
                .entry(name)
                .or_insert_with(|| FamilyShot { metric: family.metric, series: BTreeMap::new() });
            for (labels, value) in &family.series {
                match shot.series.get_mut(labels) {
                    Some(total) => add(total, value),
                    None => {
                        shot.series.insert(labels.clone(), value.clone());
                    }
                }
            }
        }
    }
    sum
}

fn add(total: &mut Shot, value: &Shot) {
    match (total, value) {
        (Shot::Counter(total), Shot::Counter(value)) => *total = total.wrapping_add(*value),
        (Shot::Gauge(total), Shot::Gauge(value)) => *total = total.wrapping_add(*value),
        (Shot::Histogram(total), Shot::Histogram(value)) => {
            total.sum = total.sum.wrapping_add(value.sum);
            // Both have the bounds of one declaration.
            total.values.add(&value.values).expect("the same bounds");
        }
        _ => panic!("one name, two kinds of metric"),
    }
}

impl FamilyShot {
    /// The word of the exposition format.
    pub(super) const fn type_word(&self) -> &'static str {
        match self.metric.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram(_) => "histogram",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{LATENCY, Registry};

    static HITS: Metric = Metric::counter("cache_hit_total", "hits").labels(&["db"]);
    static KEYS: Metric = Metric::gauge("cache_keys", "keys");
    static WAIT: Metric = Metric::histogram("cache_wait_seconds", "waiting", &LATENCY);

    fn shard(shard: u32, db: &str, hits: u64, keys: i64, waits: &[u64]) -> Snapshot {
        let registry = Registry::new(shard);
        registry.counter(&HITS, &[db]).add(hits);
        registry.gauge(&KEYS, &[]).set(keys);
        let wait = registry.histogram(&WAIT, &[]);
        waits.iter().for_each(|value| wait.record(*value));
        registry.snapshot()
    }

    #[test]
    fn shards_are_added_up_on_another_thread() {
        let threads = std::thread::scope(|scope| {
            let threads =
                [0, 1].map(|n| scope.spawn(move || shard(n, "0", 5, 7, &[1_000_000; 10])));
            threads.map(|thread| thread.join().unwrap())
        });
        let [a, b] = threads;
        let c = shard(2, "1", 4, -2, &[50_000_000]);
        let sum = merge(&[a, b, c]);
        assert_eq!(sum.shard(), None);
        assert_eq!(sum.counter("cache_hit_total", &["0"]), Some(10));
        assert_eq!(sum.counter("cache_hit_total", &["1"]), Some(4));
        assert_eq!(sum.counter("cache_hit_total", &["2"]), None);
        assert_eq!(sum.gauge("cache_keys", &[]), Some(12));
        assert_eq!(sum.counter("cache_keys", &[]), None, "it is a gauge");
        let median = sum.quantile("cache_wait_seconds", &[], 0.5).unwrap();
        assert!((990_000..=1_010_000).contains(&median), "{median}");
        let top = sum.quantile("cache_wait_seconds", &[], 1.0).unwrap();
        assert!((49_500_000..=50_500_000).contains(&top), "{top}");
        let empty = shard(0, "0", 0, 0, &[]);
        assert_eq!(empty.quantile("cache_wait_seconds", &[], 0.5), None);
    }

    #[test]
    fn a_snapshot_stays_as_it_was() {
        let registry = Registry::new(3);
        let hits = registry.counter(&HITS, &["0"]);
        hits.increment();
        let before = registry.snapshot();
        hits.increment();
        assert_eq!(before.counter("cache_hit_total", &["0"]), Some(1));
        assert_eq!(before.shard(), Some(3));
    }
}
