//! Commands on keys of any type.

use view::{Instant, Output};
use wire::resp::{Version, reply};

use super::{Cx, Fault, Outcome, dispatch::c_string};
use crate::{
    events::{GENERIC, NEW},
    multi::{Plan, Scanning},
    work::{Response, Scan},
};

type Result = std::result::Result<Outcome, Fault>;

/// Counts the keys from argument 1 on for which `each` holds.
fn count(cx: &mut Cx<'_>, each: impl Fn(&mut Cx<'_>, usize) -> bool) -> Result {
    let mut count = 0;
    for index in 1..cx.argc() {
        count += u64::from(each(cx, index));
    }
    cx.count(count)
}

pub(super) fn del(cx: &mut Cx<'_>) -> Result {
    count(cx, |cx, index| {
        let (hash, key, now) = (cx.hash_of(index), cx.arg(index), cx.now_ms());
        let removed = cx.shard.store.remove(cx.conn.db, hash, key, now);
        if removed {
            cx.event(GENERIC, "del", index);
        }
        removed
    })
}

pub(super) fn unlink(cx: &mut Cx<'_>) -> Result {
    del(cx)
}

pub(super) fn exists(cx: &mut Cx<'_>) -> Result {
    count(cx, |cx, index| {
        let (hash, key, now) = (cx.hash_of(index), cx.arg(index), cx.now_ms());
        cx.shard.store.get_no_touch(cx.conn.db, hash, key, now).is_some()
    })
}

pub(super) fn touch(cx: &mut Cx<'_>) -> Result {
    count(cx, |cx, index| {
        let (hash, key, now) = (cx.hash_of(index), cx.arg(index), cx.now_ms());
        cx.shard.store.get(cx.conn.db, hash, key, now).is_some()
    })
}

pub(super) fn type_of(cx: &mut Cx<'_>) -> Result {
    let (hash, key, now) = (cx.hash_of(1), cx.arg(1), cx.now_ms());
    let entry = cx.shard.store.get_no_touch(cx.conn.db, hash, key, now);
    let name = entry.map_or("none", |entry| entry.value.kind().name());
    cx.simple(name)
}

/// Moves argument 1's key to argument 2; `nx`: only when nothing is there. `None`: nothing done.
fn move_key(cx: &mut Cx<'_>, nx: bool) -> std::result::Result<Option<()>, Fault> {
    let (from, to, now, db) = (cx.arg(1), cx.arg(2), cx.now_ms(), cx.conn.db);
    let (from_hash, to_hash) = (cx.hash_of(1), cx.hash_of(2));
    if cx.shard.store.peek(db, from_hash, from, now).is_none() {
        return Err(Fault::NO_KEY);
    }
    if from == to {
        return Ok((!nx).then_some(()));
    }
    if nx && cx.shard.store.peek(db, to_hash, to, now).is_some() {
        return Ok(None);
    }
    if let Some(record) = cx.shard.record(db, from_hash, from, true, now) {
        record.store(&mut cx.shard.store, db, to_hash, to, now)?;
        cx.created(2);
        cx.event(GENERIC, "rename_from", 1);
        cx.event(GENERIC, "rename_to", 2);
    }
    Ok(Some(()))
}

pub(super) fn rename(cx: &mut Cx<'_>) -> Result {
    move_key(cx, false)?;
    cx.ok()
}

pub(super) fn renamenx(cx: &mut Cx<'_>) -> Result {
    let moved = move_key(cx, true)?.is_some();
    cx.int(moved.into())
}

/// What COPY's options say.
pub(crate) struct CopyOptions {
    pub(crate) db: u16,
    pub(crate) replace: bool,
}

pub(crate) fn copy_options(cx: &Cx<'_>) -> std::result::Result<CopyOptions, Fault> {
    let mut options = CopyOptions { db: cx.conn.db, replace: false };
    let mut at = 3;
    while at < cx.argc() {
        if cx.is(at, "REPLACE") {
            options.replace = true;
        } else if cx.is(at, "DB") && at + 1 < cx.argc() {
            at += 1;
            options.db = cx.database(at)?;
        } else {
            return Err(Fault::SYNTAX);
        }
        at += 1;
    }
    Ok(options)
}

pub(super) fn copy(cx: &mut Cx<'_>) -> Result {
    let options = copy_options(cx)?;
    let (from, to, now, db) = (cx.arg(1), cx.arg(2), cx.now_ms(), cx.conn.db);
    if options.db == db && from == to {
        return Err(Fault::text("ERR source and destination objects are the same"));
    }
    let (from_hash, to_hash) = (cx.hash_of(1), cx.hash_of(2));
    if cx.shard.store.get(db, from_hash, from, now).is_none() {
        return cx.int(0);
    }
    if !options.replace && cx.shard.store.peek(options.db, to_hash, to, now).is_some() {
        return cx.int(0);
    }
    if let Some(record) = cx.shard.record(db, from_hash, from, false, now) {
        record.store(&mut cx.shard.store, options.db, to_hash, to, now)?;
        if cx.shard.watching {
            let by = cx.conn.id;
            cx.shard.happened(options.db, to, NEW, "new", by);
            cx.shard.happened(options.db, to, GENERIC, "copy_to", by);
        }
    }
    cx.int(1)
}

pub(super) fn randomkey(cx: &mut Cx<'_>) -> Result {
    cx.gather_node(Plan::Random(cx.conn.db))
}

/// Chooses among the shards' candidates by how many keys each stands for.
pub(crate) fn reply_random(
    out: &mut Output,
    version: Version,
    now: Instant,
    responses: Vec<Response>,
) {
    let candidates: Vec<(u64, Box<[u8]>)> = responses
        .into_iter()
        .filter_map(|response| match response {
            Response::Random { len, key: Some(key) } => Some((len.max(1), key)),
            _ => None,
        })
        .collect();
    let total: u64 = candidates.iter().map(|(len, _)| len).sum();
    // The clock's low bits are random enough to choose a shard; the store chose the key.
    let mut pick = now.mono_ns.wrapping_mul(0x9e37_79b9_7f4a_7c15) % total.max(1);
    for (len, key) in candidates {
        if pick < len {
            return reply::bulk(out.inline_mut(), &key);
        }
        pick -= len;
    }
    reply::null(out.inline_mut(), version);
}

pub(super) fn keys(cx: &mut Cx<'_>) -> Result {
    cx.gather_node(Plan::Keys(cx.conn.db, cx.arg(1).into()))
}

/// An array of keys.
pub(crate) fn reply_keys(out: &mut Output, keys: Vec<Box<[u8]>>) {
    let out = out.inline_mut();
    reply::array(out, keys.len());
    for key in keys {
        reply::bulk(out, &key);
    }
}

/// Work done per SCAN unless COUNT says otherwise.
pub(super) const SCAN_COUNT: i64 = 10;
/// Most work one SCAN may ask for in one turn.
pub(crate) const SCAN_COUNT_MAX: usize = 10_000;

pub(super) fn scan(cx: &mut Cx<'_>) -> Result {
    let cursor = cursor(cx.arg(1)).ok_or(Fault::text("ERR invalid cursor"))?;
    let (mut count, mut pattern, mut kind) = (SCAN_COUNT, None, None);
    let mut at = 2;
    while at < cx.argc() {
        if at + 1 >= cx.argc() {
            return Err(Fault::SYNTAX);
        }
        if cx.is(at, "COUNT") {
            count = cx.integer(at + 1)?;
            if count < 1 {
                return Err(Fault::SYNTAX);
            }
        } else if cx.is(at, "MATCH") {
            pattern = Some(cx.arg(at + 1)).filter(|pattern| *pattern != b"*").map(Into::into);
        } else if cx.is(at, "TYPE") {
            kind = Some(cx.arg(at + 1).to_ascii_lowercase().into_boxed_slice());
        } else {
            return Err(Fault::SYNTAX);
        }
        at += 2;
    }
    // A cluster node's cursor is the shard's own.
    let node = cx.is_cluster_node();
    let shards = if node { 1 } else { cx.shard.count };
    let count = usize::try_from(count).unwrap_or(SCAN_COUNT_MAX).min(SCAN_COUNT_MAX);
    let scan = Scan { db: cx.conn.db, cursor: 0, count, pattern, kind };
    cx.gather_node(Plan::Scan(Box::new(Scanning::new(cursor, shards, scan))))
}

/// A cursor is what C's `strtoul` reads whole from the text up to its first NUL: nothing is 0, and
/// a negative number counts down from 2^64.
pub(super) fn cursor(text: &[u8]) -> Option<u64> {
    let text = c_string(text, usize::MAX);
    if text.is_empty() {
        return Some(0);
    }
    let unsigned = text.strip_prefix(b"-");
    let digits = unsigned.or(text.strip_prefix(b"+")).unwrap_or(text);
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let value: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    Some(if unsigned.is_some() { value.wrapping_neg() } else { value })
}
