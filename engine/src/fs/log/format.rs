//! What a log looks like on disk. Pure: bytes in, bytes out.
//!
//! A segment file starts with one block that holds its header; records follow, each of
//! `checksum, length, batch, sequence` (four little-endian u32) and its data, padded to eight bytes.
//! `batch` is the offset at which the write that carried the record began to add new records. A
//! record's checksum covers the segment's salt, the record's own offset and everything but the
//! checksum.
//!
//! Invariants: a segment file is used again without being cleared, so a record of an earlier use
//! must never pass: every use has a new salt and (but for one that held nothing) a new sequence
//! number. A batch is written only after the one before is durable; therefore a record whose
//! `batch` lies after a bad spot proves that the spot was durable once, and is damage, while a bad
//! spot that nothing of a later batch follows is the torn end of a write nobody was told about.

use crc32fast::Hasher;

/// Unit of writing: what O_DIRECT asks for on every disk in use.
pub(super) const BLOCK_BYTES: usize = 4096;
/// Offset of the first record.
pub(super) const RECORDS_START: u32 = 4096;
/// In front of each record's data.
pub(super) const RECORD_HEADER_BYTES: usize = 16;
/// Records start at multiples of this.
pub(super) const RECORD_ALIGN_BYTES: usize = 8;

const MAGIC: [u8; 8] = *b"shardlog";
const VERSION: u32 = 1;
/// Bytes of the header in use; below one sector, so that it changes as a whole.
const HEADER_BYTES: usize = 64;

/// First block of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    /// One more than that of the segment before.
    pub(super) sequence: u64,
    /// The first segment that was still needed when this one was begun.
    pub(super) oldest: u64,
    /// Position of the first record: where the segment before ends.
    pub(super) base: u64,
    /// Goes into every checksum.
    pub(super) salt: u64,
    /// Length of the file.
    pub(super) segment_bytes: u64,
    /// Longest data of a record.
    pub(super) record_max_bytes: u32,
}

impl SegmentHeader {
    /// Fills the block.
    pub(super) fn encode(&self, block: &mut [u8]) {
        let block = &mut block[..BLOCK_BYTES];
        block.fill(0);
        block[..8].copy_from_slice(&MAGIC);
        block[8..12].copy_from_slice(&VERSION.to_le_bytes());
        block[12..16].copy_from_slice(&self.record_max_bytes.to_le_bytes());
        let words = [self.sequence, self.oldest, self.base, self.salt, self.segment_bytes];
        for (at, word) in words.into_iter().enumerate() {
            block[16 + at * 8..24 + at * 8].copy_from_slice(&word.to_le_bytes());
        }
        let sum = crc32fast::hash(&block[..HEADER_BYTES - 8]);
        block[HEADER_BYTES - 8..HEADER_BYTES - 4].copy_from_slice(&sum.to_le_bytes());
    }

    /// The header in `block`, if it holds one.
    pub(super) fn decode(block: &[u8]) -> Option<Self> {
        let block = block.get(..HEADER_BYTES)?;
        let sum = word32(block, HEADER_BYTES - 8)?;
        let whole = block.starts_with(&MAGIC)
            && word32(block, 8)? == VERSION
            && crc32fast::hash(&block[..HEADER_BYTES - 8]) == sum;
        whole.then_some(())?;
        Some(Self {
            record_max_bytes: word32(block, 12)?,
            sequence: word64(block, 16)?,
            oldest: word64(block, 24)?,
            base: word64(block, 32)?,
            salt: word64(block, 40)?,
            segment_bytes: word64(block, 48)?,
        })
    }

    /// What this segment's records are checked with.
    pub(super) fn key(&self) -> Key {
        let mut seed = Hasher::new();
        seed.update(&self.salt.to_le_bytes());
        seed.update(&self.sequence.to_le_bytes());
        // Only the low half is in a record: the checksum covers it all.
        Key { seed, sequence: self.sequence as u32, record_max_bytes: self.record_max_bytes }
    }

    /// Position of what lies at `offset` in the file.
    pub(super) const fn position(&self, offset: u32) -> u64 {
        self.base + (offset - RECORDS_START) as u64
    }
}

fn word32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn word64(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

/// Room a record with `len` bytes of data takes.
pub(super) const fn record_bytes(len: usize) -> usize {
    (RECORD_HEADER_BYTES + len).next_multiple_of(RECORD_ALIGN_BYTES)
}

/// Makes and checks the records of one use of a segment.
#[derive(Clone, Debug)]
pub(super) struct Key {
    seed: Hasher,
    sequence: u32,
    record_max_bytes: u32,
}

/// A record's header that may be one of this segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RecordHeader {
    sum: u32,
    /// Length of the data.
    pub(super) len: u32,
    /// Where the write that carried it began.
    pub(super) batch: u32,
}

impl Key {
    fn sum<'a>(
        &self,
        offset: u32,
        len: u32,
        batch: u32,
        parts: impl Iterator<Item = &'a [u8]>,
    ) -> u32 {
        let mut words = [0; 12];
        words[..4].copy_from_slice(&offset.to_le_bytes());
        words[4..8].copy_from_slice(&len.to_le_bytes());
        words[8..].copy_from_slice(&batch.to_le_bytes());
        let mut hasher = self.seed.clone();
        hasher.update(&words);
        parts.for_each(|part| hasher.update(part));
        hasher.finalize()
    }

    /// Writes the record at `offset` of the file to the start of `out`, which has room for
    /// [`record_bytes`]; how many bytes that took.
    pub(super) fn put(&self, out: &mut [u8], offset: u32, batch: u32, parts: &[&[u8]]) -> usize {
        let len: usize = parts.iter().map(|part| part.len()).sum();
        let size = record_bytes(len);
        let out = &mut out[..size];
        let len = u32::try_from(len).expect("bounded by the batch size");
        let sum = self.sum(offset, len, batch, parts.iter().copied());
        for (at, word) in [sum, len, batch, self.sequence].into_iter().enumerate() {
            out[at * 4..at * 4 + 4].copy_from_slice(&word.to_le_bytes());
        }
        let mut at = RECORD_HEADER_BYTES;
        for part in parts {
            out[at..at + part.len()].copy_from_slice(part);
            at += part.len();
        }
        out[at..].fill(0);
        size
    }

    /// The header at `offset`, if it can be one whose record ends at or before `limit`.
    #[inline]
    pub(super) fn header(&self, bytes: &[u8], offset: u32, limit: u32) -> Option<RecordHeader> {
        let sequence = word32(bytes, 12)?;
        if sequence != self.sequence {
            return None;
        }
        let header = RecordHeader {
            sum: word32(bytes, 0)?,
            len: word32(bytes, 4)?,
            batch: word32(bytes, 8)?,
        };
        let end = u64::from(offset) + record_bytes(header.len as usize) as u64;
        let fits = header.len <= self.record_max_bytes && end <= u64::from(limit);
        let begun = RECORDS_START <= header.batch && header.batch <= offset;
        (fits && begun).then_some(header)
    }

    /// Whether `data` is what the header was made for.
    pub(super) fn check(&self, header: RecordHeader, offset: u32, data: &[u8]) -> bool {
        self.sum(offset, header.len, header.batch, std::iter::once(data)) == header.sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: SegmentHeader = SegmentHeader {
        sequence: 7,
        oldest: 3,
        base: 1 << 40,
        salt: 0x1234_5678_9abc_def0,
        segment_bytes: 1 << 20,
        record_max_bytes: 1000,
    };

    #[test]
    fn a_header_survives_and_every_flipped_bit_of_it_is_seen() {
        let mut block = [0xaa; BLOCK_BYTES];
        HEADER.encode(&mut block);
        assert_eq!(SegmentHeader::decode(&block), Some(HEADER));
        for bit in 0..(HEADER_BYTES - 4) * 8 {
            let mut bad = block;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(SegmentHeader::decode(&bad), None, "bit {bit}");
        }
        assert_eq!(SegmentHeader::decode(&[]), None);
        assert_eq!(SegmentHeader::decode(&[0; BLOCK_BYTES]), None);
    }

    #[test]
    fn a_record_passes_only_as_it_was_and_where_it_was() {
        let key = HEADER.key();
        let mut bytes = [0; 64];
        let size = key.put(&mut bytes, 4096, 4096, &[b"ab", b"", b"cde"]);
        assert_eq!(size, 24);
        let valid = |key: &Key, bytes: &[u8], offset| {
            key.header(bytes, offset, 1 << 20).is_some_and(|header| {
                let data = &bytes[RECORD_HEADER_BYTES..];
                data.len() >= header.len as usize
                    && key.check(header, offset, &data[..header.len as usize])
            })
        };
        assert!(valid(&key, &bytes, 4096));
        assert!(!valid(&key, &bytes, 4104), "it was moved");
        for other in [
            SegmentHeader { salt: 1, ..HEADER }.key(),
            SegmentHeader { sequence: 8, ..HEADER }.key(),
            SegmentHeader { sequence: 7 + (1 << 32), ..HEADER }.key(),
        ] {
            assert!(!valid(&other, &bytes, 4096), "it belongs to another use of the file");
        }
        for bit in 0..(RECORD_HEADER_BYTES + 5) * 8 {
            let mut bad = bytes;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(!valid(&key, &bad, 4096), "bit {bit}");
        }
        assert!(!valid(&key, &[0; 64], 4096), "zeros are no record");
    }
}
