//! What the shards of a server know of each other's scripts: whether one runs too long, and whether it shall end.
//!
//! A shard is busy with its script, so a kill can only come from another shard's connection: through one word per
//! shard, which the script's hook looks at. Invariants: a shard's word is cleared when its script ends; a kill is only
//! noted for a script that has not written.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering::Relaxed},
};

/// Most shards that are told apart.
const SLOTS: usize = 256;

const RUNS: u32 = 1;
const FUNCTION: u32 = 2;
const WROTE: u32 = 4;
const BUSY: u32 = 8;
const KILL: u32 = 16;

/// One word per shard.
#[derive(Clone, Debug)]
pub(crate) struct Board(Arc<[AtomicU32]>);

impl Default for Board {
    fn default() -> Self {
        Self((0..SLOTS).map(|_| AtomicU32::new(0)).collect())
    }
}

/// Why nothing was killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unkilled {
    NotBusy,
    Wrote,
    /// A function when a script was meant, or the other way round.
    Other,
}

impl Board {
    /// The word of one shard.
    pub(super) fn slot(&self, shard: u16) -> Slot {
        Slot { board: self.clone(), at: usize::from(shard) % SLOTS }
    }

    fn word(&self, at: usize) -> Option<&AtomicU32> {
        self.0.get(at)
    }

    /// Whether a shard's script runs too long: then, whether it is a function.
    pub(crate) fn busy(&self, shard: u16) -> Option<bool> {
        let word = self.word(usize::from(shard) % SLOTS)?.load(Relaxed);
        (word & BUSY != 0).then_some(word & FUNCTION != 0)
    }

    /// Ends a busy script, or a busy function.
    pub(crate) fn kill(&self, function: bool) -> Result<(), Unkilled> {
        let mut found = Unkilled::NotBusy;
        for word in self.0.iter() {
            let now = word.load(Relaxed);
            if now & BUSY == 0 {
                continue;
            }
            if now & WROTE != 0 {
                found = Unkilled::Wrote;
            } else if (now & FUNCTION != 0) != function {
                found = Unkilled::Other;
            } else {
                // Only of the script that was looked at.
                match word.compare_exchange(now, now | KILL, Relaxed, Relaxed) {
                    Ok(_) => return Ok(()),
                    Err(_) => found = Unkilled::NotBusy,
                }
            }
        }
        Err(found)
    }
}

/// A shard's own word.
#[derive(Clone, Debug)]
pub(super) struct Slot {
    board: Board,
    at: usize,
}

impl Slot {
    fn change(&self, change: impl FnOnce(&AtomicU32)) {
        if let Some(word) = self.board.word(self.at) {
            change(word);
        }
    }

    pub(super) fn begin(&self, function: bool) {
        self.change(|word| word.store(RUNS | if function { FUNCTION } else { 0 }, Relaxed));
    }

    pub(super) fn wrote(&self) {
        self.change(|word| _ = word.fetch_or(WROTE, Relaxed));
    }

    pub(super) fn busy(&self) {
        self.change(|word| _ = word.fetch_or(BUSY, Relaxed));
    }

    /// Whether the script shall end.
    pub(super) fn is_killed(&self) -> bool {
        self.board.word(self.at).is_some_and(|word| word.load(Relaxed) & KILL != 0)
    }

    pub(super) fn end(&self) {
        self.change(|word| word.store(0, Relaxed));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_busy_script_that_has_not_written_is_killed() {
        let board = Board::default();
        let slot = board.slot(3);
        assert_eq!(board.kill(false), Err(Unkilled::NotBusy));
        slot.begin(false);
        assert_eq!((board.kill(false), board.busy(3)), (Err(Unkilled::NotBusy), None));
        slot.busy();
        assert_eq!(board.busy(3), Some(false));
        assert_eq!(board.kill(true), Err(Unkilled::Other));
        assert_eq!((board.kill(false), slot.is_killed()), (Ok(()), true));
        slot.end();
        assert!(!slot.is_killed());
        slot.begin(true);
        slot.wrote();
        slot.busy();
        assert_eq!((board.busy(3), board.kill(true)), (Some(true), Err(Unkilled::Wrote)));
    }
}
