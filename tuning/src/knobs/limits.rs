//! Limits of processes: set by whoever starts them, such as systemd. Next: `security`.

use super::EVERY;
use crate::knob::Desire::AtLeast;
use crate::knob::{How, Knob, Place, Scope};

const LIMIT: Knob = Knob { scope: Scope::Process, how: How::Start, ..Knob::BASE };

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
];
