//! The owner's side of cross-shard work: what other shards' sessions ask of this one.
//!
//! A batch runs until a command touches a locked key; then it is parked and goes on when the lock
//! has gone, in order of arrival. Lock requests are answered when granted. Invariant: every request
//! is answered exactly once, under the token it came with.

use view::{Input, Instant};
use wire::resp::{Limits, ParseState, Parsed, parse_command};

use crate::{
    batch::Batch,
    command::{Conn, Outcome, Waiting, dispatch},
    group::{GROUP, Group},
    lock::{HELD_BACK, Wanted},
    multi,
    observe::{self, Cancel, Changes},
    repl::Applies,
    shard::Shard,
    work::{Guard, LockKeys, Op, Record, Request, Response},
};

/// A request that waits for a lock.
#[derive(Debug)]
pub(crate) struct Parked {
    token: u64,
    what: Waits,
}

#[derive(Debug)]
enum Waits {
    Lock {
        ticket: u64,
        needs_memory: bool,
        guards: Vec<Guard>,
    },
    Borrow {
        ticket: u64,
        keys: Vec<(u16, Box<[u8]>)>,
        needs_memory: bool,
        guards: Vec<Guard>,
    },
    Block {
        ticket: u64,
        batch: Box<Batch>,
    },
    Batch(Box<Run>),
    /// For keys that were lent.
    Op(Op),
}

/// A batch on its way, and how far it has come.
#[derive(Debug)]
struct Run {
    batch: Box<Batch>,
    at: usize,
    large: usize,
}

impl Shard {
    /// Handles a request. `done` receives what can be answered now, each response with the token
    /// its request came with: this one's, unless a lock makes it wait, and those it released.
    pub fn serve(
        &mut self,
        token: u64,
        request: Request,
        now: Instant,
        done: &mut Vec<(u64, Response)>,
    ) {
        match request {
            Request::Batch(batch) => {
                self.proceed(token, Run { batch, at: 0, large: 0 }, now, done);
            }
            Request::Lock { ticket, keys, needs_memory, guards } => {
                let wanted = self.wanted(keys, &guards);
                let what = Waits::Lock { ticket, needs_memory, guards };
                self.acquire(Parked { token, what }, ticket, wanted, now, done);
            }
            Request::Borrow { ticket, keys, hold, needs_memory, guards } => {
                let hold = match hold {
                    LockKeys::All => LockKeys::All,
                    LockKeys::Some(beside) => LockKeys::Some([keys.clone(), beside].concat()),
                };
                let wanted = self.wanted(hold, &guards);
                let what = Waits::Borrow { ticket, keys, needs_memory, guards };
                self.acquire(Parked { token, what }, ticket, wanted, now, done);
            }
            Request::Return { ticket, keys, changes, flushed, log } => {
                for db in flushed {
                    self.run_unlogged(Op::Flush(db), now);
                }
                self.take_back(keys, &changes, log, now);
                done.push((token, Response::Done));
                self.unlock(ticket, now, done);
            }
            Request::Op { ticket, op, .. }
                if self.lent > 0 && op.sees_all_keys() && !self.locks.holds_all(ticket) =>
            {
                self.parked.push(Parked { token, what: Waits::Op(op) });
            }
            Request::Op { ticket, op, unlock } => {
                let response = match op {
                    Op::Nothing => Response::Done,
                    op => self.run_op(op, now),
                };
                done.push((token, response));
                if unlock {
                    self.unlock(ticket, now, done);
                }
                if self.locks.holds_back() && !self.store.snapshot_is_full() {
                    self.unlock(HELD_BACK, now, done);
                }
            }
            // The host's; nobody sends it here.
            Request::Job(_) | Request::Load { .. } | Request::Flow { .. } => {
                done.push((token, Response::Error(b"ERR not a shard's work".to_vec())))
            }
            Request::Memcached(ask) => {
                done.push((token, crate::memcached::serve(self, ask, now)));
            }
            request => self.serve_waiting(token, request, now, done),
        }
    }

    /// Handles what belongs to commands that block.
    fn serve_waiting(
        &mut self,
        token: u64,
        request: Request,
        now: Instant,
        done: &mut Vec<(u64, Response)>,
    ) {
        match request {
            Request::Block { ticket, batch } => {
                if let Some(batch) = self.block(token, ticket, batch, now, done) {
                    self.parked.push(Parked { token, what: Waits::Block { ticket, batch } });
                }
                return;
            }
            Request::Hold { ticket, deadline_ns } => {
                return self.hold(token, ticket, deadline_ns, done);
            }
            Request::SetAlarm { ticket, to, keys } => self.set_alarm(ticket, to, &keys),
            Request::Ring { ticket } => self.ring(ticket),
            Request::Cancel { ticket, why } => self.cancel(ticket, why),
            _ => {}
        }
        done.push((token, Response::Done));
    }

    /// Ends a wait that has not begun, because of a lock; whether there was one.
    pub(crate) fn cancel_parked(&mut self, ended: u64, why: Cancel) -> bool {
        let served = self.served.len();
        for parked in std::mem::take(&mut self.parked) {
            match parked.what {
                Waits::Block { ticket, mut batch } if ticket == ended => {
                    let version = batch.version;
                    observe::write_end(batch.out.inline_mut(), version, why);
                    batch.ends.push(batch.out.mark());
                    self.served.push((parked.token, Response::Batch(batch)));
                }
                what => self.parked.push(Parked { what, token: parked.token }),
            }
        }
        self.served.len() > served
    }

    /// Takes locks now, or queues.
    fn acquire(
        &mut self,
        parked: Parked,
        ticket: u64,
        wanted: Wanted,
        now: Instant,
        done: &mut Vec<(u64, Response)>,
    ) {
        if self.locks.request(ticket, wanted) {
            self.granted(parked, now, done);
        } else {
            self.parked.push(parked);
        }
    }

    /// Answers a request whose locks are held now.
    fn granted(&mut self, parked: Parked, now: Instant, done: &mut Vec<(u64, Response)>) {
        let response = match parked.what {
            Waits::Lock { needs_memory, guards, .. } => {
                let stale = self.are_stale(&guards, now);
                Response::Locked { full: needs_memory && !self.make_room(now), stale }
            }
            Waits::Borrow { keys, needs_memory, guards, .. } => {
                let stale = self.are_stale(&guards, now);
                self.lend(&keys, needs_memory, stale, now)
            }
            _ => return,
        };
        done.push((parked.token, response));
    }

    fn are_stale(&mut self, guards: &[Guard], now: Instant) -> bool {
        let now_ms = now.unix_ms();
        !guards.iter().all(|guard| self.is_as_watched(guard.db, &guard.key, guard.was, now_ms))
    }

    /// Executes a whole batch; `None` when it has to wait for a lock (then nothing has run).
    pub fn execute_batch(&mut self, batch: Batch, now: Instant) -> Option<Response> {
        if !self.locks.is_empty() {
            return None;
        }
        let mut done = Vec::with_capacity(1);
        self.serve(0, Request::Batch(Box::new(batch)), now, &mut done);
        done.pop().map(|(_, response)| response)
    }

    fn wanted(&self, keys: LockKeys, guards: &[Guard]) -> Wanted {
        match keys {
            LockKeys::All => Wanted::All,
            LockKeys::Some(keys) => {
                let hash = |db: u16, key: &[u8]| (db, self.store.hash(key).get());
                let guards = guards.iter().map(|guard| hash(guard.db, &guard.key));
                let mut wanted: Vec<_> =
                    keys.iter().map(|(db, key)| hash(*db, key)).chain(guards).collect();
                wanted.sort_unstable();
                wanted.dedup();
                Wanted::Keys(wanted)
            }
        }
    }

    /// What the keys hold, which is not here any more then.
    fn lend(
        &mut self,
        keys: &[(u16, Box<[u8]>)],
        needs_memory: bool,
        stale: bool,
        now: Instant,
    ) -> Response {
        let full = needs_memory && !self.make_room(now);
        self.lent += keys.len();
        // Those that are due, too: whether they are there is for who borrows them to see.
        let before = self.show_due_keys(Applies::NOW);
        let take = |(db, key): &(u16, Box<[u8]>)| {
            let hash = self.store.hash(key);
            self.record(*db, hash, key, true, now.unix_ms())
        };
        let records = keys.iter().map(take).collect();
        self.hide_due_keys(before);
        Response::Lent { full, stale, records }
    }

    /// Puts back what keys hold after they were lent.
    fn take_back(
        &mut self,
        keys: Vec<(u16, Box<[u8]>, Option<Record>)>,
        changes: &Changes,
        log: Option<Box<crate::aof::Part>>,
        now: Instant,
    ) {
        if let Some(part) = log {
            self.log_part(*part, now);
        }
        for (db, key, record) in keys {
            // What a script has made after it emptied the database was not lent; it holds all keys, so nobody else has any.
            self.lent = self.lent.saturating_sub(1);
            let hash = self.store.hash(&key);
            let Some(record) = record else { continue };
            // Nothing else took the room of what was lent; a key that grew may find none, and is as evicted.
            if record.store(&mut self.store, db, hash, &key, now.unix_ms()).is_err() {
                self.stats.lost_on_return += 1;
            }
            self.log_returned(db, &key, now);
        }
        self.touch_returned(changes);
    }

    fn unlock(&mut self, ticket: u64, now: Instant, done: &mut Vec<(u64, Response)>) {
        let granted = self.locks.release(ticket);
        for parked in std::mem::take(&mut self.parked) {
            match parked.what {
                Waits::Lock { ticket, .. } | Waits::Borrow { ticket, .. }
                    if granted.contains(&ticket) =>
                {
                    self.granted(parked, now, done);
                }
                Waits::Op(op) if self.lent == 0 => done.push((parked.token, self.run_op(op, now))),
                Waits::Lock { .. } | Waits::Borrow { .. } | Waits::Op(_) => {
                    self.parked.push(parked);
                }
                Waits::Batch(run) => self.proceed(parked.token, *run, now, done),
                Waits::Block { ticket, batch } => {
                    if let Some(batch) = self.block(parked.token, ticket, batch, now, done) {
                        let what = Waits::Block { ticket, batch };
                        self.parked.push(Parked { what, token: parked.token });
                    }
                }
            }
        }
        self.serve_ready(now);
    }

    /// Runs a batch to its end or to the next locked key.
    fn proceed(&mut self, token: u64, mut run: Run, now: Instant, done: &mut Vec<(u64, Response)>) {
        let mut group = self.group.take().unwrap_or_default();
        let (mut ended, before) = (true, self.store.due_keys());
        let mut now = now;
        if run.batch.applies.is_on() {
            if !self.role.follows {
                return done.push((token, too_late()));
            }
            self.show_due_keys(run.batch.applies);
            now = run.batch.applies.time(now);
        }
        while ended && run.batch.ends.len() < run.batch.commands {
            ended = self.next_group(&mut run, &mut group, now);
        }
        self.hide_due_keys(before);
        self.group = Some(group);
        if ended {
            done.push((token, Response::Batch(run.batch)));
        } else {
            self.parked.push(Parked { token, what: Waits::Batch(Box::new(run)) });
        }
    }

    /// Runs the next group of a batch; false when a command has to wait.
    fn next_group(&mut self, run: &mut Run, group: &mut Group, now: Instant) -> bool {
        let Batch {
            db,
            version,
            no_touch,
            bytes,
            large,
            out,
            ends,
            wanted,
            client,
            visitor,
            applies,
            ..
        } = &mut *run.batch;
        let mut conn = Conn::remote(*db, *version, *no_touch);
        conn.plain = !self.looks || applies.is_on();
        conn.applies = *applies;
        if self.looks {
            self.watch.visitor.clone_from(visitor);
        }
        conn.id = *client;
        let (large_at, owned) = match large.get(run.large) {
            Some((at, frame)) => (*at, (*at == run.at).then_some(frame)),
            None => (bytes.len(), None),
        };
        let input = match owned {
            Some(frame) => Input::owned(frame),
            None => Input::borrowed(bytes.get(run.at..large_at).unwrap_or_default()),
        };
        let rest = input.remaining();
        let limits = Limits { max_bulk_bytes: usize::MAX >> 1, ..Limits::DEFAULT };
        let parsed = parse_command(rest, group.first_mut(), &limits, &mut ParseState::new());
        let Parsed::Command { frame_len } = parsed else {
            // Sessions send whole commands only.
            wire::resp::reply::error(out.inline_mut(), b"ERR broken batch between shards");
            run.at = bytes.len();
            run.large = large.len();
            ends.push(out.mark());
            return true;
        };
        let count = group.collect(rest, frame_len, &limits, GROUP);
        group.resolve(self, rest, count, conn.db, true);
        if self.hot.passes(count) {
            self.sample_hot(group, rest, count, conn.db);
        }
        for (item, args) in group.commands(count) {
            let frame = item.frame(rest);
            if multi::is_locked(self, conn.db, item.id, args, frame) {
                return false;
            }
            let call = dispatch::Call { args, frame, input: &input, id: item.id, hash: item.hash };
            let outcome = dispatch::run(call, out, self, &mut conn, now);
            if let Outcome::Wait(waiting) = outcome {
                match *waiting {
                    Waiting::Widen(keys) => wanted.extend(keys),
                    _ => debug_assert!(false, "only keyed commands are handed on"),
                }
            }
            match owned {
                Some(_) => run.large += 1,
                None => run.at += item.len,
            }
            ends.push(out.mark());
        }
        true
    }
}

/// What is answered to commands of a master that is not followed any more.
pub(crate) fn too_late() -> Response {
    Response::Error(b"ERR this server is no replica any more".to_vec())
}
