//! `bench flamegraph`: a load as of `bench load`, and where the server spends its time meanwhile.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Result, ensure};
use bench_harness::flamegraph::{CallGraph, Recorder, Recording};
use bench_harness::report::flame;
use clap::Args;

use super::load::{self, LoadArgs};
use super::out;
use crate::print;

/// Functions that are printed.
const HOTTEST: usize = 10;

/// Arguments of `bench flamegraph`.
#[derive(Debug, Args)]
pub(crate) struct FlamegraphArgs {
    /// Where the graph goes; collapsed stacks go beside it, with the end `.folded`.
    #[arg(long, value_name = "FILE.svg", default_value = "flamegraph.svg")]
    svg: PathBuf,
    /// Samples a second and thread.
    #[arg(long, default_value_t = 997)]
    frequency: u32,
    /// How stacks are walked.
    #[arg(long, value_enum, default_value_t = CallGraph::Fp)]
    call_graph: CallGraph,
    /// What is sampled, as perf names it [default: cycles where the machine counts them, else cpu-clock].
    #[arg(long)]
    event: Option<String>,
    #[command(flatten)]
    load: LoadArgs,
}

pub(crate) fn run(args: &FlamegraphArgs) -> Result<ExitCode> {
    ensure!(
        args.svg.extension().is_some_and(|end| end == "svg"),
        "--svg {}: the graph's name ends in .svg",
        args.svg.display()
    );
    // Found out now rather than after the load.
    out::write(&args.svg, "")?;
    let recording = Recording {
        frequency: args.frequency,
        call_graph: args.call_graph,
        event: args.event.clone(),
    };
    let done = record(args, &recording);
    if done.is_err() {
        // It is empty.
        let _ = std::fs::remove_file(&args.svg);
    }
    done
}

fn record(args: &FlamegraphArgs, recording: &Recording) -> Result<ExitCode> {
    let (trial, recorder) = load::run_with(&args.load, |pid| Recorder::start(pid, recording))?;
    let event = recorder.event.clone();
    let folded = recorder.finish()?;
    let title = format!("bench flamegraph: {}", args.load.describe());
    let note = format!(
        "{event} at {} Hz, warm-up included; {:.0} replies/s with perf at work, which is not a figure to compare",
        args.frequency, trial.rate
    );
    out::write(&args.svg, &flame::draw(&folded, &title, &note))?;
    let stacks = folded_path(&args.svg);
    out::write(&stacks, &folded.text())?;
    let total = folded.samples();
    let mut text = format!("{total} samples, of which the function itself:\n");
    for (name, samples) in folded.hottest(HOTTEST) {
        text.push_str(&format!("  {:6.2} %  {name}\n", 100.0 * samples as f64 / total as f64));
    }
    print(&text);
    eprintln!("flame graph: {}, stacks: {}", args.svg.display(), stacks.display());
    Ok(ExitCode::SUCCESS)
}

fn folded_path(svg: &Path) -> PathBuf {
    svg.with_extension("folded")
}
