//! The log on the engine: what writes it, and who waits for it.
//!
//! One task per shard takes what the turn before has logged and appends it to the shard's durable log; with `always`, it
//! then waits for the disk, while the next turns gather more: one write and one sync for all that came meanwhile. Replies
//! wait in their sessions ([`Work::Durable`](crate::Work)), answers to other shards here.
//!
//! A rewrite begins a base on all shards while no command over several shards is under way (`Op::Rewrite` runs under locks
//! on all keys). From there on the log is written as ever, with the keys of the base in between: each is replaced by what it
//! held at that time, so what came before the base, and what changed a key that was not yet in it, does not matter. When
//! all shards have written theirs, the manifest names the places where they begin, and what is before goes.
//!
//! Invariants: what was acknowledged with `always` is durable; the shard never waits for the disk; a log that failed
//! acknowledges nothing any more. Next: `engine::fs::log` for the files.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::ops::Range;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use engine::driver::Completion;
use engine::error::Error;
use engine::exec::sync::{Notify, within};
use engine::fs::log::{AppendError, Log, LogConfig};
use engine::net::Server;
use engine::shard::Handler;

use super::{Common, Fsync, Taken, load, manifest::Manifest, replay, rewrite, switch};
use crate::{serve::Cache, work::Response};

const SECOND_NS: u64 = 1_000_000_000;
/// How often a log is made durable that need not be.
const LAZY_NS: u64 = 30 * SECOND_NS;
/// With `everysec`: what is not durable is in this process alone, so that its end loses it.
const OFTEN_NS: u64 = SECOND_NS / 10;
/// A record's length, at most, unless an entry is longer.
const RECORD_BYTES: usize = 64 << 10;
/// How soon a full disk is tried again.
const FULL_RETRY_NS: u64 = SECOND_NS / 5;

/// Where the log is, decided before the shards start.
#[derive(Clone, Debug)]
pub(crate) struct LogSetup {
    pub(crate) dir: PathBuf,
    pub(crate) shards: usize,
    pub(crate) common: Arc<Common>,
    /// Sizes of logs.
    pub(crate) sizes: LogConfig,
    /// The process starts with it.
    starts_on: bool,
}

impl LogSetup {
    pub(crate) fn new(dir: PathBuf, shards: usize, sizes: LogConfig, starts_on: bool) -> Self {
        let common = Arc::new(Common::default());
        common.loading.store(starts_on, Ordering::Release);
        common.epoch.store(starts_on.into(), Ordering::Release);
        common.began.store(starts_on.into(), Ordering::Release);
        Self { dir, shards, common, sizes, starts_on }
    }

    pub(crate) fn common(&self) -> Arc<Common> {
        Arc::clone(&self.common)
    }
}

/// The log's side of a shard's cache.
#[derive(Default)]
pub(crate) struct Host {
    pub(crate) is_on: Cell<bool>,
    /// There is something to write.
    pub(super) changed: Notify,
    /// More is durable than before, or the log has failed.
    durable: Notify,
    pub(super) failed: Cell<bool>,
    /// Answers that wait, each for a place in the log.
    held: RefCell<VecDeque<(u64, u64, Response)>>,
    pub(super) log: RefCell<Option<Log>>,
    /// What was appended, as the journal counts.
    pub(super) appended: Cell<u64>,
    /// Where in the log the base that is being written begins.
    pub(super) base_at: Cell<Option<u64>>,
    /// It has no room for now: what waits is told that it is not durable.
    full: Cell<bool>,
    /// Counts logs: tasks of an earlier one end.
    pub(super) life: Cell<u64>,
    is_guarded: Cell<bool>,
}

impl Host {
    /// Tells the writer of new entries; once per turn.
    pub(crate) fn wake(&self, has_entries: bool, awaits: bool) {
        // Of a log that has failed nothing will be durable: only who waits for it has to hear so.
        let waits = if self.failed.get() { !self.held.borrow().is_empty() } else { awaits };
        if has_entries || waits {
            self.changed.notify_all();
        }
    }

    /// Keeps an answer until the log is durable up to `to`.
    pub(crate) fn keep(&self, to: u64, token: u64, response: Response) {
        self.held.borrow_mut().push_back((to, token, response));
    }
}

/// Keeps the shard from ending before its log is durable.
struct LastWrite(Rc<Server<Cache>>);

impl Handler for LastWrite {
    fn on_completion(&self, _local: u64, _completion: Completion) {}

    fn on_timer(&self, _local: u64) {}

    fn on_turn(&self) -> bool {
        false
    }

    fn stop(&self) {
        self.0.service().log().changed.notify_all();
    }

    fn is_stopped(&self) -> bool {
        let host = self.0.service().log();
        let shard = self.0.shard().borrow();
        let durable = |journal: &super::Journal| journal.durable() >= journal.end();
        let is_written = shard.journal.as_ref().is_none_or(|journal| durable(journal));
        is_written || host.failed.get() || host.log.borrow().is_none()
    }
}

/// Whether an answer may tell of something that was changed.
pub(crate) const fn may_wait(response: &Response) -> bool {
    matches!(
        response,
        Response::Batch(_)
            | Response::Done
            | Response::Count(_)
            | Response::Error(_)
            | Response::Values(_)
            | Response::Looked(_)
            | Response::Record(_)
            | Response::Keys { .. }
            | Response::Random { .. }
    )
}

/// Whether what it needs was noted as it was made.
pub(crate) const fn is_exact(response: &Response) -> bool {
    matches!(response, Response::Batch(_))
}

/// Loads the log and writes it, while it is on.
pub(crate) async fn run(server: Rc<Server<Cache>>, setup: LogSetup) {
    let cx = server.cx().clone();
    if cx.index() == 0 {
        cx.spawn("cache log switch", switch::direct(Rc::clone(&server), setup.clone()));
    }
    if setup.starts_on {
        match load::load(&server, &setup).await {
            Ok(loaded) => serve(&server, &setup, loaded).await,
            Err(error) => return give_up(&server, &error).await,
        }
    }
    loop {
        let loaded = switch::wait(&server, &setup).await;
        serve(&server, &setup, loaded).await;
    }
}

/// The keys cannot be loaded: the process ends.
async fn give_up(server: &Server<Cache>, error: &Error) {
    let cx = server.cx();
    cx.log().error("cache", cx.now(), "the append-only log cannot be loaded", &[("why", error)]);
    // The line is written by another thread.
    cx.sleep(SECOND_NS / 5).await;
    cx.driver().end_process(1);
    // Nobody goes on without the keys.
    std::future::pending().await
}

/// Writes a log until it goes off.
async fn serve(server: &Rc<Server<Cache>>, setup: &LogSetup, loaded: load::Loaded) {
    let (cx, host) = (server.cx().clone(), server.service().log());
    let load::Loaded { log, manifest, dir } = loaded;
    *host.log.borrow_mut() = Some(log.clone());
    host.is_on.set(true);
    host.appended.set(0);
    host.base_at.set(None);
    if !host.is_guarded.replace(true) {
        cx.add_handler(Rc::new(LastWrite(Rc::clone(server))));
    }
    cx.spawn("cache log base", rewrite::bases(Rc::clone(server), setup.clone(), manifest, dir));
    write(server, &log).await;
    host.life.set(host.life.get() + 1);
    host.is_on.set(false);
    *host.log.borrow_mut() = None;
    {
        let mut shard = server.shard().borrow_mut();
        shard.end_log(cx.now());
    }
    host.durable.notify_all();
    setup.common.closed.fetch_add(1, Ordering::AcqRel);
}

/// Takes what there is to be written.
pub(crate) fn take(server: &Server<Cache>, spare: Taken) -> Taken {
    let mut shard = server.shard().borrow_mut();
    shard.journal.as_mut().map_or_else(Taken::default, |journal| journal.take(spare))
}

/// Appends some of the entries that were taken, waiting for room on the disk if `patient`.
///
/// # Errors
/// The log has failed, or the disk is full.
pub(crate) async fn append(
    log: &Log,
    taken: &Taken,
    entries: Range<usize>,
    patient: Option<&Rc<Server<Cache>>>,
) -> Result<(), Error> {
    for (flags, piece) in replay::records(taken, entries, RECORD_BYTES) {
        loop {
            let room = log.room();
            match log.append_parts(&[&[flags], piece]) {
                Ok(_) => break,
                Err(AppendError::Busy) => room.await,
                Err(AppendError::Full(error)) => match patient {
                    Some(server) if !server.cx().is_stopping() => full(server, &error).await,
                    _ => return Err(error),
                },
                Err(AppendError::Failed(error)) => return Err(error),
                Err(AppendError::TooLong { max_bytes }) => {
                    let context = format!("a record above {max_bytes} bytes");
                    return Err(Error::new("append", engine::error::Kind::Invalid, context));
                }
            }
        }
    }
    if let Some(server) = patient {
        let host = server.service().log();
        if host.full.replace(false) {
            let cx = server.cx();
            common(server).inspect(|common| {
                common.full.fetch_sub(1, Ordering::Relaxed);
            });
            cx.log().info("cache", cx.now(), "the append-only log has room again", &[]);
        }
    }
    Ok(())
}

fn common(server: &Server<Cache>) -> Option<Arc<Common>> {
    server.shard().borrow().journal.as_ref().map(|journal| Arc::clone(&journal.common))
}

/// There is no room: writes are refused until there is, and what waits is not acknowledged.
async fn full(server: &Rc<Server<Cache>>, error: &Error) {
    let (cx, host) = (server.cx(), server.service().log());
    if !host.full.replace(true) {
        if let Some(common) = common(server) {
            *Common::lock(&common.why) = error.to_string();
            common.full.fetch_add(1, Ordering::Relaxed);
        }
        let what = "the append-only log has no room: writes are refused until it has";
        cx.log().error("cache", cx.now(), what, &[("why", error)]);
    }
    refuse_held(server);
    cx.sleep(FULL_RETRY_NS).await;
}

/// Tells whoever waits that nothing will be durable for now.
fn refuse_held(server: &Server<Cache>) {
    let (cache, host) = (server.service(), server.service().log());
    host.durable.notify_all();
    let held = std::mem::take(&mut *host.held.borrow_mut());
    for (_, token, _) in held {
        let text = b"MISCONF Errors writing to the AOF file: the write may be lost".to_vec();
        cache.answer_now(token, Response::Error(text));
    }
}

async fn write(server: &Rc<Server<Cache>>, log: &Log) {
    let (cx, host) = (server.cx().clone(), server.service().log());
    let mut spare = Taken::default();
    let (mut appended, mut synced_ns) = (0, cx.now().mono_ns);
    loop {
        let changed = host.changed.notified();
        let (fsync, waits, durable, closing) = {
            let shard = server.shard().borrow();
            let Some(journal) = &shard.journal else { return };
            (journal.fsync, !journal.has_entries(), journal.durable(), journal.closing)
        };
        if closing && waits && appended <= durable {
            return;
        }
        let pause_ns = match fsync {
            Fsync::Always => 0,
            Fsync::EverySecond => OFTEN_NS,
            Fsync::No => LAZY_NS,
        };
        let due_ns = synced_ns + pause_ns;
        let ends = closing || cx.is_stopping();
        let is_due = appended > durable && cx.now().mono_ns >= due_ns || ends;
        if waits && !(is_due && appended > durable) {
            if appended > durable {
                within(changed, cx.sleep_until(due_ns)).await;
            } else {
                changed.await;
            }
            continue;
        }
        let taken = take(server, std::mem::take(&mut spare));
        let target = taken.target;
        let mut written = put(server, log, &taken).await;
        if written.is_ok() && (is_due || fsync == Fsync::Always) {
            synced_ns = cx.now().mono_ns;
            written = log.commit().await.map(|_| ());
            if written.is_ok() {
                set_durable(server, target);
            }
        }
        appended = target;
        host.appended.set(target);
        spare = taken;
        if let Err(error) = written {
            return fail(server, &error).await;
        }
    }
}

/// Appends what was taken, and notes where a base begins.
async fn put(server: &Rc<Server<Cache>>, log: &Log, taken: &Taken) -> Result<(), Error> {
    let all = taken.ends.len();
    let Some(mark) = taken.mark else { return append(log, taken, 0..all, Some(server)).await };
    let before = taken.ends.partition_point(|(end, _)| *end <= mark);
    append(log, taken, 0..before, Some(server)).await?;
    server.service().log().base_at.set(Some(log.end().0));
    append(log, taken, before..all, Some(server)).await
}

fn set_durable(server: &Rc<Server<Cache>>, to: u64) {
    let (cache, host) = (server.service(), server.service().log());
    if let Some(journal) = &mut server.shard().borrow_mut().journal {
        journal.set_durable(to);
        journal.counts.syncs += 1;
    }
    host.durable.notify_all();
    loop {
        let next = {
            let mut held = host.held.borrow_mut();
            if held.front().is_none_or(|(wanted, ..)| *wanted > to) {
                break;
            }
            held.pop_front()
        };
        if let Some((_, token, response)) = next {
            cache.answer_now(token, response);
        }
    }
}

/// The log has failed: what waits for it ends, and no more is acknowledged until the log goes off.
async fn fail(server: &Rc<Server<Cache>>, error: &Error) {
    let (cx, host) = (server.cx(), server.service().log());
    let what = "the append-only log cannot be written: writes are refused";
    cx.log().error("cache", cx.now(), what, &[("why", error)]);
    host.failed.set(true);
    let common = common(server);
    if let Some(common) = &common {
        *Common::lock(&common.why) = error.to_string();
        common.failed.fetch_add(1, Ordering::Relaxed);
        if host.full.replace(false) {
            common.full.fetch_sub(1, Ordering::Relaxed);
        }
    }
    let mut spare = Taken::default();
    let is_closing = || server.shard().borrow().journal.as_ref().is_none_or(|log| log.closing);
    while !is_closing() {
        let changed = host.changed.notified();
        refuse_held(server);
        // Keys that expire are logged all the same: into nothing.
        spare = take(server, spare);
        changed.await;
    }
    refuse_held(server);
    host.failed.set(false);
    if let Some(common) = &common {
        common.failed.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Waits until the log is durable up to a place; false when it will not be for now.
pub(crate) async fn durable(server: Rc<Server<Cache>>, to: u64) -> bool {
    let host = server.service().log();
    loop {
        let durable = host.durable.notified();
        if !server.shard().borrow().is_behind(to) {
            return true;
        }
        if host.failed.get() || host.full.get() {
            return false;
        }
        durable.await;
    }
}

/// Notes how long the log is.
pub(crate) fn note_size(server: &Server<Cache>, log: &Log, manifest: &Manifest) {
    let index = server.cx().index();
    let start = manifest.starts.get(index).copied().unwrap_or(0);
    let size = log.end().0.saturating_sub(start);
    let mut shard = server.shard().borrow_mut();
    let Some(journal) = &mut shard.journal else { return };
    journal.counts.size_bytes = size;
    let mut sizes = Common::lock(&journal.common.sizes);
    if sizes.len() <= index {
        sizes.resize(index + 1, 0);
    }
    if let Some(place) = sizes.get_mut(index) {
        *place = size;
    }
}
