//! Prometheus text (exposition format 0.0.4) of a snapshot.
//!
//! One table says each metric's name, type, labels and meaning, and how it is read: `netprobe --help` and `/metrics` both
//! show it. Invariant: labels have bounded values, since lists in a snapshot are bounded. Next: `flow`, `listen`, `drop`,
//! `queue`, `uring`.

use std::fmt::Write as _;

use super::Snapshot;
use super::drop::Drops;
use super::flow::{Flow, Owner, Tcp};
use super::histogram::Histogram;
use super::listen::{Listen, Listener, Namespace};
use super::queue::Queues;
use super::uring::{self, Uring};

/// Microseconds of a second.
const MICRO: f64 = 1e6;
/// Nanoseconds of a second.
const NANO: f64 = 1e9;

/// What kind of a figure it is. Figures of lists that entries leave, such as of the busiest connections, are gauges: their
/// sum may fall.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts by size.
    Histogram,
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// A metric.
pub struct Metric {
    /// Its name: `netprobe_noun_unit_total`.
    pub name: &'static str,
    /// Its type.
    pub kind: Kind,
    /// Names of its labels.
    pub labels: &'static [&'static str],
    /// What it says.
    pub about: &'static str,
    read: fn(&Snapshot, &mut Series<'_>),
}

const FLOW: &[&str] = &["local", "remote", "netns"];
const LISTENER: &[&str] = &["local", "netns"];
const NETNS: &[&str] = &["netns"];
const PROCESS: &[&str] = &["pid", "comm"];

macro_rules! metrics {
    ($($name:literal $kind:ident [$($labels:expr)?] $about:literal $read:expr;)*) => {
        /// All metrics.
        pub const METRICS: &[Metric] = &[$(Metric {
            name: $name,
            kind: Kind::$kind,
            labels: metrics!(@labels $($labels)?),
            about: $about,
            read: $read,
        },)*];
    };
    (@labels) => { &[] };
    (@labels $labels:expr) => { $labels };
}

metrics! {
    "netprobe_sample_every" Gauge [] "One event of so many is looked at: times this, sampled counts are estimates."
        |all, to| to.put(&[], u64::from(all.sample_every));
    "netprobe_program_missed_total" Counter [] "Times that a probe did not run, since it ran on that processor already."
        |all, to| to.put(&[], all.missed);

    "netprobe_tcp_segments_total" Counter [] "Segments received on established connections, of those sampled."
        |all, to| tcp(all, |tcp| to.put(&[], tcp.segments));
    "netprobe_tcp_retransmits_total" Counter [] "Segments sent again."
        |all, to| tcp(all, |tcp| to.put(&[], tcp.retransmits));
    "netprobe_tcp_synack_retransmits_total" Counter [] "Answers to openings that were sent again."
        |all, to| tcp(all, |tcp| to.put(&[], tcp.synack_retransmits));
    "netprobe_tcp_resets_received_total" Counter [] "Resets received."
        |all, to| tcp(all, |tcp| to.put(&[], tcp.resets_received));
    "netprobe_tcp_resets_sent_total" Counter [&["reason"]] "Resets sent, by the kernel's reason (from Linux 6.10 on)."
        |all, to| tcp(all, |tcp| tcp.resets_sent.iter().for_each(|(reason, count)| to.put(&[reason], *count)));
    "netprobe_tcp_opened_total" Counter [] "Connections that this host opened."
        |all, to| tcp(all, |tcp| to.put(&[], tcp.opened));
    "netprobe_tcp_accepted_total" Counter [] "Connections that this host accepted."
        |all, to| tcp(all, |tcp| to.put(&[], tcp.accepted));
    "netprobe_tcp_open_failures_total" Counter [] "Connections that this host failed to open."
        |all, to| tcp(all, |tcp| to.put(&[], tcp.failed));
    "netprobe_tcp_closed_total" Counter [] "Connections that ended."
        |all, to| tcp(all, |tcp| to.put(&[], tcp.closed));
    "netprobe_tcp_sent_bytes_total" Counter [] "Bytes acknowledged by the peer, of connections that ended."
        |all, to| tcp(all, |tcp| to.put(&[], tcp.bytes_sent));
    "netprobe_tcp_received_bytes_total" Counter [] "Bytes received, of connections that ended."
        |all, to| tcp(all, |tcp| to.put(&[], tcp.bytes_received));
    "netprobe_tcp_rtt_seconds" Histogram [] "Round-trip times of sent segments, of those sampled."
        |all, to| tcp(all, |tcp| to.histogram(&[], &tcp.rtt_us, MICRO));
    "netprobe_tcp_lifetime_seconds" Histogram [] "How long connections lived that ended."
        |all, to| tcp(all, |tcp| to.histogram(&[], &tcp.lifetime_us, MICRO));

    "netprobe_flow_segments" Gauge [FLOW] "Segments received, of those sampled, by the 50 busiest connections."
        |all, to| flows(all, to, |flow| flow.segments);
    "netprobe_flow_sent_bytes" Gauge [FLOW] "Bytes acknowledged by the peer."
        |all, to| flows(all, to, |flow| flow.bytes_sent);
    "netprobe_flow_received_bytes" Gauge [FLOW] "Bytes received."
        |all, to| flows(all, to, |flow| flow.bytes_received);
    "netprobe_flow_retransmits" Gauge [FLOW] "Segments sent again."
        |all, to| flows(all, to, |flow| flow.retransmits);
    "netprobe_flow_rtt_seconds" Histogram [FLOW] "Round-trip times of sent segments, of those sampled."
        |all, to| tcp(all, |tcp| tcp.flows.iter().for_each(|flow| {
            to.histogram(&key(flow).each_ref().map(String::as_str), &flow.rtt_us, MICRO);
        }));

    "netprobe_process_connections" Gauge [PROCESS] "Connections that ended; process 0 are those whose process is not known."
        |all, to| processes(all, to, |owner| owner.connections);
    "netprobe_process_sent_bytes" Gauge [PROCESS] "Bytes acknowledged by the peer, of connections that ended."
        |all, to| processes(all, to, |owner| owner.bytes_sent);
    "netprobe_process_received_bytes" Gauge [PROCESS] "Bytes received, of connections that ended."
        |all, to| processes(all, to, |owner| owner.bytes_received);
    "netprobe_process_retransmits" Gauge [PROCESS] "Segments sent again, of connections that ended."
        |all, to| processes(all, to, |owner| owner.retransmits);
    "netprobe_cgroup_connections" Gauge [&["cgroup"]] "Connections that ended."
        |all, to| cgroups(all, to, |owner| owner.connections);
    "netprobe_cgroup_sent_bytes" Gauge [&["cgroup"]] "Bytes acknowledged by the peer, of connections that ended."
        |all, to| cgroups(all, to, |owner| owner.bytes_sent);
    "netprobe_cgroup_received_bytes" Gauge [&["cgroup"]] "Bytes received, of connections that ended."
        |all, to| cgroups(all, to, |owner| owner.bytes_received);
    "netprobe_cgroup_retransmits" Gauge [&["cgroup"]] "Segments sent again, of connections that ended."
        |all, to| cgroups(all, to, |owner| owner.retransmits);

    "netprobe_listener_accept_queue" Gauge [LISTENER] "Connections that wait to be accepted, by the 50 addresses with the most drops, then the longest queues."
        |all, to| listeners(all, to, |one| one.accept_queue);
    "netprobe_listener_accept_queue_limit" Gauge [LISTENER] "How many may wait, to be accepted and for the third packet, each; of all sockets at the address."
        |all, to| listeners(all, to, |one| one.accept_limit);
    "netprobe_listener_syn_queue" Gauge [LISTENER] "Openings that wait for the third packet."
        |all, to| listeners(all, to, |one| one.syn_queue);
    "netprobe_listener_dropped" Gauge [LISTENER] "Openings dropped since the socket listens, for a full queue or another reason."
        |all, to| listeners(all, to, |one| one.dropped);
    "netprobe_listen_overflows_total" Counter [NETNS] "Openings that found the accept queue full, since the namespace is there."
        |all, to| namespaces(all, to, |one| one.overflows);
    "netprobe_listen_drops_total" Counter [NETNS] "Openings that were dropped, for whatever reason."
        |all, to| namespaces(all, to, |one| one.drops);
    "netprobe_syn_queue_drops_total" Counter [NETNS] "Openings dropped since the queue of openings was full."
        |all, to| namespaces(all, to, |one| one.syn_queue_drops);
    "netprobe_syn_queue_cookies_total" Counter [NETNS] "Openings answered with a cookie since the queue of openings was full."
        |all, to| namespaces(all, to, |one| one.syn_queue_cookies);

    "netprobe_drop_packets_total" Counter [&["reason"]] "Packets dropped, by the kernel's reason."
        |all, to| drops(all, |drops| drops.by_reason.iter().for_each(|(reason, count)| to.put(&[reason], *count)));
    "netprobe_drop_site_packets" Gauge [&["reason", "function", "protocol"]] "Packets dropped, by the 50 functions with the most."
        |all, to| drops(all, |drops| sites(drops, to));
    "netprobe_udp_receive_failures_total" Counter [&["error"]] "Datagrams that did not get into their socket."
        |all, to| drops(all, |drops| drops.udp_failures.iter().for_each(|(error, count)| to.put(&[error], *count)));
    "netprobe_socket_queue_full_total" Counter [&["protocol"]] "Packets that found the receive queue of their socket full."
        |all, to| drops(all, |drops| drops.full_sockets.iter().for_each(|(protocol, count)| to.put(&[protocol], *count)));

    "netprobe_device_packets_total" Counter [] "Packets given to devices; one of several segments counts once."
        |all, to| queues(all, |queues| to.put(&[], queues.packets));
    "netprobe_device_bytes_total" Counter [] "Bytes given to devices."
        |all, to| queues(all, |queues| to.put(&[], queues.bytes));
    "netprobe_qdisc_unpaired_total" Counter [] "Packets given to devices that did not wait, since the device has no queue, or whose wait is not known."
        |all, to| queues(all, |queues| to.put(&[], queues.unpaired));
    "netprobe_qdisc_wait_seconds" Histogram [] "From the queueing discipline to the device, of packets sampled; devices without one are left out."
        |all, to| queues(all, |queues| to.histogram(&[], &queues.qdisc_ns, NANO));
    "netprobe_softirq_wait_seconds" Histogram [&["direction"]] "From a soft interrupt of the network raised to its start."
        |all, to| queues(all, |queues| {
            to.histogram(&["rx"], &queues.softirq_rx_ns, NANO);
            to.histogram(&["tx"], &queues.softirq_tx_ns, NANO);
        });
    "netprobe_napi_polls_total" Counter [] "Polls of devices for packets."
        |all, to| queues(all, |queues| to.put(&[], queues.napi_polls));
    "netprobe_napi_packets_total" Counter [] "Packets that polls found."
        |all, to| queues(all, |queues| to.put(&[], queues.napi_packets));
    "netprobe_napi_full_total" Counter [] "Polls that used up their budget, and left packets behind."
        |all, to| queues(all, |queues| to.put(&[], queues.napi_full));

    "netprobe_uring_submitted_total" Counter [&["opcode"]] "Operations begun."
        |all, to| uring(all, |uring| uring.ops.iter().for_each(|op| to.put(&[&op.opcode], op.submitted)));
    "netprobe_uring_punted_total" Counter [&["opcode"]] "Operations given to a worker thread of the kernel."
        |all, to| uring(all, |uring| uring.ops.iter().for_each(|op| to.put(&[&op.opcode], op.punted)));
    "netprobe_uring_latency_seconds" Histogram [&["opcode"]] "From submission to the first completion, of operations sampled."
        |all, to| uring(all, |uring| uring.ops.iter().for_each(|op| to.histogram(&[&op.opcode], &op.latency_ns, NANO)));
    "netprobe_uring_completions_total" Counter [] "Completions; an operation may have several."
        |all, to| uring(all, |uring| to.put(&[], uring.completed));
    "netprobe_uring_unpaired_total" Counter [] "Completions that are not the first of a sampled operation."
        |all, to| uring(all, |uring| to.put(&[], uring.unpaired));
    "netprobe_uring_overflows_total" Counter [] "Completions that found their queue full."
        |all, to| uring(all, |uring| to.put(&[], uring.overflows));
    "netprobe_uring_link_failures_total" Counter [] "Operations cancelled because the one before them failed."
        |all, to| uring(all, |uring| to.put(&[], uring.link_fails));
    "netprobe_uring_process_operations" Gauge [PROCESS] "Operations whose latency is known, by the 50 busiest processes."
        |all, to| rings(all, to, |owner| owner.measured);
    "netprobe_uring_process_overflows" Gauge [PROCESS] "Completions that found their queue full."
        |all, to| rings(all, to, |owner| owner.overflows);
    "netprobe_uring_process_punted" Gauge [PROCESS] "Operations given to a worker thread of the kernel."
        |all, to| rings(all, to, |owner| owner.punted);
}

fn tcp(all: &Snapshot, read: impl FnOnce(&Tcp)) {
    if let Some(tcp) = &all.tcp {
        read(tcp);
    }
}

fn listen(all: &Snapshot, read: impl FnOnce(&Listen)) {
    if let Some(listen) = &all.listen {
        read(listen);
    }
}

fn listeners(all: &Snapshot, to: &mut Series<'_>, value: fn(&Listener) -> u64) {
    listen(all, |listen| {
        for one in &listen.listeners {
            to.put(&[&one.key.local.to_string(), &one.key.netns.to_string()], value(one));
        }
    });
}

fn namespaces(all: &Snapshot, to: &mut Series<'_>, value: fn(&Namespace) -> u64) {
    listen(all, |listen| {
        listen.namespaces.iter().for_each(|one| to.put(&[&one.netns.to_string()], value(one)));
    });
}

fn drops(all: &Snapshot, read: impl FnOnce(&Drops)) {
    if let Some(drops) = &all.drops {
        read(drops);
    }
}

fn queues(all: &Snapshot, read: impl FnOnce(&Queues)) {
    if let Some(queues) = &all.queues {
        read(queues);
    }
}

fn uring(all: &Snapshot, read: impl FnOnce(&Uring)) {
    if let Some(uring) = &all.uring {
        read(uring);
    }
}

fn key(flow: &Flow) -> [String; 3] {
    [flow.key.local.to_string(), flow.key.remote.to_string(), flow.key.netns.to_string()]
}

fn flows(all: &Snapshot, to: &mut Series<'_>, value: fn(&Flow) -> u64) {
    for flow in all.tcp.iter().flat_map(|tcp| &tcp.flows) {
        to.put(&key(flow).each_ref().map(String::as_str), value(flow));
    }
}

fn processes(all: &Snapshot, to: &mut Series<'_>, value: fn(&Owner) -> u64) {
    for owner in all.tcp.iter().flat_map(|tcp| &tcp.processes) {
        to.put(&[&owner.id.to_string(), &owner.name], value(owner));
    }
}

fn cgroups(all: &Snapshot, to: &mut Series<'_>, value: fn(&Owner) -> u64) {
    for owner in all.tcp.iter().flat_map(|tcp| &tcp.cgroups) {
        to.put(&[&owner.name], value(owner));
    }
}

fn rings(all: &Snapshot, to: &mut Series<'_>, value: fn(&uring::Owner) -> u64) {
    for owner in all.uring.iter().flat_map(|uring| &uring.processes) {
        to.put(&[&owner.pid.to_string(), &owner.comm], value(owner));
    }
}

/// Two places in one function are one series.
fn sites(drops: &Drops, to: &mut Series<'_>) {
    let mut sums = std::collections::BTreeMap::new();
    for site in &drops.sites {
        *sums.entry([&*site.reason, &*site.function, &*site.protocol]).or_insert(0) += site.packets;
    }
    sums.iter().for_each(|(labels, packets)| to.put(labels, *packets));
}

/// The lines of one metric.
struct Series<'a> {
    metric: &'a Metric,
    to: String,
}

impl Series<'_> {
    fn line(&mut self, suffix: &str, labels: &[&str], more: Option<&str>, value: &str) {
        self.to.push_str(self.metric.name);
        self.to.push_str(suffix);
        let named = self.metric.labels.iter().copied().zip(labels.iter().copied());
        let all = named.chain(more.map(|bound| ("le", bound)));
        let mut separator = '{';
        for (name, text) in all {
            self.to.push(separator);
            self.to.push_str(name);
            self.to.push_str("=\"");
            escape(text, &mut self.to);
            self.to.push('"');
            separator = ',';
        }
        if separator == ',' {
            self.to.push('}');
        }
        // Writing to a string does not fail.
        let _ = writeln!(self.to, " {value}");
    }

    fn put(&mut self, labels: &[&str], value: u64) {
        self.line("", labels, None, &value.to_string());
    }

    #[expect(clippy::cast_precision_loss, reason = "the format's numbers are floating-point ones")]
    fn histogram(&mut self, labels: &[&str], histogram: &Histogram, per_second: f64) {
        let mut below = 0;
        let last = histogram.buckets.len().saturating_sub(1);
        for (index, count) in histogram.buckets.iter().take(last).enumerate() {
            below += count;
            // Values are whole: up to the bound is below the next number.
            let bound = (Histogram::bound(index) + 1) as f64 / per_second;
            self.line("_bucket", labels, Some(&bound.to_string()), &below.to_string());
        }
        let count = histogram.count.to_string();
        self.line("_bucket", labels, Some("+Inf"), &count);
        self.line("_sum", labels, None, &(histogram.sum as f64 / per_second).to_string());
        self.line("_count", labels, None, &count);
    }
}

/// A label's value: a backslash, a quote and a line feed are escaped.
fn escape(text: &str, to: &mut String) {
    for letter in text.chars() {
        match letter {
            '\\' => to.push_str("\\\\"),
            '"' => to.push_str("\\\""),
            '\n' => to.push_str("\\n"),
            letter => to.push(letter),
        }
    }
}

/// The text of a snapshot. A metric without a value is left out.
#[must_use]
pub fn render(all: &Snapshot) -> String {
    let mut text = String::new();
    for metric in METRICS {
        let mut series = Series { metric, to: String::new() };
        (metric.read)(all, &mut series);
        if !series.to.is_empty() {
            let (name, kind) = (metric.name, metric.kind.name());
            let _ = writeln!(text, "# HELP {name} {}\n# TYPE {name} {kind}", metric.about);
            text.push_str(&series.to);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::histogram::Histogram;
    use super::{Kind, METRICS, Snapshot, Tcp, escape, render};

    #[test]
    fn names_follow_the_rules_and_are_one_each() {
        for (index, metric) in METRICS.iter().enumerate() {
            let name = metric.name;
            assert!(name.starts_with("netprobe_"), "{name}");
            assert_eq!(metric.kind == Kind::Counter, name.ends_with("_total"), "{name}");
            assert_eq!(metric.kind == Kind::Histogram, name.ends_with("_seconds"), "{name}");
            assert!(metric.about.ends_with('.') && !metric.about.contains('\n'), "{name}");
            assert!(METRICS[..index].iter().all(|other| other.name != name), "{name} is twice");
        }
    }

    #[test]
    fn only_what_was_measured_is_shown() {
        let rtt_us = Histogram::new(5, vec![0, 1, 0, 1]);
        let tcp = Tcp { segments: 7, rtt_us, ..Tcp::default() };
        let text = render(&Snapshot { sample_every: 1, tcp: Some(tcp), ..Snapshot::default() });
        let expected = "# HELP netprobe_tcp_segments_total Segments received on established connections, of those sampled.\n\
            # TYPE netprobe_tcp_segments_total counter\nnetprobe_tcp_segments_total 7\n";
        assert!(text.contains(expected), "{text}");
        let expected = "netprobe_tcp_rtt_seconds_bucket{le=\"0.000001\"} 0\n\
            netprobe_tcp_rtt_seconds_bucket{le=\"0.000002\"} 1\n\
            netprobe_tcp_rtt_seconds_bucket{le=\"0.000004\"} 1\n\
            netprobe_tcp_rtt_seconds_bucket{le=\"+Inf\"} 2\n\
            netprobe_tcp_rtt_seconds_sum 0.000005\nnetprobe_tcp_rtt_seconds_count 2\n";
        assert!(text.contains(expected), "{text}");
        assert!(!text.contains("netprobe_uring") && !text.contains("netprobe_flow"), "{text}");
    }

    #[test]
    fn label_values_are_escaped() {
        let mut text = String::new();
        escape("a\"b\\c\nd", &mut text);
        assert_eq!(text, r#"a\"b\\c\nd"#);
    }
}
