//! Experiments from end to end: files as others write them, run by `chaos` against a small server.
//!
//! Files in `experiments/` are written from the schemas of the Chaos Toolkit and Chaos Mesh, and read as they are. The test with a fault in the
//! kernel needs root. Next: `server`, `src/experiment`.

#[path = "../oracle/lab.rs"]
#[expect(dead_code, reason = "the oracle tests use all of it")]
mod lab;
mod packets;
mod server;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use bpf::error::Kind;
use bpf::experiment::report::Report;
use bpf::experiment::toolkit::Experiment;
use bpf::experiment::{mesh, parse, read_text};
use serde_json::{Value, json};
use server::Server;

const CHAOS: &str = env!("CARGO_BIN_EXE_chaos");
const FILES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/experiments");

/// A directory of its own, which goes with it.
struct Place(PathBuf);

impl Place {
    fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path =
            std::env::temp_dir().join(format!("chaos-experiments-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).expect("a directory");
        Self(path)
    }

    fn write(&self, experiment: &Value) -> String {
        let path = self.0.join("experiment.json");
        fs::write(&path, experiment.to_string()).expect("it is written");
        path.to_string_lossy().into_owned()
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(CHAOS);
        command.args(words).current_dir(&self.0).stderr(Stdio::piped());
        command
    }

    fn chaos(&self, words: &[&str]) -> Output {
        self.command(words).output().expect("chaos is built")
    }

    fn journal(&self) -> Value {
        let text = fs::read_to_string(self.0.join("journal.json")).expect("a journal");
        serde_json::from_str(&text).expect("JSON")
    }

    /// Runs an experiment that is to end so; its journal.
    fn run(&self, experiment: &Value, code: i32, more: &[&str]) -> Value {
        let path = self.write(experiment);
        let output = self.chaos(&[&["run", &path][..], more].concat());
        assert_eq!(output.status.code(), Some(code), "{}", errors(&output));
        self.journal()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn files(folder: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(Path::new(FILES).join(folder)).expect("the files are there");
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    files.sort();
    assert!(files.len() >= 10);
    files
}

fn name(path: &Path) -> &str {
    path.file_name().and_then(|name| name.to_str()).expect("text")
}

/// An experiment whose hypothesis is that the server is up.
fn about(server: &Server, method: Value) -> Value {
    let url = format!("{}/state", server.base);
    json!({
        "title": "it stays up", "description": "x",
        "steady-state-hypothesis": { "title": "it is up", "probes": [
            { "type": "probe", "name": "up", "tolerance": 200, "provider": { "type": "http", "url": url } },
        ] },
        "method": method,
        "rollbacks": [{ "type": "action", "name": "put back", "provider": { "type": "process", "path": "touch", "arguments": ["put-back"] } }],
    })
}

fn process(name: &str, line: &str) -> Value {
    json!({ "type": "action", "name": name, "provider": { "type": "process", "path": "sh", "arguments": ["-c", line] } })
}

#[test]
fn every_toolkit_file_is_read_unchanged() {
    let unsupported = [
        ("09-python.json", "python provider chaosk8s.probes.all_microservices_healthy"),
        ("10-vault.yaml", "secrets.database.password"),
        ("11-tls.yaml", "there is no TLS"),
        ("15-python-regex.yaml", "look-around"),
    ];
    for path in files("toolkit") {
        let experiment = Experiment::read(&path).expect("it is read");
        let checked = experiment.check_supported();
        match unsupported.iter().find(|(file, _)| *file == name(&path)) {
            None => checked.unwrap_or_else(|error| panic!("{}: {error}", name(&path))),
            Some((_, why)) => {
                let error = checked.expect_err(name(&path));
                assert_eq!(error.kind, Kind::Unsupported);
                assert!(error.to_string().contains(why), "{}: {error}", name(&path));
            }
        }
    }
}

#[test]
fn those_without_faults_run_to_their_end() {
    let server = Server::start();
    for path in files("toolkit").iter().filter(|path| name(path) < "09") {
        let place = Place::new();
        let base = format!("base={}", server.base);
        let output = place.chaos(&["run", &path.to_string_lossy(), "--var", &base]);
        assert_eq!(output.status.code(), Some(0), "{}: {}", name(path), errors(&output));
        let journal = place.journal();
        assert_eq!(journal["status"], "completed", "{}", name(path));
        assert_eq!(journal["deviated"], false);
        let runs = [&journal["run"], &journal["rollbacks"]]
            .into_iter()
            .filter_map(Value::as_array)
            .flatten();
        for run in runs {
            assert_eq!(run["status"], "succeeded", "{}: {run}", name(path));
        }
        check_details(name(path), &journal);
    }
}

/// What single files are about.
fn check_details(name: &str, journal: &Value) {
    let run = &journal["run"];
    let during = &journal["steady_states"]["during"];
    assert_eq!(during, &json!([]));
    match name {
        "01-http-status.json" => {
            assert_eq!(run[0]["output"]["status"], 200);
            assert_eq!(run[0]["output"]["body"], "ok");
            assert_eq!(journal["steady_states"]["after"]["probes"][0]["tolerance_met"], true);
            for name in ["start", "end"] {
                let text = run[0][name].as_str().expect("a time");
                assert!(text.ends_with("+00:00") && text.len() == 32, "{text}");
            }
            assert!(journal["chaoslib-version"].as_str().expect("text").starts_with("chaos "));
            assert!(journal["platform"].as_str().expect("text").starts_with("Linux-"));
        }
        "02-http-json.json" => {
            let body = run[0]["output"]["body"].as_str().expect("text");
            assert!(
                body.starts_with("POST /echo")
                    && body.ends_with("{\"item\":\"pencil\",\"count\":2}"),
                "{body}"
            );
            assert!(
                run[1]["output"]["body"]
                    .as_str()
                    .expect("text")
                    .starts_with("GET /echo?page=1&of=a%20b%26c HTTP/1.1")
            );
        }
        "03-processes.yaml" => {
            assert_eq!(run[0]["output"]["stdout"].as_str().map(str::trim), Some("2"));
            assert_eq!(run[1]["output"], json!({ "status": 3, "stdout": "", "stderr": "hello" }));
            assert_eq!(journal["rollbacks"][0]["activity"]["name"], "put-back");
        }
        "04-configuration.yaml" => {
            let body = run[0]["output"]["body"].as_str().expect("text");
            assert!(
                body.starts_with("GET /echo?strict=false ") && body.contains("Bearer not-a-secret"),
                "{body}"
            );
            assert_eq!(
                run[0]["activity"]["provider"]["headers"]["Authorization"], "Bearer ${token}",
                "it is as it was written"
            );
        }
        "06-background.json" => {
            let names: Vec<&str> = run
                .as_array()
                .expect("a list")
                .iter()
                .filter_map(|run| run["activity"]["name"].as_str())
                .collect();
            assert_eq!(names, ["slow", "meanwhile", "answers"], "in the order of their begin");
            assert!(run[0]["duration"].as_f64().expect("seconds") >= 0.4, "it is waited for");
            assert!(run[1]["end"].as_str() < run[0]["end"].as_str(), "the others do not wait");
            assert!(journal["steady_states"]["before"].is_null(), "after the method only");
            assert_eq!(journal["rollbacks"].as_array().map(Vec::len), Some(2));
        }
        "08-controls.json" => {
            assert_eq!(journal["notes"].as_array().map(Vec::len), Some(3), "{}", journal["notes"]);
        }
        _ => {}
    }
}

#[test]
fn what_cannot_be_done_is_told_before_anything_is() {
    let place = Place::new();
    let code = |words: &[&str]| {
        let output = place.chaos(words);
        (output.status.code(), errors(&output))
    };
    let (status, why) = code(&["run", &format!("{FILES}/toolkit/09-python.json")]);
    assert_eq!(status, Some(3), "{why}");
    assert!(why.contains("chaosk8s.pod.actions.terminate_pods"), "{why}");
    assert!(
        fs::read_dir(&place.0).expect("it is there").next().is_none(),
        "nothing was done, and there is no journal"
    );

    let bad = place.write(&json!({ "title": "t", "method": [{ "type": "action", "name": "a", "provider": { "type": "http" } }] }));
    let (status, why) = code(&["run", &bad]);
    assert_eq!(status, Some(2), "{why}");
    assert!(
        why.contains("a description") && why.contains("method[0].provider: http: a url"),
        "{why}"
    );

    let odd = json!({ "title": "t", "description": "d", "configuration": { "u": "https://x" }, "method": [
        process("first", "touch must-not-be-made"),
        { "type": "action", "name": "gone", "provider": { "type": "process", "path": "no-such-program" } },
        { "type": "action", "name": "unknown", "provider": { "type": "fault", "fault": "net.gremlins", "target": { "dev": "lo" } } },
        { "type": "action", "name": "wide", "provider": { "type": "fault", "fault": "net.loss", "target": { "dev": "lo" } } },
        { "type": "probe", "name": "tls", "provider": { "type": "http", "url": "${u}" } },
    ] });
    let (status, why) = code(&["run", &place.write(&odd)]);
    assert_eq!(status, Some(2), "{why}");
    for part in ["no-such-program", "net.gremlins", "too wide", "there is no TLS"] {
        assert!(why.contains(part), "{part}: {why}");
    }
    assert!(!place.0.join("must-not-be-made").exists());
    assert_eq!(code(&["run", "no-such-file.json"]).0, Some(2));
    assert_eq!(code(&["run", &bad, "--hypothesis-strategy", "sometimes"]).0, Some(2));
}

#[test]
fn a_hypothesis_that_does_not_hold_keeps_the_method_from_being_run() {
    let server = Server::start();
    server.set(server::DOWN);
    let place = Place::new();
    let experiment = about(&server, json!([process("touch", "touch done")]));
    let journal = place.run(&experiment, 1, &[]);
    assert_eq!(journal["status"], "failed");
    assert_eq!(journal["steady_states"]["before"]["steady_state_met"], false);
    assert!(
        !place.0.join("done").exists() && !place.0.join("put-back").exists(),
        "a failed experiment is not rolled back"
    );
    place.run(&experiment, 1, &["--rollback-strategy", "always"]);
    assert!(place.0.join("put-back").exists());
    let journal = place.run(&experiment, 1, &["--hypothesis-strategy=after-method-only"]);
    assert!(place.0.join("done").exists() && journal["steady_states"]["before"].is_null());
}

#[test]
fn a_system_that_deviates_is_rolled_back_by_strategy() {
    let server = Server::start();
    let turn = json!({ "type": "action", "name": "turn", "provider": { "type": "http", "url": format!("{}/turn/down", server.base) } });
    let experiment = about(&server, json!([turn]));
    for (strategy, is_done) in
        [("default", true), ("never", false), ("deviated", true), ("always", true)]
    {
        server.set(server::UP);
        let place = Place::new();
        let journal = place.run(&experiment, 1, &["--rollback-strategy", strategy]);
        assert_eq!(
            (&journal["status"], &journal["deviated"]),
            (&json!("completed"), &json!(true)),
            "{strategy}"
        );
        assert_eq!(place.0.join("put-back").exists(), is_done, "{strategy}");
        assert_eq!(
            journal["rollbacks"].as_array().map(Vec::len),
            Some(usize::from(is_done)),
            "{strategy}"
        );
    }
    server.set(server::UP);
    let place = Place::new();
    let journal = place.run(&about(&server, json!([])), 0, &["--rollback-strategy", "deviated"]);
    assert_eq!(journal["deviated"], false);
    assert!(!place.0.join("put-back").exists(), "it did not deviate");
}

/// Runs a long method, turns the switch, and measures how long it lasts from there.
fn aborted_by(state: u8) {
    let server = Server::start();
    let place = Place::new();
    let mut late = process("behind a pause", "touch done");
    late["pauses"] = json!({ "before": 30 });
    let mut behind = process("slow in the background", "sleep 30");
    behind["background"] = json!(true);
    let path = place.write(&about(&server, json!([behind, late])));
    let mut child = place
        .command(&["run", &path, "--hypothesis-strategy", "continuously"])
        .spawn()
        .expect("chaos is built");
    std::thread::sleep(Duration::from_millis(1200));
    server.set(state);
    let begin = Instant::now();
    let status = child.wait().expect("it ends");
    let took = begin.elapsed();
    // The look after the method waits for an answer of its own.
    let journal = place.journal();
    assert_eq!(status.code(), Some(1));
    assert_eq!((&journal["status"], &journal["deviated"]), (&json!("failed"), &json!(true)));
    let during = journal["steady_states"]["during"].as_array().expect("looks");
    assert!(during.len() >= 3, "it is looked at often: {}", during.len());
    assert!(during.iter().rev().skip(1).all(|look| look["steady_state_met"] == true));
    assert_eq!(during.last().expect("the last")["steady_state_met"], false);
    let run = journal["run"].as_array().expect("runs");
    assert_eq!(run.len(), 1, "what had not begun does not begin: {run:?}");
    assert_eq!(run[0]["status"], "failed");
    let lasted = run[0]["duration"].as_f64().expect("seconds");
    assert!(lasted < 1.2 + 1.0 + 0.3, "it lasted {lasted} s, of which about 1.2 before the switch");
    if state == server::DOWN {
        assert!(took < Duration::from_millis(1300), "{took:?}");
    }
}

#[test]
fn a_broken_hypothesis_ends_the_method_within_a_second() {
    aborted_by(server::DOWN);
}

#[test]
fn a_hypothesis_that_nobody_answers_for_ends_it_too() {
    aborted_by(server::SILENT);
}

#[test]
fn a_signal_interrupts() {
    let server = Server::start();
    for (strategy, is_done) in [("default", false), ("always", true)] {
        let place = Place::new();
        let path = place.write(&about(&server, json!([process("long", "sleep 30")])));
        let mut child = place
            .command(&["run", &path, "--rollback-strategy", strategy])
            .spawn()
            .expect("chaos is built");
        std::thread::sleep(Duration::from_millis(500));
        let pid = rustix::process::Pid::from_raw(i32::try_from(child.id()).expect("a number"))
            .expect("a process");
        let begin = Instant::now();
        rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("it runs");
        assert_eq!(child.wait().expect("it ends").code(), Some(1));
        assert!(begin.elapsed() < Duration::from_secs(2));
        let journal = place.journal();
        assert_eq!(journal["status"], "interrupted");
        assert!(journal["steady_states"]["after"].is_null());
        assert_eq!(place.0.join("put-back").exists(), is_done, "{strategy}");
    }
}

#[test]
fn a_dry_run_does_nothing() {
    let server = Server::start();
    server.set(server::DOWN);
    let place = Place::new();
    let experiment = about(&server, json!([process("touch", "touch done")]));
    let journal = place.run(&experiment, 0, &["--dry"]);
    assert!(!place.0.join("done").exists() && !place.0.join("put-back").exists());
    assert_eq!(journal["run"][0]["status"], "succeeded");
    assert!(journal["run"][0]["output"].is_null());
    server.set(server::UP);
    place.run(&experiment, 0, &["--dry=actions"]);
    assert!(!place.0.join("done").exists());
}

#[test]
fn activities_fail_with_their_reason_and_the_method_goes_on() {
    let server = Server::start();
    let place = Place::new();
    let http = |name: &str, path: &str, more: Value| {
        let mut provider =
            json!({ "type": "http", "url": format!("{}{path}", server.base), "timeout": 0.3 });
        provider.as_object_mut().expect("a map").extend(more.as_object().expect("a map").clone());
        json!({ "type": "probe", "name": name, "provider": provider })
    };
    let mut slow = process("slow", "echo before; sleep 30");
    slow["provider"]["timeout"] = json!(0.3);
    let query = |query: &str| json!({ "type": "probe", "name": "sample", "provider": { "type": "promql", "url": server.base, "query": query } });
    let experiment = json!({ "title": "t", "description": "d", "method": [
        slow,
        http("unexpected", "/none", json!({ "expected_status": [200, 204] })),
        http("moved", "/moved", json!({ "expected_status": 200 })),
        { "type": "probe", "name": "nobody", "provider": { "type": "http", "url": "http://127.0.0.1:1/", "timeout": 1 } },
        query("up"),
    ] });
    let journal = place.run(&experiment, 0, &[]);
    let run = &journal["run"];
    assert_eq!(run[0]["output"]["stdout"], "before\n");
    let why = |index: usize| run[index]["exception"][0].as_str().unwrap_or_default().to_owned();
    assert!(
        why(0).contains("too long") && why(1).contains("status 404") && why(3).contains("refused"),
        "{} {} {}",
        why(0),
        why(1),
        why(3)
    );
    assert_eq!(run[2]["output"]["body"], "ok", "it is sent on");
    assert_eq!(run[4]["output"], 0.004);
}

#[test]
fn every_mesh_file_becomes_an_experiment() {
    // What is not mapped, and how many faults there are then.
    let partial = [
        (
            "network-delay-correlated.yaml",
            vec!["spec.delay.correlation", "spec.externalTargets[0]"],
            2,
        ),
        ("stress-ng.yaml", vec!["spec.stressngStressors"], 0),
        ("machine-network-dns.yaml", vec!["spec.network-dns"], 0),
        ("schedule.yaml", vec!["spec.schedule"], 1),
        ("pod-kill.yaml", vec!["kind: PodChaos"], 0),
    ];
    for path in files("mesh") {
        let place = Place::new();
        let file = path.to_string_lossy();
        let imported = mesh::import(&read_text(&path).expect("text"), None).expect("it is read");
        let experiment = Experiment::new(imported.experiment.clone()).expect("it is read");
        experiment.check_supported().expect("it is read");
        let out = |format: &str, more: &[&str]| {
            place.chaos(&[&["import", &*file, "--out", format][..], more].concat())
        };
        match partial.iter().find(|(file, ..)| *file == name(&path)) {
            None => {
                assert!(imported.unmapped.is_empty(), "{}: {:?}", name(&path), imported.unmapped);
                assert!(!experiment.method.is_empty(), "{}", name(&path));
                assert_eq!(out("out.yaml", &[]).status.code(), Some(0));
                let written = Experiment::read(&place.0.join("out.yaml"))
                    .expect("it is written as it is read");
                assert_eq!(written.raw, imported.experiment);
            }
            Some((_, paths, faults)) => {
                assert_eq!(
                    imported.unmapped.len(),
                    paths.len(),
                    "{}: {:?}",
                    name(&path),
                    imported.unmapped
                );
                let output = out("out.json", &[]);
                assert_eq!(output.status.code(), Some(3), "{}", errors(&output));
                assert!(
                    paths.iter().all(|path| errors(&output).contains(path)),
                    "{}",
                    errors(&output)
                );
                assert!(!place.0.join("out.json").exists());
                assert_eq!(out("out.json", &["--partial"]).status.code(), Some(0));
                assert_eq!(experiment.method.len(), *faults, "{}", name(&path));
            }
        }
    }
}

#[test]
fn mesh_files_name_the_faults_that_there_are() {
    let of = |file: &str| {
        let text = read_text(&Path::new(FILES).join("mesh").join(file)).expect("text");
        let imported = mesh::import(&text, Some("eth9")).expect("it is read");
        let providers = imported.experiment["method"].as_array().expect("a method").iter();
        providers.map(|activity| activity["provider"].clone()).collect::<Vec<_>>()
    };
    let machine = of("machine-network-loss.yaml");
    assert_eq!(machine.len(), 2, "one for each range of ports");
    let target = json!({ "dev": "ens33", "dir": "out", "dst": ["10.20.0.5/32", "10.30.0.0/16"], "dport": "8001-8010", "proto": "tcp" });
    assert_eq!(
        (&machine[1]["target"], &machine[1]["share"]),
        (&target, &json!({ "percent": 10.0 }))
    );
    let delay = of("network-delay-external.yaml");
    assert_eq!(
        (&delay[0]["fault"], &delay[0]["params"]),
        (&json!("net.delay"), &json!({ "delay": "90ms", "jitter": "10ms" }))
    );
    assert_eq!((&delay[0]["ttl"], &delay[0]["target"]["dev"]), (&json!("1m 30s"), &json!("eth9")));
    let bandwidth = of("network-bandwidth.yaml");
    assert_eq!(bandwidth[0]["params"], json!({ "rate": "8Mbit/s", "queue": "20971520B" }));
    assert_eq!(of("machine-process.yaml")[0]["params"], json!({ "signal": "TERM" }));
    let kinds = |file: &str| {
        of(file)
            .iter()
            .map(|provider| provider["fault"].as_str().expect("text").to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        kinds("network-netem.yaml"),
        ["net.loss", "net.duplicate", "net.corrupt", "net.delay"]
    );
    assert_eq!(kinds("machine-disk-fill.yaml"), ["disk.fill", "stress.cpu", "clock.offset"]);
    assert_eq!(kinds("stress.yaml"), ["stress.cpu", "stress.memory"]);
    assert_eq!(
        of("time.yaml")[0]["params"],
        json!({ "offset": "-10m 100ns", "clocks": "CLOCK_REALTIME" })
    );
}

#[test]
fn faults_of_all_files_make_sense_as_far_as_there_are_such() {
    let place = Place::new();
    for path in files("mesh") {
        let to = place.0.join(name(&path).replace(".yaml", ".json"));
        let words = [
            "import",
            &*path.to_string_lossy(),
            "--partial",
            "--dev",
            "lo",
            "--out",
            &*to.to_string_lossy(),
        ];
        assert!(place.chaos(&words).status.success());
    }
    let imported = fs::read_dir(&place.0).expect("it is there");
    let imported = imported.map(|entry| entry.expect("an entry").path());
    let ours = files("toolkit").into_iter().filter(|path| ("12".."15").contains(&&name(path)[..2]));
    for path in ours.chain(imported.collect::<Vec<_>>()) {
        let variables = ["--var", "device=lo", "--var", "peer=10.0.0.1", "--var", "process=shop"];
        let output =
            place.chaos(&[&["run", "--dry", &*path.to_string_lossy()][..], &variables].concat());
        let why = errors(&output);
        // Kinds that are not there yet are the only reason.
        let lines = || why.lines().filter(|line| line.starts_with("  "));
        let is_known = lines().all(|line| line.contains("there is none; `chaos list`"));
        match output.status.code() {
            Some(0) => {}
            Some(2) => assert!(is_known && lines().count() > 0, "{}: {why}", name(&path)),
            other => panic!("{}: {other:?}: {why}", name(&path)),
        }
    }
}

#[test]
fn no_file_makes_a_reader_panic() {
    // The same damage in each run: a congruential generator (D. E. Knuth, TAOCP 2, 3.3.4).
    let mut state = 1_u64;
    let mut random = |below: usize| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).expect("31 bits") % below.max(1)
    };
    let odd = [
        "{", "]", ": ", "\n- ", "\"", "null", "-1", "1e999", "${", "$..[?(@", "&a *a", "\u{0}", "ü",
    ];
    for path in files("toolkit").iter().chain(&files("mesh")) {
        let text = read_text(path).expect("text");
        for _ in 0..60 {
            let mut damaged: Vec<char> = text.chars().collect();
            for _ in 0..=random(3) {
                let from = random(damaged.len());
                let to = (from + random(12)).min(damaged.len());
                damaged.splice(from..to, odd[random(odd.len())].chars());
            }
            let damaged: String = damaged.into_iter().collect();
            let _ =
                mesh::import(&damaged, None).map(|imported| Experiment::new(imported.experiment));
            let _ = parse(&damaged).map(|value| {
                (Report::new(&value).map(|report| report.html()), Experiment::new(value).is_ok())
            });
        }
    }
    let laughs = (0..30).fold("a0: &a0 [x]\n".to_owned(), |all, n| {
        all + &format!("a{}: &a{} [*a{n}, *a{n}, *a{n}]\n", n + 1, n + 1)
    });
    for text in [laughs, "[".repeat(100_000), "{\"a\":".repeat(100_000)] {
        parse(&text).expect_err("it is too deep, or too much");
    }
}

#[test]
fn a_journal_becomes_a_report() {
    let server = Server::start();
    let place = Place::new();
    place.run(
        &about(&server, json!([process("touch <it>", "touch done")])),
        0,
        &["--journal", "journal.json"],
    );
    let output = place.chaos(&["report", "journal.json", "--html", "r.html", "--markdown", "r.md"]);
    assert!(output.status.success(), "{}", errors(&output));
    let read = |name: &str| fs::read_to_string(place.0.join(name)).expect("it is written");
    assert!(
        read("r.md").contains("**Verdict: completed: the hypothesis held**"),
        "{}",
        read("r.md")
    );
    let html = read("r.html");
    assert!(html.contains("<svg") && html.contains("touch &lt;it&gt;") && !html.contains("<it>"));
    let printed = place.chaos(&["report", "journal.json"]);
    assert_eq!(String::from_utf8_lossy(&printed.stdout), read("r.md"));
    assert_eq!(
        place.chaos(&["report", "experiment.json"]).status.code(),
        Some(2),
        "that is no journal"
    );
}

#[test]
fn a_fault_in_the_kernel_breaks_the_hypothesis_and_is_gone() {
    if let Some(why) = bpf::doctor::why_not() {
        println!("skipped: {why}");
        return;
    }
    // Numbers of labs are those of a process.
    let lab = lab::Lab::new(0);
    let furniture = lab.furniture();
    let listener =
        lab.on_server(|| std::net::TcpListener::bind((lab::SERVER, 8080)).expect("a port"));
    let server = Server::on(listener);
    let place = Place::new();
    let fault = |pulses: Value| {
        json!({ "type": "action", "name": "cut", "background": true, "provider": {
        "type": "fault", "fault": "net.loss", "netns": lab.client, "ttl": "20s", "pulses": pulses,
        "target": { "dev": lab::DEVICE, "dir": "out", "port": 8080, "proto": "tcp" } } })
    };
    let with = |cut: Value| {
        let mut cut = cut;
        if cut["provider"]["pulses"].is_null() {
            cut["provider"].as_object_mut().expect("a map").remove("pulses");
        }
        cut["pauses"] = json!({ "before": 1 });
        let mut experiment = about(&server, json!([cut]));
        experiment["steady-state-hypothesis"]["probes"][0]["provider"]["netns"] = json!(lab.client);
        experiment["runtime"] = json!({ "hypothesis": { "strategy": "continuously" }, "rollbacks": { "strategy": "deviated" } });
        experiment
    };
    let begin = Instant::now();
    let journal = place.run(&with(fault(Value::Null)), 1, &[]);
    let took = begin.elapsed();
    assert_eq!((&journal["status"], &journal["deviated"]), (&json!("failed"), &json!(true)));
    assert!(took < Duration::from_secs(5), "it ended long before the fault's time: {took:?}");
    let cut = &journal["run"][0];
    assert!(cut["duration"].as_f64().expect("seconds") < 1.5, "{cut}");
    assert!(cut["output"]["counts"]["affected"].as_u64().expect("a count") > 0, "{cut}");
    assert_eq!(cut["output"]["ended_by"], "stopped");
    assert_eq!(
        journal["steady_states"]["after"]["steady_state_met"], true,
        "the fault is gone, and it is up again"
    );
    assert!(place.0.join("put-back").exists(), "it deviated");
    assert_eq!(lab.furniture(), furniture, "nothing is left");
    let report = place.chaos(&["report", "journal.json", "--html", "r.html"]);
    assert!(report.status.success(), "{}", errors(&report));

    // In pulses that are too short to be seen, with a series of counts.
    let mut experiment = with(fault(json!({ "on": "1200ms", "off": "300ms", "times": 2 })));
    experiment["steady-state-hypothesis"]["probes"] = json!([]);
    let mut ask = json!({ "type": "probe", "name": "ask", "provider": { "type": "http", "url": format!("{}/ok", server.base), "netns": lab.client, "timeout": 4 } });
    ask["pauses"] = json!({ "before": 1.2 });
    experiment["method"].as_array_mut().expect("a list").push(ask);
    let journal = place.run(&experiment, 0, &[]);
    let output = &journal["run"][0]["output"];
    assert_eq!(output["faults"].as_array().map(Vec::len), Some(2), "{output}");
    let series = output["series"].as_array().expect("a series");
    assert!(series.len() >= 8 && series.iter().any(|point| point["in_force"] == false), "{output}");
    assert!(output["counts"]["affected"].as_u64() > Some(0), "{output}");
    assert_eq!(lab.furniture(), furniture, "nothing is left");
}

#[test]
fn an_imported_fault_of_files_is_in_force_while_its_experiment_runs() {
    if bpf::doctor::why_not().is_some() || bpf::disk::probe().is_err() {
        println!("skipped: needs root and FUSE");
        return;
    }
    let (place, volume) = (Place::new(), Place::new());
    let text = read_text(&Path::new(FILES).join("mesh/io-fault.yaml")).expect("text");
    let text = text.replace("/var/lib/etcd", &volume.0.to_string_lossy()).replace("10s", "1500ms");
    fs::write(place.0.join("io.yaml"), text).expect("room");
    fs::create_dir_all(volume.0.join("member/wal")).expect("room");
    let imported = place.chaos(&["import", "io.yaml", "--out", "io.json"]);
    assert!(imported.status.success(), "{}", errors(&imported));
    let write =
        |name: &str| fs::write(volume.0.join(name), "x").map_err(|error| error.raw_os_error());
    assert_eq!(write("member/wal/0"), Ok(()));
    let mut run = place.command(&["run", "io.json"]).spawn().expect("chaos is built");
    let begin = Instant::now();
    while write("member/wal/1") != Err(Some(28)) {
        assert!(begin.elapsed() < Duration::from_secs(5), "it is not in force");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(write("member/other"), Ok(()), "another name");
    assert!(run.wait().expect("it ends").success());
    assert_eq!(write("member/wal/2"), Ok(()), "it is over");
    assert!(bpf::disk::mounts().iter().all(|one| one.dir != volume.0));
    assert_eq!(place.journal()["status"], "completed");
}
