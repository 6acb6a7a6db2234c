//! Rewriting: a base of all keys in the log, between what changes meanwhile, and then what was before goes.
//!
//! A base begins on all shards while no command over several shards is under way (`Op::Rewrite` runs under locks on all
//! keys). From there on the log is written as ever, with the keys of the base in between: each is replaced by what it held
//! at that time, so what came before the base, and what changed a key that was not yet in it, does not matter. When all
//! shards have written theirs, the manifest names the places where they begin, and what is before is given back.
//!
//! Invariants: the manifest never names a base that is not durable as a whole, nor bases of different moments.
//! Next: `steps.rs` for the keys, `host.rs` for the writer.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use engine::error::{Error, Kind};
use engine::fs::Dir;
use engine::fs::log::{Log, Position};
use engine::net::Server;
use view::Output;
use wire::resp::Version;

use super::{
    Common,
    host::{LogSetup, note_size},
    load,
    manifest::Manifest,
};
use crate::{command::Conn, multi::Multi, serve::Cache, work::Op};

const SECOND_NS: u64 = 1_000_000_000;
/// How often a finished base looks for those of the other shards.
const LOOK_NS: u64 = 5_000_000;
/// More than this waiting to be written: a base goes on later.
const BASE_BACKLOG_BYTES: u64 = 4 << 20;

/// Writes bases when they are begun, and begins them when the log has grown.
pub(crate) async fn bases(
    server: Rc<Server<Cache>>,
    setup: LogSetup,
    mut manifest: Manifest,
    dir: Rc<Dir>,
) {
    let (cx, host) = (server.cx().clone(), server.service().log());
    let Some(log) = host.log.borrow().clone() else { return };
    let life = host.life.get();
    // The log went on while the process runs: what an earlier one left goes with the first base.
    let mut older = (manifest.generation > 1).then_some(manifest.generation - 1);
    loop {
        cx.sleep(SECOND_NS / 10).await;
        if host.life.get() != life {
            return;
        }
        note_size(&server, &log, &manifest);
        let begun =
            server.shard().borrow().journal.as_ref().is_some_and(|journal| journal.base.is_some());
        if !begun {
            if cx.index() == 0 && has_grown(&server, &setup.common) {
                begin_all(&server, &setup.common).await;
            }
            continue;
        }
        if host.failed.get() {
            continue;
        }
        write_base(&server, &log).await;
        match agree(&server, &setup, &mut manifest, &dir).await {
            Ok(()) => {
                let start = manifest.starts.get(cx.index()).copied().unwrap_or(0);
                log.trim(Position(start));
                if let Some(generation) = older.take().filter(|_| cx.index() == 0) {
                    load::remove_generation(&cx, &dir, generation).await;
                }
                note_size(&server, &log, &manifest);
                if let Some(journal) = &mut server.shard().borrow_mut().journal {
                    journal.counts.rewrites += 1;
                }
            }
            Err(error) => {
                setup.common.rewrite_failed.store(true, Ordering::Relaxed);
                cx.log().error(
                    "cache",
                    cx.now(),
                    "the append-only log was not rewritten",
                    &[("why", &error)],
                );
            }
        }
        leave(&setup.common, cx.index());
        if cx.index() == 0 {
            while Common::lock(&setup.common.bases).iter().any(Option::is_some) {
                cx.sleep(LOOK_NS).await;
            }
            let common = &setup.common;
            let sizes: u64 = Common::lock(&common.sizes).iter().sum();
            common.base_bytes.store(sizes, Ordering::Relaxed);
            let began_s = common.rewrite_began_s.load(Ordering::Relaxed);
            let took_s = cx.now().unix_s().saturating_sub(began_s);
            common.rewrite_took_s.store(took_s + 1, Ordering::Relaxed);
            common.rewriting.store(false, Ordering::Release);
        }
    }
}

/// A shard has seen what became of the bases.
fn leave(common: &Common, index: usize) {
    if let Some(place) = Common::lock(&common.bases).get_mut(index) {
        *place = None;
    }
}

/// Whether the logs have grown so far that they are to be rewritten.
fn has_grown(server: &Server<Cache>, common: &Common) -> bool {
    let shard = server.shard().borrow();
    let number = |name: &str| shard.settings.get(name).parse::<u64>().unwrap_or(0);
    let (percentage, min) =
        (number("auto-aof-rewrite-percentage"), number("auto-aof-rewrite-min-size"));
    let size: u64 = Common::lock(&common.sizes).iter().sum();
    let base = common.base_bytes.load(Ordering::Relaxed).max(1);
    let growth = size.saturating_sub(base).saturating_mul(100) / base;
    percentage > 0
        && size > min
        && growth >= percentage
        && !common.rewriting.load(Ordering::Relaxed)
}

/// Begins a base on all shards.
async fn begin_all(server: &Rc<Server<Cache>>, common: &Common) {
    if common.rewriting.swap(true, Ordering::AcqRel) {
        return;
    }
    common.rewrite_failed.store(false, Ordering::Relaxed);
    common.rewrite_began_s.store(server.cx().now().unix_s(), Ordering::Relaxed);
    on_all(server, Op::Rewrite).await;
}

/// A step on all shards, at a moment at which no command over several shards is under way.
pub(super) async fn on_all(server: &Rc<Server<Cache>>, op: Op) {
    let (conn, mut out) = (Conn::remote(0, Version::Resp2, true), Output::default());
    let mut multi = Multi::log(op, &mut server.shard().borrow_mut());
    let mut responses = Vec::new();
    loop {
        let now = server.cx().now();
        let requests = {
            let mut shard = server.shard().borrow_mut();
            multi.step(responses, &mut out, &mut shard, &conn, now)
        };
        let Some(requests) = requests else { return };
        responses = Cache::exchange(Rc::clone(server), requests).await;
    }
}

/// Writes a base to its end, and waits until it is durable.
async fn write_base(server: &Rc<Server<Cache>>, log: &Log) {
    let (cx, host) = (server.cx().clone(), server.service().log());
    loop {
        let (more, waits, end, backlog) = {
            let mut shard = server.shard().borrow_mut();
            let more = shard.log_base(cx.now());
            let Some(journal) = &shard.journal else { return };
            let waits = journal.base.is_some_and(|base| shard.is_base_told(base));
            (more, waits, journal.end(), journal.backlog_bytes())
        };
        host.changed.notify_all();
        if !more {
            let is_appended = || host.appended.get() >= end && host.base_at.get().is_some();
            while !host.failed.get() && !is_appended() {
                cx.sleep(LOOK_NS).await;
            }
            // Whatever the policy, the base is to be durable now.
            let _ = log.commit().await;
            return;
        }
        if waits || backlog > BASE_BACKLOG_BYTES {
            cx.sleep(LOOK_NS).await;
        } else {
            cx.give_way().await;
        }
    }
}

/// Asks all shards to make durable what they have logged by now, at a moment at which no command over several shards is
/// under way: a base may hold what such a command did, and is not to be named before all its parts are on disk.
async fn ask_to_settle(server: &Rc<Server<Cache>>, setup: &LogSetup) {
    *Common::lock(&setup.common.settling) = vec![None; setup.shards];
    setup.common.settled.store(0, Ordering::Release);
    on_all(server, Op::Settle).await;
}

/// Makes durable what was logged when that was asked for.
async fn settle(server: &Rc<Server<Cache>>) {
    let (cx, host) = (server.cx().clone(), server.service().log());
    let common = server.shard().borrow().journal.as_ref().map(|log| Arc::clone(&log.common));
    let Some(common) = common else { return };
    let asked = Common::lock(&common.settling).get_mut(cx.index()).and_then(Option::take);
    let Some(end) = asked else { return };
    while host.appended.get() < end {
        let closing = server.shard().borrow().journal.as_ref().is_none_or(|log| log.closing);
        if closing || host.failed.get() {
            return;
        }
        cx.sleep(LOOK_NS).await;
    }
    let Some(log) = host.log.borrow().clone() else { return };
    if log.commit().await.is_ok() {
        common.settled.fetch_add(1, Ordering::AcqRel);
    }
}

/// Waits for the other shards' bases, and has the manifest name them all.
async fn agree(
    server: &Rc<Server<Cache>>,
    setup: &LogSetup,
    manifest: &mut Manifest,
    dir: &Dir,
) -> Result<(), Error> {
    let (cx, host, common) = (server.cx().clone(), server.service().log(), &setup.common);
    let wanted = common.named.load(Ordering::Acquire) + 1;
    let is_named = || common.named.load(Ordering::Acquire) >= wanted;
    {
        let mut bases = Common::lock(&common.bases);
        bases.resize(setup.shards, None);
        if let Some(place) = bases.get_mut(cx.index()) {
            *place = host.base_at.take();
        }
    }
    let ends = || {
        let closing = server.shard().borrow().journal.as_ref().is_none_or(|log| log.closing);
        let failed = common.failed.load(Ordering::Relaxed) > 0;
        closing || failed || common.rewrite_failed.load(Ordering::Relaxed)
    };
    let mut is_asked = false;
    while !is_named() {
        settle(server).await;
        if ends() {
            let context = "another shard's part, or the manifest, was not written";
            return Err(Error::new("rewrite", Kind::Broken, context));
        }
        let all: Option<Vec<u64>> = Common::lock(&common.bases).iter().copied().collect();
        if let Some(starts) = all.filter(|_| cx.index() == 0) {
            if !std::mem::replace(&mut is_asked, true) {
                ask_to_settle(server, setup).await;
            }
            settle(server).await;
            if common.settled.load(Ordering::Acquire) < setup.shards {
                cx.sleep(LOOK_NS).await;
                continue;
            }
            manifest.starts = starts;
            manifest.write(&cx, dir).await?;
            common.starts_are(&manifest.starts);
            common.named.fetch_add(1, Ordering::AcqRel);
            break;
        }
        cx.sleep(LOOK_NS).await;
    }
    manifest.starts.clone_from(&Common::lock(&common.starts));
    Ok(())
}
