//! From an offset to a place near it in a segment: one entry for every few kilobytes.
//!
//! An entry says: the batch at this position begins with this offset, relative to the segment's first.
//! Invariants: offsets and positions grow strictly; a look-up is a binary search. The file's
//! format is Kafka's `.index`: offset and position, four bytes each, big-endian. Memory: 8 bytes for each
//! `interval_bytes` of the segment.

/// Bytes of an entry in a file.
pub const ENTRY_BYTES: usize = 8;

/// The entries of one segment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OffsetIndex {
    entries: Vec<Entry>,
    /// Bytes of the segment since the last entry.
    since: u32,
}

/// One entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// Offset of the batch less the segment's first offset.
    pub offset: u32,
    /// Where the batch begins in the segment.
    pub position: u32,
}

impl OffsetIndex {
    /// Notes that a batch of `len_bytes` was appended at `entry`; becomes an entry when more than
    /// `interval_bytes` came since the last. Whether it did.
    pub fn append(&mut self, entry: Entry, len_bytes: u32, interval_bytes: u32) -> bool {
        let due = self.since > interval_bytes && self.follows(entry);
        if due {
            self.entries.push(entry);
            self.since = 0;
        }
        self.since = self.since.saturating_add(len_bytes);
        due
    }

    fn follows(&self, entry: Entry) -> bool {
        let after = |last: &Entry| last.offset < entry.offset && last.position < entry.position;
        self.entries.last().is_none_or(after)
    }

    /// The last entry at or before an offset; the segment's start when there is none.
    #[must_use]
    pub fn find(&self, offset: u32) -> Entry {
        let after = self.entries.partition_point(|entry| entry.offset <= offset);
        self.before(after)
    }

    /// The last entry at or before a position.
    #[must_use]
    pub fn find_position(&self, position: u32) -> Entry {
        let after = self.entries.partition_point(|entry| entry.position <= position);
        self.before(after)
    }

    fn before(&self, at: usize) -> Entry {
        at.checked_sub(1).and_then(|at| self.entries.get(at)).copied().unwrap_or_default()
    }

    /// The last entry.
    #[must_use]
    pub fn last(&self) -> Option<Entry> {
        self.entries.last().copied()
    }

    /// Entries so far.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Drops entries at or after a position, as the segment was cut there.
    pub fn truncate(&mut self, position: u32) {
        let keep = self.entries.partition_point(|entry| entry.position < position);
        self.entries.truncate(keep);
        self.since = position.saturating_sub(self.last().unwrap_or_default().position);
    }

    /// The entries before a position, as a file.
    #[must_use]
    pub fn encode(&self, before_position: u32) -> Vec<u8> {
        let entries = self.entries.iter().filter(|entry| entry.position < before_position);
        entries
            .flat_map(|entry| [entry.offset.to_be_bytes(), entry.position.to_be_bytes()])
            .flatten()
            .collect()
    }

    /// Reads a file for a segment of `segment_bytes`; `None` when it cannot be this segment's.
    #[must_use]
    pub fn decode(bytes: &[u8], segment_bytes: u64) -> Option<Self> {
        let (chunks, rest) = bytes.as_chunks::<ENTRY_BYTES>();
        let mut index = Self::default();
        for chunk in chunks {
            let number = u64::from_be_bytes(*chunk);
            let offset = u32::try_from(number >> 32).ok()?;
            let position = u32::try_from(number & u64::from(u32::MAX)).ok()?;
            let entry = Entry { offset, position };
            if !index.follows(entry) || u64::from(position) >= segment_bytes {
                return None;
            }
            index.entries.push(entry);
        }
        rest.is_empty().then_some(index)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn filled(batches: &[(u32, u32)], interval: u32) -> (OffsetIndex, Vec<Entry>) {
        let mut index = OffsetIndex::default();
        let (mut at, mut all) = (Entry::default(), Vec::new());
        for &(records, len) in batches {
            index.append(at, len, interval);
            all.push(at);
            at = Entry { offset: at.offset + records, position: at.position + len };
        }
        (index, all)
    }

    proptest! {
        #[test]
        fn a_look_up_lands_on_a_batch_at_or_before(
            batches in prop::collection::vec((1_u32..50, 61_u32..9000), 1..200),
            interval in 0_u32..10_000,
            offset in 0_u32..10_000,
        ) {
            let (index, all) = filled(&batches, interval);
            let found = index.find(offset);
            prop_assert!(found.offset <= offset);
            prop_assert!(found == Entry::default() || all.contains(&found));
            // The way from there to the batch is short: the interval and one batch.
            let wanted = all.iter().rev().find(|entry| entry.offset <= offset).expect("the first");
            prop_assert!(wanted.position - found.position <= interval + 9000);
        }

        #[test]
        fn a_file_comes_back(batches in prop::collection::vec((1_u32..50, 61_u32..9000), 1..200)) {
            let (index, all) = filled(&batches, 4096);
            let bytes = index.encode(u32::MAX);
            let end = u64::from(all.last().expect("one").position) + 1;
            let read = OffsetIndex::decode(&bytes, end).expect("what was written");
            prop_assert_eq!(read.encode(u32::MAX), bytes);
        }
    }

    #[test]
    fn golden_bytes_are_those_of_kafka() {
        let mut index = OffsetIndex::default();
        index.append(Entry { offset: 0, position: 0 }, 5000, 4096);
        assert!(index.append(Entry { offset: 10, position: 5000 }, 100, 4096));
        assert_eq!(index.encode(u32::MAX), [0, 0, 0, 10, 0, 0, 0x13, 0x88]);
        assert_eq!(index.encode(5000), []);
    }

    #[test]
    fn files_that_do_not_fit_are_refused() {
        let entry =
            |offset: u32, position: u32| [offset.to_be_bytes(), position.to_be_bytes()].concat();
        assert!(OffsetIndex::decode(&entry(1, 100), 101).is_some());
        assert!(OffsetIndex::decode(&entry(1, 100), 100).is_none(), "past the segment's end");
        let cut = entry(1, 100).into_iter().take(7).collect::<Vec<_>>();
        assert!(OffsetIndex::decode(&cut, 1000).is_none(), "cut");
        let back = [entry(5, 100), entry(4, 200)].concat();
        assert!(OffsetIndex::decode(&back, 1000).is_none(), "offsets go back");
    }

    #[test]
    fn cutting_forgets_what_lies_behind() {
        let (mut index, _) = filled(&[(1, 5000); 10], 4096);
        index.truncate(20_000);
        assert_eq!(index.last(), Some(Entry { offset: 3, position: 15_000 }));
        assert!(index.append(Entry { offset: 4, position: 20_000 }, 10, 4096));
    }
}
