//! What a shard tells about itself: metrics and the numbers of `/debug/shards`.

use super::ShardCx;
use crate::metrics::{Counter, Gauge, Metric, Registry};

static TURNS: Metric = Metric::counter("engine_turns_total", "Turns of the shard's loop.");
static SLEEPS: Metric = Metric::counter("engine_sleeps_total", "Times the shard slept.");
static SPINS_WON: Metric =
    Metric::counter("engine_spins_won_total", "Times spinning found work before a sleep.");
static STALLS: Metric =
    Metric::counter("engine_stalls_total", "Polls and turns longer than the stall limit.");
static STALL_MAX: Metric =
    Metric::gauge("engine_stall_max_microseconds", "The longest poll or turn over the limit.");
static TASKS: Metric = Metric::gauge("engine_tasks", "Tasks alive.");
static SUBMITTED: Metric =
    Metric::counter("engine_operations_total", "Operations handed to the ring.");
static COMPLETIONS: Metric =
    Metric::counter("engine_completions_total", "Completions collected from the ring.");
static ENTERS: Metric =
    Metric::counter("engine_enters_total", "System calls that entered the ring.");
static CALLS: Metric =
    Metric::counter("engine_other_syscalls_total", "Other system calls made by the driver.");
static BELLS: Metric = Metric::counter("engine_doorbells_total", "Wake-ups sent to other shards.");
static OVERFLOWS: Metric =
    Metric::counter("engine_cq_overflows_total", "Completions the full queue could not hold.");
static IN_FLIGHT: Metric = Metric::gauge("engine_operations_in_flight", "Operations in flight.");
static POOL: Metric =
    Metric::gauge("engine_receive_buffers_available", "Receive buffers the ring may fill.");

/// Handles of the shard's own metrics.
#[derive(Debug)]
pub(super) struct Handles {
    counters: [Counter; 10],
    gauges: [Gauge; 4],
}

impl Handles {
    pub(super) fn new(registry: &Registry) -> Self {
        let counters = [
            &TURNS,
            &SLEEPS,
            &SPINS_WON,
            &STALLS,
            &SUBMITTED,
            &COMPLETIONS,
            &ENTERS,
            &CALLS,
            &BELLS,
            &OVERFLOWS,
        ];
        let gauges = [&STALL_MAX, &TASKS, &IN_FLIGHT, &POOL];
        Self {
            counters: counters.map(|metric| registry.counter(metric, &[])),
            gauges: gauges.map(|metric| registry.gauge(metric, &[])),
        }
    }
}

/// Brings a service's metrics up to date before they are read, and adds its numbers to
/// `/debug/shards`.
pub type Source = Box<dyn Fn(&mut Vec<(&'static str, u64)>)>;

impl ShardCx {
    /// The shard's metrics.
    #[must_use]
    pub fn metrics(&self) -> &Registry {
        &self.0.metrics
    }

    /// Adds a service's part of the reports.
    pub fn add_source(&self, source: Source) {
        self.0.sources.borrow_mut().push(source);
    }

    /// Brings all metrics up to date.
    pub fn sample(&self) {
        let (stats, driver) = (self.stats(), self.driver_stats());
        let handles = &self.0.handles;
        let counters = [
            stats.turns,
            stats.sleeps,
            stats.spins_won,
            stats.stalls,
            driver.submitted,
            driver.completions,
            driver.enters,
            driver.calls,
            driver.bells,
            driver.overflows,
        ];
        for (handle, value) in handles.counters.iter().zip(counters) {
            handle.set(value);
        }
        let (in_flight, buffers) = self.occupancy();
        let gauges = [stats.stall_max_ns / 1_000, self.task_count() as u64, in_flight, buffers];
        for (handle, value) in handles.gauges.iter().zip(gauges) {
            handle.set(i64::try_from(value).unwrap_or(i64::MAX));
        }
    }

    /// Operations in flight, and receive buffers left.
    fn occupancy(&self) -> (u64, u64) {
        let driver = self.driver();
        (driver.in_flight() as u64, u64::from(driver.pool().available()))
    }

    /// The numbers of `/debug/shards`; also brings the services' metrics up to date.
    #[must_use]
    pub fn numbers(&self) -> Vec<(&'static str, u64)> {
        let (stats, driver) = (self.stats(), self.driver_stats());
        let (in_flight, buffers) = self.occupancy();
        let mut numbers = vec![
            ("turns", stats.turns),
            ("sleeps", stats.sleeps),
            ("spins_won", stats.spins_won),
            ("stalls", stats.stalls),
            ("stall_max_us", stats.stall_max_ns / 1_000),
            ("tasks", self.task_count() as u64),
            ("operations", driver.submitted),
            ("completions", driver.completions),
            ("enters", driver.enters),
            ("waits", driver.waits),
            ("other_syscalls", driver.calls),
            ("doorbells", driver.bells),
            ("cq_overflows", driver.overflows),
            ("operations_in_flight", in_flight),
            ("receive_buffers_available", buffers),
        ];
        for source in self.0.sources.borrow().iter() {
            source(&mut numbers);
        }
        numbers
    }
}
