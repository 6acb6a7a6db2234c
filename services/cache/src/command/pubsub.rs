//! Publish and subscribe: SUBSCRIBE and its kin, PUBLISH, SPUBLISH, PUBSUB.
//!
//! Subscriptions are of this shard's connections only; a message goes to every shard on which somebody listens, and
//! the reply counts them all. Next: `crate::pubsub` for who listens to what.

use view::{INLINE_MAX_BYTES, Output};
use wire::resp::{Version, reply};

use super::{Conn, Cx, Fault, Mode, Outcome};
use crate::{
    multi::Plan,
    pubsub::{Kind, Payload},
    shard::Shard,
    work::{Op, Response},
};

type Result = std::result::Result<Outcome, Fault>;

/// One reply of SUBSCRIBE and its kin.
fn confirm(out: &mut Output, version: Version, word: &str, name: Option<&[u8]>, count: usize) {
    let out = out.inline_mut();
    reply::push(out, version, 3);
    reply::bulk(out, word.as_bytes());
    match name {
        Some(name) => reply::bulk(out, name),
        None => reply::null(out, version),
    }
    reply::integer(out, i64::try_from(count).unwrap_or(i64::MAX));
}

/// What the replies count: shard channels apart from channels and patterns.
fn count(shard: &Shard, slot: u32, kind: Kind) -> usize {
    let [channels, patterns, sharded] = shard.pubsub.counts(slot);
    if kind == Kind::Shard { sharded } else { channels + patterns }
}

/// Tells the connection, the list of connections and the other shards what has changed.
fn settle(shard: &mut Shard, conn: &mut Conn) {
    let counts = shard.pubsub.counts(conn.slot);
    conn.subscribes = counts != [0; 3];
    conn.settle();
    if let Some(record) = shard.clients.get_mut(conn.slot) {
        record.subscriptions = counts;
    }
    shard.tell_hearing();
}

fn enter(cx: &mut Cx<'_>, kind: Kind, word: &str) -> Result {
    let (slot, version) = (cx.conn.slot, cx.conn.version);
    cx.shard.mail.open(slot, version);
    for at in 1..cx.argc() {
        let name = cx.arg(at);
        cx.shard.pubsub.add(slot, kind, name);
        let count = count(cx.shard, slot, kind);
        confirm(cx.out, version, word, Some(name), count);
    }
    settle(cx.shard, cx.conn);
    Ok(Outcome::Done)
}

fn leave(cx: &mut Cx<'_>, kind: Kind, word: &str) -> Result {
    let (slot, version) = (cx.conn.slot, cx.conn.version);
    let named: Vec<Vec<u8>> = (1..cx.argc()).map(|at| cx.arg(at).to_vec()).collect();
    let all = || cx.shard.pubsub.topics(slot, kind).iter().map(|name| name.to_vec()).collect();
    let names = if named.is_empty() { all() } else { named };
    if names.is_empty() {
        confirm(cx.out, version, word, None, count(cx.shard, slot, kind));
    }
    for name in names {
        cx.shard.pubsub.remove(slot, kind, &name);
        let count = count(cx.shard, slot, kind);
        confirm(cx.out, version, word, Some(&name), count);
    }
    settle(cx.shard, cx.conn);
    Ok(Outcome::Done)
}

/// Ends all subscriptions without a word: RESET.
pub(super) fn leave_all(shard: &mut Shard, conn: &mut Conn) {
    shard.pubsub.remove_all(conn.slot);
    settle(shard, conn);
}

pub(super) fn subscribe(cx: &mut Cx<'_>) -> Result {
    enter(cx, Kind::Channel, "subscribe")
}

pub(super) fn psubscribe(cx: &mut Cx<'_>) -> Result {
    enter(cx, Kind::Pattern, "psubscribe")
}

pub(super) fn ssubscribe(cx: &mut Cx<'_>) -> Result {
    enter(cx, Kind::Shard, "ssubscribe")
}

pub(super) fn unsubscribe(cx: &mut Cx<'_>) -> Result {
    leave(cx, Kind::Channel, "unsubscribe")
}

pub(super) fn punsubscribe(cx: &mut Cx<'_>) -> Result {
    leave(cx, Kind::Pattern, "punsubscribe")
}

pub(super) fn sunsubscribe(cx: &mut Cx<'_>) -> Result {
    leave(cx, Kind::Shard, "sunsubscribe")
}

/// PING of a RESP2 subscriber, which can read nothing but messages.
pub(crate) fn ping(cx: &mut Cx<'_>) -> Result {
    if cx.argc() > 2 {
        return Err(Fault::arity("ping"));
    }
    let text = cx.arg(1);
    let out = cx.inline();
    reply::array(out, 2);
    reply::bulk(out, b"pong");
    reply::bulk(out, text);
    Ok(Outcome::Done)
}

fn send(cx: &mut Cx<'_>, kind: Kind) -> Result {
    let (channel, part) = (cx.arg(1), cx.arg(2));
    if cx.conn.scripted && cx.shard.count > 1 {
        // The run may have to begin anew: it is sent when the script has ended, and who hears it elsewhere is not counted.
        let listeners = cx.shard.pubsub.hear(kind, channel);
        let payload = bytes::Bytes::copy_from_slice(part);
        cx.shard.elsewhere.keep_message(kind, channel, payload)?;
        return cx.count(listeners);
    }
    let shared = (part.len() >= INLINE_MAX_BYTES).then(|| cx.shared(2));
    let payload = shared.as_ref().map_or(Payload::Copy(part), Payload::Shared);
    let here = cx.shard.publish(kind, channel, payload);
    if cx.shard.count > 1 {
        let targets = cx.shard.topology.hearing(kind.hearing(), cx.shard.index);
        if !targets.is_empty() {
            let op = Op::Publish { kind, channel: channel.into(), payload: cx.shared(2) };
            return cx.gather(Plan::Publish { targets, here, op: Box::new(op) });
        }
    }
    if cx.conn.subscribes && cx.conn.mode == Mode::Direct {
        // A connection has its own messages before the reply.
        cx.shard.mail.take(cx.conn.slot, cx.out);
    }
    cx.count(here)
}

pub(super) fn publish(cx: &mut Cx<'_>) -> Result {
    send(cx, Kind::Channel)
}

pub(super) fn spublish(cx: &mut Cx<'_>) -> Result {
    send(cx, Kind::Shard)
}

/// Containers run through their subcommands only.
pub(super) fn pubsub(_cx: &mut Cx<'_>) -> Result {
    Err(Fault::SYNTAX)
}

/// The topics somebody listens to on any shard.
fn list(cx: &mut Cx<'_>, kind: Kind) -> Result {
    // Redis takes more arguments for another subcommand.
    if cx.argc() > 3 {
        let (before, after) = ("ERR unknown subcommand or wrong number of arguments for '", "'.");
        return Err(Fault::quoting(before, cx.arg(1), &format!("{after} Try PUBSUB HELP.")));
    }
    let pattern = (cx.argc() == 3).then(|| cx.arg(2).into());
    cx.gather(Plan::Topics { kind, pattern, count: false })
}

pub(super) fn pubsub_channels(cx: &mut Cx<'_>) -> Result {
    list(cx, Kind::Channel)
}

pub(super) fn pubsub_shardchannels(cx: &mut Cx<'_>) -> Result {
    list(cx, Kind::Shard)
}

pub(super) fn pubsub_numpat(cx: &mut Cx<'_>) -> Result {
    cx.gather(Plan::Topics { kind: Kind::Pattern, pattern: None, count: true })
}

fn numsub(cx: &mut Cx<'_>, kind: Kind) -> Result {
    let names = (2..cx.argc()).map(|at| cx.arg(at).into()).collect();
    cx.gather(Plan::Listeners { kind, names })
}

pub(super) fn pubsub_numsub(cx: &mut Cx<'_>) -> Result {
    numsub(cx, Kind::Channel)
}

pub(super) fn pubsub_shardnumsub(cx: &mut Cx<'_>) -> Result {
    numsub(cx, Kind::Shard)
}

/// The topics of all shards, or how many there are, each once.
pub(crate) fn reply_topics(out: &mut Output, count: bool, responses: Vec<Response>) {
    let mut names: Vec<Box<[u8]>> = Vec::new();
    for response in responses {
        if let Response::Keys { keys, .. } = response {
            names.extend(keys);
        }
    }
    names.sort_unstable();
    names.dedup();
    if count {
        reply::integer(out.inline_mut(), i64::try_from(names.len()).unwrap_or(i64::MAX));
    } else {
        super::keyspace::reply_keys(out, names);
    }
}

/// How many listen to each topic, on all shards.
pub(crate) fn reply_listeners(out: &mut Output, names: &[Box<[u8]>], responses: &[Response]) {
    let out = out.inline_mut();
    reply::array(out, names.len() * 2);
    for (at, name) in names.iter().enumerate() {
        let of = |response: &Response| match response {
            Response::Counts(counts) => counts.get(at).copied().unwrap_or(0),
            _ => 0,
        };
        reply::bulk(out, name);
        let sum: u64 = responses.iter().map(of).sum();
        reply::integer(out, i64::try_from(sum).unwrap_or(i64::MAX));
    }
}

pub(super) fn pubsub_help(cx: &mut Cx<'_>) -> Result {
    cx.help(
        "PUBSUB",
        &[
            "CHANNELS [<pattern>]",
            "    Return the currently active channels matching a <pattern> (default: '*').",
            "NUMPAT",
            "    Return number of subscriptions to patterns.",
            "NUMSUB [<channel> ...]",
            "    Return the number of subscribers for the specified channels, excluding",
            "    pattern subscriptions(default: no channels).",
            "SHARDCHANNELS [<pattern>]",
            "    Return the currently active shard level channels matching a <pattern> (default: '*').",
            "SHARDNUMSUB [<shardchannel> ...]",
            "    Return the number of subscribers for the specified shard level channel(s)",
        ],
    )
}
