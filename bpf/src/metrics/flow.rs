//! TCP connections: round-trip times, what was sent again, and who they belonged to.
//!
//! Invariants: at most [`FLOWS_MAX`] connections are told apart, those with the most segments; two of the same addresses in
//! one network namespace are one. Next: `prometheus`; the programs in `progs/tcp.bpf.c`.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use libbpf_rs::Object;
use serde::Serialize;

use super::histogram::Histogram;
use super::names::Names;
use super::{abi, maps};
use crate::error::Result;

/// Connections that are told apart.
pub const FLOWS_MAX: usize = 50;
/// Processes and control groups that are told apart, each.
pub const OWNERS_MAX: usize = 50;

/// Which connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Key {
    /// This host's end.
    pub local: SocketAddr,
    /// The other one.
    pub remote: SocketAddr,
    /// Number of the network namespace.
    pub netns: u32,
}

/// A connection; one that had to make room in the kernel's table of 4096, and came back, begins anew.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Flow {
    /// Which.
    #[serde(flatten)]
    pub key: Key,
    /// Process: the one that connected, or that listens; 0 while it is not known, as of what was there before the probes.
    pub pid: u32,
    /// Its name.
    pub comm: String,
    /// Segments received, of those looked at.
    pub segments: u64,
    /// Bytes that the peer acknowledged.
    pub bytes_sent: u64,
    /// Bytes received.
    pub bytes_received: u64,
    /// Segments sent again.
    pub retransmits: u64,
    /// Resets received.
    pub resets: u64,
    /// The smoothed round-trip time.
    pub srtt_us: u32,
    /// The least.
    pub rtt_min_us: u32,
    /// It has ended.
    pub is_closed: bool,
    /// Samples of the round-trip time.
    pub rtt_us: Histogram,
}

/// Connections that ended, of a process or a control group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Owner {
    /// Number of the process or the group.
    pub id: u64,
    /// Name of the process, or path of the group.
    pub name: String,
    /// How many ended.
    pub connections: u64,
    /// Theirs.
    pub bytes_sent: u64,
    /// Theirs.
    pub bytes_received: u64,
    /// Theirs.
    pub retransmits: u64,
}

/// All of TCP.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Tcp {
    /// Segments received on established connections, of those looked at.
    pub segments: u64,
    /// Segments sent again.
    pub retransmits: u64,
    /// Answers to openings sent again.
    pub synack_retransmits: u64,
    /// Resets received.
    pub resets_received: u64,
    /// Resets sent, by their reason.
    pub resets_sent: BTreeMap<String, u64>,
    /// Connections that this host opened.
    pub opened: u64,
    /// That it accepted.
    pub accepted: u64,
    /// Openings that failed.
    pub failed: u64,
    /// Connections that ended.
    pub closed: u64,
    /// Of those.
    pub bytes_sent: u64,
    /// Of those.
    pub bytes_received: u64,
    /// Samples of the round-trip time.
    pub rtt_us: Histogram,
    /// How long connections lived.
    pub lifetime_us: Histogram,
    /// Those with the most segments.
    pub flows: Vec<Flow>,
    /// Those with the most bytes.
    pub processes: Vec<Owner>,
    /// Those with the most bytes.
    pub cgroups: Vec<Owner>,
}

pub(super) fn address(octets: [u8; 16], port: u16) -> SocketAddr {
    let address = Ipv6Addr::from(octets);
    let address = address.to_ipv4_mapped().map_or(IpAddr::V6(address), IpAddr::V4);
    SocketAddr::new(address, port)
}

impl From<&abi::Flow> for Flow {
    fn from(raw: &abi::Flow) -> Self {
        Self {
            key: Key {
                local: address(raw.local, raw.local_port),
                remote: address(raw.remote, raw.remote_port),
                netns: raw.netns,
            },
            pid: raw.pid,
            comm: maps::text(&raw.comm),
            segments: raw.segments,
            bytes_sent: raw.bytes_sent,
            bytes_received: raw.bytes_received,
            retransmits: raw.retransmits.into(),
            resets: raw.resets.into(),
            srtt_us: raw.srtt_us,
            rtt_min_us: raw.rtt_min_us,
            is_closed: raw.is_closed != 0,
            rtt_us: Histogram::new(raw.rtt_sum_us, raw.rtt_us.map(u64::from).to_vec()),
        }
    }
}

impl Flow {
    /// Adds one of the same addresses; what is no sum is that of the one which lives.
    fn add(&mut self, other: Self) {
        let (mut sum, one) = if self.is_closed { (other, &*self) } else { (self.clone(), &other) };
        sum.segments += one.segments;
        sum.bytes_sent += one.bytes_sent;
        sum.bytes_received += one.bytes_received;
        sum.retransmits += one.retransmits;
        sum.resets += one.resets;
        sum.rtt_us.add(&one.rtt_us);
        *self = sum;
    }
}

/// Those that are there.
fn known(sets: &[abi::FlowSet]) -> Vec<abi::Flow> {
    let of = |set: &abi::FlowSet| set.cookies.into_iter().zip(set.flows);
    sets.iter().flat_map(of).filter(|(cookie, _)| *cookie != 0).map(|(_, flow)| flow).collect()
}

/// Those with the most segments, each of its addresses once.
fn busiest(raw: &[abi::Flow]) -> Vec<Flow> {
    let mut by_key: BTreeMap<Key, Flow> = BTreeMap::new();
    for flow in raw.iter().map(Flow::from) {
        match by_key.get_mut(&flow.key) {
            Some(known) => known.add(flow),
            None => {
                by_key.insert(flow.key, flow);
            }
        }
    }
    let mut flows: Vec<Flow> = by_key.into_values().collect();
    flows.sort_by_key(|flow| std::cmp::Reverse(flow.segments));
    flows.truncate(FLOWS_MAX);
    flows
}

fn owners<K: Into<u64>>(raw: Vec<(K, abi::TcpOwner)>) -> Vec<Owner> {
    let mut owners: Vec<Owner> = raw
        .into_iter()
        .map(|(id, raw)| Owner {
            id: id.into(),
            name: maps::text(&raw.comm),
            connections: raw.connections,
            bytes_sent: raw.bytes_sent,
            bytes_received: raw.bytes_received,
            retransmits: raw.retransmits,
        })
        .collect();
    owners.sort_by_key(|owner| std::cmp::Reverse(owner.bytes_sent + owner.bytes_received));
    owners.truncate(OWNERS_MAX);
    owners
}

/// Reads all of it.
pub(super) fn read(object: &Object, names: &Names) -> Result<Tcp> {
    let totals: abi::TcpTotals = maps::sum(object, "tcp", 0)?;
    let resets = maps::counters(object, "resets_sent")?.into_iter();
    Ok(Tcp {
        segments: totals.segments,
        retransmits: totals.retransmits,
        synack_retransmits: totals.synack_retransmits,
        resets_received: totals.resets_received,
        resets_sent: resets.map(|(reason, count)| (names.resets.of(reason), count)).collect(),
        opened: totals.opened,
        accepted: totals.accepted,
        failed: totals.failed,
        closed: totals.closed,
        bytes_sent: totals.bytes_sent,
        bytes_received: totals.bytes_received,
        rtt_us: Histogram::from(&totals.rtt_us),
        lifetime_us: Histogram::from(&totals.lifetime_us),
        flows: busiest(&known(&maps::values(object, "flows")?)),
        processes: owners(maps::sums::<u32, _>(object, "processes")?),
        cgroups: owners(maps::sums::<u64, _>(object, "cgroups")?),
    })
}

#[cfg(test)]
mod tests {
    use super::{FLOWS_MAX, abi, busiest};

    fn flow(port: u16, segments: u64) -> abi::Flow {
        let mut flow = abi::Flow { local_port: port, segments, ..abi::Flow::default() };
        flow.local[10..].copy_from_slice(&[0xff, 0xff, 10, 0, 0, 1]);
        flow.rtt_us[3] = 1;
        flow
    }

    #[test]
    fn the_busiest_are_shown_and_the_same_addresses_once() {
        let mut raw: Vec<_> = (1..=100).map(|port| flow(port, u64::from(port))).collect();
        raw.push(abi::Flow { is_closed: 1, pid: 5, ..flow(100, 7) });
        let flows = busiest(&raw);
        assert_eq!(flows.len(), FLOWS_MAX);
        assert_eq!(flows[0].key.local.to_string(), "10.0.0.1:100");
        assert_eq!((flows[0].segments, flows[0].rtt_us.count), (107, 2));
        assert!(!flows[0].is_closed, "one of them lives");
        assert_eq!(flows[49].segments, 51);
    }
}
