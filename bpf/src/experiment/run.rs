//! Runs an experiment: hypothesis, method, hypothesis, rollbacks.
//!
//! Before: if the hypothesis does not hold, the method is not run, and the experiment failed. During, with the strategy `continuously`: it is looked at
//! each [`PERIOD`], and the first look that does not hold ends the method and every fault at once. After: if it does not hold,
//! the system deviated. Rollbacks follow by their strategy, and a signal ends all but them. Packets are measured meanwhile.
//! Invariants: all activities can be done, as far as one can know, before the first is; threads do not outlive the run.
//! Next: `provider`, `packets`, `journal`.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::journal::{Journal, Moment, Outcome, Run, State, Status};
use super::packets::{Meter, When};
use super::provider::{Provider, Setting};
use super::toolkit::{Activity, Dry, Experiment, Rollbacks, Strategy};
use super::variables::Variables;
use super::{Halt, SLICE, seconds, tolerance};
use crate::error::{Error, Kind, Result};

/// From one look at the hypothesis to the next while the method runs.
pub const PERIOD: Duration = Duration::from_millis(250);
/// How long a probe that names no timeout may take meanwhile: a hypothesis that nobody answers for is broken within a second.
pub const TIMEOUT_DURING: Duration = Duration::from_millis(700);

static NEVER: AtomicBool = AtomicBool::new(false);

/// What goes over what the file says.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// When rollbacks are done.
    pub rollbacks: Option<Rollbacks>,
    /// When the hypothesis is looked at.
    pub strategy: Option<Strategy>,
    /// What is not done.
    pub dry: Option<Dry>,
    /// Values of variables.
    pub variables: Vec<(String, Value)>,
    /// Our own executable is `chaos`, and watches over faults.
    pub watches: bool,
    /// Packets are measured, by one segment or operation of so many.
    pub sample_every: Option<u32>,
    /// How long before the method the measuring begins at least.
    pub baseline: Duration,
}

/// An activity that can be done.
struct Ready<'a> {
    activity: &'a Activity,
    provider: Provider,
    tolerance: Option<Value>,
    before: Duration,
    after: Duration,
}

struct Runner<'a> {
    probes: Vec<Ready<'a>>,
    method: Vec<Ready<'a>>,
    rollbacks: Vec<Ready<'a>>,
    strategy: Strategy,
    rollback_strategy: Rollbacks,
    dry: Dry,
    watches: bool,
    baseline: Duration,
    interrupted: &'a AtomicBool,
    /// The hypothesis was found not to hold while the method ran.
    broken: AtomicBool,
    tell: &'a (dyn Fn(&str) + Sync),
}

/// Runs an experiment until its end, or until `interrupted`, which is taken back before rollbacks.
///
/// # Errors
/// It cannot be run; nothing was done but the probes of its configuration.
pub fn run(
    experiment: &Experiment,
    options: &Options,
    interrupted: &AtomicBool,
    tell: &(dyn Fn(&str) + Sync),
) -> Result<Journal> {
    experiment.check_supported()?;
    let since = Moment::now();
    let halt = Halt { interrupted, broken: &NEVER };
    let setting = Setting { halt, timeout: None, watches: options.watches, tell };
    let variables =
        Variables::load(&experiment.raw, &options.variables, &mut |probe, variables| {
            let provider = variables.substitute(probe.get("provider").unwrap_or(&Value::Null));
            Provider::read(&provider)?.run(setting).map_err(|failure| failure.error)
        })?;
    let runner = Runner::new(experiment, options, &variables, interrupted, tell)?;
    let title = variables.substitute(&Value::from(experiment.title.as_str()));
    tell(&format!("experiment: {}", super::text_of(&title)));
    for note in &experiment.notes {
        tell(&format!("note: {note}"));
    }
    let mut journal = Journal::begin(experiment.raw.clone(), experiment.notes.clone(), since);
    // Where nothing is done, there is nothing to measure.
    let is_dry = runner.dry == Dry::Activities;
    let mut meter = options.sample_every.filter(|_| !is_dry).map(Meter::start);
    if let Some(why) = meter.as_ref().and_then(Meter::why_not) {
        tell(&format!("note: packets are not measured: {why}"));
    }
    runner.run(&mut journal, &mut meter);
    journal.packets = meter.map(Meter::finish);
    journal.end = Moment::now().text();
    journal.duration = since.seconds();
    let status = if journal.deviated { "deviated" } else { word(journal.status) };
    tell(&format!("experiment ended: {status}"));
    Ok(journal)
}

const fn word(status: Status) -> &'static str {
    match status {
        Status::Completed => "completed",
        Status::Failed => "failed",
        Status::Aborted => "aborted",
        Status::Interrupted => "interrupted",
    }
}

/// What keeps activities from being done.
#[derive(Default)]
struct Obstacles(Vec<Error>);

impl Obstacles {
    fn prepare<'a>(
        &mut self,
        section: &str,
        list: &'a [Activity],
        variables: &Variables,
    ) -> Vec<Ready<'a>> {
        let mut all = Vec::with_capacity(list.len());
        for (index, activity) in list.iter().enumerate() {
            match Ready::new(activity, variables) {
                Ok(ready) => all.push(ready),
                Err(error) => {
                    self.0.push(error.during(&format!("{section}[{index}] {:?}", activity.name)))
                }
            }
        }
        all
    }

    fn into_result(self) -> Result<()> {
        if self.0.is_empty() {
            return Ok(());
        }
        let is_usage = self.0.iter().any(|error| error.kind != Kind::Unsupported);
        let lines: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        let what = format!("this experiment cannot be run:\n  {}", lines.join("\n  "));
        Err(if is_usage { Error::usage(what) } else { Error::unsupported(what) })
    }
}

impl<'a> Ready<'a> {
    fn new(activity: &'a Activity, variables: &Variables) -> Result<Self> {
        let provider = Provider::read(&variables.substitute(activity.provider()))?;
        provider.check()?;
        let tolerance = activity.tolerance().map(|tolerance| variables.substitute(tolerance));
        if let Some(tolerance) = &tolerance {
            tolerance::check(tolerance)?;
            if let Some(judge) = tolerance.get("provider") {
                Provider::read(judge)?.check()?;
            }
        }
        let pause = |when: &str| {
            let pause = activity.raw.get("pauses").and_then(|pauses| pauses.get(when));
            let pause =
                pause.filter(|pause| !pause.is_null()).map(|pause| variables.substitute(pause));
            pause.map_or(Ok(Duration::ZERO), |pause| seconds(&pause, "pause"))
        };
        Ok(Self { activity, provider, tolerance, before: pause("before")?, after: pause("after")? })
    }
}

impl<'a> Runner<'a> {
    fn new(
        experiment: &'a Experiment,
        options: &Options,
        variables: &Variables,
        interrupted: &'a AtomicBool,
        tell: &'a (dyn Fn(&str) + Sync),
    ) -> Result<Self> {
        let mut obstacles = Obstacles::default();
        let runner = Self {
            probes: obstacles.prepare(
                "steady-state-hypothesis.probes",
                &experiment.probes,
                variables,
            ),
            method: obstacles.prepare("method", &experiment.method, variables),
            rollbacks: obstacles.prepare("rollbacks", &experiment.rollbacks, variables),
            strategy: options.strategy.unwrap_or(experiment.strategy),
            rollback_strategy: options.rollbacks.unwrap_or(experiment.rollback_strategy),
            dry: options.dry.unwrap_or(experiment.dry),
            watches: options.watches,
            baseline: options.baseline,
            interrupted,
            broken: AtomicBool::new(false),
            tell,
        };
        obstacles.into_result()?;
        Ok(runner)
    }

    fn is_interrupted(&self) -> bool {
        self.interrupted.load(Ordering::Relaxed)
    }

    fn setting<'s>(&'s self, broken: &'s AtomicBool, timeout: Option<Duration>) -> Setting<'s> {
        let halt = Halt { interrupted: self.interrupted, broken };
        Setting { halt, timeout, watches: self.watches, tell: self.tell }
    }

    fn run(&self, journal: &mut Journal, meter: &mut Option<Meter>) {
        let begin = Instant::now();
        let end = |meter: &mut Option<Meter>, when| {
            if let Some(meter) = meter {
                meter.end(when);
            }
        };
        let looks = !self.probes.is_empty();
        if looks && self.strategy.is_before() {
            (self.tell)("hypothesis: before the method");
            let state = self.look(self.setting(&NEVER, None));
            let is_met = state.steady_state_met;
            journal.steady_states.before = Some(state);
            if self.is_interrupted() {
                journal.status = Status::Interrupted;
            } else if !is_met {
                journal.status = Status::Failed;
            }
        }
        if meter.is_some() && journal.status == Status::Completed {
            let left = self.baseline.saturating_sub(begin.elapsed());
            if !self.setting(&NEVER, None).halt.sleep(left) {
                journal.status = Status::Interrupted;
            }
        }
        end(meter, When::Before);
        if journal.status == Status::Completed {
            self.method(journal);
            end(meter, When::During);
            if looks
                && self.strategy.is_after()
                && matches!(journal.status, Status::Completed | Status::Failed)
            {
                self.after(journal);
            }
        }
        self.roll_back(journal);
        end(meter, When::After);
    }

    fn method(&self, journal: &mut Journal) {
        (self.tell)("method");
        let is_over = AtomicBool::new(false);
        let states = Mutex::new(std::mem::take(&mut journal.steady_states));
        let is_whole = std::thread::scope(|scope| {
            let watches = !self.probes.is_empty() && self.strategy.is_during();
            let watch = watches.then(|| scope.spawn(|| self.watch(&is_over, &states)));
            let (runs, is_whole) = self.all(&self.method, self.setting(&self.broken, None));
            is_over.store(true, Ordering::Relaxed);
            journal.run = runs;
            watch.is_none_or(|watch| watch.join().is_ok()) && is_whole
        });
        journal.steady_states = states.into_inner().unwrap_or_else(PoisonError::into_inner);
        if self.is_interrupted() {
            journal.status = Status::Interrupted;
        } else if self.broken.load(Ordering::Relaxed) {
            journal.status = Status::Failed;
            journal.deviated = true;
        } else if !is_whole {
            journal.status = Status::Aborted;
        }
    }

    fn after(&self, journal: &mut Journal) {
        (self.tell)("hypothesis: after the method");
        let state = self.look(self.setting(&NEVER, None));
        if self.is_interrupted() {
            journal.status = Status::Interrupted;
        } else if !state.steady_state_met {
            journal.deviated = true;
            if state.probes.iter().any(|probe| probe.status == Outcome::Failed) {
                journal.status = Status::Failed;
            }
        }
        journal.steady_states.after = Some(state);
    }

    fn roll_back(&self, journal: &mut Journal) {
        let wanted = match self.rollback_strategy {
            Rollbacks::Always => true,
            Rollbacks::Never => false,
            Rollbacks::Deviated => journal.deviated,
            Rollbacks::Default => !matches!(journal.status, Status::Failed | Status::Interrupted),
        };
        if self.rollbacks.is_empty() {
            return;
        }
        if !wanted {
            return (self.tell)("rollbacks: not done, by their strategy");
        }
        (self.tell)("rollbacks");
        // Once more ends these, too.
        self.interrupted.store(false, Ordering::Relaxed);
        let (runs, is_whole) = self.all(&self.rollbacks, self.setting(&NEVER, None));
        journal.rollbacks = runs;
        if self.is_interrupted() {
            journal.status = Status::Interrupted;
        } else if !is_whole {
            journal.status = Status::Aborted;
        }
    }

    /// Does all of a section; what came of each, and whether no thread panicked.
    fn all(&self, list: &[Ready<'_>], setting: Setting<'_>) -> (Vec<Run>, bool) {
        let runs = Mutex::new(Vec::new());
        let is_whole = std::thread::scope(|scope| {
            let mut others = Vec::new();
            for ready in list {
                if setting.halt.is_set() {
                    break;
                }
                if ready.activity.background {
                    others.push(scope.spawn(|| self.one(ready, setting, &runs)));
                } else {
                    self.one(ready, setting, &runs);
                }
            }
            // All are waited for, whatever the first says.
            let ended: Vec<bool> = others.into_iter().map(|other| other.join().is_ok()).collect();
            ended.into_iter().all(|is_whole| is_whole)
        });
        let runs = runs.into_inner().unwrap_or_else(PoisonError::into_inner);
        (runs.into_iter().flatten().collect(), is_whole)
    }

    /// Does one, with its pauses. In `runs` it is where it began.
    fn one(&self, ready: &Ready<'_>, setting: Setting<'_>, runs: &Mutex<Vec<Option<Run>>>) {
        let dry = ready.activity.dry.unwrap_or(self.dry);
        let pauses = dry != Dry::Pause && !is_dry(ready.activity, dry);
        if pauses && !setting.halt.sleep(ready.before) {
            return;
        }
        let place = {
            let mut runs = runs.lock().unwrap_or_else(PoisonError::into_inner);
            runs.push(None);
            runs.len() - 1
        };
        let run = self.execute(ready, setting);
        if let Some(slot) = runs.lock().unwrap_or_else(PoisonError::into_inner).get_mut(place) {
            *slot = Some(run);
        }
        if pauses {
            let _ = setting.halt.sleep(ready.after);
        }
    }

    fn execute(&self, ready: &Ready<'_>, setting: Setting<'_>) -> Run {
        let activity = ready.activity;
        let kind = if activity.is_action { "action" } else { "probe" };
        let behind = if activity.background { " (in the background)" } else { "" };
        (setting.tell)(&format!("{kind}: {}{behind}", activity.name));
        let since = Moment::now();
        let dry = activity.dry.unwrap_or(self.dry);
        let done =
            if is_dry(activity, dry) { Ok(Value::Null) } else { ready.provider.run(setting) };
        let (output, exception) = match done {
            Ok(output) => (output, None),
            Err(failure) => {
                (setting.tell)(&format!("{kind}: {} failed: {}", activity.name, failure.error));
                (failure.output, Some(failure.error.to_string()))
            }
        };
        Run::ended(activity.raw.clone(), since, output, exception)
    }

    /// Looks at the hypothesis, up to the first probe that does not hold.
    fn look(&self, setting: Setting<'_>) -> State {
        let mut state = State { steady_state_met: true, probes: Vec::new() };
        // Only what does not hold is worth a line each time.
        let quiet = Setting { tell: &|_| {}, ..setting };
        for ready in &self.probes {
            let mut run = self.execute(ready, quiet);
            let dry = ready.activity.dry.unwrap_or(self.dry);
            let judged = match &ready.tolerance {
                _ if run.status == Outcome::Failed => Ok(false),
                Some(tolerance) if !is_dry(ready.activity, dry) => {
                    let mut judge =
                        |tolerance: &Value, value: &Value| judge(tolerance, value, quiet);
                    tolerance::is_met(tolerance, &run.output, &mut judge)
                }
                _ => Ok(true),
            };
            let is_met = *judged.as_ref().unwrap_or(&false);
            if let Err(error) = judged {
                run.exception = Some(vec![error.to_string()]);
            }
            run.tolerance_met = Some(is_met);
            if !is_met {
                let why =
                    run.exception.as_ref().map_or_else(|| short(&run.output), |why| why.join("; "));
                (setting.tell)(&format!(
                    "hypothesis: probe {} is not within its tolerance: {why}",
                    ready.activity.name
                ));
            }
            state.probes.push(run);
            state.steady_state_met = is_met;
            if !is_met {
                break;
            }
        }
        state
    }

    /// Looks again and again, until the method is over or the hypothesis broken.
    fn watch(&self, is_over: &AtomicBool, states: &Mutex<super::journal::States>) {
        loop {
            let begin = Instant::now();
            let state = self.look(self.setting(&NEVER, Some(TIMEOUT_DURING)));
            if self.is_interrupted() {
                return;
            }
            let is_met = state.steady_state_met;
            if !is_met {
                self.broken.store(true, Ordering::Relaxed);
                (self.tell)("hypothesis: broken while the method runs: it and all faults end now");
            }
            states.lock().unwrap_or_else(PoisonError::into_inner).add(state);
            if !is_met {
                return;
            }
            loop {
                if is_over.load(Ordering::Relaxed) || self.is_interrupted() {
                    return;
                }
                if begin.elapsed() >= PERIOD {
                    break;
                }
                std::thread::sleep(SLICE);
            }
        }
    }
}

const fn is_dry(activity: &Activity, dry: Dry) -> bool {
    match dry {
        Dry::Nothing | Dry::Pause => false,
        Dry::Probes => !activity.is_action,
        Dry::Actions => activity.is_action,
        Dry::Activities => true,
    }
}

/// Asks the probe of a tolerance, which gets what it judges as its argument `value`.
fn judge(tolerance: &Value, value: &Value, setting: Setting<'_>) -> Result<Value> {
    let mut provider = tolerance.get("provider").cloned().unwrap_or_default();
    if let Value::Object(provider) = &mut provider {
        match provider.entry("arguments").or_insert_with(|| Value::Object(serde_json::Map::new())) {
            Value::Object(arguments) => {
                arguments.insert("value".to_owned(), value.clone());
            }
            Value::Array(words) => words.push(Value::from(super::text_of(value))),
            _ => {}
        }
    }
    Provider::read(&provider)?.run(setting).map_err(|failure| failure.error)
}

fn short(value: &Value) -> String {
    let text = value.to_string();
    let end = text.floor_char_boundary(160);
    if end < text.len() { format!("{}…", text.get(..end).unwrap_or_default()) } else { text }
}
