//! One trial of a workload on one broker: started fresh, loaded, read back, and what it cost.
//!
//! CPU is that of the broker's process from the end of the warm-up to the end of the recorded time, kernel workers of its
//! own included; beside it the same with all kernel threads, which write back what nobody synced. Bytes are those of messages,
//! without what protocols add. Invariant: a trial whose messages do not all come back is an error. Next: `rows`.

use anyhow::{Context, Result, bail, ensure};
use hdrhistogram::Histogram;

use super::load::{Load, Pace, Tally};
use super::peers::{Peer, Place, Running};
use super::speak;
use super::workload::Workload;
use crate::clock::{self, SECOND_NS};
use crate::figures::Figures;
use crate::usage::Usage;

const WARM_UP_NS: u64 = SECOND_NS / 2;
/// How long the last messages may take, and reading back.
const SETTLE_NS: u64 = 20 * SECOND_NS;
const READ_BACK_NS: u64 = 120 * SECOND_NS;
const GB: f64 = 1e9;
/// What the names of a trial's topics begin with.
const PREFIX: &str = "bench";

/// A broker with a workload's topics, and a connection for each partition.
pub(super) fn prepare(
    peer: &Peer,
    running: &Running,
    workload: &Workload,
    prefix: &str,
) -> Result<Load> {
    let addr = running.addr();
    let pace = match workload.rate {
        Some(rate) => Pace::Open { every_ns: 1e9 * workload.batch_messages as f64 / rate },
        None => Pace::Closed,
    };
    let mut load = Load::new(workload.batch_messages, workload.window, pace);
    let workload = &Workload { sync: workload.sync && peer.sync, ..workload.clone() };
    for topic in workload.topic_names(prefix) {
        speak::create(peer.protocol, addr, &topic, workload)?;
        for partition in 0..workload.partitions {
            let producer = speak::producer(peer.protocol, addr, &topic, partition, workload)?;
            let follower = match workload.follow {
                true => Some(speak::consumer(peer.protocol, addr, &topic, partition)?),
                false => None,
            };
            load.add_lane(producer, follower)?;
        }
    }
    Ok(load)
}

/// Runs `workload` on a fresh `peer`.
pub(super) fn run(peer: &Peer, place: &Place, workload: &Workload) -> Result<Figures> {
    let running = peer.start(place)?;
    let mut load = prepare(peer, &running, workload, PREFIX)?;
    let mut figures = Figures::new();
    let stored = store(&running, &mut load, workload, &mut figures).context("store")?;
    drop(load);
    if workload.read_back {
        read_back(peer, &running, workload, stored, &mut figures).context("read back")?;
    }
    Ok(figures)
}

/// Stores for as long as the workload says; messages that are stored in the end.
pub(super) fn store(
    running: &Running,
    load: &mut Load,
    workload: &Workload,
    figures: &mut Figures,
) -> Result<u64> {
    let begun_ns = clock::mono_ns();
    load.run_until(begun_ns + WARM_UP_NS)?;
    let warm_up = load.take_tally();
    let (before, client_ns) = (Usage::of(running.server().pid()), clock::thread_cpu_ns());
    let recorded_ns = (workload.seconds * SECOND_NS as f64) as u64;
    load.run_until(clock::mono_ns() + recorded_ns)?;
    let (after, client_ns) =
        (Usage::of(running.server().pid()), clock::thread_cpu_ns() - client_ns);
    let tally = load.take_tally();
    let backlog = load.backlog();
    ensure!(tally.stored > 0, "nothing was stored");
    let spent = Spent::between(&before, &after, tally.stored, workload);
    figures.extend([
        ("msg_per_s", spent.rate()),
        ("mb_per_s", spent.mb_per_s()),
        ("cpu_s_per_gb", spent.process_s_per_gb()),
        ("cpu_s_per_gb_with_kernel", spent.all_s_per_gb()),
        ("server_busy", spent.process_ns / spent.elapsed_ns),
        ("client_busy", client_ns as f64 / spent.elapsed_ns),
        ("backlog", backlog as f64),
    ]);
    figures.extend(latencies(&tally.storing, ["p50_ms", "p99_ms", "p999_ms"]));
    if workload.follow {
        figures.extend(latencies(&tally.reading, ["read_p50_ms", "read_p99_ms", "read_p999_ms"]));
    }
    load.settle(clock::mono_ns() + SETTLE_NS)?;
    let last = load.take_tally();
    if load.backlog() > 0 {
        bail!("{} requests are not answered", load.backlog());
    }
    let stored = |tally: &Tally| tally.stored;
    Ok(stored(&warm_up) + stored(&tally) + stored(&last))
}

/// Reads everything from the beginning.
fn read_back(
    peer: &Peer,
    running: &Running,
    workload: &Workload,
    messages: u64,
    figures: &mut Figures,
) -> Result<()> {
    let mut load = Load::new(workload.batch_messages, workload.window, Pace::Closed);
    for topic in workload.topic_names(PREFIX) {
        for partition in 0..workload.partitions {
            load.add_reader(speak::consumer(peer.protocol, running.addr(), &topic, partition)?)?;
        }
    }
    let before = Usage::of(running.server().pid());
    load.read_all(messages, clock::mono_ns() + READ_BACK_NS)?;
    let after = Usage::of(running.server().pid());
    let read = load.delivered();
    ensure!(read >= messages, "{read} of {messages} came back in time");
    let spent = Spent::between(&before, &after, read, workload);
    figures.extend([
        ("read_mb_per_s", spent.mb_per_s()),
        ("read_cpu_s_per_gb", spent.process_s_per_gb()),
    ]);
    let storing = figures.get("cpu_s_per_gb").copied().unwrap_or(f64::NAN);
    figures.insert("both_cpu_s_per_gb", storing + spent.process_s_per_gb());
    Ok(())
}

/// What some messages cost.
struct Spent {
    messages: f64,
    bytes: f64,
    all_ns: f64,
    process_ns: f64,
    elapsed_ns: f64,
}

impl Spent {
    fn between(before: &Usage, after: &Usage, messages: u64, workload: &Workload) -> Self {
        let (_, all_ns, process_ns, elapsed_ns) = after.since(before);
        let messages = messages as f64;
        let bytes = messages * workload.message_bytes as f64;
        Self { messages, bytes, all_ns, process_ns, elapsed_ns }
    }

    fn rate(&self) -> f64 {
        self.messages * 1e9 / self.elapsed_ns
    }

    fn mb_per_s(&self) -> f64 {
        self.bytes * 1e3 / self.elapsed_ns
    }

    fn process_s_per_gb(&self) -> f64 {
        self.process_ns / 1e9 / (self.bytes / GB)
    }

    fn all_s_per_gb(&self) -> f64 {
        self.all_ns / 1e9 / (self.bytes / GB)
    }
}

/// Median and tail under these names, in milliseconds.
fn latencies(
    histogram: &Histogram<u64>,
    names: [&'static str; 3],
) -> impl Iterator<Item = (&'static str, f64)> {
    let at = |quantile: f64| histogram.value_at_quantile(quantile) as f64 / 1e6;
    let values = [at(0.5), at(0.99), at(0.999)];
    names.into_iter().zip(values)
}
