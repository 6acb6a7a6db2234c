//! What packets and rings did before, during and after the method: the figures of `metrics` between four moments.
//!
//! Before is from the begin to the method, with the look at the hypothesis in it; after is the look after the method and the
//! rollbacks. Sockets that were there before are met too. Invariants: an experiment is run without these if the kernel does
//! not have them, and its journal says why; what is kept is bounded: sums, histograms, and lists of names that are bounded.
//! Next: `journal`, `report`.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::error::Result;
use crate::metrics::histogram::Histogram;
use crate::metrics::{Group, Probe, Snapshot};

/// How large values were.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Sizes {
    /// How many.
    pub count: u64,
    /// Their mean.
    pub mean: u64,
    /// A bound that half of them are below, right within a factor of two.
    pub p50: u64,
    /// That 99 % of them are below.
    pub p99: u64,
    /// Entry i counts values of i bits.
    pub buckets: Vec<u64>,
}

impl From<&Histogram> for Sizes {
    fn from(all: &Histogram) -> Self {
        let used = all.buckets.iter().rposition(|count| *count > 0).map_or(0, |last| last + 1);
        Self {
            count: all.count,
            mean: all.mean(),
            p50: all.percentile(50),
            p99: all.percentile(99),
            buckets: all.buckets.iter().copied().take(used).collect(),
        }
    }
}

/// Connections.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Tcp {
    /// Segments received, of those looked at.
    pub segments: u64,
    /// Segments sent again.
    pub retransmits: u64,
    /// Answers to openings sent again.
    pub synack_retransmits: u64,
    /// Resets received.
    pub resets_received: u64,
    /// Resets sent.
    pub resets_sent: u64,
    /// Connections that this host opened.
    pub opened: u64,
    /// That it accepted.
    pub accepted: u64,
    /// Openings that failed.
    pub failed: u64,
    /// Connections that ended.
    pub closed: u64,
    /// Bytes acknowledged, of those that ended.
    pub bytes_sent: u64,
    /// Bytes received, of those that ended.
    pub bytes_received: u64,
    /// Openings that found an accept queue full.
    pub listen_overflows: u64,
    /// Openings that were dropped.
    pub listen_drops: u64,
    /// Round-trip times.
    pub rtt_us: Sizes,
}

/// Operations of io_uring.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Uring {
    /// Begun.
    pub submitted: u64,
    /// Given to a worker thread.
    pub punted: u64,
    /// Completions that found their queue full.
    pub overflows: u64,
    /// Operations cancelled because the one before them failed.
    pub link_fails: u64,
    /// From submission to completion, by opcode; only those that were used.
    pub latency_ns: BTreeMap<String, Sizes>,
}

/// What came between two moments.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Phase {
    /// How long it was.
    pub seconds: f64,
    /// Connections.
    pub tcp: Tcp,
    /// Packets dropped, by their reason.
    pub drops: BTreeMap<String, u64>,
    /// Operations.
    pub uring: Uring,
}

/// The three phases of an experiment.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Packets {
    /// Why there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why_not: Option<String>,
    /// One segment or operation of so many was looked at.
    pub sample_every: u32,
    /// Up to the method.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<Phase>,
    /// While it ran.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub during: Option<Phase>,
    /// From its end on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<Phase>,
}

/// Which of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// Up to the method.
    Before,
    /// While it runs.
    During,
    /// From its end on.
    After,
}

/// Programs at work, and what they had counted when the last phase ended.
pub(super) struct Meter {
    probe: Option<(Probe, Snapshot)>,
    packets: Packets,
}

impl Meter {
    /// Begins to measure. If that cannot be done, the reason is what is measured.
    pub(super) fn start(sample_every: u32) -> Self {
        let started = Probe::start(&Group::DEFAULT, sample_every)
            .and_then(|mut probe| probe.snapshot().map(|first| (probe, first)));
        let (probe, why_not) = match started {
            Ok(started) => (Some(started), None),
            Err(error) => (None, Some(error.to_string())),
        };
        Self { probe, packets: Packets { why_not, sample_every, ..Packets::default() } }
    }

    /// Why nothing is measured.
    pub(super) fn why_not(&self) -> Option<&str> {
        self.packets.why_not.as_deref()
    }

    /// Ends a phase here; the next one begins.
    pub(super) fn end(&mut self, when: When) {
        let Some((probe, last)) = &mut self.probe else { return };
        let measured = probe.snapshot().map(|now| {
            let phase = Phase::between(last, &now);
            *last = now;
            phase
        });
        self.keep(when, measured);
    }

    fn keep(&mut self, when: When, measured: Result<Phase>) {
        match measured {
            Ok(phase) => {
                *match when {
                    When::Before => &mut self.packets.before,
                    When::During => &mut self.packets.during,
                    When::After => &mut self.packets.after,
                } = Some(phase);
            }
            Err(error) => {
                self.packets.why_not = Some(error.to_string());
                self.probe = None;
            }
        }
    }

    /// All of it.
    pub(super) fn finish(self) -> Packets {
        self.packets
    }
}

/// The figure of a part that may be missing.
fn of<T>(part: Option<&T>, figure: impl Fn(&T) -> u64) -> u64 {
    part.map_or(0, figure)
}

impl Phase {
    /// What came between two snapshots of the same programs.
    #[must_use]
    pub fn between(earlier: &Snapshot, later: &Snapshot) -> Self {
        let millis = ((later.seconds - earlier.seconds) * 1e3).round();
        Self {
            seconds: millis / 1e3,
            tcp: tcp(earlier, later),
            drops: drops(earlier, later),
            uring: uring(earlier, later),
        }
    }
}

fn tcp(earlier: &Snapshot, later: &Snapshot) -> Tcp {
    let (Some(before), Some(now)) = (&earlier.tcp, &later.tcp) else { return Tcp::default() };
    let listening = |snapshot: &Snapshot, drops: bool| {
        of(snapshot.listen.as_ref(), |listen| {
            let all = listen.namespaces.iter();
            all.map(|one| if drops { one.drops } else { one.overflows }).sum()
        })
    };
    let listened = |drops| listening(later, drops).saturating_sub(listening(earlier, drops));
    let resets = |tcp: &crate::metrics::flow::Tcp| tcp.resets_sent.values().sum::<u64>();
    Tcp {
        segments: now.segments.saturating_sub(before.segments),
        retransmits: now.retransmits.saturating_sub(before.retransmits),
        synack_retransmits: now.synack_retransmits.saturating_sub(before.synack_retransmits),
        resets_received: now.resets_received.saturating_sub(before.resets_received),
        resets_sent: resets(now).saturating_sub(resets(before)),
        opened: now.opened.saturating_sub(before.opened),
        accepted: now.accepted.saturating_sub(before.accepted),
        failed: now.failed.saturating_sub(before.failed),
        closed: now.closed.saturating_sub(before.closed),
        bytes_sent: now.bytes_sent.saturating_sub(before.bytes_sent),
        bytes_received: now.bytes_received.saturating_sub(before.bytes_received),
        listen_overflows: listened(false),
        listen_drops: listened(true),
        rtt_us: Sizes::from(&now.rtt_us.since(&before.rtt_us)),
    }
}

fn drops(earlier: &Snapshot, later: &Snapshot) -> BTreeMap<String, u64> {
    let before = |reason: &str| {
        of(earlier.drops.as_ref(), |drops| drops.by_reason.get(reason).copied().unwrap_or(0))
    };
    let now = later.drops.iter().flat_map(|drops| &drops.by_reason);
    now.map(|(reason, count)| (reason.clone(), count.saturating_sub(before(reason))))
        .filter(|(_, count)| *count > 0)
        .collect()
}

fn uring(earlier: &Snapshot, later: &Snapshot) -> Uring {
    let (Some(before), Some(now)) = (&earlier.uring, &later.uring) else {
        return Uring::default();
    };
    let mut all = Uring {
        overflows: now.overflows.saturating_sub(before.overflows),
        link_fails: now.link_fails.saturating_sub(before.link_fails),
        ..Uring::default()
    };
    for op in &now.ops {
        let was = before.ops.iter().find(|was| was.opcode == op.opcode);
        all.submitted += op.submitted.saturating_sub(of(was, |was| was.submitted));
        all.punted += op.punted.saturating_sub(of(was, |was| was.punted));
        let latency =
            was.map_or_else(|| op.latency_ns.clone(), |was| op.latency_ns.since(&was.latency_ns));
        if latency.count > 0 {
            all.latency_ns.insert(op.opcode.clone(), Sizes::from(&latency));
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::{Histogram, Phase, Sizes, Snapshot};
    use crate::metrics::drop::Drops;
    use crate::metrics::flow::Tcp;
    use crate::metrics::uring::{Op, Uring};

    fn snapshot(seconds: f64, n: u64) -> Snapshot {
        let sizes = |n| Histogram::new(2 * n, vec![0, 0, n, 0]);
        let reasons = [("no_socket".to_owned(), n), ("other".to_owned(), 5)];
        Snapshot {
            seconds,
            tcp: Some(Tcp { retransmits: n, rtt_us: sizes(n), ..Tcp::default() }),
            drops: Some(Drops { by_reason: reasons.into(), ..Drops::default() }),
            uring: Some(Uring {
                ops: vec![Op {
                    opcode: "read".to_owned(),
                    submitted: n,
                    punted: 1,
                    latency_ns: sizes(n),
                }],
                ..Uring::default()
            }),
            ..Snapshot::default()
        }
    }

    #[test]
    fn a_phase_is_the_difference_of_two_moments() {
        let phase = Phase::between(&snapshot(1.0, 10), &snapshot(2.5, 30));
        assert_eq!((phase.seconds, phase.tcp.retransmits), (1.5, 20));
        let expected = Sizes { count: 20, mean: 2, p50: 3, p99: 3, buckets: vec![0, 0, 20] };
        assert_eq!(phase.tcp.rtt_us, expected);
        assert_eq!(phase.drops, [("no_socket".to_owned(), 20)].into(), "others did not change");
        assert_eq!((phase.uring.submitted, phase.uring.punted), (20, 0));
        assert_eq!(phase.uring.latency_ns["read"], expected);
        let none = Phase::between(&Snapshot::default(), &Snapshot::default());
        assert_eq!(none, Phase::default());
    }
}
