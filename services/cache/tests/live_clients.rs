//! Other people's clients, unmodified, against our server.
//!
//! What: redis-py 5 and 8, ioredis, node-redis, redis-cli and redis-benchmark, each against one shard and
//! against the shared port of two; their cluster modes against two shards, where every node must be seen
//! and own keys. The scripts in `clients/` hold the assertions and run against any server.
//! Invariants: a client that is not installed prints `skipped: reason` (and fails with
//! `LIVE_CLIENTS_REQUIRED=1`); a script that hangs is killed. `clients/install.sh` is run first unless
//! `LIVE_CLIENTS_INSTALL=0`; it leaves alone what is there.
#![expect(
    clippy::disallowed_methods,
    reason = "a test drives real processes: it waits and reads the environment"
)]

mod common;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use common::server::{Server, Turn, scratch};

const SCRIPT_TIMEOUT: Duration = Duration::from_secs(120);

fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients")
}

/// Where install.sh puts the clients: the target directory, which holds this test binary's scratch.
fn installed() -> PathBuf {
    static INSTALL: OnceLock<PathBuf> = OnceLock::new();
    let install = || {
        let target = Path::new(env!("CARGO_TARGET_TMPDIR"))
            .parent()
            .expect("target/tmp has a parent")
            .to_owned();
        if std::env::var("LIVE_CLIENTS_INSTALL").as_deref() != Ok("0") {
            let status =
                Command::new("bash").arg(scripts().join("install.sh")).arg(&target).status();
            if !status.is_ok_and(|status| status.success()) {
                println!("install.sh: not every client could be installed");
            }
        }
        target.join("clients")
    };
    INSTALL.get_or_init(install).clone()
}

/// One client: how it is started, and what must exist for that.
struct Live {
    command: Command,
    needs: Option<PathBuf>,
}

fn python(version: &str, script: &str) -> Live {
    let binary = installed().join(format!("redis-py-{version}/bin/python"));
    let mut command = Command::new(&binary);
    command.args(["-W", "ignore"]).arg(scripts().join(script));
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    Live { command, needs: Some(binary) }
}

fn node(client: &str, package: &str, script: &str) -> Live {
    let modules = installed().join(client).join("node_modules");
    let mut command = Command::new("node");
    command.arg(scripts().join(script)).env("NODE_PATH", &modules);
    Live { command, needs: Some(modules.join(package)) }
}

fn shell(script: &str) -> Live {
    let mut command = Command::new("bash");
    command.arg(scripts().join(script));
    Live { command, needs: None }
}

fn on_path(program: &str) -> bool {
    Command::new(program)
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok()
}

fn skip(name: &str, reason: &str) {
    println!("skipped: {name}: {reason}");
    assert!(
        std::env::var("LIVE_CLIENTS_REQUIRED").as_deref() != Ok("1"),
        "{name} is required: {reason}"
    );
}

/// Runs a client's script against a fresh server; `cluster` makes it learn the topology.
fn run(name: &str, program: &str, make: impl Fn() -> Live, shards: u16, cluster: bool) {
    if !on_path(program) {
        return skip(name, &format!("{program} is not installed"));
    }
    let Live { mut command, needs } = make();
    if let Some(missing) = needs.filter(|path| !path.exists()) {
        return skip(name, &format!("{} is missing", missing.display()));
    }
    let _turn = Turn::shared();
    let server = Server::cache(shards);
    command.arg(server.address().to_string());
    if cluster {
        let python = program == "python3";
        command.args((!python).then_some("cluster")).arg(shards.to_string());
    }
    let output = scratch().join(format!("{}-{}", name.replace(' ', "-"), std::process::id()));
    let file = File::create(&output).expect("an output file");
    let started = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(file.try_clone().expect("a second handle"))
        .stderr(file)
        .spawn()
        .unwrap_or_else(|error| panic!("{name}: {command:?}: {error}"));
    let status = loop {
        if let Some(status) = child.try_wait().expect("the child is ours") {
            break Some(status);
        }
        if started.elapsed() > SCRIPT_TIMEOUT {
            let _ = child.kill();
            let _ = child.wait();
            break None;
        }
        thread::sleep(Duration::from_millis(10));
    };
    let text = fs::read_to_string(&output).unwrap_or_default();
    let _ = fs::remove_file(&output);
    println!(
        "{name}, {shards} shard(s), {:.1} s: {}",
        started.elapsed().as_secs_f32(),
        text.trim_end()
    );
    let status =
        status.unwrap_or_else(|| panic!("{name} did not end in {SCRIPT_TIMEOUT:?}: {text}"));
    assert!(
        status.success(),
        "{name} with {shards} shard(s): {status}\n{text}\nserver: {}",
        server.log()
    );
    assert!(text.contains(": ok"), "{name} ended without its last line:\n{text}");
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
    run_plain("redis-cli", "redis-cli", || shell("redis_cli.sh"));
}

#[test]
fn redis_cli_cluster() {
    run("redis-cli cluster", "redis-cli", || shell("redis_cli.sh"), 2, true);
}

#[test]
fn redis_benchmark() {
    run_plain("redis-benchmark", "redis-benchmark", || shell("redis_benchmark.sh"));
}

#[test]
fn redis_benchmark_cluster() {
    run("redis-benchmark cluster", "redis-benchmark", || shell("redis_benchmark.sh"), 2, true);
}
