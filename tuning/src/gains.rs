//! What knobs gain: how it is shown, what was found, and the session that finds it.
//!
//! `gains.json` beside this crate's manifest is what the last session on a quiet machine found; it is read when this is compiled, and
//! `tune explain` prints it. A session runs in a network namespace of its own and compares each knob as `measure` does, behind a
//! comparison of A with itself: where equal sides come out apart, the machine was not quiet, and nothing is kept.
//! Invariants: at the end all is as before; no figure stands without its interval, date, machine and command. Next: `load`, `measure`.

use std::fs::File;
use std::os::fd::AsFd as _;
use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde::{Deserialize, Serialize};

use crate::apply::{self, entry};
use crate::check::{Finding, Options, Status, check_knob};
use crate::error::{During as _, Error, Result};
use crate::figure::Source;
use crate::host::Host;
use crate::journal::{Entry, Journal};
use crate::knob::{Knob, Profile, Scope};
use crate::knobs;
use crate::load::{Ends, Load};
use crate::measure::{Outcome, Task, measure};
use crate::revert;
use crate::stats::SOLID_PAIRS;
use crate::tree::Tree;

const RECORDED: &str = include_str!("../gains.json");

/// Of the file; another one is not read.
const VERSION: u32 = 1;

/// How it is shown what a knob gains.
#[derive(Clone, Copy, Debug)]
pub enum Gain {
    /// By `tune gains`.
    By(Trial),
    /// Not by it, for this reason.
    Not(&'static str),
}

/// A comparison of two values under a load.
#[derive(Clone, Copy, Debug)]
pub struct Trial {
    /// The load.
    pub load: Load,
    /// The value that is compared with; what the namespace has without.
    pub a: Option<&'static str>,
    /// The value that is compared; what a profile wants without.
    pub b: Option<&'static str>,
    /// Knobs of the namespace that it needs, with their values.
    pub with: &'static [(&'static str, &'static str)],
}

impl Trial {
    /// What the namespace has beside what a profile wants.
    #[must_use]
    pub const fn of(load: Load) -> Self {
        Self { load, a: None, b: None, with: &[] }
    }
}

/// What was found of one knob.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// The knob's name.
    pub knob: String,
    /// The load.
    pub load: Load,
    /// Of the medians.
    pub unit: String,
    /// The value that was compared with.
    pub a: String,
    /// The value that was compared.
    pub b: String,
    /// Other knobs that it needs, as `name=value`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub with: Vec<String>,
    /// Median with the first value.
    pub median_a: f64,
    /// Median with the second value.
    pub median_b: f64,
    /// Second by first, within pairs.
    pub ratio: f64,
    /// Lower end of its 95 % interval.
    pub low: f64,
    /// Upper end.
    pub high: f64,
    /// Whether the difference is one.
    pub differs: bool,
    /// The first value compared with itself: second by first, and the ends of the interval.
    pub same: [f64; 3],
    /// Pairs it rests on.
    pub pairs: usize,
    /// The day, in UTC.
    pub date: String,
    /// The machine.
    pub machine: String,
    /// Between whom.
    pub place: String,
    /// The command.
    pub command: String,
}

/// The file.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Results {
    version: u32,
    gains: Vec<Measured>,
}

impl Results {
    /// Reads it.
    ///
    /// # Errors
    /// It is none, or of another version.
    pub fn parse(text: &str) -> Result<Self> {
        let results: Self = serde_json::from_str(text).during(|| "read gains".to_owned())?;
        if results.version != VERSION {
            return Err(Error::new(format!(
                "read gains: version {} where {VERSION} is known",
                results.version
            )));
        }
        Ok(results)
    }

    /// What the last session found, by the table.
    #[must_use]
    pub fn recorded() -> &'static Self {
        static RESULTS: OnceLock<Results> = OnceLock::new();
        // A test reads it, so that it is one.
        let none = || Self { version: VERSION, gains: Vec::new() };
        RESULTS.get_or_init(|| Self::parse(RECORDED).unwrap_or_else(|_| none()))
    }

    /// All of them.
    #[must_use]
    pub fn all(&self) -> &[Measured] {
        &self.gains
    }

    /// What was found of this knob.
    #[must_use]
    pub fn of(&self, knob: &str) -> Option<&Measured> {
        self.gains.iter().find(|one| one.knob == knob)
    }

    /// Takes this in, in the table's order, instead of what was found of the same knob before.
    pub fn put(&mut self, new: Measured) {
        self.gains.retain(|one| one.knob != new.knob);
        self.gains.push(new);
        let place = |one: &Measured| knobs::all().position(|knob| knob.name == one.knob);
        self.gains.sort_by_key(place);
    }

    /// Forgets what was found of this knob.
    pub fn forget(&mut self, knob: &str) {
        self.gains.retain(|one| one.knob != knob);
    }

    /// The file's text.
    ///
    /// # Errors
    /// It cannot be written as JSON.
    pub fn text(&self) -> Result<String> {
        let text = serde_json::to_string_pretty(self).during(|| "write gains".to_owned())?;
        Ok(format!("{text}\n"))
    }
}

impl Measured {
    /// The difference with its interval, as `+3.2 % (95 % interval +1.9 % to +4.4 %)`.
    #[must_use]
    pub fn difference(&self) -> String {
        let percent = |ratio: f64| format!("{:+.1} %", (ratio - 1.0) * 100.0);
        let text = format!(
            "{} (95 % interval {} to {})",
            percent(self.ratio),
            percent(self.low),
            percent(self.high)
        );
        let better =
            if self.ratio > 1.0 { self.load.is_more_better() } else { !self.load.is_more_better() };
        match (self.differs, better) {
            (false, _) if self.pairs <= SOLID_PAIRS => format!("too few pairs to say: {text}"),
            (false, _) => format!("no difference shown: {text}"),
            (true, true) => format!("better: {text}"),
            (true, false) => format!("worse: {text}"),
        }
    }

    /// The whole of it.
    #[must_use]
    pub fn shown(&self) -> String {
        let with = if self.with.is_empty() {
            String::new()
        } else {
            format!(" with {}", self.with.join(", "))
        };
        format!(
            "{}, {} {} instead of {}{with}: {:.4} {} instead of {:.4}; {}, {}; {} pairs; {}; {}; {}",
            self.difference(),
            self.knob,
            self.b,
            self.a,
            self.median_b,
            self.unit,
            self.median_a,
            self.load.about(),
            self.place,
            self.pairs,
            self.machine,
            self.date,
            self.command
        )
    }
}

/// What is said of a knob: the figure, or why there is none.
#[must_use]
pub fn shown(knob: &Knob, results: &Results) -> String {
    match (knob.gain, results.of(knob.name)) {
        (Gain::Not(reason), _) => format!("not measured: {reason}"),
        (Gain::By(_), Some(found)) => found.shown(),
        (Gain::By(_), None) => format!(
            "not measured: not yet; make tune-measure does, or tune gains {} in a network namespace of its own",
            knob.name
        ),
    }
}

/// A session.
pub struct Session<'a> {
    /// The running kernel.
    pub tree: &'a Tree,
    /// This host, from within the namespace.
    pub host: &'a Host,
    /// Where the sides of a load are.
    pub ends: &'a Ends,
    /// The same in words.
    pub place: &'a str,
    /// The namespace of the session.
    pub inside: &'a File,
    /// That of the host, whose knobs are measured too if this is there.
    pub outside: Option<&'a File>,
    /// Blocks of each comparison, of two pairs each.
    pub blocks: usize,
    /// What is noted as the command.
    pub command: &'a str,
    /// Asked before each run: whether to stop, and put everything back.
    pub is_over: &'a dyn Fn() -> bool,
    /// Told each figure.
    pub tell: &'a dyn Fn(&str),
}

/// What came of one knob.
#[derive(Clone, Debug)]
pub enum Found {
    /// It was measured.
    Measured(Box<Measured>),
    /// It was not, for this reason.
    Not(String),
    /// Equal sides came out apart: nothing is known.
    Void(String),
}

impl Session<'_> {
    /// Measures one knob. Everything is as before at the end.
    ///
    /// # Errors
    /// It cannot be changed, the load fails, or something is not as before.
    pub fn run(&self, knob: &'static Knob, journal: &mut Journal) -> Result<Found> {
        let trial = match knob.gain {
            Gain::Not(reason) => return Ok(Found::Not(reason.to_owned())),
            Gain::By(trial) => trial,
        };
        if !journal.entries().is_empty() {
            return Err(Error::new(
                "gains: the journal has changes: tune revert takes them back first",
            ));
        }
        let outside = match (knob.scope, self.outside) {
            (Scope::Host, None) => {
                return Ok(Found::Not(
                    "it is of the whole host: --host-netns measures it too".to_owned(),
                ));
            }
            (Scope::Host, outside) => outside,
            _ => None,
        };
        let found = self.compare(knob, trial, outside, journal);
        // Also after an error: what others need was set before, and is noted.
        let left = revert::revert(self.tree, &self.host.boot_id, journal, false)?;
        if revert::verdict(&left, false) != 0 {
            return Err(Error::new(format!(
                "gains {}: something is not as before: see tune revert",
                knob.name
            )));
        }
        found
    }

    fn compare(
        &self,
        knob: &'static Knob,
        trial: Trial,
        outside: Option<&File>,
        journal: &mut Journal,
    ) -> Result<Found> {
        for (name, value) in trial.with {
            let other = knobs::find(name).ok_or_else(|| Error::new(format!("no knob {name}")))?;
            if self.preset(other, value, journal)? == 0 {
                return Ok(Found::Not(format!("it needs {name}, which is not there")));
            }
        }
        if let Some(value) = trial.a {
            self.preset(knob, value, journal)?;
        }
        // A device may have instances now that it had not when the host was looked at.
        let host = Host::read(self.tree);
        enter(outside)?;
        let found = self.compare_here(&host, knob, trial, journal);
        enter(outside.map(|_| self.inside))?;
        found
    }

    fn compare_here(
        &self,
        host: &Host,
        knob: &'static Knob,
        trial: Trial,
        journal: &mut Journal,
    ) -> Result<Found> {
        let findings = self.findings(host, knob);
        if findings.iter().all(|finding| finding.current.is_none()) {
            let reason = findings.iter().map(|finding| finding.reason.as_str()).next();
            let reason = reason.unwrap_or("this namespace has no such device");
            return Ok(Found::Not(reason.to_owned()));
        }
        if trial.b.is_none() && findings.iter().all(|finding| finding.status == Status::Ok) {
            return Ok(Found::Not("this host has the wanted value already".to_owned()));
        }
        let load = || trial.load.run(self.ends);
        let task = |same: bool| Task {
            source: Source::Load(&load),
            blocks: self.blocks,
            value: trial.b.map(str::to_owned),
            same,
            keep: false,
            is_over: self.is_over,
            tell: self.tell,
        };
        let same = measure(self.tree, host, &findings, journal, &task(true))?;
        if same.result.differs() {
            return Ok(Found::Void(format!(
                "A differs from itself: B / A = {:.4}, 95 % interval {:.4} to {:.4}: the machine is not quiet",
                same.result.ratio, same.result.low, same.result.high
            )));
        }
        let outcome = measure(self.tree, host, &findings, journal, &task(false))?;
        Ok(Found::Measured(Box::new(self.measured(knob, trial, &same, &outcome))))
    }

    fn measured(&self, knob: &Knob, trial: Trial, same: &Outcome, outcome: &Outcome) -> Measured {
        let result = outcome.result;
        Measured {
            knob: knob.name.to_owned(),
            load: trial.load,
            unit: trial.load.unit().to_owned(),
            a: outcome.a.clone(),
            b: outcome.b.clone(),
            with: trial.with.iter().map(|(name, value)| format!("{name}={value}")).collect(),
            median_a: result.a,
            median_b: result.b,
            ratio: result.ratio,
            low: result.low,
            high: result.high,
            differs: result.differs(),
            same: [same.result.ratio, same.result.low, same.result.high],
            pairs: outcome.pairs.len(),
            date: today(),
            machine: self.host.line(),
            place: self.place.to_owned(),
            command: self.command.to_owned(),
        }
    }

    fn findings(&self, host: &Host, knob: &'static Knob) -> Vec<Finding> {
        let wants = |profile: &Profile| knob.desire(*profile).is_some();
        let profile = Profile::ALL.iter().copied().find(wants).unwrap_or(Profile::Latency);
        check_knob(self.tree, host, Options { profile, host_too: true }, knob)
    }

    /// Gives a knob a value in all its places, noted first and read back after; says how many there are.
    fn preset(&self, knob: &'static Knob, value: &str, journal: &mut Journal) -> Result<usize> {
        let host = Host::read(self.tree);
        let findings = self.findings(&host, knob);
        let there = findings.iter().filter(|finding| finding.current.is_some());
        let entries: Vec<Entry> =
            there.map(|finding| entry(self.tree, &host, finding, value.to_owned())).collect();
        journal.will(entries.clone())?;
        for entry in &entries {
            apply::write(self.tree, entry)
                .map_err(|reason| Error::new(format!("set {} to {value}: {reason}", knob.name)))?;
        }
        Ok(entries.len())
    }
}

fn enter(namespace: Option<&File>) -> Result<()> {
    let Some(namespace) = namespace else { return Ok(()) };
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
        .during(|| "enter a network namespace".to_owned())
}

/// The day in UTC.
fn today() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    date(since.as_secs() / 86_400)
}

/// The date so many days after 1970-01-01: years begin in March, so that the odd day is the last of a year.
fn date(days: u64) -> String {
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let (month, later) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    format!("{:04}-{month:02}-{day:02}", era * 400 + year + later)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example(knob: &str, ratio: f64, differs: bool) -> Measured {
        Measured {
            knob: knob.to_owned(),
            load: Load::Burst,
            unit: "ms".to_owned(),
            a: "128".to_owned(),
            b: "4096".to_owned(),
            with: Vec::new(),
            median_a: 1000.0,
            median_b: 1000.0 * ratio,
            ratio,
            low: ratio * 0.9,
            high: ratio * 1.1,
            differs,
            same: [1.0, 0.9, 1.1],
            pairs: 20,
            date: "2026-01-31".to_owned(),
            machine: "Linux".to_owned(),
            place: "loopback".to_owned(),
            command: "tune gains".to_owned(),
        }
    }

    #[test]
    fn the_recorded_gains_are_of_knobs_that_are_measured_so() {
        let results = Results::parse(RECORDED).expect("gains.json");
        for found in results.all() {
            let knob = knobs::find(&found.knob).expect("a knob of the table");
            let Gain::By(trial) = knob.gain else { panic!("{}: not measured so", found.knob) };
            assert_eq!((trial.load, trial.load.unit()), (found.load, found.unit.as_str()));
            assert!(found.low <= found.ratio && found.ratio <= found.high, "{}", found.knob);
            assert!(found.pairs >= crate::stats::PAIRS, "{}: only {}", found.knob, found.pairs);
            for text in [&found.date, &found.machine, &found.place, &found.command] {
                assert!(text.len() >= 8, "{}: {text:?}", found.knob);
            }
        }
        for text in ["", "{}", r#"{"version": 2, "gains": []}"#] {
            assert!(Results::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn every_knob_has_a_load_or_a_reason() {
        let mut by = 0;
        for knob in knobs::all() {
            match knob.gain {
                Gain::Not(reason) => assert!(reason.len() >= 20, "{}: {reason:?}", knob.name),
                Gain::By(trial) => {
                    by += 1;
                    assert!(knob.how == crate::knob::How::Write, "{}", knob.name);
                    // What is not of the namespace cannot be given a value to begin with.
                    assert!(trial.a.is_none() || knob.scope != Scope::Host, "{}", knob.name);
                    for (name, _) in trial.with {
                        let other = knobs::find(name).expect(name);
                        assert!(other.scope != Scope::Host, "{}: {name}", knob.name);
                    }
                }
            }
        }
        assert!(by >= 10, "only {by}");
    }

    #[test]
    fn a_newer_figure_takes_the_place_of_the_older() {
        let mut results = Results { version: VERSION, gains: Vec::new() };
        results.put(example("net.ipv4.tcp_max_syn_backlog", 1.0, false));
        results.put(example("net.core.somaxconn", 0.5, true));
        results.put(example("net.core.somaxconn", 0.25, true));
        let names: Vec<&str> = results.all().iter().map(|one| one.knob.as_str()).collect();
        assert_eq!(names, ["net.core.somaxconn", "net.ipv4.tcp_max_syn_backlog"]);
        assert_eq!(results.of("net.core.somaxconn").map(|one| one.ratio), Some(0.25));
        let text = results.text().expect("JSON");
        assert_eq!(Results::parse(&text).expect("it is read").all(), results.all());
        results.forget("net.core.somaxconn");
        assert!(results.of("net.core.somaxconn").is_none());
    }

    #[test]
    fn what_is_said_of_a_figure() {
        let knob = knobs::find("net.core.somaxconn").expect("a knob");
        let mut results = Results { version: VERSION, gains: Vec::new() };
        assert!(shown(knob, &results).starts_with("not measured: not yet"));
        results.put(example(knob.name, 0.5, true));
        let text = shown(knob, &results);
        for part in [
            "better: -50.0 % (95 % interval -55.0 % to -45.0 %)",
            "4096 instead of 128: 500.0000 ms instead of 1000.0000",
            "20 pairs; Linux; 2026-01-31; tune gains",
        ] {
            assert!(text.contains(part), "{text}");
        }
        assert!(example("x", 2.0, true).difference().starts_with("worse: +100.0 %"));
        assert!(example("x", 1.0, false).difference().starts_with("no difference shown: "));
        let few = Measured { pairs: SOLID_PAIRS, ..example("x", 0.5, false) };
        assert!(few.difference().starts_with("too few pairs to say: -50.0 %"));
        let security = knobs::find("security.mitigations").expect("a knob");
        assert!(shown(security, &results).starts_with("not measured: "));
    }

    #[test]
    fn days_of_the_calendar() {
        for (days, wanted) in [
            (0, "1970-01-01"),
            (58, "1970-02-28"),
            (59, "1970-03-01"),
            (11_016, "2000-02-29"),
            (11_017, "2000-03-01"),
            (20_454, "2026-01-01"),
            (20_818, "2026-12-31"),
        ] {
            assert_eq!(date(days), wanted);
        }
    }
}
