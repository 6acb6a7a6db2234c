//! Limits of processes and control groups: set by whoever starts them, such as systemd or Kubernetes. Next: `security`.

use super::EVERY;
use crate::format::Want;
use crate::gains::Gain;
use crate::host::Host;
use crate::knob::Desire::{AtLeast, By};
use crate::knob::{Context, How, Knob, Place, Scope, Wish};
use crate::tree::Tree;

const LIMIT: Knob = Knob {
    scope: Scope::Process,
    how: How::Start,
    gain: Gain::Not("a bound: below it nothing changes, beyond it requests fail"),
    ..Knob::BASE
};

pub(super) const KNOBS: &[Knob] = &[
    Knob {
        name: "limit.nofile",
        place: Place::Limit("Max open files"),
        wants: &[(EVERY, AtLeast(1_048_576))],
        what: "files and connections that a process may have open: the hard limit, up to which it may raise its own",
        why: "each connection is one; at the limit accept fails and new clients wait",
        source: "getrlimit(2), systemd.exec(5) LimitNOFILE",
        risk: "old programs that close every possible file at their start take long",
        cost: "connections beyond it are not accepted",
        ..LIMIT
    },
    Knob {
        name: "limit.memlock",
        place: Place::Limit("Max locked memory"),
        wants: &[(EVERY, AtLeast(67_108_864))],
        what: "bytes that a process may lock into memory: the hard limit",
        why: "buffers that are registered with io_uring count, and before Linux 5.12 the rings too",
        source: "getrlimit(2), io_uring_register(2), systemd.exec(5) LimitMEMLOCK",
        risk: "a process can take memory that cannot be swapped",
        cost: "buffers cannot be registered with io_uring, and are copied or pinned for each operation",
        ..LIMIT
    },
    Knob {
        name: "limit.nproc",
        place: Place::Limit("Max processes"),
        wants: &[(EVERY, AtLeast(4096))],
        what: "threads that a user may have: the hard limit",
        why: "each shard, and each worker of io_uring that waits for a disk, is one",
        source: "getrlimit(2), systemd.exec(5) LimitNPROC",
        risk: "a program that forks without end gets further",
        cost: "threads and io_uring workers cannot be started",
        ..LIMIT
    },
    Knob {
        name: "cgroup.cpu_quota",
        place: Place::Derived(
            "cpu.max or cpu.cfs_quota_us of the control group, and of those above it",
            quota,
        ),
        scope: Scope::Cgroup,
        how: How::Tell(
            "set by whoever runs the container: whole processors by a cpuset serve better, in Kubernetes the static CPU manager policy",
        ),
        wants: &[(EVERY, By("none, or time of all processors that may be used", no_quota))],
        what: "processors whose time the control group may use in each period of usually 100 ms",
        why: "when it is used up all threads stand still for the rest of the period, whatever they are answering",
        source: "kernel scheduler/sched-bwc.rst, admin-guide/cgroup-v2.rst",
        risk: "without: neighbours get less when this one is busy",
        cost: "all threads stand still when it is used up: start no more shards than that",
        gain: Gain::Not(
            "set by whoever runs the container; nr_throttled in cpu.stat counts what it costs",
        ),
        ..Knob::BASE
    },
];

fn quota(_: &Tree, host: &Host) -> Option<String> {
    Some(host.limits.quota.map_or_else(|| "none".to_owned(), |quota| quota.to_string()))
}

fn no_quota(context: &Context<'_>) -> Wish {
    let all = context.host.allowed.len();
    let is_enough = |quota: f64| u32::try_from(all).is_ok_and(|all| quota >= f64::from(all));
    match context.host.limits.quota {
        Some(quota) if is_enough(quota) => Wish::Want(Want::Is(quota.to_string())),
        _ => Wish::Want(Want::Is("none".to_owned())),
    }
}
