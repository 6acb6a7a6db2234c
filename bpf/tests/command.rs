//! The `chaos` command as an operator meets it: what it refuses, and that a fault ends when it is said to, whoever is killed.
//!
//! Needs root for all but the refusals. Invariants checked: the safety rules, each by its name.

use std::net::UdpSocket;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use serde_json::Value;

#[expect(dead_code, reason = "the oracle tests use more of it")]
#[path = "oracle/chaos.rs"]
mod chaos;
#[expect(dead_code, reason = "the oracle tests use more of it")]
#[path = "oracle/lab.rs"]
mod lab;

use chaos::{Fault, Traces};
use lab::{Lab, SERVER};

const CHAOS: &str = env!("CARGO_BIN_EXE_chaos");
const PORT: u16 = 9000;
/// A fault that dies with its process is gone after this, and one that does not ends this close to its time.
const TOLERANCE: Duration = Duration::from_millis(100);

/// These look at the whole host: one at a time.
static HOST: Mutex<()> = Mutex::new(());

fn chaos(arguments: &[&str]) -> Output {
    Command::new(CHAOS).args(arguments).output().expect("chaos is built")
}

/// Whether faults can be injected; says so if not.
fn can_run() -> bool {
    let why_not = bpf::doctor::why_not();
    if let Some(why) = &why_not {
        println!("skipped: {why}");
    }
    why_not.is_none()
}

/// What an operator is told who asks for something wrong.
fn refusal(arguments: &[&str]) -> (Option<i32>, String) {
    let output = chaos(arguments);
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn what_is_unsafe_or_makes_no_sense_is_refused_with_code_2() {
    let loss = ["inject", "net.loss", "--dev", "lo"];
    let with = |more: &[&str]| refusal(&[&loss[..], more].concat());
    let cases: [(&[&str], &str); 9] = [
        (&[], "too wide"),
        (&["--proto", "udp"], "too wide"),
        (&["--port", "9000", "--ttl", "2h"], "at most 1h"),
        (&["--port", "9000", "--ttl", "0s"], "more than 0"),
        (&["--port", "9000-8000"], "range"),
        (&["--port", "9000", "--percent", "101"], "0 to 100"),
        (&["--port", "9000", "--percent", "5", "--every", "3"], "cannot be used with"),
        (&["--src", "10.0.0.0/33"], "10.0.0.0/33"),
        (&["--port", "9000", "--netns", "no-such-namespace"], "ip netns list"),
    ];
    for (arguments, word) in cases {
        let (code, error) = with(arguments);
        assert!(code == Some(2) && error.contains(word), "{arguments:?}: {code:?} {error}");
    }
    let (code, error) =
        refusal(&["inject", "net.loss", "--dev", "no-such-device", "--port", "9000"]);
    assert!(code == Some(2) && error.contains("no-such-device"), "{code:?} {error}");
    let (code, error) = refusal(&["stop", "no-such-fault"]);
    assert!(code == Some(2) && error.contains("no-such-fault"), "{code:?} {error}");
}

#[test]
fn every_fault_and_scenario_is_listed_described_and_has_help() {
    let list: Value = serde_json::from_slice(&chaos(&["list", "--json"]).stdout).expect("JSON");
    let entries = list.as_array().expect("a list");
    assert!(entries.iter().any(|entry| entry["scenario"] == "loss-30"), "{list}");
    for entry in entries {
        let name = entry["fault"].as_str().expect("a name");
        let described: Value =
            serde_json::from_slice(&chaos(&["describe", name, "--json"]).stdout).expect("JSON");
        assert_eq!(described["fault"], name);
        assert!(chaos(&["inject", name, "--help"]).status.success(), "{name}");
    }
}

#[test]
fn what_would_do_nothing_here_is_refused() {
    if !can_run() {
        return;
    }
    let _turn = HOST.lock();
    let lab = Lab::new(u32::MAX - 1);
    let furniture = lab.furniture();
    let edt = ["inject", "net.edt", "--netns", &lab.client, "--dev", lab::DEVICE];
    let (code, said) = refusal(&[&edt[..], &["--port", "9000", "--delay", "20ms"]].concat());
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("not fq"), "{said}");
    let idle = Command::new("sleep").arg("60").spawn();
    let mut idle = idle.expect("a process");
    let pid = idle.id().to_string();
    let named = ["inject", "file.error", "--op", "read", "--pid", &pid, "--ttl", "100ms"];
    let (code, said) = refusal(&named);
    idle.kill().expect("it runs");
    idle.wait().expect("it ended");
    let has_lsm = bpf::doctor::find("lsm").expect("a probe").works;
    assert_eq!(code, Some(if has_lsm { 0 } else { 3 }), "{said}");
    let has_netem = bpf::doctor::find("netem").expect("a probe").works;
    let netem = ["inject", "net.netem", "--netns", &lab.client, "--dev", lab::DEVICE];
    let more = ["--port", "9000", "--loss", "5", "--ttl", "100ms"];
    let (code, said) = refusal(&[&netem[..], &more].concat());
    assert_eq!(code == Some(0), has_netem, "{said}");
    assert_eq!(lab.furniture(), furniture, "nothing is left");
}

#[test]
fn doctor_tries_each_hook_and_leaves_nothing() {
    if !can_run() {
        return;
    }
    let _turn = HOST.lock();
    let none = chaos::programs();
    let findings: Value =
        serde_json::from_slice(&chaos(&["doctor", "--json"]).stdout).expect("JSON");
    for probe in ["programs", "load", "clsact"] {
        let finding = findings.as_array().expect("a list").iter().find(|one| one["probe"] == probe);
        assert_eq!(finding.expect(probe)["works"], true, "{findings}");
    }
    // Those of other tests go with them.
    let begin = Instant::now();
    while let Some(left) = chaos::programs().into_iter().find(|one| !none.contains(one)) {
        assert!(begin.elapsed() < Duration::from_secs(60), "there is still {left:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Sends a datagram each millisecond until a moment; when, of those that arrived, each was sent.
fn arrivals(lab: &Lab, until: Instant) -> Vec<Instant> {
    let server = lab.on_server(|| UdpSocket::bind((SERVER, PORT)).expect("the port is free"));
    server.set_nonblocking(true).expect("a socket");
    let client = lab.on_client(|| UdpSocket::bind("0.0.0.0:0").expect("a port"));
    let mut arrived = Vec::new();
    let mut buf = [0; 16];
    while Instant::now() < until {
        let sent = Instant::now();
        let _ = client.send_to(b"x", (SERVER, PORT));
        // The link has no queue: what is not there now is lost.
        if server.recv(&mut buf).is_ok() {
            arrived.push(sent);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    arrived
}

fn in_lab(lab: &Lab, more: &[&str]) -> Vec<String> {
    let port = PORT.to_string();
    let line = ["net.loss", "--netns", &lab.client, "--dev", lab::DEVICE, "--dport", &port];
    line.iter().chain(more).map(|word| (*word).to_owned()).collect()
}

#[test]
fn a_fault_in_the_foreground_goes_with_its_process_whenever_that_is_killed() {
    if !can_run() {
        return;
    }
    let _turn = HOST.lock();
    let lab = Lab::new(1);
    for round in 0..20_u64 {
        let fault = Fault::inject(&in_lab(&lab, &["--ttl", "30s"]));
        // Moments that have nothing to do with each other.
        std::thread::sleep(Duration::from_micros(round * round * 397 % 20_000));
        let traces = fault.traces.clone();
        fault.kill();
        traces.assert_gone(TOLERANCE);
        let begin = Instant::now();
        assert!(
            !arrivals(&lab, begin + Duration::from_millis(200)).is_empty(),
            "round {round}: packets pass again"
        );
    }
}

/// Injects a fault behind the command's back; its name and keeper, and when it ends.
fn detach(lab: &Lab, ttl: Duration) -> (Traces, String, u32, Instant) {
    let ttl_ms = format!("{}ms", ttl.as_millis());
    let line = in_lab(lab, &["--ttl", &ttl_ms, "--detach", "--json"]);
    let output = Command::new(CHAOS).arg("inject").args(line).output().expect("chaos is built");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let event: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let id = event["id"].as_str().expect("a name").to_owned();
    let keeper = u32::try_from(event["keeper"].as_u64().expect("a process")).expect("small");
    let traces = Traces::new(&id, keeper);
    let all = chaos::status();
    let entry = all.as_array().expect("a list").iter().find(|entry| entry["id"] == id.as_str());
    let left = entry.expect("it is in force")["left_ms"].as_u64().expect("a number");
    (traces, id, keeper, Instant::now() + Duration::from_millis(left))
}

fn kill(pid: u32) {
    let pid = rustix::process::Pid::from_raw(pid.cast_signed()).expect("a process");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("it is there");
}

/// What arrives while a detached fault lasts, and after: nothing, and everything.
fn assert_ends_at(lab: &Lab, ends: Instant) {
    let arrived = arrivals(lab, ends + TOLERANCE + Duration::from_millis(50));
    let first = *arrived.first().expect("packets pass after the end");
    let off = first.max(ends) - first.min(ends);
    assert!(off <= TOLERANCE, "the first packet passed {off:?} from the end");
}

#[test]
fn a_detached_fault_ends_at_its_time_whoever_is_killed() {
    if !can_run() {
        return;
    }
    let _turn = HOST.lock();
    let lab = Lab::new(2);
    let ttl = Duration::from_millis(1500);
    // Nobody is killed; the keeper is; the keeper and its watchdog are.
    for killed in 0..3 {
        let (traces, id, keeper, ends) = detach(&lab, ttl);
        let pin = bpf::pins::programs_of(&id);
        assert!(pin.is_dir(), "it is pinned");
        assert!(traces.programs() > 0, "they are known");
        if killed > 1 {
            let watchdogs =
                std::fs::read_to_string(format!("/proc/{keeper}/task/{keeper}/children"));
            for child in watchdogs.expect("the keeper is there").split_whitespace() {
                kill(child.parse().expect("a number"));
            }
        }
        if killed > 0 {
            kill(keeper);
        }
        assert_ends_at(&lab, ends);
        if killed > 1 {
            assert!(pin.is_dir(), "without effect, until the next command");
            traces.assert_forgotten();
        }
        traces.assert_gone(TOLERANCE);
        assert!(!Path::new(bpf::registry::DIR).join(format!("{id}.json")).exists());
    }
}

#[test]
fn stop_ends_all_faults_whoever_keeps_them() {
    if !can_run() {
        return;
    }
    let _turn = HOST.lock();
    let lab = Lab::new(3);
    let (detached, ..) = detach(&lab, Duration::from_secs(30));
    let fault = Fault::inject(&in_lab(&lab, &["--ttl", "30s"]));
    assert!(chaos(&["stop", "--all"]).status.success());
    for traces in [&detached, &fault.traces] {
        traces.assert_gone(TOLERANCE);
    }
    fault.wait();
    assert!(!arrivals(&lab, Instant::now() + Duration::from_millis(20)).is_empty());
}

#[test]
fn a_fault_acts_so_many_times_at_most_and_spares_the_way_in() {
    if !can_run() {
        return;
    }
    let _turn = HOST.lock();
    let lab = Lab::new(4);
    let fault = Fault::inject(&in_lab(&lab, &["--ttl", "30s", "--max-hits", "7"]));
    let arrived = arrivals(&lab, Instant::now() + Duration::from_millis(50));
    assert!(!arrived.is_empty());
    assert_eq!(fault.stop().affected, 7);
    let to_ssh = |more: &[&str]| {
        let line = [
            "net.loss",
            "--netns",
            &lab.client,
            "--dev",
            lab::DEVICE,
            "--dport",
            "22",
            "--ttl",
            "30s",
        ];
        let line: Vec<String> = line.iter().chain(more).map(|word| (*word).to_owned()).collect();
        let fault = Fault::inject(&line);
        lab.on_client(|| {
            let socket = UdpSocket::bind("0.0.0.0:0").expect("a port");
            let _ = socket.send_to(b"x", (SERVER, 22));
        });
        fault.stop().affected
    };
    assert_eq!((to_ssh(&[]), to_ssh(&["--force"])), (0, 1));
}
