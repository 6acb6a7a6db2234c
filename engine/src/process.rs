//! A process of shards: from checked options to an orderly end.
//!
//! Invariants: shards start together or not at all; SIGTERM and SIGINT drain within the configured
//! time, after which the process ends all the same. Next: `shard::launch` for the threads,
//! `signal` for the handlers, `admin` for the port that shows what goes on.

use std::os::fd::AsFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};

use crate::buf::PoolConfig;
use crate::config::Engine;
use crate::driver::Setup;
use crate::error::Error;
use crate::event::Log;
use crate::rng::Seed;
use crate::shard::launch::{Launch, launch};
use crate::shard::{ShardConfig, ShardCx};
use crate::signal::Signals;

/// Puts one service on a shard.
pub type Installer = Box<dyn Fn(&ShardCx) -> Result<(), Error> + Send + Sync>;

/// The launch that the engine's options describe.
#[must_use]
pub fn describe(engine: &Engine, seed: Seed, log: &Log) -> Launch {
    let pool = PoolConfig {
        buffers: engine.recv_buffers,
        buffer_len_bytes: engine.recv_buffer_len_bytes,
        incremental: true,
    };
    Launch {
        shards: engine.shards,
        cpus: engine.cpus.clone(),
        setup: Setup {
            sq_entries: engine.sq_entries,
            cq_entries: engine.cq_entries,
            pool,
            pool_fallback: fallback(pool),
            ..Setup::default()
        },
        shard: ShardConfig { spin_ns: engine.spin_ns, ..ShardConfig::default() },
        seed,
        log: log.clone(),
    }
}

/// The same memory in many small buffers, for kernels where a buffer serves one receive.
fn fallback(pool: PoolConfig) -> PoolConfig {
    const SMALL_LEN_BYTES: u32 = 8 << 10;
    let all_bytes = u64::from(pool.buffers) * u64::from(pool.buffer_len_bytes);
    let buffers = (all_bytes / u64::from(SMALL_LEN_BYTES)).clamp(8, 32_768).next_power_of_two();
    PoolConfig {
        buffers: u16::try_from(buffers).unwrap_or(32_768),
        buffer_len_bytes: SMALL_LEN_BYTES,
        incremental: false,
    }
}

/// Bytes the shards take at start, whatever the load.
#[must_use]
pub fn fixed_bytes(engine: &Engine) -> u64 {
    let pool = u64::from(engine.recv_buffers) * u64::from(engine.recv_buffer_len_bytes);
    let rings = u64::from(engine.sq_entries) * 64 + u64::from(engine.cq_entries) * 16;
    (pool + rings) * engine.shards as u64
}

/// Starts the shards with their services, calls `ready`, and runs until a signal asks to stop.
/// Returns whether everything had ended in time.
///
/// # Errors
/// What kept the shards from starting.
pub fn run(
    engine: &Engine,
    seed: Seed,
    log: &Log,
    installers: Vec<Installer>,
    ready: impl FnOnce(),
) -> Result<bool, Error> {
    let mut signals = Signals::install()?;
    let mut running = launch(&describe(engine, seed, log), move |cx| {
        installers.iter().try_for_each(|install| install(cx))
    })?;
    ready();
    while !signals.take()?.stop() {
        let mut fds = [PollFd::from_borrowed_fd(signals.as_fd(), PollFlags::IN)];
        match poll(&mut fds, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(Error::io("poll", errno.into(), "waiting for signals")),
        }
    }
    running.stop();
    Ok(running.join(Duration::from_nanos(engine.drain_timeout_ns)))
}
