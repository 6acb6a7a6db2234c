//! A key as commands: what gives its value, its expiry and those of its fields again.
//!
//! For the base that a rewrite writes, and for commands whose effect on one key is told by what the key holds. Commands
//! have at most [`PER_COMMAND`] elements. A collection is preceded by a DEL: what there is before does not matter.
//! Invariant: one key is written in one step.

use logic::object::{
    Hash, List, Object, Set, Stream, Zset, hash::FieldTtl, packed::Entry as Element,
    stream::StreamId,
};
use logic::store::{Entry, KeyHash, Store, Value};

use super::command;

/// Elements per command.
const PER_COMMAND: usize = 64;

/// Writes what a key holds; DEL when there is no key.
pub(crate) fn write(
    out: &mut Vec<u8>,
    store: &mut Store,
    db: u16,
    hash: KeyHash,
    key: &[u8],
    now_ms: u64,
) {
    let Some((entry, cx)) = store.peek_object(db, hash, key, now_ms) else {
        return command(out, &[b"DEL", key]);
    };
    let Entry { value, expire_at_ms, .. } = entry;
    let mut digits = itoa::Buffer::new();
    let at = expire_at_ms.map(|at_ms| digits.format(at_ms).as_bytes());
    let object = match value {
        Value::Inline(_) | Value::Shared(_) => {
            let text = value.as_slice();
            return match at {
                None => command(out, &[b"SET", key, text]),
                Some(at) => command(out, &[b"SET", key, text, b"PXAT", at]),
            };
        }
        Value::Object(object) => object,
    };
    command(out, &[b"DEL", key]);
    match object {
        Object::List(list) => write_list(out, key, list),
        Object::Set(set) => write_set(out, key, set),
        Object::Zset(zset) => write_zset(out, key, zset),
        Object::Hash(hash) => write_hash(out, key, hash, cx),
        Object::Stream(stream) => write_stream(out, key, stream),
    }
    if let Some(at) = at {
        command(out, &[b"PEXPIREAT", key, at]);
    }
}

/// Collects elements into commands.
struct Batch<'a> {
    out: &'a mut Vec<u8>,
    name: &'a [u8],
    key: &'a [u8],
    /// Words per element.
    step: usize,
    words: Vec<u8>,
    scratch: Vec<u8>,
    count: usize,
}

impl<'a> Batch<'a> {
    const fn new(out: &'a mut Vec<u8>, name: &'a [u8], key: &'a [u8], step: usize) -> Self {
        Self { out, name, key, step, words: Vec::new(), scratch: Vec::new(), count: 0 }
    }

    fn word(&mut self, word: &[u8]) {
        wire::resp::reply::bulk(&mut self.words, word);
        self.count += 1;
        if self.count == PER_COMMAND * self.step {
            self.flush();
        }
    }

    fn element(&mut self, element: Element<'_>) {
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.clear();
        element.write_to(&mut scratch);
        self.word(&scratch);
        self.scratch = scratch;
    }

    fn flush(&mut self) {
        if self.count > 0 {
            wire::resp::reply::array(self.out, self.count + 2);
            wire::resp::reply::bulk(self.out, self.name);
            wire::resp::reply::bulk(self.out, self.key);
            self.out.append(&mut self.words);
            self.count = 0;
        }
    }
}

fn write_list(out: &mut Vec<u8>, key: &[u8], list: &List) {
    let mut batch = Batch::new(out, b"RPUSH", key, 1);
    for element in list.iter() {
        batch.element(element);
    }
    batch.flush();
}

fn write_set(out: &mut Vec<u8>, key: &[u8], set: &Set) {
    let mut batch = Batch::new(out, b"SADD", key, 1);
    for member in set.iter() {
        batch.element(member);
    }
    batch.flush();
}

fn write_zset(out: &mut Vec<u8>, key: &[u8], zset: &Zset) {
    let mut batch = Batch::new(out, b"ZADD", key, 2);
    for scored in zset.iter(0..zset.len()) {
        batch.word(wire::resp::float::g17(scored.score).as_bytes());
        batch.element(scored.member);
    }
    batch.flush();
}

fn write_hash(out: &mut Vec<u8>, key: &[u8], hash: &Hash, cx: logic::object::Cx<'_>) {
    let mut batch = Batch::new(out, b"HSET", key, 2);
    for (field, value) in hash.iter(cx.now_ms) {
        batch.element(field);
        batch.element(value);
    }
    batch.flush();
    if hash.next_due_ms().is_none() {
        return;
    }
    for (field, _) in hash.iter(cx.now_ms) {
        let field = field.to_vec();
        if let FieldTtl::At(at_ms) = hash.ttl(&field, cx) {
            write_field_expiry(out, key, &field, at_ms);
        }
    }
}

/// Writes when a field expires.
pub(crate) fn write_field_expiry(out: &mut Vec<u8>, key: &[u8], field: &[u8], at_ms: u64) {
    let mut digits = itoa::Buffer::new();
    let at = digits.format(at_ms).as_bytes();
    command(out, &[b"HPEXPIREAT", key, at, b"FIELDS", b"1", field]);
}

fn id(id: StreamId) -> String {
    format!("{}-{}", id.ms, id.seq)
}

fn write_stream(out: &mut Vec<u8>, key: &[u8], stream: &Stream) {
    for entry in stream.range(StreamId::MIN, StreamId::MAX) {
        let id = id(entry.id());
        let mut words: Vec<&[u8]> = vec![b"XADD", key, id.as_bytes()];
        entry.fields().for_each(|(field, value)| words.extend([field, value]));
        command(out, &words);
    }
    if stream.is_empty() {
        command(out, &[b"XADD", key, b"MAXLEN", b"0", b"0-1", b"x", b"y"]);
    }
    let (last, deleted) = (id(stream.last_id()), id(stream.max_deleted_id()));
    let added = stream.entries_added().to_string();
    let (last, deleted, added) = (last.as_bytes(), deleted.as_bytes(), added.as_bytes());
    command(out, &[b"XSETID", key, last, b"ENTRIESADDED", added, b"MAXDELETEDID", deleted]);
    for group in stream.groups() {
        let at = id(group.last_id());
        let read = group.entries_read().unwrap_or(-1).to_string();
        let (at, read) = (at.as_bytes(), read.as_bytes());
        command(out, &[b"XGROUP", b"CREATE", key, group.name(), at, b"ENTRIESREAD", read]);
        for consumer in group.consumers() {
            command(out, &[b"XGROUP", b"CREATECONSUMER", key, group.name(), consumer.name()]);
        }
        for pending in group.pending(StreamId::MIN, StreamId::MAX) {
            write_pending(out, key, group.name(), &pending, group.last_id());
        }
    }
}

/// Writes whose a delivered entry is.
pub(crate) fn write_pending(
    out: &mut Vec<u8>,
    key: &[u8],
    group: &[u8],
    pending: &logic::object::stream::Pending<'_>,
    last: StreamId,
) {
    let (entry, last) = (id(pending.id), id(last));
    let (time, count) = (pending.delivered_ms.to_string(), pending.deliveries.to_string());
    command(
        out,
        &[
            b"XCLAIM",
            key,
            group,
            pending.consumer,
            b"0",
            entry.as_bytes(),
            b"TIME",
            time.as_bytes(),
            b"RETRYCOUNT",
            count.as_bytes(),
            b"FORCE",
            b"JUSTID",
            b"LASTID",
            last.as_bytes(),
        ],
    );
}
