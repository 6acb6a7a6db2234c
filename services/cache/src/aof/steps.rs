//! The log and what is not a client's command: steps of commands over several shards, keys that come back, bases.
//!
//! Next: `host.rs` for when a base is written.

use std::sync::atomic::Ordering;

use std::sync::Arc;
use view::Instant;

use super::{Commands, Common, Part, Tx, command, effects::Effect, state};
use crate::{
    admin::Ask,
    command::{Fault, row},
    repl::Applies,
    script,
    shard::Shard,
    work::{Op, Response},
};

/// An entry of a base takes no more keys from so many bytes on.
const KEPT_BYTES: usize = 16 << 10;
/// Keys of a base per step.
const BASE_KEYS: usize = 64;

/// All functions as a command of the log.
pub(super) fn functions(libraries: &[Arc<script::library::Functions>], number: u64) -> Vec<u8> {
    let payload = script::payload::write(libraries.iter().map(|library| &*library.code));
    let mut bytes = Vec::new();
    command(&mut bytes, &[b"FUNCTIONS", number.to_string().as_bytes(), &payload]);
    bytes
}

/// What INFO tells of the log.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Facts {
    pub(crate) enabled: bool,
    pub(crate) loading: bool,
    pub(crate) rewriting: bool,
    pub(crate) rewrite_failed: bool,
    pub(crate) failed: bool,
    pub(crate) rewrites: u64,
    /// How long the last rewrite took, and how long the one under way has taken; -1 for none.
    pub(crate) rewrite_s: i64,
    pub(crate) rewriting_s: i64,
    pub(crate) size_bytes: u64,
    pub(crate) base_bytes: u64,
    pub(crate) waiting_bytes: u64,
}

impl Shard {
    /// Counters of this shard's log.
    pub(crate) fn log_counts(&self) -> super::Counts {
        self.journal.as_ref().map_or_else(Default::default, |journal| journal.counts)
    }

    /// What INFO tells of the log, of all shards.
    pub(crate) fn log_facts(&self, now: Instant) -> Facts {
        let Some(journal) = self.journal.as_ref().filter(|journal| journal.on_disk) else {
            return Facts { rewrite_s: -1, rewriting_s: -1, ..Facts::default() };
        };
        let common = &journal.common;
        let seconds = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        let rewriting = common.rewriting.load(Ordering::Relaxed);
        let began_s = common.rewrite_began_s.load(Ordering::Relaxed);
        let rewriting_s = seconds(now.unix_s().saturating_sub(began_s));
        Facts {
            rewrite_s: seconds(common.rewrite_took_s.load(Ordering::Relaxed)) - 1,
            rewriting_s: if rewriting { rewriting_s } else { -1 },
            enabled: true,
            loading: journal.is_loading(),
            rewriting,
            rewrite_failed: common.rewrite_failed.load(Ordering::Relaxed),
            failed: journal.is_failed(),
            rewrites: journal.counts.rewrites,
            size_bytes: Common::lock(&common.sizes).iter().sum(),
            base_bytes: common.base_bytes.load(Ordering::Relaxed),
            waiting_bytes: journal.backlog_bytes(),
        }
    }

    /// Whether the log cannot be written.
    pub(crate) fn log_fails(&self) -> bool {
        self.journal.as_ref().is_some_and(|journal| journal.on_disk && journal.is_failed())
    }

    /// What stands against a command for the sake of the log.
    pub(crate) fn log_refuses(&self, id: u16) -> Option<Fault> {
        let journal = self.journal.as_ref()?;
        let flags = self.commands.row(id).flags;
        if journal.is_loading() && flags & row::LOADING == 0 {
            return Some(Fault::text("LOADING Redis is loading the dataset in memory"));
        }
        if (flags & row::WRITE != 0 || self.commands.row(id).name == "ping") && journal.is_failed()
        {
            let why = Common::lock(&journal.common.why);
            return Some(Fault::owned(format!("MISCONF Errors writing to the AOF file: {why}")));
        }
        None
    }

    /// Runs a step and logs what it did.
    pub(crate) fn run_logged(&mut self, op: Op, now: Instant) -> Response {
        let (tx, op) = match op {
            Op::Part(tx, op) => (Some(*tx), *op),
            op => (None, op),
        };
        let mut bytes = Vec::new();
        let (db, keys) = match &op {
            Op::Set(db, pairs) => {
                let mut words: Vec<&[u8]> = vec![b"MSET"];
                pairs.iter().for_each(|(key, value)| words.extend([&**key, &value[..]]));
                command(&mut bytes, &words);
                (*db, pairs.iter().map(|(key, _)| key.clone()).collect())
            }
            Op::Remove(db, keys) => {
                let mut words: Vec<&[u8]> = vec![b"DEL"];
                words.extend(keys.iter().map(|key| &**key));
                command(&mut bytes, &words);
                (*db, Vec::new())
            }
            Op::Store(db, key, ..) => (*db, vec![key.clone()]),
            Op::Leave(db, key) => {
                command(&mut bytes, &[b"DEL", key]);
                (*db, Vec::new())
            }
            Op::Admin(Ask::Swap(one, two)) => {
                let (one, two) = (one.to_string(), two.to_string());
                command(&mut bytes, &[b"SWAPDB", one.as_bytes(), two.as_bytes()]);
                (0, Vec::new())
            }
            Op::Flush(Some(db)) => {
                command(&mut bytes, &[b"FLUSHDB"]);
                (*db, Vec::new())
            }
            Op::Flush(None) => {
                command(&mut bytes, &[b"FLUSHALL"]);
                (0, Vec::new())
            }
            Op::Rewrite | Op::Settle | Op::EndLog => return self.log_moment(&op, now),
            _ => return self.run_unlogged(op, now),
        };
        let is_store = matches!(op, Op::Store(..));
        let swaps = matches!(op, Op::Admin(Ask::Swap(..)));
        let response = self.run_unlogged(op, now);
        if is_store || matches!(response, Response::Error(_)) {
            // What came of it, whatever that is.
            bytes.clear();
            for key in keys {
                self.write_state(&mut bytes, db, &key, now);
            }
        } else if tx.is_none() && matches!(response, Response::Count(0)) {
            return response;
        }
        self.log_part(Part { tx, commands: vec![(db, bytes)], ran_ms: None }, now);
        if swaps && let Some(base) = self.journal.as_mut().and_then(|journal| journal.base.as_mut())
        {
            // What a base has yet to reach may be where it was already.
            *base = super::Base::default();
        }
        if swaps {
            self.restart_flow_bases();
        }
        response
    }

    /// A moment at which no command over several shards is under way: a base begins, what bases rest on is to become
    /// durable, or the log ends.
    fn log_moment(&mut self, op: &Op, now: Instant) -> Response {
        if matches!(op, Op::Rewrite) {
            self.log_begin_base(now);
            return Response::Done;
        }
        let Some(journal) = &mut self.journal else { return Response::Done };
        if matches!(op, Op::EndLog) {
            journal.closing = true;
            return Response::Done;
        }
        let mut settling = Common::lock(&journal.common.settling);
        if let Some(place) = settling.get_mut(usize::from(self.index)) {
            *place = Some(journal.end());
        }
        Response::Done
    }

    /// Begins to log, with a base of what there is.
    pub(crate) fn log_on(&mut self, common: Arc<Common>, now: Instant) {
        let fsync = super::Fsync::named(self.settings.get("appendfsync"));
        self.begin_log(fsync, common, now);
        self.log_begin_base(now);
    }

    /// A base begins here.
    pub(crate) fn log_begin_base(&mut self, now: Instant) {
        if let Some(journal) = &mut self.journal {
            journal.begin_base(now.unix_ms());
        }
        self.log_functions(now);
    }

    /// Logs all functions, with a number that grows with each change: shards' logs are run again side by side.
    pub(crate) fn log_functions(&mut self, now: Instant) {
        let (libraries, number) = self.scripts.library().functions();
        let Some(journal) = &mut self.journal else { return };
        if number > 0 {
            let bytes = functions(&libraries, number);
            journal.put(journal.own_ms(now.unix_ms()), 0, |out| out.extend_from_slice(&bytes));
        }
    }

    /// Logs what commands did to keys of this shard since [`Shard::log_capture`]; what they did to keys that other shards
    /// lent, for those to log.
    pub(crate) fn log_split(&mut self, ticket: u64, now: Instant) -> Vec<(u16, Part)> {
        let effects = self.log_captured();
        let Some(journal) = &self.journal else { return Vec::new() };
        let mut parts: Vec<(u16, Commands)> = Vec::new();
        for Effect { owner, db, bytes } in effects {
            match parts.iter_mut().find(|(other, _)| *other == owner) {
                Some((_, commands)) => commands.push((db, bytes)),
                None => parts.push((owner, vec![(db, bytes)])),
            }
        }
        let shards = parts.iter().map(|(owner, _)| *owner).collect();
        let (tx, ran_ms) = (Tx { name: journal.name(ticket), shards }, Some(now.unix_ms()));
        let (own, others): (Vec<_>, Vec<_>) = parts
            .into_iter()
            .map(|(owner, commands)| (owner, Part { tx: Some(tx.clone()), commands, ran_ms }))
            .partition(|(owner, _)| *owner == self.index);
        own.into_iter().for_each(|(_, part)| self.log_part(part, now));
        others
    }

    /// A script has emptied a database, or all, on all shards.
    pub(crate) fn log_flush(&mut self, db: Option<u16>) {
        let count = self.count;
        let Some(captured) = self.journal.as_mut().and_then(|journal| journal.captured.as_mut())
        else {
            return;
        };
        let mut bytes = Vec::new();
        let word: &[u8] = if db.is_some() { b"FLUSHDB" } else { b"FLUSHALL" };
        command(&mut bytes, &[word]);
        let db = db.unwrap_or(0);
        captured.extend((0..count).map(|owner| Effect { owner, db, bytes: bytes.clone() }));
    }

    pub(crate) fn write_state(&mut self, out: &mut Vec<u8>, db: u16, key: &[u8], now: Instant) {
        let hash = self.store.hash(key);
        if db == self.store.items_db() {
            return self.write_item(out, hash, key, now);
        }
        let before = self.show_due_keys(Applies::NOW);
        state::write(out, &mut self.store, db, hash, key, now.unix_ms());
        self.hide_due_keys(before);
    }

    /// A key has come from a master, with all it holds.
    pub(crate) fn log_loaded(&mut self, db: u16, key: &[u8], now: Instant) {
        if self.journal.is_some() {
            let mut bytes = Vec::new();
            self.write_state(&mut bytes, db, key, now);
            self.log_part(Part { tx: None, commands: vec![(db, bytes)], ran_ms: None }, now);
        }
    }

    /// A key has come back from another shard: a base that is being written may have missed it.
    pub(crate) fn log_returned(&mut self, db: u16, key: &[u8], now: Instant) {
        let Some(journal) = self.journal.as_ref().filter(|journal| journal.has_base()) else {
            return;
        };
        let for_flows = journal.flow_bases;
        self.log_kept(db, &[key.to_vec()], for_flows, now);
    }

    /// Logs what keys hold as part of a base, in entries of several; for replicas only what their own bases may have missed.
    fn log_kept(&mut self, db: u16, keys: &[Vec<u8>], for_flows: bool, now: Instant) {
        let mut bytes = Vec::new();
        for (at, key) in keys.iter().enumerate() {
            self.write_state(&mut bytes, db, key, now);
            let is_last = at + 1 == keys.len();
            if (is_last || bytes.len() >= KEPT_BYTES)
                && let Some(journal) = &mut self.journal
            {
                journal.put_kept(now.unix_ms(), db, &bytes, for_flows);
                journal.touch_all();
                bytes.clear();
            }
        }
    }

    /// Whether a base has told of all keys that are here, and waits only for those that are lent.
    pub(crate) fn is_base_told(&self, base: super::Base) -> bool {
        base.db > self.store.items_db()
    }

    /// Writes some more keys of a base; false at its end, or without one. The end does not come before the keys are back
    /// that other shards have borrowed: the base may have missed them, and they are told of when they come back.
    pub(crate) fn log_base(&mut self, now: Instant) -> bool {
        let Some(journal) = &mut self.journal else { return false };
        let Some(mut base) = journal.base else { return false };
        let keys = self.base_keys(&mut base, self.store.items_db(), now);
        self.log_kept(base.db, &keys, false, now);
        let next = self.next_base(base, self.store.items_db());
        if let Some(journal) = &mut self.journal {
            journal.base = next;
        }
        next.is_some()
    }

    /// The next keys of a base, which goes as far as the database `last`.
    pub(crate) fn base_keys(
        &self,
        base: &mut super::Base,
        last: u16,
        now: Instant,
    ) -> Vec<Vec<u8>> {
        let mut keys: Vec<Vec<u8>> = Vec::new();
        if base.db <= last {
            let each = |key: &[u8], _| keys.push(key.to_vec());
            base.cursor = self.store.scan(base.db, base.cursor, BASE_KEYS, now.unix_ms(), each);
        }
        keys
    }

    /// Where a base goes on; nowhere at its end, which does not come before the keys are back that other shards have
    /// borrowed: it may have missed them.
    pub(crate) fn next_base(&self, mut base: super::Base, last: u16) -> Option<super::Base> {
        if base.db <= last && base.cursor == 0 {
            base.db += 1;
        }
        (base.db <= last || self.lent > 0).then_some(base)
    }

    /// Takes over what CONFIG SET changed.
    pub(crate) fn apply_log_settings(&mut self) {
        if let Some(journal) = &mut self.journal {
            journal.fsync = super::Fsync::named(self.settings.get("appendfsync"));
        }
    }

    /// Takes keys away, some at a time; the next cursor, 0 at the end.
    pub(crate) fn take_some(
        &mut self,
        db: u16,
        cursor: u64,
        now: Instant,
        into: &mut Vec<super::Moving>,
    ) -> u64 {
        let mut keys: Vec<Vec<u8>> = Vec::new();
        let now_ms = now.unix_ms();
        let next = self.store.scan(db, cursor, BASE_KEYS, now_ms, |key, _| keys.push(key.to_vec()));
        for key in keys {
            let hash = self.store.hash(&key);
            if let Some(record) = self.record(db, hash, &key, true, now_ms) {
                into.push((db, key.into(), record));
            }
        }
        next
    }
}
