//! The single-fault sweep: the first thing that can fail fails, then the second, and so on, until
//! a run has no such thing any more. Every path that handles an error is taken once.

use crate::run::{Failure, Options, run};

/// What a sweep did.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sweep {
    /// Runs with one failed completion.
    pub completions: u64,
    /// Runs with one failed call.
    pub calls: u64,
}

/// Sweeps over a calm run of `seed`, failing every `stride`-th completion.
///
/// # Errors
/// A run did not survive its fault.
pub fn sweep(seed: u64, stride: u64) -> Result<Sweep, Failure> {
    let mut done = Sweep::default();
    let calm = Options { calm: true, ..Options::default() };
    let mut n = 1;
    loop {
        let report = run(seed, Options { fail_completion: Some(n), ..calm })?;
        if report.stats.ordered_failures == 0 {
            break;
        }
        done.completions += 1;
        n += stride;
    }
    for n in 1.. {
        let report = run(seed, Options { fail_call: Some(n), ..calm })?;
        if report.stats.ordered_failures == 0 {
            break;
        }
        done.calls += 1;
    }
    Ok(done)
}
