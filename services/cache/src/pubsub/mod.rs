//! Publish and subscribe on one shard: who listens to what, and messages to them.
//!
//! A subscription lives on the shard of its connection. A message is written once per protocol version and
//! shared by all who get it ([`Letter`]); it waits in their mailboxes ([`Mail`]) until the host takes it from there,
//! in the same turn, or until their next command, before its reply. Between shards [`Topology`](crate::route::Topology)
//! knows which of them anybody listens on.
//!
//! Invariants: a connection is in a topic's list exactly when the topic is in the connection's set; a topic
//! without listeners is not kept. Next: `mail.rs` for mailboxes, `command/pubsub.rs` for the commands.

mod host;
mod letter;
mod mail;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use view::HashMap;

pub(crate) use letter::{Letter, Parcel, Payload};
pub(crate) use mail::{Limit, Mail};

/// What is subscribed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Channels.
    Channel,
    /// Patterns of channels.
    Pattern,
    /// Shard channels: names of their own.
    Shard,
}

/// Somebody listens to channels or patterns.
pub(crate) const HEARS_CHANNELS: u8 = 1;
/// Somebody listens to shard channels.
pub(crate) const HEARS_SHARD_CHANNELS: u8 = 1 << 1;

impl Kind {
    const fn index(self) -> usize {
        match self {
            Self::Channel => 0,
            Self::Pattern => 1,
            Self::Shard => 2,
        }
    }

    /// What shards must hear for a message of this kind to concern them.
    pub(crate) const fn hearing(self) -> u8 {
        match self {
            Self::Channel | Self::Pattern => HEARS_CHANNELS,
            Self::Shard => HEARS_SHARD_CHANNELS,
        }
    }
}

/// A connection's subscriptions, by [`Kind`].
type Topics = [BTreeSet<Bytes>; 3];

/// The subscriptions of a shard's connections. Names come from clients: the maps are ordered, so that nobody can
/// choose names that are slow to find.
#[derive(Debug, Default)]
pub(crate) struct PubSub {
    /// By kind: topics, and the places of the connections that listen.
    listeners: [BTreeMap<Bytes, Vec<u32>>; 3],
    subscribers: HashMap<u32, Box<Topics>>,
}

impl PubSub {
    fn map(&self, kind: Kind) -> &BTreeMap<Bytes, Vec<u32>> {
        let [channels, patterns, shard] = &self.listeners;
        match kind {
            Kind::Channel => channels,
            Kind::Pattern => patterns,
            Kind::Shard => shard,
        }
    }

    fn map_mut(&mut self, kind: Kind) -> &mut BTreeMap<Bytes, Vec<u32>> {
        let [channels, patterns, shard] = &mut self.listeners;
        match kind {
            Kind::Channel => channels,
            Kind::Pattern => patterns,
            Kind::Shard => shard,
        }
    }

    /// Subscribes the connection at `slot`; one that is subscribed already stays so.
    pub(crate) fn add(&mut self, slot: u32, kind: Kind, name: &[u8]) {
        let topics = self.subscribers.entry(slot).or_default();
        let Some(set) = topics.get_mut(kind.index()) else { return };
        if set.contains(name) {
            return;
        }
        let known = self.map(kind).get_key_value(name).map(|(known, _)| known.clone());
        let name = known.unwrap_or_else(|| Bytes::copy_from_slice(name));
        if let Some(set) = self.subscribers.get_mut(&slot).and_then(|t| t.get_mut(kind.index())) {
            set.insert(name.clone());
        }
        self.map_mut(kind).entry(name).or_default().push(slot);
    }

    /// Ends a subscription, if there is one.
    pub(crate) fn remove(&mut self, slot: u32, kind: Kind, name: &[u8]) {
        let Some(topics) = self.subscribers.get_mut(&slot) else { return };
        let removed = topics.get_mut(kind.index()).is_some_and(|set| set.remove(name));
        if topics.iter().all(BTreeSet::is_empty) {
            self.subscribers.remove(&slot);
        }
        if removed {
            self.unlist(slot, kind, name);
        }
    }

    fn unlist(&mut self, slot: u32, kind: Kind, name: &[u8]) {
        let map = self.map_mut(kind);
        let Some(slots) = map.get_mut(name) else { return };
        if let Some(at) = slots.iter().position(|&listener| listener == slot) {
            slots.swap_remove(at);
        }
        if slots.is_empty() {
            map.remove(name);
        }
    }

    /// Ends all subscriptions of a connection; whether it had any.
    pub(crate) fn remove_all(&mut self, slot: u32) -> bool {
        let Some(topics) = self.subscribers.remove(&slot) else { return false };
        for (kind, names) in [Kind::Channel, Kind::Pattern, Kind::Shard].into_iter().zip(*topics) {
            for name in names {
                self.unlist(slot, kind, &name);
            }
        }
        true
    }

    /// What a connection is subscribed to.
    pub(crate) fn topics(&self, slot: u32, kind: Kind) -> Vec<Bytes> {
        let topics = self.subscribers.get(&slot).and_then(|topics| topics.get(kind.index()));
        topics.map_or_else(Vec::new, |names| names.iter().cloned().collect())
    }

    /// How many channels, patterns and shard channels a connection is subscribed to.
    pub(crate) fn counts(&self, slot: u32) -> [usize; 3] {
        let Some(topics) = self.subscribers.get(&slot) else { return [0; 3] };
        let [channels, patterns, shard] = &**topics;
        [channels.len(), patterns.len(), shard.len()]
    }

    /// Connections with subscriptions.
    pub(crate) fn subscribers(&self) -> usize {
        self.subscribers.len()
    }

    /// Topics that somebody listens to.
    pub(crate) fn len(&self, kind: Kind) -> usize {
        self.map(kind).len()
    }

    /// Topics that somebody listens to, those like `pattern` when there is one.
    pub(crate) fn names(&self, kind: Kind, pattern: Option<&[u8]>) -> Vec<Box<[u8]>> {
        let wanted = |name: &&Bytes| {
            pattern.is_none_or(|pattern| logic::glob::matches(pattern, name, false))
        };
        self.map(kind).keys().filter(wanted).map(|name| (&**name).into()).collect()
    }

    /// How many listen to a topic.
    pub(crate) fn listeners(&self, kind: Kind, name: &[u8]) -> u64 {
        self.map(kind).get(name).map_or(0, |slots| slots.len() as u64)
    }

    /// How many times a message to a channel is heard here, with those who listen by patterns.
    pub(crate) fn hear(&self, kind: Kind, channel: &[u8]) -> u64 {
        let mut count = self.listeners(kind, channel);
        if kind == Kind::Channel {
            let patterns = self.map(Kind::Pattern).iter();
            let matching =
                patterns.filter(|(pattern, _)| logic::glob::matches(pattern, channel, false));
            count += matching.map(|(_, slots)| slots.len() as u64).sum::<u64>();
        }
        count
    }

    /// What anybody listens to here: `HEARS_…` bits.
    pub(crate) fn hearing(&self) -> u8 {
        let [channels, patterns, shard] = &self.listeners;
        let plain = !channels.is_empty() || !patterns.is_empty();
        (if plain { HEARS_CHANNELS } else { 0 })
            | (if shard.is_empty() { 0 } else { HEARS_SHARD_CHANNELS })
    }

    /// Puts a message to a channel, or a shard channel, into the mailboxes of all who listen here; how many there are.
    pub(crate) fn publish(
        &self,
        mail: &mut Mail,
        kind: Kind,
        channel: &[u8],
        payload: Payload<'_>,
    ) -> u64 {
        let word = if kind == Kind::Shard { "smessage" } else { "message" };
        let mut count = 0;
        if let Some(slots) = self.map(kind).get(channel) {
            count += post(mail, slots, Letter::message(word, None, channel, payload));
        }
        if kind == Kind::Channel {
            for (pattern, slots) in self.map(Kind::Pattern) {
                if logic::glob::matches(pattern, channel, false) {
                    let letter = Letter::message("pmessage", Some(pattern), channel, payload);
                    count += post(mail, slots, letter);
                }
            }
        }
        count
    }
}

fn post(mail: &mut Mail, slots: &[u32], mut letter: Letter<'_>) -> u64 {
    for &slot in slots {
        mail.put(slot, &mut letter);
    }
    slots.len() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_listed_where_it_listens_and_nowhere_else() {
        let mut pubsub = PubSub::default();
        pubsub.add(1, Kind::Channel, b"a");
        pubsub.add(1, Kind::Channel, b"a");
        pubsub.add(2, Kind::Channel, b"a");
        pubsub.add(1, Kind::Pattern, b"a");
        pubsub.add(1, Kind::Shard, b"a");
        assert_eq!(pubsub.counts(1), [1, 1, 1]);
        assert_eq!(pubsub.listeners(Kind::Channel, b"a"), 2);
        assert_eq!(pubsub.hearing(), HEARS_CHANNELS | HEARS_SHARD_CHANNELS);
        pubsub.remove(1, Kind::Channel, b"a");
        pubsub.remove(1, Kind::Channel, b"none");
        assert_eq!((pubsub.counts(1), pubsub.listeners(Kind::Channel, b"a")), ([0, 1, 1], 1));
        assert!(pubsub.remove_all(1) && !pubsub.remove_all(1));
        pubsub.remove(2, Kind::Channel, b"a");
        assert_eq!((pubsub.subscribers(), pubsub.hearing()), (0, 0));
        assert!(pubsub.listeners.iter().all(BTreeMap::is_empty), "nothing is left behind");
    }
}
