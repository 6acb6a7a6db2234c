//! Recorded hosts: what `check` and `apply --dry-run` say of each, and that what is applied can be taken back to the byte.
//!
//! The files in `golden/` are what a reader of a report sees: read them when they change. Next: `trees/desktop.tree`.

#![forbid(unsafe_code)]

mod common;

use common::{Host, golden, result, tune};

/// Hosts, with the profiles that fit them, and the exit codes of `check`, `apply`, and `check` after it.
const CASES: &[(&str, &str, [i32; 3])] = &[
    ("desktop", "latency", [2, 3, 2]),
    ("desktop", "bench", [2, 3, 2]),
    ("numa", "latency", [2, 0, 0]),
    ("ena", "throughput", [2, 3, 2]),
    ("mlx5", "throughput", [2, 0, 0]),
    ("nvme", "io", [2, 0, 0]),
    ("container", "container", [4, 4, 4]),
    ("container", "latency", [4, 4, 4]),
    ("container-v1", "container", [2, 0, 0]),
    ("arm64", "bench", [2, 0, 0]),
];

#[test]
fn reports_are_as_recorded() {
    for (name, profile, [check, ..]) in CASES {
        let host = Host::unpack(name);
        let before = host.snapshot();
        let (code, text) = host.run(&["check", "--profile", profile]);
        golden(&format!("{name}.{profile}.check.txt"), &text);
        assert_eq!(code, *check, "check of {name} for {profile}");
        let (code, text) = host.run(&["apply", "--dry-run", "--profile", profile]);
        golden(&format!("{name}.{profile}.apply.txt"), &text);
        assert_eq!(code, *check, "dry run of {name} for {profile}");
        assert!(host.snapshot() == before, "{name}: a dry run has written");
        assert!(!host.journal().exists());
    }
}

#[test]
fn what_is_applied_is_taken_back_to_the_byte() {
    for (name, profile, [_, apply, after]) in CASES {
        let host = Host::unpack(name);
        let before = host.snapshot();
        let (code, text) = host.run(&["apply", "--profile", profile]);
        assert_eq!(code, *apply, "{name}: {text}");
        let (code, text) = host.run(&["check", "--profile", profile]);
        assert_eq!(code, *after, "{name}: {text}");
        assert_eq!(host.snapshot() == before, *apply == 4, "{name}: {text}");

        let times = host.times();
        let (code, text) = host.run(&["apply", "--profile", profile]);
        assert_eq!(code, if *apply == 0 { 0 } else { 4 }, "{name}: {text}");
        assert!(!text.contains("\nwritten"), "{name}: written twice:\n{text}");
        assert!(host.times() == times, "{name}: the second time has written");

        let (code, text) = host.run(&["revert"]);
        assert_eq!(code, 0, "{name}: {text}");
        assert!(host.snapshot() == before, "{name} is not as before:\n{text}");
        assert!(!host.journal().exists(), "{name}: something is left in the journal");
        assert_eq!(host.run(&["revert"]).0, 0, "{name}: nothing to do");
    }
}

#[test]
fn two_profiles_after_each_other_are_taken_back_at_once() {
    let host = Host::unpack("numa");
    let before = host.snapshot();
    for profile in ["latency", "throughput", "io", "bench"] {
        let (code, text) = host.run(&["apply", "--profile", profile]);
        assert_eq!(code, 0, "{profile}: {text}");
    }
    assert_eq!(host.run(&["revert"]).0, 0);
    assert!(host.snapshot() == before);
}

#[test]
fn exports_are_as_recorded() {
    for (name, profile, format) in [
        ("numa", "latency", "sysctl"),
        ("numa", "latency", "tuned"),
        ("numa", "latency", "cmdline"),
        ("nvme", "io", "cmdline"),
        ("mlx5", "throughput", "systemd"),
    ] {
        let host = Host::unpack(name);
        let (code, text) = host.run(&["export", "--profile", profile, "--format", format]);
        assert_eq!(code, 0, "{text}");
        golden(&format!("{name}.{profile}.{format}.txt"), &text);
    }
}

/// Compares what was printed line by line, so that a failure can be read.
fn same(name: &str, one: &(i32, String), other: &(i32, String)) {
    assert_eq!(one.0, other.0, "{name}: exit codes");
    for (one, other) in one.1.lines().zip(other.1.lines()) {
        assert_eq!(one, other, "{name}");
    }
    assert_eq!(one.1.len(), other.1.len(), "{name}");
}

#[test]
fn a_recorded_host_is_checked_as_the_one_it_was_recorded_on() {
    for (name, profile, _) in CASES {
        let host = Host::unpack(name);
        let (code, text) = host.run(&["record"]);
        assert_eq!(code, 0, "{text}");
        let copy = Host::of_text(name, &text);
        for args in
            [&["check", "--profile", profile][..], &["apply", "--dry-run", "--profile", profile]]
        {
            same(name, &host.run(args), &copy.run(args));
        }
        same(name, &(0, text), &copy.run(&["record"]));
    }
}

#[test]
fn this_host_is_recorded_and_checked_as_it_is() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: only root may write a host's settings, and everybody those of a copy");
        return;
    }
    let this = |args: &[&str]| result(&tune(args).output().expect("it starts"));
    let look = |profile: &str| {
        let (code, text) = this(&["record"]);
        assert_eq!(code, 0, "{text}");
        let copy = Host::of_text("this", &text);
        let args = ["check", "--profile", profile];
        (this(&args), copy.run(&args), copy)
    };
    for profile in ["throughput", "io", "bench", "container"] {
        // Other tests change settings of this host for a moment.
        let mut looks = (0..5).map(|_| look(profile));
        if !looks.by_ref().any(|(here, there, _)| here == there) {
            let (here, there, _) = look(profile);
            same(profile, &here, &there);
        }
    }
    let (.., copy) = look("latency");
    let before = copy.snapshot();
    let (_, text) = copy.run(&["apply", "--profile", "throughput"]);
    assert_eq!(copy.run(&["revert"]).0, 0);
    assert!(copy.snapshot() == before, "{text}");
}

#[test]
fn json_has_what_the_table_has() {
    let host = Host::unpack("ena");
    let (code, text) = host.run(&["check", "--json", "--profile", "throughput"]);
    assert_eq!(code, 2);
    let json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!((&json["version"], &json["profile"]), (&1.into(), &"throughput".into()));
    assert_eq!(json["host"]["vm"], "Amazon EC2");
    let findings = json["findings"].as_array().expect("a list");
    let one = findings.iter().find(|one| one["knob"] == "cpu.clocksource").expect("it is there");
    assert_eq!(
        (&one["current"], &one["desired"], &one["status"]),
        (&"xen".into(), &"tsc".into(), &"drift".into())
    );
    let (_, text) = host.run(&["apply", "--json", "--dry-run", "--profile", "throughput"]);
    let json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let changes = json["changes"].as_array().expect("a list");
    let irqs: Vec<_> = changes.iter().filter(|one| one["knob"] == "irq.affinity").collect();
    assert_eq!(irqs.len(), 8);
    assert_eq!(irqs.iter().filter(|one| one["done"] == "would-write").count(), 1);
}
