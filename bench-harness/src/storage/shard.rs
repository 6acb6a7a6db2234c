//! Our engine for a measure: shards that run one task each and hand back what it found.

use std::future::Future;
use std::sync::{Mutex, mpsc};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use engine::driver::Setup;
use engine::event::{Level, Log};
use engine::rng::Seed;
use engine::shard::launch::{Launch, launch};
use engine::shard::{ShardConfig, ShardCx};

/// Longest a measure may take.
const TIMEOUT: Duration = Duration::from_secs(120);

/// How to start `shards` shards from CPU `cpu` on.
pub(super) fn plan(shards: usize, cpu: usize) -> Launch {
    Launch {
        shards,
        cpus: (cpu..cpu + shards).collect(),
        setup: Setup::default(),
        shard: ShardConfig::default(),
        seed: Seed(1),
        log: Log::new(Level::Error),
    }
}

/// Runs `task` on a shard on CPU `cpu` until it is done.
pub(crate) fn run<T, F, Fut>(cpu: usize, task: F) -> Result<T>
where
    T: Send + 'static,
    F: FnOnce(ShardCx) -> Fut + Send + 'static,
    Fut: Future<Output = Result<T>> + 'static,
{
    let (send, receive) = mpsc::channel();
    let task = Mutex::new(Some((task, send)));
    let mut running = launch(&plan(1, cpu), move |cx| {
        let taken = task.lock().ok().and_then(|mut task| task.take());
        if let Some((task, send)) = taken {
            let work = task(cx.clone());
            cx.spawn("measure", async move {
                // The other end waits for it, unless time is up.
                let _ = send.send(work.await);
            });
        }
        Ok(())
    })?;
    let found = receive.recv_timeout(TIMEOUT).context("the measure did not end in time");
    running.stop();
    if !running.join(Duration::from_secs(10)) {
        return Err(anyhow!("the shard did not stop"));
    }
    found?
}
