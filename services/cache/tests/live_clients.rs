//! Other people's clients, unmodified, against our server.
//!
//! What: redis-py 5 and 8, ioredis, node-redis, redis-cli and redis-benchmark, each against one shard and
//! against the shared port of two; their cluster modes against two shards, where every node must be seen
//! and own keys. The scripts in `clients/` hold the assertions and run against any server.
//! Next: `testing::live` for how a script is run, and what happens to one whose client is missing.

mod common;

use common::live::CLIENTS;
use common::server::{Server, Turn};
use testing::live::Live;

fn python(version: &str, script: &str) -> Live {
    CLIENTS.python(&format!("redis-py-{version}"), script)
}

fn node(client: &str, package: &str, script: &str) -> Live {
    CLIENTS.node(client, package, script)
}

/// Runs a client's script against a fresh server; `cluster` makes it learn the topology.
fn run(name: &str, program: &str, make: impl Fn() -> Live, shards: u16, cluster: bool) {
    let live = make();
    if !live.is_there(name) {
        return;
    }
    let _turn = Turn::shared();
    let server = Server::cache(shards);
    let mut arguments = vec![server.address().to_string()];
    if cluster {
        let python = program == "python3";
        arguments.extend((!python).then(|| "cluster".to_owned()));
        arguments.push(shards.to_string());
    }
    let name = format!("{name}, {shards} shard(s)");
    CLIENTS.run(&name, live, &arguments, || server.log());
    assert!(server.answers(), "the server is gone after {name}: {}", server.log());
}

/// Over one shard, and over the port that two shards share.
fn run_plain(name: &str, program: &str, make: impl Fn() -> Live) {
    run(name, program, &make, 1, false);
    run(name, program, &make, 2, false);
}

#[test]
fn redis_py_5() {
    run_plain("redis-py 5", "python3", || python("5", "redis_py.py"));
}

#[test]
fn redis_py_8() {
    run_plain("redis-py 8", "python3", || python("8", "redis_py.py"));
}

#[test]
fn redis_py_5_cluster() {
    run("redis-py 5 cluster", "python3", || python("5", "redis_py_cluster.py"), 2, true);
}

#[test]
fn redis_py_8_cluster() {
    run("redis-py 8 cluster", "python3", || python("8", "redis_py_cluster.py"), 2, true);
}

#[test]
fn ioredis() {
    run_plain("ioredis", "node", || node("ioredis", "ioredis", "ioredis.js"));
}

#[test]
fn ioredis_cluster() {
    run("ioredis cluster", "node", || node("ioredis", "ioredis", "ioredis.js"), 2, true);
}

#[test]
fn node_redis() {
    run_plain("node-redis", "node", || node("node-redis", "redis", "node_redis.js"));
}

#[test]
fn node_redis_cluster() {
    run("node-redis cluster", "node", || node("node-redis", "redis", "node_redis.js"), 2, true);
}

#[test]
fn redis_cli() {
    run_plain("redis-cli", "redis-cli", || CLIENTS.shell("redis-cli", "redis_cli.sh"));
}

#[test]
fn redis_cli_cluster() {
    run("redis-cli cluster", "redis-cli", || CLIENTS.shell("redis-cli", "redis_cli.sh"), 2, true);
}

#[test]
fn redis_benchmark() {
    run_plain("redis-benchmark", "redis-benchmark", || {
        CLIENTS.shell("redis-benchmark", "redis_benchmark.sh")
    });
}

#[test]
fn redis_benchmark_cluster() {
    run(
        "redis-benchmark cluster",
        "redis-benchmark",
        || CLIENTS.shell("redis-benchmark", "redis_benchmark.sh"),
        2,
        true,
    );
}
