//! The append-only log in real processes: killed at any time, started again, nothing acknowledged is missing.
//!
//! Invariants asserted: with `appendfsync always`, every write whose reply arrived is there after `kill -9`; a command over
//! several shards is there on all of them or on none; a log is read with another number of shards; a rewritten log gives the
//! same keys; damage ends the start and names the place. `LOG_KILL_ROUNDS=n` kills more often.
//! Where next: `src/tests/log.rs` for what is logged.
#![expect(
    clippy::disallowed_methods,
    reason = "a test drives real processes and reads the environment"
)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::Rng;
use common::resp::{Client, Reply};
use common::server::{Server, Turn, cache_command, free_ports, must, scratch};

const WRITERS: usize = 6;

fn rounds() -> u64 {
    std::env::var("LOG_KILL_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(3)
}

/// A directory that is empty, and goes with the test.
struct Files(PathBuf);

impl Files {
    fn new(name: &str) -> Self {
        let path = scratch().join(format!("log-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).expect("a directory");
        Self(path)
    }

    fn start(&self, shards: u16, fsync: &str) -> Server {
        let dir = self.0.to_str().expect("plain text");
        let options = ["--appendonly", "yes", "--appendfsync", fsync, "--dir", dir];
        Server::cache_with(shards, &options)
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn number(client: &mut Client, key: &str) -> u64 {
    match must(client.words(&format!("GET {key}")), "GET") {
        Reply::Bulk(text) => String::from_utf8_lossy(&text).parse().expect("a number"),
        _ => 0,
    }
}

/// Writes until the server is gone; the last number that was acknowledged, and the last that was sent.
fn write(mut client: Client, who: usize, from: (u64, u64), stop: &AtomicBool) -> ((u64, u64), u64) {
    let (mut counted, mut paired) = from;
    let mut sent = paired;
    while !stop.load(Ordering::Relaxed) {
        match client.words(&format!("INCR counter:{who}")) {
            Ok(Reply::Int(value)) => counted = u64::try_from(value).expect("positive"),
            _ => break,
        }
        sent = paired + 1;
        let pair = format!("MSET left:{who} {sent} right:{who} {sent} more:{who} {sent}");
        match client.words(&pair) {
            Ok(Reply::Simple(_)) => paired = sent,
            _ => break,
        }
    }
    ((counted, paired), sent)
}

fn killed_and_started_again(shards: u16) {
    let _turn = Turn::shared();
    let files = Files::new(&format!("kill-{shards}"));
    let mut rng = Rng::new(u64::from(shards));
    let mut known = [(0, 0); WRITERS];
    for round in 0..rounds() {
        let server = files.start(shards, "always");
        let clients: Vec<Client> = (0..WRITERS).map(|_| server.client()).collect();
        let stop = AtomicBool::new(false);
        let results: Vec<((u64, u64), u64)> = thread::scope(|scope| {
            let writers: Vec<_> = clients
                .into_iter()
                .enumerate()
                .map(|(who, client)| {
                    let (stop, from) = (&stop, known[who]);
                    scope.spawn(move || write(client, who, from, stop))
                })
                .collect();
            thread::sleep(Duration::from_millis(200 + rng.below(800) as u64));
            // kill -9, in the middle of it.
            drop(server);
            stop.store(true, Ordering::Relaxed);
            writers.into_iter().map(|writer| writer.join().expect("a result")).collect()
        });
        let server = files.start(shards, "always");
        let mut client = server.client();
        for (who, ((counted, paired), sent)) in results.into_iter().enumerate() {
            let is = number(&mut client, &format!("counter:{who}"));
            assert!(
                is == counted || is == counted + 1,
                "round {round}, writer {who}: {counted} was acknowledged, {is} is there"
            );
            let pairs =
                ["left", "right", "more"].map(|name| number(&mut client, &format!("{name}:{who}")));
            assert!(
                pairs.iter().all(|pair| *pair == pairs[0]),
                "round {round}, writer {who}: {pairs:?}"
            );
            assert!(
                (paired..=sent).contains(&pairs[0]),
                "round {round}: {paired} {pairs:?} {sent}"
            );
            known[who] = (is, pairs[0]);
        }
        println!("round {round}: {known:?}");
        assert!(known.iter().all(|(counted, _)| *counted > 0), "nothing was written");
    }
}

#[test]
fn killed_with_one_shard() {
    killed_and_started_again(1);
}

#[test]
fn killed_with_two_shards() {
    killed_and_started_again(2);
}

fn fill(client: &mut Client) {
    for at in 0..300 {
        for words in [
            format!("SET s:{at} {at}"),
            format!("RPUSH l:{at} a b {at}"),
            format!("HSET h:{at} f {at}"),
            format!("ZADD z:{} {at} m{at}", at % 7),
            format!("SADD t:{} {at}", at % 5),
            format!("XADD x:{} * f {at}", at % 3),
            format!("RENAME s:{at} r:{at}"),
        ] {
            let reply = must(client.words(&words), &words);
            assert!(!reply.is_error(), "{words}: {reply:?}");
        }
    }
}

/// Something of everything.
fn facts(client: &mut Client) -> Vec<Reply> {
    let questions = [
        "DBSIZE",
        "GET r:7",
        "LRANGE l:9 0 -1",
        "HGETALL h:200",
        "ZRANGE z:3 0 -1 WITHSCORES",
        "SCARD t:4",
        "XLEN x:1",
        "GET r:299",
        "EXISTS s:1",
        "ZCARD z:0",
    ];
    questions.iter().map(|words| must(client.words(words), words)).collect()
}

#[test]
fn another_number_of_shards_and_a_rewritten_log_give_the_same_keys() {
    let _turn = Turn::shared();
    let files = Files::new("shards");
    let mut server = files.start(2, "everysec");
    let mut client = server.client();
    fill(&mut client);
    let before = facts(&mut client);
    for (shards, rewrite) in [(1, false), (3, true), (3, false), (2, true), (2, false)] {
        server.terminate();
        server.wait(Duration::from_secs(5)).expect("an end");
        server = files.start(shards, "everysec");
        client = server.client();
        assert_eq!(facts(&mut client), before, "{shards} shards: {}", server.log());
        if rewrite {
            let reply = must(client.words("BGREWRITEAOF"), "BGREWRITEAOF");
            assert!(!reply.is_error(), "{reply:?}");
            wait_for_info(&mut client, &["aof_rewrite_in_progress:0", "aof_rewrites:1"]);
        }
    }
}

/// Waits until INFO says so of the log.
fn wait_for_info(client: &mut Client, facts: &[&str]) {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let info = must(client.words("INFO persistence"), "INFO");
        let info = String::from_utf8_lossy(info.bytes()).into_owned();
        if facts.iter().all(|fact| info.contains(fact)) {
            return;
        }
        assert!(Instant::now() < deadline, "{facts:?}: {info}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// Going off has an end, and what is written after going on again is logged.
#[test]
fn a_log_that_went_off_and_on_again_under_load_has_all_keys() {
    let _turn = Turn::shared();
    for shards in [1, 2] {
        let files = Files::new(&format!("switch-{shards}"));
        let server = files.start(shards, "always");
        let stop = AtomicBool::new(false);
        let ((counted, paired), sent) = thread::scope(|scope| {
            let (client, stop) = (server.client(), &stop);
            let writer = scope.spawn(move || write(client, 0, (0, 0), stop));
            let mut client = server.client();
            for _ in 0..3 {
                let _ = must(client.words("CONFIG SET appendonly no"), "off");
                wait_for_info(&mut client, &["aof_enabled:0"]);
                let _ = must(client.words("CONFIG SET appendonly yes"), "on");
                wait_for_info(&mut client, &["aof_enabled:1", "aof_rewrite_in_progress:0"]);
            }
            thread::sleep(Duration::from_millis(300));
            drop(server);
            stop.store(true, Ordering::Relaxed);
            writer.join().expect("a result")
        });
        let server = files.start(shards, "always");
        let mut client = server.client();
        let is = number(&mut client, "counter:0");
        assert!(is == counted || is == counted + 1, "{counted} was acknowledged, {is} is there");
        let pair = number(&mut client, "left:0");
        assert!((paired..=sent).contains(&pair), "{paired} {pair} {sent}");
    }
}

/// Segment files below a directory.
fn segments(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).expect("a directory").flatten() {
        let path = entry.path();
        if path.is_dir() {
            segments(&path, found);
        } else if path.file_name().is_some_and(|name| name != "manifest") {
            found.push(path);
        }
    }
}

#[test]
fn damage_ends_the_start_and_names_the_place() {
    let _turn = Turn::shared();
    let files = Files::new("damage");
    let mut server = files.start(1, "always");
    fill(&mut server.client());
    server.terminate();
    server.wait(Duration::from_secs(5)).expect("an end");
    let mut found = Vec::new();
    segments(&files.0, &mut found);
    // The oldest segment, some way into its records, long before what was written last.
    found.sort();
    let path = found.first().expect("a segment");
    let mut bytes = fs::read(path).expect("a file");
    bytes[8192 + 100] ^= 0xff;
    fs::write(path, bytes).expect("written");
    let port = free_ports(3);
    let mut command = cache_command(port, 1);
    command
        .args(["--appendonly", "yes", "--dir"])
        .arg(&files.0)
        .stderr(std::process::Stdio::piped());
    let output = command.output().expect("it runs and ends");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("damaged from position") && text.contains("restore"), "{text}");
}
