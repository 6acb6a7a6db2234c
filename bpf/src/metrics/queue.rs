//! Waiting: of packets for their device, and of the kernel's own work for a processor.
//!
//! Next: `prometheus`; the programs in `progs/queues.bpf.c`.

use libbpf_rs::Object;
use serde::Serialize;

use super::histogram::Histogram;
use super::{abi, maps};
use crate::error::Result;

/// All queues.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Queues {
    /// Packets given to devices.
    pub packets: u64,
    /// Theirs.
    pub bytes: u64,
    /// Those that did not wait, since their device has no queue, and those whose wait is not known: segments of larger ones,
    /// and what was not sampled.
    pub unpaired: u64,
    /// From the queueing discipline to the device.
    pub qdisc_ns: Histogram,
    /// From a soft interrupt raised to its start, of sending.
    pub softirq_tx_ns: Histogram,
    /// Of receiving.
    pub softirq_rx_ns: Histogram,
    /// Polls of devices.
    pub napi_polls: u64,
    /// Packets that they found.
    pub napi_packets: u64,
    /// Polls that used up their budget.
    pub napi_full: u64,
}

/// Reads all of it.
pub(super) fn read(object: &Object) -> Result<Queues> {
    let totals: abi::QueueTotals = maps::sum(object, "queues", 0)?;
    Ok(Queues {
        packets: totals.packets,
        bytes: totals.bytes,
        unpaired: totals.unpaired,
        qdisc_ns: Histogram::from(&totals.qdisc_ns),
        softirq_tx_ns: Histogram::from(&totals.softirq_tx_ns),
        softirq_rx_ns: Histogram::from(&totals.softirq_rx_ns),
        napi_polls: totals.napi_polls,
        napi_packets: totals.napi_packets,
        napi_full: totals.napi_full,
    })
}
