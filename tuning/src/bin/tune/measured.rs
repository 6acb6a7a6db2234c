//! `tune measure`: one knob, and a command of the user. Next: `tuning::measure`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::ArgMatches;
use regex::Regex;
use signal_hook::consts::{SIGINT, SIGTERM};
use tuning::check::{self, Options};
use tuning::error::{During as _, Error, Result};
use tuning::figure::{Finder, Source};
use tuning::host::Host;
use tuning::journal::Journal;
use tuning::knob::{Knob, Profile};
use tuning::measure::{Task, measure};

use crate::{cli, journal_path, knob, say, say_json, tree};

/// The exit code.
pub(crate) fn run(matches: &ArgMatches) -> Result<u8> {
    let tree = tree(matches)?;
    let host = Host::read(&tree);
    let knob = knob(cli::text(matches, "knob"))?;
    let options = options(matches, &host, knob)?;
    let is_over = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, is_over.clone())
            .during(|| "catch signals".to_owned())?;
    }
    let command = matches.get_many("command").into_iter().flatten().cloned().collect();
    let json = matches.get_flag("json");
    let task = Task {
        source: Source::Command(command, finder(matches)?),
        blocks: usize::try_from(*matches.get_one::<u32>("blocks").unwrap_or(&10)).unwrap_or(10),
        value: matches.get_one("value").cloned(),
        same: matches.get_flag("same"),
        keep: matches.get_flag("keep"),
        is_over: &|| is_over.load(Ordering::SeqCst),
        tell: &|line| eprintln!("{line}"),
    };
    let mut journal = Journal::open(&journal_path(matches, &tree))?;
    let findings = check::check_knob(&tree, &host, options, knob);
    let outcome = measure(&tree, &host, &findings, &mut journal, &task)?;
    if json {
        say_json(&serde_json::to_value(&outcome).during(|| "print the result".to_owned())?);
    } else {
        say(&outcome.shown());
    }
    Ok(0)
}

/// How the figure is found.
fn finder(matches: &ArgMatches) -> Result<Finder> {
    if let Some(field) = matches.get_one::<String>("field") {
        return Ok(Finder::Field(field.clone()));
    }
    let Some(text) = matches.get_one::<String>("regex") else { return Ok(Finder::LastLine) };
    let regex = Regex::new(text).map_err(|error| Error::new(format!("--regex: {error}")))?;
    if regex.captures_len() < 2 {
        return Err(Error::new(
            "--regex: it has no group: put the number in brackets, such as ([0-9.]+)",
        ));
    }
    Ok(Finder::Regex(regex))
}

/// The profile that was given, or the first that wants the knob.
fn options(matches: &ArgMatches, host: &Host, knob: &Knob) -> Result<Options> {
    let given = Profile::find(cli::text(matches, "profile"));
    let wants = |profile: &Profile| knob.desire(*profile).is_some();
    let profile = given.or_else(|| Profile::ALL.iter().copied().find(wants));
    let profile = profile.ok_or_else(|| {
        Error::new(format!("measure {0}: no profile wants it; see tune explain {0}", knob.name))
    })?;
    let host_too = matches.get_flag("host-too") || host.container.is_none();
    Ok(Options { profile, host_too })
}
