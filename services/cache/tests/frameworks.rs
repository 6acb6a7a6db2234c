//! What people build on Redis, unmodified and as it comes, against our server.
//!
//! What: queues of jobs, caches, sessions, locks, limits and messages between servers, each doing for a few
//! seconds what its users do, over the shared port of two shards. The scripts in `clients/frameworks/` hold the
//! assertions and run against any server.
//! Next: `live_clients.rs` for the clients below them, `own_tests.rs` for the clients' own tests.

mod common;

use common::live::{CLIENTS, run};

fn python(name: &str, environment: &str, script: &str) {
    let live = CLIENTS.python(environment, &format!("frameworks/{script}"));
    run(name, live, 2, &[], &[]);
}

fn node(name: &str, script: &str) {
    let live = CLIENTS.node("frameworks-node", name, &format!("frameworks/{script}"));
    run(name, live, 2, &[], &[]);
}

#[test]
fn bullmq() {
    node("bullmq", "bullmq.js");
}

#[test]
fn socket_io() {
    node("socket.io", "socket_io.js");
}

#[test]
fn rate_limiter_flexible() {
    node("rate-limiter-flexible", "rate_limiter_flexible.js");
}

#[test]
fn redlock() {
    node("redlock", "redlock.js");
}

#[test]
fn connect_redis() {
    node("connect-redis", "connect_redis.js");
}

#[test]
fn celery() {
    python("celery", "celery", "celery_tasks.py");
}

#[test]
fn rq() {
    python("rq", "frameworks-python", "rq_jobs.py");
}

#[test]
fn huey() {
    python("huey", "frameworks-python", "huey_tasks.py");
}

#[test]
fn dramatiq() {
    python("dramatiq", "frameworks-python", "dramatiq_actors.py");
}

#[test]
fn django_redis() {
    python("django-redis", "frameworks-python", "django_cache.py");
}

#[test]
fn channels_redis() {
    python("channels-redis", "frameworks-python", "channels_layers.py");
}

#[test]
fn arq() {
    python("arq", "arq", "arq_jobs.py");
}
