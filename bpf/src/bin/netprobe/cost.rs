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
    let own = account.own_ns()?;
    drop(account);
    bpf::say!("{:<28} {:>12} {:>10} {:>10} {:>8}", "program", "runs", "ns/run", "ns net", "missed");
    for cost in &costs {
        bpf::say!(
            "{:<28} {:>12} {:>10} {:>10} {:>8}",
            cost.program,
            cost.runs,
            cost.ns_per_run(),
            cost.ns_per_run().saturating_sub(own),
            cost.missed
        );
    }
    bpf::say!(
        "Net is without the account itself, which takes {own} ns a run; a program that runs seldom finds cold caches."
    );
    Ok(())
}
