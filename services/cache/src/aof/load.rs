//! Loading at the start: from the logs on disk to keys.
//!
//! With as many shards as before, each shard reads its own log and goes on with it. With another number, each reads some of
//! the old logs, one after the other; the keys go to the shards that own them now; and each shard begins a log of its own
//! with a base, in the directory of the next generation, before the manifest names that. Shards wait for each other where
//! one needs what all have done.
//!
//! Invariants: nothing is written to an old log before all are read; damage ends the start, with the place; a command over
//! several shards is run again when each log has its part, else nowhere.
//! Next: `replay.rs` for the commands, `manifest.rs` for what is where.

use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use engine::error::{Error, Kind};
use engine::exec::sync::yield_now;
use engine::fs::Dir;
use engine::fs::log::{Entry, Log, LogConfig, Position, Recovery};
use engine::net::Server;
use engine::shard::ShardCx;

use super::{
    Common, TxName,
    host::{self, LogSetup},
    manifest::Manifest,
    replay::{self, Joiner, Replay, State},
};
use crate::serve::Cache;

/// How often a shard looks whether the others have come as far.
const LOOK_NS: u64 = 1_000_000;
/// Records run again before others get their turn.
const RECORDS_PER_TURN: u32 = 8;
/// How often progress is told.
const TELL_NS: u64 = 1_000_000_000;

/// Steps at which shards wait for each other.
#[derive(Clone, Copy)]
enum Step {
    PartsKnown,
    Read,
    Based,
    Named,
    Ready,
    Functions,
}

/// A log that is ready, and what it belongs to.
pub(crate) struct Loaded {
    pub(crate) log: Log,
    pub(crate) manifest: Manifest,
    pub(crate) dir: Rc<Dir>,
}

struct Loading<'a> {
    server: &'a Rc<Server<Cache>>,
    cx: ShardCx,
    common: Arc<Common>,
    dir: Rc<Dir>,
    sizes: LogConfig,
    manifest: Manifest,
    index: usize,
    count: usize,
    told_ns: u64,
    state: State,
    /// Whether the parts of commands over several shards in this shard's logs are told.
    parts_known: bool,
}

/// Loads the keys; the shard's log, ready for what comes.
///
/// # Errors
/// A log is damaged, or cannot be read or written.
pub(crate) async fn load(server: &Rc<Server<Cache>>, setup: &LogSetup) -> Result<Loaded, Error> {
    let cx = server.cx().clone();
    let dir = Rc::new(Dir::open(&cx, &setup.dir).await?);
    let (index, count) = (cx.index(), setup.shards);
    let manifest = match Manifest::read(&cx, &dir).await? {
        Some(manifest) => manifest,
        None => {
            let manifest = Manifest { generation: 1, starts: vec![0; count] };
            if index == 0 {
                manifest.write(&cx, &dir).await?;
            }
            manifest
        }
    };
    let common = Arc::clone(&setup.common);
    let state = State::default();
    let sizes = setup.sizes;
    let (told_ns, parts_known) = (0, false);
    let mut loading = Loading {
        server,
        cx,
        common,
        dir,
        sizes,
        manifest,
        index,
        count,
        told_ns,
        state,
        parts_known,
    };
    let log = loading.run().await?;
    loading.settle(&log).await?;
    Ok(Loaded { log, manifest: loading.manifest, dir: loading.dir })
}

impl Loading<'_> {
    async fn run(&mut self) -> Result<Log, Error> {
        if self.manifest.starts.len() == self.count {
            let mut recovery = self.open(self.index).await?;
            self.replay(&mut recovery, self.index).await?;
            self.tell_parts(false).await?;
            self.wait(Step::Read).await;
            return recovery.finish().await;
        }
        for log in self.mine() {
            let mut recovery = self.open(log).await?;
            self.replay(&mut recovery, log).await?;
            self.hand_out().await;
        }
        self.tell_parts(false).await?;
        self.wait(Step::Read).await;
        self.take_own()?;
        self.begin_anew().await
    }

    /// The logs that this shard reads.
    fn mine(&self) -> Vec<usize> {
        let before = self.manifest.starts.len();
        (0..before).filter(|log| log % self.count == self.index).collect()
    }

    fn log_dir(&self, log: usize) -> PathBuf {
        self.dir.path().join(self.manifest.logs()).join(format!("shard-{log}"))
    }

    async fn open(&self, log: usize) -> Result<Recovery, Error> {
        let start = self.manifest.starts.get(log).copied().unwrap_or(0);
        Recovery::open(&self.cx, &self.log_dir(log), self.sizes, Position(start)).await
    }

    /// Comes to a step and waits for the other shards.
    async fn wait(&self, step: Step) {
        self.common.arrive(step as usize);
        while !self.common.is_reached(step as usize, self.count) {
            self.cx.sleep(LOOK_NS).await;
        }
    }

    /// Lets the other shards know the parts in this one's logs, if they do not, and waits for theirs. `has_any`: there
    /// are some; only then the logs are read for them, before they are read for what they say. Each shard comes here,
    /// at its first part or else at its end, so none waits for ever.
    async fn tell_parts(&mut self, has_any: bool) -> Result<(), Error> {
        if std::mem::replace(&mut self.parts_known, true) {
            return Ok(());
        }
        if has_any {
            for log in self.mine() {
                self.know_parts(log).await?;
            }
        }
        self.wait(Step::PartsKnown).await;
        Ok(())
    }

    /// Notes the parts of commands over several shards that a log has.
    async fn know_parts(&mut self, log: usize) -> Result<(), Error> {
        let dir = self.log_dir(log);
        let mut recovery = self.open(log).await?;
        let (mut joiner, mut args) = (Joiner::default(), Box::<wire::resp::Args>::default());
        let mut known = view::HashMap::<TxName, u64>::default();
        let mut turn = 0;
        while let Some(entry) = recovery.next().await? {
            let Entry::Record { position, data } = entry else { continue };
            if let Some((bytes, true)) = joiner.take(data) {
                replay::parts(bytes, &mut args, |name| {
                    *known.entry(name).or_default() += 1;
                })
                .map_err(|at| nonsense(&dir, position, at))?;
            }
            turn += 1;
            if turn % RECORDS_PER_TURN == 0 {
                yield_now().await;
            }
        }
        let mut all = Common::lock(&self.common.parts);
        if all.len() <= log {
            all.resize_with(log + 1, Default::default);
        }
        if let Some(place) = all.get_mut(log) {
            *place = known;
        }
        Ok(())
    }

    /// Runs a log again.
    async fn replay(&mut self, recovery: &mut Recovery, log: usize) -> Result<(), Error> {
        let dir = self.log_dir(log);
        let common = Arc::clone(&self.common);
        let is_whole = move |name: TxName, shards: &[u16]| {
            let parts = Common::lock(&common.parts);
            let has =
                |log: &u16| parts.get(usize::from(*log)).is_some_and(|log| log.contains_key(&name));
            shards.iter().all(has)
        };
        let mut joiner = Joiner::default();
        let mut turn = 0;
        self.state.begin_log();
        while let Some(entry) = recovery.next().await? {
            match entry {
                Entry::Damage { from, to } => return Err(damaged(&dir, from, to)),
                Entry::Record { position, data } => {
                    if let Some((bytes, has_part)) = joiner.take(data) {
                        if has_part {
                            self.tell_parts(true).await?;
                        }
                        let mut shard = self.server.shard().borrow_mut();
                        let state = &mut self.state;
                        let mut replay = Replay { shard: &mut shard, state, is_whole: &is_whole };
                        replay.run(bytes).map_err(|at| nonsense(&dir, position, at))?;
                    }
                }
            }
            turn += 1;
            if turn % RECORDS_PER_TURN == 0 {
                self.tell();
                yield_now().await;
            }
        }
        if joiner.is_torn() || joiner.torn > 0 {
            let (what, torn) = ("the end of the log was torn and is cut", joiner.torn + 1);
            let path = dir.display();
            self.cx.log().warn("cache", self.cx.now(), what, &[("log", &path), ("entries", &torn)]);
        }
        Ok(())
    }

    fn tell(&mut self) {
        let now = self.cx.now();
        if self.told_ns == 0 {
            self.told_ns = now.mono_ns;
        }
        if now.mono_ns.saturating_sub(self.told_ns) >= TELL_NS {
            self.told_ns = now.mono_ns;
            let commands = self.state.commands;
            self.cx.log().info("cache", now, "loading", &[("commands", &commands)]);
        }
    }

    /// Hands the keys that were read to the shards that own them.
    async fn hand_out(&self) {
        let databases = self.server.shard().borrow().store().config().databases;
        for db in 0..databases {
            let mut cursor = 0;
            loop {
                cursor = self.hand_out_some(db, cursor);
                if cursor == 0 {
                    break;
                }
                yield_now().await;
            }
        }
    }

    /// Hands out some keys of a database; the next cursor, 0 at the end.
    fn hand_out_some(&self, db: u16, cursor: u64) -> u64 {
        let mut keys = Vec::new();
        let mut shard = self.server.shard().borrow_mut();
        let next = shard.take_some(db, cursor, self.cx.now(), &mut keys);
        let mut moving = Common::lock(&self.common.moving);
        let shards = self.count.max(moving.len());
        moving.resize_with(shards, Vec::new);
        for key in keys {
            let owner = usize::from(shard.topology.owner_of(&key.1));
            if let Some(place) = moving.get_mut(owner) {
                place.push(key);
            }
        }
        next
    }

    /// Takes the keys that are this shard's.
    fn take_own(&self) -> Result<(), Error> {
        let own = Common::lock(&self.common.moving).get_mut(self.index).map(std::mem::take);
        let mut shard = self.server.shard().borrow_mut();
        let now_ms = self.cx.now().unix_ms();
        for (db, key, record) in own.unwrap_or_default() {
            let hash = shard.store.hash(&key);
            record.store(&mut shard.store, db, hash, &key, now_ms).map_err(|full| {
                Error::new("load", Kind::Exhausted, format!("the append-only log: {full}"))
            })?;
        }
        Ok(())
    }

    /// Begins logs for this number of shards, each with a base.
    async fn begin_anew(&mut self) -> Result<Log, Error> {
        let old = self.manifest.generation;
        let generation = self.manifest.generation + 1;
        self.manifest = Manifest { generation, starts: vec![0; self.count] };
        let dir = self.log_dir(self.index);
        // What an interrupted start left is not the log of anybody.
        remove_logs(&self.cx, &dir).await;
        let log = Recovery::open(&self.cx, &dir, self.sizes, Position(0)).await?.finish().await?;
        if let Some(journal) = &mut self.server.shard().borrow_mut().journal {
            journal.begin_base(self.cx.now().unix_ms());
        }
        let mut more = true;
        while more {
            more = self.server.shard().borrow_mut().log_base(self.cx.now());
            let taken = host::take(self.server, super::Taken::default());
            host::append(&log, &taken, 0..taken.ends.len(), None).await?;
        }
        log.commit().await?;
        let end = self.server.shard().borrow().journal.as_ref().map_or(0, |journal| journal.end());
        if let Some(journal) = &mut self.server.shard().borrow_mut().journal {
            journal.set_durable(end);
        }
        self.wait(Step::Based).await;
        if self.index == 0 {
            self.manifest.write(&self.cx, &self.dir).await?;
        }
        self.wait(Step::Named).await;
        if self.index == 0 {
            remove_generation(&self.cx, &self.dir, old).await;
        }
        Ok(log)
    }

    /// The keys are there: clients may come.
    async fn settle(&mut self, log: &Log) -> Result<(), Error> {
        if let Some(found) = self.state.functions.take() {
            let mut functions = Common::lock(&self.common.functions);
            if functions.as_ref().is_none_or(|(number, _)| *number < found.0) {
                *functions = Some(found);
            }
        }
        self.wait(Step::Functions).await;
        if self.index == 0 {
            self.take_functions()?;
        }
        let above = self.cx.now().unix_us;
        self.server.shard().borrow_mut().memcached.begin_uniques(above);
        if let Some(journal) = &mut self.server.shard().borrow_mut().journal {
            journal.forget_reader();
        }
        host::note_size(self.server, log, &self.manifest);
        self.wait(Step::Ready).await;
        if self.index == 0 {
            Common::lock(&self.common.parts).clear();
            let sizes: u64 = Common::lock(&self.common.sizes).iter().sum();
            self.common.base_bytes.store(sizes, Ordering::Relaxed);
            self.common.loading.store(false, Ordering::Release);
        }
        let State { commands, skipped, failed, .. } = &self.state;
        let (now, cx) = (self.cx.now(), &self.cx);
        cx.log().info(
            "cache",
            now,
            "append-only log loaded",
            &[("commands", commands), ("left_out", skipped), ("failed", failed)],
        );
        Ok(())
    }

    /// Makes the functions that the newest entry of any log tells of.
    fn take_functions(&mut self) -> Result<(), Error> {
        let found = Common::lock(&self.common.functions).take();
        let Some((number, payload)) = found else { return Ok(()) };
        let mut shard = self.server.shard().borrow_mut();
        let mut replay =
            Replay { shard: &mut shard, state: &mut self.state, is_whole: &|_, _| true };
        replay.functions(&payload).map_err(|text| {
            let context = format!("the functions in the append-only log: {text}");
            Error::new("load", Kind::Broken, context).remedied(REMEDY)
        })?;
        shard.scripts.library().has_changed(number);
        Ok(())
    }
}

/// Removes the logs of a generation that is not needed any more.
pub(super) async fn remove_generation(cx: &ShardCx, dir: &Dir, generation: u64) {
    let old = dir.path().join(Manifest { generation, starts: Vec::new() }.logs());
    for log in 0.. {
        let dir = old.join(format!("shard-{log}"));
        if Dir::existing(cx, &dir).is_err() {
            break;
        }
        remove_logs(cx, &dir).await;
    }
}

/// Removes the files of a log that is not needed.
pub(super) async fn remove_logs(cx: &ShardCx, dir: &Path) {
    let Ok(dir) = Dir::existing(cx, dir) else { return };
    for name in dir.list().unwrap_or_default() {
        let _ = dir.remove(&name);
    }
    let _ = dir.sync().await;
}

const REMEDY: &str = "restore the directory from a copy, or move it away to begin without keys";

fn damaged(dir: &Path, from: Position, to: Position) -> Error {
    let (from, to) = (from.0, to.0);
    let context = format!("{}: damaged from position {from} to {to}", dir.display());
    Error::new("load", Kind::Broken, context).remedied(REMEDY)
}

fn nonsense(dir: &Path, position: Position, at: usize) -> Error {
    let context = format!("{}: no commands at position {}, byte {at}", dir.display(), position.0);
    Error::new("load", Kind::Broken, context).remedied(REMEDY)
}
