//! One partition's log: batches go in at the end, are synced, and come out as ranges of files.
//!
//! ```text
//! log start ........ segment | segment | active segment: ... high watermark ... end
//! ```
//! An append writes the batch from where it was received into the page cache and notes it; one sync a turn
//! covers all appends of that turn and moves the high watermark, up to which consumers read and producers are
//! answered. Invariants: the bytes in a file are those received but for the batch's place; `start <= high <=
//! end`; a batch is in one segment; after a failed sync the partition takes and gives nothing until the
//! process has read it again, because what the disk holds is unknown. Next: `open` for recovery, `read` for
//! finding offsets, `clean` for what goes.

mod clean;
mod compact;
mod open;
mod ranges;
mod read;
mod realign;
mod segment;
mod verify;

use std::collections::VecDeque;
use std::path::PathBuf;
use std::rc::Rc;

use engine::driver::Errno;
use engine::error::Error;
use engine::exec::sync::Turns;
use engine::fs::{Dir, File};
use engine::shard::ShardCx;
use logic::log::Producers;
use logic::log::producers::{BatchId, Check, Stored};
use logic::log::retention::{self, Active, Incoming, SegmentLimits};
use view::Instant;
use wire::kafka::batch::{Batch, Codec, Problem};
use wire::kafka::compress;
use wire::kafka::records::records;

use crate::code::Code;
use crate::topic_config::{Flush, TopicConfig};
use crate::watch::Watch;
use read::Hints;

pub(crate) use clean::FileJob;
pub(crate) use compact::{first_timestamp, store_noted};
pub(crate) use open::{Check as Batches, read_file, remove_dir};
pub(crate) use read::{Cold, Located, Missing};
pub(crate) use segment::{
    INDEX, LOG, SEGMENT_MAX_BYTES, Segment, TIME_INDEX, file_name, offset_of,
};
pub(crate) use verify::Unverified;

/// Producers remembered per partition.
const PRODUCERS_MAX: usize = 100_000;
/// Records without a key that are named when a batch is refused.
const RECORD_ERRORS_MAX: usize = 100;
/// Bytes appended after which indexes and producers are written, so that a start has little to read.
const CHECKPOINT_BYTES: u64 = 32 << 20;
/// The epoch of the only leader there is.
pub(crate) const LEADER_EPOCH: i32 = 0;

/// A place between two batches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Place {
    /// The next offset.
    pub(crate) offset: i64,
    /// First offset of the segment.
    pub(crate) base: i64,
    /// Position in it.
    pub(crate) position: u64,
}

/// A batch was stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Appended {
    /// Offset of its first record.
    pub(crate) base_offset: i64,
    /// The broker's time, where the topic wants that; -1 else.
    pub(crate) log_append_time_ms: i64,
    /// Durable when the high watermark is here.
    pub(crate) end: i64,
}

/// Why a batch was not stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) code: Code,
    pub(crate) why: String,
    /// Numbers of the records at fault, within the batch.
    pub(crate) records: Vec<i32>,
}

impl Refusal {
    pub(crate) fn new(code: Code, why: impl Into<String>) -> Self {
        Self { code, why: why.into(), records: Vec::new() }
    }
}

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        let code = match problem {
            Problem::Cut | Problem::Checksum { .. } => Code::CorruptMessage,
            Problem::OldFormat(_) | Problem::UnknownFormat(_) => Code::UnsupportedForMessageFormat,
            Problem::Timestamp => Code::InvalidTimestamp,
            Problem::UnknownCodec(_) => Code::UnsupportedCompressionType,
            Problem::Count | Problem::Attributes(_) | Problem::Producer => Code::InvalidRecord,
        };
        Self::new(code, format!("{code}: {problem:?}"))
    }
}

/// Syncs that are taken to be shared after one that was.
const COMPANY: u8 = 8;

/// What has to be synced, and what is durable then.
#[derive(Debug)]
pub(crate) struct SyncJob {
    files: Vec<Rc<File>>,
    dir: Option<PathBuf>,
    target: Place,
    sidecars: Option<FileJob>,
}

/// What came of a sync.
#[derive(Debug)]
pub(crate) struct Synced {
    pub(crate) target: Place,
    pub(crate) result: Result<(), Error>,
    /// To be written now that what they speak of is durable.
    pub(crate) sidecars: Option<FileJob>,
}

impl SyncJob {
    /// Performs it.
    pub(crate) async fn run(self, cx: &ShardCx) -> Synced {
        let target = self.target;
        let synced = async {
            for file in &self.files {
                file.sync().await?;
            }
            if let Some(dir) = &self.dir {
                Dir::existing(cx, dir)?.sync().await?;
            }
            Ok(())
        };
        let result = synced.await;
        let sidecars = self.sidecars.filter(|_| result.is_ok());
        Synced { target, result, sidecars }
    }
}

/// Who waits for a partition to become durable: a number of the shard's.
pub(crate) type CommitId = u32;

/// A partition that this shard leads.
#[derive(Debug)]
pub(crate) struct Partition {
    /// Its topic.
    pub(crate) topic: Rc<str>,
    /// Its number.
    pub(crate) index: i32,
    pub(crate) config: Rc<TopicConfig>,
    dir: PathBuf,
    segments: VecDeque<Segment>,
    start: i64,
    end: i64,
    high: Place,
    /// Everything before is synced.
    durable: i64,
    producers: Producers,
    /// Why it takes and gives nothing.
    failed: Option<String>,
    /// Sealed, and not synced yet.
    unsynced: Vec<Rc<File>>,
    dir_changed: bool,
    syncing: bool,
    /// For so many syncs more it is taken that several requests wait for one.
    company: u8,
    /// On the shard's list of partitions to sync.
    pub(crate) listed: bool,
    commits: VecDeque<(i64, CommitId)>,
    watches: Vec<Rc<Watch>>,
    since_checkpoint: u64,
    /// A snapshot of producers is being made.
    snapshotting: bool,
    /// Names of the snapshots that are there.
    snapshots: Vec<String>,
    /// Whose turn it is to write and remove files beside the log.
    tidying: Rc<Turns>,
    /// Where the last reads ended: the next ones begin there.
    hints: Hints,
    /// Everything before was synced when the partition was opened.
    synced_to: i64,
    /// Damaged ranges that were found.
    damaged: u64,
    /// Whose turn it is to check a segment.
    verifying: Rc<Turns>,
    compaction: compact::Compaction,
}

impl Partition {
    /// The first offset there is.
    pub(crate) const fn start(&self) -> i64 {
        self.start
    }

    /// Everything before may be read.
    pub(crate) const fn high_watermark(&self) -> i64 {
        self.high.offset
    }

    /// Bytes in all segments.
    pub(crate) fn len_bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.len).sum()
    }

    pub(crate) fn producers(&self) -> &Producers {
        &self.producers
    }

    /// Why it takes and gives nothing, if so.
    pub(crate) fn failed(&self) -> Option<&str> {
        self.failed.as_deref()
    }

    /// Takes and gives nothing from here on.
    pub(crate) fn fail(&mut self, cx: &ShardCx, why: String) {
        cx.log().error(
            "broker",
            cx.now(),
            "partition offline",
            &[("topic", &self.topic), ("partition", &self.index), ("why", &why)],
        );
        self.failed = Some(why);
        self.wake();
    }

    fn wake(&mut self) {
        for watch in self.watches.drain(..) {
            watch.wake();
        }
    }

    /// Wakes `watch` once, when there is more to read.
    pub(crate) fn watch(&mut self, watch: &Rc<Watch>) {
        // Those that were answered meanwhile.
        self.watches.retain(|watch| Rc::strong_count(watch) > 1);
        self.watches.push(Rc::clone(watch));
    }

    /// Stores the batch that a producer sent as `records`, which is to be the only one.
    pub(crate) fn produce(
        &mut self,
        cx: &ShardCx,
        records: &[u8],
        now: Instant,
    ) -> Result<Appended, Refusal> {
        let (batch, rest) = Batch::split(records)?;
        if !rest.is_empty() {
            return Err(Refusal::new(Code::InvalidRecord, "more than one record batch"));
        }
        if batch.len() > self.config.message_max_bytes {
            let why = format!(
                "a batch of {} bytes, above max.message.bytes = {}",
                batch.len(),
                self.config.message_max_bytes
            );
            return Err(Refusal::new(Code::MessageTooLarge, why));
        }
        batch.check()?;
        if batch.is_transactional() {
            let why = "transactions are not supported by this broker";
            return Err(Refusal::new(Code::TransactionalIdAuthorizationFailed, why));
        }
        self.check_times(&batch, now)?;
        if self.config.compact {
            self.check_keys(&batch)?;
        }
        if batch.producer_id() >= 0 {
            match self.producers.check(&batch_id(&batch)) {
                Check::Append => {}
                Check::Duplicate(stored) => return Ok(self.stored_before(&stored)),
                Check::OutOfOrder { expected } => {
                    let why = format!(
                        "sequence {} of producer {}, where {expected} follows",
                        batch.base_sequence(),
                        batch.producer_id()
                    );
                    return Err(Refusal::new(Code::OutOfOrderSequence, why));
                }
                Check::Fenced { epoch } => {
                    let why = format!("epoch {}, where {epoch} was seen", batch.producer_epoch());
                    return Err(Refusal::new(Code::InvalidProducerEpoch, why));
                }
            }
        }
        let appended = self.append(cx, &batch, now);
        if appended.is_err() && batch.producer_id() >= 0 {
            self.producers.refused(&batch_id(&batch), unix_ms(now));
        }
        appended
    }

    /// Records of a compacted topic need keys. A compressed batch may take as many bytes as one that is not, so that it
    /// is opened in a turn.
    fn check_keys(&self, batch: &Batch<'_>) -> Result<(), Refusal> {
        let invalid = |why: String| Refusal::new(Code::InvalidRecord, why);
        let plain = match batch.codec()? {
            Codec::None => None,
            codec => {
                let most = self.config.message_max_bytes;
                let plain = compress::decompress(codec, batch.body(), most);
                Some(plain.map_err(|problem| match problem {
                    compress::Problem::TooLong(_) => {
                        let why =
                            format!("{problem}, as max.message.bytes of a compacted topic says");
                        Refusal::new(Code::MessageTooLarge, why)
                    }
                    compress::Problem::Damaged(_) => invalid(problem.to_string()),
                })?)
            }
        };
        let (mut count, mut keyless, mut wrong) = (0, 0, Vec::new());
        for record in records(plain.as_deref().unwrap_or(batch.body())) {
            let record = record.map_err(|why| invalid(format!("record {count}: {why}")))?;
            if record.key.is_none() {
                keyless += 1;
                if wrong.len() < RECORD_ERRORS_MAX {
                    wrong.push(count);
                }
            }
            count += 1;
        }
        if count != batch.record_count() {
            let stated = batch.record_count();
            return Err(invalid(format!("{count} records in a batch that says {stated}")));
        }
        if keyless > 0 {
            let why =
                format!("{keyless} of {count} records have no key, which a compacted topic needs");
            return Err(Refusal { records: wrong, ..invalid(why) });
        }
        Ok(())
    }

    fn stored_before(&self, stored: &Stored) -> Appended {
        let log_append_time_ms = if self.config.log_append_time { stored.timestamp_ms } else { -1 };
        Appended {
            base_offset: stored.base_offset,
            log_append_time_ms,
            end: stored.last_offset + 1,
        }
    }

    fn check_times(&self, batch: &Batch<'_>, now: Instant) -> Result<(), Refusal> {
        if self.config.log_append_time {
            return Ok(());
        }
        let now_ms = unix_ms(now);
        let newest = batch.max_timestamp();
        let too_new = newest.saturating_sub(now_ms) > self.config.timestamp_after_max_ms;
        let too_old = now_ms.saturating_sub(batch.base_timestamp())
            > self.config.timestamp_before_max_ms
            && batch.base_timestamp() >= 0;
        if too_new || too_old {
            let why = format!("timestamps up to {newest}, at {now_ms} by the broker's clock");
            return Err(Refusal::new(Code::InvalidTimestamp, why));
        }
        Ok(())
    }

    /// Stores a batch that was checked.
    pub(crate) fn append(
        &mut self,
        cx: &ShardCx,
        batch: &Batch<'_>,
        now: Instant,
    ) -> Result<Appended, Refusal> {
        if let Some(why) = &self.failed {
            return Err(Refusal::new(Code::StorageError, why.clone()));
        }
        let now_ms = unix_ms(now);
        if self.must_roll(batch, now_ms) {
            self.roll(cx)?;
        }
        let base_offset = self.end;
        let stamped = self.config.log_append_time;
        let timestamp_ms = if stamped { now_ms } else { batch.max_timestamp() };
        let (place, stamped_header);
        let front = if stamped {
            stamped_header = batch.placed_with_time(base_offset, LEADER_EPOCH, now_ms);
            &stamped_header[..]
        } else {
            place = batch.placed(base_offset, LEADER_EPOCH);
            &place[..]
        };
        let Some(active) = self.segments.back_mut() else {
            return Err(Refusal::new(Code::StorageError, "the partition has no segment"));
        };
        let position = active.len;
        if let Err((errno, stuck)) = active.append(cx, batch, front) {
            return Err(self.append_failed(cx, errno, stuck));
        }
        active.note(batch, base_offset, timestamp_ms, position, self.config.index_interval_bytes);
        self.end = base_offset + i64::from(batch.last_offset_delta()) + 1;
        self.since_checkpoint += batch.len() as u64;
        self.note_producer(batch, base_offset, timestamp_ms, now_ms);
        if self.config.flush != Flush::Sync {
            self.high = self.end_place();
            self.wake();
        }
        let log_append_time_ms = if stamped { now_ms } else { -1 };
        Ok(Appended { base_offset, log_append_time_ms, end: self.end })
    }

    fn note_producer(
        &mut self,
        batch: &Batch<'_>,
        base_offset: i64,
        timestamp_ms: i64,
        now_ms: i64,
    ) {
        if batch.producer_id() < 0 || batch.base_sequence() < 0 {
            return;
        }
        let stored = Stored {
            base_sequence: batch.base_sequence(),
            last_sequence: batch.last_sequence(),
            base_offset,
            last_offset: base_offset + i64::from(batch.last_offset_delta()),
            timestamp_ms,
        };
        self.producers.append(batch.producer_id(), batch.producer_epoch(), stored, now_ms);
    }

    fn append_failed(&mut self, cx: &ShardCx, errno: Errno, stuck: bool) -> Refusal {
        if stuck {
            self.fail(cx, format!("a failed write could not be taken back: {errno}"));
        }
        let why = format!("write of a batch to {}: {errno}", self.dir.display());
        Refusal::new(Code::StorageError, why)
    }

    fn end_place(&self) -> Place {
        let (base, position) =
            self.segments.back().map_or((0, 0), |active| (active.base, active.len));
        Place { offset: self.end, base, position }
    }

    fn must_roll(&self, batch: &Batch<'_>, now_ms: i64) -> bool {
        let Some(segment) = self.segments.back() else { return true };
        let active = Active {
            base_offset: segment.base,
            len_bytes: segment.len,
            first_timestamp_ms: segment.first_timestamp_ms,
            created_ms: segment.created_ms,
            offset_entries: segment.offsets.len(),
            time_entries: segment.times.len(),
        };
        let stamped = self.config.log_append_time;
        let incoming = Incoming {
            len_bytes: batch.len() as u64,
            last_offset: self.end.saturating_add(i64::from(batch.last_offset_delta())),
            max_timestamp_ms: if stamped { now_ms } else { batch.max_timestamp() },
        };
        let limits = SegmentLimits {
            len_bytes: self.config.segment_bytes.min(SEGMENT_MAX_BYTES),
            span_ms: self.config.segment_span_ms().saturating_sub(segment.jitter_ms),
            index_bytes: self.config.segment_index_bytes,
        };
        retention::roll(&active, &incoming, &limits, now_ms).is_some()
    }

    /// Seals the active segment and begins the next.
    fn roll(&mut self, cx: &ShardCx) -> Result<(), Refusal> {
        let made = Segment::create(cx, &self.dir, self.end);
        let mut segment = made.map_err(|error| {
            Refusal::new(Code::StorageError, format!("a new segment cannot be made: {error}"))
        })?;
        let jitter_ms = self.config.segment_jitter_ms.min(self.config.segment_span_ms());
        if let Ok(jitter_ms @ 1..) = u64::try_from(jitter_ms) {
            segment.jitter_ms = cx.rng().below(jitter_ms).cast_signed();
        }
        if let Some(sealed) = self.segments.back_mut()
            && let Ok(file) = sealed.file(cx, true)
        {
            self.unsynced.push(file);
        }
        self.segments.push_back(segment);
        self.dir_changed = true;
        // So that the sealed one is known to be whole.
        self.since_checkpoint = CHECKPOINT_BYTES;
        Ok(())
    }

    /// Whether something was appended that no sync has covered or is about to, and that the topic wants
    /// synced now, or at the end of a `period`.
    pub(crate) fn needs_sync(&self, period: bool) -> bool {
        let wanted = match self.config.flush {
            Flush::Sync => true,
            Flush::Interval(_) => period,
            // Only so that a start has little to read.
            Flush::Os => period && self.wants_checkpoint(),
        };
        let behind = self.durable < self.end || self.dir_changed;
        wanted && behind && !self.syncing && self.failed.is_none()
    }

    /// Whether several requests shared a sync a short while ago.
    pub(crate) const fn has_company(&self) -> bool {
        self.company > 0
    }

    /// What is to be synced now; [`Partition::end_sync`] follows.
    pub(crate) fn begin_sync(&mut self, cx: &ShardCx) -> Option<SyncJob> {
        if self.syncing || self.failed.is_some() {
            return None;
        }
        let target = self.end_place();
        let mut files = std::mem::take(&mut self.unsynced);
        match self.segments.back_mut()?.file(cx, true) {
            Ok(file) => files.push(file),
            Err(error) => {
                self.fail(cx, error.to_string());
                return None;
            }
        }
        let dir = std::mem::take(&mut self.dir_changed).then(|| self.dir.clone());
        self.syncing = true;
        let sidecars = self.wants_checkpoint().then(|| self.checkpoint());
        Some(SyncJob { files, dir, target, sidecars })
    }

    /// Takes the outcome of a sync; who waited for it.
    pub(crate) fn end_sync(
        &mut self,
        cx: &ShardCx,
        target: Place,
        result: Result<(), Error>,
    ) -> Vec<CommitId> {
        self.syncing = false;
        match result {
            Ok(()) => {
                self.durable = self.durable.max(target.offset);
                if self.high.offset < target.offset {
                    self.high = target;
                }
                self.wake();
            }
            Err(error) => self.fail(cx, error.to_string()),
        }
        let mut done = Vec::new();
        while let Some((end, _)) = self.commits.front() {
            if *end > self.high.offset && self.failed.is_none() {
                break;
            }
            done.extend(self.commits.pop_front().map(|(_, commit)| commit));
        }
        self.company = if done.len() > 1 { COMPANY } else { self.company.saturating_sub(1) };
        for segment in self.segments.iter_mut().rev().skip(1) {
            if segment.base < self.high.base {
                segment.let_go();
            }
        }
        done
    }

    /// Whether what ends at `end` is durable, or need not be for an answer; notes `commit` to be told
    /// when it is not.
    pub(crate) fn commit(&mut self, end: i64, commit: CommitId) -> bool {
        if self.config.flush != Flush::Sync || end <= self.high.offset {
            return true;
        }
        self.commits.push_back((end, commit));
        false
    }
}

pub(crate) fn unix_ms(now: Instant) -> i64 {
    i64::try_from(now.unix_ms()).unwrap_or(i64::MAX)
}

fn batch_id(batch: &Batch<'_>) -> BatchId {
    BatchId {
        producer_id: batch.producer_id(),
        epoch: batch.producer_epoch(),
        base_sequence: batch.base_sequence(),
        last_sequence: batch.last_sequence(),
    }
}
