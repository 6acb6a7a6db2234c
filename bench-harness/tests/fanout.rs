//! `bench fanout` as a user runs it, on redis and on nats-server where they are installed.

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Command, Output};

use bench_harness::clock::{self, MILLISECOND_NS, SECOND_NS};
use bench_harness::peers;
use bench_harness::process::{CommandLine, Server};
use serde_json::Value;

fn bench(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_bench")).args(args).output().expect("bench starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Whether the registry's `name` is installed; prints that a test is skipped when it is not.
fn is_installed(name: &str) -> bool {
    match peers::find(name).expect("a row").version() {
        Ok(_) => true,
        Err(error) => {
            println!("skipped: {error:#}");
            false
        }
    }
}

/// A file that goes with the test.
struct File(PathBuf);

impl File {
    fn new(name: &str) -> Self {
        Self(std::env::temp_dir().join(format!("bench-{name}-{}", std::process::id())))
    }

    fn json(&self) -> Value {
        let text = std::fs::read_to_string(&self.0).expect("it was written");
        serde_json::from_str(&text).expect("it is JSON")
    }
}

impl Drop for File {
    fn drop(&mut self) {
        // It is a temporary file either way.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// The figures of the only run of the only side.
fn fanout(name: &str, port: &str, more: &[&str]) -> (String, Value) {
    let out = File::new(&format!("fanout-{name}-{port}.json"));
    let path = out.0.to_string_lossy().into_owned();
    let args = ["fanout", "--side", name, "--port", port, "--host-network", "--json", &path];
    let short = ["--runs", "1", "--seconds", "0.3", "--warmup", "0.1"];
    let output = bench(&[&args[..], &short[..], more].concat());
    let said = text(&output.stdout);
    assert!(output.status.success(), "{said}{}", text(&output.stderr));
    let report = out.json();
    assert_eq!(report["subject"], "fanout");
    (said, report["cells"][0]["sides"][0]["trials"][0].clone())
}

fn check_peer(name: &str, port: u16) {
    if !is_installed(name) {
        return;
    }
    let crowd = ["--publishers", "3", "--subscribers", "5", "--channels", "2"];
    for (at, more) in [
        &["--depth", "4"][..],
        &["--rate", "2000", "--message-len", "200"],
        &["--rate", "500", "--constant", "--message-len", "20000", "--transport", "spin"],
    ]
    .into_iter()
    .enumerate()
    {
        let port = (port + 20 * u16::try_from(at).expect("few")).to_string();
        let (said, figures) = fanout(name, &port, &[&crowd[..], more].concat());
        assert!(said.contains("deliveries/s") && !said.contains("WRONG"), "{said}");
        for figure in ["deliveries_per_s", "cpu_ns_per_delivery", "p50_us", "p999_us"] {
            assert!(
                figures[figure].as_f64().is_some_and(|value| value > 0.0),
                "{figure} {figures}"
            );
        }
        for figure in ["lost", "duplicated", "reordered", "wrong"] {
            assert_eq!(figures[figure], 0.0, "{figures}");
        }
    }
    // 50 MB/s and more for a reader that takes none of it: what redis keeps of that shows in its memory, and what is
    // more than it is willing to keep ends the reader.
    let port = (port + 80).to_string();
    let more = ["--message-len", "100000", "--rate", "500", "--slow", "2", "--channels", "1"];
    let (said, figures) = fanout(name, &port, &more);
    assert!(said.contains("slow subscribers the server let go"), "{said}");
    assert!(figures["rss_growth_mb"].as_f64().is_some_and(|mb| mb > 1.0), "{figures}");
    assert_eq!(figures["lost"], 0.0, "the others get all of it: {figures}");
}

#[test]
fn redis_in_resp() {
    check_peer("redis", 27_300);
}

#[test]
fn nats_server_in_nats() {
    check_peer("nats", 27_500);
}

#[test]
fn a_server_that_runs_already() {
    let Some(path) = bench_harness::process::find("redis-server") else {
        println!("skipped: redis-server is not installed");
        return;
    };
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let addr: SocketAddr = listener.local_addr().expect("it is bound");
    drop(listener);
    let port = addr.port().to_string();
    let args = ["--port", &port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"];
    let command = CommandLine {
        program: path.to_string_lossy().into_owned(),
        args: args.map(str::to_owned).to_vec(),
    };
    let server = Server::start(&command, &[0, 1], 0).expect("it starts");
    let deadline_ns = clock::mono_ns() + 20 * SECOND_NS;
    while std::net::TcpStream::connect(addr).is_err() {
        assert!(clock::mono_ns() < deadline_ns, "it does not listen");
        clock::sleep_ns(10 * MILLISECOND_NS);
    }
    let (addr, pid) = (addr.to_string(), server.pid().to_string());
    let at = ["fanout", "--addr", &addr, "--pid", &pid, "--runs", "1", "--seconds", "0.2"];
    let output = bench(&[&at[..], &["--rate", "1000"]].concat());
    let said = text(&output.stdout);
    assert!(
        output.status.success() && said.contains("server, 1 runs:"),
        "{said}{}",
        text(&output.stderr)
    );
    // It is no NATS server.
    let output = bench(&[&at[..], &["--protocol", "nats"]].concat());
    let said = text(&output.stdout);
    assert!(said.contains("skipped: ") && said.contains("server: subscribe: "), "{said}");
    assert!(!output.status.success(), "nothing was measured");
}

#[test]
fn what_makes_no_sense_is_refused_in_words() {
    for (args, words) in [
        (&["--side", "nginx"][..], "fan-out is over resp or nats"),
        (&["--side", "nobody"], "no server is called nobody"),
        (&["--subscribers", "0"], "at least one publisher"),
        (&["--subscribers", "20000"], "connections: at most"),
        (&["--message-len", "23"], "a message has from 24 bytes"),
        (&["--depth", "2", "--rate", "5"], "cannot be used with"),
        (&["--constant"], "--rate"),
        (&["--addr", "127.0.0.1:1"], "--pid"),
        (&["--rate", "0"], "a rate is above 0"),
    ] {
        let output = bench(&[&["fanout", "--host-network"][..], args].concat());
        let said = text(&output.stderr);
        assert!(!output.status.success() && said.contains(words), "{args:?}: {said}");
    }
}
