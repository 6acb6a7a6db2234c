//! Connection commands: PING, ECHO, HELLO, AUTH, SELECT, QUIT, RESET, READONLY, READWRITE.

use wire::resp::{Version, reply};

use super::{Cx, Fault, Outcome, ReplyMode, client, client_tracking, pubsub};
use crate::{
    acl::{DEFAULT, Reason},
    watch::guard::{self, Refused},
};

/// The Redis version whose behaviour this server follows.
pub(crate) const REDIS_VERSION: &str = "7.0.15";

type Result = std::result::Result<Outcome, Fault>;

pub(super) fn ping(cx: &mut Cx<'_>) -> Result {
    match cx.argc() {
        1 => {
            cx.inline().extend_from_slice(b"+PONG\r\n");
            Ok(Outcome::Done)
        }
        2 => cx.bulk(cx.arg(1)),
        _ => Err(Fault::arity("ping")),
    }
}

pub(super) fn echo(cx: &mut Cx<'_>) -> Result {
    cx.bulk(cx.arg(1))
}

/// Logs the connection in as this user, if the password is theirs.
fn authenticate(cx: &mut Cx<'_>, user: &[u8], password: &[u8]) -> std::result::Result<(), Fault> {
    if cx.shard.acl.log_in(user, password).is_some() {
        cx.conn.log_in(cx.shard, user);
        set_user(cx, user);
        return Ok(());
    }
    let (object, user) = (cx.arg(0).to_vec(), user.to_vec());
    let (context, command) = ("toplevel", cx.row.name);
    let refused = Refused { reason: Reason::Auth, context, object, user, command };
    guard::log(cx.shard, cx.conn, refused, cx.now);
    Err(Fault::text("WRONGPASS invalid username-password pair or user is disabled."))
}

fn set_user(cx: &mut Cx<'_>, user: &[u8]) {
    if let Some(record) = cx.shard.clients.get_mut(cx.conn.slot) {
        record.user = (user != DEFAULT).then(|| user.into());
    }
}

pub(super) fn auth(cx: &mut Cx<'_>) -> Result {
    let (user, password) = match cx.argc() {
        2 if !cx.shard.needs_password() => {
            return Err(Fault::text(
                "ERR AUTH <password> called without any password configured for the default \
                 user. Are you sure your configuration is correct?",
            ));
        }
        2 => (&b"default"[..], cx.arg(1)),
        3 => (cx.arg(1), cx.arg(2)),
        _ => return Err(Fault::SYNTAX),
    };
    authenticate(cx, user, password)?;
    cx.ok()
}

pub(super) fn hello(cx: &mut Cx<'_>) -> Result {
    let version = match cx.argc() {
        1 => None,
        _ => Some(match cx.integer(1) {
            Ok(2) => Version::Resp2,
            Ok(3) => Version::Resp3,
            Ok(_) => return Err(Fault::text("NOPROTO unsupported protocol version")),
            Err(_) => {
                return Err(Fault::text("ERR Protocol version is not an integer or out of range"));
            }
        }),
    };
    let (mut login, mut name) = (None, None);
    let mut at = 2;
    while at < cx.argc() {
        let more = cx.argc() - 1 - at;
        if cx.is(at, "AUTH") && more >= 2 {
            login = Some((cx.arg(at + 1), cx.arg(at + 2)));
            at += 3;
        } else if cx.is(at, "SETNAME") && more >= 1 {
            name = Some(client::valid_name(cx.arg(at + 1))?);
            at += 2;
        } else {
            return Err(Fault::quoting("ERR Syntax error in HELLO option '", cx.arg(at), "'"));
        }
    }
    if let Some((user, password)) = login {
        authenticate(cx, user, password)?;
    }
    if !cx.conn.authenticated && cx.shard.needs_password() {
        return Err(Fault::text(
            "NOAUTH HELLO must be called with the client already authenticated, otherwise the \
             HELLO AUTH <user> <pass> option can be used to authenticate the client and \
             select the RESP protocol version at the same time",
        ));
    }
    if let Some(name) = name {
        client::set_name(cx, name);
    }
    if let Some(version) = version {
        set_version(cx, version);
    }
    greet(cx)
}

fn greet(cx: &mut Cx<'_>) -> Result {
    let version = cx.conn.version;
    let id = i64::try_from(cx.conn.id).unwrap_or(i64::MAX);
    let mode = if cx.is_cluster_node() { "cluster" } else { "standalone" };
    let role = if cx.shard.role.follows { "replica" } else { "master" };
    let out = cx.inline();
    reply::map(out, version, 7);
    for (field, value) in [("server", "redis"), ("version", REDIS_VERSION)] {
        reply::bulk(out, field.as_bytes());
        reply::bulk(out, value.as_bytes());
    }
    reply::bulk(out, b"proto");
    reply::integer(out, if version == Version::Resp3 { 3 } else { 2 });
    reply::bulk(out, b"id");
    reply::integer(out, id);
    for (field, value) in [("mode", mode), ("role", role)] {
        reply::bulk(out, field.as_bytes());
        reply::bulk(out, value.as_bytes());
    }
    reply::bulk(out, b"modules");
    reply::array(out, 0);
    Ok(Outcome::Done)
}

fn set_version(cx: &mut Cx<'_>, version: Version) {
    cx.conn.version = version;
    cx.shard.mail.set_version(cx.conn.slot, version);
    if let Some(record) = cx.shard.clients.get_mut(cx.conn.slot) {
        record.version = version;
    }
}

fn set_db(cx: &mut Cx<'_>, db: u16) {
    cx.conn.db = db;
    if let Some(record) = cx.shard.clients.get_mut(cx.conn.slot) {
        record.db = db;
    }
}

pub(super) fn select(cx: &mut Cx<'_>) -> Result {
    let db = cx.database(1)?;
    set_db(cx, db);
    cx.ok()
}

pub(super) fn quit(cx: &mut Cx<'_>) -> Result {
    // The connection is there until its peer has read the reply; nothing is published to it any more.
    pubsub::leave_all(cx.shard, cx.conn);
    client_tracking::stop(cx.shard, cx.conn);
    reply::ok(cx.inline());
    Ok(Outcome::Close)
}

pub(super) fn reset(cx: &mut Cx<'_>) -> Result {
    super::transactions::end(cx.conn, cx.shard);
    set_db(cx, 0);
    set_version(cx, Version::Resp2);
    client::set_name(cx, b"");
    cx.shard.stop_watching(cx.conn.slot);
    cx.conn.set_reply(ReplyMode::On);
    cx.conn.log_out(cx.shard);
    set_user(cx, DEFAULT);
    pubsub::leave_all(cx.shard, cx.conn);
    client_tracking::stop(cx.shard, cx.conn);
    cx.conn.no_touch = false;
    cx.conn.knows_topology = false;
    if let Some(record) = cx.shard.clients.get_mut(cx.conn.slot) {
        record.no_touch = false;
        record.no_evict = false;
    }
    cx.simple("RESET")
}

/// READONLY and READWRITE: nothing changes on a node whose keys nobody else has. No error without cluster mode either: clients of
/// clusters begin on the shared port.
pub(super) fn readonly(cx: &mut Cx<'_>) -> Result {
    cx.ok()
}
