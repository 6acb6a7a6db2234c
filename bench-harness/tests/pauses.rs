//! `bench pauses` as a user runs it, for a moment with few keys: every event happens and has its figures, on redis and on
//! our cache where they are there. What it says of latency on a machine that others use is not looked at.

use std::path::PathBuf;
use std::process::{Command, Output};

use bench_harness::pauses::EVENTS;
use bench_harness::peers;
use serde_json::Value;

fn bench(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_bench")).args(args).output().expect("bench starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A folder that goes with the test.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        // It is a temporary folder either way.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn check_peer(name: &str, port: u16) {
    if let Err(error) = peers::find(name).expect("a row").version() {
        println!("skipped: {error:#}");
        return;
    }
    let folder = format!("bench-pauses-{name}-{}", std::process::id());
    let folder = Folder(std::env::temp_dir().join(folder));
    let out = folder.0.to_string_lossy().into_owned();
    let few = ["--keys", "20000", "--expiring", "5000", "--connections", "8"];
    let short = ["--pairs", "1", "--seconds", "2.5", "--host-network"];
    let to = ["--ours", name, "--port", &port.to_string(), "--out", &out];
    let output = bench(&[&["pauses"][..], &few, &short, &to].concat());
    let (said, why) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{said}{why}");
    for file in ["report.html", "samples.csv", "summary.json"] {
        assert!(folder.0.join(file).exists(), "{file}");
    }
    let json = std::fs::read_to_string(folder.0.join("report.json")).expect("it was written");
    let report: Value = serde_json::from_str(&json).expect("it is JSON");
    assert_eq!(report["subject"], "pauses");
    let cells = report["cells"].as_array().expect("cells");
    assert_eq!(cells.len(), EVENTS.len(), "{report}");
    for (cell, row) in cells.iter().zip(EVENTS) {
        let trials = cell["sides"][0]["trials"].as_array().expect("trials");
        assert!(!trials.is_empty(), "{cell}");
        assert!(said.contains(&format!("13 {} ", row.name)), "{said}");
        let figure = |name: &str| trials[0][name].as_f64().unwrap_or(f64::NAN);
        for name in ["peak_per_s", "rate_per_s", "p50_ms", "p99_ms", "p999_ms", "max_ms"] {
            assert!(figure(name) > 0.0, "{name}: {cell}");
        }
        assert!(figure("rate_per_s") < figure("peak_per_s"), "an open loop below the peak: {cell}");
        match row.name {
            "growth" => {
                assert!(figure("event_amount") >= 0.9 * 2.5 * figure("rate_per_s"), "{cell}")
            }
            "expiry" => assert!((figure("event_amount") - 5000.0).abs() < 0.5, "{cell}"),
            "full-sync" => assert!(figure("replica_busy") > 0.0, "{cell}"),
            _ => {}
        }
        assert!(row.name == "quiet" || figure("event_s") > 0.0, "{cell}");
    }
}

#[test]
fn every_event_happens_to_redis() {
    check_peer("redis", 28_100);
}

#[test]
fn every_event_happens_to_our_cache() {
    check_peer("cache", 28_300);
}

/// A minimal session answers GET and SET, and has no dump.
#[test]
fn an_event_that_does_not_happen_is_an_error_and_no_figure() {
    let args = ["pauses", "--ours", "echo-monoio", "--only", "snapshot", "--keys", "1000"];
    let short = ["--pairs", "1", "--seconds", "2", "--host-network", "--port", "28500"];
    let output = bench(&[&args[..], &short].concat());
    let said = text(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{said}{}", text(&output.stderr));
    assert!(said.contains("skipped: 13 snapshot"), "{said}");
    assert!(said.contains("not measured") && !said.contains("p99_ms 0"), "{said}");
}

#[test]
fn it_is_listed_and_explained_and_refuses_what_makes_no_sense() {
    let (list, explained) = (bench(&["list"]), bench(&["explain", "pauses"]));
    for row in EVENTS {
        assert!(text(&list.stdout).contains(&format!("  {:<18} {}", row.name, row.about)));
        assert!(text(&explained.stdout).contains(row.evidence));
    }
    for (args, words) in [
        (&["--seconds", "1"][..], "a trial takes from 2 to 600 seconds"),
        (&["--only", "earthquake"], "invalid value 'earthquake'"),
        (&["--ours", "nginx"], "nginx does not speak resp"),
    ] {
        let output = bench(&[&["pauses", "--host-network"][..], args].concat());
        let said = text(&output.stderr);
        assert!(!output.status.success() && said.contains(words), "{args:?}: {said}");
    }
}
