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

/// The entries, newest first.
#[derive(Debug, Default)]
pub(crate) struct Log(VecDeque<LogEntry>);

impl Log {
    pub(crate) fn add(&mut self, entry: LogEntry, max: usize) {
        let same = |known: &LogEntry| {
            known.reason == entry.reason
                && known.context == entry.context
                && entry.at_ms.saturating_sub(known.at_ms) <= GROUPING_MS
                && known.object == entry.object
                && known.user == entry.user
        };
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
