//! SLOWLOG: commands that took long, with their arguments cut to a bound.
//!
//! Invariant: at most `slowlog-max-len` entries of at most [`ARGS_MAX`] arguments of [`ARG_MAX_BYTES`] bytes.

use std::collections::VecDeque;

const ARGS_MAX: usize = 32;
const ARG_MAX_BYTES: usize = 128;

/// One slow command.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// Counts up on each shard.
    pub(crate) id: u64,
    pub(crate) at_us: u64,
    pub(crate) us: u64,
    pub(crate) args: Vec<Vec<u8>>,
    pub(crate) peer: String,
    pub(crate) name: Vec<u8>,
}

impl Entry {
    pub(crate) fn new(at_us: u64, us: u64, args: &[&[u8]], peer: String, name: Vec<u8>) -> Self {
        let shown = if args.len() > ARGS_MAX { ARGS_MAX - 1 } else { args.len() };
        let cut = |arg: &&[u8]| {
            let mut text = arg.get(..ARG_MAX_BYTES).unwrap_or(arg).to_vec();
            if arg.len() > ARG_MAX_BYTES {
                text.extend(format!("... ({} more bytes)", arg.len() - ARG_MAX_BYTES).bytes());
            }
            text
        };
        let mut kept: Vec<Vec<u8>> = args.iter().take(shown).map(cut).collect();
        if args.len() > shown {
            kept.push(format!("... ({} more arguments)", args.len() - shown).into_bytes());
        }
        Self { id: 0, at_us, us, args: kept, peer, name }
    }
}

/// The entries, newest first.
#[derive(Debug, Default)]
pub(crate) struct SlowLog {
    entries: VecDeque<Entry>,
    next_id: u64,
}

impl SlowLog {
    pub(crate) fn add(&mut self, entry: Entry, max: usize) {
        self.entries.push_front(Entry { id: self.next_id, ..entry });
        self.next_id += 1;
        self.trim(max);
    }

    pub(crate) fn trim(&mut self, max: usize) {
        self.entries.truncate(max);
    }

    pub(crate) fn clear(&mut self) {
        self.entries.clear();
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn newest(&self, most: usize) -> Vec<Entry> {
        self.entries.iter().take(most).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_cut_at_the_bound() {
        let long = vec![b'x'; ARG_MAX_BYTES + 1];
        let entry = Entry::new(0, 0, &[b"a", &long], String::new(), Vec::new());
        assert!(entry.args[1].ends_with(b"x... (1 more bytes)"));
        let many = vec![&b"a"[..]; ARGS_MAX + 1];
        let entry = Entry::new(0, 0, &many, String::new(), Vec::new());
        assert_eq!(entry.args.len(), ARGS_MAX);
        assert_eq!(entry.args[ARGS_MAX - 1], b"... (2 more arguments)");
        let entry = Entry::new(0, 0, &many[1..], String::new(), Vec::new());
        assert_eq!(entry.args[ARGS_MAX - 1], b"a");
    }

    #[test]
    fn the_newest_stay() {
        let mut log = SlowLog::default();
        for us in 0..5 {
            log.add(Entry::new(0, us, &[], String::new(), Vec::new()), 3);
        }
        let ids: Vec<u64> = log.newest(9).iter().map(|entry| entry.id).collect();
        assert_eq!((ids, log.len()), (vec![4, 3, 2], 3));
    }
}
