//! The owner's side of cross-shard work: what other shards' sessions ask of this one.
//!
//! A batch runs until a command touches a locked key; then it is parked and goes on when the lock
//! has gone, in order of arrival. Lock requests are answered when granted. Invariant: every request
//! is answered exactly once, under the token it came with.

use bytes::Bytes;
use view::{Input, Instant, Mark, Output};
use wire::resp::{Args, Limits, ParseState, Parsed, parse_command};

use crate::{
    command::{Conn, Outcome, dispatch},
    lock::Wanted,
    multi,
    shard::Shard,
    work::{Batch, LockKeys, Op, Request, Response},
};

/// A request that waits for a lock.
#[derive(Debug)]
pub(crate) struct Parked {
    token: u64,
    what: Waits,
}

#[derive(Debug)]
enum Waits {
    Lock { ticket: u64, needs_memory: bool },
    Batch(Box<Run>),
}

/// A batch on its way.
#[derive(Debug)]
struct Run {
    batch: Batch,
    at: usize,
    large: usize,
    out: Output,
    ends: Vec<Mark>,
}

impl Batch {
    /// Appends a frame: by reference when it is large and its input owns it.
    pub(crate) fn push(&mut self, frame: &[u8], input: &Input<'_>) {
        self.commands += 1;
        if frame.len() >= view::INLINE_MAX_BYTES && input.is_owned() {
            // The frame is what the input holds at this place; only then may it be shared.
            let rest = input.remaining();
            if let Some(part) = rest.get(..frame.len())
                && std::ptr::eq(part, frame)
            {
                self.large.push((self.bytes.len(), input.slice(part)));
                return;
            }
        }
        self.bytes.extend_from_slice(frame);
    }
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
                let run = Run { batch, at: 0, large: 0, out: Output::default(), ends: Vec::new() };
                self.proceed(token, Box::new(run), now, done);
            }
            Request::Lock { ticket, keys, needs_memory } => {
                let wanted = self.wanted(keys);
                if self.locks.request(ticket, wanted) {
                    done.push((token, self.locked(needs_memory, now)));
                } else {
                    self.parked.push(Parked { token, what: Waits::Lock { ticket, needs_memory } });
                }
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
        self.serve(0, Request::Batch(batch), now, &mut done);
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
                Waits::Lock { .. } => self.parked.push(parked),
                Waits::Batch(run) => self.proceed(parked.token, run, now, done),
            }
        }
    }

    /// Runs a batch to its end or to the next locked key.
    fn proceed(
        &mut self,
        token: u64,
        mut run: Box<Run>,
        now: Instant,
        done: &mut Vec<(u64, Response)>,
    ) {
        let mut args = Args::new();
        let mut conn = Conn::remote(run.batch.db, run.batch.version, run.batch.no_touch);
        while run.ends.len() < run.batch.commands {
            if !self.next_command(&mut run, &mut args, &mut conn, now) {
                self.parked.push(Parked { token, what: Waits::Batch(run) });
                return;
            }
        }
        let Run { out, ends, .. } = *run;
        done.push((token, Response::Batch { out, ends }));
    }

    /// Runs the next command of a batch; false when it has to wait.
    fn next_command(
        &mut self,
        run: &mut Run,
        args: &mut Args,
        conn: &mut Conn,
        now: Instant,
    ) -> bool {
        let owned: Option<&Bytes> =
            run.batch.large.get(run.large).filter(|(at, _)| *at == run.at).map(|(_, frame)| frame);
        let input = match owned {
            Some(frame) => Input::owned(frame),
            None => Input::borrowed(run.batch.bytes.get(run.at..).unwrap_or_default()),
        };
        let limits = Limits { max_bulk_bytes: usize::MAX >> 1, ..Limits::DEFAULT };
        let parsed = parse_command(input.remaining(), args, &limits, &mut ParseState::new());
        let Parsed::Command { frame_len } = parsed else {
            // Sessions send whole commands only.
            wire::resp::reply::error(run.out.inline_mut(), b"ERR broken batch between shards");
            run.at = run.batch.bytes.len();
            run.large = run.batch.large.len();
            run.ends.push(run.out.mark());
            return true;
        };
        let frame = input.remaining().get(..frame_len).unwrap_or_default();
        let id = dispatch::find(&self.commands, args, frame);
        if multi::is_locked(self, conn.db, id, args, frame) {
            return false;
        }
        let call = dispatch::Call { args, frame, input: &input, id, hash: None };
        let outcome = dispatch::run(call, &mut run.out, self, conn, now);
        debug_assert!(!matches!(outcome, Outcome::Wait(_)), "only keyed commands are handed on");
        match owned {
            Some(_) => run.large += 1,
            None => run.at += frame_len,
        }
        run.ends.push(run.out.mark());
        true
    }
}
