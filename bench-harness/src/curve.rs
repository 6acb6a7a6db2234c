//! The curve of latency over throughput, and its knee.
//!
//! A point is one offered rate, run several times: medians of its trials, and every reason not to believe
//! it. Where no rates are given, the rate doubles until the server falls behind, and the points are
//! spread from nothing to the most it answered. The knee is where throughput over mean latency is
//! greatest (Kleinrock's *power*, "Power and deterministic rules of thumb for probabilistic problems in
//! computer communications", 1979): beyond it latency grows faster than throughput. For M/D/1 that is at
//! a load of 2 − √2. Invariants: what runs a trial is a closure, so all of this is tested in virtual time;
//! at most [`POINTS_MAX`] points of [`REPEATS_MAX`] trials; a point that saturated, missed arrivals or was
//! bound by the client is no part of the knee. Next: `find_max`, which searches on the same points.

use std::fmt::Write as _;

use anyhow::{Context, Result, bail};
use serde::Serialize;

use crate::clock::SECOND_NS;
use crate::load::arrivals::RATE_MAX;
use crate::load::trial::{Latency, Limit, Trial};
use crate::stats::median;
use crate::units::duration;

/// Points of a curve, at most.
pub const POINTS_MAX: usize = 200;
/// Trials of a point, at most.
pub const REPEATS_MAX: usize = 101;
/// Trials of a point that the client spoilt are run again, so many times in all.
const AGAIN_MAX: usize = 2;
/// A point that answers less of what arrives has saturated.
const KEPT_UP_MIN: f64 = 0.95;
/// Points this near the greatest power shape the parabola through the knee.
const KNEE_SHARE: f64 = 0.8;
/// Fewer points have no knee.
const KNEE_POINTS_MIN: usize = 3;
/// Doublings of the rate before a server counts as faster than can be found out.
const DOUBLINGS_MAX: u32 = 30;
/// Where, of the most that was answered, points of an automatic curve begin and end.
const SPREAD: (f64, f64) = (0.1, 1.05);

/// Runs one trial at an offered rate; the second number is new for each trial, to seed it.
pub type RunAt<'a> = dyn FnMut(f64, u64) -> Result<Trial> + 'a;

/// One offered rate.
#[derive(Clone, Debug, Serialize)]
pub struct Point {
    /// Requests offered in a second.
    pub offered: f64,
    /// Arrivals in a second: what was offered, as chance has it.
    pub arrived: f64,
    /// Trials whose medians these are.
    pub repeats: usize,
    /// Replies in a trial.
    pub replies: u64,
    /// Replies in a second.
    pub achieved: f64,
    /// From the intended time to the reply.
    pub latency: Latency,
    /// 99th percentile from the handing over to the reply.
    pub service_p99_ns: u64,
    /// 99th percentile of the schedule's lag.
    pub lag_p99_ns: u64,
    /// Arrivals that found no room, in all trials.
    pub missed: u64,
    /// CPU time of the server for one reply.
    pub server_cpu_ns_per_op: f64,
    /// Share of the server's core.
    pub server_busy: f64,
    /// Share of the client's core.
    pub client_busy: f64,
    /// Trials that were the client's and not the server's, after others of the kind were run again.
    pub client_bound: usize,
    /// The first reason not to take it for the server at this rate.
    pub doubt: Option<String>,
}

impl Point {
    /// Whether the server answered what it was offered, as far as this can tell.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.missed == 0 && self.client_bound == 0 && self.kept_up()
    }

    /// Against what arrived and not what was offered: of 100 random arrivals ten more or fewer are nothing odd.
    pub(crate) fn kept_up(&self) -> bool {
        self.achieved >= KEPT_UP_MIN * self.arrived
    }

    /// Throughput over mean latency.
    fn power(&self) -> f64 {
        self.achieved / self.latency.mean_ns.max(1) as f64
    }
}

/// Where latency begins to cost more than throughput gains.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Knee {
    /// Requests in a second.
    pub rate: f64,
    /// Mean latency of the point next to it.
    pub mean_ns: u64,
    /// The same, 99th percentile.
    pub p99_ns: u64,
}

/// The points in the order of their rates, and what follows from them.
#[derive(Clone, Debug, Serialize)]
pub struct Curve {
    /// The points.
    pub points: Vec<Point>,
    /// The knee, when it lies within them.
    pub knee: Option<Knee>,
    /// Why there is none.
    pub no_knee: Option<String>,
}

/// How points are run.
pub struct Runner<'a> {
    run_at: &'a mut RunAt<'a>,
    repeats: usize,
    seed: u64,
    progress: &'a mut dyn FnMut(&str),
}

impl std::fmt::Debug for Runner<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Runner").field("repeats", &self.repeats).finish_non_exhaustive()
    }
}

impl<'a> Runner<'a> {
    /// Trials by `run_at`, `repeats` for each point; `progress` hears of every point.
    pub fn new(
        run_at: &'a mut RunAt<'a>,
        repeats: usize,
        seed: u64,
        progress: &'a mut dyn FnMut(&str),
    ) -> Self {
        Self { run_at, repeats: repeats.clamp(1, REPEATS_MAX), seed, progress }
    }

    /// Runs the point at `rate`.
    ///
    /// # Errors
    /// A trial failed.
    pub fn point(&mut self, rate: f64) -> Result<Point> {
        let mut trials = Vec::with_capacity(self.repeats);
        let mut again = 0;
        while trials.len() < self.repeats {
            self.seed = self.seed.wrapping_add(1);
            let trial = (self.run_at)(rate, self.seed)
                .with_context(|| format!("a trial at {rate:.0} requests a second"))?;
            if trial.limit == Limit::Client && again < AGAIN_MAX {
                again += 1;
                continue;
            }
            trials.push(trial);
        }
        let point = summarise(rate, &trials);
        (self.progress)(&describe(&point));
        Ok(point)
    }
}

/// Each figure of the latency by itself: its median over `trials`.
pub(crate) fn middle_latency(trials: &[Trial]) -> Latency {
    let middle = |figure: &dyn Fn(&Latency) -> u64| {
        median(&trials.iter().map(|trial| figure(&trial.latency) as f64).collect::<Vec<f64>>())
            as u64
    };
    Latency {
        mean_ns: middle(&|latency| latency.mean_ns),
        p50_ns: middle(&|latency| latency.p50_ns),
        p90_ns: middle(&|latency| latency.p90_ns),
        p99_ns: middle(&|latency| latency.p99_ns),
        p999_ns: middle(&|latency| latency.p999_ns),
        max_ns: middle(&|latency| latency.max_ns),
    }
}

fn summarise(offered: f64, trials: &[Trial]) -> Point {
    let middle =
        |figure: &dyn Fn(&Trial) -> f64| median(&trials.iter().map(figure).collect::<Vec<f64>>());
    let whole = |figure: &dyn Fn(&Trial) -> u64| middle(&|trial| figure(trial) as f64) as u64;
    let client_bound = trials.iter().filter(|trial| trial.limit == Limit::Client).count();
    let achieved = middle(&|trial| trial.rate);
    let arrived =
        middle(&|trial| trial.offered as f64 * SECOND_NS as f64 / trial.elapsed_ns.max(1) as f64);
    let mut doubt = trials.iter().find_map(|trial| trial.limit_why.clone());
    if doubt.is_none() && achieved < KEPT_UP_MIN * arrived {
        doubt = Some(format!("only {achieved:.0} of {arrived:.0} a second were answered"));
    }
    Point {
        offered,
        arrived,
        repeats: trials.len(),
        replies: whole(&|trial| trial.replies),
        achieved,
        latency: middle_latency(trials),
        service_p99_ns: whole(&|trial| trial.service.p99_ns),
        lag_p99_ns: whole(&|trial| trial.lag.p99_ns),
        missed: trials.iter().map(|trial| trial.missed).sum(),
        server_cpu_ns_per_op: middle(&|trial| trial.server_cpu_ns_per_op),
        server_busy: middle(&|trial| trial.server_busy),
        client_busy: middle(&|trial| trial.client_busy),
        client_bound,
        doubt,
    }
}

/// One line on a point.
#[must_use]
pub fn describe(point: &Point) -> String {
    let ns = |ns: u64| duration(ns as f64);
    let mut text = format!(
        "{:>10.0}/s offered {:>10.0}/s answered  mean {:>9}  p50 {:>9}  p99 {:>9}  p99.9 {:>9}",
        point.offered,
        point.achieved,
        ns(point.latency.mean_ns),
        ns(point.latency.p50_ns),
        ns(point.latency.p99_ns),
        ns(point.latency.p999_ns)
    );
    if let Some(doubt) = &point.doubt {
        let _ = write!(text, "  {doubt}");
    }
    text
}

/// Which rates to run.
#[derive(Clone, Debug)]
pub enum Rates {
    /// These.
    Listed(Vec<f64>),
    /// So many, spread up to saturation, which is looked for from `from` on.
    Automatic {
        /// The first rate tried.
        from: f64,
        /// How many points.
        points: usize,
    },
}

/// Runs a curve.
///
/// # Errors
/// A trial failed, the rates make no sense, or saturation was not found.
pub fn run(runner: &mut Runner<'_>, rates: &Rates) -> Result<Curve> {
    let (rates, mut points) = match rates {
        Rates::Listed(rates) => {
            let mut rates = rates.clone();
            rates.sort_by(f64::total_cmp);
            (rates, Vec::new())
        }
        Rates::Automatic { from, points } => {
            let seen = saturate(runner, *from)?;
            let most = seen.iter().map(|point| point.achieved).fold(0.0, f64::max);
            let last = (*points).clamp(2, POINTS_MAX) - 1;
            let spread = (0..=last)
                .map(|at| most * (SPREAD.0 + (SPREAD.1 - SPREAD.0) * at as f64 / last as f64));
            (spread.collect(), seen)
        }
    };
    if rates.is_empty() || rates.len() > POINTS_MAX {
        bail!("a curve has 1 to {POINTS_MAX} points, not {}", rates.len());
    }
    if let Some(rate) = rates.iter().find(|rate| !(**rate > 0.0 && **rate <= RATE_MAX)) {
        bail!("a rate is above 0 and at most {RATE_MAX} requests a second, not {rate}");
    }
    for rate in rates {
        points.push(runner.point(rate)?);
    }
    points.sort_by(|a, b| a.offered.total_cmp(&b.offered));
    let (knee, no_knee) = match knee(&points) {
        Ok(knee) => (Some(knee), None),
        Err(why) => (None, Some(why)),
    };
    Ok(Curve { points, knee, no_knee })
}

/// Doubles the rate until less is answered than is offered; the points on the way.
fn saturate(runner: &mut Runner<'_>, from: f64) -> Result<Vec<Point>> {
    let mut points = Vec::new();
    let mut rate = from.max(1.0);
    for _ in 0..DOUBLINGS_MAX {
        let point = runner.point(rate)?;
        let (missed, kept_up) = (point.missed > 0, point.kept_up());
        let full = point.client_busy > crate::load::limit::CLIENT_BUSY_MAX;
        // Where the client lagged, it was late with what arrived, and the server may do more.
        let lagged = point.client_bound > 0;
        points.push(point);
        if missed || full || (!kept_up && !lagged) {
            return Ok(points);
        }
        rate *= 2.0;
        if rate > RATE_MAX {
            break;
        }
    }
    bail!("it still keeps up at {:.0} requests a second: give rates with --rates", rate / 2.0)
}

/// The rate of the greatest power: the top of the parabola that fits the points around it.
fn knee(points: &[Point]) -> Result<Knee, String> {
    let sound: Vec<&Point> = points.iter().filter(|point| point.is_sound()).collect();
    if sound.len() < KNEE_POINTS_MIN {
        return Err(format!(
            "{} of {} points can be believed, and a knee needs {KNEE_POINTS_MIN}",
            sound.len(),
            points.len()
        ));
    }
    let best = sound
        .iter()
        .enumerate()
        .max_by(|a, b| a.1.power().total_cmp(&b.1.power()))
        .map_or(0, |(at, _)| at);
    let top = sound[best].power();
    if best == sound.len() - 1 && sound.len() == points.len() {
        return Err("power still grows at the last point: the knee is beyond it".to_owned());
    }
    if best == 0 {
        return Err(
            "power falls from the first believable point on: the knee is before it".to_owned()
        );
    }
    // Those near the top without a gap, and the neighbours of the best one in any case.
    let near = |at: &usize| sound[*at].power() >= KNEE_SHARE * top || at.abs_diff(best) <= 1;
    let first = (0..=best).rev().take_while(near).last().unwrap_or(best);
    let last = (best..sound.len()).take_while(near).last().unwrap_or(best);
    let around: Vec<(f64, f64)> =
        sound[first..=last].iter().map(|point| (point.achieved, point.power() / top)).collect();
    let (low, high) = (around[0].0, around[around.len() - 1].0);
    let rate = parabola_top(&around)
        .filter(|rate| (low..=high).contains(rate))
        .unwrap_or(sound[best].achieved);
    let nearest = sound
        .iter()
        .min_by(|a, b| (a.achieved - rate).abs().total_cmp(&(b.achieved - rate).abs()))
        .unwrap_or(&sound[best]);
    Ok(Knee { rate, mean_ns: nearest.latency.mean_ns, p99_ns: nearest.latency.p99_ns })
}

/// Where the parabola of least squares through `points` is greatest; `None` when it has no top.
fn parabola_top(points: &[(f64, f64)]) -> Option<f64> {
    let count = points.len() as f64;
    let middle = points.iter().map(|(x, _)| x).sum::<f64>() / count;
    let scale = points.iter().map(|(x, _)| (x - middle).abs()).fold(0.0, f64::max);
    if points.len() < 3 || scale <= 0.0 {
        return None;
    }
    // Sums of powers of the centred and scaled abscissa, whose first moment is zero.
    let (mut s2, mut s3, mut s4, mut sy, mut sxy, mut sxxy) = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0);
    for (x, y) in points {
        let x = (x - middle) / scale;
        s2 += x * x;
        s3 += x * x * x;
        s4 += x * x * x * x;
        sy += y;
        sxy += x * y;
        sxxy += x * x * y;
    }
    // Normal equations of y = a + b x + c x², a eliminated.
    let (q4, qy) = (s4 - s2 * s2 / count, sxxy - s2 * sy / count);
    let determinant = s2 * q4 - s3 * s3;
    let b = (sxy * q4 - s3 * qy) / determinant;
    let c = (s2 * qy - s3 * sxy) / determinant;
    (c < 0.0).then(|| middle - scale * b / (2.0 * c))
}

impl Curve {
    /// The curve as a table.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        for point in &self.points {
            let _ = writeln!(text, "{}", describe(point));
        }
        let _ = match (&self.knee, &self.no_knee) {
            (Some(knee), _) => writeln!(
                text,
                "knee at {:.0}/s; the point next to it: mean {}, p99 {}",
                knee.rate,
                duration(knee.mean_ns as f64),
                duration(knee.p99_ns as f64)
            ),
            (None, why) => writeln!(text, "no knee: {}", why.as_deref().unwrap_or("unknown")),
        };
        text
    }
}

#[cfg(test)]
mod tests;
