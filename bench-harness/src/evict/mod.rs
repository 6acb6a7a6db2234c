//! The eviction simulator: miss ratios of our store's policies beside models of others, over drawn requests.
//!
//! Our policies are not modelled: each request goes to a [`logic::store::Store`] as GET, and SET when it missed, with as many
//! keys as there is room for. The others are [`redis`]'s sampled LRU, [`tinylfu`] (W-TinyLFU as Caffeine has it) and
//! [`lru`], exact. Time comes from the rate of requests, since the clocks of ours and of redis tick.
//! Invariants: equal scenarios give equal results; all policies see the same requests, and the first part of them is not
//! counted. Next: [`trace`] for the requests, [`scenario`] for what is in a file.

pub mod lru;
pub mod ours;
pub mod redis;
pub mod scenario;
pub mod tinylfu;
pub mod trace;

use std::fmt::Write as _;

use anyhow::{Result, ensure};
use logic::store;
use serde::Serialize;

use scenario::Scenario;

/// Unix milliseconds of the first request.
const START_MS: u64 = 1_700_000_000_000;
/// What chance may make of two equal policies, as a part of all requests.
const NOISE: f64 = 0.002;
/// By how much `s3fifo` may miss more than W-TinyLFU does.
const S3FIFO_BAR: f64 = 0.01;

/// A cache of so many keys.
pub trait Cache {
    /// Asks for a key, which is there afterwards unless the policy will not have it; whether it was.
    fn access(&mut self, key: u32, now_ms: u64) -> bool;
    /// Keys it holds.
    fn len(&self) -> usize;
    /// Whether it holds none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The policies, by name.
pub const POLICIES: [&str; 5] =
    ["allkeys-lru", "s3fifo", "redis-sampled-lru", "w-tinylfu", "exact-lru"];

/// An empty cache of this policy.
///
/// # Errors
/// There is none of this name.
pub fn cache(policy: &str, room: usize, seed: u64) -> Result<Box<dyn Cache>> {
    Ok(match policy {
        "allkeys-lru" => Box::new(ours::Ours::new(store::Policy::AllKeysLru, room, seed)),
        "allkeys-lfu" => Box::new(ours::Ours::new(store::Policy::AllKeysLfu, room, seed)),
        "s3fifo" => Box::new(ours::Ours::new(store::Policy::S3Fifo, room, seed)),
        "redis-sampled-lru" => Box::new(redis::SampledLru::new(room, seed)),
        "w-tinylfu" => Box::new(tinylfu::TinyLfu::new(room, seed)),
        "exact-lru" => Box::new(lru::Lru::new(room)),
        _ => anyhow::bail!("policy {policy:?}: one of {POLICIES:?} or allkeys-lfu"),
    })
}

/// One policy's misses.
#[derive(Clone, Debug, Serialize)]
pub struct Found {
    /// The policy.
    pub policy: String,
    /// Misses as a part of the counted requests.
    pub miss_ratio: f64,
}

/// All policies on one trace with one size.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// The trace.
    pub trace: String,
    /// Whether it is Zipf's law alone.
    pub is_zipf: bool,
    /// Room as a part of the trace's keys.
    pub size: f64,
    /// Room in keys.
    pub room: usize,
    /// What was found.
    pub found: Vec<Found>,
}

impl Row {
    /// The miss ratio of a policy.
    #[must_use]
    pub fn of(&self, policy: &str) -> Option<f64> {
        self.found.iter().find(|found| found.policy == policy).map(|found| found.miss_ratio)
    }
}

/// What came of a scenario.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// What was asked.
    pub scenario: Scenario,
    /// What was found.
    pub rows: Vec<Row>,
    /// Bars that were missed, in words.
    pub missed: Vec<String>,
}

/// Runs a scenario.
///
/// # Errors
/// It is not valid.
pub fn run(scenario: &Scenario, progress: &mut dyn FnMut(&str)) -> Result<Report> {
    scenario.check()?;
    let mut rows = Vec::new();
    for trace in &scenario.trace {
        let keys = trace::draw(trace, scenario);
        for &size in &scenario.sizes {
            let room = (f64::from(scenario.keys) * size).round() as usize;
            ensure!(room > 0, "size {size}: no room for a key");
            let mut row = Row {
                trace: trace.name.clone(),
                is_zipf: trace.scan_share == 0.0 && trace.loop_share == 0.0,
                size,
                room,
                found: Vec::new(),
            };
            for policy in &scenario.policies {
                let mut cache = cache(policy, room, scenario.seed)?;
                let miss_ratio = replay(cache.as_mut(), &keys, scenario, room);
                row.found.push(Found { policy: policy.clone(), miss_ratio });
            }
            progress(&line(&row));
            rows.push(row);
        }
    }
    let missed = rows.iter().flat_map(bars).collect();
    Ok(Report { scenario: scenario.clone(), rows, missed })
}

/// Puts all requests to a cache; misses of those after the warm-up as a part of them.
fn replay(cache: &mut dyn Cache, keys: &[u32], scenario: &Scenario, room: usize) -> f64 {
    let warm_up = (keys.len() as f64 * scenario.warm_up) as usize;
    let mut misses = 0_u64;
    for (at, &key) in keys.iter().enumerate() {
        let now_ms = START_MS + (at as f64 * 1_000.0 / scenario.rate) as u64;
        let hit = cache.access(key, now_ms);
        misses += u64::from(!hit && at >= warm_up);
        debug_assert!(cache.len() <= room);
    }
    misses as f64 / (keys.len() - warm_up).max(1) as f64
}

/// What a row misses of what our policies are to reach.
fn bars(row: &Row) -> Vec<String> {
    let mut missed = Vec::new();
    let place = format!("{}, {} keys", row.trace, row.room);
    if let (Some(ours), Some(redis)) = (row.of("allkeys-lru"), row.of("redis-sampled-lru"))
        && ours > redis + NOISE
    {
        missed.push(format!("{place}: allkeys-lru misses {ours:.4}, redis' {redis:.4}"));
    }
    if let (Some(ours), Some(other)) = (row.of("s3fifo"), row.of("w-tinylfu"))
        && row.is_zipf
        && ours > other + S3FIFO_BAR
    {
        missed.push(format!("{place}: s3fifo misses {ours:.4}, w-tinylfu {other:.4}"));
    }
    missed
}

fn line(row: &Row) -> String {
    let mut text = format!("{:<28} {:>7}", row.trace, row.room);
    for found in &row.found {
        // Writing to a string cannot fail.
        let _ = write!(text, "  {:>17.4}", found.miss_ratio);
    }
    text
}

impl Report {
    /// As a table.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = format!("{:<28} {:>7}", "miss ratio", "keys");
        for policy in &self.scenario.policies {
            let _ = write!(text, "  {policy:>17}");
        }
        text.push('\n');
        for row in &self.rows {
            text.push_str(&line(row));
            text.push('\n');
        }
        for missed in &self.missed {
            let _ = writeln!(text, "missed: {missed}");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A part of the usual scenario, as small as shows a policy that is broken.
    #[test]
    fn our_policies_reach_their_bars_on_a_part_of_the_scenario() {
        let mut scenario = Scenario::usual().expect("what comes with the program is valid");
        scenario.keys = 5_000;
        scenario.requests = 60_000;
        scenario.sizes = vec![0.02, 0.1];
        scenario.trace.retain(|trace| trace.name.contains("0.99") || trace.name.contains("0.7"));
        assert!(scenario.trace.len() >= 5);
        let report = run(&scenario, &mut |_| {}).expect("it runs");
        assert_eq!(report.missed, [""; 0], "{}", report.text());
        assert_eq!(report.rows.len(), scenario.trace.len() * 2);
        scenario.trace.truncate(1);
        let again = run(&scenario, &mut |_| {}).expect("it runs");
        let same = report.rows.iter().zip(&again.rows).all(|(a, b)| line(a) == line(b));
        assert!(same, "{}", again.text());
        for row in &report.rows {
            assert!(row.found.iter().all(|found| (0.01..1.0).contains(&found.miss_ratio)));
        }
    }

    #[test]
    fn a_bar_that_is_missed_is_told() {
        let found = |policy: &str, miss_ratio| Found { policy: policy.into(), miss_ratio };
        let mut row = Row {
            trace: "zipf".into(),
            is_zipf: true,
            size: 0.1,
            room: 10,
            found: vec![
                found("allkeys-lru", 0.5),
                found("redis-sampled-lru", 0.499),
                found("s3fifo", 0.4),
                found("w-tinylfu", 0.391),
            ],
        };
        assert!(bars(&row).is_empty());
        row.found[0].miss_ratio = 0.51;
        row.found[2].miss_ratio = 0.41;
        assert_eq!(bars(&row).len(), 2);
        row.is_zipf = false;
        assert_eq!(bars(&row).len(), 1);
    }

    #[test]
    fn every_cache_keeps_to_its_room_and_finds_what_it_holds() {
        for policy in POLICIES.into_iter().chain(["allkeys-lfu"]) {
            for room in [1, 2, 7, 100] {
                let mut cache = cache(policy, room, 3).expect("a policy");
                assert!(cache.is_empty());
                for at in 0..2_000_u32 {
                    cache.access(at.wrapping_mul(2_654_435_761) % 300, START_MS + u64::from(at));
                    assert!(cache.len() <= room, "{policy} {room}");
                }
                assert_eq!(cache.len(), room, "{policy}");
                if policy != "w-tinylfu" {
                    cache.access(5, START_MS + 3_000);
                    assert!(cache.access(5, START_MS + 3_000), "{policy} {room}");
                }
            }
        }
        assert!(cache("mru", 1, 1).is_err());
    }
}
