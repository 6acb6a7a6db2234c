//! The log broker alone: the same service as in `shardd`, in a process of its own.

#![forbid(unsafe_code)]

use std::process::ExitCode;
use std::sync::Arc;

use broker::config::{BROKER, BrokerConfig, DEFAULT_ADDRESS};
use broker::serve::Plan;
use engine::admin::Admin;
use engine::config::{ENGINE, Engine, Table, allowed_cpus};
use engine::error::Error;
use engine::event::Log;
use engine::process::{self, Installer};
use engine::rng::Seed;
use engine::shard::ShardCx;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            eprintln!("broker: connections were still busy when the drain timeout ended");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("broker: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<bool, Error> {
    let about = "a log broker that speaks the Kafka protocol, one shard per core";
    let table = Table::new("broker", about, &[], &[BROKER, ENGINE]);
    let parsed = table.load(std::env::args_os().skip(1))?;
    if parsed.help {
        print!("{}", table.help());
        return Ok(true);
    }
    if parsed.version {
        println!("broker {}", env!("CARGO_PKG_VERSION"));
        return Ok(true);
    }
    let engine = Engine::new(&parsed.values, &allowed_cpus()?)?;
    let default = DEFAULT_ADDRESS.parse().expect("a valid default");
    let address = parsed.values.address_if_set("broker").unwrap_or(default);
    let config = BrokerConfig::new(&parsed.values, address, engine.shards, &engine.data)?;
    let seed = engine.seed.map_or_else(Seed::from_os, |seed| Ok(Seed(seed)))?;
    let plan = Arc::new(Plan::new(config, &engine));
    let (log, writer) = Log::start(engine.log_level)
        .map_err(|source| Error::io("clone", source, "the log's thread"))?;
    let mut installers: Vec<Installer> =
        vec![Box::new(move |cx: &ShardCx| plan.install(cx).map(drop))];
    if let Some(address) = engine.admin {
        let admin = Admin::new(address, engine.shards);
        installers.push(Box::new(move |cx: &ShardCx| admin.install(cx)));
    }
    let drained = process::run(&engine, seed, &log, installers, || {
        eprintln!("broker: serving on {address}, {} shards", engine.shards);
    })?;
    drop(writer);
    Ok(drained)
}
