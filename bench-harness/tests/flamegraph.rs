//! `bench flamegraph` as a user runs it: on a server of our own with perf(1) where that is there and allowed, and without.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Output};

use bench_harness::clock::{self, MILLISECOND_NS, SECOND_NS};
use bench_harness::process::{CommandLine, Server};

struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("bench-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a directory");
        Self(path)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        // What is left of it is no failure of the test.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn host() -> (Server, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let addr = listener.local_addr().expect("it is bound");
    drop(listener);
    let args = ["host", "engine", "--session", "echo", "--addr", &addr.to_string()];
    let command = CommandLine {
        program: env!("CARGO_BIN_EXE_bench").to_owned(),
        args: args.map(str::to_owned).to_vec(),
    };
    let server = Server::start(&command, &[0], 0).expect("it starts");
    let deadline_ns = clock::mono_ns() + 20 * SECOND_NS;
    while TcpStream::connect(addr).is_err() {
        assert!(clock::mono_ns() < deadline_ns, "{command} does not listen");
        clock::sleep_ns(10 * MILLISECOND_NS);
    }
    (server, addr)
}

fn flamegraph(server: &Server, addr: SocketAddr, svg: &str, path: Option<&str>) -> Output {
    let (addr, pid) = (addr.to_string(), server.pid().to_string());
    let mut command = Command::new(env!("CARGO_BIN_EXE_bench"));
    command.args(["flamegraph", "--addr", &addr, "--pid", &pid, "--svg", svg]);
    command.args(["--keys", "100", "--pipeline", "16", "--seconds", "1", "--warmup", "0.1"]);
    // What perf writes goes where the graph goes, so that what is left of it is seen.
    if let Some(dir) = std::path::Path::new(svg).parent() {
        command.env("TMPDIR", dir);
    }
    if let Some(path) = path {
        command.env("PATH", path);
    }
    command.output().expect("bench starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn a_server_under_load_has_a_flame_graph() {
    let dir = Dir::new("flamegraph");
    let (server, addr) = host();
    let svg = dir.0.join("graph.svg");
    let output = flamegraph(&server, addr, &svg.to_string_lossy(), None);
    let (said, why) = (text(&output.stdout), text(&output.stderr));
    if why.contains("perf is not installed") || why.contains("perf_event_open") {
        println!("skipped: {why}");
        assert!(!output.status.success() && !svg.exists());
        return;
    }
    assert!(output.status.success(), "{why}");
    let drawn = std::fs::read_to_string(&svg).expect("it was written");
    assert!(drawn.starts_with("<svg xmlns=") && drawn.ends_with("</svg>\n"), "{drawn}");
    assert!(drawn.contains(&format!("{addr}, 50 connections, pipeline 16")), "{drawn}");
    let folded = std::fs::read_to_string(svg.with_extension("folded")).expect("beside it");
    let samples: u64 = folded
        .lines()
        .map(|line| {
            line.rsplit_once(' ').and_then(|(_, count)| count.parse::<u64>().ok()).expect("a count")
        })
        .sum();
    assert!(samples >= 20, "a busy server at 997 Hz: {samples}");
    assert!(said.starts_with(&format!("{samples} samples")), "{said}");
    assert!(drawn.contains(&format!("<title>all ({samples} samples, 100.00 %)")));
    let mut names: Vec<String> = std::fs::read_dir(&dir.0)
        .expect("a directory")
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    assert_eq!(names, ["graph.folded", "graph.svg"], "what perf wrote is removed");
}

#[test]
fn without_perf_it_says_how_to_get_it() {
    let dir = Dir::new("flamegraph-none");
    let (server, addr) = host();
    let svg = dir.0.join("graph.svg");
    let output = flamegraph(&server, addr, &svg.to_string_lossy(), Some("/nonexistent"));
    let why = text(&output.stderr);
    assert!(!output.status.success() && why.contains("apt install linux-perf"), "{why}");
    assert!(!svg.exists(), "an empty file is not left");
}

#[test]
fn a_name_that_is_no_graph_is_refused() {
    let (server, addr) = host();
    let png = std::env::temp_dir().join("graph.png");
    let output = flamegraph(&server, addr, &png.to_string_lossy(), None);
    let why = text(&output.stderr);
    assert!(!output.status.success() && why.contains("ends in .svg"), "{why}");
}
