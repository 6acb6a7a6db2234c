//! Text commands on the items of this shard. A request that gets here is whole, and its key is this shard's.
//!
//! Next: `meta.rs` for the meta commands, `logic::store` for what an item is.

use logic::store::{Expire, Item, KeyHash, Marks, NewValue, SHARED_MIN_BYTES};
use view::{INLINE_MAX_BYTES, Input, Instant, Output};
use wire::memcached::{Request, Store, Verb, parse_u64, reply};

use super::{ends_s, log, meta, seconds};
use crate::shard::Shard;

/// What a command has to work with.
pub(super) struct Cx<'a> {
    pub(super) shard: &'a mut Shard,
    pub(super) out: &'a mut Output,
    pub(super) now: Instant,
}

/// The data block of a storage command, with the input it lies in.
#[derive(Clone, Copy)]
pub(super) struct Data<'a, 'i> {
    pub(super) bytes: &'i [u8],
    pub(super) input: &'a Input<'i>,
}

impl<'i> Data<'_, 'i> {
    /// As a value to be stored: shared with the input when that owns its bytes.
    fn value(&self) -> NewValue<'i> {
        if self.bytes.len() >= SHARED_MIN_BYTES && self.input.is_owned() {
            return NewValue::Shared(self.input.slice(self.bytes));
        }
        NewValue::Copy(self.bytes)
    }
}

/// A value on its way into the store.
pub(super) struct Draft<'k, 'a, 'i> {
    pub(super) verb: Verb,
    pub(super) key: &'k [u8],
    pub(super) data: Data<'a, 'i>,
    pub(super) flags: u32,
    /// When it ends, unix seconds.
    pub(super) ends_s: Option<u64>,
    /// What the client knows; 0 for nothing.
    pub(super) cas: u64,
    /// A value older than what is there may come in as a stale one.
    pub(super) stale: bool,
    pub(super) binary: bool,
}

/// What came of it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Stored {
    Yes,
    No,
    Exists,
    NotFound,
    NoMemory,
}

/// Why a number was not changed.
pub(super) enum NoDelta {
    NotFound,
    NotANumber,
    Exists,
    NoMemory,
}

pub(super) const NO_MEMORY: &str = "SERVER_ERROR out of memory storing object";
pub(super) const NOT_A_NUMBER: &str =
    "CLIENT_ERROR cannot increment or decrement non-numeric value";

/// Runs one command. Those without a key, `get` among them, are the session's.
pub(super) fn request(cx: &mut Cx<'_>, request: &Request<'_>, data: Option<Data<'_, '_>>) {
    if cx.shard.journal.is_some() {
        return logged(cx, request, data);
    }
    run(cx, request, data);
}

/// The same, for the log too.
#[cold]
fn logged(cx: &mut Cx<'_>, request: &Request<'_>, data: Option<Data<'_, '_>>) {
    if let Some(text) = log::refusal(cx.shard, request) {
        return cx.say(text.is_empty(), text);
    }
    let before = cx.before(request);
    run(cx, request, data);
    cx.log_request(request, before);
}

fn run(cx: &mut Cx<'_>, request: &Request<'_>, data: Option<Data<'_, '_>>) {
    match (request, data) {
        (Request::Store(store), Some(data)) => text_store(cx, store, data),
        (Request::MetaStore { meta, verb, .. }, Some(data)) => meta::store(cx, meta, *verb, data),
        (Request::Delta { key, delta, down, noreply }, _) => {
            text_delta(cx, key, *delta, *down, *noreply);
        }
        (Request::Delete { key, noreply }, _) => delete(cx, key, *noreply),
        (Request::Touch { key, exptime, noreply }, _) => touch(cx, key, *exptime, *noreply),
        (Request::MetaGet(meta), _) => meta::get(cx, meta),
        (Request::MetaDelete(meta), _) => meta::delete(cx, meta),
        (Request::MetaDelta { meta, down }, _) => meta::delta(cx, meta, *down),
        (Request::MetaDebug(meta), _) => meta::debug(cx, meta),
        _ => debug_assert!(false, "a session runs what has no key"),
    }
}

impl Cx<'_> {
    /// A line of text, unless no reply is wanted.
    fn say(&mut self, noreply: bool, text: &str) {
        if !noreply {
            reply::line(self.out.inline_mut(), text);
        }
    }

    /// The CAS unique of an item, which has one from now on; 0 when there is no item.
    pub(super) fn cas(&mut self, hash: KeyHash, key: &[u8]) -> u64 {
        let now_ms = self.now.unix_ms();
        let Some(item) = self.shard.store.item(hash, key, false, now_ms) else { return 0 };
        let mut marks = item.marks;
        if marks.cas == 0 {
            marks.cas = self.shard.memcached.next_cas();
            if self.shard.store.mark_item(hash, key, marks, now_ms).is_err() {
                return 0;
            }
        }
        marks.cas
    }

    /// Gives an item another end; one that has come removes it.
    pub(super) fn set_end(&mut self, hash: KeyHash, key: &[u8], ends_s: Option<u64>) {
        let (db, now_ms) = (self.shard.store.items_db(), self.now.unix_ms());
        match expire(ends_s, self.now) {
            Some(expire) => {
                self.shard.store.set_expire(db, hash, key, expire, now_ms);
            }
            None => {
                self.shard.store.remove(db, hash, key, now_ms);
            }
        }
    }

    pub(super) fn remove(&mut self, hash: KeyHash, key: &[u8]) -> bool {
        let db = self.shard.store.items_db();
        self.shard.store.remove(db, hash, key, self.now.unix_ms())
    }

    /// Stores a value, or says why not.
    pub(super) fn store(&mut self, hash: KeyHash, draft: &Draft<'_, '_, '_>) -> Stored {
        let now_ms = self.now.unix_ms();
        self.shard.memcached.counters.set_cmds += 1;
        let mut marks = Marks { flags: draft.flags, binary: draft.binary, ..Marks::default() };
        let mut ends_s = draft.ends_s;
        if draft.verb != Verb::Set {
            let old = self.shard.store.item(hash, draft.key, false, now_ms);
            let old = old.map(|item| (item.marks, item.expire_at_ms));
            let old = match self.may_store(draft, old.map(|(marks, _)| marks)) {
                Ok(Accepted::New) => None,
                Ok(Accepted::Joined) => return self.join(hash, draft),
                Ok(Accepted::Stale) => old,
                Err(refusal) => return refusal,
            };
            if let Some((old, expire_at_ms)) = old {
                // The newer item's end and marks stay.
                (marks.stale, marks.won) = (true, old.won);
                ends_s = expire_at_ms.map(end_of);
            }
        }
        if !self.shard.make_room(self.now) {
            self.shard.memcached.counters.store_no_memory += 1;
            // Rather nothing than what was to be replaced.
            self.remove(hash, draft.key);
            return Stored::NoMemory;
        }
        self.shard.memcached.counters.total_items += 1;
        let Some(expire) = expire(ends_s, self.now) else {
            self.remove(hash, draft.key);
            return Stored::Yes;
        };
        let value = draft.data.value();
        match self.shard.store.set_item(hash, draft.key, value, expire, marks, now_ms) {
            Ok(()) => Stored::Yes,
            Err(_) => Stored::NoMemory,
        }
    }

    /// Whether a command other than `set` may store, given what is there.
    fn may_store(
        &mut self,
        draft: &Draft<'_, '_, '_>,
        old: Option<Marks>,
    ) -> Result<Accepted, Stored> {
        let (told, counters) = (self.shard.memcached.cas, &mut self.shard.memcached.counters);
        let Some(old) = old else {
            return match draft.verb {
                Verb::Add | Verb::Set => Ok(Accepted::New),
                Verb::Cas => {
                    counters.cas_misses += 1;
                    Err(Stored::NotFound)
                }
                _ => Err(Stored::No),
            };
        };
        let matches = draft.cas != 0 && draft.cas == old.cas;
        match draft.verb {
            Verb::Add => Err(Stored::No),
            Verb::Set | Verb::Replace => Ok(Accepted::New),
            Verb::Append | Verb::Prepend if draft.cas != 0 && !matches => Err(Stored::Exists),
            Verb::Append | Verb::Prepend => Ok(Accepted::Joined),
            Verb::Cas if matches => {
                counters.cas_hits += 1;
                Ok(Accepted::New)
            }
            Verb::Cas => {
                // An item whose CAS unique nobody was told is newer than every one that somebody was.
                let newest = if old.cas == 0 { told + 1 } else { old.cas };
                if draft.stale && draft.cas != 0 && draft.cas < newest {
                    counters.cas_hits += 1;
                    return Ok(Accepted::Stale);
                }
                counters.cas_badval += 1;
                Err(Stored::Exists)
            }
        }
    }

    /// Joins a value to what is there, whose flags and end stay.
    fn join(&mut self, hash: KeyHash, draft: &Draft<'_, '_, '_>) -> Stored {
        let now_ms = self.now.unix_ms();
        if !self.shard.make_room(self.now) {
            return Stored::No;
        }
        let Shard { store, memcached, .. } = &mut *self.shard;
        let Some(item) = store.item(hash, draft.key, false, now_ms) else {
            return Stored::No;
        };
        let (old, new) = (item.data(), draft.data.bytes);
        let marks =
            Marks { flags: item.marks.flags, binary: item.marks.binary, ..Marks::default() };
        if memcached.is_too_large(draft.key.len(), marks.flags, old.len() + new.len()) {
            return Stored::No;
        }
        let whole = match draft.verb {
            Verb::Prepend => [new, old].concat(),
            _ => [old, new].concat(),
        };
        let value = NewValue::Shared(whole.into());
        memcached.counters.total_items += 1;
        match store.set_item(hash, draft.key, value, Expire::Keep, marks, now_ms) {
            Ok(()) => Stored::Yes,
            Err(_) => Stored::No,
        }
    }

    /// Adds to a number, or takes from it; the number then. One that has become shorter is filled up with blanks.
    pub(super) fn delta(
        &mut self,
        hash: KeyHash,
        key: &[u8],
        delta: u64,
        down: bool,
        cas: u64,
    ) -> Result<u64, NoDelta> {
        let now_ms = self.now.unix_ms();
        let Shard { store, memcached, .. } = &mut *self.shard;
        let Some(item) = store.item(hash, key, false, now_ms) else {
            return Err(NoDelta::NotFound);
        };
        let (data, mut marks) = (item.data(), item.marks);
        if data.is_empty() {
            return Err(NoDelta::NotANumber);
        }
        if cas != 0 && marks.cas != cas {
            return Err(NoDelta::Exists);
        }
        let old = parse_u64(data).ok_or(NoDelta::NotANumber)?;
        let value = if down { old.saturating_sub(delta) } else { old.wrapping_add(delta) };
        let counters = &mut memcached.counters;
        *(if down { &mut counters.decr_hits } else { &mut counters.incr_hits }) += 1;
        let mut digits = itoa::Buffer::new();
        let digits = digits.format(value).as_bytes();
        let len = data.len();
        marks.cas = 0;
        if digits.len() > len {
            // Another item, with the flags of the old one.
            marks = Marks { flags: marks.flags, binary: marks.binary, ..Marks::default() };
        }
        let mut blanks = [b' '; 32];
        let long;
        let text = if let Some(text) = blanks.get_mut(..len.max(digits.len())) {
            text.iter_mut().zip(digits).for_each(|(to, digit)| *to = *digit);
            &*text
        } else {
            let mut text = digits.to_vec();
            text.resize(len, b' ');
            long = text;
            long.as_slice()
        };
        if !self.shard.make_room(self.now) {
            return Err(NoDelta::NoMemory);
        }
        let value_text = NewValue::Copy(text);
        let stored = self.shard.store.set_item(hash, key, value_text, Expire::Keep, marks, now_ms);
        stored.map(|()| value).map_err(|_| NoDelta::NoMemory)
    }
}

/// How a command may store.
enum Accepted {
    /// In place of whatever is there.
    New,
    /// With what is there.
    Joined,
    /// As a stale value of a newer item.
    Stale,
}

/// What the store is told of an end; `None` for one that has come.
pub(super) fn expire(ends_s: Option<u64>, now: Instant) -> Option<Expire> {
    match ends_s {
        None => Some(Expire::Clear),
        // A key of the store lives through the millisecond that is named.
        Some(ends_s) if ends_s > seconds(now) => Some(Expire::At(ends_s * 1000 - 1)),
        Some(_) => None,
    }
}

/// The second in which an item ends.
pub(super) const fn end_of(expire_at_ms: u64) -> u64 {
    expire_at_ms.div_ceil(1000)
}

/// Appends an item's bytes and the line end behind them, large ones by reference.
pub(super) fn push_data(out: &mut Output, item: &Item<'_>) {
    let data = item.data();
    match item.shared() {
        Some(bytes) if data.len() >= INLINE_MAX_BYTES => out.push(bytes),
        _ => out.write(data),
    }
    reply::end(out.inline_mut());
}

/// One key of a `get`: the item when it is there.
pub(super) fn get(cx: &mut Cx<'_>, hash: KeyHash, key: &[u8], cas: bool, touch: Option<i32>) {
    if cas {
        cx.cas(hash, key);
    }
    let found = cx.shard.store.item(hash, key, true, cx.now.unix_ms());
    let counters = &mut cx.shard.memcached.counters;
    if touch.is_some() {
        counters.touch_cmds += 1;
    } else {
        counters.get_cmds += 1;
    }
    let Some(item) = found else {
        *(if touch.is_some() { &mut counters.touch_misses } else { &mut counters.get_misses }) += 1;
        return;
    };
    *(if touch.is_some() { &mut counters.touch_hits } else { &mut counters.get_hits }) += 1;
    let unique = cas.then_some(item.marks.cas);
    reply::value(cx.out.inline_mut(), key, item.marks.flags, item.data().len(), unique);
    push_data(cx.out, &item);
    if let Some(exptime) = touch {
        cx.set_end(hash, key, ends_s(exptime, cx.now));
    }
    if cx.shard.journal.is_some() {
        cx.shard.log_item(hash, key, cx.now, touch.is_some());
    }
}

fn text_store(cx: &mut Cx<'_>, store: &Store<'_>, data: Data<'_, '_>) {
    let hash = cx.shard.store.hash(store.key);
    let draft = Draft {
        verb: store.verb,
        key: store.key,
        data,
        flags: store.flags,
        ends_s: ends_s(store.exptime, cx.now),
        cas: store.cas,
        stale: false,
        binary: false,
    };
    let text = match cx.store(hash, &draft) {
        Stored::Yes => "STORED",
        Stored::No => "NOT_STORED",
        Stored::Exists => "EXISTS",
        Stored::NotFound => "NOT_FOUND",
        Stored::NoMemory => NO_MEMORY,
    };
    cx.say(store.noreply, text);
}

fn text_delta(cx: &mut Cx<'_>, key: &[u8], delta: u64, down: bool, noreply: bool) {
    let hash = cx.shard.store.hash(key);
    match cx.delta(hash, key, delta, down, 0) {
        Ok(value) if !noreply => {
            reply::number(cx.out.inline_mut(), value);
            reply::end(cx.out.inline_mut());
        }
        Ok(_) => {}
        Err(NoDelta::NotFound) => {
            cx.missed_delta(down);
            cx.say(noreply, "NOT_FOUND");
        }
        Err(NoDelta::NotANumber) => cx.say(noreply, NOT_A_NUMBER),
        Err(NoDelta::Exists | NoDelta::NoMemory) => cx.say(noreply, "SERVER_ERROR out of memory"),
    }
}

impl Cx<'_> {
    pub(super) fn missed_delta(&mut self, down: bool) {
        let counters = &mut self.shard.memcached.counters;
        *(if down { &mut counters.decr_misses } else { &mut counters.incr_misses }) += 1;
    }

    pub(super) fn counted_delete(&mut self, there: bool) {
        let counters = &mut self.shard.memcached.counters;
        *(if there { &mut counters.delete_hits } else { &mut counters.delete_misses }) += 1;
    }
}

fn delete(cx: &mut Cx<'_>, key: &[u8], noreply: bool) {
    let hash = cx.shard.store.hash(key);
    let there = cx.remove(hash, key);
    cx.counted_delete(there);
    cx.say(noreply, if there { "DELETED" } else { "NOT_FOUND" });
}

fn touch(cx: &mut Cx<'_>, key: &[u8], exptime: i32, noreply: bool) {
    let hash = cx.shard.store.hash(key);
    let there = cx.shard.store.item(hash, key, true, cx.now.unix_ms()).is_some();
    let counters = &mut cx.shard.memcached.counters;
    counters.touch_cmds += 1;
    *(if there { &mut counters.touch_hits } else { &mut counters.touch_misses }) += 1;
    if there {
        cx.set_end(hash, key, ends_s(exptime, cx.now));
    }
    cx.say(noreply, if there { "TOUCHED" } else { "NOT_FOUND" });
}
