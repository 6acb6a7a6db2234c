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
use wire::resp::{Args, Limits, ParseState, Parsed, Version, likely_key, parse_command};

use crate::{
    clients::ConnInfo,
    command::{Conn, Outcome, Waiting, dispatch},
    group::{Group, Item},
    hop::Hop,
    multi::{self, Multi},
    shard::Shard,
    work::{Done, Response, Work},
};

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
}

/// What the last `Await` is for.
#[derive(Debug)]
enum Pending {
    Hop(Box<Hop>),
    Multi(Box<Multi>),
    Sleep,
    Locked,
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
        let conn = Conn {
            id: info.id,
            slot,
            db: 0,
            version: Version::Resp2,
            authenticated: !shard.needs_password(),
            no_touch: false,
            shard_port: info.shard_port,
            knows_topology: false,
            last_command: u16::MAX,
        };
        Self { conn, parse: ParseState::new(), pending: None }
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
        let mut limits = self.limits(shard);
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
            let count = group.collect(turn.bytes, len, &limits, budget);
            let local = turn.shard.count == 1;
            group.resolve(turn.shard, turn.bytes, count, self.conn.db, local);
            if let Some(flow) = self.group(&mut turn, input, group, count) {
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
        self.finish(hop, flow, shard)
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
                Step::Locked => {
                    turn.shard.stats.lock_waits += 1;
                    return Some(Flow::Await(Work::Locked));
                }
                Step::End(flow) => {
                    input.consume(item.len);
                    return Some(flow);
                }
            }
            input.consume(item.len);
            turn.bytes = bytes.get(item.start + item.len..).unwrap_or_default();
        }
        None
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
                hop.mark_local();
                outcome
            }
        };
        match outcome {
            Outcome::Done => Step::Next,
            Outcome::Close => Step::End(Flow::Close),
            Outcome::Hangup => Step::End(turn.hangup()),
            Outcome::Wait(waiting) => Step::End(self.wait(*waiting, turn)),
        }
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
        }
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
        match multi.step(responses, out, shard, &self.conn, now) {
            Some(requests) => {
                shard.stats.hop_requests +=
                    requests.iter().filter(|(target, _)| *target != shard.index).count() as u64;
                self.pending = Some(Pending::Multi(multi));
                Flow::Await(Work::Exchange(requests))
            }
            None if shard.clients.take_own_kill(self.conn.id) => Flow::Close,
            None => Flow::Flush,
        }
    }

    /// With several shards or locks about: where a command runs.
    #[cold]
    #[inline(never)]
    fn place(
        &mut self,
        turn: &mut Turn<'_, '_>,
        item: &Item,
        args: &Args,
        frame: &[u8],
        input: &Input<'_>,
    ) -> Place {
        let target = match multi::target(turn.shard, &self.conn, item, args, frame) {
            multi::Target::Here => return Place::Here,
            multi::Target::Locked => return Place::Stop(Step::Locked),
            multi::Target::Barrier if turn.hop.is_some() => return Place::Stop(Step::Barrier),
            multi::Target::Barrier => return Place::Here,
            multi::Target::Spread if turn.hop.is_some() => return Place::Stop(Step::Barrier),
            multi::Target::Spread => {
                let call = dispatch::Call { args, frame, input, id: item.id, hash: item.hash };
                return match dispatch::spread(call, turn.out, turn.shard, &mut self.conn, turn.now)
                {
                    None => Place::Done,
                    Some(multi) => Place::Stop(Step::End(self.wait(Waiting::Multi(multi), turn))),
                };
            }
            multi::Target::There { shard, moved: Some(slot) } => {
                let out = match &mut turn.hop {
                    None => &mut *turn.out,
                    Some(hop) => &mut hop.local,
                };
                dispatch::moved(out, turn.shard, &self.conn, slot, shard);
                if let Some(hop) = &mut turn.hop {
                    hop.mark_local();
                }
                return Place::Done;
            }
            multi::Target::There { shard, moved: None } => shard,
        };
        let hop = turn.hop.get_or_insert_with(|| turn.shard.spare_hops.pop().unwrap_or_default());
        hop.push(target, &self.conn, frame, input, &mut turn.shard.spares);
        turn.shard.stats.hopped_commands += 1;
        Place::Done
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
            unauthenticated: !self.conn.authenticated && shard.needs_password(),
            ..Limits::DEFAULT
        }
    }
}

/// Where [`Session::place`] leaves a command.
enum Place {
    Here,
    Done,
    Stop(Step),
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
        let Some(pending) = self.pending.take() else { return Flow::Flush };
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
            (Pending::Sleep, _) => {
                shard.blocked = shard.blocked.saturating_sub(1);
                wire::resp::reply::ok(out.inline_mut());
                Flow::Flush
            }
            _ => Flow::Flush,
        }
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

    fn on_close(&mut self, shard: &mut Shard) {
        if matches!(self.pending, Some(Pending::Sleep)) {
            shard.blocked = shard.blocked.saturating_sub(1);
        }
        shard.clients.close(self.conn.slot);
    }
}
