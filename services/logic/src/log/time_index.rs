//! From a time to an offset near it in a segment.
//!
//! An entry says: up to this offset, relative to the segment's first, no timestamp is larger than this one.
//! Invariants: timestamps and offsets grow strictly. The file's format is Kafka's `.timeindex`: timestamp in
//! eight bytes, offset in four, big-endian.

/// Bytes of an entry in a file.
pub const ENTRY_BYTES: usize = 12;

/// The entries of one segment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TimeIndex {
    entries: Vec<Entry>,
}

/// One entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The largest timestamp so far, in milliseconds since the Unix epoch.
    pub timestamp_ms: i64,
    /// Offset of the batch that has it, less the segment's first offset.
    pub offset: u32,
}

impl TimeIndex {
    /// Adds an entry if it says something new.
    pub fn append(&mut self, entry: Entry) {
        if self.follows(entry) {
            self.entries.push(entry);
        }
    }

    fn follows(&self, entry: Entry) -> bool {
        let after =
            |last: &Entry| last.timestamp_ms < entry.timestamp_ms && last.offset < entry.offset;
        self.entries.last().is_none_or(after)
    }

    /// Where to start looking for the first record that is not older than `timestamp_ms`: everything
    /// before is older.
    #[must_use]
    pub fn find(&self, timestamp_ms: i64) -> u32 {
        let at = self.entries.partition_point(|entry| entry.timestamp_ms < timestamp_ms);
        let last = at.checked_sub(1).and_then(|at| self.entries.get(at));
        last.map_or(0, |entry| entry.offset)
    }

    /// The largest timestamp of an entry.
    #[must_use]
    pub fn last_timestamp(&self) -> Option<i64> {
        self.entries.last().map(|entry| entry.timestamp_ms)
    }

    /// The offset of the last entry.
    #[must_use]
    pub fn last_offset(&self) -> Option<u32> {
        self.entries.last().map(|entry| entry.offset)
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

    /// Drops entries at or after an offset.
    pub fn truncate(&mut self, offset: u32) {
        let keep = self.entries.partition_point(|entry| entry.offset < offset);
        self.entries.truncate(keep);
    }

    /// The entries before an offset, as a file.
    #[must_use]
    pub fn encode(&self, before_offset: u32) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.entries.len() * ENTRY_BYTES);
        for entry in self.entries.iter().filter(|entry| entry.offset < before_offset) {
            bytes.extend_from_slice(&entry.timestamp_ms.to_be_bytes());
            bytes.extend_from_slice(&entry.offset.to_be_bytes());
        }
        bytes
    }

    /// Reads a file; `None` when it cannot be one.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (chunks, rest) = bytes.as_chunks::<ENTRY_BYTES>();
        let mut index = Self::default();
        for chunk in chunks {
            let (timestamp, offset) = chunk.split_first_chunk::<8>()?;
            let entry = Entry {
                timestamp_ms: i64::from_be_bytes(*timestamp),
                offset: u32::from_be_bytes(*offset.first_chunk()?),
            };
            if !index.follows(entry) {
                return None;
            }
            index.entries.push(entry);
        }
        rest.is_empty().then_some(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(entries: &[(i64, u32)]) -> TimeIndex {
        let mut index = TimeIndex::default();
        for &(timestamp_ms, offset) in entries {
            index.append(Entry { timestamp_ms, offset });
        }
        index
    }

    #[test]
    fn what_lies_before_the_place_found_is_older() {
        let index = index(&[(100, 5), (200, 9), (150, 12), (300, 20)]);
        for (timestamp, offset) in
            [(0, 0), (100, 0), (101, 5), (200, 5), (201, 9), (300, 9), (999, 20)]
        {
            assert_eq!(index.find(timestamp), offset, "{timestamp}");
        }
    }

    #[test]
    fn golden_bytes_are_those_of_kafka() {
        let index = index(&[(0x0102, 7)]);
        let bytes = [0, 0, 0, 0, 0, 0, 1, 2, 0, 0, 0, 7];
        assert_eq!(index.encode(u32::MAX), bytes);
        assert_eq!(TimeIndex::decode(&bytes), Some(index));
        assert_eq!(TimeIndex::decode(&bytes[..11]), None);
        assert_eq!(TimeIndex::decode(&[bytes, bytes].concat()), None, "it does not grow");
    }

    #[test]
    fn cutting_forgets_what_lies_behind() {
        let mut index = index(&[(100, 5), (200, 9)]);
        index.truncate(9);
        assert_eq!(index.find(999), 5);
    }
}
