//! ZADD and ZINCRBY.

use logic::object::{
    Zset,
    zset::{AddRules, Added, NotANumber},
};

use super::Result;
use crate::{
    command::{Cx, Fault},
    events::ZSET,
};

/// What ZADD's options say.
#[derive(Clone, Copy, Default)]
pub(in crate::command) struct Options {
    pub(in crate::command) rules: AddRules,
    /// Changed members count, too.
    pub(in crate::command) ch: bool,
}

pub(in crate::command) fn zadd(cx: &mut Cx<'_>) -> Result {
    add(cx, Options::default())
}

pub(in crate::command) fn zincrby(cx: &mut Cx<'_>) -> Result {
    add(cx, Options { rules: AddRules { incr: true, ..AddRules::default() }, ch: false })
}

fn add(cx: &mut Cx<'_>, mut options: Options) -> Result {
    let first = words(cx, &mut options);
    let AddRules { nx, xx, gt, lt, incr } = options.rules;
    let left = cx.argc() - first;
    if left == 0 || !left.is_multiple_of(2) {
        return Err(Fault::SYNTAX);
    }
    if nx && xx {
        return Err(Fault::text("ERR XX and NX options at the same time are not compatible"));
    }
    if (nx && (gt || lt)) || (gt && lt) {
        return Err(Fault::text(
            "ERR GT, LT, and/or NX options at the same time are not compatible",
        ));
    }
    if incr && left > 2 {
        return Err(Fault::text("ERR INCR option supports a single increment-element pair"));
    }
    // All scores before the first change: the command is done as a whole or not at all.
    let pairs = (first..cx.argc()).step_by(2);
    let pairs: Vec<(f64, usize)> =
        pairs.map(|at| Ok((cx.double(at)?, at + 1))).collect::<Result<_>>()?;
    add_pairs(cx, options, &pairs)
}

/// Reads the options; where the pairs begin.
fn words(cx: &Cx<'_>, options: &mut Options) -> usize {
    let mut at = 2;
    while at < cx.argc() {
        let rules = &mut options.rules;
        match cx.arg(at).to_ascii_lowercase().as_slice() {
            b"nx" => rules.nx = true,
            b"xx" => rules.xx = true,
            b"ch" => options.ch = true,
            b"incr" => rules.incr = true,
            b"gt" => rules.gt = true,
            b"lt" => rules.lt = true,
            _ => break,
        }
        at += 1;
    }
    at
}

/// Adds scores with the members at these arguments, and replies.
pub(in crate::command) fn add_pairs(
    cx: &mut Cx<'_>,
    options: Options,
    pairs: &[(f64, usize)],
) -> Result {
    let words = cx.words();
    let done = cx.change_or_make(1, |set: &mut Zset, with, _| {
        let (mut new, mut changed, mut last) = (0, 0, None);
        for &(score, member) in pairs {
            last = match set.add(words.get(member), score, options.rules, with)? {
                Added::New(score) => {
                    new += 1;
                    Some(score)
                }
                Added::Changed(score) => {
                    changed += 1;
                    Some(score)
                }
                Added::Same(score) => Some(score),
                Added::Refused => None,
            };
        }
        Ok((new, changed, last))
    })?;
    let (new, changed, last) =
        done.map_err(|NotANumber| Fault::text("ERR resulting score is not a number (NaN)"))?;
    if new + changed > 0 {
        cx.event(ZSET, if options.rules.incr { "zincr" } else { "zadd" }, 1);
    }
    match (options.rules.incr, last) {
        (true, Some(score)) => cx.float(score),
        (true, None) => cx.null(),
        (false, _) => cx.count(if options.ch { new + changed } else { new }),
    }
}
