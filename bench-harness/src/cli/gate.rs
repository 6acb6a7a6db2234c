//! `bench gate`: whether one saved report is worse than another.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use bench_harness::exit::{self, Exit};
use bench_harness::gate::{self, Budget, Options, Session};
use clap::Args;

#[derive(Debug, Args)]
#[command(after_help = exit::help())]
pub(crate) struct GateArgs {
    /// The report to compare with, as `--json` or `--out` of `bench run` or `bench cache` wrote it.
    base: PathBuf,
    /// The report of what is to be judged.
    new: PathBuf,
    /// What a figure may become worse by, in per cent; then only the figures named are judged. Without any:
    /// cpu_ns_per_op=5, syscalls_per_op=5, rate=5, p50_ns=10, p99_ns=25.
    #[arg(long, value_name = "FIGURE=PERCENT")]
    budget: Vec<Budget>,
    /// Compare files of different machines or scenarios all the same.
    #[arg(long)]
    force: bool,
    /// Write what was found here, as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Compares them.
///
/// # Errors
/// A file cannot be read, or the outcome not be written.
pub(crate) fn run(args: &GateArgs) -> Result<ExitCode> {
    let read = |path: &Path| -> Result<Result<Session>> {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
        Ok(Session::parse(&text).with_context(|| path.display().to_string()))
    };
    let (base, new) = match (read(&args.base)?, read(&args.new)?) {
        (Ok(base), Ok(new)) => (base, new),
        (Err(error), _) | (_, Err(error)) => {
            eprintln!("bench: not comparable: {error:#}");
            return Ok(Exit::NotComparable.into());
        }
    };
    let options = Options { budgets: args.budget.clone(), force: args.force };
    let outcome = gate::compare(&base, &new, &options);
    if let Some(path) = &args.json {
        let json = serde_json::to_string_pretty(&outcome).context("encode the outcome")?;
        super::out::write(path, &json)?;
    }
    crate::print(&outcome.text());
    if outcome.exit == Exit::NotComparable && !outcome.obstacles.is_empty() && !args.force {
        eprintln!("bench: no ratio is given; --force gives one all the same, if there are samples");
    }
    Ok(outcome.exit.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_help_names_the_usual_budgets() {
        use clap::Args as _;
        let help =
            GateArgs::augment_args(clap::Command::new("gate")).render_long_help().to_string();
        let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
        for (figure, percent) in gate::BUDGETS {
            assert!(help.contains(&format!("{figure}={percent}")), "{figure} in {help}");
        }
    }
}
