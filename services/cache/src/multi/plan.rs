//! What a command over several shards asks in its only step, what it replies to the answers, and which plan it has.
//!
//! Invariant: whatever is answered, there is one reply. Next: `multi.rs`, which drives plans.

use std::ops::Range;

use bytes::Bytes;
use wire::resp::reply;

use super::{
    Bring, Move, Multi, Parts, Plan, Reply, Widen,
    responses::{keys, sum},
};
use crate::{
    admin::{How, Replying},
    command::{Cx, Fault, cluster, config, heavy, info, keyspace, pubsub, row::Scope},
    work::{Op, Response},
};

impl Plan {
    /// The one step of a command without locks, and the shard it goes to when it is only one.
    pub(super) fn single_round(&self, reply: &Reply<'_>, shards: &Range<u16>) -> (Option<u16>, Op) {
        let op = match self {
            Self::Len(db) => Op::Len(*db),
            Self::Keys(db, pattern) => Op::Keys(*db, pattern.clone()),
            Self::Random(db) => Op::Random(*db),
            Self::Scan(scanning) => {
                return (Some(shards.start + scanning.target), Op::Scan(scanning.scan.clone()));
            }
            Self::Slot { slot, most, .. } => {
                let owner = reply.shard.topology.owner_of_slot(*slot);
                // A node that does not own the slot has none of its keys.
                let target = owner.clamp(shards.start, shards.end.saturating_sub(1));
                return (Some(target), Op::SlotKeys { slot: *slot, most: *most });
            }
            Self::Info(_) => Op::Report,
            Self::ResetStats => Op::ResetStats,
            Self::Configure(pairs) => Op::Configure(pairs.clone()),
            Self::ClientList(filter) => Op::ClientList(filter.clone()),
            Self::ClientKill { filter, .. } => Op::ClientKill(filter.clone()),
            Self::ClientUnblock { id, why } => Op::ClientUnblock { id: *id, why: *why },
            Self::Hot(most) => Op::Hot(*most),
            Self::ResetHot => Op::ResetHot,
            Self::Big(_) => Op::Big,
            Self::Erase(erase) => Op::Erase(erase.clone()),
            Self::Admin { ask, .. } => Op::Admin(ask.clone()),
            Self::Topics { kind, pattern, .. } => Op::Topics(*kind, pattern.clone()),
            Self::Listeners { kind, names } => Op::Listeners(*kind, names.clone()),
            _ => Op::Nothing,
        };
        (None, op)
    }

    /// Writes the reply from the last responses.
    pub(super) fn reply(
        &self,
        responses: Vec<Response>,
        reply: &mut Reply<'_>,
        shards: &Range<u16>,
    ) {
        if let Some(Response::Error(text)) =
            responses.iter().find(|response| matches!(response, Response::Error(_)))
        {
            return reply.fault(&Fault::owned(text.clone()));
        }
        let version = reply.conn.version;
        match self {
            Self::Len(_) | Self::Count { .. } | Self::ClientUnblock { .. } => {
                reply.int(sum(&responses));
            }
            Self::Mset { nx: true, .. } => reply.int(1),
            Self::Log(_) => reply::simple(
                reply.out.inline_mut(),
                "Background append only file rewriting started",
            ),
            Self::Mset { .. }
            | Self::Flush(_)
            | Self::ResetStats
            | Self::Configure(_)
            | Self::ResetHot => {
                reply::ok(reply.out.inline_mut());
            }
            Self::Keys(..) => keyspace::reply_keys(reply.out, keys(responses)),
            Self::Random(_) => keyspace::reply_random(reply.out, version, reply.now, responses),
            Self::Scan(scanning) => scanning.reply(reply.out, shards.len(), responses),
            Self::Slot { count, .. } => cluster::reply_slot(reply.out, *count, responses),
            Self::Info(sections) => {
                info::reply(reply.out, reply.shard, reply.conn, sections, &responses, reply.now);
            }
            Self::ClientList(_) => config::reply_text(reply.out, version, responses),
            Self::ClientKill { old_form, .. } => match (old_form, sum(&responses)) {
                (false, count) => reply.int(count),
                (true, 0) => reply.fault(&Fault::text("ERR No such client")),
                (true, _) => reply::ok(reply.out.inline_mut()),
            },
            Self::Mget { parts, .. } => {
                let values = parts.in_order(responses);
                reply::array(reply.out.inline_mut(), values.len());
                for value in values {
                    match value {
                        Some(value) => Cx::reply_shared(reply.out, value),
                        None => reply::null(reply.out.inline_mut(), version),
                    }
                }
            }
            Self::Publish { here, .. } => reply.int(*here + sum(&responses)),
            Self::Topics { count, .. } => pubsub::reply_topics(reply.out, *count, responses),
            Self::Listeners { names, .. } => pubsub::reply_listeners(reply.out, names, &responses),
            Self::Track(_) => {}
            Self::Admin { ask, about, how } => {
                let (out, shard, now) = (&mut *reply.out, &mut *reply.shard, reply.now);
                let mut replying = Replying { out, shard, version, now };
                match how {
                    How::Plain(finish) => finish(&mut replying, ask, responses),
                    How::About(finish) => finish(&mut replying, about, responses),
                }
            }
            Self::Move(_) | Self::Bring(_) | Self::Watch { .. } | Self::Widen(_) => {}
            Self::Hot(most) => heavy::reply_hot(reply.out, version, *most, responses),
            Self::Big(most) => heavy::reply_big(reply.out, version, *most, responses),
            Self::Erase(erase) => reply.int(erase.id),
        }
    }
}

/// The plan of a command whose keys are on several shards.
pub(crate) fn plan(cx: &mut Cx<'_>) -> Result<Multi, Fault> {
    let (db, parts) = (cx.conn.db, Parts::of(cx));
    let plan = match cx.row.name {
        "del" | "unlink" => Plan::Count { db, parts, op: Op::Remove },
        "exists" => Plan::Count { db, parts, op: Op::Exists },
        "touch" => Plan::Count { db, parts, op: Op::Touch },
        "mget" => Plan::Mget { db, parts },
        "mset" | "msetnx" => {
            if cx.argc().is_multiple_of(2) {
                return Err(Fault::arity(cx.row.name));
            }
            let value = |at: usize| Bytes::copy_from_slice(cx.arg(at));
            let values = (2..cx.argc()).step_by(2).map(value).collect();
            Plan::Mset { db, parts, values, nx: cx.row.name == "msetnx" }
        }
        "rename" | "renamenx" => {
            let nx = cx.row.name == "renamenx";
            Plan::Move(Move::of(cx, db, true, nx, !nx))
        }
        "copy" => {
            let options = keyspace::copy_options(cx)?;
            Plan::Move(Move::of(cx, options.db, false, !options.replace, false))
        }
        _ if cx.row.scope == Scope::Script => Plan::Widen(Box::new(Widen::of(cx, Vec::new()))),
        _ => Plan::Bring(Box::new(Bring::of(cx))),
    };
    Ok(Multi::new(plan, cx.shard))
}
