//! The log on a ring, and in a world where the machine stops at any moment.
//!
//! The model of the crash tests: the list of everything appended, and how much of it a commit has
//! acknowledged. Recovery must find a prefix of the list that has everything acknowledged, and
//! what it cut off must never come back.

use std::cell::{Cell, RefCell};
use std::path::Path;
use std::rc::Rc;

use super::format::{BLOCK_BYTES, RECORD_HEADER_BYTES, record_bytes};
use super::{AppendError, Entry, Log, LogConfig, Position, Recovery};
use crate::driver::sim::{Faults, World};
use crate::driver::{Driver, Errno, OpenOptions};
use crate::error::Error;
use crate::fs::testing::{TempDir, in_world, on_ring};
use crate::rng::Rng;
use crate::shard::ShardCx;

const SMALL: LogConfig =
    LogConfig { segment_bytes: 64 << 10, segments_max: 16, batch_bytes: 16 << 10, batches: 3 };

type Records = Vec<(u64, Vec<u8>)>;

async fn read_all(recovery: &mut Recovery) -> Result<(Records, Vec<(u64, u64)>), Error> {
    let (mut records, mut damage) = (Vec::new(), Vec::new());
    while let Some(entry) = recovery.next().await? {
        match entry {
            Entry::Record { position, data } => records.push((position.0, data.to_vec())),
            Entry::Damage { from, to } => damage.push((from.0, to.0)),
        }
    }
    Ok((records, damage))
}

async fn open(cx: &ShardCx, dir: &Path, config: LogConfig) -> (Log, Records, Vec<(u64, u64)>) {
    let opened = Recovery::open(cx, dir, config, Position(0)).await;
    let mut recovery = opened.expect("a usable directory");
    let (records, damage) = read_all(&mut recovery).await.expect("readable");
    (recovery.finish().await.expect("room for a segment"), records, damage)
}

#[test]
fn what_was_committed_is_there_after_reopening() {
    let dir = TempDir::new("log-reopen");
    let path = dir.path().to_owned();
    on_ring(|cx| async move {
        let mut all = Vec::new();
        for round in 0_u64..4 {
            let (log, records, damage) = open(&cx, &path, SMALL).await;
            assert_eq!((records.len(), damage.len()), (all.len(), 0));
            assert_eq!(records, all);
            for n in 0..40 {
                let data = vec![(round * 40 + n) as u8; 1 + (n as usize * 97) % 3000];
                let position = log.append_when_ready(&data).await.expect("room");
                all.push((position.0, data));
                if n % 7 == 0 {
                    let end = log.commit().await.expect("a working disk");
                    assert!(log.durable() >= end && end.0 > position.0);
                }
            }
            log.close().await.expect("a working disk");
        }
    });
}

/// More than some windows, in which records of all lengths lie across the ends of windows and of segments.
async fn write_and_read_a_long_log(cx: &ShardCx, path: &Path) {
    const LONG: LogConfig =
        LogConfig { segment_bytes: 3 << 20, segments_max: 16, batch_bytes: 64 << 10, batches: 3 };
    let (log, ..) = open(cx, path, LONG).await;
    let (mut rng, mut all) = (Rng::new(7), Vec::new());
    for n in 0_u64..400 {
        let len = if n % 5 == 0 { LONG.record_max_bytes() } else { rng.below(30_000) as usize };
        let data = vec![n as u8; len];
        let position = log.append_when_ready(&data).await.expect("room");
        all.push((position.0, data));
    }
    log.close().await.expect("a working disk");
    for first in [0, 1, 150, 399] {
        let from = Position(all[first].0);
        let mut recovery = Recovery::open(cx, path, LONG, from).await.expect("a usable directory");
        let (records, damage) = read_all(&mut recovery).await.expect("readable");
        assert!(damage.is_empty(), "{damage:?}");
        assert!(records == all[first..], "{} records from {first}", records.len());
        // One that is left in the middle, with a read on its way.
        let mut left = Recovery::open(cx, path, LONG, Position(0)).await.expect("a directory");
        for _ in 0..=first {
            left.next().await.expect("readable");
        }
        assert_eq!(left.is_reading_ahead(), first < 399, "at record {first}");
    }
}

#[test]
fn a_log_longer_than_a_window_is_read_whole() {
    let dir = TempDir::new("log-long");
    let path = dir.path().to_owned();
    on_ring(|cx| async move { write_and_read_a_long_log(&cx, &path).await });
    for seed in 0..5 {
        let world = World::new(seed, Faults::rough());
        let done = in_world(&world, 20_000_000, |cx| async move {
            write_and_read_a_long_log(&cx, Path::new(DIR)).await;
        });
        assert!(done, "seed {seed}");
    }
}

#[test]
fn one_write_covers_the_appends_of_many_tasks() {
    let dir = TempDir::new("log-group");
    let path = dir.path().to_owned();
    on_ring(|cx| async move {
        let (log, ..) = open(&cx, &path, SMALL).await;
        let done = Rc::new(Cell::new(0));
        for n in 0..64_u8 {
            let (log, done) = (log.clone(), Rc::clone(&done));
            cx.spawn("append", async move {
                log.append(&[n; 100]).expect("room");
                log.commit().await.expect("a working disk");
                done.set(done.get() + 1);
            });
        }
        while done.get() < 64 {
            cx.sleep(100_000).await;
        }
        assert_eq!((log.stats().appends, log.stats().writes), (64, 1));
    });
}

#[test]
fn segments_are_used_again_after_a_trim_and_the_log_is_full_without_one() {
    let dir = TempDir::new("log-trim");
    let path = dir.path().to_owned();
    on_ring(|cx| async move {
        let config = LogConfig { segments_max: 3, ..SMALL };
        let (log, ..) = open(&cx, &path, config).await;
        let data = vec![7; 8000];
        let full = loop {
            match log.append_when_ready(&data).await {
                Ok(_) => {}
                Err(error) => break error,
            }
        };
        assert!(matches!(full, AppendError::Full(_)), "{full}");
        let end = log.commit().await.expect("what was appended can be committed");
        assert!(end.0 > 2 * 60_000);
        log.trim(end);
        assert!(log.start().0 > 0);
        let mut kept = Vec::new();
        for n in 0..40_u8 {
            let position = log.append_when_ready(&[n; 5000]).await.expect("room again");
            kept.push((position.0, vec![n; 5000]));
            let durable = log.commit().await.expect("a working disk");
            if n % 5 == 4 {
                log.trim(durable);
            }
        }
        let files = cx.driver().list_dir(&path).expect("there");
        assert!(files.len() <= 4, "{files:?}");
        log.close().await.expect("a working disk");
        let (log, records, damage) = open(&cx, &path, config).await;
        assert_eq!(damage, []);
        let kept: Vec<_> =
            kept.into_iter().filter(|(position, _)| *position >= records[0].0).collect();
        assert!(!records.is_empty() && records == kept);
        log.close().await.expect("a working disk");
    });
}

#[test]
fn refusals_leave_the_log_as_it_was() {
    let dir = TempDir::new("log-refuse");
    let path = dir.path().to_owned();
    on_ring(|cx| async move {
        let (log, ..) = open(&cx, &path, SMALL).await;
        let max = SMALL.record_max_bytes();
        let long = log.append(&vec![0; max + 1]);
        assert!(matches!(long, Err(AppendError::TooLong { max_bytes }) if max_bytes == max));
        log.append(&vec![1; max]).expect("the longest record fits");
        let mut appended = 1;
        let busy = loop {
            match log.append(&vec![1; max]) {
                Ok(_) => appended += 1,
                Err(error) => break error,
            }
        };
        assert!(matches!(busy, AppendError::Busy));
        assert_eq!(appended, SMALL.batches, "memory is the batch buffers");
        log.append_when_ready(b"").await.expect("room, after a while; empty is fine");
        log.close().await.expect("a working disk");
        let (_log, records, damage) = open(&cx, &path, SMALL).await;
        assert_eq!((records.len(), damage.len()), (appended + 1, 0));
    });
}

/// Overwrites part of a file behind the log's back.
fn spoil(path: &Path, offset: u64, bytes: &[u8]) {
    use std::os::unix::fs::FileExt;
    let file = std::fs::File::options().write(true).open(path).expect("a segment");
    file.write_all_at(bytes, offset).expect("a writable file");
    file.sync_all().expect("a working disk");
}

#[test]
fn a_spoilt_record_is_reported_with_its_place_and_a_spoilt_end_is_cut() {
    let dir = TempDir::new("log-damage");
    let path = dir.path().to_owned();
    on_ring(|cx| async move {
        let (log, ..) = open(&cx, &path, SMALL).await;
        let mut all = Vec::new();
        for n in 0..100_u8 {
            let position = log.append_when_ready(&[n; 1000]).await.expect("room");
            all.push(position.0);
            log.commit().await.expect("a working disk");
        }
        log.close().await.expect("a working disk");
        let size = record_bytes(1000) as u64;
        let first = path.join("00000000.log");
        // The log's first segment, its second, and the last record of all.
        let in_first = BLOCK_BYTES as u64 + 10 * size + RECORD_HEADER_BYTES as u64 + 500;
        spoil(&first, in_first, &[0xee; 8]);
        let second_base = all.iter().copied().nth((60 * 1024) / size as usize).expect("rolled");
        let second = path.join("00000001.log");
        spoil(&second, BLOCK_BYTES as u64 + 3 * size, &[0xee; 16]);
        let last = *all.last().expect("some");
        spoil(&second, BLOCK_BYTES as u64 + (last - second_base) + 100, &[0xee; 8]);
        let (log, records, damage) = open(&cx, &path, SMALL).await;
        assert_eq!(
            damage,
            [(10 * size, 11 * size), (second_base + 3 * size, second_base + 4 * size)]
        );
        assert_eq!(records.len(), 97);
        assert_eq!(log.end().0, last);
        log.append(b"next").expect("room");
        log.close().await.expect("a working disk");
        let (_log, again, _) = open(&cx, &path, SMALL).await;
        assert_eq!(again.len(), 98);
        assert_eq!(again[97], (last, b"next".to_vec()));
    });
}

#[test]
fn a_missing_segment_or_end_is_damage() {
    let dir = TempDir::new("log-missing");
    let path = dir.path().to_owned();
    on_ring(|cx| async move {
        let (log, ..) = open(&cx, &path, SMALL).await;
        let mut end = Position(0);
        for _ in 0..60 {
            log.append_when_ready(&[5; 4000]).await.expect("room");
            end = log.commit().await.expect("a working disk");
        }
        log.close().await.expect("a working disk");
        cx.driver().unlink(&path.join("00000001.log")).expect("there");
        let past = Position(end.0 + 1000);
        let mut recovery =
            Recovery::open(&cx, &path, SMALL, past).await.expect("a usable directory");
        let (records, damage) = read_all(&mut recovery).await.expect("readable");
        assert_eq!((records.len(), damage), (0, vec![(end.0, past.0)]));
        let mut recovery =
            Recovery::open(&cx, &path, SMALL, Position(0)).await.expect("a usable directory");
        let (records, damage) = read_all(&mut recovery).await.expect("readable");
        assert_eq!(damage.len(), 1);
        assert!(records.len() < 60 && records.len() >= 60 - 15, "{}", records.len());
    });
}

#[test]
fn wrong_sizes_are_refused() {
    let dir = TempDir::new("log-sizes");
    let path = dir.path().to_owned();
    on_ring(|cx| async move {
        for config in [
            LogConfig { segment_bytes: 100_000, ..SMALL },
            LogConfig { segment_bytes: 1 << 32, ..SMALL },
            LogConfig { segment_bytes: 16 << 10, ..SMALL },
            LogConfig { batch_bytes: 10_000, ..SMALL },
            LogConfig { batches: 1, ..SMALL },
            LogConfig { segments_max: 1, ..SMALL },
        ] {
            let refused = Recovery::open(&cx, &path, config, Position(0)).await;
            assert!(refused.is_err(), "{config:?}");
        }
    });
}

/// What a crash test knows.
#[derive(Debug, Default)]
struct Model {
    /// Everything appended and not known to be cut, in order.
    appended: RefCell<Records>,
    /// Acknowledged up to this position.
    durable: Cell<u64>,
    /// Trimmed up to this position.
    trimmed: Cell<u64>,
    commits: Cell<u64>,
    recoveries: Cell<u64>,
    cut: Cell<u64>,
}

const DIR: &str = "/log";

impl Model {
    /// Recovers and compares; `None` when the disk refused.
    async fn recover(&self, cx: &ShardCx) -> Option<Log> {
        let from = Position(self.trimmed.get());
        let mut recovery = Recovery::open(cx, Path::new(DIR), SMALL, from).await.ok()?;
        let (records, damage) = read_all(&mut recovery).await.ok()?;
        assert_eq!(damage, [], "a crash is no damage");
        self.compare(from, &records);
        let log = recovery.finish().await.ok()?;
        self.recoveries.set(self.recoveries.get() + 1);
        let end =
            self.appended.borrow().last().map(|(at, data)| at + record_bytes(data.len()) as u64);
        assert_eq!(log.end().0, end.unwrap_or(from.0).max(from.0));
        Some(log)
    }

    /// What was read is what was appended, up to a place behind everything acknowledged.
    fn compare(&self, from: Position, records: &Records) {
        let mut appended = self.appended.borrow_mut();
        appended.retain(|(position, _)| *position >= from.0);
        for (at, record) in records.iter().enumerate() {
            assert_eq!(Some(record), appended.get(at), "record {at} of {}", records.len());
        }
        for (position, data) in appended.iter().skip(records.len()) {
            let end = position + record_bytes(data.len()) as u64;
            assert!(end > self.durable.get(), "the record at {position} was acknowledged");
        }
        self.cut.set(self.cut.get() + (appended.len() - records.len()) as u64);
        appended.truncate(records.len());
    }

    fn append(&self, log: &Log, data: Vec<u8>) -> Result<(), AppendError> {
        let position = log.append(&data)?;
        self.appended.borrow_mut().push((position.0, data));
        Ok(())
    }
}

/// Appends, commits and trims until the log fails or the machine stops.
async fn worker(cx: ShardCx, log: Log, model: Rc<Model>, seed: u64) {
    let mut rng = Rng::new(seed);
    loop {
        for _ in 0..1 + rng.index(6) {
            let most = if rng.index(20) == 0 { 9000 } else { 700 };
            let data = vec![rng.index(256) as u8; rng.index(most)];
            let room = log.room();
            match model.append(&log, data) {
                Ok(()) => {}
                Err(AppendError::Busy) => room.await,
                Err(AppendError::Full(_)) => cx.sleep(1_000_000).await,
                Err(_) => return,
            }
        }
        if rng.index(3) > 0 {
            let Ok(end) = log.commit().await else { return };
            model.commits.set(model.commits.get() + 1);
            model.durable.set(model.durable.get().max(end.0));
            if rng.index(10) == 0 {
                model.trimmed.set(model.trimmed.get().max(end.0));
                log.trim(end);
            }
        }
        cx.sleep(rng.index(100_000) as u64).await;
    }
}

/// A life of the log between two crashes.
async fn life(cx: ShardCx, model: Rc<Model>, seed: u64) {
    let Some(log) = model.recover(&cx).await else { return };
    let left = Rc::new(Cell::new(3));
    for n in 0..3 {
        let (cx, log, model, left) = (cx.clone(), log.clone(), Rc::clone(&model), Rc::clone(&left));
        cx.clone().spawn("worker", async move {
            worker(cx, log, model, seed.wrapping_mul(31).wrapping_add(n)).await;
            left.set(left.get() - 1);
        });
    }
    while left.get() > 0 {
        cx.sleep(1_000_000).await;
    }
}

fn crash_again_and_again(seed: u64, faults: &Faults) -> Model {
    let world = World::new(seed, faults.clone());
    let model = Rc::new(Model::default());
    let mut rng = Rng::new(seed ^ 0xc4a5);
    for round in 0..8 {
        let turns = 50 + rng.index(1500) as u64;
        let shared = Rc::clone(&model);
        in_world(&world, turns, |cx| life(cx, shared, seed << 8 | round));
        // Sometimes only the process dies, and the page cache stays.
        if rng.index(4) > 0 {
            world.crash_disk();
        }
    }
    world.heal();
    let last = Rc::clone(&model);
    let ended = in_world(&world, u64::MAX, |cx| async move {
        let log = last.recover(&cx).await.expect("a healed disk");
        log.append_when_ready(b"after all").await.expect("room");
        log.close().await.expect("a healed disk");
    });
    assert!(ended);
    Rc::into_inner(model).expect("all lives are over")
}

#[test]
fn what_was_acknowledged_survives_crashes_and_nothing_else_comes_back() {
    let faults = Faults { survives: 0.5, ..Faults::rough() };
    let (mut commits, mut recoveries, mut cut) = (0, 0, 0);
    for seed in 0..60 {
        let model = crash_again_and_again(seed, &faults);
        commits += model.commits.get();
        recoveries += model.recoveries.get();
        cut += model.cut.get();
    }
    assert!(commits > 5_000 && recoveries > 400 && cut > 100, "{commits} {recoveries} {cut}");
}

#[test]
fn so_it_is_on_a_disk_that_fails() {
    let faults = Faults {
        write_error: 0.02,
        no_space: 0.05,
        fsync_error: 0.02,
        survives: 0.3,
        ..Faults::rough()
    };
    let mut commits = 0;
    for seed in 1000..1060 {
        commits += crash_again_and_again(seed, &faults).commits.get();
    }
    assert!(commits > 1_000, "{commits}");
}

#[test]
fn a_failed_write_ends_the_log_and_every_waiter_hears_of_it() {
    let world = World::new(1, Faults::none());
    let ended = in_world(&world, u64::MAX, |cx| async move {
        let model = Model::default();
        let log = model.recover(&cx).await.expect("a working disk");
        log.append(b"one").expect("room");
        log.commit().await.expect("a working disk");
        cx.sleep(1_000_000_000).await;
        let world = match &*cx.driver() {
            Driver::Sim(sim) => sim.world().clone(),
            Driver::Uring(_) => unreachable!("a simulated shard"),
        };
        world.fail_completion(world.completions_counted() + 1);
        log.append(b"two").expect("room");
        let (first, second) = (log.commit(), log.commit());
        let (first, second) = (first.await, second.await);
        assert_eq!(first.expect_err("ordered").errno(), Some(Errno(libc::EIO)));
        assert_eq!(second.expect_err("the same").errno(), Some(Errno(libc::EIO)));
        assert!(matches!(log.append(b"three"), Err(AppendError::Failed(_))));
        assert!(log.commit().await.is_err());
        assert_eq!(log.durable().0, record_bytes(3) as u64);
    });
    assert!(ended);
}

#[test]
fn a_full_disk_refuses_appends_and_loses_nothing() {
    let mut faults = Faults::none();
    faults.limits.disk_capacity_bytes = 3 * SMALL.segment_bytes + 1000;
    let world = World::new(2, faults);
    let ended = in_world(&world, u64::MAX, |cx| async move {
        let (log, ..) = open(&cx, Path::new(DIR), SMALL).await;
        let mut appended = 0;
        let full = loop {
            match log.append_when_ready(&[3; 4000]).await {
                Ok(_) => appended += 1,
                Err(error) => break error,
            }
        };
        let AppendError::Full(error) = full else { panic!("{full}") };
        assert_eq!(error.errno(), Some(Errno(libc::ENOSPC)));
        let end = log.commit().await.expect("there was room for these");
        assert!(appended > 40);
        // Room again: the log goes on, at the latest after a second.
        log.trim(end);
        while log.append_when_ready(b"more").await.is_err() {
            cx.sleep(100_000_000).await;
        }
        log.close().await.expect("a working disk");
        let opened = Recovery::open(&cx, Path::new(DIR), SMALL, end).await;
        let mut recovery = opened.expect("a working disk");
        let (records, damage) = read_all(&mut recovery).await.expect("readable");
        assert_eq!((records, damage.len()), (vec![(end.0, b"more".to_vec())], 0));
        recovery.finish().await.expect("a segment to use again");
    });
    assert!(ended);
}

#[test]
fn a_half_made_segment_is_removed_at_the_next_start() {
    let world = World::new(3, Faults::none());
    let ended = in_world(&world, u64::MAX, |cx| async move {
        let (log, ..) = open(&cx, Path::new(DIR), SMALL).await;
        cx.sleep(1_000_000_000).await;
        log.close().await.expect("a working disk");
        let half = Path::new("/log/00000007.log");
        let options = OpenOptions { write: true, create: true, ..OpenOptions::default() };
        let fd = cx.driver().open(half, &options).expect("a free name");
        cx.driver().truncate(fd, 5000).expect("room");
        cx.driver().close_now(fd);
        let (_log, records, damage) = open(&cx, Path::new(DIR), SMALL).await;
        assert_eq!((records.len(), damage.len()), (0, 0));
        let names = cx.driver().list_dir(Path::new(DIR)).expect("there");
        assert!(!names.contains(&"00000007.log".to_owned()), "{names:?}");
    });
    assert!(ended);
}
