//! What is pending with consumers: XPENDING, XCLAIM, XAUTOCLAIM.

use logic::object::{
    Stream,
    stream::{AutoClaim, Claim, Claimed, DeliveredAt, Entry, GroupView, Pending, StreamId},
};
use wire::resp::{Version, parse_i64, reply};

use super::{
    Cx, Fault, Outcome, Result, bounds, has_group, id_arg, id_fault, making_consumer, no_group,
    reply_count, reply_counted, reply_entry, reply_id,
};

/// XPENDING with a range.
struct Wanted {
    start: StreamId,
    end: StreamId,
    count: usize,
    min_idle_ms: u64,
    /// The argument with the consumer's name.
    consumer: Option<usize>,
}

pub(in crate::command) fn xpending(cx: &mut Cx<'_>) -> Result {
    let argc = cx.argc();
    if argc != 3 && !(6..=9).contains(&argc) {
        return Err(Fault::SYNTAX);
    }
    let wanted = if argc == 3 { None } else { Some(wanted(cx)?) };
    let (name, now) = (cx.arg(2), cx.now_ms());
    let consumer = wanted.as_ref().and_then(|wanted| wanted.consumer).map(|at| cx.arg(at));
    if let Some(reading) = cx.collection::<Box<Stream>>(1)?
        && let Some(group) = reading.value.group(name)
    {
        let out = reading.out.inline_mut();
        match wanted {
            None => summary(out, reading.version, group),
            Some(wanted) => rows(out, group, &wanted, consumer, now),
        }
        return Ok(Outcome::Done);
    }
    Err(no_group(cx, 1, 2, ""))
}

fn wanted(cx: &Cx<'_>) -> Result<Wanted> {
    let (mut at, mut min_idle_ms) = (3, 0);
    if cx.is(3, "IDLE") {
        min_idle_ms = u64::try_from(cx.integer(4)?).unwrap_or(0);
        if cx.argc() < 8 {
            return Err(Fault::SYNTAX);
        }
        at = 5;
    }
    let count = usize::try_from(cx.integer(at + 2)?).unwrap_or(0);
    let (start, end) = bounds(cx, at, at + 1)?;
    let consumer = Some(at + 3).filter(|at| *at < cx.argc());
    Ok(Wanted { start, end, count, min_idle_ms, consumer })
}

fn summary(out: &mut Vec<u8>, version: Version, group: GroupView<'_>) {
    reply::array(out, 4);
    reply_count(out, group.pending_len() as u64);
    let Some((first, last)) = group.pending_bounds() else {
        reply::null(out, version);
        reply::null(out, version);
        return reply::null_array(out, version);
    };
    reply_id(out, first);
    reply_id(out, last);
    let owners = group.consumers().filter(|consumer| consumer.pending_len() > 0);
    reply_counted(out, |out| {
        let each = owners.map(|owner| {
            reply::array(out, 2);
            reply::bulk(out, owner.name());
            reply::bulk_integer(out, i64::try_from(owner.pending_len()).unwrap_or(i64::MAX));
        });
        each.count()
    });
}

fn rows(
    out: &mut Vec<u8>,
    group: GroupView<'_>,
    wanted: &Wanted,
    consumer: Option<&[u8]>,
    now: u64,
) {
    let Wanted { start, end, count, min_idle_ms, .. } = *wanted;
    let idle = |row: &Pending<'_>| row.idle_ms(now) >= min_idle_ms;
    let Some(name) = consumer else {
        return reply_rows(out, group.pending(start, end).filter(idle).take(count), now);
    };
    match group.consumer(name) {
        Some(owner) => reply_rows(out, owner.pending(start, end).filter(idle).take(count), now),
        None => reply::array(out, 0),
    }
}

fn reply_rows<'a>(out: &mut Vec<u8>, rows: impl Iterator<Item = Pending<'a>>, now: u64) {
    reply_counted(out, |out| {
        let each = rows.map(|row| {
            reply::array(out, 4);
            reply_id(out, row.id);
            reply::bulk(out, row.consumer);
            reply_count(out, row.idle_ms(now));
            reply_count(out, row.deliveries);
        });
        each.count()
    });
}

/// Argument `index` as an integer; else the fault in these words.
fn integer(cx: &Cx<'_>, index: usize, words: &'static str) -> Result<i64> {
    parse_i64(cx.arg(index)).ok_or(Fault::text(words))
}

pub(in crate::command) fn xclaim(cx: &mut Cx<'_>) -> Result {
    if !has_group(cx, 1, 2)? {
        return Err(no_group(cx, 1, 2, ""));
    }
    let (ids, claim) = claim(cx)?;
    let (group, consumer, now) = (cx.arg(2), cx.arg(3), cx.now_ms());
    making_consumer(cx, 1, (group, consumer), |cx| {
        cx.change_replying(1, |stream: &mut Box<Stream>, _, out| {
            reply_counted(out.inline_mut(), |out| {
                let mut count = 0;
                // The group is there.
                let _ = stream.claim(group, consumer, &ids, &claim, now, |item| {
                    if let Claimed::Entry(entry) = item {
                        count += 1;
                        reply_claimed(out, &entry, claim.just_id);
                    }
                });
                count
            });
        })
    })?;
    cx.aside(1);
    Ok(Outcome::Done)
}

/// The ids of XCLAIM, and what comes after them.
fn claim(cx: &Cx<'_>) -> Result<(Vec<StreamId>, Claim)> {
    let min_idle = integer(cx, 4, "ERR Invalid min-idle-time argument for XCLAIM")?;
    let mut claim = Claim { min_idle_ms: u64::try_from(min_idle).unwrap_or(0), ..Claim::default() };
    let texts = (5..cx.argc()).map(|at| StreamId::parse(cx.arg(at)));
    let ids: Vec<StreamId> = texts.map_while(std::result::Result::ok).collect();
    let mut at = 5 + ids.len();
    while at < cx.argc() {
        let more = at + 1 < cx.argc();
        if cx.is(at, "FORCE") {
            claim.force = true;
        } else if cx.is(at, "JUSTID") {
            claim.just_id = true;
        } else if more && cx.is(at, "IDLE") {
            at += 1;
            let idle = integer(cx, at, "ERR Invalid IDLE option argument for XCLAIM")?;
            claim.delivered = DeliveredAt::Idle(idle);
        } else if more && cx.is(at, "TIME") {
            at += 1;
            let time = integer(cx, at, "ERR Invalid TIME option argument for XCLAIM")?;
            claim.delivered = DeliveredAt::Unix(time);
        } else if more && cx.is(at, "RETRYCOUNT") {
            at += 1;
            let count = integer(cx, at, "ERR Invalid RETRYCOUNT option argument for XCLAIM")?;
            claim.retry_count = u64::try_from(count).ok();
        } else if more && cx.is(at, "LASTID") {
            at += 1;
            claim.last_id = id_arg(cx, at)?;
        } else {
            return Err(Fault::quoting("ERR Unrecognized XCLAIM option '", cx.arg(at), "'"));
        }
        at += 1;
    }
    Ok((ids, claim))
}

fn reply_claimed(out: &mut Vec<u8>, entry: &Entry<'_>, just_id: bool) {
    if just_id { reply_id(out, entry.id()) } else { reply_entry(out, entry) }
}

pub(in crate::command) fn xautoclaim(cx: &mut Cx<'_>) -> Result {
    let options = auto_claim(cx)?;
    if !has_group(cx, 1, 2)? {
        return Err(no_group(cx, 1, 2, ""));
    }
    let (group, consumer, now) = (cx.arg(2), cx.arg(3), cx.now_ms());
    making_consumer(cx, 1, (group, consumer), |cx| {
        cx.change_replying(1, |stream: &mut Box<Stream>, _, out| {
            let out = out.inline_mut();
            let start = out.len();
            let (mut deleted, mut next) = (Vec::new(), StreamId::MIN);
            reply_counted(out, |out| {
                let mut count = 0;
                let done = stream.auto_claim(group, consumer, &options, now, |item| match item {
                    Claimed::Entry(entry) => {
                        count += 1;
                        reply_claimed(out, &entry, options.just_id);
                    }
                    Claimed::Deleted(id) => deleted.push(id),
                });
                // The group is there.
                next = done.unwrap_or_default();
                count
            });
            super::put_header(out, start, |header| {
                reply::array(header, 3);
                reply_id(header, next);
            });
            reply::array(out, deleted.len());
            for id in deleted {
                reply_id(out, id);
            }
        })
    })?;
    cx.aside(1);
    Ok(Outcome::Done)
}

fn auto_claim(cx: &Cx<'_>) -> Result<AutoClaim> {
    /// As many ids of sixteen bytes have room in a signed number of bytes.
    const COUNT_MAX: i64 = i64::MAX / 16;
    let min_idle = integer(cx, 4, "ERR Invalid min-idle-time argument for XAUTOCLAIM")?;
    let start = StreamId::parse_start(cx.arg(5)).map_err(id_fault)?;
    let min_idle_ms = u64::try_from(min_idle).unwrap_or(0);
    let mut options = AutoClaim { min_idle_ms, start, count: 100, just_id: false };
    let mut at = 6;
    while at < cx.argc() {
        if cx.is(at, "COUNT") && at + 1 < cx.argc() {
            at += 1;
            let count = parse_i64(cx.arg(at)).filter(|count| (1..=COUNT_MAX).contains(count));
            let count = count.and_then(|count| u64::try_from(count).ok());
            options.count = count.ok_or(Fault::text("ERR COUNT must be > 0"))?;
        } else if cx.is(at, "JUSTID") {
            options.just_id = true;
        } else {
            return Err(Fault::SYNTAX);
        }
        at += 1;
    }
    Ok(options)
}
