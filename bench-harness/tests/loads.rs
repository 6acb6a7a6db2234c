//! `bench load`, `sweep`, `curve` and `find-max` as a user runs them, on a server that runs already and on
//! one of the registry, each for a moment.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

fn bench(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_bench")).args(args).output().expect("bench starts")
}

fn passed(args: &[&str]) -> (String, String) {
    let output = bench(args);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{args:?}: {}: {err}", output.status);
    (out, err)
}

/// A server that runs already, and its address.
struct Serving {
    child: Child,
    addr: String,
}

impl Serving {
    fn start(mode: &[&str]) -> Self {
        let args =
            [&["pathology"], mode, &["--addr", "127.0.0.1:0", "--value-len", "1000"]].concat();
        let mut command = Command::new(env!("CARGO_BIN_EXE_bench"));
        let mut child = command.args(args).stderr(Stdio::piped()).spawn().expect("it starts");
        let mut line = String::new();
        let words = child.stderr.take().expect("it is piped");
        BufReader::new(words).read_line(&mut line).expect("it says where");
        let addr = line.split(" at ").nth(1).and_then(|rest| rest.split(',').next());
        Self { child, addr: addr.expect("an address").to_owned() }
    }

    /// A command on it.
    fn run(&self, command: &[&str]) -> (String, String) {
        let pid = self.child.id().to_string();
        passed(&[command, &["--addr", &self.addr, "--pid", &pid, "--value-len", "1000"]].concat())
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        // One that has ended cannot be ended again.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const SHORT: [&str; 4] = ["--seconds", "0.1", "--warmup", "0.05"];

#[test]
fn every_law_over_keys_and_every_kind_of_request_is_answered() {
    let server = Serving::start(&["prompt"]);
    for more in [
        &["--key-dist", "zipfian:1", "--set-share", "0.5"][..],
        &["--key-dist", "hotspot", "--pipeline", "16"],
        &["--key-dist", "sequential", "--rate", "2000"],
        &["--key-dist", "latest", "--set-share", "0.1", "--inserts"],
        &["--rmw-share", "0.5", "--pipeline", "4"],
    ] {
        let command = ["load", "--keys", "1000", "--connections", "5"];
        let (out, _) = server.run(&[&command[..], &SHORT, more].concat());
        let trial: Value = serde_json::from_str(&out).expect("JSON");
        assert!(trial["replies"].as_u64() > Some(0) && trial["misses"] == 0, "{more:?}: {out}");
        let kinds = &trial["kinds"];
        let is_there = |kind: &str| kinds[kind]["p50_ns"].is_u64();
        assert!(is_there("read"), "{more:?}: {kinds}");
        let writes = more.contains(&"--set-share") || more.contains(&"--rmw-share");
        assert_eq!(is_there("write"), writes, "{more:?}: {kinds}");
        assert_eq!(is_there("read_modify_write"), more.contains(&"--rmw-share"), "{more:?}");
    }
    let (out, _) = server.run(&[&["load", "--keys", "1000"][..], &SHORT].concat());
    assert!(!out.contains("\"kinds\""), "uniform keys are not drawn: {out}");
}

#[test]
fn a_sweep_of_a_server_of_the_registry_has_a_row_for_each_depth_and_leaves_nothing() {
    let path = std::env::temp_dir().join(format!("bench-sweep-{}.json", std::process::id()));
    let file = path.display().to_string();
    let command =
        ["sweep", "--peer", "engine", "--port", "27300", "--repeats", "1", "--keys", "500"];
    let depths = ["--connections", "1,5", "--pipeline", "1,8", "--json", &file];
    let (out, err) = passed(&[&command[..], &depths, &SHORT].concat());
    assert_eq!(
        out.lines()
            .filter(|line| line.ends_with("server")
                || line.ends_with("client")
                || line.ends_with("neither"))
            .count(),
        4,
        "{out}"
    );
    let json = std::fs::read_to_string(&path).expect("it was written");
    // It is in the directory of temporary files either way.
    let _ = std::fs::remove_file(&path);
    let sweep: Value = serde_json::from_str(&json).expect("JSON");
    let rows = sweep["rows"].as_array().expect("rows");
    assert_eq!(
        (rows.len(), &rows[3]["connections"], &rows[3]["pipeline"]),
        (4, &5.into(), &8.into())
    );
    assert!(rows.iter().all(|row| row["found"]["rate"].as_f64() > Some(0.0)), "{json}");
    let pid =
        err.split("process ").nth(1).and_then(|rest| rest.split(' ').next()).expect("a process");
    assert!(!Path::new(&format!("/proc/{pid}")).exists(), "{pid} is still there");
}

#[test]
fn a_known_queue_has_the_knee_and_the_bound_it_must_have() {
    let server = Serving::start(&["md1", "--service", "5ms"]);
    // Loads of 0.3, 0.6 and 0.9.
    let command =
        ["curve", "--rates", "60,120,180", "--repeats", "1", "--seconds", "1", "--keys", "100"];
    let (out, _) = server.run(&command);
    assert_eq!(out.lines().filter(|line| line.contains("/s offered")).count(), 3, "{out}");
    assert!(out.contains("knee at ") || out.contains("no knee: "), "{out}");
    // Nothing takes less than 5 ms.
    let command = [
        "find-max",
        "p50<5ms",
        "--from",
        "20",
        "--repeats",
        "1",
        "--seconds",
        "0.3",
        "--keys",
        "100",
    ];
    let (out, _) = server.run(&command);
    assert!(out.contains("holds at no rate that was tried"), "{out}");
    let command = [
        "find-max",
        "p50<50ms",
        "--from",
        "50",
        "--repeats",
        "1",
        "--seconds",
        "0.5",
        "--keys",
        "100",
        "--precision",
        "0.2",
    ];
    let (out, _) = server.run(&command);
    if out.contains("client-bound") {
        eprintln!("not judged: others had the load's core: {out}");
        return;
    }
    let rate = out.split("holds up to ").nth(1).and_then(|rest| rest.split('/').next());
    let rate: f64 = rate.and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("{out}"));
    // It serves 200 a second at most; a machine that others use may take some of that.
    assert!((50.0..=230.0).contains(&rate), "{out}");
}

#[test]
fn what_makes_no_sense_is_refused_in_words_before_anything_is_sent() {
    let on = ["--addr", "127.0.0.1:1", "--pid", "1"];
    for (args, words) in [
        (&["load"][..], "--addr <ADDR>"),
        (&["load", "--addr", "127.0.0.1:1"], "--pid <PID>"),
        (
            &["load", "--peer", "redis", "--addr", "127.0.0.1:1", "--pid", "1"],
            "cannot be used with",
        ),
        (&["sweep", "--peer", "nobody"], "no server is called nobody"),
        (&["sweep", "--peer", "engine", "--protocol", "http1"], "engine does not speak http1"),
        (&["sweep", "--peer", "engine", "--pipeline", "0"], "a pipeline of 0"),
        (&["sweep", "--peer", "engine", "--pipeline", "4097"], "at most 4096"),
        (&["sweep", "--peer", "engine", "--connections", "16385"], "at most 16384"),
        (&[&["load", "--key-dist", "gauss"][..], &on].concat(), "zipfian[:SKEW]"),
        (
            &[&["load", "--set-share", "0.6", "--rmw-share", "0.5"][..], &on].concat(),
            "from 0 to 1 together",
        ),
        (&[&["load", "--inserts", "--protocol", "echo"][..], &on].concat(), "over echo"),
    ] {
        let output = bench(args);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains(words), "{args:?}: {said}");
    }
}
