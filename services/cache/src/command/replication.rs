//! REPLICAOF, ROLE, WAIT, FAILOVER, and what replicas and masters say to each other: REPLCONF, PSYNC, SYNC.
//!
//! Next: [`crate::repl`] for the link to a master.

use std::fmt::Write as _;

use view::Instant;
use wire::resp::{parse_i64, reply};

use super::{Cx, Fault, Outcome};
use crate::{
    admin::{self, Ask},
    repl::{Facts, Link, Master},
    shard::Shard,
};

type Result = std::result::Result<Outcome, Fault>;

pub(super) fn replicaof(cx: &mut Cx<'_>) -> Result {
    let follows = cx.shard.repl.facts().master;
    if cx.is(1, "NO") && cx.is(2, "ONE") {
        if follows.is_none() {
            return cx.ok();
        }
        return cx.ask(Ask::Follow(None), admin::ok);
    }
    let port = parse_i64(cx.arg(2)).and_then(|port| u16::try_from(port).ok());
    let port = port.ok_or(Fault::text("ERR Invalid master port"))?;
    let host = String::from_utf8_lossy(cx.arg(1)).into_owned();
    let master = Master { host, port };
    if follows.as_ref() == Some(&master) {
        return cx.simple("OK Already connected to specified master");
    }
    cx.ask(Ask::Follow(Some(master)), admin::ok)
}

pub(super) fn role(cx: &mut Cx<'_>) -> Result {
    let (facts, offset) = (cx.shard.repl.facts(), cx.shard.repl.offset());
    let offset = i64::try_from(offset).unwrap_or(i64::MAX);
    let Facts { master: Some(master), link, .. } = facts else {
        let out = cx.inline();
        reply::array(out, 3);
        reply::bulk(out, b"master");
        reply::integer(out, offset);
        reply::array(out, 0);
        return Ok(Outcome::Done);
    };
    let out = cx.inline();
    reply::array(out, 5);
    reply::bulk(out, b"slave");
    reply::bulk(out, master.host.as_bytes());
    reply::integer(out, master.port.into());
    reply::bulk(out, link.name().as_bytes());
    reply::integer(out, if link == Link::Connect { -1 } else { offset });
    Ok(Outcome::Done)
}

/// There are no replicas, so there is nothing to wait for.
pub(super) fn wait(cx: &mut Cx<'_>) -> Result {
    if cx.shard.role.follows {
        return Err(Fault::text(
            "ERR WAIT cannot be used with replica instances. Please also note that since Redis 4.0 if a replica is \
             configured to be writable (which is not the default) writes to replicas are just local and are not \
             propagated.",
        ));
    }
    cx.integer(1)?;
    let timeout =
        parse_i64(cx.arg(2)).ok_or(Fault::text("ERR timeout is not an integer or out of range"))?;
    if timeout < 0 {
        return Err(Fault::text("ERR timeout is negative"));
    }
    cx.int(0)
}

pub(super) fn failover(cx: &mut Cx<'_>) -> Result {
    if cx.argc() == 2 && cx.is(1, "ABORT") {
        return Err(Fault::text("ERR No failover in progress."));
    }
    let mut at = 1;
    while at < cx.argc() {
        let left = cx.argc() - 1 - at;
        if cx.is(at, "TIMEOUT") && left >= 1 {
            if cx.integer(at + 1)? <= 0 {
                return Err(Fault::text("ERR FAILOVER timeout must be greater than 0"));
            }
            at += 2;
        } else if cx.is(at, "TO") && left >= 2 {
            cx.integer(at + 2)?;
            at += 3;
        } else if cx.is(at, "FORCE") {
            at += 1;
        } else {
            return Err(Fault::SYNTAX);
        }
    }
    if cx.shard.role.follows {
        return Err(Fault::text("ERR FAILOVER is not valid when server is a replica."));
    }
    Err(Fault::text("ERR FAILOVER requires connected replicas."))
}

/// REPLCONF: of a master, that it wants to know how far this replica is; of a would-be replica, what it says of itself.
pub(super) fn replconf(cx: &mut Cx<'_>) -> Result {
    if cx.conn.applies {
        if cx.is(1, "GETACK") {
            cx.shard.ask_offset();
        }
        return Ok(Outcome::Done);
    }
    if cx.argc().is_multiple_of(2) {
        return Err(Fault::SYNTAX);
    }
    let known = ["listening-port", "ip-address", "capa", "ack", "fack", "getack", "rdb-only"];
    for at in (1..cx.argc()).step_by(2) {
        if !known.iter().any(|word| cx.is(at, word)) {
            let before = "ERR Unrecognized REPLCONF option: ";
            return Err(Fault::quoting(before, cx.arg(at), ""));
        }
    }
    cx.ok()
}

/// PSYNC and SYNC: nobody can follow this server.
pub(super) fn psync(_: &mut Cx<'_>) -> Result {
    Err(Fault::text("ERR this server has no replicas: it can be one, but nobody can follow it"))
}

/// The section `replication` of INFO.
pub(super) fn info(shard: &Shard, now: Instant) -> String {
    let (facts, common) = (shard.repl.facts(), &shard.repl);
    let setting = |name: &str| shard.settings.get(name).to_owned();
    let yes = |name: &str| u8::from(shard.settings.get(name) == "yes");
    let mut text = String::from("# Replication\r\n");
    let mut line = |name: &str, value: &dyn std::fmt::Display| {
        let _ = write!(text, "{name}:{value}\r\n");
    };
    let offset = common.offset();
    if let Some(master) = &facts.master {
        let is_up = facts.link == Link::Connected;
        line("role", &"slave");
        line("master_host", &master.host);
        line("master_port", &master.port);
        line("master_link_status", &if is_up { "up" } else { "down" });
        line("master_last_io_seconds_ago", &common.silent_s(now));
        line("master_sync_in_progress", &u8::from(facts.link == Link::Sync));
        line("slave_read_repl_offset", &common.read());
        line("slave_repl_offset", &offset);
        if facts.link == Link::Sync {
            let total = facts.sync_bytes.map_or(-1, |bytes| i64::try_from(bytes).unwrap_or(-1));
            let read = i64::try_from(facts.sync_read).unwrap_or(i64::MAX);
            line("master_sync_total_bytes", &total.max(0));
            line("master_sync_read_bytes", &read);
            line("master_sync_left_bytes", &if total < 0 { -1 } else { total - read });
            line("master_sync_last_io_seconds_ago", &0);
        }
        if !is_up {
            line(
                "master_link_down_since_seconds",
                &match facts.down_since_s {
                    0 => -1,
                    since_s => i64::try_from(now.unix_s().saturating_sub(since_s)).unwrap_or(-1),
                },
            );
        }
        line("slave_priority", &setting("replica-priority"));
        line("slave_read_only", &yes("replica-read-only"));
        line("replica_announced", &yes("replica-announced"));
    } else {
        line("role", &"master");
    }
    line("connected_slaves", &0);
    line("master_failover_state", &"no-failover");
    line("master_replid", &facts.replid);
    line("master_replid2", &facts.replid2);
    line("master_repl_offset", &offset);
    let second = facts.second_offset.and_then(|offset| i64::try_from(offset).ok());
    line("second_repl_offset", &second.unwrap_or(-1));
    line("repl_backlog_active", &0);
    line("repl_backlog_size", &setting("repl-backlog-size"));
    line("repl_backlog_first_byte_offset", &0);
    line("repl_backlog_histlen", &0);
    text
}
