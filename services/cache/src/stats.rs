//! Counters of one shard, and the report in which they travel to whoever answers INFO.

use engine::driver::Usage;
use logic::store::Store;

use crate::command::{row::WRITE, table::Index};

/// Counters since the start or the last CONFIG RESETSTAT. Plain integers: one shard writes them.
#[derive(Clone, Debug, Default)]
pub struct Stats {
    /// Calls per command id.
    pub calls: Vec<u64>,
    /// Refused before running (arity, NOAUTH, OOM), per command id.
    pub rejected: Vec<u64>,
    /// Answered with an error, per command id.
    pub failed: Vec<u64>,
    /// Error replies per code.
    pub errors: Vec<(String, u64)>,
    /// Connections accepted.
    pub connections: u64,
    /// Commands sent to other shards.
    pub hopped_commands: u64,
    /// Requests sent to other shards: batches and steps.
    pub hop_requests: u64,
    /// MOVED replies.
    pub moved: u64,
    /// Commands that waited for a lock.
    pub lock_waits: u64,
    /// Keys that found no room when they came back from another shard.
    pub lost_on_return: u64,
    /// Times writes were held back because a snapshot could not follow.
    pub snapshot_waits: u64,
    /// Requests to other shards that nobody waited for, and that found no room.
    pub posts_lost: u64,
    /// Errors whose code was not counted apart.
    overflow_errors: u64,
}

/// Distinct error codes counted.
const MAX_ERROR_CODES: usize = 64;

impl Stats {
    pub(crate) fn new(commands: usize) -> Self {
        Self {
            calls: vec![0; commands],
            rejected: vec![0; commands],
            failed: vec![0; commands],
            ..Self::default()
        }
    }

    /// Forgets everything but the number of commands.
    pub(crate) fn reset(&mut self) {
        *self = Self::new(self.calls.len());
    }

    #[inline]
    pub(crate) fn call(&mut self, id: u16) {
        if let Some(calls) = self.calls.get_mut(usize::from(id)) {
            *calls += 1;
        }
    }

    pub(crate) fn reject(&mut self, id: u16, code: &str) {
        if let Some(count) = self.rejected.get_mut(usize::from(id)) {
            *count += 1;
        }
        self.error(code);
    }

    pub(crate) fn fail(&mut self, id: u16, code: &str) {
        if let Some(count) = self.failed.get_mut(usize::from(id)) {
            *count += 1;
        }
        self.error(code);
    }

    pub(crate) fn error(&mut self, code: &str) {
        if let Some((_, count)) = self.errors.iter_mut().find(|(known, _)| known == code) {
            *count += 1;
        } else if self.errors.len() < MAX_ERROR_CODES {
            self.errors.push((code.into(), 1));
        } else {
            self.overflow_errors += 1;
        }
    }

    /// Error replies in all.
    #[must_use]
    pub fn total_errors(&self) -> u64 {
        self.errors.iter().map(|(_, count)| count).sum::<u64>() + self.overflow_errors
    }

    /// Commands run in all.
    #[must_use]
    pub fn total_calls(&self) -> u64 {
        self.calls.iter().sum()
    }

    /// Calls of commands that write.
    pub(crate) fn writes(&self, commands: &Index) -> u64 {
        let writes = commands.all().filter(|(_, row)| row.flags & WRITE != 0);
        writes.filter_map(|(id, _)| self.calls.get(usize::from(id))).sum()
    }

    fn merge(&mut self, other: &Self) {
        for (mine, theirs) in [
            (&mut self.calls, &other.calls),
            (&mut self.rejected, &other.rejected),
            (&mut self.failed, &other.failed),
        ] {
            mine.iter_mut().zip(theirs).for_each(|(mine, theirs)| *mine += theirs);
        }
        for (code, count) in &other.errors {
            match self.errors.iter_mut().find(|(known, _)| known == code) {
                Some((_, mine)) => *mine += count,
                None => self.errors.push((code.clone(), *count)),
            }
        }
        self.connections += other.connections;
        self.hopped_commands += other.hopped_commands;
        self.hop_requests += other.hop_requests;
        self.moved += other.moved;
        self.lock_waits += other.lock_waits;
        self.lost_on_return += other.lost_on_return;
        self.snapshot_waits += other.snapshot_waits;
        self.posts_lost += other.posts_lost;
        self.overflow_errors += other.overflow_errors;
    }
}

/// What INFO needs of a shard; sums over shards are formed with [`Report::merge`].
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The counters.
    pub stats: Stats,
    /// The store's counters.
    pub store: logic::store::StoreStats,
    /// Bytes in use.
    pub used_bytes: u64,
    /// The most there ever were.
    pub peak_bytes: u64,
    /// Open connections.
    pub clients: u64,
    /// Connections waiting in a command.
    pub blocked: u64,
    /// Commands per second, lately.
    pub ops_per_s: u64,
    /// Bytes of Lua states.
    pub script_bytes: u64,
    /// What the process has used, as the first shard knows.
    pub process: Usage,
    /// Records are being moved together.
    pub compacting: bool,
    /// Per database: keys, keys with an expiry, mean remaining time.
    pub databases: Vec<(u64, u64, u64)>,
    /// Commands sampled for HOTKEYS.
    pub hot_samples: u64,
    /// Commands per second on the hottest key.
    pub hottest_rate: u64,
    /// Keys noted for BIGKEYS.
    pub big_keys: u64,
    /// What the largest of them takes.
    pub biggest_bytes: u64,
    /// Deletions in the background that are done.
    pub erase_done: u64,
    /// Keys they looked at, and those under way.
    pub erase_scanned: u64,
    /// Keys they deleted, and those under way.
    pub erase_deleted: u64,
    /// Those under way.
    pub erase_active: Vec<crate::erase::Progress>,
    /// Channels, patterns and shard channels with listeners, and connections that listen.
    pub pubsub: [u64; 4],
    /// Clients that track, the keys in their table, the clients of these, and prefixes.
    pub tracking: [u64; 4],
    /// Who follows the shards, flow by flow.
    pub(crate) followers: Vec<crate::flow::Behind>,
    /// Where the shards' backlogs begin and end.
    pub(crate) backlog: Vec<(u64, u64)>,
}

impl Report {
    pub(crate) fn of_store(store: &Store, now_ms: u64) -> Self {
        let databases = (0..store.config().databases)
            .map(|db| {
                let expires = store.expires_len(db);
                let ttl = if expires == 0 { 0 } else { store.avg_ttl_ms(db, now_ms) };
                (store.len(db), expires, ttl)
            })
            .collect();
        Self { store: *store.stats(), used_bytes: store.used_bytes(), databases, ..Self::default() }
    }

    /// Adds another shard's report.
    pub fn merge(&mut self, other: &Self) {
        self.stats.merge(&other.stats);
        self.store.hits += other.store.hits;
        self.store.misses += other.store.misses;
        self.store.expired += other.store.expired;
        self.store.evicted += other.store.evicted;
        self.used_bytes += other.used_bytes;
        self.peak_bytes += other.peak_bytes;
        self.clients += other.clients;
        self.blocked += other.blocked;
        self.ops_per_s += other.ops_per_s;
        self.script_bytes += other.script_bytes;
        self.compacting |= other.compacting;
        self.store.compacted += other.store.compacted;
        if other.process != Usage::default() {
            self.process = other.process;
        }
        self.merge_keys(other);
        self.followers.extend_from_slice(&other.followers);
        self.backlog.extend_from_slice(&other.backlog);
        self.tracking.iter_mut().zip(&other.tracking).for_each(|(mine, theirs)| *mine += theirs);
        self.pubsub.iter_mut().zip(&other.pubsub).for_each(|(mine, theirs)| *mine += theirs);
        for (mine, theirs) in self.databases.iter_mut().zip(&other.databases) {
            let expires = mine.1 + theirs.1;
            let weighted = mine.2.saturating_mul(mine.1) + theirs.2.saturating_mul(theirs.1);
            *mine = (mine.0 + theirs.0, expires, weighted.checked_div(expires).unwrap_or(0));
        }
    }

    fn merge_keys(&mut self, other: &Self) {
        self.hot_samples += other.hot_samples;
        self.hottest_rate = self.hottest_rate.max(other.hottest_rate);
        self.big_keys += other.big_keys;
        self.biggest_bytes = self.biggest_bytes.max(other.biggest_bytes);
        // A job is done when it is on every shard.
        self.erase_done = self.erase_done.min(other.erase_done);
        self.erase_scanned += other.erase_scanned;
        self.erase_deleted += other.erase_deleted;
        for theirs in &other.erase_active {
            match self.erase_active.iter_mut().find(|mine| mine.id == theirs.id) {
                Some(mine) => {
                    mine.scanned += theirs.scanned;
                    mine.deleted += theirs.deleted;
                }
                None => self.erase_active.push(*theirs),
            }
        }
    }
}
