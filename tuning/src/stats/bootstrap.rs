//! The ratio of two medians with a paired bootstrap interval: bias-corrected and accelerated.
//!
//! Pairs are drawn with replacement; the interval's ends are those shares of the drawings that allow for the estimate's bias
//! and for a spread that depends on its size (B. Efron, "Better Bootstrap Confidence Intervals", 1987). Reported beside the result of `ranks`, which is
//! narrower: medians of both sides are taken apart, so what the two figures of a pair have in common does not cancel.
//! Invariant: the result depends on the pairs and the seed only. Next: `stats`.

use super::{Interval, LEVEL, median, median_in_place, normal};

/// Drawings behind an interval.
pub const RESAMPLES: usize = 10_000;

/// Second by first. `None` without pairs or when the first's median is not positive.
pub(super) fn of_medians(pairs: &[(f64, f64)], seed: u64) -> Option<Interval> {
    let (mut first, mut second): (Vec<f64>, Vec<f64>) = pairs.iter().copied().unzip();
    let value = median(&second) / median(&first);
    if pairs.is_empty() || !value.is_finite() || median(&first) <= 0.0 {
        return None;
    }
    let mut random = Random(seed);
    let mut drawn = Vec::with_capacity(RESAMPLES);
    for _ in 0..RESAMPLES {
        for at in 0..pairs.len() {
            (first[at], second[at]) = pairs[random.below(pairs.len())];
        }
        drawn.push(median_in_place(&mut second) / median_in_place(&mut first));
    }
    drawn.sort_unstable_by(f64::total_cmp);
    let (low, high) = shares(&drawn, value, &left_out(pairs));
    let at = |share: f64| drawn[index(share)];
    Some(Interval { value, low: at(low), high: at(high) })
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of RESAMPLES")]
fn index(share: f64) -> usize {
    ((RESAMPLES - 1) as f64 * share.clamp(0.0, 1.0)).round() as usize
}

/// The ratio without each of the pairs in turn.
fn left_out(pairs: &[(f64, f64)]) -> Vec<f64> {
    let without = |at: usize| {
        let others = pairs[..at].iter().chain(&pairs[at + 1..]);
        let (first, second): (Vec<f64>, Vec<f64>) = others.copied().unzip();
        median(&second) / median(&first)
    };
    if pairs.len() < 2 { Vec::new() } else { (0..pairs.len()).map(without).collect() }
}

/// Which shares of the drawings are the interval's ends.
fn shares(drawn: &[f64], value: f64, left_out: &[f64]) -> (f64, f64) {
    let below = drawn.partition_point(|ratio| *ratio < value);
    let equal = drawn.partition_point(|ratio| *ratio <= value) - below;
    let share = (below as f64 + equal as f64 / 2.0) / drawn.len() as f64;
    let edge = 1.0 / drawn.len() as f64;
    let bias = normal::quantile(share.clamp(edge, 1.0 - edge));
    let mean = left_out.iter().sum::<f64>() / left_out.len() as f64;
    let power = |exponent: i32| left_out.iter().map(|one| (mean - one).powi(exponent)).sum::<f64>();
    let spread = power(2).powf(1.5);
    let acceleration = if spread > 0.0 { power(3) / (6.0 * spread) } else { 0.0 };
    let end = |share: f64| {
        let z = bias + normal::quantile(share);
        normal::below(bias + z / (1.0 - acceleration * z))
    };
    (end(LEVEL / 2.0), end(1.0 - LEVEL / 2.0))
}

/// SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014).
#[derive(Clone, Debug)]
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Below `end`, which is not 0.
    fn below(&mut self, end: usize) -> usize {
        let wide = u128::from(self.next()) * u128::try_from(end).unwrap_or(1);
        usize::try_from(wide >> 64).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::super::models::pairs;
    use super::*;

    /// Nothing to correct: as many drawings on both sides, no skew.
    #[test]
    fn without_bias_and_skew_the_ends_are_the_plain_percentiles() {
        let drawn: Vec<f64> = (0..RESAMPLES).map(|at| at as f64).collect();
        let (low, high) = shares(&drawn, 5_000.0, &[1.0, 2.0, 3.0]);
        assert!((low - 0.025).abs() < 1e-3 && (high - 0.975).abs() < 1e-3, "{low} {high}");
        let (low, high) = shares(&drawn, 6_000.0, &[1.0, 2.0, 3.0]);
        assert!(low > 0.05 && high > 0.98, "more lies below than above: {low} {high}");
        let (low, high) = shares(&drawn, 5_000.0, &[1.0, 1.0, 1.0, 5.0]);
        assert!(low < 0.02 && high < 0.97, "it is skewed: {low} {high}");
    }

    #[test]
    fn it_holds_the_ratio_and_finds_ten_percent() {
        for seed in 0..20 {
            let found = of_medians(&pairs(0, seed, 20, 1.1), seed).expect("pairs");
            assert!(found.low <= found.value && found.value <= found.high);
            assert!(found.low > 1.05 && found.high < 1.15, "{found:?}");
        }
    }
}
