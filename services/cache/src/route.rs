//! Which shard owns a key, and how clients see the shards as a cluster.
//!
//! Each shard owns one contiguous range of the 16,384 hash slots and shows as one node with its
//! own port. Invariant: the ranges cover every slot once; ids depend only on the seed and the
//! shard's index, so they survive a restart. Clones share what shards listen to: the one thing here that changes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use logic::slot::key_slot;

/// Number of hash slots.
pub const SLOTS: u16 = 16_384;

/// The shards of this host, as clients may reach them.
#[derive(Clone, Debug)]
pub struct Topology {
    host: String,
    ports: Vec<u16>,
    ids: Vec<String>,
    /// What connections of each shard listen to, as bits.
    hearing: Arc<[AtomicU8]>,
}

impl Topology {
    /// One node per port. `host` is announced to connections that came in by no address of their
    /// own (Unix sockets); `seed` makes the node ids.
    #[must_use]
    pub fn new(host: &str, ports: Vec<u16>, seed: u64) -> Self {
        let ids = (0..ports.len() as u64).map(|index| node_id(seed, index)).collect();
        let hearing = ports.iter().map(|_| AtomicU8::new(0)).collect();
        Self { host: host.into(), ports, ids, hearing }
    }

    /// Number of shards, at least one.
    #[must_use]
    pub fn shards(&self) -> u16 {
        u16::try_from(self.ports.len()).unwrap_or(u16::MAX).max(1)
    }

    /// The announced host.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// A shard's own port, 0 when it has none.
    #[must_use]
    pub fn port(&self, shard: u16) -> u16 {
        self.ports.get(usize::from(shard)).copied().unwrap_or(0)
    }

    /// A shard's node id.
    #[must_use]
    pub fn id(&self, shard: u16) -> &str {
        self.ids.get(usize::from(shard)).map_or("", String::as_str)
    }

    /// The shard that owns a slot.
    #[inline]
    #[must_use]
    pub fn owner_of_slot(&self, slot: u16) -> u16 {
        owner(slot, self.shards())
    }

    /// The shard that owns a key. With one shard the key is not looked at.
    #[inline]
    #[must_use]
    pub fn owner_of(&self, key: &[u8]) -> u16 {
        match self.shards() {
            1 => 0,
            shards => owner(key_slot(key), shards),
        }
    }

    /// Sets what connections of a shard listen to. All shards see it before the connection is told.
    pub(crate) fn set_hearing(&self, shard: u16, bits: u8) {
        if let Some(hearing) = self.hearing.get(usize::from(shard)) {
            hearing.store(bits, Ordering::SeqCst);
        }
    }

    /// The shards other than `except` that listen to any of these.
    pub(crate) fn hearing(&self, bits: u8, except: u16) -> Vec<u16> {
        let shards = (0..).zip(self.hearing.iter());
        let hears = |hearing: &AtomicU8| hearing.load(Ordering::SeqCst) & bits != 0;
        shards
            .filter(|&(shard, hearing)| shard != except && hears(hearing))
            .map(|(shard, _)| shard)
            .collect()
    }

    /// First and last slot of a shard.
    #[must_use]
    pub fn range(&self, shard: u16) -> (u16, u16) {
        (first_slot(shard, self.shards()), first_slot(shard + 1, self.shards()) - 1)
    }
}

#[inline]
fn owner(slot: u16, shards: u16) -> u16 {
    let owner = u32::from(slot % SLOTS) * u32::from(shards) / u32::from(SLOTS);
    u16::try_from(owner).unwrap_or(0)
}

fn first_slot(shard: u16, shards: u16) -> u16 {
    let first = (u32::from(shard) * u32::from(SLOTS)).div_ceil(u32::from(shards));
    u16::try_from(first).unwrap_or(SLOTS)
}

/// Forty hexadecimal digits from the seed and the index.
fn node_id(seed: u64, index: u64) -> String {
    let mut id = String::with_capacity(48);
    for word in 0..3_u64 {
        id.push_str(&format!("{:016x}", mix(seed ^ mix(index * 3 + word + 1))));
    }
    id.truncate(40);
    id
}

/// The finalizer of SplitMix64.
const fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_cover_every_slot_once() {
        for shards in [1_u16, 2, 3, 5, 7, 16, 64] {
            let topology = Topology::new("127.0.0.1", vec![0; usize::from(shards)], 1);
            let mut next = 0;
            for shard in 0..shards {
                let (first, last) = topology.range(shard);
                assert_eq!(first, next);
                for slot in first..=last {
                    assert_eq!(topology.owner_of_slot(slot), shard);
                }
                next = last + 1;
            }
            assert_eq!(next, SLOTS);
        }
    }

    #[test]
    fn ids_are_stable_distinct_and_forty_digits_long() {
        let one = Topology::new("h", vec![1, 2, 3], 42);
        let two = Topology::new("h", vec![7, 8, 9], 42);
        assert_eq!(one.id(2), two.id(2));
        assert_ne!(one.id(0), one.id(1));
        assert!(one.id(0).len() == 40 && one.id(0).bytes().all(|byte| byte.is_ascii_hexdigit()));
        assert_ne!(one.id(0), Topology::new("h", vec![1], 43).id(0));
    }
}
