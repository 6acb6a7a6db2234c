//! Counters: the INCR family and INCRBYFLOAT.

use logic::store::{Expire, Form, NewValue};
use wire::resp::{parse_i64, reply};

use super::{Cx, Fault, Outcome, ldouble::LongDouble};
use crate::events::STRING;

type Result = std::result::Result<Outcome, Fault>;

fn add(cx: &mut Cx<'_>, by: i64) -> Result {
    let (hash, key, now, db) = (cx.hash_of(1), cx.arg(1), cx.now_ms(), cx.conn.db);
    let before = match cx.string(1)? {
        None => 0,
        Some(value) => parse_i64(value.as_slice()).ok_or(Fault::NOT_INTEGER)?,
    };
    let after =
        before.checked_add(by).ok_or(Fault::text("ERR increment or decrement would overflow"))?;
    let mut digits = itoa::Buffer::new();
    let value = NewValue::Copy(digits.format(after).as_bytes());
    let new = cx.shard.store.set(db, hash, key, value, Expire::Keep, Form::Plain, now)?;
    if cx.shard.watching {
        told(cx, new, "incrby");
    }
    cx.int(after)
}

/// Tells what was done to the key.
#[cold]
fn told(cx: &mut Cx<'_>, new: bool, name: &str) {
    if new {
        cx.created(1);
    }
    cx.event(STRING, name, 1);
}

pub(super) fn incr(cx: &mut Cx<'_>) -> Result {
    add(cx, 1)
}

pub(super) fn decr(cx: &mut Cx<'_>) -> Result {
    add(cx, -1)
}

pub(super) fn incrby(cx: &mut Cx<'_>) -> Result {
    let by = cx.integer(2)?;
    add(cx, by)
}

pub(super) fn decrby(cx: &mut Cx<'_>) -> Result {
    let by = cx.integer(2)?.checked_neg().ok_or(Fault::text("ERR decrement would overflow"))?;
    add(cx, by)
}

pub(super) fn incrbyfloat(cx: &mut Cx<'_>) -> Result {
    let (hash, key, now, db) = (cx.hash_of(1), cx.arg(1), cx.now_ms(), cx.conn.db);
    let before = match cx.string(1)? {
        None => LongDouble::ZERO,
        Some(value) => LongDouble::parse(value.as_slice()).ok_or(Fault::NOT_FLOAT)?,
    };
    let by = LongDouble::parse(cx.arg(2)).ok_or(Fault::NOT_FLOAT)?;
    let text = before
        .add(&by)
        .and_then(|sum| sum.text())
        .ok_or(Fault::text("ERR increment would produce NaN or Infinity"))?;
    // Redis keeps the text it prints, also when that is an integer.
    let value = NewValue::Copy(text.as_bytes());
    let new = cx.shard.store.set(db, hash, key, value, Expire::Keep, Form::Text, now)?;
    if cx.shard.watching {
        told(cx, new, "incrbyfloat");
    }
    reply::bulk(cx.inline(), text.as_bytes());
    Ok(Outcome::Done)
}
