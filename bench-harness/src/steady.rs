//! Whether a trial had reached its steady state: a search for a change in its windows of 100 ms.
//!
//! Why not "leave out the first ten seconds": many programs never settle, and some later than anyone waits (Barrett et al.,
//! Virtual machine warmup blows hot and cold, 2017). The test is Pettitt's (A non-parametric approach to the change-point
//! problem, 1979): ranks only, so outliers weigh little. Its statistic is divided by its deviation at each place, so that a change near
//! an end, as a warm-up is, is seen as well. Invariants: the same windows give the same answer, since the chance of a
//! statistic is counted over permutations of a fixed seed; a change smaller than [`CHANGE_MIN`] is none, however sure; what
//! cannot be judged is said to be so. Next: `load::trial` takes the windows, `rounds` repeats what had not settled.

use serde::{Deserialize, Serialize};

use crate::clock::MILLISECOND_NS;
use crate::rng::Rng;
use crate::stats;

/// Length of a window.
pub const WINDOW_NS: u64 = 100 * MILLISECOND_NS;
/// A change is believed when equal windows show such a one in this share of cases at most. Not stricter, since the ten windows of a
/// trial of a second could then show none: of ten, only a change in the middle can be told from chance even so.
pub const LEVEL: f64 = 0.05;
/// A smaller change of the median is none.
pub const CHANGE_MIN: f64 = 0.05;
/// Fewer windows cannot show a change at that level.
pub const WINDOWS_MIN: usize = 8;
/// More windows are taken together before they are judged.
const WINDOWS_MAX: usize = 64;
/// With fewer replies in a usual window, chance moves the figures of a window by more than is looked for.
const REPLIES_MIN: f64 = 400.0;
/// Permutations the chance of a statistic is counted over.
const PERMUTATIONS: u32 = 1_999;
const SEED: u64 = 20_170_115;

/// The windows of a trial, one entry for each.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Windows {
    /// How long each was.
    pub ns: Vec<u64>,
    /// Replies in each.
    pub replies: Vec<u64>,
    /// CPU time of the server in each.
    pub cpu_ns: Vec<u64>,
}

/// What came of the search.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Steadiness {
    /// No change in it.
    Settled,
    /// A change: it had not settled, or something came between.
    Changed(Change),
    /// Too short, too few replies, or a load that changes by itself.
    #[default]
    Unjudged,
}

/// A change in a trial.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// Of which figure.
    pub figure: String,
    /// When, from the beginning of the recorded time.
    pub at_ns: u64,
    /// The median until then.
    pub before: f64,
    /// The median from then on.
    pub after: f64,
    /// How often equal windows show one as large.
    pub p: f64,
}

impl Steadiness {
    /// Whether a change was found.
    #[must_use]
    pub const fn is_changed(&self) -> bool {
        matches!(self, Self::Changed(_))
    }
}

impl std::fmt::Display for Change {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let percent = (self.after / self.before - 1.0) * 100.0;
        write!(f, "{} changed by {percent:+.0} % at {:.1} s", self.figure, self.at_ns as f64 / 1e9)
    }
}

impl Windows {
    /// Adds one.
    pub fn push(&mut self, ns: u64, replies: u64, cpu_ns: u64) {
        self.ns.push(ns);
        self.replies.push(replies);
        self.cpu_ns.push(cpu_ns);
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.ns.is_empty()
    }

    /// The same in [`WINDOWS_MAX`] windows at most.
    fn coarse(&self) -> Self {
        let each = self.ns.len().div_ceil(WINDOWS_MAX).max(1);
        let sums = |of: &[u64]| of.chunks_exact(each).map(|some| some.iter().sum()).collect();
        Self { ns: sums(&self.ns), replies: sums(&self.replies), cpu_ns: sums(&self.cpu_ns) }
    }

    /// Looks for a change in the rate and in the CPU time of a reply.
    #[must_use]
    pub fn judge(&self) -> Steadiness {
        let windows = self.coarse();
        let replies: Vec<f64> = windows.replies.iter().map(|count| *count as f64).collect();
        let usual = stats::median(&replies);
        if windows.ns.len() < WINDOWS_MIN || usual.is_nan() || usual < REPLIES_MIN {
            return Steadiness::Unjudged;
        }
        let over = |above: &[f64], below: &[u64], unit: f64| {
            let each = above.iter().zip(below);
            each.map(|(above, below)| above * unit / (*below).max(1) as f64).collect::<Vec<f64>>()
        };
        let cpu: Vec<f64> = windows.cpu_ns.iter().map(|ns| *ns as f64).collect();
        let series = [
            ("rate", over(&replies, &windows.ns, 1e9)),
            ("server CPU ns/op", over(&cpu, &windows.replies, 1.0)),
        ];
        let found = series.iter().filter_map(|(figure, values)| {
            let (at, p) = change(values)?;
            let (before, after) = (stats::median(&values[..at]), stats::median(&values[at..]));
            let share = (after / before).max(before / after) - 1.0;
            let at_ns = windows.ns[..at].iter().sum();
            let change = Change { figure: (*figure).to_owned(), at_ns, before, after, p };
            (share > CHANGE_MIN && share.is_finite()).then_some((share, change))
        });
        let largest = found.max_by(|(one, _), (other, _)| one.total_cmp(other));
        largest.map_or(Steadiness::Settled, |(_, change)| Steadiness::Changed(change))
    }
}

/// The most likely place of a change, as the index of the first value after it, and its chance; none when it is not below
/// [`LEVEL`].
fn change(values: &[f64]) -> Option<(usize, f64)> {
    let mut ranks = ranks(values);
    let (at, found) = largest(&ranks);
    // From one order on, so that the answer depends on the values alone.
    ranks.sort_unstable_by(f64::total_cmp);
    let mut rng = Rng::new(SEED);
    let mut as_large = 0_u32;
    for _ in 0..PERMUTATIONS {
        for index in (1..ranks.len()).rev() {
            ranks.swap(index, rng.below(index as u64 + 1) as usize);
        }
        // What is equal up to rounding is equal.
        as_large += u32::from(largest(&ranks).1 >= found - 1e-9);
    }
    let p = f64::from(as_large + 1) / f64::from(PERMUTATIONS + 1);
    (p <= LEVEL).then_some((at, p))
}

/// Ranks from 1 on; equal values share theirs.
fn ranks(values: &[f64]) -> Vec<f64> {
    let rank = |value: &f64| {
        let below = values.iter().filter(|other| *other < value).count();
        let equal = values.iter().filter(|other| *other == value).count();
        below as f64 + (equal as f64 + 1.0) / 2.0
    };
    values.iter().map(rank).collect()
}

/// Where the sums of ranks on both sides part most, and by how many deviations.
fn largest(ranks: &[f64]) -> (usize, f64) {
    let count = ranks.len() as f64;
    let (mut sum, mut best) = (0.0, (0, 0.0));
    for (index, rank) in ranks.iter().enumerate().take(ranks.len().saturating_sub(1)) {
        sum += rank;
        let before = index as f64 + 1.0;
        let apart = 2.0 * sum - before * (count + 1.0);
        let deviation = (before * (count - before) * (count + 1.0) / 3.0).sqrt();
        let apart = apart.abs() / deviation;
        if apart > best.1 {
            best = (index + 1, apart);
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Windows whose CPU per reply is `level(index)` with noise of `noise`.
    fn windows(seed: u64, count: usize, noise: f64, level: impl Fn(usize) -> f64) -> Windows {
        let mut rng = Rng::new(seed);
        let mut windows = Windows::default();
        for index in 0..count {
            let replies = 10_000.0 * (1.0 + noise * rng.normal());
            let cpu_ns = replies * 4_000.0 * level(index) * (1.0 + noise * rng.normal());
            windows.push(WINDOW_NS, replies as u64, cpu_ns as u64);
        }
        windows
    }

    fn changed(count: usize, noise: f64, level: impl Fn(usize) -> f64 + Copy) -> usize {
        (0..100).filter(|seed| windows(*seed, count, noise, level).judge().is_changed()).count()
    }

    #[test]
    fn a_change_is_found_and_none_is_made_up() {
        for count in [10, 20, 60] {
            let step = |index: usize| if index < count / 2 { 1.12 } else { 1.0 };
            assert!(changed(count, 0.01, step) >= 95, "{count} windows");
            assert!(changed(count, 0.01, |_| 1.0) <= 2, "{count} windows");
            // So noisy that medians part by more than the least change: the level alone holds it.
            let loud = changed(count, 0.2, |_| 1.0);
            assert!(loud <= 14, "{count} windows: {loud}");
        }
        // A warm-up over in the first fifth.
        assert!(changed(30, 0.01, |index| if index < 6 { 1.3 } else { 1.0 }) >= 95);
        // A drift that never ends.
        assert!(changed(30, 0.01, |index| 1.0 + 0.01 * index as f64) >= 95);
    }

    #[test]
    fn a_change_below_the_least_is_none_and_one_above_is() {
        assert_eq!(changed(40, 0.002, |index| if index < 20 { 1.0 } else { 1.04 }), 0);
        assert_eq!(changed(40, 0.002, |index| if index < 20 { 1.0 } else { 1.06 }), 100);
    }

    #[test]
    fn it_says_what_changed_when_and_by_how_much() {
        let found = windows(1, 20, 0.001, |index| if index < 7 { 2.0 } else { 1.0 }).judge();
        let Steadiness::Changed(change) = &found else { panic!("{found:?}") };
        assert_eq!(change.to_string(), "server CPU ns/op changed by -50 % at 0.7 s");
        assert_eq!(found, windows(1, 20, 0.001, |index| if index < 7 { 2.0 } else { 1.0 }).judge());
        let json = serde_json::to_string(&found).expect("JSON");
        assert_eq!(serde_json::from_str::<Steadiness>(&json).expect("again"), found);
    }

    #[test]
    fn a_stop_is_a_change_of_the_rate() {
        let mut stopped = windows(1, 20, 0.01, |_| 1.0);
        for index in 10..20 {
            stopped.replies[index] /= 3;
            stopped.cpu_ns[index] /= 3;
        }
        let Steadiness::Changed(change) = stopped.judge() else { panic!("it stops") };
        assert!(change.to_string().starts_with("rate changed by -6"), "{change}");
    }

    #[test]
    fn too_few_windows_or_replies_are_not_judged() {
        let step = |index: usize| if index < 4 { 9.0 } else { 1.0 };
        assert!(windows(1, WINDOWS_MIN, 0.001, step).judge().is_changed());
        assert_eq!(windows(1, WINDOWS_MIN - 1, 0.001, step).judge(), Steadiness::Unjudged);
        let mut few = windows(1, 20, 0.001, step);
        few.replies = vec![REPLIES_MIN as u64 - 1; 20];
        assert_eq!(few.judge(), Steadiness::Unjudged);
        few.replies = vec![REPLIES_MIN as u64; 20];
        assert_eq!(few.coarse(), few);
        assert_ne!(few.judge(), Steadiness::Unjudged);
        assert_eq!(Windows::default().judge(), Steadiness::Unjudged);
    }

    #[test]
    fn many_windows_are_taken_together() {
        let many = windows(1, WINDOWS_MAX + 1, 0.01, |_| 1.0);
        assert_eq!(many.coarse().ns.len(), WINDOWS_MAX / 2, "the last alone is left out");
        assert_eq!(windows(1, WINDOWS_MAX, 0.01, |_| 1.0).coarse().ns.len(), WINDOWS_MAX);
        let long = windows(1, 6_000, 0.01, |index| if index < 3_000 { 1.2 } else { 1.0 });
        assert!(long.judge().is_changed());
    }
}
