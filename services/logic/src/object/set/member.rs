//! A member of a large set: an integer in place, or one allocation.
//!
//! Next: `set.rs` keeps these in a table.

use super::super::{
    Hasher,
    packed::{Digits, Entry},
    table::Keyed,
};

/// The member; `Str` is never the canonical text of an integer.
pub(super) enum Member {
    Int(i64),
    Str(Box<[u8]>),
}

const _: () = assert!(size_of::<Member>() == 16);

impl Member {
    pub(super) fn new(entry: Entry<'_>) -> Self {
        match entry.normal() {
            Entry::Int(value) => Self::Int(value),
            Entry::Str(text) => Self::Str(text.into()),
        }
    }

    #[inline]
    pub(super) fn entry(&self) -> Entry<'_> {
        match self {
            Self::Int(value) => Entry::Int(*value),
            Self::Str(text) => Entry::Str(text),
        }
    }
}

impl Keyed for Member {
    #[inline]
    fn hash(&self, hasher: &Hasher) -> u64 {
        hasher.hash(self.entry().text(&mut Digits::new()))
    }

    #[inline]
    fn has_key(&self, key: &[u8]) -> bool {
        self.entry().is(key)
    }

    fn heap_bytes(&self) -> usize {
        match self {
            Self::Int(_) => 0,
            Self::Str(text) => text.len(),
        }
    }
}
