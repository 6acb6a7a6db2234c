//! Values by their number of bits: counts, and the quantiles that can be told from them.
//!
//! A bucket is as wide as its lower bound, so that a quantile is right within a factor of two. Next: `prometheus`.

use serde::Serialize;

use super::abi;

/// How many values there were of each size.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Histogram {
    /// How many in all.
    pub count: u64,
    /// Their sum.
    pub sum: u64,
    /// Entry i counts values of i bits, that is up to 2^i - 1.
    pub buckets: Vec<u64>,
}

impl Histogram {
    /// Of counts by bits.
    #[must_use]
    pub fn new(sum: u64, buckets: Vec<u64>) -> Self {
        Self { count: buckets.iter().sum(), sum, buckets }
    }

    /// The largest value that bucket `index` counts; the last one counts all that is larger.
    #[must_use]
    pub const fn bound(index: usize) -> u64 {
        if index >= 63 { u64::MAX } else { (1 << index) - 1 }
    }

    /// The mean; 0 of none.
    #[must_use]
    pub fn mean(&self) -> u64 {
        self.sum.checked_div(self.count).unwrap_or(0)
    }

    /// A bound below which so many percent of the values are; 0 of none.
    #[must_use]
    pub fn percentile(&self, percent: u64) -> u64 {
        let wanted = (self.count * percent).div_ceil(100);
        let mut below = 0;
        let found = self.buckets.iter().position(|count| {
            below += count;
            below >= wanted && below > 0
        });
        found.map_or(0, Self::bound)
    }

    /// What came after an earlier state of the same.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let before = |index: usize| earlier.buckets.get(index).copied().unwrap_or(0);
        let buckets = self.buckets.iter().enumerate();
        Self::new(
            self.sum.saturating_sub(earlier.sum),
            buckets.map(|(index, count)| count.saturating_sub(before(index))).collect(),
        )
    }

    /// Adds another of the same width.
    pub fn add(&mut self, other: &Self) {
        self.count += other.count;
        self.sum += other.sum;
        self.buckets.resize(self.buckets.len().max(other.buckets.len()), 0);
        self.buckets.iter_mut().zip(&other.buckets).for_each(|(to, from)| *to += from);
    }
}

impl From<&abi::Histogram> for Histogram {
    fn from(raw: &abi::Histogram) -> Self {
        Self::new(raw.sum, raw.buckets.to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::Histogram;

    #[test]
    fn percentiles_are_upper_bounds_of_buckets() {
        let none = Histogram::default();
        assert_eq!((none.percentile(50), none.mean()), (0, 0));
        // One value of 0, two of 1, one of 4 to 7.
        let some = Histogram::new(8, vec![1, 2, 0, 1]);
        assert_eq!(some.count, 4);
        assert_eq!([0, 25, 50, 75, 99, 100].map(|p| some.percentile(p)), [0, 0, 1, 1, 7, 7]);
        assert_eq!(some.mean(), 2);
    }

    #[test]
    fn the_difference_of_two_states_is_what_came_between() {
        let earlier = Histogram::new(3, vec![0, 1, 1]);
        let later = Histogram::new(9, vec![0, 1, 3]);
        assert_eq!(later.since(&earlier), Histogram::new(6, vec![0, 0, 2]));
        let mut sum = earlier.clone();
        sum.add(&later.since(&earlier));
        assert_eq!(sum, later);
    }

    #[test]
    fn bounds_do_not_overflow() {
        assert_eq!(
            [0, 1, 2, 10, 63, 99].map(Histogram::bound),
            [0, 1, 3, 1023, u64::MAX, u64::MAX]
        );
    }
}
