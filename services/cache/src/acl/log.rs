//! ACL LOG: what was refused lately.
//!
//! Invariant: entries are bounded by `acllog-max-len`; the same refusal within a minute is counted on its entry.

use std::collections::VecDeque;

/// Entries that differ only in time are one within so long.
const GROUPING_MS: u64 = 60_000;

/// Why something was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    Command,
    Key,
    Channel,
    Auth,
}

impl Reason {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Command => "command",
            Self::Key => "key",
            Self::Channel => "channel",
            Self::Auth => "auth",
        }
    }
}

/// One refusal, or several of a kind.
#[derive(Clone, Debug)]
pub(crate) struct LogEntry {
    pub(crate) count: u64,
    pub(crate) reason: Reason,
    /// `toplevel`, `multi` or `lua`.
    pub(crate) context: &'static str,
    /// The command, key or channel.
    pub(crate) object: Vec<u8>,
    pub(crate) user: Vec<u8>,
    /// The last one.
    pub(crate) at_ms: u64,
    /// The client's line of CLIENT LIST.
    pub(crate) client: String,
}

impl LogEntry {
    /// Whether an older entry is of the same kind, so that both are one.
    fn is_like(&self, older: &Self) -> bool {
        older.reason == self.reason
            && older.context == self.context
            && self.at_ms.saturating_sub(older.at_ms) <= GROUPING_MS
            && older.object == self.object
            && older.user == self.user
    }

    /// The entries of all shards, newest first, as if they were of one.
    pub(crate) fn merged(entries: Vec<Self>) -> Vec<Self> {
        let mut merged: Vec<Self> = Vec::with_capacity(entries.len());
        for entry in entries {
            match merged.iter_mut().find(|newer| newer.is_like(&entry)) {
                Some(newer) => newer.count += entry.count,
                None => merged.push(entry),
            }
        }
        merged
    }
}

/// The entries, newest first.
#[derive(Debug, Default)]
pub(crate) struct Log(VecDeque<LogEntry>);

impl Log {
    pub(crate) fn add(&mut self, entry: LogEntry, max: usize) {
        let same = |known: &LogEntry| entry.is_like(known);
        // Redis looks at the ten newest only.
        let known = self.0.iter().take(10).position(same).and_then(|at| self.0.remove(at));
        let count = known.map_or(0, |known| known.count) + 1;
        self.0.push_front(LogEntry { count, ..entry });
        self.0.truncate(max);
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    pub(crate) fn newest(&self, most: usize) -> Vec<LogEntry> {
        self.0.iter().take(most).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_of_several_shards_are_counted_on_one_entry() {
        let entry = |user: &str, at_ms| LogEntry {
            count: 1,
            reason: Reason::Auth,
            context: "toplevel",
            object: b"AUTH".to_vec(),
            user: user.into(),
            at_ms,
            client: String::new(),
        };
        let far = 200_000;
        let entries =
            vec![entry("a", far), entry("b", far - 1), entry("a", far - 2), entry("a", 1)];
        let merged = LogEntry::merged(entries);
        let seen: Vec<_> = merged.iter().map(|one| (one.count, one.at_ms)).collect();
        assert_eq!(seen, [(2, far), (1, far - 1), (1, 1)]);
    }
}
