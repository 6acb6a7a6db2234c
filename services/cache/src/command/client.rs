//! CLIENT: the connection's own attributes, and the list of connections.

use wire::resp::reply;

use super::{Cx, Fault, Outcome};
use crate::{
    clients::{Filter, Lib, line},
    multi::Plan,
    observe::Cancel,
};

type Result = std::result::Result<Outcome, Fault>;

/// Containers run through their subcommands only.
pub(super) fn container(_cx: &mut Cx<'_>) -> Result {
    Err(Fault::SYNTAX)
}

fn is_printable(text: &[u8]) -> bool {
    text.iter().all(|byte| (b'!'..=b'~').contains(byte))
}

/// A name fit for a connection.
pub(super) fn valid_name(name: &[u8]) -> std::result::Result<&[u8], Fault> {
    if is_printable(name) {
        return Ok(name);
    }
    Err(Fault::text("ERR Client names cannot contain spaces, newlines or special characters."))
}

/// Names the connection; an empty name removes the name.
pub(super) fn set_name(cx: &mut Cx<'_>, name: &[u8]) {
    if let Some(record) = cx.shard.clients.get_mut(cx.conn.slot) {
        record.name = (!name.is_empty()).then(|| name.into());
    }
}

pub(super) fn id(cx: &mut Cx<'_>) -> Result {
    cx.count(cx.conn.id)
}

pub(super) fn getname(cx: &mut Cx<'_>) -> Result {
    let record = cx.shard.clients.get(cx.conn.slot);
    match record.and_then(|record| record.name.clone()) {
        Some(name) => cx.bulk(&name),
        None => cx.null(),
    }
}

pub(super) fn setname(cx: &mut Cx<'_>) -> Result {
    let name = valid_name(cx.arg(2))?;
    set_name(cx, name);
    cx.ok()
}

pub(super) fn setinfo(cx: &mut Cx<'_>) -> Result {
    let (attribute, value) = (cx.arg(2), cx.arg(3));
    let is_name = attribute.eq_ignore_ascii_case(b"lib-name");
    if !is_name && !attribute.eq_ignore_ascii_case(b"lib-ver") {
        return Err(Fault::quoting("ERR Unrecognized option '", attribute, "'"));
    }
    if !is_printable(value) {
        let why = " cannot contain spaces, newlines or special characters.";
        return Err(Fault::quoting("ERR ", attribute, why));
    }
    if let Some(record) = cx.shard.clients.get_mut(cx.conn.slot) {
        let lib = record.lib.get_or_insert_with(|| Box::new(Lib::default()));
        let value = String::from_utf8_lossy(value).into_owned();
        if is_name {
            lib.name = value;
        } else {
            lib.version = value;
        }
    }
    cx.ok()
}

/// ON or OFF at argument 2.
fn switch(cx: &Cx<'_>) -> std::result::Result<bool, Fault> {
    match () {
        () if cx.is(2, "ON") => Ok(true),
        () if cx.is(2, "OFF") => Ok(false),
        () => Err(Fault::SYNTAX),
    }
}

pub(super) fn no_evict(cx: &mut Cx<'_>) -> Result {
    let on = switch(cx)?;
    if let Some(record) = cx.shard.clients.get_mut(cx.conn.slot) {
        record.no_evict = on;
    }
    cx.ok()
}

pub(super) fn no_touch(cx: &mut Cx<'_>) -> Result {
    let on = switch(cx)?;
    cx.conn.no_touch = on;
    if let Some(record) = cx.shard.clients.get_mut(cx.conn.slot) {
        record.no_touch = on;
    }
    cx.ok()
}

/// Brings the list's record of this connection up to date.
fn sync(cx: &mut Cx<'_>) {
    let (id, now) = (cx.id, cx.now_ms());
    if let Some(record) = cx.shard.clients.get_mut(cx.conn.slot) {
        record.last_command = id;
        record.last_ms = now;
    }
}

pub(super) fn info(cx: &mut Cx<'_>) -> Result {
    sync(cx);
    let mut text = String::new();
    if let Some(record) = cx.shard.clients.get(cx.conn.slot) {
        line(record, cx.now_ms(), Some(cx.row.name), &mut text);
    }
    let version = cx.conn.version;
    reply::verbatim(cx.inline(), version, *b"txt", text.as_bytes());
    Ok(Outcome::Done)
}

/// Restricts the filter to connections of a type.
fn of_type(filter: &mut Filter, name: &[u8]) -> std::result::Result<(), Fault> {
    match name.to_ascii_lowercase().as_slice() {
        b"normal" => filter.subscribes = Some(false),
        b"pubsub" => filter.subscribes = Some(true),
        b"master" | b"slave" | b"replica" => filter.other_type = true,
        _ => return Err(Fault::quoting("ERR Unknown client type '", name, "'")),
    }
    Ok(())
}

pub(super) fn list(cx: &mut Cx<'_>) -> Result {
    let mut filter = Filter::default();
    if cx.argc() == 4 && cx.is(2, "TYPE") {
        of_type(&mut filter, cx.arg(3))?;
    } else if cx.argc() > 3 && cx.is(2, "ID") {
        filter.by_id = true;
        for at in 3..cx.argc() {
            let id = cx.integer(at).map_err(|_| Fault::text("ERR Invalid client ID"))?;
            filter.ids.extend(u64::try_from(id));
        }
    } else if cx.argc() != 2 {
        return Err(Fault::SYNTAX);
    }
    sync(cx);
    cx.gather(Plan::ClientList(filter))
}

/// The filters of CLIENT KILL's new form.
fn kill_filter(cx: &Cx<'_>) -> std::result::Result<Filter, Fault> {
    let mut filter = Filter { skip: Some(cx.conn.id), ..Filter::default() };
    for at in (2..cx.argc()).step_by(2) {
        let value = cx.arg(at + 1);
        if at + 1 >= cx.argc() {
            return Err(Fault::SYNTAX);
        } else if cx.is(at, "ID") {
            let id = cx.integer(at + 1).ok().filter(|&id| id > 0);
            let id = id.ok_or(Fault::text("ERR client-id should be greater than 0"))?;
            filter.by_id = true;
            filter.ids = u64::try_from(id).into_iter().collect();
        } else if cx.is(at, "TYPE") {
            of_type(&mut filter, value)?;
        } else if cx.is(at, "ADDR") {
            filter.peer = Some(value.to_vec());
        } else if cx.is(at, "LADDR") {
            filter.local = Some(value.to_vec());
        } else if cx.is(at, "USER") {
            if cx.shard.acl.get(value).is_none() {
                return Err(Fault::quoting("ERR No such user '", value, "'"));
            }
            filter.user = Some(value.to_vec());
        } else if cx.is(at, "SKIPME") && cx.is(at + 1, "yes") {
            filter.skip = Some(cx.conn.id);
        } else if cx.is(at, "SKIPME") && cx.is(at + 1, "no") {
            filter.skip = None;
        } else {
            return Err(Fault::SYNTAX);
        }
    }
    Ok(filter)
}

pub(super) fn kill(cx: &mut Cx<'_>) -> Result {
    let old_form = cx.argc() == 3;
    let filter = if old_form {
        Filter { peer: Some(cx.arg(2).to_vec()), ..Filter::default() }
    } else {
        kill_filter(cx)?
    };
    let outcome = cx.gather(Plan::ClientKill { filter, old_form })?;
    // A connection that killed itself gets its reply first.
    let own = matches!(outcome, Outcome::Done) && cx.shard.clients.take_own_kill(cx.conn.id);
    Ok(if own { Outcome::Close } else { outcome })
}

pub(super) fn unblock(cx: &mut Cx<'_>) -> Result {
    let why = match cx.argc() {
        3 => Cancel::TimeOut,
        4 if cx.is(3, "TIMEOUT") => Cancel::TimeOut,
        4 if cx.is(3, "ERROR") => Cancel::Error,
        4 => {
            return Err(Fault::text("ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR"));
        }
        _ => {
            let before = "ERR unknown subcommand or wrong number of arguments for '";
            return Err(Fault::quoting(before, cx.arg(1), "'. Try CLIENT HELP."));
        }
    };
    let id = u64::try_from(cx.integer(2)?).unwrap_or(0);
    cx.gather(Plan::ClientUnblock { id, why })
}

pub(super) fn help(cx: &mut Cx<'_>) -> Result {
    cx.help(
        "CLIENT",
        &[
            "CACHING (YES|NO)",
            "    Enable/disable tracking of the keys for next command in OPTIN/OPTOUT modes.",
            "GETREDIR",
            "    Return the client ID we are redirecting to when tracking is enabled.",
            "GETNAME",
            "    Return the name of the current connection.",
            "ID",
            "    Return the ID of the current connection.",
            "INFO",
            "    Return information about the current client connection.",
            "KILL <ip:port>",
            "    Kill connection made from <ip:port>.",
            "KILL <option> <value> [<option> <value> [...]]",
            "    Kill connections. Options are:",
            "    * ADDR (<ip:port>|<unixsocket>:0)",
            "      Kill connections made from the specified address",
            "    * LADDR (<ip:port>|<unixsocket>:0)",
            "      Kill connections made to specified local address",
            "    * TYPE (NORMAL|MASTER|REPLICA|PUBSUB)",
            "      Kill connections by type.",
            "    * USER <username>",
            "      Kill connections authenticated by <username>.",
            "    * SKIPME (YES|NO)",
            "      Skip killing current connection (default: yes).",
            "LIST [options ...]",
            "    Return information about client connections. Options:",
            "    * TYPE (NORMAL|MASTER|REPLICA|PUBSUB)",
            "      Return clients of specified type.",
            "PAUSE <timeout> [WRITE|ALL]",
            "    Suspend all, or just write, clients for <timeout> milliseconds.",
            "UNPAUSE",
            "    Stop the current client pause, resuming traffic.",
            "REPLY (ON|OFF|SKIP)",
            "    Control the replies sent to the current connection.",
            "SETNAME <name>",
            "    Assign the name <name> to the current connection.",
            "TRACKING (ON|OFF) [REDIRECT <id>] [BCAST] [PREFIX <prefix> [...]]",
            "         [OPTIN] [OPTOUT] [NOLOOP]",
            "    Control server assisted client side caching.",
            "TRACKINGINFO",
            "    Report tracking status for the current connection.",
            "SETINFO <option> <value>",
            "    Set client meta attr. Options are:",
            "    * LIB-NAME: the client lib name.",
            "    * LIB-VER: the client lib version.",
            "UNBLOCK <clientid> [TIMEOUT|ERROR]",
            "    Unblock the specified blocked client.",
            "NO-EVICT (ON|OFF)",
            "    Protect current client connection from eviction.",
            "NO-TOUCH (ON|OFF)",
            "    Will not touch LRU/LFU stats when this mode is on.",
        ],
    )
}
