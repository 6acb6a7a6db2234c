//! `bench run` and `bench explain`: scenarios from files, on servers of the registry.

use std::fmt::Write as _;
use std::process::ExitCode;

use anyhow::Result;
use bench_harness::compare::{self, Bench, Cell};
use bench_harness::exit::Exit;
use bench_harness::load::trial::Transport;
use bench_harness::load::{Arrivals, Workload};
use bench_harness::machine::Machine;
use bench_harness::pauses;
use bench_harness::peers::Ports;
use bench_harness::report::{self, Report};
use bench_harness::scenario::file::Scenario;
use bench_harness::scenario::measure::Measure;
use clap::Args;

use super::out::Out;

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// A scenario of `bench list`, or a TOML file like those.
    scenario: String,
    /// Servers by name, instead of the scenario's; the first is what the others are compared with.
    #[arg(long, value_delimiter = ',')]
    side: Vec<String>,
    /// Only cases whose name holds this text.
    #[arg(long)]
    only: Option<String>,
    /// Rounds, each with one trial of every server.
    #[arg(long)]
    pairs: Option<usize>,
    /// Recorded seconds of a trial.
    #[arg(long)]
    seconds: Option<f64>,
    /// A few short rounds: to see that everything works.
    #[arg(long, conflicts_with_all = ["pairs", "seconds"])]
    quick: bool,
    /// Core of the servers.
    #[arg(long, default_value_t = 0)]
    server_cpu: usize,
    /// Core of the load.
    #[arg(long, default_value_t = 1)]
    client_cpu: usize,
    /// What moves the load's bytes.
    #[arg(long, value_enum, default_value_t = Transport::Ring)]
    transport: Transport,
    /// Stay in the network namespace of the host.
    #[arg(long)]
    host_network: bool,
    /// First port for servers.
    #[arg(long, default_value_t = 27_000)]
    port: u16,
    /// Seed of loads and resampling.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[command(flatten)]
    out: Out,
    /// Fail when equal servers came out apart (exit 4).
    #[arg(long)]
    gate: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    /// A scenario of `bench list`, or a TOML file like those; `pauses` for `bench pauses`.
    scenario: String,
}

fn cells(args: &RunArgs) -> Result<Vec<Cell>> {
    let mut scenario = Scenario::find(&args.scenario)?;
    if !args.side.is_empty() {
        scenario.sides.clone_from(&args.side);
    }
    if args.quick {
        (scenario.pairs, scenario.seconds) = (3, 0.4);
    }
    scenario.pairs = args.pairs.unwrap_or(scenario.pairs).clamp(1, 1000);
    scenario.seconds = args.seconds.unwrap_or(scenario.seconds);
    crate::nanoseconds(scenario.seconds)?;
    let name = scenario_name(&args.scenario);
    let mut cells = scenario.cells(name, args.server_cpu)?;
    if let Some(only) = &args.only {
        cells.retain(|cell| cell.name.contains(only.as_str()));
    }
    Ok(cells)
}

/// A file's name without its folder and end.
fn scenario_name(text: &str) -> &str {
    let file = text.rsplit('/').next().unwrap_or(text);
    file.strip_suffix(".toml").unwrap_or(file)
}

/// Runs the scenario.
///
/// # Errors
/// It is not valid, or results cannot be written.
pub(crate) fn run(args: &RunArgs) -> Result<ExitCode> {
    let cells = cells(args)?;
    args.out.prepare()?;
    let total: u128 = cells.iter().map(|cell| cell.estimate().as_nanos()).sum();
    eprintln!("{} cases, about {}", cells.len(), report::minutes(total));
    let own_network = !args.host_network && crate::enter_network();
    compare::check_cpus(args.server_cpu, args.client_cpu)?;
    let mut bench = Bench {
        ports: Ports::new(args.port, args.port.saturating_add(999)),
        server_cpu: args.server_cpu,
        client_cpu: args.client_cpu,
        transport: args.transport,
        fifo: false,
        seed: args.seed,
    };
    let machine = Machine::describe(own_network, false);
    let mut report = Report::new(machine, args.transport, args.seed);
    run_cells(&mut bench, &cells, &mut report, &args.out)?;
    Ok(if args.gate && report.is_void() { Exit::Noisy } else { Exit::Ok }.into())
}

/// Runs cells one after the other, keeps what there is after each, and prints the whole.
///
/// # Errors
/// Results cannot be written.
pub(crate) fn run_cells(
    bench: &mut Bench,
    cells: &[Cell],
    report: &mut Report,
    out: &Out,
) -> Result<()> {
    for (index, cell) in cells.iter().enumerate() {
        eprintln!("[{}/{}] {}: {}", index + 1, cells.len(), cell.row, cell.name);
        report.push(bench.run(cell, &mut |line| eprintln!("  {line}")));
        out.keep(&*report)?;
    }
    report.machine.close();
    crate::print(&report.text());
    out.finish(&*report)
}

/// Says what a scenario does, without running it.
///
/// # Errors
/// It is not valid.
pub(crate) fn explain(args: &ExplainArgs) -> Result<ExitCode> {
    if args.scenario == "pauses" {
        crate::print(&pauses::explain());
        return Ok(ExitCode::SUCCESS);
    }
    let scenario = Scenario::find(&args.scenario)?;
    let cells = scenario.cells(scenario_name(&args.scenario), 0)?;
    let total: u128 = cells.iter().map(|cell| cell.estimate().as_nanos()).sum();
    let mut text = format!("{}: {}\n\n", args.scenario, scenario.about);
    // Writing to a string cannot fail.
    let _ = writeln!(
        text,
        "{} rounds of {} s for each case, about {} in all. A round runs every server once, each a fresh process on a core \
         of its own, in alternating order; the first also runs twice, and what those two differ by means nothing.\n",
        scenario.pairs,
        scenario.seconds,
        report::minutes(total)
    );
    for side in cells.first().into_iter().flat_map(|cell| &cell.sides) {
        let version = side.peer.version().unwrap_or_else(|error| format!("not present: {error:#}"));
        let _ = writeln!(text, "  {:<18} {} [{version}]", side.label, side.peer.about);
    }
    text.push('\n');
    for cell in &cells {
        if let Measure::Load(workload) = &cell.measure {
            let protocol = cell.sides.first().and_then(|side| side.protocol);
            let _ = writeln!(
                text,
                "  {}: {}",
                cell.name,
                describe(workload, protocol.map(|p| p.name()))
            );
        }
    }
    crate::print(&text);
    Ok(ExitCode::SUCCESS)
}

fn describe(workload: &Workload, protocol: Option<&str>) -> String {
    let arrivals = match &workload.arrivals {
        Arrivals::Closed { pipeline } => {
            format!(
                "closed loop, {pipeline} in flight on each: latency counts from when a pipeline was due"
            )
        }
        Arrivals::Open { rate, poisson } => format!(
            "open loop, {rate} a second{}: latency counts from when a request was meant to leave",
            if *poisson { ", Poisson" } else { ", evenly spaced" }
        ),
        _ => "arrivals of their own".to_owned(),
    };
    let writes = if workload.set_share > 0.0 {
        format!(
            ", {:.0} % of them writes of {} B",
            workload.set_share * 100.0,
            workload.value_len_bytes
        )
    } else {
        String::new()
    };
    let pairs = if workload.rmw_share > 0.0 {
        format!(
            ", {:.0} % of them a read whose key of {} B is written next",
            workload.rmw_share * 100.0,
            workload.value_len_bytes
        )
    } else {
        String::new()
    };
    let new = if workload.inserts { ", writes of new ones" } else { "" };
    format!(
        "{} over {} connections{writes}{pairs}; {} keys, {}{new}; {arrivals}",
        protocol.unwrap_or("the server's protocol"),
        workload.connections,
        workload.keys,
        workload.key_dist
    )
}
