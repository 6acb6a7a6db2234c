//! The append-only log and the items: what a request did to an item, as what the item is now.
//!
//! An item is logged whole (`ITEM`), or that it is gone (`DEL`), in the database of the items. CAS uniques and what clients
//! were told of refreshing are not kept: after a restart uniques count on from the time of day, above all that were told.
//! Invariant: nothing here costs anything without a log. Next: `crate::aof`.

use logic::store::KeyHash;
use view::Instant;
use wire::memcached::{Request, Store};

use super::run::Cx;
use crate::{aof::command, shard::Shard};

/// What a request is answered with while the log cannot be written.
const NOT_LOGGED: &str = "SERVER_ERROR the append-only log cannot be written";

/// What is known of an item before a request that may read only.
type Before = Option<Option<u64>>;

/// Whether a request has to be refused, and what it is told: nothing when no reply is wanted.
pub(super) fn refusal(shard: &Shard, request: &Request<'_>) -> Option<&'static str> {
    if !shard.journal.as_ref().is_some_and(|journal| journal.is_failed()) {
        return None;
    }
    match request {
        Request::MetaGet(_) | Request::MetaDebug(_) => None,
        Request::Store(Store { noreply, .. })
        | Request::Delta { noreply, .. }
        | Request::Delete { noreply, .. }
        | Request::Touch { noreply, .. } => Some(if *noreply { "" } else { NOT_LOGGED }),
        _ => Some(NOT_LOGGED),
    }
}

impl Cx<'_> {
    /// What is to be compared when a request that may change an item, or may not, has run.
    pub(super) fn before(&mut self, request: &Request<'_>) -> Before {
        let Request::MetaGet(meta) = request else { return None };
        let hash = self.shard.store.hash(&meta.key);
        let now_ms = self.now.unix_ms();
        self.shard.store.item(hash, &meta.key, false, now_ms).map(|item| item.expire_at_ms)
    }

    /// Logs what a request did.
    pub(super) fn log_request(&mut self, request: &Request<'_>, before: Before) {
        let Some(key) = request.key() else { return };
        let changed = match request {
            Request::MetaDebug(_) => false,
            Request::MetaGet(_) => self.before(request) != before,
            _ => true,
        };
        let hash = self.shard.store.hash(key);
        self.shard.log_item(hash, key, self.now, changed);
    }
}

impl Shard {
    /// Logs what an item is now, when it has changed; notes that a reply tells of it.
    #[cold]
    pub(crate) fn log_item(&mut self, hash: KeyHash, key: &[u8], now: Instant, changed: bool) {
        if self.journal.is_none() {
            return;
        }
        let db = self.store.items_db();
        let mut bytes = Vec::new();
        if changed {
            self.write_item(&mut bytes, hash, key, now);
        }
        let Some(journal) = &mut self.journal else { return };
        if changed {
            journal.put(now.unix_ms(), db, |out| out.extend_from_slice(&bytes));
            journal.touch(db, hash.get());
        }
        journal.read(db, hash.get());
    }

    /// What gives an item again.
    pub(crate) fn write_item(
        &mut self,
        out: &mut Vec<u8>,
        hash: KeyHash,
        key: &[u8],
        now: Instant,
    ) {
        let Some(item) = self.store.item(hash, key, false, now.unix_ms()) else {
            return command(out, &[b"DEL", key]);
        };
        let (flags, at) =
            (item.marks.flags.to_string(), item.expire_at_ms.unwrap_or(0).to_string());
        let binary: &[u8] = if item.marks.binary { b"1" } else { b"0" };
        command(out, &[b"ITEM", key, flags.as_bytes(), binary, at.as_bytes(), item.data()]);
    }

    /// Logs that all items are gone.
    #[cold]
    pub(super) fn log_no_items(&mut self, now: Instant) {
        let db = self.store.items_db();
        if let Some(journal) = &mut self.journal {
            journal.put(now.unix_ms(), db, |out| command(out, &[b"FLUSHDB"]));
            journal.touch_all();
        }
    }
}
