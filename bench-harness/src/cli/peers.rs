//! `bench peers`: the servers of the registry, and whether they work here.

use std::fmt::Write as _;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use bench_harness::compare::PORTS_EACH;
use bench_harness::peers::check::{self, Tried};
use bench_harness::peers::{self, Peer, Place, Ports};
use clap::{Args, Subcommand};

#[derive(Debug, Args)]
pub(crate) struct PeersArgs {
    /// Print JSON.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Starts each server that is here, asks it for its protocols, and stops it.
    Check {
        /// Only these, by name.
        names: Vec<String>,
        /// Core of the servers.
        #[arg(long, default_value_t = 0)]
        server_cpu: usize,
        /// Where the questions are asked from.
        #[arg(long, default_value_t = 1)]
        client_cpu: usize,
        /// First port for servers.
        #[arg(long, default_value_t = 26_000)]
        port: u16,
    },
}

/// Lists them, or tries them.
///
/// # Errors
/// A name is unknown, or a server that is here does not work.
pub(crate) fn run(args: &PeersArgs) -> Result<ExitCode> {
    let Some(Command::Check { names, server_cpu, client_cpu, port }) = &args.command else {
        return list(args.json);
    };
    let chosen: Vec<&Peer> = if names.is_empty() {
        peers::all().iter().collect()
    } else {
        names.iter().map(|name| peers::find(name)).collect::<Result<_>>()?
    };
    let mut ports = Ports::new(*port, port.saturating_add(999));
    let mut all = Vec::new();
    for peer in chosen {
        let port = ports.take(PORTS_EACH);
        let place = Place {
            port,
            admin: port + PORTS_EACH - 1,
            shards: 1,
            cpus: vec![*server_cpu],
            read_buffer: 4096,
            client_cpu: *client_cpu,
            fifo: false,
        };
        let tried = check::run(peer, &place);
        if !args.json {
            crate::print(&line(&tried));
        }
        all.push(tried);
    }
    if args.json {
        let json = serde_json::to_string_pretty(&all).context("encode what was tried")?;
        crate::print(&format!("{json}\n"));
    }
    let failed = all.iter().filter(|tried| tried.failed.is_some()).count();
    if failed > 0 {
        bail!("{failed} of {} servers do not work here", all.len());
    }
    Ok(ExitCode::SUCCESS)
}

fn line(tried: &Tried) -> String {
    let mut text = format!("{:<18} ", tried.name);
    // Writing to a string cannot fail.
    let _ = match (&tried.missing, &tried.failed) {
        (Some(why), _) => write!(text, "not present: {why}"),
        (_, Some(why)) => write!(text, "FAILED: {why}"),
        _ => {
            let answers: Vec<String> =
                tried.answers.iter().map(|(name, answer)| format!("{name}: {answer}")).collect();
            let version = tried.version.as_deref().unwrap_or_default();
            let build = tried.build.as_ref().map(|build| format!(" ({build})")).unwrap_or_default();
            write!(text, "{}; {version}{build}", answers.join(", "))
        }
    };
    text.push('\n');
    text
}

fn list(json: bool) -> Result<ExitCode> {
    let mut text = String::new();
    let mut all = Vec::new();
    for peer in peers::all() {
        let (version, missing) = match peer.version() {
            Ok(version) => (Some(version), None),
            Err(error) => (None, Some(format!("{error:#}"))),
        };
        let _ = writeln!(
            text,
            "{:<18} {}; speaks {} [{}]",
            peer.name,
            peer.about,
            peer.protocols.join(", "),
            version.clone().unwrap_or_else(|| {
                format!("not present: {}", missing.as_deref().unwrap_or_default())
            })
        );
        if let Some(notes) = &peer.notes {
            let _ = writeln!(text, "{:<18} {notes}", "");
        }
        all.push(serde_json::json!({
            "name": peer.name, "about": peer.about, "protocols": peer.protocols,
            "version": version, "missing": missing, "notes": peer.notes,
        }));
    }
    if json {
        text = serde_json::to_string_pretty(&all).context("encode the list")? + "\n";
    }
    crate::print(&text);
    Ok(ExitCode::SUCCESS)
}
