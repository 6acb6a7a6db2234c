//! RENAME, RENAMENX and COPY between shards: load and check, store, remove.

use logic::slot::key_slot;
use wire::resp::reply;

use super::{Next, Reply, sum};
use crate::{
    command::{Cx, Fault},
    work::{LockKeys, Op, Record, Response},
};

/// A key's record on its way from one shard to another.
#[derive(Debug)]
pub(crate) struct Move {
    from: (u16, Box<[u8]>),
    to: (u16, Box<[u8]>),
    /// Remove the source.
    pub(super) take: bool,
    /// Leave an existing destination alone.
    nx: bool,
    /// What the command replies: OK, or a number.
    ok: bool,
    from_shard: u16,
    to_shard: u16,
}

impl Move {
    /// From argument 1 to argument 2 of the command.
    pub(super) fn of(cx: &Cx<'_>, to_db: u16, take: bool, nx: bool, ok: bool) -> Self {
        let owner = |at| cx.shard.topology.owner_of_slot(key_slot(cx.arg(at)));
        Self {
            from: (cx.conn.db, cx.arg(1).into()),
            to: (to_db, cx.arg(2).into()),
            take,
            nx,
            ok,
            from_shard: owner(1),
            to_shard: owner(2),
        }
    }

    /// Both keys, ascending by shard.
    pub(super) fn locks(&self) -> Vec<(u16, LockKeys)> {
        let from = (self.from_shard, (self.from.0, self.from.1.clone()));
        let to = (self.to_shard, (self.to.0, self.to.1.clone()));
        let mut locks = if self.from_shard <= self.to_shard { [from, to] } else { [to, from] };
        locks.sort_by_key(|(target, _)| *target);
        locks.into_iter().map(|(target, key)| (target, LockKeys::Some(vec![key]))).collect()
    }

    /// Load, check; store; remove.
    pub(super) fn run(&self, round: u8, responses: Vec<Response>, reply: &mut Reply<'_>) -> Next {
        match round {
            0 => Next::Ops(vec![
                (self.from_shard, Op::Load(self.from.0, self.from.1.clone())),
                (self.to_shard, Op::Exists(self.to.0, vec![self.to.1.clone()])),
            ]),
            1 => {
                let exists = sum(&responses) > 0;
                let record = responses.into_iter().find_map(|response| match response {
                    Response::Record(record) => record,
                    _ => None,
                });
                self.loaded(record, exists, reply)
            }
            2 => match responses.into_iter().next() {
                Some(Response::Error(text)) => {
                    reply.fault(&Fault::owned(text));
                    Next::End
                }
                _ if self.take => {
                    Next::Last(vec![(self.from_shard, Op::Leave(self.from.0, self.from.1.clone()))])
                }
                _ => self.done(reply),
            },
            _ => self.done(reply),
        }
    }

    /// The shards whose keys change.
    pub(super) fn writers(&self) -> Vec<u16> {
        if self.take { vec![self.from_shard, self.to_shard] } else { vec![self.to_shard] }
    }

    fn loaded(&self, record: Option<Record>, exists: bool, reply: &mut Reply<'_>) -> Next {
        match record {
            None if self.take => {
                reply.fault(&Fault::NO_KEY);
                Next::End
            }
            None => {
                reply.int(0);
                Next::End
            }
            Some(_) if self.nx && exists => {
                reply.int(0);
                Next::End
            }
            Some(record) => {
                let event = if self.take { "rename_to" } else { "copy_to" };
                let op = Op::Store(self.to.0, self.to.1.clone(), record, event);
                Next::Ops(vec![(self.to_shard, op)])
            }
        }
    }

    fn done(&self, reply: &mut Reply<'_>) -> Next {
        if self.ok {
            reply::ok(reply.out.inline_mut());
        } else {
            reply.int(1);
        }
        Next::End
    }
}
