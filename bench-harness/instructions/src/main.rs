//! How many instructions the hot paths take, counted by Callgrind and held to budgets.
//!
//! Times differ from machine to machine and from run to run; the number of instructions of one binary with one input does not, so a
//! change of a hundredth is found, on a busy machine too. What it does not show: misses of caches and branches, and the kernel's
//! side of a system call. Invariants: a path does the same for each operation; what is done once cancels out, since two runs of
//! different length are subtracted. Next: `paths` for what is counted, `budgets.toml` for what it may take.

#![forbid(unsafe_code)]

mod budget;
mod callgrind;
mod paths;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use budget::{Budgets, Verdict};
use clap::{Parser, Subcommand};

/// A path takes more than its budget, or so much less that the budget says nothing any more.
const EXIT_BUDGET: u8 = 3;

/// Counts the instructions of hot paths, and compares them with their budgets.
#[derive(Debug, Parser)]
#[command(name = "instructions", version)]
struct Cli {
    #[command(subcommand)]
    command: Option<Commands>,
    /// Only the paths whose names hold this text.
    #[arg(long, default_value = "")]
    only: String,
    /// The budgets.
    #[arg(long, default_value = budget::FILE)]
    budgets: PathBuf,
}

#[derive(Debug, Subcommand)]
enum Commands {
    /// Does a path's work so many times; what Callgrind is started on.
    Work {
        /// Name of the path.
        path: String,
        /// How many times.
        times: u64,
    },
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match cli.command {
        Some(Commands::Work { path, times }) => {
            paths::find(&path).and_then(|path| (path.work)(times)).map(|()| ExitCode::SUCCESS)
        }
        None => compare(&cli.only, &cli.budgets),
    };
    done.unwrap_or_else(|error| {
        eprintln!("instructions: {error:#}");
        ExitCode::FAILURE
    })
}

fn compare(only: &str, budgets: &Path) -> Result<ExitCode> {
    let budgets = Budgets::read(budgets)?;
    budgets.check(paths::ALL.iter().map(|path| path.name))?;
    let mut all_within = true;
    say("instructions for each operation, beside the budget\n");
    for path in paths::ALL.iter().filter(|path| path.name.contains(only)) {
        let counted = callgrind::count(path).with_context(|| path.name.to_owned())?;
        let budget = budgets.of(path.name)?;
        let verdict = budget.judge(counted);
        all_within &= verdict == Verdict::Within;
        say(&format!(
            "{:<24} {counted:>10.1} {:>10.1}  {verdict:<7} {}\n",
            path.name, budget.instructions, path.about
        ));
    }
    if all_within {
        return Ok(ExitCode::SUCCESS);
    }
    say("a budget is changed in bench-harness/instructions/budgets.toml, with its reason\n");
    Ok(ExitCode::from(EXIT_BUDGET))
}

/// A reader that left is no error.
fn say(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}
