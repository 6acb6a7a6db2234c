//! String commands: GET and SET in all their forms, ranges, and many keys at once.

use bytes::Bytes;
use logic::store::{Expire, Form, NewValue, Value};
use wire::resp::reply;

use super::{Cx, Fault, Outcome, expire::expire_at};
use crate::events::{GENERIC, STRING};

type Result = std::result::Result<Outcome, Fault>;

pub(super) fn get(cx: &mut Cx<'_>) -> Result {
    // Looked up on fields apart, so that the value may be written to the output without a copy.
    let (hash, key, now, version) = (cx.hash_of(1), cx.arg(1), cx.now_ms(), cx.conn.version);
    let entry = if cx.conn.no_touch {
        cx.shard.store.get_no_touch(cx.conn.db, hash, key, now)
    } else {
        cx.shard.store.get(cx.conn.db, hash, key, now)
    };
    match entry {
        Some(entry) if Cx::reply_value(cx.out, entry.value) => {}
        Some(_) => return Err(Fault::WRONG_TYPE),
        None => reply::null(cx.out.inline_mut(), version),
    }
    Ok(Outcome::Done)
}

/// Stores `value` at the key of argument 1.
#[inline]
fn store(
    cx: &mut Cx<'_>,
    value: NewValue<'_>,
    expire: Expire,
    form: Form,
) -> std::result::Result<bool, Fault> {
    let (hash, key, now) = (cx.hash_of(1), cx.arg(1), cx.now_ms());
    let new = cx.shard.store.set(cx.conn.db, hash, key, value, expire, form, now)?;
    if cx.shard.watching {
        told(cx, new, expire);
    }
    Ok(new)
}

/// Tells what [`store`] did.
#[cold]
fn told(cx: &mut Cx<'_>, new: bool, expire: Expire) {
    if new {
        cx.created(1);
    }
    let name = match cx.row.name {
        name @ ("append" | "setrange") => name,
        _ => "set",
    };
    cx.event(STRING, name, 1);
    if matches!(expire, Expire::At(_)) {
        cx.event(GENERIC, "expire", 1);
    }
}

/// Whether the key of argument 1 is there, without counting a hit or a miss.
fn exists(cx: &mut Cx<'_>) -> bool {
    let (hash, key, now) = (cx.hash_of(1), cx.arg(1), cx.now_ms());
    cx.shard.store.peek(cx.conn.db, hash, key, now).is_some()
}

/// The condition of SET.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Only {
    Always,
    IfMissing,
    IfThere,
}

/// What SET and GETEX say about the expiry.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Time {
    Unsaid,
    Keep,
    Persist,
    /// The argument with the number, whether it counts seconds, whether it is a date.
    At {
        arg: usize,
        seconds: bool,
        date: bool,
    },
}

struct Options {
    only: Only,
    get: bool,
    time: Time,
}

/// Options of SET (from argument 3) and of GETEX (from argument 2).
fn options(cx: &Cx<'_>, first: usize, is_set: bool) -> std::result::Result<Options, Fault> {
    let mut options = Options { only: Only::Always, get: false, time: Time::Unsaid };
    let mut at = first;
    while at < cx.argc() {
        let word = cx.arg(at);
        let is = |name: &[u8]| word.eq_ignore_ascii_case(name);
        let unsaid = options.time == Time::Unsaid;
        if is_set && is(b"NX") && options.only != Only::IfThere {
            options.only = Only::IfMissing;
        } else if is_set && is(b"XX") && options.only != Only::IfMissing {
            options.only = Only::IfThere;
        } else if is_set && is(b"GET") {
            options.get = true;
        } else if is_set && is(b"KEEPTTL") && (unsaid || options.time == Time::Keep) {
            options.time = Time::Keep;
        } else if !is_set && is(b"PERSIST") && (unsaid || options.time == Time::Persist) {
            options.time = Time::Persist;
        } else {
            at += 1;
            options.time = time(cx, word, at, options.time)?;
        }
        at += 1;
    }
    Ok(options)
}

/// EX, PX, EXAT or PXAT with its number at `arg`. Only the same word may come twice.
fn time(cx: &Cx<'_>, word: &[u8], arg: usize, before: Time) -> std::result::Result<Time, Fault> {
    let (seconds, date) = match word {
        _ if arg >= cx.argc() => return Err(Fault::SYNTAX),
        _ if word.eq_ignore_ascii_case(b"EX") => (true, false),
        _ if word.eq_ignore_ascii_case(b"PX") => (false, false),
        _ if word.eq_ignore_ascii_case(b"EXAT") => (true, true),
        _ if word.eq_ignore_ascii_case(b"PXAT") => (false, true),
        _ => return Err(Fault::SYNTAX),
    };
    match before {
        Time::Unsaid => {}
        Time::At { seconds: s, date: d, .. } if s == seconds && d == date => {}
        _ => return Err(Fault::SYNTAX),
    }
    Ok(Time::At { arg, seconds, date })
}

pub(super) fn set(cx: &mut Cx<'_>) -> Result {
    if cx.argc() == 3 {
        store(cx, cx.value(2), Expire::Clear, Form::Plain)?;
        return cx.ok();
    }
    set_with_options(cx)
}

fn set_with_options(cx: &mut Cx<'_>) -> Result {
    let options = options(cx, 3, true)?;
    let expire = match options.time {
        Time::Keep => Expire::Keep,
        Time::At { arg, seconds, date } => Expire::At(expire_at(cx, arg, seconds, date)?),
        Time::Unsaid | Time::Persist => Expire::Clear,
    };
    let found = if options.get {
        let before = cx.out.mark();
        get(cx)?;
        // The old value is the reply; a store that fails takes it back.
        let found = exists(cx);
        let stored = set_if(cx, options.only, found, expire);
        if stored.is_err() {
            cx.out.truncate(before);
        }
        stored?;
        return Ok(Outcome::Done);
    } else if options.only == Only::Always {
        false
    } else {
        exists(cx)
    };
    if set_if(cx, options.only, found, expire)? { cx.ok() } else { cx.null() }
}

fn set_if(
    cx: &mut Cx<'_>,
    only: Only,
    found: bool,
    expire: Expire,
) -> std::result::Result<bool, Fault> {
    if (only == Only::IfMissing && found) || (only == Only::IfThere && !found) {
        return Ok(false);
    }
    store(cx, cx.value(2), expire, Form::Plain)?;
    Ok(true)
}

pub(super) fn setnx(cx: &mut Cx<'_>) -> Result {
    let found = exists(cx);
    let stored = set_if(cx, Only::IfMissing, found, Expire::Clear)?;
    cx.int(stored.into())
}

pub(super) fn setex(cx: &mut Cx<'_>) -> Result {
    let at = expire_at(cx, 2, true, false)?;
    store(cx, cx.value(3), Expire::At(at), Form::Plain)?;
    cx.ok()
}

pub(super) fn psetex(cx: &mut Cx<'_>) -> Result {
    let at = expire_at(cx, 2, false, false)?;
    store(cx, cx.value(3), Expire::At(at), Form::Plain)?;
    cx.ok()
}

pub(super) fn getset(cx: &mut Cx<'_>) -> Result {
    let before = cx.out.mark();
    get(cx)?;
    if let Err(fault) = store(cx, cx.value(2), Expire::Clear, Form::Plain) {
        cx.out.truncate(before);
        return Err(fault);
    }
    Ok(Outcome::Done)
}

pub(super) fn getdel(cx: &mut Cx<'_>) -> Result {
    get(cx)?;
    let (hash, key, now) = (cx.hash_of(1), cx.arg(1), cx.now_ms());
    if cx.shard.store.remove(cx.conn.db, hash, key, now) {
        cx.event(GENERIC, "del", 1);
    }
    Ok(Outcome::Done)
}

pub(super) fn getex(cx: &mut Cx<'_>) -> Result {
    let options = options(cx, 2, false)?;
    // The type is looked at before the number.
    if cx.string(1)?.is_none() {
        return get(cx);
    }
    // The type before the time.
    cx.string(1)?;
    let expire = match options.time {
        Time::At { arg, seconds, date } => {
            Some((Expire::At(expire_at(cx, arg, seconds, date)?), date))
        }
        Time::Persist => Some((Expire::Clear, false)),
        Time::Unsaid | Time::Keep => None,
    };
    get(cx)?;
    let (hash, key, now) = (cx.hash_of(1), cx.arg(1), cx.now_ms());
    match expire {
        Some((Expire::At(at), true)) if cx.is_past(at) => {
            cx.shard.store.remove(cx.conn.db, hash, key, now);
            cx.event(GENERIC, "del", 1);
        }
        Some((expire, _)) => {
            let entry = cx.shard.store.peek(cx.conn.db, hash, key, now);
            let expires = entry.is_some_and(|entry| entry.expire_at_ms.is_some());
            cx.shard.store.set_expire(cx.conn.db, hash, key, expire, now);
            match expire {
                Expire::At(_) => cx.event(GENERIC, "expire", 1),
                _ if expires => cx.event(GENERIC, "persist", 1),
                _ => {}
            }
        }
        None => {}
    }
    Ok(Outcome::Done)
}

pub(super) fn mget(cx: &mut Cx<'_>) -> Result {
    let (version, now, db) = (cx.conn.version, cx.now_ms(), cx.conn.db);
    let keys = cx.argc() - 1;
    reply::array(cx.inline(), keys);
    for index in 1..=keys {
        let (hash, key) = (cx.hash_of(index), cx.arg(index));
        match cx.shard.store.get(db, hash, key, now) {
            Some(entry) if Cx::reply_value(cx.out, entry.value) => {}
            _ => reply::null(cx.out.inline_mut(), version),
        }
    }
    Ok(Outcome::Done)
}

/// Stores the pairs of MSET and MSETNX.
fn store_pairs(cx: &mut Cx<'_>) -> std::result::Result<(), Fault> {
    let (now, db) = (cx.now_ms(), cx.conn.db);
    for index in (1..cx.argc()).step_by(2) {
        let (hash, key, value) = (cx.hash_of(index), cx.arg(index), cx.value(index + 1));
        if cx.shard.store.set(db, hash, key, value, Expire::Clear, Form::Plain, now)? {
            cx.created(index);
        }
        cx.event(STRING, "set", index);
    }
    Ok(())
}

pub(super) fn mset(cx: &mut Cx<'_>) -> Result {
    if cx.argc().is_multiple_of(2) {
        return Err(Fault::arity(cx.row.name));
    }
    store_pairs(cx)?;
    cx.ok()
}

pub(super) fn msetnx(cx: &mut Cx<'_>) -> Result {
    if cx.argc().is_multiple_of(2) {
        return Err(Fault::arity(cx.row.name));
    }
    let (now, db) = (cx.now_ms(), cx.conn.db);
    for index in (1..cx.argc()).step_by(2) {
        let (hash, key) = (cx.hash_of(index), cx.arg(index));
        if cx.shard.store.peek(db, hash, key, now).is_some() {
            return cx.int(0);
        }
    }
    store_pairs(cx)?;
    cx.int(1)
}

/// Refuses a value that would be longer than a bulk string may be.
fn check_len(cx: &Cx<'_>, len: Option<usize>) -> std::result::Result<usize, Fault> {
    len.filter(|&len| len <= cx.shard.max_value_bytes()).ok_or(Fault::TOO_LONG)
}

/// The length of the value at argument 1, `None` when there is none.
fn value_len(cx: &mut Cx<'_>) -> std::result::Result<Option<usize>, Fault> {
    Ok(cx.string(1)?.map(|value| value.len()))
}

/// Edits the value at argument 1, which is there.
fn edit(cx: &mut Cx<'_>, edit: impl FnOnce(&mut Vec<u8>)) -> std::result::Result<(), Fault> {
    let (hash, key, now) = (cx.hash_of(1), cx.arg(1), cx.now_ms());
    cx.shard.store.modify(cx.conn.db, hash, key, now, edit)?;
    cx.event(STRING, cx.row.name, 1);
    Ok(())
}

pub(super) fn append(cx: &mut Cx<'_>) -> Result {
    let tail = cx.arg(2);
    let len = match value_len(cx)? {
        None => {
            store(cx, cx.value(2), Expire::Clear, Form::Plain)?;
            tail.len()
        }
        Some(len) => {
            let len = check_len(cx, len.checked_add(tail.len()))?;
            edit(cx, |value| value.extend_from_slice(tail))?;
            len
        }
    };
    cx.count(len as u64)
}

pub(super) fn strlen(cx: &mut Cx<'_>) -> Result {
    let len = match cx.lookup(1).map(|entry| entry.value) {
        Some(Value::Object(_)) => return Err(Fault::WRONG_TYPE),
        value => value.map_or(0, |value| value.len()),
    };
    cx.count(len as u64)
}

pub(super) fn setrange(cx: &mut Cx<'_>) -> Result {
    let offset =
        usize::try_from(cx.integer(2)?).map_err(|_| Fault::text("ERR offset is out of range"))?;
    let part = cx.arg(3);
    let before = value_len(cx)?;
    if part.is_empty() {
        return cx.count(before.unwrap_or(0) as u64);
    }
    let end = check_len(cx, offset.checked_add(part.len()))?;
    let write = |value: &mut Vec<u8>| {
        if value.len() < end {
            value.resize(end, 0);
        }
        if let Some(place) = value.get_mut(offset..end) {
            place.copy_from_slice(part);
        }
    };
    if before.is_some() {
        edit(cx, write)?;
    } else {
        let mut value = Vec::new();
        write(&mut value);
        store(cx, NewValue::Shared(Bytes::from(value)), Expire::Clear, Form::Raw)?;
    }
    cx.count(end.max(before.unwrap_or(0)) as u64)
}

pub(super) fn getrange(cx: &mut Cx<'_>) -> Result {
    let (start, end) = (cx.integer(2)?, cx.integer(3)?);
    let (hash, key, now) = (cx.hash_of(1), cx.arg(1), cx.now_ms());
    let Some(entry) = cx.shard.store.get(cx.conn.db, hash, key, now) else {
        reply::bulk(cx.out.inline_mut(), b"");
        return Ok(Outcome::Done);
    };
    if matches!(entry.value, Value::Object(_)) {
        return Err(Fault::WRONG_TYPE);
    }
    let Some((from, to)) = range(start, end, entry.value.len()) else {
        reply::bulk(cx.out.inline_mut(), b"");
        return Ok(Outcome::Done);
    };
    match entry.value {
        Value::Shared(bytes) if to - from >= view::INLINE_MAX_BYTES => {
            Cx::reply_shared(cx.out, bytes.slice(from..to));
        }
        value => {
            let part = value.as_slice().get(from..to).unwrap_or_default();
            reply::bulk(cx.out.inline_mut(), part);
        }
    }
    Ok(Outcome::Done)
}

/// Redis' inclusive, possibly negative range as an exclusive one; `None` when it is empty.
fn range(start: i64, end: i64, len: usize) -> Option<(usize, usize)> {
    let len = i64::try_from(len).unwrap_or(i64::MAX);
    if (start < 0 && end < 0 && start > end) || len == 0 {
        return None;
    }
    let from_end = |index: i64| if index < 0 { index.saturating_add(len).max(0) } else { index };
    let (start, end) = (from_end(start), from_end(end).min(len - 1));
    (start <= end).then_some((usize::try_from(start).ok()?, usize::try_from(end + 1).ok()?))
}
