//! Values of every type, out of their bytes.
//!
//! Invariants: a value is made only of what has been read; an element that is there twice, and a collection without
//! any, are faults. A collection gets the form that this store's limits give it, whatever it was dumped from.
//! Next: `listpack.rs` for small collections, `stream.rs` for streams.

use bytes::Bytes;

use super::{
    cursor::{Cursor, Read, Stop},
    kind,
    listpack::{self, Broken},
    stream,
};
use crate::{
    object::{
        Cx, Hash, List, Object, Set, Zset,
        hash::MAX_EXPIRE_MS,
        intset::IntSet,
        list::End,
        packed::{Digits, Entry},
        zset::{AddRules, Added, parse_score},
    },
    store::Expire,
};

const TWICE: &str = "an element that is there twice";
const BROKEN: &str = "a small collection that is not whole";
const EMPTY: &str = "a collection without elements";
const LATE: &str = "an expiry beyond all time";

/// A value by itself.
#[derive(Debug)]
pub enum Value {
    /// A string.
    String(Bytes),
    /// A collection; a hash is empty when all of its fields are due.
    Object(Object),
}

/// Reads a value of a type.
pub(super) fn load(from: &mut Cursor<'_>, kind: u8, cx: Cx<'_>) -> Read<Value> {
    let empty = from.bad(EMPTY);
    let object: Object = match kind {
        kind::STRING => {
            return Ok(Value::String(from.string()?.into_owned().into()));
        }
        kind::LIST | kind::LIST_ZIPLIST | kind::LIST_QUICKLIST | kind::LIST_QUICKLIST_2 => {
            list(from, kind, cx)?.into()
        }
        kind::SET | kind::SET_INTSET | kind::SET_LISTPACK => set(from, kind, cx)?.into(),
        kind::ZSET | kind::ZSET_2 | kind::ZSET_ZIPLIST | kind::ZSET_LISTPACK => {
            zset(from, kind, cx)?.into()
        }
        kind::HASH | kind::HASH_ZIPMAP | kind::HASH_ZIPLIST | kind::HASH_LISTPACK => {
            hash(from, kind, cx)?.into()
        }
        kind::HASH_TIMED_RC..=kind::HASH_TIMED_LISTPACK => {
            return timed_hash(from, kind, cx).map(|hash| Value::Object(hash.into()));
        }
        kind::STREAM | kind::STREAM_2 | kind::STREAM_3 => {
            Box::new(stream::load(from, kind)?).into()
        }
        _ => return Err(from.bad(super::skip::unknown(kind))),
    };
    if object.is_gone() { Err(empty) } else { Ok(Value::Object(object)) }
}

/// Gives each entry of a string that is a small collection to `each`, which says whether it will do.
fn entries(
    from: &mut Cursor<'_>,
    form: Form,
    mut each: impl FnMut(Entry<'_>) -> Result<(), &'static str>,
) -> Read<()> {
    let start = from.clone();
    let bytes = from.string()?;
    let broken = |Broken| start.bad(BROKEN);
    let mut run = |entry: Result<Entry<'_>, Broken>| {
        each(entry.map_err(broken)?).map_err(|what| start.bad(what))
    };
    match form {
        Form::Listpack => listpack::listpack(&bytes).map_err(broken)?.try_for_each(&mut run),
        Form::Ziplist => listpack::ziplist(&bytes).map_err(broken)?.try_for_each(&mut run),
        Form::Zipmap => listpack::zipmap(&bytes).map_err(broken)?.try_for_each(&mut run),
    }
}

#[derive(Clone, Copy)]
enum Form {
    Listpack,
    Ziplist,
    Zipmap,
}

/// As [`entries`], by twos; an odd one is a fault.
fn pairs(
    from: &mut Cursor<'_>,
    form: Form,
    mut each: impl FnMut(&[u8], &[u8]) -> Result<(), &'static str>,
) -> Read<()> {
    let odd = from.bad(BROKEN);
    let (mut first, mut has_first) = (Vec::new(), false);
    let mut digits = Digits::new();
    entries(from, form, |entry| {
        if !has_first {
            first.clear();
            entry.write_to(&mut first);
            has_first = true;
            return Ok(());
        }
        has_first = false;
        each(&first, entry.text(&mut digits))
    })?;
    if has_first { Err(odd) } else { Ok(()) }
}

fn list(from: &mut Cursor<'_>, kind: u8, cx: Cx<'_>) -> Read<List> {
    let mut list = List::new(cx.limits.list_max_listpack_size);
    let mut digits = Digits::new();
    let mut put = |entry: Entry<'_>| {
        list.push(End::Back, entry.text(&mut digits));
        Ok(())
    };
    if kind == kind::LIST_ZIPLIST {
        entries(from, Form::Ziplist, put)?;
        return Ok(list);
    }
    for _ in 0..from.number()? {
        match kind {
            kind::LIST => put(Entry::Str(&from.string()?)).map_err(|what| from.bad(what))?,
            kind::LIST_QUICKLIST => entries(from, Form::Ziplist, &mut put)?,
            _ => {
                let fault = from.bad("not a node of a list");
                match from.number()? {
                    1 => put(Entry::Str(&from.string()?)).map_err(|what| from.bad(what))?,
                    2 => entries(from, Form::Listpack, &mut put)?,
                    _ => return Err(fault),
                }
            }
        }
    }
    Ok(list)
}

fn set(from: &mut Cursor<'_>, kind: u8, cx: Cx<'_>) -> Read<Set> {
    let mut set = Set::new();
    let mut digits = Digits::new();
    let mut put = |entry: Entry<'_>| match set.insert(entry.text(&mut digits), cx) {
        true => Ok(()),
        false => Err(TWICE),
    };
    match kind {
        kind::SET => {
            for _ in 0..from.number()? {
                let at = from.clone();
                put(Entry::Str(&from.string()?)).map_err(|what| at.bad(what))?;
            }
        }
        kind::SET_LISTPACK => entries(from, Form::Listpack, put)?,
        _ => {
            let broken = from.bad(BROKEN);
            return Ok(Set::from_ints(IntSet::from_raw(&from.string()?).ok_or(broken)?, cx));
        }
    }
    Ok(set)
}

fn zset(from: &mut Cursor<'_>, kind: u8, cx: Cx<'_>) -> Read<Zset> {
    let mut zset = Zset::new();
    let mut put = |member: &[u8], score: Option<f64>| {
        let score = score.filter(|score| !score.is_nan()).ok_or("not a score")?;
        match zset.add(member, score, AddRules::default(), cx) {
            Ok(Added::New(_)) => Ok(()),
            _ => Err(TWICE),
        }
    };
    match kind {
        kind::ZSET_ZIPLIST | kind::ZSET_LISTPACK => {
            let form = if kind == kind::ZSET_ZIPLIST { Form::Ziplist } else { Form::Listpack };
            pairs(from, form, |member, score| put(member, parse_score(score)))?;
        }
        _ => {
            for _ in 0..from.number()? {
                let at = from.clone();
                let member = from.string()?;
                let score = if kind == kind::ZSET { from.text_double()? } else { from.double()? };
                put(&member, Some(score)).map_err(|what| at.bad(what))?;
            }
        }
    }
    Ok(zset)
}

fn hash(from: &mut Cursor<'_>, kind: u8, cx: Cx<'_>) -> Read<Hash> {
    let mut hash = Hash::new();
    let mut put = |field: &[u8], value: &[u8]| match hash.set(field, value, Expire::Clear, cx) {
        true => Ok(()),
        false => Err(TWICE),
    };
    let form = match kind {
        kind::HASH_ZIPMAP => Form::Zipmap,
        kind::HASH_ZIPLIST => Form::Ziplist,
        kind::HASH_LISTPACK => Form::Listpack,
        _ => {
            for _ in 0..from.number()? {
                let at = from.clone();
                let field = from.string()?;
                put(&field, &from.string()?).map_err(|what| at.bad(what))?;
            }
            return Ok(hash);
        }
    };
    pairs(from, form, put)?;
    Ok(hash)
}

/// A hash with fields that expire; those that are due are left out.
fn timed_hash(from: &mut Cursor<'_>, kind: u8, cx: Cx<'_>) -> Read<Hash> {
    let mut hash = Hash::new();
    let mut count = 0u64;
    let mut put = |field: &[u8], value: &[u8], at_ms: u64| {
        count += 1;
        let expire = match at_ms {
            0 => Expire::Clear,
            at_ms if at_ms > MAX_EXPIRE_MS => return Err(LATE),
            at_ms if at_ms < cx.now_ms => return Ok(()),
            at_ms => Expire::At(at_ms),
        };
        if hash.set(field, value, expire, cx) { Ok(()) } else { Err(TWICE) }
    };
    let empty = from.bad(EMPTY);
    let base = if kind >= kind::HASH_TIMED { Some(from.millis()?) } else { None };
    if matches!(kind, kind::HASH_TIMED_RC | kind::HASH_TIMED) {
        for _ in 0..from.number()? {
            let at = from.clone();
            let ttl = from.number()?;
            let at_ms = match base {
                // Relative to the earliest one, and one more, so that 0 is free for "never".
                Some(base) if ttl > 0 => base.saturating_add(ttl - 1),
                _ => ttl,
            };
            let field = from.string()?;
            put(&field, &from.string()?, at_ms).map_err(|what| at.bad(what))?;
        }
    } else {
        triples(from, put)?;
    }
    if count == 0 { Err(empty) } else { Ok(hash) }
}

/// Fields, values and times in turn of a listpack.
fn triples(
    from: &mut Cursor<'_>,
    mut put: impl FnMut(&[u8], &[u8], u64) -> Result<(), &'static str>,
) -> Read<()> {
    let odd = from.bad(BROKEN);
    let (mut field, mut value, mut turn) = (Vec::new(), Vec::new(), 0);
    entries(from, Form::Listpack, |entry| {
        turn = (turn + 1) % 3;
        match turn {
            1 | 2 => {
                let to = if turn == 1 { &mut field } else { &mut value };
                to.clear();
                entry.write_to(to);
                Ok(())
            }
            _ => {
                let at_ms = entry.as_int().and_then(|at| u64::try_from(at).ok()).ok_or(LATE)?;
                put(&field, &value, at_ms)
            }
        }
    })?;
    if turn == 0 { Ok(()) } else { Err(odd) }
}

/// As [`load`], of bytes that are all there is: what is missing is a fault too.
pub(super) fn load_whole(from: &mut Cursor<'_>, kind: u8, cx: Cx<'_>) -> Result<Value, super::Bad> {
    load(from, kind, cx).map_err(|stop| match stop {
        Stop::Bad(bad) => bad,
        Stop::Short(_) => {
            super::Bad { at: from.at() + from.rest().len() as u64, what: "ends too early" }
        }
    })
}
