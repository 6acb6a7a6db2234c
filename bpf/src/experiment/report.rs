//! A journal made readable: what was believed, what was done and when, what the faults met, and the verdict.
//!
//! It reads journals of the Chaos Toolkit as well as ours, so nothing in them is relied on: what is missing is left out. Invariants: what comes
//! from a journal is escaped; a report loads nothing from elsewhere. Next: `html`, `markdown`,
//! `packets`.

mod html;
mod markdown;
mod packets;

use std::path::Path;

use serde_json::Value;

use super::text_of;
use crate::error::{Error, Result};

/// Longest journal that is read.
pub const JOURNAL_MAX: u64 = 128 << 20;
/// Longest output that is shown.
const SHOWN_MAX: usize = 160;

/// A look at the hypothesis.
#[derive(Clone, Debug)]
struct Look {
    when: &'static str,
    /// Seconds since the begin.
    at: f64,
    is_met: bool,
    /// The probe that was not within its tolerance, and what it found.
    broken: Option<(String, String)>,
}

/// What was met by a fault up to then.
#[derive(Clone, Copy, Debug, Default)]
struct Point {
    /// Seconds since the activity's begin.
    at: f64,
    matched: u64,
    affected: u64,
    in_force: bool,
}

/// An activity that was run.
#[derive(Clone, Debug)]
struct Bar {
    section: &'static str,
    name: String,
    kind: String,
    provider: String,
    /// Seconds since the begin.
    from: f64,
    to: f64,
    is_good: bool,
    output: String,
    /// Of a fault.
    points: Vec<Point>,
}

/// What a report says.
#[derive(Clone, Debug)]
pub struct Report {
    title: String,
    description: String,
    hypothesis: String,
    tolerances: Vec<(String, String)>,
    verdict: String,
    is_good: bool,
    begin: String,
    seconds: f64,
    host: String,
    looks: Vec<Look>,
    bars: Vec<Bar>,
    notes: Vec<String>,
    packets: Option<packets::Packets>,
}

fn text(value: &Value, path: &[&str]) -> String {
    let found = path.iter().try_fold(value, |value, name| value.get(name));
    found.filter(|found| !found.is_null()).map(text_of).unwrap_or_default()
}

fn list<'v>(value: &'v Value, path: &[&str]) -> &'v [Value] {
    let found = path.iter().try_fold(value, |value, name| value.get(name));
    found.and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// Seconds since the Unix epoch of a time as journals write it, with a zone of UTC or none.
fn moment(text: &str) -> Option<f64> {
    let text = text.trim_end_matches("+00:00").trim_end_matches('Z');
    let time = humantime::parse_rfc3339_weak(&format!("{text}Z")).ok()?;
    time.duration_since(std::time::UNIX_EPOCH).ok().map(|since| since.as_secs_f64())
}

fn shown(text: &str) -> String {
    let end = text.floor_char_boundary(SHOWN_MAX);
    if end < text.len() {
        format!("{}…", text.get(..end).unwrap_or_default())
    } else {
        text.to_owned()
    }
}

impl Report {
    /// Reads a journal.
    ///
    /// # Errors
    /// It cannot be read, or is none.
    pub fn read(path: &Path) -> Result<Self> {
        let text = super::read_bounded(path, JOURNAL_MAX)?;
        let journal: Value = serde_json::from_str(&text)
            .map_err(|error| Error::usage(format!("{}: no JSON: {error}", path.display())))?;
        Self::new(&journal).map_err(|error| error.during(&path.display().to_string()))
    }

    /// What a journal says.
    ///
    /// # Errors
    /// It is none.
    pub fn new(journal: &Value) -> Result<Self> {
        if !journal.get("experiment").is_some_and(Value::is_object)
            || !journal.get("status").is_some_and(Value::is_string)
        {
            return Err(Error::usage("no journal: an experiment and a status are wanted"));
        }
        let begin = moment(&text(journal, &["start"])).unwrap_or(0.0);
        let since = |value: &Value, name: &str| {
            moment(&text(value, &[name])).map_or(0.0, |at| (at - begin).max(0.0))
        };
        let mut looks = Vec::new();
        for (when, name) in [("before", "before"), ("during", "during"), ("after", "after")] {
            let states = journal
                .get("steady_states")
                .and_then(|states| states.get(name))
                .unwrap_or(&Value::Null);
            let states =
                states.as_array().map_or_else(|| std::slice::from_ref(states), Vec::as_slice);
            looks.extend(
                states
                    .iter()
                    .filter(|state| state.is_object())
                    .map(|state| look(when, state, &since)),
            );
        }
        let bars = [("method", "run"), ("rollbacks", "rollbacks")].into_iter().flat_map(
            |(section, name)| list(journal, &[name]).iter().map(move |run| (section, run)),
        );
        let (verdict, is_good) = verdict(journal, &looks);
        Ok(Self {
            title: text(journal, &["experiment", "title"]),
            description: text(journal, &["experiment", "description"]),
            hypothesis: text(journal, &["experiment", "steady-state-hypothesis", "title"]),
            tolerances: list(journal, &["experiment", "steady-state-hypothesis", "probes"])
                .iter()
                .map(|probe| (text(probe, &["name"]), text(probe, &["tolerance"])))
                .collect(),
            verdict,
            is_good,
            begin: text(journal, &["start"]),
            seconds: journal.get("duration").and_then(Value::as_f64).unwrap_or(0.0),
            host: format!("{} ({})", text(journal, &["node"]), text(journal, &["platform"])),
            bars: bars.map(|(section, run)| bar(section, run, &since)).collect(),
            looks,
            notes: list(journal, &["notes"]).iter().map(text_of).collect(),
            packets: journal.get("packets").map(packets::read),
        })
    }

    /// As a page of its own.
    #[must_use]
    pub fn html(&self) -> String {
        html::page(self)
    }

    /// As Markdown.
    #[must_use]
    pub fn markdown(&self) -> String {
        markdown::text(self)
    }
}

fn look(when: &'static str, state: &Value, since: &dyn Fn(&Value, &str) -> f64) -> Look {
    let probes = list(state, &["probes"]);
    let is_met = state.get("steady_state_met").and_then(Value::as_bool).unwrap_or(false);
    let broken = probes
        .iter()
        .find(|probe| probe.get("tolerance_met").and_then(Value::as_bool) == Some(false));
    let found = |probe: &Value| match list(probe, &["exception"]).first() {
        Some(why) => text_of(why),
        None => text(probe, &["output"]),
    };
    Look {
        when,
        at: probes.last().map_or(0.0, |probe| since(probe, "end")),
        is_met,
        broken: broken.map(|probe| (text(probe, &["activity", "name"]), shown(&found(probe)))),
    }
}

fn bar(section: &'static str, run: &Value, since: &dyn Fn(&Value, &str) -> f64) -> Bar {
    let number = |point: &Value, name: &str| point.get(name).and_then(Value::as_u64).unwrap_or(0);
    let points: Vec<Point> = list(run, &["output", "series"])
        .iter()
        .map(|point| Point {
            at: point.get("at").and_then(Value::as_f64).unwrap_or(0.0),
            matched: number(point, "matched"),
            affected: number(point, "affected"),
            in_force: point.get("in_force").and_then(Value::as_bool).unwrap_or(true),
        })
        .collect();
    let counts = run.get("output").and_then(|output| output.get("counts"));
    let output = match (list(run, &["exception"]).first(), counts) {
        (Some(why), _) => text_of(why),
        (None, Some(counts)) => format!(
            "matched {}, affected {}",
            number(counts, "matched"),
            number(counts, "affected")
        ),
        (None, None) => text(run, &["output"]),
    };
    let provider = |name: &str| text(run, &["activity", "provider", name]);
    let what = ["fault", "scenario", "url", "path", "func"]
        .map(provider)
        .into_iter()
        .find(|what| !what.is_empty());
    let from = since(run, "start");
    Bar {
        section,
        name: text(run, &["activity", "name"]),
        kind: text(run, &["activity", "type"]),
        provider: format!("{} {}", provider("type"), what.unwrap_or_default()),
        from,
        to: since(run, "end").max(from),
        is_good: text(run, &["status"]) == "succeeded",
        output,
        points,
    }
}

fn verdict(journal: &Value, looks: &[Look]) -> (String, bool) {
    let has_deviated = journal.get("deviated").and_then(Value::as_bool).unwrap_or(false);
    let is_broken = |when: &str| looks.iter().any(|look| look.when == when && !look.is_met);
    match text(journal, &["status"]).as_str() {
        "interrupted" => ("interrupted: it was ended by a signal".to_owned(), false),
        "aborted" => ("aborted: it could not be run to its end".to_owned(), false),
        _ if is_broken("before") => {
            ("failed: the hypothesis did not hold before anything was done".to_owned(), false)
        }
        _ if is_broken("during") => {
            ("deviated: the hypothesis did not hold while the method ran".to_owned(), false)
        }
        _ if has_deviated => {
            ("deviated: the hypothesis did not hold after the method".to_owned(), false)
        }
        "completed" if looks.is_empty() => {
            ("completed: no hypothesis was looked at".to_owned(), true)
        }
        "completed" => ("completed: the hypothesis held".to_owned(), true),
        other => (shown(other), false),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn journal() -> Value {
        let look = |is_met: bool, at: &str| {
            json!({ "steady_state_met": is_met, "probes": [{ "activity": { "name": "up" }, "end": at,
            "tolerance_met": is_met, "output": { "status": 500 }, "status": "succeeded" }] })
        };
        json!({
            "experiment": { "title": "<b>x</b>", "description": "a|b",
                "steady-state-hypothesis": { "title": "it is up", "probes": [{ "name": "up", "tolerance": 200 }] } },
            "status": "failed", "deviated": true, "start": "2026-01-01T00:00:00.5+00:00", "duration": 3.5,
            "steady_states": { "before": look(true, "2026-01-01T00:00:01"), "during": [look(false, "2026-01-01T00:00:02Z")], "after": null },
            "run": [{ "activity": { "type": "action", "name": "cut", "provider": { "type": "fault", "fault": "net.loss" } }, "status": "succeeded",
                "start": "2026-01-01T00:00:01+00:00", "end": "2026-01-01T00:00:03+00:00",
                "output": { "counts": { "matched": 7, "affected": 5 }, "series": [{ "at": 0.0, "matched": 0, "affected": 0 }, { "at": 1.0, "matched": 7, "affected": 5 }] } }],
            "packets": { "before": { "rtt": { "p50": 1 } }, "during": { "rtt": { "p50": 9 } } },
        })
    }

    #[test]
    fn both_forms_have_all_of_it_and_escape_it() {
        let report = Report::new(&journal()).expect("a journal");
        let markdown = report.markdown();
        for part in [
            "\\<b\\>x",
            "a\\|b",
            "deviated: the hypothesis did not hold while",
            "| 0.5 | 2.5 | method | action: cut",
            "matched 7, affected 5",
            "| 1.0 | 7 | 5 |",
            "| rtt.p50 | 1 | 9 |",
            "| during | 1 | 0 | 1.5 | up |",
        ] {
            assert!(markdown.contains(part), "{part}: {markdown}");
        }
        let html = report.html();
        for part in ["&lt;b&gt;x", "<svg", "net.loss", "it is up"] {
            assert!(html.contains(part), "{part}: {html}");
        }
        assert!(
            !html.contains("<b>x") && !html.contains("http://") && !html.contains("<script"),
            "it loads and runs nothing"
        );
    }

    #[test]
    fn what_is_no_journal_is_refused_and_what_is_missing_left_out() {
        for wrong in [
            json!(null),
            json!([]),
            json!({ "experiment": {} }),
            json!({ "experiment": 1, "status": "completed" }),
        ] {
            Report::new(&wrong).expect_err(&wrong.to_string());
        }
        let odd = json!({ "experiment": {}, "status": "completed", "run": [1, null, { "output": 3 }], "steady_states": [], "start": 5, "packets": 1 });
        let report = Report::new(&odd).expect("it is read");
        assert!(
            report.markdown().contains("completed: no hypothesis")
                && report.html().contains("<svg")
        );
    }
}
