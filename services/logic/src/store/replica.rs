//! Keys that are due on a replica.
//!
//! There it is the master that says when a key is gone. Until it has, its commands find the key, and readers do not:
//! a replica that removed keys by its own clock would, for one, make a counter anew that the master still counts on.
//! Items of memcached's protocol have no master; they go as ever.
//! Invariant: no key is twice in a table: what is hidden is removed before a key of that name is added.
//! Next: `lookup.rs` for where keys are met, `expiry.rs` for the pass over those that nobody asks for.

use super::{KeyHash, Store, lookup::Found};

/// What becomes of keys that are due.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DueKeys {
    /// They are removed when they are met, and by the pass.
    #[default]
    Removed,
    /// They stay and are not found.
    Hidden,
    /// They stay and are found.
    Shown,
}

impl Store {
    /// What becomes of keys that are due, from now on.
    pub const fn set_due_keys(&mut self, due_keys: DueKeys) {
        self.due_keys = due_keys;
    }

    /// What becomes of keys that are due.
    #[must_use]
    pub const fn due_keys(&self) -> DueKeys {
        self.due_keys
    }

    /// A key that is due was met: whether it is found all the same.
    #[cold]
    pub(super) fn is_due_shown(&mut self, db: u16, hash: u64, found: &Found, now_ms: u64) -> bool {
        match self.due_keys {
            DueKeys::Hidden if db < self.items_db() => false,
            DueKeys::Shown if db < self.items_db() => true,
            _ => {
                let Found { place, at, head } = found;
                self.expire_found(db, hash, *place, *at, head, now_ms);
                false
            }
        }
    }

    /// A key is about to be added: none of that name may be hidden.
    #[cold]
    pub(super) fn remove_hidden(&mut self, db: u16, hash: KeyHash, key: &[u8], now_ms: u64) {
        self.due_keys = DueKeys::Shown;
        self.remove(db, hash, key, now_ms);
        self.due_keys = DueKeys::Hidden;
    }
}
