//! `bench pauses`: its arguments.

use std::process::ExitCode;

use anyhow::Result;
use bench_harness::compare;
use bench_harness::load::trial::Transport;
use bench_harness::pauses::{self, Event, Options};
use clap::Args;

use super::out::Out;
use crate::{enter_network, print};

/// Arguments of `bench pauses`.
#[derive(Debug, Args)]
pub(crate) struct PausesArgs {
    /// The server under test, by its name in `bench peers`: one that speaks RESP.
    #[arg(long, default_value = "shardd")]
    ours: String,
    /// Only these events.
    #[arg(long, value_enum, value_delimiter = ',', value_name = "EVENT")]
    only: Vec<Event>,
    /// Keys that are stored before the load: 16 B, with values of 64 B.
    #[arg(long, default_value_t = 2_000_000)]
    keys: u32,
    /// Keys that expire in one second's span.
    #[arg(long, default_value_t = 1_000_000)]
    expiring: u32,
    /// Connections of the load.
    #[arg(long, default_value_t = 50)]
    connections: usize,
    /// Rounds of each event, each with a fresh server.
    #[arg(long, default_value_t = 3)]
    pairs: usize,
    /// Recorded seconds of a trial.
    #[arg(long, default_value_t = 6.0)]
    seconds: f64,
    /// Core of the server.
    #[arg(long, default_value_t = 0)]
    server_cpu: usize,
    /// Core of the load, and of the replica of full-sync, which runs there at nice 19.
    #[arg(long, default_value_t = 1)]
    client_cpu: usize,
    /// What moves the load's bytes.
    #[arg(long, value_enum, default_value_t = Transport::Ring)]
    transport: Transport,
    /// First port for servers.
    #[arg(long, default_value_t = 28_000)]
    port: u16,
    /// Stay in the network namespace of the host.
    #[arg(long)]
    host_network: bool,
    /// Seed of the load.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[command(flatten)]
    out: Out,
    /// Fail when p99 is not below the bar (exit 3, or 5 where the load was the limit).
    #[arg(long)]
    gate: bool,
}

/// Measures the events. A trial that failed, and an event that did not happen, end it with 1.
///
/// # Errors
/// The arguments make no sense, or results cannot be written.
pub(crate) fn run(args: &PausesArgs) -> Result<ExitCode> {
    let options = Options {
        ours: args.ours.clone(),
        events: args.only.clone(),
        keys: args.keys,
        expiring: args.expiring,
        connections: args.connections,
        rounds: args.pairs.clamp(1, 1000),
        seconds: args.seconds,
        server_cpu: args.server_cpu,
        client_cpu: args.client_cpu,
        transport: args.transport,
        port: args.port,
        seed: args.seed,
    };
    args.out.prepare()?;
    let own_network = !args.host_network && enter_network();
    compare::check_cpus(args.server_cpu, args.client_cpu)?;
    let mut report = pauses::run(&options, own_network, &mut |report| args.out.keep(report))?;
    report.close();
    print(&pauses::text(&report));
    args.out.finish(&report)?;
    Ok(pauses::exit(&report, args.gate).into())
}
