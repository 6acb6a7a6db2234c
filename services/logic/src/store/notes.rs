//! What happens to keys in passing, noted for a server that tells its clients: keys that were due when they were met,
//! and reads that found nothing.
//!
//! Nothing is noted unless it was asked for. Invariant: notes are in the order in which things happened. The caller
//! takes them often: nothing else bounds them but what a turn can do.
//! Next: `lookup.rs`, which meets keys.

use super::Store;

/// Something that happened to a key of a database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// It was due and is gone.
    Expired(u16, Box<[u8]>),
    /// A read did not find it.
    Missed(u16, Box<[u8]>),
}

/// What is to be noted, and what was.
#[derive(Debug, Default)]
pub(super) struct Notes {
    pub(super) expired: bool,
    pub(super) missed: bool,
    pub(super) list: Vec<Note>,
}

impl Store {
    /// Chooses what is noted from now on.
    pub fn set_noting(&mut self, expired: bool, missed: bool) {
        self.notes.expired = expired;
        self.notes.missed = missed;
        if !expired && !missed {
            self.notes.list = Vec::new();
        }
    }

    /// Whether anything was noted since the last [`take_notes`](Self::take_notes).
    #[must_use]
    pub fn has_notes(&self) -> bool {
        !self.notes.list.is_empty()
    }

    /// What was noted.
    pub fn take_notes(&mut self) -> Vec<Note> {
        std::mem::take(&mut self.notes.list)
    }

    /// Counts a miss.
    #[inline]
    pub(super) fn missed(&mut self, db: u16, key: &[u8]) {
        self.stats.misses += 1;
        if self.notes.missed {
            self.notes.list.push(Note::Missed(db, key.into()));
        }
    }
}
