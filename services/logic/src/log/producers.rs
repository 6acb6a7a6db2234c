//! Idempotent producers of one partition: which of their batches are in the log already.
//!
//! A producer numbers its records from 0 in each epoch; the broker takes a batch only behind the last one,
//! answers one of the last five again with the offset it got, and refuses the rest (KIP-98, KIP-360). Rules are
//! those of Kafka's ProducerStateManager: a producer that is not known may begin with any sequence number,
//! since its state may have expired. Invariants: at most [`BATCHES_MAX`] batches per producer and
//! `producers_max` producers, of which the one silent for longest goes, so about 400 bytes for each of
//! them; a look-up is O(1), an append O(log producers). Offsets grow from append to append. Next: [`snapshot`]
//! for the file.

pub mod snapshot;

use std::collections::{BTreeSet, VecDeque};

use snapshot::Snapshot;
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
    /// Its place in the order of silence: the last offset of the log when it was heard last.
    heard_at: i64,
}

impl Producer {
    /// The offset of its last record; -1 for none.
    #[must_use]
    pub fn last_offset(&self) -> i64 {
        self.batches.back().map_or(-1, |last| last.last_offset)
    }
}

/// Orders producers by the log's last offset when they were heard last, which is that of their last record,
/// then by id: the most silent first.
type Place = (i64, i64);

/// Producers of one partition.
#[derive(Clone, Debug)]
pub struct Producers {
    by_id: HashMap<i64, Producer>,
    by_silence: BTreeSet<Place>,
    producers_max: usize,
    snapshot: Option<Snapshot>,
}

impl Producers {
    /// None yet, and at most `producers_max` at a time.
    #[must_use]
    pub fn new(producers_max: usize) -> Self {
        Self {
            by_id: HashMap::default(),
            by_silence: BTreeSet::new(),
            producers_max: producers_max.max(1),
            snapshot: None,
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
            let last = self.by_silence.last().map_or(-1, |(offset, _)| *offset);
            let producer = self.heard(batch.producer_id, batch.epoch, last, now_ms);
            producer.begins_at = Some(batch.base_sequence);
        }
    }

    /// Notes a batch that was appended, or is found in the log.
    pub fn append(&mut self, producer_id: i64, epoch: i16, stored: Stored, now_ms: i64) {
        self.keep_for_snapshot(producer_id);
        let producer = self.heard(producer_id, epoch, stored.last_offset, now_ms);
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
    fn heard(
        &mut self,
        producer_id: i64,
        epoch: i16,
        last_offset: i64,
        now_ms: i64,
    ) -> &mut Producer {
        if !self.by_id.contains_key(&producer_id) && self.by_id.len() >= self.producers_max {
            self.drop_most_silent();
        }
        let producer = self.by_id.entry(producer_id).or_insert_with(|| Producer {
            epoch,
            batches: VecDeque::with_capacity(BATCHES_MAX),
            seen_ms: now_ms,
            begins_at: None,
            heard_at: last_offset,
        });
        self.by_silence.remove(&(producer.heard_at, producer_id));
        self.by_silence.insert((last_offset, producer_id));
        producer.heard_at = last_offset;
        producer.seen_ms = now_ms;
        producer
    }

    fn drop_most_silent(&mut self) {
        if let Some((_, id)) = self.by_silence.first() {
            self.keep_for_snapshot(*id);
        }
        if let Some((_, id)) = self.by_silence.pop_first() {
            self.by_id.remove(&id);
        }
    }

    /// Forgets at most `budget` producers that were not heard since `before_ms`. Whether there may be
    /// more.
    pub fn expire(&mut self, before_ms: i64, budget: usize) -> bool {
        for _ in 0..budget {
            let Some((_, id)) = self.by_silence.first() else { return false };
            if self.by_id.get(id).is_some_and(|producer| producer.seen_ms >= before_ms) {
                return false;
            }
            self.drop_most_silent();
        }
        true
    }

    /// Forgets batches at `end_offset` and behind, as the log was cut there, and producers of which
    /// none is left, in O(producers that wrote there). A snapshot under way ends.
    ///
    /// A producer all of whose last batches were cut is not known any more, so that it may begin with any
    /// sequence number; one that goes back an epoch likewise.
    pub fn truncate(&mut self, end_offset: i64) {
        self.snapshot = None;
        while let Some(place) = self.by_silence.last().copied().filter(|last| last.0 >= end_offset)
        {
            self.by_silence.remove(&place);
            let (_, id) = place;
            let Some(producer) = self.by_id.get_mut(&id) else { continue };
            while producer.batches.pop_back_if(|last| last.last_offset >= end_offset).is_some() {}
            if producer.batches.is_empty() {
                self.by_id.remove(&id);
            } else {
                producer.heard_at = producer.last_offset();
                self.by_silence.insert((producer.heard_at, id));
            }
        }
    }

    /// What is known of a producer.
    #[must_use]
    pub fn get(&self, producer_id: i64) -> Option<&Producer> {
        self.by_id.get(&producer_id)
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
        self.by_silence.iter().filter_map(|(_, id)| Some((*id, self.by_id.get(id)?)))
    }
}

/// The sequence number after `sequence`.
const fn following(sequence: i32) -> i32 {
    if sequence == SEQUENCE_MAX { 0 } else { sequence + 1 }
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
    fn one_whose_batch_could_not_be_stored_takes_its_turn_in_silence() {
        let mut producers = Producers::new(3);
        let by = |producer_id| BatchId { producer_id, ..id(0, 0, 1) };
        store(&mut producers, by(1), 10);
        producers.refused(&by(2), 11);
        store(&mut producers, by(3), 20);
        assert!(!producers.expire(11, 10));
        let known: Vec<i64> = producers.iter().map(|(id, _)| id).collect();
        assert_eq!(known, [2, 3], "it holds up nobody");
        store(&mut producers, by(2), 30);
        let known: Vec<i64> = producers.iter().map(|(id, _)| id).collect();
        assert_eq!(known, [3, 2]);
        producers.refused(&by(4), 31);
        producers.truncate(0);
        assert!(producers.is_empty() && producers.by_silence.is_empty());
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

    /// What Kafka's rules say, from all batches that ever were.
    fn model(log: &[(BatchId, Stored)], batch: &BatchId) -> Check {
        let mine = || log.iter().filter(|(id, _)| id.producer_id == batch.producer_id);
        let Some((last, _)) = mine().next_back() else { return Check::Append };
        if batch.epoch < last.epoch {
            return Check::Fenced { epoch: last.epoch };
        }
        // Batches since the epoch was last changed.
        let epoch = || mine().rev().take_while(|(id, _)| id.epoch == last.epoch);
        if batch.epoch > last.epoch {
            let begins = batch.base_sequence == 0;
            return if begins { Check::Append } else { Check::OutOfOrder { expected: 0 } };
        }
        if let Some((_, stored)) = epoch().take(BATCHES_MAX).find(|(id, _)| id == batch) {
            return Check::Duplicate(*stored);
        }
        let expected = i32::try_from((i64::from(last.last_sequence) + 1) % (1 << 31));
        match expected.unwrap_or(-1) {
            expected if expected == batch.base_sequence => Check::Append,
            expected => Check::OutOfOrder { expected },
        }
    }

    proptest! {
        #[test]
        fn checks_agree_with_a_model_that_forgets_nothing(
            batches in prop::collection::vec((0_i64..3, 0_i16..3, -1_i32..8, 1_i32..3), 0..80),
        ) {
            let (mut producers, mut log) = (Producers::new(3), Vec::new());
            for (at, (producer_id, epoch, step, records)) in batches.into_iter().enumerate() {
                // Steps far enough back meet duplicates, and numbers close to the end wrap around.
                let base_sequence = match step {
                    -1 => i32::MAX,
                    step => step,
                };
                let batch = BatchId { producer_id, ..id(epoch, base_sequence, records) };
                let check = producers.check(&batch);
                prop_assert_eq!(check, model(&log, &batch));
                if check == Check::Append {
                    let offset = i64::try_from(at)? * 10;
                    store(&mut producers, batch, offset);
                    log.push((batch, *producers.get(producer_id).expect("it").batches.back().expect("one")));
                }
            }
        }

        #[test]
        fn a_cut_leaves_what_was_known_there(
            batches in prop::collection::vec((0_i64..6, 0_i16..2), 0..60),
            cut in 0_i64..700,
        ) {
            let (mut producers, mut before) = (Producers::new(10), Producers::new(10));
            for (at, (producer_id, epoch)) in batches.into_iter().enumerate() {
                let (batch, offset) = (id(epoch, 0, 1), i64::try_from(at)? * 10);
                let batch = BatchId { producer_id, ..batch };
                store(&mut producers, batch, offset);
                if offset + 1 < cut {
                    store(&mut before, batch, offset);
                }
            }
            producers.truncate(cut);
            prop_assert_eq!(producers.by_silence.len(), producers.by_id.len());
            for (id, producer) in producers.iter() {
                // A part of what it was then, without a hole.
                let then: Vec<_> = before.get(id).expect("it was there").batches.iter().collect();
                let now: Vec<_> = producer.batches.iter().collect();
                prop_assert!(then.ends_with(&now) || now.ends_with(&then));
                prop_assert!(!now.is_empty() && producer.last_offset() < cut);
            }
        }
    }

    #[test]
    fn a_cut_takes_batches_and_then_producers() {
        let mut producers = Producers::new(10);
        for batch in 0..3 {
            store(&mut producers, id(0, batch, 1), i64::from(batch) * 10);
        }
        store(&mut producers, BatchId { producer_id: 8, ..id(0, 0, 1) }, 15);
        producers.truncate(21);
        assert_eq!(producers.check(&id(0, 2, 1)), Check::Append, "its last ended at 21");
        assert_eq!(producers.get(7).map(Producer::last_offset), Some(11));
        producers.truncate(12);
        assert!(producers.get(8).is_none());
        producers.truncate(0);
        assert!(producers.is_empty());
    }
}
