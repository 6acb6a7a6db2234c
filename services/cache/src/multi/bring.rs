//! Commands with keys on several shards, run where the connection is.
//!
//! The keys are locked shard by shard; with the lock, a shard lends what the keys hold: values move whole, nothing is
//! copied but short strings. Then the command runs here, as it would if all its keys had always been here, and what the
//! keys hold now goes back with the release of the locks. So a command is written once, for keys of one shard.
//!
//! Invariants: values of other shards are in this shard's store only while the command runs, within one
//! synchronous step; each shard that lent something gets an answer for every key it lent. While a shard has lent
//! something, what looks at all its keys waits (`remote.rs`).
//! Next: `remote.rs` for the lender's side.

use bytes::Bytes;
use view::Input;
use wire::resp::{Limits, ParseState, Parsed, parse_command};

use super::{Next, Reply, parts::Parts};
use crate::{
    command::{Conn, Cx, dispatch},
    work::{LockKeys, Record, Request, Response},
};

/// A command on its way, and what was lent to it.
#[derive(Debug)]
pub(crate) struct Bring {
    id: u16,
    db: u16,
    /// The whole command.
    frame: Bytes,
    pub(super) needs_memory: bool,
    parts: Parts,
    lent: Vec<Lent>,
}

/// What one shard has lent.
#[derive(Debug)]
struct Lent {
    shard: u16,
    keys: Vec<Box<[u8]>>,
    records: Vec<Option<Record>>,
}

impl Bring {
    /// The command of `cx`.
    pub(super) fn of(cx: &Cx<'_>, parts: Parts) -> Self {
        let needs_memory = cx.row.flags & crate::command::row::DENYOOM != 0;
        let frame = Bytes::copy_from_slice(cx.frame);
        Self { id: cx.id, db: cx.conn.db, frame, needs_memory, parts, lent: Vec::new() }
    }

    /// The keys to lock, ascending by shard.
    pub(super) fn locks(&self) -> Vec<(u16, LockKeys)> {
        self.parts.locks(self.db)
    }

    /// Takes what a shard has lent.
    pub(super) fn take(&mut self, shard: u16, records: Vec<Option<Record>>) {
        let keys = self.parts.keys_of(shard).to_vec();
        self.lent.push(Lent { shard, keys, records });
    }

    /// Runs the command, and gives back what was lent.
    pub(super) fn run(&mut self, ticket: u64, reply: &mut Reply<'_>) -> Next {
        let now_ms = reply.now.unix_ms();
        let mut kept = Ok(());
        for lent in &mut self.lent {
            for (key, record) in lent.keys.iter().zip(&mut lent.records) {
                let store = &mut reply.shard.store;
                let hash = store.hash(key);
                // Without room nothing runs, and what was not put in goes back as it is.
                if kept.is_ok()
                    && let Some(record) = record.take()
                {
                    kept = record.store(store, self.db, hash, key, now_ms);
                }
            }
        }
        match kept {
            Ok(()) => self.execute(reply),
            Err(full) => reply.fault(&full.into()),
        }
        for lent in &mut self.lent {
            for (key, record) in lent.keys.iter().zip(&mut lent.records) {
                if record.is_none() {
                    let hash = reply.shard.store.hash(key);
                    *record = reply.shard.record(self.db, hash, key, true, now_ms);
                }
            }
        }
        self.give_back(ticket)
    }

    fn execute(&self, reply: &mut Reply<'_>) {
        let mut group = reply.shard.group.take().unwrap_or_default();
        let input = Input::owned(&self.frame);
        let limits = Limits { max_bulk_bytes: usize::MAX >> 1, ..Limits::DEFAULT };
        let args = group.first_mut();
        // It was parsed once already.
        if let Parsed::Command { .. } =
            parse_command(&self.frame, args, &limits, &mut ParseState::new())
        {
            let mut conn = Conn::remote(self.db, reply.conn.version, reply.conn.no_touch);
            let call = dispatch::Call {
                args,
                frame: &self.frame,
                input: &input,
                id: Some(self.id),
                hash: None,
            };
            dispatch::execute(call, self.id, reply.out, reply.shard, &mut conn, reply.now);
        }
        reply.shard.group = Some(group);
    }

    /// What was lent, on its way back, with the release of each lender's locks.
    pub(super) fn give_back(&mut self, ticket: u64) -> Next {
        let back = |lent: Lent| {
            let keys = lent.keys.into_iter().zip(lent.records);
            let keys = keys.map(|(key, record)| (self.db, key, record)).collect();
            (lent.shard, Request::Return { ticket, keys })
        };
        Next::Return(std::mem::take(&mut self.lent).into_iter().map(back).collect())
    }
}

/// Whether a response says that a lender's memory is full.
pub(super) const fn is_full(response: &Response) -> bool {
    matches!(response, Response::Locked { full: true } | Response::Lent { full: true, .. })
}
