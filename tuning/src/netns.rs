//! Whether `/sys/class/net` shows the devices of this thread's network namespace, and whether another one is still there.
//!
//! Settings by netlink and below `/proc/sys/net` follow the thread, while a mount of sysfs stays with the namespace that it was made
//! in: after a bare `unshare --net` or `nsenter --net` the two are of different ones, and to write a queue of `eth0` would
//! change somebody else's `eth0`. The kernel names neither in `/sys`, so names, numbers and counters are compared.
//! Invariant: when in doubt, they are not taken for one's own. Next: `tree`.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;

use rustix::net::{AddressFamily, SocketType, netdevice, socket};

use crate::tree::Tree;

/// Devices may come and go meanwhile, and counters be reset; that they are so often is no accident.
const TRIES: usize = 5;

/// Devices with the bytes that they have received, as this thread's namespace says it.
type Counters = BTreeMap<String, u64>;

/// Whether they are of another one.
pub(crate) fn is_sys_foreign(tree: &Tree) -> bool {
    (0..TRIES).all(|_| !is_own(tree).unwrap_or(true))
}

/// Directories where namespaces have names: of iproute2, of Docker.
const NAMED: &[&str] = &["/run/netns", "/var/run/docker/netns"];

/// Whether somebody is in a network namespace such as `net:[4026531840]`, or it has a name. One that only an open file or
/// socket holds is not found.
pub(crate) fn is_alive(tree: &Tree, name: &str) -> bool {
    let number = name.strip_prefix("net:[").and_then(|rest| rest.strip_suffix(']')?.parse().ok());
    let is_named = |dir: &&str| {
        let names = tree.list(dir).into_iter();
        let file = |name: String| fs::metadata(tree.real(&format!("{dir}/{name}"))).ok();
        number.is_some() && names.filter_map(file).any(|file| Some(file.ino()) == number)
    };
    let mut pids = tree.list("/proc").into_iter().filter(|pid| pid.parse::<u32>().is_ok());
    NAMED.iter().any(is_named)
        || pids.any(|pid| tree.link_name(&format!("/proc/{pid}/ns/net")).as_deref() == Some(name))
}

/// Whether they are of this one; nothing where it cannot be said, because there is no `/proc` or no `/sys`.
fn is_own(tree: &Tree) -> Option<bool> {
    let counters = || tree.text("/proc/thread-self/net/dev").map(|text| counters(&text));
    let before = counters()?;
    let there = tree.list("/sys/class/net").into_iter();
    let dir = |name: &str| format!("/sys/class/net/{name}");
    // Files such as bonding_masters are no devices.
    let there: Vec<String> =
        there.filter(|name| tree.exists(&format!("{}/ifindex", dir(name)))).collect();
    if there.is_empty() {
        return before.is_empty().then_some(true);
    }
    let received: Vec<Option<u64>> = there
        .iter()
        .map(|name| tree.number(&format!("{}/statistics/rx_bytes", dir(name))))
        .collect();
    let indices = there.iter().map(|name| tree.number(&format!("{}/ifindex", dir(name))));
    let are_numbers_equal = there.iter().zip(indices).all(|(name, there)| index(name) == there);
    let after = counters()?;
    let are_names_equal =
        there.len() == after.len() && there.iter().all(|name| after.contains_key(name));
    let are_counters_equal = there.iter().zip(received).all(|(name, there)| {
        let least = before.get(name).copied().unwrap_or(0);
        there.is_none_or(|there| {
            after.get(name).is_some_and(|most| (least..=*most).contains(&there))
        })
    });
    Some(are_names_equal && are_numbers_equal && are_counters_equal)
}

fn index(name: &str) -> Option<u64> {
    let any = socket(AddressFamily::UNIX, SocketType::DGRAM, None).ok()?;
    netdevice::name_to_index(any, name).ok().map(u64::from)
}

/// The first counter of each line `name: bytes packets …`, behind two lines of head.
fn counters(text: &str) -> Counters {
    let line = |line: &str| {
        let (name, rest) = line.rsplit_once(": ").or_else(|| line.rsplit_once(':'))?;
        let bytes = rest.split_whitespace().next()?.parse().ok()?;
        Some((name.trim().to_owned(), bytes))
    };
    text.lines().skip(2).filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_of_devices() {
        let text = "Inter-|   Receive\n face |bytes    packets\n    lo:    3245      30    0\n  eth0:101990453    3608 0\nveth:1: 7 1\n";
        let wanted = [("eth0", 101_990_453), ("lo", 3245), ("veth:1", 7)];
        assert_eq!(counters(text), wanted.map(|(name, bytes)| (name.to_owned(), bytes)).into());
        assert!(counters("").is_empty());
    }

    #[test]
    fn this_process_sees_its_own_devices() {
        assert!(!is_sys_foreign(&Tree::live()));
    }
}
