//! Segments in which bits change anywhere, headers as likely as records: which offsets are given up.

use std::collections::BTreeSet;
use std::path::Path;
use std::rc::Rc;

use engine::buf::DirectBuf;
use engine::driver::OpenOptions;
use engine::driver::sim::{Faults, World};
use engine::fs::File;
use engine::rng::Rng;
use engine::shard::ShardCx;
use wire::kafka::records::{BatchMeta, Record, write_batch};

use super::*;
use crate::testing::in_world;

const TURNS_MAX: u64 = 10_000_000;

/// A segment's bytes, and what is where.
#[derive(Clone, Debug, Default)]
struct Log1 {
    bytes: Vec<u8>,
    /// Position, first offset and the one behind, of each batch.
    batches: Vec<(usize, i64, i64)>,
}

impl Log1 {
    /// Batches of so many records each.
    fn new(base: i64, batches: impl IntoIterator<Item = usize>) -> Self {
        let mut log = Self::default();
        let mut next = base;
        for records in batches {
            let meta = BatchMeta {
                base_offset: next,
                leader_epoch: 0,
                last_offset_delta: i32::try_from(records).expect("few") - 1,
                producer_id: -1,
                producer_epoch: -1,
                base_sequence: -1,
                ..BatchMeta::default()
            };
            let at = log.bytes.len();
            let records =
                (0..records as i32).map(|delta| Record::new(delta, 0, None, Some(b"value")));
            let behind = next + records.len() as i64;
            write_batch(&mut log.bytes, &meta, records);
            log.batches.push((at, next, behind));
            next = behind;
        }
        log
    }

    fn offsets(&self) -> (i64, i64) {
        (self.batches[0].1, self.batches[self.batches.len() - 1].2)
    }

    fn flip(&mut self, at: usize, bit: u32) {
        self.bytes[at] ^= 1 << bit;
    }

    /// Position of a field of a batch's header.
    fn field(&self, batch: usize, at: usize) -> usize {
        self.batches[batch].0 + at
    }

    /// Offsets that are served.
    async fn served(&self, cx: &ShardCx, number: u64, has_gaps: bool) -> BTreeSet<i64> {
        let path = format!("/data/{number}");
        let options = OpenOptions { write: true, create: true, ..OpenOptions::default() };
        let file = File::open(cx, Path::new(&path), &options).expect("room");
        let mut buf = DirectBuf::zeroed(self.bytes.len());
        buf[..self.bytes.len()].copy_from_slice(&self.bytes);
        let written = file.write_at(buf, self.bytes.len(), 0).await;
        drop(written.expect("room"));
        let (mut expected, limit) = self.offsets();
        let end = self.bytes.len() as u64;
        let mut check = Check::stretch(Rc::new(file), 0, end, end, has_gaps);
        let mut served = BTreeSet::new();
        while check.position < end {
            if let Some(batch) = check.next(expected).await.expect("readable") {
                served.extend(batch.base_offset()..=batch.last_offset());
                expected = batch.last_offset() + 1;
            } else {
                let damage = check.skip_damage(expected, limit).await.expect("readable");
                assert!(damage.to > damage.from && damage.next > expected, "{damage:?}");
                expected = damage.next;
            }
        }
        served
    }
}

/// Runs a test on a shard with a disk.
fn on_disk<F: Future<Output = ()> + 'static>(test: impl FnOnce(ShardCx) -> F + 'static) {
    let world = World::new(1, Faults::none());
    assert!(in_world(&world, TURNS_MAX, move |cx| async move {
        cx.driver().make_dir(Path::new("/data")).expect("room");
        test(cx).await;
    }));
}

/// What is served of a log, of which `number` is its own.
async fn served(cx: &ShardCx, log: &Log1, number: u64) -> Vec<i64> {
    log.served(cx, number, false).await.into_iter().collect()
}

#[test]
fn what_was_hit_is_refused_and_nothing_else() {
    on_disk(|cx| async move {
        let mut rng = Rng::new(7);
        for number in 0..20_000 {
            let batches: Vec<usize> =
                (0..rng.between(2, 10)).map(|_| rng.between(1, 5) as usize).collect();
            let mut log = Log1::new(rng.below(300) as i64, batches);
            let (from, to) = log.offsets();
            let mut good: BTreeSet<i64> = (from..to).collect();
            let mut flips = BTreeSet::new();
            for _ in 0..rng.between(1, 3) {
                let batch = rng.index(log.batches.len());
                let (start, first, behind) = log.batches[batch];
                let end = log.batches.get(batch + 1).map_or(log.bytes.len(), |next| next.0);
                let within = if rng.chance(1, 2) { HEADER_BYTES } else { end - start };
                let flip = (start + rng.index(within), rng.below(8) as u32);
                if flips.insert(flip) {
                    log.flip(flip.0, flip.1);
                    good.retain(|offset| !(first..behind).contains(offset));
                }
            }
            let served = log.served(&cx, number, false).await;
            assert_eq!(served, good, "case {number}, batches {:?}, flips {flips:?}", log.batches);
            cx.driver().unlink(Path::new(&format!("/data/{number}"))).expect("there");
        }
    });
}

#[test]
fn an_offset_that_changed_is_outvoted_by_those_around() {
    on_disk(|cx| async move {
        // The batch of offsets 2 and 3 is hit in its records, and the one behind in its offset: 4 becomes 5.
        let mut log = Log1::new(0, [2; 5]);
        log.flip(log.field(1, 70), 3);
        log.flip(log.field(2, 7), 0);
        assert_eq!(served(&cx, &log, 0).await, [0, 1, 6, 7, 8, 9]);
        // The bad one seems to have one offset more: it is alone in that.
        let mut log = Log1::new(0, [2; 5]);
        log.flip(log.field(1, 26), 1);
        assert_eq!(served(&cx, &log, 1).await, [0, 1, 4, 5, 6, 7, 8, 9]);
    });
}

#[test]
fn the_end_of_a_segment_tells_what_headers_do_not() {
    on_disk(|cx| async move {
        // Both the bad batch's number of offsets and the good one's offset changed.
        let mut log = Log1::new(0, [2, 2, 2]);
        log.flip(log.field(1, 26), 1);
        log.flip(log.field(2, 7), 0);
        assert_eq!(served(&cx, &log, 0).await, [0, 1]);
        let mut log = Log1::new(0, [2, 2, 2, 2]);
        log.flip(log.field(1, 26), 1);
        log.flip(log.field(2, 7), 0);
        assert_eq!(served(&cx, &log, 1).await, [0, 1, 6, 7]);
    });
}

#[test]
fn a_batch_in_a_record_is_not_taken_for_one_of_the_log() {
    on_disk(|cx| async move {
        // The value is a log itself, of offsets that this segment might have.
        let inner = Log1::new(2, [1, 1]).bytes;
        let meta = BatchMeta { base_offset: 1, leader_epoch: 0, ..BatchMeta::default() };
        let mut log = Log1::new(0, [1]);
        let mut outer = Vec::new();
        write_batch(&mut outer, &meta, [Record::new(0, 0, None, Some(&inner))]);
        let at = log.bytes.len();
        log.bytes.extend_from_slice(&outer);
        log.batches.push((at, 1, 2));
        for base in [2, 3, 4] {
            let next = Log1::new(base, [1]);
            log.batches.push((log.bytes.len(), base, base + 1));
            log.bytes.extend_from_slice(&next.bytes);
        }
        let whole = log.clone();
        assert_eq!(served(&cx, &log, 0).await, [0, 1, 2, 3, 4]);
        // Its length, by which the batch behind is found nevertheless; its checksum.
        for (number, byte) in [(1, 11), (2, 9), (3, 17)] {
            let mut log = whole.clone();
            log.flip(log.field(1, byte), 1);
            assert_eq!(served(&cx, &log, number).await, [0, 2, 3, 4], "byte {byte}");
        }
    });
}

#[test]
fn after_compaction_the_batches_alone_tell() {
    on_disk(|cx| async move {
        let mut log = Log1::new(0, [2]);
        for base in [10, 20, 30] {
            let next = Log1::new(base, [2]);
            log.batches.push((log.bytes.len(), base, base + 2));
            log.bytes.extend_from_slice(&next.bytes);
        }
        for (number, byte) in [(0, 70), (1, 26), (2, 11)] {
            let mut log = log.clone();
            log.flip(log.field(1, byte), 1);
            let served: Vec<i64> = log.served(&cx, number, true).await.into_iter().collect();
            assert_eq!(served, [0, 1, 20, 21, 30, 31], "byte {byte}");
        }
    });
}
