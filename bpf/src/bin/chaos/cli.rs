//! The command line, made of the tables of faults. Invariant: an option has the name that it has in files.

use std::str::FromStr;
use std::time::Duration;

use bpf::error::{Error, Result};
use bpf::fault::{self, Kind, Place, Type};
use bpf::scenario::{self, Scenario};
use bpf::select::{Network, Share, Target};
use bpf::spec::{Spec, TTL_DEFAULT};
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command};
use serde_json::Value;

/// Options that say which packets, and their values as shown in help.
const SELECTORS: &[(&str, &str, &str)] = &[
    ("proto", "PROTOCOL", "protocol above IP: tcp, udp, icmp, icmpv6, sctp or a number"),
    (
        "src",
        "NETWORK",
        "the sender is in this network, such as 10.0.0.0/8; may be given more than once",
    ),
    ("dst", "NETWORK", "the receiver is in this network; may be given more than once"),
    ("peer", "NETWORK", "sender or receiver is in this network; may be given more than once"),
    ("sport", "PORTS", "the sender's port, or a range such as 8000-8999"),
    ("dport", "PORTS", "the receiver's port"),
    ("port", "PORTS", "either port"),
    ("flags", "FLAGS", "TCP flags, such as syn,!ack"),
    ("len", "BYTES", "length from the IP header on, or a range"),
    ("prefix", "TEXT", r"how the payload begins, in one packet, such as 'GET /' or '\x16\x03'"),
];

/// Options that say how many of them: at most one.
const SHARES: &[(&str, &str, &str)] = &[
    ("percent", "PERCENT", "each by chance, in percent"),
    ("flows", "PERCENT", "all or none of a flow, in percent of flows"),
    ("every", "N", "every N-th"),
    ("first", "N", "the first N"),
    ("burst", "ON/PERIOD", "all for a while of each period, such as 50ms/1s"),
    (
        "gilbert",
        "BAD,GOOD[,LOSS[,LOSS]]",
        "in groups (Gilbert-Elliott): percent to the bad state, back, hit in the bad one (100), in the good one (0)",
    ),
];

/// Those of them that calls and connections can be told apart by.
const OF_SOCKETS: &[&str] = &["proto", "src", "dst", "peer", "sport", "dport", "port"];

fn selectors() -> impl Iterator<Item = Arg> {
    SELECTORS.iter().map(|(name, value, help)| {
        let action = if matches!(*name, "src" | "dst" | "peer") {
            ArgAction::Append
        } else {
            ArgAction::Set
        };
        option(name, value, help).action(action)
    })
}

fn selectors_of_sockets() -> impl Iterator<Item = Arg> {
    selectors().filter(|arg| OF_SOCKETS.contains(&arg.get_id().as_str()))
}

fn option(name: &'static str, value: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).value_name(value).help(help)
}

fn flag(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).help(help).action(ArgAction::SetTrue)
}

fn json() -> Arg {
    flag("json", "print JSON")
}

/// The whole command line.
pub(crate) fn command() -> Result<Command> {
    let inject = Command::new("inject")
        .about("Injects a fault until its time is over, a signal ends it, or for --detach behind this command's back")
        .subcommand_required(true)
        .subcommand_value_name("FAULT")
        .subcommand_help_heading("Faults")
        .subcommands(fault::all().map(|kind| of_kind(kind, &Spec::new(kind.name)).about(kind.about)))
        .subcommands(scenario::all()?.iter().filter_map(of_scenario));
    let all = flag("all", "all of them");
    Ok(Command::new("chaos")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Injects faults into this host: each with an end, and gone however this command ends")
        .after_help("Exit codes: 0 done, 1 refused by the kernel or an experiment that did not hold, 2 wrong or unsafe request, 3 not supported here.")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(inject)
        .subcommand(Command::new("doctor").about("What this host can do, each hook really tried").arg(json()))
        .subcommand(Command::new("list").about("Names the faults, and scenarios made of them").arg(json()))
        .subcommand(
            Command::new("describe").about("What a fault or a scenario does, and takes").arg(Arg::new("fault").required(true)).arg(json()),
        )
        .subcommand(Command::new("status").about("The faults in force on this host").arg(json()))
        .subcommand(
            Command::new("stop")
                .about("Ends faults")
                .arg(Arg::new("id").num_args(0..).required_unless_present("all").help("names, as `chaos status` prints them"))
                .arg(all),
        )
        .subcommand(crate::run::command())
        .subcommand(crate::import::command())
        .subcommand(crate::report::command())
        .subcommand(Command::new("disk-server").hide(true))
        .subcommand(Command::new("watchdog").hide(true).arg(Arg::new("journal").required(true))))
}

/// A scenario takes what its fault takes, and says most of it already. It is not shown among the faults.
fn of_scenario(scenario: &Scenario) -> Option<Command> {
    let kind = fault::find(&scenario.fault).ok()?;
    let command = of_kind(kind, &scenario.spec()).about(scenario.about.clone());
    Some(command.name(scenario.name).hide(true))
}

fn of_kind(kind: &'static Kind, spec: &Spec) -> Command {
    let mut command = Command::new(kind.name);
    command = match kind.place {
        Place::Device => command
            .arg(option("dev", "DEVICE", "network device").required(true))
            .arg(option("dir", "DIRECTION", "in, out or both [default: out]"))
            .args(selectors())
            .arg(flag(
                "without-payload",
                "only packets without payload, such as bare acknowledgements",
            )),
        Place::Cgroup => command
            .arg(option("cgroup", "DIRECTORY", "control group, version 2").required(true))
            .args(selectors_of_sockets()),
        Place::Netns => command.args(selectors_of_sockets()),
        Place::Process => command
            .arg(option("pid", "PID", "process"))
            .arg(option("comm", "NAME", "processes of this name").required_unless_present("pid")),
        Place::Path => command.arg(option("path", "DIRECTORY", "directory").required(true)),
        Place::Host => command,
    };
    if kind.shares {
        command =
            command.args(SHARES.iter().map(|(name, value, help)| option(name, value, help))).group(
                clap::ArgGroup::new("share")
                    .args(SHARES.iter().map(|(name, ..)| *name))
                    .multiple(false),
            );
    }
    for param in kind.params {
        let arg = option(param.name, "VALUE", param.about)
            .allow_negative_numbers(param.ty == Type::Number)
            .allow_hyphen_values(param.ty == Type::Shift);
        let is_said = spec.params.contains_key(param.name);
        command = command.arg(match param.default {
            Some(default) if !is_said => arg.default_value(default),
            _ => arg.required(!is_said),
        });
    }
    command
        .arg(option("ttl", "DURATION", "ends by itself after this, an hour at most [default: 60s]"))
        .arg(option("max-hits", "N", "acts so many times at most"))
        .arg(flag("shadow", "count what it would do, and do nothing"))
        .arg(flag(
            "force",
            "allow wide targets, and spare no port (22 and 9901 are spared otherwise)",
        ))
        .arg(flag("detach", "return at once; the fault lasts until its time is over"))
        .arg(option("netns", "NAME", "in this network namespace, as `ip netns` names it"))
        .arg(json())
        .arg(Arg::new("keeper").long("keeper").hide(true).action(ArgAction::SetTrue))
}

/// An option's value; empty without one.
pub(crate) fn text<'a>(matches: &'a ArgMatches, name: &str) -> &'a str {
    matches.try_get_one::<String>(name).ok().flatten().map_or("", String::as_str)
}

/// An option's value, if it was given.
pub(crate) fn given<'a>(matches: &'a ArgMatches, name: &str) -> Option<&'a str> {
    Some(text(matches, name)).filter(|text| !text.is_empty())
}

fn parsed<T: FromStr<Err = Error>>(matches: &ArgMatches, name: &str) -> Result<Option<T>> {
    let text = text(matches, name);
    if text.is_empty() { Ok(None) } else { text.parse().map(Some) }
}

fn number<T: FromStr>(matches: &ArgMatches, name: &str) -> Result<Option<T>> {
    match text(matches, name) {
        "" => Ok(None),
        text => text
            .parse()
            .map(Some)
            .map_err(|_| Error::usage(format!("--{name} of {text:?}: a number is wanted"))),
    }
}

fn all<T: FromStr<Err = Error>>(matches: &ArgMatches, name: &str) -> Result<Vec<T>> {
    let texts = matches.try_get_many::<String>(name).ok().flatten();
    texts.into_iter().flatten().map(|text| text.parse()).collect()
}

fn is_set(matches: &ArgMatches, name: &str) -> bool {
    matches.try_get_one::<bool>(name).ok().flatten() == Some(&true)
}

fn some(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

/// A duration as `humantime` reads it.
pub(crate) fn duration(option: &str, text: &str) -> Result<Duration> {
    humantime::parse_duration(text).map_err(|error| {
        Error::usage(format!("--{option} of {text:?}: a duration such as 20ms is wanted: {error}"))
    })
}

/// What the command line says of a target, over what is said already.
fn target(matches: &ArgMatches, base: &Target) -> Result<Target> {
    let networks = |name, base: &Vec<Network>| {
        let given = all(matches, name)?;
        Ok::<_, Error>(if given.is_empty() { base.clone() } else { given })
    };
    let base = base.clone();
    Ok(Target {
        src: networks("src", &base.src)?,
        dst: networks("dst", &base.dst)?,
        peer: networks("peer", &base.peer)?,
        dev: some(text(matches, "dev")).or(base.dev),
        dir: parsed(matches, "dir")?.unwrap_or(base.dir),
        cgroup: some(text(matches, "cgroup")).or(base.cgroup),
        pid: number(matches, "pid")?.or(base.pid),
        comm: some(text(matches, "comm")).or(base.comm),
        path: some(text(matches, "path")).or(base.path),
        proto: parsed(matches, "proto")?.or(base.proto),
        sport: parsed(matches, "sport")?.or(base.sport),
        dport: parsed(matches, "dport")?.or(base.dport),
        port: parsed(matches, "port")?.or(base.port),
        flags: parsed(matches, "flags")?.or(base.flags),
        len: parsed(matches, "len")?.or(base.len),
        prefix: parsed(matches, "prefix")?.or(base.prefix),
        without_payload: is_set(matches, "without-payload") || base.without_payload,
    })
}

fn milliseconds(option: &str, text: &str) -> Result<u32> {
    u32::try_from(duration(option, text)?.as_millis())
        .map_err(|_| Error::usage(format!("--{option} of {text:?}: at most 49 days are wanted")))
}

fn share(matches: &ArgMatches, base: Share) -> Result<Share> {
    if let Some(percent) = number(matches, "percent")? {
        return Ok(Share::Percent(percent));
    }
    if let Some(percent) = number(matches, "flows")? {
        return Ok(Share::Flows(percent));
    }
    if let Some(n) = number(matches, "every")? {
        return Ok(Share::Every(n));
    }
    if let Some(n) = number(matches, "first")? {
        return Ok(Share::First(n));
    }
    if let Some((on, period)) = text(matches, "burst").split_once('/') {
        return Ok(Share::Burst {
            on_ms: milliseconds("burst", on)?,
            period_ms: milliseconds("burst", period)?,
        });
    }
    match text(matches, "gilbert") {
        "" if text(matches, "burst").is_empty() => Ok(base),
        "" => Err(Error::usage("--burst: two durations such as 50ms/1s are wanted")),
        text => {
            let numbers: Vec<f64> =
                text.split(',').map_while(|number| number.trim().parse().ok()).collect();
            match numbers[..] {
                [to_bad, to_good] => Ok(Share::Gilbert { to_bad, to_good, bad: 100.0, good: 0.0 }),
                [to_bad, to_good, bad] => Ok(Share::Gilbert { to_bad, to_good, bad, good: 0.0 }),
                [to_bad, to_good, bad, good] => Ok(Share::Gilbert { to_bad, to_good, bad, good }),
                _ => Err(Error::usage(format!(
                    "--gilbert of {text:?}: two to four percentages such as 1,25 are wanted"
                ))),
            }
        }
    }
}

/// The fault that a command line asks for: a kind, or a scenario, by its name.
pub(crate) fn spec(name: &str, matches: &ArgMatches) -> Result<Spec> {
    let base = scenario::find(name)?.map_or_else(|| Spec::new(name), |scenario| scenario.spec());
    let kind = fault::find(&base.fault)?;
    let mut params = base.params;
    for param in kind.params {
        let is_given = matches.value_source(param.name) == Some(ValueSource::CommandLine);
        if is_given || !params.contains_key(param.name) {
            params.extend(
                some(text(matches, param.name))
                    .map(|text| (param.name.to_owned(), Value::from(text))),
            );
        }
    }
    Ok(Spec {
        fault: base.fault,
        target: target(matches, &base.target)?,
        share: if kind.shares { share(matches, base.share)? } else { base.share },
        params,
        ttl: match text(matches, "ttl") {
            "" => TTL_DEFAULT,
            text => duration("ttl", text)?,
        },
        max_hits: number(matches, "max-hits")?.unwrap_or(0),
        shadow: is_set(matches, "shadow"),
        force: is_set(matches, "force"),
    })
}
