//! What a block holds, so that one that is read can be told from any other: its number, how often it
//! was written, and a checksum over everything in it.
//!
//! Invariants: every byte of a block depends on the seed, the number and the version, or is part of
//! the checksum; a block that was changed, misplaced, or is older than it should be is found.

use std::fmt;

/// In front of the body: seed, number, version, checksum, length.
pub const HEADER_BYTES: usize = 32;
/// Where the checksum stands, which is not part of what it is over.
const SUM_AT: std::ops::Range<usize> = 20..24;

/// Makes and checks the blocks of one run.
#[derive(Clone, Copy, Debug)]
pub struct Pattern {
    seed: u64,
}

/// What is wrong with a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    /// The block that was asked for.
    pub number: u64,
    /// What was found.
    pub found: String,
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "block {}: {}", self.number, self.found)
    }
}

/// Spreads the bits of a number (the finish of SplitMix64).
const fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

fn sum(block: &[u8]) -> u32 {
    let mut sum = crc32fast::Hasher::new();
    sum.update(&block[..SUM_AT.start]);
    sum.update(&block[SUM_AT.end..]);
    sum.finalize()
}

impl Pattern {
    /// Blocks that depend on `seed`.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self { seed }
    }

    /// Writes version `version` of block `number`.
    ///
    /// # Panics
    /// When the block has no room for its header.
    pub fn fill(self, block: &mut [u8], number: u64, version: u32) {
        assert!(block.len() >= HEADER_BYTES, "a block of {} bytes", block.len());
        let len = block.len() as u64;
        block[..8].copy_from_slice(&self.seed.to_le_bytes());
        block[8..16].copy_from_slice(&number.to_le_bytes());
        block[16..20].copy_from_slice(&version.to_le_bytes());
        block[24..32].copy_from_slice(&len.to_le_bytes());
        let mut word = mix(self.seed ^ mix(number ^ u64::from(version) << 40));
        let (words, rest) = block[HEADER_BYTES..].as_chunks_mut::<8>();
        for bytes in words {
            *bytes = word.to_le_bytes();
            word = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
        }
        rest.fill(0);
        let sum = sum(block);
        block[SUM_AT].copy_from_slice(&sum.to_le_bytes());
    }

    /// Whether `block` is version `version` of block `number`.
    ///
    /// # Errors
    /// It is not; the text says what it is instead.
    pub fn check(self, block: &[u8], number: u64, version: u32) -> Result<(), Wrong> {
        let wrong = |found: String| Err(Wrong { number, found });
        let Some((header, _)) = block.split_first_chunk::<HEADER_BYTES>() else {
            return wrong(format!("only {} bytes", block.len()));
        };
        let word = |at: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&header[at..at + 8]);
            u64::from_le_bytes(bytes)
        };
        let half = |at: usize| {
            let mut bytes = [0; 4];
            bytes.copy_from_slice(&header[at..at + 4]);
            u32::from_le_bytes(bytes)
        };
        if half(SUM_AT.start) != sum(block) {
            return wrong("its bytes were changed: the checksum does not hold".to_owned());
        }
        if word(0) != self.seed || word(24) != block.len() as u64 {
            return wrong("a block of another run".to_owned());
        }
        if word(8) != number {
            return wrong(format!("block {} stands there", word(8)));
        }
        if half(16) != version {
            return wrong(format!("version {} instead of {version}", half(16)));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(number: u64, version: u32) -> Vec<u8> {
        let mut block = vec![0; 4096];
        Pattern::new(7).fill(&mut block, number, version);
        block
    }

    #[test]
    fn any_bit_that_flips_is_found() {
        let good = block(3, 1);
        assert_eq!(Pattern::new(7).check(&good, 3, 1), Ok(()));
        for at in [0, 9, 17, 21, 30, 32, 100, 4095] {
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            assert!(Pattern::new(7).check(&bad, 3, 1).is_err(), "byte {at}");
        }
    }

    #[test]
    fn a_block_in_the_wrong_place_or_time_is_named() {
        let pattern = Pattern::new(7);
        let found = |block: &[u8], number, version| {
            pattern.check(block, number, version).expect_err("wrong").to_string()
        };
        assert_eq!(found(&block(4, 1), 3, 1), "block 3: block 4 stands there");
        assert_eq!(found(&block(3, 1), 3, 2), "block 3: version 1 instead of 2");
        assert_eq!(found(&block(3, 1)[..10], 3, 1), "block 3: only 10 bytes");
        let mut other = vec![0; 4096];
        Pattern::new(8).fill(&mut other, 3, 1);
        assert_eq!(found(&other, 3, 1), "block 3: a block of another run");
        assert!(found(&vec![0; 4096], 3, 1).contains("checksum"));
    }
}
