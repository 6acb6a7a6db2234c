//! Who waits for a key to change: transactions that watch it, and commands that block until it holds something.
//!
//! A shard that nobody observes pays one test per command ([`Shard::observed`](crate::shard::Shard)). Else a command
//! tells of the keys that it changes (`events.rs`): a watched key's version rises, and commands that block on it are
//! tried again when the command, with all that belongs to it, is over.
//!
//! Invariants: a waiter is answered exactly once, under the token its request came with; waiters of a key are tried in
//! the order they came; a key that is locked is not looked at before its lock has gone.
//! Next: `command/blocking.rs` for the commands, `transaction.rs` for EXEC.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use view::{HashMap, Instant};
use wire::resp::{Args, Version, reply};

use crate::{
    batch::Batch,
    command::{Conn, Mode, Outcome, Waiting, dispatch},
    multi,
    shard::Shard,
    spread::ALARM,
    transaction,
    work::{Request, Response},
};

/// Most ends of waits kept for requests that have not come.
const EARLY_MAX: usize = 1024;

/// A key by database and hash. Two keys of one hash are told apart by what is tried again, not here.
type Key = (u16, u64);

/// How a command blocks.
#[derive(Debug)]
pub struct Block {
    /// When it gives up, nanoseconds of the monotonic clock.
    pub deadline_ns: Option<u64>,
    /// The command to be tried again, where that is not the one that was sent.
    pub frame: Option<Vec<u8>>,
}

/// Why a wait ends before its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cancel {
    /// As if its time were over.
    TimeOut,
    /// With an error: CLIENT UNBLOCK … ERROR.
    Error,
    /// With another one: this server has become a replica.
    Demoted,
}

/// A watched key.
#[derive(Debug, Default)]
struct Watched {
    version: u64,
    watchers: u32,
}

/// What waits.
#[derive(Debug)]
enum What {
    /// A command, which is tried again.
    Command(Box<Batch>),
    /// A session whose keys are on several shards, for the shard `to` to be told.
    Alarm { to: u16 },
    /// That session.
    Hold,
}

#[derive(Debug)]
struct Waiter {
    ticket: u64,
    token: u64,
    what: What,
    keys: Vec<Key>,
    deadline_ns: Option<u64>,
    version: Version,
}

/// What happens when a command is tried again.
enum Retried {
    Served,
    /// It goes on waiting, for a key that is there or for one that is gone.
    Waits {
        is_gone: bool,
    },
    /// A key of it is locked.
    Locked,
}

/// The observers of one shard's keys.
#[derive(Debug, Default)]
pub(crate) struct Observers {
    watched: HashMap<Key, Watched>,
    /// By order of arrival.
    waiters: BTreeMap<u64, Waiter>,
    by_key: HashMap<Key, VecDeque<u64>>,
    by_ticket: HashMap<u64, u64>,
    deadlines: BTreeSet<(u64, u64)>,
    /// Keys with waiters that were written since these were last tried.
    ready: VecDeque<Key>,
    /// Sessions of this shard whose alarms may ring, and whether one did before the session held.
    holds: BTreeMap<u64, bool>,
    /// Waits that were ended before their requests came, the last of them.
    early: VecDeque<u64>,
    next: u64,
    /// Changes whenever an earlier deadline than all others comes.
    generation: u64,
    /// Which keys have changed since some were lent to this shard, and whether what they hold.
    changes: Option<Vec<(Key, bool)>>,
    args: Option<Box<Args>>,
}

/// Keys that changed while they were on another shard, and whether that is what they hold.
#[derive(Clone, Debug, Default)]
pub struct Changes(Vec<(Key, bool)>);

impl Observers {
    fn is_wanted(&self) -> bool {
        self.changes.is_some() || !self.is_empty()
    }

    fn is_empty(&self) -> bool {
        self.watched.is_empty() && self.waiters.is_empty()
    }

    /// Begins to watch a key; its version.
    fn watch(&mut self, key: Key) -> u64 {
        let watched = self.watched.entry(key).or_default();
        watched.watchers += 1;
        watched.version
    }

    fn unwatch(&mut self, key: Key) {
        if let Some(watched) = self.watched.get_mut(&key) {
            watched.watchers -= 1;
            if watched.watchers == 0 {
                self.watched.remove(&key);
            }
        }
    }

    fn version(&self, key: Key) -> u64 {
        self.watched.get(&key).map_or(0, |watched| watched.version)
    }

    fn add(&mut self, waiter: Waiter) {
        let number = self.next;
        self.next += 1;
        for &key in &waiter.keys {
            let list = self.by_key.entry(key).or_default();
            if list.back() != Some(&number) {
                list.push_back(number);
            }
        }
        if let Some(deadline_ns) = waiter.deadline_ns {
            if self.deadlines.first().is_none_or(|&(first_ns, _)| deadline_ns < first_ns) {
                self.generation += 1;
            }
            self.deadlines.insert((deadline_ns, number));
        }
        self.by_ticket.insert(waiter.ticket, number);
        self.waiters.insert(number, waiter);
    }

    fn remove(&mut self, number: u64) -> Option<Waiter> {
        let waiter = self.waiters.remove(&number)?;
        for key in &waiter.keys {
            if let Some(list) = self.by_key.get_mut(key) {
                list.retain(|&other| other != number);
                if list.is_empty() {
                    self.by_key.remove(key);
                }
            }
        }
        if let Some(deadline_ns) = waiter.deadline_ns {
            self.deadlines.remove(&(deadline_ns, number));
        }
        self.by_ticket.remove(&waiter.ticket);
        Some(waiter)
    }
}

impl Waiter {
    /// The answer of a wait in vain.
    fn give_up(self, why: Cancel) -> Option<(u64, Response)> {
        match self.what {
            What::Command(mut batch) => {
                write_end(batch.out.inline_mut(), self.version, why);
                batch.ends.push(batch.out.mark());
                Some((self.token, Response::Batch(batch)))
            }
            What::Hold => Some((self.token, Response::Ended(why))),
            What::Alarm { .. } => None,
        }
    }
}

/// Writes the reply of a wait in vain.
pub(crate) fn write_end(out: &mut Vec<u8>, version: Version, why: Cancel) {
    match why {
        Cancel::Error => reply::error(out, UNBLOCKED),
        Cancel::Demoted => reply::error(out, DEMOTED),
        Cancel::TimeOut => reply::null_array(out, version),
    }
}

const UNBLOCKED: &[u8] = b"UNBLOCKED client unblocked via CLIENT UNBLOCK";
const DEMOTED: &[u8] =
    b"UNBLOCKED force unblock from blocking operation, instance state changed (master -> replica?)";

impl Shard {
    /// Tells observers that something about a key has changed, and whether that is what it holds.
    pub(crate) fn touch(&mut self, db: u16, key: &[u8], is_value: bool) {
        if !self.observers.is_wanted() {
            return;
        }
        self.touch_hash((db, self.store.hash(key).get()), is_value);
    }

    fn touch_hash(&mut self, key: Key, is_value: bool) {
        if let Some(changes) = &mut self.observers.changes
            && !changes.contains(&(key, is_value))
        {
            changes.push((key, is_value));
        }
        if is_value && let Some(watched) = self.observers.watched.get_mut(&key) {
            watched.version += 1;
        }
        if self.observers.by_key.contains_key(&key) && !self.observers.ready.contains(&key) {
            self.observers.ready.push_back(key);
        }
    }

    /// From now on it is kept which keys change: some are here that were lent by other shards.
    pub(crate) fn keep_changes(&mut self) {
        self.observers.changes = Some(Vec::new());
        self.watching = true;
    }

    /// What was kept, with which that ends.
    pub(crate) fn take_changes(&mut self) -> Changes {
        let changes = self.observers.changes.take().unwrap_or_default();
        self.watch();
        Changes(changes)
    }

    /// Tells observers what changed while keys of this shard were lent.
    pub(crate) fn touch_returned(&mut self, changes: &Changes) {
        changes.0.iter().for_each(|&(key, is_value)| self.touch_hash(key, is_value));
    }

    fn observe(&mut self) {
        self.observed = true;
        self.watching = true;
    }

    /// Begins to watch a key for a transaction; its version, and whether it is there.
    pub(crate) fn watch_key(&mut self, db: u16, key: &[u8], now_ms: u64) -> (u64, bool) {
        let hash = self.store.hash(key);
        self.observe();
        let is_there = self.store.peek(db, hash, key, now_ms).is_some();
        (self.observers.watch((db, hash.get())), is_there)
    }

    /// The version of a watched key.
    pub(crate) fn watched_version(&self, db: u16, key: &[u8]) -> u64 {
        self.observers.version((db, self.store.hash(key).get()))
    }

    /// Ends that.
    pub(crate) fn unwatch(&mut self, db: u16, key: &[u8]) {
        let hash = self.store.hash(key).get();
        self.observers.unwatch((db, hash));
        self.unobserve();
    }

    /// Whether a watched key is as it was.
    pub(crate) fn is_as_watched(
        &mut self,
        db: u16,
        key: &[u8],
        (version, was_there): (u64, bool),
        now_ms: u64,
    ) -> bool {
        let hash = self.store.hash(key);
        self.observers.version((db, hash.get())) == version
            && (!was_there || self.store.peek(db, hash, key, now_ms).is_some())
    }

    pub(crate) fn unobserve(&mut self) {
        // A log observes all keys.
        self.observed = !self.observers.is_empty() || self.journal.is_some();
        self.watch();
    }

    /// Takes a command that may block; it is answered when it has run.
    pub(crate) fn block(
        &mut self,
        token: u64,
        ticket: u64,
        mut batch: Box<Batch>,
        now: Instant,
        done: &mut Vec<(u64, Response)>,
    ) -> Option<Box<Batch>> {
        if let Some(at) = self.observers.early.iter().position(|&early| early == ticket) {
            self.observers.early.remove(at);
            write_end(batch.out.inline_mut(), batch.version, Cancel::TimeOut);
            batch.ends.push(batch.out.mark());
            done.push((token, Response::Batch(batch)));
            return None;
        }
        let mut keys = Vec::new();
        let outcome = self.attempt(&mut batch, Mode::Direct, now, Some(&mut keys));
        match outcome {
            // Locked.
            None => return Some(batch),
            Some(Outcome::Wait(waiting)) => {
                if let Waiting::Block(block) = *waiting {
                    if let Some(frame) = block.frame {
                        batch.bytes = frame;
                        batch.large.clear();
                    }
                    let (deadline_ns, version) = (block.deadline_ns, batch.version);
                    let what = What::Command(batch);
                    self.observe();
                    self.observers.add(Waiter { ticket, token, what, keys, deadline_ns, version });
                    return None;
                }
            }
            Some(_) => {
                batch.ends.push(batch.out.mark());
                done.push((token, Response::Batch(batch)));
            }
        }
        None
    }

    /// Puts an alarm on keys: the shard `to` is told, once, when one of them was written.
    pub(crate) fn set_alarm(&mut self, ticket: u64, to: u16, keys: &[(u16, Box<[u8]>)]) {
        if let Some(number) = self.observers.by_ticket.get(&ticket).copied() {
            self.observers.remove(number);
        }
        let keys = keys.iter().map(|(db, key)| (*db, self.store.hash(key).get())).collect();
        self.observe();
        let (what, version) = (What::Alarm { to }, Version::Resp2);
        self.observers.add(Waiter { ticket, token: 0, what, keys, deadline_ns: None, version });
    }

    /// A session of this shard waits for an alarm.
    pub(crate) fn hold(
        &mut self,
        token: u64,
        ticket: u64,
        deadline_ns: Option<u64>,
        done: &mut Vec<(u64, Response)>,
    ) {
        if let Some(rung) = self.observers.holds.get_mut(&ticket)
            && std::mem::take(rung)
        {
            done.push((token, Response::Done));
            return;
        }
        self.observe();
        let (what, version) = (What::Hold, Version::Resp2);
        self.observers.add(Waiter { ticket, token, what, keys: Vec::new(), deadline_ns, version });
    }

    /// An alarm of a session of this shard.
    pub(crate) fn ring(&mut self, alarm: u64) {
        let ticket = alarm & !ALARM;
        if let Some(number) = self.observers.by_ticket.get(&ticket).copied() {
            if let Some(waiter) = self.observers.remove(number) {
                self.served.push((waiter.token, Response::Done));
            }
            self.unobserve();
        } else if let Some(rung) = self.observers.holds.get_mut(&ticket) {
            *rung = true;
        }
    }

    /// A session of this shard will set alarms, or has taken them off.
    pub(crate) fn expect_alarms(&mut self, ticket: u64, expects: bool) {
        if expects {
            self.observers.holds.insert(ticket, false);
        } else {
            self.observers.holds.remove(&ticket);
        }
    }

    /// Ends a wait before its time, or takes an alarm off.
    pub(crate) fn cancel(&mut self, ticket: u64, why: Cancel) {
        if let Some(number) = self.observers.by_ticket.get(&ticket).copied() {
            let waiter = self.observers.remove(number);
            self.served.extend(waiter.and_then(|waiter| waiter.give_up(why)));
            self.unobserve();
        } else if !self.cancel_parked(ticket, why) {
            // Its request is on its way, or it is over already.
            self.observers.early.push_back(ticket);
            if self.observers.early.len() > EARLY_MAX {
                self.observers.early.pop_front();
            }
        }
    }

    /// Ends a wait on whichever shard it is.
    pub(crate) fn cancel_on(&mut self, owner: u16, ticket: u64, why: Cancel) {
        if owner == self.index {
            self.cancel(ticket, why);
        } else {
            self.outbox.push((owner, Request::Cancel { ticket, why }));
        }
    }

    /// When the first wait ends, nanoseconds of the monotonic clock.
    #[must_use]
    pub fn next_deadline_ns(&self) -> Option<u64> {
        self.observers.deadlines.first().map(|&(deadline_ns, _)| deadline_ns)
    }

    /// Changes whenever [`Shard::next_deadline_ns`] has become earlier.
    #[must_use]
    pub const fn deadlines_generation(&self) -> u64 {
        self.observers.generation
    }

    /// Ends the waits whose time is over.
    pub fn time_out(&mut self, now: Instant) {
        while let Some(&(deadline_ns, number)) = self.observers.deadlines.first() {
            if deadline_ns > now.mono_ns {
                break;
            }
            let waiter = self.observers.remove(number);
            self.served.extend(waiter.and_then(|waiter| waiter.give_up(Cancel::TimeOut)));
        }
        self.unobserve();
    }

    /// Tries again what blocks on keys that were written.
    pub(crate) fn serve_ready(&mut self, now: Instant) {
        if self.observers.ready.is_empty() {
            return;
        }
        let mut locked = VecDeque::new();
        while let Some(key) = self.observers.ready.pop_front() {
            let numbers = self.observers.by_key.get(&key).cloned().unwrap_or_default();
            for number in numbers {
                match self.retry(number, key, now) {
                    Retried::Served | Retried::Waits { is_gone: false } => {}
                    Retried::Waits { is_gone: true } => break,
                    Retried::Locked => {
                        locked.push_back(key);
                        break;
                    }
                }
            }
        }
        self.observers.ready = locked;
        self.unobserve();
    }

    fn retry(&mut self, number: u64, key: Key, now: Instant) -> Retried {
        let Some(waiter) = self.observers.waiters.get_mut(&number) else { return Retried::Served };
        if let What::Alarm { to } = waiter.what {
            let ticket = waiter.ticket;
            self.observers.remove(number);
            self.outbox.push((to, Request::Ring { ticket }));
            return Retried::Waits { is_gone: false };
        }
        // A waiter without a command has no keys.
        let What::Command(batch) = &mut waiter.what else { return Retried::Served };
        let mut batch = std::mem::take(batch);
        let before = batch.out.mark();
        let outcome = self.attempt(&mut batch, Mode::Waking, now, None);
        let retried = match outcome {
            None => Retried::Locked,
            Some(Outcome::Wait(_)) => {
                batch.out.truncate(before);
                Retried::Waits { is_gone: self.is_gone(&batch, key, now.unix_ms()) }
            }
            Some(_) => {
                batch.ends.push(batch.out.mark());
                if let Some(waiter) = self.observers.remove(number) {
                    self.served.push((waiter.token, Response::Batch(batch)));
                }
                return Retried::Served;
            }
        };
        if let Some(waiter) = self.observers.waiters.get_mut(&number) {
            waiter.what = What::Command(batch);
        }
        retried
    }

    /// Whether none of a command's keys with this hash is there.
    fn is_gone(&mut self, batch: &Batch, (db, hash): Key, now_ms: u64) -> bool {
        let mut args = self.observers.args.take().unwrap_or_default();
        let frame = frame_of(batch);
        let mut is_gone = true;
        if transaction::parse(frame, &mut args)
            && let Some(id) = dispatch::find(&self.commands, &args, frame)
        {
            let row = self.commands.row(id);
            for at in row.key_indices(args.len(), |at| args.get(at, frame)) {
                let key = args.get(at, frame);
                let found = self.store.hash(key);
                is_gone &= found.get() != hash || self.store.peek(db, found, key, now_ms).is_none();
            }
        }
        self.observers.args = Some(args);
        is_gone
    }

    /// Runs the one command of a batch; nothing when a key is locked. `keys` gets its keys.
    fn attempt(
        &mut self,
        batch: &mut Batch,
        mode: Mode,
        now: Instant,
        keys: Option<&mut Vec<Key>>,
    ) -> Option<Outcome> {
        let mut args = self.observers.args.take().unwrap_or_default();
        let mut out = std::mem::take(&mut batch.out);
        let frame = frame_of(batch);
        let mut outcome = Some(Outcome::Done);
        if transaction::parse(frame, &mut args)
            && let Some(id) = dispatch::find(&self.commands, &args, frame)
        {
            let db = batch.db;
            if multi::is_locked(self, db, Some(id), &args, frame) {
                outcome = None;
            } else {
                if let Some(keys) = keys {
                    let row = self.commands.row(id);
                    let found = row.key_indices(args.len(), |at| args.get(at, frame));
                    keys.extend(found.map(|at| (db, self.store.hash(args.get(at, frame)).get())));
                }
                let mut conn = Conn::remote(db, batch.version, batch.no_touch);
                conn.mode = mode;
                let input = view::Input::borrowed(frame);
                let call =
                    dispatch::Call { args: &args, frame, input: &input, id: Some(id), hash: None };
                outcome = Some(dispatch::execute(call, id, &mut out, self, &mut conn, now));
            }
        } else {
            // Sessions send whole commands that they know.
            reply::error(out.inline_mut(), b"ERR broken command between shards");
        }
        batch.out = out;
        self.observers.args = Some(args);
        outcome
    }
}

/// The bytes of a batch of one command.
fn frame_of(batch: &Batch) -> &[u8] {
    match batch.large.first() {
        Some((_, frame)) => frame,
        None => &batch.bytes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_waiter_leaves_no_trace() {
        let mut observers = Observers::default();
        let waiter = |ticket, keys| Waiter {
            ticket,
            token: ticket,
            what: What::Hold,
            keys,
            deadline_ns: Some(10 * ticket),
            version: Version::Resp2,
        };
        observers.add(waiter(2, vec![(0, 1), (0, 2), (0, 1)]));
        observers.add(waiter(1, vec![(0, 1)]));
        assert_eq!(observers.generation, 2);
        assert_eq!(observers.by_key.get(&(0, 1)).map(VecDeque::len), Some(2));
        for ticket in [1, 2] {
            let number = observers.by_ticket.get(&ticket).copied().expect("added");
            assert_eq!(observers.remove(number).map(|waiter| waiter.token), Some(ticket));
        }
        assert!(observers.is_empty() && observers.by_key.is_empty());
        assert!(observers.deadlines.is_empty() && observers.by_ticket.is_empty());
    }
}
