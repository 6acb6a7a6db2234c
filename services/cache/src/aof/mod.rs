//! The append-only log of a shard: what changed, as commands that give the same keys when they are run again.
//!
//! A shard whose keys are logged is observed (`Shard::observed`), so the hot path pays nothing for a log that is off. Each
//! command that a client sent, with all it led to, becomes one *entry*: commands in RESP, with MULTI and EXEC around
//! several of them, preceded by `#TS:` with the time when that has changed, and by SELECT where the database has. Entries
//! gather here; the host (`host.rs`) writes them to the shard's durable log, which is also where answers wait.
//!
//! Invariants: entries are run again as a whole or not at all; a part of a command over several shards says so (`TX`, its
//! name, its shards) and is run again only where all parts are there; with the time in the log, keys expire in a replay as
//! they did. Next: `rules.rs` for what each command becomes, `effects.rs` for how, `state.rs` for a key as commands,
//! `replay.rs` for the way back.

pub(crate) mod effects;
pub mod host;
pub(crate) mod load;
pub(crate) mod manifest;
pub(crate) mod replay;
pub(crate) mod rewrite;
pub(crate) mod rules;
pub(crate) mod state;
mod steps;
mod switch;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use view::Instant;
use wire::resp::Args;

use crate::{command::row, flow::Backlog, shard::Shard, work::Record};
use rules::Rule;

/// When what was logged is made durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fsync {
    /// Before anything is answered.
    Always,
    /// Ten times a second: at most a second is promised.
    #[default]
    EverySecond,
    /// When a buffer is full, and twice a minute.
    No,
}

impl Fsync {
    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Always => "always",
            Self::EverySecond => "everysec",
            Self::No => "no",
        }
    }

    /// As CONFIG names it.
    #[must_use]
    pub fn named(name: &str) -> Self {
        match name {
            "always" => Self::Always,
            "no" => Self::No,
            _ => Self::EverySecond,
        }
    }
}

/// What all shards know of the log.
#[derive(Debug, Default)]
pub struct Common {
    /// Keys are being loaded.
    pub(crate) loading: AtomicBool,
    /// Shards whose log cannot be written.
    pub(crate) failed: AtomicUsize,
    /// How many shards have come to each step of loading.
    steps: [AtomicUsize; STEPS],
    /// Commands over several shards, by the log their part was in.
    pub(crate) parts: Mutex<Vec<view::HashMap<TxName, u64>>>,
    /// Keys on their way to the shard that owns them now.
    pub(crate) moving: Mutex<Vec<Vec<Moving>>>,
    /// Where the base of each shard's log begins, as the shards have written theirs.
    pub(crate) bases: Mutex<Vec<Option<u64>>>,
    /// Lengths of the logs when they were last rewritten, together.
    pub(crate) base_bytes: AtomicU64,
    /// Lengths of the logs by shard.
    pub(crate) sizes: Mutex<Vec<u64>>,
    /// A rewrite is under way.
    pub(crate) rewriting: AtomicBool,
    /// Rewrites that the manifest named.
    pub(crate) named: AtomicU64,
    /// The last one failed.
    pub(crate) rewrite_failed: AtomicBool,
    /// When the one under way began, and how many seconds the last one took, plus one.
    pub(crate) rewrite_began_s: AtomicU64,
    pub(crate) rewrite_took_s: AtomicU64,
    /// Where bases begin, as the manifest says next.
    pub(crate) starts: Mutex<Vec<u64>>,
    /// Shards whose log has no room, for now.
    pub(crate) full: AtomicUsize,
    /// Odd while the log is on; moves when it goes on or off.
    pub(crate) epoch: AtomicU64,
    /// The epoch whose logs are in use.
    pub(crate) began: AtomicU64,
    /// Shards that have opened a log for this epoch, could not, or have closed theirs.
    pub(crate) opened: AtomicUsize,
    pub(crate) not_opened: AtomicUsize,
    pub(crate) closed: AtomicUsize,
    /// All functions, by the newest of what was logged of them.
    pub(crate) functions: Mutex<Option<(u64, Vec<u8>)>>,
    /// How far each shard's log must be durable before the manifest may name bases, until it is.
    pub(crate) settling: Mutex<Vec<Option<u64>>>,
    /// Shards whose log is.
    pub(crate) settled: AtomicUsize,
    /// Why the log cannot be written.
    pub(crate) why: Mutex<String>,
}

/// Steps of loading at which shards wait for each other.
const STEPS: usize = 8;

/// A key for the shard that owns it.
pub(crate) type Moving = (u16, Box<[u8]>, Record);

impl Common {
    /// Comes to a step, for [`Common::is_reached`].
    pub(crate) fn arrive(&self, step: usize) {
        if let Some(step) = self.steps.get(step) {
            step.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// Whether all of `shards` have come to a step.
    pub(crate) fn is_reached(&self, step: usize, shards: usize) -> bool {
        self.steps.get(step).is_none_or(|step| step.load(Ordering::Acquire) >= shards)
    }

    /// Notes where bases begin.
    pub(crate) fn starts_are(&self, starts: &[u64]) {
        Self::lock(&self.starts).splice(.., starts.iter().copied());
    }

    pub(crate) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
        mutex.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Names a command over several shards: no two ever have the same, restarts included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TxName {
    /// When the shard that ran it was started, unix microseconds.
    pub boot_us: u64,
    /// Its ticket there.
    pub ticket: u64,
}

/// A command over several shards, of which this is a part.
#[derive(Clone, Debug)]
pub struct Tx {
    /// Its name.
    pub(crate) name: TxName,
    /// The shards that log a part of it.
    pub(crate) shards: Vec<u16>,
}

/// Commands, each with its database.
pub(crate) type Commands = Vec<(u16, Vec<u8>)>;

/// Commands for the log of one shard.
#[derive(Clone, Debug)]
pub struct Part {
    pub(crate) tx: Option<Tx>,
    pub(crate) commands: Commands,
    /// When they ran, unix milliseconds, if that was by the clock of another shard: what expires in the few milliseconds
    /// between the clocks was there for them, or was not.
    pub(crate) ran_ms: Option<u64>,
}

/// What a shard has to log.
#[derive(Debug)]
pub(crate) struct Journal {
    pub(crate) fsync: Fsync,
    pub(crate) common: Arc<Common>,
    rules: Vec<Rule>,
    pub(crate) boot_us: u64,
    /// Entries that the host has not taken.
    bytes: Vec<u8>,
    /// Where each of them ends, and whether it is a part of a command over several shards.
    ends: Vec<(usize, bool)>,
    /// Bytes of all entries so far, and how many of them are durable.
    end: u64,
    durable: u64,
    /// What the reader of the log knows by now.
    db: Option<u16>,
    clock_ms: u64,
    /// The entry that is being written.
    open: Open,
    /// Effects of commands on lent keys, for the shards that own them.
    captured: Option<Vec<effects::Effect>>,
    /// Nothing more is logged: the log goes off when what there is has been written.
    pub(crate) closing: bool,
    /// Keys with changes that are not durable, with the end of the last one; only where that is asked for.
    fresh: view::HashMap<(u16, u64), u64>,
    /// Any key may have changed up to here.
    fresh_all: u64,
    /// How far the log must be durable before the replies that are being made may go out.
    needs: u64,
    /// The base being written.
    pub(crate) base: Option<Base>,
    /// The time in the log stands still: a replica's keys go when its master says so.
    pub(crate) stands_still: bool,
    /// The time of what runs is the master's, whom this server follows.
    pub(crate) is_foreign: bool,
    /// What is logged goes to the disk; else it is for replicas alone.
    pub(crate) on_disk: bool,
    /// What replicas may have to be sent, where there are any.
    pub(crate) backlog: Option<Box<Backlog>>,
    /// Bases are on their way to replicas, or are about to be.
    pub(crate) flow_bases: bool,
    /// The database of what is not for replicas.
    items_db: u16,
    /// Where in `bytes` a base begins.
    mark: Option<usize>,
    pub(crate) counts: Counts,
}

/// How far a base has come.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Base {
    pub(crate) db: u16,
    pub(crate) cursor: u64,
}

#[derive(Debug, Default)]
struct Open {
    /// Where its first command begins.
    body: usize,
    commands: u32,
    tx: Option<Tx>,
    /// When it ran, if not at the time of the log.
    ran_ms: Option<u64>,
    /// It belongs to a base.
    is_kept: bool,
    /// It is not for replicas, or nothing in it is.
    is_off_flows: bool,
    has_keys: bool,
    /// What there was when each command inside began.
    outer: Vec<Before>,
    /// Keys that made room: they are gone whatever becomes of the command.
    evicted: Vec<(u16, Box<[u8]>)>,
    /// Keys that have changed.
    touched: Vec<(u16, u64)>,
}

/// What there was before a command, for the case that nothing comes of it.
#[derive(Clone, Copy, Debug)]
struct Before {
    bytes: usize,
    body: usize,
    commands: u32,
    db: Option<u16>,
    clock_ms: u64,
    captured: usize,
    evicted: usize,
}

/// Counters of a journal.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) entries: u64,
    pub(crate) size_bytes: u64,
    pub(crate) syncs: u64,
    pub(crate) rewrites: u64,
}

/// Entries taken from a journal, to be written.
#[derive(Debug, Default)]
pub(crate) struct Taken {
    pub(crate) bytes: Vec<u8>,
    pub(crate) ends: Vec<(usize, bool)>,
    /// What is durable when these are.
    pub(crate) target: u64,
    /// Where in them a base begins.
    pub(crate) mark: Option<usize>,
}

/// More than this waits to be written: answers wait, too.
const BACKLOG_MAX_BYTES: usize = 32 << 20;

const MULTI: &[u8] = b"*1\r\n$5\r\nMULTI\r\n";
const EXEC: &[u8] = b"*1\r\n$4\r\nEXEC\r\n";

impl Journal {
    pub(crate) fn new(
        fsync: Fsync,
        common: Arc<Common>,
        commands: &crate::command::table::Index,
        now: Instant,
    ) -> Self {
        Self {
            fsync,
            common,
            rules: rules::by_id(commands),
            boot_us: now.unix_us,
            bytes: Vec::new(),
            ends: Vec::new(),
            end: 0,
            durable: 0,
            db: None,
            clock_ms: 0,
            open: Open::default(),
            captured: None,
            closing: false,
            fresh: view::HashMap::default(),
            fresh_all: 0,
            needs: 0,
            base: None,
            stands_still: false,
            is_foreign: false,
            on_disk: true,
            backlog: None,
            flow_bases: false,
            items_db: u16::MAX,
            mark: None,
            counts: Counts::default(),
        }
    }

    pub(crate) fn rule(&self, id: u16) -> Rule {
        self.rules.get(usize::from(id)).copied().unwrap_or(Rule::AsSent)
    }

    /// Opens an entry; others inside become part of it.
    pub(crate) fn begin(&mut self) {
        let before = Before {
            bytes: self.bytes.len(),
            body: self.open.body,
            commands: self.open.commands,
            db: self.db,
            clock_ms: self.clock_ms,
            captured: self.captured.as_ref().map_or(0, Vec::len),
            evicted: self.open.evicted.len(),
        };
        self.open.outer.push(before);
    }

    /// Ends what [`Journal::begin`] began, as if it had not been.
    pub(crate) fn undo(&mut self, now_ms: u64) {
        if let Some(before) = self.open.outer.last().copied() {
            self.bytes.truncate(before.bytes);
            (self.open.body, self.open.commands) = (before.body, before.commands);
            (self.db, self.clock_ms) = (before.db, before.clock_ms);
            if let Some(captured) = &mut self.captured {
                captured.truncate(before.captured);
            }
            for (db, key) in self.open.evicted.split_off(before.evicted) {
                self.put(now_ms, db, |out| command(out, &[b"DEL", &key]));
            }
        }
        self.finish();
    }

    /// Logs that keys are gone for which no command asked.
    pub(crate) fn put_gone(&mut self, now_ms: u64, keys: &[(u16, Box<[u8]>)]) {
        for (db, key) in keys {
            self.put(now_ms, *db, |out| command(out, &[b"DEL", key]));
        }
        if !self.open.outer.is_empty() {
            self.open.evicted.extend_from_slice(keys);
        }
    }

    /// Adds a command to the open entry, or makes it an entry.
    pub(crate) fn put(&mut self, now_ms: u64, db: u16, write: impl FnOnce(&mut Vec<u8>)) {
        if self.closing && self.backlog.is_none() {
            return;
        }
        self.begin();
        self.open.has_keys |= db != self.items_db;
        if self.open.commands == 0 {
            self.put_head(now_ms, db);
        } else if self.db != Some(db) {
            self.put_select(db);
        }
        write(&mut self.bytes);
        self.open.commands += 1;
        self.finish();
    }

    fn put_head(&mut self, now_ms: u64, db: u16) {
        if now_ms > self.clock_ms && !self.stands_still {
            self.clock_ms = now_ms;
            self.bytes.extend_from_slice(b"#TS:");
            self.bytes.extend_from_slice(itoa::Buffer::new().format(now_ms).as_bytes());
            self.bytes.extend_from_slice(b"\r\n");
        }
        if self.db != Some(db) {
            self.put_select(db);
        }
        self.open.body = self.bytes.len();
        if self.open.is_kept {
            command(&mut self.bytes, &[b"KEPT"]);
        }
        let clock_ms = self.clock_ms;
        self.open.ran_ms = self.open.ran_ms.filter(|&ms| ms != clock_ms && !self.stands_still);
        let ran = self.open.ran_ms.map(|ms| ms.to_string());
        if let Some(tx) = &self.open.tx {
            let name = format!("{}-{}", tx.name.boot_us, tx.name.ticket);
            let shards: Vec<String> = tx.shards.iter().map(u16::to_string).collect();
            let shards = shards.join(",");
            let mut words = vec![&b"TX"[..], name.as_bytes(), shards.as_bytes()];
            words.extend(ran.as_ref().map(String::as_bytes));
            command(&mut self.bytes, &words);
        } else if let Some(ran) = ran {
            command(&mut self.bytes, &[b"AT", ran.as_bytes()]);
        }
    }

    fn put_select(&mut self, db: u16) {
        self.db = Some(db);
        let mut digits = itoa::Buffer::new();
        command(&mut self.bytes, &[b"SELECT", digits.format(db).as_bytes()]);
    }

    /// Ends what [`Journal::begin`] began.
    pub(crate) fn finish(&mut self) {
        self.open.outer.pop();
        if !self.open.outer.is_empty() {
            return;
        }
        self.open.evicted.clear();
        let (commands, tx) = (std::mem::take(&mut self.open.commands), self.open.tx.take());
        let is_at = self.open.ran_ms.take().is_some();
        let has_head = tx.is_some() || is_at || std::mem::take(&mut self.open.is_kept);
        let is_off_flows = std::mem::take(&mut self.open.is_off_flows);
        let is_off_flows = !std::mem::take(&mut self.open.has_keys) || is_off_flows;
        if commands == 0 {
            return;
        }
        if commands > 1 && !has_head {
            let body = self.open.body;
            self.bytes.splice(body..body, MULTI.iter().copied());
        }
        if commands > 1 || has_head {
            self.bytes.extend_from_slice(EXEC);
        }
        let from = self.ends.last().map_or(0, |(end, _)| *end);
        self.tell_flows(from, is_off_flows);
        if !self.on_disk || self.closing {
            self.bytes.truncate(from);
            self.open.touched.clear();
            return;
        }
        self.ends.push((self.bytes.len(), tx.is_some()));
        self.end += (self.bytes.len() - from) as u64;
        self.counts.entries += 1;
        self.needs = self.end;
        self.note_touched();
    }

    /// Keeps the entry from here on for replicas, if there are any and it is for them.
    fn tell_flows(&mut self, from: usize, is_off_flows: bool) {
        let Some(backlog) = &mut self.backlog else { return };
        if is_off_flows {
            // It may have said what the next one does not.
            self.forget_reader();
        } else {
            backlog.push(self.bytes.get(from..).unwrap_or_default());
        }
    }

    /// Whether a base is being written: what commands read may not be there yet when they are run again.
    pub(crate) const fn has_base(&self) -> bool {
        self.base.is_some() || self.flow_bases
    }

    /// The time of an entry that no command of a master led to: none, where the log has that master's.
    const fn own_ms(&self, now_ms: u64) -> u64 {
        if self.is_foreign { 0 } else { now_ms }
    }

    /// Adds an entry that is a part of a command over several shards.
    pub(crate) fn put_part(&mut self, now_ms: u64, part: Part) {
        if part.commands.is_empty() {
            return;
        }
        self.begin();
        self.open.tx = part.tx.filter(|tx| tx.shards.len() > 1);
        self.open.ran_ms = part.ran_ms;
        for (db, bytes) in part.commands {
            self.put(now_ms, db, |out| out.extend_from_slice(&bytes));
        }
        self.finish();
    }

    /// Adds what a key holds to the base: of no use to a reader that began before the base.
    pub(crate) fn put_kept(&mut self, now_ms: u64, db: u16, bytes: &[u8], for_flows: bool) {
        self.begin();
        (self.open.is_kept, self.open.is_off_flows) = (true, !for_flows);
        self.put(self.own_ms(now_ms), db, |out| out.extend_from_slice(bytes));
        self.finish();
    }

    /// Takes what there is to be written.
    pub(crate) fn take(&mut self, spare: Taken) -> Taken {
        let Taken { mut bytes, mut ends, .. } = spare;
        bytes.clear();
        ends.clear();
        std::mem::swap(&mut bytes, &mut self.bytes);
        std::mem::swap(&mut ends, &mut self.ends);
        Taken { bytes, ends, target: self.end, mark: self.mark.take() }
    }

    /// Bytes that wait to be written.
    pub(crate) const fn backlog_bytes(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Whether there is something to be written.
    pub(crate) const fn has_entries(&self) -> bool {
        !self.ends.is_empty() || self.mark.is_some()
    }

    /// Where the entries so far end.
    pub(crate) const fn end(&self) -> u64 {
        self.end
    }

    pub(crate) const fn durable(&self) -> u64 {
        self.durable
    }

    pub(crate) fn set_durable(&mut self, to: u64) {
        self.durable = self.durable.max(to);
        if self.durable >= self.end {
            self.fresh.clear();
        } else {
            self.fresh.retain(|_, end| *end > to);
        }
    }

    /// A key has changed with the last entry.
    pub(crate) fn touch(&mut self, db: u16, hash: u64) {
        if self.fsync == Fsync::Always {
            self.open.touched.push((db, hash));
            self.note_touched();
        }
    }

    /// Outside of entries, notes where the last change of each key that was touched ends.
    fn note_touched(&mut self) {
        if self.open.outer.is_empty() {
            let end = self.end;
            self.fresh.extend(self.open.touched.drain(..).map(|key| (key, end)));
        }
    }

    /// Any key may have changed with the last entry.
    pub(crate) const fn touch_all(&mut self) {
        self.fresh_all = self.end;
    }

    /// Replies are about to be made.
    pub(crate) const fn look(&mut self) {
        self.needs = 0;
    }

    /// A reply tells of a key.
    pub(crate) fn read(&mut self, db: u16, hash: u64) {
        let fresh = self.fresh.get(&(db, hash)).copied().unwrap_or(0);
        self.needs = self.needs.max(fresh).max(self.fresh_all);
    }

    /// A reply tells of keys that nobody named.
    fn read_all(&mut self) {
        self.needs = self.end;
    }

    /// How far the log must be durable before the replies since [`Journal::look`] may go out, if it is not.
    pub(crate) fn wait(&self) -> Option<u64> {
        let to = self.needs.min(self.awaits()?);
        (to > self.durable).then_some(to)
    }

    /// What must be durable before anything is answered, if something is not.
    #[must_use]
    pub(crate) fn awaits(&self) -> Option<u64> {
        let waits = self.end > self.durable
            && (self.fsync == Fsync::Always || self.bytes.len() > BACKLOG_MAX_BYTES);
        waits.then_some(self.end)
    }

    /// A new reader begins here, who knows nothing: says database and time anew.
    pub(crate) fn forget_reader(&mut self) {
        self.db = None;
        self.clock_ms = 0;
    }

    /// A base begins here: entries before it will not be needed.
    pub(crate) fn begin_base(&mut self, now_ms: u64) {
        self.forget_reader();
        self.mark = Some(self.bytes.len());
        self.base = Some(Base::default());
        self.begin();
        self.open.is_off_flows = true;
        self.put(self.own_ms(now_ms), 0, |out| command(out, &[b"BASE"]));
        self.finish();
    }

    pub(crate) fn is_failed(&self) -> bool {
        let Common { failed, full, .. } = &*self.common;
        failed.load(Ordering::Relaxed) + full.load(Ordering::Relaxed) > 0
    }

    pub(crate) fn is_loading(&self) -> bool {
        self.common.loading.load(Ordering::Relaxed)
    }

    /// The name of a command over several shards.
    pub(crate) const fn name(&self, ticket: u64) -> TxName {
        TxName { boot_us: self.boot_us, ticket }
    }
}

/// Writes a command.
pub(crate) fn command(out: &mut Vec<u8>, words: &[&[u8]]) {
    wire::resp::reply::array(out, words.len());
    for word in words {
        wire::resp::reply::bulk(out, word);
    }
}

impl Shard {
    /// Begins to log: from now on everything is observed.
    pub(crate) fn begin_log(&mut self, fsync: Fsync, common: Arc<Common>, now: Instant) {
        let before = self.journal.take();
        let mut journal = Box::new(Journal::new(fsync, common, &self.commands, now));
        journal.items_db = self.store.items_db();
        if let Some(before) = before {
            // Replicas go on: the new one says database and time anew.
            (journal.backlog, journal.flow_bases) = (before.backlog, before.flow_bases);
        }
        self.journal = Some(journal);
        self.set_log_time();
        self.unobserve();
    }

    /// Begins to keep what changes for replicas alone, or goes on with that.
    pub(crate) fn begin_journal(&mut self, now: Instant) {
        self.begin_log(Fsync::No, Arc::default(), now);
        if let Some(journal) = &mut self.journal {
            journal.on_disk = false;
        }
    }

    /// Logs no more: only observers are told from now on.
    pub(crate) fn end_log(&mut self, now: Instant) {
        if self.journal.as_ref().is_some_and(|journal| journal.backlog.is_some()) {
            return self.begin_journal(now);
        }
        self.journal = None;
        self.unobserve();
    }

    /// Whether nothing is acknowledged before it is durable.
    pub(crate) fn is_log_strict(&self) -> bool {
        self.journal.as_ref().is_some_and(|journal| journal.fsync == Fsync::Always)
    }

    /// Replies are about to be made: what they tell is noted from here on.
    #[inline]
    pub(crate) fn log_look(&mut self) {
        if let Some(journal) = &mut self.journal {
            journal.look();
        }
    }

    /// How far the log must be durable before replies since [`Shard::log_look`] go out, if that is asked for.
    pub(crate) fn log_needs(&self) -> Option<u64> {
        self.journal.as_ref().and_then(|journal| journal.wait())
    }

    /// Whether the log is not durable up to there yet.
    pub(crate) fn is_behind(&self, needs: u64) -> bool {
        // A log that went off and on again counts anew.
        self.journal.as_ref().is_some_and(|journal| journal.durable < needs.min(journal.end))
    }

    /// A command has looked at its keys: its reply tells of what they hold.
    pub(crate) fn log_looked_at(&mut self, id: u16, db: u16, args: &Args, frame: &[u8]) {
        let Some(journal) = &mut self.journal else { return };
        if journal.fsync != Fsync::Always || journal.durable >= journal.end {
            return;
        }
        let row = self.commands.row(id);
        let mut keys = row.key_indices(args.len(), |at| args.get(at, frame)).peekable();
        if keys.peek().is_none() && row.flags & row::READONLY != 0 {
            journal.read_all();
        }
        for at in keys {
            journal.read(db, self.store.hash(args.get(at, frame)).get());
        }
    }

    /// Whether keys are being loaded.
    pub(crate) fn is_loading(&self) -> bool {
        self.journal.as_ref().is_some_and(|journal| journal.is_loading())
    }

    /// Whether there is something for the log's writer: what to write, or that this is the end.
    pub(crate) fn has_log_entries(&self) -> bool {
        self.journal.as_ref().is_some_and(|journal| journal.has_entries() || journal.closing)
    }

    /// Whether the log must be durable up to somewhere before anything is answered, and where.
    #[must_use]
    pub fn awaits_log(&self) -> Option<u64> {
        self.journal.as_ref().and_then(|journal| journal.awaits())
    }

    /// Logs the removal of a key that no command asked for.
    pub(crate) fn log_removed(&mut self, removed: &[(u16, Box<[u8]>)], now: Instant) {
        if let Some(journal) = &mut self.journal {
            journal.put_gone(journal.own_ms(now.unix_ms()), removed);
        }
    }

    /// Logs a part of a command over several shards.
    pub(crate) fn log_part(&mut self, part: Part, now: Instant) {
        if let Some(journal) = &mut self.journal {
            journal.put_part(now.unix_ms(), part);
            journal.touch_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::table::Index;

    fn journal() -> Journal {
        Journal::new(Fsync::No, Arc::default(), &Index::new(), Instant { mono_ns: 0, unix_us: 5 })
    }

    fn text(journal: &mut Journal) -> String {
        let taken = journal.take(Taken::default());
        String::from_utf8_lossy(&taken.bytes).replace("\r\n", " ")
    }

    #[test]
    fn an_entry_says_time_and_database_where_they_change() {
        let mut journal = journal();
        let set = |out: &mut Vec<u8>| command(out, &[b"SET", b"k", b"v"]);
        journal.put(7, 0, set);
        journal.put(7, 0, set);
        journal.put(8, 2, set);
        let sets = "*3 $3 SET $1 k $1 v ";
        let select = |db| format!("*2 $6 SELECT $1 {db} ");
        assert_eq!(
            text(&mut journal),
            format!("#TS:7 {}{sets}{sets}#TS:8 {}{sets}", select(0), select(2))
        );
        assert_eq!(journal.counts.entries, 3);
    }

    #[test]
    fn several_commands_of_one_entry_are_a_transaction() {
        let mut journal = journal();
        journal.begin();
        journal.put(0, 0, |out| command(out, &[b"A"]));
        journal.put(0, 1, |out| command(out, &[b"B"]));
        journal.finish();
        journal.begin();
        journal.finish();
        assert_eq!(
            text(&mut journal),
            "*2 $6 SELECT $1 0 *1 $5 MULTI *1 $1 A *2 $6 SELECT $1 1 *1 $1 B *1 $4 EXEC "
        );
    }

    #[test]
    fn a_part_names_its_command() {
        let mut journal = journal();
        let tx = Tx { name: journal.name(9), shards: vec![0, 3] };
        let part = Part { tx: Some(tx), commands: vec![(0, b"x".to_vec())], ran_ms: None };
        journal.put_part(0, part.clone());
        assert_eq!(text(&mut journal), "*2 $6 SELECT $1 0 *3 $2 TX $3 5-9 $3 0,3 x*1 $4 EXEC ");
        // And says when it ran, if its shard was later or earlier.
        journal.put_part(7, Part { ran_ms: Some(6), ..part.clone() });
        assert_eq!(text(&mut journal), "#TS:7 *4 $2 TX $3 5-9 $3 0,3 $1 6 x*1 $4 EXEC ");
        journal.put_part(7, Part { tx: None, ran_ms: Some(9), ..part.clone() });
        assert_eq!(text(&mut journal), "*2 $2 AT $1 9 x*1 $4 EXEC ");
        journal.put_part(7, Part { tx: None, ran_ms: Some(7), ..part });
        assert_eq!(text(&mut journal), "x");
        assert!(journal.awaits().is_none(), "nobody waits without `always`");
    }
}
