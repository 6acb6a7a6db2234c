//! Other people's programs against our server: where their scripts are.
//!
//! Next: `testing::live` for how a script is run.

use testing::live::{Clients, Live};

use super::server::{Server, Turn};

pub(crate) const CLIENTS: Clients = Clients {
    scripts: concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients"),
    scratch: env!("CARGO_TARGET_TMPDIR"),
};

/// Runs a script against a fresh server of this many shards, over their shared port; what comes before the
/// address among its arguments, and behind it.
pub(crate) fn run(name: &str, live: Live, shards: u16, before: &[&str], behind: &[&str]) {
    if !live.is_there(name) {
        return;
    }
    let _turn = Turn::shared();
    let server = Server::cache(shards);
    let mut arguments: Vec<String> = before.iter().map(ToString::to_string).collect();
    arguments.push(server.address().to_string());
    arguments.extend(behind.iter().map(ToString::to_string));
    let name = format!("{name}, {shards} shard(s)");
    CLIENTS.run(&name, live, &arguments, || server.log());
    assert!(server.answers(), "the server is gone after {name}: {}", server.log());
}
