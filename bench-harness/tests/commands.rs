//! `bench runtimes` and `bench files` as a user runs them, for a moment: every side takes part, every
//! operation is done, and what is printed and written as JSON says so.

use std::path::PathBuf;
use std::process::{Command, Output};

use bench_harness::clock::{self, SECOND_NS};
use serde_json::Value;

/// A directory of its own on the disk that holds the build, where O_DIRECT works; removed on drop.
struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Self {
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
        let path = path.join(format!("{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a writable build directory");
        Self(path)
    }

    fn file(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        // It is under the build directory either way.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn bench(args: &[&str]) -> Output {
    let program = env!("CARGO_BIN_EXE_bench");
    Command::new(program).args(args).output().expect("bench runs")
}

fn passed(output: &Output) -> String {
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {words}", output.status);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn json(path: &str) -> Value {
    let text = std::fs::read_to_string(path).expect("it was written");
    serde_json::from_str(&text).expect("it is JSON")
}

/// All cells of a run of one short round.
fn runtimes(dir: &Dir, what: &str, port: &str) -> (String, Value) {
    let (files, out) = (dir.file("files"), dir.file("out.json"));
    let short = ["runtimes", "--pairs", "1", "--seconds", "0.05", "--connections", "5"];
    let more = ["--what", what, "--dir", &files, "--json", &out, "--port", port];
    let text = passed(&bench(&[&short[..], &more[..]].concat()));
    (text, json(&out))
}

fn check_sides(report: &Value, figure: &str, may_be_missing: &[&str]) {
    for cell in report["cells"].as_array().expect("cells") {
        let sides = cell["sides"].as_array().expect("sides");
        assert!(sides.len() >= 6, "{cell}");
        for side in sides {
            let name = side["name"].as_str().unwrap_or_default();
            if may_be_missing.contains(&name) {
                continue;
            }
            assert_eq!(side["failed"], Value::Null, "{cell}");
            assert!(side["trials"][0][figure].as_f64().is_some_and(|value| value > 0.0), "{side}");
            let ratio = side["ratios"][figure]["ratio"].as_f64();
            assert!(name == "engine" || ratio.is_some_and(|ratio| ratio > 0.0), "{side}");
        }
    }
}

#[test]
fn every_runtime_serves_both_sessions() {
    let dir = Dir::new("serve");
    let (text, report) = runtimes(&dir, "echo,cache", "24100");
    assert!(text.contains("echo: 5 connections, pipeline 16"), "{text}");
    // The `cache` program is there only when it was built.
    check_sides(&report, "cpu_ns_per_op", &["cache (shipped)"]);
    assert_eq!(report["cells"].as_array().map(Vec::len), Some(4));
}

#[test]
fn every_runtime_appends_and_sends() {
    let dir = Dir::new("loops");
    let (text, report) = runtimes(&dir, "append,sendfile", "24200");
    assert!(text.contains("append: 16 x 1 KiB per commit"), "{text}");
    // glommio sometimes waits for good in a buffered read beside other work; the row then says so.
    check_sides(&report, "p99_us", &["glommio", "glommio-buffered"]);
    assert_eq!(report["cells"].as_array().map(Vec::len), Some(3));
}

#[test]
fn a_quick_run_of_files_does_everything_in_some_seconds() {
    let dir = Dir::new("quick");
    let (path, out) = (dir.file(""), dir.file("out.json"));
    let start_ns = clock::mono_ns();
    let text = passed(&bench(&["files", "--quick", "--path", &path, "--json", &out]));
    // Five by itself; twice that on a machine that others use.
    assert!(clock::mono_ns() - start_ns < 10 * SECOND_NS);
    let report = json(&out);
    let measured = report["measured"].as_array().expect("measures");
    assert_eq!(measured.len(), 7);
    for measure in measured {
        assert!(measure["rate"].as_f64().is_some_and(|rate| rate > 0.0), "{measure}");
        assert_eq!(measure["wrong"], 0, "{measure}");
        let what = measure["what"].as_str().expect("what was done");
        assert!(text.contains(&format!("\n{what} ")), "{text}");
    }
}

#[test]
fn a_run_in_open_loop_with_o_direct_reports_each_second() {
    let dir = Dir::new("direct");
    let path = dir.file("");
    let output = bench(&[
        "files",
        "--path",
        &path,
        "--op",
        "read,append",
        "--direct",
        "--size-mib",
        "8",
        "--rate",
        "500",
        "--seconds",
        "1.1",
    ]);
    let text = passed(&output);
    assert!(text.contains("O_DIRECT, 500/s offered"), "{text}");
    let lines = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(lines.contains("1 s  Read:") && lines.contains("1 s  Append:"), "{lines}");
}

#[test]
fn what_makes_no_sense_is_refused_in_words() {
    for (args, words) in [
        (&["files", "--block", "100000000"][..], "a block has from 64 bytes"),
        (&["files", "--op", "nothing"][..], "invalid value 'nothing'"),
        (&["runtimes", "--server-cpu", "0", "--client-cpu", "0"][..], "both to run on CPU 0"),
        (&["runtimes", "--rate", "0"][..], "--rate is from 1"),
    ] {
        let output = bench(args);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains(words), "{args:?}: {said}");
    }
}

#[test]
fn eviction_is_simulated_from_a_file_and_its_bars_are_judged() {
    let dir = Dir::new("evict");
    let (file, out) = (dir.file("small.toml"), dir.file("out.json"));
    let scenario = "about = \"small\"\nkeys = 2000\nrequests = 20000\nwarm-up = 0.5\nrate = 1000.0\nsizes = [0.1]\n\
                    [[trace]]\nname = \"one\"\nskew = 0.9\n";
    std::fs::write(&file, scenario).expect("a writable directory");
    let text = passed(&bench(&["evict", "--scenario", &file, "--json", &out, "--gate"]));
    assert!(text.contains("redis-sampled-lru") && text.contains("\none "), "{text}");
    let report = json(&out);
    let found = report["rows"][0]["found"].as_array().expect("what was found");
    assert_eq!(found.len(), 5);
    for found in found {
        assert!(
            found["miss_ratio"].as_f64().is_some_and(|miss| (0.1..0.9).contains(&miss)),
            "{found}"
        );
    }
    std::fs::write(&file, scenario.replace("keys = 2000", "keys = 0"))
        .expect("a writable directory");
    let refused = bench(&["evict", "--scenario", &file]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("keys: from 1"));
}
