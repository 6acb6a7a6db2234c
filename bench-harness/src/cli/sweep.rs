//! `bench sweep`: a closed loop over connections by pipelines.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, ensure};
use bench_harness::load::Arrivals;
use bench_harness::load::trial::Transport;
use bench_harness::machine::Machine;
use bench_harness::scenario::file::PIPELINE_MAX;
use bench_harness::sweep::{self, Depth, Sweep};
use clap::Args;

use super::load::LoadOn;

#[derive(Debug, Args)]
pub(crate) struct SweepArgs {
    #[command(flatten)]
    on: LoadOn,
    /// Numbers of connections.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 50, 1_000])]
    connections: Vec<usize>,
    /// Requests in flight on each.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 4, 16, 64])]
    pipeline: Vec<u32>,
    /// Trials at each depth, of which the medians count.
    #[arg(long, default_value_t = 3)]
    repeats: usize,
    /// Write every row here, as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

pub(crate) fn run(args: &SweepArgs) -> Result<ExitCode> {
    let depths = sweep::depths(&args.connections, &args.pipeline)?;
    let longest = args.pipeline.iter().copied().max().unwrap_or(1);
    ensure!(longest <= PIPELINE_MAX, "--pipeline: at most {PIPELINE_MAX}, not {longest}");
    super::search::prepare_json(args.json.as_deref())?;
    let most = args.connections.iter().copied().max().unwrap_or(1);
    let prepared = args.on.prepare(most, Transport::Ring)?;
    let machine = Machine::describe(false, false);
    let mut run_at = |depth: Depth, seed: u64| {
        let arrivals = Arrivals::Closed { pipeline: depth.pipeline };
        prepared.run(arrivals, depth.connections, seed)
    };
    let mut progress = |line: &str| eprintln!("{line}");
    let rows = sweep::run(&mut run_at, &depths, args.repeats, args.on.seed, &mut progress);
    let (server, workload) = (prepared.on.name.clone(), prepared.workload.clone());
    let sweep = Sweep { server, workload, rows };
    super::search::finish(&sweep, &sweep.text(), machine, args.json.as_deref())?;
    Ok(if sweep.has_figures() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
