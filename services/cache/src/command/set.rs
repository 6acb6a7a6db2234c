//! Set commands.
//!
//! Next: `set/algebra.rs` for intersections, unions and differences.

mod algebra;

use logic::object::{Set, packed::Entry};
use wire::resp::{parse_i64, reply};

use super::{
    Cx, Fault, Outcome,
    collection::Reading,
    elements::{
        Scan, check_room, has_room, picks, random_count, reply_entry, reply_scan, scan_cursor,
    },
};
use crate::events::{GENERIC, SET};
pub(super) use algebra::{sdiff, sdiffstore, sinter, sintercard, sinterstore, sunion, sunionstore};

type Result = std::result::Result<Outcome, Fault>;

pub(super) fn sadd(cx: &mut Cx<'_>) -> Result {
    let (words, argc) = (cx.words(), cx.argc());
    let new = cx.change_or_make(1, |set: &mut Set, with, _| {
        (2..argc).filter(|&index| set.insert(words.get(index), with)).count() as u64
    })?;
    if new > 0 {
        cx.event(SET, "sadd", 1);
    }
    cx.count(new)
}

pub(super) fn srem(cx: &mut Cx<'_>) -> Result {
    let (words, argc) = (cx.words(), cx.argc());
    let removed = cx.change(1, |set: &mut Set, with, _| {
        (2..argc).filter(|&index| set.remove(words.get(index), with)).count() as u64
    })?;
    cx.taken(removed.is_some_and(|removed| removed > 0), SET, "srem", 1);
    cx.count(removed.unwrap_or(0))
}

pub(super) fn smove(cx: &mut Cx<'_>) -> Result {
    let member = cx.arg(3);
    if !cx.holds::<Set>(1)? {
        return cx.int(0);
    }
    cx.holds::<Set>(2)?;
    let (hash, key, now, db) = (cx.hash_of(1), cx.arg(1), cx.now_ms(), cx.conn.db);
    let entry = cx.shard.store.peek_object(db, hash, key, now);
    let found = entry.is_some_and(|(entry, with)| match entry.value {
        logic::store::Value::Object(object) => {
            object.as_set().is_some_and(|set| set.contains(member, with))
        }
        _ => false,
    });
    if !found || cx.arg(1) == cx.arg(2) {
        return cx.int(found.into());
    }
    // First into the one set: when there is no room for it, nothing has changed.
    let added = cx.change_or_make(2, |set: &mut Set, with, _| set.insert(member, with))?;
    cx.change(1, |set: &mut Set, with, _| set.remove(member, with))?;
    cx.taken(true, SET, "srem", 1);
    if added {
        cx.event(SET, "sadd", 2);
    }
    cx.int(1)
}

pub(super) fn sismember(cx: &mut Cx<'_>) -> Result {
    let member = cx.arg(2);
    let found = match cx.collection::<Set>(1)? {
        Some(reading) => reading.value.contains(member, reading.with),
        None => false,
    };
    cx.int(found.into())
}

pub(super) fn smismember(cx: &mut Cx<'_>) -> Result {
    let (words, argc) = (cx.words(), cx.argc());
    let found: Vec<bool> = match cx.collection::<Set>(1)? {
        Some(reading) => {
            let has = |index| reading.value.contains(words.get(index), reading.with);
            (2..argc).map(has).collect()
        }
        None => vec![false; argc - 2],
    };
    let out = cx.inline();
    reply::array(out, found.len());
    found.into_iter().for_each(|found| reply::integer(out, found.into()));
    Ok(Outcome::Done)
}

pub(super) fn scard(cx: &mut Cx<'_>) -> Result {
    let len = cx.collection::<Set>(1)?.map_or(0, |reading| reading.value.len());
    cx.count(len as u64)
}

/// An empty set as a reply.
fn empty(cx: &mut Cx<'_>) -> Result {
    let version = cx.conn.version;
    reply::set(cx.inline(), version, 0);
    Ok(Outcome::Done)
}

/// Replies with all members of the set at argument 1.
fn members(cx: &mut Cx<'_>) -> Result {
    let Some(Reading { value, out, version, .. }) = cx.collection::<Set>(1)? else {
        return empty(cx);
    };
    let out = out.inline_mut();
    reply::set(out, version, value.len());
    value.iter().for_each(|member| reply_entry(out, member));
    Ok(Outcome::Done)
}

pub(super) fn smembers(cx: &mut Cx<'_>) -> Result {
    members(cx)
}

pub(super) fn sscan(cx: &mut Cx<'_>) -> Result {
    let cursor = scan_cursor(cx)?;
    let (words, argc) = (cx.words(), cx.argc());
    let Some(Reading { value, with, out, .. }) = cx.collection::<Set>(1)? else {
        reply_scan(cx.inline(), 0, 0, &[]);
        return Ok(Outcome::Done);
    };
    let scan = Scan::options(words, argc)?;
    let (mut count, mut elements) = (0, Vec::new());
    let next = value.scan(cursor, scan.count, with, |member| {
        if scan.wants(member) {
            reply_entry(&mut elements, member);
            count += 1;
        }
    });
    reply_scan(out.inline_mut(), next, count, &elements);
    Ok(Outcome::Done)
}

pub(super) fn srandmember(cx: &mut Cx<'_>) -> Result {
    match cx.argc() {
        2 => {}
        3 => return random_members(cx),
        _ => return Err(Fault::SYNTAX),
    }
    let mut rng = cx.shard.store.rng().fork();
    if let Some(Reading { value, out, .. }) = cx.collection::<Set>(1)?
        && let Some(member) = value.random(&mut rng)
    {
        reply_entry(out.inline_mut(), member);
        return Ok(Outcome::Done);
    }
    cx.null()
}

/// SRANDMEMBER with a count.
fn random_members(cx: &mut Cx<'_>) -> Result {
    let count = random_count(cx)?;
    let mut rng = cx.shard.store.rng().fork();
    let Some(Reading { value, out, .. }) = cx.collection::<Set>(1)? else {
        reply::array(cx.inline(), 0);
        return Ok(Outcome::Done);
    };
    let (many, distinct) = picks(count)?;
    let out = out.inline_mut();
    if distinct {
        reply::array(out, many.min(value.len()));
        value.sample(many, &mut rng, |member: Entry<'_>| reply_entry(out, member));
        return Ok(Outcome::Done);
    }
    let start = out.len();
    reply::array(out, many);
    value.random_many(many, &mut rng, |member| {
        if has_room(out.len() - start) {
            reply_entry(out, member);
        }
    });
    check_room(out.len() - start).inspect_err(|_| out.truncate(start))?;
    Ok(Outcome::Done)
}

pub(super) fn spop(cx: &mut Cx<'_>) -> Result {
    match cx.argc() {
        2 => {}
        3 => return pop_members(cx),
        _ => return Err(Fault::SYNTAX),
    }
    match cx.change(1, |set: &mut Set, _, rng| set.pop(rng))?.flatten() {
        Some(member) => {
            cx.taken(true, SET, "spop", 1);
            cx.bulk(&member)
        }
        None => cx.null(),
    }
}

/// SPOP with a count.
fn pop_members(cx: &mut Cx<'_>) -> Result {
    let count = parse_i64(cx.arg(2)).and_then(|count| usize::try_from(count).ok());
    let count = count.ok_or(Fault::text("ERR value is out of range, must be positive"))?;
    if !cx.holds::<Set>(1)? || count == 0 {
        return empty(cx);
    }
    let (hash, key, now, db) = (cx.hash_of(1), cx.arg(1), cx.now_ms(), cx.conn.db);
    let entry = cx.shard.store.peek(db, hash, key, now).map(|entry| entry.value);
    if let Some(logic::store::Value::Object(object)) = entry
        && count >= object.len()
    {
        members(cx)?;
        cx.shard.store.remove(db, hash, key, now);
        cx.event(SET, "spop", 1);
        cx.event(GENERIC, "del", 1);
        return Ok(Outcome::Done);
    }
    let popped: Option<Vec<Vec<u8>>> =
        cx.change(1, |set: &mut Set, _, rng| (0..count).map_while(|_| set.pop(rng)).collect())?;
    let (popped, version) = (popped.unwrap_or_default(), cx.conn.version);
    cx.taken(!popped.is_empty(), SET, "spop", 1);
    let out = cx.inline();
    reply::set(out, version, popped.len());
    popped.iter().for_each(|member| reply::bulk(out, member));
    Ok(Outcome::Done)
}
