//! Sorted set commands: this file has those about single members, counts and removals.
//!
//! Invariant: scores are replied as doubles: a double in RESP3, text of 17 digits in RESP2; members with scores are
//! pairs in RESP3 and lie flat in RESP2.
//! Next: `range.rs` for ZRANGE in all its forms, `combine.rs` for unions, `pop.rs` for taking.

mod add;
mod combine;
mod pop;
mod random;
mod range;
mod scan;

use std::ops::Range;

use logic::object::{
    Zset,
    zset::{LexBound, ScoreBound, Scored},
};
use wire::resp::{Version, reply};

use super::{Cx, Fault, Outcome, float};
use crate::events::ZSET;

pub(super) use add::{Options as AddOptions, add_pairs, zadd, zincrby};
pub(super) use combine::{zdiff, zdiffstore, zinter, zintercard, zinterstore, zunion, zunionstore};
pub(super) use pop::{keys_and_count, reply_taken, take_first, which, zmpop, zpopmax, zpopmin};
pub(super) use random::zrandmember;
pub(super) use range::{
    zrange, zrangebylex, zrangebyscore, zrangestore, zrevrange, zrevrangebylex, zrevrangebyscore,
};
pub(super) use scan::zscan;

type Result<T = Outcome> = std::result::Result<T, Fault>;

/// The header of an array of members.
fn reply_header(out: &mut Vec<u8>, version: Version, members: usize, with_scores: bool) {
    let flat = with_scores && version == Version::Resp2;
    reply::array(out, if flat { members.saturating_mul(2) } else { members });
}

/// A member of such an array.
fn reply_member(out: &mut Vec<u8>, version: Version, member: &[u8], score: Option<f64>) {
    if score.is_some() && version == Version::Resp3 {
        reply::array(out, 2);
    }
    reply::bulk(out, member);
    if let Some(score) = score {
        reply::double(out, version, score);
    }
}

/// Gives the members of these ranks to `each`, from the highest on when `reverse`.
fn each_of(set: &Zset, ranks: Range<usize>, reverse: bool, each: impl FnMut(Scored<'_>)) {
    if reverse {
        set.iter(ranks).rev().for_each(each);
    } else {
        set.iter(ranks).for_each(each);
    }
}

/// Arguments `min` and `max` as the ends of a range of scores.
fn scores(cx: &Cx<'_>, min: usize, max: usize) -> Result<(ScoreBound, ScoreBound)> {
    float::bound(cx.arg(min))
        .zip(float::bound(cx.arg(max)))
        .ok_or(Fault::text("ERR min or max is not a float"))
}

/// Arguments `min` and `max` as the ends of a range of members.
fn members<'a>(cx: &Cx<'a>, min: usize, max: usize) -> Result<(LexBound<'a>, LexBound<'a>)> {
    LexBound::parse(cx.arg(min))
        .zip(LexBound::parse(cx.arg(max)))
        .ok_or(Fault::text("ERR min or max not valid string range item"))
}

pub(super) fn zcard(cx: &mut Cx<'_>) -> Result {
    let len = cx.collection::<Zset>(1)?.map_or(0, |reading| reading.value.len());
    cx.count(len as u64)
}

pub(super) fn zscore(cx: &mut Cx<'_>) -> Result {
    let member = cx.arg(2);
    let reading = cx.collection::<Zset>(1)?;
    match reading.and_then(|reading| reading.value.score(member, reading.with)) {
        Some(score) => cx.float(score),
        None => cx.null(),
    }
}

pub(super) fn zmscore(cx: &mut Cx<'_>) -> Result {
    let (words, argc, version) = (cx.words(), cx.argc(), cx.conn.version);
    let scores: Vec<Option<f64>> = match cx.collection::<Zset>(1)? {
        Some(reading) => {
            (2..argc).map(|at| reading.value.score(words.get(at), reading.with)).collect()
        }
        None => vec![None; argc - 2],
    };
    let out = cx.inline();
    reply::array(out, scores.len());
    for score in scores {
        match score {
            Some(score) => reply::double(out, version, score),
            None => reply::null(out, version),
        }
    }
    Ok(Outcome::Done)
}

fn rank(cx: &mut Cx<'_>, reverse: bool) -> Result {
    let member = cx.arg(2);
    let reading = cx.collection::<Zset>(1)?;
    match reading.and_then(|reading| reading.value.rank(member, reverse, reading.with)) {
        Some((rank, _)) => cx.count(rank as u64),
        None => cx.null(),
    }
}

pub(super) fn zrank(cx: &mut Cx<'_>) -> Result {
    rank(cx, false)
}

pub(super) fn zrevrank(cx: &mut Cx<'_>) -> Result {
    rank(cx, true)
}

fn count(cx: &mut Cx<'_>, ranks: impl FnOnce(&Zset) -> Range<usize>) -> Result {
    let len = cx.collection::<Zset>(1)?.map_or(0, |reading| ranks(reading.value).len());
    cx.count(len as u64)
}

pub(super) fn zcount(cx: &mut Cx<'_>) -> Result {
    let (min, max) = scores(cx, 2, 3)?;
    count(cx, |set| set.by_score(min, max))
}

pub(super) fn zlexcount(cx: &mut Cx<'_>) -> Result {
    let (min, max) = members(cx, 2, 3)?;
    count(cx, |set| set.by_lex(min, max))
}

pub(super) fn zrem(cx: &mut Cx<'_>) -> Result {
    let (words, argc) = (cx.words(), cx.argc());
    let gone = cx.change(1, |set: &mut Zset, with, _| {
        (2..argc).filter(|&at| set.remove(words.get(at), with).is_some()).count()
    })?;
    cx.taken(gone.is_some_and(|gone| gone > 0), ZSET, "zrem", 1);
    cx.count(gone.unwrap_or(0) as u64)
}

fn remove(cx: &mut Cx<'_>, ranks: impl FnOnce(&Zset) -> Range<usize>) -> Result {
    let gone = cx.change(1, |set: &mut Zset, with, _| {
        let ranks = ranks(set);
        set.remove_ranks(ranks, with)
    })?;
    cx.taken(gone.is_some_and(|gone| gone > 0), ZSET, cx.row.name, 1);
    cx.count(gone.unwrap_or(0) as u64)
}

pub(super) fn zremrangebyrank(cx: &mut Cx<'_>) -> Result {
    let (start, stop) = (cx.integer(2)?, cx.integer(3)?);
    remove(cx, |set| set.by_index(start, stop, false))
}

pub(super) fn zremrangebyscore(cx: &mut Cx<'_>) -> Result {
    let (min, max) = scores(cx, 2, 3)?;
    remove(cx, |set| set.by_score(min, max))
}

pub(super) fn zremrangebylex(cx: &mut Cx<'_>) -> Result {
    let (min, max) = members(cx, 2, 3)?;
    remove(cx, |set| set.by_lex(min, max))
}
