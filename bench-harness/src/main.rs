//! The `bench` command: lists what there is, runs comparisons, puts a load on a running server,
//! and hosts our sessions on other runtimes.

#![forbid(unsafe_code)]

mod cli;

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, bail};
use bench_harness::broker;
use bench_harness::clock::SECOND_NS;
use bench_harness::compare::{self, Bench};
use bench_harness::cost;
use bench_harness::exit::{self, Exit};
use bench_harness::figures::Report as Figured;
use bench_harness::host::{self, Hosting};
use bench_harness::load::trial::Transport;
use bench_harness::machine::{self, Machine};
use bench_harness::pauses;
use bench_harness::peers::{self, Ports};
use bench_harness::process;
use bench_harness::report::{self, Report};
use bench_harness::scenario::cells::{self, Options, ROWS};
use bench_harness::scenario::file::{BUILT_IN, Scenario};
use bench_harness::{stats, storage};
use clap::{Args, Parser, Subcommand, ValueEnum};

/// Compares our servers with others on the same core.
#[derive(Debug, Parser)]
#[command(name = "bench", version, after_help = exit::help())]
struct Cli {
    /// A file of servers, which adds to those there are or replaces some.
    #[arg(long, global = true, value_name = "FILE")]
    peers: Option<PathBuf>,
    #[command(subcommand)]
    command: Commands,
}

#[derive(Debug, Subcommand)]
enum Commands {
    /// What can be compared, and with whom.
    List,
    /// The servers there are, and whether each works here.
    Peers(cli::peers::PeersArgs),
    /// Runs a scenario: servers of your choice under one load, each beside the first.
    Run(cli::run::RunArgs),
    /// Says what a scenario does.
    Explain(cli::run::ExplainArgs),
    /// Runs rows of the cache's table of claims.
    Cache(CacheArgs),
    /// Durable appends, files to sockets and messages between shards, beside other ways to do them.
    Storage(StorageArgs),
    /// Stores, reads and follows messages, on our broker and beside others.
    Broker(BrokerArgs),
    /// Whether one saved report is worse than another, for scripts: see the exit codes.
    Gate(cli::gate::GateArgs),
    /// A saved report as a page, CSV, histogram log or text.
    Report(cli::report::Args),
    /// Makes the measured tables of BENCHMARKS.md from saved results.
    Benchmarks(cli::benchmarks::Args),
    /// Memory of a connection, idle and used, of the server and of the kernel.
    Connections(cli::connections::ConnectionsArgs),
    /// Messages to many subscribers: deliveries, their latency and cost, and what is lost, over RESP or NATS.
    Fanout(cli::fanout::FanoutArgs),
    /// The same sessions and file loops on our engine, monoio, glommio and tokio.
    Runtimes(cli::runtimes::RuntimesArgs),
    /// File I/O as a load: reads, writes, syncs, appends, files to sockets; every block is checked.
    Files(cli::files::FilesArgs),
    /// Puts one load on one server, and prints the trial as JSON.
    Load(cli::load::LoadArgs),
    /// A load as of `bench load`, and where the server spends its time meanwhile, as a flame graph; needs perf.
    Flamegraph(cli::flamegraph::FlamegraphArgs),
    /// Latency while a server saves, grows, expires keys or feeds a replica: an open loop at 70 % of its own peak.
    Pauses(cli::pauses::PausesArgs),
    /// CPU of the load itself per request, beside redis-benchmark and wrk.
    Cost(Cost),
    /// Runs a load at several rates, and finds the knee of latency over throughput.
    Curve(cli::search::CurveArgs),
    /// Finds the highest rate at which a latency holds, as in `bench find-max 'p99<1ms'`.
    FindMax(cli::search::FindMaxArgs),
    /// Runs a closed loop at several depths: connections by pipelines, a row each.
    Sweep(cli::sweep::SweepArgs),
    /// Miss ratios of eviction policies: the store's own beside models of others, over drawn requests.
    Evict(cli::evict::EvictArgs),
    /// Serves GET and SET of RESP in a way that a load generator must notice, until it is ended.
    Pathology(cli::pathology::PathologyArgs),
    /// Serves a session on another runtime until it is ended.
    Host(HostArgs),
}

#[derive(Debug, Args)]
struct CacheArgs {
    /// Rows to run, by number; all when none is given.
    #[arg(long, value_delimiter = ',')]
    row: Vec<String>,
    /// Fewer cells, rounds and shorter trials: to see that everything works.
    #[arg(long)]
    quick: bool,
    /// Rounds, each with one trial of every server.
    #[arg(long)]
    pairs: Option<usize>,
    /// Recorded seconds of a trial.
    #[arg(long)]
    seconds: Option<f64>,
    /// The server under test, by its name in `bench list`.
    #[arg(long, default_value = "shardd")]
    ours: String,
    /// The server rows 3, 3b, 3c and 5 compare it with.
    #[arg(long, default_value = "redis")]
    baseline: String,
    /// The servers row 4 compares it with, instead of all.
    #[arg(long, value_delimiter = ',')]
    peer: Vec<String>,
    /// Only cells whose description holds this text.
    #[arg(long)]
    only: Option<String>,
    /// Core of the servers.
    #[arg(long, default_value_t = 0)]
    server_cpu: usize,
    /// Core of the load.
    #[arg(long, default_value_t = 1)]
    client_cpu: usize,
    /// What moves the load's bytes.
    #[arg(long, value_enum, default_value_t = Transport::Ring)]
    transport: Transport,
    /// SCHED_FIFO for both sides; for the servers alone when the client spins.
    #[arg(long)]
    fifo: bool,
    /// Stay in the network namespace of the host.
    #[arg(long)]
    host_network: bool,
    /// First port for servers.
    #[arg(long, default_value_t = 22_000)]
    port: u16,
    /// Seed of loads and resampling.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[command(flatten)]
    out: cli::out::Out,
    /// Fail when a bar is missed (exit 3), or when equal servers came out apart (exit 4).
    #[arg(long)]
    gate: bool,
    /// Print what would run and how long it takes, and stop.
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, Args)]
struct StorageArgs {
    /// Rows to run: commits (4c), files and cold (4d), cross (4e); all when none is given.
    #[arg(long, value_delimiter = ',')]
    row: Vec<String>,
    /// Where files are made; on the disk to be measured.
    #[arg(long, default_value = "target/bench-storage")]
    dir: PathBuf,
    /// Rounds, each with one trial of each side.
    #[arg(long, default_value_t = 5)]
    pairs: usize,
    /// Seconds of a trial.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Core of the measured side; the next one receives.
    #[arg(long, default_value_t = 0)]
    server_cpu: usize,
    /// First port to use.
    #[arg(long, default_value_t = 22_900)]
    port: u16,
    #[command(flatten)]
    out: cli::out::Out,
}

#[derive(Debug, Args)]
struct BrokerArgs {
    /// Rows to run, by number in `bench list`; all when neither rows nor a workload are given.
    #[arg(long, value_delimiter = ',')]
    row: Vec<String>,
    /// A workload instead: one of `bench list`, or a TOML file like those.
    #[arg(long, conflicts_with = "row")]
    workload: Option<String>,
    /// Brokers to run, by name in `bench list`; all when none is given.
    #[arg(long, value_delimiter = ',')]
    side: Vec<String>,
    /// Rounds, each with one trial of each broker.
    #[arg(long, default_value_t = 5)]
    pairs: usize,
    /// Recorded seconds of a trial, instead of the workload's.
    #[arg(long)]
    seconds: Option<f64>,
    /// Where brokers keep their logs; on the disk to be measured.
    #[arg(long, default_value = "target/bench-broker")]
    dir: PathBuf,
    /// Core of the brokers.
    #[arg(long, default_value_t = 0)]
    server_cpu: usize,
    /// Core of the load.
    #[arg(long, default_value_t = 1)]
    client_cpu: usize,
    /// First port for brokers.
    #[arg(long, default_value_t = 23_000)]
    port: u16,
    /// Memory in MB that is filled and given back before each trial, so that all meet pages the host has given.
    #[arg(long, default_value_t = 4_000)]
    touch_mb: usize,
    /// Size in MB of the old topic of row 5.
    #[arg(long, default_value_t = 4_295)]
    old_mb: usize,
    /// Stay in the network namespace of the host.
    #[arg(long)]
    host_network: bool,
    #[command(flatten)]
    out: cli::out::Out,
}

#[derive(Debug, Args)]
struct Cost {
    #[command(flatten)]
    cost: cost::CostArgs,
    #[command(flatten)]
    out: cli::out::Out,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum SessionKind {
    /// The cache's own session.
    Cache,
    /// A minimal one, for trying the harness.
    Echo,
}

#[derive(Debug, Args)]
struct HostArgs {
    /// Which runtime.
    #[arg(value_enum)]
    runtime: host::Runtime,
    /// Where to listen.
    #[arg(long)]
    addr: SocketAddr,
    /// What to serve.
    #[arg(long, value_enum, default_value_t = SessionKind::Cache)]
    session: SessionKind,
    /// Read buffer of each connection, in bytes.
    #[arg(long, default_value_t = 4096)]
    read_buffer: usize,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = peers::load(cli.peers.as_deref()).and_then(|()| run(cli.command));
    done.unwrap_or_else(|error| {
        eprintln!("bench: {error:#}");
        ExitCode::FAILURE
    })
}

fn run(command: Commands) -> Result<ExitCode> {
    match command {
        Commands::List => {
            list();
            Ok(ExitCode::SUCCESS)
        }
        Commands::Peers(args) => cli::peers::run(&args),
        Commands::Run(args) => cli::run::run(&args),
        Commands::Explain(args) => cli::run::explain(&args),
        Commands::Cache(args) => cache(&args),
        Commands::Storage(args) => storage(&args),
        Commands::Broker(args) => broker(&args),
        Commands::Gate(args) => cli::gate::run(&args),
        Commands::Report(args) => cli::report::run(&args),
        Commands::Benchmarks(args) => cli::benchmarks::run(&args),
        Commands::Connections(args) => cli::connections::run(&args),
        Commands::Fanout(args) => cli::fanout::run(&args),
        Commands::Runtimes(args) => cli::runtimes::run(&args),
        Commands::Files(args) => cli::files::run(&args),
        Commands::Cost(args) => cost(&args),
        Commands::Pauses(args) => cli::pauses::run(&args),
        Commands::Load(args) => cli::load::run(&args),
        Commands::Flamegraph(args) => cli::flamegraph::run(&args),
        Commands::Curve(args) => cli::search::curve(&args),
        Commands::FindMax(args) => cli::search::find_max(&args),
        Commands::Sweep(args) => cli::sweep::run(&args),
        Commands::Evict(args) => cli::evict::run(&args),
        Commands::Pathology(args) => cli::pathology::run(&args),
        Commands::Host(args) => serve(&args),
    }
}

fn cost(args: &Cost) -> Result<ExitCode> {
    args.out.prepare()?;
    finish(cost::run(&args.cost)?, &args.out)
}

fn storage(args: &StorageArgs) -> Result<ExitCode> {
    args.out.prepare()?;
    let options = storage::Options {
        rows: args.row.clone(),
        dir: args.dir.clone(),
        rounds: args.pairs,
        trial_ns: (args.seconds * SECOND_NS as f64) as u64,
        port: args.port,
        cpu: args.server_cpu,
    };
    finish(storage::run(&options)?, &args.out)
}

fn broker(args: &BrokerArgs) -> Result<ExitCode> {
    args.out.prepare()?;
    let own_network = !args.host_network && enter_network();
    compare::check_cpus(args.server_cpu, args.client_cpu)?;
    if let Some(seconds) = args.seconds {
        nanoseconds(seconds)?;
    }
    let options = broker::Options {
        rows: args.row.clone(),
        workload: args.workload.clone(),
        sides: args.side.clone(),
        rounds: args.pairs.max(1),
        seconds: args.seconds,
        dir: args.dir.clone(),
        port: args.port,
        server_cpu: args.server_cpu,
        client_cpu: args.client_cpu,
        touch_mb: args.touch_mb,
        old_mb: args.old_mb,
    };
    let report = broker::run(&options, own_network, &mut |line| eprintln!("{line}"))?;
    finish(report, &args.out)
}

/// Prints what rounds of trials found, and writes all of it where that is wanted.
fn finish(mut report: Figured, out: &cli::out::Out) -> Result<ExitCode> {
    report.close();
    print(&report.table());
    out.finish(&report)?;
    Ok(ExitCode::SUCCESS)
}

/// Prints to standard output; a reader that left (`| head`) is no error.
fn print(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}

fn list() {
    let mut text = "rows of `bench cache`:\n".to_owned();
    for (row, about) in ROWS {
        text.push_str(&format!("  {row:<4} {about}\n"));
    }
    text.push_str("scenarios of `bench run`:\n");
    for (name, _) in BUILT_IN {
        let about = Scenario::find(name).map(|scenario| scenario.about).unwrap_or_default();
        text.push_str(&format!("  {name:<18} {about}\n"));
    }
    text.push_str("servers:\n");
    for peer in peers::all() {
        let version = peer.version().unwrap_or_else(|error| format!("not present: {error:#}"));
        text.push_str(&format!("  {:<18} {} [{version}]\n", peer.name, peer.about));
    }
    text.push_str("events of `bench pauses`:\n");
    for pauses::Row { name, about, .. } in pauses::EVENTS {
        text.push_str(&format!("  {name:<18} {about}\n"));
    }
    text.push_str("rows of `bench broker`:\n");
    for (row, about) in broker::ROWS {
        text.push_str(&format!("  {row:<4} {about}\n"));
    }
    text.push_str("workloads of `bench broker`:\n");
    for (name, _) in broker::workload::BUILT_IN {
        let about = broker::workload::Workload::find(name).map(|workload| workload.about);
        text.push_str(&format!("  {name:<18} {}\n", about.unwrap_or_default()));
    }
    text.push_str("brokers:\n");
    for (name, about, version) in broker::sides() {
        let version = version.unwrap_or_else(|error| format!("not present: {error:#}"));
        text.push_str(&format!("  {name:<18} {about} [{version}]\n"));
    }
    print(&text);
}

fn nanoseconds(seconds: f64) -> Result<u64> {
    if !(0.01..=3600.0).contains(&seconds) {
        bail!("a trial takes from 0.01 to 3600 seconds, not {seconds}");
    }
    Ok((seconds * SECOND_NS as f64) as u64)
}

fn cells_of(args: &CacheArgs) -> Result<Vec<compare::Cell>> {
    let (pairs, seconds) = if args.quick { (3, 0.4) } else { (stats::PAIRS, 1.0) };
    let options = Options {
        ours: args.ours.clone(),
        baseline: args.baseline.clone(),
        peers: args.peer.clone(),
        pairs: args.pairs.unwrap_or(pairs).max(1),
        duration_ns: nanoseconds(args.seconds.unwrap_or(seconds))?,
        server_cpu: args.server_cpu,
        client_cpu: args.client_cpu,
        quick: args.quick,
    };
    let rows: Vec<&str> = if args.row.is_empty() {
        ROWS.iter().map(|(row, _)| *row).collect()
    } else {
        args.row.iter().map(String::as_str).collect()
    };
    let mut cells = Vec::new();
    for row in rows {
        cells.extend(cells::of_row(row, &options)?);
    }
    if let Some(only) = &args.only {
        cells.retain(|cell| cell.name.contains(only.as_str()));
    }
    Ok(cells)
}

fn cache(args: &CacheArgs) -> Result<ExitCode> {
    let cells = cells_of(args)?;
    args.out.prepare()?;
    let total: u128 = cells.iter().map(|cell| cell.estimate().as_nanos()).sum();
    eprintln!("{} cells, about {}", cells.len(), report::minutes(total));
    if args.dry_run {
        for cell in &cells {
            let time = report::minutes(cell.estimate().as_nanos());
            print(&format!("{:<3} {} ({} rounds, {time})\n", cell.row, cell.name, cell.rounds));
        }
        return Ok(ExitCode::SUCCESS);
    }
    let own_network = !args.host_network && enter_network();
    compare::check_cpus(args.server_cpu, args.client_cpu)?;
    // A normal task that starves on the core of a real-time one that never sleeps gets 50 ms of every
    // second: a client that spins is better off as a normal task itself.
    if args.fifo && args.transport != Transport::Spin {
        process::make_fifo(std::process::id())?;
    }
    let mut bench = Bench {
        ports: Ports::new(args.port, args.port.saturating_add(999)),
        server_cpu: args.server_cpu,
        client_cpu: args.client_cpu,
        transport: args.transport,
        fifo: args.fifo,
        seed: args.seed,
    };
    let machine = Machine::describe(own_network, args.fifo);
    let mut report = Report::new(machine, args.transport, args.seed);
    cli::run::run_cells(&mut bench, &cells, &mut report, &args.out)?;
    Ok(match () {
        () if args.gate && report.is_void() => Exit::Noisy,
        () if args.gate && report.missed() > 0 => Exit::Regression,
        () => Exit::Ok,
    }
    .into())
}

/// A network of our own, or a line that says why not.
fn enter_network() -> bool {
    match machine::enter_own_network() {
        Ok(()) => true,
        Err(error) => {
            eprintln!(
                "in the host's network, where servers send with its congestion control: {error:#}"
            );
            false
        }
    }
}

fn serve(args: &HostArgs) -> Result<ExitCode> {
    let hosting =
        Hosting { addr: args.addr, read_buffer_bytes: args.read_buffer.clamp(512, 16 << 20) };
    match args.session {
        SessionKind::Cache => host::run(args.runtime, host::cache::Cache::default(), hosting)?,
        SessionKind::Echo => host::run(args.runtime, host::echo::Echo, hosting)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// The table must name real peers; checked here because clap's defaults are text.
#[cfg(test)]
mod tests {
    use super::*;
    use bench_harness::peers;

    #[test]
    fn arguments_do_not_contradict_each_other() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn defaults_name_servers_that_exist() {
        let cli = Cli::parse_from(["bench", "cache", "--row", "3,4", "--quick"]);
        let Commands::Cache(args) = cli.command else { panic!("another command") };
        assert!(peers::find(&args.ours).is_ok());
        assert!(peers::find(&args.baseline).is_ok());
        assert_eq!(cells_of(&args).expect("rows exist").len(), 8);
    }
}
