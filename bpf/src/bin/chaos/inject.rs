//! `chaos inject`: in the foreground until the end, or by a keeper of its own that this command starts and leaves.

use std::io::{BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

use bpf::abi::Counts;
use bpf::error::{During as _, Error, Result};
use bpf::keeper::{Kept, Progress};
use bpf::registry;
use clap::ArgMatches;
use serde_json::{Value, json};

use crate::{cli, status};

/// What a keeper prints when its fault is in force, before its name.
const READY: &str = "ready ";

/// Injects the fault that the command line asks for.
pub(crate) fn run(matches: &ArgMatches) -> Result<()> {
    let Some((name, matches)) = matches.subcommand() else {
        return Err(Error::usage("inject: no fault is named"));
    };
    let is_json = matches.get_flag("json");
    // What was left behind goes first.
    registry::all()?;
    if matches.get_flag("detach") && !matches.get_flag("keeper") {
        return detach(is_json);
    }
    keep(name, matches, is_json)
}

fn event(id: &str, what: &str, counts: Counts, more: &Value) -> Value {
    let mut event = json!({ "event": what, "id": id, "counts": status::of(counts) });
    if let (Some(event), Some(more)) = (event.as_object_mut(), more.as_object()) {
        event.extend(more.clone());
    }
    event
}

fn keep(name: &str, matches: &ArgMatches, is_json: bool) -> Result<()> {
    let is_keeper = matches.get_flag("keeper");
    let spec = cli::spec(name, matches)?;
    let kept = Kept::start(&spec, cli::given(matches, "netns"), matches.get_flag("detach"), true)?;
    let id = kept.id().to_owned();
    if is_keeper {
        bpf::say!("{READY}{id}");
    } else if is_json {
        bpf::say!("{}", event(&id, "started", Counts::default(), &json!({ "spec": spec })));
    } else {
        let mode = if spec.shadow { " (shadow: it does nothing)" } else { "" };
        eprintln!("{id}: in force for {}{mode}", humantime::format_duration(spec.ttl));
    }
    let tell = |progress: Progress| {
        if is_keeper {
        } else if is_json {
            let more =
                json!({ "left_ms": u64::try_from(progress.left.as_millis()).unwrap_or(u64::MAX) });
            bpf::say!("{}", event(&id, "progress", progress.counts, &more));
        } else {
            eprintln!(
                "{id}: {:>4} s left  {}",
                progress.left.as_secs(),
                status::line(progress.counts)
            );
        }
    };
    let end = kept.wait(tell, || false)?;
    let counts = kept.end()?;
    if is_keeper {
    } else if is_json {
        bpf::say!("{}", event(&id, "ended", counts, &json!({ "end": end })));
    } else {
        eprintln!("{id}: ended  {}", status::line(counts));
    }
    Ok(())
}

/// Starts this command again as a keeper, and waits until its fault is in force.
fn detach(is_json: bool) -> Result<()> {
    let doing = || "start a keeper".to_owned();
    let mut child = Command::new(std::env::current_exe().during(doing)?)
        .args(std::env::args_os().skip(1))
        .arg("--keeper")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        // Whoever waits for the end of our own output is not to wait for the keeper's.
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .during(doing)?;
    let stdout =
        child.stdout.take().ok_or_else(|| Error::failed("start a keeper: it has no output"))?;
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line).during(doing)?;
    let Some(id) = line.trim_end().strip_prefix(READY) else {
        let ended = child.wait_with_output().during(doing)?;
        let said = String::from_utf8_lossy(&ended.stderr);
        let said = said.trim().trim_start_matches("chaos: ").to_owned();
        return Err(match ended.status.code() {
            Some(2) => Error::usage(said),
            Some(3) => Error::unsupported(said),
            _ => Error::failed(format!("detach: the keeper ended with {}: {said}", ended.status)),
        });
    };
    if is_json {
        bpf::say!("{}", json!({ "event": "detached", "id": id, "keeper": child.id() }));
    } else {
        bpf::say!("{id}");
    }
    Ok(())
}
