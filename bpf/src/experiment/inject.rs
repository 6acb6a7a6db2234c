//! The provider `fault`: one of ours, or several one after the other, each once or in pulses.
//!
//! ```yaml
//! provider:
//!   type: fault
//!   fault: net.loss                # or `scenario: loss-10`
//!   target: {dev: eth0, port: 9092}
//!   share: {percent: 10}
//!   ttl: 5s
//!   netns: lab                     # of `ip netns`
//!   pulses: {on: 1s, off: 2s, times: 5}
//! ```
//! With `sequence`, a list of such, what stands beside the list holds for each that does not say otherwise.
//! Invariants: a fault runs on a thread of its own, which its keeper may move to another network namespace, and is undone there; all of a plan
//! lasts an hour at most; its counts are noted each second. Next: `keeper`, `run`.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use super::provider::{Failure, Setting};
use super::{seconds, text_of};
use crate::abi::Counts;
use crate::error::{Error, Result};
use crate::fault;
use crate::keeper::{End, Kept};
use crate::scenario;
use crate::spec::{Spec, TTL_MAX};

/// Most faults of a sequence.
const STEPS_MAX: usize = 100;
/// Most pulses of a fault.
const PULSES_MAX: u64 = 1000;

/// What a provider injects.
#[derive(Clone, Debug)]
pub struct Plan(Vec<Step>);

#[derive(Clone, Debug)]
struct Step {
    spec: Spec,
    netns: Option<String>,
    pulses: Option<Pulses>,
}

/// A fault that comes and goes.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Pulses {
    on: Duration,
    off: Duration,
    times: u64,
}

/// Keys of a fault that are those of a spec.
const OF_SPEC: &[&str] =
    &["fault", "target", "share", "params", "ttl", "max_hits", "shadow", "force"];
/// And those that are not.
const BESIDE: &[&str] = &["type", "scenario", "netns", "pulses", "sequence"];

fn wrong(what: impl std::fmt::Display) -> Error {
    Error::usage(format!("fault: {what}"))
}

impl Plan {
    /// Reads one.
    ///
    /// # Errors
    /// It is none.
    pub fn read(provider: &Value) -> Result<Self> {
        let map = provider.as_object().ok_or_else(|| wrong("an object is wanted"))?;
        let steps: Vec<Step> = match map.get("sequence") {
            None => vec![Step::read(map)?],
            Some(Value::Array(steps)) if (1..=STEPS_MAX).contains(&steps.len()) => steps
                .iter()
                .enumerate()
                .map(|(index, step)| {
                    let step = step.as_object().ok_or_else(|| wrong("an object is wanted"));
                    let step = step.and_then(|step| Step::read(&over(map, step)));
                    step.map_err(|error| error.during(&format!("sequence[{index}]")))
                })
                .collect::<Result<_>>()?,
            Some(_) => {
                return Err(wrong(format_args!("a sequence of 1 to {STEPS_MAX} faults is wanted")));
            }
        };
        let plan = Self(steps);
        if plan.length() > TTL_MAX {
            return Err(wrong(format_args!(
                "all together lasts {}, more than {}",
                humantime::format_duration(plan.length()),
                humantime::format_duration(TTL_MAX)
            )));
        }
        Ok(plan)
    }

    /// Checks that there are such faults, and that they make sense.
    ///
    /// # Errors
    /// They do not.
    pub fn check(&self) -> Result<()> {
        self.0.iter().try_for_each(|step| {
            step.spec.check()?;
            step.spec.share.to_abi(0)?;
            super::check_netns(step.netns.as_deref())?;
            fault::find(&step.spec.fault)?.check(&step.spec)
        })
    }

    /// How long it lasts at most.
    #[must_use]
    pub fn length(&self) -> Duration {
        self.0.iter().fold(Duration::ZERO, |all, step| all.saturating_add(step.length()))
    }

    /// Injects it, and waits for its end, or for the halt, which undoes it at once.
    ///
    /// # Errors
    /// A fault cannot be started, or not be undone.
    pub fn run(&self, setting: Setting<'_>) -> Result<Value, Failure> {
        let progress = Mutex::new(Progress::new());
        let done = std::thread::scope(|scope| {
            let work = || self.0.iter().try_for_each(|step| step.run(setting, &progress));
            scope
                .spawn(work)
                .join()
                .unwrap_or_else(|_| Err(Error::failed("fault: its thread panicked")))
        });
        let output = progress.into_inner().unwrap_or_else(PoisonError::into_inner).into_output();
        match done {
            Ok(()) => Ok(output),
            Err(error) => Err(Failure { error, output }),
        }
    }
}

/// The keys of a step over those that hold for all; targets and parameters key by key.
fn over(base: &Map<String, Value>, step: &Map<String, Value>) -> Map<String, Value> {
    let mut all = base.clone();
    all.remove("sequence");
    for (key, value) in step {
        match (all.get_mut(key), value) {
            (Some(Value::Object(base)), Value::Object(value))
                if matches!(key.as_str(), "target" | "params") =>
            {
                base.extend(value.clone());
            }
            _ => {
                all.insert(key.clone(), value.clone());
            }
        }
    }
    // The one that names the fault.
    if step.contains_key("fault") {
        all.remove("scenario");
    } else if step.contains_key("scenario") {
        all.remove("fault");
    }
    all
}

impl Step {
    fn read(map: &Map<String, Value>) -> Result<Self> {
        if let Some(key) = map
            .keys()
            .find(|key| ![OF_SPEC, BESIDE].iter().any(|keys| keys.contains(&key.as_str())))
        {
            return Err(wrong(format_args!(
                "there is no {key:?}; {} and {} are known",
                OF_SPEC.join(", "),
                BESIDE.join(", ")
            )));
        }
        let mut given: Map<String, Value> = map
            .iter()
            .filter(|(key, _)| OF_SPEC.contains(&key.as_str()))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        // A number of seconds is as good as a text.
        if let Some(ttl) = given.get_mut("ttl") {
            let duration = seconds(ttl, "ttl")?;
            *ttl = Value::from(humantime::format_duration(duration).to_string());
        }
        if let Some(name) = map.get("scenario").map(text_of) {
            let found = scenario::find(&name)?
                .ok_or_else(|| wrong(format_args!("scenario {name:?}: there is none")))?;
            let base = serde_json::to_value(found.spec()).map_err(wrong)?;
            given = over(base.as_object().unwrap_or(&Map::new()), &given);
        }
        let spec: Spec = serde_json::from_value(Value::Object(given)).map_err(wrong)?;
        let netns = map.get("netns").filter(|netns| !netns.is_null()).map(text_of);
        let pulses = map.get("pulses").map(Pulses::read).transpose()?;
        Ok(Self { spec, netns, pulses })
    }

    fn length(&self) -> Duration {
        self.pulses.map_or(self.spec.ttl, |pulses| {
            let times = u32::try_from(pulses.times).unwrap_or(u32::MAX);
            (pulses.on.saturating_add(pulses.off)).saturating_mul(times)
        })
    }

    fn run(&self, setting: Setting<'_>, progress: &Mutex<Progress>) -> Result<()> {
        let Some(pulses) = self.pulses else { return self.once(&self.spec, setting, progress) };
        let mut hits = 0;
        for pulse in 0..pulses.times {
            let mut spec = Spec { ttl: pulses.on, ..self.spec.clone() };
            if self.spec.max_hits > 0 {
                // What is allowed is allowed to all pulses together.
                spec.max_hits = self.spec.max_hits.saturating_sub(hits);
                if spec.max_hits == 0 {
                    return Ok(());
                }
            }
            let before = lock(progress).counts().affected;
            self.once(&spec, setting, progress)?;
            hits += lock(progress).counts().affected.saturating_sub(before);
            if setting.halt.is_set()
                || (pulse + 1 < pulses.times && !setting.halt.sleep(pulses.off))
            {
                return Ok(());
            }
        }
        Ok(())
    }

    fn once(&self, spec: &Spec, setting: Setting<'_>, progress: &Mutex<Progress>) -> Result<()> {
        if setting.halt.is_set() {
            return Ok(());
        }
        let kept = start(spec, self.netns.as_deref(), setting.watches)?;
        let id = kept.id().to_owned();
        (setting.tell)(&format!("{id}: in force for {}", humantime::format_duration(spec.ttl)));
        lock(progress).begins(&id, spec);
        let tell = |now: crate::keeper::Progress| {
            lock(progress).is_at(now.counts);
            (setting.tell)(&format!(
                "{id}: {} s left, matched {}, affected {}",
                now.left.as_secs(),
                now.counts.matched,
                now.counts.affected
            ));
        };
        let waited = kept.wait(tell, || setting.halt.is_set());
        // It is undone whatever the wait says.
        let counts = kept.end()?;
        let end = waited?;
        lock(progress).ends(counts, end);
        (setting.tell)(&format!(
            "{id}: ended, matched {}, affected {}",
            counts.matched, counts.affected
        ));
        Ok(())
    }
}

fn lock(progress: &Mutex<Progress>) -> std::sync::MutexGuard<'_, Progress> {
    progress.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts one at a time: names of faults in the registry are made of the clock.
fn start(spec: &Spec, netns: Option<&str>, watches: bool) -> Result<Kept> {
    static STARTING: Mutex<()> = Mutex::new(());
    let _one = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
    Kept::start(spec, netns, false, watches)
}

impl Pulses {
    fn read(value: &Value) -> Result<Self> {
        let of = |name: &str| value.get(name).map(|value| seconds(value, name)).transpose();
        let on = of("on")?
            .filter(|on| !on.is_zero())
            .ok_or_else(|| wrong("pulses: a duration `on` is wanted"))?;
        let times = value.get("times").map_or(Some(1), Value::as_u64);
        let times = times.filter(|times| (1..=PULSES_MAX).contains(times));
        let times = times
            .ok_or_else(|| wrong(format_args!("pulses: 1 to {PULSES_MAX} times are wanted")))?;
        Ok(Self { on, off: of("off")?.unwrap_or(on), times })
    }
}

/// What becomes the output of the activity.
struct Progress {
    begin: Instant,
    /// Of faults that are over.
    done: Counts,
    /// Of the one in force.
    now: Counts,
    faults: Vec<Value>,
    series: Vec<Value>,
    end: Option<End>,
}

impl Progress {
    fn new() -> Self {
        Self {
            begin: Instant::now(),
            done: Counts::default(),
            now: Counts::default(),
            faults: Vec::new(),
            series: Vec::new(),
            end: None,
        }
    }

    fn seconds(&self) -> f64 {
        (self.begin.elapsed().as_secs_f64() * 1e3).round() / 1e3
    }

    fn counts(&self) -> Counts {
        self.done.and(self.now)
    }

    fn begins(&mut self, id: &str, spec: &Spec) {
        let at = self.seconds();
        self.faults.push(json!({ "id": id, "begin": at, "spec": spec }));
        self.note(true);
    }

    fn is_at(&mut self, counts: Counts) {
        self.now = counts;
        self.note(true);
    }

    fn ends(&mut self, counts: Counts, end: End) {
        self.now = counts;
        self.note(true);
        self.done = self.counts();
        self.now = Counts::default();
        let at = self.seconds();
        if let Some(Value::Object(last)) = self.faults.last_mut() {
            last.insert("end".to_owned(), Value::from(at));
            last.insert("ended_by".to_owned(), json!(end));
            last.insert("counts".to_owned(), of(counts));
        }
        self.end = Some(end);
        self.note(false);
    }

    /// Adds a point to the series.
    fn note(&mut self, is_in_force: bool) {
        let mut point = of(self.counts());
        if let Value::Object(point) = &mut point {
            point.insert("at".to_owned(), Value::from(self.seconds()));
            point.insert("in_force".to_owned(), Value::from(is_in_force));
        }
        self.series.push(point);
    }

    fn into_output(self) -> Value {
        json!({ "counts": of(self.counts()), "ended_by": self.end, "faults": self.faults, "series": self.series })
    }
}

fn of(counts: Counts) -> Value {
    json!({ "seen": counts.seen, "matched": counts.matched, "chosen": counts.chosen, "affected": counts.affected })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scenario_takes_what_stands_beside_it() {
        let plan = Plan::read(&json!({
            "type": "fault", "scenario": "loss-10", "target": { "dev": "eth0", "port": 80 }, "ttl": 2, "netns": "lab",
        }));
        let plan = plan.expect("a plan");
        let error = plan.check().expect_err("there is no such namespace");
        assert!(error.to_string().contains("\"lab\""), "{error}");
        let step = &plan.0[0];
        assert_eq!(step.spec.fault, "net.loss");
        assert_eq!(step.spec.ttl, Duration::from_secs(2));
        assert_eq!(step.netns.as_deref(), Some("lab"));
        assert_ne!(step.spec.share, crate::select::Share::All, "the scenario's share is kept");
    }

    #[test]
    fn a_sequence_takes_what_holds_for_all() {
        let plan = Plan::read(&json!({
            "type": "fault", "fault": "net.loss", "target": { "dev": "eth0", "port": 80 }, "ttl": "1s",
            "sequence": [
                { "share": { "percent": 1 } },
                { "share": { "percent": 10 }, "target": { "dir": "in" }, "pulses": { "on": "1s", "off": 2, "times": 5 } },
                { "scenario": "duplicate-10" },
            ],
        }));
        let plan = plan.expect("a plan");
        plan.check().expect("it makes sense");
        assert_eq!(plan.length(), Duration::from_secs(1 + 15 + 1));
        assert_eq!(plan.0[2].spec.fault, "net.duplicate");
        assert_eq!(plan.0[1].spec.target.dev.as_deref(), Some("eth0"));
    }

    #[test]
    fn what_is_no_plan_is_refused() {
        for wrong in [
            json!({ "type": "fault" }),
            json!({ "type": "fault", "fault": "net.loss", "ttl": "2h" }),
            json!({ "type": "fault", "fault": "net.loss", "color": "red" }),
            json!({ "type": "fault", "fault": "net.loss", "target": { "port": "x" } }),
            json!({ "type": "fault", "scenario": "no-such" }),
            json!({ "type": "fault", "fault": "net.loss", "pulses": { "off": "1s" } }),
            json!({ "type": "fault", "fault": "net.loss", "pulses": { "on": "1h", "times": 2 } }),
            json!({ "type": "fault", "fault": "net.loss", "sequence": [] }),
        ] {
            Plan::read(&wrong).expect_err(&wrong.to_string());
        }
        let wide = Plan::read(
            &json!({ "type": "fault", "fault": "net.loss", "target": { "dev": "eth0" } }),
        )
        .expect("it is read");
        wide.check().expect_err("it is too wide");
    }
}
