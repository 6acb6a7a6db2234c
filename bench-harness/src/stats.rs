//! Comparison of two servers from repeated short trials: the schedule that alternates them, the
//! ratio of their medians, and an interval for it.
//!
//! Why so: single runs on a shared machine differ by half their value from minute to minute, so
//! trials alternate (A B, B A, …; every round one trial of each side, next to each other in time)
//! and the interval comes from resampling whole rounds, which keeps what the two sides of a round
//! had in common. Invariants: the result depends on the samples and the seed only; a ratio is
//! always candidate over baseline, so below 1 the candidate is smaller. Next: `compare` runs the
//! schedule, `report` prints the result.

use serde::{Deserialize, Serialize};

use crate::rng::Rng;

/// Resamples behind an interval.
pub const RESAMPLES: usize = 10_000;

/// The median: the mean of the middle two when the count is even, NaN when there is none.
#[must_use]
pub fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    median_in_place(&mut sorted)
}

fn median_in_place(samples: &mut [f64]) -> f64 {
    let count = samples.len();
    if count == 0 {
        return f64::NAN;
    }
    let (below, &mut upper, _) = samples.select_nth_unstable_by(count / 2, f64::total_cmp);
    if count % 2 == 1 {
        return upper;
    }
    let lower = below.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    f64::midpoint(lower, upper)
}

/// The smallest sample, NaN when there is none.
#[must_use]
pub fn minimum(samples: &[f64]) -> f64 {
    samples.iter().copied().fold(f64::NAN, f64::min)
}

/// A ratio with its 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ratio {
    /// Median of the candidate over median of the baseline.
    pub ratio: f64,
    /// Lower end of the interval.
    pub low: f64,
    /// Upper end of the interval.
    pub high: f64,
    /// Rounds it rests on.
    pub pairs: usize,
}

/// Fewer rounds give no interval worth the name.
pub const SOLID_PAIRS: usize = 6;

impl Ratio {
    /// Whether there were rounds enough for the interval to mean something.
    #[must_use]
    pub const fn is_solid(&self) -> bool {
        self.pairs >= SOLID_PAIRS
    }

    /// Whether the interval holds `value`.
    #[must_use]
    pub fn covers(&self, value: f64) -> bool {
        self.low <= value && value <= self.high
    }
}

/// Ratio of the medians of `pairs` of (baseline, candidate), one pair a round, with the 95 %
/// interval of a paired bootstrap: rounds are drawn with replacement, [`RESAMPLES`] times.
/// `None` without pairs or when the baseline's median is not positive.
#[must_use]
pub fn ratio_of_medians(pairs: &[(f64, f64)], seed: u64) -> Option<Ratio> {
    let (mut base, mut cand): (Vec<f64>, Vec<f64>) = pairs.iter().copied().unzip();
    let middle = median_in_place(&mut base);
    if pairs.is_empty() || middle.is_nan() || middle <= 0.0 {
        return None;
    }
    let ratio = median_in_place(&mut cand) / middle;
    let mut rng = Rng::new(seed);
    let mut ratios = Vec::with_capacity(RESAMPLES);
    for _ in 0..RESAMPLES {
        for at in 0..pairs.len() {
            let drawn = usize::try_from(rng.below(pairs.len() as u64)).unwrap_or(0);
            (base[at], cand[at]) = pairs[drawn];
        }
        ratios.push(median_in_place(&mut cand) / median_in_place(&mut base));
    }
    ratios.sort_unstable_by(f64::total_cmp);
    let at = |share: f64| ratios[((RESAMPLES - 1) as f64 * share).round() as usize];
    Some(Ratio { ratio, low: at(0.025), high: at(0.975), pairs: pairs.len() })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rounds with a common disturbance of ±1 % and 0.5 % of noise for each trial alone.
    fn rounds(seed: u64, count: usize, effect: f64) -> Vec<(f64, f64)> {
        let mut rng = Rng::new(seed);
        (0..count)
            .map(|_| {
                let common = 4_000.0 * (1.0 + 0.01 * (rng.unit() * 2.0 - 1.0));
                let mut noisy = |scale: f64| common * scale * (1.0 + 0.005 * rng.normal());
                (noisy(1.0), noisy(effect))
            })
            .collect()
    }

    #[test]
    fn medians() {
        assert!(median(&[]).is_nan());
        assert_eq!(median(&[3.0]), 3.0);
        assert_eq!(median(&[4.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(minimum(&[4.0, 1.0, 2.0]), 1.0);
    }

    #[test]
    fn two_percent_more_is_found() {
        let ratios: Vec<Ratio> = (0..100)
            .map(|seed| ratio_of_medians(&rounds(seed, 10, 1.02), seed).expect("pairs"))
            .collect();
        let found = ratios.iter().filter(|ratio| ratio.low > 1.0).count();
        assert!(found >= 90, "found in {found} of 100");
        assert_eq!(ratios.iter().filter(|ratio| ratio.high < 1.0).count(), 0);
    }

    #[test]
    fn no_difference_is_passed() {
        let passed = (0..100)
            .filter(|&seed| {
                ratio_of_medians(&rounds(seed, 10, 1.0), seed).expect("pairs").covers(1.0)
            })
            .count();
        assert!(passed >= 90, "passed in {passed} of 100");
    }

    #[test]
    fn equal_input_and_seed_give_equal_output() {
        let pairs = rounds(3, 12, 0.7);
        assert_eq!(ratio_of_medians(&pairs, 9), ratio_of_medians(&pairs, 9));
        assert_eq!(ratio_of_medians(&[], 9), None);
        assert_eq!(ratio_of_medians(&[(0.0, 1.0)], 9), None);
    }
}
