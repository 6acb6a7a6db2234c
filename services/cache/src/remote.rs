//! The owner's side of cross-shard work: what other shards' sessions ask of this one.
//!
//! A batch runs until a command touches a locked key; then it is parked and goes on when the lock
//! has gone, in order of arrival. Lock requests are answered when granted. Invariant: every request
//! is answered exactly once, under the token it came with.

use view::{Input, Instant};
use wire::resp::{Limits, ParseState, Parsed, parse_command};

use crate::{
    batch::Batch,
    command::{Conn, Outcome, dispatch},
    group::{GROUP, Group},
    lock::Wanted,
    multi,
    shard::Shard,
    work::{LockKeys, Op, Record, Request, Response},
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
    },
    Borrow {
        ticket: u64,
        keys: Vec<(u16, Box<[u8]>)>,
        needs_memory: bool,
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
            Request::Lock { ticket, keys, needs_memory } => {
                let wanted = self.wanted(keys);
                if self.locks.request(ticket, wanted) {
                    done.push((token, self.locked(needs_memory, now)));
                } else {
                    self.parked.push(Parked { token, what: Waits::Lock { ticket, needs_memory } });
                }
            }
            Request::Borrow { ticket, keys, needs_memory } => {
                let hash = |key: &[u8]| self.store.hash(key).get();
                let wanted = keys.iter().map(|(db, key)| (*db, hash(key))).collect();
                if self.locks.request(ticket, Wanted::Keys(wanted)) {
                    done.push((token, self.lend(&keys, needs_memory, now)));
                } else {
                    let what = Waits::Borrow { ticket, keys, needs_memory };
                    self.parked.push(Parked { token, what });
                }
            }
            Request::Return { ticket, keys } => {
                self.take_back(keys, now);
                done.push((token, Response::Done));
                self.unlock(ticket, now, done);
            }
            Request::Op { op, .. } if self.lent > 0 && op.sees_all_keys() => {
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
            }
        }
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

    fn wanted(&self, keys: LockKeys) -> Wanted {
        match keys {
            LockKeys::All => Wanted::All,
            LockKeys::Some(keys) => {
                let hash = |key: &[u8]| self.store.hash(key).get();
                Wanted::Keys(keys.iter().map(|(db, key)| (*db, hash(key))).collect())
            }
        }
    }

    /// What the keys hold, which is not here any more then.
    fn lend(&mut self, keys: &[(u16, Box<[u8]>)], needs_memory: bool, now: Instant) -> Response {
        let full = needs_memory && !self.make_room(now);
        self.lent += keys.len();
        let take = |(db, key): &(u16, Box<[u8]>)| {
            let hash = self.store.hash(key);
            self.record(*db, hash, key, true, now.unix_ms())
        };
        Response::Lent { full, records: keys.iter().map(take).collect() }
    }

    /// Puts back what keys hold after they were lent.
    fn take_back(&mut self, keys: Vec<(u16, Box<[u8]>, Option<Record>)>, now: Instant) {
        for (db, key, record) in keys {
            self.lent -= 1;
            let Some(record) = record else { continue };
            let hash = self.store.hash(&key);
            // Nothing else took the room of what was lent; a key that grew may find none, and is as evicted.
            if record.store(&mut self.store, db, hash, &key, now.unix_ms()).is_err() {
                self.stats.lost_on_return += 1;
            }
        }
    }

    fn locked(&mut self, needs_memory: bool, now: Instant) -> Response {
        Response::Locked { full: needs_memory && !self.make_room(now) }
    }

    fn unlock(&mut self, ticket: u64, now: Instant, done: &mut Vec<(u64, Response)>) {
        let granted = self.locks.release(ticket);
        for parked in std::mem::take(&mut self.parked) {
            match parked.what {
                Waits::Lock { ticket, needs_memory } if granted.contains(&ticket) => {
                    done.push((parked.token, self.locked(needs_memory, now)));
                }
                Waits::Borrow { ticket, keys, needs_memory } if granted.contains(&ticket) => {
                    done.push((parked.token, self.lend(&keys, needs_memory, now)));
                }
                Waits::Op(op) if self.lent == 0 => done.push((parked.token, self.run_op(op, now))),
                Waits::Lock { .. } | Waits::Borrow { .. } | Waits::Op(_) => {
                    self.parked.push(parked);
                }
                Waits::Batch(run) => self.proceed(parked.token, *run, now, done),
            }
        }
    }

    /// Runs a batch to its end or to the next locked key.
    fn proceed(&mut self, token: u64, mut run: Run, now: Instant, done: &mut Vec<(u64, Response)>) {
        let mut group = self.group.take().unwrap_or_default();
        let mut ended = true;
        while ended && run.batch.ends.len() < run.batch.commands {
            ended = self.next_group(&mut run, &mut group, now);
        }
        self.group = Some(group);
        if ended {
            done.push((token, Response::Batch(run.batch)));
        } else {
            self.parked.push(Parked { token, what: Waits::Batch(Box::new(run)) });
        }
    }

    /// Runs the next group of a batch; false when a command has to wait.
    fn next_group(&mut self, run: &mut Run, group: &mut Group, now: Instant) -> bool {
        let Batch { db, version, no_touch, bytes, large, out, ends, .. } = &mut *run.batch;
        let mut conn = Conn::remote(*db, *version, *no_touch);
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
        for (item, args) in group.commands(count) {
            let frame = item.frame(rest);
            if multi::is_locked(self, conn.db, item.id, args, frame) {
                return false;
            }
            let call = dispatch::Call { args, frame, input: &input, id: item.id, hash: item.hash };
            let outcome = dispatch::run(call, out, self, &mut conn, now);
            debug_assert!(
                !matches!(outcome, Outcome::Wait(_)),
                "only keyed commands are handed on"
            );
            match owned {
                Some(_) => run.large += 1,
                None => run.at += item.len,
            }
            ends.push(out.mark());
        }
        true
    }
}
