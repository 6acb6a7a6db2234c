//! The command line of `netprobe`. Invariant: metrics and their meaning are listed from the library's table.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use bpf::error::{Error, Result};
use bpf::metrics::Group;
use bpf::metrics::prometheus::METRICS;
use bpf::select::Target;
use clap::{Arg, ArgAction, ArgMatches, Command};

/// How long is measured for a figure that is shown once.
const ONCE: Duration = Duration::from_secs(5);

const CODES: &str =
    "Exit codes: 0 done, 1 refused by the kernel, 2 wrong request, 3 not supported here.";

/// How the figures are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Show {
    /// To Prometheus.
    Listen(SocketAddr),
    /// Once, at the end.
    Json,
    /// Each second, to a terminal.
    Top,
    /// What the probes cost.
    Cost,
}

/// What is measured, and shown.
#[derive(Clone, Debug)]
pub(crate) struct Measure {
    pub(crate) groups: Vec<Group>,
    pub(crate) sample_every: u32,
    pub(crate) duration: Option<Duration>,
    pub(crate) show: Show,
}

fn option(name: &'static str, value: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).value_name(value).help(help)
}

fn flag(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).help(help).action(ArgAction::SetTrue)
}

/// The table of metrics, as shown behind the options.
fn table() -> String {
    let mut text = String::from("Metrics:\n");
    for metric in METRICS {
        let labels = metric.labels.join(",");
        let name = if labels.is_empty() {
            metric.name.to_owned()
        } else {
            format!("{}{{{labels}}}", metric.name)
        };
        // Writing to a string does not fail.
        let _ = writeln!(text, "  {name}\n      {}", metric.about);
    }
    text
}

fn pcap() -> Command {
    Command::new("pcap")
        .about("Writes the packets of a device to a file, as tcpdump reads them")
        .arg(option("dev", "DEVICE", "network device").required(true))
        .arg(option("file", "FILE", "where to").required(true))
        .arg(option("dir", "DIRECTION", "in, out or both").default_value("both"))
        .arg(option("netns", "NAME", "in this network namespace, as `ip netns` names it"))
        .arg(option(
            "proto",
            "PROTOCOL",
            "protocol above IP: tcp, udp, icmp, icmpv6, sctp or a number",
        ))
        .arg(
            option("src", "NETWORK", "the sender is in this network; may be given more than once")
                .action(ArgAction::Append),
        )
        .arg(
            option(
                "dst",
                "NETWORK",
                "the receiver is in this network; may be given more than once",
            )
            .action(ArgAction::Append),
        )
        .arg(option("sport", "PORTS", "the sender's port, or a range such as 8000-8999"))
        .arg(option("dport", "PORTS", "the receiver's port"))
        .arg(option("port", "PORTS", "either port"))
        .arg(option("flags", "FLAGS", "TCP flags, such as syn,!ack"))
        .arg(option("len", "BYTES", "length from the IP header on, or a range"))
        .arg(option("prefix", "TEXT", r"how the payload begins, such as 'GET /' or '\x16\x03'"))
        .arg(
            option("snaplen", "BYTES", "bytes of each packet that are kept, 14 to 16384")
                .default_value("262"),
        )
        .arg(
            option("max-bytes", "BYTES", "ends when the file is so large")
                .default_value("1073741824"),
        )
        .arg(option("for", "DURATION", "ends after this; without, on Ctrl-C"))
}

/// The whole command line.
pub(crate) fn command() -> Command {
    Command::new("netprobe")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Measures this host's packets and io_uring operations by eBPF; nothing stays when it ends")
        .after_help(format!("{CODES}\n`--help` lists the metrics."))
        .after_long_help(format!("{}\n{CODES}", table()))
        .args_conflicts_with_subcommands(true)
        .subcommand(pcap())
        .subcommand(Command::new("watchdog").hide(true).arg(Arg::new("journal").required(true)))
        .arg(option("listen", "ADDRESS", "serve Prometheus text at /metrics of this address [default: 127.0.0.1:9901]"))
        .arg(flag("json", "print one snapshot as JSON"))
        .arg(flag("top", "show the busiest each second"))
        .arg(flag("cost", "measure what the probes themselves cost"))
        .group(clap::ArgGroup::new("show").args(["listen", "json", "top", "cost"]).multiple(false))
        .arg(option("for", "DURATION", "ends after this, such as 5s; --json and --cost without it after 5s"))
        .arg(option("sample", "N", "look at one event of N").default_value("1"))
        .arg(option("only", "METRICS", "of tcp, drops, queues, uring and listen, these; without, all but the queues").value_delimiter(','))
        .arg(flag("queues", "queues as well, whose five programs every packet meets"))
}

/// An option's value; empty without one.
pub(crate) fn text<'a>(matches: &'a ArgMatches, name: &str) -> &'a str {
    matches.get_one::<String>(name).map_or("", String::as_str)
}

/// An option's value, if it was given.
pub(crate) fn parsed<T: FromStr<Err = Error>>(
    matches: &ArgMatches,
    name: &str,
) -> Result<Option<T>> {
    let text = text(matches, name);
    if text.is_empty() { Ok(None) } else { text.parse().map(Some) }
}

/// A number within bounds.
pub(crate) fn number(matches: &ArgMatches, name: &str, (least, most): (u64, u64)) -> Result<u64> {
    let text = text(matches, name);
    let number = text.parse().ok().filter(|number| (least..=most).contains(number));
    number.ok_or_else(|| {
        Error::usage(format!("--{name} of {text:?}: a number of {least} to {most} is wanted"))
    })
}

/// The time that is given with `--for`.
pub(crate) fn duration(matches: &ArgMatches) -> Result<Option<Duration>> {
    match text(matches, "for") {
        "" => Ok(None),
        text => humantime::parse_duration(text).map(Some).map_err(|error| {
            Error::usage(format!("--for of {text:?}: a duration such as 5s is wanted: {error}"))
        }),
    }
}

fn all<T: FromStr<Err = Error>>(matches: &ArgMatches, name: &str) -> Result<Vec<T>> {
    let texts = matches.get_many::<String>(name);
    texts.into_iter().flatten().map(|text| text.parse()).collect()
}

/// Which packets, of those that `pcap` takes.
pub(crate) fn target(matches: &ArgMatches) -> Result<Target> {
    Ok(Target {
        dev: Some(text(matches, "dev").to_owned()),
        dir: parsed(matches, "dir")?.unwrap_or_default(),
        proto: parsed(matches, "proto")?,
        src: all(matches, "src")?,
        dst: all(matches, "dst")?,
        sport: parsed(matches, "sport")?,
        dport: parsed(matches, "dport")?,
        port: parsed(matches, "port")?,
        flags: parsed(matches, "flags")?,
        len: parsed(matches, "len")?,
        prefix: parsed(matches, "prefix")?,
        ..Target::default()
    })
}

impl Measure {
    /// What the command line asks for.
    pub(crate) fn read(matches: &ArgMatches) -> Result<Self> {
        let show = match text(matches, "listen") {
            _ if matches.get_flag("json") => Show::Json,
            _ if matches.get_flag("top") => Show::Top,
            _ if matches.get_flag("cost") => Show::Cost,
            "" => Show::Listen(SocketAddr::from(([127, 0, 0, 1], 9901))),
            text => Show::Listen(text.parse().map_err(|_| {
                Error::usage(format!(
                    "--listen of {text:?}: an address such as 127.0.0.1:9901 is wanted"
                ))
            })?),
        };
        let is_once = matches!(show, Show::Json | Show::Cost);
        let mut groups = all(matches, "only")?;
        if groups.is_empty() {
            groups.extend(Group::DEFAULT);
        }
        if matches.get_flag("queues") && !groups.contains(&Group::Queues) {
            groups.push(Group::Queues);
        }
        let sample_every = number(matches, "sample", (1, u64::from(u32::MAX)))?;
        Ok(Self {
            groups,
            sample_every: u32::try_from(sample_every).unwrap_or(u32::MAX),
            duration: duration(matches)?.or(is_once.then_some(ONCE)),
            show,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{Group, Measure, Show, command};

    fn measure(line: &str) -> Result<Measure, String> {
        let words = std::iter::once("netprobe").chain(line.split_whitespace());
        let matches = command().try_get_matches_from(words).map_err(|error| error.to_string())?;
        Measure::read(&matches).map_err(|error| error.to_string())
    }

    #[test]
    fn options_are_read_and_wrong_ones_are_named() {
        command().debug_assert();
        let plain = measure("").expect("no option is needed");
        assert!(matches!(plain.show, Show::Listen(at) if at.port() == 9901));
        assert_eq!(
            (plain.groups, plain.sample_every, plain.duration),
            (Group::DEFAULT.to_vec(), 1, None)
        );
        let all = measure("--queues").expect("right").groups;
        assert!(
            Group::ALL.iter().all(|group| all.contains(group)) && all.len() == Group::ALL.len()
        );
        assert_eq!(measure("--only queues --queues").expect("right").groups, [Group::Queues]);
        let json = measure("--json --only tcp,uring --sample 10").expect("right");
        assert_eq!((json.groups, json.sample_every), (vec![Group::Tcp, Group::Uring], 10));
        assert!(json.duration.is_some(), "it has an end");
        for (line, expected) in [
            ("--only tpc", "drops"),
            ("--sample 0", "1 to"),
            ("--listen here", "127.0.0.1:9901"),
            ("--for ever", "duration"),
            ("--json --top", "cannot be used"),
        ] {
            let error = measure(line).expect_err(line);
            assert!(error.contains(expected), "{line}: {error}");
        }
    }
}
