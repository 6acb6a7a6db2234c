//! The broker's metrics: taken from its counters when somebody asks.

use std::rc::{Rc, Weak};

use engine::metrics::{Counter, Gauge, Metric};
use engine::net::Server;

use crate::serve::Broker;

static REQUESTS: Metric = Metric::counter("broker_requests_total", "Requests taken.");
static BATCHES: Metric = Metric::counter("broker_produced_batches_total", "Record batches stored.");
static RECORDS: Metric = Metric::counter("broker_produced_records_total", "Records stored.");
static BYTES: Metric = Metric::counter("broker_produced_bytes_total", "Bytes of batches stored.");
static REFUSED_BATCHES: Metric =
    Metric::counter("broker_refused_batches_total", "Record batches not stored.");
static FETCHES: Metric = Metric::counter("broker_fetches_total", "Fetch requests answered.");
static FETCHED: Metric = Metric::counter("broker_fetched_bytes_total", "Bytes of records fetched.");
static SENDFILE: Metric = Metric::counter(
    "broker_fetch_bytes_sendfile_total",
    "Bytes of records that went from files to sockets without passing through user memory.",
);
static COPIED: Metric = Metric::counter(
    "broker_fetch_bytes_copied_total",
    "Bytes of records that were read into user memory to be encrypted and sent.",
);
static HANDSHAKES: Metric =
    Metric::counter("broker_tls_handshakes_total", "TLS handshakes that were completed.");
static TLS_ERRORS: Metric = Metric::counter(
    "broker_tls_errors_total",
    "TLS connections that ended with an error, or before their handshake was complete.",
);
static RECEIVE_COPIED: Metric = Metric::counter(
    "broker_receive_bytes_copied_total",
    "Received bytes that were copied because their request had not arrived whole, or was encrypted.",
);
static SYNCS: Metric = Metric::counter("broker_syncs_total", "Syncs of partitions.");
static SYNC_NS: Metric = Metric::counter("broker_sync_ns_total", "Nanoseconds that syncs took.");
static MALFORMED: Metric =
    Metric::counter("broker_malformed_requests_total", "Requests that ended their connection.");
static COMPACTIONS: Metric =
    Metric::counter("broker_compaction_rounds_total", "Rounds of compaction that were finished.");
static COMPACTION_FAILURES: Metric = Metric::counter(
    "broker_compaction_failures_total",
    "Rounds of compaction that were not; the log says why.",
);
static COMPACTION_NS: Metric =
    Metric::counter("broker_compaction_ns_total", "Nanoseconds that rounds of compaction took.");
static COMPACTION_READ: Metric =
    Metric::counter("broker_compaction_read_bytes_total", "Bytes that compaction read.");
static COMPACTION_WRITTEN: Metric =
    Metric::counter("broker_compaction_written_bytes_total", "Bytes that compaction wrote.");
static COMPACTION_DROPPED: Metric =
    Metric::counter("broker_compaction_dropped_records_total", "Records that compaction dropped.");
static LOGINS: Metric = Metric::counter("broker_logins_total", "Log-ins that were complete.");
static FAILED_LOGINS: Metric =
    Metric::counter("broker_failed_logins_total", "Log-ins that failed.");
static THROTTLED: Metric =
    Metric::counter("broker_throttled_requests_total", "Requests of clients above their quota.");
static ACCEPTED: Metric = Metric::counter("broker_connections_total", "Connections accepted.");
static RECEIVED: Metric = Metric::counter("broker_received_bytes_total", "Bytes received.");
static SENT: Metric = Metric::counter("broker_sent_bytes_total", "Bytes sent.");
static CLIENTS: Metric = Metric::gauge("broker_clients", "Connections now.");
static PARTITIONS: Metric = Metric::gauge("broker_partitions", "Partitions led by this shard.");
static OFFLINE: Metric =
    Metric::gauge("broker_offline_partitions", "Of these, partitions that failed.");
static UNCLEANABLE: Metric = Metric::gauge(
    "broker_compaction_uncleanable_partitions",
    "Partitions that are to be compacted and cannot be until the next start.",
);
static DAMAGED: Metric = Metric::gauge(
    "broker_damaged_ranges",
    "Ranges of segments that were found damaged, and are not served.",
);

const COUNTERS: [&Metric; 27] = [
    &REQUESTS,
    &BATCHES,
    &RECORDS,
    &BYTES,
    &REFUSED_BATCHES,
    &FETCHES,
    &FETCHED,
    &SENDFILE,
    &COPIED,
    &RECEIVE_COPIED,
    &SYNCS,
    &SYNC_NS,
    &MALFORMED,
    &COMPACTIONS,
    &COMPACTION_FAILURES,
    &COMPACTION_NS,
    &COMPACTION_READ,
    &COMPACTION_WRITTEN,
    &COMPACTION_DROPPED,
    &LOGINS,
    &FAILED_LOGINS,
    &THROTTLED,
    &ACCEPTED,
    &RECEIVED,
    &SENT,
    &HANDSHAKES,
    &TLS_ERRORS,
];

struct Handles {
    counters: [Counter; COUNTERS.len()],
    gauges: [Gauge; 5],
}

/// Registers the metrics of a server with its shard.
pub(crate) fn install(server: &Rc<Server<Broker>>) {
    let registry = server.cx().metrics();
    let handles = Handles {
        counters: COUNTERS.map(|metric| registry.counter(metric, &[])),
        gauges: [&CLIENTS, &PARTITIONS, &OFFLINE, &UNCLEANABLE, &DAMAGED]
            .map(|metric| registry.gauge(metric, &[])),
    };
    let weak: Weak<Server<Broker>> = Rc::downgrade(server);
    server.cx().add_source(Box::new(move |numbers| {
        if let Some(server) = weak.upgrade() {
            sample(&server, &handles, numbers);
        }
    }));
}

fn sample(server: &Server<Broker>, handles: &Handles, numbers: &mut Vec<(&'static str, u64)>) {
    let net = server.stats();
    let shard = server.shard().borrow();
    let stats = shard.stats;
    let counters = [
        stats.requests,
        stats.produced_batches,
        stats.produced_records,
        stats.produced_bytes,
        stats.refused_batches,
        stats.fetches,
        stats.fetched_bytes,
        net.sent_file_bytes,
        net.sent_copied_bytes,
        net.copied_bytes,
        stats.syncs,
        stats.sync_ns,
        stats.malformed,
        stats.compactions,
        stats.compaction_failures,
        stats.compaction_ns,
        stats.compaction_read_bytes,
        stats.compaction_written_bytes,
        stats.compaction_dropped_records,
        stats.logins,
        stats.failed_logins,
        stats.throttled,
        net.accepted,
        net.received_bytes,
        net.sent_bytes,
        net.handshakes,
        net.tls_errors,
    ];
    for (handle, value) in handles.counters.iter().zip(counters) {
        handle.set(value);
    }
    let partitions = shard.partitions().count() as u64;
    let offline = shard.partitions().filter(|one| one.failed().is_some()).count() as u64;
    let uncleanable = shard.partitions().filter(|one| one.is_uncleanable()).count() as u64;
    let damaged = shard.partitions().map(crate::partition::Partition::damaged).sum();
    let gauges = [net.live, partitions, offline, uncleanable, damaged];
    for (handle, value) in handles.gauges.iter().zip(gauges) {
        handle.set(i64::try_from(value).unwrap_or(i64::MAX));
    }
    numbers.extend([
        ("broker_clients", net.live),
        ("broker_partitions", partitions),
        ("broker_produced_records", stats.produced_records),
        ("broker_fetched_bytes", stats.fetched_bytes),
    ]);
}
