//! What a machine is, as far as figures depend on it: the fingerprint in every report.
//!
//! Three parts. [`Identity`] decides whether figures of two files may be compared: processor, kernel, its command line,
//! mitigations, clock source, governor, huge pages, control groups, what files lie on. [`Software`] says what was measured: a
//! change of it is what one wants to see, so it is shown and decides nothing. [`Conditions`] are as they happen to be (pressure,
//! stolen time, load), at the start and at the end. Network devices are named and decide nothing, since every trial is on loopback.
//! Invariants: everything is read below a root ([`Tree`]), so a recorded machine has the fingerprint it had; an identity holds
//! nothing that changes by itself, no path and no name of the host. Next: `read`, `differ`, `crate::gate`.

mod differ;
mod read;

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};
use tuning::tree::Tree;

pub use differ::{Difference, differences};
pub(crate) use read::{pressure_us, stolen_ticks};

/// What is said where the kernel does not say it.
const UNKNOWN: &str = "unknown";

/// All of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Fingerprint {
    /// A number for the identity: equal where figures may be compared.
    pub id: String,
    /// What decides that.
    pub identity: Identity,
    /// What was measured and by what.
    pub software: Software,
    /// Network devices, which loads on loopback do not meet.
    pub network_devices: Vec<String>,
    /// When the run began.
    pub start: Conditions,
    /// When it ended.
    pub end: Option<Conditions>,
}

/// What decides whether figures may be compared.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Identity {
    /// Model of the processor.
    pub cpu_model: String,
    /// A number for its features, whatever their order.
    pub cpu_flags: String,
    /// Revision of its microcode.
    pub microcode: String,
    /// Processors, sockets, threads of a core, NUMA nodes.
    pub topology: String,
    /// Memory, in GiB: its bytes differ from start to start.
    pub memory_gib: u64,
    /// The hypervisor, or that there is none.
    pub virtual_machine: String,
    /// The kernel's release.
    pub kernel: String,
    /// A number for its command line.
    pub kernel_cmdline: String,
    /// What is done about each weakness of the processor.
    pub mitigations: BTreeMap<String, String>,
    /// What the kernel reads the time from.
    pub clocksource: String,
    /// Who chooses the processor's frequency.
    pub governor: String,
    /// Whether it may go above its nominal one.
    pub boost: String,
    /// How idle processors sleep.
    pub idle_driver: String,
    /// Transparent huge pages, and what is done to get them.
    pub huge_pages: String,
    /// What packets go over.
    pub network: String,
    /// The queue of devices that choose none.
    pub qdisc: String,
    /// Congestion control of TCP.
    pub congestion: String,
    /// Whether both sides had SCHED_FIFO.
    pub fifo: bool,
    /// What control groups leave.
    pub cgroup: String,
    /// The file system that data was on and how it is mounted; none where no files were measured.
    pub data: Option<String>,
    /// Settings that `tune` has changed and that are still so.
    pub tuning: String,
    /// How this program was compiled: one without optimisation is another load.
    pub bench_profile: String,
}

/// What was measured, and by what.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Software {
    /// Revision of the source tree this program lies in.
    pub git: String,
    /// The compiler.
    pub rustc: String,
    /// Features this program was built with.
    pub features: String,
    /// What it was built for.
    pub target: String,
    /// Servers that took part: what each says of its version and of how it was built.
    pub peers: BTreeMap<String, String>,
}

/// How it happened to be at a moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Conditions {
    /// Seconds since the Unix epoch.
    pub unix_s: u64,
    /// The load average.
    pub load: String,
    /// Time in which somebody waited for a processor since the start of the machine; none where the kernel does not count.
    pub cpu_pressure_us: Option<u64>,
    /// The same for memory.
    pub memory_pressure_us: Option<u64>,
    /// The same for disks.
    pub io_pressure_us: Option<u64>,
    /// The share of the last ten seconds in which somebody waited for a processor, in per cent.
    pub cpu_pressure_percent: Option<f64>,
    /// Time the hypervisor took from all processors since the start of the machine.
    pub stolen_ms: u64,
}

/// What the harness itself says of a run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Run<'a> {
    /// Trials are in a network namespace of their own.
    pub own_network: bool,
    /// Both sides have SCHED_FIFO.
    pub fifo: bool,
    /// The default queue of the host's own namespace, which others do not show.
    pub qdisc: Option<&'a str>,
}

impl Fingerprint {
    /// That of the machine whose files `tree` has.
    #[must_use]
    pub fn read(tree: &Tree, run: Run<'_>) -> Self {
        let mut fingerprint = Self {
            id: String::new(),
            identity: read::identity(tree, run),
            software: Software {
                git: if tree.is_live() { read::revision() } else { UNKNOWN.to_owned() },
                rustc: env!("BENCH_RUSTC").to_owned(),
                features: env!("BENCH_FEATURES").to_owned(),
                target: env!("BENCH_TARGET").to_owned(),
                peers: BTreeMap::new(),
            },
            network_devices: read::network_devices(tree),
            start: Conditions::now(tree),
            end: None,
        };
        fingerprint.renumber();
        fingerprint
    }

    /// The same with files in `dir` as what is measured.
    pub fn on_data(&mut self, tree: &Tree, dir: &Path) {
        self.identity.data = Some(read::file_system(tree, dir));
        self.renumber();
    }

    /// Notes how it is now that the run is over.
    pub fn close(&mut self, tree: &Tree) {
        self.end = Some(Conditions::now(tree));
    }

    fn renumber(&mut self) {
        // What is encoded cannot fail: strings, numbers and maps of strings.
        self.id = read::number(&serde_json::to_string(&self.identity).unwrap_or_default());
    }

    /// One line for people.
    #[must_use]
    pub fn line(&self) -> String {
        let identity = &self.identity;
        let weak = identity.mitigations.values().filter(|text| text.starts_with("Vulnerable"));
        let mut line = format!(
            "fingerprint {}: {}, microcode {}, {}, Linux {}, {} of {} weaknesses open, clock {}, governor {}, huge pages {}, {}, {}",
            self.id,
            identity.cpu_model,
            identity.microcode,
            identity.topology,
            identity.kernel,
            weak.count(),
            identity.mitigations.len(),
            identity.clocksource,
            identity.governor,
            identity.huge_pages,
            identity.network,
            identity.congestion,
        );
        for part in [identity.data.as_ref(), Some(&identity.cgroup), Some(&identity.tuning)] {
            line.extend(part.map(|part| format!(", {part}")));
        }
        line.push_str(&format!("; bench {} of {}", identity.bench_profile, self.software.git));
        line
    }

    /// What happened during the run by others, in a line; none while it goes on.
    #[must_use]
    pub fn during(&self) -> Option<String> {
        let end = self.end.as_ref()?;
        let wall_s = end.unix_s.saturating_sub(self.start.unix_s).max(1) as f64;
        let share = |from: Option<u64>, to: Option<u64>| {
            let us = to?.checked_sub(from?)?;
            Some(format!("{:.0} %", us as f64 / wall_s / 1e4))
        };
        let start = &self.start;
        let shares = [
            ("a processor", share(start.cpu_pressure_us, end.cpu_pressure_us)),
            ("memory", share(start.memory_pressure_us, end.memory_pressure_us)),
            ("a disk", share(start.io_pressure_us, end.io_pressure_us)),
        ];
        let shares =
            shares.into_iter().filter_map(|(what, share)| Some(format!("{what} {}", share?)));
        let shares: Vec<String> = shares.collect();
        let waited = if shares.is_empty() {
            "the kernel does not count who waits".to_owned()
        } else {
            format!("somebody waited for {} of the time", shares.join(", "))
        };
        let stolen_ms = end.stolen_ms.saturating_sub(start.stolen_ms);
        Some(format!(
            "in {wall_s:.0} s {waited}; the hypervisor took {stolen_ms} ms; load {} to {}",
            start.load, end.load
        ))
    }
}

impl Conditions {
    /// How it is.
    #[must_use]
    pub fn now(tree: &Tree) -> Self {
        read::conditions(tree)
    }
}

#[cfg(test)]
mod tests;
