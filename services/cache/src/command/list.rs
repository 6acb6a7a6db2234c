//! List commands.
//!
//! Invariant: a value that moves to another list is put there before it leaves its own, so that nothing is lost where
//! there is no room. [`take_first`] and [`transfer`] are what forms that wait have to try again.

use std::ops::Range;

use logic::object::{
    List,
    list::{End, Side},
    packed::Digits,
};
use wire::resp::reply;

use super::{Cx, Fault, Outcome, zset::keys_and_count};
use crate::events::LIST;

type Result<T = Outcome> = std::result::Result<T, Fault>;

/// `LEFT` or `RIGHT`, in lower case.
pub(super) fn end(word: &[u8]) -> Option<End> {
    match word {
        b"left" => Some(End::Front),
        b"right" => Some(End::Back),
        _ => None,
    }
}

pub(super) fn end_at(cx: &Cx<'_>, index: usize) -> Result<End> {
    end(&cx.arg(index).to_ascii_lowercase()).ok_or(Fault::SYNTAX)
}

/// What pushing to an end is called.
fn pushing(to: End) -> &'static str {
    if to == End::Front { "lpush" } else { "rpush" }
}

/// What popping from an end is called.
fn popping(from: End) -> &'static str {
    if from == End::Front { "lpop" } else { "rpop" }
}

fn push(cx: &mut Cx<'_>, to: End, only_if_there: bool) -> Result {
    let (words, argc) = (cx.words(), cx.argc());
    let push = |list: &mut List, _: logic::object::Cx<'_>, _: &mut logic::object::Rng| {
        (2..argc).for_each(|at| list.push(to, words.get(at)));
        list.len()
    };
    let len =
        if only_if_there { cx.change(1, push)?.unwrap_or(0) } else { cx.change_or_make(1, push)? };
    if len > 0 {
        cx.event(LIST, pushing(to), 1);
    }
    cx.count(len as u64)
}

pub(super) fn lpush(cx: &mut Cx<'_>) -> Result {
    push(cx, End::Front, false)
}

pub(super) fn rpush(cx: &mut Cx<'_>) -> Result {
    push(cx, End::Back, false)
}

pub(super) fn lpushx(cx: &mut Cx<'_>) -> Result {
    push(cx, End::Front, true)
}

pub(super) fn rpushx(cx: &mut Cx<'_>) -> Result {
    push(cx, End::Back, true)
}

/// Takes up to `count` values of a list, in the order they leave it.
fn take(list: &mut List, from: End, count: usize) -> Vec<Vec<u8>> {
    (0..count.min(list.len())).map_while(|_| list.pop(from)).collect()
}

/// Takes up to `count` values of the first of these keys that there is; which one that was.
pub(super) fn take_first(
    cx: &mut Cx<'_>,
    keys: Range<usize>,
    from: End,
    count: usize,
) -> Result<Option<(usize, Vec<Vec<u8>>)>> {
    for index in keys {
        match cx.change(index, |list: &mut List, _, _| take(list, from, count)) {
            Ok(Some(taken)) => {
                cx.taken(!taken.is_empty(), LIST, popping(from), index);
                return Ok(Some((index, taken)));
            }
            Err(fault) if !cx.is_waking() => return Err(fault),
            _ => {}
        }
    }
    Ok(None)
}

fn reply_values(out: &mut Vec<u8>, values: &[Vec<u8>]) {
    reply::array(out, values.len());
    for value in values {
        reply::bulk(out, value);
    }
}

fn pop(cx: &mut Cx<'_>, from: End) -> Result {
    match cx.argc() {
        2 => match take_first(cx, 1..2, from, 1)? {
            Some((_, taken)) => cx.bulk(taken.first().map_or(&[], Vec::as_slice)),
            None => cx.null(),
        },
        3 => {
            let count = cx.integer_from(2, 0, "ERR value is out of range, must be positive")?;
            let count = usize::try_from(count).unwrap_or(usize::MAX);
            let Some((_, taken)) = take_first(cx, 1..2, from, count)? else {
                return cx.null_array();
            };
            reply_values(cx.inline(), &taken);
            Ok(Outcome::Done)
        }
        _ => Err(Fault::arity(cx.row.name)),
    }
}

pub(super) fn lpop(cx: &mut Cx<'_>) -> Result {
    pop(cx, End::Front)
}

pub(super) fn rpop(cx: &mut Cx<'_>) -> Result {
    pop(cx, End::Back)
}

pub(super) fn lmpop(cx: &mut Cx<'_>) -> Result {
    let (keys, from, count) = keys_and_count(cx, 1, end)?;
    match take_first(cx, keys, from, count)? {
        Some((key, taken)) => reply_taken(cx, key, &taken),
        None => cx.null_array(),
    }
}

/// Replies with a key and what was taken there.
pub(super) fn reply_taken(cx: &mut Cx<'_>, key: usize, taken: &[Vec<u8>]) -> Result {
    let key = cx.arg(key);
    let out = cx.inline();
    reply::array(out, 2);
    reply::bulk(out, key);
    reply_values(out, taken);
    Ok(Outcome::Done)
}

pub(super) fn llen(cx: &mut Cx<'_>) -> Result {
    let len = cx.collection::<List>(1)?.map_or(0, |reading| reading.value.len());
    cx.count(len as u64)
}

pub(super) fn lindex(cx: &mut Cx<'_>) -> Result {
    let index = cx.integer(2);
    if let Some(reading) = cx.collection::<List>(1)?
        && let Some(value) = reading.value.get(index?)
    {
        reply::bulk(reading.out.inline_mut(), value.text(&mut Digits::new()));
        return Ok(Outcome::Done);
    }
    cx.null()
}

pub(super) fn lrange(cx: &mut Cx<'_>) -> Result {
    let (start, stop) = (cx.integer(2)?, cx.integer(3)?);
    let Some(reading) = cx.collection::<List>(1)? else { return cx.empty_array() };
    let out = reading.out.inline_mut();
    let mut digits = Digits::new();
    reply::array(out, reading.value.range_len(start, stop));
    for value in reading.value.range(start, stop) {
        reply::bulk(out, value.text(&mut digits));
    }
    Ok(Outcome::Done)
}

pub(super) fn lset(cx: &mut Cx<'_>) -> Result {
    if !cx.holds::<List>(1)? {
        return Err(Fault::NO_KEY);
    }
    let (index, value) = (cx.integer(2)?, cx.arg(3));
    match cx.change(1, |list: &mut List, _, _| list.set(index, value))? {
        Some(true) => {
            cx.event(LIST, "lset", 1);
            cx.ok()
        }
        _ => Err(Fault::text("ERR index out of range")),
    }
}

pub(super) fn linsert(cx: &mut Cx<'_>) -> Result {
    let side = match cx.arg(2).to_ascii_lowercase().as_slice() {
        b"before" => Side::Before,
        b"after" => Side::After,
        _ => return Err(Fault::SYNTAX),
    };
    let (pivot, value) = (cx.arg(3), cx.arg(4));
    let len =
        cx.change(1, |list: &mut List, _, _| list.insert(pivot, side, value).then(|| list.len()))?;
    match len {
        None => cx.int(0),
        Some(None) => cx.int(-1),
        Some(Some(len)) => {
            cx.event(LIST, "linsert", 1);
            cx.count(len as u64)
        }
    }
}

pub(super) fn lrem(cx: &mut Cx<'_>) -> Result {
    let (count, value) = (cx.integer(2)?, cx.arg(3));
    let gone = cx.change(1, |list: &mut List, _, _| list.remove(value, count))?;
    cx.taken(gone.is_some_and(|gone| gone > 0), LIST, "lrem", 1);
    cx.count(gone.unwrap_or(0) as u64)
}

pub(super) fn ltrim(cx: &mut Cx<'_>) -> Result {
    let (start, stop) = (cx.integer(2)?, cx.integer(3)?);
    let trimmed = cx.change(1, |list: &mut List, _, _| list.trim(start, stop))?;
    cx.taken(trimmed.is_some(), LIST, "ltrim", 1);
    cx.ok()
}

pub(super) fn lpos(cx: &mut Cx<'_>) -> Result {
    let (mut rank, mut count, mut maxlen) = (1, None, 0);
    let mut at = 3;
    while at < cx.argc() {
        let more = at + 1 < cx.argc();
        if more && cx.is(at, "RANK") {
            rank = cx.integer(at + 1)?;
            if rank == 0 {
                return Err(Fault::text(
                    "ERR RANK can't be zero: use 1 to start from the first match, 2 from the second ... or use negative to start from the end of the list",
                ));
            }
        } else if more && cx.is(at, "COUNT") {
            count = Some(cx.integer_from(at + 1, 0, "ERR COUNT can't be negative")?);
        } else if more && cx.is(at, "MAXLEN") {
            maxlen = cx.integer_from(at + 1, 0, "ERR MAXLEN can't be negative")?;
        } else {
            return Err(Fault::SYNTAX);
        }
        at += 2;
    }
    let size = |value: i64| usize::try_from(value).unwrap_or(usize::MAX);
    let value = cx.arg(2);
    let found = cx.collection::<List>(1)?.map_or_else(Vec::new, |reading| {
        reading.value.positions(value, rank, size(count.unwrap_or(1)), size(maxlen))
    });
    match (count, found.first()) {
        (None, None) => cx.null(),
        (None, Some(&index)) => cx.count(index as u64),
        (Some(_), _) => {
            let out = cx.inline();
            reply::array(out, found.len());
            for index in found {
                reply::integer(out, i64::try_from(index).unwrap_or(i64::MAX));
            }
            Ok(Outcome::Done)
        }
    }
}

/// Moves a value from one end of the list at argument 1 to one of the list at argument 2, and gives it; `None` when
/// there is nothing to move.
pub(super) fn transfer(cx: &mut Cx<'_>, from: End, to: End) -> Result<Option<Vec<u8>>> {
    if cx.arg(1) == cx.arg(2) {
        let value = cx.change(1, |list: &mut List, _, _| list.rotate(from, to))?.flatten();
        if value.is_some() {
            cx.event(LIST, pushing(to), 1);
            cx.event(LIST, popping(from), 1);
        }
        return Ok(value);
    }
    let index = if from == End::Front { 0 } else { -1 };
    let value = match cx.view(1).map(|object| object.as_list().ok_or(Fault::WRONG_TYPE)) {
        Some(list) => list?.get(index).map(|value| value.to_vec()),
        // A string, or nothing.
        None => {
            cx.holds::<List>(1)?;
            None
        }
    };
    let Some(value) = value else { return Ok(None) };
    cx.change_or_make(2, |list: &mut List, _, _| list.push(to, &value))?;
    cx.event(LIST, pushing(to), 2);
    cx.change(1, |list: &mut List, _, _| list.pop(from))?;
    cx.taken(true, LIST, popping(from), 1);
    Ok(Some(value))
}

fn reply_moved(cx: &mut Cx<'_>, from: End, to: End) -> Result {
    match transfer(cx, from, to)? {
        Some(value) => cx.bulk(&value),
        None => cx.null(),
    }
}

pub(super) fn lmove(cx: &mut Cx<'_>) -> Result {
    let (from, to) = (end_at(cx, 3)?, end_at(cx, 4)?);
    reply_moved(cx, from, to)
}

pub(super) fn rpoplpush(cx: &mut Cx<'_>) -> Result {
    reply_moved(cx, End::Back, End::Front)
}
