//! Two ways of doing something, measured in turns: how far apart they are, and how sure that is.
//!
//! Figures come in pairs, both sides measured next to each other in time, because a shared machine differs by more from
//! minute to minute than what is looked for. [`Ratio::of`] therefore compares within pairs: the logarithms of their ratios,
//! by a signed-rank test with capped ranks (`ranks`), whose interval holds the truth as often as it says whatever the noise
//! is like. The ratio of the two medians with its bootstrap interval (`bootstrap`) is given beside it. Which of them is how good, in
//! figures: docs/decisions/0014-comparing-pairs.md. Invariants: the same figures give the same result; `low <= ratio <= high`; swapped
//! sides give the inverse. Next: `measure` here, `compare` and `gate` in `bench-harness`, which use nothing else.

mod bootstrap;
#[cfg(test)]
mod models;
mod normal;
mod ranks;
mod unpaired;

use serde::{Deserialize, Serialize};

pub use bootstrap::RESAMPLES;
use ranks::Ranks;

/// What an interval leaves out, of both ends together: 95 % intervals.
pub const LEVEL: f64 = 0.05;
/// The same where a difference is said to be there. Stricter: who compares twenty things at 95 % is told of one difference that
/// is none.
pub const SURE_LEVEL: f64 = 0.02;
/// Fewer pairs give no interval worth the name: that of five would have to be wider than all of them.
pub const SOLID_PAIRS: usize = 6;
/// So many pairs find 2 % under every noise that was tried, in at least 95 of 100 sessions.
pub const PAIRS: usize = 20;

/// A figure with its 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// The figure.
    pub value: f64,
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// How much the second side is of the first.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ratio {
    /// Median of the first side.
    pub a: f64,
    /// Median of the second side.
    pub b: f64,
    /// Second by first, within pairs: below 1 the second is smaller.
    pub ratio: f64,
    /// Lower end of its 95 % interval.
    pub low: f64,
    /// Upper end.
    pub high: f64,
    /// Lower end of the 98 % interval, by which a difference is said to be there.
    pub sure_low: f64,
    /// Upper end.
    pub sure_high: f64,
    /// How often equal sides come out at least so far apart.
    pub p: f64,
    /// Pairs it rests on.
    pub pairs: usize,
    /// `b / a` with a bootstrap interval; none where the sides were not measured in pairs.
    pub of_medians: Option<Interval>,
}

impl Ratio {
    /// Compares pairs of (first, second); nothing without pairs, or when the first's median is not positive.
    #[must_use]
    pub fn of(pairs: &[(f64, f64)], seed: u64) -> Option<Self> {
        Some(Self { of_medians: Some(bootstrap::of_medians(pairs, seed)?), ..Self::quick(pairs)? })
    }

    /// The same without what takes long: the bootstrap.
    #[must_use]
    pub fn quick(pairs: &[(f64, f64)]) -> Option<Self> {
        let (first, second): (Vec<f64>, Vec<f64>) = pairs.iter().copied().unzip();
        let (a, b) = (median(&first), median(&second));
        if a.is_nan() || b.is_nan() || a <= 0.0 {
            return None;
        }
        let positive = pairs.iter().all(|(first, second)| *first > 0.0 && *second > 0.0);
        // Memory can shrink and a count can be none: then differences, as a share of what is usual.
        let shifts: Vec<f64> = if positive {
            pairs.iter().map(|(first, second)| (second / first).ln()).collect()
        } else {
            pairs.iter().map(|(first, second)| (second - first) / a).collect()
        };
        let back = |shift: f64| if positive { shift.exp() } else { 1.0 + shift };
        let ranks = Ranks::of(&shifts);
        let ((low, high), (sure_low, sure_high)) =
            (ranks.interval(LEVEL), ranks.interval(SURE_LEVEL));
        Some(Self {
            a,
            b,
            ratio: back(ranks.middle()),
            low: back(low),
            high: back(high),
            sure_low: back(sure_low),
            sure_high: back(sure_high),
            p: ranks.p(),
            pairs: pairs.len(),
            of_medians: None,
        })
    }

    /// Compares figures of two sessions, which are no pairs: by the Mann-Whitney test. Nothing when there are none or one is
    /// not positive. `pairs` is the size of the smaller side.
    #[must_use]
    pub fn of_unpaired(first: &[f64], second: &[f64]) -> Option<Self> {
        unpaired::compare(first, second)
    }

    /// Whether there were pairs enough for the interval to mean something.
    #[must_use]
    pub const fn is_solid(&self) -> bool {
        self.pairs >= SOLID_PAIRS
    }

    /// Whether the 95 % interval holds `value`.
    #[must_use]
    pub fn covers(&self, value: f64) -> bool {
        self.low <= value && value <= self.high
    }

    /// Whether the two differ: 1 is outside the 98 % interval. It takes seven pairs at least.
    #[must_use]
    pub fn differs(&self) -> bool {
        self.p <= SURE_LEVEL
    }

    /// How far from 1 its 95 % interval reaches, as a factor of at least 1.
    #[must_use]
    pub fn reach(&self) -> f64 {
        self.high.max(1.0 / self.low)
    }
}

/// The median: the mean of the middle two when the count is even, NaN when there is none.
#[must_use]
pub fn median(figures: &[f64]) -> f64 {
    let mut sorted = figures.to_vec();
    median_in_place(&mut sorted)
}

fn median_in_place(figures: &mut [f64]) -> f64 {
    let count = figures.len();
    if count == 0 {
        return f64::NAN;
    }
    let (below, &mut upper, _) = figures.select_nth_unstable_by(count / 2, f64::total_cmp);
    if count % 2 == 1 {
        return upper;
    }
    let lower = below.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    f64::midpoint(lower, upper)
}

/// The smallest figure, NaN when there is none.
#[must_use]
pub fn minimum(figures: &[f64]) -> f64 {
    figures.iter().copied().fold(f64::NAN, f64::min)
}

#[cfg(test)]
mod tests {
    use super::models::{MODELS, pairs};
    use super::*;

    #[test]
    fn medians() {
        assert!(median(&[]).is_nan());
        assert_eq!(median(&[3.0]), 3.0);
        assert_eq!(median(&[4.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(minimum(&[4.0, 1.0, 2.0]), 1.0);
    }

    /// (found +2 %, took equal sides for equal), by the 98 % interval, of `seeds` sessions of `count` pairs.
    fn found_and_passed(model: usize, count: usize, seeds: u64) -> (usize, usize) {
        let ratio = |seed, effect| Ratio::quick(&pairs(model, seed, count, effect)).expect("pairs");
        let found = (0..seeds).filter(|&seed| {
            let ratio = ratio(seed, 1.02);
            ratio.differs() && ratio.low > 1.0
        });
        let passed = (0..seeds).filter(|&seed| !ratio(seed, 1.0).differs());
        (found.count(), passed.count())
    }

    #[test]
    fn two_percent_are_found_and_none_is_passed_in_95_of_100_sessions() {
        for (model, name) in MODELS.iter().enumerate() {
            let (found, passed) = found_and_passed(model, PAIRS, 100);
            assert!(found >= 95, "{name}: +2 % found in {found} of 100");
            assert!(passed >= 95, "{name}: +0 % passed in {passed} of 100");
        }
    }

    /// The same with as many sessions as it takes to know that the hundred above were not lucky.
    #[test]
    fn the_hundred_seeds_are_like_others() {
        for (model, name) in MODELS.iter().enumerate() {
            let (found, passed) = found_and_passed(model, PAIRS, 2_000);
            assert!(found >= 1_930, "{name}: +2 % found in {found} of 2000");
            assert!(passed >= 1_930, "{name}: +0 % passed in {passed} of 2000");
        }
    }

    /// Within what 2,000 sessions of a true 95 % scatter by, twice over.
    #[test]
    fn the_interval_holds_the_truth_as_often_as_it_says() {
        for (model, name) in MODELS.iter().enumerate() {
            for (count, effect) in [(7, 1.0), (10, 0.7), (PAIRS, 1.02)] {
                let held = (0..2_000).filter(|&seed| {
                    Ratio::quick(&pairs(model, seed, count, effect)).expect("pairs").covers(effect)
                });
                let held = held.count();
                assert!(held >= 1_880, "{name}, {count} pairs: held in {held} of 2000");
            }
        }
    }

    #[test]
    fn swapped_sides_give_the_inverse() {
        for (model, name) in MODELS.iter().enumerate() {
            let forth = pairs(model, 5, 12, 0.8);
            let back: Vec<(f64, f64)> = forth.iter().map(|(a, b)| (*b, *a)).collect();
            let (forth, back) =
                (Ratio::quick(&forth).expect("pairs"), Ratio::quick(&back).expect("pairs"));
            let near = |one: f64, other: f64| assert!((one * other - 1.0).abs() < 1e-9, "{name}");
            near(forth.ratio, back.ratio);
            near(forth.low, back.high);
            near(forth.sure_high, back.sure_low);
            assert_eq!(forth.p, back.p);
            assert!(forth.sure_low <= forth.low && forth.low <= forth.ratio);
        }
    }

    #[test]
    fn equal_figures_and_seed_give_an_equal_result() {
        let some = pairs(0, 3, 12, 0.7);
        assert_eq!(Ratio::of(&some, 9), Ratio::of(&some, 9));
        assert_eq!(Ratio::of(&[], 9), None);
        assert_eq!(Ratio::of(&[(0.0, 1.0)], 9), None);
    }

    #[test]
    fn without_noise_the_interval_is_a_point() {
        let found = Ratio::of(&[(60.0, 10.0); 8], 1).expect("pairs");
        assert_eq!((found.a, found.b, found.pairs), (60.0, 10.0, 8));
        for end in [found.ratio, found.low, found.high, found.sure_low, found.sure_high] {
            assert!((end - 1.0 / 6.0).abs() < 1e-12, "{end}");
        }
        assert!(found.differs());
        let same = Ratio::of(&[(7.0, 7.0); 8], 1).expect("pairs");
        assert_eq!((same.low, same.high, same.p), (1.0, 1.0, 1.0));
        assert!(!same.differs());
    }

    #[test]
    fn few_pairs_say_nothing_and_figures_need_not_be_positive() {
        let few = Ratio::quick(&[(60.0, 10.0); 5]).expect("pairs");
        assert!(!few.is_solid() && !few.differs());
        // Memory: the second side often needs none.
        let lean: Vec<(f64, f64)> = (0..8).map(|at| (10.0 + f64::from(at), 0.0)).collect();
        let lean = Ratio::quick(&lean).expect("pairs");
        assert!(lean.ratio < 0.1 && lean.differs(), "{lean:?}");
    }

    #[test]
    fn one_pair_of_ten_that_went_wrong_does_not_widen_the_interval_by_much() {
        let clean = pairs(0, 1, 10, 1.0);
        let mut dirty = clean.clone();
        dirty[4].1 *= 1.5;
        let (clean, dirty) =
            (Ratio::quick(&clean).expect("pairs"), Ratio::quick(&dirty).expect("pairs"));
        assert!(dirty.high - dirty.low < 2.0 * (clean.high - clean.low), "{clean:?} {dirty:?}");
    }
}
