//! The `tune` command: compares this host with what services want, changes it, and changes it back.
//!
//! All knowledge is in the library's table. Next: `cli`.

#![forbid(unsafe_code)]

mod cli;
mod gained;
mod measured;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::ArgMatches;
use serde_json::json;
use tuning::check::{Finding, Options};
use tuning::error::{During as _, Error, Result};
use tuning::export::Format;
use tuning::host::Host;
use tuning::journal::{self, Journal};
use tuning::knob::{Knob, Profile};
use tuning::tree::Tree;
use tuning::{apply, check, explain, export, knobs, record, report, revert};

/// A wrong request, or something that could not be read: clap's own 2 means drift here.
const FAILED: u8 = 1;

fn main() -> ExitCode {
    let matches = match cli::command().try_get_matches() {
        Ok(matches) => matches,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { FAILED } else { 0 });
        }
    };
    match run(&matches) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("tune: {error}");
            ExitCode::from(FAILED)
        }
    }
}

/// The exit code.
fn run(matches: &ArgMatches) -> Result<u8> {
    match matches.subcommand() {
        Some(("check", matches)) => run_check(matches),
        Some(("explain", matches)) => run_explain(matches),
        Some(("apply", matches)) => run_apply(matches),
        Some(("revert", matches)) => run_revert(matches),
        Some(("measure", matches)) => measured::run(matches),
        Some(("gains", matches)) => gained::run(matches),
        Some(("export", matches)) => run_export(matches),
        Some(("list", matches)) => run_list(matches),
        Some(("record", matches)) => {
            say(&record::record(tree(matches)?));
            Ok(0)
        }
        Some(("unpack", matches)) => {
            let path = |name: &str| PathBuf::from(cli::text(matches, name));
            record::unpack(&path("file"), &path("directory")).map(|()| 0)
        }
        _ => Err(Error::new("no command")),
    }
}

/// Prints for whoever reads it, who may have stopped reading.
fn say(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}

fn say_json(value: &serde_json::Value) {
    say(&format!("{value:#}\n"));
}

fn tree(matches: &ArgMatches) -> Result<Tree> {
    let root = Path::new(cli::text(matches, "root"));
    if !root.is_dir() {
        return Err(Error::new(format!("--root {}: no such directory", root.display())));
    }
    Ok(Tree::at(root))
}

/// What is to be looked at: without a profile, that of containers in a container.
fn options(matches: &ArgMatches, host: &Host) -> Options {
    let profile = Profile::find(cli::text(matches, "profile")).unwrap_or({
        if host.container.is_some() { Profile::Container } else { Profile::Latency }
    });
    Options { profile, host_too: matches.get_flag("host-too") }
}

fn journal_path(matches: &ArgMatches, tree: &Tree) -> PathBuf {
    match cli::text(matches, "journal") {
        "" => tree.real(journal::DEFAULT),
        path => PathBuf::from(path),
    }
}

/// The findings of all knobs, or of those that were named.
fn findings(
    matches: &ArgMatches,
    tree: &Tree,
    host: &Host,
    options: Options,
) -> Result<Vec<Finding>> {
    let names: Vec<&String> = matches.get_many("knob").into_iter().flatten().collect();
    if names.is_empty() {
        return Ok(check::check(tree, host, options));
    }
    let mut found: Vec<Finding> = Vec::new();
    for name in names {
        let knob = knob(name)?;
        // Named twice, it is one all the same.
        if !found.iter().any(|finding| finding.knob.name == knob.name) {
            found.extend(check::check_knob(tree, host, options, knob));
        }
    }
    Ok(found)
}

fn knob(name: &str) -> Result<&'static Knob> {
    knobs::find(name).ok_or_else(|| {
        let like = knobs::like(name);
        let hint = if like.is_empty() {
            "`tune list` names them".to_owned()
        } else {
            format!("is it {}?", like.join(", "))
        };
        Error::new(format!("knob {name:?}: there is none of that name; {hint}"))
    })
}

fn run_check(matches: &ArgMatches) -> Result<u8> {
    let tree = tree(matches)?;
    let host = Host::read(&tree);
    let options = options(matches, &host);
    let found = findings(matches, &tree, &host, options)?;
    if matches.get_flag("json") {
        say_json(&json!({
            "version": 1,
            "profile": options.profile.name(),
            "host": host.summary(),
            "findings": found,
        }));
    } else {
        say(&report::check(&host, options, &found));
    }
    Ok(check::verdict(&found))
}

fn run_explain(matches: &ArgMatches) -> Result<u8> {
    let names = matches.get_many::<String>("knob").into_iter().flatten();
    if matches.get_flag("json") {
        let rows: Result<Vec<_>> = names.map(|name| Ok(explain::json(knob(name)?))).collect();
        say_json(&serde_json::to_value(rows?).during(|| "print the table".to_owned())?);
        return Ok(0);
    }
    for (at, name) in names.enumerate() {
        let gap = if at == 0 { "" } else { "\n" };
        say(&format!("{gap}{}", explain::explain(knob(name)?)));
    }
    Ok(0)
}

fn run_apply(matches: &ArgMatches) -> Result<u8> {
    let tree = tree(matches)?;
    let host = Host::read(&tree);
    let options = options(matches, &host);
    let changes = if matches.get_flag("dry-run") {
        apply::plan(&findings(matches, &tree, &host, options)?)
    } else {
        // Held before the host is looked at: two at once would take each other's values for the first ones.
        let mut journal = Journal::open(&journal_path(matches, &tree))?;
        apply::apply(&tree, &host, &findings(matches, &tree, &host, options)?, &mut journal)?
    };
    if matches.get_flag("json") {
        say_json(&json!({ "version": 1, "profile": options.profile.name(), "changes": changes }));
    } else {
        say(&report::apply(&host, options, &changes));
    }
    Ok(apply::verdict(&changes))
}

fn run_revert(matches: &ArgMatches) -> Result<u8> {
    let tree = tree(matches)?;
    let path = journal_path(matches, &tree);
    let forget = matches.get_flag("forget");
    let steps = if path.exists() {
        let mut journal = Journal::open(&path)?;
        let boot_id = tree.text("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        revert::revert(&tree, &boot_id, &mut journal, forget)?
    } else {
        Vec::new()
    };
    if matches.get_flag("json") {
        say_json(&json!({ "version": 1, "steps": steps }));
    } else {
        say(&report::revert(&steps));
    }
    Ok(revert::verdict(&steps, forget))
}

fn run_export(matches: &ArgMatches) -> Result<u8> {
    let tree = tree(matches)?;
    let host = Host::read(&tree);
    let options = options(matches, &host);
    let name = cli::text(matches, "format");
    let format = Format::ALL.iter().find(|(known, _)| *known == name);
    let (_, format) = format.ok_or_else(|| Error::new(format!("--format {name}: unknown")))?;
    let found = check::check(&tree, &host, options);
    say(&export::export(*format, options.profile, &found));
    Ok(0)
}

fn run_list(matches: &ArgMatches) -> Result<u8> {
    if matches.get_flag("markdown") {
        say(&explain::document());
    } else if matches.get_flag("json") {
        let rows: Vec<_> = knobs::all().map(explain::json).collect();
        say_json(&serde_json::to_value(rows).during(|| "print the table".to_owned())?);
    } else {
        say(&explain::list());
    }
    Ok(0)
}
