//! What compaction sees of a partition, and the one step in which it changes it.
//!
//! Invariants: a round covers sealed segments only, all of them durable and with sidecars; the segments of a group
//! are replaced at once, while nobody else changes files beside the log; who sends from an old one goes on,
//! since it is open. Next: `crate::compact` for the round.

use std::path::{Path, PathBuf};
use std::rc::Rc;

use engine::buf::DirectBuf;
use engine::error::Error;
use engine::exec::sync::Turns;
use engine::fs::{Caching, Dir, File};
use engine::shard::ShardCx;
use logic::log::compact::{self, Log, Round};
use logic::log::{offset_index, time_index};
use wire::kafka::batch::{Batch, HEADER_BYTES};

use super::{Batches, Hints, Partition, Segment};
use crate::catalog::replace_file;
use crate::compact::noted::{FILE, Noted};

/// Where [`FILE`] is written before it gets its name; never at the same time as other files.
const TEMPORARY: &str = "compaction.writing";
/// A round that failed is tried again after so long.
const RETRY_MS: i64 = 60_000;
/// Headers read in one go to know how old segments are.
const FIRST_TIMESTAMPS_MAX: usize = 16;

/// Compaction of one partition.
#[derive(Debug, Default)]
pub(super) struct Compaction {
    pub(super) noted: Noted,
    /// It is not compacted until the next start.
    broken: bool,
    /// It is not compacted before this time.
    not_before_ms: i64,
    /// Segments are being replaced.
    pub(super) swapping: bool,
}

/// A round that is due.
#[derive(Clone, Debug)]
pub(crate) struct Due {
    pub(crate) round: Round,
    /// All segments, the active one last.
    pub(crate) segments: Vec<compact::Segment>,
}

impl Partition {
    /// The round that is due. O(segments).
    pub(crate) fn compaction_due(&self, now_ms: i64) -> Option<Due> {
        let state = &self.compaction;
        if !self.config.compact
            || self.failed.is_some()
            || state.broken
            || now_ms < state.not_before_ms
        {
            return None;
        }
        let segments: Vec<compact::Segment> = self.segments.iter().map(known).collect();
        // What lies behind damage, is not durable, or is where the high watermark counts positions, has to wait.
        let mut sealed = self.segments.iter().take(self.segments.len().saturating_sub(1));
        let fit = |one: &Segment| {
            one.has_sidecars && one.damaged_at.is_none() && one.base < self.high.base
        };
        let wall = sealed.find(|one| !fit(one));
        let stable = self.high.offset.min(self.durable);
        let log = Log {
            segments: &segments,
            start_offset: self.start,
            end_offset: self.end,
            stable_offset: wall.map_or(stable, |wall| wall.base.min(stable)),
            cleaned_to: state.noted.cleaned_to,
        };
        let round = compact::round(&log, &self.config.compaction, now_ms)?;
        Some(Due { round, segments })
    }

    /// Whether the topic is compacted by age, and segments are there whose age is not known.
    pub(crate) fn wants_first_timestamps(&self) -> bool {
        self.config.compact
            && self.config.compaction.max_lag_ms < i64::MAX
            && self.segments.iter().any(is_unread)
    }

    /// Some segments whose age is not known: first offsets and files.
    pub(crate) fn unread_segments(&mut self, cx: &ShardCx) -> Vec<(i64, Rc<File>)> {
        let unread = self.segments.iter_mut().filter(|segment| is_unread(segment));
        let files = unread.take(FIRST_TIMESTAMPS_MAX).map(|segment| {
            let file = segment.file(cx, false);
            // One that cannot be read now counts as without a time.
            segment.first_timestamp_ms = -1;
            Some((segment.base, file.ok()?))
        });
        files.flatten().collect()
    }

    /// Notes how old a segment is.
    pub(crate) fn set_first_timestamp(&mut self, base: i64, timestamp_ms: i64) {
        if let Some(segment) = self.segments.iter_mut().find(|segment| segment.base == base) {
            segment.first_timestamp_ms = timestamp_ms;
        }
    }

    /// The batches of a sealed segment, from a place at or before `offset` on; `None` when it is gone.
    pub(crate) fn source(
        &mut self,
        cx: &ShardCx,
        base: i64,
        offset: i64,
    ) -> Option<Result<Batches, Error>> {
        let segment = self.segments.iter_mut().find(|segment| segment.base == base)?;
        let relative = u32::try_from(offset.saturating_sub(base)).unwrap_or(0);
        let from = u64::from(segment.offsets.find(relative).position);
        let len = segment.len;
        let file = segment.file(cx, false);
        segment.let_go();
        Some(file.map(|file| Batches::new(file, from, len)))
    }

    /// The last offset of a producer that is known.
    pub(crate) fn producer_last_offset(&self, producer_id: i64) -> Option<i64> {
        self.producers.get(producer_id).map(logic::log::producers::Producer::last_offset)
    }

    /// What is remembered of its compaction.
    pub(crate) const fn noted(&self) -> Noted {
        self.compaction.noted
    }

    pub(crate) fn note(&mut self, noted: Noted) {
        self.compaction.noted = noted;
    }

    /// A round could not be finished, and can when it is tried again.
    pub(crate) fn compact_later(&mut self, now_ms: i64) {
        self.compaction.not_before_ms = now_ms.saturating_add(RETRY_MS);
    }

    /// A round cannot be finished: the log is not compacted until the next start.
    pub(crate) fn compact_never(&mut self) {
        self.compaction.broken = true;
    }

    /// Whether it is to be compacted and cannot be.
    pub(crate) fn is_uncleanable(&self) -> bool {
        self.config.compact && self.compaction.broken
    }

    /// Whose turn it is to change files beside the log.
    pub(crate) fn turns(&self) -> Rc<Turns> {
        Rc::clone(&self.tidying)
    }

    /// Whether nobody is about to change files beside the log, but for who holds `held` of [`Partition::turns`].
    pub(crate) fn is_quiet_for(&self, held: usize) -> bool {
        // Each job that was decided on has one too.
        Rc::strong_count(&self.tidying) == 1 + held
    }

    /// Keeps segments from being removed while some are replaced, or no longer.
    pub(crate) fn set_swapping(&mut self, swapping: bool) {
        self.compaction.swapping = swapping;
    }

    /// Whether all segments from `base` on before `end` are sealed and begin there.
    pub(crate) fn has_sealed(&self, base: i64, end: i64) -> bool {
        let first = self.segments.iter().position(|segment| segment.base == base);
        first.is_some() && self.segments.iter().any(|segment| segment.base == end)
    }

    /// Replaces the segments from `new`'s first offset on before `end`; their files' first offsets.
    pub(crate) fn replace(&mut self, new: Segment, end: i64) -> Vec<i64> {
        let first = self.segments.partition_point(|segment| segment.base < new.base);
        let after = self.segments.partition_point(|segment| segment.base < end);
        let gone = self.segments.drain(first..after).map(|segment| segment.base).collect();
        self.segments.insert(first, new);
        // Positions are others now.
        self.hints = Hints::default();
        gone
    }

    /// The file of a segment that was replaced has its own name now.
    pub(crate) fn renamed(&mut self, base: i64, path: PathBuf) {
        if let Some(segment) = self.segments.iter_mut().find(|segment| segment.base == base) {
            segment.set_path(path);
        }
    }

    /// Takes the partition offline.
    pub(crate) fn give_up(&mut self, cx: &ShardCx, why: String) {
        self.fail(cx, why);
    }

    /// Reads [`FILE`].
    pub(super) async fn load_noted(&mut self, cx: &ShardCx) -> Result<(), Error> {
        let Some(file) = super::open::read_file(cx, &self.dir.join(FILE)).await? else {
            return Ok(());
        };
        match Noted::decode(&file) {
            Some(noted) => self.compaction.noted = noted,
            // Gaps may be anywhere: nothing is taken for a lost write.
            None => self.compaction.noted.gaps_to = i64::MAX,
        }
        Ok(())
    }

    /// Reads when the active segment began, so that it ends in time.
    pub(super) async fn load_first_timestamp(&mut self, cx: &ShardCx) {
        if let Some(active) = self.segments.back_mut().filter(|active| is_unread(active))
            && let Ok(file) = active.file(cx, true)
        {
            // One that cannot be read counts from now on.
            active.first_timestamp_ms = first_timestamp(&file).await.unwrap_or(-1);
        }
    }
}

/// Makes `noted` what a start will read.
pub(crate) async fn store_noted(cx: &ShardCx, dir: &Path, noted: &Noted) -> Result<(), Error> {
    let dir = Dir::existing(cx, dir)?;
    replace_file(cx, &dir, FILE, TEMPORARY, &noted.encode()).await
}

/// The newest timestamp of a file's first batch; -1 for none.
pub(crate) async fn first_timestamp(file: &File) -> Result<i64, Error> {
    let (buf, read) =
        file.read_at(DirectBuf::zeroed(HEADER_BYTES), HEADER_BYTES, 0, Caching::Keep).await?;
    let header = Batch::header(buf.get(..read).unwrap_or_default());
    Ok(header.map_or(-1, |batch| batch.max_timestamp()))
}

const fn is_unread(segment: &Segment) -> bool {
    segment.first_timestamp_ms == Segment::UNREAD && segment.len > 0
}

fn known(segment: &Segment) -> compact::Segment {
    let offsets = segment.offsets.len() * offset_index::ENTRY_BYTES;
    let times = segment.times.len() * time_index::ENTRY_BYTES;
    compact::Segment {
        base_offset: segment.base,
        len_bytes: segment.len,
        index_bytes: offsets.max(times) as u64,
        first_timestamp_ms: segment.first_timestamp_ms,
        max_timestamp_ms: segment.max_timestamp_ms,
    }
}
