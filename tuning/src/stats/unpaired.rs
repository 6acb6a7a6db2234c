//! Figures of two sessions: how far one lies from the other, by the Mann-Whitney test.
//!
//! For every two figures, one of each session, their ratio; the estimate is the median of all, the interval what the test does not
//! reject (Hodges and Lehmann, 1963). Counted exactly up to [`EXACT`] figures a side, approximated beyond. It knows nothing of what the
//! sessions had in common: whoever has a control in both sessions compares ratios to it. Next: `stats`.

use super::{LEVEL, Ratio, SURE_LEVEL, median, normal};

/// More figures on one side are approximated.
const EXACT: usize = 40;

pub(super) fn compare(first: &[f64], second: &[f64]) -> Option<Ratio> {
    let is_positive = |figure: &f64| figure.is_finite() && *figure > 0.0;
    let positive = first.iter().chain(second).all(is_positive);
    if first.is_empty() || second.is_empty() || !positive {
        return None;
    }
    let mut ratios = Vec::with_capacity(first.len() * second.len());
    for one in first {
        ratios.extend(second.iter().map(|other| other / one));
    }
    ratios.sort_unstable_by(f64::total_cmp);
    let chance = Chance::of(first.len(), second.len());
    let ends = |level: f64| {
        let rejected = chance.rejected(level).saturating_sub(1).min((ratios.len() - 1) / 2);
        (ratios[rejected], ratios[ratios.len() - 1 - rejected])
    };
    let at_most = ratios.partition_point(|ratio| *ratio <= 1.0);
    let at_least = ratios.len() - ratios.partition_point(|ratio| *ratio < 1.0);
    let ((low, high), (sure_low, sure_high)) = (ends(LEVEL), ends(SURE_LEVEL));
    Some(Ratio {
        a: median(first),
        b: median(second),
        ratio: median(&ratios),
        low,
        high,
        sure_low,
        sure_high,
        p: (2.0 * chance.at_most(at_most.min(at_least))).min(1.0),
        pairs: first.len().min(second.len()),
        of_medians: None,
    })
}

/// How often so many of the ratios, or fewer, are below 1 when the sides are equal.
enum Chance {
    Counted(Vec<f64>),
    Normal { mean: f64, deviation: f64 },
}

impl Chance {
    fn of(first: usize, second: usize) -> Self {
        if first.max(second) > EXACT {
            let (one, other) = (first as f64, second as f64);
            let deviation = (one * other * (one + other + 1.0) / 12.0).sqrt();
            return Self::Normal { mean: one * other / 2.0, deviation };
        }
        let mut total = 0.0;
        let sum = |share: f64| {
            total += share;
            total
        };
        Self::Counted(counted(first, second).into_iter().map(sum).collect())
    }

    fn at_most(&self, count: usize) -> f64 {
        match self {
            Self::Counted(chance) => chance.get(count).copied().unwrap_or(1.0),
            Self::Normal { mean, deviation } => {
                normal::below((count as f64 + 0.5 - mean) / deviation)
            }
        }
    }

    /// So many counts, from 0 on, are rejected on each side.
    fn rejected(&self, level: f64) -> usize {
        (0..).take_while(|count| 2.0 * self.at_most(*count) <= level).count()
    }
}

/// Of each count its chance: the largest figure is of one side or the other (H. B. Mann and D. R. Whitney, 1947).
fn counted(first: usize, second: usize) -> Vec<f64> {
    let most = first * second;
    let mut row: Vec<Vec<f64>> = Vec::new();
    for one in 0..=first {
        for other in 0..=second {
            let mut next = vec![0.0; most + 1];
            if one == 0 || other == 0 {
                next[0] = 1.0;
            } else {
                let share = one as f64 / (one + other) as f64;
                for count in 0..=one * other {
                    let above = count.checked_sub(other).map_or(0.0, |count| row[other][count]);
                    next[count] = share * above + (1.0 - share) * row[other - 1][count];
                }
            }
            if one == 0 { row.push(next) } else { row[other] = next }
        }
    }
    row.pop().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::models::pairs;
    use super::*;

    /// The table of Mann and Whitney: of 5 and 5 figures, 2 is the largest count with a chance of 2.5 %.
    #[test]
    fn chances_are_those_of_the_table() {
        let chance = Chance::of(5, 5);
        assert_eq!(chance.rejected(0.05), 3);
        assert!((chance.at_most(0) - 1.0 / 252.0).abs() < 1e-12);
        assert!((chance.at_most(25) - 1.0).abs() < 1e-12);
        let (exact, near) = (Chance::of(40, 40), Chance::of(41, 41));
        assert!(exact.rejected(0.05).abs_diff(near.rejected(0.05)) < 45, "they go on alike");
    }

    #[test]
    fn sessions_that_differ_are_told_from_equal_ones() {
        let session = |seed: u64, effect: f64| -> Vec<f64> {
            pairs(0, seed, 20, effect).into_iter().map(|(_, second)| second).collect()
        };
        let ratio = |seed, effect| {
            compare(&session(seed, 1.0), &session(seed + 1_000, effect)).expect("figures")
        };
        let found = (0..100).filter(|seed| ratio(*seed, 1.03).differs()).count();
        let held = (0..1_000).filter(|seed| ratio(*seed, 1.0).covers(1.0)).count();
        assert!(found >= 95, "+3 % found in {found} of 100");
        assert!(held >= 935, "the truth was held in {held} of 1000");
        assert!(compare(&[], &[1.0]).is_none() && compare(&[0.0], &[1.0]).is_none());
        let equal = compare(&[5.0; 8], &[5.0; 8]).expect("figures");
        assert_eq!((equal.low, equal.high, equal.p), (1.0, 1.0, 1.0));
    }
}
