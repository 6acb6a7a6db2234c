//! `netprobe --cost`: what each program takes of the host, by the kernel's own account.

use std::time::Duration;

use bpf::error::Result;
use bpf::metrics::Probe;
use bpf::metrics::cost::Account;

use crate::Stop;

/// Keeps account for a while, and prints it.
pub(crate) fn run(probe: &Probe, duration: Option<Duration>, stop: &Stop) -> Result<()> {
    let account = Account::open()?;
    stop.wait(duration);
    let costs = probe.costs();
    drop(account);
    bpf::say!(
        "{:<28} {:>12} {:>10} {:>14} {:>8}",
        "program",
        "runs",
        "ns/run",
        "ns in all",
        "missed"
    );
    for cost in &costs {
        bpf::say!(
            "{:<28} {:>12} {:>10} {:>14} {:>8}",
            cost.program,
            cost.runs,
            cost.ns_per_run(),
            cost.run_time_ns,
            cost.missed
        );
    }
    bpf::say!("A run's figure has the two clock reads of the account itself in it.");
    Ok(())
}
