//! The running kernel, in a network namespace of the test's own: applied, not applied twice, reverted, and nothing of it seen outside.
//!
//! Needs root and `ip`; skipped with the reason otherwise. `ip netns exec` mounts a `/sys` of the namespace, as for every user.

#![forbid(unsafe_code)]

mod common;

use std::fs;
use std::process::Command;

use common::{Dir, result};

const SOMAXCONN: &str = "/proc/sys/net/core/somaxconn";
const RPS: &str = "/sys/class/net/tune0/queues/rx-0/rps_cpus";
const BACKLOG: &str = "/proc/sys/net/ipv4/tcp_max_syn_backlog";

/// A namespace with a pair of devices, gone with this.
struct Netns(String);

impl Netns {
    fn new() -> Result<Self, String> {
        let name = format!("tune-{}", std::process::id());
        let ip = |args: &[&str]| {
            let output =
                Command::new("ip").args(args).output().map_err(|error| format!("ip: {error}"))?;
            let text = String::from_utf8_lossy(&output.stderr).into_owned();
            if output.status.success() {
                Ok(())
            } else {
                Err(format!("ip {}: {text}", args.join(" ")))
            }
        };
        ip(&["netns", "add", &name])?;
        let netns = Self(name);
        let name = &*netns.0;
        ip(&["-n", name, "link", "add", "tune0", "type", "veth", "peer", "name", "tune1"])?;
        for (path, value) in [(SOMAXCONN, "128"), (BACKLOG, "256"), (RPS, "1")] {
            let (code, text) = netns.run(&["/bin/sh", "-c", &format!("echo {value} > {path}")]);
            if code != 0 {
                return Err(format!("write {path}: {text}"));
            }
        }
        Ok(netns)
    }

    /// Runs something in it.
    fn run(&self, command: &[&str]) -> (i32, String) {
        let mut ip = Command::new("ip");
        ip.args(["netns", "exec", &self.0]).args(command);
        result(&ip.output().expect("it starts"))
    }

    fn read(&self, path: &str) -> String {
        let (code, text) = self.run(&["cat", path]);
        assert_eq!(code, 0, "{text}");
        text.trim().to_owned()
    }

    fn values(&self) -> [String; 3] {
        [SOMAXCONN, BACKLOG, RPS].map(|path| self.read(path))
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.0]).status();
    }
}

#[test]
fn applied_and_reverted_in_a_namespace_of_its_own() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: a network namespace needs root");
        return;
    }
    let netns = match Netns::new() {
        Ok(netns) => netns,
        Err(reason) => {
            println!("skipped: {reason}");
            return;
        }
    };
    let dir = Dir::new("netns");
    let journal = dir.path().join("journal.json");
    let journal = journal.to_str().expect("text");
    let tune = env!("CARGO_BIN_EXE_tune");
    let apply = [
        tune,
        "apply",
        "net.core.somaxconn",
        "net.ipv4.tcp_max_syn_backlog",
        "nic.rps_cpus",
        "--profile",
        "throughput",
        "--host-too",
        "--journal",
        journal,
    ];
    let outside = [SOMAXCONN, BACKLOG].map(|path| fs::read_to_string(path).expect("readable"));
    let before = netns.values();
    assert_eq!(before[..2], ["128", "256"]);

    let (code, text) = netns.run(&apply);
    assert_eq!(code, 0, "{text}");
    let after = netns.values();
    assert_eq!(after[..2], ["4096", "4096"], "{text}");
    assert!(after[2] != before[2], "{text}");
    let is_same =
        || outside == [SOMAXCONN, BACKLOG].map(|path| fs::read_to_string(path).expect("readable"));
    assert!(is_same(), "the host has changed");

    let (code, text) = netns.run(&apply);
    assert_eq!(code, 0, "{text}");
    assert!(!text.contains("written"), "{text}");

    // From outside it is another place of the same path, and must not be written.
    let (code, text) = result(
        &Command::new(tune).args(["revert", "--journal", journal]).output().expect("it starts"),
    );
    assert_eq!(code, 3, "{text}");
    assert!(text.contains("elsewhere") && text.contains("run it there"), "{text}");
    assert!(is_same(), "the host has changed");

    let (code, text) = netns.run(&[tune, "revert", "--journal", journal]);
    assert_eq!(code, 0, "{text}");
    assert_eq!(netns.values(), before, "{text}");
    assert!(is_same(), "the host has changed");
    assert!(!fs::exists(journal).expect("readable"));
}
