//! `shardd`: any set of services in one process, the default thing to run.
//!
//! A service runs when its address is given, all of them on their usual loopback ports when none
//! is. Next: `doctor` for the probe of the machine; each service's `config` and `serve` for the
//! rest. What of the host costs speed is said by `tuning`.

#![forbid(unsafe_code)]

mod doctor;

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;

use broker::config::{BROKER, BrokerConfig};
use cache::config::{CACHE, CacheConfig};
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
    let table = Table::new("shardd", about, COMMANDS, &[CACHE, BROKER, ENGINE]);
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

/// The services that run, each with its address.
struct Services {
    cache: Option<CacheConfig>,
    broker: Option<BrokerConfig>,
}

impl Services {
    /// Those whose address is given; everything on its usual address where none is.
    fn chosen(values: &Values, engine: &Engine) -> Result<Self, Error> {
        let named = |name: &&str| values.address_if_set(name).is_some();
        let all = !["cache", "broker", "memcached"].iter().any(named);
        let address = |name: &str, default: &str| -> Option<SocketAddr> {
            let default = all.then(|| default.parse().expect("a valid default"));
            values.address_if_set(name).or(default)
        };
        let shards = engine.shards;
        let memcached = address("memcached", cache::config::DEFAULT_MEMCACHED);
        // Memcached's protocol is a door of the cache: that is there with it.
        let usual: SocketAddr = cache::config::DEFAULT_ADDRESS.parse().expect("a valid default");
        let cache = values
            .address_if_set("cache")
            .or(memcached.map(|_| usual))
            .map(|address| CacheConfig::new(values, address, shards))
            .transpose()?
            .map(|config| CacheConfig { memcached, ..config });
        let broker = address("broker", broker::config::DEFAULT_ADDRESS)
            .map(|address| BrokerConfig::new(values, address, shards, &engine.data))
            .transpose()?;
        Ok(Self { cache, broker })
    }

    /// What puts them on a shard.
    fn installers(self, engine: &Engine, seed: Seed) -> Vec<Installer> {
        let mut installers: Vec<Installer> = Vec::new();
        if let Some(config) = self.cache {
            let seed = seed.stream("cache", 0).next_u64();
            let plan = Arc::new(cache::serve::Plan::new(config, engine, seed));
            installers.push(Box::new(move |cx: &ShardCx| plan.install(cx).map(drop)));
        }
        if let Some(config) = self.broker {
            let plan = Arc::new(broker::serve::Plan::new(config, engine));
            installers.push(Box::new(move |cx: &ShardCx| plan.install(cx).map(drop)));
        }
        installers
    }
}

fn serve(values: &Values) -> Result<ExitCode, Error> {
    let engine = Engine::new(values, &allowed_cpus()?)?;
    let seed = engine.seed.map_or_else(Seed::from_os, |seed| Ok(Seed(seed)))?;
    process::reserve_descriptors()?;
    let (log, writer) = Log::start(engine.log_level)
        .map_err(|source| Error::io("clone", source, "the log's thread"))?;
    let services = Services::chosen(values, &engine)?;
    let greeting = greeting(&engine, &services);
    let mut installers = services.installers(&engine, seed);
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

/// What a newcomer wants to see: addresses, a line to try for each service, and what of the host costs speed.
fn greeting(engine: &Engine, services: &Services) -> String {
    let shards = engine.shards;
    let fixed = show_size(process::fixed_bytes(engine));
    let mut text = format!("shardd {}: {shards} shards", env!("CARGO_PKG_VERSION"));
    match engine.cpus.as_slice() {
        [] => text.push_str(", not pinned"),
        cpus => text.push_str(&format!(" on cores {cpus:?}")),
    }
    text.push_str(&format!(", {fixed} for rings and receive buffers\n"));
    let mut service = |name: &str, address: SocketAddr, first: u16, last: u16, line: &str| {
        text.push_str(&format!("  {name:<6} {address}  (shards on ports {first}-{last})\n"));
        text.push_str(&format!("         try: {line}\n"));
    };
    if let Some(cache) = &services.cache {
        let port = |shard| cache.shard_address(shard).port();
        let (host, shared) = (cache.address.ip(), cache.address.port());
        let line = format!("redis-cli -h {host} -p {shared} set greeting hello");
        service("cache", cache.address, port(0), port(shards - 1), &line);
    }
    if let Some(broker) = &services.broker {
        let port = |shard| broker.shard_address(shard).port();
        let line = format!("echo hello | kcat -b {} -P -t greetings", broker.address);
        service("broker", broker.address, port(0), port(shards - 1), &line);
    }
    if let Some(address) = services.cache.as_ref().and_then(|cache| cache.memcached) {
        text.push_str(&format!("  memcached {address}\n"));
    }
    if let Some(admin) = engine.admin {
        text.push_str(&format!("  admin  {admin}  try: curl http://{admin}/metrics\n"));
    }
    for note in tuning::startup_notes() {
        text.push_str(&format!("  host   {note}\n"));
    }
    text
}
