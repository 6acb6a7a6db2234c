//! The cache alone: the same service as in `shardd`, in a process of its own.

#![forbid(unsafe_code)]

use std::process::ExitCode;
use std::sync::Arc;

use cache::config::{CACHE, CacheConfig, DEFAULT_ADDRESS};
use cache::serve::Plan;
use engine::process::{Installer, Standalone};
use engine::shard::ShardCx;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let service = Standalone {
        name: "cache",
        version: env!("CARGO_PKG_VERSION"),
        about: "a Redis-protocol cache, one shard per core",
        rows: CACHE,
    };
    service.main(|values, engine, seed| {
        let default = DEFAULT_ADDRESS.parse().expect("a valid default");
        let address = values.address_if_set("cache").unwrap_or(default);
        let config = CacheConfig::new(values, address, engine.shards)?;
        let plan = Arc::new(Plan::new(config, engine, seed.stream("cache", 0).next_u64()));
        let installer: Installer = Box::new(move |cx: &ShardCx| plan.install(cx).map(drop));
        Ok((installer, address.to_string()))
    })
}
