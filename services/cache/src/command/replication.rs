//! REPLICAOF, ROLE, WAIT, FAILOVER, and what replicas and masters say to each other: REPLCONF, PSYNC, SYNC, REPLFLOWS,
//! REPLFLOW.
//!
//! Next: [`crate::repl`] for the link to a master, [`crate::flow`] for replicas of this server.

use std::fmt::Write as _;

use view::Instant;
use wire::resp::{parse_i64, reply};

use super::{Cx, Fault, Mode, Outcome, Waiting};
use crate::{
    admin::{self, Ask},
    flow::{
        Behind, Flow,
        failover::Order,
        wait::{self, Wait},
    },
    repl::{Facts, Link, Master},
    shard::Shard,
    stats::Report,
    work::{Job, Response},
};

type Result = std::result::Result<Outcome, Fault>;

pub(super) fn replicaof(cx: &mut Cx<'_>) -> Result {
    let follows = cx.shard.repl.facts().master;
    if cx.is(1, "NO") && cx.is(2, "ONE") {
        if follows.is_none() {
            return cx.ok();
        }
        if cx.conn.mode == Mode::Direct {
            // What has come is applied first.
            return Ok(Outcome::Wait(Box::new(Waiting::Job(Job::Promote))));
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
        return cx.ask(Ask::Followers, |reply, _, responses| {
            master_role(reply.out.inline_mut(), responses, reply.now);
        });
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

fn master_role(out: &mut Vec<u8>, responses: Vec<Response>, now: Instant) {
    let shards = wait::answers(responses);
    let offset: u64 = shards.iter().map(|followers| followers.end).sum();
    let flows: Vec<Behind> = shards.into_iter().flat_map(|followers| followers.flows).collect();
    let replicas = replicas(&flows, now);
    reply::array(out, 3);
    reply::bulk(out, b"master");
    reply::integer(out, i64::try_from(offset).unwrap_or(i64::MAX));
    reply::array(out, replicas.len());
    for replica in replicas {
        let (ip, port) = replica.address();
        reply::array(out, 3);
        for word in [ip, port, &replica.offset.to_string()] {
            reply::bulk(out, word.as_bytes());
        }
    }
}

/// A replica, as all shards together see it.
struct Replica<'a> {
    name: &'a str,
    flows: usize,
    is_online: bool,
    offset: u64,
    lag_s: u64,
}

impl<'a> Replica<'a> {
    fn address(&self) -> (&'a str, &'a str) {
        self.name.rsplit_once(':').unwrap_or((self.name, "0"))
    }
}

/// Who follows this server, by its flows.
fn replicas(flows: &[Behind], now: Instant) -> Vec<Replica<'_>> {
    let mut all: Vec<Replica<'_>> = Vec::new();
    for flow in flows {
        let lag_s = now.unix_ms().saturating_sub(flow.heard_ms) / 1_000;
        match all.iter_mut().find(|replica| replica.name == flow.replica) {
            Some(replica) => {
                replica.flows += 1;
                replica.is_online &= flow.is_online;
                replica.offset += flow.acked;
                replica.lag_s = replica.lag_s.max(lag_s);
            }
            None => all.push(Replica {
                name: &flow.replica,
                flows: 1,
                is_online: flow.is_online,
                offset: flow.acked,
                lag_s,
            }),
        }
    }
    all
}

pub(super) fn wait(cx: &mut Cx<'_>) -> Result {
    if cx.shard.role.follows {
        return Err(Fault::text(
            "ERR WAIT cannot be used with replica instances. Please also note that since Redis 4.0 if a replica is \
             configured to be writable (which is not the default) writes to replicas are just local and are not \
             propagated.",
        ));
    }
    let replicas = cx.integer(1)?;
    let timeout =
        parse_i64(cx.arg(2)).ok_or(Fault::text("ERR timeout is not an integer or out of range"))?;
    if timeout < 0 {
        return Err(Fault::text("ERR timeout is negative"));
    }
    if cx.conn.mode != Mode::Direct {
        // Inside a transaction nobody is waited for, and only the shards know who has what.
        return cx.int(0);
    }
    let replicas = u64::try_from(replicas).unwrap_or(0);
    let wait = Wait::new(replicas, timeout.unsigned_abs(), cx.now);
    Ok(Outcome::Wait(Box::new(Waiting::Replicas(wait))))
}

pub(super) fn failover(cx: &mut Cx<'_>) -> Result {
    let job = |job| Ok(Outcome::Wait(Box::new(Waiting::Job(job))));
    if cx.argc() == 2 && cx.is(1, "ABORT") {
        return job(Job::EndFailover);
    }
    let mut order = Order::default();
    let mut at = 1;
    while at < cx.argc() {
        let left = cx.argc() - 1 - at;
        if cx.is(at, "TIMEOUT") && left >= 1 {
            let timeout_ms = cx.integer(at + 1)?;
            if timeout_ms <= 0 {
                return Err(Fault::text("ERR FAILOVER timeout must be greater than 0"));
            }
            order.timeout_ms = Some(timeout_ms.unsigned_abs());
            at += 2;
        } else if cx.is(at, "TO") && left >= 2 {
            let port = cx.integer(at + 2)?;
            let host = String::from_utf8_lossy(cx.arg(at + 1)).into_owned();
            order.to = Some(format!("{host}:{port}"));
            at += 3;
        } else if cx.is(at, "FORCE") {
            order.is_forced = true;
            at += 1;
        } else {
            return Err(Fault::SYNTAX);
        }
    }
    if cx.shard.role.follows {
        return Err(Fault::text("ERR FAILOVER is not valid when server is a replica."));
    }
    if cx.conn.mode != Mode::Direct {
        return Err(Fault::text("ERR FAILOVER cannot be part of a transaction."));
    }
    job(Job::Failover(Box::new(order)))
}

/// REPLCONF: of a master, that it wants to know how far this replica is; of a would-be replica, what it says of itself.
pub(super) fn replconf(cx: &mut Cx<'_>) -> Result {
    if cx.conn.applies.is_on() {
        if cx.is(1, "GETACK") {
            cx.shard.ask_offset();
        }
        return Ok(Outcome::Done);
    }
    if cx.is(1, "ACK") && cx.shard.flows.has(cx.conn.id) {
        let to = parse_i64(cx.arg(2)).and_then(|to| u64::try_from(to).ok());
        cx.shard.flow_acked(cx.conn.id, to, cx.now);
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

/// PSYNC and SYNC: only those who read flows can follow this server.
pub(super) fn psync(_: &mut Cx<'_>) -> Result {
    Err(Fault::text("ERR only servers of this kind can follow this server: they ask for REPLFLOWS"))
}

fn may_be_followed(cx: &Cx<'_>) -> std::result::Result<(), Fault> {
    if cx.shard.role.follows {
        return Err(Fault::text("ERR this server is a replica itself: follow its master"));
    }
    Ok(())
}

/// REPLFLOWS: the history, how many databases there are, and of each shard the history of its journal, a place there
/// from which a replica may begin (with FULL), and the port.
pub(super) fn replflows(cx: &mut Cx<'_>) -> Result {
    may_be_followed(cx)?;
    match cx.argc() {
        1 => cx.ask(Ask::FlowPlace, reply_flows),
        2 if cx.is(1, "FULL") => cx.ask(Ask::Cut, reply_flows),
        _ => Err(Fault::SYNTAX),
    }
}

fn reply_flows(reply: &mut admin::Replying<'_>, _: &Ask, responses: Vec<Response>) {
    let (shard, mut text) = (&*reply.shard, String::new());
    let databases = shard.store.config().databases;
    let _ = write!(text, "FLOWS {} {databases}", shard.repl.facts().replid);
    for (index, response) in (0..).zip(&responses) {
        let (history, at) = match response {
            Response::Counts(counts) => match counts.as_slice() {
                [history, at] => (*history, *at),
                _ => (0, 0),
            },
            _ => (0, 0),
        };
        let _ = write!(text, " {history}:{at}:{}", shard.topology.port(index));
    }
    reply::simple(reply.out.inline_mut(), &text);
}

/// REPLFLOW shard history offset port FULL|CONTINUE: from now on this connection is sent what the shard changes.
pub(super) fn replflow(cx: &mut Cx<'_>) -> Result {
    may_be_followed(cx)?;
    let index = i64::from(cx.shard.index);
    if cx.integer(1)? != index {
        return Err(Fault::owned(format!("WRONGSHARD this is shard {index}")));
    }
    let number = |at| parse_i64(cx.arg(at)).and_then(|number| u64::try_from(number).ok());
    let is_full = cx.is(5, "FULL");
    if !is_full && !cx.is(5, "CONTINUE") {
        return Err(Fault::SYNTAX);
    }
    let (Some(history), Some(at), Some(port)) = (number(2), number(3), number(4)) else {
        return Err(Fault::NOT_INTEGER);
    };
    let Some(record) = cx.shard.clients.get(cx.conn.slot) else {
        return Err(Fault::text("ERR REPLFLOW is for connections of replicas"));
    };
    let ip = record.peer.rsplit_once(':').map_or(&*record.peer, |(ip, _)| ip);
    let flow = Flow::new(cx.conn.id, record.conn, format!("{ip}:{port}"));
    if cx.shard.begin_flow(flow, (history, at), is_full, cx.now) {
        return cx.ok();
    }
    Err(Fault::text(
        "NOCONTINUE what comes next is not kept any more, or there are too many replicas",
    ))
}

/// The section `replication` of INFO.
pub(super) fn info(shard: &Shard, report: &Report, now: Instant) -> String {
    let (facts, common) = (shard.repl.facts(), &shard.repl);
    let setting = |name: &str| shard.settings.get(name).to_owned();
    let yes = |name: &str| u8::from(shard.settings.get(name) == "yes");
    let mut text = String::from("# Replication\r\n");
    let mut line = |name: &str, value: &dyn std::fmt::Display| {
        let _ = write!(text, "{name}:{value}\r\n");
    };
    let end: u64 = report.backlog.iter().map(|(_, end)| end).sum();
    let is_followed = facts.master.is_none() && !report.backlog.is_empty();
    let offset = if is_followed { end } else { common.offset() };
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
    let replicas = replicas(&report.followers, now);
    line("connected_slaves", &replicas.len());
    for (at, replica) in replicas.iter().enumerate() {
        let (ip, port) = replica.address();
        let is_online = replica.is_online && replica.flows == usize::from(shard.count);
        let state = if is_online { "online" } else { "send_bulk" };
        let (offset, lag_s) = (replica.offset, replica.lag_s);
        let text = format!("ip={ip},port={port},state={state},offset={offset},lag={lag_s}");
        line(&format!("slave{at}"), &text);
    }
    line("master_failover_state", &common.failover().name());
    line("master_replid", &facts.replid);
    line("master_replid2", &facts.replid2);
    line("master_repl_offset", &offset);
    let second = facts.second_offset.and_then(|offset| i64::try_from(offset).ok());
    line("second_repl_offset", &second.unwrap_or(-1));
    let start: u64 = report.backlog.iter().map(|(start, _)| start).sum();
    line("repl_backlog_active", &u8::from(!report.backlog.is_empty()));
    line("repl_backlog_size", &setting("repl-backlog-size"));
    line("repl_backlog_first_byte_offset", &start);
    line("repl_backlog_histlen", &(end - start));
    text
}
