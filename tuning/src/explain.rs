//! What a knob is, in words: for `tune explain`, `tune list` and `docs/tuning.md`.
//!
//! Invariant: the document is made of the table, and a test compares the two. Next: `knobs`.

use std::fmt::Write as _;

use crate::gains::{self, Results};
use crate::knob::{How, Knob, Profile};
use crate::knobs::{self, GROUPS};
use crate::table::table;

/// How it is changed, in words.
fn how(knob: &Knob) -> String {
    match knob.how {
        How::Write => "tune apply".to_owned(),
        How::Boot => "kernel command line: tune export --format cmdline".to_owned(),
        How::Start => "by whoever starts the process: tune export --format systemd".to_owned(),
        How::Tell(reason) => format!("only reported: {reason}"),
        How::Security => "never: it would make the host less safe".to_owned(),
    }
}

/// Everything about one knob.
#[must_use]
pub fn explain(knob: &Knob) -> String {
    let mut text = format!("{}: {}\n", knob.name, knob.what);
    for (name, value) in [
        ("why", knob.why),
        ("risk", knob.risk),
        ("source", knob.source),
        ("where", &knob.path()),
        ("scope", knob.scope.name()),
        ("changed", &how(knob)),
    ] {
        let _ = writeln!(text, "  {name:<8} {value}");
    }
    for (profiles, desire) in knob.wants {
        let names: Vec<&str> = profiles.iter().map(|profile| profile.name()).collect();
        let _ = writeln!(text, "  {:<8} {}  ({})", "wanted", desire.shown(), names.join(", "));
    }
    if knob.wants.is_empty() {
        let _ = writeln!(text, "  {:<8} in no profile", "wanted");
    }
    let _ = writeln!(text, "  {:<8} {}", "gain", gains::shown(knob, Results::recorded()));
    text
}

/// All names, with what they do.
#[must_use]
pub fn list() -> String {
    let row = |knob: &Knob| {
        let profiles: Vec<&str> = Profile::ALL
            .iter()
            .filter(|profile| knob.desire(**profile).is_some())
            .map(|profile| profile.name())
            .collect();
        let profiles = if profiles.is_empty() { "-".to_owned() } else { profiles.join(",") };
        vec![knob.name.to_owned(), knob.scope.name().to_owned(), profiles, knob.what.to_owned()]
    };
    let rows: Vec<Vec<String>> = knobs::all().map(row).collect();
    table(&["KNOB", "SCOPE", "PROFILES", "WHAT"], &rows)
}

/// The document.
#[must_use]
pub fn document() -> String {
    let mut text = String::from(HEAD);
    for profile in Profile::ALL {
        let _ = writeln!(text, "- `{profile}`: {}", profile.about());
    }
    text.push_str(AFTER_PROFILES);
    for (name, knobs) in GROUPS {
        let _ = writeln!(text, "\n## {name}\n");
        for knob in *knobs {
            let _ = writeln!(text, "### {}\n\n{}.\n", knob.name, capital(knob.what));
            for (profiles, desire) in knob.wants {
                let names: Vec<&str> = profiles.iter().map(|profile| profile.name()).collect();
                let _ = writeln!(text, "- wanted by {}: {}", names.join(", "), desire.shown());
            }
            let _ = writeln!(text, "- why: {}", knob.why);
            let _ = writeln!(text, "- risk: {}", knob.risk);
            let _ = writeln!(text, "- source: {}", knob.source);
            let _ = writeln!(text, "- where: `{}` ({})", knob.path(), knob.scope.name());
            let _ = writeln!(text, "- changed: {}", how(knob));
            let _ = writeln!(text, "- gain: {}\n", gains::shown(knob, Results::recorded()));
        }
    }
    text.truncate(text.trim_end().len());
    text.push('\n');
    text
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

const HEAD: &str = "# Knobs of `tune`

Made of the table in `tuning/src/knobs` by `tune list --markdown`; a test compares the two. What a profile wants has a stated
reason and a source, and where guides contradict each other the row says so. What a knob gained where it could be shown stands there with its
95 % interval (`make tune-measure`); whether it gains anything on your host is for `tune measure KNOB -- COMMAND` to say.

## Profiles

";

const AFTER_PROFILES: &str = "
No profile changes anything that needs a restart, or that makes the host less safe.
";

/// One row as JSON.
#[must_use]
pub fn json(knob: &'static Knob) -> serde_json::Value {
    let wants: Vec<serde_json::Value> = Profile::ALL
        .iter()
        .filter_map(|profile| Some((profile, knob.desire(*profile)?)))
        .map(|(profile, desire)| {
            serde_json::json!({ "profile": profile.name(), "wanted": desire.shown() })
        })
        .collect();
    serde_json::json!({
        "name": knob.name, "what": knob.what, "why": knob.why, "risk": knob.risk, "source": knob.source,
        "where": knob.path(), "scope": knob.scope.name(), "changed": how(knob),
        "lowers_security": knob.how == How::Security, "profiles": wants,
        "gain": gains::shown(knob, Results::recorded()), "measured": Results::recorded().of(knob.name),
    })
}
