//! ZRANDMEMBER.

use logic::object::{Zset, packed::Digits};
use wire::resp::reply;

use super::{Result, reply_header, reply_member};
use crate::command::{
    Cx, Fault, Outcome,
    elements::{check_room, has_room},
};

/// The most members one command gives with repetitions; Redis has no limit but its memory.
const REPEATED_MAX: u64 = 10_000_000;

pub(in crate::command) fn zrandmember(cx: &mut Cx<'_>) -> Result {
    if cx.argc() < 3 {
        return one(cx);
    }
    let count = cx.integer(2)?;
    if count == i64::MIN {
        return Err(Fault::text(
            "ERR value is out of range, value must between -9223372036854775807 and 9223372036854775807",
        ));
    }
    if cx.argc() > 4 || (cx.argc() == 4 && !cx.is(3, "WITHSCORES")) {
        return Err(Fault::SYNTAX);
    }
    let with_scores = cx.argc() == 4;
    let repeated = count < 0;
    if (with_scores && count.unsigned_abs() > i64::MAX.unsigned_abs() / 2)
        || (repeated && count.unsigned_abs() > REPEATED_MAX)
    {
        return Err(Fault::text("ERR value is out of range"));
    }
    let mut rng = cx.rng();
    let Some(reading) = cx.collection::<Zset>(1)? else { return cx.empty_array() };
    let most = usize::try_from(count.unsigned_abs()).unwrap_or(usize::MAX);
    let len = if repeated { most } else { most.min(reading.value.len()) };
    let (out, version) = (reading.out.inline_mut(), reading.version);
    let mut digits = Digits::new();
    let start = out.len();
    reply_header(out, version, len, with_scores);
    if count != 0 {
        reading.value.sample(count, &mut rng, |item| {
            let score = with_scores.then_some(item.score);
            if !repeated || has_room(out.len() - start) {
                reply_member(out, version, item.member.text(&mut digits), score);
            }
        });
    }
    if repeated {
        check_room(out.len() - start).inspect_err(|_| out.truncate(start))?;
    }
    Ok(Outcome::Done)
}

fn one(cx: &mut Cx<'_>) -> Result {
    let mut rng = cx.rng();
    if let Some(reading) = cx.collection::<Zset>(1)? {
        let out = reading.out.inline_mut();
        let mut digits = Digits::new();
        reading.value.sample(-1, &mut rng, |item| reply::bulk(out, item.member.text(&mut digits)));
        return Ok(Outcome::Done);
    }
    cx.null()
}
