//! Queues of disks. Source throughout: the kernel's `ABI/stable/sysfs-block` and `block/`. Next: `memory`.

use super::Profile;
use crate::device::Medium;
use crate::format::{Format, Want};
use crate::gains::Gain;
use crate::knob::Desire::{AtLeast, By, Is};
use crate::knob::Profile::{Bench, Io, Latency, Throughput};
use crate::knob::{Context, Knob, Of, Place, Scope, Wish};
use crate::tree::Tree;

const QUICK: &[Profile] = &[Io, Latency, Bench];

const QUEUE: Knob = Knob {
    scope: Scope::Device,
    gain: Gain::Not(
        "depends on the disk, and wants one of its own: tune measure KNOB -- with what the service does to it",
    ),
    ..Knob::BASE
};

pub(super) const KNOBS: &[Knob] = &[
    Knob {
        name: "block.scheduler",
        place: Place::Disk("scheduler"),
        format: Format::Choice,
        wants: &[(
            &[Io, Latency, Throughput, Bench],
            By("none on flash, mq-deadline on a rotating disk", scheduler),
        )],
        what: "who orders requests before the device gets them",
        why: "flash has queues of its own and no head to move: sorting costs CPU and a lock",
        source: "kernel block/switching-sched.rst; perftune (seastar) none, noop",
        risk: "no fairness between processes, and no io.weight of BFQ",
        ..QUEUE
    },
    Knob {
        name: "block.nomerges",
        place: Place::Disk("nomerges"),
        wants: &[(&[Io], By("2 on flash", no_merges))],
        what: "whether requests next to each other are looked for and joined: 0 yes, 1 simple ones only, 2 no",
        why: "for a service that writes large blocks itself, or small ones at random, the search finds nothing",
        source: "kernel ABI/stable/sysfs-block; perftune (seastar) 2",
        risk: "more requests where others write small blocks in order",
        ..QUEUE
    },
    Knob {
        name: "block.rq_affinity",
        place: Place::Disk("rq_affinity"),
        wants: &[(QUICK, Is("2"))],
        what: "where a request completes: 1 on a processor near the one that asked, 2 on that very one",
        why: "a completion where the thread waits finds its data in the cache and wakes nobody else",
        source: "kernel ABI/stable/sysfs-block; Netflix 2017 2",
        risk: "an interrupt between processors where the device has few queues",
        ..QUEUE
    },
    Knob {
        name: "block.wbt_lat_usec",
        place: Place::Disk("wbt_lat_usec"),
        wants: &[(&[Io, Bench], By("0 on flash, where there is a limit now", no_throttle))],
        what: "the read latency that background writes are held back for, in microseconds; 0 for never",
        why: "a service that paces its own writes is held back by a guess about its device",
        source: "kernel ABI/stable/sysfs-block",
        risk: "reads wait behind a flood of writeback from other processes",
        ..QUEUE
    },
    Knob {
        name: "block.read_ahead_kb",
        place: Place::Disk("read_ahead_kb"),
        wants: &[(&[Throughput], AtLeast(4096))],
        what: "how far the kernel reads ahead of a reader that goes through a file in order",
        why: "long reads from the start of a log or a file reach the device's bandwidth",
        source: "tuned throughput-performance 4096",
        risk: "memory and bandwidth for reads that are only nearly in order",
        ..QUEUE
    },
    Knob {
        name: "block.add_random",
        place: Place::Disk("add_random"),
        wants: &[(QUICK, Is("0"))],
        what: "whether completions feed the kernel's random numbers",
        why: "work for each request; the kernel has had other sources for long",
        source: "kernel ABI/stable/sysfs-block",
        risk: "none since Linux 5.18",
        ..QUEUE
    },
];

fn medium(context: &Context<'_>) -> Option<Medium> {
    let Of::Disk(disk) = context.of else { return None };
    Some(disk.medium)
}

fn rotates() -> Wish {
    Wish::NotHere("a rotating disk: short queues and joined requests are what it needs".to_owned())
}

fn scheduler(context: &Context<'_>) -> Wish {
    let names: &[&str] = match medium(context) {
        Some(Medium::Rotating) => &["mq-deadline", "deadline", "bfq"],
        _ => &["none", "noop"],
    };
    Wish::Want(Want::OneOf(names.iter().map(|name| (*name).to_owned()).collect()))
}

fn no_merges(context: &Context<'_>) -> Wish {
    match medium(context) {
        Some(Medium::Rotating) => rotates(),
        _ => Wish::Want(Want::Is("2".to_owned())),
    }
}

fn no_throttle(context: &Context<'_>) -> Wish {
    let Of::Disk(disk) = context.of else { return rotates() };
    // A write to a queue without the throttle is refused by the kernel.
    let file: fn(&Tree, &str) -> Option<i64> = |tree, name| {
        tree.text(&format!("/sys/block/{name}/queue/wbt_lat_usec"))?.trim().parse().ok()
    };
    match (disk.medium, file(context.tree, &disk.name)) {
        (Medium::Rotating, _) => rotates(),
        (_, Some(now)) if now < 0 => Wish::NotHere("this queue has no such limit".to_owned()),
        _ => Wish::Want(Want::Is("0".to_owned())),
    }
}
