//! Bars and judgements: when a figure is within its bar, and how that is written.
//!
//! Invariant: a bar is met when all of the interval, or every trial, is within it; when only the median is, or
//! rounds are too few for an interval, that is another word. Next: `compare`, whose claims are judged.

use crate::compare::{Bar, Judgement};
use crate::stats::{self, Ratio};

impl Bar {
    /// What comes of the candidate's ratio to a baseline and its own values.
    #[must_use]
    pub fn judge(self, ratio: Option<Ratio>, values: &[f64]) -> Judgement {
        let median = stats::median(values);
        let median = (!median.is_nan()).then_some(median);
        let every = |within: fn(&f64, &f64) -> bool, bar: f64| {
            values.iter().all(|value| within(value, &bar))
        };
        match (self, ratio, median) {
            (Self::RatioAtMost(bar), Some(ratio), _) => {
                within(ratio.is_solid() && ratio.high <= bar, ratio.ratio <= bar)
            }
            (Self::RatioAtLeast(bar), Some(ratio), _) => {
                within(ratio.is_solid() && ratio.low >= bar, ratio.ratio >= bar)
            }
            (Self::AtMost(bar), _, Some(median)) => within(every(f64::le, bar), median <= bar),
            (Self::AtLeast(bar), _, Some(median)) => within(every(f64::ge, bar), median >= bar),
            (Self::Shown, _, Some(_)) => Judgement::Shown,
            _ => Judgement::NotRun,
        }
    }

    /// In plain characters, for a terminal.
    #[must_use]
    pub fn ascii(self) -> String {
        match self {
            Self::RatioAtMost(bar) => format!("<= {bar:.2}x"),
            Self::RatioAtLeast(bar) => format!(">= {bar:.2}x"),
            Self::AtMost(bar) => format!("<= {bar}"),
            Self::AtLeast(bar) => format!(">= {bar}"),
            Self::Shown => String::new(),
        }
    }

    /// For a page.
    #[must_use]
    pub fn words(self) -> String {
        self.ascii().replace("<=", "≤").replace(">=", "≥").replace('x', "×")
    }

    /// The ratio it allows at most or at least.
    #[must_use]
    pub const fn ratio(self) -> Option<f64> {
        match self {
            Self::RatioAtMost(bar) | Self::RatioAtLeast(bar) => Some(bar),
            Self::AtMost(_) | Self::AtLeast(_) | Self::Shown => None,
        }
    }
}

impl Judgement {
    /// In plain characters, for a terminal; nothing where there is no bar.
    #[must_use]
    pub const fn ascii(self) -> &'static str {
        match self {
            Self::Met => "met",
            Self::MetAtMedian => "met at median",
            Self::Missed => "MISSED",
            Self::NotRun => "not run",
            Self::Shown => "",
        }
    }

    /// For a page.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::Missed => "missed",
            Self::Shown => "no bar",
            other => other.ascii(),
        }
    }
}

const fn within(surely: bool, at_median: bool) -> Judgement {
    match (surely, at_median) {
        (true, _) => Judgement::Met,
        (false, true) => Judgement::MetAtMedian,
        (false, false) => Judgement::Missed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_judged_all_of_them_and_by_the_median() {
        let judge = |bar: Bar| bar.judge(None, &[1.0, 2.0, 3.0]);
        assert_eq!(judge(Bar::AtMost(3.0)), Judgement::Met);
        assert_eq!(judge(Bar::AtMost(2.0)), Judgement::MetAtMedian);
        assert_eq!(judge(Bar::AtLeast(1.0)), Judgement::Met);
        assert_eq!(judge(Bar::AtLeast(2.0)), Judgement::MetAtMedian);
        assert_eq!(judge(Bar::AtLeast(2.5)), Judgement::Missed);
        assert_eq!(judge(Bar::RatioAtMost(2.5)), Judgement::NotRun);
        assert_eq!(Bar::AtLeast(1.0).judge(None, &[]), Judgement::NotRun);
        assert_eq!(Bar::RatioAtMost(0.75).words(), "≤ 0.75×");
    }
}
