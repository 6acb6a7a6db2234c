//! The running kernel, in a network namespace of the test's own: applied, not applied twice, reverted, and nothing of it seen outside.
//!
//! Needs root and `ip`; skipped with the reason otherwise. `ip netns exec` mounts a `/sys` of the namespace, as for every user.

#![forbid(unsafe_code)]

mod common;

use std::fs;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use common::{Dir, result};

const SOMAXCONN: &str = "/proc/sys/net/core/somaxconn";
const RPS: &str = "/sys/class/net/tune0/queues/rx-0/rps_cpus";
const BACKLOG: &str = "/proc/sys/net/ipv4/tcp_max_syn_backlog";

/// A namespace with a pair of devices, gone with this.
struct Netns(String);

impl Netns {
    /// One for a test; the reason why there is none is printed.
    fn of(test: &str) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: a network namespace needs root");
            return None;
        }
        Self::new(test).inspect_err(|reason| println!("skipped: {reason}")).ok()
    }

    fn new(test: &str) -> Result<Self, String> {
        let name = format!("tune-{test}-{}", std::process::id());
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

    /// Runs `tune` in it, with a file as its journal and nothing in its environment.
    fn tune(&self, args: &[&str], journal: &str, behind: &[&str]) -> (i32, String) {
        let mut command = vec!["env", "-i", env!("CARGO_BIN_EXE_tune")];
        command.extend(args);
        if args[0] != "check" {
            command.extend(["--journal", journal]);
        }
        command.extend(behind);
        let mut ip = Command::new("ip");
        let output = ip.args(["netns", "exec", &self.0]).args(command).output().expect("it starts");
        let mut text = String::from_utf8(output.stdout).expect("text");
        text.push_str(&String::from_utf8_lossy(&output.stderr));
        (output.status.code().expect("it ends"), text)
    }

    fn ip(&self, args: &[&str]) {
        let status = Command::new("ip").args(["-n", &self.0]).args(args).status();
        assert!(status.is_ok_and(|status| status.success()), "ip {args:?}");
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
    let Some(netns) = Netns::of("apply") else { return };
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

/// The `current` of each place of a knob, by the place.
fn values(netns: &Netns, knob: &str) -> Vec<(String, String)> {
    let (_, text) = netns.tune(&["check", knob, "--profile", "throughput", "--json"], "", &[]);
    let json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let found = json["findings"].as_array().expect("a list");
    let of = |one: &serde_json::Value| {
        let text = |name: &str| one[name].as_str().map(str::to_owned);
        Some((text("instance")?, text("current")?))
    };
    found.iter().filter_map(of).collect()
}

/// Changes a knob for good, with a way back.
fn change(netns: &Netns, knob: &str, value: &str, journal: &str) -> (i32, String) {
    let args = ["measure", knob, "--value", value, "--keep", "--blocks", "1"];
    netns.tune(&args, journal, &["--", "/bin/echo", "1"])
}

#[test]
fn napi_instances_are_set_one_by_one_and_taken_back() {
    let Some(netns) = Netns::of("napi") else { return };
    let dir = Dir::new("napi");
    let journal = dir.path().join("journal.json");
    let journal = journal.to_str().expect("text");
    for device in ["tune0", "tune1"] {
        netns.ip(&["link", "set", device, "up"]);
    }
    // One end of a pair has instances only while it joins packets.
    assert!(values(&netns, "napi.defer_hard_irqs").is_empty());
    let was = values(&netns, "nic.gro");
    assert_eq!(was.len(), 2, "{was:?}");
    let (code, text) = change(&netns, "nic.gro", "1", journal);
    assert_eq!(code, 0, "{text}");
    assert!(values(&netns, "nic.gro").iter().all(|(_, value)| value == "1"));

    let settings = [
        ("napi.gro_flush_timeout", "20000"),
        ("napi.defer_hard_irqs", "2"),
        ("napi.irq_suspend_timeout", "20000000"),
    ];
    let before = settings.map(|(knob, _)| values(&netns, knob));
    if before[0].is_empty() {
        println!("skipped: this kernel keeps no settings of NAPI instances: Linux 6.13 does");
        return;
    }
    assert_eq!(before.each_ref().map(Vec::len), [2; 3], "{before:?}");
    assert!(before[0][0].0.starts_with("tune0 napi-"), "{before:?}");
    for (knob, value) in settings {
        let (code, text) = change(&netns, knob, value, journal);
        assert_eq!(code, 0, "{text}");
        assert!(values(&netns, knob).iter().all(|(_, now)| now == value), "{knob}");
    }
    // What the kernel does not take is an error and changes nothing: the largest is that of an i32.
    let (code, text) = change(&netns, "napi.defer_hard_irqs", "2147483648", journal);
    assert_eq!(code, 1, "{text}");
    assert!(values(&netns, "napi.defer_hard_irqs").iter().all(|(_, now)| now == "2"), "{text}");

    let (code, text) = netns.tune(&["revert"], journal, &[]);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("8 restored"), "{text}");
    assert_eq!(values(&netns, "nic.gro"), was);
    assert!(!fs::exists(journal).expect("readable"));
}

#[test]
fn an_instance_that_was_made_anew_is_not_written() {
    let Some(netns) = Netns::of("anew") else { return };
    let dir = Dir::new("anew");
    let journal = dir.path().join("journal.json");
    let journal = journal.to_str().expect("text");
    for device in ["tune0", "tune1"] {
        netns.ip(&["link", "set", device, "up"]);
    }
    assert_eq!(change(&netns, "nic.gro", "1", journal).0, 0);
    if values(&netns, "napi.defer_hard_irqs").is_empty() {
        println!("skipped: this kernel keeps no settings of NAPI instances: Linux 6.13 does");
        return;
    }
    assert_eq!(change(&netns, "napi.defer_hard_irqs", "2", journal).0, 0);
    netns.ip(&["link", "del", "tune0"]);
    let (code, text) = netns.tune(&["revert"], journal, &[]);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("4 gone by itself"), "{text}");
}

#[test]
fn devices_of_another_namespace_are_not_taken_for_own_ones() {
    let Some(netns) = Netns::of("foreign") else { return };
    let dir = Dir::new("foreign");
    let journal = dir.path().join("journal.json");
    let journal = journal.to_str().expect("text");
    let tune = env!("CARGO_BIN_EXE_tune");
    // Without a /sys of its own, as after `nsenter --net`: the devices in there are those outside.
    let bare = |args: &[&str]| {
        let mut nsenter = Command::new("nsenter");
        nsenter.arg(format!("--net=/run/netns/{}", netns.0)).arg(tune).args(args);
        nsenter.output().ok().map(|output| result(&output))
    };
    let before = netns.values();
    let Some((code, text)) = bare(&["check", "nic.rps_cpus", "--profile", "throughput"]) else {
        println!("skipped: nsenter is not there");
        return;
    };
    assert_eq!(code, 4, "{text}");
    assert!(text.contains("/sys shows the devices of another network namespace"), "{text}");
    let apply = ["apply", "nic.rps_cpus", "--profile", "throughput", "--journal", journal];
    let (code, text) = bare(&apply).expect("it was there");
    assert_eq!(code, 4, "{text}");
    assert!(!fs::exists(journal).expect("readable"), "{text}");

    let (code, text) = netns.tune(&apply[..4], journal, &[]);
    assert_eq!(code, 0, "{text}");
    let after = netns.values();
    assert!(after != before, "{text}");
    // Of the same namespace, and yet not of this /sys.
    let (code, text) = bare(&["revert", "--journal", journal]).expect("it was there");
    assert_eq!(code, 3, "{text}");
    assert!(text.contains("elsewhere"), "{text}");
    assert_eq!(netns.values(), after, "{text}");
    assert_eq!(netns.tune(&["revert"], journal, &[]).0, 0);
    assert_eq!(netns.values(), before);
}

/// The arguments of a short session on loopback.
const GAINS: &[&str] = &["gains", "--blocks", "1"];

#[test]
fn gains_are_measured_and_everything_is_as_before() {
    let Some(netns) = Netns::of("gains") else { return };
    let dir = Dir::new("gains");
    let at = |name: &str| dir.path().join(name).to_str().expect("text").to_owned();
    let (journal, out) = (at("journal.json"), at("gains.json"));
    for device in ["tune0", "tune1", "lo"] {
        netns.ip(&["link", "set", device, "up"]);
    }
    let was = values(&netns, "nic.gro");
    let knobs = ["nic.gro", "napi.defer_hard_irqs", "net.core.busy_poll", "security.mitigations"];
    let args = [GAINS, &["--out", &out, "--json"], &knobs].concat();
    let has_napi = {
        assert_eq!(change(&netns, "nic.gro", "1", &journal).0, 0);
        let has = !values(&netns, "napi.defer_hard_irqs").is_empty();
        // Changes that wait to be taken back are not mixed with a session's.
        let (code, text) = netns.tune(&[GAINS, &["nic.gro"]].concat(), &journal, &[]);
        assert_eq!(code, 4, "{text}");
        assert!(text.contains("tune revert takes them back first"), "{text}");
        assert_eq!(netns.tune(&["revert"], &journal, &[]).0, 0);
        has
    };
    let (code, text) = netns.tune(&args, &journal, &[]);
    assert_eq!(code, 0, "{text}");
    for part in ["it is of the whole host: --host-netns", "never applied, so not measured"] {
        assert!(text.contains(part), "no {part}: {text}");
    }
    let text = fs::read_to_string(&out).expect("results");
    let results = tuning::gains::Results::parse(&text).expect("gains");
    assert_eq!(results.all().len(), if has_napi { 2 } else { 1 }, "{text}");
    let found = results.of("nic.gro").expect("measured");
    assert_eq!((found.a.as_str(), found.b.as_str(), found.pairs), ("0", "1", 2));
    assert!(found.median_a > 0.0 && found.low <= found.ratio && found.ratio <= found.high);
    assert!(!found.differs, "two pairs show nothing: {found:?}");
    if let Some(found) = results.of("napi.defer_hard_irqs") {
        assert_eq!(found.with, ["nic.gro=1", "napi.gro_flush_timeout=20000"]);
    }
    assert_eq!(values(&netns, "nic.gro"), was);
    assert!(!fs::exists(&journal).expect("readable"));
}

#[test]
fn a_session_that_was_killed_is_taken_back() {
    let Some(netns) = Netns::of("killed") else { return };
    let dir = Dir::new("killed");
    let journal = dir.path().join("journal.json");
    let journal = journal.to_str().expect("text");
    netns.ip(&["link", "set", "lo", "up"]);
    let was = netns.values();
    let mut ip = Command::new("ip");
    ip.args(["netns", "exec", &netns.0, env!("CARGO_BIN_EXE_tune"), "gains"]);
    ip.args(["net.ipv4.tcp_max_syn_backlog", "--blocks", "1000", "--journal", journal]);
    let mut child = ip.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts");
    // The value that others are compared with is set first, and stays for a thousand blocks.
    let end = Instant::now() + Duration::from_secs(60);
    while netns.read(BACKLOG) != "128" {
        assert!(Instant::now() < end && child.try_wait().expect("ours").is_none(), "no session");
        sleep(Duration::from_millis(5));
    }
    child.kill().expect("it is there");
    child.wait().expect("it ends");
    assert_eq!(netns.tune(&["revert"], journal, &[]).0, 0);
    assert_eq!(netns.values(), was);
    assert!(!fs::exists(journal).expect("readable"));
}

#[test]
fn gains_are_not_measured_in_the_first_namespace() {
    if !fs::exists("/proc/sys/net/core/netdev_max_backlog").expect("readable") {
        println!("skipped: this is not the first namespace");
        return;
    }
    let output = Command::new(env!("CARGO_BIN_EXE_tune")).args(GAINS).output();
    let (code, text) = result(&output.expect("it starts"));
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("this is the host's: make tune-measure"), "{text}");
}
