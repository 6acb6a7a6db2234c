//! Writes what differs: noted first, read back after.
//!
//! Invariants: nothing is called written that did not read back as it was written; what the kernel made something else of is put
//! back at once; what is as wanted already is not touched. Next: `journal`, `revert`.

use serde::Serialize;

use crate::check::{Finding, Status};
use crate::error::Result;
use crate::host::Host;
use crate::journal::{Entry, Journal};
use crate::knob::How;
use crate::tree::{NETLINK, Tree};

/// What became of one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Done {
    /// It is as wanted now, and was read back.
    Written,
    /// It would be written.
    WouldWrite,
    /// It was as wanted before.
    Unchanged,
    /// It is as it was, for the reason given.
    NotApplied,
}

impl Done {
    /// Its name in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Written => "written",
            Self::WouldWrite => "would write",
            Self::Unchanged => "unchanged",
            Self::NotApplied => "not applied",
        }
    }
}

/// What became of one place, with its values.
#[derive(Clone, Debug, Serialize)]
pub struct Change {
    /// The knob's name.
    pub knob: String,
    /// Which of several.
    pub instance: String,
    /// Its file.
    pub path: String,
    /// What it was.
    pub before: String,
    /// What was to be written.
    pub after: String,
    /// What became of it.
    pub done: Done,
    /// Why, where that is not plain.
    pub reason: String,
}

impl Change {
    fn of(finding: &Finding, done: Done) -> Self {
        Self {
            knob: finding.knob.name.to_owned(),
            instance: finding.instance.clone(),
            path: finding.path.clone(),
            before: finding.current.clone().unwrap_or_default(),
            after: finding.knob.format.value(&to_write(finding)),
            done,
            reason: finding.reason.clone(),
        }
    }
}

fn to_write(finding: &Finding) -> String {
    let format = finding.knob.format;
    let want = finding.want.as_ref();
    want.map_or_else(|| finding.text.clone(), |want| want.to_write(format, &finding.text))
}

/// Those that count: written by us, wanted, and there.
fn concerned(findings: &[Finding]) -> impl Iterator<Item = &Finding> {
    findings.iter().filter(|finding| {
        let counts = matches!(finding.status, Status::Ok | Status::Drift | Status::ReadOnly);
        finding.knob.how == How::Write && counts
    })
}

/// Whether to write it.
fn is_due(finding: &Finding) -> bool {
    finding.status == Status::Drift && !finding.in_vain
}

/// What [`apply`] would do.
#[must_use]
pub fn plan(findings: &[Finding]) -> Vec<Change> {
    let change = |finding: &Finding| {
        Change::of(
            finding,
            match finding.status {
                Status::Ok => Done::Unchanged,
                _ if is_due(finding) => Done::WouldWrite,
                _ => Done::NotApplied,
            },
        )
    };
    concerned(findings).map(change).collect()
}

/// The network namespace, for what each has of its own; none where `/sys` shows another one's devices.
#[must_use]
pub fn netns_of(tree: &Tree, path: &str) -> Option<String> {
    let of_netns = ["/proc/sys/net/", "/sys/class/net/", NETLINK];
    if !of_netns.iter().any(|start| path.starts_with(start)) {
        return None;
    }
    if path.starts_with("/sys/class/net/") && tree.is_sys_net_foreign() {
        return None;
    }
    tree.link_name("/proc/thread-self/ns/net")
}

/// The journal's line for this value of this place.
pub(crate) fn entry(tree: &Tree, host: &Host, finding: &Finding, after: String) -> Entry {
    let format = finding.knob.format;
    Entry {
        knob: finding.knob.name.to_owned(),
        path: finding.path.clone(),
        format,
        before: format.text(&finding.text),
        after,
        earlier: Vec::new(),
        boot_id: host.boot_id.clone(),
        kernel: host.kernel.clone(),
        netns: netns_of(tree, &finding.path),
    }
}

/// Writes what differs.
///
/// # Errors
/// The journal cannot be written; then nothing was changed, or it still leads back.
pub fn apply(
    tree: &Tree,
    host: &Host,
    findings: &[Finding],
    journal: &mut Journal,
) -> Result<Vec<Change>> {
    let due: Vec<Entry> = findings
        .iter()
        .filter(|finding| is_due(finding))
        .map(|finding| entry(tree, host, finding, to_write(finding)))
        .collect();
    if due.is_empty() {
        return Ok(plan(findings));
    }
    journal.will(due.clone())?;
    let mut changes = Vec::new();
    for finding in concerned(findings) {
        let Some(entry) = due.iter().find(|entry| entry.path == finding.path) else {
            changes.extend(plan(std::slice::from_ref(finding)));
            continue;
        };
        let mut change = Change::of(finding, Done::Written);
        if let Err(reason) = write(tree, entry) {
            change.done = Done::NotApplied;
            change.reason = reason;
        }
        changes.push(change);
    }
    let is = |entry: &Entry, done: Done| {
        changes.iter().any(|change| change.path == entry.path && change.done == done)
    };
    let is_undone = |entry: &Entry| {
        let now = tree.read(&entry.path);
        is(entry, Done::NotApplied) && now.is_ok_and(|now| entry.is_before(&now))
    };
    journal.made(|entry| is(entry, Done::Written), is_undone)?;
    Ok(changes)
}

/// Writes one value and reads it back. What became another value is put back.
pub(crate) fn write(tree: &Tree, entry: &Entry) -> std::result::Result<(), String> {
    if let Err(refused) = tree.write(&entry.path, &entry.after) {
        // Some settings bring others along, and refuse that they are written after.
        let is_so = tree.read(&entry.path).is_ok_and(|now| entry.format.same(&now, &entry.after));
        return if is_so { Ok(()) } else { Err(refused.reason().to_owned()) };
    }
    let Ok(now) = tree.read(&entry.path) else {
        return Err(format!("wrote {:?}, and cannot read it back", entry.after));
    };
    if entry.format.same(&now, &entry.after) {
        return Ok(());
    }
    let shown = entry.format.value(&now);
    if entry.is_before(&now) {
        return Err(format!("wrote {:?}, and it still reads {shown:?}", entry.after));
    }
    let back = tree.write(&entry.path, &entry.before);
    let back = back.map_or_else(|refused| refused.reason().to_owned(), |()| "put back".to_owned());
    Err(format!("wrote {:?}, and the kernel made it {shown:?}: {back}", entry.after))
}

/// The exit code: 0 as wanted, 2 it would change (when only planned), 3 in part, 4 nothing could be applied.
#[must_use]
pub fn verdict(changes: &[Change]) -> u8 {
    let count = |done: Done| changes.iter().filter(|change| change.done == done).count();
    let missing = count(Done::NotApplied);
    match (count(Done::WouldWrite), count(Done::Written), missing) {
        _ if changes.is_empty() => 4,
        (0, 0, 0) => 0,
        (0, 0, _) => 4,
        (1.., ..) => 2,
        (0, _, 0) => 0,
        (0, _, _) => 3,
    }
}
