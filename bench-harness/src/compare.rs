//! The experiment around trials: which servers a cell compares, in which order they run, and what
//! is said about it.
//!
//! Invariants: every trial has a fresh process on a fresh port; all sides of a cell run once in
//! every round, in alternating order; a side that cannot run keeps its place with the reason; a
//! round disturbed by the hypervisor is run again.
//! Next: `scenario` for the cells, `report` for the output.

use std::borrow::Cow;
use std::time::Duration;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::clock::SECOND_NS;
use crate::load::trial::{Timing, Transport, Trial};
use crate::peers::{Peer, Place, Ports, Protocol};
use crate::rounds::{self, Noise, Signs};
use crate::scenario::measure::{self, Measure};
use crate::stats::{self, Ratio};
use crate::steady::Steadiness;

/// Starting, loading and stopping a server takes about this long.
const OVERHEAD_NS: u64 = SECOND_NS / 2;
/// Ports each server may use from its first on: its own, its shards', its admin port.
pub const PORTS_EACH: u16 = 8;

/// One of the servers a cell compares.
#[derive(Clone, Debug)]
pub struct Side {
    /// What it is called in the report.
    pub label: String,
    /// What runs.
    pub peer: &'static Peer,
    /// What it is asked in; what it speaks first, without.
    pub protocol: Option<Protocol>,
    /// How many shards, where it has them.
    pub shards: usize,
    /// Its CPUs.
    pub cpus: Vec<usize>,
    /// Connections go to the port of the shard that owns their keys.
    pub per_shard_ports: bool,
    /// Read buffer of each connection on a foreign runtime.
    pub read_buffer: usize,
}

impl Side {
    /// `peer` with one shard on `cpu`.
    #[must_use]
    pub fn new(peer: &'static Peer, cpu: usize) -> Self {
        Self {
            label: peer.name.to_owned(),
            peer,
            protocol: None,
            shards: 1,
            cpus: vec![cpu],
            per_shard_ports: false,
            read_buffer: 4096,
        }
    }

    /// The same under another name.
    #[must_use]
    pub fn labelled(mut self, label: &str) -> Self {
        label.clone_into(&mut self.label);
        self
    }
}

/// A figure taken in a trial.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// CPU time of the server's process for one operation.
    CpuNsPerOp,
    /// Replies in a second.
    Rate,
    /// 99th percentile of latency.
    P99Ns,
    /// Median of latency.
    P50Ns,
    /// System calls for one operation, counted by the kernel; as the server counts them where that cannot be had.
    SyscallsPerOp,
    /// Instructions for one operation, in the kernel too.
    InstructionsPerOp,
    /// Context switches for one operation.
    SwitchesPerOp,
    /// Time the server's threads were runnable and did not run, for one operation.
    WaitNsPerOp,
    /// Commands handed to another shard, for one operation, as the server counts them.
    HopsPerOp,
    /// Growth of resident memory for one connection.
    RssPerConnection,
    /// The same after one GET on each.
    RssPerConnectionUsed,
    /// Growth of resident memory for one key, less key and value.
    RssOverPerKey,
}

impl Metric {
    /// Its name in files.
    #[must_use]
    pub fn key(self) -> String {
        // A variant without content is a string.
        serde_json::to_value(self)
            .ok()
            .and_then(|value| Some(value.as_str()?.to_owned()))
            .unwrap_or_default()
    }

    /// Its name in tables, with the unit.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::CpuNsPerOp => "server CPU ns/op",
            Self::Rate => "replies/s",
            Self::P99Ns => "p99 ns",
            Self::P50Ns => "p50 ns",
            Self::SyscallsPerOp => "syscalls/op",
            Self::InstructionsPerOp => "instructions/op",
            Self::SwitchesPerOp => "switches/op",
            Self::WaitNsPerOp => "wait ns/op",
            Self::HopsPerOp => "hops/op",
            Self::RssPerConnection => "RSS B/conn",
            Self::RssPerConnectionUsed => "RSS B/conn, used",
            Self::RssOverPerKey => "RSS B/key over data",
        }
    }
}

/// What one trial gave.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Sample {
    /// Figures.
    #[serde(with = "crate::report::json::figures_by_name")]
    pub values: Vec<(Metric, f64)>,
    /// The trial, when a load of ours ran.
    pub trial: Option<Trial>,
}

impl Sample {
    /// One of its figures.
    #[must_use]
    pub fn value(&self, metric: Metric) -> Option<f64> {
        self.values.iter().find(|(have, _)| *have == metric).map(|(_, value)| *value)
    }
}

/// What a figure is held to.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Bar {
    /// The candidate's median over the baseline's, at most.
    RatioAtMost(f64),
    /// The same, at least.
    RatioAtLeast(f64),
    /// The candidate's median, at most.
    AtMost(f64),
    /// The same, at least.
    AtLeast(f64),
    /// Shown only.
    Shown,
}

/// A comparison within a cell, by position of its sides.
#[derive(Clone, Copy, Debug)]
pub struct Claim {
    /// Which figure.
    pub metric: Metric,
    /// Whose.
    pub candidate: usize,
    /// Against whose.
    pub baseline: Option<usize>,
    /// Held to what.
    pub bar: Bar,
}

/// One experiment.
#[derive(Clone, Debug)]
pub struct Cell {
    /// The row of the table of claims it belongs to.
    pub row: Cow<'static, str>,
    /// What is done, in words.
    pub name: String,
    /// What is done.
    pub measure: Measure,
    /// Who takes part.
    pub sides: Vec<Side>,
    /// Two sides that are the same server: how far apart equals come out.
    pub same: Option<(usize, usize)>,
    /// What is judged.
    pub claims: Vec<Claim>,
    /// Rounds, each with one trial of every side.
    pub rounds: usize,
    /// Length of a trial.
    pub timing: Timing,
}

impl Cell {
    /// About how long it takes.
    #[must_use]
    pub fn estimate(&self) -> Duration {
        let trial_ns = self.measure.estimate_ns(self.timing) + OVERHEAD_NS;
        Duration::from_nanos(trial_ns * (self.rounds * self.sides.len()) as u64)
    }
}

/// Where and how everything runs.
#[derive(Debug)]
pub struct Bench {
    /// Free ports.
    pub ports: Ports,
    /// The server's core.
    pub server_cpu: usize,
    /// The generator's core.
    pub client_cpu: usize,
    /// What moves the generator's bytes.
    pub transport: Transport,
    /// Real-time priority for both sides.
    pub fifo: bool,
    /// Seed of loads and resampling.
    pub seed: u64,
}

impl Bench {
    fn place(&mut self, side: &Side) -> Place {
        let port = self.ports.take(PORTS_EACH);
        Place {
            port,
            admin: port + PORTS_EACH - 1,
            shards: side.shards,
            cpus: side.cpus.clone(),
            read_buffer: side.read_buffer,
            client_cpu: self.client_cpu,
            fifo: self.fifo,
        }
    }

    /// Runs one cell; `progress` hears of every trial.
    pub fn run(&mut self, cell: &Cell, progress: &mut dyn FnMut(&str)) -> Outcome {
        let mut sides: Vec<SideOutcome> = cell.sides.iter().map(SideOutcome::new).collect();
        let trial = |index: usize| {
            if sides[index].failed.is_some() {
                return None;
            }
            let side = &cell.sides[index];
            let place = self.place(side);
            match measure::run(self, cell, side, &place) {
                Ok(sample) => {
                    progress(&describe(&side.label, &sample));
                    Some(sample)
                }
                Err(error) => {
                    progress(&format!("{}: {error:#}", side.label));
                    sides[index].failed = Some(format!("{error:#}"));
                    None
                }
            }
        };
        let rounds = rounds::run_with(cell.sides.len(), cell.rounds, trial, signs);
        for round in rounds.kept {
            for (side, sample) in sides.iter_mut().zip(round) {
                side.samples.extend(sample);
            }
        }
        let same = cell.same.and_then(|(first, second)| {
            let metric = cell.claims.first()?.metric;
            Some(Same { metric, ratio: ratio(&sides[first], &sides[second], metric, self.seed)? })
        });
        let verdicts = cell.claims.iter().map(|claim| judge(claim, &sides, self.seed)).collect();
        Outcome {
            row: cell.row.clone().into_owned(),
            name: cell.name.clone(),
            timing: cell.timing,
            repeated: rounds.repeated,
            disturbed: rounds.disturbed,
            noise: rounds.noise,
            sides,
            same,
            verdicts,
        }
    }
}

/// What a trial says of the machine, and of itself.
fn signs(sample: &Option<Sample>) -> Signs {
    let trial = sample.as_ref().and_then(|sample| sample.trial.as_ref());
    trial.map_or_else(Signs::default, |trial| Signs {
        wait: Some(trial.server_wait),
        unsteady: trial.steadiness.is_changed(),
    })
}

fn describe(label: &str, sample: &Sample) -> String {
    let mut text = format!("{label:>14}");
    for (metric, value) in &sample.values {
        text.push_str(&format!("  {} {value:.1}", metric.title()));
    }
    if let Some(trial) = &sample.trial {
        text.push_str(&format!(
            "  client {:.0} ns/op  busy {:.0} %/{:.0} %  foreign {:.0} %",
            trial.client_cpu_ns_per_op,
            trial.server_busy * 100.0,
            trial.client_busy * 100.0,
            trial.foreign * 100.0
        ));
        if let Steadiness::Changed(change) = &trial.steadiness {
            text.push_str(&format!("  not steady: {change}"));
        }
    }
    text
}

/// One side's samples.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SideOutcome {
    /// Its name.
    pub label: String,
    /// What its program says of itself.
    pub version: String,
    /// What it says of how it was built, where the registry knows how to ask.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build: Option<String>,
    /// Built from this source tree: a change of the tree changes it, and its version does not say so.
    #[serde(default)]
    pub own: bool,
    /// Why it did not run, or no longer.
    pub failed: Option<String>,
    /// One for each round.
    pub samples: Vec<Sample>,
}

impl SideOutcome {
    fn new(side: &Side) -> Self {
        let (version, failed) = match side.peer.version() {
            Ok(version) => (version, None),
            Err(error) => (String::new(), Some(format!("not present: {error:#}"))),
        };
        let build = failed.is_none().then(|| side.peer.build()).flatten();
        let (label, own) = (side.label.clone(), side.peer.is_own());
        Self { label, version, build, own, failed, samples: Vec::new() }
    }

    /// All its values of one figure.
    #[must_use]
    pub fn values(&self, metric: Metric) -> Vec<f64> {
        self.samples.iter().filter_map(|sample| sample.value(metric)).collect()
    }
}

/// How far apart equal servers came out.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Same {
    /// In which figure.
    pub metric: Metric,
    /// The second over the first.
    pub ratio: Ratio,
}

/// What came of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Judgement {
    /// The whole interval is within the bar.
    Met,
    /// The median is; the interval reaches beyond, or rests on too few rounds to say.
    MetAtMedian,
    /// The median is not.
    Missed,
    /// Nothing to compare.
    NotRun,
    /// There is no bar.
    Shown,
}

/// A claim with its figures.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Verdict {
    /// Which figure.
    pub metric: Metric,
    /// Whose.
    pub candidate: String,
    /// Against whose.
    pub baseline: Option<String>,
    /// Median of the candidate.
    pub candidate_median: Option<f64>,
    /// Best of the candidate.
    pub candidate_min: Option<f64>,
    /// Median of the baseline.
    pub baseline_median: Option<f64>,
    /// Best of the baseline.
    pub baseline_min: Option<f64>,
    /// Candidate over baseline.
    pub ratio: Option<Ratio>,
    /// Held to what.
    pub bar: Bar,
    /// The result.
    pub judgement: Judgement,
}

/// What came of a cell.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Outcome {
    /// The row of the table of claims.
    pub row: String,
    /// What was done.
    pub name: String,
    /// Length of a trial.
    pub timing: Timing,
    /// Rounds that were run again because of noise.
    pub repeated: usize,
    /// Rounds that count although there was some.
    pub disturbed: usize,
    /// Which noise.
    #[serde(default)]
    pub noise: Noise,
    /// Everyone's samples.
    pub sides: Vec<SideOutcome>,
    /// How far apart equals came out.
    pub same: Option<Same>,
    /// What was judged.
    pub verdicts: Vec<Verdict>,
}

fn ratio(base: &SideOutcome, cand: &SideOutcome, metric: Metric, seed: u64) -> Option<Ratio> {
    // Samples of one round stand at the same place, since a failed side stops for good.
    let pairs: Vec<(f64, f64)> = base.values(metric).into_iter().zip(cand.values(metric)).collect();
    // What JSON cannot carry is no ratio: a baseline that is 0 in many rounds.
    stats::paired_ratio(&pairs, seed).filter(|ratio| ratio.high.is_finite())
}

fn judge(claim: &Claim, sides: &[SideOutcome], seed: u64) -> Verdict {
    let candidate = &sides[claim.candidate];
    let baseline = claim.baseline.map(|index| &sides[index]);
    let some = |value: f64| (!value.is_nan()).then_some(value);
    let values = candidate.values(claim.metric);
    let candidate_median = some(stats::median(&values));
    let ratio = baseline.and_then(|base| ratio(base, candidate, claim.metric, seed));
    let judgement = claim.bar.judge(ratio, &values);
    Verdict {
        metric: claim.metric,
        candidate: candidate.label.clone(),
        baseline: baseline.map(|side| side.label.clone()),
        candidate_median,
        candidate_min: some(stats::minimum(&values)),
        baseline_median: baseline.and_then(|side| some(stats::median(&side.values(claim.metric)))),
        baseline_min: baseline.and_then(|side| some(stats::minimum(&side.values(claim.metric)))),
        ratio,
        bar: claim.bar,
        judgement,
    }
}

/// Checks that both cores are there, and stays on the client's.
///
/// # Errors
/// The CPUs asked for are not there.
pub fn check_cpus(server: usize, client: usize) -> Result<()> {
    crate::process::pin_self(server)?;
    crate::process::pin_self(client)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn side(label: &str, values: &[f64]) -> SideOutcome {
        let sample =
            |&value: &f64| Sample { values: vec![(Metric::CpuNsPerOp, value)], trial: None };
        SideOutcome {
            label: label.to_owned(),
            version: String::new(),
            build: None,
            own: true,
            failed: None,
            samples: values.iter().map(sample).collect(),
        }
    }

    fn judged(candidate: &[f64], bar: Bar) -> Judgement {
        let base: Vec<f64> = (0..10).map(|at| 1000.0 + f64::from(at)).collect();
        let sides = [side("a", &base), side("b", candidate)];
        let claim = Claim { metric: Metric::CpuNsPerOp, candidate: 1, baseline: Some(0), bar };
        judge(&claim, &sides, 1).judgement
    }

    #[test]
    fn claims_are_judged_by_interval_and_median() {
        let near: Vec<f64> = (0..10).map(|at| 700.0 + 20.0 * f64::from(at)).collect();
        assert_eq!(judged(&near, Bar::RatioAtMost(0.95)), Judgement::Met);
        assert_eq!(judged(&near, Bar::RatioAtMost(0.80)), Judgement::MetAtMedian);
        assert_eq!(judged(&near, Bar::RatioAtMost(0.70)), Judgement::Missed);
        assert_eq!(judged(&near, Bar::RatioAtLeast(0.78)), Judgement::MetAtMedian);
        assert_eq!(judged(&near, Bar::AtMost(2000.0)), Judgement::Met);
        assert_eq!(judged(&near, Bar::AtMost(100.0)), Judgement::Missed);
        assert_eq!(judged(&[], Bar::RatioAtMost(1.0)), Judgement::NotRun);
        assert_eq!(judged(&near, Bar::Shown), Judgement::Shown);
    }
}
