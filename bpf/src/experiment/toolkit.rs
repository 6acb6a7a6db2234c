//! Experiments as the Chaos Toolkit writes them: read, and checked as a whole.
//!
//! What is wrong is told all at once, by its path. What is right but cannot be done here (a `python` provider) is kept apart, so that a file
//! can be looked at without being run; what has no effect here (controls, extensions) is a note. Reference:
//! chaostoolkit.org, "An Open API for Chaos Engineering Experiments". Next: `variables`, `provider`, `run`.

use std::path::Path;

use serde_json::Value;

use super::{tolerance, variables};
use crate::error::{Error, Kind, Result};

/// Most activities of a section.
pub const ACTIVITIES_MAX: usize = 1000;
/// Most activities of a section that run in the background, each on a thread.
pub const BACKGROUND_MAX: usize = 64;

/// What is not done in a dry run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dry {
    /// All is done.
    #[default]
    Nothing,
    /// Probes are not.
    Probes,
    /// Actions are not.
    Actions,
    /// Neither is.
    Activities,
    /// Pauses are not.
    Pause,
}

/// When rollbacks are done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rollbacks {
    /// Unless the experiment failed or was interrupted.
    #[default]
    Default,
    /// In any case.
    Always,
    /// In none.
    Never,
    /// When the steady state did not hold.
    Deviated,
}

/// When the hypothesis is looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Strategy {
    /// Before the method and after.
    #[default]
    Default,
    /// Before.
    Before,
    /// After.
    After,
    /// While the method runs.
    During,
    /// All three.
    Continuously,
    /// Never.
    Skip,
}

macro_rules! words {
    ($type:ty, $what:literal, $($word:literal => $value:ident),+) => {
        impl std::str::FromStr for $type {
            type Err = Error;

            fn from_str(text: &str) -> Result<Self> {
                match text {
                    $($word => Ok(Self::$value),)+
                    _ => Err(Error::usage(format!(concat!($what, " {:?}: one of {} is wanted"), text, [$($word),+].join(", ")))),
                }
            }
        }
    };
}

words!(Dry, "dry run of", "probes" => Probes, "actions" => Actions, "activities" => Activities, "pause" => Pause);
words!(Rollbacks, "rollback strategy", "default" => Default, "always" => Always, "never" => Never, "deviated" => Deviated);
words!(Strategy, "hypothesis strategy", "default" => Default, "before-method-only" => Before, "after-method-only" => After,
    "during-method-only" => During, "continuously" => Continuously, "continuous" => Continuously, "skip" => Skip);

impl Strategy {
    /// Whether it is looked at before the method.
    #[must_use]
    pub const fn is_before(self) -> bool {
        matches!(self, Self::Default | Self::Before | Self::Continuously)
    }

    /// While the method runs.
    #[must_use]
    pub const fn is_during(self) -> bool {
        matches!(self, Self::During | Self::Continuously)
    }

    /// After the method.
    #[must_use]
    pub const fn is_after(self) -> bool {
        matches!(self, Self::Default | Self::After | Self::Continuously)
    }
}

/// A probe or an action.
#[derive(Clone, Debug)]
pub struct Activity {
    /// As it was written, or what it refers to.
    pub raw: Value,
    /// Its name.
    pub name: String,
    /// It does something; probes look.
    pub is_action: bool,
    /// The next does not wait for it.
    pub background: bool,
    /// Instead of what is said of the whole.
    pub dry: Option<Dry>,
}

impl Activity {
    /// How it is done.
    #[must_use]
    pub fn provider(&self) -> &Value {
        self.raw.get("provider").unwrap_or(&Value::Null)
    }

    /// What is expected of it.
    #[must_use]
    pub fn tolerance(&self) -> Option<&Value> {
        self.raw.get("tolerance")
    }
}

/// An experiment.
#[derive(Clone, Debug)]
pub struct Experiment {
    /// As it was written.
    pub raw: Value,
    /// Its title.
    pub title: String,
    /// What is believed.
    pub hypothesis: String,
    /// How that is seen.
    pub probes: Vec<Activity>,
    /// What is done.
    pub method: Vec<Activity>,
    /// What is done at last.
    pub rollbacks: Vec<Activity>,
    /// When.
    pub rollback_strategy: Rollbacks,
    /// When the probes are looked at.
    pub strategy: Strategy,
    /// Not done, by the file's own word.
    pub dry: Dry,
    /// What has no effect here.
    pub notes: Vec<String>,
    /// What cannot be done here.
    pub unsupported: Vec<String>,
}

/// What was found on the way through a file.
#[derive(Debug, Default)]
struct Findings {
    wrong: Vec<String>,
    unsupported: Vec<String>,
    notes: Vec<String>,
}

impl Findings {
    fn wrong(&mut self, path: &str, what: impl std::fmt::Display) {
        self.wrong.push(format!("{path}: {what}"));
    }

    fn error(&mut self, path: &str, error: &Error) {
        let list =
            if error.kind == Kind::Unsupported { &mut self.unsupported } else { &mut self.wrong };
        list.push(format!("{path}: {error}"));
    }

    /// The text of that name, which has to be there.
    fn text(&mut self, of: &Value, path: &str, name: &str) -> String {
        match of.get(name).and_then(Value::as_str) {
            Some(text) if !text.is_empty() => text.to_owned(),
            _ => {
                self.wrong(path, format_args!("a {name} is wanted"));
                String::new()
            }
        }
    }

    /// The word of that name, if it is there.
    fn word<T: std::str::FromStr<Err = Error>>(
        &mut self,
        of: &Value,
        path: &str,
        name: &str,
    ) -> Option<T> {
        let text = match of.get(name)? {
            Value::Null | Value::Bool(false) => return None,
            value => super::text_of(value),
        };
        text.parse().map_err(|error| self.error(&format!("{path}.{name}"), &error)).ok()
    }

    fn list<'v>(&mut self, of: &'v Value, name: &str) -> &'v [Value] {
        match of.get(name) {
            None | Some(Value::Null) => &[],
            Some(Value::Array(items)) if items.len() <= ACTIVITIES_MAX => items,
            Some(_) => {
                self.wrong(name, format_args!("a list of at most {ACTIVITIES_MAX} is wanted"));
                &[]
            }
        }
    }
}

/// Keys of the schema; others are noted.
const KEYS: &[&str] = &[
    "version",
    "title",
    "description",
    "tags",
    "contributions",
    "configuration",
    "secrets",
    "steady-state-hypothesis",
    "method",
    "rollbacks",
    "runtime",
    "controls",
    "extensions",
    "dry",
];
/// Providers that there are.
const PROVIDERS: &[&str] = &["process", "http", "fault", "promql"];

impl Experiment {
    /// Reads a file.
    ///
    /// # Errors
    /// It cannot be read, or is no experiment.
    pub fn read(path: &Path) -> Result<Self> {
        let value = super::parse(&super::read_text(path)?);
        value.and_then(Self::new).map_err(|error| error.during(&path.display().to_string()))
    }

    /// An experiment from what was read.
    ///
    /// # Errors
    /// It is none; all that is wrong is told.
    pub fn new(raw: Value) -> Result<Self> {
        let mut found = Findings::default();
        let all = &raw;
        if !all.is_object() {
            return Err(Error::usage("no experiment: an object is wanted"));
        }
        let title = found.text(all, "experiment", "title");
        found.text(all, "experiment", "description");
        sections(all, &mut found);
        let hypothesis =
            all.get("steady-state-hypothesis").filter(|value| !value.is_null()).cloned();
        let has_hypothesis = hypothesis.is_some();
        let hypothesis = hypothesis.unwrap_or_default();
        let refers = References { all, hypothesis: &hypothesis };
        let probes =
            refers.activities(&hypothesis, "probes", "steady-state-hypothesis.", &mut found);
        for (index, probe) in probes.iter().enumerate() {
            if probe.tolerance().is_none() {
                found.wrong(
                    &format!("steady-state-hypothesis.probes[{index}]"),
                    "a tolerance is wanted",
                );
            }
        }
        let believed = if has_hypothesis {
            found.text(&hypothesis, "steady-state-hypothesis", "title")
        } else {
            String::new()
        };
        if all.get("method").is_none() {
            found.wrong("experiment", "a method is wanted, which may be empty");
        }
        let method = refers.activities(all, "method", "", &mut found);
        let rollbacks = refers.activities(all, "rollbacks", "", &mut found);
        let runtime = all.get("runtime").unwrap_or(&Value::Null);
        let strategy = |name: &str| runtime.get(name).unwrap_or(&Value::Null);
        let rollback_strategy = found.word(strategy("rollbacks"), "runtime.rollbacks", "strategy");
        let hypothesis_strategy =
            found.word(strategy("hypothesis"), "runtime.hypothesis", "strategy");
        let dry = found.word(all, "experiment", "dry");
        if !found.wrong.is_empty() {
            return Err(Error::usage(format!("no experiment:\n  {}", found.wrong.join("\n  "))));
        }
        Ok(Self {
            title,
            hypothesis: believed,
            probes,
            method,
            rollbacks,
            rollback_strategy: rollback_strategy.unwrap_or_default(),
            strategy: hypothesis_strategy.unwrap_or_default(),
            dry: dry.unwrap_or_default(),
            notes: found.notes,
            unsupported: found.unsupported,
            raw,
        })
    }

    /// Refuses what cannot be done here.
    ///
    /// # Errors
    /// All of it.
    pub fn check_supported(&self) -> Result<()> {
        if self.unsupported.is_empty() {
            return Ok(());
        }
        Err(Error::unsupported(format!(
            "this experiment cannot be run here:\n  {}",
            self.unsupported.join("\n  ")
        )))
    }
}

/// Sections beside the activities.
fn sections(all: &Value, found: &mut Findings) {
    for (index, tag) in found.list(all, "tags").iter().enumerate() {
        if tag.as_str().is_none_or(str::is_empty) {
            found.wrong(&format!("tags[{index}]"), "a text is wanted");
        }
    }
    for name in ["configuration", "secrets", "contributions", "runtime"] {
        if all.get(name).is_some_and(|value| !value.is_object() && !value.is_null()) {
            found.wrong(name, "an object is wanted");
        }
    }
    controls(all, "experiment", found);
    if all.get("extensions").is_some() {
        found.notes.push("extensions: they belong to other tools, and have no effect".to_owned());
    }
    let keys = all.as_object().into_iter().flat_map(serde_json::Map::keys);
    for key in keys.filter(|key| !KEYS.contains(&key.as_str()) && !key.starts_with("x-")) {
        found.notes.push(format!("{key}: there is no such section, and it has no effect"));
    }
    let configuration = all.get("configuration").and_then(Value::as_object);
    for (name, value) in
        configuration.into_iter().flatten().filter(|(_, value)| variables::is_probe(value))
    {
        activity(value, &format!("configuration.{name}"), found);
    }
    secrets(all.get("secrets").unwrap_or(&Value::Null), "secrets", found);
}

fn secrets(value: &Value, path: &str, found: &mut Findings) {
    if value.get("type").and_then(Value::as_str) == Some("vault") {
        found.unsupported.push(format!("{path}: secrets of a vault cannot be read"));
    }
    for (name, value) in value.as_object().into_iter().flatten() {
        secrets(value, &format!("{path}.{name}"), found);
    }
}

fn controls(of: &Value, path: &str, found: &mut Findings) {
    if of.get("controls").and_then(Value::as_array).is_some_and(|controls| !controls.is_empty()) {
        found
            .notes
            .push(format!("{path}.controls: they are code of other tools, and have no effect"));
    }
}

/// Where activities that others refer to by their name are.
struct References<'v> {
    all: &'v Value,
    hypothesis: &'v Value,
}

impl References<'_> {
    fn find(&self, name: &str) -> Option<&Value> {
        let lists =
            [self.hypothesis.get("probes"), self.all.get("method"), self.all.get("rollbacks")];
        let mut activities = lists.into_iter().flatten().filter_map(Value::as_array).flatten();
        activities.find(|activity| activity.get("name").and_then(Value::as_str) == Some(name))
    }

    fn activities(
        &self,
        of: &Value,
        name: &str,
        base: &str,
        found: &mut Findings,
    ) -> Vec<Activity> {
        if !base.is_empty() {
            controls(of, base.trim_end_matches('.'), found);
        }
        let mut activities = Vec::new();
        for (index, value) in found.list(of, name).iter().enumerate() {
            let path = format!("{base}{name}[{index}]");
            let value = match value.get("ref") {
                None => Some(value),
                Some(name) => {
                    let referred = name.as_str().and_then(|name| self.find(name));
                    if referred.is_none() {
                        found.wrong(&path, format_args!("there is no activity of the name {name}"));
                    }
                    referred
                }
            };
            activities.extend(value.and_then(|value| activity(value, &path, found)));
        }
        if activities.iter().filter(|activity| activity.background).count() > BACKGROUND_MAX {
            found.wrong(
                &format!("{base}{name}"),
                format_args!("at most {BACKGROUND_MAX} in the background are wanted"),
            );
        }
        activities
    }
}

fn activity(raw: &Value, path: &str, found: &mut Findings) -> Option<Activity> {
    if !raw.is_object() {
        found.wrong(path, "an object is wanted");
        return None;
    }
    let is_action = match raw.get("type").and_then(Value::as_str) {
        Some("action") => true,
        Some("probe") => false,
        _ => {
            found.wrong(path, "a type of probe or action is wanted");
            false
        }
    };
    let name = found.text(raw, path, "name");
    controls(raw, path, found);
    provider(raw, path, found);
    let background = raw.get("background").unwrap_or(&Value::Bool(false));
    if !background.is_boolean() {
        found.wrong(path, "background is true or false");
    }
    for when in ["before", "after"] {
        let pause = raw.get("pauses").and_then(|pauses| pauses.get(when));
        if let Some(Err(error)) =
            pause.filter(|pause| !is_variable(pause)).map(|pause| super::seconds(pause, "pause"))
        {
            found.error(&format!("{path}.pauses.{when}"), &error);
        }
    }
    if let Some(wanted) = raw.get("tolerance") {
        if let Err(error) = tolerance::check(wanted) {
            found.error(&format!("{path}.tolerance"), &error);
        }
        if wanted.get("type").and_then(Value::as_str) == Some("probe") {
            activity(wanted, &format!("{path}.tolerance"), found);
        }
    }
    let dry = found.word(raw, path, "dry");
    Some(Activity {
        raw: raw.clone(),
        name,
        is_action,
        background: background == &Value::Bool(true),
        dry,
    })
}

/// Whether a value is known only when variables are.
fn is_variable(value: &Value) -> bool {
    value.as_str().is_some_and(|text| text.contains('$'))
}

fn provider(raw: &Value, path: &str, found: &mut Findings) {
    let path = format!("{path}.provider");
    let provider = raw.get("provider").unwrap_or(&Value::Null);
    match provider.get("type").and_then(Value::as_str) {
        None => found.wrong(&path, "a provider with a type is wanted"),
        Some("python") => {
            let named = |name: &str| provider.get(name).and_then(Value::as_str).unwrap_or("?");
            let what = format!("{path}: python provider {}.{}", named("module"), named("func"));
            found
                .unsupported
                .push(format!("{what}: there is no Python here; `process` may call it"));
        }
        Some(ty) if !PROVIDERS.contains(&ty) => {
            found.wrong(
                &path,
                format_args!("type {ty:?}: one of {} is wanted", PROVIDERS.join(", ")),
            );
        }
        Some(ty) => {
            if ty == "http" && provider.get("verify_tls").is_some() {
                found
                    .notes
                    .push(format!("{path}.verify_tls: there is no TLS, and it has no effect"));
            }
            // What holds variables is checked again when they have their values.
            let is_open = provider.to_string().contains('$');
            if let Some(Err(error)) = (!is_open).then(|| super::provider::Provider::read(provider))
            {
                found.error(&path, &error);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn all_that_is_wrong_is_told_by_its_path() {
        let error = Experiment::new(json!({
            "description": "x",
            "steady-state-hypothesis": { "probes": [{ "type": "probe", "name": "p", "provider": { "type": "http" } }] },
            "method": [{ "type": "other", "name": "a", "provider": { "type": "smoke" }, "pauses": { "before": "soon" } }, { "ref": "none" }],
            "runtime": { "rollbacks": { "strategy": "sometimes" } },
        }));
        let error = error.expect_err("it is none").to_string();
        for part in [
            "experiment: a title",
            "steady-state-hypothesis: a title",
            "steady-state-hypothesis.probes[0]: a tolerance",
            "steady-state-hypothesis.probes[0].provider: http: a url",
            "method[0]: a type",
            "method[0].provider: type \"smoke\"",
            "method[0].pauses.before",
            "method[1]: there is no activity",
            "runtime.rollbacks.strategy",
        ] {
            assert!(error.contains(part), "{part}: {error}");
        }
    }

    #[test]
    fn what_has_no_effect_is_noted_and_what_cannot_be_done_is_kept_apart() {
        let experiment = Experiment::new(json!({
            "title": "t", "description": "d", "controls": [{ "name": "c" }], "weather": "fine",
            "method": [{ "type": "action", "name": "a", "provider": { "type": "python", "module": "m", "func": "f" } }],
        }));
        let experiment = experiment.expect("an experiment");
        assert!(experiment.notes.iter().any(|note| note.starts_with("experiment.controls")));
        assert!(experiment.notes.iter().any(|note| note.starts_with("weather")));
        let error = experiment.check_supported().expect_err("there is no Python");
        assert_eq!(error.kind, Kind::Unsupported);
        assert!(error.to_string().contains("method[0].provider: python provider m.f"), "{error}");
    }
}
