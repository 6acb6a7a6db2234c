//! Replication: this server as a replica of another one that speaks Redis' protocol.
//!
//! One task of the first shard holds the link (`link.rs`): it shakes hands, takes the whole data set when it has to
//! (`sync.rs`), and then applies the stream of commands as those of a connection (`apply.rs`), so that they find the
//! shards of their keys, stay whole over several of them, and are logged, told and counted as any others. What all shards
//! know of it is in [`Common`]; what each asks before a command runs, in [`Role`].
//!
//! Invariants: the offset counts exactly what was taken and is applied, also when the link ends in the middle; nothing of a former
//! master is applied once REPLICAOF was answered; keys that are due go when the master says so.
//! Next: docs/replication.md for users, docs/decisions/0021-replication.md for why.

mod apply;
pub(crate) mod link;
mod sync;
mod wire;

pub(crate) use apply::Applier;
pub(crate) use wire::Wire;

use std::cell::{Cell, RefCell};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use engine::exec::sync::Notify;
use logic::store::DueKeys;
use view::Instant;

use crate::{
    command::{
        Conn, Fault,
        row::{self, Row},
    },
    events::{self, Going},
    flow::group::Group,
    observe::Cancel,
    script::sha1,
    shard::Shard,
};

pub(crate) use sync::load_own;

/// The server that is followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Master {
    /// Its name or address.
    pub host: String,
    /// Its port.
    pub port: u16,
}

impl Master {
    /// As `replicaof` has it: host and port; nothing for `no one` and for an empty text.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Option<Self>, String> {
        let words: Vec<&str> = text.split_ascii_whitespace().collect();
        match words.as_slice() {
            [] => Ok(None),
            [no, one] if no.eq_ignore_ascii_case("no") && one.eq_ignore_ascii_case("one") => {
                Ok(None)
            }
            [host, port] => match port.parse() {
                Ok(port) if port > 0 => Ok(Some(Self { host: (*host).into(), port })),
                _ => Err(format!("{port}: no port")),
            },
            _ => Err("not a host and a port".into()),
        }
    }

    /// As `replicaof` has it.
    #[must_use]
    pub fn text(&self) -> String {
        format!("{} {}", self.host, self.port)
    }
}

/// How far the link has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Link {
    /// There is none; it will be tried.
    #[default]
    Connect,
    /// Shaking hands.
    Connecting,
    /// The data set is under way.
    Sync,
    /// Commands come.
    Connected,
}

impl Link {
    /// As ROLE names it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Connecting => "connecting",
            Self::Sync => "sync",
            Self::Connected => "connected",
        }
    }
}

/// How far a failover to a replica is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Failover {
    /// There is none.
    #[default]
    None,
    /// Until a replica has all.
    Waits,
    /// The replica is told.
    Tells,
}

impl Failover {
    const fn of(state: u8) -> Self {
        match state {
            1 => Self::Waits,
            2 => Self::Tells,
            _ => Self::None,
        }
    }

    /// As INFO names it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::None => "no-failover",
            Self::Waits => "waiting-for-sync",
            Self::Tells => "failover-in-progress",
        }
    }
}

/// What ROLE and INFO tell.
#[derive(Clone, Debug, Default)]
pub(crate) struct Facts {
    pub(crate) master: Option<Master>,
    pub(crate) link: Link,
    pub(crate) replid: String,
    pub(crate) replid2: String,
    pub(crate) second_offset: Option<u64>,
    /// Since when there is no link, unix seconds.
    pub(crate) down_since_s: u64,
    /// Bytes of the data set, where the master said so, and how many have come.
    pub(crate) sync_bytes: Option<u64>,
    pub(crate) sync_read: u64,
}

/// What metrics tell of replication.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Measured {
    pub(crate) is_up: bool,
    /// Since the master was heard, or since the link went down.
    pub(crate) lag_s: u64,
    pub(crate) offset: u64,
    pub(crate) full_syncs: u64,
    pub(crate) partial_syncs: u64,
}

/// What all shards know of replication.
#[derive(Debug, Default)]
pub struct Common {
    facts: Mutex<Facts>,
    seed: u64,
    /// Moves when another master, or none, is to be followed.
    generation: AtomicU64,
    /// What was applied, and what has come, as the master counts.
    offset: AtomicU64,
    read: AtomicU64,
    /// When the master was last heard, unix seconds.
    heard_s: AtomicU64,
    full_syncs: AtomicU64,
    partial_syncs: AtomicU64,
    /// Until when all flows of the master have come, unix milliseconds.
    clock_ms: AtomicU64,
    /// How far a failover to a replica is, and whether it is to be given up.
    failover: AtomicU8,
    ends_failover: AtomicBool,
}

impl Common {
    /// A server that follows `master`, if anybody; `seed` makes its names.
    #[must_use]
    pub fn new(master: Option<Master>, seed: u64) -> Self {
        let common = Self { seed, ..Self::default() };
        let replid = common.name(0, 0);
        let facts = Facts { master, replid, replid2: "0".repeat(40), ..Facts::default() };
        Self { facts: Mutex::new(facts), ..common }
    }

    /// Another name of a history.
    fn name(&self, number: u64, at_us: u64) -> String {
        let text = format!("replication {} {number} {at_us}", self.seed);
        String::from_utf8_lossy(&sha1::hex(text.as_bytes())).into_owned()
    }

    fn lock(&self) -> MutexGuard<'_, Facts> {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn facts(&self) -> Facts {
        self.lock().clone()
    }

    pub(crate) fn offset(&self) -> u64 {
        self.offset.load(Relaxed)
    }

    /// How far a failover is.
    pub(crate) fn failover(&self) -> Failover {
        Failover::of(self.failover.load(Relaxed))
    }

    /// A failover has come this far.
    pub(crate) fn set_failover(&self, state: Failover) {
        self.failover.store(state as u8, Relaxed);
    }

    /// Begins a failover, unless one is under way.
    pub(crate) fn begin_failover(&self) -> bool {
        let (from, to) = (Failover::None as u8, Failover::Waits as u8);
        let has_begun = self.failover.compare_exchange(from, to, Relaxed, Relaxed).is_ok();
        if has_begun {
            self.ends_failover.store(false, Relaxed);
        }
        has_begun
    }

    /// Asks for the end of a failover; whether one waits.
    pub(crate) fn end_failover(&self) -> bool {
        self.ends_failover.store(true, Relaxed);
        self.failover() == Failover::Waits
    }

    pub(crate) fn ends_failover(&self) -> bool {
        self.ends_failover.load(Relaxed)
    }

    /// What has come from the master, applied or not.
    pub(crate) fn read(&self) -> u64 {
        self.read.load(Relaxed)
    }

    /// Seconds since the master was last heard; -1 without a link.
    pub(crate) fn silent_s(&self, now: Instant) -> i64 {
        if self.lock().link != Link::Connected {
            return -1;
        }
        let silent_s = now.unix_s().saturating_sub(self.heard_s.load(Relaxed));
        i64::try_from(silent_s).unwrap_or(i64::MAX)
    }

    /// What metrics tell.
    pub(crate) fn measured(&self, now: Instant) -> Measured {
        let facts = self.lock();
        let is_up = facts.link == Link::Connected;
        let since_s = if is_up { self.heard_s.load(Relaxed) } else { facts.down_since_s };
        let lag_s = if since_s == 0 { 0 } else { now.unix_s().saturating_sub(since_s) };
        let follows = facts.master.is_some();
        Measured {
            is_up,
            lag_s: if follows { lag_s } else { 0 },
            offset: self.offset(),
            full_syncs: self.full_syncs.load(Relaxed),
            partial_syncs: self.partial_syncs.load(Relaxed),
        }
    }

    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Relaxed)
    }

    fn heard(&self, now: Instant) {
        self.heard_s.store(now.unix_s(), Relaxed);
    }

    /// The link has come to a stage.
    fn stage(&self, link: Link, now: Instant) {
        let mut facts = self.lock();
        if facts.link == Link::Connected && link != Link::Connected {
            facts.down_since_s = now.unix_s();
        }
        facts.link = link;
    }

    /// Another master is to be followed, or none any more, with which a history of our own begins.
    fn follow(&self, master: Option<Master>, now: Instant) {
        let mut facts = self.lock();
        let was_replica = facts.master.is_some();
        let generation = self.generation.fetch_add(1, Relaxed) + 1;
        if was_replica && master.is_none() {
            facts.replid2 = std::mem::take(&mut facts.replid);
            facts.second_offset = Some(self.offset() + 1);
            facts.replid = self.name(generation, now.unix_us);
        }
        facts.master = master;
        facts.link = Link::Connect;
        facts.down_since_s = now.unix_s();
    }
}

/// Whether commands are those of the master that is followed, and when they are run: a master whose shards give flows
/// tells that, and its keys that are due then are gone there; any other one says which keys are gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Applies(u64);

impl Applies {
    /// They are a client's.
    pub(crate) const NO: Self = Self(0);
    /// They are the master's, and run now.
    pub(crate) const NOW: Self = Self(1);

    /// They are the master's, and run at this time; now, where it has told none.
    pub(crate) const fn at(clock_ms: u64) -> Self {
        if clock_ms == 0 { Self::NOW } else { Self(clock_ms) }
    }

    /// Whether they are the master's.
    pub(crate) const fn is_on(self) -> bool {
        self.0 != 0
    }

    const fn has_time(self) -> bool {
        self.0 > 1
    }

    /// When they run.
    pub(crate) const fn time(self, now: Instant) -> Instant {
        if self.has_time() { Instant { unix_us: self.0.saturating_mul(1_000), ..now } } else { now }
    }
}

/// What a shard has to know before it runs a command.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Role {
    /// This server is a replica.
    pub(crate) follows: bool,
    /// The link to the master is up.
    pub(crate) is_up: bool,
    /// A data set of the master is being loaded.
    pub(crate) loads: bool,
    /// The master tells when its commands run.
    pub(crate) has_time: bool,
    /// `replica-read-only`.
    pub(crate) read_only: bool,
    /// `replica-serve-stale-data`.
    serves_stale: bool,
    /// `replica-ignore-maxmemory`.
    ignores_maxmemory: bool,
    /// The role has changed: the link's task has to look.
    changed: bool,
    /// The master wants to know how far this replica is.
    asked: bool,
}

/// What the first shard's task waits for.
#[derive(Default)]
pub(crate) struct Host {
    changed: Notify,
    /// The flows that are followed.
    group: RefCell<Option<Arc<Group>>>,
    /// This server is about to follow nobody: no link is begun.
    is_leaving: Cell<bool>,
}

impl Host {
    /// Tells the link's task of another role; in each turn. Whether there was something.
    pub(crate) fn look(&self, shard: &mut Shard) -> bool {
        let has_changed = std::mem::take(&mut shard.role.changed);
        if has_changed {
            self.changed.notify_all();
        }
        has_changed
    }
}

pub(crate) const READ_ONLY: Fault =
    Fault::text("READONLY You can't write against a read only replica.");
pub(crate) const STALE: Fault =
    Fault::text("MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.");

impl Role {
    /// Whether clients may not write.
    pub(crate) const fn refuses_writes(self) -> bool {
        self.follows && self.read_only
    }

    /// Whether what there is may be old and is not shown.
    pub(crate) const fn is_stale(self) -> bool {
        self.follows && !self.is_up && !self.serves_stale
    }

    /// Whether memory may grow above its limit.
    pub(crate) const fn ignores_limit(self) -> bool {
        self.follows && self.ignores_maxmemory
    }
}

impl Shard {
    /// Takes over what the settings say, and at the start the role.
    pub(crate) fn configure_role(&mut self) {
        let is_on = |name: &str| self.settings.get(name) == "yes";
        self.role.read_only = is_on("replica-read-only");
        self.role.serves_stale = is_on("replica-serve-stale-data");
        self.role.ignores_maxmemory = is_on("replica-ignore-maxmemory");
    }

    /// Follows another master, or none any more.
    pub(crate) fn follow(&mut self, master: Option<Master>, now: Instant) {
        let follows = master.is_some();
        let text = master.as_ref().map_or_else(String::new, Master::text);
        self.settings.put("replicaof", text);
        if follows && !self.role.follows {
            self.unblock_all();
        }
        if follows {
            self.end_flows();
        }
        self.take_role(follows);
        if self.index == 0 {
            self.repl.follow(master, now);
            self.role.changed = true;
        }
    }

    /// Is a replica, or none.
    pub(crate) fn take_role(&mut self, follows: bool) {
        self.role.follows = follows;
        self.take_link(false, false, false);
        self.store.set_due_keys(if follows { DueKeys::Hidden } else { DueKeys::Removed });
    }

    /// The link to the master is as told.
    pub(crate) fn take_link(&mut self, up: bool, loads: bool, has_time: bool) {
        (self.role.is_up, self.role.loads, self.role.has_time) = (up, loads, has_time);
        self.set_log_time();
    }

    /// Whose time the log has: on a replica the master's, or none.
    pub(crate) fn set_log_time(&mut self) {
        let role = self.role;
        if let Some(journal) = &mut self.journal {
            journal.stands_still = role.follows && !role.has_time;
            journal.is_foreign = role.follows;
        }
    }

    /// The host is to look: the role has changed, or a flow has begun.
    pub(crate) const fn wake_link(&mut self) {
        self.role.changed = true;
    }

    /// Removes keys of a replica that are due at the time that all flows of its master have come to: the master removes
    /// those that it meets without a word.
    pub(crate) fn tick_replica(&mut self, budget: usize, now: Instant) -> bool {
        let clock_ms = self.repl.clock_ms.load(Relaxed);
        if !self.role.has_time || !self.role.is_up || clock_ms == 0 {
            return false;
        }
        let mut going = Going::new(self.watching);
        self.store.set_due_keys(DueKeys::Removed);
        let step = self.store.expire_step(clock_ms, budget, |db, key| going.add(db, key));
        self.store.set_due_keys(DueKeys::Hidden);
        self.log_removed(&going.keys, now);
        self.all_gone(going.keys, events::EXPIRED, "expired");
        step.more
    }

    /// Commands that wait for keys end: nobody may write any more.
    fn unblock_all(&mut self) {
        for (owner, ticket) in self.clients.blocked() {
            self.cancel_on(owner, ticket, Cancel::Demoted);
        }
    }

    /// From now on keys that are due are found, on a replica, or are gone at the time that the master tells; what was
    /// before, for [`Shard::hide_due_keys`].
    pub(crate) fn show_due_keys(&mut self, applies: Applies) -> DueKeys {
        let before = self.store.due_keys();
        if before == DueKeys::Hidden {
            let shown = if applies.has_time() { DueKeys::Removed } else { DueKeys::Shown };
            self.store.set_due_keys(shown);
        }
        before
    }

    /// The end of that.
    pub(crate) fn hide_due_keys(&mut self, before: DueKeys) {
        self.store.set_due_keys(before);
    }

    /// The master asks how far this replica is.
    pub(crate) const fn ask_offset(&mut self) {
        self.role.asked = true;
    }

    /// Whether a client has queued commands with one of these flags.
    pub(crate) fn queues(&self, conn: &Conn, flags: row::Bits) -> bool {
        let has = |id: u16| self.commands.row(id).flags & flags != 0;
        let mut queued = conn.transaction.iter().flat_map(|transaction| &transaction.queued);
        queued.any(|queued| has(queued.id))
    }

    /// Why a replica does not run a command now.
    pub(crate) fn role_refuses(&self, row: &Row, conn: &Conn) -> Option<Fault> {
        let role = self.role;
        if !role.follows || conn.applies.is_on() {
            return None;
        }
        let queues_writes = || row.name == "exec" && self.queues(conn, row::WRITE);
        if role.read_only && (row.flags & row::WRITE != 0 || queues_writes()) {
            return Some(READ_ONLY);
        }
        if role.is_stale() && row.flags & row::STALE == 0 {
            return Some(STALE);
        }
        // Whoever waits for a master that does not come must be able to leave it.
        let leaves = matches!(row.name, "replicaof" | "slaveof");
        let loading = role.loads && row.flags & row::LOADING == 0 && !leaves;
        loading.then_some(Fault::text("LOADING Redis is loading the dataset in memory"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_master_is_a_host_and_a_port() {
        let master = |host: &str, port| Master { host: host.into(), port };
        assert_eq!(Master::parse("example 6379"), Ok(Some(master("example", 6379))));
        assert_eq!(Master::parse("::1  1"), Ok(Some(master("::1", 1))));
        assert_eq!((Master::parse(""), Master::parse("No One")), (Ok(None), Ok(None)));
        for bad in ["a", "a 0", "a 65536", "a x", "a 1 2"] {
            assert!(Master::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_replica_that_becomes_a_master_remembers_the_history_it_comes_from() {
        let now = Instant { mono_ns: 0, unix_us: 5_000_000 };
        let master = Master { host: "a".into(), port: 1 };
        let common = Common::new(Some(master), 7);
        common.lock().replid = "x".repeat(40);
        common.offset.store(99, Relaxed);
        common.follow(None, now);
        let facts = common.facts();
        assert_eq!((facts.replid2.as_str(), facts.second_offset), (&*"x".repeat(40), Some(100)));
        assert!(facts.replid.len() == 40 && facts.replid != facts.replid2);
        assert_ne!(common.name(0, 0), Common::new(None, 8).facts().replid, "names follow the seed");
    }
}
