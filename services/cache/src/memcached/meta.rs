//! Meta commands on the items of this shard: what a reply tells is asked for flag by flag, in the order it is told.
//!
//! An item that is stale, or ends soon, is refreshed by one client: the first that reads it is told that it has won
//! (`W`), others that somebody has (`Z`). Next: `run.rs` for what these share with the text commands.

use logic::store::{Expire, Marks, NewValue};
use view::INLINE_MAX_BYTES;
use wire::memcached::{Meta, Verb, reply};

use super::{
    ends_s,
    run::{Cx, Data, Draft, NO_MEMORY, NOT_A_NUMBER, NoDelta, Stored, end_of, push_data},
    seconds,
    stats::Counters,
};

/// Tells opaque and key again.
fn echo(out: &mut Vec<u8>, meta: &Meta<'_>) {
    for word in meta.flags {
        echo_one(out, meta, word, meta.binary);
    }
}

fn echo_one(out: &mut Vec<u8>, meta: &Meta<'_>, word: &[u8], binary: bool) {
    match word.first() {
        Some(b'O') => {
            out.push(b' ');
            out.extend_from_slice(word);
        }
        Some(b'k') => reply::key_flag(out, &meta.key, binary),
        _ => {}
    }
}

/// Seconds left.
fn time_left(out: &mut Vec<u8>, ends: Option<u64>, now_s: u64) {
    match ends {
        None => out.extend_from_slice(b" t-1"),
        // As memcached writes a difference that is negative.
        Some(ends) => {
            let left = ends.wrapping_sub(now_s) & u64::from(u32::MAX);
            reply::flag(out, b't', left);
        }
    }
}

fn asks_for(meta: &Meta<'_>, letter: u8) -> bool {
    let mut flags = meta.flags;
    flags.any(|word| word.first() == Some(&letter))
}

/// `mg`.
pub(super) fn get(cx: &mut Cx<'_>, meta: &Meta<'_>) {
    let (now_s, now_ms) = (seconds(cx.now), cx.now.unix_ms());
    let key: &[u8] = &meta.key;
    let hash = cx.shard.store.hash(key);
    let mut made = false;
    if meta.vivify.is_some() && cx.shard.store.item(hash, key, false, now_ms).is_none() {
        let marks = Marks { binary: meta.binary, ..Marks::default() };
        let value = NewValue::Copy(b"");
        made = cx.shard.make_room(cx.now)
            && cx.shard.store.set_item(hash, key, value, Expire::Clear, marks, now_ms).is_ok();
    }
    if asks_for(meta, b'c') {
        cx.cas(hash, key);
    }
    let found = cx.shard.store.item(hash, key, !meta.no_update, now_ms);
    let counters = &mut cx.shard.memcached.counters;
    let Some(item) = found else { return miss(counters, cx.out.inline_mut(), meta) };
    let mut marks = item.marks;
    let mut ends = item.expire_at_ms.map(end_of);
    let (mut won, mut new_end) = (false, None);
    let out = cx.out.inline_mut();
    head(out, meta.value.then_some(item.data().len()));
    for word in meta.flags {
        match word.first() {
            Some(b'T') => new_end = meta.ttl.map(|ttl| ends_s(ttl, cx.now)),
            Some(b'N') if made => {
                new_end = meta.vivify.map(|ttl| ends_s(ttl, cx.now));
                won = true;
            }
            Some(b'R') => {
                let limit = meta.recache.and_then(|ttl| ends_s(ttl, cx.now)).unwrap_or(0);
                won |= !marks.won && !made && ends.is_some_and(|ends| ends < limit);
            }
            Some(b's') => reply::flag(out, b's', item.data().len() as u64),
            Some(b't') => time_left(out, ends, now_s),
            Some(b'c') => reply::flag(out, b'c', marks.cas),
            Some(b'f') => reply::flag(out, b'f', u64::from(marks.flags)),
            Some(b'l') => reply::flag(out, b'l', item.idle_s),
            Some(b'h') => reply::flag(out, b'h', u64::from(marks.fetched)),
            _ => echo_one(out, meta, word, marks.binary),
        }
        ends = new_end.unwrap_or(ends);
    }
    won |= marks.stale && !marks.won;
    for (set, flag) in [(marks.won, b" Z"), (marks.stale, b" X"), (won, b" W")] {
        if set {
            out.extend_from_slice(flag);
        }
    }
    reply::end(out);
    if meta.value {
        push_data(cx.out, &item);
    }
    if meta.ttl.is_some() {
        counters.touch_cmds += 1;
        counters.touch_hits += 1;
    } else {
        counters.get_cmds += 1;
        counters.get_hits += 1;
    }
    if won {
        marks.won = true;
        marks.fetched |= !meta.no_update;
        // Without room nobody has won: the next one may.
        let _ = cx.shard.store.mark_item(hash, key, marks, now_ms);
    }
    if let Some(ends) = new_end {
        cx.set_end(hash, key, ends);
    }
}

/// The reply where nothing is found.
fn miss(counters: &mut Counters, out: &mut Vec<u8>, meta: &Meta<'_>) {
    counters.get_cmds += 1;
    counters.get_misses += 1;
    if !meta.quiet {
        out.extend_from_slice(b"EN");
        echo(out, meta);
        reply::end(out);
    }
}

/// What a reply to a hit begins with: with a value its length.
fn head(out: &mut Vec<u8>, value_len: Option<usize>) {
    match value_len {
        Some(len) => {
            out.reserve(len.min(INLINE_MAX_BYTES) + 64);
            out.extend_from_slice(b"VA ");
            reply::number(out, len as u64);
        }
        None => out.extend_from_slice(b"HD"),
    }
}

/// `ms`.
pub(super) fn store(cx: &mut Cx<'_>, meta: &Meta<'_>, verb: Verb, data: Data<'_, '_>) {
    let key: &[u8] = &meta.key;
    let hash = cx.shard.store.hash(key);
    let draft = Draft {
        verb,
        key,
        data,
        flags: meta.client_flags,
        ends_s: meta.ttl.and_then(|ttl| ends_s(ttl, cx.now)),
        cas: meta.cas.unwrap_or(0),
        stale: meta.stale && verb == Verb::Cas,
        binary: meta.binary,
    };
    let stored = cx.store(hash, &draft);
    let code = match stored {
        Stored::Yes if meta.quiet => return,
        Stored::Yes => b"HD",
        Stored::No => b"NS",
        Stored::Exists => b"EX",
        Stored::NotFound => b"NF",
        Stored::NoMemory => return reply::line(cx.out.inline_mut(), NO_MEMORY),
    };
    let cas = match stored {
        Stored::Yes if asks_for(meta, b'c') => match cx.cas(hash, key) {
            // It is gone already.
            0 => cx.shard.memcached.next_cas(),
            cas => cas,
        },
        _ => 0,
    };
    let out = cx.out.inline_mut();
    out.extend_from_slice(code);
    for word in meta.flags {
        if word.first() == Some(&b'c') {
            reply::flag(out, b'c', cas);
        } else {
            echo_one(out, meta, word, meta.binary);
        }
    }
    reply::end(out);
}

/// `md`.
pub(super) fn delete(cx: &mut Cx<'_>, meta: &Meta<'_>) {
    let now_ms = cx.now.unix_ms();
    let key: &[u8] = &meta.key;
    let hash = cx.shard.store.hash(key);
    let marks = cx.shard.store.item(hash, key, false, now_ms).map(|item| item.marks);
    let code = match marks {
        None => {
            cx.counted_delete(false);
            b"NF"
        }
        Some(marks) if meta.cas.is_some_and(|cas| cas != marks.cas) => {
            cx.counted_delete(false);
            b"EX"
        }
        Some(mut marks) if meta.stale => {
            // Whoever was told a CAS unique before knows an older item.
            (marks.stale, marks.won, marks.cas) = (true, false, 0);
            if cx.shard.store.mark_item(hash, key, marks, now_ms).is_err() {
                return reply::line(cx.out.inline_mut(), NO_MEMORY);
            }
            if let Some(ttl) = meta.ttl {
                cx.set_end(hash, key, ends_s(ttl, cx.now));
            }
            b"HD"
        }
        Some(_) => {
            cx.remove(hash, key);
            cx.counted_delete(true);
            b"HD"
        }
    };
    if meta.quiet && code == b"HD" {
        return;
    }
    let out = cx.out.inline_mut();
    out.extend_from_slice(code);
    echo(out, meta);
    reply::end(out);
}

/// `ma`.
pub(super) fn delta(cx: &mut Cx<'_>, meta: &Meta<'_>, down: bool) {
    let now_ms = cx.now.unix_ms();
    let key: &[u8] = &meta.key;
    let hash = cx.shard.store.hash(key);
    let (value, made) = match cx.delta(hash, key, meta.delta, down, meta.cas.unwrap_or(0)) {
        Ok(value) => (value, false),
        Err(NoDelta::NotFound) if meta.vivify.is_some() => {
            let mut digits = itoa::Buffer::new();
            let value = NewValue::Copy(digits.format(meta.initial).as_bytes());
            let marks = Marks { binary: meta.binary, ..Marks::default() };
            let stored = cx.shard.make_room(cx.now)
                && cx.shard.store.set_item(hash, key, value, Expire::Clear, marks, now_ms).is_ok();
            if !stored {
                let text = "SERVER_ERROR Out of memory allocating new item";
                return reply::line(cx.out.inline_mut(), text);
            }
            (meta.initial, true)
        }
        Err(NoDelta::NotANumber) => return reply::line(cx.out.inline_mut(), NOT_A_NUMBER),
        Err(NoDelta::NoMemory) => {
            return reply::line(cx.out.inline_mut(), "SERVER_ERROR out of memory");
        }
        Err(refusal @ (NoDelta::NotFound | NoDelta::Exists)) => {
            let missing = matches!(refusal, NoDelta::NotFound);
            if missing {
                cx.missed_delta(down);
            }
            let out = cx.out.inline_mut();
            out.extend_from_slice(if missing { b"NF" } else { b"EX" });
            echo(out, meta);
            return reply::end(out);
        }
    };
    if meta.quiet && !made {
        if let Some(ttl) = meta.ttl {
            cx.set_end(hash, key, ends_s(ttl, cx.now));
        }
        return;
    }
    counted(cx, meta, value, made);
}

/// The reply to `ma` when there is a number.
fn counted(cx: &mut Cx<'_>, meta: &Meta<'_>, value: u64, made: bool) {
    let key: &[u8] = &meta.key;
    let hash = cx.shard.store.hash(key);
    let cas = if asks_for(meta, b'c') { cx.cas(hash, key) } else { 0 };
    let item = cx.shard.store.item(hash, key, false, cx.now.unix_ms());
    let mut ends = item.and_then(|item| item.expire_at_ms).map(end_of);
    let mut new_end = None;
    let mut digits = itoa::Buffer::new();
    let digits = digits.format(value);
    let out = cx.out.inline_mut();
    head(out, meta.value.then_some(digits.len()));
    for word in meta.flags {
        match word.first() {
            Some(b'c') => reply::flag(out, b'c', cas),
            Some(b't') => time_left(out, ends, seconds(cx.now)),
            Some(b'T') => new_end = meta.ttl.map(|ttl| ends_s(ttl, cx.now)),
            Some(b'N') if made => new_end = meta.vivify.map(|ttl| ends_s(ttl, cx.now)),
            _ => echo_one(out, meta, word, meta.binary),
        }
        ends = new_end.unwrap_or(ends);
    }
    reply::end(out);
    if meta.value {
        reply::line(out, digits);
    }
    if let Some(ends) = new_end {
        cx.set_end(hash, key, ends);
    }
}

/// `me`.
pub(super) fn debug(cx: &mut Cx<'_>, meta: &Meta<'_>) {
    let (db, now_s, now_ms) = (cx.shard.store.items_db(), seconds(cx.now), cx.now.unix_ms());
    let key: &[u8] = &meta.key;
    let hash = cx.shard.store.hash(key);
    cx.shard.memcached.counters.meta_cmds += 1;
    let size = cx.shard.store.memory_usage(db, hash, key, now_ms).unwrap_or(0);
    let cas = cx.cas(hash, key);
    let out = cx.out.inline_mut();
    let Some(item) = cx.shard.store.item(hash, key, false, now_ms) else {
        return reply::line(out, "EN");
    };
    out.extend_from_slice(b"ME ");
    reply::key_text(out, key, item.marks.binary);
    let exp = item.expire_at_ms.map_or_else(
        || "-1".to_owned(),
        |at_ms| format!("{}", now_s.cast_signed() - end_of(at_ms).cast_signed()),
    );
    let fetch = if item.marks.fetched { "yes" } else { "no" };
    let la = item.idle_s;
    reply::line(out, &format!(" exp={exp} la={la} cas={cas} fetch={fetch} cls=1 size={size}"));
}
