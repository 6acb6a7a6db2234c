//! Hash commands on single fields.
//!
//! Invariant: a command never sees a field that is due. What changes a hash removes such fields first, what reads one
//! removes them after its reply, in both cases only so many at once; a hash that is left empty goes.
//! Next: `hash/many.rs` for commands on whole hashes, `hash/ttl.rs` for the expiry of fields.

mod many;
mod ttl;

use logic::object::{self, Hash, hash::CountError};
use logic::store::Expire;
use wire::resp::reply;

use super::{Cx, Fault, Outcome, collection::Reading, elements::reply_entry, ldouble::LongDouble};
use crate::events::HASH;
pub(super) use many::{hgetall, hkeys, hrandfield, hscan, hvals};
pub(super) use ttl::{
    hexpire, hexpireat, hexpiretime, hgetdel, hgetex, hpersist, hpexpire, hpexpireat, hpexpiretime,
    hpttl, hsetex, httl,
};

type Result = std::result::Result<Outcome, Fault>;

/// How many fields a command looks at for those that are due.
const REAP_FIELDS: usize = 256;

/// Replies from the hash at argument 1, or without one.
fn read<'a>(
    cx: &mut Cx<'a>,
    missing: impl FnOnce(&mut Cx<'a>) -> Result,
    answer: impl FnOnce(Reading<'_, Hash>) -> Result,
) -> Result {
    let now = cx.now_ms();
    let Some(reading) = cx.collection::<Hash>(1)? else { return missing(cx) };
    let has_due = reading.value.next_due_ms().is_some_and(|at| at < now);
    let outcome = answer(reading)?;
    if has_due {
        change(cx, |_, _| ())?;
    }
    Ok(outcome)
}

/// Changes the hash at argument 1, if there is one.
fn change<R>(
    cx: &mut Cx<'_>,
    change: impl FnOnce(&mut Hash, object::Cx<'_>) -> R,
) -> std::result::Result<Option<R>, Fault> {
    cx.change(1, |hash: &mut Hash, with, _| {
        hash.reap(with.now_ms, REAP_FIELDS, |_| ());
        change(hash, with)
    })
}

/// The same, with an empty hash where there is none.
fn change_or_make<R>(
    cx: &mut Cx<'_>,
    change: impl FnOnce(&mut Hash, object::Cx<'_>) -> R,
) -> std::result::Result<R, Fault> {
    cx.change_or_make(1, |hash: &mut Hash, with, _| {
        hash.reap(with.now_ms, REAP_FIELDS, |_| ());
        change(hash, with)
    })
}

/// Sets the pairs from argument 2 on; how many fields are new.
fn set_pairs(cx: &mut Cx<'_>) -> std::result::Result<u64, Fault> {
    if !cx.argc().is_multiple_of(2) {
        return Err(Fault::arity(cx.row.name));
    }
    let (words, argc) = (cx.words(), cx.argc());
    let new = change_or_make(cx, |hash, with| {
        let pairs = (2..argc).step_by(2);
        let set = |at| hash.set(words.get(at), words.get(at + 1), Expire::Clear, with);
        pairs.map(set).filter(|new| *new).count() as u64
    })?;
    cx.event(HASH, "hset", 1);
    Ok(new)
}

pub(super) fn hset(cx: &mut Cx<'_>) -> Result {
    let new = set_pairs(cx)?;
    cx.count(new)
}

pub(super) fn hmset(cx: &mut Cx<'_>) -> Result {
    set_pairs(cx)?;
    cx.ok()
}

pub(super) fn hsetnx(cx: &mut Cx<'_>) -> Result {
    let (field, value) = (cx.arg(2), cx.arg(3));
    let is_new = change_or_make(cx, |hash, with| hash.set_new(field, value, with))?;
    if is_new {
        cx.event(HASH, "hset", 1);
    }
    cx.int(is_new.into())
}

pub(super) fn hget(cx: &mut Cx<'_>) -> Result {
    let field = cx.arg(2);
    read(cx, Cx::null, |Reading { value, with, out, version }| {
        match value.get(field, with) {
            Some(value) => reply_entry(out.inline_mut(), value),
            None => reply::null(out.inline_mut(), version),
        }
        Ok(Outcome::Done)
    })
}

pub(super) fn hmget(cx: &mut Cx<'_>) -> Result {
    let (words, argc) = (cx.words(), cx.argc());
    read(
        cx,
        |cx| {
            let (version, out) = (cx.conn.version, cx.inline());
            reply::array(out, argc - 2);
            (2..argc).for_each(|_| reply::null(out, version));
            Ok(Outcome::Done)
        },
        |Reading { value, with, out, version }| {
            let out = out.inline_mut();
            reply::array(out, argc - 2);
            for index in 2..argc {
                match value.get(words.get(index), with) {
                    Some(value) => reply_entry(out, value),
                    None => reply::null(out, version),
                }
            }
            Ok(Outcome::Done)
        },
    )
}

/// Replies with a number that is 0 without a hash.
fn number(cx: &mut Cx<'_>, of: impl FnOnce(&Hash, object::Cx<'_>) -> usize) -> Result {
    read(
        cx,
        |cx| cx.int(0),
        |Reading { value, with, out, .. }| {
            let number = i64::try_from(of(value, with)).unwrap_or(i64::MAX);
            reply::integer(out.inline_mut(), number);
            Ok(Outcome::Done)
        },
    )
}

pub(super) fn hlen(cx: &mut Cx<'_>) -> Result {
    number(cx, |hash, with| hash.live_len(with.now_ms))
}

pub(super) fn hstrlen(cx: &mut Cx<'_>) -> Result {
    let field = cx.arg(2);
    number(cx, |hash, with| hash.value_len(field, with))
}

pub(super) fn hexists(cx: &mut Cx<'_>) -> Result {
    let field = cx.arg(2);
    number(cx, |hash, with| usize::from(hash.contains(field, with)))
}

pub(super) fn hdel(cx: &mut Cx<'_>) -> Result {
    let (words, argc) = (cx.words(), cx.argc());
    let removed = change(cx, |hash, with| {
        (2..argc).filter(|&index| hash.remove(words.get(index), with)).count() as u64
    })?;
    cx.taken(removed.is_some_and(|removed| removed > 0), HASH, "hdel", 1);
    cx.count(removed.unwrap_or(0))
}

pub(super) fn hincrby(cx: &mut Cx<'_>) -> Result {
    let (field, by) = (cx.arg(2), cx.integer(3)?);
    let sum = change_or_make(cx, |hash, with| hash.count(field, by, with))?;
    match sum {
        Ok(sum) => {
            cx.event(HASH, "hincrby", 1);
            cx.int(sum)
        }
        Err(CountError::NotInteger) => Err(Fault::text("ERR hash value is not an integer")),
        Err(CountError::Overflow) => Err(Fault::text("ERR increment or decrement would overflow")),
    }
}

pub(super) fn hincrbyfloat(cx: &mut Cx<'_>) -> Result {
    let field = cx.arg(2);
    let by = LongDouble::parse(cx.arg(3)).ok_or(Fault::NOT_FLOAT)?;
    if by.is_infinite() {
        return Err(Fault::text("ERR value is NaN or Infinity"));
    }
    let mut text = String::new();
    change_or_make(cx, |hash, with| {
        hash.update(field, with, |old| {
            let before = match old {
                None => LongDouble::ZERO,
                Some(value) => LongDouble::parse(&value.to_vec())
                    .ok_or(Fault::text("ERR hash value is not a float"))?,
            };
            text = before
                .add(&by)
                .and_then(|sum| sum.text())
                .ok_or(Fault::text("ERR increment would produce NaN or Infinity"))?;
            Ok::<_, Fault>(text.clone().into_bytes())
        })
    })??;
    cx.event(HASH, "hincrbyfloat", 1);
    cx.bulk(text.as_bytes())
}
