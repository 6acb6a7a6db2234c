//! What only the kernel's command line changes: exported, never written. Next: `limits`.

use super::Profile;
use crate::cpus::CpuSet;
use crate::device::Medium;
use crate::format::Want;
use crate::gains::Gain;
use crate::knob::Desire::{By, Is};
use crate::knob::Profile::{Bench, Io, Latency};
use crate::knob::{Context, How, Knob, Place, Scope, Wish};

/// With fewer processors none can be spared for services alone.
const LEAST: usize = 4;

const QUIET: &[Profile] = &[Latency, Bench];

const BOOT: Knob = Knob {
    scope: Scope::Boot,
    how: How::Boot,
    gain: Gain::Not(
        "only a restart changes it: two sessions with the same load, one before and one behind it",
    ),
    ..Knob::BASE
};

pub(super) const KNOBS: &[Knob] = &[
    Knob {
        name: "boot.isolcpus",
        place: Place::Cmdline("isolcpus"),
        wants: &[(
            &[Latency],
            By("all processors but the first core, with four or more", isolated),
        )],
        what: "processors that the scheduler gives to nobody who does not ask for them by affinity",
        why: "no other process runs where a shard is pinned",
        source: "kernel admin-guide/kernel-parameters.txt; tuned cpu-partitioning",
        risk: "threads without an affinity share what is left: pin the service",
        ..BOOT
    },
    Knob {
        name: "boot.nohz_full",
        place: Place::Cmdline("nohz_full"),
        wants: &[(
            &[Latency],
            By("all processors but the first core, with four or more", isolated),
        )],
        what: "processors without a periodic tick while one thread runs there",
        why: "1 interruption a second instead of 250 to 1000",
        source: "kernel timers/no_hz.rst; tuned cpu-partitioning",
        risk: "each system call becomes dearer: for threads that poll, not for those that sleep often",
        ..BOOT
    },
    Knob {
        name: "boot.rcu_nocbs",
        place: Place::Cmdline("rcu_nocbs"),
        wants: &[(
            &[Latency],
            By("all processors but the first core, with four or more", isolated),
        )],
        what: "processors whose deferred work of the kernel is done elsewhere",
        why: "no callbacks run in between",
        source: "kernel RCU documentation; tuned cpu-partitioning",
        risk: "the other processors do more",
        ..BOOT
    },
    Knob {
        name: "boot.skew_tick",
        place: Place::Cmdline("skew_tick"),
        wants: &[(QUIET, Is("1"))],
        what: "whether the ticks of the processors are apart from each other",
        why: "at the same moment they contend for the same locks",
        source: "kernel admin-guide/kernel-parameters.txt; tuned network-latency",
        risk: "some more wake-ups: power",
        ..BOOT
    },
    Knob {
        name: "boot.nvme_poll_queues",
        place: Place::Cmdline("nvme.poll_queues"),
        wants: &[(&[Io], By("one for each processor up to 4, with NVMe", poll_queues))],
        what: "queues of an NVMe disk that are asked instead of interrupting, for io_uring's IOPOLL",
        why: "polled reads save the interrupt where an answer takes 10 microseconds",
        source: "kernel drivers/nvme/host/pci.c; io_uring_setup(2) IORING_SETUP_IOPOLL",
        risk: "queues that are polled are missing for others; a spinning processor",
        ..BOOT
    },
];

/// All that are on but the first core with its siblings.
fn isolated(context: &Context<'_>) -> Wish {
    if context.host.online.len() < LEAST {
        return Wish::NotHere(format!("fewer than {LEAST} processors: none can be spared"));
    }
    let first = context.host.online.iter().next().unwrap_or(0);
    let path = format!("/sys/devices/system/cpu/cpu{first}/topology/thread_siblings_list");
    let siblings = context.tree.text(&path).and_then(|text| CpuSet::from_list(&text));
    let siblings = siblings.unwrap_or_else(|| CpuSet::from_iter([first]));
    Wish::Want(Want::Is(context.host.online.without(&siblings).to_string()))
}

fn poll_queues(context: &Context<'_>) -> Wish {
    if !context.host.disks.iter().any(|disk| disk.medium == Medium::Nvme) {
        return Wish::NotHere("no NVMe disk".to_owned());
    }
    Wish::Want(Want::AtLeast(u64::try_from(context.host.cores.min(4)).unwrap_or(4)))
}
