//! Takes back what the journal says was changed, where it is still so.
//!
//! Invariants: a value that somebody else has set since is left alone and reported; what could not be taken back stays in the
//! journal; doing it twice is harmless; only settings of the table are written, whatever a journal says. Next: `journal`.

use serde::Serialize;

use crate::apply::netns_of;
use crate::error::Result;
use crate::journal::{Entry, Journal};
use crate::netns;
use crate::tree::{NETLINK, Tree};

/// What became of one entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Done {
    /// It is as before, and was read back.
    Restored,
    /// It was as before: never written, or taken back already.
    AsBefore,
    /// It went with a restart of the machine, or with its device.
    Gone,
    /// Somebody else has changed it since.
    Conflict,
    /// It is of another network namespace.
    Elsewhere,
    /// The same, and nobody is in that namespace any more, as far as can be seen.
    Deserted,
    /// It is no change that `apply` makes: the journal is of another version, or not ours.
    Unknown,
    /// The kernel refused.
    Failed,
}

impl Done {
    /// Its name in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Restored => "restored",
            Self::AsBefore => "as before",
            Self::Gone => "gone by itself",
            Self::Conflict => "conflict",
            Self::Elsewhere => "elsewhere",
            Self::Deserted => "deserted",
            Self::Unknown => "unknown",
            Self::Failed => "failed",
        }
    }
}

/// What became of one entry, with its values.
#[derive(Clone, Debug, Serialize)]
pub struct Step {
    /// The knob's name.
    pub knob: String,
    /// Its file.
    pub path: String,
    /// What it was at the start of this.
    pub current: Option<String>,
    /// What it was before `apply`.
    pub before: String,
    /// What `apply` wrote.
    pub after: String,
    /// What became of it.
    pub done: Done,
    /// Why, where that is not plain.
    pub reason: String,
}

impl Step {
    /// Whether something is still to be done.
    const fn is_left(&self, forget: bool) -> bool {
        match self.done {
            Done::Restored | Done::AsBefore | Done::Gone => false,
            Done::Conflict | Done::Deserted | Done::Unknown => !forget,
            Done::Elsewhere | Done::Failed => true,
        }
    }
}

/// Takes everything back, the last first. With `forget`, what cannot be taken back is left as it is for good: what is in conflict,
/// of a namespace that nobody is in, or unknown.
///
/// # Errors
/// The journal cannot be written.
pub fn revert(
    tree: &Tree,
    boot_id: &str,
    journal: &mut Journal,
    forget: bool,
) -> Result<Vec<Step>> {
    let entries: Vec<Entry> = journal.entries().to_vec();
    let mut steps: Vec<Step> =
        entries.iter().rev().map(|entry| take_back(tree, boot_id, entry)).collect();
    // Some settings lock others: what was refused may go now that the rest is back.
    for (step, entry) in steps.iter_mut().zip(entries.iter().rev()) {
        if step.done == Done::Failed {
            *step = take_back(tree, boot_id, entry);
        }
    }
    let keeps = |step: &Step| step.is_left(forget);
    let left = entries.into_iter().rev().zip(&steps).filter(|(_, step)| keeps(step));
    let mut left: Vec<Entry> = left.map(|(entry, _)| entry).collect();
    left.reverse();
    journal.keep(left)?;
    Ok(steps)
}

fn take_back(tree: &Tree, boot_id: &str, entry: &Entry) -> Step {
    let mut step = Step {
        knob: entry.knob.clone(),
        path: entry.path.clone(),
        current: None,
        before: entry.format.value(&entry.before),
        after: entry.format.value(&entry.after),
        done: Done::Gone,
        reason: String::new(),
    };
    if entry.boot_id != boot_id {
        "the machine was started anew since".clone_into(&mut step.reason);
        return step;
    }
    if !entry.is_of_table() {
        step.done = Done::Unknown;
        "no setting that apply writes: left alone, --forget drops it from the journal"
            .clone_into(&mut step.reason);
        return step;
    }
    if entry.netns.is_some() && entry.netns != netns_of(tree, &entry.path) {
        if !netns::is_alive(tree, entry.netns.as_deref().unwrap_or_default()) {
            step.done = Done::Deserted;
            step.reason = format!(
                "of the network namespace {}, which no process and no name has: --forget drops it from the journal",
                entry.netns.as_deref().unwrap_or_default()
            );
            return step;
        }
        step.done = Done::Elsewhere;
        step.reason = format!(
            "of the network namespace {}: run it there, with a /sys of its own",
            entry.netns.as_deref().unwrap_or_default()
        );
        return step;
    }
    let Ok(now) = tree.read(&entry.path) else {
        step.reason = if entry.path.starts_with(NETLINK) {
            "the device does not have it any more".to_owned()
        } else {
            format!("no {} any more", entry.path)
        };
        return step;
    };
    step.current = Some(entry.format.value(&now));
    (step.done, step.reason) = if entry.is_before(&now) {
        (Done::AsBefore, String::new())
    } else if entry.is_ours(&now) {
        restore(tree, entry)
    } else {
        let reason =
            "changed by somebody else since: left alone, --forget drops it from the journal";
        (Done::Conflict, reason.to_owned())
    };
    step
}

fn restore(tree: &Tree, entry: &Entry) -> (Done, String) {
    if let Err(refused) = tree.write(&entry.path, &entry.before) {
        return (Done::Failed, refused.reason().to_owned());
    }
    match tree.read(&entry.path) {
        Ok(now) if entry.is_before(&now) => (Done::Restored, String::new()),
        Ok(now) => (
            Done::Failed,
            format!("wrote {:?}, and it reads {:?}", entry.before, entry.format.value(&now)),
        ),
        Err(_) => (Done::Failed, "written, and cannot be read back".to_owned()),
    }
}

/// The exit code: 0 all is as before, 3 something is left.
#[must_use]
pub fn verdict(steps: &[Step], forget: bool) -> u8 {
    if steps.iter().any(|step| step.is_left(forget)) { 3 } else { 0 }
}
