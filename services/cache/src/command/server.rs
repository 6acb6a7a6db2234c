//! Server commands: TIME, DBSIZE, FLUSHDB, FLUSHALL, INFO, DEBUG SLEEP.

use wire::resp::reply;

use super::{Cx, Fault, Outcome, Waiting};
use crate::{multi::Plan, work::Op};

type Result = std::result::Result<Outcome, Fault>;

pub(super) fn time(cx: &mut Cx<'_>) -> Result {
    let us = cx.now.unix_us;
    let out = cx.inline();
    reply::array(out, 2);
    reply::bulk(out, (us / 1_000_000).to_string().as_bytes());
    reply::bulk(out, (us % 1_000_000).to_string().as_bytes());
    Ok(Outcome::Done)
}

pub(super) fn dbsize(cx: &mut Cx<'_>) -> Result {
    cx.gather_node(Plan::Len(cx.conn.db))
}

/// SYNC and ASYNC are the same here: memory is given back in the background either way.
fn flush_mode(cx: &Cx<'_>) -> std::result::Result<(), Fault> {
    match cx.argc() {
        1 => Ok(()),
        2 if cx.is(1, "SYNC") || cx.is(1, "ASYNC") => Ok(()),
        _ => Err(Fault::SYNTAX),
    }
}

pub(super) fn flushdb(cx: &mut Cx<'_>) -> Result {
    flush_mode(cx)?;
    cx.gather_node(Plan::Flush(Some(cx.conn.db)))
}

pub(super) fn flushall(cx: &mut Cx<'_>) -> Result {
    flush_mode(cx)?;
    cx.gather_node(Plan::Flush(None))
}

pub(super) fn info(cx: &mut Cx<'_>) -> Result {
    let sections = (1..cx.argc()).map(|at| cx.arg(at).to_ascii_lowercase()).collect();
    cx.gather(Plan::Info(sections))
}

pub(super) fn bgrewriteaof(cx: &mut Cx<'_>) -> Result {
    use std::sync::atomic::Ordering;
    let Some(journal) = cx.shard.journal.as_ref().filter(|journal| journal.on_disk) else {
        return Err(Fault::text("ERR the append-only log is off: start with --appendonly yes"));
    };
    if journal.common.rewriting.swap(true, Ordering::AcqRel) {
        let text = "ERR Background append only file rewriting already in progress";
        return Err(Fault::text(text));
    }
    journal.common.rewrite_failed.store(false, Ordering::Relaxed);
    journal.common.rewrite_began_s.store(cx.now.unix_s(), Ordering::Relaxed);
    cx.gather(Plan::Log(Op::Rewrite))
}

/// The longest DEBUG SLEEP.
const MAX_SLEEP_S: f64 = 3600.0;

/// DEBUG SLEEP: the connection waits, the shard does not.
pub(super) fn sleep(cx: &Cx<'_>) -> Result {
    let text = std::str::from_utf8(cx.arg(2)).unwrap_or("0");
    let seconds: f64 = text.trim().parse().unwrap_or(0.0);
    // Saturating: a negative or absurd time is none or the longest.
    let us = (seconds.clamp(0.0, MAX_SLEEP_S) * 1e6) as u64;
    Ok(Outcome::Wait(Box::new(Waiting::Sleep { us })))
}

pub(super) fn debug_unknown(cx: &Cx<'_>) -> Result {
    let name = cx.arg(1);
    let before = "ERR unknown subcommand or wrong number of arguments for '";
    Err(Fault::quoting(before, name.get(..128).unwrap_or(name), "'. Try DEBUG HELP."))
}
