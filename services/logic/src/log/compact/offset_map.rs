//! Each key's last offset, in memory that is bounded whatever the keys are.
//!
//! A key is known by a hash of 16 bytes; two keys with the same one would be taken for one, and the earlier
//! record lost. The hash is two of 64 bits under different secrets drawn from the seed, and no cryptographic one:
//! for `n` keys that do not depend on the seed the probability of a collision is about `n² / 2^129`, 1.5e-21
//! for a thousand million keys, so the seed is to be random and stay here. Invariants: an entry is 24 bytes, and
//! they are allocated a page at a time as they are used, so that no call takes long; at most three quarters are
//! used, and then `put` refuses new keys. Both operations are O(1).

use rapidhash::v3::{RapidSecrets, rapidhash_v3_micro_inline};

/// Bytes of an entry.
pub const ENTRY_BYTES: usize = 24;

/// Entries allocated together: 48 KiB.
const PAGE_ENTRIES: usize = 2048;

/// The hash's halves, and the offset plus one; 0 for an entry that is free.
type Entry = [u64; 3];

/// Last offsets by key.
pub struct OffsetMap {
    /// None where all entries are free.
    pages: Vec<Option<Box<[Entry]>>>,
    entries: usize,
    len: usize,
    end_offset: i64,
    secrets: [RapidSecrets; 2],
}

impl OffsetMap {
    /// An empty map in `memory_bytes`, of which at least two entries are used.
    #[must_use]
    pub fn new(memory_bytes: usize, seed: u64) -> Self {
        let entries = (memory_bytes / ENTRY_BYTES).max(2);
        let pages = (0..entries.div_ceil(PAGE_ENTRIES)).map(|_| None).collect();
        let secrets = [seed, seed ^ 0x9E37_79B9_7F4A_7C15].map(RapidSecrets::seed);
        Self { pages, entries, len: 0, end_offset: 0, secrets }
    }

    /// Most keys.
    #[must_use]
    pub const fn capacity(&self) -> usize {
        self.entries - self.entries.div_ceil(4)
    }

    /// Keys in it.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Notes the offset, 0 or more, of a record with this key; later records come later. Whether there was
    /// room: if not, the first pass ends before the batch that the record is in; a map with less room
    /// than a batch has keys gets nowhere.
    pub fn put(&mut self, key: &[u8], offset: i64) -> bool {
        let (hash, at) = self.find(key);
        let full = self.len >= self.capacity();
        let Some(page) = self.pages.get_mut(at / PAGE_ENTRIES) else { return false };
        let page = page.get_or_insert_with(|| vec![[0; 3]; PAGE_ENTRIES].into_boxed_slice());
        let Some(entry) = page.get_mut(at % PAGE_ENTRIES) else { return false };
        let [.., noted] = entry;
        if *noted == 0 {
            if full {
                return false;
            }
            self.len += 1;
        }
        let [first, second] = hash;
        *entry = [first, second, offset.max(0).cast_unsigned() + 1];
        true
    }

    /// The last offset of a key.
    #[must_use]
    pub fn get(&self, key: &[u8]) -> Option<i64> {
        let (_, at) = self.find(key);
        let [.., noted] = self.entry(at);
        noted.checked_sub(1).map(u64::cast_signed)
    }

    /// Notes that all records before an offset were [put](Self::put).
    pub fn cover(&mut self, end_offset: i64) {
        self.end_offset = self.end_offset.max(end_offset);
    }

    /// Everything before this offset was put: where the round ends and the next one begins.
    #[must_use]
    pub const fn end_offset(&self) -> i64 {
        self.end_offset
    }

    fn entry(&self, at: usize) -> Entry {
        let page = self.pages.get(at / PAGE_ENTRIES).and_then(Option::as_ref);
        page.and_then(|page| page.get(at % PAGE_ENTRIES)).copied().unwrap_or_default()
    }

    /// A key's hash, and where its entry is or would be.
    fn find(&self, key: &[u8]) -> ([u64; 2], usize) {
        let hash = |secrets| rapidhash_v3_micro_inline::<true, true>(key, secrets);
        let [first, second] = &self.secrets;
        let (first, second) = (hash(first), hash(second));
        let scaled = (u128::from(first) * self.entries as u128) >> 64;
        let home = usize::try_from(scaled).unwrap_or(0);
        let mine = |at: &usize| {
            let [a, b, noted] = self.entry(*at);
            noted == 0 || (a == first && b == second)
        };
        // A quarter is free, so one is found.
        let at = (home..self.entries).find(mine).or_else(|| (0..home).find(mine)).unwrap_or(0);
        ([first, second], at)
    }
}

impl std::fmt::Debug for OffsetMap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OffsetMap")
            .field("len", &self.len)
            .field("capacity", &self.capacity())
            .field("end_offset", &self.end_offset)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use view::HashMap;

    use super::*;

    #[test]
    fn three_quarters_are_used_and_known_keys_still_change_then() {
        for (memory, capacity) in [(0, 1), (2 * 24, 1), (4 * 24, 3), (4 * 24 + 23, 3), (5 * 24, 3)]
        {
            let mut map = OffsetMap::new(memory, 1);
            assert_eq!(map.capacity(), capacity, "{memory}");
            for key in 0..capacity {
                assert!(map.put(&key.to_be_bytes(), 5));
            }
            assert!(!map.put(b"another", 6));
            assert_eq!(map.get(b"another"), None);
            assert!(map.put(&0_usize.to_be_bytes(), 7));
            assert_eq!(map.get(&0_usize.to_be_bytes()), Some(7));
            assert_eq!(map.len(), capacity);
        }
    }

    #[test]
    fn pages_are_allocated_as_they_are_used() {
        let mut map = OffsetMap::new(3 * PAGE_ENTRIES * ENTRY_BYTES, 9);
        let allocated = |map: &OffsetMap| map.pages.iter().flatten().count();
        assert_eq!((allocated(&map), map.get(b"none")), (0, None));
        assert!(map.put(b"one", 1));
        assert_eq!(allocated(&map), 1);
        let capacity = i64::try_from(map.capacity()).expect("small");
        for key in 1..capacity {
            assert!(map.put(&key.to_be_bytes(), key));
        }
        assert!(!map.put(b"another", 1), "full");
        assert_eq!(allocated(&map), 3);
        for key in 1..capacity {
            assert_eq!(map.get(&key.to_be_bytes()), Some(key));
        }
    }

    #[test]
    fn offsets_have_no_holes_at_the_ends() {
        let mut map = OffsetMap::new(1000, 1);
        for offset in [0, i64::MAX] {
            assert!(map.put(b"", offset));
            assert_eq!(map.get(b""), Some(offset));
        }
        assert_eq!(map.end_offset(), 0);
        map.cover(9);
        map.cover(3);
        assert_eq!(map.end_offset(), 9);
    }

    proptest! {
        #[test]
        fn agrees_with_a_map(
            puts in prop::collection::vec(prop::collection::vec(0_u8..3, 0..4), 0..120),
            entries in 2_usize..80,
            seed in any::<u64>(),
        ) {
            let (mut map, mut model) = (OffsetMap::new(entries * ENTRY_BYTES, seed), HashMap::default());
            for (offset, key) in puts.iter().enumerate() {
                let offset = i64::try_from(offset)?;
                let room = model.contains_key(key) || model.len() < map.capacity();
                prop_assert_eq!(map.put(key, offset), room);
                if room {
                    model.insert(key.clone(), offset);
                }
            }
            prop_assert_eq!(map.len(), model.len());
            for key in &puts {
                prop_assert_eq!(map.get(key), model.get(key).copied());
            }
        }
    }
}
