//! A command's keys by shard, and its replies back in the order of the keys.
//!
//! Invariant: parts are sorted by shard, so locks are taken in ascending order.

use bytes::Bytes;

use crate::{
    command::Cx,
    work::{LockKeys, Op, Response},
};

/// Keys of one shard, with their places among the command's keys.
#[derive(Debug)]
struct Part {
    shard: u16,
    keys: Vec<Box<[u8]>>,
    at: Vec<usize>,
}

/// Keys by shard, ascending.
#[derive(Debug)]
pub(crate) struct Parts(Vec<Part>);

impl Parts {
    /// The command's keys.
    pub(super) fn of(cx: &Cx<'_>) -> Self {
        let mut parts: Vec<Part> = Vec::new();
        for (place, at) in cx.row.key_indices(cx.argc(), |at| cx.arg(at)).enumerate() {
            let key = cx.arg(at);
            let shard = cx.shard.topology.owner_of(key);
            let part = match parts.iter_mut().position(|part| part.shard == shard) {
                Some(known) => known,
                None => {
                    parts.push(Part { shard, keys: Vec::new(), at: Vec::new() });
                    parts.len() - 1
                }
            };
            if let Some(part) = parts.get_mut(part) {
                part.keys.push(key.into());
                part.at.push(place);
            }
        }
        parts.sort_by_key(|part| part.shard);
        Self(parts)
    }

    /// What to hold on each shard.
    pub(super) fn locks(&self, db: u16) -> Vec<(u16, LockKeys)> {
        let lock = |part: &Part| {
            let keys = part.keys.iter().map(|key| (db, key.clone())).collect();
            (part.shard, LockKeys::Some(keys))
        };
        self.0.iter().map(lock).collect()
    }

    /// One step per shard.
    pub(super) fn ops(&self, op: impl Fn(Vec<Box<[u8]>>) -> Op) -> Vec<(u16, Op)> {
        self.0.iter().map(|part| (part.shard, op(part.keys.clone()))).collect()
    }

    /// One step per shard that sets its keys to their values.
    pub(super) fn pairs(&self, db: u16, values: &[Bytes]) -> Vec<(u16, Op)> {
        self.0
            .iter()
            .map(|part| {
                let value = |at: usize| values.get(at).cloned().unwrap_or_default();
                let keys = part.keys.iter().zip(&part.at);
                let pairs = keys.map(|(key, at)| (key.clone(), value(*at))).collect();
                (part.shard, Op::Set(db, pairs))
            })
            .collect()
    }

    /// Values of all parts in the order of the command's keys.
    pub(super) fn in_order(&self, responses: Vec<Response>) -> Vec<Option<Bytes>> {
        let len = self.0.iter().map(|part| part.at.len()).sum();
        let mut values = vec![None; len];
        for (part, response) in self.0.iter().zip(responses) {
            let Response::Values(found) = response else { continue };
            for (&at, value) in part.at.iter().zip(found) {
                if let Some(place) = values.get_mut(at) {
                    *place = value;
                }
            }
        }
        values
    }
}
