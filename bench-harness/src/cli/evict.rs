//! `bench evict`: miss ratios of eviction policies.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use bench_harness::evict::{self, scenario::Scenario};
use bench_harness::exit::{self, Exit};
use clap::Args;

#[derive(Debug, Args)]
#[command(after_help = exit::help())]
pub(crate) struct EvictArgs {
    /// A TOML file that says what is simulated, like scenarios/evict.toml; that one without it.
    #[arg(long, value_name = "FILE")]
    scenario: Option<PathBuf>,
    /// A tenth of the keys and requests: to see that everything works.
    #[arg(long)]
    quick: bool,
    /// Requests a second, instead of the scenario's.
    #[arg(long)]
    rate: Option<f64>,
    /// Only traces whose name holds this text.
    #[arg(long)]
    only: Option<String>,
    /// Policies, instead of the scenario's.
    #[arg(long, value_delimiter = ',')]
    policy: Vec<String>,
    /// Write everything here, as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Fail (exit 3) when allkeys-lru misses more than redis' sampled LRU, or s3fifo, on Zipf's law, a point more than W-TinyLFU.
    #[arg(long)]
    gate: bool,
}

/// Runs it.
///
/// # Errors
/// The scenario is not valid, or the result cannot be written.
pub(crate) fn run(args: &EvictArgs) -> Result<ExitCode> {
    let mut scenario = match &args.scenario {
        Some(path) => Scenario::read(path)?,
        None => Scenario::usual()?,
    };
    if args.quick {
        scenario.keys = (scenario.keys / 10).max(1);
        scenario.requests = (scenario.requests / 10).max(1);
    }
    scenario.rate = args.rate.unwrap_or(scenario.rate);
    if let Some(only) = &args.only {
        scenario.trace.retain(|trace| trace.name.contains(only.as_str()));
    }
    if !args.policy.is_empty() {
        scenario.policies.clone_from(&args.policy);
    }
    let report = evict::run(&scenario, &mut |line| eprintln!("{line}"))?;
    if let Some(path) = &args.json {
        let json = serde_json::to_string_pretty(&report).context("encode the report")?;
        super::out::write(path, &format!("{json}\n"))?;
    }
    crate::print(&report.text());
    let exit = if args.gate && !report.missed.is_empty() { Exit::Regression } else { Exit::Ok };
    Ok(exit.into())
}
