//! Keys that hold much: noted when a write leaves them so, looked at again when somebody asks.
//!
//! A string is noted when it is set, a collection when its size passes a power of two. Invariants: at most
//! [`NOTES`] keys, so that the largest are kept; a note says nothing by itself, since the key may have gone or
//! shrunk. Notes are not counted as memory of the store. Next: `large.rs`, where everything large lies.

use super::{KeyHash, Kind, Store, Value};

/// What counts as big, in bytes.
pub const BIG_MIN_BYTES: u64 = 64 << 10;
/// Keys noted.
const NOTES: usize = 64;
/// Longer keys are not noted.
const KEY_MAX_BYTES: usize = 4096;

/// A key that was big.
#[derive(Clone, Debug)]
struct Note {
    db: u16,
    hash: KeyHash,
    bytes: u64,
    key: Box<[u8]>,
}

/// A key that is big.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Big {
    /// Its database.
    pub db: u16,
    /// Its name.
    pub key: Box<[u8]>,
    /// What it holds.
    pub kind: Kind,
    /// Bytes it takes.
    pub bytes: u64,
    /// Bytes of a string, elements of a collection.
    pub len: u64,
}

/// The notes.
#[derive(Debug, Default)]
pub(super) struct BigKeys {
    notes: Vec<Note>,
}

impl Store {
    /// Notes a key that is about to hold, or holds, so many bytes.
    #[cold]
    pub(super) fn note_big(&mut self, db: u16, hash: KeyHash, key: &[u8], bytes: u64) {
        let notes = &mut self.big.notes;
        let same = |note: &&mut Note| note.hash == hash && note.db == db && *note.key == *key;
        if let Some(note) = notes.iter_mut().find(same) {
            note.bytes = bytes;
            return;
        }
        if key.len() > KEY_MAX_BYTES {
            return;
        }
        let note = Note { db, hash, bytes, key: key.into() };
        if notes.len() < NOTES {
            return notes.push(note);
        }
        if let Some(least) = notes.iter_mut().min_by_key(|note| note.bytes)
            && least.bytes < bytes
        {
            *least = note;
        }
    }

    /// How many keys are noted, and what the largest takes, as far as was seen.
    #[must_use]
    pub fn big_noted(&self) -> (u64, u64) {
        let notes = &self.big.notes;
        (notes.len() as u64, notes.iter().map(|note| note.bytes).max().unwrap_or(0))
    }

    /// Forgets notes of keys that are no longer big, and says which are, first the largest. About
    /// as much work as 64 look-ups.
    pub fn big_keys(&mut self, now_ms: u64) -> Vec<Big> {
        let notes = std::mem::take(&mut self.big.notes);
        let mut found: Vec<(Big, KeyHash)> = notes
            .into_iter()
            .filter_map(|note| {
                Some((self.look_at(note.db, note.hash, &note.key, now_ms)?, note.hash))
            })
            .collect();
        found.sort_by(|(a, _), (b, _)| b.bytes.cmp(&a.bytes).then_with(|| a.key.cmp(&b.key)));
        let note = |(big, hash): &(Big, KeyHash)| Note {
            db: big.db,
            hash: *hash,
            bytes: big.bytes,
            key: big.key.clone(),
        };
        self.big.notes = found.iter().map(note).collect();
        found.into_iter().map(|(big, _)| big).collect()
    }

    /// The key, if it is big.
    fn look_at(&mut self, db: u16, hash: KeyHash, key: &[u8], now_ms: u64) -> Option<Big> {
        let bytes = self.memory_usage(db, hash, key, now_ms)?;
        if bytes < BIG_MIN_BYTES {
            return None;
        }
        let value = self.view(db, hash, key, now_ms)?.value;
        let len = match value {
            Value::Object(object) => object.len(),
            value => value.len(),
        };
        Some(Big { db, key: key.into(), kind: value.kind(), bytes, len: len as u64 })
    }
}
