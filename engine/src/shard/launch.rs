//! Starts one pinned thread per shard, and stops them in order.
//!
//! Invariants: either every shard starts or none keeps running; a shard is told to stop through a
//! pipe whose writing end closes, which all of them poll, so stopping needs no ring of its own.

use std::fmt::Display;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Barrier, mpsc};
use std::thread::JoinHandle;

use super::{ShardConfig, ShardCx};
use crate::driver::{Driver, Fd, Op, Ring, Setup, Siblings, slice};
use crate::error::Error;
use crate::event::Log;
use crate::rng::Seed;

/// What to start.
#[derive(Clone, Debug)]
pub struct Launch {
    /// Number of shards.
    pub shards: usize,
    /// CPU of each shard; shards beyond the list are not pinned.
    pub cpus: Vec<usize>,
    /// Their drivers.
    pub setup: Setup,
    /// Their loops.
    pub shard: ShardConfig,
    /// Seed of all randomness.
    pub seed: Seed,
    /// Where they log.
    pub log: Log,
}

/// Shards that run.
#[derive(Debug)]
pub struct Running {
    threads: Vec<JoinHandle<()>>,
    stop: Option<OwnedFd>,
    ended: mpsc::Receiver<usize>,
}

impl Running {
    /// Tells every shard to finish and stop.
    pub fn stop(&mut self) {
        self.stop = None;
    }

    /// Waits until every shard has ended, at most `timeout`; false when time ran out.
    ///
    /// # Panics
    /// When a shard panicked.
    pub fn join(mut self, timeout: std::time::Duration) -> bool {
        for _ in 0..self.threads.len() {
            match self.ended.recv_timeout(timeout) {
                Ok(_) => {}
                Err(mpsc::RecvTimeoutError::Timeout) => return false,
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
            }
        }
        for thread in self.threads.drain(..) {
            thread.join().expect("a shard panicked; see its message above");
        }
        true
    }
}

/// Starts the shards. `install` runs on each of them, once every ring is open, and puts the
/// services on it; the shards begin to turn when all have succeeded.
///
/// # Errors
/// The first failure of any shard; the others have stopped then.
pub fn launch<F>(launch: &Launch, install: F) -> Result<Running, Error>
where
    F: Fn(&ShardCx) -> Result<(), Error> + Send + Sync + 'static,
{
    let (stop_read, stop_write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
        .map_err(|errno| Error::io("pipe", errno.into(), "the shards' stop signal"))?;
    let start = Start {
        siblings: Siblings::new(launch.shards),
        opened: Barrier::new(launch.shards),
        unfinished: AtomicUsize::new(launch.shards),
        install: Box::new(install),
        stop: stop_read,
        launch: launch.clone(),
    };
    let start = Arc::new(start);
    let (report, reports) = mpsc::channel();
    let (end, ended) = mpsc::channel();
    let mut threads = Vec::new();
    let mut go = Vec::new();
    for index in 0..launch.shards {
        let (go_send, go_receive) = mpsc::channel();
        go.push(go_send);
        let (start, report, end) = (Arc::clone(&start), report.clone(), end.clone());
        let thread = std::thread::Builder::new()
            .name(format!("shard-{index}"))
            .spawn(move || {
                let _guard = AbortOnPanic;
                start.run(index, &report, &go_receive);
                // Nobody listens any more once the process is giving up.
                let _ = end.send(index);
            })
            .map_err(|source| Error::io("clone", source, format!("thread of shard {index}")))?;
        threads.push(thread);
    }
    let results: Vec<_> = (0..launch.shards).filter_map(|_| reports.recv().ok()).collect();
    if let Some(error) = results.into_iter().find_map(Result::err) {
        drop(go);
        for thread in threads {
            // Its own failure, if any, was reported.
            let _ = thread.join();
        }
        return Err(error);
    }
    for go in go {
        // A shard that is gone shows when it is joined.
        let _ = go.send(());
    }
    Ok(Running { threads, stop: Some(stop_write), ended })
}

/// A shard that panics takes the process with it: the others would wait for its answers for ever.
struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            std::process::abort();
        }
    }
}

type Install = Box<dyn Fn(&ShardCx) -> Result<(), Error> + Send + Sync>;

struct Start {
    siblings: Arc<Siblings>,
    opened: Barrier,
    unfinished: AtomicUsize,
    install: Install,
    stop: OwnedFd,
    launch: Launch,
}

impl Start {
    fn run(&self, index: usize, report: &mpsc::Sender<Result<(), Error>>, go: &mpsc::Receiver<()>) {
        let ring = self
            .pin(index)
            .and_then(|()| Ring::start(&self.launch.setup, index, Arc::clone(&self.siblings)));
        self.opened.wait();
        let cx = ring.and_then(|ring| {
            let driver = Driver::Uring(Box::new(ring));
            let Launch { shards, shard, seed, log, .. } = &self.launch;
            let seed = seed.stream("shard", index as u64).next_u64();
            let cx = ShardCx::new(index, *shards, driver, *shard, seed, log.clone());
            cx.enter();
            (self.install)(&cx)?;
            Ok(cx)
        });
        match cx {
            Err(error) => {
                let _ = report.send(Err(error));
            }
            Ok(cx) => {
                let _ = report.send(Ok(()));
                if go.recv().is_ok() {
                    self.ask_for_slices(&cx);
                    self.watch_stop(&cx);
                    cx.run(&self.unfinished);
                }
            }
        }
    }

    fn pin(&self, index: usize) -> Result<(), Error> {
        let Some(&cpu) = self.launch.cpus.get(index) else { return Ok(()) };
        let mut set = rustix::thread::CpuSet::new();
        if cpu < rustix::thread::CpuSet::MAX_CPU {
            set.set(cpu);
        }
        rustix::thread::sched_setaffinity(None, &set).map_err(|errno| {
            Error::io("sched_setaffinity", errno.into(), format!("shard {index} on cpu {cpu}"))
        })
    }

    /// What is refused costs no more than the system's slices do, so it is no reason not to start.
    fn ask_for_slices(&self, cx: &ShardCx) {
        let ns = self.launch.shard.slice_ns;
        if ns == 0 {
            return;
        }
        if let Err(error) = slice::set_slice(ns) {
            let pairs: [(&str, &dyn Display); 3] =
                [("shard", &cx.index()), ("ns", &ns), ("sched_setattr", &error)];
            cx.log().warn("shard", cx.now(), "no slices of its own", &pairs);
        }
    }

    fn watch_stop(&self, cx: &ShardCx) {
        let stop = Fd(self.stop.as_raw_fd());
        let watched = cx.clone();
        cx.spawn("stop signal", async move {
            watched.perform(Op::PollIn { fd: stop }).await;
            watched.stop();
        });
    }
}
