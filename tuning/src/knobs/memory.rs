//! Memory: writeback, swapping, huge pages, placement, and counts of things that engines need many of. Next: `cpu`.

use super::{HOSTS, Profile};
use crate::format::{Format, Want};
use crate::gains::{Gain, Trial};
use crate::knob::Desire::{AtLeast, AtMost, By, Is, OneOf};
use crate::knob::Profile::{Bench, Io, Latency, Throughput};
use crate::knob::{Context, How, Knob, Place, Wish};
use crate::load::Load;

const QUIET: &[Profile] = &[Latency, Bench];
const SHORT: &[Profile] = &[Latency, Io];

const MEMORY: Knob = Knob {
    gain: Gain::Not(
        "shows when memory is short or over hours, by what the service does: tune measure KNOB -- with its load",
    ),
    ..Knob::BASE
};

pub(super) const KNOBS: &[Knob] = &[
    Knob {
        name: "vm.swappiness",
        wants: &[(HOSTS, AtMost(10))],
        what: "how readily memory of processes is swapped out rather than cached files dropped",
        why: "a page of a service that comes back from disk is a stall of milliseconds",
        source: "tuned 10, rpk 1, Netflix 0: guides differ, and all hold with at most 10",
        risk: "with 0 the kernel may kill a process before it swaps",
        ..MEMORY
    },
    Knob {
        name: "vm.dirty_background_ratio",
        wants: &[(SHORT, By("<= 3 where vm.dirty_background_bytes is not used", background))],
        what: "share of memory in percent that may be dirty before the kernel begins to write it",
        why: "writing begins early, in small parts, and never much at once",
        source: "kernel admin-guide/sysctl/vm.rst; tuned latency-performance 3",
        risk: "files that are soon deleted are written after all",
        ..MEMORY
    },
    Knob {
        name: "vm.dirty_ratio",
        wants: &[
            (SHORT, By("<= 10 where vm.dirty_bytes is not used", foreground)),
            (&[Throughput], By(">= 40 where vm.dirty_bytes is not used", plenty)),
        ],
        what: "share of memory in percent that may be dirty before a process that writes has to wait for the disk",
        why: "little keeps the wait short, much lets long writes go on from memory",
        source: "kernel admin-guide/sysctl/vm.rst; tuned latency-performance 10, throughput-performance 40",
        risk: "much: more is lost in a power failure, and a sync takes longer; little: writers wait sooner",
        ..MEMORY
    },
    Knob {
        name: "vm.transparent_hugepage",
        place: Place::File("/sys/kernel/mm/transparent_hugepage/enabled"),
        format: Format::Choice,
        wants: &[(HOSTS, OneOf(&["madvise", "never"]))],
        what: "whether memory of processes comes in pages of 2 MiB without their asking",
        why: "always makes half-used buffers large and compacts memory at bad moments; madvise serves who asks",
        source: "kernel admin-guide/mm/transhuge.rst; Netflix 2017 madvise, tuned network-latency never, rpk always: guides differ",
        risk: "programs that never ask lose large pages; measure",
        cost: "memory grows by half-used huge pages, and compaction stalls threads",
        ..MEMORY
    },
    Knob {
        name: "vm.transparent_hugepage_defrag",
        place: Place::File("/sys/kernel/mm/transparent_hugepage/defrag"),
        format: Format::Choice,
        wants: &[(QUIET, OneOf(&["defer+madvise", "madvise", "defer", "never"]))],
        what: "whether a page fault waits while memory is compacted for a huge page",
        why: "a fault that compacts takes milliseconds",
        source: "kernel admin-guide/mm/transhuge.rst",
        risk: "fewer huge pages",
        ..MEMORY
    },
    Knob {
        name: "kernel.numa_balancing",
        wants: &[(QUIET, By("0 with two NUMA nodes or more", unbalanced))],
        what: "whether the kernel takes pages away for a moment to see which node uses them, and moves them there",
        why: "threads that are pinned and allocate for themselves only pay for the faults",
        source: "kernel admin-guide/sysctl/kernel.rst; tuned network-latency 0",
        risk: "programs that are not pinned stay far from their memory",
        gain: Gain::Not("wants two NUMA nodes: tune measure KNOB -- on such a machine"),
        ..MEMORY
    },
    Knob {
        name: "vm.zone_reclaim_mode",
        wants: &[(HOSTS, Is("0"))],
        what: "whether a node that is full drops its cache rather than use another node's memory",
        why: "files that are served are worth more in a far node than on disk",
        source: "kernel admin-guide/sysctl/vm.rst",
        risk: "none: it is the default",
        ..MEMORY
    },
    Knob {
        name: "vm.stat_interval",
        wants: &[(QUIET, AtLeast(10))],
        what: "seconds between two collections of memory statistics on each processor",
        why: "one interruption less a second on a processor that should have none",
        source: "kernel admin-guide/sysctl/vm.rst; tuned cpu-partitioning 10",
        risk: "figures of /proc/vmstat are older",
        gain: Gain::By(Trial::of(Load::RoundTrips)),
        ..MEMORY
    },
    Knob {
        name: "vm.compaction_proactiveness",
        wants: &[(QUIET, Is("0"))],
        what: "how much memory is compacted in the background, before somebody needs it",
        why: "it moves pages of running programs, each with an interruption of the processors that use them",
        source: "kernel admin-guide/sysctl/vm.rst, which warns of the latency",
        risk: "huge pages are harder to get later",
        gain: Gain::By(Trial::of(Load::RoundTrips)),
        ..MEMORY
    },
    Knob {
        name: "vm.max_map_count",
        wants: &[(&[Latency, Throughput, Io, Bench], AtLeast(262_144))],
        what: "separate mappings of memory that a process may have",
        why: "each mapped file and each buffer is one; beyond it mmap fails as if memory had run out",
        source: "kernel admin-guide/sysctl/vm.rst; Elasticsearch and Kafka documentation 262144",
        risk: "none: a bound, not an allocation",
        cost: "mappings of files and buffers fail when there are many",
        gain: Gain::Not("a bound: below it nothing changes, beyond it requests fail"),
        ..MEMORY
    },
    Knob {
        name: "fs.aio-max-nr",
        wants: &[(&[Latency, Throughput, Io, Bench], AtLeast(1_048_576))],
        what: "requests of the older asynchronous interface (io_setup) of the whole host",
        why: "seastar and databases take thousands for each processor, and fail to start without",
        source: "kernel admin-guide/sysctl/fs.rst; perftune (seastar), rpk 1048576",
        risk: "some kernel memory for each that is used",
        cost: "neighbours that use Linux AIO may fail to start; io_uring does not need it",
        gain: Gain::Not("a bound: below it nothing changes, beyond it requests fail"),
        ..MEMORY
    },
    Knob {
        name: "fs.nr_open",
        wants: &[(HOSTS, AtLeast(1_048_576))],
        what: "the highest limit of open files that a process can be given",
        why: "each connection is one; limits above this are refused",
        source: "kernel admin-guide/sysctl/fs.rst",
        risk: "none: a bound, not an allocation",
        gain: Gain::Not("a bound: below it nothing changes, beyond it requests fail"),
        ..MEMORY
    },
    Knob {
        name: "vm.nr_hugepages",
        how: How::Tell(
            "memory that is set aside is missing elsewhere: only who runs the service knows how much it needs",
        ),
        what: "pages of 2 MiB that are set aside for programs that ask for them by name",
        why: "large buffers that are registered once need fewer entries of the TLB",
        source: "kernel admin-guide/mm/hugetlbpage.rst",
        risk: "memory that nobody else can use",
        ..MEMORY
    },
];

/// A ratio is 0 while bytes are given instead, and writing it would take those back.
fn unless_bytes(context: &Context<'_>, bytes: &str, want: Want) -> Wish {
    let path = format!("/proc/sys/vm/{bytes}");
    match context.tree.number(&path).filter(|bytes| *bytes > 0) {
        Some(set) => Wish::NotHere(format!("vm.{bytes} is {set} and counts instead")),
        None => Wish::Want(want),
    }
}

fn background(context: &Context<'_>) -> Wish {
    unless_bytes(context, "dirty_background_bytes", Want::AtMost(3))
}

fn foreground(context: &Context<'_>) -> Wish {
    unless_bytes(context, "dirty_bytes", Want::AtMost(10))
}

fn plenty(context: &Context<'_>) -> Wish {
    unless_bytes(context, "dirty_bytes", Want::AtLeast(40))
}

fn unbalanced(context: &Context<'_>) -> Wish {
    if context.host.nodes.len() < 2 {
        return Wish::NotHere("one NUMA node: nothing is moved".to_owned());
    }
    Wish::Want(Want::Is("0".to_owned()))
}
