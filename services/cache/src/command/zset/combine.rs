//! Unions, intersections and differences, of sorted sets and of plain sets among them.
//!
//! Invariant: the inputs are looked up and their types checked before any option is read, as in Redis.
//! Next: `logic::object::zset::combine` for the arithmetic.

use std::ops::Range;

use logic::object::{
    Object, Zset,
    packed::Digits,
    zset::combine::{Aggregate, Source, Weighted, diff, inter, inter_len, union},
};
use logic::store::Value;

use super::{Result, reply_header, reply_member};
use crate::{
    command::{Cx, Fault, Outcome, float},
    events::ZSET,
};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Operation {
    Union,
    Inter,
    Diff,
    /// Only how many members the intersection has.
    InterLen,
}

#[derive(Default)]
struct Options {
    weights: Vec<f64>,
    aggregate: Aggregate,
    with_scores: bool,
    limit: usize,
}

fn source(object: &Object) -> Option<&dyn Source> {
    match object {
        Object::Zset(set) => Some(set),
        Object::Set(set) => Some(set),
        _ => None,
    }
}

/// The keys that argument `numkeys` counts, all of a fitting type.
fn keys(cx: &mut Cx<'_>, numkeys: usize) -> Result<Range<usize>> {
    let count = cx.integer(numkeys)?;
    if count < 1 {
        return Err(Fault::owned(format!(
            "ERR at least 1 input key is needed for '{}' command",
            cx.row.name
        )));
    }
    let first = numkeys + 1;
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    if count > cx.argc() - first {
        return Err(Fault::SYNTAX);
    }
    for index in first..first + count {
        match cx.lookup(index).map(|entry| entry.value) {
            None => {}
            Some(Value::Object(object)) if source(object).is_some() => {}
            Some(_) => return Err(Fault::WRONG_TYPE),
        }
    }
    Ok(first..first + count)
}

fn options(cx: &Cx<'_>, keys: Range<usize>, operation: Operation, store: bool) -> Result<Options> {
    let mut options = Options { weights: vec![1.0; keys.len()], ..Options::default() };
    let merges = matches!(operation, Operation::Union | Operation::Inter);
    let counts = operation == Operation::InterLen;
    let mut at = keys.end;
    while at < cx.argc() {
        let left = cx.argc() - at;
        if merges && left > keys.len() && cx.is(at, "WEIGHTS") {
            for weight in &mut options.weights {
                at += 1;
                *weight = float::parse(cx.arg(at))
                    .ok_or(Fault::text("ERR weight value is not a float"))?;
            }
        } else if merges && left >= 2 && cx.is(at, "AGGREGATE") {
            at += 1;
            options.aggregate = match cx.arg(at).to_ascii_lowercase().as_slice() {
                b"sum" => Aggregate::Sum,
                b"min" => Aggregate::Min,
                b"max" => Aggregate::Max,
                _ => return Err(Fault::SYNTAX),
            };
        } else if !store && !counts && cx.is(at, "WITHSCORES") {
            options.with_scores = true;
        } else if counts && left >= 2 && cx.is(at, "LIMIT") {
            at += 1;
            let limit = cx.integer_from(at, 0, "ERR LIMIT can't be negative")?;
            options.limit = usize::try_from(limit).unwrap_or(usize::MAX);
        } else {
            return Err(Fault::SYNTAX);
        }
        at += 1;
    }
    Ok(options)
}

/// Does it; for [`Operation::InterLen`] see [`zintercard`].
fn result(cx: &Cx<'_>, keys: Range<usize>, operation: Operation, options: &Options) -> Zset {
    let with = cx.shard.store.cx(cx.now_ms());
    let none = Zset::new();
    let sources: Vec<&dyn Source> =
        keys.map(|index| cx.view(index).and_then(source).unwrap_or(&none)).collect();
    if operation == Operation::Diff {
        return diff(&sources, with);
    }
    let weighted: Vec<Weighted<'_>> = sources
        .into_iter()
        .zip(&options.weights)
        .map(|(source, &weight)| Weighted { source, weight })
        .collect();
    match operation {
        Operation::Union => union(&weighted, options.aggregate, with),
        _ => inter(&weighted, options.aggregate, with),
    }
}

fn combine(cx: &mut Cx<'_>, operation: Operation) -> Result {
    let keys = keys(cx, 1)?;
    let options = options(cx, keys.clone(), operation, false)?;
    let result = result(cx, keys, operation, &options);
    let version = cx.conn.version;
    let out = cx.inline();
    let mut digits = Digits::new();
    reply_header(out, version, result.len(), options.with_scores);
    for item in result.iter(0..usize::MAX) {
        let score = options.with_scores.then_some(item.score);
        reply_member(out, version, item.member.text(&mut digits), score);
    }
    Ok(Outcome::Done)
}

fn combine_store(cx: &mut Cx<'_>, operation: Operation) -> Result {
    let keys = keys(cx, 2)?;
    let options = options(cx, keys.clone(), operation, true)?;
    let result = result(cx, keys, operation, &options);
    let len = result.len();
    cx.put(1, result, (ZSET, cx.row.name))?;
    cx.count(len as u64)
}

pub(in crate::command) fn zunion(cx: &mut Cx<'_>) -> Result {
    combine(cx, Operation::Union)
}

pub(in crate::command) fn zinter(cx: &mut Cx<'_>) -> Result {
    combine(cx, Operation::Inter)
}

pub(in crate::command) fn zdiff(cx: &mut Cx<'_>) -> Result {
    combine(cx, Operation::Diff)
}

pub(in crate::command) fn zunionstore(cx: &mut Cx<'_>) -> Result {
    combine_store(cx, Operation::Union)
}

pub(in crate::command) fn zinterstore(cx: &mut Cx<'_>) -> Result {
    combine_store(cx, Operation::Inter)
}

pub(in crate::command) fn zdiffstore(cx: &mut Cx<'_>) -> Result {
    combine_store(cx, Operation::Diff)
}

pub(in crate::command) fn zintercard(cx: &mut Cx<'_>) -> Result {
    let keys = keys(cx, 1)?;
    let options = options(cx, keys.clone(), Operation::InterLen, false)?;
    let with = cx.shard.store.cx(cx.now_ms());
    let none = Zset::new();
    let sources: Vec<&dyn Source> =
        keys.map(|index| cx.view(index).and_then(source).unwrap_or(&none)).collect();
    let len = inter_len(&sources, options.limit, with);
    cx.count(len as u64)
}
