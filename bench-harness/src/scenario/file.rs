//! Scenarios as files: which servers, which load, what is varied.
//!
//! A file is one load with its sides, and `[[case]]`s that each change some of it. Why files: a
//! comparison that somebody else is to repeat is data, not a command line from a shell's history.
//! Invariants: what is read is valid as a whole, or an error names the field; the first side is what
//! the others are compared with, and runs twice. Next: `compare` runs the cells.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use super::measure::Measure;
use crate::clock::SECOND_NS;
use crate::compare::{Bar, Cell, Claim, Metric, Side};
use crate::load::protocol::{Http, Protocol};
use crate::load::trial::Timing;
use crate::load::{Arrivals, Workload};
use crate::{peers, stats};

/// Those that come with this program, by name.
pub const BUILT_IN: &[(&str, &str)] = &[
    ("cache", include_str!("../../scenarios/cache.toml")),
    ("cache-rate", include_str!("../../scenarios/cache-rate.toml")),
    ("memcached", include_str!("../../scenarios/memcached.toml")),
    ("nats", include_str!("../../scenarios/nats.toml")),
    ("http", include_str!("../../scenarios/http.toml")),
    ("http2", include_str!("../../scenarios/http2.toml")),
    ("http-connections", include_str!("../../scenarios/http-connections.toml")),
];

/// More connections than descriptors would be asked for.
const CONNECTIONS_MAX: usize = 16_384;
const PIPELINE_MAX: u32 = 4_096;
const VALUE_MAX_BYTES: usize = 16 << 20;

/// What is asked; what is not said is as in the file's head, and there as in [`Workload::new`].
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Load {
    /// Protocol, one that every side speaks; the first of each without it.
    pub protocol: Option<Protocol>,
    /// Connections in all.
    pub connections: Option<usize>,
    /// Closed loop: requests in a pipeline.
    pub pipeline: Option<u32>,
    /// Open loop: requests a second.
    pub rate: Option<f64>,
    /// Open loop: evenly spaced instead of Poisson.
    pub constant: Option<bool>,
    /// Share of requests that write.
    pub set_share: Option<f64>,
    /// Length of values.
    pub value_len: Option<usize>,
    /// Distinct keys.
    pub keys: Option<u32>,
    /// HTTP: what is requested.
    pub path: Option<String>,
}

/// One case: a name, and what it changes.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Case {
    /// What it is called in the report.
    pub name: String,
    /// What it changes of the head's load.
    #[serde(flatten)]
    pub load: Load,
}

/// A file.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Scenario {
    /// What it shows.
    pub about: String,
    /// Servers by name, the one to be compared with first.
    pub sides: Vec<String>,
    /// Rounds, each with one trial of every side.
    #[serde(default = "pairs")]
    pub pairs: usize,
    /// Recorded seconds of a trial.
    #[serde(default = "seconds")]
    pub seconds: f64,
    /// What all cases have in common.
    #[serde(default)]
    pub load: Load,
    /// What is varied; one case of the load alone without any.
    #[serde(default)]
    pub case: Vec<Case>,
}

const fn pairs() -> usize {
    stats::PAIRS
}

const fn seconds() -> f64 {
    1.0
}

impl Load {
    /// This, where it says something, and `head` elsewhere.
    fn over(&self, head: &Self) -> Self {
        // An open loop has no pipeline: whichever a case names replaces the head's.
        let (pipeline, rate) = if self.pipeline.is_some() || self.rate.is_some() {
            (self.pipeline, self.rate)
        } else {
            (head.pipeline, head.rate)
        };
        Self {
            protocol: self.protocol.or(head.protocol),
            connections: self.connections.or(head.connections),
            pipeline,
            rate,
            constant: self.constant.or(head.constant),
            set_share: self.set_share.or(head.set_share),
            value_len: self.value_len.or(head.value_len),
            keys: self.keys.or(head.keys),
            path: self.path.clone().or_else(|| head.path.clone()),
        }
    }

    fn workload(&self) -> Result<Workload> {
        let usual = Workload::new(Protocol::Resp, 1);
        let arrivals = match (self.pipeline, self.rate) {
            (Some(_), Some(_)) => bail!("pipeline and rate: a loop is closed or open"),
            (pipeline, None) => {
                let pipeline = pipeline.unwrap_or(1);
                ensure!(
                    (1..=PIPELINE_MAX).contains(&pipeline),
                    "pipeline: from 1 to {PIPELINE_MAX}, not {pipeline}"
                );
                Arrivals::Closed { pipeline }
            }
            (None, Some(rate)) => {
                ensure!(
                    rate > 0.0 && rate <= 1e8,
                    "rate: above 0 and at most 100,000,000 a second, not {rate}"
                );
                Arrivals::Open { rate, poisson: !self.constant.unwrap_or(false) }
            }
        };
        let connections = self.connections.unwrap_or(usual.connections);
        ensure!(
            (1..=CONNECTIONS_MAX).contains(&connections),
            "connections: from 1 to {CONNECTIONS_MAX}, not {connections}"
        );
        let set_share = self.set_share.unwrap_or(0.0);
        ensure!((0.0..=1.0).contains(&set_share), "set-share: from 0 to 1, not {set_share}");
        let value_len_bytes = self.value_len.unwrap_or(usual.value_len_bytes);
        ensure!(
            value_len_bytes <= VALUE_MAX_BYTES,
            "value-len: at most {VALUE_MAX_BYTES} bytes, not {value_len_bytes}"
        );
        let path = self.path.clone().unwrap_or_else(|| "/".to_owned());
        ensure!(path.starts_with('/'), "path: begins with /, not {path:?}");
        Ok(Workload {
            protocol: self.protocol.unwrap_or(usual.protocol),
            set_share,
            keys: self.keys.unwrap_or(usual.keys).max(1),
            value_len_bytes,
            connections,
            arrivals,
            seed: 1,
            http: Http { path: path.into(), ..Http::new() },
        })
    }
}

impl Scenario {
    /// The one named `name`: a file's path, or one that comes with this program.
    ///
    /// # Errors
    /// There is none, or what it says is not valid.
    pub fn find(name: &str) -> Result<Self> {
        if let Some((_, text)) = BUILT_IN.iter().find(|(own, _)| *own == name) {
            return Self::parse(text).with_context(|| format!("scenario {name}"));
        }
        if Path::new(name).extension().is_none_or(|end| end != "toml") {
            let names: Vec<&str> = BUILT_IN.iter().map(|(name, _)| *name).collect();
            bail!("there is no scenario {name:?}: a TOML file, or one of {}", names.join(", "));
        }
        let text = fs::read_to_string(name).with_context(|| format!("read {name}"))?;
        Self::parse(&text).with_context(|| name.to_owned())
    }

    /// Reads a file's text.
    ///
    /// # Errors
    /// It says what is wrong, and where.
    pub fn parse(text: &str) -> Result<Self> {
        let scenario: Self = toml::from_str(text)?;
        ensure!(!scenario.sides.is_empty(), "sides: at least one server is needed");
        ensure!(
            (1..=1000).contains(&scenario.pairs),
            "pairs: from 1 to 1000, not {}",
            scenario.pairs
        );
        ensure!(
            (0.01..=3600.0).contains(&scenario.seconds),
            "seconds: from 0.01 to 3600, not {}",
            scenario.seconds
        );
        for case in scenario.cases() {
            case.load.over(&scenario.load).workload().with_context(|| case.name.clone())?;
        }
        Ok(scenario)
    }

    fn cases(&self) -> Vec<Case> {
        if self.case.is_empty() {
            return vec![Case { name: "the load".to_owned(), load: Load::default() }];
        }
        self.case.clone()
    }

    /// Its cells, with the servers on `server_cpu`.
    ///
    /// # Errors
    /// A server is unknown, or does not speak what it is to be asked in.
    pub fn cells(&self, name: &str, server_cpu: usize) -> Result<Vec<Cell>> {
        let duration_ns = (self.seconds * SECOND_NS as f64) as u64;
        let timing = Timing { warmup_ns: (duration_ns / 4).max(SECOND_NS / 5), duration_ns };
        let mut cells = Vec::new();
        for case in self.cases() {
            let load = case.load.over(&self.load);
            let mut sides = Vec::new();
            for side in &self.sides {
                let peer = peers::find(side)?;
                let protocol = match load.protocol {
                    Some(protocol) => protocol,
                    None => peer.protocol()?,
                };
                let spoken = protocol.name();
                ensure!(
                    peer.speaks(spoken),
                    "{}: {side} does not speak {spoken}, but {}",
                    case.name,
                    peer.protocols.join(", ")
                );
                sides.push(Side { protocol: Some(protocol), ..Side::new(peer, server_cpu) });
            }
            let again = format!("{} again", sides[0].label);
            let claims = claims(sides.len());
            sides.push(sides[0].clone().labelled(&again));
            let last = sides.len() - 1;
            cells.push(Cell {
                row: name.to_owned().into(),
                name: case.name.clone(),
                measure: Measure::Load(load.workload()?),
                sides,
                same: Some((0, last)),
                claims,
                rounds: self.pairs,
                timing,
            });
        }
        Ok(cells)
    }
}

/// Every other side beside the first; the first alone where there is no other.
fn claims(sides: usize) -> Vec<Claim> {
    let metrics = [Metric::CpuNsPerOp, Metric::Rate, Metric::P50Ns, Metric::P99Ns];
    let others = if sides > 1 { 1..sides } else { 0..1 };
    let baseline = (sides > 1).then_some(0);
    others
        .flat_map(|candidate| {
            metrics.map(|metric| Claim { metric, candidate, baseline, bar: Bar::Shown })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_that_come_along_are_valid_and_their_sides_speak_what_they_are_asked() {
        for (name, _) in BUILT_IN {
            let scenario = Scenario::find(name).expect(name);
            let cells = scenario.cells(name, 0).expect(name);
            assert_eq!(cells.len(), scenario.case.len().max(1));
            for cell in cells {
                assert_eq!(cell.same, Some((0, scenario.sides.len())), "{}", cell.name);
                assert!(cell.claims.iter().all(|claim| claim.candidate < cell.sides.len() - 1));
            }
        }
    }

    const SMALL: &str = "about = 'x'\nsides = ['redis']\n[load]\npipeline = 16\nvalue-len = 9\n";

    #[test]
    fn a_case_changes_what_it_names() {
        let text =
            format!("{SMALL}[[case]]\nname = 'open'\nrate = 500.0\n[[case]]\nname = 'same'\n");
        let cells = Scenario::parse(&text).expect("valid").cells("x", 0).expect("servers");
        let workloads: Vec<&Workload> = cells
            .iter()
            .map(|cell| match &cell.measure {
                Measure::Load(workload) => workload,
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(workloads[0].arrivals, Arrivals::Open { rate: 500.0, poisson: true });
        assert_eq!(workloads[1].arrivals, Arrivals::Closed { pipeline: 16 });
        assert!(workloads.iter().all(|workload| workload.value_len_bytes == 9));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (more, expected) in [
            ("rate = 5.0\n", "closed or open"),
            ("set-share = 2.0\n", "set-share: from 0 to 1"),
            ("connections = 0\n", "connections: from 1"),
            ("path = 'x'\n", "path: begins with /"),
            ("speed = 1\n", "unknown field `speed`"),
            ("protocol = 'telnet'\n", "telnet"),
        ] {
            let error = Scenario::parse(&format!("{SMALL}{more}")).expect_err(more);
            assert!(format!("{error:#}").contains(expected), "{more}: {error:#}");
        }
        let http = Scenario::parse(&format!("{SMALL}protocol = 'http1'\n")).expect("valid");
        let error = http.cells("x", 0).expect_err("redis is no web server").to_string();
        assert!(error.contains("redis does not speak http1"), "{error}");
        let error = Scenario::find("nothing").expect_err("there is none").to_string();
        assert!(error.contains("http-connections"), "{error}");
    }
}
