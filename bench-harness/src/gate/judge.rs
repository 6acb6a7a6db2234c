//! One figure of two sessions against its budget.
//!
//! Invariant: a verdict says why, where it is no plain pass or regression. Next: `gate`, which sums them up.

use serde::Serialize;

use super::{BUDGETS, Budget, CLAIMED_PERCENT, Cell, OF_CLIENT, Options, Outcome, Row, Side};
use crate::stats::{self, Ratio};

/// What came of a figure.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The whole interval is within the budget.
    Pass,
    /// The figure is; its interval reaches beyond.
    PassAtMedian,
    /// The whole interval is beyond the budget, and beyond what equal servers are apart.
    Regression,
    /// The side ran in BASE and does not any more.
    Gone(String),
    /// Neither can be said.
    Undecided(String),
    /// It was asked for, and is the client's.
    ClientBound,
    /// It is the client's, and nobody asked for it by name.
    Skipped(String),
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Pass => f.write_str("ok"),
            Self::PassAtMedian => f.write_str("ok, though its interval reaches beyond"),
            Self::Regression => f.write_str("REGRESSION"),
            Self::Gone(why) => write!(f, "REGRESSION: it does not run any more: {why}"),
            Self::Undecided(why) => write!(f, "undecided: {why}"),
            Self::ClientBound => f.write_str("client-bound: the load was the limit"),
            Self::Skipped(why) => write!(f, "not judged: {why}"),
        }
    }
}

/// A figure of which less is worse.
fn less_is_worse(figure: &str) -> bool {
    figure == "rate" || figure.ends_with("per_s")
}

/// Judges what has a budget in a cell that both files have.
pub(super) fn cell(base: &Cell, new: &Cell, options: &Options, outcome: &mut Outcome) {
    let pairs: Vec<(&Side, &Side)> = base
        .sides
        .iter()
        .filter(|side| !side.is_again())
        .filter_map(|side| Some((side, new.sides.iter().find(|other| other.label == side.label)?)))
        .collect();
    // Where something of this tree or of another version takes part, the others are there to compare with.
    let any_changed = pairs.iter().any(|(base, new)| !is_control(base, new));
    let budgets = budgets(base, options);
    for (base_side, new_side) in &pairs {
        if any_changed && is_control(base_side, new_side) {
            continue;
        }
        if base_side.rounds.is_empty() {
            let why = base_side.failed.as_deref().unwrap_or("it has no rounds");
            outcome
                .notes
                .push(format!("{}: {} did not run in BASE: {why}", base.name, base_side.label));
            continue;
        }
        let mut others = pairs.iter().filter(|(side, _)| side.label != base_side.label);
        let control = others.find(|(base, new)| is_control(base, new));
        for budget in &budgets {
            let figure = Figure { base, new, base_side, new_side, control, budget };
            outcome.rows.extend(figure.row());
        }
    }
    if any_changed && !pairs.iter().any(|(base, new)| is_control(base, new)) {
        outcome.notes.push(format!(
            "{}: no server in it is the same in both files: a machine that was slower in one session is in these ratios",
            base.name
        ));
    }
}

/// Whether a side did not change between the files.
fn is_control(base: &Side, new: &Side) -> bool {
    let known = !base.version.is_empty() && base.version == new.version;
    let ran = !base.rounds.is_empty() && !new.rounds.is_empty();
    known && ran && !base.own && !new.own && base.failed.is_none() && new.failed.is_none()
}

fn budgets(cell: &Cell, options: &Options) -> Vec<Budget> {
    if !options.budgets.is_empty() {
        return options.budgets.clone();
    }
    let usual =
        |figure: &str, percent: f64| Budget { figure: figure.to_owned(), percent, asked: false };
    let mut budgets: Vec<Budget> =
        BUDGETS.iter().map(|(figure, percent)| usual(figure, *percent)).collect();
    for figure in &cell.claimed {
        if !budgets.iter().any(|budget| budget.figure == *figure) {
            budgets.push(usual(figure, CLAIMED_PERCENT));
        }
    }
    budgets
}

/// What a verdict is about.
struct Figure<'a> {
    base: &'a Cell,
    new: &'a Cell,
    base_side: &'a Side,
    new_side: &'a Side,
    control: Option<&'a (&'a Side, &'a Side)>,
    budget: &'a Budget,
}

impl Figure<'_> {
    /// The row of it; none where BASE does not have the figure.
    fn row(&self) -> Option<Row> {
        let name = &self.budget.figure;
        if self.base_side.values(name).is_empty() {
            return None;
        }
        let controlled = self.control.filter(|(base, new)| {
            let has = |control: &Side, side| !control.over(side, name).is_empty();
            // One that the load limited says how fast the load was.
            let of_load =
                OF_CLIENT.contains(&name.as_str()) && (base.client_bound || new.client_bound);
            has(base, self.base_side) && has(new, self.new_side) && !of_load
        });
        let (first, second) = match controlled {
            Some((base, new)) => {
                (shares(base, self.base_side, name), shares(new, self.new_side, name))
            }
            None => (self.base_side.values(name), self.new_side.values(name)),
        };
        let ratio = Ratio::of_unpaired(&first, &second);
        let floors = [self.base, self.new].map(|cell| floor(cell, name));
        let floor = floors[0].zip(floors[1]).map(|(base, new)| base.max(new));
        Some(Row {
            cell: self.base.name.clone(),
            side: self.base_side.label.clone(),
            control: controlled.map(|(base, _)| base.label.clone()),
            figure: name.clone(),
            percent: self.budget.percent,
            verdict: self.verdict(ratio, floor, &first, &second),
            ratio,
            floor,
        })
    }

    fn verdict(
        &self,
        ratio: Option<Ratio>,
        floor: Option<f64>,
        first: &[f64],
        second: &[f64],
    ) -> Verdict {
        let name = self.budget.figure.as_str();
        if let Some(why) = &self.new_side.failed {
            return match why.strip_prefix("not present") {
                Some(_) => Verdict::Undecided(why.clone()),
                None => Verdict::Gone(why.clone()),
            };
        }
        if second.is_empty() {
            return Verdict::Undecided("NEW does not have it".to_owned());
        }
        let Some(ratio) = ratio else {
            // Counts that are 0 have no ratio.
            return match stats::median(second) <= stats::median(first) {
                true => Verdict::Pass,
                false => Verdict::Undecided("0 in some rounds, so there is no ratio".to_owned()),
            };
        };
        self.unless_bound(verdict(name, ratio, floor, self.budget.percent))
    }

    /// A rate that the load limited is a bound of the server's own: that was no lower, and its latency no higher. So what is worse than
    /// a limited BASE is worse, and a limited NEW that is good enough is; nothing else can be said.
    fn unless_bound(&self, verdict: Verdict) -> Verdict {
        let bounds = (self.base_side.client_bound, self.new_side.client_bound);
        let holds = match bounds {
            (false, false) => true,
            (true, false) => verdict == Verdict::Regression,
            (false, true) => verdict == Verdict::Pass,
            (true, true) => false,
        };
        match self.budget.asked {
            _ if holds || !OF_CLIENT.contains(&self.budget.figure.as_str()) => verdict,
            true => Verdict::ClientBound,
            false => Verdict::Skipped("the load was the limit, so it is the client's".to_owned()),
        }
    }
}

/// By limits: how many times worse it is, with its interval, against budget and floor.
fn verdict(figure: &str, ratio: Ratio, floor: Option<f64>, percent: f64) -> Verdict {
    let (worse, low, high) = match less_is_worse(figure) {
        true => (1.0 / ratio.ratio, 1.0 / ratio.high, 1.0 / ratio.low),
        false => (ratio.ratio, ratio.low, ratio.high),
    };
    // What may be lost of a rate is a share of it.
    let limit = match less_is_worse(figure) {
        true if percent < 100.0 => 1.0 / (1.0 - percent / 100.0),
        true => f64::INFINITY,
        false => 1.0 + percent / 100.0,
    };
    let undecided = |why: String| Verdict::Undecided(why);
    if !ratio.is_solid() {
        return undecided(format!(
            "{} rounds are too few for an interval: {} at least in both files",
            ratio.pairs,
            stats::SOLID_PAIRS
        ));
    }
    match floor {
        _ if high <= limit => Verdict::Pass,
        _ if worse <= limit => Verdict::PassAtMedian,
        _ if low <= limit => undecided("beyond the budget, and its interval is not".to_owned()),
        None => {
            undecided("beyond the budget, and no A/A says what equal servers are apart".to_owned())
        }
        Some(floor) if low <= floor => {
            undecided(format!("beyond the budget, and equal servers were {floor:.3} apart"))
        }
        Some(_) => Verdict::Regression,
    }
}

/// A side's figure by the control's, round by round.
fn shares(control: &Side, side: &Side, figure: &str) -> Vec<f64> {
    control.over(side, figure).into_iter().map(|(control, side)| side / control).collect()
}

/// How far equal servers came out apart, as a factor of at least 1; none without an A/A of enough rounds.
fn floor(cell: &Cell, figure: &str) -> Option<f64> {
    let ratio = Ratio::quick(&cell.same(figure)?)?;
    let reach = ratio.reach();
    (ratio.is_solid() && reach.is_finite()).then_some(reach)
}
