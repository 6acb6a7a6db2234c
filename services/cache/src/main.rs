//! The cache alone: the same service as in `shardd`, in a process of its own, which can be started as redis-server is.
//!
//! Next: [`cache::directive`] for flags and files of redis-server, [`cache::config`] for our own.

#![forbid(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use cache::config::{CACHE, CacheConfig, DEFAULT_ADDRESS};
use cache::directive::{Directives, Greeting};
use cache::serve::Plan;
use engine::config::{Engine, Values};
use engine::error::Error;
use engine::process::{Installer, Prepared, Standalone};
use engine::rng::Seed;
use engine::shard::ShardCx;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const SERVICE: Standalone = Standalone {
    name: "cache",
    version: env!("CARGO_PKG_VERSION"),
    about: "a Redis-protocol cache, one shard per core; takes a redis.conf and redis-server's flags, too",
    rows: CACHE,
};

fn main() -> ExitCode {
    let directives = match Directives::read(std::env::args_os().skip(1).collect(), &SERVICE.table())
    {
        Ok(directives) => directives,
        Err(error) => return SERVICE.fail(&error),
    };
    if directives.version {
        print!("{}", Greeting::version());
        return ExitCode::SUCCESS;
    }
    let pid_file = below_dir(&directives, "pidfile");
    let code = SERVICE.main_from(directives.own.clone(), |values, engine, seed| {
        prepare(&directives, values, engine, seed)
    });
    if directives.help {
        print!("{}", cache::directive::help());
    }
    if let Some(path) = pid_file {
        // It is of no use any more, and missing when the start failed.
        let _ = std::fs::remove_file(path);
    }
    code
}

fn prepare(
    directives: &Directives,
    values: &Values,
    engine: &Engine,
    seed: Seed,
) -> Result<Prepared, Error> {
    let default = DEFAULT_ADDRESS.parse().expect("a valid default");
    let address = values.address_if_set("cache").unwrap_or(default);
    let config = CacheConfig::with_directives(values, address, engine.shards, directives)?;
    let log = below_dir(directives, "logfile").map(|path| append_to(&path)).transpose()?;
    let greeting = Greeting {
        log: log.as_ref().and_then(|file| file.try_clone().ok()),
        place: format!("{}; {} shards", config.place(), engine.shards),
        notes: directives.notes.clone(),
        clock_us: Arc::clone(&config.clock_us),
    };
    let pid_file = below_dir(directives, "pidfile");
    let place = config.place();
    let plan = Arc::new(Plan::new(config, engine, seed.stream("cache", 0).next_u64()));
    let installer: Installer = Box::new(move |cx: &ShardCx| plan.install(cx).map(drop));
    let ready = Box::new(move || {
        if let Some(path) = pid_file {
            // Redis goes on without it, too.
            let _ = std::fs::write(path, format!("{}\n", std::process::id()));
        }
        greeting.say();
    });
    Ok(Prepared { installer, place, log, ready })
}

/// The path that a directive names, below `dir`.
fn below_dir(directives: &Directives, name: &str) -> Option<PathBuf> {
    let path = Some(directives.get(name)).filter(|path| !path.is_empty());
    path.map(|path| Path::new(directives.get("dir")).join(path))
}

fn append_to(path: &Path) -> Result<File, Error> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .map_err(|source| Error::io("open", source, path.display().to_string()))
}
