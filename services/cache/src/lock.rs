//! Key locks of multi-key commands that span shards, on one shard.
//!
//! A coordinator locks its keys shard by shard in ascending order, each shard all at once, so
//! waiting forms no circle. Requests are granted first come, first served: one that conflicts with
//! an earlier waiter waits behind it. Single-shard commands hold nothing; they only wait for locks
//! that are held.

use view::HashMap;

/// A lock request: all keys, or these (database, key hash).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Wanted {
    All,
    Keys(Vec<(u16, u64)>),
}

impl Wanted {
    fn conflicts(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Keys(mine), Self::Keys(theirs)) => mine.iter().any(|key| theirs.contains(key)),
            _ => true,
        }
    }
}

/// Holds no key: whoever looks at locks finds that some are held, and asks [`Locks::holds_back`].
pub(crate) const HELD_BACK: u64 = u64::MAX;

/// The locks of one shard.
#[derive(Debug, Default)]
pub(crate) struct Locks {
    keys: HashMap<(u16, u64), u64>,
    /// Tickets that hold everything; at most one, since it excludes all others.
    all: Option<u64>,
    held: HashMap<u64, Wanted>,
    waiting: Vec<(u64, Wanted)>,
    generation: u64,
}

impl Locks {
    /// Whether anything is held: otherwise no command needs to look.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Changes whenever a lock is released.
    pub(crate) const fn generation(&self) -> u64 {
        self.generation
    }

    /// From now on, and until [`HELD_BACK`] is released, writes that a snapshot would grow by wait.
    pub(crate) fn hold_back(&mut self) {
        self.held.insert(HELD_BACK, Wanted::Keys(Vec::new()));
    }

    /// Whether they wait.
    pub(crate) fn holds_back(&self) -> bool {
        self.held.contains_key(&HELD_BACK)
    }

    /// Whether a command running under `ticket` (0: none) must wait for this key.
    pub(crate) fn blocks(&self, ticket: u64, db: u16, hash: u64) -> bool {
        self.all.is_some_and(|holder| holder != ticket)
            || self.keys.get(&(db, hash)).is_some_and(|&holder| holder != ticket)
    }

    /// Whether this ticket has locked everything.
    pub(crate) fn holds_all(&self, ticket: u64) -> bool {
        self.all == Some(ticket)
    }

    /// Takes the locks now, or queues the request; whether they are held.
    pub(crate) fn request(&mut self, ticket: u64, wanted: Wanted) -> bool {
        let free = self.is_free(&wanted)
            && self.waiting.iter().all(|(_, earlier)| !earlier.conflicts(&wanted));
        if free {
            self.take(ticket, wanted);
        } else {
            self.waiting.push((ticket, wanted));
        }
        free
    }

    /// Releases a ticket's locks, or withdraws its request; returns the tickets granted thereby.
    pub(crate) fn release(&mut self, ticket: u64) -> Vec<u64> {
        self.waiting.retain(|&(waiter, _)| waiter != ticket);
        match self.held.remove(&ticket) {
            Some(Wanted::All) => self.all = None,
            Some(Wanted::Keys(keys)) => {
                for key in keys {
                    self.keys.remove(&key);
                }
            }
            None => {}
        }
        self.generation += 1;
        self.grant()
    }

    fn grant(&mut self) -> Vec<u64> {
        let mut granted = Vec::new();
        let mut still: Vec<(u64, Wanted)> = Vec::new();
        for (ticket, wanted) in std::mem::take(&mut self.waiting) {
            let behind = still.iter().any(|(_, earlier)| earlier.conflicts(&wanted));
            if !behind && self.is_free(&wanted) {
                self.take(ticket, wanted);
                granted.push(ticket);
            } else {
                still.push((ticket, wanted));
            }
        }
        self.waiting = still;
        granted
    }

    fn is_free(&self, wanted: &Wanted) -> bool {
        match wanted {
            Wanted::All => self.held.is_empty(),
            Wanted::Keys(keys) => {
                self.all.is_none() && keys.iter().all(|key| !self.keys.contains_key(key))
            }
        }
    }

    fn take(&mut self, ticket: u64, wanted: Wanted) {
        match &wanted {
            Wanted::All => self.all = Some(ticket),
            Wanted::Keys(keys) => self.keys.extend(keys.iter().map(|&key| (key, ticket))),
        }
        self.held.insert(ticket, wanted);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(keys: &[u64]) -> Wanted {
        Wanted::Keys(keys.iter().map(|&key| (0, key)).collect())
    }

    #[test]
    fn conflicting_requests_wait_in_order() {
        let mut locks = Locks::default();
        assert!(locks.request(1, keys(&[10, 11])));
        assert!(!locks.request(2, keys(&[11, 12])));
        // Free by itself, but behind 2, which wants 12 too.
        assert!(!locks.request(3, keys(&[12])));
        assert!(locks.request(4, keys(&[13])));
        assert!(locks.blocks(0, 0, 10) && !locks.blocks(1, 0, 10) && !locks.blocks(0, 1, 10));
        assert!(!locks.blocks(0, 0, 12));
        assert_eq!(locks.release(1), [2]);
        assert_eq!(locks.release(2), [3]);
        assert_eq!(locks.release(3), []);
        assert_eq!(locks.release(4), []);
        assert!(locks.is_empty());
    }

    #[test]
    fn a_lock_on_everything_excludes_and_is_not_overtaken() {
        let mut locks = Locks::default();
        assert!(locks.request(1, keys(&[1])));
        assert!(!locks.request(2, Wanted::All));
        assert!(!locks.request(3, keys(&[9])));
        assert_eq!(locks.release(1), [2]);
        assert!(locks.blocks(0, 5, 77) && !locks.blocks(2, 5, 77));
        assert_eq!(locks.release(2), [3]);
        assert_eq!(locks.release(3), []);
        assert!(!locks.blocks(0, 5, 77));
    }

    #[test]
    fn a_waiting_request_can_be_withdrawn() {
        let mut locks = Locks::default();
        assert!(locks.request(1, keys(&[1])));
        assert!(!locks.request(2, keys(&[1, 2])));
        assert!(!locks.request(3, keys(&[2])));
        assert_eq!(locks.release(2), [3]);
    }
}
