//! The experiments of `bench cache`, one function a row of the table of claims.
//!
//! Next: `compare` runs them.

use anyhow::Result;

use crate::clock::{MILLISECOND_NS, SECOND_NS};
use crate::compare::{Bar, Cell, Claim, Metric, Side};
use crate::load::trial::Timing;
use crate::load::{Arrivals, Workload};
use crate::peers::{self, Protocol};
use crate::stats::SOLID_PAIRS;

use super::measure::Measure;

/// Values together take at most this much of a server's memory.
const VALUES_MAX_BYTES: u64 = 64 << 20;
/// Keys of a load.
const KEYS: u32 = 100_000;
/// Replies in flight beyond this much make a trial longer.
const IN_FLIGHT_BYTES: u64 = 64 << 20;

/// What rows there are.
pub const ROWS: &[(&str, &str)] = &[
    ("3", "saturated GET and SET of 64 B, 50 connections, pipeline 1, 16, 64, against redis"),
    ("3b", "the same, driven by redis-benchmark"),
    ("3c", "open loop: 100,000/s over 1,000 connections and 20,000/s over 50, against redis"),
    ("4", "saturated, pipeline 1, against memcached and our session on monoio and glommio"),
    ("5", "pipeline × value × connections: nowhere slower than redis"),
    ("6", "memory of an idle connection at 10,000"),
    ("7", "memory over key and value, 16 B + 64 B, 1,000,000 keys"),
    ("8", "two shards, pipeline 16: the shared port against the shards' own ports"),
];

/// How the rows are run.
#[derive(Clone, Debug)]
pub struct Options {
    /// The server under test.
    pub ours: String,
    /// What it is compared with in rows 3, 3b, 3c and 5.
    pub baseline: String,
    /// What it is compared with in row 4; all when empty.
    pub peers: Vec<String>,
    /// Rounds of rows 3 to 4; others take fewer where figures are steadier or cells many.
    pub pairs: usize,
    /// Recorded time of a trial.
    pub duration_ns: u64,
    /// The server's core.
    pub server_cpu: usize,
    /// The generator's core.
    pub client_cpu: usize,
    /// Small: fewer cells, shorter trials.
    pub quick: bool,
}

impl Options {
    fn timing(&self) -> Timing {
        Timing {
            warmup_ns: (self.duration_ns / 4).max(200 * MILLISECOND_NS),
            duration_ns: self.duration_ns,
        }
    }

    fn side(&self, name: &str) -> Result<Side> {
        Ok(Side::new(peers::find(name)?, self.server_cpu))
    }

    /// Ours, the baseline, the baseline again.
    fn three(&self) -> Result<Vec<Side>> {
        let base = self.side(&self.baseline)?;
        let again = base.clone().labelled(&format!("{} again", self.baseline));
        Ok(vec![self.side(&self.ours)?, base, again])
    }

    fn versus_baseline(
        &self,
        row: &'static str,
        name: String,
        measure: Measure,
        bars: &[(Metric, Bar)],
    ) -> Result<Cell> {
        let claims = bars.iter().map(|&(metric, bar)| claim(metric, Some(1), bar)).collect();
        Ok(Cell {
            row: row.into(),
            name,
            measure,
            sides: self.three()?,
            same: Some((1, 2)),
            claims,
            rounds: self.pairs,
            timing: self.timing(),
        })
    }
}

const fn claim(metric: Metric, baseline: Option<usize>, bar: Bar) -> Claim {
    Claim { metric, candidate: 0, baseline, bar }
}

fn verb(set: bool) -> &'static str {
    if set { "SET" } else { "GET" }
}

fn workload(set: bool, value_len_bytes: usize, connections: usize, arrivals: Arrivals) -> Workload {
    let fit = VALUES_MAX_BYTES / value_len_bytes.max(1) as u64;
    Workload {
        protocol: Protocol::Resp,
        set_share: if set { 1.0 } else { 0.0 },
        keys: u32::try_from(fit).unwrap_or(u32::MAX).min(KEYS),
        value_len_bytes,
        connections,
        arrivals,
        seed: 0,
        ..Workload::new(Protocol::Resp, 1)
    }
}

/// The cells of row `row`.
///
/// # Errors
/// A server's name is unknown, or the row is.
pub fn of_row(row: &str, options: &Options) -> Result<Vec<Cell>> {
    match row {
        "3" => saturated(options),
        "3b" => by_redis_benchmark(options),
        "3c" => open_loop(options),
        "4" => other_engines(options),
        "5" => never_slower(options),
        "6" => idle(options),
        "7" => keys(options),
        "8" => shared_port(options),
        _ => anyhow::bail!("there is no row {row}; see `bench list`"),
    }
}

fn saturated(options: &Options) -> Result<Vec<Cell>> {
    let mut cells = Vec::new();
    for (pipeline, bar) in [(1, 0.75), (16, 0.55), (64, 0.40)] {
        for set in [false, true] {
            let load = workload(set, 64, 50, Arrivals::Closed { pipeline });
            let bars = [
                (Metric::CpuNsPerOp, Bar::RatioAtMost(bar)),
                (Metric::Rate, Bar::Shown),
                (Metric::P99Ns, Bar::Shown),
            ];
            let name = format!("{} 64 B, 50 connections, pipeline {pipeline}", verb(set));
            cells.push(options.versus_baseline("3", name, Measure::Load(load), &bars)?);
        }
    }
    Ok(cells)
}

fn by_redis_benchmark(options: &Options) -> Result<Vec<Cell>> {
    let mut cells = Vec::new();
    for (pipeline, bar, rate) in [(1, 0.92, 80_000), (16, 0.85, 900_000), (64, 0.55, 1_500_000)] {
        for set in [false, true] {
            let requests = rate * options.duration_ns.max(SECOND_NS / 4) / SECOND_NS;
            let bars = [(Metric::CpuNsPerOp, Bar::RatioAtMost(bar)), (Metric::Rate, Bar::Shown)];
            let name = format!("redis-benchmark {} 64 B, 50 connections, -P {pipeline}", verb(set));
            let measure = Measure::RedisBenchmark { pipeline, set, requests };
            cells.push(options.versus_baseline("3b", name, measure, &bars)?);
        }
    }
    Ok(cells)
}

fn open_loop(options: &Options) -> Result<Vec<Cell>> {
    let mut cells = Vec::new();
    for (rate, connections, p99_ns, bar) in
        [(100_000.0, 1000, Some(300_000.0), 0.85), (20_000.0, 50, None, 0.95)]
    {
        let load = workload(false, 64, connections, Arrivals::Open { rate, poisson: true });
        let name = format!("GET 64 B, {connections} connections, Poisson {rate:.0}/s");
        let bars = [(Metric::CpuNsPerOp, Bar::RatioAtMost(bar)), (Metric::P50Ns, Bar::Shown)];
        let mut cell = options.versus_baseline("3c", name, Measure::Load(load), &bars)?;
        let p99 = p99_ns.map_or(Bar::Shown, Bar::AtMost);
        cell.claims.push(claim(Metric::P99Ns, Some(1), p99));
        cells.push(cell);
    }
    Ok(cells)
}

fn other_engines(options: &Options) -> Result<Vec<Cell>> {
    let all = [("memcached", 0.80), ("monoio", 1.05), ("monoio-defer", 1.10), ("glommio", 0.80)];
    let wanted = |name: &str| options.peers.is_empty() || options.peers.iter().any(|p| p == name);
    let mut cells = Vec::new();
    for set in [false, true] {
        let mut sides = vec![options.side(&options.ours)?];
        let mut claims = Vec::new();
        for (name, bar) in all.into_iter().filter(|(name, _)| wanted(name)) {
            let bar = Bar::RatioAtMost(bar);
            claims.push(claim(Metric::CpuNsPerOp, Some(sides.len()), bar));
            sides.push(options.side(name)?);
        }
        // Servers named by hand that have no bar here are shown.
        for name in options.peers.iter().filter(|name| all.iter().all(|(have, _)| have != name)) {
            claims.push(claim(Metric::CpuNsPerOp, Some(sides.len()), Bar::Shown));
            sides.push(options.side(name)?);
        }
        let last = sides.len();
        sides.push(sides[0].clone().labelled(&format!("{} again", options.ours)));
        cells.push(Cell {
            row: "4".into(),
            name: format!("{} 64 B, 50 connections, pipeline 1", verb(set)),
            measure: Measure::Load(workload(set, 64, 50, Arrivals::Closed { pipeline: 1 })),
            sides,
            same: Some((0, last)),
            claims,
            rounds: options.pairs,
            timing: options.timing(),
        });
    }
    Ok(cells)
}

fn never_slower(options: &Options) -> Result<Vec<Cell>> {
    let (pipelines, lens, counts): (&[u32], &[usize], &[usize]) = if options.quick {
        (&[1, 16], &[16, 16_384], &[50])
    } else {
        (&[1, 16, 64], &[16, 1024, 16_384, 65_536], &[1, 50, 1000])
    };
    let mut cells = Vec::new();
    for &connections in counts {
        for &len in lens {
            for &pipeline in pipelines {
                for set in [false, true] {
                    cells.push(never_slower_cell(options, set, len, connections, pipeline)?);
                }
            }
        }
    }
    Ok(cells)
}

fn never_slower_cell(
    options: &Options,
    set: bool,
    len: usize,
    connections: usize,
    pipeline: u32,
) -> Result<Cell> {
    let load = workload(set, len, connections, Arrivals::Closed { pipeline });
    let name = format!("{} {len} B, {connections} connections, pipeline {pipeline}", verb(set));
    let bars = [(Metric::CpuNsPerOp, Bar::RatioAtMost(1.0)), (Metric::Rate, Bar::Shown)];
    let mut cell = options.versus_baseline("5", name, Measure::Load(load), &bars)?;
    // The first of two equal servers in 72 cells would cost another third of the time.
    cell.sides.pop();
    cell.same = None;
    cell.rounds = options.pairs.div_ceil(2).max(SOLID_PAIRS.min(options.pairs));
    cell.timing.duration_ns = cell.timing.duration_ns * 2 / 3;
    // Gigabytes in flight: each connection must see several pipelines through.
    let in_flight = len as u64 * connections as u64 * u64::from(pipeline);
    let more_ns = in_flight.saturating_sub(IN_FLIGHT_BYTES) * 3 / 2;
    cell.timing.warmup_ns += more_ns;
    cell.timing.duration_ns += more_ns;
    Ok(cell)
}

/// Ours and whoever else is there, without repetition for an interval: these figures are steady.
fn memory_cell(
    options: &Options,
    row: &'static str,
    name: String,
    measure: Measure,
    claims: Vec<Claim>,
) -> Result<Cell> {
    let names = [options.ours.as_str(), &options.baseline, "memcached", "monoio", "glommio"];
    let mut sides = Vec::new();
    for name in names {
        sides.push(options.side(name)?);
    }
    let rounds = if options.quick { 1 } else { 3 };
    Ok(Cell {
        row: row.into(),
        name,
        measure,
        sides,
        same: None,
        claims,
        rounds,
        timing: options.timing(),
    })
}

fn idle(options: &Options) -> Result<Vec<Cell>> {
    let connections = if options.quick { 2_000 } else { 10_000 };
    let mut claims = Vec::new();
    for metric in [Metric::RssPerConnection, Metric::RssPerConnectionUsed] {
        claims.push(claim(metric, Some(1), Bar::AtMost(768.0)));
        for baseline in 2..5 {
            claims.push(claim(metric, Some(baseline), Bar::Shown));
        }
    }
    let name = format!("{connections} idle connections");
    Ok(vec![memory_cell(options, "6", name, Measure::Idle { connections }, claims)?])
}

fn keys(options: &Options) -> Result<Vec<Cell>> {
    let keys = if options.quick { 200_000 } else { 1_000_000 };
    let mut claims = vec![claim(Metric::RssOverPerKey, Some(1), Bar::AtMost(48.0))];
    claims.push(claim(Metric::RssOverPerKey, Some(2), Bar::Shown));
    let name = format!("{keys} keys of 16 B with values of 64 B");
    let measure = Measure::Keys { keys, value_len_bytes: 64 };
    let mut cell = memory_cell(options, "7", name, measure, claims)?;
    cell.sides.truncate(3);
    Ok(vec![cell])
}

fn shared_port(options: &Options) -> Result<Vec<Cell>> {
    let mut shared = options.side(&options.ours)?.labelled("shared port");
    shared.shards = 2;
    shared.cpus = vec![options.server_cpu, options.client_cpu];
    let mut own = shared.clone().labelled("shards' ports");
    own.per_shard_ports = true;
    let again = own.clone().labelled("shards' ports again");
    let mut cells = Vec::new();
    for set in [false, true] {
        cells.push(Cell {
            row: "8".into(),
            name: format!("{} 64 B, 50 connections, pipeline 16, 2 shards", verb(set)),
            measure: Measure::Load(workload(set, 64, 50, Arrivals::Closed { pipeline: 16 })),
            sides: vec![shared.clone(), own.clone(), again.clone()],
            same: Some((1, 2)),
            claims: vec![
                claim(Metric::Rate, Some(1), Bar::RatioAtLeast(0.8)),
                claim(Metric::CpuNsPerOp, Some(1), Bar::Shown),
                claim(Metric::HopsPerOp, None, Bar::Shown),
                Claim {
                    metric: Metric::HopsPerOp,
                    candidate: 1,
                    baseline: None,
                    bar: Bar::AtMost(0.01),
                },
            ],
            rounds: options.pairs,
            timing: options.timing(),
        });
    }
    Ok(cells)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(quick: bool) -> Options {
        Options {
            ours: "shardd".to_owned(),
            baseline: "redis".to_owned(),
            peers: Vec::new(),
            pairs: 10,
            duration_ns: SECOND_NS,
            server_cpu: 0,
            client_cpu: 1,
            quick,
        }
    }

    #[test]
    fn every_row_has_cells_whose_claims_name_sides_that_exist() {
        for quick in [false, true] {
            for (row, _) in ROWS {
                let cells = of_row(row, &options(quick)).expect("a known row");
                assert!(!cells.is_empty());
                for cell in cells {
                    assert_eq!(cell.row, *row);
                    for claim in &cell.claims {
                        assert!(claim.candidate < cell.sides.len());
                        assert!(claim.baseline.is_none_or(|index| index < cell.sides.len()));
                    }
                    assert!(cell.estimate().as_secs() < 600, "{}", cell.name);
                }
            }
        }
        assert_eq!(of_row("5", &options(false)).expect("known").len(), 72);
        assert!(of_row("9", &options(false)).is_err());
    }
}
