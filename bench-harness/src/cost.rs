//! What the load generator itself costs: CPU of the client per request, beside redis-benchmark and
//! wrk at the same work.
//!
//! Why it matters: on two cores the client must not be the limit, and what it costs is taken from
//! what it can show. The same server, connections, pipeline, keys and values; ours checks every reply,
//! they do not. The others' CPU time is that of the whole process, read when it is reaped, less what it
//! takes to start and connect; ours is that of the thread that makes the load.
//! Invariants: all run on the same core, in alternation, with one server; a run with an error is no
//! figure. Next: `figures` for the table, `load` for the generator.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;

use crate::clock::{self, MILLISECOND_NS, SECOND_NS};
use crate::figures::{Figures, Report, alternate};
use crate::load::protocol::Protocol;
use crate::load::trial::{self, Timing, Transport};
use crate::load::{Target, Workload};
use crate::peers::{self, Place};
use crate::process::{self, Server};
use crate::{compare, machine};

/// The figure that is claimed.
const CPU: &str = "client_ns_per_request";
const RATE: &str = "requests_per_s";
const WARMUP_NS: u64 = 300 * MILLISECOND_NS;
const CONNECTIONS: usize = 50;
/// A file of 1 KiB that the registry's nginx has.
const FILE: &str = "/file";
/// Requests that tell how many fit the time of a trial.
const TRY_REQUESTS: u64 = 50_000;

/// Options of `bench cost`.
#[derive(Clone, Debug, clap::Args)]
pub struct CostArgs {
    /// Rounds, each with one trial of each generator.
    #[arg(long, default_value_t = 10)]
    pairs: usize,
    /// Seconds of a trial.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Only cells whose name holds this text.
    #[arg(long)]
    only: Option<String>,
    /// Core of the servers.
    #[arg(long, default_value_t = 0)]
    server_cpu: usize,
    /// Core of the generators.
    #[arg(long, default_value_t = 1)]
    client_cpu: usize,
    /// What moves our bytes.
    #[arg(long, value_enum, default_value_t = Transport::Ring)]
    transport: Transport,
    /// First port for servers.
    #[arg(long, default_value_t = 23_900)]
    port: u16,
    /// Stay in the network namespace of the host.
    #[arg(long)]
    host_network: bool,
}

impl CostArgs {
    fn wants(&self, cell: &str) -> bool {
        self.only.as_ref().is_none_or(|only| cell.contains(only.as_str()))
    }

    fn timing(&self) -> Timing {
        Timing { warmup_ns: WARMUP_NS, duration_ns: (self.seconds * SECOND_NS as f64) as u64 }
    }

    fn place(&self) -> Place {
        Place {
            port: self.port,
            admin: self.port.saturating_add(1),
            shards: 1,
            cpus: vec![self.server_cpu],
            read_buffer: 4096,
            client_cpu: self.client_cpu,
            fifo: false,
        }
    }
}

/// Measures all cells.
///
/// # Errors
/// The cores or the time asked for cannot be had. A generator or a server that is missing is a line
/// of the report.
pub fn run(args: &CostArgs) -> Result<Report> {
    if !(0.2..=600.0).contains(&args.seconds) {
        bail!("a trial takes from 0.2 to 600 seconds, not {}", args.seconds);
    }
    let own_network = !args.host_network
        && machine::enter_own_network()
            .inspect_err(|error| eprintln!("in the host's network: {error:#}"))
            .is_ok();
    compare::check_cpus(args.server_cpu, args.client_cpu)?;
    process::pin_self(args.client_cpu)?;
    let mut report = Report::new("cost", own_network);
    for (set, pipeline) in [(false, 1), (false, 16), (true, 1), (true, 16)] {
        let verb = if set { "SET" } else { "GET" };
        let name = format!("redis-server, {verb} of 64 B, 50 connections, pipeline {pipeline}");
        if args.wants(&name)
            && let Err(error) = redis(args, &name, set, pipeline, &mut report)
        {
            report.skipped.push(format!("{name}: {error:#}"));
        }
    }
    let name = "nginx, a file of 1 KiB, 50 connections";
    if args.wants(name)
        && let Err(error) = nginx(args, name, &mut report)
    {
        report.skipped.push(format!("{name}: {error:#}"));
    }
    Ok(report)
}

/// One trial of ours.
fn ours(
    args: &CostArgs,
    workload: &Workload,
    targets: &[Target],
    server: &Server,
) -> Result<Figures> {
    let trial =
        trial::run(workload, targets, server, args.server_cpu, args.transport, args.timing())?;
    Ok(Figures::from([(CPU, trial.client_cpu_ns_per_op), (RATE, trial.rate)]))
}

fn redis(args: &CostArgs, name: &str, set: bool, pipeline: u32, report: &mut Report) -> Result<()> {
    process::first_line("redis-benchmark", &["--version"])?;
    let place = args.place();
    let server = peers::find("redis")?.start(&place)?;
    let mut workload = Workload::new(Protocol::Resp, pipeline);
    workload.connections = CONNECTIONS;
    workload.set_share = if set { 1.0 } else { 0.0 };
    let targets = [Target::all_keys(place.addr())];
    trial::prefill(&workload, &targets)?;
    let benchmark = |requests: u64| redis_benchmark(place.port, &workload, pipeline, requests);
    let (start_ns, _) = benchmark(CONNECTIONS as u64)?;
    let (_, rate) = benchmark(TRY_REQUESTS * u64::from(pipeline))?;
    let requests = (rate * args.seconds) as u64;
    let theirs = || -> Result<Figures> {
        let (cpu_ns, rate) = benchmark(requests)?;
        let each = cpu_ns.saturating_sub(start_ns) as f64 / requests.max(1) as f64;
        Ok(Figures::from([(CPU, each), (RATE, rate)]))
    };
    eprintln!("{name}: {requests} requests a trial");
    let mut cell = alternate(
        name,
        args.pairs.max(1),
        &[
            ("ours", Box::new(|| ours(args, &workload, &targets, &server))),
            ("redis-benchmark", Box::new(theirs)),
        ],
        &mut report.skipped,
    );
    cell.claim(CPU, 1, 1.0);
    report.cells.push(cell);
    Ok(())
}

/// CPU time of one run of redis-benchmark, and its rate.
fn redis_benchmark(
    port: u16,
    workload: &Workload,
    pipeline: u32,
    requests: u64,
) -> Result<(u64, f64)> {
    let args = [
        "-h",
        "127.0.0.1",
        "-p",
        &port.to_string(),
        "-c",
        &workload.connections.to_string(),
        "-d",
        &workload.value_len_bytes.to_string(),
        "-n",
        &requests.to_string(),
        "-P",
        &pipeline.to_string(),
        "-r",
        &workload.keys.to_string(),
        "-t",
        if workload.set_share > 0.0 { "set" } else { "get" },
        "--csv",
    ];
    let (cpu_ns, text) = timed("redis-benchmark", &args)?;
    let rate = text
        .lines()
        .rfind(|line| line.starts_with('"'))
        .and_then(|line| line.split(',').nth(1)?.trim_matches('"').parse().ok())
        .with_context(|| format!("no rate in what redis-benchmark printed: {text}"))?;
    Ok((cpu_ns, rate))
}

/// Runs a program to its end: its CPU time, and what it printed.
fn timed(program: &str, args: &[&str]) -> Result<(u64, String)> {
    let before_ns = reaped_ns()?;
    let output = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("start {program}"))?;
    let cpu_ns = reaped_ns()?.saturating_sub(before_ns);
    if !output.status.success() {
        let why = String::from_utf8_lossy(&output.stderr);
        bail!("{program} {}: {}, {}", args.join(" "), output.status, why.trim());
    }
    Ok((cpu_ns, String::from_utf8_lossy(&output.stdout).into_owned()))
}

/// CPU time of all children that have ended (getrusage(2)).
fn reaped_ns() -> Result<u64> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).context("getrusage of children")?;
    let us = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    Ok(u64::try_from(us).unwrap_or(0) * clock::MICROSECOND_NS)
}

fn nginx(args: &CostArgs, name: &str, report: &mut Report) -> Result<()> {
    process::find("wrk").context("wrk is not installed (Debian: apt install wrk)")?;
    let place = args.place();
    let server = peers::find("nginx")?.start(&place)?;
    let addr = place.addr();
    let body = peers::http_get(addr, FILE)?;
    let mut workload = Workload::new(Protocol::Http1, 1);
    workload.connections = CONNECTIONS;
    workload.http.path = FILE.into();
    workload.http.host = addr.to_string().into();
    workload.http.body = Some(body.into());
    let targets = [Target::all_keys(addr)];
    let connections = CONNECTIONS.to_string();
    let duration = format!("{}s", args.seconds.ceil() as u64);
    let url = format!("http://{addr}{FILE}");
    let theirs = || -> Result<Figures> {
        let (cpu_ns, text) = timed("wrk", &["-t1", "-c", &connections, "-d", &duration, &url])?;
        let (requests, rate) = wrk_figures(&text).with_context(|| format!("wrk printed {text}"))?;
        Ok(Figures::from([(CPU, cpu_ns as f64 / requests.max(1.0)), (RATE, rate)]))
    };
    eprintln!("{name}");
    let mut cell = alternate(
        name,
        args.pairs.max(1),
        &[
            ("ours", Box::new(|| ours(args, &workload, &targets, &server))),
            ("wrk", Box::new(theirs)),
        ],
        &mut report.skipped,
    );
    cell.claim(CPU, 1, 1.0);
    report.cells.push(cell);
    Ok(())
}

/// Requests and their rate, unless some failed.
fn wrk_figures(text: &str) -> Option<(f64, f64)> {
    if text.contains("Non-2xx") || text.contains("Socket errors") {
        return None;
    }
    let number_before = |word: &str| {
        text.lines().find_map(|line| line.split_once(word)?.0.trim().parse::<f64>().ok())
    };
    let rate = text.lines().find_map(|line| line.strip_prefix("Requests/sec:"))?;
    Some((number_before(" requests in ")?, rate.trim().parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_figures_of_wrk_are_found_unless_requests_failed() {
        let text = "Running 2s test @ http://127.0.0.1:1/file\n  1 threads and 50 connections\n  \
                    139405 requests in 2.00s, 164.99MB read\nRequests/sec:  69683.17\n";
        assert_eq!(wrk_figures(text), Some((139_405.0, 69_683.17)));
        assert_eq!(wrk_figures(&format!("{text}  Non-2xx or 3xx responses: 1\n")), None);
        assert_eq!(wrk_figures("unable to connect"), None);
    }

    #[test]
    fn the_time_of_a_child_is_counted_when_it_has_ended() {
        let script = "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; echo done";
        let (cpu_ns, text) = timed("sh", &["-c", script]).expect("sh runs");
        assert_eq!(text, "done\n");
        assert!(cpu_ns > MILLISECOND_NS, "{cpu_ns}");
        assert!(timed("sh", &["-c", "exit 3"]).is_err());
        assert!(timed("no-such-program", &[]).is_err());
    }
}
