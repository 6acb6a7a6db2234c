//! Rounds on a simulated disk: what stays, with every codec, what a crash at any moment leaves, and what any single failure does.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::rc::Rc;

use engine::buf::DirectBuf;
use engine::driver::sim::{Faults, World};
use engine::fs::Caching;
use engine::shard::ShardCx;
use wire::kafka::batch::{Batch, Codec, batches};
use wire::kafka::compress::{Compress, decompress};
use wire::kafka::records::{BatchMeta, Record, records, write_batch, write_batch_of};

use super::*;
use crate::ShardConfig;
use crate::code::Code;
use crate::partition::{Missing, Synced};
use crate::testing::in_world;

const DIR: &str = "/data/t-0";
const TURNS_MAX: u64 = 1_000_000;

/// A topic of small segments that is compacted as soon as there is something to compact.
fn config(set: &[(&str, &str)]) -> Rc<TopicConfig> {
    let mut values = BTreeMap::from(
        [
            ("cleanup.policy", "compact"),
            ("min.cleanable.dirty.ratio", "0"),
            ("segment.bytes", "600"),
            ("delete.retention.ms", "1000"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned())),
    );
    values.extend(set.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    crate::topic_config::check_all(&values).expect("a valid topic");
    Rc::new(TopicConfig::new(&values))
}

type Pair<'a> = (&'a str, Option<&'a str>);

/// A batch as a producer sends it.
fn batch(codec: Codec, producer: Option<(i64, i32)>, now_ms: i64, pairs: &[Pair<'_>]) -> Vec<u8> {
    let (producer_id, base_sequence) = producer.unwrap_or((-1, -1));
    let meta = BatchMeta {
        base_timestamp: now_ms,
        max_timestamp: now_ms,
        last_offset_delta: pairs.len() as i32 - 1,
        producer_id,
        producer_epoch: if producer_id < 0 { -1 } else { 0 },
        base_sequence,
        ..BatchMeta::default()
    };
    let made = (0..).zip(pairs).map(|(delta, (key, value))| {
        Record::new(delta, 0, Some(key.as_bytes()), value.map(str::as_bytes))
    });
    let mut plain = Vec::new();
    write_batch(&mut plain, &meta, made);
    let (split, _) = Batch::split(&plain).expect("made just now");
    let mut job = Compress::new(codec).expect("memory");
    job.write(split.body()).expect("taken");
    let body = job.finish().expect("an end");
    let mut bytes = Vec::new();
    write_batch_of(&mut bytes, &meta, codec, pairs.len() as i32, &body);
    bytes
}

/// One partition of a shard, and what was acknowledged.
struct Log1 {
    cx: ShardCx,
    shard: Rc<RefCell<Shard>>,
    slot: Slot,
}

impl Log1 {
    async fn open(cx: &ShardCx, config: Rc<TopicConfig>) -> Result<Self, Error> {
        let shard_config = ShardConfig {
            node: 1,
            plain: crate::Endpoint { host: "h".into(), ports: vec![1] },
            tls: None,
            request_max_bytes: 1 << 20,
            partitions: 1,
            auto_create: false,
            partitions_max: 10,
            rebalance_delay_ms: 0,
            compaction_memory_bytes: 1 << 16,
            in_flight_max: 256,
            users: None,
            reauth_ms: 0,
            quotas: None,
            session_min_ms: 6_000,
        };
        let mut shard = Shard::new(cx, shard_config);
        let partition = Partition::open(cx, PathBuf::from(DIR), "t".into(), 0, config).await?;
        let slot = shard.add_partition(partition);
        Ok(Self { cx: cx.clone(), shard: Rc::new(RefCell::new(shard)), slot })
    }

    fn with<T>(&self, work: impl FnOnce(&mut Partition) -> T) -> T {
        work(self.shard.borrow_mut().partition(self.slot).expect("it is there"))
    }

    fn now_ms(&self) -> i64 {
        unix_ms(self.cx.now())
    }

    /// Produces a batch and has it synced; where it begins.
    async fn produce(&self, bytes: &[u8]) -> Result<i64, Code> {
        let cx = &self.cx;
        let appended = self.with(|partition| partition.produce(cx, bytes, cx.now()));
        let appended = appended.map_err(|refusal| refusal.code)?;
        self.sync().await;
        let durable = self.with(|partition| partition.high_watermark()) >= appended.end;
        if durable { Ok(appended.base_offset) } else { Err(Code::StorageError) }
    }

    async fn sync(&self) {
        let cx = &self.cx;
        while self.with(|partition| partition.needs_sync(true)) {
            let Some(job) = self.with(|partition| partition.begin_sync(cx)) else { return };
            let Synced { target, result, sidecars } = job.run(cx).await;
            self.with(|partition| partition.end_sync(cx, target, result));
            if let Some(job) = sidecars {
                let job = crate::serve::with_snapshot(&self.shard, self.slot, job).await;
                // As the broker: a start has more to read.
                let _ = job.run(cx).await;
            }
        }
    }

    async fn compact(&self) {
        compact(&self.cx, &self.shard, self.slot).await;
    }

    /// Everything a consumer reads from the log's start on.
    async fn read(&self) -> Vec<(i64, String, Option<String>)> {
        let start = self.with(|partition| partition.start());
        self.read_from(start).await
    }

    async fn read_from(&self, mut offset: i64) -> Vec<(i64, String, Option<String>)> {
        let mut found = Vec::new();
        loop {
            let cx = &self.cx;
            let range = match self.with(|partition| partition.locate(cx, offset, 500, true)) {
                Ok(Some(range)) => range,
                Ok(None) => return found,
                Err(Missing::Cold(cold)) => {
                    crate::fetch::warm(cold).await;
                    continue;
                }
                Err(Missing::Unverified(place)) => {
                    let checked = crate::fetch::verify(&self.shard, self.slot, place).await;
                    checked.expect("readable");
                    continue;
                }
                Err(Missing::Refused(code)) => panic!("offset {offset}: {code}"),
            };
            let len = range.len as usize;
            let buf = DirectBuf::zeroed(len);
            let read = range.file.read_at(buf, len, range.position, Caching::Keep).await;
            let (buf, read) = read.expect("readable");
            let before = offset;
            for batch in batches(&buf[..read]).map_while(Result::ok) {
                batch.check_crc().expect("undamaged");
                offset = offset.max(batch.last_offset() + 1);
                let codec = batch.codec().expect("known");
                let body = decompress(codec, batch.body(), 1 << 20).expect("its codec");
                for record in records(&body).map(|record| record.expect("well-formed")) {
                    let at = batch.base_offset() + i64::from(record.offset_delta);
                    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                    if at >= before {
                        found.push((at, text(record.key.expect("a key")), record.value.map(text)));
                    }
                }
            }
            assert!(offset > before, "no progress at {before}");
        }
    }

    fn len_bytes(&self) -> u64 {
        self.with(|partition| partition.len_bytes())
    }
}

/// What was acknowledged, in order.
#[derive(Clone, Debug, Default)]
struct Model(Vec<(i64, String, Option<String>)>);

impl Model {
    fn add(&mut self, base: i64, pairs: &[Pair<'_>]) {
        for (offset, (key, value)) in (base..).zip(pairs) {
            self.0.push((offset, (*key).to_owned(), value.map(str::to_owned)));
        }
    }

    /// Every record that is found was stored there, and the last of each key is found, but for tombstones.
    fn check(&self, found: &[(i64, String, Option<String>)], what: &str) {
        assert!(found.is_sorted_by_key(|(offset, ..)| *offset), "{what}: in order");
        for record in found {
            assert!(self.0.contains(record), "{what}: {record:?} was never stored");
        }
        let last: BTreeMap<&String, _> = self.0.iter().map(|one| (&one.1, one)).collect();
        for (key, record) in &last {
            let kept = found.iter().filter(|one| one.1 == **key).max_by_key(|one| one.0);
            match kept {
                Some(kept) => assert_eq!(kept, *record, "{what}: the last of {key}"),
                None => assert_eq!(record.2, None, "{what}: {key} is gone"),
            }
        }
    }

    /// Nothing superseded is left before an offset.
    fn check_clean(&self, found: &[(i64, String, Option<String>)], end: i64, what: &str) {
        let clean: Vec<_> = found.iter().filter(|(offset, ..)| *offset < end).collect();
        for (at, (_, key, _)) in clean.iter().enumerate() {
            let later = clean.iter().skip(at + 1).any(|one| one.1 == *key);
            assert!(!later, "{what}: {key} is there twice");
        }
    }
}

/// Thirty batches of two records each over eight keys.
async fn fill(log: &Log1, codec: Codec, model: &mut Model) {
    for n in 0..30_u32 {
        let keys = [format!("k{}", n % 8), format!("k{}", n * 3 % 8)];
        let values = [format!("v{n}"), format!("w{n}")];
        let tombstone = n % 11 == 10;
        let second = (!tombstone).then_some(values[1].as_str());
        let pairs = [(keys[0].as_str(), Some(values[0].as_str())), (keys[1].as_str(), second)];
        let producer = Some((40 + i64::from(n % 3), (n / 3 * 2) as i32));
        let bytes = batch(codec, producer, log.now_ms(), &pairs);
        match log.produce(&bytes).await {
            Ok(base) => model.add(base, &pairs),
            // Not acknowledged: there or not.
            Err(_) => return,
        }
    }
}

#[test]
fn the_last_record_of_each_key_stays_with_every_codec() {
    for codec in Codec::ALL {
        let world = World::new(1, Faults::none());
        assert!(in_world(&world, TURNS_MAX, move |cx| async move {
            let log = Log1::open(&cx, config(&[])).await.expect("made");
            let mut model = Model::default();
            fill(&log, codec, &mut model).await;
            assert_eq!(model.0.len(), 60, "everything was taken");
            let before = log.len_bytes();
            log.compact().await;
            let found = log.read().await;
            let noted = log.with(|partition| partition.noted());
            let end = noted.cleaned_to.expect("a round was done");
            assert!(end > 40, "{codec:?}: all but the active segment: {end}");
            model.check(&found, "compacted");
            model.check_clean(&found, end, "compacted");
            assert!(log.len_bytes() < before / 2, "{codec:?}: {before}, now {}", log.len_bytes());
            assert_eq!(log.with(|partition| partition.start()), 0);
            assert_eq!(log.with(|partition| partition.high_watermark()), 60);
            assert!(log.with(|partition| partition.compaction_due(i64::MAX)).is_none());
            let stats = log.shard.borrow().stats;
            assert_eq!((stats.compactions, stats.compaction_failures), (1, 0), "{codec:?}");
            // Repeated batches are still known from new ones, also after a start.
            for _ in 0..2 {
                let log = Log1::open(&cx, config(&[])).await.expect("found again");
                assert_eq!(log.read().await, found, "{codec:?}: after a start");
                let again = batch(codec, Some((42, 18)), log.now_ms(), &[("x", None), ("y", None)]);
                assert_eq!(log.produce(&again).await, Ok(58), "the last of its producer");
            }
        }));
    }
}

#[test]
fn tombstones_go_when_their_time_has_come() {
    let world = World::new(2, Faults::none());
    assert!(in_world(&world, TURNS_MAX, |cx| async move {
        let log = Log1::open(&cx, config(&[("segment.bytes", "200")])).await.expect("made");
        let mut model = Model::default();
        let say = async |model: &mut Model, key: &'static str, value: Option<&'static str>| {
            let bytes = batch(Codec::None, None, log.now_ms(), &[(key, value)]);
            let base = log.produce(&bytes).await.expect("stored");
            model.add(base, &[(key, value)]);
        };
        let long = "some words that fill a segment of two hundred bytes quite quickly, one each";
        say(&mut model, "a", Some(long)).await;
        say(&mut model, "a", None).await;
        say(&mut model, "b", Some(long)).await;
        say(&mut model, "c", Some(long)).await;
        log.compact().await;
        let keys = |found: &[(i64, String, Option<String>)]| {
            found.iter().map(|(offset, key, _)| (*offset, key.clone())).collect::<Vec<_>>()
        };
        let found = log.read().await;
        assert_eq!(keys(&found)[0], (1, "a".into()), "the tombstone stays, its value is gone");
        model.check(&found, "first");
        cx.sleep(900_000_000).await;
        say(&mut model, "d", Some(long)).await;
        say(&mut model, "e", Some(long)).await;
        log.compact().await;
        assert_eq!(keys(&log.read().await)[0], (1, "a".into()), "its time has not come");
        cx.sleep(200_000_000).await;
        say(&mut model, "f", Some(long)).await;
        say(&mut model, "g", Some(long)).await;
        log.compact().await;
        let found = log.read().await;
        assert_eq!(keys(&found)[0], (2, "b".into()), "the tombstone is gone");
        model.check(&found, "last");
        assert_eq!(log.with(|partition| partition.start()), 0);
    }));
}

#[test]
fn a_reader_of_an_old_segment_goes_on() {
    let world = World::new(3, Faults::none());
    assert!(in_world(&world, TURNS_MAX, |cx| async move {
        let log = Log1::open(&cx, config(&[])).await.expect("made");
        let mut model = Model::default();
        fill(&log, Codec::None, &mut model).await;
        let range = log.with(|partition| partition.locate(&log.cx, 0, 500, true));
        let range = range.expect("warm").expect("there");
        let len = range.len as usize;
        let read = async || {
            let buf = DirectBuf::zeroed(len);
            let read = range.file.read_at(buf, len, range.position, Caching::Keep).await;
            read.map(|(buf, read)| buf[..read].to_vec()).expect("open")
        };
        let before = read().await;
        log.compact().await;
        assert!(log.with(|partition| partition.noted()).cleaned_to.is_some());
        assert_eq!(read().await, before, "the file is there for as long as it is open");
        let all = log.read().await;
        // And who asks for an offset that is gone gets what follows it.
        model.check(&all, "after");
        for offset in 0..60 {
            let wanted: Vec<_> = all.iter().filter(|one| one.0 >= offset).cloned().collect();
            assert_eq!(log.read_from(offset).await, wanted, "from {offset}");
        }
    }));
}

#[test]
fn a_reader_goes_on_where_positions_are_others() {
    let world = World::new(8, Faults::none());
    assert!(in_world(&world, TURNS_MAX, |cx| async move {
        let config = config(&[("index.interval.bytes", "0")]);
        let log = Log1::open(&cx, config).await.expect("made");
        let value = "a hundred bytes or so ".repeat(5);
        // The first goes when the fourth comes, and those behind it move up.
        for key in ["a", "b", "c", "a", "d", "e", "f", "g"] {
            let bytes = batch(Codec::None, None, log.now_ms(), &[(key, Some(&value))]);
            assert!(log.produce(&bytes).await.is_ok());
        }
        let range = log.with(|partition| partition.locate(&cx, 0, 250, true));
        let before = range.expect("warm").expect("there").len;
        log.compact().await;
        let range = log.with(|partition| partition.locate(&cx, 0, 250, true));
        let after = range.expect("warm").expect("there");
        assert_eq!((after.position, after.len), (0, before), "one batch, then and now");
        let offsets: Vec<i64> = log.read_from(1).await.iter().map(|one| one.0).collect();
        assert_eq!(offsets, [1, 2, 3, 4, 5, 6, 7]);
    }));
}

#[test]
fn a_producer_is_known_again_from_the_log_alone() {
    let world = World::new(6, Faults::none());
    assert!(in_world(&world, TURNS_MAX, |cx| async move {
        let log = Log1::open(&cx, config(&[])).await.expect("made");
        let only = batch(Codec::Gzip, Some((7, 0)), log.now_ms(), &[("k0", None), ("k1", None)]);
        assert_eq!(log.produce(&only).await, Ok(0));
        let mut model = Model::default();
        fill(&log, Codec::None, &mut model).await;
        log.compact().await;
        assert!(log.read().await.iter().all(|one| one.0 > 1), "both of its records are superseded");
        let names = cx.driver().list_dir(&PathBuf::from(DIR)).expect("a directory");
        for name in names {
            if name.ends_with(".snapshot") {
                cx.driver().unlink(&PathBuf::from(DIR).join(name)).expect("there");
            }
        }
        let log = Log1::open(&cx, config(&[])).await.expect("found again");
        assert_eq!(log.produce(&only).await, Ok(0), "it is known from new ones");
        assert_eq!(log.with(|partition| partition.high_watermark()), 62);
    }));
}

#[test]
fn records_without_a_key_are_refused_with_their_numbers() {
    let world = World::new(4, Faults::none());
    assert!(in_world(&world, TURNS_MAX, |cx| async move {
        let log = Log1::open(&cx, config(&[("max.message.bytes", "2000")])).await.expect("made");
        for codec in Codec::ALL {
            let mut bytes = Vec::new();
            let meta = BatchMeta { last_offset_delta: 2, ..BatchMeta::default() };
            let keys: [Option<&[u8]>; 3] = [None, Some(b"k"), None];
            let made = (0..).zip(keys).map(|(delta, key)| Record::new(delta, 0, key, Some(b"v")));
            write_batch(&mut bytes, &meta, made);
            let (plain, _) = Batch::split(&bytes).expect("made");
            let mut job = Compress::new(codec).expect("memory");
            job.write(plain.body()).expect("taken");
            let mut packed = Vec::new();
            write_batch_of(&mut packed, &meta, codec, 3, &job.finish().expect("an end"));
            let refused = log.with(|partition| partition.produce(&cx, &packed, cx.now()));
            let refused = refused.expect_err("two records have no key");
            assert_eq!((refused.code, refused.records), (Code::InvalidRecord, vec![0, 2]));
            let lies = write_count(&meta, codec, plain.body(), 2);
            let refused = log.with(|partition| partition.produce(&cx, &lies, cx.now()));
            assert_eq!(refused.expect_err("three records").code, Code::InvalidRecord);
        }
        let long = "x".repeat(3000);
        let bomb = batch(Codec::Zstd, None, 0, &[("k", Some(&long))]);
        assert!(bomb.len() < 200);
        assert_eq!(log.produce(&bomb).await, Err(Code::MessageTooLarge));
        assert_eq!(log.with(|partition| partition.high_watermark()), 0, "nothing was stored");
    }));
}

/// A batch that says another number of records than its body has.
fn write_count(meta: &BatchMeta, codec: Codec, body: &[u8], count: i32) -> Vec<u8> {
    let mut job = Compress::new(codec).expect("memory");
    job.write(body).expect("taken");
    let meta = BatchMeta { last_offset_delta: count - 1, ..*meta };
    let mut bytes = Vec::new();
    write_batch_of(&mut bytes, &meta, codec, count, &job.finish().expect("an end"));
    bytes
}

#[test]
fn a_map_that_is_full_ends_the_round_early_and_the_next_goes_on() {
    let world = World::new(5, Faults::none());
    assert!(in_world(&world, TURNS_MAX, |cx| async move {
        let log = Log1::open(&cx, config(&[])).await.expect("made");
        // 24 * 4 bytes: three keys at a time, of eight.
        let small = Rc::new(ShardConfig {
            compaction_memory_bytes: 96,
            ..ShardConfig::clone(&log.shard.borrow().config)
        });
        log.shard.borrow_mut().config = small;
        let mut model = Model::default();
        fill(&log, Codec::None, &mut model).await;
        let mut ends = Vec::new();
        while log.with(|partition| partition.compaction_due(i64::MAX)).is_some() {
            log.compact().await;
            ends.push(log.with(|partition| partition.noted()).cleaned_to);
            model.check(&log.read().await, "a round");
            assert!(ends.is_sorted() && ends.len() < 100);
        }
        assert!(ends.len() > 5, "{ends:?}");
        model.check_clean(&log.read().await, ends.pop().flatten().expect("an end"), "in the end");
    }));
}

/// Fills, and compacts twice with more records between.
async fn story(cx: ShardCx, model: Rc<RefCell<Model>>) {
    let Ok(log) = Log1::open(&cx, config(&[])).await else { return };
    let mut known = Model::default();
    fill(&log, Codec::Lz4, &mut known).await;
    *model.borrow_mut() = known.clone();
    log.compact().await;
    for n in 0..8_u32 {
        let (key, value) = (format!("k{n}"), format!("late {n}, and long enough for a segment"));
        let pairs = [(key.as_str(), Some(value.as_str()))];
        let bytes = batch(Codec::None, None, log.now_ms(), &pairs);
        // From here on it may be there.
        let Ok(base) = log.produce(&bytes).await else { return };
        model.borrow_mut().add(base, &pairs);
    }
    log.compact().await;
}

/// What a start finds, and that it can be compacted and written.
async fn aftermath(cx: ShardCx, model: Model, what: String) {
    let log = Log1::open(&cx, config(&[])).await.unwrap_or_else(|error| panic!("{what}: {error}"));
    // What was not acknowledged may be there too.
    let high = model.0.last().map_or(0, |last| last.0 + 1);
    let until = |found: Vec<(i64, String, Option<String>)>| -> Vec<_> {
        found.into_iter().filter(|(offset, ..)| *offset < high).collect()
    };
    let superseded = |found: &[(i64, String, Option<String>)], key: &str| {
        found.iter().any(|(offset, other, _)| *offset >= high && other == key)
    };
    let found = log.read().await;
    let later: Vec<String> = model.0.iter().map(|one| one.1.clone()).collect();
    let mut known = model.clone();
    known.0.retain(|one| !superseded(&found, &one.1));
    let mine = |found: Vec<(i64, String, Option<String>)>| -> Vec<_> {
        let known = &known;
        found.into_iter().filter(|one| known.0.iter().any(|two| two.1 == one.1)).collect()
    };
    known.check(&mine(until(found)), &what);
    assert!(log.with(|partition| partition.high_watermark()) >= high, "{what}");
    log.compact().await;
    let found = mine(until(log.read().await));
    known.check(&found, &format!("{what}, compacted again"));
    let bytes = batch(Codec::None, None, log.now_ms(), &[("new", Some("record"))]);
    assert!(log.produce(&bytes).await.is_ok_and(|base| base >= high), "{what}: it takes more");
    let names = cx.driver().list_dir(&PathBuf::from(DIR)).expect("a directory");
    let left = |name: &&String| name.ends_with(".cleaned") || name.ends_with(".swap");
    assert_eq!(names.iter().find(left), None, "{what}: {later:?}");
}

#[test]
fn a_crash_at_any_moment_leaves_the_old_or_the_new() {
    let mut at = 1;
    loop {
        let mut faults = Faults::none();
        // Some of what was not synced survives, the more often the later.
        faults.survives = [0.0, 0.5, 1.0][at as usize % 3];
        let world = World::new(at, faults);
        let model = Rc::new(RefCell::new(Model::default()));
        let known = Rc::clone(&model);
        let done = in_world(&world, at, |cx| story(cx, known));
        world.crash_disk();
        let model = model.borrow().clone();
        let what = format!("a crash in turn {at}");
        assert!(in_world(&world, TURNS_MAX, |cx| aftermath(cx, model, what)));
        if done {
            break;
        }
        at += 1;
    }
    assert!(at > 200, "so many moments: {at}");
}

#[test]
fn any_single_failure_leaves_the_log_right() {
    for calls in [false, true] {
        let mut at = 1;
        loop {
            let world = World::new(at, Faults::none());
            if calls {
                world.fail_call(at);
            } else {
                world.fail_completion(at);
            }
            let model = Rc::new(RefCell::new(Model::default()));
            let known = Rc::clone(&model);
            assert!(in_world(&world, TURNS_MAX, |cx| story(cx, known)));
            let counted = if calls { world.calls_counted() } else { world.completions_counted() };
            if counted < at {
                break;
            }
            if at % 2 == 0 {
                world.crash_disk();
            }
            let model = model.borrow().clone();
            let what = format!("{} {at} fails", if calls { "call" } else { "completion" });
            assert!(in_world(&world, TURNS_MAX, |cx| aftermath(cx, model, what)));
            at += 1;
        }
        assert!(at > 100, "so many were counted: {at}");
    }
}
