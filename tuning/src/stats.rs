//! Pairs of figures: the ratio of their medians, with an interval.
//!
//! A paired bootstrap (Efron): pairs are drawn with replacement, [`RESAMPLES`] times, and the ratio of each drawing taken; the
//! interval is what 95 % of them lie in. Invariant: the same pairs give the same interval. Next: `measure`.

use serde::Serialize;

/// So many drawings.
pub const RESAMPLES: usize = 10_000;

/// Two ways of doing something, compared.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Ratio {
    /// Median without.
    pub a: f64,
    /// Median with.
    pub b: f64,
    /// Median with, by median without.
    pub ratio: f64,
    /// 95 % of drawings are not below.
    pub low: f64,
    /// 95 % of drawings are not above.
    pub high: f64,
}

impl Ratio {
    /// Compares; nothing without pairs, or when a median is 0.
    #[must_use]
    pub fn of(pairs: &[(f64, f64)]) -> Option<Self> {
        let (a, b) = medians(pairs.iter().copied())?;
        let ratio = b / a;
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        let mut drawn = Vec::with_capacity(RESAMPLES);
        for _ in 0..RESAMPLES {
            let sample =
                (0..pairs.len()).filter_map(|_| pairs.get(random.below(pairs.len())).copied());
            drawn.extend(medians(sample).map(|(a, b)| b / a));
        }
        drawn.sort_unstable_by(f64::total_cmp);
        let at = |per_mille: usize| {
            drawn.get((drawn.len() * per_mille / 1000).min(drawn.len() - 1)).copied()
        };
        (ratio.is_finite() && !drawn.is_empty()).then_some(())?;
        Some(Self { a, b, ratio, low: at(25)?, high: at(975)? })
    }

    /// Whether the two differ: 1 is not in the interval.
    #[must_use]
    pub fn differs(&self) -> bool {
        self.low > 1.0 || self.high < 1.0
    }
}

/// The medians of both sides, if the first is not 0.
fn medians(pairs: impl Iterator<Item = (f64, f64)>) -> Option<(f64, f64)> {
    let (a, b): (Vec<f64>, Vec<f64>) = pairs.unzip();
    let (a, b) = (median(a)?, median(b)?);
    (a != 0.0).then_some((a, b))
}

/// The middle one, or half-way between the two in the middle.
#[must_use]
pub fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_unstable_by(f64::total_cmp);
    let middle = values.len() / 2;
    let upper = values.get(middle).copied()?;
    if values.len() % 2 == 1 {
        return Some(upper);
    }
    Some(f64::midpoint(values.get(middle.checked_sub(1)?).copied()?, upper))
}

/// SplitMix64 (Steele and others, 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
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
    use super::*;

    #[test]
    fn medians_of_even_and_odd() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median(Vec::new()), None);
        assert_eq!(Ratio::of(&[]), None);
        assert_eq!(Ratio::of(&[(0.0, 1.0)]), None);
    }

    #[test]
    fn without_noise_the_interval_is_a_point() {
        let found = Ratio::of(&[(60.0, 10.0); 8]).expect("pairs");
        assert_eq!((found.a, found.b), (60.0, 10.0));
        assert_eq!((found.ratio, found.low, found.high), (10.0 / 60.0, 10.0 / 60.0, 10.0 / 60.0));
        assert!(found.differs());
        assert!(!Ratio::of(&[(7.0, 7.0); 8]).expect("pairs").differs());
    }

    /// Twenty pairs with noise of each pair (5 %) and of each figure (1 %), and `gain` between the sides.
    fn pairs(seed: u64, gain: f64) -> Vec<(f64, f64)> {
        let mut random = Random(seed);
        let mut noise = |size: f64| {
            // Twelve of them are nearly a normal distribution.
            let sum: f64 =
                (0..12).map(|_| f64::from(u32::try_from(random.below(1 << 20)).unwrap_or(0))).sum();
            (sum / f64::from(1_u32 << 20) - 6.0) * size
        };
        (0..20)
            .map(|_| {
                let level = 1000.0 * (1.0 + noise(0.05));
                (level * (1.0 + noise(0.01)), level * gain * (1.0 + noise(0.01)))
            })
            .collect()
    }

    #[test]
    fn a_difference_is_found_and_none_is_not() {
        let found = |gain: f64| {
            let differing =
                (0..100).filter(|seed| Ratio::of(&pairs(*seed, gain)).expect("pairs").differs());
            differing.count()
        };
        let (slower, same) = (found(1.05), found(1.0));
        assert!(slower >= 95, "+5 % was found for {slower} of 100 seeds");
        assert!(same <= 5, "a difference was found where there is none, for {same} of 100 seeds");
    }
}
