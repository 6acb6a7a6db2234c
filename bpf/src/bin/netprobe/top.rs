//! `netprobe --top`: what is busiest, on a terminal, each second. Invariant: a screen has a bounded number of lines.

use std::fmt::Write as _;
use std::io::Write as _;
use std::time::{Duration, Instant};

use bpf::error::{During as _, Result};
use bpf::metrics::histogram::Histogram;
use bpf::metrics::{Probe, Snapshot};

use crate::Stop;

/// Between two screens.
const REFRESH: Duration = Duration::from_secs(1);
/// Lines of each list.
const LINES: usize = 8;
/// To the upper left, and all below cleared.
const CLEAR: &str = "\x1b[H\x1b[J";

/// Shows it until the time is over or a signal comes.
pub(crate) fn run(probe: &mut Probe, duration: Option<Duration>, stop: &Stop) -> Result<()> {
    let begin = Instant::now();
    let mut earlier = probe.snapshot()?;
    while !stop.has_come() && duration.is_none_or(|duration| begin.elapsed() < duration) {
        stop.wait(Some(REFRESH));
        let now = probe.snapshot()?;
        let screen = format!("{CLEAR}{}", render(&earlier, &now));
        let mut stdout = std::io::stdout().lock();
        stdout
            .write_all(screen.as_bytes())
            .and_then(|()| stdout.flush())
            .during(|| "write to the terminal".to_owned())?;
        earlier = now;
    }
    Ok(())
}

/// What came in between, a second.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "rates, to be read by people"
)]
fn rate(earlier: u64, now: u64, seconds: f64) -> u64 {
    (now.saturating_sub(earlier) as f64 / seconds.max(0.001)).round() as u64
}

/// Nanoseconds as people read them.
fn span(ns: u64) -> String {
    match ns {
        0..1_000 => format!("{ns} ns"),
        1_000..1_000_000 => format!("{} us", ns / 1_000),
        1_000_000..1_000_000_000 => format!("{} ms", ns / 1_000_000),
        _ => format!("{} s", ns / 1_000_000_000),
    }
}

fn spread(histogram: &Histogram, unit_ns: u64) -> String {
    let of = |percent| span(histogram.percentile(percent).saturating_mul(unit_ns));
    format!("p50 < {:>7}  p99 < {:>7}", of(50), of(99))
}

fn render(earlier: &Snapshot, now: &Snapshot) -> String {
    let mut text = format!("netprobe  {:.0} s  1 of {} sampled\n", now.seconds, now.sample_every);
    tcp(&mut text, earlier, now);
    listeners(&mut text, now);
    drops(&mut text, now);
    queues(&mut text, earlier, now);
    uring(&mut text, earlier, now);
    text
}

// Writing to a string does not fail: results of `writeln!` are dropped below.

fn tcp(text: &mut String, earlier: &Snapshot, now: &Snapshot) {
    let (Some(before), Some(tcp)) = (&earlier.tcp, &now.tcp) else { return };
    let per_second = |before, after| rate(before, after, now.seconds - earlier.seconds);
    let _ = writeln!(
        text,
        "\nTCP  {} segments/s  {} again/s  rtt {}  resets {} in, {} out  opened {}  accepted {}  failed {}",
        per_second(before.segments, tcp.segments),
        per_second(before.retransmits, tcp.retransmits),
        spread(&tcp.rtt_us.since(&before.rtt_us), 1000),
        tcp.resets_received,
        tcp.resets_sent.values().sum::<u64>(),
        tcp.opened,
        tcp.accepted,
        tcp.failed,
    );
    let _ = writeln!(
        text,
        "  {:>24} {:>24} {:>10} {:>6} {:>9} {:>9}  PROCESS",
        "LOCAL", "REMOTE", "SEGMENTS", "AGAIN", "RTT", "LEAST"
    );
    for flow in tcp.flows.iter().filter(|flow| !flow.is_closed).take(LINES) {
        let _ = writeln!(
            text,
            "  {:>24} {:>24} {:>10} {:>6} {:>9} {:>9}  {}",
            flow.key.local.to_string(),
            flow.key.remote.to_string(),
            flow.segments,
            flow.retransmits,
            span(u64::from(flow.srtt_us) * 1000),
            span(u64::from(flow.rtt_min_us) * 1000),
            printable(&flow.comm),
        );
    }
}

fn listeners(text: &mut String, now: &Snapshot) {
    let Some(listen) = &now.listen else { return };
    let overflows: u64 = listen.namespaces.iter().map(|one| one.overflows).sum();
    let drops: u64 = listen.namespaces.iter().map(|one| one.drops).sum();
    let _ = writeln!(text, "\nListening  {overflows} overflows  {drops} drops");
    for one in listen.listeners.iter().take(LINES) {
        let _ = writeln!(
            text,
            "  {:>24} {:>6} of {:>6} to be accepted {:>6} half open {:>9} dropped",
            one.key.local.to_string(),
            one.accept_queue,
            one.accept_limit,
            one.syn_queue,
            one.dropped
        );
    }
}

/// A process names itself: what would move the cursor is not passed on.
fn printable(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { '?' } else { letter }).collect()
}

fn drops(text: &mut String, now: &Snapshot) {
    let Some(drops) = &now.drops else { return };
    let _ = writeln!(text, "\nDropped  {} packets", drops.packets);
    for site in drops.sites.iter().take(LINES) {
        let (reason, function) = (&site.reason, &site.function);
        let _ =
            writeln!(text, "  {:>10} {:<5} {reason:<32} {function}", site.packets, site.protocol);
    }
}

fn queues(text: &mut String, earlier: &Snapshot, now: &Snapshot) {
    let (Some(before), Some(queues)) = (&earlier.queues, &now.queues) else { return };
    let _ = writeln!(
        text,
        "\nQueues  {} packets/s  device {}  softirq rx {}",
        rate(before.packets, queues.packets, now.seconds - earlier.seconds),
        spread(&queues.qdisc_ns.since(&before.qdisc_ns), 1),
        spread(&queues.softirq_rx_ns.since(&before.softirq_rx_ns), 1),
    );
}

fn uring(text: &mut String, earlier: &Snapshot, now: &Snapshot) {
    let (Some(before), Some(uring)) = (&earlier.uring, &now.uring) else { return };
    let _ = writeln!(
        text,
        "\nio_uring  {} completions/s  {} overflows  {} links failed",
        rate(before.completed, uring.completed, now.seconds - earlier.seconds),
        uring.overflows,
        uring.link_fails,
    );
    let mut ops: Vec<_> = uring.ops.iter().collect();
    ops.sort_by_key(|op| std::cmp::Reverse(op.submitted));
    for op in ops.into_iter().take(LINES) {
        let opcode = &op.opcode;
        let _ = writeln!(
            text,
            "  {opcode:<16} {:>12} begun {:>10} punted  {}",
            op.submitted,
            op.punted,
            spread(&op.latency_ns, 1)
        );
    }
}

#[cfg(test)]
mod tests {
    use bpf::metrics::Snapshot;
    use bpf::metrics::flow::Tcp;

    use super::{printable, rate, render, span};

    #[test]
    fn figures_are_readable() {
        assert_eq!([999, 1_500, 2_000_000].map(span), ["999 ns", "1 us", "2 ms"]);
        assert_eq!(span(3_000_000_000), "3 s");
        assert_eq!((rate(100, 300, 2.0), rate(300, 100, 1.0)), (100, 0));
        assert_eq!(printable("a\x1b[2Jb"), "a?[2Jb");
    }

    #[test]
    fn only_what_is_measured_is_on_the_screen() {
        let of = |segments, seconds| Snapshot {
            seconds,
            sample_every: 1,
            tcp: Some(Tcp { segments, ..Tcp::default() }),
            ..Snapshot::default()
        };
        let screen = render(&of(10, 1.0), &of(30, 2.0));
        assert!(screen.contains("TCP  20 segments/s"), "{screen}");
        assert!(!screen.contains("io_uring") && !screen.contains("Dropped"), "{screen}");
    }
}
