//! Sockets that listen: how long their queues are, how long they may be, and what they dropped.
//!
//! The kernel has no tracepoint for a full accept queue, and gives its drops no reason, so that the sockets themselves are
//! asked, and each network namespace for its counters. Both are as they are now, and counted from their begin, not from
//! ours. Invariants: the namespaces looked at are our own and those with a name, at most [`NAMESPACES_MAX`]; of each at most
//! [`SOCKETS_MAX`] sockets are read, and none but those that listen; at most [`LISTENERS_MAX`] addresses are told apart.
//! Next: `prometheus`; the program in `progs/listen.bpf.c`.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt as _;

use libbpf_rs::{Iter, Link};
use serde::Serialize;
use zerocopy::FromBytes as _;

use super::{Running, abi, flow};
use crate::error::{During as _, Result};
use crate::{netns, programs};

/// Addresses that are told apart.
pub const LISTENERS_MAX: usize = 50;
/// Network namespaces that are looked at.
pub const NAMESPACES_MAX: usize = 32;
/// Sockets that are read of one.
pub const SOCKETS_MAX: usize = 4096;

/// Where something listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Key {
    /// Address and port.
    pub local: SocketAddr,
    /// Number of the network namespace.
    pub netns: u32,
}

/// All sockets that listen at one address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Listener {
    /// Where.
    #[serde(flatten)]
    pub key: Key,
    /// How many there are: several by SO_REUSEPORT.
    pub sockets: u64,
    /// Connections that wait to be accepted.
    pub accept_queue: u64,
    /// How many may wait. The kernel lets one more in, and refuses openings that are not complete from as many on.
    pub accept_limit: u64,
    /// Openings that wait for the third packet.
    pub syn_queue: u64,
    /// Openings that were dropped since it listens, for a full queue or another reason.
    pub dropped: u64,
}

/// Counters of a network namespace, since it is there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Namespace {
    /// Its number.
    pub netns: u32,
    /// Openings that found the accept queue full.
    pub overflows: u64,
    /// Openings that were dropped, those among them.
    pub drops: u64,
    /// Openings that found the queue of openings full, and were dropped.
    pub syn_queue_drops: u64,
    /// Openings that found it full, and were answered with a cookie.
    pub syn_queue_cookies: u64,
}

/// All of it.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Listen {
    /// Those that dropped the most, then those with the longest queues.
    pub listeners: Vec<Listener>,
    /// All that were looked at.
    pub namespaces: Vec<Namespace>,
}

/// Makes ready to look.
pub(super) fn start() -> Result<Running> {
    let object = programs::load("listen")?;
    let link = programs::program(&object, "backlog")?
        .attach()
        .during(|| "attach the iterator of sockets that listen".to_owned())?;
    Ok(Running { links: vec![link], object })
}

/// Looks at all namespaces.
pub(super) fn read(links: &[Link]) -> Result<Listen> {
    let mut namespaces = BTreeMap::new();
    let mut sockets = Vec::new();
    let mut add = |(namespace, found): (Namespace, Vec<abi::Backlog>)| {
        let netns = namespace.netns;
        if namespaces.insert(netns, namespace).is_none() {
            sockets.extend(found.into_iter().map(|one| (netns, one)));
        }
    };
    add(here(links)?);
    for name in named() {
        // One that is gone by now, or no namespace, is no matter of ours.
        if let Ok(Ok(one)) = netns::within(Some(&name), || here(links)) {
            add(one);
        }
    }
    Ok(Listen { listeners: most_pressed(&sockets), namespaces: namespaces.into_values().collect() })
}

fn named() -> Vec<String> {
    let entries = fs::read_dir("/run/netns").into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    names.take(NAMESPACES_MAX - 1).collect()
}

/// The namespace of this thread.
fn here(links: &[Link]) -> Result<(Namespace, Vec<abi::Backlog>)> {
    let of = |path: &str| {
        fs::read_to_string(path).during(|| format!("read {path} for the drops of listeners"))
    };
    let number = fs::metadata("/proc/thread-self/ns/net")
        .during(|| "ask for the network namespace".to_owned())?
        .ino();
    let mut namespace = counters(&of("/proc/thread-self/net/netstat")?);
    namespace.netns = u32::try_from(number).unwrap_or_default();
    let mut found = Vec::new();
    for link in links {
        let doing = || "read the sockets that listen".to_owned();
        let mut iterator = Iter::new(link).during(doing)?;
        // The kernel goes on until so much is there to be read: one record.
        let mut record = [0; size_of::<abi::Backlog>()];
        while found.len() < SOCKETS_MAX {
            let len = iterator.read(&mut record).during(doing)?;
            match abi::Backlog::read_from_bytes(record.get(..len).unwrap_or_default()) {
                Ok(backlog) if backlog.is_end == 0 => found.push(backlog),
                _ => break,
            }
        }
    }
    Ok((namespace, found))
}

/// Of text as in `/proc/net/netstat`: for each protocol a line of names, and one of numbers.
fn counters(text: &str) -> Namespace {
    let mut all: BTreeMap<&str, u64> = BTreeMap::new();
    let lines: Vec<&str> = text.lines().collect();
    for pair in lines.chunks(2) {
        if let [names, numbers] = pair {
            let both = names.split_ascii_whitespace().zip(numbers.split_ascii_whitespace());
            all.extend(both.filter_map(|(name, number)| Some((name, number.parse().ok()?))));
        }
    }
    let of = |name: &str| all.get(name).copied().unwrap_or(0);
    Namespace {
        netns: 0,
        overflows: of("ListenOverflows"),
        drops: of("ListenDrops"),
        syn_queue_drops: of("TCPReqQFullDrop"),
        syn_queue_cookies: of("TCPReqQFullDoCookies"),
    }
}

fn most_pressed(sockets: &[(u32, abi::Backlog)]) -> Vec<Listener> {
    let mut by_key: BTreeMap<Key, Listener> = BTreeMap::new();
    for (netns, raw) in sockets {
        let key = Key { local: flow::address(raw.local, raw.port), netns: *netns };
        let all = by_key.entry(key).or_insert(Listener {
            key,
            sockets: 0,
            accept_queue: 0,
            accept_limit: 0,
            syn_queue: 0,
            dropped: 0,
        });
        all.sockets += 1;
        all.accept_queue += u64::from(raw.accept_queue);
        all.accept_limit += u64::from(raw.accept_limit);
        all.syn_queue += u64::from(raw.syn_queue);
        all.dropped += u64::from(raw.dropped);
    }
    let mut all: Vec<Listener> = by_key.into_values().collect();
    all.sort_by_key(|one| std::cmp::Reverse((one.dropped, one.accept_queue + one.syn_queue)));
    all.truncate(LISTENERS_MAX);
    all
}

#[cfg(test)]
mod tests {
    use super::{LISTENERS_MAX, abi, counters, most_pressed};

    #[test]
    fn sockets_of_one_address_are_one_and_the_most_pressed_are_shown() {
        let at = |port, dropped| abi::Backlog {
            port,
            dropped,
            accept_queue: 2,
            accept_limit: 5,
            ..abi::Backlog::default()
        };
        let mut sockets: Vec<_> = (1..=100).map(|port| (7, at(port, u32::from(port)))).collect();
        sockets.push((7, at(100, 1)));
        sockets.push((8, at(100, 3)));
        let all = most_pressed(&sockets);
        assert_eq!(all.len(), LISTENERS_MAX);
        let first = &all[0];
        assert_eq!((first.key.local.port(), first.key.netns, first.sockets), (100, 7, 2));
        assert_eq!((first.accept_queue, first.accept_limit, first.dropped), (4, 10, 101));
    }

    #[test]
    fn counters_are_found_by_their_names() {
        let text = "TcpExt: SyncookiesSent ListenOverflows ListenDrops\nTcpExt: 1 22 33\n\
            IpExt: InNoRoutes TCPReqQFullDrop\nIpExt: 0 4\nodd";
        let found = counters(text);
        assert_eq!((found.overflows, found.drops, found.syn_queue_drops), (22, 33, 4));
        assert_eq!(found.syn_queue_cookies, 0, "there is none");
    }
}
