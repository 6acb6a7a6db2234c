//! System calls per request on a saturated shard: a gate that does not depend on the machine's speed.
//!
//! Client and server share one core, so the server finds all requests of a round waiting when it
//! runs, as a saturated server does. Invariant asserted: at most 0.10 system calls per request at
//! pipeline 1 (a server with one read and one write a request needs 2). Where next: `bench cache`
//! for the same figure under a load generator.

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use common::server::{Server, Turn, local, must};

const CONNECTIONS: usize = 200;
const ROUNDS: usize = 150;
const SYSCALLS_PER_REQUEST_MAX: f64 = 0.10;

/// Sum of the named series of an admin port's `/metrics`.
fn metric(port: u16, names: &[&str]) -> f64 {
    let mut admin = must(TcpStream::connect(local(port)), "connect to the admin port");
    must(admin.write_all(b"GET /metrics HTTP/1.1\r\nHost: test\r\n\r\n"), "ask for metrics");
    let mut text = String::new();
    must(admin.read_to_string(&mut text), "read metrics");
    let series = text.lines().filter(|line| names.iter().any(|name| line.starts_with(name)));
    series.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

fn pin_to_first_cpu() {
    let allowed = must(rustix::thread::sched_getaffinity(None).map_err(Into::into), "affinity");
    let first = (0..rustix::thread::CpuSet::MAX_CPU).find(|&cpu| allowed.is_set(cpu)).unwrap_or(0);
    let mut set = rustix::thread::CpuSet::new();
    set.set(first);
    must(rustix::thread::sched_setaffinity(None, &set).map_err(Into::into), "pin to a core");
}

#[test]
fn a_saturated_shard_makes_few_system_calls_per_request() {
    let _turn = Turn::alone();
    pin_to_first_cpu();
    // The server inherits the one core.
    let server = Server::cache(1);
    let admin = server.address().port() + 2;
    let request = b"*2\r\n$3\r\nGET\r\n$3\r\nkey\r\n";
    let reply = b"$5\r\nvalue\r\n";
    let mut client = server.client();
    must(client.call(&["SET", "key", "value"]), "store the key");
    let mut connections: Vec<TcpStream> = (0..CONNECTIONS)
        .map(|_| {
            let stream = must(TcpStream::connect(server.address()), "connect");
            must(stream.set_nodelay(true), "set TCP_NODELAY");
            must(stream.set_read_timeout(Some(Duration::from_secs(10))), "set a timeout");
            stream
        })
        .collect();
    let names = ["engine_enters_total", "engine_other_syscalls_total"];
    let before = metric(admin, &names);
    let mut buffer = [0; 64];
    for _ in 0..ROUNDS {
        for stream in &mut connections {
            must(stream.write_all(request), "send a request");
        }
        for stream in &mut connections {
            must(stream.read_exact(&mut buffer[..reply.len()]), "receive a reply");
            assert_eq!(&buffer[..reply.len()], reply);
        }
    }
    let requests = (CONNECTIONS * ROUNDS) as f64;
    let per_request = (metric(admin, &names) - before) / requests;
    println!("{per_request:.4} system calls per request");
    assert!(
        per_request <= SYSCALLS_PER_REQUEST_MAX,
        "{per_request:.3} system calls per request, at most {SYSCALLS_PER_REQUEST_MAX} wanted"
    );
}
