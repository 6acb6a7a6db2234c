//! `bench files`: its arguments.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use bench_harness::clock::{MILLISECOND_NS, SECOND_NS};
use bench_harness::files::pace::Order;
use bench_harness::files::report::{self, Report};
use bench_harness::files::{self, Options, What};
use clap::Args;

use crate::{nanoseconds, print};

/// Arguments of `bench files`.
#[derive(Debug, Args)]
pub(crate) struct FilesArgs {
    /// A directory for the file that is made, or a file or block device (see --overwrite).
    #[arg(long, default_value = ".")]
    path: PathBuf,
    /// The file or device exists, and all it holds may go.
    #[arg(long)]
    overwrite: bool,
    /// What is done.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [What::Read])]
    op: Vec<What>,
    /// Everything, on a small file for a moment: to see that it works.
    #[arg(long)]
    quick: bool,
    /// Size of the file in MiB.
    #[arg(long, default_value_t = 1024)]
    size_mib: u64,
    /// Bytes of a block.
    #[arg(long, default_value_t = 4096)]
    block: usize,
    /// Operations in flight; records of a group commit; connections.
    #[arg(long, default_value_t = 32)]
    depth: usize,
    /// In which order blocks are used.
    #[arg(long, value_enum, default_value_t = Order::Random)]
    order: Order,
    /// Bypass the page cache (O_DIRECT).
    #[arg(long)]
    direct: bool,
    /// Reads look into the page cache before they go to the ring, as the engine's files do.
    #[arg(long)]
    cached_first: bool,
    /// Share of `mix` that is read.
    #[arg(long, default_value_t = 0.7)]
    read_share: f64,
    /// Open loop with this many blocks a second, instead of a closed loop.
    #[arg(long)]
    rate: Option<f64>,
    /// Evenly spaced arrivals instead of Poisson.
    #[arg(long)]
    constant: bool,
    /// Recorded seconds of each.
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Core of the ring.
    #[arg(long, default_value_t = 0)]
    cpu: usize,
    /// Core of those who receive.
    #[arg(long, default_value_t = 1)]
    client_cpu: usize,
    /// Seed.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Write what was found here, as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
}

impl FilesArgs {
    fn options(&self) -> Result<(Vec<What>, Options)> {
        let (mut ops, mut size_mib) = (self.op.clone(), self.size_mib);
        let (mut warmup_ns, mut duration_ns) = (SECOND_NS / 5, nanoseconds(self.seconds)?);
        if self.quick {
            (ops, size_mib) = (What::ALL.to_vec(), size_mib.min(16));
            (warmup_ns, duration_ns) = (30 * MILLISECOND_NS, 250 * MILLISECOND_NS);
        }
        let options = Options {
            path: self.path.clone(),
            overwrite: self.overwrite,
            size_bytes: size_mib.saturating_mul(1 << 20),
            block_bytes: self.block,
            depth: self.depth,
            order: self.order,
            direct: self.direct,
            cached_first: self.cached_first,
            read_share: self.read_share,
            rate: self.rate,
            constant: self.constant,
            warmup_ns,
            duration_ns,
            cpu: self.cpu,
            client_cpu: self.client_cpu,
            seed: self.seed,
        };
        Ok((ops, options))
    }
}

pub(crate) fn run(args: &FilesArgs) -> Result<ExitCode> {
    let (ops, options) = args.options()?;
    let mut report = Report::new(&options);
    for op in ops {
        let mut progress = |second| eprintln!("{}", report::line(op, options.block_bytes, second));
        let measured = files::run(op, &options, &mut progress)
            .with_context(|| format!("{op:?} in {}", options.path.display()))?;
        report.measured.push(measured);
    }
    report.machine.close();
    print(&report.text());
    if let Some(path) = &args.json {
        let json = serde_json::to_string_pretty(&report).context("encode the report")?;
        std::fs::write(path, json).with_context(|| format!("write {}", path.display()))?;
    }
    Ok(if report.wrong() > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
