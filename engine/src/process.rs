//! A process of shards: from checked options to an orderly end.
//!
//! Invariants: shards start together or not at all; SIGTERM and SIGINT drain within the configured
//! time, after which the process ends all the same. Next: `shard::launch` for the threads,
//! `signal` for the handlers, `admin` for the port that shows what goes on.

use std::ffi::OsString;
use std::fs::File;
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::admin::Admin;
use crate::buf::PoolConfig;
use crate::config::{ENGINE, Engine, Row, Table, Values, allowed_cpus};
use crate::driver::Setup;
use crate::error::Error;
use crate::event::Log;
use crate::rng::Seed;
use crate::shard::launch::{Launch, launch};
use crate::shard::{ShardConfig, ShardCx};
use crate::signal::Signals;

/// Puts one service on a shard.
pub type Installer = Box<dyn Fn(&ShardCx) -> Result<(), Error> + Send + Sync>;

/// What a service alone in its process is.
pub struct Standalone {
    /// Its name.
    pub name: &'static str,
    /// Its version.
    pub version: &'static str,
    /// What it does, for `--help`.
    pub about: &'static str,
    /// Its options.
    pub rows: &'static [Row],
}

/// What a service has decided before its shards start.
pub struct Prepared {
    /// Puts it on a shard.
    pub installer: Installer,
    /// Where it serves.
    pub place: String,
    /// Where the log goes; `None` for standard error.
    pub log: Option<File>,
    /// Called once everything listens.
    pub ready: Box<dyn FnOnce()>,
}

impl Standalone {
    /// Runs the service from the command line until a signal asks to stop: `make` gives what puts it on a
    /// shard, and where it serves.
    pub fn main(
        &self,
        make: impl FnOnce(&Values, &Engine, Seed) -> Result<(Installer, String), Error>,
    ) -> ExitCode {
        self.main_from(std::env::args_os().skip(1), |values, engine, seed| {
            let (installer, place) = make(values, engine, seed)?;
            Ok(Prepared { installer, place, log: None, ready: Box::new(|| {}) })
        })
    }

    /// The same from these arguments, for a service that has read the command line in its own way.
    pub fn main_from(
        &self,
        args: impl IntoIterator<Item = OsString>,
        make: impl FnOnce(&Values, &Engine, Seed) -> Result<Prepared, Error>,
    ) -> ExitCode {
        match self.run(args, make) {
            Ok(true) => ExitCode::SUCCESS,
            Ok(false) => {
                eprintln!("{}: connections were still busy when --drain-timeout ended", self.name);
                ExitCode::FAILURE
            }
            Err(error) => self.fail(&error),
        }
    }

    /// Says what keeps the service from starting.
    #[must_use]
    pub fn fail(&self, error: &Error) -> ExitCode {
        eprintln!("{}: {error}", self.name);
        ExitCode::FAILURE
    }

    /// The options of the service and of the engine.
    #[must_use]
    pub fn table(&self) -> Table {
        Table::new(self.name, self.about, &[], &[self.rows, ENGINE])
    }

    fn run(
        &self,
        args: impl IntoIterator<Item = OsString>,
        make: impl FnOnce(&Values, &Engine, Seed) -> Result<Prepared, Error>,
    ) -> Result<bool, Error> {
        let name = self.name;
        let table = self.table();
        let parsed = table.load(args)?;
        if parsed.help {
            print!("{}", table.help());
            return Ok(true);
        }
        if parsed.version {
            println!("{name} {}", self.version);
            return Ok(true);
        }
        let engine = Engine::new(&parsed.values, &allowed_cpus()?)?;
        let seed = engine.seed.map_or_else(Seed::from_os, |seed| Ok(Seed(seed)))?;
        reserve_descriptors()?;
        let Prepared { installer, place, log, ready } = make(&parsed.values, &engine, seed)?;
        let (log, writer) = match log {
            None => Log::start(engine.log_level),
            Some(file) => Log::start_to(engine.log_level, file),
        }
        .map_err(|source| Error::io("clone", source, "the log's thread"))?;
        let mut installers = vec![installer];
        if let Some(address) = engine.admin {
            let admin = Admin::new(address, engine.shards);
            installers.push(Box::new(move |cx: &ShardCx| admin.install(cx)));
        }
        let drained = run(&engine, seed, &log, installers, || {
            eprintln!("{name}: serving on {place}, {} shards", engine.shards);
            ready();
        })?;
        drop(writer);
        Ok(drained)
    }
}

/// Descriptors that the process has room for without growing its table: 1 MiB of kernel memory.
const DESCRIPTORS: u64 = 1 << 17;

/// Raises the limit of open files as far as this process may, and makes the table of them as large at once, up to
/// [`DESCRIPTORS`]. A table that grows when threads share it makes whoever opens or accepts wait for an RCU grace period:
/// 13 to 17 ms each time the number of descriptors passes a power of two (Linux 6.18), in a shard's turn. So this comes
/// before the first thread.
///
/// # Errors
/// There is no descriptor to begin with.
pub fn reserve_descriptors() -> Result<(), Error> {
    let limit = getrlimit(Resource::Nofile);
    // Refused: it stays as it is.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(DESCRIPTORS).min(DESCRIPTORS);
    let last = i32::try_from(limit).unwrap_or(i32::MAX) - 1;
    let any = rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC)
        .map_err(|errno| Error::io("eventfd", errno.into(), "room for descriptors"))?;
    // Taken, or too large for the kernel's memory: then the table grows when it must.
    let _ = rustix::io::fcntl_dupfd_cloexec(&any, last);
    Ok(())
}

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
        shard: ShardConfig {
            spin_ns: engine.spin_ns,
            slice_ns: engine.slice_ns,
            ..ShardConfig::default()
        },
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
