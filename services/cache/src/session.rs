//! A connection: parse a batch, prefetch its keys, execute, reply in order.
//!
//! One GET: `on_bytes` parses the frames at the front of the input into the shard's [`Group`]; when
//! there are several, their commands are looked up, their keys hashed, and the table's bucket and
//! record lines loaded for all of them before the first runs. With several shards, commands whose
//! keys live elsewhere are collected per shard ([`Hop`]) and the replies put back in order.
//!
//! Invariants: no allocation for a GET or SET of a key that is here; a command is consumed exactly when it has run or
//! has been handed on; per call at most [`MAX_COMMANDS`] commands or [`MAX_OUTPUT_BYTES`] of output
//! beyond the command that crosses it; an idle session owns no buffer.

use view::{Flow, Input, Instant, Mark, Output};
use wire::resp::{Args, Limits, ParseState, Parsed, Version, likely_key, parse_command, reply};

use crate::{
    clients::ConnInfo,
    command::{Conn, Mode, Outcome, ReplyMode, Waiting, dispatch, transactions},
    flow::wait::{Next, Wait},
    group::{Group, Item},
    hop::Hop,
    multi::Multi,
    observe::{Block, Cancel},
    repl::Applies,
    shard::Shard,
    spread::Spread,
    transaction::{self, Exec},
    watch::guard::PAUSE_STEP_US,
    work::{Done, Request, Response, Work},
};

mod held;
mod place;

use held::Held;
use place::Place;

/// Most commands run per call.
pub const MAX_COMMANDS: usize = 128;
/// No further command is started once this much output was added in a call.
pub const MAX_OUTPUT_BYTES: usize = 64 << 10;
/// An announced frame of this size and more is asked for in one allocation.
const WANT_MIN_BYTES: usize = 32 << 10;

/// One connection of the cache.
#[derive(Debug)]
pub struct Session {
    conn: Conn,
    parse: ParseState,
    pending: Option<Pending>,
    /// Replies that other shards have yet to log.
    kept: Option<Box<Output>>,
    /// How far the log must be durable before the next replies go out.
    needs: u64,
}

/// What the last `Await` is for.
#[derive(Debug)]
enum Pending {
    Hop(Box<Hop>),
    Multi(Box<Multi>),
    Sleep,
    Locked,
    /// A command that blocks: on which shard, and under which name.
    Block {
        owner: u16,
        ticket: u64,
    },
    Spread(Box<Spread>),
    Exec(Box<Exec>, Box<Multi>),
    Job,
    /// WAIT.
    Wait(Box<Wait>),
    /// Replies that wait for the log, and what follows them.
    Held(Box<Held>),
}

/// What a command did to the batch.
enum Step {
    Next,
    /// Not consumed: commands on other shards must be answered first.
    Barrier,
    /// Consumed; the batch ends with this.
    End(Flow<Work>),
    /// Not consumed; a key is locked.
    Locked,
    /// Consumed; the commands behind it are to be looked at anew.
    Regroup,
    /// Not consumed; clients are paused.
    Later,
}

/// Everything a step needs beside the session.
struct Turn<'a, 'i> {
    out: &'a mut Output,
    /// Where this call's replies begin.
    start: Mark,
    shard: &'a mut Shard,
    now: Instant,
    hop: Option<Box<Hop>>,
    bytes: &'i [u8],
}

impl Session {
    /// A new connection.
    #[must_use]
    pub fn new(info: ConnInfo<'_>, shard: &mut Shard, now: Instant) -> Self {
        shard.stats.connections += 1;
        let slot = shard.clients.open(info, now.unix_ms());
        let mut conn = Conn {
            id: info.id,
            slot,
            db: 0,
            version: Version::Resp2,
            authenticated: !shard.needs_password(),
            no_touch: false,
            shard_port: info.shard_port,
            knows_topology: false,
            last_command: u16::MAX,
            mode: Mode::Direct,
            transaction: None,
            user: None,
            seen: 0,
            restricted: false,
            watched: false,
            reply: ReplyMode::On,
            plain: false,
            subscribes: false,
            tracks: false,
            scripted: false,
            applies: Applies::NO,
        };
        conn.refresh(shard);
        Self { conn, parse: ParseState::new(), pending: None, kept: None, needs: 0 }
    }

    /// A connection of nobody, over which what a master sends is applied.
    pub(crate) fn applying() -> Self {
        let mut conn = Conn::remote(0, Version::Resp2, false);
        conn.applies = Applies::NOW;
        Self { conn, parse: ParseState::new(), pending: None, kept: None, needs: 0 }
    }

    /// When what is applied from now on runs.
    pub(crate) const fn set_applies(&mut self, applies: Applies) {
        self.conn.applies = applies;
    }

    /// Whether commands are queued for EXEC.
    pub(crate) fn queues(&self) -> bool {
        self.conn.queues()
    }

    /// What has come of a command that is not whole comes again.
    pub(crate) fn begin_anew(&mut self) {
        self.parse = ParseState::new();
    }

    /// The connection's id, as CLIENT ID tells it.
    #[must_use]
    pub const fn id(&self) -> u64 {
        self.conn.id
    }

    /// Runs the commands at the front of the input.
    fn run(
        &mut self,
        input: &mut Input<'_>,
        out: &mut Output,
        shard: &mut Shard,
        now: Instant,
        group: &mut Group,
    ) -> Flow<Work> {
        let full = out.len() + MAX_OUTPUT_BYTES;
        let bytes = input.remaining();
        if self.conn.seen != shard.generation {
            self.conn.refresh(shard);
        }
        let mut limits = self.limits(shard);
        if !self.conn.plain {
            // What was published before these commands run is read before their replies.
            shard.mail.take(self.conn.slot, out);
        }
        let start = out.mark();
        let mut turn = Turn { out, start, shard, now, hop: None, bytes };
        let mut budget = MAX_COMMANDS;
        let flow = loop {
            let first = group.first_mut();
            let len = match parse_command(turn.bytes, first, &limits, &mut self.parse) {
                Parsed::Command { frame_len } => frame_len,
                Parsed::Incomplete { need } => {
                    input.want(if need >= WANT_MIN_BYTES { need } else { 0 });
                    break Flow::NeedInput;
                }
                Parsed::Invalid(_) if turn.hop.is_some() => break Flow::Flush,
                Parsed::Invalid(error) => {
                    turn.shard.stats.error("ERR");
                    error.write(turn.out.inline_mut());
                    break Flow::Close;
                }
            };
            let queues = self.conn.queues();
            let most = if queues { 1 } else { budget };
            let count = group.collect(turn.bytes, len, &limits, most);
            let local = turn.shard.count == 1;
            group.resolve(turn.shard, turn.bytes, count, self.conn.db, local);
            if turn.shard.hot.passes(count) {
                turn.shard.sample_hot(group, turn.bytes, count, self.conn.db);
            }
            let ended = if queues {
                self.queue(&mut turn, input, group)
            } else {
                self.group(&mut turn, input, group, count)
            };
            if let Some(flow) = ended {
                break flow;
            }
            budget -= count;
            let written = turn.out.len() + turn.hop.as_ref().map_or(0, |hop| hop.local.len());
            if budget == 0 || written >= full {
                break if turn.bytes.is_empty() { Flow::NeedInput } else { Flow::Flush };
            }
            if turn.bytes.is_empty() {
                break Flow::NeedInput;
            }
            // The group may have held AUTH, RESET or CONFIG SET.
            limits = self.limits(turn.shard);
        };
        let hop = turn.hop.take();
        let flow = self.finish(hop, flow, shard);
        let holds = shard.observed || self.kept.is_some();
        if holds { self.hold(flow, start, out, shard) } else { flow }
    }

    /// Runs a resolved group; what ends the batch, if something does.
    #[inline]
    fn group(
        &mut self,
        turn: &mut Turn<'_, '_>,
        input: &mut Input<'_>,
        group: &mut Group,
        count: usize,
    ) -> Option<Flow<Work>> {
        let bytes = turn.bytes;
        for (item, args) in group.commands(count) {
            match self.step(turn, input, item, args, item.frame(bytes)) {
                Step::Next => {}
                Step::Barrier => return Some(Flow::Flush),
                Step::Later => return Some(Flow::Await(Work::Sleep { us: PAUSE_STEP_US })),
                Step::Locked => {
                    turn.shard.stats.lock_waits += 1;
                    return Some(Flow::Await(Work::Locked));
                }
                Step::End(flow) => {
                    input.consume(item.len);
                    return Some(flow);
                }
                Step::Regroup => {
                    input.consume(item.len);
                    turn.bytes = bytes.get(item.start + item.len..).unwrap_or_default();
                    return None;
                }
            }
            input.consume(item.len);
            turn.bytes = bytes.get(item.start + item.len..).unwrap_or_default();
        }
        None
    }

    /// Queues the one command of a group for EXEC, or runs it when it is one of those that end or watch transactions.
    #[cold]
    fn queue(
        &mut self,
        turn: &mut Turn<'_, '_>,
        input: &mut Input<'_>,
        group: &mut Group,
    ) -> Option<Flow<Work>> {
        let (item, args) = group.commands(1).next()?;
        let runs = |id| !transaction::is_queued(turn.shard.commands.row(id));
        if args.is_empty() || item.id.is_some_and(runs) {
            return self.group(turn, input, group, 1);
        }
        let frame = item.frame(turn.bytes);
        let call = dispatch::Call { args, frame, input, id: item.id, hash: None };
        let took = transactions::queue(call, turn.out, turn.shard, &mut self.conn, turn.now);
        input.consume(item.len);
        turn.bytes = turn.bytes.get(item.len..).unwrap_or_default();
        matches!(took, transactions::Took::TooMuch).then(|| turn.hangup())
    }

    /// Runs or hands on one command.
    #[inline]
    fn step(
        &mut self,
        turn: &mut Turn<'_, '_>,
        input: &Input<'_>,
        item: &Item,
        args: &Args,
        frame: &[u8],
    ) -> Step {
        if args.is_empty() {
            return Step::Next;
        }
        if turn.shard.count > 1 || !turn.shard.locks.is_empty() {
            match self.place(turn, item, args, frame, input) {
                Place::Here => {}
                Place::Done => return Step::Next,
                Place::Stop(step) => return step,
            }
        }
        let call = dispatch::Call { args, frame, input, id: item.id, hash: item.hash };
        let outcome = match &mut turn.hop {
            None => dispatch::run(call, turn.out, turn.shard, &mut self.conn, turn.now),
            Some(hop) => {
                let outcome =
                    dispatch::run(call, &mut hop.local, turn.shard, &mut self.conn, turn.now);
                if !matches!(outcome, Outcome::Later) {
                    hop.mark_local();
                }
                outcome
            }
        };
        match outcome {
            Outcome::Done => Step::Next,
            Outcome::Close => Step::End(Flow::Close),
            Outcome::Hangup => Step::End(turn.hangup()),
            Outcome::Regroup => Step::Regroup,
            Outcome::Later => Step::Later,
            Outcome::Wait(waiting) if turn.hop.is_some() => {
                debug_assert!(matches!(*waiting, Waiting::Block(_)), "others end the batch before");
                Step::Barrier
            }
            Outcome::Wait(waiting) => match *waiting {
                Waiting::Block(block) => Step::End(self.block_here(block, frame, input, turn)),
                Waiting::Multi(mut multi) => {
                    multi.timed = turn.shard.begin_timing(item.id, args, frame, turn.now);
                    Step::End(self.wait(Waiting::Multi(multi), turn))
                }
                waiting => Step::End(self.wait(waiting, turn)),
            },
        }
    }

    /// Waits on this shard for a command that found nothing.
    #[cold]
    fn block_here(
        &mut self,
        block: Block,
        frame: &[u8],
        input: &Input<'_>,
        turn: &mut Turn<'_, '_>,
    ) -> Flow<Work> {
        let owner = turn.shard.index;
        match block.frame {
            None => self.block_on(owner, frame, input, turn.shard),
            Some(frame) => self.block_on(owner, &frame, &Input::borrowed(&frame), turn.shard),
        }
    }

    /// Waits on a shard for a command that may block.
    #[cold]
    fn block_on(
        &mut self,
        owner: u16,
        frame: &[u8],
        input: &Input<'_>,
        shard: &mut Shard,
    ) -> Flow<Work> {
        let ticket = shard.ticket();
        let conn = &self.conn;
        let mut batch = shard.spares.take(conn.db, conn.version, conn.no_touch);
        batch.push(frame, input);
        self.set_blocked(shard, Some((owner, ticket)));
        self.pending = Some(Pending::Block { owner, ticket });
        Flow::Await(Work::Exchange(vec![(owner, Request::Block { ticket, batch })]))
    }

    /// Shows whether the connection waits in a command.
    fn set_blocked(&self, shard: &mut Shard, blocked: Option<(u16, u64)>) {
        let Some(record) = shard.clients.get_mut(self.conn.slot) else { return };
        let was = std::mem::replace(&mut record.blocked, blocked);
        shard.blocked += u64::from(blocked.is_some());
        shard.blocked -= u64::from(was.is_some());
    }

    #[cold]
    fn wait(&mut self, waiting: Waiting, turn: &mut Turn<'_, '_>) -> Flow<Work> {
        debug_assert!(turn.hop.is_none(), "a waiting command ends the batch before it");
        match waiting {
            Waiting::Sleep { us } => {
                turn.shard.blocked += 1;
                self.pending = Some(Pending::Sleep);
                Flow::Await(Work::Sleep { us })
            }
            Waiting::Multi(multi) => {
                self.advance(Box::new(multi), Vec::new(), turn.out, turn.shard, turn.now)
            }
            Waiting::Exec => {
                let Some(transaction) = self.conn.transaction.take() else {
                    return Flow::Flush;
                };
                let exec = Box::new(Exec::new(*transaction, turn.shard));
                self.advance_exec(exec, turn.out, turn.shard, turn.now)
            }
            Waiting::Job(job) => {
                self.pending = Some(Pending::Job);
                Flow::Await(Work::Job(job))
            }
            Waiting::Replicas(wait) => {
                turn.shard.blocked += 1;
                self.pending = Some(Pending::Wait(Box::new(wait)));
                Flow::Await(Wait::ask(turn.shard.count))
            }
            // Those do not come here.
            Waiting::Block(_) | Waiting::Widen(_) => Flow::Flush,
        }
    }

    /// Goes on waiting for replicas, or tells how many have all.
    fn wait_on(
        &mut self,
        mut wait: Box<Wait>,
        done: Done,
        out: &mut Output,
        shard: &mut Shard,
        now: Instant,
    ) -> Flow<Work> {
        let work = match done {
            Done::Exchange(responses) => match wait.take(responses, now) {
                Next::Count(count) => {
                    shard.blocked = shard.blocked.saturating_sub(1);
                    reply::integer(out.inline_mut(), i64::try_from(count).unwrap_or(i64::MAX));
                    return Flow::Flush;
                }
                Next::Pause(us) => Work::Sleep { us },
            },
            _ => Wait::ask(shard.count),
        };
        self.pending = Some(Pending::Wait(wait));
        Flow::Await(work)
    }

    /// Next command, or commands, of a transaction over several shards.
    fn advance_exec(
        &mut self,
        mut exec: Box<Exec>,
        out: &mut Output,
        shard: &mut Shard,
        now: Instant,
    ) -> Flow<Work> {
        loop {
            match exec.next(&mut self.conn, out, shard, now) {
                transaction::Next::End if exec.closes => return Flow::Close,
                transaction::Next::End => return Flow::Flush,
                transaction::Next::Multi(mut multi) => {
                    if let Some(requests) = multi.step(Vec::new(), out, shard, &self.conn, now) {
                        self.pending = Some(Pending::Exec(exec, multi));
                        return Flow::Await(Work::Exchange(requests));
                    }
                    exec.ran(multi.has_run(), &mut self.conn, shard);
                }
            }
        }
    }

    /// Next step of a command that may block, with keys on several shards.
    fn advance_spread(
        &mut self,
        mut spread: Box<Spread>,
        responses: Vec<Response>,
        out: &mut Output,
        shard: &mut Shard,
        now: Instant,
    ) -> Flow<Work> {
        match spread.step(responses, out, shard, &self.conn, now) {
            Some(requests) => {
                self.pending = Some(Pending::Spread(spread));
                Flow::Await(Work::Exchange(requests))
            }
            None => {
                self.set_blocked(shard, None);
                Flow::Flush
            }
        }
    }

    /// What a command did may be lost: none of the replies that were kept goes out.
    fn close_unsure(&mut self) -> Flow<Work> {
        self.kept = None;
        Flow::Close
    }

    /// Next step of a command over several shards.
    fn advance(
        &mut self,
        mut multi: Box<Multi>,
        responses: Vec<Response>,
        out: &mut Output,
        shard: &mut Shard,
        now: Instant,
    ) -> Flow<Work> {
        let requests = multi.step(responses, out, shard, &self.conn, now);
        if requests.is_none()
            && let Some(timed) = multi.timed.take()
        {
            shard.end_timing(*timed, &self.conn, now);
        }
        match requests {
            Some(requests) => {
                shard.stats.hop_requests +=
                    requests.iter().filter(|(target, _)| *target != shard.index).count() as u64;
                self.pending = Some(Pending::Multi(multi));
                Flow::Await(Work::Exchange(requests))
            }
            None if multi.is_watch() => {
                transactions::watched(&mut self.conn, multi.take_watched());
                Flow::Flush
            }
            None if multi.is_unsure() => self.close_unsure(),
            None if shard.clients.take_own_kill(self.conn.id) => Flow::Close,
            None => Flow::Flush,
        }
    }

    /// Ends a batch: commands handed on are sent first.
    fn finish(&mut self, hop: Option<Box<Hop>>, flow: Flow<Work>, shard: &mut Shard) -> Flow<Work> {
        let Some(mut hop) = hop else {
            if let Flow::Await(Work::Locked) = flow {
                self.pending = Some(Pending::Locked);
            }
            return flow;
        };
        hop.close = matches!(flow, Flow::Close);
        let requests = hop.take_requests();
        shard.stats.hop_requests += requests.len() as u64;
        self.pending = Some(Pending::Hop(hop));
        Flow::Await(Work::Exchange(requests))
    }

    #[inline]
    fn limits(&self, shard: &Shard) -> Limits {
        Limits {
            max_bulk_bytes: shard.settings.max_bulk_bytes,
            max_frame_bytes: shard.settings.max_query_bytes,
            unauthenticated: !self.conn.plain && !self.conn.authenticated && shard.needs_password(),
            ..Limits::DEFAULT
        }
    }
}

impl Turn<'_, '_> {
    /// Closes without any of this call's replies.
    #[cold]
    fn hangup(&mut self) -> Flow<Work> {
        self.out.truncate(self.start);
        if let Some(hop) = &mut self.hop {
            hop.silence();
        }
        Flow::Close
    }
}

impl view::Session for Session {
    type Shard = Shard;
    type Work = Work;
    type Done = Done;

    fn on_bytes(
        &mut self,
        input: &mut Input<'_>,
        out: &mut Output,
        shard: &mut Shard,
        now: Instant,
    ) -> Flow<Work> {
        // A pointer leaves the shard and comes back; nothing is copied or allocated.
        let mut group = shard.group.take().unwrap_or_default();
        shard.log_look();
        let flow = self.run(input, out, shard, now, &mut group);
        shard.group = Some(group);
        if let Some(record) = shard.clients.get_mut(self.conn.slot) {
            record.last_ms = now.unix_ms();
            record.last_command = self.conn.last_command;
        }
        flow
    }

    fn on_done(
        &mut self,
        done: Done,
        out: &mut Output,
        shard: &mut Shard,
        now: Instant,
    ) -> Flow<Work> {
        if self.conn.reply == ReplyMode::On {
            return self.resume(done, out, shard, now);
        }
        let start = out.mark();
        let flow = self.resume(done, out, shard, now);
        out.truncate(start);
        if self.conn.reply == ReplyMode::Skip && !matches!(flow, Flow::Await(_)) {
            self.conn.set_reply(ReplyMode::On);
        }
        flow
    }

    fn foresee(&self, bytes: &[u8], shard: &mut Shard) {
        let Some(key) = likely_key(bytes) else { return };
        if shard.topology.owner_of(key) == shard.index {
            let hash = shard.store.hash(key);
            shard.ahead.push(self.conn.db, hash);
        }
    }

    fn foreseen(shard: &mut Shard) {
        shard.ahead.load(&shard.store);
    }

    fn on_gone(&mut self, shard: &mut Shard) {
        match &mut self.pending {
            Some(Pending::Block { owner, ticket }) => {
                shard.cancel_on(*owner, *ticket, Cancel::TimeOut);
            }
            Some(Pending::Spread(spread)) => spread.give_up(shard),
            Some(Pending::Held(held)) => match &mut held.pending {
                // It has not begun to wait.
                Some(Pending::Block { .. }) => {
                    held.pending = None;
                    held.flow = Flow::Close;
                }
                Some(Pending::Spread(spread)) => spread.give_up(shard),
                _ => {}
            },
            _ => {}
        }
    }

    fn on_close(&mut self, shard: &mut Shard) {
        transactions::end(&mut self.conn, shard);
        self.set_blocked(shard, None);
        if matches!(self.pending, Some(Pending::Sleep | Pending::Wait(_))) {
            shard.blocked = shard.blocked.saturating_sub(1);
        }
        shard.end_flow(self.conn.id);
        shard.stop_watching(self.conn.slot);
        shard.forget(self.conn.slot);
        if self.conn.tracks {
            shard.disable_tracking(self.conn.id, self.conn.slot);
        }
        shard.clients.close(self.conn.slot);
    }
}

impl Session {
    /// Goes on with what was waited for; what that replies may have to wait for the log.
    fn resume(
        &mut self,
        done: Done,
        out: &mut Output,
        shard: &mut Shard,
        now: Instant,
    ) -> Flow<Work> {
        let start = out.mark();
        shard.log_look();
        let flow = match (self.pending.take(), done) {
            (Some(Pending::Held(held)), Done::Durable { is_so }) => {
                return self.release(*held, is_so, out);
            }
            (Some(pending), done) => self.proceed(pending, done, out, shard, now),
            (None, _) => Flow::Flush,
        };
        let holds = shard.observed || self.kept.is_some();
        if holds { self.hold(flow, start, out, shard) } else { flow }
    }

    /// Goes on with what was waited for.
    fn proceed(
        &mut self,
        pending: Pending,
        done: Done,
        out: &mut Output,
        shard: &mut Shard,
        now: Instant,
    ) -> Flow<Work> {
        match (pending, done) {
            (Pending::Hop(mut hop), Done::Exchange(responses)) => {
                let close = hop.close;
                hop.assemble(responses, out, &mut shard.spares);
                shard.keep_hop(hop);
                if close { Flow::Close } else { Flow::Flush }
            }
            (Pending::Multi(multi), Done::Exchange(responses)) => {
                self.advance(multi, responses, out, shard, now)
            }
            (Pending::Block { .. }, Done::Exchange(responses)) => {
                self.set_blocked(shard, None);
                for response in responses {
                    match response {
                        Response::Batch(mut batch) => {
                            batch.take_reply(out);
                            shard.spares.give_back(batch);
                        }
                        other => reply::error(out.inline_mut(), Response::why_not(Some(&other))),
                    }
                }
                Flow::Flush
            }
            (Pending::Spread(spread), Done::Exchange(responses)) => {
                self.advance_spread(spread, responses, out, shard, now)
            }
            (Pending::Exec(mut exec, mut multi), Done::Exchange(responses)) => {
                if let Some(requests) = multi.step(responses, out, shard, &self.conn, now) {
                    self.pending = Some(Pending::Exec(exec, multi));
                    return Flow::Await(Work::Exchange(requests));
                }
                if multi.is_unsure() {
                    return self.close_unsure();
                }
                exec.ran(multi.has_run(), &mut self.conn, shard);
                self.advance_exec(exec, out, shard, now)
            }
            (Pending::Sleep, _) => {
                shard.blocked = shard.blocked.saturating_sub(1);
                reply::ok(out.inline_mut());
                Flow::Flush
            }
            (Pending::Wait(wait), done) => self.wait_on(wait, done, out, shard, now),
            (Pending::Job, Done::Job(Response::Stopping)) => Flow::Close,
            (Pending::Job, Done::Job(response)) => {
                shard.reply_job(&response, out);
                Flow::Flush
            }
            _ => Flow::Flush,
        }
    }
}
