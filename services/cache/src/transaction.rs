//! A connection's transaction: the keys it watches and the commands it has queued, and how EXEC runs these.
//!
//! With one shard, EXEC runs them in one step (`command/transactions.rs`). With several, the commands' keys, and the
//! watched ones, are locked on all shards, what they hold is lent to the connection's shard, and there the commands run
//! in one step, as one command over several shards does (`multi/bring.rs`). A command on all keys, or on the
//! connection, cannot be run so: it runs by itself between those before it and those behind it, and is not one step
//! with them.
//!
//! Invariants: replies come in the order of the commands; nothing has run when a watched key is not as it was.

use std::collections::VecDeque;

use bytes::Bytes;
use view::{Instant, Output};
use wire::resp::{Args, Limits, ParseState, Parsed, parse_command, reply};

use crate::{
    command::{Conn, Fault, Outcome, Waiting, dispatch, row, row::Scope},
    multi::{Multi, bring::Bring},
    shard::Shard,
    work::{Guard, Request, ShardKeys},
};

/// What a connection may queue: beyond that it is closed, as a query that is too long.
pub(crate) const QUEUED_MAX_BYTES: usize = 1 << 30;

/// One queued command.
#[derive(Clone, Debug)]
pub(crate) struct Queued {
    pub(crate) id: u16,
    /// The database it runs in.
    pub(crate) db: u16,
    pub(crate) frame: Bytes,
}

impl Queued {
    /// The database behind it.
    pub(crate) fn database_after(&self, shard: &Shard) -> u16 {
        if shard.commands.row(self.id).name != "select" {
            return self.db;
        }
        let mut args = Args::default();
        parse(&self.frame, &mut args);
        let db = wire::resp::parse_i64(args.get(1, &self.frame));
        let db = db.and_then(|db| u16::try_from(db).ok());
        db.filter(|&db| db < shard.store.config().databases).unwrap_or(self.db)
    }
}

/// A watched key and its shard.
#[derive(Clone, Debug)]
pub(crate) struct Watched {
    pub(crate) shard: u16,
    pub(crate) guard: Guard,
}

/// From WATCH or MULTI to EXEC or DISCARD.
#[derive(Debug, Default)]
pub(crate) struct Transaction {
    /// MULTI was there.
    pub(crate) is_open: bool,
    /// A command was refused: EXEC will be.
    pub(crate) is_refused: bool,
    /// A command in it needs memory.
    pub(crate) needs_memory: bool,
    pub(crate) queued: Vec<Queued>,
    pub(crate) bytes: usize,
    pub(crate) watched: Vec<Watched>,
}

impl Transaction {
    /// Ends the watching of all keys.
    pub(crate) fn unwatch(&mut self, shard: &mut Shard) {
        let mut others: ShardKeys = Vec::new();
        for Watched { shard: owner, guard } in self.watched.drain(..) {
            if owner == shard.index {
                shard.unwatch(guard.db, &guard.key);
                continue;
            }
            let key = (guard.db, guard.key);
            match others.iter_mut().find(|(other, _)| *other == owner) {
                Some((_, keys)) => keys.push(key),
                None => others.push((owner, vec![key])),
            }
        }
        for (owner, keys) in others {
            let op = crate::work::Op::Unwatch(keys);
            shard.outbox.push((owner, Request::Op { ticket: 0, op, unlock: false }));
        }
    }
}

/// Parses a whole frame.
pub(crate) fn parse(frame: &[u8], args: &mut Args) -> bool {
    let limits = Limits { max_bulk_bytes: usize::MAX >> 1, ..Limits::DEFAULT };
    let parsed = parse_command(frame, args, &limits, &mut ParseState::new());
    matches!(parsed, Parsed::Command { .. })
}

/// Commands that run together.
#[derive(Debug)]
enum Step {
    Together(Vec<Queued>),
    Alone(Queued),
}

/// EXEC with several shards.
#[derive(Debug)]
pub(crate) struct Exec {
    steps: VecDeque<Step>,
    /// How many replies there will be; nothing when that was said.
    count: Option<usize>,
    /// Watched keys, until they were looked at.
    transaction: Transaction,
    /// The database that the commands under way leave.
    selects: Option<u16>,
    /// The connection ends with this.
    pub(crate) closes: bool,
    args: Box<Args>,
}

/// What EXEC does next.
pub(crate) enum Next {
    /// Drive this, then go on.
    Multi(Box<Multi>),
    /// The reply is whole.
    End,
}

impl Exec {
    /// Begins to run a transaction.
    pub(crate) fn new(mut transaction: Transaction, shard: &Shard) -> Self {
        let count = transaction.queued.len();
        let mut steps = VecDeque::new();
        if !transaction.watched.is_empty() {
            steps.push_back(Step::Together(Vec::new()));
        }
        for queued in transaction.queued.drain(..) {
            let row = shard.commands.row(queued.id);
            if row.scope != Scope::Keys && row.name != "select" {
                steps.push_back(Step::Alone(queued));
                continue;
            }
            match steps.back_mut() {
                Some(Step::Together(commands)) => commands.push(queued),
                _ => steps.push_back(Step::Together(vec![queued])),
            }
        }
        let args = Box::default();
        Self { steps, count: Some(count), transaction, selects: None, closes: false, args }
    }

    /// What ran together has run, or, where `ran` is false, was refused: then nothing else runs.
    pub(crate) fn ran(&mut self, ran: bool, conn: &mut Conn, shard: &mut Shard) {
        self.transaction.unwatch(shard);
        let selects = self.selects.take();
        // How many replies there are was said with the first of them.
        self.count = None;
        if ran {
            conn.db = selects.unwrap_or(conn.db);
        } else {
            self.steps.clear();
        }
    }

    /// Runs what can be run here, to the next thing that cannot.
    pub(crate) fn next(
        &mut self,
        conn: &mut Conn,
        out: &mut Output,
        shard: &mut Shard,
        now: Instant,
    ) -> Next {
        while let Some(step) = self.steps.pop_front() {
            let queued = match step {
                Step::Together(commands) => {
                    self.selects = commands.last().map(|last| last.database_after(shard));
                    let watched = &self.transaction.watched;
                    let guards = watched.iter().map(|key| (key.shard, key.guard.clone())).collect();
                    let (count, memory) = (self.count, self.transaction.needs_memory);
                    let bring = Bring::transaction(commands, guards, count, memory, shard);
                    return Next::Multi(Box::new(Multi::bring(bring, shard)));
                }
                Step::Alone(queued) => queued,
            };
            if let Some(count) = self.count.take() {
                reply::array(out.inline_mut(), count);
            }
            if let Some(multi) = self.run_alone(&queued, conn, out, shard, now) {
                return Next::Multi(multi);
            }
        }
        if let Some(count) = self.count.take() {
            reply::array(out.inline_mut(), count);
        }
        Next::End
    }

    fn run_alone(
        &mut self,
        queued: &Queued,
        conn: &mut Conn,
        out: &mut Output,
        shard: &mut Shard,
        now: Instant,
    ) -> Option<Box<Multi>> {
        if !parse(&queued.frame, &mut self.args) {
            // It was parsed when it was queued.
            reply::error(out.inline_mut(), b"ERR broken command in a transaction");
            return None;
        }
        let input = view::Input::owned(&queued.frame);
        let call = dispatch::Call {
            args: &self.args,
            frame: &queued.frame,
            input: &input,
            id: Some(queued.id),
            hash: None,
        };
        let mode = std::mem::replace(&mut conn.mode, crate::command::Mode::Nested);
        let outcome = dispatch::run(call, out, shard, conn, now);
        conn.mode = mode;
        match outcome {
            Outcome::Done | Outcome::Regroup | Outcome::Later => None,
            Outcome::Close | Outcome::Hangup => {
                self.closes = true;
                None
            }
            Outcome::Wait(waiting) => match *waiting {
                Waiting::Multi(multi) => Some(Box::new(multi)),
                _ => {
                    reply::ok(out.inline_mut());
                    None
                }
            },
        }
    }
}

/// What EXEC says when memory is full.
pub(crate) fn out_of_memory() -> Fault {
    Fault::text(
        "EXECABORT Transaction discarded because of: OOM command not allowed when used memory > 'maxmemory'.",
    )
}

/// Whether a row may be queued: others run at once.
pub(crate) fn is_queued(row: &row::Row) -> bool {
    !matches!(row.name, "exec" | "discard" | "multi" | "watch" | "quit" | "reset")
}
