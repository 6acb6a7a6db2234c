//! Comparison of two servers from repeated short trials: the statistics of `tuning`, which measures the same way.
//!
//! Why there: `tune measure` and `bench` answer the same question, and `tuning` may not depend on us. Invariant: every
//! ratio of this crate comes from here, so that all of them are judged alike. Next: `rounds` for the schedule that gives
//! pairs, `compare` and `figures` for whose ratios, `tuning::stats` for how.

pub use tuning::stats::{
    Interval, LEVEL, PAIRS, RESAMPLES, Ratio, SOLID_PAIRS, SURE_LEVEL, median, minimum,
};

/// Compares `pairs` of (baseline, candidate), one pair a round. Always candidate over baseline, so below 1 the candidate is
/// smaller. `None` without pairs or when the baseline's median is not positive.
#[must_use]
pub fn paired_ratio(pairs: &[(f64, f64)], seed: u64) -> Option<Ratio> {
    Ratio::of(pairs, seed)
}
