//! Idempotent producers of one partition: which of their batches are in the log already.
//!
//! A producer numbers its records from 0 in each epoch; the broker takes a batch only behind the last one,
//! answers one of the last five again with the offset it got, and refuses the rest (KIP-98, KIP-360). Rules are
//! those of Kafka's ProducerStateManager: a producer that is not known may begin with any sequence number,
//! since its state may have expired. Invariants: at most [`BATCHES_MAX`] batches per producer and
//! `producers_max` producers, of which the one silent for longest goes; look-ups do not depend on their
//! number.

use std::collections::{BTreeMap, VecDeque};

use view::HashMap;

/// Batches of a producer that are remembered.
pub const BATCHES_MAX: usize = 5;
/// Sequence numbers go on at 0 after this one.
const SEQUENCE_MAX: i32 = i32::MAX;

/// What a batch says of its producer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchId {
    /// The producer's id.
    pub producer_id: i64,
    /// Its epoch.
    pub epoch: i16,
    /// Sequence number of the first record.
    pub base_sequence: i32,
    /// And of the last.
    pub last_sequence: i32,
}

/// A batch that is in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Sequence number of the first record.
    pub base_sequence: i32,
    /// And of the last.
    pub last_sequence: i32,
    /// Offset of the first record.
    pub base_offset: i64,
    /// And of the last.
    pub last_offset: i64,
    /// The batch's largest timestamp.
    pub timestamp_ms: i64,
}

/// Whether a batch may be appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    /// It follows.
    Append,
    /// It is in the log.
    Duplicate(Stored),
    /// It does not follow; this sequence number would.
    OutOfOrder {
        /// What would follow.
        expected: i32,
    },
    /// A later instance of the producer has written.
    Fenced {
        /// Its epoch.
        epoch: i16,
    },
}

/// One producer's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Producer {
    /// Its epoch.
    pub epoch: i16,
    /// The last batches, oldest first.
    pub batches: VecDeque<Stored>,
    /// When the last one came, by the broker's clock.
    pub seen_ms: i64,
    /// Where it has to begin, when its first batch could not be stored.
    begins_at: Option<i32>,
    /// Place in the order of silence.
    tick: u64,
}

/// Producers of one partition.
#[derive(Clone, Debug)]
pub struct Producers {
    by_id: HashMap<i64, Producer>,
    /// Ids by the order in which they were heard last.
    by_silence: BTreeMap<u64, i64>,
    next_tick: u64,
    producers_max: usize,
}

impl Producers {
    /// None yet, and at most `producers_max` at a time.
    #[must_use]
    pub fn new(producers_max: usize) -> Self {
        Self {
            by_id: HashMap::default(),
            by_silence: BTreeMap::new(),
            next_tick: 0,
            producers_max: producers_max.max(1),
        }
    }

    /// Whether the batch may be appended now.
    #[must_use]
    pub fn check(&self, batch: &BatchId) -> Check {
        let Some(producer) = self.by_id.get(&batch.producer_id) else { return Check::Append };
        if batch.epoch < producer.epoch {
            return Check::Fenced { epoch: producer.epoch };
        }
        if batch.epoch > producer.epoch {
            return match batch.base_sequence {
                0 => Check::Append,
                _ => Check::OutOfOrder { expected: 0 },
            };
        }
        let same = |stored: &&Stored| {
            stored.base_sequence == batch.base_sequence
                && stored.last_sequence == batch.last_sequence
        };
        if let Some(stored) = producer.batches.iter().find(same) {
            return Check::Duplicate(*stored);
        }
        let follows = producer.batches.back().map(|last| following(last.last_sequence));
        match follows.or(producer.begins_at) {
            Some(expected) if expected != batch.base_sequence => Check::OutOfOrder { expected },
            _ => Check::Append,
        }
    }

    /// Notes that a batch could not be stored: one that was sent right behind it must not take its place, as
    /// that of a producer that is not known could.
    pub fn refused(&mut self, batch: &BatchId, now_ms: i64) {
        if !self.by_id.contains_key(&batch.producer_id) {
            let producer = self.heard(batch.producer_id, batch.epoch, now_ms);
            producer.begins_at = Some(batch.base_sequence);
        }
    }

    /// Notes a batch that was appended, or is found in the log.
    pub fn append(&mut self, producer_id: i64, epoch: i16, stored: Stored, now_ms: i64) {
        let producer = self.heard(producer_id, epoch, now_ms);
        producer.begins_at = None;
        if producer.epoch != epoch {
            producer.epoch = epoch;
            producer.batches.clear();
        }
        if producer.batches.len() == BATCHES_MAX {
            producer.batches.pop_front();
        }
        producer.batches.push_back(stored);
    }

    /// A producer that is heard now, known before or not.
    fn heard(&mut self, producer_id: i64, epoch: i16, now_ms: i64) -> &mut Producer {
        let tick = self.next_tick;
        self.next_tick += 1;
        if !self.by_id.contains_key(&producer_id) && self.by_id.len() >= self.producers_max {
            self.drop_most_silent();
        }
        let producer = self.by_id.entry(producer_id).or_insert_with(|| Producer {
            epoch,
            batches: VecDeque::with_capacity(BATCHES_MAX),
            seen_ms: now_ms,
            begins_at: None,
            tick,
        });
        self.by_silence.remove(&producer.tick);
        self.by_silence.insert(tick, producer_id);
        producer.tick = tick;
        producer.seen_ms = now_ms;
        producer
    }

    fn drop_most_silent(&mut self) {
        if let Some((_, id)) = self.by_silence.pop_first() {
            self.by_id.remove(&id);
        }
    }

    /// Forgets at most `budget` producers that were not heard since `before_ms`. Whether there may be
    /// more.
    pub fn expire(&mut self, before_ms: i64, budget: usize) -> bool {
        for _ in 0..budget {
            let Some((_, id)) = self.by_silence.first_key_value() else { return false };
            if self.by_id.get(id).is_some_and(|producer| producer.seen_ms >= before_ms) {
                return false;
            }
            self.drop_most_silent();
        }
        true
    }

    /// Producers known.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// Producers, the most silent first.
    pub fn iter(&self) -> impl Iterator<Item = (i64, &Producer)> {
        self.by_silence.values().filter_map(|id| Some((*id, self.by_id.get(id)?)))
    }
}

/// The sequence number after `sequence`.
const fn following(sequence: i32) -> i32 {
    if sequence == SEQUENCE_MAX { 0 } else { sequence + 1 }
}

const SNAPSHOT_MAGIC: &[u8; 8] = b"prodst01";
/// Id, epoch and number of batches, time.
const PRODUCER_BYTES: usize = 8 + 2 + 2 + 8;
const STORED_BYTES: usize = 4 + 4 + 8 + 8 + 8;

impl Producers {
    /// The state as a file: magic, CRC-32 of the rest, number of producers, then each with its batches;
    /// little-endian.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut body = Vec::with_capacity(self.len() * (PRODUCER_BYTES + STORED_BYTES));
        let known = || self.iter().filter(|(_, producer)| !producer.batches.is_empty());
        body.extend_from_slice(&(known().count() as u64).to_le_bytes());
        for (id, producer) in known() {
            body.extend_from_slice(&id.to_le_bytes());
            body.extend_from_slice(&producer.epoch.to_le_bytes());
            let batches = u16::try_from(producer.batches.len()).unwrap_or(0);
            body.extend_from_slice(&batches.to_le_bytes());
            body.extend_from_slice(&producer.seen_ms.to_le_bytes());
            for stored in &producer.batches {
                body.extend_from_slice(&stored.base_sequence.to_le_bytes());
                body.extend_from_slice(&stored.last_sequence.to_le_bytes());
                for number in [stored.base_offset, stored.last_offset, stored.timestamp_ms] {
                    body.extend_from_slice(&number.to_le_bytes());
                }
            }
        }
        let mut file = SNAPSHOT_MAGIC.to_vec();
        file.extend_from_slice(&crc32fast::hash(&body).to_le_bytes());
        file.extend_from_slice(&body);
        file
    }

    /// Reads such a file; `None` when it is damaged.
    #[must_use]
    pub fn decode(file: &[u8], producers_max: usize) -> Option<Self> {
        let body = file.strip_prefix(SNAPSHOT_MAGIC)?;
        let (sum, mut body) = body.split_first_chunk::<4>()?;
        if crc32fast::hash(body) != u32::from_le_bytes(*sum) {
            return None;
        }
        let mut producers = Self::new(producers_max);
        let count = u64::from_le_bytes(take(&mut body)?);
        for _ in 0..count {
            let id = i64::from_le_bytes(take(&mut body)?);
            let epoch = i16::from_le_bytes(take(&mut body)?);
            let batches = u16::from_le_bytes(take(&mut body)?);
            let seen_ms = i64::from_le_bytes(take(&mut body)?);
            for _ in 0..batches {
                let stored = Stored {
                    base_sequence: i32::from_le_bytes(take(&mut body)?),
                    last_sequence: i32::from_le_bytes(take(&mut body)?),
                    base_offset: i64::from_le_bytes(take(&mut body)?),
                    last_offset: i64::from_le_bytes(take(&mut body)?),
                    timestamp_ms: i64::from_le_bytes(take(&mut body)?),
                };
                producers.append(id, epoch, stored, seen_ms);
            }
        }
        body.is_empty().then_some(producers)
    }
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (array, rest) = bytes.split_first_chunk::<N>()?;
    *bytes = rest;
    Some(*array)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn id(epoch: i16, base_sequence: i32, records: i32) -> BatchId {
        let last_sequence = base_sequence.wrapping_add(records - 1) & i32::MAX;
        BatchId { producer_id: 7, epoch, base_sequence, last_sequence }
    }

    fn store(producers: &mut Producers, batch: BatchId, base_offset: i64) {
        let stored = Stored {
            base_sequence: batch.base_sequence,
            last_sequence: batch.last_sequence,
            base_offset,
            last_offset: base_offset + 1,
            timestamp_ms: 5,
        };
        producers.append(batch.producer_id, batch.epoch, stored, base_offset);
    }

    #[test]
    fn batches_follow_each_other_and_the_last_five_are_known_again() {
        let mut producers = Producers::new(10);
        for batch in 0..7 {
            let batch_id = id(0, batch * 2, 2);
            assert_eq!(producers.check(&batch_id), Check::Append);
            store(&mut producers, batch_id, i64::from(batch) * 10);
        }
        for batch in 2..7 {
            let check = producers.check(&id(0, batch * 2, 2));
            let offset = i64::from(batch) * 10;
            assert!(
                matches!(check, Check::Duplicate(stored) if stored.base_offset == offset),
                "batch {batch}: {check:?}"
            );
        }
        assert_eq!(producers.check(&id(0, 2, 2)), Check::OutOfOrder { expected: 14 });
        assert_eq!(producers.check(&id(0, 16, 2)), Check::OutOfOrder { expected: 14 });
        assert_eq!(
            producers.check(&id(0, 12, 1)),
            Check::OutOfOrder { expected: 14 },
            "half of one"
        );
    }

    #[test]
    fn epochs_fence_and_begin_at_zero() {
        let mut producers = Producers::new(10);
        store(&mut producers, id(3, 40, 2), 0);
        assert_eq!(producers.check(&id(2, 42, 1)), Check::Fenced { epoch: 3 });
        assert_eq!(producers.check(&id(4, 42, 1)), Check::OutOfOrder { expected: 0 });
        assert_eq!(producers.check(&id(4, 0, 1)), Check::Append);
        store(&mut producers, id(4, 0, 1), 2);
        assert_eq!(producers.check(&id(4, 40, 2)), Check::OutOfOrder { expected: 1 });
    }

    #[test]
    fn an_unknown_producer_may_begin_anywhere() {
        assert_eq!(Producers::new(1).check(&id(0, 1234, 1)), Check::Append);
    }

    #[test]
    fn a_batch_behind_one_that_could_not_be_stored_does_not_take_its_place() {
        let mut producers = Producers::new(10);
        producers.refused(&id(0, 0, 2), 0);
        assert_eq!(producers.check(&id(0, 2, 1)), Check::OutOfOrder { expected: 0 });
        assert_eq!(producers.check(&id(0, 0, 2)), Check::Append);
        store(&mut producers, id(0, 0, 2), 0);
        assert_eq!(producers.check(&id(0, 2, 1)), Check::Append);
        producers.refused(&id(0, 2, 1), 0);
        assert_eq!(producers.check(&id(0, 3, 1)), Check::OutOfOrder { expected: 2 });
    }

    #[test]
    fn sequence_numbers_go_on_at_zero() {
        let mut producers = Producers::new(10);
        store(&mut producers, id(0, i32::MAX - 1, 2), 0);
        assert_eq!(producers.check(&id(0, 0, 1)), Check::Append);
        store(&mut producers, id(0, 0, 1), 2);
        let across = BatchId { base_sequence: i32::MAX, last_sequence: 1, ..id(0, 0, 1) };
        assert_eq!(producers.check(&across), Check::OutOfOrder { expected: 1 });
    }

    #[test]
    fn the_most_silent_goes_when_there_are_too_many_or_when_it_is_time() {
        let mut producers = Producers::new(2);
        for (producer_id, at) in [(1, 0), (2, 1), (1, 2), (3, 3)] {
            store(&mut producers, BatchId { producer_id, ..id(0, 0, 1) }, at);
        }
        let known = |producers: &Producers| producers.iter().map(|(id, _)| id).collect::<Vec<_>>();
        assert_eq!(known(&producers), [1, 3]);
        assert!(!producers.expire(3, 10));
        assert_eq!(known(&producers), [3]);
        assert!(producers.expire(100, 1), "the budget is used up");
        assert!(producers.is_empty());
    }

    proptest! {
        #[test]
        fn a_file_comes_back_and_every_damage_is_seen(
            batches in prop::collection::vec((0_i64..6, 0_i16..4, 0_i64..1000), 0..40),
            damage in any::<prop::sample::Index>(),
        ) {
            let mut producers = Producers::new(5);
            for (producer_id, epoch, offset) in batches {
                let batch = BatchId { producer_id, ..id(epoch, 0, 1) };
                store(&mut producers, batch, offset);
            }
            let file = producers.encode();
            let read = Producers::decode(&file, 5).expect("what was written");
            prop_assert_eq!(&read.encode(), &file);
            let at = damage.index(file.len());
            let cut: Vec<u8> = file.iter().take(at).copied().collect();
            prop_assert!(Producers::decode(&cut, 5).is_none());
            let flip = |(n, byte): (usize, u8)| byte ^ u8::from(n == at);
            let damaged: Vec<u8> = file.into_iter().enumerate().map(flip).collect();
            prop_assert!(Producers::decode(&damaged, 5).is_none());
        }
    }
}
