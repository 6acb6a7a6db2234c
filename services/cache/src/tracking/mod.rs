//! Client-side caching: which clients have read which keys, and telling them when those change.
//!
//! Clients are remembered on the shard of their connection, before a command of theirs leaves for the shard of its
//! keys; a shard that changes a key tells every other shard on which somebody tracks. So a client is told at least
//! once about each change after its read. Invariant: the table holds at most `tracking-table-max-keys` keys, whose
//! clients are told when they are dropped for lack of room.
//! Next: `tell.rs` for the messages, `enable.rs` for CLIENT TRACKING, `events.rs` for who says that keys change.

mod enable;
mod tell;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use wire::resp::Args;

use crate::{command::row, command::row::Row, shard::Shard};
pub(crate) use enable::{Follows, Track, Wanted};

/// A name of a key, or the start of one.
type Name = Box<[u8]>;

/// Where invalidations go instead of to the client itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    shard: u16,
    slot: u32,
    pub(crate) id: u64,
}

/// One client that tracks.
#[derive(Debug, Default)]
pub(crate) struct Tracker {
    slot: u32,
    pub(crate) redirect: Option<Target>,
    /// The client to which it redirects has gone.
    pub(crate) broken: bool,
    pub(crate) bcast: bool,
    pub(crate) optin: bool,
    pub(crate) optout: bool,
    pub(crate) noloop: bool,
    /// CLIENT CACHING came just before.
    pub(crate) caching: bool,
    pub(crate) prefixes: BTreeSet<Name>,
}

impl Tracker {
    /// Whether the keys of the next read are remembered.
    const fn remembers(&self) -> bool {
        !(self.bcast || self.optin && !self.caching || self.optout && self.caching)
    }
}

/// Clients that want to know of all keys that begin alike, and the keys that have changed.
#[derive(Debug, Default)]
struct Prefix {
    clients: BTreeSet<u64>,
    /// With the client that changed each last.
    changed: BTreeMap<Name, u64>,
}

/// The clients of a shard that track, by their ids, and what they have read. Names come from clients, so the maps are
/// ordered.
#[derive(Debug, Default)]
pub(crate) struct Tracking {
    clients: BTreeMap<u64, Box<Tracker>>,
    keys: BTreeMap<Name, Vec<u64>>,
    /// Clients of all keys together.
    items: usize,
    /// The key that was dropped last for lack of room.
    hand: Name,
    max_keys: usize,
    prefixes: BTreeMap<Name, Prefix>,
    /// Some prefix has keys that changed.
    changed: bool,
    /// Forgotten tables, given back in steps.
    garbage: Vec<BTreeMap<Name, Vec<u64>>>,
    /// Other shards on which somebody tracks.
    others: BTreeSet<u16>,
}

impl Tracking {
    /// Whether anybody anywhere wants to know of changes.
    pub(crate) fn is_wanted(&self) -> bool {
        !self.clients.is_empty() || !self.others.is_empty()
    }

    /// Whether some changes are still to be told.
    pub(crate) const fn is_due(&self) -> bool {
        self.changed
    }

    /// A client, if it tracks.
    pub(crate) fn get(&self, id: u64) -> Option<&Tracker> {
        self.clients.get(&id).map(|tracker| &**tracker)
    }

    /// The same, to change it.
    pub(crate) fn get_mut(&mut self, id: u64) -> Option<&mut Tracker> {
        self.clients.get_mut(&id).map(|tracker| &mut **tracker)
    }

    /// Most keys in the table; 0 for no limit.
    pub(crate) const fn set_max_keys(&mut self, max: usize) {
        self.max_keys = max;
    }

    /// Another shard has clients that track, or has none any more.
    pub(crate) fn set_other(&mut self, shard: u16, tracks: bool) {
        if tracks {
            self.others.insert(shard);
        } else {
            self.others.remove(&shard);
        }
    }

    /// Clients, keys, clients of keys, prefixes.
    pub(crate) fn sizes(&self) -> [u64; 4] {
        [self.clients.len(), self.keys.len(), self.items, self.prefixes.len()]
            .map(|size| size as u64)
    }

    /// Ends a client's tracking; whether it tracked.
    fn remove(&mut self, id: u64) -> bool {
        let Some(tracker) = self.clients.remove(&id) else { return false };
        for name in &tracker.prefixes {
            if let Some(prefix) = self.prefixes.get_mut(name) {
                prefix.clients.remove(&id);
                if prefix.clients.is_empty() {
                    self.prefixes.remove(name);
                }
            }
        }
        if self.clients.is_empty() {
            self.clear_keys();
        }
        true
    }

    /// Forgets all keys.
    fn clear_keys(&mut self) {
        if !self.keys.is_empty() {
            self.garbage.push(std::mem::take(&mut self.keys));
        }
        self.items = 0;
    }

    /// Gives back a part of what was forgotten; whether more is left.
    pub(crate) fn purge_step(&mut self, budget: usize) -> bool {
        for _ in 0..budget {
            let Some(table) = self.garbage.last_mut() else { return false };
            if table.pop_first().is_none() {
                self.garbage.pop();
            }
        }
        !self.garbage.is_empty()
    }

    /// Forgets a key; the clients that have read it.
    fn take_readers(&mut self, key: &[u8]) -> Option<Vec<u64>> {
        let ids = self.keys.remove(key)?;
        self.items -= ids.len();
        Some(ids)
    }

    /// Remembers that a client has read a key.
    fn remember(&mut self, id: u64, key: &[u8]) {
        match self.keys.get_mut(key) {
            Some(ids) if ids.contains(&id) => return,
            Some(ids) => ids.push(id),
            None => {
                self.keys.insert(key.into(), vec![id]);
            }
        }
        self.items += 1;
    }

    /// A key for which there is no room, and which is forgotten with that.
    fn excess(&mut self) -> Option<Name> {
        if self.max_keys == 0 || self.keys.len() <= self.max_keys {
            return None;
        }
        let behind = (Bound::Excluded(&*self.hand), Bound::Unbounded);
        let next = self.keys.range::<[u8], _>(behind).next().or_else(|| self.keys.iter().next());
        let key = next.map(|(key, _)| key.clone())?;
        self.hand.clone_from(&key);
        Some(key)
    }
}

impl Shard {
    /// Remembers the keys that a client's command is about to read, or has just read.
    pub(crate) fn remember(&mut self, id: u64, row: &Row, args: &Args, frame: &[u8]) {
        let remembers = self.tracking.get(id).is_some_and(Tracker::remembers);
        if !remembers || row.flags & row::READONLY == 0 || row.flags & row::PUBSUB != 0 {
            return;
        }
        for at in row.key_indices(args.len(), |at| args.get(at, frame)) {
            self.tracking.remember(id, args.get(at, frame));
            while let Some(key) = self.tracking.excess() {
                self.tell_readers(&key, 0);
            }
        }
    }

    /// A command of a client that tracks has ended: CLIENT CACHING was for it, unless it was that.
    pub(crate) fn end_caching(&mut self, id: u64, row: &Row) {
        if !row.name.starts_with("client")
            && let Some(tracker) = self.tracking.get_mut(id)
        {
            tracker.caching = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_drops_keys_in_turn_beyond_its_bound() {
        let mut tracking = Tracking::default();
        tracking.set_max_keys(2);
        for key in [b"a", b"b"] {
            tracking.remember(1, key);
            tracking.remember(1, key);
            tracking.remember(2, key);
        }
        assert_eq!((tracking.sizes(), tracking.excess()), ([0, 2, 4, 0], None));
        for (key, gone) in [(b"c", b"a"), (b"d", b"b"), (b"a", b"c")] {
            tracking.remember(1, key);
            assert_eq!(tracking.excess().as_deref(), Some(&gone[..]));
            assert!(tracking.take_readers(&gone[..]).is_some());
            assert_eq!(tracking.excess(), None);
        }
        assert_eq!(tracking.sizes(), [0, 2, 2, 0]);
    }

    #[test]
    fn a_forgotten_table_goes_in_steps() {
        let mut tracking = Tracking::default();
        assert!(!tracking.purge_step(10));
        (0..5_u8).for_each(|key| tracking.remember(1, &[key]));
        tracking.clear_keys();
        tracking.clear_keys();
        assert_eq!((tracking.sizes(), tracking.garbage.len()), ([0; 4], 1));
        assert!(tracking.purge_step(5) && !tracking.purge_step(1));
    }

    #[test]
    fn a_client_remembers_by_its_mode() {
        let plain = Tracker::default();
        assert!(plain.remembers());
        let optin = |caching| Tracker { optin: true, caching, ..Tracker::default() }.remembers();
        assert!(optin(true) && !optin(false));
        let optout = |caching| Tracker { optout: true, caching, ..Tracker::default() }.remembers();
        assert!(!optout(true) && optout(false));
        assert!(!Tracker { bcast: true, ..Tracker::default() }.remembers());
    }
}
