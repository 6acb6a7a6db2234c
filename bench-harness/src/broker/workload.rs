//! What is asked of a broker: topics, sizes and rates, from TOML.
//!
//! A file of its own describes each, so that a run can be repeated and changed without a build; those that come along are in
//! `bench-harness/workloads/`. Invariants: a workload that was read is valid. Next: `load`, which runs it.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

/// Most messages of one request.
const BATCH_MESSAGES_MAX: usize = 1 << 16;
/// Longest request.
const BATCH_BYTES_MAX: usize = 64 << 20;

/// What a broker is asked to do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Workload {
    /// One line on what it is.
    pub about: String,
    /// Topics.
    #[serde(default = "one")]
    pub topics: u32,
    /// Partitions of each, one producer each; a server without partitions gets a stream for each.
    #[serde(default = "one")]
    pub partitions: u32,
    /// Bytes of a message's value.
    pub message_bytes: usize,
    /// Messages that a producer sends together.
    pub batch_messages: usize,
    /// Requests that a producer has in flight, at most.
    #[serde(default = "window")]
    pub window: usize,
    /// Messages in a second over all producers, whether or not the broker keeps up; closed loop without.
    pub rate: Option<f64>,
    /// Whether each partition is read from its end while it is written.
    #[serde(default)]
    pub follow: bool,
    /// Whether all that was stored is read from the beginning afterwards.
    #[serde(default)]
    pub read_back: bool,
    /// Seconds that are recorded.
    #[serde(default = "seconds")]
    pub seconds: f64,
    /// Where the broker lets one choose: whether acknowledged means on disk.
    #[serde(default = "yes")]
    pub sync: bool,
}

const fn one() -> u32 {
    1
}

const fn window() -> usize {
    8
}

const fn seconds() -> f64 {
    3.0
}

const fn yes() -> bool {
    true
}

/// Workloads that come along, by name.
pub const BUILT_IN: &[(&str, &str)] = &[
    ("small", include_str!("../../workloads/small.toml")),
    ("large", include_str!("../../workloads/large.toml")),
    ("half", include_str!("../../workloads/half.toml")),
    ("catch-up", include_str!("../../workloads/catch-up.toml")),
    ("end-to-end", include_str!("../../workloads/end-to-end.toml")),
    ("many-partitions", include_str!("../../workloads/many-partitions.toml")),
];

impl Workload {
    /// The workload that comes along under this name, or is in this file.
    ///
    /// # Errors
    /// There is neither, or it is not valid.
    pub fn find(name: &str) -> Result<Self> {
        if let Some((_, text)) = BUILT_IN.iter().find(|(built_in, _)| *built_in == name) {
            return Self::parse(text).with_context(|| format!("workload {name}"));
        }
        let names: Vec<&str> = BUILT_IN.iter().map(|(name, _)| *name).collect();
        let text = std::fs::read_to_string(Path::new(name)).with_context(|| {
            format!("no workload is called {name}, and no file; there are {}", names.join(", "))
        })?;
        Self::parse(&text).with_context(|| format!("workload {name}"))
    }

    fn parse(text: &str) -> Result<Self> {
        let workload: Self = toml::from_str(text)?;
        workload.check()?;
        Ok(workload)
    }

    fn check(&self) -> Result<()> {
        let within = |name: &str, value: usize, most: usize| {
            ensure!((1..=most).contains(&value), "{name} is {value}, and must be from 1 to {most}");
            Ok(())
        };
        within("topics", self.topics as usize, 1_000)?;
        within("partitions", self.partitions as usize, 1_000)?;
        within("topics * partitions", (self.topics * self.partitions) as usize, 2_000)?;
        within("message_bytes", self.message_bytes, 1 << 20)?;
        within("batch_messages", self.batch_messages, BATCH_MESSAGES_MAX)?;
        within("batch_messages * message_bytes", self.batch_bytes(), BATCH_BYTES_MAX)?;
        within("window", self.window, 10_000)?;
        if !(0.05..=600.0).contains(&self.seconds) {
            bail!("seconds is {}, and must be from 0.05 to 600", self.seconds);
        }
        if let Some(rate) = self.rate
            && !(1.0..=1e8).contains(&rate)
        {
            bail!("rate is {rate}, and must be from 1 to 100,000,000 messages a second");
        }
        Ok(())
    }

    /// Bytes of the messages of a request, without what the protocol adds.
    #[must_use]
    pub const fn batch_bytes(&self) -> usize {
        self.batch_messages * self.message_bytes
    }

    /// Names of the topics, which begin with `prefix`.
    pub fn topic_names(&self, prefix: &str) -> impl Iterator<Item = String> {
        (0..self.topics).map(move |number| format!("{prefix}-{number}"))
    }

    /// A message's value: printable, and not all the same byte.
    #[must_use]
    pub fn message(&self) -> Vec<u8> {
        (0..self.message_bytes).map(|at| b'a' + (at % 23) as u8).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_come_along_are_valid() {
        for (name, _) in BUILT_IN {
            let workload = Workload::find(name).expect("valid");
            assert!(!workload.about.is_empty(), "{name}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        let text = "about = 'x'\nmessage_bytes = 100\nbatch_messages = 1\n";
        let workload = Workload::parse(text).expect("valid");
        assert_eq!((workload.partitions, workload.rate), (1, None));
        for (line, named) in [
            ("partitions = 0", "partitions"),
            ("rate = 0.0", "rate"),
            ("seconds = 1e9", "seconds"),
            ("colour = 1", "colour"),
            ("window = 0", "window"),
        ] {
            let error = Workload::parse(&format!("{text}{line}")).expect_err(line);
            assert!(format!("{error:#}").contains(named), "{line}: {error:#}");
        }
        let error = Workload::find("no-such-workload").expect_err("unknown");
        assert!(error.to_string().contains("end-to-end"), "{error:#}");
    }
}
