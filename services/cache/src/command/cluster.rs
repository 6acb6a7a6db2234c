//! CLUSTER: the shards of this host as the nodes of a Redis cluster.
//!
//! A connection that asks for the topology and came in on a shard's own port gets MOVED from then
//! on; all others are served by handing commands on.

use std::fmt::Write as _;

use logic::slot::key_slot;
use view::Output;
use wire::resp::{Version, reply};

use super::{Conn, Cx, Fault, Outcome};
use crate::{multi::Plan, route::SLOTS, shard::Shard, work::Response};

type Result = std::result::Result<Outcome, Fault>;

/// Containers run through their subcommands only.
pub(super) fn container(_cx: &mut Cx<'_>) -> Result {
    Err(Fault::SYNTAX)
}

/// The host a connection reached us by, or the announced one.
pub(super) fn host(shard: &Shard, conn: &Conn) -> String {
    let local = shard.clients.get(conn.slot).map(|record| record.local.clone());
    let host = local.as_deref().and_then(|local| local.rsplit_once(':')).map(|(host, _)| host);
    match host {
        Some(host) if !host.is_empty() && !host.starts_with('/') => {
            host.trim_matches(['[', ']']).into()
        }
        _ => shard.topology.host().into(),
    }
}

pub(super) fn keyslot(cx: &mut Cx<'_>) -> Result {
    cx.int(key_slot(cx.arg(2)).into())
}

pub(super) fn myid(cx: &mut Cx<'_>) -> Result {
    let id = cx.shard.topology.id(cx.shard.index).to_owned();
    cx.bulk(id.as_bytes())
}

pub(super) fn info(cx: &mut Cx<'_>) -> Result {
    let shards = cx.shard.count;
    let text = format!(
        "cluster_state:ok\r\ncluster_slots_assigned:{SLOTS}\r\ncluster_slots_ok:{SLOTS}\r\n\
         cluster_slots_pfail:0\r\ncluster_slots_fail:0\r\ncluster_known_nodes:{shards}\r\n\
         cluster_size:{shards}\r\ncluster_current_epoch:{shards}\r\ncluster_my_epoch:{}\r\n\
         cluster_stats_messages_sent:0\r\ncluster_stats_messages_received:0\r\n\
         total_cluster_links_buffer_limit_exceeded:0\r\n",
        cx.shard.index + 1,
    );
    let version = cx.conn.version;
    reply::verbatim(cx.inline(), version, *b"txt", text.as_bytes());
    Ok(Outcome::Done)
}

pub(super) fn nodes(cx: &mut Cx<'_>) -> Result {
    cx.conn.knows_topology = true;
    let host = host(cx.shard, cx.conn);
    let mut text = String::new();
    for index in 0..cx.shard.count {
        node_line(cx.shard, index, &host, &mut text);
    }
    let version = cx.conn.version;
    reply::verbatim(cx.inline(), version, *b"txt", text.as_bytes());
    Ok(Outcome::Done)
}

fn node_line(shard: &Shard, index: u16, host: &str, text: &mut String) {
    let topology = &shard.topology;
    let (port, (first, last)) = (topology.port(index), topology.range(index));
    let flags = if index == shard.index { "myself,master" } else { "master" };
    // There is no bus between shards; clients expect its port 10,000 above.
    let bus = u32::from(port) + 10_000;
    let _ = writeln!(
        text,
        "{} {host}:{port}@{bus} {flags} - 0 0 {} connected {first}-{last}",
        topology.id(index),
        index + 1,
    );
}

pub(super) fn slots(cx: &mut Cx<'_>) -> Result {
    cx.conn.knows_topology = true;
    let (host, version) = (host(cx.shard, cx.conn), cx.conn.version);
    let topology = &cx.shard.topology;
    let out = cx.out.inline_mut();
    reply::array(out, usize::from(cx.shard.count));
    for index in 0..cx.shard.count {
        let (first, last) = topology.range(index);
        reply::array(out, 3);
        reply::integer(out, first.into());
        reply::integer(out, last.into());
        reply::array(out, 4);
        reply::bulk(out, host.as_bytes());
        reply::integer(out, topology.port(index).into());
        reply::bulk(out, topology.id(index).as_bytes());
        reply::map(out, version, 0);
    }
    Ok(Outcome::Done)
}

pub(super) fn shards(cx: &mut Cx<'_>) -> Result {
    cx.conn.knows_topology = true;
    let (host, version) = (host(cx.shard, cx.conn), cx.conn.version);
    let topology = &cx.shard.topology;
    let out = cx.out.inline_mut();
    reply::array(out, usize::from(cx.shard.count));
    for index in 0..cx.shard.count {
        let (first, last) = topology.range(index);
        reply::map(out, version, 2);
        reply::bulk(out, b"slots");
        reply::array(out, 2);
        reply::integer(out, first.into());
        reply::integer(out, last.into());
        reply::bulk(out, b"nodes");
        reply::array(out, 1);
        shard_node(out, version, topology.id(index), topology.port(index), &host);
    }
    Ok(Outcome::Done)
}

fn shard_node(out: &mut Vec<u8>, version: Version, id: &str, port: u16, host: &str) {
    reply::map(out, version, 7);
    reply::bulk(out, b"id");
    reply::bulk(out, id.as_bytes());
    reply::bulk(out, b"port");
    reply::integer(out, port.into());
    for (field, value) in [("ip", host), ("endpoint", host), ("role", "master")] {
        reply::bulk(out, field.as_bytes());
        reply::bulk(out, value.as_bytes());
    }
    reply::bulk(out, b"replication-offset");
    reply::integer(out, 0);
    reply::bulk(out, b"health");
    reply::bulk(out, b"online");
}

/// The slot at argument 2.
fn slot(cx: &Cx<'_>) -> std::result::Result<u16, Fault> {
    u16::try_from(cx.integer(2)?)
        .ok()
        .filter(|&slot| slot < SLOTS)
        .ok_or(Fault::text("ERR Invalid slot"))
}

pub(super) fn countkeysinslot(cx: &mut Cx<'_>) -> Result {
    let slot = slot(cx)?;
    cx.gather_node(Plan::Slot { slot, most: 0, count: true })
}

/// Most keys CLUSTER GETKEYSINSLOT gives at once.
const SLOT_KEYS_MAX: usize = 10_000;

pub(super) fn getkeysinslot(cx: &mut Cx<'_>) -> Result {
    let invalid = || Fault::text("ERR Invalid slot or number of keys");
    let slot = u16::try_from(cx.integer(2)?).ok().filter(|&slot| slot < SLOTS);
    let most = usize::try_from(cx.integer(3)?).map_err(|_| invalid())?.min(SLOT_KEYS_MAX);
    let slot = slot.ok_or_else(invalid)?;
    cx.gather_node(Plan::Slot { slot, most, count: false })
}

/// A slot's number of keys, or its keys.
pub(crate) fn reply_slot(out: &mut Output, count: bool, responses: Vec<Response>) {
    let Some(Response::Keys { cursor, keys }) = responses.into_iter().next() else { return };
    if count {
        reply::integer(out.inline_mut(), i64::try_from(cursor).unwrap_or(i64::MAX));
    } else {
        super::keyspace::reply_keys(out, keys);
    }
}

pub(super) fn links(cx: &mut Cx<'_>) -> Result {
    // Shards share memory rings, not links of a cluster bus.
    reply::array(cx.inline(), 0);
    Ok(Outcome::Done)
}

pub(super) fn replicas(cx: &mut Cx<'_>) -> Result {
    let id = cx.arg(2);
    let known = (0..cx.shard.count)
        .any(|index| cx.shard.topology.id(index).as_bytes().eq_ignore_ascii_case(id));
    if !known {
        return Err(Fault::quoting("ERR Unknown node ", id, ""));
    }
    reply::array(cx.inline(), 0);
    Ok(Outcome::Done)
}

pub(super) fn help(cx: &mut Cx<'_>) -> Result {
    cx.help(
        "CLUSTER",
        &[
            "COUNTKEYSINSLOT <slot>",
            "    Return the number of keys in <slot>.",
            "GETKEYSINSLOT <slot> <count>",
            "    Return key names stored by current node in a slot.",
            "INFO",
            "    Return information about the cluster.",
            "KEYSLOT <key>",
            "    Return the hash slot for <key>.",
            "MYID",
            "    Return the node id.",
            "NODES",
            "    Return cluster configuration seen by node. Output format:",
            "    <id> <ip:port> <flags> <master> <pings> <pongs> <epoch> <link> <slot> ...",
            "REPLICAS <node-id>",
            "    Return <node-id> replicas.",
            "SLOTS",
            "    Return information about slots range mappings. Each range is made of:",
            "    start, end, master and replicas IP addresses, ports and ids",
            "SHARDS",
            "    Return information about slot range mappings and the nodes associated with them.",
            "LINKS",
            "    Return information about all network links between this node and its peers.",
            "    Output format is an array where each array element is a map containing attributes of a link",
        ],
    )
}
