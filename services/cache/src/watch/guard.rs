//! The way of a command on a connection that is not plain: every check, and everything that looks on.
//!
//! A connection is plain while it is logged in as somebody who may do everything, and nothing looks at commands one by
//! one; see [`Conn::settle`]. Order of checks: arity, login, permissions, memory, pause, as redis-server 7.0.15 has it.

use view::{Instant, Output};
use wire::resp::Args;

use super::finish;
use crate::{
    acl::{self, Denied, LogEntry, Reason},
    clients,
    command::{
        Conn, Cx, Fault, Outcome, ReplyMode, dispatch, dispatch::Call, pubsub, row, transactions,
    },
    shard::Shard,
};

/// How long a paused connection waits before it looks again.
pub(crate) const PAUSE_STEP_US: u64 = 5_000;

impl Conn {
    /// Looks up its user again, and whether its commands have to be looked at.
    #[cold]
    pub(crate) fn refresh(&mut self, shard: &Shard) {
        self.seen = shard.generation;
        if let Some(user) = &self.user {
            match shard.acl.get(&user.name) {
                Some(now) => self.user = Some(now.clone()),
                None => (self.user, self.authenticated) = (None, false),
            }
        }
        let user = self.user.as_ref().unwrap_or(shard.acl.default_user());
        self.restricted = !self.applies.is_on() && !user.is_unrestricted();
        self.watched = shard.looks;
        self.settle();
    }

    /// Becomes this user.
    pub(crate) fn log_in(&mut self, shard: &Shard, name: &[u8]) {
        self.user = shard.acl.get(name).filter(|_| name != acl::DEFAULT).cloned();
        self.authenticated = true;
        self.refresh(shard);
    }

    /// What it runs is for the user of another connection: SORT and scripts use keys that were not looked at before.
    pub(crate) fn act_for(&mut self, other: &Self) {
        self.restricted = other.restricted;
        self.user = if other.restricted { other.user.clone() } else { None };
    }

    /// Nobody has logged in.
    pub(crate) fn log_out(&mut self, shard: &Shard) {
        self.user = None;
        self.authenticated = !shard.needs_password();
        self.refresh(shard);
    }
}

/// What of the command its connection's user may not do.
fn denied_by_rules(
    args: &Args,
    frame: &[u8],
    id: u16,
    shard: &Shard,
    conn: &Conn,
) -> Option<Denied> {
    let user = conn.user.as_ref().unwrap_or(shard.acl.default_user());
    let row = shard.commands.row(id);
    acl::may_run(user, id, row, args.len(), |at| args.get(at, frame)).err()
}

/// Why the user whose script runs may not run this command of it; ACL LOG is told.
#[cold]
pub(crate) fn denied_in_script(
    args: &Args,
    frame: &[u8],
    id: u16,
    shard: &mut Shard,
    conn: &Conn,
    now: Instant,
) -> Option<&'static str> {
    let denied = denied_by_rules(args, frame, id, shard, conn)?;
    let refused = Refused::of(denied, args, frame, shard.commands.row(id), conn);
    log(shard, conn, Refused { context: "lua", ..refused }, now);
    Some(match denied {
        Denied::Command => "The user executing the script can't run this command or subcommand",
        Denied::Key(_) => {
            "The user executing the script can't access at least one of the keys mentioned in the command arguments"
        }
        Denied::Channel(_) => {
            "The user executing the script can't publish to the channel mentioned in the command"
        }
    })
}

/// Why the connection's user may not run this command; the second value is what ACL LOG says it was about.
fn denied(
    args: &Args,
    frame: &[u8],
    id: u16,
    shard: &Shard,
    conn: &Conn,
) -> Option<(Denied, Fault)> {
    // What came from another shard was looked at there.
    if conn.is_remote() || !conn.restricted {
        return None;
    }
    let row = shard.commands.row(id);
    let denied = denied_by_rules(args, frame, id, shard, conn)?;
    let fault = match denied {
        Denied::Command => Fault::owned(format!(
            "NOPERM this user has no permissions to run the '{}' command",
            row.name
        )),
        Denied::Key(_) => Fault::text(
            "NOPERM this user has no permissions to access one of the keys used as arguments",
        ),
        Denied::Channel(_) => Fault::text(
            "NOPERM this user has no permissions to access one of the channels used as arguments",
        ),
    };
    Some((denied, fault))
}

/// Whether the connection's user may read keys that the command's arguments do not name.
pub(crate) fn may_read_all(cx: &Cx<'_>) -> bool {
    if !cx.conn.restricted {
        return true;
    }
    let user = cx.conn.user.as_ref().unwrap_or(cx.shard.acl.default_user());
    acl::may_read_all(user, cx.id, cx.row, cx.argc(), |at| cx.args.get(at, cx.frame))
}

fn must_log_in(shard: &Shard, conn: &Conn, row: &row::Row) -> bool {
    !conn.authenticated && row.flags & row::NO_AUTH == 0 && shard.needs_password()
}

/// Whether it will be refused; nothing is noted.
pub(crate) fn is_refused(args: &Args, frame: &[u8], id: u16, shard: &Shard, conn: &Conn) -> bool {
    let row = shard.commands.row(id);
    must_log_in(shard, conn, row) || denied(args, frame, id, shard, conn).is_some()
}

/// What stands against running the command now.
pub(crate) fn check(
    args: &Args,
    frame: &[u8],
    id: u16,
    shard: &mut Shard,
    conn: &Conn,
    now: Instant,
) -> Option<Fault> {
    let row = shard.commands.row(id);
    if row.accepts(args.len()) {
        if must_log_in(shard, conn, row) {
            return Some(Fault::text("NOAUTH Authentication required."));
        }
        if let Some((denied, fault)) = denied(args, frame, id, shard, conn) {
            log(shard, conn, Refused::of(denied, args, frame, row, conn), now);
            return Some(fault);
        }
    }
    let fault = dispatch::check(shard, id, args.len(), now);
    let fault = fault.or_else(|| shard.role_refuses(row, conn));
    if fault.is_none() && conn.is_confined() && !may_confined(row.name) {
        return Some(Fault::owned(format!(
            "ERR Can't execute '{}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in \
             this context",
            row.name
        )));
    }
    fault
}

/// What a RESP2 connection with subscriptions may run.
fn may_confined(name: &str) -> bool {
    name.ends_with("subscribe") || matches!(name, "ping" | "quit" | "reset")
}

/// What ACL LOG is told.
pub(crate) struct Refused {
    pub(crate) reason: Reason,
    /// `toplevel` or `lua`.
    pub(crate) context: &'static str,
    /// The command, the key, the channel.
    pub(crate) object: Vec<u8>,
    pub(crate) user: Vec<u8>,
    pub(crate) command: &'static str,
}

impl Refused {
    fn of(denied: Denied, args: &Args, frame: &[u8], row: &row::Row, conn: &Conn) -> Self {
        let (reason, object) = match denied {
            Denied::Command => (Reason::Command, row.name.as_bytes()),
            Denied::Key(at) => (Reason::Key, args.get(at, frame)),
            Denied::Channel(at) => (Reason::Channel, args.get(at, frame)),
        };
        let user = conn.user.as_ref().map_or(acl::DEFAULT, |user| &*user.name);
        let (object, user) = (object.to_vec(), user.to_vec());
        Self { reason, context: "toplevel", object, user, command: row.name }
    }
}

/// Adds to ACL LOG.
pub(crate) fn log(shard: &mut Shard, conn: &Conn, refused: Refused, now: Instant) {
    let Refused { reason, context, object, user, command } = refused;
    let mut client = String::new();
    if let Some(record) = shard.clients.get(conn.slot) {
        clients::line(record, now.unix_ms(), Some(command), &mut client);
    }
    let max = shard.settings.get("acllog-max-len").parse().unwrap_or(128);
    let entry = LogEntry {
        count: 1,
        reason,
        context,
        object,
        user,
        at_ms: now.unix_ms(),
        client: client.trim_end().into(),
    };
    shard.acl.log.add(entry, max);
}

/// Whether CLIENT PAUSE holds the command back.
pub(crate) fn is_held_back(shard: &mut Shard, conn: &Conn, id: u16, now: Instant) -> bool {
    let Some(pause) = shard.watch.pause else { return false };
    if conn.is_remote() {
        return false;
    }
    if pause.until_ms <= now.unix_ms() {
        shard.watch.pause = None;
        shard.look_again();
        return false;
    }
    let row = shard.commands.row(id);
    let may_write = row::WRITE | row::MAY_REPLICATE;
    !pause.writes
        || row.flags & may_write != 0
        || row.name == "exec" && shard.queues(conn, may_write)
}

/// Runs a command here.
#[cold]
#[inline(never)]
pub(crate) fn run(
    call: Call<'_>,
    id: u16,
    out: &mut Output,
    shard: &mut Shard,
    conn: &mut Conn,
    now: Instant,
) -> Outcome {
    let (start, mode) = (out.mark(), conn.reply);
    let outcome = run_aloud(call, id, out, shard, conn, now);
    // The mode that the command was sent in, and the one it has set.
    if conn.mutes(mode) {
        out.truncate(start);
    }
    if mode == ReplyMode::Skip && !matches!(outcome, Outcome::Later | Outcome::Wait(_)) {
        conn.set_reply(ReplyMode::On);
    }
    outcome
}

fn run_aloud(
    call: Call<'_>,
    id: u16,
    out: &mut Output,
    shard: &mut Shard,
    conn: &mut Conn,
    now: Instant,
) -> Outcome {
    if let Some(fault) = check(call.args, call.frame, id, shard, conn, now) {
        let row = shard.commands.row(id);
        shard.end_caching(conn.id, row);
        let fault = transactions::refused(row, fault, conn, shard);
        return dispatch::refuse(fault, out, shard, id);
    }
    if is_held_back(shard, conn, id, now) {
        return Outcome::Later;
    }
    shard.stats.call(id);
    conn.last_command = id;
    let row = shard.commands.row(id);
    if !conn.is_remote() {
        shard.show_command(conn, row, call.args, call.frame, now.unix_us);
    }
    if conn.is_confined() && row.name == "ping" {
        let Call { args, frame, input, hash, .. } = call;
        let mut cx = Cx { args, frame, input, row, id, hash, out, shard, conn, now };
        return match pubsub::ping(&mut cx) {
            Ok(outcome) => outcome,
            Err(fault) => dispatch::fail(fault, out, shard, id),
        };
    }
    let outcome = run_timed(call, id, out, shard, conn, now);
    if conn.tracks {
        shard.remember(conn.id, row, call.args, call.frame);
        shard.end_caching(conn.id, row);
    }
    outcome
}

fn run_timed(
    call: Call<'_>,
    id: u16,
    out: &mut Output,
    shard: &mut Shard,
    conn: &mut Conn,
    now: Instant,
) -> Outcome {
    let row = shard.commands.row(id);
    let start = if shard.watch.times_all() { shard.watch.start() } else { None };
    let Some(start) = start else {
        return dispatch::execute(call, id, out, shard, conn, now);
    };
    let opened = match shard.journal.is_some().then(|| dispatch::open_entry(id, out, shard, conn)) {
        None => None,
        Some(Ok(opened)) => Some(opened),
        Some(Err(fault)) => return dispatch::fail(fault, out, shard, id),
    };
    let Call { args, frame, input, hash, .. } = call;
    let mut cx = Cx { args, frame, input, row, id, hash, out, shard, conn, now };
    let result = (row.inner)(&mut cx);
    finish(&mut cx, start, &result);
    let outcome = match result {
        Ok(outcome) => outcome,
        Err(fault) => dispatch::fail(fault, out, shard, id),
    };
    if let Some(opened) = opened {
        dispatch::close_entry(&opened, call, id, &outcome, out, shard, now);
    }
    if shard.observed {
        dispatch::observed(shard, conn, now);
    }
    outcome
}

/// Before a command goes to other shards: whether it has to wait. Monitors see it.
#[cold]
pub(crate) fn may_leave(
    args: &Args,
    frame: &[u8],
    id: u16,
    shard: &mut Shard,
    conn: &Conn,
    now: Instant,
) -> bool {
    if is_held_back(shard, conn, id, now) {
        return false;
    }
    let row = shard.commands.row(id);
    shard.show_command(conn, row, args, frame, now.unix_us);
    true
}
