//! From a parsed command to its function: lookup, the checks before it, and error replies.

use logic::{slot::key_slot, store::KeyHash};
use view::{Input, Instant, Mark, Output};
use wire::resp::{Args, reply};

use super::{Conn, Cx, Fault, Mode, Outcome, ReplyMode, row, table::Index, transactions};
use crate::{
    aof::effects::Ran,
    multi::{self, Multi},
    shard::Shard,
    watch::guard,
};

/// One command, parsed and looked up.
#[derive(Clone, Copy)]
pub(crate) struct Call<'a> {
    pub(crate) args: &'a Args,
    pub(crate) frame: &'a [u8],
    pub(crate) input: &'a Input<'a>,
    pub(crate) id: Option<u16>,
    pub(crate) hash: Option<KeyHash>,
}

/// The command's id; that of the subcommand for a container. `None`: unknown.
#[inline]
pub(crate) fn find(commands: &Index, args: &Args, frame: &[u8]) -> Option<u16> {
    if args.is_empty() {
        return None;
    }
    let id = commands.find(args.get(0, frame))?;
    if commands.row(id).subs.is_empty() || args.len() < 2 {
        return Some(id);
    }
    commands.find_sub(id, args.get(1, frame))
}

/// Runs a command here and writes its reply or its error.
#[inline]
pub(crate) fn run(
    call: Call<'_>,
    out: &mut Output,
    shard: &mut Shard,
    conn: &mut Conn,
    now: Instant,
) -> Outcome {
    let Some(id) = call.id else { return unknown(call, out, shard, conn) };
    if !conn.plain {
        return guard::run(call, id, out, shard, conn, now);
    }
    if let Some(fault) = check(shard, id, call.args.len(), now) {
        let fault = transactions::refused(shard.commands.row(id), fault, conn, shard);
        return refuse(fault, out, shard, id);
    }
    shard.stats.call(id);
    conn.last_command = id;
    execute(call, id, out, shard, conn, now)
}

/// Runs a command that was checked and counted.
#[inline]
pub(crate) fn execute(
    call: Call<'_>,
    id: u16,
    out: &mut Output,
    shard: &mut Shard,
    conn: &mut Conn,
    now: Instant,
) -> Outcome {
    if shard.observed {
        return execute_observed(call, id, out, shard, conn, now);
    }
    execute_unseen(call, id, out, shard, conn, now)
}

#[inline]
pub(crate) fn execute_unseen(
    call: Call<'_>,
    id: u16,
    out: &mut Output,
    shard: &mut Shard,
    conn: &mut Conn,
    now: Instant,
) -> Outcome {
    let row = shard.commands.row(id);
    let Call { args, frame, input, hash, .. } = call;
    let mut cx = Cx { args, frame, input, row, id, hash, out, shard, conn, now };
    match (row.exec)(&mut cx) {
        Ok(outcome) => outcome,
        Err(fault) => fail(fault, out, shard, id),
    }
}

/// As [`execute`], and serves those who wait for what has changed.
#[cold]
#[inline(never)]
fn execute_observed(
    call: Call<'_>,
    id: u16,
    out: &mut Output,
    shard: &mut Shard,
    conn: &mut Conn,
    now: Instant,
) -> Outcome {
    if shard.journal.is_some() {
        return execute_logged(call, id, out, shard, conn, now);
    }
    let outcome = execute_unseen(call, id, out, shard, conn, now);
    observed(shard, conn, now);
    outcome
}

/// As [`execute`], for a shard with a log: all that the command leads to is one entry.
#[cold]
#[inline(never)]
fn execute_logged(
    call: Call<'_>,
    id: u16,
    out: &mut Output,
    shard: &mut Shard,
    conn: &mut Conn,
    now: Instant,
) -> Outcome {
    let opened = match open_entry(id, out, shard, conn) {
        Ok(opened) => opened,
        Err(fault) => return fail(fault, out, shard, id),
    };
    let outcome = execute_unseen(call, id, out, shard, conn, now);
    close_entry(&opened, call, id, &outcome, out, shard, now);
    observed(shard, conn, now);
    outcome
}

/// What there was before a command that is to be logged.
pub(crate) struct Opened {
    db: u16,
    start: Mark,
    changes: u64,
}

/// Opens an entry of the log for a command, unless it must not run.
pub(crate) fn open_entry(
    id: u16,
    out: &Output,
    shard: &mut Shard,
    conn: &Conn,
) -> Result<Opened, Fault> {
    if let Some(fault) = shard.log_refuses(id) {
        return Err(fault);
    }
    shard.log_begin();
    Ok(Opened { db: conn.db, start: out.mark(), changes: shard.changes })
}

/// Ends it: with what the command did, if it changed anything.
pub(crate) fn close_entry(
    opened: &Opened,
    call: Call<'_>,
    id: u16,
    outcome: &Outcome,
    out: &Output,
    shard: &mut Shard,
    now: Instant,
) {
    let Call { args, frame, .. } = call;
    let Opened { db, start, changes } = *opened;
    let has_run = !matches!(outcome, Outcome::Wait(_));
    if has_run && shard.commands.row(id).flags & row::WRITE != 0 {
        let reply = out.since(start);
        let changed = shard.changes != changes;
        shard.log_command(&Ran { id, db, args, frame, reply: &reply, now }, changed);
    }
    shard.log_looked_at(id, db, args, frame);
    // What waits will run again, or elsewhere: nothing of it was done.
    if has_run { shard.log_end() } else { shard.log_undo(now) }
}

/// A command has run while somebody observed keys: what waits for those it changed is tried again.
#[cold]
pub(crate) fn observed(shard: &mut Shard, conn: &Conn, now: Instant) {
    if conn.mode == Mode::Direct {
        shard.serve_ready(now);
    }
}

/// Plans a command whose keys live on several shards; `None` when it was refused, with a reply.
pub(crate) fn spread(
    call: Call<'_>,
    out: &mut Output,
    shard: &mut Shard,
    conn: &mut Conn,
    now: Instant,
) -> Option<Multi> {
    let id = call.id?;
    let fault = if conn.plain {
        check(shard, id, call.args.len(), now)
    } else {
        guard::check(call.args, call.frame, id, shard, conn, now)
    };
    if let Some(fault) = fault {
        refuse(fault, out, shard, id);
        return None;
    }
    if let Some(fault) = shard.log_refuses(id) {
        refuse(fault, out, shard, id);
        return None;
    }
    let row = shard.commands.row(id);
    if !conn.plain {
        shard.show_command(conn, row, call.args, call.frame, now.unix_us);
    }
    shard.stats.call(id);
    let Call { args, frame, input, hash, .. } = call;
    let mut cx = Cx { args, frame, input, row, id, hash, out, shard, conn, now };
    match multi::plan(&mut cx) {
        Ok(multi) => Some(multi),
        Err(fault) => {
            fail(fault, out, shard, id);
            None
        }
    }
}

/// What stands against running the command now on a plain connection, in Redis' order.
#[inline]
pub(crate) fn check(shard: &mut Shard, id: u16, argc: usize, now: Instant) -> Option<Fault> {
    let row = shard.commands.row(id);
    if !row.accepts(argc) {
        return Some(Fault::arity(row.name));
    }
    if row.flags & row::DENYOOM != 0 && !shard.make_room(now) {
        return Some(Fault::OOM);
    }
    None
}

#[cold]
pub(crate) fn refuse(fault: Fault, out: &mut Output, shard: &mut Shard, id: u16) -> Outcome {
    shard.stats.reject(id, fault.code());
    reply::error(out.inline_mut(), &fault.0);
    Outcome::Done
}

#[cold]
pub(crate) fn fail(fault: Fault, out: &mut Output, shard: &mut Shard, id: u16) -> Outcome {
    shard.stats.fail(id, fault.code());
    reply::error(out.inline_mut(), &fault.0);
    Outcome::Done
}

/// The reply to an unknown command or subcommand.
#[cold]
fn unknown(call: Call<'_>, out: &mut Output, shard: &mut Shard, conn: &mut Conn) -> Outcome {
    let arg = |index| call.args.get(index, call.frame);
    let name = arg(0);
    // Somebody speaks HTTP to us: Redis closes without a word.
    if name.eq_ignore_ascii_case(b"post") || name.eq_ignore_ascii_case(b"host:") {
        return Outcome::Hangup;
    }
    let mut text = Vec::new();
    if let Some(id) = shard.commands.find(name) {
        text.extend_from_slice(b"ERR unknown subcommand '");
        text.extend_from_slice(c_string(arg(1), 128));
        let container = shard.commands.row(id).name.to_uppercase();
        text.extend_from_slice(format!("'. Try {container} HELP.").as_bytes());
    } else {
        text.extend_from_slice(b"ERR unknown command '");
        text.extend_from_slice(c_string(name, 128));
        text.extend_from_slice(b"', with args beginning with: ");
        let head = text.len();
        for index in 1..call.args.len() {
            let used = text.len() - head;
            if used >= 128 {
                break;
            }
            text.push(b'\'');
            text.extend_from_slice(c_string(arg(index), 128 - used));
            text.extend_from_slice(b"' ");
        }
    }
    shard.stats.error("ERR");
    if conn.reply == ReplyMode::On {
        reply::error(out.inline_mut(), &text);
    } else if conn.reply == ReplyMode::Skip {
        conn.set_reply(ReplyMode::On);
    }
    Outcome::Done
}

/// At most `most` bytes, and nothing from a NUL on: what C's `%.*s` prints.
pub(crate) fn c_string(bytes: &[u8], most: usize) -> &[u8] {
    let bytes = bytes.get(..most).unwrap_or(bytes);
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    bytes.get(..end).unwrap_or_default()
}

/// Points a connection that knows the topology to the slot's owner.
pub(crate) fn moved(out: &mut Output, shard: &mut Shard, conn: &Conn, slot: u16, owner: u16) {
    shard.stats.moved += 1;
    shard.stats.error("MOVED");
    let host = super::cluster::host(shard, conn);
    let text = format!("MOVED {slot} {host}:{}", shard.topology.port(owner));
    reply::error(out.inline_mut(), text.as_bytes());
}

/// The slot of a key.
pub(crate) fn slot_of(key: &[u8]) -> u16 {
    key_slot(key)
}
