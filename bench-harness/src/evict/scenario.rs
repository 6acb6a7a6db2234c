//! What is simulated, as a file says it.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use super::trace::Trace;
use super::{POLICIES, cache};

/// The one that comes with this program.
const USUAL: &str = include_str!("../../scenarios/evict.toml");

const KEYS_MAX: u32 = 100_000_000;
const REQUESTS_MAX: usize = 1_000_000_000;

/// What is simulated.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Scenario {
    /// What it is for, in a line.
    pub about: String,
    /// Keys of Zipf's law.
    pub keys: u32,
    /// Requests of each trace.
    pub requests: usize,
    /// The part of them that is not counted.
    pub warm_up: f64,
    /// Requests a second, for policies with a clock.
    pub rate: f64,
    /// Room, as parts of the keys.
    pub sizes: Vec<f64>,
    /// The policies.
    #[serde(default = "policies")]
    pub policies: Vec<String>,
    /// Of all that is drawn.
    #[serde(default = "seed")]
    pub seed: u64,
    /// Requests.
    pub trace: Vec<Trace>,
}

fn policies() -> Vec<String> {
    POLICIES.map(String::from).to_vec()
}

const fn seed() -> u64 {
    1
}

impl Scenario {
    /// The one that comes with this program.
    ///
    /// # Errors
    /// None; a test reads it.
    pub fn usual() -> Result<Self> {
        Self::parse(USUAL)
    }

    /// The one in a file.
    ///
    /// # Errors
    /// It cannot be read, or is not valid.
    pub fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
        Self::parse(&text).with_context(|| path.display().to_string())
    }

    fn parse(text: &str) -> Result<Self> {
        let scenario: Self = toml::from_str(text)?;
        scenario.check()?;
        Ok(scenario)
    }

    /// Whether it can be run.
    ///
    /// # Errors
    /// It cannot: what is wrong.
    pub fn check(&self) -> Result<()> {
        let part = |name: &str, value: f64| -> Result<()> {
            ensure!((0.0..=1.0).contains(&value), "{name}: from 0 to 1, not {value}");
            Ok(())
        };
        ensure!((1..=KEYS_MAX).contains(&self.keys), "keys: from 1 to {KEYS_MAX}");
        ensure!((1..=REQUESTS_MAX).contains(&self.requests), "requests: from 1 to {REQUESTS_MAX}");
        ensure!(self.rate >= 0.001 && self.rate.is_finite(), "rate: above 0, not {}", self.rate);
        ensure!(!self.trace.is_empty() && !self.sizes.is_empty(), "no traces, or no sizes");
        part("warm-up", self.warm_up)?;
        for &size in &self.sizes {
            part("sizes", size)?;
            ensure!(f64::from(self.keys) * size >= 1.0, "sizes: no room for a key in {size}");
        }
        for policy in &self.policies {
            cache(policy, 1, self.seed)?;
        }
        for trace in &self.trace {
            ensure!(trace.skew > 0.0 && trace.skew <= 10.0, "skew: above 0, not {}", trace.skew);
            part("scan-share", trace.scan_share)?;
            part("loop-share", trace.loop_share)?;
            part("scan-share and loop-share", trace.scan_share + trace.loop_share)?;
            part("loop-keys", trace.loop_keys)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_makes_no_sense_is_refused() {
        let good = Scenario::usual().expect("it is valid");
        let wrong: [fn(&mut Scenario); 7] = [
            |scenario| scenario.keys = 0,
            |scenario| scenario.requests = 0,
            |scenario| scenario.sizes = vec![1e-9],
            |scenario| scenario.rate = f64::NAN,
            |scenario| scenario.policies = vec!["mru".into()],
            |scenario| scenario.trace[0].skew = -1.0,
            |scenario| scenario.trace[0].scan_share = 1.5,
        ];
        for edit in wrong {
            let mut scenario = good.clone();
            edit(&mut scenario);
            assert!(scenario.check().is_err(), "{scenario:?}");
        }
    }
}
