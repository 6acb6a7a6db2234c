//! `tune gains`: what knobs gain, in a network namespace of its own. Next: `tuning::gains`.

use std::fs::{self, File};
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::ArgMatches;
use signal_hook::consts::{SIGINT, SIGTERM};
use tuning::error::{During as _, Error, Result};
use tuning::gains::{Found, Gain, Results, Session};
use tuning::host::Host;
use tuning::journal::Journal;
use tuning::knob::Knob;
use tuning::knobs;
use tuning::load::Ends;
use tuning::tree::Tree;

use crate::{cli, journal_path, knob, say, say_json};

const OWN: &str = "/proc/thread-self/ns/net";
/// Only the first network namespace has this setting.
const OF_FIRST: &str = "/proc/sys/net/core/netdev_max_backlog";

/// The exit code: 0 measured, 3 in part, 4 nothing could be.
pub(crate) fn run(matches: &ArgMatches) -> Result<u8> {
    let tree = Tree::live();
    if tree.exists(OF_FIRST) {
        return Err(Error::new(
            "gains: it changes settings of its network namespace, and this is the host's: make tune-measure, or as root ip netns exec NAME tune gains",
        ));
    }
    let chosen = chosen(matches)?;
    let out = matches.get_one::<String>("out").map(Path::new);
    // Before anything takes long.
    let mut results = out.map_or_else(|| Ok(Results::recorded().clone()), read)?;
    let host = Host::read(&tree);
    let (ends, place) = ends(matches)?;
    let open = |path: &str| File::open(path).during(|| format!("open {path}"));
    let inside = open(OWN)?;
    let outside = matches.get_one::<String>("host-netns").map(|path| open(path)).transpose()?;
    let is_over = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, is_over.clone())
            .during(|| "catch signals".to_owned())?;
    }
    let blocks = usize::try_from(*matches.get_one::<u32>("blocks").unwrap_or(&10)).unwrap_or(10);
    let session = Session {
        tree: &tree,
        host: &host,
        ends: &ends,
        place,
        inside: &inside,
        outside: outside.as_ref(),
        blocks,
        command: &format!("tune gains --blocks {blocks}"),
        is_over: &|| is_over.load(Ordering::SeqCst),
        tell: &|line| eprintln!("{line}"),
    };
    let mut journal = Journal::open(&journal_path(matches, &tree))?;
    let mut tally = Tally::default();
    for knob in chosen {
        eprintln!("{}", knob.name);
        let found = session.run(knob, &mut journal);
        tally.note(knob, found, &mut results, matches.get_flag("json"));
        if let Some(path) = out {
            write(path, &results)?;
        }
        if is_over.load(Ordering::SeqCst) {
            return Err(Error::new("gains: interrupted; everything is as before"));
        }
    }
    Ok(tally.end(matches.get_flag("json")))
}

/// The knobs that were named, or all that are measured so.
fn chosen(matches: &ArgMatches) -> Result<Vec<&'static Knob>> {
    let names: Vec<&String> = matches.get_many("knob").into_iter().flatten().collect();
    if !names.is_empty() {
        return names.into_iter().map(|name| knob(name)).collect();
    }
    Ok(knobs::all().filter(|knob| matches!(knob.gain, Gain::By(_))).collect())
}

fn ends(matches: &ArgMatches) -> Result<(Ends, &'static str)> {
    let open = |path: &str| File::open(path).during(|| format!("open {path}"));
    let text = cli::text(matches, "address");
    let address: IpAddr = text.parse().during(|| format!("--address {text}"))?;
    let own = || open(OWN).map(Some);
    Ok(match matches.get_one::<String>("client-netns") {
        Some(path) => (
            Ends { server: own()?, client: Some(open(path)?), address },
            "a pair of devices between two network namespaces",
        ),
        None => {
            (Ends { server: own()?, client: own()?, address }, "loopback of a network namespace")
        }
    })
}

/// What is in the file already; nothing when it is not there.
fn read(path: &Path) -> Result<Results> {
    let doing = || format!("read {}", path.display());
    if !path.exists() {
        return Results::parse(r#"{"version": 1, "gains": []}"#);
    }
    Results::parse(&fs::read_to_string(path).during(doing)?).during(doing)
}

fn write(path: &Path, results: &Results) -> Result<()> {
    let doing = || format!("write {}", path.display());
    let new = path.with_extension("json.new");
    fs::write(&new, results.text()?).during(doing)?;
    fs::rename(&new, path).during(doing)
}

/// What came of all knobs.
#[derive(Default)]
struct Tally {
    measured: Vec<serde_json::Value>,
    others: Vec<serde_json::Value>,
    failed: usize,
}

impl Tally {
    fn note(&mut self, knob: &Knob, found: Result<Found>, results: &mut Results, is_json: bool) {
        let name = knob.name;
        let (what, text) = match found {
            Ok(Found::Measured(measured)) => {
                self.measured.push(serde_json::to_value(&measured).unwrap_or_default());
                let text = format!("{name}: {}\n", measured.shown());
                results.put(*measured);
                if !is_json {
                    say(&text);
                }
                return;
            }
            Ok(Found::Not(reason)) => ("not-measured", reason),
            Ok(Found::Void(reason)) => ("void", reason),
            Err(error) => ("failed", error.to_string()),
        };
        if what != "not-measured" {
            self.failed += 1;
        }
        self.others.push(serde_json::json!({ "knob": name, "what": what, "reason": text }));
        if !is_json {
            say(&format!("{name}: {}: {text}\n", what.replace('-', " ")));
        }
    }

    fn end(self, is_json: bool) -> u8 {
        let code = match (self.measured.len(), self.failed) {
            (0, _) => 4,
            (_, 0) => 0,
            _ => 3,
        };
        if is_json {
            say_json(&serde_json::json!({
                "version": 1, "measured": self.measured, "others": self.others,
            }));
        }
        code
    }
}
