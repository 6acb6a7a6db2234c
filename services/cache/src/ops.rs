//! The steps of multi-key commands on the shard that holds the keys.

use bytes::Bytes;
use logic::store::{Entry, Expire, Form, NewValue, Value};
use view::Instant;

use crate::{
    shard::Shard,
    work::{Op, Record, Response, Scan},
};

/// An entry's value as refcounted bytes.
pub(crate) fn to_bytes(value: Value<'_>) -> Bytes {
    match value {
        Value::Inline(bytes) => Bytes::copy_from_slice(bytes),
        Value::Shared(bytes) => bytes.clone(),
    }
}

/// An entry as a record of its own.
pub(crate) fn to_record(entry: &Entry<'_>) -> Record {
    Record { value: to_bytes(entry.value), expire_at_ms: entry.expire_at_ms, form: entry.form }
}

impl Record {
    /// What becomes of the expiry of the key it is written to.
    pub(crate) fn expire(&self) -> Expire {
        self.expire_at_ms.map_or(Expire::Clear, Expire::At)
    }
}

impl Shard {
    /// Runs one step.
    pub(crate) fn run_op(&mut self, op: Op, now: Instant) -> Response {
        let now_ms = now.unix_ms();
        match op {
            Op::Nothing => Response::Done,
            Op::Get(db, keys) => Response::Values(
                keys.iter()
                    .map(|key| {
                        let hash = self.store.hash(key);
                        self.store.get(db, hash, key, now_ms).map(|entry| to_bytes(entry.value))
                    })
                    .collect(),
            ),
            Op::Set(db, pairs) => self.set_pairs(db, pairs, now_ms),
            Op::Remove(db, keys) => self.count(&keys, |shard, key| {
                let hash = shard.store.hash(key);
                shard.store.remove(db, hash, key, now_ms)
            }),
            Op::Exists(db, keys) => self.count(&keys, |shard, key| {
                let hash = shard.store.hash(key);
                shard.store.get_no_touch(db, hash, key, now_ms).is_some()
            }),
            Op::Touch(db, keys) => self.count(&keys, |shard, key| {
                let hash = shard.store.hash(key);
                shard.store.get(db, hash, key, now_ms).is_some()
            }),
            Op::Load(db, key) => {
                let hash = self.store.hash(&key);
                let entry = self.store.peek(db, hash, &key, now_ms);
                Response::Record(entry.map(|entry| to_record(&entry)))
            }
            Op::Store(db, key, record) => self.put(db, &key, record, now_ms),
            Op::Len(db) => Response::Count(self.store.len(db)),
            Op::Keys(db, pattern) => self.keys(db, &pattern, now_ms),
            Op::Random(db) => Response::Random {
                len: self.store.len(db),
                key: self.store.random_key(db, now_ms).map(Vec::into_boxed_slice),
            },
            Op::Scan(scan) => self.scan(&scan, now_ms),
            Op::Flush(db) => {
                match db {
                    Some(db) => self.store.clear(db),
                    None => (0..self.store.config().databases).for_each(|db| self.store.clear(db)),
                }
                Response::Done
            }
            Op::SlotKeys { slot, most } => self.slot_keys(slot, most, now_ms),
            other => self.run_admin(other, now),
        }
    }

    fn run_admin(&mut self, op: Op, now: Instant) -> Response {
        match op {
            Op::Report => Response::Report(Box::new(self.report(now))),
            Op::ResetStats => {
                self.stats.reset();
                self.store.reset_stats();
                Response::Done
            }
            Op::Configure(pairs) => {
                for (name, text) in pairs {
                    self.settings.put(&name, text);
                }
                self.apply_memory_settings();
                Response::Done
            }
            Op::ClientList(filter) => {
                let name = |id| (id != u16::MAX).then(|| self.commands.row(id).name);
                Response::Text(self.clients.list(&filter, now.unix_ms(), name))
            }
            Op::ClientKill(filter) => Response::Count(self.clients.kill(&filter)),
            _ => Response::Done,
        }
    }

    fn count(
        &mut self,
        keys: &[Box<[u8]>],
        mut each: impl FnMut(&mut Self, &[u8]) -> bool,
    ) -> Response {
        Response::Count(keys.iter().filter(|key| each(self, key)).count() as u64)
    }

    fn set_pairs(&mut self, db: u16, pairs: Vec<(Box<[u8]>, Bytes)>, now_ms: u64) -> Response {
        for (key, value) in pairs {
            let hash = self.store.hash(&key);
            let value = NewValue::Shared(value);
            if self.store.set(db, hash, &key, value, Expire::Clear, Form::Plain, now_ms).is_err() {
                return Response::Error(crate::command::Fault::FULL.0.into_owned());
            }
        }
        Response::Done
    }

    fn put(&mut self, db: u16, key: &[u8], record: Record, now_ms: u64) -> Response {
        let (expire, form) = (record.expire(), record.form);
        let hash = self.store.hash(key);
        let value = NewValue::Shared(record.value);
        match self.store.set(db, hash, key, value, expire, form, now_ms) {
            Ok(_) => Response::Done,
            Err(_) => Response::Error(crate::command::Fault::FULL.0.into_owned()),
        }
    }

    fn keys(&self, db: u16, pattern: &[u8], now_ms: u64) -> Response {
        let mut keys = Vec::new();
        let all = pattern == b"*";
        let mut cursor = 0;
        loop {
            cursor = self.store.scan(db, cursor, 1024, now_ms, |key, _| {
                if all || logic::glob::matches(pattern, key, false) {
                    keys.push(key.into());
                }
            });
            if cursor == 0 {
                break;
            }
        }
        // A table that splits between steps may give a key twice, but none splits here.
        Response::Keys { cursor: 0, keys }
    }

    fn scan(&self, scan: &Scan, now_ms: u64) -> Response {
        let mut keys = Vec::new();
        let wrong_kind = scan.kind.as_ref().is_some_and(|kind| **kind != *b"string");
        let cursor = self.store.scan(scan.db, scan.cursor, scan.count, now_ms, |key, _| {
            let matches = |pattern: &[u8]| logic::glob::matches(pattern, key, false);
            if !wrong_kind && scan.pattern.as_deref().is_none_or(matches) {
                keys.push(key.into());
            }
        });
        Response::Keys { cursor, keys }
    }

    /// Keys of database 0 in a slot: at most `most` of them, and their number as the cursor. The
    /// number is maintained with several shards; with one, the keys are counted.
    fn slot_keys(&self, slot: u16, most: usize, now_ms: u64) -> Response {
        let maintained = self.store.config().slot_stats;
        if maintained && (most == 0 || self.store.slot_count(slot) == 0) {
            return Response::Keys { cursor: self.store.slot_count(slot).into(), keys: Vec::new() };
        }
        let (mut keys, mut found, mut cursor) = (Vec::new(), 0, 0);
        loop {
            cursor = self.store.scan(0, cursor, 1024, now_ms, |key, _| {
                if logic::slot::key_slot(key) == slot {
                    found += 1;
                    if keys.len() < most {
                        keys.push(key.into());
                    }
                }
            });
            if cursor == 0 || (most > 0 && keys.len() >= most) {
                break;
            }
        }
        Response::Keys { cursor: found, keys }
    }
}
