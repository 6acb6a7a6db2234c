//! The command line.

use clap::builder::PossibleValuesParser;
use clap::{Arg, ArgAction, ArgMatches, Command};
use tuning::export::Format;
use tuning::journal;
use tuning::knob::Profile;

const EXIT_CODES: &str = "Exit codes: 0 as wanted, 2 something differs, 3 applied or reverted in part, 4 nothing can be applied, 1 an error.";

fn flag(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).help(help).action(ArgAction::SetTrue)
}

fn option(name: &'static str, value: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).value_name(value).help(help)
}

fn json() -> Arg {
    flag("json", "print JSON")
}

fn root() -> Arg {
    option("root", "DIRECTORY", "a recorded tree instead of this host").default_value("/")
}

fn journal() -> Arg {
    let help = format!("where changes are noted [default: {} below the root]", journal::DEFAULT);
    Arg::new("journal").long("journal").value_name("FILE").help(help)
}

/// Options of what is looked at.
fn of_host(command: Command) -> Command {
    let names = Profile::ALL.iter().map(|profile| profile.name());
    command
        .arg(
            option(
                "profile",
                "PROFILE",
                "what the host is tuned for [default: container in a container, else latency]",
            )
            .value_parser(PossibleValuesParser::new(names)),
        )
        .arg(flag("host-too", "from within a container, also what is its host's"))
        .arg(root())
}

fn some_knobs() -> Arg {
    Arg::new("knob").value_name("KNOB").num_args(0..).help("only these [default: all]")
}

/// The whole of it.
pub(crate) fn command() -> Command {
    let formats = Format::ALL.iter().map(|(name, _)| *name);
    Command::new("tune")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Compares this host with what services want, changes it, and changes it back")
        .after_help(EXIT_CODES)
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(
            of_host(Command::new("check").about("What is, beside what is wanted"))
                .arg(some_knobs())
                .arg(json()),
        )
        .subcommand(
            Command::new("explain")
                .about("What a knob does, why to change it, after whom, and at which risk")
                .arg(Arg::new("knob").value_name("KNOB").num_args(1..).required(true))
                .arg(json()),
        )
        .subcommand(
            of_host(
                Command::new("apply").about("Writes what differs: noted first, read back after"),
            )
            .arg(some_knobs())
            .arg(flag("dry-run", "only say what would be written"))
            .arg(journal())
            .arg(json()),
        )
        .subcommand(
            Command::new("revert")
                .about("Takes back what apply wrote, where it is still so")
                .arg(flag(
                    "forget",
                    "what cannot be taken back stays as it is for good: changed by somebody else since, or of a network namespace that nobody is in",
                ))
                .arg(root())
                .arg(journal())
                .arg(json()),
        )
        .subcommand(measure())
        .subcommand(gains())
        .subcommand(
            of_host(
                Command::new("export")
                    .about("What is wanted of this host, as a file of another tool"),
            )
            .arg(
                option("format", "FORMAT", "kind of file")
                    .value_parser(PossibleValuesParser::new(formats))
                    .default_value("sysctl"),
            ),
        )
        .subcommand(
            Command::new("record")
                .about("Prints all that is looked at of this host, for --root elsewhere")
                .arg(root()),
        )
        .subcommand(
            Command::new("unpack")
                .about("Makes the files of a recorded host, for --root")
                .arg(Arg::new("file").value_name("FILE").required(true).help("what record printed"))
                .arg(Arg::new("directory").value_name("DIRECTORY").required(true)),
        )
        .subcommand(
            Command::new("list")
                .about("Names the knobs")
                .arg(flag("markdown", "print the document of all knobs").conflicts_with("json"))
                .arg(json()),
        )
}

fn measure() -> Command {
    let about = "What one knob does to a command: its figure as it is (A) and changed (B), in blocks of A B B A";
    of_host(Command::new("measure").about(about))
        .after_help("Everything is as before at the end, also after an error or Ctrl-C; after SIGKILL by tune revert.")
        .arg(Arg::new("knob").value_name("KNOB").required(true))
        .arg(
            Arg::new("command")
                .value_name("COMMAND")
                .num_args(1..)
                .last(true)
                .required(true)
                .help("prints a number on its last line, or see --regex and --field"),
        )
        .arg(option("regex", "REGEX", "finds the number: the first group of its last match in what the command prints"))
        .arg(
            option("field", "NAME", "the number is this field of the JSON that the command prints, as in latency.p99_ns or steps.0.rate")
                .conflicts_with("regex"),
        )
        .arg(option("value", "VALUE", "value of B [default: what the profile wants]").conflicts_with("same"))
        .arg(flag("same", "B is as A: shows how far apart two runs of the same are"))
        .arg(
            option("blocks", "N", "blocks, of two pairs each")
                .value_parser(clap::value_parser!(u32).range(1..=1000))
                .default_value("10"),
        )
        .arg(flag("keep", "leaves it changed; tune revert takes it back").conflicts_with("same"))
        .arg(journal())
        .arg(json())
}

fn gains() -> Command {
    let about = "What knobs gain under loads of its own: in a network namespace of its own, as root, on a quiet machine";
    Command::new("gains")
        .about(about)
        .after_help(
            "make tune-measure does all of it: two namespaces, a pair of devices between them, and tuning/gains.json anew.\n\
             Each knob is compared as by tune measure, after A was compared with itself: where equal sides come out apart,\n\
             the result is void and not kept. Exit codes: 0 measured, 3 in part, 4 nothing could be, 1 an error.",
        )
        .arg(Arg::new("knob").value_name("KNOB").num_args(0..).help("only these [default: all that it can measure]"))
        .arg(option("client-netns", "FILE", "network namespace of the client, such as /run/netns/NAME [default: this one]"))
        .arg(option("address", "IP", "the server's address, of this namespace").default_value("127.0.0.1"))
        .arg(
            option("blocks", "N", "blocks of each comparison, of two pairs each")
                .value_parser(clap::value_parser!(u32).range(1..=1000))
                .default_value("10"),
        )
        .arg(option("host-netns", "FILE", "the host's first network namespace: measures knobs of the whole host too"))
        .arg(option("out", "FILE", "where results are put, each in the place of an older one of the same knob"))
        .arg(journal())
        .arg(json())
}

/// What was given, or nothing.
pub(crate) fn text<'a>(matches: &'a ArgMatches, name: &str) -> &'a str {
    matches.get_one::<String>(name).map_or("", String::as_str)
}
