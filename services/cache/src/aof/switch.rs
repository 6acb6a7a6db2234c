//! The log goes on and off while the process runs: `CONFIG SET appendonly`.
//!
//! The first shard directs. Going on: every shard opens a new log, in the directory of the next generation; at one moment
//! all begin to log, with a base of what there is; the manifest names the new logs when all bases are durable, until when
//! a start would read the ones before. Going off: at one moment all stop to log, and write what there is to its end.
//! Invariants: shards log together or not at all; what was acknowledged as durable is in the logs that the manifest names,
//! or the log is off. Next: `host.rs` for the writer, `rewrite.rs` for the base.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use engine::error::Error;
use engine::fs::Dir;
use engine::fs::log::{Position, Recovery};
use engine::net::Server;

use super::{
    Common,
    host::LogSetup,
    load::{self, Loaded},
    manifest::Manifest,
    rewrite,
};
use crate::{
    serve::Cache,
    work::{Op, Request},
};

const LOOK_NS: u64 = 50_000_000;

fn is_on(epoch: u64) -> bool {
    epoch % 2 == 1
}

/// Looks at the setting, and has all shards follow; on the first shard.
pub(super) async fn direct(server: Rc<Server<Cache>>, setup: LogSetup) {
    let (cx, common) = (server.cx().clone(), &setup.common);
    loop {
        cx.sleep(LOOK_NS).await;
        let wanted = server.shard().borrow().settings.get("appendonly") == "yes";
        let is_loading = common.loading.load(Ordering::Acquire);
        if is_loading || wanted == is_on(common.epoch.load(Ordering::Acquire)) {
            continue;
        }
        if wanted {
            on(&server, &setup).await;
        } else {
            common.closed.store(0, Ordering::Release);
            rewrite::on_all(&server, Op::EndLog).await;
            while common.closed.load(Ordering::Acquire) < setup.shards {
                cx.sleep(LOOK_NS).await;
            }
            common.epoch.fetch_add(1, Ordering::AcqRel);
            cx.log().info("cache", cx.now(), "the append-only log is off", &[]);
        }
    }
}

async fn on(server: &Rc<Server<Cache>>, setup: &LogSetup) {
    let (cx, common) = (server.cx().clone(), &setup.common);
    common.opened.store(0, Ordering::Release);
    common.not_opened.store(0, Ordering::Release);
    Common::lock(&common.bases).clear();
    Common::lock(&common.sizes).clear();
    let epoch = common.epoch.fetch_add(1, Ordering::AcqRel) + 1;
    let answered =
        || common.opened.load(Ordering::Acquire) + common.not_opened.load(Ordering::Acquire);
    while answered() < setup.shards {
        cx.sleep(LOOK_NS).await;
    }
    if common.not_opened.load(Ordering::Acquire) > 0 {
        for shard in 0..setup.shards {
            let op = Op::Configure(vec![("appendonly".into(), "no".into())]);
            let request = Request::Op { ticket: 0, op, unlock: false };
            Cache::ask(server, u16::try_from(shard).unwrap_or(u16::MAX), request).await;
        }
        common.epoch.fetch_add(1, Ordering::AcqRel);
        return;
    }
    common.rewrite_failed.store(false, Ordering::Relaxed);
    common.rewrite_began_s.store(cx.now().unix_s(), Ordering::Relaxed);
    common.rewriting.store(true, Ordering::Release);
    rewrite::on_all(server, Op::BeginLog(Arc::clone(common))).await;
    common.began.store(epoch, Ordering::Release);
    cx.log().info("cache", cx.now(), "the append-only log is on", &[]);
}

/// Waits until the log goes on, and opens this shard's.
pub(super) async fn wait(server: &Rc<Server<Cache>>, setup: &LogSetup) -> Loaded {
    let (cx, common) = (server.cx().clone(), &setup.common);
    let mut seen = 0;
    loop {
        cx.sleep(LOOK_NS).await;
        let epoch = common.epoch.load(Ordering::Acquire);
        // The one that has just ended, or failed to begin, is none.
        if !is_on(epoch) || epoch == seen || common.began.load(Ordering::Acquire) >= epoch {
            continue;
        }
        seen = epoch;
        match open(server, setup).await {
            Ok(loaded) => {
                common.opened.fetch_add(1, Ordering::AcqRel);
                while common.epoch.load(Ordering::Acquire) == epoch {
                    if common.began.load(Ordering::Acquire) == epoch {
                        return loaded;
                    }
                    cx.sleep(LOOK_NS).await;
                }
            }
            Err(error) => {
                let what = "the append-only log cannot be begun";
                cx.log().error("cache", cx.now(), what, &[("why", &error)]);
                common.not_opened.fetch_add(1, Ordering::AcqRel);
            }
        }
    }
}

/// A new log in the directory of the next generation.
async fn open(server: &Rc<Server<Cache>>, setup: &LogSetup) -> Result<Loaded, Error> {
    let cx = server.cx().clone();
    let dir = Rc::new(Dir::open(&cx, &setup.dir).await?);
    let before = Manifest::read(&cx, &dir).await?;
    let generation = before.map_or(0, |manifest| manifest.generation) + 1;
    let manifest = Manifest { generation, starts: vec![0; setup.shards] };
    let path = dir.path().join(manifest.logs()).join(format!("shard-{}", cx.index()));
    load::remove_logs(&cx, &path).await;
    let log = Recovery::open(&cx, &path, setup.sizes, Position(0)).await?.finish().await?;
    Ok(Loaded { log, manifest, dir })
}
