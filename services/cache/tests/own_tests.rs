//! The own tests of redis-py and of fakeredis, from their source archives, against our server.
//!
//! What: `clients/own_tests/own_tests.py` runs those that pass on redis-server 7.0.15, as `SUITE.baseline` lists
//! them; what does not pass here is in `SUITE.exceptions` with its reason, and nothing else may fail. With
//! `OWN_TESTS=whole`, as `make redis-py` and `make fakeredis` set it, those that take long run too; else, on two shards
//! also those are left out that sleep for long over what does not depend on the number of shards. One shard and two run
//! side by side: the suites mostly sleep.
//! Next: `testing::live` for how a script is run; the script for how its lists are made.

#![expect(clippy::disallowed_methods, reason = "how much is run is chosen from outside")]

mod common;

use std::time::Duration;

use common::live::{CLIENTS, run};
use testing::live::skip;

fn own_tests(suite: &str) {
    let whole = std::env::var("OWN_TESTS").as_deref() == Ok("whole");
    if !CLIENTS.installed().join(format!("{suite}-suite/source")).exists() {
        skip(suite, "its source archive is missing");
        return;
    }
    let live = || {
        let live = CLIENTS.python(&format!("{suite}-suite"), "own_tests/own_tests.py");
        live.within(Duration::from_secs(if whole { 1200 } else { 300 }))
    };
    if whole {
        run(suite, live(), 1, &[suite], &[]);
        return run(suite, live(), 2, &[suite], &["--several"]);
    }
    std::thread::scope(|scope| {
        scope.spawn(|| run(suite, live(), 2, &[suite], &["--several", "--slice"]));
        run(suite, live(), 1, &[suite], &["--slice"]);
    });
}

#[test]
fn redis_py() {
    own_tests("redis-py");
}

#[test]
fn fakeredis() {
    own_tests("fakeredis");
}
