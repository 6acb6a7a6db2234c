//! What a reader must know beside the figures of a cell: disturbances, who set the pace, what was missed.
//!
//! Next: `text` and `html`, which print them.

use crate::compare::Outcome;
use crate::load::trial::Limit;
use crate::rounds::{Noise, Reasons};
use crate::steady::Steadiness;

/// Above this share of time waiting for the CPU, a trial was disturbed.
const WAIT_SHARE_MAX: f64 = 0.05;
/// Above this share of foreign time on the server's core, likewise.
const FOREIGN_SHARE_MAX: f64 = 0.10;

/// What is said of rounds that were run again, and of those that count although they were disturbed.
#[must_use]
pub fn disturbance(repeated: usize, disturbed: usize, noise: &Noise) -> Option<String> {
    if repeated == 0 && disturbed == 0 {
        return None;
    }
    let why = |reasons: &Reasons| {
        if reasons.is_none() { String::new() } else { format!(" ({reasons})") }
    };
    Some(format!(
        "{repeated} rounds with {} trials were run again because of noise{}; {disturbed} rounds count although there was some{}",
        noise.dropped_trials,
        why(&noise.dropped),
        why(&noise.counted),
    ))
}

/// What a reader of a cell must know beside its figures.
#[must_use]
pub fn notes(cell: &Outcome) -> Vec<String> {
    let mut notes = Vec::new();
    notes.extend(disturbance(cell.repeated, cell.disturbed, &cell.noise));
    if let Some(same) = cell.same.filter(|same| same.ratio.is_solid() && !same.ratio.covers(1.0)) {
        notes.push(format!(
            "equal servers came out {:.3} apart: smaller differences mean nothing here",
            same.ratio.ratio
        ));
    }
    for side in &cell.sides {
        if let Some(why) = &side.failed {
            notes.push(format!("{} did not run: {why}", side.label));
        }
        let trials: Vec<_> =
            side.samples.iter().filter_map(|sample| sample.trial.as_ref()).collect();
        if trials.is_empty() {
            continue;
        }
        let mut changes = trials.iter().filter_map(|trial| match &trial.steadiness {
            Steadiness::Changed(change) => Some(change),
            _ => None,
        });
        if let Some(first) = changes.next() {
            notes.push(format!(
                "{}: {} of {} trials that count were not steady, the first: {first}",
                side.label,
                changes.count() + 1,
                trials.len()
            ));
        }
        let count = |limit| trials.iter().filter(|trial| trial.limit == limit).count();
        let client = count(Limit::Client);
        if client * 2 > trials.len() {
            notes.push(format!(
                "{}: the client was the limit in {client} of {} trials (its core {:.0} % busy); \
                 rates and latencies are the client's, CPU per operation is the server's",
                side.label,
                trials.len(),
                trials.iter().map(|trial| trial.client_busy).sum::<f64>() * 100.0
                    / trials.len() as f64
            ));
        }
        let missed: u64 = trials.iter().map(|trial| trial.missed).sum();
        if missed > 0 {
            notes.push(format!("{}: {missed} arrivals were missed", side.label));
        }
        let lag = trials.iter().map(|trial| trial.lag.p99_ns).max().unwrap_or_default();
        if lag > 0 {
            notes.push(format!("{}: schedule lag p99 at most {lag} ns", side.label));
        }
        let disturbed = trials
            .iter()
            .filter(|trial| trial.server_wait > WAIT_SHARE_MAX || trial.foreign > FOREIGN_SHARE_MAX)
            .count();
        if disturbed > 0 {
            notes.push(format!(
                "{}: other work was on the server's core in {disturbed} of {} trials",
                side.label,
                trials.len()
            ));
        }
    }
    notes
}
