//! A consumer group: who has been handed which entries and has not acknowledged them.
//!
//! The group's pending list has the facts of a delivery, a consumer's own has ids only. Consumers
//! are known to the lists by a number that is never given twice, to clients by name.
//!
//! Invariants: an id is pending with exactly one consumer, and in both lists or in none; every
//! consumer has a name in `names` and the reverse; `consumer_bytes` is what consumers hold.
//! Next: `deliver.rs` for reading and claiming, `view.rs` for what is shown of a group.

use super::{id::StreamId, tree::Tree};

/// A delivery that was not acknowledged.
#[derive(Clone, Copy)]
pub(super) struct Nack {
    pub(super) delivered_ms: u64,
    pub(super) deliveries: u64,
    pub(super) consumer: u64,
}

/// One reader of a group.
pub(super) struct Consumer {
    pub(super) name: Box<[u8]>,
    pub(super) seen_ms: u64,
    pub(super) pel: Tree<StreamId, ()>,
}

impl Consumer {
    fn mem_bytes(&self) -> usize {
        self.name.len() + self.pel.bytes()
    }
}

/// What one step of deleting a consumer did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ConsumerStep {
    /// Pending entries that were dropped with it.
    pub removed: u64,
    /// Whether the consumer is gone.
    pub done: bool,
}

/// The group.
pub(super) struct Group {
    pub(super) last_id: StreamId,
    /// Entries read in all, where that is known.
    pub(super) entries_read: Option<i64>,
    pub(super) pel: Tree<StreamId, Nack>,
    pub(super) consumers: Tree<u64, Consumer>,
    pub(super) names: Tree<Box<[u8]>, u64>,
    consumer_bytes: usize,
    next_number: u64,
}

impl Group {
    pub(super) const fn new(last_id: StreamId, entries_read: Option<i64>) -> Self {
        Self {
            last_id,
            entries_read,
            pel: Tree::new(),
            consumers: Tree::new(),
            names: Tree::new(),
            consumer_bytes: 0,
            next_number: 0,
        }
    }

    /// Bytes of heap held, this struct's own box included.
    pub(super) const fn mem_bytes(&self) -> usize {
        size_of::<Self>()
            + self.pel.bytes()
            + self.consumers.bytes()
            + self.names.bytes()
            + self.consumer_bytes
    }

    /// Adds a consumer; nothing when there is one of that name.
    pub(super) fn create_consumer(&mut self, name: &[u8], now_ms: u64) -> Option<u64> {
        if self.names.get(name).is_some() {
            return None;
        }
        let number = self.next_number;
        self.next_number += 1;
        let consumer = Consumer { name: name.into(), seen_ms: now_ms, pel: Tree::new() };
        self.consumer_bytes += consumer.mem_bytes();
        self.consumers.insert(number, consumer);
        self.names.insert(name.into(), number);
        Some(number)
    }

    /// The consumer of that name, made when missing; it was seen now.
    pub(super) fn meet_consumer(&mut self, name: &[u8], now_ms: u64) -> u64 {
        match self.names.get(name).copied() {
            Some(number) => {
                if let Some(consumer) = self.consumers.get_mut(&number) {
                    consumer.seen_ms = now_ms;
                }
                number
            }
            None => self.create_consumer(name, now_ms).unwrap_or_default(),
        }
    }

    /// Deletes a consumer and what is pending with it, looking at about `budget` pending entries;
    /// nothing when there is none of that name.
    pub(super) fn delete_consumer(&mut self, name: &[u8], budget: usize) -> Option<ConsumerStep> {
        let number = *self.names.get(name)?;
        let consumer = self.consumers.get_mut(&number)?;
        let mut removed = 0;
        while removed < budget {
            self.consumer_bytes -= consumer.mem_bytes();
            let leaf = consumer.pel.take_leaf();
            self.consumer_bytes += consumer.mem_bytes();
            let Some(leaf) = leaf else { break };
            removed += leaf.len();
            for (id, ()) in leaf {
                self.pel.remove(&id);
            }
        }
        let done = consumer.pel.is_empty();
        if done {
            self.consumer_bytes -= consumer.mem_bytes();
            self.consumers.remove(&number);
            self.names.remove(name);
        }
        Some(ConsumerStep { removed: removed as u64, done })
    }

    fn enter(&mut self, id: StreamId, number: u64) {
        if let Some(consumer) = self.consumers.get_mut(&number) {
            let before = consumer.mem_bytes();
            consumer.pel.insert(id, ());
            self.consumer_bytes += consumer.mem_bytes() - before;
        }
    }

    fn leave(&mut self, id: StreamId, number: u64) {
        if let Some(consumer) = self.consumers.get_mut(&number) {
            // A removal may free a page or, by a merge, make one larger.
            self.consumer_bytes -= consumer.mem_bytes();
            consumer.pel.remove(&id);
            self.consumer_bytes += consumer.mem_bytes();
        }
    }

    /// Notes a delivery, of a new entry or of one that was pending with whomever.
    pub(super) fn deliver(&mut self, id: StreamId, nack: Nack) {
        let before = self.pel.insert(id, nack).map(|before| before.consumer);
        if before == Some(nack.consumer) {
            return;
        }
        if let Some(before) = before {
            self.leave(id, before);
        }
        self.enter(id, nack.consumer);
    }

    /// Forgets a delivery; whether there was one.
    pub(super) fn acknowledge(&mut self, id: StreamId) -> bool {
        let Some(nack) = self.pel.remove(&id) else { return false };
        self.leave(id, nack.consumer);
        true
    }

    /// Frees some of what a destroyed group held; how many items.
    pub(super) fn free_some(&mut self) -> usize {
        if let Some(leaf) = self.pel.take_leaf() {
            return leaf.len();
        }
        if let Some(leaf) = self.names.take_leaf() {
            return leaf.len();
        }
        let Some((&number, consumer)) = self.consumers.last_mut() else { return 0 };
        self.consumer_bytes -= consumer.mem_bytes();
        if let Some(leaf) = consumer.pel.take_leaf() {
            self.consumer_bytes += consumer.mem_bytes();
            return leaf.len();
        }
        self.consumers.remove(&number);
        1
    }

    #[cfg(test)]
    pub(super) fn check(&self) {
        self.pel.check();
        self.consumers.check();
        self.names.check();
        let (mut bytes, mut pending) = (0, 0);
        for (number, consumer) in self.consumers.up_from(&0) {
            consumer.pel.check();
            assert_eq!(self.names.get(&consumer.name), Some(number));
            bytes += consumer.mem_bytes();
            pending += consumer.pel.len();
            for (id, ()) in consumer.pel.up_from(&StreamId::MIN) {
                assert_eq!(self.pel.get(id).map(|nack| nack.consumer), Some(*number));
            }
        }
        assert_eq!(self.names.len(), self.consumers.len());
        assert_eq!((self.consumer_bytes, self.pel.len()), (bytes, pending));
    }
}
