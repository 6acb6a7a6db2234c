//! `chaos run`: an experiment from its file to its journal.
//!
//! Exit codes: 0 it was completed and the hypothesis held, 1 otherwise, 2 it is no experiment, 3 it cannot be run here.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use bpf::error::{During as _, Error, Result};
use bpf::experiment::run::{self, Options};
use bpf::experiment::toolkit::Experiment;
use bpf::experiment::variables::typed;
use bpf::experiment::write_whole;
use bpf::registry;
use bpf::spec::TTL_MAX;
use clap::{Arg, ArgAction, ArgMatches, Command};
use serde_json::Value;

use crate::cli;

/// Options of the command.
pub(crate) fn command() -> Command {
    let option = |name: &'static str, value: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name(value).help(help)
    };
    Command::new("run")
        .about("Runs an experiment of the Chaos Toolkit, with our faults as one more provider")
        .arg(Arg::new("experiment").required(true).value_name("EXPERIMENT").help("file, of JSON or YAML"))
        .arg(option("journal", "FILE", "where its journal goes").default_value("journal.json"))
        .arg(
            option("dry", "WHAT", "do none of: probes, actions, activities, pause [activities without a value]")
                .num_args(0..=1)
                .require_equals(true)
                .default_missing_value("activities"),
        )
        .arg(option("rollback-strategy", "STRATEGY", "default, always, never or deviated; over what the file says"))
        .arg(option(
            "hypothesis-strategy",
            "STRATEGY",
            "default, before-method-only, after-method-only, during-method-only, continuously or skip; over what the file says",
        ))
        .arg(option("var", "NAME[:TYPE]=VALUE", "a variable of its configuration; may be given more than once").action(ArgAction::Append))
        .arg(Arg::new("no-metrics").long("no-metrics").help("measure no packets: the journal is without them").action(ArgAction::SetTrue))
        .arg(option("metrics-sample", "N", "look at one segment and one io_uring operation of N").default_value("1"))
        .arg(option("baseline", "DURATION", "measure for so long at least before the method").default_value("0s"))
        .arg(Arg::new("json").long("json").help("print the journal, too").action(ArgAction::SetTrue))
}

fn parsed<T: std::str::FromStr<Err = Error>>(
    matches: &ArgMatches,
    name: &str,
) -> Result<Option<T>> {
    cli::given(matches, name)
        .map(|text| text.parse::<T>().map_err(|error| error.during(&format!("--{name}"))))
        .transpose()
}

fn variable(text: &str) -> Result<(String, Value)> {
    let (name, value) = text
        .split_once('=')
        .ok_or_else(|| Error::usage(format!("--var {text:?}: NAME=VALUE is wanted")))?;
    let (name, ty) = name.split_once(':').map_or((name, None), |(name, ty)| (name, Some(ty)));
    Ok((name.to_owned(), typed(&format!("--var {name}"), ty, value)?))
}

fn sample(matches: &ArgMatches) -> Result<u32> {
    let text = cli::text(matches, "metrics-sample");
    text.parse().ok().filter(|every| *every > 0).ok_or_else(|| {
        Error::usage(format!("--metrics-sample of {text:?}: a number of 1 and more is wanted"))
    })
}

fn baseline(matches: &ArgMatches) -> Result<Duration> {
    let duration = cli::duration("baseline", cli::text(matches, "baseline"))?;
    if duration > TTL_MAX {
        return Err(Error::usage("--baseline: an hour at most is wanted"));
    }
    Ok(duration)
}

/// Runs the experiment; whether all went well.
pub(crate) fn run(matches: &ArgMatches) -> Result<bool> {
    let experiment = Experiment::read(Path::new(cli::text(matches, "experiment")))?;
    let variables = matches.get_many::<String>("var").into_iter().flatten();
    let options = Options {
        rollbacks: parsed(matches, "rollback-strategy")?,
        strategy: parsed(matches, "hypothesis-strategy")?,
        dry: parsed(matches, "dry")?,
        variables: variables.map(|text| variable(text)).collect::<Result<_>>()?,
        watches: true,
        sample_every: if matches.get_flag("no-metrics") { None } else { Some(sample(matches)?) },
        baseline: baseline(matches)?,
    };
    // What was left behind goes first.
    registry::all()?;
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in
        [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM, signal_hook::consts::SIGHUP]
    {
        signal_hook::flag::register(signal, Arc::clone(&interrupted))
            .during(|| "catch signals".to_owned())?;
    }
    let journal = run::run(&experiment, &options, &interrupted, &|line| eprintln!("{line}"))?;
    let text = journal.text()?;
    write_whole(Path::new(cli::text(matches, "journal")), &text)?;
    if matches.get_flag("json") {
        print!("{text}");
    }
    Ok(journal.is_good())
}
