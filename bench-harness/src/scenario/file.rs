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
use crate::load::trial::{self, Timing};
use crate::load::{Arrivals, KeyDist, Workload};
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
    ("ycsb-a", include_str!("../../scenarios/ycsb-a.toml")),
    ("ycsb-b", include_str!("../../scenarios/ycsb-b.toml")),
    ("ycsb-c", include_str!("../../scenarios/ycsb-c.toml")),
    ("ycsb-d", include_str!("../../scenarios/ycsb-d.toml")),
    ("ycsb-f", include_str!("../../scenarios/ycsb-f.toml")),
];

/// More connections than descriptors would be asked for.
pub const CONNECTIONS_MAX: usize = 16_384;
/// More requests in a pipeline only wait for each other.
pub const PIPELINE_MAX: u32 = 4_096;
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
    /// Writes are of new keys.
    pub inserts: Option<bool>,
    /// Share of requests that read a key which the connection writes next.
    pub rmw_share: Option<f64>,
    /// Length of values.
    pub value_len: Option<usize>,
    /// Distinct keys.
    pub keys: Option<u32>,
    /// How requests fall on them, as `bench load --key-dist` has it.
    pub key_dist: Option<KeyDist>,
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
            inserts: self.inserts.or(head.inserts),
            rmw_share: self.rmw_share.or(head.rmw_share),
            value_len: self.value_len.or(head.value_len),
            keys: self.keys.or(head.keys),
            key_dist: self.key_dist.or(head.key_dist),
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
        let rmw_share = self.rmw_share.unwrap_or(0.0);
        ensure!(
            rmw_share >= 0.0 && set_share + rmw_share <= 1.0,
            "rmw-share: from 0 to 1 with set-share, not {rmw_share}"
        );
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
            inserts: self.inserts.unwrap_or(false),
            rmw_share,
            keys: self.keys.unwrap_or(usual.keys).max(1),
            key_dist: self.key_dist.unwrap_or_default(),
            value_len_bytes,
            connections,
            arrivals,
            http: Http { path: path.into(), ..Http::new() },
            ..usual
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
            let workload = load.workload()?;
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
                trial::check_workload(&Workload { protocol, ..workload.clone() }, &[])
                    .with_context(|| format!("{}: {side}", case.name))?;
                sides.push(Side { protocol: Some(protocol), ..Side::new(peer, server_cpu) });
            }
            let again = format!("{} again", sides[0].label);
            let claims = claims(sides.len());
            sides.push(sides[0].clone().labelled(&again));
            let last = sides.len() - 1;
            cells.push(Cell {
                row: name.to_owned().into(),
                name: case.name.clone(),
                measure: Measure::Load(workload),
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

    /// The load of a scenario's first case.
    fn load(text: &str) -> Workload {
        let scenario = Scenario::parse(text).expect("valid");
        match scenario.cells("x", 0).expect("servers").remove(0).measure {
            Measure::Load(workload) => workload,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn workloads_of_ycsb_are_those_of_its_core_package() {
        let skewed = KeyDist::Zipfian { skew: 0.99, scrambled: true };
        let newest = KeyDist::Latest { skew: 0.99 };
        for (name, set_share, rmw_share, inserts, key_dist) in [
            ("ycsb-a", 0.5, 0.0, false, skewed),
            ("ycsb-b", 0.05, 0.0, false, skewed),
            ("ycsb-c", 0.0, 0.0, false, skewed),
            ("ycsb-d", 0.05, 0.0, true, newest),
            ("ycsb-f", 0.0, 0.5, false, skewed),
        ] {
            let scenario = Scenario::find(name).expect(name);
            assert!(scenario.about.contains("strings"), "what YCSB does with hashes: {name}");
            for cell in scenario.cells(name, 0).expect(name) {
                let Measure::Load(workload) = &cell.measure else { panic!("{name}") };
                let found = (workload.set_share, workload.rmw_share, workload.inserts);
                assert_eq!(found, (set_share, rmw_share, inserts), "{name}");
                assert_eq!(
                    (workload.key_dist, workload.value_len_bytes),
                    (key_dist, 1_000),
                    "{name}"
                );
                // The same in memcached's words.
                let spoken: Vec<Protocol> =
                    cell.sides.iter().filter_map(|side| side.protocol).collect();
                assert!(spoken.contains(&Protocol::Resp) && spoken.contains(&Protocol::Memcache));
            }
        }
    }

    #[test]
    fn keys_are_uniform_unless_a_law_is_named() {
        assert!(!load(SMALL).is_drawn());
        let hot = load(&format!("{SMALL}key-dist = 'hotspot:0.1:0.9'\n"));
        assert_eq!(hot.key_dist, KeyDist::Hotspot { keys: 0.1, requests: 0.9 });
        assert!(hot.is_drawn());
        assert!(load(&format!("{SMALL}inserts = true\n")).is_drawn());
        assert!(load(&format!("{SMALL}rmw-share = 1.0\n")).has_sets());
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (more, expected) in [
            ("rate = 5.0\n", "closed or open"),
            ("set-share = 2.0\n", "set-share: from 0 to 1"),
            ("connections = 0\n", "connections: from 1"),
            ("path = 'x'\n", "path: begins with /"),
            ("set-share = 0.6\nrmw-share = 0.5\n", "rmw-share: from 0 to 1 with set-share"),
            ("key-dist = 'gauss'\n", "zipfian[:SKEW]"),
            ("key-dist = 'latest:0'\n", "a skew is from 0.01 to 10"),
            ("speed = 1\n", "unknown field `speed`"),
            ("protocol = 'telnet'\n", "telnet"),
        ] {
            let error = Scenario::parse(&format!("{SMALL}{more}")).expect_err(more);
            assert!(format!("{error:#}").contains(expected), "{more}: {error:#}");
        }
        let keyless = "about = 'x'\nsides = ['nginx']\n[load]\nkey-dist = 'zipfian'\n";
        let error =
            Scenario::parse(keyless).expect("valid").cells("x", 0).expect_err("it has no keys");
        let error = format!("{error:#}");
        assert!(error.contains("over http1: only where requests have keys"), "{error}");
        let http = Scenario::parse(&format!("{SMALL}protocol = 'http1'\n")).expect("valid");
        let error = http.cells("x", 0).expect_err("redis is no web server").to_string();
        assert!(error.contains("redis does not speak http1"), "{error}");
        let error = Scenario::find("nothing").expect_err("there is none").to_string();
        assert!(error.contains("http-connections"), "{error}");
    }
}
