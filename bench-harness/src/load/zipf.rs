//! Zipf's law: rank `k` of `n` is drawn with a share proportional to `1 / k^skew`.
//!
//! By rejection-inversion (Hörmann and Derflinger: "Rejection-inversion to generate variates from monotone
//! discrete distributions", ACM TOMACS 6, 1996): exact for every skew, 1 included, and for every `n`, without a
//! table; mostly with one draw of the generator. Why our own: the load's randomness is [`Rng`] alone, and
//! [`Zipf::resize`] is what the latest keys of a growing store need, at the price of one exponential.
//! Next: `keys`, which makes keys of ranks.

use crate::rng::Rng;

/// Below this the quotients of [`expm1_over`] and [`ln1p_over`] are their series.
const SERIES_MAX: f64 = 1e-8;

/// Ranks from 0 to `n` - 1, the first the most frequent.
#[derive(Clone, Debug)]
pub struct Zipf {
    ranks: u32,
    skew: f64,
    /// Integral of the hat at the ends, between which a number is drawn.
    low: f64,
    high: f64,
    /// Nearer than this to its rank, a number is taken without a look at the hat.
    near: f64,
}

impl Zipf {
    /// Of `ranks` ranks, of which there is at least one. `skew` is above 0.
    #[must_use]
    pub fn new(ranks: u32, skew: f64) -> Self {
        let mut zipf = Self { ranks: 0, skew, low: 0.0, high: 0.0, near: 0.0 };
        zipf.low = zipf.integral(1.5) - 1.0;
        zipf.near = 2.0 - zipf.inverse(zipf.integral(2.5) - zipf.height(2.0));
        zipf.resize(ranks);
        zipf
    }

    /// From now on there are so many ranks.
    pub fn resize(&mut self, ranks: u32) {
        self.ranks = ranks.max(1);
        self.high = self.integral(f64::from(self.ranks) + 0.5);
    }

    /// How many there are.
    #[must_use]
    pub const fn ranks(&self) -> u32 {
        self.ranks
    }

    /// Draws one.
    #[inline]
    pub fn draw(&self, rng: &mut Rng) -> u32 {
        loop {
            let under = self.high + rng.unit() * (self.low - self.high);
            let at = self.inverse(under);
            // The cast saturates: what lies below 1 or above the last rank is by rounding.
            let rank = ((at + 0.5) as u32).clamp(1, self.ranks);
            let middle = f64::from(rank);
            if middle - at <= self.near
                || under >= self.integral(middle + 0.5) - self.height(middle)
            {
                return rank - 1;
            }
        }
    }

    /// `x^-skew`.
    fn height(&self, x: f64) -> f64 {
        (-self.skew * x.ln()).exp()
    }

    /// An antiderivative of it: `(x^(1-skew) - 1) / (1-skew)`, which is `ln x` at 1.
    fn integral(&self, x: f64) -> f64 {
        let log = x.ln();
        expm1_over((1.0 - self.skew) * log) * log
    }

    /// The inverse of [`Zipf::integral`].
    fn inverse(&self, y: f64) -> f64 {
        // Rounding may take it below the logarithm's pole.
        let t = (y * (1.0 - self.skew)).max(-1.0);
        (ln1p_over(t) * y).exp()
    }
}

/// `(e^x - 1) / x`.
fn expm1_over(x: f64) -> f64 {
    if x.abs() > SERIES_MAX { x.exp_m1() / x } else { 1.0 + x / 2.0 }
}

/// `ln(1 + x) / x`.
fn ln1p_over(x: f64) -> f64 {
    if x.abs() > SERIES_MAX { x.ln_1p() / x } else { 1.0 - x / 2.0 }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// The share of each rank, summed up from the smallest.
    pub(in crate::load) fn shares(ranks: u32, skew: f64) -> Vec<f64> {
        let heights: Vec<f64> = (1..=ranks).map(|rank| f64::from(rank).powf(-skew)).collect();
        let sum: f64 = heights.iter().rev().sum();
        heights.iter().map(|height| height / sum).collect()
    }

    /// By how many deviations the chi-squared statistic of `counts` is above what is expected of it. Ranks
    /// that are too rare to be judged alone are taken together.
    pub(in crate::load) fn chi_squared(counts: &[u64], shares: &[f64]) -> f64 {
        let total: u64 = counts.iter().sum();
        let (mut statistic, mut groups) = (0.0, 0.0);
        let (mut seen, mut expected) = (0.0, 0.0);
        for (at, (&count, share)) in counts.iter().zip(shares).enumerate() {
            seen += count as f64;
            expected += share * total as f64;
            if expected >= 20.0 || at + 1 == counts.len() {
                statistic += (seen - expected) * (seen - expected) / expected;
                groups += 1.0;
                (seen, expected) = (0.0, 0.0);
            }
        }
        // Wilson and Hilferty: its cube root is all but normal.
        let freedom: f64 = groups - 1.0;
        let spread = 2.0 / (9.0 * freedom);
        ((statistic / freedom).cbrt() - (1.0 - spread)) / spread.sqrt()
    }

    fn counts(zipf: &Zipf, draws: u32, seed: u64) -> Vec<u64> {
        let mut rng = Rng::new(seed);
        let mut counts = vec![0; zipf.ranks() as usize];
        for _ in 0..draws {
            counts[zipf.draw(&mut rng) as usize] += 1;
        }
        counts
    }

    #[test]
    fn ranks_are_drawn_by_the_law_at_every_skew() {
        for skew in [0.1, 0.5, 0.9, 0.99, 1.0 - 1e-10, 1.0, 1.0 + 1e-10, 1.2, 1.5, 3.0] {
            for ranks in [2, 10, 1_000, 100_000] {
                let zipf = Zipf::new(ranks, skew);
                let found = chi_squared(&counts(&zipf, 400_000, 11), &shares(ranks, skew));
                assert!(found < 4.0, "skew {skew}, {ranks} ranks: {found} deviations");
            }
        }
    }

    #[test]
    fn the_test_of_the_law_notices_another_skew() {
        let zipf = Zipf::new(1_000, 0.99);
        let counts = counts(&zipf, 400_000, 11);
        assert!(chi_squared(&counts, &shares(1_000, 0.97)) > 6.0);
        assert!(chi_squared(&counts, &shares(1_000, 1.01)) > 6.0);
    }

    #[test]
    fn one_rank_is_always_drawn_and_the_most_are_within_range() {
        let mut rng = Rng::new(3);
        let one = Zipf::new(1, 0.99);
        let none = Zipf::new(0, 0.99);
        let most = Zipf::new(u32::MAX, 0.1);
        let mut beyond_the_middle = 0;
        for _ in 0..10_000 {
            assert_eq!((one.draw(&mut rng), none.draw(&mut rng)), (0, 0));
            beyond_the_middle += u32::from(most.draw(&mut rng) > u32::MAX / 2);
        }
        // 1 - 0.5^0.9 of them.
        assert!((4_450..4_840).contains(&beyond_the_middle), "{beyond_the_middle}");
    }

    #[test]
    fn one_that_has_grown_is_as_one_that_was_made_so_large() {
        let mut grown = Zipf::new(10, 0.99);
        grown.resize(5_000);
        assert_eq!(counts(&grown, 10_000, 5), counts(&Zipf::new(5_000, 0.99), 10_000, 5));
    }
}
