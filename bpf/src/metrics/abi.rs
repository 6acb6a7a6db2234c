//! Structs that the probes and this process share: the twins of `progs/probe.h`, whose sizes both sides assert.
//!
//! Invariant: all are plain sums but for [`Flow`], so that what processors counted apart is added. Next: `mod`.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::abi::{Selector, shared};

/// Bucket i counts values of i bits; the last one all that is larger.
pub const BUCKETS: usize = 32;
/// The same of one flow, of microseconds.
pub const FLOW_BUCKETS: usize = 24;
/// Bytes of the name of a process.
pub const COMM_MAX: usize = 16;

shared! {
    /// What the programs are told before they are loaded.
    Config: 8 {
        /// One event of so many is looked at.
        sample_every: u32,
        /// Zero.
        unused: u32,
    }
}

shared! {
    /// Values by their number of bits.
    Histogram: 264 {
        /// Of the values.
        sum: u64,
        /// How many.
        buckets: [u64; BUCKETS],
    }
}

shared! {
    /// A TCP connection.
    Flow: 232 {
        /// When it began, of CLOCK_MONOTONIC.
        begin_ns: u64,
        /// Number of its control group.
        cgroup: u64,
        /// Segments received and looked at.
        segments: u64,
        /// Bytes that the peer acknowledged.
        bytes_sent: u64,
        /// Bytes received.
        bytes_received: u64,
        /// When the segment was sent that gave the last sample.
        rtt_stamp: u64,
        /// Of the samples.
        rtt_sum_us: u64,
        /// Address, version 6; those of version 4 are mapped.
        local: [u8; 16],
        /// The peer's.
        remote: [u8; 16],
        /// Port.
        local_port: u16,
        /// The peer's.
        remote_port: u16,
        /// Number of the network namespace.
        netns: u32,
        /// Process, or 0 while it is not known.
        pid: u32,
        /// Smoothed round-trip time.
        srtt_us: u32,
        /// The least one.
        rtt_min_us: u32,
        /// Segments sent again.
        retransmits: u32,
        /// Resets received.
        resets: u32,
        /// `AF_INET` or `AF_INET6`.
        family: u8,
        /// It has ended.
        is_closed: u8,
        /// Zero.
        unused: [u8; 2],
        /// Samples of the round-trip time by their bits.
        rtt_us: [u32; FLOW_BUCKETS],
        /// Name of the process.
        comm: [u8; COMM_MAX],
    }
}

/// Connections that share an entry of their table.
pub const WAYS: usize = 4;

shared! {
    /// Connections that share an entry of their table.
    FlowSet: 960 {
        /// Of each, its number, or 0 for none.
        cookies: [u64; WAYS],
        /// Each.
        flows: [Flow; WAYS],
    }
}

shared! {
    /// A socket that listens.
    Backlog: 40 {
        /// Address, version 6; those of version 4 are mapped.
        local: [u8; 16],
        /// Port.
        port: u16,
        /// `AF_INET` or `AF_INET6`.
        family: u16,
        /// Connections that wait to be accepted.
        accept_queue: u32,
        /// How many may.
        accept_limit: u32,
        /// Openings that wait for the third packet.
        syn_queue: u32,
        /// Openings that were dropped.
        dropped: u32,
        /// There are no more that listen.
        is_end: u32,
    }
}

shared! {
    /// TCP of the whole host.
    TcpTotals: 608 {
        /// Segments received and looked at.
        segments: u64,
        /// Segments sent again.
        retransmits: u64,
        /// Answers to openings sent again.
        synack_retransmits: u64,
        /// Resets received.
        resets_received: u64,
        /// Connections that this host opened.
        opened: u64,
        /// Connections that it accepted.
        accepted: u64,
        /// Openings that failed.
        failed: u64,
        /// Connections that ended.
        closed: u64,
        /// Of those.
        bytes_sent: u64,
        /// Of those.
        bytes_received: u64,
        /// Round-trip times.
        rtt_us: Histogram,
        /// Of those that ended.
        lifetime_us: Histogram,
    }
}

shared! {
    /// Connections that ended, of a process or a control group.
    TcpOwner: 48 {
        /// How many.
        connections: u64,
        /// Theirs.
        bytes_sent: u64,
        /// Theirs.
        bytes_received: u64,
        /// Theirs.
        retransmits: u64,
        /// Name of the process.
        comm: [u8; COMM_MAX],
    }
}

shared! {
    /// Where packets were dropped.
    DropSite: 16 {
        /// In the kernel's code.
        address: u64,
        /// Number of the reason.
        reason: u32,
        /// EtherType.
        protocol: u32,
    }
}

shared! {
    /// Queues of the whole host.
    QueueTotals: 840 {
        /// Given to devices.
        packets: u64,
        /// Theirs.
        bytes: u64,
        /// Not seen when they were queued.
        unpaired: u64,
        /// Polls of devices.
        napi_polls: u64,
        /// Packets that they found.
        napi_packets: u64,
        /// Polls that left some behind.
        napi_full: u64,
        /// From the queue to the device.
        qdisc_ns: Histogram,
        /// From raised to entered, of sending.
        softirq_tx_ns: Histogram,
        /// Of receiving.
        softirq_rx_ns: Histogram,
    }
}

shared! {
    /// Operations of one opcode.
    UringOp: 280 {
        /// Begun.
        submitted: u64,
        /// Given to a worker thread.
        punted: u64,
        /// From submission to completion.
        latency_ns: Histogram,
    }
}

shared! {
    /// io_uring of the whole host.
    UringTotals: 32 {
        /// Completions.
        completed: u64,
        /// Those whose submission was not seen.
        unpaired: u64,
        /// That found their queue full.
        overflows: u64,
        /// Operations cancelled because the one before them failed.
        link_fails: u64,
    }
}

shared! {
    /// io_uring of a process.
    UringOwner: 56 {
        /// Operations whose latency is known.
        measured: u64,
        /// Theirs, in sum.
        latency_ns: u64,
        /// Completions that found their queue full.
        overflows: u64,
        /// Given to a worker thread.
        punted: u64,
        /// Cancelled because the one before them failed.
        link_fails: u64,
        /// Name.
        comm: [u8; COMM_MAX],
    }
}

shared! {
    /// What the program that copies packets is told; see `progs/pcap.bpf.c`.
    Capture: 56 {
        /// Which.
        selector: Selector,
        /// Bytes before the network header.
        l2_len: u32,
        /// Bytes that are copied, or 0 for no packets.
        snaplen: u32,
    }
}

shared! {
    /// In front of the bytes of a packet.
    Captured: 16 {
        /// Of CLOCK_MONOTONIC.
        at_ns: u64,
        /// Bytes of the packet.
        len: u32,
        /// Of those that follow.
        kept: u32,
    }
}

/// What is counted by processor, and added.
pub trait Sum: Copy + Default + FromBytes {
    /// Both together.
    #[must_use]
    fn and(self, other: Self) -> Self;
}

macro_rules! sums {
    ($($type:ident { $($field:ident),* } $($keeps:ident)?;)*) => {
        $(impl Sum for $type {
            fn and(self, other: Self) -> Self {
                Self {
                    $($field: self.$field.and(other.$field),)*
                    $($keeps: if self.$keeps[0] == 0 { other.$keeps } else { self.$keeps },)?
                }
            }
        })*
    };
}

impl Sum for u64 {
    fn and(self, other: Self) -> Self {
        self.wrapping_add(other)
    }
}

impl<const N: usize> Sum for [u64; N]
where
    Self: Default + FromBytes,
{
    fn and(self, other: Self) -> Self {
        std::array::from_fn(|i| self[i].wrapping_add(other[i]))
    }
}

sums! {
    Histogram { sum, buckets };
    TcpTotals {
        segments, retransmits, synack_retransmits, resets_received, opened, accepted, failed, closed,
        bytes_sent, bytes_received, rtt_us, lifetime_us
    };
    TcpOwner { connections, bytes_sent, bytes_received, retransmits } comm;
    QueueTotals {
        packets, bytes, unpaired, napi_polls, napi_packets, napi_full, qdisc_ns, softirq_tx_ns, softirq_rx_ns
    };
    UringOp { submitted, punted, latency_ns };
    UringTotals { completed, unpaired, overflows, link_fails };
    UringOwner { measured, latency_ns, overflows, punted, link_fails } comm;
}
