//! `bench fanout`: its arguments.

use std::net::SocketAddr;
use std::process::ExitCode;

use anyhow::{Result, bail};
use bench_harness::clock::SECOND_NS;
use bench_harness::compare;
use bench_harness::fanout::{self, Options, Pace, Plan, PubSub, SlowPlan, Whom};
use bench_harness::load::trial::Timing;
use bench_harness::process;
use clap::{Args, ValueEnum};

use super::out::Out;
use crate::{enter_network, nanoseconds, print};

/// What moves the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Moved {
    /// The engine's ring.
    Ring,
    /// The ring, without ever sleeping.
    Spin,
}

/// Arguments of `bench fanout`.
#[derive(Debug, Args)]
pub(crate) struct FanoutArgs {
    /// Servers, by name in `bench peers`: of RESP or NATS.
    #[arg(long, value_delimiter = ',', default_value = "redis,valkey,nats")]
    side: Vec<String>,
    /// A server that runs already instead.
    #[arg(long, requires = "pid", conflicts_with = "side")]
    addr: Option<SocketAddr>,
    /// Its process, whose CPU clock and memory are read.
    #[arg(long, requires = "addr")]
    pid: Option<u32>,
    /// What it speaks.
    #[arg(long, value_enum, default_value_t = PubSub::Resp, requires = "addr")]
    protocol: PubSub,
    /// Publishers in all; each goes round the channels.
    #[arg(long, default_value_t = 4)]
    publishers: usize,
    /// Subscribers of each channel.
    #[arg(long, default_value_t = 10)]
    subscribers: usize,
    /// Channels.
    #[arg(long, default_value_t = 8)]
    channels: usize,
    /// Length of a message, in bytes.
    #[arg(long, default_value_t = 64)]
    message_len: usize,
    /// Closed loop: messages of each publisher on their way to somebody.
    #[arg(long, default_value_t = 1)]
    depth: u32,
    /// Open loop with this many messages a second instead, of all publishers.
    #[arg(long, conflicts_with = "depth")]
    rate: Option<f64>,
    /// Evenly spaced messages instead of Poisson.
    #[arg(long, requires = "rate")]
    constant: bool,
    /// Subscribers beside these that read slowly; the server's memory is then watched.
    #[arg(long, default_value_t = 0)]
    slow: usize,
    /// What each of them reads, in bytes a second; nothing when 0.
    #[arg(long, default_value_t = 0, requires = "slow")]
    slow_rate: u64,
    /// Runs of each server, in alternation.
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// Recorded seconds of a run.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Seconds before anything is recorded.
    #[arg(long, default_value_t = 0.3)]
    warmup: f64,
    /// What moves the load's bytes.
    #[arg(long, value_enum, default_value_t = Moved::Ring)]
    transport: Moved,
    /// Core of the servers.
    #[arg(long, default_value_t = 0)]
    server_cpu: usize,
    /// Core of the load.
    #[arg(long, default_value_t = 1)]
    client_cpu: usize,
    /// First port for servers.
    #[arg(long, default_value_t = 27_000)]
    port: u16,
    /// Stay in the network namespace of the host.
    #[arg(long)]
    host_network: bool,
    /// Seed of arrivals.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[command(flatten)]
    out: Out,
}

impl FanoutArgs {
    fn options(&self) -> Result<Options> {
        if !(0.0..=3_600.0).contains(&self.warmup) {
            bail!("a warm-up takes from 0 to 3600 seconds, not {}", self.warmup);
        }
        let pace = match self.rate {
            Some(rate) => Pace::Open { rate, poisson: !self.constant },
            None => Pace::Closed { depth: self.depth },
        };
        let whom = match (self.addr, self.pid) {
            (Some(addr), Some(pid)) => Whom::Running { addr, pid },
            _ => Whom::Peers(self.side.clone()),
        };
        let plan = Plan {
            protocol: self.protocol,
            publishers: self.publishers,
            subscribers: self.subscribers,
            channels: self.channels,
            message_len_bytes: self.message_len,
            pace,
            slow: SlowPlan { count: self.slow, bytes_per_s: self.slow_rate },
            seed: self.seed,
        };
        plan.check()?;
        Ok(Options {
            whom,
            plan,
            runs: self.runs.clamp(1, 1000),
            timing: Timing {
                warmup_ns: (self.warmup * SECOND_NS as f64) as u64,
                duration_ns: nanoseconds(self.seconds)?,
            },
            spin: self.transport == Moved::Spin,
            server_cpu: self.server_cpu,
            client_cpu: self.client_cpu,
            port: self.port,
        })
    }
}

/// Runs it, and fails when a message was lost, duplicated, reordered or wrong.
pub(crate) fn run(args: &FanoutArgs) -> Result<ExitCode> {
    let options = args.options()?;
    args.out.prepare()?;
    let own_network = match options.whom {
        // It is where it is.
        Whom::Running { .. } => {
            process::pin_self(args.client_cpu)?;
            false
        }
        Whom::Peers(_) => {
            let own_network = !args.host_network && enter_network();
            compare::check_cpus(args.server_cpu, args.client_cpu)?;
            own_network
        }
    };
    let found = fanout::run(&options, own_network)?;
    print(&fanout::text(&found));
    args.out.finish(&found.report)?;
    let measured =
        found.report.cells.iter().flat_map(|cell| &cell.sides).any(|side| !side.trials.is_empty());
    // A server of the registry that is not there is a line; the one that was named must answer.
    let failed = matches!(options.whom, Whom::Running { .. }) && !measured;
    Ok(if failed || !found.faults.is_empty() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
