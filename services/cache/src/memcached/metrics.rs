//! This protocol's metrics: taken from its counters when somebody asks.

use std::rc::{Rc, Weak};

use engine::metrics::{Counter, Gauge, Metric};
use engine::net::Server;

use super::Memcached;

static GETS: Metric =
    Metric::counter("cache_memcached_gets_total", "Items asked for by memcached's protocol.");
static HITS: Metric = Metric::counter("cache_memcached_hits_total", "Items that were there.");
static SETS: Metric = Metric::counter("cache_memcached_sets_total", "Values sent to be stored.");
static TOO_LARGE: Metric =
    Metric::counter("cache_memcached_too_large_total", "Values refused for their size.");
static NO_MEMORY: Metric =
    Metric::counter("cache_memcached_no_memory_total", "Values refused for want of memory.");
static ACCEPTED: Metric = Metric::counter(
    "cache_memcached_connections_total",
    "Connections of memcached's protocol accepted.",
);
static RECEIVED: Metric =
    Metric::counter("cache_memcached_received_bytes_total", "Bytes received by it.");
static SENT: Metric = Metric::counter("cache_memcached_sent_bytes_total", "Bytes sent by it.");
static CLIENTS: Metric = Metric::gauge("cache_memcached_clients", "Its connections now.");
static ITEMS: Metric = Metric::gauge("cache_memcached_items", "Its items.");

struct Handles {
    counters: [Counter; 8],
    gauges: [Gauge; 2],
}

/// Registers the metrics of a server with its shard.
pub(super) fn install(server: &Rc<Server<Memcached>>) {
    let registry = server.cx().metrics();
    let counters = [&GETS, &HITS, &SETS, &TOO_LARGE, &NO_MEMORY, &ACCEPTED, &RECEIVED, &SENT];
    let handles = Handles {
        counters: counters.map(|metric| registry.counter(metric, &[])),
        gauges: [&CLIENTS, &ITEMS].map(|metric| registry.gauge(metric, &[])),
    };
    let weak: Weak<Server<Memcached>> = Rc::downgrade(server);
    server.cx().add_source(Box::new(move |numbers| {
        if let Some(server) = weak.upgrade() {
            sample(&server, &handles, numbers);
        }
    }));
}

fn sample(server: &Server<Memcached>, handles: &Handles, numbers: &mut Vec<(&'static str, u64)>) {
    let net = server.stats();
    let report = server.shard().borrow().memcached_report();
    let counted = &report.counters;
    let counters = [
        counted.get_cmds,
        counted.get_hits,
        counted.set_cmds,
        counted.store_too_large,
        counted.store_no_memory,
        net.accepted,
        net.received_bytes,
        net.sent_bytes,
    ];
    for (handle, value) in handles.counters.iter().zip(counters) {
        handle.set(value);
    }
    for (handle, value) in handles.gauges.iter().zip([net.live, report.items]) {
        handle.set(i64::try_from(value).unwrap_or(i64::MAX));
    }
    numbers
        .extend([("cache_memcached_clients", net.live), ("cache_memcached_items", report.items)]);
}
