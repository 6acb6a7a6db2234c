//! `bench load`, and the arguments of every load on a server that runs already.
//!
//! Invariants: what is asked for is checked before the first byte is sent.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use bench_harness::clock::{MILLISECOND_NS, SECOND_NS};
use bench_harness::load::arrivals::{RATE_MAX, STEPS_MAX, Schedule, Step, Unit, parse_step};
use bench_harness::load::protocol::HttpArgs;
use bench_harness::load::trial::{self, Timing, Transport, Trial};
use bench_harness::load::{Arrivals, Target, Workload};
use bench_harness::peers::Protocol;
use bench_harness::process::{self, Server};
use clap::Args;

/// Before anything is recorded, unless it is said otherwise.
const WARMUP_S: f64 = 0.3;
/// Recorded, unless it is said otherwise.
const SECONDS: f64 = 2.0;

/// Whom to ask for what, whatever the rate.
#[derive(Debug, Args)]
pub(crate) struct LoadOn {
    /// The server.
    #[arg(long)]
    addr: SocketAddr,
    /// Its process, whose CPU clock is read.
    #[arg(long)]
    pid: u32,
    /// What it speaks.
    #[arg(long, value_enum, default_value_t = Protocol::Resp)]
    protocol: Protocol,
    /// Connections.
    #[arg(long, default_value_t = 50)]
    connections: usize,
    /// Evenly spaced arrivals instead of Poisson.
    #[arg(long)]
    constant: bool,
    /// Share of requests that are SET.
    #[arg(long, default_value_t = 0.0)]
    set_share: f64,
    /// Length of values.
    #[arg(long, default_value_t = 64)]
    value_len: usize,
    /// Distinct keys.
    #[arg(long, default_value_t = 100_000)]
    keys: u32,
    /// Recorded seconds of a trial [default: 2, or as long as steps or a schedule last].
    #[arg(long)]
    seconds: Option<f64>,
    /// Seconds before anything is recorded [default: 0.3, with steps or a schedule 0].
    #[arg(long)]
    warmup: Option<f64>,
    /// Core of the load.
    #[arg(long, default_value_t = 1)]
    client_cpu: usize,
    /// What moves the bytes [default: ring; spin for curves and searches].
    #[arg(long, value_enum)]
    transport: Option<Transport>,
    #[command(flatten)]
    http: HttpArgs,
    /// Seed.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
}

impl LoadOn {
    fn workload(&self, arrivals: Arrivals) -> Result<Workload> {
        Ok(Workload {
            protocol: self.protocol,
            set_share: self.set_share,
            keys: self.keys,
            value_len_bytes: self.value_len,
            connections: self.connections.max(1),
            arrivals,
            seed: self.seed,
            http: self.http.http(self.addr)?,
        })
    }

    /// An open loop at `rate`.
    pub(crate) const fn open(&self, rate: f64) -> Arrivals {
        Arrivals::Open { rate, poisson: !self.constant }
    }

    /// Moves to the load's core, looks at the server and stores its keys.
    pub(crate) fn prepare(&self, transport: Transport) -> Result<Prepared<'_>> {
        process::pin_self(self.client_cpu)?;
        let server = Server::watch(self.pid)?;
        let targets = vec![Target::all_keys(self.addr)];
        trial::prefill(&self.workload(Arrivals::Closed { pipeline: 1 })?, &targets)?;
        Ok(Prepared { on: self, server, targets, transport: self.transport.unwrap_or(transport) })
    }

    fn timing(&self, arrivals: &Arrivals) -> Result<Timing> {
        let own_ns = arrivals.length_ns();
        let warmup = self.warmup.unwrap_or(if own_ns.is_some() { 0.0 } else { WARMUP_S });
        if !(0.0..=3_600.0).contains(&warmup) {
            bail!("a warm-up takes from 0 to 3600 seconds, not {warmup}");
        }
        let duration_ns = match (self.seconds, own_ns) {
            (Some(seconds), _) => crate::nanoseconds(seconds)?,
            // A little longer, for the replies to the last.
            (None, Some(own_ns)) => own_ns.max(10 * MILLISECOND_NS) + 100 * MILLISECOND_NS,
            (None, None) => crate::nanoseconds(SECONDS)?,
        };
        Ok(Timing { warmup_ns: (warmup * SECOND_NS as f64) as u64, duration_ns })
    }
}

/// A server whose keys are in place.
pub(crate) struct Prepared<'a> {
    on: &'a LoadOn,
    server: Server,
    targets: Vec<Target>,
    transport: Transport,
}

impl Prepared<'_> {
    /// Runs one trial.
    pub(crate) fn run(&self, arrivals: Arrivals, seed: u64) -> Result<Trial> {
        let timing = self.on.timing(&arrivals)?;
        let mut workload = self.on.workload(arrivals)?;
        workload.seed = seed;
        trial::run(&workload, &self.targets, &self.server, 0, self.transport, timing)
    }
}

#[derive(Debug, Args)]
pub(crate) struct LoadArgs {
    #[command(flatten)]
    on: LoadOn,
    /// Closed loop with this many requests in a pipeline.
    #[arg(long, default_value_t = 1)]
    pipeline: u32,
    /// Open loop with this many requests a second instead.
    #[arg(long, conflicts_with_all = ["steps", "replay"])]
    rate: Option<f64>,
    /// Open loop in steps instead, as SECONDS:RATE, as in 5:1000,5:4000.
    #[arg(long, value_delimiter = ',', value_parser = parse_step, conflicts_with = "replay")]
    steps: Vec<Step>,
    /// Open loop with the arrivals of this file instead: one time since the start on a line.
    #[arg(long)]
    replay: Option<PathBuf>,
    /// What its numbers are.
    #[arg(long, value_enum, default_value_t = Unit::Us)]
    replay_unit: Unit,
    /// Begin the file again at its end.
    #[arg(long, requires = "replay")]
    replay_loop: bool,
}

impl LoadArgs {
    /// What it is, in a line.
    pub(crate) fn describe(&self) -> String {
        let LoadOn { protocol, connections, .. } = &self.on;
        let pace = match (self.rate, self.steps.is_empty(), &self.replay) {
            (Some(rate), _, _) => format!("{rate} requests/s"),
            (None, true, None) => format!("pipeline {}", self.pipeline),
            _ => "a schedule".to_owned(),
        };
        format!("{}, {connections} connections, {pace}", protocol.name())
    }

    fn arrivals(&self) -> Result<Arrivals> {
        if self.steps.len() > STEPS_MAX {
            bail!("a load has at most {STEPS_MAX} steps, not {}", self.steps.len());
        }
        if !self.steps.is_empty() {
            return Ok(Arrivals::Steps { steps: self.steps.clone(), poisson: !self.on.constant });
        }
        if let Some(path) = &self.replay {
            let schedule = Schedule::read(path, self.replay_unit)?;
            if self.replay_loop {
                schedule.period_ns()?;
            }
            return Ok(Arrivals::Replay { schedule, looped: self.replay_loop });
        }
        match self.rate {
            Some(rate) if !(rate > 0.0 && rate <= RATE_MAX) => {
                bail!("a rate is above 0 and at most {RATE_MAX} requests a second, not {rate}")
            }
            Some(rate) => Ok(self.on.open(rate)),
            None => Ok(Arrivals::Closed { pipeline: self.pipeline.max(1) }),
        }
    }
}

/// Runs the trial, with something beside it that is started when the server is ready and is told its process.
pub(crate) fn run_with<T>(
    args: &LoadArgs,
    start: impl FnOnce(u32) -> Result<T>,
) -> Result<(Trial, T)> {
    let arrivals = args.arrivals()?;
    let prepared = args.on.prepare(Transport::Ring)?;
    let beside = start(prepared.server.pid())?;
    Ok((prepared.run(arrivals, args.on.seed)?, beside))
}

pub(crate) fn run(args: &LoadArgs) -> Result<ExitCode> {
    let (trial, ()) = run_with(args, |_| Ok(()))?;
    if let Some(why) = &trial.limit_why {
        eprintln!("{why}");
    }
    let json = serde_json::to_string_pretty(&trial).context("encode the trial")?;
    crate::print(&format!("{json}\n"));
    Ok(ExitCode::SUCCESS)
}
