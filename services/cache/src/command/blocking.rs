//! Commands that wait for a key to hold something: BLPOP, BRPOP, BLMOVE, BRPOPLPUSH, BLMPOP, BZPOPMIN, BZPOPMAX, BZMPOP.
//!
//! Each tries; where there is nothing, it ends with [`Cx::block`], and is run again, whole, when one of its keys was
//! written. As a part of a transaction or a script it does not wait.
//! Next: `observe.rs` for who is served when; `stream/read.rs` for XREAD and XREADGROUP.

use logic::object::{List, list::End};
use wire::resp::{parse_i64, reply};

use super::{
    Cx, Fault, Mode, Outcome, Waiting, float,
    list::{self, end, end_at},
    zset,
};
use crate::observe::Block;

type Result<T = Outcome> = std::result::Result<T, Fault>;

impl Cx<'_> {
    /// Whether the command may wait.
    pub(crate) fn may_block(&self) -> bool {
        self.conn.mode != Mode::Nested
    }

    /// Whether it is run again after it waited.
    pub(crate) fn is_waking(&self) -> bool {
        self.conn.mode == Mode::Waking
    }

    /// Waits until a key of the command was written, or the deadline.
    pub(crate) fn block(&self, deadline_ns: Option<u64>) -> Result {
        Ok(Outcome::Wait(Box::new(Waiting::Block(Block { deadline_ns, frame: None }))))
    }

    /// When a wait of so many milliseconds ends; 0 is never.
    pub(crate) fn deadline_in(&self, ms: u64) -> Option<u64> {
        (ms > 0).then(|| self.now.mono_ns.saturating_add(ms.saturating_mul(1_000_000)))
    }

    /// Nothing at all: an array, where the command does not wait.
    fn nothing(&mut self, deadline_ns: Option<u64>) -> Result {
        if self.may_block() { self.block(deadline_ns) } else { self.null_array() }
    }

    /// The deadline of a time-out in seconds at argument `index`.
    fn deadline(&self, index: usize) -> Result<Option<u64>> {
        let text = self.arg(index);
        let seconds = float::parse(text).filter(|seconds| !seconds.is_nan());
        let seconds = seconds.ok_or(Fault::text("ERR timeout is not a float or out of range"))?;
        let ms = (seconds * 1000.0).ceil();
        // 2^63, the first that does not fit, comes out negative in Redis.
        if !(0.0..9_223_372_036_854_775_808.0).contains(&ms) {
            return Err(Fault::text("ERR timeout is negative"));
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "in range")]
        let ms = ms as u64;
        if ms > i64::MAX as u64 - self.now_ms() {
            return Err(Fault::text("ERR timeout is out of range"));
        }
        Ok(self.deadline_in(ms))
    }
}

fn pop(cx: &mut Cx<'_>, from: End) -> Result {
    let last = cx.argc() - 1;
    let deadline_ns = cx.deadline(last)?;
    let Some((key, taken)) = list::take_first(cx, 1..last, from, 1)? else {
        return cx.nothing(deadline_ns);
    };
    let key = cx.arg(key);
    let out = cx.inline();
    reply::array(out, 2);
    reply::bulk(out, key);
    reply::bulk(out, taken.first().map_or(&[], Vec::as_slice));
    Ok(Outcome::Done)
}

pub(super) fn blpop(cx: &mut Cx<'_>) -> Result {
    pop(cx, End::Front)
}

pub(super) fn brpop(cx: &mut Cx<'_>) -> Result {
    pop(cx, End::Back)
}

fn transfer(cx: &mut Cx<'_>, from: End, to: End, deadline_ns: Option<u64>) -> Result {
    if cx.is_waking() && cx.holds::<List>(1).is_err() {
        return cx.block(deadline_ns);
    }
    match list::transfer(cx, from, to)? {
        Some(value) => cx.bulk(&value),
        None if cx.may_block() => cx.block(deadline_ns),
        None => cx.null(),
    }
}

pub(super) fn blmove(cx: &mut Cx<'_>) -> Result {
    let (from, to) = (end_at(cx, 3)?, end_at(cx, 4)?);
    let deadline_ns = cx.deadline(5)?;
    transfer(cx, from, to, deadline_ns)
}

pub(super) fn brpoplpush(cx: &mut Cx<'_>) -> Result {
    let deadline_ns = cx.deadline(3)?;
    transfer(cx, End::Back, End::Front, deadline_ns)
}

pub(super) fn blmpop(cx: &mut Cx<'_>) -> Result {
    let deadline_ns = cx.deadline(1)?;
    let (keys, from, count) = zset::keys_and_count(cx, 2, end)?;
    match list::take_first(cx, keys, from, count)? {
        Some((key, taken)) => list::reply_taken(cx, key, &taken),
        None => cx.nothing(deadline_ns),
    }
}

fn zpop(cx: &mut Cx<'_>, highest: bool) -> Result {
    let last = cx.argc() - 1;
    let deadline_ns = cx.deadline(last)?;
    let Some((key, taken)) = zset::take_first(cx, 1..last, highest, 1)? else {
        return cx.nothing(deadline_ns);
    };
    let (key, version) = (cx.arg(key), cx.conn.version);
    let out = cx.inline();
    reply::array(out, 3);
    reply::bulk(out, key);
    for (member, score) in taken {
        reply::bulk(out, &member);
        reply::double(out, version, score);
    }
    Ok(Outcome::Done)
}

pub(super) fn bzpopmin(cx: &mut Cx<'_>) -> Result {
    zpop(cx, false)
}

pub(super) fn bzpopmax(cx: &mut Cx<'_>) -> Result {
    zpop(cx, true)
}

pub(super) fn bzmpop(cx: &mut Cx<'_>) -> Result {
    let deadline_ns = cx.deadline(1)?;
    let (keys, highest, count) = zset::keys_and_count(cx, 2, zset::which)?;
    match zset::take_first(cx, keys, highest, count)? {
        Some((key, taken)) => zset::reply_taken(cx, key, taken),
        None => cx.nothing(deadline_ns),
    }
}

/// A time-out in milliseconds: BLOCK of XREAD.
pub(super) fn milliseconds(text: &[u8]) -> Result<u64> {
    let value =
        parse_i64(text).ok_or(Fault::text("ERR timeout is not an integer or out of range"))?;
    u64::try_from(value).map_err(|_| Fault::text("ERR timeout is negative"))
}
