//! The cache's metrics: taken from its counters when somebody asks, so that a command pays for none.

use std::rc::{Rc, Weak};

use engine::metrics::{Counter, Gauge, Metric};
use engine::net::Server;

use crate::{repl::Measured, serve::Cache};

static COMMANDS: Metric = Metric::counter("cache_commands_total", "Commands run.");
static ERRORS: Metric = Metric::counter("cache_error_replies_total", "Error replies.");
static HOPPED: Metric =
    Metric::counter("cache_hopped_commands_total", "Commands sent to the shard that owns the key.");
static HOPS: Metric =
    Metric::counter("cache_hop_requests_total", "Messages sent to other shards for commands.");
static MOVED: Metric = Metric::counter("cache_moved_replies_total", "MOVED replies.");
static LOCK_WAITS: Metric =
    Metric::counter("cache_lock_waits_total", "Commands that waited for a multi-key command.");
static LOST_ON_RETURN: Metric = Metric::counter(
    "cache_lost_on_return_total",
    "Keys that found no room when they came back from another shard.",
);
static POSTS_LOST: Metric = Metric::counter(
    "cache_posts_lost_total",
    "Messages to other shards that nobody waited for and that found no room.",
);
static SNAPSHOT_WAITS: Metric = Metric::counter(
    "cache_snapshot_waits_total",
    "Times writes were held back because a snapshot could not follow.",
);
static HITS: Metric = Metric::counter("cache_hits_total", "Look-ups that found their key.");
static MISSES: Metric = Metric::counter("cache_misses_total", "Look-ups that did not.");
static EXPIRED: Metric = Metric::counter("cache_expired_keys_total", "Keys removed when due.");
static EVICTED: Metric = Metric::counter("cache_evicted_keys_total", "Keys removed for memory.");
static COMPACTED: Metric =
    Metric::counter("cache_compacted_records_total", "Records moved out of sparsely used memory.");
static HOT_SAMPLES: Metric =
    Metric::counter("cache_hot_key_samples_total", "Commands sampled for HOTKEYS.");
static ERASE_SCANNED: Metric = Metric::counter(
    "cache_delete_jobs_scanned_keys_total",
    "Keys that SCANDEL and DELPREFIX looked at.",
);
static ERASE_DELETED: Metric = Metric::counter(
    "cache_delete_jobs_deleted_keys_total",
    "Keys that SCANDEL and DELPREFIX deleted.",
);
static ERASE_ACTIVE: Metric =
    Metric::gauge("cache_delete_jobs", "Deletions by SCANDEL and DELPREFIX that are under way.");
static HOTTEST: Metric = Metric::gauge(
    "cache_hottest_key_commands_per_second",
    "Commands per second on the key most commands are about, estimated.",
);
static BIG: Metric = Metric::gauge("cache_big_keys", "Keys noted as big, of at most 64.");
static BIGGEST: Metric =
    Metric::gauge("cache_biggest_key_bytes", "Memory of the largest key noted as big.");
static ACCEPTED: Metric = Metric::counter("cache_connections_total", "Connections accepted.");
static REFUSED: Metric =
    Metric::counter("cache_connections_refused_total", "Connections refused at the limit.");
static RECEIVED: Metric = Metric::counter("cache_received_bytes_total", "Bytes received.");
static SENT: Metric = Metric::counter("cache_sent_bytes_total", "Bytes sent.");
static STARVED: Metric =
    Metric::counter("cache_receives_starved_total", "Receives that found no buffer.");
static PAUSED: Metric =
    Metric::counter("cache_pauses_total", "Times a client's input waited for it to read.");
static LOGGED: Metric =
    Metric::counter("cache_log_entries_total", "Entries of the append-only log.");
static LOG_SYNCS: Metric =
    Metric::counter("cache_log_syncs_total", "Times the append-only log was made durable.");
static LOG_REWRITES: Metric =
    Metric::counter("cache_log_rewrites_total", "Times the append-only log was rewritten.");
static LOG_SIZE: Metric =
    Metric::gauge("cache_log_bytes", "Length of the append-only log that is needed.");
static LINK_UP: Metric = Metric::gauge(
    "cache_replication_link_up",
    "1 while this replica gets its master's commands; 0 otherwise, and on a master.",
);
static LINK_SILENT: Metric = Metric::gauge(
    "cache_replication_lag_seconds",
    "Seconds since the master was last heard, or since the link went down; 0 on a master.",
);
static REPL_OFFSET: Metric = Metric::gauge(
    "cache_replication_offset_bytes",
    "How far the master's commands were applied, as the master counts.",
);
static FULL_SYNCS: Metric = Metric::counter(
    "cache_replication_full_syncs_total",
    "Times the master's whole data set was taken.",
);
static PARTIAL_SYNCS: Metric = Metric::counter(
    "cache_replication_partial_syncs_total",
    "Times a link went on where the one before had ended.",
);
static FLOWS: Metric = Metric::gauge("cache_replica_flows", "Replicas that follow a shard.");
static FLOW_LAG: Metric = Metric::gauge(
    "cache_replica_lag_seconds",
    "Seconds since the replica of a shard that has been silent longest was heard.",
);
static FLOW_BEHIND: Metric = Metric::gauge(
    "cache_replica_behind_bytes",
    "Bytes of a shard's journal that the replica furthest behind has not applied.",
);
static USED: Metric = Metric::gauge("cache_used_bytes", "Memory of keys and values.");
static CLIENTS: Metric = Metric::gauge("cache_clients", "Connections now.");
static KEYS: Metric = Metric::gauge("cache_keys", "Keys in all databases.");

struct Handles {
    counters: [Counter; 28],
    gauges: [Gauge; 14],
}

/// Registers the metrics of a server with its shard.
pub(crate) fn install(server: &Rc<Server<Cache>>) {
    let registry = server.cx().metrics();
    let counters = [
        &COMMANDS,
        &ERRORS,
        &HOPPED,
        &HOPS,
        &MOVED,
        &LOCK_WAITS,
        &LOST_ON_RETURN,
        &HITS,
        &MISSES,
        &EXPIRED,
        &EVICTED,
        &COMPACTED,
        &ACCEPTED,
        &REFUSED,
        &RECEIVED,
        &SENT,
        &STARVED,
        &PAUSED,
        &HOT_SAMPLES,
        &ERASE_SCANNED,
        &ERASE_DELETED,
        &POSTS_LOST,
        &SNAPSHOT_WAITS,
        &LOGGED,
        &LOG_SYNCS,
        &LOG_REWRITES,
        &FULL_SYNCS,
        &PARTIAL_SYNCS,
    ];
    let handles = Handles {
        counters: counters.map(|metric| registry.counter(metric, &[])),
        gauges: [
            &USED,
            &CLIENTS,
            &KEYS,
            &ERASE_ACTIVE,
            &HOTTEST,
            &BIG,
            &BIGGEST,
            &LOG_SIZE,
            &LINK_UP,
            &LINK_SILENT,
            &REPL_OFFSET,
            &FLOWS,
            &FLOW_LAG,
            &FLOW_BEHIND,
        ]
        .map(|metric| registry.gauge(metric, &[])),
    };
    let weak: Weak<Server<Cache>> = Rc::downgrade(server);
    server.cx().add_source(Box::new(move |numbers| {
        if let Some(server) = weak.upgrade() {
            sample(&server, &handles, numbers);
        }
    }));
}

/// What there is to tell of replication; on the first shard only, since it concerns all.
fn replication(server: &Server<Cache>) -> Measured {
    if server.cx().index() > 0 {
        return Measured::default();
    }
    let shard = server.shard().borrow();
    shard.repl.measured(server.cx().now())
}

fn sample(server: &Server<Cache>, handles: &Handles, numbers: &mut Vec<(&'static str, u64)>) {
    let net = server.stats();
    let report = server.shard().borrow().report(server.cx().now());
    let log = server.shard().borrow().log_counts();
    let stats = &report.stats;
    let replication = replication(server);
    let counters = [
        stats.total_calls(),
        stats.total_errors(),
        stats.hopped_commands,
        stats.hop_requests,
        stats.moved,
        stats.lock_waits,
        stats.lost_on_return,
        report.store.hits,
        report.store.misses,
        report.store.expired,
        report.store.evicted,
        report.store.compacted,
        net.accepted,
        net.refused,
        net.received_bytes,
        net.sent_bytes,
        net.starved,
        net.paused,
        report.hot_samples,
        report.erase_scanned,
        report.erase_deleted,
        stats.posts_lost,
        stats.snapshot_waits,
        log.entries,
        log.syncs,
        log.rewrites,
        replication.full_syncs,
        replication.partial_syncs,
    ];
    for (handle, value) in handles.counters.iter().zip(counters) {
        handle.set(value);
    }
    let keys = report.databases.iter().map(|(keys, ..)| keys).sum();
    let [flows, silent_s, behind_bytes] = server.shard().borrow().flow_numbers(server.cx().now());
    let gauges = [
        report.used_bytes,
        net.live,
        keys,
        report.erase_active.len() as u64,
        report.hottest_rate,
        report.big_keys,
        report.biggest_bytes,
        log.size_bytes,
        replication.is_up.into(),
        replication.lag_s,
        replication.offset,
        flows,
        silent_s,
        behind_bytes,
    ];
    for (handle, value) in handles.gauges.iter().zip(gauges) {
        handle.set(i64::try_from(value).unwrap_or(i64::MAX));
    }
    numbers.extend([
        ("cache_clients", net.live),
        ("cache_commands", stats.total_calls()),
        ("cache_hopped_commands", stats.hopped_commands),
        ("cache_keys", keys),
        ("cache_used_bytes", report.used_bytes),
        ("cache_received_bytes", net.received_bytes),
        ("cache_sent_bytes", net.sent_bytes),
    ]);
}
