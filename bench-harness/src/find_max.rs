//! The highest rate at which a latency stays below a bound: `p99<1ms`.
//!
//! The offered rate doubles until the bound is broken, then the interval is halved (on a logarithmic
//! scale) until its ends are near enough. Invariants: a rate passes when the median of its trials is below
//! the bound, all arrivals found room, nearly all that was offered was answered, and no trial was bound
//! by the client; a doubtful rate is never a pass. The search is bounded by [`DOUBLINGS_MAX`],
//! [`HALVINGS_MAX`] and [`BISECTIONS_MAX`]. Latency must grow with the rate: where it falls first, as
//! it does with batching, what is found is the end of the first stretch of passes. Next: `curve`, for
//! the points, and to see the whole of it.

use std::fmt::Write as _;
use std::str::FromStr;

use anyhow::{Result, bail};
use serde::Serialize;

use crate::curve::{Point, Runner, describe};
use crate::load::arrivals::RATE_MAX;
use crate::load::limit::CLIENT_BUSY_MAX;
use crate::load::trial::Latency;
use crate::units::{duration, parse_duration};

/// Doublings from the first rate upwards.
const DOUBLINGS_MAX: u32 = 30;
/// Halvings downwards when the first rate fails.
const HALVINGS_MAX: u32 = 20;
/// Trials of fewer replies are not gone down to.
const TRIAL_REPLIES_MIN: u64 = 10;
/// Steps of the bisection.
const BISECTIONS_MAX: u32 = 20;
/// The narrowest interval worth searching, as a share of the rate.
const PRECISION_MIN: f64 = 0.001;

/// A figure of the latency.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Figure {
    /// Median.
    P50,
    /// 90 %.
    P90,
    /// 99 %.
    P99,
    /// 99.9 %.
    P999,
    /// The largest.
    Max,
}

impl Figure {
    const ALL: [(&'static str, Self); 5] = [
        ("p50", Self::P50),
        ("p90", Self::P90),
        ("p99", Self::P99),
        ("p99.9", Self::P999),
        ("max", Self::Max),
    ];

    /// With fewer replies in a trial it is the largest by another name.
    const fn replies_min(self) -> u64 {
        match self {
            Self::P50 => 2,
            Self::P90 => 10,
            Self::P99 => 100,
            Self::P999 => 1_000,
            Self::Max => 1,
        }
    }

    const fn of(self, latency: &Latency) -> u64 {
        match self {
            Self::P50 => latency.p50_ns,
            Self::P90 => latency.p90_ns,
            Self::P99 => latency.p99_ns,
            Self::P999 => latency.p999_ns,
            Self::Max => latency.max_ns,
        }
    }
}

/// What must hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Goal {
    /// This figure of the latency
    pub figure: Figure,
    /// is below this.
    pub below_ns: u64,
}

impl FromStr for Goal {
    type Err = anyhow::Error;

    /// Parses `p99<1ms`: p50, p90, p99, p99.9 or max, and a time in ns, us, ms or s.
    fn from_str(text: &str) -> Result<Self> {
        let Some((name, bound)) = text.split_once('<') else {
            bail!("a goal is a figure below a time, as in p99<1ms, not {text:?}");
        };
        let found = Figure::ALL.iter().find(|(known, _)| *known == name.trim());
        let Some((_, figure)) = found else {
            bail!("{:?} is none of p50, p90, p99, p99.9 and max", name.trim());
        };
        let below_ns = parse_duration(bound)?;
        if below_ns == 0 {
            bail!("no latency is below 0");
        }
        Ok(Self { figure: *figure, below_ns })
    }
}

impl std::fmt::Display for Goal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = Figure::ALL.iter().find(|(_, figure)| *figure == self.figure);
        let name = name.map_or("?", |(name, _)| *name);
        write!(f, "{name} < {}", duration(self.below_ns as f64))
    }
}

/// How to search.
#[derive(Clone, Copy, Debug)]
pub struct Search {
    /// What must hold.
    pub goal: Goal,
    /// The first rate tried.
    pub from: f64,
    /// How near the highest pass and the lowest failure must come, as a share of the rate.
    pub precision: f64,
}

/// What was found.
#[derive(Clone, Debug, Serialize)]
pub struct Found {
    /// What must hold.
    pub goal: Goal,
    /// The highest rate that passed.
    pub rate: Option<f64>,
    /// Its point.
    pub best: Option<Point>,
    /// The lowest rate above it that did not, and why.
    pub refused: Option<Refused>,
    /// All points, in the order in which they ran.
    pub points: Vec<Point>,
}

/// A rate that did not pass.
#[derive(Clone, Debug, Serialize)]
pub struct Refused {
    /// The rate.
    pub rate: f64,
    /// Why.
    pub why: String,
    /// The client or the length of the trials was the reason, so the server may do better.
    pub by_client: bool,
}

/// Whether `point` passes.
fn judge(goal: Goal, point: &Point) -> Result<(), Refused> {
    let refused = |why: String, by_client| Err(Refused { rate: point.offered, why, by_client });
    let found_ns = goal.figure.of(&point.latency);
    if point.missed > 0 {
        return refused(format!("{} arrivals were missed", point.missed), false);
    }
    if point.replies < goal.figure.replies_min() {
        let (have, need) = (point.replies, goal.figure.replies_min());
        let why = format!("{have} replies a trial are too few for {goal}, it takes {need}");
        return refused(why, true);
    }
    if found_ns >= goal.below_ns && point.client_bound == 0 {
        return refused(format!("it is {}", duration(found_ns as f64)), false);
    }
    if point.client_bound > 0 {
        let why = point.doubt.clone().unwrap_or_else(|| "client-bound".to_owned());
        let trials = format!("{why} (in {} of {} trials)", point.client_bound, point.repeats);
        return refused(trials, true);
    }
    if !point.kept_up() {
        let why = format!("only {:.0} a second were answered", point.achieved);
        return refused(why, false);
    }
    Ok(())
}

/// Finds the highest rate.
///
/// # Errors
/// A trial failed, or the search makes no sense.
pub fn find_max(runner: &mut Runner<'_>, search: &Search) -> Result<Found> {
    if !(search.from > 0.0 && search.from <= RATE_MAX) {
        bail!("the search begins above 0 and at most at {RATE_MAX} a second, not {}", search.from);
    }
    let goal = search.goal;
    let mut found = Found { goal, rate: None, best: None, refused: None, points: Vec::new() };
    grow(runner, search, &mut found)?;
    if found.rate.is_none() {
        shrink(runner, search, &mut found)?;
    }
    let precision = search.precision.max(PRECISION_MIN);
    for _ in 0..BISECTIONS_MAX {
        let (Some(low), Some(refused)) = (found.rate, &found.refused) else { break };
        if refused.rate / low <= 1.0 + precision {
            break;
        }
        let middle = (low * refused.rate).sqrt();
        try_rate(runner, middle, &mut found)?;
    }
    Ok(found)
}

/// Runs one rate and keeps what it says; whether it passed.
fn try_rate(runner: &mut Runner<'_>, rate: f64, found: &mut Found) -> Result<bool> {
    let point = runner.point(rate)?;
    let passed = match judge(found.goal, &point) {
        Ok(()) => {
            found.rate = Some(rate);
            found.best = Some(point.clone());
            true
        }
        Err(refused) => {
            found.refused = Some(refused);
            false
        }
    };
    found.points.push(point);
    Ok(passed)
}

/// Upwards, until a rate fails. One at which the client only lagged says nothing about higher ones,
/// where latency is more and the lag a smaller share of it.
fn grow(runner: &mut Runner<'_>, search: &Search, found: &mut Found) -> Result<()> {
    let mut rate = search.from;
    for _ in 0..DOUBLINGS_MAX {
        let passed = try_rate(runner, rate, found)?;
        let lagged = found.refused.as_ref().is_some_and(|refused| refused.by_client)
            && found.points.last().is_some_and(|point| {
                let below = found.goal.figure.of(&point.latency) < found.goal.below_ns;
                let few = point.replies < found.goal.figure.replies_min();
                point.client_busy <= CLIENT_BUSY_MAX && (below || few)
            });
        if !passed && !lagged {
            return Ok(());
        }
        if passed {
            found.refused = None;
        }
        if rate * 2.0 > RATE_MAX {
            return Ok(());
        }
        rate *= 2.0;
    }
    Ok(())
}

/// Downwards, until a rate passes.
fn shrink(runner: &mut Runner<'_>, search: &Search, found: &mut Found) -> Result<()> {
    let mut rate = search.from;
    for _ in 0..HALVINGS_MAX {
        rate /= 2.0;
        // Half as many replies may be none at all.
        if found.points.last().is_some_and(|point| point.replies < 2 * TRIAL_REPLIES_MIN) {
            return Ok(());
        }
        if rate < 1.0 || try_rate(runner, rate, found)? {
            return Ok(());
        }
        let few = |point: &Point| point.replies < found.goal.figure.replies_min();
        if found.points.last().is_some_and(few) {
            return Ok(());
        }
    }
    Ok(())
}

impl Found {
    /// What was found, in words.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        let _ = match (self.rate, &self.best) {
            (Some(rate), Some(best)) => {
                writeln!(text, "{} holds up to {rate:.0}/s\n{}", self.goal, describe(best))
            }
            _ => writeln!(text, "{} holds at no rate that was tried", self.goal),
        };
        let _ = match &self.refused {
            Some(refused) => {
                let whose = if refused.by_client { "; the server may do better" } else { "" };
                writeln!(text, "not at {:.0}/s: {}{whose}", refused.rate, refused.why)
            }
            None => writeln!(text, "no higher rate was tried: that is the most this client offers"),
        };
        text
    }
}

#[cfg(test)]
mod tests;
