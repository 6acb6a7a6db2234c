//! `bench curve` and `bench find-max`: many trials at chosen rates on one server.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use bench_harness::curve::{self, POINTS_MAX, Rates, Runner};
use bench_harness::find_max::{self as search, Goal, Search};
use bench_harness::load::trial::Transport;
use bench_harness::machine::Machine;
use clap::Args;

use super::load::{LoadOn, Over};

#[derive(Debug, Args)]
pub(crate) struct Repeated {
    #[command(flatten)]
    on: LoadOn,
    #[command(flatten)]
    over: Over,
    /// Trials of each point, of which the medians count.
    #[arg(long, default_value_t = 3)]
    repeats: usize,
    /// The first rate tried.
    #[arg(long, default_value_t = 1_000.0)]
    from: f64,
    /// Write every point here, as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct CurveArgs {
    #[command(flatten)]
    each: Repeated,
    /// Rates to offer, instead of finding out where the server saturates.
    #[arg(long, value_delimiter = ',')]
    rates: Vec<f64>,
    /// Points up to saturation.
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u32).range(2..=POINTS_MAX as i64))]
    points: u32,
}

#[derive(Debug, Args)]
pub(crate) struct FindMaxArgs {
    /// What must hold: p50, p90, p99, p99.9 or max, below a time, as in p99<1ms.
    goal: Goal,
    #[command(flatten)]
    each: Repeated,
    /// How near the highest rate that holds and the lowest that does not must come.
    #[arg(long, default_value_t = 0.02)]
    precision: f64,
}

pub(crate) fn curve(args: &CurveArgs) -> Result<ExitCode> {
    let rates = if args.rates.is_empty() {
        Rates::Automatic { from: args.each.from, points: args.points as usize }
    } else {
        Rates::Listed(args.rates.clone())
    };
    let machine = Machine::describe(false, false);
    let curve = run(&args.each, |runner| curve::run(runner, &rates))?;
    finish(&curve, &curve.text(), machine, args.each.json.as_deref())
}

pub(crate) fn find_max(args: &FindMaxArgs) -> Result<ExitCode> {
    let wanted = Search { goal: args.goal, from: args.each.from, precision: args.precision };
    let machine = Machine::describe(false, false);
    let found = run(&args.each, |runner| search::find_max(runner, &wanted))?;
    finish(&found, &found.text(), machine, args.each.json.as_deref())
}

/// Runs something made of trials, and says on standard error how far it is.
fn run<T>(each: &Repeated, make: impl FnOnce(&mut Runner<'_>) -> Result<T>) -> Result<T> {
    // A client that sleeps lags by its wake-ups, which at low rates is much of the latency.
    prepare_json(each.json.as_deref())?;
    let connections = each.over.connections;
    let prepared = each.on.prepare(connections, Transport::Spin)?;
    let mut run_at = |rate: f64, seed: u64| prepared.run(each.over.open(rate), connections, seed);
    let mut progress = |line: &str| eprintln!("{line}");
    make(&mut Runner::new(&mut run_at, each.repeats, each.on.seed, &mut progress))
}

/// Tries to write: found out now rather than after many trials.
pub(crate) fn prepare_json(json: Option<&Path>) -> Result<()> {
    json.map_or(Ok(()), |path| super::out::write(path, "{}\n"))
}

/// What was found, and on which machine.
#[derive(serde::Serialize)]
struct Saved<'a, T> {
    #[serde(flatten)]
    found: &'a T,
    machine: Machine,
}

pub(crate) fn finish<T: serde::Serialize>(
    found: &T,
    text: &str,
    mut machine: Machine,
    json: Option<&Path>,
) -> Result<ExitCode> {
    machine.close();
    crate::print(text);
    crate::print(&machine.fingerprint_lines());
    if let Some(path) = json {
        let json =
            serde_json::to_string_pretty(&Saved { found, machine }).context("encode the points")?;
        super::out::write(path, &(json + "\n"))?;
    }
    Ok(ExitCode::SUCCESS)
}
