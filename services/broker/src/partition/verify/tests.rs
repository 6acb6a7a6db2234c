//! Stretches of a sealed segment on a simulated disk: what is found, what is served, and that nothing is checked twice.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use engine::driver::sim::{Faults, World};
use wire::kafka::batch::batches;
use wire::kafka::records::{BatchMeta, Record, write_batch};

use super::super::Synced;
use super::super::ranges::Ranges;
use super::super::read::{Located, Missing};
use super::super::segment::{INDEX, LOG, file_name};
use super::*;
use crate::code::Code;
use crate::testing::in_world;
use crate::topic_config::TopicConfig;

const DIR: &str = "/data/t-0";
const TURNS_MAX: u64 = 10_000_000;
/// Of a batch's only record.
const VALUE_BYTES: usize = 60_000;
/// Batches of the sealed segment: three stretches and a bit.
const BATCHES: i64 = 240;
/// Taken by a consumer at once.
const FETCH_BYTES: u64 = 1 << 20;

fn batch(value_bytes: usize) -> Vec<u8> {
    let meta = BatchMeta {
        producer_id: -1,
        producer_epoch: -1,
        base_sequence: -1,
        ..BatchMeta::default()
    };
    let value = vec![7; value_bytes];
    let mut bytes = Vec::new();
    write_batch(&mut bytes, &meta, [Record::new(0, 0, None, Some(&value))]);
    bytes
}

/// A partition with one sealed segment and what follows it, as a start finds it.
struct Log1 {
    cx: ShardCx,
    partition: RefCell<Partition>,
    /// Bytes checked, and stretches.
    checked: std::cell::Cell<(u64, u32)>,
}

async fn open(cx: &ShardCx, segment_bytes: u64) -> Log1 {
    let values = BTreeMap::from([("segment.bytes".to_owned(), segment_bytes.to_string())]);
    let config = Rc::new(TopicConfig::new(&values));
    let opened = Partition::open(cx, PathBuf::from(DIR), "t".into(), 0, config).await;
    let partition = RefCell::new(opened.expect("readable"));
    Log1 { cx: cx.clone(), partition, checked: std::cell::Cell::default() }
}

impl Log1 {
    fn with<T>(&self, work: impl FnOnce(&mut Partition) -> T) -> T {
        work(&mut self.partition.borrow_mut())
    }

    /// Fills the log with so many batches of one record, durable and with sidecars.
    async fn fill(&self, count: i64, value_bytes: usize) {
        let (cx, bytes) = (&self.cx, batch(value_bytes));
        for _ in 0..count {
            self.with(|one| one.produce(cx, &bytes, cx.now())).expect("taken");
        }
        // Sidecars are written with a checkpoint.
        self.with(|one| one.since_checkpoint = super::super::CHECKPOINT_BYTES);
        while self.with(|one| one.needs_sync(true)) {
            let job = self.with(|one| one.begin_sync(cx)).expect("due");
            let Synced { target, result, sidecars } = job.run(cx).await;
            self.with(|one| one.end_sync(cx, target, result));
            if let Some(mut job) = sidecars {
                while self.with(|one| one.step_snapshot(&mut job)) {}
                job.run(cx).await.expect("room");
            }
        }
    }

    /// As `fetch::verify`, and counts.
    async fn verify(&self, place: Unverified) {
        let wanted = self.with(|one| one.verification(&self.cx, place)).expect("readable");
        let verification = wanted.expect("not done yet");
        let verified = verification.run().await.expect("readable");
        let (bytes, stretches) = self.checked.get();
        self.checked.set((bytes + verified.extent().1, stretches + 1));
        self.with(|one| one.verified(&self.cx, place.base, &verified));
    }

    async fn locate(&self, offset: i64) -> Result<Option<Located>, Code> {
        loop {
            match self.with(|one| one.locate(&self.cx, offset, FETCH_BYTES, true)) {
                Ok(found) => return Ok(found),
                Err(Missing::Cold(cold)) => crate::fetch::warm(cold).await,
                Err(Missing::Unverified(place)) => self.verify(place).await,
                Err(Missing::Refused(code)) => return Err(code),
            }
        }
    }

    /// Offsets that are served from one on, and those that are refused.
    async fn read(&self, from: i64, to: i64) -> (Vec<i64>, Vec<i64>) {
        let (mut offset, mut served, mut refused) = (from, Vec::new(), Vec::new());
        while offset < to {
            let range = match self.locate(offset).await {
                Ok(range) => range.expect("records"),
                Err(code) => {
                    assert_eq!(code, Code::CorruptMessage);
                    refused.push(offset);
                    offset += 1;
                    continue;
                }
            };
            let len = range.len as usize;
            let buf = engine::buf::DirectBuf::zeroed(len);
            let read = range.file.read_at(buf, len, range.position, engine::fs::Caching::Keep);
            let (buf, read) = read.await.expect("readable");
            let mut bytes = 0;
            for batch in batches(&buf[..read]).map_while(Result::ok) {
                batch.check_crc().expect("what is served is undamaged");
                bytes += batch.len();
                if batch.base_offset() >= offset {
                    served.push(batch.base_offset());
                    offset = batch.last_offset() + 1;
                }
            }
            assert_eq!(bytes, len, "whole batches");
        }
        (served, refused)
    }

    fn sealed_bytes(&self) -> u64 {
        self.with(|one| one.segments[0].len)
    }
}

/// A log of [`BATCHES`] batches in its first segment, in which bits flip at these positions of files before it is read.
fn with_damage<F: Future<Output = ()> + 'static>(
    flips: &[(&str, u64)],
    test: impl FnOnce(Log1) -> F + 'static,
) {
    let world = World::new(1, Faults::none());
    let segment_bytes = BATCHES as u64 * batch(VALUE_BYTES).len() as u64;
    let ended = in_world(&world, TURNS_MAX, move |cx| async move {
        open(&cx, segment_bytes).await.fill(BATCHES + 1, VALUE_BYTES).await;
    });
    assert!(ended);
    for (suffix, at) in flips {
        let path = Path::new(DIR).join(file_name(0, suffix));
        assert!(world.flip_bit(&path, *at, 3), "{suffix} {at}");
    }
    let ended = in_world(&world, TURNS_MAX, move |cx| async move {
        let log = open(&cx, segment_bytes).await;
        assert_eq!(log.with(|one| (one.segments.len(), one.end)), (2, BATCHES + 1));
        test(log).await;
    });
    assert!(ended);
}

fn at_batch(number: i64) -> u64 {
    number as u64 * batch(VALUE_BYTES).len() as u64
}

#[test]
fn a_consumer_that_reads_on_has_each_byte_checked_once() {
    with_damage(&[], |log| async move {
        let first = log.locate(0).await.expect("undamaged").expect("records");
        assert!(first.len > FETCH_BYTES / 2);
        let (bytes, stretches) = log.checked.get();
        assert!(stretches == 1 && bytes < STRETCH_BYTES + FETCH_BYTES, "{bytes} before the first");
        let (served, refused) = log.read(0, BATCHES + 1).await;
        assert_eq!(served, (0..=BATCHES).collect::<Vec<_>>());
        assert!(refused.is_empty(), "{refused:?}");
        assert_eq!(log.checked.get(), (log.sealed_bytes(), 4));
        log.read(0, BATCHES + 1).await;
        assert_eq!(log.checked.get(), (log.sealed_bytes(), 4), "once and for all");
    });
}

#[test]
fn a_consumer_in_the_middle_has_that_checked_and_others_add_the_rest() {
    with_damage(&[], |log| async move {
        let (served, _) = log.read(150, 151).await;
        assert_eq!(served[0], 150);
        let (bytes, stretches) = log.checked.get();
        assert!(stretches == 1 && bytes < STRETCH_BYTES + FETCH_BYTES, "{bytes}");
        assert!(log.with(|one| one.segments[0].verified.containing(0).is_none()));
        let (served, _) = log.read(0, BATCHES).await;
        assert_eq!(served[..], (0..BATCHES).collect::<Vec<_>>()[..]);
        assert_eq!(log.checked.get().0, log.sealed_bytes(), "what was checked is not checked anew");
        let whole = log.with(|one| one.segments[0].verified.containing(0)).expect("checked");
        assert_eq!((whole.to, whole.next), (log.sealed_bytes(), BATCHES));
    });
}

#[test]
fn damage_is_refused_where_it_is_and_the_rest_is_served() {
    for bad in [0, 1, 69, 70, 71, 120, BATCHES - 1] {
        for from in [0, bad] {
            with_damage(&[(LOG, at_batch(bad) + 1000)], move |log| async move {
                let (served, refused) = log.read(from, BATCHES + 1).await;
                let good: Vec<i64> = (from..=BATCHES).filter(|offset| *offset != bad).collect();
                assert_eq!((served, refused), (good, vec![bad]), "batch {bad} from {from}");
                assert_eq!(log.with(|one| one.damaged()), 1);
                let damage = log.with(|one| one.segments[0].damage.clone());
                let place = (at_batch(bad), at_batch(bad + 1));
                assert_eq!(
                    damage,
                    [Damage { from: place.0, to: place.1, first: bad, next: bad + 1 }]
                );
                // From the start on once more: what is known is not told again.
                log.read(0, BATCHES + 1).await;
                assert_eq!(log.with(|one| one.damaged()), 1);
            });
        }
    }
}

#[test]
fn what_follows_a_batch_of_unknown_length_is_found_in_few_reads() {
    // The length of the batch in which the first stretch ends.
    let bad = (STRETCH_BYTES / at_batch(1)).cast_signed();
    with_damage(&[(LOG, at_batch(bad) + 11)], move |log| async move {
        let before = log.cx.driver().stats().calls;
        assert!(log.locate(0).await.expect("undamaged").is_some());
        let reads = log.cx.driver().stats().calls - before;
        assert!(reads < 200, "{reads} calls");
        assert_eq!(log.read(bad, bad + 2).await.1, [bad]);
        let damage = log.with(|one| one.segments[0].damage.clone());
        assert_eq!(damage[0].to, at_batch(bad + 1));
    });
}

#[test]
fn an_index_that_lies_makes_no_damage() {
    // The position in the entry of batch 101.
    with_damage(&[(INDEX, 8 * 100 + 6)], |log| async move {
        let entry = log.with(|one| one.segments[0].offsets.find(101));
        assert_ne!(u64::from(entry.position), at_batch(101), "it lies");
        let _ = log.locate(101).await;
        assert_eq!(log.with(|one| (one.damaged(), one.segments[0].damage.len())), (0, 0));
        let (bytes, stretches) = log.checked.get();
        assert!(stretches == 1 && bytes > at_batch(101), "{bytes} from the segment's start on");
        assert_eq!(log.read(102, 110).await.0[..8], (102..110).collect::<Vec<_>>()[..]);
    });
}

#[test]
fn more_damage_than_can_be_told_apart_takes_in_all_that_follows() {
    let bad: Vec<i64> = (0..DAMAGE_MAX as i64 + 6).map(|n| 2 * n + 1).collect();
    let flips: Vec<(&str, u64)> = bad.iter().map(|at| (LOG, at_batch(*at) + 1000)).collect();
    let last = *bad.last().expect("some");
    with_damage(&flips, move |log| async move {
        let (served, refused) = log.read(0, BATCHES + 1).await;
        let all_from = bad[DAMAGE_MAX - 1];
        let gone = |offset: &i64| bad.contains(offset) || (all_from..=last).contains(offset);
        assert_eq!(refused, (0..=BATCHES).filter(gone).collect::<Vec<_>>());
        assert_eq!(served, (0..=BATCHES).filter(|offset| !gone(offset)).collect::<Vec<_>>());
        assert_eq!(log.with(|one| one.segments[0].damage.len()), DAMAGE_MAX);
    });
}

#[test]
fn what_was_forgotten_is_checked_anew_and_its_damage_told_once() {
    with_damage(&[(LOG, at_batch(3) + 1000)], |log| async move {
        let before = log.read(0, 10).await;
        log.with(|one| one.segments[0].verified = Ranges::default());
        assert_eq!(log.read(0, 10).await, before);
        assert_eq!(log.with(|one| (one.damaged(), one.segments[0].damage.len())), (1, 1));
    });
}

#[test]
fn what_the_active_segment_held_at_a_start_is_checked_too() {
    let world = World::new(1, Faults::none());
    let ended = in_world(&world, TURNS_MAX, |cx| async move {
        open(&cx, 1 << 30).await.fill(BATCHES, VALUE_BYTES).await;
    });
    assert!(ended);
    assert!(world.flip_bit(&Path::new(DIR).join(file_name(0, LOG)), at_batch(7) + 1000, 3));
    let ended = in_world(&world, TURNS_MAX, |cx| async move {
        let log = open(&cx, 1 << 30).await;
        log.fill(1, VALUE_BYTES).await;
        let (served, refused) = log.read(0, BATCHES + 1).await;
        assert_eq!(refused, [7]);
        assert_eq!(served.len() as i64, BATCHES);
    });
    assert!(ended);
}

#[test]
fn damage_is_merged_in_any_order() {
    let one = |first: i64, next: i64| Damage { from: first as u64, to: next as u64, first, next };
    let mut damage = Vec::new();
    for (first, next) in [(50, 60), (10, 20), (30, 40)] {
        assert!(add(&mut damage, one(first, next)));
    }
    assert!(!add(&mut damage, one(12, 20)), "known");
    assert_eq!(damage, [one(10, 20), one(30, 40), one(50, 60)]);
    assert!(add(&mut damage, one(20, 35)));
    assert_eq!(damage, [one(10, 40), one(50, 60)]);
}
