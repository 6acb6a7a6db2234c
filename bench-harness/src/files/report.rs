//! What `bench files` found: a table, a line a second, and JSON.

use std::fmt::Write as _;

use serde::Serialize;

use super::block::Pattern;
use super::run::{Second, Tally};
use super::{Options, What};
use crate::clock;
use crate::machine::Machine;

/// Version of the JSON's shape.
pub const SCHEMA: &str = "bench-files/1";
/// Blocks whose filling or checking is timed.
const TIMED: u32 = 64;

/// Latency of records in nanoseconds, from the time each was meant to start.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Latency {
    /// Median.
    pub p50_ns: u64,
    /// 90 %.
    pub p90_ns: u64,
    /// 99 %.
    pub p99_ns: u64,
    /// 99.9 %.
    pub p999_ns: u64,
    /// The largest.
    pub max_ns: u64,
}

/// One measure.
#[derive(Clone, Debug, Serialize)]
pub struct Measured {
    /// Of what.
    pub what: What,
    /// Recorded time.
    pub elapsed_ns: u64,
    /// Blocks done in that time.
    pub records: u64,
    /// Operations they were done in: fewer, where one takes many records.
    pub operations: u64,
    /// Blocks a second.
    pub rate: f64,
    /// Megabytes (10^6) a second.
    pub mb_per_s: f64,
    /// Their latency.
    pub latency: Latency,
    /// CPU of this process for a block, receivers left out.
    pub process_us_per_op: f64,
    /// The same with all kernel threads, receivers left out.
    pub with_kernel_us_per_op: f64,
    /// CPU of the machine for a block, everything on it included.
    pub machine_us_per_op: f64,
    /// Of these, making or checking the block, about.
    pub check_us_per_op: f64,
    /// Open loop: blocks that were due and not done when time was up.
    pub behind: u64,
    /// Blocks checked beside those read: received, or read again after writes.
    pub checked_blocks: u64,
    /// Blocks that were wrong.
    pub wrong: u64,
    /// The first of them.
    pub first_wrong: Option<String>,
}

/// How long it takes to make or check a block.
fn check_ns(block_bytes: usize, seed: u64) -> f64 {
    let mut block = vec![0; block_bytes];
    let pattern = Pattern::new(seed);
    pattern.fill(&mut block, 1, 1);
    let start_ns = clock::thread_cpu_ns();
    for _ in 0..TIMED {
        // Whether it is right is known.
        let _ = std::hint::black_box(pattern.check(&block, 1, 1));
    }
    (clock::thread_cpu_ns() - start_ns) as f64 / f64::from(TIMED)
}

impl Measured {
    /// As `tally` says, less the CPU of receivers.
    pub(super) fn new(what: What, options: &Options, tally: &Tally, receivers_ns: u64) -> Self {
        let elapsed = tally.elapsed_ns as f64;
        let records = tally.records.max(1) as f64;
        // Receivers also ran while nothing was recorded.
        let all_ns = (options.warmup_ns + options.duration_ns).max(1) as f64;
        let receivers_ns = receivers_ns as f64 * (elapsed / all_ns).min(1.0);
        let (machine, with_kernel, process) = tally.cpu_ns;
        let own = |ns: f64| (ns - receivers_ns).max(0.0) / records / 1e3;
        let quantile = |q| tally.latency.value_at_quantile(q);
        let rate = tally.records as f64 * 1e9 / elapsed;
        Self {
            what,
            elapsed_ns: tally.elapsed_ns,
            records: tally.records,
            operations: tally.operations,
            rate,
            mb_per_s: rate * options.block_bytes as f64 / 1e6,
            latency: Latency {
                p50_ns: quantile(0.50),
                p90_ns: quantile(0.90),
                p99_ns: quantile(0.99),
                p999_ns: quantile(0.999),
                max_ns: tally.latency.max(),
            },
            process_us_per_op: own(process),
            with_kernel_us_per_op: own(with_kernel),
            machine_us_per_op: machine / records / 1e3,
            check_us_per_op: if what.to_socket() {
                0.0
            } else {
                check_ns(options.block_bytes, options.seed) / 1e3
            },
            behind: tally.behind,
            checked_blocks: 0,
            wrong: tally.wrong,
            first_wrong: tally.first_wrong.clone(),
        }
    }

    pub(super) fn add_wrong(&mut self, count: u64, first: Option<String>) {
        self.wrong += count;
        if self.first_wrong.is_none() {
            self.first_wrong = first;
        }
    }
}

/// Everything a run found.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: &'static str,
    /// The command that made it.
    pub command: String,
    /// Where.
    pub machine: Machine,
    /// How.
    pub options: Options,
    /// What was found, in order.
    pub measured: Vec<Measured>,
}

impl Report {
    /// Nothing found yet.
    #[must_use]
    pub fn new(options: &Options) -> Self {
        Self {
            schema: SCHEMA,
            command: std::env::args().collect::<Vec<_>>().join(" "),
            machine: Machine::describe(false, false).on_data(&options.path),
            options: options.clone(),
            measured: Vec::new(),
        }
    }

    /// Blocks that were wrong, in all.
    #[must_use]
    pub fn wrong(&self) -> u64 {
        self.measured.iter().map(|measured| measured.wrong).sum()
    }

    /// The report as text for a terminal.
    #[must_use]
    pub fn text(&self) -> String {
        let Options { block_bytes, depth, size_bytes, order, direct, rate, .. } = &self.options;
        let pace =
            rate.map_or_else(|| "closed loop".to_owned(), |rate| format!("{rate}/s offered"));
        let cache = if *direct { "O_DIRECT" } else { "page cache" };
        let mut text = format!(
            "{}, Linux {}; blocks of {block_bytes} B, depth {depth}, {} MB, {order:?}, {cache}, {pace}\n\
             {:<9} {:>10} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>10} {:>9} {:>8}\n",
            self.machine.cpu,
            self.machine.kernel,
            size_bytes / 1_000_000,
            "op",
            "ops/s",
            "MB/s",
            "p50 us",
            "p90 us",
            "p99 us",
            "p99.9 us",
            "max us",
            "CPU us/op",
            "+kernel",
            "machine",
            "checks",
        );
        for measured in &self.measured {
            let Measured { what, rate, mb_per_s, latency, .. } = measured;
            let us = |ns: u64| ns as f64 / 1e3;
            // Writing to a string does not fail.
            let _ = writeln!(
                text,
                "{:<9} {rate:>10.0} {mb_per_s:>9.1} {:>9.1} {:>9.1} {:>9.1} {:>9.1} {:>9.1} \
                 {:>9.2} {:>10.2} {:>9.2} {:>8.2}",
                format!("{what:?}").to_lowercase(),
                us(latency.p50_ns),
                us(latency.p90_ns),
                us(latency.p99_ns),
                us(latency.p999_ns),
                us(latency.max_ns),
                measured.process_us_per_op,
                measured.with_kernel_us_per_op,
                measured.machine_us_per_op,
                measured.check_us_per_op,
            );
            if measured.operations < measured.records {
                let each = measured.records as f64 / measured.operations.max(1) as f64;
                let _ = writeln!(text, "          {each:.1} blocks in an operation");
            }
            if measured.behind > 0 {
                let behind = measured.behind;
                let _ =
                    writeln!(text, "          {behind} blocks were due and not done at the end");
            }
            if let Some(first) = &measured.first_wrong {
                let _ = writeln!(
                    text,
                    "          WRONG: {} blocks, the first: {first}",
                    measured.wrong
                );
            }
        }
        text.push_str(&self.machine.fingerprint_lines());
        text
    }
}

/// A line for one second.
#[must_use]
pub fn line(what: What, block_bytes: usize, second: Second) -> String {
    let mb_per_s = second.records as f64 * block_bytes as f64 / 1e6;
    let mut text = format!(
        "{:>4} s  {what:?}: {} ops/s, {mb_per_s:.1} MB/s, p99 {:.1} us",
        second.at_s,
        second.records,
        second.p99_ns as f64 / 1e3
    );
    if second.behind > 0 {
        text.push_str(&format!(", {} due and not done", second.behind));
    }
    text
}
