//! Which positions of a segment were checked.
//!
//! Each range begins and ends between two batches, and knows the offset that follows it, so that checking goes on there.
//! Invariants: in order, with something between them; at most [`RANGES_MAX`]: of more, the shortest is forgotten, and
//! checked anew when it is wanted. Next: `verify`.

/// Ranges of a segment that are told from each other: one for each place where consumers began to read.
pub(super) const RANGES_MAX: usize = 64;

/// A range that was checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Range {
    /// Position of its first byte.
    pub(super) from: u64,
    /// And of the first one after it.
    pub(super) to: u64,
    /// The first offset after it.
    pub(super) next: i64,
}

/// What was checked of a segment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ranges(Vec<Range>);

impl Ranges {
    /// Everything from a position on, also what is appended later.
    pub(super) fn from(position: u64) -> Self {
        Self(vec![Range { from: position, to: u64::MAX, next: i64::MAX }])
    }

    /// Everything.
    pub(super) fn all() -> Self {
        Self::from(0)
    }

    /// The range that a position is in.
    pub(super) fn containing(&self, position: u64) -> Option<Range> {
        self.before(position).filter(|range| position < range.to)
    }

    /// The last range that begins at or before a position.
    pub(super) fn before(&self, position: u64) -> Option<Range> {
        let after = self.0.partition_point(|range| range.from <= position);
        self.0.get(after.checked_sub(1)?).copied()
    }

    /// Where the next range behind a position begins.
    pub(super) fn begin_after(&self, position: u64) -> Option<u64> {
        let after = self.0.partition_point(|range| range.from <= position);
        self.0.get(after).map(|range| range.from)
    }

    /// Adds a range, which is kept.
    pub(super) fn add(&mut self, new: Range) {
        let first = self.0.partition_point(|range| range.to < new.from);
        let after = self.0.partition_point(|range| range.from <= new.to);
        let mut new = new;
        for old in self.0.drain(first..after) {
            new.from = new.from.min(old.from);
            if old.to > new.to {
                (new.to, new.next) = (old.to, old.next);
            }
        }
        self.0.insert(first, new);
        if self.0.len() > RANGES_MAX {
            let others = self.0.iter().enumerate().filter(|(at, _)| *at != first);
            if let Some((shortest, _)) = others.min_by_key(|(_, range)| range.to - range.from) {
                self.0.remove(shortest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(from: u64, to: u64) -> Range {
        Range { from, to, next: to as i64 / 10 }
    }

    #[test]
    fn ranges_that_touch_become_one() {
        let mut ranges = Ranges::default();
        for (from, to) in [(100, 200), (300, 400), (0, 50)] {
            ranges.add(range(from, to));
        }
        assert_eq!(ranges.0, [range(0, 50), range(100, 200), range(300, 400)]);
        assert_eq!(ranges.containing(199), Some(range(100, 200)));
        assert_eq!(ranges.containing(200), None);
        assert_eq!(ranges.before(250), Some(range(100, 200)));
        assert_eq!(ranges.begin_after(200), Some(300));
        assert_eq!(ranges.begin_after(300), None);
        ranges.add(range(200, 300));
        assert_eq!(ranges.0, [range(0, 50), range(100, 400)]);
        ranges.add(range(120, 130));
        ranges.add(range(40, 110));
        assert_eq!(ranges.0, [range(0, 400)]);
        ranges.add(range(0, u64::MAX));
        assert!(ranges.containing(1 << 40).is_some());
        assert!(Ranges::from(10).containing(9).is_none());
        assert!(Ranges::all().containing(0).is_some());
    }

    #[test]
    fn the_shortest_range_is_forgotten_beyond_the_bound_but_not_the_new_one() {
        let mut ranges = Ranges::default();
        for at in 0..RANGES_MAX as u64 {
            ranges.add(range(at * 1000, at * 1000 + 100 + at));
        }
        assert_eq!(ranges.0.len(), RANGES_MAX);
        assert!(ranges.containing(50).is_some());
        ranges.add(range(500_000, 500_001));
        assert_eq!(ranges.0.len(), RANGES_MAX);
        assert!(ranges.containing(500_000).is_some(), "the new one is kept");
        assert!(ranges.containing(50).is_none(), "the shortest of the others is not");
        assert!(ranges.containing(1050).is_some());
    }
}
