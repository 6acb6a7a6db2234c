//! What on this host costs an engine speed, one line each: for the log at its start.
//!
//! Only rows of the table that say what they cost are looked at, and no devices or other processes, so it takes a few dozen
//! small reads. Invariants: nothing is written, nothing fails; what cannot be read is not mentioned. Next: `knobs`.

use crate::check::{Options, Status, check_knob};
use crate::host::Host;
use crate::knob::{Knob, Profile};
use crate::knobs;
use crate::tree::Tree;

/// A note for each setting of this host that costs an engine speed or connections; none when all is well.
#[must_use]
pub fn startup_notes() -> Vec<String> {
    notes(&Tree::live())
}

/// The same, of a recorded host.
#[must_use]
pub fn notes(tree: &Tree) -> Vec<String> {
    let host = Host::brief(tree);
    knobs::all()
        .filter(|knob| !knob.cost.is_empty())
        .filter_map(|knob| note(tree, &host, knob))
        .collect()
}

/// The profile that has the row's bound for services in general.
const PROFILES: &[Profile] = &[Profile::Throughput, Profile::Latency, Profile::Io];

fn note(tree: &Tree, host: &Host, knob: &'static Knob) -> Option<String> {
    let profile = PROFILES.iter().copied().find(|profile| knob.desire(*profile).is_some())?;
    let options = Options { profile, host_too: true };
    let findings = check_knob(tree, host, options, knob);
    let differs =
        |status: Status| matches!(status, Status::Drift | Status::ReadOnly | Status::Note);
    // One of several processors stands for all.
    let finding = findings.into_iter().find(|finding| differs(finding.status))?;
    let (current, desired) = (finding.current?, finding.desired?);
    Some(format!(
        "{} is {current}, {desired} is better: {} (tune explain {})",
        knob.name, knob.cost, knob.name
    ))
}
