//! The `chaos` command: injects a fault into this host, shows what it does, and ends it.
//!
//! The kinds of faults and their parameters come from the tables of the library. Next: `cli`, `inject`.

#![forbid(unsafe_code)]

mod cli;
mod import;
mod inject;
mod list;
mod report;
mod run;
mod status;

use std::path::Path;
use std::process::ExitCode;

use bpf::error::{Error, Kind, Result};
use bpf::{disk, registry};
use clap::ArgMatches;

/// Ended as it was meant to.
const OK: u8 = 0;
/// The kernel refused, a file could not be read, or an experiment did not go well.
const FAILED: u8 = 1;
/// What was asked for makes no sense, or is not safe; clap's own code.
const USAGE: u8 = 2;
/// This kernel, or this build, cannot do it.
const UNSUPPORTED: u8 = 3;

fn main() -> ExitCode {
    let done = cli::command().and_then(|command| run(&command.get_matches()));
    match done {
        Ok(true) => ExitCode::from(OK),
        Ok(false) => ExitCode::from(FAILED),
        Err(error) => {
            eprintln!("chaos: {error}");
            ExitCode::from(match error.kind {
                Kind::Failed => FAILED,
                Kind::Usage => USAGE,
                Kind::Unsupported => UNSUPPORTED,
            })
        }
    }
}

/// Whether all went well.
fn run(matches: &ArgMatches) -> Result<bool> {
    match matches.subcommand() {
        Some(("run", matches)) => return run::run(matches),
        Some(("import", matches)) => import::run(matches),
        Some(("report", matches)) => report::run(matches),
        Some(("inject", matches)) => inject::run(matches),
        Some(("doctor", matches)) => list::doctor(matches.get_flag("json")),
        Some(("list", matches)) => list::list(matches.get_flag("json")),
        Some(("describe", matches)) => {
            list::describe(cli::text(matches, "fault"), matches.get_flag("json"))
        }
        Some(("status", matches)) => status::status(matches.get_flag("json")),
        Some(("stop", matches)) => status::stop(matches),
        Some(("disk-server", _)) => disk::serve(),
        Some(("watchdog", matches)) => registry::watch(Path::new(cli::text(matches, "journal"))),
        _ => Err(Error::usage("no command")),
    }
    .map(|()| true)
}
