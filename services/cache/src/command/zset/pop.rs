//! Taking the lowest or highest members: ZPOPMIN, ZPOPMAX, ZMPOP.
//!
//! [`take_first`] is what a form that waits has to try again.

use std::ops::Range;

use logic::object::Zset;
use wire::resp::reply;

use super::{Result, reply_header, reply_member};
use crate::{
    command::{Cx, Fault, Outcome},
    events::ZSET,
};

/// Members with their scores, in the order they were taken.
type Taken = Vec<(Vec<u8>, f64)>;

/// Takes up to `count` members of the first of these keys that there is; which one that was.
pub(in crate::command) fn take_first(
    cx: &mut Cx<'_>,
    keys: Range<usize>,
    highest: bool,
    count: usize,
) -> Result<Option<(usize, Taken)>> {
    for index in keys {
        match cx.change(index, |set: &mut Zset, with, _| set.pop(highest, count, with)) {
            Ok(Some(taken)) => {
                let name = if highest { "zpopmax" } else { "zpopmin" };
                cx.taken(!taken.is_empty(), ZSET, name, index);
                return Ok(Some((index, taken)));
            }
            Err(fault) if !cx.is_waking() => return Err(fault),
            _ => {}
        }
    }
    Ok(None)
}

fn pop(cx: &mut Cx<'_>, highest: bool) -> Result {
    if cx.argc() > 3 {
        return Err(Fault::SYNTAX);
    }
    let counted = cx.argc() == 3;
    let count = if counted {
        cx.integer_from(2, 0, "ERR value is out of range, must be positive")?
    } else {
        1
    };
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    let Some((_, taken)) = take_first(cx, 1..2, highest, count)? else { return cx.empty_array() };
    let version = cx.conn.version;
    let out = cx.inline();
    // Without a count the one member and its score lie flat in RESP3, too.
    let shape = if counted { version } else { wire::resp::Version::Resp2 };
    reply_header(out, shape, taken.len(), true);
    for (member, score) in taken {
        if counted {
            reply_member(out, version, &member, Some(score));
        } else {
            reply::bulk(out, &member);
            reply::double(out, version, score);
        }
    }
    Ok(Outcome::Done)
}

pub(in crate::command) fn zpopmin(cx: &mut Cx<'_>) -> Result {
    pop(cx, false)
}

pub(in crate::command) fn zpopmax(cx: &mut Cx<'_>) -> Result {
    pop(cx, true)
}

/// What ZMPOP says after its keys: `word` reads the one word that must be there.
pub(in crate::command) fn keys_and_count<W>(
    cx: &Cx<'_>,
    numkeys: usize,
    word: impl FnOnce(&[u8]) -> Option<W>,
) -> Result<(Range<usize>, W, usize)> {
    let count = cx.integer_from(numkeys, 1, "ERR numkeys should be greater than 0")?;
    let end = usize::try_from(count).unwrap_or(usize::MAX).saturating_add(numkeys + 1);
    if end >= cx.argc() {
        return Err(Fault::SYNTAX);
    }
    let word = word(&cx.arg(end).to_ascii_lowercase()).ok_or(Fault::SYNTAX)?;
    let most = match cx.argc() - end {
        1 => 1,
        _ if !cx.is(end + 1, "COUNT") || cx.argc() - end == 2 => return Err(Fault::SYNTAX),
        left => {
            let most = cx.integer_from(end + 2, 1, "ERR count should be greater than 0")?;
            if left > 3 {
                return Err(Fault::SYNTAX);
            }
            most
        }
    };
    Ok((numkeys + 1..end, word, usize::try_from(most).unwrap_or(usize::MAX)))
}

/// MIN or MAX, in lower case: whether it is the highest.
pub(in crate::command) fn which(word: &[u8]) -> Option<bool> {
    match word {
        b"min" => Some(false),
        b"max" => Some(true),
        _ => None,
    }
}

pub(in crate::command) fn zmpop(cx: &mut Cx<'_>) -> Result {
    let (keys, highest, count) = keys_and_count(cx, 1, which)?;
    match take_first(cx, keys, highest, count)? {
        Some((key, taken)) => reply_taken(cx, key, taken),
        None => cx.null_array(),
    }
}

/// Replies with a key and what was taken there.
pub(in crate::command) fn reply_taken(cx: &mut Cx<'_>, key: usize, taken: Taken) -> Result {
    let (key, version) = (cx.arg(key), cx.conn.version);
    let out = cx.inline();
    reply::array(out, 2);
    reply::bulk(out, key);
    reply::array(out, taken.len());
    for (member, score) in taken {
        reply::array(out, 2);
        reply::bulk(out, &member);
        reply::double(out, version, score);
    }
    Ok(Outcome::Done)
}
