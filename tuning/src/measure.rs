//! What one knob does to a command of the user: as it is (A) and changed (B), in blocks of A B B A.
//!
//! In such a block what grows or shrinks steadily meanwhile hits both sides alike. The changes are in the journal like those of
//! `apply`, so that whoever is killed leaves a way back. Invariants: the command runs only after the values were read back; without
//! `keep` everything is as before at the end, also after an error. Next: `figure`, `stats`.

use serde::Serialize;

use crate::apply::{self, entry};
use crate::check::{Finding, Status};
use crate::error::{Error, Result};
use crate::figure::Source;
use crate::host::Host;
use crate::journal::{Entry, Journal};
use crate::knob::How;
use crate::stats::{Ratio, SOLID_PAIRS};
use crate::tree::Tree;

/// The sides of a block, in their order: `true` is B.
const BLOCK: [bool; 4] = [false, true, true, false];

/// What is run, and how often.
pub struct Task<'a> {
    /// Where the figure comes from.
    pub source: Source<'a>,
    /// Blocks, of two pairs each.
    pub blocks: usize,
    /// The value of B; what the profile wants without.
    pub value: Option<String>,
    /// B is A: shows how far apart two runs of the same are.
    pub same: bool,
    /// The knob stays changed.
    pub keep: bool,
    /// Asked before each run: whether to stop, and put everything back.
    pub is_over: &'a dyn Fn() -> bool,
    /// Told each figure.
    pub tell: &'a dyn Fn(&str),
}

/// What was found.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// The knob's name.
    pub knob: String,
    /// So many places were changed together.
    pub places: usize,
    /// What they had.
    pub a: String,
    /// What they were given.
    pub b: String,
    /// Figures as it is and changed.
    pub pairs: Vec<(f64, f64)>,
    /// Compared.
    pub result: Ratio,
}

/// Measures.
///
/// # Errors
/// The knob cannot be changed or has the value already, or the command fails. Everything is as before then.
pub fn measure(
    tree: &Tree,
    host: &Host,
    findings: &[Finding],
    journal: &mut Journal,
    task: &Task<'_>,
) -> Result<Outcome> {
    let chosen = choose(findings, task)?;
    let first = chosen.first().ok_or_else(|| Error::new("measure: the host has no such device"))?;
    let a = first.current.clone().unwrap_or_default();
    let entries: Vec<Entry> = chosen
        .iter()
        .map(|finding| {
            let after = after(finding, task);
            entry(tree, host, finding, after)
        })
        .collect();
    let b = entries.first().map(|entry| entry.format.value(&entry.after)).unwrap_or_default();
    let earlier = journal.entries().to_vec();
    if !task.same {
        journal.will(entries.clone())?;
    }
    let pairs = run(tree, &entries, task);
    let is_kept = task.keep && pairs.is_ok();
    let set = set(tree, &entries, is_kept);
    if !task.same {
        finish(tree, host, journal, earlier, is_kept)?;
    }
    let pairs = pairs?;
    set?;
    let result = Ratio::of(&pairs, 1).ok_or_else(|| {
        Error::new("measure: the median without the change is 0: a figure that can be divided by is wanted")
    })?;
    Ok(Outcome { knob: first.knob.name.to_owned(), places: entries.len(), a, b, pairs, result })
}

/// Brings the journal to what is left: what was in it before, or with `keep` also this change.
fn finish(
    tree: &Tree,
    host: &Host,
    journal: &mut Journal,
    earlier: Vec<Entry>,
    is_kept: bool,
) -> Result<()> {
    if is_kept {
        return journal.made(|_| true, |_| false);
    }
    let is_back = |entry: &Entry| {
        // What was changed by an earlier `apply` is back when it has that value.
        let now = tree.read(&entry.path).unwrap_or_default();
        let old = earlier.iter().find(|old| old.path == entry.path && old.boot_id == host.boot_id);
        old.map_or_else(|| entry.is_before(&now), |old| old.is_ours(&now) || old.is_before(&now))
    };
    let stuck: Vec<Entry> =
        journal.entries().iter().filter(|entry| !is_back(entry)).cloned().collect();
    let is_stuck = |entry: &Entry| stuck.iter().any(|stuck| stuck.path == entry.path);
    let mut left: Vec<Entry> = earlier.into_iter().filter(|entry| !is_stuck(entry)).collect();
    left.extend(stuck.iter().cloned());
    journal.keep(left)
}

/// The places that are changed together.
fn choose<'a>(findings: &'a [Finding], task: &Task<'_>) -> Result<Vec<&'a Finding>> {
    let Some(first) = findings.first() else {
        return Err(Error::new(
            "measure: this host has no such device, or the profile does not want it: give --profile",
        ));
    };
    let name = first.knob.name;
    if first.knob.how != How::Write {
        return Err(Error::new(format!(
            "measure {name}: tune does not write it; see tune explain {name}"
        )));
    }
    let is_there =
        |finding: &&Finding| finding.current.is_some() && finding.status != Status::ReadOnly;
    let chosen: Vec<&Finding> = findings
        .iter()
        .filter(is_there)
        .filter(|finding| {
            task.same
                || task.value.is_some()
                || (finding.status == Status::Drift && !finding.in_vain)
        })
        .collect();
    if chosen.is_empty() {
        let reasons: Vec<&str> = findings.iter().map(|finding| finding.reason.as_str()).collect();
        let reason = reasons.iter().find(|reason| !reason.is_empty());
        let why = reason
            .unwrap_or(&"it has the wanted value already: give --value to compare with another");
        return Err(Error::new(format!("measure {name}: nothing can be changed: {why}")));
    }
    Ok(chosen)
}

fn after(finding: &Finding, task: &Task<'_>) -> String {
    let format = finding.knob.format;
    match (&task.value, &finding.want) {
        _ if task.same => format.text(&finding.text),
        (Some(value), _) => value.clone(),
        (None, Some(want)) => want.to_write(format, &finding.text),
        (None, None) => format.text(&finding.text),
    }
}

/// All blocks.
fn run(tree: &Tree, entries: &[Entry], task: &Task<'_>) -> Result<Vec<(f64, f64)>> {
    let mut pairs = Vec::new();
    for block in 1..=task.blocks {
        let mut figures = Vec::new();
        for changed in BLOCK {
            if (task.is_over)() {
                return Err(Error::new("measure: interrupted; everything is as before"));
            }
            set(tree, entries, changed)?;
            let figure = task.source.figure()?;
            let side = if changed { "B" } else { "A" };
            (task.tell)(&format!("block {block} of {}: {side} {figure}", task.blocks));
            figures.push(figure);
        }
        if let [a, b, later_b, later_a] = figures.as_slice() {
            pairs.extend([(*a, *b), (*later_a, *later_b)]);
        }
    }
    Ok(pairs)
}

/// Gives all places their value of this side, and reads it back.
fn set(tree: &Tree, entries: &[Entry], changed: bool) -> Result<()> {
    for entry in entries {
        let (value, other) =
            if changed { (&entry.after, &entry.before) } else { (&entry.before, &entry.after) };
        if tree.read(&entry.path).is_ok_and(|now| entry.format.same(&now, value)) {
            continue;
        }
        let wanted = Entry { before: other.clone(), after: value.clone(), ..entry.clone() };
        apply::write(tree, &wanted)
            .map_err(|reason| Error::new(format!("measure {}: {reason}", entry.knob)))?;
    }
    Ok(())
}

impl Outcome {
    /// For people.
    #[must_use]
    pub fn shown(&self) -> String {
        let Ratio { a, b, ratio, low, high, .. } = self.result;
        let few = self.result.pairs < SOLID_PAIRS + 1;
        let (name, pairs) = (&self.knob, self.pairs.len());
        let verdict = match () {
            () if few && !self.result.covers(1.0) => {
                "no difference shown: too few pairs; --blocks 4 are the least".to_owned()
            }
            () if !self.result.differs() => {
                "no difference shown: equal sides would often come out so far apart".to_owned()
            }
            () => format!(
                "B differs by {:+.1} %: whether that is better depends on what the figure is",
                (ratio - 1.0) * 100.0
            ),
        };
        let of_medians = self.result.of_medians.map_or_else(String::new, |of| {
            format!("; of the medians {:.4}, {:.4} to {:.4}", of.value, of.low, of.high)
        });
        format!(
            "{name}: A {} (median {a}), B {} (median {b}), {pairs} pairs, {} places\n\
             B / A = {ratio:.4}, 95 % interval {low:.4} to {high:.4}{of_medians}\n{verdict}\n",
            self.a, self.b, self.places
        )
    }
}
