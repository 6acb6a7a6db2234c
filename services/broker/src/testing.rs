//! Runs a test's future on a shard of a simulated world. Next: `compact::tests`, `partition::verify::tests`.

use engine::driver::sim::{SimDriver, World};
use engine::driver::{Driver, Setup};
use engine::event::{Level, Log};
use engine::shard::{Idle, ShardConfig as LoopConfig, ShardCx};

fn setup() -> Setup {
    let mut setup = Setup { sq_entries: 256, cq_entries: 1024, ..Setup::default() };
    setup.pool.buffers = 4;
    setup
}

/// Runs `test` on a shard of `world` until it ends or so many turns have passed; whether it ended. Then the process is gone.
pub(crate) fn in_world<F: Future<Output = ()> + 'static>(
    world: &World,
    turns_max: u64,
    test: impl FnOnce(ShardCx) -> F,
) -> bool {
    let driver = Driver::Sim(Box::new(SimDriver::new(world, 0, &setup())));
    let cx = ShardCx::new(0, 1, driver, LoopConfig::default(), 7, Log::memory(Level::Error));
    cx.enter();
    let (shard, test) = (cx.clone(), test(cx.clone()));
    cx.spawn("test", async move {
        test.await;
        shard.stop();
    });
    let mut turns = 0;
    let done = loop {
        match cx.turn() {
            Idle::Stopped => break true,
            Idle::Busy => cx.driver().turn(false, None),
            Idle::Until(deadline) => {
                let now_ns = cx.driver().now().mono_ns;
                cx.driver().turn(true, deadline.map(|deadline| deadline.saturating_sub(now_ns)));
                while !cx.driver().has_pending_events() && !world.is_ready(0) {
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
