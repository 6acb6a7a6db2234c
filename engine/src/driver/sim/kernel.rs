//! The kernel's side of the model: events in virtual time, operations in flight, completions.
//!
//! An operation is handed over, tried, parked on its socket until something changes there, tried
//! again, and completed. What it does to memory and to the outside happens at the moment its
//! completion is posted. Invariants: all state is iterated in a fixed order; completions of one
//! operation stay in order; memory is verified before it is given up.
//!
//! Next: `flight` for what is in flight, `net` and `files` for what each operation does.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;

use crate::buf::{Lease, Pool};
use crate::driver::{Fd, OpId, Token};

use super::disk::Disk;
use super::faults::{Faults, Plant, WorldStats};
use super::flight::{
    Cqe, Descriptor, Event, FileId, Flying, Kind, OpKey, OpenFile, Request, Target, tag,
};
use super::memory::{Memory, Regions};
use super::net::{Sock, SockId};
use super::streams::{Streams, chance, fold, up_to};

/// Descriptors start here.
const FIRST_FD: i32 = 1 << 30;
/// Events of one time before the world is considered stuck.
const EVENTS_PER_TIME_MAX: u32 = 5_000_000;
/// Recent completions kept for a failure report.
const RECENT_MAX: usize = 64;

/// Shards of a machine, at most: the first machine has those from 0 on, the next one from here on.
pub const MACHINE_SHARDS: usize = 16;

/// The machine of a shard.
pub(super) const fn machine_of(shard: usize) -> usize {
    shard / MACHINE_SHARDS
}

type EventKey = (u64, u64, u64);

/// A shard's rings.
#[derive(Default)]
pub(super) struct ShardSide {
    pub(super) alive: bool,
    pub(super) pool: Option<Rc<Pool>>,
    pub(super) flying: Vec<Option<Flying>>,
    pub(super) queue: VecDeque<Cqe>,
    /// Completions that end no sleep.
    quiet: VecDeque<Cqe>,
    aside: VecDeque<Cqe>,
    pub(super) overflows: u64,
    wake: Option<EventKey>,
    pub(super) woken: bool,
}

/// A completion, for failure reports.
struct Recent {
    at_ns: u64,
    key: OpKey,
    kind: Kind,
    token: Token,
    result: i32,
}

pub(super) struct Kernel {
    pub(super) seed: u64,
    pub(super) faults: Faults,
    pub(super) rng: Streams,
    pub(super) now_ns: u64,
    events: BTreeMap<EventKey, Event>,
    serial: u64,
    at_this_time: u32,
    pub(super) shards: Vec<ShardSide>,
    pub(super) fds: BTreeMap<i32, Descriptor>,
    free_fds: BTreeSet<i32>,
    pub(super) socks: BTreeMap<SockId, Sock>,
    pub(super) files: BTreeMap<FileId, OpenFile>,
    pub(super) listeners: BTreeMap<SocketAddr, Vec<SockId>>,
    pub(super) unix: BTreeMap<PathBuf, Option<SockId>>,
    pub(super) next_port: u16,
    /// Of each machine.
    pub(super) disks: Vec<Disk>,
    regions: Regions,
    trace: u64,
    recent: VecDeque<Recent>,
    pub(super) stats: WorldStats,
    pub(super) completions_counted: u64,
    pub(super) fail_completion: Option<u64>,
    pub(super) calls_counted: u64,
    pub(super) fail_call: Option<u64>,
    pub(super) plant: Option<Plant>,
    /// The exit codes of processes that ended themselves, by machine.
    pub(super) ended: BTreeMap<usize, i32>,
    /// No connection request gets from a machine to another one until then.
    pub(super) parted_until_ns: u64,
}

impl Kernel {
    pub(super) fn new(seed: u64, faults: Faults) -> Self {
        let disks = vec![Disk::new(0, faults.limits.disk_capacity_bytes)];
        Self {
            seed,
            rng: Streams::new(seed),
            // Neither clock starts at zero, so a forgotten initialisation shows.
            now_ns: 1_000_000_000,
            events: BTreeMap::new(),
            serial: 0,
            at_this_time: 0,
            shards: Vec::new(),
            fds: BTreeMap::new(),
            free_fds: BTreeSet::new(),
            socks: BTreeMap::new(),
            files: BTreeMap::new(),
            listeners: BTreeMap::new(),
            unix: BTreeMap::new(),
            next_port: 32_768,
            disks,
            regions: Regions::default(),
            trace: fold(0, seed),
            recent: VecDeque::new(),
            stats: WorldStats::default(),
            completions_counted: 0,
            fail_completion: None,
            calls_counted: 0,
            fail_call: None,
            plant: None,
            ended: BTreeMap::new(),
            parted_until_ns: 0,
            faults,
        }
    }

    // Time.

    pub(super) fn serial(&mut self) -> u64 {
        self.serial += 1;
        self.serial
    }

    pub(super) fn schedule(&mut self, at_ns: u64, event: Event) -> EventKey {
        let key = (at_ns.max(self.now_ns), self.rng.order.next_u64(), self.serial());
        self.events.insert(key, event);
        key
    }

    pub(super) fn next_event_ns(&self) -> Option<u64> {
        self.events.first_key_value().map(|(key, _)| key.0)
    }

    /// Delivers all events of the next time, and with [`Faults::batch_ns`] some later ones.
    pub(super) fn advance(&mut self) -> bool {
        let Some(start) = self.next_event_ns() else { return false };
        let until = start + up_to(&mut self.rng.order, self.faults.batch_ns);
        self.advance_until(until);
        true
    }

    pub(super) fn advance_until(&mut self, until_ns: u64) {
        while let Some(entry) = self.events.first_entry() {
            let at = entry.key().0;
            if at > until_ns {
                return;
            }
            let event = entry.remove();
            self.at_this_time = if at > self.now_ns { 0 } else { self.at_this_time + 1 };
            assert!(
                self.at_this_time < EVENTS_PER_TIME_MAX,
                "seed {}: the world is stuck at {at} ns on {event:?}",
                self.seed
            );
            self.now_ns = self.now_ns.max(at);
            self.stats.events += 1;
            self.deliver(event);
        }
    }

    fn deliver(&mut self, event: Event) {
        match event {
            Event::Attempt(key) => self.attempt(key),
            Event::Deliver(sock) => self.deliver_piece(sock),
            Event::Arrive { from, tries } => self.arrive(from, tries),
            Event::Answer { to, errno } => self.answer(to, errno),
            Event::Notify { key, result } => self.complete(key, result, false, None),
            Event::Bell { shard } => self.post(shard, Cqe::Bell),
            Event::Flush { shard } => {
                let side = &mut self.shards[shard];
                side.queue.append(&mut side.aside);
            }
            Event::Wake { shard } => {
                self.shards[shard].wake = None;
                self.shards[shard].woken = true;
            }
        }
    }

    // Shards.

    /// Connects a driver. A dead one's shard may be taken over.
    pub(super) fn attach(&mut self, shard: usize, pool: Rc<Pool>) {
        while self.shards.len() <= shard {
            self.shards.push(ShardSide::default());
        }
        while self.disks.len() <= machine_of(shard) {
            let number = u8::try_from(self.disks.len()).expect("few machines");
            self.disks.push(Disk::new(number, self.faults.limits.disk_capacity_bytes));
        }
        let side = &mut self.shards[shard];
        assert!(!side.alive, "shard {shard} has a driver already");
        *side = ShardSide { alive: true, pool: Some(pool), ..ShardSide::default() };
    }

    /// Disconnects a driver: its operations end without completions; writes in flight may or may
    /// not have happened.
    pub(super) fn detach(&mut self, shard: usize) {
        self.end_turn_wait(shard);
        let keys: Vec<OpKey> = self.in_flight(shard).collect();
        for key in keys {
            if let Some(op) = self.op(key)
                && let (Kind::Write { offset, .. }, Some(Target::File(file)), false) =
                    (op.kind, op.target, op.first)
                && chance(&mut self.rng.crash, self.faults.survives)
            {
                self.write_unfinished(key, file, offset);
            }
            self.end(key);
        }
        self.shards[shard] = ShardSide::default();
    }

    pub(super) fn in_flight(&self, shard: usize) -> impl Iterator<Item = OpKey> {
        let side = self.shards.get(shard).into_iter();
        side.flat_map(|side| side.flying.iter().flatten()).map(move |op| OpKey { shard, id: op.id })
    }

    /// What a turn collects.
    pub(super) fn collect(&mut self, shard: usize) -> VecDeque<Cqe> {
        self.end_turn_wait(shard);
        let side = &mut self.shards[shard];
        side.woken = false;
        let mut collected = std::mem::take(&mut side.quiet);
        collected.append(&mut side.queue);
        collected
    }

    fn end_turn_wait(&mut self, shard: usize) {
        if let Some(key) = self.shards[shard].wake.take() {
            self.events.remove(&key);
        }
    }

    /// A turn found nothing and would wait: remembers when it would give up.
    pub(super) fn wait(&mut self, shard: usize, timeout_ns: Option<u64>) {
        self.end_turn_wait(shard);
        let mut at = timeout_ns.map(|ns| self.now_ns.saturating_add(ns));
        if chance(&mut self.rng.delay, self.faults.spurious_wake) {
            self.stats.spurious_wakes += 1;
            let early = self.now_ns + 1 + up_to(&mut self.rng.delay, self.faults.delay_max_ns);
            at = Some(at.map_or(early, |at| at.min(early)));
        }
        if let Some(at) = at {
            let key = self.schedule(at, Event::Wake { shard });
            self.shards[shard].wake = Some(key);
        }
    }

    pub(super) fn is_ready(&self, shard: usize) -> bool {
        self.shards.get(shard).is_some_and(|side| side.woken || !side.queue.is_empty())
    }

    pub(super) fn ring_bell(&mut self, shard: usize) {
        if !self.shards.get(shard).is_some_and(|side| side.alive) {
            return;
        }
        if self.plant == Some(Plant::DropBells) {
            return;
        }
        let late = chance(&mut self.rng.delay, self.faults.late_bell);
        let delay = if late { up_to(&mut self.rng.delay, self.faults.delay_max_ns) } else { 0 };
        self.schedule(self.now_ns + delay, Event::Bell { shard });
    }

    // Descriptors.

    pub(super) fn new_fd(&mut self, shard: usize, target: Target) -> Result<Fd, i32> {
        if self.fds.len() >= self.faults.limits.descriptors {
            return Err(libc::EMFILE);
        }
        // The lowest free one, as in the kernel: a stale number soon means something else.
        let next = self.fds.last_key_value().map_or(FIRST_FD, |(fd, _)| fd + 1);
        let fd = self.free_fds.pop_first().unwrap_or(next);
        self.fds.insert(fd, Descriptor { target, shard });
        self.hold(target);
        Ok(Fd(fd))
    }

    pub(super) fn target(&self, fd: Fd) -> Result<Target, i32> {
        self.fds.get(&fd.0).map(|descriptor| descriptor.target).ok_or(libc::EBADF)
    }

    pub(super) fn close(&mut self, fd: Fd) -> Result<(), i32> {
        let descriptor = self.fds.remove(&fd.0).ok_or(libc::EBADF)?;
        self.free_fds.insert(fd.0);
        self.release(descriptor.target);
        Ok(())
    }

    pub(super) fn hold(&mut self, target: Target) {
        match target {
            Target::Sock(id) => {
                if let Some(sock) = self.socks.get_mut(&id) {
                    sock.refs += 1;
                }
            }
            Target::File(id) => {
                if let Some(file) = self.files.get_mut(&id) {
                    file.refs += 1;
                }
            }
        }
    }

    /// Gives up a descriptor's or an operation's hold; the last one closes.
    pub(super) fn release(&mut self, target: Target) {
        match target {
            Target::Sock(id) => {
                let Some(sock) = self.socks.get_mut(&id) else { return };
                sock.refs -= 1;
                if sock.refs == 0 {
                    self.close_sock(id);
                }
            }
            Target::File(id) => {
                let Some(file) = self.files.get_mut(&id) else { return };
                file.refs -= 1;
                if file.refs == 0 {
                    self.disks[file.inode.disk()].close(file.inode);
                    self.files.remove(&id);
                }
            }
        }
    }

    // Operations.

    pub(super) fn op(&mut self, key: OpKey) -> Option<&mut Flying> {
        let flying = self.shards.get_mut(key.shard)?.flying.get_mut(key.index())?;
        flying.as_mut().filter(|op| op.id == key.id)
    }

    pub(super) fn op_ref(&self, key: OpKey) -> Option<&Flying> {
        let flying = self.shards.get(key.shard)?.flying.get(key.index())?;
        flying.as_ref().filter(|op| op.id == key.id)
    }

    /// Says which operation that is.
    pub(super) fn describe(&self, key: OpKey) -> String {
        let Some(op) = self.op_ref(key) else { return format!("{key:?} (seed {})", self.seed) };
        let fd = op.fd.map_or(String::new(), |fd| format!(" on {fd:?}"));
        format!("{:?}{fd} (token {:#x}, {key:?}, seed {})", op.kind, op.token, self.seed)
    }

    /// Takes the operation's memory into account; before it is handed over.
    pub(super) fn register(&mut self, key: OpKey, memory: &Memory) {
        self.regions.add(key, memory);
    }

    /// Forgets the memory of an operation that was never handed over.
    pub(super) fn forget(&mut self, key: OpKey, memory: &Memory) {
        memory.verify(&|| format!("{key:?}"));
        self.regions.remove(key, memory);
    }

    /// Hands an operation over.
    pub(super) fn start(&mut self, shard: usize, request: Request) {
        let key = OpKey { shard, id: request.id };
        let target = request.fd.map(|fd| self.target(fd));
        let kind = request.kind;
        if let (Some(Ok(target)), true) = (target, kind != Kind::Close) {
            self.hold(target);
        }
        let flying = Flying {
            id: request.id,
            token: request.token,
            kind,
            fd: request.fd,
            target: target.and_then(Result::ok).filter(|_| kind != Kind::Close),
            memory: request.memory,
            first: true,
            scheduled: false,
            done: 0,
            notifying: false,
        };
        let table = &mut self.shards[shard].flying;
        if table.len() <= key.index() {
            table.resize_with(key.index() + 1, || None);
        }
        if let Some(other) = &table[key.index()] {
            let other = OpKey { shard, id: other.id };
            panic!("a slot was reused while in use by {}", self.describe(other));
        }
        table[key.index()] = Some(flying);
        let inline = matches!(kind, Kind::Cancel { .. } | Kind::Close | Kind::SendNow);
        if let Some(Err(errno)) = target {
            self.complete(key, -errno, false, None);
        } else if !inline && chance(&mut self.rng.delay, self.faults.delay) {
            self.stats.delays += 1;
            self.attempt_later(key);
        } else {
            self.attempt(key);
        }
    }

    fn attempt_later(&mut self, key: OpKey) {
        let delay = up_to(&mut self.rng.delay, self.faults.delay_max_ns);
        self.attempt_at(key, self.now_ns + delay);
    }

    pub(super) fn attempt_at(&mut self, key: OpKey, at_ns: u64) {
        if let Some(op) = self.op(key)
            && !op.scheduled
        {
            op.scheduled = true;
            self.schedule(at_ns, Event::Attempt(key));
        }
    }

    /// Something changed for these operations.
    pub(super) fn wake(&mut self, parked: Vec<OpKey>) {
        for key in parked {
            if chance(&mut self.rng.delay, self.faults.delay) {
                self.stats.delays += 1;
                self.attempt_later(key);
            } else {
                self.attempt_at(key, self.now_ns);
            }
        }
    }

    pub(super) fn attempt(&mut self, key: OpKey) {
        let Some(op) = self.op(key) else { return };
        if op.notifying {
            return;
        }
        op.scheduled = false;
        let first = std::mem::replace(&mut op.first, false);
        match (op.kind, op.target) {
            (Kind::Cancel { target }, _) => self.cancel(key, target),
            (Kind::Close, _) => {
                let closed = op.fd.map_or(Err(libc::EBADF), |fd| self.close(fd));
                self.complete(key, closed.map_or_else(|errno| -errno, |()| 0), false, None);
            }
            (kind, Some(Target::Sock(sock))) => self.attempt_sock(key, kind, sock, first),
            (kind, Some(Target::File(file))) => self.attempt_file(key, kind, file, first),
            (_, None) => self.complete(key, -libc::EBADF, false, None),
        }
    }

    fn cancel(&mut self, key: OpKey, target: OpId) {
        let target = OpKey { shard: key.shard, id: target };
        let result = match self.op(target) {
            None => -libc::ENOENT,
            Some(op) if op.notifying || target == key => -libc::ENOENT,
            Some(op) => match op.kind {
                // A kernel worker has it already and will finish.
                Kind::Read { .. } | Kind::Write { .. } | Kind::Fsync if !op.first => {
                    -libc::EALREADY
                }
                _ => self.cancel_sock_op(target),
            },
        };
        self.complete(key, result, false, None);
    }

    fn cancel_sock_op(&mut self, target: OpKey) -> i32 {
        if chance(&mut self.rng.ring, self.faults.cancel_loses) {
            // What was on its way arrives just before the cancel.
            if let Some(Target::Sock(sock)) = self.op(target).and_then(|op| op.target) {
                self.deliver_early(sock);
            }
            self.attempt(target);
            if self.op(target).is_none_or(|op| op.notifying) {
                self.stats.lost_cancels += 1;
                let late = chance(&mut self.rng.ring, 0.5);
                return if late { -libc::ENOENT } else { -libc::EALREADY };
            }
        }
        let done = self.op(target).map_or(0, |op| op.done);
        if done > 0 {
            self.finish_send(target);
        } else {
            self.complete(target, -libc::ECANCELED, false, None);
        }
        0
    }

    /// Whether the operation that is about to succeed was ordered to fail.
    pub(super) fn fails_now(&mut self) -> bool {
        self.completions_counted += 1;
        let ordered = self.fail_completion == Some(self.completions_counted);
        self.stats.ordered_failures += u64::from(ordered);
        ordered
    }

    /// The same for plain calls.
    pub(super) fn call_fails_now(&mut self) -> bool {
        self.calls_counted += 1;
        let ordered = self.fail_call == Some(self.calls_counted);
        self.stats.ordered_failures += u64::from(ordered);
        ordered
    }

    /// Removes an operation that is over and gives up what it names.
    fn end(&mut self, key: OpKey) {
        self.unpark(key);
        let side = &mut self.shards[key.shard];
        let Some(op) = side.flying.get_mut(key.index()).and_then(Option::take) else { return };
        self.regions.remove(key, &op.memory);
        if let Some(target) = op.target {
            self.release(target);
        }
    }

    /// Ends an operation with a completion that wakes nobody.
    pub(super) fn complete_quietly(&mut self, key: OpKey, result: i32) {
        let Some(op) = self.op_ref(key) else { return };
        op.memory.verify(&|| self.describe(key));
        self.record(key, result, false);
        self.end(key);
        self.stats.completions += 1;
        let (id, more, lease) = (key.id, false, None);
        self.shards[key.shard].quiet.push_back(Cqe::Done { id, result, more, lease });
    }

    /// Posts a completion, the last one unless `more`.
    pub(super) fn complete(&mut self, key: OpKey, result: i32, more: bool, lease: Option<Lease>) {
        let Some(op) = self.op_ref(key) else { return };
        // Memory received into was checked before it was written.
        let written = matches!(op.memory, Memory::Into(_)) && result > 0;
        if !more && !written {
            op.memory.verify(&|| self.describe(key));
        }
        self.record(key, result, more);
        if !more {
            self.end(key);
        }
        self.stats.completions += 1;
        self.post(key.shard, Cqe::Done { id: key.id, result, more, lease });
    }

    /// Whether completions of the shard are being put aside.
    pub(super) fn overflowing(&self, shard: usize) -> bool {
        !self.shards[shard].aside.is_empty()
    }

    fn post(&mut self, shard: usize, entry: Cqe) {
        let fresh = self.shards[shard].aside.is_empty();
        if fresh && !chance(&mut self.rng.ring, self.faults.overflow) {
            self.shards[shard].queue.push_back(entry);
            return;
        }
        self.stats.overflows += 1;
        let side = &mut self.shards[shard];
        side.overflows += 1;
        side.aside.push_back(entry);
        if fresh {
            let delay = up_to(&mut self.rng.ring, self.faults.delay_max_ns);
            self.schedule(self.now_ns + delay, Event::Flush { shard });
        }
    }

    // The trace.

    fn record(&mut self, key: OpKey, result: i32, more: bool) {
        let Some(op) = self.op(key) else { return };
        let (kind, token) = (op.kind, op.token);
        self.trace(key.shard as u64 | u64::from(more) << 32 | u64::from(tag(kind)) << 40);
        self.trace(u64::from(result.cast_unsigned()));
        if self.recent.len() == RECENT_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back(Recent { at_ns: self.now_ns, key, kind, token, result });
    }

    /// Adds a value, and the time, to the trace hash.
    pub(super) fn trace(&mut self, value: u64) {
        self.trace = fold(fold(self.trace, self.now_ns), value);
    }

    /// The process ends itself; what it had open stays until its shards are taken down.
    pub(super) fn end_process(&mut self, shard: usize, code: i32) {
        self.trace(u64::from_le_bytes(*b"exit    ") ^ u64::from(code.cast_unsigned()));
        self.ended.entry(machine_of(shard)).or_insert(code);
    }

    pub(super) const fn trace_hash(&self) -> u64 {
        self.trace
    }

    pub(super) fn recent(&self) -> Vec<String> {
        let line = |of: &Recent| {
            let Recent { at_ns, key, kind, token, result } = of;
            format!("{at_ns} ns shard {}: {kind:?} (token {token:#x}): {result}", key.shard)
        };
        self.recent.iter().map(line).collect()
    }

    #[cfg(test)]
    pub(super) fn has_memory_in_flight(&self) -> bool {
        !self.regions.is_empty()
    }
}
