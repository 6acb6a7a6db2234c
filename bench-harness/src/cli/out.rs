//! Where a run's report goes, beside the terminal.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use bench_harness::report::json::Saved;
use bench_harness::report::summary::Summary;
use bench_harness::report::{csv, hlog, html};
use clap::Args;

/// Where a run's report goes.
#[derive(Debug, Default, Args)]
pub(crate) struct Out {
    /// Write all of it here, as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write report.json, report.html, samples.csv, latency.hlog and summary.json into this folder.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

impl Out {
    /// Tries to write: found out now rather than after half an hour.
    ///
    /// # Errors
    /// It cannot.
    pub(crate) fn prepare(&self) -> Result<()> {
        if let Some(dir) = &self.out {
            fs::create_dir_all(dir).with_context(|| format!("make {}", dir.display()))?;
        }
        for path in self.json_paths() {
            write(&path, "{}\n")?;
        }
        Ok(())
    }

    fn json_paths(&self) -> Vec<PathBuf> {
        let in_dir = self.out.iter().map(|dir| dir.join("report.json"));
        self.json.iter().cloned().chain(in_dir).collect()
    }

    /// Writes what there is so far, as JSON.
    ///
    /// # Errors
    /// It cannot be written.
    pub(crate) fn keep(&self, saved: impl Into<Saved>) -> Result<()> {
        let paths = self.json_paths();
        if paths.is_empty() {
            return Ok(());
        }
        let json = saved.into().json()?;
        paths.iter().try_for_each(|path| write(path, &json))
    }

    /// Writes all forms of a report that is complete.
    ///
    /// # Errors
    /// One cannot be written.
    pub(crate) fn finish(&self, saved: impl Into<Saved>) -> Result<()> {
        let saved = saved.into();
        let json = saved.json()?;
        self.json_paths().iter().try_for_each(|path| write(path, &json))?;
        let Some(dir) = &self.out else { return Ok(()) };
        write(&dir.join("report.html"), &html::page(&saved))?;
        write(&dir.join("samples.csv"), &csv::table(&saved))?;
        write(&dir.join("summary.json"), &summary(&saved)?)?;
        if let Saved::Requests(report) = &saved {
            write(&dir.join("latency.hlog"), &hlog::log(report))?;
        }
        eprintln!("report: {}", dir.join("report.html").display());
        Ok(())
    }
}

/// A summary as JSON.
pub(crate) fn summary(saved: &Saved) -> Result<String> {
    let json = serde_json::to_string_pretty(&Summary::from(saved)).context("encode the summary")?;
    Ok(format!("{json}\n"))
}

/// Writes `text` to `path`.
pub(crate) fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("write {}", path.display()))
}
