//! Which segments of a partition go, and when the next one begins.
//!
//! Rules are Kafka's: only whole segments from the front, never the active one; by the age of a segment's newest
//! record, by the size of the partition, and by the first offset that is still wanted.

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
}
