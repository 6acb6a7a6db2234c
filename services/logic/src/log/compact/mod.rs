//! What compaction reads, keeps and drops: of each key the last record, of tombstones those whose time has not
//! come.
//!
//! A round has two passes. The first reads the records from the first dirty offset to the round's end and notes
//! each key's last offset in an [`OffsetMap`], until that is full; the second copies all segments up to where
//! the first came, without what is [no longer wanted](Cleaner::judge), several small ones [into one](groups).
//! Rules are those of Kafka's LogCleaner for record format 2; control batches are to be kept, since no
//! transaction is ever written. Invariants: the active segment and what is not durable are never touched; a
//! record behind the map's end is kept; a batch keeps its first and last offset and its sequence numbers.
//! Next: [`offset_map`]; the broker reads and writes, a few batches at a time.

pub mod offset_map;

use std::ops::Range;

pub use offset_map::OffsetMap;

/// What is known of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Its first offset.
    pub base_offset: i64,
    /// Its bytes.
    pub len_bytes: u64,
    /// Bytes of the larger one of its indexes.
    pub index_bytes: u64,
    /// The timestamp of its first batch; 0 or below for none.
    pub first_timestamp_ms: i64,
    /// The newest timestamp in it.
    pub max_timestamp_ms: i64,
}

/// A partition's log.
#[derive(Clone, Copy, Debug)]
pub struct Log<'a> {
    /// Its segments in order, the last one active.
    pub segments: &'a [Segment],
    /// Where it begins.
    pub start_offset: i64,
    /// Where it ends.
    pub end_offset: i64,
    /// Everything before is decided: the high watermark, or the last stable offset where that is less.
    pub stable_offset: i64,
    /// Where the last round ended.
    pub cleaned_to: Option<i64>,
}

/// What a topic wants.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rules {
    /// Share of bytes that are dirty above which a round is due: `min.cleanable.dirty.ratio`.
    pub min_dirty_ratio: f64,
    /// Records stay for so long: `min.compaction.lag.ms`.
    pub min_lag_ms: i64,
    /// A round is due when dirty records are older: `max.compaction.lag.ms`.
    pub max_lag_ms: i64,
    /// Tombstones stay for so long after the round that met them: `delete.retention.ms`.
    pub delete_retention_ms: i64,
}

/// A round of compaction that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Round {
    /// The first pass begins here.
    pub first_dirty_offset: i64,
    /// And ends before this one, which is a segment's first.
    pub end_offset: i64,
    /// Bytes of the segments before the first dirty offset.
    pub clean_bytes: u64,
    /// Bytes of the segments from there to the end.
    pub dirty_bytes: u64,
}

impl Round {
    /// The share of dirty bytes: the partition with the largest is the next.
    #[must_use]
    pub fn dirty_ratio(&self) -> f64 {
        let total = self.clean_bytes.saturating_add(self.dirty_bytes);
        if total == 0 { 0.0 } else { self.dirty_bytes as f64 / total as f64 }
    }
}

/// The round that is due for a log at `now_ms`, if there is one. O(segments).
#[must_use]
pub fn round(log: &Log<'_>, rules: &Rules, now_ms: i64) -> Option<Round> {
    let (active, sealed) = log.segments.split_last()?;
    let cleaned_to = log.cleaned_to.unwrap_or(log.start_offset);
    // What was noted of a log that was cut or begins later is worth nothing.
    let noted = (log.start_offset..=log.end_offset).contains(&cleaned_to);
    let first_dirty_offset = if noted { cleaned_to } else { log.start_offset };
    let dirty = sealed.get(holder(log.segments, first_dirty_offset)..).unwrap_or_default();
    let young = |segment: &&Segment| {
        rules.min_lag_ms > 0 && segment.max_timestamp_ms > now_ms.saturating_sub(rules.min_lag_ms)
    };
    let stop = dirty.iter().find(young).map_or(active.base_offset, |segment| segment.base_offset);
    let stop = stop.min(log.stable_offset).max(first_dirty_offset);
    // Whole segments only.
    let end = log.segments.get(holder(log.segments, stop));
    let end_offset = end.map_or(active.base_offset, |segment| segment.base_offset);
    let bytes = |segments: &mut dyn Iterator<Item = &Segment>| -> u64 {
        segments.map(|segment| segment.len_bytes).sum()
    };
    let round = Round {
        first_dirty_offset,
        end_offset,
        clean_bytes: bytes(&mut sealed.iter().take_while(|it| it.base_offset < first_dirty_offset)),
        dirty_bytes: bytes(&mut dirty.iter().take_while(|it| it.base_offset < end_offset)),
    };
    let begun = dirty.iter().map(|segment| segment.first_timestamp_ms).filter(|begun| *begun > 0);
    let due_ms = now_ms.saturating_sub(rules.max_lag_ms.max(0));
    let overdue = begun.min().is_some_and(|begun| begun < due_ms);
    let due = overdue || round.dirty_ratio() > rules.min_dirty_ratio;
    (due && round.dirty_bytes > 0).then_some(round)
}

/// The place of the segment that holds an offset; the first when it lies before all.
fn holder(segments: &[Segment], offset: i64) -> usize {
    segments.partition_point(|segment| segment.base_offset <= offset).saturating_sub(1)
}

/// Which of `segments` are copied into one, in order: neighbours that fit into `segment_bytes` and
/// `index_bytes` together, and whose offsets fit an index. `end_offset` is the round's.
#[must_use]
pub fn groups(
    segments: &[Segment],
    end_offset: i64,
    segment_bytes: u64,
    index_bytes: u64,
) -> Vec<Range<usize>> {
    let mut groups: Vec<Range<usize>> = Vec::new();
    let (mut base_offset, mut len, mut index) = (0, 0_u64, 0_u64);
    for (at, segment) in segments.iter().enumerate() {
        let next = segments.get(at + 1).map_or(end_offset, |next| next.base_offset);
        let near = segment.len_bytes == 0
            || next.saturating_sub(1).saturating_sub(base_offset) <= i64::from(i32::MAX);
        let joins = near
            && len.saturating_add(segment.len_bytes) <= segment_bytes
            && index.saturating_add(segment.index_bytes) <= index_bytes;
        match groups.last_mut() {
            Some(group) if joins => group.end = at + 1,
            _ => {
                groups.push(at..at + 1);
                (base_offset, len, index) = (segment.base_offset, 0, 0);
            }
        }
        len = len.saturating_add(segment.len_bytes);
        index = index.saturating_add(segment.index_bytes);
    }
    groups
}

/// What is known of a batch of the second pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Its last offset, which it keeps.
    pub last_offset: i64,
    /// When its tombstones go, if an earlier round has set that (attributes, bit 6; KIP-534).
    pub delete_horizon_ms: Option<i64>,
}

/// What is known of a record of the second pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// Its offset.
    pub offset: i64,
    /// Its key, if it has one.
    pub key: Option<&'a [u8]>,
    /// It has a value; if not, it is a tombstone.
    pub has_value: bool,
}

/// What becomes of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is copied.
    Keep,
    /// There is a later one of its key.
    Superseded,
    /// It is a tombstone whose time has come.
    Expired,
    /// It has no key, which a compacted log has no place for.
    NoKey,
}

/// Decides the second pass of a round.
#[derive(Clone, Copy, Debug)]
pub struct Cleaner<'a> {
    /// What the first pass found.
    pub map: &'a OffsetMap,
    /// The round's end.
    pub end_offset: i64,
    /// When the round began.
    pub now_ms: i64,
    /// [`Rules::delete_retention_ms`].
    pub delete_retention_ms: i64,
}

impl Cleaner<'_> {
    /// Whether a record stays. O(1).
    #[must_use]
    pub fn judge(&self, batch: &Batch, record: &Record<'_>) -> Verdict {
        if record.offset >= self.map.end_offset() {
            return Verdict::Keep;
        }
        let Some(key) = record.key else { return Verdict::NoKey };
        if self.map.get(key).is_some_and(|last| record.offset < last) {
            return Verdict::Superseded;
        }
        let expired = batch.delete_horizon_ms.is_some_and(|horizon| horizon <= self.now_ms);
        if expired && !record.has_value { Verdict::Expired } else { Verdict::Keep }
    }

    /// Whether a batch of which no record stays is kept without records: the last of a producer that is
    /// known, whose last offset is given, so that its sequence number is found again, and the last of the
    /// round, so that the log's offsets are.
    #[must_use]
    pub fn keeps_empty(&self, batch: &Batch, producer_last_offset: Option<i64>) -> bool {
        producer_last_offset == Some(batch.last_offset)
            || batch.last_offset.saturating_add(1) == self.end_offset
    }

    /// The delete horizon to write into a batch that had none and of which tombstones stay; `None` when
    /// its header stays as it is.
    #[must_use]
    pub fn new_delete_horizon_ms(&self, batch: &Batch, tombstones_stay: bool) -> Option<i64> {
        let wanted = tombstones_stay && batch.delete_horizon_ms.is_none();
        wanted.then(|| self.now_ms.saturating_add(self.delete_retention_ms))
    }
}

#[cfg(test)]
mod tests;
