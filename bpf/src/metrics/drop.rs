//! Packets that were dropped: why, and where in the kernel.
//!
//! A reason says little on its own (an opening refused by a full accept queue has none), so that the place is shown too.
//! Invariant: at most [`SITES_MAX`] places are told apart. Next: `prometheus`; the programs in `progs/drops.bpf.c`.

use std::collections::BTreeMap;

use libbpf_rs::Object;
use serde::Serialize;

use super::names::{Names, Numbered};
use super::{abi, maps};
use crate::error::Result;

/// Places that are told apart.
pub const SITES_MAX: usize = 50;
/// Reasons from here on are of others than the network stack's core: the kernel puts the owner into the high half.
const REASONS: u32 = 256;

/// Where packets were dropped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Site {
    /// Why.
    pub reason: String,
    /// In this function; empty if the kernel does not say.
    pub function: String,
    /// Its address.
    #[serde(skip)]
    pub address: u64,
    /// Of this protocol.
    pub protocol: String,
    /// How many.
    pub packets: u64,
}

/// All drops.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Drops {
    /// How many in all.
    pub packets: u64,
    /// By their reason.
    pub by_reason: BTreeMap<String, u64>,
    /// Those with the most packets.
    pub sites: Vec<Site>,
    /// Datagrams that did not get into their socket, by the name of the error.
    pub udp_failures: BTreeMap<String, u64>,
    /// Packets that found the receive queue of their socket full, by protocol.
    pub full_sockets: BTreeMap<String, u64>,
}

fn protocol(ethertype: u32) -> String {
    match ethertype {
        0x0800 => "ipv4".to_owned(),
        0x86dd => "ipv6".to_owned(),
        0x0806 => "arp".to_owned(),
        0 => "none".to_owned(),
        other => format!("{other:#06x}"),
    }
}

/// Above IP, or as the socket's family counts.
fn transport(number: u32) -> String {
    match number {
        0 => "other".to_owned(),
        1 => "icmp".to_owned(),
        6 => "tcp".to_owned(),
        17 => "udp".to_owned(),
        58 => "icmpv6".to_owned(),
        other => other.to_string(),
    }
}

fn errno(number: u32) -> String {
    match i32::try_from(number).unwrap_or(0) {
        libc::ENOMEM => "enomem".to_owned(),
        libc::ENOBUFS => "enobufs".to_owned(),
        other => other.to_string(),
    }
}

fn reason(number: u32, names: &Numbered) -> String {
    if number < REASONS - 1 { names.of(number) } else { "other_subsystem".to_owned() }
}

/// Reads all of it. Functions are not named yet.
pub(super) fn read(object: &Object, names: &Names) -> Result<Drops> {
    let by_reason: Vec<_> = maps::counters(object, "reasons")?;
    let mut sites: Vec<Site> = maps::sums::<abi::DropSite, u64>(object, "sites")?
        .into_iter()
        .map(|(site, packets)| Site {
            reason: reason(site.reason, &names.drops),
            function: String::new(),
            address: site.address,
            protocol: protocol(site.protocol),
            packets,
        })
        .collect();
    sites.sort_by_key(|site| std::cmp::Reverse(site.packets));
    sites.truncate(SITES_MAX);
    let named = |map: &str, name: fn(u32) -> String| -> Result<BTreeMap<String, u64>> {
        Ok(maps::counters(object, map)?.into_iter().map(|(index, n)| (name(index), n)).collect())
    };
    Ok(Drops {
        packets: by_reason.iter().map(|(_, packets)| packets).sum(),
        by_reason: by_reason
            .into_iter()
            .map(|(index, n)| (reason(index, &names.drops), n))
            .collect(),
        sites,
        udp_failures: named("udp_failures", errno)?,
        full_sockets: named("full_sockets", transport)?,
    })
}

#[cfg(test)]
mod tests {
    use super::{Numbered, protocol, reason};

    #[test]
    fn reasons_of_others_are_one() {
        let names: Numbered = [(3, "no_socket".to_owned())].into_iter().collect();
        assert_eq!(reason(3, &names), "no_socket");
        assert_eq!(reason(200, &names), "200", "one that this kernel does not name");
        assert_eq!(reason(0x1_0003, &names), "other_subsystem");
    }

    #[test]
    fn protocols_have_names() {
        assert_eq!([0x0800, 0x86dd, 0x88cc].map(protocol), ["ipv4", "ipv6", "0x88cc"]);
    }
}
