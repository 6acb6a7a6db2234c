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
use wire::resp::{Args, parse_i64, reply};

use super::{Next, Reply};
use crate::{
    aof::Part,
    command::{Conn, Cx, Fault, Mode, Outcome, Waiting, dispatch, row},
    observe::{Block, Changes},
    repl::Applies,
    shard::Shard,
    transaction::{self, Queued},
    work::{Guard, LockKeys, Record, Request, Response, ShardKeys},
};

/// Commands on their way, and what was lent to them.
#[derive(Debug)]
pub(crate) struct Bring {
    commands: Vec<Queued>,
    pub(super) needs_memory: bool,
    keys: ShardKeys,
    lent: Vec<Lent>,
    /// What lenders have to log.
    parts: Vec<(u16, Part)>,
    transaction: Option<Parts>,
    /// The command did not run: it waits.
    blocks: Option<Block>,
    /// A watched key was not as it was, or there was no room.
    refused: bool,
    /// The command was tried before, and waited.
    is_waking: bool,
}

/// What makes commands a transaction.
#[derive(Debug)]
struct Parts {
    guards: Vec<(u16, Guard)>,
    /// How many replies there will be, if that was not said.
    count: Option<usize>,
}

/// What one shard has lent.
#[derive(Debug)]
struct Lent {
    shard: u16,
    keys: Vec<(u16, Box<[u8]>)>,
    records: Vec<Option<Record>>,
}

impl Bring {
    /// The command of `cx`.
    pub(super) fn of(cx: &Cx<'_>) -> Self {
        let frame = Bytes::copy_from_slice(cx.frame);
        Self::command(Queued { id: cx.id, db: cx.conn.db, frame }, cx.shard)
    }

    /// One command.
    pub(crate) fn command(queued: Queued, shard: &Shard) -> Self {
        let needs_memory = shard.commands.row(queued.id).flags & row::DENYOOM != 0;
        let commands = vec![queued];
        let keys = keys_of(&commands, shard);
        Self {
            commands,
            needs_memory,
            keys,
            lent: Vec::new(),
            parts: Vec::new(),
            transaction: None,
            blocks: None,
            refused: false,
            is_waking: false,
        }
    }

    /// The same, tried again.
    pub(crate) fn again(self) -> Self {
        Self { is_waking: true, ..self }
    }

    /// Commands of a transaction, after watched keys were looked at; `count` replies in all are announced.
    pub(crate) fn transaction(
        commands: Vec<Queued>,
        guards: Vec<(u16, Guard)>,
        count: Option<usize>,
        needs_memory: bool,
        shard: &Shard,
    ) -> Self {
        let mut keys = keys_of(&commands, shard);
        for (owner, _) in &guards {
            if !keys.iter().any(|(shard, _)| shard == owner) {
                keys.push((*owner, Vec::new()));
            }
        }
        keys.sort_by_key(|(shard, _)| *shard);
        Self {
            commands,
            needs_memory,
            keys,
            lent: Vec::new(),
            parts: Vec::new(),
            transaction: Some(Parts { guards, count }),
            blocks: None,
            refused: false,
            is_waking: false,
        }
    }

    /// The keys by shard.
    pub(crate) fn keys(&self) -> &ShardKeys {
        &self.keys
    }

    /// The keys to lock, ascending by shard.
    pub(super) fn locks(&self) -> Vec<(u16, LockKeys)> {
        let lock = |(shard, keys): &(u16, Vec<_>)| (*shard, LockKeys::Some(keys.clone()));
        self.keys.iter().map(lock).collect()
    }

    /// Watched keys of a shard.
    pub(super) fn guards(&self, shard: u16) -> Vec<Guard> {
        let guards = self.transaction.iter().flat_map(|parts| &parts.guards);
        guards.filter(|(owner, _)| *owner == shard).map(|(_, guard)| guard.clone()).collect()
    }

    /// Takes what a shard has lent.
    pub(super) fn take(&mut self, shard: u16, records: Vec<Option<Record>>) {
        let keys = self.keys.iter().find(|(owner, _)| *owner == shard);
        let keys = keys.map(|(_, keys)| keys.clone()).unwrap_or_default();
        self.lent.push(Lent { shard, keys, records });
    }

    /// What the command waits for, instead of having run.
    pub(super) fn take_block(&mut self) -> Option<Block> {
        self.blocks.take()
    }

    /// Whether the commands ran.
    pub(super) const fn has_run(&self) -> bool {
        !self.refused
    }

    /// Gives back what was lent, without having run.
    pub(super) fn refuse(&mut self, ticket: u64, is_stale: bool, reply: &mut Reply<'_>) -> Next {
        self.refused = true;
        match (&self.transaction, is_stale) {
            (Some(_), true) => reply::null_array(reply.out.inline_mut(), reply.conn.version),
            (Some(_), false) => reply.fault(&transaction::out_of_memory()),
            (None, _) => reply.fault(&Fault::OOM),
        }
        self.give_back(ticket, Changes::default())
    }

    /// Runs the command, and gives back what was lent.
    pub(super) fn run(&mut self, ticket: u64, reply: &mut Reply<'_>) -> Next {
        let now_ms = reply.now.unix_ms();
        let mut kept = Ok(());
        for lent in &mut self.lent {
            for ((db, key), record) in lent.keys.iter().zip(&mut lent.records) {
                let store = &mut reply.shard.store;
                let hash = store.hash(key);
                // Without room nothing runs, and what was not put in goes back as it is.
                if kept.is_ok()
                    && let Some(record) = record.take()
                {
                    kept = record.store(store, *db, hash, key, now_ms);
                }
            }
        }
        reply.shard.keep_changes();
        reply.shard.log_capture();
        match kept {
            Ok(()) => self.execute(reply),
            Err(full) => {
                self.refused = true;
                reply.fault(&full.into());
            }
        }
        let changes = reply.shard.take_changes();
        let before = reply.shard.show_due_keys(Applies::NOW);
        for lent in &mut self.lent {
            for ((db, key), record) in lent.keys.iter().zip(&mut lent.records) {
                if record.is_none() {
                    let hash = reply.shard.store.hash(key);
                    *record = reply.shard.record(*db, hash, key, true, now_ms);
                }
            }
        }
        reply.shard.hide_due_keys(before);
        self.parts = reply.shard.log_split(ticket, reply.now);
        // Now that what was lent is not here any more.
        reply.shard.serve_ready(reply.now);
        self.give_back(ticket, changes)
    }

    /// Runs the commands.
    fn execute(&mut self, reply: &mut Reply<'_>) {
        let mut group = reply.shard.group.take().unwrap_or_default();
        let mut conn = Conn::remote(0, reply.conn.version, reply.conn.no_touch);
        (conn.id, conn.applies) = (reply.conn.id, reply.conn.applies);
        conn.mode = if self.is_waking { Mode::Waking } else { Mode::Lent };
        if let Some(parts) = &mut self.transaction {
            conn.mode = Mode::Nested;
            if let Some(count) = parts.count.take() {
                reply::array(reply.out.inline_mut(), count);
            }
        }
        for queued in &self.commands {
            let args = group.first_mut();
            // It was parsed once already.
            if !transaction::parse(&queued.frame, args) {
                continue;
            }
            conn.db = queued.db;
            let input = Input::owned(&queued.frame);
            let (frame, id) = (&queued.frame[..], queued.id);
            let call = dispatch::Call { args, frame, input: &input, id: Some(id), hash: None };
            if self.transaction.is_some() {
                reply.shard.stats.call(id);
            }
            let outcome = dispatch::execute(call, id, reply.out, reply.shard, &mut conn, reply.now);
            if let Outcome::Wait(waiting) = outcome
                && let Waiting::Block(block) = *waiting
            {
                self.blocks = Some(block);
            }
        }
        reply.shard.group = Some(group);
    }

    /// What was lent, on its way back, with the release of each lender's locks.
    fn give_back(&mut self, ticket: u64, changes: Changes) -> Next {
        let mut parts = std::mem::take(&mut self.parts);
        let back = |lent: Lent| {
            let changes = changes.clone();
            let at = parts.iter().position(|(owner, _)| *owner == lent.shard);
            let log = at.map(|at| Box::new(parts.swap_remove(at).1));
            let keys = lent.keys.into_iter().zip(lent.records);
            let keys = keys.map(|((db, key), record)| (db, key, record)).collect();
            (lent.shard, Request::Return { ticket, keys, changes, log })
        };
        Next::Return(std::mem::take(&mut self.lent).into_iter().map(back).collect())
    }
}

/// The keys of commands by shard, each once.
fn keys_of(commands: &[Queued], shard: &Shard) -> ShardKeys {
    let mut keys: ShardKeys = Vec::new();
    let mut args = Args::default();
    for Queued { id, db, frame } in commands {
        if !transaction::parse(frame, &mut args) {
            continue;
        }
        let row = shard.commands.row(*id);
        let elsewhere = other_database(row, &args, frame);
        for at in row.key_indices(args.len(), |at| args.get(at, frame)) {
            let key: Box<[u8]> = args.get(at, frame).into();
            let owner = shard.topology.owner_of(&key);
            let mut here = vec![(*db, key.clone())];
            here.extend(elsewhere.filter(|(_, which)| *which == at).map(|(db, _)| (db, key)));
            match keys.iter_mut().find(|(other, _)| *other == owner) {
                Some((_, keys)) => keys.append(&mut here),
                None => keys.push((owner, here)),
            }
        }
    }
    for (_, keys) in &mut keys {
        keys.sort_unstable();
        keys.dedup();
    }
    keys.sort_by_key(|(shard, _)| *shard);
    keys
}

/// The database that MOVE or COPY names, and which argument is the key there.
fn other_database(row: &row::Row, args: &Args, frame: &[u8]) -> Option<(u16, usize)> {
    let number = |at| parse_i64(args.get(at, frame)).and_then(|db| u16::try_from(db).ok());
    match row.name {
        "move" => Some((number(2)?, 1)),
        "copy" => {
            let is_db = |at: &usize| args.get(*at, frame).eq_ignore_ascii_case(b"DB");
            let at = (3..args.len()).find(is_db)?;
            Some((number(at + 1)?, 2))
        }
        _ => None,
    }
}

/// Whether a response says that a lender's memory is full, and whether a watched key is not as it was.
pub(super) const fn refusals(response: &Response) -> (bool, bool) {
    match response {
        Response::Locked { full, stale } | Response::Lent { full, stale, .. } => (*full, *stale),
        _ => (false, false),
    }
}
