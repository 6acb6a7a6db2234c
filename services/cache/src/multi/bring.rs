//! Commands with keys on several shards, run where the connection is.
//!
//! The keys are locked shard by shard; with the lock, a shard lends what the keys hold: values move whole, nothing is
//! copied but short strings. Then the command runs here, as it would if all its keys had always been here, and what the
//! keys hold now goes back with the release of the locks. So a command is written once, for keys of one shard.
//!
//! A command may find out as it runs that it has to know more (`looks.rs`); then it is run again. Of a transaction, what
//! ran before that command is undone first.
//!
//! Invariants: values of other shards are in this shard's store only while the command runs, within one
//! synchronous step; each shard that lent something gets an answer for every key it lent. While a shard has lent
//! something, what looks at all its keys waits (`remote.rs`).
//! Next: `remote.rs` for the lender's side.

use bytes::Bytes;
use view::Input;
use wire::resp::{Args, parse_i64, reply};

use super::{Next, Reply, looks::Looks};
use crate::{
    aof::Part,
    command::{Conn, Cx, Fault, Mode, Outcome, Waiting, dispatch, row, sort},
    elsewhere::Want,
    observe::{Block, Changes},
    repl::Applies,
    script::keys::Guard as Undo,
    shard::Shard,
    transaction::{self, Queued},
    work::{Guard, LockKeys, Record, Request, Response, ShardKeys},
};

/// Most times that commands are run.
const RUNS_MAX: usize = 64;

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
    /// What they have to know beside that.
    looks: Looks,
    /// They may have to be undone.
    wanders: bool,
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
        // It reads everything before it writes.
        let wanders = false;
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
            looks: Looks::default(),
            wanders,
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
        let wanders = commands.len() > 1 && commands.iter().any(|queued| may_look(queued, shard));
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
            looks: Looks::default(),
            wanders,
        }
    }

    /// The keys by shard.
    pub(crate) fn keys(&self) -> &ShardKeys {
        &self.keys
    }

    /// The keys to lock, ascending by shard.
    pub(super) fn locks(&self) -> Vec<(u16, LockKeys)> {
        let lock = |(shard, keys): &(u16, Vec<_>)| (*shard, LockKeys::Some(keys.clone()));
        self.looks.locks(self.keys.iter().map(lock).collect())
    }

    /// What to hold on a shard beside its keys.
    pub(super) fn hold(&self, shard: u16) -> LockKeys {
        self.looks.hold(shard)
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
        Next::Return(self.give_back(ticket, Changes::default()))
    }

    /// Asks what is to be known, runs the command, and gives back what was lent.
    pub(super) fn run(
        &mut self,
        ticket: u64,
        responses: Vec<Response>,
        reply: &mut Reply<'_>,
    ) -> Next {
        self.looks.take(responses);
        if let Some(ops) = self.looks.next() {
            return Next::Ops(ops);
        }
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
        let wanted = match kept {
            Ok(()) => self.execute(ticket, reply),
            Err(full) => {
                self.refused = true;
                reply.fault(&full.into());
                Vec::new()
            }
        };
        let mut changes = reply.shard.take_changes();
        if !wanted.is_empty() {
            // Nothing of the run is left.
            changes = Changes::default();
            reply.shard.log_captured();
        }
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
        if wanted.is_empty() {
            return Next::Return(self.give_back(ticket, changes));
        }
        self.run_again(ticket, wanted, reply)
    }

    /// Another run, with what this one wanted to know.
    fn run_again(&mut self, ticket: u64, wanted: Vec<Want>, reply: &mut Reply<'_>) -> Next {
        let held = self.looks.all();
        self.looks.want(wanted, reply.shard);
        if self.looks.runs() > RUNS_MAX {
            // With everything locked, a few runs are enough, unless a shard does not answer.
            self.refused = true;
            reply.fault(&Fault::text(
                "ERR other shards did not tell what the command has to know: try again",
            ));
            return Next::Return(self.give_back(ticket, Changes::default()));
        }
        if held && let Some(ops) = self.looks.next() {
            return Next::Ops(ops);
        }
        self.looks.begin_anew(reply.shard);
        Next::Again(self.give_back(ticket, Changes::default()))
    }

    /// Runs the commands; what they want to know beforehand, if anything: then nothing has happened.
    fn execute(&mut self, ticket: u64, reply: &mut Reply<'_>) -> Vec<Want> {
        let start = reply.out.mark();
        self.looks.lay_out(ticket, reply.conn.no_touch, reply.shard);
        let mut undo = self.wanders.then(Undo::for_transaction);
        let wanted = self.execute_all(undo.as_mut(), reply);
        self.looks.clear_away(reply.shard);
        if !wanted.is_empty() {
            reply.out.truncate(start);
            if let Some(mut undo) = undo {
                undo.undo(reply.shard, reply.now);
                self.watch_anew(reply.shard);
            }
        }
        wanted
    }

    fn execute_all(&mut self, mut undo: Option<&mut Undo>, reply: &mut Reply<'_>) -> Vec<Want> {
        let mut group = reply.shard.group.take().unwrap_or_default();
        let mut wanted = Vec::new();
        let mut conn = Conn::remote(0, reply.conn.version, reply.conn.no_touch);
        (conn.id, conn.applies) = (reply.conn.id, reply.conn.applies);
        conn.act_for(reply.conn);
        conn.mode = if self.is_waking { Mode::Waking } else { Mode::Lent };
        if let Some(parts) = &self.transaction {
            conn.mode = Mode::Nested;
            if let Some(count) = parts.count {
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
            if self.transaction.is_some() && self.looks.is_first() {
                reply.shard.stats.call(id);
            }
            if let Some(undo) = &mut undo {
                let row = reply.shard.commands.row(id);
                undo.keep_written(reply.shard, row, args, frame, conn.db, reply.now);
            }
            let outcome = dispatch::execute(call, id, reply.out, reply.shard, &mut conn, reply.now);
            if let Outcome::Wait(waiting) = outcome {
                match *waiting {
                    Waiting::Block(block) => self.blocks = Some(block),
                    Waiting::Widen(wants) => {
                        wanted = wants;
                        break;
                    }
                    _ => {}
                }
            }
        }
        reply.shard.group = Some(group);
        wanted
    }

    /// Watched keys of this shard are as they were before what was undone, which has raised their versions.
    fn watch_anew(&mut self, shard: &Shard) {
        for (owner, guard) in self.transaction.iter_mut().flat_map(|parts| &mut parts.guards) {
            if *owner == shard.index {
                guard.was.0 = shard.watched_version(guard.db, &guard.key);
            }
        }
    }

    /// What was lent, on its way back, with the release of each lender's locks.
    fn give_back(&mut self, ticket: u64, changes: Changes) -> Vec<(u16, Request)> {
        let mut parts = std::mem::take(&mut self.parts);
        let back = |lent: Lent| {
            let changes = changes.clone();
            let at = parts.iter().position(|(owner, _)| *owner == lent.shard);
            let log = at.map(|at| Box::new(parts.swap_remove(at).1));
            let keys = lent.keys.into_iter().zip(lent.records);
            let keys = keys.map(|((db, key), record)| (db, key, record)).collect();
            (lent.shard, Request::Return { ticket, keys, changes, flushed: Vec::new(), log })
        };
        std::mem::take(&mut self.lent).into_iter().map(back).collect()
    }
}

/// Whether a command may read keys that are found only as it runs.
fn may_look(queued: &Queued, shard: &Shard) -> bool {
    let row = shard.commands.row(queued.id);
    let mut args = Args::default();
    row.flags & row::MOVABLE_KEYS != 0
        && transaction::parse(&queued.frame, &mut args)
        && sort::looks_up(row, &args, &queued.frame, false)
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
