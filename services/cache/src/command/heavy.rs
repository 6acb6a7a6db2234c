//! HOTKEYS and BIGKEYS: which keys are used most, and which hold most, of all shards.
//!
//! Both are always on; what Redis 8.6 measures between HOTKEYS START and STOP is sampled here all the time, in
//! commands per second. Next: `crate::hot`, `logic::store` (`big_keys`).

use logic::store::Big;
use view::Output;
use wire::resp::{Version, reply};

use super::{Cx, Fault, Outcome};
use crate::{hot::HotKey, multi::Plan, work::Response};

type Result = std::result::Result<Outcome, Fault>;

/// Keys shown unless COUNT says otherwise.
const COUNT: usize = 10;
/// As many as a shard knows of.
const COUNT_MAX: i64 = 64;

/// COUNT n, from argument `at` on.
fn count(cx: &Cx<'_>, at: usize) -> std::result::Result<usize, Fault> {
    if cx.argc() == at {
        return Ok(COUNT);
    }
    if cx.argc() != at + 2 || !cx.is(at, "COUNT") {
        return Err(Fault::SYNTAX);
    }
    let count = cx.integer(at + 1)?;
    if !(1..=COUNT_MAX).contains(&count) {
        return Err(Fault::text("ERR COUNT must be between 1 and 64"));
    }
    usize::try_from(count).map_err(|_| Fault::NOT_INTEGER)
}

const HOT_HELP: &[&str] = &[
    "[GET] [COUNT <count>]",
    "    Return the keys most commands were about lately, with estimated rates.",
    "RESET",
    "    Forget what was sampled.",
];

/// HOTKEYS [GET] [COUNT n], HOTKEYS RESET, HOTKEYS HELP.
pub(super) fn hotkeys(cx: &mut Cx<'_>) -> Result {
    if cx.argc() == 2 && cx.is(1, "RESET") {
        return cx.gather_node(Plan::ResetHot);
    }
    if cx.argc() == 2 && cx.is(1, "HELP") {
        return cx.help("HOTKEYS", HOT_HELP);
    }
    if cx.argc() >= 2 && (cx.is(1, "START") || cx.is(1, "STOP")) {
        return Err(Fault::text("ERR hot keys are sampled all the time, use HOTKEYS GET"));
    }
    let first = if cx.argc() >= 2 && cx.is(1, "GET") { 2 } else { 1 };
    cx.gather_node(Plan::Hot(count(cx, first)?))
}

/// BIGKEYS [COUNT n].
pub(super) fn bigkeys(cx: &mut Cx<'_>) -> Result {
    cx.gather_node(Plan::Big(count(cx, 1)?))
}

/// The hottest keys of all shards.
pub(crate) fn reply_hot(out: &mut Output, version: Version, most: usize, responses: Vec<Response>) {
    let mut keys: Vec<HotKey> = Vec::new();
    for response in responses {
        if let Response::Hot(part) = response {
            keys.extend(part);
        }
    }
    let sure = |key: &HotKey| key.rate - key.error;
    keys.sort_by(|a, b| sure(b).total_cmp(&sure(a)));
    keys.truncate(most);
    let out = out.inline_mut();
    reply::array(out, keys.len());
    for key in keys {
        reply::map(out, version, 4);
        reply::bulk(out, b"key");
        reply::bulk(out, &key.key);
        reply::bulk(out, b"db");
        reply::integer(out, key.db.into());
        reply::bulk(out, b"commands-per-second");
        reply::integer(out, key.rate.round() as i64);
        reply::bulk(out, b"error");
        reply::integer(out, key.error.round() as i64);
    }
}

/// The biggest keys of all shards.
pub(crate) fn reply_big(out: &mut Output, version: Version, most: usize, responses: Vec<Response>) {
    let mut keys: Vec<Big> = Vec::new();
    for response in responses {
        if let Response::Big(part) = response {
            keys.extend(part);
        }
    }
    keys.sort_by_key(|key| std::cmp::Reverse(key.bytes));
    keys.truncate(most);
    let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    let out = out.inline_mut();
    reply::array(out, keys.len());
    for key in keys {
        reply::map(out, version, 5);
        reply::bulk(out, b"key");
        reply::bulk(out, &key.key);
        reply::bulk(out, b"db");
        reply::integer(out, key.db.into());
        reply::bulk(out, b"type");
        reply::bulk(out, key.kind.name().as_bytes());
        reply::bulk(out, b"bytes");
        reply::integer(out, number(key.bytes));
        reply::bulk(out, b"length");
        reply::integer(out, number(key.len));
    }
}
