//! Experiments from the files of Chaos Mesh: NetworkChaos, StressChaos, IOChaos, TimeChaos and PhysicalMachineChaos
//! (chaos-mesh.org, `v1alpha1`), also within a Schedule.
//!
//! Chaos Mesh chooses pods, and acts within them; we act on this host. So selectors are notes, and what the file leaves open
//! (the device, the peers, the process) becomes a variable of the experiment. Invariant: each key of a file is mapped, noted, or
//! reported as not mapped, by its path: what the readers do not ask for is found by [`Fields`]. Next: `network`, `host`, `files`.

mod files;
mod host;
mod network;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::time::Duration;

use serde::Deserialize as _;
use serde_json::{Map, Value, json};

use super::text_of;
use crate::error::{Error, Result};
use crate::spec::{TTL_DEFAULT, TTL_MAX};

/// Most documents of a file.
const DOCUMENTS_MAX: usize = 100;

/// What became of a file.
#[derive(Clone, Debug)]
pub struct Imported {
    /// An experiment of the Chaos Toolkit.
    pub experiment: Value,
    /// What is worth knowing.
    pub notes: Vec<String>,
    /// What is not in the experiment, by its path.
    pub unmapped: Vec<String>,
}

/// Reads a file of Chaos Mesh. The device is used where it names none.
///
/// # Errors
/// It is no YAML, or not of Chaos Mesh.
pub fn import(text: &str, device: Option<&str>) -> Result<Imported> {
    super::check_open(text)?;
    let mut import = Import { device: device.map(str::to_owned), ..Import::default() };
    for (index, document) in serde_yaml_ng::Deserializer::from_str(text).enumerate() {
        if index >= DOCUMENTS_MAX {
            return Err(Error::usage(format!("more than {DOCUMENTS_MAX} documents")));
        }
        let document = Value::deserialize(document)
            .map_err(|error| Error::usage(format!("no YAML: {error}")))?;
        if !document.is_null() {
            import.document(&document)?;
        }
    }
    if import.names.is_empty() {
        return Err(Error::usage("there is no document of Chaos Mesh"));
    }
    Ok(import.into_imported())
}

#[derive(Debug, Default)]
struct Import {
    device: Option<String>,
    names: Vec<String>,
    method: Vec<Value>,
    rollbacks: Vec<Value>,
    configuration: Map<String, Value>,
    notes: Vec<String>,
    unmapped: Vec<String>,
    /// Where the document at hand is, for messages.
    at: String,
}

/// A fault to be written.
#[derive(Clone, Debug)]
struct Fault {
    kind: &'static str,
    target: Map<String, Value>,
    share: Value,
    params: Map<String, Value>,
}

impl Fault {
    fn new(kind: &'static str, params: Value) -> Self {
        let params = params.as_object().cloned().unwrap_or_default();
        Self { kind, target: Map::new(), share: Value::Null, params }
    }

    fn on(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.target.insert(key.to_owned(), value.into());
        self
    }

    fn share(self, share: Value) -> Self {
        Self { share, ..self }
    }
}

/// The keys of an object, and which were asked for.
struct Fields<'v> {
    map: Option<&'v Map<String, Value>>,
    path: String,
    asked: RefCell<BTreeSet<String>>,
}

impl<'v> Fields<'v> {
    fn new(value: &'v Value, path: impl Into<String>) -> Self {
        Self { map: value.as_object(), path: path.into(), asked: RefCell::default() }
    }

    /// The value of a key, if it says something.
    fn get(&self, name: &str) -> Option<&'v Value> {
        self.asked.borrow_mut().insert(name.to_owned());
        let value = self.map?.get(name)?;
        let is_empty = match value {
            Value::Null => true,
            Value::String(text) => text.is_empty(),
            Value::Array(items) => items.is_empty(),
            Value::Object(map) => map.is_empty(),
            _ => false,
        };
        (!is_empty).then_some(value)
    }

    fn text(&self, name: &str) -> Option<String> {
        self.get(name).map(text_of)
    }

    fn path(&self, name: &str) -> String {
        format!("{}.{name}", self.path)
    }

    /// The object of a key.
    fn inner(&self, name: &str) -> Option<Self> {
        self.get(name).map(|value| Fields::new(value, self.path(name)))
    }

    /// Keys that nobody asked for.
    fn left(&self) -> Vec<String> {
        let asked = self.asked.borrow();
        let keys = self.map.into_iter().flatten().map(|(key, _)| key);
        keys.filter(|key| !asked.contains(*key)).map(|key| self.path(key)).collect()
    }
}

impl Import {
    fn note(&mut self, path: &str, what: impl std::fmt::Display) {
        self.notes.push(format!("{}{path}: {what}", self.at));
    }

    fn unmapped(&mut self, path: &str, what: impl std::fmt::Display) {
        self.unmapped.push(format!("{}{path}: {what}", self.at));
    }

    /// Reports what nobody asked for.
    fn finish(&mut self, fields: &Fields<'_>) {
        for path in fields.left() {
            self.unmapped(&path, "there is nothing like it here");
        }
    }

    fn document(&mut self, document: &Value) -> Result<()> {
        let of = |name: &str| document.get(name).and_then(Value::as_str);
        let kind = of("kind").ok_or_else(|| Error::usage("a document without a kind"))?;
        if !of("apiVersion").is_some_and(|version| version.starts_with("chaos-mesh.org/")) {
            return Err(Error::usage(format!(
                "a document of kind {kind}: its apiVersion is not chaos-mesh.org's"
            )));
        }
        let metadata = document.get("metadata").unwrap_or(&Value::Null);
        let name = metadata.get("name").and_then(Value::as_str).unwrap_or("unnamed");
        self.names.push(format!("{kind} {name}"));
        self.at = format!("{kind} {name}: ");
        let top = Fields::new(document, "");
        for known in ["apiVersion", "kind", "metadata", "status", "spec"] {
            top.get(known);
        }
        self.finish(&top);
        let spec = document.get("spec").unwrap_or(&Value::Null);
        if kind == "Schedule" {
            self.schedule(spec, name)
        } else {
            self.kind(kind, &Fields::new(spec, "spec"), name)
        }
        Ok(())
    }

    /// A fault that comes again by the clock: once here.
    fn schedule(&mut self, spec: &Value, name: &str) {
        let fields = Fields::new(spec, "spec");
        if let Some(when) = fields.text("schedule") {
            self.unmapped("spec.schedule", format_args!("{when:?}: the fault is injected once"));
        }
        for about in ["historyLimit", "concurrencyPolicy", "startingDeadlineSeconds"] {
            fields.get(about);
        }
        let kind = fields.text("type").unwrap_or_default();
        // As in `NetworkChaos`, `networkChaos`.
        let mut key = kind.clone();
        let upper = key
            .chars()
            .take_while(char::is_ascii_uppercase)
            .count()
            .saturating_sub(1)
            .max(1)
            .min(key.len());
        if let Some(head) = key.get_mut(..upper) {
            head.make_ascii_lowercase();
        }
        match fields.inner(&key) {
            Some(inner) => self.kind(&kind, &inner, name),
            None => self.unmapped("spec.type", format_args!("{kind:?}: there is nothing of it")),
        }
        self.finish(&fields);
    }

    fn kind(&mut self, kind: &str, spec: &Fields<'_>, name: &str) {
        let faults = match kind {
            "NetworkChaos" => self.network_chaos(spec),
            "StressChaos" => self.stress_chaos(spec),
            "IOChaos" => self.io_chaos(spec),
            "TimeChaos" => self.time_chaos(spec),
            "PhysicalMachineChaos" => self.machine_chaos(spec),
            _ => {
                return self
                    .unmapped("kind", format_args!("{kind}: there is nothing like it here"));
            }
        };
        self.selectors(spec);
        let ttl = self.ttl(spec);
        self.finish(spec);
        for (index, fault) in faults.iter().enumerate() {
            let number = if faults.len() > 1 { format!(" {}", index + 1) } else { String::new() };
            self.activity(&format!("{name}{number}: {}", fault.kind), fault, ttl);
        }
    }

    fn selectors(&mut self, spec: &Fields<'_>) {
        let chosen = ["selector", "mode", "value", "containerNames", "address"];
        let given: Vec<&str> = chosen.into_iter().filter(|name| spec.get(name).is_some()).collect();
        if !given.is_empty() {
            let paths: Vec<String> = given.iter().map(|name| spec.path(name)).collect();
            self.note(
                &paths.join(", "),
                "pods and machines cannot be chosen from here: the fault acts on this host",
            );
        }
    }

    fn ttl(&mut self, spec: &Fields<'_>) -> Duration {
        let path = spec.path("duration");
        let Some(text) = spec.text("duration") else {
            self.note(
                &path,
                format_args!(
                    "without it, a fault ends after {} here",
                    humantime::format_duration(TTL_DEFAULT)
                ),
            );
            return TTL_DEFAULT;
        };
        match duration(&text) {
            Some(duration) if duration > TTL_MAX => {
                self.unmapped(&path, format_args!("{text}: a fault lasts an hour at most"));
                TTL_MAX
            }
            Some(duration) if !duration.is_zero() => duration,
            _ => {
                self.unmapped(&path, format_args!("{text:?} is no duration"));
                TTL_DEFAULT
            }
        }
    }

    fn activity(&mut self, name: &str, fault: &Fault, ttl: Duration) {
        let mut provider = Map::new();
        provider.insert("type".to_owned(), Value::from("fault"));
        provider.insert("fault".to_owned(), Value::from(fault.kind));
        if !fault.target.is_empty() {
            provider.insert("target".to_owned(), Value::Object(fault.target.clone()));
        }
        if !fault.share.is_null() {
            provider.insert("share".to_owned(), fault.share.clone());
        }
        if !fault.params.is_empty() {
            provider.insert("params".to_owned(), Value::Object(fault.params.clone()));
        }
        provider.insert("ttl".to_owned(), Value::from(humantime::format_duration(ttl).to_string()));
        self.method.push(json!({ "type": "action", "name": name, "provider": provider }));
    }

    /// A variable that is to be given, or comes from the environment.
    fn variable(&mut self, name: &str, default: Option<&str>) -> String {
        let key = format!("CHAOS_{}", name.to_ascii_uppercase());
        let mut value = json!({ "type": "env", "key": key });
        if let (Some(default), Value::Object(value)) = (default, &mut value) {
            value.insert("default".to_owned(), Value::from(default));
        }
        if self.configuration.insert(name.to_owned(), value).is_none() {
            let or = default.map_or_else(String::new, |default| format!("; {default} otherwise"));
            self.note(
                &format!("configuration.{name}"),
                format_args!("give it with --var {name}=… or in {key}{or}"),
            );
        }
        format!("${{{name}}}")
    }

    fn into_imported(mut self) -> Imported {
        let at_once = self.method.len() > 1;
        for activity in &mut self.method {
            if let (true, Value::Object(activity)) = (at_once, activity) {
                activity.insert("background".to_owned(), Value::from(true));
            }
        }
        let names = self.names.join(", ");
        let mut experiment = json!({
            "version": "1.0.0",
            "title": names,
            "description": format!("Faults of Chaos Mesh's {names}, on this host. It has no steady-state hypothesis yet."),
            "tags": ["chaos-mesh"],
            "method": self.method,
            "rollbacks": self.rollbacks,
        });
        if let (false, Value::Object(experiment)) = (self.configuration.is_empty(), &mut experiment)
        {
            experiment.insert("configuration".to_owned(), Value::Object(self.configuration));
        }
        Imported { experiment, notes: self.notes, unmapped: self.unmapped }
    }
}

/// A duration as Go writes it: `1h30m`, `1.5s`, `100us`, also with a sign in front, which is dropped.
fn duration(text: &str) -> Option<Duration> {
    let mut rest = text.trim().trim_start_matches(['-', '+']);
    let mut all = Duration::ZERO;
    if rest == "0" {
        return Some(all);
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(rest.len());
        let (number, behind) = rest.split_at(digits);
        let letters = behind.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(behind.len());
        let (unit, behind) = behind.split_at(letters);
        let seconds = match unit.trim() {
            "ns" => 1e-9,
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        let part = Duration::try_from_secs_f64(number.parse::<f64>().ok()? * seconds).ok()?;
        all = all.checked_add(part)?;
        rest = behind;
    }
    (!text.trim().is_empty()).then_some(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiment::toolkit::Experiment;

    fn read(text: &str) -> Imported {
        let imported = import(text, Some("eth7")).expect("it is read");
        Experiment::new(imported.experiment.clone()).expect("it is an experiment");
        imported
    }

    fn provider(imported: &Imported, index: usize) -> &Value {
        &imported.experiment["method"][index]["provider"]
    }

    #[test]
    fn losses_to_networks_outside_become_ours() {
        let imported = read(
            "apiVersion: chaos-mesh.org/v1alpha1\nkind: NetworkChaos\nmetadata: {name: n}\nspec:\n  action: loss\n  mode: one\n  \
             selector: {namespaces: [d]}\n  loss: {loss: '25', correlation: '0'}\n  direction: both\n  externalTargets: [10.0.0.2, 10.1.0.0/16]\n  duration: 1m30s\n",
        );
        assert!(imported.unmapped.is_empty(), "{:?}", imported.unmapped);
        assert_eq!(
            provider(&imported, 0),
            &json!({ "type": "fault", "fault": "net.loss", "share": { "percent": 25.0 }, "ttl": "1m 30s",
                "target": { "dev": "eth7", "dir": "out", "dst": ["10.0.0.2/32", "10.1.0.0/16"] } })
        );
        assert_eq!(
            provider(&imported, 1)["target"],
            json!({ "dev": "eth7", "dir": "in", "src": ["10.0.0.2/32", "10.1.0.0/16"] })
        );
        assert_eq!(imported.experiment["method"][0]["background"], true);
        assert!(imported.notes.iter().any(|note| note.contains("spec.selector")));
    }

    #[test]
    fn what_has_no_like_is_reported_by_its_path() {
        let imported = read(
            "apiVersion: chaos-mesh.org/v1alpha1\nkind: NetworkChaos\nmetadata: {name: n}\nspec:\n  action: delay\n  mode: all\n  \
             delay: {latency: 10ms, correlation: '50', jitter: 1ms, reorder: {reorder: '5', gap: 2, correlation: '9'}}\n  externalTargets: [example.org]\n  color: red\n  duration: 5h\n",
        );
        for path in [
            "spec.delay.correlation",
            "spec.delay.reorder.gap",
            "spec.delay.reorder.correlation",
            "spec.externalTargets[0]",
            "spec.color",
            "spec.duration",
        ] {
            assert!(
                imported.unmapped.iter().any(|one| one.contains(path)),
                "{path}: {:?}",
                imported.unmapped
            );
        }
    }

    #[test]
    fn durations_are_those_of_go() {
        assert_eq!(duration("1h30m"), Some(Duration::from_secs(5400)));
        assert_eq!(duration("-1.5s"), Some(Duration::from_millis(1500)));
        assert_eq!(duration("100us"), Some(Duration::from_micros(100)));
        for wrong in ["", "5", "x", "5 parsecs", "1e400h"] {
            assert_eq!(duration(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn other_files_are_refused() {
        for wrong in [
            "",
            "kind: Pod\napiVersion: v1\n",
            "- 1\n",
            "a: [",
            "apiVersion: chaos-mesh.org/v1alpha1\n",
        ] {
            import(wrong, None).expect_err(wrong);
        }
    }
}
