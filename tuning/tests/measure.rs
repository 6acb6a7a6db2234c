//! `tune measure` with commands whose figure is the setting itself, so that what is to come out is known exactly.

#![forbid(unsafe_code)]

mod common;

use std::fs;
use std::path::PathBuf;
use std::process::Output;

use common::Host;

const SETTING: &str = "/proc/sys/vm/swappiness";

/// Runs it: options come before `--`, and the command is a script.
fn run(host: &Host, options: &[&str], script: &str) -> Output {
    let mut command = host.command(&["measure", "vm.swappiness"]);
    command.args(options).args(["--", "/bin/sh", "-c", script]);
    // The script is the user's, who has a PATH.
    command.env("PATH", "/usr/bin:/bin").output().expect("it starts")
}

fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).expect("text")
}

/// A script that notes what the setting is, and prints it as the last line.
fn script(host: &Host) -> (String, PathBuf) {
    let log = host.journal().with_file_name("log");
    let script =
        format!("echo some words; cat {} | tee -a {}", host.file(SETTING).display(), log.display());
    (script, log)
}

#[test]
fn blocks_are_a_b_b_a_and_everything_is_as_before() {
    let host = Host::unpack("numa");
    let before = host.snapshot();
    let (script, log) = script(&host);
    let text = stdout(&run(&host, &["--blocks", "4"], &script));
    assert!(text.contains("A 60 (median 60), B 10 (median 10), 8 pairs, 1 places"), "{text}");
    assert!(text.contains("B / A = 0.1667, 95 % interval 0.1667 to 0.1667"), "{text}");
    assert!(text.contains("B differs by -83.3 %"), "{text}");
    assert_eq!(fs::read_to_string(log).expect("a log"), "60\n10\n10\n60\n".repeat(4));
    assert!(host.snapshot() == before);
    assert!(!host.journal().exists());
}

#[test]
fn the_same_twice_shows_no_difference() {
    let host = Host::unpack("numa");
    let (script, log) = script(&host);
    let text = stdout(&run(&host, &["--same", "--blocks", "1"], &script));
    assert!(text.contains("no difference shown"), "{text}");
    assert_eq!(fs::read_to_string(log).expect("a log"), "60\n".repeat(4));
}

#[test]
fn another_value_a_figure_in_a_line_and_json() {
    let host = Host::unpack("numa");
    let script = format!("echo took $(cat {}) ms in all", host.file(SETTING).display());
    let options = ["--value", "30", "--regex", "took ([0-9]+) ms", "--json", "--blocks", "2"];
    let json: serde_json::Value =
        serde_json::from_str(&stdout(&run(&host, &options, &script))).expect("JSON");
    assert_eq!((&json["a"], &json["b"]), (&"60".into(), &"30".into()));
    assert_eq!(json["result"]["ratio"], 0.5);
    assert_eq!(json["pairs"].as_array().expect("a list").len(), 4);
}

#[test]
fn a_figure_in_json_as_bench_load_prints_it() {
    let host = Host::unpack("numa");
    let setting = host.file(SETTING);
    let script = format!(
        r#"echo '{{"rate": 1, "latency": {{"p99_ns": '$(cat {})'}}, "limit_why": null}}'"#,
        setting.display()
    );
    let options = ["--field", "latency.p99_ns", "--json", "--blocks", "2"];
    let json: serde_json::Value =
        serde_json::from_str(&stdout(&run(&host, &options, &script))).expect("JSON");
    assert_eq!((&json["result"]["a"], &json["result"]["b"]), (&60.0.into(), &10.0.into()));
    for (field, why) in [("latency.p98_ns", "there are p99_ns"), ("limit_why", "is no number")] {
        let output = run(&host, &["--field", field], &script);
        assert_eq!(output.status.code(), Some(1));
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(text.contains(why), "{text}");
        assert_eq!(fs::read_to_string(&setting).expect("it is there"), "60\n");
    }
}

#[test]
fn kept_and_taken_back() {
    let host = Host::unpack("numa");
    let before = host.snapshot();
    let (script, _) = script(&host);
    stdout(&run(&host, &["--keep", "--blocks", "1"], &script));
    assert_eq!(fs::read_to_string(host.file(SETTING)).expect("it is there"), "10\n");
    assert_eq!(host.run(&["revert"]).0, 0);
    assert!(host.snapshot() == before);
}

#[test]
fn after_an_apply_its_journal_stays() {
    let host = Host::unpack("numa");
    let before = host.snapshot();
    assert_eq!(host.run(&["apply", "--profile", "io"]).0, 0);
    let (applied, journal) = (host.snapshot(), fs::read(host.journal()).expect("a journal"));
    let (script, _) = script(&host);
    let text = stdout(&run(&host, &["--value", "100", "--blocks", "1"], &script));
    assert!(text.contains("A 10 (median 10), B 100"), "{text}");
    assert!(host.snapshot() == applied);
    assert_eq!(fs::read(host.journal()).expect("a journal"), journal);
    assert_eq!(host.run(&["revert"]).0, 0);
    assert!(host.snapshot() == before);
}

#[test]
fn a_command_that_fails_leaves_everything_as_before() {
    let host = Host::unpack("numa");
    let before = host.snapshot();
    let fails_changed = format!("v=$(cat {}); echo $v; [ $v = 60 ]", host.file(SETTING).display());
    for (script, why) in [
        (&*fails_changed, "exit status: 1"),
        ("echo 12 apples", "is no number"),
        ("true", "it printed no figure"),
    ] {
        let output = run(&host, &[], script);
        assert_eq!(output.status.code(), Some(1));
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(text.contains(why), "{text}");
        assert!(host.snapshot() == before, "{why}");
        assert!(!host.journal().exists(), "{why}");
    }
}

#[test]
fn killed_while_it_is_changed() {
    let host = Host::unpack("numa");
    let before = host.snapshot();
    let kills =
        format!("v=$(cat {}); [ $v = 60 ] || kill -9 $PPID; echo $v", host.file(SETTING).display());
    let output = run(&host, &[], &kills);
    assert_eq!(output.status.code(), None, "it was killed");
    assert_eq!(fs::read_to_string(host.file(SETTING)).expect("it is there"), "10\n");
    let (code, text) = host.run(&["revert"]);
    assert_eq!(code, 0, "{text}");
    assert!(host.snapshot() == before, "{text}");
}

#[test]
fn interrupted_while_it_is_changed() {
    let host = Host::unpack("numa");
    let before = host.snapshot();
    let ends = format!(
        "v=$(cat {}); [ $v = 60 ] || kill -TERM $PPID; echo $v",
        host.file(SETTING).display()
    );
    let output = run(&host, &[], &ends);
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("interrupted; everything is as before"), "{text}");
    assert!(!text.contains("B 10\nblock 1 of 10: B 10"), "it went on: {text}");
    assert!(host.snapshot() == before);
    assert!(!host.journal().exists());
}

#[test]
fn what_tune_does_not_write_is_not_measured() {
    let host = Host::unpack("mlx5");
    let mut command = host.command(&["measure", "kernel.io_uring_disabled"]);
    let output = command.args(["--", "/bin/true"]).output().expect("it starts");
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("tune does not write it"), "{text}");
}
