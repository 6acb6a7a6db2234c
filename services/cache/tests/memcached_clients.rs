//! Other people's clients of memcached's protocol, unmodified, against our server.
//!
//! What: pymemcache's own integration tests and memccapable, libmemcached's conformance test of the text protocol,
//! each against one shard and against two.
//! Next: `testing::live` for how a script is run, and what happens to one whose client is missing.

mod common;

use common::server::{Server, Turn, free_ports, local};
use testing::live::{Clients, Live};

const CLIENTS: Clients = Clients {
    scripts: concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients"),
    scratch: env!("CARGO_TARGET_TMPDIR"),
};

/// Runs a client's script against a fresh server, of one shard and of two.
fn run(name: &str, make: impl Fn() -> Live) {
    for shards in [1, 2] {
        let live = make();
        if !live.is_there(name) {
            return;
        }
        let _turn = Turn::shared();
        let port = free_ports(shards + 3);
        let address = local(port + shards + 2).to_string();
        let server = Server::cache_at(port, shards, &["--memcached", &address]);
        CLIENTS.run(&format!("{name}, {shards} shard(s)"), live, &[address], || server.log());
        assert!(server.answers(), "the server is gone after {name}: {}", server.log());
    }
}

#[test]
fn pymemcache() {
    run("pymemcache", || CLIENTS.python("pymemcache", "pymemcache_own.py"));
}

#[test]
fn memccapable() {
    run("memccapable", || CLIENTS.shell("memccapable", "memccapable.sh"));
}
