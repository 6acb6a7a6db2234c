//! Runs a test's future on a shard: on a ring, or in a simulated world until it ends or the
//! machine stops.

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use crate::driver::sim::{SimDriver, World};
use crate::driver::{Driver, Ring, Setup, Siblings};
use crate::event::{Level, Log};
use crate::shard::{Idle, ShardConfig, ShardCx};

/// A directory of its own on the disk that holds the build, removed on drop.
#[derive(Debug)]
pub(crate) struct TempDir(PathBuf);

impl TempDir {
    pub(crate) fn new(name: &str) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/fs-tests");
        let path = path.join(format!("{name}-{}", std::process::id()));
        // Left over from a run that was killed.
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).expect("a writable build directory");
        Self(path.canonicalize().expect("made above"))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        // It is under the build directory either way.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn setup() -> Setup {
    let mut setup = Setup { sq_entries: 256, cq_entries: 1024, ..Setup::default() };
    setup.pool.buffers = 4;
    setup
}

/// Runs `test` on a ring of this thread.
pub(crate) fn on_ring<F: Future<Output = ()> + 'static>(test: impl FnOnce(ShardCx) -> F) {
    let ring = Ring::start(&setup(), 0, Siblings::new(1)).expect("a kernel with io_uring");
    let driver = Driver::Uring(Box::new(ring));
    let log = Log::new(Level::Error);
    let cx = ShardCx::new(0, 1, driver, ShardConfig::default(), 1, log);
    cx.enter();
    let (shard, test) = (cx.clone(), test(cx.clone()));
    let done = Rc::new(Cell::new(false));
    let end = Rc::clone(&done);
    cx.spawn("test", async move {
        test.await;
        end.set(true);
        shard.stop();
    });
    cx.run(&std::sync::atomic::AtomicUsize::new(1));
    assert!(done.get(), "the test's task ran to its end");
}

/// Runs `test` in `world` until it is done or `turns_max` turns have passed, and whether it is
/// done. Then the process is gone: what it had open is closed, what was in flight is abandoned.
pub(crate) fn in_world<F: Future<Output = ()> + 'static>(
    world: &World,
    turns_max: u64,
    test: impl FnOnce(ShardCx) -> F,
) -> bool {
    let driver = Driver::Sim(Box::new(SimDriver::new(world, 0, &setup())));
    let log = Log::new(Level::Error);
    let seed = world.seed().wrapping_add(world.now().mono_ns);
    let cx = ShardCx::new(0, 1, driver, ShardConfig::default(), seed, log);
    cx.enter();
    let (shard, test) = (cx.clone(), test(cx.clone()));
    cx.spawn("test", async move {
        test.await;
        shard.stop();
    });
    let mut turns = 0;
    let done = loop {
        let idle = cx.turn();
        match idle {
            Idle::Stopped => break true,
            Idle::Busy => cx.driver().turn(false, None),
            Idle::Until(deadline) => {
                let now_ns = cx.driver().now().mono_ns;
                let timeout_ns = deadline.map(|deadline| deadline.saturating_sub(now_ns));
                let before = cx.driver().stats().completions;
                cx.driver().turn(true, timeout_ns);
                let collected = cx.driver().stats().completions > before;
                while !collected && !world.is_ready(0) {
                    assert!(world.advance(), "the test waits for something that never comes");
                }
                cx.driver().turn(false, None);
            }
        }
        turns += 1;
        if turns >= turns_max {
            break false;
        }
    };
    cx.clear();
    drop(cx);
    world.close_shard(0);
    done
}
