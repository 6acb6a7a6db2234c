//! What came of an experiment, in the form that the Chaos Toolkit's tools read (chaostoolkit.org, "Experiment Journal").
//!
//! `chaoslib-version` names us instead. Faults add their counts to the output of their activity. Invariants: outputs are cut
//! at a length, and looks at the hypothesis during the method are thinned, so that a journal is bounded. Next: `run`, `report`.

use std::fs;
use std::path::Path;
use std::time::{Instant, SystemTime};

use serde::Serialize;
use serde_json::Value;

use super::packets::Packets;
use crate::error::{During as _, Result};

/// Longest text of an output.
const TEXT_MAX: usize = 64 << 10;
/// And of what is looked at again and again.
const TEXT_DURING_MAX: usize = 1 << 10;
/// Most looks that are kept.
const DURING_MAX: usize = 2048;

/// How an experiment ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// All was done.
    Completed,
    /// The hypothesis did not hold before the method, or while it ran, or could not be looked at.
    Failed,
    /// For a reason of ours.
    Aborted,
    /// A signal came.
    Interrupted,
}

/// How an activity ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It was done.
    Succeeded,
    /// It was not.
    Failed,
}

/// An activity that was run.
#[derive(Clone, Debug, Serialize)]
pub struct Run {
    /// As it was written.
    pub activity: Value,
    /// What came out.
    pub output: Value,
    /// Whether it was done.
    pub status: Outcome,
    /// When it began.
    pub start: String,
    /// When it ended.
    pub end: String,
    /// In seconds.
    pub duration: f64,
    /// Why it was not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exception: Option<Vec<String>>,
    /// Of a hypothesis.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tolerance_met: Option<bool>,
}

/// A look at the hypothesis.
#[derive(Clone, Debug, Serialize)]
pub struct State {
    /// Whether it holds.
    pub steady_state_met: bool,
    /// How that was seen, up to the first that does not.
    pub probes: Vec<Run>,
}

/// All looks.
#[derive(Clone, Debug, Default, Serialize)]
pub struct States {
    /// Before the method.
    pub before: Option<State>,
    /// After it.
    pub after: Option<State>,
    /// While it ran.
    pub during: Vec<State>,
}

/// What came of an experiment.
#[derive(Clone, Debug, Serialize)]
pub struct Journal {
    /// Who ran it.
    #[serde(rename = "chaoslib-version")]
    pub version: &'static str,
    /// On what.
    pub platform: String,
    /// Where.
    pub node: String,
    /// As it was written.
    pub experiment: Value,
    /// When it began.
    pub start: String,
    /// How it ended.
    pub status: Status,
    /// Whether the hypothesis was no more.
    pub deviated: bool,
    /// Looks at the hypothesis.
    pub steady_states: States,
    /// The method.
    pub run: Vec<Run>,
    /// What was done at last.
    pub rollbacks: Vec<Run>,
    /// What packets did. Ours.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub packets: Option<Packets>,
    /// What had no effect here. Ours.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// When it ended.
    pub end: String,
    /// In seconds.
    pub duration: f64,
}

/// A moment, on both clocks.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    wall: SystemTime,
    clock: Instant,
}

impl Moment {
    /// Now.
    #[must_use]
    pub fn now() -> Self {
        Self { wall: SystemTime::now(), clock: Instant::now() }
    }

    /// As journals write it (RFC 3339).
    #[must_use]
    pub fn text(&self) -> String {
        let text = humantime::format_rfc3339_micros(self.wall).to_string();
        format!("{}+00:00", text.trim_end_matches('Z'))
    }

    /// Seconds since then.
    #[must_use]
    pub fn seconds(&self) -> f64 {
        (self.clock.elapsed().as_secs_f64() * 1e6).round() / 1e6
    }
}

impl Run {
    /// An activity that began then, and ends now.
    #[must_use]
    pub fn ended(activity: Value, since: Moment, output: Value, exception: Option<String>) -> Self {
        let mut run = Self {
            activity,
            output,
            status: if exception.is_some() { Outcome::Failed } else { Outcome::Succeeded },
            start: since.text(),
            end: Moment::now().text(),
            duration: since.seconds(),
            exception: exception.map(|text| vec![text]),
            tolerance_met: None,
        };
        cut(&mut run.output, TEXT_MAX);
        run
    }
}

fn cut(value: &mut Value, most: usize) {
    match value {
        Value::String(text) if text.len() > most => {
            let more = text.len() - most;
            text.truncate(text.floor_char_boundary(most));
            text.push_str(&format!("… ({more} bytes more)"));
        }
        Value::Array(items) => items.iter_mut().for_each(|item| cut(item, most)),
        Value::Object(map) => map.values_mut().for_each(|value| cut(value, most)),
        _ => {}
    }
}

impl States {
    /// Adds a look while the method runs.
    pub fn add(&mut self, mut state: State) {
        for probe in &mut state.probes {
            cut(&mut probe.output, TEXT_DURING_MAX);
        }
        if self.during.len() >= DURING_MAX {
            let mut index = 0;
            self.during.retain(|state| {
                index += 1;
                !state.steady_state_met || index % 2 == 0
            });
            // If none held, there is nothing to learn from all of them.
            self.during.truncate(DURING_MAX - 1);
        }
        self.during.push(state);
    }
}

impl Journal {
    /// Of an experiment that begins now.
    #[must_use]
    pub fn begin(experiment: Value, notes: Vec<String>, since: Moment) -> Self {
        let of_kernel = |name: &str| {
            fs::read_to_string(Path::new("/proc/sys/kernel").join(name))
                .unwrap_or_default()
                .trim()
                .to_owned()
        };
        Self {
            version: concat!("chaos ", env!("CARGO_PKG_VERSION")),
            platform: format!(
                "{}-{}-{}",
                of_kernel("ostype"),
                of_kernel("osrelease"),
                std::env::consts::ARCH
            ),
            node: of_kernel("hostname"),
            experiment,
            start: since.text(),
            status: Status::Completed,
            deviated: false,
            steady_states: States::default(),
            run: Vec::new(),
            rollbacks: Vec::new(),
            packets: None,
            notes,
            end: String::new(),
            duration: 0.0,
        }
    }

    /// Whether all was done and the hypothesis held.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.status == Status::Completed && !self.deviated
    }

    /// As a file has it.
    ///
    /// # Errors
    /// None that is known.
    pub fn text(&self) -> Result<String> {
        serde_json::to_string_pretty(self)
            .map(|text| text + "\n")
            .during(|| "write the journal".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn outputs_and_looks_are_bounded() {
        let long = "é".repeat(TEXT_MAX);
        let run = Run::ended(Value::Null, Moment::now(), json!({ "stdout": [long] }), None);
        let text = run.output["stdout"][0].as_str().expect("text");
        assert!(text.len() < TEXT_MAX + 40 && text.ends_with("bytes more)"), "{}", text.len());
        let mut states = States::default();
        for _ in 0..3 * DURING_MAX {
            states.add(State { steady_state_met: true, probes: Vec::new() });
        }
        states.add(State { steady_state_met: false, probes: vec![run] });
        assert!(states.during.len() <= DURING_MAX);
        assert!(!states.during.last().expect("there are some").steady_state_met);
    }
}
