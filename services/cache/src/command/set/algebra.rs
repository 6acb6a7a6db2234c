//! Intersections, unions and differences of sets, all on this shard.
//!
//! Invariant: all keys are looked up and their types checked, in order, before anything is computed.
//! Next: `logic::object::set` computes.

use logic::object::{
    Set,
    packed::{Digits, Entry},
    set,
};
use wire::resp::{parse_i64, reply};

use super::super::{Cx, Fault, Outcome, collection::ReadingMany, elements::reply_entry};
use super::Result;
use crate::events::SET;

#[derive(Clone, Copy)]
enum Op {
    Intersect,
    Union,
    Subtract,
}

/// Gives the members of the result to `each`; a union is made as a set first.
fn combine(op: Op, many: &ReadingMany<'_, Set>, mut each: impl FnMut(Entry<'_>)) {
    let there: Vec<&Set> = many.values.iter().copied().flatten().collect();
    match op {
        // A set without members has none in common.
        Op::Intersect if there.len() < many.values.len() => {}
        Op::Intersect => {
            set::intersect(&there, usize::MAX, many.with, each);
        }
        Op::Union => match there.as_slice() {
            [one] => one.iter().for_each(each),
            _ => set::union(&there, many.with).iter().for_each(each),
        },
        Op::Subtract => {
            if let Some(Some(first)) = many.values.first() {
                let others = there.get(1..).unwrap_or_default();
                set::difference(first, others, many.with, &mut each);
            }
        }
    }
}

fn show(cx: &mut Cx<'_>, op: Op) -> Result {
    let many = cx.collections::<Set>(1..cx.argc())?;
    let (mut count, mut members) = (0, Vec::new());
    combine(op, &many, |member| {
        reply_entry(&mut members, member);
        count += 1;
    });
    let out = many.out.inline_mut();
    reply::set(out, many.version, count);
    out.extend_from_slice(&members);
    Ok(Outcome::Done)
}

fn store(cx: &mut Cx<'_>, op: Op) -> Result {
    let many = cx.collections::<Set>(2..cx.argc())?;
    let mut result = Set::new();
    combine(op, &many, |member| {
        result.insert(member.text(&mut Digits::new()), many.with);
    });
    let len = result.len() as u64;
    cx.put(1, result, (SET, cx.row.name))?;
    cx.count(len)
}

pub(in super::super) fn sinter(cx: &mut Cx<'_>) -> Result {
    show(cx, Op::Intersect)
}

pub(in super::super) fn sunion(cx: &mut Cx<'_>) -> Result {
    show(cx, Op::Union)
}

pub(in super::super) fn sdiff(cx: &mut Cx<'_>) -> Result {
    show(cx, Op::Subtract)
}

pub(in super::super) fn sinterstore(cx: &mut Cx<'_>) -> Result {
    store(cx, Op::Intersect)
}

pub(in super::super) fn sunionstore(cx: &mut Cx<'_>) -> Result {
    store(cx, Op::Union)
}

pub(in super::super) fn sdiffstore(cx: &mut Cx<'_>) -> Result {
    store(cx, Op::Subtract)
}

pub(in super::super) fn sintercard(cx: &mut Cx<'_>) -> Result {
    let keys = parse_i64(cx.arg(1)).filter(|&keys| keys >= 1);
    let keys = keys.ok_or(Fault::text("ERR numkeys should be greater than 0"))?;
    let end = usize::try_from(keys).ok().and_then(|keys| keys.checked_add(2));
    let end = end
        .filter(|&end| end <= cx.argc())
        .ok_or(Fault::text("ERR Number of keys can't be greater than number of args"))?;
    let mut limit = 0;
    for at in (end..cx.argc()).step_by(2) {
        if !cx.is(at, "LIMIT") || at + 1 >= cx.argc() {
            return Err(Fault::SYNTAX);
        }
        limit = parse_i64(cx.arg(at + 1))
            .and_then(|limit| usize::try_from(limit).ok())
            .ok_or(Fault::text("ERR LIMIT can't be negative"))?;
    }
    let limit = if limit == 0 { usize::MAX } else { limit };
    let many = cx.collections::<Set>(2..end)?;
    let there: Option<Vec<&Set>> = many.values.iter().copied().collect();
    let count = there.map_or(0, |sets| set::intersect(&sets, limit, many.with, |_| ()));
    cx.count(count as u64)
}
