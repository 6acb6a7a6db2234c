//! ZRANGE and the older commands it took in, and ZRANGESTORE.
//!
//! All are one command with more or less said in advance: what the range is of, the direction, where the result goes.

use std::ops::Range;

use logic::object::{
    Zset,
    zset::{AddRules, LexBound, ScoreBound, limit},
};

use super::{Result, each_of, members, reply_header, reply_member, scores};
use crate::{
    command::{Cx, Fault, Outcome},
    events::ZSET,
};

#[derive(Clone, Copy, PartialEq, Eq)]
enum By {
    Rank,
    Score,
    Lex,
}

enum Bounds<'a> {
    Rank(i64, i64),
    Score(ScoreBound, ScoreBound),
    Lex(LexBound<'a>, LexBound<'a>),
}

/// What the arguments say.
struct Query<'a> {
    bounds: Bounds<'a>,
    reverse: bool,
    offset: i64,
    count: i64,
    with_scores: bool,
}

impl Query<'_> {
    fn ranks(&self, set: &Zset) -> Range<usize> {
        let ranks = match self.bounds {
            // It knows no LIMIT.
            Bounds::Rank(start, stop) => return set.by_index(start, stop, self.reverse),
            Bounds::Score(min, max) => set.by_score(min, max),
            Bounds::Lex(min, max) => set.by_lex(min, max),
        };
        limit(ranks, self.offset, self.count, self.reverse)
    }
}

/// Reads everything after the key at argument `key`. What the command's name says is not an option any more.
fn query<'a>(
    cx: &Cx<'a>,
    key: usize,
    store: bool,
    mut by: Option<By>,
    mut reverse: Option<bool>,
) -> Result<Query<'a>> {
    let (mut offset, mut count, mut with_scores) = (0, -1, false);
    let mut at = key + 3;
    while at < cx.argc() {
        if !store && cx.is(at, "WITHSCORES") {
            with_scores = true;
        } else if cx.is(at, "LIMIT") && at + 2 < cx.argc() {
            offset = cx.integer(at + 1)?;
            count = cx.integer(at + 2)?;
            at += 2;
        } else if reverse.is_none() && cx.is(at, "REV") {
            reverse = Some(true);
        } else if by.is_none() && cx.is(at, "BYLEX") {
            by = Some(By::Lex);
        } else if by.is_none() && cx.is(at, "BYSCORE") {
            by = Some(By::Score);
        } else {
            return Err(Fault::SYNTAX);
        }
        at += 1;
    }
    let (by, reverse) = (by.unwrap_or(By::Rank), reverse.unwrap_or(false));
    if count != -1 && by == By::Rank {
        return Err(Fault::text(
            "ERR syntax error, LIMIT is only supported in combination with either BYSCORE or BYLEX",
        ));
    }
    if with_scores && by == By::Lex {
        return Err(Fault::text(
            "ERR syntax error, WITHSCORES not supported in combination with BYLEX",
        ));
    }
    // Backwards a range is given from its greater end.
    let (min, max) = if reverse { (key + 2, key + 1) } else { (key + 1, key + 2) };
    let bounds = match by {
        By::Rank => Bounds::Rank(cx.integer(key + 1)?, cx.integer(key + 2)?),
        By::Score => {
            let (min, max) = scores(cx, min, max)?;
            Bounds::Score(min, max)
        }
        By::Lex => {
            let (min, max) = members(cx, min, max)?;
            Bounds::Lex(min, max)
        }
    };
    Ok(Query { bounds, reverse, offset, count, with_scores })
}

fn range(cx: &mut Cx<'_>, by: Option<By>, reverse: Option<bool>) -> Result {
    let query = query(cx, 1, false, by, reverse)?;
    let Some(reading) = cx.collection::<Zset>(1)? else { return cx.empty_array() };
    let ranks = query.ranks(reading.value);
    let (out, version) = (reading.out.inline_mut(), reading.version);
    let mut digits = logic::object::packed::Digits::new();
    reply_header(out, version, ranks.len(), query.with_scores);
    each_of(reading.value, ranks, query.reverse, |item| {
        let score = query.with_scores.then_some(item.score);
        reply_member(out, version, item.member.text(&mut digits), score);
    });
    Ok(Outcome::Done)
}

pub(in crate::command) fn zrange(cx: &mut Cx<'_>) -> Result {
    range(cx, None, None)
}

pub(in crate::command) fn zrevrange(cx: &mut Cx<'_>) -> Result {
    range(cx, Some(By::Rank), Some(true))
}

pub(in crate::command) fn zrangebyscore(cx: &mut Cx<'_>) -> Result {
    range(cx, Some(By::Score), Some(false))
}

pub(in crate::command) fn zrevrangebyscore(cx: &mut Cx<'_>) -> Result {
    range(cx, Some(By::Score), Some(true))
}

pub(in crate::command) fn zrangebylex(cx: &mut Cx<'_>) -> Result {
    range(cx, Some(By::Lex), Some(false))
}

pub(in crate::command) fn zrevrangebylex(cx: &mut Cx<'_>) -> Result {
    range(cx, Some(By::Lex), Some(true))
}

pub(in crate::command) fn zrangestore(cx: &mut Cx<'_>) -> Result {
    let query = query(cx, 2, true, None, None)?;
    let mut result = Zset::new();
    if let Some(reading) = cx.collection::<Zset>(2)? {
        let mut digits = logic::object::packed::Digits::new();
        each_of(reading.value, query.ranks(reading.value), query.reverse, |item| {
            // A score that is stored already is a number.
            let member = item.member.text(&mut digits);
            let _ = result.add(member, item.score, AddRules::default(), reading.with);
        });
    }
    let len = result.len();
    cx.put(1, result, (ZSET, "zrangestore"))?;
    cx.count(len as u64)
}
