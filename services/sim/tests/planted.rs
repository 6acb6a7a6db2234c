//! Bugs planted on purpose are found, each by the check that is there for its kind: without that,
//! nobody would know whether a clean run means anything.
//!
//! Each runs in a process of its own, because memory that is freed early may end it in any way;
//! under AddressSanitizer it does.

use std::process::Command;

/// Runs a few seeds with a bug planted; what the process said before it failed.
fn fails_with(plant: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_sim"))
        .args(["--seeds", "20", "--jobs", "1"])
        .args(plant)
        .output()
        .expect("the simulation runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "{plant:?} was not found: {said}");
    said
}

fn replays(said: &str) -> bool {
    said.lines().any(|line| line.starts_with("sim --service ") && line.contains(" --seed "))
}

#[test]
fn a_buffer_freed_while_in_flight_is_found() {
    let said = fails_with(&["--plant", "early-free"]);
    // The sanitizer sees the read itself; without it, the allocator's next use of the memory
    // changes what the simulated kernel remembered, or collides with what it holds.
    let sanitizer = said.contains("AddressSanitizer: heap-use-after-free");
    let registry = ["changed while in flight", "will write", "would write"];
    let model = registry.iter().any(|what| said.contains(what)) && replays(&said);
    assert!(sanitizer || model, "{said}");
}

#[test]
fn a_doorbell_that_is_not_heard_is_found() {
    let said = fails_with(&["--plant", "drop-bells"]);
    assert!(said.contains("lost wake-up") && replays(&said), "{said}");
}

#[test]
fn a_sleep_without_looking_once_more_is_found() {
    let said = fails_with(&["--plant", "blind-park"]);
    assert!(said.contains("lost wake-up") && replays(&said), "{said}");
}

#[test]
fn an_acknowledgement_before_the_sync_is_found() {
    let said = fails_with(&["--service", "broker", "--plant", "early-ack"]);
    let lost = ["was acknowledged at", "is gone", "a gap from", "stuck in", "and now"];
    assert!(lost.iter().any(|what| said.contains(what)) && replays(&said), "{said}");
}

#[test]
fn a_commit_that_is_acknowledged_before_the_sync_is_found() {
    let said = fails_with(&["--service", "broker", "--plant", "stale-commit"]);
    let lost = ["was committed for", "is committed for", "was assigned before", "no leader of"];
    assert!(lost.iter().any(|what| said.contains(what)) && replays(&said), "{said}");
}

#[test]
fn a_bad_batch_that_is_served_is_found() {
    let said = fails_with(&["--service", "broker", "--plant", "keep-bad-sealed"]);
    let bad = [
        "a fetched batch: Checksum",
        "is above the high watermark",
        "a gap from",
        "was read at",
        "error 2 in a fetch",
        "stuck in",
    ];
    assert!(bad.iter().any(|what| said.contains(what)) && replays(&said), "{said}");
}

#[test]
fn the_same_seeds_hold_without_a_bug() {
    for service in ["cache", "broker"] {
        let output = Command::new(env!("CARGO_BIN_EXE_sim"))
            .args(["--service", service, "--seeds", "20", "--jobs", "1"])
            .output()
            .expect("the simulation runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{service}: {said}");
    }
}
