//! The clocks of a process that is busy reading them are changed and given back again and again, whoever ends that and however: the
//! process goes on, and its code is what it was. Next: `workloads::worker::clock`.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::chaos::Fault;
use crate::workloads::With;
use crate::workloads::worker::{Worker, assert_clean, mappings, vdso};

/// So often.
const TIMES: usize = 50;
/// After SIGKILL of its keeper, a process has its own clocks again: but for some of many times, since others are busy here too.
const BACK_WITHIN: Duration = Duration::from_millis(100);
const LATE_MAX: usize = 3;
/// And never later.
const BACK_MAX: Duration = Duration::from_secs(2);

fn with(value: serde_json::Value) -> With {
    serde_json::from_value(value).expect("an object")
}

fn inject(pid: u32, more: &[&str]) -> Fault {
    let pid = pid.to_string();
    let words = ["clock.offset", "--pid", &pid, "--offset", "1h"];
    let words = words.iter().chain(&["--clocks", "CLOCK_REALTIME,CLOCK_MONOTONIC"]).chain(more);
    Fault::inject(&words.map(|word| (*word).to_owned()).collect::<Vec<_>>())
}

/// How long it takes until the process has its own code again.
fn time_until_back(pid: u32, code: &[u8]) -> Duration {
    let begin = Instant::now();
    while vdso(pid).as_deref() != Some(code) {
        assert!(begin.elapsed() < BACK_MAX, "it is not given back");
        std::thread::sleep(Duration::from_millis(1));
    }
    begin.elapsed()
}

fn say(what: &str, times: &mut [Duration]) {
    times.sort_unstable();
    if std::env::var_os("FIGURES").is_some() {
        println!("{what}: median {:?}, most {:?}", times[times.len() / 2], times[times.len() - 1]);
    }
}

/// Four threads read clocks all the time, while threads begin and end.
pub(crate) fn fifty_times_under_load() {
    let with =
        with(json!({ "op": "clock-spin", "threads": 4, "ms": 20_000, "timeout_ms": 90_000 }));
    let mut worker = Worker::start(&with, "w");
    let pid = worker.pid();
    let code = vdso(pid).expect("it has one");
    let mut times = Vec::new();
    let figures = std::thread::scope(|scope| {
        let phase = scope.spawn(|| worker.phase());
        for number in 0..TIMES {
            let fault = inject(pid, &[]);
            assert!(vdso(pid).is_some_and(|now| now != code), "it is changed");
            std::thread::sleep(Duration::from_millis(30));
            if number % 2 == 0 {
                fault.kill();
                times.push(time_until_back(pid, &code));
            } else {
                let counts = fault.stop();
                assert!(counts.affected > 0, "it acted: {counts:?}");
                assert_eq!(vdso(pid).as_deref(), Some(&*code), "it is given back");
            }
            assert!(!phase.is_finished() || number > TIMES / 2, "the load is too short");
        }
        phase.join().expect("it ends")
    });
    assert_clean(&with, &figures, "under load");
    say("given back after SIGKILL, under load", &mut times);
    let late = times.iter().filter(|time| **time > BACK_WITHIN).count();
    assert!(late <= LATE_MAX, "{late} times later than {BACK_WITHIN:?}: {times:?}");
}

/// A keeper that is killed at any moment of its start leaves nothing: a process that goes on, with its own clocks and memory.
pub(crate) fn keepers_are_killed_at_any_moment() {
    let with = with(json!({ "op": "clock", "ms": 100 }));
    let mut worker = Worker::start(&with, "w");
    assert_clean(&with, &worker.phase(), "before");
    let pid = worker.pid();
    let (code, map) = (vdso(pid).expect("it has one"), mappings(pid));
    let mut changed = 0;
    for step in 0..60_u64 {
        let mut keeper = keeper(pid);
        std::thread::sleep(Duration::from_micros(step * 500));
        keeper.kill().expect("it runs");
        keeper.wait().expect("it ended");
        changed += u32::from(vdso(pid).as_deref() != Some(&code));
        // The watchdog, or the next command if it was killed before there was one.
        let end = Instant::now() + BACK_WITHIN;
        while vdso(pid).as_deref() != Some(&code) && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(1));
        }
        crate::chaos::status();
        assert_eq!(vdso(pid).as_deref(), Some(&*code), "step {step}");
        assert_eq!(mappings(pid), map, "step {step}");
    }
    assert!(changed > 5, "only {changed} of the keepers were killed late enough");
    assert_clean(&with, &worker.phase(), "after");
}

/// A file of Chaos Mesh, imported and run as it is but for its length.
pub(crate) fn time_chaos_runs() {
    let dir = std::env::temp_dir().join(format!("chaos-time-{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("a directory");
    let text = include_str!("../../experiments/mesh/time.yaml").replace("30s", "3s");
    std::fs::write(dir.join("time.yaml"), text).expect("room");
    let chaos = |words: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_chaos"));
        command.args(words).current_dir(&dir).stdout(std::process::Stdio::null());
        command
    };
    let imported = chaos(&["import", "time.yaml", "--out", "time.json"]).status();
    assert!(imported.expect("chaos is built").success());
    let with = with(json!({ "op": "clock", "ms": 500, "by": "gettimeofday" }));
    let mut worker = Worker::start(&with, "w");
    let variable = worker.expand("process=COMM");
    let code = vdso(worker.pid());
    let mut run = chaos(&["run", "time.json", "--var", &variable]).spawn().expect("chaos is built");
    let begin = Instant::now();
    while vdso(worker.pid()) == code && begin.elapsed() < BACK_MAX {
        std::thread::sleep(Duration::from_millis(5));
    }
    let figures = worker.phase();
    assert!(run.wait().expect("it ends").success());
    // Ten minutes and a little, in whole microseconds.
    assert!((-600_001.0..=-600_000.0).contains(&figures["shift_least_ms"]), "{figures:?}");
    assert_clean(&with, &worker.phase(), "after");
    std::fs::remove_dir_all(&dir).expect("it is there");
}

/// What a server answers to a command.
fn ask(server: &mut BufReader<TcpStream>, command: &str) -> String {
    server.get_mut().write_all(format!("{command}\r\n").as_bytes()).expect("it is there");
    let mut line = String::new();
    server.read_line(&mut line).expect("it answers");
    line.trim_end().to_owned()
}

/// Keys of a real server expire an hour too early, and no other; skipped without one.
pub(crate) fn keys_of_redis_expire() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|one| one.local_addr());
    let port = port.expect("a port").port();
    let arguments = ["--save", "", "--appendonly", "no", "--hz", "100", "--port"];
    let server = Command::new("redis-server")
        .args(arguments)
        .arg(port.to_string())
        .stdout(std::process::Stdio::null())
        .spawn();
    let Ok(mut server) = server else {
        println!("skipped: there is no redis-server");
        return;
    };
    let begin = Instant::now();
    let stream = loop {
        match TcpStream::connect(("127.0.0.1", port)) {
            Ok(stream) => break stream,
            Err(_) if begin.elapsed() < BACK_MAX => std::thread::sleep(Duration::from_millis(10)),
            Err(error) => panic!("{error}"),
        }
    };
    let redis = &mut BufReader::new(stream);
    assert_eq!(ask(redis, "SET minute v EX 60"), "+OK");
    assert_eq!(ask(redis, "SET day v EX 86400"), "+OK");
    let fault = inject(server.id(), &[]);
    assert_eq!(ask(redis, "EXISTS minute"), ":0", "its time is over");
    let left: u32 = ask(redis, "TTL day")[1..].parse().expect("a number");
    assert!((82_700..=82_800).contains(&left), "{left}");
    fault.kill();
    std::thread::sleep(BACK_WITHIN);
    let left: u32 = ask(redis, "TTL day")[1..].parse().expect("a number");
    assert!((86_300..=86_400).contains(&left), "{left}");
    assert_eq!(ask(redis, "PING"), "+PONG");
    server.kill().expect("it runs");
    server.wait().expect("it ended");
}

fn keeper(pid: u32) -> Child {
    Command::new(env!("CARGO_BIN_EXE_chaos"))
        .args(["inject", "clock.offset", "--pid", &pid.to_string(), "--offset", "1h", "--json"])
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("chaos is built")
}
