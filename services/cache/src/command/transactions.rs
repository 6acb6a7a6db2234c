//! MULTI, EXEC, DISCARD, WATCH and UNWATCH.
//!
//! Between MULTI and EXEC the session hands commands to [`queue`] instead of running them.
//! Next: `transaction.rs` for the state, and for EXEC with several shards.

use bytes::Bytes;
use view::{Instant, Output};
use wire::resp::{Args, reply};

use super::{Conn, Cx, Fault, Mode, Outcome, Waiting, dispatch, row::Row};
use crate::{
    multi::Plan,
    shard::Shard,
    transaction::{self, QUEUED_MAX_BYTES, Queued, Transaction, Watched},
    watch::guard,
    work::{Guard, ShardKeys},
};

type Result = std::result::Result<Outcome, Fault>;

const ABORTED: Fault = Fault::text("EXECABORT Transaction discarded because of previous errors.");

pub(super) fn multi(cx: &mut Cx<'_>) -> Result {
    if cx.conn.queues() {
        return Err(Fault::text("ERR MULTI calls can not be nested"));
    }
    cx.conn.transaction.get_or_insert_default().is_open = true;
    reply::ok(cx.inline());
    Ok(Outcome::Regroup)
}

pub(super) fn discard(cx: &mut Cx<'_>) -> Result {
    if !cx.conn.queues() {
        return Err(Fault::text("ERR DISCARD without MULTI"));
    }
    end(cx.conn, cx.shard);
    cx.ok()
}

/// Forgets a connection's transaction.
pub(crate) fn end(conn: &mut Conn, shard: &mut Shard) {
    if let Some(mut transaction) = conn.transaction.take() {
        transaction.unwatch(shard);
    }
}

pub(super) fn watch(cx: &mut Cx<'_>) -> Result {
    if cx.conn.queues() {
        return Err(Fault::text("ERR WATCH inside MULTI is not allowed"));
    }
    let (db, now_ms) = (cx.conn.db, cx.now_ms());
    let mut others: ShardKeys = Vec::new();
    for at in 1..cx.argc() {
        let key = cx.arg(at);
        let known = cx.conn.transaction.get_or_insert_default();
        let is_known = |watched: &Watched| watched.guard.db == db && *watched.guard.key == *key;
        if known.watched.iter().any(is_known) {
            continue;
        }
        let owner = cx.shard.topology.owner_of(key);
        if owner == cx.shard.index {
            let was = cx.shard.watch_key(db, key, now_ms);
            let guard = Guard { db, key: key.into(), was };
            known.watched.push(Watched { shard: owner, guard });
            continue;
        }
        match others.iter_mut().find(|(other, _)| *other == owner) {
            Some((_, keys)) => keys.push((db, key.into())),
            None => others.push((owner, vec![(db, key.into())])),
        }
    }
    if others.is_empty() {
        return cx.ok();
    }
    cx.gather(Plan::Watch { keys: others, watched: Vec::new() })
}

/// What a refusal says: EXEC that is refused ends its transaction, and says so.
#[cold]
pub(crate) fn refused(row: &Row, fault: Fault, conn: &mut Conn, shard: &mut Shard) -> Fault {
    if row.name != "exec" {
        return fault;
    }
    end(conn, shard);
    let why = fault.0.strip_prefix(b"ERR ").unwrap_or(&fault.0);
    Fault::owned([b"EXECABORT Transaction discarded because of: ", why].concat())
}

/// Takes what other shards answered to WATCH.
pub(crate) fn watched(conn: &mut Conn, keys: Vec<Watched>) {
    conn.transaction.get_or_insert_default().watched.extend(keys);
}

pub(super) fn unwatch(cx: &mut Cx<'_>) -> Result {
    if let Some(transaction) = &mut cx.conn.transaction {
        transaction.unwatch(cx.shard);
        if !transaction.is_open {
            cx.conn.transaction = None;
        }
    }
    cx.ok()
}

pub(super) fn exec(cx: &mut Cx<'_>) -> Result {
    if !cx.conn.queues() {
        return Err(Fault::text("ERR EXEC without MULTI"));
    }
    let Some(mut transaction) = cx.conn.transaction.take() else { return Err(ABORTED) };
    if transaction.is_refused {
        transaction.unwatch(cx.shard);
        return Err(ABORTED);
    }
    if cx.shard.count > 1 {
        cx.conn.transaction = Some(transaction);
        return Ok(Outcome::Wait(Box::new(Waiting::Exec)));
    }
    if transaction.needs_memory && !cx.shard.make_room(cx.now) {
        transaction.unwatch(cx.shard);
        return Err(transaction::out_of_memory());
    }
    let now_ms = cx.now_ms();
    let is_fresh = transaction.watched.iter().all(|Watched { guard, .. }| {
        cx.shard.is_as_watched(guard.db, &guard.key, guard.was, now_ms)
    });
    transaction.unwatch(cx.shard);
    if !is_fresh {
        return cx.null_array();
    }
    run(cx, &transaction)
}

/// Runs all commands of a transaction.
fn run(cx: &mut Cx<'_>, transaction: &Transaction) -> Result {
    let mut args = Box::<Args>::default();
    let mode = std::mem::replace(&mut cx.conn.mode, Mode::Nested);
    reply::array(cx.inline(), transaction.queued.len());
    let mut last = Outcome::Done;
    for queued in &transaction.queued {
        if !transaction::parse(&queued.frame, &mut args) {
            // It was parsed when it was queued.
            reply::error(cx.inline(), b"ERR broken command in a transaction");
            continue;
        }
        let input = view::Input::owned(&queued.frame);
        let call = dispatch::Call {
            args: &args,
            frame: &queued.frame,
            input: &input,
            id: Some(queued.id),
            hash: None,
        };
        let outcome = if cx.conn.plain {
            cx.shard.stats.call(queued.id);
            dispatch::execute(call, queued.id, cx.out, cx.shard, cx.conn, cx.now)
        } else {
            dispatch::run(call, cx.out, cx.shard, cx.conn, cx.now)
        };
        match outcome {
            Outcome::Done | Outcome::Regroup => {}
            Outcome::Wait(_) | Outcome::Later => reply::ok(cx.inline()),
            closes => last = closes,
        }
    }
    cx.conn.mode = mode;
    Ok(last)
}

/// What came of a command behind MULTI.
pub(crate) enum Took {
    Queued,
    /// It was refused, with a reply.
    Refused,
    /// Too much is queued: the connection ends.
    TooMuch,
}

/// Queues a command.
pub(crate) fn queue(
    call: dispatch::Call<'_>,
    out: &mut Output,
    shard: &mut Shard,
    conn: &mut Conn,
    now: Instant,
) -> Took {
    let refused = match call.id {
        None => {
            dispatch::run(call, out, shard, conn, now);
            true
        }
        Some(id) => match guard::check(call.args, call.frame, id, shard, conn, now) {
            Some(fault) => {
                dispatch::refuse(fault, out, shard, id);
                true
            }
            None => false,
        },
    };
    let db = conn.db;
    let Some(transaction) = &mut conn.transaction else { return Took::Refused };
    let (true, Some(id)) = (!refused, call.id) else {
        transaction.is_refused = true;
        return Took::Refused;
    };
    let row = shard.commands.row(id);
    transaction.needs_memory |= row.flags & super::row::DENYOOM != 0;
    transaction.bytes += call.frame.len();
    if transaction.bytes > QUEUED_MAX_BYTES {
        return Took::TooMuch;
    }
    let frame = if call.input.is_owned() && call.frame.len() >= view::INLINE_MAX_BYTES {
        shared(call)
    } else {
        Bytes::copy_from_slice(call.frame)
    };
    let db = transaction.queued.last().map_or(db, |last| last.database_after(shard));
    transaction.queued.push(Queued { id, db, frame });
    reply::simple(out.inline_mut(), "QUEUED");
    Took::Queued
}

/// The frame, shared with the input when it lies at its front.
fn shared(call: dispatch::Call<'_>) -> Bytes {
    match call.input.remaining().get(..call.frame.len()) {
        Some(part) if std::ptr::eq(part, call.frame) => call.input.slice(part),
        _ => Bytes::copy_from_slice(call.frame),
    }
}
