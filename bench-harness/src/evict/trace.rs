//! The requests of a scenario, drawn by its seed.
//!
//! Ranks of Zipf's law are keys from 0 on; those of a scan come once each, from beyond them on; those of a loop come again and
//! again in the same order, from beyond all a scan may use on.

use serde::{Deserialize, Serialize};

use super::scenario::Scenario;
use crate::load::zipf::Zipf;
use crate::rng::Rng;

/// Where keys of scans begin, and of loops.
const SCAN_FROM: u32 = 1 << 30;
const LOOP_FROM: u32 = 1 << 31;

/// What requests are like.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Trace {
    /// What it is called.
    pub name: String,
    /// The skew of Zipf's law.
    pub skew: f64,
    /// The part of requests that scan: keys that come once.
    #[serde(default)]
    pub scan_share: f64,
    /// The part of requests that loop.
    #[serde(default)]
    pub loop_share: f64,
    /// Keys of the loop, as a part of the scenario's.
    #[serde(default)]
    pub loop_keys: f64,
}

/// Draws the requests.
#[must_use]
pub fn draw(trace: &Trace, scenario: &Scenario) -> Vec<u32> {
    let mut rng = Rng::new(scenario.seed);
    let zipf = Zipf::new(scenario.keys, trace.skew);
    let looped = ((f64::from(scenario.keys) * trace.loop_keys) as u32).max(1);
    let (mut scanned, mut turn) = (0, 0);
    (0..scenario.requests)
        .map(|_| {
            let kind = rng.unit();
            if kind < trace.scan_share {
                scanned += 1;
                SCAN_FROM + scanned % SCAN_FROM
            } else if kind < trace.scan_share + trace.loop_share {
                turn = (turn + 1) % looped;
                LOOP_FROM + turn
            } else {
                zipf.draw(&mut rng)
            }
        })
        .collect()
}
