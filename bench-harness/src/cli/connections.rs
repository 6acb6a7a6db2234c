//! `bench connections`: its arguments.

use std::process::ExitCode;

use anyhow::Result;
use bench_harness::compare;
use bench_harness::connections::{self, Options};
use clap::Args;

use super::out::Out;
use crate::{enter_network, print};

/// Arguments of `bench connections`.
#[derive(Debug, Args)]
pub(crate) struct ConnectionsArgs {
    /// Servers, by name in `bench peers`: of RESP, memcached or HTTP/1.1.
    #[arg(long, value_delimiter = ',', default_value = "shardd,redis,memcached,nginx")]
    side: Vec<String>,
    /// Numbers of connections at which memory is read.
    #[arg(long, value_delimiter = ',', default_values_t = [0, 1_000, 10_000])]
    at: Vec<usize>,
    /// Runs of each server, in alternation.
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// Core of the servers.
    #[arg(long, default_value_t = 0)]
    server_cpu: usize,
    /// Core of this side.
    #[arg(long, default_value_t = 1)]
    client_cpu: usize,
    /// First port for servers.
    #[arg(long, default_value_t = 27_000)]
    port: u16,
    /// Stay in the network namespace of the host.
    #[arg(long)]
    host_network: bool,
    #[command(flatten)]
    out: Out,
}

pub(crate) fn run(args: &ConnectionsArgs) -> Result<ExitCode> {
    args.out.prepare()?;
    let own_network = !args.host_network && enter_network();
    compare::check_cpus(args.server_cpu, args.client_cpu)?;
    let options = Options {
        peers: args.side.clone(),
        at: args.at.clone(),
        runs: args.runs.clamp(1, 100),
        server_cpu: args.server_cpu,
        client_cpu: args.client_cpu,
        port: args.port,
    };
    let mut report = connections::run(&options, own_network)?;
    report.close();
    print(&connections::text(&report));
    args.out.finish(&report)?;
    Ok(ExitCode::SUCCESS)
}
