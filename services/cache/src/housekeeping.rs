//! What a shard does by the clock: due keys, memory to give back, save points, what the process has used.
//!
//! Invariant: a step is bounded, and soon followed by another while there is more to do.
//! Next: `Shard::tick` for what a step is.

use std::rc::Rc;

use engine::net::Server;

use crate::{save, serve::Cache};

/// How often a shard looks for due keys.
const TICK_NS: u64 = 100_000_000;
/// How soon again while more is due.
const TICK_MORE_NS: u64 = 100_000;
/// How often the first shard looks what the process has used.
const LOOK_NS: u64 = 1_000_000_000;
/// Entries looked at per tick: some 50 µs.
const TICK_BUDGET: usize = 256;

/// Keeps a shard tidy for as long as it lives.
pub(crate) async fn run(server: Rc<Server<Cache>>) {
    let cx = server.cx().clone();
    let (mut pause_ns, mut look_ns) = (TICK_NS, 0);
    loop {
        cx.sleep(pause_ns).await;
        let now = cx.now();
        let tick = server.shard().borrow_mut().tick(now, TICK_BUDGET);
        if cx.index() == 0 {
            save::tick(&server);
            if now.mono_ns >= look_ns {
                look_ns = now.mono_ns + LOOK_NS;
                let usage = cx.driver().usage();
                server.shard().borrow_mut().set_usage(usage);
            }
        }
        pause_ns = if tick.more { TICK_MORE_NS } else { TICK_NS };
    }
}
