//! The second pass of a round: segments are copied without the records that are no longer wanted.
//!
//! A batch of which everything stays is copied as it is; one that loses records is written anew, with its own
//! codec. What stays of a batch keeps its offsets and sequence numbers. Next: [`super::swap`] for what becomes of the copy.

use std::rc::Rc;

use engine::buf::DirectBuf;
use engine::driver::OpenOptions;
use engine::exec::sync::yield_now;
use engine::fs::File;
use logic::log::compact::{self, Cleaner, Verdict};
use wire::kafka::batch::{Batch, Codec};
use wire::kafka::compress::Compress;
use wire::kafka::records::{BatchMeta, records, write_batch_of, write_compacted};

use super::{Job, PIECE_BYTES, RECORD_COST_BYTES, Trouble};
use crate::partition::{SEGMENT_MAX_BYTES, Segment};

/// Written at a time.
const WRITE_BYTES: usize = 1 << 20;

/// A copy that is being written.
pub(super) struct Copy {
    pub(super) file: Rc<File>,
    /// As it will be, when it has replaced the others.
    pub(super) segment: Segment,
    /// Not written yet.
    waiting: Vec<u8>,
    interval_bytes: u32,
    /// Something is not as it was.
    pub(super) changed: bool,
}

impl Copy {
    pub(super) fn create(job: &Job, base: i64) -> Result<Self, Trouble> {
        let path = job.path(base, super::swap::LOG_CLEANED);
        let options = OpenOptions { write: true, create: true, ..OpenOptions::default() };
        let file = Rc::new(File::open(&job.cx, &path, &options)?);
        // Left over from a round that failed.
        file.truncate(0)?;
        let interval_bytes = job.config.index_interval_bytes;
        let segment = Segment::known(path, base, 0);
        Ok(Self { file, segment, waiting: Vec::new(), interval_bytes, changed: false })
    }

    /// Adds a whole batch.
    fn push(&mut self, batch: &Batch<'_>) -> Result<(), Trouble> {
        let position = self.segment.len;
        self.segment.len += batch.len() as u64;
        if self.segment.len > SEGMENT_MAX_BYTES {
            // Compressing again took more room than before.
            return Err(Trouble::Never("a segment grows beyond its limit".into()));
        }
        let newest = if batch.is_empty() { -1 } else { batch.max_timestamp() };
        self.segment.note(batch, batch.base_offset(), newest, position, self.interval_bytes);
        self.waiting.extend_from_slice(batch.bytes());
        Ok(())
    }

    /// Writes what waits, if that is at least so much.
    pub(super) async fn write(&mut self, at_least: usize) -> Result<u64, Trouble> {
        let len = self.waiting.len();
        if len == 0 || len < at_least {
            return Ok(0);
        }
        let mut buf = DirectBuf::zeroed(len);
        buf[..len].copy_from_slice(&self.waiting);
        self.waiting.clear();
        let offset = self.segment.len - len as u64;
        self.file.write_at(buf, len, offset).await?;
        Ok(len as u64)
    }
}

/// What stays of a batch.
enum Kept {
    Whole,
    Anew(Vec<u8>),
    Nothing,
}

/// Which of a batch's records stay.
struct Choice {
    stay: Vec<bool>,
    count: i32,
    tombstones_stay: bool,
}

impl Job {
    /// Copies what stays of the segment at `base`.
    pub(super) async fn copy_segment(
        &mut self,
        cleaner: &Cleaner<'_>,
        base: i64,
        copy: &mut Copy,
    ) -> Result<(), Trouble> {
        let source = self.with(|partition| partition.source(&self.cx, base, base))?;
        let mut batches = source.ok_or(Trouble::Gone)??;
        while let Some(batch) = batches.next(base).await? {
            self.tally.read_bytes += batch.len() as u64;
            self.pace.spend(batch.len()).await;
            match self.keep(cleaner, &batch).await? {
                Kept::Whole => copy.push(&batch)?,
                Kept::Nothing => copy.changed = true,
                Kept::Anew(bytes) => {
                    copy.changed = true;
                    let made = Batch::split(&bytes);
                    let (made, _) =
                        made.map_err(|why| self.damaged(&batch, &format!("{why:?}")))?;
                    copy.push(&made)?;
                }
            }
            self.tally.written_bytes += copy.write(WRITE_BYTES).await?;
        }
        self.check_end(base, &batches)
    }

    async fn keep(&mut self, cleaner: &Cleaner<'_>, batch: &Batch<'_>) -> Result<Kept, Trouble> {
        if batch.is_control() {
            return Ok(Kept::Whole);
        }
        let known = compact::Batch {
            last_offset: batch.last_offset(),
            delete_horizon_ms: batch.has_delete_horizon().then(|| batch.base_timestamp()),
        };
        let producer = (batch.producer_id() >= 0).then_some(batch.producer_id());
        let last = match producer {
            Some(id) => self.with(|partition| partition.producer_last_offset(id))?,
            None => None,
        };
        let keeps_empty = cleaner.keeps_empty(&known, last);
        if batch.is_empty() {
            return Ok(if keeps_empty { Kept::Whole } else { Kept::Nothing });
        }
        let plain = self.plain(batch).await?;
        let body = plain.as_deref().unwrap_or(batch.body());
        let choice = self.choose(cleaner, &known, batch, body).await?;
        let horizon = cleaner.new_delete_horizon_ms(&known, choice.tombstones_stay);
        if choice.count == 0 && !keeps_empty {
            return Ok(Kept::Nothing);
        }
        if choice.count == batch.record_count() && horizon.is_none() {
            return Ok(Kept::Whole);
        }
        let mut made = Vec::with_capacity(body.len() + wire::kafka::batch::HEADER_BYTES);
        let mut stay = choice.stay.iter();
        write_compacted(&mut made, batch, body, horizon, |_| stay.next() == Some(&true))
            .map_err(|problem| self.damaged(batch, &problem.to_string()))?;
        self.pace.spend(made.len()).await;
        self.compress(batch, made).await.map(Kept::Anew)
    }

    async fn choose(
        &mut self,
        cleaner: &Cleaner<'_>,
        known: &compact::Batch,
        batch: &Batch<'_>,
        body: &[u8],
    ) -> Result<Choice, Trouble> {
        let mut choice = Choice { stay: Vec::new(), count: 0, tombstones_stay: false };
        for record in records(body) {
            let record = record.map_err(|problem| self.damaged(batch, &problem.to_string()))?;
            let judged = compact::Record {
                offset: batch.base_offset().saturating_add(record.offset_delta.into()),
                key: record.key,
                has_value: record.value.is_some(),
            };
            let verdict = cleaner.judge(known, &judged);
            let stays = verdict == Verdict::Keep;
            choice.stay.push(stays);
            choice.count += i32::from(stays);
            choice.tombstones_stay |= stays && record.value.is_none();
            match verdict {
                Verdict::Keep => {}
                Verdict::Expired => self.tally.dropped_tombstones += 1,
                Verdict::Superseded | Verdict::NoKey => self.tally.dropped_records += 1,
            }
            self.pace.spend(RECORD_COST_BYTES + record.key.map_or(0, <[u8]>::len)).await;
        }
        if choice.stay.len() as i64 != i64::from(batch.record_count()) {
            return Err(self.damaged(batch, "it has not as many records as it says"));
        }
        Ok(choice)
    }

    /// What was made of a batch, compressed as that was.
    async fn compress(&mut self, batch: &Batch<'_>, made: Vec<u8>) -> Result<Vec<u8>, Trouble> {
        let codec = batch.codec().unwrap_or(Codec::None);
        let split = Batch::split(&made).map_err(|why| self.damaged(batch, &format!("{why:?}")))?;
        let (plain, _) = split;
        if codec == Codec::None || plain.is_empty() {
            return Ok(made);
        }
        let refused = |error: std::io::Error| Trouble::Never(format!("{codec:?}: {error}"));
        let mut job = Compress::new(codec).map_err(refused)?;
        for piece in plain.body().chunks(PIECE_BYTES) {
            job.write(piece).map_err(refused)?;
            yield_now().await;
        }
        let packed = job.finish().map_err(refused)?;
        let mut bytes = Vec::with_capacity(packed.len() + wire::kafka::batch::HEADER_BYTES);
        let meta = BatchMeta::of(&plain);
        write_batch_of(&mut bytes, &meta, codec, plain.record_count(), &packed);
        Ok(bytes)
    }
}
