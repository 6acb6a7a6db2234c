//! The keys that come most often in a stream of samples, in fixed space: space saving (Metwally, Agrawal, El Abbadi:
//! "Efficient Computation of Frequent and Top-k Elements in Data Streams", ICDT 2005), with decay.
//!
//! Invariants: at most [`SLOTS`] keys of [`KEY_MAX_BYTES`]; a key's count is at most its error too high, and a key that came
//! more often than the smallest count is there. Next: `cache::hot` samples accesses into it.

/// Keys that are followed.
pub const SLOTS: usize = 64;
/// Of a longer key only the beginning is kept.
pub const KEY_MAX_BYTES: usize = 1024;
/// Counts are kept in parts of one, so that small ones decay too.
const UNIT: u64 = 256;
/// A decay takes this part of every count.
const DECAY: u64 = 8;

/// One key.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Slot {
    db: u16,
    hash: u64,
    count: u64,
    error: u64,
    key: Box<[u8]>,
}

/// A key and how often it came.
#[derive(Clone, Debug, PartialEq)]
pub struct Top {
    /// Its database.
    pub db: u16,
    /// Its name, or the beginning of a long one.
    pub key: Box<[u8]>,
    /// Samples, decayed; by at most `error` too many.
    pub count: f64,
    /// See `count`.
    pub error: f64,
}

/// The structure.
#[derive(Clone, Debug, Default)]
pub struct TopK {
    slots: Vec<Slot>,
}

impl TopK {
    /// Counts a key `weight` times.
    pub fn observe(&mut self, db: u16, hash: u64, key: &[u8], weight: u32) {
        let weight = u64::from(weight) * UNIT;
        let same = |slot: &&mut Slot| slot.hash == hash && slot.db == db;
        if let Some(slot) = self.slots.iter_mut().find(same) {
            slot.count = slot.count.saturating_add(weight);
            return;
        }
        let key = key.get(..KEY_MAX_BYTES).unwrap_or(key).into();
        if self.slots.len() < SLOTS {
            return self.slots.push(Slot { db, hash, count: weight, error: 0, key });
        }
        if let Some(least) = self.slots.iter_mut().min_by_key(|slot| slot.count) {
            let error = least.count;
            *least = Slot { db, hash, count: error.saturating_add(weight), error, key };
        }
    }

    /// Lets all counts sink by an eighth, and forgets keys of which less than one is left.
    pub fn decay(&mut self) {
        for slot in &mut self.slots {
            slot.count -= slot.count.div_ceil(DECAY);
            slot.error -= slot.error / DECAY;
            slot.error = slot.error.min(slot.count);
        }
        self.slots.retain(|slot| slot.count >= UNIT);
    }

    /// What [`decay`](Self::decay) leaves of a number.
    #[must_use]
    pub const fn decayed(number: u64) -> u64 {
        number - number.div_ceil(DECAY)
    }

    /// The `most` keys that surely came most often, and more than once, first the most frequent.
    #[must_use]
    pub fn top(&self, most: usize) -> Vec<Top> {
        let sure = |slot: &Slot| slot.count - slot.error;
        let mut slots: Vec<&Slot> =
            self.slots.iter().filter(|slot| sure(slot) >= 2 * UNIT).collect();
        slots.sort_by(|a, b| sure(b).cmp(&sure(a)).then_with(|| a.key.cmp(&b.key)));
        let part = |count: u64| count as f64 / UNIT as f64;
        let top = |slot: &&Slot| Top {
            db: slot.db,
            key: slot.key.clone(),
            count: part(slot.count),
            error: part(slot.error),
        };
        slots.iter().take(most).map(top).collect()
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.slots.clear();
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::indexing_slicing, reason = "a test fails by panicking")]

    use super::*;
    use crate::object::Rng;

    #[test]
    fn frequent_keys_are_found_among_many_others() {
        let mut rng = Rng::new(5);
        let mut top = TopK::default();
        let mut observe = |key: u32| {
            let name = format!("key:{key}");
            top.observe(0, u64::from(key) << 7, name.as_bytes(), 1);
        };
        for _ in 0..100_000 {
            // Ten keys of 2 % each, among a million.
            let other = rng.below(1_000_000);
            observe(if rng.below(5) == 0 { other % 10 } else { 10 + other });
        }
        let found = top.top(10);
        assert_eq!(found.len(), 10);
        for key in &found {
            let name = String::from_utf8_lossy(&key.key);
            let number: u32 = name[4..].parse().expect("a number");
            assert!(number < 10, "{name}");
            assert!(key.count >= 1_800.0 && key.count - key.error <= 2_200.0, "{key:?}");
        }
        assert!(top.slots.len() <= SLOTS);
    }

    #[test]
    fn what_is_no_longer_used_sinks_and_goes() {
        let mut top = TopK::default();
        (0..100).for_each(|_| top.observe(1, 1, b"old", 1));
        for _ in 0..60 {
            top.decay();
            (0..10).for_each(|_| top.observe(0, 2, b"new", 1));
        }
        let found = top.top(5);
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].db, &*found[0].key), (0, &b"new"[..]));
        // Ten each time, of which an eighth goes each time.
        assert!((75.0..=81.0).contains(&found[0].count), "{}", found[0].count);
        top.clear();
        assert!(top.top(5).is_empty());
    }

    #[test]
    fn long_keys_are_cut_and_databases_told_apart() {
        let mut top = TopK::default();
        let long = vec![b'x'; KEY_MAX_BYTES + 1];
        for db in [0, 1] {
            top.observe(db, 9, &long, 2);
        }
        let found = top.top(5);
        assert_eq!(found.len(), 2);
        assert!(found.iter().all(|key| key.key.len() == KEY_MAX_BYTES));
        assert_eq!(top.top(1).len(), 1);
    }
}
