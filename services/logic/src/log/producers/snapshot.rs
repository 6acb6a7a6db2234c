//! What is known of a partition's producers, as a file that is written a few producers at a time.
//!
//! A snapshot says what was known at the moment it was begun: a producer that changes while it is being
//! written, or goes, is written first. So a step costs no more than its budget, an append at most one producer
//! more, and ten thousand producers never make a pause. The file: magic, CRC-32 of the rest, number of producers,
//! then each with its batches; little-endian. It is no rkyv archive, as what is read goes into a hash map
//! anyway and an archive can be neither begun before all is known nor written in steps. Invariants: each
//! producer is in the file once; memory is the file's, at most [`PRODUCER_MAX_BYTES`] for each producer.

use std::collections::VecDeque;
use std::ops::Bound;

use super::{BATCHES_MAX, Place, Producer, Producers, Stored};

const MAGIC: &[u8; 8] = b"prodst01";
/// Magic, checksum, number of producers.
const HEAD_BYTES: usize = 8 + 4 + 8;
/// Id, epoch and number of batches, time.
const PRODUCER_BYTES: usize = 8 + 2 + 2 + 8;
const STORED_BYTES: usize = 4 + 4 + 8 + 8 + 8;
/// Most bytes of a producer in the file.
pub const PRODUCER_MAX_BYTES: usize = PRODUCER_BYTES + BATCHES_MAX * STORED_BYTES;

/// How far a snapshot is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// None was begun, or the log was cut since.
    None,
    /// There is more to write.
    More,
    /// The file, whole.
    File(Vec<u8>),
}

/// A snapshot under way.
#[derive(Clone, Debug)]
pub(super) struct Snapshot {
    file: Vec<u8>,
    count: u64,
    sum: crc32fast::Hasher,
    /// Written up to here, this place included.
    after: Option<Place>,
    /// The last place when it was begun.
    end: Place,
}

impl Snapshot {
    fn new(end: Place, producers: usize) -> Self {
        let mut file = Vec::with_capacity(HEAD_BYTES + producers * PRODUCER_MAX_BYTES);
        file.resize(HEAD_BYTES, 0);
        Self { file, count: 0, sum: crc32fast::Hasher::new(), after: None, end }
    }

    /// Nothing of a producer that has no batch in the log.
    fn write(&mut self, id: i64, producer: &Producer) {
        if producer.batches.is_empty() {
            return;
        }
        let from = self.file.len();
        self.file.extend_from_slice(&id.to_le_bytes());
        self.file.extend_from_slice(&producer.epoch.to_le_bytes());
        let batches = u16::try_from(producer.batches.len()).unwrap_or(0);
        self.file.extend_from_slice(&batches.to_le_bytes());
        self.file.extend_from_slice(&producer.seen_ms.to_le_bytes());
        for stored in &producer.batches {
            self.file.extend_from_slice(&stored.base_sequence.to_le_bytes());
            self.file.extend_from_slice(&stored.last_sequence.to_le_bytes());
            for number in [stored.base_offset, stored.last_offset, stored.timestamp_ms] {
                self.file.extend_from_slice(&number.to_le_bytes());
            }
        }
        self.sum.update(self.file.get(from..).unwrap_or_default());
        self.count += 1;
    }

    fn finish(mut self) -> Vec<u8> {
        let count = self.count.to_le_bytes();
        let mut sum = crc32fast::Hasher::new();
        sum.update(&count);
        sum.combine(&self.sum);
        let sum = sum.finalize().to_le_bytes();
        let head = MAGIC.iter().chain(&sum).chain(&count);
        for (to, from) in self.file.iter_mut().zip(head) {
            *to = *from;
        }
        self.file
    }
}

impl Producers {
    /// Begins a snapshot of what is known now; one that was under way is dropped.
    pub fn begin_snapshot(&mut self) {
        let end = self.by_silence.last().copied().unwrap_or((i64::MIN, i64::MIN));
        self.snapshot = Some(Snapshot::new(end, self.len()));
    }

    /// Writes at most `budget` producers more of the snapshot that was begun.
    pub fn step_snapshot(&mut self, budget: usize) -> Step {
        let Some(mut snapshot) = self.snapshot.take() else { return Step::None };
        let after = snapshot.after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut places = self.by_silence.range((after, Bound::Included(snapshot.end)));
        for place in places.by_ref().take(budget) {
            if let Some(producer) = self.by_id.get(&place.1) {
                snapshot.write(place.1, producer);
            }
            snapshot.after = Some(*place);
        }
        if places.next().is_none() {
            return Step::File(snapshot.finish());
        }
        self.snapshot = Some(snapshot);
        Step::More
    }

    /// Writes a producer that is about to change, if the snapshot under way has it not yet.
    pub(super) fn keep_for_snapshot(&mut self, id: i64) {
        let Some(snapshot) = &mut self.snapshot else { return };
        let Some(producer) = self.by_id.get(&id) else { return };
        let place = (producer.heard_at, id);
        let written = snapshot.after.is_some_and(|after| place <= after);
        if !written && place <= snapshot.end {
            snapshot.write(id, producer);
        }
    }

    /// The file of what is known now, written at once.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut snapshot = Snapshot::new((i64::MIN, i64::MIN), self.len());
        for (id, producer) in self.iter() {
            snapshot.write(id, producer);
        }
        snapshot.finish()
    }

    /// Reads such a file; `None` when it is damaged. The most silent beyond `producers_max` are left out.
    #[must_use]
    pub fn decode(file: &[u8], producers_max: usize) -> Option<Self> {
        let body = file.strip_prefix(MAGIC)?;
        let (sum, mut body) = body.split_first_chunk::<4>()?;
        if crc32fast::hash(body) != u32::from_le_bytes(*sum) {
            return None;
        }
        let mut producers = Self::new(producers_max);
        let count = u64::from_le_bytes(take(&mut body)?);
        for _ in 0..count {
            let (id, producer) = read(&mut body)?;
            producers.by_silence.insert((producer.heard_at, id));
            if producers.by_id.insert(id, producer).is_some() {
                return None;
            }
        }
        while producers.len() > producers.producers_max {
            producers.drop_most_silent();
        }
        body.is_empty().then_some(producers)
    }
}

fn read(bytes: &mut &[u8]) -> Option<(i64, Producer)> {
    let id = i64::from_le_bytes(take(bytes)?);
    let epoch = i16::from_le_bytes(take(bytes)?);
    let count = usize::from(u16::from_le_bytes(take(bytes)?));
    let seen_ms = i64::from_le_bytes(take(bytes)?);
    if count == 0 || count > BATCHES_MAX {
        return None;
    }
    let mut batches = VecDeque::with_capacity(BATCHES_MAX);
    for _ in 0..count {
        batches.push_back(Stored {
            base_sequence: i32::from_le_bytes(take(bytes)?),
            last_sequence: i32::from_le_bytes(take(bytes)?),
            base_offset: i64::from_le_bytes(take(bytes)?),
            last_offset: i64::from_le_bytes(take(bytes)?),
            timestamp_ms: i64::from_le_bytes(take(bytes)?),
        });
    }
    let heard_at = batches.back().map_or(-1, |last: &Stored| last.last_offset);
    Some((id, Producer { epoch, batches, seen_ms, begins_at: None, heard_at }))
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (array, rest) = bytes.split_first_chunk::<N>()?;
    *bytes = rest;
    Some(*array)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::BatchId;
    use super::*;

    fn append(producers: &mut Producers, id: i64, epoch: i16, offset: i64) {
        let stored = Stored {
            base_sequence: 3,
            last_sequence: 4,
            base_offset: offset,
            last_offset: offset + 1,
            timestamp_ms: 5,
        };
        producers.append(id, epoch, stored, offset);
    }

    #[test]
    fn golden_bytes() {
        let mut producers = Producers::new(5);
        append(&mut producers, 7, 2, 9);
        let mut expected = b"prodst01".to_vec();
        let mut body = vec![1, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 2, 0, 1, 0];
        body.extend_from_slice(&[9, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 4, 0, 0, 0]);
        for number in [9, 10, 5] {
            body.extend_from_slice(&[number, 0, 0, 0, 0, 0, 0, 0]);
        }
        expected.extend_from_slice(&crc32fast::hash(&body).to_le_bytes());
        expected.extend_from_slice(&body);
        assert_eq!(producers.encode(), expected);
    }

    #[test]
    fn steps_end_and_a_cut_ends_them() {
        let mut producers = Producers::new(50);
        assert_eq!(producers.step_snapshot(9), Step::None);
        producers.begin_snapshot();
        assert_eq!(producers.step_snapshot(9), Step::File(Producers::new(1).encode()));
        assert_eq!(producers.step_snapshot(9), Step::None);
        for id in 0..20 {
            append(&mut producers, id, 0, id * 10);
        }
        for (budget, steps) in [(7, 3), (10, 2), (19, 2), (20, 1), (21, 1)] {
            producers.begin_snapshot();
            for _ in 1..steps {
                assert_eq!(producers.step_snapshot(budget), Step::More, "{budget}");
            }
            assert_eq!(producers.step_snapshot(budget), Step::File(producers.encode()));
        }
        producers.begin_snapshot();
        assert_eq!(producers.step_snapshot(1), Step::More);
        producers.truncate(100);
        assert_eq!(producers.step_snapshot(1), Step::None);
    }

    /// A file with this body.
    fn file(body: &[u8]) -> Vec<u8> {
        [MAGIC, &crc32fast::hash(body).to_le_bytes()[..], body].concat()
    }

    #[test]
    fn files_that_say_what_cannot_be_are_refused() {
        let mut producers = Producers::new(5);
        for offset in 0..5 {
            append(&mut producers, 7, 2, offset * 10);
        }
        let whole = producers.encode();
        let (_, body) = whole.split_at(MAGIC.len() + 4);
        assert!(Producers::decode(&file(body), 5).is_some());
        let (count, one) = body.split_at(8);
        let two: Vec<u8> = [&[2, 0, 0, 0, 0, 0, 0, 0], one, one].concat();
        assert!(Producers::decode(&file(&two), 5).is_none(), "one twice");
        let more = [body, &[0]].concat();
        assert!(Producers::decode(&file(&more), 5).is_none(), "bytes behind");
        let many: Vec<u8> = [&[255; 8], one].concat();
        assert!(Producers::decode(&file(&many), 5).is_none(), "producers that are not there");
        let (head, batches) = one.split_at(PRODUCER_BYTES);
        let with = |count: u8, batches: &[u8]| {
            let mut head = head.to_vec();
            head.splice(10..12, [count, 0]);
            Producers::decode(&file(&[count_one(), &head, batches].concat()), 5)
        };
        assert_eq!(count, count_one());
        assert!(with(5, batches).is_some());
        let (last, _) = batches.split_at(STORED_BYTES);
        assert!(with(6, &[batches, last].concat()).is_none(), "six batches");
        assert!(with(0, &[]).is_none(), "none");
    }

    fn count_one() -> &'static [u8] {
        &[1, 0, 0, 0, 0, 0, 0, 0]
    }

    #[test]
    fn the_most_silent_are_left_out_of_a_smaller_one() {
        let mut producers = Producers::new(5);
        for (id, offset) in [(3, 0), (1, 10), (2, 20), (3, 30)] {
            append(&mut producers, id, 0, offset);
        }
        let read = Producers::decode(&producers.encode(), 2).expect("what was written");
        assert_eq!(read.iter().map(|(id, _)| id).collect::<Vec<_>>(), [2, 3]);
        assert_eq!(read.get(3).map(|producer| producer.batches.len()), Some(2));
    }

    proptest! {
        #[test]
        fn a_snapshot_is_of_the_moment_it_was_begun(
            before in prop::collection::vec((0_i64..30, 0_i16..2), 0..60),
            meanwhile in prop::collection::vec((0_i64..40, 0_i16..3, 0_usize..4, any::<bool>()), 0..60),
        ) {
            let mut producers = Producers::new(30);
            let mut offset = 0;
            for (id, epoch) in before {
                append(&mut producers, id, epoch, offset);
                offset += 10;
            }
            let expected = producers.encode();
            producers.begin_snapshot();
            let mut file = None;
            for (id, epoch, budget, expires) in meanwhile {
                // Those that are refused are not in the file, and are when they were before.
                let batch = BatchId { producer_id: id + 5, epoch, base_sequence: 3, last_sequence: 4 };
                producers.refused(&batch, offset);
                append(&mut producers, id, epoch, offset);
                offset += 10;
                if expires {
                    producers.expire(offset - 300, 2);
                }
                if let Step::File(whole) = producers.step_snapshot(budget) {
                    file = Some(whole);
                }
            }
            if let Step::File(whole) = producers.step_snapshot(usize::MAX) {
                file = Some(whole);
            }
            let read = Producers::decode(&file.expect("it ends"), 30).expect("what was written");
            prop_assert_eq!(read.encode(), expected);
        }

        #[test]
        fn a_file_comes_back_and_every_damage_is_seen(
            batches in prop::collection::vec((0_i64..6, 0_i16..4), 0..40),
            damage in any::<prop::sample::Index>(),
        ) {
            let mut producers = Producers::new(5);
            for (at, (producer_id, epoch)) in batches.into_iter().enumerate() {
                append(&mut producers, producer_id, epoch, i64::try_from(at)? * 10);
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
