//! The steps of multi-key commands on the shard that holds the keys.

use bytes::Bytes;
use logic::store::{Entry, Expire, Form, Full, KeyHash, NewValue, Store, Value};
use view::Instant;

use crate::{
    events::{Classes, GENERIC, NEW, STRING},
    observe::Cancel,
    pubsub::Payload,
    shard::Shard,
    work::{Op, Record, Response, Scan, Whole},
};

/// A string as refcounted bytes; `None` for a collection.
pub(crate) fn to_bytes(value: Value<'_>) -> Option<Bytes> {
    match value {
        Value::Inline(bytes) => Some(Bytes::copy_from_slice(bytes)),
        Value::Shared(bytes) => Some(bytes.clone()),
        Value::Object(_) => None,
    }
}

impl Shard {
    /// A key's record: a copy of it, or, with `take`, itself, which is not there any more then.
    pub(crate) fn record(
        &mut self,
        db: u16,
        hash: KeyHash,
        key: &[u8],
        take: bool,
        now_ms: u64,
    ) -> Option<Record> {
        if take && let Some((object, expire_at_ms)) = self.store.take_object(db, hash, key, now_ms)
        {
            return Some(Record { value: Whole::Object(object), expire_at_ms, form: Form::Plain });
        }
        let (entry, cx) = self.store.peek_object(db, hash, key, now_ms)?;
        let Entry { value, expire_at_ms, form } = entry;
        let value = match value {
            Value::Inline(bytes) => Whole::String(Bytes::copy_from_slice(bytes)),
            Value::Shared(bytes) => Whole::String(bytes.clone()),
            Value::Object(object) => Whole::Object(object.copy(cx)),
        };
        if take {
            self.store.remove(db, hash, key, now_ms);
        }
        Some(Record { value, expire_at_ms, form })
    }
}

impl Record {
    /// Writes it to a key.
    pub(crate) fn store(
        self,
        store: &mut Store,
        db: u16,
        hash: KeyHash,
        key: &[u8],
        now_ms: u64,
    ) -> Result<(), Full> {
        let expire = self.expire_at_ms.map_or(Expire::Clear, Expire::At);
        match self.value {
            Whole::String(bytes) => {
                let value = NewValue::Shared(bytes);
                store.set(db, hash, key, value, expire, self.form, now_ms)?;
            }
            Whole::Object(object) => {
                store.put_object(db, hash, key, object, expire, now_ms)?;
            }
        }
        Ok(())
    }
}

impl Shard {
    /// Runs one step.
    pub(crate) fn run_op(&mut self, op: Op, now: Instant) -> Response {
        if let Op::Applied(op, applies) = op {
            if !self.role.follows {
                return crate::remote::too_late();
            }
            let before = self.show_due_keys(applies);
            let response = self.run_op(*op, applies.time(now));
            self.hide_due_keys(before);
            return response;
        }
        if self.journal.is_some() {
            return self.run_logged(op, now);
        }
        self.run_unlogged(op, now)
    }

    /// Runs one step without logging it.
    pub(crate) fn run_unlogged(&mut self, op: Op, now: Instant) -> Response {
        let now_ms = now.unix_ms();
        match op {
            Op::Part(_, op) => self.run_unlogged(*op, now),
            Op::BeginLog(common) => {
                self.log_on(common, now);
                Response::Done
            }
            Op::Rewrite | Op::Settle | Op::EndLog | Op::Nothing => Response::Done,
            Op::Get(db, keys) => Response::Values(
                keys.iter()
                    .map(|key| {
                        let hash = self.store.hash(key);
                        self.store
                            .get(db, hash, key, now_ms)
                            .and_then(|entry| to_bytes(entry.value))
                    })
                    .collect(),
            ),
            Op::Look(touch, looks) => self.look_all(looks, touch, now_ms),
            Op::Set(db, pairs) => self.set_pairs(db, pairs, now_ms),
            Op::Remove(db, keys) => self.count(&keys, |shard, key| {
                let hash = shard.store.hash(key);
                let removed = shard.store.remove(db, hash, key, now_ms);
                shard.told(removed, db, key, GENERIC, "del");
                removed
            }),
            Op::Leave(db, key) => {
                let hash = self.store.hash(&key);
                let removed = self.store.remove(db, hash, &key, now_ms);
                self.told(removed, db, &key, GENERIC, "rename_from");
                Response::Count(removed.into())
            }
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
                Response::Record(self.record(db, hash, &key, false, now_ms))
            }
            Op::Store(db, key, record, event) => {
                let response = self.put(db, &key, record, now_ms);
                let stored = matches!(response, Response::Done);
                self.told(stored, db, &key, NEW, "new");
                self.told(stored, db, &key, GENERIC, event);
                response
            }
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
                self.invalidate_all();
                Response::Done
            }
            Op::SlotKeys { slot, most } => self.slot_keys(slot, most, now_ms),
            op @ (Op::SaveBegin | Op::SavePart { .. } | Op::SaveEnd) => self.run_save(&op, now_ms),
            other => self.run_admin(other, now),
        }
    }

    /// Ends the wait of a connection of this shard; whether it waited.
    fn unblock(&mut self, id: u64, why: Cancel) -> bool {
        let blocked = self.clients.find(id).and_then(|record| record.blocked);
        if let Some((owner, ticket)) = blocked {
            self.cancel_on(owner, ticket, why);
        }
        blocked.is_some()
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
                    if name == "requirepass" {
                        self.set_default_password(&text);
                    }
                    self.settings.put(&name, text);
                }
                self.apply_memory_settings();
                self.watch.configure(&self.settings);
                self.configure_role();
                self.look_again();
                self.apply_event_settings();
                self.apply_log_settings();
                self.apply_flow_settings();
                Response::Done
            }
            Op::ClientList(filter) => {
                let name = |id| (id != u16::MAX).then(|| self.commands.row(id).name);
                Response::Text(self.clients.list(&filter, now.unix_ms(), name))
            }
            Op::ClientKill(filter) => Response::Count(self.clients.kill(&filter)),
            Op::Admin(ask) => self.run_ask(ask, now),
            Op::ClientUnblock { id, why } => Response::Count(u64::from(self.unblock(id, why))),
            Op::Watch(keys) => {
                let watch = |(db, key): &(u16, Box<[u8]>)| self.watch_key(*db, key, now.unix_ms());
                Response::Watched(keys.iter().map(watch).collect())
            }
            Op::Unwatch(keys) => {
                keys.iter().for_each(|(db, key)| self.unwatch(*db, key));
                Response::Done
            }
            Op::Hot(most) => Response::Hot(self.hot.top(most, now)),
            Op::ResetHot => {
                self.hot.clear(now);
                Response::Done
            }
            Op::Big => Response::Big(self.store.big_keys(now.unix_ms())),
            Op::Erase(erase) if self.erasing.start(erase.clone()) => Response::Done,
            Op::Erase(_) => Response::Error(crate::command::erase::TOO_MANY.to_vec()),
            other => self.run_listening(other),
        }
    }

    /// Steps about who listens, and who tracks what.
    fn run_listening(&mut self, op: Op) -> Response {
        match op {
            Op::Publish { kind, channel, payload } => {
                let payload = match payload.len() {
                    len if len < view::INLINE_MAX_BYTES => Payload::Copy(&payload),
                    _ => Payload::Shared(&payload),
                };
                Response::Count(self.publish(kind, &channel, payload))
            }
            Op::FindClient(id) => {
                Response::Count(self.clients.place(id).map_or(0, |slot| u64::from(slot) + 1))
            }
            Op::Tracks { shard, on } => {
                self.tracking.set_other(shard, on);
                self.watch();
                Response::Done
            }
            Op::Touched { key, by } => {
                self.invalidate(&key, by);
                Response::Done
            }
            Op::TouchedAll => {
                self.invalidate_all();
                Response::Done
            }
            Op::Tell { slot, id, keys, from } => {
                self.tell_redirected(slot, id, &keys, from);
                Response::Done
            }
            Op::Broken { id, to } => {
                self.broken(id, to);
                Response::Done
            }
            Op::Topics(kind, pattern) => {
                let keys = self.pubsub.names(kind, pattern.as_deref());
                Response::Keys { cursor: 0, keys }
            }
            Op::Listeners(kind, names) => Response::Counts(
                names.iter().map(|name| self.pubsub.listeners(kind, name)).collect(),
            ),
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

    /// Tells that something has happened to a key, if it has and somebody wants to know.
    fn told(&mut self, did: bool, db: u16, key: &[u8], class: Classes, name: &str) {
        if did && self.watching {
            self.happened(db, key, class, name, 0);
        }
    }

    fn set_pairs(&mut self, db: u16, pairs: Vec<(Box<[u8]>, Bytes)>, now_ms: u64) -> Response {
        for (key, value) in pairs {
            let hash = self.store.hash(&key);
            let value = NewValue::Shared(value);
            match self.store.set(db, hash, &key, value, Expire::Clear, Form::Plain, now_ms) {
                Ok(new) => {
                    self.told(new, db, &key, NEW, "new");
                    self.told(true, db, &key, STRING, "set");
                }
                Err(_) => return Response::Error(crate::command::Fault::FULL.0.into_owned()),
            }
        }
        Response::Done
    }

    fn put(&mut self, db: u16, key: &[u8], record: Record, now_ms: u64) -> Response {
        let hash = self.store.hash(key);
        match record.store(&mut self.store, db, hash, key, now_ms) {
            Ok(()) => Response::Done,
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
        let wanted = scan.kind.as_deref();
        let cursor = self.store.scan(scan.db, scan.cursor, scan.count, now_ms, |key, kind| {
            let matches = |pattern: &[u8]| logic::glob::matches(pattern, key, false);
            let is_wanted = wanted.is_none_or(|wanted| *wanted == *kind.name().as_bytes());
            if is_wanted && scan.pattern.as_deref().is_none_or(matches) {
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
