//! One cache line of the table: twelve fingerprints, twelve record references, and a word that
//! holds the earliest expiry among them and how many of the bucket's keys had to go elsewhere.
//!
//! Invariants: fingerprint 0 marks a free place. The expiry is never later than the earliest in
//! the bucket (it may be earlier: removals do not update it). While the overflow count is 0 no key
//! whose home this is lives outside, so a miss ends here; at 255 it sticks.
//! Next: `segment.rs` groups 64 of them.

use super::{arena::Ref, due::Due};

/// Places per bucket.
pub(super) const PLACES: usize = 12;

const LOW: u64 = 0x0101_0101_0101_0101;
const LOW7: u64 = 0x7F7F_7F7F_7F7F_7F7F;
const STUCK: u32 = 0xFF;

/// The bucket.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Bucket {
    low: [u8; 8],
    high: [u8; 4],
    /// Due time in the upper 24 bits, overflow count in the lower 8.
    word: u32,
    refs: [Ref; PLACES],
}

const _: () = assert!(size_of::<Bucket>() == 64);

/// Some places of a bucket: place `n` below 8 is bit `8n`, place `8 + n` is bit `8n + 1`. One word
/// for both parts, since a branch on which part holds the place is one the processor cannot guess.
#[derive(Clone, Copy)]
pub(super) struct Places(u64);

impl Places {
    const ALL: u64 = LOW | (LOW << 1 & 0xFFFF_FFFF);
}

impl Iterator for Places {
    type Item = usize;

    #[inline]
    fn next(&mut self) -> Option<usize> {
        if self.0 == 0 {
            return None;
        }
        let bit = self.0.trailing_zeros();
        self.0 &= self.0 - 1;
        Some((bit / 8 + 8 * (bit & 1)) as usize)
    }
}

impl Bucket {
    pub(super) const EMPTY: Self = Self { low: [0; 8], high: [0; 4], word: 0, refs: [0; PLACES] };

    /// Places whose fingerprint is exactly `print`.
    #[inline]
    pub(super) fn matches(&self, print: u8) -> Places {
        let pattern = LOW * u64::from(print);
        let low = u64::from_le_bytes(self.low) ^ pattern;
        let high = u64::from(u32::from_le_bytes(self.high)) ^ (pattern & 0xFFFF_FFFF);
        Places((zero_bytes(low) >> 7) | (zero_bytes(high) & 0xFFFF_FFFF) >> 6)
    }

    /// The taken places.
    #[inline]
    pub(super) fn taken(&self) -> Places {
        Places(!self.matches(0).0 & Places::ALL)
    }

    #[inline]
    pub(super) fn free_place(&self) -> Option<usize> {
        self.matches(0).next()
    }

    /// What place `place` refers to; meaningful for taken ones only.
    #[inline]
    pub(super) fn at(&self, place: usize) -> Ref {
        self.refs.get(place).copied().unwrap_or(0)
    }

    /// The references in it.
    pub(super) fn refs(&self) -> impl Iterator<Item = Ref> + '_ {
        self.taken().map(|place| self.at(place))
    }

    #[inline]
    pub(super) fn put(&mut self, place: usize, print: u8, to: Ref) {
        match self.low.get_mut(place) {
            Some(slot) => *slot = print,
            None => {
                if let Some(slot) = self.high.get_mut(place - 8) {
                    *slot = print;
                }
            }
        }
        self.set_ref(place, to);
    }

    #[inline]
    pub(super) fn set_ref(&mut self, place: usize, to: Ref) {
        if let Some(slot) = self.refs.get_mut(place) {
            *slot = to;
        }
    }

    /// First line of what a batch loads ahead.
    #[inline]
    pub(super) fn word(&self) -> u32 {
        self.word
    }

    #[inline]
    pub(super) fn overflow(&self) -> u32 {
        self.word & STUCK
    }

    pub(super) fn add_overflow(&mut self) {
        if self.overflow() != STUCK {
            self.word += 1;
        }
    }

    pub(super) fn sub_overflow(&mut self) {
        if self.overflow() != STUCK && self.overflow() != 0 {
            self.word -= 1;
        }
    }

    #[inline]
    pub(super) fn due(&self) -> Due {
        Due::from_bits(self.word >> 8)
    }

    #[inline]
    pub(super) fn set_due(&mut self, due: Due) {
        self.word = (self.word & STUCK) | (due.bits() << 8);
    }
}

/// 0x80 in each byte that is zero, exactly.
#[inline]
const fn zero_bytes(x: u64) -> u64 {
    !(((x & LOW7) + LOW7) | x | LOW7)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_found_exactly() {
        let mut bucket = Bucket::EMPTY;
        assert_eq!(bucket.matches(0).count(), PLACES);
        for place in 0..PLACES {
            assert!(bucket.matches(0).any(|free| free == place));
            let print = if place % 3 == 0 { 1 } else { 0x81 };
            bucket.put(place, print, u32::try_from(place).expect("small") + 100);
        }
        assert_eq!(bucket.free_place(), None);
        let mut ones: Vec<_> = bucket.matches(1).collect();
        ones.sort_unstable();
        assert_eq!(ones, [0, 3, 6, 9]);
        assert_eq!(bucket.matches(0x81).count(), 8);
        assert_eq!(bucket.matches(0x80).count() + bucket.matches(2).count(), 0);
        bucket.put(5, 0, 0);
        assert_eq!(bucket.taken().count(), PLACES - 1);
        assert_eq!(bucket.free_place(), Some(5));
        assert_eq!(bucket.refs().next(), Some(100));
    }

    #[test]
    fn the_word_keeps_both_parts() {
        let mut bucket = Bucket::EMPTY;
        bucket.set_due(Due::at(1_000_000, 0));
        for _ in 0..300 {
            bucket.add_overflow();
        }
        assert_eq!(bucket.overflow(), 255);
        bucket.sub_overflow();
        assert_eq!(bucket.overflow(), 255, "a saturated count sticks");
        assert_eq!(bucket.due(), Due::at(1_000_000, 0));
        bucket.set_due(Due::NONE);
        assert_eq!(bucket.overflow(), 255);
        assert!(bucket.due().is_none());
    }
}
