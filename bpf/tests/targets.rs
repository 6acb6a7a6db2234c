//! Experiments on real servers, each of which finds something: redis-server, and the cache, the broker and `shardd` of this repository.
//!
//! The files are those of `experiments/targets`, as an operator runs them; a server is started on loopback for each. Needs root; what is not
//! installed, or not built, is named and left out. Next: `experiments/README.md`.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

const CHAOS: &str = env!("CARGO_BIN_EXE_chaos");
const FILES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/experiments/targets");
/// A server answers within this time.
const START: Duration = Duration::from_secs(10);

/// Where a program is: of this build, or as the shell finds it.
fn program(name: &str) -> Option<PathBuf> {
    let ours = Path::new(CHAOS).with_file_name(name);
    let path = std::env::var_os("PATH")?;
    std::iter::once(ours)
        .chain(std::env::split_paths(&path).map(|dir| dir.join(name)))
        .find(|path| path.is_file())
}

/// Whether an experiment can be run, with these programs beside it; says why if not.
fn can_run(programs: &[&str]) -> bool {
    let missing = programs.iter().find(|name| program(name).is_none());
    let why = bpf::doctor::why_not().or_else(|| missing.map(|name| format!("there is no {name}")));
    if let Some(why) = &why {
        println!("skipped: {why}");
    }
    why.is_none()
}

/// A port with free ones behind it.
fn free_ports(count: u16) -> u16 {
    let is_free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
    let from = 20_000 + u16::try_from(std::process::id() % 10_000).expect("small");
    let mut ports = (from..32_000).step_by(usize::from(count));
    ports.find(|port| (*port..port + count).all(is_free)).expect("free ports")
}

/// A server in a directory of its own. Both go with it, and what was started in its place.
struct Server {
    dir: PathBuf,
    port: u16,
    child: Child,
}

impl Server {
    /// Starts one, and waits until it takes connections.
    fn start(name: &str, line: impl FnOnce(u16, &Path) -> Vec<String>) -> Self {
        let port = free_ports(4);
        let dir = format!("chaos-targets-{}-{port}", std::process::id());
        let dir = std::env::temp_dir().join(dir);
        fs::create_dir_all(&dir).expect("a directory");
        let child = Command::new(program(name).expect("it was looked for"))
            .args(line(port, &dir))
            .current_dir(&dir)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("it starts");
        let server = Self { dir, port, child };
        let begin = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(begin.elapsed() < START, "{name} does not listen on port {port}");
            std::thread::sleep(Duration::from_millis(20));
        }
        server
    }

    fn redis() -> Self {
        Self::start("redis-server", |port, _| {
            ["--port", &port.to_string(), "--save", ""].map(str::to_owned).to_vec()
        })
    }

    fn cache() -> Self {
        Self::start("cache", |port, _| {
            let cache = format!("127.0.0.1:{port}");
            ["--cache", &cache, "--admin", "off", "--shards", "1"].map(str::to_owned).to_vec()
        })
    }

    fn broker() -> Self {
        Self::start("broker", broker_line)
    }

    /// All services on one shard: the broker at the port, the cache two behind it.
    fn shardd() -> Self {
        Self::start("shardd", |port, dir| {
            let mut line = broker_line(port, dir);
            line.extend(["--cache".to_owned(), format!("127.0.0.1:{}", port + 2)]);
            line
        })
    }

    /// Runs an experiment on it, which is to end with this exit code; its journal.
    fn run(&self, file: &str, code: i32, start: &str) -> Value {
        let output = Command::new(CHAOS)
            .args(["run", &format!("{FILES}/{file}")])
            .current_dir(&self.dir)
            .env("TARGET_PID", self.child.id().to_string())
            .env("TARGET_PORT", self.port.to_string())
            .env("TARGET_START", start)
            .env("TARGET_DATA", self.dir.join("data"))
            .env("TARGET_CACHE_PORT", (self.port + 2).to_string())
            .output()
            .expect("chaos is built");
        let journal = fs::read_to_string(self.dir.join("journal.json")).unwrap_or_default();
        assert_eq!(output.status.code(), Some(code), "{}{journal}", said(&output));
        serde_json::from_str(&journal).expect("a journal")
    }

    /// What is reported of the last experiment.
    fn report(&self) -> String {
        let output = Command::new(CHAOS)
            .args(["report", "journal.json", "--html", "report.html"])
            .current_dir(&self.dir)
            .output()
            .expect("chaos is built");
        assert!(output.status.success(), "{}", said(&output));
        assert!(fs::read_to_string(self.dir.join("report.html")).expect("a page").contains("<svg"));
        let output = Command::new(CHAOS)
            .args(["report", "journal.json"])
            .current_dir(&self.dir)
            .output()
            .expect("chaos is built");
        String::from_utf8(output.stdout).expect("text")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Ok(pid) = fs::read_to_string(self.dir.join("pid")) {
            let _ = Command::new("kill").args(["-9", pid.trim()]).status();
        }
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn broker_line(port: u16, dir: &Path) -> Vec<String> {
    let (broker, data) = (format!("127.0.0.1:{port}"), dir.join("data").display().to_string());
    ["--broker", &broker, "--admin", "off", "--shards", "1", "--data", &data]
        .map(str::to_owned)
        .to_vec()
}

/// What the first look at a hypothesis found that did not hold.
fn found(journal: &Value) -> String {
    let during = journal["steady_states"]["during"].as_array().expect("looks");
    let broken = during.iter().find(|look| look["steady_state_met"] == false).expect("one broke");
    let probes = broken["probes"].as_array().expect("probes");
    let probe = probes.iter().find(|probe| probe["tolerance_met"] == false).expect("one broke");
    probe["output"]["stdout"].as_str().expect("a text").trim().to_owned()
}

fn number(text: &str) -> f64 {
    text.parse().unwrap_or_else(|_| panic!("{text:?} is no number"))
}

#[test]
fn redis_is_busy_with_a_client_that_it_cannot_accept_and_the_cache_is_not() {
    if !can_run(&["redis-server", "redis-cli", "cache"]) {
        return;
    }
    let redis = Server::redis();
    let journal = redis.run("redis-descriptors.yaml", 1, "");
    assert_eq!(journal["deviated"], true);
    let percent = number(&found(&journal));
    assert!(percent > 20.0, "{percent} % of a core");
    assert_eq!(journal["steady_states"]["after"]["steady_state_met"], true, "and it is over");
    assert!(redis.report().contains("**Verdict: deviated"));
    drop(redis);

    // Its connections are descriptors of its ring, and no limit of a process counts those.
    let cache = Server::cache();
    let journal = cache.run("redis-descriptors.yaml", 0, "");
    let asked = &journal["run"].as_array().expect("activities")[1];
    assert_eq!(asked["output"]["stdout"], "PONG\n", "{asked}");
}

#[test]
fn a_cache_with_a_tenth_of_a_core_makes_some_clients_wait_for_the_next_period() {
    if !can_run(&["cache", "redis-benchmark"]) {
        return;
    }
    let cache = Server::cache();
    let journal = cache.run("cache-cpu-limit.yaml", 1, "");
    assert_eq!(journal["steady_states"]["before"]["steady_state_met"], true);
    let ms = number(&found(&journal));
    assert!(ms > 5.0, "p95 of {ms} ms");
    assert!(cache.report().contains("**Verdict: deviated"));
}

#[test]
fn a_broker_that_is_killed_at_its_40th_sync_has_all_that_it_acknowledged() {
    if !can_run(&["broker", "kcat"]) {
        return;
    }
    let broker = Server::broker();
    let program = program("broker").expect("it was looked for");
    let start = format!(
        "{} {} >/dev/null 2>&1 & echo $! > pid; \
         for n in $(seq 100); do kcat -L -m 1 -b 127.0.0.1:{} >/dev/null 2>&1 && exit 0; sleep 0.1; done; exit 1",
        program.display(),
        broker_line(broker.port, &broker.dir).join(" "),
        broker.port
    );
    let journal = broker.run("broker-crash-at-sync.yaml", 0, &start);
    let activities = journal["run"].as_array().expect("activities");
    let counts = &activities[0]["output"]["counts"];
    assert_eq!((&counts["matched"], &counts["affected"]), (&40.into(), &1.into()));
    let acknowledged = activities[1]["output"]["stdout"].as_str().expect("a text").trim();
    assert!((20.0..40.0).contains(&number(acknowledged)), "{acknowledged} were acknowledged");
    assert!(broker.report().contains("matched 40, affected 1"));
}

#[test]
fn a_shard_whose_disk_takes_200_ms_for_a_sync_answers_the_cache_meanwhile() {
    if !can_run(&["shardd", "kcat", "redis-benchmark"]) {
        return;
    }
    let shardd = Server::shardd();
    let journal = shardd.run("shardd-slow-disk.yaml", 0, "");
    let activities = journal["run"].as_array().expect("activities");
    let synced = activities[0]["output"]["counts"]["affected"].as_u64().expect("a count");
    assert!(synced >= 5, "{synced} syncs were late");
    let ms = number(activities[1]["output"]["stdout"].as_str().expect("a text").trim());
    assert!(ms >= 1000.0, "five messages took {ms} ms");
    let report = shardd.report();
    assert!(report.contains("uring.latency\\_ns.fsync.p50"), "{report}");
}
