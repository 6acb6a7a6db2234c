//! `bench load`, and the arguments of every load on one server.
//!
//! Invariants: what is asked for is checked before the first byte is sent.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use bench_harness::clock::{MILLISECOND_NS, SECOND_NS};
use bench_harness::connections;
use bench_harness::load::arrivals::{RATE_MAX, STEPS_MAX, Schedule, Step, Unit, parse_step};
use bench_harness::load::protocol::HttpArgs;
use bench_harness::load::trial::{self, Timing, Transport, Trial};
use bench_harness::load::{Arrivals, KeyDist, Target, Workload};
use bench_harness::scenario::file::CONNECTIONS_MAX;
use clap::Args;

use super::server::{Running, ServerArgs};

/// Before anything is recorded, unless it is said otherwise.
const WARMUP_S: f64 = 0.3;
/// Recorded, unless it is said otherwise.
const SECONDS: f64 = 2.0;

/// Whom to ask for what, however many connections do, and when.
#[derive(Debug, Args)]
pub(crate) struct LoadOn {
    #[command(flatten)]
    server: ServerArgs,
    /// Share of requests that are SET.
    #[arg(long, default_value_t = 0.0)]
    set_share: f64,
    /// SETs are of new keys.
    #[arg(long)]
    inserts: bool,
    /// Share of requests that are a GET whose key is SET next on the same connection.
    #[arg(long, default_value_t = 0.0)]
    rmw_share: f64,
    /// Length of values.
    #[arg(long, default_value_t = 64)]
    value_len: usize,
    /// Distinct keys.
    #[arg(long, default_value_t = 100_000)]
    keys: u32,
    /// How requests fall on them: uniform, zipfian, zipfian-ordered, latest, hotspot or sequential; with a skew or with shares of
    /// keys and requests, as in zipfian:0.99 and hotspot:0.2:0.8.
    #[arg(long, default_value_t = KeyDist::Uniform)]
    key_dist: KeyDist,
    /// Recorded seconds of a trial [default: 2, or as long as steps or a schedule last].
    #[arg(long)]
    seconds: Option<f64>,
    /// Seconds before anything is recorded [default: 0.3, with steps or a schedule 0].
    #[arg(long)]
    warmup: Option<f64>,
    /// What moves the bytes [default: ring; spin for curves and searches].
    #[arg(long, value_enum)]
    transport: Option<Transport>,
    #[command(flatten)]
    http: HttpArgs,
    /// Seed.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
}

/// Over how many connections, where that is one number, and how an open loop's requests arrive.
#[derive(Debug, Args)]
pub(crate) struct Over {
    /// Connections.
    #[arg(long, default_value_t = 50)]
    pub(crate) connections: usize,
    /// Open loop: evenly spaced arrivals instead of Poisson.
    #[arg(long)]
    constant: bool,
}

impl Over {
    /// An open loop at `rate`.
    pub(crate) const fn open(&self, rate: f64) -> Arrivals {
        Arrivals::Open { rate, poisson: !self.constant }
    }
}

impl LoadOn {
    /// Refuses what makes no sense, moves to the load's core, finds or starts the server, and stores its keys.
    pub(crate) fn prepare(&self, connections: usize, transport: Transport) -> Result<Prepared<'_>> {
        if connections > CONNECTIONS_MAX {
            bail!("at most {CONNECTIONS_MAX} connections, not {connections}");
        }
        connections::raise_files(connections)?;
        let on = self.server.open()?;
        let targets = vec![Target::all_keys(on.addr)];
        let workload = Workload {
            protocol: on.protocol,
            set_share: self.set_share,
            rmw_share: self.rmw_share,
            inserts: self.inserts,
            keys: self.keys,
            key_dist: self.key_dist,
            value_len_bytes: self.value_len,
            connections: connections.max(1),
            seed: self.seed,
            http: self.http.http(on.addr)?,
            ..Workload::new(on.protocol, 1)
        };
        trial::check_workload(&workload, &targets)?;
        trial::prefill(&workload, &targets)?;
        let transport = self.transport.unwrap_or(transport);
        Ok(Prepared { args: self, on, targets, workload, transport })
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

/// A server whose keys are in place, and what is asked of it.
pub(crate) struct Prepared<'a> {
    args: &'a LoadOn,
    pub(crate) on: Running,
    targets: Vec<Target>,
    pub(crate) workload: Workload,
    transport: Transport,
}

impl Prepared<'_> {
    /// Runs one trial.
    pub(crate) fn run(&self, arrivals: Arrivals, connections: usize, seed: u64) -> Result<Trial> {
        let timing = self.args.timing(&arrivals)?;
        let connections = connections.max(1);
        let workload = Workload { arrivals, connections, seed, ..self.workload.clone() };
        trial::run(&workload, &self.targets, &self.on.server, self.on.cpu, self.transport, timing)
    }
}

#[derive(Debug, Args)]
pub(crate) struct LoadArgs {
    #[command(flatten)]
    on: LoadOn,
    #[command(flatten)]
    over: Over,
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
        let pace = match (self.rate, self.steps.is_empty(), &self.replay) {
            (Some(rate), _, _) => format!("{rate} requests/s"),
            (None, true, None) => format!("pipeline {}", self.pipeline),
            _ => "a schedule".to_owned(),
        };
        format!("{}, {} connections, {pace}", self.on.server.name(), self.over.connections)
    }

    fn arrivals(&self) -> Result<Arrivals> {
        if self.steps.len() > STEPS_MAX {
            bail!("a load has at most {STEPS_MAX} steps, not {}", self.steps.len());
        }
        if !self.steps.is_empty() {
            return Ok(Arrivals::Steps { steps: self.steps.clone(), poisson: !self.over.constant });
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
            Some(rate) => Ok(self.over.open(rate)),
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
    args.on.timing(&arrivals)?;
    let prepared = args.on.prepare(args.over.connections, Transport::Ring)?;
    let beside = start(prepared.on.server.pid())?;
    Ok((prepared.run(arrivals, args.over.connections, args.on.seed)?, beside))
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
