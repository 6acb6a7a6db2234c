//! Compaction of logs: of each key the last record stays.
//!
//! One task a shard looks for the partition with the largest share of dirty bytes and does one round on it: a first pass
//! over the dirty records notes each key's last offset ([`map`]), a second copies segments without what those supersede
//! ([`copy`]), and each group of old segments is replaced by its copy ([`swap`]). Rules are those of Kafka's
//! LogCleaner. Invariants: the active segment is never touched; some tens of kilobytes of records are looked at
//! before others get their turn; a shard's keys are in memory that is bounded (`--broker-compaction-memory`),
//! and only while a round lasts; whatever fails, the log is as it was or compacted. Next: `logic::log::compact` for
//! the decisions.

mod copy;
mod map;
pub(crate) mod noted;
pub(crate) mod swap;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::path::PathBuf;
use std::rc::Rc;

use engine::error::Error;
use engine::exec::sync::{Turns, yield_now};
use engine::net::Server;
use engine::shard::ShardCx;
use logic::log::compact::{Cleaner, OffsetMap, Segment, groups};
use wire::kafka::batch::{Batch, Codec};
use wire::kafka::compress::{self, Decompress};

use crate::partition::{Partition, SEGMENT_MAX_BYTES, first_timestamp, unix_ms};
use crate::serve::Broker;
use crate::shard::{Shard, Slot};
use crate::topic_config::TopicConfig;

/// How often partitions are asked whether a round is due, when none was.
const SWEEP_NS: u64 = 1_000_000_000;
/// Partitions asked before others get their turn.
const SWEEP_PARTITIONS: usize = 100;
/// Least memory for keys, where as much is allowed.
const MAP_MIN_BYTES: usize = 256 << 10;
/// Plain bytes of records looked at before others get their turn: a thousand records.
const TURN_BYTES: usize = 64 << 10;
/// What a record counts for beside its key: a hash and a look-up.
const RECORD_COST_BYTES: usize = 64;
/// Made plain or compressed at a time: the slowest codec takes 2 ms for it.
const PIECE_BYTES: usize = 64 << 10;
/// The most that a batch may become when it is made plain. What was stored in a compacted topic is shorter
/// (`max.message.bytes`); this is for what was stored before.
const PLAIN_MAX_BYTES: usize = 256 << 20;

/// Why a round ended early.
#[derive(Debug)]
enum Trouble {
    /// The partition was deleted, failed, or is not to be compacted any more.
    Gone,
    /// It may go better later.
    Later(Error),
    /// It cannot go better.
    Never(String),
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Self::Later(error)
    }
}

/// What a round did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Tally {
    read_bytes: u64,
    written_bytes: u64,
    dropped_records: u64,
    dropped_tombstones: u64,
    replaced_segments: u64,
}

/// Compacts what is due, as long as the shard lives.
pub(crate) async fn run(server: Rc<Server<Broker>>) {
    let cx = server.cx().clone();
    Broker::loaded(Rc::clone(&server)).await;
    loop {
        match dirtiest(&cx, server.shard()).await {
            Some(slot) => {
                compact(&cx, server.shard(), slot).await;
                yield_now().await;
            }
            None => cx.sleep(SWEEP_NS).await,
        }
    }
}

/// The partition with the largest share of dirty bytes, of those for which a round is due.
async fn dirtiest(cx: &ShardCx, shard: &Rc<RefCell<Shard>>) -> Option<Slot> {
    let slots = shard.borrow().slots();
    let mut found: Option<(f64, Slot)> = None;
    for (done, slot) in slots.into_iter().enumerate() {
        if done % SWEEP_PARTITIONS == SWEEP_PARTITIONS - 1 {
            yield_now().await;
        }
        read_ages(cx, shard, slot).await;
        let now_ms = unix_ms(cx.now());
        let due = shard.borrow_mut().partition(slot).and_then(|one| one.compaction_due(now_ms));
        let Some(ratio) = due.map(|due| due.round.dirty_ratio()) else { continue };
        if found.is_none_or(|(most, _)| ratio > most) {
            found = Some((ratio, slot));
        }
    }
    found.map(|(_, slot)| slot)
}

/// Finds out how old segments are, where that matters and is not known since the start.
async fn read_ages(cx: &ShardCx, shard: &Rc<RefCell<Shard>>, slot: Slot) {
    let unread = match shard.borrow_mut().partition(slot) {
        Some(partition) if partition.wants_first_timestamps() => partition.unread_segments(cx),
        _ => return,
    };
    for (base, file) in unread {
        let Ok(timestamp_ms) = first_timestamp(&file).await else { continue };
        if let Some(partition) = shard.borrow_mut().partition(slot) {
            partition.set_first_timestamp(base, timestamp_ms);
        }
    }
}

/// Does the round that is due for a partition.
async fn compact(cx: &ShardCx, shard: &Rc<RefCell<Shard>>, slot: Slot) {
    let begun_ns = cx.now().mono_ns;
    let Some(mut job) = Job::begin(cx, shard, slot) else { return };
    let outcome = job.run().await;
    let now = cx.now();
    let mut shard = shard.borrow_mut();
    let stats = &mut shard.stats;
    stats.compactions += u64::from(outcome.is_ok());
    stats.compaction_failures +=
        u64::from(matches!(outcome, Err(Trouble::Later(_) | Trouble::Never(_))));
    stats.compaction_ns += now.mono_ns - begun_ns;
    stats.compaction_read_bytes += job.tally.read_bytes;
    stats.compaction_written_bytes += job.tally.written_bytes;
    stats.compaction_dropped_records += job.tally.dropped_records + job.tally.dropped_tombstones;
    let Some(partition) = shard.partition(slot) else { return };
    let (what, why): (_, &dyn std::fmt::Display) = match &outcome {
        Ok(()) | Err(Trouble::Gone) => return,
        Err(Trouble::Later(error)) => {
            partition.compact_later(unix_ms(now));
            ("compaction failed, and is tried again", error)
        }
        Err(Trouble::Never(why)) => {
            partition.compact_never();
            ("compaction failed: the partition is not compacted until the next start", why)
        }
    };
    let pairs: [(&str, &dyn std::fmt::Display); 3] =
        [("topic", &partition.topic), ("partition", &partition.index), ("why", why)];
    cx.log().error("broker", now, what, &pairs);
}

/// Lets others go on after a share of work.
#[derive(Debug, Default)]
struct Pace {
    spent_bytes: usize,
}

impl Pace {
    async fn spend(&mut self, bytes: usize) {
        self.spent_bytes += bytes;
        if self.spent_bytes >= TURN_BYTES {
            self.spent_bytes = 0;
            yield_now().await;
        }
    }
}

/// A round under way.
struct Job {
    cx: ShardCx,
    shard: Rc<RefCell<Shard>>,
    slot: Slot,
    name: String,
    dir: PathBuf,
    turns: Rc<Turns>,
    config: Rc<TopicConfig>,
    /// All segments when it began, the active one last.
    segments: Vec<Segment>,
    first_dirty: i64,
    end: i64,
    dirty_bytes: u64,
    now_ms: i64,
    memory_bytes: usize,
    pace: Pace,
    tally: Tally,
}

impl Job {
    fn begin(cx: &ShardCx, shard: &Rc<RefCell<Shard>>, slot: Slot) -> Option<Self> {
        let now_ms = unix_ms(cx.now());
        let mut borrowed = shard.borrow_mut();
        let memory_bytes = borrowed.config.compaction_memory_bytes;
        let partition = borrowed.partition(slot)?;
        let due = partition.compaction_due(now_ms)?;
        Some(Self {
            cx: cx.clone(),
            shard: Rc::clone(shard),
            slot,
            name: format!("{}-{}", partition.topic, partition.index),
            dir: partition.dir().to_owned(),
            turns: partition.turns(),
            config: Rc::clone(&partition.config),
            segments: due.segments,
            first_dirty: due.round.first_dirty_offset,
            end: due.round.end_offset,
            dirty_bytes: due.round.dirty_bytes,
            now_ms,
            memory_bytes,
            pace: Pace::default(),
            tally: Tally::default(),
        })
    }

    /// Does something with the partition, which must still be there and to be compacted.
    fn with<T>(&self, work: impl FnOnce(&mut Partition) -> T) -> Result<T, Trouble> {
        let mut shard = self.shard.borrow_mut();
        let partition = shard.partition(self.slot).ok_or(Trouble::Gone)?;
        if partition.failed().is_some() || !partition.config.compact {
            return Err(Trouble::Gone);
        }
        Ok(work(partition))
    }

    /// Where the segment after this one begins.
    fn next_of(&self, at: usize) -> i64 {
        self.segments.get(at + 1).map_or(self.end, |next| next.base_offset)
    }

    async fn run(&mut self) -> Result<(), Trouble> {
        let seed = self.cx.rng().next_u64();
        // A key and its record take more than half of what is noted of it.
        let enough = usize::try_from(self.dirty_bytes.saturating_mul(2)).unwrap_or(usize::MAX);
        let mut map = OffsetMap::new(enough.max(MAP_MIN_BYTES).min(self.memory_bytes), seed);
        self.fill(&mut map).await?;
        if map.end_offset() <= self.first_dirty && enough < self.memory_bytes {
            // But not when they are small and compressed.
            map = OffsetMap::new(self.memory_bytes, seed);
            self.fill(&mut map).await?;
        }
        let end = map.end_offset();
        if end <= self.first_dirty {
            return Err(Trouble::Never(format!(
                "the batch at offset {} has more keys than {} bytes hold; \
                 raise --broker-compaction-memory",
                self.first_dirty, self.memory_bytes
            )));
        }
        let sealed = self.segments.len().saturating_sub(1);
        let sources = self.segments.iter().take(sealed).take_while(|one| one.base_offset < end);
        let sources: Vec<Segment> = sources.copied().collect();
        let cleaner = Cleaner {
            map: &map,
            end_offset: end,
            now_ms: self.now_ms,
            delete_retention_ms: self.config.compaction.delete_retention_ms,
        };
        let most = self.config.segment_bytes.min(SEGMENT_MAX_BYTES);
        let index_most = self.config.segment_index_bytes as u64;
        let group_end = self.next_of(sources.len().saturating_sub(1));
        for group in groups(&sources, group_end, most, index_most) {
            self.replace(&cleaner, group).await?;
        }
        self.finish(end).await
    }

    /// The records of a batch as they are without compression.
    async fn plain(&mut self, batch: &Batch<'_>) -> Result<Option<Vec<u8>>, Trouble> {
        let codec =
            batch.codec().map_err(|problem| self.damaged(batch, &format!("{problem:?}")))?;
        if codec == Codec::None {
            return Ok(None);
        }
        let refused = |problem: compress::Problem| self.damaged(batch, &problem.to_string());
        let mut job = Decompress::new(codec, batch.body(), PLAIN_MAX_BYTES).map_err(refused)?;
        while !job.step(PIECE_BYTES).map_err(refused)? {
            yield_now().await;
        }
        Ok(Some(job.into_plain()))
    }

    fn damaged(&self, batch: &Batch<'_>, why: &str) -> Trouble {
        let offset = batch.base_offset();
        Trouble::Never(format!("the batch at offset {offset} of {}: {why}", self.name))
    }
}
