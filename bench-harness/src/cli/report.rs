//! `bench report`: a saved report in its other forms.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, bail};
use bench_harness::report::json::{self, Saved};
use bench_harness::report::{csv, hlog, html};

use super::out;

/// What is to be made of which report.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A report that `--json` or `--out` of another command wrote.
    file: PathBuf,
    /// Write one page without script or anything loaded, for a browser.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Write every sample as a row of comma-separated values.
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
    /// Write the latencies of every trial as a log of HdrHistogram.
    #[arg(long, value_name = "FILE")]
    hlog: Option<PathBuf>,
    /// Write what is kept in bench-harness/results.
    #[arg(long, value_name = "FILE")]
    summary: Option<PathBuf>,
    /// Print the table; the default when nothing is to be written.
    #[arg(long)]
    text: bool,
}

/// Does it.
///
/// # Errors
/// There is no report that can be read, or a form of it cannot be made or written.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let saved = json::read(&args.file)?;
    if let Some(path) = &args.html {
        out::write(path, &html::page(&saved))?;
    }
    if let Some(path) = &args.csv {
        out::write(path, &csv::table(&saved))?;
    }
    if let Some(path) = &args.summary {
        out::write(path, &out::summary(&saved)?)?;
    }
    if let Some(path) = &args.hlog {
        let Saved::Requests(report) = &saved else {
            bail!("{}: only reports of `bench cache` have histograms", args.file.display());
        };
        out::write(path, &hlog::log(report))?;
    }
    let quiet = args.html.is_some() || args.csv.is_some() || args.hlog.is_some();
    if args.text || !(quiet || args.summary.is_some()) {
        crate::print(&saved.text());
    }
    Ok(ExitCode::SUCCESS)
}
