//! Ranges of indexes as Redis' commands give them: both bounds inside, negative ones from the end.

use std::ops::Range;

/// The part of `0..len` that is meant; empty when the bounds are in the wrong order.
pub(super) fn clip(start: i64, stop: i64, len: usize) -> Range<usize> {
    let from_end = |at: i64| {
        let distance = usize::try_from(at.unsigned_abs()).unwrap_or(usize::MAX);
        if at < 0 { len.checked_sub(distance) } else { Some(distance) }
    };
    let start = from_end(start).unwrap_or(0);
    let end = from_end(stop).map_or(0, |stop| stop.saturating_add(1).min(len));
    if start < end { start..end } else { 0..0 }
}

/// The one index that is meant.
pub(super) fn index(at: i64, len: usize) -> Option<usize> {
    let distance = usize::try_from(at.unsigned_abs()).ok()?;
    let index = if at < 0 { len.checked_sub(distance)? } else { distance };
    (index < len).then_some(index)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_clipped_as_in_redis() {
        for (start, stop, expected) in [
            (0, -1, 0..5),
            (0, 0, 0..1),
            (-1, -1, 4..5),
            (-3, 3, 2..4),
            (-100, 100, 0..5),
            (3, 2, 0..0),
            (5, 9, 0..0),
            (-2, -4, 0..0),
            (0, -6, 0..0),
            (0, -5, 0..1),
            (i64::MIN, i64::MAX, 0..5),
            (i64::MAX, i64::MIN, 0..0),
        ] {
            assert_eq!(clip(start, stop, 5), expected, "{start} {stop}");
        }
        assert_eq!(clip(0, -1, 0), 0..0);
        let all = [-6, -5, -1, 0, 4, 5, i64::MIN, i64::MAX].map(|at| index(at, 5));
        assert_eq!(all, [None, Some(0), Some(4), Some(0), Some(4), None, None, None]);
    }
}
