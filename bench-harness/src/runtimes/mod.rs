//! The same work on our engine and on the runtimes a user would pick instead: `bench runtimes`.
//!
//! Two kinds: sessions behind a socket (echo and cache, hosted by `crate::host` in a server process
//! under our load), and loops of files (appends made durable, a file sent to a socket), each trial a
//! fresh process as well. Invariants: sides alternate by round, our engine runs twice in each (how far
//! apart equals come out); whoever is measured is bound to the server's core; a side that fails keeps
//! its row with the reason. Next: `serve`, `append` and `sendfile` for what is done, `child` for trials
//! in fresh processes, `table` for what becomes of them.

mod append;
mod child;
mod sendfile;
mod serve;
pub mod table;

use std::path::PathBuf;

use anyhow::{Context, Result, bail};

pub use child::Trial;
use table::{Cell, Column, Report, Side};

use crate::figures::Figures;
use crate::rounds;

/// What is done on each runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum What {
    /// A minimal session in RESP behind a socket.
    Echo,
    /// The cache's own session behind a socket.
    Cache,
    /// Records of 1 KiB appended to a file, each group durable before the next.
    Append,
    /// A cached file sent to a socket, 64 KiB a request.
    Sendfile,
}

impl What {
    /// All of them, in the order they run.
    pub const ALL: [Self; 4] = [Self::Echo, Self::Cache, Self::Append, Self::Sendfile];
}

/// How to run.
#[derive(Clone, Debug)]
pub struct Options {
    /// What is done.
    pub what: Vec<What>,
    /// Rounds, each with one trial of each side.
    pub rounds: usize,
    /// Length of a trial.
    pub trial_ns: u64,
    /// Open loop with so many requests a second for echo and cache, instead of closed loops.
    pub rate: Option<f64>,
    /// Connections of echo and cache.
    pub connections: usize,
    /// Where files are made; on the disk to be measured.
    pub dir: PathBuf,
    /// First TCP port; a thousand may be used.
    pub port: u16,
    /// Core of who is measured.
    pub server_cpu: usize,
    /// Core of the load, and of who receives.
    pub client_cpu: usize,
    /// Seed of loads and resampling.
    pub seed: u64,
}

/// Called with a line for each trial.
pub type Progress<'a> = dyn FnMut(&str) + 'a;

/// Runs what `options` ask for.
///
/// # Errors
/// The directory cannot be used. A side that cannot run is a row of the report.
pub fn run(options: &Options, own_network: bool, progress: &mut Progress<'_>) -> Result<Report> {
    if options.server_cpu == options.client_cpu {
        bail!("the server and the load are both to run on CPU {}", options.server_cpu);
    }
    let mut report = Report::new(own_network, options.seed);
    if options.what.iter().any(|what| matches!(what, What::Append | What::Sendfile)) {
        report.machine = report.machine.on_data(&options.dir);
    }
    for &what in &options.what {
        match what {
            What::Echo | What::Cache => serve::run(what, options, &mut report, progress),
            What::Append => append::run(options, &mut report, progress)
                .with_context(|| format!("files in {}", options.dir.display()))?,
            What::Sendfile => sendfile::run(options, &mut report, progress)
                .with_context(|| format!("files in {}", options.dir.display()))?,
        }
    }
    for side in report.cells.iter().flat_map(|cell| &cell.sides) {
        report.machine.took_part(side.name, &side.version);
    }
    report.machine.close();
    Ok(report)
}

/// monoio's runtime for files and sockets, as shipped or with SINGLE_ISSUER and DEFER_TASKRUN.
fn monoio_runtime(defer: bool) -> Result<monoio::Runtime<monoio::IoUringDriver>> {
    let mut builder = monoio::RuntimeBuilder::<monoio::IoUringDriver>::new();
    if defer {
        let mut ring = io_uring_of_monoio::IoUring::builder();
        ring.setup_single_issuer().setup_defer_taskrun();
        builder = builder.uring_builder(ring);
    }
    builder.build().context("start monoio")
}

/// One side of a cell: a name, what it runs on, and how a trial of it is made.
struct Contender<'a> {
    name: &'static str,
    version: String,
    trial: Box<dyn FnMut() -> Result<Figures> + 'a>,
}

/// Runs the sides of a cell in alternation, ours first and second.
fn measure(
    what: What,
    name: String,
    columns: &'static [Column],
    mut contenders: Vec<Contender<'_>>,
    options: &Options,
    progress: &mut Progress<'_>,
) -> Cell {
    progress(&name);
    let mut failed: Vec<Option<String>> = vec![None; contenders.len()];
    let rounds = rounds::run(contenders.len(), options.rounds, |index| {
        if failed[index].is_some() {
            return None;
        }
        let contender = &mut contenders[index];
        match (contender.trial)() {
            Ok(figures) => {
                progress(&format!("  {}", table::line(contender.name, columns, &figures)));
                Some(figures)
            }
            Err(error) => {
                progress(&format!("  {}: {error:#}", contender.name));
                failed[index] = Some(format!("{error:#}"));
                None
            }
        }
    });
    let mut sides: Vec<Side> = contenders
        .iter()
        .zip(failed)
        .map(|(contender, failed)| Side::new(contender.name, &contender.version, failed))
        .collect();
    for round in rounds.kept {
        for (side, figures) in sides.iter_mut().zip(round) {
            side.trials.push(figures);
        }
    }
    table::compare(&mut sides, columns, options.seed);
    Cell {
        what,
        name,
        columns,
        sides,
        repeated: rounds.repeated,
        disturbed: rounds.disturbed,
        noise: rounds.noise,
    }
}
