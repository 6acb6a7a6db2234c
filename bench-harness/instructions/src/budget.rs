//! What each path may take, and whether it does.
//!
//! Invariant: each path has a budget and each budget a path. A budget that is far from what is counted is wrong too: the next
//! slow change would hide in the gap. Next: `budgets.toml`.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

/// Where they are, unless it is said.
pub(crate) const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/budgets.toml");
/// A path may take so much more than its budget: Callgrind hides from the program what another processor would offer it, but not all.
const OVER: f64 = 1.01;
/// And so much less.
const UNDER: f64 = 0.97;
/// Of what takes few instructions, a part of one is no finding.
const SLACK: f64 = 0.5;

/// What a path may take.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Budget {
    /// Instructions for each operation.
    pub(crate) instructions: f64,
    /// Why so many.
    reason: String,
}

/// How a count compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// As it should be.
    Within,
    /// Slower.
    Over,
    /// Faster: the budget is to be lowered.
    Under,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Within => "ok",
            Self::Over => "OVER",
            Self::Under => "UNDER",
        })
    }
}

impl Budget {
    /// Compares a count.
    pub(crate) fn judge(&self, counted: f64) -> Verdict {
        if counted > self.instructions.mul_add(OVER, SLACK) {
            Verdict::Over
        } else if counted < self.instructions.mul_add(UNDER, -SLACK) {
            Verdict::Under
        } else {
            Verdict::Within
        }
    }
}

/// All of them.
#[derive(Debug, Deserialize)]
#[serde(transparent)]
pub(crate) struct Budgets(BTreeMap<String, Budget>);

impl Budgets {
    /// Those of a file.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let doing = || format!("read {}", path.display());
        toml::from_str(&fs::read_to_string(path).with_context(doing)?).with_context(doing)
    }

    /// Of one path.
    pub(crate) fn of(&self, path: &str) -> Result<&Budget> {
        self.0.get(path).with_context(|| format!("budgets.toml has no [\"{path}\"]"))
    }

    /// Whether these paths, and no others, have budgets with reasons.
    pub(crate) fn check<'a>(&self, paths: impl Iterator<Item = &'a str>) -> Result<()> {
        let mut left: Vec<&str> = self.0.keys().map(String::as_str).collect();
        for path in paths {
            if self.of(path)?.reason.trim().is_empty() {
                bail!("budgets.toml: the budget of {path} has no reason");
            }
            left.retain(|other| *other != path);
        }
        if let Some(stale) = left.first() {
            bail!("budgets.toml: there is no path {stale}");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_path_has_a_budget_with_a_reason() {
        let budgets = Budgets::read(Path::new(FILE)).expect("it is read");
        budgets.check(crate::paths::ALL.iter().map(|path| path.name)).expect("they match");
        budgets.check(std::iter::empty()).expect_err("there are more");
        budgets.check(["none"].into_iter()).expect_err("there is no such budget");
    }

    #[test]
    fn a_hundredth_more_or_three_less_is_found() {
        let budget = Budget { instructions: 1000.0, reason: String::new() };
        let counts = [1000.0, 1010.0, 1011.0, 1020.0, 970.0, 969.0];
        let verdicts = counts.map(|counted| budget.judge(counted));
        use Verdict::{Over, Under, Within};
        assert_eq!(verdicts, [Within, Within, Over, Over, Within, Under]);
        let tiny = Budget { instructions: 10.0, reason: String::new() };
        assert_eq!(tiny.judge(10.5), Within);
    }
}
