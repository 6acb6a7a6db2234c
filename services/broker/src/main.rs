//! The log broker alone: the same service as in `shardd`, in a process of its own.

#![forbid(unsafe_code)]

use std::process::ExitCode;
use std::sync::Arc;

use broker::config::{BROKER, BrokerConfig, DEFAULT_ADDRESS};
use broker::serve::Plan;
use engine::process::{Installer, Standalone};
use engine::shard::ShardCx;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let service = Standalone {
        name: "broker",
        version: env!("CARGO_PKG_VERSION"),
        about: "a log broker that speaks the Kafka protocol, one shard per core",
        rows: BROKER,
    };
    service.main(|values, engine, _seed| {
        let default = DEFAULT_ADDRESS.parse().expect("a valid default");
        let address = values.address_if_set("broker").unwrap_or(default);
        let config = BrokerConfig::new(values, address, engine.shards, &engine.data)?;
        let plan = Arc::new(Plan::new(config, engine));
        let installer: Installer = Box::new(move |cx: &ShardCx| plan.install(cx).map(drop));
        Ok((installer, address.to_string()))
    })
}
