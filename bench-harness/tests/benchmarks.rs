//! BENCHMARKS.md says what the saved results say: `bench benchmarks --check`.

use std::path::Path;
use std::process::{Command, Output};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

fn benchmarks(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bench"));
    command.arg("benchmarks").args(args).current_dir(ROOT).output().expect("bench runs")
}

#[test]
fn the_document_says_what_the_results_say() {
    let output = benchmarks(&["--check"]);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {error}", output.status);
}

#[test]
fn a_document_that_differs_is_found_and_made_anew() {
    let have = std::fs::read_to_string(Path::new(ROOT).join("BENCHMARKS.md")).expect("readable");
    let path =
        Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("made-{}.md", std::process::id()));
    let document = path.to_str().expect("a path in UTF-8");
    // A figure changed by hand.
    let changed = have.replacen("| result | command |", "| result | by hand |", 1);
    assert!(changed != have, "the overview has its head");
    std::fs::write(&path, changed).expect("writable");
    let output = benchmarks(&["--check", "--document", document]);
    assert_eq!(output.status.code(), Some(3), "found");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("by hand") && error.contains("should be"), "{error}");
    assert!(benchmarks(&["--document", document]).status.success(), "made anew");
    let made = std::fs::read_to_string(&path).expect("readable");
    std::fs::remove_file(&path).expect("ours");
    assert!(made == have, "as it was");
}
