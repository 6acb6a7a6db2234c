//! Signed ranks with a cap: where the middle of some differences lies, with an exact interval.
//!
//! Wilcoxon's test sums the ranks of the differences on each side of a supposed middle. Its interval is exact for any
//! noise that hits both sides of a pair alike, and nearly as narrow as that of the mean when the noise is normal; but with a
//! twentieth of the trials disturbed, as on a shared machine, the largest differences are accidents, and they have the largest
//! ranks. Here a rank counts [`CAP`] at most: beyond the nearest quarter all weigh the same (scores of this kind: Hájek and Šidák,
//! "Theory of Rank Tests", 1967, II.4). The sum's distribution under the null hypothesis is counted, not approximated. The interval is what the test
//! does not reject; its ends are means of two differences (Hodges and Lehmann, "Estimates of location", 1963).
//! Invariants: exact also with ties, where it errs to the wide side; more sure means wider. Next: `stats`.

/// Of so many differences, one caps the ranks.
const CAP: usize = 4;

/// Differences, ready to be asked.
#[derive(Debug)]
pub(super) struct Ranks {
    sorted: Vec<f64>,
    /// Means of every two, and of each with itself, in order of size.
    means: Vec<f64>,
    cap: usize,
    /// Of each sum, how often it or a smaller one comes about when signs are by chance.
    chance: Vec<f64>,
}

impl Ranks {
    /// Of these differences, one at least.
    pub(super) fn of(differences: &[f64]) -> Self {
        let mut sorted = differences.to_vec();
        sorted.sort_unstable_by(f64::total_cmp);
        let mut means: Vec<f64> = Vec::with_capacity(sorted.len() * (sorted.len() + 1) / 2);
        for (at, low) in sorted.iter().enumerate() {
            means.extend(sorted[at..].iter().map(|high| f64::midpoint(*low, *high)));
        }
        means.sort_unstable_by(f64::total_cmp);
        let cap = ((sorted.len() + CAP / 2) / CAP).max(1);
        let chance = chance(sorted.len(), cap);
        Self { sorted, means, cap, chance }
    }

    /// What the test does not reject at this level; everything there is when it cannot reject anything.
    pub(super) fn interval(&self, level: f64) -> (f64, f64) {
        let rejected = self.chance.partition_point(|chance| *chance * 2.0 <= level);
        self.ends(rejected)
    }

    /// The middle: half-way between where the two sides weigh the same.
    pub(super) fn middle(&self) -> f64 {
        let (low, high) = self.ends(self.chance.len() / 2);
        f64::midpoint(low, high)
    }

    /// How often differences around 0 come out at least so one-sided.
    pub(super) fn p(&self) -> f64 {
        let least = self.weight_below(0.0).min(self.weight_above(0.0));
        self.chance.get(least).map_or(1.0, |chance| (chance * 2.0).min(1.0))
    }

    /// The first mean with a weight of `rejected` at least at or below it, and the last with as much at or above it.
    fn ends(&self, rejected: usize) -> (f64, f64) {
        let low = self.means.partition_point(|mean| self.weight_below(*mean) < rejected);
        let high = self.means.partition_point(|mean| self.weight_above(*mean) >= rejected);
        let at = |at: usize| self.means[at.min(self.means.len() - 1)];
        (at(low), at(high.saturating_sub(1)))
    }

    /// The capped ranks of those below `middle`. A difference's rank is the number of differences no further away, that
    /// is, of its means with others above it that are not above the middle.
    fn weight_below(&self, middle: f64) -> usize {
        let weight = |(at, low): (usize, &f64)| {
            let near = |high: &&f64| f64::midpoint(*low, **high) <= middle;
            self.sorted[at..].iter().take_while(near).take(self.cap).count()
        };
        self.sorted.iter().enumerate().take_while(|(_, low)| **low <= middle).map(weight).sum()
    }

    fn weight_above(&self, middle: f64) -> usize {
        let weight = |(at, high): (usize, &f64)| {
            let near = |low: &&f64| f64::midpoint(**low, *high) >= middle;
            self.sorted[..=at].iter().rev().take_while(near).take(self.cap).count()
        };
        let above = self.sorted.iter().enumerate().rev();
        above.take_while(|(_, high)| **high >= middle).map(weight).sum()
    }
}

/// Counts: each capped rank is on one side or the other, with the same chance.
fn chance(count: usize, cap: usize) -> Vec<f64> {
    let mut chance = vec![1.0];
    for rank in 1..=count {
        let score = rank.min(cap);
        let mut next = vec![0.0; chance.len() + score];
        for (sum, share) in chance.iter().enumerate() {
            next[sum] += share / 2.0;
            next[sum + score] += share / 2.0;
        }
        chance = next;
    }
    let mut total = 0.0;
    for share in &mut chance {
        total += *share;
        *share = total;
    }
    chance
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Wilcoxon's table: of ten pairs, a rank sum of 8 is the largest with a chance of 2.5 % at most.
    #[test]
    fn without_a_cap_the_chances_are_those_of_the_table() {
        let chance = chance(10, 10);
        assert_eq!(chance.len(), 56);
        assert!(chance[8] <= 0.025 && chance[9] > 0.025);
        assert!((chance[0] - 1.0 / 1024.0).abs() < 1e-15);
        assert!((chance[55] - 1.0).abs() < 1e-12);
    }

    #[test]
    fn six_differences_have_their_range_as_interval_and_five_have_none_that_is_wider() {
        let six = Ranks::of(&[3.0, 1.0, 2.0, 6.0, 5.0, 4.0]);
        assert_eq!(six.interval(0.05), (1.0, 6.0));
        assert_eq!(six.middle(), 3.5);
        assert_eq!(six.p(), 2.0 / 64.0);
        let five = Ranks::of(&[3.0, 1.0, 2.0, 5.0, 4.0]);
        assert_eq!(five.interval(0.05), (1.0, 5.0));
    }

    #[test]
    fn the_interval_and_the_chance_agree() {
        let all = [-3.0, -0.5, 0.25, 1.0, 1.5, 2.0, 2.5, 4.0, 4.5, 7.0, 8.0, 30.0];
        for shift in 0..60 {
            let moved: Vec<f64> = all.iter().map(|one| one - 0.125 * f64::from(shift)).collect();
            let ranks = Ranks::of(&moved);
            for level in [0.01, 0.02, 0.05, 0.2] {
                let (low, high) = ranks.interval(level);
                assert_eq!(ranks.p() <= level, low > 0.0 || high < 0.0, "{shift} {level}");
            }
        }
    }

    #[test]
    fn ties_are_on_the_wide_side() {
        assert_eq!(Ranks::of(&[0.0; 10]).p(), 1.0);
        assert_eq!(Ranks::of(&[2.0; 10]).interval(0.05), (2.0, 2.0));
        let mixed = Ranks::of(&[0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0]);
        assert!(mixed.p() > 0.05);
        assert_eq!(mixed.interval(0.05).0, 0.0);
    }
}
