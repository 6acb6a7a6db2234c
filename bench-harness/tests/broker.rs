//! `bench broker` end to end, on our broker alone: a workload of one's own, stored, followed and read back.

use std::path::Path;
use std::process::Command;

const WORKLOAD: &str = "about = 'a test'\ntopics = 2\npartitions = 2\nmessage_bytes = 100\n\
    batch_messages = 10\nrate = 2000.0\nfollow = true\nread_back = true\nseconds = 0.5\n";

#[test]
fn a_workload_runs_on_our_broker() {
    let bench = Path::new(env!("CARGO_BIN_EXE_bench"));
    if !bench.with_file_name("broker").exists() {
        println!("skipped: the broker is not built (cargo build -p broker)");
        return;
    }
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("bench-{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("a writable build directory");
    std::fs::write(dir.join("workload.toml"), WORKLOAD).expect("writable");
    let output = Command::new(bench)
        .args(["broker", "--side", "broker", "--pairs", "1", "--touch-mb", "0"])
        .args(["--host-network", "--port", "23950", "--workload"])
        .arg(dir.join("workload.toml"))
        .arg("--dir")
        .arg(dir.join("data"))
        .arg("--json")
        .arg(dir.join("report.json"))
        .output()
        .expect("it runs");
    let text = String::from_utf8_lossy(&output.stdout);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}{error}");
    let report = std::fs::read(dir.join("report.json")).expect("written");
    let report: serde_json::Value = serde_json::from_slice(&report).expect("JSON");
    let trial = &report["cells"][0]["sides"][0]["trials"][0];
    let figure = |name: &str| trial[name].as_f64().unwrap_or(f64::NAN);
    // Its schedule, whatever else this machine does: an open loop drops nothing.
    assert!((1000.0..4000.0).contains(&figure("msg_per_s")), "{report:#}{error}");
    for name in ["p99_ms", "read_p99_ms", "cpu_s_per_gb", "read_cpu_s_per_gb"] {
        assert!(figure(name) > 0.0, "{name}: {report:#}");
    }
    assert_eq!(report["skipped"].as_array().map(Vec::len), Some(0), "{report:#}");
    assert!(!dir.join("data/broker").exists(), "its log is gone with it");
    std::fs::remove_dir_all(&dir).expect("ours");
}
