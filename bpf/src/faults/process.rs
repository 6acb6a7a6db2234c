//! Faults of processes: killed, stopped for a while, stopped and resumed in turn, frozen, killed as often as they come back.
//!
//! Invariants: process 1, kernel threads, the injecting process and those it descends from are never touched; a name
//! matches whole; a stopped process is in the journal before it is stopped, and one that somebody else stopped is left
//! stopped. Next: `target`, `tally`, `groups`.

use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;

use crate::abi::Counts;
use crate::error::{Error, Result};
use crate::fault::{Active, Kind, Param, Place, Type};
use crate::faults::tally::{Tally, Ticker};
pub(crate) use crate::faults::target::{check, comm_bytes};
use crate::faults::target::{is_stopped, matching, of, targets};
use crate::groups;
use crate::registry::{Journal, Process};
use crate::spec::Spec;
use crate::undo::Undo;

const SIGNALS: &[(&str, Signal)] = &[
    ("KILL", Signal::KILL),
    ("TERM", Signal::TERM),
    ("INT", Signal::INT),
    ("HUP", Signal::HUP),
    ("QUIT", Signal::QUIT),
    ("ABRT", Signal::ABORT),
    ("SEGV", Signal::SEGV),
    ("USR1", Signal::USR1),
    ("USR2", Signal::USR2),
];
const SIGNAL_WORDS: &[&str] =
    &["KILL", "TERM", "INT", "HUP", "QUIT", "ABRT", "SEGV", "USR1", "USR2"];

const SIGNAL: Param = Param {
    name: "signal",
    ty: Type::Word(SIGNAL_WORDS),
    default: Some("KILL"),
    about: "what is sent",
};
const PERCENT: Param = Param {
    name: "percent",
    ty: Type::Number,
    default: Some("100"),
    about: "of the processes that match, in percent, at least one",
};

const fn kind(
    name: &'static str,
    about: &'static str,
    params: &'static [Param],
    start: crate::fault::Start,
) -> Kind {
    Kind { name, about, place: Place::Process, shares: false, params, start }
}

/// Kinds of this module.
pub(crate) const KINDS: &[Kind] = &[
    kind("process.kill", "a signal is sent once", &[SIGNAL, PERCENT], kill),
    kind("process.pause", "stopped (SIGSTOP) until the end", &[PERCENT], pause),
    kind(
        "process.pulse",
        "stopped for a while of each period",
        &[
            Param {
                name: "on",
                ty: Type::Duration,
                default: Some("50ms"),
                about: "stopped so long, 1 ms at least",
            },
            Param {
                name: "off",
                ty: Type::Duration,
                default: Some("50ms"),
                about: "then runs so long, 1 ms at least",
            },
            PERCENT,
        ],
        pulse,
    ),
    kind(
        "process.freeze",
        "frozen by a control group until the end; signals do not resume it",
        &[
            PERCENT,
            Param {
                name: "version",
                ty: Type::Word(&["any", "1", "2"]),
                default: Some("any"),
                about: "of control groups",
            },
        ],
        freeze,
    ),
    kind(
        "process.crashloop",
        "killed each time it is there again; by its name",
        &[
            SIGNAL,
            Param {
                name: "poll",
                ty: Type::Duration,
                default: Some("20ms"),
                about: "how often it is looked for, 1 ms at least",
            },
        ],
        crashloop,
    ),
];

fn signal(spec: &Spec) -> Result<Signal> {
    let word = spec.word("signal")?;
    let known = SIGNALS.iter().find(|(name, _)| *name == word).map(|(_, signal)| *signal);
    known.ok_or_else(|| Error::usage(format!("{}: signal of {word:?}: unknown", spec.fault)))
}

/// A fault that was done once: there is no more to do.
struct Once(Arc<Tally>);

impl Active for Once {
    fn counts(&self) -> Result<Counts> {
        Ok(self.0.get())
    }
    fn disarm(&mut self) -> Result<()> {
        Ok(())
    }
    fn counters(&self) -> Vec<u32> {
        self.0.ids()
    }
    fn is_done(&self) -> bool {
        true
    }
}

/// A fault that was done once, as a value.
pub(crate) fn once(tally: Arc<Tally>) -> Box<dyn Active> {
    Box::new(Once(tally))
}

fn kill(spec: &Spec, _: &mut Journal) -> Result<Box<dyn Active>> {
    let signal = signal(spec)?;
    let (tally, chosen) = chosen(spec)?;
    for process in &chosen {
        if process.signal(signal)? {
            tally.affected(1);
        }
    }
    Ok(once(tally))
}

/// Those that the fault acts on, none in shadow mode, and the counts so far.
pub(crate) fn chosen(spec: &Spec) -> Result<(Arc<Tally>, Vec<Process>)> {
    let percent = if find_param(spec, "percent") { spec.number("percent")? } else { 100.0 };
    let (matched, mut chosen) = targets(spec, percent)?;
    let tally = Tally::new();
    tally.add(Counts {
        seen: matched,
        matched,
        chosen: u64::try_from(chosen.len()).unwrap_or(0),
        affected: 0,
    });
    if spec.shadow {
        chosen.clear();
    }
    if spec.max_hits > 0 {
        chosen.truncate(usize::try_from(spec.max_hits).unwrap_or(usize::MAX));
    }
    Ok((tally, chosen))
}

fn find_param(spec: &Spec, name: &str) -> bool {
    crate::fault::find(&spec.fault)
        .is_ok_and(|kind| kind.params.iter().any(|param| param.name == name))
}

/// Processes that are stopped, by themselves or in turn with running.
struct Stopped {
    processes: Vec<Process>,
    tally: Arc<Tally>,
    /// Goes first: it might stop them once more.
    ticker: Option<Ticker>,
}

/// Notes those that run how they are resumed. One that is stopped already is somebody else's.
fn will_resume(chosen: Vec<Process>, journal: &mut Journal) -> Result<Vec<Process>> {
    let running: Vec<Process> =
        chosen.into_iter().filter(|process| !is_stopped(process.pid)).collect();
    for process in &running {
        journal.will(Undo::Resume { process: *process })?;
    }
    Ok(running)
}

fn pause(spec: &Spec, journal: &mut Journal) -> Result<Box<dyn Active>> {
    let (tally, chosen) = chosen(spec)?;
    let processes = will_resume(chosen, journal)?;
    let stopped = Stopped { processes, tally, ticker: None };
    for process in &stopped.processes {
        if process.signal(Signal::STOP)? {
            stopped.tally.affected(1);
        }
    }
    Ok(Box::new(stopped))
}

/// A duration of at least a millisecond.
fn at_least_1ms(spec: &Spec, name: &str) -> Result<Duration> {
    let duration = spec.duration(name)?;
    if duration < Duration::from_millis(1) {
        return Err(Error::usage(format!(
            "{}: {name} of {}: 1ms at least is wanted",
            spec.fault,
            humantime::format_duration(duration)
        )));
    }
    Ok(duration)
}

fn pulse(spec: &Spec, journal: &mut Journal) -> Result<Box<dyn Active>> {
    let (on, off) = (at_least_1ms(spec, "on")?, at_least_1ms(spec, "off")?);
    let (tally, chosen) = chosen(spec)?;
    let processes = will_resume(chosen, journal)?;
    let ticker = (!processes.is_empty()).then(|| {
        let (mut is_on, processes, tally) = (false, processes.clone(), Arc::clone(&tally));
        Ticker::start(move || {
            is_on = !is_on;
            for process in &processes {
                let signal = if is_on { Signal::STOP } else { Signal::CONT };
                if process.signal(signal).unwrap_or(false) && is_on {
                    tally.affected(1);
                }
            }
            if is_on { on } else { off }
        })
    });
    Ok(Box::new(Stopped { processes, tally, ticker }))
}

impl Stopped {
    fn resume(&mut self) {
        self.ticker = None;
        for process in self.processes.drain(..) {
            // One that is gone needs it no more; the journal tries again.
            let _ = process.signal(Signal::CONT);
        }
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        self.resume();
    }
}

impl Active for Stopped {
    fn pin(&mut self, _: &std::path::Path) -> Result<()> {
        if self.ticker.is_some() {
            return Err(Error::unsupported(
                "detach this fault: it lives in its process, and ends with it",
            ));
        }
        // The journal has all of it: the watchdog ends it when its time is over.
        Ok(())
    }
    fn counts(&self) -> Result<Counts> {
        Ok(self.tally.get())
    }
    fn disarm(&mut self) -> Result<()> {
        self.resume();
        Ok(())
    }
    fn counters(&self) -> Vec<u32> {
        self.tally.ids()
    }
}

fn freeze(spec: &Spec, journal: &mut Journal) -> Result<Box<dyn Active>> {
    let version = spec.word("version")?;
    let hierarchy = groups::Hierarchy::find("freezer", &version)?;
    let (tally, chosen) = chosen(spec)?;
    let groups = groups::Groups::join(&hierarchy, &chosen, journal, |_| Ok(()))?;
    groups.freeze()?;
    tally.affected(groups.processes());
    Ok(groups::active(groups, tally))
}

fn crashloop(spec: &Spec, _: &mut Journal) -> Result<Box<dyn Active>> {
    let (signal, poll) = (signal(spec)?, at_least_1ms(spec, "poll")?);
    check(spec)?;
    if spec.target.comm.is_none() || spec.target.pid.is_some() {
        return Err(Error::usage(format!(
            "{}: a name (--comm) is wanted: what comes back has another number",
            spec.fault
        )));
    }
    let tally = Tally::new();
    let (spec, counted) = (spec.clone(), Arc::clone(&tally));
    let mut known: Vec<Process> = Vec::new();
    let ticker = Ticker::start(move || {
        let there = matching(&spec).unwrap_or_default();
        known.retain(|process| there.contains(process));
        for process in there {
            if known.contains(&process) {
                continue;
            }
            known.push(process);
            counted.add(Counts { seen: 1, matched: 1, chosen: 1, affected: 0 });
            let is_left = spec.max_hits == 0 || counted.get().affected < spec.max_hits;
            if is_left && !spec.shadow && process.signal(signal).unwrap_or(false) {
                counted.affected(1);
            }
        }
        poll
    });
    Ok(of(tally, Some(ticker)))
}
