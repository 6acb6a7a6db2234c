//! `bench runtimes`: its arguments.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use bench_harness::compare;
use bench_harness::runtimes::{self, Options, Trial, What};
use clap::{Args, Subcommand};

use crate::{enter_network, nanoseconds, print};

/// Arguments of `bench runtimes`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct RuntimesArgs {
    /// What is done on each.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = What::ALL)]
    what: Vec<What>,
    /// Rounds, each with one trial of each side.
    #[arg(long, default_value_t = 10)]
    pairs: usize,
    /// Recorded seconds of a trial.
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// Open loop with this many requests a second for echo and cache, instead of closed loops.
    #[arg(long)]
    rate: Option<f64>,
    /// Connections of echo and cache.
    #[arg(long, default_value_t = 50)]
    connections: usize,
    /// Where files are made; on the disk to be measured.
    #[arg(long, default_value = "target/bench-runtimes")]
    dir: PathBuf,
    /// Core of who is measured.
    #[arg(long, default_value_t = 0)]
    server_cpu: usize,
    /// Core of the load, and of who receives.
    #[arg(long, default_value_t = 1)]
    client_cpu: usize,
    /// First port for servers.
    #[arg(long, default_value_t = 24_000)]
    port: u16,
    /// Seed of loads and resampling.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Stay in the network namespace of the host.
    #[arg(long)]
    host_network: bool,
    /// Write every trial here, as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// One trial of a file loop, in this process.
    #[command(hide = true)]
    Trial(Trial),
}

pub(crate) fn run(args: &RuntimesArgs) -> Result<ExitCode> {
    if let Some(Command::Trial(trial)) = &args.command {
        print(&trial.run()?);
        return Ok(ExitCode::SUCCESS);
    }
    if args.rate.is_some_and(|rate| !(1.0..=1e8).contains(&rate)) {
        bail!("--rate is from 1 to 100,000,000 requests a second");
    }
    let options = Options {
        what: args.what.clone(),
        rounds: args.pairs.clamp(1, 1000),
        trial_ns: nanoseconds(args.seconds)?,
        rate: args.rate,
        connections: args.connections.clamp(1, 10_000),
        dir: args.dir.clone(),
        port: args.port,
        server_cpu: args.server_cpu,
        client_cpu: args.client_cpu,
        seed: args.seed,
    };
    if let Some(path) = &args.json {
        // Found out now rather than after half an hour.
        std::fs::write(path, "{}\n").with_context(|| format!("write {}", path.display()))?;
    }
    let own_network = !args.host_network && enter_network();
    compare::check_cpus(args.server_cpu, args.client_cpu)?;
    let report = runtimes::run(&options, own_network, &mut |line| eprintln!("{line}"))?;
    print(&report.text());
    if let Some(path) = &args.json {
        let json = serde_json::to_string_pretty(&report).context("encode the report")?;
        std::fs::write(path, json).with_context(|| format!("write {}", path.display()))?;
    }
    Ok(ExitCode::SUCCESS)
}
