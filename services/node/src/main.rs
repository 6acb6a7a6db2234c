//! `shardd`: any set of services in one process, the default thing to run.
//!
//! A service runs when its address is given, all of them on their usual loopback ports when none
//! is. Next: `doctor` for the probe of the machine; each service's `config` and `serve` for the
//! rest.

#![forbid(unsafe_code)]

mod doctor;

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;

use cache::config::{CACHE, CacheConfig, DEFAULT_ADDRESS};
use cache::serve::Plan;
use engine::admin::Admin;
use engine::config::{ENGINE, Engine, Table, Values, allowed_cpus, show_size};
use engine::error::Error;
use engine::event::Log;
use engine::process::{self, Installer};
use engine::rng::Seed;
use engine::shard::ShardCx;

const COMMANDS: &[(&str, &str)] =
    &[("doctor", "probe this machine's kernel and print what the engine found")];

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("shardd: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<ExitCode, Error> {
    let about = "shard-local services on io_uring, one pinned thread per core";
    let table = Table::new("shardd", about, COMMANDS, &[CACHE, ENGINE]);
    let parsed = table.load(std::env::args_os().skip(1))?;
    if parsed.help {
        print!("{}", table.help());
        return Ok(ExitCode::SUCCESS);
    }
    if parsed.version {
        println!("shardd {}", env!("CARGO_PKG_VERSION"));
        return Ok(ExitCode::SUCCESS);
    }
    if parsed.command == Some("doctor") {
        return Ok(doctor::run());
    }
    serve(&parsed.values)
}

/// Where the cache listens: everything runs where nothing is chosen.
fn cache_address(values: &Values) -> SocketAddr {
    let default = DEFAULT_ADDRESS.parse().expect("a valid default");
    values.address_if_set("cache").unwrap_or(default)
}

fn serve(values: &Values) -> Result<ExitCode, Error> {
    let engine = Engine::new(values, &allowed_cpus()?)?;
    let seed = engine.seed.map_or_else(Seed::from_os, |seed| Ok(Seed(seed)))?;
    let (log, writer) = Log::start(engine.log_level)
        .map_err(|source| Error::io("clone", source, "the log's thread"))?;
    let cache = CacheConfig::new(values, cache_address(values), engine.shards)?;
    let greeting = greeting(&engine, &cache);
    let plan = Arc::new(Plan::new(cache, &engine, seed.stream("cache", 0).next_u64()));
    let mut installers: Vec<Installer> =
        vec![Box::new(move |cx: &ShardCx| plan.install(cx).map(drop))];
    if let Some(address) = engine.admin {
        let admin = Admin::new(address, engine.shards);
        installers.push(Box::new(move |cx: &ShardCx| admin.install(cx)));
    }
    let drained = process::run(&engine, seed, &log, installers, || print!("{greeting}"))?;
    drop(writer);
    if drained {
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("shardd: connections were still busy when --drain-timeout ended");
    Ok(ExitCode::FAILURE)
}

/// What a newcomer wants to see: addresses, and a line to try for each service.
fn greeting(engine: &Engine, cache: &CacheConfig) -> String {
    let shards = engine.shards;
    let last = cache.shard_address(shards - 1).port();
    let first = cache.shard_address(0).port();
    let fixed = show_size(process::fixed_bytes(engine));
    let mut text = format!("shardd {}: {shards} shards", env!("CARGO_PKG_VERSION"));
    match engine.cpus.as_slice() {
        [] => text.push_str(", not pinned"),
        cpus => text.push_str(&format!(" on cores {cpus:?}")),
    }
    text.push_str(&format!(", {fixed} for rings and receive buffers\n"));
    text.push_str(&format!("  cache  {}  (shards on ports {first}-{last})\n", cache.address));
    let (host, port) = (cache.address.ip(), cache.address.port());
    text.push_str(&format!("         try: redis-cli -h {host} -p {port} set greeting hello\n"));
    if let Some(admin) = engine.admin {
        text.push_str(&format!("  admin  {admin}  try: curl http://{admin}/metrics\n"));
    }
    text
}
