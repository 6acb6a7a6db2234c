//! io_uring: latency of operations by opcode, and what goes wrong.
//!
//! Latency is from the submission to the first completion. Invariants: operations are counted exactly; at most
//! [`OWNERS_MAX`] processes are told apart. Next: `prometheus`; the programs in `progs/uring.bpf.c`.

use libbpf_rs::Object;
use serde::Serialize;

use super::histogram::Histogram;
use super::names::Names;
use super::{abi, maps};
use crate::error::Result;

/// Processes that are told apart.
pub const OWNERS_MAX: usize = 50;
/// Opcodes that the programs have a place for.
const OPCODES: u32 = 64;

/// Operations of one opcode.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Op {
    /// Its name: `send_zc`.
    pub opcode: String,
    /// Begun.
    pub submitted: u64,
    /// Given to a worker thread.
    pub punted: u64,
    /// From submission to completion.
    pub latency_ns: Histogram,
}

/// io_uring of a process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Owner {
    /// Number.
    pub pid: u32,
    /// Name.
    pub comm: String,
    /// Operations whose latency is known.
    pub measured: u64,
    /// Theirs, in sum.
    pub latency_ns: u64,
    /// Completions that found their queue full.
    pub overflows: u64,
    /// Operations given to a worker thread.
    pub punted: u64,
    /// Cancelled because the one before them failed.
    pub link_fails: u64,
}

/// All of io_uring.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Uring {
    /// Opcodes that were used.
    pub ops: Vec<Op>,
    /// Completions.
    pub completed: u64,
    /// Those that are not the first of a submission which was looked at.
    pub unpaired: u64,
    /// Completions that found their queue full.
    pub overflows: u64,
    /// Operations cancelled because the one before them failed.
    pub link_fails: u64,
    /// Those with the most operations.
    pub processes: Vec<Owner>,
}

/// Reads all of it.
pub(super) fn read(object: &Object, names: &Names) -> Result<Uring> {
    let totals: abi::UringTotals = maps::sum(object, "totals", 0)?;
    let mut ops = Vec::new();
    for opcode in 0..OPCODES {
        let raw: abi::UringOp = maps::sum(object, "ops", opcode)?;
        if raw.submitted > 0 {
            ops.push(Op {
                opcode: names.opcodes.of(opcode),
                submitted: raw.submitted,
                punted: raw.punted,
                latency_ns: Histogram::from(&raw.latency_ns),
            });
        }
    }
    let mut processes: Vec<Owner> = maps::sums::<u32, abi::UringOwner>(object, "owners")?
        .into_iter()
        .map(|(pid, raw)| Owner {
            pid,
            comm: maps::text(&raw.comm),
            measured: raw.measured,
            latency_ns: raw.latency_ns,
            overflows: raw.overflows,
            punted: raw.punted,
            link_fails: raw.link_fails,
        })
        .collect();
    processes.sort_by_key(|owner| std::cmp::Reverse(owner.measured + owner.overflows));
    processes.truncate(OWNERS_MAX);
    Ok(Uring {
        ops,
        completed: totals.completed,
        unpaired: totals.unpaired,
        overflows: totals.overflows,
        link_fails: totals.link_fails,
        processes,
    })
}
