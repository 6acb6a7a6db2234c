//! `bench benchmarks`: the measured tables of BENCHMARKS.md, made from saved results.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use bench_harness::report::document;

use super::out;

/// Which document, from which results.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The folder of summaries (`bench report FILE.json --summary`).
    #[arg(long, value_name = "DIR", default_value = "bench-harness/results")]
    results: PathBuf,
    /// The document whose blocks are made anew.
    #[arg(long, value_name = "FILE", default_value = "BENCHMARKS.md")]
    document: PathBuf,
    /// Write nothing; fail (exit 3) when the document says something else than the results.
    #[arg(long)]
    check: bool,
}

/// Does it.
///
/// # Errors
/// Results or document cannot be read, or do not fit each other.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let results = document::results(&args.results)?;
    let path = &args.document;
    let have = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    let want = document::regenerate(&have, &results).with_context(|| path.display().to_string())?;
    let Some(difference) = document::difference(&have, &want) else { return Ok(ExitCode::SUCCESS) };
    if args.check {
        eprintln!("{}: {difference}\n`bench benchmarks` makes it anew", path.display());
        return Ok(ExitCode::from(3));
    }
    out::write(path, &want)?;
    Ok(ExitCode::SUCCESS)
}
