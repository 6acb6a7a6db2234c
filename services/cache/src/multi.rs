//! Commands over several shards: where a command's keys are, and the coordinator's side of those
//! whose keys are in more than one place.
//!
//! A multi-key command locks its keys shard by shard in ascending order, runs its steps, and
//! releases the locks with the last step on each shard: nobody sees it half done. Commands that
//! only gather (DBSIZE, KEYS, INFO …) take no locks. The machine is pure: it gives requests and
//! takes responses. Invariant: once the first lock is requested, the machine must be driven to its
//! end, also when its connection has gone, or the locks stay.

pub(crate) mod bring;
mod looks;
mod moving;
mod parts;
mod plan;
mod responses;
mod scan;
mod widen;

use std::ops::Range;

use bytes::Bytes;
use view::{Instant, Output};
use wire::resp::{Args, reply};

use crate::{
    admin::{Ask, How},
    clients::Filter,
    command::{
        Conn, Fault, dispatch,
        row::{self, Scope},
        sort,
    },
    erase::Erase,
    group::Item,
    observe::{Block, Cancel},
    pubsub::Kind,
    repl::Applies,
    shard::Shard,
    tracking::{Follows, Track},
    transaction::Watched,
    watch::{Timed, guard},
    work::{Guard, LockKeys, Op, Request, Response, ShardKeys},
};
use bring::Bring;
use moving::Move;
use parts::Parts;
pub(crate) use plan::plan;
use responses::sum;
pub(crate) use scan::Scanning;
pub(crate) use widen::Widen;

/// Where a command runs.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// Here and now.
    Here,
    /// Here, but not while commands are under way to other shards.
    Barrier,
    /// On another shard; for a connection that knows the topology, its slot goes into a MOVED.
    There { shard: u16, moved: Option<u16> },
    /// Its keys are on several shards.
    Spread,
    /// A key it touches is locked here.
    Locked,
}

/// Where a command runs.
pub(crate) fn target(shard: &Shard, conn: &Conn, item: &Item, args: &Args, frame: &[u8]) -> Target {
    let Some(id) = item.id else { return Target::Here };
    let row = shard.commands.row(id);
    match row.scope {
        Scope::Keys => {}
        Scope::Script => return script_target(shard, conn, id, args, frame),
        Scope::Connection | Scope::AllShards => return Target::Barrier,
    }
    if !row.has_keys() || !row.accepts(args.len()) {
        return Target::Here;
    }
    if !conn.plain && (conn.is_confined() || guard::is_refused(args, frame, id, shard, conn)) {
        return Target::Here;
    }
    let owner = |at| shard.topology.owner_of(args.get(at, frame));
    let mut keys = row.key_indices(args.len(), |at| args.get(at, frame));
    let Some(first) = keys.next() else { return Target::Here };
    let first_at = first;
    let first = item.owner.unwrap_or_else(|| owner(first));
    let redirect = conn.knows_topology && conn.shard_port;
    if row.flags & row::MOVABLE_KEYS != 0 && sort::looks_up(row, args, frame, conn.restricted) {
        match conn.shard_port {
            false => return Target::Spread,
            // Refused, as in a cluster.
            true if !redirect || first == shard.index => return Target::Here,
            true => {}
        }
    }
    if keys.any(|at| owner(at) != first) {
        return Target::Spread;
    }
    if first == shard.index {
        let locked = is_locked(shard, conn.db, Some(id), args, frame);
        return if locked { Target::Locked } else { Target::Here };
    }
    let slot = || dispatch::slot_of(args.get(first_at, frame));
    Target::There { shard: first, moved: redirect.then(slot) }
}

/// Where a script runs: here when its keys are, else by a coordinator, since it may want other keys too.
#[cold]
fn script_target(shard: &Shard, conn: &Conn, id: u16, args: &Args, frame: &[u8]) -> Target {
    let row = shard.commands.row(id);
    let refused = !conn.authenticated && shard.needs_password();
    if refused || !row.accepts(args.len()) {
        return Target::Here;
    }
    let owner = |at| shard.topology.owner_of(args.get(at, frame));
    let mut keys = row.key_indices(args.len(), |at| args.get(at, frame));
    // It may be run again, which waits: nothing else of the connection may be under way then.
    let Some(first_at) = keys.next() else { return Target::Barrier };
    let first = owner(first_at);
    if keys.any(|at| owner(at) != first) {
        return Target::Spread;
    }
    if first == shard.index {
        let locked = is_locked(shard, conn.db, Some(id), args, frame);
        return if locked { Target::Locked } else { Target::Barrier };
    }
    if conn.knows_topology && conn.shard_port {
        let slot = dispatch::slot_of(args.get(first_at, frame));
        return Target::There { shard: first, moved: Some(slot) };
    }
    Target::Spread
}

/// Whether a lock holds one of the command's keys here.
pub(crate) fn is_locked(
    shard: &Shard,
    db: u16,
    id: Option<u16>,
    args: &Args,
    frame: &[u8],
) -> bool {
    if shard.locks.is_empty() {
        return false;
    }
    let Some(id) = id else { return false };
    let row = shard.commands.row(id);
    let holds_back = shard.locks.holds_back() && row.flags & row::WRITE != 0;
    // COPY and MOVE may write to another database than the connection's: it waits for every lock.
    matches!(row.name, "copy" | "move")
        || row.key_indices(args.len(), |at| args.get(at, frame)).any(|at| {
            let hash = shard.store.hash(args.get(at, frame));
            shard.locks.blocks(0, db, hash.get()) || holds_back && shard.store.would_save(db, hash)
        })
}

/// What a command over several shards does.
#[derive(Debug)]
pub(crate) enum Plan {
    /// DBSIZE.
    Len(u16),
    /// KEYS.
    Keys(u16, Box<[u8]>),
    /// RANDOMKEY.
    Random(u16),
    /// SCAN from the shard on that its cursor names.
    Scan(Box<Scanning>),
    /// CLUSTER COUNTKEYSINSLOT and GETKEYSINSLOT.
    Slot { slot: u16, most: usize, count: bool },
    /// INFO of these sections.
    Info(Vec<Vec<u8>>),
    /// CONFIG RESETSTAT.
    ResetStats,
    /// CONFIG SET.
    Configure(Vec<(String, String)>),
    /// CLIENT LIST.
    ClientList(Filter),
    /// CLIENT KILL, in its old form or with filters.
    ClientKill { filter: Filter, old_form: bool },
    /// FLUSHDB and FLUSHALL.
    Flush(Option<u16>),
    /// DEL, UNLINK, EXISTS, TOUCH.
    Count { db: u16, parts: Parts, op: fn(u16, Vec<Box<[u8]>>) -> Op },
    /// MGET.
    Mget { db: u16, parts: Parts },
    /// MSET and MSETNX.
    Mset { db: u16, parts: Parts, values: Vec<Bytes>, nx: bool },
    /// RENAME, RENAMENX, COPY.
    Move(Move),
    /// Any other command, run here with the keys of other shards.
    Bring(Box<Bring>),
    /// CLIENT UNBLOCK.
    ClientUnblock { id: u64, why: Cancel },
    /// BGREWRITEAOF, and the log going on and off.
    Log(Op),
    /// WATCH of other shards' keys.
    Watch { keys: ShardKeys, watched: Vec<Watched> },
    /// A script, with keys it declares or was found to use.
    Widen(Box<Widen>),
    /// HOTKEYS.
    Hot(usize),
    /// HOTKEYS RESET.
    ResetHot,
    /// BIGKEYS.
    Big(usize),
    /// SCANDEL and DELPREFIX.
    Erase(Erase),
    /// An administrator's command.
    Admin { ask: Ask, about: String, how: How },
    /// CLIENT TRACKING ON.
    Track(Box<Track>),
    /// PUBLISH and SPUBLISH: what these shards are asked, and how many heard it here.
    Publish { targets: Vec<u16>, here: u64, op: Box<Op> },
    /// PUBSUB CHANNELS and its kin.
    Topics { kind: Kind, pattern: Option<Box<[u8]>>, count: bool },
    /// PUBSUB NUMSUB and SHARDNUMSUB.
    Listeners { kind: Kind, names: Vec<Box<[u8]>> },
}

/// The coordinator of one command.
#[derive(Debug)]
pub struct Multi {
    ticket: u64,
    /// The shards a command on all keys goes to.
    shards: Range<u16>,
    plan: Plan,
    locks: Vec<(u16, LockKeys)>,
    /// Shards that hold locks of ours, ascending.
    locked: Vec<u16>,
    needs_memory: bool,
    full: bool,
    stale: bool,
    /// A shard could not make durable what it was given back.
    unsure: bool,
    stage: Stage,
    /// Its time is being taken.
    pub(crate) timed: Option<Box<Timed>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Locking,
    Running(u8),
    Releasing,
}

/// What a step leads to.
enum Next {
    /// These steps, then another.
    Ops(Vec<(u16, Op)>),
    /// These steps, which release the locks, then another.
    Last(Vec<(u16, Op)>),
    /// These requests, which release the locks of their shards; the reply is written.
    Return(Vec<(u16, Request)>),
    /// The same, but the command is locked for and run again.
    Again(Vec<(u16, Request)>),
    /// These requests, which concern no lock.
    Ask(Vec<(u16, Request)>),
    /// The reply is written; release what is held.
    End,
}

/// What the reply needs.
struct Reply<'a> {
    out: &'a mut Output,
    shard: &'a mut Shard,
    conn: &'a Conn,
    now: Instant,
}

impl Multi {
    /// On all shards.
    pub(crate) fn new(plan: Plan, shard: &mut Shard) -> Self {
        Self::over(0..shard.count, plan, shard)
    }

    /// On this shard's keys only.
    pub(crate) fn alone(plan: Plan, shard: &mut Shard) -> Self {
        Self::over(shard.index..shard.index + 1, plan, shard)
    }

    fn over(shards: Range<u16>, plan: Plan, shard: &mut Shard) -> Self {
        let locks = match &plan {
            Plan::Flush(_)
            | Plan::Log(_)
            | Plan::Admin { ask: Ask::Swap(..) | Ask::Follow(_) | Ask::Cut, .. } => {
                shards.clone().map(|index| (index, LockKeys::All)).collect()
            }
            Plan::Count { db, parts, .. }
            | Plan::Mget { db, parts }
            | Plan::Mset { db, parts, .. } => parts.locks(*db),
            Plan::Move(plan) => plan.locks(),
            Plan::Bring(plan) => plan.locks(),
            Plan::Widen(plan) => plan.locks(),
            _ => Vec::new(),
        };
        let needs_memory = match &plan {
            Plan::Mset { .. } => true,
            Plan::Move(plan) => !plan.take,
            Plan::Bring(plan) => plan.needs_memory,
            _ => false,
        };
        Self {
            ticket: shard.ticket(),
            shards,
            plan,
            locks,
            locked: Vec::new(),
            needs_memory,
            full: false,
            stale: false,
            unsure: false,
            stage: Stage::Locking,
            timed: None,
        }
    }

    /// Runs to the end on the only shard there is.
    pub(crate) fn run_alone(
        &mut self,
        out: &mut Output,
        shard: &mut Shard,
        conn: &Conn,
        now: Instant,
    ) {
        // Nobody runs in between, and what a save has locked keys for does not change by this: it shows an earlier moment.
        if matches!(self.plan, Plan::Flush(_) | Plan::Admin { .. } | Plan::Log(_)) {
            self.locks.clear();
        }
        let mut responses = Vec::new();
        while let Some(requests) = self.step(responses, out, shard, conn, now) {
            let mut done = Vec::with_capacity(requests.len());
            for (_, request) in requests {
                shard.serve(0, request, now, &mut done);
            }
            responses = done.into_iter().map(|(_, response)| response).collect();
        }
    }

    /// Takes the responses to the last requests and gives the next ones; `None` at the end, with
    /// the reply written.
    pub(crate) fn step(
        &mut self,
        responses: Vec<Response>,
        out: &mut Output,
        shard: &mut Shard,
        conn: &Conn,
        now: Instant,
    ) -> Option<Vec<(u16, Request)>> {
        if self.stage == Stage::Releasing {
            // The reply was made; but a shard cannot make its part durable.
            self.unsure |= responses.iter().any(|response| matches!(response, Response::Error(_)));
            return None;
        }
        let mut responses = responses;
        if self.stage == Stage::Locking {
            if let Some(response) = responses.pop() {
                let (full, stale) = bring::refusals(&response);
                self.full |= full;
                self.stale |= stale;
                if let (Response::Lent { records, .. }, Some(&from)) =
                    (response, self.locked.last())
                {
                    match &mut self.plan {
                        Plan::Bring(plan) => plan.take(from, records),
                        Plan::Widen(plan) => plan.take(from, records),
                        _ => {}
                    }
                }
            }
            if !self.locks.is_empty() {
                let (target, keys) = self.locks.remove(0);
                self.locked.push(target);
                return Some(vec![(target, self.lock(target, keys, shard.index))]);
            }
            self.stage = Stage::Running(0);
        }
        let Stage::Running(round) = self.stage else { return None };
        self.stage = Stage::Running(round.saturating_add(1));
        // A master's command that has not begun when that is not followed any more.
        let too_late =
            conn.applies.is_on() && !shard.role.follows && !matches!(self.plan, Plan::Widen(_));
        let mut reply = Reply { out, shard, conn, now };
        let next = if self.full || self.stale || too_late && round == 0 {
            match &mut self.plan {
                Plan::Bring(plan) => plan.refuse(self.ticket, self.stale, &mut reply),
                _ => {
                    reply.fault(&Fault::OOM);
                    Next::End
                }
            }
        } else {
            self.run(round, responses, &mut reply)
        };
        let next = self.in_parts(next, shard);
        let requests = self.requests(next);
        if conn.applies.is_on() {
            requests.map(|requests| as_applied(requests, conn.applies))
        } else {
            requests
        }
    }

    /// Whether what it did may be lost although a reply was made.
    pub(crate) const fn is_unsure(&self) -> bool {
        self.unsure
    }

    /// The request for the locks of one shard.
    fn lock(&self, target: u16, keys: LockKeys, here: u16) -> Request {
        let (ticket, needs_memory) = (self.ticket, self.needs_memory);
        match (&self.plan, keys) {
            (Plan::Bring(plan), LockKeys::Some(keys)) if target != here => {
                let (hold, guards) = (plan.hold(target), plan.guards(target));
                Request::Borrow { ticket, keys, hold, needs_memory, guards }
            }
            (Plan::Widen(plan), LockKeys::Some(keys)) if target != here => {
                let hold = plan.hold(target);
                Request::Borrow { ticket, keys, hold, needs_memory, guards: Vec::new() }
            }
            (plan, keys) => {
                let hold = match plan {
                    Plan::Bring(plan) => Some(plan.hold(target)),
                    Plan::Widen(plan) => Some(plan.hold(target)),
                    _ => None,
                };
                let keys = match (keys, hold) {
                    (LockKeys::Some(keys), Some(LockKeys::Some(beside))) => {
                        LockKeys::Some([keys, beside].concat())
                    }
                    (_, Some(LockKeys::All)) => LockKeys::All,
                    (keys, _) => keys,
                };
                let guards = match plan {
                    Plan::Bring(plan) => plan.guards(target),
                    _ => Vec::new(),
                };
                Request::Lock { ticket, keys, needs_memory, guards }
            }
        }
    }

    /// Commands with keys of several shards.
    pub(crate) fn bring(bring: Bring, shard: &mut Shard) -> Self {
        Self::new(Plan::Bring(Box::new(bring)), shard)
    }

    /// A step of the log on all shards, at a moment at which no command over several shards is under way.
    pub(crate) fn log(op: Op, shard: &mut Shard) -> Self {
        Self::new(Plan::Log(op), shard)
    }

    /// What the command waits for, when it ended without having run.
    pub(crate) fn take_block(&mut self) -> Option<Block> {
        match &mut self.plan {
            Plan::Bring(plan) => plan.take_block(),
            _ => None,
        }
    }

    /// Whether it did what it was to do.
    pub(crate) fn has_run(&self) -> bool {
        match &self.plan {
            Plan::Bring(plan) => plan.has_run(),
            _ => true,
        }
    }

    /// Whether it is a WATCH.
    pub(crate) const fn is_watch(&self) -> bool {
        matches!(self.plan, Plan::Watch { .. })
    }

    /// Keys that WATCH has begun to watch on other shards.
    pub(crate) fn take_watched(&mut self) -> Vec<Watched> {
        match &mut self.plan {
            Plan::Watch { watched, .. } => std::mem::take(watched),
            _ => Vec::new(),
        }
    }

    /// With a log, marks what several shards write as parts of one command.
    fn in_parts(&self, next: Next, shard: &Shard) -> Next {
        let Some(journal) = &shard.journal else { return next };
        let shards: Vec<u16> = match (&self.plan, &next) {
            (Plan::Move(plan), Next::Ops(_) | Next::Last(_)) => plan.writers(),
            (_, Next::Ops(ops) | Next::Last(ops)) => ops.iter().map(|(owner, _)| *owner).collect(),
            _ => return next,
        };
        let is_write = |op: &Op| {
            matches!(
                op,
                Op::Set(..)
                    | Op::Remove(..)
                    | Op::Leave(..)
                    | Op::Store(..)
                    | Op::Flush(_)
                    | Op::Admin(Ask::Swap(..))
            )
        };
        let tx = crate::aof::Tx { name: journal.name(self.ticket), shards };
        let mark = |(owner, op): (u16, Op)| match op {
            op if is_write(&op) => (owner, Op::Part(Box::new(tx.clone()), Box::new(op))),
            op => (owner, op),
        };
        match next {
            Next::Ops(ops) => Next::Ops(ops.into_iter().map(mark).collect()),
            Next::Last(ops) => Next::Last(ops.into_iter().map(mark).collect()),
            next => next,
        }
    }

    fn requests(&mut self, next: Next) -> Option<Vec<(u16, Request)>> {
        let again = matches!(next, Next::Again(_));
        if let Next::Return(mut requests) | Next::Again(mut requests) = next {
            let ticket = self.ticket;
            self.stage = Stage::Releasing;
            if again {
                self.stage = Stage::Locking;
                self.locks = match &self.plan {
                    Plan::Widen(plan) => plan.locks(),
                    Plan::Bring(plan) => plan.locks(),
                    _ => Vec::new(),
                };
            }
            // The rest of the locks is this shard's own.
            for target in std::mem::take(&mut self.locked) {
                if !requests.iter().any(|(lender, _)| *lender == target) {
                    let op = Op::Nothing;
                    requests.push((target, Request::Op { ticket, op, unlock: true }));
                }
            }
            return Some(requests);
        }
        let (ops, unlock) = match next {
            Next::Ops(ops) => (ops, false),
            Next::Last(ops) => (ops, true),
            Next::Ask(requests) => return Some(requests),
            Next::Return(_) | Next::Again(_) => return None,
            Next::End if self.locked.is_empty() => return None,
            Next::End => {
                self.stage = Stage::Releasing;
                (Vec::new(), true)
            }
        };
        let ticket = self.ticket;
        let mut requests: Vec<(u16, Request)> = ops
            .into_iter()
            .map(|(target, op)| (target, Request::Op { ticket, op, unlock }))
            .collect();
        if unlock {
            // Shards without a step of their own still hold locks.
            for target in std::mem::take(&mut self.locked) {
                if !requests.iter().any(|(busy, _)| *busy == target) {
                    requests.push((target, Request::Op { ticket, op: Op::Nothing, unlock }));
                }
            }
        }
        Some(requests)
    }

    fn run(&mut self, round: u8, mut responses: Vec<Response>, reply: &mut Reply<'_>) -> Next {
        match (&mut self.plan, round) {
            (Plan::Count { db, parts, op }, 0) => {
                let (db, op) = (*db, *op);
                Next::Last(parts.ops(|keys| op(db, keys)))
            }
            (Plan::Mget { db, parts }, 0) => {
                let db = *db;
                Next::Last(parts.ops(|keys| Op::Get(db, keys)))
            }
            (Plan::Mset { db, parts, nx: true, .. }, 0) => {
                let db = *db;
                Next::Ops(parts.ops(|keys| Op::Exists(db, keys)))
            }
            (Plan::Mset { nx: true, .. }, 1) if sum(&responses) > 0 => {
                reply.int(0);
                Next::End
            }
            (Plan::Mset { db, parts, values, nx }, _) if round == u8::from(*nx) => {
                Next::Last(parts.pairs(*db, values))
            }
            (Plan::Move(plan), round) => plan.run(round, responses, reply),
            (Plan::Bring(plan), _) => plan.run(self.ticket, responses, reply),
            (Plan::Watch { keys, .. }, 0) => {
                let op = |(owner, keys): &(u16, Vec<_>)| (*owner, Op::Watch(keys.clone()));
                Next::Ops(keys.iter().map(op).collect())
            }
            (Plan::Watch { keys, watched }, _) => {
                watched.extend(watched_keys(keys, responses));
                reply::ok(reply.out.inline_mut());
                Next::End
            }
            (Plan::Widen(plan), _) => plan.run(self.ticket, responses, reply),
            (Plan::Log(op), 0) => {
                Next::Last(self.shards.clone().map(|target| (target, op.again())).collect())
            }
            (Plan::Flush(db), 0) => {
                let db = *db;
                Next::Last(self.shards.clone().map(|target| (target, Op::Flush(db))).collect())
            }
            (Plan::Track(track), round) => {
                let follows = track.step(round, &responses, reply.shard, reply.conn);
                reply.follow(follows, self.shards.clone())
            }
            (Plan::Publish { targets, op, .. }, 0) => {
                Next::Ops(targets.iter().map(|target| (*target, op.again())).collect())
            }
            (Plan::Scan(scanning), 1..) => {
                if scanning.goes_on(&mut responses, self.shards.len()) {
                    let target = self.shards.start + scanning.target;
                    return Next::Ops(vec![(target, Op::Scan(scanning.scan.clone()))]);
                }
                self.plan.reply(responses, reply, &self.shards);
                Next::End
            }
            (plan, 0) => {
                let step = || plan.single_round(reply, &self.shards);
                match step() {
                    (Some(target), op) => Next::Ops(vec![(target, op)]),
                    (None, _) => {
                        let shards = self.shards.clone();
                        Next::Ops(shards.map(|target| (target, step().1)).collect())
                    }
                }
            }
            (plan, _) => {
                plan.reply(responses, reply, &self.shards);
                Next::End
            }
        }
    }
}

impl Reply<'_> {
    fn int(&mut self, value: u64) {
        reply::integer(self.out.inline_mut(), i64::try_from(value).unwrap_or(i64::MAX));
    }

    /// What follows a step of CLIENT TRACKING ON.
    fn follow(&mut self, follows: Follows, shards: Range<u16>) -> Next {
        let here = self.shard.index;
        match follows {
            Follows::AskAll(op) => Next::Ops(shards.map(|target| (target, op.again())).collect()),
            Follows::AskOthers(op) => {
                let others = shards.filter(|target| *target != here);
                Next::Ops(others.map(|target| (target, op.again())).collect())
            }
            Follows::Done(Ok(())) => {
                reply::ok(self.out.inline_mut());
                Next::End
            }
            Follows::Done(Err(fault)) => {
                self.fault(&fault);
                Next::End
            }
        }
    }

    fn fault(&mut self, fault: &Fault) {
        self.shard.stats.error(fault.code());
        reply::error(self.out.inline_mut(), &fault.0);
    }
}

/// Marks steps as those of a master's command.
fn as_applied(mut requests: Vec<(u16, Request)>, applies: Applies) -> Vec<(u16, Request)> {
    for (_, request) in &mut requests {
        match request {
            Request::Op { op, .. } if !matches!(op, Op::Nothing) => {
                *op = Op::Applied(Box::new(std::mem::replace(op, Op::Nothing)), applies);
            }
            Request::Batch(batch) => batch.applies = applies,
            _ => {}
        }
    }
    requests
}

/// Keys of other shards, and what they were when watching them began.
fn watched_keys(keys: &mut ShardKeys, responses: Vec<Response>) -> Vec<Watched> {
    let mut all = Vec::new();
    for ((shard, keys), response) in keys.drain(..).zip(responses) {
        let Response::Watched(was) = response else { continue };
        let keys = keys.into_iter().zip(was);
        all.extend(keys.map(|((db, key), was)| Watched { shard, guard: Guard { db, key, was } }));
    }
    all
}
