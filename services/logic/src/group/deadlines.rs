//! What is due when, over all groups of a shard.
//!
//! Whoever has a deadline keeps its time beside what it is for, and hands it in to move or clear it. Invariants: a
//! timer is queued once at most, at the time its owner keeps; what is over is not queued, so the queue is bounded by
//! members and groups however often they come and go and however long they say they may wait. Next: `mod` fires
//! them.

use std::collections::BTreeSet;

/// What happens at a time. For one time the order is that of declaration, then of names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// The member may have been silent for too long.
    Session { group: String, member: String },
    /// Whoever has not joined this rebalance is out.
    Rebalance { group: String },
    /// Whoever has not synced this generation is out.
    Sync { group: String },
    /// An id that was given out was not used.
    Pending { group: String, member: String },
    /// Offsets may be too old.
    Offsets { group: String },
}

/// All timers by time.
#[derive(Debug, Default)]
pub(super) struct Deadlines(BTreeSet<(i64, Timer)>);

impl Deadlines {
    pub(super) const fn new() -> Self {
        Self(BTreeSet::new())
    }

    /// Queues `timer`, or moves it; `kept` is where its owner keeps the time.
    pub(super) fn set(&mut self, kept: &mut Option<i64>, at_ms: i64, timer: Timer) {
        let entry = match kept.replace(at_ms) {
            Some(before_ms) => {
                let entry = (before_ms, timer);
                self.0.remove(&entry);
                (at_ms, entry.1)
            }
            None => (at_ms, timer),
        };
        self.0.insert(entry);
    }

    /// Takes `timer` out again.
    pub(super) fn clear(&mut self, kept: &mut Option<i64>, timer: Timer) {
        if let Some(at_ms) = kept.take() {
            self.0.remove(&(at_ms, timer));
        }
    }

    /// The next one that is due; its owner has to forget the time.
    pub(super) fn pop(&mut self, now_ms: i64) -> Option<Timer> {
        let (at_ms, _) = self.0.first()?;
        if *at_ms > now_ms {
            return None;
        }
        self.0.pop_first().map(|(_, timer)| timer)
    }

    pub(super) fn next_ms(&self) -> Option<i64> {
        self.0.first().map(|(at_ms, _)| *at_ms)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timer_that_moves_or_is_cleared_fires_once_or_never() {
        let timer = || Timer::Sync { group: "g".into() };
        let (mut deadlines, mut kept) = (Deadlines::new(), None);
        deadlines.set(&mut kept, 10, timer());
        deadlines.set(&mut kept, 5, timer());
        assert_eq!((deadlines.len(), deadlines.next_ms(), kept), (1, Some(5), Some(5)));
        assert_eq!(deadlines.pop(4), None);
        assert_eq!(deadlines.pop(5), Some(timer()));
        assert_eq!(deadlines.pop(i64::MAX), None);
        deadlines.set(&mut kept, 7, timer());
        deadlines.clear(&mut kept, timer());
        assert_eq!((deadlines.len(), kept), (0, None));
        deadlines.clear(&mut kept, timer());
        assert_eq!(deadlines.next_ms(), None);
    }
}
