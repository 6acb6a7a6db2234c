//! Which segments of a partition go, and when the next one begins.
//!
//! Rules are Kafka's: only whole segments from the front, never the active one; by the age of a segment's newest
//! record, by the size of the partition, and by the first offset that is still wanted. A segment ends when the
//! next batch would make it too large, too long in time, or its indexes too full, or its offset would not fit
//! them.

use super::{offset_index, time_index};

/// What is known of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Its first offset.
    pub base_offset: i64,
    /// Its bytes.
    pub len_bytes: u64,
    /// The newest timestamp in it; -1 for none.
    pub max_timestamp_ms: i64,
}

/// What a topic keeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Age of the newest record, at most.
    pub retention_ms: Option<i64>,
    /// Bytes of the partition, at most, as far as whole segments allow.
    pub retention_bytes: Option<u64>,
    /// Offsets before this one are not wanted.
    pub start_offset: i64,
}

/// How many segments at the front go. `segments` are in order, the last one active.
#[must_use]
pub fn expired(segments: &[Segment], limits: &Limits, now_ms: i64) -> usize {
    let mut excess = limits.retention_bytes.map_or(0, |limit| {
        segments.iter().map(|segment| segment.len_bytes).sum::<u64>().saturating_sub(limit)
    });
    let mut goes = |segment: &Segment, next: &Segment| {
        let old = limits
            .retention_ms
            .is_some_and(|limit| now_ms.saturating_sub(segment.max_timestamp_ms) > limit)
            && segment.max_timestamp_ms >= 0;
        let spare = excess >= segment.len_bytes && excess > 0;
        let unwanted = next.base_offset <= limits.start_offset;
        if !(old || spare || unwanted) {
            return false;
        }
        excess = excess.saturating_sub(segment.len_bytes);
        true
    };
    segments
        .iter()
        .zip(segments.iter().skip(1))
        .take_while(|(segment, next)| goes(segment, next))
        .count()
}

/// The active segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Active {
    /// Its first offset.
    pub base_offset: i64,
    /// Its bytes.
    pub len_bytes: u64,
    /// The newest timestamp of its first batch; below 0 for none.
    pub first_timestamp_ms: i64,
    /// When its file was made, by the broker's clock.
    pub created_ms: i64,
    /// Entries of its offset index.
    pub offset_entries: usize,
    /// Entries of its time index.
    pub time_entries: usize,
}

/// A batch that is to be appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Incoming {
    /// Its bytes.
    pub len_bytes: u64,
    /// The offset that its last record will have.
    pub last_offset: i64,
    /// Its newest timestamp.
    pub max_timestamp_ms: i64,
}

/// How large a segment becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentLimits {
    /// Its bytes: `segment.bytes`.
    pub len_bytes: u64,
    /// The time from its first batch on: `segment.ms`, less its jitter.
    pub span_ms: i64,
    /// Bytes of each index: `segment.index.bytes`.
    pub index_bytes: usize,
}

/// Why the next segment begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Roll {
    /// The batch does not fit into the segment.
    Size,
    /// The batch is too much newer than the first one.
    Time,
    /// An index is full.
    Index,
    /// The batch's offsets do not fit an index.
    Offset,
}

/// Why a batch has to go into a new segment; `None` when it does not. An empty segment takes any.
///
/// The span is measured by the records' own timestamps where they have them, so that a log that is
/// copied has the segments that it had.
#[must_use]
pub fn roll(
    active: &Active,
    batch: &Incoming,
    limits: &SegmentLimits,
    now_ms: i64,
) -> Option<Roll> {
    if active.len_bytes == 0 {
        return None;
    }
    let span_ms = if active.first_timestamp_ms >= 0 {
        batch.max_timestamp_ms.saturating_sub(active.first_timestamp_ms)
    } else {
        now_ms.saturating_sub(active.created_ms)
    };
    let far = batch.last_offset.saturating_sub(active.base_offset);
    // The last entry of a time index is written when the segment ends.
    let indexed = active.offset_entries >= limits.index_bytes / offset_index::ENTRY_BYTES
        || active.time_entries + 1 >= limits.index_bytes / time_index::ENTRY_BYTES;
    if active.len_bytes.saturating_add(batch.len_bytes) > limits.len_bytes {
        Some(Roll::Size)
    } else if span_ms > limits.span_ms {
        Some(Roll::Time)
    } else if indexed {
        Some(Roll::Index)
    } else if far > i64::from(i32::MAX) {
        Some(Roll::Offset)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segments() -> Vec<Segment> {
        (0..5)
            .map(|n| Segment { base_offset: n * 10, len_bytes: 100, max_timestamp_ms: n * 1000 })
            .collect()
    }

    #[test]
    fn nothing_goes_without_a_limit_and_never_the_active_one() {
        assert_eq!(expired(&segments(), &Limits::default(), i64::MAX), 0);
        let all = Limits { retention_ms: Some(0), retention_bytes: Some(0), start_offset: 1000 };
        assert_eq!(expired(&segments(), &all, i64::MAX), 4);
        assert_eq!(expired(segments().get(..1).unwrap_or_default(), &all, i64::MAX), 0);
        assert_eq!(expired(&[], &all, i64::MAX), 0);
    }

    #[test]
    fn each_limit_takes_its_own() {
        let by_age = Limits { retention_ms: Some(1500), ..Limits::default() };
        assert_eq!(expired(&segments(), &by_age, 3000), 2);
        assert_eq!(expired(&segments(), &by_age, 2500), 1);
        // A segment goes only when the rest is still at the limit or above.
        for (limit, gone) in [(500, 0), (401, 0), (400, 1), (201, 2), (200, 3), (0, 4)] {
            let by_size = Limits { retention_bytes: Some(limit), ..Limits::default() };
            assert_eq!(expired(&segments(), &by_size, 0), gone, "{limit} bytes");
        }
        for (start, gone) in [(0, 0), (9, 0), (10, 1), (25, 2), (100, 4)] {
            let by_start = Limits { start_offset: start, ..Limits::default() };
            assert_eq!(expired(&segments(), &by_start, 0), gone, "from {start}");
        }
    }

    #[test]
    fn segments_without_a_timestamp_do_not_age() {
        let mut segments = segments();
        for segment in &mut segments {
            segment.max_timestamp_ms = -1;
        }
        let by_age = Limits { retention_ms: Some(1), ..Limits::default() };
        assert_eq!(expired(&segments, &by_age, i64::MAX), 0);
    }

    #[test]
    fn the_next_segment_begins_at_each_bound() {
        let active = Active {
            base_offset: 100,
            len_bytes: 500,
            first_timestamp_ms: 1000,
            created_ms: 50_000,
            offset_entries: 8,
            time_entries: 4,
        };
        let limits = SegmentLimits { len_bytes: 600, span_ms: 70, index_bytes: 79 };
        let batch = Incoming { len_bytes: 100, last_offset: 109, max_timestamp_ms: 1070 };
        let now_ms = 50_070;
        assert_eq!(roll(&active, &batch, &limits, i64::MAX), None);
        let timeless = Active { first_timestamp_ms: -1, ..active };
        let far = 100 + i64::from(i32::MAX);
        for (active, batch, at_ms, expected) in [
            (active, Incoming { len_bytes: 101, ..batch }, now_ms, Some(Roll::Size)),
            (active, Incoming { max_timestamp_ms: 1071, ..batch }, now_ms, Some(Roll::Time)),
            (active, Incoming { max_timestamp_ms: -1, ..batch }, now_ms, None),
            (timeless, batch, now_ms, None),
            (timeless, batch, now_ms + 1, Some(Roll::Time)),
            (Active { offset_entries: 9, ..active }, batch, now_ms, Some(Roll::Index)),
            (Active { time_entries: 5, ..active }, batch, now_ms, Some(Roll::Index)),
            (active, Incoming { last_offset: far, ..batch }, now_ms, None),
            (active, Incoming { last_offset: far + 1, ..batch }, now_ms, Some(Roll::Offset)),
            (
                Active { len_bytes: 0, ..active },
                Incoming { len_bytes: 601, ..batch },
                i64::MAX,
                None,
            ),
        ] {
            assert_eq!(roll(&active, &batch, &limits, at_ms), expected, "{active:?} {batch:?}");
        }
    }
}
