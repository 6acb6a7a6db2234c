//! The seeded key hash and the store's seeded random choices.
//!
//! The hash's bits are shared out: the top ones name the segment, the lowest six the home bucket,
//! the eight above those the fingerprint.

use rapidhash::v3::{RapidSecrets, rapidhash_v3_micro_inline};

use super::{arena::Ref, record::Heap};

/// Hashes keys under a secret, so that colliding keys cannot be prepared.
pub struct Hasher {
    secrets: RapidSecrets,
    /// Tests cut the hash down to make keys collide.
    #[cfg(test)]
    pub(crate) mask: u64,
}

impl Hasher {
    /// One secret per seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            secrets: RapidSecrets::seed(seed),
            #[cfg(test)]
            mask: u64::MAX,
        }
    }

    /// The hash of a key.
    #[inline]
    #[must_use]
    pub fn hash(&self, key: &[u8]) -> u64 {
        let hash = rapidhash_v3_micro_inline::<true, false>(key, &self.secrets);
        #[cfg(test)]
        let hash = hash & self.mask;
        hash
    }
}

/// What the table needs to know about records when it moves their references.
#[derive(Clone, Copy)]
pub(super) struct Records<'a> {
    pub(super) heap: &'a Heap,
    pub(super) hasher: &'a Hasher,
    pub(super) now_ms: u64,
}

impl Records<'_> {
    /// Hash and expiry of a record.
    pub(super) fn facts(&self, at: Ref) -> (u64, u64) {
        let Some(head) = self.heap.head(at) else {
            return (0, 0);
        };
        let hash = match self.heap.kept_hash(at, &head) {
            Some(hash) => hash,
            None => self.hasher.hash(self.heap.key(at, &head)),
        };
        (hash, head.expire_ms)
    }
}

/// A seeded generator: SplitMix64 (Steele et al., OOPSLA 2014).
#[derive(Debug)]
pub struct Rng(u64);

impl Rng {
    /// Equal seeds give equal numbers.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Another generator, for use while the store that keeps this one is borrowed.
    #[must_use]
    pub fn fork(&mut self) -> Self {
        Self(self.next())
    }

    /// 64 random bits.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Below `bound` (0 for 0); the bias is below 2^-32 for the bounds used here.
    pub fn below(&mut self, bound: u32) -> u32 {
        ((u64::from(bound) * (self.next() >> 32)) >> 32) as u32
    }
}
