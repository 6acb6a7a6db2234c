//! `bench pathology`: a server that misbehaves in a known way, to try any load generator on.

use std::net::SocketAddr;
use std::process::ExitCode;

use anyhow::{Result, bail};
use bench_harness::pathology::Mode;
use bench_harness::pathology::serve::Running;
use clap::Args;

/// Values, at most.
const VALUE_MAX_BYTES: usize = 1 << 20;

#[derive(Debug, Args)]
pub(crate) struct PathologyArgs {
    /// How it misbehaves.
    #[command(subcommand)]
    mode: Mode,
    /// Where to listen.
    #[arg(long, global = true, default_value = "127.0.0.1:6399")]
    addr: SocketAddr,
    /// Length of values.
    #[arg(long, global = true, default_value_t = 64)]
    value_len: usize,
}

pub(crate) fn run(args: &PathologyArgs) -> Result<ExitCode> {
    if args.value_len > VALUE_MAX_BYTES {
        bail!("a value has at most {VALUE_MAX_BYTES} bytes, not {}", args.value_len);
    }
    let server = Running::start(args.mode, args.addr, args.value_len)?;
    eprintln!("{:?} at {}, process {}", args.mode, server.addr(), std::process::id());
    server.wait();
    Ok(ExitCode::SUCCESS)
}
